//! The world of one seed: its clock, what is still to happen, and the nodes and links that it happens to. What happens on links stands
//! in `network`, at nodes in `node`, by mischief in `trouble`; what must hold in `judge`.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tidelog_record::{Lsn, NodeId, Run, SiteName, StreamId};
use tidelog_replication::{DiskReply, Head, Message, Options, Replica, SILENCE_TIMEOUT_MS, SessionId, Sites};

use super::flaw::Flaw;
use super::holdings::{Holdings, Shelf};
use super::judge::{Breach, Ledger};
use super::network::{Connection, Link};
use super::real::RealStore;
use super::scenario::{Fault, Scenario, Wire};
use super::{Case, Outcome, Plan, ms};
use crate::disk::SimDisk;

/// After the last fault everything is equal within this time.
const CONVERGENCE: Duration = Duration::from_secs(900);
/// How often it is looked whether everything is equal.
const LOOK: Duration = Duration::from_secs(2);
/// By then everyone knows that everything is equal.
const SETTLED: Duration = Duration::from_millis(2 * SILENCE_TIMEOUT_MS + 10_000);
/// So long nothing is said but keepalives, once everything is equal.
const REST: Duration = Duration::from_secs(30);
/// Records of each neighbour that wait before a slow link: more than passes it while the gateway writes.
const BACKLOG_EACH: usize = 120;
/// How often nodes that clean up do so.
pub(super) const CLEAN_UP_EVERY: Duration = Duration::from_secs(5);

/// Work that waits for the next sync of a node.
pub(super) enum Work {
    Append {
        site: SiteName,
        id: u64,
    },
    Adopt {
        ticket: tidelog_replication::Ticket,
        records: Vec<tidelog_record::Record>,
    },
    /// What peers had dropped is passed over.
    Skip {
        ticket: tidelog_replication::Ticket,
        stream: StreamId,
        after: Head,
        to: Head,
    },
    /// Policy drops what is older than this, in a real store.
    Retire {
        horizon: i64,
    },
    /// A record that a flawed node has told of already.
    Told,
}

pub(super) struct Node {
    pub id: NodeId,
    pub run: Run,
    pub sites: Sites,
    pub replica: Replica,
    pub holdings: Holdings,
    pub queue: Vec<Work>,
    pub sync_due: bool,
    pub sync_ms_max: u64,
    pub up: bool,
    /// For ever.
    pub gone: bool,
    /// Counts starts; what was meant for another life does not happen.
    pub life: u32,
    pub timer: Option<Duration>,
    /// Its run is over, and its disk had no room to begin another.
    pub run_is_over: bool,
    /// Streams that it told a peer to stop, because its disk was full.
    pub stopped: std::collections::BTreeSet<(usize, StreamId)>,
    /// Its disk was full once.
    pub was_full: bool,
    /// Its disk loses what it says to have when the power goes next.
    pub doubtful: bool,
    /// What peers told to hold of this node's own streams, or, to a flawed node, what was sent.
    pub confirmed: BTreeMap<NodeId, BTreeMap<StreamId, Lsn>>,
    /// Nodes that it said are cloned.
    pub clones_told: std::collections::BTreeSet<NodeId>,
    /// Contents that policy dropped here.
    pub dropped: std::collections::BTreeSet<u64>,
    /// Up to where it dropped of each stream by its own policy.
    pub retired: BTreeMap<StreamId, Lsn>,
}

pub(super) enum Happening {
    Arrive { connection: u64, to: usize, message: Message, cost: u64 },
    Written { connection: u64, from: usize },
    Heard { connection: u64, to: usize },
    Disconnected { connection: u64, end: usize },
    Dial { link: usize },
    Sync { node: usize, life: u32 },
    ReadDone { node: usize, life: u32, reply: DiskReply },
    Timer { node: usize, life: u32 },
    Append { node: usize },
    Fault(Fault),
    Start { node: usize, life: u32 },
    Unblock { link: usize, direction: usize },
    Cut { link: usize },
    Room { node: usize },
    Quick { node: usize },
    Truth { node: usize, life: u32 },
    CleanUp,
}

struct Entry {
    at: Duration,
    number: u64,
    happening: Happening,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// A disk that was put aside.
pub(super) struct Backup {
    pub node: usize,
    pub run: Run,
    pub shelves: BTreeMap<StreamId, Shelf>,
    pub disk: Option<SimDisk>,
}

/// What a run counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// Bytes of records put on wires, headers of records counted.
    pub sent_bytes: u64,
    /// Bytes of records that became durable at a node that did not write them.
    pub payload_bytes: u64,
    /// Bytes of records that a fault took on the way or before they were durable.
    pub lost_bytes: u64,
    pub messages: u64,
    pub cuts: u64,
    pub faults: u64,
    pub forks: u64,
    pub skips: u64,
}

