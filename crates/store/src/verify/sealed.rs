//! Segments while a store is checked: every block, and every record of them against the chain. Their ranges stand before the log's records.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::{Check, Flaw, VerifyError};
use crate::disk::OpenMode;
use crate::segment::{Cache, Segment, SegmentError};

/// The folder of segments in a store's folder, and how their names end.
const SEGMENT_DIR: &str = "segments";
const SEGMENT_SUFFIX: &str = ".seg";
/// Pieces of a segment that are kept while it is checked, in bytes.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// A segment that is going to be checked.
pub(super) struct Found {
    name: String,
    segment: Result<Segment, SegmentError>,
    pub length: u64,
}

impl Check<'_> {
    /// The store's segments, those that hold more parts first. None when nothing was ever sealed.
    pub(super) fn segments(&self) -> Result<Vec<Found>, VerifyError> {
        let folder = self.dir.join(SEGMENT_DIR);
        let names = match self.disk.list(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            listed => listed.map_err(self.io("list", &folder))?,
        };
        let cache = Arc::new(Cache::new(CACHE_BYTES));
        let mut found = Vec::new();
        for base in names.iter().filter(|name| name.ends_with(SEGMENT_SUFFIX)) {
            let path = folder.join(base);
            let file = self.disk.open(&path, OpenMode::Read).map_err(self.io("open", &path))?;
            let length = file.len().map_err(self.io("read", &path))?;
            let segment = Segment::open(file, Arc::clone(&cache));
            if let Err(SegmentError::Version { found, supported }) = segment {
                return Err(VerifyError::Version { path, found, supported });
            }
            found.push(Found { name: format!("{SEGMENT_DIR}/{base}"), segment, length });
        }
        found.sort_by_key(|found| {
            let parts = found.segment.as_ref().map_or(0, |segment| segment.span().parts);
            (std::cmp::Reverse(parts), found.name.clone())
        });
        Ok(found)
    }

    /// Checks one segment and takes in its range, unless a larger one covers it.
    pub(super) fn segment(&mut self, found: Found) -> Result<(), VerifyError> {
        let Found { name, segment, length } = found;
        let verdict = segment.and_then(|segment| {
            let mut told = 0;
            segment.verify(None, &mut |done| {
                // Records are written out of blocks that were counted before.
                let bytes = done.bytes.min(length).saturating_sub(told);
                told += bytes;
                match self.advance(bytes) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                }
            })?;
            Ok((segment, told))
        });
        match verdict {
            Ok((segment, told)) => {
                let span = segment.span();
                if self.chains.sealed(span) {
                    self.found.records += span.records();
                }
                self.found.segments += 1;
                self.advance(length - told)
            }
            Err(SegmentError::Stopped) => Err(VerifyError::Stopped),
            Err(SegmentError::Io(error)) => {
                let source = io::Error::new(error.kind(), error.to_string());
                Err(VerifyError::Io { what: "read", path: self.dir.join(name), source })
            }
            Err(error) => {
                let offset = if let SegmentError::Rotten { offset, .. } = error { offset } else { 0 };
                self.found.tell(&name, offset, Flaw::Segment { reason: error.to_string() });
                Ok(())
            }
        }
    }
}
