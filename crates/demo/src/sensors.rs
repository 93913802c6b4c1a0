//! The virtual sensors of the field, each with its replay: the real firmware on simulated flash. It turns what the file
//! holds into what a sampler gives, and knows nothing of gateways but their addresses.

use std::net::SocketAddr;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tidelog_firmware::Gateways;
use tidelog_firmware::lowpan::NetworkKey;
use tidelog_record::uplink::{Reading, Sample};
use tidelog_record::{DeviceId, Value};
use tidelog_sim::sensor::{Cut, SensorOptions, VirtualSensor};
use tidelog_sim::sensor::{Feed, SensorError as VirtualSensorError};

use crate::feed::{self, METRICS_MAX, Replay};

/// Length of a tick: the data's times are whole milliseconds.
const TICK_NS: u32 = 1_000_000;
/// How far into its next writes a sensor's power may go.
const CUT_STEPS: std::ops::Range<u64> = 0..40;

/// A virtual sensor failed.
#[derive(Debug, thiserror::Error)]
#[error("sensor {device}: {source}")]
pub struct SensorError {
    device: DeviceId,
    source: VirtualSensorError,
}

/// All sensors of the field.
pub struct Sensors {
    sensors: Vec<VirtualSensor>,
    /// For each sensor, the readings in its first n samples, by n.
    readings: Vec<Vec<u64>>,
    dice: StdRng,
}

/// A file's samples as a sampler gives them.
struct Samples(Vec<feed::Sample>);

impl Feed for Samples {
    fn sample(&self, index: u64) -> Option<Sample> {
        let sample = self.0.get(usize::try_from(index).ok()?)?;
        let mut values = [None; METRICS_MAX];
        for (slot, value) in values.iter_mut().zip(&sample.values) {
            *slot = match value {
                Some(Value::F64(v)) => Some(Reading::F64(*v)),
                Some(Value::I64(v)) => Some(Reading::I64(*v)),
                Some(Value::Bool(v)) => Some(Reading::Bool(*v)),
                // The file's form has no texts.
                Some(Value::Text(_)) | None => None,
            };
        }
        Some(Sample { ticks: sample.time_ms, values })
    }
}

/// The gateway that a sensor speaks to while it answers.
fn primary_of(index: usize) -> usize {
    index % 2
}

fn readings_upto(replay: &Replay) -> Vec<u64> {
    let counts = replay.samples.iter().map(|sample| sample.values.iter().flatten().count() as u64);
    let sums = counts.scan(0, |sum, count| {
        *sum += count;
        Some(*sum)
    });
    std::iter::once(0).chain(sums).collect()
}

impl Sensors {
    /// Starts one sensor for each replay; every other one has the second gateway as its primary.
    ///
    /// # Errors
    /// [`SensorError`] names the sensor.
    pub async fn start(
        replays: &[Replay],
        gateways: &[DeviceId; 2],
        air: SocketAddr,
        key: Option<NetworkKey>,
        pace_hz: Option<f64>,
        seed: u64,
    ) -> Result<Self, SensorError> {
        let mut sensors = Vec::with_capacity(replays.len());
        for (index, replay) in replays.iter().enumerate() {
            let [first, second] = *gateways;
            let (primary, backup) = if primary_of(index) == 0 { (first, second) } else { (second, first) };
            let gateways = Gateways { primary, backup: Some(backup) };
            let options = SensorOptions {
                metrics: replay.metrics.iter().map(|m| (m.name.clone(), m.scale)).collect(),
                tick_ns: TICK_NS,
                pace_hz,
                key,
                ..SensorOptions::fast(replay.device, air, gateways, seed.wrapping_add(index as u64))
            };
            let started = VirtualSensor::start(options, Samples(replay.samples.clone())).await;
            sensors.push(started.map_err(|source| SensorError { device: replay.device, source })?);
        }
        Ok(Self {
            sensors,
            readings: replays.iter().map(readings_upto).collect(),
            dice: StdRng::seed_from_u64(seed),
        })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.sensors.len()
    }

    /// Readings in flash, of all sensors.
    #[must_use]
    pub fn sensed(&self) -> u64 {
        self.readings(VirtualSensor::sensed)
    }

    /// Readings that the sensors know to be stored by a gateway.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.readings(VirtualSensor::acknowledged)
    }

    /// Samples that each sensor knows to be stored by a gateway, and how many it has in all.
    #[must_use]
    pub fn acknowledged_each(&self) -> Vec<(u64, u64)> {
        let all = self.readings.iter().map(|upto| upto.len() as u64 - 1);
        self.sensors.iter().map(VirtualSensor::acknowledged).zip(all).collect()
    }

    /// The sensors that have this gateway as their primary.
    #[must_use]
    pub fn of_gateway(&self, gateway: usize) -> Vec<usize> {
        (0..self.sensors.len()).filter(|index| primary_of(*index) == gateway).collect()
    }

    fn readings(&self, samples: fn(&VirtualSensor) -> u64) -> u64 {
        let readings = self.sensors.iter().zip(&self.readings).map(|(sensor, upto)| {
            let samples = usize::try_from(samples(sensor)).unwrap_or(usize::MAX);
            upto.get(samples.min(upto.len() - 1)).copied().unwrap_or_default()
        });
        readings.sum()
    }

    /// Takes one sensor's power away, in the middle of a write where it can be arranged.
    ///
    /// # Errors
    /// [`SensorError`].
    pub async fn power_cut(&mut self, index: usize) -> Result<(), SensorError> {
        let cut = Cut::MidWrite { steps: self.dice.random_range(CUT_STEPS), seed: self.dice.random() };
        let sensor = &mut self.sensors[index];
        sensor.power_cut(cut).await.map_err(|source| SensorError { device: sensor.device(), source })
    }

    /// Gives the power back.
    ///
    /// # Errors
    /// [`SensorError`].
    pub async fn power_on(&mut self, index: usize) -> Result<(), SensorError> {
        let sensor = &mut self.sensors[index];
        sensor.restart().await.map_err(|source| SensorError { device: sensor.device(), source })
    }

    /// Stops all sensors.
    pub async fn end(&mut self) {
        for sensor in self.sensors.drain(..) {
            let device = sensor.device();
            if let Err(error) = sensor.stop().await {
                tracing::warn!(%device, %error, "the sensor did not stop cleanly");
            }
        }
    }
}
