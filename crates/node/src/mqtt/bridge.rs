//! The bridge: a cursor over the log that publishes this node's own records to a broker, QoS 1, and moves when the broker
//! has acknowledged (invariant 2: the store hands out durable records only).
//!
//! One connection is one session. It begins at the cursor with a fresh client, and whatever was in flight when it ends is
//! forgotten: the next session publishes again everything behind the cursor. So packet identifiers never have to be
//! carried over a reconnect, and a repeat is recognised by its origin. The cursor is saved every
//! [`CURSOR_SAVE_MS`], so that a kill -9 costs repeats of little more than that time, and a router's flash few writes.
//!
//! Nothing here can slow an append: the store's commits set a flag, the bridge reads the log at its own pace, and what it
//! holds is bounded by the window. Who subscribes, and what else the broker does, is not known here.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rumqttc::QoS;
use serde::Serialize;
use tidelog_record::{Batch, Body, Record, Relay};
use tidelog_store::{Position, ReadError, Store};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{debug, error, warn};

use super::client::{Client, Connection, Event, Options};
use super::discovery::{Announced, Discovery};
use super::payload::{Encoding, Message};
use super::session::{ACKNOWLEDGEMENT_S_MAX, FAREWELL_S_MAX, Link, LinkStatus, SessionEnd, lock};
use super::topic::TopicTemplate;
use super::window::{Disagreement, Window};
use crate::backoff::{Backoff, random};
use crate::context::NodeContext;
use crate::rule::Rules;
use crate::rule::message::RuleMessage;

/// Name of the bridge's cursor in the store and in the status document.
pub const CURSOR: &str = "mqtt";

/// How often the cursor is saved while it moves, in milliseconds.
const CURSOR_SAVE_MS: u64 = 500;

/// Most bytes of records read from the log at a time.
const READ_BYTES_MAX: usize = 256 * 1024;

/// Messages that wait inside the client for its socket.
const REQUESTS_MAX: usize = 8;

/// How the bridge is, for the status document.
#[derive(Clone, Debug, Serialize)]
pub struct BridgeStatus {
    /// The link to the broker.
    #[serde(flatten)]
    pub link: LinkStatus,
    /// Everything up to this position was acknowledged by the broker, or is not for this node to publish.
    pub cursor: Position,
    /// Positions between the cursor and the head of the log.
    pub lag_records: u64,
    /// Messages with the broker and not acknowledged.
    pub in_flight: usize,
}

/// How far it is: shown while it runs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    cursor: Position,
    in_flight: usize,
}

/// The bridge, over all its sessions.
pub(super) struct Bridge {
    pub context: NodeContext,
    pub options: Options,
    pub topic: TopicTemplate,
    pub encoding: Encoding,
    /// How sensors are announced, if they are.
    pub discovery: Option<Discovery>,
    /// What else is published of transitions.
    pub rules: Rules,
    pub link: Arc<Link>,
    pub progress: Arc<Mutex<Progress>>,
}

/// What the parts of a session share: the one that polls the client, the one that reads the log, and the one that watches.
struct Session {
    window: Mutex<Window>,
    announced: Mutex<Announced>,
    connected: Mutex<bool>,
    /// When a message was last acknowledged, or handed over with none before it.
    progress: Mutex<Instant>,
    /// The session stands, or the window moved.
    moved: Notify,
}

pub(super) fn status(link: &Link, progress: &Mutex<Progress>, head: Position) -> BridgeStatus {
    let Progress { cursor, in_flight } = *lock(progress);
    BridgeStatus { link: link.read(), cursor, lag_records: head.0.saturating_sub(cursor.0), in_flight }
}

impl Bridge {
    /// Publishes until the node ends.
    pub async fn run(self) {
        let mut cursor = match self.context.store.cursor(CURSOR) {
            Ok(cursor) => cursor,
            Err(error) => return error!(%error, "the MQTT bridge has no cursor and does not start"),
        };
        lock(&self.progress).cursor = cursor;
        let committed = Arc::new(Notify::new());
        let wake = Arc::clone(&committed);
        self.context.store.on_commit(Box::new(move |_| wake.notify_one()));
        let mut backoff = Backoff::new();
        while !self.context.shutdown.is_cancelled() {
            let before = cursor;
            let end = self.session(&mut cursor, &committed).await;
            self.save(cursor).await;
            self.link.ended(&end);
            if cursor > before {
                backoff.reset();
            }
            tokio::select! {
                () = sleep(backoff.next(random())) => {}
                () = self.context.shutdown.cancelled() => {}
            }
        }
    }

