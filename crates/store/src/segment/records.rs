//! Records without their points: what a body says beside them, and which series stand in it with how many points, in which order. With the
//! columns that is every byte of the body.
//!
//! The order of entries repeats: after a series comes the one that came after it before. So an entry that is as foretold costs nothing, and
//! the others say where they go; and a count is told when it changes. Bodies that cannot be written again from their content are
//! kept whole, packed.

use std::io;

use tidelog_record::{BATCH_BYTES_MAX, BodyHead, ChainHash, DeviceId, Lsn, NodeId, Origin, Relay, Run};

use super::blocks::{BlockWriter, Kind};
use super::bytes::{Cut, Malformed, put_i64, put_len, put_packed, put_u64, take_packed};
use super::ints::{put_ints, take_ints};

/// A block of records begins at each multiple of this LSN, with the chain hash before it.
pub(super) const CHECKPOINT_RECORDS: u64 = 1_024;
/// Bytes of whole bodies after which a block ends.
const BLOCK_WHOLE_BYTES: usize = 256 * 1024;
/// Entries that were not foretold after which a block ends.
const BLOCK_SURPRISES: usize = 64 * 1024;

/// How a record's body is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// Its points are in the columns, and writing them again gives the body.
    AsPoints,
    /// Its points are in the columns, and the body is whole beside them, because it was spelled otherwise.
    Both,
    /// It has no points that this version knows.
    Whole,
}

/// A record without its points.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub kept: Kept,
    pub head: BodyHead,
    /// Bytes of the body.
    pub bytes: u32,
    /// Entries of the body.
    pub entries: u32,
}

/// Foretells which series comes next: the one that did before, and after two surprises on end the other.
#[derive(Default)]
struct Successors {
    /// By series: the one behind it plus one, and whether it was right the last time it was asked.
    next: Vec<(u32, bool)>,
}

impl Successors {
    fn foretold(&self, series: u32) -> Option<u32> {
        self.next.get(series as usize).and_then(|(next, _)| next.checked_sub(1))
    }

    fn learn(&mut self, series: u32, next: u32) {
        let index = series as usize;
        if self.next.len() <= index {
            self.next.resize(index + 1, (0, false));
        }
        if let Some(slot) = self.next.get_mut(index) {
            match *slot {
                (held, _) if held == next + 1 => slot.1 = true,
                (_, true) => slot.1 = false,
                _ => *slot = (next + 1, false),
            }
        }
    }
}

/// Gathers records and writes full blocks.
pub(super) struct RecordWriter {
    next: u64,
    first: u64,
    chain: Option<ChainHash>,
    rows: Vec<Row>,
    whole: Vec<u8>,
    successors: Successors,
    before: u32,
    hits: i64,
    hit_runs: Vec<i64>,
    surprises: Vec<i64>,
    count_runs: Vec<i64>,
    counts: Vec<i64>,
    /// First LSN of each block.
    pub blocks: Vec<u64>,
}

impl RecordWriter {
    pub fn new(first: Lsn) -> Self {
        Self {
            next: first.0,
            first: first.0,
            chain: None,
            rows: Vec::new(),
            whole: Vec::new(),
            successors: Successors::default(),
            before: 0,
            hits: 0,
            hit_runs: Vec::new(),
            surprises: Vec::new(),
            count_runs: Vec::new(),
            counts: Vec::new(),
            blocks: Vec::new(),
        }
    }

    /// Whether the chain hash before the next record is to be given.
    pub fn at_checkpoint(&self) -> bool {
        self.next.is_multiple_of(CHECKPOINT_RECORDS) || self.blocks.is_empty() && self.rows.is_empty()
    }

    /// Adds a record; `chain` is the hash before it, given at checkpoints.
    pub fn add(
        &mut self,
        out: &mut BlockWriter<'_>,
        row: &Row,
        entries: &mut dyn Iterator<Item = (u32, u32)>,
        whole: &[u8],
        chain: Option<ChainHash>,
    ) -> io::Result<()> {
        let checkpoint = self.at_checkpoint();
        let full = self.whole.len() >= BLOCK_WHOLE_BYTES || self.surprises.len() >= BLOCK_SURPRISES;
        if checkpoint || full {
            self.finish(out)?;
            self.first = self.next;
            self.chain = chain.filter(|_| checkpoint);
        }
        for (series, count) in entries {
            if self.successors.foretold(self.before) == Some(series) {
                self.hits += 1;
            } else {
                self.hit_runs.push(std::mem::take(&mut self.hits));
                self.surprises.push(i64::from(series) - i64::from(self.before));
            }
            self.successors.learn(self.before, series);
            self.before = series;
            match self.count_runs.last_mut() {
                Some(run) if self.counts.last() == Some(&i64::from(count)) => *run += 1,
                _ => {
                    self.count_runs.push(1);
                    self.counts.push(i64::from(count));
                }
            }
        }
        self.rows.push(row.clone());
        self.whole.extend_from_slice(whole);
        self.next += 1;
        Ok(())
    }

