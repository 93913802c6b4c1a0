//! The file of rules: what was typed becomes what it means, once, and what cannot be meant is refused with what to do about it.
//! Parsing is `toml`'s, `serde`'s, the selectors' and the topics' own affair. Whether a device exists is not known here.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tidelog_query::{Selector, SelectorError, parse_duration};
use tidelog_record::{DeviceId, Series, SeriesError, SiteName};
use tidelog_store::MatcherError;

use super::condition::{Condition, Direction};
use super::message::{MessageForm, TEXT_BYTES_MAX};
use super::{CommandForm, RULES_MAX, Rule, Rules};
use crate::asking;
use crate::command::ActForm;
use crate::command::issue::{IssueError, Wish};
use crate::mqtt::topic::{TopicError, TopicTemplate};
use crate::settings::Common;

/// Longest file, in bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// Longest name of a rule, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// How old a point may be to be judged when nobody says, in seconds.
const FRESH_S_DEFAULT: i64 = 3600;
/// Longest time that a rule can name, in seconds: a week.
const TIME_S_MAX: i64 = 7 * 24 * 3600;
/// What begins with this is written by nodes about themselves.
const OWN_METRICS: &str = "tidelog_";

const NS_PER_S: i64 = 1_000_000_000;

/// Why a file of rules cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RulesFileError {
    /// It cannot be read.
    #[error("rules: {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is too long.
    #[error("rules: {}: longer than {FILE_BYTES_MAX} bytes", .0.display())]
    TooLong(PathBuf),
    /// It is no TOML, or has keys that mean nothing.
    #[error("rules: {}: {message}", path.display())]
    Syntax {
        /// Which.
        path: PathBuf,
        /// Where and what, by the TOML parser.
        message: String,
    },
    /// There are more than [`RULES_MAX`].
    #[error("rules: {}: {count} rules, the most is {RULES_MAX}", path.display())]
    TooMany {
        /// Which.
        path: PathBuf,
        /// How many.
        count: usize,
    },
    /// One of them cannot be used.
    #[error("rules: {}: rule {name:?}: {error}", path.display())]
    Rule {
        /// Which file.
        path: PathBuf,
        /// Which rule.
        name: String,
        /// Why.
        error: RuleError,
    },
}

