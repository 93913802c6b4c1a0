//! The machine: all sessions of one node and the streams they share. This file holds its state and its doors;
//! `greeting` settles who stays,
//! `pulling` brings records in, `serving` sends them out, `above` knows what stands above gaps, `floors` goes on behind what is gone
//! everywhere, `forks` heals what has two branches, `pace` says when.

mod above;
mod floors;
mod forks;
mod greeting;
mod pace;
mod pulling;
mod serving;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use tidelog_record::{Lsn, NodeId, Run, SiteName, StreamId};

use crate::disk::{DiskReply, DiskRequest, Ticket};
use crate::event::{CloseReason, Event, Fork, Violation};
use crate::limits::{
    CLOSE_TEXT_BYTES_MAX, FLOOR_WAIT_MS, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, RECEIVE_BYTES_TOTAL_DEFAULT,
    WINDOW_BYTES_MAX, WINDOW_BYTES_MIN,
};
use crate::message::{Held, Hello, Message};
use crate::peer::{Peer, SessionId, Sites};
use crate::session::Session;
use crate::stream::{Head, Range, Stream};

/// What the machine is told about its own node.
#[derive(Clone, Debug)]
pub struct Options {
    /// This node.
    pub node: NodeId,
    /// The run of its store: streams of this node and run advance by its own appends only (invariant 11).
    pub run: Run,
    /// What this node's own certificate grants.
    pub sites: Sites,
    /// Credit given to all peers together, in bytes.
    pub receive_bytes_total: usize,
    /// Which life of the node this is: draw it at random at each start. Peers know by it whether two of one node are at work.
    pub instance: u64,
    /// How long what peers dropped by policy is waited for before a stream goes on behind it.
    pub floor_wait: Duration,
}

impl Options {
    /// Options with the default bounds. `instance` is drawn at random at each start.
    #[must_use]
    pub fn new(node: NodeId, run: Run, sites: Sites, instance: u64) -> Self {
        let receive_bytes_total = RECEIVE_BYTES_TOTAL_DEFAULT;
        Self {
            node,
            run,
            sites,
            receive_bytes_total,
            instance,
            floor_wait: Duration::from_millis(FLOOR_WAIT_MS),
        }
    }
}

/// Where a session stands, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The peer.
    pub node: NodeId,
    /// The version spoken; `None` before the hello.
    pub version: Option<u16>,
    /// Records that the peer told of and this node lacks.
    pub behind_records: u64,
    /// Records that this node holds and the peer has not told to hold.
    pub ahead_records: u64,
    /// Records that the peer told of.
    pub told_records: u64,
    /// Records that this node holds of the sites that both may see.
    pub held_records: u64,
    /// Streams halted because of a fork between the two.
    pub forked_streams: usize,
    /// Bytes of records received.
    pub received_bytes: u64,
    /// Bytes of records sent.
    pub sent_bytes: u64,
    /// When records or an announcement last came, since the caller's start.
    pub progress_at: Duration,
}

/// The replication of one node. Time is a duration since any fixed start and never goes back.
#[derive(Debug)]
pub struct Replica {
    options: Options,
    now: Duration,
    streams: BTreeMap<StreamId, Stream>,
    sessions: BTreeMap<SessionId, Session>,
    /// Ready sessions by site, rebuilt when asked after sessions changed.
    audience: BTreeMap<SiteName, Arc<[SessionId]>>,
    /// Sessions that may have something to send.
    sendable: BTreeSet<SessionId>,
    last_sender: SessionId,
    /// Last words to sessions that are no longer in `sessions`.
    parting: VecDeque<(SessionId, Message)>,
    events: VecDeque<Event>,

    next_ticket: u64,
    /// Work for the disk that was decided on; reads for peers are decided on when they are polled.
    requests: VecDeque<DiskRequest>,
    adopting: BTreeMap<Ticket, pulling::Adopting>,
    reading: BTreeMap<Ticket, (SessionId, StreamId)>,
    readers: VecDeque<SessionId>,
    /// Reads of searches for a fork.
    searching: BTreeMap<Ticket, SessionId>,
    /// Reads that are compared with what a peer says of a fork.
    checking: BTreeMap<Ticket, forks::Claim>,
    /// Branches that are written again: by stream, and the last LSN that both branches share.
    branches: BTreeMap<forks::BranchId, forks::Branch>,
    /// Reads for them.
    copying: BTreeMap<Ticket, forks::BranchId>,
    /// The lives of each peer.
    instances: BTreeMap<NodeId, greeting::Lives>,
    /// Streams of which a peer dropped what is lacking here: when it is time to go on behind that.
    starving: BTreeMap<StreamId, Duration>,
    /// Nothing is pulled before this time: the disk refused records.
    paused_until: Option<Duration>,
    /// The disk refused records and took none since: one record at a time is asked for, so that peers do not send for nothing.
    disk_doubted: bool,
    /// No later than the next time that something falls due.
    wake_at: Option<Duration>,
}

