//! Ingest: messages of other nodes' bridges, taken from a broker into this node's own stream, and acknowledged to the
//! broker when they are durable here (invariant 2).
//!
//! The subscription is QoS 1 in a session that the broker keeps, so that it holds what comes while this node is away. What
//! is delivered twice is stored once: a record is known by its origin, which stands in the copy too ([`Relay`]) and is
//! learned again from the log at the start; a sensor's batch also by what the log holds of that sensor. A payload that
//! cannot be read is counted, told with its topic, and acknowledged, because delivering it again would not mend it. When the
//! log does not take a record, the session ends unacknowledged, and the broker delivers again.
//!
//! Messages about this node's own records are passed over, and copies are never published by the bridge, so two nodes on
//! one broker do not echo each other.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tidelog_record::{BatchError, Lsn, Relay, Series, StreamId};
use tidelog_store::{AppendError, ReadError, Store};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::{debug, error, warn};

use super::client::{self, Client, Connection, Event, Gone, Options, Receipt};
use super::payload::{Message, PayloadError};
use super::receipts::{Arrival, Receipts};
use super::recent::{Place, Recent};
use super::session::{FAREWELL_S_MAX, Link, LinkStatus, SessionEnd};
use super::topic::TopicFilter;
use crate::backoff::{Backoff, random};
use crate::context::NodeContext;
use crate::reserved::{Reserved, reserved};
use crate::rule;

/// Most messages taken from the broker and not yet acknowledged to it.
pub(super) const IN_HAND_MAX: u16 = 1000;

/// Most bytes of payload in them, in bytes, unless one message alone is longer.
const IN_HAND_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Records of each own stream that are read at the start to learn which were copied from where.
const LEARN_RECORDS_MAX: u64 = 16_384;

/// Most bytes of records read from the log at a time, while learning.
const LEARN_BYTES_MAX: usize = 256 * 1024;

/// Acknowledgements that wait inside the client: as many as there are packet identifiers, so that there is always room.
const REQUESTS_MAX: usize = 65_536;

/// Longest reason written to the log, in characters: it may quote the payload.
const REASON_CHARS_MAX: usize = 200;

const VIA: &str = "mqtt";

/// How ingest is, for the status document.
#[derive(Clone, Debug, Serialize)]
pub struct IngestStatus {
    /// The link to the broker.
    #[serde(flatten)]
    pub link: LinkStatus,
    /// What is subscribed to.
    pub topic: String,
}

/// Ingest, over all its sessions.
pub(super) struct Ingest {
    pub context: NodeContext,
    pub options: Options,
    pub topic: TopicFilter,
    pub link: Arc<Link>,
}

/// Why a payload does not become a record.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Payload(#[from] PayloadError),
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error(
        "commands do not come by MQTT: they are posted to a node or replicated; nor do this node's own words on its rules"
    )]
    Reserved,
}

impl Refusal {
    /// The reason as a metric's label.
    fn label(&self) -> &'static str {
        match self {
            Self::Payload(PayloadError::TooLong { .. })
            | Self::Batch(
                BatchError::TooLong { .. }
                | BatchError::TooManyPoints { .. }
                | BatchError::NamesTooLong { .. },
            ) => "too_long",
            Self::Payload(PayloadError::Version(_)) => "version",
            Self::Payload(_) | Self::Batch(_) => "malformed",
            Self::Reserved => "command",
        }
    }
}

/// A record to append, and what it was made of.
struct Copy {
    stream: StreamId,
    place: Place,
    body: Vec<u8>,
    points: u64,
}

/// What the log said about a copy.
struct Answer {
    place: Place,
    bytes: usize,
    points: u64,
    result: Result<(), AppendError>,
}

/// The books of ingest. Those of appends outlive a session: an append that was asked for is answered after it too.
struct Books {
    recent: Recent,
    /// Copies that the log was given and did not answer for, with the messages of this session that wait for each.
    asked: HashMap<Place, Vec<Arrival>>,
    bytes: usize,
    answers: mpsc::Receiver<Answer>,
    answer: mpsc::Sender<Answer>,
}

impl Ingest {
    /// Takes messages in until the node ends.
    pub async fn run(self) {
        let recent = match learn(&self.context.store).await {
            Ok(recent) => recent,
            Err(error) => {
                // A repeat would be stored twice, which no answer shows: better than no readings.
                error!(%error, "what was taken in before could not be read");
                Recent::default()
            }
        };
        let (answer, answers) = mpsc::channel(usize::from(IN_HAND_MAX));
        let mut books = Books { recent, asked: HashMap::new(), bytes: 0, answers, answer };
        let mut backoff = Backoff::new();
        while !self.context.shutdown.is_cancelled() {
            let received = self.context.metrics.mqtt_received.get();
            let end = self.session(&mut books).await;
            self.link.ended(&end);
            self.settle(&mut books).await;
            if self.context.metrics.mqtt_received.get() > received && !matches!(end, SessionEnd::Store(_)) {
                backoff.reset();
            }
            tokio::select! {
                () = sleep(backoff.next(random())) => {}
                () = self.context.shutdown.cancelled() => {}
            }
        }
    }

