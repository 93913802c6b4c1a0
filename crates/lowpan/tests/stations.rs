//! Stations on one simulated air under one seeded clock: what is sent arrives whole, once, and unchanged, or not at all.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::cast_possible_truncation, reason = "patterns of bytes wrap on purpose")]

use std::collections::{BTreeMap, BinaryHeap};

use tidelog_lowpan::mac::{Address, Frame, Kind};
use tidelog_lowpan::time::{Duration, Instant};
use tidelog_lowpan::{COAP_PORT, Endpoint, EndpointConfig, Peer, Quality, SINGLE_FRAME_PAYLOAD_BYTES_MAX};
use tidelog_record::DeviceId;

type Station = Endpoint<1280, 8, 8, 64>;
const QUALITY: Quality = Quality { rssi_dbm: -60, lqi: 200 };

fn eui(n: usize) -> DeviceId {
    let [.., a, b] = n.to_be_bytes();
    DeviceId([0x02, 0x12, 0x4b, 0, 0, 0, a, b])
}

fn peer(n: usize) -> Peer {
    Peer { device: eui(n), port: COAP_PORT }
}

struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn odds(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

/// Frames in flight: due moment, then order of leaving.
type Flight = std::cmp::Reverse<(i64, u64, usize, Vec<u8>)>;

struct Field {
    now: Instant,
    stations: Vec<Station>,
    deaf: Vec<bool>,
    flights: BinaryHeap<Flight>,
    flown: u64,
    draw: Draw,
    loss_percent: u64,
    duplicate_percent: u64,
    delay_us_max: u64,
    received: Vec<Vec<(Peer, Vec<u8>)>>,
    /// Who waits for an acknowledgement with a number from a station.
    waiting: BTreeMap<(usize, u8), Vec<usize>>,
    frames: Vec<(usize, Vec<u8>)>,
}

impl Field {
    fn new(stations: usize, seed: u64) -> Self {
        let make = |n| Station::new(EndpointConfig::new(eui(n)), seed ^ n as u64).unwrap();
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

    fn send(&mut self, from: usize, to: usize, payload: &[u8]) {
        self.stations[from].send(self.now, peer(to), payload).unwrap();
    }

    fn owner(&self, device: DeviceId) -> Option<usize> {
        (0..self.stations.len()).find(|n| eui(*n) == device)
    }

    fn launch(&mut self, from: usize, bytes: &[u8]) {
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

    fn settle(&mut self) {
        for n in 0..self.stations.len() {
            let mut buffer = [0; 127];
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
    fn run_until(&mut self, end: Instant) {
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

    fn run_for(&mut self, duration: Duration) {
        self.run_until(self.now + duration);
    }
}

fn pattern(length: usize, salt: u8) -> Vec<u8> {
    (0..length).map(|n| (n as u8).wrapping_mul(31).wrapping_add(salt)).collect()
}

#[test]
fn every_payload_length_arrives_unchanged() {
    let mut field = Field::new(2, 1);
    for length in 0..=Station::PAYLOAD_BYTES_MAX {
        let payload = pattern(length, 7);
        field.send(0, 1, &payload);
        field.run_for(Duration::from_millis(200));
        assert_eq!(field.received[1].pop(), Some((peer(0), payload)), "{length}");
        assert!(field.received[1].is_empty());
    }
    assert_eq!(field.stations[1].counters().drops, Default::default());
    assert_eq!(field.stations[0].counters().retries, 0);
}

#[test]
fn a_payload_of_just_the_stated_size_leaves_in_one_frame() {
    for (length, frames) in [(SINGLE_FRAME_PAYLOAD_BYTES_MAX, 1), (SINGLE_FRAME_PAYLOAD_BYTES_MAX + 1, 2)] {
        let mut field = Field::new(2, 1);
        field.send(0, 1, &pattern(length, 0));
        field.run_for(Duration::from_millis(200));
        assert_eq!(field.frames.iter().filter(|(from, _)| *from == 0).count(), frames);
    }
}

#[test]
fn thirty_percent_loss_with_copies_and_reordering_corrupts_nothing_and_doubles_nothing() {
    let seed = 0x5eed_0001;
    println!("seed {seed}");
    let mut field = Field::new(2, seed);
    (field.loss_percent, field.duplicate_percent, field.delay_us_max) = (30, 20, 20_000);
    let (mut sent, rounds) = (0u32, 400usize);
    for round in 0..rounds {
        let salt = (round % 251) as u8;
        for (from, to) in [(0, 1), (1, 0)] {
            let payload = pattern(1 + (round * 37) % 600, salt);
            field.send(from, to, &payload);
            sent += 1;
        }
        field.run_for(Duration::from_millis(4_000));
        for n in 0..2 {
            let expected = (peer(1 - n), pattern(1 + (round * 37) % 600, salt));
            let got = std::mem::take(&mut field.received[n]);
            assert!(got.len() <= 1, "round {round}: doubled");
            assert!(got.iter().all(|datagram| *datagram == expected), "round {round}: changed");
        }
    }
    let arrived: u64 = field.stations.iter().map(|s| s.counters().datagrams_in).sum();
    println!("{arrived} of {sent} datagrams arrived");
    assert!(arrived * 100 >= u64::from(sent) * 90, "{arrived} of {sent}");
}

#[test]
fn a_silent_station_does_not_hold_up_the_others() {
    let mut field = Field::new(8, 3);
    field.deaf[1] = true;
    for to in 1..8 {
        field.send(0, to, &pattern(500, to as u8));
    }
    field.run_for(Duration::from_millis(100));
    for to in 2..8 {
        assert_eq!(field.received[to].pop(), Some((peer(0), pattern(500, to as u8))));
    }
    assert!(field.received[1].is_empty());
    field.run_for(Duration::from_millis(2_000));
    assert_eq!(field.stations[0].counters().datagrams_failed, 1);
    assert_eq!(field.stations[0].poll_timeout(), None);
}
