//! Where the network's key comes from: a file or a variable. Whoever gives both, or one that is no key, is told so
//! before anything starts; the key itself is never said.

use std::path::Path;

use tidelog_lowpan::NetworkKey;
use tidelog_node::StartError;
use tidelog_node::settings::Secret;

/// The network's key, if there is one.
///
/// # Errors
/// [`StartError`] when both are given, the file cannot be read, or the text is no key.
pub(crate) fn network_key(
    file: Option<&Path>,
    given: Option<&Secret>,
) -> Result<Option<NetworkKey>, StartError> {
    let refuse = |key, reason: String| StartError::Setting { key, reason };
    match (file, given) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => {
            Err(refuse("radio_key", "there is a radio_key_file too; give one of them".to_owned()))
        }
        (None, Some(text)) => match text.reveal().trim().parse() {
            Ok(key) => Ok(Some(key)),
            Err(error) => Err(refuse("radio_key", format!("{error}"))),
        },
        (Some(path), None) => {
            let text = std::fs::read_to_string(path)
                .map_err(|source| StartError::File { path: path.to_owned(), source })?;
            warn_if_shared(path);
            match text.trim().parse() {
                Ok(key) => Ok(Some(key)),
                Err(error) => Err(refuse("radio_key_file", format!("{}: {error}", path.display()))),
            }
        }
    }
}

#[cfg(unix)]
fn warn_if_shared(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(path).map(|metadata| metadata.permissions().mode()).unwrap_or_default();
    if mode & 0o077 != 0 {
        tracing::warn!(file = %path.display(), "others may read the radio key: chmod 600");
    }
}

#[cfg(not(unix))]
fn warn_if_shared(_path: &Path) {}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "000102030405060708090a0b0c0d0e0f";

    #[test]
    fn a_key_comes_from_one_place_and_is_never_said() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("radio.key");
        std::fs::write(&file, format!("{HEX}\n")).unwrap();
        let expected = Some(HEX.parse().unwrap());
        assert_eq!(network_key(None, None).unwrap(), None);
        assert_eq!(network_key(Some(&file), None).unwrap(), expected);
        assert_eq!(network_key(None, Some(&HEX.into())).unwrap(), expected);
        assert!(network_key(Some(&file), Some(&HEX.into())).is_err());
        assert!(network_key(Some(&dir.path().join("none")), None).is_err());
        let short = HEX.get(1..).unwrap();
        std::fs::write(&file, short).unwrap();
        for refused in [network_key(Some(&file), None), network_key(None, Some(&short.into()))] {
            let said = refused.unwrap_err().to_string();
            assert!(said.contains("32 hex digits") && !said.contains(short), "{said}");
        }
    }
}
