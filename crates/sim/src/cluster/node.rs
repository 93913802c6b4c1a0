//! The shell around one node's machine, as a driver is in a real node: it carries out what the machine wants, writes to the disk and
//! says what became durable. The flaws sit here.

use std::time::Duration;

use rand::RngExt;
use tidelog_record::{Lsn, Record, Run, SiteName, StreamId};
use tidelog_replication::{
    AdoptFailure, CloseReason, DiskReply, DiskRequest, Event, Head, Message, Options, RECORD_COST_BYTES,
    Range, ReadFailure, Replica, SessionId, StopReason, Ticket,
};
use tidelog_store::AdoptError;

use super::flaw::Flaw;
use super::holdings::Unwritten;
use super::judge::Breach;
use super::network::short;
use super::real;
use super::scenario::Shape;
use super::world::{Happening, Work, World};
use super::{Case, ms};

/// A disk read takes no longer than this.
const READ_MS_MAX: u64 = 5;

impl World {
    /// A process begins with what is on the disk.
    pub fn start(&mut self, node: usize) {
        let instance = self.rng.random();
        let found = &mut self.nodes[node];
        found.up = true;
        found.life += 1;
        found.timer = None;
        found.queue.clear();
        found.stopped.clear();
        found.sync_due = false;
        found.run_is_over = false;
        let options = Options::new(found.id, found.run, found.sites.clone(), instance);
        found.replica = Replica::new(options, found.holdings.vector());
        let gapped = found.holdings.shelves.iter().filter(|(_, shelf)| !shelf.above.is_empty());
        for stream in gapped.map(|(stream, _)| stream.clone()).collect::<Vec<_>>() {
            self.committed(node, &stream);
        }
        self.note(|world| format!("n{node} starts, run {:04x}", world.nodes[node].run.0 & 0xffff));
        self.dial_from(node);
    }

    pub fn timer(&mut self, node: usize, life: u32) {
        let now = self.now;
        let found = &mut self.nodes[node];
        if found.up && found.life == life && found.timer.is_some_and(|at| at <= now) {
            found.timer = None;
            if found.replica.poll_timeout().is_some_and(|due| due <= now) {
                found.replica.handle_timeout(now);
            }
            self.settle(node);
        }
    }

    /// A user writes a record.
    pub fn append(&mut self, node: usize) {
        if !self.nodes[node].up {
            return;
        }
        let granted: Vec<&SiteName> =
            self.sites.iter().filter(|site| self.nodes[node].sites.contains(site)).collect();
        let site = granted[self.rng.random_range(0..granted.len())].clone();
        let id = self.number();
        if self.has(Flaw::ReusedLsn) {
            let record = self.record(node, &site, id);
            if self.nodes[node].holdings.append(record.clone(), false).is_ok() {
                self.judge_held(node, &record);
                self.committed(node, &record.stream);
                self.nodes[node].queue.push(Work::Told);
            }
        } else {
            self.nodes[node].queue.push(Work::Append { site, id });
        }
        self.sync_soon(node);
        self.settle(node);
    }

    /// Says how far a stream is held on a model of a disk.
    fn committed(&mut self, node: usize, stream: &StreamId) {
        let (head, above) = self.held(node, stream);
        let now = self.now;
        self.nodes[node].replica.committed(now, stream, head, &above);
    }

    /// Says that the disk can read less of a stream than it could.
    pub fn receded(&mut self, node: usize, stream: &StreamId) {
        let (head, above) = self.held(node, stream);
        let now = self.now;
        self.nodes[node].replica.receded(now, stream, head, &above);
        self.settle(node);
    }

    fn held(&self, node: usize, stream: &StreamId) -> (Head, Vec<Range>) {
        let holdings = &self.nodes[node].holdings;
        let is_blind = self.has(Flaw::BlindAbove);
        let above = if is_blind { Vec::new() } else { holdings.ranges(stream) };
        (holdings.head(stream), above)
    }

    /// The record that comes next in a node's own stream.
    fn record(&mut self, node: usize, site: &SiteName, id: u64) -> Record {
        let length = self.rng.random_range(0..=self.scenario.body_bytes_max);
        let found = &self.nodes[node];
        let stream = StreamId { site: site.clone(), node: found.id, run: found.run };
        let head = found.holdings.top(&stream);
        let mut body = id.to_le_bytes().to_vec();
        body.resize(8 + length, id.to_le_bytes()[0]);
        let lsn = head.lsn.next().unwrap();
        Record { chain: head.chain.after(&stream.key(), lsn, &body), stream, lsn, body }
    }

