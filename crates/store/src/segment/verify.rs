//! Checks all of a segment: every block, the hash of the file, every record against the chain.

use std::ops::ControlFlow;

use tidelog_record::Lsn;

use super::errors::SegmentError;
use super::open::Segment;
use super::regenerate::SLICE_BYTES;

/// How far a check has come. It is told after each step, so that the caller can show it, slow it down, or end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Bytes read so far in checking blocks and hash.
    pub bytes: u64,
    /// Records written again so far.
    pub records: u64,
}

impl Segment {
    /// Checks everything. `expected` is the file's hash where it is known; `step` may sleep, or end the check.
    ///
    /// # Errors
    /// The first [`SegmentError`] that is found; [`SegmentError::Stopped`] when `step` ended it.
    pub fn verify(
        &self,
        expected: Option<[u8; 16]>,
        step: &mut dyn FnMut(Verified) -> ControlFlow<()>,
    ) -> Result<(), SegmentError> {
        let mut done = Verified { bytes: 0, records: 0 };
        let mut tell = |done: Verified| match step(done) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(SegmentError::Stopped),
        };
        for number in 0..self.blocks() {
            done.bytes += self.block(number)?.1.len() as u64;
            tell(done)?;
        }
        if let Some(expected) = expected {
            if self.hash()? != expected {
                return Err(SegmentError::Rotten { what: "file, which has another hash", offset: 0 });
            }
            done.bytes += self.bytes();
            tell(done)?;
        }
        let mut after = Lsn(self.span().first.0 - 1);
        loop {
            let records = self.records(after, SLICE_BYTES)?;
            let Some(last) = records.last() else { return Ok(()) };
            after = last.lsn;
            done.records += records.len() as u64;
            tell(done)?;
        }
    }
}
