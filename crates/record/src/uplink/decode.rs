//! Reading what sensors send, on a node: registered schemas, and batches into [`Batch`].
//!
//! Nothing read here is trusted: every error is a refusal that the gateway answers with a code of its own.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::encode::{BatchHead, Clock, FIRMWARE_BYTES_MAX};
use super::sample::{Reading, read_value};
use super::schema::{Metric, SchemaError, SchemaId, check};
use super::{METRICS_MAX, SCHEMA_BYTES_MAX, VERSION};
use crate::batch::Batch;
use crate::body::Origin;
use crate::device::DeviceId;
use crate::msgpack::{Reader, Token, Unexpected};
use crate::point::Value;
use crate::series::{Series, SeriesError};

/// Why a batch or a registration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UplinkError {
    /// Another version of the format: a newer sensor.
    #[error("version {0} of the uplink format, this node reads {VERSION}")]
    Version(u64),
    /// Cut short, or not in the format.
    #[error("not an uplink message")]
    Malformed,
    /// The schema given for decoding is not the one that the batch was written under.
    #[error("the batch was written under schema {0}")]
    OtherSchema(SchemaId),
    /// A time that does not fit 64 bits of nanoseconds.
    #[error("{ticks} ticks are no time in 64 bits of nanoseconds")]
    Timestamp {
        /// The sample's ticks.
        ticks: i64,
    },
    /// A schema that may not be registered.
    #[error("schema refused: {0}")]
    Schema(#[from] SchemaRefused),
}

/// Why a schema is not registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaRefused {
    /// Its bounds.
    #[error(transparent)]
    Bounds(#[from] SchemaError),
    /// A metric's name is no name of a series.
    #[error(transparent)]
    Name(#[from] SeriesError),
}

impl From<Unexpected> for UplinkError {
    fn from(_: Unexpected) -> Self {
        Self::Malformed
    }
}

/// A schema as a node keeps it. Invariant: bounds as in [`super::Schema`], and every name is a metric's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedSchema {
    tick_ns: u32,
    metrics: Vec<(String, Option<u8>)>,
    id: SchemaId,
}

impl OwnedSchema {
    /// Reads a schema's own bytes, as [`Registration::schema_bytes`] gives them.
    ///
    /// # Errors
    /// [`UplinkError::Malformed`] or [`UplinkError::Schema`].
    pub fn decode(bytes: &[u8]) -> Result<Self, UplinkError> {
        if bytes.len() > SCHEMA_BYTES_MAX {
            return Err(UplinkError::Malformed);
        }
        let mut reader = Reader::new(bytes);
        let elements = reader.array()?;
        if elements.is_multiple_of(2) {
            return Err(UplinkError::Malformed);
        }
        let tick_ns = reader.u32()?;
        let mut metrics = Vec::new();
        for _ in 0..elements / 2 {
            let name = reader.str()?;
            let scale = match reader.token()? {
                Token::Nil => None,
                Token::Int(scale) => Some(u8::try_from(scale).map_err(|_| UplinkError::Malformed)?),
                _ => return Err(UplinkError::Malformed),
            };
            metrics.push(Metric { name, scale });
        }
        reader.end()?;
        check(tick_ns, metrics.iter().copied()).map_err(SchemaRefused::from)?;
        for metric in &metrics {
            Series::new(metric.name, core::iter::empty::<(&str, &str)>()).map_err(SchemaRefused::from)?;
        }
        let id = SchemaId(crate::crc32(bytes));
        let metrics = metrics.into_iter().map(|metric| (metric.name.to_string(), metric.scale)).collect();
        Ok(Self { tick_ns, metrics, id })
    }

    /// The id that batches name it by.
    #[must_use]
    pub fn id(&self) -> SchemaId {
        self.id
    }
}

/// What a sensor posts to make its schema known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The sensor.
    pub device: DeviceId,
    /// What its batches will mean.
    pub schema: OwnedSchema,
    /// The schema's own bytes, to be kept: [`OwnedSchema::decode`] reads them again.
    pub schema_bytes: Vec<u8>,
    /// The version of the sensor's program, unless it is older than this field.
    pub firmware: Option<String>,
}