    pub fn sync_soon(&mut self, node: usize) {
        if !self.nodes[node].sync_due {
            self.nodes[node].sync_due = true;
            let at = self.moment(self.nodes[node].sync_ms_max);
            let life = self.nodes[node].life;
            self.schedule(at, Happening::Sync { node, life });
        }
    }

    fn judge_held(&mut self, node: usize, record: &Record) {
        if self.plan.case == Case::SlowLink && record.stream.node == self.nodes[0].id {
            let name = (record.stream.clone(), record.lsn);
            match node {
                0 => drop(self.fresh.insert(name, self.now)),
                1 => self.fresh_lag = self.fresh_lag.max(self.now - self.fresh[&name]),
                _ => {}
            }
        }
        if let Some(id) = self.ledger.id_of(&record.body) {
            self.note(|_| format!("n{node} holds record {id} as {} {}", short(&record.stream), record.lsn));
        }
        if let Some(breach) = self.ledger.held(record) {
            self.accuse(breach);
        }
    }

    /// What waits is written and synced; then, and only then, it is told.
    pub fn sync(&mut self, node: usize, life: u32) {
        if !self.lives(node, life) {
            return;
        }
        self.nodes[node].sync_due = false;
        let queue = std::mem::take(&mut self.nodes[node].queue);
        if self.nodes[node].holdings.real.is_some() {
            self.sync_real(node, queue);
        } else {
            self.sync_model(node, queue);
        }
        self.settle(node);
    }

    fn sync_model(&mut self, node: usize, queue: Vec<Work>) {
        let now = self.now;
        let mut replies = Vec::new();
        let mut committed = Vec::new();
        // Streams of which a gap may be closed.
        let mut joined = Vec::new();
        for work in queue {
            match work {
                Work::Told => {}
                Work::Append { site, id } => {
                    let record = self.record(node, &site, id);
                    if self.nodes[node].holdings.append(record.clone(), true).is_ok() {
                        self.judge_held(node, &record);
                        committed.push(record.stream);
                    }
                }
                Work::Adopt { ticket, records } => {
                    let stream = records.first().map(|record| record.stream.clone());
                    let holdings = &self.nodes[node].holdings;
                    joined.extend(stream.filter(|stream| !holdings.ranges(stream).is_empty()));
                    let outcome = self.adopt_model(node, records);
                    replies.push(DiskReply::Adopted { ticket, outcome });
                }
                Work::Skip { ticket, stream, after, to } => {
                    let let_go = self.nodes[node].holdings.skip(&stream, after, to);
                    let outcome = let_go.as_ref().map(drop).ok_or(AdoptFailure::Refused);
                    self.retired(node, &let_go.unwrap_or_default(), true);
                    replies.push(DiskReply::Adopted { ticket, outcome });
                }
                Work::Retire { .. } => {}
            }
        }
        self.nodes[node].holdings.sync();
        // A gap that was closed is told of before or after the records that closed it are answered.
        let late =
            if !joined.is_empty() && self.rng.random() { std::mem::take(&mut joined) } else { Vec::new() };
        for stream in committed.into_iter().chain(joined) {
            self.committed(node, &stream);
        }
        for reply in replies {
            self.nodes[node].replica.handle_disk(now, reply);
        }
        for stream in late {
            self.committed(node, &stream);
        }
    }

    /// All of them or none.
    fn adopt_model(&mut self, node: usize, records: Vec<Record>) -> Result<(), AdoptFailure> {
        let bytes: usize = records.iter().map(|record| record.body.len()).sum();
        let cost = (bytes + RECORD_COST_BYTES * records.len()) as u64;
        if self.nodes[node].holdings.room_bytes.is_some_and(|room| room < bytes) {
            self.tally.lost_bytes += cost;
            return Err(AdoptFailure::Refused);
        }
        for record in records {
            match self.nodes[node].holdings.push(record.clone(), true) {
                Ok(true) => {
                    self.count_adopted(&record);
                    self.judge_held(node, &record);
                }
                Ok(false) if self.scenario.rots => {
                    self.accuse(Breach::Again { node, stream: record.stream.clone(), lsn: record.lsn });
                }
                Ok(false) => {}
                Err(Unwritten::Full | Unwritten::Gap) => return Err(AdoptFailure::Refused),
                Err(Unwritten::Fork) => return Err(AdoptFailure::Fork),
            }
        }
        Ok(())
    }

    fn count_adopted(&mut self, record: &Record) {
        self.tally.payload_bytes += (record.body.len() + RECORD_COST_BYTES) as u64;
    }

