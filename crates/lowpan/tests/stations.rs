//! Stations on one simulated air under one seeded clock: what is sent arrives whole, once, and unchanged, or not at all.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::cast_possible_truncation, reason = "patterns of bytes wrap on purpose")]

use std::collections::{BTreeMap, BinaryHeap};

use tidelog_lowpan::access::Access;
use tidelog_lowpan::mac::{self, Address, Frame, Kind};
use tidelog_lowpan::time::{Duration, Instant};
use tidelog_lowpan::{
    COAP_PORT, Endpoint, EndpointConfig, GatewayEndpoint, NetworkKey, Peer, Quality,
    SINGLE_FRAME_PAYLOAD_BYTES_MAX, SendError, SensorEndpoint,
};
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

const KEY: NetworkKey = NetworkKey::new(*b"sixteen bytes of");

/// A station that may use frame counters from `first` on.
fn station(n: usize, key: Option<NetworkKey>, first: u32, entropy: u64) -> Station {
    let mut station = Station::new(EndpointConfig { key, ..EndpointConfig::new(eui(n)) }, entropy).unwrap();
    station.resume_counters(first);
    reserve(&mut station);
    station
}

/// Stores reservations, as a caller must; the last one.
fn reserve(station: &mut Station) -> Option<u32> {
    let due = station.counter_reserve_due();
    due.inspect(|upto| station.counters_reserved(*upto))
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
        Self::with_key(stations, seed, None)
    }

    fn with_key(stations: usize, seed: u64, key: Option<NetworkKey>) -> Self {
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

#[test]
fn a_long_run_of_datagrams_to_many_stations_has_none_taken_for_another() {
    let mut field = Field::new(6, 4);
    for round in 0..600usize {
        for to in 1..6 {
            field.send(0, to, &pattern(20, (round % 251) as u8));
        }
        field.run_for(Duration::from_millis(8));
    }
    for to in 1..6 {
        assert_eq!(field.received[to].len(), 600);
        assert_eq!(field.stations[to].counters().drops.duplicate, 0);
    }
}

#[test]
fn a_station_that_restarts_is_heard_as_soon_as_it_speaks() {
    let mut field = Field::new(2, 5);
    let mut heard = 0;
    for life in 0..200u64 {
        field.stations[0] = Station::new(EndpointConfig::new(eui(0)), 0xdead_0000 + life).unwrap();
        field.send(0, 1, b"up again");
        field.run_for(Duration::from_millis(1_001));
        heard += field.received[1].drain(..).count();
    }
    assert_eq!(heard, 200);
}

#[test]
fn many_stations_report_to_one_through_thirty_percent_loss() {
    let sensors = 40usize;
    let seed = 0x5eed_0006;
    println!("seed {seed}");
    let mut field = Field::new(1 + sensors, seed);
    (field.loss_percent, field.delay_us_max) = (30, 4_000);
    let mut missing: std::collections::BTreeSet<usize> = (1..=sensors).collect();
    let mut rounds = 0;
    while !missing.is_empty() {
        rounds += 1;
        assert!(rounds < 10, "still missing {missing:?}");
        for from in &missing.clone() {
            field.send(*from, 0, &pattern(250, *from as u8));
        }
        field.run_for(Duration::from_millis(3_500));
        for (from, payload) in std::mem::take(&mut field.received[0]) {
            let from = field.owner(from.device).unwrap();
            assert_eq!(payload, pattern(250, from as u8));
            missing.remove(&from);
        }
    }
    assert_eq!(field.stations[0].neighbors().count(), sensors);
}

#[test]
fn what_is_for_another_port_is_counted_and_not_delivered() {
    let mut field = Field::new(2, 7);
    let other_port = Peer { device: eui(1), port: COAP_PORT + 1 };
    field.stations[0].send(field.now, other_port, b"stray").unwrap();
    field.run_for(Duration::from_millis(100));
    assert!(field.received[1].is_empty());
    assert_eq!(field.stations[1].counters().drops.bad_packet, 1);
}

#[test]
fn a_changed_byte_is_found_by_the_checksum_of_udp() {
    let mut field = Field::new(2, 8);
    field.send(0, 1, b"the temperature is 21.5");
    let mut buffer = [0; 127];
    let length = field.stations[0].poll_transmit(field.now, &mut buffer).unwrap();
    buffer[length - 1] ^= 1;
    field.stations[1].handle_frame(field.now, &buffer[..length], QUALITY);
    field.run_for(Duration::from_millis(10));
    assert!(field.received[1].is_empty());
    assert_eq!(field.stations[1].counters().drops.bad_packet, 1);
}

#[test]
fn an_echo_request_is_answered() {
    let link_local = |n: usize| {
        let mut address = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        address[8..].copy_from_slice(&eui(n).0);
        address[8] ^= 2;
        address
    };
    let mut icmp = vec![128, 0, 0, 0, 0x12, 0x34, 0, 1, b'h', b'i'];
    let pseudo =
        [&link_local(1)[..], &link_local(0), &[0, 0, 0, icmp.len() as u8, 0, 0, 0, 58], &icmp].concat();
    let sum: u32 = pseudo.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum >> 16) + (sum & 0xffff);
    icmp[2..4].copy_from_slice(&(!(folded as u16)).to_be_bytes());

    let mut frame = vec![0x61, 0xdc, 1, 0x23, 0];
    frame.extend(eui(0).0.iter().rev().chain(eui(1).0.iter().rev()));
    frame.extend([0x7a, 0x33, 58]);
    frame.extend(&icmp);
    let mut field = Field::new(2, 9);
    field.stations[0].handle_frame(field.now, &frame, QUALITY);
    field.settle();
    field.settle();
    let (from, answer) = field.frames.last().unwrap();
    assert_eq!((*from, &answer[21..24]), (0, &[0x7a, 0x33, 58][..]));
    assert_eq!((answer[24], &answer[28..]), (129, &icmp[4..]));
}

