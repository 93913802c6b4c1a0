//! What the store does by itself: it seals, follows other authors' seals, merges, trims, drops by policy and sets rot apart, and no
//! answer changes by it but where policy says so.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tidelog_record::{Batch, Lsn, Record, Run, Seal, Series, SiteName, StreamId, Value, Values};
use tidelog_store::aggregate::{Accumulator, Function, Steps};
use tidelog_store::segment::{self, Span};
use tidelog_store::{AppendError, Position, ReadError, ScanError, StateIn, Store, StoreOptions, at_hand};

use crate::model::{Author, Model, NODE, body, few, judge_answers, open, random_body, seconds, site, small};
use crate::sim_disk::SimDisk;
use crate::verify::checked;

pub fn work(store: &Store, model: &mut Model, rng: &mut StdRng, numbers: std::ops::Range<i64>) {
    for number in numbers {
        model.append(store, &site(), random_body(rng, number)).expect("a whole disk takes a record");
        if number % 7 == 0 {
            store.upkeep(Instant::now()).unwrap();
        }
    }
    store.upkeep(Instant::now()).unwrap();
}

pub fn files(disk: &SimDisk, suffix: &str) -> Vec<PathBuf> {
    disk.files().into_iter().filter(|path| path.extension().is_some_and(|found| found == suffix)).collect()
}

/// All records of a store's own stream.
pub fn own(store: &Store) -> Vec<Record> {
    let stream = StreamId { site: site(), node: store.node(), run: store.run() };
    store.read(&stream, Lsn::ZERO, usize::MAX).unwrap()
}

#[test]
fn sealing_merging_and_trimming_change_no_answer() {
    let (disk, mut model, mut rng) = (SimDisk::default(), Model::default(), StdRng::seed_from_u64(3));
    let (store, _) = open(&disk, small(3));
    work(&store, &mut model, &mut rng, 0..300);
    let stats = store.stats();
    assert!(stats.segments_sealed > 10 && stats.segments_merged > 3 && stats.files_trimmed > 3, "{stats:?}");
    assert!(
        stats.segments < stats.segments_sealed / 2,
        "merged ones take the place of their parts: {stats:?}"
    );
    assert!(stats.open_points < 48, "{stats:?}");
    assert!(!files(&disk, "map").is_empty());
    model.judge(&store);
    let before = own(&store);
    drop(store);
    let (store, recovery) = open(&disk, small(4));
    assert_eq!(recovery.findings, []);
    model.judge(&store);
    assert_eq!(own(&store), before);
    work(&store, &mut model, &mut rng, 300..400);
    model.judge(&store);
}

#[test]
fn every_node_makes_the_same_segments_of_a_stream() {
    let (disk, mut model, mut rng) = (SimDisk::default(), Model::default(), StdRng::seed_from_u64(5));
    let (author, _) = open(&disk, small(5));
    work(&author, &mut model, &mut rng, 0..200);
    let records = own(&author);
    let segments = |disk: &SimDisk| {
        let bytes = files(disk, "seg").into_iter().map(|path| (path.clone(), disk.bytes(&path)));
        bytes.collect::<BTreeMap<_, _>>()
    };
    assert!(!segments(&disk).is_empty());
    for pieces in [1usize, 9, 1000] {
        let other = SimDisk::default();
        let (follower, _) = open(&other, StoreOptions { node: tidelog_record::NodeId([8; 16]), ..small(6) });
        for piece in records.chunks(pieces) {
            follower.adopt_blocking(piece.to_vec()).unwrap();
            follower.upkeep(Instant::now()).unwrap();
        }
        assert_eq!(follower.stats().segments_disagreed, 0);
        assert_eq!(segments(&other), segments(&disk), "in pieces of {pieces}");
        assert_eq!(judge_answers(&follower).len(), records.len());
    }
}

