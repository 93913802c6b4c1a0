//! Posts with an `Idempotency-Key`: sent again they are answered again, and nothing is stored twice.

use std::io::Write;
use std::net::TcpStream;

use serde_json::{Value, json};
use tidelog_node::door::Scope;

use crate::ack::{authority, listening, prepare};
use crate::common::Running;
use crate::common::door::{Raw, bearer, make_token, raw};
use crate::{points, until};

const POINTS: &str = "/api/v1/sites/lab/points";
const JSON: &str = "Content-Type: application/json";

/// A request of Prometheus remote write: one sample of `r`, 0 at 1 ms, as a literal of snappy.
const REMOTE: &str = "\x15\x50\x0a\x13\x0a\x0d\x0a\x08__name__\x12\x01r\x12\x02\x10\x01";

fn post(running: &Running, target: &str, heads: &[&str], body: &str) -> Raw {
    raw(&running.url, "POST", target, heads, body)
}

fn body(answer: &Raw) -> &str {
    answer.text.split_once("\r\n\r\n").unwrap().1
}

fn is_replayed(answer: &Raw) -> bool {
    answer.text.to_lowercase().contains("\r\nidempotency-replayed: true\r\n")
}

fn head(running: &Running) -> f64 {
    running.metric("tidelog_log_head_records")
}

#[test]
fn a_post_that_is_sent_again_is_answered_as_before_and_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    let bad_line = "t value=1\nbad\n";
    let document = points(0..5).to_string();
    let cases = [
        (POINTS, vec![JSON], document.as_str(), 200),
        // Without a time each arrival would be another point.
        ("/api/v2/write?bucket=lab", vec![], "t value=1", 204),
        ("/write?db=lab", vec![], "t value=1", 204),
        ("/api/v2/write?bucket=lab", vec![], bad_line, 400),
        (POINTS, vec!["Content-Type: text/csv"], "time,a\n1,1\n2,x\n", 400),
        (POINTS, vec![JSON], "{", 400),
        (
            "/api/v1/write?site=lab",
            vec!["Content-Type: application/x-protobuf", "Content-Encoding: snappy"],
            REMOTE,
            204,
        ),
    ];
    for (number, (target, heads, content, status)) in cases.into_iter().enumerate() {
        let key = format!("Idempotency-Key: key-{number}");
        let heads: Vec<&str> = heads.into_iter().chain([key.as_str()]).collect();
        let first = post(&running, target, &heads, content);
        assert_eq!((first.status, is_replayed(&first)), (status, false), "{first:?}");
        let after_one = head(&running);
        for _ in 0..3 {
            let again = post(&running, target, &heads, content);
            assert_eq!((again.status, body(&again)), (status, body(&first)), "{again:?}");
            assert!(is_replayed(&again), "{again:?}");
        }
        assert_eq!(head(&running), after_one, "{target} {content}");
    }
    let held = running.get(&format!("{POINTS}?match=t&format=csv")).text;
    assert_eq!(held.lines().count(), 1 + 3, "each line once: {held}");
    assert_eq!(running.metric("tidelog_ingest_repeats_total{via=\"http\"}"), 9.0);
    assert_eq!(running.metric("tidelog_ingest_repeats_total{via=\"line\"}"), 9.0);
    assert_eq!(running.metric("tidelog_ingest_repeats_total{via=\"remote_write\"}"), 3.0);
    assert_eq!(running.metric("tidelog_ingest_points_total{via=\"http\"}"), 6.0);
    running.stop();
}

