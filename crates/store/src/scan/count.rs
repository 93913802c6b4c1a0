//! How many points a whole site has. What stands alone in its time is counted as a whole, by a segment's directory, which is read
//! once, or a table's columns. Where several stand in the same time, their series may share points, and no count is known here.

use std::ops::RangeInclusive;
use std::sync::Arc;

use tidelog_record::SiteName;

use super::gather::within;
use crate::errors::ReadError;
use crate::sealed::Sealed;
use crate::shared::{Shared, read_locked};

/// A stretch of time in which something of the site stands.
struct Stretch {
    first: i64,
    last: i64,
    points: Known,
}

/// What is known of the points of a stretch that are within the range asked.
enum Known {
    Not,
    Count(u64),
    /// All of a segment.
    Segment(Arc<Sealed>),
}

impl Shared {
    /// Points of a site within a range, if each stands where nothing else does.
    pub(crate) fn count_apart(
        &self,
        site: &SiteName,
        range: &RangeInclusive<i64>,
    ) -> Result<Option<u64>, ReadError> {
        let Some(range) = self.visible(site, range) else { return Ok(Some(0)) };
        let mut total = 0;
        for stretch in joined(self.stretches(site, &range)) {
            let Some(points) = self.points_of(&stretch)? else { return Ok(None) };
            total += points;
        }
        Ok(Some(total))
    }

    fn points_of(&self, stretch: &Stretch) -> Result<Option<u64>, ReadError> {
        match &stretch.points {
            Known::Not => Ok(None),
            Known::Count(points) => Ok(Some(*points)),
            Known::Segment(sealed) => match sealed.counts() {
                Ok(counts) => Ok(Some(counts.points)),
                Err(error) => Err(self.bad_segment(sealed, &error)),
            },
        }
    }

    fn stretches(&self, site: &SiteName, range: &RangeInclusive<i64>) -> Vec<Stretch> {
        let index = read_locked(&self.index);
        let mut stretches = Vec::new();
        for stream in index.of_site(site) {
            for sealed in within(stream, range) {
                let (first, last) = sealed.segment.time_range();
                let is_inside = range.contains(&first) && range.contains(&last);
                let points = if is_inside { Known::Segment(Arc::clone(sealed)) } else { Known::Not };
                stretches.push(Stretch { first, last, points });
            }
            for table in stream.tables.iter() {
                let columns = || table.columns().iter().filter_map(|column| column.ends());
                let ends = columns().reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
                let Some((first, last)) = ends.filter(|(a, b)| a <= range.end() && b >= range.start()) else {
                    continue;
                };
                let points: Option<u64> =
                    table.columns().iter().map(|column| column.count_within(range)).sum();
                let points = points.map_or(Known::Not, Known::Count);
                stretches.push(Stretch { first, last, points });
            }
        }
        stretches.sort_unstable_by_key(|stretch| (stretch.first, stretch.last));
        stretches
    }
}

/// Stretches that touch, as one of which nothing is known.
fn joined(ordered: Vec<Stretch>) -> Vec<Stretch> {
    let mut joined: Vec<Stretch> = Vec::new();
    for stretch in ordered {
        match joined.last_mut() {
            Some(before) if before.last >= stretch.first => {
                before.last = before.last.max(stretch.last);
                before.points = Known::Not;
            }
            _ => joined.push(stretch),
        }
    }
    joined
}
