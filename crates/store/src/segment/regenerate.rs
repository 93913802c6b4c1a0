//! Writes the records of a segment again, byte for byte, and hashes them along the chain, which must meet each checkpoint and the end
//! (invariant 3). Between two checkpoints the checksums of the blocks vouch for a record, and that the segment was verified as a whole
//! when it was made or fetched.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidelog_record::{BodyWriter, ChainHash, Column, DeviceId, Lsn, Record, Relay, Values};

use crate::ranges::SeqRanges;
use crate::shared::locked;

use super::blocks::Kind;
use super::bytes::Malformed;
use super::column;
use super::errors::SegmentError;
use super::key;
use super::open::Segment;
use super::read::Reading;
use super::records::{Block, EntryWalk, Kept};

/// Bytes of bodies that are written again at once, where the caller does not say.
pub(super) const SLICE_BYTES: usize = 4 * 1024 * 1024;

/// What a record counts beside its body where bytes are read: so that short ones are not too many.
pub const READ_RECORD_COST_BYTES: usize = 16;

/// Where the last reader of records stopped; the next one mostly goes on there.
pub(super) struct Cursor {
    next: u64,
    chain: Option<ChainHash>,
    block_number: usize,
    block: Arc<Block>,
    row: usize,
    whole_at: usize,
    walk: EntryWalk,
}

/// A record that is to be written again.
struct Planned {
    lsn: u64,
    row: usize,
    entries: std::ops::Range<usize>,
    whole: std::ops::Range<usize>,
    block: Arc<Block>,
}

/// An entry: its series, how many of its points came before in the segment, how many it has.
type Planable = (u32, u32, u32);

/// One series' points by arrival, from one arrival on.
struct Arrivals {
    series: u32,
    canonical: Vec<u8>,
    from: u32,
    times: Vec<i64>,
    values: Values,
}

const INCOHERENT: SegmentError =
    SegmentError::Inconsistent("the records do not name the points that are there");

impl Cursor {
    fn start(segment: &Segment) -> Result<Self, SegmentError> {
        let block = Arc::new(segment.records_block(0)?);
        let mut walk = EntryWalk::new(segment.series_count());
        walk.begin(&block);
        let (next, chain) = (segment.span().first.0, block.chain);
        Ok(Self { next, chain, block_number: 0, block, row: 0, whole_at: 0, walk })
    }

    /// Makes the next record's block the current one.
    fn enter(&mut self, segment: &Segment) -> Result<(), SegmentError> {
        while self.row >= self.block.rows.len() {
            self.block_number += 1;
            self.block = Arc::new(segment.records_block(self.block_number)?);
            self.walk.begin(&self.block);
            (self.row, self.whole_at) = (0, 0);
            self.chain = self.chain.or(self.block.chain);
        }
        Ok(())
    }

    /// Length of the next record's body.
    fn next_bytes(&mut self, segment: &Segment) -> Result<usize, SegmentError> {
        self.enter(segment)?;
        Ok(self.block.rows.get(self.row).ok_or(Malformed)?.bytes as usize)
    }

    /// Plans the next record, and puts its entries behind `entries`.
    fn plan(&mut self, segment: &Segment, entries: &mut Vec<Planable>) -> Result<Planned, SegmentError> {
        self.enter(segment)?;
        let row = self.block.rows.get(self.row).ok_or(Malformed)?;
        let began = entries.len();
        for _ in 0..row.entries {
            entries.push(self.walk.next(&self.block)?);
        }
        let whole_bytes = if row.kept == Kept::AsPoints { 0 } else { row.bytes as usize };
        let whole = self.whole_at..self.whole_at + whole_bytes;
        if row.kept != Kept::AsPoints {
            entries.truncate(began);
        }
        let planned = Planned {
            lsn: self.next,
            row: self.row,
            entries: began..entries.len(),
            whole: whole.clone(),
            block: Arc::clone(&self.block),
        };
        self.whole_at = whole.end;
        self.row += 1;
        self.next += 1;
        Ok(planned)
    }