pub(super) struct World {
    pub plan: Plan,
    pub scenario: Scenario,
    pub rng: StdRng,
    pub now: Duration,
    pub nodes: Vec<Node>,
    pub links: Vec<Link>,
    pub connections: BTreeMap<u64, Connection>,
    pub by_session: BTreeMap<SessionId, (u64, usize)>,
    agenda: BinaryHeap<Reverse<Entry>>,
    next: u64,
    pub healed: bool,
    pub ledger: Ledger,
    pub backups: Vec<Backup>,
    /// Nodes and their copies.
    pub twins: Vec<(usize, usize)>,
    /// When the first node wrote each of its records.
    pub fresh: BTreeMap<(StreamId, Lsn), Duration>,
    pub fresh_lag: Duration,
    pub sites: Vec<SiteName>,
    pub tally: Tally,
    pub breach: Option<Breach>,
    pub trace: Vec<String>,
}

impl World {
    pub fn new(plan: Plan) -> Self {
        let scenario = Scenario::of(&plan);
        let mut world = Self {
            rng: StdRng::seed_from_u64(plan.seed),
            plan,
            now: Duration::ZERO,
            nodes: Vec::new(),
            links: Vec::new(),
            connections: BTreeMap::new(),
            by_session: BTreeMap::new(),
            agenda: BinaryHeap::new(),
            next: 0,
            healed: false,
            ledger: Ledger::default(),
            backups: Vec::new(),
            twins: Vec::new(),
            fresh: BTreeMap::new(),
            fresh_lag: Duration::ZERO,
            sites: ["north", "south"].iter().map(|name| name.parse().unwrap()).collect(),
            tally: Tally::default(),
            breach: None,
            trace: Vec::new(),
            scenario,
        };
        let Scenario { grants, wires, appends, backlog, active, faults, .. } = world.scenario.clone();
        world.note(|world| {
            format!("{:?}, {} nodes: {:?}", world.scenario.shape, grants.len(), world.scenario)
        });
        for sites in grants {
            let index = u16::try_from(world.nodes.len()).unwrap();
            let mut id = [0; 16];
            id[..2].copy_from_slice(&(index + 1).to_be_bytes());
            let run = Run(world.rng.random());
            world.add_node(NodeId(id), run, sites, BTreeMap::new(), SimDisk::default());
        }
        for wire in wires {
            world.add_link(wire);
        }
        if let Some((node, at)) = world.scenario.late {
            world.nodes[node].up = false;
            let life = world.nodes[node].life;
            world.schedule(at, Happening::Start { node, life });
        }
        let within = u64::try_from(active.as_millis()).unwrap();
        let writer = world.rng.random_range(0..world.nodes.len());
        for _ in 0..backlog {
            world.schedule(Duration::ZERO, Happening::Append { node: writer });
        }
        for _ in 0..appends {
            let at = world.moment(within);
            let node = world.rng.random_range(0..world.nodes.len());
            world.schedule(at, Happening::Append { node });
        }
        if world.plan.case == Case::SlowLink {
            for _ in 0..BACKLOG_EACH {
                for node in 2..world.nodes.len() {
                    world.schedule(Duration::ZERO, Happening::Append { node });
                }
            }
            for second in 10..within / 1_000 {
                world.schedule(Duration::from_secs(second), Happening::Append { node: 0 });
            }
        }
        for (at, fault) in faults {
            world.schedule(at, Happening::Fault(fault));
        }
        if world.scenario.cleans_up {
            world.schedule(CLEAN_UP_EVERY, Happening::CleanUp);
        }
        world
    }

    pub fn add_node(
        &mut self,
        id: NodeId,
        run: Run,
        sites: Sites,
        shelves: BTreeMap<StreamId, Shelf>,
        disk: SimDisk,
    ) -> usize {
        let entropy = self.rng.random();
        let real = self.scenario.real.then(|| RealStore::open(disk, id, Some(run), entropy));
        self.nodes.push(Node {
            id,
            run,
            replica: Replica::new(Options::new(id, run, sites.clone(), 0), []),
            sites,
            holdings: Holdings { shelves, real, ..Holdings::default() },
            queue: Vec::new(),
            sync_due: false,
            sync_ms_max: 20,
            up: false,
            gone: false,
            life: 0,
            timer: None,
            run_is_over: false,
            stopped: std::collections::BTreeSet::new(),
            was_full: false,
            doubtful: false,
            confirmed: BTreeMap::new(),
            clones_told: std::collections::BTreeSet::new(),
            dropped: std::collections::BTreeSet::new(),
            retired: BTreeMap::new(),
        });
        let node = self.nodes.len() - 1;
        self.start(node);
        node
    }

