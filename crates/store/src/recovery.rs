//! What a store does when it opens: reads every log file, checks every frame, rebuilds the index, cuts a torn tail and
//! sets rot apart (design section 4). It deletes nothing that is not copied to the quarantine folder first.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidelog_record::{Run, StreamId};

use crate::bodies::Bodies;
use crate::disk::{Disk, DiskFile, OpenMode, read_full};
use crate::errors::{Finding, OpenError, Recovery};
use crate::frame::{
    self, Content, FRAME_BYTES_MAX, FRAME_HEAD_BYTES, FRAMES_AT, Frame, FrameError, HEADER_BYTES, Header,
    HeaderError,
};
use crate::index::{Index, Indexed, Intake, LogFile};
use crate::position::Position;
use crate::reader::Window;
use crate::trimmed::{self, MAP_BYTES_MAX, Map, MapError};

pub(crate) const LOG_DIR: &str = "log";
pub(crate) const QUARANTINE_DIR: &str = "quarantine";

pub(crate) const LOG_SUFFIX: &str = "log";
pub(crate) const MAP_SUFFIX: &str = "map";

/// The name of the log file whose first record is at `first`.
pub(crate) fn file_name(first: u64) -> String {
    format!("{first:016x}.{LOG_SUFFIX}")
}

/// The name of the map that takes the file's place once all its records are sealed.
pub(crate) fn map_name(first: u64) -> String {
    format!("{first:016x}.{MAP_SUFFIX}")
}

pub(crate) fn first_of_name(name: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_suffix(suffix)?.strip_suffix('.')?;
    let first = u64::from_str_radix(digits, 16).ok()?;
    (format!("{first:016x}.{suffix}") == name && first > 0).then_some(first)
}

pub(crate) fn at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { what, path, source }
}

/// What the log holds.
pub(crate) struct Recovered {
    pub index: Index,
    pub intake: Intake,
    pub report: Recovery,
    /// Good records behind damage in the last commit, in order.
    pub salvage: Vec<(StreamId, Vec<u8>)>,
    /// The last readable header, newest file last.
    pub header: Option<Header>,
    /// A file is lost of which nobody can say what stood in it.
    pub file_lost: bool,
    /// A map is lost, and the positions that it named.
    map_lost: bool,
    /// Runs in whose files something was lost: the runs' last records may be among it.
    pub suspects: Vec<Run>,
    /// The last file must not be appended to.
    pub last_is_closed: bool,
    /// Records whose stream is not declared yet, with their bodies: those of a MiB of log at most, unless declarations rot.
    pending: Vec<(u64, u64, Indexed, Vec<u8>)>,
}

/// Reads the whole log under `dir` into an index that knows the segments.
pub(crate) fn recover(disk: &dyn Disk, dir: &Path, index: Index) -> Result<Recovered, OpenError> {
    let log = dir.join(LOG_DIR);
    let names = disk.list(&log).map_err(at("list", &log))?;
    let files = names.iter().filter_map(|name| first_of_name(name, LOG_SUFFIX).map(|first| (first, false)));
    let maps = names.iter().filter_map(|name| first_of_name(name, MAP_SUFFIX).map(|first| (first, true)));
    let mut all: Vec<(u64, bool)> = files.chain(maps).collect();
    all.sort_unstable();
    // A file that still stands beside its map was about to go: the file says more.
    all.dedup_by_key(|(first, _)| *first);
    let mut out = Recovered {
        index,
        intake: Intake::default(),
        report: Recovery::default(),
        salvage: Vec::new(),
        header: None,
        file_lost: false,
        map_lost: false,
        suspects: Vec::new(),
        last_is_closed: false,
        pending: Vec::new(),
    };
    let last = all.last().copied();
    for (first, is_map) in all {
        if is_map {
            map(disk, dir, &mut out, first)?;
        } else {
            file(disk, dir, &mut out, first, Some((first, is_map)) == last)?;
        }
    }
    // What comes next must not stand in a map.
    out.last_is_closed |= last.is_some_and(|(_, is_map)| is_map);
    out.resolve_pending();
    out.report.records = out.index.streams.values().map(crate::stream::StreamIndex::records).sum();
    Ok(out)
}

impl Recovered {
    /// Places records whose stream was declared only behind them or in another file.
    fn resolve_pending(&mut self) {
        let mut lost = 0u64;
        for (position, log_byte, record, body) in std::mem::take(&mut self.pending) {
            if !self.index.add_at(position, log_byte, &record, &body, &mut self.intake) {
                self.index.set_apart(position, record.offset, record.bytes);
                lost += 1;
            }
        }
        if lost > 0 {
            self.report.findings.push(Finding::UndeclaredStream { records: lost });
        }
    }

