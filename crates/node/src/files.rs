//! Small files that must be whole or absent: written beside, synced, and renamed into place; and how one sees that a file has changed.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;
use std::time::SystemTime;

/// How a file looks from outside: when it was written, how long it is, and which it is. `None` if it is not there.
pub(crate) type Look = Option<(SystemTime, u64, u64)>;

/// How a file looks now; when that changes, it is to be read again.
pub(crate) fn look(path: &Path) -> Look {
    let found = std::fs::metadata(path).ok()?;
    Some((found.modified().ok()?, found.len(), found.ino()))
}

/// Replaces `path` by a file with these bytes that only its owner may read: whoever owned it before, or else the owner of its folder.
/// So an administrator who writes it for a daemon leaves it readable to the daemon.
///
/// # Errors
/// What the system says; then the file is as it was, or whole.
pub(crate) fn write_private_beside(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let beside = path.with_extension("new");
    // One that an earlier attempt left may be readable to others.
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    let (owner, own) = (std::fs::metadata(path).or_else(|_| std::fs::metadata(folder))?, file.metadata()?);
    if (owner.uid(), owner.gid()) != (own.uid(), own.gid()) && own.uid() == 0 {
        fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
    }
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    File::open(folder)?.sync_all()
}

/// Replaces `path` by a file with these bytes. With `private`, only the owner may read it.
///
/// # Errors
/// What the system says; then the file is as it was, or whole.
pub fn write_whole(path: &Path, bytes: &[u8], private: bool) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    options.mode(if private { 0o600 } else { 0o644 });
    let mut file = options.open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
