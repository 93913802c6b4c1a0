//! Checks a store that nobody has open: the checksum of every frame, the chain of every stream, both headers of every file, every
//! segment with the hash in its name, every note of one that is gone, every map of a trimmed log file and that nothing it names
//! is lost, the identity. It only reads: what is wrong is told and left as it is, for opening the store is what sets rot apart.
//!
//! Memory is bounded by streams, by gaps in them and by the largest map, not by records. The state folder and the quarantine
//! folder are not checked: the first can be deleted, the second is what was found before. What is sealed comes before the log, so
//! that the log's records are held to what stands before them; maps come last, when it is known what is held.

mod chains;
mod flaw;
mod log;
mod maps;
mod sealed;

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidelog_record::NodeId;

use crate::disk::{Disk, OpenMode, read_full};
use crate::gap::Gap;
use crate::identity::{self, Identity, IdentityError};
use crate::open::LOCK_FILE;
use crate::position::Position;
use crate::recovery::LOG_DIR;

use chains::Chains;

pub use flaw::{Damage, Flaw};

/// Damage that is told one by one; what goes beyond is counted.
pub const DAMAGE_TOLD_MAX: usize = 1_000;

/// Why a store could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// There is no store in the folder.
    #[error("there is no store in {0}")]
    NoStore(PathBuf),
    /// A process has it open.
    #[error("{0} is in use by a running process: stop it first")]
    Locked(PathBuf),
    /// Written by a version that this one cannot read.
    #[error("{path} is in format version {found}, this program reads up to {supported}: use a newer program")]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u16,
        /// The newest version that this program reads.
        supported: u16,
    },
    /// The disk refused.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// The caller ended it.
    #[error("stopped before the end")]
    Stopped,
}

/// How far a check has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes checked.
    pub bytes: u64,
    /// Bytes to check in all.
    pub bytes_total: u64,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// The store's node, if its identity is good.
    pub node: Option<NodeId>,
    /// Log files.
    pub files: u64,
    /// Log files that were trimmed: a map is left of each.
    pub maps: u64,
    /// Good segments.
    pub segments: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Good records whose chain holds.
    pub records: u64,
    /// Records that policy dropped.
    pub records_dropped: u64,
    /// Records that peers had dropped before they came here; only a note of each range is left.
    pub records_never_held: u64,
    /// Streams of which something is held.
    pub streams: u64,
    /// Places where records are missing within a stream: lost to the damage told here or earlier, or not fetched yet.
    pub gaps: u64,
    /// What is wrong, in order of file and offset; no more than [`DAMAGE_TOLD_MAX`].
    pub damage: Vec<Damage>,
    /// Damage beyond that.
    pub damage_untold: u64,
}

impl Verification {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.damage.is_empty()
    }

    /// Tells of a good frame whose body is told from what is lost: it belongs to the rot before it.
    fn unpackable(&mut self, name: &str, at: u64, length: u64) {
        match self.damage.last_mut() {
            Some(Damage { file, offset, flaw: Flaw::Rot { bytes } })
                if file == name && *offset + *bytes == at =>
            {
                *bytes += length;
            }
            _ => self.tell(name, at, Flaw::Rot { bytes: length }),
        }
    }

    fn tell(&mut self, file: &str, offset: u64, flaw: Flaw) {
        if self.damage.len() < DAMAGE_TOLD_MAX {
            self.damage.push(Damage { file: file.to_owned(), offset, flaw });
        } else {
            self.damage_untold += 1;
        }
    }
}

/// A check under way.
struct Check<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    found: Verification,
    chains: Chains,
    bytes_total: u64,
    /// Segments that rotted and were set apart earlier, by the names of their notes.
    awaited: Vec<(String, Gap)>,
    step: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
}

impl Check<'_> {
    /// Tells how far it has come.
    fn advance(&mut self, bytes: u64) -> Result<(), VerifyError> {
        self.found.bytes += bytes;
        let progress = Progress { bytes: self.found.bytes, bytes_total: self.bytes_total };
        if (self.step)(progress).is_break() { Err(VerifyError::Stopped) } else { Ok(()) }
    }

    fn io(&self, what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> VerifyError + use<> {
        let path = path.to_owned();
        move |source| VerifyError::Io { what, path, source }
    }
}

