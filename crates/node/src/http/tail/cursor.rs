//! Where a follower of this node's log stands, as a text that it keeps and hands back. Positions mean something on one node and in one
//! run of it alone, so both are in the text, and a cursor from elsewhere is told from one that is merely old.

use std::fmt;
use std::str::FromStr;

use tidelog_record::{NodeId, Run};
use tidelog_store::{Position, Store};

/// The word for what lies before the oldest record.
const START: &str = "start";

/// `NODE.RUN.POSITION`: everything up to `position` was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    pub node: NodeId,
    pub run: Run,
    pub position: Position,
}

/// Where a follower wants to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// With the oldest record that is held.
    Start,
    /// Behind a cursor.
    Behind(Cursor),
}

/// A text that is no place to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected \"start\", or the id of an event that this node sent")]
pub(super) struct NoCursor;

/// A cursor that this log does not go on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Elsewhere {
    #[error("the cursor is of another node, {0}")]
    Node(NodeId),
    #[error("the cursor is of an earlier run of this node, {0}")]
    Run(Run),
    #[error("the cursor stands behind the end of this node's log, {0}")]
    Ahead(Position),
}

impl Begin {
    /// The position behind which this node's log is to be told.
    pub fn resolve(self, store: &Store) -> Result<Position, Elsewhere> {
        let Self::Behind(cursor) = self else { return Ok(Position::ZERO) };
        let head = store.head();
        if cursor.node != store.node() {
            return Err(Elsewhere::Node(cursor.node));
        }
        if cursor.run != store.run() {
            return Err(Elsewhere::Run(cursor.run));
        }
        if cursor.position > head { Err(Elsewhere::Ahead(head)) } else { Ok(cursor.position) }
    }
}

impl FromStr for Begin {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, NoCursor> {
        if text == START {
            return Ok(Self::Start);
        }
        let mut parts = text.split('.');
        let (Some(node), Some(run), Some(position), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NoCursor);
        };
        Ok(Self::Behind(Cursor {
            node: node.parse().map_err(|_| NoCursor)?,
            run: run.parse().map_err(|_| NoCursor)?,
            position: Position(position.parse().map_err(|_| NoCursor)?),
        }))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.node, self.run, self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cursor_is_read_as_it_was_written(node: [u8; 16], run: u64, position: u64) {
            let cursor = Cursor { node: NodeId(node), run: Run(run), position: Position(position) };
            prop_assert_eq!(cursor.to_string().parse(), Ok(Begin::Behind(cursor)));
        }

        #[test]
        fn any_other_text_is_refused(text in "\\PC{0,60}") {
            prop_assume!(text != START);
            if let Ok(Begin::Behind(cursor)) = text.parse() {
                prop_assert!(text.len() >= cursor.position.to_string().len() + 50);
            }
        }
    }

    #[test]
    fn what_looks_like_a_cursor_and_is_none_is_refused() {
        let good = Cursor { node: NodeId([7; 16]), run: Run(3), position: Position(5) }.to_string();
        assert!(good.parse::<Begin>().is_ok());
        let longer = format!("{good}.1");
        let cut = good.get(1..).unwrap();
        for bad in ["", ".", "..", "Start", "5", cut, &longer, &format!("{good} "), &good.replace('5', "-5")]
        {
            assert_eq!(bad.parse::<Begin>(), Err(NoCursor), "{bad:?}");
        }
    }
}
