//! What is sealed while a store is checked: of each segment every block, the hash in its name and every record against the chain; and
//! the notes of segments that are gone. Their ranges stand before the log's records.

use std::cmp::Reverse;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use tidelog_record::{Seal, StreamId};

use super::chains::Fit;
use super::{Check, Flaw, VerifyError};
use crate::disk::OpenMode;
use crate::gap::{self, Gap, GapError, GapReason};
use crate::installed::{has_suffix, read_note, seal_of};
use crate::sealed::{GAP_SUFFIX, SEGMENT_DIR, SEGMENT_SUFFIX, range_name, range_of_name, segment_name};
use crate::segment::{Cache, Segment, SegmentError};

/// Pieces of a segment that are kept while it is checked, in bytes.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// A segment or a note that is going to be checked.
pub(super) struct Found {
    /// In its folder.
    base: String,
    what: What,
    pub length: u64,
}

enum What {
    Segment(Result<Box<Segment>, SegmentError>),
    /// `None` when it is damaged.
    Note(Option<Box<Gap>>),
}

impl Found {
    /// From the store's folder.
    fn name(&self) -> String {
        format!("{SEGMENT_DIR}/{}", self.base)
    }

    /// What holds more comes first, and of those that hold the same, the segment.
    fn rank(&self) -> (Reverse<u32>, bool, String) {
        let (parts, is_note) = match &self.what {
            What::Segment(segment) => (segment.as_ref().map_or(0, |segment| segment.span().parts), false),
            What::Note(gap) => (gap.as_ref().map_or(0, |gap| gap.seal.parts), true),
        };
        (Reverse(parts), is_note, self.base.clone())
    }
}

impl Check<'_> {
    /// The store's segments and notes, those that hold more parts first. None when nothing was ever sealed.
    pub(super) fn list_sealed(&self) -> Result<Vec<Found>, VerifyError> {
        let folder = self.dir.join(SEGMENT_DIR);
        let names = match self.disk.list(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            listed => listed.map_err(self.io("list", &folder))?,
        };
        let cache = Arc::new(Cache::new(CACHE_BYTES));
        let mut found = Vec::new();
        for base in names {
            let path = folder.join(&base);
            if has_suffix(&base, SEGMENT_SUFFIX) {
                let file = self.disk.open(&path, OpenMode::Read).map_err(self.io("open", &path))?;
                let length = file.len().map_err(self.io("read", &path))?;
                let segment = Segment::open(file, Arc::clone(&cache));
                if let Err(SegmentError::Version { found, supported }) = segment {
                    return Err(VerifyError::Version { path, found, supported });
                }
                found.push(Found { base, what: What::Segment(segment.map(Box::new)), length });
            } else if has_suffix(&base, GAP_SUFFIX) {
                let (gap, length) = self.note(&path)?;
                found.push(Found { base, what: What::Note(gap.map(Box::new)), length });
            }
        }
        found.sort_by_cached_key(Found::rank);
        Ok(found)
    }

    fn note(&self, path: &Path) -> Result<(Option<Gap>, u64), VerifyError> {
        let file = self.disk.open(path, OpenMode::Read).map_err(self.io("open", path))?;
        let length = file.len().map_err(self.io("read", path))?;
        match read_note(file.as_ref()).map_err(self.io("read", path))? {
            Ok(gap) => Ok((Some(gap), length)),
            Err(GapError::Damaged) => Ok((None, length)),
            Err(GapError::Version(found)) => {
                Err(VerifyError::Version { path: path.to_owned(), found, supported: gap::VERSION })
            }
        }
    }

    /// Checks one of them and takes in its range, unless a larger one covers it.
    pub(super) fn sealed(&mut self, found: Found) -> Result<(), VerifyError> {
        let (name, length) = (found.name(), found.length);
        let mut told = 0;
        let flaw = match found.what {
            What::Note(None) => Some((Flaw::Note, 0)),
            What::Note(Some(gap)) => self.gone(&found.base, &name, *gap),
            What::Segment(Ok(segment)) => match self.segment(&found.base, &segment, length, &mut told) {
                Ok(flaw) => flaw,
                Err(error) => Some(self.bad(&name, &error)?),
            },
            What::Segment(Err(error)) => Some(self.bad(&name, &error)?),
        };
        if let Some((flaw, offset)) = flaw {
            self.found.tell(&name, offset, flaw);
            // What its name says was in it is not told once more.
            if let Some((key, first, last)) = range_of_name(&found.base) {
                self.chains.tell(key, first, last);
            }
        }
        self.advance(length - told)
    }

    /// What is wrong with a segment that opened, and where. `told` counts the bytes that were told of.
    fn segment(
        &mut self,
        base: &str,
        segment: &Segment,
        length: u64,
        told: &mut u64,
    ) -> Result<Option<(Flaw, u64)>, SegmentError> {
        let span = segment.span();
        let Some(seal) = seal_of(base, segment) else {
            let hash = segment.hash()?;
            let seal =
                Seal { first: span.first, last: span.last, ordinal: span.ordinal, parts: span.parts, hash };
            return Ok(Some((Flaw::Misnamed { should: segment_name(&span.stream.key(), &seal) }, 0)));
        };
        segment.verify(Some(seal.hash), &mut |done| {
            // It is read once for the hash and records are written out of blocks that were counted before.
            let bytes = done.bytes.min(length).saturating_sub(*told);
            *told += bytes;
            match self.advance(bytes) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        })?;
        self.found.segments += 1;
        let (before, after) = (span.before, span.after);
        Ok(match self.chains.sealed(&span.stream, (span.first, before), (span.last, after)) {
            Fit::Taken => {
                self.found.records += span.records();
                None
            }
            Fit::Covered => None,
            Fit::Broken(lsn) => Some((broken(&span.stream, lsn), 0)),
        })
    }

    /// What is wrong with a note.
    fn gone(&mut self, base: &str, name: &str, gap: Gap) -> Option<(Flaw, u64)> {
        let should = range_name(&gap.stream.key(), gap.seal.first, gap.seal.last, GAP_SUFFIX);
        if should != base {
            return Some((Flaw::Misnamed { should }, 0));
        }
        if !gap.by_policy() {
            self.awaited.push((name.to_owned(), gap));
            return None;
        }
        let (first, last) = ((gap.seal.first, gap.before), (gap.seal.last, gap.after));
        match self.chains.sealed(&gap.stream, first, last) {
            Fit::Taken => {
                match gap.reason {
                    GapReason::NeverHeld => self.found.records_never_held += gap.records(),
                    _ => self.found.records_dropped += gap.records(),
                }
                None
            }
            Fit::Covered => None,
            Fit::Broken(lsn) => Some((broken(&gap.stream, lsn), 0)),
        }
    }

    /// The flaw of a segment that is not good.
    fn bad(&self, name: &str, error: &SegmentError) -> Result<(Flaw, u64), VerifyError> {
        match error {
            SegmentError::Stopped => Err(VerifyError::Stopped),
            SegmentError::Io(error) => {
                let source = io::Error::new(error.kind(), error.to_string());
                Err(VerifyError::Io { what: "read", path: self.dir.join(name), source })
            }
            error => {
                let offset = if let SegmentError::Rotten { offset, .. } = error { *offset } else { 0 };
                Ok((Flaw::Segment { reason: error.to_string() }, offset))
            }
        }
    }
}

fn broken(stream: &StreamId, lsn: tidelog_record::Lsn) -> Flaw {
    Flaw::BrokenChain { stream: Some(stream.clone()), lsn }
}
