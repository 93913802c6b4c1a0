//! Steps: a range of time in equal pieces. Step `k` is what lies from `start + k × step` to before `start + (k + 1) × step`, and
//! ends with the range at the latest. It knows no points.

use std::ops::RangeInclusive;

/// Most steps of one range; as many as in Prometheus.
pub const STEPS_MAX: u64 = 11_000;

/// Why a range has no such steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepsError {
    /// It ends before it begins.
    #[error("the range ends before it begins")]
    EmptyRange,
    /// A step must be longer than nothing.
    #[error("a step is at least one nanosecond")]
    NoStep,
    /// More than [`STEPS_MAX`].
    #[error("{count} steps, the most is {STEPS_MAX}: ask for a longer step or a shorter range")]
    TooMany {
        /// How many there would be; what is too many to count is counted as the greatest number.
        count: u64,
    },
}

/// A range of time in equal steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steps {
    start: i64,
    end: i64,
    step_ns: u64,
    count: usize,
}

impl Steps {
    /// Steps of so many nanoseconds over a range; both of its ends are in it.
    ///
    /// # Errors
    /// [`StepsError`].
    pub fn new(range: RangeInclusive<i64>, step_ns: i64) -> Result<Self, StepsError> {
        let step_ns = u64::try_from(step_ns).ok().filter(|step| *step > 0).ok_or(StepsError::NoStep)?;
        Self::of(range, step_ns)
    }

    /// The whole range as one step.
    ///
    /// # Errors
    /// [`StepsError::EmptyRange`].
    pub fn one(range: RangeInclusive<i64>) -> Result<Self, StepsError> {
        Self::of(range, u64::MAX).map(|steps| Self { count: 1, ..steps })
    }

    fn of(range: RangeInclusive<i64>, step_ns: u64) -> Result<Self, StepsError> {
        if range.is_empty() {
            return Err(StepsError::EmptyRange);
        }
        let (start, end) = range.into_inner();
        let count = (end.abs_diff(start) / step_ns).saturating_add(1);
        let fits = usize::try_from(count).ok().filter(|_| count <= STEPS_MAX);
        Ok(Self { start, end, step_ns, count: fits.ok_or(StepsError::TooMany { count })? })
    }

    /// How many there are, at least one.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// The whole range.
    #[must_use]
    pub fn range(&self) -> RangeInclusive<i64> {
        self.start..=self.end
    }

    /// The step that a time lies in.
    #[must_use]
    pub fn step_of(&self, time: i64) -> Option<usize> {
        if !self.range().contains(&time) {
            return None;
        }
        let step = usize::try_from(time.abs_diff(self.start) / self.step_ns).unwrap_or(usize::MAX);
        // The one step of all time is a nanosecond longer than its length can say.
        Some(step.min(self.count - 1))
    }

    /// The first time of a step, in ns; of one that is not there, the range's end.
    #[must_use]
    pub fn start_of(&self, step: usize) -> i64 {
        self.boundary(step).unwrap_or(self.end)
    }

    /// The last time of a step, in ns.
    #[must_use]
    pub fn last_of(&self, step: usize) -> i64 {
        let next = if step + 1 < self.count { self.boundary(step + 1) } else { None };
        next.map_or(self.end, |next| next - 1)
    }

    fn boundary(&self, step: usize) -> Option<i64> {
        let offset = self.step_ns.checked_mul(u64::try_from(step).ok()?)?;
        self.start.checked_add_unsigned(offset).filter(|at| *at <= self.end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_that_have_no_such_steps_are_refused() {
        assert_eq!(Steps::new(RangeInclusive::new(2, 1), 1), Err(StepsError::EmptyRange));
        assert_eq!(Steps::new(1..=1, 0), Err(StepsError::NoStep));
        assert_eq!(Steps::new(1..=1, i64::MIN), Err(StepsError::NoStep));
        assert_eq!(Steps::new(0..=11_000, 1), Err(StepsError::TooMany { count: 11_001 }));
        assert_eq!(Steps::new(i64::MIN..=i64::MAX, 1), Err(StepsError::TooMany { count: u64::MAX }));
        assert_eq!(Steps::new(0..=10_999, 1).unwrap().count(), 11_000);
    }

    #[test]
    fn all_time_is_one_step() {
        let all = Steps::one(i64::MIN..=i64::MAX).unwrap();
        assert_eq!((all.count(), all.start_of(0), all.last_of(0)), (1, i64::MIN, i64::MAX));
        assert!([i64::MIN, -1, 0, i64::MAX].into_iter().all(|time| all.step_of(time) == Some(0)));
    }

    proptest! {
        #[test]
        fn steps_tile_the_range(
            start in prop_oneof![-50i64..50, Just(i64::MIN), Just(i64::MAX - 40)], length in 0i64..40, step in 1i64..50,
        ) {
            let end = start + length;
            let steps = Steps::new(start..=end, step).unwrap();
            for time in start..=end {
                let at = usize::try_from((i128::from(time) - i128::from(start)) / i128::from(step)).unwrap();
                prop_assert_eq!(steps.step_of(time), Some(at));
                prop_assert!((steps.start_of(at)..=steps.last_of(at)).contains(&time));
            }
            prop_assert_eq!((steps.start_of(0), steps.last_of(steps.count() - 1)), (start, end));
            for at in 1..steps.count() {
                prop_assert_eq!(steps.start_of(at) - 1, steps.last_of(at - 1));
            }
            prop_assert_eq!(start.checked_sub(1).and_then(|time| steps.step_of(time)), None);
            prop_assert_eq!(end.checked_add(1).and_then(|time| steps.step_of(time)), None);
        }
    }
}
