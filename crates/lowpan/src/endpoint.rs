//! One station as a pure state machine: 802.15.4, 6LoWPAN and UDP behind a handful of verbs. It owns its storage, sized
//! by const generics, and knows no socket, no clock and no source of randomness of its own.

use core::fmt;

use smoltcp::time::Instant;
use tidelog_record::DeviceId;

use crate::fragment::Piece;
use crate::incoming::{Incoming, Taken};
use crate::ip::{Ip, Read};
use crate::iphc::{self, Link};
use crate::mac::{self, Address, Frame, Kind};
use crate::outgoing::{Manner, Outcome, Outgoing};
use crate::peers::{Freshness, Peers};
use crate::random::Spread;
use crate::security::{self, FrameCounters};
use crate::{ConfigError, Counters, EndpointConfig, FRAME_BUFFER_BYTES, FRAME_BYTES_MAX};

/// Acknowledgements waiting to be handed out: as many frames may be handed in before the caller polls.
const ACKS_WAITING_MAX: usize = 64;

/// A sensor's endpoint: datagrams of up to 640 bytes, two in each direction.
pub type SensorEndpoint = Endpoint<640, 2, 2, 4>;
/// A gateway's endpoint: datagrams of up to 1280 bytes, 64 in each direction, a thousand neighbours.
pub type GatewayEndpoint = Endpoint<1280, 64, 64, 1024>;

/// The other end of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The station, by its EUI-64.
    pub device: DeviceId,
    /// Its UDP port.
    pub port: u16,
}

/// How a frame was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quality {
    /// Signal strength in dBm.
    pub rssi_dbm: i8,
    /// Link quality, 0 to 255.
    pub lqi: u8,
}

/// A station heard directly, as last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbor {
    /// The station.
    pub device: DeviceId,
    /// When its last valid frame came.
    pub heard: Instant,
    /// How that frame was heard.
    pub quality: Quality,
    /// Its frames taken, duplicates not counted.
    pub frames_in: u32,
    /// Its frames to this station that never came, as the numbers of those that did say.
    pub frames_missed: u32,
    /// Frames to it given up without acknowledgement.
    pub unacknowledged: u32,
}

/// Why a datagram was not taken for sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// All slots for outgoing datagrams are in use, or this peer's share of them; try again when frames have left.
    #[error("all slots for outgoing datagrams, or this peer's share of them, are in use")]
    Busy,
    /// The payload exceeds what a datagram holds.
    #[error("the payload exceeds {payload_bytes_max} bytes")]
    TooLong {
        /// The largest payload that this endpoint sends.
        payload_bytes_max: usize,
    },
    /// The peer is this station itself, or its port is 0.
    #[error("no such peer: own address or port 0")]
    Unreachable,
    /// The network key has secured as many frames of this station as it may: the network needs a new key.
    #[error("this station's frame counters are used up: the network needs a new key")]
    CountersSpent,
}

/// One station: `DATAGRAM_BYTES` bounds an IPv6 packet, `OUT` and `IN` bound the datagrams under way in each
/// direction, `PEERS` bounds the stations remembered for duplicates and sequence numbers.
pub struct Endpoint<const DATAGRAM_BYTES: usize, const OUT: usize, const IN: usize, const PEERS: usize> {
    config: EndpointConfig,
    counters: Counters,
    /// The latest moment that the caller told.
    now: Instant,
    spread: Spread,
    acks: heapless::Deque<u8, ACKS_WAITING_MAX>,
    frame_counters: FrameCounters,
    peers: Peers<PEERS>,
    incoming: Incoming<DATAGRAM_BYTES, IN>,
    outgoing: Outgoing<DATAGRAM_BYTES, OUT>,
    ip: Ip,
}

