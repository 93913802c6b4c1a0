//! What a store does by itself, beside taking in and answering: seals what its author wrote, follows other authors' seals,
//! merges segments, trims the log, drops what policy no longer keeps, and sets rot apart. One round does what there is to do;
//! a thread runs rounds, or a test does. The wall clock comes in as an argument, and only retention looks at it.

mod merge;
mod retention;
mod rot;
mod seal;
mod trim;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tidelog_record::{Lsn, StreamId};

use crate::catalogue::CatalogueError;
use crate::errors::{AppendError, ReadError, StateError};
use crate::index::Index;
use crate::sealed::Sealed;
use crate::segment::{SealError, SegmentError};
use crate::shared::{Shared, locked};

pub use retention::{Keep, Retention};

/// How long the thread sleeps when nothing wakes it.
const ROUND_EVERY: Duration = Duration::from_secs(1);
/// How long it waits after a round that failed: the disk may be full.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// When things are sealed and merged, and what is kept.
#[derive(Clone, Debug)]
pub struct UpkeepOptions {
    /// Points after which an author seals.
    pub seal_points: u64,
    /// Memory of points that are not sealed after which an author seals, in bytes. Of what sensors measure a point takes about one; but a
    /// float that is no short decimal takes nine, and a text its bytes. Sealing takes about as much again.
    pub seal_bytes_max: u64,
    /// Points of one series that sealing and merging hold in memory at once, some 32 bytes each. What other authors sealed in larger
    /// pieces is packed in smaller ones first; a series that has more stays in the segments that it is in. A record alone may have more.
    pub points_in_memory_max: u64,
    /// A node that took in nothing for this long seals what it has, if it is at least a quarter of
    /// [`UpkeepOptions::seal_points`] or holds a log file, and merges what is left over if its series have few points in each segment.
    pub seal_when_idle: Duration,
    /// The oldest point that is not sealed waits no longer than this.
    pub seal_after: Duration,
    /// Records whose author has not sealed them for this long, because it is gone, are packed by this node alone, so that they do not
    /// hold the log for ever. If the author comes back after all, its own segment takes their place.
    pub seal_abandoned_after: Duration,
    /// Log that is sealed is kept for cursors that have not read it, up to this many bytes. Behind that they read segments.
    pub log_keep_bytes_max: u64,
    /// What is dropped, and when.
    pub retention: Retention,
    /// Whether a thread does it; otherwise [`crate::Store::upkeep`] does, when it is called.
    pub thread: bool,
    /// Bytes a second that the thread reads to look for rot; zero: it does not look.
    pub scrub_bytes_per_second: u64,
}

impl Default for UpkeepOptions {
    fn default() -> Self {
        Self {
            seal_points: 2 * 1024 * 1024,
            seal_bytes_max: 8 * 1024 * 1024,
            points_in_memory_max: 1024 * 1024,
            seal_when_idle: Duration::from_secs(30),
            seal_after: Duration::from_secs(3600),
            seal_abandoned_after: Duration::from_secs(24 * 3600),
            log_keep_bytes_max: 256 * 1024 * 1024,
            retention: Retention::default(),
            thread: true,
            scrub_bytes_per_second: 1024 * 1024,
        }
    }
}

/// Counts of what upkeep did since the store opened.
#[derive(Debug, Default)]
pub(crate) struct UpkeepCounters {
    /// Segments made from records.
    pub sealed: AtomicU64,
    /// Their bytes.
    pub sealed_bytes: AtomicU64,
    /// Segments made from segments.
    pub merged: AtomicU64,
    /// Bytes of segments written.
    pub segment_bytes_written: AtomicU64,
    /// Log files that gave way to their maps.
    pub trimmed: AtomicU64,
    /// Seals of other authors that this node's bytes do not agree with.
    pub disagreed: AtomicU64,
    /// Segments, records and points dropped by policy.
    pub dropped_segments: AtomicU64,
    pub dropped_records: AtomicU64,
    pub dropped_points: AtomicU64,
    /// Segments found rotten.
    pub rotten: AtomicU64,
    /// Rounds that failed.
    pub failures: AtomicU64,
}

