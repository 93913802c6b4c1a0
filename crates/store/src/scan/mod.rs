//! Points by series and time, from wherever they stand: tables in memory and segments. Of two points with one
//! `(series, timestamp)` the greater value is the point (invariant 8), so answers do not depend on arrival, nor on what is sealed or
//! merged. Memory is bounded by what a group of series takes, and of a series that is larger by a part of it.

mod count;
mod gather;
mod last;
mod steps;
mod walk;

use std::ops::{ControlFlow, RangeInclusive};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tidelog_record::{Series, SiteName, Value, Values};

use crate::catalogue::CatalogueError;
use crate::errors::ReadError;
use crate::segment::Section;
use crate::shared::{Shared, locked};
use gather::Plan;

/// A series with its points, in ascending order of time (ns), each time once.
pub type SeriesPoints = (Arc<Series>, Vec<(i64, Value)>);

/// Series that are looked for at once.
const SERIES_AT_ONCE: usize = 1024;
/// Series that are looked for at once however many segments there are: a page of a segment's directory holds about as many.
const SERIES_AT_ONCE_MIN: usize = 32;
/// Parts of segments that a question of few points looks for, at most: looking for more takes longer than waking another thread.
const FEW_PARTS_MAX: usize = 1024;
/// Points below which one thread is quicker than several.
const POINTS_A_THREAD_MIN: u64 = 32 * 1024;

/// Why a question about points has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// Points cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The series cannot be found.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// Whoever asked gave it up.
    #[error("the question was given up before it was answered")]
    Halted,
}

/// Asked again and again while a long question is answered, by any thread that works at it: `true` gives it up.
pub type Halt<'h> = dyn Fn() -> bool + Sync + 'h;

/// Points of one series: times (ns) ascending, each once, and their values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Points {
    /// Times, ns.
    pub times: Vec<i64>,
    /// As many values.
    pub values: Values,
}

impl Points {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// One by one.
    pub fn iter(&self) -> impl Iterator<Item = (i64, Value)> + '_ {
        self.times.iter().zip(0usize..).filter_map(|(time, at)| Some((*time, self.values.get(at)?)))
    }

    fn clear(&mut self) {
        self.times.clear();
        self.values.clear();
    }

    fn extend(&mut self, other: &Self, range: std::ops::Range<usize>) {
        if let Some(times) = other.times.get(range.clone()) {
            self.times.extend_from_slice(times);
            self.values.extend_range(&other.values, range);
        }
    }
}

/// What is done with the points of one series. They come in order of time.
pub(crate) trait Taker {
    /// Takes a stretch that lies within the range without its points, for what is known of it; `false`: the points are needed.
    fn section(&mut self, _: &Section) -> bool {
        false
    }

    /// Whether [`Taker::section`] is worth asking.
    fn takes_sections(&self) -> bool {
        false
    }

    /// Takes points.
    fn points(&mut self, points: &Points, range: std::ops::Range<usize>) -> ControlFlow<()>;
}

/// Keeps all points.
#[derive(Default)]
struct Keep(Points);

impl Taker for Keep {
    fn points(&mut self, points: &Points, range: std::ops::Range<usize>) -> ControlFlow<()> {
        self.0.extend(points, range);
        ControlFlow::Continue(())
    }
}

/// Hands points on in parts.
struct HandOn<'v> {
    points_max: u64,
    series: &'v Arc<Series>,
    visit: &'v mut Visit<'v>,
    part: Points,
}

impl HandOn<'_> {
    fn end(&mut self) -> ControlFlow<()> {
        if self.part.is_empty() {
            return ControlFlow::Continue(());
        }
        let flow = (self.visit)(self.series, &self.part);
        self.part.clear();
        flow
    }
}

impl Taker for HandOn<'_> {
    fn points(&mut self, points: &Points, range: std::ops::Range<usize>) -> ControlFlow<()> {
        self.part.extend(points, range);
        if self.part.len() as u64 >= self.points_max { self.end() } else { ControlFlow::Continue(()) }
    }
}

/// What is done with a series' points.
pub(crate) type Visit<'v> = dyn FnMut(&Arc<Series>, &Points) -> ControlFlow<()> + 'v;

/// What follows for a question from the points that it may hold.
impl Shared {
    /// Points of one series that are handed out at once.
    fn part_points_max(&self) -> u64 {
        (self.scan_points_max / 4).max(1)
    }

    /// Parts of segments that are found at once, some 48 bytes each: of many segments, fewer series are looked for.
    fn scan_parts_max(&self) -> usize {
        usize::try_from(self.scan_points_max / 8).unwrap_or(usize::MAX)
    }

    /// Steps of all series together that are gathered at once; each takes up to some 300 bytes.
    pub(crate) fn scan_steps_max(&self) -> usize {
        usize::try_from(self.scan_points_max / 4).unwrap_or(usize::MAX)
    }
}

impl Shared {
    /// The range of a site that a question may see, if it is any.
    fn visible(&self, site: &SiteName, range: &RangeInclusive<i64>) -> Option<RangeInclusive<i64>> {
        let horizon = self.horizon(site).unwrap_or(i64::MIN);
        let seen = (*range.start()).max(horizon)..=*range.end();
        (!seen.is_empty()).then_some(seen)
    }

