//! The field that is written: devices with four metrics each, one sample of all of them each ten seconds, as line protocol.
//! Everything follows from the seed. It knows nothing of who takes the lines.

use std::fmt::Write as _;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Values in a line: temperature, humidity, battery and light.
pub const POINTS_PER_LINE: u64 = 4;

/// Seconds between a device's samples.
const STEP_S: u64 = 10;

/// When the first sample is taken, Unix seconds: 2026-11-21T00:00:00Z.
const START_S: u64 = 1_795_219_200;

/// Lines that come late are held back until as many others have been sent, in lines.
const LATE_LINES: usize = 20_000;

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
    lines_left: u64,
    late_percent: u32,
    twice_percent: u32,
    held: Vec<String>,
}

impl Workload {
    pub fn new(devices: usize, points: u64, late_percent: u32, twice_percent: u32, seed: u64) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let device = |_| Device {
            temperature: dice.random_range(1_500..2_500),
            humidity: dice.random_range(300..700),
            battery: dice.random_range(3_300..3_600),
            light: 0,
            lit_for: 0,
        };
        let devices = (0..devices).map(device).collect();
        let lines_left = points / POINTS_PER_LINE;
        Self { dice, devices, next: 0, sample: 0, lines_left, late_percent, twice_percent, held: Vec::new() }
    }

    /// The next body of up to `lines` lines, and how many there are in it; `None` when all was given out.
    pub fn batch(&mut self, lines: usize) -> Option<(String, usize)> {
        let (mut body, mut count) = (String::new(), 0);
        while count < lines {
            if self.held.len() >= LATE_LINES || self.lines_left == 0 {
                let Some(line) = self.held.pop() else { break };
                body += &line;
                count += 1;
                continue;
            }
            let line = self.line();
            if self.percent(self.late_percent) {
                self.held.push(line);
                continue;
            }
            body += &line;
            count += 1;
            if self.percent(self.twice_percent) {
                body += &line;
                count += 1;
            }
        }
        (count > 0).then_some((body, count))
    }

    fn percent(&mut self, percent: u32) -> bool {
        percent > 0 && self.dice.random_range(0..100) < percent
    }

    fn line(&mut self) -> String {
        self.lines_left -= 1;
        let (number, at) = (self.next, START_S + self.sample * STEP_S);
        self.next += 1;
        if self.next == self.devices.len() {
            (self.next, self.sample) = (0, self.sample + 1);
        }
        let mut line = String::with_capacity(128);
        let (dice, Some(device)) = (&mut self.dice, self.devices.get_mut(number)) else { return line };
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
        let (temperature, humidity) = (device.temperature as f64 / 100.0, device.humidity as f64 / 10.0);
        let (battery, light) = (device.battery, device.light);
        // Writing to a text does not fail.
        writeln!(
            line,
            "env,device=d{number:04} temperature={temperature},humidity={humidity},battery={battery}i,light={light}i {at}"
        )
        .unwrap_or_default();
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(late: u32, twice: u32) -> Vec<String> {
        let mut workload = Workload::new(10, 40_000, late, twice, 1);
        let mut lines = Vec::new();
        while let Some((body, count)) = workload.batch(500) {
            assert_eq!(body.lines().count(), count);
            lines.extend(body.lines().map(str::to_owned));
        }
        lines
    }

    #[test]
    fn one_seed_is_one_field_and_lateness_loses_nothing() {
        let mut plain = all(0, 0);
        assert_eq!((plain.len(), &plain), (10_000, &all(0, 0)));
        let mut late = all(5, 0);
        assert_ne!(late[..5_000], plain[..5_000]);
        assert_eq!(late.len(), 10_000);
        assert!((10_050..10_200).contains(&all(0, 1).len()));
        // Late lines draw other dice, so only the names of what was sampled are compared.
        let name = |line: &String| {
            let mut words = line.split(' ');
            (words.next().map(str::to_owned), words.next_back().map(str::to_owned))
        };
        plain.sort_by_key(name);
        late.sort_by_key(name);
        assert!(plain.iter().map(name).eq(late.iter().map(name)));
    }
}
