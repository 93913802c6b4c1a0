//! The process's log: lines on standard error or in the machine's syslog, for people or as JSON. Set up once, by the daemon; libraries only
//! speak through `tracing`.

use std::ffi::CStr;
use std::io::IsTerminal;

use syslog_tracing::{Facility, Options, Syslog};
use tracing::Subscriber;
use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::context::StartError;
use crate::settings::{Common, LogFormat, LogTo};

/// What a syslog calls the lines of a daemon.
const SYSLOG_NAME: &CStr = c"tidelog";

/// Checks the text of a filter, so that a bad one is told with the other settings.
pub(crate) fn filter(text: &str) -> Result<String, ParseError> {
    text.parse::<Targets>().map(|_| text.to_owned())
}

/// Starts writing log lines as the settings say.
///
/// # Errors
/// [`StartError::Setting`] if a log is being written already.
pub fn start(common: &Common) -> Result<(), StartError> {
    let wrong = |key, reason: String| StartError::Setting { key, reason };
    let filter: Targets =
        common.log_level.parse().map_err(|error: ParseError| wrong("log_level", error.to_string()))?;
    let lines = tracing_subscriber::fmt().with_max_level(most(&filter));
    let outcome = match common.log_to {
        LogTo::Stderr => {
            let lines = lines.with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
            match common.log_format {
                LogFormat::Text => init(lines.finish(), filter),
                LogFormat::Json => init(lines.with_ansi(false).json().flatten_event(true).finish(), filter),
            }
        }
        LogTo::Syslog => {
            // It is opened once in a process, and here only.
            let syslog = Syslog::new(SYSLOG_NAME, Options::LOG_PID, Facility::Daemon);
            let syslog = syslog.ok_or_else(|| wrong("log_to", "the syslog is open already".to_owned()))?;
            // The level is the line's priority there, and the syslog has a clock.
            let lines = lines.with_writer(syslog).with_ansi(false).without_time().with_level(false);
            match common.log_format {
                LogFormat::Text => init(lines.finish(), filter),
                LogFormat::Json => init(lines.json().flatten_event(true).finish(), filter),
            }
        }
    };
    outcome.map_err(|error| wrong("log_level", error.to_string()))
}

/// The most that any module may say.
fn most(filter: &Targets) -> LevelFilter {
    let levels = filter.iter().map(|(_, level)| level).chain(filter.default_level());
    levels.max().unwrap_or(LevelFilter::OFF)
}

fn init<S>(lines: S, filter: Targets) -> Result<(), TryInitError>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync + 'static,
{
    lines.with(filter).try_init()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_level_or_levels_by_module() {
        for text in ["info", "OFF", "warn,tidelog_node::http=debug"] {
            assert_eq!(filter(text).unwrap(), text);
        }
        let most = |text: &str| super::most(&text.parse().unwrap());
        assert_eq!(most("warn,tidelog_node::http=debug"), LevelFilter::DEBUG);
        assert_eq!((most("off"), most("error")), (LevelFilter::OFF, LevelFilter::ERROR));
        for text in ["loud=loud", "a=b=c", "info,tidelog_node=verbose"] {
            assert!(filter(text).is_err(), "{text}");
        }
    }
}
