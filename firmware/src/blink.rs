//! Showing a person which board this is: for how long, and how the light is at a moment. What lights there are is the board's to know.

use tidelog_lowpan::time::{Duration, Instant};

/// How long the light stays as it is.
const HALF: Duration = Duration::from_millis(500);

/// Blinking, or not.
#[derive(Debug, Clone, Copy, Default)]
pub struct Blink {
    until: Option<Instant>,
}

impl Blink {
    /// Blinks for so many seconds; 0 ends it.
    pub fn start(&mut self, now: Instant, seconds: u8) {
        self.until = Some(now + Duration::from_secs(u64::from(seconds)));
    }

    /// Whether the light is lit; `None`: nothing is shown.
    #[must_use]
    pub fn lit(&self, now: Instant) -> Option<bool> {
        let half = i64::try_from(HALF.total_micros()).unwrap_or(i64::MAX);
        self.until.filter(|until| now < *until).map(|_| now.total_micros() / half % 2 == 0)
    }

    /// When it has to be asked again at the latest; `None`: not before it is started.
    #[must_use]
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let half = i64::try_from(HALF.total_micros()).unwrap_or(i64::MAX);
        let next = Instant::from_micros((now.total_micros() / half + 1) * half);
        self.until.filter(|until| now < *until).map(|until| until.min(next))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    #[test]
    fn the_light_changes_each_half_second_until_the_time_is_over() {
        let mut blink = Blink::default();
        let mut now = Instant::from_millis(10_200);
        assert_eq!((blink.lit(now), blink.due(now)), (None, None));
        blink.start(now, 2);
        let mut seen = Vec::new();
        while let Some(due) = blink.due(now) {
            seen.push((now.total_millis(), blink.lit(now)));
            now = due;
        }
        assert_eq!(
            seen,
            [(10_200, true), (10_500, false), (11_000, true), (11_500, false), (12_000, true)]
                .map(|(ms, lit)| (ms, Some(lit)))
        );
        assert_eq!((now.total_millis(), blink.lit(now)), (12_200, None));
        blink.start(now, 0);
        assert_eq!((blink.lit(now), blink.due(now)), (None, None));
    }
}
