//! What must hold. The ledger knows every record that was acknowledged and how many copies of it there are; nothing that a node says of
//! itself is believed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tidelog_record::{ChainHash, Lsn, NodeId, Record, SiteName, StreamId};
use tidelog_replication::{Head, Violation};

use super::flaw::Flaw;
use super::network::ENVELOPE_BYTES;
use super::world::World;

/// An edge that cleans up keeps no more records of its own than this.
pub(super) const KEPT_RECORDS_MAX: usize = 8;
/// Bytes that a machine may send for nothing: this share of the payload and a little.
const WASTE_PERCENT_MAX: u64 = 10;
const WASTE_BYTES: u64 = 64 * 1024;
/// Records that are sent to find a fork, at most: halves of a thousand.
const FORK_STEPS: u64 = 10;

/// What was wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
    /// An honest node broke a rule.
    #[error("n{peer} said to n{node} what breaks a rule ({violation}): {message}")]
    Rule {
        /// Who heard it.
        node: usize,
        /// Who said it.
        peer: usize,
        /// What was said.
        message: String,
        /// The rule.
        violation: Violation,
    },
    /// One name for two byte strings, and no fault that explains it.
    #[error("{stream} {lsn} is given to two records, and no disk lied, nothing was restored or copied")]
    Name {
        /// The stream.
        stream: StreamId,
        /// The LSN.
        lsn: Lsn,
    },
    /// An acknowledged record is nowhere any more, and no fault that took the last copy explains it.
    #[error("record {id} was acknowledged and is nowhere any more")]
    Lost {
        /// Its number.
        id: u64,
    },
    /// An honest disk lost what it had synced.
    #[error("n{node}'s disk was honest and lost record {id}")]
    DiskLost {
        /// The node.
        node: usize,
        /// The record.
        id: u64,
    },
    /// A node lacks a record that another has.
    #[error("n{node} never came to hold record {id}")]
    Missing {
        /// The node.
        node: usize,
        /// The record.
        id: u64,
    },
    /// Vectors differ.
    #[error("n{node} holds {stream} up to {held}, others up to {most}")]
    Vector {
        /// The node.
        node: usize,
        /// The stream.
        stream: StreamId,
        /// What it holds.
        held: Lsn,
        /// What the furthest holds.
        most: Lsn,
    },
    /// Equal names, different bytes.
    #[error("n{node} and n{other} hold different bytes of {stream}")]
    Bytes {
        /// A node.
        node: usize,
        /// Another.
        other: usize,
        /// The stream.
        stream: StreamId,
    },
    /// The machine's vector is not what the disk holds.
    #[error("n{node} claims another vector than its disk holds")]
    Claim {
        /// The node.
        node: usize,
    },
    /// A site that is not granted.
    #[error("n{node} holds {stream}, which it is not granted")]
    Granted {
        /// The node.
        node: usize,
        /// The stream.
        stream: StreamId,
    },
    /// Where nothing but rot takes records, one was sent to who had it.
    #[error("n{node} was sent {stream} {lsn}, which it holds")]
    Again {
        /// The node.
        node: usize,
        /// The stream.
        stream: StreamId,
        /// The record.
        lsn: Lsn,
    },
    /// Traffic at rest.
    #[error("{messages} messages besides keepalives although everything is equal")]
    Restless {
        /// How many.
        messages: u64,
    },
    /// A link on which bytes came was called silent.
    #[error("n{node} called the connection from n{peer} silent although bytes came")]
    CalledSilent {
        /// Who cut it.
        node: usize,
        /// Who was speaking.
        peer: usize,
    },
    /// More was sent than faults explain.
    #[error("{sent} bytes of records sent for {payload}, and faults explain only {lost}")]
    Waste {
        /// Bytes of records sent.
        sent: u64,
        /// Bytes that came to be held.
        payload: u64,
        /// Bytes that faults took.
        lost: u64,
    },
    /// A node keeps more than it may for its peers' sake.
    #[error("n{node} keeps {records} records of its own for its peers, the most is {KEPT_RECORDS_MAX}")]
    Kept {
        /// The node.
        node: usize,
        /// How many.
        records: usize,
    },
    /// A node passed over what one of its peers has.
    #[error("n{node} holds {stream} only behind {floor}, a peer of it from {lowest} on")]
    Floor {
        /// The node.
        node: usize,
        /// The stream.
        stream: StreamId,
        /// It holds nothing up to here.
        floor: Lsn,
        /// The lowest such place of its peers.
        lowest: Lsn,
    },
    /// Equal vectors, different answers.
    #[error("n{node} answers otherwise than n{other}")]
    Answer {
        /// A node.
        node: usize,
        /// Another.
        other: usize,
    },
    /// A copy of a node was at work and nobody said so.
    #[error("n{node} was cloned and nobody noticed")]
    Unnoticed {
        /// The node that was copied.
        node: usize,
    },
}

