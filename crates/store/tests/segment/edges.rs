//! Sizes at which something begins anew: pages, chunks, blocks, checkpoints; and orders that are the worst there are.

use std::ops::ControlFlow;

use tidelog_record::{BodyHead, ChainHash, Lsn, Series, Value, Values};
use tidelog_store::segment::{SealError, seal};

use crate::field::{Entries, canonical_body, merged, open, sealed, span_of};

fn head(record: i64) -> BodyHead {
    BodyHead { authored_ms: record, origin: None, relay: None }
}

fn series(number: usize) -> Series {
    Series::new("m", [("device", format!("d{number}"))]).unwrap()
}

fn bodies(entries: impl IntoIterator<Item = Entries>) -> Vec<Vec<u8>> {
    (0i64..).zip(entries).map(|(record, entries)| canonical_body(head(record), &entries)).collect()
}

/// Seals, verifies, merges from halves, and gives the segment's points of series 0.
fn check(bodies: &[Vec<u8>]) -> (Vec<i64>, Values) {
    let span = span_of(bodies, 0, Lsn(1), ChainHash([3; 16]));
    let (outcome, file) = sealed(&span, bodies);
    let segment = open(file);
    segment.verify(Some(outcome.hash), &mut |_| ControlFlow::Continue(())).unwrap();
    if bodies.len() > 1 {
        let (first, second) = bodies.split_at(bodies.len() / 2);
        let mut both = span;
        both.parts = 2;
        assert!(merged(&[first.to_vec(), second.to_vec()], Lsn(1)).1 == sealed(&both, bodies).1);
    }
    let (mut times, mut values) = (Vec::new(), Values::default());
    if let Some(at) = segment.find(&series(0).canonical()).unwrap() {
        segment.read(at, 0..usize::MAX, &mut times, &mut values).unwrap();
    }
    (times, values)
}

#[test]
fn many_points_of_one_time_are_one_point_and_all_records_come_back() {
    let number = |record: i64, step: i64| (record * 7_919 + step * 31) % 10_007;
    let bodies = bodies((0..30).map(|record| {
        vec![(series(0), (0..1_000).map(|step| (5, Value::I64(number(record, step)))).collect())]
    }));
    let greatest = (0..30).flat_map(|record| (0..1_000).map(move |step| number(record, step))).max();
    assert_eq!(check(&bodies), (vec![5], Values::I64(greatest.into_iter().collect())));
}

#[test]
fn points_that_arrive_last_first_are_put_in_order() {
    const POINTS: i64 = 40_000;
    let bodies = bodies((0..40).map(|record| {
        let time = |step: i64| (POINTS - record * 1_000 - step) * 1_000_000_000;
        vec![(series(0), (0..1_000).map(|step| (time(step), Value::F64(time(step) as f64 / 1e10))).collect())]
    }));
    let (times, values) = check(&bodies);
    assert!(times.iter().copied().eq((1..=POINTS).map(|step| step * 1_000_000_000)));
    assert_eq!(values.get(0), Some(Value::F64(0.1)));
}

#[test]
fn thousands_of_series_are_found_across_pages() {
    let entries: Entries =
        (0..3_000).map(|number| (series(number), vec![(7, Value::Bool(number % 3 == 0))])).collect();
    let bodies = bodies([entries.clone(), entries]);
    check(&bodies);
    let segment = open(sealed(&span_of(&bodies, 0, Lsn(1), ChainHash::GENESIS), &bodies).1);
    for number in (0..3_000).step_by(7) {
        let at = segment.find(&series(number).canonical()).unwrap().unwrap();
        assert_eq!(segment.whole(at).unwrap().unwrap().last, Value::Bool(number % 3 == 0));
    }
    assert_eq!(segment.find(&series(3_000).canonical()).unwrap(), None);
}

