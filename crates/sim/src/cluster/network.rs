//! Links and the connections on them: delay, speed, directions that are blocked, and cuts with and without a sign. A connection keeps
//! order, as TCP does; what it loses it loses whole. It reads of a message only what it must to count.

use std::collections::VecDeque;
use std::time::Duration;

use rand::RngExt;
use tidelog_replication::{CloseReason, Decoder, Encoder, Message, Peer, SILENCE_TIMEOUT_MS, SessionId};

use super::flaw::Flaw;
use super::judge::Breach;
use super::ms;
use super::scenario::Wire;
use super::world::{Happening, World};

/// What a message takes besides its bodies, in bytes: the frame, names, hashes.
pub(super) const ENVELOPE_BYTES: u64 = 100;
/// Bytes for each stream told of.
const HELD_BYTES: u64 = 60;
/// While a long message comes, its bytes are heard this often.
const HEARD_EVERY: Duration = Duration::from_secs(1);
/// When it is looked again whether another link still joins the same nodes.
const REDIAL: Duration = Duration::from_secs(5);
/// A dialler waits this long at most.
const BACK_OFF_MS_MAX: u64 = 4_000;

pub(super) struct Link {
    pub wire: Wire,
    /// Taken away.
    pub gone: bool,
    /// Nothing depends on it.
    pub spare: bool,
    /// No byte passes: from the dialler, to the dialler.
    pub blocked: [bool; 2],
    connection: Option<u64>,
    tries: u32,
}

impl Link {
    pub fn new(wire: Wire) -> Self {
        Self { wire, gone: false, spare: false, blocked: [false; 2], connection: None, tries: 0 }
    }
}

/// One end of a connection; the first is the dialler's.
#[derive(Clone, Copy)]
pub(super) struct End {
    pub node: usize,
    pub session: SessionId,
    life: u32,
    /// Its machine has the session.
    open: bool,
}

/// What is being written in one direction.
struct Writing {
    start: Duration,
    end: Duration,
    cost: u64,
}

#[derive(Default)]
struct Direction {
    /// Where messages pass through their bytes, they do when they are said: what is lost later ends the connection.
    encoder: Encoder,
    decoder: Decoder,
    wire_free: Duration,
    last_arrival: Duration,
    writing: VecDeque<Writing>,
    /// What waits behind a block.
    held: Vec<Message>,
    /// Bytes passed last.
    delivered_at: Duration,
}

pub(super) struct Connection {
    link: usize,
    pub ends: [End; 2],
    /// No byte arrives any more.
    dead: bool,
    ways: [Direction; 2],
}

/// Bytes of records in a message, as credit counts them, and of the whole message.
fn sizes(message: &Message) -> (u64, u64) {
    match message {
        Message::Records(records) => {
            let cost = records.bodies.cost_bytes() as u64;
            (cost, cost + ENVELOPE_BYTES)
        }
        Message::Hold(held) => (0, held.len() as u64 * HELD_BYTES),
        Message::Above(above) => (0, above.len() as u64 * HELD_BYTES),
        _ => (0, ENVELOPE_BYTES),
    }
}

impl World {
    /// Whether both have a session with each other.
    pub fn are_joined(&self, a: usize, b: usize) -> bool {
        self.connections.values().any(|connection| {
            let ends = connection.ends.map(|end| (end.node, end.open));
            ends == [(a, true), (b, true)] || ends == [(b, true), (a, true)]
        })
    }

    fn dial_later(&mut self, link: usize) {
        let tries = self.links[link].tries.min(6);
        self.links[link].tries += 1;
        let most = (100 << tries).min(BACK_OFF_MS_MAX);
        let at = self.moment(most) + ms(20);
        self.schedule(at, Happening::Dial { link });
    }

