//! What a range's records are without their points, gathered one after another in a few bytes each: sealing needs it again behind the
//! columns. These bytes are never written.
//!
//! The order of entries mostly repeats: after a series comes the one that came after it before, with as many points. Entries that
//! are so are only counted.

use tidelog_record::{BodyHead, ChainHash, DeviceId, Lsn, NodeId, Origin, Relay, Run};

use super::bytes::{Cut, Malformed, put_i64, put_len, put_u64};
use super::records::{CHECKPOINT_RECORDS, Kept, Row};

const ORIGIN: u8 = 1 << 2;
const RELAY: u8 = 1 << 3;
const FIRST_POINT: u8 = 1 << 4;

/// Consecutive records without their points.
#[derive(Clone, Debug, Default)]
pub(crate) struct Records {
    pub(super) rows: Rows,
    pub(super) entries: Entries,
    /// The bodies that cannot be written again.
    pub(super) whole: Vec<u8>,
    /// The chain hash before each record but the first at which a block of records begins.
    pub(super) chains: Vec<ChainHash>,
}

impl Records {
    /// Takes the next entry of the record that will be added next: the number of its series, and how many points.
    pub fn entry(&mut self, series: u32, count: u32) {
        self.entries.add(series, count);
    }

    /// Takes a record whose entries were taken, and from which its body can be written again.
    pub fn points(&mut self, head: BodyHead, bytes: u32, entries: u32) {
        self.rows.add(&Row { kept: Kept::AsPoints, head, bytes, entries });
    }

    /// Takes a record whose entries were taken and whose body cannot be written again from them. `None` for one that is too long.
    pub(super) fn both(&mut self, head: BodyHead, body: &[u8], entries: u32) -> Option<()> {
        let bytes = u32::try_from(body.len()).ok()?;
        self.whole.extend_from_slice(body);
        self.rows.add(&Row { kept: Kept::Both, head, bytes, entries });
        Some(())
    }

    /// Takes a record that has no points. `None` for one that is too long.
    pub fn other(&mut self, body: &[u8]) -> Option<()> {
        let bytes = u32::try_from(body.len()).ok()?;
        self.whole.extend_from_slice(body);
        self.rows.add(&Row { kept: Kept::Whole, head: BodyHead::default(), bytes, entries: 0 });
        Some(())
    }

    /// Takes the chain hash behind a record that was added.
    pub fn chain(&mut self, lsn: Lsn, after: ChainHash) {
        if lsn.0.wrapping_add(1).is_multiple_of(CHECKPOINT_RECORDS) {
            self.chains.push(after);
        }
    }
}

/// Rows in order of LSN.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    bytes: Vec<u8>,
    authored_ms: i64,
}

impl Rows {
    pub fn add(&mut self, row: &Row) {
        let Row { kept, head: BodyHead { authored_ms, origin, relay }, bytes, entries } = row;
        let out = &mut self.bytes;
        let mut flags = *kept as u8;
        flags |= if origin.is_some() { ORIGIN } else { 0 };
        flags |= if relay.is_some() { RELAY } else { 0 };
        flags |= if relay.is_some_and(|relay| relay.first_point.is_some()) { FIRST_POINT } else { 0 };
        out.push(flags);
        put_i64(out, authored_ms.wrapping_sub(std::mem::replace(&mut self.authored_ms, *authored_ms)));
        put_u64(out, u64::from(*bytes));
        put_u64(out, u64::from(*entries));
        if let Some(Origin { device, epoch, first_seq, count }) = origin {
            out.extend_from_slice(&device.0);
            put_u64(out, u64::from(*epoch));
            put_u64(out, *first_seq);
            put_u64(out, u64::from(*count));
        }
        if let Some(Relay { node, run, lsn, first_point }) = relay {
            out.extend_from_slice(&node.0);
            out.extend_from_slice(&run.0.to_le_bytes());
            put_u64(out, lsn.0);
            if let Some(first_point) = first_point {
                put_u64(out, *first_point);
            }
        }
    }

    pub fn walk(&self) -> RowWalk<'_> {
        RowWalk { cut: Cut(&self.bytes), authored_ms: 0 }
    }
}

pub(super) struct RowWalk<'r> {
    cut: Cut<'r>,
    authored_ms: i64,
}

impl RowWalk<'_> {
    /// The next row; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Row>, Malformed> {
        let cut = &mut self.cut;
        if cut.0.is_empty() {
            return Ok(None);
        }
        let flags = cut.u8()?;
        let kept = match flags & 3 {
            0 => Kept::AsPoints,
            1 => Kept::Both,
            _ => Kept::Whole,
        };
        self.authored_ms = self.authored_ms.wrapping_add(cut.i64()?);
        let (bytes, entries) = (cut.u32()?, cut.u32()?);
        let mut head = BodyHead { authored_ms: self.authored_ms, ..BodyHead::default() };
        if flags & ORIGIN != 0 {
            let device = DeviceId(cut.array()?);
            head.origin =
                Some(Origin { device, epoch: cut.u32()?, first_seq: cut.u64()?, count: cut.u32()? });
        }
        if flags & RELAY != 0 {
            let (node, run) = (NodeId(cut.array()?), Run(u64::from_le_bytes(cut.array()?)));
            let lsn = Lsn(cut.u64()?);
            let first_point = if flags & FIRST_POINT != 0 { Some(cut.u64()?) } else { None };
            head.relay = Some(Relay { node, run, lsn, first_point });
        }
        Ok(Some(Row { kept, head, bytes, entries }))
    }
}

