//! What is sealed, when a store opens: every segment and every note of a gap, before the log is read. Of segments that cover
//! one another the larger stays; what cannot be read is set apart. Only footers are read here; the scrub reads the rest.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use tidelog_record::{DeviceId, Lsn, Seal};

use crate::disk::{Disk, OpenMode, read_full};
use crate::errors::{Finding, OpenError};
use crate::gap::{self, Gap, GapError, NOTE_BYTES_MAX};
use crate::index::Index;
use crate::recovery::{at, move_to_quarantine};
use crate::sealed::{GAP_SUFFIX, SEGMENT_DIR, SEGMENT_SUFFIX, Sealed, range_name};
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
    let mut segments = Vec::new();
    for name in names {
        let path = folder.join(&name);
        if has_suffix(&name, SEGMENT_SUFFIX) {
            let file = disk.open(&path, OpenMode::Read).map_err(at("open", &path))?;
            match Segment::open(file, Arc::clone(cache)) {
                Ok(segment) if is_name_of(&name, &segment) => segments.push((name, segment)),
                Err(SegmentError::Io(source)) => return Err(OpenError::Io { what: "read", path, source }),
                Err(SegmentError::Version { found, supported }) => {
                    return Err(OpenError::Version { path, found, supported });
                }
                _ => {
                    move_to_quarantine(disk, dir, &folder, &name)?;
                    findings.push(Finding::SegmentQuarantined { file: name });
                }
            }
        } else if has_suffix(&name, GAP_SUFFIX) {
            match read_gap(disk, &path)? {
                Some(gap) => {
                    let key = gap.stream.key();
                    index.declare(key, &gap.stream);
                    index.dig(&key, gap);
                }
                None => {
                    move_to_quarantine(disk, dir, &folder, &name)?;
                    findings.push(Finding::SegmentQuarantined { file: name });
                }
            }
        }
    }
    // The ones that hold more come first, and cover what they were made of.
    segments.sort_by_key(|(_, segment)| std::cmp::Reverse(segment.span().parts));
    for (name, segment) in segments {
        install(index, name, segment).map_err(|source| OpenError::Io { what: "read", path: folder.clone(), source })?;
    }
    Ok(())
}

fn has_suffix(name: &str, suffix: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, found)| found == suffix)
}

fn is_name_of(name: &str, segment: &Segment) -> bool {
    let span = segment.span();
    range_name(&span.stream.key(), span.first, span.last, SEGMENT_SUFFIX) == name
}

fn read_gap(disk: &dyn Disk, path: &Path) -> Result<Option<Gap>, OpenError> {
    let file = disk.open(path, OpenMode::Read).map_err(at("open", path))?;
    let mut bytes = vec![0; NOTE_BYTES_MAX + 1];
    let read = read_full(file.as_ref(), &mut bytes, 0).map_err(at("read", path))?;
    bytes.truncate(read);
    match Gap::decode(&bytes) {
        Ok(gap) => Ok(Some(gap)),
        Err(GapError::Damaged) => Ok(None),
        Err(GapError::Version(found)) => {
            Err(OpenError::Version { path: path.to_owned(), found, supported: gap::VERSION })
        }
    }
}

fn install(index: &mut Index, name: String, segment: Segment) -> std::io::Result<()> {
    let span = segment.span();
    let (stream, key) = (span.stream.clone(), span.stream.key());
    let (first, last): (Lsn, Lsn) = (span.first, span.last);
    let seal = Seal { first, last, ordinal: span.ordinal, parts: span.parts, hash: segment.hash() };
    let (before, after) = (span.before, span.after);
    let held = index.declare(key, &stream);
    // A part that was left behind by a crash, or a segment that policy or rot removed and whose file came too late to go.
    if held.sealed_of(first).is_some() || held.sealed_of(last).is_some() {
        return Ok(());
    }
    let origins = match segment.origins() {
        Ok(origins) => origins,
        Err(SegmentError::Io(error)) => return Err(error),
        // The scrub or a reader finds the same and sets it apart.
        Err(_) => Vec::new(),
    };
    held.install(Arc::new(Sealed { segment, seal, before, after, name }));
    let mut by_device: HashMap<(DeviceId, u32), Vec<(u64, u64)>> = HashMap::new();
    for (device, epoch, from, to) in origins {
        by_device.entry((device, epoch)).or_default().push((from, to));
    }
    for ((device, epoch), ranges) in by_device {
        let held = index.devices.entry(device).or_default().entry(epoch).or_default();
        for (from, to) in ranges {
            held.insert(from, to);
        }
    }
    Ok(())
}
