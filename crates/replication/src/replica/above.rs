//! What stands above a gap that rot or a lying disk left in the middle of a stream. Each side tells the lowest ranges of it, so that who has
//! come so far by other ways gets them from here too; and who has them asks for the gap alone. The chain holds each record to the
//! one before it as ever: a range is only a hint where to ask, and the contiguous part alone is claimed (invariants 2, 3, 5).

use alloc::vec::Vec;

use tidelog_record::{Lsn, StreamId};

use super::Replica;
use crate::event::Violation;
use crate::limits::{HOLD_STREAMS_MAX, RANGES_ABOVE_MAX, RANGES_SINCE_VERSION, STREAMS_PER_PEER_MAX};
use crate::message::{Above, Message};
use crate::peer::SessionId;
use crate::session::Session;
use crate::stream::{Range, Stream};

fn has_ranges(session: &Session) -> bool {
    session.version.is_some_and(|version| version >= RANGES_SINCE_VERSION)
}

impl Replica {
    pub(super) fn peer_holds_above(&mut self, id: SessionId, above: Vec<Above>) -> Result<(), Violation> {
        for Above { stream, mut ranges } in above {
            let Some(session) = self.sessions.get(&id) else { return Ok(()) };
            if !self.is_shared(session, &stream.site) {
                return Err(Violation::NotGranted(stream.site));
            }
            if !has_ranges(session) || ranges.len() > RANGES_ABOVE_MAX || !Range::are_apart(&ranges) {
                return Err(Violation::Ranges);
            }
            let told = session.above.get(&stream).and_then(|ranges| ranges.last()).map(|range| range.last);
            if told.is_none() && session.above.len() >= STREAMS_PER_PEER_MAX {
                return Err(Violation::TooManyStreams);
            }
            let head = session.remote.get(&stream).map_or(Lsn::ZERO, |head| head.lsn);
            ranges.retain(|range| range.last > head);
            let Some(claimed) = ranges.last().map(|range| range.last) else {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.above.remove(&stream);
                }
                continue;
            };
            if let Some(session) = self.sessions.get_mut(&id) {
                session.above.insert(stream.clone(), ranges);
            }
            let known =
                self.streams.entry(stream.clone()).or_insert_with(|| Stream::new(&stream, <_>::default()));
            let written = known.above.last().map_or(known.held.lsn, |range| range.last.max(known.held.lsn));
            if claimed > known.received.lsn {
                known.ahead.insert(id);
            }
            self.check_own(id, &stream, claimed, told, written);
            self.pull_on(id, stream);
        }
        Ok(())
    }

    /// The contiguous part of what a peer holds has come to `head`: the ranges in it are no more, without a further word.
    pub(super) fn prune_above(&mut self, id: SessionId, stream: &StreamId, head: Lsn) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(ranges) = session.above.get_mut(stream) else { return };
        ranges.retain(|range| range.last > head);
        if ranges.is_empty() {
            session.above.remove(stream);
        }
    }

    /// A session begins: its peer is to hear of all ranges that it may know of.
    pub(super) fn tell_all_above(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(&id).filter(|session| has_ranges(session)) else { return };
        let gapped = self.streams.iter().filter(|(_, known)| !known.above.is_empty());
        let shared = gapped.map(|(stream, _)| stream).filter(|stream| self.is_shared(session, &stream.site));
        let shared: Vec<StreamId> = shared.cloned().collect();
        if let Some(session) = self.sessions.get_mut(&id) {
            session.fresh_above.extend(shared);
        }
    }

    /// Tells everyone who may know what is held of a stream above its contiguous part now.
    pub(super) fn spread_above(&mut self, stream: &StreamId) {
        for id in self.audience(&stream.site).iter() {
            let Some(session) = self.sessions.get_mut(id).filter(|session| has_ranges(session)) else {
                continue;
            };
            session.fresh_above.insert(stream.clone());
            self.schedule_announcement(*id);
        }
    }

    /// The streams whose ranges are to be told next, as many as one message takes.
    pub(super) fn next_above(&mut self, id: SessionId) -> Vec<StreamId> {
        let Some(session) = self.sessions.get_mut(&id) else { return Vec::new() };
        core::iter::from_fn(|| session.fresh_above.pop_first()).take(HOLD_STREAMS_MAX).collect()
    }

    /// What is news to the peer of the ranges of these streams, once it was told how far their contiguous part is.
    pub(super) fn above_of(&mut self, id: SessionId, streams: Vec<StreamId>) -> Option<Message> {
        let session = self.sessions.get_mut(&id)?;
        let mut news = Vec::new();
        for stream in streams {
            let known = self.streams.get(&stream);
            let ranges = known.map_or(&[][..], |known| known.above.as_slice());
            let told = session.told_above.get(&stream).map_or(&[][..], |told| told.ranges.as_slice());
            if ranges == told {
                continue;
            }
            let ranges = ranges.to_vec();
            let told = session.told_above.entry(stream.clone()).or_default();
            told.most = ranges.last().map_or(told.most, |range| range.last.max(told.most));
            told.ranges.clone_from(&ranges);
            news.push(Above { stream, ranges });
        }
        (!news.is_empty()).then_some(Message::Above(news))
    }
}
