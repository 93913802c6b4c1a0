//! Clusters of nodes under one seeded clock, network and disk: the real replication machine of each node, over a model of a disk that fails
//! exactly as told, or over the real store on a simulated disk. A seed decides everything; the same seed is the same run, line by line.
//! docs/SIMULATION.md says what goes wrong in it and what is checked.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a simulation that is misused fails its run"
)]

mod flaw;
mod holdings;
mod judge;
mod network;
mod node;
mod real;
mod scenario;
mod trouble;
mod world;

use std::time::Duration;

pub use flaw::{Flaw, UnknownFlaw};
pub use judge::Breach;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// What is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Case {
    /// What the seed draws.
    #[default]
    Drawn,
    /// A long backlog over a link of 30 kB/s that is cut a thousand times.
    ManyCuts,
    /// A gateway with the backlog of ten neighbours behind a link of 50 kbit/s and 2 s round trip, which writes on itself.
    SlowLink,
}

/// One run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Decides everything that is not said below.
    pub seed: u64,
    /// How many nodes; otherwise the seed says.
    pub nodes: Option<usize>,
    /// Whether nodes have real stores; otherwise the seed says.
    pub real: Option<bool>,
    /// What is run.
    pub case: Case,
    /// What every node does wrong.
    pub flaw: Option<Flaw>,
    /// Whether lines are kept that tell what happened.
    pub trace: bool,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Nodes, copies included.
    pub nodes: usize,
    /// Whether they had real stores.
    pub real: bool,
    /// Records acknowledged to users.
    pub records: usize,
    /// Faults that happened.
    pub faults: u64,
    /// Connections cut.
    pub cuts: u64,
    /// Forks that nodes reported.
    pub forks: u64,
    /// Times that a stream went on behind what peers had dropped.
    pub skips: u64,
    /// Bytes of records sent, with what each costs beside its body.
    pub sent_bytes: u64,
    /// Bytes of others' records that became durable at a node, counted alike.
    pub payload_bytes: u64,
    /// Bytes of records that faults took on the way or before they were durable.
    pub lost_bytes: u64,
    /// In [`Case::SlowLink`]: the longest time from a record of the gateway to its being held behind the link.
    pub fresh_lag: Duration,
    /// From the last fault until everything was equal.
    pub converged: Duration,
    /// The first thing that was wrong.
    pub breach: Option<Breach>,
    /// What happened, if it was asked for.
    pub trace: Vec<String>,
}

/// Runs a seed.
#[must_use]
pub fn run(plan: Plan) -> Outcome {
    world::World::new(plan).run()
}
