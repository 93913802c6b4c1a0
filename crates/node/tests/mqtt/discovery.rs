//! Sensors as Home Assistant finds them at a broker.

use serde_json::{Value as Json, json};
use tidelog_node::StartError;

use super::broker::Mosquitto;
use super::control::Somebody;
use super::node::{TestNode, eventually};
use super::presence::hear;

over_both_versions! {
    a_sensor_is_announced_before_its_first_reading_and_to_a_broker_that_forgot_it,
}

const CONFIG: &str = "homeassistant/sensor/tidelog_plant_0101010101010101/temperature/config";
const READINGS: &str = "tidelog/plant/0101010101010101";

fn topics(somebody: &Somebody) -> Vec<String> {
    somebody.heard.lock().unwrap().iter().map(|(topic, ..)| topic.clone()).collect()
}

async fn a_sensor_is_announced_before_its_first_reading_and_to_a_broker_that_forgot_it(version: &str) {
    let Some(mut broker) = Mosquitto::start() else { return };
    let somebody = Somebody::listening(broker.port, "#").await;
    let url = broker.url();
    let flags = ["--mqtt-version", version, "--mqtt-url", &url, "--mqtt-payload", "json"];
    let node = TestNode::start(1, &[&flags[..], &["--mqtt-discovery-prefix", "homeassistant"]].concat());
    for authored_ms in [1_700_000_000_000, 1_700_000_001_000] {
        hear(&node, 1, authored_ms).await;
    }
    let readings = |topics: &[String]| topics.iter().filter(|topic| *topic == READINGS).count();
    eventually("both readings", || readings(&topics(&somebody)) == 2).await;
    let told: Vec<_> = topics(&somebody).into_iter().filter(|topic| !topic.ends_with("/state")).collect();
    let told: Vec<_> = told.iter().filter(|topic| !topic.contains("/state/")).collect();
    assert_eq!(told, [CONFIG, READINGS, READINGS]);
    let config = |somebody: &Somebody| -> Option<Json> {
        let heard = somebody.heard.lock().unwrap();
        heard.iter().find(|(topic, ..)| topic == CONFIG).map(|(_, said, _)| said.clone())
    };
    assert_eq!(config(&somebody).unwrap()["state_topic"], json!(READINGS));
    // Whoever comes later finds it too.
    drop(somebody);
    let late = Somebody::listening(broker.port, "homeassistant/#").await;
    eventually("it is retained", || config(&late).is_some()).await;
    assert!(late.heard.lock().unwrap()[0].2, "retained");

    // A broker that may have forgotten is told again, with the next reading; what it retained is marked as such.
    broker.stop();
    broker.start_again();
    drop(late);
    let anew = Somebody::listening(broker.port, "homeassistant/+/+/temperature/#").await;
    hear(&node, 1, 1_700_000_002_000).await;
    let told_anew =
        || anew.heard.lock().unwrap().iter().any(|(topic, _, retained)| topic == CONFIG && !retained);
    eventually("it is announced again", told_anew).await;
    node.stop().await;
}

#[tokio::test]
async fn what_home_assistant_could_not_read_is_refused_at_the_start() {
    let url = ["--mqtt-url", "mqtt://127.0.0.1:1", "--mqtt-discovery-prefix", "homeassistant"];
    for flags in [&[][..], &["--mqtt-payload", "json", "--mqtt-topic", "all/{node}"]] {
        let dir = std::sync::Arc::new(tempfile::tempdir().unwrap());
        let refused = TestNode::try_start_in(dir, 1, &[&url[..], flags].concat()).err();
        let Some(StartError::Setting { key, reason }) = refused else { panic!("{flags:?}: {refused:?}") };
        assert_eq!(key, "mqtt.discovery_prefix", "{reason}");
    }
}
