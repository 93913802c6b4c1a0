//! The levels of acknowledgement: on this node, in the cloud. Two nodes in this process, with certificates of one authority.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use tidelog_node::Identity;
use tidelog_node::peering::PEERING_ADDRESS_FILE;
use tidelog_node::peering::authority::{Authority, Grants, LIFETIME_DEFAULT};
use tidelog_replication::Sites;

use crate::common::Running;
use crate::points;

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A folder with a key and what proves it.
pub fn prepare(dir: &Path, authority: &Authority, cloud: bool) {
    let identity = Identity::load(dir, None).unwrap();
    let grants = Grants { sites: Sites::All, cloud };
    let issued =
        authority.issue("node", grants, &identity.key, SystemTime::now() + LIFETIME_DEFAULT).unwrap();
    std::fs::write(dir.join("node.crt"), issued).unwrap();
    std::fs::write(dir.join("ca.crt"), authority.certificate_pem()).unwrap();
}

fn start(dir: &Path, flags: &[&str]) -> Running {
    let at = |name: &str| dir.join(name).display().to_string();
    let (cert, ca) = (at("node.crt"), at("ca.crt"));
    Running::start(dir, &[&["--peering-cert", &cert, "--peering-ca", &ca], flags].concat())
}

pub fn listening(dir: &Path, address: &str) -> Running {
    start(dir, &["--peering-listen", address])
}

/// A node that dials another.
pub fn dialling(dir: &Path, address: &str) -> Running {
    start(dir, &["--peering-peers", address])
}

pub fn peering_address(dir: &Path) -> String {
    std::fs::read_to_string(dir.join(PEERING_ADDRESS_FILE)).unwrap().trim().to_owned()
}

pub fn authority() -> Authority {
    Authority::create("test", SystemTime::now() + LIFETIME_DEFAULT).unwrap()
}

const POINTS: &str = "/api/v1/sites/lab/points";

fn post(node: &Running, query: &str, range: std::ops::Range<i64>) -> (u16, Value) {
    let body = points(range).to_string();
    let answer = node.post(&format!("{POINTS}?{query}"), "application/json", body.as_bytes());
    (answer.status, answer.json())
}

fn own_stream(node: &Running) -> Value {
    let status = node.get("/api/v1/status").json();
    let streams = status["streams"].as_array().unwrap().clone();
    streams.into_iter().find(|stream| stream["node"] == status["node"]).unwrap()
}

#[test]
fn what_is_confirmed_is_in_the_cloud_and_what_is_not_says_where_it_stands() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let authority = authority();
    prepare(a.path(), &authority, true);
    prepare(b.path(), &authority, false);
    let cloud = listening(a.path(), "127.0.0.1:0");
    let address = peering_address(a.path());
    let gateway = dialling(b.path(), &address);

    // Every way in, and the cloud has it when the answer is there.
    assert_eq!(
        post(&gateway, "ack=cloud&ack_timeout=60", 0..10),
        (200, json!({"points": 10, "ack": "cloud"}))
    );
    let held = |node: &Running| node.get(&format!("{POINTS}?format=ndjson")).text;
    assert_eq!(held(&cloud).lines().count(), 10);
    for (path, at) in [("/api/v2/write?bucket=lab", 11), ("/write?db=lab", 12)] {
        let line = format!("lines value={at} {at}");
        let answer = gateway.post(&format!("{path}&ack=cloud&ack_timeout=60"), "text/plain", line.as_bytes());
        assert_eq!((answer.status, answer.text.as_str()), (204, ""));
        assert_eq!(held(&cloud), held(&gateway));
    }
    let body = rmp_serde::to_vec_named(&points(20..30)).unwrap();
    let path = format!("{POINTS}?ack=cloud&ack_timeout=60");
    assert_eq!(gateway.post(&path, "application/msgpack", &body).status, 200);
    let stream = own_stream(&gateway);
    assert_eq!(
        (&stream["lsn"], &stream["cloud_lsn"]),
        (&json!(5), &json!(5)),
        "four posts, and the start before them"
    );
    until("the status to count the cloud", || own_stream(&gateway)["held_by"] == 1);
    assert_eq!(gateway.metric("tidelog_cloud_lag_records"), 0.0);
    assert_eq!(gateway.metric("tidelog_streams_held_by_peers{peers=\"1\"}"), 1.0);
    assert_eq!(gateway.metric("tidelog_ack_cloud_total{outcome=\"confirmed\"}"), 4.0);
    // The cloud's own word needs nobody else's.
    assert_eq!(post(&cloud, "ack=cloud&ack_timeout=0", 30..31).1["ack"], "cloud");

    // The cloud is away: stored here, and nothing else is claimed.
    cloud.stop();
    until("the session's end", || gateway.get("/api/v1/status").json()["peers"][0]["state"] != "connected");
    let (status, known) = post(&gateway, "ack=cloud&ack_timeout=0", 40..43);
    assert_eq!(status, 202, "{known}");
    let lsn = own_stream(&gateway)["lsn"].as_u64().unwrap();
    let expected = [
        ("points", json!(3)),
        ("ack", json!("node")),
        ("wanted", json!("cloud")),
        ("reason", json!("timeout")),
    ];
    for (key, value) in expected {
        assert_eq!(known[key], value, "{known}");
    }
    let at = &known["streams"][0];
    assert_eq!(
        (&at["site"], &at["first"], &at["last"]),
        (&json!("lab"), &json!(lsn), &json!(lsn)),
        "{known}"
    );
    assert!(at["cloud_lsn"].as_u64().unwrap() < lsn, "{known}");
    assert_eq!(gateway.metric("tidelog_cloud_lag_records"), 1.0);
    let answer =
        gateway.post("/api/v2/write?bucket=lab&ack=cloud&ack_timeout=0", "text/plain", b"lines value=50 50");
    assert_eq!((answer.status, answer.json()["points"].clone()), (202, json!(1)));
    let answer =
        gateway.post("/write?db=lab&ack=cloud&ack_timeout=60", "text/plain", b"lines value=51 51\nbad");
    assert_eq!(answer.status, 400, "a partial write waits for nobody: {}", answer.text);

    // Whoever waits hears of it when the cloud is back.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| post(&gateway, "ack=cloud&ack_timeout=120", 60..61));
        until("the client to wait", || gateway.metric("tidelog_ack_cloud_waiting") == 1.0);
        let cloud = listening(a.path(), &address);
        assert_eq!(waiting.join().unwrap(), (200, json!({"points": 1, "ack": "cloud"})));
        assert_eq!(held(&cloud), held(&gateway));
        cloud.stop();
    });
    gateway.stop();
}

