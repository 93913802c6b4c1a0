//! Who this node is: a key pair, made at the first start and kept in a file, and the id that follows from it. What the
//! key is used for (TLS with peers) is not known here.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rcgen::{KeyPair, PublicKeyData};
use tidelog_record::NodeId;

use crate::context::StartError;
use crate::files::write_whole;

/// The key's file in the node's directory, when the settings name no other.
const KEY_FILE: &str = "node.key";

/// Longest key file, in bytes.
const KEY_BYTES_MAX: u64 = 64 * 1024;

/// A node's key pair and id.
#[derive(Debug)]
pub struct Identity {
    /// The id: a hash of the public key.
    pub node: NodeId,
    /// The pair that proves it.
    pub key: KeyPair,
    /// Where the key is kept.
    pub path: PathBuf,
}

impl Identity {
    /// Reads the key, or makes one when `configured` is `None` and the directory holds none. A key that was
    /// configured and is missing is an error: another key would be another node.
    ///
    /// # Errors
    /// [`StartError`] names the file.
    pub fn load(dir: &Path, configured: Option<&Path>) -> Result<Self, StartError> {
        let path = configured.map_or_else(|| dir.join(KEY_FILE), Path::to_owned);
        let file = |source| StartError::File { path: path.clone(), source };
        let wrong =
            |error: &dyn std::fmt::Display| StartError::Identity(format!("{}: {error}", path.display()));
        let key = match std::fs::File::open(&path) {
            Ok(opened) => {
                let mut pem = String::new();
                opened.take(KEY_BYTES_MAX).read_to_string(&mut pem).map_err(file)?;
                KeyPair::from_pem(&pem).map_err(|error| wrong(&error))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && configured.is_none() => {
                let key = KeyPair::generate().map_err(|error| wrong(&error))?;
                write_whole(&path, key.serialize_pem().as_bytes(), true).map_err(file)?;
                key
            }
            Err(error) => return Err(file(error)),
        };
        let node = NodeId::of_public_key(&key.subject_public_key_info());
        Ok(Self { node, key, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_keeps_its_id_over_restarts_and_another_key_is_another_node() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = Identity::load(a.path(), None).unwrap();
        assert_eq!(Identity::load(a.path(), None).unwrap().node, first.node);
        assert_ne!(Identity::load(b.path(), None).unwrap().node, first.node);
        assert_eq!(Identity::load(b.path(), Some(&first.path)).unwrap().node, first.node);
    }

    #[test]
    #[cfg(unix)]
    fn nobody_else_can_read_the_key() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::load(dir.path(), None).unwrap();
        assert_eq!(std::fs::metadata(identity.path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_missing_configured_key_and_a_file_that_is_no_key_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing.key");
        assert!(
            matches!(Identity::load(dir.path(), Some(&missing)), Err(StartError::File { path, .. }) if path == missing)
        );
        std::fs::write(dir.path().join(KEY_FILE), "not a key").unwrap();
        let error = Identity::load(dir.path(), None).unwrap_err().to_string();
        assert!(error.contains(KEY_FILE), "{error}");
        assert_eq!(
            std::fs::read_to_string(dir.path().join(KEY_FILE)).unwrap(),
            "not a key",
            "kept as it was"
        );
    }
}
