//! A client of MQTT 3.1.1 or of MQTT 5, as one: what can be asked of it, what it tells, and why it is over. Which of the two it
//! is, is known here alone; what is said over it is not known here.
//!
//! A refusal ends the session, whatever was refused: MQTT 5 names the reason of each (a connection, a subscription, a published
//! message), and one that was refused is not acknowledged, so nobody's cursor moves over it. Under 3.1.1 a broker that does
//! not want a message can only acknowledge and drop it, or close the connection.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::v5::mqttbytes::QoS as QoS5;
use rumqttc::v5::mqttbytes::v5 as packet5;
use rumqttc::{Outgoing, QoS, v5};
use tokio::time::timeout;

use super::broker::{KEEP_ALIVE_S, NETWORK_S_MAX};

/// Shortest time between two questions whether the broker is there, where the broker sets it, in seconds.
const KEEP_ALIVE_S_MIN: u64 = 5;

/// How to connect, and as whom.
#[derive(Clone)]
pub(super) enum Options {
    V3(Box<rumqttc::MqttOptions>),
    V5(Box<v5::MqttOptions>),
}

/// The side that asks.
#[derive(Clone)]
pub(super) enum Client {
    V3(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

/// The side that drives the connection and tells what happens on it.
pub(super) enum Connection {
    V3(Box<rumqttc::EventLoop>),
    V5 { events: Box<v5::EventLoop>, quiet_max: Duration },
}

/// What happened.
#[derive(Debug)]
pub(super) enum Event {
    /// The broker took the connection.
    Stands,
    /// A message was written, under this packet identifier.
    Sent(u16),
    /// The broker has the message of this packet identifier.
    Acknowledged(u16),
    /// The broker took the subscription.
    Subscribed,
    /// Somebody published.
    Message(Message),
    /// The broker was told that this is the end.
    TookLeave,
    /// Nothing that anybody waits for.
    Other,
}

/// What somebody published.
#[derive(Debug)]
pub(super) struct Message {
    pub topic: String,
    pub payload: Bytes,
    pub retain: bool,
    /// Whether the broker delivered it before, as far as the broker knows.
    pub again: bool,
    pub receipt: Receipt,
}

/// What a message is acknowledged with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Receipt {
    /// The packet identifier, which is the same when the message is delivered again; 0 for a message of QoS 0.
    pub packet: u16,
    /// Nothing is to be acknowledged of a message of QoS 0.
    owed: bool,
}

/// The other side of the client is gone, or takes nothing now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client is gone")]
pub(super) struct Gone;

/// Why a connection is over, or did not come about.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("the broker refuses the {what}: {reason}")]
    Refused { what: &'static str, reason: String },
    #[error("the broker refuses the subscription: {0}")]
    Subscription(String),
    #[error("the broker ended the session: {0}")]
    Ended(String),
    #[error("{0}")]
    Tls(String),
    /// Not MQTT, or longer than one side takes.
    #[error("{0}")]
    Packet(String),
    #[error("the connection takes nothing for {NETWORK_S_MAX} s")]
    Stuck,
    #[error("{0}")]
    Connection(String),
}

impl Options {
    /// A session that the broker keeps while the client is away, for so many seconds (MQTT 5 alone, for ever without), and whose
    /// messages are acknowledged by [`Client::acknowledge`] alone. At most `receive_max` of them come unacknowledged, where the
    /// protocol lets that be said.
    pub fn keep_session(&mut self, expiry_s: Option<u32>, receive_max: u16) {
        match self {
            Self::V3(options) => {
                options.set_clean_session(false).set_manual_acks(true);
            }
            Self::V5(options) => {
                options
                    .set_clean_start(false)
                    .set_session_expiry_interval(Some(expiry_s.unwrap_or(u32::MAX)))
                    .set_receive_maximum(Some(receive_max))
                    .set_manual_acks(true);
            }
        }
    }

    /// What the broker publishes, and retains, when this client goes without a word.
    pub fn set_last_will(&mut self, topic: &str, payload: String) {
        match self {
            Self::V3(options) => {
                options.set_last_will(rumqttc::LastWill::new(topic, payload, QoS::AtLeastOnce, true));
            }
            Self::V5(options) => {
                options.set_last_will(packet5::LastWill::new(topic, payload, QoS5::AtLeastOnce, true, None));
            }
        }
    }

