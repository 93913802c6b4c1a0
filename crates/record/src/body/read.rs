//! Reads a body entry by entry, into buffers that are used again. Structure, bounds and names are checked as they are met: labels once for
//! each time they change, metrics once for each that is new, so an entry that repeats both costs no look at its name.

use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

use super::{
    BATCH_BYTES_MAX, BATCH_NAME_BYTES_MAX, BATCH_POINTS_MAX, BatchError, BodyHead, Entry, KIND_POINTS,
    KIND_RELAYED, LABELS_SAME, LAYOUT_BITS, LAYOUT_BOOL, LAYOUT_DECIMAL_LAST, LAYOUT_F64, LAYOUT_I64,
    LAYOUT_MIXED, LAYOUT_TEXT, METRIC_FORETOLD, MIXED_BOOL, MIXED_F64, MIXED_I64, MIXED_TEXT, Origin, Relay,
    STEPS_PACKED, TIMES_SAME, UNITS_NS,
};
use crate::column::Values;
use crate::decimal::{DECIMAL_LIMIT, decimal_value};
use crate::point::Value;
use crate::series::{SERIES_BYTES_MAX, SeriesError, check_labels, check_metric};
use crate::varint::{Malformed, Reader, put_bytes, unzigzag};

/// Room for labels as they commonly are, taken when a body is opened, in bytes.
const LABEL_BYTES_COMMON: usize = 128;

/// A body that was opened.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "matched at once where it is made, and kept by nobody")]
pub enum Opened<'a> {
    /// Points, to be read entry by entry.
    Points(BodyReader<'a>),
    /// No points: a [`Seal`](crate::Seal), or something that a newer version wrote. Its kind byte.
    Unknown(u8),
}

/// A metric that stands in the body.
#[derive(Debug)]
struct Metric<'a> {
    name: &'a [u8],
    /// The metric that came after this one the last time.
    next: usize,
}

/// Walks through a body.
#[derive(Debug)]
pub struct BodyReader<'a> {
    rest: Reader<'a>,
    head: BodyHead,
    entries: usize,
    left: usize,
    metrics: Vec<Metric<'a>>,
    last_metric: Option<usize>,
    labels: Vec<u8>,
    labels_spare: Vec<u8>,
    labels_met: bool,
    times: TimesReader,
    points: usize,
    name_bytes: usize,
    leaves_decimals: bool,
    spare: Spare,
}

/// What the next entry's times count from.
#[derive(Debug, Default)]
pub(super) struct TimesReader {
    first_time: i64,
    step: i64,
}

/// Columns that the entry has no use for now, so that a change of kind allocates nothing.
#[derive(Debug, Default)]
struct Spare {
    numbers: Vec<f64>,
    integers: Vec<i64>,
    truths: Vec<bool>,
    texts: Vec<String>,
    mixed: Vec<Value>,
}

