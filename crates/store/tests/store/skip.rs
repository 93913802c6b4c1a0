//! What peers had dropped before it came: passed over with a note, never without, and never taken for what it is not.

use std::time::{Duration, Instant};

use tidelog_record::{ChainHash, Lsn, NodeId, Record, StreamId};
use tidelog_store::{AdoptError, Adopted, Keep, Store, StoreOptions};

use crate::model::{open, seconds, site, small};
use crate::sim_disk::SimDisk;
use crate::upkeep::{files, own};
use crate::verify::checked;
use crate::verify_sealed::rotted;

type At = (Lsn, ChainHash);

const NONE: At = (Lsn::ZERO, ChainHash::GENESIS);

/// An author whose policy dropped its beginning: the store, all that it wrote, and its floor.
struct Forgetful {
    store: Store,
    stream: StreamId,
    all: Vec<Record>,
    floor: At,
}

fn forgetful() -> Forgetful {
    let disk = SimDisk::default();
    let mut options = small(8);
    options.upkeep.log_keep_bytes_max = 0;
    options.upkeep.retention.all = Keep { age: Some(Duration::ZERO), bytes: None };
    let (store, _) = open(&disk, options);
    seconds(&store, 0..300);
    let all = own(&store);
    store.trust_clock(200 * 1_000_000_000);
    store.upkeep(Instant::now()).unwrap();
    let stream = StreamId { site: site(), node: store.node(), run: store.run() };
    let floor = store.dropped_behind(&stream, Lsn::ZERO).unwrap();
    assert!(floor.0 > Lsn(100) && store.read(&stream, Lsn::ZERO, usize::MAX).unwrap().is_empty());
    assert_eq!(store.dropped_behind(&stream, floor.0), None);
    let all = all.into_iter().chain(store.read(&stream, Lsn(300), usize::MAX).unwrap());
    let mut all: Vec<Record> = all.collect();
    all.dedup_by_key(|record| record.lsn);
    Forgetful { store, stream, all, floor }
}

fn late(seed: u64) -> StoreOptions {
    StoreOptions { node: NodeId([9; 16]), ..small(seed) }
}

/// Takes all of a stream that a peer still has.
fn fetch(to: &Store, from: &Store, stream: &StreamId) -> Adopted {
    let upto = to.vector().iter().find(|(id, ..)| id == stream).map_or(Lsn::ZERO, |(_, upto, _)| *upto);
    to.adopt_blocking(from.read(stream, upto, usize::MAX).unwrap()).unwrap()
}

fn at(all: &[Record], lsn: u64) -> At {
    let record = all.iter().find(|record| record.lsn == Lsn(lsn)).unwrap();
    (record.lsn, record.chain)
}

#[test]
fn a_stream_goes_on_behind_what_peers_had_dropped_and_holds_and_answers_the_rest() {
    let Forgetful { store: author, stream, all, floor } = forgetful();
    let disk = SimDisk::default();
    let (store, _) = open(&disk, late(1));
    let refused = store.adopt_blocking(author.read(&stream, floor.0, usize::MAX).unwrap());
    assert!(matches!(refused, Err(AdoptError::Gap { .. })), "{refused:?}");
    store.skip_blocking(&stream, NONE, floor).unwrap();
    assert_eq!(store.vector(), [(stream.clone(), floor.0, floor.1)]);
    assert_eq!(store.stats().records_never_held, floor.0.0);
    assert!(fetch(&store, &author, &stream).stored > 90);
    assert_eq!(store.vector(), author.vector());
    let repeats = all.iter().filter(|record| record.lsn <= floor.0).cloned().collect::<Vec<_>>();
    let expected = Adopted { stored: 0, held: floor.0.0 };
    assert_eq!(store.adopt_blocking(repeats), Ok(expected), "what turns up later is not taken any more");
    assert_eq!(store.dropped_behind(&stream, Lsn(7)), Some(floor), "it tells others the same");
    store.upkeep(Instant::now()).unwrap();
    assert!(store.stats().segments_sealed > 0, "what follows is sealed as its author sealed it");
    assert_eq!(store.stats().segments_disagreed, 0);
    let from = author.horizon(&site()).unwrap();
    let points = |store: &Store| store.scan(&site(), &|_| true, from..=i64::MAX).unwrap();
    assert!(!points(&author).is_empty() && points(&store) == points(&author));
    assert_eq!(store.horizon(&site()), None, "its own policy dropped nothing");
    drop(store);
    let found = checked(&disk);
    assert!(found.is_good() && found.gaps == 0, "{found:?}");
    assert_eq!((found.records_never_held, found.records_dropped), (floor.0.0, 0));
    let (store, recovery) = open(&disk, late(2));
    assert_eq!((recovery.findings, store.vector()), (vec![], author.vector()));
    assert_eq!(store.stats().records_never_held, floor.0.0);
    assert_eq!(points(&store), points(&author));
}

#[test]
fn what_follows_is_held_to_the_chain_hash_of_the_floor() {
    let Forgetful { store: author, stream, floor, .. } = forgetful();
    let (store, _) = open(&SimDisk::default(), late(1));
    store.skip_blocking(&stream, NONE, (floor.0, ChainHash([3; 16]))).unwrap();
    let refused = store.adopt_blocking(author.read(&stream, floor.0, usize::MAX).unwrap());
    assert!(matches!(refused, Err(AdoptError::BrokenChain { .. })), "{refused:?}");
}

