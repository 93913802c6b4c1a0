//! The directory: series in canonical order with their sections, in pages that are read and kept one by one. It knows what is known of
//! a section and where its numbers lie, not what they are.

use std::io;

use super::blocks::{BlockWriter, Kind};
use super::bytes::{Cut, Malformed, put_len, put_packed, put_u64, take_packed};
use super::column::{self, Known};
use super::ints::{put_ints, take_ints};
use super::key::KEY_BYTES_MAX;
use super::sequence::Sequence;
use super::stream::Place;

/// Series in a page.
const PAGE_SERIES: usize = 128;
/// Sections after which a page ends.
const PAGE_SECTIONS: usize = 1_024;
/// Most sections of a page: of a series with as many points as one can have, a section for each span of sixty-four, and the page's others.
const PAGE_SECTIONS_MAX: usize = 1 << 20;
/// Streams that sections have their numbers in: numbers, floats, texts.
pub(super) const STREAMS: usize = 3;
const COLUMNS: usize = 10;

/// A section before it is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewSection {
    pub known: Known,
    /// Number of the sequence of its times.
    pub sequence: u32,
    /// How many points, by their different times.
    pub distinct: u32,
    /// How its place follows from the one before.
    pub step: i64,
}

/// Which of the streams a layout's numbers are in.
pub(super) fn stream_of(layout: u8) -> usize {
    match layout {
        column::FLOAT | column::FLOAT_NAN => 1,
        column::TEXT | column::MIXED => 2,
        _ => 0,
    }
}

/// Gathers series and writes full pages.
pub(super) struct DirectoryWriter {
    names: Vec<u8>,
    last_key: Vec<u8>,
    first_key: Vec<u8>,
    counts: Vec<i64>,
    orders: Vec<i64>,
    sections: Vec<NewSection>,
    began: [Place; STREAMS],
    series: u32,
    /// The first series of each page: its number and key.
    pub pages: Vec<(u32, Vec<u8>)>,
}

impl DirectoryWriter {
    pub fn new() -> Self {
        Self {
            names: Vec::new(),
            last_key: Vec::new(),
            first_key: Vec::new(),
            counts: Vec::new(),
            orders: Vec::new(),
            sections: Vec::new(),
            began: [Place::default(); STREAMS],
            series: 0,
            pages: Vec::new(),
        }
    }

    /// Series written so far.
    pub fn series(&self) -> u32 {
        self.series
    }

    /// Begins a series; `ends` are the places where the streams' last runs ended.
    pub fn begin(&mut self, key: &[u8], ends: [Place; STREAMS]) {
        if self.counts.is_empty() {
            self.began = ends;
            self.first_key = key.to_vec();
            self.last_key.clear();
        }
        let shared = self.last_key.iter().zip(key).take_while(|(a, b)| a == b).count();
        let rest = key.get(shared..).unwrap_or_default();
        put_len(&mut self.names, shared);
        put_len(&mut self.names, rest.len());
        self.names.extend_from_slice(rest);
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        self.counts.push(0);
    }

    /// Adds a section to the series.
    pub fn section(&mut self, section: NewSection) {
        if let Some(count) = self.counts.last_mut() {
            *count += 1;
        }
        self.sections.push(section);
    }

    /// Ends the series; `order` is the number of the sequence of its arrivals if they were not in order of time.
    pub fn end(&mut self, out: &mut BlockWriter<'_>, order: Option<u32>) -> io::Result<()> {
        self.orders.push(order.map_or(0, |order| i64::from(order) + 1));
        self.series = self.series.checked_add(1).ok_or_else(|| io::Error::other("too many series"))?;
        if self.counts.len() >= PAGE_SERIES || self.sections.len() >= PAGE_SECTIONS {
            self.finish(out)?;
        }
        Ok(())
    }

    pub fn finish(&mut self, out: &mut BlockWriter<'_>) -> io::Result<()> {
        if self.counts.is_empty() {
            return Ok(());
        }
        out.put(Kind::Directory, &self.page())?;
        let first = self.series - u32::try_from(self.counts.len()).unwrap_or(0);
        self.pages.push((first, std::mem::take(&mut self.first_key)));
        self.names.clear();
        self.counts.clear();
        self.orders.clear();
        self.sections.clear();
        Ok(())
    }

    fn page(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_len(&mut out, self.counts.len());
        put_len(&mut out, self.sections.len());
        self.began.iter().for_each(|place| place.put(&mut out));
        put_packed(&mut out, &self.names);
        put_ints(&mut out, &self.counts);
        put_ints(&mut out, &self.orders);
        let mut columns: [Vec<i64>; COLUMNS] = Default::default();
        let (mut sequence, mut before) = (-1, Before::default());
        for section in &self.sections {
            let known = &section.known;
            let numbers = before.differences(known, section.distinct);
            let next = i64::from(section.sequence);
            let head = [
                next - std::mem::replace(&mut sequence, next) - 1,
                i64::from(known.layout) | i64::from(known.echoes) << ECHOES_BIT,
                section.step,
            ];
            let row = head.into_iter().chain(numbers);
            columns.iter_mut().zip(row).for_each(|(column, number)| column.push(number));
        }
        columns.iter().for_each(|column| put_ints(&mut out, column));
        out
    }
}

