//! What goes wrong, and its end. A fault picks its victim when it comes; where it takes a copy of a record, the ledger is told.

use std::time::Duration;

use rand::RngExt;
use tidelog_record::{Lsn, Record, Run, StreamId};
use tidelog_replication::Sites;

use super::ms;
use super::real::RealStore;
use super::scenario::{Fault, Shape, Wire};
use super::world::{Backup, Happening, Work, World};
use crate::disk::SimDisk;

impl World {
    fn some_node(&mut self) -> Option<usize> {
        let there: Vec<usize> =
            (0..self.nodes.len()).filter(|node| self.nodes[*node].up && !self.nodes[*node].gone).collect();
        (!there.is_empty()).then(|| there[self.rng.random_range(0..there.len())])
    }

    fn some_link(&mut self) -> Option<usize> {
        let there: Vec<usize> = (0..self.links.len()).filter(|link| !self.links[*link].gone).collect();
        (!there.is_empty()).then(|| there[self.rng.random_range(0..there.len())])
    }

    pub fn trouble(&mut self, fault: Fault) {
        let (Some(node), Some(link)) = (self.some_node(), self.some_link()) else { return };
        match fault {
            Fault::Cut => self.cut_link(link, false),
            Fault::SilentCut => self.cut_link(link, true),
            Fault::Partition { lasts } => self.partition(lasts),
            Fault::OneWay { lasts } => {
                let direction = self.rng.random_range(0..2);
                self.block(link, direction, lasts);
            }
            Fault::Flap { times } => {
                for second in 0..u64::from(times) {
                    self.schedule(self.now + ms(1_000 * second), Happening::Cut { link });
                }
            }
            Fault::Kill { lasts } => self.kill(node, lasts),
            Fault::PowerCut { lasts } => self.power_cut(node, lasts),
            Fault::Wipe => self.wipe(node),
            Fault::Backup => self.back_up(node),
            Fault::Restore => self.restore(),
            Fault::Clone => self.clone_node(node),
            Fault::Full { lasts } => {
                let room = self.rng.random_range(0..2_000);
                self.note(|_| format!("n{node}'s disk has room for {room} bytes"));
                self.nodes[node].holdings.room_bytes = Some(room);
                self.nodes[node].was_full = true;
                if let Some(real) = &self.nodes[node].holdings.real {
                    real.disk.set_room(Some(real.disk.used() + room as u64));
                }
                self.schedule(self.now + lasts, Happening::Room { node });
            }
            Fault::Lie { lasts } => {
                self.note(|_| format!("n{node}'s disk begins to lie"));
                let life = self.nodes[node].life;
                self.nodes[node].holdings.lies = true;
                self.nodes[node].doubtful = true;
                if let Some(real) = &self.nodes[node].holdings.real {
                    real.disk.lie(true);
                }
                self.schedule(self.now + lasts, Happening::Truth { node, life });
            }
            Fault::SlowDisk { lasts } => {
                self.note(|_| format!("n{node}'s disk is slow"));
                self.nodes[node].sync_ms_max = 10_000;
                self.schedule(self.now + lasts, Happening::Quick { node });
            }
            Fault::Rewire => self.rewire(link),
            // The first hub stays, or what only it had would be gone.
            Fault::Leave => self.leave(1),
            Fault::Retire => self.retire(node),
            Fault::Rot { lasts } => self.rot(node, lasts),
        }
    }

    /// Policy drops a beginning: of one stream, or with a real store of all that is old.
    fn retire(&mut self, node: usize) {
        if self.nodes[node].holdings.real.is_some() {
            let old = i64::try_from(self.number()).unwrap_or(i64::MAX);
            let horizon = self.rng.random_range(0..=old);
            self.note(|_| format!("n{node} drops what is older than {horizon}"));
            self.nodes[node].queue.push(Work::Retire { horizon });
            self.sync_soon(node);
            return;
        }
        let shelves = self.nodes[node].holdings.shelves.iter().filter(|(_, shelf)| !shelf.records.is_empty());
        let there: Vec<(StreamId, usize)> =
            shelves.map(|(stream, shelf)| (stream.clone(), shelf.records.len())).collect();
        if there.is_empty() {
            return;
        }
        let (stream, records) = &there[self.rng.random_range(0..there.len())];
        let count = self.rng.random_range(1..=*records) as u64;
        let upto = Lsn(self.nodes[node].holdings.shelves[stream].below.lsn.0 + count);
        self.note(|_| format!("n{node} drops {stream} up to {upto}"));
        let dropped = self.nodes[node].holdings.drop_up_to(stream, upto);
        self.retired(node, &dropped, true);
    }