    /// Walks to the record `lsn` without writing any.
    fn skip_to(&mut self, segment: &Segment, lsn: u64) -> Result<(), SegmentError> {
        let mut entries = Vec::new();
        while self.next < lsn {
            entries.clear();
            self.plan(segment, &mut entries)?;
            self.chain = None;
        }
        self.enter(segment)
    }
}

impl Segment {
    pub(super) fn records_block(&self, number: usize) -> Result<Block, SegmentError> {
        let number32 = u32::try_from(number).map_err(|_| Malformed)?;
        let block = Block::read(&self.block_of(Kind::Records, number32)?)?;
        let first = *self.footer().records.get(number).ok_or(Malformed)?;
        let end = match self.footer().records.get(number + 1) {
            Some(next) => *next,
            None => self.span().last.0 + 1,
        };
        if end.checked_sub(first) == Some(block.rows.len() as u64) {
            Ok(block)
        } else {
            Err(Malformed.into())
        }
    }

    /// Records behind `after`, in order, with bodies of together `bytes_max` bytes at most, each counted with
    /// [`READ_RECORD_COST_BYTES`], or one if there is one. Each hashes to
    /// the chain. Going on where the last call ended is quick; elsewhere, up to a thousand records before are written too.
    ///
    /// # Errors
    /// [`SegmentError::NotHere`] for an LSN that is neither the one before the segment nor in it; others when it cannot be read.
    pub fn records(&self, after: Lsn, bytes_max: usize) -> Result<Vec<Record>, SegmentError> {
        let span = self.span();
        let wanted = after.0.checked_add(1).filter(|next| *next >= span.first.0 && after <= span.last);
        let wanted = wanted.ok_or(SegmentError::NotHere(after))?;
        if wanted > span.last.0 {
            return Ok(Vec::new());
        }
        let mut cursor = self.cursor_before(wanted)?;
        let mut records = Vec::new();
        while records.is_empty() {
            let budget = if cursor.next == wanted { bytes_max } else { SLICE_BYTES };
            let until = if cursor.next < wanted { wanted } else { span.last.0 + 1 };
            let slice = self.slice(&mut cursor, until, budget)?;
            records.extend(slice.into_iter().filter(|record| record.lsn > after));
        }
        *locked(&self.cursor) = Some(cursor);
        Ok(records)
    }

    /// The chain hash after a record of the segment, or before its first.
    ///
    /// # Errors
    /// As [`Segment::records`].
    pub fn chain_at(&self, lsn: Lsn) -> Result<ChainHash, SegmentError> {
        let span = self.span();
        if lsn == span.last {
            return Ok(span.after);
        }
        if lsn.0 + 1 == span.first.0 {
            return Ok(span.before);
        }
        let before = lsn.0.checked_sub(1).map(Lsn).ok_or(SegmentError::NotHere(lsn))?;
        if lsn < span.first || lsn > span.last {
            return Err(SegmentError::NotHere(lsn));
        }
        let records = self.records(before, 1)?;
        records.first().map(|record| record.chain).ok_or(SegmentError::NotHere(lsn))
    }

    /// A cursor at `wanted`, or before it with a known chain hash.
    fn cursor_before(&self, wanted: u64) -> Result<Cursor, SegmentError> {
        let held = locked(&self.cursor).take();
        // The last checkpoint at or before it.
        let block = self.footer().records.iter().rev().find(|first| {
            **first <= wanted
                && (**first == self.span().first.0
                    || first.is_multiple_of(super::records::CHECKPOINT_RECORDS))
        });
        let checkpoint = block.copied().ok_or(Malformed)?;
        let mut cursor = match held {
            Some(cursor) if cursor.next <= wanted && cursor.chain.is_some() && cursor.next >= checkpoint => {
                return Ok(cursor);
            }
            Some(cursor) if cursor.next <= checkpoint => cursor,
            _ => Cursor::start(self)?,
        };
        cursor.skip_to(self, checkpoint)?;
        if cursor.chain.is_none() {
            return Err(SegmentError::Inconsistent("a checkpoint is missing"));
        }
        Ok(cursor)
    }