    fn sync_real(&mut self, node: usize, queue: Vec<Work>) {
        let now = self.now;
        let mut replies = Vec::new();
        let mut retire = None;
        if self.nodes[node].run_is_over {
            self.begin_run(node);
        }
        for work in queue {
            let Some(real) = &self.nodes[node].holdings.real else { return };
            match work {
                Work::Told => {}
                Work::Append { site, id } => {
                    let body = real::body(node, id);
                    self.ledger.remember(body.clone(), id);
                    // A refusal is told to the user; nothing was acknowledged.
                    drop(real.append(&site, body));
                }
                Work::Adopt { ticket, records } => {
                    let cost: usize = records.iter().map(|r| r.body.len() + RECORD_COST_BYTES).sum();
                    let outcome = real.adopt(records).map_err(failure);
                    match outcome {
                        Ok(()) => self.tally.payload_bytes += cost as u64,
                        Err(_) => self.tally.lost_bytes += cost as u64,
                    }
                    replies.push(DiskReply::Adopted { ticket, outcome });
                }
                Work::Skip { ticket, stream, after, to } => {
                    let (after, to) = ((after.lsn, after.chain), (to.lsn, to.chain));
                    let outcome = real.store.skip_blocking(&stream, after, to).map_err(failure);
                    replies.push(DiskReply::Adopted { ticket, outcome });
                }
                Work::Retire { horizon } => retire = Some(horizon),
            }
        }
        // What policy drops was seen before.
        let mut grown = self.mirror(node, false);
        if self.rng.random_bool(0.3)
            && let Some(real) = &self.nodes[node].holdings.real
        {
            real.upkeep();
        }
        if let (Some(horizon), Some(real)) = (retire, &self.nodes[node].holdings.real) {
            real.retire(horizon);
        }
        grown.extend(self.mirror(node, false));
        let found = &mut self.nodes[node];
        let held = found.holdings.real.as_ref().map(|real| real.above()).unwrap_or_default();
        let replica = &mut found.replica;
        for (stream, head) in grown {
            let above = held.get(&stream).map_or(&[][..], Vec::as_slice);
            replica.committed(now, &stream, head, above);
        }
        for reply in replies {
            replica.handle_disk(now, reply);
        }
    }

    /// Brings what is known of a real store to what it holds; the streams that grew.
    pub fn mirror(&mut self, node: usize, excused: bool) -> Vec<(StreamId, Head)> {
        let Some(real) = &self.nodes[node].holdings.real else { return Vec::new() };
        real.wait();
        let store = real.store.clone();
        let mut grown = Vec::new();
        let mut lost = Vec::new();
        let mut dropped = Vec::new();
        let vector = store.vector();
        for (stream, shelf) in &mut self.nodes[node].holdings.shelves {
            let held = vector.iter().find(|(id, ..)| id == stream).map_or(Lsn::ZERO, |(_, lsn, _)| *lsn);
            let chain = store.chain_at(stream, held).ok().flatten();
            let at = held.0.checked_sub(shelf.below.lsn.0 + 1).and_then(|at| usize::try_from(at).ok());
            let same = at.map(|at| shelf.records.get(at));
            // The same length after a loss may be other bytes.
            let keep =
                if same.flatten().is_some_and(|record| Some(record.chain) != chain) { 0 } else { held.0 };
            while shelf.head().lsn.0 > keep
                && let Some(record) = shelf.records.pop_back()
            {
                lost.push(record);
            }
            let floor = store.dropped_behind(stream, shelf.below.lsn);
            if let Some(floor) = floor.map(|(lsn, chain)| Head { lsn, chain }) {
                while shelf.records.front().is_some_and(|first| first.lsn <= floor.lsn) {
                    dropped.extend(shelf.records.pop_front());
                }
                shelf.below = floor;
            }
        }
        self.nodes[node].holdings.shelves.retain(|_, shelf| shelf.head().lsn > Lsn::ZERO);
        if !excused && let Some(id) = lost.iter().find_map(|record| self.ledger.id_of(&record.body)) {
            self.accuse(Breach::DiskLost { node, id });
        }
        self.ledger.lost(&lost, excused);
        self.retired(node, &dropped, true);
        for (stream, upto, chain) in vector.into_iter().filter(|(_, lsn, _)| *lsn > Lsn::ZERO) {
            let mut at = self.nodes[node].holdings.head(&stream).lsn;
            if at < upto {
                grown.push((stream.clone(), Head { lsn: upto, chain }));
            }
            while at < upto {
                let records = store.read(&stream, at, usize::MAX).unwrap();
                if records.is_empty() {
                    let (lsn, chain) = store.dropped_behind(&stream, at).unwrap();
                    at = lsn;
                    let shelf = self.nodes[node].holdings.shelves.entry(stream.clone()).or_default();
                    shelf.below = Head { lsn, chain };
                    let let_go: Vec<Record> = std::mem::take(&mut shelf.records).into();
                    self.retired(node, &let_go, true);
                }
                for record in records.into_iter().filter(|record| record.lsn <= upto) {
                    at = record.lsn;
                    self.judge_held(node, &record);
                    let shelf = self.nodes[node].holdings.shelves.entry(stream.clone()).or_default();
                    shelf.records.push_back(record);
                }
            }
        }
        grown
    }

