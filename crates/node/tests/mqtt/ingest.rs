use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use tidelog_node::mqtt::payload::{Encoding, Message};
use tidelog_record::{Batch, Lsn, NodeId, Run, Series, StreamId, Value};
use tidelog_store::Position;

use super::broker::Mosquitto;
use super::node::{TestNode, batch, eventually};

over_both_versions! {
    what_one_node_publishes_another_holds_point_for_point,
    a_repeat_is_known_within_a_session_and_after_a_restart,
    a_payload_that_cannot_be_read_is_counted_and_holds_nobody_up,
    a_killed_broker_costs_ingest_no_record_that_it_redelivers_and_no_repeat_in_the_log,
}

/// What node 9 would publish as its record `number` + 1.
fn message(number: u64) -> Vec<u8> {
    let stream = StreamId { site: TestNode::site(), node: NodeId([9; 16]), run: Run(5) };
    let batch = batch(9, number);
    let message = Message::of_record(&stream, Lsn(number + 1), &batch).next().unwrap();
    message.encode(if number.is_multiple_of(2) { Encoding::Json } else { Encoding::MessagePack }).unwrap()
}

/// Publishes payloads and waits until the broker has them all.
async fn publish(port: u16, payloads: Vec<Vec<u8>>) {
    let (client, mut events) = AsyncClient::new(MqttOptions::new("publisher", "127.0.0.1", port), 10);
    let mut waiting = payloads.len();
    let sender = tokio::spawn(async move {
        for payload in payloads {
            client.publish("tidelog/plant/points", QoS::AtLeastOnce, false, payload).await.unwrap();
        }
        client
    });
    while waiting > 0 {
        if let Event::Incoming(Packet::PubAck(_)) = events.poll().await.unwrap() {
            waiting -= 1;
        }
    }
    drop(sender.await.unwrap());
}

fn ingesting(broker: &Mosquitto, version: &str) -> Vec<String> {
    ["--ingest-version", version, "--ingest-url", &broker.url()].map(str::to_owned).into()
}

fn flags(owned: &[String]) -> Vec<&str> {
    owned.iter().map(String::as_str).collect()
}

async fn wait_until_subscribed(node: &TestNode) {
    eventually("ingest is connected", || node.status("ingest")["connected"] == true).await;
}

async fn what_one_node_publishes_another_holds_point_for_point(version: &str) {
    let Some(broker) = Mosquitto::start() else { return };
    let ingest = TestNode::start(3, &flags(&ingesting(&broker, version)));
    wait_until_subscribed(&ingest).await;
    let msgpack = TestNode::start(1, &["--mqtt-version", version, "--mqtt-url", &broker.url()]);
    let json = TestNode::start(
        2,
        &["--mqtt-version", version, "--mqtt-url", &broker.url(), "--mqtt-payload", "json"],
    );
    msgpack.append(0..1000).await;
    json.append(0..1000).await;
    eventually("2000 records are held", || ingest.context.store.stats().records == 2000).await;
    let mut expected = msgpack.points();
    expected.extend(json.points());
    expected.sort_unstable();
    let mut found = ingest.points();
    found.sort_unstable();
    assert_eq!(found, expected);
    // A record is counted when its session hears that it is durable, which is after the store holds it.
    let counted = || ingest.metric("tidelog_ingest_points_total{via=\"mqtt\"}");
    eventually("all to be counted", || counted() >= 4000).await;
    assert_eq!(counted(), 4000);
    for node in [msgpack, json, ingest] {
        drop(node.stop().await);
    }
}

async fn a_repeat_is_known_within_a_session_and_after_a_restart(version: &str) {
    let Some(broker) = Mosquitto::start() else { return };
    let settings = ingesting(&broker, version);
    let node = TestNode::start(3, &flags(&settings));
    wait_until_subscribed(&node).await;
    publish(broker.port, (0..50).chain(0..50).map(message).collect()).await;
    eventually("all are received", || node.metric("tidelog_mqtt_received_messages_total") == 100).await;
    eventually("50 are held", || node.context.store.stats().records == 50).await;
    // A message is known to be a repeat after it was counted as received.
    eventually("50 are repeats", || node.metric("tidelog_ingest_repeats_total{via=\"mqtt\"}") >= 50).await;
    assert_eq!(node.metric("tidelog_ingest_repeats_total{via=\"mqtt\"}"), 50);
    // While the node is away the broker keeps what comes; much of it is a repeat of what the log holds.
    let dir = node.stop().await;
    publish(broker.port, (0..80).map(message).collect()).await;
    let node = TestNode::start_in(dir, 3, &flags(&settings));
    eventually("all are received", || node.metric("tidelog_mqtt_received_messages_total") == 80).await;
    eventually("80 are held", || node.context.store.stats().records == 80).await;
    eventually("50 are repeats", || node.metric("tidelog_ingest_repeats_total{via=\"mqtt\"}") >= 50).await;
    assert_eq!(node.metric("tidelog_ingest_repeats_total{via=\"mqtt\"}"), 50);
    drop(node.stop().await);
}

