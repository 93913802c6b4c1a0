//! Which series were surely never entered: a filter of bits (Bloom's), so that a new series need not be looked for in every run.
//! The hashes are under keys of this process, so no one can choose names that fill it. It knows no names.

/// Bits that one series sets.
const BITS_EACH: u64 = 5;

/// A filter of bits; an empty one says of everything that it may be there.
#[derive(Debug, Default)]
pub(super) struct Absent {
    words: Vec<u64>,
}

impl Absent {
    /// A filter in so many bytes, at least one word.
    pub fn new(bytes: usize) -> Self {
        Self { words: vec![0; (bytes / 8).max(1)] }
    }

    /// Whether it was made.
    pub fn is_made(&self) -> bool {
        !self.words.is_empty()
    }

    /// Which bits stand for a series: word and mask.
    fn places(&self, hash: (u64, u64)) -> impl Iterator<Item = (usize, u64)> + use<> {
        let bits = (self.words.len() as u64).saturating_mul(64).max(1);
        (0..BITS_EACH).map(move |turn| {
            let bit = hash.0.wrapping_add(hash.1.wrapping_mul(turn)) % bits;
            (usize::try_from(bit / 64).unwrap_or(0), 1 << (bit % 64))
        })
    }

    /// Enters a series, if the filter is made.
    pub fn add(&mut self, hash: (u64, u64)) {
        for (at, mask) in self.places(hash) {
            if let Some(word) = self.words.get_mut(at) {
                *word |= mask;
            }
        }
    }

    /// Whether the series was surely never added. An unmade filter is sure of nothing.
    pub fn is_sure(&self, hash: (u64, u64)) -> bool {
        self.places(hash).any(|(at, mask)| self.words.get(at).is_some_and(|word| word & mask == 0))
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use super::*;

    #[test]
    fn what_was_added_is_never_absent_and_most_of_the_rest_is() {
        let (first, second) = (RandomState::new(), RandomState::new());
        let hash = |number: u32| (first.hash_one(number), second.hash_one(number));
        let mut absent = Absent::new(1000);
        (0..1000).for_each(|number| absent.add(hash(number)));
        assert!((0..1000).all(|number| !absent.is_sure(hash(number))));
        let sure = (1000..11_000).filter(|number| absent.is_sure(hash(*number))).count();
        assert!(sure > 9_000, "{sure} of 10000");
        assert!(!Absent::default().is_sure(hash(1)));
    }
}
