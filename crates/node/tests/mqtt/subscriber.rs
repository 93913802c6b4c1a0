//! Someone who subscribes, and what they can tell from the messages alone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use tidelog_node::mqtt::payload::{Message, PAYLOAD_BYTES_MAX, Part};
use tidelog_record::{Lsn, StreamId};

use super::node::eventually;

type Origin = (StreamId, Lsn, Option<Part>);

/// Subscribes in a session that the broker keeps, and goes on whatever happens to the connection.
pub struct Subscriber {
    seen: Arc<Mutex<Seen>>,
    subscribed: Arc<Mutex<u64>>,
    task: tokio::task::JoinHandle<()>,
}

/// What came, by origin: the topic and the first message of each. A repeat says the same as its first.
#[derive(Default)]
struct Seen {
    once: BTreeMap<Origin, (String, Message)>,
    repeats: usize,
}

impl Seen {
    fn add(&mut self, topic: String, message: Message) {
        let origin = (message.stream.clone(), message.lsn, message.part);
        match self.once.get(&origin) {
            Some(first) => {
                assert_eq!(*first, (topic, message), "a repeat differs");
                self.repeats += 1;
            }
            None => drop(self.once.insert(origin, (topic, message))),
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Subscriber {
    pub async fn start(port: u16) -> Self {
        let mut options = MqttOptions::new("subscriber", "127.0.0.1", port);
        options.set_clean_session(false);
        options.set_max_packet_size(2 * PAYLOAD_BYTES_MAX, 2 * PAYLOAD_BYTES_MAX);
        let (client, mut events) = AsyncClient::new(options, 100);
        let (seen, subscribed) = (Arc::new(Mutex::new(Seen::default())), Arc::new(Mutex::new(0)));
        let (to_seen, to_subscribed, subscribing) = (Arc::clone(&seen), Arc::clone(&subscribed), client);
        let task = tokio::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::ConnAck(ack))) if !ack.session_present => {
                        subscribing.try_subscribe("tidelog/#", QoS::AtLeastOnce).unwrap();
                    }
                    Ok(Event::Incoming(Packet::SubAck(_))) => *to_subscribed.lock().unwrap() += 1,
                    Ok(Event::Incoming(Packet::Publish(message))) => {
                        if let Ok(read) = Message::decode(&message.payload) {
                            to_seen.lock().unwrap().add(message.topic, read);
                        }
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
        let subscriber = Self { seen, subscribed, task };
        eventually("the subscription stands", || *subscriber.subscribed.lock().unwrap() > 0).await;
        subscriber
    }

    /// Messages that came, repeats included.
    pub fn count(&self) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.once.len() + seen.repeats
    }

    /// Topic and message by origin, and how many repeats there were.
    pub fn once(&self) -> (BTreeMap<Origin, (String, Message)>, usize) {
        let seen = self.seen.lock().unwrap();
        (seen.once.clone(), seen.repeats)
    }

    pub async fn wait_for(&self, records: usize) {
        let came = || self.seen.lock().unwrap().once.len();
        eventually(&format!("{records} records arrive"), || came() >= records).await;
    }
}
