//! Aggregates of series by fixed steps. Sections that lie in one step are taken for their statistics, and not decoded.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use tidelog_record::{Series, SiteName};

use super::{Points, SERIES_AT_ONCE, Taker};
use crate::aggregate::{Accumulator, Function, Steps};
use crate::errors::ReadError;
use crate::segment::Section;
use crate::shared::Shared;

/// Steps of all series together that are gathered at once; each takes up to some 300 bytes.
const STEPS_AT_ONCE: usize = 64 * 1024;

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

/// What is done with a series' aggregates.
pub(crate) type VisitSteps<'v> = dyn FnMut(&Arc<Series>, Accumulator) -> ControlFlow<()> + 'v;

impl Shared {
    /// Visits those of the series that have sources in the range, in the order given, which is the canonical one.
    pub fn aggregate(
        &self,
        site: &SiteName,
        series: &[Arc<Series>],
        steps: &Steps,
        functions: &[Function],
        visit: &mut VisitSteps<'_>,
    ) -> Result<(), ReadError> {
        let Some(range) = self.visible(site, &steps.range()) else { return Ok(()) };
        let at_once = (STEPS_AT_ONCE / steps.count().max(1)).clamp(1, SERIES_AT_ONCE);
        let mut flow = ControlFlow::Continue(());
        for chunk in series.chunks(SERIES_AT_ONCE) {
            let plans = self.gather(site, chunk, &range)?;
            for group in plans.chunks(at_once) {
                self.for_each_plan(
                    group,
                    &|plan| {
                        let mut gathered = Accumulator::new(steps, functions);
                        self.walk_plan(plan, &range, &mut gathered).map(|_| gathered)
                    },
                    &mut |plan, gathered| {
                        if flow.is_continue() && !plan.sources.is_empty() {
                            flow = visit(&plan.series, gathered);
                        }
                    },
                )?;
                if flow.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