#[test]
fn a_peer_that_is_not_of_the_cloud_confirms_nothing() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let authority = authority();
    prepare(a.path(), &authority, false);
    prepare(b.path(), &authority, false);
    let other = listening(a.path(), "127.0.0.1:0");
    let node = start(b.path(), &["--peering-peers", &peering_address(a.path())]);
    assert_eq!(post(&node, "", 0..5), (200, json!({"points": 5, "ack": "node"})));
    until("the peer to hold it", || own_stream(&node)["held_by"] == 1);
    let (status, known) = post(&node, "ack=cloud&ack_timeout=0.05", 0..5);
    assert_eq!((status, &known["cloud_sessions"]), (202, &json!(0)), "{known}");
    assert_eq!(own_stream(&node)["cloud_lsn"], 0);
    other.stop();
    node.stop();
}

#[test]
fn those_who_wait_are_bounded_and_one_that_leaves_makes_room() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let lone = Running::start(a.path(), &[]);
    let refused = post(&lone, "ack=cloud", 0..5);
    assert_eq!((refused.0, refused.1["error"]["code"].as_str()), (400, Some("bad_parameter")));
    assert_eq!(lone.get("/api/v1/status").json()["head"], 0, "a refused post stores nothing");
    lone.stop();

    prepare(b.path(), &authority(), false);
    // Four connections: two may wait. Nobody answers at the peer's address.
    let node = start(b.path(), &["--peering-peers", "127.0.0.1:1", "--http-connections-max", "4"]);
    let leaving = || {
        let body = points(0..1).to_string();
        let mut stream = TcpStream::connect(node.url.strip_prefix("http://").unwrap()).unwrap();
        let head = format!(
            "POST {POINTS}?ack=cloud&ack_timeout=300 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).unwrap();
        stream
    };
    let waiting = || node.metric("tidelog_ack_cloud_waiting");
    let (first, second) = (leaving(), leaving());
    until("two to wait", || waiting() == 2.0);
    let refused = post(&node, "ack=cloud", 10..11);
    assert_eq!((refused.0, refused.1["error"]["code"].as_str()), (429, Some("busy")));
    assert_eq!(post(&node, "", 20..21).0, 200, "who does not wait is served");
    drop(first);
    until("the place to be free", || waiting() == 1.0);
    assert_eq!(node.metric("tidelog_ack_cloud_total{outcome=\"client_left\"}"), 1.0);
    assert_eq!(post(&node, "ack=cloud&ack_timeout=0", 30..31).0, 202);

    // A node that ends says what it knows.
    let mut second = second;
    node.stop();
    let mut text = String::new();
    second.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 202 ") && text.contains(r#""reason":"ending""#), "{text}");
}
