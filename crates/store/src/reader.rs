//! Reading records back out of log files: a window over a file and a walk along its frames. Every frame that is handed
//! out was checked (invariant 3). Knows no index beyond the files it is given.

use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use tidelog_record::{ChainHash, Lsn, StreamKey};

use crate::bodies::Bodies;
use crate::disk::{DiskFile, read_full};
use crate::errors::ReadError;
use crate::frame::{self, Content, FRAME_HEAD_BYTES, RecordFrame, Stored};
use crate::index::LogFile;
use crate::shared::locked;

/// Bytes that one read asks the disk for.
const WINDOW_BYTES: usize = 64 * 1024;

/// Walks that are remembered where they were left. Who follows the log's end is mostly where the others are.
const WALKS_LEFT_MAX: usize = 2;

/// A piece of a file in memory.
#[derive(Debug)]
pub(crate) struct Window {
    file: Arc<dyn DiskFile>,
    end: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// A window over the bytes of `file` before `end`.
    pub fn new(file: Arc<dyn DiskFile>, end: u64) -> Self {
        Self { file, end, start: 0, bytes: Vec::new() }
    }

    /// Forgets what was read.
    fn let_go(&mut self) {
        self.bytes = Vec::new();
    }

    /// What stands at `offset`: at least `want` bytes unless the file ends before.
    pub fn at(&mut self, offset: u64, want: usize) -> io::Result<&[u8]> {
        let held = offset.checked_sub(self.start).and_then(|skip| usize::try_from(skip).ok());
        let skip = match held {
            Some(skip) if skip.saturating_add(want) <= self.bytes.len() => skip,
            _ => {
                let left = usize::try_from(self.end.saturating_sub(offset)).unwrap_or(usize::MAX);
                let length = want.max(WINDOW_BYTES).min(left);
                self.bytes.resize(length, 0);
                self.start = offset;
                let read = read_full(self.file.as_ref(), &mut self.bytes, offset)?;
                self.bytes.truncate(read);
                0
            }
        };
        Ok(self.bytes.get(skip..).unwrap_or_default())
    }
}

/// What a reader needs of one log file; taken from the index under its lock, used without.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub name: Arc<str>,
    pub file: Arc<dyn DiskFile>,
    pub salt: u64,
    pub first: u64,
    pub last: u64,
    pub from: u64,
    pub end: u64,
    pub rot: Vec<(u64, u64)>,
}

impl Span {
    /// The file, to be walked from near `position`.
    pub fn of(file: &LogFile, position: u64) -> Self {
        Self {
            name: Arc::clone(&file.name),
            file: Arc::clone(&file.file),
            salt: file.salt,
            first: file.first,
            last: file.last,
            from: file.walk_from(position),
            end: file.end,
            rot: file.rot.clone(),
        }
    }

    fn rotten(&self, offset: u64) -> ReadError {
        ReadError::Rotten { file: self.name.to_string(), offset }
    }

    fn io(&self, error: &io::Error) -> ReadError {
        ReadError::Io { file: self.name.to_string(), reason: Arc::from(error.to_string()) }
    }

