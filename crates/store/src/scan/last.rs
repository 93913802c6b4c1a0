//! The newest point of each series, without a scan: tables know theirs, segments' directories do, and what was found there once is kept
//! in memory.

use std::sync::Arc;

use tidelog_record::{Series, SiteName, Value};

use super::gather::{Snapshot, canonical, snapshot};
use super::{Halt, ScanError};
use crate::newest::Last;
use crate::shared::{Shared, read_locked};

impl Shared {
    /// The newest points of those series that have any, in the order given, which is the canonical one; `halt` is asked before each segment.
    pub fn last(
        &self,
        site: &SiteName,
        series: &[Arc<Series>],
        halt: &Halt<'_>,
    ) -> Result<Vec<(Arc<Series>, i64, Value)>, ScanError> {
        let Some(range) = self.visible(site, &(i64::MIN..=i64::MAX)) else { return Ok(Vec::new()) };
        let canonical = canonical(series);
        let (Snapshot { tables, mut segments }, (known, stamp)) = {
            let index = read_locked(&self.index);
            (
                snapshot(&index, site, &canonical, &range, |column| column.last()),
                index.newest.of(site, &canonical),
            )
        };
        let mut best: Vec<Last> = tables.into_iter().map(|tables| tables.into_iter().max()).collect();
        let is_known: Vec<bool> = known.iter().map(Option::is_some).collect();
        for (best, known) in best.iter_mut().zip(known) {
            *best = best.take().max(known.flatten());
        }
        if is_known.iter().all(|is_known| *is_known) {
            segments.clear();
        }
        segments.sort_by_key(|sealed| std::cmp::Reverse(sealed.segment.time_range().1));
        for sealed in segments {
            if halt() {
                return Err(ScanError::Halted);
            }
            let newest = sealed.segment.time_range().1;
            // At the same time another value may be the greater one.
            let open = |best: &Last| best.as_ref().is_none_or(|(time, _)| *time <= newest);
            let (wanted, places): (Vec<_>, Vec<_>) = series
                .iter()
                .zip(&is_known)
                .zip(best.iter_mut())
                .filter(|((_, is_known), best)| !**is_known && open(best))
                .map(|((series, _), best)| (Arc::clone(series), best))
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
        let found = canonical.iter().zip(&best).zip(&is_known).filter(|(_, is_known)| !**is_known);
        read_locked(&self.index).newest.keep(
            site,
            stamp,
            found.map(|((canonical, best), _)| (canonical.as_slice(), best)),
        );
        let seen = series.iter().zip(best).filter_map(|(series, best)| {
            let (time, value) = best?;
            range.contains(&time).then(|| (Arc::clone(series), time, value))
        });
        Ok(seen.collect())
    }
}
