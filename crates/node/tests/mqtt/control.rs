use std::sync::{Arc, Mutex};
use std::time::Duration;

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use serde_json::{Value, json};
use tidelog_node::command;
use tidelog_record::{Batch, Series};

use super::broker::{BrittleLink, Mosquitto};
use super::node::{TestNode, eventually};

over_both_versions! {
    whether_the_node_is_there_is_told_by_it_and_by_the_broker_when_it_cannot,
    the_broker_says_that_a_node_is_gone_whose_connection_breaks,
    a_command_by_mqtt_is_issued_once_and_answered_or_refused_with_the_reason,
}

const DEVICE: &str = "02124b0000000001";

/// Somebody at the broker: what they heard, by topic, and a client to publish with.
pub struct Somebody {
    pub client: AsyncClient,
    pub heard: Arc<Mutex<Vec<(String, Value, bool)>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Somebody {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Somebody {
    pub async fn listening(port: u16, filter: &'static str) -> Self {
        let (client, mut events) =
            AsyncClient::new(MqttOptions::new(format!("hears-{}", filter.len()), "127.0.0.1", port), 32);
        let heard: Arc<Mutex<Vec<(String, Value, bool)>>> = Arc::default();
        let ready = Arc::new(Mutex::new(false));
        let (subscribing, to, stands) = (client.clone(), Arc::clone(&heard), Arc::clone(&ready));
        let task = tokio::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        subscribing.try_subscribe(filter, QoS::AtLeastOnce).unwrap();
                    }
                    Ok(Event::Incoming(Packet::SubAck(_))) => *stands.lock().unwrap() = true,
                    Ok(Event::Incoming(Packet::Publish(message))) => {
                        let said = serde_json::from_slice(&message.payload).unwrap();
                        to.lock().unwrap().push((message.topic, said, message.retain));
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
        eventually("the subscription stands", || *ready.lock().unwrap()).await;
        Self { client, heard, task }
    }

    pub fn heard(&self) -> Vec<Value> {
        self.heard.lock().unwrap().iter().map(|(_, said, _)| said.clone()).collect()
    }

    /// The answer to a command.
    async fn ask(&self, device: &str, retain: bool, command: &Value) -> Value {
        let before = self.heard().len();
        let topic = format!("tidelog/default/{device}/command");
        self.client.publish(topic, QoS::AtLeastOnce, retain, command.to_string()).await.unwrap();
        eventually("the command is answered", || self.heard().len() > before).await;
        self.heard()[before].clone()
    }
}

fn online(said: &[Value]) -> Vec<bool> {
    said.iter().map(|said| said["online"].as_bool().unwrap()).collect()
}

async fn whether_the_node_is_there_is_told_by_it_and_by_the_broker_when_it_cannot(version: &str) {
    let Some(broker) = Mosquitto::start() else { return };
    let somebody = Somebody::listening(broker.port, "tidelog/+/+/state").await;
    // The second connection that a link carries is broken without a word, some time after it stands.
    let link = BrittleLink::to(broker.port, |n| (n < 6).then_some(400)).await;
    let node = TestNode::start(
        1,
        &["--mqtt-version", version, "--mqtt-url", &format!("mqtt://127.0.0.1:{}", link.port)],
    );
    node.append(0..100).await;
    node.wait_until_published().await;
    eventually("it is there for good", || node.status("mqtt_control")["connected"] == json!(true)).await;
    drop(node.stop().await);
    eventually("it said that it goes", || online(&somebody.heard()).last() == Some(&false)).await;
    let said = somebody.heard();
    let first = json!({"online": true, "site": "default", "node": "01010101010101010101010101010101"});
    assert!(said.contains(&first), "{said:?}");
    drop(somebody);
    let late = Somebody::listening(broker.port, "tidelog/+/+/state").await;
    eventually("who comes later is told as well", || online(&late.heard()) == [false]).await;
    assert!(late.heard.lock().unwrap()[0].2, "retained");
}

async fn the_broker_says_that_a_node_is_gone_whose_connection_breaks(version: &str) {
    let Some(broker) = Mosquitto::start() else { return };
    let somebody = Somebody::listening(broker.port, "tidelog/+/+/state").await;
    // Connected, told and confirmed takes some 300 bytes each way; what comes then breaks it.
    let link = BrittleLink::to(broker.port, |n| (n < 20).then_some(600)).await;
    let url = format!("mqtt://127.0.0.1:{}", link.port);
    let node = TestNode::start(
        1,
        &["--mqtt-version", version, "--mqtt-url", &url, "--mqtt-command-topic", "t/{device}"],
    );
    eventually("it is there", || online(&somebody.heard()).contains(&true)).await;
    // Commands to nobody come until the connection breaks under them.
    eventually("it was gone", || {
        let sent = somebody.client.try_publish("t/x", QoS::AtMostOnce, false, vec![0; 100]);
        sent.is_err() || online(&somebody.heard()).contains(&false)
    })
    .await;
    eventually("it was gone and is there again", || {
        let said = online(&somebody.heard());
        said.iter().position(|it| !it).is_some_and(|gone| said[gone..].contains(&true))
    })
    .await;
    drop(node.stop().await);
}

async fn a_command_by_mqtt_is_issued_once_and_answered_or_refused_with_the_reason(version: &str) {
    let Some(broker) = Mosquitto::start() else { return };
    let somebody = Somebody::listening(broker.port, "tidelog/+/+/command/answer").await;
    let flags = [
        "--mqtt-version",
        version,
        "--mqtt-url",
        &broker.url(),
        "--mqtt-command-topic",
        "tidelog/{site}/{device}/command",
    ];
    let node = TestNode::start(1, &flags);
    let series = Series::new("temperature", [("device", DEVICE)]).unwrap();
    let batch =
        Batch { series: vec![(series, vec![(1, tidelog_record::Value::F64(2.0))])], ..Batch::default() };
    let (store, body) = (node.context.store.clone(), batch.encode().unwrap());
    let appended = move || store.append_blocking(&"default".parse().unwrap(), body).map(drop);
    tokio::task::spawn_blocking(appended).await.unwrap().unwrap();
    // It takes commands from the moment on at which it says that it is there.
    let presence = Somebody::listening(broker.port, "tidelog/+/+/state").await;
    eventually("it is there", || online(&presence.heard()) == [true]).await;
    let device = DEVICE.parse().unwrap();
    let waiting = command::follow(&node.context);
    let switch = json!({"act": {"switch": {"output": 2, "on": true}}, "expires_s": 600});
    let first = somebody.ask(DEVICE, false, &switch).await;
    assert_eq!((&first["device"], &first["state"]), (&json!(DEVICE), &json!("waiting")), "{first}");
    let now_ms = first["issued_ms"].as_i64().unwrap();
    assert_eq!(first["expires_ms"], json!(now_ms + 600_000));
    eventually("it waits for the device", || {
        waiting.next(device, now_ms).is_some_and(|it| json!(it.id.to_string()) == first["id"])
    })
    .await;
    let refused = [
        (DEVICE, false, json!({"act": "explode"}), "not a command"),
        (DEVICE, false, json!({"act": "read", "expires_s": 0}), "expires_s 0"),
        (DEVICE, false, json!({"device": DEVICE, "act": "read"}), "unknown field"),
        ("02124b0000000002", false, json!({"act": "read"}), "has sent nothing"),
        (DEVICE, false, json!({"act": " ".repeat(5000)}), "at most 4096 bytes"),
    ];
    for (device, retain, command, reason) in refused {
        let answer = somebody.ask(device, retain, &command).await;
        let said = answer["error"]["message"].as_str().unwrap();
        assert!(said.contains(reason), "{said}");
    }
    assert_eq!(waiting.len(), 1);
    let dir = node.stop().await;
    // What is retained is given to a node at each start, and done at none.
    let listener = Somebody::listening(broker.port, "tidelog/+/+/command").await;
    let topic = format!("tidelog/default/{DEVICE}/command");
    somebody.client.publish(topic, QoS::AtLeastOnce, true, r#"{"act":"reboot"}"#).await.unwrap();
    eventually("the broker has it", || !listener.heard().is_empty()).await;
    let before = somebody.heard().len();
    let node = TestNode::start_in(dir, 1, &flags);
    eventually("it is refused", || somebody.heard().len() > before).await;
    assert!(somebody.heard()[before]["error"]["message"].as_str().unwrap().contains("retained"));
    assert_eq!(node.metric("tidelog_commands_issued_total"), 0);
    drop(node.stop().await);
}

#[tokio::test]
async fn a_topic_of_commands_that_names_no_device_stops_the_start() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let flags = ["--mqtt-url", "mqtt://broker", "--mqtt-command-topic", "tidelog/{site}/command"];
    let error = TestNode::try_start_in(dir, 1, &flags).err().unwrap().to_string();
    assert!(error.starts_with("mqtt.command_topic: one level"), "{error}");
}
