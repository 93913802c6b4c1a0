//! A real process that writes a store is killed with SIGKILL, at random moments and at every system call that changes the disk. What it
//! acknowledged is there afterwards. `TIDELOG_SEED` replays a random run's choices; when exactly the signal arrives is the system's affair.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tidelog_tests::written::Acknowledged;

const APPENDER: &str = env!("CARGO_BIN_EXE_appender");
const ROUNDS: u32 = 50;
/// A round waits for fewer acknowledgements than these, and then for less than this time, before the signal.
const ACKNOWLEDGED_MAX: u32 = 24;
const LATER_US_MAX: u64 = 4_000;
/// Calls that change what is on the disk; the process is killed when one of its threads comes to the n-th of one of them, before it
/// has an effect.
const CALLS: &str = "pwrite64,fdatasync,fsync,rename,renameat,renameat2,ftruncate,unlink,unlinkat";
const STRACE: &str = "/usr/bin/strace";

fn seed() -> u64 {
    let seed = std::env::var("TIDELOG_SEED")
        .map_or_else(|_| RandomState::new().build_hasher().finish(), |text| text.parse().unwrap());
    println!("TIDELOG_SEED={seed}");
    seed
}

fn appender(command: &mut Command, dir: &Path, first: u64, count: u64) -> std::process::Child {
    command.arg(dir).args([first.to_string(), count.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn what_a_killed_process_acknowledged_is_there_byte_for_byte() {
    let mut rng = StdRng::seed_from_u64(seed());
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::default();
    let mut held = 0;
    for round in 0..ROUNDS {
        let first = u64::from(round) * 1_000_000;
        let mut child = appender(&mut Command::new(APPENDER), dir.path(), first, 999_999);
        let mut pipe = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        // Some rounds end while the store opens, the others some time after an acknowledgement.
        for _ in 0..rng.random_range(0..ACKNOWLEDGED_MAX) {
            pipe.read_line(&mut said).unwrap();
        }
        std::thread::sleep(Duration::from_micros(rng.random_range(0..LATER_US_MAX)));
        child.kill().unwrap();
        child.wait().unwrap();
        pipe.read_to_string(&mut said).unwrap();
        acknowledged.hear(&said);
        let now = acknowledged.judge(dir.path());
        assert!(now >= held, "round {round}: {now} records after {held}");
        held = now;
    }
    println!("{} acknowledged in {ROUNDS} rounds, {held} held", acknowledged.count());
    assert!(
        acknowledged.count() > usize::try_from(ROUNDS).unwrap(),
        "the rounds are too short to say anything"
    );
}

#[test]
fn a_process_killed_at_any_call_that_changes_the_disk_loses_nothing_acknowledged() {
    if !Path::new(STRACE).exists() {
        return eprintln!("SKIPPED: no strace on this machine (Debian package strace)");
    }
    let mut calls = 0;
    for call in 1u32.. {
        let dir = tempfile::tempdir().unwrap();
        let mut acknowledged = Acknowledged::default();
        let mut command = Command::new(STRACE);
        let inject = format!("inject={CALLS}:signal=SIGKILL:when={call}");
        command.args([
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            &format!("trace={CALLS}"),
            "-e",
            &inject,
            APPENDER,
        ]);
        let mut child = appender(&mut command, dir.path(), 1, 40);
        let mut said = String::new();
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        let status = child.wait().unwrap();
        acknowledged.hear(&said);
        if status.code() == Some(1) && said.is_empty() && call == 1 {
            return eprintln!("SKIPPED: strace may not trace here");
        }
        if !dir.path().join("lock").exists() {
            continue;
        }
        let held = acknowledged.judge(dir.path());
        assert!(held >= acknowledged.count());
        if status.success() {
            calls = call;
            break;
        }
    }
    println!("killed at each of {calls} calls");
    assert!(calls > 20, "{calls} calls: they were not met");
}
