//! A full disk, a failed sync, a second process, another node's directory: what the caller is told, and what still works.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tidelog_record::{BATCH_BYTES_MAX, Lsn, NodeId};
use tidelog_store::{
    AdoptError, AppendError, Finding, OpenError, Position, StateError, Store, StoreOptions, WriteState,
};

use crate::model::{Author, Model, body, open, options, random_body, site, small};
use crate::sim_disk::SimDisk;

#[test]
fn a_full_disk_refuses_clearly_stays_readable_and_recovers() {
    for room in (0..6000).step_by(if cfg!(target_arch = "x86_64") { 37 } else { 411 }) {
        let disk = SimDisk::default();
        let mut model = Model::default();
        let mut rng = StdRng::seed_from_u64(room);
        let (store, _) = open(&disk, small(1));
        for number in 0..5 {
            model.append(&store, &site(), random_body(&mut rng, number)).unwrap();
        }
        disk.set_room(Some(disk.used() + room));
        let refused = (5..60).any(|number| {
            let body = random_body(&mut rng, number);
            model.given.insert(body.clone());
            match store.append_blocking(&site(), body.clone()) {
                Ok(a) => {
                    model.acknowledged.insert((a.stream, a.lsn), (a.chain, body));
                    false
                }
                Err(error) => {
                    assert_eq!(error, AppendError::Full);
                    true
                }
            }
        });
        assert!(refused);
        assert_eq!(store.stats().write_state, WriteState::Full);
        model.judge(&store);
        drop(store);
        let (store, recovery) = open(&disk, small(2));
        assert_eq!(recovery.findings, [], "a full disk leaves no damage");
        model.judge(&store);
        disk.set_room(None);
        for number in 100..110 {
            model.append(&store, &site(), random_body(&mut rng, number)).unwrap();
        }
        assert_eq!(store.stats().write_state, WriteState::Ready);
        model.judge(&store);
    }
}

#[test]
fn a_start_that_has_to_begin_a_run_on_a_full_disk_reads_and_refuses_and_recovers() {
    for damage in ["log", "identity", "both"] {
        let disk = SimDisk::default();
        let mut model = Model::default();
        let (store, _) = open(&disk, small(1));
        for number in 0..5 {
            model.append(&store, &site(), body(1, number, 1.0)).unwrap();
        }
        drop(store);
        let flip = |path: &Path, at: usize| disk.change(path, |bytes| bytes[at] ^= 1);
        let is_log = |path: &PathBuf| path.extension().is_some_and(|end| end == "log");
        if damage != "identity" {
            let log = disk.files().into_iter().find(is_log).unwrap();
            // The last commit: its record is served, and its run is in doubt.
            let at = disk.bytes(&log).len() - 3;
            flip(&log, at);
            model.acknowledged.pop_last();
        }
        if damage != "log" {
            flip(Path::new("/store/identity"), 20);
        }
        disk.set_room(Some(disk.used()));
        for entropy in [2, 3] {
            let (store, recovery) = open(&disk, small(entropy));
            assert!(!recovery.findings.is_empty(), "{damage}");
            model.judge(&store);
            let refused = body(1, 9, 1.0);
            model.given.insert(refused.clone());
            assert_eq!(store.append_blocking(&site(), refused), Err(AppendError::Full), "{damage}");
        }
        let (store, _) = open(&disk, small(4));
        disk.set_room(None);
        for number in 100..110 {
            model.append(&store, &site(), body(1, number, 2.0)).unwrap();
        }
        model.judge(&store);
        drop(store);
        let (store, recovery) = open(&disk, small(5));
        let renewed = recovery.findings.iter().any(|finding| matches!(finding, Finding::RunRenewed { .. }));
        assert!(!renewed, "{damage}: {:?}", recovery.findings);
        model.judge(&store);
    }
}

