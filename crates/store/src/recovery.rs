//! What a store does when it opens: reads every log file, checks every frame, rebuilds the index, cuts a torn tail and
//! sets rot apart (design section 4). It deletes nothing that is not copied to the quarantine folder first.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidelog_record::{Body, Record, StreamKey};

use crate::disk::{Disk, DiskFile, OpenMode, read_full, write_atomically};
use crate::errors::{Finding, OpenError, Recovery};
use crate::frame::{
    self, Content, FRAME_BYTES_MAX, FRAME_HEAD_BYTES, FRAMES_AT, Frame, FrameError, HEADER_BYTES, Header,
    HeaderError,
};
use crate::index::{Index, Indexed, LogFile, Summary};
use crate::position::Position;
use crate::reader::Window;

pub(crate) const LOG_DIR: &str = "log";
pub(crate) const QUARANTINE_DIR: &str = "quarantine";

/// The name of the log file whose first record is at `first`.
pub(crate) fn file_name(first: u64) -> String {
    format!("{first:016x}.log")
}

fn first_of_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    let first = u64::from_str_radix(digits, 16).ok()?;
    (file_name(first) == name && first > 0).then_some(first)
}

pub(crate) fn at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { what, path, source }
}

/// What the log holds.
#[derive(Default)]
pub(crate) struct Recovered {
    pub index: Index,
    pub report: Recovery,
    /// Good records of a damaged last commit, in order.
    pub salvage: Vec<Record>,
    /// The last readable header, newest file last.
    pub header: Option<Header>,
    /// Records that this node had written may be gone.
    pub own_history_lost: bool,
    /// The last file cannot be written on: it has a tail that could not be copied away.
    pub last_is_closed: bool,
    pending: Vec<(u64, u64, Indexed)>,
}

/// Reads the whole log under `dir`.
pub(crate) fn recover(disk: &dyn Disk, dir: &Path) -> Result<Recovered, OpenError> {
    let log = dir.join(LOG_DIR);
    let mut firsts: Vec<u64> =
        disk.list(&log).map_err(at("list", &log))?.iter().filter_map(|name| first_of_name(name)).collect();
    firsts.sort_unstable();
    let mut out = Recovered::default();
    let last = firsts.last().copied();
    for first in firsts {
        Scan { disk, dir, log: &log, out: &mut out, is_last: Some(first) == last }.file(first)?;
    }
    out.resolve_pending();
    out.report.records = out.index.records;
    Ok(out)
}

impl Recovered {
    /// Places records whose stream was declared only behind them or in another file.
    fn resolve_pending(&mut self) {
        let mut lost = 0u64;
        for (position, log_byte, record) in std::mem::take(&mut self.pending) {
            if !self.index.add_at(position, log_byte, record) {
                lost += 1;
            }
        }
        if lost > 0 {
            self.report.findings.push(Finding::UndeclaredStream { records: lost });
        }
    }
}

struct Scan<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    log: &'a Path,
    out: &'a mut Recovered,
    is_last: bool,
}

/// A stretch of a file that holds no frame.
struct Bad {
    from: u64,
    to: u64,
}

/// A good frame of the last commit that stands behind a bad stretch.
struct Behind {
    key: StreamKey,
    record: Option<(tidelog_record::Lsn, tidelog_record::ChainHash, Vec<u8>)>,
    stream: Option<tidelog_record::StreamId>,
}

