//! The node itself at its broker: whether it is there, told by a retained message and, when it goes without a word, by the broker
//! (last will); which sensors it hears, told by retained messages when that changes; and commands to devices that others publish.
//!
//! Sensors are looked for in the log, some seconds late and only while the broker is there: what was told before a
//! connection is told again, from the newest records, so a message that a broker retained for too long is put right.
//!
//! It has a connection of its own beside the bridge's, because the bridge's books are of records alone. A session begins clean: what
//! was published while the node was away is not done later. A command is acknowledged to the broker before it is in the log,
//! so that the broker never gives it a second time; the answer on its topic says what became of it, and no answer that nothing did.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rumqttc::QoS;
use serde_json::{Value, json};
use tidelog_record::{BodyReader, DeviceId, Opened};
use tidelog_store::Position;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::bridge::read;
use super::client::{Client, Connection, Event, Gone, Lost, Message, Options};
use super::presence::{Change, Presence};
use super::session::{FAREWELL_S_MAX, Link, SessionEnd};
use super::topic::{CommandTopic, TopicTemplate};
use crate::backoff::{Backoff, random};
use crate::command::issue::{Wish, issue};
use crate::context::NodeContext;

/// What a device's topic has behind it for the answers.
const ANSWER_LEVEL: &str = "/answer";

/// Longest command, in bytes.
const COMMAND_BYTES_MAX: usize = 4096;

/// Commands that wait to be issued; one more is dropped, and counted.
const COMMANDS_WAITING_MAX: usize = 32;

/// Messages that wait inside the client for its socket.
const REQUESTS_MAX: usize = 8;

/// How often the log is looked at for sensors.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Newest records of the log that are read for sensors at the start, and after the broker was away.
const LEARN_RECORDS_MAX: u64 = 16_384;

/// The link over all its sessions.
pub(super) struct Control {
    pub context: NodeContext,
    pub options: Options,
    /// Where it is told whether the node is there.
    pub state_topic: String,
    /// Where it is told whether a sensor is heard.
    pub device_state_topic: TopicTemplate,
    /// How long a sensor may be silent.
    pub silence: Duration,
    /// Where commands come from, if they do.
    pub commands: Option<CommandTopic>,
    pub link: Arc<Link>,
}

/// What is known of sensors, over all sessions.
struct Sensors {
    presence: Presence,
    read_up_to: Position,
}

/// What the part that polls the client tells the other.
enum Heard {
    Connected,
    Message(Message),
}

impl Control {
    /// Is there until the node ends.
    pub async fn run(mut self) {
        let gone = self.state(false).to_string();
        self.options.set_last_will(&self.state_topic, gone);
        let mut sensors = Sensors { presence: Presence::new(self.silence), read_up_to: Position::ZERO };
        let mut backoff = Backoff::new();
        while !self.context.shutdown.is_cancelled() {
            let before = self.link.read().sessions;
            let end = self.session(&mut sensors).await;
            self.link.ended(&end);
            // A broker that takes the connection and refuses what is said on it is asked ever more rarely.
            let refused = matches!(end, SessionEnd::Lost(Lost::Refused { .. } | Lost::Subscription(_)));
            if self.link.read().sessions > before && !refused {
                backoff.reset();
            }
            tokio::select! {
                () = sleep(backoff.next(random())) => {}
                () = self.context.shutdown.cancelled() => {}
            }
        }
    }

    fn state(&self, online: bool) -> Value {
        let (site, node) = (self.context.site.as_str(), self.context.store.node().to_string());
        json!({"online": online, "site": site, "node": node})
    }

    async fn session(&self, sensors: &mut Sensors) -> SessionEnd {
        let (client, mut connection) = self.options.client(REQUESTS_MAX);
        let (heard, mut hearing) = mpsc::channel(COMMANDS_WAITING_MAX);
        tokio::select! {
            end = self.poll(&mut connection, heard) => end,
            end = self.work(&client, &mut hearing, sensors) => end,
        }
    }

    /// The part that drives the client.
    async fn poll(&self, connection: &mut Connection, heard: mpsc::Sender<Heard>) -> SessionEnd {
        loop {
            let news = match connection.next().await {
                Ok(Event::Stands) => {
                    self.link.stands();
                    Heard::Connected
                }
                Ok(Event::Message(message)) => Heard::Message(message),
                Ok(Event::TookLeave) => return SessionEnd::Farewell,
                Ok(_) => continue,
                Err(error) => return error.into(),
            };
            // The client may not be kept waiting by what it brought.
            if heard.try_send(news).is_err() {
                self.link.failed("too_many_commands");
            }
        }
    }

