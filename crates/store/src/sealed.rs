//! A segment that is installed: its file, what the author said of it, and the chain around it. How its bytes are made and
//! read is [`crate::segment`]'s affair; which segments a stream has, [`crate::stream`]'s.

use std::fmt;
use std::sync::{Arc, OnceLock};

use tidelog_record::{ChainHash, Lsn, Seal, StreamKey};

use crate::segment::{Segment, SegmentError};

pub(crate) const SEGMENT_DIR: &str = "segments";
pub(crate) const SEGMENT_SUFFIX: &str = "seg";
pub(crate) const GAP_SUFFIX: &str = "gap";
/// Of a segment that is being written.
pub(crate) const NEW_SUFFIX: &str = "new";

/// A segment in its place.
pub(crate) struct Sealed {
    pub segment: Arc<Segment>,
    pub seal: Seal,
    pub before: ChainHash,
    pub after: ChainHash,
    pub name: String,
    counts: OnceLock<Counts>,
}

/// What is counted of a segment's series once somebody asks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Points of all series: different times.
    pub points: u64,
    /// Points of its longest series: what merging it takes in memory.
    pub longest: u64,
}

impl Sealed {
    pub fn new(segment: Arc<Segment>, seal: Seal, before: ChainHash, after: ChainHash, name: String) -> Self {
        Self { segment, seal, before, after, name, counts: OnceLock::new() }
    }

    /// How many points its series have, told by its directory.
    pub fn counts(&self) -> Result<Counts, SegmentError> {
        if let Some(counts) = self.counts.get() {
            return Ok(*counts);
        }
        let mut counts = Counts::default();
        self.segment.each_series(|_, _, whole| {
            counts.points += whole.count;
            counts.longest = counts.longest.max(whole.count);
        })?;
        Ok(*self.counts.get_or_init(|| counts))
    }

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
    format!("{}-{:016x}-{:016x}.{suffix}", hex(&key.0), first.0, last.0)
}

/// The file name of a segment: the range, then the hash of its bytes, so that a store that opens knows it without reading all.
pub(crate) fn segment_name(key: &StreamKey, seal: &Seal) -> String {
    range_name(key, seal.first, seal.last, &format!("{}.{SEGMENT_SUFFIX}", hex(&seal.hash)))
}

/// The hash in the file name of a segment.
pub(crate) fn hash_of_name(name: &str) -> Option<[u8; 16]> {
    let digits = name.strip_suffix(SEGMENT_SUFFIX)?.strip_suffix('.')?.rsplit('.').next()?;
    u128::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 32).map(u128::to_be_bytes)
}

/// The range in the file name of a segment or a note: stream, first and last LSN.
pub(crate) fn range_of_name(name: &str) -> Option<(StreamKey, Lsn, Lsn)> {
    let mut parts = name.split('.').next()?.split('-');
    let mut number = |digits: usize| {
        let is_hex = |part: &&str| part.len() == digits && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        let part = parts.next().filter(is_hex)?;
        u128::from_str_radix(part, 16).ok()
    };
    let (key, first, last) = (number(32)?, number(16)?, number(16)?);
    let lsn = |number: u128| u64::try_from(number).ok().map(Lsn);
    Some((StreamKey(key.to_be_bytes()), lsn(first)?, lsn(last)?))
}

fn hex(bytes: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_name_says_what_it_was_made_of_and_nothing_else_is_one(
            key in any::<[u8; 16]>(), first in any::<u64>(), last in any::<u64>(), hash in any::<[u8; 16]>(), noise in "\\PC{0,90}",
        ) {
            let seal = Seal { first: Lsn(first), last: Lsn(last), ordinal: 0, parts: 1, hash };
            let range = (StreamKey(key), Lsn(first), Lsn(last));
            let name = segment_name(&range.0, &seal);
            prop_assert_eq!((range_of_name(&name), hash_of_name(&name)), (Some(range), Some(hash)));
            let note = range_name(&range.0, range.1, range.2, GAP_SUFFIX);
            prop_assert_eq!((range_of_name(&note), hash_of_name(&note)), (Some(range), None));
            // Whatever a name is, it is read or refused.
            prop_assert!(range_of_name(&noise).is_none_or(|(key, _, _)| noise.to_lowercase().starts_with(&hex(&key.0))));
            prop_assert!(hash_of_name(&noise).is_none() || noise.ends_with(SEGMENT_SUFFIX));
        }
    }
}
