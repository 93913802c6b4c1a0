//! Aggregates by fixed steps, of one series or of several together. Pure: points or a section's statistics go in, values by step
//! come out, and nothing here reads a disk or knows where points come from.
//!
//! Equal points give equal bytes, however they are split into sections and points and in whatever order series are merged
//! (invariant 7): sums are exact until they are told ([`ExactSum`]), and everything else picks values by a total order. What
//! counts for which function says [`Function`].

mod number;
mod rise;
mod steps;

use std::ops::Range;

use tidelog_record::{Value, Values};

use crate::exact::ExactSum;
use crate::segment::Section;
use number::{NAN, Number};
use rise::Rise;
pub use steps::{STEPS_MAX, Steps, StepsError};

/// What is told of the points in a step. All work on one series and on several together. A truth value counts as 0 or 1 where
/// numbers count; a text is no number, and a function of numbers has no value in a step without numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Function {
    /// How many points there are, of any kind: a whole number.
    Count,
    /// The float nearest to the exact sum of the numbers. NaN if one of them is, or if both infinities are among them.
    Sum,
    /// The least number, of the kind that it was written in. NaN only where there is nothing but NaN. Where numbers are worth the
    /// same, a whole number is less than a float and -0.0 less than 0.0.
    Min,
    /// The greatest number; see [`Function::Min`].
    Max,
    /// The sum divided by how many numbers there are, over all series, each number counting as one.
    Mean,
    /// The value of any kind at the least time; of several series' values at that time the greatest (invariant 8's order).
    First,
    /// The value of any kind at the greatest time; of several series' values at that time the greatest.
    Last,
    /// How fast a counter rises, per second: what it rose from each point of the step to the next, over the time between the first
    /// and the last of them. A number less than the one before says that the counter began again from nothing, so it rose by that
    /// number, as in Prometheus; unlike there, nothing is extrapolated to the ends of the step. What it rose between the last
    /// point of a step and the first of the next counts in neither. NaN and infinities are passed over. Steps with fewer than two numbers have no
    /// rate. Rates of several series are added.
    Rate,
}

impl Function {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Count, Self::Sum, Self::Min, Self::Max, Self::Mean, Self::First, Self::Last, Self::Rate];

    /// As it is written in a question.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Min => "min",
            Self::Max => "max",
            Self::Mean => "mean",
            Self::First => "first",
            Self::Last => "last",
            Self::Rate => "rate",
        }
    }

    /// The function of a name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|function| function.name() == name)
    }
}

/// Two accumulators whose steps or functions differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("aggregates by other steps or of other functions cannot be merged")]
pub struct Unlike;

/// Values by step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aggregates {
    /// First times of the steps that have points, ascending, in ns.
    pub starts: Vec<i64>,
    /// A column for each function in the order asked, with a value or none for each of the steps.
    pub columns: Vec<Vec<Option<Value>>>,
}

/// What has to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wants {
    sums: bool,
    extremes: bool,
    ends: bool,
    rates: bool,
}

impl Wants {
    fn of(functions: &[Function]) -> Self {
        let any = |of: &[Function]| functions.iter().any(|function| of.contains(function));
        Self {
            sums: any(&[Function::Sum, Function::Mean]),
            extremes: any(&[Function::Min, Function::Max]),
            ends: any(&[Function::First, Function::Last]),
            rates: any(&[Function::Rate]),
        }
    }
}

/// Least and greatest number of a step.
#[derive(Clone, Copy, Debug)]
enum Extremes {
    None,
    OnlyNan,
    Of(Number, Number),
}

impl Extremes {
    fn add(&mut self, number: Number) {
        self.add_pair(number, number);
    }

    fn add_pair(&mut self, least: Number, greatest: Number) {
        if least.is_nan() || greatest.is_nan() {
            if matches!(self, Self::None) {
                *self = Self::OnlyNan;
            }
            return;
        }
        *self = match *self {
            Self::Of(min, max) => Self::Of(
                if least.order(min).is_lt() { least } else { min },
                if greatest.order(max).is_gt() { greatest } else { max },
            ),
            _ => Self::Of(least, greatest),
        };
    }

