//! What is asked of a store beyond points: series by conditions on their labels, names and values of labels, last values, and
//! aggregates by steps. Series are named in ascending order, as [`Store::select`] gives them.
//!
//! Thin: everything here is answered by scanning points.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use tidelog_record::{Series, SiteName, Value, Values};

use crate::aggregate::{Accumulator, Aggregates, Function, Steps};
use crate::catalogue::{CatalogueError, Matcher};
use crate::errors::ScanError;
use crate::store::Store;

/// The label that a metric's name stands under.
const METRIC_LABEL: &str = "__name__";
/// Steps of all groups that are gathered at a time; each takes up to some 300 bytes.
const GATHERED_STEPS_MAX: usize = 64 * 1024;

/// Whether a series meets all conditions of at least one alternative.
fn meets(alternatives: &[Vec<Matcher>], series: &Series) -> bool {
    alternatives.iter().any(|all| all.iter().all(|matcher| matcher.holds(series)))
}

/// The place of a series among series in ascending order.
fn place(sorted: &[(Arc<Series>, usize)], series: &Series) -> Option<usize> {
    let found = sorted.binary_search_by(|(one, _)| one.as_ref().cmp(series)).ok()?;
    sorted.get(found).map(|(_, place)| *place)
}

impl Store {
    /// The series that meet all conditions of at least one alternative, ascending, each once. An alternative without conditions is
    /// met by every series.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub fn select(
        &self,
        site: &SiteName,
        alternatives: &[Vec<Matcher>],
    ) -> Result<Vec<Arc<Series>>, CatalogueError> {
        Ok(self.series(site, &|series| meets(alternatives, series)))
    }

    /// The names of labels of the series that [`Store::select`] gives, ascending; `__name__` is among them.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub fn label_names(
        &self,
        site: &SiteName,
        alternatives: &[Vec<Matcher>],
    ) -> Result<BTreeSet<String>, CatalogueError> {
        let mut names = BTreeSet::new();
        for series in self.select(site, alternatives)? {
            for name in series.labels().map(|(name, _)| name).chain([METRIC_LABEL]) {
                if !names.contains(name) {
                    names.insert(name.to_owned());
                }
            }
        }
        Ok(names)
    }

    /// The values that a label has in the series that [`Store::select`] gives, ascending; those of `__name__` are the metrics.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub fn label_values(
        &self,
        site: &SiteName,
        label: &str,
        alternatives: &[Vec<Matcher>],
    ) -> Result<BTreeSet<String>, CatalogueError> {
        let mut values = BTreeSet::new();
        for series in self.select(site, alternatives)? {
            if let Some(value) = series.label(label)
                && !values.contains(value)
            {
                values.insert(value.to_owned());
            }
        }
        Ok(values)
    }

    /// The last point of each series that has one, in ascending order of series.
    ///
    /// # Errors
    /// [`ScanError`].
    pub fn last(
        &self,
        site: &SiteName,
        series: &[Arc<Series>],
    ) -> Result<Vec<(Arc<Series>, i64, Value)>, ScanError> {
        let among = |one: &Series| series.binary_search_by(|other| other.as_ref().cmp(one)).is_ok();
        let mut found = Vec::new();
        self.scan_each(site, &among, i64::MIN..=i64::MAX, |series, mut points| {
            found.extend(points.pop().map(|(time, value)| (series, time, value)));
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// Aggregates each group of series by steps: the series of a group together, as [`Function`] says. Visits the groups that have
    /// points, in their order; `visit` may stop it. A series may be in one group only.
    ///
    /// # Errors
    /// [`ScanError`].
    pub fn aggregate(
        &self,
        site: &SiteName,
        groups: &[Vec<Arc<Series>>],
        steps: &Steps,
        functions: &[Function],
        mut visit: impl FnMut(usize, Aggregates) -> ControlFlow<()>,
    ) -> Result<(), ScanError> {
        let at_a_time = (GATHERED_STEPS_MAX / steps.count()).max(1);
        for (turn, groups) in groups.chunks(at_a_time).enumerate() {
            let gathered = self.gather(site, groups, steps, functions)?;
            for (at, accumulator) in gathered.into_iter().enumerate() {
                let aggregates = accumulator.finish();
                if !aggregates.starts.is_empty() && visit(turn * at_a_time + at, aggregates).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn gather(
        &self,
        site: &SiteName,
        groups: &[Vec<Arc<Series>>],
        steps: &Steps,
        functions: &[Function],
    ) -> Result<Vec<Accumulator>, ScanError> {
        let mut sorted: Vec<(Arc<Series>, usize)> = groups
            .iter()
            .enumerate()
            .flat_map(|(at, group)| group.iter().map(move |series| (Arc::clone(series), at)))
            .collect();
        sorted.sort();
        let mut gathered: Vec<_> = groups.iter().map(|_| Accumulator::new(steps, functions)).collect();
        let (mut times, mut values) = (Vec::new(), Values::default());
        let among = |series: &Series| place(&sorted, series).is_some();
        self.scan_each(site, &among, steps.range(), |series, points| {
            times.clear();
            values.clear();
            for (time, value) in points {
                times.push(time);
                values.push(value);
            }
            if let Some(group) = place(&sorted, &series).and_then(|at| gathered.get_mut(at)) {
                group.points(&times, &values, 0..times.len());
                group.end_series();
            }
            ControlFlow::Continue(())
        })?;
        Ok(gathered)
    }
}
