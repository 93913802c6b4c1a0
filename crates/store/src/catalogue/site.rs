//! The series of one site: runs on the shelf, and the newest ones in memory until they make a run. Readers see a run or what
//! it was made from, never both and never neither.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, RwLock};

use tidelog_record::Series;

use super::error::CatalogueError;
use super::merge::merge;
use super::numbers::Numbers;
use super::order::{key_of, series_of};
use super::run::{Run, RunWriter, postings_of};
use super::shelf::Shelf;
use crate::shared::{locked, read_locked, write_locked};

/// Runs of one level that are merged into one of the next.
const RUNS_PER_LEVEL: usize = 8;
/// Runs of one level with which entering series merges by itself, where nobody tends the catalogue.
const RUNS_PER_LEVEL_MAX: usize = 32;
/// What readers of a site see.
#[derive(Debug, Default)]
struct Seen {
    runs: Vec<Arc<Run>>,
    pending: Arc<BTreeSet<Vec<u8>>>,
    series: u64,
}

/// The series of one site.
#[derive(Debug)]
pub(super) struct Site {
    number: u32,
    seen: RwLock<Seen>,
    next_run: Mutex<u32>,
    merging: Mutex<()>,
    /// Replaced runs that someone may still read.
    replaced: Mutex<Vec<Arc<Run>>>,
}

/// What one question looks at.
#[derive(Debug)]
pub(super) struct View {
    pub runs: Vec<Arc<Run>>,
    pub pending: Arc<BTreeSet<Vec<u8>>>,
    pub series: u64,
}

impl Site {
    pub fn new(number: u32, runs: Vec<Run>) -> Self {
        let series = runs.iter().map(|run| u64::from(run.count)).sum();
        let next_run = runs.iter().map(|run| run.id).max().map_or(0, |id| id.saturating_add(1));
        let runs = runs.into_iter().map(Arc::new).collect();
        Self {
            number,
            seen: RwLock::new(Seen { runs, series, ..Seen::default() }),
            next_run: Mutex::new(next_run),
            merging: Mutex::default(),
            replaced: Mutex::default(),
        }
    }

    pub fn number(&self) -> u32 {
        self.number
    }

    pub fn series(&self) -> u64 {
        read_locked(&self.seen).series
    }

    pub fn pending(&self) -> usize {
        read_locked(&self.seen).pending.len()
    }

    pub fn view(&self) -> View {
        let seen = read_locked(&self.seen);
        View { runs: seen.runs.clone(), pending: Arc::clone(&seen.pending), series: seen.series }
    }

    /// Whether the series is in memory or, if asked, in a run.
    pub fn contains(&self, shelf: &Shelf, name: &[u8], in_runs: bool) -> Result<bool, CatalogueError> {
        let view = self.view();
        if view.pending.contains(name) {
            return Ok(true);
        }
        for run in view.runs.iter().filter(|_| in_runs) {
            if run.contains(shelf, name)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Enters a series that is not there. One thread at a time enters and settles.
    pub fn enter(&self, name: Vec<u8>) {
        let mut seen = write_locked(&self.seen);
        seen.series += 1;
        Arc::make_mut(&mut seen.pending).insert(name);
    }

    fn draw_run(&self) -> Result<u32, CatalogueError> {
        let mut next = locked(&self.next_run);
        let drawn = *next;
        *next = drawn.checked_add(1).ok_or(CatalogueError::Full("more runs than can be numbered"))?;
        Ok(drawn)
    }

    /// Makes a run of what is in memory.
    pub fn settle(&self, shelf: &Shelf) -> Result<(), CatalogueError> {
        let pending = Arc::clone(&read_locked(&self.seen).pending);
        if pending.is_empty() {
            return Ok(());
        }
        let mut writer = RunWriter::begin(shelf, self.number, self.draw_run()?, 0)?;
        let mut postings: BTreeMap<Vec<u8>, Vec<u32>> = BTreeMap::new();
        for name in pending.iter() {
            let number = writer.name(name)?;
            let labels = postings_of(name).ok_or(CatalogueError::Damaged("a name in memory is none"))?;
            for posting in labels {
                postings.entry(posting).or_default().push(number);
            }
        }
        writer.end_names()?;
        for (posting, numbers) in postings {
            writer.posting(&posting, &Numbers::of(numbers))?;
        }
        let run = writer.finish(&[])?;
        let mut seen = write_locked(&self.seen);
        seen.runs.push(Arc::new(run));
        seen.pending = Arc::default();
        Ok(())
    }

    /// Whether there are so many runs that entering should merge.
    pub fn is_crowded(&self) -> bool {
        due(&read_locked(&self.seen).runs, RUNS_PER_LEVEL_MAX).is_some()
    }

    /// Merges some runs if there are many, and removes what nobody reads. Answers whether there is more to do.
    pub fn tend(&self, shelf: &Shelf) -> Result<bool, CatalogueError> {
        let _one_at_a_time = locked(&self.merging);
        let chosen = due(&read_locked(&self.seen).runs, RUNS_PER_LEVEL);
        if let Some((level, chosen)) = chosen {
            let heads: Vec<Run> = chosen.iter().map(|run| **run).collect();
            let merged = merge(shelf, &heads, self.draw_run()?, level.saturating_add(1))?;
            let mut seen = write_locked(&self.seen);
            seen.runs.retain(|run| !chosen.iter().any(|old| old.id == run.id));
            seen.runs.extend(merged.map(Arc::new));
            // The order of runs is the order of their series' coming, as it is after opening.
            seen.runs.sort_unstable_by_key(|run| run.id);
            drop(seen);
            locked(&self.replaced).extend(chosen);
        }
        let unread: Vec<_> =
            locked(&self.replaced).extract_if(.., |run| Arc::strong_count(run) == 1).collect();
        for run in unread {
            run.remove(shelf)?;
        }
        Ok(due(&read_locked(&self.seen).runs, RUNS_PER_LEVEL).is_some())
    }
}

/// The oldest runs of the lowest level that has so many.
fn due(runs: &[Arc<Run>], count: usize) -> Option<(u8, Vec<Arc<Run>>)> {
    let mut levels: BTreeMap<u8, Vec<&Arc<Run>>> = BTreeMap::new();
    for run in runs {
        levels.entry(run.level).or_default().push(run);
    }
    let (level, mut full) = levels.into_iter().find(|(_, runs)| runs.len() >= count)?;
    full.sort_unstable_by_key(|run| run.id);
    Some((level, full.into_iter().take(RUNS_PER_LEVEL).cloned().collect()))
}

/// A series and its key, checked to be each other's.
pub(super) fn read_name(name: &[u8]) -> Result<Series, CatalogueError> {
    let series = series_of(name).ok_or(CatalogueError::Damaged("a name is none"))?;
    debug_assert_eq!(key_of(&series), name);
    Ok(series)
}