#[test]
fn a_failed_sync_is_final_though_the_next_would_succeed() {
    let disk = SimDisk::default();
    let mut model = Model::default();
    let (store, _) = open(&disk, small(1));
    model.append(&store, &site(), body(1, 1, 1.0)).unwrap();
    disk.fail_sync_in(1);
    let lost = body(1, 2, 2.0);
    model.given.insert(lost.clone());
    let error = store.append_blocking(&site(), lost).unwrap_err();
    assert!(matches!(error, AppendError::Failed(_)), "{error}");
    for time in 3..6 {
        let error = store.append_blocking(&site(), body(1, time, 0.0)).unwrap_err();
        assert!(matches!(error, AppendError::Failed(_)), "{error}");
    }
    let adopted = store.adopt_blocking(vec![]);
    assert!(matches!(adopted, Err(AdoptError::Refused(AppendError::Failed(_)))), "{adopted:?}");
    assert!(matches!(store.stats().write_state, WriteState::Failed(_)));
    model.judge(&store);
    assert_eq!(store.head(), Position(1), "what was not synced is not seen");
    drop(store);
    disk.power_on(3);
    let (store, _) = open(&disk, small(2));
    model.judge(&store);
    model.append(&store, &site(), body(1, 7, 7.0)).unwrap();
}

#[test]
fn two_cannot_open_one_store() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), options()).unwrap();
    let second = Store::open(dir.path(), options()).map(|_| ());
    assert!(matches!(second, Err(OpenError::Locked(_))), "{second:?}");
    store.close().unwrap();
    Store::open(dir.path(), options()).unwrap();
}

#[test]
fn another_nodes_directory_is_refused() {
    let disk = SimDisk::default();
    let (store, _) = open(&disk, small(1));
    store.append_blocking(&site(), body(1, 1, 1.0)).unwrap();
    drop(store);
    let other = StoreOptions { node: NodeId([8; 16]), ..small(1) };
    let refused = |disk: &SimDisk| {
        Store::open_on(Arc::new(disk.clone()), Path::new("/store"), other.clone()).map(|_| ())
    };
    assert!(matches!(refused(&disk), Err(OpenError::WrongNode { .. })));
    disk.lose(Path::new("/store/identity"));
    assert!(matches!(refused(&disk), Err(OpenError::WrongNode { .. })), "its log says so too");
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let disk = SimDisk::default();
    let (store, _) = open(&disk, small(1));
    store.append_blocking(&site(), body(1, 1, 1.0)).unwrap();
    drop(store);
    let log = Path::new("/store/log/0000000000000001.log");
    for (path, length, newer) in [(log, 64, 3_u8), (Path::new("/store/identity"), 38, 2)] {
        let disk = disk.copy();
        disk.change(path, |bytes| {
            for copy in bytes.chunks_mut(length).take(2) {
                copy[8] = newer;
                let crc = crc32fast::hash(&copy[..length - 4]).to_le_bytes();
                copy[length - 4..].copy_from_slice(&crc);
            }
        });
        let before = disk.bytes(path);
        let opened = Store::open_on(Arc::new(disk.clone()), Path::new("/store"), small(1)).map(|_| ());
        assert!(
            matches!(opened, Err(OpenError::Version { found, .. }) if found == u16::from(newer)),
            "{opened:?}"
        );
        assert_eq!(disk.bytes(path), before);
    }
}

#[test]
fn a_body_that_cannot_be_stored_is_refused() {
    let (store, _) = open(&SimDisk::default(), small(1));
    let long = store.append_blocking(&site(), vec![9; BATCH_BYTES_MAX + 1]);
    assert!(matches!(long, Err(AppendError::TooLong { .. })));
    assert!(matches!(store.append_blocking(&site(), vec![1, 2, 3]), Err(AppendError::Malformed(_))));
    // A kind that only a newer version understands is stored.
    store.append_blocking(&site(), vec![200, 1, 2]).unwrap();
    store.append_blocking(&site(), vec![201; BATCH_BYTES_MAX]).unwrap();
    assert_eq!((store.stats().records, store.stats().opaque_records), (2, 2));
    assert_eq!(store.follow(Position::ZERO, usize::MAX).unwrap().len(), 2);
}

#[test]
fn too_much_waiting_is_refused_and_a_closed_store_says_so() {
    let commit_interval = Duration::from_secs(60);
    let options = StoreOptions { commit_interval, queue_records_max: 3, ..small(1) };
    let (store, _) = open(&SimDisk::default(), options);
    let (answer, answers) = mpsc::channel();
    for time in 0..10 {
        let answer = answer.clone();
        store.append(&site(), body(1, time, 0.0), move |result| answer.send(result.map(|_| ())).unwrap());
    }
    store.close().unwrap();
    store.append(&site(), body(1, 11, 0.0), move |result| answer.send(result.map(|_| ())).unwrap());
    let answers: Vec<_> = answers.iter().collect();
    let count = |wanted| answers.iter().filter(|answer| **answer == wanted).count();
    assert_eq!(count(Err(AppendError::Busy)), 7);
    assert_eq!(count(Ok(())), 3, "what was taken is written before the store closes");
    assert_eq!(answers.last(), Some(&Err(AppendError::Closed)));
}

