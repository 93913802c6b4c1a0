//! A check of a closed store that has sealed, merged, trimmed and dropped: clean when it is whole, and rot in any file of any kind is
//! told as what it is, once, in its place.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tidelog_record::{Lsn, Record, StreamId};
use tidelog_store::{Flaw, Keep, Stats, Store, StoreOptions, Verification, VerifyError, verify};

use crate::model::{Author, body, open, site, small};
use crate::sim_disk::SimDisk;
use crate::verify::{DIR, checked, flaws};

/// Small files, and of the site's segments only the newest.
fn keeping(seed: u64, bytes: Option<u64>) -> StoreOptions {
    let mut options = small(seed);
    options.upkeep.retention.all = Keep { age: None, bytes };
    options
}

fn files(disk: &SimDisk, suffix: &str) -> Vec<PathBuf> {
    disk.files().into_iter().filter(|path| path.extension().is_some_and(|found| found == suffix)).collect()
}

/// A closed store with files of every kind: log files, maps, segments, merged ones and notes of dropped ones.
fn kept(bytes: Option<u64>) -> (SimDisk, Stats) {
    let (disk, mut author) = (SimDisk::default(), Author::new(1));
    let (store, _) = open(&disk, keeping(3, bytes));
    for time in 0..260i64 {
        store
            .append_blocking(&site(), body(u32::try_from(time % 5).unwrap(), time, time as f64 / 8.0))
            .unwrap();
        if time % 40 == 0 {
            store.upkeep(Instant::now()).unwrap();
        }
        // Another author's records, which it never seals, come at the end: what they stand in is not trimmed.
        if time > 230 {
            author.write(body(9, time, 1.0));
            store.adopt_blocking(vec![author.records.last().unwrap().clone()]).unwrap();
        }
    }
    // The first round seals what is left, and the second finds that it is too much.
    store.upkeep(Instant::now()).unwrap();
    store.upkeep(Instant::now()).unwrap();
    let stats = store.stats();
    drop(store);
    // A simulated lock leaves no file; a real one does.
    disk.put(&Path::new(DIR).join("lock"), &[]);
    (disk, stats)
}

/// A store of which policy dropped something.
fn thinned() -> (SimDisk, Stats) {
    kept(Some(1_500))
}

fn of_stream(flaw: &Flaw) -> Option<(u64, u64)> {
    match flaw {
        Flaw::Lost { first, last, .. } | Flaw::Awaited { first, last, .. } => Some((first.0, last.0)),
        _ => None,
    }
}

/// First and last LSN in the name of a segment or note.
fn range(path: &Path) -> (u64, u64) {
    let name = path.file_name().unwrap().to_str().unwrap();
    let numbers: Vec<u64> = name
        .split('.')
        .next()
        .unwrap()
        .split('-')
        .skip(1)
        .map(|n| u64::from_str_radix(n, 16).unwrap())
        .collect();
    (numbers[0], numbers[1])
}

#[test]
fn a_store_that_sealed_merged_trimmed_and_dropped_is_good() {
    for bytes in [None, Some(1_500)] {
        let (disk, stats) = kept(bytes);
        assert!(stats.segments_merged > 0 && stats.files_trimmed > 1, "{stats:?}");
        assert_eq!(stats.records_dropped > 0, bytes.is_some(), "{stats:?} {:?}", disk.files());
        let found = checked(&disk);
        assert!(found.is_good(), "{found:?}");
        assert_eq!((found.records, found.records_dropped), (stats.records, stats.records_dropped));
        assert_eq!((found.streams, found.gaps), (2, 0));
        assert_eq!((found.files, found.maps), (stats.files, stats.files_trimmed));
        assert_eq!(found.segments, stats.segments);
        let told: u64 = ["log", "map", "seg", "gap"]
            .into_iter()
            .flat_map(|suffix| files(&disk, suffix))
            .map(|path| disk.bytes(&path).len() as u64)
            .sum();
        assert_eq!(found.bytes, told, "every byte is told of once");
    }
}

#[test]
fn a_flipped_bit_in_a_file_of_any_kind_is_told_of_that_file_and_of_no_other() {
    let (disk, _) = thinned();
    let mut rng = StdRng::seed_from_u64(8);
    for (suffix, label) in [("seg", "segment"), ("gap", "note"), ("map", "map")] {
        let all = files(&disk, suffix);
        assert!(!all.is_empty(), "{suffix}");
        for path in all {
            for _ in 0..if cfg!(target_arch = "x86_64") { 60 } else { 3 } {
                let byte = rng.random_range(0..disk.bytes(&path).len());
                let bit = 1u8 << rng.random_range(0..8u8);
                disk.change(&path, |bytes| bytes[byte] ^= bit);
                let found = checked(&disk);
                let [damage] = found.damage.as_slice() else { panic!("{path:?} byte {byte}: {found:?}") };
                assert!(
                    path.ends_with(&damage.file) && damage.offset <= byte as u64,
                    "byte {byte}: {damage:?}"
                );
                assert_eq!(damage.flaw.label(), label, "byte {byte}");
                // What the newest segment held may still stand in the log.
                assert!(suffix == "seg" || found.gaps == u64::from(suffix == "gap"), "{found:?}");
                disk.change(&path, |bytes| bytes[byte] ^= bit);
            }
        }
    }
    assert!(checked(&disk).is_good());
}