struct Entry {
    /// Where it was met first.
    place: (StreamId, Lsn),
    copies: u32,
    /// A fault took the last copy.
    excused: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Ledger {
    entries: BTreeMap<u64, Entry>,
    /// Bodies that real stores keep, by their number.
    bodies: HashMap<Vec<u8>, u64>,
    names: BTreeMap<StreamId, Vec<ChainHash>>,
    /// The first LSN under which there are two records.
    pub forked: BTreeMap<StreamId, Lsn>,
    /// Nodes whose disk lost what it had told, or was copied.
    pub may_fork: BTreeSet<NodeId>,
}

impl Ledger {
    pub fn acknowledged(&self) -> usize {
        self.entries.len()
    }

    pub fn remember(&mut self, body: Vec<u8>, id: u64) {
        self.bodies.insert(body, id);
    }

    /// The number of a record's content; seals have none.
    pub fn id_of(&self, body: &[u8]) -> Option<u64> {
        if self.bodies.is_empty() {
            body.first_chunk().map(|number| u64::from_le_bytes(*number))
        } else {
            self.bodies.get(body).copied()
        }
    }

    /// A record stands on a disk.
    pub fn held(&mut self, record: &Record) -> Option<Breach> {
        if let Some(id) = self.id_of(&record.body) {
            let entry = self.entries.entry(id);
            let place = (record.stream.clone(), record.lsn);
            entry.or_insert(Entry { place, copies: 0, excused: false }).copies += 1;
        }
        let names = self.names.entry(record.stream.clone()).or_default();
        let at = usize::try_from(record.lsn.0 - 1).unwrap();
        match names.get(at) {
            None => {
                names.resize(at, ChainHash::GENESIS);
                names.push(record.chain);
            }
            Some(known) if *known == record.chain => {}
            Some(_) => {
                let first = self.forked.entry(record.stream.clone()).or_insert(record.lsn);
                *first = record.lsn.min(*first);
                if !self.may_fork.contains(&record.stream.node) {
                    return Some(Breach::Name { stream: record.stream.clone(), lsn: record.lsn });
                }
            }
        }
        None
    }

    /// Whether another node has a copy too.
    pub fn is_elsewhere(&self, record: &Record) -> bool {
        let entry = self.id_of(&record.body).and_then(|id| self.entries.get(&id));
        entry.is_some_and(|entry| entry.copies > 1)
    }

    /// A copy is gone.
    pub fn lost<'a>(&mut self, records: impl IntoIterator<Item = &'a Record>, excused: bool) {
        for record in records {
            if let Some(entry) = self.id_of(&record.body).and_then(|id| self.entries.get_mut(&id)) {
                entry.copies -= 1;
                entry.excused = excused && entry.copies == 0;
            }
        }
    }
}

impl World {
    fn judged(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(|node| !self.nodes[*node].gone)
    }

    /// What is not equal yet, if anything.
    pub fn unequal(&self) -> Option<Breach> {
        self.lost().or_else(|| self.vectors_differ()).or_else(|| self.missing())
    }

    /// An acknowledged record that is nowhere any more.
    fn lost(&self) -> Option<Breach> {
        let entries = &self.ledger.entries;
        let lost = entries.iter().find(|(_, entry)| entry.copies == 0 && !entry.excused);
        lost.map(|(id, _)| Breach::Lost { id: *id })
    }