    /// Walks what stands of the records beside their bodies.
    pub fn walk_heads(
        &self,
        mut visit: impl FnMut(u64, &Stored<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ReadError> {
        let mut frames = Frames::new(self, self.from);
        while let Some((record, is_apart)) = frames.next(self)? {
            if let Some(record) = record
                && !is_apart
                && visit(self.first + u64::from(record.ordinal), &record).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// The frames of a file one after the other.
#[derive(Debug)]
struct Frames {
    window: Window,
    offset: u64,
}

impl Frames {
    fn new(span: &Span, offset: u64) -> Self {
        Self { window: Window::new(Arc::clone(&span.file), span.end), offset }
    }

    /// The next frame: the record in it, if it holds one that can be read, and whether it was set apart. Only what is set apart may be
    /// unreadable.
    fn next(&mut self, span: &Span) -> Result<Option<(Option<Stored<'_>>, bool)>, ReadError> {
        let offset = self.offset;
        if offset >= span.end {
            return Ok(None);
        }
        let after = span.rot.partition_point(|(_, to)| *to <= offset);
        let apart = span.rot.get(after).filter(|(from, _)| *from <= offset).map(|(_, to)| *to);
        let io = |error: io::Error| span.io(&error);
        let whole = frame::frame_bytes(self.window.at(offset, FRAME_HEAD_BYTES).map_err(io)?);
        let parsed = match whole {
            Ok(whole) => frame::parse(span.salt, offset, self.window.at(offset, whole).map_err(io)?),
            Err(error) => Err(error),
        };
        match (parsed, apart) {
            (Ok(frame), _) => {
                self.offset += frame.bytes as u64;
                let record = if let Content::Record(record) = frame.content { Some(record) } else { None };
                Ok(Some((record, apart.is_some())))
            }
            (Err(_), Some(to)) => {
                self.offset = to;
                Ok(Some((None, true)))
            }
            (Err(_), None) => Err(span.rotten(offset)),
        }
    }
}

/// A record that was read and not taken; its body is with the [`Bodies`].
#[derive(Debug)]
struct Held {
    position: u64,
    key: StreamKey,
    lsn: Lsn,
    chain: ChainHash,
}

/// A walk along the records of a file, which can go on where it was left: what bodies are told from has to be read only once.
#[derive(Debug)]
pub(crate) struct Walk {
    file: Arc<str>,
    frames: Frames,
    bodies: Bodies,
    /// The visitor went when it was shown this one.
    held: Option<Held>,
    /// Everything before this position was visited.
    next: u64,
}

impl Walk {
    /// Begins where the span does.
    pub fn new(span: &Span) -> Self {
        let (frames, bodies) = (Frames::new(span, span.from), Bodies::default());
        Self { file: Arc::clone(&span.name), frames, bodies, held: None, next: span.first }
    }

    /// Goes on along the file, which may have grown. Each record is checked; the visitor is shown again what it left at.
    pub fn go_on(
        &mut self,
        span: &Span,
        mut visit: impl FnMut(u64, RecordFrame<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ReadError> {
        self.frames.window.end = span.end;
        if let Some(held) = self.held.take() {
            let Held { position, key, lsn, chain } = held;
            if visit(position, RecordFrame { key, lsn, chain, body: self.bodies.held() }).is_break() {
                self.held = Some(held);
                return Ok(ControlFlow::Break(()));
            }
            self.next = position + 1;
        }
        loop {
            let offset = self.frames.offset;
            let Some((stored, is_apart)) = self.frames.next(span)? else {
                return Ok(ControlFlow::Continue(()));
            };
            let Some(stored) = stored else {
                if is_apart {
                    self.bodies.lost();
                }
                continue;
            };
            let Some(record) = self.bodies.next(&stored) else {
                if is_apart {
                    continue;
                }
                return Err(span.rotten(offset));
            };
            let position = span.first + u64::from(stored.ordinal);
            if is_apart {
                continue;
            }
            if visit(position, record).is_break() {
                if stored.packed.is_none() {
                    self.bodies.hold(stored.bytes);
                }
                let Stored { key, lsn, chain, .. } = stored;
                self.held = Some(Held { position, key, lsn, chain });
                return Ok(ControlFlow::Break(()));
            }
            self.next = position + 1;
        }
    }
}

/// Walks that were left, to be gone on with.
#[derive(Debug, Default)]
pub(crate) struct Walks(Mutex<VecDeque<Walk>>);

impl Walks {
    /// Walks the records of a span, of which the visitor wants those from `position` on; it may be shown some before.
    pub fn walk(
        &self,
        span: &Span,
        position: u64,
        visit: impl FnMut(u64, RecordFrame<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ReadError> {
        let mut walk = self.left_at(span, position).unwrap_or_else(|| Walk::new(span));
        let walked = walk.go_on(span, visit)?;
        walk.frames.window.let_go();
        let mut left = locked(&self.0);
        if left.len() >= WALKS_LEFT_MAX {
            left.pop_front();
        }
        left.push_back(walk);
        Ok(walked)
    }

    /// The walk that was left nearest before `position`, if that is nearer than where the span begins.
    fn left_at(&self, span: &Span, position: u64) -> Option<Walk> {
        let mut left = locked(&self.0);
        let is_before =
            |walk: &Walk| walk.file == span.name && walk.next <= position && walk.frames.offset > span.from;
        let best = (0..left.len()).filter(|at| left.get(*at).is_some_and(is_before));
        let best = best.max_by_key(|at| left.get(*at).map(|walk| walk.next))?;
        left.remove(best)
    }
}