    async fn work(
        &self,
        client: &Client,
        hearing: &mut mpsc::Receiver<Heard>,
        sensors: &mut Sensors,
    ) -> SessionEnd {
        sensors.presence.forget_told();
        let mut stands = false;
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.context.shutdown.cancelled() => {
                    self.farewell(client).await;
                    return SessionEnd::Farewell;
                }
                heard = hearing.recv() => {
                    let told = match heard {
                        Some(Heard::Connected) => {
                            stands = true;
                            self.greet(client).await
                        }
                        Some(Heard::Message(message)) => self.take(client, &message).await,
                        None => return Gone.into(),
                    };
                    if let Err(gone) = told {
                        return gone.into();
                    }
                }
                _ = look.tick(), if stands => {
                    if let Err(end) = self.look(client, sensors).await {
                        return end;
                    }
                }
            }
        }
    }

    async fn greet(&self, client: &Client) -> Result<(), Gone> {
        // In this order, so that whoever hears that the node is there can send a command.
        if let Some(topic) = &self.commands {
            client.subscribe(&topic.filter())?;
        }
        let here = self.state(true).to_string();
        client.publish(&self.state_topic, QoS::AtLeastOnce, true, Bytes::from(here)).await
    }

    /// Reads what is new in the log for sensors, and tells what changed.
    async fn look(&self, client: &Client, sensors: &mut Sensors) -> Result<(), SessionEnd> {
        let store = &self.context.store;
        while !self.context.shutdown.is_cancelled() {
            let newest = Position(store.head().0.saturating_sub(LEARN_RECORDS_MAX));
            let records = read(store, sensors.read_up_to.max(newest)).await?;
            let Some((last, _)) = records.last() else { break };
            sensors.read_up_to = *last;
            let (now, now_ms) = (Instant::now(), self.context.now_ms());
            for (_, record) in records.iter().filter(|(_, record)| record.stream.node == store.node()) {
                // What cannot be read is told by the bridge.
                let Ok(Opened::Points(body)) = BodyReader::open(&record.body) else { continue };
                if let (Some(origin), None) = (body.origin(), body.relay()) {
                    let (site, heard_ms) = (&record.stream.site, body.authored_ms());
                    sensors.presence.heard(site, origin.device, heard_ms, now_ms, now);
                }
            }
        }
        for change in sensors.presence.changes(Instant::now()) {
            self.tell(client, &change).await?;
        }
        Ok(())
    }

    async fn tell(&self, client: &Client, change: &Change) -> Result<(), Gone> {
        let Change { site, device, online, heard_ms } = change;
        let node = self.context.store.node();
        let topic = self.device_state_topic.topic(site, node, Some(*device));
        let told = json!({
            "online": online, "site": site.as_str(), "device": device.to_string(), "node": node.to_string(),
            "heard_ms": heard_ms,
        });
        client.publish(&topic, QoS::AtLeastOnce, true, Bytes::from(told.to_string())).await
    }

    async fn take(&self, client: &Client, message: &Message) -> Result<(), Gone> {
        let device = self.commands.as_ref().and_then(|topic| topic.device(&message.topic));
        let Some(device) = device else { return Ok(()) };
        let answer = match self.issue(device, message).await {
            Ok(told) => told,
            Err(reason) => {
                self.link.failed("command");
                tracing::warn!(topic = message.topic, reason, "a command is refused");
                json!({"error": {"message": reason}})
            }
        };
        let topic = format!("{}{ANSWER_LEVEL}", message.topic);
        client.publish(&topic, QoS::AtLeastOnce, false, Bytes::from(answer.to_string())).await
    }

    async fn issue(&self, device: DeviceId, message: &Message) -> Result<Value, String> {
        if message.retain {
            return Err("a command must not be retained: it would be given at each start".to_owned());
        }
        if message.payload.len() > COMMAND_BYTES_MAX {
            return Err(format!("a command has at most {COMMAND_BYTES_MAX} bytes"));
        }
        let wish: Wish =
            serde_json::from_slice(&message.payload).map_err(|error| format!("not a command: {error}"))?;
        let issued = issue(&self.context, &self.context.site, device, wish).await;
        let (order, _) = issued.map_err(|error| error.to_string())?;
        tracing::info!(target: "audit", topic = message.topic, id = %order.id, "command by MQTT");
        Ok(order.told())
    }

    /// Says that the node is gone, and disconnects in order; the polling part sees the end.
    async fn farewell(&self, client: &Client) {
        if !self.link.read().connected {
            return;
        }
        let last_words = async {
            let gone = self.state(false).to_string();
            let said = client.publish(&self.state_topic, QoS::AtMostOnce, true, Bytes::from(gone)).await;
            if said.is_ok() && client.take_leave().is_ok() {
                std::future::pending::<()>().await;
            }
        };
        // Out of time: the broker says it for the node.
        drop(timeout(Duration::from_secs(FAREWELL_S_MAX), last_words).await);
    }
}
