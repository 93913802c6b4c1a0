//! Maps of trimmed log files while a store is checked: that each is whole, and that every record it names is held somewhere or was
//! dropped by policy. A map is read twice, so that never more than one is in memory.

use std::path::PathBuf;
use std::sync::Arc;

use tidelog_record::Lsn;

use super::{Check, Flaw, Piece, VerifyError};
use crate::disk::{DiskFile, OpenMode};
use crate::recovery::{LOG_DIR, MAP_SUFFIX, first_of_name, map_name, read_map};
use crate::trimmed::{self, MapError};

/// A map that is going to be checked.
pub(super) struct Opened {
    pub first: u64,
    /// From the store's folder.
    name: String,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    pub length: u64,
    /// The position behind its last; `None` when it cannot be used.
    next: Option<u64>,
}

impl Opened {
    pub fn piece(&self) -> Piece {
        Piece { first: self.first, next: self.next, name: self.name.clone() }
    }
}

/// First positions of the maps among `names`, ascending.
pub(super) fn firsts(names: &[String]) -> Vec<u64> {
    let mut firsts: Vec<u64> = names.iter().filter_map(|name| first_of_name(name, MAP_SUFFIX)).collect();
    firsts.sort_unstable();
    firsts
}

impl Check<'_> {
    pub(super) fn open_map(&mut self, first: u64) -> Result<Opened, VerifyError> {
        let base = map_name(first);
        let path = self.dir.join(LOG_DIR).join(&base);
        let name = format!("{LOG_DIR}/{base}");
        let file = self.disk.open(&path, OpenMode::Read).map_err(self.io("open", &path))?;
        let length = file.len().map_err(self.io("read", &path))?;
        let mut next = None;
        match read_map(file.as_ref()).map_err(self.io("read", &path))? {
            Ok(map) if map.first != first => {
                self.found.tell(&name, 0, Flaw::Misnamed { should: map_name(map.first) });
            }
            Ok(map) => {
                if self.found.node.is_some_and(|node| node != map.node) {
                    self.found.tell(&name, 0, Flaw::OtherNode(map.node));
                }
                next = map.last().checked_add(1);
            }
            Err(MapError::Version(found)) => {
                return Err(VerifyError::Version { path, found, supported: trimmed::VERSION });
            }
            Err(MapError::Damaged) => self.found.tell(&name, 0, Flaw::Map),
        }
        Ok(Opened { first, name, path, file, length, next })
    }

    /// Tells of what a map names and nothing holds. All else must have been met before.
    pub(super) fn map(&mut self, opened: &Opened) -> Result<(), VerifyError> {
        let map = match opened.next {
            Some(_) => read_map(opened.file.as_ref()).map_err(self.io("read", &opened.path))?.ok(),
            None => None,
        };
        for stretch in map.iter().flat_map(|map| &map.stretches) {
            let stream = stretch.stream.and_then(|at| map.as_ref()?.streams.get(usize::try_from(at).ok()?));
            let last = stretch.records.checked_sub(1).and_then(|more| stretch.lsn.checked_add(more));
            let Some((stream, last)) = stream.zip(last) else { continue };
            for (first, last) in self.chains.missing(&stream.key(), Lsn(stretch.lsn), Lsn(last)) {
                self.found.tell(&opened.name, 0, Flaw::Lost { stream: stream.clone(), first, last });
            }
        }
        self.advance(opened.length)
    }
}
