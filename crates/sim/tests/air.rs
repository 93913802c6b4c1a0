//! Endpoints on real sockets through the air: what arrives is what was sent, whatever the air does to frames.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::cast_possible_truncation, reason = "patterns of bytes wrap on purpose")]

use std::net::SocketAddr;
use std::time::Duration;

use tidelog_lowpan::time::Instant;
use tidelog_lowpan::{COAP_PORT, Endpoint, EndpointConfig, Peer, Quality, SendError, zep};
use tidelog_record::DeviceId;
use tidelog_sim::air::{Air, AirError, AirOptions};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

type Station = Endpoint<1280, 16, 16, 64>;

const PATIENCE: Duration = Duration::from_secs(60);
/// A datagram that is not there by then was lost with all its repetitions on the link.
const AGAIN: Duration = Duration::from_millis(300);
const PAIRS: u8 = 20;

fn eui(n: u8) -> DeviceId {
    DeviceId([0x02, 0x12, 0x4b, 0, 0, 0, 0, n])
}

fn peer(n: u8) -> Peer {
    Peer { device: eui(n), port: COAP_PORT }
}

/// An endpoint on its own socket and task.
struct Running {
    outbox: mpsc::Sender<(Peer, Vec<u8>)>,
    inbox: mpsc::Receiver<(Peer, Vec<u8>)>,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(n: u8, air: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(air).await.unwrap();
        let entropy = u64::from(socket.local_addr().unwrap().port());
        let station = Station::new(EndpointConfig::new(eui(n)), entropy).unwrap();
        let (outbox, asked) = mpsc::channel(16);
        let (heard, inbox) = mpsc::channel(1_024);
        Self { outbox, inbox, task: tokio::spawn(drive(socket, station, asked, heard)) }
    }

    async fn send(&self, to: u8, payload: &[u8]) {
        self.outbox.send((peer(to), payload.to_vec())).await.unwrap();
    }

