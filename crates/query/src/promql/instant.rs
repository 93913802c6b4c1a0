//! Functions over instant vectors and scalars: mathematics sample by sample, clamps and rounding, absence, order, and the
//! ways between scalars and vectors.

use promql_parser::parser::{Call, Expr};

use super::column::{ABSENT, Column, Grid, Value, seconds};
use super::error::QueryError;
use super::eval::{Evaluator, arg, merged, unparenthesized};
use super::labels::Labels;
use super::matrix::labels_if_absent;
use super::order;

pub(super) fn call(eval: &Evaluator, call: &Call, grid: Grid) -> Result<Option<Value>, QueryError> {
    if let Some(of) = simple(call.func.name) {
        return mapped(eval, call, grid, |_, value| Some(of(value))).map(Some);
    }
    let scalar = |at: usize| -> Result<Vec<f64>, QueryError> { eval.scalar_arg(call, at, grid) };
    let value = match call.func.name {
        "pi" => eval.constant(std::f64::consts::PI, grid)?,
        "clamp" => {
            let (least, most) = (scalar(1)?, scalar(2)?);
            mapped(eval, call, grid, |step, value| {
                let (least, most) = (nth(&least, step), nth(&most, step));
                (least <= most || least.is_nan() || most.is_nan())
                    .then(|| greater(least, lesser(most, value)))
            })?
        }
        "clamp_min" => {
            let least = scalar(1)?;
            mapped(eval, call, grid, |step, value| Some(greater(nth(&least, step), value)))?
        }
        "clamp_max" => {
            let most = scalar(1)?;
            mapped(eval, call, grid, |step, value| Some(lesser(nth(&most, step), value)))?
        }
        "round" => {
            let to = if call.args.len() > 1 { scalar(1)? } else { vec![1.0; grid.count()] };
            mapped(eval, call, grid, |step, value| {
                let inverse = 1.0 / nth(&to, step);
                Some((value * inverse + 0.5).floor() / inverse)
            })?
        }
        "timestamp" => timestamp(eval, call, grid)?,
        "scalar" => {
            let columns = eval.vector_arg(call, 0, grid)?;
            let only = |step| {
                let mut values = columns.iter().filter_map(|column| column.at(step));
                values.next().filter(|_| values.next().is_none()).unwrap_or(f64::NAN)
            };
            Value::Scalar((0..grid.count()).map(only).collect())
        }
        "vector" => Value::Vector(vec![Column { labels: Labels::default(), values: scalar(0)? }]),
        "absent" => {
            let columns = eval.vector_arg(call, 0, grid)?;
            let none = |step| columns.iter().all(|column| column.at(step).is_none());
            let values: Vec<f64> =
                (0..grid.count()).map(|step| if none(step) { 1.0 } else { ABSENT }).collect();
            let column = Column { labels: labels_if_absent(arg(call, 0)?), values };
            Value::Vector(if column.any() { vec![column] } else { Vec::new() })
        }
        "sort" => Value::Vector(order::sorted(eval.vector_arg(call, 0, grid)?, false)),
        "sort_desc" => Value::Vector(order::sorted(eval.vector_arg(call, 0, grid)?, true)),
        _ => return Ok(None),
    };
    Ok(Some(value))
}

fn nth(values: &[f64], step: usize) -> f64 {
    values.get(step).copied().unwrap_or(f64::NAN)
}

fn mapped(
    eval: &Evaluator,
    call: &Call,
    grid: Grid,
    map: impl Fn(usize, f64) -> Option<f64>,
) -> Result<Value, QueryError> {
    let columns = eval.vector_arg(call, 0, grid)?;
    eval.budget.work(columns.len().saturating_mul(grid.count()))?;
    let nameless = columns.into_iter().map(|column| {
        let labels = column.labels.nameless();
        column.mapped(labels, &map)
    });
    merged(nameless).map(Value::Vector)
}

/// When a sample was taken, of a plain selector; of anything else, the instant it was computed for.
fn timestamp(eval: &Evaluator, call: &Call, grid: Grid) -> Result<Value, QueryError> {
    if let Expr::VectorSelector(selector) = unparenthesized(arg(call, 0)?) {
        let columns = eval.instants(selector, grid, |time, _| seconds(time))?;
        let nameless =
            columns.into_iter().map(|column| Column { labels: column.labels.nameless(), ..column });
        return merged(nameless).map(Value::Vector);
    }
    mapped(eval, call, grid, |step, _| Some(seconds(grid.at(step))))
}

/// The greater of two; no number if one of them is none, unless the other is infinite: then nothing is greater.
fn greater(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == 0.0 && b == 0.0 {
        if a.is_sign_negative() { b } else { a }
    } else {
        a.max(b)
    }
}

fn lesser(a: f64, b: f64) -> f64 {
    -greater(-a, -b)
}

fn simple(name: &str) -> Option<fn(f64) -> f64> {
    let of: fn(f64) -> f64 = match name {
        "abs" => f64::abs,
        "ceil" => f64::ceil,
        "floor" => f64::floor,
        "exp" => f64::exp,
        "ln" => f64::ln,
        "log2" => f64::log2,
        "log10" => f64::log10,
        "sqrt" => f64::sqrt,
        "sin" => f64::sin,
        "cos" => f64::cos,
        "tan" => f64::tan,
        "asin" => f64::asin,
        "acos" => f64::acos,
        "atan" => f64::atan,
        "sinh" => f64::sinh,
        "cosh" => f64::cosh,
        "tanh" => f64::tanh,
        "asinh" => f64::asinh,
        "acosh" => f64::acosh,
        "atanh" => f64::atanh,
        "deg" => |value| value * 180.0 / std::f64::consts::PI,
        "rad" => |value| value * std::f64::consts::PI / 180.0,
        "sgn" => |value| {
            if value < 0.0 {
                -1.0
            } else if value > 0.0 {
                1.0
            } else {
                value
            }
        },
        _ => return None,
    };
    Some(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_neither_greater_nor_lesser() {
        assert_eq!((greater(1.0, 2.0), lesser(1.0, 2.0)), (2.0, 1.0));
        assert!(greater(1.0, f64::NAN).is_nan() && lesser(f64::NAN, 1.0).is_nan());
        assert_eq!(
            (greater(f64::NAN, f64::INFINITY), lesser(f64::NEG_INFINITY, f64::NAN)),
            (f64::INFINITY, f64::NEG_INFINITY)
        );
        assert!(greater(-0.0, 0.0).is_sign_positive() && lesser(-0.0, 0.0).is_sign_negative());
    }
}