    fn read(
        &mut self,
        node: usize,
        ticket: Ticket,
        stream: &StreamId,
        after: Lsn,
        bytes_max: usize,
    ) -> DiskReply {
        let found = &self.nodes[node].holdings;
        let (read, floor, before) = match &found.real {
            Some(real) => (
                real.store.read(stream, after, bytes_max).ok(),
                real.floor(stream, after),
                real.store.chain_at(stream, after).ok().flatten(),
            ),
            None => {
                let shelf = found.shelves.get(stream);
                let below = shelf.map(|shelf| shelf.below).filter(|below| below.lsn > after);
                (shelf.and_then(|shelf| shelf.read(after, bytes_max)), below, None)
            }
        };
        let outcome = match (read.filter(|records| !records.is_empty()), floor) {
            (Some(records), _) => Ok(records),
            (None, Some(floor)) => Err(ReadFailure::Dropped { floor, before }),
            (None, None) => Err(ReadFailure::Unreadable),
        };
        DiskReply::Read { ticket, outcome }
    }

    /// Carries out what a machine wants until it wants nothing.
    pub fn settle(&mut self, node: usize) {
        let now = self.now;
        let life = self.nodes[node].life;
        loop {
            let mut idle = true;
            while let Some((session, message)) = self.nodes[node].replica.poll_transmit() {
                idle = false;
                self.note_sent(node, session, &message);
                self.send(session, message);
            }
            while let Some(request) = self.nodes[node].replica.poll_disk() {
                idle = false;
                match request {
                    DiskRequest::Read { ticket, stream, after, bytes_max } => {
                        let reply = self.read(node, ticket, &stream, after, bytes_max);
                        let at = self.moment(READ_MS_MAX);
                        self.schedule(at, Happening::ReadDone { node, life, reply });
                    }
                    DiskRequest::Adopt { ticket, records } => {
                        self.nodes[node].queue.push(Work::Adopt { ticket, records });
                        self.sync_soon(node);
                    }
                    DiskRequest::Skip { ticket, stream, after, to } => {
                        self.nodes[node].queue.push(Work::Skip { ticket, stream, after, to });
                        self.sync_soon(node);
                    }
                }
            }
            while let Some(event) = self.nodes[node].replica.poll_event() {
                idle = false;
                self.report(node, event);
            }
            if idle {
                break;
            }
        }
        let found = &mut self.nodes[node];
        if let Some(due) = found.replica.poll_timeout().map(|due| due.max(now))
            && found.timer.is_none_or(|at| due < at)
        {
            found.timer = Some(due);
            self.schedule(due, Happening::Timer { node, life });
        }
    }

    fn report(&mut self, node: usize, event: Event) {
        match event {
            Event::Ready { .. } => {}
            Event::Closed { session, reason } => {
                if let CloseReason::Violation(violation) = &reason
                    && !matches!(violation, tidelog_replication::Violation::Itself)
                {
                    return self.accuse_rule(node, session, violation.clone());
                }
                self.closed(session, &reason);
            }
            Event::Fork(fork) => {
                self.tally.forks += 1;
                self.note(|_| format!("n{node} finds a fork of {} at {}", fork.stream, fork.lsn));
                self.own_run_is_over(node, &fork.stream);
            }
            Event::OwnStreamAhead { stream, claimed, written, .. } => {
                self.note(|_| format!("n{node} hears of its own {stream} up to {claimed}, it has {written}"));
                self.own_run_is_over(node, &stream);
            }
            Event::Branched { stream, after, into } => {
                self.note(|_| format!("n{node} writes its branch of {stream} after {after} again as {into}"));
            }
            Event::Skipped { stream, after, to, .. } => {
                self.tally.skips += 1;
                self.note(|_| format!("n{node} passes over {stream} from {after} to {to}"));
            }
            Event::Cloned { node: cloned } => {
                self.note(|_| format!("n{node} says that {cloned} is cloned"));
                self.nodes[node].clones_told.insert(cloned);
            }
        }
    }

