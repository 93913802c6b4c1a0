//! The store as its users see it: append, adopt, follow, read, scan, cursors. What is durable, chained and readable is
//! visible; nothing else is.

use std::fmt;
use std::ops::{ControlFlow, RangeInclusive};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use tidelog_record::{
    BATCH_BYTES_MAX, BodyReader, ChainHash, DeviceId, Entry, Lsn, NodeId, Opened, Record, Run, Series,
    SiteName, StreamId,
};

use crate::catalogue::{Catalogue, CatalogueError};
use crate::disk::{Disk, FileDisk, Lock};
use crate::errors::{AdoptError, AppendError, OpenError, ReadError, Recovery, StateError};
use crate::options::StoreOptions;
use crate::position::Position;
use crate::ranges::SeqRanges;
use crate::renewal::Renewal;
use crate::scan::{Points, ScanError, SeriesPoints};
use crate::shared::{Shared, Urgency, WriteState, locked, read_locked};
use crate::skip::Skip;
use crate::stream::{Held, StreamIndex};
use crate::upkeep::{Keeper, UpkeepError};
use crate::writer::{Adopted, Appended, Job};

/// Counts of what a store holds and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records that can be read.
    pub records: u64,
    /// Points in them, before repeats are counted once.
    pub points: u64,
    /// Records of a kind that this version does not understand, of those that no segment holds.
    pub opaque_records: u64,
    /// Points of records that no segment holds.
    pub open_points: u64,
    /// Series, over all sites.
    pub series: u64,
    /// Streams.
    pub streams: u64,
    /// Log files.
    pub files: u64,
    /// Bytes of log.
    pub log_bytes: u64,
    /// Segments.
    pub segments: u64,
    /// Bytes of segments.
    pub segment_bytes: u64,
    /// Stretches of rot in it.
    pub rot: u64,
    /// Reads that failed: the disk refused, or met rot that was not there when the store opened.
    pub failed_reads: u64,
    /// Commits since the store opened, each one sync.
    pub commits: u64,
    /// Bytes written to the log since the store opened.
    pub bytes_written: u64,
    /// Bytes of segments written since the store opened.
    pub segment_bytes_written: u64,
    /// Segments made from records since the store opened.
    pub segments_sealed: u64,
    /// Their bytes.
    pub sealed_bytes: u64,
    /// Segments made from segments since the store opened.
    pub segments_merged: u64,
    /// Seals of other authors that this node could not follow, since the store opened: its bytes differ from theirs.
    pub segments_disagreed: u64,
    /// Segments found rotten since the store opened.
    pub segments_rotten: u64,
    /// Segments that policy dropped since the store opened.
    pub segments_dropped: u64,
    /// Records in them.
    pub records_dropped: u64,
    /// Points in them.
    pub points_dropped: u64,
    /// Records that peers had dropped before they came here, ever.
    pub records_never_held: u64,
    /// Log files that went because segments hold their records, since the store opened.
    pub files_trimmed: u64,
    /// Rounds of upkeep that ended early since the store opened.
    pub upkeep_failures: u64,
    /// Bodies that wait for the writer, in bytes.
    pub queue_bytes: u64,
    /// Whether it takes writes.
    pub write_state: WriteState,
}

/// A node's store. Clones are the same store; the last one to go closes it.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

pub(crate) struct Inner {
    pub shared: Arc<Shared>,
    /// Where no thread does the upkeep.
    pub keeper: Mutex<Option<Keeper>>,
    pub threads: Mutex<Vec<JoinHandle<()>>>,
    pub lock: Mutex<Option<Lock>>,
    pub recovery: Recovery,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("node", &self.0.shared.node).field("head", &self.head()).finish()
    }
}

impl Store {
    /// Opens the store in `dir`, or makes one there.
    ///
    /// # Errors
    /// [`OpenError`]; rot and torn tails are none, they stand in the [`Recovery`].
    pub fn open(dir: &Path, options: StoreOptions) -> Result<(Self, Recovery), OpenError> {
        Self::open_on(Arc::new(FileDisk), dir, options)
    }

