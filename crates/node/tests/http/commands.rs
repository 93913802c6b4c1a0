//! Commands as people issue them, and what is told of them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tidelog_node::command::{self, Waiting};
use tidelog_node::door::Scope;
use tidelog_record::uplink::{Act, CommandId, CommandState};
use tidelog_record::{Batch, DeviceId, Series};

use crate::common::door::{bearer, make_token, raw};
use crate::common::{Answer, Running};

const DEVICE: &str = "02124b0000000001";
const PATH: &str = "/api/v1/sites/plant/commands";

fn device() -> DeviceId {
    DEVICE.parse().unwrap()
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// A node that a device has reported to.
fn node(dir: &std::path::Path) -> Running {
    let running = Running::start(dir, &["--site", "plant"]);
    report(&running, "temperature", 1, json!(21.5));
    running
}

fn report(running: &Running, metric: &str, at_ms: i64, value: Value) {
    let point =
        json!({"metric": metric, "labels": {"device": DEVICE}, "timestamp_ms": at_ms, "value": value});
    assert_eq!(running.post_json("plant", &json!({"points": [point]})).status, 200);
}

/// The device's word, as the gateway writes it.
fn word(running: &Running, at_ms: i64, id: &Value, state: CommandState) {
    let id: CommandId = id.as_str().unwrap().parse().unwrap();
    report(running, "command_id", at_ms, json!(id.to_reading()));
    report(running, "command_state", at_ms, json!(state.number()));
}

fn issue(running: &Running, command: &Value) -> Answer {
    running.post(PATH, "application/json", command.to_string().as_bytes())
}

fn read(expires_s: u32) -> Value {
    json!({"device": DEVICE, "act": "read", "expires_s": expires_s})
}

fn states(running: &Running, query: &str) -> Vec<(String, String)> {
    let answer = running.get(&format!("{PATH}{query}"));
    assert_eq!(answer.status, 200, "{}", answer.text);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let told = answer.json()["commands"].as_array().unwrap().clone();
    told.iter().map(|told| (text(&told["id"]), text(&told["state"]))).collect()
}

#[test]
fn a_command_is_durable_when_it_is_answered_and_told_of_by_id_device_and_time() {
    let dir = tempfile::tempdir().unwrap();
    let running = node(dir.path());
    let every = json!({"device": DEVICE, "act": {"every": {"interval_ms": 5000}}});
    let before = now_ms();
    let issued = issue(&running, &every);
    assert_eq!(issued.status, 201, "{}", issued.text);
    let issued = issued.json();
    assert_eq!((&issued["state"], &issued["act"]), (&json!("waiting"), &every["act"]));
    let at = issued["issued_ms"].as_i64().unwrap();
    assert!((before..=now_ms()).contains(&at));
    assert!((3_600_000 - 1_000..=3_600_000).contains(&(issued["expires_ms"].as_i64().unwrap() - at)));
    let second = issue(&running, &read(60)).json();
    let ids = [&issued["id"], &second["id"]].map(|id| id.as_str().unwrap().to_owned());
    assert!(ids[0] < ids[1], "ids of one device grow");
    running.stop();

    let running = Running::start(dir.path(), &["--site", "plant"]);
    let waiting = |n: usize| (ids[n].clone(), "waiting".to_owned());
    assert_eq!(states(&running, ""), [waiting(0), waiting(1)]);
    assert_eq!(states(&running, &format!("?device={DEVICE}")), [waiting(0), waiting(1)]);
    assert_eq!(states(&running, "?device=02124b0000000002"), []);
    assert_eq!(states(&running, &format!("?id={}", ids[1])), [waiting(1)]);
    assert_eq!(states(&running, "?end=2020-01-01T00:00:00Z&start=2019-01-01T00:00:00Z"), []);
    assert_eq!(running.get("/api/v1/sites/other/commands").json()["commands"], json!([]));
    for (query, code) in [("?id=5", 400), ("?device=x", 400), ("?start=2&end=1", 400), ("?x=1", 400)] {
        assert_eq!(running.get(&format!("{PATH}{query}")).status, code, "{query}");
    }
    assert_eq!(running.metric("tidelog_commands_issued_total"), 0.0, "since this start");
    running.stop();
}

#[test]
fn a_command_that_cannot_be_is_refused_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let running = node(dir.path());
    let with = |member: &str, value: Value| {
        let mut command = read(60);
        command[member] = value;
        command
    };
    let cases = [
        (with("device", json!("02124b0000000002")), 404, "not_found"),
        (with("device", json!("lamp")), 400, "bad_body"),
        (with("act", json!("explode")), 400, "bad_body"),
        (with("act", json!({"every": {"interval_ms": 0}})), 400, "bad_body"),
        (with("act", json!({"switch": {"output": 300, "on": true}})), 400, "bad_body"),
        (with("expires_s", json!(0)), 400, "bad_body"),
        (with("expires_s", json!(604_801)), 400, "bad_body"),
        (with("when", json!("now")), 400, "bad_body"),
        (json!("read"), 400, "bad_body"),
    ];
    for (command, status, code) in cases {
        let answer = issue(&running, &command);
        assert_eq!((answer.status, answer.error_code().as_str()), (status, code), "{command}");
    }
    let cloud = format!("{PATH}?ack=cloud");
    let answer = running.post(&cloud, "application/json", read(60).to_string().as_bytes());
    assert_eq!((answer.status, answer.error_code().as_str()), (400, "bad_parameter"), "nobody to confirm it");
    assert_eq!(states(&running, ""), []);
    for _ in 0..16 {
        assert_eq!(issue(&running, &read(60)).status, 201);
    }
    let answer = issue(&running, &read(60));
    assert_eq!((answer.status, answer.error_code().as_str()), (429, "busy"));
    assert_eq!(states(&running, "").len(), 16);
    running.stop();
}

