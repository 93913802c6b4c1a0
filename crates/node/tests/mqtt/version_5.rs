//! What MQTT 5 alone can say: why something is refused, and how long a session is kept.

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use serde_json::json;
use tidelog_store::Position;

use super::broker::Mosquitto;
use super::node::{TestNode, eventually};
use super::subscriber::Subscriber;

/// A broker whose anonymous users may do what these lines say. With an unbounded queue this mosquitto closes the connection behind the
/// refusal.
fn with_rights(rights: &'static str) -> Option<Mosquitto> {
    let lines = "allow_anonymous true\nacl_file rights\nmax_queued_messages 1000\n";
    Mosquitto::start_with(lines, |dir| std::fs::write(dir.join("rights"), rights).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_the_broker_may_not_take_stays_before_the_cursor_until_it_may() {
    let Some(mut broker) = with_rights("topic read #\ntopic write tidelog/+/+/state/#\n") else { return };
    let node = TestNode::start(1, &["--mqtt-version", "5", "--mqtt-url", &broker.url()]);
    node.append(0..50).await;
    eventually("the refusal is told", || {
        let told = node.status("mqtt")["last_error"].clone();
        told == json!("the broker refuses the message: not authorized")
    })
    .await;
    assert!(node.metric("tidelog_mqtt_failures_total{reason=\"refused\",role=\"bridge\"}") > 0);
    assert_eq!(node.status("mqtt")["cursor"], 0, "nothing was acknowledged");
    assert_eq!(node.status("mqtt_control")["connected"], true, "what it may say it says");
    // With more rights, it goes on by itself.
    broker.stop();
    broker.write("rights", "topic readwrite #\n");
    broker.start_again();
    let subscriber = Subscriber::start(broker.port).await;
    node.wait_until_published().await;
    subscriber.wait_for(50).await;
    drop(node.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_takes_few_messages_at_a_time_gets_no_more_and_all_in_the_end() {
    let Some(broker) = Mosquitto::start_with("allow_anonymous true\nmax_inflight_messages 3\n", |_| {})
    else {
        return;
    };
    let subscriber = Subscriber::start(broker.port).await;
    let node = TestNode::start(1, &["--mqtt-version", "5", "--mqtt-url", &broker.url()]);
    node.append(0..500).await;
    node.wait_until_published().await;
    subscriber.wait_for(500).await;
    assert_eq!(node.status("mqtt")["sessions"], 1, "{}", node.status("mqtt"));
    drop(node.stop().await);
}

/// Publishes one message that is held for whoever the broker keeps a session for.
async fn publish(port: u16, payload: &str) {
    let (client, mut events) = AsyncClient::new(MqttOptions::new("publisher", "127.0.0.1", port), 10);
    client.publish("tidelog/plant/points", QoS::AtLeastOnce, false, payload).await.unwrap();
    while !matches!(events.poll().await.unwrap(), Event::Incoming(Packet::PubAck(_))) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_kept_for_as_long_as_it_was_asked_for() {
    let Some(mut broker) = Mosquitto::start() else { return };
    let url = broker.url();
    let flags = ["--ingest-version", "5", "--ingest-url", &url, "--ingest-session-expiry-s", "3600"];
    let node = TestNode::start(3, &flags);
    eventually("it is connected", || node.status("ingest")["connected"] == true).await;
    let dir = node.stop().await;
    let message = |lsn: u64| {
        let point = json!({"metric": "t", "timestamp_ns": lsn, "value": 1});
        let origin = json!({"node": "09".repeat(16), "run": "0123456789abcdef", "lsn": lsn});
        json!({"v": 1, "site": "plant", "origin": origin, "authored_ms": 1, "points": [point]}).to_string()
    };
    publish(broker.port, &message(1)).await;
    broker.stop();
    broker.start_again();
    publish(broker.port, &message(2)).await;
    let node = TestNode::start_in(dir, 3, &flags);
    eventually("both are held", || node.context.store.head() == Position(2)).await;
    drop(node.stop().await);
}

#[tokio::test]
async fn how_long_a_session_is_kept_cannot_be_said_in_3_1_1_and_stops_the_start() {
    let dir = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let flags = ["--ingest-url", "mqtt://broker", "--ingest-session-expiry-s", "3600"];
    let error = TestNode::try_start_in(dir, 3, &flags).err().unwrap().to_string();
    assert!(error.starts_with("ingest.session_expiry_s: MQTT 3.1.1 has no word for it"), "{error}");
}
