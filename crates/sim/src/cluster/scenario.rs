//! What a seed means: how many nodes, how they are joined, what is written and what goes wrong when. Only numbers are drawn here;
//! whom a fault meets is decided when it comes.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tidelog_replication::Sites;

use super::{Case, Plan, ms};

/// Most nodes that a seed draws by itself.
const NODES_MAX: usize = 120;
/// Most nodes where policy drops beginnings: each that stands behind another waits for its floor in turn.
const RETIRING_NODES_MAX: usize = 6;
/// In the last so many milliseconds beginnings are dropped and a node comes late: whoever is cut off then is back before anybody stops
/// waiting for what it may have.
const RETIRING_MS: u64 = 30_000;
/// Bytes a second of the slowest link and the fastest of the slow ones.
const SLOW_BYTES_PER_SECOND: std::ops::RangeInclusive<u64> = 3_000..=30_000;

/// How nodes are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// All to the first.
    Star,
    /// One after the other.
    Chain,
    /// A chain with its ends joined.
    Ring,
    /// A random tree and more links.
    Mesh,
    /// Every node dials the first two, which are joined.
    TwoHubs,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A connection is reset.
    Cut,
    /// A connection dies and nobody is told.
    SilentCut,
    /// No byte passes between two halves for a while.
    Partition { lasts: Duration },
    /// No byte passes in one direction of a link for a while.
    OneWay { lasts: Duration },
    /// A link is cut again and again.
    Flap { times: u8 },
    /// A process dies and starts again.
    Kill { lasts: Duration },
    /// A node loses its power, without a word to its peers.
    PowerCut { lasts: Duration },
    /// A node begins again with an empty disk.
    Wipe,
    /// A copy of a node's disk is put aside.
    Backup,
    /// A node begins again with the copy.
    Restore,
    /// A copy of a node's disk is started beside it.
    Clone,
    /// No room on a node's disk for a while.
    Full { lasts: Duration },
    /// A node's disk says that it syncs and does not, until the power goes.
    Lie { lasts: Duration },
    /// A node's disk takes seconds for each sync for a while.
    SlowDisk { lasts: Duration },
    /// A link comes or goes.
    Rewire,
    /// A node goes and never comes back.
    Leave,
    /// Policy drops the beginning of something at a node, whoever else has it or not.
    Retire,
    /// Records in the middle of a stream rot, of which there is another copy; the node finds that at its start or at its work.
    Rot { lasts: Duration },
}

/// One link as it is built.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wire {
    /// Who dials.
    pub from: usize,
    pub to: usize,
    pub delay_ms: u64,
    pub jitter_ms: u64,
    pub bytes_per_second: Option<u64>,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub shape: Shape,
    pub grants: Vec<Sites>,
    pub wires: Vec<Wire>,
    pub appends: u32,
    /// Of the appends, so many come at once at the start of one node.
    pub backlog: u32,
    pub body_bytes_max: usize,
    pub active: Duration,
    pub faults: Vec<(Duration, Fault)>,
    /// Real stores on simulated disks.
    pub real: bool,
    /// Nodes but the hubs drop what is confirmed.
    pub cleans_up: bool,
    /// Messages pass through their bytes.
    pub coded: bool,
    /// Policy drops beginnings, and this node comes at this time.
    pub late: Option<(usize, Duration)>,
    /// Records rot in the middle of streams. No other fault takes a copy then, so that every gap can be closed.
    pub rots: bool,
    /// A node that learns that its run is over begins another; otherwise it goes on as it can.
    pub renews: bool,
}

impl Scenario {
    pub fn of(plan: &Plan) -> Self {
        match plan.case {
            Case::Drawn => Self::drawn(plan.seed, plan.nodes, plan.real),
            Case::ManyCuts => Self::many_cuts(plan.seed),
            Case::SlowLink => Self::slow_link(),
        }
    }

