//! The sled folder: opened with suspicion, moved aside when it is damaged, begun anew.

use std::fs;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::error::{CatalogueError, is_locked};
use super::noted::{Noted, beside};
use super::opening::Opening;

/// How often what was set becomes durable, in milliseconds.
const FLUSH_EVERY_MS: u64 = 500;
/// Longest wait for a folder that is held, in milliseconds.
const UNLOCK_MS_MAX: u64 = 3_000;
/// How often it is tried, in milliseconds.
const UNLOCK_POLL_MS: u64 = 10;
/// Least memory for sled's page cache, in bytes.
const CACHE_BYTES_MIN: usize = 256 * 1024;
/// The key that says that the folder was begun.
const BEGUN_KEY: &[u8] = b"begun";

/// Why the folder did not open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error("{0}")]
    Damaged(String),
    #[error("{0}")]
    Disk(String),
}

impl From<sled::Error> for Trouble {
    fn from(error: sled::Error) -> Self {
        CatalogueError::from(error).into()
    }
}

impl From<CatalogueError> for Trouble {
    fn from(error: CatalogueError) -> Self {
        match error {
            CatalogueError::Disk(reason) => Self::Disk(reason.to_string()),
            _ => Self::Damaged(error.to_string()),
        }
    }
}

/// The database of a folder.
#[derive(Debug)]
pub(crate) struct Opened {
    pub db: sled::Db,
    pub(super) noted: Noted,
}

/// Opens the database. Where the folder was closed just now, a thread of sled's may hold it a little longer.
fn unlocked(folder: &Path, cache_bytes: usize) -> sled::Result<sled::Db> {
    let config = sled::Config::new()
        .path(folder)
        .mode(sled::Mode::LowSpace)
        .cache_capacity(cache_bytes.max(CACHE_BYTES_MIN) as u64)
        .flush_every_ms(Some(FLUSH_EVERY_MS));
    let mut waited_ms = 0;
    loop {
        match config.open() {
            Err(error) if is_locked(&error) && waited_ms < UNLOCK_MS_MAX => {
                thread::sleep(Duration::from_millis(UNLOCK_POLL_MS));
                waited_ms += UNLOCK_POLL_MS;
            }
            opened => return opened,
        }
    }
}

/// Opens the folder and reads it; the second value says whether it was begun before: sled takes some damage for an empty
/// folder. sled may panic on damaged files; that too only means that the folder is damaged, and where a panic ends the process, the fourth
/// that opens the folder says so.
pub(crate) fn open_folder<T>(
    folder: &Path,
    cache_bytes: usize,
    read: impl FnOnce(&mut Opened) -> Result<T, Trouble>,
) -> Result<(T, bool), Trouble> {
    let open = || {
        let db = unlocked(folder, cache_bytes)?;
        let mut opened = Opened { db, noted: Noted::read(folder) };
        let what = read(&mut opened)?;
        let begun_before = opened.db.insert(BEGUN_KEY, &[1])?.is_some();
        if !begun_before {
            opened.db.flush()?;
        }
        Ok((what, begun_before))
    };
    let opening = Opening::begin(folder);
    let opened = if opening.is_hopeless() {
        Err(Trouble::Damaged(String::from("no opening of it came to an end")))
    } else {
        catch_unwind(AssertUnwindSafe(open))
            .unwrap_or_else(|_| Err(Trouble::Damaged(String::from("sled panicked on it"))))
    };
    opening.end();
    opened
}

/// Opens the folder; when it is damaged, moves it aside and begins a new one. The second value says what was wrong. Only the
/// last damaged folder is kept, for whoever wants to know what became of it: nothing in it is the only copy.
///
/// # Errors
/// What the disk said, where not even a new folder is to be had.
pub(crate) fn open_or_begin<T>(
    folder: &Path,
    open: impl Fn(&Path) -> Result<(T, bool), Trouble>,
) -> Result<(T, Option<String>), String> {
    let existed = folder.exists();
    if !existed {
        forget_note(folder)?;
    }
    let reason = match open(folder) {
        Ok((opened, true)) => return Ok((opened, None)),
        Ok((opened, false)) => {
            let reason = if existed { "the folder's contents were gone" } else { "the folder was not there" };
            return Ok((opened, Some(reason.to_owned())));
        }
        Err(Trouble::Disk(reason)) => return Err(reason),
        Err(Trouble::Damaged(reason)) => reason,
    };
    let aside = folder.with_extension("damaged");
    remove_if_there(fs::remove_dir_all(&aside))?;
    fs::rename(folder, &aside).map_err(|error| error.to_string())?;
    forget_note(folder)?;
    let (opened, _) = open(folder).map_err(|trouble| trouble.to_string())?;
    Ok((opened, Some(format!("{reason}; moved to {}", aside.display()))))
}

fn forget_note(folder: &Path) -> Result<(), String> {
    remove_if_there(fs::remove_file(beside(folder)))
}

fn remove_if_there(removed: std::io::Result<()>) -> Result<(), String> {
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.to_string()),
        _ => Ok(()),
    }
}
