//! Where a follower of this node's log stands, as a text that it keeps and hands back. Positions mean something on one node alone, and a
//! store that was put back from a copy gives them out again; so the text names the node, and has a mark of the record that stands there.

use std::fmt;
use std::str::FromStr;

use tidelog_record::{ChainHash, NodeId};
use tidelog_store::{Position, ReadError, Store};

/// The word for what lies before the oldest record.
const START: &str = "start";

/// Hexadecimal digits of a mark.
const MARK_DIGITS: usize = 16;

/// The first bytes of a record's chain hash, which no other record has; zeros where none is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark(u64);

impl Mark {
    pub fn of(chain: &ChainHash) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = chain.0;
        Self(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

/// A place in this node's log: everything up to `position` was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub position: Position,
    pub mark: Mark,
}

/// `NODE.POSITION.MARK`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    pub node: NodeId,
    pub place: Place,
}

/// Where a follower wants to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// With the oldest record that is held.
    Start,
    /// With what comes from now on.
    Now,
    /// Behind a cursor.
    Behind(Cursor),
}

/// A text that is no place to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected \"start\", or the id of an event that this node sent")]
pub(super) struct NoCursor;

/// Why there is no place to begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Elsewhere {
    #[error("the cursor is of another node, {0}")]
    Node(NodeId),
    #[error("another record stands at the cursor: this store was put back from a copy since")]
    Other,
    #[error("the cursor stands behind the end of this node's log, {0}")]
    Ahead(Position),
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Begin {
    /// The place behind which this node's log is to be told. Reads the disk.
    pub fn resolve(self, store: &Store) -> Result<Place, Elsewhere> {
        let head = store.head();
        let Cursor { node, place } = match self {
            Self::Start => return Ok(Place::default()),
            Self::Now => {
                return Ok(Place { position: head, mark: mark_at(store, head)?.unwrap_or_default() });
            }
            Self::Behind(cursor) => cursor,
        };
        if node != store.node() {
            return Err(Elsewhere::Node(node));
        }
        if place.position > head {
            return Err(Elsewhere::Ahead(head));
        }
        // A record that is gone can be compared with nothing; that it went is told next.
        let stands = if place.mark == Mark::default() { None } else { mark_at(store, place.position)? };
        if stands.is_some_and(|mark| mark != place.mark) { Err(Elsewhere::Other) } else { Ok(place) }
    }
}

/// The mark of the record at a position, if it is still held.
fn mark_at(store: &Store, at: Position) -> Result<Option<Mark>, ReadError> {
    let Some(before) = at.0.checked_sub(1) else { return Ok(None) };
    let found = store.follow(Position(before), 1)?;
    Ok(found.first().filter(|(position, _)| *position == at).map(|(_, record)| Mark::of(&record.chain)))
}

impl FromStr for Begin {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, NoCursor> {
        if text == START {
            return Ok(Self::Start);
        }
        let mut parts = text.split('.');
        let (Some(node), Some(position), Some(mark), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NoCursor);
        };
        let position = Position(position.parse().map_err(|_| NoCursor)?);
        let digits = Some(mark).filter(|mark| mark.len() == MARK_DIGITS).ok_or(NoCursor)?;
        let mark = Mark(u64::from_str_radix(digits, 16).map_err(|_| NoCursor)?);
        let node = node.parse().map_err(|_| NoCursor)?;
        Ok(Self::Behind(Cursor { node, place: Place { position, mark } }))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { position, mark } = self.place;
        write!(f, "{}.{position}.{:0MARK_DIGITS$x}", self.node, mark.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cursor_is_read_as_it_was_written(node: [u8; 16], position: u64, mark: u64) {
            let cursor = Cursor { node: NodeId(node), place: Place { position: Position(position), mark: Mark(mark) } };
            prop_assert_eq!(cursor.to_string().parse(), Ok(Begin::Behind(cursor)));
        }

        #[test]
        fn any_other_text_is_refused(text in "\\PC{0,60}") {
            prop_assume!(text != START);
            if let Ok(Begin::Behind(cursor)) = text.parse() {
                prop_assert!(text.len() >= cursor.place.position.to_string().len() + 50);
            }
        }
    }

    #[test]
    fn what_looks_like_a_cursor_and_is_none_is_refused() {
        let place = Place { position: Position(5), mark: Mark(3) };
        let good = Cursor { node: NodeId([7; 16]), place }.to_string();
        assert!(good.parse::<Begin>().is_ok());
        let (longer, short) = (format!("{good}.1"), good.strip_suffix('3').unwrap().to_owned());
        let cut = good.get(1..).unwrap();
        for bad in
            ["", ".", "..", "Start", "5", cut, &longer, &short, &format!("{good} "), &good.replace('5', "-5")]
        {
            assert_eq!(bad.parse::<Begin>(), Err(NoCursor), "{bad:?}");
        }
    }
}
