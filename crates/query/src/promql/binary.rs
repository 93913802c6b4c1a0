//! Binary operators: what they compute of two numbers, and how scalars and vectors meet. How the series of two vectors
//! find each other stands in `matching`.

use promql_parser::parser::BinaryExpr;
use promql_parser::parser::token::{
    T_ADD, T_ATAN2, T_DIV, T_EQLC, T_GTE, T_GTR, T_LSS, T_LTE, T_MOD, T_MUL, T_NEQ, T_POW, T_SUB, TokenId,
};

use super::column::{Column, Grid, Value};
use super::error::{QueryError, execution};
use super::eval::{Evaluator, merged};
use super::matching;

/// An operator between numbers.
#[derive(Clone, Copy)]
pub(super) struct Operator {
    op: TokenId,
    /// A comparison answers 0 or 1 instead of keeping or dropping.
    pub truth: bool,
}

impl Operator {
    fn comparison(self) -> Option<fn(f64, f64) -> bool> {
        let compare: fn(f64, f64) -> bool = match self.op {
            T_EQLC => |a, b| a == b,
            T_NEQ => |a, b| a != b,
            T_GTR => |a, b| a > b,
            T_LSS => |a, b| a < b,
            T_GTE => |a, b| a >= b,
            T_LTE => |a, b| a <= b,
            _ => return None,
        };
        Some(compare)
    }

    /// Whether the result is another quantity than the operand, and so loses the metric's name. (`atan2` keeps it: 2.42
    /// overlooks it.)
    pub fn drops_name(self) -> bool {
        self.truth || self.comparison().is_none() && self.op != T_ATAN2
    }

    fn arithmetic(self, a: f64, b: f64) -> f64 {
        match self.op {
            T_ADD => a + b,
            T_SUB => a - b,
            T_MUL => a * b,
            T_DIV => a / b,
            T_POW => a.powf(b),
            T_MOD => a % b,
            T_ATAN2 => a.atan2(b),
            _ => f64::NAN,
        }
    }

    /// What becomes of two numbers; a comparison that keeps answers `kept`.
    pub fn apply(self, a: f64, b: f64, kept: f64) -> Option<f64> {
        match self.comparison() {
            None => Some(self.arithmetic(a, b)),
            Some(holds) if self.truth => Some(if holds(a, b) { 1.0 } else { 0.0 }),
            Some(holds) => holds(a, b).then_some(kept),
        }
    }
}

pub(super) fn eval(eval: &Evaluator, expr: &BinaryExpr, grid: Grid) -> Result<Value, QueryError> {
    let left = eval.eval(&expr.lhs, grid)?;
    let right = eval.eval(&expr.rhs, grid)?;
    let operator = Operator { op: expr.op.id(), truth: expr.return_bool() };
    match (left, right) {
        (Value::Scalar(left), Value::Scalar(right)) => {
            let operator = Operator { truth: true, ..operator };
            let both = left.into_iter().zip(right);
            Ok(Value::Scalar(both.map(|(a, b)| operator.apply(a, b, a).unwrap_or(f64::NAN)).collect()))
        }
        (Value::Vector(columns), Value::Scalar(scalar)) => {
            with_scalar(eval, operator, columns, grid, |step, value| {
                scalar.get(step).and_then(|scalar| operator.apply(value, *scalar, value))
            })
        }
        (Value::Scalar(scalar), Value::Vector(columns)) => {
            with_scalar(eval, operator, columns, grid, |step, value| {
                scalar.get(step).and_then(|scalar| operator.apply(*scalar, value, value))
            })
        }
        (Value::Vector(left), Value::Vector(right)) => {
            matching::eval(eval, expr, operator, left, right, grid).map(Value::Vector)
        }
        _ => Err(execution("binary expression must contain only scalar and instant vector types")),
    }
}

fn with_scalar(
    eval: &Evaluator,
    operator: Operator,
    columns: Vec<Column>,
    grid: Grid,
    of: impl Fn(usize, f64) -> Option<f64>,
) -> Result<Value, QueryError> {
    eval.budget.work(columns.len().saturating_mul(grid.count()))?;
    let computed = columns.into_iter().map(|column| {
        let labels = if operator.drops_name() { column.labels.nameless() } else { column.labels.clone() };
        column.mapped(labels, &of)
    });
    merged(computed).map(Value::Vector)
}
