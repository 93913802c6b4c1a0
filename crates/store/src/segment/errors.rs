//! Why a segment is not read, and why one is not made: one variant for each decision that a caller can make.

use std::io;
use std::sync::Arc;

use tidelog_record::Lsn;

use super::bytes::Malformed;
use crate::errors::ReadError;

/// Why a segment could not be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SegmentError {
    /// The disk refused. Try again, or close the store.
    #[error("cannot read the segment: {0}")]
    Io(Arc<io::Error>),
    /// The bytes are not those that were written. Set the file aside and fetch or derive it again.
    #[error("rotten segment: the {what} at offset {offset}")]
    Rotten {
        /// What was to be read.
        what: &'static str,
        /// Where it stands, in bytes.
        offset: u64,
    },
    /// The bytes were written so, and they contradict themselves; or the records do not hash to the chain.
    #[error("inconsistent segment: {0}")]
    Inconsistent(&'static str),
    /// Written by a version that this one cannot read.
    #[error("the segment is in format version {found}, this program reads up to {supported}")]
    Version {
        /// Its version.
        found: u16,
        /// The newest version that this program reads.
        supported: u16,
    },
    /// The caller asks for what is not in it.
    #[error("record {0} is not in the segment")]
    NotHere(Lsn),
    /// The caller ended a long check.
    #[error("stopped")]
    Stopped,
    /// It would have to be read, and this thread must not wait for a disk: see [`crate::at_hand`].
    #[error("not in memory")]
    NotAtHand,
}

impl From<io::Error> for SegmentError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

impl From<Malformed> for SegmentError {
    fn from(_: Malformed) -> Self {
        Self::Inconsistent("a block's content is not in the format")
    }
}

/// Why no segment was made. What was written of it is to be thrown away.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The records could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A part to be merged could not be read.
    #[error(transparent)]
    Part(#[from] SegmentError),
    /// The disk refused.
    #[error("cannot write the segment: {0}")]
    Write(#[from] io::Error),
    /// The records, or the parts, are not those of the span.
    #[error("cannot seal: {0}")]
    Span(&'static str),
    /// More than a segment holds; seal less at once.
    #[error("cannot seal: more than {most} {what} in one segment")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// The most.
        most: u64,
    },
}
