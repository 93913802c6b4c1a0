//! A run: some series of one site, sorted and never changed, with their label postings. New series are gathered into small
//! runs; runs of one size are merged into greater ones, so every series is written a few times only, and always in order.
//!
//! ```text
//! D site run        level 1, series 4, name pages 4, posting pages 4          that it is whole
//! X site run                                                                  that its pages are to be removed
//! R site run N page    64 keys of series, each as what it shares with the one before and the rest
//! R site run I key     page                         a key not before the page's first, behind the last of the page before
//! R site run P entry   { entry, numbers }           entry := label 0 value 0 first number
//! ```
//! Numbers of site, run and page are 4 bytes, big-endian, because they are ordered. A series' number is its place in the run.

use super::error::CatalogueError;
use super::numbers::{Numbers, read_ranges};
use super::order::labels_of;
use super::shelf::{Batch, Shelf};
use super::varint::{put_after, put_bytes, take_after, take_bytes};

/// Series in a page of names.
const NAMES_PER_PAGE: u32 = 64;
/// A page of postings is closed at this size, in bytes.
const POSTING_PAGE_BYTES: usize = 4096;
/// What an entry of postings ends with: a zero and the first number.
const ENTRY_TAIL_BYTES: usize = 5;
/// Ranges in one entry of postings.
const ENTRY_RANGES_MAX: usize = 1024;
/// Changes gathered before they are made, in bytes.
const BATCH_BYTES: usize = 128 * 1024;
/// Pages removed at a time.
const REMOVED_AT_A_TIME: usize = 256;

const BAD_PAGE: CatalogueError = CatalogueError::Damaged("a page is not as it was written");

/// One run's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub site: u32,
    pub id: u32,
    pub level: u8,
    pub count: u32,
    pub name_pages: u32,
    pub posting_pages: u32,
}

fn key(kind: u8, site: u32, run: u32) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend_from_slice(&site.to_be_bytes());
    key.extend_from_slice(&run.to_be_bytes());
    key
}

fn page_key(site: u32, run: u32, section: u8, rest: &[u8]) -> Vec<u8> {
    let mut key = key(b'R', site, run);
    key.push(section);
    key.extend_from_slice(rest);
    key
}

/// Site and run of a key.
pub(super) fn site_and_run(key: &[u8]) -> Option<(u32, u32)> {
    let (site, rest) = key.get(1..)?.split_first_chunk::<4>()?;
    let (run, _) = rest.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*site), u32::from_be_bytes(*run)))
}

/// What a label with a value begins with in the postings; the value is escaped.
pub(super) fn posting(label: &[u8], value: &[u8]) -> Vec<u8> {
    [label, &[0], value].concat()
}

impl Run {
    pub fn read(key: &[u8], value: &[u8]) -> Option<Self> {
        let (site, id) = site_and_run(key)?;
        let (level, rest) = value.split_first()?;
        let (count, rest) = rest.split_first_chunk::<4>()?;
        let (name_pages, rest) = rest.split_first_chunk::<4>()?;
        let posting_pages = rest.try_into().ok()?;
        Some(Self {
            site,
            id,
            level: *level,
            count: u32::from_le_bytes(*count),
            name_pages: u32::from_le_bytes(*name_pages),
            posting_pages: u32::from_le_bytes(posting_pages),
        })
    }

    fn head(&self) -> Vec<u8> {
        let mut value = vec![self.level];
        for number in [self.count, self.name_pages, self.posting_pages] {
            value.extend_from_slice(&number.to_le_bytes());
        }
        value
    }

    fn page_key(&self, section: u8, rest: &[u8]) -> Vec<u8> {
        page_key(self.site, self.id, section, rest)
    }

    /// The keys of a page of names.
    pub fn names(&self, shelf: &Shelf, page: u32) -> Result<Vec<Vec<u8>>, CatalogueError> {
        let bytes = shelf.get(&self.page_key(b'N', &page.to_be_bytes()))?.ok_or(BAD_PAGE)?;
        read_names(&bytes).ok_or(BAD_PAGE)
    }

