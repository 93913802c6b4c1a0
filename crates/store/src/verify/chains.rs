//! The chains of all streams while a store is checked: which LSNs were met, and the hash at the end of each unbroken run of them. It
//! holds hashes and places, never a body; a body that must be hashed against one that came later is read again by its place.

use std::collections::{BTreeMap, HashMap};

use tidelog_record::{ChainHash, Lsn, StreamId, StreamKey};

use crate::segment::Span;

/// Where a frame stands: number of the file, and offset in it.
pub(super) type Place = (usize, u64);

/// Consecutive LSNs whose chain holds.
#[derive(Debug)]
struct Extent {
    last: u64,
    chain: ChainHash,
    /// Where its first record stands; `None` when that is sealed, and was checked there.
    begins: Option<Place>,
}

#[derive(Debug, Default)]
struct Stream {
    stream: Option<StreamId>,
    /// By first LSN.
    extents: BTreeMap<u64, Extent>,
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

    /// Takes in a range that is sealed and was checked there, before the log is read. Whether it adds anything: what covers most is
    /// to be told first.
    pub fn sealed(&mut self, span: &Span) -> bool {
        let key = span.stream.key();
        self.declare(key, span.stream.clone());
        let extents = &mut self.0.entry(key).or_default().extents;
        let before = extents.range(..=span.last.0).next_back();
        if before.is_some_and(|(_, extent)| extent.last >= span.first.0) {
            return false;
        }
        extents.insert(span.first.0, Extent { last: span.last.0, chain: span.after, begins: None });
        true
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
        match stream.extents.range_mut(..=lsn.0).next_back() {
            // Within a run only its last hash is known; what stands twice inside it is an older copy, served or not.
            Some((_, extent)) if extent.last > lsn.0 => return Met::Again,
            Some((_, extent)) if extent.last == lsn.0 => {
                return if extent.chain == chain { Met::Again } else { Met::Broken };
            }
            Some((_, extent)) if extent.last == before => {
                if !follows(extent.chain) {
                    return Met::Broken;
                }
                extent.last = lsn.0;
                extent.chain = chain;
            }
            _ => {
                if before == 0 && !follows(ChainHash::GENESIS) {
                    return Met::Broken;
                }
                stream.extents.insert(lsn.0, Extent { last: lsn.0, chain, begins: Some(place) });
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

    #[test]
    fn what_is_sealed_stands_before_the_log() {
        let (stream, records) = chain();
        let mut chains = Chains::default();
        let span = |first: u64, last: usize| Span {
            stream: stream.clone(),
            ordinal: 0,
            parts: 1,
            first: Lsn(first),
            last: Lsn(last as u64),
            before: ChainHash::GENESIS,
            after: records[last - 1].1,
        };
        assert!(chains.sealed(&span(1, 5)));
        assert!(!chains.sealed(&span(2, 3)), "it is covered");
        assert_eq!(meet(&mut chains, &stream, &records[2]), Met::Again);
        assert_eq!(meet(&mut chains, &stream, &records[6]), Met::Good(None));
        assert_eq!(meet(&mut chains, &stream, &records[5]), Met::Good(Some((0, 7))));
        assert_eq!(chains.gaps(), 0);
    }
}
