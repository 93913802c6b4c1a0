//! Stations on one simulated air under one seeded clock, which loses, copies and delays frames. What must arrive is the tests' affair.

#![allow(dead_code, reason = "each test of several uses a part of it")]

use std::collections::{BTreeMap, BinaryHeap};

use tidelog_lowpan::mac::{Address, Frame, Kind};
use tidelog_lowpan::time::{Duration, Instant};
use tidelog_lowpan::{COAP_PORT, Endpoint, EndpointConfig, NetworkKey, Peer, Quality};
use tidelog_record::DeviceId;

pub type Station = Endpoint<1280, 8, 8, 64>;
pub const QUALITY: Quality = Quality { rssi_dbm: -60, lqi: 200 };

pub fn eui(n: usize) -> DeviceId {
    let [.., a, b] = n.to_be_bytes();
    DeviceId([0x02, 0x12, 0x4b, 0, 0, 0, a, b])
}

pub fn peer(n: usize) -> Peer {
    Peer { device: eui(n), port: COAP_PORT }
}

pub const KEY: NetworkKey = NetworkKey::new(*b"sixteen bytes of");

/// A station that may use frame counters from `first` on.
pub fn station(n: usize, key: Option<NetworkKey>, first: u32, entropy: u64) -> Station {
    let mut station = Station::new(EndpointConfig { key, ..EndpointConfig::new(eui(n)) }, entropy).unwrap();
    station.resume_counters(first);
    reserve(&mut station);
    station
}

/// Stores reservations, as a caller must; the last one.
pub fn reserve(station: &mut Station) -> Option<u32> {
    let due = station.counter_reserve_due();
    due.inspect(|upto| station.counters_reserved(*upto))
}

pub struct Draw(pub u64);

impl Draw {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn odds(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

/// Frames in flight: due moment, then order of leaving.
pub type Flight = std::cmp::Reverse<(i64, u64, usize, Vec<u8>)>;

pub struct Field {
    pub now: Instant,
    pub stations: Vec<Station>,
    pub deaf: Vec<bool>,
    pub flights: BinaryHeap<Flight>,
    pub flown: u64,
    pub draw: Draw,
    pub loss_percent: u64,
    pub duplicate_percent: u64,
    pub delay_us_max: u64,
    pub received: Vec<Vec<(Peer, Vec<u8>)>>,
    /// Who waits for an acknowledgement with a number from a station.
    pub waiting: BTreeMap<(usize, u8), Vec<usize>>,
    pub frames: Vec<(usize, Vec<u8>)>,
}

impl Field {
    pub fn new(stations: usize, seed: u64) -> Self {
        Self::with_key(stations, seed, None)
    }

    pub fn with_key(stations: usize, seed: u64, key: Option<NetworkKey>) -> Self {
        let make = |n| station(n, key, 0, seed ^ n as u64);
        Self {
            now: Instant::from_millis(1),
            stations: (0..stations).map(make).collect(),
            deaf: vec![false; stations],
            flights: BinaryHeap::new(),
            flown: 0,
            draw: Draw(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            loss_percent: 0,
            duplicate_percent: 0,
            delay_us_max: 1_000,
            received: vec![Vec::new(); stations],
            waiting: BTreeMap::new(),
            frames: Vec::new(),
        }
    }

    pub fn send(&mut self, from: usize, to: usize, payload: &[u8]) {
        self.stations[from].send(self.now, peer(to), payload).unwrap();
    }

    pub fn owner(&self, device: DeviceId) -> Option<usize> {
        (0..self.stations.len()).find(|n| eui(*n) == device)
    }

    pub fn launch(&mut self, from: usize, bytes: &[u8]) {
        self.frames.push((from, bytes.to_vec()));
        let frame = Frame::parse(bytes).unwrap();
        let to = match (frame.kind, frame.destination) {
            (Kind::Ack, _) => {
                let key = (from, frame.sequence.unwrap());
                let Some(to) = self.waiting.get_mut(&key).and_then(|list| list.pop()) else { return };
                to
            }
            (_, Address::Extended(device)) => match self.owner(device) {
                Some(to) => to,
                None => return,
            },
            other => panic!("unexpected {other:?}"),
        };
        if self.deaf[to] {
            return;
        }
        let copies = 1 + u64::from(self.draw.odds(self.duplicate_percent));
        for _ in 0..copies {
            if self.draw.odds(self.loss_percent) {
                continue;
            }
            let delay = 100 + self.draw.next() % self.delay_us_max;
            self.flown += 1;
            let at = self.now.total_micros() + i64::try_from(delay).unwrap();
            self.flights.push(std::cmp::Reverse((at, self.flown, to, bytes.to_vec())));
        }
    }

    pub fn settle(&mut self) {
        for n in 0..self.stations.len() {
            let mut buffer = [0; 127];
            reserve(&mut self.stations[n]);
            while let Some(length) = self.stations[n].poll_transmit(self.now, &mut buffer) {
                self.launch(n, &buffer[..length]);
            }
            let mut payload = [0; 1280];
            while let Some((from, length)) = self.stations[n].receive(&mut payload) {
                self.received[n].push((from, payload[..length].to_vec()));
            }
        }
    }

    /// Runs until nothing is due before `end`.
    pub fn run_until(&mut self, end: Instant) {
        loop {
            self.settle();
            let flight = self.flights.peek().map(|flight| Instant::from_micros(flight.0.0));
            let timeout = self.stations.iter().filter_map(Station::poll_timeout).min();
            let Some(next) = [flight, timeout].into_iter().flatten().min().filter(|at| *at < end) else {
                break;
            };
            self.now = self.now.max(next);
            while self.flights.peek().is_some_and(|flight| flight.0.0 <= self.now.total_micros()) {
                let std::cmp::Reverse((_, _, to, bytes)) = self.flights.pop().unwrap();
                let frame = Frame::parse(&bytes).unwrap();
                if let (Kind::Data, Address::Extended(source)) = (frame.kind, frame.source) {
                    let from = self.owner(source).unwrap();
                    self.waiting.entry((to, frame.sequence.unwrap())).or_default().push(from);
                }
                self.stations[to].handle_frame(self.now, &bytes, QUALITY);
                self.settle();
            }
            for station in &mut self.stations {
                station.handle_timeout(self.now);
            }
        }
        self.now = end;
    }

    pub fn run_for(&mut self, duration: Duration) {
        self.run_until(self.now + duration);
    }
}

pub fn pattern(length: usize, salt: u8) -> Vec<u8> {
    (0..length).map(|n| (n as u8).wrapping_mul(31).wrapping_add(salt)).collect()
}
