//! Rot: one flipped bit anywhere is found, reported and kept apart, and the rest is served.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::tempdir;
use tidelog_record::Lsn;
use tidelog_store::{Finding, Position, Store, StoreOptions};

use crate::model::{
    Author, Model, body, judge_answers, open, options, random_body, site, small, small_unpacked,
};
use crate::sim_disk::SimDisk;

fn log(first: u64) -> PathBuf {
    PathBuf::from(format!("/store/log/{first:016x}.log"))
}

/// A store of several files, with what it holds.
fn filled(seed: u64, options: StoreOptions) -> (SimDisk, Model) {
    let disk = SimDisk::default();
    let mut model = Model::default();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut author = Author::new(1);
    let (store, _) = open(&disk, options);
    for number in 0..40 {
        model.append(&store, &site(), random_body(&mut rng, number)).unwrap();
        author.write(random_body(&mut rng, number + 1000));
    }
    for records in author.records.chunks(7) {
        assert!(model.adopt(&store, records));
    }
    drop(store);
    (disk, model)
}

fn logs(disk: &SimDisk) -> Vec<PathBuf> {
    disk.files().into_iter().filter(|path| path.extension().is_some_and(|e| e == "log")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(target_arch = "x86_64") { 60 } else { 4 }))]

    #[test]
    fn one_flipped_bit_costs_at_most_one_record_of_each_kind_and_is_reported(seed in any::<u64>()) {
        let (disk, model) = filled(seed % 4, small_unpacked(seed % 4));
        let mut rng = StdRng::seed_from_u64(seed);
        let logs = logs(&disk);
        let path = &logs[rng.random_range(0..logs.len())];
        let length = disk.bytes(path).len();
        let bit = rng.random_range(0..length * 8);
        disk.change(path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        let (store, recovery) = open(&disk, small_unpacked(seed));
        let held = judge_answers(&store);
        prop_assert!(held.iter().all(|record| model.given.contains(&record.body)));
        // A second copy of the header makes up for the first; all else costs a frame. A declaration stands again later, and in
        // the next file, so its loss costs no record.
        let lost = model.acknowledged.iter().filter(|(place, _)| !held.iter().any(|r| (&r.stream, r.lsn) == (&place.0, place.1)));
        prop_assert!(lost.count() <= 1, "{recovery:?}");
        prop_assert_eq!(recovery.findings.is_empty(), bit / 8 < 128);
        // What the store does next is as sound as ever, and does not give a place of its own stream away twice.
        let mut after = Model::default();
        after.given.extend(model.given.iter().cloned());
        for number in 5000..5010 {
            let appended = after.append(&store, &site(), random_body(&mut rng, number)).unwrap();
            prop_assert!(!model.acknowledged.contains_key(&(appended.stream, appended.lsn)));
        }
        after.judge(&store);
        drop(store);
        let (store, _) = open(&disk, small_unpacked(seed + 1));
        after.judge(&store);
    }

    /// The bit is flipped in one file. What stands before it, where packing begins anew behind it, and in other files is read as ever.
    #[test]
    fn one_flipped_bit_in_packed_records_costs_those_told_from_it_and_no_other(seed in any::<u64>(), pack in prop::sample::select(vec![600_u64, 1500, 1 << 20])) {
        let options = |seed| StoreOptions { log_pack_bytes_max: pack, ..small(seed) };
        let (disk, model) = filled(seed % 4, options(seed % 4));
        let mut rng = StdRng::seed_from_u64(seed);
        let before = open(&disk.copy(), options(seed)).0.follow(Position::ZERO, usize::MAX).unwrap();
        let logs = logs(&disk);
        let path = &logs[rng.random_range(0..logs.len())];
        let bit = rng.random_range(0..disk.bytes(path).len() * 8);
        disk.change(path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        let (store, recovery) = open(&disk, options(seed));
        let held = judge_answers(&store);
        prop_assert!(held.iter().all(|record| model.given.contains(&record.body)));
        prop_assert_eq!(recovery.findings.is_empty(), bit / 8 < 128);
        let after = store.follow(Position::ZERO, usize::MAX).unwrap();
        let lost: Vec<u64> = before.iter().filter(|it| !after.contains(it)).map(|(at, _)| at.0).collect();
        let first = |path: &PathBuf| u64::from_str_radix(path.file_stem().unwrap().to_str().unwrap(), 16).unwrap();
        let next = logs.iter().map(first).filter(|it| *it > first(path)).min().unwrap_or(u64::MAX);
        prop_assert!(lost.iter().all(|at| (first(path)..next).contains(at)), "{lost:?}: {recovery:?}");
        // The frame that is rotten, those told from it, and the one with which that many bytes were exceeded.
        let rot = recovery.findings.iter().filter_map(|it| if let Finding::Rot { bytes, .. } = it { Some(*bytes) } else { None });
        prop_assert!(rot.sum::<u64>() <= pack + 2 * 2048, "{recovery:?}");
        drop(store);
        let (store, _) = open(&disk, options(seed + 1));
        judge_answers(&store);
    }

    #[test]
    fn any_garbage_in_the_log_is_survived(
        seed in any::<u64>(), from in 0usize..6000, garbage in prop::collection::vec(any::<u8>(), 1..600),
    ) {
        let (disk, model) = filled(seed % 4, small(seed % 4));
        let mut rng = StdRng::seed_from_u64(seed);
        let logs = logs(&disk);
        let path = &logs[rng.random_range(0..logs.len())];
        disk.change(path, |bytes| {
            let from = from % bytes.len();
            if rng.random_bool(0.3) {
                bytes.truncate(from);
            }
            bytes.splice(from.., garbage);
        });
        let before: usize = disk.files().len();
        let (store, _) = open(&disk, small(seed));
        let held = judge_answers(&store);
        prop_assert!(held.iter().all(|record| model.given.contains(&record.body)));
        prop_assert!(disk.files().len() >= before, "nothing is deleted");
    }
}

#[test]
fn a_rotten_record_in_the_middle_is_set_apart_and_comes_back_from_a_peer() {
    let disk = SimDisk::default();
    let (store, _) = open(&disk, small_unpacked(1));
    let mut author = Author::new(1);
    for time in 0..9 {
        author.write(body(1, time, 0.0));
        store.adopt_blocking(author.records[author.records.len() - 1..].to_vec()).unwrap();
    }
    drop(store);
    let whole = disk.bytes(&log(1));
    let needle = &author.records[4].body;
    let at = whole.windows(needle.len()).position(|w| w == needle).unwrap();
    disk.change(&log(1), |bytes| bytes[at + 3] ^= 0x10);
    let (store, recovery) = open(&disk, small_unpacked(1));
    assert!(matches!(recovery.findings[0], Finding::Rot { .. }));
    assert_eq!((store.stats().records, store.stats().rot), (8, 1));
    assert_eq!(store.vector()[0].1, Lsn(4), "a vector never claims what cannot be read");
    assert_eq!(store.held(9)[0].above, [(Lsn(6), Lsn(9))], "what stands behind it can be read");
    let positions: Vec<u64> =
        store.follow(Position::ZERO, usize::MAX).unwrap().iter().map(|(p, _)| p.0).collect();
    assert_eq!(positions, [1, 2, 3, 4, 6, 7, 8, 9]);
    let adopted = store.adopt_blocking(author.records[4..].to_vec()).unwrap();
    assert_eq!((adopted.stored, adopted.held), (1, 4));
    let whole_again = |store: &Store| {
        assert_eq!((store.vector()[0].1, store.held(9)[0].above.as_slice()), (Lsn(9), &[][..]));
        assert_eq!(store.read(&author.stream, Lsn::ZERO, usize::MAX).unwrap(), author.records);
        judge_answers(store);
    };
    whole_again(&store);
    drop(store);
    let (store, _) = open(&disk, small_unpacked(1));
    whole_again(&store);
}

#[test]
fn a_rotten_last_record_is_kept_in_the_quarantine_folder() {
    let disk = SimDisk::default();
    let (store, _) = open(&disk, small(1));
    for time in 0..3 {
        store.append_blocking(&site(), body(1, time, 0.0)).unwrap();
    }
    drop(store);
    let before = disk.bytes(&log(1)).len();
    disk.change(&log(1), |bytes| *bytes.last_mut().unwrap() ^= 1);
    let (store, recovery) = open(&disk, small(1));
    let [Finding::TornTail { file, offset, bytes }] = recovery.findings.as_slice() else {
        panic!("{recovery:?}")
    };
    assert_eq!(offset + bytes, before as u64);
    let kept = disk.bytes(&PathBuf::from(format!("/store/quarantine/{file}.{offset}.tail")));
    assert_eq!(kept.len() as u64, *bytes);
    assert_eq!(store.head(), Position(2));
}

#[test]
fn a_file_without_a_good_header_is_kept_and_the_rest_served() {
    let (disk, model) = filled(1, small(1));
    let logs = logs(&disk);
    for (number, path) in logs.iter().enumerate() {
        let disk = disk.copy();
        let bytes = disk.bytes(path);
        disk.change(path, |bytes| bytes[..128].fill(0xff));
        let (store, recovery) = open(&disk, small(9));
        assert!(recovery.findings.iter().any(|f| matches!(f, Finding::FileQuarantined { .. })));
        assert!(recovery.findings.iter().any(|f| matches!(f, Finding::RunRenewed { .. })));
        let held = judge_answers(&store);
        assert!(held.iter().all(|record| model.given.contains(&record.body)));
        assert!(!held.is_empty() || logs.len() == 1, "file {number}");
        let kept = Path::new("/store/quarantine").join(path.file_name().unwrap());
        assert_eq!(disk.bytes(&kept)[128..], bytes[128..]);
    }
}

#[test]
fn a_file_cut_within_its_headers_is_set_aside_and_no_record_is_written_where_a_header_belongs() {
    for length in [0, 1, 63, 64, 65, 100, 127] {
        let (disk, _) = filled(2, small(2));
        let last = logs(&disk).pop().unwrap();
        disk.change(&last, |bytes| bytes.truncate(length));
        let (store, recovery) = open(&disk, small(9));
        assert!(recovery.findings.iter().any(|f| matches!(f, Finding::FileQuarantined { .. })));
        let mut after = Model::default();
        after.append(&store, &site(), body(1, 1, 1.0)).unwrap();
        drop(store);
        let (store, _) = open(&disk, small(10));
        let held = judge_answers(&store);
        for (place, (_, body)) in &after.acknowledged {
            assert!(held.iter().any(|r| (&r.stream, r.lsn, &r.body) == (&place.0, place.1, body)));
        }
    }
}

#[test]
fn a_damaged_or_lost_identity_is_made_anew_from_the_log() {
    let (disk, model) = filled(1, small(1));
    let run = open(&disk, small(5)).0.run();
    for damage in 0..3 {
        let disk = disk.copy();
        match damage {
            0 => disk.lose(Path::new("/store/identity")),
            1 => disk.change(Path::new("/store/identity"), |bytes| bytes[20] ^= 4),
            _ => disk.change(Path::new("/store/identity"), Vec::clear),
        }
        let (store, recovery) = open(&disk, small(77));
        assert_eq!(
            (recovery.findings.as_slice(), recovery.created),
            (&[Finding::IdentityRebuilt][..], false)
        );
        assert_eq!(store.run(), run);
        model.judge(&store);
        drop(store);
        assert_eq!(open(&disk, small(78)).1.findings, []);
    }
}

#[test]
fn rot_that_comes_while_the_store_is_open_is_an_error_and_never_an_answer() {
    let disk = SimDisk::default();
    // What was just written would be answered from memory.
    let (store, _) = open(&disk, StoreOptions { recent_bytes_max: 0, ..small(1) });
    for time in 0..5 {
        store.append_blocking(&site(), body(1, time, 0.5)).unwrap();
    }
    let length = disk.bytes(&log(1)).len();
    let answer = store.scan(&site(), &|_| true, i64::MIN..=i64::MAX).unwrap();
    for byte in 128..length {
        disk.change(&log(1), |bytes| bytes[byte] ^= 0x20);
        if let Ok(found) = store.scan(&site(), &|_| true, i64::MIN..=i64::MAX) {
            assert_eq!(found, answer, "byte {byte}");
        }
        if let Ok(found) = store.follow(Position::ZERO, usize::MAX) {
            assert_eq!(found.len(), 5, "byte {byte}");
        }
        disk.change(&log(1), |bytes| bytes[byte] ^= 0x20);
    }
    assert!(store.stats().failed_reads > 0);
}

#[test]
fn deleting_or_corrupting_the_state_folder_costs_cursors_and_nothing_else() {
    for damage in 0..4 {
        let dir = tempdir().unwrap();
        let (store, _) = Store::open(dir.path(), options()).unwrap();
        for time in 0..10 {
            store.append_blocking(&site(), body(1, time, 0.0)).unwrap();
            store.set_cursor("mqtt", Position(1)).unwrap();
        }
        store.close().unwrap();
        drop(store);
        let state = dir.path().join("state");
        let db = state.join("db");
        match damage {
            0 => std::fs::remove_dir_all(&state).unwrap(),
            1 => std::fs::write(&db, vec![0x5a; 4096]).unwrap(),
            2 => std::fs::write(state.join("conf"), b"garbage").unwrap(),
            _ => {
                let mut bytes = std::fs::read(&db).unwrap();
                bytes.iter_mut().for_each(|byte| *byte ^= 0xff);
                std::fs::write(&db, bytes).unwrap();
            }
        }
        let (store, recovery) = Store::open(dir.path(), options()).unwrap();
        assert_eq!(store.stats().records, 10);
        let cursor = store.cursor("mqtt").unwrap();
        assert!(cursor <= Position(1));
        let reported = recovery.findings.iter().any(|f| matches!(f, Finding::StateRebuilt { .. }));
        assert!(reported || cursor == Position(1), "damage {damage}: {recovery:?}");
        store.set_cursor("mqtt", Position(10)).unwrap();
        store.close().unwrap();
        drop(store);
        let (store, recovery) = Store::open(dir.path(), options()).unwrap();
        assert_eq!((store.cursor("mqtt").unwrap(), recovery.findings), (Position(10), vec![]));
    }
}

#[test]
fn a_flipped_bit_in_the_state_folder_stops_no_start() {
    let dir = tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), options()).unwrap();
    for time in 0..10 {
        store.append_blocking(&site(), body(1, time, 0.0)).unwrap();
        store.set_cursor(&format!("cursor {time}"), Position(1)).unwrap();
    }
    store.close().unwrap();
    drop(store);
    let db = dir.path().join("state").join("db");
    let good = std::fs::read(&db).unwrap();
    let used = good.iter().rposition(|byte| *byte != 0).unwrap();
    let mut rng = StdRng::seed_from_u64(4);
    for _ in 0..if cfg!(target_arch = "x86_64") { 20 } else { 3 } {
        let bit = rng.random_range(0..used * 8);
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&db, bytes).unwrap();
        let (store, _) = Store::open(dir.path(), options()).unwrap();
        assert_eq!(store.stats().records, 10);
        assert!(store.cursors().iter().all(|(name, at)| name.starts_with("cursor ") && *at <= Position(1)));
        store.set_cursor("after", Position(3)).unwrap();
        store.close().unwrap();
    }
}
