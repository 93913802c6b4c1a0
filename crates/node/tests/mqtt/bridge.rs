use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tidelog_node::mqtt::CURSOR;
use tidelog_record::{Batch, Lsn, Record, Seal, Series, StreamId, Value};
use tidelog_store::{Position, Store};

use super::broker::{BrittleLink, Mosquitto, free_port};
use super::node::{TestNode, batch, eventually};
use super::subscriber::Subscriber;

over_both_versions! {
    every_record_arrives_in_either_form_under_the_topic_of_its_device,
    a_broker_stopped_in_mid_stream_and_started_again_loses_nothing,
    a_link_cut_again_and_again_costs_repeats_and_never_a_record,
    a_bridge_started_again_goes_on_at_its_cursor,
    a_long_record_arrives_in_parts_that_say_where_they_belong,
    a_wrong_password_is_told_and_the_right_one_is_taken,
}

/// Every record that `node` authored came, once or more, and says what the record says.
fn check_all_arrived(node: &TestNode, subscriber: &Subscriber, records: u64) -> usize {
    let (once, repeats) = subscriber.once();
    let stream =
        StreamId { site: TestNode::site(), node: node.context.store.node(), run: node.context.store.run() };
    let expected: Vec<_> =
        (0..records).map(|n| ((stream.clone(), Lsn(n + 1), None), batch(node.id, n))).collect();
    let own = once.into_iter().filter(|((of, _, _), _)| *of == stream);
    let found: Vec<_> = own.map(|(origin, (_, message))| (origin, message.into_batch())).collect();
    assert_eq!(found.len(), expected.len());
    assert_eq!(found, expected);
    repeats
}

async fn every_record_arrives_in_either_form_under_the_topic_of_its_device(version: &str) {
    let Some(broker) = Mosquitto::start() else { return };
    let subscriber = Subscriber::start(broker.port).await;
    for (id, form) in [(1, "msgpack"), (2, "json")] {
        let node = TestNode::start(
            id,
            &["--mqtt-version", version, "--mqtt-url", &broker.url(), "--mqtt-payload", form],
        );
        node.append(0..500).await;
        node.wait_until_published().await;
        subscriber.wait_for(500 * usize::from(id)).await;
        assert_eq!(node.metric("tidelog_mqtt_published_messages_total"), 500, "each is handed over once");
        assert_eq!(node.metric("tidelog_mqtt_published_points_total"), 1000);
        assert_eq!(node.status("mqtt")["sessions"], 1);
        assert_eq!(node.status("mqtt")["connected"], true);
        let repeats = check_all_arrived(&node, &subscriber, 500);
        assert_eq!(repeats, 0, "no repeat without a fault: {}", node.status("mqtt"));
        for (topic, message) in subscriber.once().0.into_values() {
            let last = message.sensor.map_or_else(|| "points".to_owned(), |sensor| sensor.device.to_string());
            assert_eq!(topic, format!("tidelog/plant/{last}"));
        }
        drop(node.stop().await);
    }
}

/// Publishes while the broker goes down and comes back three times. Records, and the LSN up to which the broker may have
/// acknowledged what it never delivered.
async fn publish_over_outages(
    broker: &mut Mosquitto,
    subscriber: &Subscriber,
    node: &TestNode,
    down: impl Fn(&mut Mosquitto),
) -> (u64, Vec<u64>) {
    let (mut appended, mut acknowledged) = (0, Vec::new());
    for outage in 1..=3 {
        node.append(appended..appended + 2000).await;
        appended += 2000;
        eventually("half is published", || subscriber.count() as u64 >= outage * 2000 - 1000).await;
        down(broker);
        eventually("the bridge notices", || node.status("mqtt")["connected"] == false).await;
        acknowledged.push(node.status("mqtt")["cursor"].as_u64().unwrap());
        node.append(appended..appended + 10).await;
        appended += 10;
        broker.start_again();
    }
    node.wait_until_published().await;
    assert!(node.metric("tidelog_mqtt_sessions_total{role=\"bridge\"}") >= 4);
    (appended, acknowledged)
}

