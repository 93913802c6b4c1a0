//! What this node knows of one stream: how far it is held durably, how far it was received, and who is asked for more.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use tidelog_record::{ChainHash, Lsn, StreamId, StreamKey};

use crate::limits::RANGES_ABOVE_MAX;
use crate::peer::SessionId;

/// A place in a stream and the chain hash there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The last LSN.
    pub lsn: Lsn,
    /// The chain hash after it.
    pub chain: ChainHash,
}

/// Consecutive records of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The first LSN.
    pub first: Lsn,
    /// The last LSN.
    pub last: Lsn,
}

impl Range {
    pub(crate) fn contains(&self, lsn: Lsn) -> bool {
        self.first <= lsn && lsn <= self.last
    }

    /// Whether ranges can stand above a contiguous part: none is empty, and before each something is missing.
    pub(crate) fn are_apart(ranges: &[Self]) -> bool {
        let mut before = Lsn::ZERO;
        ranges.iter().all(|range| {
            let apart = before.next().is_some_and(|next| next < range.first);
            before = range.last;
            apart && range.first <= range.last && range.last.next().is_some()
        })
    }
}

/// The one peer that a stream is being pulled from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pulling {
    pub session: SessionId,
    /// The LSN whose chain hash the peer was told, to go on from there.
    pub after: Lsn,
    /// The last LSN asked for.
    pub until: Lsn,
}

#[derive(Debug)]
pub(crate) struct Stream {
    pub key: StreamKey,
    /// Durable here, without a gap. Only this is claimed, and only this and `above` are served (invariant 2).
    pub held: Head,
    /// The highest that `held` ever was: peers were told so, and may ask up to there although some of it is gone.
    pub most_held: Lsn,
    /// Durable here above a gap behind `held`, the lowest ranges; served too. `held` may have reached the first until the disk says that both are one.
    pub above: Vec<Range>,
    /// Verified and handed to the disk; never behind `held`.
    pub received: Head,
    /// Adoptions that the disk has not answered.
    pub adopting: usize,
    /// An adoption failed: nothing more is taken until the others are answered.
    pub failed: bool,
    /// Invariant: at most one, so that a loop carries nothing twice.
    pub pull: Option<Pulling>,
    /// Where this stood when the disk last said that it holds other bytes behind it.
    pub refused_at: Option<Lsn>,
    /// Sessions whose peer told of something behind what was received, if not of the next record. May hold some that are no longer ahead.
    pub ahead: BTreeSet<SessionId>,
}

impl Stream {
    pub fn new(id: &StreamId, held: Head) -> Self {
        Self {
            key: id.key(),
            held,
            most_held: held.lsn,
            above: Vec::new(),
            received: held,
            adopting: 0,
            failed: false,
            pull: None,
            refused_at: None,
            ahead: BTreeSet::new(),
        }
    }

    /// Moves what is durable forward; never back.
    pub fn hold(&mut self, head: Head) -> bool {
        let news = head.lsn > self.held.lsn;
        if news {
            self.held = head;
            self.most_held = self.most_held.max(head.lsn);
        }
        if self.held.lsn > self.received.lsn {
            self.received = self.held;
        }
        news
    }

    /// The disk can read no more than this without a gap. What is under way to it would stand behind the gap: it is waited for, and then all
    /// begins again from here.
    pub fn recede(&mut self, head: Head) {
        self.held = head;
        if self.adopting > 0 {
            self.failed = true;
        } else {
            self.received = head;
        }
    }

    /// Takes what the disk holds above the contiguous part. What touches that would be part of it, if the disk could still read all of it.
    pub fn hold_above(&mut self, ranges: &[Range]) -> bool {
        let next = self.held.lsn.next();
        let apart = ranges.iter().copied().filter(|range| next.is_some_and(|next| next < range.first));
        let apart: Vec<Range> = apart.take(RANGES_ABOVE_MAX).collect();
        let news = apart != self.above;
        self.above = apart;
        news
    }

    /// Whether all records behind `after` up to `until` are durable here.
    pub fn holds_all(&self, after: Lsn, until: Lsn) -> bool {
        let within =
            |range: &Range| after.next().is_some_and(|first| range.contains(first)) && until <= range.last;
        until <= self.held.lsn || self.above.iter().any(within)
    }

    /// The last LSN that is lacking before something that is held. `None` when the next one is on the disk, which is about to say so.
    pub fn lacking_until(&self) -> Option<Lsn> {
        let next = self.received.lsn.next()?;
        match self.above.iter().find(|range| next <= range.last) {
            None => Some(Lsn(u64::MAX)),
            Some(range) if range.first <= next => None,
            Some(range) => range.first.0.checked_sub(1).map(Lsn),
        }
    }

    /// Nothing is held and nobody offers anything.
    pub fn is_forgettable(&self) -> bool {
        self.held.lsn == Lsn::ZERO
            && self.above.is_empty()
            && self.adopting == 0
            && self.pull.is_none()
            && self.ahead.is_empty()
    }
}
