//! How large an author's segments are when it seals them, and which of them are written again.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tidelog_record::{Batch, Series, Value};
use tidelog_store::{Stats, Store, StoreOptions};

use crate::model::{judge_answers, open, seconds, site, small};
use crate::sim_disk::SimDisk;

fn sealing(seal_points: u64, change: impl FnOnce(&mut StoreOptions)) -> Store {
    let mut options = small(1);
    options.upkeep.seal_points = seal_points;
    change(&mut options);
    open(&SimDisk::default(), options).0
}

/// Takes in so many parts of so many points of one series, with a round of upkeep after each, and tells how it stands.
fn after(store: &Store, parts: i64, points: i64) -> Stats {
    let from = i64::try_from(store.stats().points).unwrap();
    (0..parts).for_each(|part| seconds(store, from + part * points..from + (part + 1) * points));
    let stats = store.stats();
    assert_eq!(store.scan(&site(), &|_| true, i64::MIN..=i64::MAX).unwrap()[0].1.len() as u64, stats.points);
    stats
}

/// Records of a hundred points each.
fn hundreds(store: &Store, records: i64, mut value: impl FnMut() -> f64) -> Stats {
    for record in 0..records {
        let series = Series::new("temperature", [("device", "1")]).unwrap();
        let points = (0..100).map(|at| ((record * 100 + at) * 1_000_000_000, Value::F64(value()))).collect();
        let body = Batch { series: vec![(series, points)], ..Batch::default() }.encode().unwrap();
        store.append_blocking(&site(), body).unwrap();
        store.upkeep(Instant::now()).unwrap();
    }
    judge_answers(store);
    store.stats()
}

#[test]
fn what_was_sealed_full_is_written_once() {
    let store = sealing(300, |_| {});
    let stats = after(&store, 33, 300);
    assert_eq!((stats.segments_sealed, stats.segments_merged, stats.open_points), (33, 0, 0));
    assert_eq!(stats.segment_bytes_written, stats.segment_bytes);
}

#[test]
fn segments_of_long_series_are_merged_by_sixteen_while_they_are_few_seals() {
    let store = sealing(2_000, |options| options.upkeep.seal_after = Duration::ZERO);
    let stats = after(&store, 15, 150);
    assert_eq!((stats.segments, stats.segments_merged), (15, 0), "also when idle");
    let stats = after(&store, 1, 150);
    assert_eq!((stats.segments, stats.segments_merged), (1, 1));
}

#[test]
fn segments_of_short_series_are_merged_by_sixteen_and_by_an_idle_node_sooner() {
    let busy = |options: &mut StoreOptions| {
        options.upkeep.seal_after = Duration::ZERO;
        options.upkeep.seal_when_idle = Duration::from_secs(3600);
    };
    let store = sealing(10, busy);
    assert_eq!(after(&store, 15, 10).segments, 15);
    let stats = after(&store, 1, 10);
    assert_eq!((stats.segments, stats.segments_merged), (1, 1), "though it is more than four seals");

    let store = sealing(10, |options| options.upkeep.seal_after = Duration::ZERO);
    assert_eq!(after(&store, 2, 10).segments, 1);
    // Once a series has some points, another doubling gains too little.
    assert_eq!(after(&store, 2, 10).segments, 1);
    assert_eq!(after(&store, 4, 10).segments, 2);
    assert_eq!(after(&store, 8, 10).segments, 1, "and sixteen are one");
}

#[test]
fn an_idle_node_seals_what_is_a_quarter_of_a_seal_and_another_waits_for_all_of_it() {
    let store = sealing(100, |_| {});
    assert_eq!(after(&store, 1, 24).segments_sealed, 0);
    assert_eq!(after(&store, 1, 1).segments_sealed, 1);
    let store = sealing(100, |options| options.upkeep.seal_when_idle = Duration::from_secs(3600));
    assert_eq!(after(&store, 1, 99).segments_sealed, 0);
    assert_eq!(after(&store, 1, 1).segments_sealed, 1);
}

#[test]
fn points_that_pack_badly_are_sealed_when_they_fill_the_memory_and_others_wait() {
    let full = |options: &mut StoreOptions| options.upkeep.seal_bytes_max = 20_000;
    let mut rng = StdRng::seed_from_u64(2);
    let floats = hundreds(&sealing(1_000_000, full), 30, || rng.random());
    assert_eq!((floats.segments_sealed, floats.open_points > 0), (1, true));
    let decimals = hundreds(&sealing(1_000_000, full), 40, || f64::from(rng.random_range(0..30)) / 10.0);
    assert_eq!(decimals.segments_sealed, 0);
}

#[test]
fn a_series_that_grows_too_long_to_be_held_plain_is_sealed() {
    let store = sealing(1_000_000, |options| options.upkeep.points_in_memory_max = 500);
    let stats = hundreds(&store, 12, || 1.5);
    assert_eq!((stats.segments_sealed, stats.open_points), (2, 200));
}
