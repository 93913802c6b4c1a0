//! Writes a body entry by entry, in its one canonical spelling.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

use super::{
    BATCH_BYTES_MAX, BATCH_NAME_BYTES_MAX, BATCH_POINTS_MAX, BatchError, BodyHead, LABELS_SAME, LAYOUT_BOOL,
    LAYOUT_F64, LAYOUT_I64, LAYOUT_MIXED, LAYOUT_TEXT, METRIC_FORETOLD, MIXED_BOOL, MIXED_F64, MIXED_I64,
    MIXED_TEXT, STEPS_PACKED, TIMES_SAME, UNITS_NS,
};
use crate::column::{Column, Values};
use crate::decimal::{DECIMAL_DIGITS_MAX, DECIMAL_LIMIT, decimals_of, fewest_digits};
use crate::point::Value;
use crate::varint::{Malformed, Reader, put_bytes, put_i64, put_u64, zigzag};

/// Steps below this, as zigzag, are packed two to a byte.
const PACKED_BELOW: u64 = 16;

/// Room for what stands before the entries, in bytes.
const HEAD_BYTES: usize = 64;

/// A metric that stands in the body.
#[derive(Debug)]
struct Metric {
    name: Vec<u8>,
    /// The metric that came after this one the last time.
    next: usize,
    /// Digits behind the point that its numbers had the last time: only a guess.
    digits: u8,
}

/// Writes a body.
#[derive(Debug)]
pub struct BodyWriter {
    out: Vec<u8>,
    /// Entries that were announced and have not come.
    left: usize,
    metrics: Vec<Metric>,
    numbers: BTreeMap<Vec<u8>, usize>,
    last_metric: Option<usize>,
    labels: Vec<u8>,
    times: TimesWriter,
    scaled: Vec<i64>,
    points: usize,
    name_bytes: usize,
}

/// The times of a body's entries as they are written, each told from those before.
#[derive(Debug, Default)]
pub(super) struct TimesWriter {
    times: Vec<i64>,
    first_time: i64,
    step: i64,
    /// Of the entry under way.
    changes: Vec<i64>,
}

impl BodyWriter {
    /// Begins a body of `entries` entries.
    #[must_use]
    pub fn new(head: BodyHead, entries: usize) -> Self {
        Self::with_capacity(head, entries, entries.saturating_mul(16))
    }

    /// Begins a body of `entries` entries that will take about `bytes`; more than the most is not believed.
    #[must_use]
    pub fn with_capacity(head: BodyHead, entries: usize, bytes: usize) -> Self {
        let mut out = Vec::with_capacity(bytes.min(BATCH_BYTES_MAX) + HEAD_BYTES);
        head.put(&mut out);
        put_u64(&mut out, entries as u64);
        Self {
            out,
            left: entries,
            metrics: Vec::new(),
            numbers: BTreeMap::new(),
            last_metric: None,
            labels: Vec::new(),
            times: TimesWriter::default(),
            scaled: Vec::new(),
            points: 0,
            name_bytes: 0,
        }
    }