    pub fn dial(&mut self, link: usize) {
        let Link { wire, gone, blocked, connection, .. } = &self.links[link];
        let (from, to, open) = (wire.from, wire.to, connection.is_some());
        let away = *gone || self.nodes[from].gone || self.nodes[to].gone || !self.nodes[from].up;
        if away || open {
            // Whoever starts dials again.
            return;
        }
        if self.are_joined(from, to) {
            // As a driver does: two links join the same nodes, and one session is enough.
            self.schedule(self.now + REDIAL, Happening::Dial { link });
            return;
        }
        if blocked[0] || blocked[1] || !self.nodes[to].up {
            self.dial_later(link);
            return;
        }
        let key = self.number();
        let ends = [from, to].map(|node| End {
            node,
            session: SessionId(self.number()),
            life: self.nodes[node].life,
            open: true,
        });
        self.links[link].connection = Some(key);
        self.links[link].tries = 0;
        let ways = std::array::from_fn(|_| Direction { delivered_at: self.now, ..Direction::default() });
        self.connections.insert(key, Connection { link, ends, dead: false, ways });
        self.note(|_| format!("n{from} dials n{to}: connection {key}"));
        for (i, end) in ends.iter().enumerate() {
            let other = &self.nodes[ends[1 - i].node];
            let peer = Peer { node: other.id, sites: other.sites.clone(), dialled: i == 0 };
            self.by_session.insert(end.session, (key, i));
            let now = self.now;
            self.nodes[end.node].replica.connected(now, end.session, peer);
        }
        for end in ends {
            self.settle(end.node);
        }
    }

    /// A machine says something.
    pub fn send(&mut self, session: SessionId, message: Message) {
        let Some((key, from)) = self.by_session.get(&session).copied() else { return };
        let (cost, mut bytes) = sizes(&message);
        let message = if let Some(connection) = self.connections.get_mut(&key).filter(|_| self.scenario.coded)
        {
            let mut frame = Vec::new();
            let version = self.nodes[connection.ends[from].node].replica.version(session);
            let way = &mut connection.ways[from];
            way.encoder.encode(version, &message, &mut frame).unwrap();
            bytes = frame.len() as u64;
            way.decoder.push(&frame);
            way.decoder.next_message().unwrap().unwrap()
        } else {
            message
        };
        if !matches!(message, Message::Keepalive) {
            self.tally.messages += 1;
        }
        let stuck = self.has(Flaw::StuckKeepalive);
        let now = self.now;
        let jitter = self.rng.random_range(0..=1_000u64);
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let to = 1 - from;
        let wire = &self.links[connection.link].wire;
        let delay = ms(wire.delay_ms + wire.jitter_ms * jitter / 1_000);
        let ends = connection.ends;
        let way = &mut connection.ways[from];
        let start = way.wire_free.max(now);
        let takes = wire
            .bytes_per_second
            .map_or(Duration::ZERO, |speed| Duration::from_micros(bytes.saturating_mul(1_000_000) / speed));
        let end = start + takes;
        way.wire_free = end;
        let at = (end + delay).max(way.last_arrival);
        way.last_arrival = at;
        let dead = connection.dead;
        if takes.is_zero() {
            self.tally.sent_bytes += cost;
        } else {
            way.writing.push_back(Writing { start, end, cost });
        }
        self.note(|_| format!("n{} > n{}  {}", ends[from].node, ends[to].node, said(&message)));
        if takes.is_zero() || stuck {
            self.nodes[ends[from].node].replica.transmitted(now, session);
        }
        if dead {
            self.tally.lost_bytes += cost;
            return;
        }
        if !takes.is_zero() {
            self.schedule(end, Happening::Written { connection: key, from });
            let mut heard = start + HEARD_EVERY;
            while heard < end {
                self.schedule(heard + delay, Happening::Heard { connection: key, to });
                heard += HEARD_EVERY;
            }
        }
        self.schedule(at, Happening::Arrive { connection: key, to, message, cost });
    }

    pub fn written(&mut self, key: u64, from: usize) {
        let stuck = self.has(Flaw::StuckKeepalive);
        let Some(connection) = self.connections.get_mut(&key) else { return };
        if let Some(writing) = connection.ways[from].writing.pop_front() {
            self.tally.sent_bytes += writing.cost;
        }
        let end = connection.ends[from];
        if !connection.dead && end.open && self.lives(end.node, end.life) && !stuck {
            let now = self.now;
            self.nodes[end.node].replica.transmitted(now, end.session);
            self.settle(end.node);
        }
    }

