//! Points as clients post them, in JSON or MessagePack, and the batches they become; as tables in [`table`].
//!
//! ```text
//! {"points": [{"metric": "temperature", "labels": {"room": "lab"}, "timestamp_ms": 1795248000000, "value": 21.5}, …]}
//! {"deviceinfo": {"deviceid": "d1", …}, "tsdata": [{"timestamp": 1795248000000, "temperature": 21.5, …}, …]}
//! ```
//! The second form is [`device`]'s. In the first:
//!
//! The time is exactly one of `timestamp_ns`, `timestamp_ms` and `time` (RFC 3339): a reading's time is decided at its
//! source (invariant 16), so there is no default. A number without fraction and exponent is an integer unless `type`
//! says `f64`; with that, `"NaN"`, `"+Inf"` and `"-Inf"` are numbers too. The same form in MessagePack has maps where
//! this has objects. Every point is checked before anything is appended; the first bad one is named by its index.

mod device;
pub(super) mod table;

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::Cursor;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use tidelog_record::{BATCH_BYTES_MAX, Batch, Series, Value};

use self::device::Device;
use super::error::{ApiError, ErrorCode};

/// Points that one record is filled with at most, in estimated bytes: below the bound by more than an estimate errs.
const RECORD_BYTES_WANTED: usize = BATCH_BYTES_MAX / 2;

/// Most a point takes beside a text: ten bytes of time, ten of value, one of kind.
const POINT_BYTES: usize = 21;

/// Most a series takes beside its canonical form: two lengths of up to ten bytes and a kind.
const SERIES_EXTRA_BYTES: usize = 21;

/// What the points of one body may take before they are stored, as a multiple of the greatest body: long names before many short values
/// become many long series.
const BYTES_PER_BODY_MAX: usize = 4;

/// What one record takes beside its series: kind, clock, origin and counts.
const RECORD_EXTRA_BYTES: usize = 64;

/// The kinds of value that a client may insist on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ValueType {
    F64,
    I64,
    Bool,
    Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PostedPoint {
    metric: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    timestamp_ns: Option<i64>,
    timestamp_ms: Option<i64>,
    time: Option<String>,
    value: PostedValue,
    r#type: Option<ValueType>,
}

/// A value as written, without the guesses that `Value`'s own untagged form makes of numbers beyond i64.
#[derive(Debug)]
struct PostedValue(Value);

