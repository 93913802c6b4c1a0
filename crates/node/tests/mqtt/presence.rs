//! Which sensors a node hears, as a broker retains it.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value as Json, json};
use tidelog_record::{Batch, DeviceId, Origin, Series, Value};

use super::broker::Mosquitto;
use super::control::Somebody;
use super::node::{TestNode, eventually};

over_both_versions! {
    a_sensor_is_there_while_it_is_heard_and_gone_when_it_was_silent_for_too_long,
}

const SILENCE_MS: i64 = 5000;

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A batch of a sensor that the node writes as if at `authored_ms`.
pub async fn hear(node: &TestNode, device: u8, authored_ms: i64) {
    let origin = Some(Origin {
        device: DeviceId([device; 8]),
        epoch: 1,
        first_seq: authored_ms.unsigned_abs(),
        count: 1,
    });
    let series = Series::new("temperature", [("device", DeviceId([device; 8]).to_string())]).unwrap();
    let batch = Batch {
        authored_ms,
        origin,
        series: vec![(series, vec![(authored_ms * 1_000_000, Value::F64(2.0))])],
    };
    let (store, body) = (node.context.store.clone(), batch.encode().unwrap());
    let appended = move || store.append_blocking(&TestNode::site(), body).map(drop);
    tokio::task::spawn_blocking(appended).await.unwrap().unwrap();
}

/// What was said of a sensor, in order.
fn said(somebody: &Somebody, device: u8) -> Vec<bool> {
    let is_it = |said: &&Json| said["device"] == json!(DeviceId([device; 8]).to_string());
    somebody.heard().iter().filter(is_it).map(|said| said["online"].as_bool().unwrap()).collect()
}

async fn a_sensor_is_there_while_it_is_heard_and_gone_when_it_was_silent_for_too_long(version: &str) {
    let Some(mut broker) = Mosquitto::start() else { return };
    let somebody = Somebody::listening(broker.port, "tidelog/plant/+/state/+").await;
    let url = broker.url();
    let flags = ["--mqtt-version", version, "--mqtt-url", &url, "--mqtt-device-silence-s", "5"];
    let node = TestNode::start(1, &flags);
    let first = now_ms();
    hear(&node, 1, first).await;
    hear(&node, 2, first - 2 * SILENCE_MS).await;
    eventually("both are told", || said(&somebody, 1) == [true] && said(&somebody, 2) == [false]).await;
    let told = somebody.heard.lock().unwrap().iter().find(|(_, said, _)| said["online"] == true).cloned();
    let (topic, message, _) = told.unwrap();
    assert_eq!(topic, format!("tidelog/plant/{}/state/{}", "01".repeat(16), "01".repeat(8)));
    let (site, node_id, device) = ("plant", "01".repeat(16), "01".repeat(8));
    assert_eq!(
        message,
        json!({"online": true, "site": site, "node": node_id, "device": device, "heard_ms": first})
    );
    hear(&node, 2, now_ms()).await;
    eventually("the second is back", || said(&somebody, 2) == [false, true]).await;
    eventually("both went", || {
        said(&somebody, 1) == [true, false] && said(&somebody, 2) == [false, true, false]
    })
    .await;
    // The broker forgets, or a message that is no longer true stays with it: each connection tells all anew.
    hear(&node, 1, now_ms()).await;
    eventually("the first is back", || said(&somebody, 1) == [true, false, true]).await;
    let dir = node.stop().await;
    broker.stop();
    broker.start_again();
    drop(somebody);
    tokio::time::sleep(std::time::Duration::from_millis(SILENCE_MS.unsigned_abs())).await;
    let late = Somebody::listening(broker.port, "tidelog/plant/+/state/+").await;
    eventually("it is retained", || said(&late, 1) == [true] && said(&late, 2) == [false]).await;
    let node = TestNode::start_in(dir, 1, &flags);
    eventually("it is put right", || said(&late, 1) == [true, false]).await;
    drop(node.stop().await);
}

#[tokio::test]
async fn a_topic_that_many_would_write_over_each_other_stops_the_start() {
    for topic in ["tidelog/{site}/{device}/state", "tidelog/{site}/{node}/sensors"] {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let flags = ["--mqtt-url", "mqtt://broker", "--mqtt-device-state-topic", topic];
        let error = TestNode::try_start_in(dir, 1, &flags).err().unwrap().to_string();
        assert!(error.starts_with("mqtt.device_state_topic: {node} and {device}"), "{error}");
    }
}
