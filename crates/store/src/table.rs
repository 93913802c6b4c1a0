//! Points that no segment holds yet, in memory, by series: one list of tables for each stream, each over consecutive LSNs, and what its
//! records are beside their points, so that it is sealed without reading them again. A table that is full is closed, so that what is
//! sealed next is known. Rebuilt from the log when the store opens.

mod column;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use foldhash::fast::RandomState;
use tidelog_record::{BodyReader, ChainHash, Entry, Lsn};

pub(crate) use column::TableColumn;

use crate::segment::Records;

/// A record as its stream's tables take it in.
pub(crate) struct Arrival<'a> {
    pub lsn: Lsn,
    /// The chain hash after it.
    pub chain: ChainHash,
    pub body: &'a [u8],
    /// Its points, if it holds some.
    pub points: Option<BodyReader<'a>>,
    /// Writing the points again gives the body.
    pub is_canonical: bool,
}

/// Points of consecutive records of one stream.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub first: Lsn,
    pub last: Lsn,
    /// When its first record came, or the store opened.
    pub begun: Instant,
    /// The last record that holds points; zero when none does.
    pub last_with_points: Lsn,
    pub points: u64,
    /// Bytes of the records' bodies.
    pub bytes: u64,
    /// Memory that it takes, or that sealing it does if that is more, in bytes.
    pub memory_bytes: u64,
    /// Points of its longest series.
    pub longest: u64,
    columns: Vec<TableColumn>,
    /// The records without their points. None when one of them has to be read again to be sealed.
    records: Option<Records>,
    places: HashMap<Arc<[u8]>, u32, RandomState>,
}

impl Table {
    fn new(first: Lsn) -> Self {
        let places = HashMap::default();
        Self {
            first,
            last: first,
            begun: Instant::now(),
            last_with_points: Lsn::ZERO,
            points: 0,
            bytes: 0,
            memory_bytes: 0,
            longest: 0,
            columns: Vec::new(),
            records: Some(Records::default()),
            places,
        }
    }

    /// The column of the `nth` entry of a record. Records of a stream tend to hold the same series in the same order, so the
    /// column after the last is tried before the table is searched.
    fn column(&mut self, canonical: &[u8], hint: usize, is_new: &mut bool) -> usize {
        if self.columns.get(hint).is_some_and(|column| *column.canonical == *canonical) {
            return hint;
        }
        if let Some(at) = self.places.get(canonical) {
            return *at as usize;
        }
        *is_new = true;
        let column = TableColumn::new(canonical);
        // A table's columns are far fewer than 2^32: each took bytes of a record.
        let at = self.columns.len();
        self.places.insert(Arc::clone(&column.canonical), u32::try_from(at).unwrap_or(u32::MAX));
        self.columns.push(column);
        at
    }

    pub fn get(&self, canonical: &[u8]) -> Option<&TableColumn> {
        self.places.get(canonical).and_then(|at| self.columns.get(*at as usize))
    }

    pub fn columns(&self) -> &[TableColumn] {
        &self.columns
    }

    /// The records without their points; none if they have to be read again to be sealed.
    pub fn records(&self) -> Option<&Records> {
        self.records.as_ref()
    }

    /// Takes in the record behind its last. `found` is told the canonical bytes of each series that is new. Points behind what cannot be
    /// read are left out: bodies are checked where they enter.
    fn take_in(&mut self, arrival: Arrival<'_>, entry: &mut Entry, found: &mut dyn FnMut(&Arc<[u8]>)) {
        let Arrival { lsn, chain, body, points, is_canonical } = arrival;
        self.last = self.last.max(lsn);
        self.bytes += body.len() as u64;
        self.memory_bytes += RECORD_BYTES;
        let mut records = self.records.take();
        let added = if let Some(reader) = points {
            records = records.filter(|_| is_canonical);
            self.take_points(lsn, body, reader, records.as_mut(), entry, found)
        } else {
            // What holds no points is kept as it is.
            self.memory_bytes += body.len() as u64;
            records.as_mut().is_none_or(|records| records.other(body).is_some())
        };
        if let Some(records) = records.as_mut() {
            records.chain(lsn, chain);
        }
        self.records = records.filter(|_| added);
    }

