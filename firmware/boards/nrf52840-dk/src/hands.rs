//! The board's hands: a sampler that says on the console what it sensed, before it is stored, and the lights. Three are the outputs that commands
//! switch, LED1 to LED3 as 0 to 2; the fourth blinks to show a person which board this is. All are dark after a restart.

use embassy_nrf::gpio::{Level, Output};
use tidelog_firmware::lowpan::time::{Duration, Instant};
use tidelog_firmware::uplink::Sample;
use tidelog_firmware::{Blink, Moment, Parts, Refusal, Sampler};

use crate::{METRICS, say};

/// A sampler, overheard, and the lights.
pub struct Hands<S> {
    /// What it senses with.
    pub sampler: S,
    /// What it switches. They are lit when their pin is low.
    pub outputs: [Output<'static>; 3],
    /// What it shows itself with.
    pub shown: Output<'static>,
    /// Whether it does.
    pub blink: Blink,
}

impl<S> Hands<S> {
    /// Blinks if it is to; when to be called again.
    pub fn show(&mut self, now: Instant) -> Option<Instant> {
        self.shown.set_level(Level::from(self.blink.lit(now) != Some(true)));
        self.blink.due(now)
    }
}

impl<S: Sampler> Sampler for Hands<S> {
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
        let light = self.outputs.get_mut(usize::from(output)).ok_or(Refusal::Failed)?;
        light.set_level(Level::from(!on));
        say!("output {output}: {}", u8::from(on));
        Ok(())
    }

    fn identify(&mut self, now: Instant, seconds: u8) -> Result<(), Refusal> {
        say!("here, for {seconds} s");
        self.blink.start(now, seconds);
        Ok(())
    }

    fn can_reboot(&self) -> bool {
        true
    }
}

fn tell(moment: Moment, sample: &Sample) {
    say!("sensed {} at {} ms: {}", moment.seq, sample.ticks, Parts(&METRICS, sample));
}