/// What a section's numbers are told from: they are near to the section's before, and to each other.
#[derive(Default)]
struct Before {
    layout: u8,
    last: i64,
}

const LOW_BITS: u32 = 64;
/// Above the layout, in its column.
const ECHOES_BIT: u32 = 4;

impl Before {
    fn base(&mut self, layout: u8, last: i64) -> i64 {
        let base = if self.layout == layout { self.last } else { 0 };
        (self.layout, self.last) = (layout, last);
        base
    }

    #[expect(clippy::cast_possible_truncation, reason = "a sum is written as two halves")]
    fn differences(&mut self, known: &Known, distinct: u32) -> [i64; COLUMNS - 3] {
        let base = known.base.wrapping_sub(self.base(known.layout, known.last));
        let sum = known.sum.wrapping_sub(foretold(known.base, known.last, distinct));
        let low = sum as i64;
        let high = (sum.wrapping_sub(i128::from(low)) >> LOW_BITS) as i64;
        [
            base,
            known.first.wrapping_sub(known.base),
            known.last.wrapping_sub(known.base),
            known.base.min(known.last).wrapping_sub(known.min),
            known.max.wrapping_sub(known.base.max(known.last)),
            low,
            high,
        ]
    }

    fn known(&mut self, layout: u8, distinct: u32, numbers: [i64; COLUMNS - 3]) -> Known {
        let [base, first, last, min, max, low, high] = numbers;
        let before = if self.layout == layout { self.last } else { 0 };
        let base = base.wrapping_add(before);
        let last = base.wrapping_add(last);
        self.base(layout, last);
        let sum = (i128::from(high) << LOW_BITS).wrapping_add(i128::from(low));
        Known {
            layout,
            echoes: false,
            base,
            first: base.wrapping_add(first),
            last,
            min: base.min(last).wrapping_sub(min),
            max: base.max(last).wrapping_add(max),
            sum: sum.wrapping_add(foretold(base, last, distinct)),
        }
    }
}

/// What a straight line from first to last sums to.
fn foretold(base: i64, last: i64, distinct: u32) -> i128 {
    (i128::from(base) + i128::from(last)) * i128::from(distinct) / 2
}

/// A section as it stands in the directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct SectionEntry {
    pub known: Known,
    pub times: Sequence,
    pub place: Place,
}

/// A series as it stands in the directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct SeriesEntry {
    key_end: usize,
    first_section: usize,
    sections: usize,
    /// Number of the sequence of its arrivals.
    pub order: Option<u32>,
    /// Points as written, repeats included.
    pub count: u64,
}

/// A decoded page.
#[derive(Debug)]
pub(super) struct Page {
    keys: Vec<u8>,
    pub series: Vec<SeriesEntry>,
    sections: Vec<SectionEntry>,
}

