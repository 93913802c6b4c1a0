//! The state of one session: what the peer told, what is being sent to it and what was asked of it. It keeps the
//! accounts; the rules are in `replica`.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use tidelog_record::{ChainHash, Lsn, StreamId};

use crate::disk::Ticket;
use crate::limits::{
    FRESH_TURNS_MAX, MESSAGE_BYTES_LEAST, MESSAGE_BYTES_MAX, MESSAGE_BYTES_START, MESSAGE_WRITE_MS_MAX,
};
use crate::message::Message;
use crate::peer::Peer;
use crate::stream::{Head, Range};

/// A range that the peer pulls.
#[derive(Debug)]
pub(crate) struct Serving {
    /// The last LSN read.
    pub after: Lsn,
    /// The peer's chain hash there, to be compared with the first record read.
    pub check: Option<ChainHash>,
    /// The last LSN to send.
    pub until: Lsn,
    /// The read under way.
    pub reading: Option<Ticket>,
}

/// The search for the last LSN up to which a stream is the same here and there, by halves.
#[derive(Debug)]
pub(crate) struct Search {
    pub stream: StreamId,
    /// The same here and there.
    pub low: Lsn,
    /// Different.
    pub high: Lsn,
    pub step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The chain hash at the middle is being read.
    Reading(Ticket),
    /// The peer was asked to go on from there.
    Asked,
}

/// What the peer was told of a stream above its contiguous part.
#[derive(Debug, Default)]
pub(crate) struct ToldAbove {
    /// What it knows now.
    pub ranges: Vec<Range>,
    /// The highest LSN that it was ever told of so: it may ask up to there, although some of it may be gone.
    pub most: Lsn,
}

#[derive(Debug)]
pub(crate) struct Session {
    pub peer: Peer,
    /// Negotiated; `None` until the peer's hello.
    pub version: Option<u16>,
    /// The peer's life, as its hello says.
    pub instance: Option<u64>,
    pub connected_at: Duration,
    pub heard_at: Duration,
    pub said_at: Duration,
    /// When the peer last sent records or brought its vector forward.
    pub progress_at: Duration,

    /// What the peer holds, as it told.
    pub remote: BTreeMap<StreamId, Head>,
    /// What the peer holds above that, as it told; no entry is empty.
    pub above: BTreeMap<StreamId, Vec<Range>>,
    /// Up to where the peer said that policy dropped what was asked of it, by stream.
    pub floors: BTreeMap<StreamId, Head>,
    /// Streams with a fork between this peer and this node (invariant 1).
    pub halted: BTreeSet<StreamId>,
    /// Forks whose place is still to be looked for: the two differ at this LSN.
    pub forked: VecDeque<(StreamId, Lsn)>,
    /// Words of the peer about forks that are being compared.
    pub checks: usize,
    /// The one that is being looked for.
    pub search: Option<Search>,

    /// Streams pulled from it.
    pub pulls: BTreeSet<StreamId>,
    /// Streams that wait for a turn, first come first served.
    pub waiting: VecDeque<StreamId>,
    /// The same streams, so that each waits once.
    pub is_waiting: BTreeSet<StreamId>,
    /// Pulls that were taken back and not yet confirmed, with the LSN behind which they began: their records are dropped.
    pub abandoned: BTreeMap<StreamId, Lsn>,
    /// Credit that the peer has of us, in bytes; one message may overdraw it.
    pub granted: i64,
    /// Credit to give back, in bytes.
    pub owed: usize,
    /// Credit when nothing is under way, in bytes.
    pub window: usize,

    /// Ranges that the peer pulls.
    pub serves: BTreeMap<StreamId, Serving>,
    /// Who waits for a read, the longest first.
    pub turns: VecDeque<StreamId>,
    /// Reads out of turn since the last one in turn.
    pub fresh_in_a_row: u32,
    /// Most bytes of records in a message, as the connection's speed allows.
    pub message_bytes: usize,
    /// When each message in flight was handed to the connection, and what it costs.
    pub flying: VecDeque<(Duration, usize)>,
    /// When one was written last.
    pub written_at: Duration,
    /// Reads under way for this session.
    pub reading: usize,
    /// Credit that we have of the peer, in bytes.
    pub credit: i64,

    pub control: VecDeque<Message>,
    /// Records, and what must not overtake them.
    pub data: VecDeque<Message>,
    /// Cost of what is in `data`, in bytes.
    pub data_bytes: usize,
    /// Handed to the connection and not yet written.
    pub in_flight: usize,

    /// News for the peer.
    pub fresh: BTreeSet<StreamId>,
    /// What the peer has and does not know that we have too.
    pub acknowledge: BTreeSet<StreamId>,
    /// What this node holds above the contiguous part of these streams may be news to the peer.
    pub fresh_above: BTreeSet<StreamId>,
    pub told_above: BTreeMap<StreamId, ToldAbove>,
    pub announced_at: Option<Duration>,
    pub announce_due: Option<Duration>,

    pub received_bytes: u64,
    pub sent_bytes: u64,
}

