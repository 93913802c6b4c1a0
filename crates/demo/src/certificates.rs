//! Keys and certificates for one run: an authority of its own, and a node key and certificate for each daemon.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::KeyPair;
use tidelog_node::peering::authority::{Authority, AuthorityError, Grants};
use tidelog_replication::Sites;

/// A demo that runs longer than this is no demo.
const LASTS: Duration = Duration::from_secs(30 * 24 * 3600);

/// Certificates could not be made or written.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Making one failed.
    #[error("cannot make certificates: {0}")]
    Make(#[from] AuthorityError),
    /// Making a key failed.
    #[error("cannot make a key: {0}")]
    Key(#[from] rcgen::Error),
    /// Writing one failed.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The authority of one run, and where its files go.
pub struct Certificates {
    authority: Authority,
    folder: PathBuf,
    until: SystemTime,
}

impl Certificates {
    /// Makes an authority and writes its certificate into `folder`.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn create(folder: &Path) -> Result<Self, CertificateError> {
        let until = SystemTime::now() + LASTS;
        let authority = Authority::create("Tidelog demo", until)?;
        let this = Self { authority, folder: folder.to_owned(), until };
        this.write("ca.pem", this.authority.certificate_pem())?;
        Ok(this)
    }

    /// A key and a certificate for all sites, of a node of the cloud or another, as the daemon's flags.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn issue(&self, name: &str, cloud: bool) -> Result<Vec<String>, CertificateError> {
        let key = KeyPair::generate()?;
        let certificate =
            self.authority.issue(name, Grants { sites: Sites::All, cloud }, &key, self.until)?;
        let key = self.write(&format!("{name}.key"), &key.serialize_pem())?;
        let certificate = self.write(&format!("{name}.pem"), &certificate)?;
        let flag = |flag: &str, path: &Path| [flag.to_owned(), path.display().to_string()];
        let ca = self.folder.join("ca.pem");
        Ok([flag("--peering-key", &key), flag("--peering-cert", &certificate), flag("--peering-ca", &ca)]
            .concat())
    }

    fn write(&self, name: &str, pem: &str) -> Result<PathBuf, CertificateError> {
        let path = self.folder.join(name);
        let written = fs::write(&path, pem).and_then(|()| {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
        });
        written.map_err(|source| CertificateError::Write { path: path.clone(), source })?;
        Ok(path)
    }
}
