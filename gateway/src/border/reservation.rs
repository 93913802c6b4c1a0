//! The gateway's reserved frame counters in a file beside the log, `radio.counter`: one decimal number and a line end.
//! Counters below it may have been used under any key, so none of them is used again. It is whole or as before at any moment;
//! one that cannot be understood stops the start, because guessing could use a counter twice.

use std::io;
use std::path::{Path, PathBuf};

use tidelog_node::StartError;
use tidelog_node::files::write_whole;

/// The file's name in the node's directory.
const FILE: &str = "radio.counter";

/// The file.
#[derive(Clone, Debug)]
pub struct Reservation(PathBuf);

impl Reservation {
    /// The one of the node that lives in `dir`.
    #[must_use]
    pub fn in_dir(dir: &Path) -> Self {
        Self(dir.join(FILE))
    }

    /// The first counter that was never reserved; 0 where there is no file yet.
    ///
    /// # Errors
    /// [`StartError`] when the file cannot be read, or holds no number.
    pub fn load(&self) -> Result<u32, StartError> {
        match std::fs::read_to_string(&self.0) {
            Ok(text) => text.trim().parse().map_err(|_| StartError::Setting {
                key: "radio_key_file",
                reason: format!(
                    "{} holds no number: remove it and give the network a new key",
                    self.0.display()
                ),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(source) => Err(StartError::File { path: self.0.clone(), source }),
        }
    }

    /// Keeps a reservation; when it returns, no power cut takes it back.
    ///
    /// # Errors
    /// What the system says; the numbers may not be used then.
    pub fn store(&self, upto: u32) -> io::Result<()> {
        write_whole(&self.0, format!("{upto}\n").as_bytes(), false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_is_found_again_and_nonsense_is_not_guessed_at() {
        let dir = tempfile::tempdir().unwrap();
        let reservation = Reservation::in_dir(dir.path());
        assert_eq!(reservation.load().unwrap(), 0);
        for upto in [16_384, 32_768, u32::MAX] {
            reservation.store(upto).unwrap();
            assert_eq!(Reservation::in_dir(dir.path()).load().unwrap(), upto);
        }
        for nonsense in ["", "-1", "4294967296", "x"] {
            std::fs::write(dir.path().join(FILE), nonsense).unwrap();
            assert!(matches!(reservation.load(), Err(StartError::Setting { .. })), "{nonsense:?}");
        }
    }
}