impl Session {
    pub fn new(now: Duration, peer: Peer, window: usize) -> Self {
        Self {
            peer,
            version: None,
            instance: None,
            connected_at: now,
            heard_at: now,
            said_at: now,
            progress_at: now,
            remote: BTreeMap::new(),
            above: BTreeMap::new(),
            floors: BTreeMap::new(),
            halted: BTreeSet::new(),
            forked: VecDeque::new(),
            checks: 0,
            search: None,
            pulls: BTreeSet::new(),
            waiting: VecDeque::new(),
            is_waiting: BTreeSet::new(),
            abandoned: BTreeMap::new(),
            granted: i64::try_from(window).unwrap_or(i64::MAX),
            owed: 0,
            window,
            serves: BTreeMap::new(),
            turns: VecDeque::new(),
            fresh_in_a_row: 0,
            message_bytes: MESSAGE_BYTES_START,
            flying: VecDeque::new(),
            written_at: now,
            reading: 0,
            credit: 0,
            control: VecDeque::new(),
            data: VecDeque::new(),
            data_bytes: 0,
            in_flight: 0,
            fresh: BTreeSet::new(),
            acknowledge: BTreeSet::new(),
            fresh_above: BTreeSet::new(),
            told_above: BTreeMap::new(),
            announced_at: None,
            announce_due: None,
            received_bytes: 0,
            sent_bytes: 0,
        }
    }

    pub fn is_ready(&self) -> bool {
        self.version.is_some()
    }

    /// Up to where the peer offers all records behind `lsn`.
    pub fn offers(&self, stream: &StreamId, lsn: Lsn) -> Option<Lsn> {
        let head = self.remote.get(stream).map(|head| head.lsn).filter(|head| *head > lsn);
        head.or_else(|| {
            let next = lsn.next()?;
            let ranges = self.above.get(stream)?;
            ranges.iter().find(|range| range.contains(next)).map(|range| range.last)
        })
    }

    /// Whether the peer holds anything behind `lsn`, the next record or not.
    pub fn is_beyond(&self, stream: &StreamId, lsn: Lsn) -> bool {
        let above = || self.above.get(stream).and_then(|ranges| ranges.last());
        self.remote.get(stream).is_some_and(|head| head.lsn > lsn)
            || above().is_some_and(|range| range.last > lsn)
    }

    /// The peer cannot send what it offers behind `lsn`: forgotten until it tells of it again.
    pub fn forget_offer(&mut self, stream: &StreamId, lsn: Lsn) {
        if self.remote.get(stream).is_some_and(|head| head.lsn > lsn) {
            self.remote.remove(stream);
        } else if let (Some(ranges), Some(next)) = (self.above.get_mut(stream), lsn.next()) {
            ranges.retain(|range| !range.contains(next));
            if ranges.is_empty() {
                self.above.remove(stream);
            }
        }
    }

    /// The peer is told how far the contiguous part of a stream is: the ranges in it are no more, without a further word.
    pub fn told_head(&mut self, stream: &StreamId, head: Lsn) {
        let Some(told) = self.told_above.get_mut(stream) else { return };
        told.ranges.retain(|range| range.last > head);
        if told.most <= head {
            self.told_above.remove(stream);
        }
    }

    /// The stream to read next: the one that is nearest to its end, so that what is fresh goes before a backlog; and after some of those
    /// the one that waited longest, which is the backlog's share.
    pub fn next_turn(&mut self) -> Option<StreamId> {
        if self.fresh_in_a_row >= FRESH_TURNS_MAX {
            self.fresh_in_a_row = 0;
            return self.turns.pop_front();
        }
        self.fresh_in_a_row += 1;
        let left = |stream: &StreamId| {
            self.serves.get(stream).map_or(0, |serving| serving.until.0.saturating_sub(serving.after.0))
        };
        let nearest = self.turns.iter().enumerate().min_by_key(|(_, stream)| left(stream));
        let at = nearest.map(|(at, _)| at)?;
        self.turns.remove(at)
    }

    /// The oldest message in flight is written; the length of those that follow goes by the time that it took.
    pub fn written(&mut self, now: Duration) {
        let Some((handed_at, cost)) = self.flying.pop_front() else { return };
        let took = now.saturating_sub(handed_at.max(self.written_at));
        self.written_at = now;
        if cost > 0 && took > Duration::from_millis(MESSAGE_WRITE_MS_MAX) {
            self.message_bytes = (self.message_bytes / 2).max(MESSAGE_BYTES_LEAST);
        } else if cost * 2 >= self.message_bytes && took < Duration::from_millis(MESSAGE_WRITE_MS_MAX / 4) {
            self.message_bytes = (self.message_bytes * 2).min(MESSAGE_BYTES_MAX);
        }
    }

    /// Up to where the peer dropped what is lacking behind `lsn`.
    pub fn floor_above(&self, stream: &StreamId, lsn: Lsn) -> Option<Head> {
        self.floors.get(stream).copied().filter(|floor| floor.lsn > lsn)
    }

    /// Puts a stream at the end of those that wait.
    pub fn wait(&mut self, stream: &StreamId) {
        if self.is_waiting.insert(stream.clone()) {
            self.waiting.push_back(stream.clone());
        }
    }

    /// Takes the stream that has waited longest.
    pub fn next_waiting(&mut self) -> Option<StreamId> {
        let next = self.waiting.pop_front()?;
        self.is_waiting.remove(&next);
        Some(next)
    }

    /// Gives credit back once it is worth a message. Less than a quarter of the window stays owed, so the peer never
    /// waits for it.
    pub fn give_back(&mut self, bytes: usize) {
        self.owed += bytes;
        if self.owed * 4 >= self.window {
            self.granted = self.granted.saturating_add(i64::try_from(self.owed).unwrap_or(i64::MAX));
            self.control.push_back(Message::Credit(u32::try_from(self.owed).unwrap_or(u32::MAX)));
            self.owed = 0;
        }
    }
}
