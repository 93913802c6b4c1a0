//! Which sequence numbers of a sensor's log are held, as a few ranges. Knows nothing of records or files.

/// Ranges kept for one life of a sensor's log. Past it the lowest is forgotten: a repeat of it would be stored again,
/// which answers do not show (invariant 8).
pub(crate) const SEQ_RANGES_MAX: usize = 64;

/// Disjoint ranges `[first, last]`, ascending, never adjacent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeqRanges(Vec<(u64, u64)>);

impl SeqRanges {
    pub(crate) fn insert(&mut self, first: u64, last: u64) {
        let from = self.0.partition_point(|(_, l)| l.saturating_add(1) < first);
        let to = self.0.partition_point(|(f, _)| *f <= last.saturating_add(1));
        let touched = self.0.get(from..to).unwrap_or_default();
        let low = touched.first().map_or(first, |(f, _)| first.min(*f));
        let high = touched.last().map_or(last, |(_, l)| last.max(*l));
        self.0.splice(from..to.max(from), [(low, high)]);
        if self.0.len() > SEQ_RANGES_MAX {
            self.0.remove(0);
        }
    }

    /// Whether all of `[first, last]` is held.
    #[must_use]
    pub fn holds(&self, first: u64, last: u64) -> bool {
        let at = self.0.partition_point(|(_, l)| *l < first);
        self.0.get(at).is_some_and(|(f, l)| *f <= first && last <= *l)
    }

    /// The highest number held.
    #[must_use]
    pub fn highest(&self) -> Option<u64> {
        self.0.last().map(|(_, last)| *last)
    }

    /// The ranges, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn ranges_hold_what_a_set_of_numbers_holds(
            inserts in prop::collection::vec((0u64..100, 0u64..8), 0..50),
            first in 0u64..100, length in 0u64..10,
        ) {
            let mut ranges = SeqRanges::default();
            let mut model = BTreeSet::new();
            for (first, length) in inserts {
                ranges.insert(first, first + length);
                model.extend(first..=first + length);
            }
            prop_assert_eq!(
                ranges.holds(first, first + length),
                (first..=first + length).all(|n| model.contains(&n))
            );
            prop_assert_eq!(ranges.highest(), model.last().copied());
            prop_assert_eq!(ranges.iter().flat_map(|(f, l)| f..=l).collect::<BTreeSet<_>>(), model);
        }
    }

    #[test]
    fn the_last_number_of_all_can_be_held() {
        let mut ranges = SeqRanges::default();
        ranges.insert(u64::MAX - 1, u64::MAX);
        assert!(ranges.holds(u64::MAX, u64::MAX));
    }
}
