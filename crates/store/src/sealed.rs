//! A segment that is installed: its file, what the author said of it, and the chain around it. How its bytes are made and
//! read is [`crate::segment`]'s affair; which segments a stream has, [`crate::stream`]'s.

use std::fmt;

use tidelog_record::{ChainHash, Lsn, Seal, StreamKey};

use crate::segment::Segment;

pub(crate) const SEGMENT_DIR: &str = "segments";
pub(crate) const SEGMENT_SUFFIX: &str = "seg";
pub(crate) const GAP_SUFFIX: &str = "gap";

/// A segment in its place.
pub(crate) struct Sealed {
    pub segment: Segment,
    pub seal: Seal,
    pub before: ChainHash,
    pub after: ChainHash,
    pub name: String,
}

impl Sealed {
    pub fn records(&self) -> u64 {
        self.seal.last.0 - self.seal.first.0 + 1
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed").field("name", &self.name).field("seal", &self.seal).finish()
    }
}

/// The file name of a range of a stream.
pub(crate) fn range_name(key: &StreamKey, first: Lsn, last: Lsn, suffix: &str) -> String {
    use std::fmt::Write;
    let mut name = String::with_capacity(72);
    for byte in key.0 {
        // Writing to a string cannot fail.
        write!(name, "{byte:02x}").unwrap_or_default();
    }
    write!(name, "-{first:016x}-{last:016x}.{suffix}", first = first.0, last = last.0).unwrap_or_default();
    name
}