impl Replica {
    /// A node without sessions that holds `vector`.
    #[must_use]
    pub fn new(options: Options, vector: impl IntoIterator<Item = (StreamId, Head)>) -> Self {
        let streams = vector.into_iter().map(|(id, head)| (id.clone(), Stream::new(&id, head))).collect();
        Self {
            options,
            now: Duration::ZERO,
            streams,
            sessions: BTreeMap::new(),
            audience: BTreeMap::new(),
            sendable: BTreeSet::new(),
            last_sender: SessionId(0),
            parting: VecDeque::new(),
            events: VecDeque::new(),
            next_ticket: 0,
            requests: VecDeque::new(),
            adopting: BTreeMap::new(),
            reading: BTreeMap::new(),
            readers: VecDeque::new(),
            searching: BTreeMap::new(),
            checking: BTreeMap::new(),
            branches: BTreeMap::new(),
            copying: BTreeMap::new(),
            instances: BTreeMap::new(),
            starving: BTreeMap::new(),
            paused_until: None,
            disk_doubted: false,
            wake_at: None,
        }
    }

    /// A connection whose peer is proven. The id must be new.
    ///
    /// One session with a node stands: a newer one takes the older one's place once it has said hello, because the older may be cut
    /// without a sign. Only when both nodes dialled each other at once, the one that the smaller node id dialled stays, so that
    /// both ends choose the same. And two lives of one node that are both at work keep a session each, see [`Event::Cloned`].
    pub fn connected(&mut self, now: Duration, id: SessionId, peer: Peer) {
        self.tick(now);
        let share = self.options.receive_bytes_total / (self.sessions.len() + 1);
        let window = share.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
        let mut session = Session::new(now, peer, window);
        session.control.push_back(Message::Hello(Hello {
            version_min: PROTOCOL_VERSION_MIN,
            version_max: PROTOCOL_VERSION,
            node: self.options.node,
            credit_bytes: u32::try_from(window).unwrap_or(u32::MAX),
            instance: self.options.instance,
        }));
        self.sessions.insert(id, session);
        self.sendable.insert(id);
        self.look_at_deadlines_of(id);
    }

    /// The connection is gone.
    pub fn disconnected(&mut self, now: Duration, id: SessionId) {
        self.tick(now);
        self.remove(id);
    }

