//! What is where, in memory: log files, streams and what is held of each, which sensor's samples are held. Rebuilt from
//! segments' footers and the log when the store opens. The series by name are the catalogue's.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tidelog_record::{
    BodyReader, Boot, ChainHash, DeviceId, Entry, Lsn, NodeId, Opened, Origin, Run, Seal, SiteName, StreamId,
    StreamKey,
};

use crate::disk::DiskFile;
use crate::gap::{Gap, GapReason};
use crate::newest::Newest;
use crate::ranges::SeqRanges;
use crate::stream::{MARK_EVERY_BYTES, StreamIndex};
use crate::table::{Arrival, TableBounds};

/// The last number that a node gives a record of its own before it begins a new run. No honest log comes there, a forged one
/// does at once; half of all numbers are kept for what comes between two starts.
const OWN_LSN_MAX: u64 = u64::MAX / 2;

/// One log file, or the map of one whose records are all sealed.
#[derive(Debug)]
pub(crate) struct LogFile {
    pub name: Arc<str>,
    pub file: Arc<dyn DiskFile>,
    /// The records are in segments; the file is the map.
    pub trimmed: bool,
    pub salt: u64,
    /// Position of its first record.
    pub first: u64,
    /// Position of its last record, `first - 1` when it has none.
    pub last: u64,
    /// Where its good bytes end.
    pub end: u64,
    /// `(ordinal, offset)` of some frames at which a walk may begin, ascending.
    marks: Vec<(u32, u32)>,
    /// Ranges `[from, to)` that are not frames, ascending.
    pub rot: Vec<(u64, u64)>,
}

impl LogFile {
    pub fn new(name: Arc<str>, file: Arc<dyn DiskFile>, salt: u64, first: u64, end: u64) -> Self {
        let (marks, rot) = (Vec::new(), Vec::new());
        Self { name, file, trimmed: false, salt, first, last: first - 1, end, marks, rot }
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

    /// Puts the map in place of the file.
    pub fn trim(&mut self, name: Arc<str>, map: Arc<dyn DiskFile>, bytes: u64) {
        (self.name, self.file, self.end, self.trimmed) = (name, map, bytes, true);
        self.marks = Vec::new();
        self.rot = Vec::new();
    }
}

/// A body as it is taken in. Bytes that are no body are kept and passed on all the same (invariant 15).
#[allow(clippy::large_enum_variant, reason = "it stands on the stack for as long as one record is taken in")]
pub(crate) enum Taken<'a> {
    Points(BodyReader<'a>),
    Seal(Seal),
    Boot,
    Opaque,
}

impl<'a> Taken<'a> {
    pub fn of(body: &'a [u8]) -> Self {
        match BodyReader::open(body) {
            Ok(Opened::Points(reader)) => Self::Points(reader),
            Ok(Opened::Unknown(_)) => match Seal::of_body(body) {
                Ok(Some(seal)) => Self::Seal(seal),
                Ok(None) if matches!(Boot::of_body(body), Ok(Some(_))) => Self::Boot,
                _ => Self::Opaque,
            },
            Err(_) => Self::Opaque,
        }
    }
}

/// One record as the index takes it in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Indexed {
    pub key: StreamKey,
    pub lsn: Lsn,
    pub chain: ChainHash,
    pub ordinal: u32,
    /// Offset of its frame in the file.
    pub offset: u64,
    pub bytes: u64,
    /// A walk may begin at it.
    pub anew: bool,
    /// Writing its points again is known to give its body.
    pub is_canonical: bool,
}

/// A series that was met for the first time since its stream was last sealed.
pub(crate) type Met = (SiteName, Arc<[u8]>);

/// What taking in needs beside the record: room to decode in, and where to put the series that it meets.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    pub entry: Entry,
    pub met: Vec<Met>,
}

#[derive(Debug)]
pub(crate) struct Index {
    pub files: Vec<LogFile>,
    pub streams: HashMap<StreamKey, StreamIndex>,
    /// The streams of each site.
    pub sites: BTreeMap<SiteName, Vec<StreamKey>>,
    pub devices: BTreeMap<DeviceId, BTreeMap<u32, SeqRanges>>,
    /// The time before which nothing of a site is shown, ns.
    horizons: BTreeMap<SiteName, i64>,
    /// Newest points that were asked for.
    pub newest: Newest,
    pub opaque: u64,
    pub bounds: TableBounds,
    /// Bytes that were ever in log files before the last.
    passed_bytes: u64,
}

