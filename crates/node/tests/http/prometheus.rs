//! The query API of Prometheus from outside: forms, sites, kinds of values, refusals, limits, and clients that leave.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{Answer, Running};

/// Longest answer to an easy question while hard ones were left behind.
const SOON: Duration = Duration::from_secs(20);

fn point(metric: &str, second: i64, value: Value) -> Value {
    json!({"metric": metric, "labels": {"room": "lab"}, "timestamp_ms": second * 1000, "value": value})
}

fn posted(running: &Running, site: &str, points: &[Value]) {
    assert_eq!(running.post_json(site, &json!({"points": points})).status, 200);
}

/// The values of a vector, or the error's type.
fn values(answer: &Answer) -> Vec<String> {
    let json = answer.json();
    let result = json["data"]["result"].as_array().unwrap_or_else(|| panic!("{json}"));
    result.iter().map(|row| row["value"][1].as_str().unwrap().to_owned()).collect()
}

fn refused(answer: &Answer) -> (u16, String) {
    let json = answer.json();
    assert_eq!(json["status"], "error", "{json}");
    (answer.status, json["errorType"].as_str().unwrap().to_owned())
}

#[test]
fn a_question_may_stand_in_the_url_or_in_a_form() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    posted(&running, "default", &[point("t", 100, json!(21.5)), point("t", 160, json!(22.0))]);
    let expected = json!({"status": "success", "data": {"resultType": "vector", "result": [
        {"metric": {"__name__": "t", "room": "lab"}, "value": [101, "21.5"]}]}});
    let form = "application/x-www-form-urlencoded";
    for answer in [
        running.get("/api/v1/query?query=t&time=101"),
        running.post("/api/v1/query", form, b"query=t&time=101"),
        running.post("/api/v1/query?time=5", form, b"query=t&time=101"),
        running.post("/api/v1/query?time=101", form, b"query=t"),
    ] {
        assert_eq!((answer.status, answer.json()), (200, expected.clone()));
        assert_eq!(answer.content_type, "application/json");
    }
    let answer = running.post("/api/v1/query_range", form, b"query=t*2&start=100&end=160&step=30s");
    let values = json!([[100, "43"], [130, "43"], [160, "44"]]);
    assert_eq!(answer.json()["data"]["result"], json!([{"metric": {"room": "lab"}, "values": values}]));
    running.stop();
}

#[test]
fn one_site_is_asked_and_never_another() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &["--site", "own"]);
    posted(&running, "own", &[point("t", 100, json!(1.0))]);
    posted(&running, "other", &[point("t", 100, json!(2.0)), point("only", 100, json!(3.0))]);
    assert_eq!(values(&running.get("/api/v1/query?query=t&time=100")), ["1"]);
    assert_eq!(values(&running.get("/api/v1/query?query=t&time=100&site=other")), ["2"]);
    assert_eq!(values(&running.get("/prometheus/other/api/v1/query?query=t&time=100")), ["2"]);
    assert_eq!(values(&running.get("/prometheus/other/api/v1/query?query=t&time=100&site=own")), ["2"]);
    assert!(values(&running.get("/api/v1/query?query=t&time=100&site=nowhere")).is_empty());
    assert_eq!(refused(&running.get("/api/v1/query?query=t&site=No%20Site")), (400, "bad_data".to_owned()));
    let names = |path: &str| running.get(path).json()["data"].clone();
    assert_eq!(names("/api/v1/label/__name__/values"), json!(["t"]));
    assert_eq!(names("/prometheus/other/api/v1/label/__name__/values"), json!(["only", "t"]));
    assert_eq!(names("/prometheus/other/api/v1/labels?match[]=only"), json!(["__name__", "room"]));
    assert_eq!(names("/prometheus/own/api/v1/series?match[]=only"), json!([]));
    let unknown = json!([{"type": "unknown", "help": "", "unit": ""}]);
    assert_eq!(names("/prometheus/other/api/v1/metadata?metric=only"), json!({"only": unknown}));
    assert_eq!(names("/prometheus/other/api/v1/metadata?limit=1"), json!({"only": unknown}));
    assert_eq!(names("/api/v1/status/buildinfo")["application"], "tidelog");
    running.stop();
}

#[test]
fn integers_and_truths_are_numbers_and_texts_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    let points = [
        point("whole", 100, json!(7)),
        point("open", 100, json!(true)),
        point("open", 110, json!(false)),
        point("word", 100, json!("hello")),
        point("both", 100, json!("hello")),
        point("both", 90, json!(1.5)),
    ];
    posted(&running, "default", &points);
    let at =
        |query: &str, time: i64| values(&running.get(&format!("/api/v1/query?query={query}&time={time}")));
    assert_eq!(at("whole", 100), ["7"]);
    assert_eq!((at("open", 105), at("open", 110)), (vec!["1".to_owned()], vec!["0".to_owned()]));
    assert!(at("word", 100).is_empty());
    assert_eq!(at("both", 100), ["1.5"]);
    running.stop();
}

#[test]
fn refusals_have_the_types_and_statuses_of_prometheus() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &["--query-samples-max", "500", "--query-lookback-s", "10"]);
    let points: Vec<Value> = (0..300).map(|i| point("t", i, json!(1.0))).collect();
    posted(&running, "default", &points);
    posted(
        &running,
        "default",
        &[json!({"metric": "t", "labels": {"room": "hall"}, "timestamp_ms": 1000, "value": 1})],
    );
    for (path, status, kind) in [
        ("query?query=t{", 400, "bad_data"),
        ("query", 400, "bad_data"),
        ("query?query=t&time=soon", 400, "bad_data"),
        ("query_range?query=t&start=0&end=1000&step=0.01", 400, "bad_data"),
        ("query?query=t[1e30]", 400, "bad_data"),
        ("query?query=t%2Bon()t&time=5", 422, "execution"),
        ("query?query=label_replace(t,%22a%22,%22%22,%22b%22,%22(%22)&time=5", 422, "execution"),
        ("query?query=t[10m]&time=299", 200, ""),
        ("query_range?query=t&start=0&end=299&step=1", 422, "execution"),
        ("query?query=t&time=5&timeout=0", 503, "timeout"),
    ] {
        let answer = running.get(&format!("/api/v1/{path}"));
        match status {
            200 => assert_eq!(answer.status, 200, "{path}: {}", answer.text),
            _ => assert_eq!(refused(&answer), (status, kind.to_owned()), "{path}"),
        }
    }
    assert_eq!(values(&running.get("/api/v1/query?query=t&time=309")), ["1"]);
    assert!(values(&running.get("/api/v1/query?query=t&time=310")).is_empty(), "beyond the look-back");
    assert_eq!(running.get("/api/v1/nothing").status, 404);
    running.stop();
}

#[test]
fn a_query_whose_client_left_makes_way_for_others() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &["--query-samples-max", "4000000000"]);
    let points: Vec<Value> = (0..20_000).map(|i| point("t", i, json!(i % 100))).collect();
    posted(&running, "default", &points);
    let hard = "/api/v1/query_range?query=quantile_over_time(0.5,t[10000s])&start=10000&end=20000&step=1";
    let address = running.url.trim_start_matches("http://").to_owned();
    let left: Vec<TcpStream> = (0..24)
        .map(|_| {
            let mut stream = TcpStream::connect(&address).unwrap();
            write!(stream, "GET {hard} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
            stream
        })
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    drop(left);
    let start = Instant::now();
    assert_eq!(values(&running.get("/api/v1/query?query=t&time=100")), ["0"]);
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    running.stop();
}
