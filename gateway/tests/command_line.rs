//! The gateway's command line as a user meets it: what is wrong is said before anything starts.

#![allow(clippy::unwrap_used, reason = "a test ends at what it does not expect")]

use std::path::Path;
use std::process::{Command, Output};

fn gateway(dir: &Path, file: &str, words: &[&str]) -> Output {
    let config = dir.join("gateway.toml");
    std::fs::write(&config, file).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidelog-gateway"));
    command.current_dir(dir).arg("--config").arg(config).args(words);
    command.output().unwrap()
}

#[test]
fn what_is_wrong_is_said_and_nothing_starts() {
    let dir = tempfile::tempdir().unwrap();
    let cases: [(&str, &[&str], &str); 9] = [
        ("", &["--radio", "spinel:///dev/ttyACM0"], "it knows spinel:serial:///dev/ttyACM0"),
        ("", &["--radio", "spinel:serial://ttyACM0"], "expected the device's whole path"),
        ("", &["--radio", "zep://nowhere"], "SCHEME://HOST:PORT: expected a port"),
        ("", &["--eui", "02:12"], "not an EUI-64"),
        ("", &["--pan", "0xffff"], "expected a PAN identifier"),
        ("channel = 27", &[], "channel 27 is not in the 2.4 GHz band (11 to 26)"),
        ("radoi = \"zep://a:1\"", &[], "unknown key radoi, did you mean radio?"),
        ("pan = true", &[], "pan takes a string"),
        ("", &["--coap-listen", "5683"], "invalid value '5683' for '--coap-listen <ADDRESS>'"),
    ];
    for (file, words, said) in cases {
        let output = gateway(dir.path(), file, words);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(said), "{file:?} {words:?}: {error}");
        assert_eq!(output.status.code(), Some(2), "{file:?} {words:?}");
    }
    assert!(!dir.path().join("tidelog-data").exists());
}

#[test]
fn a_flag_wins_over_the_file_and_what_is_printed_is_a_file_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = "radio = \"zep://air:17754\"\npan = \"0x0042\"\nchannel = 15\n";
    let first = gateway(dir.path(), file, &["--channel", "20", "--print-config"]);
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let printed = String::from_utf8(first.stdout).unwrap();
    for line in ["radio = \"zep://air:17754\"", "pan = \"0x0042\"", "channel = 20"] {
        assert!(printed.lines().any(|found| found == line), "{line}: {printed}");
    }
    let second = gateway(dir.path(), &printed, &["--print-config"]);
    assert_eq!(String::from_utf8(second.stdout).unwrap(), printed);
}