#[test]
fn a_node_that_was_away_goes_on_from_what_it_holds() {
    let Forgetful { store: author, stream, all, floor } = forgetful();
    let disk = SimDisk::default();
    let (store, _) = open(&disk, late(1));
    store.adopt_blocking(all[..40].to_vec()).unwrap();
    let held = at(&all, 40);
    let refused = store.skip_blocking(&stream, at(&all, 39), floor);
    assert!(matches!(refused, Err(AdoptError::Gap { .. })), "not its end: {refused:?}");
    let refused = store.skip_blocking(&stream, (held.0, ChainHash([3; 16])), floor);
    assert!(matches!(refused, Err(AdoptError::Fork { .. })), "another branch: {refused:?}");
    let refused = store.skip_blocking(&stream, held, (Lsn(20), ChainHash([3; 16])));
    assert!(matches!(refused, Err(AdoptError::Fork { .. })), "held, with another hash: {refused:?}");
    assert_eq!(store.skip_blocking(&stream, held, at(&all, 20)), Ok(()), "held already");
    assert_eq!(store.vector(), [(stream.clone(), held.0, held.1)]);
    assert!(files(&disk, "gap").is_empty());
    store.skip_blocking(&stream, held, floor).unwrap();
    fetch(&store, &author, &stream);
    assert_eq!(store.vector(), author.vector());
    assert_eq!(store.stats().records_never_held, floor.0.0 - 40);
    assert_eq!(store.read(&stream, Lsn::ZERO, usize::MAX).unwrap(), all[..40]);
    drop(store);
    assert!(checked(&disk).is_good());
    let (store, recovery) = open(&disk, late(2));
    assert_eq!((recovery.findings, store.vector()), (vec![], author.vector()));
}

#[test]
fn rot_that_nobody_can_heal_any_more_gives_way_to_the_note() {
    // Up to the end of the rot, or beyond: what is held behind it stays. Or not so far: the rest comes from peers.
    for beyond in [0, 5, -5] {
        let (disk, _, records) = rotted();
        let (store, _) = open(&disk, small(6));
        let stream = records[0].stream.clone();
        let of = |store: &Store| store.vector().into_iter().find(|(id, ..)| *id == stream).unwrap();
        assert_eq!(of(&store).1, Lsn::ZERO);
        let told = store.held(1).into_iter().find(|held| held.stream == stream).unwrap();
        let first = records
            .iter()
            .position(|record| !store.read(&stream, Lsn(record.lsn.0 - 1), 0).unwrap().is_empty());
        let gone = first.unwrap() as u64;
        assert_eq!(told.above, [(Lsn(gone + 1), records.last().unwrap().lsn)], "segments are told too");
        let to = gone.checked_add_signed(beyond).unwrap();
        store.skip_blocking(&stream, NONE, at(&records, to)).unwrap();
        let gone = gone.min(to);
        let rest = records.iter().filter(|record| record.lsn > Lsn(gone)).cloned().collect();
        assert_eq!(store.adopt_blocking(rest).unwrap().stored, u64::try_from(-beyond.min(0)).unwrap());
        let last = records.last().unwrap();
        assert_eq!(of(&store), (stream.clone(), last.lsn, last.chain));
        assert_eq!(store.stats().records_never_held, gone);
        drop(store);
        assert_eq!(files(&disk, "gap").len(), 1);
        assert!(checked(&disk).is_good());
        let (store, recovery) = open(&disk, small(7));
        assert_eq!((recovery.findings, of(&store)), (vec![], (stream.clone(), last.lsn, last.chain)));
    }
}

#[test]
fn wherever_the_power_goes_the_stream_ends_before_what_is_passed_over_or_behind_it() {
    let Forgetful { store: author, stream, all, floor } = forgetful();
    let whole = SimDisk::default();
    let (store, _) = open(&whole, late(1));
    store.adopt_blocking(all[..10].to_vec()).unwrap();
    drop(store);
    let held = at(&all, 10);
    let mut outcomes = Vec::new();
    for operation in 1.. {
        let disk = whole.copy();
        let (store, _) = open(&disk, late(2));
        disk.cut_power_in(operation);
        let noted = store.skip_blocking(&stream, held, floor);
        let had_power = disk.has_power();
        drop(store);
        disk.power_on(operation);
        let (store, _) = open(&disk, late(3));
        let (_, upto, chain) = store.vector().remove(0);
        let ends = [held, floor].iter().position(|end| *end == (upto, chain)).unwrap();
        assert!(noted.is_err() || ends == 1, "what was said to be durable is");
        outcomes.push(ends);
        if ends == 0 {
            store.skip_blocking(&stream, held, floor).unwrap();
        }
        fetch(&store, &author, &stream);
        assert_eq!(store.vector(), author.vector());
        if had_power {
            break;
        }
    }
    assert!(outcomes.contains(&0) && outcomes.len() > 3, "{outcomes:?}");
}

#[test]
fn a_full_disk_refuses_and_nothing_is_passed_over() {
    let Forgetful { stream, floor, .. } = forgetful();
    let disk = SimDisk::default();
    let (store, _) = open(&disk, late(1));
    disk.set_room(Some(disk.used()));
    assert!(matches!(store.skip_blocking(&stream, NONE, floor), Err(AdoptError::Refused(_))));
    assert!(store.vector().iter().all(|(_, upto, _)| *upto == Lsn::ZERO));
    disk.set_room(None);
    store.skip_blocking(&stream, NONE, floor).unwrap();
    assert_eq!(store.vector(), [(stream, floor.0, floor.1)]);
}