impl<'de> Deserialize<'de> for PostedValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = PostedValue;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, true, false or a text as value")
            }
            fn visit_bool<E>(self, value: bool) -> Result<PostedValue, E> {
                Ok(PostedValue(Value::Bool(value)))
            }
            fn visit_i64<E>(self, value: i64) -> Result<PostedValue, E> {
                Ok(PostedValue(Value::I64(value)))
            }
            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<PostedValue, E> {
                let number = i64::try_from(value).map_err(|_| {
                    E::custom(format!("value {value} is past the largest integer, {}", i64::MAX))
                })?;
                Ok(PostedValue(Value::I64(number)))
            }
            fn visit_f64<E>(self, value: f64) -> Result<PostedValue, E> {
                Ok(PostedValue(Value::F64(value)))
            }
            fn visit_str<E>(self, value: &str) -> Result<PostedValue, E> {
                Ok(PostedValue(Value::Text(value.to_owned())))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl PostedPoint {
    fn into_point(self) -> Result<(Series, i64, Value), String> {
        let timestamp = match (self.timestamp_ns, self.timestamp_ms, self.time) {
            (Some(ns), None, None) => ns,
            (None, Some(ms), None) => {
                ms.checked_mul(1_000_000).ok_or_else(|| format!("timestamp_ms {ms} is out of range"))?
            }
            (None, None, Some(text)) => {
                tidelog_query::parse_instant(&text).map_err(|error| format!("time {text:?}: {error}"))?
            }
            _ => return Err("takes exactly one of timestamp_ns, timestamp_ms and time".to_owned()),
        };
        let value = typed(self.value.0, self.r#type)?;
        let series = Series::new(self.metric, self.labels).map_err(|error| error.to_string())?;
        Ok((series, timestamp, value))
    }
}

fn typed(value: Value, wanted: Option<ValueType>) -> Result<Value, String> {
    let Some(wanted) = wanted else { return Ok(value) };
    Ok(match (wanted, value) {
        (ValueType::F64, Value::Text(text)) => Value::F64(match text.as_str() {
            "NaN" => f64::NAN,
            "+Inf" | "Inf" => f64::INFINITY,
            "-Inf" => f64::NEG_INFINITY,
            _ => return Err(format!("value {text:?} is no f64: a number, \"NaN\", \"+Inf\" or \"-Inf\"")),
        }),
        (ValueType::F64, Value::I64(number)) => {
            // Exact, or the client is told: between its highest and lowest set bit an integer may have 53.
            let magnitude = number.unsigned_abs();
            let span = 64u32.saturating_sub(magnitude.leading_zeros() + magnitude.trailing_zeros());
            if span > f64::MANTISSA_DIGITS {
                return Err(format!("value {number} is not exactly an f64"));
            }
            Value::F64(number as f64)
        }
        (ValueType::F64, value @ Value::F64(_))
        | (ValueType::I64, value @ Value::I64(_))
        | (ValueType::Bool, value @ Value::Bool(_))
        | (ValueType::Text, value @ Value::Text(_)) => value,
        (wanted, value) => return Err(format!("value {value:?} is not of type {wanted:?}")),
    })
}

/// Points by series, in records that fit.
#[derive(Debug)]
pub(super) struct Sorter {
    bytes_left: usize,
    done: Vec<Batch>,
    places: HashMap<Series, usize>,
    open: Vec<(Series, Vec<(i64, Value)>)>,
    open_bytes: usize,
    points: usize,
}

/// Why a point is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotTaken {
    #[error("takes {0} bytes, the most for one point is {BATCH_BYTES_MAX}")]
    TooLong(usize),
    #[error("the points of one body take too much together: post it in parts")]
    Full,
}

impl Sorter {
    /// For a body where one may be so long.
    pub fn new(body_bytes_max: u32) -> Self {
        let body_bytes = usize::try_from(body_bytes_max).unwrap_or(usize::MAX);
        Self {
            bytes_left: body_bytes.saturating_mul(BYTES_PER_BODY_MAX),
            done: Vec::new(),
            places: HashMap::new(),
            open: Vec::new(),
            open_bytes: 0,
            points: 0,
        }
    }

    /// Adds a point, its time in Unix nanoseconds.
    pub fn add(&mut self, series: Series, timestamp: i64, value: Value) -> Result<(), NotTaken> {
        let text_bytes = if let Value::Text(text) = &value { text.len() } else { 0 };
        let series_bytes = series.canonical().len() + SERIES_EXTRA_BYTES;
        let alone = RECORD_EXTRA_BYTES + series_bytes + POINT_BYTES + text_bytes;
        if alone > BATCH_BYTES_MAX {
            return Err(NotTaken::TooLong(alone));
        }
        let known = self.places.contains_key(&series);
        let more = POINT_BYTES + text_bytes + if known { 0 } else { series_bytes };
        self.bytes_left = self.bytes_left.checked_sub(more).ok_or(NotTaken::Full)?;
        if !self.open.is_empty() && self.open_bytes + more > RECORD_BYTES_WANTED {
            self.close();
        }
        self.open_bytes += if self.open.is_empty() { alone } else { more };
        self.points += 1;
        match self.places.get(&series).and_then(|place| self.open.get_mut(*place)) {
            Some((_, points)) => points.push((timestamp, value)),
            None => {
                self.places.insert(series.clone(), self.open.len());
                self.open.push((series, vec![(timestamp, value)]));
            }
        }
        Ok(())
    }

    fn close(&mut self) {
        let series = std::mem::take(&mut self.open);
        self.places.clear();
        self.open_bytes = 0;
        if !series.is_empty() {
            self.done.push(Batch { series, ..Batch::default() });
        }
    }

    pub fn end(mut self) -> Posted {
        self.close();
        Posted { batches: self.done, points: self.points }
    }
}

/// What a body held.
#[derive(Debug)]
pub(crate) struct Posted {
    /// Batches in the order of the body, each within a record's bounds; `authored_ms` is for the caller to set.
    pub batches: Vec<Batch>,
    /// Points in all of them.
    pub points: usize,
}

/// A content type without its parameters.
fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Bodies that are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyForm {
    Json,
    MessagePack,
}

impl BodyForm {
    /// By the `Content-Type`, without its parameters.
    pub fn of_content_type(text: &str) -> Option<Self> {
        match essence(text).as_str() {
            "application/json" => Some(Self::Json),
            "application/msgpack" | "application/vnd.msgpack" | "application/x-msgpack" => {
                Some(Self::MessagePack)
            }
            _ => None,
        }
    }

    /// Reads and checks a whole body, where one may be so long.
    pub fn read(self, body: &[u8], body_bytes_max: u32) -> Result<Posted, ApiError> {
        let (at, full, mut sorter) = (Cell::new(None), Cell::new(false), Sorter::new(body_bytes_max));
        let seed = Document { at: &at, full: &full, sorter: &mut sorter };
        let outcome = match self {
            Self::Json => {
                let mut reader = serde_json::Deserializer::from_slice(body);
                seed.deserialize(&mut reader).and_then(|()| reader.end()).map_err(|error| error.to_string())
            }
            Self::MessagePack => {
                let mut reader = rmp_serde::Deserializer::new(Cursor::new(body));
                seed.deserialize(&mut reader).map_err(|error| error.to_string()).and_then(|()| {
                    if reader.position() == body.len() as u64 {
                        Ok(())
                    } else {
                        Err("bytes behind the document".to_owned())
                    }
                })
            }
        };
        match (outcome, at.get()) {
            (Ok(()), _) => Ok(sorter.end()),
            (Err(reason), _) if full.get() => Err(ApiError::new(ErrorCode::TooLarge, reason)),
            (Err(reason), None) => Err(ApiError::new(ErrorCode::BadBody, reason)),
            (Err(reason), Some((list, index))) => {
                let message = format!("{list}[{index}]: {reason}");
                Err(ApiError { code: ErrorCode::BadPoint, message, index: Some(index) })
            }
        }
    }
}

/// The list of a document that is being read, and the index in it.
type At = Option<(&'static str, usize)>;

/// A document, sorted point by point while it is read.
struct Document<'a> {
    /// What is being read.
    at: &'a Cell<At>,
    /// Whether there is no room for more.
    full: &'a Cell<bool>,
    sorter: &'a mut Sorter,
}

impl Document<'_> {
    fn add<E: serde::de::Error>(&mut self, series: Series, timestamp: i64, value: Value) -> Result<(), E> {
        self.sorter.add(series, timestamp, value).map_err(|error| {
            self.full.set(error == NotTaken::Full);
            E::custom(error)
        })
    }
}

