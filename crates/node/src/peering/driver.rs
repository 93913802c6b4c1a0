//! The task that owns the machine: hands it what happens, carries out what it wants. It decides nothing about replication.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tidelog_record::{Lsn, NodeId, Run, StreamId};
use tidelog_replication::{
    CONTROL_IN_FLIGHT_MESSAGES_MAX, CloseReason, DiskReply, DiskRequest, Event, Head, Message, Peer,
    RANGES_ABOVE_MAX, Range, Records, Replica, SessionId, Ticket,
};
use tidelog_store::{AppendError, Held};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::board::{Board, Lacking, PeerKey};
use super::claims::Claims;
use super::connection::{self, Connected, End, Input, Outgoing};
use super::disk::{self, Adopted, Adoption};
use super::lag::Lag;
use super::tls::Tls;
use super::{cloud_of, refusal};
use crate::backoff::random;
use crate::context::NodeContext;
use crate::held::HeldBy;

/// Room for the messages in flight and the last words of a session.
const WRITER_MESSAGES_MAX: usize = CONTROL_IN_FLIGHT_MESSAGES_MAX + 2;
/// Least time between two looks at what the store committed.
const COMMIT_LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// A look at the store or at all sessions may take up this part of the task's time: one in so many.
const LOOK_SHARE: u32 = 20;
/// How often the board is brought up to date, and the store is looked at where nothing was committed.
const BOARD_INTERVAL: Duration = Duration::from_secs(1);
/// Replies and inputs handled before the machine is asked what it wants, so that it wants less often.
const BURST_MAX: usize = 64;

/// Least time between two runs that this node begins on its peers' word, so that none of them can make it begin one after the other.
const RUN_LEAST: Duration = Duration::from_secs(600);

/// Peers whose lag is followed in time.
const PEERS_NOTED_MAX: usize = 4096;

/// One session's connection.
struct Link {
    node: NodeId,
    key: PeerKey,
    address: String,
    chain: Vec<CertificateDer<'static>>,
    /// Of the cloud: what it tells to hold is in the cloud.
    cloud: bool,
    to_writer: mpsc::Sender<Outgoing>,
    over: CancellationToken,
    ready: bool,
    ended: Option<oneshot::Sender<bool>>,
}

/// Whether this node goes on under another run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Renewal {
    No,
    /// The run that it is in is over.
    Due(Run),
    /// The store was asked.
    Asked(Run),
}

/// Records that travelled in this process, so that it is known what one takes.
#[derive(Default)]
struct Travelled {
    records: u64,
    bytes: u64,
}

impl Travelled {
    fn add(&mut self, records: &Records) {
        self.records += records.bodies.0.len() as u64;
        self.bytes += records.bodies.cost_bytes() as u64;
    }

    /// About what so many records take on their way; `None` while nothing has travelled.
    fn bytes_of(&self, records: u64) -> Option<u64> {
        if records == 0 {
            return Some(0);
        }
        let bytes = u128::from(records) * u128::from(self.bytes);
        u64::try_from(bytes.checked_div(u128::from(self.records))?).ok()
    }
}

/// The notes about a peer; a peer that is new takes the place of one when there are too many.
fn lags_of(lags: &mut BTreeMap<NodeId, [Lag; 2]>, node: NodeId) -> &mut [Lag; 2] {
    if lags.len() >= PEERS_NOTED_MAX && !lags.contains_key(&node) {
        lags.pop_first();
    }
    lags.entry(node).or_default()
}

pub(super) struct Driver {
    context: NodeContext,
    replica: Replica,
    /// Whose certificates are believed now.
    tls: Arc<Tls>,
    board: Board,
    started: Instant,
    inputs: mpsc::Sender<Input>,
    from_outside: mpsc::Receiver<Input>,
    replies: mpsc::UnboundedSender<DiskReply>,
    from_disk: mpsc::UnboundedReceiver<DiskReply>,
    links: BTreeMap<SessionId, Link>,
    claims: Claims,
    /// How each peer's lag grew: what there was to send, what there was to fetch.
    lags: BTreeMap<NodeId, [Lag; 2]>,
    travelled: Travelled,
    next_session: u64,
    /// How far each stream was when the machine was last told, and what was held above that.
    told: BTreeMap<StreamId, (Lsn, Vec<(Lsn, Lsn)>)>,
    /// Peers hold more of this node's own streams than it does, or other bytes.
    renewal: Renewal,
    /// When the last run began for that.
    renewed_at: Option<Instant>,
    runs: mpsc::UnboundedSender<Result<Run, AppendError>>,
    begun_runs: mpsc::UnboundedReceiver<Result<Run, AppendError>>,
    /// Records of each adoption under way.
    adopting: BTreeMap<Ticket, u64>,
}

