//! Rules from outside: points in, points and commands out, over restarts.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{Running, settings};
use tidelog_node::command;
use tidelog_node::rule::Rules;
use tidelog_record::uplink::Act;

const DEVICE: &str = "02124b0000000001";

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// The first example of the manual.
fn manual() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/RULES.md");
    let text = std::fs::read_to_string(path).unwrap();
    text.split("```toml\n").nth(1).unwrap().split("```").next().unwrap().to_owned()
}

fn start(dir: &Path, rules: &str) -> Running {
    let file = dir.join("rules.toml");
    std::fs::write(&file, rules).unwrap();
    Running::start(dir, &["--site", "plant", "--rules", &file.display().to_string()])
}

fn post(running: &Running, metric: &str, at_ms: i64, value: &Value) -> u16 {
    let labels = json!({"device": DEVICE, "room": "lab"});
    let point = json!({"metric": metric, "labels": labels, "timestamp_ms": at_ms, "value": value});
    running.post_json("plant", &json!({"points": [point]})).status
}

/// Times (ms) and values of the series that a selector means, in order of time.
fn points(running: &Running, selector: &str) -> Vec<(i64, Value)> {
    let query: String = selector.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let answer = running.get(&format!("/api/v1/sites/plant/points?match={query}")).json();
    let of = |series: &Value| series["points"].as_array().unwrap().clone();
    let all = answer["series"].as_array().unwrap().iter().flat_map(of);
    all.map(|point| (point[0].as_i64().unwrap() / 1_000_000, point[1].clone())).collect()
}

fn commands(running: &Running) -> Vec<Value> {
    let told = running.get("/api/v1/sites/plant/commands").json();
    told["commands"].as_array().unwrap().iter().map(|told| told["act"].clone()).collect()
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "30 s passed and not yet: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn values(points: &[(i64, Value)]) -> Vec<i64> {
    points.iter().map(|(_, value)| value.as_i64().unwrap()).collect()
}

