//! Reads points: from a section's places in the streams to times and values. A page that was decoded last is kept, because
//! neighbours are mostly in it.

use std::ops::Range;
use std::sync::Arc;

use tidelog_record::Values;

use super::blocks::Kind;
use super::bytes::Malformed;
use super::column;
use super::directory::{Page, SectionEntry, stream_of};
use super::errors::SegmentError;
use super::ints::{Chunk, Scratch};
use super::open::Segment;
use super::sequence::{self, Form, Sequence};
use super::stream::Place;

/// Numbers that a kept workspace holds at most.
const KEPT_VALUES_MAX: usize = 64 * 1024;

/// The page that was decoded last from one stream.
#[derive(Default)]
struct LastPage {
    at: Option<(u64, u32, u32)>,
    chunk: Option<(u64, u32, Arc<Chunk>)>,
    values: Vec<i64>,
}

/// Workspace of a reader.
#[derive(Default)]
pub(super) struct Reading {
    numbers: LastPage,
    floats: LastPage,
    times: LastPage,
    orders: LastPage,
    text: Option<(u64, u32, Arc<Vec<u8>>)>,
    scratch: Scratch,
}

impl Reading {
    pub fn is_small(&self) -> bool {
        let all = [&self.numbers, &self.floats, &self.times, &self.orders];
        self.text.is_none() && all.iter().all(|page| page.values.capacity() <= KEPT_VALUES_MAX)
    }

    /// The numbers of a run.
    fn run(
        &mut self,
        segment: &Segment,
        kind: Kind,
        place: Place,
        length: u32,
    ) -> Result<&[i64], SegmentError> {
        if length == 0 {
            return Ok(&[]);
        }
        let last = match kind {
            Kind::Floats => &mut self.floats,
            Kind::Times => &mut self.times,
            Kind::Orders => &mut self.orders,
            _ => &mut self.numbers,
        };
        let id = segment.id();
        if last.at != Some((id, place.chunk, place.page)) {
            last.at = None;
            let chunk = match &last.chunk {
                Some((of, number, chunk)) if (*of, *number) == (id, place.chunk) => Arc::clone(chunk),
                _ => segment.chunk(kind, place.chunk)?,
            };
            if chunk
                .page_len(place.page)
                .is_none_or(|count| count as u64 > segment.points().max(1).saturating_mul(2))
            {
                return Err(SegmentError::Inconsistent("a page has more numbers than the segment points"));
            }
            chunk.page(place.page, &mut self.scratch, &mut last.values)?;
            last.chunk = Some((id, place.chunk, chunk));
            last.at = Some((id, place.chunk, place.page));
        }
        let from = place.offset as usize;
        Ok(last.values.get(from..from.saturating_add(length as usize)).ok_or(Malformed)?)
    }

    /// Times of a sequence as stored, repeats included, behind `out`.
    pub fn stored_times(
        &mut self,
        segment: &Segment,
        times: &Sequence,
        out: &mut Vec<i64>,
    ) -> Result<(), SegmentError> {
        if !matches!(times.form, Form::Regular | Form::Times) || u64::from(times.count) > segment.points() {
            return Err(SegmentError::Inconsistent("a section's times are none"));
        }
        let numbers = if times.form == Form::Regular { 0 } else { times.numbers };
        let steps = self.run(segment, Kind::Times, times.place, numbers)?;
        sequence::extend_times(times, steps, out);
        Ok(())
    }

    /// A section's values as stored behind `out`, repeats included.
    pub fn stored_values(
        &mut self,
        segment: &Segment,
        section: &SectionEntry,
        out: &mut Values,
    ) -> Result<(), SegmentError> {
        if !section.known.echoes {
            return self.numbered_values(segment, section, out);
        }
        let (mut times, mut values) = (Vec::new(), Values::default());
        self.stored_times(segment, &section.times, &mut times)?;
        self.numbered_values(segment, section, &mut values)?;
        let mut kept = Vec::with_capacity(times.len());
        let mut place = 0usize;
        for (index, time) in times.iter().enumerate() {
            place += usize::from(index > 0 && times.get(index - 1) != Some(time));
            kept.push(place);
        }
        if place + 1 != values.len() {
            return Err(SegmentError::Inconsistent("a section has other times than values"));
        }
        column::extend_kept(out, &values, &kept);
        Ok(())
    }

