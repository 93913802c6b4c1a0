//! What is held of one stream: consecutive LSNs in the log, sealed segments, stretches that policy dropped, and the points of
//! records that no segment holds yet. From the union follows the stream's entry in the vector (invariant 5). Reads no file.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidelog_record::{ChainHash, Lsn, Seal, StreamId};

use crate::gap::{Gap, GapReason};
use crate::sealed::Sealed;
use crate::table::{Table, Tables};

/// Distance between marks from which a reader walks forward, in bytes of log.
pub(crate) const MARK_EVERY_BYTES: u64 = 32 * 1024;

/// Consecutive LSNs that arrived in order and stand in the log.
#[derive(Debug, Clone)]
pub(crate) struct Extent {
    pub first: u64,
    pub last: u64,
    /// Chain hash after `last`.
    pub chain: ChainHash,
    /// `(lsn, position)` of some records, ascending; one at or before the first record always.
    marks: Vec<(u64, u64)>,
    marked_at: u64,
}

/// What can be told of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The stream.
    pub stream: StreamId,
    /// Up to here everything is held, or was dropped by policy (invariant 5).
    pub upto: Lsn,
    /// The chain hash there.
    pub chain: ChainHash,
    /// The lowest ranges above that can be read, each with its first and last record: ascending, and before each something is missing.
    pub above: Vec<(Lsn, Lsn)>,
}

/// What is held of one stream.
#[derive(Debug)]
pub(crate) struct StreamIndex {
    pub stream: StreamId,
    /// What the log holds: disjoint, ascending.
    pub extents: Vec<Extent>,
    /// What segments hold: disjoint, ascending. The log may hold some of it too.
    pub sealed: Vec<Arc<Sealed>>,
    /// What is gone, by policy or by rot: disjoint, ascending.
    pub gaps: Vec<Gap>,
    /// Points of the records that no segment holds.
    pub tables: Tables,
    /// The author's seals that this node has not followed yet, by first LSN and number of parts.
    pub seals: BTreeMap<(u64, u32), Seal>,
    /// Everything up to here is held, chained and readable, or was dropped by policy (invariant 5).
    pub upto: Lsn,
    pub chain: ChainHash,
}

impl StreamIndex {
    pub fn new(stream: StreamId) -> Self {
        Self {
            stream,
            extents: Vec::new(),
            sealed: Vec::new(),
            gaps: Vec::new(),
            tables: Tables::default(),
            seals: BTreeMap::new(),
            upto: Lsn::ZERO,
            chain: ChainHash::GENESIS,
        }
    }

    /// What can be told of it, with at most so many ranges.
    pub fn held(&self, ranges_max: usize) -> Held {
        let above = self.ranges_above(ranges_max);
        Held { stream: self.stream.clone(), upto: self.upto, chain: self.chain, above }
    }

    /// The highest LSN known and the chain hash there, above gaps too.
    pub fn top(&self) -> (Lsn, ChainHash) {
        let log = self.extents.last().map(|e| (Lsn(e.last), e.chain));
        let sealed = self.sealed.last().map(|s| (s.seal.last, s.after));
        let gone = self.gaps.last().map(|g| (g.seal.last, g.after));
        let tops = [log, sealed, gone, Some((Lsn::ZERO, ChainHash::GENESIS))];
        tops.into_iter().flatten().max_by_key(|(lsn, _)| *lsn).unwrap_or_default()
    }

    /// The chain hash that a record at `lsn` must follow, if it is known without reading.
    pub fn chain_before(&self, lsn: Lsn) -> Option<ChainHash> {
        let before = Lsn(lsn.0.checked_sub(1)?);
        if before == Lsn::ZERO {
            return Some(ChainHash::GENESIS);
        }
        self.chain_known(before)
    }

    /// The chain hash after the record at `lsn`, if it is the last of an extent, a segment or a gap.
    pub fn chain_known(&self, lsn: Lsn) -> Option<ChainHash> {
        let log = self.extent_of(lsn).filter(|e| e.last == lsn.0).map(|e| e.chain);
        let sealed = || self.sealed_of(lsn).filter(|s| s.seal.last == lsn).map(|s| s.after);
        let gone = || self.gap_of(lsn).filter(|g| g.seal.last == lsn).map(|g| g.after);
        log.or_else(sealed).or_else(gone)
    }

