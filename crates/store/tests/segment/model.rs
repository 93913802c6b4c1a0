//! A map as judge: what it holds is what a segment gives.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use proptest::prelude::*;
use tidelog_record::{ChainHash, Lsn, Series, Value, Values, decimal_of};
use tidelog_store::segment::Segment;

use crate::field::{Entries, body, merged, open, sealed, span_of};

type Model = BTreeMap<Series, BTreeMap<i64, Value>>;

fn model<'e>(bodies: impl IntoIterator<Item = &'e Entries>) -> Model {
    let mut all = Model::new();
    for (series, points) in bodies.into_iter().flatten() {
        let held = all.entry(series.clone()).or_default();
        for (time, value) in points {
            let slot = held.entry(*time).or_insert_with(|| value.clone());
            if *value > *slot {
                *slot = value.clone();
            }
        }
    }
    all.retain(|_, points| !points.is_empty());
    all
}

fn exact(values: &[&Value]) -> Option<i128> {
    values.iter().try_fold(0i128, |sum, value| match value {
        Value::I64(number) => Some(sum + i128::from(*number) * 1_000_000_000),
        Value::F64(number) => {
            let (number, digits) = decimal_of(*number)?;
            Some(sum + i128::from(number) * 10i128.pow(9 - u32::from(digits)))
        }
        _ => None,
    })
}

/// Everything that a segment says about points, against the model.
fn check(segment: &Segment, model: &Model) {
    let mut visited = Vec::new();
    segment
        .each_series(|canonical, at, whole| {
            let series = Series::from_canonical(canonical).unwrap();
            assert_eq!(segment.find(canonical).unwrap(), Some(at));
            visited.push((series, at, whole.clone()));
        })
        .unwrap();
    assert!(visited.iter().map(|(series, ..)| series).eq(model.keys()), "in canonical order, each once");
    let names: Vec<Arc<Series>> = model.keys().map(|series| Arc::new(series.clone())).collect();
    let found = segment.find_many(&names).unwrap();
    for ((series, at, whole), found) in visited.into_iter().zip(found) {
        assert_eq!(found, Some(at));
        let points = &model[&series];
        let (mut times, mut values) = (Vec::new(), Values::default());
        segment.read(at, 0..usize::MAX, &mut times, &mut values).unwrap();
        assert!(times.iter().eq(points.keys()), "{series}");
        for (index, value) in points.values().enumerate() {
            assert_eq!(values.get(index).as_ref(), Some(value), "{series}");
        }
        assert_eq!(whole.count, points.len() as u64);
        assert_eq!(
            (Some(&whole.first_ts), Some(&whole.last_ts)),
            (points.keys().next(), points.keys().next_back())
        );
        assert_eq!(Some(&whole.last), points.values().next_back());
        let sections = segment.sections(at).unwrap();
        let mut before = None;
        for (index, section) in sections.iter().enumerate() {
            assert!(before < Some(section.first_ts), "sections ascend");
            before = Some(section.last_ts);
            let part: Vec<&Value> =
                points.range(section.first_ts..=section.last_ts).map(|(_, value)| value).collect();
            assert_eq!(section.count, part.len() as u64);
            let (mut times, mut values) = (Vec::new(), Values::default());
            segment.read(at, index..index + 1, &mut times, &mut values).unwrap();
            assert_eq!(times.len(), part.len());
            if let Some(stats) = &section.stats {
                assert_eq!((&stats.first, &stats.last), (part[0], part[part.len() - 1]));
                assert_eq!(Some(&&stats.min), part.iter().min());
                assert_eq!(Some(&&stats.max), part.iter().max());
                if let Some(sum) = stats.sum {
                    assert_eq!(Some(sum), exact(&part));
                }
            }
        }
        assert_eq!(sections.iter().map(|section| section.count).sum::<u64>(), whole.count);
    }
    let stranger = Series::new("stranger", [("a", "b")]).unwrap();
    assert_eq!(segment.find(&stranger.canonical()).unwrap(), None);
}

/// Everything that a segment says about records.
fn check_records(segment: &Segment, bodies: &[Vec<u8>], slice_bytes: usize) {
    let span = segment.span().clone();
    let key = span.stream.key();
    let mut after = Lsn(span.first.0 - 1);
    let mut chain = span.before;
    let mut left = bodies.iter();
    loop {
        let records = segment.records(after, slice_bytes).unwrap();
        for record in &records {
            assert_eq!(Some(&record.body), left.next(), "record {}", record.lsn);
            assert!(record.follows(chain));
            assert_eq!((record.lsn, &record.stream), (after.next().unwrap(), &span.stream));
            (after, chain) = (record.lsn, record.chain);
        }
        if records.is_empty() {
            break;
        }
    }
    assert_eq!((left.next(), after, chain), (None, span.last, span.after));
    assert_eq!(chain, key_chain(&span.before, &key, span.first, bodies));
}

fn key_chain(
    before: &ChainHash,
    key: &tidelog_record::StreamKey,
    first: Lsn,
    bodies: &[Vec<u8>],
) -> ChainHash {
    (first.0..).zip(bodies).fold(*before, |chain, (lsn, body)| chain.after(key, Lsn(lsn), body))
}

proptest! {
    #[test]
    fn a_segment_says_what_a_map_says_and_gives_every_record_back(
        bodies in prop::collection::vec(body(), 1..24), first in 1u64..3_000, slice in 1usize..3_000,
    ) {
        let (bytes, entries): (Vec<_>, Vec<_>) = bodies.into_iter().unzip();
        let span = span_of(&bytes, 4, Lsn(first), ChainHash([9; 16]));
        let (outcome, file) = sealed(&span, &bytes);
        prop_assert_eq!(outcome.bytes, file.len() as u64);
        let segment = open(file);
        prop_assert_eq!(segment.span(), &span);
        prop_assert_eq!(segment.points(), entries.iter().flatten().map(|(_, points)| points.len() as u64).sum::<u64>());
        check(&segment, &model(&entries));
        check_records(&segment, &bytes, slice);
        segment.verify(Some(outcome.hash), &mut |_| ControlFlow::Continue(())).unwrap();
        let tail: Vec<_> = (first..).zip(&bytes).collect();
        for (lsn, body) in tail.into_iter().rev().take(3) {
            let records = segment.records(Lsn(lsn - 1), 1).unwrap();
            prop_assert_eq!(&records[0].body, body, "read alone");
            prop_assert_eq!(segment.chain_at(Lsn(lsn)).unwrap(), records[0].chain);
        }
        prop_assert!(segment.records(span.last, 1).unwrap().is_empty());
        prop_assert!(segment.records(Lsn(span.last.0 + 1), 1).is_err());
    }

    #[test]
    fn merging_gives_the_bytes_of_sealing_all_at_once(
        parts in prop::collection::vec(prop::collection::vec(body(), 1..9), 1..6), first in 1_000u64..1_040,
    ) {
        let parts: Vec<Vec<Vec<u8>>> =
            parts.into_iter().map(|part| part.into_iter().map(|(bytes, _)| bytes).collect()).collect();
        let (outcome, file) = merged(&parts, Lsn(first));
        let all = parts.concat();
        let mut span = span_of(&all, 0, Lsn(first), ChainHash([3; 16]));
        span.parts = u32::try_from(parts.len()).unwrap();
        let (at_once, file_at_once) = sealed(&span, &all);
        prop_assert_eq!(&outcome, &at_once);
        prop_assert!(file == file_at_once);
        check_records(&open(file), &all, 700);
    }
}