impl Index {
    pub fn new(bounds: TableBounds, newest_series_max: usize) -> Self {
        Self {
            files: Vec::new(),
            streams: HashMap::new(),
            sites: BTreeMap::new(),
            devices: BTreeMap::new(),
            horizons: BTreeMap::new(),
            newest: Newest::new(newest_series_max),
            opaque: 0,
            bounds,
            passed_bytes: 0,
        }
    }

    pub fn head(&self) -> u64 {
        self.files.last().map_or(0, |file| file.last)
    }

    pub fn log_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.end).sum()
    }

    /// Bytes of the log files that begin behind a position.
    pub fn log_behind(&self, position: u64) -> u64 {
        self.files.iter().rev().take_while(|file| file.first > position).map(|file| file.end).sum()
    }

    /// Whether one of the node's streams in `run` is beyond [`OWN_LSN_MAX`].
    pub fn is_full(&self, node: NodeId, run: Run) -> bool {
        self.of_run(node, run).any(|held| held.top().0.0 > OWN_LSN_MAX)
    }

    /// The first run from `drawn` on in which the node has written nothing, as far as is known here.
    pub fn unused_run(&self, node: NodeId, drawn: Run) -> Run {
        let mut run = drawn;
        while self.of_run(node, run).next().is_some() {
            run = Run(run.0.wrapping_add(1));
        }
        run
    }

    /// The streams of a site, in the order in which they were first met.
    pub fn of_site(&self, site: &SiteName) -> impl Iterator<Item = &StreamIndex> {
        self.sites.get(site).into_iter().flatten().filter_map(|key| self.streams.get(key))
    }

    /// All streams, site by site: the order in which upkeep goes through them, so that equal histories make equal logs.
    pub fn in_order(&self) -> impl Iterator<Item = &StreamIndex> {
        self.sites.values().flatten().filter_map(|key| self.streams.get(key))
    }

    fn of_run(&self, node: NodeId, run: Run) -> impl Iterator<Item = &StreamIndex> {
        self.in_order().filter(move |held| held.stream.node == node && held.stream.run == run)
    }

    pub fn push_file(&mut self, file: LogFile) {
        self.passed_bytes += self.files.last().map_or(0, |file| file.end);
        self.files.push(file);
    }

    /// Notes a stretch of the last file that holds no frames, or none that can be read.
    pub fn rot(&mut self, from: u64, to: u64) {
        let Some(file) = self.files.last_mut() else { return };
        match file.rot.last_mut() {
            Some(last) if last.1 == from => last.1 = to,
            _ => file.rot.push((from, to)),
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

    /// Forgets the last file if it is a log file that holds no record; its name.
    pub fn pop_empty_last(&mut self) -> Option<Arc<str>> {
        self.files.pop_if(|file| file.last < file.first && !file.trimmed).map(|file| file.name)
    }

    pub fn declare(&mut self, key: StreamKey, stream: &StreamId) -> &mut StreamIndex {
        let sites = &mut self.sites;
        self.streams.entry(key).or_insert_with(|| {
            sites.entry(stream.site.clone()).or_default().push(key);
            StreamIndex::new(stream.clone())
        })
    }

    /// Where an offset in the last file lies in all that was ever written, in bytes.
    pub fn log_byte(&self, offset: u64) -> u64 {
        self.passed_bytes + offset
    }

    /// Moves the last file's end over a record frame without taking it in; its position.
    pub fn pass(&mut self, record: &Indexed) -> u64 {
        let Some(file) = self.files.last_mut() else { return 0 };
        let position = file.first + u64::from(record.ordinal);
        if record.anew {
            file.mark(record.ordinal, record.offset);
        }
        file.last = file.last.max(position);
        file.end = file.end.max(record.offset + record.bytes);
        position
    }

    /// Takes in a record of the last file whose stream is declared. `false` when it cannot be used.
    pub fn add(&mut self, record: &Indexed, body: &[u8], intake: &mut Intake) -> bool {
        let position = self.pass(record);
        self.add_at(position, self.log_byte(record.offset), record, body, intake)
    }

    /// Takes in a record whose place in its file is known already.
    pub fn add_at(
        &mut self,
        position: u64,
        log_byte: u64,
        record: &Indexed,
        body: &[u8],
        intake: &mut Intake,
    ) -> bool {
        let Some(stream) = self.streams.get_mut(&record.key) else { return false };
        // What policy dropped may stand in the log for a while.
        let is_gone = stream.gap_of(record.lsn).is_some_and(Gap::by_policy);
        let is_sealed = is_gone || stream.sealed_of(record.lsn).is_some();
        if !stream.add(record.lsn, record.chain, position, log_byte) {
            return false;
        }
        if !is_sealed {
            self.take_in(record, body, intake);
        }
        true
    }

    /// Takes the content of a record that no segment holds into its stream's tables.
    fn take_in(&mut self, record: &Indexed, body: &[u8], intake: &mut Intake) {
        let Indexed { key, lsn, chain, is_canonical, .. } = *record;
        let Some(stream) = self.streams.get_mut(&key) else { return };
        let site = stream.stream.site.clone();
        let points = match Taken::of(body) {
            Taken::Points(reader) => {
                if let Some(origin) = reader.origin() {
                    note_origin(&mut self.devices, &origin);
                }
                Some(reader)
            }
            Taken::Seal(seal) => {
                stream.note_seal(lsn, seal);
                None
            }
            Taken::Boot => None,
            Taken::Opaque => {
                self.opaque += 1;
                None
            }
        };
        let met = &mut intake.met;
        let mut found = |canonical: &Arc<[u8]>| met.push((site.clone(), Arc::clone(canonical)));
        let arrival = Arrival { lsn, chain, body, points, is_canonical };
        stream.tables.take_in(arrival, self.bounds, &mut intake.entry, &mut found);
    }

    /// Takes in a gap, in place of the segment that was there.
    pub fn dig(&mut self, key: &StreamKey, gap: Gap) {
        if let Some(stream) = self.streams.get_mut(key) {
            stream.dig(gap);
            self.newest.forget(&stream.stream.site);
        }
    }

    /// Moves a site's horizon on to where its gaps ask for it. What policy drops takes everything older of its site along, so
    /// that an answer does not depend on which stream a point came in. But a segment that is newer at its end than one which is left
    /// was dropped for its beginning: its clock ran ahead, and what is shown must not end with it.
    pub fn raise_horizon_to_gaps(&mut self, site: &SiteName) {
        let left =
            self.of_site(site).flat_map(|stream| &stream.sealed).map(|sealed| sealed.segment.time_range().1);
        let left = left.min();
        let asked = self.of_site(site).flat_map(|stream| &stream.gaps).filter_map(|gap| {
            let (oldest, newest) = gap.time_ns;
            match gap.reason {
                // What peers dropped never was shown here, and says nothing of what is kept here.
                GapReason::Rotten | GapReason::NeverHeld => None,
                GapReason::Age => Some(newest.saturating_add(1)),
                GapReason::Bytes | GapReason::Pressure => Some(if left.is_some_and(|left| newest < left) {
                    newest.saturating_add(1)
                } else {
                    oldest
                }),
            }
        });
        if let Some(horizon) = asked.max() {
            self.raise_horizon(site, horizon);
        }
    }

    /// The time before which nothing of a site is shown, ns.
    pub fn horizon(&self, site: &SiteName) -> Option<i64> {
        self.horizons.get(site).copied()
    }

    /// Moves a site's horizon on; never back.
    pub fn raise_horizon(&mut self, site: &SiteName, horizon: i64) {
        let at = self.horizons.entry(site.clone()).or_insert(horizon);
        *at = (*at).max(horizon);
    }

    /// The file that holds `position` or the first position after it.
    pub fn file_at(&self, position: u64) -> Option<usize> {
        let at = self.files.partition_point(|file| file.last < position);
        (at < self.files.len()).then_some(at)
    }
}

fn note_origin(devices: &mut BTreeMap<DeviceId, BTreeMap<u32, SeqRanges>>, origin: &Origin) {
    let last = origin.first_seq.saturating_add(u64::from(origin.count).saturating_sub(1));
    if origin.count > 0 {
        let ranges = devices.entry(origin.device).or_default().entry(origin.epoch).or_default();
        ranges.insert(origin.first_seq, last);
    }
}