    /// Gives up a last file in which there is no record, so that the next may have its name. What it does hold is kept in the
    /// quarantine folder.
    pub fn leave_empty_last(&mut self, disk: &dyn Disk, dir: &Path) -> Result<(), OpenError> {
        let Some(name) = self.index.pop_empty_last() else { return Ok(()) };
        let log = dir.join(LOG_DIR);
        let path = log.join(name.as_ref());
        let file = disk.open(&path, OpenMode::Read).map_err(at("open", &path))?;
        let holds_something = file.len().map_err(at("read", &path))? > FRAMES_AT;
        if holds_something { set_apart(disk, dir, &log, &name) } else { Ok(()) }
    }
}

/// One log file while it is read.
struct Scan<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    out: &'a mut Recovered,
    name: String,
    window: Window,
    bodies: Bodies,
    header: Header,
    length: u64,
    is_last: bool,
    /// Damage lies before in the last commit: what comes is written again.
    salvaging: bool,
}

/// What stood where a frame was expected.
enum Took {
    Frame {
        bytes: u64,
    },
    /// A good frame whose body is told from one that is lost.
    Unpackable {
        bytes: u64,
    },
    Nothing,
}

/// A stretch of a file that holds no frame, or none that can be read.
struct Bad {
    from: u64,
    to: u64,
}

/// The map of a file whose records are sealed.
fn map(disk: &dyn Disk, dir: &Path, out: &mut Recovered, first: u64) -> Result<(), OpenError> {
    let log = dir.join(LOG_DIR);
    let name = map_name(first);
    let path = log.join(&name);
    let file = disk.open(&path, OpenMode::Read).map_err(at("open", &path))?;
    let map = match read_map(file.as_ref()).map_err(at("read", &path))? {
        Ok(map) if map.first == first => map,
        Err(MapError::Version(found)) => {
            return Err(OpenError::Version { path, found, supported: trimmed::VERSION });
        }
        // Only the order in which sealed records came is lost: a cursor that stands in it goes on behind it.
        _ => {
            out.map_lost = true;
            out.report.findings.push(Finding::FileQuarantined { file: name.clone() });
            return set_apart(disk, dir, &log, &name);
        }
    };
    let bytes = file.len().map_err(at("read", &path))?;
    let mut entry = LogFile::new(Arc::from(name.as_str()), Arc::clone(&file), 0, first, FRAMES_AT);
    entry.last = map.last();
    entry.trim(Arc::from(name.as_str()), file, bytes);
    out.header = Some(Header { version: frame::VERSION, node: map.node, run: map.run, first, salt: 0 });
    out.report.files += 1;
    out.index.push_file(entry);
    Ok(())
}

/// Reads a whole map.
pub(crate) fn read_map(file: &dyn DiskFile) -> io::Result<Result<Map, MapError>> {
    let length = file.len()?;
    let Some(length) = usize::try_from(length).ok().filter(|_| length <= MAP_BYTES_MAX) else {
        return Ok(Err(MapError::Damaged));
    };
    let mut bytes = vec![0; length];
    let read = read_full(file, &mut bytes, 0)?;
    bytes.truncate(read);
    Ok(Map::decode(&bytes))
}

fn file(
    disk: &dyn Disk,
    dir: &Path,
    out: &mut Recovered,
    first: u64,
    is_last: bool,
) -> Result<(), OpenError> {
    let log = dir.join(LOG_DIR);
    let name = file_name(first);
    let path = log.join(&name);
    let file = disk.open(&path, OpenMode::Write).map_err(at("open", &path))?;
    let length = file.len().map_err(at("read", &path))?;
    // A file got its name with both headers in it: a shorter one lost what stood behind them, and is not written to.
    let whole = |header: &Header| header.first == first && length >= FRAMES_AT;
    let Some(header) = read_header(file.as_ref(), &path)?.filter(whole) else {
        out.file_lost = true;
        out.report.findings.push(Finding::FileQuarantined { file: name.clone() });
        return set_apart(disk, dir, &log, &name);
    };
    let next = out.index.head() + 1;
    if first > next {
        let (first, last) = (Position(next), Position(first - 1));
        out.report.findings.push(Finding::MissingPositions { first, last });
        // What a lost map spoke of is in segments; only a lost file leaves doubt on what its author wrote last.
        if !std::mem::take(&mut out.map_lost) {
            out.suspects.push(header.run);
        }
    }
    out.header = Some(header);
    out.report.files += 1;
    out.index.push_file(LogFile::new(
        Arc::from(name.as_str()),
        Arc::clone(&file),
        header.salt,
        first,
        length,
    ));
    let window = Window::new(Arc::clone(&file), length);
    Scan {
        disk,
        dir,
        out,
        name,
        window,
        bodies: Bodies::default(),
        header,
        length,
        is_last,
        salvaging: false,
    }
    .read(file.as_ref(), &path)
}

