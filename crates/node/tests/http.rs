//! The HTTP API from outside: a node in this process, a client that knows only the URL.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "http/ack.rs"]
mod ack;
#[path = "http/aggregate.rs"]
mod aggregate;
#[path = "http/commands.rs"]
mod commands;
mod common;
#[path = "http/devices.rs"]
mod devices;
#[path = "http/export.rs"]
mod export;
#[path = "http/forms.rs"]
mod forms;
#[path = "http/isolation.rs"]
mod isolation;
#[path = "http/line.rs"]
mod line;
#[path = "http/once.rs"]
mod once;
#[path = "http/openapi.rs"]
mod openapi;
#[path = "http/prometheus.rs"]
mod prometheus;
#[path = "http/rules.rs"]
mod rules;
#[path = "http/socket.rs"]
mod socket;
#[path = "http/socket_commands.rs"]
mod socket_commands;
#[path = "http/tail.rs"]
mod tail;
#[path = "http/tail_socket.rs"]
mod tail_socket;
#[path = "http/tls.rs"]
mod tls;
#[path = "http/tokens.rs"]
mod tokens;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::Running;
use serde_json::{Value, json};

fn points(range: std::ops::Range<i64>) -> Value {
    let point = |i: i64| json!({"metric": "temp", "labels": {"device": format!("{}", i % 3)}, "timestamp_ns": i, "value": i as f64 / 2.0});
    json!({"points": range.map(point).collect::<Vec<_>>()})
}

#[test]
fn what_was_acknowledged_is_there_after_a_restart_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    assert_eq!(running.get("/readyz").status, 200);
    let answer = running.post_json("lab", &points(0..1000));
    assert_eq!((answer.status, answer.json()), (200, json!({"points": 1000, "ack": "node"})));
    let paths = ["json", "ndjson", "csv"].map(|form| format!("/api/v1/sites/lab/points?format={form}"));
    let before: Vec<String> = paths.iter().map(|path| running.get(path).text).collect();
    assert_eq!(before[1].lines().count(), 1000);
    assert_eq!(running.metric("tidelog_ingest_points_total{via=\"http\"}"), 1000.0);
    running.stop();

    let running = Running::start(dir.path(), &[]);
    let after: Vec<String> = paths.iter().map(|path| running.get(path).text).collect();
    assert_eq!(before, after);
    running.stop();
}

#[test]
fn two_nodes_that_took_the_same_points_in_another_order_and_form_answer_the_same_bytes() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, b) = (Running::start(a.path(), &[]), Running::start(b.path(), &["--site", "other"]));
    assert_eq!(a.post_json("lab", &points(0..500)).status, 200);
    for range in [400..500, 0..300, 250..450] {
        let body = rmp_serde::to_vec_named(&points(range)).unwrap();
        assert_eq!(b.post("/api/v1/sites/lab/points", "application/msgpack", &body).status, 200);
    }
    for form in ["json", "ndjson", "csv"] {
        let path = format!("/api/v1/sites/lab/points?format={form}");
        assert_eq!(a.get(&path).text, b.get(&path).text);
    }
    a.stop();
    b.stop();
}

#[test]
fn a_query_gives_the_series_and_the_time_that_were_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    let at = |metric: &str, room: &str, s: i64, value: i64| json!({"metric": metric, "labels": {"room": room}, "timestamp_ms": s * 1000, "value": value});
    let all = [at("t", "a", 1, 1), at("t", "b", 2, 2), at("t", "a", 3, 3), at("h", "a", 2, 4)];
    assert_eq!(running.post_json("lab", &json!({"points": all})).status, 200);
    let values = |query: &str| -> Vec<i64> {
        let answer = running.get(&format!("/api/v1/sites/lab/points?format=ndjson&{query}"));
        assert_eq!(answer.status, 200, "{query}: {}", answer.text);
        answer
            .text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["value"].as_i64().unwrap())
            .collect()
    };
    let cases: [(&str, &[i64]); 10] = [
        ("", &[4, 1, 3, 2]),
        ("match=t", &[1, 3, 2]),
        ("match=t&match=h", &[4, 1, 3, 2]),
        ("match[]=h", &[4]),
        ("match=%7Broom%21%3D%22a%22%2Croom%3D~%22.%2B%22%7D", &[2]),
        ("match=t%7Broom%3D~%22a%7Cc%22%7D", &[1, 3]),
        ("start=2", &[4, 3, 2]),
        ("start=2&end=2.0", &[4, 2]),
        ("end=1970-01-01T00:00:01Z", &[1]),
        ("start=2000000001ns&end=4000ms&match=t", &[3]),
    ];
    for (query, expected) in cases {
        assert_eq!(values(query), expected, "{query}");
    }
    assert_eq!(running.get("/api/v1/sites/nowhere/points").json(), json!({"site": "nowhere", "series": []}));
    let accepting = running.get_accepting("/api/v1/sites/lab/points?match=h", "text/csv");
    assert_eq!(accepting.content_type, "text/csv; charset=utf-8");
    assert_eq!(accepting.text.lines().count(), 2);
    running.stop();
}

