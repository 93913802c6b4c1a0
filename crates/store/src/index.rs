//! What is where in the log, in memory, rebuilt when the store opens. Thin: it holds all of the log's streams and
//! series; the catalogue in sled and sealed segments will take most of it over.
//!
//! Bounded per entry: a record costs about two bytes for each series in it, a stream one mark per
//! [`MARK_EVERY_BYTES`] of log or per record, whichever is less.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tidelog_record::{
    Batch, Body, ChainHash, DeviceId, Lsn, NodeId, Run, Series, SiteName, StreamId, StreamKey,
};

use crate::disk::DiskFile;
use crate::ranges::SeqRanges;
use crate::seriesmap::SeriesRecords;

/// Distance between marks from which a reader walks forward, in bytes of log.
const MARK_EVERY_BYTES: u64 = 32 * 1024;

/// One log file.
#[derive(Debug)]
pub(crate) struct LogFile {
    pub name: Arc<str>,
    pub file: Arc<dyn DiskFile>,
    pub salt: u64,
    /// Position of its first record.
    pub first: u64,
    /// Position of its last record, `first - 1` when it has none.
    pub last: u64,
    /// Where its good bytes end.
    pub end: u64,
    /// `(ordinal, offset)` of some frames, ascending.
    marks: Vec<(u32, u32)>,
    /// Ranges `[from, to)` that are not frames, ascending.
    pub rot: Vec<(u64, u64)>,
}

impl LogFile {
    pub fn new(name: Arc<str>, file: Arc<dyn DiskFile>, salt: u64, first: u64, end: u64) -> Self {
        Self { name, file, salt, first, last: first - 1, end, marks: Vec::new(), rot: Vec::new() }
    }

    /// Where to start walking to meet the record at `position`.
    pub fn walk_from(&self, position: u64) -> u64 {
        let ordinal = position.saturating_sub(self.first);
        let after = self.marks.partition_point(|(o, _)| u64::from(*o) <= ordinal);
        let mark = after.checked_sub(1).and_then(|at| self.marks.get(at));
        mark.map_or(crate::frame::FRAMES_AT, |(_, offset)| u64::from(*offset))
    }

    fn mark(&mut self, ordinal: u32, offset: u64) {
        let last = self.marks.last().map(|(_, offset)| u64::from(*offset));
        if last.is_none_or(|last| offset >= last + MARK_EVERY_BYTES)
            && let Ok(offset) = u32::try_from(offset)
        {
            self.marks.push((ordinal, offset));
        }
    }
}

/// Consecutive LSNs of one stream that arrived in order.
#[derive(Debug, Clone)]
pub(crate) struct Extent {
    pub first: u64,
    pub last: u64,
    /// Chain hash after `last`.
    pub chain: ChainHash,
    /// `(lsn, position, log byte)` of some records, ascending; the first record always.
    marks: Vec<(u64, u64)>,
    marked_at: u64,
}

/// What is held of one stream.
#[derive(Debug)]
pub(crate) struct StreamIndex {
    pub stream: StreamId,
    /// Disjoint, ascending.
    pub extents: Vec<Extent>,
    /// Everything up to here is held, chained and readable (invariant 5).
    pub upto: Lsn,
    pub chain: ChainHash,
}

impl StreamIndex {
    fn new(stream: StreamId) -> Self {
        Self { stream, extents: Vec::new(), upto: Lsn::ZERO, chain: ChainHash::GENESIS }
    }

    /// The highest LSN held and the chain hash there, above gaps too.
    pub fn top(&self) -> (Lsn, ChainHash) {
        self.extents.last().map_or((Lsn::ZERO, ChainHash::GENESIS), |e| (Lsn(e.last), e.chain))
    }

    /// The chain hash that a record at `lsn` must follow, if the record before it is the last of its extent.
    pub fn chain_before(&self, lsn: Lsn) -> Option<ChainHash> {
        let before = lsn.0.checked_sub(1)?;
        if before == 0 {
            return Some(ChainHash::GENESIS);
        }
        self.extent_of(Lsn(before)).filter(|extent| extent.last == before).map(|extent| extent.chain)
    }

    pub fn extent_of(&self, lsn: Lsn) -> Option<&Extent> {
        let after = self.extents.partition_point(|e| e.first <= lsn.0);
        let extent = self.extents.get(after.checked_sub(1)?)?;
        (lsn.0 <= extent.last).then_some(extent)
    }

