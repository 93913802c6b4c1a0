//! The log of a node (design section 4): append, recover, follow, scan. One append-only log holds the records of all streams
//! in order of arrival; everything else is derived from it. docs/FORMAT.md draws its bytes.
//!
//! Thin: no sealed segments, no retention and no scrub yet; the index of streams and series is in memory. This crate knows no
//! socket, no async runtime and no peer.

mod adopt;
pub mod aggregate;
mod asking;
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
mod open;
mod options;
mod position;
mod ranges;
mod reader;
mod recovery;
mod scan;
mod sealed;
pub mod segment;
mod shared;
mod state;
mod store;
mod stream;
mod table;
mod trimmed;
mod upkeep;
mod verify;
mod writer;

pub use catalogue::{CURSOR_NAME_BYTES_MAX, DEVICE_ENTRY_BYTES_MAX};
pub use catalogue::{CatalogueError, MatchOp, Matcher, MatcherError, REGEX_BYTES_MAX};
pub use disk::{Disk, DiskFile, FileDisk, Lock, OpenMode};
pub use errors::{AdoptError, AppendError, Finding, OpenError, ReadError, Recovery, StateError};
pub use options::{LOG_FILE_BYTES_LIMIT, LOG_FILE_BYTES_MIN, StateIn, StoreOptions};
pub use position::Position;
pub use ranges::SeqRanges;
pub use scan::{Points, ScanError, SeriesPoints};
pub use shared::WriteState;
pub use store::{Stats, Store};
pub use upkeep::{Keep, Retention, UpkeepError, UpkeepOptions};
pub use verify::{DAMAGE_TOLD_MAX, Damage, Flaw, Progress, Verification, VerifyError, verify};
pub use writer::{Adopted, Appended};
