//! Which records are with the broker and not yet acknowledged, and how far the cursor may go: over the records from the
//! front whose messages were all acknowledged, and no further, whatever the order of acknowledgements.
//!
//! Pure: it is told what was handed over, sent and acknowledged, and answers with the cursor's place. One `Window` lives
//! as long as one connection; the next connection begins with a new one at the cursor, so that no packet identifier
//! ever outlives the connection it was given on.

use std::collections::{HashMap, VecDeque};

use tidelog_store::Position;

/// Most messages between the log and the broker at a time.
pub(super) const WINDOW_MESSAGES_MAX: u16 = 100;

/// Most bytes of payload between the log and the broker at a time, unless one message alone is longer.
pub(super) const WINDOW_BYTES_MAX: usize = 2 * 1024 * 1024;

/// The client and this window disagree; only a new connection can make them agree again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Disagreement {
    #[error("a message was sent that nobody handed over")]
    SentUnasked,
    #[error("packet identifier {0} was given to two messages")]
    GivenTwice(u16),
    #[error("packet identifier {0} was acknowledged and not sent")]
    NotSent(u16),
}

/// A record in the window, or a stretch of records that are not published.
#[derive(Debug)]
struct Entry {
    position: Position,
    /// Messages handed over and not acknowledged.
    waiting: u32,
    /// Whether all its messages were handed over.
    complete: bool,
}

#[derive(Clone, Copy, Debug)]
struct Handed {
    entry: u64,
    bytes: usize,
    points: u64,
}

/// What an acknowledgement settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settled {
    /// Points in the message.
    pub points: u64,
    /// Whether the cursor moved.
    pub moved: bool,
}

#[derive(Debug)]
pub(super) struct Window {
    cursor: Position,
    entries: VecDeque<Entry>,
    /// Number of the first of `entries`, counted from the connection's start.
    first_entry: u64,
    handed: VecDeque<Handed>,
    sent: HashMap<u16, Handed>,
    bytes: usize,
}

impl Window {
    pub fn new(cursor: Position) -> Self {
        Self {
            cursor,
            entries: VecDeque::new(),
            first_entry: 0,
            handed: VecDeque::new(),
            sent: HashMap::new(),
            bytes: 0,
        }
    }

    /// Up to here everything is acknowledged or not to be published.
    pub fn cursor(&self) -> Position {
        self.cursor
    }

    /// Messages handed over and not acknowledged.
    pub fn messages(&self) -> usize {
        self.handed.len() + self.sent.len()
    }

