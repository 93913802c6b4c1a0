//! A gateway on an interface that hands it IPv6 datagrams, as `lowpan0` does: stations are who their link-local addresses say. The interface here
//! is Ethernet, since few kernels have 802.15.4; from IPv6 up there is no difference.

use std::io::Write;
use std::process::Stdio;

use tidelog_lowpan::COAP_PORT;
use tidelog_lowpan::coap::{Code, Kind, Message, Writer, option};
use tidelog_record::DeviceId;
use tidelog_record::uplink::{
    Answer, BatchEncoder, METRICS_MAX, Metric, Reading, SCHEMA_BYTES_MAX, Sample, Schema, encode_registration,
};

use crate::space::{Network, Space};
use crate::support::until;

const STATION: DeviceId = DeviceId([0x02, 0x12, 0x4b, 0, 0, 0, 0, 1]);
const STATION_ADDRESS: &str = "fe80::12:4b00:0:1";
const GATEWAY_ADDRESS: &str = "fe80::a";
const METRICS: [Metric<'static>; 1] = [Metric { name: "temperature_celsius", scale: Some(2) }];
/// Octets of a request, all of it.
const REQUEST_BYTES_MAX: usize = 512;

/// Sends datagrams in hexadecimal, a line each, from one address to another, and prints what comes back for each; a line without anything is an
/// answer that did not come.
const TALK: &str = r"
import socket, sys
source, target, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
speak = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
speak.settimeout(3)
resolve = lambda name: socket.getaddrinfo(name, port, socket.AF_INET6, socket.SOCK_DGRAM)[0][4]
speak.bind(resolve(source))
for line in sys.stdin:
    speak.sendto(bytes.fromhex(line), resolve(target))
    try:
        print(speak.recv(2048).hex())
    except TimeoutError:
        print()
";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// What came back for each datagram.
fn talk(space: &Space, source: &str, target: &str, datagrams: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut command = space.command("python3");
    command.args(["-c", TALK, source, target, &COAP_PORT.to_string()]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let lines: String = datagrams.iter().map(|datagram| hex(datagram) + "\n").collect();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().lines().map(unhex).collect()
}

fn post(id: u16, path: &str, format: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = [0; REQUEST_BYTES_MAX];
    let writer = Writer::new(&mut out, Kind::Confirmable, Code::POST, id, &[7]).unwrap();
    let writer = writer.path(&[path]).unwrap().uint(option::CONTENT_FORMAT, format).unwrap();
    let length = writer.payload(payload).unwrap();
    out[..length].to_vec()
}

#[test]
fn stations_behind_the_kernels_own_6lowpan_are_heard_by_their_link_local_addresses() {
    let Some(mut network) = Network::new() else { return };
    let (here, there) = (network.space(), network.space());
    here.address_add(&format!("{GATEWAY_ADDRESS}/64"));
    there.address_add(&format!("{STATION_ADDRESS}/64"));
    here.address_add("2001:db8::a/64");
    there.address_add("2001:db8::1/64");
    let gateway = network.gateway(&here, &["--radio", "lowpan://eth0", "--site", "plant"]);
    until("the radio is open", || (gateway.status()["radio"]["open"] == true).then_some(()));

    let schema = Schema::new(1_000_000, &METRICS).unwrap();
    let mut registration = [0; SCHEMA_BYTES_MAX + 32];
    let length = encode_registration(&mut registration, STATION, &schema, "1.2.3").unwrap();
    let registration = registration[..length].to_vec();
    let mut batch = [0; 256];
    let first = 1_700_000_000_000;
    let mut encoder = BatchEncoder::new(&mut batch, STATION, 9, 1, schema, first).unwrap();
    for (ticks, celsius) in [(first, 20.5), (first + 1_000, -1.25)] {
        let mut values = [None; METRICS_MAX];
        values[0] = Some(Reading::F64(celsius));
        encoder.push(&Sample { ticks, values }).unwrap();
    }
    let length = encoder.length();
    let batch = batch[..length].to_vec();
    let senml = br#"[{"n":"co2","u":"ppm","t":1700000000,"v":417}]"#;

    let (station, target) = (format!("{STATION_ADDRESS}%eth0"), format!("{GATEWAY_ADDRESS}%eth0"));
    let requests = [
        post(1, "b", 42, &batch),
        post(2, "s", 42, &registration),
        post(3, "b", 42, &batch),
        post(3, "b", 42, &batch),
        post(4, "b", 42, &batch),
        post(5, "senml", 110, senml),
    ];
    let answers = talk(&there, &station, &target, &requests);
    let codes: Vec<_> = answers.iter().map(|answer| Message::parse(answer).unwrap().code()).collect();
    use Code as C;
    assert_eq!(codes, [C::PRECONDITION_FAILED, C::CREATED, C::CHANGED, C::CHANGED, C::CHANGED, C::CHANGED]);
    for answer in &answers[2..5] {
        let answer = Answer::decode(Message::parse(answer).unwrap().payload()).unwrap();
        assert_eq!(answer.acked_seq, 2);
    }
    let points = gateway.points();
    let of_the_station = points.lines().filter(|line| line.contains(&STATION.to_string())).count();
    assert_eq!(of_the_station, 3, "{points}");
    assert_eq!(points.lines().count(), 1 + 3, "each once: {points}");

    // Who is not on the link says nothing about who he is.
    let answers = talk(&there, "2001:db8::1", "2001:db8::a", &[post(6, "senml", 110, senml)]);
    assert_eq!(answers, [Vec::<u8>::new()]);
    assert_eq!(gateway.counted("tidelog_radio_drops_total{reason=\"not_on_the_interface\"}"), 1);

    let radio = gateway.status()["radio"].take();
    assert_eq!(radio["url"], "lowpan://eth0");
    let [device] = &radio["devices"].as_array().unwrap()[..] else { panic!("{radio:#}") };
    assert_eq!(device["device"], STATION.to_string());
    assert_eq!((&device["acked_seq"], &device["frames"]), (&2.into(), &6.into()), "{radio:#}");
    assert!(device["rssi_dbm"].is_null());
}
