//! What one series has to do for a rule to fire, and what is remembered of the series to see it. Pure, and of points' own times
//! alone: a clock is only needed for what does not come, and its readings are arguments.
//!
//! ```text
//! level    begins above a limit that was held for a while, clears below another one     (below and above are the same, negated)
//! change   begins when the newest is so much above the lowest of a window, clears when it is not
//! missing  begins when no point has come for so long, clears with the next one
//! ```

use std::collections::VecDeque;
use std::time::Duration;

/// A window is kept as the lowest value of each of so many parts, so its memory does not grow with what comes. It reaches back
/// at least as far as was asked for, and at most by one part further.
pub(super) const WINDOW_PARTS: i64 = 60;

/// Which way is up for a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Up,
    Down,
}

impl Direction {
    fn of(self, value: f64) -> f64 {
        match self {
            Self::Up => value,
            Self::Down => -value,
        }
    }
}

/// When a rule begins and when it clears.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Condition {
    /// Beyond `begins` over points that span `held_ns`, until it is short of `clears`.
    Level { direction: Direction, begins: f64, clears: f64, held_ns: i64 },
    /// By so much away from the farthest value of the window.
    Change { direction: Direction, by: f64, within_ns: i64 },
    /// No point for so long, by arrival.
    Missing { silence: Duration },
}

/// What is remembered of one series for one rule.
#[derive(Clone, Debug)]
pub(super) struct Track {
    /// Whether the rule has begun and not cleared.
    pub firing: bool,
    /// When it last began or cleared, ns; later ones are told with later times.
    pub changed_ns: i64,
    /// Time of the newest point that was judged, ns.
    pub newest_ns: i64,
    /// When a point last came, by a clock that nobody sets.
    pub heard: Duration,
    newest: f64,
    /// Since when every point is beyond the limit.
    beyond_since: Option<i64>,
    /// The lowest value of each part of the window, by the part's number, oldest first.
    lowest: VecDeque<(i64, f64)>,
}

impl Track {
    pub fn new(now: Duration) -> Self {
        Self {
            firing: false,
            changed_ns: i64::MIN,
            newest_ns: i64::MIN,
            heard: now,
            newest: f64::NAN,
            beyond_since: None,
            lowest: VecDeque::new(),
        }
    }

    /// Takes a point that is newer than all before it. After a pause of more than `pause_ns` nothing before it counts.
    pub fn observe(&mut self, condition: &Condition, pause_ns: i64, at_ns: i64, value: f64) {
        if at_ns.saturating_sub(self.newest_ns) > pause_ns {
            self.beyond_since = None;
            self.lowest.clear();
        }
        (self.newest_ns, self.newest) = (at_ns, value);
        match *condition {
            Condition::Level { direction, begins, .. } => {
                let is_beyond = direction.of(value) > direction.of(begins);
                self.beyond_since = is_beyond.then(|| self.beyond_since.unwrap_or(at_ns));
            }
            Condition::Change { direction, within_ns, .. } => {
                let part = at_ns.div_euclid((within_ns / WINDOW_PARTS).max(1));
                self.lowest.retain(|(of, _)| part.saturating_sub(*of) <= WINDOW_PARTS);
                let value = direction.of(value);
                match self.lowest.back_mut().filter(|(of, _)| *of == part) {
                    Some((_, lowest)) => *lowest = lowest.min(value),
                    None => self.lowest.push_back((part, value)),
                }
            }
            Condition::Missing { .. } => {}
        }
    }

    /// Whether the rule fires after what was observed.
    pub fn should_fire(&self, condition: &Condition) -> bool {
        match *condition {
            Condition::Level { direction, clears, .. } if self.firing => {
                direction.of(self.newest) >= direction.of(clears)
            }
            Condition::Level { held_ns, .. } => {
                self.beyond_since.is_some_and(|since| self.newest_ns.saturating_sub(since) >= held_ns)
            }
            Condition::Change { direction, by, .. } => {
                let newest = direction.of(self.newest);
                self.lowest.iter().any(|(_, lowest)| newest - lowest >= by)
            }
            Condition::Missing { .. } => self.firing,
        }
    }

    /// The newest value, if there is one.
    pub fn value(&self) -> Option<f64> {
        (!self.newest.is_nan()).then_some(self.newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fires(condition: Condition, points: &[(i64, f64)]) -> Vec<bool> {
        let mut track = Track::new(Duration::ZERO);
        let judged = points.iter().map(|(at, value)| {
            track.observe(&condition, 1_000, *at, *value);
            track.firing = track.should_fire(&condition);
            track.firing
        });
        judged.collect()
    }

    #[test]
    fn a_level_begins_beyond_one_limit_and_clears_short_of_the_other() {
        let up = Condition::Level { direction: Direction::Up, begins: 30.0, clears: 28.0, held_ns: 0 };
        let points = [(1, 30.0), (2, 30.1), (3, 28.0), (4, 27.9), (5, 29.0), (6, 31.0)];
        assert_eq!(fires(up, &points), [false, true, true, false, false, true]);
        let down = Condition::Level { direction: Direction::Down, begins: -30.0, clears: -28.0, held_ns: 0 };
        assert_eq!(fires(down, &points.map(|(at, value)| (at, -value))), fires(up, &points));
    }

    #[test]
    fn a_level_that_must_be_held_begins_with_the_point_that_shows_it() {
        let held = Condition::Level { direction: Direction::Up, begins: 1.0, clears: 1.0, held_ns: 10 };
        let points = [(0, 2.0), (5, 0.0), (6, 2.0), (15, 2.0), (16, 2.0), (17, 1.0), (18, 0.5)];
        assert_eq!(fires(held, &points), [false, false, false, false, true, true, false]);
        assert_eq!(
            fires(held, &[(0, 2.0), (2_000, 2.0), (2_010, 2.0)]),
            [false, false, true],
            "a pause begins anew"
        );
    }

    proptest! {
        /// The model keeps every point and looks through all of them.
        #[test]
        fn a_change_is_against_the_farthest_value_of_the_window(
            steps in prop::collection::vec((1..900i64, -5..5i32), 1..60), by in 1..6i32, within in 60..2_000i64, down: bool,
        ) {
            let direction = if down { Direction::Down } else { Direction::Up };
            let mut at = 0;
            let points: Vec<(i64, f64)> = steps.iter().map(|(pause, value)| { at += pause; (at, f64::from(*value)) }).collect();
            let part = |at: i64| at.div_euclid(within / WINDOW_PARTS);
            let expected: Vec<bool> = points.iter().enumerate().map(|(n, (at, value))| {
                let window = points[..=n].iter().filter(|(before, _)| part(*at) - part(*before) <= WINDOW_PARTS);
                window.into_iter().any(|(_, before)| if down { before - value } else { value - before } >= f64::from(by))
            }).collect();
            prop_assert_eq!(fires(Condition::Change { direction, by: f64::from(by), within_ns: within }, &points), expected);
        }
    }
}
