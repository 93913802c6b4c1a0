//! The newest point of each series, without a scan: tables know theirs, and segments' directories do.

use std::sync::Arc;

use tidelog_record::{Series, SiteName, Value};

use super::{Halt, ScanError};
use crate::shared::Shared;

impl Shared {
    /// The newest points of those series that have any, in the order given, which is the canonical one; `halt` is asked before each segment.
    pub fn last(
        &self,
        site: &SiteName,
        series: &[Arc<Series>],
        halt: &Halt<'_>,
    ) -> Result<Vec<(Arc<Series>, i64, Value)>, ScanError> {
        let Some(range) = self.visible(site, &(i64::MIN..=i64::MAX)) else { return Ok(Vec::new()) };
        let snapshot = self.snapshot(site, series, &range, |column| column.last());
        let newest = |tables: Vec<(i64, Value)>| tables.into_iter().max();
        let mut best: Vec<Option<(i64, Value)>> = snapshot.tables.into_iter().map(newest).collect();
        let mut segments = snapshot.segments;
        segments.sort_by_key(|sealed| std::cmp::Reverse(sealed.segment.time_range().1));
        for sealed in segments {
            if halt() {
                return Err(ScanError::Halted);
            }
            let newest = sealed.segment.time_range().1;
            // At the same time another value may be the greater one.
            let open = |best: &Option<(i64, Value)>| best.as_ref().is_none_or(|(time, _)| *time <= newest);
            let (wanted, places): (Vec<_>, Vec<_>) = series
                .iter()
                .zip(best.iter_mut())
                .filter(|(_, best)| open(best))
                .map(|(series, best)| (Arc::clone(series), best))
                .unzip();
            if wanted.is_empty() {
                break;
            }
            let bad = |error| self.bad_segment(&sealed, &error);
            let found = sealed.segment.find_many(&wanted).map_err(bad)?;
            for (best, series) in places.into_iter().zip(found) {
                let Some(series) = series else { continue };
                let Some(extent) = sealed.segment.extent(series).map_err(bad)? else { continue };
                if best.as_ref().is_some_and(|(time, _)| *time > extent.last_ts) {
                    continue;
                }
                if let Some(whole) = sealed.segment.whole(series).map_err(bad)? {
                    *best = best.take().max(Some((whole.last_ts, whole.last)));
                }
            }
        }
        let seen = series.iter().zip(best).filter_map(|(series, best)| {
            let (time, value) = best?;
            range.contains(&time).then(|| (Arc::clone(series), time, value))
        });
        Ok(seen.collect())
    }
}