#[test]
fn records_are_read_from_anywhere_across_checkpoints() {
    let bodies = bodies((0..2_500).map(|record| vec![(series(0), vec![(record, Value::I64(record % 5))])]));
    check(&bodies);
    let span = span_of(&bodies, 0, Lsn(700), ChainHash::GENESIS);
    let segment = open(sealed(&span, &bodies).1);
    let key = span.stream.key();
    let mut chain = ChainHash::GENESIS;
    let chains: Vec<ChainHash> = (700..)
        .zip(&bodies)
        .map(|(lsn, body)| {
            chain = chain.after(&key, Lsn(lsn), body);
            chain
        })
        .collect();
    for index in [2_499usize, 0, 1_000, 323, 324, 325, 1_347, 1_348, 1_349, 17, 2_000, 2_001] {
        let lsn = Lsn(700 + index as u64);
        assert_eq!(segment.chain_at(lsn).unwrap(), chains[index], "{lsn}");
        let records = segment.records(Lsn(lsn.0 - 1), 40).unwrap();
        assert_eq!(
            (records[0].lsn, &records[0].body, records[0].chain),
            (lsn, &bodies[index], chains[index])
        );
    }
    assert_eq!(segment.chain_at(Lsn(699)).unwrap(), ChainHash::GENESIS);
    assert!(segment.chain_at(Lsn(698)).is_err() && segment.chain_at(Lsn(3_200)).is_err());
}

#[test]
fn long_texts_and_whole_bodies_come_back() {
    let text = |record: i64, length: usize| {
        Value::Text(char::from(u8::try_from(97 + record % 20).unwrap()).to_string().repeat(length))
    };
    let mut bodies = bodies((0..12).map(|record| {
        vec![(series(0), vec![(record, text(record, 30_000)), (record + 1_000, text(record + 1, 9))])]
    }));
    let unknown = |byte: u8| [vec![250], vec![byte; 200_000]].concat();
    (0..6).for_each(|byte| bodies.insert(usize::from(byte) * 2, unknown(byte)));
    let (times, values) = check(&bodies);
    assert_eq!((times.len(), values.len()), (24, 24));
    assert_eq!(values.get(2), Some(text(2, 30_000)));
}

#[test]
fn a_body_that_is_spelled_otherwise_is_kept_and_its_points_are_read() {
    let canonical = canonical_body(
        head(5),
        &vec![(series(0), vec![(1_000, Value::I64(4))]), (series(0), vec![(2_000, Value::I64(5))])],
    );
    let spelled = crate::field::respelled(&canonical).unwrap();
    assert_ne!(spelled, canonical);
    assert_eq!(check(&[spelled.clone(), canonical, spelled]), (vec![1_000, 2_000], Values::I64(vec![4, 5])));
}

#[test]
fn bodies_that_are_not_those_of_the_span_are_refused() {
    let bodies = bodies((0..3).map(|record| vec![(series(0), vec![(record, Value::I64(1))])]));
    let span = span_of(&bodies, 0, Lsn(1), ChainHash::GENESIS);
    let refused = |bodies: &[Vec<u8>]| {
        let mut next = bodies.iter().cloned();
        matches!(seal(&span, &mut || Ok(next.next()), &mut |_| Ok(())), Err(SealError::Span(_)))
    };
    let mut other = bodies.clone();
    other[1].push(0);
    assert!(refused(&bodies[..2]) && refused(&[&bodies[..], &bodies[..1]].concat()) && refused(&other));
    assert!(!refused(&bodies));
}

#[test]
fn what_is_sent_twice_is_one_point_each_and_comes_back_twice() {
    let entry = |record: i64| -> Entries {
        let value = |step: i64| match record % 3 {
            0 => Value::F64((record * 7 + step) as f64 / 100.0),
            1 => Value::F64((record + step) as f64 / 7.0),
            _ => Value::I64(i64::MAX - step),
        };
        let number = usize::try_from(record % 3).unwrap();
        vec![(
            series(number),
            (0..50).map(|step| ((record * 50 + step) * 9_000_000_000, value(step))).collect(),
        )]
    };
    let all: Vec<Entries> =
        (0..60).map(entry).chain((20..60).map(entry)).chain((50..60).map(entry)).collect();
    let (times, values) = check(&bodies(all));
    let points: Vec<(i64, Value)> =
        (0..60).step_by(3).flat_map(|record| entry(record)[0].1.clone()).collect();
    assert!(times.iter().eq(points.iter().map(|(time, _)| time)));
    assert!((0..).zip(&points).all(|(index, (_, value))| values.get(index).as_ref() == Some(value)));
}
