//! Functions of time: the instant of the evaluation, and the parts of a date in UTC of values that are Unix seconds.

use chrono::{DateTime, Datelike, Timelike, Utc};
use promql_parser::parser::Call;

use super::column::{Column, Grid, Value, seconds};
use super::error::QueryError;
use super::eval::{Evaluator, merged};
use super::labels::Labels;

pub(super) fn call(eval: &Evaluator, call: &Call, grid: Grid) -> Result<Option<Value>, QueryError> {
    let instants = || grid.iter().map(seconds).collect::<Vec<f64>>();
    let part: fn(DateTime<Utc>) -> u32 = match call.func.name {
        "time" => {
            eval.budget.samples(grid.count())?;
            return Ok(Some(Value::Scalar(instants())));
        }
        "minute" => |at| at.minute(),
        "hour" => |at| at.hour(),
        "day_of_week" => |at| at.weekday().num_days_from_sunday(),
        "day_of_month" => |at| at.day(),
        "day_of_year" => |at| at.ordinal(),
        "days_in_month" => |at| u32::from(at.num_days_in_month()),
        "month" => |at| at.month(),
        "year" => |at| at.year().unsigned_abs(),
        _ => return Ok(None),
    };
    let columns = if call.args.is_empty() {
        eval.budget.samples(grid.count())?;
        vec![Column { labels: Labels::default(), values: instants() }]
    } else {
        eval.vector_arg(call, 0, grid)?
    };
    let dated = columns.into_iter().map(|column| {
        let labels = column.labels.nameless();
        column.mapped(labels, |_, value| Some(date(value).map_or(f64::NAN, |at| f64::from(part(at)))))
    });
    merged(dated).map(|columns| Some(Value::Vector(columns)))
}

/// The date of Unix seconds; none beyond what a calendar reaches.
fn date(value: f64) -> Option<DateTime<Utc>> {
    if !value.is_finite() {
        return None;
    }
    #[allow(clippy::cast_possible_truncation, reason = "towards zero is meant, and it saturates")]
    DateTime::from_timestamp(value as i64, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar_in_utc() {
        // 2024-02-29 12:34:56 UTC, a Thursday.
        let at = date(1_709_210_096.9).unwrap();
        assert_eq!((at.year(), at.month(), at.day(), at.hour(), at.minute()), (2024, 2, 29, 12, 34));
        assert_eq!((at.weekday().num_days_from_sunday(), at.ordinal(), at.num_days_in_month()), (4, 60, 29));
        assert!(date(f64::NAN).is_none() && date(1e300).is_none());
    }
}
