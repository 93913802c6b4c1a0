//! Records come in: what peers tell, whom a stream is pulled from, and how records are verified before the disk sees
//! them (invariants 3, 11, 13). It never looks into a body.

use alloc::vec::Vec;
use core::time::Duration;

use tidelog_record::{Lsn, Record, StreamId};

use super::Replica;
use crate::disk::{AdoptFailure, DiskRequest, Ticket};
use crate::event::{Event, Fork, Violation};
use crate::limits::{
    PULL_RECORDS_PER_TURN_MAX, PULL_STREAMS_PER_SESSION_MAX, RETRY_AFTER_DISK_FAILURE_MS,
    STREAMS_PER_PEER_MAX,
};
use crate::message::{Held, Message, Pull, Records, StopReason};
use crate::peer::SessionId;
use crate::stream::{Head, Pulling, Stream};

/// Records on their way to the disk.
#[derive(Debug)]
pub(super) struct Adopting {
    /// Who sent them; nobody, when a branch is written again.
    pub session: Option<SessionId>,
    pub stream: StreamId,
    pub head: Head,
    pub cost_bytes: usize,
}

impl Replica {
    /// A stream that only this node's own appends advance (invariant 11).
    pub(super) fn is_own(&self, stream: &StreamId) -> bool {
        stream.node == self.options.node && stream.run == self.options.run
    }

    pub(super) fn peer_holds(&mut self, id: SessionId, held: Vec<Held>) -> Result<(), Violation> {
        for Held { stream, head } in held {
            let Some(session) = self.sessions.get(&id) else { return Ok(()) };
            if !self.is_shared(session, &stream.site) {
                return Err(Violation::NotGranted(stream.site));
            }
            if head.lsn == Lsn::ZERO || head.lsn.next().is_none() {
                return Err(Violation::Lsn(head.lsn));
            }
            let told = session.remote.get(&stream).copied();
            if told.is_none() && session.remote.len() >= STREAMS_PER_PEER_MAX {
                return Err(Violation::TooManyStreams);
            }
            if told.is_some_and(|told| told.lsn >= head.lsn) {
                continue;
            }
            if let Some(session) = self.sessions.get_mut(&id) {
                session.remote.insert(stream.clone(), head);
                session.progress_at = self.now;
            }
            self.prune_above(id, &stream, head.lsn);
            let written = self.streams.get(&stream).map_or(Lsn::ZERO, |stream| stream.held.lsn);
            self.check_own(id, &stream, head.lsn, told.map(|told| told.lsn), written);
            self.weigh(id, stream, head);
            self.search_on(id);
        }
        Ok(())
    }

    /// Says once that a peer holds more of this node's own stream than was written here.
    pub(super) fn check_own(
        &mut self,
        id: SessionId,
        stream: &StreamId,
        claimed: Lsn,
        told: Option<Lsn>,
        written: Lsn,
    ) {
        let Some(session) = self.sessions.get(&id) else { return };
        let first_time = told.is_none_or(|told| told <= written);
        if self.is_own(stream) && claimed > written && first_time {
            let (node, stream) = (session.peer.node, stream.clone());
            self.events.push_back(Event::OwnStreamAhead { node, stream, claimed, written });
        }
    }

    /// A peer came forward to `head`: compare, go on with the pull under way, or begin one.
    fn weigh(&mut self, id: SessionId, stream: StreamId, head: Head) {
        let known =
            self.streams.entry(stream.clone()).or_insert_with(|| Stream::new(&stream, Head::default()));
        let at = if head.lsn == known.held.lsn { known.held } else { known.received };
        if head.lsn == at.lsn && head.chain != at.chain {
            let Some(session) = self.sessions.get_mut(&id) else { return };
            if !session.halted.contains(&stream) {
                // By the time that it hears of this record it may hold more, and would never compare.
                let (stream, lsn) = (stream.clone(), head.lsn);
                session.control.push_back(Message::Forked { stream, lsn, chain: at.chain });
                self.sendable.insert(id);
            }
            let fork = Fork {
                node: session.peer.node,
                lsn: head.lsn,
                ours: Some(at.chain),
                theirs: Some(head.chain),
                stream,
            };
            self.halt(id, fork, true);
            return;
        }
        if head.lsn <= known.received.lsn {
            return;
        }
        known.ahead.insert(id);
        self.pull_on(id, stream);
    }