async fn a_payload_that_cannot_be_read_is_counted_and_holds_nobody_up(version: &str) {
    let Some(broker) = Mosquitto::start() else { return };
    let settings = ingesting(&broker, version);
    let node = TestNode::start(3, &flags(&settings));
    wait_until_subscribed(&node).await;
    let newer = br#"{"v":2,"points":"in another form"}"#.to_vec();
    let bad = [b"21.5".to_vec(), Vec::new(), vec![0x81], newer, br#"{"v":1}"#.to_vec(), vec![0xff; 3000]];
    publish(broker.port, bad.iter().cloned().chain([message(1)]).collect()).await;
    eventually("the good one is held", || node.context.store.head() == Position(1)).await;
    assert_eq!(node.metric("tidelog_ingest_refused_total{reason=\"malformed\",via=\"mqtt\"}"), 5);
    assert_eq!(node.metric("tidelog_ingest_refused_total{reason=\"version\",via=\"mqtt\"}"), 1);
    // Acknowledged, so it does not come again.
    let dir = node.stop().await;
    let node = TestNode::start_in(dir, 3, &flags(&settings));
    wait_until_subscribed(&node).await;
    publish(broker.port, vec![message(2)]).await;
    eventually("the next one is held", || node.context.store.head() == Position(2)).await;
    assert_eq!(node.metric("tidelog_mqtt_received_messages_total"), 1);
    drop(node.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_publish_and_take_in_on_one_broker_do_not_echo() {
    let Some(broker) = Mosquitto::start() else { return };
    let url = broker.url();
    let both = ["--mqtt-url", &url, "--ingest-url", &url];
    let nodes = [TestNode::start(1, &both), TestNode::start(2, &both)];
    for node in &nodes {
        wait_until_subscribed(node).await;
    }
    for node in &nodes {
        node.append(0..100).await;
    }
    for node in &nodes {
        eventually("200 are held", || node.context.store.stats().records == 200).await;
        node.wait_until_published().await;
    }
    for node in &nodes {
        eventually("all are received", || node.metric("tidelog_mqtt_received_messages_total") == 200).await;
        assert_eq!(node.metric("tidelog_mqtt_published_messages_total"), 100);
        assert_eq!(node.context.store.head(), Position(200));
    }
    assert_eq!(nodes[0].points(), nodes[1].points());
    for node in nodes {
        drop(node.stop().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_parts_of_a_divided_batch_of_a_sensor_are_held() {
    let Some(broker) = Mosquitto::start() else { return };
    let ingest = TestNode::start(3, &flags(&ingesting(&broker, "3.1.1")));
    wait_until_subscribed(&ingest).await;
    let node = TestNode::start(1, &["--mqtt-url", &broker.url()]);
    let series = Series::new("text", [("a", "b")]).unwrap();
    let points: Vec<_> = (0..9).map(|i| (i, Value::Text("x".repeat(50_000)))).collect();
    let long = Batch { series: vec![(series, points)], ..batch(1, 0) };
    assert!(long.origin.is_some());
    let (store, body) = (node.context.store.clone(), long.encode().unwrap());
    tokio::task::spawn_blocking(move || store.append_blocking(&TestNode::site(), body))
        .await
        .unwrap()
        .unwrap();
    eventually("all points are held", || ingest.points() == node.points()).await;
    for node in [node, ingest] {
        drop(node.stop().await);
    }
}

async fn a_killed_broker_costs_ingest_no_record_that_it_redelivers_and_no_repeat_in_the_log(version: &str) {
    let Some(mut broker) = Mosquitto::start() else { return };
    let ingest = TestNode::start(3, &flags(&ingesting(&broker, version)));
    wait_until_subscribed(&ingest).await;
    broker.save();
    let node = TestNode::start(1, &["--mqtt-version", version, "--mqtt-url", &broker.url()]);
    node.append(0..3000).await;
    eventually("some are held", || ingest.context.store.stats().records > 500).await;
    broker.kill();
    broker.start_again();
    node.wait_until_published().await;
    // What the killed broker had acknowledged and not delivered is its loss; the bridge's cursor set back makes it good.
    let dir = node.stop().await;
    let again = TestNode::start_in(dir, 1, &[]);
    again.context.store.set_cursor(tidelog_node::mqtt::CURSOR, Position::ZERO).unwrap();
    let dir = again.stop().await;
    let node = TestNode::start_in(dir, 1, &["--mqtt-version", version, "--mqtt-url", &broker.url()]);
    node.wait_until_published().await;
    eventually("3000 are held", || ingest.context.store.stats().records >= 3000).await;
    assert_eq!(ingest.points(), node.points());
    assert_eq!(ingest.context.store.head(), Position(3000), "each record once");
    for node in [node, ingest] {
        drop(node.stop().await);
    }
}
