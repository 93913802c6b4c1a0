//! Labels that people give devices: durable, bounded, granted, the same on every node, and joined to readings in PromQL.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidelog_node::door::Scope;
use tidelog_record::{Batch, Series};

use crate::ack::{authority, dialling, listening, peering_address, prepare};
use crate::common::door::{bearer, make_token, raw};
use crate::common::{Answer, Running};

const DEVICES: &str = "/api/v1/sites/plant/devices";

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

fn give(running: &Running, device: &str, labels: &Value) -> Answer {
    let device: String = form_urlencoded::byte_serialize(device.as_bytes()).collect();
    let (device, body) = (device.replace('+', "%20"), json!({"labels": labels}).to_string());
    running.put(&format!("{DEVICES}/{device}"), "application/json", body.as_bytes())
}

fn given(running: &Running, device: &str, labels: &Value) -> i64 {
    let answer = give(running, device, labels);
    assert_eq!(answer.status, 200, "{}", answer.text);
    let told = answer.json();
    assert_eq!((&told["device"], &told["labels"], &told["ack"]), (&json!(device), labels, &json!("node")));
    told["set_ms"].as_i64().unwrap()
}

fn report(running: &Running, device: &str, at_ms: i64, value: f64) {
    let point =
        json!({"metric": "temperature", "labels": {"device": device}, "timestamp_ms": at_ms, "value": value});
    assert_eq!(running.post_json("plant", &json!({"points": [point]})).status, 200);
}

/// The labels without the metric's name, and the value, of each series of an instant query.
fn vector(running: &Running, query: &str, at_ms: i64) -> Vec<(Value, String)> {
    let query: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
    let answer = running.get(&format!("/prometheus/plant/api/v1/query?query={query}&time={at_ms}ms"));
    assert_eq!(answer.status, 200, "{}", answer.text);
    let json = answer.json();
    let rows = json["data"]["result"].as_array().unwrap().clone();
    let row = |mut row: Value| {
        row["metric"].as_object_mut().unwrap().remove("__name__");
        (row["metric"].take(), row["value"][1].as_str().unwrap().to_owned())
    };
    rows.into_iter().map(row).collect()
}

#[test]
fn a_device_has_the_labels_that_it_was_given_last_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &["--site", "plant"]);
    report(&running, "d1", 1_000, 21.5);
    assert_eq!(
        running.get(&format!("{DEVICES}/d1")).json(),
        json!({"device": "d1", "metrics": ["temperature"], "labels": {}})
    );
    let before = now_ms();
    let first = given(&running, "d1", &json!({"location": "hall"}));
    assert!((before..=now_ms()).contains(&first));
    let boiler = json!({"location": "boiler room", "type": "sht4x"});
    let second = given(&running, "d1", &boiler);
    assert!(second > first);
    let ahead = given(&running, "not yet/there ü", &json!({"location": "roof"}));
    running.stop();

    let running = Running::start(dir.path(), &["--site", "plant"]);
    let d1 = json!({"device": "d1", "metrics": ["temperature"], "labels": boiler, "set_ms": second});
    let other =
        json!({"device": "not yet/there ü", "metrics": [], "labels": {"location": "roof"}, "set_ms": ahead});
    assert_eq!(running.get(DEVICES).json(), json!({"devices": [d1, other]}));
    assert_eq!(running.get(&format!("{DEVICES}/not%20yet%2Fthere%20%C3%BC")).json(), other);
    // No labels are none; a device that never sent is not known then.
    let none = given(&running, "d1", &json!({}));
    assert_eq!(
        running.get(&format!("{DEVICES}/d1")).json(),
        json!({"device": "d1", "metrics": ["temperature"], "labels": {}, "set_ms": none})
    );
    let gone = running.put(
        &format!("{DEVICES}/not%20yet%2Fthere%20%C3%BC"),
        "application/json",
        br#"{"labels":{"location":""}}"#,
    );
    assert_eq!((gone.status, &gone.json()["labels"]), (200, &json!({})));
    assert_eq!(running.get(&format!("{DEVICES}/not%20yet%2Fthere%20%C3%BC")).status, 404);
    assert_eq!(running.get(DEVICES).json()["devices"].as_array().unwrap().len(), 1);
    assert_eq!(running.get("/api/v1/sites/house/devices").json(), json!({"devices": []}));
    running.stop();
}