    /// The position from which a walk meets `lsn`.
    pub fn walk_from(&self, lsn: Lsn) -> Option<u64> {
        let extent = self.extent_of(lsn)?;
        let after = extent.marks.partition_point(|(l, _)| *l <= lsn.0);
        extent.marks.get(after.checked_sub(1)?).map(|(_, position)| *position)
    }

    /// Takes in a record. `false` when its LSN is held already.
    fn add(&mut self, lsn: Lsn, chain: ChainHash, position: u64, log_byte: u64) -> bool {
        if self.extent_of(lsn).is_some() || lsn == Lsn::ZERO {
            return false;
        }
        let at = self.extents.partition_point(|e| e.first <= lsn.0);
        match at.checked_sub(1).and_then(|before| self.extents.get_mut(before)) {
            // Arrival order within an extent is LSN order; a record that arrives later than a higher one begins its own.
            Some(e)
                if e.last.checked_add(1) == Some(lsn.0)
                    && e.marks.last().is_some_and(|(_, p)| *p < position) =>
            {
                e.last = lsn.0;
                e.chain = chain;
                if log_byte >= e.marked_at + MARK_EVERY_BYTES {
                    e.marks.push((lsn.0, position));
                    e.marked_at = log_byte;
                }
            }
            _ => {
                let extent = Extent {
                    first: lsn.0,
                    last: lsn.0,
                    chain,
                    marks: vec![(lsn.0, position)],
                    marked_at: log_byte,
                };
                self.extents.insert(at, extent);
            }
        }
        self.join();
        true
    }

    /// Moves `upto` over everything that is now contiguous.
    fn join(&mut self) {
        let mut at = self.extents.partition_point(|e| e.first <= self.upto.0 + 1).saturating_sub(1);
        while let Some(e) = self.extents.get(at).filter(|e| e.first <= self.upto.0 + 1) {
            if e.last > self.upto.0 {
                self.upto = Lsn(e.last);
                self.chain = e.chain;
            }
            at += 1;
        }
    }
}

/// What a record's body means to the index; made where the body enters, off the writer's thread.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    /// Series with the least and greatest timestamp (ns) and the number of points.
    pub series: Vec<(Series, i64, i64, u64)>,
    pub origin: Option<(DeviceId, u32, u64, u32)>,
    pub points: u64,
    /// The body holds no points: a seal, or of a kind that this version does not understand.
    pub opaque: bool,
}

impl Summary {
    /// Of bytes that may be no body: what this version cannot decode is kept and passed on all the same (invariant 15).
    pub fn of_bytes(body: &[u8]) -> Self {
        Body::decode(body).map_or_else(|_| Self { opaque: true, ..Self::default() }, |body| Self::of(&body))
    }

    pub fn of(body: &Body) -> Self {
        match body {
            Body::Points(batch) => Self::of_batch(batch),
            Body::Unknown(_) => Self { opaque: true, ..Self::default() },
        }
    }

    fn of_batch(batch: &Batch) -> Self {
        let mut series = Vec::with_capacity(batch.series.len());
        for (name, points) in &batch.series {
            let times = || points.iter().map(|(t, _)| *t);
            if let (Some(min), Some(max)) = (times().min(), times().max()) {
                series.push((name.clone(), min, max, points.len() as u64));
            }
        }
        let origin = batch.origin.map(|o| (o.device, o.epoch, o.first_seq, o.count));
        Self { series, origin, points: batch.points() as u64, opaque: false }
    }
}

/// One record as the index takes it in.
#[derive(Debug)]
pub(crate) struct Indexed {
    pub key: StreamKey,
    pub lsn: Lsn,
    pub chain: ChainHash,
    pub ordinal: u32,
    /// Offset of its frame in the file.
    pub offset: u64,
    pub bytes: u64,
    pub summary: Summary,
}

#[derive(Debug, Default)]
pub(crate) struct Index {
    pub files: Vec<LogFile>,
    pub streams: HashMap<StreamKey, StreamIndex>,
    pub sites: BTreeMap<SiteName, BTreeMap<Arc<Series>, SeriesRecords>>,
    pub devices: BTreeMap<DeviceId, BTreeMap<u32, SeqRanges>>,
    pub records: u64,
    pub points: u64,
    pub opaque: u64,
    /// Bytes of log files before the last.
    closed_bytes: u64,
}

