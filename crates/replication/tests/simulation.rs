//! Whole fields of nodes under one seeded clock. A failing seed is printed; `TIDELOG_SEED=n` runs that one alone,
//! `TIDELOG_SEEDS=n` sets how many run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod field;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use field::{Faults, Field, ms, site};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tidelog_replication::{Event, Sites, WINDOW_BYTES_MAX};

const SEEDS_DEFAULT: u64 = 40;
/// After the last fault everything is equal within this time: a silent cut is found, and the rest travels.
const CONVERGENCE: Duration = Duration::from_secs(90);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn for_each_seed(check: impl Fn(u64)) {
    let seeds = match number("TIDELOG_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TIDELOG_SEEDS").unwrap_or(SEEDS_DEFAULT),
    };
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(seed))) {
            eprintln!("failed with TIDELOG_SEED={seed}");
            resume_unwind(panic);
        }
    }
}

/// A connected graph: a random tree and some more links.
fn topology(rng: &mut StdRng, nodes: usize) -> Vec<(usize, usize)> {
    let mut links = BTreeSet::new();
    for node in 1..nodes {
        links.insert((rng.random_range(0..node), node));
    }
    for _ in 0..rng.random_range(0..=nodes) {
        let (a, b) = (rng.random_range(0..nodes), rng.random_range(0..nodes));
        if a != b {
            links.insert((a.min(b), a.max(b)));
        }
    }
    links.into_iter().map(|(a, b)| if rng.random() { (a, b) } else { (b, a) }).collect()
}

fn faults(rng: &mut StdRng) -> Faults {
    Faults {
        delay_ms_max: rng.random_range(0..200),
        cuts: rng.random_range(0..40),
        silent: rng.random(),
        restarts: rng.random_range(0..8),
        appends: rng.random_range(0..600),
        body_bytes_max: if rng.random_bool(0.1) { 20_000 } else { 200 },
        active: Duration::from_secs(rng.random_range(5..60)),
    }
}

fn assert_converged(field: &Field) {
    for node in &field.nodes {
        let expected: u64 =
            field.ledger.keys().filter(|(stream, _)| node.sites.contains(&stream.site)).count() as u64;
        let held: u64 = node.disk.streams.values().map(|records| records.len() as u64).sum();
        assert_eq!(held, expected, "node {} does not hold what was written", node.id);
        assert!(node.disk.streams.keys().all(|stream| node.sites.contains(&stream.site)));
        let told: Vec<_> = node.replica.vector().map(|(id, head)| (id.clone(), head)).collect();
        assert_eq!(told, node.disk.vector(), "the vector claims what the disk does not hold");
        let bad = |event: &&Event| matches!(event, Event::Fork(_) | Event::OwnStreamAhead { .. });
        assert_eq!(node.events.iter().find(bad), None);
    }
}

fn converge(mut field: Field, active: Duration) -> Field {
    field.run(active);
    field.healed = true;
    field.run(active + CONVERGENCE);
    assert_converged(&field);
    let sent = field.messages_sent;
    field.run(active + CONVERGENCE + Duration::from_secs(60));
    assert_eq!(field.messages_sent, sent, "traffic at rest besides keepalives");
    field
}

#[test]
fn any_topology_converges_once_faults_stop_and_every_record_is_applied_once() {
    for_each_seed(|seed| {
        let mut rng = StdRng::seed_from_u64(seed);
        let nodes = rng.random_range(3..=6);
        let links = topology(&mut rng, nodes);
        let faults = faults(&mut rng);
        let field = Field::new(seed, &vec![Sites::All; nodes], links, faults.clone());
        let field = converge(field, faults.active);
        let needed: u64 = (0..nodes).map(|node| field.foreign_bytes(node)).sum();
        let lost = (field.cuts_made + 20) * WINDOW_BYTES_MAX as u64;
        assert!(field.record_bytes_sent <= needed + lost, "more was sent than what cuts can explain");
    });
}

#[test]
fn without_cuts_each_record_travels_to_each_node_exactly_once() {
    for_each_seed(|seed| {
        let mut rng = StdRng::seed_from_u64(seed);
        let nodes = rng.random_range(3..=6);
        let links = topology(&mut rng, nodes);
        let faults = Faults { cuts: 0, restarts: 0, ..faults(&mut rng) };
        let field = Field::new(seed, &vec![Sites::All; nodes], links, faults.clone());
        let field = converge(field, faults.active);
        assert_eq!(field.records_sent, field.ledger.len() as u64 * (nodes as u64 - 1));
    });
}

#[test]
fn a_leaf_gets_its_own_sites_and_nothing_else() {
    for_each_seed(|seed| {
        let mut rng = StdRng::seed_from_u64(seed);
        let leaves = rng.random_range(2..=5);
        let mut grants = vec![Sites::All];
        for _ in 0..leaves {
            let name = if rng.random() { "north" } else { "south" };
            grants.push(Sites::Only([site(name)].into()));
        }
        let links = (1..=leaves).map(|leaf| if rng.random() { (0, leaf) } else { (leaf, 0) }).collect();
        let faults = faults(&mut rng);
        converge(Field::new(seed, &grants, links, faults.clone()), faults.active);
    });
}

#[test]
fn a_long_backlog_is_pipelined_over_a_slow_round_trip() {
    // 8 MiB over a round trip of 200 ms on average: without reading ahead and a window it would take a round trip for each
    // of more than 30 messages, some 7 s.
    let faults = Faults {
        delay_ms_max: 200,
        cuts: 0,
        silent: false,
        restarts: 0,
        appends: 0,
        body_bytes_max: 100_000,
        active: ms(1),
    };
    let mut field = Field::new(1, &[Sites::All, Sites::All], vec![(0, 1)], faults);
    field.seed_records(0, 160);
    field.run(Duration::from_secs(3));
    assert_converged(&field);
    assert_eq!(field.nodes[1].disk.adopted, 160);
}

#[test]
fn a_wiped_node_gets_its_older_runs_back() {
    let faults = Faults {
        delay_ms_max: 20,
        cuts: 0,
        silent: false,
        restarts: 0,
        appends: 200,
        body_bytes_max: 100,
        active: Duration::from_secs(5),
    };
    let mut field = Field::new(3, &[Sites::All, Sites::All, Sites::All], vec![(0, 1), (1, 2)], faults);
    field.run(Duration::from_secs(30));
    assert_converged(&field);
    field.nodes[0].disk = field::Disk::default();
    field.nodes[0].run = tidelog_record::Run(77);
    field.restart(0);
    field.run(Duration::from_secs(60));
    assert_converged(&field);
}
