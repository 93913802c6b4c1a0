//! A real daemon as a child process: started, killed, started again, and ended in order. It knows how to run a binary, not what the binary does.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tidelog_sim::ports::free_port;

/// How long a daemon may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long a daemon may take to end after it was asked to.
const END_WITHIN: Duration = Duration::from_secs(10);
const HTTP_WITHIN: Duration = Duration::from_secs(10);
/// Longest status document that is read.
const STATUS_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How much of a log is shown when its daemon fails.
const LOG_TAIL_BYTES: i64 = 4_000;

/// What can go wrong with a daemon.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// `cargo build` of the daemons failed.
    #[error("the daemons cannot be built: {0}")]
    Build(String),
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

/// Where the daemons' binaries are: built beside this one with the same profile, or in a folder that the user names.
pub struct Binaries {
    folder: PathBuf,
}

impl Binaries {
    /// Builds the daemons with the cargo that runs the demo, or takes `folder` as it is.
    ///
    /// # Errors
    /// [`DaemonError::Build`] with cargo's word.
    pub fn find(folder: Option<&Path>) -> Result<Self, DaemonError> {
        if let Some(folder) = folder {
            return Ok(Self { folder: folder.to_owned() });
        }
        let own = std::env::current_exe()?;
        let beside = own.parent().map(Path::to_owned).unwrap_or_default();
        let Some(cargo) = std::env::var_os("CARGO") else {
            return Ok(Self { folder: beside });
        };
        let mut build = Command::new(cargo);
        // The demo's own package is named too: with the same packages, dependencies keep the same features and none
        // is compiled twice.
        build.args([
            "build",
            "--quiet",
            "-p",
            "tidelog-demo",
            "-p",
            "tidelog-gateway",
            "-p",
            "tidelog-cloud",
        ]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        // What cargo told this program about its own package is not for another build: build scripts that watch those
        // variables would run again, and half of the dependencies with them.
        for (name, _) in std::env::vars_os() {
            let about_package =
                ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
            if name.to_str().is_some_and(|name| about_package.iter().any(|about| name.starts_with(about))) {
                build.env_remove(name);
            }
        }
        build.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null()).stdout(Stdio::null());
        let status = build.status().map_err(|e| DaemonError::Build(e.to_string()))?;
        if status.success() {
            Ok(Self { folder: beside })
        } else {
            Err(DaemonError::Build(format!("cargo build ended with {status}")))
        }
    }

    /// The path of one binary.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// One daemon. Dropping it kills it.
pub struct Daemon {
    name: String,
    binary: PathBuf,
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
    pub fn new(name: &str, binary: PathBuf, folder: &Path, mut arguments: Vec<String>) -> io::Result<Self> {
        let http = free_port()?;
        arguments.extend(["--http".to_owned(), http.to_string()]);
        let agent = ureq::Agent::config_builder().timeout_global(Some(HTTP_WITHIN)).build().into();
        let log = folder.join(format!("{name}.log"));
        Ok(Self { name: name.to_owned(), binary, arguments, log, http, child: None, agent })
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
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
        let mut command = Command::new(&self.binary);
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("TIDELOG_")) {
                command.env_remove(name);
            }
        }
        command.args(&self.arguments).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        // A group of its own: Ctrl-C on the terminal is for the demo, which then ends its daemons in order.
        command.process_group(0);
        let child =
            command.spawn().map_err(|source| DaemonError::Start { path: self.binary.clone(), source })?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// [`DaemonError::NotReady`] with the end of its log.
    pub fn wait_ready(&mut self) -> Result<(), DaemonError> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let ended = match &mut self.child {
                Some(child) => child.try_wait()?,
                None => return Ok(()),
            };
            if let Some(status) = ended {
                return Err(self.not_ready(format!("it ended with {status}")));
            }
            match self.agent.get(format!("{}/readyz", self.url())).call() {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(self.not_ready(error.to_string())),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
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
        let deadline = Instant::now() + END_WITHIN;
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

    /// Resident memory now, in KiB, where the system tells.
    #[must_use]
    pub fn resident_kib(&self) -> Option<u64> {
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
