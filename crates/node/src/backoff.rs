//! How long to wait before a connection is tried again: doubling from a quarter of a second to 15 s, with jitter, so that a thousand
//! gateways whose broker or cloud node comes back do not come back in one second. Randomness is handed in.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// Wait before the first repeated attempt, in milliseconds.
const BACKOFF_MS_MIN: u32 = 250;

/// Longest wait, in milliseconds.
const BACKOFF_MS_MAX: u32 = 15_000;

#[derive(Debug)]
pub(crate) struct Backoff {
    ms: u32,
}

impl Backoff {
    pub fn new() -> Self {
        Self { ms: BACKOFF_MS_MIN }
    }

    /// An attempt did its work; the next failure is the first again.
    pub fn reset(&mut self) {
        self.ms = BACKOFF_MS_MIN;
    }

    /// The wait after a failure: between half of the present bound and all of it.
    pub fn next(&mut self, random: u32) -> Duration {
        let half = self.ms / 2;
        let wait = half + random % (half + 1);
        self.ms = self.ms.saturating_mul(2).min(BACKOFF_MS_MAX);
        Duration::from_millis(u64::from(wait))
    }
}

/// Random bits for [`Backoff::next`]: the standard library keys its hash maps from the operating system's random numbers.
pub(crate) fn random() -> u32 {
    let [a, b, c, d, ..] = RandomState::new().build_hasher().finish().to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound_and_stay_within_their_half() {
        for random in [0, 1, 12_345, u32::MAX] {
            let mut backoff = Backoff::new();
            for doubling in 0..12 {
                let bound = (BACKOFF_MS_MIN << doubling.min(6)).min(BACKOFF_MS_MAX);
                let wait = backoff.next(random).as_millis();
                assert!(wait >= u128::from(bound / 2) && wait <= u128::from(bound), "{wait} of {bound}");
            }
            backoff.reset();
            assert!(backoff.next(random).as_millis() <= u128::from(BACKOFF_MS_MIN));
        }
    }
}
