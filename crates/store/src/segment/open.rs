//! An open segment: its footer in memory, everything else on demand through the cache.

use std::io;
use std::sync::{Arc, Mutex};

use crate::at_hand::may_wait;
use crate::disk::{DiskFile, read_full};

use super::blocks::{KINDS, Kind, Salt, TAIL_BYTES, first_16, footer_at, read_block};
use super::bytes::{Cut, Malformed, take_packed};
use super::cache::{Cache, Cached};
use super::directory::Page;
use super::errors::SegmentError;
use super::ints::Chunk;
use super::points::SeriesRef;
use super::regenerate::Cursor;
use super::sequence::{self, Sequence, TABLE_PAGE_SEQUENCES};
use super::span::{Footer, HEADER_BYTES_MAX, HeaderError, Span, VERSION};

/// A sealed range of records, open for reading.
pub struct Segment {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) cache: Arc<Cache>,
    id: u64,
    span: Span,
    pub(super) salt: Salt,
    footer: Footer,
    /// Where each block begins.
    offsets: Vec<u64>,
    by_kind: [Vec<u32>; KINDS.len()],
    bytes: u64,
    pub(super) cursor: Mutex<Option<Cursor>>,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segment")
            .field("span", &self.span)
            .field("points", &self.footer.points)
            .finish_non_exhaustive()
    }
}

