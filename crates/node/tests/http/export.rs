//! Points for programs: MessagePack and Arrow say what NDJSON says, byte for byte the same on each node, whatever the size.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use tidelog_node::door::Scope;

use crate::common::Running;
use crate::common::door::{bearer, make_token, raw};
use crate::points;

const MSGPACK: &str = "application/msgpack";
const ARROW: &str = "application/vnd.apache.arrow.stream";

#[derive(Deserialize)]
struct Chunk {
    metric: String,
    labels: BTreeMap<String, String>,
    timestamps_ns: Vec<i64>,
    values: Vec<Value>,
}

/// Metric, labels, time and value of each point.
type Told = Vec<(String, BTreeMap<String, String>, i64, Value)>;

fn of_msgpack(mut bytes: &[u8]) -> (usize, Told) {
    let (mut chunks, mut told) = (0, Told::new());
    while !bytes.is_empty() {
        let Chunk { metric, labels, timestamps_ns, values } = rmp_serde::from_read(&mut bytes).unwrap();
        assert_eq!(timestamps_ns.len(), values.len());
        assert!((1..=1_024).contains(&values.len()));
        chunks += 1;
        let points = timestamps_ns.into_iter().zip(values);
        told.extend(points.map(|(at, value)| (metric.clone(), labels.clone(), at, value)));
    }
    (chunks, told)
}

fn of_ndjson(text: &str) -> Told {
    #[derive(Deserialize)]
    struct Line {
        metric: String,
        labels: BTreeMap<String, String>,
        timestamp_ns: i64,
        value: Value,
    }
    let line = |line: &str| {
        let Line { metric, labels, timestamp_ns, value } = serde_json::from_str(line).unwrap();
        (metric, labels, timestamp_ns, value)
    };
    text.lines().map(line).collect()
}

fn mixed() -> Value {
    let point = |metric: &str, at: i64, value: Value| json!({"metric": metric, "labels": {"room": "lab"}, "timestamp_ns": at, "value": value});
    json!({"points": [
        point("a", -5, json!(21.0)), point("a", 0, json!(7)), point("a", 9, json!(true)), point("a", 10, json!("wörd")),
        point("b", i64::MAX, json!(i64::MIN)), {"metric": "b", "timestamp_ns": 3, "value": -0.5},
    ]})
}

#[test]
fn msgpack_says_what_ndjson_says_in_bounded_chunks_and_the_same_bytes_on_each_node() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, b) = (
        Running::start(a.path(), &[]),
        Running::start(b.path(), &["--store-memory-mib", "4", "--site", "lab"]),
    );
    assert_eq!(a.post_json("lab", &mixed()).status, 200);
    assert_eq!(a.post_json("lab", &points(0..30_000)).status, 200);
    for range in [15_000..30_000, 0..20_000] {
        assert_eq!(b.post_json("lab", &points(range)).status, 200);
    }
    assert_eq!(b.post_json("lab", &mixed()).status, 200);
    let path = "/api/v1/sites/lab/points";
    let lines = of_ndjson(&a.get(&format!("{path}?format=ndjson")).text);
    let (content_type, bytes) = a.get_bytes(&format!("{path}?format=msgpack"));
    assert_eq!(content_type, MSGPACK);
    assert_eq!(of_msgpack(&bytes), (2 + 1 + 3 * 10, lines));
    for same in [path, "/api/v1/export"] {
        let query = if same == path { "?format=msgpack" } else { "?format=msgpack&site=lab" };
        assert!(
            a.get_bytes(&format!("{same}{query}")).1 == bytes
                && b.get_bytes(&format!("{same}{query}")).1 == bytes
        );
    }
    let accepting = b.get_bytes_accepting("/api/v1/export?match=a", MSGPACK);
    assert_eq!((accepting.0.as_str(), of_msgpack(&accepting.1).1.len()), (MSGPACK, 4));
    let last = of_msgpack(&a.get_bytes("/api/v1/sites/lab/last?format=msgpack").1);
    assert_eq!((last.0, last.1), (6, of_ndjson(&a.get("/api/v1/sites/lab/last?format=ndjson").text)));
    assert_eq!(
        of_msgpack(&a.get_bytes(&format!("{path}?format=msgpack&match=a&start=0ns&end=9ns")).1).1.len(),
        2
    );
    assert!(a.get_bytes("/api/v1/sites/nowhere/points?format=msgpack").1.is_empty());
    // What is no answer of points is told in texts, also to who would rather have another.
    let aggregate = "/api/v1/sites/lab/aggregate?fn=count";
    assert_eq!(a.get(&format!("{aggregate}&format=msgpack")).status, 406);
    assert_eq!(a.get_accepting(aggregate, MSGPACK).status, 406);
    assert_eq!(a.get_accepting(aggregate, &format!("{MSGPACK}, */*")).content_type, "application/json");
    a.stop();
    b.stop();
}

