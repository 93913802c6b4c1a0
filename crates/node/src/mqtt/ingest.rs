//! Ingest: messages of other nodes' bridges, taken from a broker into this node's own stream, and acknowledged to the
//! broker when they are durable here (invariant 2).
//!
//! The subscription is QoS 1 in a session that the broker keeps, so that it holds what comes while this node is away. What
//! is delivered twice is stored once: a record is known by its origin, which stands in the copy too ([`Relay`]) and is
//! learned again from the log at the start; a sensor's batch also by what the log holds of that sensor. A payload that
//! cannot be read is counted, told with its topic, and acknowledged, because delivering it again would not mend it. When the
//! log does not take a record, the session ends unacknowledged, and the broker delivers again.
//!
//! Messages of other programs ([`foreign`](super::foreign)) have no origin. One that the broker delivers again is known by topic, payload and
//! packet identifier, which stand in the record in the origin's place.
//!
//! Messages about this node's own records are passed over, and copies are never published by the bridge, so two nodes on
//! one broker do not echo each other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rumqttc::QoS;
use serde::Serialize;
use tidelog_record::{BatchError, Relay, Series, SiteName};
use tidelog_store::AppendError;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::{debug, error, warn};

use super::books::{Answer, Books, Source, learn};
use super::client::{self, Client, Connection, Event, Gone, Options, Receipt};
use super::foreign::{Delivery, FormError, Forms, Reading};
use super::payload::{Message, PayloadError};
use super::receipts::{Arrival, Receipts};
use super::recent::Place;
use super::session::{FAREWELL_S_MAX, Link, LinkStatus, SessionEnd};
use super::sparkplug::{self, SparkplugError};
use super::topic::TopicFilter;
use crate::backoff::{Backoff, random};
use crate::clock::EARLIEST_MS;
use crate::context::NodeContext;
use crate::reserved::{Reserved, reserved};
use crate::rule;
use crate::settings::Sparkplug;

/// Most messages taken from the broker and not yet acknowledged to it.
pub(super) const IN_HAND_MAX: u16 = 1000;

/// Most bytes of payload in them, in bytes, unless one message alone is longer.
const IN_HAND_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Acknowledgements that wait inside the client: as many as there are packet identifiers, so that there is always room.
const REQUESTS_MAX: usize = 65_536;

/// Longest reason written to the log, in characters: it may quote the payload.
const REASON_CHARS_MAX: usize = 200;

/// How soon a node whose clock stands before this program was made looks at it again.
const CLOCK_LOOK_EVERY: Duration = Duration::from_secs(1);

const VIA: &str = "mqtt";

/// How ingest is, for the status document.
#[derive(Clone, Debug, Serialize)]
pub struct IngestStatus {
    /// The link to the broker.
    #[serde(flatten)]
    pub link: LinkStatus,
    /// What is subscribed to.
    pub topic: String,
    /// What is subscribed to of other programs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<String>,
    /// Whether Sparkplug B is.
    pub sparkplug: bool,
}

