//! Points as clients post them, in JSON or MessagePack, and the batches they become.
//!
//! ```text
//! {"points": [{"metric": "temperature", "labels": {"room": "lab"}, "timestamp_ms": 1795248000000, "value": 21.5}, …]}
//! ```
//! The time is exactly one of `timestamp_ns`, `timestamp_ms` and `time` (RFC 3339): a reading's time is decided at its
//! source (invariant 16), so there is no default. A number without fraction and exponent is an integer unless `type`
//! says `f64`; with that, `"NaN"`, `"+Inf"` and `"-Inf"` are numbers too. The same form in MessagePack has maps where
//! this has objects. Every point is checked before anything is appended; the first bad one is named by its index.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::Cursor;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use tidelog_record::{BATCH_BYTES_MAX, Batch, Series, Value};

use super::error::{ApiError, ErrorCode};

/// Points that one record is filled with at most, in estimated bytes: below the bound by more than an estimate errs.
const RECORD_BYTES_WANTED: usize = BATCH_BYTES_MAX / 2;

/// Most a point takes beside a text: ten bytes of time, ten of value, one of kind.
const POINT_BYTES: usize = 21;

/// Most a series takes beside its canonical form: two lengths of up to ten bytes and a kind.
const SERIES_EXTRA_BYTES: usize = 21;

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
#[derive(Debug, Default)]
pub(super) struct Sorter {
    done: Vec<Batch>,
    places: HashMap<Series, usize>,
    open: Vec<(Series, Vec<(i64, Value)>)>,
    open_bytes: usize,
    points: usize,
}

impl Sorter {
    /// Adds a point, its time in Unix nanoseconds; or says why no record takes it.
    pub fn add(&mut self, series: Series, timestamp: i64, value: Value) -> Result<(), String> {
        let text_bytes = if let Value::Text(text) = &value { text.len() } else { 0 };
        let series_bytes = series.canonical().len() + SERIES_EXTRA_BYTES;
        let alone = RECORD_EXTRA_BYTES + series_bytes + POINT_BYTES + text_bytes;
        if alone > BATCH_BYTES_MAX {
            return Err(format!("takes {alone} bytes, the most for one point is {BATCH_BYTES_MAX}"));
        }
        let known = self.places.contains_key(&series);
        let more = POINT_BYTES + text_bytes + if known { 0 } else { series_bytes };
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

/// Bodies that are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyForm {
    Json,
    MessagePack,
}

impl BodyForm {
    /// By the `Content-Type`, without its parameters.
    pub fn of_content_type(text: &str) -> Option<Self> {
        let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/json" => Some(Self::Json),
            "application/msgpack" | "application/vnd.msgpack" | "application/x-msgpack" => {
                Some(Self::MessagePack)
            }
            _ => None,
        }
    }

    /// Reads and checks a whole body.
    pub fn read(self, body: &[u8]) -> Result<Posted, ApiError> {
        let (at, mut sorter) = (Cell::new(None), Sorter::default());
        let seed = Document { at: &at, sorter: &mut sorter };
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
            (Err(reason), None) => Err(ApiError::new(ErrorCode::BadBody, reason)),
            (Err(reason), index @ Some(i)) => {
                let message = format!("points[{i}]: {reason}");
                Err(ApiError { code: ErrorCode::BadPoint, message, index })
            }
        }
    }
}

/// `{"points": […]}`, sorted point by point while it is read. `at` holds the index of the point under way.
struct Document<'a> {
    at: &'a Cell<Option<usize>>,
    sorter: &'a mut Sorter,
}

impl<'de> DeserializeSeed<'de> for Document<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Document<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the field `points`")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut seen = false;
        while let Some(key) = map.next_key::<String>()? {
            if key != "points" {
                return Err(A::Error::unknown_field(&key, &["points"]));
            }
            if std::mem::replace(&mut seen, true) {
                return Err(A::Error::duplicate_field("points"));
            }
            map.next_value_seed(Points(&mut self))?;
        }
        if seen { Ok(()) } else { Err(A::Error::missing_field("points")) }
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
        let Document { at, sorter } = self.0;
        loop {
            at.set(Some(sorter.points));
            match seq.next_element_seed(Point)? {
                Some(point) => {
                    let (series, timestamp, value) = point.into_point().map_err(A::Error::custom)?;
                    sorter.add(series, timestamp, value).map_err(A::Error::custom)?;
                }
                None => break,
            }
        }
        at.set(None);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer::{Answer, AnswerForm};
    use super::*;
    use proptest::prelude::*;

    fn json(text: &str) -> Result<Posted, ApiError> {
        BodyForm::Json.read(text.as_bytes())
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
        assert_eq!(BodyForm::MessagePack.read(&[0xc1]).unwrap_err().code, ErrorCode::BadBody);
        let trailing =
            [&rmp_serde::to_vec_named(&serde_json::json!({"points": []})).unwrap()[..], &[0]].concat();
        assert_eq!(BodyForm::MessagePack.read(&trailing).unwrap_err().code, ErrorCode::BadBody);
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
            prop_assert_eq!(points(&BodyForm::MessagePack.read(&packed).unwrap()), expected);
        }

        #[test]
        fn arbitrary_bodies_never_panic(
            noise in prop::collection::vec(any::<u8>(), 0..80), text in "[{}\\[\\]:,\"a-z0-9.e-]{0,60}",
        ) {
            drop(BodyForm::Json.read(&noise));
            drop(BodyForm::MessagePack.read(&noise));
            drop(json(&text));
            drop(json(&format!("{{\"points\":[{text}]}}")));
        }
    }
}
