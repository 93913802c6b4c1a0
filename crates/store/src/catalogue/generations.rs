//! A bounded cache in two generations: what is used moves to the young one, and when that is full the old one goes. No list to
//! keep in order, and a use costs one look-up.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};

/// A bounded cache.
#[derive(Debug)]
pub(super) struct Generations<K, V, S> {
    young: HashMap<K, (V, usize), S>,
    old: HashMap<K, (V, usize), S>,
    young_weight: usize,
    generation_weight_max: usize,
    /// Whether anything was ever let go.
    forgot: bool,
}

impl<K: Eq + Hash, V: Clone, S: BuildHasher + Default> Generations<K, V, S> {
    pub fn new(weight_max: usize) -> Self {
        Self {
            young: HashMap::default(),
            old: HashMap::default(),
            young_weight: 0,
            generation_weight_max: weight_max / 2,
            forgot: false,
        }
    }

    pub fn weight_max(&self) -> usize {
        self.generation_weight_max
    }

    pub fn forgot(&self) -> bool {
        self.forgot
    }

    pub fn get(&mut self, key: &K) -> Option<V> {
        if let Some((value, _)) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, (value, weight)) = self.old.remove_entry(key)?;
        self.put(key, value.clone(), weight);
        Some(value)
    }

    pub fn put(&mut self, key: K, value: V, weight: usize) {
        if self.young_weight.saturating_add(weight) > self.generation_weight_max {
            self.forgot |= !self.old.is_empty();
            self.old = std::mem::take(&mut self.young);
            self.young_weight = 0;
        }
        if weight > self.generation_weight_max {
            self.forgot = true;
            return;
        }
        let replaced = self.young.insert(key, (value, weight)).map_or(0, |(_, weight)| weight);
        self.young_weight = self.young_weight.saturating_add(weight).saturating_sub(replaced);
    }

    pub fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
        self.young_weight = 0;
        self.forgot = false;
    }
}

#[cfg(test)]
mod tests {
    use std::hash::RandomState;

    use super::*;

    #[test]
    fn what_is_used_stays_and_what_is_not_goes() {
        let mut cache = Generations::<u32, u32, RandomState>::new(20);
        for number in 0..1000 {
            cache.put(number, number, 1);
            assert_eq!(cache.get(&7), (number >= 7).then_some(7), "{number}");
        }
        assert!(cache.get(&500).is_none() && cache.forgot());
        assert!((0..1000).filter(|n| cache.get(n).is_some()).count() <= 20);
        cache.put(2000, 1, 11);
        assert!(cache.get(&2000).is_none());
        cache.clear();
        assert!(cache.get(&7).is_none() && !cache.forgot());
    }
}
