//! Why the catalogue did not answer.

use std::io::ErrorKind;
use std::sync::Arc;

/// Why the catalogue did not answer or remember.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogueError {
    /// What was named is no series.
    #[error(transparent)]
    Series(#[from] tidelog_record::SeriesError),
    /// The database failed, or cannot read its own files.
    #[error("cannot use the state folder: {0}")]
    Database(Arc<str>),
    /// The disk refuses: it is full, or the folder may not be written, or another process has it. Nothing is damaged.
    #[error("cannot use the state folder: {0}")]
    Disk(Arc<str>),
    /// Bytes that were good when the folder was opened no longer are. Opening it again begins a new one.
    #[error("the series catalogue is damaged: {0}")]
    Damaged(&'static str),
    /// As many sites or series as can be numbered.
    #[error("the series catalogue is full: {0}")]
    Full(&'static str),
}

impl CatalogueError {
    /// Whether the catalogue is of no use any more.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(self, Self::Database(_) | Self::Damaged(_))
    }
}

impl From<sled::Error> for CatalogueError {
    fn from(error: sled::Error) -> Self {
        let text = Arc::from(error.to_string());
        if is_refusal(&error) { Self::Disk(text) } else { Self::Database(text) }
    }
}

/// How sled says, in words only, that the folder is open elsewhere.
const LOCKED_ELSEWHERE: &str = "could not acquire lock";

/// Whether the folder is open elsewhere.
pub(super) fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(io) if io.to_string().contains(LOCKED_ELSEWHERE))
}

/// Whether the disk refused what was asked, which says nothing about what stands on it.
fn is_refusal(error: &sled::Error) -> bool {
    let sled::Error::Io(io) = error else { return false };
    let refused = [
        ErrorKind::StorageFull,
        ErrorKind::QuotaExceeded,
        ErrorKind::ReadOnlyFilesystem,
        ErrorKind::PermissionDenied,
    ];
    refused.contains(&io.kind()) || is_locked(error)
}
