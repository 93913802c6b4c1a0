//! Cursors and the device registry, in sled. All of it is small and none of it is the only copy of anything: a folder
//! that is gone or damaged is begun anew and cursors start at zero. Thin: the series catalogue will live here too.
//!
//! What is set is seen at once by this process and durable after the next periodic flush: a cursor may stand further
//! back after a crash, so its consumer repeats records and never misses one.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tidelog_record::DeviceId;

use crate::errors::{Finding, StateError};
use crate::position::Position;
use crate::shared::locked;

pub(crate) const STATE_DIR: &str = "state";
/// How often what was set becomes durable, in milliseconds.
const FLUSH_EVERY_MS: u64 = 500;
/// Memory that sled's page cache may take, in bytes.
const CACHE_BYTES: u64 = 512 * 1024;
/// The key that says that the folder was begun.
const BEGUN_KEY: &[u8] = b"begun";
/// Longest entry of the device registry, in bytes.
pub const DEVICE_ENTRY_BYTES_MAX: usize = 4096;
/// Longest name of a cursor, in bytes.
pub const CURSOR_NAME_BYTES_MAX: usize = 256;

/// What stands in the folder, held in memory as well.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    pub cursors: BTreeMap<String, Position>,
    pub devices: BTreeMap<DeviceId, Vec<u8>>,
}

#[derive(Debug)]
struct Trees {
    db: sled::Db,
    cursors: sled::Tree,
    devices: sled::Tree,
}

/// The small mutable state.
#[derive(Debug)]
pub(crate) struct State {
    entries: Mutex<Entries>,
    trees: Mutex<Option<Trees>>,
}

fn checksum(key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(value);
    hasher.finalize()
}

/// A value with a checksum over its key and itself before it, little-endian.
fn sealed(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = checksum(key, value).to_le_bytes().to_vec();
    out.extend_from_slice(value);
    out
}

fn unsealed<'v>(key: &[u8], bytes: &'v [u8]) -> Option<&'v [u8]> {
    let (crc, value) = bytes.split_first_chunk::<4>()?;
    (checksum(key, value) == u32::from_le_bytes(*crc)).then_some(value)
}

fn database(error: &sled::Error) -> StateError {
    StateError::Database(Arc::from(error.to_string()))
}

impl State {
    pub fn in_memory() -> Self {
        Self { entries: Mutex::default(), trees: Mutex::new(None) }
    }

    /// Opens the folder; when it is damaged, moves it aside and begins a new one; when the disk refuses even that, goes on in
    /// memory. The second value says so.
    pub fn in_folder(dir: &Path) -> (Self, Option<Finding>) {
        let folder = dir.join(STATE_DIR);
        let existed = folder.exists();
        let reason = match open_checked(&folder) {
            Ok((state, true)) => return (state, None),
            Ok((state, false)) => {
                let reason =
                    if existed { "the folder's contents were gone" } else { "the folder was not there" };
                return (state, Some(Finding::StateRebuilt { reason: reason.to_owned() }));
            }
            Err(Trouble::Disk(reason)) => {
                return (Self::in_memory(), Some(Finding::StateUnavailable { reason }));
            }
            Err(Trouble::Damaged(reason)) => reason,
        };
        let aside = free_name(&folder);
        let begun = fs::rename(&folder, &aside).map_err(|e| e.to_string());
        match begun.and_then(|()| open_checked(&folder).map_err(|trouble| trouble.to_string())) {
            Ok((state, _)) => {
                let reason = format!("{reason}; moved to {}", aside.display());
                (state, Some(Finding::StateRebuilt { reason }))
            }
            Err(reason) => (Self::in_memory(), Some(Finding::StateUnavailable { reason })),
        }
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

    /// Flushes and lets go of the folder.
    pub fn close(&self) -> Result<(), StateError> {
        let flushed = self.flush();
        drop(locked(&self.trees).take());
        flushed
    }
}

/// Why the folder did not open.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    Damaged(String),
    #[error("{0}")]
    Disk(String),
}

impl From<sled::Error> for Trouble {
    fn from(error: sled::Error) -> Self {
        match &error {
            sled::Error::Io(io)
                if matches!(io.kind(), ErrorKind::StorageFull | ErrorKind::PermissionDenied) =>
            {
                Self::Disk(error.to_string())
            }
            _ => Self::Damaged(error.to_string()),
        }
    }
}

/// sled may panic on damaged files; that too only means that the folder is damaged.
fn open_checked(folder: &Path) -> Result<(State, bool), Trouble> {
    catch_unwind(AssertUnwindSafe(|| open(folder)))
        .unwrap_or_else(|_| Err(Trouble::Damaged(String::from("sled panicked on it"))))
}

/// The state, and whether it was begun before: sled takes some damage for an empty folder.
fn open(folder: &Path) -> Result<(State, bool), Trouble> {
    let config = sled::Config::new()
        .path(folder)
        .mode(sled::Mode::LowSpace)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(Some(FLUSH_EVERY_MS));
    let db = config.open()?;
    let cursors = db.open_tree("cursors")?;
    let devices = db.open_tree("devices")?;
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
    let begun_before = db.insert(BEGUN_KEY, &[1])?.is_some();
    if !begun_before {
        db.flush()?;
    }
    let trees = Mutex::new(Some(Trees { db, cursors, devices }));
    Ok((State { entries: Mutex::new(entries), trees }, begun_before))
}

fn free_name(folder: &Path) -> PathBuf {
    let mut aside = folder.with_extension("damaged");
    let mut number = 1u32;
    while aside.exists() {
        aside = folder.with_extension(format!("damaged.{number}"));
        number += 1;
    }
    aside
}