    /// Bytes came on the connection, if not yet a whole message.
    pub fn heard(&mut self, now: Duration, id: SessionId) {
        self.tick(now);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.heard_at = now;
        }
    }

    /// A message that was polled for this session is written.
    pub fn transmitted(&mut self, now: Duration, id: SessionId) {
        self.tick(now);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.in_flight = session.in_flight.saturating_sub(1);
            session.written(now);
            self.sendable.insert(id);
        }
    }

    /// A message from the peer.
    ///
    /// # Errors
    /// The rule that it breaks; the session is closed then, and an [`Event::Closed`] says so too.
    pub fn handle_message(
        &mut self,
        now: Duration,
        id: SessionId,
        message: Message,
    ) -> Result<(), Violation> {
        self.tick(now);
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        session.heard_at = now;
        let outcome = match (session.is_ready(), message) {
            (_, Message::Close(mut text)) => {
                truncate(&mut text);
                self.remove(id);
                self.closed(id, CloseReason::ByPeer(text));
                Ok(())
            }
            (false, Message::Hello(hello)) => self.hello(id, &hello),
            (false, _) | (true, Message::Hello(_)) => Err(Violation::Hello),
            (true, Message::Hold(held)) => self.peer_holds(id, held),
            (true, Message::Above(above)) => self.peer_holds_above(id, above),
            (true, Message::Records(records)) => self.take_records(id, records),
            (true, Message::Stopped { stream, reason }) => self.stopped(id, stream, reason),
            (true, Message::Pull(pull)) => self.pulled(id, pull),
            (true, Message::Stop(stream)) => {
                self.stop_serving(id, stream);
                Ok(())
            }
            (true, Message::Credit(bytes)) => self.credited(id, bytes),
            (true, Message::Forked { stream, lsn, chain }) => self.told_of_fork(id, stream, lsn, chain),
            (true, Message::Keepalive) => Ok(()),
        };
        if let Err(violation) = &outcome {
            self.close(id, CloseReason::Violation(violation.clone()));
        }
        outcome
    }

    /// A stream advanced on disk: this node's own appends, or anything else that became durable; where it went back, see
    /// [`Replica::receded`]. `above` is all or the beginning of what
    /// can be read behind a gap after `head`: ascending, the gaps between them too.
    pub fn committed(&mut self, now: Duration, id: &StreamId, head: Head, above: &[Range]) {
        self.tick(now);
        if !self.streams.contains_key(id) {
            self.streams.insert(id.clone(), Stream::new(id, Head::default()));
        }
        let Some(stream) = self.streams.get_mut(id) else { return };
        // The disk held a part above a gap, and the gap was closed: what is under way for that part is not needed.
        let leapt = stream.pull.is_some() && head.lsn > stream.received.lsn;
        let (grew, other_above) = (stream.hold(head), stream.hold_above(above));
        if grew {
            self.spread(id);
        }
        if other_above {
            self.spread_above(id);
        }
        if leapt {
            self.abandon(id);
        } else if grew || other_above {
            // Where a gap was closed, peers that offer what is behind it were not asked yet.
            self.try_pull(id);
        }
        self.copy_on();
    }

    /// Rot was found in a stream: the disk reads less of it than it did. What is lacking is asked for again, and peers that were told of it
    /// hear that it is not there when they ask.
    pub fn receded(&mut self, now: Duration, id: &StreamId, head: Head, above: &[Range]) {
        self.tick(now);
        let Some(stream) = self.streams.get_mut(id) else { return };
        stream.recede(head);
        if stream.hold_above(above) {
            self.spread_above(id);
        }
        self.abandon(id);
        self.renew_ahead(id);
        self.try_pull(id);
        self.copy_on();
    }

    /// This node's own records have another run from now on: what it wrote before is pulled and served like any other stream.
    pub fn begin_run(&mut self, now: Duration, run: Run) {
        self.tick(now);
        self.options.run = run;
    }

    /// The disk's answer to a request of [`Replica::poll_disk`].
    pub fn handle_disk(&mut self, now: Duration, reply: DiskReply) {
        self.tick(now);
        match reply {
            DiskReply::Read { ticket, outcome } => self.was_read(ticket, outcome),
            DiskReply::Adopted { ticket, outcome } => self.was_adopted(ticket, outcome),
        }
    }

    /// The next event, until there is none. Poll messages first: the last words of a session come before its end.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Ends a session with a reason that the peer is told.
    pub fn close(&mut self, id: SessionId, reason: CloseReason) {
        if self.remove(id) {
            self.parting.push_back((id, close_message(&reason)));
            self.closed(id, reason);
        }
    }

    /// What is held durably, per stream.
    pub fn vector(&self) -> impl Iterator<Item = (&StreamId, Head)> {
        self.streams.iter().filter(|(_, stream)| stream.held.lsn.0 > 0).map(|(id, stream)| (id, stream.held))
    }

    /// This node's own certificate grants other sites now. Sessions that began before are to be closed first.
    pub fn grant(&mut self, sites: Sites) {
        self.options.sites = sites;
        self.audience.clear();
    }

    /// What a session's peer told to hold, of the streams that are not halted between the two.
    pub fn told(&self, id: SessionId) -> impl Iterator<Item = (&StreamId, Head)> {
        let session = self.sessions.get(&id);
        let told = session.into_iter().flat_map(|session| {
            session.remote.iter().filter(|(stream, _)| !session.halted.contains(*stream))
        });
        told.map(|(stream, head)| (stream, *head))
    }

    /// The version in which a session's messages are to be written.
    #[must_use]
    pub fn version(&self, id: SessionId) -> u16 {
        // What is said before the hello or after the end is the same in all versions.
        self.sessions.get(&id).and_then(|session| session.version).unwrap_or(PROTOCOL_VERSION_MIN)
    }

    /// Where a session stands.
    #[must_use]
    pub fn progress(&self, id: SessionId) -> Option<Progress> {
        let session = self.sessions.get(&id)?;
        let (mut behind_records, mut told_records) = (0u64, 0u64);
        for (stream, head) in &session.remote {
            let held = self.streams.get(stream).map_or(0, |stream| stream.held.lsn.0);
            told_records = told_records.saturating_add(head.lsn.0);
            behind_records = behind_records.saturating_add(head.lsn.0.saturating_sub(held));
        }
        let (mut ahead_records, mut held_records) = (0u64, 0u64);
        for (stream, head) in self.vector().filter(|(stream, _)| self.is_shared(session, &stream.site)) {
            let remote = session.remote.get(stream).map_or(0, |head| head.lsn.0);
            held_records = held_records.saturating_add(head.lsn.0);
            ahead_records = ahead_records.saturating_add(head.lsn.0.saturating_sub(remote));
        }
        Some(Progress {
            node: session.peer.node,
            version: session.version,
            behind_records,
            ahead_records,
            told_records,
            held_records,
            forked_streams: session.halted.len(),
            received_bytes: session.received_bytes,
            sent_bytes: session.sent_bytes,
            progress_at: session.progress_at,
        })
    }

    fn tick(&mut self, now: Duration) {
        self.now = self.now.max(now);
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    fn closed(&mut self, session: SessionId, reason: CloseReason) {
        self.events.push_back(Event::Closed { session, reason });
    }

    /// A stream's site is granted on both sides (invariant 13).
    fn is_shared(&self, session: &Session, site: &SiteName) -> bool {
        session.peer.sites.contains(site) && self.options.sites.contains(site)
    }

    fn audience(&mut self, site: &SiteName) -> Arc<[SessionId]> {
        if let Some(audience) = self.audience.get(site) {
            return Arc::clone(audience);
        }
        let audience: Arc<[SessionId]> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.is_ready() && self.is_shared(session, site))
            .map(|(id, _)| *id)
            .collect();
        self.audience.insert(site.clone(), Arc::clone(&audience));
        audience
    }

    /// Tells everyone who may know how far a stream is held now.
    fn spread(&mut self, stream: &StreamId) {
        let Some(held) = self.streams.get(stream).map(|stream| stream.held.lsn) else { return };
        for id in self.audience(&stream.site).iter() {
            let Some(session) = self.sessions.get_mut(id) else { continue };
            let news = session.remote.get(stream).is_none_or(|head| head.lsn < held);
            if news {
                session.acknowledge.remove(stream);
                session.fresh.insert(stream.clone());
            } else if !session.fresh.contains(stream) {
                session.acknowledge.insert(stream.clone());
            }
            self.schedule_announcement(*id);
            self.search_on(*id);
        }
    }

    fn held_of(&self, stream: &StreamId) -> Option<Held> {
        let found = self.streams.get(stream).filter(|found| found.held.lsn > Lsn::ZERO)?;
        Some(Held { stream: stream.clone(), head: found.held })
    }

    /// Halts a stream between this node and one peer, and reports it once a session (invariant 1).
    /// When both are known to differ at its LSN, the place is looked for.
    fn halt(&mut self, id: SessionId, fork: Fork, is_certain: bool) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.halted.insert(fork.stream.clone()) {
            if let Some(stream) = self.streams.get_mut(&fork.stream) {
                stream.ahead.remove(&id);
            }
            if is_certain && fork.lsn > Lsn::ZERO {
                session.forked.push_back((fork.stream.clone(), fork.lsn));
            }
            self.events.push_back(Event::Fork(fork));
            self.search_on(id);
        }
    }

    /// Takes a session out; whether it was there.
    fn remove(&mut self, id: SessionId) -> bool {
        let Some(session) = self.sessions.remove(&id) else { return false };
        self.audience.clear();
        self.sendable.remove(&id);
        let mut again: Vec<StreamId> = session.pulls.into_iter().collect();
        for stream in &again {
            if let Some(stream) = self.streams.get_mut(stream) {
                stream.pull = None;
            }
        }
        again.extend(session.waiting);
        for stream in session.remote.keys().chain(session.above.keys()) {
            let forget = self.streams.get_mut(stream).is_some_and(|stream| {
                stream.ahead.remove(&id);
                stream.is_forgettable()
            });
            if forget {
                self.streams.remove(stream);
                self.starving.remove(stream);
            }
        }
        for stream in again {
            self.try_pull(&stream);
        }
        self.try_others();
        self.copy_on();
        true
    }
}

fn close_message(reason: &CloseReason) -> Message {
    let mut text = alloc::format!("{reason}");
    truncate(&mut text);
    Message::Close(text)
}

fn truncate(text: &mut String) {
    let mut end = CLOSE_TEXT_BYTES_MAX.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}
