//! What one MQTT message holds: the points of one record, and enough of their origin that a subscriber can tell a
//! repeat from the message alone.
//!
//! A message is one map, as MessagePack or as JSON, with the same keys in both (`docs/MQTT.md` is the published form):
//! ```text
//! v            1
//! site         text
//! origin       { node: 32 hex digits, run: 16 hex digits, lsn: integer }     one record for ever (invariant 1)
//! first_point, of                                                            only in parts of a divided record
//! device, epoch, seq, count                                                  only when a sensor sent the batch
//! authored_ms  integer, Unix milliseconds
//! points       [ { metric, labels { name: value }, timestamp_ns, value } ]
//! value        MessagePack: float64, integer, boolean or text
//!              JSON: 1.0, 1, true or "text"; a float that JSON has no word for is "NaN", "+Inf" or "-Inf", told from
//!              a text by `type: "f64"` beside it, as in the HTTP API; JSON has one NaN, MessagePack keeps its bits
//! ```
//! This module knows no broker and no store. Bytes that it reads come from anyone: lengths are bounded before anything is
//! built, names are checked by the types that own them, and keys it does not know are passed over.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tidelog_record::{
    Batch, DeviceId, Lsn, NodeId, Origin, Run, Series, SeriesError, SiteName, StreamId, Value,
};

/// Longest payload that is read, in bytes. A point of the longest series and text still fits, escaped as JSON.
pub const PAYLOAD_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A record whose points may take more than this is divided into several messages, in bytes. One point is never divided.
pub const PART_BYTES_MAX: usize = 64 * 1024;

/// Deepest nesting that is read in MessagePack, keys of a newer writer included. The reader recurses, and its own bound
/// of 1,024 is more than a thread's stack holds.
const NESTING_MAX: usize = 32;

const VERSION: u32 = 1;
const POINT_BYTES_FIXED: usize = 96;
const LABEL_BYTES_FIXED: usize = 10;
const ESCAPE_BYTES_MAX: usize = 5;
const NAN: &str = "NaN";
const INFINITE: &str = "+Inf";
const INFINITE_NEGATIVE: &str = "-Inf";

/// How a payload is written. Reading finds it out from the first byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// MessagePack with named keys.
    #[default]
    MessagePack,
    /// JSON text.
    Json,
}

/// Which points of its record a message holds, when one message would be too long for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Part {
    /// How many points of the record stand in messages before this one.
    pub first_point: u64,
    /// Points in the whole record.
    pub of: u64,
}

/// One message: a record's points, or a part of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The stream of the record: site, author and the author's run.
    pub stream: StreamId,
    /// The record's place there.
    pub lsn: Lsn,
    /// `None` when the message holds the whole record.
    pub part: Option<Part>,
    /// The sensor's batch, if a sensor sent it.
    pub sensor: Option<Origin>,
    /// The author's clock when the record was written, Unix milliseconds.
    pub authored_ms: i64,
    /// The points: series, timestamp in nanoseconds, value.
    pub points: Vec<(Series, i64, Value)>,
}