impl UpkeepCounters {
    /// A segment of so many bytes was made from records.
    fn sealed(&self, bytes: u64) {
        self.sealed.fetch_add(1, Ordering::Relaxed);
        self.sealed_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What the keeper and everyone else share.
#[derive(Debug)]
pub(crate) struct Upkeep {
    wake: Mutex<Wake>,
    woken: Condvar,
    pub condemned: Mutex<Vec<Arc<Sealed>>>,
    pub counters: UpkeepCounters,
    /// When the last record came.
    last_write: Mutex<Instant>,
    /// The time of a clock that can be trusted, Unix ns, when it was last told.
    pub clock_ns: Mutex<Option<i64>>,
}

#[derive(Debug, Default)]
struct Wake {
    closed: bool,
    asked: bool,
}

impl Default for Upkeep {
    fn default() -> Self {
        Self {
            wake: Mutex::default(),
            woken: Condvar::new(),
            condemned: Mutex::default(),
            counters: UpkeepCounters::default(),
            last_write: Mutex::new(Instant::now()),
            clock_ns: Mutex::default(),
        }
    }
}

impl Upkeep {
    /// Notes that records came.
    pub fn note_write(&self, now: Instant) {
        *locked(&self.last_write) = now;
    }

    /// Says that there may be something to do.
    pub fn ask(&self) {
        locked(&self.wake).asked = true;
        self.woken.notify_all();
    }

    pub fn close(&self) {
        locked(&self.wake).closed = true;
        self.woken.notify_all();
    }

    pub fn is_closed(&self) -> bool {
        locked(&self.wake).closed
    }

    /// Waits until there may be something to do; `false` when the store closes.
    fn wait(&self, most: Duration) -> bool {
        let mut wake = locked(&self.wake);
        if !wake.asked && !wake.closed {
            wake = self.woken.wait_timeout(wake, most).unwrap_or_else(PoisonError::into_inner).0;
        }
        wake.asked = false;
        !wake.closed
    }

    /// Waits, deaf to everything but the end.
    fn rest(&self, most: Duration) -> bool {
        let until = Instant::now() + most;
        let mut wake = locked(&self.wake);
        while !wake.closed {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            wake = self.woken.wait_timeout(wake, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        !wake.closed
    }
}

/// Why a round ended early. Nothing is lost by it: the next begins where this one stood.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    /// The disk refused.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the disk said.
        source: std::io::Error,
    },
    /// What was to be sealed or merged cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A record that is to be sealed is not here.
    #[error("{stream}: record {lsn} is not here")]
    NotHeld {
        /// Its stream.
        stream: StreamId,
        /// Its number.
        lsn: Lsn,
    },
    /// A segment could not be made.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A segment that was just made cannot be read.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The catalogue of series could not be kept in order.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// The series could not be made durable.
    #[error(transparent)]
    State(#[from] StateError),
    /// The seal could not be written to the log.
    #[error("cannot write a seal: {0}")]
    Append(#[from] AppendError),
}

fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> UpkeepError {
    move |source| UpkeepError::Io { what, source }
}

/// Does the upkeep of one store.
pub(crate) struct Keeper {
    pub shared: Arc<Shared>,
    pub options: UpkeepOptions,
    /// The map of the oldest log file, once it was made.
    candidate: Option<crate::trimmed::Map>,
    too_long: merge::TooLong,
    /// Whether [`retention`] holds some room back.
    has_ballast: bool,
}

impl Keeper {
    pub fn new(shared: Arc<Shared>, options: UpkeepOptions) -> Self {
        Self { shared, options, candidate: None, too_long: merge::TooLong::new(), has_ballast: false }
    }

    /// Runs until the store closes.
    pub fn run(mut self) {
        let mut pause = ROUND_EVERY;
        while self.shared.upkeep.wait(pause) {
            match self.round(Instant::now()) {
                Ok(()) => pause = ROUND_EVERY,
                // What was under way when the store closed is done at the next start.
                Err(_) if self.shared.upkeep.is_closed() => break,
                Err(error) => {
                    self.shared.upkeep.counters.failures.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(dir = %self.shared.dir.display(), %error, "upkeep of the store is put off");
                    if !self.shared.upkeep.rest(PAUSE_AFTER_FAILURE) {
                        break;
                    }
                }
            }
        }
    }

    /// Does what there is to do.
    pub fn round(&mut self, now: Instant) -> Result<(), UpkeepError> {
        let idle = now.saturating_duration_since(*locked(&self.shared.upkeep.last_write));
        let is_idle = idle >= self.options.seal_when_idle;
        // First of all: on a full disk nothing else can be done before something is dropped.
        let clock_ns = *locked(&self.shared.upkeep.clock_ns);
        self.retain(clock_ns)?;
        self.quarantine()?;
        self.heal()?;
        self.follow_seals()?;
        let written = self.shared.upkeep.counters.segment_bytes_written.load(Ordering::Relaxed);
        while self.seal_own(now, is_idle)? && !self.shared.upkeep.is_closed() {}
        while self.seal_abandoned(now)? && !self.shared.upkeep.is_closed() {}
        while self.merge_own(is_idle)? && !self.shared.upkeep.is_closed() {}
        if self.shared.upkeep.counters.segment_bytes_written.load(Ordering::Relaxed) != written {
            // A site that takes too much by what was just sealed does so no longer than the round.
            self.retain(clock_ns)?;
        }
        while self.trim()? && !self.shared.upkeep.is_closed() {}
        self.tend_catalogue()?;
        Ok(())
    }

    /// Whether the log is longer than it is kept for anybody's sake.
    fn is_long(&self, index: &Index) -> bool {
        index.log_bytes() > self.options.log_keep_bytes_max
    }

    fn tend_catalogue(&self) -> Result<(), UpkeepError> {
        let series = self.shared.state.series();
        while !self.shared.upkeep.is_closed() {
            match series.tend() {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) if error.is_damage() => {
                    self.shared.begin_catalogue_anew(&error);
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
