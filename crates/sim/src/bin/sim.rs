//! `cargo sim`: clusters under one seeded clock, many seeds or one with its trace. It prints; what is simulated and judged is
//! `tidelog_sim::cluster`.

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use tidelog_sim::cluster::{Case, Flaw, Outcome, Plan, run};

/// How often progress is printed.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// Failing seeds that are named.
const FAILURES_NAMED_MAX: usize = 10;

/// Clusters of real replication machines under one seeded clock, network and disk; then the check that nothing was lost and everything
/// is equal. docs/SIMULATION.md says more.
#[derive(Debug, Parser)]
#[command(name = "cargo sim")]
struct Options {
    /// Run this seed alone and say what came of it
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Run so many seeds
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Print what happened, line by line (with --seed)
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Nodes in each run; without it the seed says
    #[arg(long)]
    nodes: Option<usize>,
    /// Whether nodes have real stores on simulated disks; without it the seed says
    #[arg(long)]
    real: Option<bool>,
    /// Let every node do this wrong: reused-lsn, lost-tail, stale-peer, removed-unconfirmed, stuck-keepalive or blind-above
    #[arg(long)]
    flaw: Option<Flaw>,
    /// Stop at the first seed that fails
    #[arg(long)]
    first: bool,
}

/// What many runs came to.
#[derive(Default)]
struct Total {
    done: u64,
    nodes_max: usize,
    records: u64,
    faults: u64,
    skips: u64,
    sent_bytes: u64,
    payload_bytes: u64,
    worst: Option<(Duration, u64)>,
    failed: Vec<(u64, String)>,
    failures: u64,
    printed: Option<Instant>,
}

impl Total {
    fn add(&mut self, outcome: &Outcome) {
        self.nodes_max = self.nodes_max.max(outcome.nodes);
        self.records += outcome.records as u64;
        self.faults += outcome.faults;
        self.skips += outcome.skips;
        self.sent_bytes += outcome.sent_bytes;
        self.payload_bytes += outcome.payload_bytes;
        if self.worst.is_none_or(|(converged, _)| converged < outcome.converged) {
            self.worst = Some((outcome.converged, outcome.seed));
        }
        if let Some(breach) = &outcome.breach {
            self.fail(outcome.seed, breach.to_string());
        }
        self.done += 1;
    }

    fn panicked(&mut self, seed: u64) {
        self.fail(seed, String::from("it panicked, as said above"));
        self.done += 1;
    }

    fn fail(&mut self, seed: u64, what: String) {
        self.failures += 1;
        println!("seed {seed} fails: {what}");
        if self.failed.len() < FAILURES_NAMED_MAX {
            self.failed.push((seed, what));
        }
    }

    fn progress(&mut self, of: u64, began: Instant) {
        let now = Instant::now();
        if self.done < of && self.printed.is_some_and(|at| now - at < PROGRESS_EVERY) {
            return;
        }
        self.printed = Some(now);
        let seconds = began.elapsed().as_secs_f64().max(0.001);
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = self.done as f64 * 60.0 / seconds;
        println!("{} of {of} seeds, {rate:.0} a minute, {} failed", self.done, self.failures);
    }
}

fn percent(part: u64, of: u64) -> u64 {
    part.saturating_mul(100).checked_div(of).unwrap_or(100)
}

fn one(seed: u64, options: &Options) -> ExitCode {
    let plan = plan(seed, options, options.trace);
    let outcome = run(plan);
    for line in &outcome.trace {
        println!("{line}");
    }
    println!(
        "seed {seed}: {} nodes{}, {} records, {} faults, {} cuts, {} forks told, {} times on behind what policy had dropped",
        outcome.nodes,
        if outcome.real { " with real stores" } else { "" },
        outcome.records,
        outcome.faults,
        outcome.cuts,
        outcome.forks,
        outcome.skips
    );
    println!(
        "{} bytes of records sent for {} that came to be held ({} %), {} taken by faults; equal {:.1} s after the last fault",
        outcome.sent_bytes,
        outcome.payload_bytes,
        percent(outcome.sent_bytes, outcome.payload_bytes),
        outcome.lost_bytes,
        outcome.converged.as_secs_f64()
    );
    match outcome.breach {
        None => {
            println!("all checks hold");
            ExitCode::SUCCESS
        }
        Some(breach) => {
            println!("FAILED: {breach}");
            ExitCode::FAILURE
        }
    }
}

fn plan(seed: u64, options: &Options, trace: bool) -> Plan {
    Plan { seed, nodes: options.nodes, real: options.real, case: Case::Drawn, flaw: options.flaw, trace }
}

fn many(options: &Options) -> ExitCode {
    let began = Instant::now();
    let end = options.from.saturating_add(options.seeds);
    let next = AtomicU64::new(options.from);
    let total = Mutex::new(Total::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let outcome = catch_unwind(|| run(plan(seed, options, false)));
                    let Ok(mut total) = total.lock() else { return };
                    match outcome {
                        Ok(outcome) => total.add(&outcome),
                        Err(_) => total.panicked(seed),
                    }
                    total.progress(options.seeds, began);
                    if options.first && total.failures > 0 {
                        next.store(end, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let total = total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (slowest, slowest_seed) = total.worst.unwrap_or_default();
    println!(
        "{} seeds in {:.1} s: up to {} nodes, {} records, {} faults, {} times on behind what policy had dropped; {} bytes sent for each 100 that came to be held; \
         slowest to be equal: {:.0} s (seed {slowest_seed})",
        total.done,
        began.elapsed().as_secs_f64(),
        total.nodes_max,
        total.records,
        total.faults,
        total.skips,
        percent(total.sent_bytes, total.payload_bytes),
        slowest.as_secs_f64(),
    );
    for (seed, breach) in &total.failed {
        println!("FAILED: cargo sim --seed {seed} --trace    {breach}");
    }
    if total.failures == 0 && total.done == options.seeds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn main() -> ExitCode {
    let options = Options::parse();
    match options.seed {
        Some(seed) => one(seed, &options),
        None => many(&options),
    }
}
