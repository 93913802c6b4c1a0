//! The server's memory of message ids (RFC 7252 section 4.5): a request that comes again is not done again, but gets
//! the answer it got.
//!
//! A ring of `N` entries in order of arrival: when it is full the oldest is forgotten, when an entry is older than
//! [`EXCHANGE_LIFETIME`] it is too. Forgetting early is safe only for requests that are harmless to repeat; a batch
//! is one, because it is recognised by device, epoch and sequence. The table doesn't know what it remembers for.

use heapless::{Deque, Vec};
use smoltcp::time::{Duration, Instant};

/// How long a message id may come again: EXCHANGE_LIFETIME of RFC 7252 section 4.8.2.
pub const EXCHANGE_LIFETIME: Duration = Duration::from_secs(247);

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission<'a> {
    /// It is new: do it, then [`Exchanges::answer`].
    New,
    /// It is being done: say nothing, the answer will come.
    InProgress,
    /// It was done: send these bytes again.
    Answered(&'a [u8]),
}

/// The answer was not kept; a repeat of the request will be done again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotKept {
    /// It is longer than an entry holds.
    #[error("the answer is longer than the table keeps")]
    TooLong,
    /// The request was forgotten meanwhile.
    #[error("the request is no longer in the table")]
    Forgotten,
}

#[derive(Debug)]
struct Entry<P, const ANSWER_BYTES: usize> {
    peer: P,
    id: u16,
    since: Instant,
    answer: Option<Vec<u8, ANSWER_BYTES>>,
}

/// The last `N` requests of all peers, with answers of up to `ANSWER_BYTES` bytes each. `P` names a peer: address
/// and port.
#[derive(Debug)]
pub struct Exchanges<P, const N: usize, const ANSWER_BYTES: usize> {
    /// In order of arrival, so in order of age.
    entries: Deque<Entry<P, ANSWER_BYTES>, N>,
}

impl<P: Copy + Eq, const N: usize, const ANSWER_BYTES: usize> Exchanges<P, N, ANSWER_BYTES> {
    /// An empty table.
    #[must_use]
    pub const fn new() -> Self {
        Self { entries: Deque::new() }
    }

    /// Takes a request in, or says that it was here before.
    pub fn admit(&mut self, now: Instant, peer: P, id: u16) -> Admission<'_> {
        while self.entries.front().is_some_and(|oldest| oldest.since + EXCHANGE_LIFETIME <= now) {
            self.entries.pop_front();
        }
        if self.find(peer, id).is_none() {
            if self.entries.is_full() {
                self.entries.pop_front();
            }
            // There is room now, unless N is 0 and nothing is ever remembered.
            return match self.entries.push_back(Entry { peer, id, since: now, answer: None }) {
                Ok(()) | Err(_) => Admission::New,
            };
        }
        match self.find(peer, id).and_then(|entry| entry.answer.as_ref()) {
            Some(answer) => Admission::Answered(answer),
            None => Admission::InProgress,
        }
    }

    /// Keeps the answer to a request, for its repeats.
    ///
    /// # Errors
    /// [`NotKept`]; the answer is to be sent all the same. One that is too long takes its request out of the table,
    /// so that a repeat is done again instead of waiting for ever.
    pub fn answer(&mut self, peer: P, id: u16, datagram: &[u8]) -> Result<(), NotKept> {
        let Some(entry) = self.entries.iter_mut().rev().find(|entry| entry.peer == peer && entry.id == id)
        else {
            return Err(NotKept::Forgotten);
        };
        match Vec::from_slice(datagram) {
            Ok(kept) => {
                entry.answer = Some(kept);
                Ok(())
            }
            Err(_) => {
                self.forget(peer, id);
                Err(NotKept::TooLong)
            }
        }
    }

    /// Forgets a request: its repeat is new.
    pub fn forget(&mut self, peer: P, id: u16) {
        self.entries.retain(|entry| entry.peer != peer || entry.id != id);
    }

    /// Requests remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn find(&self, peer: P, id: u16) -> Option<&Entry<P, ANSWER_BYTES>> {
        self.entries.iter().rev().find(|entry| entry.peer == peer && entry.id == id)
    }
}

