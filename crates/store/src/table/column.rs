//! The points of one series that no segment holds, in order of arrival, and questions to them. It knows the range of time of each of its
//! parts, so that it reads only those that a question touches.

use std::ops::RangeInclusive;
use std::sync::Arc;

use tidelog_record::{Entry, Value, Values};

use crate::packed::Packed;
use crate::scan::Points;

/// Points of a column that are read at once.
const PART_POINTS: usize = 512;

/// Points of one series in order of arrival, packed in parts, of which those that a question does not touch are not read.
#[derive(Clone, Debug)]
pub(crate) struct TableColumn {
    /// The series' canonical bytes.
    pub canonical: Arc<[u8]>,
    packed: Packed,
    /// Parts that are full.
    full: Vec<Part>,
    /// The part behind them.
    begin: usize,
    points: usize,
    ends: Ends,
    /// Each time is greater than the one before.
    ascending: bool,
    whole: Ends,
    /// The time of the newest arrival.
    newest: Option<i64>,
}

/// Least and greatest time.
#[derive(Clone, Copy, Debug)]
struct Ends {
    min: i64,
    max: i64,
}

/// [`PART_POINTS`] points.
#[derive(Clone, Copy, Debug)]
struct Part {
    /// Where the next one begins.
    end: usize,
    ends: Ends,
}

impl Ends {
    const NONE: Self = Self { min: i64::MAX, max: i64::MIN };

    fn take(&mut self, time: i64) {
        self.min = self.min.min(time);
        self.max = self.max.max(time);
    }

    fn join(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }

    fn touches(&self, range: &RangeInclusive<i64>) -> bool {
        self.max >= *range.start() && self.min <= *range.end()
    }
}

impl TableColumn {
    pub fn new(canonical: &[u8]) -> Self {
        Self {
            canonical: Arc::from(canonical),
            packed: Packed::default(),
            full: Vec::new(),
            begin: 0,
            points: 0,
            ends: Ends::NONE,
            ascending: true,
            whole: Ends::NONE,
            newest: None,
        }
    }

    /// Bytes on the heap.
    pub fn bytes(&self) -> usize {
        self.packed.bytes() + self.full.capacity() * size_of::<Part>()
    }

    pub fn extend(&mut self, entry: &Entry) {
        let mut at = 0;
        while at < entry.times.len() {
            if self.points == PART_POINTS {
                self.begin = self.packed.restart();
                self.full.push(Part { end: self.begin, ends: self.ends });
                (self.points, self.ends) = (0, Ends::NONE);
            }
            let to = entry.times.len().min(at + PART_POINTS - self.points);
            for time in entry.times.get(at..to).unwrap_or_default() {
                self.ascending &= self.newest.is_none_or(|newest| newest < *time);
                self.newest = Some(*time);
                self.ends.take(*time);
                self.whole.take(*time);
            }
            match entry.digits {
                Some(digits) => self.packed.extend_decimals(&entry.times, (digits, &entry.scaled), at..to),
                None => self.packed.extend(&entry.times, &entry.values, at..to),
            }
            self.points += to - at;
            at = to;
        }
    }

    pub fn len(&self) -> usize {
        self.full.len() * PART_POINTS + self.points
    }

    /// A copy of the parts that may hold points of a range; `None` when none does.
    pub fn copy_within(&self, range: &RangeInclusive<i64>) -> Option<Self> {
        let touches = |part: &Part| part.ends.touches(range);
        let takes_open = self.points > 0 && self.ends.touches(range);
        let first = self.full.iter().position(touches).or_else(|| takes_open.then_some(self.full.len()))?;
        let behind = if takes_open { self.full.len() } else { self.full.iter().rposition(touches)? + 1 };
        let end_of =
            |parts: usize| parts.checked_sub(1).and_then(|last| self.full.get(last)).map_or(0, |p| p.end);
        let (from, to) = (end_of(first), (!takes_open).then(|| end_of(behind)));
        let full = self.full.get(first..behind).unwrap_or_default();
        let full: Vec<Part> =
            full.iter().map(|part| Part { end: part.end - from, ends: part.ends }).collect();
        let (points, ends) = if takes_open { (self.points, self.ends) } else { (0, Ends::NONE) };
        Some(Self {
            canonical: Arc::clone(&self.canonical),
            packed: self.packed.copy(from, to),
            begin: end_of(behind) - from,
            points,
            ends,
            ascending: self.ascending,
            whole: full.iter().map(|part| part.ends).fold(ends, Ends::join),
            newest: self.newest,
            full,
        })
    }

    /// Visits the parts that may hold points of a range: where they begin and end, how many points they have, and of when.
    fn parts_within(
        &self,
        range: &RangeInclusive<i64>,
        mut visit: impl FnMut(usize, Option<usize>, usize, Ends),
    ) {
        let begins = std::iter::once(0).chain(self.full.iter().map(|part| part.end));
        for (begin, part) in begins.zip(&self.full) {
            if part.ends.touches(range) {
                visit(begin, Some(part.end), PART_POINTS, part.ends);
            }
        }
        if self.ends.touches(range) {
            visit(self.begin, None, self.points, self.ends);
        }
    }

