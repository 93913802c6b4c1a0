//! What the engine asks of a store: the points of the series that a selector means, in a range of time. No store is
//! known here; tests answer from memory.

use super::error::QueryError;
use super::labels::Labels;
use crate::selector::Selector;

/// What a visit answers: whether the source goes on.
pub type Visited = Result<(), QueryError>;

/// How long a sample stands for its series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Until the next one, or until it is older than the look-back: it was measured.
    Sampled,
    /// Until the next one, however long that takes: it was said once, and holds until something else is said. In a window such a series
    /// has a sample at the window's start, if it holds there, and one at each change within.
    Held,
}

/// What is done with the points of one series: its labels, how long each stands, its times (Unix nanoseconds, ascending, each once), its
/// values.
pub type Visit<'a> = dyn FnMut(Labels, Standing, &[i64], &[f64]) -> Visited + 'a;

/// Where points come from.
pub trait Source {
    /// Visits every series that the selector means and that has points within `start_ns..=end_ns` (Unix nanoseconds),
    /// each once, with its times (ascending, each once) and values. Values that are no numbers are left out. The order of the series is
    /// the same for equal content. A series that is [`Standing::Held`] comes also for its newest point before the range, and with it.
    ///
    /// # Errors
    /// The first error of a visit at once, or [`QueryError::Source`] when points cannot be read.
    fn select(&self, selector: &Selector, start_ns: i64, end_ns: i64, visit: &mut Visit) -> Visited;
}
