//! A run that begins while the store is open: writes go on, and no name is given twice.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tidelog_record::{Boot, Lsn, Record, Run, StreamId};
use tidelog_store::{AppendError, Store};

use crate::model::{Model, body, judge_answers, open, options, random_body, seconds, site, small};
use crate::sim_disk::SimDisk;
use crate::upkeep::{files, own, work};
use crate::verify::checked;

fn append(store: &Store, second: i64) -> (StreamId, Lsn) {
    let appended = store.append_blocking(&site(), body(1, second * 1_000_000_000, second as f64)).unwrap();
    (appended.stream, appended.lsn)
}

/// The runs that the log files name, in order.
fn runs_of_files(disk: &SimDisk) -> Vec<Run> {
    let of = |path| u64::from_le_bytes(disk.bytes(path)[32..40].try_into().unwrap());
    files(disk, "log").iter().map(|path| Run(of(path))).collect()
}

#[test]
fn writes_go_on_under_another_run_without_a_restart() {
    let (disk, mut model, mut rng) = (SimDisk::default(), Model::default(), StdRng::seed_from_u64(3));
    let (store, _) = open(&disk, small(3));
    work(&store, &mut model, &mut rng, 0..100);
    let before = store.run();
    let run = store.begin_run_blocking(before, before.0).unwrap();
    assert_ne!(run, before, "bits that name the run that is over name another one");
    assert_eq!(store.run(), run);
    assert_eq!(store.begin_run_blocking(before, 5), Ok(run), "it is over already");
    model.judge(&store);
    let appended = model.append(&store, &site(), random_body(&mut rng, 100)).unwrap();
    assert_eq!((appended.stream.run, appended.lsn), (run, Lsn(1)));
    let runs = runs_of_files(&disk);
    assert!(runs.last() == Some(&run) && runs[..runs.len() - 1].iter().all(|run| *run == before), "{runs:?}");
    work(&store, &mut model, &mut rng, 101..200);
    assert!(store.stats().segments_merged > 0, "it seals and merges what it writes now");
    model.judge(&store);
    let vector = store.vector();
    drop(store);
    let found = checked(&disk);
    assert!(found.is_good() && found.gaps == 0, "{found:?}");
    let (store, recovery) = open(&disk, small(4));
    assert_eq!((recovery.findings, store.run(), store.vector()), (vec![], run, vector));
    model.judge(&store);
}

#[test]
fn an_older_copy_that_writes_under_another_run_gets_its_tail_back_and_forks_nothing() {
    let disk = SimDisk::default();
    let (store, _) = open(&disk, small(3));
    seconds(&store, 0..40);
    let copied = disk.copy();
    seconds(&store, 40..60);
    let run = store.run();
    let everything: Vec<Record> = own(&store);
    drop(store);
    let (store, _) = open(&copied, small(4));
    assert_eq!(store.run(), run, "it does not know what is lost");
    let held = own(&store).len();
    store.begin_run_blocking(run, 77).unwrap();
    for second in 60..70 {
        assert_eq!(append(&store, second).0.run, Run(77));
    }
    store.adopt_blocking(everything[held..].to_vec()).unwrap();
    let stream = StreamId { run, ..everything[0].stream.clone() };
    assert_eq!(store.read(&stream, Lsn::ZERO, usize::MAX).unwrap(), everything);
    store.upkeep(Instant::now()).unwrap();
    assert_eq!(store.stats().segments_disagreed, 0, "its own seals of before hold");
    judge_answers(&store);
    drop(store);
    assert!(checked(&copied).is_good());
}

#[test]
fn an_empty_log_file_gives_its_name_to_the_first_of_the_run() {
    let disk = SimDisk::default();
    let (store, _) = open(&disk, small(3));
    // Nothing to store begins a file all the same.
    store.adopt_blocking(Vec::new()).unwrap();
    for drawn in [70, 71] {
        store.begin_run_blocking(store.run(), drawn).unwrap();
        store.adopt_blocking(Vec::new()).unwrap();
    }
    assert_eq!(append(&store, 1), (StreamId { site: site(), node: store.node(), run: Run(71) }, Lsn(1)));
    assert_eq!(runs_of_files(&disk), [Run(71)]);
    judge_answers(&store);
    drop(store);
    let (store, recovery) = open(&disk, small(4));
    assert_eq!((recovery.findings, store.run()), (vec![], Run(71)));
    assert_eq!(own(&store).len(), 1);
}

#[test]
fn the_first_record_of_a_stream_in_another_run_tells_of_the_start_too() {
    let disk = SimDisk::default();
    let boot = Boot { started_ms: 5, findings: 0, program: "test 1".into() };
    let (store, _) = open(&disk, tidelog_store::StoreOptions { boot: Some(boot), ..small(3) });
    assert_eq!(append(&store, 1).1, Lsn(2));
    store.begin_run_blocking(store.run(), 70).unwrap();
    assert_eq!(append(&store, 2).1, Lsn(2));
    let first = own(&store).remove(0);
    assert!(matches!(Boot::of_body(&first.body), Ok(Some(_))));
}

#[test]
fn a_full_disk_lets_the_run_go_on() {
    let disk = SimDisk::default();
    let (store, _) = open(&disk, small(3));
    append(&store, 1);
    let run = store.run();
    disk.set_room(Some(disk.used()));
    assert_eq!(store.begin_run_blocking(run, 70), Err(AppendError::Full));
    disk.set_room(None);
    assert_eq!((store.run(), append(&store, 2).1), (run, Lsn(2)));
    assert_eq!(store.begin_run_blocking(run, 70), Ok(Run(70)));
    assert_eq!(append(&store, 3).0.run, Run(70));
}

#[test]
fn who_writes_meanwhile_is_answered_with_a_name_of_one_run_or_the_other_and_none_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), options()).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writers = [0, 1].map(|writer| {
        let (store, stop) = (store.clone(), Arc::clone(&stop));
        std::thread::spawn(move || {
            let mut names = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                names.push(append(&store, i64::try_from(2 * names.len()).unwrap() + writer));
            }
            names
        })
    });
    for drawn in 70..90 {
        let before = store.head();
        while store.head() < tidelog_store::Position(before.0 + 5) {
            std::thread::yield_now();
        }
        assert_eq!(store.begin_run_blocking(store.run(), drawn), Ok(Run(drawn)));
    }
    stop.store(true, Ordering::Relaxed);
    let names: Vec<_> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
    let different: BTreeSet<_> = names.iter().cloned().collect();
    assert_eq!(different.len(), names.len());
    assert!(different.iter().map(|(stream, _)| stream.run).collect::<BTreeSet<_>>().len() > 15);
    for (stream, lsn) in &different {
        let found = store.read(stream, Lsn(lsn.0 - 1), 0).unwrap();
        assert_eq!((&found[0].stream, found[0].lsn), (stream, *lsn));
    }
    judge_answers(&store);
}