/// The fields of a document in either form.
const FIELDS: &[&str] = &["points", "deviceinfo", "tsdata"];

impl<'de> DeserializeSeed<'de> for Document<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Document<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the field `points`, or with `deviceinfo` and `tsdata`")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let (mut points, mut readings, mut device) = (false, false, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "points" if points => return Err(A::Error::duplicate_field("points")),
                "points" if device.is_none() => {
                    map.next_value_seed(Points(&mut self))?;
                    points = true;
                }
                "points" | "deviceinfo" | "tsdata" if points || key == "points" => {
                    return Err(A::Error::custom("points stand alone, without deviceinfo and tsdata"));
                }
                "deviceinfo" if device.is_some() => return Err(A::Error::duplicate_field("deviceinfo")),
                "deviceinfo" => device = Some(map.next_value::<Device>()?),
                "tsdata" if readings => return Err(A::Error::duplicate_field("tsdata")),
                "tsdata" => {
                    let device = device.as_mut();
                    let device =
                        device.ok_or_else(|| A::Error::custom("deviceinfo must stand before tsdata"))?;
                    map.next_value_seed(device::Readings { device, document: &mut self })?;
                    readings = true;
                }
                _ => return Err(A::Error::unknown_field(&key, FIELDS)),
            }
        }
        match device {
            Some(device) if readings => device.end(&mut self),
            Some(_) => Err(A::Error::missing_field("tsdata")),
            None if points => Ok(()),
            None => Err(A::Error::missing_field("points")),
        }
    }
}

/// A point must be an object: serde would take an array of its fields in order, too.
struct Point;

impl<'de> DeserializeSeed<'de> for Point {
    type Value = PostedPoint;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<PostedPoint, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Point {
    type Value = PostedPoint;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with metric, labels, a time and value")
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PostedPoint, A::Error> {
        PostedPoint::deserialize(MapAccessDeserializer::new(map))
    }
}

struct Points<'a, 'b>(&'a mut Document<'b>);

impl<'de> DeserializeSeed<'de> for Points<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Points<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of points")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let document = self.0;
        loop {
            document.at.set(Some(("points", document.sorter.points)));
            match seq.next_element_seed(Point)? {
                Some(point) => {
                    let (series, timestamp, value) = point.into_point().map_err(A::Error::custom)?;
                    document.add(series, timestamp, value)?;
                }
                None => break,
            }
        }
        document.at.set(None);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer::{Answer, AnswerForm};
    use super::*;
    use proptest::prelude::*;

    const BODY_BYTES_MAX: u32 = 8 * 1024 * 1024;

    fn json(text: &str) -> Result<Posted, ApiError> {
        BodyForm::Json.read(text.as_bytes(), BODY_BYTES_MAX)
    }

