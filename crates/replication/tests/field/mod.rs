//! A field of nodes under one seeded clock: real machines, a model of the disk that loses what is not synced, and
//! connections that delay, and are cut with or without a sign. It is the naive judge: it knows every record written.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tidelog_record::{ChainHash, Lsn, NodeId, Record, Run, SiteName, StreamId};
use tidelog_replication::{
    Decoder, DiskReply, DiskRequest, Event, Head, Message, Options, Peer, Replica, SessionId, Sites, encode,
};

pub fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub fn site(name: &str) -> SiteName {
    name.parse().unwrap()
}

/// A log that a model keeps: what is durable, per stream, in order.
#[derive(Default)]
pub struct Disk {
    pub streams: BTreeMap<StreamId, Vec<Record>>,
    /// Written and not synced: `None` is an own append.
    pending: Vec<(Option<DiskRequest>, Vec<Record>)>,
    sync_scheduled: bool,
    /// Records that were made durable for another node, ever.
    pub adopted: u64,
}

impl Disk {
    fn head(records: &[Record]) -> Head {
        records.last().map_or(Head::default(), |last| Head { lsn: last.lsn, chain: last.chain })
    }

    pub fn vector(&self) -> Vec<(StreamId, Head)> {
        self.streams.iter().map(|(id, records)| (id.clone(), Self::head(records))).collect()
    }
}

pub struct Node {
    pub id: NodeId,
    pub sites: Sites,
    pub run: Run,
    pub replica: Replica,
    pub disk: Disk,
    /// Own records appended, durable or not: the next LSN of each own stream.
    tails: BTreeMap<StreamId, Head>,
    pub life: u32,
    /// When the next timer fires.
    timer: Option<Duration>,
    pub events: Vec<Event>,
}

/// One end of a connection.
#[derive(Clone, Copy)]
struct End {
    node: usize,
    session: SessionId,
    life: u32,
}

struct Connection {
    link: usize,
    ends: [End; 2],
    /// Bytes still arrive. After a silent cut they do not and nobody is told.
    alive: bool,
    /// A machine has ended it; what was said before still arrives.
    closing: bool,
    /// Cut without a sign: only the dialling end's own patience brings a new one.
    silent: bool,
    /// Last arrival in each direction: a connection keeps order.
    last_arrival: [Duration; 2],
}

enum Happening {
    Arrive { connection: u64, to: usize, bytes: Vec<u8> },
    Disconnected { connection: u64, end: usize },
    Connect { link: usize },
    Sync { node: usize, life: u32 },
    ReadDone { node: usize, life: u32, reply: DiskReply },
    Timer { node: usize, life: u32 },
    Append { node: usize },
    Cut,
    Restart,
}

#[derive(Clone, Debug)]
pub struct Faults {
    pub delay_ms_max: u64,
    pub cuts: u32,
    pub silent: bool,
    pub restarts: u32,
    pub appends: u32,
    pub body_bytes_max: usize,
    pub active: Duration,
}

pub struct Field {
    pub rng: StdRng,
    pub now: Duration,
    pub nodes: Vec<Node>,
    pub links: Vec<(usize, usize)>,
    connections: BTreeMap<u64, Connection>,
    by_session: BTreeMap<SessionId, (u64, usize)>,
    heap: BinaryHeap<Reverse<(Duration, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    next: u64,
    faults: Faults,
    pub healed: bool,
    /// Every durable record that an author made.
    pub ledger: BTreeMap<(StreamId, Lsn), Vec<u8>>,
    pub record_bytes_sent: u64,
    pub records_sent: u64,
    pub messages_sent: u64,
    pub cuts_made: u64,
    pub sites: Vec<SiteName>,
}

impl Field {
    pub fn new(seed: u64, grants: &[Sites], links: Vec<(usize, usize)>, faults: Faults) -> Self {
        let mut field = Self {
            rng: StdRng::seed_from_u64(seed),
            now: Duration::ZERO,
            nodes: Vec::new(),
            links,
            connections: BTreeMap::new(),
            by_session: BTreeMap::new(),
            heap: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            next: 0,
            faults: faults.clone(),
            healed: false,
            ledger: BTreeMap::new(),
            record_bytes_sent: 0,
            records_sent: 0,
            messages_sent: 0,
            cuts_made: 0,
            sites: vec![site("north"), site("south")],
        };
        for (i, sites) in grants.iter().enumerate() {
            let id = NodeId([u8::try_from(i).unwrap() + 1; 16]);
            let run = Run(field.rng.random());
            let replica = Replica::new(Options::new(id, run, sites.clone(), 0), []);
            field.nodes.push(Node {
                id,
                sites: sites.clone(),
                run,
                replica,
                disk: Disk::default(),
                tails: BTreeMap::new(),
                life: 0,
                timer: None,
                events: Vec::new(),
            });
        }
        for link in 0..field.links.len() {
            let at = field.moment(200);
            field.schedule(at, Happening::Connect { link });
        }
        let active = u64::try_from(faults.active.as_millis()).unwrap();
        for _ in 0..faults.appends {
            let at = field.moment(active);
            let node = field.rng.random_range(0..field.nodes.len());
            field.schedule(at, Happening::Append { node });
        }
        for _ in 0..faults.cuts {
            let at = field.moment(active);
            field.schedule(at, Happening::Cut);
        }
        for _ in 0..faults.restarts {
            let at = field.moment(active);
            field.schedule(at, Happening::Restart);
        }
        field
    }