    fn quiet(shape: Shape, wires: Vec<Wire>, nodes: usize, active: Duration) -> Self {
        Self {
            shape,
            grants: vec![Sites::All; nodes],
            wires,
            appends: 0,
            backlog: 0,
            body_bytes_max: 4_000,
            active,
            faults: Vec::new(),
            real: false,
            cleans_up: false,
            coded: true,
            late: None,
            rots: false,
            renews: true,
        }
    }

    fn many_cuts(seed: u64) -> Self {
        const CUTS: u64 = 1_000;
        const APART_MS: u64 = 3_000;
        let mut rng = StdRng::seed_from_u64(seed);
        let wire = Wire { from: 0, to: 1, delay_ms: 50, jitter_ms: 1, bytes_per_second: Some(30_000) };
        let mut scenario = Self::quiet(Shape::Chain, vec![wire], 2, ms(CUTS * APART_MS));
        scenario.backlog = 40_000;
        scenario.faults = (0..CUTS).map(|_| (ms(rng.random_range(0..CUTS * APART_MS)), Fault::Cut)).collect();
        scenario
    }

    fn slow_link() -> Self {
        const NEIGHBOURS: usize = 10;
        let slow = Wire { from: 0, to: 1, delay_ms: 1_000, jitter_ms: 1, bytes_per_second: Some(6_250) };
        let near = |from| Wire { from, to: 0, delay_ms: 1, jitter_ms: 1, bytes_per_second: None };
        let wires = std::iter::once(slow).chain((2..2 + NEIGHBOURS).map(near)).collect();
        Self::quiet(Shape::Star, wires, 2 + NEIGHBOURS, Duration::from_secs(310))
    }

