//! The daemon under test, as its operator would start it: a process of its own on a fresh folder, with what the system says it cost.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long it may take to be ready, and to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running `tidelog-cloud`; killed when dropped.
pub struct Server {
    child: Child,
    dir: PathBuf,
    pub url: String,
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub cpu: Duration,
    pub peak_rss_bytes: u64,
    pub written_bytes: u64,
}

impl Server {
    pub fn start(binary: &Path, dir: &Path) -> Result<Self, Box<dyn Error>> {
        let child = Command::new(binary)
            .args(["--http", "127.0.0.1:0", "--log-level", "warn", "--data"])
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("{}: {error}", binary.display()))?;
        let mut server = Self { child, dir: dir.to_owned(), url: String::new() };
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Ok(address) = std::fs::read_to_string(dir.join("http.addr")) {
                server.url = format!("http://{}", address.trim());
                return Ok(server);
            }
            if let Some(status) = server.child.try_wait()? {
                return Err(format!("{} ended: {status}", binary.display()).into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err("the node was not ready in time".into())
    }

    pub fn cost(&self, ticks_per_s: u64) -> Result<Cost, Box<dyn Error>> {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", self.child.id()));
        let stat = read("stat")?;
        // Behind the name in parentheses, which may hold anything, utime and stime are the twelfth and thirteenth.
        let ticks: u64 = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|word| word.parse().unwrap_or(0))
            .sum();
        let number = |text: &str, key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        Ok(Cost {
            cpu: Duration::from_millis(ticks * 1000 / ticks_per_s.max(1)),
            peak_rss_bytes: number(&read("status")?, "VmHWM:") * 1024,
            written_bytes: number(&read("io")?, "write_bytes:"),
        })
    }

    /// Ends it as a service manager would, and says how long its files are.
    pub fn end(mut self) -> Result<u64, Box<dyn Error>> {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                return Err("the node did not end in time".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(file_bytes(&self.dir)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait()
            && let Err(error) = self.child.kill().and_then(|()| self.child.wait().map(drop))
        {
            eprintln!("the node could not be ended: {error}");
        }
    }
}

fn file_bytes(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { file_bytes(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}
