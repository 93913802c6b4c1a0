//! From lines to records: names become series, and the points of a body are grouped by series into few records.
//!
//! A metric is named `measurement_field`, or `measurement` alone when the field is `value`; tags are labels. Every
//! character that such a name cannot have becomes one `_`, and a digit in front gets one before it. Measurement and tags are looked at
//! once for each way they are written in a record's lines; a line after that costs a look-up for its key and a
//! comparison for each field. A line's points stand in one record: a line is stored whole or not at all.

use std::collections::HashMap;

use tidelog_record::{BATCH_BYTES_MAX, Batch, Series, Value};

use super::parse::{
    FieldValue, Line, LineFault, split_key, unescaped_measurement, unescaped_name, unescaped_text,
};

/// Most that one line's points may take in a record, in bytes.
pub(crate) const LINE_BYTES_MAX: usize = 256 * 1024;

/// A record that has reached this size is closed: one more line still fits.
const RECORD_BYTES_WANTED: usize = BATCH_BYTES_MAX - LINE_BYTES_MAX - RECORD_EXTRA_BYTES;

/// What a record takes beside its series: kind, clock, origin and counts.
const RECORD_EXTRA_BYTES: usize = 64;

/// Most that a series takes beside its canonical form: two lengths of up to ten bytes and a kind.
const SERIES_EXTRA_BYTES: usize = 21;

/// Most that a point takes beside a text: ten bytes of time, ten of value or length, one of kind.
const POINT_BYTES_MAX: usize = 21;

/// Fields of a key that are found by comparing; further ones by hashing.
const FIELDS_COMPARED_MAX: usize = 16;

/// Keys that are remembered together. Good lines close a record long before; this bounds what refused lines leave behind.
const KEYS_MAX: usize = 32 * 1024;

/// A measurement with its tags, and where the points of its fields go.
#[derive(Debug)]
struct Key<'a> {
    measurement: String,
    labels: Vec<(String, String)>,
    /// The first fields, each with the place of its series in the open record.
    fields: Vec<(&'a [u8], usize)>,
}

/// The record under way.
#[derive(Debug, Default)]
pub(crate) struct Gather<'a> {
    numbers: HashMap<&'a [u8], usize>,
    keys: Vec<Key<'a>>,
    /// Places of the fields behind a key's first ones.
    further: HashMap<(usize, &'a [u8]), usize>,
    series: Vec<(Series, Vec<(i64, Value)>)>,
    bytes: usize,
    /// Of the line under way.
    places: Vec<usize>,
    values: Vec<Value>,
}

impl<'a> Gather<'a> {
    /// Takes a line's points in, all or none. A batch comes back when it has reached its size.
    pub fn add(&mut self, line: &Line<'a>, timestamp: i64) -> Result<Option<Batch>, LineFault> {
        let most = line.fields.iter().map(|(field, value)| most_bytes(line.key, field, value)).sum();
        if most > LINE_BYTES_MAX {
            return Err(LineFault::TooLong { bytes: most, most: LINE_BYTES_MAX });
        }
        self.places.clear();
        self.values.clear();
        let number = match self.numbers.get(line.key) {
            Some(number) => *number,
            None => self.new_key(line.key)?,
        };
        for (index, (field, value)) in line.fields.iter().enumerate() {
            let place = match self.place(number, index, field) {
                Some(place) => place,
                None => self.new_series(number, field)?,
            };
            self.places.push(place);
            self.values.push(match value {
                FieldValue::F64(value) => Value::F64(*value),
                FieldValue::I64(value) => Value::I64(*value),
                FieldValue::Bool(value) => Value::Bool(*value),
                FieldValue::Text(raw) => Value::Text(unescaped_text(raw)?.into_owned()),
            });
        }
        // Nothing refuses the line from here.
        for (place, value) in self.places.drain(..).zip(self.values.drain(..)) {
            if let Some((_, points)) = self.series.get_mut(place) {
                self.bytes += point_bytes(&value);
                points.push((timestamp, value));
            }
        }
        Ok(if self.bytes >= RECORD_BYTES_WANTED { self.close() } else { None })
    }

    /// What is left, as the last batch.
    pub fn close(&mut self) -> Option<Batch> {
        self.forget_keys();
        self.bytes = 0;
        let mut series = std::mem::take(&mut self.series);
        // A refused line may have left a series without points.
        series.retain(|(_, points)| !points.is_empty());
        if series.is_empty() { None } else { Some(Batch { series, ..Batch::default() }) }
    }

