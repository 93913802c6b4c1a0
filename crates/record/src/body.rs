//! The body of a record: points of one or more series, packed so that what sensors send takes few bytes, and read and
//! written entry by entry without a [`Batch`](crate::Batch) between.
//!
//! ```text
//! body    := kind u8 | content
//! kind 1  := authored_ms i64 LE | origin | entry count varint | { entry }
//! kind 2  := node 16 bytes | run u64 LE | lsn varint | part | as kind 1
//! part    := 0 | 1, first_point varint
//! origin  := 0 | 1, device 8 bytes, epoch u32 LE, first_seq varint, count varint
//! entry   := head u8 | metric | labels | times | values
//!
//! head    := bits 0-3 layout of the values | bit 4 the metric is the foretold one | bit 5 the labels are those of the entry before
//!            | bit 6 the times are those of the entry before | bit 7 the steps of the values are packed
//! metric  := nothing if foretold | number varint; a number that no metric of this body has yet: length varint, UTF-8
//! labels  := nothing if the same | kept at the front varint, kept at the end varint, length varint, the bytes between
//! times   := nothing if the same | count << 2 | unit varint | first zigzag varint | { step's change zigzag varint }
//! values  := layout 0-9  number / 10^layout, each rounded once to f64: first zigzag varint | steps
//!            layout 10   f64: { 8 bytes LE }
//!            layout 11   i64: first zigzag varint | steps (wrapping)
//!            layout 12   bool: bits, the first one lowest, the last byte filled up with 0
//!            layout 13   text: { length varint, UTF-8 }
//!            layout 14   mixed: { kind u8 (0 f64, 1 i64, 2 bool, 3 text), 8 bytes LE | zigzag varint | 0 or 1 | as text }
//! steps   := { zigzag varint } | packed: { zigzag in 4 bits, the first one lowest, the last byte filled up with 0 }
//! ```
//! Metrics are numbered from 0 in the order they come. The foretold one is that which came after the last entry's metric the last time
//! that metric stood in the body; before that, the last entry's metric itself; nothing is foretold for the first entry.
//! Labels are the canonical form of the series behind its metric; before the first entry they are empty. An entry's first time counts from
//! the first time of the last entry with times of its own (from 0 before one), its first step's change from that entry's last step; all
//! of them, wrapping, in the unit: 0 ns, 1 µs, 2 ms, 3 s. "The times of the entry before" are none for the first entry.
//!
//! **What is canonical.** [`BodyWriter`] has one spelling for given entries: foretold metrics, same labels and same times are
//! always said so, as much as can be is kept at the front of labels and then at their end, the unit is the greatest that divides, values
//! are of layout 0-9 with the fewest digits whenever all are decimals (empty columns: layout 0), steps are packed whenever there are
//! some and all fit. Decoding and encoding what it wrote gives the same bytes. A body that says the same otherwise is valid too and is read as what
//! it says, because a reader that judged spelling would lose points: so whoever means to write a body again from its content compares,
//! and keeps the bytes where they differ.
//!
//! Any other kind is kept as bytes: an older node stores and forwards what a newer one wrote (invariant 15).

pub(crate) mod packing;
mod read;
mod write;

use alloc::vec::Vec;

use crate::column::Values;
use crate::device::DeviceId;
use crate::ids::{Lsn, NodeId, Run};
use crate::series::SeriesError;
use crate::varint::{Malformed, Reader, put_u64};

pub use read::{BodyReader, Opened};
pub use write::BodyWriter;

/// Largest encoded body, in bytes. Every buffer for a record is sized from it.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// Most points in a body. With it, what a body takes in memory is bounded although a point may take half a byte in it.
pub const BATCH_POINTS_MAX: usize = 256 * 1024;

/// Most bytes that the canonical forms of a body's entries take together, written out. It bounds what names that differ in one
/// byte may grow to.
pub const BATCH_NAME_BYTES_MAX: usize = 4 * 1024 * 1024;

const KIND_POINTS: u8 = 1;
const KIND_RELAYED: u8 = 2;

const LAYOUT_BITS: u8 = 0x0f;
const METRIC_FORETOLD: u8 = 0x10;
const LABELS_SAME: u8 = 0x20;
const TIMES_SAME: u8 = 0x40;
const STEPS_PACKED: u8 = 0x80;

/// Layouts up to this one are decimals with as many digits behind the point.
const LAYOUT_DECIMAL_LAST: u8 = crate::decimal::DECIMAL_DIGITS_MAX;
const LAYOUT_F64: u8 = 10;
const LAYOUT_I64: u8 = 11;
const LAYOUT_BOOL: u8 = 12;
const LAYOUT_TEXT: u8 = 13;
const LAYOUT_MIXED: u8 = 14;

const MIXED_F64: u8 = 0;
const MIXED_I64: u8 = 1;
const MIXED_BOOL: u8 = 2;
const MIXED_TEXT: u8 = 3;

/// Nanoseconds in the units that times are counted in.
const UNITS_NS: [i64; 4] = [1, 1_000, 1_000_000, 1_000_000_000];