    /// The points of a post, in no batch's order.
    fn points(posted: &Posted) -> BTreeMap<(Series, i64), Value> {
        let all = posted.batches.iter().flat_map(|batch| &batch.series);
        all.flat_map(|(s, points)| points.iter().map(|(t, v)| ((s.clone(), *t), v.clone()))).collect()
    }

    #[test]
    fn a_time_is_read_from_each_of_its_three_fields() {
        let posted = json(
            r#"{"points":[{"metric":"a","timestamp_ns":1,"value":1.0},{"metric":"a","timestamp_ms":-1,"value":true},
            {"metric":"a","labels":{"l":"x"},"time":"1970-01-01T00:00:01Z","value":"text"}]}"#,
        )
        .unwrap();
        assert_eq!(posted.points, 3);
        let (bare, labelled) =
            (Series::new("a", [("l", "")]).unwrap(), Series::new("a", [("l", "x")]).unwrap());
        let expected = BTreeMap::from([
            ((bare.clone(), 1), Value::F64(1.0)),
            ((bare, -1_000_000), Value::Bool(true)),
            ((labelled, 1_000_000_000), Value::Text("text".to_owned())),
        ]);
        assert_eq!(points(&posted), expected);
    }

    #[test]
    fn a_bad_point_is_named_by_its_index_and_its_reason() {
        let good = r#"{"metric":"a","timestamp_ns":1,"value":1}"#;
        let cases = [
            (r#"{"metric":"a-b","timestamp_ns":1,"value":1}"#, "bad metric name"),
            (r#"{"metric":"a","labels":{"1":"x"},"timestamp_ns":1,"value":1}"#, "bad label name"),
            (r#"{"metric":"a","labels":{"l":1},"timestamp_ns":1,"value":1}"#, "expected a string"),
            (r#"{"metric":"a","value":1}"#, "exactly one of timestamp_ns"),
            (r#"{"metric":"a","timestamp_ns":1,"timestamp_ms":1,"value":1}"#, "exactly one of timestamp_ns"),
            (r#"{"metric":"a","timestamp_ms":9223372036855,"value":1}"#, "out of range"),
            (r#"{"metric":"a","timestamp_ns":1.5,"value":1}"#, "expected i64"),
            (r#"{"metric":"a","time":"yesterday","value":1}"#, "not an instant"),
            (r#"{"metric":"a","timestamp_ns":1}"#, "missing field `value`"),
            (r#"{"metric":"a","timestamp_ns":1,"value":null}"#, "expected a number"),
            (r#"{"metric":"a","timestamp_ns":1,"value":[1]}"#, "expected a number"),
            (r#"{"metric":"a","timestamp_ns":1,"value":9223372036854775808}"#, "past the largest integer"),
            (r#"{"metric":"a","timestamp_ns":1,"value":1e999}"#, "out of range"),
            (
                r#"{"metric":"a","timestamp_ns":1,"value":9007199254740993,"type":"f64"}"#,
                "not exactly an f64",
            ),
            (
                r#"{"metric":"a","timestamp_ns":1,"value":9223372036854775807,"type":"f64"}"#,
                "not exactly an f64",
            ),
            (r#"{"metric":"a","timestamp_ns":1,"value":1.5,"type":"i64"}"#, "not of type"),
            (r#"{"metric":"a","timestamp_ns":1,"value":"x","type":"f64"}"#, "no f64"),
            (r#"{"metric":"a","timestamp_ns":1,"value":1,"unit":"C"}"#, "unknown field `unit`"),
            (r#"["a",{},1,null,null,1,null]"#, "expected an object"),
            ("1", "expected an object"),
        ];
        for (bad, reason) in cases {
            let error = json(&format!(r#"{{"points":[{good},{good},{bad},{good}]}}"#)).unwrap_err();
            assert_eq!((error.code, error.index), (ErrorCode::BadPoint, Some(2)), "{bad}: {error:?}");
            assert!(
                error.message.contains("points[2]") && error.message.contains(reason),
                "{bad}: {error:?}"
            );
        }
    }

    #[test]
    fn an_integer_that_a_float_can_hold_becomes_one_when_it_is_asked_for() {
        for number in [0, 1, -1, 1 << 53, -(1 << 53), (1 << 53) - 1, i64::MIN, 3 << 60] {
            let body =
                format!(r#"{{"points":[{{"metric":"a","timestamp_ns":1,"value":{number},"type":"f64"}}]}}"#);
            let posted = json(&body).unwrap();
            let value = points(&posted).into_values().next();
            assert_eq!(value, format!("{number}.0").parse().ok().map(Value::F64), "{number}");
        }
    }

    #[test]
    fn a_body_that_is_no_document_is_refused() {
        for body in [
            "",
            "{",
            "[]",
            "{}",
            r#"{"points":1}"#,
            r#"{"points":[]} x"#,
            r#"{"point":[]}"#,
            r#"{"points":[],"points":[]}"#,
        ] {
            let error = json(body).unwrap_err();
            assert_eq!(error.code, ErrorCode::BadBody, "{body}: {error:?}");
        }
        assert_eq!(json(r#"{"points":[]}"#).unwrap().points, 0);
        assert_eq!(BodyForm::MessagePack.read(&[0xc1], BODY_BYTES_MAX).unwrap_err().code, ErrorCode::BadBody);
        let trailing =
            [&rmp_serde::to_vec_named(&serde_json::json!({"points": []})).unwrap()[..], &[0]].concat();
        assert_eq!(
            BodyForm::MessagePack.read(&trailing, BODY_BYTES_MAX).unwrap_err().code,
            ErrorCode::BadBody
        );
    }

    #[test]
    fn a_big_post_becomes_several_records_and_one_point_past_a_record_is_refused() {
        let point = |i: usize, text: usize| serde_json::json!({"metric": "a", "timestamp_ns": i, "value": "x".repeat(text)});
        let big = serde_json::json!({"points": (0..300).map(|i| point(i, 10_000)).collect::<Vec<_>>()});
        let posted = json(&big.to_string()).unwrap();
        assert!(posted.batches.len() > 2);
        assert!(posted.batches.iter().all(|batch| batch.encode().is_ok()));
        assert_eq!(points(&posted).len(), 300);
        let huge = serde_json::json!({"points": [point(0, 1), point(1, BATCH_BYTES_MAX)]});
        let error = json(&huge.to_string()).unwrap_err();
        assert_eq!((error.code, error.index), (ErrorCode::BadPoint, Some(1)));
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<f64>().prop_map(Value::F64),
            Just(Value::F64(f64::NAN)),
            Just(Value::F64(f64::NEG_INFINITY)),
            Just(Value::F64(-0.0)),
            any::<i64>().prop_map(Value::I64),
            any::<bool>().prop_map(Value::Bool),
            prop_oneof![Just("NaN".to_owned()), ".{0,12}"].prop_map(Value::Text),
        ]
    }

    proptest! {
        #[test]
        fn what_an_answer_says_a_post_takes_back(
            all in prop::collection::btree_map(
                ("[a-z]{1,6}", prop::collection::btree_map("[a-z]{1,4}", "\\PC{1,8}", 0..3))
                    .prop_map(|(metric, labels)| Series::new(metric, labels).unwrap()),
                prop::collection::btree_map(any::<i64>(), value(), 1..6), 0..4),
            pieces in 1usize..200,
        ) {
            let mut answer = Answer::begin(AnswerForm::Ndjson, &"s".parse().unwrap());
            let mut bytes = Vec::new();
            for (series, points) in &all {
                answer.series(series, points.clone().into_iter(), pieces, |piece| { bytes.extend(piece); Ok::<_, ()>(()) }).unwrap();
            }
            bytes.extend(answer.end());
            let text = String::from_utf8(bytes).unwrap();
            let body = format!("{{\"points\":[{}]}}", text.lines().collect::<Vec<_>>().join(","));
            let expected: BTreeMap<_, _> = all.iter()
                .flat_map(|(s, points)| points.iter().map(|(t, v)| ((s.clone(), *t), v.clone())))
                // JSON has one NaN.
                .map(|(k, v)| (k, match v { Value::F64(f) if f.is_nan() => Value::F64(f64::NAN), v => v }))
                .collect();
            let from_json = json(&body).unwrap();
            prop_assert_eq!(&points(&from_json), &expected);
            let document: serde_json::Value = serde_json::from_str(&body).unwrap();
            let packed = rmp_serde::to_vec_named(&document).unwrap();
            prop_assert_eq!(points(&BodyForm::MessagePack.read(&packed, BODY_BYTES_MAX).unwrap()), expected);
        }

        #[test]
        fn arbitrary_bodies_never_panic(
            noise in prop::collection::vec(any::<u8>(), 0..80), text in "[{}\\[\\]:,\"a-z0-9.e-]{0,60}",
        ) {
            drop(BodyForm::Json.read(&noise, BODY_BYTES_MAX));
            drop(BodyForm::MessagePack.read(&noise, BODY_BYTES_MAX));
            drop(json(&text));
            drop(json(&format!("{{\"points\":[{text}]}}")));
        }
    }
}