#[test]
fn many_appends_share_a_sync() {
    let options = StoreOptions { commit_interval: Duration::from_millis(20), ..small(1) };
    let (store, _) = open(&SimDisk::default(), options);
    let (answer, answers) = mpsc::channel();
    for time in 0..200 {
        let answer = answer.clone();
        store.append(&site(), body(1, time, 0.0), move |result| answer.send(result.unwrap().lsn).unwrap());
    }
    drop(answer);
    assert!(answers.iter().eq((1..=200).map(Lsn)));
    assert!(store.stats().commits < 20, "{} commits", store.stats().commits);
}

#[test]
fn records_that_do_not_fit_a_stream_are_told_apart() {
    let disk = SimDisk::default();
    let (store, _) = open(&disk, small(1));
    let mut author = Author::new(1);
    for time in 0..6 {
        author.write(body(1, time, 0.0));
    }
    let records = author.records;
    store.adopt_blocking(records[..3].to_vec()).unwrap();
    let gap = store.adopt_blocking(records[4..].to_vec());
    assert!(matches!(gap, Err(AdoptError::Gap { held: Lsn(3), found: Lsn(5), .. })), "{gap:?}");
    let mut forged = records[3].clone();
    forged.body = body(1, 3, 9.0);
    let broken = store.adopt_blocking(vec![forged]);
    assert!(matches!(broken, Err(AdoptError::BrokenChain { lsn: Lsn(4), .. })), "{broken:?}");
    let mut branch = Author::new(1);
    for time in 0..3 {
        branch.write(body(1, time, if time == 2 { 5.0 } else { 0.0 }));
    }
    let fork = store.adopt_blocking(branch.records.clone());
    let (held, offered) = (records[2].chain, branch.records[2].chain);
    let stream = records[0].stream.clone();
    assert_eq!(fork, Err(AdoptError::Fork { stream, lsn: Lsn(3), held, offered }));
    // Nothing of a refused call was stored.
    let mut mixed = records[3..5].to_vec();
    mixed.push(branch.records[2].clone());
    assert!(store.adopt_blocking(mixed).is_err());
    assert_eq!(store.vector()[0].1, Lsn(3));
    store.adopt_blocking(records).unwrap();
    assert_eq!(store.vector()[0].1, Lsn(6));
}

#[test]
fn own_records_that_come_back_are_taken_where_they_extend() {
    let disk = SimDisk::default();
    let (store, _) = open(&disk, small(1));
    for time in 0..3 {
        store.append_blocking(&site(), body(1, time, 0.0)).unwrap();
    }
    let backup = {
        drop(store);
        disk.copy()
    };
    let (store, _) = open(&disk, small(2));
    for time in 3..6 {
        store.append_blocking(&site(), body(1, time, 0.0)).unwrap();
    }
    let (stream, _, _) = store.vector()[0].clone();
    let own = store.read(&stream, Lsn::ZERO, usize::MAX).unwrap();
    let (restored, _) = open(&backup, small(3));
    restored.adopt_blocking(own).unwrap();
    assert_eq!(restored.vector(), store.vector());
    let next = restored.append_blocking(&site(), body(1, 6, 0.0)).unwrap();
    assert_eq!((next.stream, next.lsn), (stream, Lsn(7)));
    let other = store.append_blocking(&site(), body(1, 6, 1.0)).unwrap();
    let branch = store.read(&other.stream, Lsn(6), usize::MAX).unwrap();
    assert!(matches!(restored.adopt_blocking(branch), Err(AdoptError::Fork { lsn: Lsn(7), .. })));
}

#[test]
fn a_cursor_cannot_stand_beyond_the_head() {
    let (store, _) = open(&SimDisk::default(), small(1));
    store.append_blocking(&site(), body(1, 1, 0.0)).unwrap();
    let (asked, head) = (Position(2), Position(1));
    assert_eq!(store.set_cursor("a", asked), Err(StateError::BeyondHead { asked, head }));
    store.set_cursor("a", head).unwrap();
    assert_eq!(store.cursors(), [(String::from("a"), head)]);
    store.forget_cursor("a").unwrap();
    assert_eq!(store.cursor("a"), Ok(Position::ZERO));
}
