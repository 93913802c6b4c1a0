//! An ordinary MQTT subscriber on the field's broker: hands what it hears to the judge's [`Subscriber`]. It trusts
//! nothing but the messages.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use tidelog_node::LOAD_METRIC;
use tidelog_node::mqtt::payload;

use crate::judge::{Message, Subscriber};

/// Largest message that is read, in bytes: above the largest that a node publishes.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
const REQUESTS_MAX: usize = 64;
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const RECONNECT_AFTER: Duration = Duration::from_millis(200);

/// The running subscriber.
#[derive(Clone)]
pub struct Watcher {
    heard: Arc<Mutex<Subscriber>>,
}

/// The subscription could not be asked for.
#[derive(Debug, thiserror::Error)]
#[error("cannot subscribe at the MQTT broker {broker}: {reason}")]
pub struct WatcherError {
    /// The broker.
    pub broker: String,
    /// Why.
    pub reason: String,
}

impl Watcher {
    /// Subscribes to `topic` at QoS 1 and returns when the broker has confirmed it, so that nothing published later is missed.
    ///
    /// # Errors
    /// [`WatcherError`] when the broker does not answer within ten seconds.
    pub async fn start(host: &str, port: u16, topic: &str) -> Result<Self, WatcherError> {
        let error = |reason: String| WatcherError { broker: format!("{host}:{port}"), reason };
        let id = format!("tidelog-demo-{}", std::process::id());
        let mut options = MqttOptions::new(id, host, port);
        options.set_keep_alive(KEEP_ALIVE).set_clean_session(false);
        options.set_max_packet_size(MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX);
        let (client, mut events) = AsyncClient::new(options, REQUESTS_MAX);
        client.subscribe(topic, QoS::AtLeastOnce).await.map_err(|e| error(e.to_string()))?;
        let heard = Arc::new(Mutex::new(Subscriber::default()));
        let confirmed = async {
            let mut last = String::new();
            for _ in 0..50 {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::SubAck(_))) => return Ok(()),
                    Ok(_) => {}
                    Err(e) => {
                        last = e.to_string();
                        tokio::time::sleep(RECONNECT_AFTER).await;
                    }
                }
            }
            Err(error(last))
        };
        tokio::time::timeout(Duration::from_secs(10), confirmed)
            .await
            .map_err(|_| error("no answer within 10 s".to_owned()))??;
        let watcher = Self { heard };
        let task = watcher.clone();
        tokio::spawn(async move {
            // The client must live as long as its event loop, or the loop ends.
            let _client = client;
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let message = decoded(&publish.payload);
                        if !message.as_ref().is_some_and(is_word_of_a_gateway) {
                            task.heard().take(message.and_then(read));
                        }
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(%error, "the demo's MQTT subscription was interrupted");
                        tokio::time::sleep(RECONNECT_AFTER).await;
                    }
                }
            }
        });
        Ok(watcher)
    }

    /// What it has heard so far.
    pub fn heard(&self) -> MutexGuard<'_, Subscriber> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn decoded(payload: &[u8]) -> Option<payload::Message> {
    match payload::Message::decode(payload) {
        Ok(message) => Some(message),
        Err(error) => {
            tracing::warn!(%error, "an MQTT message cannot be read");
            None
        }
    }
}

/// What gateways tell each other is nothing that was sensed.
fn is_word_of_a_gateway(message: &payload::Message) -> bool {
    message.sensor.is_none() && message.points.iter().all(|(series, ..)| series.metric() == LOAD_METRIC)
}

fn read(message: payload::Message) -> Option<Message> {
    let sensor = message.sensor?;
    let first_point = message.part.map_or(0, |part| part.first_point);
    Some(Message {
        record: (message.stream.node, message.stream.run, message.lsn, first_point),
        samples: (sensor.device, sensor.epoch, sensor.first_seq, sensor.count),
        points: message
            .points
            .into_iter()
            .map(|(series, timestamp, value)| {
                let device = series.label("device").unwrap_or_default().to_owned();
                (device, series.metric().to_owned(), timestamp, value)
            })
            .collect(),
    })
}
