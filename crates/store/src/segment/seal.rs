//! Makes a segment from the bodies of a range of records. Its points are held in memory, packed, one series of them at a time in full;
//! some bytes of each record; and the bodies that cannot be written again.

use std::collections::HashMap;
use std::io;

use tidelog_record::{BodyHead, BodyReader, BodyWriter, ChainHash, Entry, Lsn, Opened, Values};

use super::build::{Builder, Sealed};
use super::bytes::Malformed;
use super::errors::SealError;
use super::key;
use super::records::Kept;
use super::rows::Records;
use super::span::Span;
use crate::packed::{Mark, Packed};

/// Most points that are sealed at once.
pub const SEAL_POINTS_MAX: usize = 1 << 24;

/// Everything of the range, as it arrived.
#[derive(Default)]
struct Arrived {
    series: HashMap<Vec<u8>, u32>,
    names: Vec<Vec<u8>>,
    successor: Vec<u32>,
    before: Option<u32>,
    /// By series.
    packed: Vec<Packed>,
    points: usize,
    records: Records,
    /// Of the record that is taken now: its entries, and where their series' points ended before.
    taken: Vec<(u32, u32, Mark)>,
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
        chain = chain.after(&key, lsn, &body);
        arrived.take(&body, &mut entry)?;
        arrived.records.chain(lsn, chain);
        lsn = Lsn(lsn.0 + 1);
    }
    if lsn.0 != span.last.0 + 1 {
        return Err(SealError::Span("it has fewer records"));
    }
    if chain != span.after {
        return Err(SealError::Span("the records do not hash to its chain"));
    }
    let Arrived { names, mut packed, records, .. } = arrived;
    let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
    build(&mut builder, &names, &records, span.before, &mut |series, times, values| {
        // Each is let go when it is written.
        packed.get_mut(series).map(std::mem::take).unwrap_or_default().unpack(times, values);
    })?;
    builder.finish()
}

/// Makes the segment of `span` from columns: the canonical names of its series, its records, and `unpack`, which is asked for the points of
/// the series at a place among the names, in order of arrival. They are trusted to be those of the span.
pub(crate) fn seal_columns(
    span: &Span,
    names: &[&[u8]],
    records: &Records,
    unpack: &mut dyn FnMut(usize, &mut Vec<i64>, &mut Values),
    out: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<Sealed, SealError> {
    let mut builder = Builder::new(span, out)?;
    build(&mut builder, names, records, span.before, unpack)?;
    builder.finish()
}

impl Arrived {
    fn take(&mut self, body: &[u8], entry: &mut Entry) -> Result<(), SealError> {
        let bytes = u32::try_from(body.len()).map_err(|_| SealError::Span("a body is too long"))?;
        let before = self.points;
        self.taken.clear();
        let points = self.points(body, entry);
        if points.is_none() {
            for (series, _, mark) in self.taken.drain(..).rev() {
                if let Some(packed) = self.packed.get_mut(series as usize) {
                    packed.go_back(&mark);
                }
            }
            self.points = before;
        }
        if self.points > SEAL_POINTS_MAX {
            return Err(SealError::TooMuch { what: "points", most: SEAL_POINTS_MAX as u64 });
        }
        let entries = u32::try_from(self.taken.len()).unwrap_or(u32::MAX);
        self.taken.iter().for_each(|(series, count, _)| self.records.entry(*series, *count));
        let added = match points {
            Some((true, head)) => {
                self.records.points(head, bytes, entries);
                Some(())
            }
            Some((false, head)) => self.records.both(head, body, entries),
            None => self.records.other(body),
        };
        added.ok_or(SealError::Span("a body is too long"))
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
            let count = u32::try_from(entry.times.len()).ok()?;
            let packed = self.packed.get_mut(series as usize)?;
            self.taken.push((series, count, packed.mark()));
            packed.extend(&entry.times, &entry.values, 0..entry.times.len());
            self.points += entry.times.len();
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
            self.packed.push(Packed::default());
            number
        };
        if let Some(slot) = self.before.and_then(|before| self.successor.get_mut(before as usize)) {
            *slot = number;
        }
        self.before = Some(number);
        Some(number)
    }
}

/// Writes series and records, see [`seal_columns`].
fn build(
    builder: &mut Builder<'_>,
    names: &[&[u8]],
    records: &Records,
    before: ChainHash,
    unpack: &mut dyn FnMut(usize, &mut Vec<i64>, &mut Values),
) -> Result<(), SealError> {
    let mut keyed = Vec::with_capacity(names.len());
    for (number, name) in names.iter().enumerate() {
        let mut key = Vec::with_capacity(name.len() + 2);
        key::put_key(&mut key, name).map_err(|_| SealError::Span("a series has no name"))?;
        keyed.push((key, number));
    }
    keyed.sort_unstable();
    let mut ranks = vec![0u32; keyed.len()];
    let mut column = Gathered::default();
    for (key, number) in &keyed {
        column.times.clear();
        column.values.clear();
        unpack(*number, &mut column.times, &mut column.values);
        column.sort(None);
        let rank = builder.series(key, &column.times, &column.values, column.order.as_deref())?;
        if let Some(slot) = ranks.get_mut(*number) {
            *slot = rank;
        }
    }
    builder.series_end()?;
    put_records(builder, records, before, &ranks)
}

fn put_records(
    builder: &mut Builder<'_>,
    records: &Records,
    before: ChainHash,
    ranks: &[u32],
) -> Result<(), SealError> {
    let lost = |Malformed| SealError::Span("what was gathered of a record is lost");
    let mut rows = records.rows.walk();
    let mut entries = records.entries.walk().map_err(lost)?;
    let mut whole = records.whole.as_slice();
    let mut chains = std::iter::once(before).chain(records.chains.iter().copied());
    let mut of_row: Vec<(u32, u32)> = Vec::new();
    while let Some(row) = rows.next().map_err(lost)? {
        let chain = if builder.at_checkpoint() { chains.next() } else { None };
        let length = if row.kept == Kept::AsPoints { 0 } else { row.bytes as usize };
        let (body, rest) = whole.split_at_checked(length).unwrap_or_default();
        whole = rest;
        of_row.clear();
        for _ in 0..row.entries {
            let (series, count) = entries.next().map_err(lost)?;
            of_row.push((ranks.get(series as usize).copied().unwrap_or(0), count));
        }
        builder.record(&row, &mut of_row.iter().copied(), body, chain)?;
    }
    Ok(())
}

/// One series' points in order of time.
#[derive(Default)]
pub(super) struct Gathered {
    pub times: Vec<i64>,
    pub values: Values,
    pub order: Option<Vec<u32>>,
}

impl Gathered {
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
