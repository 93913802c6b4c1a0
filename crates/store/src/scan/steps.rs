//! Aggregates of series by fixed steps. Sections that lie in one step are taken for their statistics, and not decoded.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidelog_record::{Series, SiteName};

use super::gather::Plan;
use super::{Halt, Points, ScanError, Taker};
use crate::aggregate::{Accumulator, Function, Steps};
use crate::errors::ReadError;
use crate::segment::Section;
use crate::shared::Shared;

impl Taker for Accumulator {
    fn section(&mut self, section: &Section) -> bool {
        self.whole(section)
    }

    fn takes_sections(&self) -> bool {
        true
    }

    fn points(&mut self, points: &Points, range: Range<usize>) -> ControlFlow<()> {
        Self::points(self, &points.times, &points.values, range);
        ControlFlow::Continue(())
    }
}

/// Series that are aggregated at once.
const SERIES_AT_ONCE: usize = 8 * 1024;
/// Series that one thread takes at least; each is some microseconds of work.
const SERIES_A_PART_MIN: usize = 64;
/// Parts for each thread, so that one that is slow holds up none.
const PARTS_A_THREAD: usize = 8;

/// What is done with the aggregates of the series of that place.
pub(crate) type VisitSteps<'v> = dyn FnMut(usize, Accumulator) -> ControlFlow<()> + 'v;

impl Shared {
    /// Visits those of the series that have sources in the range, in the order given, which is the canonical one; `halt` is asked before
    /// each series.
    pub fn aggregate(
        &self,
        site: &SiteName,
        series: &[Arc<Series>],
        steps: &Steps,
        functions: &[Function],
        halt: &Halt<'_>,
        visit: &mut VisitSteps<'_>,
    ) -> Result<(), ScanError> {
        let Some(range) = self.visible(site, &steps.range()) else { return Ok(()) };
        let at_once = (self.scan_steps_max() / steps.count().max(1)).clamp(1, SERIES_AT_ONCE);
        let (mut flow, mut told) = (ControlFlow::Continue(()), 0);
        let halted = AtomicBool::new(false);
        for chunk in series.chunks(at_once) {
            let parts =
                chunk.len().div_ceil(SERIES_A_PART_MIN).min(self.scan_threads * PARTS_A_THREAD).max(1);
            let parts: Vec<_> = chunk.chunks(chunk.len().div_ceil(parts).max(1)).collect();
            let answer = |at: usize| {
                let plans = self.gather(site, parts.get(at).copied().unwrap_or_default(), &range)?;
                let aggregate = |plan: &Plan| {
                    if halted.load(Ordering::Relaxed) || halt() {
                        halted.store(true, Ordering::Relaxed);
                        return Ok(None);
                    }
                    let mut gathered = Accumulator::new(steps, functions);
                    self.walk_plan(plan, &range, &mut gathered)?.is_break();
                    Ok((!plan.sources.is_empty()).then_some(gathered))
                };
                plans.iter().map(aggregate).collect::<Result<Vec<_>, ReadError>>()
            };
            self.in_order(parts.len(), parts.len(), &answer, &mut |_, gathered| {
                for gathered in gathered {
                    if let Some(gathered) = gathered.filter(|_| flow.is_continue()) {
                        flow = visit(told, gathered);
                    }
                    told += 1;
                }
            })?;
            if halted.load(Ordering::Relaxed) {
                return Err(ScanError::Halted);
            }
            if flow.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }
}