    /// The page that a number's key is in, and its place there.
    pub fn place(number: u32) -> (u32, usize) {
        (number / NAMES_PER_PAGE, usize::try_from(number % NAMES_PER_PAGE).unwrap_or(0))
    }

    pub fn contains(&self, shelf: &Shelf, name: &[u8]) -> Result<bool, CatalogueError> {
        let prefix = self.page_key(b'I', &[]);
        let Some((key, page)) = shelf.at_or_before(&self.page_key(b'I', name))? else { return Ok(false) };
        if !key.starts_with(&prefix) {
            return Ok(false);
        }
        let page = u32::from_le_bytes(page.as_slice().try_into().map_err(|_| BAD_PAGE)?);
        Ok(self.names(shelf, page)?.binary_search_by(|found| found.as_slice().cmp(name)).is_ok())
    }

    /// Appends the numbers under a label and its escaped value.
    pub fn gather(
        &self,
        shelf: &Shelf,
        posting: &[u8],
        out: &mut Vec<(u32, u32)>,
    ) -> Result<(), CatalogueError> {
        let mut postings = Postings::from(self, shelf, &[posting, &[0]].concat())?;
        while postings.advance()? && postings.posting() == posting {
            read_ranges(postings.list(), out).ok_or(BAD_PAGE)?;
        }
        Ok(())
    }

    pub fn remove(&self, shelf: &Shelf) -> Result<(), CatalogueError> {
        remove_run(shelf, self.site, self.id)
    }

    /// Counts and checks all pages.
    pub fn check(&self, shelf: &Shelf) -> Result<(), CatalogueError> {
        let (mut names, mut series, mut postings) = (0u32, 0u64, 0u32);
        shelf.each(&self.page_key(b'N', &[]), &mut |_, page| {
            names += 1;
            series += read_names(page).ok_or(BAD_PAGE)?.len() as u64;
            Ok(())
        })?;
        let mut index = 0u32;
        shelf.each(&self.page_key(b'I', &[]), &mut |_, _| {
            index += 1;
            Ok(())
        })?;
        shelf.each(&self.page_key(b'P', &[]), &mut |_, page| {
            postings += 1;
            self.check_postings(page).ok_or(BAD_PAGE)
        })?;
        let whole = (names, index, series, postings)
            == (self.name_pages, self.name_pages, u64::from(self.count), self.posting_pages);
        if whole { Ok(()) } else { Err(CatalogueError::Damaged("pages are missing")) }
    }

    /// Whether a page of postings can be read and speaks of no series that the run does not have.
    fn check_postings(&self, mut page: &[u8]) -> Option<()> {
        let (mut entry, mut ranges) = (Vec::new(), Vec::new());
        while !page.is_empty() {
            take_after(&mut page, &mut entry)?;
            ranges.clear();
            read_ranges(take_bytes(&mut page)?, &mut ranges)?;
            let is_sound =
                entry.len() >= ENTRY_TAIL_BYTES && ranges.iter().all(|(_, end)| *end <= self.count);
            is_sound.then_some(())?;
        }
        Some(())
    }
}

/// Removes a run's pages and what says that they are to be removed.
pub(super) fn remove_run(shelf: &Shelf, site: u32, run: u32) -> Result<(), CatalogueError> {
    shelf.remove_all(&key(b'R', site, run), REMOVED_AT_A_TIME)?;
    let mut batch = Batch::default();
    batch.remove(key(b'X', site, run));
    shelf.apply(batch)
}

fn read_names(mut bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    let mut name = Vec::new();
    while !bytes.is_empty() {
        take_after(&mut bytes, &mut name)?;
        (names.len() < NAMES_PER_PAGE as usize).then_some(())?;
        names.push(name.clone());
    }
    Some(names)
}

