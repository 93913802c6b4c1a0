//! Sequences that many sections share, each kept once in a segment: the times of a device's samples are the same for all its
//! metrics, and so is the order in which late ones arrived. Regular times take no numbers at all.
//!
//! A sequence is found again by a hash of its content, so equal ones are one wherever they come from.

use std::collections::HashMap;
use std::io;

use super::blocks::{BlockWriter, Kind, first_16};
use super::bytes::{Cut, Malformed, put_i64, put_len, put_u64};
use super::ints::{Kinship, PAGE_VALUES_MAX, put_ints, take_ints};
use super::stream::{ChunkWriter, Place};

/// Sequences in a page of their table.
pub(super) const TABLE_PAGE_SEQUENCES: u32 = 512;

/// What a sequence is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Form {
    /// Times with one step between all.
    #[default]
    Regular,
    /// Times with their steps in units.
    Times,
    /// An order of arrival: what came late, and how late.
    Late,
    /// An order of arrival: each place's arrival.
    Order,
}

const FORMS: [Form; 4] = [Form::Regular, Form::Times, Form::Late, Form::Order];

/// A sequence without its numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sequence {
    pub form: Form,
    /// Entries, repeats included.
    pub count: u32,
    /// Different times among them.
    pub distinct: u32,
    /// First and last time.
    pub first: i64,
    pub last: i64,
    /// Between two times, if regular; else what the numbers count in.
    pub step: i64,
    /// Numbers that it has in its stream, and where.
    pub numbers: u32,
    pub place: Place,
}

/// Greatest unit of a power of a thousand, up to a second, that divides.
fn unit(mut divides: impl FnMut(i64) -> bool) -> i64 {
    [1_000_000_000, 1_000_000, 1_000].into_iter().find(|unit| divides(*unit)).unwrap_or(1)
}

/// Gathers sequences, and writes those that are new.
pub(super) struct SequenceWriter {
    known: HashMap<[u8; 16], u32>,
    pending: Vec<(Sequence, i64)>,
    began: [Place; 2],
    times: ChunkWriter,
    orders: ChunkWriter,
    count: u32,
    numbers: Vec<i64>,
    bytes: Vec<u8>,
}

impl SequenceWriter {
    pub fn new() -> Self {
        Self {
            known: HashMap::new(),
            pending: Vec::new(),
            began: [Place::default(); 2],
            times: ChunkWriter::new(Kind::Times, Kinship::Steps),
            orders: ChunkWriter::new(Kind::Orders, Kinship::Rounds),
            count: 0,
            numbers: Vec::new(),
            bytes: Vec::new(),
        }
    }

    /// The number of the sequence of these ascending times.
    pub fn times(&mut self, out: &mut BlockWriter<'_>, times: &[i64]) -> io::Result<u32> {
        let (first, last) = match (times.first(), times.last()) {
            (Some(first), Some(last)) => (*first, *last),
            _ => (0, 0),
        };
        self.numbers.clear();
        self.numbers.extend(times.iter().skip(1).zip(times).map(|(b, a)| b.wrapping_sub(*a)));
        let step = self.numbers.first().copied().unwrap_or(0);
        let count = u32::try_from(times.len()).unwrap_or(u32::MAX);
        let repeats = self.numbers.iter().filter(|step| **step == 0).count();
        let distinct = count - u32::try_from(repeats).unwrap_or(count);
        let mut sequence = Sequence { count, distinct, first, last, step, ..Sequence::default() };
        if repeats > 0 || self.numbers.iter().any(|number| *number != step) {
            sequence.form = Form::Times;
            sequence.step = unit(|unit| self.numbers.iter().all(|number| number % unit == 0));
            self.numbers.iter_mut().for_each(|number| *number /= sequence.step);
        } else {
            self.numbers.clear();
        }
        self.add(out, sequence)
    }

    /// The number of the order in which a series' points arrived: `order` has each point's arrival, in order of time.
    pub fn order(&mut self, out: &mut BlockWriter<'_>, order: &[u32]) -> io::Result<u32> {
        let count = u32::try_from(order.len()).unwrap_or(u32::MAX);
        self.numbers.clear();
        let form = if lateness(order, &mut self.numbers) {
            Form::Late
        } else {
            self.numbers.clear();
            let mut before = -1;
            self.numbers.extend(order.iter().map(|arrival| {
                let arrival = i64::from(*arrival);
                arrival - std::mem::replace(&mut before, arrival) - 1
            }));
            Form::Order
        };
        self.add(out, Sequence { form, count, ..Sequence::default() })
    }