    pub fn finish(&mut self, out: &mut BlockWriter<'_>) -> io::Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let payload = self.block();
        out.put(Kind::Records, &payload)?;
        self.blocks.push(self.first);
        self.rows.clear();
        self.whole.clear();
        self.hits = 0;
        [&mut self.hit_runs, &mut self.surprises, &mut self.count_runs, &mut self.counts]
            .into_iter()
            .for_each(Vec::clear);
        Ok(())
    }

    fn block(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_len(&mut out, self.rows.len());
        match &self.chain {
            None => out.push(0),
            Some(chain) => {
                out.push(1);
                out.extend_from_slice(&chain.0);
            }
        }
        let mut before = 0i64;
        let mut column = |of: &mut dyn FnMut(&Row) -> i64| {
            let values: Vec<i64> = self.rows.iter().map(of).collect();
            put_ints(&mut out, &values);
        };
        column(&mut |row| {
            row.kept as i64
                | i64::from(row.head.origin.is_some()) << 2
                | i64::from(row.head.relay.is_some()) << 3
        });
        column(&mut |row| {
            row.head.authored_ms.wrapping_sub(std::mem::replace(&mut before, row.head.authored_ms))
        });
        before = 0;
        column(&mut |row| {
            let bytes = i64::from(row.bytes);
            bytes - std::mem::replace(&mut before, bytes)
        });
        column(&mut |row| i64::from(row.entries));
        let origins: Vec<Origin> = self.rows.iter().filter_map(|row| row.head.origin).collect();
        let relays: Vec<Relay> = self.rows.iter().filter_map(|row| row.head.relay).collect();
        put_origins(&mut out, &origins);
        put_relays(&mut out, &relays);
        for (runs, values) in [(&self.hit_runs, &self.surprises), (&self.count_runs, &self.counts)] {
            put_len(&mut out, runs.len());
            put_ints(&mut out, runs);
            put_ints(&mut out, values);
        }
        put_packed(&mut out, &self.whole);
        out
    }
}

/// A column whose values are few and scattered.
fn put_scattered(out: &mut Vec<u8>, values: &[i64]) {
    let mut distinct = values.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    put_len(out, distinct.len());
    distinct.iter().for_each(|value| put_i64(out, *value));
    let places: Vec<i64> = values
        .iter()
        .map(|value| distinct.binary_search(value).map_or(0, |place| i64::try_from(place).unwrap_or(0)))
        .collect();
    put_ints(out, &places);
}

fn take_scattered(cut: &mut Cut<'_>, count: usize) -> Result<Vec<i64>, Malformed> {
    let length = cut.count(count)?;
    let mut distinct = Vec::with_capacity(length);
    for _ in 0..length {
        distinct.push(cut.i64()?);
    }
    take_ints(cut, count)?
        .into_iter()
        .map(|place| {
            usize::try_from(place).ok().and_then(|place| distinct.get(place).copied()).ok_or(Malformed)
        })
        .collect()
}

/// The next number of each device's batch is where its last one ended.
#[derive(Default)]
struct Expected(std::collections::BTreeMap<(DeviceId, u32), u64>);

impl Expected {
    fn of(&mut self, origin: &Origin) -> u64 {
        let next = origin.first_seq.wrapping_add(u64::from(origin.count));
        self.0.insert((origin.device, origin.epoch), next).unwrap_or(0)
    }

    fn peek(&self, device: DeviceId, epoch: u32) -> u64 {
        self.0.get(&(device, epoch)).copied().unwrap_or(0)
    }
}

fn put_origins(out: &mut Vec<u8>, origins: &[Origin]) {
    let mut expected = Expected::default();
    let column = |of: &mut dyn FnMut(&Origin) -> i64| origins.iter().map(of).collect::<Vec<i64>>();
    put_scattered(out, &column(&mut |origin| i64::from_le_bytes(origin.device.0)));
    put_scattered(out, &column(&mut |origin| i64::from(origin.epoch)));
    put_ints(out, &column(&mut |origin| origin.first_seq.wrapping_sub(expected.of(origin)).cast_signed()));
    put_ints(out, &column(&mut |origin| i64::from(origin.count)));
}