#[test]
fn labels_that_cannot_be_are_refused_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &["--site", "plant"]);
    let many: Value =
        (0..33).map(|n| (format!("l{n}"), json!("x"))).collect::<serde_json::Map<_, _>>().into();
    let long = "x".repeat(2049);
    let cases = [
        (json!({"labels": {"device": "d2"}}), "bad_body"),
        (json!({"labels": {"__name__": "temperature"}}), "bad_body"),
        (json!({"labels": {"no label": "x"}}), "bad_body"),
        (json!({"labels": {"a": 1}}), "bad_body"),
        (json!({"labels": {"a": long}}), "bad_body"),
        (json!({"labels": many}), "bad_body"),
        (json!({"labels": {}, "set_ms": 5}), "bad_body"),
        (json!({}), "bad_body"),
        (json!("x"), "bad_body"),
    ];
    for (body, code) in cases {
        let answer = running.put(&format!("{DEVICES}/d1"), "application/json", body.to_string().as_bytes());
        assert_eq!((answer.status, answer.error_code().as_str()), (400, code), "{body}");
    }
    assert_eq!(give(&running, &"d".repeat(257), &json!({"a": "1"})).status, 400);
    let unconfirmed =
        running.put(&format!("{DEVICES}/d1?ack=cloud"), "application/json", br#"{"labels":{}}"#);
    assert_eq!((unconfirmed.status, unconfirmed.error_code().as_str()), (400, "bad_parameter"));
    // Nobody writes them as points; and what is called as PromQL calls them is anybody's.
    let point = |metric: &str, value: Value| json!({"points": [{"metric": metric, "labels": {"device": "d1"}, "timestamp_ms": 1, "value": value}]});
    let forged = json!(r#"{"set_ms":9000000000000,"labels":{"location":"moon"}}"#);
    assert_eq!(running.post_json("plant", &point("tidelog_device_labels", forged)).error_code(), "bad_point");
    let line = br#"tidelog_device_labels,device=d1 value="x""#;
    assert_eq!(running.post("/api/v2/write?bucket=plant", "text/plain", line).status, 400);
    assert_eq!(running.get(DEVICES).json(), json!({"devices": []}));
    assert_eq!(running.post_json("plant", &point("device_info", json!(1))).status, 200);
    assert_eq!(
        running.get("/api/v1/sites/plant/points?match=tidelog_device_labels").json()["series"],
        json!([])
    );
    running.stop();
}

#[test]
fn only_whoever_administers_the_site_gives_labels_and_whoever_reads_it_sees_them() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &["--site", "plant"]);
    given(&running, "d1", &json!({"location": "hall"}));
    let ask = |method: &str, scopes: &[Scope], sites: &[&str], path: &str| {
        let token = make_token(dir.path(), scopes, sites);
        raw(
            &running.url,
            method,
            path,
            &[&bearer(&token), "Content-Type: application/json"],
            r#"{"labels":{"location":"roof"}}"#,
        )
    };
    let path = format!("{DEVICES}/d1");
    let others = [Scope::Read, Scope::Write, Scope::Command];
    assert_eq!(ask("PUT", &others, &["plant"], &path).status, 403);
    assert_eq!(ask("PUT", &[Scope::Admin], &["works"], &path).status, 403);
    assert_eq!(ask("PUT", &[Scope::Admin], &["plant"], "/api/v1/sites/works/devices/d1").status, 403);
    assert!(ask("GET", &[Scope::Read], &["plant"], &path).text.contains("hall"), "nothing was changed");
    assert_eq!(ask("GET", &[Scope::Admin, Scope::Write], &["plant"], &path).status, 403);
    assert_eq!(ask("GET", &[Scope::Read], &["works"], &path).status, 403);
    assert_eq!(ask("PUT", &[Scope::Admin], &["plant"], &path).status, 200);
    assert!(ask("GET", &[Scope::Read], &["plant"], &path).text.contains("roof"));
    running.stop();
}