/// Why bytes are no body, or a batch has no bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Too long to be stored as one record; write it as several.
    #[error("the batch takes {bytes} bytes, the most is {BATCH_BYTES_MAX}: split it")]
    TooLong {
        /// Encoded length, or what it had reached.
        bytes: usize,
    },
    /// Too many points for one record.
    #[error("the batch has {points} points, the most is {BATCH_POINTS_MAX}: split it")]
    TooManyPoints {
        /// How many it has, or had when counting ended.
        points: usize,
    },
    /// The names of its series are too long together.
    #[error("the names in the batch take {bytes} bytes, the most is {BATCH_NAME_BYTES_MAX}: split it")]
    NamesTooLong {
        /// Length of their canonical forms, or what it had reached.
        bytes: usize,
    },
    /// Cut short, or not in the format.
    #[error("not the bytes of a batch")]
    Malformed,
    /// A series in it is bad.
    #[error("bad series in the batch: {0}")]
    Series(#[from] SeriesError),
}

impl From<Malformed> for BatchError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// Where a batch came from when a sensor sent it: enough for anyone to recognise a repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The sensor.
    pub device: DeviceId,
    /// The life of the sensor's flash log: drawn when the log is formatted, so `(device, epoch, seq)` is unique.
    pub epoch: u32,
    /// Sequence number of the first sample in the batch.
    pub first_seq: u64,
    /// How many consecutive samples it holds.
    pub count: u32,
}

/// The record that a batch was copied from, when it came as a message about another node's record and not from a peer.
/// It stands in the record, so that a repeat is recognised after a restart, and the copy is not sent out as news. For the same ends a record
/// of a message that no node wrote has the start of the message's hash as `node`, run 0 and the message's packet identifier as `lsn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Relay {
    /// Who wrote the record.
    pub node: NodeId,
    /// The writer's run.
    pub run: Run,
    /// Its place in the writer's stream for the same site.
    pub lsn: Lsn,
    /// How many of the record's points stand before the first of this batch; `None` when the batch is all of them.
    pub first_point: Option<u64>,
}

/// What stands in a body before its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BodyHead {
    /// The author's clock when it was written, Unix milliseconds. For lag, never for order.
    pub authored_ms: i64,
    /// The sensor's batch, if a sensor sent it.
    pub origin: Option<Origin>,
    /// The record it was copied from, if it was.
    pub relay: Option<Relay>,
}

/// One entry of a body: points of one series, in the order they were written in. Its buffers are used again from entry to
/// entry, so hand the same one to each [`BodyReader::next`] and leave its contents alone between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// [`Series::canonical`](crate::Series::canonical) bytes, checked: [`Series::from_canonical`](crate::Series::from_canonical)
    /// takes them.
    pub canonical: Vec<u8>,
    /// Unix nanoseconds.
    pub times: Vec<i64>,
    /// As many as there are times; none where `digits` says that they are in `scaled`.
    pub values: Values,
    /// Decimals that were left as numbers without their point, see [`BodyReader::leave_decimals`]: their digits behind it.
    pub digits: Option<u8>,
    /// The numbers then: each below [`DECIMAL_LIMIT`](crate::DECIMAL_LIMIT).
    pub scaled: Vec<i64>,
    /// Whether the times are those of the entry before, and were left in place.
    pub same_times: bool,
}

impl Relay {
    /// What the record with this body was copied from; `None` for one that was written first where it stands.
    ///
    /// # Errors
    /// [`BatchError::Malformed`] when the body begins as a copy and is cut short.
    pub fn of_body(bytes: &[u8]) -> Result<Option<Self>, BatchError> {
        let mut reader = Reader(bytes);
        if reader.u8()? == KIND_RELAYED { Ok(Some(Self::take(&mut reader)?)) } else { Ok(None) }
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            node: NodeId(reader.array()?),
            run: Run(u64::from_le_bytes(reader.array()?)),
            lsn: Lsn(reader.u64()?),
            first_point: match reader.u8()? {
                0 => None,
                1 => Some(reader.u64()?),
                _ => return Err(Malformed),
            },
        })
    }
}

impl BodyHead {
    fn take(kind: u8, reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let relay = if kind == KIND_RELAYED { Some(Relay::take(reader)?) } else { None };
        let authored_ms = i64::from_le_bytes(reader.array()?);
        let origin = match reader.u8()? {
            0 => None,
            1 => Some(Origin {
                device: DeviceId(reader.array()?),
                epoch: u32::from_le_bytes(reader.array()?),
                first_seq: reader.u64()?,
                count: u32::try_from(reader.u64()?).map_err(|_| Malformed)?,
            }),
            _ => return Err(Malformed),
        };
        Ok(Self { authored_ms, origin, relay })
    }

    fn put(&self, out: &mut Vec<u8>) {
        match &self.relay {
            None => out.push(KIND_POINTS),
            Some(relay) => {
                out.push(KIND_RELAYED);
                out.extend_from_slice(&relay.node.0);
                out.extend_from_slice(&relay.run.0.to_le_bytes());
                put_u64(out, relay.lsn.0);
                match relay.first_point {
                    None => out.push(0),
                    Some(first_point) => {
                        out.push(1);
                        put_u64(out, first_point);
                    }
                }
            }
        }
        out.extend_from_slice(&self.authored_ms.to_le_bytes());
        match &self.origin {
            None => out.push(0),
            Some(origin) => {
                out.push(1);
                out.extend_from_slice(&origin.device.0);
                out.extend_from_slice(&origin.epoch.to_le_bytes());
                put_u64(out, origin.first_seq);
                put_u64(out, u64::from(origin.count));
            }
        }
    }
}

#[cfg(test)]
mod tests;