#[test]
fn a_node_with_little_memory_makes_the_segments_of_one_with_much_out_of_pieces_or_leaves_long_series_in_them()
{
    let mut rng = StdRng::seed_from_u64(31);
    let mut much = small(31);
    (much.upkeep.seal_points, much.upkeep.seal_when_idle) = (300, Duration::from_secs(3600));
    let (disk, mut model) = (SimDisk::default(), Model::default());
    let (author, _) = open(&disk, much);
    work(&author, &mut model, &mut rng, 0..1_000);
    let records = own(&author);
    let segments = |disk: &SimDisk| {
        let bytes = files(disk, "seg").into_iter().map(|path| (path.clone(), disk.bytes(&path)));
        bytes.collect::<BTreeMap<_, _>>()
    };
    for (points_in_memory_max, is_enough) in [(250, true), (24, false)] {
        let other = SimDisk::default();
        let mut little = StoreOptions { node: tidelog_record::NodeId([8; 16]), ..small(32) };
        little.upkeep.points_in_memory_max = points_in_memory_max;
        let (follower, _) = open(&other, little.clone());
        follower.adopt_blocking(records.clone()).unwrap();
        for _ in 0..3 {
            follower.upkeep(Instant::now()).unwrap();
        }
        let stats = follower.stats();
        assert_eq!(stats.segments_disagreed, 0);
        assert!(stats.segments_sealed > author.stats().segments_sealed, "it packed in pieces: {stats:?}");
        assert_eq!(segments(&other) == segments(&disk), is_enough, "{stats:?}");
        assert_eq!(judge_answers(&follower).len(), records.len());
        drop(follower);
        let (follower, recovery) = open(&other, little);
        assert_eq!(recovery.findings, []);
        follower.upkeep(Instant::now()).unwrap();
        assert_eq!(judge_answers(&follower).len(), records.len());
        drop(follower);
        assert!(checked(&other).is_good());
    }
}

#[test]
fn a_seal_that_this_nodes_bytes_do_not_agree_with_leaves_the_records_in_the_log() {
    let disk = SimDisk::default();
    let (store, _) = open(&disk, small(7));
    let mut author = Author::new(3);
    for time in 0..40 {
        author.write(body(1, time, 0.5));
    }
    author.write(Seal { first: Lsn(1), last: Lsn(30), ordinal: 0, parts: 1, hash: [9; 16] }.encode());
    store.adopt_blocking(author.records.clone()).unwrap();
    store.upkeep(Instant::now()).unwrap();
    let stats = store.stats();
    assert_eq!((stats.segments_disagreed, stats.segments), (1, 0));
    assert_eq!(files(&disk, "seg"), Vec::<PathBuf>::new());
    assert_eq!(judge_answers(&store), author.records);
}

#[test]
fn points_of_a_range_that_was_not_sealed_stay_in_answers_when_a_later_one_is() {
    let (store, _) = open(&SimDisk::default(), small(8));
    let mut author = Author::new(3);
    for time in 0..10 {
        author.write(body(1, time, 0.5));
    }
    author.write(Seal { first: Lsn(1), last: Lsn(10), ordinal: 0, parts: 1, hash: [9; 16] }.encode());
    for time in 10..30 {
        author.write(body(1, time, 0.5));
    }
    let (first, last) = (Lsn(12), Lsn(31));
    let chain = |lsn: Lsn| author.records[usize::try_from(lsn.0).unwrap() - 1].chain;
    let span = Span {
        stream: author.stream.clone(),
        ordinal: 1,
        parts: 1,
        first,
        last,
        before: chain(Lsn(11)),
        after: chain(last),
    };
    let mut bodies = author.records[11..31].iter().map(|record| record.body.clone());
    let made = segment::seal(&span, &mut || Ok(bodies.next()), &mut |_| Ok(())).unwrap();
    author.write(Seal { first, last, ordinal: 1, parts: 1, hash: made.hash }.encode());
    store.adopt_blocking(author.records.clone()).unwrap();
    store.upkeep(Instant::now()).unwrap();
    let stats = store.stats();
    assert_eq!((stats.segments_disagreed, stats.segments), (1, 1));
    let all = store.scan(&site(), &|_| true, i64::MIN..=i64::MAX).unwrap();
    assert_eq!(all[0].1.len(), 30);
    assert_eq!(judge_answers(&store), author.records);
}