    /// One connection, from the cursor on. `cursor` stands where the acknowledgements left it, however the session ends.
    async fn session(&self, cursor: &mut Position, committed: &Notify) -> SessionEnd {
        let session = Session {
            window: Mutex::new(Window::new(*cursor)),
            announced: Mutex::default(),
            connected: Mutex::new(false),
            progress: Mutex::new(Instant::now()),
            moved: Notify::new(),
        };
        let (client, mut connection) = self.options.client(REQUESTS_MAX);
        // Each part is one future from the session's start to its end: polling the client may not be broken off and taken
        // up again, because a message can be lost between its buffer and its books.
        let end = tokio::select! {
            end = self.poll(&session, &mut connection) => end,
            end = self.publish(&session, &client, committed) => end,
            end = self.watch(&session) => end,
        };
        *cursor = lock(&session.window).cursor();
        *lock(&self.progress) = Progress { cursor: *cursor, in_flight: 0 };
        end
    }

    /// The part that drives the client and keeps the books.
    async fn poll(&self, session: &Session, connection: &mut Connection) -> SessionEnd {
        loop {
            let booked = match connection.next().await {
                Ok(Event::Stands) => {
                    self.link.stands();
                    *lock(&session.connected) = true;
                    session.moved.notify_one();
                    Ok(())
                }
                Ok(Event::Sent(packet)) => lock(&session.window).sent(packet),
                Ok(Event::Acknowledged(packet)) => self.acknowledged(session, packet),
                Ok(Event::TookLeave) => return SessionEnd::Farewell,
                Ok(_) => Ok(()),
                Err(error) => return error.into(),
            };
            if let Err(disagreement) = booked {
                return disagreement.into();
            }
        }
    }

    fn acknowledged(&self, session: &Session, packet: u16) -> Result<(), Disagreement> {
        let settled = lock(&session.window).acknowledged(packet)?;
        *lock(&session.progress) = Instant::now();
        session.moved.notify_one();
        self.context.metrics.mqtt_published.inc();
        self.context.metrics.mqtt_published_points.inc_by(settled.points);
        self.show(session);
        Ok(())
    }

    fn show(&self, session: &Session) {
        let window = lock(&session.window);
        *lock(&self.progress) = Progress { cursor: window.cursor(), in_flight: window.messages() };
    }

    /// The part that follows the log and hands messages to the client.
    async fn publish(&self, session: &Session, client: &Client, committed: &Notify) -> SessionEnd {
        let end = match self.follow(session, client, committed).await {
            Ok(()) => SessionEnd::Farewell,
            Err(end) => end,
        };
        if let SessionEnd::Farewell = end {
            self.farewell(session, client).await;
        }
        end
    }

    async fn follow(&self, session: &Session, client: &Client, committed: &Notify) -> Result<(), SessionEnd> {
        while !*lock(&session.connected) {
            self.unless_ending(session.moved.notified()).await?;
        }
        let mut read_up_to = lock(&session.window).cursor();
        loop {
            let records = read(&self.context.store, read_up_to).await?;
            if records.is_empty() {
                self.unless_ending(committed.notified()).await?;
            }
            for (position, record) in records {
                self.publish_record(session, client, position, &record).await?;
                read_up_to = position;
            }
            self.show(session);
        }
    }

    async fn publish_record(
        &self,
        session: &Session,
        client: &Client,
        position: Position,
        record: &Record,
    ) -> Result<(), SessionEnd> {
        let Some(batch) = self.to_publish(position, record) else {
            lock(&session.window).pass_over(position);
            return Ok(());
        };
        let device = batch.origin.map(|origin| origin.device);
        let topic = self.topic.topic(&record.stream.site, record.stream.node, device);
        lock(&session.window).begin(position);
        let (site, node) = (&record.stream.site, record.stream.node);
        // First, so that its first reading finds a sensor that is known. With each connection anew: a broker may have forgotten.
        let announced = self
            .discovery
            .as_ref()
            .map(|discovery| discovery.messages(&mut lock(&session.announced), site, node, &batch));
        for (topic, payload) in announced.unwrap_or_default() {
            self.hand_over(session, client, (topic, payload, true), 0).await?;
        }
        for message in Message::of_record(&record.stream, record.lsn, &batch) {
            let points = message.points.len() as u64;
            let payload = match message.encode(self.encoding) {
                Ok(payload) => payload,
                Err(error) => {
                    self.unpublishable(position, record, &error);
                    continue;
                }
            };
            self.hand_over(session, client, (topic.clone(), payload, false), points).await?;
        }
        for RuleMessage { topic, payload, retain } in self.rules.messages(site, node, &batch) {
            self.hand_over(session, client, (topic, payload, retain), 0).await?;
        }
        lock(&session.window).complete();
        Ok(())
    }

