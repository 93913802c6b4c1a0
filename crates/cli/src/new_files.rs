//! Files that must not replace others: written beside their place, synced, and put there only if nothing is there. What belongs
//! together is there as a whole or not at all.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Anyone may read it, the owner may write it.
pub const MODE_PUBLIC: u32 = 0o644;
/// Nobody but the owner may read it.
const MODE_PRIVATE: u32 = 0o600;

/// A file that is to be.
pub struct NewFile<'a> {
    pub path: PathBuf,
    pub text: &'a str,
    /// Whether it is a secret of its owner.
    pub private: bool,
}

/// Why a file is not there.
#[derive(Debug, thiserror::Error)]
pub enum NewFileError {
    #[error("{} exists and is left as it is; name another place, or move it away if nothing uses it", .0.display())]
    Exists(PathBuf),
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// Makes these files, and the folders that they are in. The last is there only when all are.
///
/// # Errors
/// [`NewFileError`] names the file; none of them is there then.
pub fn write_new(files: &[NewFile<'_>]) -> Result<(), NewFileError> {
    let staged: Result<Vec<_>, _> = files.iter().map(|file| Ok((&file.path, stage(file)?))).collect();
    let mut placed: Vec<&Path> = Vec::new();
    let result = staged?.into_iter().try_for_each(|(path, staged)| {
        staged.persist_noclobber(path).map_err(|refused| write_error(path, refused.error))?;
        placed.push(path);
        sync_folder(path).map_err(|source| NewFileError::Write { path: path.clone(), source })
    });
    if result.is_err() {
        for path in placed {
            if let Err(source) = fs::remove_file(path) {
                eprintln!("tidelog: cannot take back {}: {source}", path.display());
            }
        }
    }
    result
}

fn stage(file: &NewFile<'_>) -> Result<tempfile::NamedTempFile, NewFileError> {
    if file.path.symlink_metadata().is_ok() {
        return Err(NewFileError::Exists(file.path.clone()));
    }
    let written = || {
        let folder = folder(&file.path);
        fs::create_dir_all(folder)?;
        let mode = if file.private { MODE_PRIVATE } else { MODE_PUBLIC };
        let mut staged = tempfile::Builder::new()
            .prefix(".tidelog-")
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(folder)?;
        staged.write_all(file.text.as_bytes())?;
        staged.as_file().sync_all()?;
        Ok(staged)
    };
    written().map_err(|source| write_error(&file.path, source))
}

fn write_error(path: &Path, source: io::Error) -> NewFileError {
    match source.kind() {
        io::ErrorKind::AlreadyExists => NewFileError::Exists(path.to_owned()),
        _ => NewFileError::Write { path: path.to_owned(), source },
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn two_files_are_made_with_their_permissions_and_nothing_beside_them() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join("deep/er").join(name);
        let files = [
            NewFile { path: at("a.key"), text: "secret", private: true },
            NewFile { path: at("a.pem"), text: "public", private: false },
        ];
        write_new(&files).unwrap();
        let mode = |name| fs::metadata(at(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("a.key"), 0o600);
        assert_eq!(mode("a.pem") & 0o133, 0, "nobody else writes it");
        assert_eq!(fs::read_to_string(at("a.key")).unwrap(), "secret");
        assert_eq!(names(&dir.path().join("deep/er")), ["a.key", "a.pem"]);
    }

    #[test]
    fn where_one_file_is_in_the_way_none_is_made_and_it_stays_as_it_was() {
        for (in_the_way, dangling) in [("a.key", false), ("a.pem", false), ("a.pem", true)] {
            let dir = tempfile::tempdir().unwrap();
            let at = |name: &str| dir.path().join(name);
            if dangling {
                std::os::unix::fs::symlink("nowhere", at(in_the_way)).unwrap();
            } else {
                fs::write(at(in_the_way), "older").unwrap();
            }
            let files = ["a.key", "a.pem"].map(|name| NewFile { path: at(name), text: "new", private: true });
            let error = write_new(&files).unwrap_err();
            assert!(matches!(&error, NewFileError::Exists(path) if *path == at(in_the_way)), "{error}");
            assert_eq!(names(dir.path()), [in_the_way]);
            assert!(dangling || fs::read_to_string(at(in_the_way)).unwrap() == "older");
        }
    }

    #[test]
    fn a_file_that_comes_while_the_others_are_written_takes_them_back() {
        let dir = tempfile::tempdir().unwrap();
        let twice =
            ["a", "b", "a"].map(|name| NewFile { path: dir.path().join(name), text: "", private: false });
        assert!(matches!(write_new(&twice), Err(NewFileError::Exists(_))));
        assert_eq!(names(dir.path()), [""; 0]);
    }

    #[test]
    fn a_place_that_cannot_be_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let path = dir.path().join("file/ca.pem");
        let error = write_new(&[NewFile { path, text: "", private: false }]).unwrap_err().to_string();
        assert!(error.contains("file/ca.pem"), "{error}");
    }
}