/// What is expected of the next entry, and learned from it.
#[derive(Clone, Debug, Default)]
struct Order {
    /// By series: the one behind it.
    next: Vec<u32>,
    series: u32,
    count: u32,
}

impl Order {
    fn expected(&self) -> (u32, u32) {
        (self.next.get(self.series as usize).copied().unwrap_or(0), self.count)
    }

    fn go_to(&mut self, series: u32, count: u32) {
        let before = self.series as usize;
        if self.next.len() <= before {
            self.next.resize(before + 1, 0);
        }
        if let Some(next) = self.next.get_mut(before) {
            *next = series;
        }
        (self.series, self.count) = (series, count);
    }
}

/// The entries of all records, in order: which series, and how many points.
#[derive(Clone, Debug, Default)]
pub(super) struct Entries {
    bytes: Vec<u8>,
    order: Order,
    /// Entries as expected since the last that was not.
    expected: usize,
}

impl Entries {
    pub fn add(&mut self, series: u32, count: u32) {
        if self.order.expected() == (series, count) {
            self.expected += 1;
        } else {
            put_len(&mut self.bytes, std::mem::take(&mut self.expected));
            put_u64(&mut self.bytes, u64::from(series));
            put_u64(&mut self.bytes, u64::from(count));
        }
        self.order.go_to(series, count);
    }

    pub fn walk(&self) -> Result<EntriesWalk<'_>, Malformed> {
        let mut walk = EntriesWalk { cut: Cut(&self.bytes), order: Order::default(), expected: 0 };
        walk.expect()?;
        Ok(walk)
    }
}

pub(super) struct EntriesWalk<'e> {
    cut: Cut<'e>,
    order: Order,
    expected: usize,
}

impl EntriesWalk<'_> {
    fn expect(&mut self) -> Result<(), Malformed> {
        // Behind the last surprise all are as expected.
        self.expected = if self.cut.0.is_empty() {
            usize::MAX
        } else {
            usize::try_from(self.cut.u64()?).map_err(|_| Malformed)?
        };
        Ok(())
    }

    /// The next entry. It is known from the rows how many there are.
    pub fn next(&mut self) -> Result<(u32, u32), Malformed> {
        let (series, count) = if self.expected > 0 {
            self.expected -= 1;
            self.order.expected()
        } else {
            let told = (self.cut.u32()?, self.cut.u32()?);
            self.expect()?;
            told
        };
        self.order.go_to(series, count);
        Ok((series, count))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row() -> impl Strategy<Value = Row> {
        let origin = prop::option::of((any::<[u8; 8]>(), any::<u32>(), any::<u64>(), any::<u32>()));
        let relay = prop::option::of((any::<[u8; 16]>(), any::<u64>(), any::<u64>(), any::<Option<u64>>()));
        let kept = prop::sample::select(vec![Kept::AsPoints, Kept::Both, Kept::Whole]);
        (kept, any::<i64>(), origin, relay, any::<u32>(), any::<u32>()).prop_map(
            |(kept, authored_ms, origin, relay, bytes, entries)| {
                let origin = origin.map(|(device, epoch, first_seq, count)| Origin {
                    device: DeviceId(device),
                    epoch,
                    first_seq,
                    count,
                });
                let relay = relay.map(|(node, run, lsn, first_point)| Relay {
                    node: NodeId(node),
                    run: Run(run),
                    lsn: Lsn(lsn),
                    first_point,
                });
                Row { kept, head: BodyHead { authored_ms, origin, relay }, bytes, entries }
            },
        )
    }

    proptest! {
        #[test]
        fn rows_come_out_as_they_went_in(all in prop::collection::vec(row(), 0..20)) {
            let mut rows = Rows::default();
            all.iter().for_each(|row| rows.add(row));
            let mut walk = rows.walk();
            for row in &all {
                prop_assert_eq!(walk.next(), Ok(Some(row.clone())));
            }
            prop_assert_eq!(walk.next(), Ok(None));
        }

        #[test]
        fn entries_come_out_as_they_went_in(
            round in prop::collection::vec((0u32..9, 0u32..3), 1..9), again in 0usize..9, odd in prop::collection::vec((0u32..12, any::<u32>()), 0..9),
        ) {
            let all: Vec<_> = round.iter().cycle().take(round.len() * again).chain(&odd).chain(&round).copied().collect();
            let mut entries = Entries::default();
            all.iter().for_each(|(series, count)| entries.add(*series, *count));
            let mut walk = entries.walk().unwrap();
            for entry in &all {
                prop_assert_eq!(walk.next(), Ok(*entry));
            }
        }
    }

    #[test]
    fn records_of_the_same_series_in_the_same_order_cost_nothing() {
        let mut entries = Entries::default();
        (0..100).for_each(|_| (0..50).for_each(|series| entries.add(series, 1)));
        assert!(entries.bytes.len() < 50 * 4, "{} bytes", entries.bytes.len());
    }
}