    pub fn heard(&mut self, key: u64, to: usize) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let end = connection.ends[to];
        if connection.dead || self.links[connection.link].blocked[1 - to] {
            return;
        }
        connection.ways[1 - to].delivered_at = self.now;
        if end.open && self.lives(end.node, end.life) && !self.has(Flaw::StuckKeepalive) {
            let now = self.now;
            self.nodes[end.node].replica.heard(now, end.session);
        }
    }

    pub fn arrive(&mut self, key: u64, to: usize, message: Message, cost: u64) {
        let end = match self.connections.get_mut(&key) {
            Some(connection) if !connection.dead => {
                let way = &mut connection.ways[1 - to];
                if self.links[connection.link].blocked[1 - to] {
                    way.held.push(message);
                    return;
                }
                way.delivered_at = self.now;
                connection.ends[to]
            }
            _ => {
                self.tally.lost_bytes += cost;
                return;
            }
        };
        if !end.open || !self.lives(end.node, end.life) {
            self.tally.lost_bytes += cost;
            return;
        }
        let from = self.connections[&key].ends[1 - to].node;
        let Some(message) = self.overheard(end.node, from, message) else { return };
        let text = said(&message);
        let now = self.now;
        if let Err(violation) = self.nodes[end.node].replica.handle_message(now, end.session, message) {
            let (node, peer) = (end.node, from);
            self.accuse(Breach::Rule { node, peer, message: text, violation });
            return;
        }
        self.settle(end.node);
    }

    /// A machine ended a session: what it said still arrives, then the other end learns of it.
    pub fn closed(&mut self, session: SessionId, reason: &CloseReason) {
        let Some((key, index)) = self.by_session.get(&session).copied() else { return };
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let end = &mut connection.ends[index];
        end.open = false;
        let node = end.node;
        let link = connection.link;
        let way = &connection.ways[1 - index];
        let passes = !connection.dead && !self.links[link].blocked[1 - index];
        let fresh = self.now.saturating_sub(way.delivered_at) < ms(SILENCE_TIMEOUT_MS / 2);
        if *reason == CloseReason::Silent && passes && fresh {
            let peer = connection.ends[1 - index].node;
            self.accuse(Breach::CalledSilent { node, peer });
            return;
        }
        let at = connection.ways[index].last_arrival.max(self.now) + ms(1);
        let alive = !connection.dead;
        if alive {
            self.schedule(at, Happening::Disconnected { connection: key, end: 1 - index });
        }
        self.note(|_| format!("n{node} ends connection {key}: {reason}"));
        self.ended(key, index);
    }

    pub fn disconnected(&mut self, key: u64, index: usize) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        if self.links[connection.link].blocked[1 - index] && !connection.dead {
            // The end of a connection does not pass either.
            return;
        }
        let end = connection.ends[index];
        connection.ends[index].open = false;
        if end.open && self.lives(end.node, end.life) {
            let now = self.now;
            self.nodes[end.node].replica.disconnected(now, end.session);
            self.settle(end.node);
        }
        self.ended(key, index);
    }

    /// One end is over: the dialler dials again, and without ends there is no connection.
    fn ended(&mut self, key: u64, index: usize) {
        let Some(connection) = self.connections.get(&key) else { return };
        let link = connection.link;
        if connection.ends.iter().all(|end| !end.open) {
            self.forget(key);
        }
        if index == 0 && self.links[link].connection == Some(key) {
            self.links[link].connection = None;
            self.dial_later(link);
        }
    }

    fn forget(&mut self, key: u64) {
        let Some(connection) = self.connections.remove(&key) else { return };
        for end in connection.ends {
            self.by_session.remove(&end.session);
        }
        for way in connection.ways {
            let held: u64 = way.held.iter().map(|message| sizes(message).0).sum();
            self.tally.lost_bytes += held;
            self.count_cut(way.writing);
        }
    }

    /// Of what was being written, a part was sent for nothing.
    fn count_cut(&mut self, writing: VecDeque<Writing>) {
        for Writing { start, end, cost } in writing {
            let part = if self.now >= end {
                cost
            } else {
                let (gone, all) =
                    (self.now.saturating_sub(start).as_micros(), (end - start).as_micros().max(1));
                u64::try_from(u128::from(cost) * gone / all).unwrap_or(cost)
            };
            self.tally.sent_bytes += part;
            // What was not sent is not lost on the way; it is counted there when it would have arrived.
            self.tally.lost_bytes = self.tally.lost_bytes.saturating_sub(cost - part);
        }
    }

    /// Cuts the connection of a link. Silent: nobody is told.
    pub fn cut_link(&mut self, link: usize, silent: bool) {
        let Some(key) = self.links[link].connection else { return };
        let Some(connection) = self.connections.get_mut(&key).filter(|connection| !connection.dead) else {
            return;
        };
        connection.dead = true;
        let [first, second] = std::mem::take(&mut connection.ways);
        let ends = connection.ends;
        for way in [first, second] {
            let held: u64 = way.held.iter().map(|message| sizes(message).0).sum();
            self.tally.lost_bytes += held;
            self.count_cut(way.writing);
        }
        self.tally.cuts += 1;
        self.note(|_| {
            format!("connection {key} of n{} and n{} is cut, silent: {silent}", ends[0].node, ends[1].node)
        });
        if !silent {
            for end in 0..2 {
                let at = self.moment(300);
                self.schedule(at, Happening::Disconnected { connection: key, end });
            }
        }
    }

    pub fn unblock(&mut self, link: usize, direction: usize) {
        self.links[link].blocked[direction] = false;
        let keys: Vec<u64> =
            self.connections.iter().filter(|(_, c)| c.link == link && !c.dead).map(|(key, _)| *key).collect();
        for key in keys {
            let Some(connection) = self.connections.get_mut(&key) else { continue };
            let to = 1 - direction;
            for message in std::mem::take(&mut connection.ways[direction].held) {
                // At once, or something that arrives at this very moment would overtake it.
                let cost = sizes(&message).0;
                self.arrive(key, to, message, cost);
            }
            let sender_is_over =
                self.connections.get(&key).is_some_and(|connection| !connection.ends[direction].open);
            if sender_is_over {
                self.schedule(self.now, Happening::Disconnected { connection: key, end: to });
            }
        }
    }

    /// A node is gone, with a sign (its system resets connections) or without.
    pub fn drop_connections_of(&mut self, node: usize, silent: bool) {
        let keys: Vec<(u64, usize)> = self
            .connections
            .iter()
            .filter_map(|(key, c)| c.ends.iter().position(|end| end.node == node).map(|index| (*key, index)))
            .collect();
        for (key, index) in keys {
            let Some(connection) = self.connections.get_mut(&key) else { continue };
            connection.ends[index].open = false;
            let link = connection.link;
            if self.links[link].connection == Some(key) {
                self.cut_link(link, silent);
                if index == 0 {
                    self.links[link].connection = None;
                }
            } else if let Some(connection) = self.connections.get_mut(&key) {
                connection.dead = true;
            }
        }
    }

    /// A node that starts dials, and so do those that gave up while it was away.
    pub fn dial_from(&mut self, node: usize) {
        for link in 0..self.links.len() {
            if self.links[link].wire.from == node {
                self.links[link].tries = 0;
                self.dial_later(link);
            }
        }
    }
}

