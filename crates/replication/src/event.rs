//! What the machine reports: sessions that became ready or must be closed and why, and forks. One variant per decision.

use alloc::string::String;

use tidelog_record::{ChainHash, Lsn, NodeId, SiteName, StreamId};

use crate::peer::SessionId;

/// Something for the caller to act on, log or count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Both ends have said hello.
    Ready {
        /// The session.
        session: SessionId,
        /// The peer.
        node: NodeId,
        /// The version they speak.
        version: u16,
    },
    /// The session is over for the machine: write what was polled for it, then close the connection.
    Closed {
        /// The session.
        session: SessionId,
        /// Why.
        reason: CloseReason,
    },
    /// Two nodes hold different bytes under one name. Nothing is overwritten; between the two the stream is halted, and each side writes
    /// its branch again, see [`Event::Branched`]. When it is this node's own stream, go on under a new run: [`crate::Replica::begin_run`].
    Fork(Fork),
    /// A branch of a stream is being written again from here on under a run that its first record names, so that every node comes to
    /// hold it beside the other branch (invariant 1).
    Branched {
        /// The stream with two branches.
        stream: StreamId,
        /// The last LSN that both share.
        after: Lsn,
        /// The branch that is held here, from LSN 1.
        into: StreamId,
    },
    /// What is asked for of a stream was dropped by policy of all peers that offer it: it goes on behind that. What was dropped is never
    /// held here.
    Skipped {
        /// The peer whose floor is the lowest.
        node: NodeId,
        /// The stream.
        stream: StreamId,
        /// The last LSN that is held.
        after: Lsn,
        /// The last LSN that is passed over.
        to: Lsn,
    },
    /// Two lives of one node are at work at once: its disk was copied and both run. Both are served; somebody must end one of them.
    Cloned {
        /// The node.
        node: NodeId,
    },
    /// A peer holds more of this node's own stream than is held here: the disk lost its tail, or a backup was restored. The records are
    /// pulled, as of any stream, and every one is held to the chain (invariant 11). What is written from now on must not take their
    /// names: go on under a new run, [`crate::Replica::begin_run`].
    OwnStreamAhead {
        /// The peer.
        node: NodeId,
        /// This node's stream.
        stream: StreamId,
        /// What it claims.
        claimed: Lsn,
        /// What was written here.
        written: Lsn,
    },
}

/// Where two branches of a stream were found (invariant 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fork {
    /// The stream.
    pub stream: StreamId,
    /// The peer with the other branch.
    pub node: NodeId,
    /// They differ here or before.
    pub lsn: Lsn,
    /// The chain hash here, if it is known. With neither, the peer's bytes contradict what it says itself, and nothing is made of them.
    pub ours: Option<ChainHash>,
    /// The chain hash there.
    pub theirs: Option<ChainHash>,
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The peer broke a rule.
    #[error("{0}")]
    Violation(Violation),
    /// The peer closed it and gave this reason.
    #[error("closed by the peer: {0}")]
    ByPeer(String),
    /// Nothing was heard for too long.
    #[error("nothing heard for too long")]
    Silent,
    /// No hello came.
    #[error("no hello in time")]
    NoHello,
    /// Records were asked for and none came.
    #[error("asked for records and none came")]
    Stalled,
    /// Another session with the same node took its place.
    #[error("replaced by another session of the same node")]
    Replaced,
    /// A certificate is not what it was when the session began.
    #[error("certificate: {0}")]
    Certificate(String),
    /// This node is going down.
    #[error("shutting down")]
    ShuttingDown,
}

/// A rule that the peer broke.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Something else came before the hello, or a second hello came.
    #[error("a hello was due, or came twice")]
    Hello,
    /// No version that both speak.
    #[error("no common version: the peer speaks {theirs_min} to {theirs_max}")]
    Version {
        /// The peer's oldest.
        theirs_min: u16,
        /// The peer's newest.
        theirs_max: u16,
    },
    /// The hello names another node than the certificate.
    #[error("says it is node {0}, its certificate says otherwise")]
    WrongNode(NodeId),
    /// The connection leads back to this node.
    #[error("connected to itself")]
    Itself,
    /// A stream of a site that is not granted to the peer and to this node.
    #[error("site {0} is not granted")]
    NotGranted(SiteName),
    /// An LSN that cannot be.
    #[error("LSN {0} cannot be")]
    Lsn(Lsn),
    /// Ranges above a contiguous part that cannot be, or in a session whose version has none.
    #[error("ranges that cannot be")]
    Ranges,
    /// More streams than a peer may tell of.
    #[error("tells of too many streams")]
    TooManyStreams,
    /// A pull of what was never offered, out of turn, or one too many.
    #[error("a pull that cannot be served")]
    Pull,
    /// Records that were not asked for, or out of order.
    #[error("records that were not asked for")]
    Unasked,
    /// More records than there was credit for, or more credit than can be counted.
    #[error("credit was exceeded")]
    Credit,
}

impl Violation {
    /// A word for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Version { .. } => "version",
            Self::WrongNode(_) => "wrong_node",
            Self::Itself => "itself",
            Self::NotGranted(_) => "not_granted",
            Self::Lsn(_) => "lsn",
            Self::Ranges => "ranges",
            Self::TooManyStreams => "too_many_streams",
            Self::Pull => "pull",
            Self::Unasked => "unasked",
            Self::Credit => "credit",
        }
    }
}

impl CloseReason {
    /// A word for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Violation(violation) => violation.label(),
            Self::ByPeer(_) => "by_peer",
            Self::Silent => "silent",
            Self::NoHello => "no_hello",
            Self::Stalled => "stalled",
            Self::Replaced => "replaced",
            Self::Certificate(_) => "certificate",
            Self::ShuttingDown => "shutting_down",
        }
    }
}