    /// A peer offers more of a stream, or will: the pull under way is lengthened, if it is from that peer, or one begins.
    pub(super) fn pull_on(&mut self, id: SessionId, stream: StreamId) {
        let Some(known) = self.streams.get_mut(&stream) else { return };
        let Some(pull) = known.pull else { return self.try_pull(&stream) };
        let Some(session) = self.sessions.get_mut(&id).filter(|_| pull.session == id && !self.disk_doubted)
        else {
            return;
        };
        let offered = session.offers(&stream, pull.until).zip(known.lacking_until());
        let Some(until) = offered.map(|(offered, lacking)| offered.min(lacking)) else { return };
        // Where others wait for a turn, this one ends first.
        if until > pull.until && session.waiting.is_empty() {
            known.pull = Some(Pulling { until, ..pull });
            let more = Pull { stream, after: pull.until, chain: None, until };
            session.control.push_back(Message::Pull(more));
            self.sendable.insert(id);
        }
    }

    /// Pulls what is lacking of a stream next from the peer that suits best, if any offers it: its author before others, then the one
    /// that is asked least.
    pub(super) fn try_pull(&mut self, stream: &StreamId) {
        if self.paused_until.is_some() || self.disk_doubted && self.is_asking() {
            return;
        }
        let Some(known) = self.streams.get_mut(stream) else { return };
        if known.pull.is_some() || known.failed {
            return;
        }
        let Some(lacking) = known.lacking_until() else { return };
        let received = known.received;
        let sessions = &self.sessions;
        known
            .ahead
            .retain(|id| sessions.get(id).is_some_and(|session| session.is_beyond(stream, received.lsn)));
        let best = known
            .ahead
            .iter()
            .filter_map(|id| sessions.get(id).map(|session| (*id, session)))
            .filter(|(_, session)| {
                session.offers(stream, received.lsn).is_some()
                    && !session.halted.contains(stream)
                    && !session.abandoned.contains_key(stream)
                    && session.floor_above(stream, received.lsn).is_none()
            })
            .min_by_key(|(id, session)| {
                let full = session.pulls.len() >= PULL_STREAMS_PER_SESSION_MAX;
                (full, session.peer.node != stream.node, session.pulls.len(), *id)
            })
            .map(|(id, _)| id);
        let Some(id) = best else { return };
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.pulls.len() >= PULL_STREAMS_PER_SESSION_MAX {
            session.wait(stream);
            return;
        }
        let Some(mut until) = session.offers(stream, received.lsn) else { return };
        // What is held above a gap is not asked for again.
        until = until.min(lacking);
        if self.disk_doubted {
            until = until.min(received.lsn.next().unwrap_or(until));
        } else if session.pulls.len() >= PULL_STREAMS_PER_SESSION_MAX / 2 {
            until = until.min(Lsn(received.lsn.0.saturating_add(PULL_RECORDS_PER_TURN_MAX)));
        }
        if session.pulls.is_empty() {
            // Nothing was due from this peer until now.
            session.progress_at = self.now;
        }
        session.pulls.insert(stream.clone());
        known.pull = Some(Pulling { session: id, after: received.lsn, until });
        session.control.push_back(Message::Pull(Pull {
            stream: stream.clone(),
            after: received.lsn,
            chain: Some(received.chain),
            until,
        }));
        self.sendable.insert(id);
        self.look_at_deadlines_of(id);
    }

    /// A pull is over: the stream may go on with another peer, and another stream has its turn.
    fn end_pull(&mut self, id: SessionId, stream: &StreamId) {
        if let Some(known) = self.streams.get_mut(stream) {
            known.pull = None;
        }
        if let Some(session) = self.sessions.get_mut(&id) {
            session.pulls.remove(stream);
        }
        while let Some(next) = self.sessions.get_mut(&id).and_then(|session| {
            let room = session.pulls.len() < PULL_STREAMS_PER_SESSION_MAX;
            room.then(|| session.next_waiting()).flatten()
        }) {
            self.try_pull(&next);
        }
        self.try_pull(stream);
        self.try_others();
        self.copy_on();
    }

    /// Takes a pull back; what still comes for it is dropped until the peer confirms.
    pub(super) fn abandon(&mut self, stream: &StreamId) {
        let Some(pull) = self.streams.get(stream).and_then(|known| known.pull) else { return };
        if let Some(session) = self.sessions.get_mut(&pull.session) {
            session.abandoned.insert(stream.clone(), pull.after);
            session.control.push_back(Message::Stop(stream.clone()));
            self.sendable.insert(pull.session);
        }
        self.end_pull(pull.session, stream);
    }