#[test]
fn a_log_file_with_rot_is_set_apart_when_its_records_are_sealed_and_holds_up_no_other() {
    let disk = SimDisk::default();
    let mut options = small(16);
    options.upkeep.log_keep_bytes_max = 1 << 20;
    let (store, _) = open(&disk, options.clone());
    store.set_cursor("bridge", Position::ZERO).unwrap();
    seconds(&store, 0..300);
    let before = store.scan(&site(), &|_| true, i64::MIN..=i64::MAX).unwrap();
    assert_eq!(store.stats().files_trimmed, 0);
    drop(store);
    let oldest = files(&disk, "log").into_iter().min().unwrap();
    disk.change(&oldest, |bytes| bytes[400] ^= 1);
    let rotten = disk.bytes(&oldest);

    // Nobody wants the log any more.
    options.upkeep.log_keep_bytes_max = 0;
    let (store, recovery) = open(&disk, options);
    assert!(!recovery.findings.is_empty());
    seconds(&store, 300..600);
    let stats = store.stats();
    assert!(stats.files_trimmed > 3 && stats.log_bytes < 20_000, "{stats:?}");
    let kept = files(&disk, "log").into_iter().filter(|path| path.starts_with("/store/quarantine"));
    assert!(
        kept.map(|path| disk.bytes(&path)).any(|bytes| bytes == rotten),
        "it is kept for whoever mends it"
    );
    let after = store.scan(&site(), &|_| true, i64::MIN..=i64::MAX).unwrap();
    assert_eq!(after[0].1[..300], before[0].1[..]);
}

/// Six megabytes of log in small steps, with upkeep between them.
fn write_much(store: &Store) {
    let house: SiteName = "house".parse().unwrap();
    for second in 0..600i64 {
        let series = Series::new("words", [("device", "1")]).unwrap();
        let said = (second * 1_000_000_000, Value::Text("x".repeat(10_000)));
        let batch = Batch { series: vec![(series, vec![said])], ..Batch::default() };
        store.append_blocking(&house, batch.encode().unwrap()).unwrap();
        store.upkeep(Instant::now()).unwrap();
    }
}

#[test]
fn the_last_seal_of_a_stream_that_fell_silent_does_not_hold_the_log_of_one_that_did_not() {
    let mut options = small(17);
    (options.log_file_bytes_max, options.upkeep.log_keep_bytes_max) = (1 << 18, 1 << 18);
    // Of this node's own streams, and of another's that it follows.
    let (own_stream, _) = open(&SimDisk::default(), options.clone());
    seconds(&own_stream, 0..30);
    let (author, _) = open(&SimDisk::default(), options.clone());
    seconds(&author, 0..30);
    let (follower, _) =
        open(&SimDisk::default(), StoreOptions { node: tidelog_record::NodeId([8; 16]), ..options });
    follower.adopt_blocking(own(&author)).unwrap();
    for store in [own_stream, follower] {
        write_much(&store);
        let stats = store.stats();
        assert!(stats.files_trimmed > 15 && stats.log_bytes < 3 << 20, "{stats:?}");
        assert!(stats.segments < 60, "{stats:?}");
        assert_eq!(store.scan(&site(), &|_| true, i64::MIN..=i64::MAX).unwrap()[0].1.len(), 30);
        judge_answers(&store);
    }
}