/// Checks the store in `dir` from end to end. `step` is called after each piece of at most some hundred KiB and may show it, sleep,
/// or end the check. A store that is open in a process is left alone.
///
/// # Errors
/// [`VerifyError`]: it could not be checked. Damage is no error, it stands in the [`Verification`].
pub fn verify(
    disk: &dyn Disk,
    dir: &Path,
    step: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Verification, VerifyError> {
    let (found, chains) = (Verification::default(), Chains::default());
    let mut check = Check { disk, dir, found, chains, bytes_total: 0, awaited: Vec::new(), step };
    let names = disk.list(dir).map_err(|error| no_store(error, dir))?;
    let log_dir = dir.join(LOG_DIR);
    let listed = match disk.list(&log_dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(check.io("list", &log_dir)(error));
        }
        listed => listed.unwrap_or_default(),
    };
    let (logs, maps) = (log::firsts(&listed), maps::firsts(&listed));
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    if logs.is_empty() && maps.is_empty() && !has(identity::FILE_NAME) {
        return Err(VerifyError::NoStore(dir.to_owned()));
    }
    // A store makes its lock before anything else: without one, nobody ever had it open here. Held until the end.
    let _lock = if has(LOCK_FILE) {
        let path = dir.join(LOCK_FILE);
        let lock = disk.lock(&path).map_err(check.io("lock", &path))?;
        Some(lock.ok_or_else(|| VerifyError::Locked(dir.to_owned()))?)
    } else {
        None
    };
    check.identity()?;
    let logs = logs.into_iter().map(|first| check.open_log(first)).collect::<Result<Vec<_>, _>>()?;
    let maps = maps.into_iter().map(|first| check.open_map(first)).collect::<Result<Vec<_>, _>>()?;
    let sealed = check.list_sealed()?;
    check.bytes_total = logs.iter().map(|log| log.length).sum::<u64>()
        + maps.iter().map(|map| map.length).sum::<u64>()
        + sealed.iter().map(|found| found.length).sum::<u64>();
    for found in sealed {
        check.sealed(found)?;
    }
    let newest_map = maps.last().map_or(0, |map| map.first);
    let mut pieces: Vec<Piece> = maps.iter().map(maps::Opened::piece).collect();
    for (at, log) in logs.iter().enumerate() {
        let is_last = at + 1 == logs.len() && log.first > newest_map;
        let next = check.log_file(&logs, at, is_last)?;
        // Before the maps: where both are there, the log file says more.
        pieces.insert(at, Piece { first: log.first, next, name: log.name.clone() });
    }
    check.positions(pieces);
    check.lost(&maps)?;
    Ok(check.close(&logs, &maps))
}

/// Positions that a file holds.
struct Piece {
    first: u64,
    /// The first behind them, if that can be told.
    next: Option<u64>,
    /// From the store's folder.
    name: String,
}

fn no_store(error: io::Error, dir: &Path) -> VerifyError {
    if error.kind() == io::ErrorKind::NotFound {
        VerifyError::NoStore(dir.to_owned())
    } else {
        VerifyError::Io { what: "list", path: dir.to_owned(), source: error }
    }
}

impl Check<'_> {
    fn identity(&mut self) -> Result<(), VerifyError> {
        let path = self.dir.join(identity::FILE_NAME);
        let mut bytes = [0u8; identity::BYTES + 1];
        let read = match self.disk.open(&path, OpenMode::Read) {
            Ok(file) => read_full(file.as_ref(), &mut bytes, 0).map_err(self.io("read", &path))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(self.io("open", &path)(error)),
        };
        match Identity::decode(bytes.get(..read).unwrap_or_default()) {
            Ok(identity) => self.found.node = Some(identity.node),
            Err(IdentityError::Damaged) => self.found.tell(identity::FILE_NAME, 0, Flaw::Identity),
            Err(IdentityError::Version(found)) => {
                return Err(VerifyError::Version { path, found, supported: identity::VERSION });
            }
        }
        Ok(())
    }

    /// Tells of positions that no file holds.
    fn positions(&mut self, mut pieces: Vec<Piece>) {
        pieces.sort_by_key(|piece| piece.first);
        pieces.dedup_by_key(|piece| piece.first);
        let mut next = Some(1);
        for piece in pieces {
            if let Some(first) = next.filter(|next| *next < piece.first) {
                let (first, last) = (Position(first), Position(piece.first - 1));
                self.found.tell(&piece.name, 0, Flaw::MissingPositions { first, last });
            }
            next = piece.next;
        }
    }

    /// Tells of records that nothing holds any more: those of segments that rotted earlier, then others that maps name.
    fn lost(&mut self, maps: &[maps::Opened]) -> Result<(), VerifyError> {
        for (name, gap) in std::mem::take(&mut self.awaited) {
            let key = gap.stream.key();
            for (first, last) in self.chains.missing(&key, gap.seal.first, gap.seal.last) {
                self.found.tell(&name, 0, Flaw::Awaited { stream: gap.stream.clone(), first, last });
            }
            self.chains.tell(key, gap.seal.first, gap.seal.last);
        }
        maps.iter().try_for_each(|map| self.map(map))
    }

    /// What only shows when all is read.
    fn close(mut self, logs: &[Arc<log::Opened>], maps: &[maps::Opened]) -> Verification {
        for (file, offset, records) in self.chains.undeclared() {
            let name = logs.get(file).map(|log| log.name.clone()).unwrap_or_default();
            self.found.tell(&name, offset, Flaw::Undeclared { records });
        }
        self.found.damage.sort_by(|a, b| (&a.file, a.offset).cmp(&(&b.file, b.offset)));
        self.found.streams = self.chains.streams();
        self.found.gaps = self.chains.gaps();
        (self.found.files, self.found.maps) = (logs.len() as u64, maps.len() as u64);
        self.found
    }
}