impl Registration {
    /// Reads the body of a registration.
    ///
    /// # Errors
    /// [`UplinkError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, UplinkError> {
        let mut reader = Reader::new(bytes);
        let elements = open(&mut reader, 3)?;
        let device = DeviceId(reader.bin()?);
        let schema_at = reader.rest();
        reader.skip()?;
        let (schema_bytes, _) = schema_at
            .split_at_checked(schema_at.len() - reader.rest().len())
            .ok_or(UplinkError::Malformed)?;
        let firmware = if elements > 3 { Some(reader.str()?) } else { None };
        if firmware.is_some_and(|version| version.len() > FIRMWARE_BYTES_MAX) {
            return Err(UplinkError::Malformed);
        }
        close(&mut reader, elements, elements.min(4))?;
        let schema = OwnedSchema::decode(schema_bytes)?;
        Ok(Self {
            device,
            schema,
            schema_bytes: schema_bytes.to_vec(),
            firmware: firmware.map(ToString::to_string),
        })
    }
}

/// A batch of which the head is read: enough to find its schema and to know what was seen before.
#[derive(Debug, Clone)]
pub struct Uplink<'a> {
    head: BatchHead,
    samples: Reader<'a>,
    elements: u32,
}

impl<'a> Uplink<'a> {
    /// Reads the head and checks that the whole is MessagePack from end to end.
    ///
    /// # Errors
    /// [`UplinkError::Version`] or [`UplinkError::Malformed`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, UplinkError> {
        let mut reader = Reader::new(bytes);
        let outer = open(&mut reader, 7)?;
        let head = BatchHead {
            device: DeviceId(reader.bin()?),
            epoch: reader.u32()?,
            first_seq: reader.u64()?,
            schema: SchemaId(reader.u32()?),
            base_ticks: reader.i64()?,
        };
        let elements = reader.array()?;
        let samples = reader.clone();
        for _ in 0..elements {
            reader.skip()?;
        }
        close(&mut reader, outer, 7)?;
        Ok(Self { head, samples, elements })
    }

    /// Device, epoch, first sequence number, schema.
    #[must_use]
    pub fn head(&self) -> &BatchHead {
        &self.head
    }

    /// The samples as a batch, without those up to and including sequence number `known` of this device and epoch (0:
    /// none is known), so that a sample is stored once however often it is sent. The batch's origin tells what is in
    /// it; its count is 0 when every sample was known.
    ///
    /// # Errors
    /// [`UplinkError::OtherSchema`], [`UplinkError::Malformed`] or [`UplinkError::Timestamp`]: nothing of the batch is used.
    pub fn batch(&self, schema: &OwnedSchema, known: u64, authored_ms: i64) -> Result<Batch, UplinkError> {
        if schema.id != self.head.schema {
            return Err(UplinkError::OtherSchema(self.head.schema));
        }
        let each = u32::try_from(1 + schema.metrics.len()).map_err(|_| UplinkError::Malformed)?;
        if !self.elements.is_multiple_of(each) {
            return Err(UplinkError::Malformed);
        }
        let count = self.elements / each;
        self.head.first_seq.checked_add(u64::from(count)).ok_or(UplinkError::Malformed)?;
        let skipped = known.saturating_add(1).saturating_sub(self.head.first_seq).min(u64::from(count));
        let mut points: Vec<Vec<(i64, Value)>> = schema.metrics.iter().map(|_| Vec::new()).collect();
        let mut reader = self.samples.clone();
        let mut clock = Clock::new(self.head.base_ticks);
        let mut before = [0i64; METRICS_MAX];
        for index in 0..u64::from(count) {
            let ticks = clock.advance(reader.i64()?);
            let timestamp =
                ticks.checked_mul(i64::from(schema.tick_ns)).ok_or(UplinkError::Timestamp { ticks })?;
            for (((_, scale), before), points) in schema.metrics.iter().zip(&mut before).zip(&mut points) {
                let value = read_value(&mut reader, *scale, before)?;
                if let Some(value) = value.filter(|_| index >= skipped) {
                    points.push((timestamp, value.into()));
                }
            }
        }
        let device = self.head.device.to_string();
        let mut series = Vec::new();
        for ((name, _), points) in schema.metrics.iter().zip(points).filter(|(_, points)| !points.is_empty())
        {
            let name =
                Series::new(name.as_str(), [("device", device.as_str())]).map_err(SchemaRefused::from)?;
            series.push((name, points));
        }
        let origin = Origin {
            device: self.head.device,
            epoch: self.head.epoch,
            first_seq: self.head.first_seq + skipped,
            count: count - u32::try_from(skipped).map_err(|_| UplinkError::Malformed)?,
        };
        Ok(Batch { authored_ms, origin: Some(origin), series })
    }
}