    pub(super) fn take_records(&mut self, id: SessionId, message: Records) -> Result<(), Violation> {
        let Records { stream, first, chain, bodies } = message;
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        let cost_bytes = bodies.cost_bytes();
        if session.granted <= 0 {
            return Err(Violation::Credit);
        }
        session.granted -= i64::try_from(cost_bytes).unwrap_or(i64::MAX);
        session.received_bytes = session.received_bytes.saturating_add(cost_bytes as u64);
        session.progress_at = self.now;
        if session.abandoned.contains_key(&stream) {
            session.give_back(cost_bytes);
            self.sendable.insert(id);
            return Ok(());
        }
        if session.search.as_ref().is_some_and(|search| search.is_asked(&stream)) {
            session.give_back(cost_bytes);
            self.sendable.insert(id);
            self.is_same(id);
            return Ok(());
        }
        let node = session.peer.node;
        let known = self.streams.get_mut(&stream).ok_or(Violation::Unasked)?;
        let pull = known.pull.filter(|pull| pull.session == id).ok_or(Violation::Unasked)?;
        if known.received.lsn.next() != Some(first) || bodies.0.is_empty() {
            return Err(Violation::Unasked);
        }
        let before = known.received;
        let mut head = before;
        let mut records = Vec::with_capacity(bodies.0.len());
        for body in bodies.0 {
            let lsn = head.lsn.next().filter(|lsn| *lsn <= pull.until).ok_or(Violation::Unasked)?;
            head = Head { lsn, chain: head.chain.after(&known.key, lsn, &body.0) };
            records.push(Record { stream: stream.clone(), lsn, chain: head.chain, body: body.0 });
        }
        if head.chain != chain {
            // The peer's bytes do not continue what is held here: neither branch is touched.
            session.give_back(cost_bytes);
            self.sendable.insert(id);
            let fork = Fork { stream: stream.clone(), node, lsn: head.lsn, ours: None, theirs: None };
            self.halt(id, fork, false);
            self.abandon(&stream);
            return Ok(());
        }
        known.received = head;
        known.adopting += 1;
        self.is_fed(&stream);
        let ticket = self.ticket();
        self.adopting
            .insert(ticket, Adopting { session: Some(id), stream: stream.clone(), head, cost_bytes });
        self.requests.push_back(DiskRequest::Adopt { ticket, records });
        if head.lsn == pull.until {
            self.end_pull(id, &stream);
        }
        Ok(())
    }

    pub(super) fn was_adopted(&mut self, ticket: Ticket, outcome: Result<(), AdoptFailure>) {
        let Some(adopted) = self.adopting.remove(&ticket) else { return };
        let Adopting { session: id, stream, head, cost_bytes } = adopted;
        if let Some((id, session)) = id.and_then(|id| Some((id, self.sessions.get_mut(&id)?))) {
            session.give_back(cost_bytes);
            self.sendable.insert(id);
        }
        let Some(known) = self.streams.get_mut(&stream) else { return };
        known.adopting = known.adopting.saturating_sub(1);
        match outcome {
            Ok(()) => {
                // Behind what went back meanwhile it stands above a gap, and the disk will say so.
                if !known.failed && known.hold(head) {
                    self.spread(&stream);
                }
                if core::mem::take(&mut self.disk_doubted) {
                    self.resume();
                }
            }
            Err(failure) => {
                let first = !core::mem::replace(&mut known.failed, true);
                let ours = (known.held.lsn == head.lsn).then_some(known.held.chain);
                if let (AdoptFailure::Fork, Some(id), true) = (failure, id, first)
                    && let Some(session) = self.sessions.get(&id)
                {
                    // The disk may be ahead of what it told: then both branches are found when the stream is pulled again. If not, it
                    // holds other bytes above a gap, and asking again would never help.
                    let again = known.refused_at.replace(known.held.lsn) != Some(known.held.lsn);
                    let (node, theirs) = (session.peer.node, Some(head.chain).filter(|_| ours.is_some()));
                    let fork = Fork { stream: stream.clone(), node, lsn: head.lsn, ours, theirs };
                    if again {
                        self.events.push_back(Event::Fork(fork));
                    } else {
                        self.halt(id, fork, false);
                    }
                }
                let until = self.now + Duration::from_millis(RETRY_AFTER_DISK_FAILURE_MS);
                self.paused_until = Some(until);
                self.wake_by(until);
                self.abandon(&stream);
                if failure == AdoptFailure::Refused {
                    self.disk_doubted = true;
                    self.abandon_all();
                }
            }
        }
        let recovered = self.streams.get_mut(&stream).is_some_and(|known| {
            let recovered = known.failed && known.adopting == 0;
            if recovered {
                known.failed = false;
                known.received = known.held;
            }
            recovered
        });
        if recovered {
            self.renew_ahead(&stream);
            self.try_pull(&stream);
        }
        self.copy_on();
    }

