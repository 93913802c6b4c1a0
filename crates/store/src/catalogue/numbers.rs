//! Sets of series numbers as sorted ranges: what a label's posting list is, in memory and on disk. Series stand in canonical
//! order, so those of one metric are one range. Knows no labels.

use super::varint::{put, take};

/// A set of numbers: half-open ranges, ascending, apart from each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers(Vec<(u32, u32)>);

impl Numbers {
    /// All numbers below `count`.
    pub fn below(count: u32) -> Self {
        Self(if count == 0 { Vec::new() } else { vec![(0, count)] })
    }

    /// The numbers in any order, repeats included.
    pub fn of(mut numbers: Vec<u32>) -> Self {
        numbers.sort_unstable();
        let mut set = Self::default();
        for number in numbers {
            set.push(number, number.saturating_add(1));
        }
        set
    }

    /// Adds a range that begins at or behind the last that was added.
    pub fn push(&mut self, start: u32, end: u32) {
        match self.0.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => self.0.push((start, end)),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> u64 {
        self.0.iter().map(|(start, end)| u64::from(end - start)).sum()
    }

    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.0.iter().flat_map(|(start, end)| *start..*end)
    }

    pub fn and(&self, other: &Self) -> Self {
        let mut out = Self::default();
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
            let (start, end) = (a.0.max(b.0), a.1.min(b.1));
            if start < end {
                out.push(start, end);
            }
            let behind = if a.1 <= b.1 { &mut left } else { &mut right };
            behind.next();
        }
        out
    }

    /// Ranges in any order, overlapping perhaps.
    pub fn of_ranges(mut ranges: Vec<(u32, u32)>) -> Self {
        ranges.sort_unstable();
        let mut out = Self::default();
        for (start, end) in ranges {
            out.push(start, end);
        }
        out
    }

    /// What of the numbers below `count` is not in it.
    pub fn not(&self, count: u32) -> Self {
        let mut out = Self::default();
        let mut from = 0;
        for (start, end) in &self.0 {
            if from < *start {
                out.push(from, *start);
            }
            from = *end;
        }
        if from < count {
            out.push(from, count);
        }
        out
    }

    /// Pieces of at most so many ranges, each with its first number.
    pub fn pieces(&self, ranges_max: usize) -> impl Iterator<Item = (u32, Self)> {
        self.0.chunks(ranges_max.max(1)).filter_map(|piece| Some((piece.first()?.0, Self(piece.to_vec()))))
    }

    /// `{ gap × 2 + more | [ length - 2 ] }`, where a range longer than one says `more`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut from = 0;
        for (start, end) in &self.0 {
            let (gap, length) = (u64::from(start - from), u64::from(end - start));
            put(&mut out, gap << 1 | u64::from(length > 1));
            if length > 1 {
                put(&mut out, length - 2);
            }
            from = *end;
        }
        out
    }
}

/// Appends the ranges of encoded numbers, which ascend; none when the bytes are no such numbers.
pub(super) fn read_ranges(mut bytes: &[u8], out: &mut Vec<(u32, u32)>) -> Option<()> {
    let mut from = 0u64;
    while !bytes.is_empty() {
        let head = take(&mut bytes)?;
        let length = if head & 1 == 1 { take(&mut bytes)?.checked_add(2)? } else { 1 };
        let start = from.checked_add(head >> 1)?;
        from = start.checked_add(length)?;
        out.push((u32::try_from(start).ok()?, u32::try_from(from).ok()?));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set(numbers: &BTreeSet<u32>) -> Numbers {
        Numbers::of(numbers.iter().copied().collect())
    }

    proptest! {
        #[test]
        fn sets_are_what_a_tree_of_numbers_is(
            a in prop::collection::btree_set(0u32..60, 0..40), b in prop::collection::btree_set(0u32..60, 0..40),
        ) {
            let (x, y) = (set(&a), set(&b));
            prop_assert_eq!(x.and(&y), set(&a.intersection(&b).copied().collect()));
            prop_assert_eq!(x.not(60), set(&(0..60).filter(|n| !a.contains(n)).collect()));
            let both = x.0.iter().chain(&y.0).copied().collect();
            prop_assert_eq!(Numbers::of_ranges(both), set(&a.union(&b).copied().collect()));
            prop_assert_eq!(x.len(), a.len() as u64);
            prop_assert!(x.iter().eq(a.iter().copied()));
            let mut read = Vec::new();
            for (first, piece) in x.pieces(3) {
                prop_assert_eq!(piece.iter().next(), Some(first));
                prop_assert_eq!(read_ranges(&piece.encode(), &mut read), Some(()));
            }
            prop_assert_eq!(Numbers(read), x);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut read = Vec::new();
            if read_ranges(&bytes, &mut read).is_some() {
                prop_assert!(read.iter().all(|(start, end)| start < end));
            }
        }
    }
}