    /// A client that connects when its connection is polled. At most so many requests wait for the socket.
    pub fn client(&self, requests_max: usize) -> (Client, Connection) {
        match self {
            Self::V3(options) => {
                let (client, mut events) = rumqttc::AsyncClient::new((**options).clone(), requests_max);
                events.set_network_options(super::broker::network_options());
                (Client::V3(client), Connection::V3(Box::new(events)))
            }
            Self::V5(options) => {
                let (client, events) = v5::AsyncClient::new((**options).clone(), requests_max);
                let quiet_max = quiet_max(KEEP_ALIVE_S);
                (Client::V5(client), Connection::V5 { events: Box::new(events), quiet_max })
            }
        }
    }
}

/// Longest time that nothing at all happens on a connection that is well: it is asked whether the broker is there.
fn quiet_max(keep_alive_s: u64) -> Duration {
    Duration::from_secs(keep_alive_s + 2 * NETWORK_S_MAX)
}

impl Client {
    /// Publishes, once there is room.
    pub async fn publish(&self, topic: &str, qos: QoS, retain: bool, payload: Bytes) -> Result<(), Gone> {
        match self {
            Self::V3(client) => client.publish_bytes(topic, qos, retain, payload).await.map_err(|_| Gone),
            Self::V5(client) => {
                client.publish_bytes(topic, of_v5(qos), retain, payload).await.map_err(|_| Gone)
            }
        }
    }

    /// Subscribes at QoS 1, if there is room for the request.
    pub fn subscribe(&self, filter: &str) -> Result<(), Gone> {
        match self {
            Self::V3(client) => client.try_subscribe(filter, QoS::AtLeastOnce).map_err(|_| Gone),
            Self::V5(client) => client.try_subscribe(filter, QoS5::AtLeastOnce).map_err(|_| Gone),
        }
    }

    /// Acknowledges a message, if there is room for the request.
    pub fn acknowledge(&self, receipt: Receipt) -> Result<(), Gone> {
        if !receipt.owed {
            return Ok(());
        }
        // Of the message, the clients look at the packet identifier and at the quality of service alone.
        match self {
            Self::V3(client) => {
                let mut message = rumqttc::Publish::new(String::new(), QoS::AtLeastOnce, Vec::new());
                message.pkid = receipt.packet;
                client.try_ack(&message).map_err(|_| Gone)
            }
            Self::V5(client) => {
                let mut message = packet5::Publish::new("", QoS5::AtLeastOnce, Bytes::new(), None);
                message.pkid = receipt.packet;
                client.try_ack(&message).map_err(|_| Gone)
            }
        }
    }