/// The keys of a run's series in ascending order.
pub(super) struct Names<'a> {
    run: &'a Run,
    shelf: &'a Shelf,
    page: u32,
    names: std::vec::IntoIter<Vec<u8>>,
}

impl<'a> Names<'a> {
    pub fn of(run: &'a Run, shelf: &'a Shelf) -> Self {
        Self { run, shelf, page: 0, names: Vec::new().into_iter() }
    }

    pub fn next(&mut self) -> Result<Option<Vec<u8>>, CatalogueError> {
        if let Some(name) = self.names.next() {
            return Ok(Some(name));
        }
        if self.page >= self.run.name_pages {
            return Ok(None);
        }
        self.names = self.run.names(self.shelf, self.page)?.into_iter();
        self.page += 1;
        Ok(self.names.next())
    }
}

/// Walks a run's postings in ascending order.
pub(super) struct Postings<'a> {
    shelf: &'a Shelf,
    prefix: Vec<u8>,
    page_key: Vec<u8>,
    page: Vec<u8>,
    at: usize,
    entry: Vec<u8>,
    list: (usize, usize),
    /// Entries before it are passed over.
    start: Vec<u8>,
}

impl<'a> Postings<'a> {
    /// From the first entry that is not before `start`.
    pub fn from(run: &Run, shelf: &'a Shelf, start: &[u8]) -> Result<Self, CatalogueError> {
        let prefix = run.page_key(b'P', &[]);
        let wanted = [prefix.as_slice(), start].concat();
        // No key is between the prefix and the first page.
        let found = shelf.at_or_before(&wanted)?.filter(|(key, _)| key.starts_with(&prefix));
        let (page_key, page) = found.unwrap_or_else(|| (prefix.clone(), Vec::new()));
        let (at, entry, list) = (0, Vec::new(), (0, 0));
        Ok(Self { shelf, prefix, page_key, page, at, entry, list, start: start.to_vec() })
    }

    pub fn advance(&mut self) -> Result<bool, CatalogueError> {
        loop {
            if self.at >= self.page.len() {
                match self.shelf.after(&self.page_key)? {
                    Some((key, page)) if key.starts_with(&self.prefix) => {
                        (self.page_key, self.page, self.at) = (key, page, 0);
                        self.entry.clear();
                    }
                    _ => return Ok(false),
                }
            }
            self.read_entry().ok_or(BAD_PAGE)?;
            if self.entry >= self.start {
                return Ok(true);
            }
        }
    }

    fn read_entry(&mut self) -> Option<()> {
        let mut rest = self.page.get(self.at..)?;
        take_after(&mut rest, &mut self.entry)?;
        let length = take_bytes(&mut rest)?.len();
        self.at = self.page.len() - rest.len();
        self.list = (self.at - length, self.at);
        (self.entry.len() >= ENTRY_TAIL_BYTES).then_some(())
    }

    /// Label and escaped value where the walk stands.
    pub fn posting(&self) -> &[u8] {
        self.entry.get(..self.entry.len().saturating_sub(ENTRY_TAIL_BYTES)).unwrap_or_default()
    }

    /// Its numbers, or some of them: more may follow under the same label and value.
    pub fn list(&self) -> &[u8] {
        self.page.get(self.list.0..self.list.1).unwrap_or_default()
    }
}

/// Writes a run: first its series in ascending order, then its postings.
pub(super) struct RunWriter<'a> {
    shelf: &'a Shelf,
    run: Run,
    batch: Batch,
    names: Vec<u8>,
    last_name: Vec<u8>,
    postings: Vec<u8>,
    first_entry: Vec<u8>,
    last_entry: Vec<u8>,
}