#[test]
fn a_small_answer_in_one_piece_has_the_bytes_of_a_large_one_and_its_points_are_counted_once() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    assert_eq!(running.post_json("lab", &points(0..1_800)).status, 200);
    let asked = |question: &str| {
        let path = format!("/api/v1/sites/lab/{question}");
        // Series that are looked for the first time are looked for the long way.
        let first = running.get(&path);
        let before = running.metric("tidelog_query_points_total");
        let answer = running.get(&path);
        assert_eq!(answer.status, 200, "{question}: {}", answer.text);
        assert_eq!(first.text, answer.text);
        (answer.in_one_piece, answer.text, running.metric("tidelog_query_points_total") - before)
    };
    for form in ["ndjson", "csv"] {
        let (in_one_piece, large, told) = asked(&format!("points?format={form}"));
        assert!(!in_one_piece && told == 1_800.0, "{told}");
        let heads = usize::from(form == "csv");
        let mut joined: String = large.lines().take(heads).map(|line| format!("{line}\n")).collect();
        for device in 0..3 {
            let (in_one_piece, small, told) =
                asked(&format!("points?format={form}&match=temp%7Bdevice%3D%22{device}%22%7D"));
            assert!(in_one_piece && told == 600.0, "{told}");
            joined.extend(small.lines().skip(heads).map(|line| format!("{line}\n")));
        }
        assert_eq!(joined, large);
    }
    // Four times as many bytes as a piece has, of less than the most points.
    let text = "x".repeat(64 * 1024);
    let said = |i: i64| json!({"metric": "said", "timestamp_ns": i, "value": text});
    assert_eq!(
        running.post_json("lab", &json!({"points": [said(1), said(2), said(3), said(4)]})).status,
        200
    );
    let (in_one_piece, long, told) = asked("points?match=said&format=ndjson");
    assert!(!in_one_piece && told == 4.0 && long.lines().count() == 4);
    let (in_one_piece, _, told) = asked("last?match=temp");
    assert!(in_one_piece && told == 3.0);
    assert!(asked("aggregate?match=temp&fn=mean,max").0);
    // A series each, and more of them than a small answer has.
    let many = (0..100).map(|i| json!({"metric": format!("m{i}"), "timestamp_ns": 1, "value": i}));
    assert_eq!(running.post_json("lab", &json!({"points": many.collect::<Vec<_>>()})).status, 200);
    let (in_one_piece, last, told) = asked("last?match=%7B__name__%3D~%22m.%2B%22%7D&format=ndjson");
    assert!(!in_one_piece && told == 100.0 && last.lines().count() == 100);
    running.stop();
}

