//! What stands in the state folder: the series catalogue, cursors and the device registry, opened and closed as one. All of it
//! can be made again: a folder that is gone or damaged is begun anew, cursors start at zero, and the store enters its series.

use std::ops::Deref;
use std::path::Path;
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
        Self { registry: Registry::default(), series, memory_bytes_max }
    }

    /// Opens the folder; when it is damaged, moves it aside and begins a new one; when the disk refuses even that, goes on in
    /// memory. The second value says so: then all series are to be entered again.
    pub fn in_folder(dir: &Path, memory_bytes_max: usize) -> (Self, Option<Finding>) {
        let open = |folder: &Path| {
            open_folder(folder, memory_bytes_max / SLED_SHARE, |opened| {
                let registry = Registry::read(opened)?;
                let series = Catalogue::on(opened, memory_bytes_max)?;
                Ok(Self { registry, series: RwLock::new(Arc::new(series)), memory_bytes_max })
            })
        };
        match open_or_begin(&dir.join(STATE_DIR), open) {
            Ok((state, reason)) => (state, reason.map(|reason| Finding::StateRebuilt { reason })),
            Err(reason) => (Self::in_memory(memory_bytes_max), Some(Finding::StateUnavailable { reason })),
        }
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
