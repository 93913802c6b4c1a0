//! A store that sealed, merged, trimmed and dropped, one of whose files is something else: it opens or says why not, answers or
//! says why not, does its upkeep, and opens again. Checksums are put right where the input asks for it, so that what is behind
//! them is reached.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use tidelog_record::{Lsn, NodeId};
use tidelog_sim::disk::SimDisk;
use tidelog_store::{Keep, Position, StateIn, Store, StoreOptions, UpkeepOptions};

const DIR: &str = "/store";
/// Kinds of file, by the input's first byte.
const KINDS: [&str; 3] = ["map", "gap", "seg"];
/// A bit of an input's first byte.
const MENDED: u8 = 0x80;
/// Where the checksum of a map and of a note stands.
const MAP_CRC_AT: usize = 54;
const GAP_CRC_AT: usize = 10;

fn open(disk: &SimDisk) -> Option<Store> {
    let mut upkeep = UpkeepOptions {
        seal_points: 30,
        seal_when_idle: Duration::ZERO,
        log_keep_bytes_max: 0,
        thread: false,
        ..UpkeepOptions::default()
    };
    upkeep.retention.all = Keep { age: None, bytes: Some(3_000) };
    let node = NodeId([7; 16]);
    let options = StoreOptions {
        state: StateIn::Memory,
        entropy: 7,
        log_file_bytes_max: 4096,
        upkeep,
        ..StoreOptions::new(node)
    };
    Store::open_on(Arc::new(disk.clone()), Path::new(DIR), options).ok().map(|(store, _)| store)
}

static PACKED: LazyLock<SimDisk> = LazyLock::new(|| {
    let disk = SimDisk::default();
    let store = open(&disk).unwrap();
    let site = "plant".parse().unwrap();
    let body = super::record::batch().encode().unwrap();
    for round in 0..300 {
        store.append_blocking(&site, body.clone()).unwrap();
        if round % 10 == 0 {
            store.upkeep(Instant::now()).unwrap();
        }
    }
    disk
});

fn file(kind: &str) -> PathBuf {
    let is_kind = |path: &PathBuf| path.extension().is_some_and(|found| found == kind);
    PACKED.files().into_iter().find(is_kind).unwrap_or_else(|| panic!("the store has no {kind}"))
}

pub(super) fn packed_seeds() -> Vec<Vec<u8>> {
    let seed = |(number, kind): (u8, &&str)| [vec![number], PACKED.bytes(&file(kind))].concat();
    let whole: Vec<Vec<u8>> = (0u8..).zip(&KINDS).map(seed).collect();
    let mended = whole.iter().map(|seed| [&[seed[0] | MENDED], &seed[1..]].concat());
    mended.chain(whole.clone()).collect()
}

/// Both have a checksum over all but itself.
fn mend(kind: &str, bytes: &mut [u8]) {
    let at = match kind {
        "map" => MAP_CRC_AT,
        "gap" => GAP_CRC_AT,
        _ => return,
    };
    if let Some(behind) = bytes.get(at + 4..) {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&bytes[..at]);
        hasher.update(behind);
        bytes[at..at + 4].copy_from_slice(&hasher.finalize().to_le_bytes());
    }
}

/// Asks for everything.
fn ask(store: &Store) {
    for (stream, upto, _) in store.vector() {
        black_box(store.read(&stream, Lsn::ZERO, usize::MAX).is_ok());
        black_box(store.chain_at(&stream, upto).is_ok());
    }
    for site in store.sites() {
        black_box(store.scan(&site, &|_| true, i64::MIN..=i64::MAX).is_ok());
        black_box(
            store.series(&site, &|_| true).is_ok_and(|series| store.last(&site, &series, &|| false).is_ok()),
        );
    }
    let mut at = Position::ZERO;
    while let Ok(next) = store.follow(at, 10_000) {
        let Some((last, _)) = next.last() else { break };
        assert!(*last > at, "a cursor goes on");
        at = *last;
    }
}

pub(super) fn packed(input: &[u8]) {
    let Some((mode, bytes)) = input.split_first() else { return };
    let kind = KINDS[usize::from(mode & !MENDED) % KINDS.len()];
    let disk = PACKED.copy();
    let mut bytes = bytes.to_vec();
    if mode & MENDED != 0 {
        mend(kind, &mut bytes);
    }
    disk.put(&file(kind), &bytes);
    let Some(store) = open(&disk) else { return };
    ask(&store);
    store.scrub();
    black_box(store.upkeep(Instant::now()).is_ok());
    ask(&store);
    let body = super::record::batch().encode().unwrap();
    let appended = store.append_blocking(&"plant".parse().unwrap(), body);
    assert!(appended.is_ok(), "a whole disk takes a record: {appended:?}");
    drop(store);
    let again = open(&disk).expect("what was open opens again");
    ask(&again);
}
