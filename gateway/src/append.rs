//! Giving to the store what a device sent: a server says what, under a key of its own, and hears what became of it through a channel.
//! Why the store did not take it, and after how long the device is to come back.

use std::sync::Arc;

use tidelog_node::NodeContext;
use tidelog_store::AppendError;
use tokio::sync::mpsc;

/// What an append came to, by its key.
pub(crate) type Settled<K> = (K, Result<(), Refusal>);

/// Gives a record's body to the store; what becomes of it is sent to `outcome`. `via`: by which way it came, in metrics.
pub(crate) fn append<K: Send + 'static>(
    context: &NodeContext,
    (key, body): (K, Vec<u8>),
    outcome: &mpsc::Sender<Settled<K>>,
    via: &'static str,
) {
    let (outcome, metrics) = (outcome.clone(), Arc::clone(&context.metrics));
    context.store.append(&context.site, body, move |appended| {
        let result = appended.map(|_| ()).map_err(|error| Refusal::from(&error));
        // Full only if a server had more appends under way than it may, gone only when its task has ended: the device was not answered,
        // so it asks again.
        if outcome.try_send((key, result)).is_err() {
            metrics.refused.with_label_values(&[via, "outcome_lost"]).inc();
        }
    });
}

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