    fn slice(&self, cursor: &mut Cursor, until: u64, bytes_max: usize) -> Result<Vec<Record>, SegmentError> {
        let mut chain = cursor.chain.ok_or(Malformed)?;
        let mut entries = Vec::new();
        let mut planned: Vec<Planned> = Vec::new();
        let mut bytes = 0usize;
        while cursor.next < until {
            bytes += cursor.next_bytes(self)? + READ_RECORD_COST_BYTES;
            if bytes > bytes_max && !planned.is_empty() {
                break;
            }
            planned.push(cursor.plan(self, &mut entries)?);
        }
        let named: u64 = entries.iter().map(|(_, _, count)| u64::from(*count)).sum();
        if named > self.points() {
            return Err(INCOHERENT);
        }
        let arrivals = self.reading(|reading| self.arrivals(reading, &entries))?;
        let stream = self.span().stream.clone();
        let key = stream.key();
        let mut records = Vec::with_capacity(planned.len());
        for plan in planned {
            if plan.row == 0 && plan.block.chain.is_some_and(|checkpoint| checkpoint != chain) {
                return Err(SegmentError::Inconsistent("the records do not hash to a checkpoint"));
            }
            let body = write_again(&plan, &entries, &arrivals)?;
            let lsn = Lsn(plan.lsn);
            chain = chain.after(&key, lsn, &body);
            records.push(Record { stream: stream.clone(), lsn, chain, body });
        }
        cursor.chain = Some(chain);
        self.prove(cursor, chain)?;
        Ok(records)
    }

    /// Whether the chain that was reached is that of the segment; known at its end.
    fn prove(&self, cursor: &Cursor, chain: ChainHash) -> Result<(), SegmentError> {
        if cursor.next > self.span().last.0 && chain != self.span().after {
            return Err(SegmentError::Inconsistent("the records do not hash to the chain"));
        }
        Ok(())
    }

    /// The points that entries name, by series.
    fn arrivals(&self, reading: &mut Reading, entries: &[Planable]) -> Result<Vec<Arrivals>, SegmentError> {
        let mut ranges: BTreeMap<u32, (u32, u32)> = BTreeMap::new();
        for (series, before, count) in entries {
            let range = ranges.entry(*series).or_insert((*before, *before));
            range.1 = before.checked_add(*count).ok_or(INCOHERENT)?;
        }
        let mut all = Vec::with_capacity(ranges.len());
        for (series, (from, until)) in ranges {
            all.push(self.arrivals_of(reading, series, from, until)?);
        }
        Ok(all)
    }

    fn arrivals_of(
        &self,
        reading: &mut Reading,
        series: u32,
        from: u32,
        until: u32,
    ) -> Result<Arrivals, SegmentError> {
        let at = self.at_number(series)?;
        let slot = at.slot as usize;
        let page = self.page(at.page)?;
        let held = page.series.get(slot).ok_or(INCOHERENT)?;
        if u64::from(until) > held.count {
            return Err(INCOHERENT);
        }
        let mut canonical = Vec::new();
        key::put_canonical(&mut canonical, page.key(slot).ok_or(INCOHERENT)?)?;
        let sections = page.sections(slot).ok_or(INCOHERENT)?;
        // The places of the arrivals: from..until, unless some came late.
        let places: Option<Vec<u32>> = match held.order {
            None => None,
            Some(order) => {
                let order = reading.order(self, order)?;
                let mut places = vec![0u32; (until - from) as usize];
                for (place, arrival) in (0u32..).zip(&order) {
                    if let Some(slot) = arrival.checked_sub(from).and_then(|at| places.get_mut(at as usize)) {
                        *slot = place;
                    }
                }
                Some(places)
            }
        };
        let (low, high) = match &places {
            None => (from, until),
            Some(places) => {
                let low = places.iter().min().copied().unwrap_or(0);
                (low, places.iter().max().map_or(0, |most| most + 1))
            }
        };
        let (mut times, mut values) = (Vec::new(), Values::default());
        let (mut begin, mut read_from) = (0u32, None);
        for section in sections {
            let end = begin.checked_add(section.times.count).ok_or(INCOHERENT)?;
            if end > low && begin < high {
                read_from.get_or_insert(begin);
                reading.stored_times(self, &section.times, &mut times)?;
                reading.stored_values(self, section, &mut values)?;
            }
            begin = end;
        }
        let read_from = read_from.unwrap_or(low);
        match places {
            None => Ok(Arrivals { series, canonical, from: read_from, times, values }),
            Some(places) => {
                let kept: Vec<usize> = places
                    .iter()
                    .filter_map(|place| place.checked_sub(read_from))
                    .map(|at| at as usize)
                    .collect();
                let times: Vec<i64> = kept.iter().filter_map(|at| times.get(*at).copied()).collect();
                let mut arrived = Values::default();
                column::extend_kept(&mut arrived, &values, &kept);
                if times.len() != places.len() || arrived.len() != places.len() {
                    return Err(INCOHERENT);
                }
                Ok(Arrivals { series, canonical, from, times, values: arrived })
            }
        }
    }

