//! The board's hands: a sampler that says on the console what it sensed, before it is stored, and the lights. What the flash then holds can be
//! compared with what was said.

use tidelog_firmware::lowpan::time::{Duration, Instant};
use tidelog_firmware::uplink::Sample;
use tidelog_firmware::{Moment, Parts, Refusal, Sampler};

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

fn tell(moment: Moment, sample: &Sample) {
    say!("sensed {} at {} ms: {}", moment.seq, sample.ticks, Parts(&METRICS, sample));
}