    /// What was received changed without records: find out again who is ahead.
    pub(super) fn renew_ahead(&mut self, stream: &StreamId) {
        let Some(known) = self.streams.get_mut(stream) else { return };
        for (id, session) in &self.sessions {
            if session.is_beyond(stream, known.received.lsn) {
                known.ahead.insert(*id);
            }
        }
    }

    /// Nothing can be stored: nobody is to send more.
    fn abandon_all(&mut self) {
        let pulled: Vec<StreamId> =
            self.sessions.values().flat_map(|session| session.pulls.iter().cloned()).collect();
        for stream in pulled {
            self.abandon(&stream);
        }
    }

    /// Records were asked for, or wait for the disk.
    fn is_asking(&self) -> bool {
        !self.adopting.is_empty() || self.sessions.values().any(|session| !session.pulls.is_empty())
    }

    /// While the disk is doubted one stream alone is asked for, and when that ends without an answer, another one.
    pub(super) fn try_others(&mut self) {
        if self.disk_doubted && self.paused_until.is_none() && !self.is_asking() {
            self.resume();
        }
    }

    /// The pause after a refusal of the disk is over.
    pub(super) fn resume(&mut self) {
        self.paused_until = None;
        let waiting: Vec<StreamId> = self
            .streams
            .iter()
            .filter(|(_, known)| known.pull.is_none() && !known.ahead.is_empty())
            .map(|(id, _)| id.clone())
            .collect();
        for stream in waiting {
            self.try_pull(&stream);
        }
        self.copy_on();
    }

    pub(super) fn stopped(
        &mut self,
        id: SessionId,
        stream: StreamId,
        reason: StopReason,
    ) -> Result<(), Violation> {
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        session.progress_at = self.now;
        if let Some(lsn) = session.abandoned.get(&stream).copied() {
            // Only the confirmation of our own word ends it; another reason crossed it on the way.
            let node = session.peer.node;
            match reason {
                StopReason::Cancelled => {
                    session.abandoned.remove(&stream);
                    self.try_pull(&stream);
                    self.search_on(id);
                }
                StopReason::Forked => {
                    self.halt(id, Fork { stream, node, lsn, ours: None, theirs: None }, true);
                }
                StopReason::Unreadable | StopReason::Dropped(_) => {}
            }
            return Ok(());
        }
        if session.search.as_ref().is_some_and(|search| search.is_asked(&stream)) {
            match reason {
                StopReason::Forked => self.is_other(id),
                StopReason::Unreadable | StopReason::Dropped(_) => self.give_up_search(id),
                StopReason::Cancelled => return Err(Violation::Unasked),
            }
            return Ok(());
        }
        let node = session.peer.node;
        let known = self.streams.get_mut(&stream).ok_or(Violation::Unasked)?;
        let pull = known.pull.filter(|pull| pull.session == id).ok_or(Violation::Unasked)?;
        let received = known.received;
        if let StopReason::Dropped(floor) = reason
            && self.note_floor(id, &stream, floor)
        {
            self.abandon(&stream);
            return Ok(());
        }
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(()) };
        match reason {
            StopReason::Cancelled => return Err(Violation::Unasked),
            // A floor beyond what it told of is one that was dropped since: it will tell of more.
            StopReason::Unreadable | StopReason::Dropped(_) => session.forget_offer(&stream, received.lsn),
            StopReason::Forked => {
                let lsn = pull.after;
                let ours = Some(received.chain).filter(|_| received.lsn == lsn);
                self.halt(id, Fork { stream: stream.clone(), node, lsn, ours, theirs: None }, true);
            }
        }
        // A continuation of the pull may have crossed this word; what it brings is dropped.
        self.abandon(&stream);
        Ok(())
    }
}