impl From<Reading> for Value {
    fn from(reading: Reading) -> Self {
        match reading {
            Reading::F64(value) => Self::F64(value),
            Reading::I64(value) => Self::I64(value),
            Reading::Bool(value) => Self::Bool(value),
        }
    }
}

/// The head of a message: an array of at least `least` elements, of which the first is the version.
fn open(reader: &mut Reader<'_>, least: u32) -> Result<u32, UplinkError> {
    let elements = reader.array()?;
    let version = reader.u64()?;
    if version != VERSION {
        return Err(UplinkError::Version(version));
    }
    if elements < least { Err(UplinkError::Malformed) } else { Ok(elements) }
}

fn close(reader: &mut Reader<'_>, elements: u32, read: u32) -> Result<(), UplinkError> {
    for _ in read..elements {
        reader.skip()?;
    }
    Ok(reader.end()?)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::super::sample::tests::{SCHEMA_METRICS, sample};
    use super::super::{BATCH_HEAD_BYTES_MAX, BatchEncoder, Sample, Schema, encode_registration};
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    const DEVICE: DeviceId = DeviceId([2, 0x12, 0x4b, 0, 0, 0, 0, 9]);
    const EPOCH: u32 = 0xdead_beef;

    fn registered(schema: &Schema<'_>) -> OwnedSchema {
        let mut out = [0u8; SCHEMA_BYTES_MAX + FIRMWARE_BYTES_MAX + 14];
        let firmware = "9".repeat(FIRMWARE_BYTES_MAX);
        let length = encode_registration(&mut out, DEVICE, schema, &firmware).unwrap();
        let registration = Registration::decode(&out[..length]).unwrap();
        assert_eq!(registration.firmware, Some(firmware));
        assert_eq!(registration.device, DEVICE);
        assert_eq!(OwnedSchema::decode(&registration.schema_bytes).as_ref(), Ok(&registration.schema));
        registration.schema
    }

    /// Writes as many samples as fit; the bytes and how many.
    fn encoded(schema: Schema<'_>, first_seq: u64, samples: &[Sample], room: usize) -> (Vec<u8>, usize) {
        let mut out = vec![0u8; room.max(BATCH_HEAD_BYTES_MAX)];
        let base = samples.first().map_or(0, |sample| sample.ticks);
        let mut encoder = BatchEncoder::new(&mut out, DEVICE, EPOCH, first_seq, schema, base).unwrap();
        let count = samples.iter().take_while(|sample| encoder.push(sample).is_ok()).count();
        let length = encoder.length();
        out.truncate(length);
        (out, count)
    }

    /// What a batch of these samples must be, worked out without the format.
    fn expected(schema: &Schema<'_>, first_seq: u64, samples: &[Sample]) -> Option<Batch> {
        let mut series = Vec::new();
        for (index, metric) in schema.metrics().iter().enumerate() {
            let mut points = Vec::new();
            for sample in samples {
                let timestamp = sample.ticks.checked_mul(i64::from(schema.tick_ns()))?;
                if let Some(value) = sample.values[index] {
                    points.push((timestamp, value.into()));
                }
            }
            if !points.is_empty() {
                series.push((Series::new(metric.name, [("device", DEVICE.to_string())]).unwrap(), points));
            }
        }
        let count = u32::try_from(samples.len()).unwrap();
        let origin = Some(Origin { device: DEVICE, epoch: EPOCH, first_seq, count });
        Some(Batch { authored_ms: 5, origin, series })
    }

    proptest! {
        #[test]
        fn samples_arrive_bit_by_bit_and_known_ones_are_left_out(
            samples in prop::collection::vec(sample(), 0..12), first_seq in 1u64..1 << 40, tick_ns in prop::sample::select(&[1u32, 1_000_000][..]),
            room in 0usize..400, skip in 0usize..14,
        ) {
            let schema = Schema::new(tick_ns, &SCHEMA_METRICS).unwrap();
            let (bytes, count) = encoded(schema, first_seq, &samples, room);
            let uplink = Uplink::parse(&bytes).unwrap();
            prop_assert_eq!(uplink.head().first_seq, first_seq);
            let sent = &samples[..count];
            let skip = skip.min(count);
            let batch = uplink.batch(&registered(&schema), first_seq - 1 + skip as u64, 5);
            if let Some(mut wanted) = expected(&schema, first_seq + skip as u64, &sent[skip..]) {
                if expected(&schema, first_seq, sent).is_some() {
                    // Absent in what is left, present in what was skipped: no series for it, as expected.
                    wanted.series.retain(|(_, points)| !points.is_empty());
                    prop_assert_eq!(batch.unwrap(), wanted);
                }
            } else {
                let told = matches!(batch, Err(UplinkError::Timestamp { .. }));
                prop_assert!(told);
            }
        }

        #[test]
        fn cut_changed_or_random_bytes_are_no_reason_to_panic(
            samples in prop::collection::vec(sample(), 0..6), at in any::<prop::sample::Index>(), mask in 1u8..,
            noise in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let schema = Schema::new(1, &SCHEMA_METRICS).unwrap();
            let known = registered(&schema);
            let (mut bytes, _) = encoded(schema, 1, &samples, 400);
            prop_assert!(Uplink::parse(&bytes[..at.index(bytes.len())]).is_err());
            let at = at.index(bytes.len());
            bytes[at] ^= mask;
            for bytes in [&bytes, &noise] {
                if let Ok(uplink) = Uplink::parse(bytes) {
                    drop(uplink.batch(&known, 0, 0));
                }
                drop(Registration::decode(bytes));
                drop(OwnedSchema::decode(bytes));
            }
        }
    }

    #[test]
    fn a_batch_under_another_schema_or_version_is_told() {
        let schema = Schema::new(1, &SCHEMA_METRICS).unwrap();
        let other = registered(&Schema::new(2, &SCHEMA_METRICS).unwrap());
        let (mut bytes, _) = encoded(schema, 1, &[], 100);
        let told = Uplink::parse(&bytes).unwrap().batch(&other, 0, 0);
        assert_eq!(told, Err(UplinkError::OtherSchema(schema.id())));
        bytes[1] = 2;
        assert_eq!(Uplink::parse(&bytes).unwrap_err(), UplinkError::Version(2));
    }

    #[test]
    fn a_sensor_older_than_its_version_is_registered_without_one_and_a_longer_version_is_refused() {
        let schema = Schema::new(1, &SCHEMA_METRICS).unwrap();
        let mut out = [0u8; SCHEMA_BYTES_MAX + FIRMWARE_BYTES_MAX + 14];
        let length = encode_registration(&mut out, DEVICE, &schema, "").unwrap();
        // Three elements, and no empty text behind them.
        out[0] = 0x93;
        let old = Registration::decode(&out[..length - 1]).unwrap();
        assert_eq!((old.schema.id(), old.firmware), (schema.id(), None));
        let long = "9".repeat(FIRMWARE_BYTES_MAX + 1);
        assert!(encode_registration(&mut out, DEVICE, &schema, &long).is_err());
        let mut written = out[..length - 1].to_vec();
        written[0] = 0x94;
        written.extend([0xd9, 33]);
        written.extend(long.as_bytes());
        assert_eq!(Registration::decode(&written), Err(UplinkError::Malformed));
    }

    #[test]
    fn a_schema_whose_names_are_no_metrics_is_refused() {
        let metrics = [Metric { name: "no-metric", scale: None }];
        let mut out = [0u8; 64];
        let schema = Schema::new(1, &metrics).unwrap();
        let length = encode_registration(&mut out, DEVICE, &schema, "").unwrap();
        let told = Registration::decode(&out[..length]);
        assert!(matches!(told, Err(UplinkError::Schema(SchemaRefused::Name(_)))), "{told:?}");
    }

    #[test]
    fn four_steady_samples_of_four_metrics_take_little_more_than_a_byte_a_value() {
        let metrics =
            ["temperature", "humidity", "light", "battery"].map(|name| Metric { name, scale: Some(2) });
        let schema = Schema::new(1_000_000, &metrics).unwrap();
        let samples: Vec<Sample> = (0..4i32)
            .map(|i| {
                let mut values = [None; METRICS_MAX];
                for (value, start) in values.iter_mut().zip([2150, 4810, 30050, 331]) {
                    *value = Some(Reading::F64(f64::from(start + i * 3) / 100.0));
                }
                Sample { ticks: 1_594_598_424_502 + i64::from(i) * 5000, values }
            })
            .collect();
        let (bytes, count) = encoded(schema, 70_000, &samples, 400);
        assert_eq!((count, bytes.len()), (4, 39 + (1 + 12) + (3 + 4) + (1 + 4) + (1 + 4)));
    }
}