impl Scan<'_> {
    fn file(&mut self, first: u64) -> Result<(), OpenError> {
        let name = file_name(first);
        let path = self.log.join(&name);
        let file = self.disk.open(&path, OpenMode::Write).map_err(at("open", &path))?;
        let length = file.len().map_err(at("read", &path))?;
        let Some(header) = read_header(file.as_ref(), &path)?.filter(|header| header.first == first) else {
            self.out.own_history_lost |= self.is_last;
            self.out.report.findings.push(Finding::FileQuarantined { file: name.clone() });
            return move_to_quarantine(self.disk, self.dir, self.log, &name);
        };
        let next = self.out.index.head() + 1;
        if first > next {
            let (first, last) = (Position(next), Position(first - 1));
            self.out.report.findings.push(Finding::MissingPositions { first, last });
        }
        self.out.header = Some(header);
        self.out.report.files += 1;
        let log_file =
            LogFile::new(Arc::from(name.as_str()), Arc::clone(&file), header.salt, first, FRAMES_AT);
        self.out.index.push_file(log_file);
        let mut window = Window::new(Arc::clone(&file), length);
        let mut good_end = FRAMES_AT;
        let mut offset = FRAMES_AT;
        while offset < length {
            if let Some(bytes) = self.take(&mut window, &header, offset).map_err(at("read", &path))? {
                offset += bytes;
                good_end = offset;
                continue;
            }
            let resumed = resync(&mut window, &header, offset + 1, length).map_err(at("read", &path))?;
            let bad = Bad { from: offset, to: resumed.unwrap_or(length) };
            if resumed.is_some()
                && self.was_durable(&mut window, &header, &bad, length).map_err(at("read", &path))?
            {
                self.rot(&name, &bad);
                offset = bad.to;
                continue;
            }
            if self.is_last {
                self.tail(&mut window, &header, file.as_ref(), &path, &bad, length)?;
            } else {
                self.rot(&name, &Bad { from: bad.from, to: length });
                good_end = length;
            }
            break;
        }
        if let Some(file) = self.out.index.files.last_mut() {
            file.end = file.end.max(good_end);
        }
        Ok(())
    }

    /// Indexes the frame at `offset`; its length, or `None` when there is none.
    fn take(&mut self, window: &mut Window, header: &Header, offset: u64) -> io::Result<Option<u64>> {
        let Some(frame) = frame_at(window, header.salt, offset)? else { return Ok(None) };
        let bytes = frame.bytes as u64;
        match frame.content {
            Content::Stream { key, stream } => self.out.index.declare(key, &stream),
            Content::Unknown => {}
            Content::Record(record) => {
                let summary = match Body::decode(record.body) {
                    Ok(body) => Summary::of(&body),
                    Err(_) => Summary { opaque: true, ..Summary::default() },
                };
                let (key, lsn, chain, ordinal) = (record.key, record.lsn, record.chain, record.ordinal);
                let indexed = Indexed { key, lsn, chain, ordinal, offset, bytes, summary };
                let index = &mut self.out.index;
                if index.streams.contains_key(&key) {
                    index.add(indexed);
                } else {
                    let position = index.pass(ordinal, offset, bytes);
                    self.out.pending.push((position, index.log_byte(offset), indexed));
                }
            }
        }
        Ok(Some(bytes))
    }

    /// Whether what stood in a bad stretch had been synced: in a file before the last it had; in the last, if a later
    /// commit begins behind it.
    fn was_durable(&self, window: &mut Window, header: &Header, bad: &Bad, length: u64) -> io::Result<bool> {
        if !self.is_last {
            return Ok(true);
        }
        let mut offset = bad.to;
        while offset < length {
            match frame_at(window, header.salt, offset)? {
                Some(frame) if frame.first_of_commit => return Ok(true),
                Some(frame) => offset += frame.bytes as u64,
                None => match resync(window, header, offset + 1, length)? {
                    Some(next) => offset = next,
                    None => break,
                },
            }
        }
        Ok(false)
    }

    fn rot(&mut self, name: &str, bad: &Bad) {
        let (offset, bytes) = (bad.from, bad.to - bad.from);
        self.out.report.findings.push(Finding::Rot { file: name.to_owned(), offset, bytes });
        if let Some(file) = self.out.index.files.last_mut() {
            file.rot.push((bad.from, bad.to));
        }
    }

    /// Cuts what a crash left of the last commit, after copying it away. Whole records in it may have been acknowledged
    /// if it was rot and not a crash, so they are handed on to be written again.
    fn tail(
        &mut self,
        window: &mut Window,
        header: &Header,
        file: &dyn DiskFile,
        path: &Path,
        bad: &Bad,
        length: u64,
    ) -> Result<(), OpenError> {
        let name = file_name(header.first);
        let salvage = self.behind(window, header, bad, length).map_err(at("read", path))?;
        if !salvage.is_empty() {
            self.out.own_history_lost = true;
            self.out.report.findings.push(Finding::Salvaged { records: salvage.len() as u64 });
            self.out.salvage = salvage;
        }
        let copied = self.copy_tail(window, &name, bad.from, length);
        match copied {
            Ok(()) => {
                file.set_len(bad.from).map_err(at("cut", path))?;
                file.sync_data().map_err(at("sync", path))?;
                let (offset, bytes) = (bad.from, length - bad.from);
                self.out.report.findings.push(Finding::TornTail { file: name, offset, bytes });
            }
            Err(error) => {
                // No room for the copy: leave the tail where it is and write on in another file.
                tracing::warn!(file = name, %error, "cannot copy the torn tail away; it stays in its file");
                self.rot(&name, &Bad { from: bad.from, to: length });
                self.out.last_is_closed = true;
            }
        }
        Ok(())
    }

    fn copy_tail(&self, window: &mut Window, name: &str, from: u64, to: u64) -> io::Result<()> {
        let mut bytes = Vec::new();
        let mut offset = from;
        while offset < to {
            let piece = window.at(offset, 1)?;
            if piece.is_empty() {
                break;
            }
            bytes.extend_from_slice(piece);
            offset = from + bytes.len() as u64;
        }
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let quarantine = self.dir.join(QUARANTINE_DIR);
        self.disk.make_dir(&quarantine)?;
        write_atomically(self.disk, &quarantine, &format!("{name}.{from}.tail"), &bytes)
    }

    fn behind(
        &self,
        window: &mut Window,
        header: &Header,
        bad: &Bad,
        length: u64,
    ) -> io::Result<Vec<Record>> {
        let mut found = Vec::new();
        let mut offset = bad.to;
        while offset < length {
            match frame_at(window, header.salt, offset)? {
                Some(frame) => {
                    offset += frame.bytes as u64;
                    match frame.content {
                        Content::Stream { key, stream } => {
                            found.push(Behind { key, record: None, stream: Some(stream) });
                        }
                        Content::Record(r) => {
                            let record = Some((r.lsn, r.chain, r.body.to_vec()));
                            found.push(Behind { key: r.key, record, stream: None });
                        }
                        Content::Unknown => {}
                    }
                }
                None => match resync(window, header, offset + 1, length)? {
                    Some(next) => offset = next,
                    None => break,
                },
            }
        }
        let mut streams = HashMap::new();
        for (key, index) in &self.out.index.streams {
            streams.insert(*key, index.stream.clone());
        }
        for behind in &mut found {
            if let Some(stream) = behind.stream.take() {
                streams.insert(behind.key, stream);
            }
        }
        let record = |behind: Behind| {
            let (lsn, chain, body) = behind.record?;
            Some(Record { stream: streams.get(&behind.key)?.clone(), lsn, chain, body })
        };
        Ok(found.into_iter().filter_map(record).collect())
    }
}

