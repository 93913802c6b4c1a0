//! What the two ends of a session say. Version 4; in version 3 nobody says `Above`, and records are packed one by one (`codec`):
//!
//! ```text
//! Hello     first in each direction: versions spoken, node, credit given
//! Hold      what I hold durably now, per stream; also the acknowledgement of what I pulled from you
//! Above     what I hold of a stream above its contiguous part, in place of what I told of that before
//! Pull      send me this range; a range that goes on where the last one ends has no chain hash
//! Records   consecutive records; the chain hash after the last proves them all
//! Credit    so many more bytes of records may be sent
//! Stop      send no more of the stream; answered by one Stopped(Cancelled)
//! Stopped   the rest of a pulled range will not come; where policy dropped it, how far
//! Forked    at this LSN of a stream that you told of, my chain hash is another
//! Keepalive nothing
//! Close     the last message, with a reason for people
//! ```
//! This module holds no rule about when each may be said.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tidelog_record::{ChainHash, Lsn, NodeId, StreamId};

use crate::limits::{HOLD_STREAMS_MAX, RANGES_ABOVE_MAX, RECORD_COST_BYTES, RECORDS_PER_MESSAGE_MAX};
use crate::stream::{Head, Range};

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Opens the session.
    Hello(Hello),
    /// What the sender holds.
    Hold(#[serde(deserialize_with = "held_bounded")] Vec<Held>),
    /// What the sender holds above gaps. Since version 4.
    Above(#[serde(deserialize_with = "above_bounded")] Vec<Above>),
    /// Asks for records.
    Pull(Pull),
    /// Brings records.
    Records(Records),
    /// Gives credit, in bytes.
    Credit(u32),
    /// Takes a pull back.
    Stop(StreamId),
    /// Ends a pull early.
    Stopped {
        /// The stream.
        stream: StreamId,
        /// Why.
        reason: StopReason,
    },
    /// Two branches: the receiver compares with what it holds.
    Forked {
        /// The stream.
        stream: StreamId,
        /// An LSN that the receiver told to hold.
        lsn: Lsn,
        /// The sender's chain hash there.
        chain: ChainHash,
    },
    /// Says only that the sender lives.
    Keepalive,
    /// Ends the session.
    Close(String),
}

/// The first message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Oldest version that the sender speaks.
    pub version_min: u16,
    /// Newest version that the sender speaks.
    pub version_max: u16,
    /// Who it is; its certificate must say the same.
    pub node: NodeId,
    /// Credit given at once, in bytes.
    pub credit_bytes: u32,
    /// Which life of the node this is: drawn at random at each start.
    pub instance: u64,
}

/// How far the sender holds a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The stream.
    pub stream: StreamId,
    /// The last record of the contiguous part.
    pub head: Head,
}

/// What the sender holds of a stream above its contiguous part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Above {
    /// The stream.
    pub stream: StreamId,
    /// The lowest ranges, at most [`RANGES_ABOVE_MAX`]: ascending, and before each something is missing. None when there are none any more.
    #[serde(deserialize_with = "ranges_bounded")]
    pub ranges: Vec<Range>,
}

/// A range of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    /// The stream.
    pub stream: StreamId,
    /// The LSN before the first wanted.
    pub after: Lsn,
    /// The chain hash at `after` as the asker knows it; `None` when the range goes on from the one before.
    pub chain: Option<ChainHash>,
    /// The last LSN wanted; the receiver of this message has told that it holds it, and all from `after` on.
    pub until: Lsn,
}

/// Consecutive records of one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    /// The stream.
    pub stream: StreamId,
    /// LSN of the first body.
    pub first: Lsn,
    /// The chain hash after the last body.
    pub chain: ChainHash,
    /// The bodies.
    pub bodies: Bodies,
}

/// Why a pull ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopReason {
    /// The asker said [`Message::Stop`].
    Cancelled,
    /// The records cannot be read here.
    Unreadable,
    /// The asker's chain hash is not that of the stream held here.
    Forked,
    /// Policy dropped what was asked for: the last LSN of it, and the chain hash there.
    Dropped(Head),
}

/// The bodies of a [`Records`], at most [`RECORDS_PER_MESSAGE_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bodies(pub Vec<BodyBytes>);

impl Bodies {
    /// What they take of the credit, in bytes: what they take in memory, whatever they take on the wire.
    #[must_use]
    pub fn cost_bytes(&self) -> usize {
        self.0.iter().map(|body| body.0.len() + RECORD_COST_BYTES).sum()
    }
}

/// One body, written as MessagePack `bin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyBytes(pub Vec<u8>);

impl Serialize for BodyBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for BodyBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bin;
        impl Visitor<'_> for Bin {
            type Value = BodyBytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<BodyBytes, E> {
                Ok(BodyBytes(bytes.to_vec()))
            }
            fn visit_byte_buf<E: serde::de::Error>(self, bytes: Vec<u8>) -> Result<BodyBytes, E> {
                Ok(BodyBytes(bytes))
            }
        }
        deserializer.deserialize_bytes(Bin)
    }
}

impl<'de> Deserialize<'de> for Bodies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        bounded::<BodyBytes, D, RECORDS_PER_MESSAGE_MAX>(deserializer).map(Self)
    }
}

fn held_bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Held>, D::Error> {
    bounded::<Held, D, HOLD_STREAMS_MAX>(deserializer)
}

fn above_bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Above>, D::Error> {
    bounded::<Above, D, HOLD_STREAMS_MAX>(deserializer)
}

fn ranges_bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Range>, D::Error> {
    bounded::<Range, D, RANGES_ABOVE_MAX>(deserializer)
}

/// A sequence of at most `MAX` things; the length that the bytes claim reserves nothing.
fn bounded<'de, T: Deserialize<'de>, D: Deserializer<'de>, const MAX: usize>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    struct AtMost<T, const MAX: usize>(core::marker::PhantomData<T>);
    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for AtMost<T, MAX> {
        type Value = Vec<T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MAX} elements")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<T>, A::Error> {
            let mut out = Vec::new();
            while let Some(element) = sequence.next_element()? {
                if out.len() == MAX {
                    return Err(serde::de::Error::invalid_length(MAX + 1, &self));
                }
                out.push(element);
            }
            Ok(out)
        }
    }
    deserializer.deserialize_seq(AtMost::<T, MAX>(core::marker::PhantomData))
}