    /// The piece of the log that holds a record.
    pub fn extent_of(&self, lsn: Lsn) -> Option<&Extent> {
        let after = self.extents.partition_point(|e| e.first <= lsn.0);
        self.extents.get(after.checked_sub(1)?).filter(|e| lsn.0 <= e.last)
    }

    /// The segment that holds a record.
    pub fn sealed_of(&self, lsn: Lsn) -> Option<&Arc<Sealed>> {
        let after = self.sealed.partition_point(|s| s.seal.first <= lsn);
        self.sealed.get(after.checked_sub(1)?).filter(|s| lsn <= s.seal.last)
    }

    /// The gap in which a record is missing.
    pub fn gap_of(&self, lsn: Lsn) -> Option<&Gap> {
        self.gaps.iter().find(|g| g.seal.first <= lsn && lsn <= g.seal.last)
    }

    /// Whether the record can be read here.
    pub fn holds(&self, lsn: Lsn) -> bool {
        self.extent_of(lsn).is_some() || self.sealed_of(lsn).is_some()
    }

    /// Whether everything from `first` to `last` can be read here or was dropped by policy: the log need not keep it.
    pub fn sealed_through(&self, first: u64, last: u64) -> bool {
        let mut at = first;
        while at <= last {
            let lsn = Lsn(at);
            let sealed = self.sealed_of(lsn).map(|s| s.seal.last);
            let Some(to) = sealed.or_else(|| self.gap_of(lsn).filter(|g| g.by_policy()).map(|g| g.seal.last))
            else {
                return false;
            };
            let Some(next) = to.0.checked_add(1) else { return true };
            at = next;
        }
        true
    }

    /// Whether every record from `first` to `last` can be read here.
    pub fn held_through(&self, first: Lsn, last: Lsn) -> bool {
        let mut at = first;
        while at <= last {
            let Some(next) = self.piece_end(at).and_then(Lsn::next) else { return false };
            at = next;
        }
        true
    }

    /// How many pieces the author sealed so far, as far as is known here.
    pub fn ordinal_next(&self) -> u64 {
        let sealed = self.sealed.iter().map(|s| &s.seal).chain(self.gaps.iter().map(|g| &g.seal));
        sealed.map(|seal| seal.ordinal + u64::from(seal.parts)).max().unwrap_or(0)
    }

    /// The highest LSN up to which, from the first on, all is sealed or dropped by policy.
    pub fn sealed_upto(&self) -> Lsn {
        let mut upto = Lsn::ZERO;
        while let Some(next) = upto.next() {
            let sealed = self.sealed_of(next).map(|s| s.seal.last);
            match sealed.or_else(|| self.gap_of(next).map(|g| g.seal.last)) {
                Some(last) => upto = last,
                None => break,
            }
        }
        upto
    }

    /// How many records can be read.
    pub fn records(&self) -> u64 {
        let sealed: u64 = self.sealed.iter().map(|s| s.records()).sum();
        let log: u64 = self.extents.iter().map(|e| e.last - e.first + 1).sum();
        let both: u64 = self
            .extents
            .iter()
            .flat_map(|e| {
                self.sealed.iter().map(move |s| overlap((e.first, e.last), (s.seal.first.0, s.seal.last.0)))
            })
            .sum();
        sealed + log - both
    }

    /// How many records peers had dropped before they came here.
    pub fn never_held(&self) -> u64 {
        let gaps = self.gaps.iter().filter(|gap| gap.reason == GapReason::NeverHeld);
        gaps.map(Gap::records).sum()
    }

    /// The position from which a walk meets `lsn`.
    pub fn walk_from(&self, lsn: Lsn) -> Option<u64> {
        let extent = self.extent_of(lsn)?;
        let after = extent.marks.partition_point(|(l, _)| *l <= lsn.0);
        extent.marks.get(after.checked_sub(1)?).map(|(_, position)| *position)
    }

