//! The store of a node: one append-only log of the records of all streams, and the sealed segments into which they pass from there.
//! A record is appended and synced, its points wait in tables in memory, its author seals them into a segment, segments are merged,
//! log files that are sealed give way to maps, and policy drops the oldest segments; at every moment each record is read back byte for
//! byte and proved by its chain, or a note says why it is gone.
//!
//! Log, segments, notes and maps are what a store is. The index of streams is in memory, rebuilt at each start; the catalogue of series
//! is a cache in sled that is made again when it is lost. docs/FORMAT.md draws the bytes, docs/ARCHITECTURE.md the way of a record.
//! This crate knows no socket, no async runtime, no peer and no wall clock: the time that retention goes by is told to it.

mod adopt;
pub mod aggregate;
mod asking;
mod at_hand;
mod bodies;
pub mod catalogue;
mod disk;
mod errors;
pub mod exact;
mod frame;
mod gap;
mod history;
mod identity;
mod index;
mod installed;
mod newest;
mod open;
mod options;
mod packed;
mod position;
mod ranges;
mod reader;
mod recent;
mod recovery;
mod renewal;
mod scan;
mod sealed;
pub mod segment;
mod shared;
mod skip;
mod state;
mod store;
mod stream;
mod table;
mod trimmed;
mod upkeep;
mod verify;
mod writer;

pub use at_hand::at_hand;
pub use catalogue::{CURSOR_NAME_BYTES_MAX, DEVICE_ENTRY_BYTES_MAX};
pub use catalogue::{CatalogueError, MatchOp, Matcher, MatcherError, REGEX_BYTES_MAX};
pub use disk::{Disk, DiskFile, FileDisk, Lock, OpenMode};
pub use errors::{AdoptError, AppendError, Finding, OpenError, ReadError, Recovery, StateError};
pub use options::{LOG_FILE_BYTES_LIMIT, LOG_FILE_BYTES_MIN, StateIn, StoreOptions};
pub use position::Position;
pub use ranges::SeqRanges;
pub use scan::{Halt, Points, ScanError, SeriesPoints};
pub use segment::READ_RECORD_COST_BYTES;
pub use shared::WriteState;
pub use store::{Stats, Store};
pub use stream::Held;
pub use upkeep::{Keep, Retention, UpkeepError, UpkeepOptions};
pub use verify::{DAMAGE_TOLD_MAX, Damage, Flaw, Progress, Verification, VerifyError, verify};
pub use writer::{Adopted, Appended};
