//! A sampler that says on the console what it sensed, before it is stored: what the flash then holds can be compared with it.

use tidelog_firmware::lowpan::time::Instant;
use tidelog_firmware::uplink::{Reading, Sample};
use tidelog_firmware::{Moment, Sampler};

use crate::say;

/// A sampler, overheard.
#[derive(Debug)]
pub struct Told<S>(pub S);

impl<S: Sampler> Sampler for Told<S> {
    fn due(&self) -> Option<Instant> {
        self.0.due()
    }

    fn sample(&mut self, moment: Moment) -> Option<Sample> {
        let sample = self.0.sample(moment)?;
        let [temperature, humidity, ..] = sample.values.map(hundredths);
        say!("sensed {} at {} ms: {temperature} {humidity} hundredths", moment.seq, sample.ticks);
        Some(sample)
    }

    fn needs_time(&self) -> bool {
        self.0.needs_time()
    }
}

/// A value in hundredths, which are what the driver rounds to: whole numbers are short to print.
#[expect(clippy::cast_possible_truncation, reason = "the chip's range is -45 to 130")]
fn hundredths(value: Option<Reading>) -> i32 {
    match value {
        Some(Reading::F64(value)) => (value * 100.0 + if value < 0.0 { -0.5 } else { 0.5 }) as i32,
        _ => i32::MIN,
    }
}
