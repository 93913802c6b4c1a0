//! Points that no segment holds yet, in memory, by series: one list of tables for each stream, each over consecutive LSNs. A
//! table that is full is closed, so that what is sealed next is known. Rebuilt from the log when the store opens.

mod column;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use foldhash::fast::RandomState;
use tidelog_record::{BodyReader, Entry, Lsn};

pub(crate) use column::TableColumn;

/// Points of consecutive records of one stream.
#[derive(Debug)]
pub(crate) struct Table {
    pub first: Lsn,
    pub last: Lsn,
    /// When its first record came, or the store opened.
    pub begun: Instant,
    /// The last record that holds points; zero when none does.
    last_with_points: Lsn,
    pub points: u64,
    /// Bytes of the records' bodies.
    pub bytes: u64,
    /// Memory that it takes, or that sealing it does if that is more, in bytes.
    pub memory_bytes: u64,
    /// Points of its longest series.
    pub longest: u64,
    columns: Vec<TableColumn>,
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
}

/// What a series takes beside its points and its name, in bytes: its column, and its place among the others.
const COLUMN_BYTES: u64 = size_of::<TableColumn>() as u64 + 64;
/// What a record takes beside its points while it is sealed, in bytes.
const RECORD_BYTES: u64 = 24;

/// All points of one stream that no segment holds.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    list: VecDeque<Table>,
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
    /// Takes in the next record; `points` is `None` for one that holds none. `found` is told the canonical bytes of each series
    /// that is new to the table. Points of an entry that cannot be read are left out: bodies are checked where they enter.
    pub fn take_in(
        &mut self,
        lsn: Lsn,
        body_bytes: usize,
        points: Option<BodyReader<'_>>,
        bounds: TableBounds,
        entry: &mut Entry,
        found: &mut dyn FnMut(&Arc<[u8]>),
    ) {
        let at = self.place(lsn);
        let is_newest = at + 1 == self.list.len();
        let Some(table) = self.list.get_mut(at) else { return };
        table.last = table.last.max(lsn);
        table.bytes += body_bytes as u64;
        table.memory_bytes += RECORD_BYTES;
        // What holds no points is kept as it is.
        table.memory_bytes += if points.is_none() { body_bytes as u64 } else { 0 };
        if let Some(mut reader) = points {
            let mut hint = 0usize;
            while let Ok(true) = reader.next(entry) {
                let mut is_new = false;
                let at = table.column(&entry.canonical, hint, &mut is_new);
                hint = at + 1;
                let Some(column) = table.columns.get_mut(at) else { continue };
                if is_new {
                    found(&column.canonical);
                    table.memory_bytes += COLUMN_BYTES + column.canonical.len() as u64;
                }
                let before = column.bytes();
                column.extend(entry);
                table.memory_bytes += column.bytes().saturating_sub(before) as u64;
                table.longest = table.longest.max(column.len() as u64);
                table.points += entry.times.len() as u64;
                if !entry.times.is_empty() {
                    table.last_with_points = table.last_with_points.max(lsn);
                }
            }
        }
        if is_newest {
            self.closed = bounds.are_reached_by(table);
        }
    }

    /// The place of the table that takes in a record, which is made if there is none. Tables stand in order of LSN.
    fn place(&mut self, lsn: Lsn) -> usize {
        let newest = self.list.len().wrapping_sub(1);
        match self.list.back() {
            Some(table) if !self.closed && table.last.next() == Some(lsn) => newest,
            Some(table) if table.last >= lsn => {
                // A record before the newest: one that is read again, or fills a gap.
                let before = |table: &Table| table.last.next() == Some(lsn);
                self.list.iter().position(before).filter(|at| *at != newest).unwrap_or_else(|| {
                    let at = self.list.partition_point(|table| table.first < lsn);
                    self.list.insert(at, Table::new(lsn));
                    at
                })
            }
            _ => {
                self.list.push_back(Table::new(lsn));
                self.closed = false;
                newest.wrapping_add(1)
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Table> {
        self.list.iter()
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn points(&self) -> u64 {
        self.list.iter().map(|table| table.points).sum()
    }

    /// The oldest table, if it is full.
    pub fn full(&self) -> Option<&Table> {
        self.list.front().filter(|_| self.list.len() > 1 || self.closed)
    }

    /// The oldest table.
    pub fn oldest(&self) -> Option<&Table> {
        self.list.front()
    }

    /// Forgets the tables of which all records with points, from the first to the last, are sealed. One that holds others too stays
    /// whole: what is in a segment as well is counted once by every answer (invariant 8).
    pub fn forget(&mut self, is_sealed: impl Fn(Lsn, Lsn) -> bool) {
        let newest = self.list.len();
        self.list.retain(|table| !is_sealed(table.first, table.last_with_points));
        if self.list.len() < newest && self.list.is_empty() {
            self.closed = false;
        }
    }
}
