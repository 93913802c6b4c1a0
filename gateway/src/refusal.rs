//! Why the store did not take what a device sent, and after how long the device is to come back.

use tidelog_store::AppendError;

/// Why an append was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The store's queue is full: in a moment.
    Busy,
    /// The disk is full: when someone has made room.
    Full,
    /// The store takes no more writes.
    Closed,
}

impl Refusal {
    /// The reason as a metric's label.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Busy => "store_busy",
            Self::Full => "store_full",
            Self::Closed => "store_closed",
        }
    }

    /// After how many seconds to come back.
    pub fn max_age_s(self) -> u32 {
        match self {
            Self::Busy => 2,
            Self::Full => 60,
            Self::Closed => 30,
        }
    }
}

impl From<&AppendError> for Refusal {
    fn from(error: &AppendError) -> Self {
        match error {
            AppendError::Busy => Self::Busy,
            AppendError::Full => Self::Full,
            AppendError::Closed | AppendError::Failed(_) => Self::Closed,
            // Whoever encoded the body kept within the record's bound.
            AppendError::TooLong { .. } | AppendError::Malformed(_) => Self::Closed,
        }
    }
}
