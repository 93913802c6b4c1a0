//! What `tidelog ca` reads: texts of bounded length, and the keys of nodes.

use std::fs::{File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rcgen::{KeyPair, SubjectPublicKeyInfo};
use tidelog_node::Identity;
use tidelog_node::peering::authority::{Authority, AuthorityError, Grants};

use super::CaError;
use crate::new_files::{MODE_PUBLIC, NewFileError};

/// Longest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// How a public key's file begins.
const PUBLIC_KEY_LABEL: &str = "-----BEGIN PUBLIC KEY-----";

/// A text file.
pub fn read_text(path: &Path) -> Result<String, CaError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|source| CaError::Read { path: path.to_owned(), source })?;
    Ok(text)
}

/// Puts a public text in the place of a file, as a whole or not at all.
pub fn replace_text(path: &Path, text: &str) -> Result<(), CaError> {
    let written = || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut staged = tempfile::Builder::new()
            .prefix(".tidelog-")
            .permissions(Permissions::from_mode(MODE_PUBLIC))
            .tempfile_in(folder)?;
        staged.write_all(text.as_bytes())?;
        staged.as_file().sync_all()?;
        staged.persist(path).map_err(|refused| refused.error)?;
        File::open(folder)?.sync_all()
    };
    written().map_err(|source| CaError::File(NewFileError::Write { path: path.to_owned(), source }))
}

/// Where a path is, whatever folder it is read from. Without a working folder there is none, and the path stays.
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// A node's key, as far as it is known here.
pub enum NodeKey {
    /// Made now.
    Made(KeyPair),
    /// The node's own, read from its file.
    Own(Identity),
    /// The public half of the node's own.
    Public(SubjectPublicKeyInfo),
}

impl NodeKey {
    /// Reads the key in `file`, or makes one.
    pub fn of(file: Option<&Path>) -> Result<Self, CaError> {
        let Some(path) = file else {
            return KeyPair::generate().map(Self::Made).map_err(CaError::MakeKey);
        };
        let text = read_text(path)?;
        if text.contains(PUBLIC_KEY_LABEL) {
            let wrong = |source| CaError::PublicKey { path: path.to_owned(), source };
            return SubjectPublicKeyInfo::from_pem(&text).map(Self::Public).map_err(wrong);
        }
        let no_default = Path::new("");
        Ok(Self::Own(Identity::load(no_default, Some(path))?))
    }

    /// Has the authority issue a certificate to it.
    pub fn issue(
        &self,
        authority: &Authority,
        name: &str,
        grants: &Grants,
        until: SystemTime,
    ) -> Result<String, AuthorityError> {
        match self {
            Self::Made(pair) => authority.issue(name, grants.clone(), pair, until),
            Self::Own(identity) => authority.issue(name, grants.clone(), &identity.key, until),
            Self::Public(key) => authority.issue(name, grants.clone(), key, until),
        }
    }

    /// The secret that has no file yet, PEM.
    pub fn made_pem(&self) -> Option<String> {
        match self {
            Self::Made(pair) => Some(pair.serialize_pem()),
            Self::Own(_) | Self::Public(_) => None,
        }
    }

    /// The file that the secret was read from.
    pub fn private_file(&self) -> Option<&Path> {
        match self {
            Self::Own(identity) => Some(&identity.path),
            Self::Made(_) | Self::Public(_) => None,
        }
    }
}