    /// Visits those of the series that have points in the range, in the order given, which is the canonical one; one with many points
    /// several times, in order of time.
    pub fn scan_each(
        &self,
        site: &SiteName,
        series: &[Arc<Series>],
        range: &RangeInclusive<i64>,
        visit: &mut Visit<'_>,
    ) -> Result<(), ReadError> {
        let Some(range) = self.visible(site, range) else { return Ok(()) };
        for chunk in series.chunks(self.series_at_once(site, &range)) {
            let plans = self.gather(site, chunk, &range)?;
            let mut rest = plans.as_slice();
            while let Some(first) = rest.first() {
                let mut points = 0;
                let fits = |plan: &&Plan| {
                    points += plan.points;
                    points <= self.scan_points_max
                };
                let count = rest.iter().take_while(fits).count();
                let flow = if count == 0 {
                    rest = rest.get(1..).unwrap_or_default();
                    self.hand_on(first, &range, visit)?
                } else {
                    let (group, behind) = rest.split_at(count);
                    rest = behind;
                    self.visit_group(group, &range, visit)?
                };
                if flow.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Visits what [`Shared::scan_each`] does, if that is at most about `points_max` points and in few places; otherwise says `false`, and
    /// visits nothing.
    pub fn scan_few(
        &self,
        site: &SiteName,
        series: &[Arc<Series>],
        range: &RangeInclusive<i64>,
        points_max: u64,
        visit: &mut Visit<'_>,
    ) -> Result<bool, ReadError> {
        let Some(range) = self.visible(site, range) else { return Ok(true) };
        if series.len().saturating_mul(self.segments_within(site, &range)) > FEW_PARTS_MAX {
            return Ok(false);
        }
        let plans = self.gather(site, series, &range)?;
        let few = plans.iter().map(|plan| plan.points).sum::<u64>() <= points_max.min(self.scan_points_max);
        if few {
            // Whether the visitor went on to the end is its own affair.
            self.visit_group(&plans, &range, visit)?.is_break();
        }
        Ok(few)
    }

    /// How many series are looked for at once, so that their parts of segments do not fill the memory.
    fn series_at_once(&self, site: &SiteName, range: &RangeInclusive<i64>) -> usize {
        let segments = self.segments_within(site, range).max(1);
        (self.scan_parts_max() / segments).clamp(SERIES_AT_ONCE_MIN, SERIES_AT_ONCE)
    }

    fn hand_on(
        &self,
        plan: &Plan,
        range: &RangeInclusive<i64>,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>, ReadError> {
        let mut taker = HandOn {
            points_max: self.part_points_max(),
            series: &plan.series,
            visit: &mut |s, p| visit(s, p),
            part: Points::default(),
        };
        match self.walk_plan(plan, range, &mut taker)? {
            ControlFlow::Break(()) => Ok(ControlFlow::Break(())),
            ControlFlow::Continue(()) => Ok(taker.end()),
        }
    }

    fn visit_group(
        &self,
        group: &[Plan],
        range: &RangeInclusive<i64>,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>, ReadError> {
        let mut flow = ControlFlow::Continue(());
        let points: u64 = group.iter().map(|plan| plan.points).sum();
        let worth = usize::try_from(points / POINTS_A_THREAD_MIN).unwrap_or(usize::MAX);
        let keep = |at: usize| {
            let mut taker = Keep::default();
            if let Some(plan) = group.get(at) {
                // It keeps all, so it never breaks.
                self.walk_plan(plan, range, &mut taker)?.is_break();
            }
            Ok(taker.0)
        };
        self.in_order(group.len(), worth, &keep, &mut |at, points| {
            if let Some(plan) = group.get(at).filter(|_| !points.is_empty() && flow.is_continue()) {
                flow = visit(&plan.series, &points);
            }
        })?;
        Ok(flow)
    }

    /// Answers questions `0..count`, on several threads if `threads` says so, and tells the answers in order.
    fn in_order<T: Send>(
        &self,
        count: usize,
        threads: usize,
        answer: &(dyn Fn(usize) -> Result<T, ReadError> + Sync),
        tell: &mut dyn FnMut(usize, T),
    ) -> Result<(), ReadError> {
        let threads = self.scan_threads.min(threads).min(count);
        if threads <= 1 {
            for at in 0..count {
                tell(at, answer(at)?);
            }
            return Ok(());
        }
        let next = AtomicUsize::new(0);
        let mut slots: Vec<Mutex<Option<Result<T, ReadError>>>> = Vec::new();
        slots.resize_with(count, Mutex::default);
        let work = || {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(slot) = slots.get(at) else { return };
                let answered = answer(at);
                if answered.is_err() {
                    // Nobody will read the others.
                    next.store(count, Ordering::Relaxed);
                }
                *locked(slot) = Some(answered);
            }
        };
        thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
        let answers = slots.into_iter().map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner));
        let answers: Vec<T> = answers.flatten().collect::<Result<_, _>>()?;
        for (at, answer) in answers.into_iter().enumerate() {
            tell(at, answer);
        }
        Ok(())
    }
}
