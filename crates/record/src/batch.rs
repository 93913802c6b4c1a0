//! The body of a record: an atomic batch of points, and the bodies that this version does not understand.
//!
//! ```text
//! body     := kind u8 | content
//! kind 1   := authored_ms i64 LE | origin | series count varint | { series }
//! kind 2   := node 16 bytes | run u64 LE | lsn varint | part | as kind 1
//! part     := 0 | 1, first_point varint
//! origin   := 0 | 1, device 8 bytes, epoch u32 LE, first_seq varint, count varint
//! series   := canonical length varint, canonical bytes | point count varint | timestamps | values
//! timestamps := first zigzag varint, then differences (wrapping) as zigzag varints
//! values   := kind u8 (0 f64, 1 i64, 2 bool, 3 text; 255: each value has its own kind byte before it) | { value }
//! value    := f64: 8 bytes LE | i64: zigzag varint | bool: 0 or 1 | text: varint length, UTF-8
//! ```
//! Any other kind is kept as bytes: an older node stores and forwards what a newer one wrote (invariant 15).

use alloc::string::String;
use alloc::vec::Vec;

use crate::device::DeviceId;
use crate::ids::{Lsn, NodeId, Run};
use crate::point::Value;
use crate::series::{Series, SeriesError};
use crate::varint::{Malformed, Reader, put_bytes, put_i64, put_u64};

/// Largest encoded body, in bytes. Every buffer for a record is sized from it.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;

const KIND_POINTS: u8 = 1;
const KIND_RELAYED: u8 = 2;
const VALUE_F64: u8 = 0;
const VALUE_I64: u8 = 1;
const VALUE_BOOL: u8 = 2;
const VALUE_TEXT: u8 = 3;
const VALUE_MIXED: u8 = 255;

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
/// It stands in the record, so that a repeat is recognised after a restart, and the copy is not sent out as news.
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

/// Points of one or more series, stored all or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The author's clock when it was written, Unix milliseconds. For lag, never for order.
    pub authored_ms: i64,
    /// The sensor's batch, if a sensor sent it.
    pub origin: Option<Origin>,
    /// Points by series: `(timestamp in ns, value)`. One series may stand in it more than once.
    pub series: Vec<(Series, Vec<(i64, Value)>)>,
}

/// What a record's bytes hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A batch of points.
    Points(Batch),
    /// Something a newer version wrote; its kind byte.
    Unknown(u8),
}

