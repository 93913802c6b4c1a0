//! The store as its users see it, on a real disk.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use tempfile::tempdir;
use tidelog_record::{Batch, Boot, ChainHash, Lsn, NodeId, Seal, Series, Value};
use tidelog_store::aggregate::{Aggregates, Function, Steps};
use tidelog_store::catalogue::{MatchOp, Matcher};
use tidelog_store::{Position, ScanError, Store, StoreOptions};

use crate::model::{body, options, site};

/// Records of many new series, for the writer answers before it has taken them in.
#[test]
fn whoever_was_answered_sees_what_was_appended() {
    const NEW: i64 = 400;
    let dir = tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), options()).unwrap();
    for round in 1..=25 {
        let series = (0..NEW).map(|n| {
            let series = Series::new("t", [("n", format!("{:05}", round * NEW + n))]).unwrap();
            (series, vec![(round, Value::I64(n))])
        });
        let body = Batch { series: series.collect(), ..Batch::default() }.encode().unwrap();
        let appended = store.append_blocking(&site(), body).unwrap();
        let series = || store.series(&site(), &|_| true).unwrap();
        let count = match round % 4 {
            0 => store.scan(&site(), &|_| true, i64::MIN..=i64::MAX).unwrap().len(),
            1 => series().len(),
            2 => usize::try_from(store.stats().series).unwrap(),
            _ => store.last(&site(), &series(), &|| false).unwrap().len(),
        };
        let expected = usize::try_from(round * NEW).unwrap();
        assert_eq!((count, store.head()), (expected, appended.position), "round {round}");
    }
}

#[test]
fn what_was_appended_is_there_after_reopening() {
    let dir = tempdir().unwrap();
    let (store, recovery) = Store::open(dir.path(), options()).unwrap();
    assert!(recovery.created && recovery.findings.is_empty());
    let first = store.append_blocking(&site(), body(1, 10, 1.5)).unwrap();
    assert_eq!((first.position, first.lsn), (Position(1), Lsn(1)));
    let second = store.append_blocking(&site(), body(2, 20, 2.5)).unwrap();
    store.set_cursor("mqtt", Position(1)).unwrap();
    let before = store.scan(&site(), &|_| true, i64::MIN..=i64::MAX).unwrap();
    let run = store.run();
    store.close().unwrap();

    let (store, recovery) = Store::open(dir.path(), options()).unwrap();
    assert!(!recovery.created);
    assert_eq!((recovery.records, recovery.findings.as_slice()), (2, &[][..]));
    assert_eq!(store.run(), run);
    assert_eq!(store.head(), Position(2));
    assert_eq!(store.cursor("mqtt"), Ok(Position(1)));
    assert_eq!(store.vector(), [(first.stream.clone(), Lsn(2), second.chain)]);
    assert_eq!(store.scan(&site(), &|_| true, i64::MIN..=i64::MAX).unwrap(), before);
    assert_eq!(before.len(), 2);
    let followed = store.follow(Position(1), 1).unwrap();
    assert_eq!(followed.len(), 1);
    assert_eq!(followed[0].0, Position(2));
    assert!(followed[0].1.follows(first.chain));
    let read = store.read(&first.stream, Lsn::ZERO, usize::MAX).unwrap();
    assert_eq!(read.len(), 2);
    assert!(read[0].follows(ChainHash::GENESIS));
    assert_eq!(store.chain_at(&first.stream, Lsn(1)).unwrap(), Some(first.chain));
    let third = store.append_blocking(&site(), body(1, 30, 3.5)).unwrap();
    assert_eq!((third.position, third.lsn), (Position(3), Lsn(3)));
}

#[test]
fn another_nodes_records_are_taken_once_and_in_order() {
    let (here, there) = (tempdir().unwrap(), tempdir().unwrap());
    let (author, _) = Store::open(here.path(), options()).unwrap();
    let (other, _) = Store::open(there.path(), StoreOptions::new(NodeId([9; 16]))).unwrap();
    for time in 0..5 {
        author.append_blocking(&site(), body(1, time, 0.5)).unwrap();
    }
    let (stream, _, _) = author.vector()[0].clone();
    let records = author.read(&stream, Lsn::ZERO, usize::MAX).unwrap();
    let adopted = other.adopt_blocking(records[..3].to_vec()).unwrap();
    assert_eq!((adopted.stored, adopted.held), (3, 0));
    let adopted = other.adopt_blocking(records).unwrap();
    assert_eq!((adopted.stored, adopted.held), (2, 3));
    assert_eq!(other.vector(), author.vector());
    assert_eq!(
        other.scan(&site(), &|_| true, i64::MIN..=i64::MAX),
        author.scan(&site(), &|_| true, i64::MIN..=i64::MAX)
    );
}

#[test]
fn many_threads_append_and_each_append_has_its_own_place() {
    let dir = tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), options()).unwrap();
    let (answer, answers) = mpsc::channel();
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let (store, answer) = (store.clone(), answer.clone());
            scope.spawn(move || {
                for time in 0..500 {
                    let answer = answer.clone();
                    store.append(&site(), body(thread, time, 0.0), move |r| {
                        answer.send(r.unwrap().lsn).unwrap();
                    });
                }
            });
        }
    });
    drop(answer);
    let mut lsns: Vec<u64> = answers.iter().map(|lsn| lsn.0).collect();
    lsns.sort_unstable();
    assert_eq!(lsns, (1..=2000).collect::<Vec<_>>());
}