    /// Whether all points could be read.
    fn take_points(
        &mut self,
        lsn: Lsn,
        body: &[u8],
        mut reader: BodyReader<'_>,
        mut records: Option<&mut Records>,
        entry: &mut Entry,
        found: &mut dyn FnMut(&Arc<[u8]>),
    ) -> bool {
        let (head, entries) = (reader.head(), reader.entries());
        reader.leave_decimals();
        let mut hint = 0usize;
        let is_whole = loop {
            match reader.next(entry) {
                Ok(true) => {}
                Ok(false) => break true,
                Err(_) => break false,
            }
            let mut is_new = false;
            let at = self.column(&entry.canonical, hint, &mut is_new);
            hint = at + 1;
            let Some(column) = self.columns.get_mut(at) else { break false };
            if is_new {
                found(&column.canonical);
                self.memory_bytes += COLUMN_BYTES + column.canonical.len() as u64;
            }
            let before = column.bytes();
            column.extend(entry);
            self.memory_bytes += column.bytes().saturating_sub(before) as u64;
            self.longest = self.longest.max(column.len() as u64);
            self.points += entry.times.len() as u64;
            if !entry.times.is_empty() {
                self.last_with_points = self.last_with_points.max(lsn);
            }
            if let Some(records) = &mut records {
                // Both are far below 2^32: each took bytes of a body.
                let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
                records.entry(number(at), number(entry.times.len()));
            }
        };
        let lengths = u32::try_from(body.len()).ok().zip(u32::try_from(entries).ok());
        match (records, lengths) {
            (Some(records), Some((bytes, entries))) if is_whole => {
                records.points(head, bytes, entries);
                true
            }
            (None, _) => true,
            _ => false,
        }
    }
}

/// What a series takes beside its points and its name, in bytes: its column, and its place among the others.
const COLUMN_BYTES: u64 = size_of::<TableColumn>() as u64 + 64;
/// What a record takes beside its points while it is sealed, in bytes.
const RECORD_BYTES: u64 = 24;

/// All points of one stream that no segment holds.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    list: VecDeque<Arc<Table>>,
    closed: bool,
}

/// When a table is closed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableBounds {
    pub points_max: u64,
    pub points_of_series_max: u64,
    pub memory_bytes_max: u64,
}

impl TableBounds {
    fn are_reached_by(&self, table: &Table) -> bool {
        table.points >= self.points_max
            || table.longest >= self.points_of_series_max
            || table.memory_bytes >= self.memory_bytes_max
    }
}

impl Tables {
    /// Takes in the next record. `found` is told the canonical bytes of each series that is new to its table.
    pub fn take_in(
        &mut self,
        arrival: Arrival<'_>,
        bounds: TableBounds,
        entry: &mut Entry,
        found: &mut dyn FnMut(&Arc<[u8]>),
    ) {
        let at = self.place(arrival.lsn);
        let is_newest = at + 1 == self.list.len();
        let Some(table) = self.list.get_mut(at) else { return };
        // Whoever seals it holds a copy of it no longer than that takes, and of one that is closed.
        let table = Arc::make_mut(table);
        table.take_in(arrival, entry, found);
        if is_newest {
            self.closed = bounds.are_reached_by(table);
        }
    }

    /// The table that holds a range of records and no more, to be sealed: it is closed.
    pub fn close(&mut self, first: Lsn, last: Lsn) -> Option<Arc<Table>> {
        let at = self.list.iter().position(|table| (table.first, table.last) == (first, last))?;
        self.closed |= at + 1 == self.list.len();
        self.list.get(at).cloned()
    }

    /// The place of the table that takes in a record, which is made if there is none. Tables stand in order of LSN.
    fn place(&mut self, lsn: Lsn) -> usize {
        let newest = self.list.len().wrapping_sub(1);
        match self.list.back() {
            Some(table) if !self.closed && table.last.next() == Some(lsn) => newest,
            Some(table) if table.last >= lsn => {
                // A record before the newest: one that is read again, or fills a gap.
                let before = |table: &Arc<Table>| table.last.next() == Some(lsn);
                self.list.iter().position(before).filter(|at| *at != newest).unwrap_or_else(|| {
                    let at = self.list.partition_point(|table| table.first < lsn);
                    self.list.insert(at, Arc::new(Table::new(lsn)));
                    at
                })
            }
            _ => {
                self.list.push_back(Arc::new(Table::new(lsn)));
                self.closed = false;
                newest.wrapping_add(1)
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Table> {
        self.list.iter().map(Arc::as_ref)
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn points(&self) -> u64 {
        self.list.iter().map(|table| table.points).sum()
    }

    /// The oldest table, if it is full.
    pub fn full(&self) -> Option<&Table> {
        self.list.front().map(Arc::as_ref).filter(|_| self.list.len() > 1 || self.closed)
    }

    /// The oldest table.
    pub fn oldest(&self) -> Option<&Table> {
        self.list.front().map(Arc::as_ref)
    }

    /// Forgets the tables of which all records with points, from the first to the last, are sealed. One that holds others too stays
    /// whole: what is in a segment as well is counted once by every answer (invariant 8).
    /// What is forgotten is given back.
    pub fn forget(&mut self, is_sealed: impl Fn(Lsn, Lsn) -> bool) -> Vec<Arc<Table>> {
        let (gone, kept): (Vec<_>, _) = std::mem::take(&mut self.list)
            .into_iter()
            .partition::<Vec<_>, _>(|table| is_sealed(table.first, table.last_with_points));
        self.list = kept.into();
        if !gone.is_empty() && self.list.is_empty() {
            self.closed = false;
        }
        gone
    }
}
