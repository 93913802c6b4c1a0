//! Why a query has no answer. Which of these a protocol calls what is the protocol's affair.

/// Why a query was ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halt {
    /// Nobody waits for the answer any more.
    Cancelled,
    /// It took longer than it may.
    TimedOut,
}

/// Why a query has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The text is no PromQL, or an expression that cannot be evaluated at all.
    #[error("{0}")]
    Parse(String),
    /// The times or the step asked for make no sense.
    #[error("{0}")]
    Range(String),
    /// The expression is sound, but not with these series: ambiguous matching, a bad regular expression in an argument.
    #[error("{0}")]
    Execution(String),
    /// It reads or makes more samples than it may.
    #[error(
        "query processing would load too many samples into memory in query execution (the most is {most})"
    )]
    Samples {
        /// The bound.
        most: u64,
    },
    /// It selects more series than it may.
    #[error("the query selects more than {most} series")]
    Series {
        /// The bound.
        most: u64,
    },
    /// Nobody waits for the answer any more.
    #[error("query was canceled in expression evaluation")]
    Cancelled,
    /// It took longer than it may.
    #[error("query timed out in expression evaluation")]
    TimedOut,
    /// The points could not be read.
    #[error("{0}")]
    Source(String),
}

impl From<Halt> for QueryError {
    fn from(halt: Halt) -> Self {
        match halt {
            Halt::Cancelled => Self::Cancelled,
            Halt::TimedOut => Self::TimedOut,
        }
    }
}

pub(super) fn execution(message: impl Into<String>) -> QueryError {
    QueryError::Execution(message.into())
}