/// Why a rule cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    /// Not what names are made of.
    #[error("a name has 1 to {NAME_BYTES_MAX} letters, digits, '_', '-' and '.'")]
    Name,
    /// Two of one name.
    #[error("another rule has this name")]
    Twice,
    /// No selector.
    #[error("match: {0}")]
    Match(#[from] SelectorError),
    /// A selector that the store cannot look for.
    #[error("match: {0}")]
    Matcher(#[from] MatcherError),
    /// No condition.
    #[error(
        "no condition: give above and clear_below, below and clear_above, missing_for, or within and rises_by or falls_by"
    )]
    NoCondition,
    /// Several conditions.
    #[error("more than one condition: make a rule of each")]
    Conditions,
    /// A key without another one.
    #[error("{0} is of use with {1} alone")]
    Alone(&'static str, &'static str),
    /// A key that lacks another one.
    #[error("{0} needs {1}")]
    Needs(&'static str, &'static str),
    /// A limit that nothing reaches, or a change by nothing.
    #[error("{0}: expected a finite number{1}")]
    Number(&'static str, &'static str),
    /// The rule would clear before it begins.
    #[error(
        "{clears} is on the wrong side of {begins}: a rule that begins {begins} {at} clears at {at} or further back"
    )]
    Backwards {
        /// The key of the limit where it begins.
        begins: &'static str,
        /// The key of the limit where it clears.
        clears: &'static str,
        /// The limit where it begins.
        at: f64,
    },
    /// Not a time, or not one that a rule can name.
    #[error(
        "{key} = {text:?}: expected a time such as \"30s\", \"5m\" or \"1h30m\", of 1 s to {TIME_S_MAX} s"
    )]
    Time {
        /// The key.
        key: &'static str,
        /// What stands there.
        text: String,
    },
    /// A time that reaches further back than what is judged.
    #[error("{0} is longer than fresh_for: such old points are not judged")]
    NotFresh(&'static str),
    /// No device.
    #[error(
        "command.device = {0:?}: expected 16 hex digits; without it, the label device of the series counts"
    )]
    Device(String),
    /// A command for too short or too long a time.
    #[error("command.{0}")]
    Command(String),
    /// No topic.
    #[error("mqtt.topic: {0}")]
    Topic(#[from] TopicError),
    /// A message that is too long.
    #[error("mqtt.{0}: at most {TEXT_BYTES_MAX} bytes")]
    Text(&'static str),
    /// A message, and nowhere to send it.
    #[error("mqtt needs a broker: set mqtt.url in the configuration of the node")]
    NoBroker,
    /// No metric.
    #[error("point.metric: {0}")]
    Metric(#[from] SeriesError),
    /// A metric that is not for rules.
    #[error("point.metric: metrics that begin with {OWN_METRICS} are the node's own")]
    OwnMetric,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    rule: Vec<WrittenRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRule {
    name: String,
    site: Option<SiteText>,
    r#match: String,
    above: Option<f64>,
    clear_below: Option<f64>,
    below: Option<f64>,
    clear_above: Option<f64>,
    r#for: Option<String>,
    missing_for: Option<String>,
    rises_by: Option<f64>,
    falls_by: Option<f64>,
    within: Option<String>,
    fresh_for: Option<String>,
    command: Option<WrittenCommand>,
    mqtt: Option<WrittenMessage>,
    point: Option<WrittenPoint>,
}

/// A site's name as the file has it.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct SiteText(SiteName);

impl TryFrom<String> for SiteText {
    type Error = tidelog_record::SiteNameError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCommand {
    device: Option<String>,
    act: ActForm,
    clear_act: Option<ActForm>,
    expires_s: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenMessage {
    topic: String,
    payload: Option<String>,
    clear_payload: Option<String>,
    #[serde(default)]
    retain: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPoint {
    metric: String,
}

impl Rules {
    /// Reads the rules that the settings name; without such a file there are none.
    ///
    /// # Errors
    /// [`RulesFileError`] says what is wrong, and where.
    pub fn load(common: &Common) -> Result<Self, RulesFileError> {
        let Some(path) = common.rules.as_deref() else { return Ok(Self::default()) };
        let read = |source| RulesFileError::Read { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        let opened = std::fs::File::open(path).map_err(read)?;
        opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(read)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(RulesFileError::TooLong(path.to_owned()));
        }
        let syntax = |message| RulesFileError::Syntax { path: path.to_owned(), message };
        let text = String::from_utf8(bytes).map_err(|error| syntax(error.to_string()))?;
        Self::read(&text, path, &common.site, common.mqtt.url.is_some())
    }

    fn read(text: &str, path: &Path, site: &SiteName, has_broker: bool) -> Result<Self, RulesFileError> {
        let path = || path.to_owned();
        let written: Written = toml::from_str(text)
            .map_err(|error| RulesFileError::Syntax { path: path(), message: error.to_string() })?;
        if written.rule.len() > RULES_MAX {
            return Err(RulesFileError::TooMany { path: path(), count: written.rule.len() });
        }
        let mut rules: Vec<Arc<Rule>> = Vec::new();
        for written in written.rule {
            let name = written.name.clone();
            let refused = |error| RulesFileError::Rule { path: path(), name: name.clone(), error };
            if rules.iter().any(|rule| rule.name == name) {
                return Err(refused(RuleError::Twice));
            }
            let rule = rule(written, site).map_err(refused)?;
            if rule.message.is_some() && !has_broker {
                return Err(refused(RuleError::NoBroker));
            }
            rules.push(Arc::new(rule));
        }
        Ok(Self(Some(rules.into())))
    }
}

fn rule(written: WrittenRule, site: &SiteName) -> Result<Rule, RuleError> {
    let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    let name = written.name.clone();
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_name) {
        return Err(RuleError::Name);
    }
    let selector: Selector = written.r#match.parse()?;
    asking::alternatives(selector.alternatives().iter().map(Vec::as_slice))?;
    let (condition, fresh_ns) = condition(&written)?;
    let command = written.command.map(command).transpose()?;
    let message = written.mqtt.map(message).transpose()?;
    let metric = written.point.map(|point| metric(point.metric)).transpose()?;
    let site = written.site.map_or_else(|| site.clone(), |site| site.0);
    Ok(Rule { name, site, selector, condition, fresh_ns, command, message, metric })
}

/// The condition, and how old a point may be to be judged.
fn condition(written: &WrittenRule) -> Result<(Condition, i64), RuleError> {
    let WrittenRule { above, clear_below, below, clear_above, rises_by, falls_by, .. } = *written;
    let time = |key, text: &Option<String>| text.as_deref().map(|text| time(key, text)).transpose();
    let (held, within) = (time("for", &written.r#for)?, time("within", &written.within)?);
    let (missing, fresh) =
        (time("missing_for", &written.missing_for)?, time("fresh_for", &written.fresh_for)?);
    let pairs = [
        ("clear_below", clear_below.is_some(), "above", above.is_some()),
        ("clear_above", clear_above.is_some(), "below", below.is_some()),
        ("for", held.is_some(), "above or below", above.or(below).is_some()),
        ("within", within.is_some(), "rises_by or falls_by", rises_by.or(falls_by).is_some()),
    ];
    if let Some((key, _, with, _)) = pairs.iter().find(|(_, is_there, _, has_other)| *is_there && !has_other)
    {
        return Err(RuleError::Alone(key, with));
    }
    if fresh.is_some() && missing.is_some() {
        return Err(RuleError::Alone("fresh_for", "a condition on values"));
    }
    let said = [above.is_some(), below.is_some(), missing.is_some(), rises_by.is_some(), falls_by.is_some()];
    match said.iter().filter(|is_said| **is_said).count() {
        0 => return Err(RuleError::NoCondition),
        1 => {}
        _ => return Err(RuleError::Conditions),
    }
    let reaches_ns = held.or(within).unwrap_or(0);
    let fresh_ns = fresh.unwrap_or((FRESH_S_DEFAULT * NS_PER_S).max(reaches_ns));
    if reaches_ns > fresh_ns {
        return Err(RuleError::NotFresh(if held.is_some() { "for" } else { "within" }));
    }
    let held_ns = held.unwrap_or(0);
    let change = |key, direction, by: f64| {
        let within_ns = within.ok_or(RuleError::Needs(key, "within"))?;
        if !(by.is_finite() && by > 0.0) {
            return Err(RuleError::Number(key, " above 0"));
        }
        Ok(Condition::Change { direction, by, within_ns })
    };
    let condition = match (above, below, rises_by, falls_by) {
        (Some(begins), ..) => level(Direction::Up, ("above", begins), ("clear_below", clear_below), held_ns)?,
        (_, Some(begins), ..) => {
            level(Direction::Down, ("below", begins), ("clear_above", clear_above), held_ns)?
        }
        (.., Some(by), None) => change("rises_by", Direction::Up, by)?,
        (.., Some(by)) => change("falls_by", Direction::Down, by)?,
        _ => Condition::Missing { silence: Duration::from_nanos(missing.unwrap_or_default().unsigned_abs()) },
    };
    Ok((condition, fresh_ns))
}

fn level(
    direction: Direction,
    (begin_key, begins): (&'static str, f64),
    (clear_key, clears): (&'static str, Option<f64>),
    held_ns: i64,
) -> Result<Condition, RuleError> {
    let clears = clears.ok_or(RuleError::Needs(begin_key, clear_key))?;
    for (key, limit) in [(begin_key, begins), (clear_key, clears)] {
        if !limit.is_finite() {
            return Err(RuleError::Number(key, ""));
        }
    }
    let is_backwards = match direction {
        Direction::Up => clears > begins,
        Direction::Down => clears < begins,
    };
    if is_backwards {
        return Err(RuleError::Backwards { begins: begin_key, clears: clear_key, at: begins });
    }
    Ok(Condition::Level { direction, begins, clears, held_ns })
}

fn time(key: &'static str, text: &str) -> Result<i64, RuleError> {
    let read = parse_duration(text).ok().filter(|ns| (NS_PER_S..=TIME_S_MAX * NS_PER_S).contains(ns));
    read.ok_or_else(|| RuleError::Time { key, text: text.to_owned() })
}

fn command(written: WrittenCommand) -> Result<CommandForm, RuleError> {
    let WrittenCommand { device, act, clear_act, expires_s } = written;
    let device = match device {
        Some(text) => Some(text.parse::<DeviceId>().map_err(|_| RuleError::Device(text))?),
        None => None,
    };
    let wish = |act| {
        let wish = Wish { act, expires_s };
        let checked = wish.check().map(|_| wish);
        checked.map_err(|error: IssueError| RuleError::Command(error.to_string()))
    };
    Ok(CommandForm { device, begins: wish(act)?, clears: clear_act.map(wish).transpose()? })
}

fn message(written: WrittenMessage) -> Result<MessageForm, RuleError> {
    let WrittenMessage { topic, payload, clear_payload, retain } = written;
    let topic: TopicTemplate = topic.parse()?;
    for (key, text) in [("payload", &payload), ("clear_payload", &clear_payload)] {
        if text.as_ref().is_some_and(|text| text.len() > TEXT_BYTES_MAX) {
            return Err(RuleError::Text(key));
        }
    }
    Ok(MessageForm { topic, begins: payload, clears: clear_payload, retain })
}

fn metric(metric: String) -> Result<String, RuleError> {
    if metric.starts_with(OWN_METRICS) {
        return Err(RuleError::OwnMetric);
    }
    let none: [(&str, &str); 0] = [];
    Ok(Series::new(metric, none)?.metric().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Rules, String> {
        let site = "plant".parse().unwrap();
        Rules::read(text, Path::new("rules.toml"), &site, true).map_err(|error| error.to_string())
    }

    fn refused(lines: &str) -> String {
        let text = format!("[[rule]]\nname = \"hot\"\nmatch = 'temperature{{room=\"lab\"}}'\n{lines}\n");
        let error = read(&text).unwrap_err();
        let said = error.strip_prefix("rules: rules.toml: ").unwrap();
        said.strip_prefix("rule \"hot\": ").unwrap_or(said).to_owned()
    }

    #[test]
    fn the_manuals_rules_are_rules() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/RULES.md");
        let manual = std::fs::read_to_string(path).unwrap();
        let examples: Vec<&str> =
            manual.split("```toml\n").skip(1).map(|it| it.split("```").next().unwrap()).collect();
        for example in &examples {
            read(example).unwrap_or_else(|error| panic!("{example}\n{error}"));
        }
        assert_eq!(read(&examples.concat()).unwrap().all().len(), 5);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_what_to_do() {
        let cases = [
            ("above = 30", "above needs clear_below"),
            ("above = 30\nclear_below = 31", "clear_below is on the wrong side of above"),
            ("below = 5\nclear_above = 4", "clear_above is on the wrong side of below"),
            ("above = 30\nclear_above = 4", "clear_above is of use with below alone"),
            ("above = inf\nclear_below = 3", "above: expected a finite number"),
            ("above = 30\nclear_below = nan", "clear_below: expected a finite number"),
            ("", "no condition: give above and clear_below"),
            ("missing_for = \"1m\"\nrises_by = 5\nwithin = \"5m\"", "more than one condition"),
            ("missing_for = \"1m\"\nfor = \"5m\"", "for is of use with above or below alone"),
            (
                "missing_for = \"1m\"\nfresh_for = \"5m\"",
                "fresh_for is of use with a condition on values alone",
            ),
            ("missing_for = \"0s\"", "missing_for = \"0s\": expected a time such as"),
            ("missing_for = \"8d\"", "missing_for = \"8d\": expected a time such as"),
            ("missing_for = \"soon\"", "missing_for = \"soon\": expected a time such as"),
            ("rises_by = 5", "rises_by needs within"),
            ("falls_by = -5\nwithin = \"5m\"", "falls_by: expected a finite number above 0"),
            ("falls_by = 5\nwithin = \"2h\"\nfresh_for = \"1h\"", "within is longer than fresh_for"),
            ("higher = 30", "TOML parse error at line 4"),
            ("missing_for = \"1m\"\ncommand = { act = \"explode\" }", "TOML parse error at line 5"),
            (
                "missing_for = \"1m\"\ncommand = { act = \"read\", device = \"lamp\" }",
                "command.device = \"lamp\"",
            ),
            (
                "missing_for = \"1m\"\ncommand = { act = \"read\", expires_s = 0 }",
                "command.expires_s 0: from 1",
            ),
            ("missing_for = \"1m\"\nmqtt = { topic = \"a/#\" }", "mqtt.topic: '#' cannot stand"),
            ("missing_for = \"1m\"\npoint = { metric = \"a b\" }", "point.metric: bad metric name"),
            (
                "missing_for = \"1m\"\npoint = { metric = \"tidelog_command\" }",
                "point.metric: metrics that begin",
            ),
            ("missing_for = \"1m\"\nsite = \"no site\"", "TOML parse error at line 5"),
        ];
        for (lines, expected) in cases {
            let said = refused(lines);
            assert!(said.starts_with(expected), "{lines}\n  said: {said}\n  not: {expected}");
        }
        let rule = |name: &str, selector: &str| {
            format!("[[rule]]\nname = '{name}'\nmatch = '{selector}'\nmissing_for = '1m'\n")
        };
        assert!(read(&rule("a b", "x")).unwrap_err().contains("a name has 1 to 64"));
        assert!(read(&rule("a", "x[5m]")).unwrap_err().contains("rule \"a\": match: expected a selector"));
        assert!(
            read(&[rule("a", "x"), rule("a", "y")].concat())
                .unwrap_err()
                .contains("another rule has this name")
        );
        let many: String = (0..=RULES_MAX).map(|n| rule(&n.to_string(), "x")).collect();
        assert!(read(&many).unwrap_err().contains("65 rules, the most is 64"));
        let message = format!("{}mqtt = {{ topic = 't' }}", rule("a", "x"));
        let error = Rules::read(&message, Path::new("r"), &"plant".parse().unwrap(), false).unwrap_err();
        assert!(error.to_string().ends_with("set mqtt.url in the configuration of the node"), "{error}");
    }

    proptest! {
        #[test]
        fn arbitrary_rules_are_read_or_refused(
            lines in prop::collection::vec(prop_oneof![
                Just("above = 30"), Just("clear_below = 1e308"), Just("below = -0.0"), Just("clear_above = 3"), Just("for = \"1s\""),
                Just("missing_for = '1e300'"), Just("rises_by = 1"), Just("within = \"-5m\""), Just("fresh_for = '1w'"), Just("[rule.command]"),
            ], 0..6), noise in "\\PC{0,40}",
        ) {
            drop(read(&format!("[[rule]]\nname = 'x'\nmatch = 'x'\n{}\n", lines.join("\n"))));
            drop(read(&noise));
        }
    }
}