impl Scan<'_> {
    fn read(mut self, file: &dyn DiskFile, path: &Path) -> Result<(), OpenError> {
        let mut offset = FRAMES_AT;
        while offset < self.length {
            match self.take(offset).map_err(at("read", path))? {
                Took::Frame { bytes } => {
                    offset += bytes;
                    continue;
                }
                Took::Unpackable { bytes } => {
                    self.rot(&Bad { from: offset, to: offset + bytes })?;
                    offset += bytes;
                    continue;
                }
                Took::Nothing => self.bodies.lost(),
            }
            let Some(next) = self.resync(offset + 1).map_err(at("read", path))? else {
                let rest = Bad { from: offset, to: self.length };
                return if self.is_last && !self.salvaging {
                    self.tail(file, path, &rest)
                } else {
                    self.rot(&rest)
                };
            };
            if self.is_last
                && !self.salvaging
                && !self.commit_begins_behind(next).map_err(at("read", path))?
            {
                // A crash that let later blocks through, or rot: nobody can tell. Both are served by keeping all that is
                // good, and writing this node's part of it again where it has a whole stream before it.
                self.salvaging = true;
                self.out.last_is_closed = true;
            }
            self.rot(&Bad { from: offset, to: next })?;
            offset = next;
        }
        Ok(())
    }

    /// Indexes the frame at `offset`.
    fn take(&mut self, offset: u64) -> io::Result<Took> {
        let Some(frame) = frame_at(&mut self.window, self.header.salt, offset)? else {
            return Ok(Took::Nothing);
        };
        let bytes = frame.bytes as u64;
        let stored = match frame.content {
            Content::Record(stored) => stored,
            Content::Stream { key, stream } => {
                self.out.index.declare(key, &stream);
                return Ok(Took::Frame { bytes });
            }
            Content::Unknown => return Ok(Took::Frame { bytes }),
        };
        // Where nothing is packed a walk may begin anywhere.
        let anew = stored.anew || !self.header.packs();
        let Some(record) = self.bodies.next(&stored) else { return Ok(Took::Unpackable { bytes }) };
        let (key, lsn, chain, ordinal) = (record.key, record.lsn, record.chain, stored.ordinal);
        let indexed = Indexed { key, lsn, chain, ordinal, offset, bytes, anew, is_canonical: false };
        let index = &mut self.out.index;
        let Some(stream) = index.streams.get(&key) else {
            let position = index.pass(&indexed);
            self.out.pending.push((position, index.log_byte(offset), indexed, record.body.to_vec()));
            return Ok(Took::Frame { bytes });
        };
        let follows =
            stream.chain_before(lsn).is_none_or(|before| before.after(&key, lsn, record.body) == chain);
        if !follows {
            // Every byte is as written and yet it does not belong here: files of two lives were mixed.
            let file = self.name.clone();
            self.out.report.findings.push(Finding::BrokenChain {
                file,
                offset,
                stream: stream.stream.clone(),
                lsn,
            });
            self.out.suspects.push(self.header.run);
            let position = index.pass(&indexed);
            index.set_apart(position, offset, bytes);
            return Ok(Took::Frame { bytes });
        }
        if self.salvaging {
            self.out.salvage.push((stream.stream.clone(), record.body.to_vec()));
        }
        if !index.add(&indexed, record.body, &mut self.out.intake) {
            index.set_apart(index.head(), offset, bytes);
        }
        Ok(Took::Frame { bytes })
    }

    fn resync(&mut self, from: u64) -> io::Result<Option<u64>> {
        resync(&mut self.window, &self.header, from, self.length)
    }

    /// Whether a commit begins at or behind `offset`: then all before it had been synced.
    fn commit_begins_behind(&mut self, offset: u64) -> io::Result<bool> {
        let mut next = Some(offset);
        while let Some(offset) = next.filter(|offset| *offset < self.length) {
            next = match frame_at(&mut self.window, self.header.salt, offset)? {
                Some(frame) if frame.first_of_commit => return Ok(true),
                Some(frame) => Some(offset + frame.bytes as u64),
                None => self.resync(offset + 1)?,
            };
        }
        Ok(false)
    }

    fn rot(&mut self, bad: &Bad) -> Result<(), OpenError> {
        let goes_on = match self.out.report.findings.last_mut() {
            Some(Finding::Rot { file, offset, bytes })
                if *file == self.name && *offset + *bytes == bad.from =>
            {
                *bytes += bad.to - bad.from;
                true
            }
            _ => false,
        };
        if !goes_on {
            let (file, offset, bytes) = (self.name.clone(), bad.from, bad.to - bad.from);
            self.out.report.findings.push(Finding::Rot { file, offset, bytes });
            self.out.suspects.push(self.header.run);
        }
        self.out.index.rot(bad.from, bad.to);
        Ok(())
    }

    /// Cuts what a crash left of the last commit, after copying it away.
    fn tail(mut self, file: &dyn DiskFile, path: &Path, rest: &Bad) -> Result<(), OpenError> {
        if let Err(error) = self.copy_to_quarantine(rest) {
            // No room for the copy: leave the tail where it is and write on in another file.
            tracing::warn!(file = self.name, %error, "cannot copy the torn tail away; it stays in its file");
            self.out.last_is_closed = true;
            return self.rot(rest);
        }
        file.set_len(rest.from).map_err(at("cut", path))?;
        file.sync_data().map_err(at("sync", path))?;
        self.out.index.cut_last(rest.from);
        let (file, offset, bytes) = (self.name, rest.from, rest.to - rest.from);
        self.out.report.findings.push(Finding::TornTail { file, offset, bytes });
        Ok(())
    }

    fn copy_to_quarantine(&mut self, stretch: &Bad) -> io::Result<()> {
        let quarantine = self.dir.join(QUARANTINE_DIR);
        let name = format!("{}.{}.tail", self.name, stretch.from);
        let beside = quarantine.join(format!("{name}.new"));
        let mut copy: Option<Arc<dyn DiskFile>> = None;
        let mut offset = stretch.from;
        while offset < stretch.to {
            let piece = self.window.at(offset, 1)?;
            if piece.is_empty() {
                break;
            }
            if piece.iter().any(|byte| *byte != 0) {
                let copy = match &copy {
                    Some(copy) => copy,
                    None => {
                        self.disk.make_dir(&quarantine)?;
                        copy.insert(self.disk.open(&beside, OpenMode::Create)?)
                    }
                };
                copy.write_all_at(piece, offset - stretch.from)?;
            }
            offset += piece.len() as u64;
        }
        let Some(copy) = copy else { return Ok(()) };
        copy.sync_data()?;
        self.disk.rename(&beside, &quarantine.join(name))?;
        self.disk.sync_dir(&quarantine)
    }
}

