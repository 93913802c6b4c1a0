//! The CoAP client and server machines against another implementation: libcoap's `coap-client-notls` and
//! `coap-server-notls` (Debian package `libcoap3-bin`), over plain UDP on loopback.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at what it does not expect"
)]

use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant as Clock};

use tidelog_lowpan::coap::{
    Admission, Code, Event, Exchange, Exchanges, Kind, Message, Transmission, Writer, option,
};
use tidelog_lowpan::time::Instant;

const PATIENCE: Duration = Duration::from_secs(30);

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    socket
}

fn elapsed(since: Clock) -> Instant {
    Instant::from_micros(i64::try_from(since.elapsed().as_micros()).unwrap())
}

/// libcoap's example server, killed when it goes out of scope.
struct Server(Child, SocketAddr);

impl Server {
    fn start() -> Self {
        let address = socket().local_addr().unwrap();
        let child = Command::new("coap-server-notls")
            .args(["-A", "127.0.0.1", "-p", &address.port().to_string(), "-d", "10"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("coap-server-notls is in Debian's libcoap3-bin");
        Self(child, address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// One request of ours; the answer's kind, code and payload, and how many datagrams of the server's it took.
fn ask(server: &Server, method: Code, path: &[&str], payload: &[u8]) -> (Kind, Code, Vec<u8>, usize) {
    let (socket, started) = (socket(), Clock::now());
    socket.connect(server.1).unwrap();
    let mut exchange = Exchange::<256>::new(Transmission::RFC7252, 0xabcd_1234);
    exchange.start(elapsed(started), 0x7777_0000, method, path, payload).unwrap();
    let (mut answer, mut datagrams) = (None, 0);
    loop {
        assert_eq!(exchange.handle_timeout(elapsed(started)), None);
        while let Some(bytes) = exchange.poll_transmit() {
            // Nobody may be there yet; the request is repeated.
            drop(socket.send(bytes));
        }
        if let Some((kind, code, payload)) = answer {
            return (kind, code, payload, datagrams);
        }
        assert!(started.elapsed() < PATIENCE, "no answer to {method} {path:?}");
        let mut datagram = [0; 1500];
        let Ok(length) = socket.recv(&mut datagram) else { continue };
        datagrams += 1;
        match exchange.handle_datagram(elapsed(started), &datagram[..length]) {
            Event::Response(m) => answer = Some((m.kind(), m.code(), m.payload().to_vec())),
            Event::Nothing => {}
            event => panic!("{event:?}"),
        }
    }
}

#[test]
fn libcoaps_server_understands_our_client() {
    let server = Server::start();
    let (kind, code, payload, _) = ask(&server, Code::GET, &[], b"");
    assert_eq!((kind, code), (Kind::Acknowledgement, Code::CONTENT));
    assert!(payload.starts_with(b"This is a test server"), "{}", String::from_utf8_lossy(&payload));
    let (_, code, ..) = ask(&server, Code::PUT, &["made", "by us"], b"stored");
    assert_eq!(code, Code::CREATED);
    let (_, code, payload, _) = ask(&server, Code::GET, &["made", "by us"], b"");
    assert_eq!((code, payload), (Code::CONTENT, b"stored".to_vec()));
    let (_, code, ..) = ask(&server, Code::GET, &["nowhere"], b"");
    assert_eq!(code, Code::NOT_FOUND);
}

#[test]
fn libcoaps_separate_response_ends_our_request() {
    let server = Server::start();
    let (kind, code, payload, datagrams) = ask(&server, Code::GET, &["async"], b"");
    assert_eq!((kind, code, payload), (Kind::Confirmable, Code::CONTENT, b"done".to_vec()));
    assert_eq!(datagrams, 2, "an acknowledgement alone came first");
}

/// Posts with libcoap's client to our server, which loses the first `lost` answers; what the client printed, and how
/// often the request was done.
fn posted_by_libcoap(lost: usize, code: Code, answer: &[u8]) -> (String, usize) {
    let (socket, started) = (socket(), Clock::now());
    let port = socket.local_addr().unwrap().port();
    let mut client = Command::new("coap-client-notls")
        .args(["-m", "post", "-e", "reading", "-B", "20", &format!("coap://127.0.0.1:{port}/b/of%20two?x=1")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("coap-client-notls is in Debian's libcoap3-bin");
    let mut exchanges = Exchanges::<SocketAddr, 4, 64>::new();
    let (mut done, mut answers) = (0, 0);
    while client.try_wait().unwrap().is_none() {
        assert!(started.elapsed() < PATIENCE, "the client goes on");
        let mut datagram = [0; 1500];
        let Ok((length, from)) = socket.recv_from(&mut datagram) else { continue };
        let request = Message::parse(&datagram[..length]).unwrap();
        assert_eq!(
            (request.kind(), request.code(), request.payload()),
            (Kind::Confirmable, Code::POST, &b"reading"[..])
        );
        assert!(request.path_is(&["b", "of two"]));
        assert!(request.values(option::URI_QUERY).eq([b"x=1"]));
        let reply = match exchanges.admit(elapsed(started), from, request.id()) {
            Admission::Answered(reply) => reply.to_vec(),
            Admission::InProgress => continue,
            Admission::New => {
                done += 1;
                let mut buffer = [0; 64];
                let writer = Writer::answering(&mut buffer, &request, code, 1).unwrap();
                let length = writer.uint(option::MAX_AGE, 60).unwrap().payload(answer).unwrap();
                exchanges.answer(from, request.id(), &buffer[..length]).unwrap();
                buffer[..length].to_vec()
            }
        };
        answers += 1;
        if answers > lost {
            socket.send_to(&reply, from).unwrap();
        }
    }
    let output = client.wait_with_output().unwrap();
    (String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(), done)
}

#[test]
fn libcoaps_client_understands_our_server() {
    let (printed, done) = posted_by_libcoap(0, Code::CHANGED, b"well done");
    assert!(printed.contains("well done"), "{printed}");
    assert_eq!(done, 1);
    let (printed, _) = posted_by_libcoap(0, Code::UNAVAILABLE, b"");
    assert!(printed.contains("5.03"), "{printed}");
}

#[test]
fn a_request_that_libcoaps_client_repeats_is_done_once() {
    let (printed, done) = posted_by_libcoap(1, Code::CHANGED, b"well done");
    assert!(printed.contains("well done"), "{printed}");
    assert_eq!(done, 1);
}
