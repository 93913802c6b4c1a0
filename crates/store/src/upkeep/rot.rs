//! Rot: a segment that no longer is what was written is moved to the quarantine folder and noted as a gap, so that the vector
//! no longer claims it and peers send its records again; once they are back, the segment is made again and must have the hash
//! that its author named. The scrub looks for rot before a reader meets it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidelog_record::StreamId;

use super::{Keeper, UpkeepError, io};
use crate::disk::write_atomically;
use crate::errors::ReadError;
use crate::gap::{Gap, GapReason};
use crate::recovery::move_to_quarantine;
use crate::sealed::{GAP_SUFFIX, SEGMENT_DIR, Sealed, range_name};
use crate::segment::{SegmentError, Verified};
use crate::shared::{Shared, locked, read_locked, write_locked};

/// How long after the start the scrub begins, so that a node that is started daily is read through too.
const SCRUB_FIRST_AFTER: Duration = Duration::from_secs(300);
/// How long the scrub sleeps when it has read everything, before it begins again.
const SCRUB_AGAIN_AFTER: Duration = Duration::from_secs(24 * 3600);

impl Keeper {
    /// Sets rotten segments apart.
    pub(super) fn quarantine(&self) -> Result<(), UpkeepError> {
        loop {
            // It stays on the list until it is dealt with: a full disk must not make it forgotten.
            let Some(sealed) = locked(&self.shared.upkeep.condemned).first().cloned() else { return Ok(()) };
            self.set_apart(&sealed)?;
            locked(&self.shared.upkeep.condemned).retain(|other| other.name != sealed.name);
        }
    }

    fn set_apart(&self, sealed: &Arc<Sealed>) -> Result<(), UpkeepError> {
        let shared = &self.shared;
        let stream = {
            let index = read_locked(&shared.index);
            let holder =
                |s: &&crate::stream::StreamIndex| s.sealed.iter().any(|held| held.name == sealed.name);
            index.streams.values().find(holder).map(|stream| stream.stream.clone())
        };
        // It was replaced meanwhile.
        let Some(stream) = stream else { return Ok(()) };
        let (key, seal, dir) = (stream.key(), sealed.seal, shared.dir.join(SEGMENT_DIR));
        let gap = Gap {
            stream: stream.clone(),
            seal,
            before: sealed.before,
            after: sealed.after,
            reason: GapReason::Rotten,
            points: sealed.segment.points(),
            bytes: sealed.segment.bytes(),
            time_ns: sealed.segment.time_range(),
        };
        let note = range_name(&key, seal.first, seal.last, GAP_SUFFIX);
        write_atomically(shared.disk.as_ref(), &dir, &note, &gap.encode())
            .map_err(io("note what is rotten"))?;
        write_locked(&shared.index).dig(&key, gap);
        let moved = move_to_quarantine(shared.disk.as_ref(), &shared.dir, &dir, &sealed.name);
        moved.map_err(|source| UpkeepError::Io { what: "set a segment apart", source })?;
        shared.upkeep.counters.rotten.fetch_add(1, Ordering::Relaxed);
        tracing::error!(%stream, first = seal.first.0, last = seal.last.0, file = sealed.name,
            "a rotten segment was moved to the quarantine folder; peers are asked for its records");
        Ok(())
    }

    /// Makes rotten segments again of which all records are back.
    pub(super) fn heal(&mut self) -> Result<(), UpkeepError> {
        let due: Vec<(StreamId, Gap)> = {
            let index = read_locked(&self.shared.index);
            let gaps =
                index.streams.values().flat_map(|stream| stream.gaps.iter().map(move |gap| (stream, gap)));
            gaps.filter(|(stream, gap)| {
                !gap.by_policy() && stream.held_through(gap.seal.first, gap.seal.last)
            })
            .map(|(stream, gap)| (stream.stream.clone(), gap.clone()))
            .collect()
        };
        for (stream, gap) in due {
            if self.follow_seal(&stream, gap.seal)? {
                tracing::info!(%stream, first = gap.seal.first.0, last = gap.seal.last.0, "a rotten segment was made again");
            }
        }
        Ok(())
    }
}

impl Shared {
    /// Notes that a segment cannot be read; rot is set apart by the next round.
    pub fn bad_segment(&self, sealed: &Arc<Sealed>, error: &SegmentError) -> ReadError {
        let refused = || ReadError::Io { file: sealed.name.clone(), reason: Arc::from(error.to_string()) };
        let read = match error {
            // Nothing is wrong with it.
            SegmentError::NotAtHand => return refused(),
            SegmentError::Rotten { .. } | SegmentError::Inconsistent(_) => {
                let mut condemned = locked(&self.upkeep.condemned);
                if !condemned.iter().any(|other| other.name == sealed.name) {
                    condemned.push(Arc::clone(sealed));
                }
                drop(condemned);
                self.upkeep.ask();
                let offset = if let SegmentError::Rotten { offset, .. } = error { *offset } else { 0 };
                ReadError::Rotten { file: sealed.name.clone(), offset }
            }
            SegmentError::Io(_)
            | SegmentError::Version { .. }
            | SegmentError::NotHere(_)
            | SegmentError::Stopped => refused(),
        };
        self.unreadable(&read);
        read
    }

    /// Reads all of a segment, and condemns it if it is rotten. Breaks when `step` did.
    pub fn check(
        &self,
        sealed: &Arc<Sealed>,
        step: &mut dyn FnMut(Verified) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        match sealed.segment.verify(Some(sealed.seal.hash), step) {
            Ok(()) => ControlFlow::Continue(()),
            Err(SegmentError::Stopped) => ControlFlow::Break(()),
            Err(error) => {
                // It is logged, counted and acted on there.
                drop(self.bad_segment(sealed, &error));
                ControlFlow::Continue(())
            }
        }
    }

    /// Reads every segment once, no faster than `bytes_per_second`, and condemns what is rotten. Stops when the store closes.
    pub fn scrub_once(&self, bytes_per_second: u64) {
        let all: Vec<Arc<Sealed>> = {
            let index = read_locked(&self.index);
            index.streams.values().flat_map(|stream| stream.sealed.iter().cloned()).collect()
        };
        for sealed in all {
            let mut read = 0u64;
            let mut pace = |done: Verified| {
                let bytes = done.bytes - read;
                read = done.bytes;
                let pause = Duration::from_micros(bytes.saturating_mul(1_000_000) / bytes_per_second.max(1));
                if self.upkeep.rest(pause) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            };
            if self.check(&sealed, &mut pace).is_break() {
                return;
            }
        }
    }

    /// Scrubs again and again until the store closes.
    pub fn scrub(&self, bytes_per_second: u64) {
        let mut pause = SCRUB_FIRST_AFTER;
        while self.upkeep.rest(pause) {
            self.scrub_once(bytes_per_second);
            pause = SCRUB_AGAIN_AFTER;
        }
    }
}