    async fn session(&self, books: &mut Books) -> SessionEnd {
        let (client, mut connection) = self.options.client(REQUESTS_MAX);
        // The channel holds one message, and the working part stops taking when it has enough in hand: so the polling part
        // stops reading, and the broker waits.
        let (messages, arriving) = mpsc::channel(1);
        // Each part is one future from the session's start to its end: polling the client may not be broken off and taken
        // up again.
        tokio::select! {
            end = self.poll(&client, &mut connection, messages) => end,
            end = self.work(&client, arriving, books) => end,
        }
    }

    async fn poll(
        &self,
        client: &Client,
        connection: &mut Connection,
        messages: mpsc::Sender<client::Message>,
    ) -> SessionEnd {
        loop {
            match connection.next().await {
                Ok(Event::Stands) => {
                    self.link.stands();
                    if let Err(gone) = client.subscribe(self.topic.as_str()) {
                        return gone.into();
                    }
                }
                Ok(Event::Message(message)) => {
                    if messages.send(message).await.is_err() {
                        return Gone.into();
                    }
                }
                Ok(Event::TookLeave) => return SessionEnd::Farewell,
                Ok(_) => {}
                Err(error) => return error.into(),
            }
        }
    }

    async fn work(
        &self,
        client: &Client,
        mut arriving: mpsc::Receiver<client::Message>,
        books: &mut Books,
    ) -> SessionEnd {
        let mut receipts = Receipts::new();
        loop {
            while let Some(receipt) = receipts.next_due() {
                if let Err(gone) = client.acknowledge(receipt) {
                    return gone.into();
                }
            }
            let room = receipts.len() < usize::from(IN_HAND_MAX) && books.bytes < IN_HAND_BYTES_MAX;
            tokio::select! {
                biased;
                () = self.context.shutdown.cancelled() => break,
                Some(answer) = books.answers.recv() => {
                    if let Err(end) = self.answered(answer, books, &mut receipts) {
                        return end;
                    }
                }
                message = arriving.recv(), if room => match message {
                    Some(message) => self.take(message, books, &mut receipts),
                    None => return Gone.into(),
                },
            }
        }
        self.farewell(client, arriving, books, receipts).await;
        SessionEnd::Farewell
    }

    /// One message: a repeat, a copy to append, or nothing that can be read.
    fn take(&self, message: client::Message, books: &mut Books, receipts: &mut Receipts<Receipt>) {
        self.context.metrics.mqtt_received.inc();
        let client::Message { topic, payload, receipt, .. } = message;
        let arrival = receipts.arrived(receipt);
        match self.read(&payload) {
            Err(refusal) => {
                self.context.metrics.refused.with_label_values(&[VIA, refusal.label()]).inc();
                let reason: String = refusal.to_string().chars().take(REASON_CHARS_MAX).collect();
                warn!(topic, reason, "an MQTT message is refused");
                receipts.settle(arrival);
            }
            Ok(None) => {
                self.context.metrics.repeats.with_label_values(&[VIA]).inc();
                receipts.settle(arrival);
            }
            Ok(Some(copy)) if books.recent.holds(&copy.place) => {
                self.context.metrics.repeats.with_label_values(&[VIA]).inc();
                receipts.settle(arrival);
            }
            Ok(Some(copy)) => match books.asked.get_mut(&copy.place) {
                Some(waiting) => {
                    self.context.metrics.repeats.with_label_values(&[VIA]).inc();
                    waiting.push(arrival);
                }
                None => self.append(copy, payload.len(), arrival, books),
            },
        }
    }

    /// The copy to append; `None` for a record that is held for another reason than having been copied.
    fn read(&self, payload: &[u8]) -> Result<Option<Copy>, Refusal> {
        let message = Message::decode(payload)?;
        let store = &self.context.store;
        if message.stream.node == store.node() {
            return Ok(None);
        }
        if let (Some(sensor), None) = (&message.sensor, &message.part) {
            let last = sensor.first_seq.saturating_add(u64::from(sensor.count).saturating_sub(1));
            let held = store.device_held(sensor.device, sensor.epoch);
            if sensor.count > 0 && held.holds(sensor.first_seq, last) {
                return Ok(None);
            }
        }
        let (stream, lsn, part) = (message.stream.clone(), message.lsn, message.part);
        let first_point = part.map(|part| part.first_point);
        let place = Place { stream: stream.key(), lsn, first_point };
        let relay = Relay { node: stream.node, run: stream.run, lsn, first_point };
        let mut batch = message.into_batch();
        // The record of a rule holds the command that it gave; all but that, and what people say of devices, is history like any other, unless it claims to be this
        // node's own word.
        let may_come = |series: &Series| match reserved(series.metric()) {
            Some(Reserved::Command | Reserved::Device) => false,
            Some(Reserved::Rule) => !rule::record::is_of(series, store.node()),
            Some(Reserved::Gateway) | None => true,
        };
        let had_series = !batch.series.is_empty();
        batch.series.retain(|(series, _)| may_come(series));
        if had_series && batch.series.is_empty() {
            return Err(Refusal::Reserved);
        }
        if part.is_some() {
            // The store takes a sensor's batch as held when it has its sequence numbers; a part is not the whole batch.
            batch.origin = None;
        }
        let body = batch.encode_relayed(&relay)?;
        Ok(Some(Copy { stream, place, body, points: batch.points() as u64 }))
    }