#[test]
fn what_became_of_commands_is_told_from_what_the_device_said() {
    let dir = tempfile::tempdir().unwrap();
    let running = node(dir.path());
    let ids: Vec<Value> = (0..5).map(|_| issue(&running, &read(60)).json()["id"].clone()).collect();
    let expired = issue(&running, &read(1)).json();
    let at = now_ms();
    word(&running, at, &ids[1], CommandState::Started);
    word(&running, at + 5, &ids[1], CommandState::Done);
    word(&running, at + 6, &ids[2], CommandState::Started);
    word(&running, at + 7, &ids[2], CommandState::Interrupted);
    word(&running, at + 8, &ids[3], CommandState::Started);
    // Told twice, as after a power cut: the first word counts.
    word(&running, at + 9, &ids[1], CommandState::Done);
    let told = running.get(&format!("{PATH}?id={}", ids[1].as_str().unwrap())).json();
    assert_eq!(
        (&told["commands"][0]["started_ms"], &told["commands"][0]["ended_ms"]),
        (&json!(at), &json!(at + 5))
    );
    while now_ms() < expired["expires_ms"].as_i64().unwrap() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let states: Vec<_> = states(&running, "").into_iter().map(|(_, state)| state).collect();
    assert_eq!(states, ["superseded", "done", "interrupted", "started", "waiting", "expired"]);
    running.stop();
}

#[test]
fn nothing_but_a_command_is_written_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let running = node(dir.path());
    let node = "00112233445566778899aabbccddeeff";
    let text = r#"{"act":"reboot","expires_ms":9000000000000}"#;
    let point = json!({"metric": "tidelog_command", "labels": {"device": DEVICE, "node": node}, "timestamp_ms": now_ms(), "value": text});
    let posted = running.post_json("plant", &json!({"points": [point]}));
    assert_eq!((posted.status, posted.error_code().as_str()), (400, "bad_point"));
    let quoted = text.replace('"', "\\\"");
    let line = format!("tidelog,device={DEVICE},node={node} command=\"{quoted}\"");
    assert_eq!(running.post("/api/v2/write?bucket=plant", "text/plain", line.as_bytes()).status, 400);
    let line = format!("tidelog_command,device={DEVICE},node={node} value=\"{quoted}\"");
    assert_eq!(running.post("/api/v2/write?bucket=plant", "text/plain", line.as_bytes()).status, 400);
    assert_eq!(states(&running, ""), []);
    let answer = running.get("/api/v1/sites/plant/points?match=tidelog_command").json();
    assert_eq!(answer["series"], json!([]), "{answer}");
    running.stop();
}