fn take_origins(cut: &mut Cut<'_>, count: usize) -> Result<Vec<Origin>, Malformed> {
    let devices = take_scattered(cut, count)?;
    let epochs = take_scattered(cut, count)?;
    let firsts = take_ints(cut, count)?;
    let counts = take_ints(cut, count)?;
    let mut expected = Expected::default();
    let u32_of = |number: i64| u32::try_from(number).map_err(|_| Malformed);
    devices
        .into_iter()
        .zip(epochs)
        .zip(firsts.into_iter().zip(counts))
        .map(|((device, epoch), (first, count))| {
            let (device, epoch) = (DeviceId(device.to_le_bytes()), u32_of(epoch)?);
            let first_seq = expected.peek(device, epoch).wrapping_add(first.cast_unsigned());
            let origin = Origin { device, epoch, first_seq, count: u32_of(count)? };
            expected.of(&origin);
            Ok(origin)
        })
        .collect()
}

fn halves(id: [u8; 16]) -> (i64, i64) {
    let (mut low, mut high) = ([0u8; 8], [0u8; 8]);
    low.iter_mut().chain(&mut high).zip(id).for_each(|(to, from)| *to = from);
    (i64::from_le_bytes(low), i64::from_le_bytes(high))
}

fn put_relays(out: &mut Vec<u8>, relays: &[Relay]) {
    let column = |of: &mut dyn FnMut(&Relay) -> i64| relays.iter().map(of).collect::<Vec<i64>>();
    let mut before = 0u64;
    put_scattered(out, &column(&mut |relay| halves(relay.node.0).0));
    put_scattered(out, &column(&mut |relay| halves(relay.node.0).1));
    put_scattered(out, &column(&mut |relay| relay.run.0.cast_signed()));
    put_ints(
        out,
        &column(&mut |relay| {
            relay.lsn.0.wrapping_sub(std::mem::replace(&mut before, relay.lsn.0)).cast_signed()
        }),
    );
    put_ints(out, &column(&mut |relay| i64::from(relay.first_point.is_some())));
    put_ints(out, &column(&mut |relay| relay.first_point.unwrap_or(0).cast_signed()));
}

fn take_relays(cut: &mut Cut<'_>, count: usize) -> Result<Vec<Relay>, Malformed> {
    let mut columns = [
        take_scattered(cut, count)?.into_iter(),
        take_scattered(cut, count)?.into_iter(),
        take_scattered(cut, count)?.into_iter(),
        take_ints(cut, count)?.into_iter(),
        take_ints(cut, count)?.into_iter(),
        take_ints(cut, count)?.into_iter(),
    ];
    let mut before = 0u64;
    let mut relays = Vec::with_capacity(count);
    for _ in 0..count {
        let mut row = [0u64; 6];
        for (cell, column) in row.iter_mut().zip(&mut columns) {
            *cell = column.next().ok_or(Malformed)?.cast_unsigned();
        }
        let [low, high, run, lsn, part, first_point] = row;
        before = before.wrapping_add(lsn);
        let node = NodeId((u128::from(low) | u128::from(high) << 64).to_le_bytes());
        let first_point = (part != 0).then_some(first_point);
        relays.push(Relay { node, run: Run(run), lsn: Lsn(before), first_point });
    }
    Ok(relays)
}

/// A decoded block of records.
pub(super) struct Block {
    pub rows: Vec<Row>,
    /// The chain hash before its first record, at checkpoints.
    pub chain: Option<ChainHash>,
    pub whole: Vec<u8>,
    hit_runs: Vec<i64>,
    surprises: Vec<i64>,
    count_runs: Vec<i64>,
    counts: Vec<i64>,
}

