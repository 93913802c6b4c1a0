//! Merging: segments that stand side by side become one, in groups that are aligned by the number of pieces, so that every
//! node ends with the same files. The author decides when; the merged segment has its own seal.

use std::sync::atomic::Ordering;

use tidelog_record::{Lsn, Seal, StreamId};

use super::{Keeper, UpkeepError};
use crate::shared::read_locked;
use crate::stream::StreamIndex;

/// Pieces in a merged segment. A power of two.
pub(crate) const MERGE_PARTS: u64 = 16;

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
        let group = {
            let index = read_locked(&self.shared.index);
            let (node, run) = (self.shared.node, self.shared.run);
            let own = index.streams.values().filter(|s| s.stream.node == node && s.stream.run == run);
            own.filter(|s| s.seals.is_empty()).find_map(|stream| group(stream, is_idle))
        };
        let Some(Group { stream, first, last, ordinal, parts }) = group else { return Ok(false) };
        let key = stream.key();
        let Some(tiles) = self.tiles(&key, first, last) else { return Ok(false) };
        let (Some(before), Some(after)) = (tiles.first().map(|s| s.before), tiles.last().map(|s| s.after)) else {
            return Ok(false);
        };
        let made = self.make(&key, first, last, |out| self.merge_tiles(&tiles, out))?;
        let seal = Seal { first, last, ordinal, parts, hash: made.hash };
        self.announce(&stream, &seal, is_idle)?;
        self.install(&stream, seal, before, after)?;
        self.shared.upkeep.counters.merged.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%stream, first = first.0, last = last.0, parts, bytes = made.bytes, "merged");
        Ok(true)
    }
}

/// The first group that is due: whole ones always, smaller ones when the node has nothing else to do.
fn group(stream: &StreamIndex, is_idle: bool) -> Option<Group> {
    let mut size = MERGE_PARTS;
    let least = if is_idle { 2 } else { MERGE_PARTS };
    while size >= least {
        for (at, from) in stream.sealed.iter().enumerate() {
            let ordinal = from.seal.ordinal;
            if !ordinal.is_multiple_of(size) || u64::from(from.seal.parts) >= size {
                continue;
            }
            let (mut parts, mut last) = (0, None);
            for sealed in stream.sealed.iter().skip(at) {
                let touches = last.is_none_or(|last: Lsn| last.next() == Some(sealed.seal.first));
                if parts >= size || !touches || sealed.seal.ordinal != ordinal + parts {
                    break;
                }
                parts += u64::from(sealed.seal.parts);
                last = Some(sealed.seal.last);
            }
            if let (true, Some(last), Ok(parts)) = (parts == size, last, u32::try_from(parts)) {
                let (stream, first) = (stream.stream.clone(), from.seal.first);
                return Some(Group { stream, first, last, ordinal, parts });
            }
        }
        size /= 2;
    }
    None
}
