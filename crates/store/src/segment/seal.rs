//! Makes a segment from the bodies of a range of records. Sixteen bytes a point and sixteen an entry are held in memory, and the bodies
//! that cannot be written again.

use std::collections::HashMap;
use std::io;

use tidelog_record::{BodyHead, BodyReader, BodyWriter, ChainHash, Entry, Lsn, Opened, Value, Values};

use super::build::{Builder, Sealed};
use super::errors::SealError;
use super::key;
use super::records::{Kept, Row};
use super::span::Span;

/// Most points that are sealed at once.
pub const SEAL_POINTS_MAX: usize = 1 << 24;

/// Of which kind the values of an entry are; of texts and mixed ones the bits are places among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Float,
    Whole,
    Truth,
    Other,
}

#[derive(Clone, Copy)]
struct Held {
    series: u32,
    start: u32,
    count: u32,
    sort: Sort,
}

/// Everything of the range, as it arrived.
#[derive(Default)]
struct Arrived {
    series: HashMap<Vec<u8>, u32>,
    names: Vec<Vec<u8>>,
    successor: Vec<u32>,
    before: Option<u32>,
    entries: Vec<Held>,
    times: Vec<i64>,
    bits: Vec<u64>,
    others: Vec<Value>,
    rows: Vec<Row>,
    whole: Vec<u8>,
    chains: Vec<ChainHash>,
}

