//! Runs of numbers of one sort, one behind the other, in chunks that are packed as one and pages of them that are read as one. A
//! run lies in one page, so whoever knows its place reads it by decoding one page.

use std::io;

use super::blocks::{BlockWriter, Kind};
use super::bytes::{Cut, Malformed, put_packed, put_u64};
use super::ints::{self, Kinship, PAGE_VALUES_MAX};

/// Numbers after which a page is full.
const PAGE_VALUES: usize = 1_024;
/// Numbers that a run must not take a page beyond, unless it is longer alone.
const PAGE_VALUES_ENOUGH: usize = 1_536;
/// Numbers after which a chunk is full. The encoder's memory follows from it: half a MiB.
const CHUNK_VALUES: usize = 8_192;
/// Numbers after which a chunk ends where another sort of numbers begins.
const CHUNK_VALUES_MIN: usize = 2_048;
/// Bytes of texts that are packed as one.
const TEXT_BLOCK_BYTES: usize = 64 * 1024;

/// Where a run begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Which chunk among those of its kind.
    pub chunk: u32,
    /// Which page of it.
    pub page: u32,
    /// Numbers before it in the page; bytes, in texts.
    pub offset: u32,
}

/// How a run's place follows from the one before it.
pub(super) const SAME_PAGE: i64 = 0;
pub(super) const NEXT_PAGE: i64 = 1;
pub(super) const NEXT_CHUNK: i64 = 2;

impl Place {
    /// The place of a run of `length` that lies as `step` says, when `self` is where the last one ended; `self` moves on.
    pub fn advance(&mut self, step: i64, length: u32) -> Result<Self, Malformed> {
        match step {
            SAME_PAGE => {}
            NEXT_PAGE => (self.page, self.offset) = (self.page.checked_add(1).ok_or(Malformed)?, 0),
            NEXT_CHUNK => {
                *self = Self { chunk: self.chunk.checked_add(1).ok_or(Malformed)?, page: 0, offset: 0 }
            }
            _ => return Err(Malformed),
        }
        let place = *self;
        self.offset = self.offset.checked_add(length).ok_or(Malformed)?;
        Ok(place)
    }

    pub fn put(&self, out: &mut Vec<u8>) {
        [self.chunk, self.page, self.offset].iter().for_each(|part| put_u64(out, u64::from(*part)));
    }

    pub fn take(cut: &mut Cut<'_>) -> Result<Self, Malformed> {
        Ok(Self { chunk: cut.u32()?, page: cut.u32()?, offset: cut.u32()? })
    }
}

/// Gathers runs and writes full chunks.
pub(super) struct ChunkWriter {
    kind: Kind,
    kinship: Kinship,
    values: Vec<i64>,
    pages: Vec<usize>,
    page: usize,
    end: Place,
    other_sort: bool,
}

impl ChunkWriter {
    pub fn new(kind: Kind, kinship: Kinship) -> Self {
        let end = Place::default();
        Self { kind, kinship, values: Vec::new(), pages: Vec::new(), page: 0, end, other_sort: false }
    }

    /// Where the last run ended.
    pub fn end(&self) -> Place {
        self.end
    }

    /// What comes now is of another sort than what came before.
    pub fn other_sort(&mut self) {
        self.other_sort = true;
    }

    /// Adds a run; how its place follows from [`ChunkWriter::end`] before.
    pub fn run(&mut self, out: &mut BlockWriter<'_>, run: &[i64]) -> io::Result<i64> {
        if run.is_empty() {
            return Ok(SAME_PAGE);
        }
        let beyond = self.page > 0 && self.page + run.len() > PAGE_VALUES_ENOUGH;
        let sorted_out = self.other_sort && self.values.len() >= CHUNK_VALUES_MIN;
        self.other_sort = false;
        let mut step = SAME_PAGE;
        if self.page >= PAGE_VALUES || beyond || sorted_out {
            self.pages.push(std::mem::take(&mut self.page));
            step = NEXT_PAGE;
            if self.values.len() >= CHUNK_VALUES || sorted_out {
                self.flush(out)?;
                step = NEXT_CHUNK;
            }
        }
        self.values.extend_from_slice(run);
        self.page += run.len();
        let length = u32::try_from(run.len()).ok().filter(|_| self.page <= PAGE_VALUES_MAX);
        length
            .and_then(|length| self.end.advance(step, length).ok())
            .ok_or_else(|| io::Error::other("a page of a segment is too long"))?;
        Ok(step)
    }

    fn flush(&mut self, out: &mut BlockWriter<'_>) -> io::Result<()> {
        let bytes = ints::chunk(&self.values, &self.pages, self.kinship)
            .ok_or_else(|| io::Error::other("the codec refused a chunk"))?;
        out.put(self.kind, &bytes)?;
        self.values.clear();
        self.pages.clear();
        Ok(())
    }

    pub fn finish(&mut self, out: &mut BlockWriter<'_>) -> io::Result<()> {
        if self.page > 0 {
            self.pages.push(std::mem::take(&mut self.page));
            self.flush(out)?;
        }
        Ok(())
    }
}

/// Gathers texts and writes full blocks of them.
#[derive(Default)]
pub(super) struct TextWriter {
    bytes: Vec<u8>,
    end: Place,
}

impl TextWriter {
    pub fn end(&self) -> Place {
        self.end
    }

    /// Adds a run of bytes, as [`ChunkWriter::run`] does.
    pub fn run(&mut self, out: &mut BlockWriter<'_>, run: &[u8]) -> io::Result<i64> {
        let mut step = SAME_PAGE;
        if self.bytes.len() >= TEXT_BLOCK_BYTES {
            self.finish(out)?;
            step = NEXT_CHUNK;
        }
        self.bytes.extend_from_slice(run);
        let length = u32::try_from(run.len()).ok();
        length
            .and_then(|length| self.end.advance(step, length).ok())
            .ok_or_else(|| io::Error::other("a text of a segment is too long"))?;
        Ok(step)
    }

    pub fn finish(&mut self, out: &mut BlockWriter<'_>) -> io::Result<()> {
        if !self.bytes.is_empty() {
            let mut packed = Vec::new();
            put_packed(&mut packed, &self.bytes);
            out.put(Kind::Texts, &packed)?;
            self.bytes.clear();
        }
        Ok(())
    }
}
