//! What the values of a sensor mean: names, scales and the length of a tick, and the id made of them.

use core::fmt;

use super::METRICS_MAX;
use crate::msgpack::{Full, Writer};

/// Longest name of a metric, in bytes.
pub const METRIC_NAME_BYTES_MAX: usize = 40;

/// Most decimals of a scaled metric. 10^15 and every integer below 2^53 are exact in an f64, so dividing the one by the other
/// gives the f64 nearest to the decimal fraction: the one that was sensed.
pub const SCALE_MAX: u8 = 15;

/// Room for any schema's bytes.
pub const SCHEMA_BYTES_MAX: usize = 8 + METRICS_MAX * (METRIC_NAME_BYTES_MAX + 3);

/// One metric of a sensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric<'a> {
    /// The metric's name, as it will stand in the series.
    pub name: &'a str,
    /// Decimals: `None` for whole numbers, `Some(k)` for numbers that travel as an integer over 10^k where that is exact.
    pub scale: Option<u8>,
}

/// The CRC-32 of a schema's bytes. Unique enough within one device, which is how it is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchemaId(pub u32);

impl fmt::Display for SchemaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// Why metrics are no schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// None, or more than [`METRICS_MAX`].
    #[error("a schema has 1 to {METRICS_MAX} metrics")]
    Count,
    /// A name is empty or too long, or stands twice.
    #[error("a metric's name has 1 to {METRIC_NAME_BYTES_MAX} bytes and stands once")]
    Name,
    /// More decimals than stay exact.
    #[error("a scale is at most {SCALE_MAX}")]
    Scale,
    /// A tick of no length.
    #[error("a tick is at least 1 ns")]
    Tick,
}

/// The metrics of a sensor in their order. Invariant: 1 to [`METRICS_MAX`] metrics, each name once, scales exact.
#[derive(Clone, Copy, Debug)]
pub struct Schema<'a> {
    tick_ns: u32,
    metrics: &'a [Metric<'a>],
    id: SchemaId,
}

impl<'a> Schema<'a> {
    /// Checks the metrics and works out the id. `tick_ns`: length of one tick of a sample's time, in nanoseconds.
    ///
    /// # Errors
    /// [`SchemaError`] says what is wrong.
    pub fn new(tick_ns: u32, metrics: &'a [Metric<'a>]) -> Result<Self, SchemaError> {
        check(tick_ns, metrics.iter().copied())?;
        let mut bytes = [0u8; SCHEMA_BYTES_MAX];
        let mut writer = Writer::new(&mut bytes);
        // The bounds just checked leave room for every name.
        write_schema(&mut writer, tick_ns, metrics).map_err(|Full| SchemaError::Count)?;
        let id = SchemaId(crate::crc32(writer.written()));
        Ok(Self { tick_ns, metrics, id })
    }

    /// Length of a tick, in nanoseconds.
    #[must_use]
    pub fn tick_ns(&self) -> u32 {
        self.tick_ns
    }

    /// The metrics in order.
    #[must_use]
    pub fn metrics(&self) -> &'a [Metric<'a>] {
        self.metrics
    }

    /// The id that batches name it by.
    #[must_use]
    pub fn id(&self) -> SchemaId {
        self.id
    }

    pub(super) fn write(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        write_schema(writer, self.tick_ns, self.metrics)
    }
}

pub(super) fn check<'m>(
    tick_ns: u32,
    metrics: impl Iterator<Item = Metric<'m>> + Clone,
) -> Result<(), SchemaError> {
    if tick_ns == 0 {
        return Err(SchemaError::Tick);
    }
    let mut count = 0usize;
    for metric in metrics.clone() {
        let twice = metrics.clone().take(count).any(|before| before.name == metric.name);
        count += 1;
        if metric.name.is_empty() || metric.name.len() > METRIC_NAME_BYTES_MAX || twice {
            return Err(SchemaError::Name);
        }
        if metric.scale.is_some_and(|scale| scale > SCALE_MAX) {
            return Err(SchemaError::Scale);
        }
        if count > METRICS_MAX {
            return Err(SchemaError::Count);
        }
    }
    if count == 0 { Err(SchemaError::Count) } else { Ok(()) }
}

fn write_schema(writer: &mut Writer<'_>, tick_ns: u32, metrics: &[Metric<'_>]) -> Result<(), Full> {
    writer.array(u16::try_from(1 + 2 * metrics.len()).map_err(|_| Full)?)?;
    writer.u64(u64::from(tick_ns))?;
    for metric in metrics {
        writer.str(metric.name)?;
        match metric.scale {
            None => writer.nil()?,
            Some(scale) => writer.u64(u64::from(scale))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_that_are_no_schema_are_refused_by_reason() {
        let metric = |name, scale| Metric { name, scale };
        let long = core::str::from_utf8(&[b'x'; METRIC_NAME_BYTES_MAX + 1]).unwrap();
        let many = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q"]
            .map(|name| metric(name, None));
        assert_eq!(Schema::new(1, &[]).unwrap_err(), SchemaError::Count);
        assert_eq!(Schema::new(1, &many).unwrap_err(), SchemaError::Count);
        assert_eq!(Schema::new(0, &[metric("a", None)]).unwrap_err(), SchemaError::Tick);
        assert_eq!(Schema::new(1, &[metric("a", Some(16))]).unwrap_err(), SchemaError::Scale);
        assert_eq!(Schema::new(1, &[metric("", None)]).unwrap_err(), SchemaError::Name);
        assert_eq!(Schema::new(1, &[metric(long, None)]).unwrap_err(), SchemaError::Name);
        assert_eq!(
            Schema::new(1, &[metric("a", None), metric("a", Some(1))]).unwrap_err(),
            SchemaError::Name
        );
    }

    #[test]
    fn every_part_of_a_schema_changes_its_id() {
        let id = |tick_ns, name, scale| Schema::new(tick_ns, &[Metric { name, scale }]).unwrap().id();
        let one = id(1, "a", None);
        assert_eq!(one, id(1, "a", None));
        assert!([id(2, "a", None), id(1, "b", None), id(1, "a", Some(0))].iter().all(|other| *other != one));
    }

    #[test]
    fn the_largest_schema_fits_its_room() {
        let names: [[u8; METRIC_NAME_BYTES_MAX]; METRICS_MAX] =
            core::array::from_fn(|i| [b'a' + u8::try_from(i).unwrap(); METRIC_NAME_BYTES_MAX]);
        let metrics: [Metric<'_>; METRICS_MAX] = core::array::from_fn(|i| Metric {
            name: core::str::from_utf8(&names[i]).unwrap(),
            scale: Some(SCALE_MAX),
        });
        assert!(Schema::new(u32::MAX, &metrics).is_ok());
    }
}
