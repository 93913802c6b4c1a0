//! Reading records back out of log files: a window over a file and a walk along its frames. Every frame that is handed
//! out was checked (invariant 3). Knows no index beyond the files it is given.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::disk::{DiskFile, read_full};
use crate::errors::ReadError;
use crate::frame::{self, Content, FRAME_HEAD_BYTES, RecordFrame};
use crate::index::LogFile;

/// Bytes that one read asks the disk for.
const WINDOW_BYTES: usize = 64 * 1024;

/// A piece of a file in memory.
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

    /// Walks the frames from `from` on; each is checked.
    pub fn walk(
        &self,
        mut visit: impl FnMut(u64, RecordFrame<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ReadError> {
        let mut window = Window::new(Arc::clone(&self.file), self.end);
        let mut offset = self.from;
        let from = self.from;
        let mut rot = self.rot.iter().skip_while(|(_, to)| *to <= from).peekable();
        while offset < self.end {
            if let Some((_, to)) = rot.next_if(|(from, _)| *from <= offset) {
                offset = *to;
                continue;
            }
            let head = window.at(offset, FRAME_HEAD_BYTES).map_err(|e| self.io(&e))?;
            let whole = frame::frame_bytes(head).map_err(|_| self.rotten(offset))?;
            let bytes = window.at(offset, whole).map_err(|e| self.io(&e))?;
            let frame = frame::parse(self.salt, offset, bytes).map_err(|_| self.rotten(offset))?;
            if let Content::Record(record) = frame.content
                && visit(self.first + u64::from(record.ordinal), record).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
            offset += whole as u64;
        }
        Ok(ControlFlow::Continue(()))
    }
}
