//! The field that is written: devices with four metrics each, one sample of all of them each ten seconds. Everything
//! follows from the seed. It knows nothing of who takes the samples, and in what form.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Values in a sample: temperature, humidity, battery and light.
pub const POINTS_PER_SAMPLE: u64 = 4;

/// Seconds between a device's samples.
pub const STEP_S: u64 = 10;

/// When the first sample is taken, Unix seconds: 2025-12-01T00:00:00Z. Some of those who take samples refuse the future.
pub const START_S: u64 = 1_764_547_200;

/// Samples that come late are held back until as many have gathered.
const LATE_SAMPLES: usize = 20_000;

/// What one device measured at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    pub device: usize,
    /// Unix seconds.
    pub at: u64,
    /// Hundredths of a degree.
    pub temperature: i64,
    /// Tenths of a per cent.
    pub humidity: i64,
    /// Millivolts.
    pub battery: i64,
    /// Lux.
    pub light: i64,
}

struct Device {
    /// Hundredths of a degree.
    temperature: i64,
    /// Tenths of a per cent.
    humidity: i64,
    /// Millivolts.
    battery: i64,
    /// Lux; seldom anything.
    light: i64,
    lit_for: u32,
}

/// What is drawn, and how much of it.
pub struct Workload {
    dice: StdRng,
    devices: Vec<Device>,
    next: usize,
    sample: u64,
    left: u64,
    late: u32,
    twice: u32,
    held: Vec<Sample>,
}

impl Workload {
    pub fn new(devices: usize, points: u64, late: u32, twice: u32, seed: u64) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let device = |_| Device {
            temperature: dice.random_range(1_500..2_500),
            humidity: dice.random_range(300..700),
            battery: dice.random_range(3_300..3_600),
            light: 0,
            lit_for: 0,
        };
        let devices = (0..devices).map(device).collect();
        let left = points / POINTS_PER_SAMPLE;
        Self { dice, devices, next: 0, sample: 0, left, late, twice, held: Vec::new() }
    }

    /// The next `count` samples, or as many as are left; none when all were given out.
    pub fn batch(&mut self, count: usize) -> Vec<Sample> {
        let mut batch = Vec::with_capacity(count);
        while batch.len() < count {
            if self.held.len() >= LATE_SAMPLES || self.left == 0 {
                let Some(sample) = self.held.pop() else { break };
                batch.push(sample);
                continue;
            }
            let Some(sample) = self.sample() else { break };
            if self.percent(self.late) {
                self.held.push(sample);
                continue;
            }
            batch.push(sample);
            if self.percent(self.twice) {
                batch.push(sample);
            }
        }
        batch
    }

    fn percent(&mut self, percent: u32) -> bool {
        percent > 0 && self.dice.random_range(0..100) < percent
    }

    fn sample(&mut self) -> Option<Sample> {
        self.left -= 1;
        let (number, at) = (self.next, START_S + self.sample * STEP_S);
        self.next += 1;
        if self.next == self.devices.len() {
            (self.next, self.sample) = (0, self.sample + 1);
        }
        let (dice, device) = (&mut self.dice, self.devices.get_mut(number)?);
        device.temperature += dice.random_range(-2..=2);
        device.humidity = (device.humidity + dice.random_range(-1..=1)).clamp(0, 1_000);
        device.battery -= i64::from(dice.random_range(0..500) == 0);
        match (device.lit_for, dice.random_range(0..200)) {
            (0, 0) => {
                device.lit_for = dice.random_range(5..100);
                device.light = dice.random_range(50..2_000);
            }
            (0, _) => device.light = 0,
            _ => {
                device.lit_for -= 1;
                device.light = (device.light + dice.random_range(-20..=20)).max(1);
            }
        }
        let Device { temperature, humidity, battery, light, .. } = *device;
        Some(Sample { device: number, at, temperature, humidity, battery, light })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(late: u32, twice: u32) -> Vec<Sample> {
        let mut workload = Workload::new(10, 40_000, late, twice, 1);
        let batches = std::iter::from_fn(|| Some(workload.batch(500)).filter(|batch| !batch.is_empty()));
        batches.flatten().collect()
    }

    #[test]
    fn one_seed_is_one_field_and_lateness_loses_nothing() {
        let mut plain = all(0, 0);
        assert_eq!((plain.len(), &plain), (10_000, &all(0, 0)));
        let mut late = all(5, 0);
        assert_ne!(late[..5_000], plain[..5_000]);
        assert_eq!(late.len(), 10_000);
        assert!((10_050..10_200).contains(&all(0, 1).len()));
        // Late samples draw other dice, so only the names of what was sampled are compared.
        let name = |sample: &Sample| (sample.device, sample.at);
        plain.sort_by_key(name);
        late.sort_by_key(name);
        assert!(plain.iter().map(name).eq(late.iter().map(name)));
    }
}