#[test]
fn what_can_not_be_sent_is_refused_and_nothing_is_taken() {
    let mut field = Field::new(2, 10);
    let now = field.now;
    let station = &mut field.stations[0];
    let long = vec![0; Station::PAYLOAD_BYTES_MAX + 1];
    assert_eq!(
        station.send(now, peer(1), &long),
        Err(SendError::TooLong { payload_bytes_max: Station::PAYLOAD_BYTES_MAX })
    );
    assert_eq!(station.send(now, peer(0), b"me"), Err(SendError::Unreachable));
    assert_eq!(station.send(now, Peer { port: 0, ..peer(1) }, b""), Err(SendError::Unreachable));
    assert_eq!(station.poll_timeout(), None);
    for _ in 0..2 {
        station.send(now, peer(1), b"1").unwrap();
    }
    assert_eq!(station.send(now, peer(1), b"1"), Err(SendError::Busy));
    assert_eq!(station.send(now, peer(2), b"1"), Ok(()));
}

#[test]
fn a_sensor_takes_a_few_kilobytes_and_a_gateway_a_few_hundred() {
    let (sensor, gateway) = (size_of::<SensorEndpoint>(), size_of::<GatewayEndpoint>());
    println!("a sensor's endpoint takes {sensor} bytes, a gateway's {gateway}");
    assert!(sensor <= 4_096 && gateway <= 256 * 1_024);
}

#[test]
fn secured_datagrams_of_every_length_arrive_cut_as_unsecured_ones_are() {
    let frames = [None, Some(KEY)].map(|key| {
        let mut field = Field::with_key(2, 11, key);
        for length in (0..=Station::PAYLOAD_BYTES_MAX).step_by(7).chain([SINGLE_FRAME_PAYLOAD_BYTES_MAX]) {
            let payload = pattern(length, 7);
            field.send(0, 1, &payload);
            field.run_for(Duration::from_millis(200));
            assert_eq!(field.received[1].pop(), Some((peer(0), payload)), "{length}");
        }
        assert_eq!(field.stations[1].counters().drops, Default::default());
        field.frames.len()
    });
    assert_eq!(frames[0], frames[1]);
}