#[test]
fn what_an_author_left_unsealed_does_not_hold_the_log_and_gives_way_when_it_comes_back() {
    let mut rng = StdRng::seed_from_u64(21);
    let (authors_disk, mut model) = (SimDisk::default(), Model::default());
    let mut late = small(21);
    late.upkeep.seal_points = 100_000;
    late.upkeep.seal_when_idle = Duration::from_secs(3600);
    let (author, _) = open(&authors_disk, late);
    for number in 0..60 {
        model.append(&author, &site(), random_body(&mut rng, number)).unwrap();
    }
    let disk = SimDisk::default();
    let mut options = StoreOptions { node: tidelog_record::NodeId([8; 16]), ..small(22) };
    options.upkeep.seal_abandoned_after = Duration::ZERO;
    let (store, _) = open(&disk, options.clone());
    store.adopt_blocking(own(&author)).unwrap();
    seconds(&store, 10_000..10_400);
    let stats = store.stats();
    assert!(stats.files_trimmed > 3 && stats.log_bytes < 12_000, "{stats:?}");
    let held = judge_answers(&store);
    assert!(own(&author).iter().all(|record| held.contains(record)));
    drop(store);
    let (store, recovery) = open(&disk, options);
    assert_eq!(recovery.findings, []);
    // It comes back, writes more, and seals all of it.
    drop(author);
    let (author, _) = open(&authors_disk, small(23));
    for number in 60..90 {
        model.append(&author, &site(), random_body(&mut rng, number)).unwrap();
    }
    author.upkeep(Instant::now()).unwrap();
    let (stream, held) = (StreamId { site: site(), node: author.node(), run: author.run() }, Lsn(60));
    store.adopt_blocking(author.read(&stream, held, usize::MAX).unwrap()).unwrap();
    for _ in 0..3 {
        store.upkeep(Instant::now()).unwrap();
    }
    assert!(judge_answers(&store).len() > 90);
    let records = store.read(&stream, Lsn::ZERO, usize::MAX).unwrap();
    assert_eq!(records, own(&author));
}

#[test]
fn a_rotten_segment_is_set_apart_asked_for_again_and_made_again() {
    let (disk, mut model, mut rng) = (SimDisk::default(), Model::default(), StdRng::seed_from_u64(9));
    let (author, _) = open(&disk, small(9));
    work(&author, &mut model, &mut rng, 0..200);
    let (records, vector) = (own(&author), author.vector());
    let (path, whole) =
        files(&disk, "seg").into_iter().map(|path| (path.clone(), disk.bytes(&path))).next().unwrap();
    drop(author);
    disk.change(&path, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
    });
    let (store, _) = open(&disk, small(10));
    store.scrub();
    store.upkeep(Instant::now()).unwrap();
    assert_eq!(store.stats().segments_rotten, 1);
    assert!(disk.files().iter().any(|path| path.starts_with("/store/quarantine")));
    assert!(store.vector() < vector, "the vector no longer claims it, so that peers send it");
    drop(store);
    let (store, _) = open(&disk, small(11));
    assert!(store.vector() < vector, "after a start neither");
    store.adopt_blocking(records).unwrap();
    store.upkeep(Instant::now()).unwrap();
    assert_eq!(disk.bytes(&path), whole, "the same bytes as before");
    model.judge(&store);
}

#[test]
fn what_lies_on_the_disk_alone_is_at_hand_once_somebody_has_read_it() {
    let disk = SimDisk::default();
    let all = i64::MIN..=i64::MAX;
    let (store, _) = open(&disk, small(12));
    seconds(&store, 0..300);
    drop(store);
    let (store, _) = open(&disk, StoreOptions { scan_points_max: 1_000, ..small(13) });
    assert!(store.stats().segments > 0);
    assert!(at_hand(|| few(&store, &site(), &all, u64::MAX)).is_none());
    let stats = store.stats();
    assert_eq!((stats.failed_reads, stats.segments_rotten), (0, 0), "nothing is wrong with it");
    let read = few(&store, &site(), &all, u64::MAX).unwrap();
    assert_eq!(read.as_ref().map(|read| read[0].1.len()), Some(300));
    assert_eq!(at_hand(|| few(&store, &site(), &all, u64::MAX)).unwrap().unwrap(), read);
}

