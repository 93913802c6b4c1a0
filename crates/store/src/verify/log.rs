//! Log files, frame by frame, while a store is checked. Every byte of every file is read once; where no frame is, the next good one is
//! looked for, as recovery does.

use std::path::PathBuf;
use std::sync::Arc;

use tidelog_record::Lsn;

use super::chains::{Met, Place};
use super::{Check, Flaw, VerifyError};
use crate::bodies::Bodies;
use crate::disk::{DiskFile, OpenMode, read_full};
use crate::frame::{self, Content, FRAMES_AT, HEADER_BYTES, Header, HeaderError};
use crate::reader::Window;
use crate::recovery::{LOG_DIR, LOG_SUFFIX, file_name, first_of_name, frame_at, resync};

/// Progress is told after so many bytes.
const STEP_BYTES: u64 = 256 * 1024;

/// A log file that is going to be checked.
pub(super) struct Opened {
    pub first: u64,
    /// From the store's folder.
    pub name: String,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    pub length: u64,
    header: Option<Header>,
}

/// First positions of the log files among `names`, ascending.
pub(super) fn firsts(names: &[String]) -> Vec<u64> {
    let mut firsts: Vec<u64> = names.iter().filter_map(|name| first_of_name(name, LOG_SUFFIX)).collect();
    firsts.sort_unstable();
    firsts
}

/// What is known of a record when its frame was read.
#[derive(Default)]
struct Seen {
    bytes: u64,
    /// The frame is good, and its body is told from one that is lost.
    unpackable_bytes: Option<u64>,
    ordinal: Option<u32>,
    /// Its chain is broken.
    broken: Option<Lsn>,
    /// A record that was met earlier must follow this one.
    next: Option<Place>,
    counted: bool,
}

