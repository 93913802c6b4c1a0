//! One station as a pure state machine: 802.15.4, 6LoWPAN and UDP behind a handful of verbs. It owns its storage, sized
//! by const generics, and knows no socket, no clock and no source of randomness of its own.

use smoltcp::time::Instant;
use tidelog_record::DeviceId;

use crate::{ConfigError, Counters, EndpointConfig, FRAME_BUFFER_BYTES};

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
    /// Frames to it given up without acknowledgement.
    pub unacknowledged: u32,
}

/// Why a datagram was not taken for sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// All slots for outgoing datagrams are in use; try again when frames have left.
    #[error("all slots for outgoing datagrams are in use")]
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
}

/// One station: `DATAGRAM_BYTES` bounds an IPv6 packet, `OUT` and `IN` bound the datagrams under way in each
/// direction, `PEERS` bounds the stations remembered for duplicates and sequence numbers.
#[derive(Debug)]
pub struct Endpoint<const DATAGRAM_BYTES: usize, const OUT: usize, const IN: usize, const PEERS: usize> {
    config: EndpointConfig,
    counters: Counters,
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
        let _ = entropy;
        Ok(Self { config, counters: Counters::default() })
    }

    /// What the station was told.
    #[must_use]
    pub fn config(&self) -> &EndpointConfig {
        &self.config
    }

    /// Takes one frame heard on the air, without its check sequence.
    pub fn handle_frame(&mut self, now: Instant, frame: &[u8], quality: Quality) {
        let _ = (now, frame, quality);
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) and [`poll_transmit`](Self::poll_transmit) next, if nothing comes first.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// The next frame to put on the air, without check sequence. Call it until it answers `None` after every other verb.
    pub fn poll_transmit(&mut self, now: Instant, buffer: &mut [u8; FRAME_BUFFER_BYTES]) -> Option<usize> {
        let _ = (now, buffer);
        None
    }

    /// Takes one datagram for sending. Its delivery is not confirmed: that is the business of CoAP above.
    ///
    /// # Errors
    /// [`SendError`], and then nothing was taken.
    pub fn send(&mut self, now: Instant, to: Peer, payload: &[u8]) -> Result<(), SendError> {
        let _ = (now, to, payload);
        Ok(())
    }

    /// The next complete datagram, copied into `buffer`, which should hold `PAYLOAD_BYTES_MAX` bytes; a datagram that
    /// does not fit is dropped and counted.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Option<(Peer, usize)> {
        let _ = buffer;
        None
    }

    /// Totals since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The stations heard lately, in no order.
    pub fn neighbors(&self) -> impl Iterator<Item = Neighbor> {
        core::iter::empty()
    }
}
