//! PromQL as Prometheus 2.42 evaluates it, for float samples: parsed, bounded and evaluated over a [`Source`] of points.
//!
//! Pure: no clock, no store, no thread is known here. Times are Unix nanoseconds; a query's steps, look-back and limits are
//! arguments. Evaluation goes expression by expression over all steps at once; points are reduced to values a step as
//! they are visited, so memory is bounded by [`Bounds::samples_max`] and by the points of one series.

mod aggregate;
mod answer;
mod binary;
mod bounds;
mod calendar;
mod column;
mod counters;
mod error;
mod eval;
mod histogram;
mod instant;
mod labels;
mod matching;
mod matrix;
mod number;
mod order;
mod over_time;
mod parse;
mod relabel;
mod source;
#[cfg(test)]
mod tests;
mod trend;

pub use answer::{Answer, Row, instant, range};
pub use bounds::Bounds;
pub use column::{Grid, STALE_BITS};
pub use error::{Halt, QueryError};
pub use labels::{Labels, METRIC_LABEL};
pub use number::{plain, write_seconds, write_value};
pub use parse::{QUERY_BYTES_MAX, QUERY_DEPTH_MAX, Query};
pub use source::{Source, Standing, Visit, Visited};
