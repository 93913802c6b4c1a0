//! The board's hands: a sampler that says on the console what it sensed, before it is stored, and the lights. What the flash then holds can be
//! compared with what was said.

use core::fmt;

use tidelog_firmware::lowpan::time::{Duration, Instant};
use tidelog_firmware::uplink::{Reading, Sample};
use tidelog_firmware::{Moment, Refusal, Sampler};

use crate::METRICS;
use crate::hardware;
use crate::lights::Lights;
use crate::say;

/// A sampler, overheard, and the lights.
#[derive(Debug)]
pub struct Told<S> {
    /// What it senses with.
    pub sampler: S,
    /// What it switches.
    pub lights: Lights,
}

impl<S: Sampler> Sampler for Told<S> {
    fn due(&self) -> Option<Instant> {
        self.sampler.due()
    }

    fn sample(&mut self, moment: Moment) -> Option<Sample> {
        self.sampler.sample(moment).inspect(|sample| tell(moment, sample))
    }

    fn needs_time(&self) -> bool {
        self.sampler.needs_time()
    }

    fn time_is_known(&mut self) {
        self.sampler.time_is_known();
    }

    fn read(&mut self, moment: Moment) -> Result<Sample, Refusal> {
        self.sampler.read(moment).inspect(|sample| tell(moment, sample))
    }

    fn every(&mut self, now: Instant, interval: Duration) -> Result<(), Refusal> {
        say!("a sample each {} ms", interval.total_millis());
        self.sampler.every(now, interval)
    }

    fn switch(&mut self, output: u8, on: bool) -> Result<(), Refusal> {
        self.lights.switch(output, on)?;
        say!("outputs: {:#04x}", hardware::outputs());
        Ok(())
    }

    fn identify(&mut self, now: Instant, seconds: u8) -> Result<(), Refusal> {
        say!("here, for {seconds} s");
        self.lights.identify(now, seconds);
        Ok(())
    }

    fn can_reboot(&self) -> bool {
        true
    }
}

/// A value in whole parts of its unit, or the word that there is none.
#[derive(Clone, Copy)]
struct Parts(Option<i32>);

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(parts) => write!(f, "{parts}"),
            None => f.write_str("none"),
        }
    }
}

/// Whole numbers are short to print: hundredths of a degree, of a percent and of a lux, and millivolts.
const PARTS: [f64; METRICS.len()] = [100.0, 100.0, 100.0, 1000.0];

fn tell(moment: Moment, sample: &Sample) {
    let mut parts = [Parts(None); METRICS.len()];
    for ((parts, value), of) in parts.iter_mut().zip(sample.values).zip(PARTS) {
        *parts = Parts(whole(value, of));
    }
    let [temperature, humidity, light, battery] = parts;
    say!("sensed {} at {} ms: {temperature} {humidity} {light} {battery}", moment.seq, sample.ticks);
}

#[expect(clippy::cast_possible_truncation, reason = "no chip shows more than 83,865.60")]
fn whole(value: Option<Reading>, of: f64) -> Option<i32> {
    match value {
        Some(Reading::F64(value)) => Some((value * of + if value < 0.0 { -0.5 } else { 0.5 }) as i32),
        _ => None,
    }
}
