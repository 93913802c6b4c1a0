//! Sealing: an author makes a segment of what it wrote and says so in its stream; everyone else makes the same segment and
//! compares (invariant 4). The file is whole before the seal is written, and the seal is durable before the segment is used.

use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use tidelog_record::{ChainHash, Lsn, Seal, StreamId, StreamKey, Values};

use super::{Keeper, UpkeepError, io};
use crate::disk::{DiskFile, OpenMode};
use crate::index::Index;
use crate::sealed::{GAP_SUFFIX, NEW_SUFFIX, SEGMENT_DIR, Sealed, range_name, segment_name};
use crate::segment::{self, SealError, Sealed as Made, Segment, Span};
use crate::shared::{Urgency, read_locked, write_locked};
use crate::stream::StreamIndex;
use crate::table::Table;
use crate::writer::Job;

/// Bodies that are read at once to be sealed, in bytes.
const READ_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a segment that are written at once.
const WRITE_BYTES: usize = 256 * 1024;

/// Log that few points hold back, in bytes, so that an idle node packs them.
const HELD_BYTES_MIN: u64 = 1024 * 1024;

/// An idle node seals when it has this part of what it would otherwise wait for: less packs badly, and is sealed when it has
/// waited long enough.
const IDLE_PART: u64 = 4;

/// What an author is about to seal.
struct Due {
    stream: StreamId,
    first: Lsn,
    last: Lsn,
    ordinal: u64,
    /// The log begins a file with the seal, so that all before it can go.
    begin_file: bool,
}

impl Keeper {
    /// Seals what is due of this node's own streams. `false` when nothing is.
    pub(super) fn seal_own(&mut self, now: Instant, is_idle: bool) -> Result<bool, UpkeepError> {
        let Some(due) = self.due(now, is_idle) else { return Ok(false) };
        let (before, after) =
            (self.chain(&due.stream, Lsn(due.first.0 - 1))?, self.chain(&due.stream, due.last)?);
        let Due { stream, first, last, ordinal, begin_file } = due;
        let span = Span { stream: stream.clone(), ordinal, parts: 1, first, last, before, after };
        let key = stream.key();
        let made = self.make(&key, first, last, |out| self.seal_records(&span, out))?;
        let seal = Seal { first, last, ordinal, parts: 1, hash: made.hash };
        self.announce(&stream, &seal, begin_file)?;
        self.install(&stream, seal, before, after)?;
        self.shared.upkeep.counters.sealed(made.bytes);
        tracing::debug!(%stream, first = first.0, last = last.0, points = made.points, bytes = made.bytes, "sealed");
        Ok(true)
    }

    fn due(&self, now: Instant, is_idle: bool) -> Option<Due> {
        let shared = &self.shared;
        let run = shared.run();
        let index = read_locked(&shared.index);
        let is_long = self.is_long(&index);
        for stream in index.in_order() {
            let is_own = stream.stream.node == shared.node && stream.stream.run == run;
            if !is_own || !stream.seals.is_empty() {
                continue;
            }
            let Some(first) = stream.sealed_upto().next() else { continue };
            let oldest = stream.tables.oldest().filter(|table| table.points > 0);
            let (last, begin_file) = if let Some(table) = stream.tables.full() {
                (table.last, false)
            } else if let Some(table) = oldest {
                let enough = self.options.seal_points.div_ceil(IDLE_PART);
                // A few points are worth a segment if they are all that holds a log file.
                let written = index.files.last().map_or(0, |file| file.end);
                let holds = written >= table.bytes.saturating_add(HELD_BYTES_MIN);
                let waited = now.saturating_duration_since(table.begun) >= self.options.seal_after;
                if !(waited || (is_idle && (table.points >= enough || holds))) {
                    continue;
                }
                (table.last, is_idle)
            } else if is_long && holds_log(&index, stream, first) {
                (stream.upto, is_idle)
            } else {
                continue;
            };
            if last < first || last > stream.upto {
                continue;
            }
            let ordinal = stream.ordinal_next();
            return Some(Due { stream: stream.stream.clone(), first, last, ordinal, begin_file });
        }
        None
    }

