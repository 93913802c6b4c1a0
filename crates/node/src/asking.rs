//! How this node asks its store: selectors become conditions on labels, conditions become series, and series are read. All
//! questions, whatever they come by, go through here.

use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;

use tidelog_query::{Comparison, Condition};
use tidelog_record::{Series, SiteName};
use tidelog_store::catalogue::{CatalogueError, MatchOp, Matcher, MatcherError};
use tidelog_store::{Points, ScanError, Store};

/// Why the store has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    #[error(transparent)]
    Matcher(#[from] MatcherError),
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    #[error(transparent)]
    Scan(#[from] ScanError),
}

/// The label of series that names a device.
pub(crate) const DEVICE_LABEL: &str = "device";

/// Sets of conditions: a series is meant if it meets all of at least one set.
pub(crate) type Alternatives = Vec<Vec<Matcher>>;

/// The conditions as the store understands them.
pub(crate) fn alternatives<'c>(
    sets: impl IntoIterator<Item = &'c [Condition]>,
) -> Result<Alternatives, MatcherError> {
    let matcher = |condition: &Condition| {
        let op = match condition.comparison() {
            Comparison::Equal => MatchOp::Equal,
            Comparison::NotEqual => MatchOp::NotEqual,
            Comparison::Like => MatchOp::Regex,
            Comparison::Unlike => MatchOp::NotRegex,
        };
        Matcher::new(condition.label(), op, condition.value())
    };
    sets.into_iter().map(|all| all.iter().map(matcher).collect()).collect()
}

/// The series that are meant, in ascending order.
pub(crate) fn chosen(
    store: &Store,
    site: &SiteName,
    alternatives: &Alternatives,
) -> Result<Vec<Arc<Series>>, CatalogueError> {
    store.select(site, alternatives)
}

/// Visits chosen series that have points in the range (ns, both ends included), in order, with these points; a series with many
/// points several times.
pub(crate) fn each_points(
    store: &Store,
    site: &SiteName,
    series: &[Arc<Series>],
    range: RangeInclusive<i64>,
    visit: impl FnMut(&Arc<Series>, &Points) -> ControlFlow<()>,
) -> Result<(), ScanError> {
    store.scan_each(site, series, range, visit)
}

/// Visits the points that [`each_points`] does, if they are at most about `points_max`; otherwise says `false`, and visits none.
pub(crate) fn few_points(
    store: &Store,
    site: &SiteName,
    series: &[Arc<Series>],
    range: RangeInclusive<i64>,
    points_max: u64,
    visit: impl FnMut(&Arc<Series>, &Points) -> ControlFlow<()>,
) -> Result<bool, ScanError> {
    store.scan_few(site, series, range, points_max, visit)
}