    fn merge(&mut self, other: Self) {
        match other {
            Self::None => {}
            Self::OnlyNan => self.add(Number::Float(NAN)),
            Self::Of(min, max) => self.add_pair(min, max),
        }
    }

    fn told(self, greatest: bool) -> Option<Value> {
        match self {
            Self::None => None,
            Self::OnlyNan => Some(Value::F64(NAN)),
            Self::Of(min, max) => Some(if greatest { max } else { min }.value()),
        }
    }
}

/// First and last value of a step, with their times.
#[derive(Clone, Debug)]
struct Ends {
    first: (i64, Value),
    last: (i64, Value),
}

impl Ends {
    fn merge(&mut self, other: Self) {
        let (a, b) = (&self.first, &other.first);
        if b.0 < a.0 || (b.0 == a.0 && b.1 > a.1) {
            self.first = other.first;
        }
        if other.last > self.last {
            self.last = other.last;
        }
    }
}

/// Gathers what the functions asked need to know of each step. Columns that no function needs are empty.
#[derive(Clone, Debug)]
pub struct Accumulator {
    steps: Steps,
    functions: Vec<Function>,
    wants: Wants,
    counts: Vec<u64>,
    sums: Vec<ExactSum>,
    extremes: Vec<Extremes>,
    ends: Vec<Option<Ends>>,
    rates: Vec<ExactSum>,
    /// The step that the series at hand rises in: its points come in order, so there is one.
    rising: Option<(usize, Rise)>,
}

impl Accumulator {
    /// Nothing gathered yet. Memory is up to some 300 bytes a step.
    #[must_use]
    pub fn new(steps: &Steps, functions: &[Function]) -> Self {
        let wants = Wants::of(functions);
        let count = |wanted: bool| if wanted { steps.count() } else { 0 };
        Self {
            steps: steps.clone(),
            functions: functions.to_vec(),
            wants,
            counts: vec![0; steps.count()],
            sums: vec![ExactSum::new(); count(wants.sums)],
            extremes: vec![Extremes::None; count(wants.extremes)],
            ends: vec![None; count(wants.ends)],
            rates: vec![ExactSum::new(); count(wants.rates)],
            rising: None,
        }
    }

    /// Takes points of one series in ascending order of time, each time once, behind those that it was given of this series
    /// before. What is outside of the range of steps does not count.
    pub fn points(&mut self, times: &[i64], values: &Values, range: Range<usize>) {
        let end = range.end.min(times.len()).min(values.len());
        let Some(mut rest) = times.get(range.start..end) else { return };
        let (first, last) = self.steps.range().into_inner();
        let mut at = range.start + rest.partition_point(|time| *time < first);
        rest = times.get(at..end).unwrap_or_default();
        rest = rest.get(..rest.partition_point(|time| *time <= last)).unwrap_or_default();
        while let Some(step) = rest.first().and_then(|time| self.steps.step_of(*time)) {
            let last = self.steps.last_of(step);
            let inside = match rest.last() {
                Some(time) if *time > last => rest.partition_point(|time| *time <= last),
                _ => rest.len(),
            };
            let (run, behind) = rest.split_at(inside);
            self.run(step, run, values, at);
            at += inside;
            rest = behind;
        }
    }

