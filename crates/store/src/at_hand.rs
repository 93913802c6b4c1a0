//! Whether a thread may wait for a disk. One that serves many others must not: it asks for what is at hand, in memory, and where
//! something is not, its question stays without an answer and is asked again by a thread that may wait. This knows nothing of what is
//! asked; whatever reads sealed segments, or looks for series in the catalogue, asks here first.

use std::cell::Cell;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Thread {
    MayWait,
    MustNotWait,
    /// Something that it asked for was not at hand.
    Missed,
}

thread_local! {
    static THREAD: Cell<Thread> = const { Cell::new(Thread::MayWait) };
}

/// Gives the thread back what it was before, even if its question panics.
struct Before(Thread);

impl Drop for Before {
    fn drop(&mut self) {
        THREAD.set(self.0);
    }
}

/// What `ask` says of points by what is in memory: series that were looked for before, tables, and what was read of segments lately.
/// `None` if it takes more, whatever `ask` said then. Only this thread is held to it.
pub fn at_hand<T>(ask: impl FnOnce() -> T) -> Option<T> {
    let before = Before(THREAD.replace(Thread::MustNotWait));
    let answer = ask();
    let missed = THREAD.get() == Thread::Missed;
    drop(before);
    (!missed).then_some(answer)
}

/// Whether this thread may read a disk now. If not, [`at_hand`] will say that something was missing.
pub(crate) fn may_wait() -> bool {
    let may = THREAD.get() == Thread::MayWait;
    if !may {
        THREAD.set(Thread::Missed);
    }
    may
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_would_have_waited_is_none_and_the_next_one_starts_afresh() {
        assert!(may_wait());
        assert_eq!(at_hand(|| 1), Some(1));
        assert_eq!(at_hand(may_wait), None);
        assert_eq!(at_hand(|| 2), Some(2), "what was missed is forgotten");
        assert_eq!(at_hand(|| std::thread::spawn(may_wait).join().ok()), Some(Some(true)));
        assert!(std::panic::catch_unwind(|| at_hand(|| panic!("a question"))).is_err());
        assert!(may_wait(), "it is what it was");
    }
}
