//! What a simulated node has on its disk: records by stream, and which of them a loss of power takes because the disk lied about
//! a sync. It may have a real store beside it, which then decides what is held. It knows no peer and no clock.

use std::collections::{BTreeMap, VecDeque};

use tidelog_record::{Lsn, Record, StreamId};
use tidelog_replication::{Head, Range};

use super::real::RealStore;

/// One stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Shelf {
    /// Everything up to here was dropped by policy, here or before it came.
    pub below: Head,
    pub records: VecDeque<Record>,
    /// What stands behind a gap that rot left.
    pub above: BTreeMap<Lsn, Record>,
}

impl Shelf {
    pub fn head(&self) -> Head {
        self.records.back().map_or(self.below, |last| Head { lsn: last.lsn, chain: last.chain })
    }

    /// The last record, above gaps too.
    pub fn top(&self) -> Head {
        let last = self.above.values().next_back();
        last.map_or_else(|| self.head(), |last| Head { lsn: last.lsn, chain: last.chain })
    }

    pub fn all(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().chain(self.above.values())
    }

    /// What stands above gaps.
    pub fn ranges(&self) -> Vec<Range> {
        let mut ranges: Vec<Range> = Vec::new();
        for lsn in self.above.keys() {
            match ranges.last_mut().filter(|range| range.last.next() == Some(*lsn)) {
                Some(range) => range.last = *lsn,
                None => ranges.push(Range { first: *lsn, last: *lsn }),
            }
        }
        ranges
    }

    /// Takes what is contiguous now to the rest.
    fn join(&mut self) {
        while let Some(next) = self.head().lsn.next().and_then(|next| self.above.remove(&next)) {
            self.records.push_back(next);
        }
    }

    /// Some records are rotten; they are given back.
    pub fn rot(&mut self, is_rotten: impl Fn(&Record) -> bool) -> Vec<Record> {
        let records = std::mem::take(&mut self.records).into_iter().map(|record| (record.lsn, record));
        self.above.extend(records);
        let rotten = self.above.extract_if(.., |_, record| is_rotten(record)).map(|(_, record)| record);
        let rotten = rotten.collect();
        self.join();
        rotten
    }

    fn is_empty(&self) -> bool {
        self.head().lsn == Lsn::ZERO && self.above.is_empty()
    }

    /// Records behind `after`: at least one, then up to `bytes_max` of bodies. `None` when they cannot be read.
    pub fn read(&self, after: Lsn, bytes_max: usize) -> Option<Vec<Record>> {
        let skipped = usize::try_from(after.0.checked_sub(self.below.lsn.0)?).ok()?;
        let mut bytes = 0;
        let mut out = Vec::new();
        let first = after.next()?;
        let above = self.above.range(first..).map(|(_, record)| record);
        for (record, lsn) in self.records.iter().skip(skipped).chain(above).zip(first.0..) {
            bytes += record.body.len();
            if record.lsn.0 != lsn || bytes > bytes_max && !out.is_empty() {
                break;
            }
            out.push(record.clone());
        }
        Some(out)
    }
}

/// Why a record was not written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unwritten {
    /// No room.
    Full,
    /// Other bytes.
    Fork,
    /// It does not stand behind what is held.
    Gap,
}

#[derive(Default)]
pub(super) struct Holdings {
    pub shelves: BTreeMap<StreamId, Shelf>,
    /// Streams of the records that the disk only claims to have, in order of arrival.
    pub unsafe_tail: Vec<StreamId>,
    pub lies: bool,
    /// Bodies that may still be written, in bytes.
    pub room_bytes: Option<usize>,
    pub real: Option<RealStore>,
}

impl Holdings {
    pub fn head(&self, stream: &StreamId) -> Head {
        self.shelves.get(stream).map_or_else(Head::default, Shelf::head)
    }

    /// Behind which this node's own next record of a stream stands.
    pub fn top(&self, stream: &StreamId) -> Head {
        self.shelves.get(stream).map_or_else(Head::default, Shelf::top)
    }

    /// What stands above gaps of a stream.
    pub fn ranges(&self, stream: &StreamId) -> Vec<Range> {
        self.shelves.get(stream).map(Shelf::ranges).unwrap_or_default()
    }