    /// Writes the next entry. `canonical` is trusted to be [`Series::canonical`](crate::Series::canonical) bytes.
    ///
    /// # Errors
    /// [`BatchError::TooLong`], [`BatchError::TooManyPoints`] and [`BatchError::NamesTooLong`] past the bounds;
    /// [`BatchError::Malformed`] for more entries than announced, as many times as values do not make, or a name without a metric.
    /// What is written then is of no use.
    pub fn entry<'v>(
        &mut self,
        canonical: &[u8],
        times: &[i64],
        values: impl Into<Column<'v>>,
    ) -> Result<(), BatchError> {
        let values = values.into();
        self.left = self.left.checked_sub(1).ok_or(BatchError::Malformed)?;
        self.points += times.len();
        self.name_bytes += canonical.len();
        if values.len() != times.len() {
            return Err(BatchError::Malformed);
        }
        if self.points > BATCH_POINTS_MAX {
            return Err(BatchError::TooManyPoints { points: self.points });
        }
        if self.name_bytes > BATCH_NAME_BYTES_MAX {
            return Err(BatchError::NamesTooLong { bytes: self.name_bytes });
        }
        // What the flags are is known part by part.
        let at = self.out.len();
        self.out.push(0);
        let metric = self.put_name(canonical)?;
        let flags = metric.flags | self.times.put(&mut self.out, times);
        let values = self.put_values(metric.number, values)?;
        if let Some(head) = self.out.get_mut(at) {
            *head = flags | values;
        }
        if self.out.len() > BATCH_BYTES_MAX {
            return Err(BatchError::TooLong { bytes: self.out.len() });
        }
        Ok(())
    }

    /// The body.
    ///
    /// # Errors
    /// [`BatchError::Malformed`] when fewer entries came than were announced; [`BatchError::TooLong`].
    pub fn finish(self) -> Result<Vec<u8>, BatchError> {
        match self {
            Self { left: 1.., .. } => Err(BatchError::Malformed),
            Self { out, .. } if out.len() > BATCH_BYTES_MAX => Err(BatchError::TooLong { bytes: out.len() }),
            Self { out, .. } => Ok(out),
        }
    }

    fn put_name(&mut self, canonical: &[u8]) -> Result<Named, Malformed> {
        let mut reader = Reader(canonical);
        let name = reader.bytes()?;
        let labels = reader.0;
        let last = self.last_metric.and_then(|last| self.metrics.get(last));
        let foretold = last.map(|last| last.next);
        let is_foretold =
            foretold.and_then(|number| self.metrics.get(number)).is_some_and(|metric| metric.name == name);
        let (number, mut flags) = match foretold {
            Some(number) if is_foretold => (number, METRIC_FORETOLD),
            _ => (self.put_metric(name), 0),
        };
        if let Some(last) = self.last_metric.and_then(|last| self.metrics.get_mut(last)) {
            last.next = number;
        }
        self.last_metric = Some(number);
        if self.labels == labels {
            flags |= LABELS_SAME;
        } else {
            self.put_labels(labels);
        }
        Ok(Named { number, flags })
    }

    fn put_metric(&mut self, name: &[u8]) -> usize {
        if let Some(number) = self.numbers.get(name) {
            put_u64(&mut self.out, *number as u64);
            return *number;
        }
        let number = self.metrics.len();
        self.metrics.push(Metric { name: name.to_vec(), next: number, digits: 0 });
        self.numbers.insert(name.to_vec(), number);
        put_u64(&mut self.out, number as u64);
        put_bytes(&mut self.out, name);
        number
    }

    fn put_labels(&mut self, labels: &[u8]) {
        let front = alike(self.labels.iter(), labels.iter());
        let before = self.labels.get(front..).unwrap_or_default();
        let now = labels.get(front..).unwrap_or_default();
        let end = alike(before.iter().rev(), now.iter().rev());
        put_u64(&mut self.out, front as u64);
        put_u64(&mut self.out, end as u64);
        put_bytes(&mut self.out, now.get(..now.len() - end).unwrap_or_default());
        self.labels.truncate(front);
        self.labels.extend_from_slice(now);
    }

    fn put_values(&mut self, metric: usize, values: Column<'_>) -> Result<u8, BatchError> {
        if values.is_empty() {
            return Ok(0);
        }
        Ok(match values {
            Column::F64(all) => {
                let mut guess = 0;
                let guessed = self.metrics.get_mut(metric).map_or(&mut guess, |metric| &mut metric.digits);
                if let Some(digits) = decimals_of(all, *guessed, &mut self.scaled) {
                    *guessed = digits;
                    return Ok(digits | put_steps(&mut self.out, &self.scaled));
                }
                for value in all {
                    self.out.extend_from_slice(&value.to_bits().to_le_bytes());
                }
                LAYOUT_F64
            }
            Column::Decimal { digits, scaled } => {
                let good = |number: &i64| *number > -DECIMAL_LIMIT && *number < DECIMAL_LIMIT;
                if digits > DECIMAL_DIGITS_MAX || !scaled.iter().all(good) {
                    return Err(BatchError::Malformed);
                }
                if digits == 0 || scaled.iter().any(|number| number % 10 != 0) {
                    return Ok(digits | put_steps(&mut self.out, scaled));
                }
                self.scaled.clear();
                self.scaled.extend_from_slice(scaled);
                let digits = fewest_digits(digits, &mut self.scaled);
                digits | put_steps(&mut self.out, &self.scaled)
            }
            Column::I64(all) => LAYOUT_I64 | put_steps(&mut self.out, all),
            Column::Bool(all) => {
                self.out.extend(
                    all.chunks(8)
                        .map(|bits| bits.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit))),
                );
                LAYOUT_BOOL
            }
            Column::Text(all) => {
                all.iter().for_each(|text: &String| put_bytes(&mut self.out, text.as_bytes()));
                LAYOUT_TEXT
            }
            Column::Mixed(all) if of_one_kind(all) => {
                let mut values = Values::default();
                all.iter().for_each(|value| values.push(value.clone()));
                return self.put_values(metric, Column::from(&values));
            }
            Column::Mixed(all) => {
                all.iter().for_each(|value| put_value(&mut self.out, value));
                LAYOUT_MIXED
            }
        })
    }
}

