//! Last values and aggregates, from outside.

use serde_json::{Value, json};

use crate::common::Running;

fn filled(dir: &std::path::Path) -> Running {
    let running = Running::start(dir, &[]);
    let at = |metric: &str, room: &str, s: i64, value: Value| json!({"metric": metric, "labels": {"room": room, "floor": "1"}, "timestamp_ms": s * 1000, "value": value});
    let all = [
        at("t", "a", 0, json!(1.5)),
        at("t", "a", 50, json!(2.5)),
        at("t", "a", 60, json!(4.0)),
        at("t", "b", 10, json!(8.0)),
        at("t", "b", 130, json!(0.1)),
        at("n", "a", 30, json!(7)),
        at("mode", "a", 20, json!("auto")),
    ];
    assert_eq!(running.post_json("lab", &json!({"points": all})).status, 200);
    running
}

fn rows(running: &Running, query: &str) -> Vec<Value> {
    let answer = running.get(&format!("/api/v1/sites/lab/{query}"));
    assert_eq!(answer.status, 200, "{query}: {}", answer.text);
    answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_last_point_of_each_series_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let running = filled(dir.path());
    let told = |query: &str| -> Vec<Value> {
        rows(&running, query).into_iter().map(|row| json!([row["timestamp_ns"], row["value"]])).collect()
    };
    let s = 1_000_000_000i64;
    assert_eq!(told("last?match=t&format=ndjson"), [json!([60 * s, 4.0]), json!([130 * s, 0.1])]);
    assert_eq!(told("last?format=ndjson").len(), 4);
    assert_eq!(told("last?match=absent&format=ndjson"), [] as [Value; 0]);
    let document = running.get("/api/v1/sites/lab/last?match=n").json();
    let expected = json!({"metric": "n", "labels": {"floor": "1", "room": "a"}, "points": [[30 * s, 7]]});
    assert_eq!(document, json!({"site": "lab", "series": [expected]}));
    assert_eq!(running.get("/api/v1/sites/lab/last?start=1").error_code(), "bad_parameter");
    running.stop();
}

#[test]
fn aggregates_are_told_by_series_by_labels_and_together() {
    let dir = tempfile::tempdir().unwrap();
    let running = filled(dir.path());
    let document = running
        .get("/api/v1/sites/lab/aggregate?match=t&start=0&end=179&step=1m&fn=mean,count&fn=max")
        .json();
    let labels = |room: &str| json!({"floor": "1", "room": room});
    let minute = 60_000_000_000i64;
    assert_eq!(
        document,
        json!({"site": "lab", "functions": ["mean", "count", "max"], "groups": [
            {"metric": "t", "labels": labels("a"), "steps": [[0, 2.0, 2, 2.5], [minute, 4.0, 1, 4.0]]},
            {"metric": "t", "labels": labels("b"), "steps": [[0, 8.0, 1, 8.0], [2 * minute, 0.1, 1, 0.1]]},
        ]})
    );
    let by_room = rows(&running, "aggregate?by=room&fn=count&format=ndjson");
    let row = |labels: Value, count: i64| json!({"labels": labels, "start_ns": null, "count": count});
    assert_eq!(by_room, [row(json!({"room": "a"}), 5), row(json!({"room": "b"}), 2)]);
    assert_eq!(rows(&running, "aggregate?by=&fn=count&format=ndjson"), [row(json!({}), 7)]);
    let by_metric = rows(&running, "aggregate?by=__name__,absent&fn=last&start=0&format=ndjson");
    let lasts: Vec<_> = by_metric.iter().map(|row| (row["metric"].clone(), row["last"].clone())).collect();
    let expected = [("mode", json!("auto")), ("n", json!(7)), ("t", json!(0.1))];
    assert_eq!(lasts, expected.map(|(metric, last)| (json!(metric), last)));
    assert_eq!(by_metric[0]["start_ns"], 0);
    let csv = running
        .get("/api/v1/sites/lab/aggregate?match=t&by=&fn=rate,sum&start=0&end=59&step=60&format=csv")
        .text;
    assert_eq!(csv, "metric,labels,start_ns,rate,sum\n,\"{}\",0,0.02,12.0\n");
    running.stop();
}

#[test]
fn what_cannot_be_aggregated_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let running = filled(dir.path());
    for query in [
        "",
        "fn=",
        "fn=median",
        "fn=mean,mean",
        "fn=mean&step=0&start=0&end=1",
        "fn=mean&step=1m",
        "fn=mean&step=x&start=0&end=1",
        "fn=mean&step=1&step=2&start=0&end=1",
        "fn=mean&step=1&start=0&end=11000",
        "fn=mean&start=2&end=1",
        "fn=mean&by=a-b",
        "fn=mean&match=(",
        "fn=mean&other=1",
    ] {
        let answer = running.get(&format!("/api/v1/sites/lab/aggregate?{query}"));
        assert_eq!((answer.status, answer.error_code().as_str()), (400, "bad_parameter"), "{query}");
    }
    assert_eq!(running.get("/api/v1/sites/lab/aggregate?fn=mean&step=1&start=0&end=10999").status, 200);
    running.stop();
}
