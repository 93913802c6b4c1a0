//! What the writer's thread and the callers share: the queue, the index, and what readers need. No policy is here.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tidelog_record::{BATCH_BYTES_MAX, Lsn, SiteName, StreamKey};

use crate::errors::ReadError;
use crate::frame::RecordFrame;
use crate::index::{Index, LogFile, Met};
use crate::position::Position;
use crate::reader::{Span, Wish};
use crate::writer::Job;

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
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub index: RwLock<Index>,
    pub names: Names,
    pub history: History,
    pub upkeep: Upkeep,
    pub cache: Arc<Cache>,
    pub queue_bytes_max: usize,
    pub queue_records_max: usize,
    pub queue: Mutex<Queue>,
    wake: Condvar,
    /// Signalled when the queue has room again.
    pub room: Condvar,
    write_state: Mutex<WriteState>,
    pub listeners: Mutex<Vec<Listener>>,
    pub counters: Counters,
    pub commit_interval: Duration,
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
    pub fn new(index: Index, commit_interval: Duration) -> Self {
        Self {
            index: RwLock::new(index),
            queue: Mutex::default(),
            wake: Condvar::new(),
            room: Condvar::new(),
            write_state: Mutex::default(),
            listeners: Mutex::default(),
            counters: Counters::default(),
            commit_interval,
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
        *locked(&self.write_state) = state;
    }

    /// The file that holds `position` or the next one behind it, to be walked from near it.
    fn span_at(&self, position: u64) -> Option<Span> {
        let index = read_locked(&self.index);
        let live = |file: &&LogFile| file.last >= position && !file.trimmed;
        index.files.iter().skip(index.file_at(position)?).find(live).map(|file| Span {
            name: Arc::clone(&file.name),
            file: Arc::clone(&file.file),
            salt: file.salt,
            first: file.first,
            last: file.last,
            from: file.walk_from(position),
            end: file.end,
            rot: file.rot.clone(),
        })
    }

    /// Walks checked records from `position` on, in order of position. What lies between the mark and `position` is checked too
    /// if `wish` takes it, but not visited.
    pub fn walk(
        &self,
        position: u64,
        mut wish: impl FnMut(u64) -> Wish,
        mut visit: impl FnMut(u64, RecordFrame<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let mut next = position;
        while let Some(span) = self.span_at(next) {
            // A file that grew meanwhile is walked a second time, from a mark before what was just visited.
            let visit = |at: u64, record: RecordFrame<'_>| {
                if at < next { ControlFlow::Continue(()) } else { visit(at, record) }
            };
            let walked = span.walk(&mut wish, visit).inspect_err(|error| self.unreadable(error))?;
            if walked.is_break() {
                break;
            }
            next = span.last + 1;
        }
        Ok(())
    }

    /// Notes a read that failed.
    fn unreadable(&self, error: &ReadError) {
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
        self.walk(
            from,
            |_| Wish::Take,
            |position, record| {
                if record.key != key || record.lsn.0 != next {
                    return ControlFlow::Continue(());
                }
                visit(position, record)?;
                if next == last {
                    return ControlFlow::Break(());
                }
                next += 1;
                ControlFlow::Continue(())
            },
        )
    }
}
