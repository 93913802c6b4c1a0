//! The task that owns the machine: hands it what happens, carries out what it wants. It decides nothing about replication.

use std::collections::BTreeMap;
use std::time::Duration;

use tidelog_record::{Lsn, NodeId, StreamId};
use tidelog_replication::{
    CONTROL_IN_FLIGHT_MESSAGES_MAX, CloseReason, DiskReply, DiskRequest, Event, Head, Message, Peer, Replica,
    SessionId,
};
use tidelog_store::Store;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::board::{Board, PeerKey};
use super::connection::{self, Connected, End, Input};
use super::disk::{self, Adoption};
use crate::context::NodeContext;

/// Room for the messages in flight and the last words of a session.
const WRITER_MESSAGES_MAX: usize = CONTROL_IN_FLIGHT_MESSAGES_MAX + 2;
/// Least time between two looks at what the store committed.
const COMMIT_LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// A look at the store or at all sessions may take up this part of the task's time: one in so many.
const LOOK_SHARE: u32 = 20;
/// How often the board is brought up to date.
const BOARD_INTERVAL: Duration = Duration::from_secs(1);
/// Replies and inputs handled before the machine is asked what it wants, so that it wants less often.
const BURST_MAX: usize = 64;

/// One session's connection.
struct Link {
    node: NodeId,
    key: PeerKey,
    address: String,
    to_writer: mpsc::Sender<Message>,
    over: CancellationToken,
    ready: bool,
    ended: Option<oneshot::Sender<bool>>,
}

pub(super) struct Driver {
    context: NodeContext,
    replica: Replica,
    board: Board,
    started: Instant,
    inputs: mpsc::Sender<Input>,
    from_outside: mpsc::Receiver<Input>,
    replies: mpsc::UnboundedSender<DiskReply>,
    from_disk: mpsc::UnboundedReceiver<DiskReply>,
    links: BTreeMap<SessionId, Link>,
    next_session: u64,
    /// How far each stream was when the machine was last told.
    told: BTreeMap<StreamId, Lsn>,
    /// Records of each adoption under way.
    adopting: BTreeMap<tidelog_replication::Ticket, u64>,
}