    fn vectors_differ(&self) -> Option<Breach> {
        let mut furthest: BTreeMap<&StreamId, Head> = BTreeMap::new();
        for node in self.judged() {
            for (stream, shelf) in &self.nodes[node].holdings.shelves {
                let head = shelf.head();
                let most = furthest.entry(stream).or_insert(head);
                if head.lsn > most.lsn {
                    *most = head;
                }
            }
        }
        for node in self.judged() {
            let found = &self.nodes[node];
            for (stream, most) in furthest.iter().filter(|(stream, _)| found.sites.contains(&stream.site)) {
                let head = found.holdings.head(stream);
                let forked = self.ledger.forked.get(*stream);
                let enough = match forked {
                    Some(first) => head.lsn.0 + 1 >= first.0,
                    None => head == *most,
                };
                if !enough {
                    let stream = (*stream).clone();
                    return Some(Breach::Vector { node, stream, held: head.lsn, most: most.lsn });
                }
            }
        }
        None
    }

    /// A record that is somewhere and not everywhere.
    fn missing(&self) -> Option<Breach> {
        for node in self.judged() {
            let found = &self.nodes[node];
            let ids = found.holdings.records().filter_map(|record| self.ledger.id_of(&record.body));
            let held: BTreeSet<u64> = ids.collect();
            for (id, entry) in &self.ledger.entries {
                let (stream, lsn) = &entry.place;
                let below = found.holdings.shelves.get(stream).map_or(Lsn::ZERO, |shelf| shelf.below.lsn);
                let there = held.contains(id) || found.dropped.contains(id) || *lsn <= below;
                if entry.copies > 0 && found.sites.contains(&stream.site) && !there {
                    return Some(Breach::Missing { node, id: *id });
                }
            }
        }
        None
    }

    /// What is found once everything is equal and at rest.
    pub fn final_breach(&self) -> Option<Breach> {
        self.unequal()
            .or_else(|| self.floor_breach())
            .or_else(|| self.bytes_breach())
            .or_else(|| self.claims_breach())
            .or_else(|| self.waste_breach())
            .or_else(|| self.kept_breach())
            .or_else(|| self.answer_breach())
            .or_else(|| self.unnoticed())
    }

    /// A node that has both of a copied node for peers knows.
    fn unnoticed(&self) -> Option<Breach> {
        for (node, twin) in &self.twins {
            for peer in self.judged() {
                let told = self.nodes[peer].clones_told.contains(&self.nodes[*node].id);
                if self.are_joined(peer, *node) && self.are_joined(peer, *twin) && !told {
                    return Some(Breach::Unnoticed { node: *node });
                }
            }
        }
        None
    }

    /// What a node lacks below its floor its own policy dropped, or every peer of it had dropped.
    fn floor_breach(&self) -> Option<Breach> {
        for node in self.judged() {
            for (stream, shelf) in &self.nodes[node].holdings.shelves {
                let floor = shelf.below.lsn;
                let peers = self.judged().filter(|peer| self.are_joined(node, *peer));
                let theirs = peers.filter_map(|peer| self.nodes[peer].holdings.shelves.get(stream));
                let lowest = theirs.map(|shelf| shelf.below.lsn).min().unwrap_or(Lsn::ZERO);
                let own = self.nodes[node].retired.get(stream).copied().unwrap_or(Lsn::ZERO);
                if floor > lowest.max(own) {
                    return Some(Breach::Floor { node, stream: stream.clone(), floor, lowest });
                }
            }
        }
        None
    }

    fn bytes_breach(&self) -> Option<Breach> {
        let mut first: BTreeMap<(&StreamId, Lsn), (usize, &Record)> = BTreeMap::new();
        for node in self.judged() {
            for record in self.nodes[node].holdings.records() {
                let forked = self.ledger.forked.get(&record.stream).is_some_and(|first| *first <= record.lsn);
                let (other, held) = first.entry((&record.stream, record.lsn)).or_insert((node, record));
                if !forked && *held != record {
                    return Some(Breach::Bytes { node, other: *other, stream: record.stream.clone() });
                }
            }
        }
        None
    }

