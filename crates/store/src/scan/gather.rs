//! Where the points of a series stand: tables of the streams of its site, copied under one look at the index, and segments, which stay
//! readable as long as somebody holds them.

use std::ops::RangeInclusive;
use std::sync::Arc;

use tidelog_record::{Series, SiteName};

use crate::errors::ReadError;
use crate::index::Index;
use crate::sealed::Sealed;
use crate::segment::{Extent, SeriesRef};
use crate::shared::{Shared, read_locked};
use crate::stream::StreamIndex;
use crate::table::TableColumn;

/// A series' part of a segment.
pub(crate) struct Part {
    pub sealed: Arc<Sealed>,
    pub series: SeriesRef,
    pub extent: Extent,
}

/// What holds points of a series.
pub(crate) enum Source {
    Table(Box<TableColumn>),
    Segment(Part),
}

impl Source {
    /// First and last time, ns; of a table, of the parts that were copied.
    pub fn ends(&self) -> (i64, i64) {
        match self {
            Self::Table(column) => column.ends().unwrap_or_default(),
            Self::Segment(part) => (part.extent.first_ts, part.extent.last_ts),
        }
    }
}

/// Everything that holds points of one series within a range.
pub(crate) struct Plan {
    pub series: Arc<Series>,
    /// By first time.
    pub sources: Vec<Source>,
    /// About how many points.
    pub points: u64,
}

/// What was taken of the tables for some series, and the segments that may have more.
pub(super) struct Snapshot<T> {
    pub tables: Vec<Vec<T>>,
    pub segments: Vec<Arc<Sealed>>,
}

/// The segments of a stream that may have points in a range.
pub(super) fn within<'s>(
    stream: &'s StreamIndex,
    range: &RangeInclusive<i64>,
) -> impl Iterator<Item = &'s Arc<Sealed>> {
    stream.sealed.iter().filter(|sealed| {
        let (first, last) = sealed.segment.time_range();
        sealed.segment.points() > 0 && first <= *range.end() && last >= *range.start()
    })
}

/// The canonical bytes of some series.
pub(super) fn canonical(series: &[Arc<Series>]) -> Vec<Vec<u8>> {
    series.iter().map(|series| series.canonical()).collect()
}

/// What stands where at this moment, for series by their canonical bytes.
pub(super) fn snapshot<T>(
    index: &Index,
    site: &SiteName,
    canonical: &[Vec<u8>],
    range: &RangeInclusive<i64>,
    take: impl Fn(&TableColumn) -> Option<T>,
) -> Snapshot<T> {
    let mut tables: Vec<Vec<T>> = Vec::new();
    tables.resize_with(canonical.len(), Vec::new);
    let mut segments = Vec::new();
    for stream in index.of_site(site) {
        for table in stream.tables.iter() {
            for (canonical, found) in canonical.iter().zip(&mut tables) {
                found.extend(table.get(canonical).and_then(&take));
            }
        }
        segments.extend(within(stream, range).cloned());
    }
    Snapshot { tables, segments }
}

impl Shared {
    /// How many segments of a site may have points in a range.
    pub(super) fn segments_within(&self, site: &SiteName, range: &RangeInclusive<i64>) -> usize {
        let index = read_locked(&self.index);
        index.of_site(site).map(|stream| within(stream, range).count()).sum()
    }

    /// Plans how to read some series, which stand in canonical order.
    pub(crate) fn gather(
        &self,
        site: &SiteName,
        series: &[Arc<Series>],
        range: &RangeInclusive<i64>,
    ) -> Result<Vec<Plan>, ReadError> {
        let canonical = canonical(series);
        let Snapshot { tables, segments } = {
            let index = read_locked(&self.index);
            snapshot(&index, site, &canonical, range, |column| column.copy_within(range))
        };
        let mut plans: Vec<Plan> = series
            .iter()
            .zip(tables)
            .map(|(series, tables)| {
                let points = tables.iter().map(|column| column.len() as u64).sum();
                let sources = tables.into_iter().map(|column| Source::Table(Box::new(column))).collect();
                Plan { series: Arc::clone(series), sources, points }
            })
            .collect();
        for sealed in segments {
            let bad = |error| self.bad_segment(&sealed, &error);
            let found = sealed.segment.find_many(series).map_err(bad)?;
            for (plan, series) in plans.iter_mut().zip(found) {
                let Some(series) = series else { continue };
                let Some(extent) = sealed.segment.extent(series).map_err(bad)? else { continue };
                if extent.first_ts <= *range.end() && extent.last_ts >= *range.start() {
                    plan.points += share(&extent, range);
                    plan.sources.push(Source::Segment(Part { sealed: Arc::clone(&sealed), series, extent }));
                }
            }
        }
        for plan in &mut plans {
            plan.sources.sort_by_key(Source::ends);
        }
        Ok(plans)
    }
}

/// About how many of a series' points lie in the range, if they lie evenly.
fn share(extent: &Extent, range: &RangeInclusive<i64>) -> u64 {
    let width = |first: i64, last: i64| u128::from(last.abs_diff(first)) + 1;
    let seen = width(extent.first_ts.max(*range.start()), extent.last_ts.min(*range.end()));
    let part = u128::from(extent.count) * seen / width(extent.first_ts, extent.last_ts);
    u64::try_from(part).unwrap_or(extent.count).saturating_add(1)
}
