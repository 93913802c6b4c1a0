//! Functions over range vectors: which samples lie in the window of each step, and which function looks at them. What
//! the functions compute stands in `counters`, `over_time` and `trend`.

use promql_parser::label::{METRIC_NAME, MatchOp};
use promql_parser::parser::{Call, Expr, VectorSelector};

use super::column::{ABSENT, Column, Grid, present};
use super::counters::{self, Extrapolation};
use super::error::{QueryError, execution};
use super::eval::{Evaluator, arg, distinct, ns_of, unparenthesized};
use super::labels::Labels;
use super::over_time;
use super::source::Standing;
use super::trend;
use crate::selector::Selector;

/// The samples of one series in the window of one step: never none, none of them stale.
pub(super) struct Window<'a> {
    pub times: &'a [i64],
    pub values: &'a [f64],
    /// The window's two ends, both within it.
    pub start: i64,
    pub end: i64,
    /// The instant of the step itself.
    pub at: i64,
    pub step: usize,
}

impl Window<'_> {
    pub fn points(&self) -> impl Iterator<Item = (i64, f64)> {
        self.times.iter().copied().zip(self.values.iter().copied())
    }

    pub fn first(&self) -> Option<(i64, f64)> {
        self.times.first().copied().zip(self.values.first().copied())
    }

    pub fn last(&self) -> Option<(i64, f64)> {
        self.times.last().copied().zip(self.values.last().copied())
    }
}

/// What a series is at each step, as far as its windows say.
type OfWindow<'a> = &'a mut dyn FnMut(&Window) -> Option<f64>;

/// Evaluates a call if its function takes a range vector.
pub(super) fn call(eval: &Evaluator, call: &Call, grid: Grid) -> Result<Option<Vec<Column>>, QueryError> {
    let simple =
        |of: fn(&Window) -> Option<f64>, moving: bool| over(eval, call, 0, grid, moving, &mut |w| of(w));
    let columns = match call.func.name {
        "rate" => simple(|w| counters::extrapolated(w, Extrapolation::RATE), false)?,
        "increase" => simple(|w| counters::extrapolated(w, Extrapolation::INCREASE), false)?,
        "delta" => simple(|w| counters::extrapolated(w, Extrapolation::DELTA), false)?,
        "irate" => simple(|w| counters::instant(w, true), false)?,
        "idelta" => simple(|w| counters::instant(w, false), false)?,
        "changes" => simple(counters::changes, false)?,
        "resets" => simple(counters::resets, false)?,
        "deriv" => simple(trend::deriv, false)?,
        "avg_over_time" => simple(over_time::avg, false)?,
        "sum_over_time" => simple(over_time::sum, false)?,
        "min_over_time" => simple(over_time::min, false)?,
        "max_over_time" => simple(over_time::max, false)?,
        "count_over_time" => simple(over_time::count, false)?,
        "stddev_over_time" => simple(over_time::stddev, false)?,
        "stdvar_over_time" => simple(over_time::stdvar, false)?,
        "present_over_time" => simple(|_| Some(1.0), false)?,
        "last_over_time" => simple(|w| w.last().map(|(_, value)| value), false)?,
        "quantile_over_time" => {
            let q = eval.scalar_arg(call, 0, grid)?;
            let at = |step| q.get(step).copied().unwrap_or(f64::NAN);
            over(eval, call, 1, grid, true, &mut |w| over_time::quantile_of(at(w.step), w.values.to_vec()))?
        }
        "predict_linear" => {
            let ahead = eval.scalar_arg(call, 1, grid)?;
            let at = |step| ahead.get(step).copied().unwrap_or(f64::NAN);
            over(eval, call, 0, grid, true, &mut |w| trend::predict_linear(w, at(w.step)))?
        }
        "holt_winters" => holt_winters(eval, call, grid)?,
        "absent_over_time" => return absent_over_time(eval, call, grid).map(Some),
        _ => return Ok(None),
    };
    if call.func.name == "last_over_time" {
        return Ok(Some(columns));
    }
    let nameless = |column: Column| Column { labels: column.labels.nameless(), ..column };
    distinct(columns.into_iter().map(nameless).collect()).map(Some)
}

