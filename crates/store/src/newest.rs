//! The newest point of series that were asked for, so that asking again reads no segment. Tables are asked beside it, and hold what came
//! since; what a segment comes to hold was in a table until then, so these points follow without reading. Where points go, by policy or
//! by rot, a site is forgotten. It knows no horizon and reads nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use tidelog_record::{Lsn, SiteName, Value};

use crate::shared::locked;
use crate::table::Table;

/// Longest text that is kept, in bytes; a series with a longer one is not.
const TEXT_BYTES_MAX: usize = 64;

/// A time, ns, and the greatest value there; none of a series without points.
pub(crate) type Last = Option<(i64, Value)>;

/// Which points there were when a question was begun: what was found is of use while it is still so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(u64);

/// The newest points of the series of all sites.
#[derive(Debug)]
pub(crate) struct Newest {
    series_max: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    series: usize,
    changes: u64,
    sites: BTreeMap<SiteName, HashMap<Arc<[u8]>, Last>>,
}

impl Newest {
    /// Room for so many series.
    pub fn new(series_max: usize) -> Self {
        Self { series_max, held: Mutex::default() }
    }

    /// What is known of some series, by their canonical bytes. The caller holds the index, as whoever changes it does.
    pub fn of(&self, site: &SiteName, canonical: &[Vec<u8>]) -> (Vec<Option<Last>>, Stamp) {
        let held = locked(&self.held);
        let of_site = held.sites.get(site);
        let known =
            |canonical: &Vec<u8>| of_site.and_then(|series| series.get(canonical.as_slice())).cloned();
        (canonical.iter().map(known).collect(), Stamp(held.changes))
    }

    /// Keeps what a question found, unless other points are held since it was begun.
    pub fn keep<'s>(&self, site: &SiteName, stamp: Stamp, found: impl Iterator<Item = (&'s [u8], &'s Last)>) {
        let mut held = locked(&self.held);
        let held = &mut *held;
        if held.changes != stamp.0 {
            return;
        }
        for (canonical, last) in found {
            if held.series >= self.series_max {
                return;
            }
            if is_short(last) {
                let of_site = held.sites.entry(site.clone()).or_default();
                held.series += usize::from(of_site.insert(Arc::from(canonical), last.clone()).is_none());
            }
        }
    }

    /// Takes in the points of tables that are about to go because a segment of the records `first..=last` holds all of them.
    pub fn sealed(&self, site: &SiteName, (first, last): (Lsn, Lsn), tables: &[Arc<Table>]) {
        if tables.iter().any(|table| table.first < first || table.last_with_points > last) {
            return self.forget(site);
        }
        let mut held = locked(&self.held);
        let held = &mut *held;
        held.changes += 1;
        let Some(of_site) = held.sites.get_mut(site) else { return };
        for column in tables.iter().flat_map(|table| table.columns()) {
            let Some(known) = of_site.get_mut(&column.canonical) else { continue };
            let newest = known.take().max(column.last());
            if is_short(&newest) {
                *known = newest;
            } else {
                of_site.remove(&column.canonical);
                held.series -= 1;
            }
        }
    }

    /// Forgets what is known of a site.
    pub fn forget(&self, site: &SiteName) {
        let mut held = locked(&self.held);
        held.changes += 1;
        held.series -= held.sites.remove(site).map_or(0, |series| series.len());
    }
}

fn is_short(last: &Last) -> bool {
    !matches!(last, Some((_, Value::Text(text))) if text.len() > TEXT_BYTES_MAX)
}
