//! What a machine's own supervisor sees of a daemon, and the files that packages bring with it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::{Process, WITHIN, bin_dir, until};

fn packages() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../toolchains/packages")
}

#[test]
fn a_service_manager_hears_that_the_node_is_ready_that_it_gets_on_and_that_it_ends() {
    let Some(bin_dir) = bin_dir() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(WITHIN)).unwrap();
    let mut command = Command::new(bin_dir.join("tidelog-cloud"));
    command.args(["--http", "127.0.0.1:0", "--log-level", "warn", "--data"]).arg(folder.path().join("data"));
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "300000").stdin(Stdio::null());
    let process = Process(command.spawn().unwrap());
    let hear = || {
        let mut bytes = [0; 1024];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    let first = hear();
    assert!(first.starts_with("READY=1\nSTATUS=takes writes; "), "{first}");
    assert!(folder.path().join("data/http.addr").exists(), "ready is said when it serves");
    for _ in 0..3 {
        let word = hear();
        assert!(word.starts_with("WATCHDOG=1\nSTATUS=takes writes; "), "{word}");
    }
    assert!(process.end().success());
    until("the word that it ends", || (hear() == "STOPPING=1\n").then_some(()));
}

#[test]
fn the_configuration_in_a_package_is_one_that_its_program_starts_with() {
    let Some(bin_dir) = bin_dir() else { return };
    for name in ["cloud", "gateway"] {
        let mut command = Command::new(bin_dir.join(format!("tidelog-{name}")));
        let checked = command.arg("--config").arg(packages().join(format!("{name}.toml")));
        let output = checked.arg("--check-config").output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn every_line_that_is_commented_out_in_a_packaged_configuration_is_one_that_could_stand() {
    let Some(bin_dir) = bin_dir() else { return };
    let folder = tempfile::tempdir().unwrap();
    for name in ["cloud", "gateway"] {
        let text = fs::read_to_string(packages().join(format!("{name}.toml"))).unwrap();
        let setting = |line: &str| line.contains(" = ") || line.starts_with('[');
        let lines = text.lines().map(|line| line.strip_prefix("# ").filter(|it| setting(it)).unwrap_or(line));
        let path = folder.path().join(format!("{name}.toml"));
        fs::write(&path, lines.collect::<Vec<_>>().join("\n")).unwrap();
        let mut command = Command::new(bin_dir.join(format!("tidelog-{name}")));
        let output = command.arg("--config").arg(&path).arg("--check-config").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // The files that it names are not there: the first of them is what is wrong, and no key and no value.
        assert!(output.status.success() || said.contains("/etc/tidelog/"), "{name}: {said}");
        assert!(!said.contains("unknown"), "{name}: {said}");
    }
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    if !Path::new("/usr/bin/systemd-analyze").exists() {
        return eprintln!("skipped: there is no systemd-analyze (Debian's systemd)");
    }
    let folder = tempfile::tempdir().unwrap();
    for name in ["cloud", "gateway"] {
        let unit = format!("tidelog-{name}.service");
        let text = fs::read_to_string(packages().join("debian").join(name).join(&unit)).unwrap();
        let start = format!("ExecStart=/usr/bin/tidelog-{name} --config /etc/tidelog/{name}.toml");
        assert!(text.contains(&start), "{name}");
        // The program need not be installed for its unit to be right.
        let path = folder.path().join(&unit);
        fs::write(&path, text.replace(&start, "ExecStart=/bin/true")).unwrap();
        let output =
            Command::new("systemd-analyze").arg("verify").arg("--man=no").arg(&path).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && !said.contains(&unit), "{said}");
    }
}

#[test]
fn the_scripts_in_packages_are_good_shell() {
    let root = packages();
    let scripts = [
        "openwrt/tidelog-gateway/files/tidelog-gateway.init",
        "debian/cloud/postinst",
        "debian/cloud/postrm",
        "debian/gateway/postinst",
        "debian/gateway/postrm",
    ];
    for script in scripts {
        let output = Command::new("sh").arg("-n").arg(root.join(script)).output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