/// Why bytes are no message, or a message has no bytes.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// Longer than is read at all.
    #[error("the payload has {bytes} bytes, the most is {PAYLOAD_BYTES_MAX}")]
    TooLong {
        /// Length of the payload.
        bytes: usize,
    },
    /// Written for a version that this one does not know.
    #[error("payload version {0}, this node reads version {VERSION}")]
    Version(u32),
    /// Neither a MessagePack map nor a JSON object.
    #[error("neither a MessagePack map nor a JSON object")]
    Unrecognised,
    /// Something follows the MessagePack map.
    #[error("trailing bytes after the MessagePack map")]
    Trailing,
    /// A MessagePack map that is no message.
    #[error("bad MessagePack payload: {0}")]
    MessagePack(#[from] rmp_serde::decode::Error),
    /// A JSON object that is no message, or bytes that are no JSON.
    #[error("bad JSON payload: {0}")]
    Json(#[from] serde_json::Error),
    /// A key holds something that cannot be its value.
    #[error("bad {key}: {reason}")]
    Field {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A point's metric or labels are bad.
    #[error("point {index}: {reason}")]
    Point {
        /// Its place in `points`, from 0.
        index: usize,
        /// What is wrong with it.
        reason: SeriesError,
    },
    /// A point's value is not of the type that stands beside it.
    #[error("point {index}: the value is not of the type beside it")]
    Type {
        /// Its place in `points`, from 0.
        index: usize,
    },
    /// MessagePack could not be written.
    #[error("cannot write MessagePack: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
}

impl Message {
    /// The messages that carry a record, in order: one, unless its points take more than [`PART_BYTES_MAX`]. Lazy, so
    /// that a long record never stands in memory as messages all at once. Always at least one, and the same ones for the
    /// same record, so that a repeat is recognised.
    pub fn of_record<'a>(
        stream: &'a StreamId,
        lsn: Lsn,
        batch: &'a Batch,
    ) -> impl Iterator<Item = Self> + Send + 'a {
        let of = batch.points() as u64;
        let mut points = batch
            .series
            .iter()
            .flat_map(|(series, points)| {
                points.iter().map(move |(timestamp, value)| (series, *timestamp, value))
            })
            .peekable();
        let mut first_point = Some(0u64);
        std::iter::from_fn(move || {
            let from = first_point.take()?;
            let mut taken = Vec::new();
            let mut bytes = 0usize;
            while let Some((series, _, value)) = points.peek() {
                bytes += point_bytes_max(series, value);
                if bytes > PART_BYTES_MAX && !taken.is_empty() {
                    break;
                }
                if let Some((series, timestamp, value)) = points.next() {
                    taken.push((series.clone(), timestamp, value.clone()));
                }
            }
            let next = from + taken.len() as u64;
            if points.peek().is_some() {
                first_point = Some(next);
            }
            let part = (from > 0 || next < of).then_some(Part { first_point: from, of });
            Some(Self {
                stream: stream.clone(),
                lsn,
                part,
                sensor: batch.origin,
                authored_ms: batch.authored_ms,
                points: taken,
            })
        })
    }

    /// The points as a batch: those of one series that stand side by side become one run of points.
    #[must_use]
    pub fn into_batch(self) -> Batch {
        let mut series: Vec<(Series, Vec<(i64, Value)>)> = Vec::new();
        for (name, timestamp, value) in self.points {
            match series.last_mut() {
                Some((last, points)) if *last == name => points.push((timestamp, value)),
                _ => series.push((name, vec![(timestamp, value)])),
            }
        }
        Batch { authored_ms: self.authored_ms, origin: self.sensor, series }
    }

    /// The message's bytes.
    ///
    /// # Errors
    /// [`PayloadError::Encode`] or [`PayloadError::Json`] when the serializer refuses, which no valid message makes it do.
    pub fn encode(&self, encoding: Encoding) -> Result<Vec<u8>, PayloadError> {
        let wire = Wire::of(self, encoding);
        match encoding {
            Encoding::MessagePack => Ok(rmp_serde::to_vec_named(&wire)?),
            Encoding::Json => Ok(serde_json::to_vec(&wire)?),
        }
    }

    /// Reads a payload of either encoding.
    ///
    /// # Errors
    /// [`PayloadError`] says which key or point is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
        if bytes.len() > PAYLOAD_BYTES_MAX {
            return Err(PayloadError::TooLong { bytes: bytes.len() });
        }
        match bytes.first() {
            Some(0x80..=0x8f | 0xde | 0xdf) => {
                let mut whole = rmp_serde::Deserializer::new(std::io::Cursor::new(bytes));
                whole.set_max_depth(NESTING_MAX);
                version_of(Versioned::deserialize(&mut whole)?)?;
                if whole.position() != bytes.len() as u64 {
                    return Err(PayloadError::Trailing);
                }
                let mut borrowed = rmp_serde::Deserializer::from_read_ref(bytes);
                borrowed.set_max_depth(NESTING_MAX);
                Wire::deserialize(&mut borrowed)?.read()
            }
            Some(b'{' | b' ' | b'\t' | b'\r' | b'\n') => {
                version_of(serde_json::from_slice(bytes)?)?;
                serde_json::from_slice::<Wire<'_>>(bytes)?.read()
            }
            _ => Err(PayloadError::Unrecognised),
        }
    }
}

