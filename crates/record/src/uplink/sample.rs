//! One sample: what all metrics of a sensor showed at one time, and how a single value is written and read.

use super::METRICS_MAX;
use super::schema::{Schema, SchemaId};
use crate::msgpack::{Full, Reader, Token, Unexpected, Writer};

/// Room for any sample in a sensor's flash, in bytes: schema, ticks and [`METRICS_MAX`] values of at most ten bytes.
pub const SAMPLE_BYTES_MAX: usize = 5 + 9 + METRICS_MAX * 10;

/// Integers up to this magnitude, and no further, are exact in an f64.
const EXACT_MAX: i64 = 1 << 53;

/// What one metric showed. Equality is on bits, as it is for [`crate::Value`] (feature `alloc`).
#[derive(Clone, Copy, Debug)]
pub enum Reading {
    /// A number.
    F64(f64),
    /// A whole number.
    I64(i64),
    /// A truth value.
    Bool(bool),
}

impl PartialEq for Reading {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::F64(a), Self::F64(b)) => a.to_bits() == b.to_bits(),
            (Self::I64(a), Self::I64(b)) => a == b,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Reading {}

/// What a sensor showed at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Unix time in ticks of the schema. Decided once, by the sensor (invariant 16).
    pub ticks: i64,
    /// By metric of the schema; those past its last metric are `None`.
    pub values: [Option<Reading>; METRICS_MAX],
}

/// Why a stored sample cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoredSampleError {
    /// It was written under another schema.
    #[error("the sample was stored under schema {0}")]
    OtherSchema(SchemaId),
    /// Not the bytes of a sample.
    #[error("not the bytes of a sample")]
    Malformed,
}

impl From<Unexpected> for StoredSampleError {
    fn from(_: Unexpected) -> Self {
        Self::Malformed
    }
}

impl Sample {
    /// Writes the sample as it stands in a sensor's flash; returns the length. [`SAMPLE_BYTES_MAX`] always suffices.
    ///
    /// # Errors
    /// [`Full`] when `out` is too short.
    pub fn store(&self, schema: &Schema<'_>, out: &mut [u8]) -> Result<usize, Full> {
        let mut writer = Writer::new(out);
        writer.u64(u64::from(schema.id().0))?;
        writer.i64(self.ticks)?;
        for (metric, value) in schema.metrics().iter().zip(&self.values) {
            write_value(&mut writer, *value, metric.scale, &mut 0)?;
        }
        Ok(writer.length())
    }

    /// Reads what [`Sample::store`] wrote under the same schema.
    ///
    /// # Errors
    /// [`StoredSampleError`].
    pub fn load(schema: &Schema<'_>, bytes: &[u8]) -> Result<Self, StoredSampleError> {
        let mut reader = Reader::new(bytes);
        let id = SchemaId(reader.u32()?);
        if id != schema.id() {
            return Err(StoredSampleError::OtherSchema(id));
        }
        let mut sample = Self { ticks: reader.i64()?, values: [None; METRICS_MAX] };
        for (metric, value) in schema.metrics().iter().zip(&mut sample.values) {
            *value = read_value(&mut reader, metric.scale, &mut 0)?;
        }
        reader.end()?;
        Ok(sample)
    }
}

/// Writes one value; `before` is the metric's integer before it.
pub(super) fn write_value(
    writer: &mut Writer<'_>,
    value: Option<Reading>,
    scale: Option<u8>,
    before: &mut i64,
) -> Result<(), Full> {
    let integer = match value {
        None => return writer.nil(),
        Some(Reading::Bool(value)) => return writer.bool(value),
        Some(Reading::I64(value)) => {
            if scale.is_some() {
                let start = writer.length();
                return writer
                    .array(1)
                    .and_then(|()| writer.i64(value))
                    .inspect_err(|_| writer.truncate(start));
            }
            value
        }
        Some(Reading::F64(value)) => match scale.and_then(|scale| scaled(value, scale)) {
            Some(integer) => integer,
            None => return write_float(writer, value),
        },
    };
    writer.i64(integer.wrapping_sub(*before))?;
    *before = integer;
    Ok(())
}

/// Reads one value; `before` is the metric's integer before it.
pub(super) fn read_value(
    reader: &mut Reader<'_>,
    scale: Option<u8>,
    before: &mut i64,
) -> Result<Option<Reading>, Unexpected> {
    Ok(match (reader.token()?, scale) {
        (Token::Nil, _) => None,
        (Token::Bool(value), _) => Some(Reading::Bool(value)),
        (Token::F64(value), _) => Some(Reading::F64(value)),
        (Token::Array(1), Some(_)) => Some(Reading::I64(reader.i64()?)),
        (Token::Int(difference), scale) => {
            *before = before.wrapping_add(difference);
            Some(match scale {
                None => Reading::I64(*before),
                Some(scale) => Reading::F64(unscaled(*before, scale).ok_or(Unexpected)?),
            })
        }
        _ => return Err(Unexpected),
    })
}

/// Single precision where it gives the same bits back. A NaN never goes that way: processors change its bits.
fn write_float(writer: &mut Writer<'_>, value: f64) -> Result<(), Full> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "whether anything was lost is what the next line asks"
    )]
    let single = value as f32;
    if !value.is_nan() && f64::from(single).to_bits() == value.to_bits() {
        writer.f32(single)
    } else {
        writer.f64(value)
    }
}

fn power_of_ten(scale: u8) -> i64 {
    10i64.pow(u32::from(scale.min(super::SCALE_MAX)))
}