fn holt_winters(eval: &Evaluator, call: &Call, grid: Grid) -> Result<Vec<Column>, QueryError> {
    let (smoothing, trend) = (eval.scalar_arg(call, 1, grid)?, eval.scalar_arg(call, 2, grid)?);
    let mut bad = None;
    let columns = over(eval, call, 0, grid, true, &mut |w| {
        let sf = smoothing.get(w.step).copied().unwrap_or(f64::NAN);
        let tf = trend.get(w.step).copied().unwrap_or(f64::NAN);
        // Not a number passes, as it does in Prometheus.
        if sf <= 0.0 || sf >= 1.0 {
            bad.get_or_insert(format!("invalid smoothing factor. Expected: 0 < sf < 1, got: {sf:.6}"));
            return None;
        }
        if tf <= 0.0 || tf >= 1.0 {
            bad.get_or_insert(format!("invalid trend factor. Expected: 0 < tf < 1, got: {tf:.6}"));
            return None;
        }
        trend::holt_winters(w, sf, tf)
    })?;
    bad.map_or(Ok(columns), |message| Err(execution(message)))
}

fn absent_over_time(eval: &Evaluator, call: &Call, grid: Grid) -> Result<Vec<Column>, QueryError> {
    let mut somewhere = vec![false; grid.count()];
    over(eval, call, 0, grid, true, &mut |w| {
        if let Some(found) = somewhere.get_mut(w.step) {
            *found = true;
        }
        None
    })?;
    let values: Vec<f64> = somewhere.into_iter().map(|found| if found { ABSENT } else { 1.0 }).collect();
    let column = Column { labels: labels_if_absent(arg(call, 0)?), values };
    Ok(if column.any() { vec![column] } else { Vec::new() })
}

/// What an absent series would be called: what its selector demands of it.
pub(super) fn labels_if_absent(expr: &Expr) -> Labels {
    let selector: &VectorSelector = match expr {
        Expr::VectorSelector(selector) => selector,
        Expr::MatrixSelector(matrix) => &matrix.vs,
        _ => return Labels::default(),
    };
    let mut labels = Labels::default();
    let mut ambiguous = Vec::new();
    for matcher in selector.matchers.matchers.iter().filter(|matcher| matcher.name != METRIC_NAME) {
        if matches!(matcher.op, MatchOp::Equal) && labels.get(&matcher.name).is_empty() {
            labels = labels.with(&matcher.name, &matcher.value);
        } else {
            ambiguous.push(matcher.name.clone());
        }
    }
    labels.without(&ambiguous)
}

/// Visits the windows of every series of the `at`th argument. `moving` says that the function looks at more than the
/// window, so that equal windows may yield different values.
fn over(
    eval: &Evaluator,
    call: &Call,
    at: usize,
    grid: Grid,
    moving: bool,
    of: OfWindow,
) -> Result<Vec<Column>, QueryError> {
    let mut columns = Vec::new();
    if grid.count() == 0 {
        return Ok(columns);
    }
    match unparenthesized(arg(call, at)?) {
        Expr::MatrixSelector(matrix) => {
            let shift = eval.shift(matrix.vs.at.as_ref(), matrix.vs.offset.as_ref());
            let walk = Walk { range: ns_of(matrix.range), fixed: shift.is_fixed() && !moving };
            let (first, last) = (shift.apply(grid.first()), shift.apply(grid.last()));
            let selector = Selector::from(&matrix.vs);
            let mut living = (Vec::new(), Vec::new());
            eval.source.select(
                &selector,
                first.saturating_sub(walk.range),
                last,
                &mut |labels, standing, times, values| {
                    eval.budget.series()?;
                    eval.budget.samples(times.len())?;
                    let ends = |at| shift.apply(at);
                    columns.extend(match standing {
                        Standing::Sampled => {
                            let (times, values) = without_stale(times, values, &mut living);
                            walk.series(eval, grid, labels, times, values, &ends, of)?
                        }
                        Standing::Held => walk.held(eval, grid, labels, (times, values), &ends, of)?,
                    });
                    Ok(())
                },
            )?;
        }
        Expr::Subquery(subquery) => {
            let shift = eval.shift(subquery.at.as_ref(), subquery.offset.as_ref());
            let walk = Walk { range: ns_of(subquery.range), fixed: shift.is_fixed() && !moving };
            let (first, last) = (shift.apply(grid.first()), shift.apply(grid.last()));
            let (inner, found) = eval.subquery(subquery, first, last)?;
            let steps: Vec<i64> = inner.iter().collect();
            let mut living = (Vec::new(), Vec::new());
            for column in found {
                eval.budget.work(steps.len())?;
                let (times, values) = without_stale(&steps, &column.values, &mut living);
                let ends = |at| shift.apply(at);
                columns.extend(walk.series(eval, grid, column.labels, times, values, &ends, of)?);
            }
        }
        other => return Err(execution(format!("expected range vector, got {}", other.value_type()))),
    }
    Ok(columns)
}

