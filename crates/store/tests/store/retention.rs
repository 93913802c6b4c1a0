//! What policy drops, and that nothing else goes with it: too old, too many bytes, a full disk, clocks that ran ahead.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tidelog_record::NodeId;
use tidelog_store::{Keep, Retention, Store, StoreOptions};

use crate::model::{body, open, seconds, site, small};
use crate::sim_disk::SimDisk;
use crate::upkeep::{own, work};

fn times(store: &Store) -> Vec<i64> {
    let all = store.scan(&site(), &|_| true, i64::MIN..=i64::MAX).unwrap();
    all.into_iter().flat_map(|(_, points)| points).map(|(time, _)| time / 1_000_000_000).collect()
}

fn keeping(all: Keep, drop_when_full: bool) -> StoreOptions {
    let mut options = small(8);
    options.upkeep.retention = Retention { all, sites: BTreeMap::new(), drop_when_full };
    options
}

#[test]
fn what_is_too_old_is_no_longer_shown_and_then_dropped_and_noted() {
    let disk = SimDisk::default();
    let keep = Keep { age: Some(Duration::from_secs(100)), bytes: None };
    let (store, _) = open(&disk, keeping(keep, false));
    seconds(&store, 0..300);
    assert_eq!(times(&store).len(), 300, "without a clock that can be trusted nothing is too old");
    let vector = store.vector();
    store.trust_clock(350 * 1_000_000_000);
    store.upkeep(Instant::now()).unwrap();
    assert_eq!(store.horizon(&site()), Some(250 * 1_000_000_000));
    assert_eq!(
        times(&store),
        (250..300).collect::<Vec<_>>(),
        "exactly what policy keeps, whatever segments are"
    );
    let stats = store.stats();
    assert!(stats.segments_dropped > 0 && stats.points_dropped > 100, "{stats:?}");
    assert_eq!(store.vector(), vector, "what policy dropped counts as held");
    assert_eq!(store.last(&site(), &store.series(&site(), &|_| true).unwrap(), &|| false).unwrap().len(), 1);
    drop(store);
    let (store, recovery) = open(&disk, keeping(keep, false));
    assert_eq!((recovery.findings, store.vector()), (vec![], vector));
    assert!(
        times(&store).len() < 150,
        "what was dropped does not come back from the log: {:?}",
        times(&store)
    );
    store.trust_clock(350 * 1_000_000_000);
    store.upkeep(Instant::now()).unwrap();
    assert_eq!(times(&store), (250..300).collect::<Vec<_>>());
    seconds(&store, 300..310);
    assert_eq!(times(&store).last(), Some(&309));
}

#[test]
fn the_oldest_segments_go_when_a_site_takes_too_many_bytes() {
    let disk = SimDisk::default();
    let (store, _) = open(&disk, keeping(Keep { age: None, bytes: Some(2_000) }, false));
    for at in 0..10 {
        seconds(&store, at * 100..at * 100 + 100);
    }
    let stats = store.stats();
    assert!(stats.segment_bytes <= 2_000 && stats.segments_dropped > 0, "{stats:?}");
    let shown = times(&store);
    assert_eq!(shown.last(), Some(&999));
    assert!(
        shown.len() < 1_000 && shown.windows(2).all(|pair| pair[0] + 1 == pair[1]),
        "only the oldest are gone"
    );
}

