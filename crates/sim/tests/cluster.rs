//! Clusters under one seeded clock: fixed seeds that must hold, seeds that once failed, and the deliberate bugs that must be found.
//! `cargo sim` runs as many more as one likes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::Duration;

use tidelog_sim::cluster::{Breach, Case, Flaw, Outcome, Plan, run};

/// Seeds in which each flaw must show.
const FOUND_WITHIN_SEEDS: u64 = 400;
const SEEDS: u64 = 100;
const REAL_SEEDS: u64 = 25;
/// Seeds that found a defect once, and what was wrong.
const REGRESSIONS: [(u64, &str); 10] = [
    (29, "lives of one node took each other's place for ever"),
    (80, "a fork was found by one side only"),
    (1167, "an edge dropped what only a dying peer had confirmed"),
    (4468, "a node that wrote while its tail came back never found the fork"),
    (5535, "a branch with branches was mixed with another one"),
    (6015, "what waited behind a block was overtaken"),
    (8934, "the word of a fork crossed the word that took the pull back"),
    (10046, "as before"),
    (30272, "a full disk was sent everything again every five seconds"),
    (19721, "looking for a fork was taken for waste"),
];

fn plain(seed: u64) -> Plan {
    Plan { seed, ..Plan::default() }
}

fn must_hold(outcome: &Outcome) {
    if let Some(breach) = &outcome.breach {
        panic!("cargo sim --seed {} --trace: {breach}", outcome.seed);
    }
}

#[test]
fn after_any_faults_every_node_holds_the_same_and_nothing_acknowledged_is_lost() {
    for seed in 0..SEEDS {
        must_hold(&run(plain(seed)));
    }
}

#[test]
fn with_real_stores_answers_are_equal_too() {
    for seed in 0..REAL_SEEDS {
        must_hold(&run(Plan { real: Some(true), ..plain(seed) }));
    }
}

#[test]
fn seeds_that_failed_once_hold() {
    for (seed, what) in REGRESSIONS {
        let outcome = run(plain(seed));
        assert_eq!(outcome.breach, None, "seed {seed}: {what}");
    }
}

#[test]
fn a_hundred_nodes_converge() {
    must_hold(&run(Plan { nodes: Some(100), ..plain(4) }));
}

#[test]
fn a_seed_is_the_same_run_line_by_line() {
    for seed in 0..4 {
        for real in [false, true] {
            let plan = Plan { trace: true, real: Some(real), ..plain(seed) };
            let (once, again) = (run(plan), run(plan));
            assert!(once.trace.len() > 100);
            assert_eq!(once.trace, again.trace, "seed {seed}");
        }
    }
}

#[test]
fn a_thousand_cuts_in_the_middle_of_messages_cost_a_tenth_of_the_payload_at_most() {
    let outcome = run(Plan { case: Case::ManyCuts, ..plain(1) });
    must_hold(&outcome);
    let (sent, payload) = (outcome.sent_bytes, outcome.payload_bytes);
    eprintln!("{} cuts, {sent} bytes sent for {payload}", outcome.cuts);
    assert!(outcome.cuts > 900);
    assert!(sent * 10 <= payload * 11, "{sent} bytes sent for {payload}");
}

#[test]
fn fresh_records_pass_a_slow_link_while_a_backlog_drains() {
    let outcome = run(Plan { case: Case::SlowLink, ..plain(1) });
    must_hold(&outcome);
    eprintln!("{:?} at most, {:?} for the backlog", outcome.fresh_lag, outcome.converged);
    assert!(outcome.converged > Duration::from_secs(10), "the backlog was still there all the time");
    assert!(outcome.fresh_lag < Duration::from_secs(15), "{:?}", outcome.fresh_lag);
}

/// What the judge must say of a flaw.
fn is_its_sign(flaw: Flaw, breach: &Breach) -> bool {
    match flaw {
        Flaw::ReusedLsn => matches!(breach, Breach::Name { .. }),
        Flaw::LostTail => matches!(breach, Breach::Vector { .. }),
        Flaw::StalePeer => matches!(breach, Breach::Kept { .. }),
        Flaw::RemovedUnconfirmed => matches!(breach, Breach::Lost { .. }),
        Flaw::StuckKeepalive => matches!(breach, Breach::CalledSilent { .. }),
        Flaw::BlindAbove => matches!(breach, Breach::Again { .. }),
    }
}

#[test]
fn each_deliberate_bug_is_found_and_the_same_seed_holds_without_it() {
    for flaw in Flaw::ALL {
        let found = (0..FOUND_WITHIN_SEEDS).find_map(|seed| {
            let breach = run(Plan { flaw: Some(flaw), ..plain(seed) }).breach?;
            is_its_sign(flaw, &breach).then_some(seed)
        });
        let Some(seed) = found else { panic!("{flaw} was not found within {FOUND_WITHIN_SEEDS} seeds") };
        eprintln!("{flaw}: seed {seed}");
        must_hold(&run(plain(seed)));
    }
}