#[test]
fn a_reader_that_meets_rot_says_so_and_the_next_round_sets_it_apart() {
    let disk = SimDisk::default();
    let (store, _) = open(&disk, small(12));
    seconds(&store, 0..300);
    drop(store);
    for path in files(&disk, "seg") {
        disk.change(&path, |bytes| {
            let at = bytes.len() / 3;
            bytes[at] ^= 1;
        });
    }
    let (store, _) = open(&disk, small(13));
    let answer = store.scan(&site(), &|_| true, i64::MIN..=i64::MAX);
    assert!(matches!(answer, Err(ScanError::Read(ReadError::Rotten { .. }))), "{answer:?}");
    for _ in 0..20 {
        store.upkeep(Instant::now()).unwrap();
        store.scrub();
    }
    assert!(store.stats().segments_rotten > 0);
    assert!(store.scan(&site(), &|_| true, i64::MIN..=i64::MAX).is_ok(), "what is left is answered");
}

#[test]
fn a_cursor_that_stood_still_for_long_reads_all_in_the_order_of_arrival_from_segments() {
    let disk = SimDisk::default();
    let (store, _) = open(&disk, small(14));
    let mut author = Author::new(4);
    let mut expected = Vec::new();
    for time in 0..300i64 {
        if time % 3 == 0 {
            author.write(body(2, time, 1.0));
            store.adopt_blocking(author.records.last().cloned().into_iter().collect()).unwrap();
        } else {
            store.append_blocking(&site(), body(1, time, 2.0)).unwrap();
        }
        expected.push(time);
        if time % 20 == 0 {
            store.upkeep(Instant::now()).unwrap();
        }
    }
    // The other author seals what it wrote, so that its records leave the log too.
    let stream = author.stream.clone();
    let other = SimDisk::default();
    let (authors_own, _) =
        open(&other, StoreOptions { node: stream.node, entropy: stream.run.0, ..small(0) });
    assert_eq!(authors_own.run(), Run(stream.run.0));
    for record in &author.records {
        authors_own.append_blocking(&site(), record.body.clone()).unwrap();
    }
    authors_own.upkeep(Instant::now()).unwrap();
    let behind = authors_own.read(&stream, Lsn(100), usize::MAX).unwrap();
    store.adopt_blocking(behind).unwrap();
    store.upkeep(Instant::now()).unwrap();
    assert!(store.stats().files_trimmed > 3, "{:?}", store.stats());
    let mut met = Vec::new();
    let mut at = Position::ZERO;
    loop {
        let next = store.follow(at, 500).unwrap();
        let Some((last, _)) = next.last() else { break };
        at = *last;
        for (_, record) in next {
            if let Ok(tidelog_record::Body::Points(batch)) = tidelog_record::Body::decode(&record.body) {
                met.extend(batch.series.iter().flat_map(|(_, points)| points.iter().map(|(time, _)| *time)));
            }
        }
    }
    assert_eq!(met, expected);
}

#[test]
fn a_log_that_a_cursor_still_wants_stays_until_it_is_too_long() {
    let disk = SimDisk::default();
    let mut options = small(15);
    options.upkeep.log_keep_bytes_max = 20_000;
    let (store, _) = open(&disk, options);
    store.set_cursor("bridge", Position::ZERO).unwrap();
    seconds(&store, 0..100);
    assert_eq!(store.stats().files_trimmed, 0);
    seconds(&store, 100..600);
    let stats = store.stats();
    assert!(stats.files_trimmed > 0 && stats.log_bytes < 40_000, "{stats:?}");
}

