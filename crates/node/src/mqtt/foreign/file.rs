//! The file of forms: what was typed becomes what it means, once, and what cannot be meant is refused with what to do about it. Parsing
//! is `toml`'s and `serde`'s affair.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tidelog_record::{Series, SeriesError, SiteName, Value};

use super::document::{Form, Payload, Pointer, PointerError, SITE_LEVEL, Taken, TimeUnit};
use super::pattern::{Pattern, PatternError, overlap};
use super::{FORMS_MAX, Forms};
use crate::reserved::reserved;

/// Longest file, in bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Most values, labels and words of one form.
const ENTRIES_MAX: usize = 256;

/// Why a file of forms cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FormsFileError {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is too long.
    #[error("{}: longer than {FILE_BYTES_MAX} bytes", .0.display())]
    TooLong(PathBuf),
    /// It is no TOML, or has keys that mean nothing.
    #[error("{}: {message}", path.display())]
    Syntax {
        /// Which.
        path: PathBuf,
        /// Where and what, by the TOML parser.
        message: String,
    },
    /// There are none, or more than [`FORMS_MAX`].
    #[error("{}: {count} messages, expected 1 to {FORMS_MAX} [[message]]", path.display())]
    Count {
        /// Which.
        path: PathBuf,
        /// How many.
        count: usize,
    },
    /// One of them cannot be used.
    #[error("{}: message {topic:?}: {error}", path.display())]
    Form {
        /// Which file.
        path: PathBuf,
        /// Which form.
        topic: String,
        /// Why.
        error: FormFileError,
    },
}

