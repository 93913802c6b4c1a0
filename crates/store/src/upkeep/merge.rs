//! Merging: segments that stand side by side become one, in groups that are aligned by the number of pieces, so that every
//! node ends with the same files. The author decides when; the merged segment has its own seal.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use tidelog_record::{Lsn, Seal, StreamId, StreamKey};

use super::{Keeper, UpkeepError};
use crate::sealed::Sealed;
use crate::segment::Span;
use crate::shared::read_locked;
use crate::stream::StreamIndex;

/// Segments that are merged into one. A power of two.
const MERGE_PARTS: u64 = 16;
/// Pieces in a segment, if they are small. A power of [`MERGE_PARTS`].
const PARTS_MAX: u64 = MERGE_PARTS.pow(4);

/// Points of a series, on average, below which it packs notably better in a merged segment: none of its parts has more.
const SPARSE_POINTS: u64 = 96;
/// And below which it is worth writing them more than once, when the node has nothing else to do.
const VERY_SPARSE_POINTS: u64 = 32;
/// Segments with more points of each series are merged so that there are fewer files, up to as many points as are in so many full seals:
/// what was written once as large as that stays.
const DENSE_SEALS: u64 = 4;

/// Groups that are remembered as too long to merge.
const TOO_LONG_MAX: usize = 4096;

/// Groups with a series that has more points than are merged in memory: stream, first record, pieces.
pub(super) type TooLong = HashSet<(StreamKey, Lsn, u32)>;

struct Group {
    stream: StreamId,
    first: Lsn,
    last: Lsn,
    ordinal: u64,
    parts: u32,
}

impl Keeper {
    /// Merges one group of this node's own segments. `false` when none is due.
    pub(super) fn merge_own(&mut self, is_idle: bool) -> Result<bool, UpkeepError> {
        let (Group { stream, first, last, ordinal, parts }, tiles) = loop {
            let group = {
                let index = read_locked(&self.shared.index);
                let (node, run) = (self.shared.node, self.shared.run());
                let own = index.in_order().filter(|s| s.stream.node == node && s.stream.run == run);
                let seal_points = self.options.seal_points;
                own.filter(|s| s.seals.is_empty())
                    .find_map(|stream| group(stream, is_idle, seal_points, &self.too_long))
            };
            let Some(group) = group else { return Ok(false) };
            let Some(tiles) = self.tiles(&group.stream.key(), group.first, group.last) else {
                return Ok(false);
            };
            if self.has_memory_for_series(&tiles) {
                break (group, tiles);
            }
            if self.too_long.len() >= TOO_LONG_MAX {
                self.too_long.clear();
            }
            self.too_long.insert((group.stream.key(), group.first, group.parts));
        };
        let key = stream.key();
        let (Some(before), Some(after)) = (tiles.first().map(|s| s.before), tiles.last().map(|s| s.after))
        else {
            return Ok(false);
        };
        let span = Span { stream: stream.clone(), ordinal, parts, first, last, before, after };
        let made = self.make(&key, first, last, |out| self.merge_tiles(&span, &tiles, out))?;
        let seal = Seal { first, last, ordinal, parts, hash: made.hash };
        self.announce(&stream, &seal, is_idle)?;
        self.install(&stream, seal, before, after)?;
        self.shared.upkeep.counters.merged.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%stream, first = first.0, last = last.0, parts, bytes = made.bytes, "merged");
        Ok(true)
    }
}

/// Points of a series, on average.
fn points_of_series(sealed: &Sealed) -> u64 {
    sealed.segment.points() / u64::from(sealed.segment.series_count()).max(1)
}

/// The first group that is due: of [`MERGE_PARTS`] pieces if that gains, more of them if they are small, fewer when the node has
/// nothing else to do.
fn group(stream: &StreamIndex, is_idle: bool, seal_points: u64, too_long: &TooLong) -> Option<Group> {
    let key = stream.stream.key();
    let mut size = PARTS_MAX;
    while size > 1 {
        let is_whole = size.ilog2().is_multiple_of(MERGE_PARTS.ilog2());
        if !is_whole && (size > MERGE_PARTS || !is_idle) {
            size /= 2;
            continue;
        }
        for (at, from) in stream.sealed.iter().enumerate() {
            let ordinal = from.seal.ordinal;
            if !ordinal.is_multiple_of(size) || u64::from(from.seal.parts) >= size {
                continue;
            }
            let (mut parts, mut points, mut of_series, mut last) = (0, 0u64, 0u64, None);
            for sealed in stream.sealed.iter().skip(at) {
                let touches = last.is_none_or(|last: Lsn| last.next() == Some(sealed.seal.first));
                if parts >= size || !touches || sealed.seal.ordinal != ordinal + parts {
                    break;
                }
                parts += u64::from(sealed.seal.parts);
                points += sealed.segment.points();
                of_series = of_series.max(points_of_series(sealed));
                last = Some(sealed.seal.last);
            }
            let gains = if !is_whole {
                of_series < VERY_SPARSE_POINTS
            } else if of_series < SPARSE_POINTS {
                size <= MERGE_PARTS || points <= seal_points.saturating_mul(MERGE_PARTS)
            } else {
                points <= seal_points.saturating_mul(DENSE_SEALS)
            };
            let is_due = parts == size && gains;
            if let (true, Some(last), Ok(parts)) = (is_due, last, u32::try_from(parts)) {
                let (stream, first) = (stream.stream.clone(), from.seal.first);
                if too_long.contains(&(key, first, parts)) {
                    continue;
                }
                return Some(Group { stream, first, last, ordinal, parts });
            }
        }
        size /= 2;
    }
    None
}
