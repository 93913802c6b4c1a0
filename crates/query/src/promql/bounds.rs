//! The bounds of one query and what it has used of them. Time is not read here: whoever asks says when it is enough.

use std::cell::Cell;

use super::error::{Halt, QueryError};

/// Samples handled between two questions whether to go on.
const SAMPLES_BETWEEN_CHECKS: u64 = 8 * 1024;

/// What one query may take, and how it reads time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Most samples that are read and made in all, which bounds memory: eight bytes for each made, and what one series
    /// has in the range for those read.
    pub samples_max: u64,
    /// Most steps of a range query.
    pub steps_max: u64,
    /// Most series selected in all.
    pub series_max: u64,
    /// How far back an instant selector looks for a sample, in nanoseconds.
    pub lookback_ns: i64,
    /// The step of a subquery that names none, in nanoseconds.
    pub subquery_step_ns: i64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            samples_max: 10_000_000,
            steps_max: 11_000,
            series_max: 100_000,
            lookback_ns: 300_000_000_000,
            subquery_step_ns: 60_000_000_000,
        }
    }
}

/// What a running query has used.
pub(super) struct Budget<'a> {
    bounds: &'a Bounds,
    halt: &'a dyn Fn() -> Option<Halt>,
    samples: Cell<u64>,
    series: Cell<u64>,
    unchecked: Cell<u64>,
}

impl<'a> Budget<'a> {
    pub fn new(bounds: &'a Bounds, halt: &'a dyn Fn() -> Option<Halt>) -> Self {
        Self { bounds, halt, samples: Cell::new(0), series: Cell::new(0), unchecked: Cell::new(0) }
    }

    pub fn bounds(&self) -> &'a Bounds {
        self.bounds
    }

    /// Says that samples are read or made.
    pub fn samples(&self, count: usize) -> Result<(), QueryError> {
        let total = self.samples.get().saturating_add(count as u64);
        self.samples.set(total);
        if total > self.bounds.samples_max {
            return Err(QueryError::Samples { most: self.bounds.samples_max });
        }
        self.work(count)
    }

    /// Says that a series is selected.
    pub fn series(&self) -> Result<(), QueryError> {
        let total = self.series.get().saturating_add(1);
        self.series.set(total);
        if total > self.bounds.series_max {
            return Err(QueryError::Series { most: self.bounds.series_max });
        }
        self.work(1)
    }

    /// Says that samples are looked at, and asks now and then whether to go on.
    pub fn work(&self, count: usize) -> Result<(), QueryError> {
        let unchecked = self.unchecked.get().saturating_add(count as u64).saturating_add(1);
        if unchecked < SAMPLES_BETWEEN_CHECKS {
            self.unchecked.set(unchecked);
            return Ok(());
        }
        self.unchecked.set(0);
        (self.halt)().map_or(Ok(()), |halt| Err(halt.into()))
    }
}
