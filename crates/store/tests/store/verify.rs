//! A check of a closed store finds a flipped bit at every place, says where, and changes nothing.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tidelog_record::{ChainHash, Lsn, NodeId, Seal};
use tidelog_store::segment::{Span, seal};
use tidelog_store::{Flaw, Position, Store, StoreOptions, Verification, VerifyError, verify};

use crate::model::{Author, Model, NODE, body, open, options, random_body, site, small, small_unpacked};
use crate::sim_disk::SimDisk;

pub const DIR: &str = "/store";

fn log(first: u64) -> PathBuf {
    PathBuf::from(format!("/store/log/{first:016x}.log"))
}

pub fn checked(disk: &SimDisk) -> Verification {
    verify(disk, Path::new(DIR), &mut |_| ControlFlow::Continue(())).unwrap()
}

pub fn flaws(disk: &SimDisk) -> Vec<Flaw> {
    checked(disk).damage.into_iter().map(|damage| damage.flaw).collect()
}

/// A closed store of several files with own records and others'.
fn filled() -> (SimDisk, u64) {
    filled_with(small(3))
}

fn filled_with(options: StoreOptions) -> (SimDisk, u64) {
    let disk = SimDisk::default();
    let (mut model, mut author) = (Model::default(), Author::new(1));
    let mut rng = StdRng::seed_from_u64(3);
    let (store, _) = open(&disk, options);
    for number in 0..18 {
        model.append(&store, &site(), random_body(&mut rng, number)).unwrap();
        author.write(random_body(&mut rng, number + 1000));
    }
    for records in author.records.chunks(4) {
        assert!(model.adopt(&store, records));
    }
    for number in 18..26 {
        model.append(&store, &site(), random_body(&mut rng, number)).unwrap();
    }
    let records = store.stats().records;
    drop(store);
    // A simulated lock leaves no file; a real one does.
    disk.put(Path::new("/store/lock"), &[]);
    (disk, records)
}

#[test]
fn a_whole_store_is_good_and_none_of_it_is_changed() {
    let (disk, records) = filled();
    let before: Vec<_> = disk.files().iter().map(|path| (path.clone(), disk.bytes(path))).collect();
    let operations = disk.operations();
    let found = checked(&disk);
    assert!(found.is_good(), "{found:?}");
    assert_eq!((found.node, found.records, found.streams, found.gaps), (Some(NODE), records, 2, 0));
    let logs = before.iter().filter(|(path, _)| path.starts_with("/store/log"));
    assert_eq!(found.bytes, logs.clone().map(|(_, bytes)| bytes.len() as u64).sum::<u64>());
    assert_eq!(found.files, logs.count() as u64);
    assert_eq!(disk.operations(), operations);
    assert!(before.into_iter().eq(disk.files().into_iter().map(|path| (path.clone(), disk.bytes(&path)))));
    open(&disk, small(4));
}

#[test]
fn a_seal_stands_in_a_stream_as_any_record_does() {
    let disk = SimDisk::default();
    let (mut model, mut author) = (Model::default(), Author::new(1));
    let seal = Seal { first: Lsn(1), last: Lsn(2), ordinal: 0, parts: 1, hash: [5; 16] }.encode();
    let (store, _) = open(&disk, small(3));
    for body in [body(1, 1, 1.0), body(1, 2, 2.0), seal.clone(), body(1, 3, 3.0)] {
        model.append(&store, &site(), body.clone()).unwrap();
        author.write(body);
    }
    assert!(model.adopt(&store, &author.records));
    assert_eq!(store.stats().opaque_records, 0, "it is understood");
    drop(store);
    let found = checked(&disk);
    assert!(found.is_good(), "{found:?}");
    assert_eq!((found.records, found.streams, found.gaps), (8, 2, 0));
    let (store, recovery) = open(&disk, small(4));
    assert!(recovery.findings.is_empty(), "{recovery:?}");
    model.judge(&store);
    assert_eq!(store.read(&author.stream, Lsn(2), 1).unwrap()[0].body, seal);
}

#[test]
fn one_flipped_bit_anywhere_is_found_in_its_file_and_at_or_before_its_place() {
    for options in [small_unpacked(3), small(3)] {
        one_flipped_bit_is_found(&options);
    }
}