#[test]
fn the_catalogue_of_series_is_made_again_from_segments_and_log_when_its_folder_is_gone_or_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let options = || StoreOptions { state: StateIn::Folder, ..small(16) };
    let names = |store: &Store| store.series(&site(), &|_| true).unwrap();
    let (store, _) = Store::open(dir.path(), options()).unwrap();
    for number in 0..400u32 {
        store.append_blocking(&site(), body(number, i64::from(number), 1.0)).unwrap();
        if number % 50 == 0 {
            store.upkeep(Instant::now()).unwrap();
        }
    }
    let before = names(&store);
    assert_eq!(before.len(), 400);
    assert!(store.stats().segments > 0 && store.stats().open_points > 0);
    drop(store);
    let (store, recovery) = Store::open(dir.path(), options()).unwrap();
    assert_eq!((recovery.findings, names(&store)), (vec![], before.clone()));
    drop(store);
    let state = dir.path().join("state");
    let gone = || std::fs::remove_dir_all(&state).unwrap();
    let damaged = || {
        for entry in std::fs::read_dir(&state).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let mut bytes = std::fs::read(&path).unwrap();
                bytes.iter_mut().step_by(97).for_each(|byte| *byte ^= 0x55);
                std::fs::write(&path, bytes).unwrap();
            }
        }
    };
    for hurt in [&gone as &dyn Fn(), &damaged] {
        hurt();
        let (store, recovery) = Store::open(dir.path(), options()).unwrap();
        assert!(!recovery.findings.is_empty(), "it says so");
        assert_eq!(names(&store), before);
        drop(store);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(target_arch = "x86_64") { 24 } else { 2 }))]

    /// Late and repeated points of some series by two authors, in segments of several sizes and in memory, read by several threads.
    #[test]
    fn scans_agree_with_a_map_whatever_is_sealed(
        seed in any::<u64>(), seal_points in 1u64..4_000, batch in 1usize..200, threads in 1usize..4,
        late in prop_oneof![Just(0.0), Just(0.01), 0.0f64..1.0], starts in prop::collection::vec((-100i64..5_000, 0i64..3_000), 1..6),
    ) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut options = small(seed);
        options.upkeep.seal_points = seal_points;
        (options.scan_threads, options.log_file_bytes_max) = (threads, 65_536);
        let disk = SimDisk::default();
        let (store, _) = open(&disk, options);
        let mut author = Author::new(2);
        let mut model: BTreeMap<Series, BTreeMap<i64, Value>> = BTreeMap::new();
        for round in 0..30i64 {
            let mut series = Vec::new();
            for device in 0..3u8 {
                let name = Series::new("t", [("device", format!("{device}"))]).unwrap();
                let points: Vec<(i64, Value)> = (0..batch).map(|n| {
                    // Here and there the first point of a batch is the last one of the batch before.
                    let on_time = match round * 200 + i64::try_from(n).unwrap() {
                        first if n == 0 && rng.random_bool(0.3) => first - 201 + i64::try_from(batch).unwrap(),
                        time => time,
                    };
                    let time = if rng.random_bool(late) { rng.random_range(-50..6_000) } else { on_time };
                    let value = match device {
                        0 => Value::F64(f64::from(rng.random_range(0..500i16)) / 10.0),
                        1 => Value::I64(rng.random_range(-9..9)),
                        _ => if rng.random() { Value::Bool(true) } else { Value::F64(rng.random()) },
                    };
                    (time, value)
                }).collect();
                let all = model.entry(name.clone()).or_default();
                for (time, value) in &points {
                    let held = all.entry(*time).or_insert_with(|| value.clone());
                    if value > held { held.clone_from(value); }
                }
                series.push((name, points));
            }
            let body = Batch { authored_ms: round, series, ..Batch::default() }.encode().unwrap();
            if rng.random_bool(0.3) {
                author.write(body);
                store.adopt_blocking(vec![author.records.last().unwrap().clone()]).unwrap();
            } else {
                store.append_blocking(&site(), body).unwrap();
            }
            if rng.random_bool(0.3) {
                store.upkeep(Instant::now()).unwrap();
            }
        }
        let ranges = starts.into_iter().map(|(from, width)| from..=from + width).chain([i64::MIN..=i64::MAX]);
        let all = store.series(&site(), &|_| true).unwrap();
        for range in ranges {
            let mut counted = 0i64;
            let steps = Steps::one(range.clone()).unwrap();
            store.aggregate(&site(), std::slice::from_ref(&all), &steps, &[Function::Count], &|| false, |_, aggregates| {
                counted = match aggregates.columns[0][0] { Some(Value::I64(count)) => count, _ => -1 };
                ControlFlow::Continue(())
            }).unwrap();
            let points: usize = model.values().map(|points| points.range(range.clone()).count()).sum();
            prop_assert_eq!(usize::try_from(counted), Ok(points));
            prop_assert!(store.count(&site(), &range).unwrap().is_none_or(|count| count == points as u64));
            let answer = store.scan(&site(), &|_| true, range.clone()).unwrap();
            let answer: Vec<_> = answer.into_iter().map(|(series, points)| (series.as_ref().clone(), points)).collect();
            let expected: Vec<_> = model.iter().map(|(series, all)| {
                (series.clone(), all.range(range.clone()).map(|(t, v)| (*t, v.clone())).collect::<Vec<_>>())
            }).filter(|(_, points)| !points.is_empty()).collect();
            prop_assert_eq!(answer, expected);
        }
        let series = store.series(&site(), &|_| true).unwrap();
        for step_ns in [7i64, 100, 2_000] {
            let steps = Steps::new(-20..=5_500, step_ns).unwrap();
            let functions = Function::ALL.map(|function| vec![function]).into_iter().chain([Function::ALL.to_vec()]);
            for functions in functions {
                let mut told = Vec::new();
                let groups: Vec<_> = series.iter().map(|one| vec![one.clone()]).collect();
                store.aggregate(&site(), &groups, &steps, &functions, &|| false, |at, aggregates| {
                    told.push((series[at].as_ref().clone(), aggregates));
                    ControlFlow::Continue(())
                }).unwrap();
                told.retain(|(_, aggregates)| !aggregates.starts.is_empty());
                let expected: Vec<_> = model.iter().map(|(series, all)| {
                    let (mut times, mut values) = (Vec::new(), Values::default());
                    for (time, value) in all {
                        times.push(*time);
                        values.push(value.clone());
                    }
                    let mut gathered = Accumulator::new(&steps, &functions);
                    gathered.points(&times, &values, 0..times.len());
                    (series.clone(), gathered.finish())
                }).filter(|(_, aggregates)| !aggregates.starts.is_empty()).collect();
                prop_assert_eq!(&told, &expected);
            }
        }
        for (name, time, value) in store.last(&site(), &series, &|| false).unwrap() {
            prop_assert_eq!(model[&name].last_key_value(), Some((&time, &value)));
        }
    }
}

