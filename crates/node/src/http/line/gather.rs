//! The record under way: lines' points as they come, put in order by series when it is full. A line's points stand in one
//! record: a line is stored whole or not at all. Lines of known keys in a plain form are read here at once; all others come as the
//! grammar read them. It knows no sites and no sockets, and it outlives a request, so that what it knows of names does.

use tidelog_record::{
    BATCH_BYTES_MAX, BatchError, BodyHead, BodyWriter, Column, DECIMAL_LIMIT, Value, Values, decimal_value,
};

use super::known::{Key, Known, Slot};
use super::parse::{FieldValue, Line, LineFault, unescaped_text};
use super::quick::{self, Plain};

/// Most that one line's points may take in a record, in bytes.
pub(crate) const LINE_BYTES_MAX: usize = 256 * 1024;

/// A record that has reached this size is closed: one more line still fits.
const RECORD_BYTES_WANTED: usize = BATCH_BYTES_MAX - LINE_BYTES_MAX - RECORD_EXTRA_BYTES;

/// What a record takes beside its series: kind, clock, origin and counts.
const RECORD_EXTRA_BYTES: usize = 64;

/// Most that a series takes beside its canonical form: an entry's head and lengths.
const SERIES_EXTRA_BYTES: usize = 21;

/// Most that a point takes beside a text: ten bytes of time, ten of value or length, one of kind.
const POINT_BYTES_MAX: usize = 21;

/// A line's place in the record.
#[derive(Clone, Copy, Debug)]
struct Row {
    time: i64,
    /// The key's next row, in the order they came.
    next: u32,
    cells: u32,
    cells_end: u32,
}

const NO_ROW: u32 = u32::MAX;

/// A point's value and the slot of its field.
#[derive(Clone, Copy, Debug)]
struct Cell {
    value: CellValue,
    slot: u32,
}

#[derive(Clone, Copy, Debug)]
enum CellValue {
    Decimal {
        scaled: i64,
        digits: u8,
    },
    F64(f64),
    I64(i64),
    Bool(bool),
    /// Where the text stands.
    Text(u32),
}

/// A record that is full.
#[derive(Debug)]
pub(crate) struct Full {
    pub body: Vec<u8>,
    /// What the names of its series take when each is written out.
    pub name_bytes: usize,
}

/// The record under way, and what is known of names.
#[derive(Debug)]
pub(crate) struct Gather {
    known: Known,
    /// Counts records, so that what keys and slots say of an earlier one is told from what they say of this.
    record: u64,
    /// Keys with rows in it, in the order they came.
    keys: Vec<u32>,
    rows: Vec<Row>,
    cells: Vec<Cell>,
    texts: Vec<String>,
    /// What the record takes, at most.
    bytes: usize,
    name_bytes: usize,
    series: usize,
    /// What the names of known series may take in memory, in bytes, before they are forgotten together.
    known_bytes_max: usize,
    scratch: Scratch,
}

/// Columns under way while a record is written.
#[derive(Debug, Default)]
struct Scratch {
    times: Vec<i64>,
    scaled: Vec<i64>,
    values: Values,
    column: Vec<CellValue>,
    by_slot: Vec<(u32, i64, CellValue)>,
}

fn number(index: usize) -> u32 {
    // A record holds far fewer rows, cells and texts.
    u32::try_from(index).unwrap_or(NO_ROW)
}

fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl Gather {
    /// Knows nothing yet, and never names that take more than about `known_bytes_max` and those of one record.
    pub fn new(known_bytes_max: usize) -> Self {
        Self {
            known: Known::default(),
            record: 1,
            keys: Vec::new(),
            rows: Vec::new(),
            cells: Vec::new(),
            texts: Vec::new(),
            bytes: 0,
            name_bytes: 0,
            series: 0,
            known_bytes_max,
            scratch: Scratch::default(),
        }
    }

    /// Forgets a record under way, but not what is known of names.
    pub fn begin(&mut self) {
        self.record += 1;
        self.keys.clear();
        self.rows.clear();
        self.cells.clear();
        self.texts.clear();
        (self.bytes, self.name_bytes, self.series) = (0, 0, 0);
        if self.known.bytes() > self.known_bytes_max {
            self.known.forget();
        }
    }

    /// Whether the record should be closed before another line comes.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.bytes >= RECORD_BYTES_WANTED || self.known.bytes() > self.known_bytes_max
    }

    /// Takes the line in that `rest` begins with, if it is of a known key and in a plain form; `when` says what its timestamp means. Gives
    /// what stands behind it, and how many points it had.
    #[inline]
    pub fn add_plain<'b>(
        &mut self,
        rest: &'b [u8],
        when: impl FnOnce(Option<i64>) -> Option<i64>,
    ) -> Option<(&'b [u8], usize)> {
        let (number_of_key, rest) = self.known.begins(rest)?;
        let first = self.cells.len();
        let taken = self.plain_fields(number_of_key, rest).and_then(|(behind, bytes)| {
            let (stated, behind) = match behind {
                [b' ', time @ ..] => {
                    let (time, behind) = quick::timestamp(time)?;
                    (Some(time), behind)
                }
                behind => (None, behind),
            };
            Some((quick::end(behind)?, bytes, when(stated)?))
        });
        let Some((behind, bytes, time)) = taken else {
            self.cells.truncate(first);
            return None;
        };
        self.bytes += bytes;
        self.put_row(number_of_key, time, first);
        Some((behind, self.cells.len() - first))
    }

    /// Takes fields; gives what is behind them, and what they take in a record at most.
    #[inline]
    fn plain_fields<'b>(&mut self, key: u32, mut rest: &'b [u8]) -> Option<(&'b [u8], usize)> {
        let key = self.known.key(key)?;
        let (mut slot, mut bytes, mut most) = (0, 0, 0);
        loop {
            let (found, value) = self.known.field(key, slot, rest)?;
            let (plain, behind) = quick::value(value)?;
            let value = match plain {
                Plain::Decimal { scaled, digits } => CellValue::Decimal { scaled, digits },
                Plain::I64(number) => CellValue::I64(number),
            };
            self.cells.push(Cell { value, slot: number(found) });
            bytes += POINT_BYTES_MAX;
            most += key.slots.get(found)?.bytes_max;
            slot = found + 1;
            match behind {
                [b',', more @ ..] => rest = more,
                // What is too long is refused where a refusal can be told.
                behind => return (most <= LINE_BYTES_MAX).then_some((behind, bytes)),
            }
        }
    }

    /// Takes a line's points in, all or none.
    pub fn add(&mut self, line: &Line<'_>, timestamp: i64) -> Result<(), LineFault> {
        let most = line.fields.iter().map(|(field, value)| most_bytes(line.key, field, value)).sum();
        if most > LINE_BYTES_MAX {
            return Err(LineFault::TooLong { bytes: most, most: LINE_BYTES_MAX });
        }
        let (first, first_text) = (self.cells.len(), self.texts.len());
        match self.cells_of(line) {
            Ok((key, bytes)) => {
                self.bytes += bytes;
                self.put_row(key, timestamp, first);
                Ok(())
            }
            Err(fault) => {
                self.cells.truncate(first);
                self.texts.truncate(first_text);
                Err(fault)
            }
        }
    }

    fn cells_of(&mut self, line: &Line<'_>) -> Result<(u32, usize), LineFault> {
        let key = self.known.number_of_key(line.key)?;
        let (mut expected, mut bytes) = (0, 0);
        for (field, value) in &line.fields {
            let slot = self.known.slot_of_field(key, expected, field)?;
            expected = slot + 1;
            bytes += POINT_BYTES_MAX;
            let value = match value {
                FieldValue::F64(value) => CellValue::F64(*value),
                FieldValue::I64(value) => CellValue::I64(*value),
                FieldValue::Bool(value) => CellValue::Bool(*value),
                FieldValue::Text(raw) => {
                    let text = unescaped_text(raw)?.into_owned();
                    bytes += text.len();
                    self.texts.push(text);
                    CellValue::Text(number(self.texts.len() - 1))
                }
            };
            self.cells.push(Cell { value, slot: number(slot) });
        }
        Ok((key, bytes))
    }

    /// Puts the cells from `first` on into the record as a row of `key`.
    #[inline]
    fn put_row(&mut self, number_of_key: u32, time: i64, first: usize) {
        let row = number(self.rows.len());
        let cells = self.cells.get(first..).unwrap_or_default();
        self.known.comes(number_of_key);
        let Some(key) = self.known.key_mut(number_of_key) else { return };
        let in_order = cells.iter().enumerate().all(|(at, cell)| at == index(cell.slot));
        let mut name_bytes = 0;
        for cell in cells {
            if let Some(slot) = key.slots.get_mut(index(cell.slot))
                && slot.record != self.record
            {
                slot.record = self.record;
                name_bytes += slot.canonical.len();
                self.bytes += slot.canonical.len() + SERIES_EXTRA_BYTES;
                self.series += 1;
            }
        }
        self.name_bytes += name_bytes;
        if key.open.record == self.record {
            key.open.alike &= in_order && index(key.open.slots) == cells.len();
            if let Some(last) = self.rows.get_mut(index(key.open.last)) {
                last.next = row;
            }
        } else {
            self.keys.push(number_of_key);
            key.open.record = self.record;
            key.open.first = row;
            key.open.alike = in_order;
            key.open.slots = number(cells.len());
        }
        key.open.last = row;
        self.rows.push(Row { time, next: NO_ROW, cells: number(first), cells_end: number(self.cells.len()) });
    }

    /// Writes the record, if there is anything in it, and begins the next one.
    pub fn close(&mut self, authored_ms: i64) -> Result<Option<Full>, BatchError> {
        if self.rows.is_empty() {
            self.begin();
            return Ok(None);
        }
        let head = BodyHead { authored_ms, ..BodyHead::default() };
        let mut writer =
            BodyWriter::with_capacity(head, self.series, self.cells.len() * 2 + self.name_bytes / 4);
        let mut scratch = std::mem::take(&mut self.scratch);
        for key in &self.keys {
            if let Some(key) = self.known.key(*key) {
                if key.open.alike {
                    self.write_alike(key, &mut scratch, &mut writer)?;
                } else {
                    self.write_by_slot(key, &mut scratch, &mut writer)?;
                }
            }
        }
        self.scratch = scratch;
        let full = Full { body: writer.finish()?, name_bytes: self.name_bytes };
        self.begin();
        Ok(Some(full))
    }

    fn rows_of(&self, key: &Key) -> impl Iterator<Item = &Row> {
        let first = self.rows.get(index(key.open.first));
        std::iter::successors(first, |row| self.rows.get(index(row.next)))
    }

    /// The rows of a key that all have the same slots in order: column by column.
    fn write_alike(
        &self,
        key: &Key,
        scratch: &mut Scratch,
        writer: &mut BodyWriter,
    ) -> Result<(), BatchError> {
        scratch.times.clear();
        scratch.times.extend(self.rows_of(key).map(|row| row.time));
        let slots = key.slots.iter().take(index(key.open.slots));
        for (at, slot) in slots.enumerate() {
            scratch.column.clear();
            let cells = self.rows_of(key).filter_map(|row| self.cells.get(index(row.cells) + at));
            scratch.column.extend(cells.map(|cell| cell.value));
            self.write_column(slot, scratch, writer)?;
        }
        Ok(())
    }

    /// The rows of a key in any other case: points in order of slot, and of their coming.
    fn write_by_slot(
        &self,
        key: &Key,
        scratch: &mut Scratch,
        writer: &mut BodyWriter,
    ) -> Result<(), BatchError> {
        let mut points = std::mem::take(&mut scratch.by_slot);
        points.clear();
        for row in self.rows_of(key) {
            let cells = self.cells.get(index(row.cells)..index(row.cells_end)).unwrap_or_default();
            points.extend(cells.iter().map(|cell| (cell.slot, row.time, cell.value)));
        }
        points.sort_by_key(|(slot, _, _)| *slot);
        for of_slot in points.chunk_by(|(a, _, _), (b, _, _)| a == b) {
            let slot = of_slot.first().and_then(|(slot, _, _)| key.slots.get(index(*slot)));
            scratch.times.clear();
            scratch.times.extend(of_slot.iter().map(|(_, time, _)| *time));
            scratch.column.clear();
            scratch.column.extend(of_slot.iter().map(|(_, _, value)| *value));
            self.write_column(slot.ok_or(BatchError::Malformed)?, scratch, writer)?;
        }
        scratch.by_slot = points;
        Ok(())
    }

    fn write_column(
        &self,
        slot: &Slot,
        scratch: &mut Scratch,
        writer: &mut BodyWriter,
    ) -> Result<(), BatchError> {
        let Scratch { times, scaled, values, column, .. } = scratch;
        let column = if let Some(digits) = decimals(column, scaled) {
            Column::Decimal { digits, scaled }
        } else if integers(column, scaled) {
            Column::I64(scaled)
        } else {
            values.clear();
            column.iter().for_each(|value| values.push(self.value(*value)));
            Column::from(&*values)
        };
        writer.entry(self.known.text(slot.canonical), times, column)
    }

    fn value(&self, value: CellValue) -> Value {
        match value {
            CellValue::Decimal { scaled, digits } => Value::F64(decimal_value(scaled, digits)),
            CellValue::F64(value) => Value::F64(value),
            CellValue::I64(value) => Value::I64(value),
            CellValue::Bool(value) => Value::Bool(value),
            CellValue::Text(at) => Value::Text(self.texts.get(index(at)).cloned().unwrap_or_default()),
        }
    }
}

