//! What a simulated node has on its disk: records by stream, and which of them a loss of power takes because the disk lied about
//! a sync. It may have a real store beside it, which then decides what is held. It knows no peer and no clock.

use std::collections::{BTreeMap, VecDeque};

use tidelog_record::{Lsn, Record, StreamId};
use tidelog_replication::Head;

use super::real::RealStore;

/// One stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Shelf {
    /// Everything up to here was dropped by policy, here or before it came.
    pub below: Head,
    pub records: VecDeque<Record>,
}

impl Shelf {
    pub fn head(&self) -> Head {
        self.records.back().map_or(self.below, |last| Head { lsn: last.lsn, chain: last.chain })
    }

    /// Records behind `after`: at least one, then up to `bytes_max` of bodies. `None` when they cannot be read.
    pub fn read(&self, after: Lsn, bytes_max: usize) -> Option<Vec<Record>> {
        let skipped = usize::try_from(after.0.checked_sub(self.below.lsn.0)?).ok()?;
        let mut bytes = 0;
        let mut out = Vec::new();
        for record in self.records.iter().skip(skipped) {
            bytes += record.body.len();
            if bytes > bytes_max && !out.is_empty() {
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
    /// Other bytes, or a gap.
    Fork,
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

    pub fn vector(&self) -> Vec<(StreamId, Head)> {
        self.shelves.iter().map(|(id, shelf)| (id.clone(), shelf.head())).collect()
    }

    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.shelves.values().flat_map(|shelf| &shelf.records)
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
        if head.lsn.next() != Some(record.lsn) || !record.follows(head.chain) {
            return Err(Unwritten::Fork);
        }
        if let Some(room) = &mut self.room_bytes {
            *room = room.checked_sub(record.body.len()).ok_or(Unwritten::Full)?;
        }
        if self.lies || !synced {
            self.unsafe_tail.push(record.stream.clone());
        }
        self.shelves.entry(record.stream.clone()).or_default().records.push_back(record);
        Ok(true)
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
            lost.extend(self.shelves.get_mut(&stream).and_then(|shelf| shelf.records.pop_back()));
        }
        self.shelves.retain(|_, shelf| shelf.head().lsn > Lsn::ZERO);
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
        before.into_values().flat_map(|shelf| shelf.records).collect()
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
