//! What stands on disks: the store's files and a sensor's flash. A fuzzer does not guess checksums, so the input may ask for them to
//! be put right: then what is behind them is reached.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use tidelog_flashlog::{FlashLog, PAYLOAD_BYTES_MAX};
use tidelog_record::{ChainHash, Lsn, NodeId, Record, Run, StreamId};
use tidelog_sim::disk::SimDisk;
use tidelog_sim::flash::SimFlash;
use tidelog_store::{Position, StateIn, Store, StoreOptions};

const DIR: &str = "/store";
const LOG: &str = "/store/log/0000000000000001.log";
const IDENTITY: &str = "/store/identity";
const HEADER_BYTES: usize = 64;
const FRAMES_AT: usize = 128;
const FRAME_HEAD_BYTES: usize = 8;
/// Bits of an input's first byte.
const MENDED: u8 = 1;
const OF_IDENTITY: u8 = 2;

fn options() -> StoreOptions {
    StoreOptions { state: StateIn::Memory, entropy: 7, ..StoreOptions::new(NodeId([7; 16])) }
}

fn open(disk: &SimDisk) -> Option<Store> {
    Store::open_on(Arc::new(disk.clone()), Path::new(DIR), options()).ok().map(|(store, _)| store)
}

/// A small store's files, whole and cut short.
pub(super) fn log_seeds() -> Vec<Vec<u8>> {
    let disk = SimDisk::default();
    let store = open(&disk).unwrap();
    let body = super::record::batch().encode().unwrap();
    let site = "plant".parse().unwrap();
    for _ in 0..3 {
        store.append_blocking(&site, body.clone()).unwrap();
    }
    let stream = StreamId { site, node: NodeId([9; 16]), run: Run(4) };
    let chain = ChainHash::GENESIS.after(&stream.key(), Lsn(1), &body);
    store.adopt_blocking(vec![Record { stream, lsn: Lsn(1), chain, body }]).unwrap();
    drop(store);
    let with = |mode: u8, bytes: &[u8]| [&[mode], bytes].concat();
    let log = disk.bytes(Path::new(LOG));
    let cut = log.get(..log.len() - 50).unwrap();
    vec![
        with(0, &log),
        with(MENDED, &log),
        with(MENDED, cut),
        with(OF_IDENTITY, &disk.bytes(Path::new(IDENTITY))),
    ]
}

/// Puts the checksums of both headers and of every frame right, as far as lengths lead.
fn mend(log: &mut [u8]) {
    for at in [0, HEADER_BYTES] {
        let Some((checked, crc)) =
            log.get_mut(at..at + HEADER_BYTES).and_then(|header| header.split_last_chunk_mut::<4>())
        else {
            return;
        };
        *crc = crc32fast::hash(checked).to_le_bytes();
    }
    let Some(salt) = log.get(48..56).map(<[u8]>::to_vec) else { return };
    let mut at = FRAMES_AT;
    while let Some((head, rest)) =
        log.get_mut(at..).and_then(|rest| rest.split_first_chunk_mut::<FRAME_HEAD_BYTES>())
    {
        let [l0, l1, l2, l3, ..] = *head;
        let Some(content) =
            usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).ok().and_then(|l| rest.get(..l))
        else {
            return;
        };
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&salt);
        hasher.update(&(at as u64).to_le_bytes());
        hasher.update(&[l0, l1, l2, l3]);
        hasher.update(content);
        let [c0, c1, c2, c3] = hasher.finalize().to_le_bytes();
        at += FRAME_HEAD_BYTES + content.len();
        *head = [l0, l1, l2, l3, c0, c1, c2, c3];
    }
}

/// Whatever a file holds, the store opens or says why not; what it then answers agrees with itself, it takes a record, and it
/// opens again with at least as much.
pub(super) fn log(input: &[u8]) {
    let Some((mode, bytes)) = input.split_first() else { return };
    let disk = SimDisk::default();
    let mut bytes = bytes.to_vec();
    if mode & OF_IDENTITY != 0 {
        if mode & MENDED != 0
            && let Some((checked, crc)) = bytes.split_last_chunk_mut::<4>()
        {
            *crc = crc32fast::hash(checked).to_le_bytes();
        }
        disk.put(Path::new(IDENTITY), &bytes);
    } else {
        if mode & MENDED != 0 {
            mend(&mut bytes);
        }
        disk.put(Path::new(LOG), &bytes);
    }
    let Some(store) = open(&disk) else { return };
    // Whoever forges checksums can write frames that no store writes: of those it is asked only that nothing panics.
    let judge = if mode & MENDED == 0 { judge } else { ask };
    let held = judge(&store);
    let body = super::record::batch().encode().expect("a small batch");
    let appended = store.append_blocking(&"plant".parse().expect("a name"), body);
    assert!(appended.is_ok(), "a whole disk takes a record: {appended:?}");
    assert!(judge(&store) > held);
    drop(store);
    let again = open(&disk).expect("what was open opens again");
    assert!(judge(&again) > held || mode & MENDED != 0, "what was served stays");
}