    fn moment(&mut self, within_ms: u64) -> Duration {
        self.now + ms(self.rng.random_range(0..=within_ms))
    }

    fn schedule(&mut self, at: Duration, happening: Happening) {
        self.next += 1;
        self.happenings.insert(self.next, happening);
        self.heap.push(Reverse((at, self.next)));
    }

    /// Runs until the clock stands at `until`.
    pub fn run(&mut self, until: Duration) {
        while let Some(Reverse((at, _))) = self.heap.peek() {
            if *at > until {
                break;
            }
            let Some(Reverse((at, key))) = self.heap.pop() else { break };
            self.now = self.now.max(at);
            if let Some(happening) = self.happenings.remove(&key) {
                self.happen(happening);
            }
        }
        self.now = until;
    }

    fn happen(&mut self, happening: Happening) {
        let now = self.now;
        match happening {
            Happening::Arrive { connection, to, bytes } => {
                let Some(found) = self.connections.get(&connection).filter(|found| found.alive) else {
                    return;
                };
                let end = found.ends[to];
                if self.nodes[end.node].life != end.life {
                    return;
                }
                let mut decoder = Decoder::default();
                decoder.push(&bytes);
                let message = decoder.next_message().unwrap().unwrap();
                let outcome = self.nodes[end.node].replica.handle_message(now, end.session, message);
                assert_eq!(outcome, Ok(()), "an honest peer broke a rule");
                self.settle(end.node);
            }
            Happening::Disconnected { connection, end } => {
                let Some(found) = self.connections.get(&connection) else { return };
                let end = found.ends[end];
                if self.nodes[end.node].life == end.life {
                    self.nodes[end.node].replica.disconnected(now, end.session);
                    self.settle(end.node);
                }
            }
            Happening::Connect { link } => self.connect(link),
            Happening::Sync { node, life } => self.sync(node, life),
            Happening::ReadDone { node, life, reply } => {
                if self.nodes[node].life == life {
                    self.nodes[node].replica.handle_disk(now, reply);
                    self.settle(node);
                }
            }
            Happening::Timer { node, life } => {
                let n = &mut self.nodes[node];
                if n.life == life && n.timer.is_some_and(|at| at <= now) {
                    n.timer = None;
                    if n.replica.poll_timeout().is_some_and(|due| due <= now) {
                        n.replica.handle_timeout(now);
                    }
                    self.settle(node);
                }
            }
            Happening::Append { node } => self.append(node),
            Happening::Cut => {
                let alive: Vec<u64> = self
                    .connections
                    .iter()
                    .filter(|(_, c)| c.alive && !c.closing)
                    .map(|(key, _)| *key)
                    .collect();
                if !alive.is_empty() && !self.healed {
                    let key = alive[self.rng.random_range(0..alive.len())];
                    let silent = self.faults.silent && self.rng.random_bool(0.3);
                    self.cut(key, silent);
                }
            }
            Happening::Restart => {
                if !self.healed {
                    let node = self.rng.random_range(0..self.nodes.len());
                    self.restart(node);
                }
            }
        }
    }

    fn connect(&mut self, link: usize) {
        let (a, b) = self.links[link];
        self.next += 1;
        let key = self.next;
        let ends = [a, b].map(|node| {
            self.next += 1;
            End { node, session: SessionId(self.next), life: self.nodes[node].life }
        });
        self.connections.insert(
            key,
            Connection {
                link,
                ends,
                alive: true,
                closing: false,
                silent: false,
                last_arrival: [self.now; 2],
            },
        );
        for (i, end) in ends.iter().enumerate() {
            let other = &self.nodes[ends[1 - i].node];
            let peer = Peer { node: other.id, sites: other.sites.clone(), dialled: i == 0 };
            self.by_session.insert(end.session, (key, i));
            self.nodes[end.node].replica.connected(self.now, end.session, peer);
        }
        for end in ends {
            self.settle(end.node);
        }
    }

