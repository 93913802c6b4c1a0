//! What the writer's thread and the callers share: the queue, the index, and what readers need. No policy is here.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tidelog_record::{Lsn, NodeId, Run, SiteName, StreamKey};

use crate::catalogue::{Catalogue, CatalogueError};
use crate::disk::Disk;
use crate::errors::{AppendError, ReadError};
use crate::frame::RecordFrame;
use crate::history::History;
use crate::index::{Index, LogFile, Met};
use crate::position::Position;
use crate::reader::{Span, Walks};
use crate::recent::Recent;
use crate::segment::Cache;
use crate::state::State;
use crate::upkeep::Upkeep;
use crate::writer::{COMMIT_BYTES_MAX, COMMIT_RECORDS_MAX, Job};

/// Tables of one stream that wait to be sealed, beside the one that is filled. A disk or processor that seals more slowly than points
/// come holds their source back, or else memory would be what gives way.
const OPEN_TABLES_MAX: usize = 4;

pub(crate) type Listener = Box<dyn Fn(Position) + Send + Sync>;

/// Whether the store takes writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum WriteState {
    /// It does.
    #[default]
    Ready,
    /// The disk was full at the last attempt; the next may succeed.
    Full,
    /// A write or sync failed; final until the store is opened again.
    Failed(Arc<str>),
}

#[derive(Default)]
pub(crate) struct Queue {
    pub jobs: VecDeque<Job>,
    pub bytes: usize,
    pub records: usize,
    pub closed: bool,
    pub writer_waits: bool,
    /// More points wait to be sealed than may; this node's own writes wait with them.
    pub held_back: bool,
}

impl Queue {
    /// Whether what waits is as much as one commit takes.
    pub fn fills_a_commit(&self) -> bool {
        self.bytes >= COMMIT_BYTES_MAX || self.records >= COMMIT_RECORDS_MAX
    }
}

/// What a job does that finds no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// It is refused.
    Try,
    /// It waits.
    Wait,
    /// It waits, but not for what only upkeep can do, for it is upkeep's.
    Upkeep,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub commits: AtomicU64,
    pub bytes_written: AtomicU64,
    pub failed_reads: AtomicU64,
}

impl Counters {
    pub fn committed(&self, bytes: usize) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.bytes_written.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

pub(crate) struct Shared {
    pub node: NodeId,
    /// The run in which this node writes; only the writer's thread changes it.
    pub run: AtomicU64,
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub index: RwLock<Index>,
    /// Held by the writer until what it answered for is in the index and in the catalogue; taken before the index.
    pub taking_in: RwLock<()>,
    pub state: State,
    pub history: History,
    pub walks: Walks,
    pub recent: Recent,
    pub upkeep: Upkeep,
    pub cache: Arc<Cache>,
    pub queue_bytes_max: usize,
    pub queue_records_max: usize,
    pub queue: Mutex<Queue>,
    pub wake: Condvar,
    /// Signalled when the queue has room again.
    pub room: Condvar,
    pub write_state: Mutex<WriteState>,
    pub listeners: Mutex<Vec<Listener>>,
    pub counters: Counters,
    pub commit_interval: Duration,
    pub scan_points_max: u64,
    pub scan_threads: usize,
    /// Whether a thread seals, so that writes may wait for it.
    pub has_keeper: bool,
}

/// A panic elsewhere leaves these values whole: each is changed in steps that cannot panic half-way.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn read_locked<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn write_locked<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// The run in which this node writes.
    pub fn run(&self) -> Run {
        Run(self.run.load(Ordering::Acquire))
    }