/// Why a form cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FormFileError {
    /// No topic.
    #[error("topic: {0}")]
    Topic(#[from] PatternError),
    /// A broker might deliver one message twice.
    #[error("topic: {0:?} takes some of the same topics, and a broker may deliver their messages twice")]
    Overlap(String),
    /// The site is told twice.
    #[error("site: the topic tells it already")]
    Site,
    /// No place.
    #[error("{0}: {1}")]
    Pointer(String, PointerError),
    /// A name that a metric or a label cannot have.
    #[error("{0}")]
    Name(#[from] SeriesError),
    /// A label that is told twice.
    #[error("label {0:?} stands twice: in the topic, labels and labels_at")]
    LabelTwice(String),
    /// A metric that is not for others.
    #[error("{0}: nodes alone write this metric")]
    Reserved(String),
    /// Nothing is taken.
    #[error("nothing would be taken: give values, or others")]
    Nothing,
    /// Too much.
    #[error("more than {ENTRIES_MAX} values, labels or words")]
    TooMany,
    /// A key without another one.
    #[error("{0} is of use with {1} alone")]
    Alone(&'static str, &'static str),
    /// A text has no members.
    #[error("{0}: a text has no members, so only \"\" is a place in it")]
    InText(&'static str),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    message: Vec<WrittenForm>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenForm {
    topic: String,
    #[serde(default)]
    payload: Payload,
    site: Option<SiteText>,
    each: Option<String>,
    time: Option<String>,
    time_unit: Option<TimeUnit>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    labels_at: BTreeMap<String, String>,
    #[serde(default)]
    values: BTreeMap<String, WrittenValue>,
    others: Option<String>,
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
#[serde(
    untagged,
    expecting = "expected a place such as \"/temperature\", or { at = \"/state\", words = { ON = true, OFF = false } }"
)]
enum WrittenValue {
    At(String),
    Words(WrittenWords),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenWords {
    at: String,
    words: BTreeMap<String, Meaning>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number, true or false")]
enum Meaning {
    Truth(bool),
    Number(f64),
}

impl Forms {
    /// Reads the file of forms of a node of this site. Their topics may not be `taken` already.
    ///
    /// # Errors
    /// [`FormsFileError`] says what is wrong, and where.
    pub fn load(path: &Path, site: &SiteName, taken: Vec<String>) -> Result<Self, FormsFileError> {
        let unread = |source| FormsFileError::Read { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(unread)?;
        let mut text = String::new();
        let length = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unread)?;
        if length as u64 > FILE_BYTES_MAX {
            return Err(FormsFileError::TooLong(path.to_owned()));
        }
        Self::parse(&text, path, site, taken)
    }

    pub(super) fn parse(
        text: &str,
        path: &Path,
        site: &SiteName,
        taken: Vec<String>,
    ) -> Result<Self, FormsFileError> {
        let path = || path.to_owned();
        let written: Written = toml::from_str(text)
            .map_err(|error| FormsFileError::Syntax { path: path(), message: error.to_string() })?;
        let count = written.message.len();
        if !(1..=FORMS_MAX).contains(&count) {
            return Err(FormsFileError::Count { path: path(), count });
        }
        let (mut forms, mut filters) = (Vec::with_capacity(count), taken);
        for written in written.message {
            let topic = written.topic.clone();
            let refused = |error| FormsFileError::Form { path: path(), topic: topic.clone(), error };
            let form = form(written, site).map_err(refused)?;
            let filter = form.topic.filter();
            if let Some(other) = filters.iter().find(|other| overlap(other, &filter)) {
                return Err(refused(FormFileError::Overlap(other.clone())));
            }
            filters.push(filter);
            forms.push(form);
        }
        Ok(Self(forms))
    }
}

fn form(written: WrittenForm, site: &SiteName) -> Result<Form, FormFileError> {
    let topic = Pattern::read(&written.topic)?;
    let tells_site = topic.names().any(|name| name == SITE_LEVEL);
    if tells_site && written.site.is_some() {
        return Err(FormFileError::Site);
    }
    let pointer = |key: &str, text: &str| {
        Pointer::read(text).map_err(|error| FormFileError::Pointer(key.to_owned(), error))
    };
    let each = written.each.as_deref().map(|text| pointer("each", text)).transpose()?;
    let time = written.time.as_deref().map(|text| pointer("time", text)).transpose()?;
    if time.is_none() && written.time_unit.is_some() {
        return Err(FormFileError::Alone("time_unit", "time"));
    }
    let mut labels_at = BTreeMap::new();
    for (name, text) in &written.labels_at {
        labels_at.insert(name.clone(), pointer(&format!("labels_at.{name}"), text)?);
    }
    let mut values = BTreeMap::new();
    for (metric, written) in written.values {
        let (at, words) = match written {
            WrittenValue::At(at) => (at, BTreeMap::new()),
            WrittenValue::Words(written) => (written.at, written.words),
        };
        let at = pointer(&format!("values.{metric}"), &at)?;
        let words = words.into_iter().map(|(word, meaning)| (word, Value::from(meaning))).collect();
        values.insert(metric, Taken { at, words });
    }
    let words = values.values().map(|taken| taken.words.len()).max().unwrap_or(0);
    if [values.len(), written.labels.len() + labels_at.len(), words].iter().any(|count| *count > ENTRIES_MAX)
    {
        return Err(FormFileError::TooMany);
    }
    if values.is_empty() && written.others.is_none() {
        return Err(FormFileError::Nothing);
    }
    if written.payload == Payload::Text {
        let whole = Pointer::read("").ok();
        let key = [("each", each.is_some()), ("time", time.is_some()), ("others", written.others.is_some())];
        let other = key.iter().find_map(|(key, is_there)| is_there.then_some(*key));
        let other = other.or_else(|| labels_at.first_key_value().map(|_| "labels_at"));
        let other =
            other.or_else(|| values.values().any(|it| Some(&it.at) != whole.as_ref()).then_some("values"));
        if let Some(key) = other {
            return Err(FormFileError::InText(key));
        }
    }
    check_names(&topic, &written.labels, &labels_at, &values, written.others.as_deref())?;
    Ok(Form {
        topic,
        payload: written.payload,
        site: written.site.map_or_else(|| site.clone(), |site| site.0),
        each,
        time: time.map(|pointer| (pointer, written.time_unit.unwrap_or_default())),
        labels: written.labels,
        labels_at,
        values,
        others: written.others,
    })
}

impl From<Meaning> for Value {
    fn from(meaning: Meaning) -> Self {
        match meaning {
            Meaning::Truth(truth) => Self::Bool(truth),
            Meaning::Number(number) => Self::F64(number),
        }
    }
}

fn check_names(
    topic: &Pattern,
    labels: &BTreeMap<String, String>,
    labels_at: &BTreeMap<String, Pointer>,
    values: &BTreeMap<String, Taken>,
    others: Option<&str>,
) -> Result<(), FormFileError> {
    let of_topic = topic.names().filter(|name| *name != SITE_LEVEL);
    let names: Vec<&str> = of_topic
        .chain(labels.keys().map(String::as_str))
        .chain(labels_at.keys().map(String::as_str))
        .collect();
    for (index, name) in names.iter().enumerate() {
        if names.iter().take(index).any(|before| before == name) {
            return Err(FormFileError::LabelTwice((*name).to_owned()));
        }
    }
    let named = || names.iter().map(|name| (*name, labels.get(*name).map_or("x", String::as_str)));
    for metric in values.keys() {
        if reserved(metric).is_some() {
            return Err(FormFileError::Reserved(metric.clone()));
        }
        Series::new(metric.as_str(), named())?;
    }
    if let Some(prefix) = others {
        Series::new(format!("{prefix}x"), named())?;
    }
    Ok(())
}
