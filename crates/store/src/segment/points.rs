//! What a segment says about points: where a series is, what is known of its sections without decoding, and the points themselves.

use std::ops::Range;
use std::sync::Arc;

use tidelog_record::{Series, Value, Values};

use super::bytes::Malformed;
use super::column::{self, DECIMAL_LAST, WHOLE};
use super::directory::{Page, SectionEntry};
use super::errors::SegmentError;
use super::key;
use super::open::Segment;
use super::read::Reading;

/// A series of a segment. It means nothing to another segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesRef {
    pub(super) page: u32,
    pub(super) slot: u32,
}

/// What is known of a section's values without decoding them.
#[derive(Clone, Debug, PartialEq)]
pub struct SectionStats {
    /// Value at the first time.
    pub first: Value,
    /// Value at the last time.
    pub last: Value,
    /// Least value, in the order of [`Value`].
    pub min: Value,
    /// Greatest value, in the order of [`Value`].
    pub max: Value,
    /// Exact sum in units of 10⁻⁹, if all values are whole numbers or short decimals.
    pub sum: Option<i128>,
}

/// A stretch of one series: ascending in time, before the next one, never interleaved with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    /// Points: different times.
    pub count: u64,
    /// First time, in ns.
    pub first_ts: i64,
    /// Last time, in ns.
    pub last_ts: i64,
    /// None for texts, mixed kinds, and where a NaN is among the values: decode them.
    pub stats: Option<SectionStats>,
}

/// How much of a series there is, and where it begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Points: different times.
    pub count: u64,
    /// First time, in ns.
    pub first_ts: i64,
    /// Last time, in ns.
    pub last_ts: i64,
}

impl Extent {
    /// As a section of whose values nothing is known.
    #[must_use]
    pub fn as_section(&self) -> Section {
        let Self { count, first_ts, last_ts } = *self;
        Section { count, first_ts, last_ts, stats: None }
    }
}

/// What is known of a series as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Whole {
    /// Points: different times.
    pub count: u64,
    /// First time, in ns.
    pub first_ts: i64,
    /// Last time, in ns.
    pub last_ts: i64,
    /// The value at the last time.
    pub last: Value,
}

/// 10⁻⁹ in units of a decimal with so many digits.
const SCALES: [i128; 10] =
    [1_000_000_000, 100_000_000, 10_000_000, 1_000_000, 100_000, 10_000, 1_000, 100, 10, 1];

impl SectionEntry {
    fn stats(&self) -> Option<SectionStats> {
        let known = &self.known;
        if known.layout > column::FLOAT {
            return None;
        }
        let value = |number| column::value(known.layout, number);
        let sum = match known.layout {
            digits @ 0..=DECIMAL_LAST => {
                SCALES.get(usize::from(digits)).and_then(|scale| known.sum.checked_mul(*scale))
            }
            WHOLE => known.sum.checked_mul(1_000_000_000),
            _ => None,
        };
        let (first, last) = (value(known.first), value(known.last));
        Some(SectionStats { first, last, min: value(known.min), max: value(known.max), sum })
    }

    fn public(&self) -> Section {
        Section {
            count: u64::from(self.times.distinct),
            first_ts: self.times.first,
            last_ts: self.times.last,
            stats: self.stats(),
        }
    }
}

impl Segment {
    fn page_of_key(&self, key: &[u8]) -> Option<u32> {
        let after = self.footer().pages.partition_point(|(_, first)| first.as_slice() <= key);
        u32::try_from(after).ok()?.checked_sub(1)
    }

    /// The series of these canonical bytes, if it is named in the segment.
    ///
    /// # Errors
    /// [`SegmentError`] when the directory cannot be read.
    pub fn find(&self, canonical: &[u8]) -> Result<Option<SeriesRef>, SegmentError> {
        let mut wanted = Vec::with_capacity(canonical.len() + 8);
        if key::put_key(&mut wanted, canonical).is_err() {
            return Ok(None);
        }
        let Some(page) = self.page_of_key(&wanted) else { return Ok(None) };
        let slot = self.page(page)?.find(&wanted);
        Ok(slot.and_then(|slot| u32::try_from(slot).ok()).map(|slot| SeriesRef { page, slot }))
    }

    /// As [`Segment::find`] for many series in ascending order; quicker than one by one.
    ///
    /// # Errors
    /// [`SegmentError`] when the directory cannot be read.
    pub fn find_many(&self, sorted: &[Arc<Series>]) -> Result<Vec<Option<SeriesRef>>, SegmentError> {
        let mut wanted = Vec::new();
        let mut held: Option<(u32, Arc<Page>)> = None;
        let mut expected = 0usize;
        let mut found = Vec::with_capacity(sorted.len());
        for series in sorted {
            wanted.clear();
            key::put_key_of(&mut wanted, series);
            // The neighbour of the last one, mostly.
            if let Some((page, decoded)) = &held
                && decoded.key(expected) == Some(wanted.as_slice())
            {
                found.push(u32::try_from(expected).ok().map(|slot| SeriesRef { page: *page, slot }));
                expected += 1;
                continue;
            }
            let Some(number) = self.page_of_key(&wanted) else {
                found.push(None);
                continue;
            };
            let page = match &held {
                Some((of, page)) if *of == number => page,
                _ => &held.insert((number, self.page(number)?)).1,
            };
            let slot = page.find(&wanted);
            expected = slot.map_or(expected, |slot| slot + 1);
            found.push(
                slot.and_then(|slot| u32::try_from(slot).ok()).map(|slot| SeriesRef { page: number, slot }),
            );
        }
        Ok(found)
    }

