//! How nodes come to hold the same streams: a state machine for all sessions of one node, without sockets, clock or
//! disk. The caller brings messages, time and what the disk answered; the machine says what to send, what to read
//! and write, and when to come back.
//!
//! Each side of a session tells what it holds durably and pulls what it lacks; a stream is pulled from one peer at a
//! time, so records travel each way once however the nodes are joined. Records of third nodes are passed on. What a
//! peer may see and send is decided by the sites that its certificate grants.
//!
//! A fork heals without a record being taken back: each side writes its branch again under a run that the branch's own bytes name, so
//! every node comes to hold both, and the author is told to go on under a new run.
//!
//! What peers dropped by policy cannot be had any more. Who learns so asks everyone else who offers the stream first, and after a while goes
//! on behind the lowest of the floors that it was told, with the chain hash there, so that what follows is held to the chain as ever.
//!
//! On a slow connection messages are short, and streams that are nearly equal go before those with a backlog, which keeps a share: so
//! fresh records come soon. Thin: streams travel record by record (no sealed segments), and within one stream the backlog comes first.
//!
//! Where rot left a gap in the middle of a stream, a node asks for the gap alone, and tells its peers of what it holds above it, so that they
//! need not wait until it is closed.

#![no_std]

extern crate alloc;

#[cfg(feature = "codec")]
mod codec;
mod disk;
mod event;
mod limits;
mod message;
mod peer;
mod replica;
mod session;
mod stream;

#[cfg(feature = "codec")]
pub use codec::{Decoder, Encoder, FrameError, FrameHeader, Unpacking, encode};
pub use disk::{AdoptFailure, DiskReply, DiskRequest, ReadFailure, Ticket};
pub use event::{CloseReason, Event, Fork, Violation};
pub use limits::{
    ACKNOWLEDGE_INTERVAL_MS, ANNOUNCE_INTERVAL_MS, BRANCHES_MAX, CLOSE_TEXT_BYTES_MAX,
    CONTROL_IN_FLIGHT_MESSAGES_MAX, DATA_IN_FLIGHT_MESSAGES_MAX, DISK_READS_MAX, FLOOR_LOOK_AGAIN_MS,
    FLOOR_WAIT_MS, FORK_CHECKS_MAX, FRAME_BYTES_MAX, FRESH_TURNS_MAX, HELLO_TIMEOUT_MS, HOLD_STREAMS_MAX,
    INSTANCE_NODES_MAX, INSTANCES_PER_NODE_MAX, KEEPALIVE_INTERVAL_MS, MESSAGE_BYTES_LEAST,
    MESSAGE_BYTES_MAX, MESSAGE_BYTES_START, MESSAGE_WRITE_MS_MAX, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN,
    PULL_RECORDS_PER_TURN_MAX, PULL_STREAMS_PER_SESSION_MAX, RANGES_ABOVE_MAX, RANGES_SINCE_VERSION,
    RECEIVE_BYTES_TOTAL_DEFAULT, RECORD_COST_BYTES, RECORDS_PER_MESSAGE_MAX, REFUSALS_WAITING_MAX,
    RETRY_AFTER_DISK_FAILURE_MS, RUN_BYTES_MAX, SEND_QUEUE_BYTES_MAX, SEND_QUEUE_MESSAGES_MAX,
    SEQUENCE_BODIES_MAX, SEQUENCE_LEARNT_BYTES_MAX, SEQUENCE_SERIES_MAX, SERVE_STREAMS_PER_SESSION_MAX,
    SILENCE_TIMEOUT_MS, SIMULTANEOUS_DIAL_MS, STALL_TIMEOUT_MS, STREAMS_PER_PEER_MAX, WINDOW_BYTES_MAX,
    WINDOW_BYTES_MIN,
};
pub use message::{Above, Bodies, BodyBytes, Held, Hello, Message, Pull, Records, StopReason};
pub use peer::{Peer, SessionId, Sites};
pub use replica::{Options, Progress, Replica};
pub use stream::{Head, Range};
