//! Writing a batch on the sensor: sample by sample until the datagram is full.

use super::sample::{Sample, write_value};
use super::schema::{Schema, SchemaId};
use super::{METRICS_MAX, VERSION};
use crate::device::DeviceId;
use crate::msgpack::{Full, Writer};

/// Most bytes that a batch has before its first sample.
pub const BATCH_HEAD_BYTES_MAX: usize = 1 + 1 + 10 + 5 + 9 + 5 + 9 + 3;

/// What a batch says before its samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHead {
    /// The sensor.
    pub device: DeviceId,
    /// The life of its flash log.
    pub epoch: u32,
    /// Sequence number of the first sample; the others follow without a gap.
    pub first_seq: u64,
    /// What the values mean.
    pub schema: SchemaId,
    /// What the first sample's time is a difference to, in ticks.
    pub base_ticks: i64,
}

/// The time of samples as second differences.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    ticks: i64,
    step: i64,
}

impl Clock {
    pub fn new(base_ticks: i64) -> Self {
        Self { ticks: base_ticks, step: 0 }
    }

    /// What is written for `ticks`.
    pub fn difference(&mut self, ticks: i64) -> i64 {
        let step = ticks.wrapping_sub(self.ticks);
        let difference = step.wrapping_sub(self.step);
        *self = Self { ticks, step };
        difference
    }

    #[cfg(feature = "alloc")]
    /// The ticks for which `difference` was written.
    pub fn advance(&mut self, difference: i64) -> i64 {
        self.step = self.step.wrapping_add(difference);
        self.ticks = self.ticks.wrapping_add(self.step);
        self.ticks
    }
}

/// A batch being written into a borrowed buffer.
#[derive(Debug)]
pub struct BatchEncoder<'a> {
    writer: Writer<'a>,
    schema: Schema<'a>,
    count_at: usize,
    count: u16,
    clock: Clock,
    before: [i64; METRICS_MAX],
}

impl<'a> BatchEncoder<'a> {
    /// Starts a batch whose base is the first sample's time.
    ///
    /// # Errors
    /// [`Full`] when `out` has no room for the head; [`BATCH_HEAD_BYTES_MAX`] always suffices.
    pub fn new(
        out: &'a mut [u8],
        device: DeviceId,
        epoch: u32,
        first_seq: u64,
        schema: Schema<'a>,
        base_ticks: i64,
    ) -> Result<Self, Full> {
        let mut writer = Writer::new(out);
        writer.array(7)?;
        writer.u64(VERSION)?;
        writer.bin(&device.0)?;
        writer.u64(u64::from(epoch))?;
        writer.u64(first_seq)?;
        writer.u64(u64::from(schema.id().0))?;
        writer.i64(base_ticks)?;
        let count_at = writer.length() + 1;
        writer.array_wide(0)?;
        Ok(Self {
            writer,
            schema,
            count_at,
            count: 0,
            clock: Clock::new(base_ticks),
            before: [0; METRICS_MAX],
        })
    }

    /// Adds the next sample.
    ///
    /// # Errors
    /// [`Full`] when it does not fit; the batch is as it was, and can be finished.
    pub fn push(&mut self, sample: &Sample) -> Result<(), Full> {
        let (length, clock, before) = (self.writer.length(), self.clock, self.before);
        self.try_push(sample).inspect_err(|_| {
            self.writer.truncate(length);
            self.clock = clock;
            self.before = before;
        })
    }

    fn try_push(&mut self, sample: &Sample) -> Result<(), Full> {
        let metrics = self.schema.metrics();
        let elements = u16::try_from(1 + metrics.len()).map_err(|_| Full)?;
        let count = self.count.checked_add(elements).ok_or(Full)?;
        self.writer.i64(self.clock.difference(sample.ticks))?;
        for ((metric, value), before) in metrics.iter().zip(&sample.values).zip(&mut self.before) {
            write_value(&mut self.writer, *value, metric.scale, before)?;
        }
        self.writer.overwrite(self.count_at, &count.to_be_bytes())?;
        self.count = count;
        Ok(())
    }

    /// Bytes written so far.
    #[must_use]
    pub fn length(&self) -> usize {
        self.writer.length()
    }
}

/// Longest version of a sensor's program, in bytes.
pub const FIRMWARE_BYTES_MAX: usize = 32;

/// Writes what a sensor posts when a gateway does not know its schema, with the version of its program; returns the length.
///
/// # Errors
/// [`Full`] when `out` is too short; [`super::SCHEMA_BYTES_MAX`], [`FIRMWARE_BYTES_MAX`] and 14 bytes always suffice. Also for a longer version.
pub fn encode_registration(
    out: &mut [u8],
    device: DeviceId,
    schema: &Schema<'_>,
    firmware: &str,
) -> Result<usize, Full> {
    if firmware.len() > FIRMWARE_BYTES_MAX {
        return Err(Full);
    }
    let mut writer = Writer::new(out);
    writer.array(4)?;
    writer.u64(VERSION)?;
    writer.bin(&device.0)?;
    schema.write(&mut writer)?;
    writer.str(firmware)?;
    Ok(writer.length())
}
