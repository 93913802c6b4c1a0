//! The chains of all streams while a store is checked: which LSNs were met, and the hash at the end of each unbroken run of them. It
//! holds hashes and places, never a body; a body that must be hashed against one that came later is read again by its place.

use std::collections::{BTreeMap, HashMap};

use tidelog_record::{ChainHash, Lsn, StreamId, StreamKey};

/// Where a frame stands: number of the file, and offset in it.
pub(super) type Place = (usize, u64);

/// Consecutive LSNs whose chain holds.
#[derive(Debug)]
struct Extent {
    last: u64,
    chain: ChainHash,
    /// The hash that must stand before its first record, if that is sealed.
    before: Option<ChainHash>,
    /// Where its first record stands; `None` when that is sealed, and was checked there.
    begins: Option<Place>,
}

#[derive(Debug, Default)]
struct Stream {
    stream: Option<StreamId>,
    /// By first LSN.
    extents: BTreeMap<u64, Extent>,
    /// Ranges of which it was told that they are lost.
    told: Vec<(u64, u64)>,
    met: Option<Place>,
    records: u64,
}

/// What a record is to those that were met before.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Met {
    /// It follows, or nothing that stands before it is known. With the place of a record that was met earlier and must now
    /// follow this one.
    Good(Option<Place>),
    /// Held already, with the same hash.
    Again,
    /// It does not follow, or another is held in its place.
    Broken,
}

/// What a sealed range is to those that were taken in before.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It adds something.
    Taken,
    /// What covers it was there before.
    Covered,
    /// It does not follow, or what stands behind it does not: the record that is the first to contradict.
    Broken(Lsn),
}

/// All streams.
#[derive(Debug, Default)]
pub(super) struct Chains(HashMap<StreamKey, Stream>);

impl Chains {
    pub fn declare(&mut self, key: StreamKey, stream: StreamId) {
        self.0.entry(key).or_default().stream.get_or_insert(stream);
    }

    pub fn name(&self, key: &StreamKey) -> Option<StreamId> {
        self.0.get(key).and_then(|stream| stream.stream.clone())
    }

    /// Takes in a range that is sealed and was checked there, or that policy dropped, before the log is read: its first LSN with
    /// the hash before it, and its last with the hash after it. What covers most is to be told first.
    pub fn sealed(&mut self, stream: &StreamId, first: (Lsn, ChainHash), last: (Lsn, ChainHash)) -> Fit {
        let ((first, before), (last, after)) = (first, last);
        let key = stream.key();
        self.declare(key, stream.clone());
        let extents = &mut self.0.entry(key).or_default().extents;
        let earlier = extents.range(..=last.0).next_back();
        if earlier.is_some_and(|(_, extent)| extent.last >= first.0) {
            return Fit::Covered;
        }
        let touches = earlier.filter(|(_, extent)| extent.last.checked_add(1) == Some(first.0));
        let begins = (first.0 == 1).then_some(ChainHash::GENESIS);
        if begins.or(touches.map(|(_, extent)| extent.chain)).is_some_and(|chain| chain != before) {
            return Fit::Broken(first);
        }
        let behind = last.next().filter(|next| leads_elsewhere(extents, *next, after));
        if let Some(next) = behind {
            return Fit::Broken(next);
        }
        extents.insert(first.0, Extent { last: last.0, chain: after, before: Some(before), begins: None });
        Fit::Taken
    }

    /// Notes that it was told that a range is lost.
    pub fn tell(&mut self, key: StreamKey, first: Lsn, last: Lsn) {
        self.0.entry(key).or_default().told.push((first.0, last.0));
    }

    /// What of a range is neither held nor dropped by policy nor told to be lost: first and last LSNs, ascending.
    pub fn missing(&self, key: &StreamKey, first: Lsn, last: Lsn) -> Vec<(Lsn, Lsn)> {
        let stream = self.0.get(key);
        let extents = stream.into_iter().flat_map(|stream| stream.extents.range(..=last.0).rev());
        let held = extents.map(|(from, extent)| (*from, extent.last)).take_while(|(_, to)| *to >= first.0);
        let mut known: Vec<(u64, u64)> = held.collect();
        known.extend(stream.into_iter().flat_map(|stream| &stream.told));
        known.sort_unstable();
        let (mut missing, mut next) = (Vec::new(), first.0);
        for (from, to) in known {
            if from > last.0 || next > last.0 {
                break;
            }
            if from > next {
                missing.push((Lsn(next), Lsn(from - 1)));
            }
            next = next.max(to.saturating_add(1));
        }
        if next <= last.0 {
            missing.push((Lsn(next), last));
        }
        missing
    }