#[test]
fn a_file_cut_short_or_emptied_is_told() {
    let (disk, _) = thinned();
    for (suffix, label) in [("seg", "segment"), ("gap", "note"), ("map", "map")] {
        let path = &files(&disk, suffix)[0];
        let whole = disk.bytes(path);
        for length in [0, 1, 9, whole.len() / 2, whole.len() - 1] {
            disk.change(path, |bytes| bytes.truncate(length));
            let found = checked(&disk);
            assert!(found.damage.iter().any(|damage| damage.flaw.label() == label), "{length}: {found:?}");
            disk.change(path, |bytes| bytes.clone_from(&whole));
        }
    }
}

#[test]
fn what_a_map_names_and_nothing_holds_is_lost() {
    let (whole, _) = kept(None);
    let mut lost = 0;
    for path in files(&whole, "seg") {
        let disk = whole.copy();
        disk.lose(&path);
        let (found, (first, last)) = (checked(&disk), range(&path));
        // The newest may still stand in the log.
        assert_eq!(found.gaps, u64::from(!found.damage.is_empty()), "{found:?}");
        lost += found.damage.len();
        for damage in &found.damage {
            let (from, to) = of_stream(&damage.flaw).unwrap();
            assert!(damage.file.ends_with(".map") && first <= from && to <= last, "{damage:?}");
        }
    }
    assert!(lost > 0);
    let (whole, _) = thinned();
    let disk = whole.copy();
    disk.lose(&files(&disk, "gap")[0]);
    assert!(flaws(&disk).iter().any(|flaw| matches!(flaw, Flaw::Lost { .. })));
    let disk = whole.copy();
    disk.lose(&files(&disk, "map")[0]);
    assert!(matches!(flaws(&disk)[..], [Flaw::MissingPositions { .. }]));
}

#[test]
fn a_file_under_the_name_of_another_is_told() {
    for suffix in ["seg", "gap", "map"] {
        let (disk, _) = thinned();
        let one = files(&disk, suffix).remove(0);
        let should = one.file_name().unwrap().to_str().unwrap().to_owned();
        // Another last digit of the position or LSN.
        let digit = should.find('.').unwrap() - 1;
        let mut wrong = should.clone();
        wrong.replace_range(digit..=digit, if wrong[digit..].starts_with('a') { "b" } else { "a" });
        let other = one.with_file_name(wrong);
        disk.put(&other, &disk.bytes(&one));
        disk.lose(&one);
        let found = checked(&disk);
        let told = found.damage.iter().find(|damage| other.ends_with(&damage.file));
        assert_eq!(told.map(|damage| &damage.flaw), Some(&Flaw::Misnamed { should }), "{found:?}");
    }
}

/// The store with its first segment rotten, set apart and noted; what was in it.
pub fn rotted() -> (SimDisk, PathBuf, Vec<Record>) {
    let (disk, _) = kept(None);
    let (store, _) = open(&disk, small(4));
    let stream = StreamId { site: site(), node: store.node(), run: store.run() };
    let records = store.read(&stream, Lsn::ZERO, usize::MAX).unwrap();
    drop(store);
    let rotten = files(&disk, "seg").into_iter().find(|path| range(path).0 == 1).unwrap();
    disk.change(&rotten, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
    });
    let (store, _) = open(&disk, small(5));
    store.scrub();
    store.upkeep(Instant::now()).unwrap();
    assert_eq!(store.stats().segments_rotten, 1);
    drop(store);
    (disk, rotten, records)
}

#[test]
fn rot_that_was_set_apart_is_told_until_its_records_are_back() {
    let (disk, rotten, records) = rotted();
    let found = checked(&disk);
    let [damage] = found.damage.as_slice() else { panic!("{found:?}") };
    assert_eq!((of_stream(&damage.flaw), damage.flaw.label()), (Some(range(&rotten)), "awaited"));
    assert!(files(&disk, "gap")[0].ends_with(&damage.file));
    assert_eq!((found.gaps, found.records_dropped), (1, 0));
    let (store, _) = open(&disk, small(6));
    store.adopt_blocking(records).unwrap();
    drop(store);
    assert_eq!(files(&disk, "gap").len(), 1);
    let found = checked(&disk);
    assert!(found.is_good() && found.gaps == 0, "the log holds them: {found:?}");
    let (store, _) = open(&disk, small(7));
    store.upkeep(Instant::now()).unwrap();
    drop(store);
    assert_eq!(files(&disk, "gap").len(), 0);
    assert!(checked(&disk).is_good());
}

