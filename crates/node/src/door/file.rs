//! The file of tokens: what is kept of each, read whole and replaced whole. Two commands that change it at once wait for each other.
//!
//! ```text
//! {"version": 1, "tokens": [{"id": "…", "name": "grafana", "scopes": ["read"], "sites": ["plant"], "created_s": 1795248000,
//!   "last_digits": "9f1e", "hash": "…"}]}                                              sites is ["*"] for all
//! ```
//! A key that is not known refuses the file: it may be one that narrows what a token grants.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tidelog_replication::Sites;

use super::scope::Scope;
use super::token::{Hash, Token, TokenId};
use crate::files::write_private_beside;

/// The file in the node's folder, when the settings name no other.
const FILE_NAME: &str = "tokens.json";
/// The version of the form.
const VERSION: u32 = 1;
/// Most tokens of a node.
pub const TOKENS_MAX: usize = 4096;
/// Longest file, in bytes.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// How the file says that a token is for all sites.
const ALL_SITES: &str = "*";

/// Where the tokens of a node stand.
#[must_use]
pub fn tokens_path(dir: &Path, configured: Option<&Path>) -> PathBuf {
    configured.map_or_else(|| dir.join(FILE_NAME), Path::to_owned)
}

/// What is kept of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its name for machines.
    pub id: TokenId,
    /// Its name for people.
    pub name: String,
    /// What it may be used for.
    pub scopes: BTreeSet<Scope>,
    /// Where.
    #[serde(with = "sites")]
    pub sites: Sites,
    /// When it was made, Unix seconds.
    pub created_s: i64,
    /// The last digits of its secret, for people.
    pub last_digits: String,
    /// The hash of its secret.
    pub hash: Hash,
}

impl Entry {
    /// What is kept of a token.
    #[must_use]
    pub fn of(token: &Token, name: String, scopes: BTreeSet<Scope>, sites: Sites, created_s: i64) -> Self {
        let (id, last_digits, hash) = (token.id(), token.last_digits(), token.hash());
        Self { id, name, scopes, sites, created_s, last_digits, hash }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    tokens: Vec<Entry>,
}

/// Why the file of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is not in the form that it should have.
    #[error("{}: not a file of tokens: {reason}", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It cannot be replaced.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// The tokens in the file; `None` if there is no file.
///
/// # Errors
/// [`TokenFileError`] says why it cannot be used.
pub fn read(path: &Path) -> Result<Option<Vec<Entry>>, TokenFileError> {
    let unread = |source| TokenFileError::Read { path: path.to_owned(), source };
    let malformed = |reason: String| TokenFileError::Malformed { path: path.to_owned(), reason };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unread(error)),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unread)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(malformed(format!("longer than {FILE_BYTES_MAX} bytes")));
    }
    let Document { version, tokens } =
        serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
    if version != VERSION {
        return Err(malformed(format!("version {version}, known is {VERSION}")));
    }
    if tokens.len() > TOKENS_MAX {
        return Err(malformed(format!("more than {TOKENS_MAX} tokens")));
    }
    let ids: BTreeSet<TokenId> = tokens.iter().map(|entry| entry.id).collect();
    if ids.len() != tokens.len() {
        return Err(malformed("an id stands twice".to_owned()));
    }
    Ok(Some(tokens))
}

/// Replaces the file by what `change` makes of its tokens, unless it refuses. The folder is made when it is missing.
///
/// # Errors
/// What `change` says, or [`TokenFileError`]; then the file is as it was.
pub fn change<T, E: From<TokenFileError>>(
    path: &Path,
    change: impl FnOnce(&mut Vec<Entry>) -> Result<T, E>,
) -> Result<T, E> {
    let unwritten = |source| TokenFileError::Write { path: path.to_owned(), source };
    let locked = || {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(folder)?;
        let folder = File::open(folder)?;
        folder.lock()?;
        Ok(folder)
    };
    // Held until the new file is in its place.
    let _lock = locked().map_err(unwritten)?;
    let mut tokens = read(path)?.unwrap_or_default();
    let done = change(&mut tokens)?;
    let mut text = serde_json::to_vec_pretty(&Document { version: VERSION, tokens })
        .map_err(|error| unwritten(io::Error::other(error)))?;
    text.push(b'\n');
    write_private_beside(path, &text).map_err(unwritten)?;
    Ok(done)
}

