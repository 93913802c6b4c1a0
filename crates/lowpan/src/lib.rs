//! The radio side of Tidelog without a radio: IEEE 802.15.4 frames, 6LoWPAN, UDP, CoAP and ZEP, without allocation.
//!
//! [`Endpoint`] is the whole stack of one station as a pure state machine: frames go in and come out, time and
//! randomness are arguments, and sockets and serial lines stay with the caller. [`zep`] carries its frames over UDP,
//! which is how the simulated air, Wireshark and RIOT speak. The layouts are drawn in `docs/RADIO.md`.
//! Radio co-processors are driven by `tidelog-spinel`.

#![no_std]

#[cfg(test)]
extern crate std;

pub mod access;
mod address;
pub mod coap;
mod config;
mod counters;
mod csma;
mod endpoint;
mod fragment;
mod incoming;
mod ip;
mod iphc;
pub mod mac;
mod outgoing;
pub mod pcap;
mod peers;
mod random;
mod security;
pub mod zep;

pub use config::{ConfigError, EndpointConfig};
pub use counters::{Counters, Drops};
pub use endpoint::{Endpoint, GatewayEndpoint, Neighbor, Peer, Quality, SendError, SensorEndpoint};
pub use security::{KEY_INDEX, NetworkKey, ParseKeyError};

/// The time that is passed to every decision: microseconds since an arbitrary start of the caller's choice.
pub mod time {
    pub use smoltcp::time::{Duration, Instant};
}

/// Longest 802.15.4 frame without its two bytes of frame check sequence, in bytes.
pub const FRAME_BYTES_MAX: usize = 125;

/// Size of the buffer that [`Endpoint::poll_transmit`] writes into, in bytes: the PHY's largest frame.
pub const FRAME_BUFFER_BYTES: usize = 127;

/// What each frame leaves free for the auxiliary security header and the integrity code, in bytes: their largest forms. So
/// datagrams are cut alike with and without a key.
pub const LINK_SECURITY_BYTES: usize = 21;

/// Bytes of the IPv6 and UDP headers in front of a payload before compression.
pub const IP_UDP_HEADER_BYTES: usize = 48;

/// Largest UDP payload that leaves in one frame (link-local addresses, port 5683 at both ends), in bytes.
pub const SINGLE_FRAME_PAYLOAD_BYTES_MAX: usize = 74;

/// The UDP port of CoAP.
pub const COAP_PORT: u16 = 5683;