fn frame_at<'w>(window: &'w mut Window, salt: u64, offset: u64) -> io::Result<Option<Frame<'w>>> {
    let Ok(whole) = frame::frame_bytes(window.at(offset, FRAME_HEAD_BYTES)?) else { return Ok(None) };
    match frame::parse(salt, offset, window.at(offset, whole)?) {
        Ok(frame) => Ok(Some(frame)),
        Err(FrameError::Bad | FrameError::Short { .. }) => Ok(None),
    }
}

/// The next good frame at or after `from`.
fn resync(window: &mut Window, header: &Header, from: u64, length: u64) -> io::Result<Option<u64>> {
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
pub(crate) fn move_to_quarantine(
    disk: &dyn Disk,
    dir: &Path,
    from: &Path,
    name: &str,
) -> Result<(), OpenError> {
    let quarantine: PathBuf = dir.join(QUARANTINE_DIR);
    disk.make_dir(&quarantine).map_err(at("make", &quarantine))?;
    let taken = disk.list(&quarantine).map_err(at("list", &quarantine))?;
    let free = (0u32..).map(|n| if n == 0 { name.to_owned() } else { format!("{name}.{n}") });
    let Some(free) = free.into_iter().find(|candidate| !taken.contains(candidate)) else { return Ok(()) };
    disk.rename(&from.join(name), &quarantine.join(free)).map_err(at("move aside", &from.join(name)))?;
    disk.sync_dir(&quarantine).map_err(at("sync", &quarantine))?;
    disk.sync_dir(from).map_err(at("sync", from))
}

const _: () = assert!(FRAME_BYTES_MAX < u32::MAX as usize);