impl Driver {
    pub fn new(
        context: &NodeContext,
        replica: Replica,
        tls: Arc<Tls>,
        board: Board,
        inputs: mpsc::Sender<Input>,
        from_outside: mpsc::Receiver<Input>,
    ) -> Self {
        let (replies, from_disk) = mpsc::unbounded_channel();
        let (runs, begun_runs) = mpsc::unbounded_channel();
        Self {
            context: context.clone(),
            replica,
            tls,
            board,
            started: Instant::now(),
            inputs,
            from_outside,
            replies,
            from_disk,
            links: BTreeMap::new(),
            claims: Claims::new(context),
            lags: BTreeMap::new(),
            travelled: Travelled::default(),
            next_session: 0,
            told: BTreeMap::new(),
            renewal: Renewal::No,
            renewed_at: None,
            runs,
            begun_runs,
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
                Some(begun) = self.begun_runs.recv() => self.run_begun(begun),
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
                // Rot that was found is no commit.
                self.look_at_store();
                self.write_board();
                self.renew();
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

    /// What peers hold of one of this node's streams is not what it holds, or it has a gap: what it writes from now on must not take names
    /// that are taken, nor wait for what may never come back.
    fn own_run_is_over(&mut self, stream: &StreamId) {
        let store = &self.context.store;
        if stream.node == store.node() && stream.run == store.run() && self.renewal == Renewal::No {
            self.renewal = Renewal::Due(stream.run);
            self.renew();
        }
    }

    /// Asks the store to go on under another run, if that is due; what it refuses is asked again with the next look.
    fn renew(&mut self) {
        let Renewal::Due(over) = self.renewal else { return };
        if self.renewed_at.is_some_and(|at| at.elapsed() < RUN_LEAST) {
            return;
        }
        self.renewal = Renewal::Asked(over);
        let drawn = u64::from(random()) << 32 | u64::from(random());
        let runs = self.runs.clone();
        // Nobody waits for it once the node is ending.
        self.context.store.begin_run(over, drawn, move |begun| drop(runs.send(begun)));
    }

    fn run_begun(&mut self, begun: Result<Run, AppendError>) {
        match (begun, self.renewal) {
            (Ok(run), _) => {
                self.renewal = Renewal::No;
                self.renewed_at = Some(Instant::now());
                let now = self.now();
                self.replica.begin_run(now, run);
                tracing::warn!(%run, "what this node writes goes on under another run");
            }
            (Err(error), Renewal::Asked(over)) => {
                self.renewal = Renewal::Due(over);
                tracing::warn!(%error, "the store did not begin another run yet");
            }
            (Err(_), Renewal::No | Renewal::Due(_)) => {}
        }
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
                if let Message::Records(records) = &message {
                    self.travelled.add(records);
                }
                let cloud = self.links.get(&session).filter(|link| link.cloud).map(|link| link.node);
                let told = cloud.map(|node| (node, self.claims.of(&message)));
                match (self.replica.handle_message(now, session, message), told) {
                    (Ok(()), Some((node, held))) => self.claims.told(node, held),
                    (Ok(()), None) => {}
                    (Err(violation), _) => {
                        self.context.metrics.peer_refused.with_label_values(&[violation.label()]).inc();
                    }
                }
            }
            Input::Heard { session } => self.replica.heard(now, session),
            Input::Written { session, bytes } => {
                self.context.metrics.peer_bytes.with_label_values(&["sent"]).inc_by(bytes as u64);
                self.replica.transmitted(now, session);
            }
            Input::Trust(tls) => self.trust(tls),
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
        let Connected { stream, proven, chain, believed_by, key, address, ended } = connected;
        self.next_session += 1;
        let session = SessionId(self.next_session);
        let (to_writer, messages) = mpsc::channel(WRITER_MESSAGES_MAX);
        let over = CancellationToken::new();
        let (reader, writer) = tokio::io::split(stream);
        let tasks = &self.context.tasks;
        tasks.spawn(connection::read(reader, session, self.inputs.clone(), over.clone()));
        tasks.spawn(connection::write(writer, session, messages, self.inputs.clone(), over.clone()));
        let dialled = matches!(key, PeerKey::Dialled(_));
        let (node, cloud) = (proven.node, proven.cloud);
        let link = Link { node, key, address, chain, cloud, to_writer, over, ready: false, ended };
        self.links.insert(session, link);
        let now = self.now();
        self.replica.connected(now, session, Peer { node, sites: proven.sites, dialled });
        // It was believed by what was in force before.
        if !Arc::ptr_eq(&believed_by, &self.tls) {
            self.doubt(session);
        }
    }

    /// Other certificates are in force: sessions with who is no longer believed end.
    fn trust(&mut self, tls: Arc<Tls>) {
        let before = std::mem::replace(&mut self.tls, tls);
        let sessions: Vec<SessionId> = self.links.keys().copied().collect();
        let own = self.tls.own();
        if own != before.own() {
            // Peers must see what this node is granted now, and it must not go on with what it was granted before.
            for session in &sessions {
                self.replica
                    .close(*session, CloseReason::Certificate("this node has another one now".to_owned()));
            }
            self.context.held.open(cloud_of(&self.tls));
            self.replica.grant(own.sites.clone());
        }
        for session in sessions {
            self.doubt(session);
        }
    }

    /// Ends a session whose peer is not believed now.
    fn doubt(&mut self, session: SessionId) {
        let Some(link) = self.links.get(&session) else { return };
        if let Err(error) = self.tls.believes(&link.chain) {
            self.context.metrics.peer_refused.with_label_values(&[refusal::label_of_tls(&error)]).inc();
            self.replica.close(session, CloseReason::Certificate(refusal::words_of_tls(&error)));
        }
    }

    /// Carries out what the machine wants.
    fn carry_out(&mut self, adoptions: &mpsc::UnboundedSender<Adoption>) {
        while let Some((session, message)) = self.replica.poll_transmit() {
            if let Message::Records(records) = &message {
                let count = records.bodies.0.len() as u64;
                self.travelled.add(records);
                self.context.metrics.peer_records.with_label_values(&["sent"]).inc_by(count);
            }
            let Some(link) = self.links.get(&session) else { continue };
            // The machine keeps to the room there is. A writer that is gone reports the end of its connection itself.
            let version = self.replica.version(session);
            if let Err(error) = link.to_writer.try_send(Outgoing { version, message }) {
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
                    store_later(adoptions, ticket, Adopted::Records(records));
                }
                DiskRequest::Skip { ticket, stream, after, to } => {
                    store_later(adoptions, ticket, Adopted::Skip { stream, after, to });
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
                self.board.connected(&link.key, node, &link.address, link.cloud);
                tracing::info!(%node, address = %link.address, direction, version, "peer connected");
            }
            Event::Closed { session, reason } => self.end(session, reason.label(), &reason.to_string()),
            Event::Fork(fork) => {
                self.context.metrics.peer_refused.with_label_values(&["fork"]).inc();
                tracing::error!(
                    stream = %fork.stream, peer = %fork.node, lsn = %fork.lsn, ours = ?fork.ours, theirs = ?fork.theirs,
                    "a stream has two branches: nothing is overwritten, and each node writes the branch that it has again under another run"
                );
                self.own_run_is_over(&fork.stream);
            }
            Event::OwnStreamAhead { node, stream, claimed, written } => {
                self.context.metrics.peer_refused.with_label_values(&["own_stream_ahead"]).inc();
                tracing::error!(
                    %stream, peer = %node, %claimed, %written,
                    "a peer holds more of this node's own stream than is held here: its disk lost some, or is an older copy; they are fetched"
                );
                self.own_run_is_over(&stream);
            }
            Event::Branched { stream, after, into } => {
                tracing::warn!(%stream, %after, %into, "a branch of a stream is written again, so that every node comes to hold it");
            }
            Event::Skipped { node, stream, after, to } => {
                tracing::warn!(
                    %stream, peer = %node, %after, %to,
                    "all peers dropped a part of a stream before it came here: it goes on behind that"
                );
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
        for Held { stream, upto, chain, above } in self.context.store.held(RANGES_ABOVE_MAX) {
            let told =
                self.told.get(&stream).map_or((Lsn::ZERO, &[][..]), |(lsn, above)| (*lsn, above.as_slice()));
            if told.0 != upto || told.1 != above {
                let ranges: Vec<Range> =
                    above.iter().map(|(first, last)| Range { first: *first, last: *last }).collect();
                let (now, head) = (self.now(), Head { lsn: upto, chain });
                if upto < told.0 {
                    tracing::warn!(%stream, from = %told.0, to = %upto, "less of a stream can be read than before: peers are asked for it");
                    self.replica.receded(now, &stream, head, &ranges);
                } else {
                    self.replica.committed(now, &stream, head, &ranges);
                }
                if !above.is_empty() {
                    // Nobody gets past a gap that no peer can close: what is written from now on must not stand behind it.
                    self.own_run_is_over(&stream);
                }
                self.told.insert(stream, (upto, above));
            }
        }
    }

    /// Counts, for each stream, who else holds all of what is here.
    fn look_at_peers(&self) {
        let mut held: BTreeMap<StreamId, (Lsn, HeldBy)> = BTreeMap::new();
        held.extend(self.replica.vector().map(|(id, head)| (id.clone(), (head.lsn, HeldBy::default()))));
        let mut clouds = 0;
        for (session, link) in self.links.iter().filter(|(_, link)| link.ready) {
            clouds += usize::from(link.cloud);
            for (stream, head) in self.replica.told(*session) {
                let Some((lsn, by)) = held.get_mut(stream) else { continue };
                by.peers += usize::from(head.lsn >= *lsn);
                if link.cloud {
                    by.cloud_lsn = by.cloud_lsn.max(head.lsn);
                }
            }
        }
        self.context.held.looked(clouds, held.into_iter().map(|(id, (_, by))| (id, by)).collect());
    }

    fn write_board(&mut self) {
        self.look_at_peers();
        for (session, link) in self.links.iter().filter(|(_, link)| link.ready) {
            if let Some(progress) = self.replica.progress(*session) {
                let at = (self.started + progress.progress_at).into_std();
                let lags = lags_of(&mut self.lags, link.node);
                let now = self.started.elapsed();
                let sides = [
                    (progress.held_records, progress.ahead_records),
                    (progress.told_records, progress.behind_records),
                ];
                let [ahead, behind] = [0, 1].map(|side: usize| {
                    let (Some(lag), Some((all, lacks))) = (lags.get_mut(side), sides.get(side)) else {
                        return Lacking::default();
                    };
                    lag.note(now, *all);
                    let since = lag.since(now, all.saturating_sub(*lacks));
                    Lacking {
                        seconds: if *lacks == 0 { Some(0) } else { since.map(|since| since.as_secs()) },
                        bytes: self.travelled.bytes_of(*lacks),
                    }
                });
                self.board.progress(&link.key, &progress, ahead, behind, at);
                let lag = &self.context.metrics.peer_lag;
                let node = link.node.to_string();
                let gauge = |records: u64| i64::try_from(records).unwrap_or(i64::MAX);
                lag.with_label_values(&[node.as_str(), "here"]).set(gauge(progress.behind_records));
                lag.with_label_values(&[node.as_str(), "there"]).set(gauge(progress.ahead_records));
            }
        }
    }
}

fn store_later(adoptions: &mpsc::UnboundedSender<Adoption>, ticket: Ticket, what: Adopted) {
    if adoptions.send(Adoption { ticket, what }).is_err() {
        tracing::error!("nobody is there to store what peers have");
    }
}