    fn add(&mut self, out: &mut BlockWriter<'_>, mut sequence: Sequence) -> io::Result<u32> {
        self.bytes.clear();
        let head = [i64::from(sequence.count), sequence.first, sequence.step];
        self.bytes.push(sequence.form as u8);
        // As varints, because there is less to hash than in words.
        head.iter().chain(&self.numbers).for_each(|number| put_i64(&mut self.bytes, *number));
        let hash = first_16(&blake3::hash(&self.bytes));
        if let Some(number) = self.known.get(&hash) {
            return Ok(*number);
        }
        if self.pending.is_empty() {
            self.began = [self.times.end(), self.orders.end()];
        }
        sequence.numbers = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
        let stream = match sequence.form {
            Form::Regular | Form::Times => &mut self.times,
            Form::Late | Form::Order => &mut self.orders,
        };
        let step = stream.run(out, &self.numbers)?;
        self.pending.push((sequence, step));
        let number = self.count;
        self.count = self.count.checked_add(1).ok_or_else(|| io::Error::other("too many sequences"))?;
        self.known.insert(hash, number);
        if self.count.is_multiple_of(TABLE_PAGE_SEQUENCES) {
            self.flush(out)?;
        }
        Ok(number)
    }

    fn flush(&mut self, out: &mut BlockWriter<'_>) -> io::Result<()> {
        out.put(Kind::Sequences, &table_page(&self.pending, self.began))?;
        self.pending.clear();
        Ok(())
    }

    pub fn finish(&mut self, out: &mut BlockWriter<'_>) -> io::Result<u32> {
        self.times.finish(out)?;
        self.orders.finish(out)?;
        if !self.pending.is_empty() {
            self.flush(out)?;
        }
        Ok(self.count)
    }
}

fn table_page(pending: &[(Sequence, i64)], began: [Place; 2]) -> Vec<u8> {
    let unit = unit(|unit| {
        let fits = |s: &Sequence| {
            let step = if s.form == Form::Regular { s.step } else { 0 };
            s.first % unit == 0 && s.last % unit == 0 && step % unit == 0
        };
        pending.iter().all(|(sequence, _)| fits(sequence))
    });
    let mut out = Vec::new();
    put_len(&mut out, pending.len());
    put_u64(&mut out, unit.cast_unsigned());
    began.iter().for_each(|place| place.put(&mut out));
    let mut column = |of: &mut dyn FnMut(&Sequence, i64) -> i64| {
        let values: Vec<i64> = pending.iter().map(|(sequence, step)| of(sequence, *step)).collect();
        put_ints(&mut out, &values);
    };
    column(&mut |s, _| s.form as i64);
    column(&mut |s, _| i64::from(s.count));
    column(&mut |s, _| i64::from(s.count - s.distinct.min(s.count)));
    column(&mut |s, _| i64::from(s.numbers));
    column(&mut |_, place_step| place_step);
    column(&mut |s, _| if s.form == Form::Regular { s.step / unit } else { s.step });
    let mut before = 0i64;
    column(&mut |s, _| {
        let first = s.first / unit;
        first.wrapping_sub(std::mem::replace(&mut before, s.last / unit))
    });
    // The last of regular times follows.
    column(&mut |s, _| {
        if s.form == Form::Regular { 0 } else { (s.last / unit).wrapping_sub(s.first / unit) }
    });
    out
}

/// Reads a page of the table.
pub(super) fn read_table_page(bytes: &[u8]) -> Result<Vec<Sequence>, Malformed> {
    let mut cut = Cut(bytes);
    let count = cut.count(TABLE_PAGE_SEQUENCES as usize)?;
    let unit = i64::try_from(cut.u64()?).ok().filter(|unit| *unit > 0).ok_or(Malformed)?;
    let mut ends = [Place::take(&mut cut)?, Place::take(&mut cut)?];
    let mut columns = Vec::with_capacity(8);
    for _ in 0..8 {
        columns.push(take_ints(&mut cut, count)?.into_iter());
    }
    cut.end()?;
    let mut next = |column: usize| columns.get_mut(column).and_then(Iterator::next).ok_or(Malformed);
    let length = |number: i64| {
        u32::try_from(number).ok().filter(|length| *length as usize <= PAGE_VALUES_MAX).ok_or(Malformed)
    };
    let mut before = 0i64;
    let mut sequences = Vec::with_capacity(count);
    for _ in 0..count {
        let form =
            usize::try_from(next(0)?).ok().and_then(|form| FORMS.get(form).copied()).ok_or(Malformed)?;
        let count = length(next(1)?)?;
        let distinct = count.checked_sub(length(next(2)?)?).ok_or(Malformed)?;
        let numbers = length(next(3)?)?;
        let [times, orders] = &mut ends;
        let stream = if matches!(form, Form::Regular | Form::Times) { times } else { orders };
        let place = stream.advance(next(4)?, numbers)?;
        let step = next(5)?;
        let first = before.wrapping_add(next(6)?);
        let past = next(7)?;
        let mut last = first.wrapping_add(past);
        if form == Form::Regular {
            last = first.wrapping_add(step.wrapping_mul(i64::from(count.saturating_sub(1))));
        }
        before = last;
        let step = if form == Form::Regular { step.wrapping_mul(unit) } else { step };
        let good = match form {
            Form::Regular => numbers == 0 && distinct == count,
            Form::Times => numbers == count.saturating_sub(1),
            Form::Late => numbers % 2 == 0,
            Form::Order => numbers == count,
        };
        if !good {
            return Err(Malformed);
        }
        let (first, last) = (first.wrapping_mul(unit), last.wrapping_mul(unit));
        sequences.push(Sequence { form, count, distinct, first, last, step, numbers, place });
    }
    Ok(sequences)
}