#[test]
fn a_key_stands_for_one_request_of_one_token() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    let key = "Idempotency-Key: k";
    let (one, two) = (points(0..1).to_string(), points(1..2).to_string());
    assert_eq!(post(&running, POINTS, &[JSON, key], &one).status, 200);
    for (target, content) in [(POINTS, &two), ("/api/v1/sites/yard/points", &one)] {
        let refused = post(&running, target, &[JSON, key], content);
        let error: Value = serde_json::from_str(body(&refused)).unwrap();
        let code = &error["error"]["code"];
        assert_eq!((refused.status, code), (422, &json!("idempotency_key_reused")), "{refused:?}");
    }
    let lines = post(&running, "/api/v2/write?bucket=lab", &[key], "t value=1 1");
    assert!(lines.status == 422 && body(&lines).contains("unprocessable entity"), "{lines:?}");
    assert_eq!(post(&running, POINTS, &[JSON, "Idempotency-Key: a b"], &one).status, 400);
    let tokens = ["lab", "yard"].map(|_| make_token(dir.path(), &[Scope::Write], &[]));
    for (token, content) in tokens.iter().zip([&one, &two]) {
        let answer = post(&running, POINTS, &[JSON, key, &bearer(token)], content);
        assert_eq!((answer.status, is_replayed(&answer)), (200, false), "nobody else's answer: {answer:?}");
    }
    running.stop();
}

#[test]
fn what_comes_again_while_the_first_is_under_way_waits_for_its_answer() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path(), &authority(), false);
    // A node that knows no cloud, so that the first waits until the node ends.
    let running = listening(dir.path(), "127.0.0.1:0");
    let target = format!("{POINTS}?ack=cloud&ack_timeout=300");
    let send = || {
        let (url, target) = (running.url.clone(), target.clone());
        let content = points(0..5).to_string();
        std::thread::spawn(move || raw(&url, "POST", &target, &[JSON, "Idempotency-Key: k"], &content))
    };
    let first = send();
    until(|| (running.metric("tidelog_ack_cloud_waiting") == 1.0).then_some(()));
    let after_one = head(&running);
    let again = send();
    until(|| (running.metric("tidelog_ingest_repeats_total{via=\"http\"}") == 1.0).then_some(()));
    assert_eq!(running.metric("tidelog_ack_cloud_waiting"), 1.0, "one of them waits for the cloud");
    assert_eq!(head(&running), after_one);
    running.stop();
    let (first, again) = (first.join().unwrap(), again.join().unwrap());
    assert_eq!((first.status, again.status), (202, 202), "{first:?} {again:?}");
    assert_eq!(body(&first), body(&again));
    assert!(!is_replayed(&first) && is_replayed(&again));
}

#[test]
fn a_post_whose_client_left_goes_on_and_its_answer_is_there_when_the_client_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path(), &authority(), false);
    let running = listening(dir.path(), "127.0.0.1:0");
    let (target, content) = (format!("{POINTS}?ack=cloud&ack_timeout=300"), points(0..5).to_string());
    let waiting = "tidelog_ack_cloud_waiting";
    let leave = |key: &str, others: f64| {
        let mut stream = TcpStream::connect(running.url.strip_prefix("http://").unwrap()).unwrap();
        let heads = format!("Host: node\r\n{JSON}\r\n{key}Content-Length: {}", content.len());
        stream.write_all(format!("POST {target} HTTP/1.1\r\n{heads}\r\n\r\n{content}").as_bytes()).unwrap();
        until(|| (running.metric(waiting) == others + 1.0).then_some(()));
    };
    leave("Idempotency-Key: k\r\n", 0.0);
    leave("", 1.0);
    // The one without a key tells when the node has seen that its client left.
    let left = "tidelog_ack_cloud_total{outcome=\"client_left\"}";
    until(|| (running.metric(left) == 1.0).then_some(()));
    assert_eq!(running.metric(waiting), 1.0);
    let after_both = head(&running);
    let again = {
        let (url, target, content) = (running.url.clone(), target.clone(), content.clone());
        std::thread::spawn(move || raw(&url, "POST", &target, &[JSON, "Idempotency-Key: k"], &content))
    };
    until(|| (running.metric("tidelog_ingest_repeats_total{via=\"http\"}") == 1.0).then_some(()));
    assert_eq!((running.metric(waiting), running.metric(left)), (1.0, 1.0));
    assert_eq!(head(&running), after_both);
    running.stop();
    let again = again.join().unwrap();
    assert!(again.status == 202 && is_replayed(&again), "{again:?}");
}