    /// The points within `range` in ascending order of time, each time once with its greatest value (invariant 8).
    pub fn within(&self, range: &RangeInclusive<i64>) -> Points {
        let mut found = Points::default();
        let mut count = 0;
        self.parts_within(range, |_, _, points, _| count += points);
        found.times.reserve_exact(count);
        self.parts_within(range, |from, to, _, _| {
            self.packed.each(from, to, |time, cell| {
                if range.contains(&time) {
                    found.times.push(time);
                    cell.push_to(&mut found.values);
                }
            });
        });
        if self.ascending {
            return found;
        }
        let mut points: Vec<(i64, Value)> = found.iter().collect();
        points.sort_unstable_by(|(t, v), (u, w)| t.cmp(u).then_with(|| w.cmp(v)));
        points.dedup_by_key(|(time, _)| *time);
        found.times.clear();
        found.values.clear();
        for (time, value) in points {
            found.times.push(time);
            found.values.push(value);
        }
        found
    }

    /// Puts all points behind others, in order of arrival.
    pub fn unpack(&self, times: &mut Vec<i64>, values: &mut Values) {
        times.reserve(self.len());
        let begins = std::iter::once(0).chain(self.full.iter().map(|part| part.end));
        let ends = self.full.iter().map(|part| Some(part.end)).chain([None]);
        for (from, to) in begins.zip(ends) {
            self.packed.each(from, to, |time, cell| {
                times.push(time);
                cell.push_to(values);
            });
        }
    }

    /// First and last time, ns.
    pub fn ends(&self) -> Option<(i64, i64)> {
        (self.len() > 0).then_some((self.whole.min, self.whole.max))
    }

    /// How many points are within `range`, if that can be told without sorting them.
    pub fn count_within(&self, range: &RangeInclusive<i64>) -> Option<u64> {
        if !self.ascending {
            return None;
        }
        let mut count = 0;
        self.parts_within(range, |from, to, points, ends| {
            if range.contains(&ends.min) && range.contains(&ends.max) {
                count += points as u64;
            } else {
                self.packed.each(from, to, |time, _| count += u64::from(range.contains(&time)));
            }
        });
        Some(count)
    }

    /// The newest point.
    pub fn last(&self) -> Option<(i64, Value)> {
        if let Some(last) = self.packed.last().filter(|_| self.ascending) {
            return Some(last);
        }
        let (mut last, max) = (None, self.whole.max);
        self.parts_within(&(max..=max), |from, to, _, _| {
            self.packed.each(from, to, |time, cell| {
                if time == max {
                    last = last.take().max(Some((time, Value::from(cell))));
                }
            });
        });
        last
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            9 => (-99i64..99).prop_map(|number| Value::F64(number as f64 / 10.0)),
            1 => any::<bool>().prop_map(Value::Bool),
            1 => "[a-z]{0,2}".prop_map(Value::Text),
        ]
    }

    fn plainly(all: &[(i64, Value)], range: &RangeInclusive<i64>) -> Vec<(i64, Value)> {
        let mut found: Vec<_> = all.iter().filter(|(time, _)| range.contains(time)).cloned().collect();
        found.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| b.1.cmp(&a.1)));
        found.dedup_by_key(|(time, _)| *time);
        found
    }

    proptest! {
        #[test]
        fn a_column_answers_as_a_list_would(
            steps in prop::collection::vec((1i64..9, value()), 1..120), again in 1usize..12, at_once in 1usize..90,
            late in prop_oneof![Just(None), (0usize..1_400, -2_000i64..1).prop_map(Some)],
            ends in prop::collection::vec((-50i64..6_000, -50i64..6_000), 9), first in prop_oneof![Just(0i64), Just(i64::MIN)],
        ) {
            let (mut time, mut all) = (first, Vec::new());
            for (step, value) in steps.iter().cycle().take(steps.len() * again) {
                all.push((time, value.clone()));
                time = time.saturating_add(*step);
            }
            if let Some((at, by)) = late
                && let Some((time, _)) = all.get_mut(at)
            {
                *time = time.saturating_add(by);
            }
            let mut column = TableColumn::new(b"x");
            for part in all.chunks(at_once) {
                let mut entry = Entry::default();
                for (time, value) in part {
                    entry.times.push(*time);
                    entry.values.push(value.clone());
                }
                column.extend(&entry);
            }
            let whole = i64::MIN..=i64::MAX;
            let is_ascending = all.windows(2).all(|pair| pair[0].0 < pair[1].0);
            for range in ends.iter().map(|(from, to)| first.saturating_add(*from)..=first.saturating_add(*to)).chain([whole.clone()]) {
                let expected = plainly(&all, &range);
                prop_assert_eq!(column.count_within(&range), is_ascending.then_some(expected.len() as u64));
                let copy = column.copy_within(&range);
                let of_copy = copy.as_ref().map(|copy| copy.within(&range)).unwrap_or_default();
                prop_assert_eq!(of_copy.iter().collect::<Vec<_>>(), expected.as_slice());
                if let (Some(copy), Some(first), Some(last)) = (&copy, expected.first(), expected.last()) {
                    let (begin, end) = copy.ends().unwrap();
                    prop_assert!(begin <= first.0 && end >= last.0 && copy.len() <= column.len());
                }
                prop_assert_eq!(column.within(&range).iter().collect::<Vec<_>>(), expected);
            }
            let expected = plainly(&all, &whole);
            prop_assert_eq!(column.last(), expected.last().cloned());
            let ends = expected.first().zip(expected.last());
            prop_assert_eq!(column.ends(), ends.map(|(first, last)| (first.0, last.0)));
        }
    }
}