    /// Takes leave, so that the last will is not published.
    pub fn take_leave(&self) -> Result<(), Gone> {
        match self {
            Self::V3(client) => client.try_disconnect().map_err(|_| Gone),
            Self::V5(client) => client.try_disconnect().map_err(|_| Gone),
        }
    }
}

fn of_v5(qos: QoS) -> QoS5 {
    match qos {
        QoS::AtMostOnce => QoS5::AtMostOnce,
        QoS::AtLeastOnce => QoS5::AtLeastOnce,
        QoS::ExactlyOnce => QoS5::ExactlyOnce,
    }
}

impl Connection {
    /// Drives the connection until something happens. It may not be broken off and taken up again: what was read could be lost.
    pub async fn next(&mut self) -> Result<Event, Lost> {
        match self {
            Self::V3(events) => of_event_3(events.poll().await?),
            Self::V5 { events, quiet_max } => {
                // This client's own writes know no time after which they fail.
                let event = match timeout(*quiet_max, events.poll()).await {
                    Ok(Ok(event)) => event,
                    // The reason may stand in what came just before the end.
                    Ok(Err(error)) => {
                        let before = events.state.events.drain(..).find_map(|event| of_event_5(event).err());
                        return Err(before.unwrap_or_else(|| error.into()));
                    }
                    Err(_) => return Err(Lost::Stuck),
                };
                if let v5::Event::Incoming(packet5::Packet::ConnAck(answer)) = &event {
                    let asked = answer.properties.as_ref().and_then(|said| said.server_keep_alive);
                    let keep_alive_s = match asked.map(u64::from) {
                        // A broker that does not want to be asked is asked as one that says nothing about it.
                        None | Some(0) => KEEP_ALIVE_S,
                        Some(seconds) => seconds.max(KEEP_ALIVE_S_MIN),
                    };
                    events.options.set_keep_alive(Duration::from_secs(keep_alive_s));
                    *quiet_max = self::quiet_max(keep_alive_s);
                }
                of_event_5(event)
            }
        }
    }
}

fn of_event_3(event: rumqttc::Event) -> Result<Event, Lost> {
    use rumqttc::{Event as Event3, Packet};
    Ok(match event {
        Event3::Incoming(Packet::ConnAck(_)) => Event::Stands,
        Event3::Incoming(Packet::PubAck(packet)) => Event::Acknowledged(packet.pkid),
        Event3::Incoming(Packet::SubAck(granted)) => {
            if granted.return_codes.contains(&rumqttc::SubscribeReasonCode::Failure) {
                return Err(Lost::Subscription("MQTT 3.1.1 has no word for why".to_owned()));
            }
            Event::Subscribed
        }
        Event3::Incoming(Packet::Publish(message)) => {
            let receipt = Receipt { packet: message.pkid, owed: message.qos != QoS::AtMostOnce };
            let rumqttc::Publish { topic, payload, retain, dup: again, .. } = message;
            Event::Message(Message { topic, payload, retain, again, receipt })
        }
        Event3::Outgoing(outgoing) => of_outgoing(outgoing),
        Event3::Incoming(_) => Event::Other,
    })
}

fn of_event_5(event: v5::Event) -> Result<Event, Lost> {
    use packet5::{Packet, PubAckReason, SubscribeReasonCode};
    Ok(match event {
        v5::Event::Incoming(Packet::ConnAck(_)) => Event::Stands,
        v5::Event::Incoming(Packet::PubAck(packet)) => match packet.reason {
            PubAckReason::Success | PubAckReason::NoMatchingSubscribers => Event::Acknowledged(packet.pkid),
            reason => {
                let said = packet.properties.and_then(|said| said.reason_string);
                return Err(Lost::Refused { what: "message", reason: words(reason, said) });
            }
        },
        v5::Event::Incoming(Packet::SubAck(granted)) => {
            let refused =
                granted.return_codes.iter().find(|code| !matches!(code, SubscribeReasonCode::Success(_)));
            if let Some(code) = refused {
                let said = granted.properties.and_then(|said| said.reason_string);
                return Err(Lost::Subscription(words(code, said)));
            }
            Event::Subscribed
        }
        v5::Event::Incoming(Packet::Publish(message)) => {
            let receipt = Receipt { packet: message.pkid, owed: message.qos != QoS5::AtMostOnce };
            let topic = String::from_utf8_lossy(&message.topic).into_owned();
            let packet5::Publish { payload, retain, dup: again, .. } = message;
            Event::Message(Message { topic, payload, retain, again, receipt })
        }
        v5::Event::Outgoing(outgoing) => of_outgoing(outgoing),
        v5::Event::Incoming(_) => Event::Other,
    })
}

fn of_outgoing(outgoing: Outgoing) -> Event {
    match outgoing {
        Outgoing::Publish(packet) => Event::Sent(packet),
        Outgoing::Disconnect => Event::TookLeave,
        _ => Event::Other,
    }
}

impl From<rumqttc::ConnectionError> for Lost {
    fn from(error: rumqttc::ConnectionError) -> Self {
        use rumqttc::ConnectionError as Error;
        match error {
            Error::ConnectionRefused(code) => Self::Refused { what: "connection", reason: words(code, None) },
            Error::Tls(_) => Self::Tls(error.to_string()),
            Error::MqttState(rumqttc::StateError::Deserialization(_)) => Self::Packet(error.to_string()),
            _ => Self::Connection(error.to_string()),
        }
    }
}

impl From<v5::ConnectionError> for Lost {
    fn from(error: v5::ConnectionError) -> Self {
        use packet5::DisconnectReasonCode as Code;
        use v5::ConnectionError as Error;
        use v5::StateError;
        use v5::mqttbytes::Error as PacketError;
        match error {
            Error::ConnectionRefused(code) => Self::Refused { what: "connection", reason: words(code, None) },
            Error::Tls(_) => Self::Tls(error.to_string()),
            Error::Timeout(_) => {
                Self::Connection(format!("no answer to a greeting of MQTT 5 within {NETWORK_S_MAX} s"))
            }
            Error::MqttState(StateError::Deserialization(PacketError::Io(error))) => {
                Self::Connection(error.to_string())
            }
            Error::MqttState(
                StateError::Deserialization(_)
                | StateError::OutgoingPacketTooLarge { .. }
                | StateError::IncomingPacketTooLarge { .. },
            ) => Self::Packet(error.to_string()),
            Error::MqttState(StateError::ServerDisconnect { reason_code, reason_string }) => {
                let reason = words(reason_code, reason_string);
                match reason_code {
                    Code::NotAuthorized
                    | Code::TopicNameInvalid
                    | Code::TopicFilterInvalid
                    | Code::PacketTooLarge
                    | Code::QuotaExceeded
                    | Code::PayloadFormatInvalid
                    | Code::RetainNotSupported
                    | Code::QoSNotSupported => Self::Refused { what: "session", reason },
                    _ => Self::Ended(reason),
                }
            }
            _ => Self::Connection(error.to_string()),
        }
    }
}

/// A reason code in words, and what the broker says beside it: `NotAuthorized` is "not authorized".
fn words(code: impl fmt::Debug, said: Option<String>) -> String {
    let mut text = String::new();
    let mut before_is_small = false;
    for c in format!("{code:?}").replace("QoS", "Qos").chars() {
        if c.is_uppercase() && before_is_small {
            text.push(' ');
        }
        before_is_small = c.is_lowercase();
        text.extend(c.to_lowercase());
    }
    match said.filter(|said| !said.is_empty()) {
        Some(said) => format!("{text} ({said:?})"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use packet5::{ConnectReturnCode, DisconnectReasonCode, Packet, PubAck, PubAckReason, SubAck};

    fn acknowledgement(reason: PubAckReason) -> Result<Event, Lost> {
        let packet = PubAck { pkid: 7, reason, properties: None };
        of_event_5(v5::Event::Incoming(Packet::PubAck(packet)))
    }

    #[test]
    fn a_message_that_the_broker_refuses_is_not_acknowledged_and_ends_the_session_with_the_reason() {
        for reason in [PubAckReason::Success, PubAckReason::NoMatchingSubscribers] {
            assert!(matches!(acknowledgement(reason), Ok(Event::Acknowledged(7))));
        }
        for (reason, words) in [
            (PubAckReason::NotAuthorized, "not authorized"),
            (PubAckReason::QuotaExceeded, "quota exceeded"),
            (PubAckReason::PayloadFormatInvalid, "payload format invalid"),
            (PubAckReason::UnspecifiedError, "unspecified error"),
        ] {
            let lost = acknowledgement(reason).unwrap_err();
            assert!(matches!(lost, Lost::Refused { what: "message", .. }));
            assert_eq!(lost.to_string(), format!("the broker refuses the message: {words}"));
        }
    }

    #[test]
    fn a_subscription_stands_only_if_nothing_of_it_is_refused() {
        use packet5::SubscribeReasonCode::{NotAuthorized, Success};
        let answer = |return_codes| {
            let packet = SubAck { pkid: 1, return_codes, properties: None };
            of_event_5(v5::Event::Incoming(Packet::SubAck(packet)))
        };
        assert!(matches!(answer(vec![Success(QoS5::AtLeastOnce)]), Ok(Event::Subscribed)));
        let lost = answer(vec![NotAuthorized]).unwrap_err();
        assert_eq!(lost.to_string(), "the broker refuses the subscription: not authorized");
    }

    #[test]
    fn the_reason_of_an_end_is_told_in_words_and_what_cannot_mend_itself_is_a_refusal() {
        let end = |reason_code, said: Option<&str>| {
            let reason_string = said.map(str::to_owned);
            let state = v5::StateError::ServerDisconnect { reason_code, reason_string };
            Lost::from(v5::ConnectionError::MqttState(state))
        };
        let lost = end(DisconnectReasonCode::SessionTakenOver, None);
        assert!(matches!(lost, Lost::Ended(_)));
        assert_eq!(lost.to_string(), "the broker ended the session: session taken over");
        let lost = end(DisconnectReasonCode::QoSNotSupported, Some("QoS 0 only"));
        assert!(matches!(lost, Lost::Refused { .. }));
        assert_eq!(lost.to_string(), "the broker refuses the session: qos not supported (\"QoS 0 only\")");
        let lost = Lost::from(v5::ConnectionError::ConnectionRefused(ConnectReturnCode::BadUserNamePassword));
        assert_eq!(lost.to_string(), "the broker refuses the connection: bad user name password");
    }
}