    /// Packs what nobody will seal: streams of authors that are gone, and of earlier runs of this node. `false` when there is none.
    pub(super) fn seal_abandoned(&mut self, now: Instant) -> Result<bool, UpkeepError> {
        let run = self.shared.run();
        let due = {
            let index = read_locked(&self.shared.index);
            let is_long = self.is_long(&index);
            index.in_order().find_map(|stream| {
                let is_own = stream.stream.node == self.shared.node;
                if (is_own && stream.stream.run == run) || !stream.seals.is_empty() {
                    return None;
                }
                let first = stream.sealed_upto().next()?;
                let (last, waited) = if let Some(table) = stream.tables.oldest() {
                    let waited =
                        now.saturating_duration_since(table.begun) >= self.options.seal_abandoned_after;
                    // Another author may come back and seal; nobody goes back to an earlier run of this node.
                    (table.last.min(stream.upto), waited || (is_own && is_long))
                } else {
                    (stream.upto, is_long && holds_log(&index, stream, first))
                };
                let is_due = waited && first <= last && stream.held_through(first, last);
                is_due.then(|| (stream.stream.clone(), first, last, stream.ordinal_next()))
            })
        };
        let Some((stream, first, last, ordinal)) = due else { return Ok(false) };
        self.pack_alone(&stream, first, last, ordinal)?;
        tracing::info!(%stream, first = first.0, last = last.0, "packed what its author left unsealed");
        Ok(true)
    }

    /// Makes the segments that other authors' seals speak of, or this node's own from before a crash.
    pub(super) fn follow_seals(&mut self) -> Result<(), UpkeepError> {
        loop {
            let due = {
                let index = read_locked(&self.shared.index);
                index.in_order().find_map(|stream| {
                    let seal =
                        stream.seals.values().find(|seal| stream.held_through(seal.first, seal.last))?;
                    Some((stream.stream.clone(), *seal))
                })
            };
            let Some((stream, seal)) = due else { return Ok(()) };
            self.follow_seal(&stream, seal)?;
            if self.shared.upkeep.is_closed() {
                return Ok(());
            }
        }
    }

    /// Makes the segment of a seal and installs it if it has the hash that its author named. What disagrees stays in the log.
    pub(super) fn follow_seal(&mut self, stream: &StreamId, seal: Seal) -> Result<bool, UpkeepError> {
        if !self.fits(stream, &seal) {
            return Ok(false);
        }
        let (before, after) = (self.chain(stream, Lsn(seal.first.0 - 1))?, self.chain(stream, seal.last)?);
        let (key, Seal { first, last, ordinal, parts, hash }) = (stream.key(), seal);
        let span = Span { stream: stream.clone(), ordinal, parts, first, last, before, after };
        if !self.has_memory_for_records(&key, &seal) {
            self.pack_in_pieces(stream, last)?;
        }
        let merged = self.tiles(&key, first, last);
        if let Some(tiles) = &merged
            && !self.has_memory_for_series(tiles)
        {
            self.forget_seal(&key, &seal);
            tracing::debug!(%stream, first = first.0, last = last.0, "more than this node's memory merges: it stays in pieces");
            return Ok(false);
        }
        let made = self.make(&key, first, last, |out| match &merged {
            Some(tiles) => self.merge_tiles(&span, tiles, out),
            None => self.seal_records(&span, out),
        })?;
        if made.hash != hash {
            self.shared.upkeep.counters.disagreed.fetch_add(1, Ordering::Relaxed);
            tracing::error!(%stream, first = first.0, last = last.0,
                "the segment made here is not the one its author made: the records stay in the log");
            self.forget_seal(&key, &seal);
            let dir = self.shared.dir.join(SEGMENT_DIR);
            let name = range_name(&key, first, last, NEW_SUFFIX);
            self.shared.disk.remove(&dir.join(name)).map_err(io("remove a segment"))?;
            return Ok(false);
        }
        self.install(stream, seal, before, after)?;
        let counters = &self.shared.upkeep.counters;
        if merged.is_some() {
            counters.merged.fetch_add(1, Ordering::Relaxed);
        } else {
            counters.sealed(made.bytes);
        }
        Ok(true)
    }

    fn forget_seal(&self, key: &StreamKey, seal: &Seal) {
        if let Some(stream) = write_locked(&self.shared.index).streams.get_mut(key) {
            stream.seals.remove(&(seal.first.0, seal.parts));
        }
    }