impl<'a> RunWriter<'a> {
    pub fn begin(shelf: &'a Shelf, site: u32, id: u32, level: u8) -> Result<Self, CatalogueError> {
        let run = Run { site, id, level, count: 0, name_pages: 0, posting_pages: 0 };
        let mut batch = Batch::default();
        batch.set(key(b'X', site, id), &[]);
        shelf.apply(batch)?;
        Ok(Self {
            shelf,
            run,
            batch: Batch::default(),
            names: Vec::new(),
            last_name: Vec::new(),
            postings: Vec::new(),
            first_entry: Vec::new(),
            last_entry: Vec::new(),
        })
    }

    /// The next series; answers its number.
    pub fn name(&mut self, name: &[u8]) -> Result<u32, CatalogueError> {
        let number = self.run.count;
        if number.is_multiple_of(NAMES_PER_PAGE) {
            self.close_names()?;
            // As much of the key as tells it from the one before.
            let shared = self.last_name.iter().zip(name).take_while(|(a, b)| a == b).count();
            let index = name.get(..=shared).unwrap_or(name);
            let page = self.run.name_pages;
            self.batch.set(self.run.page_key(b'I', index), &page.to_le_bytes());
            self.last_name.clear();
        }
        put_after(&mut self.names, &self.last_name, name);
        self.last_name.clear();
        self.last_name.extend_from_slice(name);
        self.run.count =
            number.checked_add(1).ok_or(CatalogueError::Full("more series than can be numbered"))?;
        Ok(number)
    }

    fn close_names(&mut self) -> Result<(), CatalogueError> {
        if self.names.is_empty() {
            return Ok(());
        }
        let page = self.run.name_pages.to_be_bytes();
        self.batch.set(self.run.page_key(b'N', &page), &self.names);
        self.names.clear();
        self.run.name_pages += 1;
        self.apply(BATCH_BYTES)
    }

    /// The next label with its escaped value, and the numbers of the series that have it.
    pub fn posting(&mut self, posting: &[u8], numbers: &Numbers) -> Result<(), CatalogueError> {
        for (first, piece) in numbers.pieces(ENTRY_RANGES_MAX) {
            if self.postings.len() >= POSTING_PAGE_BYTES {
                self.close_postings()?;
            }
            let entry = [posting, &[0], &first.to_be_bytes()].concat();
            if self.postings.is_empty() {
                self.first_entry.clone_from(&entry);
                self.last_entry.clear();
            }
            put_after(&mut self.postings, &self.last_entry, &entry);
            put_bytes(&mut self.postings, &piece.encode());
            self.last_entry = entry;
        }
        Ok(())
    }

    fn close_postings(&mut self) -> Result<(), CatalogueError> {
        if self.postings.is_empty() {
            return Ok(());
        }
        self.batch.set(self.run.page_key(b'P', &self.first_entry), &self.postings);
        self.postings.clear();
        self.run.posting_pages += 1;
        self.apply(BATCH_BYTES)
    }

    fn apply(&mut self, from_bytes: usize) -> Result<(), CatalogueError> {
        if self.batch.bytes < from_bytes {
            return Ok(());
        }
        self.shelf.apply(std::mem::take(&mut self.batch))
    }

    /// Ends the series; postings follow.
    pub fn end_names(&mut self) -> Result<(), CatalogueError> {
        self.close_names()
    }

    /// Makes the run known, and those that it replaces unknown, in one step.
    pub fn finish(mut self, replaced: &[Run]) -> Result<Run, CatalogueError> {
        self.close_postings()?;
        self.apply(0)?;
        let run = self.run;
        self.batch.remove(key(b'X', run.site, run.id));
        self.batch.set(key(b'D', run.site, run.id), &run.head());
        for old in replaced {
            self.batch.remove(key(b'D', old.site, old.id));
            self.batch.set(key(b'X', old.site, old.id), &[]);
        }
        self.shelf.apply(self.batch)?;
        Ok(run)
    }
}

/// The postings that a series stands under, values escaped.
pub(super) fn postings_of(name: &[u8]) -> Option<impl Iterator<Item = Vec<u8>>> {
    Some(labels_of(name)?.into_iter().map(|(label, value)| posting(label, value)))
}