fn one_flipped_bit_is_found(options: &StoreOptions) {
    let (disk, _) = filled_with(options.clone());
    for path in disk.files().into_iter().filter(|path| !path.ends_with("lock")) {
        let length = disk.bytes(&path).len();
        for byte in (0..length).step_by(if cfg!(target_arch = "x86_64") { 3 } else { 97 }) {
            let flip = |bytes: &mut Vec<u8>| bytes[byte] ^= 1 << (byte % 8);
            disk.change(&path, flip);
            let found = checked(&disk);
            let Some((damage, more)) = found.damage.split_first() else {
                panic!("{}: byte {byte}", path.display())
            };
            assert!(path.ends_with(&damage.file) && damage.offset <= byte as u64, "byte {byte}: {damage:?}");
            // A rotten declaration leaves the records behind it without a name; it stands in the next file again. What is told from
            // a rotten record is lost with it.
            let told = |flaw: &Flaw| {
                options.log_pack_bytes_max > 0
                    && matches!(flaw, Flaw::Rot { .. } | Flaw::MissingPositions { .. })
            };
            assert!(
                more.iter().all(|it| matches!(it.flaw, Flaw::Undeclared { .. }) || told(&it.flaw)),
                "{more:?}"
            );
            disk.change(&path, flip);
        }
    }
    assert!(checked(&disk).is_good());
}

#[test]
fn what_is_cut_lost_or_mixed_up_is_told_for_what_it_is() {
    let (whole, _) = filled();
    let logs: Vec<PathBuf> =
        whole.files().into_iter().filter(|path| path.starts_with("/store/log")).collect();
    let last = logs.last().unwrap();
    let with = |change: &dyn Fn(&SimDisk)| {
        let disk = whole.copy();
        change(&disk);
        flaws(&disk)
    };
    let cut = with(&|disk| disk.change(last, |bytes| bytes.truncate(bytes.len() - 3)));
    assert!(matches!(cut[..], [Flaw::Tail { .. }]), "{cut:?}");
    let gone = with(&|disk| disk.lose(&logs[1]));
    assert!(matches!(gone[..], [Flaw::MissingPositions { .. }]), "{gone:?}");
    let beginning = with(&|disk| disk.lose(&logs[0]));
    assert!(matches!(beginning[0], Flaw::MissingPositions { first: Position(1), .. }), "{beginning:?}");
    let headless = with(&|disk| disk.change(last, |bytes| bytes[..128].fill(0)));
    assert!(matches!(headless[..], [Flaw::Headers]), "{headless:?}");
    let nobody = with(&|disk| disk.lose(Path::new("/store/identity")));
    assert_eq!(nobody, [Flaw::Identity]);
}