#[test]
fn an_export_is_of_the_site_that_is_named_or_else_of_the_nodes_own_and_of_none_that_is_not_granted() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &["--site", "own"]);
    for (site, value) in [("own", 1), ("other", 2)] {
        let point = json!({"points": [{"metric": "m", "timestamp_ns": 1, "value": value}]});
        assert_eq!(running.post_json(site, &point).status, 200);
    }
    let json = |query: &str| running.get(&format!("/api/v1/export{query}")).json();
    assert_eq!(json(""), running.get("/api/v1/sites/own/points").json());
    assert_eq!(json("?site=other"), running.get("/api/v1/sites/other/points").json());
    assert_eq!(json("?site=other&match=n")["series"], json!([]));
    assert_eq!(json("?site=nowhere"), json!({"site": "nowhere", "series": []}));
    for query in ["?site=own&site=other", "?site=No%20Site", "?step=5", "?format=xml", "?start=2&end=1"] {
        assert_eq!(running.get(&format!("/api/v1/export{query}")).status, 400, "{query}");
    }
    let reader = make_token(dir.path(), &[Scope::Read], &["other"]);
    let writer = make_token(dir.path(), &[Scope::Write], &["other"]);
    let ask = |token, target: &str, head: &str| {
        let answer = raw(&running.url, "GET", target, &[&bearer(token), head], "");
        (answer.status, answer.text.contains("\"points\":[[1,2]]"))
    };
    assert_eq!(ask(&reader, "/api/v1/export?site=other", "X-A: b"), (200, true));
    assert_eq!(ask(&reader, "/api/v1/export", "X-Tidelog-Site: other"), (200, true));
    assert_eq!(ask(&reader, "/api/v1/export", "X-A: b"), (403, false));
    assert_eq!(ask(&reader, "/api/v1/export?site=own", "X-Tidelog-Site: other"), (403, false));
    assert_eq!(ask(&writer, "/api/v1/export?site=other", "X-A: b"), (403, false));
    running.stop();
}

#[test]
fn a_node_that_has_no_arrow_says_who_has_and_one_that_has_answers_the_same_everywhere() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, b) = (Running::start(a.path(), &[]), Running::start(b.path(), &["--store-memory-mib", "4"]));
    for node in [&a, &b] {
        assert_eq!(node.post_json("lab", &points(0..30_000)).status, 200);
        assert_eq!(node.post_json("lab", &mixed()).status, 200);
    }
    let path = "/api/v1/export?site=lab&format=arrow";
    if cfg!(feature = "arrow") {
        let (content_type, bytes) = a.get_bytes(path);
        assert_eq!(content_type, ARROW);
        assert!(bytes.len() > 30_000 * 16, "{}", bytes.len());
        assert!(
            bytes == b.get_bytes(path).1
                && bytes == a.get_bytes_accepting("/api/v1/sites/lab/points", ARROW).1
        );
        // A stream that is whole says so at its end.
        assert!(bytes.ends_with(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]));
        let nothing = a.get_bytes("/api/v1/sites/nowhere/points?format=arrow").1;
        assert!(nothing.len() > 100 && nothing.ends_with(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]));
    } else {
        let refused = a.get(path);
        assert_eq!((refused.status, refused.error_code().as_str()), (406, "not_acceptable"));
        assert!(refused.text.contains("nodes of the cloud"), "{}", refused.text);
        assert_eq!(a.get_accepting("/api/v1/sites/lab/points", ARROW).status, 406);
        let other = a.get_accepting("/api/v1/sites/lab/points?match=a", &format!("{ARROW}, text/csv"));
        assert_eq!(other.content_type, "text/csv; charset=utf-8");
    }
    a.stop();
    b.stop();
}
