//! Cursors and the device registry: a few entries, held in memory and in sled. What is set is seen at once by this process and
//! durable after the next periodic flush: a cursor may stand further back after a crash, so its consumer repeats records and
//! never misses one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tidelog_record::DeviceId;

use super::folder::{Opened, Trouble};
use super::shelf::{sealed, unsealed};
use crate::errors::StateError;
use crate::position::Position;
use crate::shared::locked;

/// Longest entry of the device registry, in bytes.
pub const DEVICE_ENTRY_BYTES_MAX: usize = 4096;
/// Longest name of a cursor, in bytes.
pub const CURSOR_NAME_BYTES_MAX: usize = 256;

/// The key that says that every series that is sealed was entered.
const HAS_ALL_SERIES_KEY: &[u8] = b"has all series";

/// What stands in the folder, held in memory as well.
#[derive(Debug, Default)]
struct Entries {
    cursors: BTreeMap<String, Position>,
    devices: BTreeMap<DeviceId, Vec<u8>>,
}

#[derive(Debug)]
struct Trees {
    db: sled::Db,
    cursors: sled::Tree,
    devices: sled::Tree,
}

/// The small mutable state.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    entries: Mutex<Entries>,
    trees: Mutex<Option<Trees>>,
}

fn database(error: &sled::Error) -> StateError {
    StateError::Database(Arc::from(error.to_string()))
}

impl Registry {
    /// Reads all entries.
    pub fn read(opened: &Opened) -> Result<Self, Trouble> {
        let cursors = opened.db.open_tree("cursors")?;
        let devices = opened.db.open_tree("devices")?;
        let mut entries = Entries::default();
        let damaged = |what: &str| Trouble::Damaged(format!("{what} in it is damaged"));
        for entry in &cursors {
            let (key, value) = entry?;
            let read = || {
                let name = std::str::from_utf8(&key).ok()?;
                let position = unsealed(&key, &value)?.try_into().ok().map(u64::from_le_bytes)?;
                Some((name.to_owned(), Position(position)))
            };
            let (name, position) = read().ok_or_else(|| damaged("a cursor"))?;
            entries.cursors.insert(name, position);
        }
        for entry in &devices {
            let (key, value) = entry?;
            let read = || Some((DeviceId(key.as_ref().try_into().ok()?), unsealed(&key, &value)?.to_vec()));
            let (device, value) = read().ok_or_else(|| damaged("a device's entry"))?;
            entries.devices.insert(device, value);
        }
        let trees = Trees { db: opened.db.clone(), cursors, devices };
        Ok(Self { entries: Mutex::new(entries), trees: Mutex::new(Some(trees)) })
    }

    /// Whether the folder says that every series that is sealed was entered.
    pub fn has_all_series(&self) -> Result<bool, Trouble> {
        match locked(&self.trees).as_ref() {
            Some(trees) => Ok(trees.db.get(HAS_ALL_SERIES_KEY)?.is_some()),
            None => Ok(false),
        }
    }

    /// Makes the folder say so, or no longer.
    pub fn set_has_all_series(&self, has: bool) -> Result<(), StateError> {
        if let Some(trees) = locked(&self.trees).as_ref() {
            let set = if has {
                trees.db.insert(HAS_ALL_SERIES_KEY, &[1])
            } else {
                trees.db.remove(HAS_ALL_SERIES_KEY)
            };
            set.and_then(|_| trees.db.flush()).map_err(|e| database(&e))?;
        }
        Ok(())
    }

    pub fn cursor(&self, name: &str) -> Position {
        locked(&self.entries).cursors.get(name).copied().unwrap_or_default()
    }

    pub fn cursors(&self) -> Vec<(String, Position)> {
        locked(&self.entries).cursors.iter().map(|(name, at)| (name.clone(), *at)).collect()
    }

    pub fn set_cursor(&self, name: &str, position: Position) -> Result<(), StateError> {
        if name.len() > CURSOR_NAME_BYTES_MAX {
            return Err(StateError::TooLong { bytes: name.len(), most: CURSOR_NAME_BYTES_MAX });
        }
        locked(&self.entries).cursors.insert(name.to_owned(), position);
        if let Some(trees) = locked(&self.trees).as_ref() {
            let value = sealed(name.as_bytes(), &position.0.to_le_bytes());
            trees.cursors.insert(name.as_bytes(), value).map_err(|e| database(&e))?;
        }
        Ok(())
    }

    pub fn forget_cursor(&self, name: &str) -> Result<(), StateError> {
        locked(&self.entries).cursors.remove(name);
        if let Some(trees) = locked(&self.trees).as_ref() {
            trees.cursors.remove(name.as_bytes()).map_err(|e| database(&e))?;
        }
        Ok(())
    }

    pub fn device(&self, device: &DeviceId) -> Option<Vec<u8>> {
        locked(&self.entries).devices.get(device).cloned()
    }

    pub fn devices(&self) -> Vec<(DeviceId, Vec<u8>)> {
        locked(&self.entries).devices.iter().map(|(device, entry)| (*device, entry.clone())).collect()
    }

    pub fn set_device(&self, device: DeviceId, entry: &[u8]) -> Result<(), StateError> {
        if entry.len() > DEVICE_ENTRY_BYTES_MAX {
            return Err(StateError::TooLong { bytes: entry.len(), most: DEVICE_ENTRY_BYTES_MAX });
        }
        locked(&self.entries).devices.insert(device, entry.to_vec());
        if let Some(trees) = locked(&self.trees).as_ref() {
            trees.devices.insert(device.0, sealed(&device.0, entry)).map_err(|e| database(&e))?;
        }
        Ok(())
    }

    /// Makes everything durable now.
    pub fn flush(&self) -> Result<(), StateError> {
        match locked(&self.trees).as_ref() {
            Some(trees) => trees.db.flush().map(|_| ()).map_err(|e| database(&e)),
            None => Ok(()),
        }
    }

    /// Lets go of the folder.
    pub fn close(&self) {
        drop(locked(&self.trees).take());
    }
}
