//! The process's log: lines on standard error or in the machine's syslog, for people or as JSON. Set up once, by the daemon; libraries only
//! speak through `tracing`.

use std::ffi::CStr;
use std::io::IsTerminal;

use syslog_tracing::{Facility, Options, Syslog};
use tracing_subscriber::EnvFilter;

use crate::context::StartError;
use crate::settings::{Common, LogFormat, LogTo};

/// What a syslog calls the lines of a daemon.
const SYSLOG_NAME: &CStr = c"tidelog";

/// Checks the text of a filter, so that a bad one is told with the other settings.
pub(crate) fn filter(text: &str) -> Result<String, tracing_subscriber::filter::ParseError> {
    EnvFilter::builder().parse(text).map(|_| text.to_owned())
}

/// Starts writing log lines as the settings say.
///
/// # Errors
/// [`StartError::Setting`] if a log is being written already.
pub fn start(common: &Common) -> Result<(), StartError> {
    let wrong = |reason: String| StartError::Setting { key: "log_level", reason };
    let filter = EnvFilter::builder().parse(&common.log_level).map_err(|error| wrong(error.to_string()))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    let outcome = match (common.log_to, common.log_format) {
        (LogTo::Stderr, format) => {
            let lines = lines.with_writer(std::io::stderr);
            match format {
                LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
                LogFormat::Json => lines.json().flatten_event(true).try_init(),
            }
        }
        (LogTo::Syslog, format) => {
            // It is opened once in a process, and here only.
            let syslog = Syslog::new(SYSLOG_NAME, Options::LOG_PID, Facility::Daemon);
            let syslog = syslog.ok_or_else(|| wrong("the syslog is open already".to_owned()))?;
            // The level is the line's priority there, and the syslog has a clock.
            let lines = lines.with_writer(syslog).without_time().with_level(false);
            match format {
                LogFormat::Text => lines.try_init(),
                LogFormat::Json => lines.json().flatten_event(true).try_init(),
            }
        }
    };
    outcome.map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_level_or_levels_by_module() {
        for text in ["info", "OFF", "warn,tidelog_node::http=debug"] {
            assert_eq!(filter(text).unwrap(), text);
        }
        for text in ["loud=loud", "a=b=c", "info,tidelog_node=verbose"] {
            assert!(filter(text).is_err(), "{text}");
        }
    }
}
