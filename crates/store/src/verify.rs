//! Checks a store that nobody has open: the checksum of every frame, the chain of every stream, both headers of every file, every
//! segment, the identity. It only reads: what is wrong is told and left as it is, for opening the store is what sets rot apart.
//!
//! Memory is bounded by streams and by gaps in them, not by records. The state folder and the quarantine folder are not
//! checked: the first can be deleted, the second is what was found before. Segments come before the log, so that the log's
//! records are held to what stands before them.

mod chains;
mod log;
mod sealed;

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidelog_record::{Lsn, NodeId, StreamId};

use crate::disk::{Disk, OpenMode, read_full};
use crate::identity::{self, Identity, IdentityError};
use crate::open::LOCK_FILE;
use crate::position::Position;
use crate::recovery::LOG_DIR;

use chains::Chains;

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

/// What is wrong at one place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The identity file is damaged or gone; opening the store makes it anew from the log.
    #[error("the identity is damaged or gone; the next start makes it anew")]
    Identity,
    /// The file names another node than the identity.
    #[error("the file belongs to node {0}")]
    OtherNode(NodeId),
    /// One of a file's two headers is damaged; the other serves.
    #[error("header {copy} of 2 is damaged; the other serves")]
    Header {
        /// Which, from 1.
        copy: u8,
    },
    /// Neither header of a file is good: nothing in it can be read.
    #[error("both headers are damaged: nothing in the file can be read")]
    Headers,
    /// Bytes that hold no good frame, with good ones behind them.
    #[error("{bytes} bytes hold no good frame")]
    Rot {
        /// How many.
        bytes: u64,
    },
    /// The end of the last file holds no good frame: a commit that a crash cut off, never acknowledged, or rot in the last
    /// record. The two look alike. The next start copies it to the quarantine folder and cuts it.
    #[error(
        "the last {bytes} bytes hold no good frame: a commit cut off by a crash, or rot in the last record"
    )]
    Tail {
        /// How many.
        bytes: u64,
    },
    /// Positions that no file holds.
    #[error("positions {first} to {last} are missing: a file is gone")]
    MissingPositions {
        /// First of them.
        first: Position,
        /// Last of them.
        last: Position,
    },
    /// A record whose position is not behind the one before it.
    #[error("a record stands out of order")]
    Disorder,
    /// A whole record that does not follow the one before it in its stream.
    #[error("{}record {lsn} does not follow the one before it", in_stream(stream))]
    BrokenChain {
        /// Its stream, if that is declared before it.
        stream: Option<StreamId>,
        /// Its place there.
        lsn: Lsn,
    },
    /// A segment is rotten, or contradicts itself.
    #[error("{reason}")]
    Segment {
        /// What is wrong with it.
        reason: String,
    },
    /// Records of a stream that is declared nowhere.
    #[error("{records} records belong to a stream that is declared nowhere")]
    Undeclared {
        /// How many.
        records: u64,
    },
}

fn in_stream(stream: &Option<StreamId>) -> String {
    stream.as_ref().map(|stream| format!("{stream}: ")).unwrap_or_default()
}

impl Flaw {
    /// A word for programs.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::OtherNode(_) => "other_node",
            Self::Header { .. } => "header",
            Self::Headers => "headers",
            Self::Rot { .. } => "rot",
            Self::Tail { .. } => "tail",
            Self::MissingPositions { .. } => "missing_positions",
            Self::Disorder => "disorder",
            Self::BrokenChain { .. } => "broken_chain",
            Self::Segment { .. } => "segment",
            Self::Undeclared { .. } => "undeclared",
        }
    }
}

/// A flaw and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file, from the store's folder.
    pub file: String,
    /// Where in it, in bytes.
    pub offset: u64,
    /// What is wrong.
    pub flaw: Flaw,
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
    /// Good segments.
    pub segments: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Good records whose chain holds.
    pub records: u64,
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
    /// First positions of log files that were trimmed.
    trimmed: Vec<u64>,
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
    let mut check = Check { disk, dir, found, chains, bytes_total: 0, trimmed: Vec::new(), step };
    let names = disk.list(dir).map_err(|error| no_store(error, dir))?;
    let log_dir = dir.join(LOG_DIR);
    let logs = match disk.list(&log_dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(check.io("list", &log_dir)(error));
        }
        listed => listed.unwrap_or_default(),
    };
    check.trimmed = log::trimmed(&logs);
    let logs = log::firsts(&logs);
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    if logs.is_empty() && !has(identity::FILE_NAME) {
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
    let mut opened = Vec::with_capacity(logs.len());
    for first in logs {
        let file = check.open_log(first)?;
        check.bytes_total += file.length;
        opened.push(file);
    }
    let segments = check.segments()?;
    check.bytes_total += segments.iter().map(|found| found.length).sum::<u64>();
    for found in segments {
        check.segment(found)?;
    }
    if let Some(first) = opened.first() {
        check.must_reach(1, first);
    }
    let last = opened.len().checked_sub(1);
    for at in 0..opened.len() {
        check.log_file(&opened, at, Some(at) == last)?;
    }
    check.close(&opened)
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

    /// What only shows when all is read.
    fn close(mut self, logs: &[Arc<log::Opened>]) -> Result<Verification, VerifyError> {
        for (file, offset, records) in self.chains.undeclared() {
            let name = logs.get(file).map(|log| log.name.clone()).unwrap_or_default();
            self.found.tell(&name, offset, Flaw::Undeclared { records });
        }
        self.found.damage.sort_by(|a, b| (&a.file, a.offset).cmp(&(&b.file, b.offset)));
        self.found.streams = self.chains.streams();
        self.found.gaps = self.chains.gaps();
        self.found.files = logs.len() as u64;
        Ok(self.found)
    }
}