    /// Takes points of one step; their values begin at `from`.
    fn run(&mut self, step: usize, times: &[i64], values: &Values, from: usize) {
        let range = from..from + times.len();
        if let Some(count) = self.counts.get_mut(step) {
            *count += times.len() as u64;
        }
        if let Some(sum) = self.sums.get_mut(step) {
            add_values(sum, values, range.clone());
        }
        if let Some(extremes) = self.extremes.get_mut(step) {
            extend_extremes(extremes, values, range.clone());
        }
        if let Some(ends) = self.ends.get_mut(step)
            && let (Some(first), Some(last)) = (times.first(), times.last())
            && let (Some(first_value), Some(last_value)) =
                (values.get(range.start), values.get(range.end - 1))
        {
            join(ends, Ends { first: (*first, first_value), last: (*last, last_value) });
        }
        if self.wants.rates {
            for (time, at) in times.iter().zip(range) {
                if let Some(number) = number_at(values, at).filter(|number| number.is_finite()) {
                    self.rise(step, *time, number);
                }
            }
        }
    }

    fn rise(&mut self, step: usize, time: i64, number: Number) {
        match &mut self.rising {
            Some((at, rise)) if *at == step => rise.add(time, number),
            _ => {
                self.end_series();
                self.rising = Some((step, Rise::new(time, number)));
            }
        }
    }

    /// Takes a whole section without its points, if it lies in one step and its statistics say all that the functions ask. False
    /// says that its points are needed; then nothing was taken.
    #[must_use]
    pub fn whole(&mut self, section: &Section) -> bool {
        let (start, end) = self.steps.range().into_inner();
        if section.count == 0 || section.last_ts < start || section.first_ts > end {
            return true;
        }
        let Some(step) = self.steps.step_of(section.first_ts) else { return false };
        let wants = self.wants;
        if wants.rates || self.steps.step_of(section.last_ts) != Some(step) {
            return false;
        }
        if wants.sums || wants.extremes || wants.ends {
            let Some(stats) = &section.stats else { return false };
            let extremes = (Number::of(&stats.min), Number::of(&stats.max));
            let (Some(min), Some(max)) = extremes else { return false };
            if wants.sums {
                let (Some(total), Some(sum)) = (stats.sum, self.sums.get_mut(step)) else { return false };
                sum.add_decimal_sum(total, section.count);
            }
            if let Some(extremes) = self.extremes.get_mut(step) {
                extremes.add_pair(min, max);
            }
            if let Some(ends) = self.ends.get_mut(step) {
                let first = (section.first_ts, stats.first.clone());
                join(ends, Ends { first, last: (section.last_ts, stats.last.clone()) });
            }
        }
        if let Some(count) = self.counts.get_mut(step) {
            *count += section.count;
        }
        true
    }

    /// The series at hand has no more points; those of another may follow.
    pub fn end_series(&mut self) {
        if let Some((step, rise)) = self.rising.take()
            && let Some(rate) = rise.per_second()
            && let Some(rates) = self.rates.get_mut(step)
        {
            rates.add(rate);
        }
    }

