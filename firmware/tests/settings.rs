//! The page that `firmware/boards/nrf52840-dk/settings` writes is the page that a board reads. It needs python3.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tidelog_firmware::lowpan::EndpointConfig;
use tidelog_firmware::lowpan::time::Duration;
use tidelog_firmware::settings::{INTERVAL_DEFAULT, Settings, Word};
use tidelog_firmware::{DeviceId, Gateways, page};

const KEY: &str = "5b1f0e6c94d8a7723c11f06e88d2b94a";
const FACTORY: DeviceId = DeviceId([0x02, 7, 7, 7, 7, 7, 7, 7]);

fn written(words: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("boards/nrf52840-dk/settings");
    Command::new("python3").arg(script).args(words).output().expect("python3 runs")
}

fn key_file(name: &str, text: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn what_the_script_writes_the_board_reads() {
    let key = key_file("radio.key", &format!("{KEY}\n"));
    let key = format!("key-file={}", key.display());
    let words = [
        "gateway=0212000000000001",
        "backup=0212000000000002",
        &key,
        "pan=0xabcd",
        "channel=15",
        "linger_ms=50",
    ];
    let output = written(&words);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // As it is in flash: the rest of the page is erased.
    let mut bytes = output.stdout;
    bytes.resize(4096, 0xff);
    let text = page::text(&bytes[..page::PAGE_BYTES_MAX]).unwrap();
    let settings = Settings::parse(text, Some(FACTORY), |_, _| Word::Unknown).unwrap();
    let station = EndpointConfig {
        pan: 0xabcd,
        channel: 15,
        key: Some(KEY.parse().unwrap()),
        ..EndpointConfig::new(FACTORY)
    };
    let gateway = |last| DeviceId([2, 0x12, 0, 0, 0, 0, 0, last]);
    let wanted = Settings {
        station,
        gateways: Gateways { primary: gateway(1), backup: Some(gateway(2)) },
        interval: INTERVAL_DEFAULT,
        linger: Duration::from_millis(50),
    };
    assert_eq!(settings, wanted);
}

#[test]
fn what_can_be_no_page_is_refused_and_a_key_never_shown() {
    let short = key_file("short.key", &KEY[1..]);
    let short = format!("key-file={}", short.display());
    let key = format!("key={KEY}");
    let long = format!("backup={}", "0".repeat(page::TEXT_BYTES_MAX));
    let gateway = "gateway=0212000000000001";
    let cases: [(&[&str], &str); 7] = [
        (&[gateway], "key=… is missing"),
        (&["key=open"], "gateway=… is missing"),
        (&[gateway, &short], "32 hex digits"),
        (&[gateway, "key-file=there-is-none"], "no key can be read there"),
        (&[gateway, &key], "seen by others"),
        (&[gateway, "key=open", "eui"], "'eui' is no name=value"),
        (&[gateway, "key=open", &long], "more than 1024 bytes"),
    ];
    for (words, said) in cases {
        let output = written(words);
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && output.stdout.is_empty(), "{words:?}");
        assert!(complaint.contains(said), "{complaint}");
        assert!(!complaint.contains(&KEY[1..]), "{complaint}");
    }
}