#[test]
fn no_payload_is_seen_on_a_secured_air_and_no_counter_twice_but_for_repetitions() {
    let mut field = Field::with_key(2, 12, Some(KEY));
    field.loss_percent = 20;
    for _ in 0..300 {
        field.send(0, 1, b"the temperature is 21.5");
        field.run_for(Duration::from_millis(1_000));
    }
    let mut by_counter: BTreeMap<[u8; 4], Vec<u8>> = BTreeMap::new();
    let mut repetitions = 0;
    for (_, frame) in field.frames.iter().filter(|(from, frame)| *from == 0 && frame.len() > 3) {
        assert!(!frame.windows(4).any(|bytes| bytes == b"temp"));
        let counter = frame[22..26].try_into().unwrap();
        if let Some(before) = by_counter.insert(counter, frame.clone()) {
            assert_eq!(before, *frame, "a repetition is the identical frame");
            repetitions += 1;
        }
    }
    assert!(
        by_counter.len() >= 300 && repetitions > 20,
        "{} counters, {repetitions} repetitions",
        by_counter.len()
    );
    assert_eq!(field.stations[1].counters().drops.replayed, 0);
}

#[test]
fn loss_with_copies_and_reordering_leaves_secured_datagrams_whole_and_single() {
    let mut field = Field::with_key(2, 13, Some(KEY));
    (field.loss_percent, field.duplicate_percent, field.delay_us_max) = (30, 20, 20_000);
    let mut arrived = 0;
    for round in 0..150usize {
        for (from, to) in [(0, 1), (1, 0)] {
            field.send(from, to, &pattern(1 + (round * 37) % 600, round as u8));
        }
        field.run_for(Duration::from_millis(4_000));
        for n in 0..2 {
            let expected = (peer(1 - n), pattern(1 + (round * 37) % 600, round as u8));
            let got = std::mem::take(&mut field.received[n]);
            assert!(got.len() <= 1 && got.iter().all(|datagram| *datagram == expected), "round {round}");
            arrived += got.len();
        }
    }
    assert!(arrived >= 270, "{arrived} of 300");
}

/// One frame of a station to the other, as it goes on the air.
fn one_frame(from: &mut Station, to: usize) -> Vec<u8> {
    let now = Instant::from_millis(1);
    from.send(now, peer(to), b"once").unwrap();
    let mut buffer = [0; 127];
    let length = from.poll_transmit(now, &mut buffer).unwrap();
    buffer[..length].to_vec()
}

#[test]
fn frames_that_are_not_rightly_secured_are_dropped_by_reason_and_not_acknowledged() {
    let mut us = station(1, Some(KEY), 0, 1);
    let now = Instant::from_millis(1);
    let mut buffer = [0; 127];
    let mut changed = one_frame(&mut station(0, Some(KEY), 0, 2), 1);
    *changed.last_mut().unwrap() ^= 1;
    let mut other_level = one_frame(&mut station(0, Some(KEY), 0, 3), 1);
    other_level[21] = 0x0e;
    let wrong_key = one_frame(&mut station(0, Some(NetworkKey::new([9; 16])), 0, 4), 1);
    let unsecured = one_frame(&mut station(0, None, 0, 5), 1);
    for frame in [&changed, &wrong_key, &other_level, &unsecured] {
        us.handle_frame(now, frame, QUALITY);
        assert_eq!((us.poll_transmit(now, &mut buffer), us.receive(&mut [0; 64])), (None, None));
    }
    let drops = us.counters().drops;
    assert_eq!((drops.forged, drops.security_level, drops.unsecured), (2, 1, 1));
    assert_eq!(us.neighbors().count(), 0, "a forger is nobody's neighbour");
    let mut open = station(1, None, 0, 6);
    open.handle_frame(now, &changed, QUALITY);
    assert_eq!(open.counters().drops.secured, 1);
}

