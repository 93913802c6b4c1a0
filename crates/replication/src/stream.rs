//! What this node knows of one stream: how far it is held durably, how far it was received, and who is asked for more.

use alloc::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tidelog_record::{ChainHash, Lsn, StreamId, StreamKey};

use crate::peer::SessionId;

/// A place in a stream and the chain hash there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The last LSN.
    pub lsn: Lsn,
    /// The chain hash after it.
    pub chain: ChainHash,
}

/// The one peer that a stream is being pulled from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pulling {
    pub session: SessionId,
    /// The LSN whose chain hash the peer was told, to go on from there.
    pub after: Lsn,
    /// The last LSN asked for.
    pub until: Lsn,
}

#[derive(Debug)]
pub(crate) struct Stream {
    pub key: StreamKey,
    /// Durable here. Only this is announced and served (invariant 2).
    pub held: Head,
    /// Verified and handed to the disk; never behind `held`.
    pub received: Head,
    /// Adoptions that the disk has not answered.
    pub adopting: usize,
    /// An adoption failed: nothing more is taken until the others are answered.
    pub failed: bool,
    /// Invariant: at most one, so that a loop carries nothing twice.
    pub pull: Option<Pulling>,
    /// Where this stood when the disk last said that it holds other bytes behind it.
    pub refused_at: Option<Lsn>,
    /// Sessions whose peer told of more than was received. May hold some that are no longer ahead.
    pub ahead: BTreeSet<SessionId>,
}

impl Stream {
    pub fn new(id: &StreamId, held: Head) -> Self {
        Self {
            key: id.key(),
            held,
            received: held,
            adopting: 0,
            failed: false,
            pull: None,
            refused_at: None,
            ahead: BTreeSet::new(),
        }
    }

    /// Moves what is durable forward; never back.
    pub fn hold(&mut self, head: Head) -> bool {
        let news = head.lsn > self.held.lsn;
        if news {
            self.held = head;
        }
        if self.held.lsn > self.received.lsn {
            self.received = self.held;
        }
        news
    }

    /// Nothing is held and nobody offers anything.
    pub fn is_forgettable(&self) -> bool {
        self.held.lsn == Lsn::ZERO && self.adopting == 0 && self.pull.is_none() && self.ahead.is_empty()
    }
}