    /// Takes in a record. `follows` says whether it follows a hash.
    pub fn meet(
        &mut self,
        key: StreamKey,
        lsn: Lsn,
        chain: ChainHash,
        place: Place,
        follows: impl Fn(ChainHash) -> bool,
    ) -> Met {
        let stream = self.0.entry(key).or_default();
        stream.records += 1;
        stream.met.get_or_insert(place);
        let Some(before) = lsn.0.checked_sub(1) else { return Met::Broken };
        let leads_elsewhere = lsn.next().is_some_and(|next| leads_elsewhere(&stream.extents, next, chain));
        match stream.extents.range_mut(..=lsn.0).next_back() {
            // Within a run only its last hash is known; what stands twice inside it is an older copy, served or not.
            Some((_, extent)) if extent.last > lsn.0 => return Met::Again,
            Some((_, extent)) if extent.last == lsn.0 => {
                return if extent.chain == chain { Met::Again } else { Met::Broken };
            }
            Some((_, extent)) if extent.last == before => {
                if leads_elsewhere || !follows(extent.chain) {
                    return Met::Broken;
                }
                extent.last = lsn.0;
                extent.chain = chain;
            }
            _ => {
                if leads_elsewhere || (before == 0 && !follows(ChainHash::GENESIS)) {
                    return Met::Broken;
                }
                stream
                    .extents
                    .insert(lsn.0, Extent { last: lsn.0, chain, before: None, begins: Some(place) });
            }
        }
        Met::Good(stream.join(lsn.0))
    }

    pub fn streams(&self) -> u64 {
        self.0.values().filter(|stream| !stream.extents.is_empty()).count() as u64
    }

    /// Places where LSNs are missing, before the highest of each stream.
    pub fn gaps(&self) -> u64 {
        let of = |stream: &Stream| {
            let mut upto = 0;
            let mut gaps = 0;
            for (first, extent) in &stream.extents {
                gaps += u64::from(*first > upto + 1);
                upto = extent.last;
            }
            gaps
        };
        self.0.values().map(of).sum()
    }

    /// For each stream without a name: where its first record stands, and how many there are. In order of place.
    pub fn undeclared(&self) -> Vec<(usize, u64, u64)> {
        let nameless = self.0.values().filter(|stream| stream.stream.is_none());
        let mut found: Vec<_> = nameless
            .filter_map(|stream| stream.met.map(|(file, offset)| (file, offset, stream.records)))
            .collect();
        found.sort_unstable();
        found
    }
}

/// Whether what is sealed from `next` on follows another hash.
fn leads_elsewhere(extents: &BTreeMap<u64, Extent>, next: Lsn, chain: ChainHash) -> bool {
    extents.get(&next.0).and_then(|extent| extent.before).is_some_and(|before| before != chain)
}