/// Makes the segment of `span`. `bodies` gives the records' bodies in order of LSN; `out` takes the file front to back.
///
/// The bytes are a function of the span and the bodies alone.
///
/// # Errors
/// [`SealError::Span`] when the bodies are not those of the span: another number, or another chain of hashes.
pub fn seal(
    span: &Span,
    bodies: &mut dyn FnMut() -> Result<Option<Vec<u8>>, SealError>,
    out: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<Sealed, SealError> {
    let mut builder = Builder::new(span, out)?;
    let mut arrived = Arrived::default();
    let (mut chain, mut lsn) = (span.before, span.first);
    let key = span.stream.key();
    let mut entry = Entry::default();
    while let Some(body) = bodies()? {
        if lsn > span.last {
            return Err(SealError::Span("it has more records"));
        }
        if lsn == span.first || lsn.0.is_multiple_of(super::records::CHECKPOINT_RECORDS) {
            arrived.chains.push(chain);
        }
        chain = chain.after(&key, lsn, &body);
        arrived.take(&body, &mut entry)?;
        lsn = Lsn(lsn.0 + 1);
    }
    if lsn.0 != span.last.0 + 1 {
        return Err(SealError::Span("it has fewer records"));
    }
    if chain != span.after {
        return Err(SealError::Span("the records do not hash to its chain"));
    }
    arrived.build(&mut builder)?;
    builder.finish()
}

impl Arrived {
    fn take(&mut self, body: &[u8], entry: &mut Entry) -> Result<(), SealError> {
        let marks = (self.entries.len(), self.times.len(), self.others.len());
        let bytes = u32::try_from(body.len()).map_err(|_| SealError::Span("a body is too long"))?;
        let (kept, head) = match self.points(body, entry) {
            Some((true, head)) => (Kept::AsPoints, head),
            Some((false, head)) => (Kept::Both, head),
            None => {
                self.entries.truncate(marks.0);
                self.times.truncate(marks.1);
                self.bits.truncate(marks.1);
                self.others.truncate(marks.2);
                (Kept::Whole, BodyHead::default())
            }
        };
        if self.times.len() > SEAL_POINTS_MAX {
            return Err(SealError::TooMuch { what: "points", most: SEAL_POINTS_MAX as u64 });
        }
        if kept != Kept::AsPoints {
            self.whole.extend_from_slice(body);
        }
        let entries = u32::try_from(self.entries.len() - marks.0).unwrap_or(u32::MAX);
        self.rows.push(Row { kept, head, bytes, entries });
        Ok(())
    }

    /// Takes a body's points; whether writing them again gives the body. `None` for a body without points that can be read.
    fn points(&mut self, body: &[u8], entry: &mut Entry) -> Option<(bool, BodyHead)> {
        let Ok(Opened::Points(mut reader)) = BodyReader::open(body) else { return None };
        let head = reader.head();
        let mut again = Some(BodyWriter::with_capacity(head, reader.entries(), body.len()));
        while reader.next(entry).ok()? {
            if let Some(writer) = &mut again
                && writer.entry(&entry.canonical, &entry.times, &entry.values).is_err()
            {
                again = None;
            }
            let series = self.series_of(&entry.canonical)?;
            let start = u32::try_from(self.times.len()).ok()?;
            let count = u32::try_from(entry.times.len()).ok()?;
            self.times.extend_from_slice(&entry.times);
            let sort = self.values(&entry.values);
            self.entries.push(Held { series, start, count, sort });
        }
        let same = again.and_then(|writer| writer.finish().ok()).is_some_and(|again| again == body);
        Some((same, head))
    }

    /// The number of a series, by order of arrival. Series come round again in one order, so the next one is mostly known.
    fn series_of(&mut self, canonical: &[u8]) -> Option<u32> {
        let foretold =
            self.before.and_then(|before| self.successor.get(before as usize)).copied().unwrap_or(0);
        let number = if self.names.get(foretold as usize).is_some_and(|name| name == canonical) {
            foretold
        } else if let Some(number) = self.series.get(canonical) {
            *number
        } else {
            // A name without a key would be lost; there is none that the reader lets pass.
            let number = u32::try_from(self.names.len()).ok()?;
            key::put_key(&mut Vec::new(), canonical).ok()?;
            self.series.insert(canonical.to_vec(), number);
            self.names.push(canonical.to_vec());
            self.successor.push(0);
            number
        };
        if let Some(slot) = self.before.and_then(|before| self.successor.get_mut(before as usize)) {
            *slot = number;
        }
        self.before = Some(number);
        Some(number)
    }

    fn values(&mut self, values: &Values) -> Sort {
        match values {
            Values::F64(all) => {
                self.bits.extend(all.iter().map(|value| value.to_bits()));
                Sort::Float
            }
            Values::I64(all) => {
                self.bits.extend(all.iter().map(|value| value.cast_unsigned()));
                Sort::Whole
            }
            Values::Bool(all) => {
                self.bits.extend(all.iter().map(|value| u64::from(*value)));
                Sort::Truth
            }
            Values::Text(_) | Values::Mixed(_) => {
                for index in 0..values.len() {
                    self.bits.push(self.others.len() as u64);
                    self.others.extend(values.get(index));
                }
                Sort::Other
            }
        }
    }

    fn build(mut self, builder: &mut Builder<'_>) -> Result<(), SealError> {
        self.series = HashMap::new();
        let mut keyed = Vec::with_capacity(self.names.len());
        for (number, name) in (0u32..).zip(&self.names) {
            let mut key = Vec::with_capacity(name.len() + 2);
            key::put_key(&mut key, name).map_err(|_| SealError::Span("a series has no name"))?;
            keyed.push((key, number));
        }
        keyed.sort_unstable();
        let by_series = self.entries_by_series();
        let mut ranks = vec![0u32; self.names.len()];
        let mut column = Gathered::default();
        for (key, number) in &keyed {
            let range = by_series.of(*number);
            column.gather(&self, by_series.entries.get(range).unwrap_or_default());
            let rank = builder.series(key, &column.times, &column.values, column.order.as_deref())?;
            if let Some(slot) = ranks.get_mut(*number as usize) {
                *slot = rank;
            }
        }
        builder.series_end()?;
        self.records(builder, &ranks)
    }

    fn entries_by_series(&self) -> BySeries {
        let mut ends = vec![0usize; self.names.len() + 1];
        for entry in &self.entries {
            if let Some(count) = ends.get_mut(entry.series as usize + 1) {
                *count += 1;
            }
        }
        let mut sum = 0;
        for end in &mut ends {
            sum += *end;
            *end = sum;
        }
        let mut next = ends.clone();
        let mut entries = vec![0u32; self.entries.len()];
        for (index, entry) in (0u32..).zip(&self.entries) {
            if let Some(at) = next.get_mut(entry.series as usize) {
                if let Some(slot) = entries.get_mut(*at) {
                    *slot = index;
                }
                *at += 1;
            }
        }
        BySeries { entries, ends }
    }

    fn records(&self, builder: &mut Builder<'_>, ranks: &[u32]) -> Result<(), SealError> {
        let mut entries = self.entries.iter();
        let mut whole = self.whole.as_slice();
        let mut chains = self.chains.iter().copied();
        for row in &self.rows {
            let chain = if builder.at_checkpoint() { chains.next() } else { None };
            let length = if row.kept == Kept::AsPoints { 0 } else { row.bytes as usize };
            let (body, rest) = whole.split_at_checked(length).unwrap_or_default();
            whole = rest;
            let mut of_row = entries
                .by_ref()
                .take(row.entries as usize)
                .map(|entry| (ranks.get(entry.series as usize).copied().unwrap_or(0), entry.count));
            builder.record(row, &mut of_row, body, chain)?;
        }
        Ok(())
    }
}

/// Entries' places, series by series, each in order of arrival.
struct BySeries {
    entries: Vec<u32>,
    ends: Vec<usize>,
}

impl BySeries {
    fn of(&self, series: u32) -> std::ops::Range<usize> {
        let at = |index: usize| self.ends.get(index).copied().unwrap_or(0);
        at(series as usize)..at(series as usize + 1)
    }
}

/// One series' points in order of time.
#[derive(Default)]
pub(super) struct Gathered {
    pub times: Vec<i64>,
    pub values: Values,
    pub order: Option<Vec<u32>>,
}

impl Gathered {
    fn gather(&mut self, arrived: &Arrived, entries: &[u32]) {
        self.times.clear();
        let held = || entries.iter().filter_map(|index| arrived.entries.get(*index as usize));
        let range = |entry: &Held| entry.start as usize..(entry.start + entry.count) as usize;
        held().for_each(|entry| {
            self.times.extend_from_slice(arrived.times.get(range(entry)).unwrap_or_default());
        });
        let bits =
            || held().flat_map(|entry| arrived.bits.get(range(entry)).unwrap_or_default().iter().copied());
        // What an empty entry's values are of does not count.
        let mut sorts = held().filter(|entry| entry.count > 0).map(|entry| entry.sort);
        let sort = sorts.next().unwrap_or(Sort::Float);
        if sorts.any(|other| other != sort) || sort == Sort::Other {
            self.values = Values::default();
            for entry in held() {
                for bits in arrived.bits.get(range(entry)).unwrap_or_default() {
                    self.values.push(match entry.sort {
                        Sort::Float => Value::F64(f64::from_bits(*bits)),
                        Sort::Whole => Value::I64(bits.cast_signed()),
                        Sort::Truth => Value::Bool(*bits != 0),
                        Sort::Other => {
                            let at = usize::try_from(*bits).unwrap_or(usize::MAX);
                            arrived.others.get(at).cloned().unwrap_or(Value::Bool(false))
                        }
                    });
                }
            }
        } else {
            match (sort, &mut self.values) {
                (Sort::Float, Values::F64(all)) => {
                    all.clear();
                    all.extend(bits().map(f64::from_bits));
                }
                (Sort::Float, out) => *out = Values::F64(bits().map(f64::from_bits).collect()),
                (Sort::Whole, Values::I64(all)) => {
                    all.clear();
                    all.extend(bits().map(u64::cast_signed));
                }
                (Sort::Whole, out) => *out = Values::I64(bits().map(u64::cast_signed).collect()),
                (_, out) => *out = Values::Bool(bits().map(|bits| bits != 0).collect()),
            }
        }
        self.sort(None);
    }

    /// Brings points that stand in order of arrival, or nearly in order of time with their arrivals given, in order of time; those
    /// of one time in order of arrival.
    pub fn sort(&mut self, arrivals: Option<Vec<u32>>) {
        let ascending = self.times.iter().skip(1).zip(&self.times).all(|(b, a)| a <= b);
        if ascending {
            self.order = arrivals;
            return;
        }
        let count = u32::try_from(self.times.len()).unwrap_or(u32::MAX);
        let mut places: Vec<u32> = (0..count).collect();
        places.sort_by_key(|place| self.times.get(*place as usize));
        let times = places.iter().filter_map(|place| self.times.get(*place as usize).copied()).collect();
        self.times = times;
        let at = |place: &u32| *place as usize;
        self.values = match &self.values {
            Values::F64(all) => Values::F64(places.iter().filter_map(|p| all.get(at(p)).copied()).collect()),
            Values::I64(all) => Values::I64(places.iter().filter_map(|p| all.get(at(p)).copied()).collect()),
            Values::Bool(all) => {
                Values::Bool(places.iter().filter_map(|p| all.get(at(p)).copied()).collect())
            }
            Values::Text(all) => {
                Values::Text(places.iter().filter_map(|p| all.get(at(p)).cloned()).collect())
            }
            Values::Mixed(all) => {
                Values::Mixed(places.iter().filter_map(|p| all.get(at(p)).cloned()).collect())
            }
        };
        self.order = Some(match arrivals {
            None => places,
            Some(arrivals) => places.iter().filter_map(|p| arrivals.get(at(p)).copied()).collect(),
        });
    }
}
