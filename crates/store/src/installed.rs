//! What is sealed, when a store opens: every segment and every note of a gap, before the log is read. Of segments that cover
//! one another the larger stays; what cannot be read is set apart. Only footers are read here; the scrub reads the rest.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use tidelog_record::Seal;

use crate::disk::{Disk, DiskFile, OpenMode, read_full};
use crate::errors::{Finding, OpenError};
use crate::gap::{self, Gap, GapError, NOTE_BYTES_MAX};
use crate::index::Index;
use crate::recovery::{at, move_to_quarantine};
use crate::sealed::{
    GAP_SUFFIX, NEW_SUFFIX, SEGMENT_DIR, SEGMENT_SUFFIX, Sealed, hash_of_name, range_name, segment_name,
};
use crate::segment::{Cache, Segment, SegmentError};

/// Reads what is sealed under `dir` into the index.
pub(crate) fn install_all(
    disk: &dyn Disk,
    dir: &Path,
    cache: &Arc<Cache>,
    index: &mut Index,
    findings: &mut Vec<Finding>,
) -> Result<(), OpenError> {
    let folder = dir.join(SEGMENT_DIR);
    disk.make_dir(&folder).map_err(at("make", &folder))?;
    let mut names = disk.list(&folder).map_err(at("list", &folder))?;
    names.sort_unstable();
    // Nothing is moved or removed before all is known to be of a version that this program reads.
    let (mut segments, mut damaged, mut unfinished) = (Vec::new(), Vec::new(), Vec::new());
    for name in names {
        let path = folder.join(&name);
        if has_suffix(&name, SEGMENT_SUFFIX) {
            let file = disk.open(&path, OpenMode::Read).map_err(at("open", &path))?;
            match Segment::open(file, Arc::clone(cache)) {
                Ok(segment) => match seal_of(&name, &segment) {
                    Some(seal) => segments.push((name, seal, segment)),
                    None => damaged.push(name),
                },
                Err(SegmentError::Io(error)) => {
                    let source = io::Error::new(error.kind(), error);
                    return Err(OpenError::Io { what: "read", path, source });
                }
                Err(SegmentError::Version { found, supported }) => {
                    return Err(OpenError::Version { path, found, supported });
                }
                Err(_) => damaged.push(name),
            }
        } else if has_suffix(&name, NEW_SUFFIX) {
            unfinished.push(path);
        } else if has_suffix(&name, GAP_SUFFIX) {
            match read_gap(disk, &path, &name)? {
                Some(gap) => {
                    let key = gap.stream.key();
                    index.declare(key, &gap.stream);
                    index.dig(&key, gap);
                }
                None => damaged.push(name),
            }
        }
    }
    for name in damaged {
        set_apart(disk, dir, name, findings)?;
    }
    for path in unfinished {
        // It was being written when the process ended; it is made again.
        disk.remove(&path).map_err(at("remove", &path))?;
    }
    // The ones that hold more come first, and cover what they were made of.
    segments.sort_by_key(|(_, seal, _)| std::cmp::Reverse(seal.parts));
    for (name, seal, segment) in segments {
        let held = index.streams.get(&segment.span().stream.key());
        if let Some(covering) = held.and_then(|stream| stream.sealed_of(seal.first)) {
            // A part of it that was left behind by a crash. Where the whole rotted, the part may still be worth something.
            if is_whole(&covering.segment, covering.seal).map_err(at("read", &folder))? {
                disk.remove(&folder.join(&name)).map_err(at("remove", &folder.join(&name)))?;
            }
            continue;
        }
        let gap = held.and_then(|stream| stream.gap_of(seal.first));
        match gap.map(Gap::by_policy) {
            // The process ended between note and deed.
            Some(true) => disk.remove(&folder.join(&name)).map_err(at("remove", &folder.join(&name)))?,
            Some(false) if !is_whole(&segment, seal).map_err(at("read", &folder.join(&name)))? => {
                set_apart(disk, dir, name, findings)?;
            }
            Some(false) | None => install(index, name, seal, segment).map_err(at("read", &folder))?,
        }
    }
    let sites: Vec<_> = index.sites.keys().cloned().collect();
    for site in &sites {
        index.raise_horizon_to_gaps(site);
    }
    Ok(())
}

fn is_whole(segment: &Segment, seal: Seal) -> io::Result<bool> {
    match segment.verify(Some(seal.hash), &mut |_| ControlFlow::Continue(())) {
        Ok(()) => Ok(true),
        Err(SegmentError::Io(error)) => Err(io::Error::new(error.kind(), error)),
        Err(_) => Ok(false),
    }
}

fn set_apart(
    disk: &dyn Disk,
    dir: &Path,
    name: String,
    findings: &mut Vec<Finding>,
) -> Result<(), OpenError> {
    let folder = dir.join(SEGMENT_DIR);
    move_to_quarantine(disk, dir, &folder, &name).map_err(at("set apart", &folder.join(&name)))?;
    findings.push(Finding::SegmentQuarantined { file: name });
    Ok(())
}

pub(crate) fn has_suffix(name: &str, suffix: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, found)| found == suffix)
}

/// What the author said of a segment, if its file has the name that such a one has.
pub(crate) fn seal_of(name: &str, segment: &Segment) -> Option<Seal> {
    let span = segment.span();
    let hash = hash_of_name(name)?;
    let seal = Seal { first: span.first, last: span.last, ordinal: span.ordinal, parts: span.parts, hash };
    (segment_name(&span.stream.key(), &seal) == name).then_some(seal)
}

/// Reads a whole note.
pub(crate) fn read_note(file: &dyn DiskFile) -> io::Result<Result<Gap, GapError>> {
    let mut bytes = vec![0; NOTE_BYTES_MAX + 1];
    let read = read_full(file, &mut bytes, 0)?;
    bytes.truncate(read);
    Ok(Gap::decode(&bytes))
}

fn read_gap(disk: &dyn Disk, path: &Path, name: &str) -> Result<Option<Gap>, OpenError> {
    let file = disk.open(path, OpenMode::Read).map_err(at("open", path))?;
    let is_its_name =
        |gap: &Gap| range_name(&gap.stream.key(), gap.seal.first, gap.seal.last, GAP_SUFFIX) == name;
    match read_note(file.as_ref()).map_err(at("read", path))? {
        Ok(gap) => Ok(Some(gap).filter(is_its_name)),
        Err(GapError::Damaged) => Ok(None),
        Err(GapError::Version(found)) => {
            Err(OpenError::Version { path: path.to_owned(), found, supported: gap::VERSION })
        }
    }
}

fn install(index: &mut Index, name: String, seal: Seal, segment: Segment) -> io::Result<()> {
    let span = segment.span();
    let (stream, key) = (span.stream.clone(), span.stream.key());
    let last = seal.last;
    let (before, after) = (span.before, span.after);
    let held = index.declare(key, &stream);
    if held.sealed_of(last).is_some() {
        return Ok(());
    }
    let origins = match segment.origins() {
        Ok(origins) => origins,
        Err(SegmentError::Io(error)) => return Err(io::Error::new(error.kind(), error)),
        // The scrub or a reader finds the same and sets it apart.
        Err(_) => BTreeMap::new(),
    };
    held.install(Arc::new(Sealed::new(Arc::new(segment), seal, before, after, name)));
    for ((device, epoch), ranges) in origins {
        let held = index.devices.entry(device).or_default().entry(epoch).or_default();
        for (from, to) in ranges.iter() {
            held.insert(from, to);
        }
    }
    Ok(())
}
