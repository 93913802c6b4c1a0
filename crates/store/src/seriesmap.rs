//! In which records one series has points, with time ranges: positions as differences in blocks of
//! [`BLOCK_RECORDS`], about two bytes a record. Knows nothing of files.

const BLOCK_RECORDS: u32 = 64;

#[derive(Debug)]
struct Block {
    first: u64,
    last: u64,
    min_ns: i64,
    max_ns: i64,
    records: u32,
    /// Differences between positions, LEB128.
    steps: Vec<u8>,
}

/// The records of one series, by position.
#[derive(Debug, Default)]
pub(crate) struct SeriesRecords {
    blocks: Vec<Block>,
    points: u64,
}

impl SeriesRecords {
    /// Positions come in ascending order; one that came already only widens the time range. Where rot moved one out of
    /// order it begins a block of its own.
    pub fn push(&mut self, position: u64, min_ns: i64, max_ns: i64, points: u64) {
        self.points += points;
        match self.blocks.last_mut() {
            Some(b) if position == b.last => {
                b.min_ns = b.min_ns.min(min_ns);
                b.max_ns = b.max_ns.max(max_ns);
            }
            Some(b) if position > b.last && b.records < BLOCK_RECORDS => {
                put_step(&mut b.steps, position - b.last);
                b.last = position;
                b.records += 1;
                b.min_ns = b.min_ns.min(min_ns);
                b.max_ns = b.max_ns.max(max_ns);
            }
            _ => {
                if let Some(full) = self.blocks.last_mut() {
                    full.steps.shrink_to_fit();
                }
                let steps = Vec::new();
                self.blocks.push(Block {
                    first: position,
                    last: position,
                    min_ns,
                    max_ns,
                    records: 1,
                    steps,
                });
            }
        }
    }

    /// About how many points stand in `records` of its records.
    pub fn points_in(&self, records: usize) -> u64 {
        let all = self.blocks.iter().map(|block| u64::from(block.records)).sum::<u64>().max(1);
        self.points.div_ceil(all).saturating_mul(records as u64)
    }

    /// Appends the positions of records that may have points within `[start_ns, end_ns]`.
    pub fn within(&self, start_ns: i64, end_ns: i64, out: &mut Vec<u64>) {
        for block in self.blocks.iter().filter(|b| b.min_ns <= end_ns && b.max_ns >= start_ns) {
            out.push(block.first);
            let mut position = block.first;
            let mut steps = block.steps.iter();
            while let Some(step) = take_step(&mut steps) {
                position += step;
                out.push(position);
            }
        }
    }
}

fn put_step(out: &mut Vec<u8>, mut step: u64) {
    while step >= 0x80 {
        out.push(step.to_le_bytes()[0] | 0x80);
        step >>= 7;
    }
    out.push(step.to_le_bytes()[0]);
}

fn take_step(bytes: &mut std::slice::Iter<'_, u8>) -> Option<u64> {
    let mut step = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = bytes.next()?;
        step |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(step);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_record_that_may_hold_a_point_in_the_range_is_found(
            records in prop::collection::vec((1u64..1_000_000, -50i64..50, 0i64..20), 1..300),
            start in -60i64..60, length in 0i64..40,
        ) {
            let mut series = SeriesRecords::default();
            let mut position = 0u64;
            let mut model = Vec::new();
            for (step, min, width) in records {
                position += step;
                series.push(position, min, min + width, 1);
                model.push((position, min, min + width));
            }
            let mut found = Vec::new();
            series.within(start, start + length, &mut found);
            for (position, min, max) in &model {
                if *min <= start + length && *max >= start {
                    prop_assert!(found.contains(position));
                }
            }
            prop_assert!(found.iter().all(|p| model.iter().any(|(q, _, _)| p == q)));
            let mut all = Vec::new();
            series.within(i64::MIN, i64::MAX, &mut all);
            prop_assert_eq!(all, model.iter().map(|(p, _, _)| *p).collect::<Vec<_>>());
        }
    }
}