/// More than a point takes in either encoding.
fn point_bytes_max(series: &Series, value: &Value) -> usize {
    let escaped = |text: &str| {
        let special = text.bytes().filter(|b| b.is_ascii_control() || matches!(b, b'"' | b'\\')).count();
        text.len() + special * ESCAPE_BYTES_MAX
    };
    let labels: usize =
        series.labels().map(|(name, text)| LABEL_BYTES_FIXED + name.len() + escaped(text)).sum();
    let text = if let Value::Text(text) = value { escaped(text) } else { 0 };
    POINT_BYTES_FIXED + series.metric().len() + labels + text
}

/// Read first and alone, so that a later version is told as such and not as whatever key changed in it.
#[derive(Deserialize)]
struct Versioned {
    v: u32,
}

fn version_of(versioned: Versioned) -> Result<(), PayloadError> {
    if versioned.v == VERSION { Ok(()) } else { Err(PayloadError::Version(versioned.v)) }
}

/// The map as it is written.
#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    v: u32,
    #[serde(borrow)]
    site: Cow<'a, str>,
    origin: WireOrigin<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_point: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    of: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epoch: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    count: Option<u32>,
    authored_ms: i64,
    points: Vec<WirePoint<'a>>,
}

#[derive(Serialize, Deserialize)]
struct WireOrigin<'a> {
    #[serde(borrow)]
    node: Cow<'a, str>,
    run: Cow<'a, str>,
    lsn: u64,
}

#[derive(Serialize, Deserialize)]
struct WirePoint<'a> {
    #[serde(borrow)]
    metric: Cow<'a, str>,
    #[serde(default)]
    labels: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    timestamp_ns: i64,
    value: WireValue<'a>,
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    kind: Option<WireType>,
}

/// What a point's writer insists that its value is. This writer says it where JSON has no word for a float.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WireType {
    F64,
    I64,
    Bool,
    Text,
}

impl WireType {
    /// The value, if it is one of this type.
    fn read(self, value: Value) -> Option<Value> {
        match (self, value) {
            (Self::F64, Value::Text(text)) => number_of_word(&text).map(Value::F64),
            // A writer whose language has no integers may say 21 for 21.0.
            (Self::F64, Value::I64(v)) => exactly(v).map(Value::F64),
            (Self::F64, value @ Value::F64(_))
            | (Self::I64, value @ Value::I64(_))
            | (Self::Bool, value @ Value::Bool(_))
            | (Self::Text, value @ Value::Text(_)) => Some(value),
            _ => None,
        }
    }
}

struct WireValue<'a>(Cow<'a, Value>);

impl Serialize for WireValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_ref() {
            Value::F64(v) if serializer.is_human_readable() && !v.is_finite() => {
                serializer.serialize_str(word_of(*v))
            }
            Value::F64(v) => serializer.serialize_f64(*v),
            Value::I64(v) => serializer.serialize_i64(*v),
            Value::Bool(v) => serializer.serialize_bool(*v),
            Value::Text(v) => serializer.serialize_str(v),
        }
    }
}

impl<'de> Deserialize<'de> for WireValue<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, a truth value or a text")
            }
            fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
                Ok(Value::Bool(v))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
                Ok(Value::I64(v))
            }
            fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<Value, E> {
                i64::try_from(v).map(Value::I64).map_err(|_| {
                    E::invalid_value(Unexpected::Unsigned(v), &"an integer of 64 bits with sign")
                })
            }
            fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
                Ok(Value::F64(v))
            }
            fn visit_str<E>(self, v: &str) -> Result<Value, E> {
                Ok(Value::Text(v.to_owned()))
            }
            fn visit_string<E>(self, v: String) -> Result<Value, E> {
                Ok(Value::Text(v))
            }
        }
        deserializer.deserialize_any(Any).map(|value| Self(Cow::Owned(value)))
    }
}