/// Displacements together, for each point of the series, past which lateness is not told: undoing it would take too long.
const DISPLACED_EACH_MAX: u64 = 64;

/// Tells an order by what came late: first how many arrivals in time lie before each late one, then behind how many points that had come
/// each late one belongs in front of. False when that is too much.
fn lateness(order: &[u32], out: &mut Vec<i64>) -> bool {
    let mut place_of = vec![0usize; order.len()];
    for (place, arrival) in order.iter().enumerate() {
        if let Some(slot) = place_of.get_mut(*arrival as usize) {
            *slot = place;
        }
    }
    // The places taken so far, ascending. A late one is put between; how far from the end that is on the whole is bounded.
    let mut taken: Vec<usize> = Vec::with_capacity(order.len());
    let (mut displaced, mut since) = (Vec::new(), 0i64);
    let mut left = DISPLACED_EACH_MAX * order.len() as u64;
    for place in place_of {
        if taken.last().is_none_or(|highest| place > *highest) {
            taken.push(place);
            since += 1;
            continue;
        }
        let at = taken.partition_point(|other| *other < place);
        let behind = taken.len() - at;
        let Some(rest) = left.checked_sub(behind as u64) else { return false };
        left = rest;
        taken.insert(at, place);
        out.push(std::mem::take(&mut since));
        displaced.push(i64::try_from(behind).unwrap_or(i64::MAX));
    }
    out.append(&mut displaced);
    true
}

/// Each point's arrival, in order of time.
pub(super) fn undo_order(sequence: &Sequence, numbers: &[i64]) -> Result<Vec<u32>, Malformed> {
    let count = sequence.count as usize;
    let mut order: Vec<u32> = Vec::with_capacity(count);
    if sequence.form == Form::Order {
        let mut before = -1i64;
        for number in numbers {
            before = before.wrapping_add(*number).wrapping_add(1);
            order.push(
                u32::try_from(before).ok().filter(|arrival| *arrival < sequence.count).ok_or(Malformed)?,
            );
        }
        return Ok(order);
    }
    let (since, displaced) = numbers.split_at(numbers.len() / 2);
    let mut arrived = 0u32;
    let mut left = DISPLACED_EACH_MAX * count as u64;
    for (since, behind) in since.iter().zip(displaced) {
        let until = u32::try_from(*since)
            .ok()
            .and_then(|since| arrived.checked_add(since))
            .filter(|until| *until < sequence.count)
            .ok_or(Malformed)?;
        order.extend(arrived..until);
        let behind = u64::try_from(*behind).map_err(|_| Malformed)?;
        left = left.checked_sub(behind).ok_or(Malformed)?;
        let at = usize::try_from(behind)
            .ok()
            .and_then(|behind| order.len().checked_sub(behind))
            .ok_or(Malformed)?;
        order.insert(at, until);
        arrived = until + 1;
    }
    order.extend(arrived..sequence.count);
    Ok(order)
}

/// Times of a sequence behind `out`; `numbers` are its steps.
pub(super) fn extend_times(sequence: &Sequence, numbers: &[i64], out: &mut Vec<i64>) {
    let mut time = sequence.first;
    match sequence.form {
        Form::Regular => out.extend((0..sequence.count).map(|_| {
            let now = time;
            time = time.wrapping_add(sequence.step);
            now
        })),
        _ if sequence.count == 0 => {}
        _ => {
            out.push(time);
            out.extend(numbers.iter().map(|step| {
                time = time.wrapping_add(step.wrapping_mul(sequence.step));
                time
            }));
        }
    }
}
