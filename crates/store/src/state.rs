//! What stands in the state folder: the series catalogue, cursors and the device registry, opened and closed as one. All of it
//! can be made again: a folder that is gone or damaged is begun anew, cursors start at zero, and the store enters its series.

use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};

use crate::catalogue::{Catalogue, Registry, open_folder, open_or_begin};
use crate::errors::{Finding, StateError};
use crate::shared::{read_locked, write_locked};

pub(crate) const STATE_DIR: &str = "state";
/// A part of the memory that sled's page cache may take.
const SLED_SHARE: usize = 4;

/// The state folder, or what stands for it in memory.
#[derive(Debug)]
pub(crate) struct State {
    registry: Registry,
    /// Shared with whom asks it; after closing, an empty one in memory.
    series: RwLock<Arc<Catalogue>>,
    memory_bytes_max: usize,
    has_all_series: AtomicBool,
    /// The catalogue is in memory though there is a folder.
    gave_up: AtomicBool,
}

/// Cursors and devices are asked of the state itself.
impl Deref for State {
    type Target = Registry;

    fn deref(&self) -> &Registry {
        &self.registry
    }
}

impl State {
    pub fn in_memory(memory_bytes_max: usize) -> Self {
        let series = RwLock::new(Arc::new(Catalogue::in_memory(memory_bytes_max)));
        let (has_all_series, gave_up) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { registry: Registry::default(), series, memory_bytes_max, has_all_series, gave_up }
    }

    /// Opens the folder; when it is damaged, moves it aside and begins a new one; when the disk refuses even that, goes on in
    /// memory. The second value says so: then all series are to be entered again.
    pub fn in_folder(dir: &Path, memory_bytes_max: usize) -> (Self, Option<Finding>) {
        let open = |folder: &Path| {
            open_folder(folder, memory_bytes_max / SLED_SHARE, |opened| {
                let registry = Registry::read(opened)?;
                let series = Catalogue::on(opened, memory_bytes_max)?;
                let has_all_series = AtomicBool::new(registry.has_all_series()?);
                let gave_up = AtomicBool::new(false);
                let series = RwLock::new(Arc::new(series));
                Ok(Self { registry, series, memory_bytes_max, has_all_series, gave_up })
            })
        };
        match open_or_begin(&dir.join(STATE_DIR), open) {
            Ok((state, reason)) => (state, reason.map(|reason| Finding::StateRebuilt { reason })),
            Err(reason) => (Self::in_memory(memory_bytes_max), Some(Finding::StateUnavailable { reason })),
        }
    }

    /// Whether every series that is sealed was entered once.
    pub fn has_all_series(&self) -> bool {
        self.has_all_series.load(Ordering::Acquire)
    }

    /// Says that every series that is sealed was entered. Remembered by a folder that has them on disk.
    pub fn set_has_all_series(&self) {
        if let Err(error) = self
            .flush()
            .and_then(|()| self.registry.set_has_all_series(!self.gave_up.load(Ordering::Acquire)))
        {
            tracing::warn!(%error, "the series will be entered again at the next start");
        }
        self.has_all_series.store(true, Ordering::Release);
    }

    /// Goes on with an empty catalogue in memory; the folder's is made again at the next start.
    pub fn begin_series_anew(&self) {
        self.gave_up.store(true, Ordering::Release);
        self.has_all_series.store(false, Ordering::Release);
        if let Err(error) = self.registry.set_has_all_series(false) {
            tracing::error!(%error, "cannot note that the catalogue is of no use");
        }
        *write_locked(&self.series) = Arc::new(Catalogue::in_memory(self.memory_bytes_max));
    }

    /// The series of all sites.
    pub fn series(&self) -> Arc<Catalogue> {
        Arc::clone(&read_locked(&self.series))
    }

    /// Makes everything durable now.
    pub fn flush(&self) -> Result<(), StateError> {
        self.series().flush().map_err(|error| StateError::Database(Arc::from(error.to_string())))?;
        self.registry.flush()
    }

    /// Flushes and lets go of the folder.
    pub fn close(&self) -> Result<(), StateError> {
        let flushed = self.flush();
        self.registry.close();
        *write_locked(&self.series) = Arc::new(Catalogue::in_memory(self.memory_bytes_max));
        flushed
    }
}