    /// A series whose key is forgotten may come to stand in the record again, which is allowed.
    fn forget_keys(&mut self) {
        self.numbers.clear();
        self.keys.clear();
        self.further.clear();
    }

    fn place(&self, number: usize, index: usize, field: &[u8]) -> Option<usize> {
        let fields = &self.keys.get(number)?.fields;
        // A client writes the same fields in the same order, mostly.
        if let Some((_, place)) = fields.get(index).filter(|(name, _)| *name == field) {
            return Some(*place);
        }
        let found = fields.iter().find(|(name, _)| *name == field).map(|(_, place)| *place);
        found.or_else(|| self.further.get(&(number, field)).copied())
    }

    fn new_key(&mut self, raw: &'a [u8]) -> Result<usize, LineFault> {
        let (measurement, tags) = split_key(raw)?;
        let measurement = unescaped_measurement(measurement)?.into_owned();
        let mut named = Vec::with_capacity(tags.len());
        for (name, value) in tags {
            let name = unescaped_name(name)?;
            named.push((series_name(&name, false), name, unescaped_name(value)?.into_owned()));
        }
        named.sort_unstable();
        for pair in named.windows(2) {
            if let [(label, tag, _), (other_label, other_tag, _)] = pair
                && label == other_label
            {
                return Err(if tag == other_tag {
                    LineFault::DuplicateTags(tag.clone().into_owned())
                } else {
                    LineFault::SameLabel(
                        tag.clone().into_owned(),
                        other_tag.clone().into_owned(),
                        label.clone(),
                    )
                });
            }
        }
        if self.keys.len() >= KEYS_MAX {
            self.forget_keys();
        }
        let labels = named.into_iter().map(|(label, _, value)| (label, value)).collect();
        let number = self.keys.len();
        self.keys.push(Key { measurement, labels, fields: Vec::new() });
        self.numbers.insert(raw, number);
        Ok(number)
    }

    fn new_series(&mut self, number: usize, field: &'a [u8]) -> Result<usize, LineFault> {
        let Some(key) = self.keys.get_mut(number) else { return Err(LineFault::Measurement) };
        let metric = metric_name(&key.measurement, &unescaped_name(field)?);
        let series =
            Series::new(metric, key.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())))?;
        let place = self.series.len();
        self.bytes += canonical_bytes_max(&series) + SERIES_EXTRA_BYTES;
        self.series.push((series, Vec::new()));
        if key.fields.len() < FIELDS_COMPARED_MAX {
            key.fields.push((field, place));
        } else {
            self.further.insert((number, field), place);
        }
        Ok(place)
    }
}

/// The metric of a measurement's field.
fn metric_name(measurement: &str, field: &str) -> String {
    if field == "value" {
        return series_name(measurement, true);
    }
    series_name(&[measurement, "_", field].concat(), true)
}

/// A name that a metric (with colons) or a label (without) may have.
fn series_name(text: &str, colon: bool) -> String {
    let mut name = String::with_capacity(text.len() + 1);
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        name.push('_');
    }
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colon && c == ':');
    name.extend(text.chars().map(|c| if good(c) { c } else { '_' }));
    name
}

/// Bytes of canonical form, at most: each text has a length of up to three bytes, as texts have less than 2 MiB.
fn canonical_bytes_max(series: &Series) -> usize {
    let labels: usize = series.labels().map(|(name, value)| name.len() + value.len() + 6).sum();
    series.metric().len() + labels + 13
}

/// What a field's point and series take in a record at most, before anything is known of them.
fn most_bytes(key: &[u8], field: &[u8], value: &FieldValue<'_>) -> usize {
    let text = if let FieldValue::Text(raw) = value { raw.len() } else { 0 };
    // A tag has at least four bytes in the key (`,a=b`), and its two lengths take six: three times is more than enough.
    3 * key.len() + field.len() + 16 + SERIES_EXTRA_BYTES + POINT_BYTES_MAX + text
}

/// What a point takes, at most: steps of times and numbers may be as long as they get.
fn point_bytes(value: &Value) -> usize {
    POINT_BYTES_MAX + if let Value::Text(text) = value { text.len() } else { 0 }
}

#[cfg(test)]
#[path = "gather/tests.rs"]
mod tests;
