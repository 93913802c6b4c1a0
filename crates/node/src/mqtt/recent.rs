//! Which records of others this node took in already, in bounded memory: for each stream the places held, as ranges. The
//! places of a stream are dense, so a stream that arrived whole is one range, however long it is.
//!
//! It errs to one side only: what it forgets is taken in a second time, which no answer shows (invariant 8); what it says
//! is held was held.

use std::collections::{BTreeSet, HashMap};

use tidelog_record::{Lsn, StreamKey};

/// Streams remembered. Past it the one heard of longest ago is forgotten.
pub(super) const STREAMS_MAX: usize = 256;

/// Ranges remembered of one stream. Past it the lowest is forgotten.
pub(super) const RANGES_MAX: usize = 64;

/// Parts of divided records remembered of one stream. Past it the lowest is forgotten.
pub(super) const PARTS_MAX: usize = 256;

/// One message's place: its record's, and for a part of a divided record the number of points before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub stream: StreamKey,
    pub lsn: Lsn,
    /// `None` for a whole record.
    pub first_point: Option<u64>,
}

#[derive(Debug, Default)]
struct Held {
    /// Disjoint `[first, last]`, ascending, never adjacent.
    whole: Vec<(u64, u64)>,
    parts: BTreeSet<(Lsn, u64)>,
    heard: u64,
}

#[derive(Debug, Default)]
pub(super) struct Recent {
    streams: HashMap<StreamKey, Held>,
    clock: u64,
}

impl Recent {
    pub fn holds(&self, place: &Place) -> bool {
        self.streams.get(&place.stream).is_some_and(|held| match place.first_point {
            None => held.holds(place.lsn.0),
            Some(first_point) => held.parts.contains(&(place.lsn, first_point)),
        })
    }

    pub fn insert(&mut self, place: &Place) {
        self.clock += 1;
        if !self.streams.contains_key(&place.stream) && self.streams.len() >= STREAMS_MAX {
            let oldest = self.streams.iter().min_by_key(|(_, held)| held.heard).map(|(key, _)| *key);
            if let Some(oldest) = oldest {
                self.streams.remove(&oldest);
            }
        }
        let held = self.streams.entry(place.stream).or_default();
        held.heard = self.clock;
        match place.first_point {
            None => held.insert(place.lsn.0),
            Some(first_point) => {
                held.parts.insert((place.lsn, first_point));
                if held.parts.len() > PARTS_MAX {
                    held.parts.pop_first();
                }
            }
        }
    }
}

impl Held {
    fn holds(&self, lsn: u64) -> bool {
        let at = self.whole.partition_point(|(_, last)| *last < lsn);
        self.whole.get(at).is_some_and(|(first, _)| *first <= lsn)
    }

    fn insert(&mut self, lsn: u64) {
        let from = self.whole.partition_point(|(_, last)| last.saturating_add(1) < lsn);
        let to = self.whole.partition_point(|(first, _)| *first <= lsn.saturating_add(1));
        let touched = self.whole.get(from..to).unwrap_or_default();
        let low = touched.first().map_or(lsn, |(first, _)| lsn.min(*first));
        let high = touched.last().map_or(lsn, |(_, last)| lsn.max(*last));
        self.whole.splice(from..to, [(low, high)]);
        if self.whole.len() > RANGES_MAX {
            self.whole.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn whole(stream: u8, lsn: u64) -> Place {
        Place { stream: StreamKey([stream; 16]), lsn: Lsn(lsn), first_point: None }
    }

    proptest! {
        #[test]
        fn what_it_says_is_held_is_what_a_plain_set_holds_while_nothing_is_forgotten(
            places in prop::collection::vec((0u8..3, prop_oneof![0u64..100, Just(u64::MAX)], prop::option::of(0u64..3)), 0..150),
        ) {
            let mut recent = Recent::default();
            let mut naive = HashSet::new();
            for (stream, lsn, first_point) in places {
                let place = Place { first_point, ..whole(stream, lsn) };
                prop_assert_eq!(recent.holds(&place), naive.contains(&place));
                recent.insert(&place);
                naive.insert(place);
                prop_assert!(recent.holds(&place));
            }
        }
    }

    #[test]
    fn a_stream_that_arrives_whole_is_one_range() {
        let mut recent = Recent::default();
        for lsn in 1..10_000 {
            recent.insert(&whole(1, lsn));
        }
        assert_eq!(recent.streams[&StreamKey([1; 16])].whole, [(1, 9_999)]);
    }

    #[test]
    fn memory_is_bounded_and_forgets_the_lowest_and_the_longest_silent() {
        let mut recent = Recent::default();
        for lsn in 0..1000 {
            recent.insert(&whole(1, lsn * 2));
            recent.insert(&Place { first_point: Some(0), ..whole(1, lsn) });
        }
        let held = &recent.streams[&StreamKey([1; 16])];
        assert_eq!((held.whole.len(), held.parts.len()), (RANGES_MAX, PARTS_MAX));
        assert!(!recent.holds(&whole(1, 0)) && recent.holds(&whole(1, 1998)));
        for stream in 0..u16::try_from(STREAMS_MAX).unwrap() {
            let [a, b] = stream.to_be_bytes();
            let mut key = [0xff; 16];
            (key[0], key[1]) = (a, b);
            recent.insert(&Place { stream: StreamKey(key), ..whole(0, 1) });
        }
        assert_eq!(recent.streams.len(), STREAMS_MAX);
        assert!(!recent.holds(&whole(1, 1998)));
    }
}