    /// The catalogue of series, for an answer to a question: with the series of all that was acknowledged.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        drop(read_locked(&self.taking_in));
        self.state.series()
    }

    /// Puts a job before the writer, or answers it with a refusal.
    pub fn enqueue(&self, job: Job, urgency: Urgency) {
        let (bytes, records) = (job.bytes(), job.records());
        let mut queue = locked(&self.queue);
        loop {
            if queue.closed {
                drop(queue);
                return job.refuse(AppendError::Closed);
            }
            // A full or failed disk is not worth waiting for: the writer says what is wrong.
            let held_back = queue.held_back
                && urgency != Urgency::Upkeep
                && matches!(job, Job::Append { .. })
                && self.write_state() == WriteState::Ready;
            let fits = queue.bytes.saturating_add(bytes) <= self.queue_bytes_max
                && queue.records.saturating_add(records) <= self.queue_records_max;
            // One alone always fits, so that no bound makes a record impossible.
            if !held_back && (fits || queue.jobs.is_empty()) {
                break;
            }
            if urgency == Urgency::Try {
                drop(queue);
                return job.refuse(AppendError::Busy);
            }
            queue = self.wait_room(queue);
        }
        queue.bytes += bytes;
        queue.records += records;
        queue.jobs.push_back(job);
        // A writer that waits out its commit interval is woken early only by a full commit.
        let wake = queue.writer_waits || queue.fills_a_commit();
        drop(queue);
        if wake {
            self.wake_writer();
        }
    }

    /// Enters the series that a commit met in the catalogue. One that cannot take them is given up for one in memory.
    pub fn enter_met(&self, met: &mut Vec<Met>) {
        let series = self.state.series();
        for (site, canonical) in met.drain(..) {
            match series.ensure(&site, &canonical) {
                Ok(_) => {}
                // All that the tables hold is entered then, and with it what was met here.
                Err(error) if error.is_damage() => return self.begin_catalogue_anew(&error),
                // It is entered all the same, and written when the disk takes it.
                Err(error) => tracing::warn!(%error, %site, "a new series is in memory only"),
            }
        }
    }

    /// Puts a catalogue in memory in the place of one that is of no use, with all series. The folder is filled again at the next start.
    pub fn begin_catalogue_anew(&self, error: &CatalogueError) {
        tracing::error!(%error, "the catalogue of series is of no use: it is made again in memory");
        self.state.begin_series_anew();
        if let Err(error) = self.enter_all() {
            tracing::error!(%error, "not all series could be found again");
        }
    }

    /// Enters every series that is held: those of segments and those of records that no segment holds.
    pub fn enter_all(&self) -> Result<(), ReadError> {
        let series = self.state.series();
        let (sealed, open) = {
            let index = read_locked(&self.index);
            let mut sealed = Vec::new();
            let mut open: Vec<Met> = Vec::new();
            for stream in index.streams.values() {
                let site = &stream.stream.site;
                sealed.extend(stream.sealed.iter().map(|sealed| (site.clone(), Arc::clone(sealed))));
                let columns = stream.tables.iter().flat_map(|table| table.columns());
                open.extend(columns.map(|column| (site.clone(), Arc::clone(&column.canonical))));
            }
            (sealed, open)
        };
        let mut failed = None;
        let mut enter = |site: &SiteName, canonical: &[u8]| {
            if let Err(error) = series.ensure(site, canonical) {
                failed.get_or_insert(error);
            }
        };
        for (site, sealed) in sealed {
            let visited = sealed.segment.each_series(|canonical, _, _| enter(&site, canonical));
            match visited.map_err(|error| self.bad_segment(&sealed, &error)) {
                // What is rotten is set apart; its series are entered when it is healed.
                Ok(()) | Err(ReadError::Rotten { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        for (site, canonical) in open {
            enter(&site, &canonical);
        }
        match failed {
            None => self.state.set_has_all_series(),
            Some(error) => tracing::error!(%error, "not all series could be entered in the catalogue"),
        }
        Ok(())
    }

    /// Holds this node's writes back if so many tables of one of its streams wait to be sealed.
    pub fn hold_back(&self, tables: usize) {
        if self.has_keeper && tables > OPEN_TABLES_MAX {
            locked(&self.queue).held_back = true;
        }
    }

    /// Lets them go on when no stream of this node has more than so many.
    pub fn let_go(&self, tables: usize) {
        if tables <= OPEN_TABLES_MAX / 2 && std::mem::take(&mut locked(&self.queue).held_back) {
            self.room.notify_all();
        }
    }

    pub fn wake_writer(&self) {
        self.wake.notify_one();
    }

    pub fn wait_wake<'q>(&self, queue: MutexGuard<'q, Queue>) -> MutexGuard<'q, Queue> {
        self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner)
    }

    pub fn wait_wake_for<'q>(&self, queue: MutexGuard<'q, Queue>, most: Duration) -> MutexGuard<'q, Queue> {
        self.wake.wait_timeout(queue, most).unwrap_or_else(PoisonError::into_inner).0
    }

    pub fn wait_room<'q>(&self, queue: MutexGuard<'q, Queue>) -> MutexGuard<'q, Queue> {
        self.room.wait(queue).unwrap_or_else(PoisonError::into_inner)
    }

    pub fn write_state(&self) -> WriteState {
        locked(&self.write_state).clone()
    }

    pub fn set_write_state(&self, state: WriteState) {
        let is_ready = state == WriteState::Ready;
        *locked(&self.write_state) = state;
        if !is_ready {
            // Who has looked at the state and is about to wait for room holds the queue: it is to wait before it is called.
            drop(locked(&self.queue));
            self.room.notify_all();
        }
    }

    /// The file that holds `position` or the next one behind it, to be walked from near it.
    pub fn span_at(&self, position: u64) -> Option<Span> {
        let index = read_locked(&self.index);
        let live = |file: &&LogFile| file.last >= position && !file.trimmed;
        index.files.iter().skip(index.file_at(position)?).find(live).map(|file| Span::of(file, position))
    }

    /// Walks checked records from `position` on, in order of position. What lies between the mark and `position` is checked too,
    /// but not visited.
    pub fn walk(
        &self,
        position: u64,
        mut visit: impl FnMut(u64, RecordFrame<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let mut next = position;
        loop {
            let newest = self.recent.from(next);
            for record in &newest {
                if visit(record.position, record.frame()).is_break() {
                    return Ok(());
                }
                next = record.position + 1;
            }
            if !newest.is_empty() {
                continue;
            }
            let Some(span) = self.span_at(next) else { break };
            // A walk begins at a mark before what is wanted.
            let visit = |at: u64, record: RecordFrame<'_>| {
                if at < next { ControlFlow::Continue(()) } else { visit(at, record) }
            };
            let walked = self.walks.walk(&span, next, visit).inspect_err(|error| self.unreadable(error))?;
            if walked.is_break() {
                break;
            }
            next = span.last + 1;
        }
        Ok(())
    }

    /// Notes a read that failed.
    pub fn unreadable(&self, error: &ReadError) {
        self.counters.failed_reads.fetch_add(1, Ordering::Relaxed);
        tracing::error!(%error, "a record that was good is no longer readable");
    }

    /// Walks the records of one stream from `lsn` on, within one extent: consecutive LSNs.
    pub fn walk_stream(
        &self,
        key: StreamKey,
        lsn: Lsn,
        mut visit: impl FnMut(u64, RecordFrame<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let (from, last) = {
            let index = read_locked(&self.index);
            let Some(stream) = index.streams.get(&key) else { return Ok(()) };
            match (stream.walk_from(lsn), stream.extent_of(lsn)) {
                (Some(from), Some(extent)) => (from, extent.last),
                _ => return Ok(()),
            }
        };
        let mut next = lsn.0;
        self.walk(from, |position, record| {
            if record.key != key || record.lsn.0 != next {
                return ControlFlow::Continue(());
            }
            visit(position, record)?;
            if next == last {
                return ControlFlow::Break(());
            }
            next += 1;
            ControlFlow::Continue(())
        })
    }
}
