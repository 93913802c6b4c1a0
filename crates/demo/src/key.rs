//! The network key of one run: random, in a file that only its owner may read, and shown, because it is of use only
//! for looking into this run's air.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use tidelog_firmware::lowpan::{KEY_INDEX, NetworkKey};

/// A network key and where it stands.
pub struct RadioKey {
    bytes: [u8; 16],
    file: PathBuf,
}

impl RadioKey {
    /// Draws a key from the operating system and writes it into `folder` as the gateways read it.
    ///
    /// # Errors
    /// When the system gives no random bytes, or the file cannot be written.
    pub fn random(folder: &Path) -> io::Result<Self> {
        let mut bytes = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        let key = Self { bytes, file: folder.join("radio.key") };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&key.file)?;
        writeln!(file, "{}", key.hex())?;
        Ok(key)
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// For stations.
    #[must_use]
    pub fn network_key(&self) -> NetworkKey {
        NetworkKey::new(self.bytes)
    }

    /// As 32 hex digits.
    #[must_use]
    pub fn hex(&self) -> String {
        self.bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What tshark is told to decrypt a capture.
    #[must_use]
    pub fn tshark_option(&self) -> String {
        format!("-o 'uat:ieee802154_keys:\"{}\",\"{KEY_INDEX}\",\"No hash\"'", self.hex())
    }
}