    /// Whether a message of so many bytes may be handed over now.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.messages() == 0
            || (self.messages() < usize::from(WINDOW_MESSAGES_MAX) && self.bytes + bytes <= WINDOW_BYTES_MAX)
    }

    /// The record at `position`, behind all before it, begins; its messages follow.
    pub fn begin(&mut self, position: Position) {
        self.entries.push_back(Entry { position, waiting: 0, complete: false });
    }

    /// One message of the record begun last is handed to the client.
    pub fn hand_over(&mut self, bytes: usize, points: u64) {
        if let Some(entry) = self.entries.back_mut() {
            entry.waiting += 1;
            let entry = self.first_entry + self.entries.len() as u64 - 1;
            self.handed.push_back(Handed { entry, bytes, points });
            self.bytes += bytes;
        }
    }

    /// The record begun last has no more messages; true if that moved the cursor.
    pub fn complete(&mut self) -> bool {
        if let Some(entry) = self.entries.back_mut() {
            entry.complete = true;
        }
        self.advance()
    }

    /// The record at `position` is not published; true if that moved the cursor.
    pub fn pass_over(&mut self, position: Position) -> bool {
        match self.entries.back_mut() {
            // A record that is done, or passed over, takes the passed one along: a long stretch is one entry.
            Some(last) if last.complete && last.waiting == 0 => last.position = position,
            _ => self.entries.push_back(Entry { position, waiting: 0, complete: true }),
        }
        self.advance()
    }

    /// The client wrote the message handed over first among those not written yet, under this packet identifier.
    pub fn sent(&mut self, packet: u16) -> Result<(), Disagreement> {
        let handed = self.handed.pop_front().ok_or(Disagreement::SentUnasked)?;
        match self.sent.insert(packet, handed) {
            None => Ok(()),
            Some(_) => Err(Disagreement::GivenTwice(packet)),
        }
    }

    /// The broker acknowledged a packet.
    pub fn acknowledged(&mut self, packet: u16) -> Result<Settled, Disagreement> {
        let Handed { entry, bytes, points } =
            self.sent.remove(&packet).ok_or(Disagreement::NotSent(packet))?;
        self.bytes -= bytes;
        let index = entry.checked_sub(self.first_entry).and_then(|index| usize::try_from(index).ok());
        if let Some(entry) = index.and_then(|index| self.entries.get_mut(index)) {
            entry.waiting -= 1;
        }
        Ok(Settled { points, moved: self.advance() })
    }

    fn advance(&mut self) -> bool {
        let before = self.cursor;
        while let Some(entry) = self.entries.front().filter(|entry| entry.complete && entry.waiting == 0) {
            self.cursor = entry.position;
            self.entries.pop_front();
            self.first_entry += 1;
        }
        self.cursor != before
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn acknowledgements_out_of_order_move_the_cursor_over_the_front_only() {
        let mut window = Window::new(Position(4));
        for position in 5..=7 {
            window.begin(Position(position));
            window.hand_over(10, 1);
            window.complete();
        }
        for packet in 1..=3 {
            window.sent(packet).unwrap();
        }
        assert!(!window.acknowledged(2).unwrap().moved);
        assert_eq!(window.cursor(), Position(4));
        assert!(window.acknowledged(1).unwrap().moved);
        assert_eq!(window.cursor(), Position(6));
        assert_eq!(window.acknowledged(1), Err(Disagreement::NotSent(1)));
        assert!(window.acknowledged(3).unwrap().moved);
        assert_eq!(window.messages(), 0);
    }

    #[test]
    fn a_divided_record_is_passed_when_its_last_message_is_acknowledged() {
        let mut window = Window::new(Position(0));
        window.begin(Position(1));
        window.hand_over(1, 1);
        window.sent(1).unwrap();
        assert!(!window.acknowledged(1).unwrap().moved, "more of it may follow");
        window.hand_over(1, 1);
        window.complete();
        window.sent(1).unwrap();
        assert!(window.acknowledged(1).unwrap().moved);
        assert_eq!(window.cursor(), Position(1));
    }

    #[test]
    fn a_long_stretch_of_records_of_others_is_one_entry() {
        let mut window = Window::new(Position(0));
        window.begin(Position(1));
        window.hand_over(1, 1);
        window.complete();
        for position in 2..100_000 {
            assert!(!window.pass_over(Position(position)));
        }
        assert_eq!(window.entries.len(), 2);
        window.sent(1).unwrap();
        assert!(window.acknowledged(1).unwrap().moved);
        assert_eq!(window.cursor(), Position(99_999));
    }

    #[test]
    fn a_message_longer_than_the_window_goes_alone() {
        let mut window = Window::new(Position(0));
        assert!(window.has_room(WINDOW_BYTES_MAX * 2));
        window.begin(Position(1));
        window.hand_over(WINDOW_BYTES_MAX * 2, 1);
        assert!(!window.has_room(1));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Record { messages: u32 },
        PassOver,
        Send,
        Acknowledge(prop::sample::Index),
    }

    proptest! {
        #[test]
        fn the_cursor_is_where_a_naive_count_of_open_messages_puts_it(
            steps in prop::collection::vec(prop_oneof![
                (0u32..4).prop_map(|messages| Step::Record { messages }),
                Just(Step::PassOver),
                Just(Step::Send),
                any::<prop::sample::Index>().prop_map(Step::Acknowledge),
            ], 0..200),
        ) {
            let mut window = Window::new(Position(0));
            let mut open: BTreeMap<u64, u32> = BTreeMap::new();
            let mut queue: VecDeque<u64> = VecDeque::new();
            let mut flying: Vec<(u16, u64)> = Vec::new();
            let (mut position, mut packet) = (0u64, 0u16);
            for step in steps {
                match step {
                    Step::Record { messages } => {
                        position += 1;
                        open.insert(position, messages);
                        window.begin(Position(position));
                        for _ in 0..messages {
                            window.hand_over(1, 1);
                            queue.push_back(position);
                        }
                        window.complete();
                    }
                    Step::PassOver => {
                        position += 1;
                        open.insert(position, 0);
                        window.pass_over(Position(position));
                    }
                    Step::Send => {
                        if let Some(of) = queue.pop_front() {
                            packet += 1;
                            flying.push((packet, of));
                            window.sent(packet).unwrap();
                        }
                    }
                    Step::Acknowledge(index) if !flying.is_empty() => {
                        let (packet, of) = flying.remove(index.index(flying.len()));
                        *open.get_mut(&of).unwrap() -= 1;
                        window.acknowledged(packet).unwrap();
                    }
                    Step::Acknowledge(_) => {}
                }
                let first_open = open.iter().find(|(_, count)| **count > 0).map(|(at, _)| *at);
                prop_assert_eq!(window.cursor(), Position(first_open.map_or(position, |at| at - 1)));
                prop_assert_eq!(window.messages(), queue.len() + flying.len());
            }
        }
    }
}
