//! The document of a message as points: pure, a JSON document and a form in, a batch out. Numbers are floats, for a program that prints
//! 21.0 as 21 has no way to say which it means. Where documents come from is not known here.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use tidelog_query::{TimeError, parse_instant};
use tidelog_record::{Batch, Series, SeriesError, SiteName, SiteNameError, Value};

use super::pattern::Pattern;
use crate::reserved::reserved;

/// Longest payload, in bytes. What it becomes in memory is some thirty times as much at most.
pub(super) const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

/// Most readings of one message.
pub(super) const READINGS_MAX: usize = 1_000;

/// Longest account of what cannot be read, in characters: it may quote the payload.
const QUOTED_CHARS_MAX: usize = 80;

/// The name of the level that is the site, and no label.
pub(super) const SITE_LEVEL: &str = "site";

/// How messages on some topics are read.
#[derive(Clone, Debug)]
pub(super) struct Form {
    pub topic: Pattern,
    pub payload: Payload,
    /// The site, unless the topic tells it.
    pub site: SiteName,
    /// The array whose members are the readings; the document is the one reading without it.
    pub each: Option<Pointer>,
    /// When it was read; the message's arrival without it.
    pub time: Option<(Pointer, TimeUnit)>,
    pub labels: BTreeMap<String, String>,
    pub labels_at: BTreeMap<String, Pointer>,
    pub values: BTreeMap<String, Taken>,
    /// What stands before the name of each other number and truth of a reading, if they are taken.
    pub others: Option<String>,
}

/// What a payload is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Payload {
    /// JSON, so also a bare number or `true`.
    #[default]
    Json,
    /// One text, such as `ON`.
    Text,
}

/// What a number counts that is a time, since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum TimeUnit {
    #[default]
    S,
    Ms,
    Us,
    Ns,
}

/// A place in a document, by RFC 6901.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pointer(String);

/// The text is no place in a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no place in a document: each name has a '/' before it, as in \"/sensor/temperature\", and \"\" is the whole"
)]
pub struct PointerError(String);

impl Pointer {
    pub fn read(text: &str) -> Result<Self, PointerError> {
        let is_one = text.is_empty() || text.starts_with('/');
        if is_one { Ok(Self(text.to_owned())) } else { Err(PointerError(text.to_owned())) }
    }

    /// What stands there; nothing where there is null.
    fn of<'d>(&self, document: &'d Json) -> Option<&'d Json> {
        document.pointer(&self.0).filter(|found| !found.is_null())
    }

    /// The member of the document in which this place is.
    fn first(&self) -> Option<&str> {
        self.0.strip_prefix('/').and_then(|rest| rest.split('/').next())
    }
}

/// A value, and what texts mean there.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Taken {
    pub at: Pointer,
    /// Empty where a text is itself.
    pub words: BTreeMap<String, Value>,
}

/// What came of a message.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Read {
    pub batch: Batch,
    /// Why the first value that could not be read could not, and how many there were.
    pub unfit: Option<(String, usize)>,
}