#[test]
fn a_file_of_another_life_does_not_follow() {
    let life = |values: [f64; 6]| {
        let disk = SimDisk::default();
        for (chunk, entropy) in values.chunks(3).zip([1, 1]) {
            let (store, _) = open(&disk, small(entropy));
            for (time, value) in (0..).zip(chunk) {
                let body = body(u32::try_from(time).unwrap(), 1, *value);
                // Long enough that the next life begins a file of its own.
                store.append_blocking(&site(), body).unwrap();
            }
            store.append_blocking(&site(), [&[200], vec![7; 4000].as_slice()].concat()).unwrap();
        }
        disk
    };
    let (one, other) = (life([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), life([1.0, 2.0, 9.0, 4.0, 5.0, 6.0]));
    assert!(checked(&one).is_good() && checked(&other).is_good());
    let second = log(5);
    let bytes = other.bytes(&second);
    one.change(&second, |own| *own = bytes);
    let found = flaws(&one);
    assert!(matches!(found[..], [Flaw::BrokenChain { lsn: Lsn(5), .. }, ..]), "{found:?}");
}

#[test]
fn records_that_came_out_of_order_are_held_to_each_other() {
    let disk = SimDisk::default();
    let (store, _) = open(&disk, small_unpacked(1));
    let mut author = Author::new(1);
    for time in 0..6 {
        author.write(body(1, time, 0.0));
        store.adopt_blocking(author.records[author.records.len() - 1..].to_vec()).unwrap();
    }
    drop(store);
    let needle = &author.records[2].body;
    let at = disk.bytes(&log(1)).windows(needle.len()).position(|w| w == needle).unwrap();
    disk.change(&log(1), |bytes| bytes[at] ^= 1);
    let found = checked(&disk);
    assert!(matches!(found.damage[0].flaw, Flaw::Rot { .. }) && found.gaps == 1, "{found:?}");
    let (store, _) = open(&disk, small_unpacked(1));
    store.adopt_blocking(author.records.clone()).unwrap();
    drop(store);
    let found = checked(&disk);
    assert_eq!((found.damage.len(), found.gaps, found.records), (1, 0, 6));
}

#[test]
fn what_cannot_be_checked_is_refused_with_a_reason() {
    let (disk, _) = filled();
    let refused =
        |disk: &SimDisk| verify(disk, Path::new(DIR), &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(refused(&SimDisk::default()), VerifyError::NoStore(_)));
    let (store, _) = open(&disk, small(3));
    assert!(matches!(refused(&disk), VerifyError::Locked(_)));
    drop(store);
    let mut steps = 0;
    let stopped = verify(&disk, Path::new(DIR), &mut |progress| {
        steps += 1;
        assert!(progress.bytes <= progress.bytes_total);
        if steps == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(stopped, Err(VerifyError::Stopped)));
    disk.change(&log(1), |bytes| {
        for header in bytes.chunks_mut(64).take(2) {
            header[8] = 200;
            let crc = crc32fast::hash(&header[..60]).to_le_bytes();
            header[60..].copy_from_slice(&crc);
        }
    });
    assert!(matches!(refused(&disk), VerifyError::Version { found: 200, .. }));
}

#[test]
fn another_nodes_files_are_told() {
    let (disk, _) = filled();
    let other = SimDisk::default();
    let foreign = tidelog_store::StoreOptions { node: NodeId([8; 16]), ..small(3) };
    let (store, _) = open(&other, foreign);
    store.append_blocking(&site(), body(1, 1, 1.0)).unwrap();
    drop(store);
    let identity = other.bytes(Path::new("/store/identity"));
    disk.change(Path::new("/store/identity"), |bytes| *bytes = identity);
    assert!(flaws(&disk).iter().all(|flaw| *flaw == Flaw::OtherNode(NODE)));
}

#[test]
fn a_store_on_a_real_disk_is_checked_once_its_process_lets_go() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path(), options()).unwrap();
    store.append_blocking(&site(), body(1, 1, 1.0)).unwrap();
    let check = || verify(&tidelog_store::FileDisk, dir.path(), &mut |_| ControlFlow::Continue(()));
    assert!(matches!(check(), Err(VerifyError::Locked(_))));
    assert_eq!(store.head(), Position(1));
    drop(store);
    let found = check().unwrap();
    assert!(found.is_good() && found.records == 1, "{found:?}");
    Store::open(dir.path(), options()).unwrap();
}

/// A segment of another node's first records, in its place.
fn with_segment(disk: &SimDisk, author: &Author, count: usize) -> PathBuf {
    let stream = author.stream.clone();
    let (first, last) = (Lsn(1), Lsn(count as u64));
    let after = author.records[count - 1].chain;
    let span = Span { stream, ordinal: 0, parts: 1, first, last, before: ChainHash::GENESIS, after };
    let mut bodies = author.records[..count].iter().map(|record| record.body.clone());
    let mut bytes = Vec::new();
    let made = seal(&span, &mut || Ok(bodies.next()), &mut |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    });
    let [key, hash] = [span.stream.key().0, made.unwrap().hash].map(u128::from_be_bytes);
    let path = PathBuf::from(format!("/store/segments/{key:032x}-{:016x}-{count:016x}.{hash:032x}.seg", 1));
    disk.put(&path, &bytes);
    path
}

#[test]
fn a_flipped_bit_in_a_segment_is_found_and_the_log_goes_on_where_it_ends() {
    let (disk, mut author) = (SimDisk::default(), Author::new(1));
    let mut rng = StdRng::seed_from_u64(5);
    for number in 0..12 {
        author.write(random_body(&mut rng, number));
    }
    let (store, _) = open(&disk, small(1));
    store.adopt_blocking(author.records.clone()).unwrap();
    drop(store);
    let path = with_segment(&disk, &author, 7);
    let found = checked(&disk);
    assert!(found.is_good(), "{found:?}");
    assert_eq!((found.segments, found.records, found.gaps), (1, 12, 0));
    for byte in 0..disk.bytes(&path).len() {
        let flip = |bytes: &mut Vec<u8>| bytes[byte] ^= 1 << (byte % 8);
        disk.change(&path, flip);
        match verify(&disk, Path::new(DIR), &mut |_| ControlFlow::Continue(())) {
            Ok(found) => {
                let [damage] = found.damage.as_slice() else { panic!("byte {byte}: {found:?}") };
                assert!(matches!(damage.flaw, Flaw::Segment { .. }) && path.ends_with(&damage.file));
            }
            Err(error) => panic!("byte {byte}: {error}"),
        }
        disk.change(&path, flip);
    }
}
