//! The form of simple devices: who they are, and rows of what they read at one time.
//!
//! ```text
//! {"deviceinfo": {"deviceid": "d1", "fw_ver": "1.2", "batt_lvl": 87},
//!  "tsdata": [{"timestamp": 1795248000000, "temperature": 21.5, "open": true, "note": "x"}, …]}
//! ```
//! The time is in Unix milliseconds. Every member besides it is a point of the metric of this name with the label `device`, and so are
//! firmware and battery, at the time of the newest row. A program that prints 21.0 as 21 has no way to say which it means, so every
//! number is a float; null is nothing. `deviceinfo` stands first, so that no row waits in memory for its name.

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use tidelog_record::{Series, Value};

use super::{Document, PostedValue, ValueType, typed};

/// The label that names the device.
const LABEL: &str = "device";

/// Values in one row.
const VALUES_PER_ROW_MAX: usize = 1_000;

/// Nanoseconds in a unit of a row's timestamp.
const UNIT_NS: i64 = 1_000_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    deviceid: String,
    fw_ver: Option<PostedValue>,
    batt_lvl: Option<PostedValue>,
}

/// Who sends, and what is known of its series.
#[derive(Deserialize)]
#[serde(try_from = "Named")]
pub(super) struct Device {
    id: String,
    /// What it says of itself.
    own: Vec<(&'static str, Value)>,
    newest_ns: Option<i64>,
    series: HashMap<String, Series>,
}

impl TryFrom<Named> for Device {
    type Error = String;

    fn try_from(named: Named) -> Result<Self, String> {
        let Named { deviceid, fw_ver, batt_lvl } = named;
        if deviceid.is_empty() {
            return Err("deviceid is empty".to_owned());
        }
        let mut own = Vec::new();
        for (metric, value) in [("fw_ver", fw_ver), ("batt_lvl", batt_lvl)] {
            if let Some(PostedValue(value)) = value {
                own.push((metric, reading(value).map_err(|error| format!("{metric}: {error}"))?));
            }
        }
        Ok(Self { id: deviceid, own, newest_ns: None, series: HashMap::new() })
    }
}

/// A value as it is kept: whole numbers are floats.
fn reading(value: Value) -> Result<Value, String> {
    let is_whole = matches!(value, Value::I64(_));
    typed(value, is_whole.then_some(ValueType::F64))
}

impl Device {
    fn series(&mut self, metric: &str) -> Result<Series, String> {
        if let Some(series) = self.series.get(metric) {
            return Ok(series.clone());
        }
        let made = Series::new(metric, [(LABEL, self.id.as_str())]);
        let series = made.map_err(|error| format!("{metric:?}: {error}"))?;
        self.series.insert(metric.to_owned(), series.clone());
        Ok(series)
    }

    fn add<E: Error>(&mut self, row: Row, document: &mut Document<'_>) -> Result<(), E> {
        let Row { timestamp_ns, values } = row;
        for (metric, value) in values {
            let series = self.series(&metric).map_err(E::custom)?;
            document.add(series, timestamp_ns, value)?;
        }
        self.newest_ns = self.newest_ns.max(Some(timestamp_ns));
        Ok(())
    }

    /// Adds what the device says of itself.
    pub fn end<E: Error>(mut self, document: &mut Document<'_>) -> Result<(), E> {
        let Some(newest_ns) = self.newest_ns else { return Ok(()) };
        for (metric, value) in std::mem::take(&mut self.own) {
            let series = self.series(metric).map_err(E::custom)?;
            document.add(series, newest_ns, value)?;
        }
        Ok(())
    }
}

/// What was read at one time.
struct Row {
    timestamp_ns: i64,
    values: Vec<(String, Value)>,
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Row;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with timestamp and values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
                let (mut timestamp_ns, mut values) = (None, Vec::new());
                while let Some(key) = map.next_key::<String>()? {
                    if key == "timestamp" {
                        let ms = map.next_value::<i64>()?;
                        let ns = ms.checked_mul(UNIT_NS);
                        let ns =
                            ns.ok_or_else(|| A::Error::custom(format!("timestamp {ms} is out of range")))?;
                        if timestamp_ns.replace(ns).is_some() {
                            return Err(A::Error::duplicate_field("timestamp"));
                        }
                    } else if let Some(PostedValue(value)) = map.next_value::<Option<PostedValue>>()? {
                        if values.len() >= VALUES_PER_ROW_MAX {
                            let message = format!("more than {VALUES_PER_ROW_MAX} values at one time");
                            return Err(A::Error::custom(message));
                        }
                        let value =
                            reading(value).map_err(|error| A::Error::custom(format!("{key:?}: {error}")))?;
                        values.push((key, value));
                    }
                }
                let timestamp_ns = timestamp_ns.ok_or_else(|| A::Error::missing_field("timestamp"))?;
                Ok(Row { timestamp_ns, values })
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// The list of rows.
pub(super) struct Readings<'a, 'b> {
    pub device: &'a mut Device,
    pub document: &'a mut Document<'b>,
}

impl<'de> DeserializeSeed<'de> for Readings<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Readings<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { device, document } = self;
        for index in 0.. {
            document.at.set(Some(("tsdata", index)));
            let Some(row) = seq.next_element::<Row>()? else { break };
            device.add(row, document)?;
        }
        document.at.set(None);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BodyForm, Posted};
    use super::*;
    use crate::http::error::{ApiError, ErrorCode};
    use serde_json::json;
    use std::collections::BTreeMap;

    fn read(text: &str) -> Result<Posted, ApiError> {
        BodyForm::Json.read(text.as_bytes(), 1024 * 1024)
    }