/// Why nothing of a message can be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// More bytes than [`PAYLOAD_BYTES_MAX`].
    #[error("{0} bytes, the most is {PAYLOAD_BYTES_MAX}")]
    TooLong(usize),
    /// Not what the form says that it is.
    #[error("the payload is no {0}")]
    Syntax(String),
    /// The array of readings is not there, or no array, or too long.
    #[error("each: expected an array of at most {READINGS_MAX} readings")]
    Each,
    /// A reading without its time.
    #[error("time: nothing there")]
    NoTime,
    /// What should be a time is none.
    #[error("time: {0}")]
    Time(#[from] TimeError),
    /// The level of the topic is no site.
    #[error("the topic's site: {0}")]
    Site(#[from] SiteNameError),
    /// Not one value of the form is in the message.
    #[error("none of the values is in it")]
    Empty,
}

impl Form {
    /// The site of a message.
    pub fn site(&self, levels: &[(&str, &str)]) -> Result<SiteName, FormError> {
        let level = levels.iter().find(|(name, _)| *name == SITE_LEVEL);
        level.map_or_else(|| Ok(self.site.clone()), |(_, text)| text.parse().map_err(FormError::Site))
    }

    /// The points of a message whose topic's named levels are these.
    pub fn read(&self, levels: &[(&str, &str)], payload: &[u8], arrived_ns: i64) -> Result<Read, FormError> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(FormError::TooLong(payload.len()));
        }
        let document = match self.payload {
            Payload::Json => serde_json::from_slice(payload)
                .map_err(|error| FormError::Syntax(format!("JSON: {}", quoted(&error.to_string())))),
            Payload::Text => match std::str::from_utf8(payload) {
                Ok(text) => Ok(Json::String(text.trim().to_owned())),
                Err(_) => Err(FormError::Syntax("text in UTF-8".to_owned())),
            },
        }?;
        let readings = match &self.each {
            None => std::slice::from_ref(&document),
            Some(pointer) => match pointer.of(&document) {
                Some(Json::Array(readings)) if readings.len() <= READINGS_MAX => readings,
                _ => return Err(FormError::Each),
            },
        };
        let mut read = Read::default();
        for reading in readings {
            self.one(levels, reading, arrived_ns, &mut read)?;
        }
        if read.batch.series.is_empty() && read.unfit.is_none() { Err(FormError::Empty) } else { Ok(read) }
    }

    fn one(
        &self,
        levels: &[(&str, &str)],
        reading: &Json,
        arrived_ns: i64,
        read: &mut Read,
    ) -> Result<(), FormError> {
        let time = match &self.time {
            Some((pointer, unit)) => instant(pointer.of(reading).ok_or(FormError::NoTime)?, *unit)?,
            None => arrived_ns,
        };
        let mut labels: Vec<(&str, String)> = levels
            .iter()
            .filter(|(name, _)| *name != SITE_LEVEL)
            .map(|(name, text)| (*name, (*text).to_owned()))
            .collect();
        labels.extend(self.labels.iter().map(|(name, text)| (name.as_str(), text.clone())));
        for (name, pointer) in &self.labels_at {
            let text = match pointer.of(reading) {
                None => continue,
                Some(Json::String(text)) => text.clone(),
                Some(other) => other.to_string(),
            };
            labels.push((name, text));
        }
        let mut put = |metric: String, value: Result<Value, String>| {
            let pointed = value.and_then(|value| {
                let series =
                    Series::new(metric.clone(), labels.iter().map(|(name, text)| (*name, text.as_str())));
                Ok((series.map_err(|error: SeriesError| error.to_string())?, value))
            });
            match pointed {
                Ok((series, value)) => read.batch.series.push((series, vec![(time, value)])),
                Err(reason) => {
                    let (_, count) = read.unfit.get_or_insert_with(|| (format!("{metric}: {reason}"), 0));
                    *count += 1;
                }
            }
        };
        for (metric, taken) in &self.values {
            if let Some(found) = taken.at.of(reading) {
                put(metric.clone(), taken.value(found));
            }
        }
        if let (Some(prefix), Json::Object(members)) = (&self.others, reading) {
            for (name, found) in members {
                let value = match found {
                    Json::Number(number) => number.as_f64().map(Value::F64),
                    Json::Bool(truth) => Some(Value::Bool(*truth)),
                    _ => None,
                };
                let metric = metric(prefix, name);
                if let Some(value) = value.filter(|_| !self.is_told(name) && reserved(&metric).is_none()) {
                    put(metric, Ok(value));
                }
            }
        }
        Ok(())
    }

    /// Whether the form says what a member of a reading is.
    fn is_told(&self, member: &str) -> bool {
        let mut told = self
            .values
            .values()
            .map(|taken| &taken.at)
            .chain(self.labels_at.values())
            .chain(self.time.iter().map(|(pointer, _)| pointer));
        told.any(|pointer| pointer.first() == Some(member))
    }
}

impl Taken {
    fn value(&self, found: &Json) -> Result<Value, String> {
        match found {
            Json::Number(number) => number.as_f64().map(Value::F64).ok_or_else(|| "past an f64".to_owned()),
            Json::Bool(truth) => Ok(Value::Bool(*truth)),
            Json::String(text) if self.words.is_empty() => Ok(Value::Text(text.clone())),
            Json::String(text) => {
                let meaning = self.words.get(text).cloned();
                meaning.ok_or_else(|| format!("no meaning for {:?}: words does not have it", quoted(text)))
            }
            Json::Null | Json::Array(_) | Json::Object(_) => {
                Err(format!("{} is no value", quoted(&found.to_string())))
            }
        }
    }
}

fn instant(found: &Json, unit: TimeUnit) -> Result<i64, FormError> {
    let text = match found {
        Json::String(text) => text.clone(),
        // A whole number that was printed with a fraction.
        #[allow(clippy::cast_possible_truncation, reason = "looked at before")]
        Json::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 9e18 => {
                (float as i64).to_string()
            }
            _ => number.to_string(),
        },
        _ => return Err(FormError::NoTime),
    };
    let is_count = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'.'));
    let is_count = is_count && text.bytes().filter(|b| *b == b'-').count() <= 1;
    let unit = match unit {
        _ if !is_count => "",
        TimeUnit::S => "s",
        TimeUnit::Ms => "ms",
        TimeUnit::Us => "us",
        TimeUnit::Ns => "ns",
    };
    Ok(parse_instant(&format!("{text}{unit}"))?)
}

/// The metric of a member: what a name cannot have becomes `_`.
fn metric(prefix: &str, member: &str) -> String {
    let legal = member.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' });
    let first_digit = prefix.is_empty() && member.starts_with(|c: char| c.is_ascii_digit());
    let mut out = prefix.to_owned();
    if first_digit {
        out.push('_');
    }
    out.extend(legal);
    out
}

fn quoted(text: &str) -> String {
    text.chars().take(QUOTED_CHARS_MAX).collect()
}
