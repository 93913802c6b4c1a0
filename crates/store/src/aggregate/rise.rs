//! How a counter rose within one step: exactly, until the rate is told.

use super::number::Number;
use super::quotient;
use crate::exact::ExactSum;

const NS_PER_S: f64 = 1e9;

/// A counter's points in a step so far.
#[derive(Clone, Debug)]
pub(super) struct Rise {
    first: (i64, Number),
    last: (i64, Number),
    /// What it had reached when it began again, each time.
    reached: ExactSum,
}

impl Rise {
    pub fn new(time: i64, number: Number) -> Self {
        Self { first: (time, number), last: (time, number), reached: ExactSum::new() }
    }

    /// The next point, which is finite as the first was.
    pub fn add(&mut self, time: i64, number: Number) {
        if number.compare(self.last.1).is_lt() {
            add(&mut self.reached, self.last.1);
        }
        self.last = (time, number);
    }

    /// What it rose in a second; none where no time passed.
    pub fn per_second(&self) -> Option<f64> {
        let ns = self.last.0.abs_diff(self.first.0);
        if ns == 0 {
            return None;
        }
        let mut rose = self.reached.clone();
        add(&mut rose, self.last.1);
        match self.first.1 {
            Number::Whole(whole) => rose.add_decimal_sum(-i128::from(whole) * 1_000_000_000, 1),
            Number::Float(float) => rose.add(-float),
        }
        Some(quotient(rose.value(), ns as f64 / NS_PER_S))
    }
}

fn add(sum: &mut ExactSum, number: Number) {
    match number {
        Number::Whole(whole) => sum.add_i64(whole),
        Number::Float(float) => sum.add(float),
    }
}
