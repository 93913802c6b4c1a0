//! Whether a node has a way to any other: how many it is connected with, if it is to be connected with any. Who they are, and how far
//! behind, is not known here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The ways of one node; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Ways(Arc<State>);

#[derive(Debug, Default)]
struct State {
    wanted: AtomicBool,
    connected: AtomicUsize,
}

impl Ways {
    /// Whether this node replicates with others at all.
    #[must_use]
    pub fn are_wanted(&self) -> bool {
        self.0.wanted.load(Ordering::Relaxed)
    }

    /// Whether it should be connected with others and is with none.
    #[must_use]
    pub fn are_lost(&self) -> bool {
        self.are_wanted() && self.0.connected.load(Ordering::Relaxed) == 0
    }

    pub(crate) fn want(&self) {
        self.0.wanted.store(true, Ordering::Relaxed);
    }

    pub(crate) fn connected_with(&self, nodes: usize) {
        self.0.connected.store(nodes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_lost_only_where_there_should_be_some() {
        let ways = Ways::default();
        assert!(!ways.are_wanted() && !ways.are_lost());
        ways.want();
        assert!(ways.are_lost());
        let same = ways.clone();
        same.connected_with(2);
        assert!(ways.are_wanted() && !ways.are_lost());
        ways.connected_with(0);
        assert!(ways.are_lost());
    }
}
