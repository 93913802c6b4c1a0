//! What the sensors of the simulated day measure: temperature, humidity, battery and light of each device, time and again. Everything
//! follows from the seed. It knows no store.

use std::error::Error;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tidelog_record::{BatchError, BodyHead, BodyWriter, Series, Values};

/// Series of a device.
pub const METRICS: [&str; 4] = ["env_temperature", "env_humidity", "env_battery", "env_light"];
/// 2025-12-01T00:00:00Z, Unix ns.
pub const START_NS: i64 = 1_764_547_200_000_000_000;
pub const SECOND_NS: i64 = 1_000_000_000;

#[derive(Clone, Copy)]
struct Device {
    /// Hundredths of a degree.
    temperature: i32,
    /// Tenths of a per cent.
    humidity: i32,
    /// Millivolts.
    battery: i32,
    /// Lux.
    light: i32,
    lit_for: u32,
}

/// All devices, second after second.
pub struct Field {
    dice: StdRng,
    devices: Vec<Device>,
    names: Vec<Vec<u8>>,
    /// Values of the record that is being gathered, series by series.
    gathered: Vec<Values>,
    /// Their times: devices are measured in turns, and those of one turn share them.
    times: Vec<Vec<i64>>,
    second: u64,
    points: u64,
}

impl Field {
    /// Devices enough for so many series, each measured once in `every` seconds.
    pub fn new(series: usize, every: usize) -> Result<Self, Box<dyn Error>> {
        let mut dice = StdRng::seed_from_u64(1);
        let count = series.div_ceil(METRICS.len());
        let mut names = Vec::new();
        for device in 0..count {
            for metric in METRICS {
                names.push(Series::new(metric, [("device", format!("d{device:04}"))])?.canonical());
            }
        }
        let device = |_| Device {
            temperature: dice.random_range(1_500..2_500),
            humidity: dice.random_range(300..700),
            battery: dice.random_range(3_300..3_600),
            light: 0,
            lit_for: 0,
        };
        let devices = (0..count).map(device).collect();
        let gathered = vec![Values::default(); names.len()];
        let times = vec![Vec::new(); every.max(1)];
        Ok(Self { dice, devices, names, gathered, times, second: 0, points: 0 })
    }

    pub fn series(&self) -> usize {
        self.names.len()
    }

    /// Points measured so far.
    pub fn points(&self) -> u64 {
        self.points
    }

    /// Points that a series has in the last `seconds`.
    pub fn points_of(&self, series: usize, seconds: u64) -> u64 {
        let every = self.times.len() as u64;
        let turn = (series / METRICS.len()) as u64 % every;
        let until = |second: u64| (second + every - 1 - turn) / every;
        until(self.second) - until(self.second.saturating_sub(seconds))
    }

    /// The time up to which it was measured, Unix ns.
    pub fn now_ns(&self) -> i64 {
        START_NS + (self.second.cast_signed() - 1) * SECOND_NS
    }

    /// The next second of the devices whose turn it is.
    pub fn measure(&mut self) {
        let every = self.times.len();
        let turn = usize::try_from(self.second).unwrap_or(0) % every;
        self.second += 1;
        let now = self.now_ns();
        if let Some(times) = self.times.get_mut(turn) {
            times.push(now);
        }
        let dice = &mut self.dice;
        let devices = self.devices.iter_mut().zip(self.gathered.chunks_mut(METRICS.len()));
        for (device, columns) in devices.skip(turn).step_by(every) {
            self.points += METRICS.len() as u64;
            let chance: u64 = dice.random();
            device.temperature += i32::try_from(chance % 5).unwrap_or(0) - 2;
            device.humidity =
                (device.humidity + i32::try_from((chance >> 8) % 3).unwrap_or(0) - 1).clamp(0, 1_000);
            device.battery -= i32::from((chance >> 16).is_multiple_of(5_000));
            match device.lit_for {
                0 if (chance >> 32).is_multiple_of(2_000) => {
                    device.lit_for = dice.random_range(50..1_000);
                    device.light = dice.random_range(50..2_000);
                }
                0 => device.light = 0,
                _ => {
                    device.lit_for -= 1;
                    device.light =
                        (device.light + i32::try_from((chance >> 40) % 41).unwrap_or(0) - 20).max(1);
                }
            }
            let values = [
                f64::from(device.temperature) / 100.0,
                f64::from(device.humidity) / 10.0,
                f64::from(device.battery),
                f64::from(device.light),
            ];
            for (column, value) in columns.iter_mut().zip(values) {
                column.push(tidelog_record::Value::F64(value));
            }
        }
    }

    /// Forgets what was measured since the last record.
    pub fn forget(&mut self) {
        self.gathered.iter_mut().for_each(Values::clear);
        self.times.iter_mut().for_each(Vec::clear);
    }

    /// Everything measured since the last record, as a body.
    pub fn record(&mut self) -> Result<Vec<u8>, BatchError> {
        let authored_ms = self.now_ns() / 1_000_000;
        let entries = self.gathered.iter().filter(|values| !values.is_empty()).count();
        let mut writer = BodyWriter::new(BodyHead { authored_ms, ..BodyHead::default() }, entries);
        let turns = (0..self.devices.len()).flat_map(|device| [device % self.times.len(); METRICS.len()]);
        for ((name, values), turn) in self.names.iter().zip(&self.gathered).zip(turns) {
            if let Some(times) = self.times.get(turn).filter(|_| !values.is_empty()) {
                writer.entry(name, times, values)?;
            }
        }
        self.forget();
        writer.finish()
    }
}
