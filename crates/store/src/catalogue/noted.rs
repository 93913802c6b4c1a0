//! What sled does not do for its folder: make its log survive a power cut, and note how many series are durable, in a file
//! beside the folder. sled opens a folder whose newest writes rotted as if they had never been made; one with fewer series than
//! noted is such a one. A note that is missing, torn or old only makes the check weaker, so it is written without ceremony.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::CatalogueError;
use super::shelf::{sealed, unsealed};

/// What the checksum of the note covers besides the number.
const NOTE_KEY: &[u8] = b"series";

/// The file beside a folder.
pub(super) fn beside(folder: &Path) -> PathBuf {
    folder.with_extension("count")
}

/// The note of one folder; of none, where the catalogue lives in memory.
#[derive(Debug, Default)]
pub(super) struct Noted {
    file: Option<PathBuf>,
    /// sled's log, which its own flush hands to the disk without asking the disk to make it last.
    database: PathBuf,
    series: AtomicU64,
}

impl Noted {
    /// What was noted beside a folder.
    pub fn read(folder: &Path) -> Self {
        let file = beside(folder);
        let bytes = fs::read(&file).unwrap_or_default();
        let number = unsealed(NOTE_KEY, &bytes).and_then(|number| number.try_into().ok());
        let series = number.map_or(0, u64::from_le_bytes);
        Self { file: Some(file), database: folder.join("db"), series: AtomicU64::new(series) }
    }

    pub fn series(&self) -> u64 {
        self.series.load(Ordering::Relaxed)
    }

    /// Makes what sled wrote survive a power cut.
    pub fn sync_database(&self) -> Result<(), CatalogueError> {
        if self.file.is_none() {
            return Ok(());
        }
        let synced = fs::File::open(&self.database).and_then(|file| file.sync_all());
        synced.map_err(|error| CatalogueError::Disk(error.to_string().into()))
    }

    /// Notes that so many are durable now.
    pub fn note(&self, series: u64) -> Result<(), CatalogueError> {
        let Some(file) = self.file.as_ref().filter(|_| series != self.series()) else { return Ok(()) };
        fs::write(file, sealed(NOTE_KEY, &series.to_le_bytes()))
            .map_err(|error| CatalogueError::Disk(error.to_string().into()))?;
        self.series.store(series, Ordering::Relaxed);
        Ok(())
    }
}
