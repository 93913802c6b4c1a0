//! A real daemon as a child process: started, killed, started again, and ended in order. It knows how to run a program, not what the
//! program does.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tidelog_sim::ports::free_port;

use crate::program::Program;

/// How long a daemon may take until it is ready, and to end after it was asked to.
struct Bounds {
    ready: Duration,
    end: Duration,
}

const NATIVE: Bounds = Bounds { ready: Duration::from_secs(30), end: Duration::from_secs(10) };
/// An emulated processor is some twenty times slower.
const EMULATED: Bounds = Bounds { ready: Duration::from_secs(180), end: Duration::from_secs(60) };
/// How often a daemon that starts is asked whether it is ready.
const ASK_EVERY: Duration = Duration::from_millis(20);
const HTTP_WITHIN: Duration = Duration::from_secs(10);
/// Longest status document that is read.
const STATUS_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How much of a log is shown when its daemon fails.
const LOG_TAIL_BYTES: i64 = 4_000;

/// What can go wrong with a daemon.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// It cannot be started at all.
    #[error("cannot start {path}: {source}")]
    Start {
        /// The binary.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It ended or hung before it was ready.
    #[error("{name} is not ready: {reason}\nthe end of its log {log}:\n{tail}")]
    NotReady {
        /// Which daemon.
        name: String,
        /// What was seen.
        reason: String,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// It does not answer as it should.
    #[error("{url}: {reason}")]
    Http {
        /// What was asked.
        url: String,
        /// What came instead.
        reason: String,
    },
    /// The system refused something else.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// One daemon. Dropping it kills it.
pub struct Daemon {
    name: String,
    program: Program,
    arguments: Vec<String>,
    log: PathBuf,
    http: SocketAddr,
    child: Option<Child>,
    agent: ureq::Agent,
}

impl Daemon {
    /// A daemon that is not started yet. `--http` is added here, on a port that it keeps over restarts; output goes to
    /// `NAME.log` in `folder`.
    ///
    /// # Errors
    /// When no port is free.
    pub fn new(name: &str, program: Program, folder: &Path, mut arguments: Vec<String>) -> io::Result<Self> {
        let http = free_port()?;
        arguments.extend(["--http".to_owned(), http.to_string()]);
        let agent = ureq::Agent::config_builder().timeout_global(Some(HTTP_WITHIN)).build().into();
        let log = folder.join(format!("{name}.log"));
        Ok(Self { name: name.to_owned(), program, arguments, log, http, child: None, agent })
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it runs.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }

    fn bounds(&self) -> &'static Bounds {
        if self.program.target.emulator().is_some() { &EMULATED } else { &NATIVE }
    }

    /// Its HTTP address, `http://…`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.http)
    }

    /// Starts the process, without waiting for it.
    ///
    /// # Errors
    /// [`DaemonError::Start`].
    pub fn start(&mut self) -> Result<(), DaemonError> {
        let output = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = self.program.command();
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("TIDELOG_")) {
                command.env_remove(name);
            }
        }
        command.args(&self.arguments).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        // A group of its own: Ctrl-C on the terminal is for the demo, which then ends its daemons in order.
        command.process_group(0);
        let child = command
            .spawn()
            .map_err(|source| DaemonError::Start { path: self.program.path.clone(), source })?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// [`DaemonError::NotReady`] with the end of its log.
    pub async fn wait_ready(&mut self) -> Result<(), DaemonError> {
        let deadline = Instant::now() + self.bounds().ready;
        loop {
            let ended = match &mut self.child {
                Some(child) => child.try_wait()?,
                None => return Ok(()),
            };
            if let Some(status) = ended {
                return Err(self.not_ready(format!("it ended with {status}")));
            }
            let url = format!("{}/readyz", self.url());
            match tokio::task::block_in_place(|| self.agent.get(url).call()) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(self.not_ready(error.to_string())),
                Err(_) => tokio::time::sleep(ASK_EVERY).await,
            }
        }
    }

    fn not_ready(&self, reason: String) -> DaemonError {
        let tail = tail(&self.log).unwrap_or_else(|e| format!("(unreadable: {e})"));
        DaemonError::NotReady { name: self.name.clone(), reason, log: self.log.clone(), tail }
    }

    /// Kill -9: no goodbye, no flush.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> io::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// SIGTERM, and then waits for a clean end.
    ///
    /// # Errors
    /// When it does not end in time (it is killed then) or ends with an error.
    pub fn terminate(&mut self) -> Result<(), DaemonError> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        Command::new("kill").args(["-TERM", &child.id().to_string()]).status()?;
        let deadline = Instant::now() + self.bounds().end;
        loop {
            match child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.not_ready(format!("it ended with {status} after SIGTERM"))),
                None if Instant::now() > deadline => {
                    child.kill()?;
                    child.wait()?;
                    return Err(self.not_ready("it did not end after SIGTERM".to_owned()));
                }
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Most resident memory so far, in KiB, where the system tells. An emulated daemon has none that is its own: the emulator's memory is
    /// mostly not its program's.
    #[must_use]
    pub fn resident_kib(&self) -> Option<u64> {
        if self.program.target.emulator().is_some() {
            return None;
        }
        let pid = self.child.as_ref()?.id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.split_whitespace().next()?.parse().ok()
    }

    /// A door to its HTTP side that can be used from another thread, whether it runs or not.
    #[must_use]
    pub fn client(&self) -> Client {
        Client { url: self.url(), agent: self.agent.clone() }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            tracing::warn!(%error, name = self.name, "a daemon may be left running");
        }
    }
}

fn tail(log: &Path) -> io::Result<String> {
    let mut file = File::open(log)?;
    let length = i64::try_from(file.metadata()?.len()).unwrap_or(i64::MAX);
    file.seek(SeekFrom::End(-length.min(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The HTTP side of a daemon, as a user has it.
#[derive(Clone)]
pub struct Client {
    url: String,
    agent: ureq::Agent,
}

impl Client {
    fn get(&self, path: &str, within: Duration) -> Result<ureq::Body, DaemonError> {
        let url = format!("{}{path}", self.url);
        let request = self.agent.get(&url).config().timeout_global(Some(within)).build();
        match request.call() {
            Ok(response) => Ok(response.into_body()),
            Err(error) => Err(DaemonError::Http { url, reason: error.to_string() }),
        }
    }

    /// `GET /api/v1/status`.
    ///
    /// # Errors
    /// [`DaemonError::Http`].
    pub fn status(&self) -> Result<Json, DaemonError> {
        let path = "/api/v1/status";
        let body = self.stream(path, HTTP_WITHIN)?.take(STATUS_BYTES_MAX);
        serde_json::from_reader(body)
            .map_err(|e| DaemonError::Http { url: format!("{}{path}", self.url), reason: e.to_string() })
    }

    /// The body of any path as a stream.
    ///
    /// # Errors
    /// [`DaemonError::Http`].
    pub fn stream(&self, path: &str, within: Duration) -> Result<impl Read + use<>, DaemonError> {
        Ok(self.get(path, within)?.into_reader())
    }
}