/// A column of decimals with the digits in common that they are written with; `None` when something else stands in it, or
/// they have none in common.
fn decimals(column: &[CellValue], out: &mut Vec<i64>) -> Option<u8> {
    let mut common = None;
    let mut one_length = true;
    out.clear();
    for value in column {
        let CellValue::Decimal { scaled, digits } = *value else { return None };
        let most = *common.get_or_insert(digits);
        one_length &= digits == most;
        common = Some(most.max(digits));
        out.push(scaled);
    }
    let common = common?;
    if !one_length {
        for (number, value) in out.iter_mut().zip(column) {
            let CellValue::Decimal { digits, .. } = *value else { return None };
            let factor = 10_i64.checked_pow(u32::from(common - digits))?;
            *number = number.checked_mul(factor).filter(|number| number.abs() < DECIMAL_LIMIT)?;
        }
    }
    Some(common)
}

fn integers(column: &[CellValue], out: &mut Vec<i64>) -> bool {
    out.clear();
    for value in column {
        let CellValue::I64(number) = *value else { return false };
        out.push(number);
    }
    true
}

/// What a field's point and series take in a record at most, before anything is known of them.
fn most_bytes(key: &[u8], field: &[u8], value: &FieldValue<'_>) -> usize {
    let text = if let FieldValue::Text(raw) = value { raw.len() } else { 0 };
    point_bytes_max(key.len(), field.len()) + text
}

/// What a point and its series take in a record at most, without a text.
pub(super) fn point_bytes_max(key: usize, field: usize) -> usize {
    // A tag has at least four bytes in the key (`,a=b`), and its two lengths take six: three times is more than enough.
    3 * key + field + 16 + SERIES_EXTRA_BYTES + POINT_BYTES_MAX
}

#[cfg(test)]
#[path = "gather/tests.rs"]
mod tests;