impl Check<'_> {
    pub(super) fn open_log(&mut self, first: u64) -> Result<Arc<Opened>, VerifyError> {
        let base = file_name(first);
        let path = self.dir.join(LOG_DIR).join(&base);
        let name = format!("{LOG_DIR}/{base}");
        let file = self.disk.open(&path, OpenMode::Read).map_err(self.io("open", &path))?;
        let length = file.len().map_err(self.io("read", &path))?;
        let mut opened = Opened { first, name, path, file, length, header: None };
        self.headers(&mut opened)?;
        Ok(Arc::new(opened))
    }

    /// Both copies of the header; the flaws are told in order of offset, so here.
    fn headers(&mut self, log: &mut Opened) -> Result<(), VerifyError> {
        let mut bad = Vec::new();
        let mut newer = None;
        for copy in 0..2u8 {
            let mut bytes = [0u8; HEADER_BYTES];
            let offset = u64::from(copy) * HEADER_BYTES as u64;
            let read =
                read_full(log.file.as_ref(), &mut bytes, offset).map_err(self.io("read", &log.path))?;
            match Header::decode(&bytes) {
                Ok(header) if read == HEADER_BYTES && header.first == log.first => {
                    log.header.get_or_insert(header);
                }
                Err(HeaderError::Version(found)) => newer = Some(found),
                _ => bad.push((copy + 1, offset)),
            }
        }
        if let (None, Some(found)) = (log.header, newer) {
            let (path, supported) = (log.path.clone(), frame::VERSION);
            return Err(VerifyError::Version { path, found, supported });
        }
        match log.header {
            None => self.found.tell(&log.name, 0, Flaw::Headers),
            Some(header) => {
                for (copy, offset) in bad {
                    self.found.tell(&log.name, offset, Flaw::Header { copy });
                }
                if self.found.node.is_some_and(|node| node != header.node) {
                    self.found.tell(&log.name, 0, Flaw::OtherNode(header.node));
                }
            }
        }
        Ok(())
    }

    /// Checks the frames of the file at `at`; the position behind its last record, if that can be told.
    pub(super) fn log_file(
        &mut self,
        logs: &[Arc<Opened>],
        at: usize,
        is_last: bool,
    ) -> Result<Option<u64>, VerifyError> {
        let Some(log) = logs.get(at) else { return Ok(None) };
        let Some(header) = log.header else {
            self.advance(log.length)?;
            return Ok(None);
        };
        let mut window = Window::new(Arc::clone(&log.file), log.length);
        let mut bodies = Bodies::default();
        let mut offset = FRAMES_AT.min(log.length);
        let mut told = 0;
        let mut ordinals_from = 0;
        let mut ends_in_rot = false;
        while offset < log.length {
            let seen = self.frame(&mut window, &mut bodies, &header, (at, offset));
            let seen = seen.map_err(self.io("read", &log.path))?;
            if let Some(bytes) = seen.as_ref().and_then(|seen| seen.unpackable_bytes) {
                self.found.unpackable(&log.name, offset, bytes);
                offset += bytes;
            } else if let Some(seen) = seen {
                if let Some(ordinal) = seen.ordinal {
                    if ordinal < ordinals_from {
                        self.found.tell(&log.name, offset, Flaw::Disorder);
                    }
                    ordinals_from = ordinals_from.max(ordinal.saturating_add(1));
                }
                if let Some(lsn) = seen.broken {
                    self.broken(logs, (at, offset), lsn)?;
                }
                if let Some(next) = seen.next {
                    self.must_follow(logs, (at, offset), next)?;
                }
                self.found.records += u64::from(seen.counted);
                offset += seen.bytes;
            } else {
                bodies.lost();
                let next = resync(&mut window, &header, offset + 1, log.length);
                let next = next.map_err(self.io("read", &log.path))?;
                let bytes = next.unwrap_or(log.length) - offset;
                let flaw = if next.is_none() && is_last { Flaw::Tail { bytes } } else { Flaw::Rot { bytes } };
                self.found.tell(&log.name, offset, flaw);
                ends_in_rot = next.is_none();
                offset += bytes;
            }
            if offset - told >= STEP_BYTES {
                self.advance(offset - told)?;
                told = offset;
            }
        }
        self.advance(log.length - told)?;
        Ok((!ends_in_rot).then_some(log.first + u64::from(ordinals_from)))
    }

    /// Reads the frame at a place and takes it in; `None` when there is none.
    fn frame(
        &mut self,
        window: &mut Window,
        bodies: &mut Bodies,
        header: &Header,
        place: Place,
    ) -> std::io::Result<Option<Seen>> {
        let Some(frame) = frame_at(window, header.salt, place.1)? else { return Ok(None) };
        let mut seen = Seen { bytes: frame.bytes as u64, ..Seen::default() };
        match frame.content {
            Content::Stream { key, stream } => self.chains.declare(key, stream),
            Content::Unknown => {}
            Content::Record(stored) => {
                let Some(record) = bodies.next(&stored) else {
                    seen.unpackable_bytes = Some(seen.bytes);
                    return Ok(Some(seen));
                };
                seen.ordinal = Some(stored.ordinal);
                let (key, lsn) = (record.key, record.lsn);
                let follows =
                    |before: tidelog_record::ChainHash| before.after(&key, lsn, record.body) == record.chain;
                match self.chains.meet(key, lsn, record.chain, place, follows) {
                    Met::Good(next) => (seen.next, seen.counted) = (next, true),
                    Met::Again => {}
                    Met::Broken => seen.broken = Some(lsn),
                }
            }
        }
        Ok(Some(seen))
    }

    fn broken(&mut self, logs: &[Arc<Opened>], place: Place, lsn: Lsn) -> Result<(), VerifyError> {
        let stream = self.read_again(logs, place, |record, chains| chains.name(&record.key))?.flatten();
        let name = logs.get(place.0).map(|log| log.name.clone()).unwrap_or_default();
        self.found.tell(&name, place.1, Flaw::BrokenChain { stream, lsn });
        Ok(())
    }

    /// Holds the record at `next`, which was met earlier, to the one at `before`.
    fn must_follow(&mut self, logs: &[Arc<Opened>], before: Place, next: Place) -> Result<(), VerifyError> {
        let Some(chain) = self.read_again(logs, before, |record, _| record.chain)? else { return Ok(()) };
        let broken = self.read_again(logs, next, |record, _| {
            (chain.after(&record.key, record.lsn, record.body) != record.chain).then_some(record.lsn)
        })?;
        match broken.flatten() {
            Some(lsn) => self.broken(logs, next, lsn),
            None => Ok(()),
        }
    }

    /// Reads one record again.
    fn read_again<T>(
        &self,
        logs: &[Arc<Opened>],
        (at, offset): Place,
        read: impl FnOnce(&frame::RecordFrame<'_>, &super::Chains) -> T,
    ) -> Result<Option<T>, VerifyError> {
        let Some((log, header)) = logs.get(at).and_then(|log| Some((log, log.header?))) else {
            return Ok(None);
        };
        let mut window = Window::new(Arc::clone(&log.file), log.length);
        let (mut bodies, mut from) = (Bodies::default(), FRAMES_AT);
        // What a body is told from may stand anywhere before it.
        while from <= offset {
            let frame = frame_at(&mut window, header.salt, from).map_err(self.io("read", &log.path))?;
            let Some(frame) = frame else {
                bodies.lost();
                let next = resync(&mut window, &header, from + 1, log.length);
                let Some(next) = next.map_err(self.io("read", &log.path))? else { break };
                from = next;
                continue;
            };
            let bytes = frame.bytes as u64;
            if let Content::Record(stored) = frame.content
                && let Some(record) = bodies.next(&stored)
                && from == offset
            {
                return Ok(Some(read(&record, &self.chains)));
            }
            from += bytes;
        }
        Ok(None)
    }
}
