//! The configuration file: TOML whose values become the defaults of the options, so that a flag or a variable still
//! overrides them. Which keys exist, of which type and in which section, is read off the options themselves; this
//! module knows no option by name.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::builder::OsStr;
use clap::{Arg, ArgAction, Command};
use toml::{Table, Value};

/// Longest configuration file, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Least likeness, from 0 to 1, at which a known key is offered for an unknown one.
const SUGGESTION_LIKENESS_MIN: f64 = 0.75;

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is not TOML.
    #[error("{}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what, by the TOML parser.
        message: String,
    },
    /// A key that means nothing.
    #[error("{}: unknown key {key}{}", path.display(), suggestion.as_ref().map(|s| format!(", did you mean {s}?")).unwrap_or_default())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key with its section, as `mqtt.url`.
        key: String,
        /// The known key most like it, if one is.
        suggestion: Option<String>,
    },
    /// A value of another type than the key takes.
    #[error("{}: {key} takes {expected}, not {found}", path.display())]
    WrongType {
        /// The file.
        path: PathBuf,
        /// The key with its section.
        key: String,
        /// What it takes.
        expected: &'static str,
        /// What stands there.
        found: &'static str,
    },
    /// A value of the right type that the option refuses.
    #[error("{}: {key}: {message}", path.display())]
    BadValue {
        /// The file.
        path: PathBuf,
        /// The key with its section.
        key: String,
        /// What the option says.
        message: String,
    },
}

/// What a key's value must be in TOML.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Integer,
    Truth,
}

impl Kind {
    pub(super) fn of(arg: &Arg) -> Self {
        use std::any::TypeId;
        let id = arg.get_value_parser().type_id();
        let integers = [TypeId::of::<u8>(), TypeId::of::<u16>(), TypeId::of::<u32>(), TypeId::of::<u64>()];
        if integers.iter().any(|integer| id == *integer) {
            Self::Integer
        } else if id == TypeId::of::<bool>() {
            Self::Truth
        } else {
            Self::Text
        }
    }

    fn expected(self, many: bool) -> &'static str {
        match (self, many) {
            (Self::Text, false) => "a string",
            (Self::Integer, false) => "an integer",
            (Self::Truth, false) => "true or false",
            (Self::Text, true) => "an array of strings",
            (Self::Integer, true) => "an array of integers",
            (Self::Truth, true) => "an array of true or false",
        }
    }

    fn raw(self, value: &Value) -> Option<String> {
        match (self, value) {
            (Self::Text, Value::String(text)) => Some(text.clone()),
            (Self::Integer, Value::Integer(number)) => Some(number.to_string()),
            (Self::Truth, Value::Boolean(truth)) => Some(truth.to_string()),
            _ => None,
        }
    }
}

/// The section an option belongs to in the file, and its key there. `None` for what only a command line can say.
pub(super) fn place(arg: &Arg) -> Option<(Option<&str>, String)> {
    arg.get_env()?;
    let long = arg.get_long()?;
    let section = arg.get_help_heading().and_then(|h| h.strip_prefix('[')?.strip_suffix(']'));
    let key = match section {
        Some(section) => long.strip_prefix(section).and_then(|rest| rest.strip_prefix('-')).unwrap_or(long),
        None => long,
    };
    Some((section, key.replace('-', "_")))
}

pub(super) fn takes_many(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
}

fn dotted(section: Option<&str>, key: &str) -> String {
    section.map_or_else(|| key.to_owned(), |section| format!("{section}.{key}"))
}

