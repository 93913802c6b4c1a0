//! Newest points that are kept once they were asked for: they read no segment again, and follow what comes, is sealed and is merged.

use rand::SeedableRng;
use rand::rngs::StdRng;
use tidelog_record::Value;
use tidelog_store::{StoreOptions, at_hand};

use crate::model::{Model, body, open, seconds, site, small};
use crate::sim_disk::SimDisk;
use crate::upkeep::work;

#[test]
fn newest_points_that_were_asked_for_follow_what_comes_and_what_is_sealed() {
    for seed in (0..27).step_by(4) {
        let (disk, mut model, mut rng) = (SimDisk::default(), Model::default(), StdRng::seed_from_u64(seed));
        let (store, _) = open(&disk, small(seed));
        for round in 0..8 {
            work(&store, &mut model, &mut rng, round * 9..round * 9 + 9);
            model.judge(&store);
        }
    }
}

#[test]
fn a_newest_point_that_was_asked_for_reads_no_segment_again() {
    let disk = SimDisk::default();
    let (store, _) = open(&disk, StoreOptions { cache_bytes_max: 0, ..small(26) });
    seconds(&store, 0..100);
    assert!(store.stats().segments > 0);
    let ask = || {
        let series = store.series(&site(), &|_| true).unwrap();
        store.last(&site(), &series, &|| false)
    };
    store.append_blocking(&site(), body(2, 1, 0.5)).unwrap();
    ask().unwrap();
    for times in [100..101, 101..200] {
        let newest = times.end - 1;
        seconds(&store, times);
        let told = at_hand(ask).expect("it is in memory").unwrap();
        let told: Vec<_> = told.into_iter().map(|(_, time, value)| (time / 1_000_000_000, value)).collect();
        assert_eq!(told, [(newest, Value::F64(newest as f64)), (0, Value::F64(0.5))]);
    }
}