    /// Takes in a record of the log. `false` when the log holds its LSN already.
    pub fn add(&mut self, lsn: Lsn, chain: ChainHash, position: u64, log_byte: u64) -> bool {
        if self.extent_of(lsn).is_some() || lsn == Lsn::ZERO {
            return false;
        }
        let at = self.extents.partition_point(|e| e.first <= lsn.0);
        match at.checked_sub(1).and_then(|before| self.extents.get_mut(before)) {
            // Arrival order within an extent is LSN order; a record that arrives later than a higher one begins its own.
            Some(e)
                if e.last.checked_add(1) == Some(lsn.0)
                    && e.marks.last().is_some_and(|(_, p)| *p < position) =>
            {
                e.last = lsn.0;
                e.chain = chain;
                if log_byte >= e.marked_at + MARK_EVERY_BYTES {
                    e.marks.push((lsn.0, position));
                    e.marked_at = log_byte;
                }
            }
            _ => {
                let marks = vec![(lsn.0, position)];
                let extent = Extent { first: lsn.0, last: lsn.0, chain, marks, marked_at: log_byte };
                self.extents.insert(at, extent);
            }
        }
        self.join();
        true
    }

    /// Remembers a seal until it is followed. One that names records behind itself, or is followed already, is none.
    pub fn note_seal(&mut self, lsn: Lsn, seal: Seal) {
        let is_followed = self
            .sealed_of(seal.first)
            .is_some_and(|s| s.seal.last >= seal.last && s.seal.parts >= seal.parts);
        if seal.last < lsn && !is_followed && !self.reaches_into_dropped(&seal) {
            self.seals.insert((seal.first.0, seal.parts), seal);
        }
    }

    /// Whether policy dropped some of a seal's range here: nobody can follow it any more, and it must not be waited for.
    fn reaches_into_dropped(&self, seal: &Seal) -> bool {
        let touches = |gap: &&Gap| gap.seal.first <= seal.last && gap.seal.last >= seal.first;
        self.gaps.iter().filter(touches).any(Gap::by_policy)
    }

    /// Forgets points in memory that segments hold, and gives them back. A segment may come before one of older records, whose points
    /// stay.
    pub fn forget_sealed(&mut self) -> Vec<Arc<Table>> {
        let mut tables = std::mem::take(&mut self.tables);
        let forgotten = tables.forget(|first, last| self.sealed_through(first.0, last.0));
        self.tables = tables;
        forgotten
    }

    /// Takes in a segment, in place of the segments and gaps that it covers.
    pub fn install(&mut self, sealed: Arc<Sealed>) {
        let (first, last) = (sealed.seal.first, sealed.seal.last);
        self.sealed.retain(|s| s.seal.last < first || s.seal.first > last);
        self.gaps.retain(|g| g.seal.last < first || g.seal.first > last);
        self.seals.retain(|_, seal| seal.last < first || seal.first > last || seal.parts > sealed.seal.parts);
        let at = self.sealed.partition_point(|s| s.seal.first < first);
        self.sealed.insert(at, sealed);
        self.rejoin();
    }

    /// The end of the stretch behind `after` of which nothing is here because policy dropped it, and the chain hash there.
    pub fn dropped_behind(&self, after: Lsn) -> Option<(Lsn, ChainHash)> {
        let mut end = None;
        let mut next = after.next();
        while let Some(lsn) = next.filter(|lsn| !self.holds(*lsn)) {
            let Some(gap) = self.gap_of(lsn).filter(|gap| gap.by_policy()) else { break };
            end = Some((gap.seal.last, gap.after));
            next = gap.seal.last.next();
        }
        end
    }

    /// The first record that can be read, or was dropped by policy, from `first` on.
    pub fn next_piece(&self, first: Lsn) -> Option<Lsn> {
        let log = self.extents.iter().filter(|e| e.last >= first.0).map(|e| Lsn(e.first));
        let sealed = self.sealed.iter().filter(|s| s.seal.last >= first).map(|s| s.seal.first);
        let gone = self.gaps.iter().filter(|g| g.by_policy() && g.seal.last >= first).map(|g| g.seal.first);
        log.chain(sealed).chain(gone).min().map(|lsn| lsn.max(first))
    }

    /// The lowest ranges above `upto` that can be read, at most so many.
    fn ranges_above(&self, most: usize) -> Vec<(Lsn, Lsn)> {
        let mut ranges = Vec::new();
        let mut from = self.upto.next();
        while ranges.len() < most {
            let Some(first) = from.and_then(|from| self.readable_from(from)) else { break };
            let (mut last, mut next) = (first, Some(first));
            while let Some(end) = next.and_then(|next| self.piece_end(next)) {
                (last, next) = (end, end.next());
            }
            ranges.push((first, last));
            from = next;
        }
        ranges
    }