impl Driver {
    pub fn new(
        context: &NodeContext,
        replica: Replica,
        board: Board,
        inputs: mpsc::Sender<Input>,
        from_outside: mpsc::Receiver<Input>,
    ) -> Self {
        let (replies, from_disk) = mpsc::unbounded_channel();
        Self {
            context: context.clone(),
            replica,
            board,
            started: Instant::now(),
            inputs,
            from_outside,
            replies,
            from_disk,
            links: BTreeMap::new(),
            next_session: 0,
            told: BTreeMap::new(),
            adopting: BTreeMap::new(),
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Goes on until the node ends; then every session is told and ended.
    pub async fn run(mut self) {
        let (committed, mut commits) = watch::channel(());
        self.context.store.on_commit(Box::new(move |_| {
            committed.send_replace(());
        }));
        let (adoptions, to_adopt) = mpsc::unbounded_channel();
        let (store, replies) = (self.context.store.clone(), self.replies.clone());
        self.context.tasks.spawn_blocking(move || disk::adopt_all(&store, to_adopt, &replies));
        let mut look_at = Some(Instant::now());
        let mut look_not_before = Instant::now();
        let mut board_at = Instant::now();
        let shutdown = self.context.shutdown.clone();
        loop {
            self.carry_out(&adoptions);
            let timeout = self.replica.poll_timeout().map(|due| self.started + due);
            let wake = [timeout, look_at, Some(board_at)].into_iter().flatten().min().unwrap_or(board_at);
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(reply) = self.from_disk.recv() => self.take_replies(reply),
                Some(input) = self.from_outside.recv() => self.take_inputs(input),
                Ok(()) = commits.changed(), if look_at.is_none() => look_at = Some(look_not_before),
                () = sleep_until(wake) => {}
            }
            let now = Instant::now();
            if look_at.is_some_and(|at| at <= now) {
                look_at = None;
                self.look_at_store();
                look_not_before = Instant::now() + COMMIT_LOOK_INTERVAL.max(now.elapsed() * LOOK_SHARE);
            }
            if board_at <= now {
                self.write_board();
                board_at = Instant::now() + BOARD_INTERVAL.max(now.elapsed() * LOOK_SHARE);
            }
            if self.replica.poll_timeout().is_some_and(|due| due <= self.now()) {
                let now = self.now();
                self.replica.handle_timeout(now);
            }
        }
        for session in self.links.keys().copied().collect::<Vec<_>>() {
            self.replica.close(session, CloseReason::ShuttingDown);
        }
        self.carry_out(&adoptions);
    }

    fn take_replies(&mut self, first: DiskReply) {
        self.take_reply(first);
        for _ in 1..BURST_MAX {
            match self.from_disk.try_recv() {
                Ok(reply) => self.take_reply(reply),
                Err(_) => return,
            }
        }
    }

    fn take_reply(&mut self, reply: DiskReply) {
        if let DiskReply::Adopted { ticket, outcome } = &reply {
            let records = self.adopting.remove(ticket).unwrap_or(0);
            if outcome.is_ok() {
                self.context.metrics.peer_records.with_label_values(&["received"]).inc_by(records);
            }
        }
        let now = self.now();
        self.replica.handle_disk(now, reply);
    }

    fn take_inputs(&mut self, first: Input) {
        self.take(first);
        for _ in 1..BURST_MAX {
            match self.from_outside.try_recv() {
                Ok(input) => self.take(input),
                Err(_) => return,
            }
        }
    }

    fn take(&mut self, input: Input) {
        let now = self.now();
        match input {
            Input::Connected(connected) => self.connect(*connected),
            Input::Message { session, message, bytes } => {
                self.context.metrics.peer_bytes.with_label_values(&["received"]).inc_by(bytes as u64);
                if let Err(violation) = self.replica.handle_message(now, session, message) {
                    self.context.metrics.peer_refused.with_label_values(&[violation.label()]).inc();
                }
            }
            Input::Heard { session } => self.replica.heard(now, session),
            Input::Written { session, bytes } => {
                self.context.metrics.peer_bytes.with_label_values(&["sent"]).inc_by(bytes as u64);
                self.replica.transmitted(now, session);
            }
            Input::Ended { session, end } => {
                if let End::Frame(error) = &end {
                    let label = format!("frame_{}", error.label());
                    self.context.metrics.peer_refused.with_label_values(&[label.as_str()]).inc();
                }
                self.replica.disconnected(now, session);
                self.end(session, end.label(), &end.to_string());
            }
        }
    }

    fn connect(&mut self, connected: Connected) {
        let Connected { stream, proven, key, address, ended } = connected;
        self.next_session += 1;
        let session = SessionId(self.next_session);
        let (to_writer, messages) = mpsc::channel(WRITER_MESSAGES_MAX);
        let over = CancellationToken::new();
        let (reader, writer) = tokio::io::split(stream);
        let tasks = &self.context.tasks;
        tasks.spawn(connection::read(reader, session, self.inputs.clone(), over.clone()));
        tasks.spawn(connection::write(writer, session, messages, self.inputs.clone(), over.clone()));
        let dialled = matches!(key, PeerKey::Dialled(_));
        let node = proven.node;
        self.links.insert(session, Link { node, key, address, to_writer, over, ready: false, ended });
        let now = self.now();
        self.replica.connected(now, session, Peer { node, sites: proven.sites, dialled });
    }

    /// Carries out what the machine wants.
    fn carry_out(&mut self, adoptions: &mpsc::UnboundedSender<Adoption>) {
        while let Some((session, message)) = self.replica.poll_transmit() {
            if let Message::Records(records) = &message {
                let count = records.bodies.0.len() as u64;
                self.context.metrics.peer_records.with_label_values(&["sent"]).inc_by(count);
            }
            let Some(link) = self.links.get(&session) else { continue };
            // The machine keeps to the room there is. A writer that is gone reports the end of its connection itself.
            if let Err(error) = link.to_writer.try_send(message) {
                tracing::debug!(session = session.0, %error, "a message was not handed to the connection");
            }
        }
        while let Some(request) = self.replica.poll_disk() {
            match request {
                DiskRequest::Read { ticket, stream, after, bytes_max } => {
                    let (store, replies) = (self.context.store.clone(), self.replies.clone());
                    self.context.tasks.spawn_blocking(move || {
                        // Nobody waits for it once the node is ending.
                        drop(replies.send(disk::read(&store, ticket, &stream, after, bytes_max)));
                    });
                }
                DiskRequest::Adopt { ticket, records } => {
                    self.adopting.insert(ticket, records.len() as u64);
                    if adoptions.send(Adoption { ticket, records }).is_err() {
                        tracing::error!("nobody is there to store peers' records");
                    }
                }
            }
        }
        while let Some(event) = self.replica.poll_event() {
            self.report(event);
        }
    }

    fn report(&mut self, event: Event) {
        match event {
            Event::Ready { session, node, version } => {
                let Some(link) = self.links.get_mut(&session) else { return };
                link.ready = true;
                let direction = if matches!(link.key, PeerKey::Dialled(_)) { "dialled" } else { "accepted" };
                let metrics = &self.context.metrics;
                metrics.peer_sessions.with_label_values(&[direction]).inc();
                metrics.peer_connected.with_label_values(&[node.to_string().as_str()]).set(1);
                self.board.connected(&link.key, node, &link.address);
                tracing::info!(%node, address = %link.address, direction, version, "peer connected");
            }
            Event::Closed { session, reason } => self.end(session, reason.label(), &reason.to_string()),
            Event::Fork(fork) => {
                self.context.metrics.peer_refused.with_label_values(&["fork"]).inc();
                tracing::error!(
                    stream = %fork.stream, peer = %fork.node, lsn = %fork.lsn, ours = ?fork.ours, theirs = ?fork.theirs,
                    "a stream has two branches: nothing is overwritten, and each node writes the branch that it has again under another run"
                );
            }
            Event::OwnStreamAhead { node, stream, claimed, written } => {
                self.context.metrics.peer_refused.with_label_values(&["own_stream_ahead"]).inc();
                tracing::error!(
                    %stream, peer = %node, %claimed, %written,
                    "a peer holds more of this node's own stream than is held here: its disk lost some, or is an older copy; they are fetched"
                );
            }
            Event::Branched { stream, after, into } => {
                tracing::warn!(%stream, %after, %into, "a branch of a stream is written again, so that every node comes to hold it");
            }
            Event::Cloned { node } => {
                self.context.metrics.peer_refused.with_label_values(&["cloned"]).inc();
                tracing::error!(%node, "two nodes with this identity are at work: a disk was copied, and one of them must be ended");
            }
        }
    }

    fn end(&mut self, session: SessionId, label: &str, reason: &str) {
        let Some(link) = self.links.remove(&session) else { return };
        link.over.cancel();
        self.context.metrics.peer_ended.with_label_values(&[label]).inc();
        let still = self.links.values().any(|other| other.node == link.node && other.ready);
        if !still {
            let node = link.node.to_string();
            if link.ready {
                self.context.metrics.peer_connected.with_label_values(&[node.as_str()]).set(0);
            }
        }
        self.board.ended(&link.key, link.node, reason);
        if link.ready {
            tracing::info!(node = %link.node, address = %link.address, reason, "peer gone");
        } else {
            tracing::warn!(node = %link.node, address = %link.address, reason, "peer did not come to a session");
        }
        if link.ended.is_some_and(|ended| ended.send(link.ready).is_err()) {
            tracing::trace!("nobody waited for the end of a session");
        }
    }

    /// Tells the machine what became durable since the last look.
    fn look_at_store(&mut self) {
        for (stream, lsn, chain) in committed(&self.context.store) {
            if self.told.get(&stream).is_none_or(|told| *told < lsn) {
                let now = self.now();
                self.replica.committed(now, &stream, Head { lsn, chain });
                self.told.insert(stream, lsn);
            }
        }
    }

    fn write_board(&mut self) {
        for (session, link) in self.links.iter().filter(|(_, link)| link.ready) {
            if let Some(progress) = self.replica.progress(*session) {
                let at = (self.started + progress.progress_at).into_std();
                self.board.progress(&link.key, &progress, at);
                let lag = &self.context.metrics.peer_lag;
                let node = link.node.to_string();
                let gauge = |records: u64| i64::try_from(records).unwrap_or(i64::MAX);
                lag.with_label_values(&[node.as_str(), "here"]).set(gauge(progress.behind_records));
                lag.with_label_values(&[node.as_str(), "there"]).set(gauge(progress.ahead_records));
            }
        }
    }
}

fn committed(store: &Store) -> Vec<(StreamId, Lsn, tidelog_record::ChainHash)> {
    store.vector().into_iter().filter(|(_, lsn, _)| *lsn > Lsn::ZERO).collect()
}
