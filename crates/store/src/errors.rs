//! The store's errors: one variant for each decision that a caller can make, and what recovery found.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tidelog_record::{ChainHash, Lsn, NodeId, Run, StreamId};

use crate::position::Position;

/// Why a store did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{0} is in use by another process")]
    Locked(PathBuf),
    /// The directory belongs to another node.
    #[error("{dir} belongs to node {found}, but this is node {expected}: wrong directory, or wrong key file")]
    WrongNode {
        /// The store's directory.
        dir: PathBuf,
        /// The node that was asked for.
        expected: NodeId,
        /// The node that the directory names.
        found: NodeId,
    },
    /// Written by a version that this one cannot read.
    #[error("{path} is in format version {found}, this program reads up to {supported}: use a newer program")]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u16,
        /// The newest version that this program reads.
        supported: u16,
    },
    /// The disk refused.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
}

/// Why an append was not stored. Nothing of it is in the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// A sync or a write failed: final, the store takes no more writes until it is opened again.
    #[error("the store takes no more writes after a disk error: {0}")]
    Failed(Arc<str>),
    /// No room on the disk. Try again when there is.
    #[error("the disk is full")]
    Full,
    /// Longer than a record can be. Split it.
    #[error("a body of {bytes} bytes, the most is {most}: split it")]
    TooLong {
        /// Length of the body.
        bytes: usize,
        /// The most it may be.
        most: usize,
    },
    /// The body claims to be points and is not.
    #[error("the body is malformed: {0}")]
    Malformed(#[from] tidelog_record::BatchError),
    /// Too much waits for the disk. Try again later.
    #[error("too many appends wait for the disk")]
    Busy,
}

/// Why another node's records were not taken. None of the call's records is in the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdoptError {
    /// The store refuses writes.
    #[error(transparent)]
    Refused(#[from] AppendError),
    /// Records are missing before the first that is new.
    #[error("{stream}: record {found} cannot follow {held}: what is between is missing")]
    Gap {
        /// The stream.
        stream: StreamId,
        /// Held up to here.
        held: Lsn,
        /// The record that came.
        found: Lsn,
    },
    /// The record does not hash to the chain it claims. The sender is wrong or the bytes are.
    #[error("{stream}: record {lsn} does not follow the one before it")]
    BrokenChain {
        /// The stream.
        stream: StreamId,
        /// The record.
        lsn: Lsn,
    },
    /// Other bytes are held under this `(stream, LSN)` (invariant 1).
    #[error("{stream} forks at or before {lsn}: held {held}, offered {offered}")]
    Fork {
        /// The stream.
        stream: StreamId,
        /// Where the hashes differ.
        lsn: Lsn,
        /// The chain hash held here.
        held: ChainHash,
        /// The chain hash that was offered.
        offered: ChainHash,
    },
    /// What is held cannot be read to compare with.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why something in the log could not be read. Reopening the store sets rot apart and serves the rest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Bytes that were good when the store opened no longer are.
    #[error("rotten record at {file} offset {offset}")]
    Rotten {
        /// Log file.
        file: String,
        /// Offset of the frame in it, in bytes.
        offset: u64,
    },
    /// The disk refused.
    #[error("cannot read {file}: {reason}")]
    Io {
        /// Log file.
        file: String,
        /// What the disk said.
        reason: Arc<str>,
    },
}

/// Why a cursor or a device's entry was not stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// Longer than an entry may be.
    #[error("an entry of {bytes} bytes, the most is {most}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The most.
        most: usize,
    },
    /// A cursor beyond the log's head.
    #[error("cursor at {asked} is beyond the head {head}")]
    BeyondHead {
        /// Where it was to be set.
        asked: Position,
        /// The head.
        head: Position,
    },
    /// The database refused.
    #[error("cannot write the state folder: {0}")]
    Database(Arc<str>),
}

/// One thing that was not as it should be when the store opened. Nothing of it was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// An append that a crash cut off. It was never acknowledged unless the disk lied or rotted. The bytes are in the
    /// quarantine folder unless they were all zero.
    TornTail {
        /// Log file.
        file: String,
        /// Where the good part ends, in bytes.
        offset: u64,
        /// What was cut, in bytes.
        bytes: u64,
    },
    /// Bytes that were once durable and are no longer good. They stay where they are and are not served.
    Rot {
        /// Log file.
        file: String,
        /// Where they begin.
        offset: u64,
        /// How many.
        bytes: u64,
    },
    /// A whole record that does not follow the one before it: files of two lives were mixed. It is not served.
    BrokenChain {
        /// Log file.
        file: String,
        /// Where its frame begins.
        offset: u64,
        /// Its stream.
        stream: StreamId,
        /// Its place there.
        lsn: Lsn,
    },
    /// The last commit was damaged with good records behind the damage. They are served, and those of this node were
    /// written again under a new run, so that peers get them too.
    Salvaged {
        /// How many records.
        records: u64,
    },
    /// A log file of which neither header is good: it was moved to the quarantine folder.
    FileQuarantined {
        /// Log file.
        file: String,
    },
    /// A segment that cannot be read: it was moved to the quarantine folder. Peers send its records again.
    SegmentQuarantined {
        /// Its file.
        file: String,
    },
    /// Positions that no file holds.
    MissingPositions {
        /// First of them.
        first: Position,
        /// Last of them.
        last: Position,
    },
    /// Good records whose stream is declared nowhere. They stay in the file and are not served.
    UndeclaredStream {
        /// How many records.
        records: u64,
    },
    /// The identity file was damaged or gone and was made anew from the log.
    IdentityRebuilt,
    /// Own history may be lost, or a stream of this node has no number left, so it goes on under a new run.
    RunRenewed {
        /// Before.
        before: Run,
        /// Now.
        now: Run,
    },
    /// The state folder cannot be used now, the disk is full perhaps. Cursors start at zero and last as long as the process.
    StateUnavailable {
        /// What the disk said.
        reason: String,
    },
    /// The state folder was gone or damaged; a damaged one was moved aside. Cursors start at zero.
    StateRebuilt {
        /// What was wrong.
        reason: String,
    },
    /// A cursor stood beyond the log's head and was set back to it.
    CursorSetBack {
        /// Its name.
        name: String,
        /// Where it stood.
        from: Position,
        /// Where it stands.
        to: Position,
    },
}

/// What opening found. An empty list of findings is a clean start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Whether the store was made now.
    pub created: bool,
    /// Records that can be read.
    pub records: u64,
    /// Log files read.
    pub files: u64,
    /// What was not as it should be.
    pub findings: Vec<Finding>,
}
