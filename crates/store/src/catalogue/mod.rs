//! The series of all sites, found by their labels, and beside them the small state that has no other home: cursors and the
//! device registry. All of it stands in one sled folder and none of it is the only copy of anything: a folder that is gone or
//! damaged is begun anew, and the store enters every series again from its log and segments.
//!
//! sled alone would hold a series in some 500 bytes of folder and as many of memory, at 5 µs for each of its labels; so what is
//! kept there are pages of many series, written in order (`run`). New series wait in memory until they make a run; the
//! log has them until [`Catalogue::flush`] has returned. This module knows no points and no records.

mod absent;
mod error;
mod folder;
mod generations;
mod known;
mod matcher;
mod merge;
mod noted;
mod numbers;
mod opening;
mod order;
mod registry;
mod run;
mod select;
mod shelf;
mod site;
mod varint;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use tidelog_record::{Series, SiteName};

use absent::Absent;
pub use error::CatalogueError;
pub(crate) use folder::{open_folder, open_or_begin};
pub use matcher::{MatchOp, Matcher, MatcherError, REGEX_BYTES_MAX};
pub(crate) use registry::Registry;
pub use registry::{CURSOR_NAME_BYTES_MAX, DEVICE_ENTRY_BYTES_MAX};

use crate::at_hand::may_wait;
use crate::shared::{locked, read_locked, write_locked};
use folder::Opened;
use generations::Generations;
use known::Known;
use noted::Noted;
use run::{Names, Run, remove_run, site_and_run};
use select::{Answers, SeriesCache, each_label, each_value};
#[doc(hidden)]
pub use shelf::Page;
use shelf::{Batch, Shelf};
use site::{Site, View, read_name};

/// Series in memory with which a question makes a run of them first: they are looked at one by one.
const PENDING_LOOKED_AT_MAX: usize = 256;
/// Series in memory that make a run, if there is memory for so many.
const PENDING_MAX: usize = 16_384;
/// What a series in memory takes besides its name, in bytes.
const PENDING_BYTES_EACH: usize = 64;
/// Sites that can be told apart.
const SITES_MAX: usize = 1 << 20;
/// The key of a site begins so.
const SITE_KEY: u8 = b'S';

/// What enters series, one at a time.
#[derive(Debug, Default)]
struct Entering {
    pending: usize,
    pending_bytes: usize,
    /// Whether it was tried to know all series by hash.
    warmed: bool,
    /// Whether what is not known by hash may be on disk.
    may_be_on_disk: bool,
    /// Made when not all can be known by hash.
    absent: Absent,
}

/// The series of all sites.
#[derive(Debug)]
pub struct Catalogue {
    shelf: Shelf,
    noted: Noted,
    sites: RwLock<BTreeMap<SiteName, Arc<Site>>>,
    entering: Mutex<Entering>,
    known: Known,
    series: SeriesCache,
    answers: Answers,
    pending_bytes_max: usize,
    absent_bytes: usize,
}

impl Catalogue {
    /// A catalogue that lasts as long as the process.
    #[must_use]
    pub fn in_memory(memory_bytes_max: usize) -> Self {
        Self::empty(Shelf::in_memory(), Noted::default(), memory_bytes_max)
    }

    /// Opens the catalogue in a folder of its own; the second value says why it had to be begun anew, if it had to. `None` where
    /// there is no folder to be had.
    ///
    /// # Errors
    /// What the disk said.
    pub fn open(folder: &Path, memory_bytes_max: usize) -> Result<(Self, Option<String>), CatalogueError> {
        let open = |folder: &Path| {
            open_folder(folder, memory_bytes_max / 4, |opened| Ok(Self::on(opened, memory_bytes_max)?))
        };
        open_or_begin(folder, open).map_err(|reason| CatalogueError::Disk(Arc::from(reason)))
    }

    fn empty(shelf: Shelf, noted: Noted, memory_bytes_max: usize) -> Self {
        Self {
            shelf,
            noted,
            sites: RwLock::default(),
            entering: Mutex::default(),
            known: Known::new(memory_bytes_max / 8),
            series: Mutex::new(Generations::new(memory_bytes_max / 4)),
            answers: Answers::new(memory_bytes_max / 8),
            pending_bytes_max: memory_bytes_max / 8,
            absent_bytes: memory_bytes_max / 8,
        }
    }