#[test]
fn a_follower_beside_a_writer_meets_each_record_once_and_in_order() {
    let dir = tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), options()).unwrap();
    const RECORDS: u64 = 3000;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for time in 0..RECORDS {
                store.append(&site(), body(1, time.cast_signed(), 0.0), |r| drop(r.unwrap()));
                if time % 50 == 0 {
                    store.append_blocking(&site(), body(2, time.cast_signed(), 0.0)).unwrap();
                }
            }
        });
        let mut next = 1;
        while next <= RECORDS + RECORDS / 50 {
            for (position, record) in store.follow(Position(next - 1), usize::MAX).unwrap() {
                assert_eq!((position, record.lsn), (Position(next), Lsn(next)));
                next += 1;
            }
        }
    });
}

#[test]
fn questions_about_series_are_answered_as_a_reading_of_all_points_answers_them() {
    let dir = tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), options()).unwrap();
    for (device, time, value) in
        [(1, 30, 3.0), (2, 20, 2.5), (1, 10, 1.0), (2, 41, 4.5), (3, 50, 5.0), (1, 30, 3.0)]
    {
        store.append_blocking(&site(), body(device, time, value)).unwrap();
    }
    let all = store.select(&site(), &[vec![]]).unwrap();
    assert!(all.is_sorted() && all.len() == 3);
    assert_eq!(all, store.series(&site(), &|_| true).unwrap());
    assert_eq!(store.select(&site(), &[]).unwrap(), []);
    let names = store.label_names(&site(), &[vec![]]).unwrap();
    assert!(names.contains("__name__"));
    let label = names.iter().find(|name| *name != "__name__").unwrap();
    let values = store.label_values(&site(), label, &[vec![]]).unwrap();
    assert_eq!(values.len(), 3);
    let one = Matcher::new(label.as_str(), MatchOp::Equal, values.first().unwrap().as_str()).unwrap();
    assert_eq!(store.select(&site(), &[vec![one.clone()]]).unwrap(), all[..1]);
    assert_eq!(store.select(&site(), &[vec![one], vec![]]).unwrap(), all);

    let scanned = store.scan(&site(), &|_| true, i64::MIN..=i64::MAX).unwrap();
    let last: Vec<_> =
        scanned.iter().map(|(s, points)| (s.clone(), points[points.len() - 1].clone())).collect();
    let told = store.last(&site(), &all, &|| false).unwrap();
    assert!(told.into_iter().map(|(s, time, value)| (s, (time, value))).eq(last));
    assert_eq!(store.last(&site(), &all[..1], &|| false).unwrap().len(), 1);

    let steps = Steps::new(10..=45, 20).unwrap();
    let groups = vec![all[..2].to_vec(), vec![], all[2..].to_vec()];
    let mut told = Vec::new();
    let functions = [Function::Count, Function::Max];
    let keep = |at, aggregates| {
        told.push((at, aggregates));
        ControlFlow::Continue(())
    };
    store.aggregate(&site(), &groups, &steps, &functions, &|| false, keep).unwrap();
    let halts_at = |ask: usize| {
        let asks = AtomicUsize::new(0);
        let halt = move || asks.fetch_add(1, Ordering::Relaxed) + 1 >= ask;
        let visited = |_, _| panic!("nothing of a question that was given up is told");
        store.aggregate(&site(), &groups, &steps, &functions, &halt, visited)
    };
    for ask in 1..=all.len() {
        assert_eq!(halts_at(ask), Err(ScanError::Halted), "given up before series {ask}");
    }
    let column = |values: [Value; 2]| values.into_iter().map(Some).collect::<Vec<_>>();
    let expected = Aggregates {
        starts: vec![10, 30],
        columns: vec![column([Value::I64(2), Value::I64(2)]), column([Value::F64(2.5), Value::F64(4.5)])],
    };
    assert_eq!(told, [(0, expected)], "a group without points is not visited");
}

#[test]
fn the_first_record_of_each_life_in_a_stream_is_preceded_by_one_that_tells_of_the_start() {
    let dir = tempdir().unwrap();
    let live = |number: i64, writes: &[&str]| {
        let boot = Boot { started_ms: number, findings: 99, program: format!("p {number}") };
        let (store, _) = Store::open(dir.path(), StoreOptions { boot: Some(boot), ..options() }).unwrap();
        for name in writes {
            store.append_blocking(&name.parse().unwrap(), body(1, number, 1.0)).unwrap();
        }
        store.close().unwrap();
    };
    live(1, &["a", "b", "a"]);
    live(2, &[]);
    live(3, &["b", "b"]);
    let (store, _) = Store::open(dir.path(), options()).unwrap();
    let mut told = BTreeMap::new();
    for (stream, _, _) in store.vector() {
        let records = store.read(&stream, Lsn::ZERO, usize::MAX).unwrap();
        let kinds = records.iter().map(|record| match Boot::of_body(&record.body).unwrap() {
            Some(boot) => format!("{} {} {}", boot.program, boot.started_ms, boot.findings),
            None if matches!(Seal::of_body(&record.body), Ok(Some(_))) => String::from("seal"),
            None => String::from("points"),
        });
        let kinds: Vec<_> = kinds.filter(|kind| kind != "seal").collect();
        told.insert(stream.site.to_string(), kinds.join(", "));
    }
    assert_eq!(told["a"], "p 1 1 0, points, points");
    assert_eq!(told["b"], "p 1 1 0, points, p 3 3 0, points, points");
    assert_eq!(store.stats().opaque_records, 0, "it is understood");
}