#[test]
fn writes_wait_for_a_disk_that_seals_more_slowly_than_they_come() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = StoreOptions::new(NODE);
    options.upkeep.seal_points = 10;
    let (store, _) = Store::open(dir.path(), options).unwrap();
    let segments = dir.path().join("segments");
    // Nothing can be sealed while a file stands where the folder should.
    std::fs::remove_dir_all(&segments).unwrap();
    std::fs::write(&segments, "").unwrap();
    let append = |number: i64| {
        let (said, answered) = std::sync::mpsc::channel();
        store.append(&site(), body(1, number, 1.0), move |result| said.send(result.map(drop)).unwrap());
        answered.recv().unwrap()
    };
    let refused = (0..1_000).map(append).find(Result::is_err).expect("memory has a bound");
    assert_eq!(refused, Err(AppendError::Busy));
    assert!(store.stats().open_points < 400);
    std::fs::remove_file(&segments).unwrap();
    std::fs::create_dir(&segments).unwrap();
    store.append_blocking(&site(), body(1, 5_000, 1.0)).expect("it waited until there was room");
    assert!(store.stats().segments_sealed > 0);
}

#[test]
fn a_store_with_a_thread_of_its_own_does_all_this_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = StoreOptions::new(NODE);
    options.upkeep.seal_points = 500;
    options.log_file_bytes_max = 4096;
    let (store, _) = Store::open(dir.path(), options).unwrap();
    for number in 0..3_000 {
        store.append_blocking(&site(), body(number % 7, i64::from(number), 1.0)).unwrap();
    }
    let begun = Instant::now();
    while store.stats().segments_sealed < 6 && begun.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let stats = store.stats();
    assert!(stats.segments_sealed >= 6 && stats.upkeep_failures == 0, "{stats:?}");
    assert_eq!(store.scan(&site(), &|_| true, i64::MIN..=i64::MAX).unwrap().len(), 7);
    assert!(dir.path().join("segments").read_dir().unwrap().count() > 0);
    assert!(Path::new(dir.path()).join("lock").exists());
}
