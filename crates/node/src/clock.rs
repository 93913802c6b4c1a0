//! Whether the machine's clock can be trusted to say what is too old. A router without a battery wakes up in the past and is set right
//! by the network some minutes later; a clock that was just set may be set again. Pure: both clocks are arguments.

use std::time::Duration;

/// No clock is before this version of the program: 2026-01-01, Unix seconds.
const EARLIEST_S: u64 = 1_767_225_600;
/// The same, Unix milliseconds.
pub(crate) const EARLIEST_MS: i64 = EARLIEST_S.cast_signed() * 1000;
/// How long a clock must have run evenly.
const EVEN_FOR: Duration = Duration::from_secs(600);
/// How far it may stray from even meanwhile.
const STRAYS_MOST: Duration = Duration::from_secs(60);

/// Watches the machine's clock.
#[derive(Debug, Default)]
pub(crate) struct ClockWatch {
    /// Since when it has run evenly: by itself, and by a clock that nobody sets.
    even_since: Option<(Duration, Duration)>,
}

impl ClockWatch {
    /// The time as Unix nanoseconds if it can be trusted. `wall` is the machine's clock since 1970, `steady` one that nobody sets.
    pub fn trusted_ns(&mut self, wall: Duration, steady: Duration) -> Option<i64> {
        let (wall_then, steady_then) = *self.even_since.get_or_insert((wall, steady));
        let expected = wall_then + steady.saturating_sub(steady_then);
        if wall.abs_diff(expected) > STRAYS_MOST {
            self.even_since = Some((wall, steady));
            return None;
        }
        let long_enough = steady.saturating_sub(steady_then) >= EVEN_FOR && wall.as_secs() >= EARLIEST_S;
        long_enough.then(|| i64::try_from(wall.as_nanos()).ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(EARLIEST_S + 1_000_000);
    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_clock_is_trusted_once_it_has_run_evenly_for_ten_minutes() {
        let mut watch = ClockWatch::default();
        for minute in 0..20u32 {
            let trusted = watch.trusted_ns(NOW + MINUTE * minute, MINUTE * minute);
            assert_eq!(trusted.is_some(), minute >= 10, "{minute}");
        }
        assert_eq!(watch.trusted_ns(NOW + MINUTE * 2_000, MINUTE * 21), None, "it jumped");
        for minute in 22..40u32 {
            let trusted = watch.trusted_ns(NOW + MINUTE * (1_979 + minute), MINUTE * minute);
            assert_eq!(trusted.is_some(), minute >= 31, "{minute}");
        }
    }

    #[test]
    fn a_clock_in_the_past_is_not_trusted_until_it_is_set_right() {
        let mut watch = ClockWatch::default();
        for minute in 0..100u32 {
            assert_eq!(watch.trusted_ns(MINUTE * minute, MINUTE * minute), None);
        }
    }
}
