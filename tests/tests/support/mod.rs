//! What tests of released binaries share: where these are, a process that dies with its test, waiting for an event.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "each test uses its part, and fails by panicking"
)]

pub mod operator;

use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// How long is waited for anything, unless a test says more.
pub const WITHIN: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Where the released binaries are, or a word why the test is skipped.
pub fn bin_dir() -> Option<PathBuf> {
    let dir = std::env::var_os("TIDELOG_BIN_DIR").map(PathBuf::from);
    if dir.is_none() {
        eprintln!(
            "skipped: TIDELOG_BIN_DIR names no folder with released binaries (tests/run end-to-end does)"
        );
    }
    dir
}

/// Looks again and again until there is something.
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_within(WITHIN, what, look)
}

/// The same with another patience.
pub fn until_within<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// A child that is killed when it is dropped.
pub struct Process(pub Child);

impl Process {
    pub fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Ends it with SIGTERM, as an operator does.
    pub fn end(mut self) -> ExitStatus {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        until("the process's end", || self.0.try_wait().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            self.kill();
        }
    }
}
