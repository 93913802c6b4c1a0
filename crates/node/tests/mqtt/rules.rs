//! What rules tell a broker, and what another node makes of it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rumqttc::QoS;
use serde_json::{Value, json};
use tidelog_record::{Batch, Series, Value as Measured};

use super::broker::Mosquitto;
use super::control::Somebody;
use super::node::{TestNode, eventually};

const DEVICE: &str = "02124b0000000001";

const RULES: &str = r#"
[[rule]]
name = "hot"
match = "temperature"
above = 30
clear_below = 28
command = { act = "read" }
mqtt = { topic = "alarms/{site}/{device}", retain = true }
point = { metric = "alarm_hot" }

[[rule]]
name = "fan"
match = "temperature"
above = 30
clear_below = 28
mqtt = { topic = "fan/power", clear_payload = "0" }
"#;

fn now_ns() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

async fn report(node: &TestNode, value: f64) -> i64 {
    let at = now_ns();
    let series = Series::new("temperature", [("device", DEVICE)]).unwrap();
    let batch = Batch { series: vec![(series, vec![(at, Measured::F64(value))])], ..Batch::default() };
    let (store, body) = (node.context.store.clone(), batch.encode().unwrap());
    let appended = move || store.append_blocking(&"default".parse().unwrap(), body).map(drop);
    tokio::task::spawn_blocking(appended).await.unwrap().unwrap();
    at
}

fn told(firing: bool, at: i64, value: f64) -> Value {
    json!({
        "rule": "hot", "firing": firing, "site": "default", "node": "01010101010101010101010101010101",
        "metric": "temperature", "labels": {"device": DEVICE}, "timestamp_ns": at, "value": value,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rules_messages_come_when_the_broker_does_and_another_node_takes_in_its_points_and_not_its_command()
{
    let Some(mut broker) = Mosquitto::start() else { return };
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let rules = dir.path().join("rules.toml");
    std::fs::write(&rules, RULES).unwrap();
    let url = broker.url();
    let flags = ["--mqtt-url", &url, "--rules", rules.to_str().unwrap()];
    let other = TestNode::start(2, &["--ingest-url", &url]);
    eventually("the other node listens", || other.status("ingest")["connected"] == json!(true)).await;
    let alarms = Somebody::listening(broker.port, "alarms/#").await;
    let fan = Somebody::listening(broker.port, "fan/power").await;
    let node = TestNode::start_in(Arc::clone(&dir), 1, &flags);
    let begun = report(&node, 31.5).await;
    eventually("it is told that it begins", || !alarms.heard().is_empty()).await;
    assert_eq!(
        *alarms.heard.lock().unwrap(),
        [(format!("alarms/default/{DEVICE}"), told(true, begun, 31.5), false)]
    );
    node.wait_until_published().await;

    broker.stop();
    let cleared = report(&node, 20.25).await;
    eventually("it clears without a broker", || {
        node.metric("tidelog_rule_transitions_total{rule=\"fan\",to=\"clears\"}") == 1
    })
    .await;
    drop(node.stop().await);
    drop((alarms, fan));
    broker.start_again();
    let alarms = Somebody::listening(broker.port, "alarms/#").await;
    let fan = Somebody::listening(broker.port, "fan/power").await;
    let node = TestNode::start_in(dir, 1, &flags);
    eventually("it is told that it cleared", || {
        alarms.heard().last() == Some(&told(false, cleared, 20.25)) && fan.heard() == [json!(0)]
    })
    .await;
    let late = Somebody::listening(broker.port, "alarms/+/+").await;
    eventually("it is retained", || late.heard() == [told(false, cleared, 20.25)]).await;
    node.wait_until_published().await;

    let held = |node: &TestNode, metric: &str| {
        let is_it = |series: &Series| series.metric() == metric;
        let scanned =
            node.context.store.scan(&"default".parse().unwrap(), &is_it, i64::MIN..=i64::MAX).unwrap();
        scanned.iter().map(|(_, points)| points.len()).sum::<usize>()
    };
    eventually("the other node has its points", || held(&other, "tidelog_rule") == 4).await;
    assert_eq!((held(&other, "alarm_hot"), held(&other, "tidelog_command")), (2, 0));
    assert_eq!(held(&node, "tidelog_command"), 1);
    // Somebody says that the other node's own rules had fired.
    let (labels, at) =
        (json!({"rule": "hot", "rule_metric": "temperature", "rule_node": "02".repeat(16)}), now_ns());
    let forged = ["tidelog_rule", "forged"]
        .map(|metric| json!({"metric": metric, "labels": labels, "timestamp_ns": at, "value": 1}));
    let origin = json!({"node": "03".repeat(16), "run": "0123456789abcdef", "lsn": 1});
    let message = json!({"v": 1, "site": "default", "origin": origin, "authored_ms": 1, "points": forged});
    late.client
        .publish("tidelog/default/points", QoS::AtLeastOnce, false, message.to_string())
        .await
        .unwrap();
    eventually("what else it says is taken in", || held(&other, "forged") == 1).await;
    assert_eq!(held(&other, "tidelog_rule"), 4);
    // By the rules of the other node nothing was judged, and a restart of this one repeats nothing.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((held(&node, "tidelog_rule"), node.metric("tidelog_rule_firing{rule=\"hot\"}")), (4, 0));
    drop((node.stop().await, other.stop().await));
}
