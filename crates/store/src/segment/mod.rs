//! Segments: a sealed range of one stream's records in columns. A segment answers scans and aggregates quickly, and yet it is the log, only
//! smaller: every record can be written out of it again, byte for byte, and is proved by the chain of hashes.
//!
//! [`seal`] makes one from records' bodies, or from columns that were gathered of them, [`merge`] one from several that follow each other, with the bytes that sealing all their
//! records at once would give. The bytes are a function of span and bodies alone, the same on every CPU (invariant 4).
//! docs/FORMAT.md draws them; docs/decisions/0007-numeric-codec.md says why numbers are packed as they are.
//!
//! Everything here is pure over [`DiskFile`](crate::DiskFile): it knows no folder, no log, no catalogue and no policy.

mod blocks;
mod build;
mod bytes;
mod cache;
mod column;
mod cut;
mod directory;
mod errors;
#[cfg(test)]
mod hostile;
mod ints;
mod key;
mod merge;
mod open;
mod points;
mod read;
mod records;
mod regenerate;
mod rows;
mod seal;
mod sequence;
mod span;
mod stream;
mod verify;

pub use build::Sealed;
pub(crate) use bytes::{unzigzag, zigzag};
pub use cache::Cache;
pub use errors::{SealError, SegmentError};
pub use merge::{merge, merge_as, merged_span};
pub use open::Segment;
pub use points::{Extent, Section, SectionStats, SeriesRef, Whole};
pub use regenerate::READ_RECORD_COST_BYTES;
pub(crate) use rows::Records;
pub(crate) use seal::seal_columns;
pub use seal::{SEAL_POINTS_MAX, seal};
pub use span::Span;
pub use verify::Verified;
