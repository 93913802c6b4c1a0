//! The options as an annotated configuration file: what `--print-config` prints and what the manual's page of options
//! is made of. A key at its default is commented out, so the text is a file that means what it describes.

use clap::{Arg, ArgMatches, Args, Command};

use super::file::{Kind, place, takes_many};
use super::load::with_environment;

/// The file with every key of `S` at its default.
#[must_use]
pub fn document<S: Args>() -> String {
    document_of(&with_environment(S::augment_args(Command::new("tidelog"))), None)
}

pub(super) fn document_of(command: &Command, matches: Option<&ArgMatches>) -> String {
    let mut text = String::new();
    let mut section_before = None;
    let places =
        command.get_arguments().filter_map(|arg| place(arg).map(|(section, key)| (arg, section, key)));
    // Keys outside a section must stand first in TOML.
    let mut places: Vec<_> = places.collect();
    places.sort_by_key(|(_, section, _)| section.is_some());
    for (arg, section, key) in places {
        if section != section_before {
            text.push_str(&section.map(|section| format!("\n[{section}]\n")).unwrap_or_default());
            section_before = section;
        }
        text.push_str(&entry(arg, &key, matches));
    }
    text.trim_start().to_owned()
}

fn entry(arg: &Arg, key: &str, matches: Option<&ArgMatches>) -> String {
    let mut text = String::from("\n");
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    for line in help.lines() {
        text.push_str(&format!("# {line}\n"));
    }
    let choices: Vec<_> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    if !choices.is_empty() {
        text.push_str(&format!("# One of: {}.\n", choices.join(", ")));
    }
    let long = arg.get_long().unwrap_or_default();
    let variable = arg.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    text.push_str(&format!("# Flag --{long}, variable {variable}.\n"));
    let defaults: Vec<String> =
        arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    let in_effect: Option<Vec<String>> = matches
        .and_then(|matches| matches.get_raw(arg.get_id().as_str()))
        .map(|values| values.map(|value| value.to_string_lossy().into_owned()).collect());
    let line = match in_effect.filter(|values| *values != defaults) {
        Some(_) if arg.is_hide_env_values_set() => format!("# {key} is set; a secret is not shown\n"),
        Some(values) => format!("{key} = {}\n", literal(arg, &values)),
        None if defaults.is_empty() => format!("#{key} = {}\n", example(arg)),
        None => format!("#{key} = {}\n", literal(arg, &defaults)),
    };
    text.push_str(&line);
    text
}

fn example(arg: &Arg) -> String {
    let name =
        arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string).unwrap_or_default();
    let quoted = toml::Value::String(name.clone()).to_string();
    match (Kind::of(arg), takes_many(arg)) {
        (Kind::Text, true) => format!("[{quoted}]"),
        (Kind::Text, false) => quoted,
        (_, true) => format!("[{name}]"),
        (_, false) => name,
    }
}

fn literal(arg: &Arg, values: &[String]) -> String {
    let kind = Kind::of(arg);
    let one = |value: &String| match kind {
        Kind::Text => toml::Value::String(value.clone()).to_string(),
        Kind::Integer | Kind::Truth => value.clone(),
    };
    let all: Vec<String> = values.iter().map(one).collect();
    if takes_many(arg) { format!("[{}]", all.join(", ")) } else { all.join(", ") }
}
