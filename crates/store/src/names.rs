//! The series of each site, by name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock};

use tidelog_record::{Series, SiteName};

use crate::shared::{read_locked, write_locked};

#[derive(Debug, Default)]
pub(crate) struct Names(RwLock<BTreeMap<SiteName, BTreeSet<Arc<Series>>>>);

impl Names {
    pub fn ensure(&self, site: &SiteName, canonical: &[u8]) {
        let Ok(series) = Series::from_canonical(canonical) else { return };
        let mut sites = write_locked(&self.0);
        sites.entry(site.clone()).or_default().insert(Arc::new(series));
    }

    pub fn matching(&self, site: &SiteName, matches: &dyn Fn(&Series) -> bool) -> Vec<Arc<Series>> {
        let sites = read_locked(&self.0);
        sites.get(site).into_iter().flatten().filter(|series| matches(series)).cloned().collect()
    }

    pub fn sites(&self) -> Vec<SiteName> {
        read_locked(&self.0).keys().cloned().collect()
    }

    pub fn len(&self) -> u64 {
        read_locked(&self.0).values().map(|series| series.len() as u64).sum()
    }
}
