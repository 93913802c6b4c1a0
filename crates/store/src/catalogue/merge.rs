//! Several runs into one. Memory is a page of each, one posting list, and four bytes for each series of the new run.

use super::error::CatalogueError;
use super::numbers::{Numbers, read_ranges};
use super::run::{Names, Postings, Run, RunWriter};
use super::shelf::Shelf;

const BAD_NUMBER: CatalogueError = CatalogueError::Damaged("a posting names no series");

/// Writes a run of all series in these. Their pages stay until they are removed.
pub(super) fn merge(shelf: &Shelf, runs: &[Run], id: u32, level: u8) -> Result<Option<Run>, CatalogueError> {
    let Some(site) = runs.first().map(|run| run.site) else { return Ok(None) };
    let mut writer = RunWriter::begin(shelf, site, id, level)?;
    let maps = merge_names(shelf, runs, &mut writer)?;
    writer.end_names()?;
    merge_postings(shelf, runs, &maps, &mut writer)?;
    writer.finish(runs).map(Some)
}

/// Answers what number each series of each run has in the new one.
fn merge_names(
    shelf: &Shelf,
    runs: &[Run],
    writer: &mut RunWriter<'_>,
) -> Result<Vec<Vec<u32>>, CatalogueError> {
    let mut maps: Vec<Vec<u32>> = runs.iter().map(|_| Vec::new()).collect();
    let mut heads = Vec::with_capacity(runs.len());
    for (at, run) in runs.iter().enumerate() {
        let mut names = Names::of(run, shelf);
        if let Some(name) = names.next()? {
            heads.push((name, at, names));
        }
    }
    while let Some(least) = heads.iter().map(|(name, _, _)| name).min().cloned() {
        let number = writer.name(&least)?;
        let mut rest = Vec::with_capacity(heads.len());
        for (name, at, mut names) in heads {
            if name != least {
                rest.push((name, at, names));
                continue;
            }
            maps.get_mut(at).ok_or(BAD_NUMBER)?.push(number);
            if let Some(name) = names.next()? {
                rest.push((name, at, names));
            }
        }
        heads = rest;
    }
    Ok(maps)
}

fn merge_postings(
    shelf: &Shelf,
    runs: &[Run],
    maps: &[Vec<u32>],
    writer: &mut RunWriter<'_>,
) -> Result<(), CatalogueError> {
    let mut heads = Vec::with_capacity(runs.len());
    for (run, map) in runs.iter().zip(maps) {
        let mut postings = Postings::from(run, shelf, &[])?;
        if postings.advance()? {
            heads.push((postings, map));
        }
    }
    let (mut numbers, mut ranges) = (Vec::new(), Vec::new());
    while let Some(least) = heads.iter().map(|(postings, _)| postings.posting()).min().map(<[u8]>::to_vec) {
        numbers.clear();
        let mut rest = Vec::with_capacity(heads.len());
        for (mut postings, map) in heads {
            let mut more = true;
            while more && postings.posting() == least {
                ranges.clear();
                read_ranges(postings.list(), &mut ranges).ok_or(BAD_NUMBER)?;
                for number in ranges.iter().flat_map(|(start, end)| *start..*end) {
                    let at = usize::try_from(number).map_err(|_| BAD_NUMBER)?;
                    numbers.push(*map.get(at).ok_or(BAD_NUMBER)?);
                }
                more = postings.advance()?;
            }
            if more {
                rest.push((postings, map));
            }
        }
        heads = rest;
        writer.posting(&least, &Numbers::of(std::mem::take(&mut numbers)))?;
    }
    Ok(())
}
