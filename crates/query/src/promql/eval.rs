//! Evaluation: an expression over the steps of a grid, column by column. Series come from the [`Source`] one at a time and
//! are reduced to a value a step at once, so what is held is columns, never the points of many series.
//!
//! It knows no clock and no store; when to give up is asked of the [`Budget`].

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use promql_parser::parser::value::ValueType;
use promql_parser::parser::{AtModifier, Call, Expr, Offset, SubqueryExpr, UnaryExpr, VectorSelector};

use super::bounds::Budget;
use super::column::{ABSENT, Collector, Column, Grid, SAME_LABELS, Value, present};
use super::error::{QueryError, execution};
use super::labels::Labels;
use super::parse::kind_name;
use super::source::{Source, Standing};
use super::{aggregate, binary, calendar, histogram, instant, matrix, relabel};
use crate::selector::Selector;

/// One query under way.
pub(super) struct Evaluator<'a> {
    pub source: &'a dyn Source,
    pub budget: Budget<'a>,
    /// The first and last instant of the whole query, for `@ start()` and `@ end()`.
    pub start: i64,
    pub end: i64,
}

pub(super) fn ns_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// When a selector looks, seen from the steps of a grid.
#[derive(Clone, Copy)]
pub(super) struct Shift {
    fixed: Option<i64>,
    offset: i64,
}

impl Shift {
    /// The instant meant at a step.
    pub fn apply(self, at: i64) -> i64 {
        self.fixed.unwrap_or(at).saturating_sub(self.offset)
    }

    /// Whether all steps mean the same instant.
    pub fn is_fixed(self) -> bool {
        self.fixed.is_some()
    }
}

impl Evaluator<'_> {
    pub fn eval(&self, expr: &Expr, grid: Grid) -> Result<Value, QueryError> {
        self.budget.work(1)?;
        match expr {
            Expr::Paren(paren) => self.eval(&paren.expr, grid),
            Expr::NumberLiteral(number) => self.constant(number.val, grid),
            Expr::StringLiteral(text) => Ok(Value::Text(text.val.clone())),
            Expr::VectorSelector(selector) => {
                self.instants(selector, grid, |_, value| value).map(Value::Vector)
            }
            Expr::Unary(unary) => self.unary(unary, grid),
            Expr::Binary(expr) => binary::eval(self, expr, grid),
            Expr::Aggregate(expr) => aggregate::eval(self, expr, grid).map(Value::Vector),
            Expr::Call(call) => self.call(call, grid),
            Expr::MatrixSelector(_) | Expr::Subquery(_) => {
                Err(execution("a range vector where a value is expected"))
            }
            Expr::Extension(extension) => {
                Err(execution(format!("{} is not supported", extension.expr.name())))
            }
        }
    }

    pub fn constant(&self, value: f64, grid: Grid) -> Result<Value, QueryError> {
        self.budget.samples(grid.count())?;
        Ok(Value::Scalar(vec![value; grid.count()]))
    }

    pub fn vector(&self, expr: &Expr, grid: Grid) -> Result<Vec<Column>, QueryError> {
        match self.eval(expr, grid)? {
            Value::Vector(columns) => Ok(columns),
            Value::Scalar(_) => Err(mistyped(ValueType::Vector, ValueType::Scalar)),
            Value::Text(_) => Err(mistyped(ValueType::Vector, ValueType::String)),
        }
    }

    pub fn scalar(&self, expr: &Expr, grid: Grid) -> Result<Vec<f64>, QueryError> {
        match self.eval(expr, grid)? {
            Value::Scalar(values) => Ok(values),
            Value::Vector(_) => Err(mistyped(ValueType::Scalar, ValueType::Vector)),
            Value::Text(_) => Err(mistyped(ValueType::Scalar, ValueType::String)),
        }
    }

    /// The `at`th argument as a vector, and so on.
    pub fn vector_arg(&self, call: &Call, at: usize, grid: Grid) -> Result<Vec<Column>, QueryError> {
        self.vector(arg(call, at)?, grid)
    }

    pub fn scalar_arg(&self, call: &Call, at: usize, grid: Grid) -> Result<Vec<f64>, QueryError> {
        self.scalar(arg(call, at)?, grid)
    }

    pub fn text_arg(&self, call: &Call, at: usize) -> Result<String, QueryError> {
        text(arg(call, at)?)
    }

    fn call(&self, call: &Call, grid: Grid) -> Result<Value, QueryError> {
        if let Some(found) = matrix::call(self, call, grid)? {
            return Ok(Value::Vector(found));
        }
        if let Some(found) = calendar::call(self, call, grid)? {
            return Ok(found);
        }
        if let Some(found) = relabel::call(self, call, grid)? {
            return Ok(Value::Vector(found));
        }
        if call.func.name == "histogram_quantile" {
            return histogram::quantile(self, call, grid).map(Value::Vector);
        }
        instant::call(self, call, grid)?
            .ok_or_else(|| execution(format!("unknown function with name {:?}", call.func.name)))
    }

    fn unary(&self, unary: &UnaryExpr, grid: Grid) -> Result<Value, QueryError> {
        match self.eval(&unary.expr, grid)? {
            Value::Scalar(values) => Ok(Value::Scalar(values.into_iter().map(|value| -value).collect())),
            Value::Vector(columns) => {
                let negate = |column: Column| {
                    let labels = column.labels.nameless();
                    column.mapped(labels, |_, value| Some(-value))
                };
                distinct(columns.into_iter().map(negate).collect()).map(Value::Vector)
            }
            Value::Text(_) => Err(mistyped(ValueType::Vector, ValueType::String)),
        }
    }

    pub fn shift(&self, at: Option<&AtModifier>, offset: Option<&Offset>) -> Shift {
        let fixed = at.map(|at| match at {
            AtModifier::Start => self.start,
            AtModifier::End => self.end,
            AtModifier::At(time) => match time.duration_since(SystemTime::UNIX_EPOCH) {
                Ok(since) => ns_of(since),
                Err(before) => ns_of(before.duration()).saturating_neg(),
            },
        });
        let offset = match offset {
            None => 0,
            Some(Offset::Pos(by)) => ns_of(*by),
            Some(Offset::Neg(by)) => ns_of(*by).saturating_neg(),
        };
        Shift { fixed, offset }
    }

    /// The newest sample of each series at each step, no older than the look-back unless it is held; `read` is given its time and value.
    pub fn instants(
        &self,
        selector: &VectorSelector,
        grid: Grid,
        read: impl Fn(i64, f64) -> f64,
    ) -> Result<Vec<Column>, QueryError> {
        let shift = self.shift(selector.at.as_ref(), selector.offset.as_ref());
        let lookback = self.budget.bounds().lookback_ns;
        let mut columns = Vec::new();
        if grid.count() == 0 {
            return Ok(columns);
        }
        let (first, last) = (shift.apply(grid.first()), shift.apply(grid.last()));
        self.source.select(
            &Selector::from(selector),
            first.saturating_sub(lookback),
            last,
            &mut |labels, standing, times, values| {
                self.budget.series()?;
                self.budget.samples(times.len().saturating_add(grid.count()))?;
                let oldest = |at: i64| match standing {
                    Standing::Sampled => at.saturating_sub(lookback),
                    Standing::Held => i64::MIN,
                };
                let mut column = Column { labels, values: vec![ABSENT; grid.count()] };
                let mut next = 0;
                for (at, out) in grid.iter().zip(&mut column.values) {
                    let at = shift.apply(at);
                    while times.get(next).is_some_and(|time| *time <= at) {
                        next += 1;
                    }
                    let newest = next.checked_sub(1).and_then(|i| times.get(i).zip(values.get(i)));
                    if let Some((time, value)) = newest
                        && *time >= oldest(at)
                        && present(*value)
                    {
                        *out = read(*time, *value);
                    }
                }
                if column.any() {
                    columns.push(column);
                }
                Ok(())
            },
        )?;
        Ok(columns)
    }

    /// The columns of a subquery's expression with the grid they stand on, seen from the instants `first..=last`.
    pub fn subquery(
        &self,
        subquery: &SubqueryExpr,
        first: i64,
        last: i64,
    ) -> Result<(Grid, Vec<Column>), QueryError> {
        let step = match subquery.step {
            Some(step) => ns_of(step),
            None => self.budget.bounds().subquery_step_ns,
        };
        let step = step.max(1);
        let from = first.saturating_sub(ns_of(subquery.range));
        // The first multiple of the step that is not before: subqueries of different queries share their instants.
        let mut start = (from / step).saturating_mul(step);
        if start < from {
            start = start.saturating_add(step);
        }
        let grid = Grid::new(start, last, step);
        self.budget.samples(grid.count())?;
        Ok((grid, self.vector(&subquery.expr, grid)?))
    }
}

