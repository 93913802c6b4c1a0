//! A process around a node: command line to settings, log lines, the runtime, signals, exit codes. Both daemons are
//! this with their own settings; what else a daemon starts, it says in [`Daemon::start`].

use std::ffi::OsString;
use std::future::{Future, ready};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Command, FromArgMatches};
use tokio::signal::unix::{SignalKind, signal};

use crate::context::{NodeContext, StartError};
use crate::node::Node;
use crate::rule::Rules;
use crate::settings::{Common, Loaded, SettingsError, load};
use crate::{SHUTDOWN_S_MAX, logging, peering, supervised};

/// Exit code when the settings are wrong: the same as for a wrong flag.
const EXIT_SETTINGS: u8 = 2;

/// Exit code when the settings are right and the node cannot start.
const EXIT_START: u8 = 1;

/// Exit code when a second signal ends the process before it is done.
const EXIT_FORCED: i32 = 130;

/// Threads for disk and parsing: they mostly wait, and each takes address space, which routers have little of.
const BLOCKING_THREADS_MAX: usize = 32;

/// The settings of a daemon, and what it starts beside the node.
pub trait Daemon: Args + FromArgMatches + Send + 'static {
    /// What it shares with every daemon.
    fn common(&self) -> &Common;

    /// Whether the settings go together; each for itself was checked when it was read.
    ///
    /// # Errors
    /// [`StartError::Setting`] names the one that is at fault.
    fn check(&self) -> Result<(), StartError> {
        peering::check(&self.common().peering)?;
        Rules::load(self.common())?;
        crate::node::check_doors(self.common())
    }

    /// Starts what this daemon has and others have not.
    fn start(&self, context: &NodeContext) -> impl Future<Output = Result<(), StartError>> + Send;
}

/// A daemon with nothing beside the node.
impl Daemon for Common {
    fn common(&self) -> &Common {
        self
    }

    fn start(&self, _context: &NodeContext) -> impl Future<Output = Result<(), StartError>> + Send {
        ready(Ok(()))
    }
}

/// Runs a daemon from the process's command line until a signal ends it. `program` brings name and description,
/// `version` is told by `--version`, the status and the metrics.
pub fn run<D: Daemon>(program: Command, version: &'static str) -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let loaded = match load::<D>(program.version(version), words) {
        Ok(loaded) => loaded,
        // Clap knows which of its errors are help and the version, and where they go.
        Err(SettingsError::Usage(error)) => error.exit(),
        Err(SettingsError::File(error)) => return wrong(&error),
    };
    let settings = match loaded {
        Loaded::Print(text) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Loaded::Check(settings) => {
            return match settings.check() {
                Ok(()) => {
                    println!("the configuration is valid");
                    ExitCode::SUCCESS
                }
                Err(error) => wrong(&error),
            };
        }
        Loaded::Run(settings) => settings,
    };
    if let Err(error) = settings.check().and_then(|()| logging::start(settings.common())) {
        return wrong(&error);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime");
            return ExitCode::from(EXIT_START);
        }
    };
    let outcome = runtime.block_on(live(&settings, version));
    // A blocking thread that still waits for a disk does not keep the process.
    runtime.shutdown_timeout(Duration::from_millis(200));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            ExitCode::from(EXIT_START)
        }
    }
}

fn wrong(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(EXIT_SETTINGS)
}

async fn live<D: Daemon>(settings: &D, version: &'static str) -> Result<(), StartError> {
    let listen =
        |kind| signal(kind).map_err(|source| StartError::File { path: "signal handler".into(), source });
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    // Operators send it out of habit to have files read again. They are, as soon as they change; it must only not end the node.
    let _hangup = listen(SignalKind::hangup())?;
    let starting = async {
        let node = Node::start(settings.common(), version).await?;
        match settings.start(node.context()).await {
            Ok(()) => Ok(node),
            Err(error) => {
                node.stop().await;
                Err(error)
            }
        }
    };
    let mut told = async || tokio::select! { _ = terminate.recv() => (), _ = interrupt.recv() => () };
    let node = tokio::select! {
        started = starting => started?,
        // The log was not changed yet, or the next start recovers it: there is nothing to finish.
        () = told() => return Ok(()),
    };
    supervised::ready(node.context());
    told().await;
    supervised::stopping();
    let stop = tokio::time::timeout(Duration::from_secs(SHUTDOWN_S_MAX), node.stop());
    tokio::select! {
        ended = stop => if ended.is_err() {
            tracing::warn!("did not end in time");
        },
        () = told() => std::process::exit(EXIT_FORCED),
    }
    Ok(())
}
