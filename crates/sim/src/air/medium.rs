//! What the air decides: who hears a frame, when, how often, and who is meant by an acknowledgement, which has no
//! address. A pure machine: time is an argument, chance is seeded, and datagrams are named by socket addresses that
//! it never opens.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tidelog_lowpan::mac::{Address, Frame, Kind};
use tidelog_lowpan::zep::{self, Packet};
use tidelog_record::DeviceId;

use super::{AirCounters, AirOptions};

/// How long a frame that reached its station may wait for the acknowledgement of it.
const ACK_WINDOW: Duration = Duration::from_millis(500);
/// Frames that wait for an acknowledgement at one station.
const AWAITED_MAX: usize = 4_096;
/// Datagrams in flight; what comes on top is lost.
const FLIGHTS_MAX: usize = 65_536;
/// Stations known at once; the one longest silent makes room.
const STATIONS_MAX: usize = 16_384;

/// A frame that reached a station and asked for an acknowledgement.
#[derive(Debug)]
struct Awaited {
    sender: SocketAddr,
    sequence: u8,
    until: Instant,
}

/// A datagram on its way to one station.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    due: Instant,
    /// Order of leaving, for equal moments.
    order: u64,
    to: SocketAddr,
    from: SocketAddr,
    /// The sequence number that an acknowledgement would name, where one was asked for.
    asks: Option<u8>,
    datagram: Vec<u8>,
}

#[derive(Debug)]
struct Station {
    heard: Instant,
    /// What it last sent from; `None` before it named itself.
    device: Option<DeviceId>,
    awaited: VecDeque<Awaited>,
}

/// The air, without its socket.
#[derive(Debug)]
pub(super) struct Medium {
    loss: f64,
    duplicate: f64,
    delay: Duration,
    jitter: Duration,
    chance: StdRng,
    stations: BTreeMap<SocketAddr, Station>,
    owners: HashMap<DeviceId, SocketAddr>,
    flights: BinaryHeap<Reverse<Flight>>,
    order: u64,
    counters: AirCounters,
}

impl Medium {
    pub(super) fn new(options: &AirOptions) -> Self {
        Self {
            loss: options.loss,
            duplicate: options.duplicate,
            delay: options.delay,
            jitter: options.jitter,
            chance: StdRng::seed_from_u64(options.seed),
            stations: BTreeMap::new(),
            owners: HashMap::new(),
            flights: BinaryHeap::new(),
            order: 0,
            counters: AirCounters::default(),
        }
    }

    pub(super) fn set_loss(&mut self, loss: f64) {
        self.loss = loss;
    }

    pub(super) fn counters(&self) -> AirCounters {
        AirCounters { stations: self.stations.len() as u64, ..self.counters }
    }

