//! The store as its users see it: append, adopt, follow, read, scan, cursors. What is durable, chained and readable is
//! visible; nothing else is.

use std::fmt;
use std::ops::{ControlFlow, RangeInclusive};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};

use tidelog_record::{
    BATCH_BYTES_MAX, Body, ChainHash, DeviceId, Lsn, NodeId, Record, Run, Series, SiteName, StreamId, Value,
};

use crate::disk::{Disk, FileDisk, Lock};
use crate::errors::{AdoptError, AppendError, OpenError, ReadError, Recovery, ScanError, StateError};
use crate::index::Summary;
use crate::options::StoreOptions;
use crate::position::Position;
use crate::ranges::SeqRanges;
use crate::reader::Wish;
use crate::scan::{GROUP_POINTS_MAX, SeriesPoints};
use crate::shared::{Shared, WriteState, locked, read_locked};
use crate::state::State;
use crate::writer::{Adopted, Appended, COMMIT_BYTES_MAX, Job};

/// Counts of what a store holds and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records that can be read.
    pub records: u64,
    /// Points in them, before repeats are counted once.
    pub points: u64,
    /// Records that hold no points: seals, and those of a kind that this version does not understand.
    pub opaque_records: u64,
    /// Series, over all sites.
    pub series: u64,
    /// Streams.
    pub streams: u64,
    /// Log files.
    pub files: u64,
    /// Bytes of log.
    pub log_bytes: u64,
    /// Stretches of rot in it.
    pub rot: u64,
    /// Reads that failed: the disk refused, or met rot that was not there when the store opened.
    pub failed_reads: u64,
    /// Commits since the store opened, each one sync.
    pub commits: u64,
    /// Bytes written to the log since the store opened.
    pub bytes_written: u64,
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
    pub state: State,
    pub node: NodeId,
    pub run: Mutex<Run>,
    pub queue_bytes_max: usize,
    pub queue_records_max: usize,
    pub writer: Mutex<Option<JoinHandle<()>>>,
    pub lock: Mutex<Option<Lock>>,
    pub recovery: Recovery,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("node", &self.0.node).field("head", &self.head()).finish()
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
        self.0.node
    }

    /// The run in which this node writes.
    #[must_use]
    pub fn run(&self) -> Run {
        *locked(&self.0.run)
    }

    /// What opening found.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.0.recovery
    }

    /// Appends a body to this node's stream of a site. `done` is called once: on the writer's thread after it is durable, or
    /// at once when it is refused. It must not block.
    pub fn append(
        &self,
        site: &SiteName,
        body: Vec<u8>,
        done: impl FnOnce(Result<Appended, AppendError>) + Send + 'static,
    ) {
        match checked(&body) {
            Err(error) => done(Err(error)),
            Ok(summary) => {
                let job = Job::Append { site: site.clone(), body, summary, done: Box::new(done) };
                self.enqueue(job, false);
            }
        }
    }

    /// Appends and waits until it is durable; waits for room in the queue too.
    ///
    /// # Errors
    /// [`AppendError`].
    pub fn append_blocking(&self, site: &SiteName, body: Vec<u8>) -> Result<Appended, AppendError> {
        let summary = checked(&body)?;
        let (answer, answered) = mpsc::sync_channel(1);
        // The receiver outlives the answer: it is waited for below.
        let done = Box::new(move |result| drop(answer.send(result)));
        let job = Job::Append { site: site.clone(), body, summary, done };
        self.enqueue(job, true);
        answered.recv().unwrap_or(Err(AppendError::Closed))
    }

    /// Stores other nodes' records: each stream's contiguous and in order. All of them, or none. `done` as for
    /// [`Store::append`].
    pub fn adopt(
        &self,
        records: Vec<Record>,
        done: impl FnOnce(Result<Adopted, AdoptError>) + Send + 'static,
    ) {
        let mut summed = Vec::with_capacity(records.len());
        for record in records {
            let bytes = record.body.len();
            if bytes > BATCH_BYTES_MAX {
                let error = AppendError::TooLong { bytes, most: BATCH_BYTES_MAX };
                return done(Err(error.into()));
            }
            let summary = Summary::of_bytes(&record.body);
            summed.push((record, summary));
        }
        self.enqueue(Job::Adopt { records: summed, done: Box::new(done) }, false);
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

    /// Puts a job before the writer, or answers it with a refusal.
    fn enqueue(&self, job: Job, wait: bool) {
        let shared = &self.0.shared;
        let (bytes, records) = (job.bytes(), job.records());
        let mut queue = locked(&shared.queue);
        loop {
            if queue.closed {
                drop(queue);
                return job.refuse(AppendError::Closed);
            }
            let fits = queue.bytes.saturating_add(bytes) <= self.0.queue_bytes_max
                && queue.records.saturating_add(records) <= self.0.queue_records_max;
            // One alone always fits, so that no bound makes a record impossible.
            if fits || queue.jobs.is_empty() {
                break;
            }
            if !wait {
                drop(queue);
                return job.refuse(AppendError::Busy);
            }
            queue = shared.wait_room(queue);
        }
        queue.bytes += bytes;
        queue.records += records;
        queue.jobs.push_back(job);
        // A writer that waits out its commit interval is woken early only by a full commit.
        let wake = queue.writer_waits || queue.bytes >= COMMIT_BYTES_MAX;
        drop(queue);
        if wake {
            shared.wake_writer();
        }
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
        let shared = &self.0.shared;
        let mut out = Vec::new();
        let mut bytes = 0usize;
        let mut streams = std::collections::HashMap::new();
        let visit = |position, record: crate::frame::RecordFrame<'_>| {
            let stream = match streams.get(&record.key) {
                Some(stream) => StreamId::clone(stream),
                None => {
                    let index = read_locked(&shared.index);
                    let Some(found) = index.streams.get(&record.key) else {
                        return ControlFlow::Continue(());
                    };
                    streams.insert(record.key, found.stream.clone());
                    found.stream.clone()
                }
            };
            bytes = bytes.saturating_add(record.body.len());
            if !out.is_empty() && bytes > bytes_max {
                return ControlFlow::Break(());
            }
            let (lsn, chain, body) = (record.lsn, record.chain, record.body.to_vec());
            out.push((Position(position), Record { stream, lsn, chain, body }));
            if bytes >= bytes_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        shared.walk(after.0.saturating_add(1), |_| Wish::Take, visit)?;
        Ok(out)
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

    /// Records of one stream behind `after`, contiguous: at least one if it is held, then up to `bytes_max` of bodies.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(&self, stream: &StreamId, after: Lsn, bytes_max: usize) -> Result<Vec<Record>, ReadError> {
        let key = stream.key();
        let mut out: Vec<Record> = Vec::new();
        let mut bytes = 0usize;
        let mut next = after;
        // Where a gap was filled, the stream goes on elsewhere in the log: one walk for each piece.
        loop {
            let before = out.len();
            let mut full = false;
            let Some(lsn) = next.next() else { break };
            self.0.shared.walk_stream(key, lsn, |_, record| {
                bytes = bytes.saturating_add(record.body.len());
                if !out.is_empty() && bytes > bytes_max {
                    full = true;
                    return ControlFlow::Break(());
                }
                let (lsn, chain, body) = (record.lsn, record.chain, record.body.to_vec());
                out.push(Record { stream: stream.clone(), lsn, chain, body });
                next = lsn;
                full = bytes >= bytes_max;
                if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            if full || out.len() == before {
                break;
            }
        }
        Ok(out)
    }

    /// The chain hash at a record, if it is held; the genesis hash at zero.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn chain_at(&self, stream: &StreamId, lsn: Lsn) -> Result<Option<ChainHash>, ReadError> {
        if lsn == Lsn::ZERO {
            return Ok(Some(ChainHash::GENESIS));
        }
        self.0.shared.chain_of(stream.key(), lsn)
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
        Ok(self.0.state.cursor(name))
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
        self.0.state.set_cursor(name, position)
    }

    /// Forgets a cursor.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn forget_cursor(&self, name: &str) -> Result<(), StateError> {
        self.0.state.forget_cursor(name)
    }

    /// All cursors, by name.
    #[must_use]
    pub fn cursors(&self) -> Vec<(String, Position)> {
        self.0.state.cursors()
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
        self.0.state.device(device)
    }

    /// Sets a device's entry.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn set_device_entry(&self, device: DeviceId, entry: &[u8]) -> Result<(), StateError> {
        self.0.state.set_device(device, entry)
    }

    /// All entries of the registry, by device.
    #[must_use]
    pub fn device_entries(&self) -> Vec<(DeviceId, Vec<u8>)> {
        self.0.state.devices()
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
        let mut out = Vec::new();
        self.0.shared.scan_each(site, matches, range, u64::MAX, &mut |series, points| {
            out.push((series, points));
            ControlFlow::Continue(())
        })?;
        Ok(out)
    }

    /// As [`Store::scan`], handing out series by series, so that memory holds a bounded group of them. `visit` may stop it.
    ///
    /// # Errors
    /// [`ScanError`].
    pub fn scan_each(
        &self,
        site: &SiteName,
        matches: &dyn Fn(&Series) -> bool,
        range: RangeInclusive<i64>,
        mut visit: impl FnMut(Arc<Series>, Vec<(i64, Value)>) -> ControlFlow<()>,
    ) -> Result<(), ScanError> {
        self.0.shared.scan_each(site, matches, range, GROUP_POINTS_MAX, &mut visit)
    }

    /// The matching series of a site, in canonical order.
    #[must_use]
    pub fn series(&self, site: &SiteName, matches: &dyn Fn(&Series) -> bool) -> Vec<Arc<Series>> {
        self.0.shared.series_matching(site, matches)
    }

    /// The sites of which anything is held, in order.
    #[must_use]
    pub fn sites(&self) -> Vec<SiteName> {
        self.0.shared.sites()
    }

    /// Counts.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let shared = &self.0.shared;
        let queue_bytes = locked(&shared.queue).bytes as u64;
        let counters = &shared.counters;
        let index = read_locked(&shared.index);
        Stats {
            records: index.records,
            points: index.points,
            opaque_records: index.opaque,
            series: index.sites.values().map(|by_series| by_series.len() as u64).sum(),
            streams: index.streams.len() as u64,
            files: index.files.len() as u64,
            log_bytes: index.log_bytes(),
            rot: index.files.iter().map(|file| file.rot.len() as u64).sum(),
            failed_reads: counters.failed_reads.load(Ordering::Relaxed),
            commits: counters.commits.load(Ordering::Relaxed),
            bytes_written: counters.bytes_written.load(Ordering::Relaxed),
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

fn checked(body: &[u8]) -> Result<Summary, AppendError> {
    if body.len() > BATCH_BYTES_MAX {
        return Err(AppendError::TooLong { bytes: body.len(), most: BATCH_BYTES_MAX });
    }
    Ok(Summary::of(&Body::decode(body)?))
}

impl Inner {
    fn close(&self) -> Result<(), StateError> {
        locked(&self.shared.queue).closed = true;
        self.shared.wake_writer();
        self.shared.room.notify_all();
        let writer = locked(&self.writer).take();
        if let Some(writer) = writer.filter(|writer| writer.thread().id() != thread::current().id())
            && writer.join().is_err()
        {
            tracing::error!("the writer's thread panicked");
        }
        let closed = self.state.close();
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