/// The integer that, over 10^scale, gives exactly the bits of `value`.
fn scaled(value: f64, scale: u8) -> Option<i64> {
    let product = value * exact(power_of_ten(scale));
    if product.is_nan() || product.abs() >= exact(EXACT_MAX) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "below 2^53; the fraction is meant to go")]
    let integer = (product + if product < 0.0 { -0.5 } else { 0.5 }) as i64;
    unscaled(integer, scale).filter(|back| back.to_bits() == value.to_bits()).map(|_| integer)
}

fn unscaled(integer: i64, scale: u8) -> Option<f64> {
    (integer.unsigned_abs() <= EXACT_MAX.unsigned_abs()).then(|| exact(integer) / exact(power_of_ten(scale)))
}

/// An integer of at most 2^53 as an f64: nothing is rounded.
fn exact(integer: i64) -> f64 {
    integer as f64
}

#[cfg(test)]
pub(super) mod tests {
    extern crate std;
    use super::super::schema::Metric;
    use super::*;
    use proptest::prelude::*;

    pub(crate) const SCHEMA_METRICS: [Metric<'static>; 4] = [
        Metric { name: "temperature", scale: Some(2) },
        Metric { name: "count", scale: None },
        Metric { name: "co", scale: Some(15) },
        Metric { name: "motion", scale: Some(0) },
    ];

    pub(crate) fn reading() -> impl Strategy<Value = Option<Reading>> {
        prop_oneof![
            1 => Just(None),
            2 => any::<u64>().prop_map(|bits| Some(Reading::F64(f64::from_bits(bits)))),
            2 => any::<i64>().prop_map(|value| Some(Reading::I64(value))),
            2 => any::<bool>().prop_map(|value| Some(Reading::Bool(value))),
            2 => any::<f32>().prop_map(|value| Some(Reading::F64(f64::from(value)))),
            4 => (-9_999_999i32..9_999_999, 0i32..9).prop_map(|(m, k)| Some(Reading::F64(f64::from(m) / 10f64.powi(k)))),
            1 => prop::sample::select(&[0.0, -0.0, f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE,
                5e-324, f64::MAX, f64::MIN, 9_007_199_254_740_992.0, -9_007_199_254_740_993.0][..]).prop_map(|value| Some(Reading::F64(value))),
            1 => prop::sample::select(&[i64::MIN, i64::MAX, 0, -1][..]).prop_map(|value| Some(Reading::I64(value))),
        ]
    }

    pub(crate) fn sample() -> impl Strategy<Value = Sample> {
        let ticks = prop_oneof![
            any::<i64>(),
            1_594_598_000_000i64..1_594_600_000_000,
            prop::sample::select(&[i64::MIN, i64::MAX][..])
        ];
        (ticks, [reading(), reading(), reading(), reading()]).prop_map(|(ticks, first)| {
            let mut values = [None; METRICS_MAX];
            values[..4].copy_from_slice(&first);
            Sample { ticks, values }
        })
    }

    proptest! {
        #[test]
        fn a_stored_sample_is_loaded_bit_by_bit(sample in sample()) {
            let schema = Schema::new(1_000_000, &SCHEMA_METRICS).unwrap();
            let mut bytes = [0u8; SAMPLE_BYTES_MAX];
            let length = sample.store(&schema, &mut bytes).unwrap();
            prop_assert_eq!(Sample::load(&schema, &bytes[..length]).unwrap(), sample);
            prop_assert_eq!(Sample::load(&schema, &bytes[..length - 1]), Err(StoredSampleError::Malformed));
        }

        #[test]
        fn a_decimal_of_the_scale_travels_as_an_integer(m in -(1i64 << 50)..(1i64 << 50), scale in 0u8..=15) {
            let text = std::format!("{m}e-{scale}");
            let value: f64 = text.parse().unwrap();
            prop_assume!(m != 0 || value.is_sign_positive());
            prop_assert_eq!(scaled(value, scale), Some(m), "{}", text);
        }

        #[test]
        fn random_bytes_are_no_reason_to_panic(noise in prop::collection::vec(any::<u8>(), 0..64)) {
            let schema = Schema::new(1, &SCHEMA_METRICS).unwrap();
            let mut bytes = [0u8; SAMPLE_BYTES_MAX];
            if let Ok(sample) = Sample::load(&schema, &noise) {
                sample.store(&schema, &mut bytes).unwrap();
            }
        }
    }

    #[test]
    fn a_sample_of_another_schema_is_told_apart() {
        let schema = Schema::new(1, &SCHEMA_METRICS).unwrap();
        let other = Schema::new(2, &SCHEMA_METRICS).unwrap();
        let mut bytes = [0u8; SAMPLE_BYTES_MAX];
        let sample = Sample { ticks: 0, values: [None; METRICS_MAX] };
        let length = sample.store(&schema, &mut bytes).unwrap();
        assert_eq!(Sample::load(&other, &bytes[..length]), Err(StoredSampleError::OtherSchema(schema.id())));
    }

    #[test]
    fn the_longest_sample_fits_its_room() {
        let metrics: [Metric<'_>; METRICS_MAX] = core::array::from_fn(|i| Metric {
            name: ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"][i],
            scale: Some(3),
        });
        let schema = Schema::new(1, &metrics).unwrap();
        let sample = Sample { ticks: i64::MIN, values: [Some(Reading::I64(i64::MIN)); METRICS_MAX] };
        assert!(sample.store(&schema, &mut [0; SAMPLE_BYTES_MAX]).is_ok());
    }
}