    fn claims_breach(&self) -> Option<Breach> {
        for node in self.judged() {
            let found = &self.nodes[node];
            let mut told: Vec<_> = found.replica.vector().map(|(id, head)| (id.clone(), head)).collect();
            told.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            if told != found.holdings.vector() {
                return Some(Breach::Claim { node });
            }
            for stream in found.holdings.shelves.keys() {
                if !found.sites.contains(&stream.site) {
                    return Some(Breach::Granted { node, stream: stream.clone() });
                }
            }
        }
        None
    }

    fn waste_breach(&self) -> Option<Breach> {
        let super::world::Tally { sent_bytes: sent, payload_bytes: payload, lost_bytes: lost, .. } =
            self.tally;
        // Looking for a fork takes a record for each step.
        let looked = self.tally.forks * FORK_STEPS * (self.scenario.body_bytes_max as u64 + ENVELOPE_BYTES);
        let most = payload + payload * WASTE_PERCENT_MAX / 100 + lost + looked + WASTE_BYTES;
        (sent > most).then_some(Breach::Waste { sent, payload, lost })
    }

    fn kept_breach(&self) -> Option<Breach> {
        let edges = self.judged().filter(|node| self.scenario.cleans_up && *node >= 2);
        for node in edges {
            let found = &self.nodes[node];
            let own = found.holdings.records().filter(|record| record.stream.node == found.id);
            let records = own.count();
            // One stream for each site.
            if records > KEPT_RECORDS_MAX * self.sites.len() {
                return Some(Breach::Kept { node, records });
            }
        }
        None
    }

    fn answer_breach(&self) -> Option<Breach> {
        let mut first: Option<(usize, String)> = None;
        // Where policy drops, each shows what it keeps; from the latest of their horizons on all show the same.
        let mut from: BTreeMap<SiteName, i64> = BTreeMap::new();
        for real in self.judged().filter_map(|node| self.nodes[node].holdings.real.as_ref()) {
            for site in &self.sites {
                if let Some(horizon) = real.store.horizon(site) {
                    let at = from.entry(site.clone()).or_insert(horizon);
                    *at = horizon.max(*at);
                }
            }
        }
        for node in self.judged().filter(|node| self.nodes[*node].sites == tidelog_replication::Sites::All) {
            let Some(real) = &self.nodes[node].holdings.real else { continue };
            let answer = real.answer(&from);
            match &first {
                None => first = Some((node, answer)),
                Some((other, theirs)) if *theirs != answer => {
                    return Some(Breach::Answer { node, other: *other });
                }
                Some(_) => {}
            }
        }
        None
    }

    /// Drops what both hubs confirmed of edges' own records. The second hub is not waited for when too many are kept for it; the first
    /// always is.
    pub fn clean_up(&mut self) {
        let unconfirmed = self.has(Flaw::RemovedUnconfirmed);
        for node in 2..self.nodes.len() {
            let found = &self.nodes[node];
            let own: Vec<(StreamId, Head, usize)> = found
                .holdings
                .shelves
                .iter()
                .filter(|(stream, _)| stream.node == found.id && !found.gone)
                .map(|(stream, shelf)| (stream.clone(), shelf.head(), shelf.records.len()))
                .collect();
            for (stream, head, kept) in own {
                let told = |hub: usize| {
                    let told = found_lsn(&self.nodes[node].confirmed, &self.nodes[hub].id, &stream);
                    told.min(head.lsn)
                };
                let first = told(0);
                let all = if unconfirmed { first.max(told(1)) } else { first.min(told(1)) };
                let let_go = kept > KEPT_RECORDS_MAX && !self.has(Flaw::StalePeer);
                let upto = if let_go {
                    Lsn(first.0.min(head.lsn.0.saturating_sub(KEPT_RECORDS_MAX as u64))).max(all)
                } else {
                    all
                };
                let dropped = self.nodes[node].holdings.drop_up_to(&stream, upto);
                self.retired(node, &dropped, false);
            }
        }
    }
}

fn found_lsn(confirmed: &BTreeMap<NodeId, BTreeMap<StreamId, Lsn>>, peer: &NodeId, stream: &StreamId) -> Lsn {
    confirmed.get(peer).and_then(|told| told.get(stream)).copied().unwrap_or(Lsn::ZERO)
}
