//! What a query answers, and the two ways of asking: at one instant, or at the steps of a range.

use promql_parser::parser::{Expr, value::ValueType};

use super::bounds::{Bounds, Budget};
use super::column::{Column, Grid, Value, present};
use super::error::{Halt, QueryError};
use super::eval::{Evaluator, ns_of, unparenthesized};
use super::labels::Labels;
use super::matrix::held_within;
use super::parse::{Query, kind_name};
use super::source::{Source, Standing};
use crate::selector::Selector;

/// The samples of one series, in order of time.
#[derive(Debug, Clone)]
pub struct Row {
    /// Whose samples.
    pub labels: Labels,
    times: Times,
    values: Vec<f64>,
}

#[derive(Debug, Clone)]
enum Times {
    Steps(Grid),
    Own(Vec<i64>),
}

impl Row {
    /// Times (Unix nanoseconds) and values.
    pub fn points(&self) -> impl Iterator<Item = (i64, f64)> {
        let time = |at: usize| match &self.times {
            Times::Steps(grid) => grid.at(at),
            Times::Own(times) => times.get(at).copied().unwrap_or(i64::MAX),
        };
        let values = self.values.iter().copied().enumerate();
        values.filter(|(_, value)| present(*value)).map(move |(at, value)| (time(at), value))
    }
}

/// The answer to a query.
#[derive(Debug, Clone)]
pub enum Answer {
    /// One number at an instant.
    Scalar(i64, f64),
    /// A text at an instant.
    Text(i64, String),
    /// A value of each series at an instant.
    Vector(i64, Vec<(Labels, f64)>),
    /// Samples of each series, in order of labels.
    Matrix(Vec<Row>),
}

/// Evaluates at one instant (Unix nanoseconds). `halt` is asked now and then whether to give up.
///
/// # Errors
/// [`QueryError`]; nothing of the answer is given then.
pub fn instant(
    query: &Query,
    at: i64,
    bounds: &Bounds,
    source: &dyn Source,
    halt: &dyn Fn() -> Option<Halt>,
) -> Result<Answer, QueryError> {
    let eval = Evaluator { source, budget: Budget::new(bounds, halt), start: at, end: at };
    match unparenthesized(&query.expr) {
        Expr::MatrixSelector(matrix) => {
            let end = eval.shift(matrix.vs.at.as_ref(), matrix.vs.offset.as_ref()).apply(at);
            let start = end.saturating_sub(ns_of(matrix.range));
            let mut rows = Vec::new();
            source.select(
                &Selector::from(&matrix.vs),
                start,
                end,
                &mut |labels, standing, times, values| {
                    eval.budget.series()?;
                    eval.budget.samples(times.len())?;
                    let mut seen = (times.to_vec(), values.to_vec());
                    if standing == Standing::Held {
                        held_within(start, end, (times, values), &mut seen);
                    }
                    rows.push(Row { labels, times: Times::Own(seen.0), values: seen.1 });
                    Ok(())
                },
            )?;
            Ok(matrix_of(rows))
        }
        Expr::Subquery(subquery) => {
            let end = eval.shift(subquery.at.as_ref(), subquery.offset.as_ref()).apply(at);
            let (grid, columns) = eval.subquery(subquery, end, end)?;
            Ok(matrix_of(rows(grid, columns)))
        }
        expr => match eval.eval(expr, Grid::instant(at))? {
            Value::Scalar(values) => Ok(Answer::Scalar(at, values.first().copied().unwrap_or(f64::NAN))),
            Value::Text(text) => Ok(Answer::Text(at, text)),
            Value::Vector(columns) => {
                let found = |column: Column| column.at(0).map(|value| (column.labels, value));
                Ok(Answer::Vector(at, columns.into_iter().filter_map(found).collect()))
            }
        },
    }
}

/// Evaluates at `start`, `start + step` and so on up to `end` (nanoseconds).
///
/// # Errors
/// [`QueryError`]: as [`instant`], and [`QueryError::Range`] when the steps make no sense or are too many.
pub fn range(
    query: &Query,
    (start, end, step): (i64, i64, i64),
    bounds: &Bounds,
    source: &dyn Source,
    halt: &dyn Fn() -> Option<Halt>,
) -> Result<Answer, QueryError> {
    let kind = query.expr.value_type();
    if !matches!(kind, ValueType::Scalar | ValueType::Vector) {
        return Err(QueryError::Range(format!(
            "invalid expression type {:?} for range query, must be Scalar or instant Vector",
            kind_name(kind)
        )));
    }
    if step < 1 || end < start {
        return Err(QueryError::Range(
            "the step must be positive and the end not before the start".to_owned(),
        ));
    }
    let grid = Grid::new(start, end, step);
    if grid.count() as u64 > bounds.steps_max.saturating_add(1) {
        return Err(QueryError::Range(format!(
            "exceeded maximum resolution of {} points per timeseries. Try decreasing the query resolution (?step=XX)",
            bounds.steps_max
        )));
    }
    let eval = Evaluator { source, budget: Budget::new(bounds, halt), start, end };
    let columns = match eval.eval(&query.expr, grid)? {
        Value::Scalar(values) => vec![Column { labels: Labels::default(), values }],
        Value::Vector(columns) => columns,
        Value::Text(_) => Vec::new(),
    };
    Ok(matrix_of(rows(grid, columns)))
}

fn rows(grid: Grid, columns: Vec<Column>) -> Vec<Row> {
    let row =
        |column: Column| Row { labels: column.labels, times: Times::Steps(grid), values: column.values };
    columns.into_iter().map(row).collect()
}

fn matrix_of(mut rows: Vec<Row>) -> Answer {
    rows.retain(|row| row.values.iter().any(|value| present(*value)));
    rows.sort_by(|a, b| a.labels.cmp(&b.labels));
    Answer::Matrix(rows)
}