/// Steps that have no value, and the marks that a series ended, are no samples of a window.
fn without_stale<'a>(
    times: &'a [i64],
    values: &'a [f64],
    living: &'a mut (Vec<i64>, Vec<f64>),
) -> (&'a [i64], &'a [f64]) {
    if values.iter().all(|value| present(*value)) {
        return (times, values);
    }
    living.0.clear();
    living.1.clear();
    for (time, value) in times.iter().zip(values).filter(|(_, value)| present(**value)) {
        living.0.push(*time);
        living.1.push(*value);
    }
    (&living.0, &living.1)
}

/// What a window sees of a series whose samples hold until the next: what holds at its start as a sample there, then each change, and
/// none of the marks that it ended.
pub(super) fn held_within(
    start: i64,
    end: i64,
    (times, values): (&[i64], &[f64]),
    seen: &mut (Vec<i64>, Vec<f64>),
) {
    let before = times.partition_point(|time| *time <= start);
    let within = times.partition_point(|time| *time <= end).saturating_sub(before);
    let holds = before.checked_sub(1).and_then(|newest| values.get(newest)).map(|value| (&start, value));
    let changes = times.iter().zip(values).skip(before).take(within);
    seen.0.clear();
    seen.1.clear();
    for (time, value) in holds.into_iter().chain(changes).filter(|(_, value)| present(**value)) {
        seen.0.push(*time);
        seen.1.push(*value);
    }
}

struct Walk {
    range: i64,
    /// Every step has the same window and sees the same in it.
    fixed: bool,
}

impl Walk {
    #[allow(clippy::too_many_arguments, reason = "one series, its points, and how each step sees them")]
    fn series(
        &self,
        eval: &Evaluator,
        grid: Grid,
        labels: Labels,
        times: &[i64],
        values: &[f64],
        ends: &dyn Fn(i64) -> i64,
        of: OfWindow,
    ) -> Result<Option<Column>, QueryError> {
        eval.budget.samples(grid.count())?;
        let mut column = Column { labels, values: vec![ABSENT; grid.count()] };
        let (mut low, mut high) = (0, 0);
        for (step, (at, out)) in grid.iter().zip(&mut column.values).enumerate() {
            let end = ends(at);
            let start = end.saturating_sub(self.range);
            // Ends never go back from step to step, so neither do the window's bounds.
            while times.get(high).is_some_and(|time| *time <= end) {
                high += 1;
            }
            while low < high && times.get(low).is_some_and(|time| *time < start) {
                low += 1;
            }
            eval.budget.work(high - low)?;
            let (Some(times), Some(values)) = (times.get(low..high), values.get(low..high)) else { continue };
            if !times.is_empty()
                && let Some(value) = of(&Window { times, values, start, end, at, step })
            {
                *out = value;
            }
            if self.fixed {
                let value = *out;
                column.values.fill(value);
                break;
            }
        }
        Ok(column.any().then_some(column))
    }
    /// As [`Self::series`], of one whose samples hold until the next: what holds at a window's start is a sample there.
    fn held(
        &self,
        eval: &Evaluator,
        grid: Grid,
        labels: Labels,
        (times, values): (&[i64], &[f64]),
        ends: &dyn Fn(i64) -> i64,
        of: OfWindow,
    ) -> Result<Option<Column>, QueryError> {
        eval.budget.samples(grid.count())?;
        let mut column = Column { labels, values: vec![ABSENT; grid.count()] };
        let mut seen = (Vec::new(), Vec::new());
        for (step, (at, out)) in grid.iter().zip(&mut column.values).enumerate() {
            let end = ends(at);
            let start = end.saturating_sub(self.range);
            held_within(start, end, (times, values), &mut seen);
            eval.budget.work(seen.0.len())?;
            let window = Window { times: &seen.0, values: &seen.1, start, end, at, step };
            if !seen.0.is_empty()
                && let Some(value) = of(&window)
            {
                *out = value;
            }
            if self.fixed {
                let value = *out;
                column.values.fill(value);
                break;
            }
        }
        Ok(column.any().then_some(column))
    }
}