    /// Some records in the middle of a stream rot, and the node finds that when it starts again, or at its work. The last record of a stream is left: without
    /// it the stream would be shorter, and its name given again. So is what nobody else has.
    fn rot(&mut self, node: usize, lasts: Duration) {
        let shelves = self.nodes[node].holdings.shelves.iter();
        let there: Vec<(StreamId, Vec<Lsn>)> = shelves
            .map(|(stream, shelf)| (stream.clone(), shelf.all().map(|record| record.lsn).collect()))
            .filter(|(_, lsns): &(StreamId, Vec<Lsn>)| lsns.len() > 1)
            .collect();
        if there.is_empty() {
            return;
        }
        let (stream, lsns) = &there[self.rng.random_range(0..there.len())];
        let (stream, at_work) = (stream.clone(), self.nodes[node].up && lasts.as_millis().is_multiple_of(2));
        if !at_work {
            self.kill(node, lasts);
        }
        for _ in 0..self.rng.random_range(1..=4) {
            let from = self.rng.random_range(0..lsns.len() - 1);
            let to = self.rng.random_range(from + 1..lsns.len()).min(from + 40);
            let (from, to) = (lsns[from], lsns[to]);
            let ledger = &self.ledger;
            let Some(shelf) = self.nodes[node].holdings.shelves.get_mut(&stream) else { break };
            let is_rotten =
                |record: &Record| from <= record.lsn && record.lsn < to && ledger.is_elsewhere(record);
            let rotten = shelf.rot(is_rotten);
            self.note(|_| format!("n{node}: {} records of {stream} from {from} on rot", rotten.len()));
            self.ledger.lost(&rotten, true);
        }
        if at_work {
            self.receded(node, &stream);
        }
    }

    /// Policy dropped records of a node; `excused`: whether or not it was their last copy.
    pub fn retired(&mut self, node: usize, dropped: &[Record], excused: bool) {
        let ids: Vec<u64> = dropped.iter().filter_map(|record| self.ledger.id_of(&record.body)).collect();
        self.nodes[node].dropped.extend(ids);
        for record in dropped {
            let upto = self.nodes[node].retired.entry(record.stream.clone()).or_default();
            *upto = record.lsn.max(*upto);
        }
        self.ledger.lost(dropped, excused);
    }

    fn block(&mut self, link: usize, direction: usize, lasts: Duration) {
        self.note(|world| {
            let wire = world.links[link].wire;
            format!("nothing passes between n{} and n{}, direction {direction}", wire.from, wire.to)
        });
        self.links[link].blocked[direction] = true;
        self.schedule(self.now + lasts, Happening::Unblock { link, direction });
    }

    fn partition(&mut self, lasts: Duration) {
        let here: Vec<bool> = (0..self.nodes.len()).map(|_| self.rng.random()).collect();
        for link in 0..self.links.len() {
            let wire = self.links[link].wire;
            if here[wire.from] != here[wire.to] {
                self.block(link, 0, lasts);
                self.block(link, 1, lasts);
            }
        }
    }

    /// Kill -9: what was not synced was not acknowledged and is gone; what was written is in the system's cache.
    fn kill(&mut self, node: usize, lasts: Duration) {
        self.note(|_| format!("n{node} is killed"));
        self.stop(node, false);
        if self.has(super::Flaw::ReusedLsn) {
            self.lose_tail(node, true);
        }
        if let Some(real) = self.nodes[node].holdings.real.take() {
            self.reopen(node, real, None, self.nodes[node].doubtful);
        }
        self.restart_later(node, lasts);
    }