    /// What devices sent, by device and life of its log: the sequence numbers that stand in the segment.
    ///
    /// # Errors
    /// [`SegmentError`] when the records cannot be read.
    pub fn origins(&self) -> Result<BTreeMap<(DeviceId, u32), SeqRanges>, SegmentError> {
        let mut all: BTreeMap<(DeviceId, u32), SeqRanges> = BTreeMap::new();
        for number in 0..self.footer().records.len() {
            for origin in self.records_block(number)?.rows.iter().filter_map(|row| row.head.origin) {
                if let Some(last) = u64::from(origin.count).checked_sub(1) {
                    let ranges = all.entry((origin.device, origin.epoch)).or_default();
                    ranges.insert(origin.first_seq, origin.first_seq.saturating_add(last));
                }
            }
        }
        Ok(all)
    }

    /// The records of others that records of the segment were copied from.
    ///
    /// # Errors
    /// [`SegmentError`] when the records cannot be read.
    pub fn relays(&self) -> Result<Vec<Relay>, SegmentError> {
        let mut all = Vec::new();
        for number in 0..self.footer().records.len() {
            all.extend(self.records_block(number)?.rows.iter().filter_map(|row| row.head.relay));
        }
        Ok(all)
    }
}

fn write_again(plan: &Planned, entries: &[Planable], arrivals: &[Arrivals]) -> Result<Vec<u8>, SegmentError> {
    let row = plan.block.rows.get(plan.row).ok_or(INCOHERENT)?;
    if row.kept != Kept::AsPoints {
        return Ok(plan.block.whole.get(plan.whole.clone()).ok_or(INCOHERENT)?.to_vec());
    }
    let entries = entries.get(plan.entries.clone()).ok_or(INCOHERENT)?;
    let mut writer = BodyWriter::with_capacity(row.head, entries.len(), row.bytes as usize);
    for (series, before, count) in entries {
        let at = arrivals.binary_search_by_key(series, |arrivals| arrivals.series).map_err(|_| INCOHERENT)?;
        let arrivals = arrivals.get(at).ok_or(INCOHERENT)?;
        let begin = before.checked_sub(arrivals.from).ok_or(INCOHERENT)? as usize;
        let range = begin..begin + *count as usize;
        let times = arrivals.times.get(range.clone()).ok_or(INCOHERENT)?;
        let values = part(&arrivals.values, range).ok_or(INCOHERENT)?;
        writer.entry(&arrivals.canonical, times, values).map_err(|_| INCOHERENT)?;
    }
    writer.finish().map_err(|_| INCOHERENT)
}

fn part(values: &Values, range: std::ops::Range<usize>) -> Option<Column<'_>> {
    if range.is_empty() {
        return Some(Column::F64(&[]));
    }
    Some(match values {
        Values::F64(all) => Column::F64(all.get(range)?),
        Values::I64(all) => Column::I64(all.get(range)?),
        Values::Bool(all) => Column::Bool(all.get(range)?),
        Values::Text(all) => Column::Text(all.get(range)?),
        Values::Mixed(all) => Column::Mixed(all.get(range)?),
    })
}
