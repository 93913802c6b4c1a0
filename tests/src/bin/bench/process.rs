//! A server under test, as its operator would start it: a process of its own on a fresh folder, with what the system says it cost.

use std::error::Error;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::http::Connection;

/// How long it may take to be ready, and to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is asked whether it is.
const POLL: Duration = Duration::from_millis(2);

/// A server is idle when it used less than this part of one processor for [`IDLE_FOR`].
const IDLE_LOAD_MAX: f64 = 0.03;
const IDLE_FOR: Duration = Duration::from_secs(4);

/// Longest wait for a server to become idle.
const IDLE_PATIENCE: Duration = Duration::from_secs(180);

/// A running server; killed when dropped.
pub struct Process {
    child: Child,
    dir: PathBuf,
    ticks_per_s: u64,
    pub address: SocketAddr,
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    pub cpu: Duration,
    pub peak_rss_bytes: u64,
    pub written_bytes: u64,
}

/// An address that nobody listens on now.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

impl Process {
    /// Starts `command`, whose files are in `dir` and whose talk goes to `dir.log`; it is up when `ready` gives its address.
    pub fn start(
        mut command: Command,
        dir: &Path,
        mut ready: impl FnMut() -> Option<SocketAddr>,
    ) -> Result<Self, Box<dyn Error>> {
        let ticks = Command::new("getconf").arg("CLK_TCK").output()?.stdout;
        let ticks_per_s = String::from_utf8(ticks)?.trim().parse()?;
        let name = command.get_program().to_string_lossy().into_owned();
        let log = File::create(dir.with_extension("log"))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("{name}: {error}"))?;
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut process = Self { child, dir: dir.to_owned(), ticks_per_s, address };
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(address) = ready() {
                process.address = address;
                return Ok(process);
            }
            if let Some(status) = process.child.try_wait()? {
                let log = std::fs::read_to_string(dir.with_extension("log"))?;
                return Err(format!("{name} ended: {status}\n{log}").into());
            }
            std::thread::sleep(POLL);
        }
        Err(format!("{name} was not ready in time").into())
    }

    /// Starts a command that answers `GET path` at `address` when it is ready.
    pub fn start_at(
        command: Command,
        dir: &Path,
        address: SocketAddr,
        path: &str,
    ) -> Result<Self, Box<dyn Error>> {
        Self::start(command, dir, || {
            let answer = Connection::open(address).ok()?.get(path).ok()?;
            (200..300).contains(&answer.status).then_some(address)
        })
    }

    pub fn cost(&self) -> Result<Cost, Box<dyn Error>> {
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
            cpu: Duration::from_millis(ticks * 1000 / self.ticks_per_s.max(1)),
            peak_rss_bytes: number(&read("status")?, "VmHWM:") * 1024,
            written_bytes: number(&read("io")?, "write_bytes:"),
        })
    }

    /// What it has in memory now, in bytes.
    pub fn resident_bytes(&self) -> Result<u64, Box<dyn Error>> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        let kib = line.split_whitespace().next().unwrap_or_default();
        Ok(kib.parse::<u64>()? * 1024)
    }

    /// Ends it without a warning.
    pub fn kill(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Returns when it has nothing left to do.
    pub fn idle(&self) -> Result<(), Box<dyn Error>> {
        let begun = Instant::now();
        let (mut since, mut before) = (Instant::now(), self.cost()?.cpu);
        while since.elapsed() < IDLE_FOR {
            if begun.elapsed() > IDLE_PATIENCE {
                eprintln!("it was still busy after {} s", IDLE_PATIENCE.as_secs());
                break;
            }
            std::thread::sleep(Duration::from_millis(500));
            let cpu = self.cost()?.cpu;
            if (cpu - before).as_secs_f64() > IDLE_LOAD_MAX * since.elapsed().as_secs_f64() {
                (since, before) = (Instant::now(), cpu);
            }
        }
        Ok(())
    }

    /// Ends it as a service manager would, and says how long its files are.
    pub fn end(mut self) -> Result<u64, Box<dyn Error>> {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                return Err("the server did not end in time".into());
            }
            std::thread::sleep(POLL);
        }
        Ok(file_bytes(&self.dir)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait()
            && let Err(error) = self.child.kill().and_then(|()| self.child.wait().map(drop))
        {
            eprintln!("the server could not be ended: {error}");
        }
    }
}

/// Length of all files; of one with holes, what it takes on the disk.
fn file_bytes(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() {
            file_bytes(&entry.path())?
        } else {
            metadata.len().min(metadata.blocks() * 512)
        };
    }
    Ok(bytes)
}