    /// Reads what stands in an open folder and checks every page of it.
    pub(crate) fn on(opened: &mut Opened, memory_bytes_max: usize) -> Result<Self, CatalogueError> {
        let tree = opened.db.open_tree("series")?;
        Self::read(Shelf::Sled(tree), std::mem::take(&mut opened.noted), memory_bytes_max)
    }

    /// A catalogue in memory, of pages whose checksums are put right: for whoever tries what is made of forged ones.
    ///
    /// # Errors
    /// [`CatalogueError::Damaged`] when the pages are none.
    #[doc(hidden)]
    pub fn forged(pages: Vec<Page>, memory_bytes_max: usize) -> Result<Self, CatalogueError> {
        let (shelf, mut batch) = (Shelf::in_memory(), Batch::default());
        for (key, value) in pages {
            batch.set(key, &value);
        }
        shelf.apply(batch)?;
        Self::read(shelf, Noted::default(), memory_bytes_max)
    }

    /// Its pages, in order of their keys, without checksums.
    ///
    /// # Errors
    /// [`CatalogueError`].
    #[doc(hidden)]
    pub fn pages(&self) -> Result<Vec<Page>, CatalogueError> {
        let mut pages = Vec::new();
        self.shelf.each(&[], &mut |key, value| {
            pages.push((key.to_vec(), value.to_vec()));
            Ok(())
        })?;
        Ok(pages)
    }

    fn read(shelf: Shelf, noted: Noted, memory_bytes_max: usize) -> Result<Self, CatalogueError> {
        let catalogue = Self::empty(shelf, noted, memory_bytes_max);
        let shelf = &catalogue.shelf;
        let mut left_over = Vec::new();
        shelf.each(b"X", &mut |key, _| {
            left_over.extend(site_and_run(key));
            Ok(())
        })?;
        for (site, run) in left_over {
            remove_run(shelf, site, run)?;
        }
        let mut sites = BTreeMap::new();
        shelf.each(&[SITE_KEY], &mut |key, number| {
            let name =
                std::str::from_utf8(key.get(1..).unwrap_or_default()).ok().and_then(|n| n.parse().ok());
            let number = number.try_into().ok().map(u32::from_be_bytes);
            let (Some(name), Some(number)) = (name, number) else {
                return Err(CatalogueError::Damaged("a site's entry"));
            };
            sites.insert(number, (name, Vec::new()));
            Ok(())
        })?;
        shelf.each(b"D", &mut |key, value| {
            let run = Run::read(key, value).ok_or(CatalogueError::Damaged("a run's head"))?;
            let (_, runs) = sites.get_mut(&run.site).ok_or(CatalogueError::Damaged("a run of no site"))?;
            runs.push(run);
            Ok(())
        })?;
        for (number, (name, runs)) in sites {
            for run in &runs {
                run.check(shelf)?;
            }
            locked(&catalogue.entering).may_be_on_disk |= !runs.is_empty();
            write_locked(&catalogue.sites).insert(name, Arc::new(Site::new(number, runs)));
        }
        if catalogue.series_count_all() < catalogue.noted.series() {
            return Err(CatalogueError::Damaged("series that were durable are gone"));
        }
        Ok(catalogue)
    }

    fn site(&self, site: &SiteName) -> Option<Arc<Site>> {
        read_locked(&self.sites).get(site).cloned()
    }

    /// Makes sure that a series is in the catalogue; answers whether it is new. Cheap for one that was met lately.
    ///
    /// # Errors
    /// [`CatalogueError`]; then the series is not entered, so what waits in memory stays bounded when the disk refuses.
    pub fn ensure(&self, site: &SiteName, canonical: &[u8]) -> Result<bool, CatalogueError> {
        let hash = self.known.hash(site, canonical);
        if self.known.has(&hash) {
            return Ok(false);
        }
        let mut entering = locked(&self.entering);
        self.warm(&mut entering)?;
        // Another thread may have entered it since, or the warming met it.
        if self.known.has(&hash) {
            return Ok(false);
        }
        let series = Series::from_canonical(canonical)?;
        let name = order::key_of(&series);
        if entering.pending >= PENDING_MAX || entering.pending_bytes >= self.pending_bytes_max {
            self.settle(&mut entering)?;
        }
        let entered = self.site_or_new(site)?;
        let in_runs = self.may_be_in_runs(hash, &mut entering)?;
        let new = !entered.contains(&self.shelf, &name, in_runs)?;
        if new {
            entering.pending += 1;
            entering.pending_bytes += name.len() + PENDING_BYTES_EACH;
            entered.enter(name);
        }
        self.known.add(hash);
        if entering.absent.is_made() {
            entering.absent.add(hash);
        }
        Ok(new)
    }