impl<P: Copy + Eq, const N: usize, const ANSWER_BYTES: usize> Default for Exchanges<P, N, ANSWER_BYTES> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec as List;

    const ENTRIES_MAX: usize = 8;

    /// The naive twin: everything that ever came, with the time it was last admitted as new.
    #[derive(Default)]
    struct Model(List<(u8, u16, Instant, Option<List<u8>>)>);

    impl Model {
        fn position(&self, now: Instant, peer: u8, id: u16) -> Option<usize> {
            let alive = self.0.len().saturating_sub(ENTRIES_MAX);
            let at = self.0.iter().rposition(|(p, i, _, _)| (*p, *i) == (peer, id))?;
            (at >= alive && self.0[at].2 + EXCHANGE_LIFETIME > now).then_some(at)
        }
    }

    proptest! {
        #[test]
        fn a_request_is_done_once_while_it_is_remembered(
            steps in prop::collection::vec((any::<bool>(), 0..3u8, 0..6u16, 0..60u64), 0..200),
        ) {
            let mut table = Exchanges::<u8, ENTRIES_MAX, 4>::new();
            let (mut model, mut now) = (Model::default(), Instant::ZERO);
            for (answered, peer, id, seconds) in steps {
                now += Duration::from_secs(seconds / 10);
                if answered {
                    let bytes = [peer, id.to_be_bytes()[1]];
                    let kept = table.answer(peer, id, &bytes).is_ok();
                    let at = model.0.iter().rposition(|(p, i, _, _)| (*p, *i) == (peer, id));
                    let at = at.filter(|at| *at >= model.0.len().saturating_sub(ENTRIES_MAX));
                    // Entries past their lifetime leave at the next admission, so the table may still hold one.
                    prop_assert!(!kept || at.is_some());
                    if let Some(at) = at {
                        model.0[at].3 = Some(bytes.to_vec());
                    }
                } else {
                    let expected = model.position(now, peer, id).map(|at| model.0[at].3.clone());
                    let admission = table.admit(now, peer, id);
                    match expected {
                        None => {
                            prop_assert_eq!(admission, Admission::New);
                            model.0.push((peer, id, now, None));
                        }
                        Some(None) => prop_assert_eq!(admission, Admission::InProgress),
                        Some(Some(bytes)) => prop_assert_eq!(admission, Admission::Answered(&bytes)),
                    }
                }
                prop_assert!(table.len() <= ENTRIES_MAX);
            }
        }
    }

    #[test]
    fn an_id_is_free_again_after_its_lifetime() {
        let mut table = Exchanges::<u8, 4, 4>::new();
        assert_eq!(table.admit(Instant::ZERO, 1, 7), Admission::New);
        table.answer(1, 7, b"ok").unwrap();
        let last = Instant::ZERO + EXCHANGE_LIFETIME - Duration::from_millis(1);
        assert_eq!(table.admit(last, 1, 7), Admission::Answered(b"ok"));
        assert_eq!(table.admit(Instant::ZERO + EXCHANGE_LIFETIME, 1, 7), Admission::New);
    }

    #[test]
    fn an_answer_too_long_to_keep_lets_the_request_be_done_again() {
        let mut table = Exchanges::<u8, 4, 4>::new();
        assert_eq!(table.admit(Instant::ZERO, 1, 7), Admission::New);
        assert_eq!(table.answer(1, 7, b"longer"), Err(NotKept::TooLong));
        assert_eq!(table.admit(Instant::ZERO, 1, 7), Admission::New);
    }

    #[test]
    fn the_oldest_request_makes_room_for_the_newest() {
        let mut table = Exchanges::<u8, 2, 4>::new();
        for id in 0..3 {
            assert_eq!(table.admit(Instant::ZERO, 1, id), Admission::New);
        }
        assert_eq!(table.answer(1, 0, b"ok"), Err(NotKept::Forgotten));
        assert_eq!(table.admit(Instant::ZERO, 1, 2), Admission::InProgress);
    }
}