    fn append(&self, copy: Copy, bytes: usize, arrival: Arrival, books: &mut Books) {
        let Copy { stream, place, body, points } = copy;
        books.asked.insert(place, vec![arrival]);
        books.bytes += bytes;
        let answer = books.answer.clone();
        self.context.store.append(&stream.site, body, move |result| {
            let answered = answer.try_send(Answer { place, bytes, points, result: result.map(drop) });
            if let Err(error) = answered {
                // There is room for every append that was asked for, so only an ending node comes here.
                debug!(%error, "nobody waits for an append any more");
            }
        });
    }

    fn answered(
        &self,
        answer: Answer,
        books: &mut Books,
        receipts: &mut Receipts<Receipt>,
    ) -> Result<(), SessionEnd> {
        let Answer { place, bytes, points, result } = answer;
        books.bytes -= bytes;
        let waiting = books.asked.remove(&place).unwrap_or_default();
        match result {
            Ok(()) => {
                books.recent.insert(&place);
                self.context.metrics.points_in.with_label_values(&[VIA]).inc_by(points);
            }
            // Never again either: the same bytes are refused each time.
            Err(AppendError::TooLong { .. } | AppendError::Malformed(_)) => {
                self.context.metrics.refused.with_label_values(&[VIA, "malformed"]).inc();
                error!(lsn = %place.lsn, "a message became a record that the log does not take");
            }
            Err(error) => return Err(SessionEnd::Store(error)),
        }
        for arrival in waiting {
            receipts.settle(arrival);
        }
        Ok(())
    }

    /// Waits until the log has answered for everything it was given, so that the next session knows it.
    async fn settle(&self, books: &mut Books) {
        let mut none = Receipts::new();
        // Whoever waits belongs to a session that is over: the broker delivers again, and it is a repeat then.
        books.asked.values_mut().for_each(Vec::clear);
        while !books.asked.is_empty() {
            match books.answers.recv().await {
                Some(answer) => {
                    if let Err(end) = self.answered(answer, books, &mut none) {
                        debug!(%end, "an append of an ended session");
                    }
                }
                None => return,
            }
        }
    }

    /// Waits a little for the log's answers, acknowledges them, and disconnects in order; the polling part sees the end.
    async fn farewell(
        &self,
        client: &Client,
        mut arriving: mpsc::Receiver<client::Message>,
        books: &mut Books,
        mut receipts: Receipts<Receipt>,
    ) {
        let last_words = async {
            while !books.asked.is_empty() {
                tokio::select! {
                    Some(answer) = books.answers.recv() => {
                        if self.answered(answer, books, &mut receipts).is_err() {
                            break;
                        }
                    }
                    // Not taken any more; it is delivered again.
                    message = arriving.recv() => if message.is_none() { break },
                }
            }
            while let Some(receipt) = receipts.next_due() {
                if client.acknowledge(receipt).is_err() {
                    return;
                }
            }
            if client.take_leave().is_ok() {
                while arriving.recv().await.is_some() {}
            }
        };
        if self.link.read().connected {
            // Out of time: what is not acknowledged is delivered again.
            drop(timeout(Duration::from_secs(FAREWELL_S_MAX), last_words).await);
        }
    }
}

fn place_of(own: &StreamId, relay: &Relay) -> Place {
    let stream = StreamId { site: own.site.clone(), node: relay.node, run: relay.run };
    Place { stream: stream.key(), lsn: relay.lsn, first_point: relay.first_point }
}

pub(super) fn status(link: &Link, topic: &TopicFilter) -> IngestStatus {
    IngestStatus { link: link.read(), topic: topic.to_string() }
}

/// Learns from the newest records of this node's own streams what they were copied from.
async fn learn(store: &Store) -> Result<Recent, ReadError> {
    let store = store.clone();
    let learned = tokio::task::spawn_blocking(move || {
        let mut recent = Recent::default();
        for (stream, head, _) in store.vector() {
            if stream.node != store.node() {
                continue;
            }
            let mut after = Lsn(head.0.saturating_sub(LEARN_RECORDS_MAX));
            loop {
                let records = store.read(&stream, after, LEARN_BYTES_MAX)?;
                let Some(last) = records.last() else { break };
                after = last.lsn;
                for record in &records {
                    if let Ok(Some(relay)) = Relay::of_body(&record.body) {
                        recent.insert(&place_of(&stream, &relay));
                    }
                }
            }
        }
        Ok(recent)
    });
    match learned.await {
        Ok(recent) => recent,
        Err(error) => {
            error!(%error, "learning what was taken in before broke off");
            Ok(Recent::default())
        }
    }
}
