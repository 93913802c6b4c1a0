//! What can be wrong with a store that is checked, and where. How it is found is told beside each kind of file.

use tidelog_record::{Lsn, NodeId, StreamId};

use crate::position::Position;

/// What is wrong at one place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The identity file is damaged or gone; opening the store makes it anew from the log.
    #[error("the identity is damaged or gone; the next start makes it anew")]
    Identity,
    /// The file names another node than the identity.
    #[error("the file belongs to node {0}")]
    OtherNode(NodeId),
    /// One of a file's two headers is damaged; the other serves.
    #[error("header {copy} of 2 is damaged; the other serves")]
    Header {
        /// Which, from 1.
        copy: u8,
    },
    /// Neither header of a file is good: nothing in it can be read.
    #[error("both headers are damaged: nothing in the file can be read")]
    Headers,
    /// Bytes that hold no good frame, with good ones behind them.
    #[error("{bytes} bytes hold no good frame")]
    Rot {
        /// How many.
        bytes: u64,
    },
    /// The end of the last file holds no good frame: a commit that a crash cut off, never acknowledged, or rot in the last
    /// record. The two look alike. The next start copies it to the quarantine folder and cuts it.
    #[error(
        "the last {bytes} bytes hold no good frame: a commit cut off by a crash, or rot in the last record"
    )]
    Tail {
        /// How many.
        bytes: u64,
    },
    /// Positions that no file holds.
    #[error("positions {first} to {last} are missing: a file is gone")]
    MissingPositions {
        /// First of them.
        first: Position,
        /// Last of them.
        last: Position,
    },
    /// A record whose position is not behind the one before it.
    #[error("a record stands out of order")]
    Disorder,
    /// A whole record that does not follow the one before it in its stream.
    #[error("{}record {lsn} does not follow the one before it", in_stream(stream))]
    BrokenChain {
        /// Its stream, if that is declared before it.
        stream: Option<StreamId>,
        /// Its place there.
        lsn: Lsn,
    },
    /// A segment is rotten, or contradicts itself.
    #[error("{reason}")]
    Segment {
        /// What is wrong with it.
        reason: String,
    },
    /// A segment, a note or a map does not have the name that belongs to what it holds.
    #[error("the file holds what should be called {should}")]
    Misnamed {
        /// The name that belongs to it.
        should: String,
    },
    /// The note of a segment that is gone is rotten: nobody can tell whether policy dropped it.
    #[error("the note of a segment that is gone is damaged")]
    Note,
    /// The map of a log file that was trimmed is rotten. The records are in segments; the order in which they came is lost.
    #[error("the map of a trimmed log file is damaged: the order in which its records came is lost")]
    Map,
    /// Records of a segment that rotted and was set apart earlier. Peers that have them are asked for them.
    #[error("{stream}: records {first} to {last} rotted, and wait for a peer that has them")]
    Awaited {
        /// Their stream.
        stream: StreamId,
        /// First of them.
        first: Lsn,
        /// Last of them.
        last: Lsn,
    },
    /// Records of a trimmed log file that nothing holds.
    #[error("{stream}: records {first} to {last} stood in a trimmed log file, and no segment holds them")]
    Lost {
        /// Their stream.
        stream: StreamId,
        /// First of them.
        first: Lsn,
        /// Last of them.
        last: Lsn,
    },
    /// Records of a stream that is declared nowhere.
    #[error("{records} records belong to a stream that is declared nowhere")]
    Undeclared {
        /// How many.
        records: u64,
    },
}

fn in_stream(stream: &Option<StreamId>) -> String {
    stream.as_ref().map(|stream| format!("{stream}: ")).unwrap_or_default()
}

impl Flaw {
    /// A word for programs.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::OtherNode(_) => "other_node",
            Self::Header { .. } => "header",
            Self::Headers => "headers",
            Self::Rot { .. } => "rot",
            Self::Tail { .. } => "tail",
            Self::MissingPositions { .. } => "missing_positions",
            Self::Disorder => "disorder",
            Self::BrokenChain { .. } => "broken_chain",
            Self::Segment { .. } => "segment",
            Self::Misnamed { .. } => "misnamed",
            Self::Note => "note",
            Self::Map => "map",
            Self::Awaited { .. } => "awaited",
            Self::Lost { .. } => "lost",
            Self::Undeclared { .. } => "undeclared",
        }
    }
}

/// A flaw and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file, from the store's folder.
    pub file: String,
    /// Where in it, in bytes.
    pub offset: u64,
    /// What is wrong.
    pub flaw: Flaw,
}
