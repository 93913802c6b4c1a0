//! Commands to devices: the words of a shell become the document that a node takes, and what it tells of commands becomes a table. A state
//! or an act that is new is shown as it is, so nodes of neighbouring versions can be asked.

use std::io::Write;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use tidelog_query::parse_duration;

use crate::CommandError;
use crate::ask::{AskError, Whom};
use crate::words::{instant, printable, table};

/// How often a node is asked what became of a command.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// The states from which a command goes on; every other one is its end.
const NOT_ENDED: [&str; 2] = ["waiting", "started"];

/// One command to one device.
#[derive(Args)]
pub struct Sending {
    #[command(flatten)]
    whom: Whom,
    /// The device's EUI-64, as 02124b0000000001
    device: String,
    /// Site of the device.
    #[arg(long, default_value = "default")]
    site: String,
    /// How long it may wait to be begun, as 90 or 1m30s.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = seconds)]
    expires: Duration,
    /// Wait so long for the device to have done it, as 90 or 1m30s.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    wait: Option<Duration>,
    #[command(subcommand)]
    act: Act,
}

#[derive(Subcommand)]
enum Act {
    /// Take a sample now.
    Read,
    /// Take one sample each so long from now on, as 5s or 1m30s.
    Every {
        /// The interval.
        #[arg(value_parser = seconds)]
        interval: Duration,
    },
    /// Switch an output.
    Switch {
        /// Its number on the board.
        output: u8,
        /// To what.
        to: OnOff,
    },
    /// Start anew.
    Reboot,
    /// Show a person which one it is.
    Identify {
        /// For how long, as 10s.
        #[arg(default_value = "10s", value_parser = seconds)]
        time: Duration,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnOff {
    On,
    Off,
}

impl Act {
    fn document(&self) -> Value {
        match self {
            Self::Read => json!("read"),
            Self::Every { interval } => {
                json!({"every": {"interval_ms": u64::try_from(interval.as_millis()).unwrap_or(u64::MAX)}})
            }
            Self::Switch { output, to } => json!({"switch": {"output": output, "on": *to == OnOff::On}}),
            Self::Reboot => json!("reboot"),
            Self::Identify { time } => json!({"identify": {"seconds": time.as_secs()}}),
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let ns = parse_duration(text).ok().and_then(|ns| u64::try_from(ns).ok());
    ns.map(Duration::from_nanos).ok_or_else(|| "expected a time as 90, 5s or 1m30s".to_owned())
}

impl Sending {
    /// Issues it, prints its id and, if it is waited for, its last state. Whether it is done, or was not to be waited for.
    pub fn run(&self, out: &mut impl Write) -> Result<bool, CommandError> {
        let document = json!({
            "device": self.device,
            "act": self.act.document(),
            "expires_s": self.expires.as_secs(),
        });
        let issued = self.whom.post(&path(&self.site), &document)?;
        let id = issued["id"].as_str().map(printable).unwrap_or_default();
        writeln!(out, "{id}")?;
        out.flush()?;
        let Some(patience) = self.wait else { return Ok(true) };
        let state = self.ended(&id, patience)?;
        writeln!(out, "{state}")?;
        Ok(state == "done")
    }

    /// The state of a command when it has ended or patience has.
    fn ended(&self, id: &str, patience: Duration) -> Result<String, AskError> {
        let begun = Instant::now();
        loop {
            let told = self.whom.document(&format!("{}?id={id}", path(&self.site)))?;
            let state = told["commands"][0]["state"].as_str().map(printable).unwrap_or_default();
            let left = patience.saturating_sub(begun.elapsed());
            if !NOT_ENDED.contains(&state.as_str()) || left.is_zero() {
                return Ok(state);
            }
            sleep(ASK_EVERY.min(left));
        }
    }
}

fn path(site: &str) -> String {
    format!("/api/v1/sites/{site}/commands")
}

/// What the node tells of the commands of a site.
pub fn list(whom: &Whom, site: &str, device: Option<&str>) -> Result<Value, AskError> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(device.iter().map(|device| ("device", device)));
    whom.document(&format!("{}?{}", path(site), query.finish()))
}

/// The same for people.
pub fn in_words(told: &Value) -> String {
    let commands = told["commands"].as_array().map(Vec::as_slice).unwrap_or_default();
    if commands.is_empty() {
        return "No commands in the last week.\n".to_owned();
    }
    let head = ["ID", "DEVICE", "ISSUED", "COMMAND", "STATE", "BEGUN", "ENDED"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(commands.iter().map(|command| {
        let text = |key: &str| command[key].as_str().map_or_else(|| "-".to_owned(), printable);
        let time = |key: &str| command[key].as_i64().map_or_else(|| "-".to_owned(), |ms| instant(ms / 1000));
        let act = act_in_words(&command["act"]);
        vec![
            text("id"),
            text("device"),
            time("issued_ms"),
            act,
            text("state"),
            time("started_ms"),
            time("ended_ms"),
        ]
    }));
    table(&rows)
}

fn act_in_words(act: &Value) -> String {
    if let Some(word) = act.as_str() {
        return printable(word);
    }
    match (&act["every"], &act["switch"], &act["identify"]) {
        (Value::Object(every), ..) => match every.get("interval_ms") {
            Some(ms) => format!("every {ms} ms"),
            None => printable(&act.to_string()),
        },
        (_, Value::Object(switch), _) => {
            let output = switch.get("output").and_then(Value::as_u64).unwrap_or_default();
            let on = switch.get("on").and_then(Value::as_bool) == Some(true);
            format!("switch output {output} {}", if on { "on" } else { "off" })
        }
        (.., Value::Object(identify)) => {
            format!("identify for {} s", identify.get("seconds").and_then(Value::as_u64).unwrap_or_default())
        }
        _ => printable(&act.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_is_a_line_with_what_became_of_it_and_what_is_new_is_shown_as_it_is() {
        let told = json!({"commands": [
            {"id": "1", "device": "aa", "issued_ms": 1_795_248_000_123i64, "act": {"every": {"interval_ms": 5000}}, "state": "waiting"},
            {"id": "2", "device": "aa", "issued_ms": 1_795_248_001_000i64, "act": {"switch": {"output": 3, "on": false}}, "state": "done",
             "started_ms": 1_795_248_002_000i64, "ended_ms": 1_795_248_003_000i64},
            {"id": "3", "device": "bb", "act": {"dance": {"steps": 2}}, "state": "dancing"},
        ]});
        let expected = "\
ID  DEVICE  ISSUED                COMMAND                STATE    BEGUN                 ENDED
1   aa      2026-11-21T08:00:00Z  every 5000 ms          waiting  -                     -
2   aa      2026-11-21T08:00:01Z  switch output 3 off    done     2026-11-21T08:00:02Z  2026-11-21T08:00:03Z
3   bb      -                     {\"dance\":{\"steps\":2}}  dancing  -                     -
";
        assert_eq!(in_words(&told), expected);
        assert!(in_words(&json!({"commands": []})).starts_with("No commands"));
    }
}
