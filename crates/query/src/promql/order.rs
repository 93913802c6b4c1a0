//! Order by value, which only an instant query shows: `sort` and `sort_desc`, and the choice of the greatest or least few.

use std::cmp::Ordering;

use super::column::Column;

/// The columns in order of their value at the first step; what is no number stands last.
pub(super) fn sorted(mut columns: Vec<Column>, descending: bool) -> Vec<Column> {
    let key = |column: &Column| column.at(0).unwrap_or(f64::NAN);
    columns.sort_by(|a, b| by_value(key(a), key(b), descending));
    columns
}

/// What is no number comes last in either direction.
fn by_value(a: f64, b: f64, descending: bool) -> Ordering {
    let order = a.partial_cmp(&b).unwrap_or(Ordering::Equal);
    a.is_nan().cmp(&b.is_nan()).then(if descending { order.reverse() } else { order })
}

/// The `count` greatest (or least) of some values: a binary heap with the worst at its root. Which of several equal ones
/// stay follows from the heap's form, which is that of Go's `container/heap`, so that it is the same as in Prometheus.
pub(super) struct Best {
    count: usize,
    greatest: bool,
    heap: Vec<(f64, usize)>,
}

impl Best {
    pub fn new(count: usize, greatest: bool) -> Self {
        Self { count, greatest, heap: Vec::new() }
    }

    /// Whether `a` goes before `b`: it is worse.
    fn worse(&self, a: f64, b: f64) -> bool {
        a.is_nan() || if self.greatest { a < b } else { a > b }
    }

    pub fn offer(&mut self, value: f64, of: usize) {
        if self.count == 0 {
            return;
        }
        if self.heap.len() == self.count {
            let Some(root) = self.heap.first_mut() else { return };
            if !(root.0.is_nan() || if self.greatest { root.0 < value } else { root.0 > value }) {
                return;
            }
            if self.count == 1 {
                *root = (value, of);
                return;
            }
            self.heap.swap_remove(0);
            self.down();
        }
        self.heap.push((value, of));
        self.up(self.heap.len() - 1);
    }

    fn less(&self, a: usize, b: usize) -> bool {
        matches!((self.heap.get(a), self.heap.get(b)), (Some(a), Some(b)) if self.worse(a.0, b.0))
    }

    fn up(&mut self, mut at: usize) {
        while at > 0 {
            let parent = (at - 1) / 2;
            if !self.less(at, parent) {
                break;
            }
            self.heap.swap(at, parent);
            at = parent;
        }
    }

    fn down(&mut self) {
        let mut at = 0;
        loop {
            let left = 2 * at + 1;
            if left >= self.heap.len() {
                break;
            }
            let child = if self.less(left + 1, left) { left + 1 } else { left };
            if !self.less(child, at) {
                break;
            }
            self.heap.swap(at, child);
            at = child;
        }
    }

    /// Value and origin, the best first.
    pub fn finish(self) -> Vec<(f64, usize)> {
        let mut found = self.heap;
        found.sort_by(|a, b| by_value(a.0, b.0, self.greatest));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_best_are_the_first_of_all_in_order(
            values in prop::collection::vec(prop_oneof![4 => -9i32..9, 1 => Just(100)], 0..30),
            count in 0usize..8, greatest: bool,
        ) {
            let value = |v: &i32| if *v == 100 { f64::NAN } else { f64::from(*v) };
            let mut best = Best::new(count, greatest);
            for (of, v) in values.iter().enumerate() {
                best.offer(value(v), of);
            }
            let found: Vec<String> = best.finish().iter().map(|(value, _)| value.to_string()).collect();
            let mut all: Vec<f64> = values.iter().map(value).collect();
            all.sort_by(|a, b| by_value(*a, *b, greatest));
            let expected: Vec<String> = all.iter().take(count).map(ToString::to_string).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