impl Segment {
    /// Opens a segment: reads its header, its last bytes and its footer.
    ///
    /// # Errors
    /// [`SegmentError`] when they are not those of a segment that this version reads.
    pub fn open(file: Arc<dyn DiskFile>, cache: Arc<Cache>) -> Result<Self, SegmentError> {
        let bytes = file.len()?;
        let mut head = [0u8; HEADER_BYTES_MAX];
        let length = read_full(&*file, &mut head, 0)?;
        let head = head.get(..length).unwrap_or_default();
        let (span, header_bytes) = Span::read_header(head).map_err(|error| match error {
            HeaderError::Rotten => SegmentError::Rotten { what: "header", offset: 0 },
            HeaderError::Version(found) => SegmentError::Version { found, supported: VERSION },
        })?;
        let salt = first_16(&blake3::hash(head.get(..header_bytes).unwrap_or_default()));
        let tail_at = bytes.saturating_sub(TAIL_BYTES as u64);
        let rotten = SegmentError::Rotten { what: "tail", offset: tail_at };
        let mut tail = [0u8; TAIL_BYTES];
        if read_full(&*file, &mut tail, tail_at)? != TAIL_BYTES {
            return Err(rotten);
        }
        let (at, footer_bytes) = footer_at(&salt, &tail).ok_or_else(|| rotten.clone())?;
        if at.checked_add(u64::from(footer_bytes)) != Some(tail_at) || at < header_bytes as u64 {
            return Err(rotten);
        }
        let footer = read_block(&*file, &salt, Kind::Footer, at, footer_bytes)?;
        let footer = Footer::read(&footer, at)?;
        let mut by_kind: [Vec<u32>; KINDS.len()] = Default::default();
        let mut offset = header_bytes as u64;
        let mut offsets = Vec::with_capacity(footer.table.len());
        for (number, (kind, length)) in (0u32..).zip(&footer.table) {
            offsets.push(offset);
            offset = offset.saturating_add(u64::from(*length));
            if let Some(blocks) = by_kind.get_mut(*kind as usize) {
                blocks.push(number);
            }
        }
        let of = |kind: Kind| by_kind.get(kind as usize).map_or(0, Vec::len);
        let good = offset == at
            && of(Kind::Directory) == footer.pages.len()
            && of(Kind::Records) == footer.records.len()
            && of(Kind::Sequences) == footer.sequences.div_ceil(TABLE_PAGE_SEQUENCES) as usize
            && footer.records.first() == Some(&span.first.0)
            && footer.records.last().is_some_and(|last| *last <= span.last.0)
            && footer.series as usize <= footer.pages.len().saturating_mul(128)
            && footer.pages.last().is_none_or(|(first, _)| *first < footer.series);
        if !good {
            return Err(SegmentError::Inconsistent("the footer names what is not there"));
        }
        let id = cache.number_segment();
        Ok(Self { file, cache, id, span, salt, footer, offsets, by_kind, bytes, cursor: Mutex::default() })
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn footer(&self) -> &Footer {
        &self.footer
    }

    /// The records it is made of.
    #[must_use]
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// Points as written, repeats included.
    #[must_use]
    pub fn points(&self) -> u64 {
        self.footer.points
    }

    /// Series named in it.
    #[must_use]
    pub fn series_count(&self) -> u32 {
        self.footer.series
    }

    /// First and last time of all points, in ns; zeros without points.
    #[must_use]
    pub fn time_range(&self) -> (i64, i64) {
        self.footer.times
    }

    /// Length of the file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of memory that it takes while it is open, beside the cache, about.
    #[must_use]
    pub fn weight(&self) -> usize {
        let keys: usize = self.footer.pages.iter().map(|(_, key)| key.len() + 32).sum();
        size_of::<Self>() + keys + self.offsets.len() * 20 + self.footer.records.len() * 8
    }

    pub(super) fn block(&self, number: usize) -> Result<(Kind, Vec<u8>), SegmentError> {
        let missing = SegmentError::Inconsistent("a block is named that is not there");
        let (kind, length) = *self.footer.table.get(number).ok_or(missing.clone())?;
        let offset = *self.offsets.get(number).ok_or(missing)?;
        if !may_wait() {
            return Err(SegmentError::NotAtHand);
        }
        Ok((kind, read_block(&*self.file, &self.salt, kind, offset, length)?))
    }

    pub(super) fn blocks(&self) -> usize {
        self.offsets.len()
    }

    /// Reads the block that is so many among those of its kind.
    pub(super) fn block_of(&self, kind: Kind, number: u32) -> Result<Vec<u8>, SegmentError> {
        Ok(self.block(self.number_of(kind, number)? as usize)?.1)
    }

    fn number_of(&self, kind: Kind, number: u32) -> Result<u32, SegmentError> {
        let blocks = self.by_kind.get(kind as usize);
        let found = blocks.and_then(|blocks| blocks.get(number as usize)).copied();
        found.ok_or(SegmentError::Inconsistent("a block is named that is not there"))
    }

    fn cached(
        &self,
        kind: Kind,
        number: u32,
        decode: impl FnOnce(Vec<u8>) -> Result<Cached, SegmentError>,
    ) -> Result<Cached, SegmentError> {
        let block = self.number_of(kind, number)?;
        self.cache.get((self.id, block), || decode(self.block(block as usize)?.1))
    }

    pub(super) fn chunk(&self, kind: Kind, number: u32) -> Result<Arc<Chunk>, SegmentError> {
        match self.cached(kind, number, |bytes| Ok(Cached::Chunk(Arc::new(Chunk::open(bytes)?))))? {
            Cached::Chunk(chunk) => Ok(chunk),
            _ => Err(Malformed.into()),
        }
    }

    pub(super) fn text(&self, number: u32) -> Result<Arc<Vec<u8>>, SegmentError> {
        let decode = |bytes: Vec<u8>| {
            let mut cut = Cut(&bytes);
            let text = take_packed(&mut cut)?;
            cut.end()?;
            Ok(Cached::Text(Arc::new(text)))
        };
        match self.cached(Kind::Texts, number, decode)? {
            Cached::Text(text) => Ok(text),
            _ => Err(Malformed.into()),
        }
    }

    fn table(&self, page: u32) -> Result<Arc<Vec<Sequence>>, SegmentError> {
        let decode = |bytes: Vec<u8>| Ok(Cached::Table(Arc::new(sequence::read_table_page(&bytes)?)));
        match self.cached(Kind::Sequences, page, decode)? {
            Cached::Table(table) => Ok(table),
            _ => Err(Malformed.into()),
        }
    }

    pub(super) fn sequence(&self, number: u32) -> Result<Sequence, SegmentError> {
        let table = self.table(number / TABLE_PAGE_SEQUENCES)?;
        Ok(*table.get((number % TABLE_PAGE_SEQUENCES) as usize).ok_or(Malformed)?)
    }

    pub(super) fn page(&self, number: u32) -> Result<Arc<Page>, SegmentError> {
        let decode = |bytes: Vec<u8>| {
            let mut last: Option<(u32, Arc<Vec<Sequence>>)> = None;
            let page = Page::read(&bytes, self.footer.points, |number| {
                let page = number / TABLE_PAGE_SEQUENCES;
                let table = match &last {
                    Some((held, table)) if *held == page => table,
                    _ => &last.insert((page, self.table(page)?)).1,
                };
                Ok::<_, SegmentError>(*table.get((number % TABLE_PAGE_SEQUENCES) as usize).ok_or(Malformed)?)
            })?;
            let first = self.first_of(number)?;
            let next = match self.footer.pages.get(number as usize + 1) {
                Some((next, _)) => *next,
                None => self.footer.series,
            };
            if page.series.len() != next.saturating_sub(first) as usize {
                return Err(Malformed.into());
            }
            Ok(Cached::Page(Arc::new(page)))
        };
        match self.cached(Kind::Directory, number, decode)? {
            Cached::Page(page) => Ok(page),
            _ => Err(Malformed.into()),
        }
    }

    /// Number of the first series of a page.
    pub(super) fn first_of(&self, page: u32) -> Result<u32, SegmentError> {
        Ok(self.footer.pages.get(page as usize).ok_or(Malformed)?.0)
    }

    /// Where the series of a number stands.
    pub(super) fn at_number(&self, series: u32) -> Result<SeriesRef, SegmentError> {
        let page = self.footer.pages.partition_point(|(first, _)| *first <= series);
        let page = u32::try_from(page).ok().and_then(|page| page.checked_sub(1)).ok_or(Malformed)?;
        Ok(SeriesRef { page, slot: series - self.first_of(page)? })
    }

    pub(super) fn page_count(&self) -> u32 {
        u32::try_from(self.footer.pages.len()).unwrap_or(u32::MAX)
    }

    /// BLAKE3 of the whole file, cut to 16 bytes; reads all of it.
    ///
    /// # Errors
    /// [`SegmentError::Io`] when the disk refuses.
    pub fn hash(&self) -> Result<[u8; 16], SegmentError> {
        const BUFFER_BYTES: usize = 64 * 1024;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0u8; BUFFER_BYTES];
        let mut offset = 0u64;
        while offset < self.bytes {
            let read = read_full(&*self.file, &mut buffer, offset)?;
            if read == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            let left = usize::try_from(self.bytes - offset).unwrap_or(usize::MAX);
            hasher.update(buffer.get(..read.min(left)).unwrap_or_default());
            offset += read as u64;
        }
        Ok(first_16(&hasher.finalize()))
    }

    /// Bytes that the blocks of each kind take, checksums included; for measuring.
    #[must_use]
    pub fn bytes_by_kind(&self) -> Vec<(&'static str, u64)> {
        let names = ["numbers", "floats", "times", "orders", "texts", "sequences", "directory", "records"];
        let sum = |kind: Kind| {
            let blocks = self.footer.table.iter().filter(|(of, _)| *of == kind);
            blocks.map(|(_, length)| u64::from(*length)).sum()
        };
        names.into_iter().zip(KINDS).map(|(name, kind)| (name, sum(kind))).collect()
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.cache.forget(self.id);
    }
}