#[test]
fn a_replayed_frame_is_dropped_at_any_time_and_a_repetition_is_acknowledged_once_more() {
    let (mut us, mut other) = (station(1, Some(KEY), 0, 1), station(0, Some(KEY), 0, 2));
    let mut buffer = [0; 127];
    let mut frames = Vec::new();
    for n in 0..8 {
        let now = Instant::from_millis(100 * n);
        other.send(now, peer(1), b"once").unwrap();
        let length = other.poll_transmit(now, &mut buffer).unwrap();
        frames.push(buffer[..length].to_vec());
        us.handle_frame(now, &buffer[..length], QUALITY);
        let length = us.poll_transmit(now, &mut buffer).expect("an acknowledgement");
        other.handle_frame(now, &buffer[..length], QUALITY);
    }
    while us.receive(&mut [0; 64]).is_some() {}
    for ms in [800, 5_000, 3_600_000] {
        let now = Instant::from_millis(ms);
        let before = us.counters().drops;
        for frame in &frames {
            us.handle_frame(now, frame, QUALITY);
        }
        let after = us.counters().drops;
        assert_eq!((after.replayed - before.replayed, after.duplicate - before.duplicate), (4, 4));
        let acks = std::iter::from_fn(|| us.poll_transmit(now, &mut buffer)).count();
        assert_eq!((acks, us.receive(&mut [0; 64])), (4, None));
    }
}

#[test]
fn a_station_whose_radio_acknowledges_gives_no_acknowledgement_of_its_own_and_still_repeats() {
    let config = EndpointConfig { soft_ack: false, key: Some(KEY), ..EndpointConfig::new(eui(1)) };
    let mut us = Station::new(config, 1).unwrap();
    us.resume_counters(0);
    reserve(&mut us);
    let mut other = station(0, Some(KEY), 0, 2);
    let now = Instant::from_millis(1);
    let frame = one_frame(&mut other, 1);
    let ack = mac::acknowledgement(&frame, eui(1), us.config().pan).expect("what the radio answers");
    let mut buffer = [0; 127];
    for copy in 0..2 {
        us.handle_frame(now, &frame, QUALITY);
        assert_eq!((us.poll_transmit(now, &mut buffer), us.poll_timeout()), (None, None));
        assert_eq!(us.receive(&mut [0; 64]).is_some(), copy == 0, "taken once");
    }
    other.handle_frame(now, &ack, QUALITY);
    assert_eq!((other.counters().acks_in, other.poll_timeout()), (1, None));

    let sent = one_frame(&mut us, 0);
    let due = us.poll_timeout().expect("it waits for an acknowledgement");
    us.handle_timeout(due);
    let due = us.poll_timeout().expect("it repeats");
    let length = us.poll_transmit(due, &mut buffer).unwrap();
    assert_eq!(buffer[..length], sent[..]);
}