impl Index {
    pub fn head(&self) -> u64 {
        self.files.last().map_or(0, |file| file.last)
    }

    pub fn log_bytes(&self) -> u64 {
        self.closed_bytes + self.files.last().map_or(0, |file| file.end)
    }

    /// Whether one of the node's streams in `run` has no number left. No honest log comes there, a forged one does at once.
    pub fn is_full(&self, node: NodeId, run: Run) -> bool {
        let mut of_run =
            self.streams.values().filter(|held| held.stream.node == node && held.stream.run == run);
        of_run.any(|held| held.top().0.next().is_none())
    }

    pub fn push_file(&mut self, file: LogFile) {
        self.closed_bytes = self.log_bytes();
        self.files.push(file);
    }

    /// Notes a stretch of the last file that holds no frames.
    pub fn rot(&mut self, from: u64, to: u64) {
        if let Some(file) = self.files.last_mut() {
            file.rot.push((from, to));
        }
    }

    /// Notes a good frame that is not served, so that no walk meets it.
    pub fn set_apart(&mut self, position: u64, offset: u64, bytes: u64) {
        let file = self.file_at(position).and_then(|at| self.files.get_mut(at));
        if let Some(rot) = file.map(|file| &mut file.rot) {
            let at = rot.partition_point(|(from, _)| *from < offset);
            rot.insert(at, (offset, offset + bytes));
        }
    }

    /// Ends the last file at `end`.
    pub fn cut_last(&mut self, end: u64) {
        if let Some(file) = self.files.last_mut() {
            file.end = end;
        }
    }

    /// Forgets the last file if it holds no record; its name.
    pub fn pop_empty_last(&mut self) -> Option<Arc<str>> {
        let empty = self.files.pop_if(|file| file.last < file.first)?;
        self.closed_bytes -= self.files.last().map_or(0, |file| file.end);
        Some(empty.name)
    }

    pub fn declare(&mut self, key: StreamKey, stream: &StreamId) {
        self.streams.entry(key).or_insert_with(|| StreamIndex::new(stream.clone()));
    }

    /// Where an offset in the last file lies in the whole log, in bytes.
    pub fn log_byte(&self, offset: u64) -> u64 {
        self.closed_bytes + offset
    }

    /// Moves the last file's end over a record frame without taking it in; its position.
    pub fn pass(&mut self, ordinal: u32, offset: u64, bytes: u64) -> u64 {
        let Some(file) = self.files.last_mut() else { return 0 };
        let position = file.first + u64::from(ordinal);
        file.mark(ordinal, offset);
        file.last = file.last.max(position);
        file.end = file.end.max(offset + bytes);
        position
    }

    /// Takes in a record of the last file whose stream is declared. `false` when it cannot be used.
    pub fn add(&mut self, record: Indexed) -> bool {
        let position = self.pass(record.ordinal, record.offset, record.bytes);
        self.add_at(position, self.log_byte(record.offset), record)
    }

    /// Takes in a record whose place in its file is known already.
    pub fn add_at(&mut self, position: u64, log_byte: u64, record: Indexed) -> bool {
        let Some(stream) = self.streams.get_mut(&record.key) else { return false };
        if !stream.add(record.lsn, record.chain, position, log_byte) {
            return false;
        }
        self.records += 1;
        self.points += record.summary.points;
        self.opaque += u64::from(record.summary.opaque);
        if let Some((device, epoch, first, count)) = record.summary.origin {
            let last = first.saturating_add(u64::from(count).saturating_sub(1));
            if count > 0 {
                self.devices.entry(device).or_default().entry(epoch).or_default().insert(first, last);
            }
        }
        let site = stream.stream.site.clone();
        let by_series = self.sites.entry(site).or_default();
        for (series, min, max, points) in record.summary.series {
            if let Some(records) = by_series.get_mut(&series) {
                records.push(position, min, max, points);
            } else {
                let mut records = SeriesRecords::default();
                records.push(position, min, max, points);
                by_series.insert(Arc::new(series), records);
            }
        }
        true
    }

    /// The file that holds `position` or the first position after it.
    pub fn file_at(&self, position: u64) -> Option<usize> {
        let at = self.files.partition_point(|file| file.last < position);
        (at < self.files.len()).then_some(at)
    }
}
