//! Power cuts at every operation, with torn and reordered writes: everything acknowledged is there afterwards.

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tidelog_record::SiteName;
use tidelog_store::Finding;

use crate::model::{Author, Model, open, random_body, small};
use crate::sim_disk::SimDisk;

/// One life of a store: some random work, until the power goes or the work is done.
fn live(
    disk: &SimDisk,
    model: &mut Model,
    authors: &mut [Author],
    rng: &mut StdRng,
    actions: u32,
    number: &mut i64,
) {
    // The power may go while it opens, too.
    let opened = tidelog_store::Store::open_on(
        std::sync::Arc::new(disk.clone()),
        std::path::Path::new("/store"),
        small(rng.random()),
    );
    let store = match opened {
        Ok((store, _)) => store,
        Err(error) => return assert!(!disk.has_power(), "{error}"),
    };
    model.judge(&store);
    let sites: [SiteName; 2] = ["plant".parse().unwrap(), "house".parse().unwrap()];
    for _ in 0..actions {
        *number += 1;
        if rng.random_bool(0.7) {
            let body = random_body(rng, *number);
            model.append(&store, &sites[usize::from(rng.random_bool(0.3))], body);
        } else {
            let author = &mut authors[rng.random_range(0..2)];
            for _ in 0..rng.random_range(0..6) {
                *number += 1;
                author.write(random_body(rng, *number));
            }
            let held =
                store.vector().iter().find(|(stream, _, _)| *stream == author.stream).map_or(0, |s| s.1.0);
            let from = usize::try_from(held).unwrap().saturating_sub(rng.random_range(0..4));
            let taken = model.adopt(&store, &author.records[from..]);
            assert!(taken || !disk.has_power());
        }
        if !disk.has_power() {
            return;
        }
    }
    model.judge(&store);
}

fn lives(seed: u64, cuts: &[u64]) {
    let mut rng = StdRng::seed_from_u64(seed);
    let (disk, mut model, mut number) = (SimDisk::default(), Model::default(), 0);
    let mut authors = [Author::new(1), Author::new(2)];
    for cut in cuts {
        disk.cut_power_in(*cut);
        live(&disk, &mut model, &mut authors, &mut rng, 25, &mut number);
        disk.power_on(rng.random());
    }
    let (store, _) = open(&disk, small(seed));
    model.judge(&store);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(target_arch = "x86_64") { 40 } else { 4 }))]

    #[test]
    fn what_was_acknowledged_survives_many_power_cuts(
        seed in any::<u64>(), cuts in prop::collection::vec(1u64..80, 1..8),
    ) {
        lives(seed, &cuts);
    }
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_acknowledged() {
    let step = if cfg!(target_arch = "x86_64") { 2 } else { 13 };
    for cut in (1..90).step_by(step) {
        for seed in 0..2 {
            lives(seed, &[cut, cut / 2 + 1]);
        }
    }
}

/// A torn commit took a stream's declaration and first record; its others were left without a name, and came again from their
/// author before the name was known again.
#[test]
fn records_that_came_twice_because_their_stream_was_nameless_are_served_once() {
    lives(12_634_967_284_803_699_459, &[20, 26]);
}

#[test]
fn an_ordinary_restart_changes_neither_run_nor_bytes() {
    let disk = SimDisk::default();
    let mut model = Model::default();
    let mut rng = StdRng::seed_from_u64(1);
    let (store, _) = open(&disk, small(1));
    for number in 0..40 {
        model.append(&store, &crate::model::site(), random_body(&mut rng, number)).unwrap();
    }
    let run = store.run();
    drop(store);
    let before: Vec<_> = disk.files().iter().map(|path| disk.bytes(path)).collect();
    let (store, recovery) = open(&disk, small(2));
    assert_eq!((recovery.findings, store.run()), (vec![], run));
    model.judge(&store);
    drop(store);
    assert_eq!(disk.files().iter().map(|path| disk.bytes(path)).collect::<Vec<_>>(), before);
}

#[test]
fn a_disk_that_lied_about_syncs_still_gives_a_store_that_opens_and_agrees_with_itself() {
    for seed in 0..20 {
        let disk = SimDisk::default();
        let mut model = Model::default();
        let mut rng = StdRng::seed_from_u64(seed);
        let (store, _) = open(&disk, small(seed));
        for number in 0..20 {
            model.append(&store, &crate::model::site(), random_body(&mut rng, number)).unwrap();
        }
        disk.lie(true);
        for number in 20..60 {
            model.append(&store, &crate::model::site(), random_body(&mut rng, number)).unwrap();
        }
        drop(store);
        disk.lie(false);
        disk.power_on(seed);
        let (store, recovery) = open(&disk, small(seed + 1000));
        let held = crate::model::judge_answers(&store);
        assert!(held.len() >= 20, "what was synced before the lie is there");
        assert!(held.iter().all(|record| model.given.contains(&record.body)));
        let renewed = recovery.findings.iter().any(|f| matches!(f, Finding::RunRenewed { .. }));
        let rotten = recovery.findings.iter().any(|f| {
            matches!(
                f,
                Finding::Rot { .. } | Finding::MissingPositions { .. } | Finding::FileQuarantined { .. }
            )
        });
        assert_eq!(renewed, rotten, "{recovery:?}");
    }
}