/// Ingest, over all its sessions.
pub(super) struct Ingest {
    pub context: NodeContext,
    pub options: Options,
    pub topic: TopicFilter,
    pub forms: Forms,
    pub sparkplug: Sparkplug,
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
    #[error(transparent)]
    Form(#[from] FormError),
    #[error(transparent)]
    Sparkplug(#[from] SparkplugError),
    #[error("{count} of its values cannot be taken; {reason}")]
    Unfit { reason: String, count: usize },
    #[error("it was published before the node subscribed")]
    Retained,
}

impl Refusal {
    /// The reason as a metric's label.
    fn label(&self) -> &'static str {
        match self {
            Self::Payload(PayloadError::TooLong { .. })
            | Self::Form(FormError::TooLong(_))
            | Self::Sparkplug(SparkplugError::TooLong(_))
            | Self::Batch(
                BatchError::TooLong { .. }
                | BatchError::TooManyPoints { .. }
                | BatchError::NamesTooLong { .. },
            ) => "too_long",
            Self::Payload(PayloadError::Version(_)) => "version",
            Self::Sparkplug(SparkplugError::Unborn(..)) => "birth",
            Self::Payload(_) | Self::Batch(_) | Self::Form(_) | Self::Sparkplug(_) | Self::Unfit { .. } => {
                "malformed"
            }
            Self::Reserved => "command",
            Self::Retained => "retained",
        }
    }
}

/// A record to append, and what it was made of.
struct Copy {
    site: SiteName,
    source: Source,
    body: Vec<u8>,
    points: u64,
}

impl Ingest {
    /// Takes messages in until the node ends.
    pub async fn run(self) {
        let mut books = Books::new(match learn(&self.context.store).await {
            Ok(learned) => learned,
            Err(error) => {
                // A repeat would be stored twice, which no answer shows: better than no readings.
                error!(%error, "what was taken in before could not be read");
                Default::default()
            }
        });
        let mut backoff = Backoff::new();
        while !self.context.shutdown.is_cancelled() {
            if self.forms.need_clock() {
                self.clock_is_set().await;
            }
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

    /// Waits for a clock that may be right: the broker keeps meanwhile what would get its time from it.
    async fn clock_is_set(&self) {
        while self.context.now_ms() < EARLIEST_MS && !self.context.shutdown.is_cancelled() {
            sleep(CLOCK_LOOK_EVERY).await;
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
                    let own = std::iter::once(self.topic.to_string());
                    let sparkplug = self.sparkplug.is_heard().then(|| sparkplug::FILTER.to_owned());
                    for filter in own.chain(self.forms.filters()).chain(sparkplug) {
                        if let Err(gone) = client.subscribe(&filter) {
                            return gone.into();
                        }
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
                    Some(message) => {
                        self.take(message, books, &mut receipts);
                        for edge in books.unborn.drain(..) {
                            let (topic, payload) = sparkplug::rebirth(&edge, self.context.now_ms());
                            if let Err(gone) = client.publish(&topic, QoS::AtMostOnce, false, payload.into()).await {
                                return gone.into();
                            }
                        }
                    }
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
        let arrival = receipts.arrived(message.receipt);
        let arrived_ns = books.arrived();
        let form = self.forms.read(&message.topic, &message.payload, arrived_ns);
        let copy = match form {
            Some(reading) => reading.map_err(Refusal::from).and_then(|it| self.foreign(it, &message, books)),
            None if self.sparkplug.is_heard() && message.topic.starts_with(sparkplug::NAMESPACE) => {
                self.sparkplug(&message, arrived_ns, books)
            }
            None => self.read(&message.payload),
        };
        let copy = match copy {
            Err(refusal) => {
                self.refused(&message.topic, &refusal);
                return receipts.settle(arrival);
            }
            // Nothing in it is a measurement.
            Ok(copy) if copy.as_ref().is_some_and(|copy| copy.points == 0) => {
                return receipts.settle(arrival);
            }
            Ok(copy) => copy.filter(|copy| match copy.source {
                Source::Node(place) => !books.recent.holds(&place),
                Source::Foreign(delivery, _) => !message.again || !books.deliveries.hold(&delivery),
            }),
        };
        let Some(copy) = copy else {
            self.context.metrics.repeats.with_label_values(&[VIA]).inc();
            return receipts.settle(arrival);
        };
        match books.asked.get_mut(&copy.source) {
            Some(waiting) => {
                self.context.metrics.repeats.with_label_values(&[VIA]).inc();
                waiting.push(arrival);
            }
            None => self.append(copy, message.payload.len(), arrival, books),
        }
    }

    /// The copy to append of an edge node's message.
    fn sparkplug(
        &self,
        message: &client::Message,
        arrived_ns: i64,
        books: &mut Books,
    ) -> Result<Option<Copy>, Refusal> {
        let heard = books.edges.read(&message.topic, &message.payload, arrived_ns);
        let missed = heard.as_ref().map_or(0, |heard| heard.as_ref().map_or(0, |heard| heard.missed));
        self.context.metrics.sparkplug_missed.inc_by(missed);
        let is_unborn = matches!(heard, Err(SparkplugError::Unborn(..)));
        if (missed > 0 || is_unborn)
            && let Some(edge) = sparkplug::edge_of(&message.topic)
            && books.rebirths.is_due(&edge, Instant::now())
        {
            warn!(topic = message.topic, missed, is_unborn, "messages of an edge node did not come");
            if self.sparkplug == Sparkplug::Ask {
                books.unborn.push(edge);
            }
        }
        let heard = heard?.unwrap_or_default();
        let reading = Reading { site: self.context.site.clone(), batch: heard.batch, unfit: heard.unfit };
        self.foreign(reading, message, books)
    }

    fn refused(&self, topic: &str, refusal: &Refusal) {
        self.context.metrics.refused.with_label_values(&[VIA, refusal.label()]).inc();
        let reason: String = refusal.to_string().chars().take(REASON_CHARS_MAX).collect();
        match refusal {
            // They come with each connection; and of whom nothing is known, it was told.
            Refusal::Retained | Refusal::Sparkplug(SparkplugError::Unborn(..)) => {
                debug!(topic, reason, "an MQTT message is refused");
            }
            _ => warn!(topic, reason, "an MQTT message is refused"),
        }
    }

    /// The copy to append of another program's message.
    fn foreign(
        &self,
        reading: Reading,
        message: &client::Message,
        books: &mut Books,
    ) -> Result<Option<Copy>, Refusal> {
        if message.retain {
            return Err(Refusal::Retained);
        }
        let Reading { site, mut batch, unfit } = reading;
        if let Some((reason, count)) = unfit {
            let refusal = Refusal::Unfit { reason, count };
            if batch.series.is_empty() {
                return Err(refusal);
            }
            self.refused(&message.topic, &refusal);
        }
        batch.authored_ms = self.context.now_ms();
        let delivery = Delivery::of(&message.topic, &message.payload, message.receipt.packet);
        let body = batch.encode_relayed(&delivery.relay())?;
        books.foreign += 1;
        let source = Source::Foreign(delivery, books.foreign);
        Ok(Some(Copy { site, source, body, points: batch.points() as u64 }))
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
        let points = batch.points() as u64;
        Ok(Some(Copy { site: stream.site, source: Source::Node(place), body, points }))
    }

    fn append(&self, copy: Copy, bytes: usize, arrival: Arrival, books: &mut Books) {
        let Copy { site, source, body, points } = copy;
        books.asked.insert(source, vec![arrival]);
        books.bytes += bytes;
        let answer = books.answer.clone();
        self.context.store.append(&site, body, move |result| {
            let answered = answer.try_send(Answer { source, bytes, points, result: result.map(drop) });
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
        let Answer { source, bytes, points, result } = answer;
        books.bytes -= bytes;
        let waiting = books.asked.remove(&source).unwrap_or_default();
        match result {
            Ok(()) => {
                match source {
                    Source::Node(place) => books.recent.insert(&place),
                    Source::Foreign(delivery, _) => books.deliveries.insert(delivery),
                }
                self.context.metrics.points_in.with_label_values(&[VIA]).inc_by(points);
            }
            // Never again either: the same bytes are refused each time.
            Err(AppendError::TooLong { .. } | AppendError::Malformed(_)) => {
                self.context.metrics.refused.with_label_values(&[VIA, "malformed"]).inc();
                error!(?source, "a message became a record that the log does not take");
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

pub(super) fn status(link: &Link, topic: &TopicFilter, forms: &Forms, sparkplug: Sparkplug) -> IngestStatus {
    let (topic, messages) = (topic.to_string(), forms.filters().collect());
    IngestStatus { link: link.read(), topic, messages, sparkplug: sparkplug.is_heard() }
}