pub(crate) fn frame_at<'w>(window: &'w mut Window, salt: u64, offset: u64) -> io::Result<Option<Frame<'w>>> {
    let Ok(whole) = frame::frame_bytes(window.at(offset, FRAME_HEAD_BYTES)?) else { return Ok(None) };
    match frame::parse(salt, offset, window.at(offset, whole)?) {
        Ok(frame) => Ok(Some(frame)),
        Err(FrameError::Bad | FrameError::Short { .. }) => Ok(None),
    }
}

/// The next good frame at or after `from`.
pub(crate) fn resync(
    window: &mut Window,
    header: &Header,
    from: u64,
    length: u64,
) -> io::Result<Option<u64>> {
    let mut offset = from;
    while offset < length {
        let peeked = window.at(offset, FRAME_HEAD_BYTES + 1)?;
        if frame::may_begin(peeked) && frame_at(window, header.salt, offset)?.is_some() {
            return Ok(Some(offset));
        }
        offset += 1;
    }
    Ok(None)
}

/// The header of a log file, from whichever of its two copies is good.
fn read_header(file: &dyn DiskFile, path: &Path) -> Result<Option<Header>, OpenError> {
    let mut newer = None;
    for copy in 0..2u64 {
        let mut bytes = [0u8; HEADER_BYTES];
        let read = read_full(file, &mut bytes, copy * HEADER_BYTES as u64).map_err(at("read", path))?;
        match Header::decode(&bytes) {
            Ok(header) if read == HEADER_BYTES => return Ok(Some(header)),
            Err(HeaderError::Version(found)) => newer = Some(found),
            _ => {}
        }
    }
    match newer {
        Some(found) => Err(OpenError::Version { path: path.to_owned(), found, supported: frame::VERSION }),
        None => Ok(None),
    }
}

/// Moves a file that cannot be used out of the way, under its own name.
fn set_apart(disk: &dyn Disk, dir: &Path, from: &Path, name: &str) -> Result<(), OpenError> {
    move_to_quarantine(disk, dir, from, name).map_err(at("set apart", &from.join(name)))
}

pub(crate) fn move_to_quarantine(disk: &dyn Disk, dir: &Path, from: &Path, name: &str) -> io::Result<()> {
    let quarantine: PathBuf = dir.join(QUARANTINE_DIR);
    disk.make_dir(&quarantine)?;
    let taken = disk.list(&quarantine)?;
    let free = (0u32..).map(|n| if n == 0 { name.to_owned() } else { format!("{name}.{n}") });
    let Some(free) = free.into_iter().find(|candidate| !taken.contains(candidate)) else { return Ok(()) };
    disk.rename(&from.join(name), &quarantine.join(free))?;
    disk.sync_dir(&quarantine)?;
    disk.sync_dir(from)
}

const _: () = assert!(FRAME_BYTES_MAX < u32::MAX as usize);