async fn a_broker_stopped_in_mid_stream_and_started_again_loses_nothing(version: &str) {
    let Some(mut broker) = Mosquitto::start() else { return };
    let subscriber = Subscriber::start(broker.port).await;
    let node = TestNode::start(1, &["--mqtt-version", version, "--mqtt-url", &broker.url()]);
    let (records, _) = publish_over_outages(&mut broker, &subscriber, &node, Mosquitto::stop).await;
    subscriber.wait_for(usize::try_from(records).unwrap()).await;
    let repeats = check_all_arrived(&node, &subscriber, records);
    eprintln!("{records} records, 3 outages, {repeats} repeats");
    drop(node.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_in_mid_stream_loses_only_what_it_had_acknowledged_itself() {
    let Some(mut broker) = Mosquitto::start() else { return };
    let subscriber = Subscriber::start(broker.port).await;
    broker.save();
    let node = TestNode::start(1, &["--mqtt-url", &broker.url()]);
    let (records, acknowledged) =
        publish_over_outages(&mut broker, &subscriber, &node, Mosquitto::kill).await;
    eventually("the last record arrives", || {
        subscriber.once().0.keys().next_back().is_some_and(|(_, lsn, _)| lsn.0 == records)
    })
    .await;
    let (once, repeats) = subscriber.once();
    let arrived: HashSet<u64> = once.keys().map(|(_, lsn, _)| lsn.0).collect();
    let missing: Vec<u64> = (1..=records).filter(|lsn| !arrived.contains(lsn)).collect();
    eprintln!("{records} records, 3 kills, {} lost by the broker, {repeats} repeats", missing.len());
    // The node is alone, so positions in its log are LSNs.
    for lsn in missing {
        assert!(
            acknowledged.iter().any(|upto| lsn <= *upto && lsn + 2000 > *upto),
            "{lsn} after {acknowledged:?}"
        );
    }
    drop(node.stop().await);
}

async fn a_link_cut_again_and_again_costs_repeats_and_never_a_record(version: &str) {
    let Some(broker) = Mosquitto::start() else { return };
    let subscriber = Subscriber::start(broker.port).await;
    // Cut at ever other places: in the greeting, in a message, among acknowledgements.
    let link = BrittleLink::to(broker.port, |n| (n < 12).then_some(20 + n * n * 1_777)).await;
    let node = TestNode::start(
        1,
        &["--mqtt-version", version, "--mqtt-url", &format!("mqtt://127.0.0.1:{}", link.port)],
    );
    node.append(0..4000).await;
    node.wait_until_published().await;
    subscriber.wait_for(4000).await;
    let repeats = check_all_arrived(&node, &subscriber, 4000);
    let cuts = link.cuts.load(Ordering::Relaxed);
    eprintln!("4000 records, {cuts} cuts, {repeats} repeats");
    assert!(cuts >= 8, "{cuts} cuts");
    drop(node.stop().await);
}

async fn a_bridge_started_again_goes_on_at_its_cursor(version: &str) {
    let Some(broker) = Mosquitto::start() else { return };
    let subscriber = Subscriber::start(broker.port).await;
    let url = broker.url();
    let flags = ["--mqtt-version", version, "--mqtt-url", url.as_str()];
    let node = TestNode::start(1, &flags);
    node.append(0..300).await;
    node.wait_until_published().await;
    let dir = node.stop().await;
    let node = TestNode::start_in(dir, 1, &flags);
    node.append(300..600).await;
    node.wait_until_published().await;
    subscriber.wait_for(600).await;
    assert_eq!(check_all_arrived(&node, &subscriber, 600), 0, "an ordinary restart repeats nothing");
    // As after a kill -9: the cursor that was saved last stands behind what was published.
    let dir = node.stop().await;
    let (store, _) =
        Store::open(dir.path(), tidelog_store::StoreOptions::new(tidelog_record::NodeId([1; 16]))).unwrap();
    store.set_cursor(CURSOR, Position(550)).unwrap();
    store.close().unwrap();
    drop(store);
    let node = TestNode::start_in(dir, 1, &flags);
    node.wait_until_published().await;
    eventually("the repeats arrive", || subscriber.count() >= 650).await;
    assert_eq!(check_all_arrived(&node, &subscriber, 600), 50);
    drop(node.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_other_nodes_are_passed_over_and_the_cursor_still_reaches_the_head() {
    let Some(broker) = Mosquitto::start() else { return };
    let subscriber = Subscriber::start(broker.port).await;
    let other = TestNode::start(2, &[]);
    other.append(0..200).await;
    let theirs: Vec<Record> = other
        .context
        .store
        .follow(Position::ZERO, usize::MAX)
        .unwrap()
        .into_iter()
        .map(|(_, record)| record)
        .collect();
    let node = TestNode::start(1, &["--mqtt-url", &broker.url()]);
    node.append(0..10).await;
    let store = node.context.store.clone();
    tokio::task::spawn_blocking(move || store.adopt_blocking(theirs)).await.unwrap().unwrap();
    node.append(10..20).await;
    node.wait_until_published().await;
    assert_eq!(node.context.store.head(), Position(220));
    subscriber.wait_for(20).await;
    assert_eq!(check_all_arrived(&node, &subscriber, 20), 0);
    drop(node.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_without_points_is_passed_over_and_is_no_failure() {
    let Some(broker) = Mosquitto::start() else { return };
    let subscriber = Subscriber::start(broker.port).await;
    let node = TestNode::start(1, &["--mqtt-url", &broker.url()]);
    node.append(0..10).await;
    let seal = Seal { first: Lsn(1), last: Lsn(10), ordinal: 0, parts: 1, hash: [5; 16] };
    for body in [seal.encode(), vec![200, 1, 2]] {
        let store = node.context.store.clone();
        let append = move || store.append_blocking(&TestNode::site(), body);
        tokio::task::spawn_blocking(append).await.unwrap().unwrap();
    }
    node.append(10..20).await;
    node.wait_until_published().await;
    assert_eq!(node.context.store.head(), Position(22));
    subscriber.wait_for(20).await;
    let (arrived, repeats) = subscriber.once();
    let arrived: Vec<u64> = arrived.keys().map(|(_, lsn, _)| lsn.0).collect();
    assert_eq!((arrived, repeats), ((1..=10).chain(13..=22).collect(), 0));
    assert_eq!(node.metric("tidelog_mqtt_failures_total{reason=\"unreadable\",role=\"bridge\"}"), 0);
    drop(node.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_broker_is_away_appends_go_on_and_the_status_says_why() {
    if Mosquitto::start().is_none() {
        return;
    }
    let port = free_port();
    let node = TestNode::start(1, &["--mqtt-url", &format!("mqtt://127.0.0.1:{port}")]);
    let started = Instant::now();
    node.append(0..1000).await;
    eprintln!("1000 appends without a broker: {} ms", started.elapsed().as_millis());
    eventually("the status tells", || node.status("mqtt")["last_error"].is_string()).await;
    let status = node.status("mqtt");
    assert_eq!((&status["connected"], &status["lag_records"]), (&false.into(), &1000.into()), "{status}");
    assert!(node.metric("tidelog_mqtt_failures_total{reason=\"connection\",role=\"bridge\"}") >= 1);
    let stopping = Instant::now();
    drop(node.stop().await);
    assert!(stopping.elapsed() < Duration::from_secs(4), "{:?}", stopping.elapsed());
}

async fn a_long_record_arrives_in_parts_that_say_where_they_belong(version: &str) {
    let Some(broker) = Mosquitto::start() else { return };
    let subscriber = Subscriber::start(broker.port).await;
    let node = TestNode::start(
        1,
        &["--mqtt-version", version, "--mqtt-url", &broker.url(), "--mqtt-payload", "json"],
    );
    let series = Series::new("text", [("a", "b")]).unwrap();
    let points: Vec<_> = (0..9).map(|i| (i, Value::Text("\u{1}".repeat(100_000)))).collect();
    let long = Batch { series: vec![(series.clone(), points.clone())], ..batch(1, 0) };
    let store = node.context.store.clone();
    let body = long.encode().unwrap();
    tokio::task::spawn_blocking(move || store.append_blocking(&TestNode::site(), body))
        .await
        .unwrap()
        .unwrap();
    node.wait_until_published().await;
    subscriber.wait_for(9).await;
    let mut found = Vec::new();
    for (_, message) in subscriber.once().0.into_values() {
        assert_eq!(message.part.unwrap().first_point, found.len() as u64);
        found.extend(message.points.into_iter().map(|(_, timestamp, value)| (timestamp, value)));
    }
    assert_eq!(found, points);
    drop(node.stop().await);
}

async fn a_wrong_password_is_told_and_the_right_one_is_taken(version: &str) {
    let lines = "allow_anonymous false\npassword_file passwords\n";
    let Some(broker) = Mosquitto::start_with(lines, |dir| {
        let made = std::process::Command::new("mosquitto_passwd")
            .args(["-b", "-c", "passwords", "field", "rain"])
            .current_dir(dir)
            .status();
        assert!(made.unwrap().success());
    }) else {
        return;
    };
    let url = broker.url();
    let flags = |password| {
        ["--mqtt-version", version, "--mqtt-url", &url, "--mqtt-user", "field", "--mqtt-password", password]
    };
    let node = TestNode::start(1, &flags("drought"));
    node.append(0..10).await;
    eventually("the refusal is counted", || {
        node.metric("tidelog_mqtt_failures_total{reason=\"refused\",role=\"bridge\"}") > 0
    })
    .await;
    let told = node.status("mqtt")["last_error"].clone();
    assert_eq!(told, "the broker refuses the connection: not authorized");
    let dir: Arc<_> = node.stop().await;
    let node = TestNode::start_in(dir, 1, &flags("rain"));
    node.wait_until_published().await;
    drop(node.stop().await);
}