#[test]
fn bad_input_is_refused_with_its_own_code_and_counted_and_the_node_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &["--http-body-bytes-max", "4096"]);
    let path = "/api/v1/sites/lab/points";
    let (json_type, huge) = ("application/json", vec![b' '; 5000]);
    let posts: [(&str, &str, &[u8], u16, &str); 8] = [
        (path, json_type, b"{\"points\":", 400, "bad_body"),
        (path, json_type, b"[1,2", 400, "bad_body"),
        (path, json_type, b"{\"points\":[{\"metric\":5}]}", 400, "bad_point"),
        (path, "application/json; charset=utf-8", b"\xff\xfe", 400, "bad_body"),
        (path, "application/msgpack", b"\xdf\xff\xff\xff\xff", 400, "bad_body"),
        (path, "text/plain", b"x", 415, "unsupported_media_type"),
        (path, json_type, &huge, 413, "too_large"),
        ("/api/v1/sites/UPPER/points", json_type, b"{}", 400, "bad_site"),
    ];
    for (path, content_type, body, status, code) in posts {
        let answer = running.post(path, content_type, body);
        assert_eq!((answer.status, answer.error_code().as_str()), (status, code), "{}", answer.text);
        assert!(
            running.metric(&format!("tidelog_ingest_refused_total{{reason=\"{code}\",via=\"http\"}}")) > 0.0
        );
    }
    let gets = [
        ("/api/v1/sites/lab/points?match=t%7B", 400, "bad_parameter"),
        ("/api/v1/sites/lab/points?start=yesterday", 400, "bad_parameter"),
        ("/api/v1/sites/lab/points?start=2&end=1", 400, "bad_parameter"),
        ("/api/v1/sites/lab/points?start=1&start=2", 400, "bad_parameter"),
        ("/api/v1/sites/lab/points?from=1", 400, "bad_parameter"),
        ("/api/v1/sites/lab/points?format=xml", 400, "bad_parameter"),
        ("/api/v1/sites/..%2f..%2fetc/points", 400, "bad_site"),
        ("/api/v2/nothing", 404, "not_found"),
    ];
    for (path, status, code) in gets {
        let answer = running.get(path);
        assert_eq!((answer.status, answer.error_code().as_str()), (status, code), "{path}: {}", answer.text);
    }
    let answer = running.get_accepting("/api/v1/sites/lab/points", "image/png");
    assert_eq!((answer.status, answer.error_code().as_str()), (406, "not_acceptable"));
    let answer = running.post("/api/v1/status", json_type, b"{}");
    assert_eq!((answer.status, answer.error_code().as_str()), (405, "method_not_allowed"));
    assert_eq!(running.post_json("lab", &points(0..3)).status, 200);
    running.stop();
}

#[test]
fn a_body_of_unstated_length_is_bounded_too() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &["--http-body-bytes-max", "4096"]);
    let mut stream = TcpStream::connect(running.url.strip_prefix("http://").unwrap()).unwrap();
    let head = "POST /api/v1/sites/lab/points HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    for _ in 0..6 {
        // The node may answer and close before all is sent.
        if stream.write_all(format!("400\r\n{}\r\n", " ".repeat(1024)).as_bytes()).is_err() {
            break;
        }
    }
    let mut answer = [0; 64];
    let read = stream.read(&mut answer).unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&answer[..read]));
    running.stop();
}

#[test]
fn a_client_that_sends_slowly_is_cut_off_and_does_not_keep_the_node_from_ending() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &["--http-stall-s-max", "1"]);
    let address = running.url.strip_prefix("http://").unwrap();
    let mut head_only = TcpStream::connect(address).unwrap();
    head_only.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
    let mut body_only = TcpStream::connect(address).unwrap();
    let head = "POST /api/v1/sites/lab/points HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{";
    body_only.write_all(head.as_bytes()).unwrap();
    for (stream, expected) in [(&mut head_only, ""), (&mut body_only, "HTTP/1.1 408")] {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(expected), "{answer}");
    }
    let mut idle = TcpStream::connect(address).unwrap();
    idle.write_all(b"POST /api/v1/sites/lab/points HTTP/1.1\r\n").unwrap();
    let start = Instant::now();
    running.stop();
    assert!(start.elapsed() < Duration::from_secs(tidelog_node::SHUTDOWN_S_MAX));
}