#[test]
fn who_may_write_or_read_may_not_command_and_who_may_command_one_site_not_another() {
    let dir = tempfile::tempdir().unwrap();
    let running = node(dir.path());
    let body = read(60).to_string();
    let ask = |scopes: &[Scope], sites: &[&str], path: &str| {
        let token = make_token(dir.path(), scopes, sites);
        raw(&running.url, "POST", path, &[&bearer(&token), "Content-Type: application/json"], &body).status
    };
    assert_eq!(ask(&[Scope::Read, Scope::Write, Scope::Admin], &["plant"], PATH), 403);
    assert_eq!(ask(&[Scope::Command], &["works"], PATH), 403);
    assert_eq!(ask(&[Scope::Command], &["plant"], "/api/v1/sites/works/commands"), 403);
    assert_eq!(ask(&[Scope::Command], &["plant"], PATH), 201);
    running.stop();
}

fn until(waiting: &Waiting, expected: Option<&Value>) {
    let expected = expected.map(|id| id.as_str().unwrap().parse::<CommandId>().unwrap());
    let begun = Instant::now();
    loop {
        let next = waiting.next(device(), now_ms());
        if next.map(|command| command.id) == expected {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{next:?} is next and not {expected:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_gateway_hands_over_what_was_issued_before_and_since_its_start_until_the_device_has_begun() {
    let dir = tempfile::tempdir().unwrap();
    let running = node(dir.path());
    let ids: Vec<Value> = (0..3).map(|_| issue(&running, &read(600)).json()["id"].clone()).collect();
    let follow = |running: &Running| {
        running.runtime.block_on(async { command::follow(running.node.as_ref().unwrap().context()) })
    };
    let waiting = follow(&running);
    until(&waiting, Some(&ids[0]));
    let switch = json!({"device": DEVICE, "act": {"switch": {"output": 3, "on": true}}});
    let later = issue(&running, &switch).json()["id"].clone();
    word(&running, now_ms(), &ids[2], CommandState::Started);
    until(&waiting, Some(&later));
    assert_eq!(waiting.next(device(), now_ms()).unwrap().act, Act::Switch { output: 3, on: true });
    running.stop();

    let running = Running::start(dir.path(), &["--site", "plant"]);
    let waiting = follow(&running);
    until(&waiting, Some(&later));
    word(&running, now_ms(), &later, CommandState::Started);
    until(&waiting, None);
    running.stop();

    // What is another site's is handed over by that site's gateways.
    let running = Running::start(dir.path(), &["--site", "works"]);
    let waiting = follow(&running);
    assert_eq!(issue(&running, &read(600)).status, 201);
    until(&waiting, None);
    running.stop();
}

#[test]
fn of_very_many_commands_the_latest_are_told_and_none_is_kept_from_its_device() {
    let dir = tempfile::tempdir().unwrap();
    let running = node(dir.path());
    let context = running.node.as_ref().unwrap().context().clone();
    let (now, author) = (now_ms(), context.store.node().to_string());
    // As an automation leaves them that commands all day: issued in the last hour, and none of them begun.
    let expired = (0..12_000).map(|n| {
        let at_ms = now - 3_600_000 + n * 100;
        let text = format!(r#"{{"act":"read","expires_ms":{}}}"#, at_ms + 1);
        (at_ms * 1_000_000, tidelog_record::Value::Text(text))
    });
    let series = Series::new("tidelog_command", [("device", DEVICE), ("node", &author)]).unwrap();
    let batch = Batch { series: vec![(series, expired.collect())], ..Batch::default() };
    context.store.append_blocking(&"plant".parse().unwrap(), batch.encode().unwrap()).unwrap();
    let issued = issue(&running, &read(600));
    assert_eq!(issued.status, 201, "{}", issued.text);
    let told = running.get(PATH).json();
    assert_eq!(told["left_out"], json!(11_001));
    let all = told["commands"].as_array().unwrap();
    assert_eq!(
        (all.len(), &all[999]["id"], &all[998]["state"]),
        (1000, &issued.json()["id"], &json!("expired"))
    );
    let waiting = running.runtime.block_on(async { command::follow(&context) });
    until(&waiting, Some(&issued.json()["id"]));
    running.stop();
}
