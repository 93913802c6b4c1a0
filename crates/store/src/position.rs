//! A place in a node's own log, across all streams. It means nothing on another node.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The dense ordinal of a record in this node's log, in order of arrival, from 1. Zero stands before the first.
///
/// A position whose record rotted is skipped by readers, so positions ascend but may have holes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position(pub u64);

impl Position {
    /// Before the first record.
    pub const ZERO: Self = Self(0);
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