    /// Takes a datagram that a station put on the air.
    pub(super) fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        let frame = match zep::decode(datagram) {
            Ok(Packet::Data(_, frame)) => frame,
            Ok(Packet::Ack(_)) => return self.register(now, from, None),
            Err(_) => return self.counters.malformed += 1,
        };
        self.counters.frames += 1;
        self.counters.bytes += (frame.len() + zep::FCS_BYTES) as u64;
        let Ok(frame) = Frame::parse(frame) else {
            self.register(now, from, None);
            return self.counters.malformed += 1;
        };
        let source = match frame.source {
            Address::Extended(device) => Some(device),
            Address::Short(_) | Address::Absent => None,
        };
        self.register(now, from, source);
        let asks = if frame.ack_requested { frame.sequence } else { None };
        match (frame.kind, frame.destination) {
            (Kind::Ack, Address::Absent) => match self.awaiting(now, from, frame.sequence) {
                Some(sender) => self.launch(now, from, sender, None, datagram),
                None => self.counters.unowned += 1,
            },
            (_, Address::Extended(device)) => match self.owners.get(&device).copied() {
                Some(owner) if owner == from => self.counters.unowned += 1,
                Some(owner) => self.launch(now, from, owner, asks, datagram),
                None => self.launch_to_all(now, from, asks, datagram, |station| station.device.is_none()),
            },
            (_, Address::Short(_) | Address::Absent) => {
                self.launch_to_all(now, from, None, datagram, |_| true);
            }
        }
    }

    /// Notes that a station is there, and which address is its own. A device that speaks from a new socket was
    /// restarted: the old socket is forgotten.
    fn register(&mut self, now: Instant, from: SocketAddr, device: Option<DeviceId>) {
        if !self.stations.contains_key(&from) {
            if self.stations.len() >= STATIONS_MAX {
                self.forget_longest_silent();
            }
            self.stations.insert(from, Station { heard: now, device: None, awaited: VecDeque::new() });
        }
        let Some(station) = self.stations.get_mut(&from) else { return };
        station.heard = now;
        let Some(device) = device else { return };
        let before = station.device.replace(device);
        if let Some(other) = before
            && other != device
        {
            self.owners.remove(&other);
        }
        if let Some(old) = self.owners.insert(device, from)
            && old != from
        {
            self.stations.remove(&old);
        }
    }

    fn forget_longest_silent(&mut self) {
        let oldest = self.stations.iter().min_by_key(|(_, station)| station.heard).map(|(at, _)| *at);
        if let Some(station) = oldest.and_then(|at| self.stations.remove(&at))
            && let Some(device) = station.device
        {
            self.owners.remove(&device);
        }
    }

    /// Whose frame an acknowledgement with this number means: of those that reached `acker` and were not yet answered,
    /// the one that reached it first, since stations answer in the order of what they hear.
    fn awaiting(&mut self, now: Instant, acker: SocketAddr, sequence: Option<u8>) -> Option<SocketAddr> {
        let awaited = &mut self.stations.get_mut(&acker)?.awaited;
        awaited.retain(|frame| frame.until > now);
        let place = awaited.iter().position(|frame| Some(frame.sequence) == sequence)?;
        awaited.remove(place).map(|frame| frame.sender)
    }

    fn launch_to_all(
        &mut self,
        now: Instant,
        from: SocketAddr,
        asks: Option<u8>,
        datagram: &[u8],
        hears: impl Fn(&Station) -> bool,
    ) {
        let to: Vec<SocketAddr> = self
            .stations
            .iter()
            .filter(|(at, station)| **at != from && hears(station))
            .map(|(at, _)| *at)
            .collect();
        if to.is_empty() {
            self.counters.unowned += 1;
        }
        for to in to {
            self.launch(now, from, to, asks, datagram);
        }
    }

    /// Sends a datagram on its way to one station, as often as chance wants.
    fn launch(&mut self, now: Instant, from: SocketAddr, to: SocketAddr, asks: Option<u8>, datagram: &[u8]) {
        let copies = if self.chance.random_bool(self.duplicate) { 2 } else { 1 };
        self.counters.duplicated += copies - 1;
        for _ in 0..copies {
            if self.chance.random_bool(self.loss) || self.flights.len() >= FLIGHTS_MAX {
                self.counters.lost += 1;
                continue;
            }
            let jitter = self.jitter.mul_f64(self.chance.random());
            self.order += 1;
            self.flights.push(Reverse(Flight {
                due: now + self.delay + jitter,
                order: self.order,
                to,
                from,
                asks,
                datagram: datagram.to_vec(),
            }));
        }
    }

    /// The next datagram that reaches a station by `now`.
    pub(super) fn poll_delivery(&mut self, now: Instant) -> Option<(SocketAddr, Vec<u8>)> {
        if self.flights.peek()?.0.due > now {
            return None;
        }
        let Reverse(flight) = self.flights.pop()?;
        self.counters.delivered += 1;
        if let Some(sequence) = flight.asks
            && let Some(station) = self.stations.get_mut(&flight.to)
        {
            // A sender waits for one frame at a time here, so a new number ends the wait for older ones.
            station.awaited.retain(|frame| {
                frame.until > now && (frame.sender != flight.from || frame.sequence == sequence)
            });
            if station.awaited.len() >= AWAITED_MAX {
                station.awaited.pop_front();
            }
            let until = now + ACK_WINDOW;
            station.awaited.push_back(Awaited { sender: flight.from, sequence, until });
        }
        Some((flight.to, flight.datagram))
    }

    /// When the next datagram reaches a station.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.flights.peek().map(|Reverse(flight)| flight.due)
    }
}
