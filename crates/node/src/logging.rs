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
    let wrong = |key, reason: String| StartError::Setting { key, reason };
    let filter = EnvFilter::builder().parse(&common.log_level);
    let filter = filter.map_err(|error| wrong("log_level", error.to_string()))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter);
    let outcome = match common.log_to {
        LogTo::Stderr => {
            let lines = lines.with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
            match common.log_format {
                LogFormat::Text => lines.try_init(),
                LogFormat::Json => lines.with_ansi(false).json().flatten_event(true).try_init(),
            }
        }
        LogTo::Syslog => {
            // It is opened once in a process, and here only.
            let syslog = Syslog::new(SYSLOG_NAME, Options::LOG_PID, Facility::Daemon);
            let syslog = syslog.ok_or_else(|| wrong("log_to", "the syslog is open already".to_owned()))?;
            // The level is the line's priority there, and the syslog has a clock.
            let lines = lines.with_writer(syslog).with_ansi(false).without_time().with_level(false);
            match common.log_format {
                LogFormat::Text => lines.try_init(),
                LogFormat::Json => lines.json().flatten_event(true).try_init(),
            }
        }
    };
    outcome.map_err(|error| wrong("log_level", error.to_string()))
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