    async fn next(&mut self) -> (Peer, Vec<u8>) {
        tokio::time::timeout(PATIENCE, self.inbox.recv()).await.expect("in time").expect("running")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn drive(
    socket: UdpSocket,
    mut station: Station,
    mut asked: mpsc::Receiver<(Peer, Vec<u8>)>,
    heard: mpsc::Sender<(Peer, Vec<u8>)>,
) {
    let start = std::time::Instant::now();
    let now = || Instant::from_micros(i64::try_from(start.elapsed().as_micros()).unwrap());
    let mut sequence = 0;
    let mut waiting: Option<(Peer, Vec<u8>)> = None;
    // A beacon says who is here, before anything is sent.
    let mut beacon = vec![0x00, 0xc0, 0, 0x23, 0x00];
    beacon.extend(station.config().eui.0.iter().rev());
    beacon.extend([0xff, 0xcf, 0, 0]);
    let mut hello = [0; zep::PACKET_BYTES_MAX];
    let length = zep::encode(&zep::Header::default(), &beacon, &mut hello).unwrap();
    socket.send(&hello[..length]).await.unwrap();
    loop {
        let (mut frame, mut datagram, mut payload) = ([0; 127], [0; zep::PACKET_BYTES_MAX], [0; 1280]);
        if let Some((to, bytes)) = waiting.take() {
            match station.send(now(), to, &bytes) {
                Ok(()) => {}
                Err(SendError::Busy) => waiting = Some((to, bytes)),
                Err(error) => panic!("{error}"),
            }
        }
        while let Some(length) = station.poll_transmit(now(), &mut frame) {
            sequence += 1;
            let header = zep::Header { channel: 26, sequence, ..zep::Header::default() };
            let length = zep::encode(&header, &frame[..length], &mut datagram).unwrap();
            socket.send(&datagram[..length]).await.unwrap();
        }
        while let Some((from, length)) = station.receive(&mut payload) {
            heard.send((from, payload[..length].to_vec())).await.unwrap();
        }
        let due = station.poll_timeout().map(|at| (at - now().min(at)).total_micros());
        let due = Duration::from_micros(due.unwrap_or(3_600_000_000));
        tokio::select! {
            length = socket.recv(&mut datagram) => {
                let length = length.unwrap();
                if let zep::Packet::Data(_, frame) = zep::decode(&datagram[..length]).unwrap() {
                    station.handle_frame(now(), frame, Quality { rssi_dbm: -60, lqi: 255 });
                }
            }
            Some(wanted) = asked.recv(), if waiting.is_none() => waiting = Some(wanted),
            () = tokio::time::sleep(due) => station.handle_timeout(now()),
        }
    }
}

/// A payload that says what it is, so that a changed, mixed or doubled one is found.
fn payload(from: u8, number: u16, length: usize) -> Vec<u8> {
    let [high, low] = number.to_be_bytes();
    (0..length.max(3)).map(|at| [from, high, low, at as u8][at.min(3)]).collect()
}

/// Sends until it is there, as CoAP does. What comes meanwhile may only be a late copy of something sent before.
async fn insist(
    outbox: &mpsc::Sender<(Peer, Vec<u8>)>,
    to: &mut mpsc::Receiver<(Peer, Vec<u8>)>,
    sent: &[Sent],
) {
    let (now, before) = sent.split_last().unwrap();
    loop {
        outbox.send((peer(now.to), now.bytes.clone())).await.unwrap();
        match tokio::time::timeout(AGAIN, to.recv()).await {
            Ok(Some((source, got))) if got == now.bytes => return assert_eq!(source, peer(now.from)),
            Ok(Some((_, got))) => {
                assert!(before.iter().any(|sent| sent.bytes == got), "{got:?} was never sent");
            }
            Ok(None) => panic!("the station ended"),
            Err(_) => {}
        }
    }
}

struct Sent {
    from: u8,
    to: u8,
    bytes: Vec<u8>,
}

/// Payloads of these tens of bytes, each way on its own, both ways at once.
async fn talk(one: u8, two: u8, air: SocketAddr, lengths: impl Iterator<Item = u16> + Clone) {
    let (mut a, mut b) = (Running::start(one, air).await, Running::start(two, air).await);
    let (out_a, out_b) = (a.outbox.clone(), b.outbox.clone());
    let way = async |from, to, outbox: &mpsc::Sender<_>, inbox: &mut mpsc::Receiver<_>| {
        let mut sent = Vec::new();
        for number in lengths.clone() {
            let bytes = payload(from, number, 3 + usize::from(number) * 10);
            sent.push(Sent { from, to, bytes });
            insist(outbox, inbox, &sent).await;
        }
    };
    tokio::join!(way(one, two, &out_a, &mut b.inbox), way(two, one, &out_b, &mut a.inbox));
}

#[tokio::test]
async fn thirty_percent_loss_changes_nothing_of_what_arrives() {
    let seed = 0x0a1b_2c3d;
    println!("seed {seed}");
    let options = AirOptions {
        loss: 0.3,
        delay: Duration::from_millis(1),
        jitter: Duration::from_millis(3),
        duplicate: 0.1,
        seed,
        ..AirOptions::default()
    };
    let air = Air::start(options).await.unwrap();
    // Pairs that talk at once share the air and the wait for what was lost.
    let pairs = (0..PAIRS).map(|pair| {
        let (one, two) = (2 * pair + 1, 2 * pair + 2);
        tokio::spawn(talk(one, two, air.address(), (u16::from(pair)..60).step_by(usize::from(PAIRS))))
    });
    for pair in pairs.collect::<Vec<_>>() {
        tokio::time::timeout(PATIENCE, pair).await.expect("arrives in the end").unwrap();
    }
    let counters = air.stop().await;
    println!("{counters:?}");
    assert!(counters.lost > 0 && counters.duplicated > 0 && counters.malformed == 0);
    assert_eq!(counters.stations, 2 * u64::from(PAIRS));
}

#[tokio::test]
async fn a_station_that_restarts_on_another_socket_is_found_again() {
    let air = Air::start(AirOptions::default()).await.unwrap();
    let mut gateway = Running::start(1, air.address()).await;
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for life in 0..3u16 {
        let mut sensor = Running::start(2, air.address()).await;
        // A frame may have a number that the life before used within the second, and is taken for its repeat.
        up.push(Sent { from: 2, to: 1, bytes: payload(2, life, 200) });
        insist(&sensor.outbox, &mut gateway.inbox, &up).await;
        down.push(Sent { from: 1, to: 2, bytes: payload(1, life, 100) });
        insist(&gateway.outbox, &mut sensor.inbox, &down).await;
    }
    assert_eq!(air.stop().await.stations, 2);
}

#[tokio::test]
async fn a_station_that_only_listened_so_far_is_reached() {
    let air = Air::start(AirOptions::default()).await.unwrap();
    let mut quiet = Running::start(1, air.address()).await;
    while air.counters().stations < 1 {
        tokio::task::yield_now().await;
    }
    let loud = Running::start(2, air.address()).await;
    loud.send(1, b"anybody there").await;
    assert_eq!(quiet.next().await, (peer(2), b"anybody there".to_vec()));
}

#[tokio::test]
async fn one_gateway_hears_many_stations_with_equal_sequence_numbers() {
    let stations_count = 60u8;
    let air = Air::start(AirOptions { seed: 5, loss: 0.05, ..AirOptions::default() }).await.unwrap();
    let mut gateway = Running::start(1, air.address()).await;
    let mut stations = Vec::new();
    for n in 2..2 + stations_count {
        stations.push(Running::start(n, air.address()).await);
    }
    for (station, n) in stations.iter().zip(2u8..) {
        station.send(1, &payload(n, 0, 300)).await;
    }
    let mut missing: std::collections::BTreeSet<u8> = (2..2 + stations_count).collect();
    while !missing.is_empty() {
        match tokio::time::timeout(Duration::from_secs(2), gateway.inbox.recv()).await {
            Ok(Some((from, got))) => {
                let n = got[0];
                assert_eq!((from, &got), (peer(n), &payload(n, 0, 300)));
                missing.remove(&n);
            }
            Ok(None) => panic!("the gateway ended"),
            Err(_) => {
                for n in &missing {
                    stations[usize::from(*n) - 2].send(1, &payload(*n, 0, 300)).await;
                }
            }
        }
    }
    println!("{:?}", air.stop().await);
}

#[tokio::test]
async fn total_loss_is_silence_and_ends_when_it_is_lifted() {
    let air = Air::start(AirOptions { loss: 1.0, ..AirOptions::default() }).await.unwrap();
    let mut gateway = Running::start(1, air.address()).await;
    let sensor = Running::start(2, air.address()).await;
    sensor.send(1, b"unheard").await;
    while air.counters().lost < 4 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    air.set_loss(0.0).unwrap();
    sensor.send(1, b"heard").await;
    loop {
        let (_, got) = gateway.next().await;
        if got == b"heard" {
            break;
        }
    }
}

#[tokio::test]
async fn odds_beyond_one_are_refused() {
    let refused = Air::start(AirOptions { loss: 1.5, ..AirOptions::default() }).await;
    assert!(matches!(refused, Err(AirError::Odds { name: "loss", .. })));
}