    /// Hands a message of the record begun last to the client, once there is room.
    async fn hand_over(
        &self,
        session: &Session,
        client: &Client,
        (topic, payload, retain): (String, Vec<u8>, bool),
        points: u64,
    ) -> Result<(), SessionEnd> {
        while !lock(&session.window).has_room(payload.len()) {
            self.unless_ending(session.moved.notified()).await?;
        }
        if lock(&session.window).messages() == 0 {
            *lock(&session.progress) = Instant::now();
        }
        lock(&session.window).hand_over(payload.len(), points);
        Ok(client.publish(&topic, QoS::AtLeastOnce, retain, Bytes::from(payload)).await?)
    }

    /// The batch to publish, or `None` for a record that others publish or nobody can read.
    fn to_publish(&self, position: Position, record: &Record) -> Option<Batch> {
        // By author and not by run: records that were written under this node's earlier run, and not published before it
        // had to take a new one, are still its to publish.
        if record.stream.node != self.context.store.node() {
            return None;
        }
        let read = Relay::of_body(&record.body).and_then(|relay| match relay {
            // Taken in from a broker: published once, by who wrote it.
            Some(_) => Ok(None),
            None => Body::decode(&record.body).map(Some),
        });
        match read {
            Ok(Some(Body::Points(batch))) => Some(batch),
            Ok(Some(Body::Unknown(kind))) => {
                debug!(%position, kind, "a record without points that this version reads is not published");
                None
            }
            Ok(None) => None,
            Err(error) => {
                self.unpublishable(position, record, &error);
                None
            }
        }
    }

    fn unpublishable(&self, position: Position, record: &Record, error: &dyn std::fmt::Display) {
        self.link.failed("unreadable");
        error!(%position, stream = %record.stream, lsn = %record.lsn, %error, "a record cannot be published");
    }

    async fn unless_ending(&self, event: impl Future<Output = ()>) -> Result<(), SessionEnd> {
        tokio::select! {
            () = event => Ok(()),
            () = self.context.shutdown.cancelled() => Err(SessionEnd::Farewell),
        }
    }

    /// Waits a little for what is in flight, and disconnects in order; the polling part sees the end.
    async fn farewell(&self, session: &Session, client: &Client) {
        let last_words = async {
            while lock(&session.window).messages() > 0 {
                session.moved.notified().await;
            }
            if *lock(&session.connected) && client.take_leave().is_ok() {
                std::future::pending::<()>().await;
            }
        };
        // Out of time: what is in flight is published again by the next session.
        drop(timeout(Duration::from_secs(FAREWELL_S_MAX), last_words).await);
    }

    /// The part that saves the cursor while it moves, and ends a session whose broker acknowledges nothing.
    async fn watch(&self, session: &Session) -> SessionEnd {
        let mut tick = interval(Duration::from_millis(CURSOR_SAVE_MS));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut saved = lock(&session.window).cursor();
        loop {
            tick.tick().await;
            let quiet = lock(&session.progress).elapsed();
            if lock(&session.window).messages() > 0 && quiet > Duration::from_secs(ACKNOWLEDGEMENT_S_MAX) {
                return SessionEnd::Silent;
            }
            let cursor = lock(&session.window).cursor();
            if cursor != saved {
                self.save(cursor).await;
                saved = cursor;
            }
        }
    }

    async fn save(&self, cursor: Position) {
        let store = self.context.store.clone();
        match tokio::task::spawn_blocking(move || store.set_cursor(CURSOR, cursor)).await {
            Ok(Ok(())) => {}
            // The cursor in memory goes on; a restart repeats what was published since the last good save.
            Ok(Err(error)) => warn!(%error, %cursor, "the MQTT bridge's cursor was not saved"),
            Err(error) => error!(%error, "saving the MQTT bridge's cursor broke off"),
        }
    }
}

/// Records behind a position, some at a time.
pub(super) async fn read(store: &Store, after: Position) -> Result<Vec<(Position, Record)>, ReadError> {
    let store = store.clone();
    match tokio::task::spawn_blocking(move || store.follow(after, READ_BYTES_MAX)).await {
        Ok(records) => records,
        Err(error) => {
            error!(%error, "reading the log broke off");
            Ok(Vec::new())
        }
    }
}