#[test]
fn the_manuals_rule_derives_points_and_commands_once_and_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), &manual());
    let at = now_ms() - 60_000;
    assert_eq!(post(&running, "temperature", at, &json!(25.0)), 200);
    assert_eq!(post(&running, "temperature", at + 1_000, &json!(30.5)), 200);
    eventually("the rule begins", || !points(&running, "alarm_hot").is_empty());
    // Late, in between, text, and what rules write: nothing comes of it.
    for (metric, at, value) in [
        ("temperature", at + 500, json!(20.0)),
        ("temperature", at + 2_000, json!(28.0)),
        ("temperature", at + 3_000, json!("20")),
        ("temperature", at - 4_000_000, json!(20.0)),
        ("temperature", at + 4_000_000, json!(20.0)),
    ] {
        assert_eq!(post(&running, metric, at, &value), 200);
    }
    let passed = |running: &Running, reason: &str| {
        running.metric(&format!("tidelog_rule_passed_over_total{{reason=\"{reason}\"}}"))
    };
    eventually("it is counted", || {
        ["late", "old", "ahead", "no_number"].iter().all(|it| passed(&running, it) == 1.0)
    });
    let begun = [(at + 1_000, json!(1))];
    let told = format!(
        r#"tidelog_rule{{rule="hot",rule_metric="temperature",device="{DEVICE}",room="lab",rule_node!=""}}"#
    );
    assert_eq!(points(&running, &told), begun);
    assert_eq!(points(&running, "tidelog_rule_value"), [(at + 1_000, json!(30.5))]);
    assert_eq!(
        points(&running, &format!(r#"alarm_hot{{rule="hot",rule_metric="temperature",device="{DEVICE}"}}"#)),
        begun
    );
    let on = json!({"switch": {"output": 0, "on": true}});
    assert_eq!(commands(&running), std::slice::from_ref(&on));
    let waiting =
        running.runtime.block_on(async { command::follow(running.node.as_ref().unwrap().context()) });
    let waits = || waiting.next(DEVICE.parse().unwrap(), now_ms()).map(|command| command.act);
    eventually("it waits for the device", || waits() == Some(Act::Switch { output: 0, on: true }));
    let status = running.get("/api/v1/status").json()["rules"].clone();
    let since = (&status["firing"][0]["rule"], &status["firing"][0]["since_ms"]);
    assert_eq!((since, &status["watched"]), ((&json!("hot"), &json!(at + 1_000)), &json!(1)), "{status}");
    assert_eq!(running.metric("tidelog_rule_firing{rule=\"hot\"}"), 1.0);
    assert_eq!(running.metric("tidelog_rule_commands_total{outcome=\"issued\"}"), 1.0);
    running.stop();

    let running = start(dir.path(), &manual());
    eventually("it fires still", || running.metric("tidelog_rule_firing{rule=\"hot\"}") == 1.0);
    assert_eq!(post(&running, "temperature", at + 5_000, &json!(31.0)), 200);
    assert_eq!(post(&running, "temperature", at + 6_000, &json!(27.9)), 200);
    eventually("it clears", || points(&running, "alarm_hot").len() == 2);
    assert_eq!(points(&running, "alarm_hot"), [(at + 1_000, json!(1)), (at + 6_000, json!(0))]);
    assert_eq!(points(&running, &told), points(&running, "alarm_hot"));
    assert_eq!(commands(&running), [on, json!({"switch": {"output": 0, "on": false}})]);
    assert_eq!(running.metric("tidelog_rule_firing{rule=\"hot\"}"), 0.0);
    running.stop();
}

#[test]
fn what_comes_from_elsewhere_is_judged_and_what_came_before_a_start_by_its_newest_point() {
    let dir = tempfile::tempdir().unwrap();
    let at = now_ms() - 60_000;
    let running = start(dir.path(), "");
    for (after, value) in [(0, 31.0), (1_000, 20.0)] {
        assert_eq!(post(&running, "temperature", at + after, &json!(value)), 200);
        assert_eq!(post(&running, "temperature_old", at - 4_000_000 + after, &json!(40.0)), 200);
    }
    assert_eq!(post(&running, "temperature_b", at, &json!(35.0)), 200);
    running.stop();
    let rule =
        "[[rule]]\nname = 'hot'\nmatch = '{__name__=~\"temperature.*\"}'\nabove = 30\nclear_below = 28\n";
    let running = start(dir.path(), &format!("{rule}command = {{ act = \"read\" }}"));
    eventually("the newest point is judged", || points(&running, "tidelog_rule").len() == 1);
    assert_eq!(points(&running, "tidelog_rule{rule_metric=\"temperature_b\"}"), [(at, json!(1))]);
    assert_eq!(commands(&running), [json!("read")], "to the device of the series");
    running.stop();

    // The rule that it fired for has gone, and then comes back.
    let running = start(dir.path(), "");
    eventually("it ends", || points(&running, "tidelog_rule").len() == 2);
    assert_eq!(values(&points(&running, "tidelog_rule")), [1, 0]);
    running.stop();
    let running = start(dir.path(), rule);
    assert_eq!(post(&running, "temperature_b", now_ms() + 1_000, &json!(36.0)), 200);
    eventually("it begins anew", || points(&running, "tidelog_rule").len() == 3);
    running.stop();
}

#[test]
fn silence_begins_a_rule_and_the_next_point_of_whatever_time_clears_it() {
    let dir = tempfile::tempdir().unwrap();
    let rule = "[[rule]]\nname = 'silent'\nmatch = 'temperature'\nmissing_for = '1s'\npoint = { metric = 'alarm_silent' }\n";
    let running = start(dir.path(), rule);
    let begun = now_ms();
    assert_eq!(post(&running, "temperature", begun - 9_000_000, &json!("a text")), 200);
    eventually("it is missed", || points(&running, "alarm_silent").len() == 1);
    assert!(points(&running, "alarm_silent")[0].0 >= begun + 1_000 - 1);
    running.stop();
    let running = start(dir.path(), rule);
    eventually("it is missed still", || running.metric("tidelog_rule_firing{rule=\"silent\"}") == 1.0);
    std::thread::sleep(Duration::from_millis(2_500));
    assert_eq!(values(&points(&running, "tidelog_rule")), [1], "and that is told once");
    assert_eq!(post(&running, "temperature", begun - 8_000_000, &json!(true)), 200);
    eventually("it came", || values(&points(&running, "alarm_silent")).starts_with(&[1, 0]));
    assert_eq!(points(&running, "tidelog_rule_value"), []);
    running.stop();
}

#[test]
fn many_series_begin_at_once_and_no_rule_sets_off_another_or_itself() {
    const SERIES: usize = 50;
    let dir = tempfile::tempdir().unwrap();
    let rules = "[[rule]]\nname = 'any'\nmatch = '{__name__=~\".+\"}'\nabove = 0\nclear_below = 0\npoint = { metric = 'alarm_any' }\n
        [[rule]]\nname = 'silent'\nmatch = '{__name__=~\".+\"}'\nmissing_for = '1s'\npoint = { metric = 'alarm_silent' }\n";
    let running = start(dir.path(), rules);
    let at = now_ms();
    let point =
        |n: usize| json!({"metric": "x", "labels": {"n": n.to_string()}, "timestamp_ms": at, "value": 1});
    let body = json!({"points": (0..SERIES).map(point).collect::<Vec<_>>()});
    assert_eq!(running.post_json("plant", &body).status, 200);
    eventually("all are silent", || points(&running, "alarm_silent").len() == SERIES);
    std::thread::sleep(Duration::from_millis(2_500));
    let told =
        |rule: &str| points(&running, &format!("tidelog_rule{{rule=\"{rule}\",rule_metric=\"x\"}}")).len();
    assert_eq!((told("any"), told("silent")), (SERIES, SERIES));
    assert_eq!(points(&running, "tidelog_rule").len(), 2 * SERIES, "and nothing else");
    let status = running.get("/api/v1/status").json()["rules"].clone();
    let counts = ["watched", "firing_series"].map(|key| status[key].as_u64().unwrap());
    assert_eq!((counts, status["firing"].as_array().unwrap().len()), ([100, 100], 100));
    running.stop();
}

#[test]
fn a_command_that_cannot_be_given_is_told_and_the_transition_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let rule = |device: &str| {
        let command = format!("command = {{ act = \"read\", device = \"{device}\" }}");
        format!("[[rule]]\nname = 'hot'\nmatch = 'temperature'\nabove = 30\nclear_below = 28\n{command}")
    };
    let running = start(dir.path(), &rule("02124b0000000009"));
    assert_eq!(post(&running, "temperature", now_ms(), &json!(31)), 200);
    eventually("the rule begins", || !points(&running, "tidelog_rule").is_empty());
    assert_eq!(running.metric("tidelog_rule_commands_total{outcome=\"refused\"}"), 1.0);
    let error = running.get("/api/v1/status").json()["rules"]["last_error"].as_str().unwrap().to_owned();
    assert!(
        error.starts_with("rule hot: its command is refused: device 02124b0000000009 has sent nothing"),
        "{error}"
    );
    assert!(commands(&running).is_empty());
    // What rules say, nobody else says.
    for metric in ["tidelog_rule", "tidelog_rule_value"] {
        assert_eq!(post(&running, metric, now_ms(), &json!(1)), 400);
    }
    running.stop();
}

#[test]
fn rules_that_cannot_be_stop_the_start_with_the_file_and_the_rule() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rules.toml");
    let load = || Rules::load(&settings(dir.path(), &["--rules", &file.display().to_string()]));
    assert!(load().unwrap_err().to_string().contains("rules.toml: No such file"));
    std::fs::write(&file, "[[rule]]\nname = 'hot'\nmatch = 'x'\nabove = 30").unwrap();
    assert!(load().unwrap_err().to_string().ends_with("rules.toml: rule \"hot\": above needs clear_below"));
    std::fs::write(&file, [b' '; 300_000]).unwrap();
    assert!(load().unwrap_err().to_string().contains("longer than"));
    std::fs::write(&file, [0xff]).unwrap();
    assert!(load().unwrap_err().to_string().contains("invalid utf-8"));
}