impl<const DATAGRAM_BYTES: usize, const OUT: usize, const IN: usize, const PEERS: usize> fmt::Debug
    for Endpoint<DATAGRAM_BYTES, OUT, IN, PEERS>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("config", &self.config)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl<const DATAGRAM_BYTES: usize, const OUT: usize, const IN: usize, const PEERS: usize>
    Endpoint<DATAGRAM_BYTES, OUT, IN, PEERS>
{
    /// Largest UDP payload that is sent or received, in bytes.
    pub const PAYLOAD_BYTES_MAX: usize = DATAGRAM_BYTES - crate::IP_UDP_HEADER_BYTES;

    /// A station with nothing under way. `entropy` seeds sequence numbers, tags and back-off; it should differ after
    /// each start.
    ///
    /// # Errors
    /// A configuration that names no possible station.
    pub fn new(config: EndpointConfig, entropy: u64) -> Result<Self, ConfigError> {
        config.check()?;
        let mut spread = Spread::new(entropy);
        let mut outgoing = Outgoing::new(Spread::new(spread.next()));
        let ip = Ip::new(config.eui, config.port, &mut outgoing, spread.next());
        Ok(Self {
            config,
            counters: Counters::default(),
            now: Instant::ZERO,
            spread,
            acks: heapless::Deque::new(),
            frame_counters: FrameCounters::new(),
            peers: Peers::new(),
            incoming: Incoming::new(),
            outgoing,
            ip,
        })
    }

    /// What the station was told.
    #[must_use]
    pub const fn config(&self) -> &EndpointConfig {
        &self.config
    }

    /// Says below which number frame counters may have been used in earlier lives, from what was stored last with
    /// [`counter_reserve_due`](Self::counter_reserve_due); 0 in a station's first life with this key. A station with a key
    /// sends nothing before this is called, since a counter used twice breaks the encryption.
    pub fn resume_counters(&mut self, first: u32) {
        self.frame_counters.resume(first);
    }

    /// The reservation that is to be stored next, where it outlives a loss of power, before
    /// [`counters_reserved`](Self::counters_reserved) is called with it: frame counters below it may then be used.
    /// `None`: nothing is to be stored now. Ask after each verb, before [`poll_transmit`](Self::poll_transmit).
    #[must_use]
    pub fn counter_reserve_due(&self) -> Option<u32> {
        self.config.key.and_then(|_| self.frame_counters.reserve_due(self.config.counter_block))
    }

    /// Says that a reservation is stored.
    pub fn counters_reserved(&mut self, upto: u32) {
        self.frame_counters.reserved(upto);
    }

    /// Frames that this station can still secure with its key; `None` without a key.
    #[must_use]
    pub fn counters_left(&self) -> Option<u32> {
        self.config.key.map(|_| self.frame_counters.left())
    }

    /// Takes one frame heard on the air, without its check sequence.
    pub fn handle_frame(&mut self, now: Instant, frame: &[u8], quality: Quality) {
        self.now = now;
        self.counters.frames_in += 1;
        self.counters.bytes_in += u64::try_from(frame.len()).unwrap_or(u64::MAX);
        let drops = &mut self.counters.drops;
        let bytes = frame;
        let Ok(frame) = Frame::parse(bytes) else { return drops.malformed += 1 };
        match frame.kind {
            Kind::Ack => self.handle_ack(now, &frame),
            Kind::Data => self.handle_data(now, bytes, &frame, quality),
            Kind::Other => drops.unexpected += 1,
        }
    }

    fn handle_ack(&mut self, now: Instant, frame: &Frame<'_>) {
        let own = matches!(frame.destination, Address::Absent) || frame.destination == self.address();
        let outcome = match frame.sequence {
            Some(sequence) if own => self.outgoing.acknowledged(now, sequence, self.config.pace),
            _ => None,
        };
        match outcome {
            Some(outcome) => {
                self.counters.acks_in += 1;
                self.count(outcome);
            }
            None => self.counters.drops.stray_ack += 1,
        }
    }

    const fn address(&self) -> Address {
        Address::Extended(self.config.eui)
    }

    fn handle_data(&mut self, now: Instant, bytes: &[u8], frame: &Frame<'_>, quality: Quality) {
        let drops = &mut self.counters.drops;
        let unicast = frame.destination == Address::Extended(self.config.eui);
        let broadcast = frame.destination == Address::Short(mac::BROADCAST);
        let here = frame.is_in(self.config.pan);
        let source = match frame.source {
            Address::Extended(source) if here && (unicast || broadcast) && source != self.config.eui => {
                source
            }
            _ => return drops.foreign += 1,
        };
        let mut opened = [0; FRAME_BYTES_MAX];
        let (counter, payload) = match (self.config.key, frame.secured) {
            (None, false) => (None, frame.payload),
            (None, true) => return drops.secured += 1,
            (Some(_), false) => return drops.unsecured += 1,
            (Some(key), true) => {
                let header_bytes = bytes.len().saturating_sub(frame.payload.len());
                match security::open(key, source, bytes, header_bytes, &mut opened) {
                    Ok((counter, payload)) => (Some(counter), payload),
                    Err(security::Refusal::Level) => return drops.security_level += 1,
                    Err(security::Refusal::Forged) => return drops.forged += 1,
                }
            }
        };
        let wants_ack = frame.ack_requested && unicast && self.config.soft_mac && self.config.soft_ack;
        let freshness = match (counter, frame.sequence) {
            (Some(counter), _) => self.peers.freshness(source, counter),
            (None, Some(sequence)) if self.peers.is_duplicate(now, source, sequence) => Freshness::Repeated,
            (None, _) => Freshness::New,
        };
        match freshness {
            Freshness::New => {}
            Freshness::Repeated => {
                drops.duplicate += 1;
                if let Some(sequence) = frame.sequence {
                    self.acknowledge(sequence, wants_ack);
                }
                return;
            }
            Freshness::Replayed => return drops.replayed += 1,
        }
        let link = Link { source: frame.source, destination: frame.destination };
        let taken = self.gather(now, source, link, payload);
        self.counters.drops.evicted += self.incoming.take_evicted();
        if taken == Some(Taken::NoRoom) {
            // Without an acknowledgement the sender tries again, and by then there may be room.
            return;
        }
        let first_sequence = self.spread.next_u8();
        self.peers.taken(now, source, (frame.sequence, counter), unicast, quality, first_sequence);
        if let Some(sequence) = frame.sequence {
            self.acknowledge(sequence, wants_ack);
        }
    }

    fn acknowledge(&mut self, sequence: u8, wanted: bool) {
        if wanted && self.acks.push_back(sequence).is_err() {
            // The caller did not poll for so many frames that the oldest is not waited for any more.
            self.acks.pop_front();
            self.acks.push_back(sequence).unwrap_or_default();
        }
    }

    /// Puts a 6LoWPAN payload where it belongs. `None` when it is malformed.
    fn gather(&mut self, now: Instant, source: DeviceId, link: Link, payload: &[u8]) -> Option<Taken> {
        let drops = &mut self.counters.drops;
        let Some(piece) = Piece::parse(payload) else {
            drops.bad_fragment += 1;
            return None;
        };
        let expanded = match piece {
            Piece::Next(..) => None,
            Piece::Whole(input) => Some((iphc::expand(input, link, None), input)),
            Piece::First(datagram, input) => {
                Some((iphc::expand(input, link, Some(usize::from(datagram.size))), input))
            }
        };
        let (headers, rest) = match &expanded {
            None => (&[][..], &[][..]),
            Some((Ok(expanded), input)) => (
                expanded.header.get(..expanded.header_bytes).unwrap_or_default(),
                input.get(expanded.consumed..).unwrap_or_default(),
            ),
            Some((Err(_), _)) => {
                drops.bad_headers += 1;
                return None;
            }
        };
        let taken = match piece {
            Piece::Whole(_) => self.incoming.whole(source, headers, rest),
            Piece::First(datagram, _) => self.incoming.piece(now, source, datagram, 0, headers, rest),
            Piece::Next(datagram, offset, bytes) => {
                self.incoming.piece(now, source, datagram, offset, &[], bytes)
            }
        };
        match taken {
            Taken::Kept | Taken::Whole => {}
            Taken::Nothing => drops.duplicate += 1,
            Taken::Restarted | Taken::Contradiction => drops.bad_fragment += 1,
            Taken::TooLong => drops.too_long += 1,
            Taken::NoRoom => drops.no_room += 1,
        }
        Some(taken)
    }

    fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Progress => {}
            Outcome::Sent => self.counters.datagrams_out += 1,
            Outcome::Retry => self.counters.retries += 1,
            Outcome::Unacknowledged(device) => {
                self.counters.unacknowledged += 1;
                self.peers.unacknowledged(device);
            }
            Outcome::Failed(device) => {
                self.counters.unacknowledged += 1;
                self.counters.datagrams_failed += 1;
                self.peers.unacknowledged(device);
            }
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        while let Some(outcome) = self.outgoing.expire(now) {
            self.count(outcome);
        }
        if self.config.key.is_some() && self.frame_counters.left() == 0 {
            while let Some(outcome) = self.outgoing.abandon() {
                self.count(outcome);
            }
        }
        self.counters.drops.timed_out += self.incoming.expire(now);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) and then [`poll_transmit`](Self::poll_transmit) next, if
    /// nothing comes first.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let now = (!self.acks.is_empty()).then_some(self.now);
        let outgoing = self.outgoing.deadline(self.config.key, &self.frame_counters);
        [now, outgoing, self.incoming.deadline()].into_iter().flatten().min()
    }

    /// The next frame to put on the air, without check sequence; acknowledgements first. Call it until it answers
    /// `None` after every other verb.
    pub fn poll_transmit(&mut self, now: Instant, buffer: &mut [u8; FRAME_BUFFER_BYTES]) -> Option<usize> {
        self.now = now;
        let written = match self.acks.pop_front() {
            Some(sequence) => {
                let ack = mac::ack(sequence);
                buffer.first_chunk_mut().map(|out| *out = ack)?;
                self.counters.acks_out += 1;
                ack.len()
            }
            None => {
                let first_sequence = self.spread.next_u8();
                let peers = &mut self.peers;
                let number =
                    |to, in_use: &dyn Fn(u8) -> bool| peers.next_sequence(now, to, first_sequence, in_use);
                let manner = Manner {
                    eui: self.config.eui,
                    pan: self.config.pan,
                    soft_mac: self.config.soft_mac,
                    ack_wait: self.config.ack_wait,
                    pace: self.config.pace,
                    key: self.config.key,
                };
                let counters = &mut self.frame_counters;
                let (written, outcome) = self.outgoing.poll(now, manner, counters, number, buffer)?;
                if let Some(outcome) = outcome {
                    self.count(outcome);
                }
                written
            }
        };
        self.counters.frames_out += 1;
        self.counters.bytes_out += u64::try_from(written).unwrap_or(u64::MAX);
        Some(written)
    }

    /// Takes one datagram for sending. Its delivery is not confirmed: that is the business of CoAP above.
    ///
    /// # Errors
    /// [`SendError`], and then nothing was taken.
    pub fn send(&mut self, now: Instant, to: Peer, payload: &[u8]) -> Result<(), SendError> {
        self.now = now;
        if to.port == 0 || to.device == self.config.eui {
            return Err(SendError::Unreachable);
        }
        if payload.len() > Self::PAYLOAD_BYTES_MAX {
            return Err(SendError::TooLong { payload_bytes_max: Self::PAYLOAD_BYTES_MAX });
        }
        if self.config.key.is_some() && self.frame_counters.left() == 0 {
            return Err(SendError::CountersSpent);
        }
        let sent = self.ip.write(now, to.device, to.port, payload, &mut self.outgoing);
        if sent { Ok(()) } else { Err(SendError::Busy) }
    }

    /// The next complete datagram, copied into `buffer`, which should hold `PAYLOAD_BYTES_MAX` bytes; a datagram that
    /// does not fit is dropped and counted. An echo request on the way to it is answered, so
    /// [`poll_transmit`](Self::poll_transmit) may have something afterwards.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Option<(Peer, usize)> {
        loop {
            let (now, ip, outgoing) = (self.now, &mut self.ip, &mut self.outgoing);
            let (device, read) = self
                .incoming
                .read(|device, packet| (device, ip.read(now, device, packet, buffer, outgoing)))?;
            match read {
                Read::Datagram { port, payload_bytes } => {
                    self.counters.datagrams_in += 1;
                    return Some((Peer { device, port }, payload_bytes));
                }
                Read::Answered => self.counters.datagrams_in += 1,
                Read::TooLong => self.counters.drops.too_long += 1,
                Read::Refused => self.counters.drops.bad_packet += 1,
            }
        }
    }

    /// Totals since the start.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The stations heard lately, in no order.
    pub fn neighbors(&self) -> impl Iterator<Item = Neighbor> {
        self.peers.neighbors()
    }
}
