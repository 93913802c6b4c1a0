//! What peers of the cloud say to hold of this node's own streams, checked before it counts as a confirmation: the chain hash that
//! they tell must be the one here, or they hold another branch (invariant 1). The check may read the disk, so it runs on a thread
//! of its own, one at a time; of one peer and stream only the newest word waits for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidelog_record::{NodeId, StreamId};
use tidelog_replication::{Head, Held, Message};

use crate::context::NodeContext;

/// Claims on their way; clones are the same.
#[derive(Clone)]
pub(super) struct Claims {
    context: NodeContext,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    /// No more than there are own streams, for each peer of the cloud.
    heads: BTreeMap<(StreamId, NodeId), Head>,
    checking: bool,
}

impl Claims {
    pub fn new(context: &NodeContext) -> Self {
        Self { context: context.clone(), waiting: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What of a message is a claim about this node's own streams.
    pub fn of(&self, message: &Message) -> Vec<Held> {
        let Message::Hold(held) = message else { return Vec::new() };
        let node = self.context.store.node();
        held.iter().filter(|held| held.stream.node == node).cloned().collect()
    }

    /// A peer of the cloud told this, and broke no rule with it.
    pub fn told(&self, peer: NodeId, held: Vec<Held>) {
        let mut waiting = self.lock();
        for Held { stream, head } in held {
            if self.context.held.confirmed(&stream) < head.lsn {
                waiting.heads.insert((stream, peer), head);
            }
        }
        if !waiting.checking && !waiting.heads.is_empty() {
            waiting.checking = true;
            drop(waiting);
            let this = self.clone();
            self.context.tasks.spawn_blocking(move || this.check_all());
        }
    }

    fn check_all(&self) {
        loop {
            let next = {
                let mut waiting = self.lock();
                let next = waiting.heads.pop_first();
                waiting.checking = next.is_some();
                next
            };
            let Some(((stream, peer), head)) = next else { return };
            match self.context.store.chain_at(&stream, head.lsn) {
                Ok(Some(chain)) if chain == head.chain => self.context.held.confirm(&stream, head.lsn),
                // The replica reports a fork where the two meet; records that are gone here confirm nothing.
                Ok(_) => tracing::debug!(%stream, %peer, lsn = %head.lsn, "a claim that confirms nothing"),
                Err(error) => tracing::warn!(%stream, %peer, %error, "a claim could not be checked"),
            }
        }
    }
}