impl<'a> BodyReader<'a> {
    /// Reads what stands before the entries.
    ///
    /// # Errors
    /// [`BatchError`] when the kind is known and the beginning is not what it should be.
    pub fn open(bytes: &'a [u8]) -> Result<Opened<'a>, BatchError> {
        if bytes.len() > BATCH_BYTES_MAX {
            return Err(BatchError::TooLong { bytes: bytes.len() });
        }
        let mut rest = Reader(bytes);
        let kind = rest.u8()?;
        if kind != KIND_POINTS && kind != KIND_RELAYED {
            return Ok(Opened::Unknown(kind));
        }
        let head = BodyHead::take(kind, &mut rest)?;
        let entries = rest.count(1)?;
        Ok(Opened::Points(Self {
            rest,
            head,
            entries,
            left: entries,
            metrics: Vec::new(),
            last_metric: None,
            labels: Vec::with_capacity(LABEL_BYTES_COMMON),
            labels_spare: Vec::new(),
            labels_met: false,
            times: TimesReader::default(),
            points: 0,
            name_bytes: 0,
            leaves_decimals: false,
            spare: Spare::default(),
        }))
    }

    /// Decimals are left as the numbers that they are in the body, in [`Entry::scaled`] in place of [`Entry::values`].
    pub fn leave_decimals(&mut self) {
        self.leaves_decimals = true;
    }

    /// The author's clock when the body was written, Unix milliseconds.
    #[must_use]
    pub fn authored_ms(&self) -> i64 {
        self.head.authored_ms
    }

    /// The sensor's batch, if a sensor sent it.
    #[must_use]
    pub fn origin(&self) -> Option<Origin> {
        self.head.origin
    }

    /// The record that this one was copied from, if it was.
    #[must_use]
    pub fn relay(&self) -> Option<Relay> {
        self.head.relay
    }

    /// All that stands before the entries.
    #[must_use]
    pub fn head(&self) -> BodyHead {
        self.head
    }

    /// How many entries the body has; as many as its bytes could hold at most.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Reads the next entry into `entry`, which is the same one each time; `false` at the end, where nothing may trail.
    ///
    /// # Errors
    /// [`BatchError`] when the bytes are not what they should be. What `entry` holds then is of no use.
    pub fn next(&mut self, entry: &mut Entry) -> Result<bool, BatchError> {
        if self.left == 0 {
            self.rest.end()?;
            return Ok(false);
        }
        if self.left == self.entries {
            entry.times.clear();
        }
        self.left -= 1;
        let head = self.rest.u8()?;
        self.take_name(head, &mut entry.canonical)?;
        entry.same_times = head & TIMES_SAME != 0;
        if !entry.same_times {
            self.times.take(&mut self.rest, &mut entry.times)?;
        }
        let count = entry.times.len();
        self.points += count;
        if self.points > BATCH_POINTS_MAX {
            return Err(BatchError::TooManyPoints { points: self.points });
        }
        self.take_values(head, count, entry)?;
        Ok(true)
    }

    fn take_name(&mut self, head: u8, canonical: &mut Vec<u8>) -> Result<(), BatchError> {
        let number = if head & METRIC_FORETOLD != 0 {
            self.last_metric.and_then(|last| Some(self.metrics.get(last)?.next)).ok_or(Malformed)?
        } else {
            let number = usize::try_from(self.rest.u64()?).map_err(|_| Malformed)?;
            if number == self.metrics.len() {
                let name = self.rest.bytes()?;
                check_metric(name)?;
                self.metrics.push(Metric { name, next: number });
            }
            number
        };
        let name = self.metrics.get(number).ok_or(Malformed)?.name;
        if let Some(last) = self.last_metric.and_then(|last| self.metrics.get_mut(last)) {
            last.next = number;
        }
        self.last_metric = Some(number);
        if head & LABELS_SAME == 0 {
            self.take_labels()?;
        } else if !self.labels_met {
            return Err(BatchError::Malformed);
        }
        canonical.clear();
        put_bytes(canonical, name);
        canonical.extend_from_slice(&self.labels);
        if canonical.len() > SERIES_BYTES_MAX {
            return Err(SeriesError::TooLong { bytes: canonical.len() }.into());
        }
        self.name_bytes += canonical.len();
        if self.name_bytes > BATCH_NAME_BYTES_MAX {
            return Err(BatchError::NamesTooLong { bytes: self.name_bytes });
        }
        Ok(())
    }

    fn take_labels(&mut self) -> Result<(), BatchError> {
        let length = |number: u64| usize::try_from(number).map_err(|_| Malformed);
        let (front, end) = (length(self.rest.u64()?)?, length(self.rest.u64()?)?);
        let between = self.rest.bytes()?;
        let kept =
            self.labels.len().checked_sub(front).and_then(|left| left.checked_sub(end)).ok_or(Malformed)?;
        if front.saturating_add(between.len()).saturating_add(end) > SERIES_BYTES_MAX {
            return Err(SeriesError::TooLong { bytes: front + between.len() + end }.into());
        }
        if kept == between.len() {
            // The most common case: one device after another, with names of one length.
            self.labels.get_mut(front..front + kept).ok_or(Malformed)?.copy_from_slice(between);
        } else {
            self.labels_spare.clear();
            self.labels_spare.extend_from_slice(self.labels.get(..front).ok_or(Malformed)?);
            self.labels_spare.extend_from_slice(between);
            self.labels_spare.extend_from_slice(self.labels.get(front + kept..).ok_or(Malformed)?);
            mem::swap(&mut self.labels, &mut self.labels_spare);
        }
        check_labels(&self.labels)?;
        self.labels_met = true;
        Ok(())
    }

    fn take_values(&mut self, head: u8, count: usize, entry: &mut Entry) -> Result<(), Malformed> {
        let (layout, packed) = (head & LAYOUT_BITS, head & STEPS_PACKED != 0);
        if packed && layout > LAYOUT_DECIMAL_LAST && layout != LAYOUT_I64 {
            return Err(Malformed);
        }
        let (rest, spare) = (&mut self.rest, &mut self.spare);
        let Entry { values, digits, scaled, .. } = entry;
        *digits = None;
        if self.leaves_decimals && layout <= LAYOUT_DECIMAL_LAST {
            *digits = Some(layout);
            values.clear();
            scaled.clear();
            let mut out_of_range = false;
            take_steps(rest, count, packed, |number| {
                out_of_range |= number >= DECIMAL_LIMIT || number <= -DECIMAL_LIMIT;
                scaled.push(number);
            })?;
            return if out_of_range { Err(Malformed) } else { Ok(()) };
        }
        spare.keep(values);
        *values = match layout {
            digits @ 0..=LAYOUT_DECIMAL_LAST => {
                let mut out = emptied(&mut spare.numbers);
                let mut out_of_range = false;
                take_steps(rest, count, packed, |number| {
                    out_of_range |= number >= DECIMAL_LIMIT || number <= -DECIMAL_LIMIT;
                    out.push(decimal_value(number, digits));
                })?;
                if out_of_range {
                    return Err(Malformed);
                }
                Values::F64(out)
            }
            LAYOUT_F64 => {
                let mut out = emptied(&mut spare.numbers);
                let (eights, _) = rest.take(count.checked_mul(8).ok_or(Malformed)?)?.as_chunks::<8>();
                out.extend(eights.iter().map(|eight| f64::from_bits(u64::from_le_bytes(*eight))));
                Values::F64(out)
            }
            LAYOUT_I64 => {
                let mut out = emptied(&mut spare.integers);
                take_steps(rest, count, packed, |number| out.push(number))?;
                Values::I64(out)
            }
            LAYOUT_BOOL => {
                let mut out = emptied(&mut spare.truths);
                let bytes = rest.take(count.div_ceil(8))?;
                out.extend(bytes.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1)));
                if out.drain(count..).any(|filling| filling) {
                    return Err(Malformed);
                }
                Values::Bool(out)
            }
            LAYOUT_TEXT => {
                let mut out = emptied(&mut spare.texts);
                for _ in 0..count {
                    out.push(String::from(rest.text()?));
                }
                Values::Text(out)
            }
            LAYOUT_MIXED => {
                let mut out = emptied(&mut spare.mixed);
                for _ in 0..count {
                    out.push(take_value(rest)?);
                }
                Values::Mixed(out)
            }
            _ => return Err(Malformed),
        };
        Ok(())
    }
}