mod sites {
    use super::{ALL_SITES, Sites};
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(sites: &Sites, serializer: S) -> Result<S::Ok, S::Error> {
        match sites {
            Sites::All => [ALL_SITES].serialize(serializer),
            Sites::Only(sites) => sites.serialize(serializer),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Sites, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        match names.as_slice() {
            [] => Err(D::Error::custom("sites: none is named")),
            [all] if all == ALL_SITES => Ok(Sites::All),
            names => {
                let sites: Result<_, _> = names.iter().map(|name| name.parse()).collect();
                sites.map(Sites::Only).map_err(D::Error::custom)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;

    fn entry(token: &Token, sites: Sites) -> Entry {
        Entry::of(token, "n".to_owned(), [Scope::Read, Scope::Write].into(), sites, 5)
    }

    fn add(path: &Path, entry: Entry) {
        let added = change(path, |tokens| {
            tokens.push(entry);
            Ok::<_, TokenFileError>(())
        });
        added.unwrap();
    }

    #[test]
    fn what_was_written_is_read_and_nobody_else_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = tokens_path(&dir.path().join("node"), None);
        assert_eq!(read(&path).unwrap(), None);
        let token = Token::draw().unwrap();
        let some = Sites::Only(["a".parse().unwrap(), "b".parse().unwrap()].into());
        let all = entry(&Token::draw().unwrap(), Sites::All);
        add(&path, entry(&token, some.clone()));
        add(&path, all.clone());
        assert_eq!(read(&path).unwrap().unwrap(), [entry(&token, some), all]);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("\"*\"") && !text.contains(token.reveal().rsplit('_').next().unwrap()));
    }

    #[test]
    fn commands_at_once_lose_nothing_of_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = tokens_path(dir.path(), None);
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| add(&path, entry(&Token::draw().unwrap(), Sites::All)));
            }
        });
        assert_eq!(read(&path).unwrap().unwrap().len(), 16);
    }

    #[test]
    fn a_change_that_is_refused_leaves_the_file_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = tokens_path(dir.path(), None);
        add(&path, entry(&Token::draw().unwrap(), Sites::All));
        let before = std::fs::read(&path).unwrap();
        let refused = change(&path, |tokens| {
            tokens.clear();
            Err::<(), _>(TokenFileError::Malformed { path: path.clone(), reason: "no".to_owned() })
        });
        assert!(refused.is_err() && std::fs::read(&path).unwrap() == before);
    }

    #[test]
    fn what_is_not_understood_is_refused_and_not_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = tokens_path(dir.path(), None);
        add(&path, entry(&Token::draw().unwrap(), Sites::All));
        let good = std::fs::read_to_string(&path).unwrap();
        let bad = [
            ("", ""),
            ("\"version\": 1", "\"version\": 2"),
            ("\"name\"", "\"until_s\": 5, \"name\""),
            ("\"*\"", ""),
            ("\"*\"", "\"*\", \"plant\""),
            ("\"*\"", "\"Plant\""),
            ("\"read\"", "\"everything\""),
            ("\"hash\": \"", "\"hash\": \"0"),
        ];
        for (old, new) in bad {
            let text = if old.is_empty() { String::new() } else { good.replace(old, new) };
            std::fs::write(&path, text).unwrap();
            assert!(matches!(read(&path), Err(TokenFileError::Malformed { .. })), "{old} {new}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), bytes).unwrap();
            drop(read(file.path()));
        }
    }
}
