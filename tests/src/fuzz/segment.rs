//! Sealed segments: whatever bodies are sealed come out again byte for byte. (What decoders make of forged blocks is tested beside
//! them, in the store, where a checksum can be put right.)

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use tidelog_record::{Body, ChainHash, Lsn, NodeId, Run, StreamId, Value, Values};
use tidelog_sim::disk::SimDisk;
use tidelog_store::segment::{Cache, Segment, Span, merge, merged_span, seal};
use tidelog_store::{Disk, OpenMode};

const CACHE_BYTES: usize = 1 << 20;
const FILE: &str = "/segment";

fn listed(bodies: &[Vec<u8>]) -> Vec<u8> {
    let one = |body: &Vec<u8>| [&u16::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat();
    bodies.iter().flat_map(one).collect()
}

pub(super) fn segment_seeds() -> Vec<Vec<u8>> {
    let bodies = super::record::body_seeds();
    let more = [bodies.clone(), bodies.clone()].concat();
    vec![listed(&bodies), listed(&more), listed(&[vec![], vec![0], vec![1, 2, 3]])]
}

/// The bodies in an input, each with its length before it.
fn bodies_of(mut input: &[u8]) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    while let Some((length, rest)) = input.split_first_chunk::<2>() {
        let (body, rest) = rest.split_at(rest.len().min(usize::from(u16::from_be_bytes(*length))));
        bodies.push(body.to_vec());
        input = rest;
    }
    bodies
}

fn opened(bytes: &[u8]) -> Result<Segment, tidelog_store::segment::SegmentError> {
    let disk = SimDisk::default();
    disk.put(Path::new(FILE), bytes);
    let file = disk.open(Path::new(FILE), OpenMode::Read).expect("it was put there");
    Segment::open(file, Arc::new(Cache::new(CACHE_BYTES)))
}

/// Seals bodies as records from `first` on; the file, and the chain hash after them. `None` when they are refused.
fn sealed(first: Lsn, ordinal: u64, before: ChainHash, bodies: &[Vec<u8>]) -> Option<(Vec<u8>, ChainHash)> {
    let stream = StreamId { site: "s".parse().expect("a name"), node: NodeId([1; 16]), run: Run(1) };
    let (key, mut after) = (stream.key(), before);
    for (lsn, body) in (first.0..).zip(bodies) {
        after = after.after(&key, Lsn(lsn), body);
    }
    let last = Lsn(first.0 + bodies.len() as u64 - 1);
    let span = Span { stream, ordinal, parts: 1, first, last, before, after };
    let (mut file, mut left) = (Vec::new(), bodies.iter().cloned());
    let made = seal(&span, &mut || Ok(left.next()), &mut |bytes| {
        file.extend_from_slice(bytes);
        Ok(())
    });
    made.ok().map(|_| (file, after))
}

/// Records come out as they were sealed; points are those that a reader of the bodies finds; two halves merged are the whole; and a
/// file that is changed at a place that the input names is found or harmless.
pub(super) fn segment(input: &[u8]) {
    let bodies = bodies_of(input);
    if bodies.is_empty() {
        return;
    }
    let Some((file, _)) = sealed(Lsn(1), 0, ChainHash::GENESIS, &bodies) else { return };
    let segment = opened(&file).expect("what was sealed opens");
    segment.verify(None, &mut |_| ControlFlow::Continue(())).expect("what was sealed is good");
    assert_eq!(records(&segment), bodies);
    assert_eq!(points(&segment), expected(&bodies));

    let (one, two) = bodies.split_at(bodies.len() / 2);
    if !one.is_empty() {
        let (first, after) = sealed(Lsn(1), 0, ChainHash::GENESIS, one).expect("a part of what was sealed");
        let (second, _) =
            sealed(Lsn(1 + one.len() as u64), 1, after, two).expect("a part of what was sealed");
        let parts = [first, second].map(|file| Arc::new(opened(&file).expect("what was sealed opens")));
        // The whole of two parts calls itself so, which what was sealed at once does not: contents are compared.
        let mut merged = Vec::new();
        merged_span(&parts).expect("parts that follow each other");
        let outcome = merge(&parts, &mut |bytes| {
            merged.extend_from_slice(bytes);
            Ok(())
        });
        outcome.expect("parts that follow each other");
        let merged = opened(&merged).expect("what was merged opens");
        assert_eq!(records(&merged), bodies);
        assert_eq!(points(&merged), points(&segment));
    }

    let mut changed = file.clone();
    let at = input.iter().fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    if let Some(byte) = changed.get_mut(at % file.len()) {
        *byte ^= 1 << (at % 8);
    }
    if let Ok(rotten) = opened(&changed) {
        let verdict = rotten.verify(None, &mut |_| ControlFlow::Continue(()));
        assert!(verdict.is_err(), "a flipped bit at {} of {} is not found", at % file.len(), file.len());
    }
}

fn records(segment: &Segment) -> Vec<Vec<u8>> {
    let (mut bodies, mut after) = (Vec::new(), Lsn(segment.span().first.0 - 1));
    loop {
        let records = segment.records(after, 1_000).expect("what was sealed is readable");
        let Some(last) = records.last() else { return bodies };
        after = last.lsn;
        bodies.extend(records.into_iter().map(|record| record.body));
    }
}

type Points = BTreeMap<Vec<u8>, BTreeMap<i64, Value>>;

fn points(segment: &Segment) -> Points {
    let mut names = Vec::new();
    segment.each_series(|name, series, _| names.push((name.to_vec(), series))).expect("readable");
    let mut all = Points::new();
    for (name, series) in names {
        let count = segment.sections(series).expect("readable").len();
        let (mut times, mut values) = (Vec::new(), Values::default());
        segment.read(series, 0..count, &mut times, &mut values).expect("readable");
        assert!(times.is_sorted_by(|a, b| a < b));
        let of = times
            .iter()
            .enumerate()
            .map(|(at, time)| (*time, values.get(at).expect("a value for each time")));
        all.insert(name, of.collect());
    }
    all
}

fn expected(bodies: &[Vec<u8>]) -> Points {
    let mut all = Points::new();
    for body in bodies {
        let Ok(Body::Points(batch)) = Body::decode(body) else { continue };
        for (series, points) in batch.series {
            for (time, value) in points {
                let of = all.entry(series.canonical()).or_default();
                let held = of.entry(time).or_insert_with(|| value.clone());
                if value > *held {
                    *held = value;
                }
            }
        }
    }
    all
}
