//! Points as a stream of MessagePack maps, each a chunk of one series.
//!
//! ```text
//! { "metric": text, "labels": { name: text }, "timestamps_ns": [ i64 ], "values": [ f64 | i64 | bool | text ] }
//! ```
//! Maps stand one behind the other without anything between. As many times as values stand in each, at most [`CHUNK_POINTS_MAX`], and a
//! series with more has several chunks, in order of time. A float is always a float 64 and an integer an integer, so nothing has to be
//! said of types; NaN and the infinities are themselves.

use std::io;

use rmp::encode;
use tidelog_record::{Series, Value};

/// Points of one chunk.
const CHUNK_POINTS_MAX: u32 = 1_024;

/// Bytes of values after which a chunk ends.
const CHUNK_BYTES_MAX: usize = 64 * 1024;

/// Chunks being written.
#[derive(Debug, Default)]
pub(in crate::http) struct Chunks {
    /// The series whose points come, and how a chunk of it begins.
    open: Option<(Series, Vec<u8>)>,
    count: u32,
    times: Vec<u8>,
    values: Vec<u8>,
    /// Chunks that are whole.
    pub bytes: Vec<u8>,
}

impl Chunks {
    /// What comes next is of this series.
    pub fn open(&mut self, series: &Series) -> io::Result<()> {
        if self.open.as_ref().is_some_and(|(open, _)| open == series) {
            return Ok(());
        }
        self.close()?;
        let mut head = Vec::new();
        encode::write_map_len(&mut head, 4)?;
        encode::write_str(&mut head, "metric")?;
        encode::write_str(&mut head, series.metric())?;
        encode::write_str(&mut head, "labels")?;
        encode::write_map_len(&mut head, length(series.labels().count())?)?;
        for (name, value) in series.labels() {
            encode::write_str(&mut head, name)?;
            encode::write_str(&mut head, value)?;
        }
        self.open = Some((series.clone(), head));
        Ok(())
    }

    /// Adds a point; whether a chunk became whole by it.
    pub fn add(&mut self, at: i64, value: &Value) -> io::Result<bool> {
        encode::write_sint(&mut self.times, at)?;
        match value {
            Value::F64(value) => encode::write_f64(&mut self.values, *value)?,
            Value::I64(value) => {
                encode::write_sint(&mut self.values, *value)?;
            }
            Value::Bool(value) => encode::write_bool(&mut self.values, *value)?,
            Value::Text(value) => encode::write_str(&mut self.values, value)?,
        }
        self.count += 1;
        if self.count < CHUNK_POINTS_MAX && self.values.len() < CHUNK_BYTES_MAX {
            return Ok(false);
        }
        self.close()?;
        Ok(true)
    }

    fn close(&mut self) -> io::Result<()> {
        let Some((_, head)) = self.open.as_ref().filter(|_| self.count > 0) else { return Ok(()) };
        self.bytes.extend_from_slice(head);
        for (name, column) in [("timestamps_ns", &mut self.times), ("values", &mut self.values)] {
            encode::write_str(&mut self.bytes, name)?;
            encode::write_array_len(&mut self.bytes, self.count)?;
            self.bytes.append(column);
        }
        self.count = 0;
        Ok(())
    }

    /// What is left to send.
    pub fn end(mut self) -> io::Result<Vec<u8>> {
        self.close()?;
        Ok(self.bytes)
    }
}

fn length(count: usize) -> io::Result<u32> {
    u32::try_from(count).map_err(|_| io::Error::other("more labels than a map may have"))
}

#[cfg(test)]
mod tests {
    use super::super::{Sheet, SheetForm};
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Debug, Deserialize)]
    struct Chunk {
        metric: String,
        labels: BTreeMap<String, String>,
        timestamps_ns: Vec<i64>,
        values: Vec<Read>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(untagged)]
    enum Read {
        Bool(bool),
        I64(i64),
        F64(f64),
        Text(String),
    }

    /// A value and its type, NaN by its bits.
    fn shown(value: &Value) -> String {
        match value {
            Value::F64(value) => format!("f64 {:x}", value.to_bits()),
            other => format!("{other:?}"),
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<f64>().prop_map(Value::F64),
            Just(Value::F64(21.0)),
            Just(Value::F64(f64::NAN)),
            any::<i64>().prop_map(Value::I64),
            any::<bool>().prop_map(Value::Bool),
            "\\PC{0,40}".prop_map(Value::Text),
        ]
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written_however_the_points_came(
            series in prop::collection::btree_map("[a-c]", prop::collection::vec((any::<i64>(), any_value()), 1..40), 0..4),
            parts in 1..9usize, bytes_max in 1..400usize,
        ) {
            let write = |parts: usize, bytes_max: usize| {
                let mut sheet = Sheet::begin(SheetForm::MessagePack, &"s".parse().unwrap()).unwrap();
                let mut out = Vec::new();
                for (name, points) in &series {
                    let of = Series::new("m", [("name", name)]).unwrap();
                    for part in points.chunks(parts) {
                        let keep = |bytes: Vec<u8>| { out.extend(bytes); Ok(()) };
                        sheet.series(&of, part.iter().cloned(), bytes_max, keep).unwrap();
                    }
                }
                out.extend(sheet.end().unwrap());
                out
            };
            let bytes = write(parts, bytes_max);
            prop_assert_eq!(&bytes, &write(usize::MAX, usize::MAX), "how it came is not seen");
            let (mut rest, mut found) = (bytes.as_slice(), Vec::new());
            while !rest.is_empty() {
                let chunk: Chunk = rmp_serde::from_read(&mut rest).unwrap();
                prop_assert_eq!((chunk.metric.as_str(), chunk.labels.len()), ("m", 1));
                prop_assert_eq!(chunk.timestamps_ns.len(), chunk.values.len());
                for (at, value) in chunk.timestamps_ns.iter().zip(chunk.values) {
                    let value = match value {
                        Read::Bool(value) => Value::Bool(value),
                        Read::I64(value) => Value::I64(value),
                        Read::F64(value) => Value::F64(value),
                        Read::Text(value) => Value::Text(value),
                    };
                    found.push((chunk.labels["name"].clone(), *at, shown(&value)));
                }
            }
            let all = series.iter().flat_map(|(name, points)| points.iter().map(move |(at, value)| (name.clone(), *at, shown(value))));
            prop_assert_eq!(found, all.collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_chunk_is_bounded_in_points_and_in_bytes() {
        let series = Series::new("m", [("a", "b")]).unwrap();
        let mut chunks = Chunks::default();
        chunks.open(&series).unwrap();
        for at in 1..i64::from(CHUNK_POINTS_MAX) {
            assert!(!chunks.add(at, &Value::Bool(true)).unwrap());
        }
        assert!(chunks.add(0, &Value::Bool(true)).unwrap());
        assert!(chunks.add(0, &Value::Text("x".repeat(CHUNK_BYTES_MAX))).unwrap());
        assert!(Chunks::default().end().unwrap().is_empty(), "no points, no chunk");
    }
}
