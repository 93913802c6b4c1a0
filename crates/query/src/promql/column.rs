//! Values over the steps of a query: the grid of instants, and one column of values for each series. An instant query is
//! a grid of one step. A column has a value or none at each step; none is the bit pattern that Prometheus writes for a
//! stale series, which no computation yields.

use std::collections::HashMap;

use super::error::{QueryError, execution};
use super::labels::Labels;

/// The bit pattern of no value, in columns and in points (where it says that a series ended).
pub const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;

/// No value.
pub(super) const ABSENT: f64 = f64::from_bits(STALE_BITS);

/// Whether there is a value.
pub(super) fn present(value: f64) -> bool {
    value.to_bits() != STALE_BITS
}

/// Nanoseconds of a millisecond.
pub(super) const MS: i64 = 1_000_000;

/// Seconds as Prometheus computes them: from whole milliseconds where there are no finer ones.
pub(super) fn seconds(ns: i64) -> f64 {
    if ns % MS == 0 { (ns / MS) as f64 / 1e3 } else { ns as f64 / 1e9 }
}

/// Equally spaced instants, in Unix nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    start: i64,
    step: i64,
    count: usize,
}

impl Grid {
    /// One instant.
    #[must_use]
    pub fn instant(at: i64) -> Self {
        Self { start: at, step: 1, count: 1 }
    }

    /// `start`, `start + step` and so on up to `end`; none if that is before `start`. A step below 1 is 1.
    #[must_use]
    pub fn new(start: i64, end: i64, step: i64) -> Self {
        let step = step.max(1);
        if end < start {
            return Self { start, step, count: 0 };
        }
        let steps = end.abs_diff(start) / step.unsigned_abs();
        Self { start, step, count: usize::try_from(steps).unwrap_or(usize::MAX).saturating_add(1) }
    }

    /// How many instants there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// The instant of a step.
    #[must_use]
    pub fn at(&self, step: usize) -> i64 {
        let steps = i64::try_from(step).unwrap_or(i64::MAX);
        self.start.saturating_add(self.step.saturating_mul(steps))
    }

    /// The instants in order.
    pub fn iter(&self) -> impl Iterator<Item = i64> + use<> {
        let grid = *self;
        (0..grid.count).map(move |step| grid.at(step))
    }

    pub(super) fn first(&self) -> i64 {
        self.start
    }

    pub(super) fn last(&self) -> i64 {
        self.at(self.count.saturating_sub(1))
    }
}

/// One series over the steps of a grid.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub labels: Labels,
    pub values: Vec<f64>,
}

impl Column {
    pub fn any(&self) -> bool {
        self.values.iter().any(|value| present(*value))
    }

    pub fn at(&self, step: usize) -> Option<f64> {
        self.values.get(step).copied().filter(|value| present(*value))
    }

    /// The column with each value mapped; `None` takes it away.
    pub fn mapped(mut self, labels: Labels, mut map: impl FnMut(usize, f64) -> Option<f64>) -> Self {
        for (step, value) in self.values.iter_mut().enumerate() {
            if present(*value) {
                *value = map(step, *value).unwrap_or(ABSENT);
            }
        }
        self.labels = labels;
        self
    }
}

pub(super) const SAME_LABELS: &str = "vector cannot contain metrics with the same labelset";

/// Columns by their labels. Two columns of one labelset are one as long as they never have values at the same step.
#[derive(Default)]
pub(super) struct Collector {
    columns: Vec<Column>,
    places: HashMap<Labels, usize>,
}

impl Collector {
    /// # Errors
    /// The first step at which both have a value.
    pub fn add(&mut self, column: Column) -> Result<(), QueryError> {
        self.add_or(column, || execution(SAME_LABELS))
    }

    pub fn add_or(&mut self, column: Column, error: impl Fn() -> QueryError) -> Result<(), QueryError> {
        if !column.any() {
            return Ok(());
        }
        let Some(old) = self.places.get(&column.labels).and_then(|at| self.columns.get_mut(*at)) else {
            self.places.insert(column.labels.clone(), self.columns.len());
            self.columns.push(column);
            return Ok(());
        };
        for (old, new) in old.values.iter_mut().zip(column.values) {
            if present(new) {
                if present(*old) {
                    return Err(error());
                }
                *old = new;
            }
        }
        Ok(())
    }

    /// The column of some labels, made when there is none.
    pub fn entry(&mut self, labels: Labels, steps: usize) -> Option<&mut Column> {
        let next = self.columns.len();
        let at = *self.places.entry(labels.clone()).or_insert(next);
        if at == next {
            self.columns.push(Column { labels, values: vec![ABSENT; steps] });
        }
        self.columns.get_mut(at)
    }

    pub fn len(&self) -> usize {
        self.columns.len()
    }

    pub fn finish(self) -> Vec<Column> {
        self.columns
    }
}

/// What an expression is at each step.
#[derive(Debug)]
pub(super) enum Value {
    Scalar(Vec<f64>),
    Vector(Vec<Column>),
    Text(String),
}