    /// The first record from `from` on that can be read here.
    fn readable_from(&self, from: Lsn) -> Option<Lsn> {
        let log = self.extents.get(self.extents.partition_point(|e| e.last < from.0)).map(|e| Lsn(e.first));
        let sealed = self.sealed.get(self.sealed.partition_point(|s| s.seal.last < from));
        let sealed = sealed.map(|s| s.seal.first);
        log.into_iter().chain(sealed).min().map(|lsn| lsn.max(from))
    }

    /// The last record of the piece of the log, or the segment, in which a record can be read.
    fn piece_end(&self, lsn: Lsn) -> Option<Lsn> {
        let log = self.extent_of(lsn).map(|e| Lsn(e.last));
        log.or_else(|| self.sealed_of(lsn).map(|s| s.seal.last))
    }

    /// Takes in a gap, in place of the segment and the rot that was there.
    pub fn dig(&mut self, gap: Gap) {
        let apart = |g: &Gap| g.seal.last < gap.seal.first || g.seal.first > gap.seal.last;
        if !gap.by_policy() && !self.gaps.iter().all(|g| !g.by_policy() || apart(g)) {
            // What rotted was passed over since: nobody has it any more.
            return;
        }
        self.gaps.retain(|g| g.by_policy() || apart(g));
        self.sealed.retain(|s| s.seal.last < gap.seal.first || s.seal.first > gap.seal.last);
        let at = self.gaps.partition_point(|g| g.seal.first < gap.seal.first);
        self.gaps.insert(at, gap);
        let seals = std::mem::take(&mut self.seals);
        self.seals = seals.into_iter().filter(|(_, seal)| !self.reaches_into_dropped(seal)).collect();
        self.rejoin();
    }

    /// Forgets what the log held in positions up to `position`: for each extent that begins there, up to which LSN.
    pub fn forget_log(&mut self, runs: &[(u64, u64)], position: u64) {
        for (first, last) in runs {
            for e in &mut self.extents {
                if e.first <= *last && *first <= e.last {
                    e.first = last.saturating_add(1);
                    let kept = e.marks.partition_point(|(lsn, _)| *lsn < e.first);
                    e.marks.drain(..kept);
                    if e.marks.first().is_none_or(|(lsn, _)| *lsn > e.first) {
                        e.marks.insert(0, (e.first, position + 1));
                    }
                }
            }
        }
        self.extents.retain(|e| e.first <= e.last);
        self.rejoin();
    }

    /// The end of everything that is held or was dropped by policy, from `first` on without a gap, and the chain hash there.
    pub fn run_from(&self, first: Lsn) -> Option<(Lsn, ChainHash)> {
        let mut end = None;
        let mut next = Some(first);
        while let Some(lsn) = next {
            let log = self.extent_of(lsn).map(|e| (Lsn(e.last), e.chain));
            let sealed = || self.sealed_of(lsn).map(|s| (s.seal.last, s.after));
            let gone = || self.gap_of(lsn).filter(|g| g.by_policy()).map(|g| (g.seal.last, g.after));
            let Some(piece) = log.or_else(sealed).or_else(gone) else { break };
            next = piece.0.next();
            end = Some(piece);
        }
        end
    }

    /// The chain hash before a segment, or a gap by policy, that begins with `first`.
    pub fn hash_before_piece(&self, first: Lsn) -> Option<ChainHash> {
        let sealed = self.sealed_of(first).filter(|s| s.seal.first == first).map(|s| s.before);
        let gone = || self.gap_of(first).filter(|g| g.by_policy() && g.seal.first == first).map(|g| g.before);
        sealed.or_else(gone)
    }

    /// Moves `upto` over everything that is now contiguous.
    fn join(&mut self) {
        if let Some((last, chain)) = self.upto.next().and_then(|next| self.run_from(next)) {
            (self.upto, self.chain) = (last, chain);
        }
    }

    fn rejoin(&mut self) {
        (self.upto, self.chain) = (Lsn::ZERO, ChainHash::GENESIS);
        self.join();
    }
}

fn overlap(a: (u64, u64), b: (u64, u64)) -> u64 {
    let (from, to) = (a.0.max(b.0), a.1.min(b.1));
    if from <= to { to - from + 1 } else { 0 }
}