/// An integer as a float, if no bit of it is lost.
fn exactly(value: i64) -> Option<f64> {
    let bits = value.unsigned_abs();
    let span = u64::BITS - bits.leading_zeros() - bits.trailing_zeros().min(u64::BITS - bits.leading_zeros());
    (span <= f64::MANTISSA_DIGITS).then_some(value as f64)
}

fn word_of(value: f64) -> &'static str {
    if value.is_nan() {
        NAN
    } else if value > 0.0 {
        INFINITE
    } else {
        INFINITE_NEGATIVE
    }
}

fn number_of_word(text: &str) -> Option<f64> {
    match text {
        NAN => Some(f64::NAN),
        INFINITE => Some(f64::INFINITY),
        INFINITE_NEGATIVE => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

impl<'a> Wire<'a> {
    fn of(message: &'a Message, encoding: Encoding) -> Self {
        let points = message.points.iter().map(|(series, timestamp_ns, value)| WirePoint {
            metric: series.metric().into(),
            labels: series.labels().map(|(name, text)| (name.into(), text.into())).collect(),
            timestamp_ns: *timestamp_ns,
            value: WireValue(Cow::Borrowed(value)),
            kind: match value {
                Value::F64(v) if encoding == Encoding::Json && !v.is_finite() => Some(WireType::F64),
                _ => None,
            },
        });
        Self {
            v: VERSION,
            site: message.stream.site.as_str().into(),
            origin: WireOrigin {
                node: message.stream.node.to_string().into(),
                run: message.stream.run.to_string().into(),
                lsn: message.lsn.0,
            },
            first_point: message.part.map(|part| part.first_point),
            of: message.part.map(|part| part.of),
            device: message.sensor.map(|sensor| sensor.device.to_string().into()),
            epoch: message.sensor.map(|sensor| sensor.epoch),
            seq: message.sensor.map(|sensor| sensor.first_seq),
            count: message.sensor.map(|sensor| sensor.count),
            authored_ms: message.authored_ms,
            points: points.collect(),
        }
    }

    fn read(self) -> Result<Message, PayloadError> {
        let stream = StreamId {
            site: field("site", self.site.parse::<SiteName>())?,
            node: field("origin.node", self.origin.node.parse::<NodeId>())?,
            run: field("origin.run", self.origin.run.parse::<Run>())?,
        };
        let part = match (self.first_point, self.of) {
            (None, None) => None,
            (Some(first_point), Some(of)) => Some(Part { first_point, of }),
            _ => return Err(incomplete("first_point", "first_point and of stand together or not at all")),
        };
        let sensor = match (self.device, self.epoch, self.seq, self.count) {
            (None, None, None, None) => None,
            (Some(device), Some(epoch), Some(first_seq), Some(count)) => {
                let device = field("device", device.parse::<DeviceId>())?;
                Some(Origin { device, epoch, first_seq, count })
            }
            _ => {
                return Err(incomplete(
                    "device",
                    "device, epoch, seq and count stand together or not at all",
                ));
            }
        };
        let points = self.points.into_iter().enumerate().map(|(index, point)| {
            let series = Series::new(point.metric, point.labels)
                .map_err(|reason| PayloadError::Point { index, reason })?;
            let value = point.value.0.into_owned();
            let value = match point.kind {
                None => value,
                Some(kind) => kind.read(value).ok_or(PayloadError::Type { index })?,
            };
            Ok((series, point.timestamp_ns, value))
        });
        let points = points.collect::<Result<Vec<_>, PayloadError>>()?;
        Ok(Message { stream, lsn: Lsn(self.origin.lsn), part, sensor, authored_ms: self.authored_ms, points })
    }
}

fn field<T, E: fmt::Display>(key: &'static str, parsed: Result<T, E>) -> Result<T, PayloadError> {
    parsed.map_err(|e| PayloadError::Field { key, reason: e.to_string() })
}

fn incomplete(key: &'static str, reason: &str) -> PayloadError {
    PayloadError::Field { key, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests;