    pub fn add_link(&mut self, wire: Wire) {
        self.links.push(Link::new(wire));
        let at = self.moment(200);
        self.schedule(at, Happening::Dial { link: self.links.len() - 1 });
    }

    pub fn moment(&mut self, within_ms: u64) -> Duration {
        self.now + ms(self.rng.random_range(0..=within_ms))
    }

    pub fn schedule(&mut self, at: Duration, happening: Happening) {
        self.next += 1;
        self.agenda.push(Reverse(Entry { at: at.max(self.now), number: self.next, happening }));
    }

    /// A number that was not given out before.
    pub fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Adds a line to the trace, if one is kept.
    pub fn note(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.plan.trace {
            let seconds = self.now.as_secs_f64();
            let line = line(self);
            self.trace.push(format!("{seconds:>9.3}  {line}"));
        }
    }

    pub fn has(&self, flaw: Flaw) -> bool {
        self.plan.flaw == Some(flaw)
    }

    pub fn accuse(&mut self, breach: Breach) {
        self.note(|_| format!("BREACH: {breach}"));
        self.breach.get_or_insert(breach);
    }

    /// Runs until the clock stands at `until`, or something is wrong.
    fn pass(&mut self, until: Duration) {
        while let Some(Reverse(first)) = self.agenda.peek() {
            if first.at > until || self.breach.is_some() {
                break;
            }
            let Some(Reverse(entry)) = self.agenda.pop() else { break };
            self.now = self.now.max(entry.at);
            self.happen(entry.happening);
        }
        self.now = until;
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrive { connection, to, message, cost } => self.arrive(connection, to, message, cost),
            Happening::Written { connection, from } => self.written(connection, from),
            Happening::Heard { connection, to } => self.heard(connection, to),
            Happening::Disconnected { connection, end } => self.disconnected(connection, end),
            Happening::Dial { link } => self.dial(link),
            Happening::Sync { node, life } => self.sync(node, life),
            Happening::ReadDone { node, life, reply } => {
                if self.lives(node, life) {
                    let now = self.now;
                    self.nodes[node].replica.handle_disk(now, reply);
                    self.settle(node);
                }
            }
            Happening::Timer { node, life } => self.timer(node, life),
            Happening::Append { node } => self.append(node),
            Happening::Fault(fault) => {
                if !self.healed {
                    self.tally.faults += 1;
                    self.trouble(fault);
                }
            }
            Happening::Start { node, life } => {
                if self.nodes[node].life == life && !self.nodes[node].up {
                    self.start(node);
                }
            }
            Happening::Unblock { link, direction } => self.unblock(link, direction),
            Happening::Cut { link } => {
                if !self.healed {
                    self.cut_link(link, false);
                }
            }
            Happening::Room { node } => self.make_room(node),
            Happening::Quick { node } => self.nodes[node].sync_ms_max = 20,
            Happening::Truth { node, life } => {
                if self.lives(node, life) && !self.healed {
                    self.power_cut(node, ms(1_000));
                }
            }
            Happening::CleanUp => {
                self.clean_up();
                self.schedule(self.now + CLEAN_UP_EVERY, Happening::CleanUp);
            }
        }
    }

    pub fn lives(&self, node: usize, life: u32) -> bool {
        self.nodes[node].up && self.nodes[node].life == life
    }

    /// Faults, their end, equality, rest.
    pub fn run(mut self) -> Outcome {
        let active = self.scenario.active;
        self.pass(active);
        self.heal();
        let mut until = active;
        let mut unequal = None;
        while self.breach.is_none() && until < active + CONVERGENCE {
            until += LOOK;
            self.pass(until);
            unequal = self.unequal();
            if unequal.is_none() {
                break;
            }
        }
        let converged = until - active;
        if let Some(unequal) = unequal {
            self.accuse(unequal);
        }
        self.note(|_| String::from("everything is equal"));
        if self.breach.is_none() {
            // What was told last is still being acknowledged, and connections that were cut without a sign are found.
            self.pass(until + SETTLED);
            let before = self.tally.messages;
            self.pass(until + SETTLED + REST);
            let said = self.tally.messages - before;
            if said > 0 {
                self.accuse(Breach::Restless { messages: said });
            }
        }
        if self.breach.is_none()
            && let Some(breach) = self.final_breach()
        {
            self.accuse(breach);
        }
        let tally = self.tally;
        Outcome {
            seed: self.plan.seed,
            nodes: self.nodes.len(),
            real: self.scenario.real,
            records: self.ledger.acknowledged(),
            faults: tally.faults,
            cuts: tally.cuts,
            forks: tally.forks,
            skips: tally.skips,
            sent_bytes: tally.sent_bytes,
            payload_bytes: tally.payload_bytes,
            lost_bytes: tally.lost_bytes,
            fresh_lag: self.fresh_lag,
            converged,
            breach: self.breach,
            trace: self.trace,
        }
    }
}