    fn drawn(seed: u64, nodes: Option<usize>, real: Option<bool>) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x5eed_0f5c_e4a1_0000);
        let real = rng.random_bool(0.1) & real.is_none() | real.unwrap_or(false);
        let retires = seed % 8 == 3 && nodes.is_none_or(|nodes| nodes <= RETIRING_NODES_MAX);
        let cleans_up = !real && rng.random_bool(0.15) && !retires;
        let rots = seed % 8 == 2 && !real && !cleans_up;
        let shape = if cleans_up {
            Shape::TwoHubs
        } else {
            [Shape::Star, Shape::Chain, Shape::Ring, Shape::Mesh][rng.random_range(0..4usize)]
        };
        let drawn = match rng.random_range(0..200u32) {
            _ if real => rng.random_range(2..=4),
            0 => rng.random_range(40..=NODES_MAX),
            1..=9 => rng.random_range(13..=40),
            _ => rng.random_range(3..=12),
        };
        let drawn = if retires && !real { rng.random_range(2..=RETIRING_NODES_MAX) } else { drawn };
        let nodes = nodes.unwrap_or(drawn).max(if cleans_up { 4 } else { 2 });
        let slow = rng.random_bool(0.25);
        let links = links(&mut rng, shape, nodes);
        let wires = links.into_iter().map(|(from, to)| wire(&mut rng, from, to, slow)).collect();
        let split = shape == Shape::Star && !real && rng.random_bool(0.3);
        let grants =
            (0..nodes).map(|node| if split && node > 0 { leaf(&mut rng) } else { Sites::All }).collect();
        let active = ms(rng.random_range(5_000..60_000));
        let many = u32::try_from(nodes).unwrap_or(1);
        let appends = if real { rng.random_range(10..80) } else { rng.random_range(10..400).min(20 * many) };
        let long = rng.random_bool(0.1);
        let body_bytes_max = if long { 20_000 } else { 200 };
        let backlog = match rng.random_range(0..4u8) {
            0 if !real && long => rng.random_range(10..60),
            0 if !real => rng.random_range(50..800),
            _ => 0,
        };
        let mut scenario = Self {
            shape,
            grants,
            wires,
            appends,
            backlog,
            body_bytes_max,
            active,
            faults: Vec::new(),
            real,
            cleans_up,
            coded: rng.random_bool(0.2) || real,
            late: None,
            rots,
            renews: rng.random_bool(0.7),
        };
        if rots {
            for _ in 0..rng.random_range(1..=8) {
                let lasts = ms(rng.random_range(100..4_000));
                scenario
                    .faults
                    .push((ms(rng.random_range(0..active.as_millis() as u64)), Fault::Rot { lasts }));
            }
        }
        if retires {
            let to = active.as_millis() as u64;
            let from = to.saturating_sub(RETIRING_MS);
            scenario.late = Some((rng.random_range(0..nodes), ms(rng.random_range(from..to))));
            for _ in 0..rng.random_range(1..=6) {
                scenario.faults.push((ms(rng.random_range(from..to)), Fault::Retire));
            }
        }
        let kinds = rng.random_range(0..=5);
        for _ in 0..kinds {
            let fault = scenario.draw(&mut rng);
            let times = match fault {
                Fault::Clone | Fault::Wipe | Fault::Restore | Fault::Leave => 1,
                _ => rng.random_range(1..=8),
            };
            for _ in 0..times {
                let at = rng.random_range(0..active.as_millis() as u64);
                if fault == Fault::Restore {
                    scenario.faults.push((ms(at / 2), Fault::Backup));
                }
                scenario.faults.push((ms(at), fault));
            }
        }
        scenario
    }

    fn draw(&self, rng: &mut StdRng) -> Fault {
        let lasts = ms(rng.random_range(500..30_000));
        // Where policy drops what a peer confirmed, the peer's disk may not lose it.
        let kinds = match self.late {
            // One name for two contents is another story.
            Some(_) => 12,
            None if self.cleans_up => 10,
            None if self.rots => 11,
            None => 16,
        };
        match rng.random_range(0..kinds) {
            // A real store keeps and shows what stands above a loss, so its answers are not those of its vector alone.
            14.. if self.real => Fault::Cut,
            0 => Fault::Cut,
            1 => Fault::SilentCut,
            2 => Fault::Partition { lasts },
            3 => Fault::OneWay { lasts },
            4 => Fault::Flap { times: rng.random_range(2..20) },
            5 => Fault::Kill { lasts: lasts / 8 },
            6 => Fault::PowerCut { lasts },
            7 => Fault::Full { lasts },
            8 => Fault::SlowDisk { lasts },
            9 if self.cleans_up => Fault::Leave,
            9 | 10 => Fault::Rewire,
            11 => Fault::Wipe,
            12 => Fault::Restore,
            13 => Fault::Clone,
            _ => Fault::Lie { lasts },
        }
    }
}

fn leaf(rng: &mut StdRng) -> Sites {
    let name = if rng.random() { "north" } else { "south" };
    Sites::Only(name.parse().into_iter().collect())
}

fn wire(rng: &mut StdRng, from: usize, to: usize, slow: bool) -> Wire {
    let slow = slow && rng.random_bool(0.5);
    Wire {
        from,
        to,
        delay_ms: if slow { rng.random_range(100..1_000) } else { rng.random_range(0..80) },
        jitter_ms: rng.random_range(1..120),
        bytes_per_second: slow.then(|| rng.random_range(SLOW_BYTES_PER_SECOND)),
    }
}

fn links(rng: &mut StdRng, shape: Shape, nodes: usize) -> Vec<(usize, usize)> {
    match shape {
        Shape::Star => (1..nodes).map(|node| (node, 0)).collect(),
        Shape::Chain => (1..nodes).map(|node| (node - 1, node)).collect(),
        Shape::Ring => (0..nodes).map(|node| (node, (node + 1) % nodes)).filter(|(a, b)| a != b).collect(),
        Shape::TwoHubs => {
            let mut links = vec![(0, 1)];
            links.extend((2..nodes).flat_map(|node| [(node, 0), (node, 1)]));
            links
        }
        Shape::Mesh => {
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
    }
}