/// A stream's name, cut short.
pub(super) fn short(stream: &tidelog_record::StreamId) -> String {
    let author = u16::from_be_bytes([stream.node.0[0], stream.node.0[1]]).saturating_sub(1);
    format!("{}/n{author}/{:04x}", stream.site, stream.run.0 & 0xffff)
}

/// A message in a few words.
pub(super) fn said(message: &Message) -> String {
    match message {
        Message::Hold(held) => {
            let each = held.iter().map(|held| format!("{} {}", short(&held.stream), held.head.lsn));
            format!("holds {}", each.collect::<Vec<_>>().join(", "))
        }
        Message::Above(above) => {
            let each = above.iter().map(|above| {
                let ranges = above.ranges.iter().map(|range| format!("{}..{}", range.first, range.last));
                format!("{} {}", short(&above.stream), ranges.collect::<Vec<_>>().join(" "))
            });
            format!("holds above gaps {}", each.collect::<Vec<_>>().join(", "))
        }
        Message::Pull(pull) => format!("pull {} ({}, {}]", short(&pull.stream), pull.after, pull.until),
        Message::Records(records) => {
            format!("records {} from {}: {}", short(&records.stream), records.first, records.bodies.0.len())
        }
        Message::Stop(stream) => format!("stop {}", short(stream)),
        Message::Stopped { stream, reason } => format!("stopped {}: {reason:?}", short(stream)),
        other => format!("{other:?}"),
    }
}
