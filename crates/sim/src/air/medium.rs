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
                Some(owner) if owner != from => self.launch(now, from, owner, asks, datagram),
                Some(_) | None => self.counters.unowned += 1,
            },
            (_, Address::Short(_) | Address::Absent) => self.launch_to_all(now, from, datagram),
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

    fn launch_to_all(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        let others: Vec<SocketAddr> = self.stations.keys().copied().filter(|at| *at != from).collect();
        if others.is_empty() {
            self.counters.unowned += 1;
        }
        for to in others {
            self.launch(now, from, to, None, datagram);
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

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: u8 = 1;
    const NOBODY: [u8; 0] = [];

    fn socket(n: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 1_000 + u16::from(n)))
    }

    fn in_zep(frame: &[u8]) -> Vec<u8> {
        let mut out = [0; zep::PACKET_BYTES_MAX];
        let length = zep::encode(&zep::Header::default(), frame, &mut out).unwrap();
        out[..length].to_vec()
    }

    /// A data frame between stations whose EUI-64 ends in these bytes.
    fn data(from: u8, to: u8, sequence: u8) -> Vec<u8> {
        in_zep(&[0x61, 0xdc, sequence, 0x23, 0, to, 0, 0, 0, 0, 0, 0, 2, from, 0, 0, 0, 0, 0, 0, 2, 0x7e])
    }

    fn ack(sequence: u8) -> Vec<u8> {
        in_zep(&[2, 0, sequence])
    }

    fn beacon(from: u8) -> Vec<u8> {
        in_zep(&[0x00, 0xc0, 1, 0x23, 0, from, 0, 0, 0, 0, 0, 0, 2, 0xff, 0xcf, 0, 0])
    }

    struct Trial {
        medium: Medium,
        now: Instant,
    }

    impl Trial {
        fn new(options: AirOptions) -> Self {
            Self { medium: Medium::new(&options), now: Instant::now() }
        }

        /// Puts a datagram on the air and says which stations it reaches by then.
        fn put(&mut self, from: u8, datagram: &[u8]) -> Vec<u8> {
            self.medium.handle_datagram(self.now, socket(from), datagram);
            self.deliver()
        }

        fn deliver(&mut self) -> Vec<u8> {
            std::iter::from_fn(|| self.medium.poll_delivery(self.now))
                .map(|(to, _)| u8::try_from(to.port() - 1_000).unwrap())
                .collect()
        }
    }

    #[test]
    fn a_frame_for_one_station_reaches_that_station_alone() {
        let mut trial = Trial::new(AirOptions::default());
        for n in [1, 2, 3] {
            trial.put(n, &beacon(n));
        }
        assert_eq!(trial.put(2, &data(2, 1, 7)), [1]);
        assert_eq!(trial.put(3, &beacon(3)), [1, 2], "a beacon is for everyone else");
        assert_eq!(trial.put(2, &data(2, 9, 8)), NOBODY, "nobody owns that address");
        assert_eq!(trial.medium.counters().unowned, 2, "and the first beacon was alone");
    }

    #[test]
    fn acknowledgements_of_equal_numbers_go_to_the_senders_in_the_order_heard() {
        let mut trial = Trial::new(AirOptions::default());
        for n in [1, 2, 3, 4] {
            trial.put(n, &beacon(n));
        }
        for n in [3, 2, 4] {
            assert_eq!(trial.put(n, &data(n, GATEWAY, 7)), [1]);
        }
        assert_eq!(trial.put(GATEWAY, &ack(7)), [3]);
        assert_eq!(trial.put(GATEWAY, &ack(7)), [2]);
        assert_eq!(trial.put(GATEWAY, &ack(8)), NOBODY);
        assert_eq!(trial.put(GATEWAY, &ack(7)), [4]);
        assert_eq!(trial.put(GATEWAY, &ack(7)), NOBODY);
    }

    #[test]
    fn a_sender_that_went_on_waits_no_more_for_its_older_frame() {
        let mut trial = Trial::new(AirOptions::default());
        for n in [1, 2, 3] {
            trial.put(n, &beacon(n));
        }
        trial.put(2, &data(2, GATEWAY, 7));
        trial.put(2, &data(2, GATEWAY, 8));
        trial.put(3, &data(3, GATEWAY, 7));
        assert_eq!(trial.put(GATEWAY, &ack(7)), [3]);
        assert_eq!(trial.put(GATEWAY, &ack(8)), [2]);
    }

    #[test]
    fn an_acknowledgement_long_after_its_frame_is_for_nobody() {
        let mut trial = Trial::new(AirOptions::default());
        trial.put(1, &beacon(1));
        trial.put(2, &data(2, GATEWAY, 7));
        trial.now += ACK_WINDOW;
        assert_eq!(trial.put(GATEWAY, &ack(7)), NOBODY);
    }

    #[test]
    fn a_device_on_a_new_socket_replaces_its_old_self() {
        let mut trial = Trial::new(AirOptions::default());
        trial.put(1, &beacon(1));
        trial.put(2, &beacon(2));
        trial.put(5, &beacon(1));
        assert_eq!(trial.put(2, &data(2, 1, 7)), [5]);
        assert_eq!(trial.put(2, &beacon(2)), [5]);
        assert_eq!(trial.medium.counters().stations, 2);
    }

    #[test]
    fn a_frame_arrives_after_the_delay_and_not_before() {
        let delay = Duration::from_millis(20);
        let mut trial = Trial::new(AirOptions { delay, ..AirOptions::default() });
        trial.put(1, &beacon(1));
        assert_eq!(trial.put(2, &data(2, 1, 7)), NOBODY);
        assert_eq!(trial.medium.poll_timeout(), Some(trial.now + delay));
        trial.now += delay;
        assert_eq!(trial.deliver(), [1]);
        assert_eq!(trial.put(1, &ack(7)), NOBODY);
        trial.now += delay;
        assert_eq!(trial.deliver(), [2]);
    }

    #[test]
    fn the_odds_are_kept_and_every_frame_is_accounted_for() {
        let options = AirOptions { loss: 0.3, duplicate: 0.1, seed: 11, ..AirOptions::default() };
        let mut trial = Trial::new(options);
        trial.put(1, &beacon(1));
        for n in 0..10_000u32 {
            let [.., sequence] = n.to_be_bytes();
            trial.put(2, &data(2, 1, sequence));
        }
        let counters = trial.medium.counters();
        assert_eq!(counters.delivered + counters.lost, 10_000 + counters.duplicated);
        assert!((3_100..3_500).contains(&counters.lost), "{counters:?}");
        assert!((900..1_100).contains(&counters.duplicated), "{counters:?}");
    }

    #[test]
    fn equal_seeds_lose_the_same_frames() {
        let run = || {
            let mut trial = Trial::new(AirOptions { loss: 0.5, seed: 12, ..AirOptions::default() });
            trial.put(1, &beacon(1));
            (0..100u8).map(|n| trial.put(2, &data(2, 1, n)).len()).collect::<Vec<_>>()
        };
        assert_eq!(run(), run());
    }

    #[test]
    fn what_is_no_frame_is_counted_and_reaches_nobody() {
        let mut trial = Trial::new(AirOptions::default());
        trial.put(1, &beacon(1));
        for junk in [&b""[..], b"EX", b"hello", &in_zep(&[1]), &in_zep(&[0xff; 30])] {
            assert_eq!(trial.put(2, junk), NOBODY);
        }
        assert_eq!(trial.medium.counters().malformed, 5);
    }
}
