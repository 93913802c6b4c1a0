//! How long one side of a session has lacked what the other has: from now and then a note of how much there was, kept for the life of
//! the process and longer than a session. Older notes get sparser, so the answer is exact to the second for what is new and coarser for what is old; it
//! is never too small. What was behind before the process began counts from the first note.

use std::collections::VecDeque;
use std::time::Duration;

/// Notes kept for one peer and side.
const NOTES_MAX: usize = 64;

/// Notes about one side: how many records there were at a time.
#[derive(Clone, Debug, Default)]
pub(super) struct Lag {
    notes: VecDeque<(Duration, u64)>,
}

impl Lag {
    /// At `now` there are `records` in all. Time never goes back.
    pub fn note(&mut self, now: Duration, records: u64) {
        if self.notes.len() >= NOTES_MAX {
            // Every second note of the older half goes.
            let mut index = 0;
            self.notes.retain(|_| {
                index += 1;
                index > NOTES_MAX / 2 || index % 2 == 1
            });
        }
        self.notes.push_back((now, records));
    }

    /// For how long at least one record has been there that is not among the first `reached`.
    pub fn since(&self, now: Duration, reached: u64) -> Option<Duration> {
        let before = self.notes.iter().rev().find(|(_, records)| *records <= reached);
        before.or(self.notes.front()).map(|(at, _)| now.saturating_sub(*at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_never_shorter_than_the_truth_and_exact_to_a_note_for_what_is_new() {
        let (mut lag, second) = (Lag::default(), Duration::from_secs(1));
        assert_eq!(lag.since(second, 0), None);
        // Ten records a second, for an hour.
        for s in 0..3600 {
            lag.note(second * s, u64::from(s) * 10);
            assert!(lag.notes.len() <= NOTES_MAX);
        }
        let now = second * 3600;
        for behind_s in 1..3500u32 {
            let reached = u64::from(3600 - behind_s) * 10;
            let said = lag.since(now, reached).unwrap();
            assert!(said >= second * behind_s, "{behind_s}: {said:?}");
            if behind_s < 20 {
                assert!(said <= second * (behind_s + 1), "{behind_s}: {said:?}");
            }
        }
    }
}