    /// Visits every series that has points, in canonical order: its canonical bytes, where it stands, what is known of it.
    ///
    /// # Errors
    /// [`SegmentError`] when the segment cannot be read.
    pub fn each_series(&self, mut visit: impl FnMut(&[u8], SeriesRef, &Whole)) -> Result<(), SegmentError> {
        let mut canonical = Vec::new();
        for number in 0..self.page_count() {
            let page = self.page(number)?;
            for (slot, index) in (0u32..).zip(0..page.series.len()) {
                let Some(whole) = self.whole_of(&page, index)? else { continue };
                canonical.clear();
                key::put_canonical(&mut canonical, page.key(index).ok_or(Malformed)?)?;
                visit(&canonical, SeriesRef { page: number, slot }, &whole);
            }
        }
        Ok(())
    }

    /// How much of a series there is, without reading any point; `None` when it has none.
    ///
    /// # Errors
    /// [`SegmentError`] when the directory cannot be read.
    pub fn extent(&self, series: SeriesRef) -> Result<Option<Extent>, SegmentError> {
        let page = self.page(series.page)?;
        let sections = page.sections(series.slot as usize).ok_or(Malformed)?;
        let (Some(first), Some(last)) = (sections.first(), sections.last()) else { return Ok(None) };
        let count = sections.iter().map(|section| u64::from(section.times.distinct)).sum();
        Ok(Some(Extent { count, first_ts: first.times.first, last_ts: last.times.last }))
    }

    /// What is known of one series as a whole; `None` when it has no points.
    ///
    /// # Errors
    /// [`SegmentError`] when the segment cannot be read.
    pub fn whole(&self, series: SeriesRef) -> Result<Option<Whole>, SegmentError> {
        self.whole_of(&*self.page(series.page)?, series.slot as usize)
    }

    fn whole_of(&self, page: &Page, slot: usize) -> Result<Option<Whole>, SegmentError> {
        let sections = page.sections(slot).ok_or(Malformed)?;
        let (Some(first), Some(last)) = (sections.first(), sections.last()) else { return Ok(None) };
        let value = if last.known.layout <= column::FLOAT {
            column::value(last.known.layout, last.known.last)
        } else {
            let (mut times, mut values) = (Vec::new(), Values::default());
            self.reading(|reading| reading.points(self, last, &mut times, &mut values))?;
            values.len().checked_sub(1).and_then(|at| values.get(at)).ok_or(Malformed)?
        };
        Ok(Some(Whole {
            count: sections.iter().map(|section| u64::from(section.times.distinct)).sum(),
            first_ts: first.times.first,
            last_ts: last.times.last,
            last: value,
        }))
    }

    pub(super) fn reading<T>(
        &self,
        read: impl FnOnce(&mut Reading) -> Result<T, SegmentError>,
    ) -> Result<T, SegmentError> {
        let mut workspace = self.cache.workspace();
        let outcome = read(&mut workspace);
        self.cache.give_back(workspace);
        outcome
    }

    /// A series' sections, ascending in time and disjoint.
    ///
    /// # Errors
    /// [`SegmentError`] when the directory cannot be read.
    pub fn sections(&self, series: SeriesRef) -> Result<Vec<Section>, SegmentError> {
        let page = self.page(series.page)?;
        let sections = page.sections(series.slot as usize).ok_or(Malformed)?;
        Ok(sections.iter().map(SectionEntry::public).collect())
    }

    /// Points of some sections of a series behind `times` and `values`: ascending, each time once, with the greatest of its values
    /// (invariant 8). Sections that the series does not have hold no points.
    ///
    /// # Errors
    /// [`SegmentError`] when they cannot be read; what was read before stands in the buffers.
    pub fn read(
        &self,
        series: SeriesRef,
        sections: Range<usize>,
        times: &mut Vec<i64>,
        values: &mut Values,
    ) -> Result<(), SegmentError> {
        let page = self.page(series.page)?;
        let all = page.sections(series.slot as usize).ok_or(Malformed)?;
        let range = sections.start.min(all.len())..sections.end.min(all.len());
        self.reading(|reading| {
            for section in all.get(range).unwrap_or_default() {
                reading.points(self, section, times, values)?;
            }
            Ok(())
        })
    }
}
