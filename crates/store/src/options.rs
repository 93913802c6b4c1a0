//! What a caller decides about a store when opening it. The defaults stand here and nowhere else.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::thread;
use std::time::Duration;

use tidelog_record::{Boot, NodeId};

use crate::upkeep::UpkeepOptions;

/// Smallest size at which a log file may be closed, in bytes.
pub const LOG_FILE_BYTES_MIN: u64 = 4096;
/// Largest size at which a log file may be closed, in bytes: offsets in the index are 32 bits.
pub const LOG_FILE_BYTES_LIMIT: u64 = 1024 * 1024 * 1024;

/// Threads that answer one question together unless the caller says otherwise, at most.
const SCAN_THREADS_MAX: usize = 8;

/// Points that one question holds in memory at least and at most: with fewer, long series are told in many parts, and with more nothing
/// is quicker.
const SCAN_POINTS: std::ops::RangeInclusive<u64> = 8 * 1024..=256 * 1024;
/// A time and a value.
const SCAN_POINT_BYTES: u64 = 16;

/// Where the catalogue of series, cursors and the device registry live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StateIn {
    /// In sled, in the folder `state` of the store.
    #[default]
    Folder,
    /// Nowhere: they last as long as the process. For tools that only read, and for tests.
    Memory,
}

/// What to open and how.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The node that the directory belongs to.
    pub node: NodeId,
    /// A log file that has reached this size is closed and the next begun, in bytes. Kept within
    /// [`LOG_FILE_BYTES_MIN`] and [`LOG_FILE_BYTES_LIMIT`].
    pub log_file_bytes_max: u64,
    /// Bodies in the log are packed by what was in those before them, back over so many bytes at most: so much may one rotten byte cost, and is
    /// read to reach one record. Zero: each record stands by itself, and takes several times as much.
    pub log_pack_bytes_max: u64,
    /// How long the first append of a commit waits for others to share its sync. Zero: not at all.
    pub commit_interval: Duration,
    /// Bodies waiting for the writer, in bytes; past it an append is refused as busy.
    pub queue_bytes_max: usize,
    /// Records waiting for the writer; past it an append is refused as busy.
    pub queue_records_max: usize,
    /// What the store does by itself.
    pub upkeep: UpkeepOptions,
    /// Memory for the newest records, so that who follows them need not read them, in bytes.
    pub recent_bytes_max: usize,
    /// Memory for pieces of segments that are read again and again, in bytes.
    pub cache_bytes_max: usize,
    /// Memory for finding series by their labels, in bytes.
    pub catalogue_bytes_max: usize,
    /// Series whose newest point is kept in memory once it was asked for, of some 128 bytes each.
    pub newest_series_max: usize,
    /// Points that one question holds in memory at a time, of some 16 bytes; beside them it holds where to read on, and steps of
    /// aggregates, which are fewer.
    pub scan_points_max: u64,
    /// Threads that answer one question together, at most.
    pub scan_threads: usize,
    /// Where the catalogue of series, cursors and the device registry live.
    pub state: StateIn,
    /// What stands in each of the node's streams before the first record that is written there after the start; the store puts in
    /// what it found amiss. `None`: nothing.
    pub boot: Option<Boot>,
    /// Random bits from the caller: the run of a new store and the salt of its files are made from them.
    pub entropy: u64,
}

/// What a point takes until it is sealed, and while it is: two tables, and sealing a third, of a byte for it and its share of what
/// its series takes, which has some hundreds of points.
const OPEN_POINT_BYTES: u64 = 8;
/// Tables that are filled, wait and are sealed at once, and room for what a series takes that is sealed.
const OPEN_TABLES: u64 = 4;
/// Points in a segment at least and at most: fewer pack badly, more are read in larger pieces than anybody asks for.
const SEAL_POINTS: std::ops::RangeInclusive<u64> = 64 * 1024..=2 * 1024 * 1024;
/// What a point takes while it is merged, and room for as much.
const MERGED_POINT_BYTES: u64 = 64;
/// Points of a series that can be merged however little memory there is.
const MERGED_POINTS_MIN: u64 = 16 * 1024;

/// What a series takes whose newest point is kept: its canonical bytes, the point, and their place in a map.
const NEWEST_SERIES_BYTES: usize = 128;

impl StoreOptions {
    /// Divides memory among what takes some: half for points that are not sealed and for sealing them, three sixteenths for pieces
    /// of segments, one for the newest records, an eighth for finding series, an eighth for what waits for the writer. A question takes
    /// a sixteenth beside them, and some more for where to read on; newest points half as much.
    #[must_use]
    pub fn within(mut self, bytes: usize) -> Self {
        let open_bytes = bytes as u64 / 2;
        let points = (open_bytes / OPEN_POINT_BYTES).clamp(*SEAL_POINTS.start(), *SEAL_POINTS.end());
        // A power of two, so that equal devices make equal segments.
        self.upkeep.seal_points = 1 << points.ilog2();
        self.upkeep.seal_bytes_max = open_bytes / OPEN_TABLES;
        self.upkeep.points_in_memory_max = (open_bytes / MERGED_POINT_BYTES).max(MERGED_POINTS_MIN);
        self.recent_bytes_max = bytes / 16;
        self.cache_bytes_max = bytes / 16 * 3;
        self.catalogue_bytes_max = bytes / 8;
        self.queue_bytes_max = bytes / 8;
        self.newest_series_max = bytes / 32 / NEWEST_SERIES_BYTES;
        self.scan_points_max =
            (bytes as u64 / 16 / SCAN_POINT_BYTES).clamp(*SCAN_POINTS.start(), *SCAN_POINTS.end());
        self
    }

    /// The defaults for a node, with entropy from the operating system.
    #[must_use]
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            log_file_bytes_max: 8 * 1024 * 1024,
            log_pack_bytes_max: 256 * 1024,
            commit_interval: Duration::ZERO,
            queue_bytes_max: 8 * 1024 * 1024,
            queue_records_max: 65_536,
            upkeep: UpkeepOptions::default(),
            recent_bytes_max: 4 * 1024 * 1024,
            cache_bytes_max: 16 * 1024 * 1024,
            catalogue_bytes_max: 8 * 1024 * 1024,
            newest_series_max: 2 * 1024 * 1024 / NEWEST_SERIES_BYTES,
            scan_points_max: *SCAN_POINTS.end(),
            scan_threads: thread::available_parallelism().map_or(1, |n| n.get()).min(SCAN_THREADS_MAX),
            state: StateIn::Folder,
            boot: None,
            // The standard library keys its hash maps from the operating system's random numbers.
            entropy: RandomState::new().build_hasher().finish(),
        }
    }
}