impl Block {
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        const RECORDS_MAX: usize = 1_024;
        let mut cut = Cut(bytes);
        let count = cut.count(RECORDS_MAX)?;
        let chain = match cut.u8()? {
            0 => None,
            1 => Some(ChainHash(cut.array()?)),
            _ => return Err(Malformed),
        };
        let flags = take_ints(&mut cut, count)?;
        let authored = take_ints(&mut cut, count)?;
        let lengths = take_ints(&mut cut, count)?;
        let entries = take_ints(&mut cut, count)?;
        let has = |bit: i64| flags.iter().filter(|flags| **flags & bit != 0).count();
        let mut origins = take_origins(&mut cut, has(4))?.into_iter();
        let mut relays = take_relays(&mut cut, has(8))?.into_iter();
        let mut runs = || -> Result<_, Malformed> {
            let count = cut.count(BLOCK_SURPRISES + 2 * BATCH_BYTES_MAX)?;
            Ok((take_ints(&mut cut, count)?, take_ints(&mut cut, count)?))
        };
        let (hit_runs, surprises) = runs()?;
        let (count_runs, counts) = runs()?;
        let whole = take_packed(&mut cut)?;
        cut.end()?;
        let (mut authored_ms, mut length) = (0i64, 0i64);
        let mut rows = Vec::with_capacity(count);
        for ((flags, authored), (step, entries)) in
            flags.iter().zip(authored).zip(lengths.into_iter().zip(entries))
        {
            authored_ms = authored_ms.wrapping_add(authored);
            length = length.wrapping_add(step);
            let kept = match flags & 3 {
                0 => Kept::AsPoints,
                1 => Kept::Both,
                2 => Kept::Whole,
                _ => return Err(Malformed),
            };
            let most = u32::try_from(BATCH_BYTES_MAX).unwrap_or(u32::MAX);
            let bounded =
                |number: i64| u32::try_from(number).ok().filter(|number| *number <= most).ok_or(Malformed);
            let head = BodyHead {
                authored_ms,
                origin: if flags & 4 == 0 { None } else { origins.next() },
                relay: if flags & 8 == 0 { None } else { relays.next() },
            };
            let bytes = if kept == Kept::Whole {
                u32::try_from(length).map_err(|_| Malformed)?
            } else {
                bounded(length)?
            };
            // An entry takes a byte or more of its body.
            let entries = u32::try_from(entries).ok().filter(|entries| *entries <= bytes).ok_or(Malformed)?;
            rows.push(Row { kept, head, bytes, entries });
        }
        let needed: u64 =
            rows.iter().filter(|row| row.kept != Kept::AsPoints).map(|row| u64::from(row.bytes)).sum();
        if needed != whole.len() as u64 {
            return Err(Malformed);
        }
        Ok(Self { rows, chain, whole, hit_runs, surprises, count_runs, counts })
    }
}

/// Walks the entries of records, block after block, from the segment's first on.
#[derive(Default)]
pub(super) struct EntryWalk {
    successors: Successors,
    before: u32,
    run: usize,
    hits_left: i64,
    count_run: usize,
    counts_left: i64,
    /// Points of each series in the entries walked so far.
    pub arrived: Vec<u32>,
}

impl EntryWalk {
    /// A walk over a segment of so many series.
    pub fn new(series: u32) -> Self {
        Self { arrived: vec![0; series as usize], ..Self::default() }
    }

    /// To be called before the first record of each block.
    pub fn begin(&mut self, block: &Block) {
        (self.run, self.count_run, self.counts_left) = (0, 0, 0);
        self.hits_left = block.hit_runs.first().copied().unwrap_or(i64::MAX);
    }

    /// The next entry: its series, how many points of it came before, and how many it has.
    pub fn next(&mut self, block: &Block) -> Result<(u32, u32, u32), Malformed> {
        let series = if self.hits_left > 0 {
            self.hits_left -= 1;
            self.successors.foretold(self.before).ok_or(Malformed)?
        } else {
            let step = block.surprises.get(self.run).ok_or(Malformed)?;
            self.run += 1;
            self.hits_left = block.hit_runs.get(self.run).copied().unwrap_or(i64::MAX);
            i64::from(self.before)
                .checked_add(*step)
                .and_then(|next| u32::try_from(next).ok())
                .ok_or(Malformed)?
        };
        if self.counts_left == 0 {
            self.counts_left =
                *block.count_runs.get(self.count_run).filter(|run| **run > 0).ok_or(Malformed)?;
            self.count_run += 1;
        }
        self.counts_left -= 1;
        let count = self.count_run.checked_sub(1).and_then(|run| block.counts.get(run)).ok_or(Malformed)?;
        let count = u32::try_from(*count).map_err(|_| Malformed)?;
        let arrived = self.arrived.get_mut(series as usize).ok_or(Malformed)?;
        let before = *arrived;
        *arrived = before.checked_add(count).ok_or(Malformed)?;
        self.successors.learn(self.before, series);
        self.before = series;
        Ok((series, before, count))
    }
}

/// Blocks' first LSNs, for the footer.
pub(super) fn put_firsts(out: &mut Vec<u8>, firsts: &[u64]) {
    let mut before = 0;
    put_len(out, firsts.len());
    firsts.iter().for_each(|first| put_u64(out, first - std::mem::replace(&mut before, *first)));
}

pub(super) fn take_firsts(cut: &mut Cut<'_>) -> Result<Vec<u64>, Malformed> {
    let count = cut.count(cut.0.len())?;
    let mut before = 0u64;
    let mut firsts = Vec::with_capacity(count);
    for _ in 0..count {
        let step = cut.u64()?;
        if step == 0 {
            return Err(Malformed);
        }
        before = before.checked_add(step).ok_or(Malformed)?;
        firsts.push(before);
    }
    Ok(firsts)
}