impl TimesReader {
    /// Reads the times of an entry that has its own.
    pub fn take(&mut self, rest: &mut Reader<'_>, times: &mut Vec<i64>) -> Result<(), Malformed> {
        let head = rest.u64()?;
        let count = usize::try_from(head >> 2).map_err(|_| Malformed)?;
        // Each takes a byte or more.
        if count > rest.0.len() {
            return Err(Malformed);
        }
        let [ns, us, ms, s] = UNITS_NS;
        let unit = match head & 3 {
            0 => ns,
            1 => us,
            2 => ms,
            _ => s,
        };
        times.clear();
        if count == 0 {
            return Ok(());
        }
        times.reserve(count);
        let mut time = self.first_time.wrapping_add(rest.i64()?.wrapping_mul(unit));
        self.first_time = time;
        times.push(time);
        let mut step = self.step;
        for _ in 1..count {
            step = step.wrapping_add(rest.i64()?.wrapping_mul(unit));
            time = time.wrapping_add(step);
            times.push(time);
        }
        self.step = step;
        Ok(())
    }
}

fn emptied<T>(spare: &mut Vec<T>) -> Vec<T> {
    let mut all = mem::take(spare);
    all.clear();
    all
}

/// Takes a first number and the steps from one to the next.
#[inline]
pub(super) fn take_steps(
    rest: &mut Reader<'_>,
    count: usize,
    packed: bool,
    mut each: impl FnMut(i64),
) -> Result<(), Malformed> {
    if count == 0 {
        return if packed { Err(Malformed) } else { Ok(()) };
    }
    let mut number = rest.i64()?;
    each(number);
    let steps = count - 1;
    if !packed {
        for _ in 0..steps {
            number = number.wrapping_add(rest.i64()?);
            each(number);
        }
        return Ok(());
    }
    let mut left = steps;
    for byte in rest.take(steps.div_ceil(2))? {
        number = number.wrapping_add(unzigzag(u64::from(byte & 0x0f)));
        each(number);
        if left > 1 {
            number = number.wrapping_add(unzigzag(u64::from(byte >> 4)));
            each(number);
        } else if byte >> 4 != 0 {
            return Err(Malformed);
        }
        left = left.saturating_sub(2);
    }
    if steps == 0 { Err(Malformed) } else { Ok(()) }
}

fn take_value(rest: &mut Reader<'_>) -> Result<Value, Malformed> {
    Ok(match rest.u8()? {
        MIXED_F64 => Value::F64(f64::from_bits(u64::from_le_bytes(rest.array()?))),
        MIXED_I64 => Value::I64(rest.i64()?),
        MIXED_BOOL => match rest.u8()? {
            0 => Value::Bool(false),
            1 => Value::Bool(true),
            _ => return Err(Malformed),
        },
        MIXED_TEXT => Value::Text(String::from(rest.text()?)),
        _ => return Err(Malformed),
    })
}

impl Spare {
    /// Takes the entry's column away, to be used again.
    fn keep(&mut self, values: &mut Values) {
        match mem::take(values) {
            Values::F64(all) => self.numbers = all,
            Values::I64(all) => self.integers = all,
            Values::Bool(all) => self.truths = all,
            Values::Text(all) => self.texts = all,
            Values::Mixed(all) => self.mixed = all,
        }
    }
}
