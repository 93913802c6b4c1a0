//! Messages of other programs, taken in from a real broker: each once in the log, whatever breaks on the way.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use tempfile::TempDir;

use super::broker::{BrittleLink, Mosquitto};
use super::node::{TestNode, eventually};

over_both_versions! {
    bare_values_without_a_time_are_each_in_the_log_once_over_cuts_and_restarts,
    documents_become_points_and_what_is_retained_is_not_news,
}

const FORMS: &str = r#"
[[message]]
topic = "bare/{device}"
site = "plant"
[message.values]
reading = ""

[[message]]
topic = "json/{device}"
site = "plant"
time = "/at"
values = { temperature = "/temperature", open = "/open" }
"#;

fn forms(dir: &Path) -> PathBuf {
    let path = dir.join("messages.toml");
    std::fs::write(&path, FORMS).unwrap();
    path
}

/// Publishes and waits until the broker has them all.
async fn publish(port: u16, messages: Vec<(String, bool, String)>) {
    let mut options = MqttOptions::new("program", "127.0.0.1", port);
    options.set_inflight(100);
    let (client, mut events) = AsyncClient::new(options, 10);
    let mut waiting = messages.len();
    let sender = tokio::spawn(async move {
        for (topic, retain, payload) in messages {
            client.publish(topic, QoS::AtLeastOnce, retain, payload).await.unwrap();
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

/// Five devices that say few different things: only their number tells messages apart.
fn bare(count: usize) -> Vec<(String, bool, String)> {
    (0..count).map(|n| (format!("bare/{}", n % 5), false, format!("{}.5", n % 3))).collect()
}

async fn bare_values_without_a_time_are_each_in_the_log_once_over_cuts_and_restarts(version: &str) {
    let Some(broker) = Mosquitto::start_with("allow_anonymous true\nmax_inflight_messages 50\n", |_| {})
    else {
        return;
    };
    let mut dir = Arc::new(TempDir::new().unwrap());
    let files = TempDir::new().unwrap();
    let forms = forms(files.path());
    let forms = forms.to_str().unwrap();
    // The session stands before anything is published.
    let flags = |url: &str| {
        ["--ingest-version", version, "--ingest-messages", forms, "--ingest-url", url].map(str::to_owned)
    };
    let start = |dir: Arc<TempDir>, url: &str| {
        let flags = flags(url);
        TestNode::start_in(dir, 3, &flags.each_ref().map(String::as_str))
    };
    let node = start(dir, &broker.url());
    eventually("the session stands", || node.status("ingest")["connected"] == true).await;
    dir = node.stop().await;
    publish(broker.port, bare(3_000)).await;
    let mut repeats = 0;
    for _ in 0..4 {
        let link = BrittleLink::to(broker.port, |n| Some(4_000 + 500 * n)).await;
        let node = start(dir, &format!("mqtt://127.0.0.1:{}", link.port));
        // Ended while the link is down, so that what is in the log is not all acknowledged.
        eventually("the link is cut", || link.cuts.load(Ordering::Relaxed) >= 3).await;
        repeats += node.metric("tidelog_ingest_repeats_total{via=\"mqtt\"}");
        dir = node.stop().await;
    }
    let node = start(dir, &broker.url());
    let records = || node.context.store.stats().records;
    eventually("all are held", || records() >= 3_000).await;
    publish(broker.port, bare(100)).await;
    eventually("the later ones are held", || records() >= 3_100).await;
    repeats += node.metric("tidelog_ingest_repeats_total{via=\"mqtt\"}");
    assert_eq!((records(), node.points().len()), (3_100, 3_100), "{repeats} repeats");
    assert!(repeats > 0, "nothing was delivered twice: the test shows nothing");
    drop(node.stop().await);
}

async fn documents_become_points_and_what_is_retained_is_not_news(version: &str) {
    let Some(broker) = Mosquitto::start() else { return };
    let old = r#"{"at": 1795248000, "temperature": 1}"#.to_owned();
    publish(broker.port, vec![("json/d1".to_owned(), true, old)]).await;
    let files = TempDir::new().unwrap();
    let forms = forms(files.path());
    let flags = ["--ingest-version", version, "--ingest-messages", forms.to_str().unwrap(), "--ingest-url"];
    let url = broker.url();
    let node = TestNode::start(3, &[&flags[..], &[&url]].concat());
    eventually("the retained one came", || {
        node.metric("tidelog_ingest_refused_total{reason=\"retained\",via=\"mqtt\"}") == 1
    })
    .await;
    let document = r#"{"at": 1795248000.5, "temperature": 21, "open": false, "other": 1}"#.to_owned();
    let broken = ("json/d1".to_owned(), false, "{".to_owned());
    publish(broker.port, vec![broken, ("json/d1".to_owned(), false, document)]).await;
    eventually("the document is held", || node.points().len() == 2).await;
    let expected = [
        r#"open{device="d1"} 1795248000500000000 Bool(false)"#,
        r#"temperature{device="d1"} 1795248000500000000 F64(21.0)"#,
    ];
    assert_eq!(node.points(), expected);
    assert_eq!(node.metric("tidelog_ingest_refused_total{reason=\"malformed\",via=\"mqtt\"}"), 1);
    assert_eq!(node.status("ingest")["messages"], serde_json::json!(["bare/+", "json/+"]));
    drop(node.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_messages_that_means_nothing_stops_the_start_with_what_is_wrong() {
    let files = TempDir::new().unwrap();
    let path = files.path().join("messages.toml");
    std::fs::write(&path, "[[message]]\ntopic = 'a/#/b'\nothers = ''\n").unwrap();
    let flags = ["--ingest-url", "mqtt://127.0.0.1:1", "--ingest-messages", path.to_str().unwrap()];
    let dir = Arc::new(TempDir::new().unwrap());
    let error = TestNode::try_start_in(dir, 1, &flags).err().unwrap().to_string();
    assert!(error.contains("ingest.messages") && error.contains("'#' for all levels at the end"), "{error}");
}