    /// Whether what of a seal's range no segment holds can be sealed at once within the memory that this node has for that.
    fn has_memory_for_records(&self, key: &StreamKey, seal: &Seal) -> bool {
        let index = read_locked(&self.shared.index);
        let tables = index.streams.get(key).into_iter().flat_map(|held| held.tables.iter());
        let inside = tables.filter(|table| table.first <= seal.last);
        let sum = |(points, bytes, longest), table: &Table| {
            (points + table.points, bytes + table.memory_bytes, longest + table.longest)
        };
        let (points, bytes, longest) = inside.fold((0, 0, 0), sum);
        let options = &self.options;
        points <= options.seal_points.saturating_mul(2).max(options.points_in_memory_max)
            && bytes <= options.seal_bytes_max.saturating_mul(2)
            && (points <= options.points_in_memory_max
                || longest <= options.points_in_memory_max.saturating_mul(2))
    }

    /// Whether each series of these segments can be merged within the memory that this node has for that.
    pub(super) fn has_memory_for_series(&self, tiles: &[Arc<Sealed>]) -> bool {
        let points = tiles.iter().map(|tile| tile.segment.points()).sum::<u64>();
        // What cannot be read is found by merging, which sets it apart.
        let longest =
            || tiles.iter().map(|tile| tile.counts().map_or(0, |counts| counts.longest)).sum::<u64>();
        points <= self.options.points_in_memory_max || longest() <= self.options.points_in_memory_max
    }

    /// Packs a stream's records up to `last` in segments as small as this node's memory, which can be merged one series at a time.
    fn pack_in_pieces(&self, stream: &StreamId, last: Lsn) -> Result<(), UpkeepError> {
        let key = stream.key();
        while !self.shared.upkeep.is_closed() {
            let piece = {
                let index = read_locked(&self.shared.index);
                index.streams.get(&key).and_then(|held| {
                    let first = held.sealed_upto().next()?;
                    let to = held.tables.oldest()?.last.min(last);
                    (first <= to && held.held_through(first, to)).then(|| (first, to, held.ordinal_next()))
                })
            };
            let Some((first, to, ordinal)) = piece else { return Ok(()) };
            self.pack_alone(stream, first, to, ordinal)?;
        }
        Ok(())
    }

    /// Makes a segment that no author has sealed.
    fn pack_alone(&self, stream: &StreamId, first: Lsn, last: Lsn, ordinal: u64) -> Result<(), UpkeepError> {
        let (before, after) = (self.chain(stream, Lsn(first.0 - 1))?, self.chain(stream, last)?);
        let span = Span { stream: stream.clone(), ordinal, parts: 1, first, last, before, after };
        let made = self.make(&stream.key(), first, last, |out| self.seal_records(&span, out))?;
        let seal = Seal { first, last, ordinal, parts: 1, hash: made.hash };
        self.install(stream, seal, before, after)?;
        self.shared.upkeep.counters.sealed(made.bytes);
        Ok(())
    }

    /// Whether a seal covers whole segments. One that divides what this node packed by itself is passed over: a later one of its
    /// author covers both.
    fn fits(&self, stream: &StreamId, seal: &Seal) -> bool {
        let mut index = write_locked(&self.shared.index);
        let Some(held) = index.streams.get_mut(&stream.key()) else { return false };
        let divides = |s: &Arc<Sealed>| {
            let touches = s.seal.first <= seal.last && s.seal.last >= seal.first;
            touches && (s.seal.first < seal.first || s.seal.last > seal.last)
        };
        let fits = !held.sealed.iter().any(divides);
        if !fits {
            held.seals.remove(&(seal.first.0, seal.parts));
        }
        fits
    }

    /// The segments that make up a range exactly, if there are at least two.
    pub(super) fn tiles(&self, key: &StreamKey, first: Lsn, last: Lsn) -> Option<Vec<Arc<Sealed>>> {
        let index = read_locked(&self.shared.index);
        let stream = index.streams.get(key)?;
        let inside = |s: &&Arc<Sealed>| s.seal.first >= first && s.seal.last <= last;
        let tiles: Vec<_> = stream.sealed.iter().filter(inside).cloned().collect();
        let touch = |pair: &[Arc<Sealed>]| matches!(pair, [a, b] if a.seal.last.next() == Some(b.seal.first));
        let whole = tiles.first()?.seal.first == first && tiles.last()?.seal.last == last;
        (tiles.len() > 1 && whole && tiles.windows(2).all(touch)).then_some(tiles)
    }