impl Stream {
    /// Joins the run that ends with `last` to one that begins behind it; where that one's first record stands.
    fn join(&mut self, last: u64) -> Option<Place> {
        let next = self.extents.remove(&last.checked_add(1)?)?;
        let (_, extent) = self.extents.range_mut(..=last).next_back()?;
        (extent.last, extent.chain) = (next.last, next.chain);
        next.begins
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use tidelog_record::{NodeId, Run};

    fn chain() -> (StreamId, Vec<(Lsn, ChainHash, Vec<u8>)>) {
        let stream = StreamId { site: "s".parse().unwrap(), node: NodeId([1; 16]), run: Run(1) };
        let mut before = ChainHash::GENESIS;
        let mut next = |lsn: u64| {
            let body = vec![u8::try_from(lsn).unwrap(); 3];
            before = before.after(&stream.key(), Lsn(lsn), &body);
            (Lsn(lsn), before, body)
        };
        let records = (1..=9).map(&mut next).collect();
        (stream, records)
    }

    fn meet(chains: &mut Chains, stream: &StreamId, record: &(Lsn, ChainHash, Vec<u8>)) -> Met {
        let (lsn, chain, body) = record;
        let follows = |before: ChainHash| before.after(&stream.key(), *lsn, body) == *chain;
        chains.meet(stream.key(), *lsn, *chain, (0, lsn.0), follows)
    }

    #[test]
    fn in_whatever_order_they_come_records_of_one_chain_make_one_run() {
        let (stream, records) = chain();
        for order in [[1, 2, 3, 4, 5, 6, 7, 8, 9], [9, 8, 7, 6, 5, 4, 3, 2, 1], [5, 6, 1, 9, 2, 4, 3, 8, 7]] {
            let mut chains = Chains::default();
            for lsn in order {
                assert!(matches!(meet(&mut chains, &stream, &records[lsn - 1]), Met::Good(_)));
            }
            assert_eq!((chains.gaps(), chains.streams()), (0, 1));
            assert_eq!(meet(&mut chains, &stream, &records[4]), Met::Again);
        }
    }

    #[test]
    fn another_body_breaks_the_chain_where_it_stands_or_where_the_next_must_be_read_again() {
        let (stream, records) = chain();
        let forged = |at: usize| {
            let (lsn, chain, _) = records[at];
            (lsn, chain, b"forged".to_vec())
        };
        let mut chains = Chains::default();
        assert_eq!(meet(&mut chains, &stream, &forged(0)), Met::Broken);
        assert_eq!(meet(&mut chains, &stream, &records[0]), Met::Good(None));
        assert_eq!(meet(&mut chains, &stream, &forged(1)), Met::Broken);
        // Alone it may be good; when the one before it comes, it is asked for again.
        assert_eq!(meet(&mut chains, &stream, &forged(3)), Met::Good(None));
        assert_eq!(chains.gaps(), 1);
        assert_eq!(meet(&mut chains, &stream, &records[1]), Met::Good(None));
        assert_eq!(meet(&mut chains, &stream, &records[2]), Met::Good(Some((0, 4))));
    }

    /// The range of the records from `first` to `last`, as it is sealed.
    fn range(records: &[(Lsn, ChainHash, Vec<u8>)], first: usize, last: usize) -> [(Lsn, ChainHash); 2] {
        let before = first.checked_sub(2).map_or(ChainHash::GENESIS, |at| records[at].1);
        [(records[first - 1].0, before), (records[last - 1].0, records[last - 1].1)]
    }

    #[test]
    fn what_is_sealed_stands_before_the_log() {
        let (stream, records) = chain();
        let mut chains = Chains::default();
        let [first, last] = range(&records, 1, 5);
        assert_eq!(chains.sealed(&stream, first, last), Fit::Taken);
        let [first, last] = range(&records, 2, 3);
        assert_eq!(chains.sealed(&stream, first, last), Fit::Covered);
        assert_eq!(meet(&mut chains, &stream, &records[2]), Met::Again);
        assert_eq!(meet(&mut chains, &stream, &records[6]), Met::Good(None));
        assert_eq!(meet(&mut chains, &stream, &records[5]), Met::Good(Some((0, 7))));
        assert_eq!(chains.gaps(), 0);
    }

    #[test]
    fn ranges_that_do_not_follow_each_other_are_told_whichever_comes_first() {
        let (stream, records) = chain();
        let wrong = ChainHash([9; 16]);
        let [first, last] = range(&records, 4, 6);
        let sealed = |ranges: &[[(Lsn, ChainHash); 2]]| {
            let mut chains = Chains::default();
            ranges.iter().map(|[first, last]| chains.sealed(&stream, *first, *last)).collect::<Vec<_>>()
        };
        let (low, high) = (range(&records, 1, 3), range(&records, 7, 9));
        assert!(sealed(&[low, [first, last], high]).iter().all(|fit| *fit == Fit::Taken));
        assert!(sealed(&[high, [first, last], low]).iter().all(|fit| *fit == Fit::Taken));
        assert_eq!(sealed(&[low, [(first.0, wrong), last]]), [Fit::Taken, Fit::Broken(Lsn(4))]);
        assert_eq!(sealed(&[[(first.0, wrong), last], low]), [Fit::Taken, Fit::Broken(Lsn(4))]);
        assert_eq!(sealed(&[[(Lsn(1), wrong), last]]), [Fit::Broken(Lsn(1))]);
        let mut chains = Chains::default();
        chains.sealed(&stream, (first.0, wrong), last);
        assert_eq!(
            meet(&mut chains, &stream, &records[2]),
            Met::Broken,
            "a record of the log that leads elsewhere"
        );
    }

    #[test]
    fn what_is_missing_is_what_nobody_holds_dropped_or_told_of() {
        let (stream, records) = chain();
        let (key, mut chains) = (stream.key(), Chains::default());
        let missing = |chains: &Chains, first: u64, last: u64| {
            let found = chains.missing(&key, Lsn(first), Lsn(last));
            found.into_iter().map(|(first, last)| (first.0, last.0)).collect::<Vec<_>>()
        };
        assert_eq!(missing(&chains, 2, 8), [(2, 8)]);
        let [first, last] = range(&records, 3, 4);
        chains.sealed(&stream, first, last);
        meet(&mut chains, &stream, &records[6]);
        chains.tell(key, Lsn(8), Lsn(8));
        assert_eq!(missing(&chains, 1, 12), [(1, 2), (5, 6), (9, 12)]);
        assert_eq!(missing(&chains, 4, 6), [(5, 6)]);
        assert_eq!(missing(&chains, 7, 8), []);
        assert_eq!(missing(&chains, 6, 6), [(6, 6)]);
    }
}
