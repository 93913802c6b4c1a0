//! Other people's CoAP clients at a released gateway: libcoap's `coap-client-notls` (Debian: libcoap3-bin) and aiocoap's (PyPI), over UDP on
//! loopback, IPv4 and IPv6. A client that is not here is passed over, with a word.

#![allow(clippy::unwrap_used, reason = "a test ends at what it does not expect")]

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use support::{Process, bin_dir, until};

/// A gateway with a door for CoAP.
struct Gateway {
    _process: Process,
    http: String,
    coap: SocketAddr,
}

impl Gateway {
    fn start(bin_dir: &Path, data: &Path, listen: &str) -> Self {
        let mut command = Command::new(bin_dir.join("tidelog-gateway"));
        command.arg("--data").arg(data).args([
            "--http",
            "127.0.0.1:0",
            "--site",
            "lab",
            "--coap-listen",
            listen,
        ]);
        let process = Process(command.stderr(Stdio::null()).spawn().unwrap());
        let http = until("its address", || std::fs::read_to_string(data.join("http.addr")).ok());
        let http = http.trim().to_owned();
        let status = until("its status", || get(&http, "/api/v1/status"));
        let coap = status["coap"]["listening"].as_str().unwrap().parse().unwrap();
        Self { _process: process, http, coap }
    }

    fn url(&self, path: &str) -> String {
        format!("coap://{}{path}", self.coap)
    }

    /// Metric, device, unit, time and value of all points.
    fn points(&self) -> Vec<(String, Value, Value, i64, Value)> {
        let told = get(&self.http, "/api/v1/sites/lab/points").unwrap();
        let mut all = Vec::new();
        for series in told["series"].as_array().unwrap() {
            for point in series["points"].as_array().unwrap() {
                let (metric, labels) = (series["metric"].as_str().unwrap().to_owned(), &series["labels"]);
                let time = point[0].as_i64().unwrap();
                all.push((metric, labels["device"].clone(), labels["unit"].clone(), time, point[1].clone()));
            }
        }
        all
    }
}

fn get(address: &str, path: &str) -> Option<Value> {
    let output = Command::new("curl").args(["-sf", &format!("http://{address}{path}")]).output().unwrap();
    serde_json::from_slice(&output.stdout).ok()
}

/// A pack of as many records as given, longer than a block.
fn pack(device: &str, records: i64) -> Value {
    let mut pack = vec![json!({"bn": format!("{device}/"), "bt": 1_700_000_000})];
    pack.extend(
        (0..records).map(|n| json!({"n": "temperature", "u": "Cel", "t": n, "v": 20.0 + n as f64 / 4.0})),
    );
    Value::Array(pack)
}

fn expected(device: &str, records: i64) -> Vec<(String, Value, Value, i64, Value)> {
    let point = |n: i64| {
        let time = (1_700_000_000 + n) * 1_000_000_000;
        ("temperature".to_owned(), json!(device), json!("Cel"), time, json!(20.0 + n as f64 / 4.0))
    };
    (0..records).map(point).collect()
}

/// What a client says when it posts a file.
fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn libcoaps_client_finds_the_door_and_its_packs_become_points_also_in_blocks() {
    let Some(bin_dir) = bin_dir() else { return };
    let client = || Command::new("coap-client-notls");
    if client().arg("-h").output().is_err() {
        return eprintln!("skipped: there is no coap-client-notls (Debian: libcoap3-bin)");
    }
    for (listen, records) in [("127.0.0.1:0", 3), ("[::1]:0", 120)] {
        let data = tempfile::tempdir().unwrap();
        let gateway = Gateway::start(&bin_dir, data.path(), listen);
        let links = said(client().args(["-m", "get", &gateway.url("/.well-known/core")]));
        assert!(links.contains("</senml>;rt=\"tidelog.senml\";ct=\"110 112\""), "{links}");
        let file = data.path().join("pack.json");
        std::fs::write(&file, pack("room-1", records).to_string()).unwrap();
        let text =
            said(client().args(["-m", "post", "-t", "110", "-f"]).arg(&file).arg(gateway.url("/senml")));
        assert_eq!(gateway.points(), expected("room-1", records), "{text}");
        let refused = said(client().args(["-m", "post", "-t", "110", "-e", "[{}", &gateway.url("/senml")]));
        assert!(refused.contains("no SenML"), "{refused}");
    }
}

#[test]
fn aiocoaps_client_posts_cbor_and_json_and_a_repeat_changes_nothing() {
    let Some(bin_dir) = bin_dir() else { return };
    let Some(client) = std::env::var_os("TIDELOG_AIOCOAP") else {
        return eprintln!("skipped: TIDELOG_AIOCOAP names no aiocoap-client (tests/run end-to-end does)");
    };
    let data = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(&bin_dir, data.path(), "127.0.0.1:0");
    let post = |format: &str, bytes: &[u8]| {
        let file = data.path().join("pack");
        std::fs::write(&file, bytes).unwrap();
        let payload = format!("@{}", file.display());
        let words = ["-m", "POST", "--payload", &payload, "--content-format", format, &gateway.url("/senml")];
        said(Command::new(&client).args(words))
    };
    let mut cbor = Vec::new();
    ciborium::into_writer(&pack("room-2", 200), &mut cbor).unwrap();
    let text = [post("112", &cbor), post("112", &cbor)].concat();
    assert_eq!(gateway.points(), expected("room-2", 200), "{text}");
    let text = post("110", pack("room-3", 2).to_string().as_bytes());
    assert_eq!(gateway.points()[200..], expected("room-3", 2), "{text}");
    let refused = post("60", &cbor);
    assert!(refused.contains("4.15") || refused.contains("110"), "{refused}");
}
