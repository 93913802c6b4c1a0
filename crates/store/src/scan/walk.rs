//! One series' points in order of time, from sources whose times interleave as they like. Sections that nothing overlaps may be taken
//! for what is known of them; otherwise a few decoded sections are in memory at once, however long the series is.

use std::ops::{ControlFlow, Range, RangeInclusive};

use super::gather::{Part, Plan, Source};
use super::{Points, Taker};
use crate::errors::ReadError;
use crate::segment::Section;
use crate::shared::Shared;
use crate::table::TableColumn;

/// Points that stand together: a table's, or a section of a segment.
struct Piece<'p> {
    first: i64,
    last: i64,
    from: From<'p>,
}

enum From<'p> {
    Table(&'p TableColumn),
    Section { part: &'p Part, at: usize, section: Section },
}

/// Points that are being handed out.
struct Open {
    points: Points,
    rest: Range<usize>,
}

impl Open {
    fn next(&self) -> i64 {
        self.points.times.get(self.rest.start).copied().unwrap_or(i64::MAX)
    }

    /// Where the times before `bound` end.
    fn before(&self, bound: Option<i64>) -> usize {
        let Some(bound) = bound else { return self.rest.end };
        let rest = self.points.times.get(self.rest.clone()).unwrap_or_default();
        self.rest.start + rest.partition_point(|time| *time < bound)
    }
}

/// The part of ascending times that lies within a range.
fn within(times: &[i64], range: &RangeInclusive<i64>) -> Range<usize> {
    times.partition_point(|time| time < range.start())..times.partition_point(|time| time <= range.end())
}

impl Shared {
    /// Gives a series' points within the range to `taker`.
    pub(crate) fn walk_plan(
        &self,
        plan: &Plan,
        range: &RangeInclusive<i64>,
        taker: &mut dyn Taker,
    ) -> Result<ControlFlow<()>, ReadError> {
        let mut rest = plan.sources.as_slice();
        while let Some(first) = rest.first() {
            let mut last = first.ends().1;
            let touches = |source: &&Source| {
                let (begins, ends) = source.ends();
                let touches = begins <= last;
                last = last.max(ends);
                touches
            };
            let (group, behind) = rest.split_at(rest.iter().take_while(touches).count().max(1));
            rest = behind;
            if let [Source::Segment(part)] = group
                && taker.takes_sections()
                && range.contains(&part.extent.first_ts)
                && range.contains(&part.extent.last_ts)
                && taker.section(&part.extent.as_section())
            {
                continue;
            }
            let pieces = self.pieces(group, range)?;
            if self.walk_pieces(&pieces, range, taker)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn pieces<'p>(
        &self,
        sources: &'p [Source],
        range: &RangeInclusive<i64>,
    ) -> Result<Vec<Piece<'p>>, ReadError> {
        let mut pieces = Vec::new();
        for source in sources {
            match source {
                Source::Table(column) => {
                    let (first, last) = source.ends();
                    pieces.push(Piece { first, last, from: From::Table(column) });
                }
                Source::Segment(part) => {
                    let sections = part.sealed.segment.sections(part.series);
                    let sections = sections.map_err(|error| self.bad_segment(&part.sealed, &error))?;
                    for (at, section) in sections.into_iter().enumerate() {
                        let (first, last) = (section.first_ts, section.last_ts);
                        if first <= *range.end() && last >= *range.start() {
                            pieces.push(Piece { first, last, from: From::Section { part, at, section } });
                        }
                    }
                }
            }
        }
        if sources.len() > 1 {
            pieces.sort_by_key(|piece| (piece.first, piece.last));
        }
        Ok(pieces)
    }

    fn walk_pieces(
        &self,
        pieces: &[Piece<'_>],
        range: &RangeInclusive<i64>,
        taker: &mut dyn Taker,
    ) -> Result<ControlFlow<()>, ReadError> {
        let mut waiting = pieces;
        let mut open: Vec<Open> = Vec::new();
        let mut merged = Points::default();
        loop {
            let Some(now) = open.iter().map(Open::next).min() else {
                if give(&mut merged, taker).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                let Some((first, behind)) = waiting.split_first() else {
                    return Ok(ControlFlow::Continue(()));
                };
                let alone = alone(waiting);
                if alone == 0 {
                    open.extend(self.open(first, range)?);
                    waiting = behind;
                } else {
                    let (front, behind) = waiting.split_at(alone);
                    waiting = behind;
                    if self.walk_alone(front, range, taker)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                continue;
            };
            if let Some((first, behind)) = waiting.split_first()
                && first.first <= now
            {
                open.extend(self.open(first, range)?);
                waiting = behind;
                continue;
            }
            step(&mut open, now, waiting.first().map(|piece| piece.first), &mut merged);
            open.retain(|open| !open.rest.is_empty());
            if merged.len() as u64 >= self.part_points_max() && give(&mut merged, taker).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }

    fn open(&self, piece: &Piece<'_>, range: &RangeInclusive<i64>) -> Result<Option<Open>, ReadError> {
        let points = match &piece.from {
            From::Table(column) => column.within(range),
            From::Section { part, at, .. } => {
                let mut points = Points::default();
                self.decode(part, *at..*at + 1, &mut points)?;
                points
            }
        };
        let rest = within(&points.times, range);
        Ok((!rest.is_empty()).then_some(Open { points, rest }))
    }

    fn decode(&self, part: &Part, sections: Range<usize>, into: &mut Points) -> Result<(), ReadError> {
        let segment = &part.sealed.segment;
        let read = segment.read(part.series, sections, &mut into.times, &mut into.values);
        read.map_err(|error| self.bad_segment(&part.sealed, &error))
    }

    /// Pieces that overlap nothing.
    fn walk_alone(
        &self,
        pieces: &[Piece<'_>],
        range: &RangeInclusive<i64>,
        taker: &mut dyn Taker,
    ) -> Result<ControlFlow<()>, ReadError> {
        let mut points = Points::default();
        let mut rest = pieces;
        while let Some((piece, mut behind)) = rest.split_first() {
            let flow = match &piece.from {
                From::Table(column) => {
                    let points = column.within(range);
                    if points.is_empty() {
                        ControlFlow::Continue(())
                    } else {
                        taker.points(&points, 0..points.len())
                    }
                }
                From::Section { section, .. }
                    if taker.takes_sections()
                        && range.contains(&piece.first)
                        && range.contains(&piece.last)
                        && taker.section(section) =>
                {
                    ControlFlow::Continue(())
                }
                From::Section { part, at, section } => {
                    // What stands side by side in a segment is read at once.
                    let (mut end, mut count) = (*at + 1, section.count);
                    while let Some((Piece { from: From::Section { part: of, at, section }, .. }, after)) =
                        behind.split_first()
                        && !taker.takes_sections()
                        && std::ptr::eq(*of, *part)
                        && *at == end
                        && count < self.part_points_max()
                    {
                        (end, count, behind) = (end + 1, count + section.count, after);
                    }
                    points.clear();
                    self.decode(part, *at..end, &mut points)?;
                    taker.points(&points, within(&points.times, range))
                }
            };
            if flow.is_break() {
                return Ok(flow);
            }
            rest = behind;
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// How many of the pieces at the front end before the next begins.
fn alone(pieces: &[Piece<'_>]) -> usize {
    let ends = |pair: &&[Piece<'_>]| matches!(pair, [a, b] if a.last < b.first);
    let before = pieces.windows(2).take_while(ends).count();
    // The last one overlaps nothing if all before it ended.
    if before + 1 == pieces.len() { pieces.len() } else { before }
}

fn give(merged: &mut Points, taker: &mut dyn Taker) -> ControlFlow<()> {
    if merged.is_empty() {
        return ControlFlow::Continue(());
    }
    let flow = taker.points(merged, 0..merged.len());
    merged.clear();
    flow
}

/// Moves points from what is open to `merged`: those at `now`, and if only one has that time, those behind it before anything else.
fn step(open: &mut [Open], now: i64, bound: Option<i64>, merged: &mut Points) {
    let mut at_now = open.iter().enumerate().filter(|(_, open)| open.next() == now).map(|(at, _)| at);
    let (Some(first), others) = (at_now.next(), at_now.next().is_some()) else { return };
    if !others {
        let next = open.iter().map(Open::next).filter(|time| *time > now).min();
        let bound = match (next, bound) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        if let Some(open) = open.get_mut(first) {
            let to = open.before(bound);
            merged.extend(&open.points, open.rest.start..to);
            open.rest.start = to;
        }
        return;
    }
    let same = open.iter().filter(|open| open.next() == now);
    let greatest = same.filter_map(|open| open.points.values.get(open.rest.start)).max();
    if let Some(greatest) = greatest {
        merged.times.push(now);
        merged.values.push(greatest);
    }
    for open in open.iter_mut().filter(|open| open.next() == now) {
        open.rest.start += 1;
    }
}
