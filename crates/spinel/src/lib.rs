//! Spinel, the protocol between a host and a radio co-processor (draft-rquattle-spinel-unified), over HDLC-lite: what any OpenThread
//! RCP speaks on a serial line. [`Host`] is the host's side as a pure state machine: bytes go in and come out, time is an
//! argument, and serial lines, sockets and clocks stay with the caller. The formats ([`hdlc`], [`packed`], [`Frame`],
//! [`Transmit`], [`Received`], [`Done`]) serve both sides, so that a simulated co-processor speaks the same.
//!
//! Thin today: one interface (IID 0), no energy scan, no source match table, no encryption by the co-processor; baud rates are
//! the caller's to probe.

#![no_std]

mod bytes;
mod frame;
pub mod hdlc;
mod host;
pub mod packed;
mod setup;
mod stream;

pub use frame::{Body, Frame, STATUS_RESETS, Status, property};
pub use host::{
    Counters, Event, Heard, Host, HostConfig, Loss, Outcome, PROBE_EVERY, RECEIVED_MAX, SEND_WAIT_MAX,
    SendError, TRIES_MAX,
};
pub use setup::{ANSWER_WAIT, PROTOCOL_MAJOR};
pub use stream::{Done, FLAG_BAD_FCS, FLAG_SENT, Received, Transmit};

/// Longest Spinel frame that is read or written, in bytes: a radio frame with all that is said about it takes 160.
pub const FRAME_BYTES_MAX: usize = 256;

/// Longest radio frame without its check sequence, in bytes.
pub const RADIO_FRAME_BYTES_MAX: usize = 125;

/// The check sequence of a radio frame, in bytes: the co-processor makes and checks it, and wants its room.
pub const FCS_BYTES: usize = 2;

/// What the longest frame takes on the line, each byte escaped, in bytes.
pub const WIRE_BYTES_MAX: usize = hdlc::wire_bytes_max(FRAME_BYTES_MAX);