    /// The power goes: what a lying disk only claimed to have is gone too.
    pub fn power_cut(&mut self, node: usize, lasts: Duration) {
        self.note(|_| format!("n{node} has no power"));
        self.stop(node, true);
        let doubtful = std::mem::take(&mut self.nodes[node].doubtful);
        self.lose_tail(node, doubtful);
        self.nodes[node].holdings.lies = false;
        if let Some(real) = self.nodes[node].holdings.real.take() {
            // The store lets go of the disk before the power is back.
            drop(real.store.close());
            let seed = self.rng.random();
            real.disk.lie(false);
            real.disk.power_on(seed);
            if doubtful {
                let id = self.nodes[node].id;
                self.ledger.may_fork.insert(id);
            }
            self.reopen(node, real, None, doubtful);
        }
        self.restart_later(node, lasts);
    }

    fn lose_tail(&mut self, node: usize, doubtful: bool) {
        let lost = self.nodes[node].holdings.lose_tail();
        if !lost.is_empty() && doubtful && !self.has(super::Flaw::ReusedLsn) {
            let id = self.nodes[node].id;
            self.ledger.may_fork.insert(id);
        }
        self.note(|_| format!("n{node} lost {} records", lost.len()));
        self.count_lost(&lost);
        self.ledger.lost(&lost, true);
    }

    /// Others' records that a node lost are sent again for a reason.
    fn count_lost(&mut self, lost: &[tidelog_record::Record]) {
        // They were payload when they came, and will be payload again.
        self.tally.faults += u64::from(!lost.is_empty());
    }

    /// The process is gone; what it was about to write is too.
    fn stop(&mut self, node: usize, silent: bool) {
        let found = &mut self.nodes[node];
        found.up = false;
        found.life += 1;
        for work in std::mem::take(&mut found.queue) {
            if let super::world::Work::Adopt { records, .. } = work {
                let cost: usize =
                    records.iter().map(|r| r.body.len() + tidelog_replication::RECORD_COST_BYTES).sum();
                self.tally.lost_bytes += cost as u64;
            }
        }
        self.drop_connections_of(node, silent);
    }

    /// Opens a real store again, under another run if one is given.
    fn reopen(&mut self, node: usize, real: RealStore, run: Option<Run>, excused: bool) {
        let RealStore { disk, store } = real;
        disk.set_room(None);
        drop(store.close());
        drop(store);
        let entropy = self.rng.random();
        let real = RealStore::open(disk, self.nodes[node].id, run, entropy);
        self.nodes[node].run = real.store.run();
        self.nodes[node].holdings.real = Some(real);
        self.mirror(node, excused);
    }

    fn wipe(&mut self, node: usize) {
        self.note(|_| format!("n{node} is wiped"));
        self.nodes[node].dropped.clear();
        self.nodes[node].retired.clear();
        self.stop(node, false);
        self.replace(node, std::collections::BTreeMap::new(), SimDisk::default(), None);
        self.restart_later(node, ms(500));
    }

    fn replace(
        &mut self,
        node: usize,
        shelves: std::collections::BTreeMap<tidelog_record::StreamId, super::holdings::Shelf>,
        disk: SimDisk,
        run: Option<Run>,
    ) {
        for record in shelves.values().flat_map(|shelf| &shelf.records) {
            let breach = self.ledger.held(record);
            self.breach = self.breach.take().or(breach);
        }
        let lost = self.nodes[node].holdings.replace(shelves);
        self.ledger.lost(&lost, true);
        let drawn = Run(self.rng.random());
        self.nodes[node].run = run.unwrap_or(drawn);
        self.nodes[node].doubtful = false;
        self.nodes[node].holdings.lies = false;
        if let Some(real) = self.nodes[node].holdings.real.take() {
            let real = RealStore { disk, store: real.store };
            self.reopen(node, real, Some(run.unwrap_or(drawn)), true);
        }
    }

    fn back_up(&mut self, node: usize) {
        self.note(|_| format!("a backup of n{node} is made"));
        let found = &self.nodes[node];
        let disk = found.holdings.real.as_ref().map(|real| real.disk.copy());
        self.backups.push(Backup { node, run: found.run, shelves: found.holdings.copy(), disk });
    }