#[test]
fn clients_that_do_not_read_their_answers_are_bounded_and_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &["--http-stall-s-max", "1"]);
    for part in 0..2 {
        assert_eq!(running.post_json("lab", &points(part * 50_000..(part + 1) * 50_000)).status, 200);
    }
    let path = "/api/v1/sites/lab/points?format=ndjson";
    let whole = running.get(path).text;
    assert_eq!(whole.lines().count(), 100_000);
    let address = running.url.strip_prefix("http://").unwrap();
    let mut silent: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    for stream in &mut silent {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).unwrap();
    }
    let statuses: Vec<String> = silent
        .iter_mut()
        .map(|stream| {
            let mut head = [0; 12];
            stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            stream.read_exact(&mut head).unwrap();
            String::from_utf8_lossy(&head[9..]).into_owned()
        })
        .collect();
    let refused = statuses.iter().filter(|status| *status == "429").count();
    assert!((1..20).contains(&refused) && statuses.iter().all(|s| s == "429" || s == "200"), "{statuses:?}");
    assert_eq!(running.post_json("lab", &points(0..3)).status, 200, "ingest does not wait for readers");
    let again = until(|| Some(running.get(path)).filter(|answer| answer.status == 200));
    assert!(again.text == whole);
    drop(silent);
    running.stop();
}

/// Asks until there is an answer; the test's time limit is the bound.
fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain");
        std::thread::yield_now();
    }
}

#[test]
fn the_status_tells_who_it_is_and_what_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &["--site", "plant"]);
    assert_eq!(running.post_json("lab", &points(0..10)).status, 200);
    assert_eq!(running.post_json("plant", &points(0..5)).status, 200);
    running.node.as_ref().unwrap().context().status.section("radio", || json!({"frames": 7}));
    let status = running.get("/api/v1/status").json();
    assert_eq!(
        (&status["head"], &status["site"], &status["version"]),
        (&json!(4), &json!("plant"), &json!("0.0.0-test")),
        "in each stream a record that tells of the start, and one of points"
    );
    assert_eq!(status["store"]["points"], 15);
    assert_eq!(status["radio"]["frames"], 7);
    let streams = status["streams"].as_array().unwrap();
    assert_eq!(streams.len(), 2);
    assert!(streams.iter().all(|stream| stream["node"] == status["node"] && stream["lsn"] == 2));
    assert_eq!(running.metric("tidelog_log_head_records"), 4.0);
    assert_eq!(running.metric("tidelog_store_writable"), 1.0);
    running.stop();
}

#[test]
fn sites_and_devices_are_those_that_sent_something() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    assert_eq!(running.get("/api/v1/sites").json(), json!({"sites": []}));
    assert_eq!(running.post_json("plant", &points(0..3)).status, 200);
    let no_device = json!({"points": [{"metric": "load", "timestamp_ns": 1, "value": 1}]});
    assert_eq!(running.post_json("house", &no_device).status, 200);
    assert_eq!(running.get("/api/v1/sites").json(), json!({"sites": ["house", "plant"]}));
    let device = |name: &str| json!({"device": name, "metrics": ["temp"], "labels": {}});
    let expected = json!({"devices": [device("0"), device("1"), device("2")]});
    assert_eq!(running.get("/api/v1/sites/plant/devices").json(), expected);
    assert_eq!(running.get("/api/v1/sites/house/devices").json(), json!({"devices": []}));
    running.stop();
}

#[test]
fn every_metric_that_is_written_out_is_in_the_list_of_names() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    running.get("/api/v1/status");
    let text = running.get("/metrics").text;
    for line in text.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
        let name = line.split(' ').next().unwrap();
        assert!(tidelog_node::Metrics::names().iter().any(|(known, _, _)| *known == name), "{name}");
    }
    running.stop();
}

#[test]
fn a_second_node_on_the_same_directory_is_refused_and_the_first_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    let settings = common::settings(dir.path(), &[]);
    let second = running.runtime.block_on(tidelog_node::Node::start(&settings, "0.0.0-test"));
    let error = second.err().unwrap().to_string();
    assert!(error.contains("in use by another process"), "{error}");
    let address = std::fs::read_to_string(dir.path().join(tidelog_node::HTTP_ADDRESS_FILE)).unwrap();
    assert_eq!(format!("http://{}", address.trim()), running.url);
    assert_eq!(running.get("/readyz").status, 200);
    running.stop();
}