#[test]
fn a_station_that_is_often_too_busy_to_acknowledge_takes_each_datagram_once() {
    for seed in 1..20 {
        let config = EndpointConfig { soft_ack: false, key: Some(KEY), ..EndpointConfig::new(eui(1)) };
        let mut access = Access::new(&config, Duration::from_micros(150), seed);
        let mut us = Station::new(config, seed).unwrap();
        us.resume_counters(0);
        let mut other = station(0, Some(KEY), 0, seed ^ 0x55);
        let (mut draw, mut buffer) = (Draw(seed), [0; 127]);
        let (mut sent, mut received): (Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new());
        for ms in 1..20_000 {
            let now = Instant::from_millis(ms);
            if sent.len() < 100 && other.send(now, peer(1), &[sent.len() as u8]).is_ok() {
                sent.push(sent.len() as u8);
            }
            other.handle_timeout(now);
            while let Some(length) = other.poll_transmit(now, &mut buffer) {
                let frame = &buffer[..length];
                if !draw.odds(40) {
                    access.watched(now);
                }
                let ack = access.answer(now, frame);
                access.keep(frame, QUALITY);
                ack.iter().for_each(|ack| other.handle_frame(now, ack, QUALITY));
            }
            while let Some(heard) = access.take() {
                us.handle_frame(now, &heard.frame, heard.quality);
            }
            let mut payload = [0; 64];
            while let Some((_, length)) = us.receive(&mut payload) {
                received.extend(&payload[..length]);
            }
            assert_eq!(us.poll_transmit(now, &mut buffer), None);
        }
        assert_eq!((sent.len(), &received), (100, &sent), "seed {seed}");
        let (late, repeated) = (u64::from(access.counters().late), us.counters().drops.duplicate);
        assert!(late > 20 && repeated > 20 && other.counters().retries > 20, "{late} {repeated}");
    }
}

#[test]
fn stations_that_restart_go_on_behind_their_reservations_and_nothing_is_taken_for_a_replay() {
    let mut field = Field::with_key(2, 14, Some(KEY));
    let mut stored = [0u32; 2];
    for life in 0..40usize {
        let n = life % 2;
        stored[n] = field.stations[n].counter_reserve_due().unwrap_or(stored[n].max(1_024));
        field.stations[n] = station(n, Some(KEY), stored[n], life as u64);
        stored[n] += 1_024;
        for (from, to) in [(0, 1), (1, 0)] {
            field.send(from, to, &pattern(300, life as u8));
        }
        field.run_for(Duration::from_millis(1_001));
        for n in 0..2 {
            assert_eq!(std::mem::take(&mut field.received[n]), [(peer(1 - n), pattern(300, life as u8))]);
            assert_eq!(field.stations[n].counters().drops, Default::default());
        }
    }
}

#[test]
fn without_a_stored_reservation_nothing_is_sent_and_nothing_spins() {
    let now = Instant::from_millis(1);
    let config = EndpointConfig { key: Some(KEY), ..EndpointConfig::new(eui(0)) };
    let mut us = Station::new(config, 1).unwrap();
    let mut buffer = [0; 127];
    us.send(now, peer(1), b"wait").unwrap();
    assert_eq!((us.counter_reserve_due(), us.poll_transmit(now, &mut buffer)), (None, None), "not resumed");
    us.resume_counters(7);
    assert_eq!((us.poll_transmit(now, &mut buffer), us.poll_timeout()), (None, None), "not reserved");
    let due = us.counter_reserve_due().unwrap();
    us.counters_reserved(due);
    assert!(us.poll_timeout().is_some() && us.poll_transmit(now, &mut buffer).is_some());
    assert_eq!(buffer[22..26], 7u32.to_le_bytes());
}

#[test]
fn a_station_whose_counters_are_used_up_refuses_to_send_and_gives_up_what_waits() {
    let mut us = station(0, Some(KEY), u32::MAX - 1, 1);
    let now = Instant::from_millis(1);
    let mut buffer = [0; 127];
    assert_eq!(us.counters_left(), Some(1));
    us.send(now, peer(1), &pattern(300, 1)).unwrap();
    assert!(us.poll_transmit(now, &mut buffer).is_some());
    assert_eq!(us.send(now, peer(2), b"more"), Err(SendError::CountersSpent));
    us.handle_frame(now, &[2, 0, buffer[2]], QUALITY);
    us.handle_timeout(now + Duration::from_secs(1));
    assert_eq!(us.poll_transmit(now + Duration::from_secs(1), &mut buffer), None);
    assert_eq!((us.poll_timeout(), us.counters().datagrams_failed), (None, 1));
    assert_eq!((us.counter_reserve_due(), us.counters_left()), (None, Some(0)));
}
