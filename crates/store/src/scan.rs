//! Points by series and time. Each record that may hold some is decoded once for a group of series; of two points with one
//! `(series, timestamp)` the greater value is the point (invariant 8), so answers do not depend on arrival.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;

use tidelog_record::{Body, Series, SiteName, Value};

use crate::errors::ScanError;
use crate::shared::{Shared, read_locked};

/// A series with its points, in ascending order of time (ns), each time once.
pub type SeriesPoints = (Arc<Series>, Vec<(i64, Value)>);

/// Points held in memory at once by a scan that is visited series by series, unless one series alone has more.
pub(crate) const GROUP_POINTS_MAX: u64 = 256 * 1024;

/// Series in canonical order, with what the index says of each.
struct Wanted {
    series: Arc<Series>,
    records: Vec<u64>,
    points: u64,
}

impl Shared {
    pub fn series_matching(&self, site: &SiteName, matches: &dyn Fn(&Series) -> bool) -> Vec<Arc<Series>> {
        let index = read_locked(&self.index);
        let Some(by_series) = index.sites.get(site) else { return Vec::new() };
        by_series.keys().filter(|series| matches(series)).map(Arc::clone).collect()
    }

    /// Visits the series that have points in the range, in canonical order.
    pub fn scan_each(
        &self,
        site: &SiteName,
        matches: &dyn Fn(&Series) -> bool,
        range: RangeInclusive<i64>,
        group_points_max: u64,
        visit: &mut dyn FnMut(Arc<Series>, Vec<(i64, Value)>) -> ControlFlow<()>,
    ) -> Result<(), ScanError> {
        if range.is_empty() {
            return Ok(());
        }
        let mut rest = self.series_matching(site, matches).into_iter().peekable();
        while rest.peek().is_some() {
            let mut group = Vec::new();
            let mut points = 0u64;
            while points < group_points_max
                && let Some(series) = rest.next()
            {
                let wanted = self.wanted(site, series, &range);
                points += wanted.points;
                group.push(wanted);
            }
            for (series, points) in self.group(&group, &range)? {
                if !points.is_empty() && visit(series, points).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn wanted(&self, site: &SiteName, series: Arc<Series>, range: &RangeInclusive<i64>) -> Wanted {
        let index = read_locked(&self.index);
        let mut records = Vec::new();
        let mut points = 0;
        if let Some(found) = index.sites.get(site).and_then(|by_series| by_series.get(&series)) {
            found.within(*range.start(), *range.end(), &mut records);
            points = found.points_in(records.len());
        }
        Wanted { series, records, points }
    }

    fn group(&self, group: &[Wanted], range: &RangeInclusive<i64>) -> Result<Vec<SeriesPoints>, ScanError> {
        let mut positions: Vec<u64> =
            group.iter().flat_map(|wanted| wanted.records.iter().copied()).collect();
        positions.sort_unstable();
        positions.dedup();
        let mut places = BTreeMap::new();
        for (at, wanted) in group.iter().enumerate() {
            places.insert(wanted.series.as_ref(), at);
        }
        let mut found: Vec<Vec<(i64, Value)>> = Vec::new();
        found.resize_with(group.len(), Vec::new);
        self.walk_positions(&positions, |record| {
            // A body that this version cannot decode holds no points that it knows of.
            if let Ok(Body::Points(batch)) = Body::decode(record.body) {
                for (series, points) in batch.series {
                    if let Some(out) = places.get(&series).and_then(|at| found.get_mut(*at)) {
                        out.extend(points.into_iter().filter(|(time, _)| range.contains(time)));
                    }
                }
            }
        })?;
        let series = group.iter().map(|wanted| Arc::clone(&wanted.series));
        Ok(series.zip(found.into_iter().map(settled)).collect())
    }
}

/// Orders points by time and keeps the greatest value of each.
fn settled(mut points: Vec<(i64, Value)>) -> Vec<(i64, Value)> {
    points.sort_unstable_by(|(t, v), (u, w)| t.cmp(u).then_with(|| w.cmp(v)));
    points.dedup_by_key(|(time, _)| *time);
    points
}