    /// Learns all series by hash, once, if there is memory for that.
    fn warm(&self, entering: &mut MutexGuard<'_, Entering>) -> Result<(), CatalogueError> {
        if entering.warmed {
            return Ok(());
        }
        if self.series_count_all() <= self.known.room() / 2 {
            self.each_hash(&mut |hash| self.known.add(hash))?;
            entering.may_be_on_disk = false;
        }
        entering.warmed = true;
        Ok(())
    }

    /// Visits the hashes of all series.
    fn each_hash(&self, visit: &mut dyn FnMut((u64, u64))) -> Result<(), CatalogueError> {
        let sites = read_locked(&self.sites).clone();
        for (name, site) in sites {
            let mut learn = |key: &[u8]| {
                let canonical = order::canonical_of(key).ok_or(CatalogueError::Damaged("a name is none"))?;
                visit(self.known.hash(&name, &canonical));
                Ok::<_, CatalogueError>(())
            };
            let view = site.view();
            view.pending.iter().try_for_each(|key| learn(key))?;
            for run in view.runs {
                let mut names = Names::of(&run, &self.shelf);
                while let Some(key) = names.next()? {
                    learn(&key)?;
                }
            }
        }
        Ok(())
    }

    /// Whether a series that is not known by hash has to be looked for in the runs.
    fn may_be_in_runs(
        &self,
        hash: (u64, u64),
        entering: &mut MutexGuard<'_, Entering>,
    ) -> Result<bool, CatalogueError> {
        if !entering.may_be_on_disk && self.known.has_all() {
            return Ok(false);
        }
        if !entering.absent.is_made() {
            let mut absent = Absent::new(self.absent_bytes);
            self.each_hash(&mut |hash| absent.add(hash))?;
            entering.absent = absent;
        }
        Ok(!entering.absent.is_sure(hash))
    }

    fn site_or_new(&self, name: &SiteName) -> Result<Arc<Site>, CatalogueError> {
        if let Some(site) = self.site(name) {
            return Ok(site);
        }
        let mut sites = write_locked(&self.sites);
        if sites.len() >= SITES_MAX {
            return Err(CatalogueError::Full("more sites than can be numbered"));
        }
        let number =
            sites.values().map(|site| site.number()).max().map_or(0, |number| number.saturating_add(1));
        let mut batch = Batch::default();
        batch.set([&[SITE_KEY], name.as_str().as_bytes()].concat(), &number.to_be_bytes());
        self.shelf.apply(batch)?;
        let site = Arc::new(Site::new(number, Vec::new()));
        sites.insert(name.clone(), Arc::clone(&site));
        Ok(site)
    }

    /// Makes runs of what is in memory. Where nobody tends the catalogue, merges what has become too many.
    fn settle(&self, entering: &mut MutexGuard<'_, Entering>) -> Result<(), CatalogueError> {
        let sites: Vec<_> = read_locked(&self.sites).values().cloned().collect();
        for site in sites {
            site.settle(&self.shelf)?;
            if site.is_crowded() {
                site.tend(&self.shelf)?;
            }
        }
        (entering.pending, entering.pending_bytes) = (0, 0);
        Ok(())
    }

    /// What a question looks at: few series in memory, the rest in runs.
    fn view(&self, site: &Site) -> Result<View, CatalogueError> {
        if site.pending() > PENDING_LOOKED_AT_MAX {
            self.settle(&mut locked(&self.entering))?;
        }
        Ok(site.view())
    }

