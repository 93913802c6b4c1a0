//! What is asked of a store beyond points: series by conditions on their labels, names and values of labels, last values, and
//! aggregates by steps. Series are named in ascending order, as [`Store::select`] gives them.

use std::collections::BTreeSet;
use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;

use tidelog_record::{Series, SiteName, Value};

use crate::aggregate::{Accumulator, Aggregates, Function, Steps};
use crate::catalogue::{CatalogueError, Matcher};
use crate::errors::ReadError;
use crate::scan::{Halt, ScanError};
use crate::store::Store;

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
        self.catalogue(|catalogue| {
            let mut found = Vec::new();
            for matchers in alternatives {
                found.extend(catalogue.select(site, matchers)?);
            }
            if alternatives.len() > 1 {
                found.sort_unstable();
                found.dedup();
            }
            Ok(found)
        })
    }

    /// The series of a site that `matches` accepts, ascending: each is looked at.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub fn series(
        &self,
        site: &SiteName,
        matches: &dyn Fn(&Series) -> bool,
    ) -> Result<Vec<Arc<Series>>, CatalogueError> {
        let mut all = self.select(site, &[Vec::new()])?;
        all.retain(|series| matches(series));
        Ok(all)
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
        self.catalogue(|catalogue| {
            let mut names = BTreeSet::new();
            for matchers in alternatives {
                names.extend(catalogue.label_names(site, matchers)?);
            }
            Ok(names)
        })
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
        self.catalogue(|catalogue| {
            let mut values = BTreeSet::new();
            for matchers in alternatives {
                values.extend(catalogue.label_values(site, label, matchers)?);
            }
            Ok(values)
        })
    }

    /// The last point of each series that has one, in the order given, which is to be the ascending one.
    ///
    /// # Errors
    /// [`ScanError`]; [`ScanError::Halted`] once `halt` says so.
    pub fn last(
        &self,
        site: &SiteName,
        series: &[Arc<Series>],
        halt: &Halt<'_>,
    ) -> Result<Vec<(Arc<Series>, i64, Value)>, ScanError> {
        self.shared().last(site, series, halt)
    }

    /// Aggregates each group of series by steps: the series of a group together, as [`Function`] says. Visits the groups that have
    /// points, in their order; `visit` may stop it. A series may be in one group only.
    ///
    /// # Errors
    /// [`ScanError`]; [`ScanError::Halted`] once `halt` says so.
    pub fn aggregate(
        &self,
        site: &SiteName,
        groups: &[Vec<Arc<Series>>],
        steps: &Steps,
        functions: &[Function],
        halt: &Halt<'_>,
        mut visit: impl FnMut(usize, Aggregates) -> ControlFlow<()>,
    ) -> Result<(), ScanError> {
        let at_a_time = (self.shared().scan_steps_max() / steps.count()).max(1);
        for (turn, groups) in groups.chunks(at_a_time).enumerate() {
            let gathered = self.gathered(site, groups, steps, functions, halt)?;
            for (at, accumulator) in gathered.into_iter().enumerate() {
                let aggregates = accumulator.map(Accumulator::finish).unwrap_or_default();
                if !aggregates.starts.is_empty() && visit(turn * at_a_time + at, aggregates).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn gathered(
        &self,
        site: &SiteName,
        groups: &[Vec<Arc<Series>>],
        steps: &Steps,
        functions: &[Function],
        halt: &Halt<'_>,
    ) -> Result<Vec<Option<Accumulator>>, ScanError> {
        let mut sorted: Vec<(Arc<Series>, usize)> = groups
            .iter()
            .enumerate()
            .flat_map(|(at, group)| group.iter().map(move |series| (Arc::clone(series), at)))
            .collect();
        // One series a group stands in order already.
        if !sorted.is_sorted() {
            sorted.sort_unstable();
        }
        let (series, of_group): (Vec<_>, Vec<_>) = sorted.into_iter().unzip();
        let mut gathered: Vec<Option<Accumulator>> = Vec::new();
        gathered.resize_with(groups.len(), || None);
        let mut alike = true;
        self.shared().aggregate(site, &series, steps, functions, halt, &mut |at, more| {
            let place = of_group.get(at).and_then(|group| gathered.get_mut(*group));
            match place {
                Some(Some(all)) => alike &= all.merge(&more).is_ok(),
                Some(none) => *none = Some(more),
                None => {}
            }
            ControlFlow::Continue(())
        })?;
        debug_assert!(alike, "all were made of the same steps and functions");
        Ok(gathered)
    }

    /// How many points a site has within a range (ns), where that can be told without a look at its series. `None` says that series
    /// may share points: then [`Store::aggregate`] counts them.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn count(&self, site: &SiteName, range: &RangeInclusive<i64>) -> Result<Option<u64>, ReadError> {
        self.shared().count_apart(site, range)
    }
}