    fn accuse_rule(&mut self, node: usize, session: SessionId, violation: tidelog_replication::Violation) {
        let peer = self
            .by_session
            .get(&session)
            .and_then(|(key, index)| Some(self.connections.get(key)?.ends[1 - index].node));
        self.accuse(Breach::Rule {
            node,
            peer: peer.unwrap_or(node),
            message: String::from("a message"),
            violation,
        });
    }

    /// What a node with a full disk stops is on its way for nothing. A flawed node takes what it sends for confirmed.
    fn note_sent(&mut self, node: usize, session: SessionId, message: &Message) {
        if let (Message::Stop(stream), true, Some((key, index))) =
            (message, self.nodes[node].was_full, self.by_session.get(&session))
            && let Some(connection) = self.connections.get(key)
        {
            let peer = connection.ends[1 - index].node;
            self.nodes[node].stopped.insert((peer, stream.clone()));
        }
        if !self.has(Flaw::RemovedUnconfirmed) || self.scenario.shape != Shape::TwoHubs {
            return;
        }
        let (Message::Records(records), Some((key, index))) = (message, self.by_session.get(&session)) else {
            return;
        };
        let Some(connection) = self.connections.get(key) else { return };
        let last = Lsn(records.first.0 + records.bodies.0.len() as u64 - 1);
        let peer = self.nodes[connection.ends[1 - index].node].id;
        self.confirm(node, peer, &records.stream, last);
        self.clean_up();
    }

    fn confirm(&mut self, node: usize, peer: tidelog_record::NodeId, stream: &StreamId, lsn: Lsn) {
        if stream.node == self.nodes[node].id {
            let told = self.nodes[node].confirmed.entry(peer).or_default().entry(stream.clone()).or_default();
            *told = lsn.max(*told);
        }
    }

    /// A message on its way to the machine: what it confirms is noted, and a flawed node drops some of it.
    pub fn overheard(&mut self, node: usize, from: usize, message: Message) -> Option<Message> {
        match &message {
            Message::Records(records)
                if self.nodes[node].stopped.contains(&(from, records.stream.clone())) =>
            {
                self.tally.lost_bytes += records.bodies.cost_bytes() as u64;
            }
            Message::Stopped { stream, reason: StopReason::Cancelled } => {
                self.nodes[node].stopped.remove(&(from, stream.clone()));
            }
            _ => {}
        }
        let own = self.nodes[node].id;
        if let (Message::Above(above), true) = (&message, self.has(Flaw::LostTail)) {
            let others = above.iter().filter(|told| told.stream.node != own).cloned().collect();
            return Some(Message::Above(others));
        }
        let Message::Hold(mut held) = message else { return Some(message) };
        if self.scenario.cleans_up {
            let peer = self.nodes[from].id;
            for told in &held {
                self.confirm(node, peer, &told.stream, told.head.lsn);
            }
        }
        if self.has(Flaw::LostTail) {
            held.retain(|told| told.stream.node != own);
        }
        (!held.is_empty()).then_some(Message::Hold(held))
    }

    /// What the node writes from now on has another run, if it was this one that is over.
    fn own_run_is_over(&mut self, node: usize, stream: &StreamId) {
        let found = &self.nodes[node];
        if stream.node != found.id || stream.run != found.run || !self.scenario.renews {
            return;
        }
        self.begin_run(node);
    }

    /// In the open store; a disk that is full begins it before the next write.
    fn begin_run(&mut self, node: usize) {
        let drawn = self.rng.random();
        let found = &mut self.nodes[node];
        let run = match &found.holdings.real {
            Some(real) => real.store.begin_run_blocking(found.run, drawn).ok(),
            None => Some(Run(drawn)),
        };
        found.run_is_over = run.is_none();
        let Some(run) = run else { return };
        found.run = run;
        found.replica.begin_run(self.now, run);
        self.note(|_| format!("n{node} goes on in run {:04x}", run.0 & 0xffff));
    }

    pub fn restart_later(&mut self, node: usize, lasts: Duration) {
        let life = self.nodes[node].life;
        let at = self.now + lasts + ms(10);
        self.schedule(at, Happening::Start { node, life });
    }
}

fn failure(error: AdoptError) -> AdoptFailure {
    match error {
        AdoptError::Fork { .. } | AdoptError::BrokenChain { .. } => AdoptFailure::Fork,
        _ => AdoptFailure::Refused,
    }
}
