//! Makes one segment of several that follow each other: the same bytes as sealing the records of all of them at once. One series at a
//! time is in memory, and what the directory and footer need.

use std::io;
use std::sync::Arc;

use tidelog_record::Values;

use super::build::{Builder, Sealed};
use super::bytes::Malformed;
use super::directory::Page;
use super::errors::{SealError, SegmentError};
use super::open::Segment;
use super::read::Reading;
use super::records::EntryWalk;
use super::seal::Gathered;
use super::span::Span;

/// The span of segments that follow each other.
///
/// # Errors
/// [`SealError::Span`] when they do not.
pub fn merged_span(parts: &[Arc<Segment>]) -> Result<Span, SealError> {
    let mut spans = parts.iter().map(|part| part.span());
    let mut whole = spans.next().ok_or(SealError::Span("there are no parts"))?.clone();
    for span in spans {
        let follows = span.stream == whole.stream
            && whole.ordinal.checked_add(u64::from(whole.parts)) == Some(span.ordinal)
            && whole.last.next() == Some(span.first)
            && whole.after == span.before;
        if !follows {
            return Err(SealError::Span("a part does not follow the one before it"));
        }
        whole.parts = whole.parts.checked_add(span.parts).ok_or(SealError::Span("too many parts"))?;
        (whole.last, whole.after) = (span.last, span.after);
    }
    Ok(whole)
}

/// Merges segments that follow each other; `out` takes the file front to back.
///
/// # Errors
/// [`SealError::Part`] when a part cannot be read, [`SealError::Span`] when they do not follow each other.
pub fn merge(
    parts: &[Arc<Segment>],
    out: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<Sealed, SealError> {
    merge_as(&merged_span(parts)?, parts, out)
}

/// Merges segments into the one of a span that they cover exactly, whatever pieces each of them was counted as.
///
/// # Errors
/// As [`merge`]; [`SealError::Span`] when the parts are not those of the span.
pub fn merge_as(
    span: &Span,
    parts: &[Arc<Segment>],
    out: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<Sealed, SealError> {
    let (mut next, mut chain) = (Some(span.first), span.before);
    for part in parts.iter().map(|part| part.span()) {
        if part.stream != span.stream || Some(part.first) != next || part.before != chain {
            return Err(SealError::Span("a part does not follow the one before it"));
        }
        (next, chain) = (part.last.next(), part.after);
    }
    if next != span.last.next() || chain != span.after {
        return Err(SealError::Span("the parts are not all of it"));
    }
    let mut builder = Builder::new(span, out)?;
    let mut sources: Vec<Source<'_>> =
        parts.iter().map(|part| Source::new(part)).collect::<Result<_, _>>()?;
    let mut gathered = Gathered::default();
    let mut key = Vec::new();
    loop {
        key.clear();
        let Some(least) = sources.iter().filter_map(Source::key).min() else { break };
        key.extend_from_slice(least);
        gathered.times.clear();
        gathered.values.clear();
        let mut arrivals: Option<Vec<u32>> = None;
        let here = || -> Vec<usize> {
            let at_key = |source: &Source<'_>| source.key() == Some(key.as_slice());
            sources.iter().enumerate().filter(|(_, source)| at_key(source)).map(|(index, _)| index).collect()
        };
        let here = here();
        for index in &here {
            if let Some(source) = sources.get_mut(*index) {
                source.take(&mut gathered.times, &mut gathered.values, &mut arrivals)?;
            }
        }
        gathered.sort(arrivals);
        let number = builder.series(&key, &gathered.times, &gathered.values, gathered.order.as_deref())?;
        for index in here {
            if let Some(source) = sources.get_mut(index) {
                source.numbers.push(number);
                source.advance()?;
            }
        }
    }
    builder.series_end()?;
    for source in sources {
        records(source.segment, &source.numbers, &mut builder)?;
    }
    builder.finish()
}

fn records(segment: &Segment, numbers: &[u32], builder: &mut Builder<'_>) -> Result<(), SealError> {
    let mut walk = EntryWalk::new(segment.series_count());
    let mut entries = Vec::new();
    for number in 0..segment.footer().records.len() {
        let block = segment.records_block(number)?;
        walk.begin(&block);
        let mut whole = block.whole.as_slice();
        for (index, row) in block.rows.iter().enumerate() {
            entries.clear();
            for _ in 0..row.entries {
                let (series, _, count) = walk.next(&block).map_err(SegmentError::from)?;
                let series = numbers.get(series as usize).ok_or(SegmentError::from(Malformed))?;
                entries.push((*series, count));
            }
            let kept_whole = row.kept != super::records::Kept::AsPoints;
            let length = if kept_whole { row.bytes as usize } else { 0 };
            let (body, rest) = whole.split_at_checked(length).ok_or(SegmentError::from(Malformed))?;
            whole = rest;
            let chain = block.chain.filter(|_| index == 0);
            if builder.at_checkpoint() && chain.is_none() {
                return Err(SegmentError::Inconsistent("a checkpoint is missing").into());
            }
            builder.record(row, &mut entries.drain(..), body, chain)?;
        }
    }
    Ok(())
}

/// A part, read series by series.
struct Source<'p> {
    segment: &'p Segment,
    page_number: u32,
    page: Option<Arc<Page>>,
    slot: usize,
    reading: Reading,
    /// The merged segment's numbers of the part's series.
    numbers: Vec<u32>,
}

impl<'p> Source<'p> {
    fn new(segment: &'p Segment) -> Result<Self, SegmentError> {
        let page = if segment.page_count() > 0 { Some(segment.page(0)?) } else { None };
        Ok(Self { segment, page_number: 0, page, slot: 0, reading: Reading::default(), numbers: Vec::new() })
    }

    fn key(&self) -> Option<&[u8]> {
        self.page.as_ref()?.key(self.slot)
    }

    fn advance(&mut self) -> Result<(), SegmentError> {
        self.slot += 1;
        if self.page.as_ref().is_some_and(|page| self.slot >= page.series.len()) {
            self.page_number += 1;
            self.slot = 0;
            let more = self.page_number < self.segment.page_count();
            self.page = if more { Some(self.segment.page(self.page_number)?) } else { None };
        }
        Ok(())
    }

    /// Puts the series' points behind those of the parts before.
    fn take(
        &mut self,
        times: &mut Vec<i64>,
        values: &mut Values,
        arrivals: &mut Option<Vec<u32>>,
    ) -> Result<(), SegmentError> {
        let page = self.page.as_ref().ok_or(Malformed)?;
        let held = *page.series.get(self.slot).ok_or(Malformed)?;
        let before = u32::try_from(times.len()).map_err(|_| Malformed)?;
        let sections = page.sections(self.slot).ok_or(Malformed)?.len();
        self.reading.stored(self.segment, page, self.slot, 0..sections, times, values)?;
        let now = u32::try_from(times.len()).map_err(|_| Malformed)?;
        match held.order {
            None => {
                if let Some(arrivals) = arrivals {
                    arrivals.extend(before..now);
                }
            }
            Some(order) => {
                let order = self.reading.order(self.segment, order)?;
                if order.len() != (now - before) as usize {
                    return Err(Malformed.into());
                }
                let arrivals = arrivals.get_or_insert_with(|| (0..before).collect());
                arrivals.extend(order.iter().map(|arrival| before + arrival));
            }
        }
        Ok(())
    }
}