/// Asks for everything; how many records are counted.
fn ask(store: &Store) -> u64 {
    let vector = store.vector();
    for (stream, _, _) in &vector {
        black_box(store.read(stream, Lsn::ZERO, usize::MAX).is_ok());
    }
    for site in store.sites() {
        black_box(store.scan(&site, &|_| true, i64::MIN..=i64::MAX).is_ok());
    }
    black_box(store.follow(Position::ZERO, usize::MAX).is_ok());
    store.stats().records
}

/// Holds all answers to each other; how many records are held.
fn judge(store: &Store) -> u64 {
    let followed = store.follow(Position::ZERO, usize::MAX).expect("what is held is readable");
    assert_eq!(followed.len() as u64, store.stats().records);
    for (stream, upto, chain) in store.vector() {
        let read = store.read(&stream, Lsn::ZERO, usize::MAX).expect("what is held is readable");
        assert_eq!(read.len() as u64, upto.0);
        let mut before = ChainHash::GENESIS;
        for record in &read {
            assert!(record.follows(before), "{stream} {} does not follow", record.lsn);
            before = record.chain;
        }
        assert_eq!(before, chain);
    }
    for site in store.sites() {
        store.scan(&site, &|_| true, i64::MIN..=i64::MAX).expect("what is held is readable");
    }
    followed.len() as u64
}

const BLOCK_BYTES: usize = 1024;
const BLOCKS: usize = 4;
type Chip = SimFlash<4, BLOCK_BYTES>;

pub(super) fn flash_seeds() -> Vec<Vec<u8>> {
    vec![vec![], vec![0, 16, 1], vec![0, 60, 0xff, 0, 61, 0x0f], vec![4, 8, 9, 8, 44, 1]]
}

/// A log of some records on a chip, then bytes flipped as the input says (place, big-endian, then a mask): it mounts or
/// says why not, reads, and goes on.
pub(super) fn flash(input: &[u8]) {
    let mut log = FlashLog::open(Chip::new(BLOCKS), 99).expect("a fresh chip");
    for number in 0u8..40 {
        log.append(&[number; 30]).expect("room, or the oldest goes");
        if number % 7 == 0 {
            log.acknowledge(u64::from(number / 2)).expect("a whole chip");
            log.note(number % 4, u64::from(number)).expect("a slot that is there");
        }
    }
    let mut chip = log.into_flash();
    for flip in input.chunks_exact(3) {
        if let [high, low, mask] = *flip {
            chip.rot(usize::from(u16::from_be_bytes([high, low])) % (BLOCKS * BLOCK_BYTES), mask);
        }
    }
    let Ok(mut log) = FlashLog::open(chip, 100) else { return };
    let read = |log: &mut FlashLog<Chip>| {
        let (mut after, mut buffer) = (0, [0; PAYLOAD_BYTES_MAX]);
        while let Ok(Some((seq, length))) = log.read_after(after, &mut buffer) {
            assert!(seq > after && seq <= log.head() && length <= buffer.len());
            after = seq;
        }
        after
    };
    read(&mut log);
    let noted = |log: &FlashLog<Chip>| [0, 1, 2, 3].map(|slot| log.noted(slot));
    let notes = noted(&log);
    assert!(notes.into_iter().flatten().all(|value| value < 40), "rot is no note: {notes:?}");
    if let Ok(seq) = log.append(b"after the damage") {
        assert_eq!(read(&mut log), seq);
        let head = log.head();
        let mut again = FlashLog::open(log.into_flash(), 101).expect("it mounted before");
        assert_eq!(again.head(), head);
        assert_eq!(read(&mut again), seq);
        assert_eq!(noted(&again), notes);
    }
}