    /// Takes what was gathered of other series.
    ///
    /// # Errors
    /// [`Unlike`] when that was by other steps or for other functions; then nothing was taken.
    pub fn merge(&mut self, other: &Self) -> Result<(), Unlike> {
        if self.steps != other.steps || self.wants != other.wants {
            return Err(Unlike);
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        self.sums.iter_mut().zip(&other.sums).for_each(|(sum, more)| sum.merge(more));
        self.extremes.iter_mut().zip(&other.extremes).for_each(|(extremes, more)| extremes.merge(*more));
        for (ends, more) in self.ends.iter_mut().zip(&other.ends) {
            if let Some(more) = more {
                join(ends, more.clone());
            }
        }
        self.rates.iter_mut().zip(&other.rates).for_each(|(rates, more)| rates.merge(more));
        if let Some((step, rise)) = &other.rising
            && let Some(rate) = rise.per_second()
            && let Some(rates) = self.rates.get_mut(*step)
        {
            rates.add(rate);
        }
        Ok(())
    }

    /// Values by step.
    #[must_use]
    pub fn finish(mut self) -> Aggregates {
        self.end_series();
        let steps: Vec<usize> =
            self.counts.iter().enumerate().filter(|(_, count)| **count > 0).map(|(step, _)| step).collect();
        let column = |function: &Function| steps.iter().map(|step| self.told(*function, *step)).collect();
        Aggregates {
            starts: steps.iter().map(|step| self.steps.start_of(*step)).collect(),
            columns: self.functions.iter().map(column).collect(),
        }
    }

    fn told(&self, function: Function, step: usize) -> Option<Value> {
        let sum = || self.sums.get(step).filter(|sum| sum.count() > 0);
        match function {
            Function::Count => {
                self.counts.get(step).map(|count| Value::I64(i64::try_from(*count).unwrap_or(i64::MAX)))
            }
            Function::Sum => sum().map(|sum| Value::F64(sum.value())),
            Function::Mean => sum().map(|sum| Value::F64(quotient(sum.value(), sum.count() as f64))),
            Function::Min => self.extremes.get(step)?.told(false),
            Function::Max => self.extremes.get(step)?.told(true),
            Function::First => Some(self.ends.get(step)?.as_ref()?.first.1.clone()),
            Function::Last => Some(self.ends.get(step)?.as_ref()?.last.1.clone()),
            Function::Rate => {
                let rates = self.rates.get(step).filter(|rates| rates.count() > 0);
                rates.map(|rates| Value::F64(rates.value()))
            }
        }
    }
}

/// A quotient whose NaN has one spelling.
fn quotient(a: f64, b: f64) -> f64 {
    let quotient = a / b;
    if quotient.is_nan() { NAN } else { quotient }
}

fn join(ends: &mut Option<Ends>, more: Ends) {
    match ends {
        Some(ends) => ends.merge(more),
        None => *ends = Some(more),
    }
}

fn number_at(values: &Values, at: usize) -> Option<Number> {
    match values {
        Values::F64(all) => all.get(at).copied().map(Number::Float),
        Values::I64(all) => all.get(at).copied().map(Number::Whole),
        Values::Bool(all) => all.get(at).map(|truth| Number::Whole(i64::from(*truth))),
        Values::Text(_) => None,
        Values::Mixed(all) => all.get(at).and_then(Number::of),
    }
}

fn add_values(sum: &mut ExactSum, values: &Values, range: Range<usize>) {
    match values {
        Values::F64(all) => sum.add_f64s(all.get(range).unwrap_or_default()),
        Values::I64(all) => sum.add_i64s(all.get(range).unwrap_or_default()),
        Values::Text(_) => {}
        Values::Bool(_) | Values::Mixed(_) => {
            for number in range.filter_map(|at| number_at(values, at)) {
                match number {
                    Number::Whole(whole) => sum.add_i64(whole),
                    Number::Float(float) => sum.add(float),
                }
            }
        }
    }
}

fn extend_extremes(extremes: &mut Extremes, values: &Values, range: Range<usize>) {
    match values {
        Values::F64(all) => {
            let run = all.get(range).unwrap_or_default();
            let (mut min, mut max) = (f64::INFINITY, f64::NEG_INFINITY);
            let (mut ordinary, mut zero) = (true, false);
            for float in run {
                // No branch: the loop is for vectors.
                ordinary &= !float.is_nan();
                zero |= *float == 0.0;
                min = if *float < min { *float } else { min };
                max = if *float > max { *float } else { max };
            }
            if ordinary && !zero && !run.is_empty() {
                extremes.add_pair(Number::Float(min), Number::Float(max));
            } else {
                run.iter().for_each(|float| extremes.add(Number::Float(*float)));
            }
        }
        Values::I64(all) => {
            let run = all.get(range).unwrap_or_default();
            if let (Some(min), Some(max)) = (run.iter().min(), run.iter().max()) {
                extremes.add_pair(Number::Whole(*min), Number::Whole(*max));
            }
        }
        Values::Text(_) => {}
        Values::Bool(_) | Values::Mixed(_) => {
            range.filter_map(|at| number_at(values, at)).for_each(|number| extremes.add(number));
        }
    }
}

#[cfg(test)]
mod tests;