impl Page {
    /// Decodes; `points` are those of the segment, `sequence` gives an entry of the table of sequences.
    pub fn read<E: From<Malformed>>(
        bytes: &[u8],
        points: u64,
        mut sequence: impl FnMut(u32) -> Result<Sequence, E>,
    ) -> Result<Self, E> {
        let mut cut = Cut(bytes);
        let series_count = cut.count(PAGE_SERIES)?;
        let sections_max =
            usize::try_from(points).map_or(PAGE_SECTIONS_MAX, |points| points.min(PAGE_SECTIONS_MAX));
        let section_count = cut.count(sections_max)?;
        let mut ends = [Place::take(&mut cut)?, Place::take(&mut cut)?, Place::take(&mut cut)?];
        let names = take_packed(&mut cut)?;
        let counts = take_ints(&mut cut, series_count)?;
        let orders = take_ints(&mut cut, series_count)?;
        let mut columns = Vec::with_capacity(COLUMNS);
        for _ in 0..COLUMNS {
            columns.push(take_ints(&mut cut, section_count)?.into_iter());
        }
        cut.end()?;

        let mut page =
            Self { keys: Vec::new(), series: Vec::new(), sections: Vec::with_capacity(section_count) };
        let (mut number, mut before) = (-1i64, Before::default());
        for _ in 0..section_count {
            let mut row = [0i64; COLUMNS];
            for (cell, column) in row.iter_mut().zip(&mut columns) {
                *cell = column.next().ok_or(Malformed)?;
            }
            let [step_of_sequence, layout, step, numbers @ ..] = row;
            number = number.wrapping_add(step_of_sequence).wrapping_add(1);
            let times = sequence(u32::try_from(number).map_err(|_| Malformed)?)?;
            let echoes = layout >> ECHOES_BIT == 1;
            let layout = layout - (i64::from(echoes) << ECHOES_BIT);
            let layout =
                u8::try_from(layout).ok().filter(|layout| *layout <= column::MIXED).ok_or(Malformed)?;
            let known = Known { echoes, ..before.known(layout, times.distinct, numbers) };
            let length = match stream_of(layout) {
                2 => u32::try_from(known.base).map_err(|_| Malformed)?,
                _ => column::numbers_of(&known, times.count, times.distinct),
            };
            let end = ends.get_mut(stream_of(layout)).ok_or(Malformed)?;
            let place = end.advance(step, length)?;
            page.sections.push(SectionEntry { known, times, place });
        }
        let mut names = Cut(&names);
        let (mut first_section, mut key_start) = (0usize, 0usize);
        for (count, order) in counts.into_iter().zip(orders) {
            let shared = names.count(page.keys.len() - key_start)?;
            let length = names.count(KEY_BYTES_MAX - shared.min(KEY_BYTES_MAX))?;
            let at = page.keys.len();
            page.keys.extend_from_within(key_start..key_start + shared);
            page.keys.extend_from_slice(names.take(length)?);
            key_start = at;
            let sections = usize::try_from(count).map_err(|_| Malformed)?;
            let end = first_section.checked_add(sections).ok_or(Malformed)?;
            let all = page.sections.get(first_section..end).ok_or(Malformed)?;
            page.series.push(SeriesEntry {
                key_end: page.keys.len(),
                first_section,
                sections,
                order: if order == 0 { None } else { Some(u32::try_from(order - 1).map_err(|_| Malformed)?) },
                count: all.iter().map(|section| u64::from(section.times.count)).sum(),
            });
            first_section = end;
        }
        names.end()?;
        if first_section == section_count { Ok(page) } else { Err(Malformed.into()) }
    }

    pub fn key(&self, slot: usize) -> Option<&[u8]> {
        let start = slot.checked_sub(1).map_or(Some(0), |before| Some(self.series.get(before)?.key_end))?;
        self.keys.get(start..self.series.get(slot)?.key_end)
    }

    pub fn sections(&self, slot: usize) -> Option<&[SectionEntry]> {
        let series = self.series.get(slot)?;
        self.sections.get(series.first_section..series.first_section + series.sections)
    }

    /// The slot of a key.
    pub fn find(&self, key: &[u8]) -> Option<usize> {
        let (mut low, mut high) = (0, self.series.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.key(middle)?.cmp(key) {
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// Bytes of memory that it takes.
    pub fn weight(&self) -> usize {
        self.keys.len()
            + self.series.len() * size_of::<SeriesEntry>()
            + self.sections.len() * size_of::<SectionEntry>()
    }
}

/// The first key of each page, for the footer: number of the page's first series, and the key told from the one before.
pub(super) fn put_index(out: &mut Vec<u8>, pages: &[(u32, Vec<u8>)]) {
    let mut names = Vec::new();
    let mut before: &[u8] = &[];
    put_len(out, pages.len());
    for (first, key) in pages {
        put_u64(out, u64::from(*first));
        let shared = before.iter().zip(key).take_while(|(a, b)| a == b).count();
        put_len(&mut names, shared);
        put_len(&mut names, key.len() - shared);
        names.extend_from_slice(key.get(shared..).unwrap_or_default());
        before = key;
    }
    put_packed(out, &names);
}

pub(super) fn take_index(cut: &mut Cut<'_>) -> Result<Vec<(u32, Vec<u8>)>, Malformed> {
    let count = cut.count(cut.0.len())?;
    let mut firsts = Vec::with_capacity(count);
    for _ in 0..count {
        firsts.push(cut.u32()?);
    }
    let names = take_packed(cut)?;
    let mut names = Cut(&names);
    let mut pages: Vec<(u32, Vec<u8>)> = Vec::with_capacity(count);
    for first in firsts {
        let shared = names.count(KEY_BYTES_MAX)?;
        let length = names.count(KEY_BYTES_MAX)?;
        let before = pages.last().map_or(&[][..], |(_, key)| key);
        let mut key = before.get(..shared).ok_or(Malformed)?.to_vec();
        key.extend_from_slice(names.take(length)?);
        let ascending = pages.last().is_none_or(|(before, last)| *before < first && *last < key);
        if !ascending || (pages.is_empty() && first != 0) {
            return Err(Malformed);
        }
        pages.push((first, key));
    }
    names.end()?;
    Ok(pages)
}
