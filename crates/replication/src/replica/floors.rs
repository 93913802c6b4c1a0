//! What peers dropped by policy and this node never had. A peer that is asked for it names its floor: the last LSN that is gone there and
//! the chain hash at it. Everyone else who offers the stream is asked first; only when nobody has sent any of it for
//! [`FLOOR_WAIT_MS`](crate::FLOOR_WAIT_MS) does the stream go on behind the lowest floor (invariants 3, 6, 14). Floors that contradict are a fork, and nobody's
//! word is taken then.

use alloc::vec::Vec;
use core::time::Duration;

use tidelog_record::StreamId;

use super::Replica;
use super::pulling::Adopting;
use crate::disk::DiskRequest;
use crate::event::{Event, Fork};
use crate::limits::FLOOR_LOOK_AGAIN_MS;
use crate::peer::SessionId;
use crate::session::Session;
use crate::stream::Head;

/// What is to be done for a stream whose time has come.
enum Look {
    /// Nobody's floor is above what was received.
    Fed,
    /// Somebody may still send what is lacking, or the disk is not ready for more.
    Later,
    /// The lowest floor, and who named it.
    Skip(SessionId, Head),
}

impl Replica {
    /// A peer says that policy dropped what it was asked for. `false` when that cannot be: then it is like any that cannot be read.
    pub(super) fn note_floor(&mut self, id: SessionId, stream: &StreamId, floor: Head) -> bool {
        let Some(received) = self.streams.get(stream).map(|known| known.received.lsn) else { return false };
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        let told = session.remote.get(stream).is_some_and(|head| head.lsn >= floor.lsn);
        if !told || floor.lsn <= received {
            return false;
        }
        session.floors.insert(stream.clone(), floor);
        if self.contradicts(id, stream, floor) {
            return true;
        }
        let due = self.now + self.options.floor_wait;
        let due = *self.starving.entry(stream.clone()).or_insert(due);
        self.wake_by(due);
        true
    }

    /// Records of a stream came: if it lacks more, it may come too.
    pub(super) fn is_fed(&mut self, stream: &StreamId) {
        if let Some(due) = self.starving.get_mut(stream) {
            *due = self.now + self.options.floor_wait;
        }
    }

    /// Goes on with each stream whose time has come.
    pub(super) fn look_at_floors(&mut self) {
        let due: Vec<StreamId> =
            self.starving.iter().filter(|(_, due)| **due <= self.now).map(|(id, _)| id.clone()).collect();
        for stream in due {
            let pause = match self.look(&stream) {
                Look::Fed => {
                    self.starving.remove(&stream);
                    continue;
                }
                Look::Later => Duration::from_millis(FLOOR_LOOK_AGAIN_MS).min(self.options.floor_wait),
                Look::Skip(id, floor) => {
                    if !self.contradicts(id, &stream, floor) {
                        self.skip(id, &stream, floor);
                    }
                    self.options.floor_wait
                }
            };
            self.starving.insert(stream, self.now + pause);
        }
        if let Some(next) = self.starving.values().min().copied() {
            self.wake_by(next);
        }
    }

    fn look(&self, stream: &StreamId) -> Look {
        let Some(known) = self.streams.get(stream) else { return Look::Fed };
        let received = known.received.lsn;
        let open = || self.sessions.iter().filter(|(_, session)| !session.halted.contains(stream));
        let floors = open().filter_map(|(id, session)| Some((*id, session.floor_above(stream, received)?)));
        let Some((id, floor)) = floors.min_by_key(|(_, floor)| floor.lsn) else { return Look::Fed };
        let may_send = open().any(|(_, session)| {
            session.offers(stream, received).is_some() && session.floor_above(stream, received).is_none()
        });
        let is_busy = known.pull.is_some()
            || known.adopting > 0
            || known.failed
            || known.lacking_until().is_none()
            || self.paused_until.is_some();
        // This node's own stream advances by its own records alone (invariant 11).
        if may_send || is_busy || self.is_own(stream) { Look::Later } else { Look::Skip(id, floor) }
    }

    /// Whether another peer names another chain hash at a floor: then neither is believed, and the fork is told of.
    fn contradicts(&mut self, id: SessionId, stream: &StreamId, floor: Head) -> bool {
        let is_another = |head: &&Head| head.lsn == floor.lsn && head.chain != floor.chain;
        let names_another = |session: &Session| {
            let named = [session.floors.get(stream), session.remote.get(stream)];
            named.into_iter().flatten().find(is_another).map(|head| head.chain)
        };
        let others = self.sessions.iter();
        let mut named: Vec<_> =
            others.filter_map(|(other, session)| Some((*other, names_another(session)?))).collect();
        if named.is_empty() {
            return false;
        }
        named.push((id, floor.chain));
        for (of, theirs) in named {
            let Some(node) = self.sessions.get(&of).map(|session| session.peer.node) else { continue };
            let (stream, theirs) = (stream.clone(), Some(theirs));
            self.halt(of, Fork { stream, node, lsn: floor.lsn, ours: None, theirs }, false);
        }
        true
    }

    /// Goes on behind a floor: what comes next is asked for while the disk notes it.
    fn skip(&mut self, id: SessionId, stream: &StreamId, to: Head) {
        let ticket = self.ticket();
        let (Some(known), Some(session)) = (self.streams.get_mut(stream), self.sessions.get(&id)) else {
            return;
        };
        let after = core::mem::replace(&mut known.received, to);
        known.adopting += 1;
        let node = session.peer.node;
        self.adopting
            .insert(ticket, Adopting { session: Some(id), stream: stream.clone(), head: to, cost_bytes: 0 });
        self.requests.push_back(DiskRequest::Skip { ticket, stream: stream.clone(), after, to });
        self.events.push_back(Event::Skipped { node, stream: stream.clone(), after: after.lsn, to: to.lsn });
        self.renew_ahead(stream);
        self.try_pull(stream);
    }
}