#[test]
fn a_clock_that_ran_ahead_for_a_moment_keeps_no_segment_for_ever_and_hides_nothing_that_is_written_later() {
    const AHEAD_S: i64 = 3_000_000_000;
    for keep in
        [Keep { age: None, bytes: Some(2_000) }, Keep { age: Some(Duration::from_secs(300)), bytes: None }]
    {
        let disk = SimDisk::default();
        let (mut store, _) = open(&disk, keeping(keep, false));
        seconds(&store, AHEAD_S..AHEAD_S + 1);
        for at in 0..20 {
            store.trust_clock((at * 100 + 100) * 1_000_000_000);
            seconds(&store, at * 100..at * 100 + 100);
            if at % 5 == 4 {
                drop(store);
                store = open(&disk, keeping(keep, false)).0;
                store.trust_clock((at * 100 + 100) * 1_000_000_000);
                store.upkeep(Instant::now()).unwrap();
            }
        }
        let shown: Vec<i64> = times(&store).into_iter().filter(|time| *time < AHEAD_S).collect();
        assert!(shown.len() >= 100 && shown.len() < 2_000, "{keep:?}: {}", shown.len());
        assert!(shown.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{keep:?}: only the oldest are gone");
        assert_eq!(shown.last(), Some(&1_999), "{keep:?}");
        if keep.bytes.is_some() {
            assert!(store.stats().segment_bytes <= 2_000, "{:?}", store.stats());
            assert!(!times(&store).contains(&AHEAD_S), "it went with what was written beside it");
        } else {
            assert!(times(&store).contains(&AHEAD_S), "it is not too old");
        }
    }
}

#[test]
fn of_all_sites_the_oldest_segment_gives_way_to_a_full_disk() {
    let disk = SimDisk::default();
    let (store, _) = open(&disk, keeping(Keep::default(), true));
    let first: tidelog_record::SiteName = "a-site".parse().unwrap();
    for second in 1_000..1_300 {
        store.append_blocking(&first, body(1, second * 1_000_000_000, 1.0)).unwrap();
    }
    seconds(&store, 0..300);
    assert!(store.stats().open_points < 48, "both streams are sealed: {:?}", store.stats());
    // A merge may find room for a while.
    for _ in 0..20 {
        if store.stats().segments_dropped > 0 {
            break;
        }
        disk.set_room(Some(disk.used()));
        drop(store.append_blocking(&site(), body(1, 300_000_000_000, 1.0)));
        drop(store.upkeep(Instant::now()));
    }
    assert!(store.stats().segments_dropped > 0);
    assert!(store.horizon(&site()).is_some(), "the older site gave way");
    assert_eq!(store.horizon(&first), None);
}

#[test]
fn on_a_full_disk_the_oldest_goes_where_the_configuration_says_so_and_else_writes_are_refused() {
    for drop_when_full in [true, false] {
        let disk = SimDisk::default();
        let (store, _) = open(&disk, keeping(Keep::default(), drop_when_full));
        seconds(&store, 0..600);
        disk.set_room(Some(disk.used()));
        let refused = store.append_blocking(&site(), body(1, 1, 1.0));
        assert!(refused.is_err(), "there is no room");
        // A seal finds no room either.
        drop(store.upkeep(Instant::now()));
        let taken = store.append_blocking(&site(), body(1, 700_000_000_000, 1.0));
        assert_eq!(taken.is_ok(), drop_when_full);
        assert_eq!(store.stats().segments_dropped > 0, drop_when_full);
    }
}

#[test]
fn a_seal_that_speaks_of_what_was_dropped_here_is_not_waited_for() {
    let mut rng = StdRng::seed_from_u64(41);
    let (author, _) = open(&SimDisk::default(), small(41));
    // The author merges what this node has dropped already, and seals go on behind it.
    work(&author, &mut crate::model::Model::default(), &mut rng, 0..600);
    let records = own(&author);
    let options =
        StoreOptions { node: NodeId([8; 16]), ..keeping(Keep { age: None, bytes: Some(1) }, false) };
    let disk = SimDisk::default();
    let (mut store, _) = open(&disk, options.clone());
    for (turn, piece) in records.chunks(20).enumerate() {
        store.adopt_blocking(piece.to_vec()).unwrap();
        store.upkeep(Instant::now()).unwrap();
        if turn % 10 == 9 {
            drop(store);
            store = open(&disk, options.clone()).0;
        }
    }
    let stats = store.stats();
    assert!(stats.segments <= 1 && stats.log_bytes < 40_000, "{stats:?}");
    assert!(store.vector().iter().any(|(_, upto, _)| upto.0 == records.len() as u64), "it counts as held");
    let held = store.follow(tidelog_store::Position::ZERO, usize::MAX).unwrap();
    assert!(held.len() < records.len());
}