    /// Cuts a connection. Silent: nothing arrives any more and nobody is told.
    fn cut(&mut self, key: u64, silent: bool) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        if !connection.alive {
            return;
        }
        connection.alive = false;
        self.cuts_made += 1;
        let link = connection.link;
        connection.silent = silent;
        if !silent {
            for end in 0..2 {
                let at = self.moment(300);
                self.schedule(at, Happening::Disconnected { connection: key, end });
            }
        }
        if !silent {
            let at = self.moment(500);
            self.schedule(at, Happening::Connect { link });
        }
    }

    /// Kill -9: what is not synced is lost, connections drop.
    pub fn restart(&mut self, index: usize) {
        let cut: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, c)| c.alive && c.ends.iter().any(|end| end.node == index))
            .map(|(key, _)| *key)
            .collect();
        let node = &mut self.nodes[index];
        node.life += 1;
        node.timer = None;
        node.disk.pending.clear();
        node.disk.sync_scheduled = false;
        node.tails = node.disk.vector().into_iter().filter(|(id, _)| id.node == node.id).collect();
        node.replica = Replica::new(
            Options::new(node.id, node.run, node.sites.clone(), u64::from(node.life)),
            node.disk.vector(),
        );
        for key in cut {
            self.cut(key, false);
        }
        let stale = self.connections.values_mut().filter(|c| c.silent && c.ends[0].node == index);
        let links: Vec<usize> = stale.map(|c| (c.silent = false, c.link).1).collect();
        for link in links {
            let at = self.moment(500);
            self.schedule(at, Happening::Connect { link });
        }
    }

    fn append(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let granted: Vec<&SiteName> = self.sites.iter().filter(|site| node.sites.contains(site)).collect();
        let site = granted[self.rng.random_range(0..granted.len())].clone();
        let stream = StreamId { site, node: node.id, run: node.run };
        let length = self.rng.random_range(1..=self.faults.body_bytes_max);
        let mut body = vec![0u8; length];
        self.rng.fill(&mut body[..]);
        let tail = node.tails.entry(stream.clone()).or_default();
        let lsn = tail.lsn.next().unwrap();
        let chain = tail.chain.after(&stream.key(), lsn, &body);
        *tail = Head { lsn, chain };
        node.disk.pending.push((None, vec![Record { stream, lsn, chain, body }]));
        self.schedule_sync(index);
    }

    /// Appends durably and at once, as before the start.
    pub fn seed_records(&mut self, index: usize, count: u32) {
        for _ in 0..count {
            self.append(index);
        }
        let life = self.nodes[index].life;
        self.sync(index, life);
    }

    fn schedule_sync(&mut self, index: usize) {
        if !self.nodes[index].disk.sync_scheduled {
            self.nodes[index].disk.sync_scheduled = true;
            let at = self.moment(20);
            let life = self.nodes[index].life;
            self.schedule(at, Happening::Sync { node: index, life });
        }
    }

    fn sync(&mut self, index: usize, life: u32) {
        let node = &mut self.nodes[index];
        if node.life != life {
            return;
        }
        node.disk.sync_scheduled = false;
        for (request, records) in std::mem::take(&mut node.disk.pending) {
            let mut head = None;
            for record in records {
                let held = node.disk.streams.entry(record.stream.clone()).or_default();
                assert_eq!(record.lsn.0, held.len() as u64 + 1, "a record applied twice, or a gap");
                let before = held.last().map_or(ChainHash::GENESIS, |last| last.chain);
                assert!(record.follows(before), "a record that does not follow was written");
                head = Some((record.stream.clone(), Head { lsn: record.lsn, chain: record.chain }));
                let key = (record.stream.clone(), record.lsn);
                if request.is_none() {
                    self.ledger.insert(key, record.body.clone());
                } else {
                    node.disk.adopted += 1;
                    assert_eq!(self.ledger.get(&key), Some(&record.body), "not what its author wrote");
                }
                held.push(record);
            }
            match (request, head) {
                (Some(DiskRequest::Adopt { ticket, .. }), _) => {
                    node.replica.handle_disk(self.now, DiskReply::Adopted { ticket, outcome: Ok(()) });
                }
                (_, Some((stream, head))) => node.replica.committed(self.now, &stream, head, &[]),
                _ => {}
            }
        }
        self.settle(index);
    }

    /// Carries out what a machine wants until it wants nothing.
    fn settle(&mut self, index: usize) {
        let now = self.now;
        let life = self.nodes[index].life;
        loop {
            let mut idle = true;
            while let Some((session, message)) = self.nodes[index].replica.poll_transmit() {
                idle = false;
                self.send(session, &message);
                self.nodes[index].replica.transmitted(now, session);
            }
            while let Some(request) = self.nodes[index].replica.poll_disk() {
                idle = false;
                match request {
                    DiskRequest::Read { ticket, stream, after, bytes_max } => {
                        let held = self.nodes[index].disk.streams.get(&stream).map_or(&[][..], Vec::as_slice);
                        let mut records = Vec::new();
                        let mut bytes = 0;
                        for record in held.iter().skip(usize::try_from(after.0).unwrap()) {
                            bytes += record.body.len();
                            if bytes > bytes_max && !records.is_empty() {
                                break;
                            }
                            records.push(record.clone());
                        }
                        let at = self.moment(5);
                        let reply = DiskReply::Read { ticket, outcome: Ok(records) };
                        self.schedule(at, Happening::ReadDone { node: index, life, reply });
                    }
                    DiskRequest::Adopt { ticket, records } => {
                        let request = DiskRequest::Adopt { ticket, records: Vec::new() };
                        self.nodes[index].disk.pending.push((Some(request), records));
                        self.schedule_sync(index);
                    }
                    DiskRequest::Skip { stream, .. } => panic!("nothing of {stream} was dropped"),
                }
            }
            let mut over = VecDeque::new();
            while let Some(event) = self.nodes[index].replica.poll_event() {
                idle = false;
                if let Event::Closed { session, .. } = &event {
                    over.push_back(*session);
                }
                self.nodes[index].events.push(event);
            }
            for session in over {
                if let Some((key, _)) = self.by_session.get(&session).copied() {
                    self.close(key, session);
                }
            }
            if idle {
                break;
            }
        }
        if let Some(due) = self.nodes[index].replica.poll_timeout().map(|due| due.max(now))
            && self.nodes[index].timer.is_none_or(|at| due < at)
        {
            self.nodes[index].timer = Some(due);
            self.schedule(due, Happening::Timer { node: index, life });
        }
    }

    /// A machine ended a session: what it said still arrives, then the other end sees the close.
    fn close(&mut self, key: u64, session: SessionId) {
        let stale = self.connections.get_mut(&key).filter(|c| c.silent && c.ends[0].session == session);
        if let Some(link) = stale.map(|c| (c.silent = false, c.link).1) {
            let at = self.moment(500);
            self.schedule(at, Happening::Connect { link });
        }
        let Some(connection) = self.connections.get_mut(&key).filter(|c| c.alive && !c.closing) else {
            return;
        };
        connection.closing = true;
        let end = usize::from(connection.ends[0].session == session);
        let at = connection.last_arrival[end].max(self.now) + ms(1);
        let link = connection.link;
        self.schedule(at, Happening::Disconnected { connection: key, end });
        if !self.connections.values().any(|c| c.alive && !c.closing && c.link == link) {
            let at = self.moment(500) + ms(1_000);
            self.schedule(at, Happening::Connect { link });
        }
    }

    fn send(&mut self, session: SessionId, message: &Message) {
        let Some((key, from)) = self.by_session.get(&session).copied() else { return };
        let mut bytes = Vec::new();
        encode(message, &mut bytes).unwrap();
        self.messages_sent += u64::from(!matches!(message, Message::Keepalive));
        if let Message::Records(records) = message {
            self.record_bytes_sent += records.bodies.0.iter().map(|body| body.0.len() as u64).sum::<u64>();
            self.records_sent += records.bodies.0.len() as u64;
        }
        let delay = ms(self.rng.random_range(0..=self.faults.delay_ms_max));
        let now = self.now;
        let Some(connection) = self.connections.get_mut(&key).filter(|c| c.alive) else { return };
        let to = 1 - from;
        let at = (now + delay).max(connection.last_arrival[to]);
        connection.last_arrival[to] = at;
        self.schedule(at, Happening::Arrive { connection: key, to, bytes });
    }

    /// Bytes of durable records that node `index` holds of other authors.
    pub fn foreign_bytes(&self, index: usize) -> u64 {
        let node = &self.nodes[index];
        let foreign = node.disk.streams.iter().filter(|(id, _)| id.node != node.id);
        foreign.flat_map(|(_, records)| records).map(|record| record.body.len() as u64).sum()
    }
}