    pub fn vector(&self) -> Vec<(StreamId, Head)> {
        let shelves = self.shelves.iter().filter(|(_, shelf)| shelf.head().lsn > Lsn::ZERO);
        shelves.map(|(id, shelf)| (id.clone(), shelf.head())).collect()
    }

    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.shelves.values().flat_map(Shelf::all)
    }

    /// Writes one record behind what is held; `Ok(false)` when it is there already. `synced` is false for what is only in a
    /// cache until [`Holdings::sync`].
    pub fn push(&mut self, record: Record, synced: bool) -> Result<bool, Unwritten> {
        let head = self.head(&record.stream);
        if record.lsn <= head.lsn {
            let shelf = self.shelves.get(&record.stream);
            let held = shelf.and_then(|shelf| shelf.read(Lsn(record.lsn.0 - 1), 0)?.pop());
            return if held.is_none_or(|held| held.chain == record.chain) {
                Ok(false)
            } else {
                Err(Unwritten::Fork)
            };
        }
        let shelf = self.shelves.get(&record.stream);
        let behind = shelf.and_then(|shelf| shelf.above.values().next());
        let behind = behind.filter(|next| record.lsn.next() == Some(next.lsn));
        if head.lsn.next() != Some(record.lsn) {
            return Err(Unwritten::Gap);
        }
        if !record.follows(head.chain) || behind.is_some_and(|behind| !behind.follows(record.chain)) {
            return Err(Unwritten::Fork);
        }
        if let Some(room) = &mut self.room_bytes {
            *room = room.checked_sub(record.body.len()).ok_or(Unwritten::Full)?;
        }
        if self.lies || !synced {
            self.unsafe_tail.push(record.stream.clone());
        }
        let shelf = self.shelves.entry(record.stream.clone()).or_default();
        shelf.records.push_back(record);
        shelf.join();
        Ok(true)
    }

    /// Writes this node's own next record, which stands behind all that it holds of the stream.
    pub fn append(&mut self, record: Record, synced: bool) -> Result<(), Unwritten> {
        if self.ranges(&record.stream).is_empty() {
            return self.push(record, synced).map(drop);
        }
        if let Some(room) = &mut self.room_bytes {
            *room = room.checked_sub(record.body.len()).ok_or(Unwritten::Full)?;
        }
        if self.lies || !synced {
            self.unsafe_tail.push(record.stream.clone());
        }
        self.shelves.entry(record.stream.clone()).or_default().above.insert(record.lsn, record);
        Ok(())
    }

    /// What was written is on the disk now, or the disk says so.
    pub fn sync(&mut self) {
        if !self.lies {
            self.unsafe_tail.clear();
        }
    }

    /// The power goes: the records that were only said to be on the disk, the newest first.
    pub fn lose_tail(&mut self) -> Vec<Record> {
        let mut lost = Vec::new();
        while let Some(stream) = self.unsafe_tail.pop() {
            lost.extend(self.shelves.get_mut(&stream).and_then(|shelf| match shelf.above.pop_last() {
                Some((_, last)) => Some(last),
                None => shelf.records.pop_back(),
            }));
        }
        self.shelves.retain(|_, shelf| !shelf.is_empty());
        lost
    }

    /// What a backup would hold now.
    pub fn copy(&self) -> BTreeMap<StreamId, Shelf> {
        self.shelves.clone()
    }

    /// Puts a backup in the place of everything; what it replaces.
    pub fn replace(&mut self, shelves: BTreeMap<StreamId, Shelf>) -> Vec<Record> {
        self.unsafe_tail.clear();
        let before = std::mem::replace(&mut self.shelves, shelves);
        before
            .into_values()
            .flat_map(|shelf| shelf.records.into_iter().chain(shelf.above.into_values()))
            .collect()
    }

    /// Goes on behind what peers had dropped; what it lets go of for that, because a shelf has one floor. `None` when it holds something else.
    pub fn skip(&mut self, stream: &StreamId, after: Head, to: Head) -> Option<Vec<Record>> {
        let head = self.head(stream);
        if head.lsn >= to.lsn {
            return Some(Vec::new());
        }
        (head == after).then(|| {
            let shelf = self.shelves.entry(stream.clone()).or_default();
            shelf.below = to;
            std::mem::take(&mut shelf.records).into()
        })
    }

    /// Policy drops everything of a stream up to `upto`.
    pub fn drop_up_to(&mut self, stream: &StreamId, upto: Lsn) -> Vec<Record> {
        let Some(shelf) = self.shelves.get_mut(stream) else { return Vec::new() };
        let mut dropped = Vec::new();
        while shelf.records.front().is_some_and(|first| first.lsn <= upto) {
            let Some(first) = shelf.records.pop_front() else { break };
            shelf.below = Head { lsn: first.lsn, chain: first.chain };
            dropped.push(first);
        }
        dropped
    }
}
