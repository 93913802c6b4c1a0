//! From what was typed to what it means: flags over variables over the file over the defaults. It reads the command
//! line it is given, the process's environment and one file; it starts nothing.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStr, Resettable};
use clap::{Args, Command, FromArgMatches};

use super::document::document_of;
use super::file::{self, FileError};

const ENVIRONMENT_PREFIX: &str = "TIDELOG_";

/// Options about the invocation itself, which no file can hold.
#[derive(Args, Clone, Debug)]
struct Invocation {
    /// Configuration file, TOML.
    #[arg(long, value_name = "FILE", env = "TIDELOG_CONFIG")]
    config: Option<PathBuf>,

    /// Check flags, variables and the file, say what is wrong, and exit.
    #[arg(long)]
    check_config: bool,

    /// Print the configuration in effect as an annotated file, and exit.
    #[arg(long)]
    print_config: bool,
}

/// What the process is to do.
#[derive(Debug)]
pub enum Loaded<S> {
    /// Run with these settings.
    Run(S),
    /// Say whether these settings go together, and exit.
    Check(S),
    /// Print this and exit with success.
    Print(String),
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A flag or a variable is wrong, or help or the version was asked for.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// The file is wrong.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Reads flags, `TIDELOG_*` variables and the file that `--config` names. `S` is [`super::Common`] or a daemon's
/// struct with it flattened in; `program` brings name, version and description.
///
/// # Errors
/// [`SettingsError`] says what is wrong and where. [`SettingsError::Usage`] also carries `--help` and `--version`.
pub fn load<S: Args + FromArgMatches>(
    program: Command,
    words: impl IntoIterator<Item = OsString>,
) -> Result<Loaded<S>, SettingsError> {
    let words: Vec<OsString> = words.into_iter().collect();
    // The structs' own descriptions are for readers of the code; the program says what it is.
    let about = program.get_about().cloned().unwrap_or_default();
    let described = |command: Command| command.about(about.clone()).long_about(Resettable::Reset);
    let bare = with_environment(described(S::augment_args(program)));
    let command = described(Invocation::augment_args(bare.clone().next_help_heading("Invocation")));
    // What the file holds is not known yet, so nothing is required yet.
    let first = command.clone().mut_args(|arg| arg.required(false)).try_get_matches_from(&words)?;
    let invocation = Invocation::from_arg_matches(&first)?;
    let command = match &invocation.config {
        Some(path) => file::apply(command, path)?,
        None => command,
    };
    let matches = command.try_get_matches_from(&words)?;
    let settings = S::from_arg_matches(&matches)?;
    Ok(if invocation.print_config {
        Loaded::Print(document_of(&bare, Some(&matches)))
    } else if invocation.check_config {
        Loaded::Check(settings)
    } else {
        Loaded::Run(settings)
    })
}

/// Gives every option its variable: `--mqtt-url` is `TIDELOG_MQTT_URL`.
pub(super) fn with_environment(command: Command) -> Command {
    command.mut_args(|arg| match arg.get_long() {
        Some(long) if !matches!(long, "help" | "version") => {
            let name = format!("{ENVIRONMENT_PREFIX}{}", long.replace('-', "_").to_uppercase());
            arg.env(OsStr::from(name))
        }
        _ => arg,
    })
}