/// Why bytes are no body, or a batch has no bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Too long to be stored as one record; write it as several.
    #[error("the batch takes {bytes} bytes, the most is {BATCH_BYTES_MAX}: split it")]
    TooLong {
        /// Encoded length.
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

impl Batch {
    /// Points in it.
    #[must_use]
    pub fn points(&self) -> usize {
        self.series.iter().map(|(_, points)| points.len()).sum()
    }

    /// The batch as a record's body.
    ///
    /// # Errors
    /// [`BatchError::TooLong`] past [`BATCH_BYTES_MAX`].
    pub fn encode(&self) -> Result<Vec<u8>, BatchError> {
        let mut out = Vec::with_capacity(64 + self.points() * 10);
        out.push(KIND_POINTS);
        self.put(out)
    }

    /// The batch as the body of a record that says what it was copied from. It is read as any other batch.
    ///
    /// # Errors
    /// [`BatchError::TooLong`] past [`BATCH_BYTES_MAX`].
    pub fn encode_relayed(&self, relay: &Relay) -> Result<Vec<u8>, BatchError> {
        let mut out = Vec::with_capacity(104 + self.points() * 10);
        out.push(KIND_RELAYED);
        out.extend_from_slice(&relay.node.0);
        out.extend_from_slice(&relay.run.0.to_le_bytes());
        put_u64(&mut out, relay.lsn.0);
        match relay.first_point {
            None => out.push(0),
            Some(first_point) => {
                out.push(1);
                put_u64(&mut out, first_point);
            }
        }
        self.put(out)
    }

    fn put(&self, mut out: Vec<u8>) -> Result<Vec<u8>, BatchError> {
        out.extend_from_slice(&self.authored_ms.to_le_bytes());
        match &self.origin {
            None => out.push(0),
            Some(origin) => {
                out.push(1);
                out.extend_from_slice(&origin.device.0);
                out.extend_from_slice(&origin.epoch.to_le_bytes());
                put_u64(&mut out, origin.first_seq);
                put_u64(&mut out, u64::from(origin.count));
            }
        }
        put_u64(&mut out, self.series.len() as u64);
        for (series, points) in &self.series {
            put_bytes(&mut out, &series.canonical());
            put_points(&mut out, points);
        }
        if out.len() > BATCH_BYTES_MAX { Err(BatchError::TooLong { bytes: out.len() }) } else { Ok(out) }
    }
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

impl Body {
    /// Reads a record's body.
    ///
    /// # Errors
    /// [`BatchError`] when the kind is known and the content is not what it should be.
    pub fn decode(bytes: &[u8]) -> Result<Self, BatchError> {
        if bytes.len() > BATCH_BYTES_MAX {
            return Err(BatchError::TooLong { bytes: bytes.len() });
        }
        let mut reader = Reader(bytes);
        match reader.u8()? {
            KIND_POINTS => {}
            KIND_RELAYED => {
                Relay::take(&mut reader)?;
            }
            kind => return Ok(Self::Unknown(kind)),
        }
        let authored_ms = i64::from_le_bytes(reader.array()?);
        let origin = match reader.u8()? {
            0 => None,
            1 => Some(Origin {
                device: DeviceId(reader.array()?),
                epoch: u32::from_le_bytes(reader.array()?),
                first_seq: reader.u64()?,
                count: u32::try_from(reader.u64()?).map_err(|_| Malformed)?,
            }),
            _ => return Err(BatchError::Malformed),
        };
        let count = reader.count(4)?;
        let mut series = Vec::with_capacity(count);
        for _ in 0..count {
            let name = Series::from_canonical(reader.bytes()?)?;
            series.push((name, take_points(&mut reader)?));
        }
        reader.end()?;
        Ok(Self::Points(Batch { authored_ms, origin, series }))
    }
}

fn kind_of(value: &Value) -> u8 {
    match value {
        Value::F64(_) => VALUE_F64,
        Value::I64(_) => VALUE_I64,
        Value::Bool(_) => VALUE_BOOL,
        Value::Text(_) => VALUE_TEXT,
    }
}

fn put_points(out: &mut Vec<u8>, points: &[(i64, Value)]) {
    put_u64(out, points.len() as u64);
    let mut before = 0i64;
    for (timestamp, _) in points {
        put_i64(out, timestamp.wrapping_sub(before));
        before = *timestamp;
    }
    let first = points.first().map_or(VALUE_F64, |(_, value)| kind_of(value));
    let uniform = points.iter().all(|(_, value)| kind_of(value) == first);
    out.push(if uniform { first } else { VALUE_MIXED });
    for (_, value) in points {
        if !uniform {
            out.push(kind_of(value));
        }
        match value {
            Value::F64(v) => out.extend_from_slice(&v.to_bits().to_le_bytes()),
            Value::I64(v) => put_i64(out, *v),
            Value::Bool(v) => out.push(u8::from(*v)),
            Value::Text(v) => put_bytes(out, v.as_bytes()),
        }
    }
}

fn take_points(reader: &mut Reader<'_>) -> Result<Vec<(i64, Value)>, Malformed> {
    let count = reader.count(2)?;
    let mut timestamps = Vec::with_capacity(count);
    let mut before = 0i64;
    for _ in 0..count {
        before = before.wrapping_add(reader.i64()?);
        timestamps.push(before);
    }
    let common = reader.u8()?;
    timestamps
        .into_iter()
        .map(|timestamp| {
            let kind = if common == VALUE_MIXED { reader.u8()? } else { common };
            let value = match kind {
                VALUE_F64 => Value::F64(f64::from_bits(u64::from_le_bytes(reader.array()?))),
                VALUE_I64 => Value::I64(reader.i64()?),
                VALUE_BOOL => match reader.u8()? {
                    0 => Value::Bool(false),
                    1 => Value::Bool(true),
                    _ => return Err(Malformed),
                },
                VALUE_TEXT => Value::Text(String::from(reader.text()?)),
                _ => return Err(Malformed),
            };
            Ok((timestamp, value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<u64>().prop_map(|bits| Value::F64(f64::from_bits(bits))),
            any::<i64>().prop_map(Value::I64),
            any::<bool>().prop_map(Value::Bool),
            ".{0,16}".prop_map(Value::Text),
        ]
    }

    fn batch() -> impl Strategy<Value = Batch> {
        let origin = prop::option::of((any::<[u8; 8]>(), any::<u32>(), any::<u64>(), any::<u32>()).prop_map(
            |(device, epoch, first_seq, count)| Origin { device: DeviceId(device), epoch, first_seq, count },
        ));
        let points = prop::collection::vec((any::<i64>(), value()), 0..20);
        let series = ("[a-z]{1,8}", prop::collection::btree_map("[a-z]{1,4}", "[ -~]{1,8}", 0..3))
            .prop_map(|(metric, labels)| Series::new(metric, labels).unwrap());
        (any::<i64>(), origin, prop::collection::vec((series, points), 0..5))
            .prop_map(|(authored_ms, origin, series)| Batch { authored_ms, origin, series })
    }

    proptest! {
        #[test]
        fn a_batch_is_read_as_it_was_written(batch in batch()) {
            let bytes = batch.encode().unwrap();
            prop_assert_eq!(Body::decode(&bytes).unwrap(), Body::Points(batch));
        }

        #[test]
        fn cut_changed_or_random_bytes_are_refused_without_a_panic(
            batch in batch(), cut in any::<prop::sample::Index>(), flip in any::<prop::sample::Index>(),
            noise in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let mut bytes = batch.encode().unwrap();
            prop_assert!(Body::decode(&bytes[..cut.index(bytes.len())]).is_err());
            let at = flip.index(bytes.len());
            bytes[at] ^= 0x41;
            drop(Body::decode(&bytes));
            let mut noise_body = vec![KIND_POINTS];
            noise_body.extend(noise);
            drop(Body::decode(&noise_body));
        }
    }

    proptest! {
        #[test]
        fn a_copied_batch_is_read_as_the_batch_and_names_its_record(
            batch in batch(), node in any::<[u8; 16]>(), numbers in any::<(u64, u64, Option<u64>)>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let relay = Relay { node: NodeId(node), run: Run(numbers.0), lsn: Lsn(numbers.1), first_point: numbers.2 };
            let bytes = batch.encode_relayed(&relay).unwrap();
            prop_assert_eq!(Relay::of_body(&bytes), Ok(Some(relay)));
            prop_assert!(Body::decode(&bytes[..cut.index(bytes.len())]).is_err());
            prop_assert_eq!(Relay::of_body(&batch.encode().unwrap()), Ok(None));
            prop_assert_eq!(Body::decode(&bytes).unwrap(), Body::Points(batch));
        }
    }

    #[test]
    fn a_huge_count_is_not_believed() {
        let mut bytes = vec![KIND_POINTS, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        put_u64(&mut bytes, u64::MAX);
        assert_eq!(Body::decode(&bytes), Err(BatchError::Malformed));
    }

    #[test]
    fn a_body_of_a_newer_version_is_unknown_not_wrong() {
        assert_eq!(Body::decode(&[200, 1, 2, 3]), Ok(Body::Unknown(200)));
    }

    #[test]
    fn a_batch_past_the_bound_is_refused_with_its_size() {
        let series = Series::new("x", [("a", "b")]).unwrap();
        let text = Value::Text("y".repeat(BATCH_BYTES_MAX));
        let batch = Batch { series: vec![(series, vec![(1, text)])], ..Batch::default() };
        assert!(matches!(batch.encode(), Err(BatchError::TooLong { bytes }) if bytes > BATCH_BYTES_MAX));
    }
}
