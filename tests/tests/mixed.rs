//! One cluster on processors that differ in word size and byte order: a cloud node here, gateways on emulated ones. Whatever is written
//! where, all end with the same records, the same segments byte for byte, and the same answers (invariants 4 and 7). Needs the released
//! binaries in `TIDELOG_BIN_DIR`, and in `TIDELOG_EMULATED` the command lines of gateways, one a line: emulator, then program.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use support::operator::{Node, Operator};
use support::{bin_dir, until_within};

/// Emulated processes take their time.
const WITHIN: Duration = Duration::from_secs(240);
/// Records that each node writes.
const POSTS: i64 = 12;

/// Points of every kind, some at the same times as other nodes' with other values.
fn document(author: i64, post: i64) -> String {
    let mut points = Vec::new();
    for step in 0..50 {
        let at = (post * 50 + step) * 1_000_000_000 + author % 2;
        let labels = |device: i64| json!({"device": format!("d{device}"), "author": format!("{author}")});
        let walk = ((author * 7 + post * 50 + step) % 97) as f64 / 100.0 + 20.0;
        points.push(json!({"metric": "temp", "labels": labels(1), "timestamp_ns": at, "value": walk}));
        points.push(
            json!({"metric": "count", "labels": labels(2), "timestamp_ns": at, "value": i64::MAX - step}),
        );
        points
            .push(json!({"metric": "open", "labels": labels(3), "timestamp_ns": at, "value": step % 3 == 0}));
        // One series that all write to: the greatest value is the point everywhere.
        points.push(json!({"metric": "shared", "timestamp_ns": at, "value": author * 1_000 + step}));
    }
    let odd = [json!("NaN"), json!("-Inf"), json!(-0.0), json!(5e-324), json!(f64::MAX)];
    for (at, value) in (post * 1_000..).zip(odd) {
        let labels = json!({"author": format!("{author}")});
        points.push(
            json!({"metric": "odd", "labels": labels, "timestamp_ns": at, "value": value, "type": "f64"}),
        );
    }
    points.push(json!({"metric": "note", "timestamp_ns": post, "value": format!("h\u{e4}llo {author}")}));
    json!({ "points": points }).to_string()
}

/// The node's segments, by name.
fn segments(operator: &Operator, name: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = operator.data(name).join("segments");
    let Ok(files) = fs::read_dir(folder) else { return BTreeMap::new() };
    let files = files.filter_map(|file| {
        let path = file.unwrap().path();
        let name = path.file_name()?.to_str()?.to_owned();
        // One may be merged away between the list and the look.
        name.ends_with(".seg").then(|| fs::read(&path).ok().map(|bytes| (name, bytes))).flatten()
    });
    files.collect()
}

fn streams(node: &Node) -> BTreeMap<String, Value> {
    let status = node.status();
    let streams = status["streams"].as_array().unwrap().iter();
    streams.map(|s| (format!("{}/{}/{}", s["site"], s["node"], s["run"]), s["chain"].clone())).collect()
}

#[test]
fn processors_that_differ_hold_the_same_segments_byte_for_byte_and_give_the_same_answers() {
    let Some(bin_dir) = bin_dir() else { return };
    let Ok(emulated) = std::env::var("TIDELOG_EMULATED") else {
        eprintln!(
            "skipped: TIDELOG_EMULATED names no gateways for emulated processors (tests/run mixed-cluster does)"
        );
        return;
    };
    let operator = Operator::new(bin_dir);
    operator.said(&["ca", "init"]);
    // Sealed often, so that the run has segments; merged by whoever wrote them.
    let seal = ["--store-seal-s-max".to_owned(), "1".to_owned()];
    let flags = |name: &str| [&operator.issue(&[name, "--all-sites"])[..], &seal].concat();
    let cloud = operator.start("cloud", &flags("cloud"), None);
    let mut nodes = vec![("cloud".to_owned(), cloud)];
    for (number, line) in emulated.lines().enumerate() {
        let name = format!("gateway-{number}");
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let peer = nodes.first().map(|(_, cloud)| cloud);
        let node = operator.start_program(&words, &name, &flags(&name), peer);
        nodes.push((name, node));
    }
    assert!(nodes.len() > 1, "TIDELOG_EMULATED names a gateway");

    for post in 0..POSTS {
        for (author, (_, node)) in (0i64..).zip(&nodes) {
            node.post_points("plant", &document(author, post));
        }
        if post == POSTS / 2 {
            std::thread::sleep(Duration::from_millis(1_500));
        }
    }
    let authors = nodes.len();
    let first = nodes.first().unwrap();
    until_within(WITHIN, "the same streams everywhere, and all of them sealed alike", || {
        let held = segments(&operator, &first.0);
        let by_stream = held.keys().filter_map(|name| name.split('-').next());
        let sealed = by_stream.collect::<std::collections::BTreeSet<_>>().len();
        let vector = streams(&first.1);
        let same = |(name, node): &(String, Node)| {
            segments(&operator, name) == held
                && streams(node) == vector
                && node.status()["store"]["open_points"] == 0
        };
        (sealed == authors && vector.len() == authors && nodes.iter().all(same)).then_some(())
    });
    let answers = |node: &Node, question: &str| {
        let url = format!("{}{question}", node.url());
        ureq::get(url).call().unwrap().body_mut().read_to_string().unwrap()
    };
    let questions = [
        "/api/v1/sites/plant/points?format=ndjson",
        "/api/v1/sites/plant/last?format=ndjson",
        "/api/v1/sites/plant/aggregate?match=temp&fn=count,sum,mean,min,max,first,last&step=60&start=0&end=700",
        "/prometheus/plant/api/v1/query_range?query=sum(temp)by(device)&start=0&end=700&step=30",
    ];
    for question in questions {
        let expected = answers(&first.1, question);
        assert!(expected.len() > 200, "{question}: {expected}");
        for (name, node) in &nodes {
            assert_eq!(answers(node, question), expected, "{name}: {question}");
        }
    }
    for (name, node) in nodes {
        node.end();
        let verified = operator.said(&["verify", operator.data(&name).to_str().unwrap()]);
        assert!(verified.contains(": good"), "{name}: {verified}");
    }
}