#[test]
fn a_question_joins_labels_to_readings_as_they_were_at_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &["--site", "plant"]);
    // Labels of a year ago, as a node wrote them then; before and after them readings.
    const YEAR_MS: i64 = 365 * 86_400_000;
    let (now, told) = (now_ms(), now_ms() - YEAR_MS);
    let series = Series::new("tidelog_device_labels", [("device", "d1")]).unwrap();
    let text = format!(r#"{{"set_ms":{told},"labels":{{"location":"hall","type":"sht4x"}}}}"#);
    let points = vec![(told * 1_000_000, tidelog_record::Value::Text(text))];
    let batch = Batch { series: vec![(series, points)], ..Batch::default() };
    let store = running.node.as_ref().unwrap().context().store.clone();
    store.append_blocking(&"plant".parse().unwrap(), batch.encode().unwrap()).unwrap();
    for (at, value) in [(told - 1_000, 10.0), (told, 11.0), (now - 1_000, 20.0)] {
        report(&running, "d1", at, value);
        report(&running, "d2", at, value + 0.5);
    }
    let join = "temperature * on(device) group_left(location) device_info";
    let of = |location: &str| json!({"device": "d1", "location": location});
    assert_eq!(vector(&running, join, told - 1), [], "nothing was said yet");
    assert_eq!(vector(&running, join, told), [(of("hall"), "11".to_owned())]);
    assert_eq!(vector(&running, join, now), [(of("hall"), "20".to_owned())], "a year later");

    let moved = given(&running, "d1", &json!({"location": "roof"}));
    report(&running, "d1", moved, 30.0);
    assert_eq!(vector(&running, join, moved - 1), [(of("hall"), "20".to_owned())], "as it was then");
    assert_eq!(vector(&running, join, moved), [(of("roof"), "30".to_owned())]);
    assert_eq!(
        vector(&running, "device_info", moved),
        [(of("roof"), "1".to_owned())],
        "the old series has ended"
    );
    assert_eq!(vector(&running, "count(device_info)", moved + YEAR_MS), [(json!({}), "1".to_owned())]);
    assert_eq!(vector(&running, r#"device_info{location="hall"}"#, moved), []);
    assert_eq!(vector(&running, r#"device_info{device="d2"}"#, moved), []);
    assert_eq!(
        vector(&running, r#"absent(device_info{device="d2"})"#, moved),
        [(json!({"device": "d2"}), "1".to_owned())]
    );
    let both = vector(&running, "count_over_time(device_info[1h])", moved);
    let hall = json!({"device": "d1", "location": "hall", "type": "sht4x"});
    assert_eq!(both, [(hall, "1".to_owned()), (of("roof"), "1".to_owned())]);
    let grouped = vector(&running, &format!("avg by (location) ({join})"), moved);
    assert_eq!(grouped, [(json!({"location": "roof"}), "30".to_owned())]);

    let removed = given(&running, "d1", &json!({}));
    assert_eq!(vector(&running, "device_info", removed), []);
    let query = format!(
        "/prometheus/plant/api/v1/query_range?query=device_info&start={}ms&end={removed}ms&step=0.001",
        moved - 1
    );
    let rows = running.get(&query).json()["data"]["result"].clone();
    let counts: Vec<(Value, usize)> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["metric"]["location"].clone(), row["values"].as_array().unwrap().len()))
        .collect();
    assert_eq!(counts, [(json!("hall"), 1), (json!("roof"), usize::try_from(removed - moved).unwrap())]);

    // What a dashboard asks to fill its menus.
    let data = |path: &str| running.get(&format!("/prometheus/plant/api/v1/{path}")).json()["data"].clone();
    assert_eq!(data("label/location/values"), json!(["hall", "roof"]));
    assert_eq!(data("label/__name__/values"), json!(["device_info", "temperature", "tidelog_device_labels"]));
    assert_eq!(data("labels?match[]=device_info"), json!(["__name__", "device", "location", "type"]));
    assert_eq!(data("series?match[]=device_info").as_array().unwrap().len(), 2);
    assert_eq!(data("series?match[]=temperature").as_array().unwrap().len(), 2);
    assert!(data("metadata").as_object().unwrap().contains_key("device_info"));
    running.stop();
}

#[test]
fn what_somebody_else_writes_as_device_info_is_seen_beside_what_people_said() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &["--site", "plant"]);
    let at = given(&running, "d1", &json!({"location": "hall"}));
    let point = |device: &str, value: f64| json!({"metric": "device_info", "labels": {"device": device, "location": "hall"}, "timestamp_ms": at, "value": value});
    assert_eq!(
        running.post_json("plant", &json!({"points": [point("d1", 7.0), point("d9", 9.0)]})).status,
        200
    );
    let of = |device: &str| json!({"device": device, "location": "hall"});
    let mut found = vector(&running, "device_info", at);
    found.sort_by_key(|(labels, _)| labels.to_string());
    assert_eq!(found, [(of("d1"), "1".to_owned()), (of("d9"), "9".to_owned())]);
    assert_eq!(
        vector(&running, "device_info", at + 301_000),
        [(of("d1"), "1".to_owned())],
        "what is measured grows old"
    );
    running.stop();
}

#[test]
fn labels_given_at_one_node_are_those_of_all_and_the_last_word_is_the_same_everywhere() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let authority = authority();
    prepare(a.path(), &authority, true);
    prepare(b.path(), &authority, false);
    // Both say something of one device while they do not see each other.
    let apart = Running::start(b.path(), &["--site", "plant"]);
    let early = given(&apart, "d1", &json!({"location": "hall"}));
    apart.stop();
    let cloud = listening(a.path(), "127.0.0.1:0");
    let late = given(&cloud, "d1", &json!({"location": "roof"}));
    assert!(late > early);

    let gateway = dialling(b.path(), &peering_address(a.path()));
    let both = |what: &str, is: &dyn Fn(&Value) -> bool| {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let (here, there) = (gateway.get(DEVICES), cloud.get(DEVICES));
            if here.text == there.text && is(&here.json()) {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: {} and {}", here.text, there.text);
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    both("the later word", &|json| json["devices"][0]["labels"]["location"] == "roof");
    let body = json!({"labels": {"location": "cellar"}}).to_string();
    let path = format!("{DEVICES}/d2?ack=cloud&ack_timeout=60");
    let answer = gateway.put(&path, "application/json", body.as_bytes());
    assert_eq!((answer.status, &answer.json()["ack"]), (200, &json!("cloud")));
    both("what the gateway says", &|json| json["devices"][1]["labels"]["location"] == "cellar");
    let at = now_ms();
    for query in ["device_info", "count by (location) (device_info)"] {
        assert_eq!(vector(&cloud, query, at), vector(&gateway, query, at));
    }
    assert_eq!(
        vector(&cloud, "device_info", early),
        [(json!({"device": "d1", "location": "hall"}), "1".to_owned())]
    );
    gateway.stop();
    cloud.stop();
}

#[test]
fn labels_outlive_what_the_site_keeps_and_say_the_same_as_before() {
    const DAY_MS: i64 = 86_400_000;
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &["--site", "plant"]);
    let told = now_ms() - 20 * DAY_MS;
    let series = Series::new("tidelog_device_labels", [("device", "d1")]).unwrap();
    let text = format!(r#"{{"set_ms":{told},"labels":{{"location":"hall"}}}}"#);
    let points = vec![(told * 1_000_000, tidelog_record::Value::Text(text))];
    let batch = Batch { series: vec![(series, points)], ..Batch::default() };
    let store = running.node.as_ref().unwrap().context().store.clone();
    store.append_blocking(&"plant".parse().unwrap(), batch.encode().unwrap()).unwrap();
    drop(store);
    running.stop();

    // What is kept for 30 days is written again from the 15th on, and what is kept for 60 is not yet.
    for (keep, written) in [("60d", 1), ("30d", 2), ("30d", 2)] {
        let running = Running::start(dir.path(), &["--site", "plant", "--store-keep", keep]);
        let deadline = Instant::now() + Duration::from_secs(if written == 2 { 60 } else { 1 });
        let lines = || {
            running
                .get("/api/v1/sites/plant/points?match=tidelog_device_labels&format=ndjson")
                .text
                .lines()
                .count()
        };
        while lines() < 2 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(lines(), written, "{keep}");
        let device = running.get(&format!("{DEVICES}/d1")).json();
        assert_eq!((&device["set_ms"], &device["labels"]), (&json!(told), &json!({"location": "hall"})));
        let hall = [(json!({"device": "d1", "location": "hall"}), "1".to_owned())];
        assert_eq!(vector(&running, "device_info", told), hall);
        assert_eq!(vector(&running, "device_info", now_ms()), hall);
        assert_eq!(vector(&running, "device_info", told - 1), []);
        running.stop();
    }
}