/// Reads the file and lays its values under the options as their defaults.
pub(super) fn apply(command: Command, path: &Path) -> Result<Command, FileError> {
    let read = |source| FileError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(path).map_err(read)?;
    opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(read)?;
    let syntax = |message: String| FileError::Syntax { path: path.to_owned(), message };
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(syntax(format!("longer than {FILE_BYTES_MAX} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|error| syntax(error.to_string()))?;
    apply_text(command, path, &text)
}

pub(super) fn apply_text(mut command: Command, path: &Path, text: &str) -> Result<Command, FileError> {
    let table: Table = toml::from_str(text)
        .map_err(|error| FileError::Syntax { path: path.to_owned(), message: error.to_string() })?;
    for (name, value) in &table {
        command = match value {
            Value::Table(section) => section
                .iter()
                .try_fold(command, |command, (key, value)| set(command, path, Some(name), key, value))?,
            value => set(command, path, None, name, value)?,
        };
    }
    Ok(command)
}

fn set(
    command: Command,
    path: &Path,
    section: Option<&str>,
    key: &str,
    value: &Value,
) -> Result<Command, FileError> {
    let full_key = dotted(section, key);
    let is_it = |arg: &&Arg| place(arg).is_some_and(|(s, k)| s == section && k == key);
    let Some(arg) = command.get_arguments().find(is_it).cloned() else {
        let suggestion = most_like(&command, &full_key);
        return Err(FileError::UnknownKey { path: path.to_owned(), key: full_key, suggestion });
    };
    let (kind, many) = (Kind::of(&arg), takes_many(&arg));
    let wrong = || FileError::WrongType {
        path: path.to_owned(),
        key: full_key.clone(),
        expected: kind.expected(many),
        found: found(value),
    };
    let values: Vec<String> = match (many, value) {
        (true, Value::Array(items)) => {
            items.iter().map(|item| kind.raw(item).ok_or_else(wrong)).collect::<Result<_, _>>()?
        }
        (true, _) => return Err(wrong()),
        (false, value) => vec![kind.raw(value).ok_or_else(wrong)?],
    };
    if let Err(message) = check(&arg, &values) {
        return Err(FileError::BadValue { path: path.to_owned(), key: full_key, message });
    }
    let id = arg.get_id().clone();
    Ok(command.mut_arg(id, |arg| arg.required(false).default_values(values.into_iter().map(OsStr::from))))
}

/// Lets the option itself judge the values, so that a bad one is blamed on the file and not on a flag nobody typed.
fn check(arg: &Arg, values: &[String]) -> Result<(), String> {
    let long = arg.get_long().unwrap_or_default().to_owned();
    let mut alone =
        Command::new("file").arg(arg.clone().required(false).env(clap::builder::Resettable::Reset));
    alone.build();
    let blamed = alone.get_arguments().find(|built| built.get_id() == arg.get_id()).map(ToString::to_string);
    let words = values.iter().map(|value| format!("--{long}={value}"));
    match alone.try_get_matches_from(std::iter::once("file".to_owned()).chain(words)) {
        Ok(_) => Ok(()),
        Err(error) => {
            let text = error.to_string();
            let first = text.split("\n\n").next().unwrap_or(&text).trim();
            let flag = format!(" for '{}'", blamed.unwrap_or_default());
            Err(first.strip_prefix("error: ").unwrap_or(first).replace(&flag, ""))
        }
    }
}

fn most_like(command: &Command, key: &str) -> Option<String> {
    command
        .get_arguments()
        .filter_map(place)
        .map(|(section, key)| dotted(section, &key))
        .map(|known| (strsim::jaro_winkler(&known, key), known))
        .filter(|(likeness, _)| *likeness >= SUGGESTION_LIKENESS_MIN)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known)
}

fn found(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "an integer",
        Value::Float(_) => "a number with a fraction",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "an array with something else in it",
        Value::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Common, load::with_environment};
    use super::*;
    use clap::{Args, FromArgMatches};
    use proptest::prelude::*;

    fn apply_to_common(text: &str) -> Result<Common, String> {
        let command = with_environment(Common::augment_args(Command::new("test")));
        let command = apply_text(command, Path::new("file.toml"), text).map_err(|error| error.to_string())?;
        let matches = command.try_get_matches_from(["test"]).map_err(|error| error.to_string())?;
        Common::from_arg_matches(&matches).map_err(|error| error.to_string())
    }

    #[test]
    fn values_of_every_type_reach_their_options() {
        let text = r#"
            site = "plant"
            commit_interval_ms = 20
            log_format = "json"
            [peering]
            listen = "[::]:1"
            peers = ["a:1", "b:2"]
            [mqtt]
            url = "mqtts://broker"
        "#;
        let common = apply_to_common(text).unwrap();
        assert_eq!((common.site.as_str(), common.commit_interval_ms), ("plant", 20));
        assert_eq!(common.peering.peers.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a:1", "b:2"]);
        assert_eq!(common.mqtt.url.unwrap().to_string(), "mqtts://broker:8883");
    }

    #[test]
    fn what_is_wrong_in_a_file_is_said_with_the_file_and_the_key() {
        let cases = [
            ("sit = \"x\"", "file.toml: unknown key sit, did you mean site?"),
            ("[mqtt]\nurll = \"x\"", "file.toml: unknown key mqtt.urll, did you mean mqtt.url?"),
            ("mqtt_url = \"x\"", "file.toml: unknown key mqtt_url, did you mean mqtt.url?"),
            ("[mqt]\nurl = \"x\"", "file.toml: unknown key mqt.url, did you mean mqtt.url?"),
            ("zzzz = 1", "file.toml: unknown key zzzz"),
            ("config = \"x\"", "file.toml: unknown key config"),
            ("http = 5", "file.toml: http takes a string, not an integer"),
            ("commit_interval_ms = \"5\"", "file.toml: commit_interval_ms takes an integer, not a string"),
            ("mqtt = \"x\"", "file.toml: unknown key mqtt"),
            ("[site]\nx = 1", "file.toml: unknown key site.x"),
            (
                "[peering]\npeers = \"a:1\"",
                "file.toml: peering.peers takes an array of strings, not a string",
            ),
            ("[peering]\npeers = [1]", "file.toml: peering.peers takes an array of strings"),
            ("http = \"x\"", "file.toml: http: invalid value 'x': invalid socket address syntax"),
            (
                "commit_interval_ms = 1001",
                "file.toml: commit_interval_ms: invalid value '1001': 1001 is not in",
            ),
            ("commit_interval_ms = -1", "file.toml: commit_interval_ms: invalid value '-1'"),
            ("log_format = \"xml\"", "file.toml: log_format: invalid value 'xml'"),
            ("[peering]\npeers = [\"a:0\"]", "file.toml: peering.peers: invalid value 'a:0'"),
            ("http = ", "file.toml: TOML parse error at line 1"),
            ("site = \"a\"\nsite = \"b\"", "file.toml: TOML parse error at line 2"),
        ];
        for (text, expected) in cases {
            let error = apply_to_common(text).unwrap_err();
            assert!(error.starts_with(expected), "{text}\n  said: {error}\n  not: {expected}");
        }
    }

    #[test]
    fn the_document_of_the_defaults_is_a_file_that_changes_nothing() {
        let document = super::super::document::<Common>();
        let bare = apply_to_common("").unwrap();
        assert_eq!(format!("{:?}", apply_to_common(&document).unwrap()), format!("{bare:?}"));
        // With each default put in force, still nothing changes.
        let is_key = |line: &&str| line.starts_with('#') && !line.starts_with("# ") && line.contains(" = ");
        let has_default =
            |line: &&str| !line.contains("\"ADDR") && !line.contains("HOST") && !is_placeholder(line);
        let in_force: Vec<_> = document
            .lines()
            .filter(|line| !line.starts_with("# "))
            .filter(|line| !is_key(line) || has_default(line))
            .map(|line| line.strip_prefix('#').unwrap_or(line))
            .collect();
        assert!(in_force.iter().any(|line| line.starts_with("http = ")));
        assert_eq!(format!("{:?}", apply_to_common(&in_force.join("\n")).unwrap()), format!("{bare:?}"));
    }

    fn is_placeholder(line: &str) -> bool {
        let value = line.split(" = ").nth(1).unwrap_or_default().trim_matches(['"', '[', ']']);
        !value.is_empty() && value.chars().all(|c| c.is_ascii_uppercase() || c == ':')
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,60}", toml in "[a-z_\\[\\]=\"0-9.\n ]{0,60}") {
            drop(apply_to_common(&text));
            drop(apply_to_common(&toml));
        }
    }
}