/// Refuses two columns of one labelset, even where they take turns: so does Prometheus after range functions.
pub(super) fn distinct(columns: Vec<Column>) -> Result<Vec<Column>, QueryError> {
    let mut seen: HashSet<&Labels> = HashSet::new();
    if columns.iter().all(|column| seen.insert(&column.labels)) {
        return Ok(columns);
    }
    Err(execution(SAME_LABELS))
}

/// Columns of one labelset become one where they do not overlap.
pub(super) fn merged(columns: impl IntoIterator<Item = Column>) -> Result<Vec<Column>, QueryError> {
    let mut collector = Collector::default();
    for column in columns {
        collector.add(column)?;
    }
    Ok(collector.finish())
}

pub(super) fn arg(call: &Call, at: usize) -> Result<&Expr, QueryError> {
    let arg = call.args.args.get(at).map(AsRef::as_ref);
    arg.ok_or_else(|| execution(format!("argument {at} of {} is missing", call.func.name)))
}

/// An expression that must be a text, whatever parentheses stand around it.
pub(super) fn text(expr: &Expr) -> Result<String, QueryError> {
    match unparenthesized(expr) {
        Expr::StringLiteral(text) => Ok(text.val.clone()),
        other => Err(mistyped(ValueType::String, other.value_type())),
    }
}

pub(super) fn unparenthesized(mut expr: &Expr) -> &Expr {
    while let Expr::Paren(paren) = expr {
        expr = &paren.expr;
    }
    expr
}

fn mistyped(wanted: ValueType, found: ValueType) -> QueryError {
    execution(format!("expected {}, got {}", kind_name(wanted), kind_name(found)))
}