/// A closed store, and the last bytes of every whole file that it ever had and has no more.
fn with_past(bytes: Option<u64>) -> (SimDisk, BTreeMap<PathBuf, Vec<u8>>) {
    let disk = SimDisk::default();
    let (store, _) = open(&disk, keeping(3, bytes));
    let mut past = BTreeMap::new();
    for time in 0..260i64 {
        store.append_blocking(&site(), body(1, time, time as f64)).unwrap();
        if time % 20 == 0 {
            // The last log file still grows.
            let last = files(&disk, "log").pop();
            let files = disk.files().into_iter().filter(|path| Some(path) != last.as_ref());
            past.extend(files.map(|path| (path.clone(), disk.bytes(&path))));
            store.upkeep(Instant::now()).unwrap();
        }
    }
    drop(store);
    let now = disk.files();
    past.retain(|path, _| !now.contains(path));
    (disk, past)
}

#[test]
fn what_a_crash_leaves_beside_its_successor_is_no_damage_counts_once_and_goes() {
    for bytes in [None, Some(600)] {
        let (whole, past) = with_past(bytes);
        let before = checked(&whole);
        assert!(before.is_good(), "{before:?}");
        let begun = Path::new(DIR).join("segments/begun.new");
        let mut kinds = BTreeSet::new();
        for (path, bytes) in past {
            let disk = whole.copy();
            disk.put(&path, &bytes);
            disk.put(&begun, b"half a segment");
            kinds.insert(path.extension().unwrap().to_owned());
            let found = checked(&disk);
            assert!(found.is_good(), "{path:?}: {found:?}");
            let all = |found: &Verification| (found.records + found.records_dropped, found.gaps);
            assert_eq!(all(&found), all(&before));
            let (store, recovery) = open(&disk, small(9));
            assert_eq!(recovery.findings, [], "{path:?}");
            assert_eq!(store.vector(), open(&whole.copy(), small(9)).0.vector());
            store.upkeep(Instant::now()).unwrap();
            assert!(!disk.files().contains(&path) && !disk.files().contains(&begun), "{path:?}");
        }
        assert_eq!(kinds.len(), 2, "segments and log files: {kinds:?}");
    }
}

#[test]
fn a_newer_version_of_any_file_is_refused_by_name() {
    let (whole, _) = thinned();
    // Where the checksum of each kind stands, and what it covers is all else.
    for (suffix, crc_at, newest) in [("gap", 10, 2), ("map", 54, 1)] {
        let disk = whole.copy();
        let path = &files(&disk, suffix)[0];
        disk.change(path, |bytes| {
            bytes[8] = 77;
            let crc = crc32fast::hash(&[&bytes[..crc_at], &bytes[crc_at + 4..]].concat());
            bytes[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
        });
        let refused = verify(&disk, Path::new(DIR), &mut |_| ControlFlow::Continue(())).unwrap_err();
        assert!(
            matches!(
                &refused,
                VerifyError::Version { path: named, found: 77, supported } if named == path && *supported == newest
            ),
            "{refused}"
        );
    }
}

#[test]
fn a_check_can_be_ended_at_each_step_and_never_goes_back() {
    let (disk, _) = thinned();
    let mut steps = 0;
    let mut at = 0;
    verify(&disk, Path::new(DIR), &mut |progress| {
        steps += 1;
        assert!(at <= progress.bytes && progress.bytes <= progress.bytes_total);
        at = progress.bytes;
        ControlFlow::Continue(())
    })
    .unwrap();
    for end in 1..=steps {
        let mut step = 0;
        let stopped = verify(&disk, Path::new(DIR), &mut |_| {
            step += 1;
            if step == end { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(matches!(stopped, Err(VerifyError::Stopped)), "{end} of {steps}");
    }
}

#[test]
fn a_store_on_a_real_disk_that_dropped_and_trimmed_is_good() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), keeping(3, Some(600))).unwrap();
    for time in 0..200i64 {
        store.append_blocking(&site(), body(1, time, time as f64)).unwrap();
        if time % 40 == 0 {
            store.upkeep(Instant::now()).unwrap();
        }
    }
    store.upkeep(Instant::now()).unwrap();
    store.upkeep(Instant::now()).unwrap();
    drop(store);
    let found = verify(&tidelog_store::FileDisk, dir.path(), &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(found.is_good() && found.records_dropped > 0 && found.maps > 0, "{found:?}");
}