    pub(super) fn chain(&self, stream: &StreamId, lsn: Lsn) -> Result<ChainHash, UpkeepError> {
        let chain = self.shared.chain_of(stream, lsn)?;
        chain.ok_or_else(|| UpkeepError::NotHeld { stream: stream.clone(), lsn })
    }

    /// Makes a segment from the table that holds just its records, if there is one, and otherwise from the records, read again.
    fn seal_records(
        &self,
        span: &Span,
        out: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<Made, UpkeepError> {
        let table = write_locked(&self.shared.index)
            .streams
            .get_mut(&span.stream.key())
            .and_then(|held| held.tables.close(span.first, span.last));
        let Some(table) = table else { return self.seal_from_records(span, out) };
        let Some(records) = table.records() else {
            drop(table);
            return self.seal_from_records(span, out);
        };
        let columns = table.columns();
        let names: Vec<&[u8]> = columns.iter().map(|column| &*column.canonical).collect();
        let mut unpack = |at: usize, times: &mut Vec<i64>, values: &mut Values| {
            if let Some(column) = columns.get(at) {
                column.unpack(times, values);
            }
        };
        Ok(segment::seal_columns(span, &names, records, &mut unpack, out)?)
    }

    fn seal_from_records(
        &self,
        span: &Span,
        out: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<Made, UpkeepError> {
        let mut read = Vec::new().into_iter();
        let mut at = Lsn(span.first.0 - 1);
        let mut next = || {
            if at == span.last {
                return Ok(None);
            }
            if read.len() == 0 {
                read = self.shared.read(&span.stream, at, READ_BYTES_MAX)?.into_iter();
            }
            let record = read.next().ok_or(SealError::Span("a record of it is gone"))?;
            at = record.lsn;
            Ok(Some(record.body))
        };
        Ok(segment::seal(span, &mut next, out)?)
    }

    /// Merges segments; what of them cannot be read is condemned, so that the next round does not meet it again.
    pub(super) fn merge_tiles(
        &self,
        span: &Span,
        tiles: &[Arc<Sealed>],
        out: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<Made, UpkeepError> {
        let parts: Vec<Arc<Segment>> = tiles.iter().map(|tile| Arc::clone(&tile.segment)).collect();
        let made = segment::merge_as(span, &parts, out);
        if let Err(SealError::Part(_)) = &made {
            for tile in tiles {
                if self.shared.check(tile, &mut |_| ControlFlow::Continue(())).is_break() {
                    break;
                }
            }
        }
        Ok(made?)
    }

    /// Writes a segment beside its name and makes it durable there.
    pub(super) fn make(
        &self,
        key: &StreamKey,
        first: Lsn,
        last: Lsn,
        fill: impl FnOnce(&mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<Made, UpkeepError>,
    ) -> Result<Made, UpkeepError> {
        let dir = self.shared.dir.join(SEGMENT_DIR);
        let path = dir.join(range_name(key, first, last, NEW_SUFFIX));
        let file = self.shared.disk.open(&path, OpenMode::Create).map_err(io("begin a segment"))?;
        let mut out = Appender { file: file.as_ref(), offset: 0, buffer: Vec::with_capacity(WRITE_BYTES) };
        let made = fill(&mut |bytes| {
            // What is begun is made again at the next start; closing must not wait for it.
            if self.shared.upkeep.is_closed() {
                Err(io::ErrorKind::Interrupted.into())
            } else {
                out.push(bytes)
            }
        })?;
        out.flush().map_err(io("write a segment"))?;
        file.sync_data().map_err(io("sync a segment"))?;
        self.shared.upkeep.counters.segment_bytes_written.fetch_add(made.bytes, Ordering::Relaxed);
        Ok(made)
    }

    /// Appends a seal to this node's own stream and waits until it is durable.
    pub(super) fn announce(
        &self,
        stream: &StreamId,
        seal: &Seal,
        begin_file: bool,
    ) -> Result<(), UpkeepError> {
        let (answer, answered) = mpsc::sync_channel(1);
        // The receiver outlives the answer: it is waited for below.
        let done = Box::new(move |result| drop(answer.send(result)));
        // Another run may begin before the writer comes to it, and a seal means nothing in another stream.
        let (site, run) = (stream.site.clone(), Some(stream.run));
        let job = Job::Append { site, body: seal.encode(), run, begin_file, done };
        self.shared.enqueue(job, Urgency::Upkeep);
        answered.recv().unwrap_or(Err(crate::errors::AppendError::Closed))?;
        Ok(())
    }

    /// Gives a segment its name and puts it in the place of what it covers.
    pub(super) fn install(
        &self,
        stream: &StreamId,
        seal: Seal,
        before: ChainHash,
        after: ChainHash,
    ) -> Result<(), UpkeepError> {
        let shared = &self.shared;
        let (key, dir) = (stream.key(), shared.dir.join(SEGMENT_DIR));
        // From now on the log need not be read for what is sealed, so the series in it must be known without.
        shared.state.flush()?;
        let name = segment_name(&key, &seal);
        let path = dir.join(&name);
        let new = dir.join(range_name(&key, seal.first, seal.last, NEW_SUFFIX));
        shared.disk.rename(&new, &path).map_err(io("name a segment"))?;
        shared.disk.sync_dir(&dir).map_err(io("sync the segments' folder"))?;
        let file = shared.disk.open(&path, OpenMode::Read).map_err(io("open a segment"))?;
        let opened = Segment::open(file, Arc::clone(&shared.cache));
        let segment = Arc::new(opened?);
        let sealed = Arc::new(Sealed::new(Arc::clone(&segment), seal, before, after, name.clone()));
        let (covered, healed, open_tables) = {
            let mut index = write_locked(&shared.index);
            let Some(held) = index.streams.get_mut(&key) else { return Ok(()) };
            let inside =
                |s: &&Arc<Sealed>| s.seal.first >= seal.first && s.seal.last <= seal.last && s.name != name;
            let covered: Vec<String> = held.sealed.iter().filter(inside).map(|s| s.name.clone()).collect();
            let healed: Vec<String> = held
                .gaps
                .iter()
                .filter(|gap| gap.seal.first >= seal.first && gap.seal.last <= seal.last)
                .map(|gap| range_name(&key, gap.seal.first, gap.seal.last, GAP_SUFFIX))
                .collect();
            held.install(sealed);
            let forgotten = held.forget_sealed();
            if healed.is_empty() {
                index.newest.sealed(&stream.site, (seal.first, seal.last), &forgotten);
            } else {
                // Of what is healed, the points were in no table.
                index.newest.forget(&stream.site);
            }
            let own = index
                .streams
                .values()
                .filter(|s| s.stream.node == shared.node && s.stream.run == shared.run());
            (covered, healed, own.map(|s| s.tables.len()).max().unwrap_or(0))
        };
        shared.let_go(open_tables);
        if covered.is_empty() && healed.is_empty() {
            return Ok(());
        }
        if !healed.is_empty() {
            // Whoever lost the catalogue as well could not enter them while it was rotten.
            let mut met = Vec::new();
            segment.each_series(|canonical, _, _| met.push((stream.site.clone(), Arc::from(canonical))))?;
            shared.enter_met(&mut met);
        }
        for name in covered.iter().chain(&healed) {
            shared.disk.remove(&dir.join(name)).map_err(io("remove what a segment covers"))?;
        }
        shared.disk.sync_dir(&dir).map_err(io("sync the segments' folder"))
    }
}

/// Whether what a stream has from `first` on, which is no points, keeps much of the log from being trimmed: its last seal, to which
/// another would add as little.
fn holds_log(index: &Index, stream: &StreamIndex, first: Lsn) -> bool {
    let behind = || stream.walk_from(first).map_or(0, |position| index.log_behind(position));
    first <= stream.upto && behind() >= HELD_BYTES_MIN
}

/// Writes one behind the other, in large pieces.
struct Appender<'a> {
    file: &'a dyn DiskFile,
    offset: u64,
    buffer: Vec<u8>,
}

impl Appender<'_> {
    fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.buffer.len() + bytes.len() > WRITE_BYTES {
            self.flush()?;
        }
        if bytes.len() >= WRITE_BYTES {
            self.file.write_all_at(bytes, self.offset)?;
            self.offset += bytes.len() as u64;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer, self.offset)?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}