    /// The values of a section that have numbers: all as stored, or one for each time if the others are echoes.
    fn numbered_values(
        &mut self,
        segment: &Segment,
        section: &SectionEntry,
        out: &mut Values,
    ) -> Result<(), SegmentError> {
        let layout = section.known.layout;
        let count = section.times.count;
        if count == 0 {
            return Ok(());
        }
        match stream_of(layout) {
            2 => {
                let place = section.place;
                let text = match &self.text {
                    Some((id, number, text)) if (*id, *number) == (segment.id(), place.chunk) => {
                        Arc::clone(text)
                    }
                    _ => segment.text(place.chunk)?,
                };
                self.text = Some((segment.id(), place.chunk, Arc::clone(&text)));
                let length = usize::try_from(section.known.base).map_err(|_| Malformed)?;
                let from = place.offset as usize;
                let bytes = text.get(from..from.saturating_add(length)).ok_or(Malformed)?;
                column::take_texts(layout, bytes, count as usize, out)?;
            }
            stream => {
                let kind = if stream == 1 { Kind::Floats } else { Kind::Numbers };
                let numbers = self.run(
                    segment,
                    kind,
                    section.place,
                    column::numbers_of(&section.known, count, section.times.distinct),
                )?;
                column::extend(out, layout, section.known.base, numbers);
            }
        }
        Ok(())
    }

    /// Each place's arrival, for a series whose points did not arrive in order of time.
    pub fn order(&mut self, segment: &Segment, number: u32) -> Result<Vec<u32>, SegmentError> {
        let order = segment.sequence(number)?;
        if !matches!(order.form, Form::Late | Form::Order) || u64::from(order.count) > segment.points() {
            return Err(SegmentError::Inconsistent("a series' order of arrival is none"));
        }
        let numbers = self.run(segment, Kind::Orders, order.place, order.numbers)?;
        Ok(sequence::undo_order(&order, numbers)?)
    }

    /// A section's points: each time once, with the greatest of its values (invariant 8), behind `times` and `values`.
    pub fn points(
        &mut self,
        segment: &Segment,
        section: &SectionEntry,
        times: &mut Vec<i64>,
        values: &mut Values,
    ) -> Result<(), SegmentError> {
        if section.times.distinct == section.times.count {
            self.stored_times(segment, &section.times, times)?;
            return self.stored_values(segment, section, values);
        }
        if section.known.echoes {
            let mut stored = Vec::new();
            self.stored_times(segment, &section.times, &mut stored)?;
            stored.dedup();
            if stored.len() != section.times.distinct as usize {
                return Err(SegmentError::Inconsistent("a section has other times than values"));
            }
            times.append(&mut stored);
            return self.numbered_values(segment, section, values);
        }
        let (mut stored_times, mut stored_values) = (Vec::new(), Values::default());
        self.stored_times(segment, &section.times, &mut stored_times)?;
        self.stored_values(segment, section, &mut stored_values)?;
        let kept = column::winners(&stored_times, &stored_values);
        times.extend(kept.iter().filter_map(|at| stored_times.get(*at)));
        column::extend_kept(values, &stored_values, &kept);
        Ok(())
    }

    /// Points as stored of some sections of a series.
    pub fn stored(
        &mut self,
        segment: &Segment,
        page: &Page,
        slot: usize,
        sections: Range<usize>,
        times: &mut Vec<i64>,
        values: &mut Values,
    ) -> Result<(), SegmentError> {
        let all = page.sections(slot).and_then(|all| all.get(sections)).ok_or(Malformed)?;
        for section in all {
            self.stored_times(segment, &section.times, times)?;
            self.stored_values(segment, section, values)?;
        }
        Ok(())
    }
}
