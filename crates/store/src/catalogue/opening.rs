//! How often in a row an opening of a folder was begun and came to no end, in a file beside the folder. Where a panic ends the process
//! nobody is left to say that sled panicked on the folder; the process after it reads so here. A note that cannot be written only
//! makes the check weaker.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Openings in a row without an end after which the folder is taken for damaged. One may be a power cut, and so may two.
const OPENINGS_MAX: usize = 3;

/// The file beside a folder: a byte for each opening that was begun.
pub(super) fn beside(folder: &Path) -> PathBuf {
    folder.with_extension("opening")
}

/// An opening that was begun.
#[derive(Debug)]
pub(super) struct Opening {
    file: PathBuf,
    /// Those before it that came to no end.
    unended: usize,
}

impl Opening {
    /// Notes that an opening of the folder begins.
    pub fn begin(folder: &Path) -> Self {
        let file = beside(folder);
        let unended = fs::read(&file).map_or(0, |begun| begun.len().min(OPENINGS_MAX));
        if let Err(error) = fs::write(&file, vec![b'.'; unended + 1]) {
            tracing::warn!(%error, "cannot note that the state is being opened");
        }
        Self { file, unended }
    }

    /// Whether so many before it came to no end that the folder must be why.
    pub const fn is_hopeless(&self) -> bool {
        self.unended >= OPENINGS_MAX
    }

    /// Notes that it came to an end, good or bad.
    pub fn end(self) {
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(%error, "cannot note that the state was opened");
            }
            _ => {}
        }
    }
}