    fn points(posted: &Posted) -> BTreeMap<(String, i64), Value> {
        let all = posted.batches.iter().flat_map(|batch| &batch.series);
        let named = |series: &Series, time: i64| {
            assert_eq!(series.labels().collect::<Vec<_>>(), [("device", "d1")]);
            (series.metric().to_owned(), time)
        };
        all.flat_map(|(s, points)| points.iter().map(move |(t, v)| (named(s, *t), v.clone()))).collect()
    }

    #[test]
    fn each_member_of_a_row_is_a_point_of_the_device_and_so_is_what_it_says_of_itself_at_the_newest_time() {
        let document = json!({
            "deviceinfo": {"deviceid": "d1", "fw_ver": "1.2", "batt_lvl": 87},
            "tsdata": [
                {"t": 21, "timestamp": 9, "open": true},
                {"timestamp": 7, "t": 21.5, "note": "x", "gone": null},
                {"timestamp": 8},
            ],
        });
        let at = |metric: &str, ms: i64, value: Value| ((metric.to_owned(), ms * 1_000_000), value);
        let expected = BTreeMap::from([
            at("t", 9, Value::F64(21.0)),
            at("open", 9, Value::Bool(true)),
            at("t", 7, Value::F64(21.5)),
            at("note", 7, Value::Text("x".into())),
            at("fw_ver", 9, Value::Text("1.2".into())),
            at("batt_lvl", 9, Value::F64(87.0)),
        ]);
        let posted = read(&document.to_string()).unwrap();
        assert_eq!((points(&posted), posted.points), (expected.clone(), 6));
        let packed = rmp_serde::to_vec_named(&document).unwrap();
        assert_eq!(points(&BodyForm::MessagePack.read(&packed, 1024 * 1024).unwrap()), expected);
        let bare = read(r#"{"deviceinfo":{"deviceid":"d1","batt_lvl":1},"tsdata":[]}"#).unwrap();
        assert_eq!(bare.points, 0, "without a row there is no time");
    }

    #[test]
    fn a_bad_row_is_named_by_its_index_and_its_reason() {
        let cases = [
            (r#"{"t":1}"#, "missing field `timestamp`"),
            (r#"{"timestamp":1,"timestamp":1}"#, "duplicate field `timestamp`"),
            (r#"{"timestamp":1.5,"t":1}"#, "expected i64"),
            (r#"{"timestamp":9223372036855,"t":1}"#, "out of range"),
            (r#"{"timestamp":1,"t":[1]}"#, "expected a number"),
            (r#"{"timestamp":1,"t":9007199254740993}"#, "\"t\": value 9007199254740993 is not exactly"),
            (r#"{"timestamp":1,"te mp":1}"#, "bad metric name"),
            ("1", "expected an object"),
            ("[1]", "expected an object"),
        ];
        for (bad, reason) in cases {
            let good = r#"{"timestamp":1,"t":1}"#;
            let text = format!(r#"{{"deviceinfo":{{"deviceid":"d"}},"tsdata":[{good},{bad},{good}]}}"#);
            let error = read(&text).unwrap_err();
            assert_eq!((error.code, error.index), (ErrorCode::BadPoint, Some(1)), "{bad}: {error:?}");
            assert!(error.message.starts_with("tsdata[1]: ") && error.message.contains(reason), "{error:?}");
        }
        let many: BTreeMap<String, i64> = (0..=VALUES_PER_ROW_MAX).map(|n| (format!("m{n}"), 1)).collect();
        let mut row = json!(many);
        row["timestamp"] = json!(1);
        let error = read(&json!({"deviceinfo": {"deviceid": "d"}, "tsdata": [row]}).to_string()).unwrap_err();
        assert!(error.message.contains("more than 1000 values"), "{error:?}");
    }

    #[test]
    fn a_document_that_is_not_wholly_of_one_form_is_refused() {
        let (device, rows) = (r#""deviceinfo":{"deviceid":"d"}"#, r#""tsdata":[]"#);
        for text in [
            format!("{{{device}}}"),
            format!("{{{rows}}}"),
            format!("{{{rows},{device}}}"),
            format!("{{{device},{device},{rows}}}"),
            format!("{{{device},{rows},{rows}}}"),
            format!("{{{device},{rows},\"points\":[]}}"),
            format!("{{\"points\":[],{device},{rows}}}"),
            format!("{{{device},{rows},\"more\":1}}"),
            r#"{"deviceinfo":{"deviceid":""},"tsdata":[]}"#.to_owned(),
            r#"{"deviceinfo":{},"tsdata":[]}"#.to_owned(),
            r#"{"deviceinfo":{"deviceid":"d","rssi":1},"tsdata":[]}"#.to_owned(),
            r#"{"deviceinfo":{"deviceid":"d","batt_lvl":[]},"tsdata":[]}"#.to_owned(),
        ] {
            let error = read(&text).unwrap_err();
            assert_eq!((error.code, error.index), (ErrorCode::BadBody, None), "{text}: {error:?}");
        }
        assert_eq!(read(&format!("{{{device},{rows}}}")).unwrap().points, 0);
    }

    #[test]
    fn points_that_take_much_more_than_their_body_may_are_refused_as_too_large() {
        let name = "n".repeat(200);
        let row = |time: usize| {
            let values = (0..100).map(|n| (format!("{name}{n}"), json!(1)));
            let mut row: serde_json::Map<_, _> = values.collect();
            row.insert("timestamp".to_owned(), json!(time));
            row
        };
        let rows: Vec<_> = (0..30).map(row).collect();
        let text = json!({"deviceinfo": {"deviceid": "d"}, "tsdata": rows}).to_string();
        assert!(read(&text).is_ok());
        let error = BodyForm::Json.read(text.as_bytes(), 10_000).unwrap_err();
        assert_eq!(error.code, ErrorCode::TooLarge, "{error:?}");
    }
}
