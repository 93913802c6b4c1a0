//! Why the catalogue did not answer.

use std::sync::Arc;

/// Why the catalogue did not answer or remember.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogueError {
    /// What was named is no series.
    #[error(transparent)]
    Series(#[from] tidelog_record::SeriesError),
    /// The database refused.
    #[error("cannot use the state folder: {0}")]
    Database(Arc<str>),
    /// Bytes that were good when the folder was opened no longer are. Opening it again begins a new one.
    #[error("the series catalogue is damaged: {0}")]
    Damaged(&'static str),
    /// As many sites or series as can be numbered.
    #[error("the series catalogue is full: {0}")]
    Full(&'static str),
}

impl From<sled::Error> for CatalogueError {
    fn from(error: sled::Error) -> Self {
        Self::Database(Arc::from(error.to_string()))
    }
}
