//! The process's log: lines on standard error, for people or as JSON. Set up once, by the daemon; libraries only speak
//! through `tracing`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::context::StartError;
use crate::settings::{Common, LogFormat};

/// Starts writing log lines as the settings say.
///
/// # Errors
/// [`StartError::Setting`] if the filter is none, or a log is being written already.
pub fn start(common: &Common) -> Result<(), StartError> {
    let wrong = |reason: String| StartError::Setting { key: "log_level", reason };
    let filter = EnvFilter::try_new(&common.log_level).map_err(|error| wrong(error.to_string()))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let outcome = match common.log_format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    outcome.map_err(|error| wrong(error.to_string()))
}