    fn restore(&mut self) {
        let Some(backup) = self.backups.pop() else { return };
        let node = backup.node;
        if !self.nodes[node].up || self.nodes[node].gone {
            return;
        }
        self.note(|_| format!("n{node} is restored from the backup"));
        self.stop(node, false);
        let id = self.nodes[node].id;
        self.ledger.may_fork.insert(id);
        self.replace(node, backup.shelves, backup.disk.unwrap_or_default(), Some(backup.run));
        self.restart_later(node, ms(500));
    }

    /// A copy of a node's disk is started beside it.
    fn clone_node(&mut self, node: usize) {
        let all = |sites: &Sites| *sites == Sites::All;
        if all(&self.nodes[node].sites) && !self.scenario.grants.iter().all(all) {
            // Nobody else could bring the copy what only it and the original may see.
            return;
        }
        let original = &self.nodes[node];
        let (id, run, sites) = (original.id, original.run, original.sites.clone());
        let shelves = original.holdings.copy();
        let disk = original.holdings.real.as_ref().map_or_else(SimDisk::default, |real| real.disk.copy());
        let wires: Vec<Wire> = self.links.iter().filter(|link| !link.gone).map(|link| link.wire).collect();
        let twin = self.nodes.len();
        for record in shelves.values().flat_map(|shelf| &shelf.records) {
            let breach = self.ledger.held(record);
            self.breach = self.breach.take().or(breach);
        }
        self.ledger.may_fork.insert(id);
        self.note(|_| format!("n{twin} is a copy of n{node}"));
        self.add_node(id, run, sites, shelves, disk);
        self.twins.push((node, twin));
        let mut joined = 0;
        for wire in wires {
            let moved = match (wire.from == node, wire.to == node) {
                (true, _) => Wire { from: twin, ..wire },
                (_, true) => Wire { from: twin, to: wire.from, ..wire },
                _ => continue,
            };
            // Everywhere that the original is, or at one place, by chance.
            if joined == 0 || self.rng.random() {
                self.add_link(moved);
                joined += 1;
            }
        }
        for _ in 0..self.rng.random_range(0..12) {
            let at = self.moment(10_000);
            let who = if self.rng.random() { node } else { twin };
            self.schedule(at, Happening::Append { node: who });
        }
    }

    fn rewire(&mut self, link: usize) {
        // What was built first stays, so that everything stays joined.
        if self.links[link].spare {
            self.links[link].gone = true;
            self.cut_link(link, false);
        } else if let (Some(from), Some(to)) = (self.some_node(), self.some_node())
            && self.nodes[from].id != self.nodes[to].id
            && self.scenario.grants.iter().all(|sites| *sites == Sites::All)
        {
            let wire = Wire { from, to, ..self.links[link].wire };
            self.add_link(wire);
            if let Some(link) = self.links.last_mut() {
                link.spare = true;
            }
        }
    }

    fn leave(&mut self, node: usize) {
        if self.scenario.shape != Shape::TwoHubs || self.nodes[node].gone {
            return;
        }
        self.note(|_| format!("n{node} goes for ever"));
        self.stop(node, false);
        self.nodes[node].gone = true;
        let lost: Vec<_> = self.nodes[node].holdings.records().cloned().collect();
        self.ledger.lost(&lost, true);
    }

    pub fn make_room(&mut self, node: usize) {
        self.nodes[node].holdings.room_bytes = None;
        if let Some(real) = &self.nodes[node].holdings.real {
            real.disk.set_room(None);
        }
    }

    /// Every fault ends.
    pub fn heal(&mut self) {
        self.healed = true;
        self.note(|_| String::from("all faults end"));
        for link in 0..self.links.len() {
            for direction in 0..2 {
                if self.links[link].blocked[direction] {
                    self.unblock(link, direction);
                }
            }
        }
        for node in 0..self.nodes.len() {
            self.make_room(node);
            self.nodes[node].sync_ms_max = 20;
            let found = &mut self.nodes[node];
            found.holdings.lies = false;
            found.holdings.sync();
            found.doubtful = false;
            if let Some(real) = &found.holdings.real {
                real.disk.lie(false);
            }
            if !found.up && !found.gone {
                self.start(node);
            }
        }
    }
}