    /// The series that meet all conditions, in the order of [`Series`]; all of the site's when there are no conditions. Within
    /// [`crate::at_hand`] only what was asked before is answered: looking may take long, and a disk.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub fn select(&self, site: &SiteName, matchers: &[Matcher]) -> Result<Vec<Arc<Series>>, CatalogueError> {
        let Some(site) = self.site(site) else { return Ok(Vec::new()) };
        let question = Answers::question(site.number(), matchers);
        if let Some(answer) = self.answers.get(&question, site.series()) {
            return Ok(answer);
        }
        if !may_wait() {
            return Ok(Vec::new());
        }
        let view = self.view(&site)?;
        let answer = select::select(&self.shelf, &self.series, &view, matchers)?;
        self.answers.put(question, view.series, &answer);
        Ok(answer)
    }

    /// The sites that have series, in order.
    #[must_use]
    pub fn sites(&self) -> Vec<SiteName> {
        let sites = read_locked(&self.sites);
        sites.iter().filter(|(_, site)| site.series() > 0).map(|(name, _)| name.clone()).collect()
    }

    /// How many series a site has.
    #[must_use]
    pub fn series_count(&self, site: &SiteName) -> u64 {
        self.site(site).map_or(0, |site| site.series())
    }

    /// How many series all sites have.
    #[must_use]
    pub fn series_count_all(&self) -> u64 {
        read_locked(&self.sites).values().map(|site| site.series()).sum()
    }

    /// The names of labels of the series that meet all conditions, in order; `__name__` is among them.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub fn label_names(&self, site: &SiteName, matchers: &[Matcher]) -> Result<Vec<String>, CatalogueError> {
        let mut names = BTreeSet::new();
        if matchers.is_empty() {
            let Some(site) = self.site(site) else { return Ok(Vec::new()) };
            let view = self.view(&site)?;
            for run in view.runs {
                each_label(&self.shelf, &run, &mut |label| {
                    names.insert(label.to_owned());
                })?;
            }
            for name in view.pending.iter() {
                let series = read_name(name)?;
                names.insert(order::METRIC_LABEL.to_owned());
                names.extend(series.labels().map(|(label, _)| label.to_owned()));
            }
        } else {
            for series in self.select(site, matchers)? {
                names.insert(order::METRIC_LABEL.to_owned());
                names.extend(series.labels().map(|(label, _)| label.to_owned()));
            }
        }
        Ok(names.into_iter().collect())
    }

    /// The values that a label has in the series that meet all conditions, in order.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub fn label_values(
        &self,
        site: &SiteName,
        label: &str,
        matchers: &[Matcher],
    ) -> Result<Vec<String>, CatalogueError> {
        let mut values = BTreeSet::new();
        if matchers.is_empty() {
            let Some(site) = self.site(site) else { return Ok(Vec::new()) };
            let view = self.view(&site)?;
            for name in view.pending.iter() {
                values.extend(read_name(name)?.label(label).map(str::to_owned));
            }
            for run in view.runs {
                each_value(&self.shelf, &run, label.as_bytes(), "", &mut |value, _| {
                    if !values.contains(value) {
                        values.insert(value.to_owned());
                    }
                    Ok(())
                })?;
            }
        } else {
            for series in self.select(site, matchers)? {
                values.extend(series.label(label).map(str::to_owned));
            }
        }
        Ok(values.into_iter().collect())
    }

    /// Merges some runs if there are many. Answers whether there is more to do: call it again, from a thread that may take its time.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub fn tend(&self) -> Result<bool, CatalogueError> {
        let sites: Vec<_> = read_locked(&self.sites).values().cloned().collect();
        let mut more = false;
        for site in sites {
            more |= site.tend(&self.shelf)?;
        }
        Ok(more)
    }

    /// Makes all that was entered durable. Before the log drops the record that first names a series, this must have returned.
    ///
    /// # Errors
    /// [`CatalogueError`].
    pub fn flush(&self) -> Result<(), CatalogueError> {
        let mut entering = locked(&self.entering);
        self.settle(&mut entering)?;
        let settled = self.series_count_all();
        drop(entering);
        self.shelf.flush()?;
        self.noted.sync_database()?;
        self.noted.note(settled)
    }

    /// Lets go of what is held in memory to answer quicker.
    pub fn forget_caches(&self) {
        // Whoever enters a series meanwhile would take what is no longer known for new.
        let mut entering = locked(&self.entering);
        self.known.clear();
        self.answers.clear();
        locked(&self.series).clear();
        (entering.warmed, entering.may_be_on_disk, entering.absent) = (false, true, Absent::default());
    }
}

#[cfg(test)]
mod tests;