    /// Opens the store in `dir` of another disk. The state folder, if any, is on the operating system's.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_on(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: StoreOptions,
    ) -> Result<(Self, Recovery), OpenError> {
        let inner = crate::open::open(disk, dir, &options)?;
        let recovery = inner.recovery.clone();
        Ok((Self(Arc::new(inner)), recovery))
    }

    /// The node it belongs to.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.0.shared.node
    }

    /// The run in which this node writes.
    #[must_use]
    pub fn run(&self) -> Run {
        self.0.shared.run()
    }

    /// What opening found.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.0.recovery
    }

    /// Appends a body to this node's stream of a site. `done` is called once: on the writer's thread after it is durable, or
    /// at once when it is refused. It must not block, nor ask the store: whoever asks from then on sees what was appended, and waits for it.
    pub fn append(
        &self,
        site: &SiteName,
        body: Vec<u8>,
        done: impl FnOnce(Result<Appended, AppendError>) + Send + 'static,
    ) {
        match checked(&body) {
            Err(error) => done(Err(error)),
            Ok(()) => {
                let job = Job::Append {
                    site: site.clone(),
                    body,
                    run: None,
                    begin_file: false,
                    done: Box::new(done),
                };
                self.0.shared.enqueue(job, Urgency::Try);
            }
        }
    }

    /// Appends and waits until it is durable; waits for room in the queue too.
    ///
    /// # Errors
    /// [`AppendError`].
    pub fn append_blocking(&self, site: &SiteName, body: Vec<u8>) -> Result<Appended, AppendError> {
        checked(&body)?;
        let (answer, answered) = mpsc::sync_channel(1);
        // The receiver outlives the answer: it is waited for below.
        let done = Box::new(move |result| drop(answer.send(result)));
        let job = Job::Append { site: site.clone(), body, run: None, begin_file: false, done };
        self.0.shared.enqueue(job, Urgency::Wait);
        answered.recv().unwrap_or(Err(AppendError::Closed))
    }

    /// Stores other nodes' records: each stream's contiguous and in order. All of them, or none. Waits while the queue is full. `done` as
    /// for [`Store::append`].
    pub fn adopt(
        &self,
        records: Vec<Record>,
        done: impl FnOnce(Result<Adopted, AdoptError>) + Send + 'static,
    ) {
        let too_long = records.iter().map(|record| record.body.len()).find(|bytes| *bytes > BATCH_BYTES_MAX);
        if let Some(bytes) = too_long {
            return done(Err(AppendError::TooLong { bytes, most: BATCH_BYTES_MAX }.into()));
        }
        self.0.shared.enqueue(Job::Adopt { records, done: Box::new(done) }, Urgency::Wait);
    }

    /// Stores other nodes' records and waits until they are durable.
    ///
    /// # Errors
    /// [`AdoptError`].
    pub fn adopt_blocking(&self, records: Vec<Record>) -> Result<Adopted, AdoptError> {
        let (answer, answered) = mpsc::sync_channel(1);
        self.adopt(records, move |result| drop(answer.send(result)));
        answered.recv().unwrap_or(Err(AdoptError::Refused(AppendError::Closed)))
    }

    /// Goes on with a stream behind records that peers had dropped by policy before they came here: from `after`, the end of what is held,
    /// up to and with `to`, each with the chain hash there. A durable note stands in their place from then on: they count as dropped
    /// by policy, and are not taken any more. Where a piece is held behind what is missing, only that is passed over. In order with [`Store::adopt`]; `done` as there.
    pub fn skip(
        &self,
        stream: &StreamId,
        after: (Lsn, ChainHash),
        to: (Lsn, ChainHash),
        done: impl FnOnce(Result<(), AdoptError>) + Send + 'static,
    ) {
        let skip = Skip { stream: stream.clone(), after, to, done: Box::new(done) };
        self.0.shared.enqueue(Job::Skip(skip), Urgency::Wait);
    }

    /// As [`Store::skip`], and waits until the note is durable.
    ///
    /// # Errors
    /// [`AdoptError`]: nothing is passed over.
    pub fn skip_blocking(
        &self,
        stream: &StreamId,
        after: (Lsn, ChainHash),
        to: (Lsn, ChainHash),
    ) -> Result<(), AdoptError> {
        let (answer, answered) = mpsc::sync_channel(1);
        self.skip(stream, after, to, move |result| drop(answer.send(result)));
        answered.recv().unwrap_or(Err(AdoptError::Refused(AppendError::Closed)))
    }

    /// Of the records of a stream behind `after`: up to where there is none because policy dropped them, with the chain hash there. `None`
    /// when the next one is held, or nothing is known of it.
    #[must_use]
    pub fn dropped_behind(&self, stream: &StreamId, after: Lsn) -> Option<(Lsn, ChainHash)> {
        read_locked(&self.0.shared.index).streams.get(&stream.key())?.dropped_behind(after)
    }

    /// Ends the run `over` of this node and begins another, which `drawn`, random bits, names: peers hold more of its streams than is held
    /// here, or other bytes. What is appended after it goes on in new streams; nothing else changes. `done` is told the run, as for
    /// [`Store::append`]; when `over` is over already, the one that it is in.
    pub fn begin_run(
        &self,
        over: Run,
        drawn: u64,
        done: impl FnOnce(Result<Run, AppendError>) + Send + 'static,
    ) {
        let renewal = Renewal { over, drawn, done: Box::new(done) };
        self.0.shared.enqueue(Job::BeginRun(renewal), Urgency::Try);
    }

    /// As [`Store::begin_run`], and waits until it has begun.
    ///
    /// # Errors
    /// [`AppendError`]: the run goes on.
    pub fn begin_run_blocking(&self, over: Run, drawn: u64) -> Result<Run, AppendError> {
        let (answer, answered) = mpsc::sync_channel(1);
        self.begin_run(over, drawn, move |result| drop(answer.send(result)));
        answered.recv().unwrap_or(Err(AppendError::Closed))
    }

    /// The last durable position in this node's log.
    #[must_use]
    pub fn head(&self) -> Position {
        Position(read_locked(&self.0.shared.index).head())
    }

    /// Records behind `after` in order of arrival: at least one if there is one, then up to `bytes_max` of bodies.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn follow(&self, after: Position, bytes_max: usize) -> Result<Vec<(Position, Record)>, ReadError> {
        self.0.shared.follow(after, bytes_max)
    }

    /// For each stream, up to where everything is held, with the chain hash there (invariant 5). In order of stream.
    #[must_use]
    pub fn vector(&self) -> Vec<(StreamId, Lsn, ChainHash)> {
        let index = read_locked(&self.0.shared.index);
        let held = index.streams.values().map(|s| (s.stream.clone(), s.upto, s.chain));
        let mut vector: Vec<_> = held.collect();
        drop(index);
        vector.sort_unstable();
        vector
    }

    /// What [`Store::vector`] says, and of each stream with a gap that rot left the lowest ranges above it, at most so many. In order of stream.
    #[must_use]
    pub fn held(&self, ranges_max: usize) -> Vec<Held> {
        let index = read_locked(&self.0.shared.index);
        let mut held: Vec<Held> = index.streams.values().map(|s| s.held(ranges_max)).collect();
        drop(index);
        held.sort_unstable_by(|a, b| a.stream.cmp(&b.stream));
        held
    }

    /// Records of one stream behind `after`, contiguous: at least one if it is held, then up to `bytes_max` of bodies, each counted with
    /// [`READ_RECORD_COST_BYTES`](crate::READ_RECORD_COST_BYTES).
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(&self, stream: &StreamId, after: Lsn, bytes_max: usize) -> Result<Vec<Record>, ReadError> {
        self.0.shared.read(stream, after, bytes_max)
    }

    /// The chain hash at a record, if it is held; the genesis hash at zero.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn chain_at(&self, stream: &StreamId, lsn: Lsn) -> Result<Option<ChainHash>, ReadError> {
        self.0.shared.chain_of(stream, lsn)
    }

    /// Calls `listener` after each commit with the new head, on the writer's thread. It must not block, and must not keep the
    /// store alive.
    pub fn on_commit(&self, listener: Box<dyn Fn(Position) + Send + Sync>) {
        locked(&self.0.shared.listeners).push(listener);
    }

    /// A cursor's position; zero when it was never set.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn cursor(&self, name: &str) -> Result<Position, StateError> {
        Ok(self.0.shared.state.cursor(name))
    }

    /// Sets a cursor. Durable with the next periodic flush: after a crash it may stand further back.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn set_cursor(&self, name: &str, position: Position) -> Result<(), StateError> {
        let head = self.head();
        if position > head {
            return Err(StateError::BeyondHead { asked: position, head });
        }
        self.0.shared.state.set_cursor(name, position)
    }

    /// Forgets a cursor.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn forget_cursor(&self, name: &str) -> Result<(), StateError> {
        self.0.shared.state.forget_cursor(name)
    }

    /// All cursors, by name.
    #[must_use]
    pub fn cursors(&self) -> Vec<(String, Position)> {
        self.0.shared.state.cursors()
    }

    /// Which sequence numbers of one life of a sensor's log are held: known from the log, so never lost with the state.
    #[must_use]
    pub fn device_held(&self, device: DeviceId, epoch: u32) -> SeqRanges {
        let index = read_locked(&self.0.shared.index);
        index.devices.get(&device).and_then(|epochs| epochs.get(&epoch)).cloned().unwrap_or_default()
    }

    /// A device's entry in the registry: bytes that only its writer understands.
    #[must_use]
    pub fn device_entry(&self, device: &DeviceId) -> Option<Vec<u8>> {
        self.0.shared.state.device(device)
    }

    /// Sets a device's entry.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn set_device_entry(&self, device: DeviceId, entry: &[u8]) -> Result<(), StateError> {
        self.0.shared.state.set_device(device, entry)
    }

    /// All entries of the registry, by device.
    #[must_use]
    pub fn device_entries(&self) -> Vec<(DeviceId, Vec<u8>)> {
        self.0.shared.state.devices()
    }

    /// Points of the matching series within `range` (ns, both ends included), by series in canonical order, then time; a
    /// `(series, timestamp)` once (invariant 8). Series without points in the range are left out.
    ///
    /// # Errors
    /// [`ScanError`].
    pub fn scan(
        &self,
        site: &SiteName,
        matches: &dyn Fn(&Series) -> bool,
        range: RangeInclusive<i64>,
    ) -> Result<Vec<SeriesPoints>, ScanError> {
        let mut out: Vec<SeriesPoints> = Vec::new();
        self.scan_each(site, &self.series(site, matches)?, range, |series, points| {
            match out.last_mut().filter(|(last, _)| Arc::ptr_eq(last, series)) {
                Some((_, all)) => all.extend(points.iter()),
                None => out.push((Arc::clone(series), points.iter().collect())),
            }
            ControlFlow::Continue(())
        })?;
        Ok(out)
    }

    /// Hands out the points of `series` within `range` (ns, both ends included), series by series in the order given, which is to be
    /// the canonical one; a series with many points in several parts, in order of time. Memory holds a bounded number of points.
    /// `visit` may stop it.
    ///
    /// # Errors
    /// [`ScanError`].
    pub fn scan_each(
        &self,
        site: &SiteName,
        series: &[Arc<Series>],
        range: RangeInclusive<i64>,
        mut visit: impl FnMut(&Arc<Series>, &Points) -> ControlFlow<()>,
    ) -> Result<(), ScanError> {
        Ok(self.0.shared.scan_each(site, series, &range, &mut visit)?)
    }

    /// As [`Store::scan_each`], if that would hand out at most about `points_max` points; otherwise `false`, and nothing is handed out.
    ///
    /// # Errors
    /// [`ScanError`].
    pub fn scan_few(
        &self,
        site: &SiteName,
        series: &[Arc<Series>],
        range: RangeInclusive<i64>,
        points_max: u64,
        mut visit: impl FnMut(&Arc<Series>, &Points) -> ControlFlow<()>,
    ) -> Result<bool, ScanError> {
        Ok(self.0.shared.scan_few(site, series, &range, points_max, &mut visit)?)
    }

    /// The sites of which anything is held, in order.
    #[must_use]
    pub fn sites(&self) -> Vec<SiteName> {
        self.0.shared.catalogue().sites()
    }

    /// The time (ns) before which nothing of a site is shown, because policy drops it.
    #[must_use]
    pub fn horizon(&self, site: &SiteName) -> Option<i64> {
        self.0.shared.horizon(site)
    }

    /// Reads all of every segment now and notes what is rotten; the next round of upkeep sets it apart.
    pub fn scrub(&self) {
        self.0.shared.scrub_once(u64::MAX);
    }

    /// Says what time it is by a clock that can be trusted, Unix ns: retention by age goes by it, and rests until it is told.
    pub fn trust_clock(&self, now_ns: i64) {
        *locked(&self.0.shared.upkeep.clock_ns) = Some(now_ns);
    }

    /// Does one round of upkeep now. For a store whose [`crate::UpkeepOptions::thread`] is off; with it on, does nothing.
    /// `now` tells how long the store was idle and how long points waited.
    ///
    /// # Errors
    /// [`UpkeepError`]: the round ended early, and the next begins where it stood.
    pub fn upkeep(&self, now: Instant) -> Result<(), UpkeepError> {
        locked(&self.0.keeper).as_mut().map_or(Ok(()), |keeper| keeper.round(now))
    }

    /// Whether it takes writes.
    #[must_use]
    pub fn write_state(&self) -> WriteState {
        self.0.shared.write_state()
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    /// Asks the catalogue of series; one that turns out damaged is made again, and asked once more.
    pub(crate) fn catalogue<T>(
        &self,
        ask: impl Fn(&Catalogue) -> Result<T, CatalogueError>,
    ) -> Result<T, CatalogueError> {
        match ask(&self.0.shared.catalogue()) {
            Err(error) if error.is_damage() => {
                self.0.shared.begin_catalogue_anew(&error);
                ask(&self.0.shared.catalogue())
            }
            answer => answer,
        }
    }

    /// Counts.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let shared = &self.0.shared;
        let queue_bytes = locked(&shared.queue).bytes as u64;
        let (counters, upkeep) = (&shared.counters, &shared.upkeep.counters);
        let series = shared.catalogue().series_count_all();
        let index = read_locked(&shared.index);
        let sealed = || index.streams.values().flat_map(|stream| &stream.sealed);
        let open_points: u64 = index.streams.values().map(|stream| stream.tables.points()).sum();
        Stats {
            records: index.streams.values().map(StreamIndex::records).sum(),
            points: open_points + sealed().map(|sealed| sealed.segment.points()).sum::<u64>(),
            open_points,
            opaque_records: index.opaque,
            series,
            streams: index.streams.len() as u64,
            files: index.files.iter().filter(|file| !file.trimmed).count() as u64,
            log_bytes: index.log_bytes(),
            segments: sealed().count() as u64,
            segment_bytes: sealed().map(|sealed| sealed.segment.bytes()).sum(),
            rot: index.files.iter().map(|file| file.rot.len() as u64).sum(),
            failed_reads: counters.failed_reads.load(Ordering::Relaxed),
            commits: counters.commits.load(Ordering::Relaxed),
            bytes_written: counters.bytes_written.load(Ordering::Relaxed),
            segment_bytes_written: upkeep.segment_bytes_written.load(Ordering::Relaxed),
            segments_sealed: upkeep.sealed.load(Ordering::Relaxed),
            sealed_bytes: upkeep.sealed_bytes.load(Ordering::Relaxed),
            segments_merged: upkeep.merged.load(Ordering::Relaxed),
            segments_disagreed: upkeep.disagreed.load(Ordering::Relaxed),
            segments_rotten: upkeep.rotten.load(Ordering::Relaxed),
            segments_dropped: upkeep.dropped_segments.load(Ordering::Relaxed),
            records_dropped: upkeep.dropped_records.load(Ordering::Relaxed),
            points_dropped: upkeep.dropped_points.load(Ordering::Relaxed),
            records_never_held: index.streams.values().map(StreamIndex::never_held).sum(),
            files_trimmed: upkeep.trimmed.load(Ordering::Relaxed),
            upkeep_failures: upkeep.failures.load(Ordering::Relaxed),
            queue_bytes,
            write_state: shared.write_state(),
        }
    }

    /// Writes what waits, refuses what comes, flushes the state and lets go of the directory. A second call does nothing.
    ///
    /// # Errors
    /// [`StateError`] when the state could not be flushed; the log is whole all the same.
    pub fn close(&self) -> Result<(), StateError> {
        self.0.close()
    }
}

/// Whether the whole body can be read.
fn checked(body: &[u8]) -> Result<(), AppendError> {
    if body.len() > BATCH_BYTES_MAX {
        return Err(AppendError::TooLong { bytes: body.len(), most: BATCH_BYTES_MAX });
    }
    if let Opened::Points(mut reader) = BodyReader::open(body)? {
        // Cheaper than to make floats of them that nobody looks at.
        reader.leave_decimals();
        let mut entry = Entry::default();
        while reader.next(&mut entry)? {}
    }
    Ok(())
}

impl Inner {
    fn close(&self) -> Result<(), StateError> {
        self.shared.upkeep.close();
        locked(&self.shared.queue).closed = true;
        self.shared.wake_writer();
        self.shared.room.notify_all();
        for thread in locked(&self.threads).drain(..) {
            if thread.thread().id() != thread::current().id() && thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
        let closed = self.shared.state.close();
        drop(locked(&self.lock).take());
        closed
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, "cursors may stand further back after the next start");
        }
    }
}