impl TimesWriter {
    /// Writes an entry's times; what its head says of them.
    pub fn put(&mut self, out: &mut Vec<u8>, times: &[i64]) -> u8 {
        if self.times == times {
            return TIMES_SAME;
        }
        self.times.clear();
        self.times.extend_from_slice(times);
        let count = (times.len() as u64) << 2;
        let Some(first) = times.first() else {
            put_u64(out, count);
            return 0;
        };
        self.changes.clear();
        self.changes.push(first.wrapping_sub(self.first_time));
        self.first_time = *first;
        let mut before = *first;
        for time in times.iter().skip(1) {
            let step = time.wrapping_sub(before);
            self.changes.push(step.wrapping_sub(self.step));
            (self.step, before) = (step, *time);
        }
        let (code, unit) = unit_of(&self.changes);
        put_u64(out, count | code);
        for change in &self.changes {
            put_i64(out, if *change == 0 { 0 } else { change / unit });
        }
        0
    }
}

/// The metric of an entry, and what its head says of its name.
struct Named {
    number: usize,
    flags: u8,
}

/// How many of the first items are the same.
pub(super) fn alike<'i>(a: impl Iterator<Item = &'i u8>, b: impl Iterator<Item = &'i u8>) -> usize {
    a.zip(b).take_while(|(a, b)| a == b).count()
}

/// The greatest unit that divides all, and its code.
fn unit_of(changes: &[i64]) -> (u64, i64) {
    let [ns, us, ms, s] = UNITS_NS;
    for (code, unit) in [(3, s), (2, ms), (1, us)] {
        if changes.iter().all(|change| *change == 0 || change % unit == 0) {
            return (code, unit);
        }
    }
    (0, ns)
}

/// Writes the first number and the steps from one to the next; says whether these are packed.
pub(super) fn put_steps(out: &mut Vec<u8>, numbers: &[i64]) -> u8 {
    let Some((first, rest)) = numbers.split_first() else { return 0 };
    put_i64(out, *first);
    let at = out.len();
    let mut before = *first;
    for pair in rest.chunks(2) {
        let (mut byte, mut shift) = (0_u8, 0);
        for number in pair {
            let raw = zigzag(number.wrapping_sub(before));
            before = *number;
            if raw >= PACKED_BELOW {
                out.truncate(at);
                put_steps_singly(out, *first, rest);
                return 0;
            }
            let [low, ..] = raw.to_le_bytes();
            byte |= low << shift;
            shift += 4;
        }
        out.push(byte);
    }
    if rest.is_empty() { 0 } else { STEPS_PACKED }
}

fn put_steps_singly(out: &mut Vec<u8>, mut before: i64, rest: &[i64]) {
    for number in rest {
        put_i64(out, number.wrapping_sub(before));
        before = *number;
    }
}

fn of_one_kind(values: &[Value]) -> bool {
    let kind = values.first().map(mem::discriminant);
    values.iter().all(|value| Some(mem::discriminant(value)) == kind)
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::F64(value) => {
            out.push(MIXED_F64);
            out.extend_from_slice(&value.to_bits().to_le_bytes());
        }
        Value::I64(value) => {
            out.push(MIXED_I64);
            put_i64(out, *value);
        }
        Value::Bool(value) => out.extend_from_slice(&[MIXED_BOOL, u8::from(*value)]),
        Value::Text(value) => {
            out.push(MIXED_TEXT);
            put_bytes(out, value.as_bytes());
        }
    }
}
