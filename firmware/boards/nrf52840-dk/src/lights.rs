//! The board's hands: three lights that commands switch as outputs, LED1 to LED3 as 0 to 2, and a fourth that blinks to show a person which board this
//! is, all dark after a restart; and the console, which says what was sensed and done.

use embassy_nrf::gpio::{Level, Output};
use tidelog_firmware::lowpan::time::{Duration, Instant};
use tidelog_firmware::uplink::Sample;
use tidelog_firmware::{Blink, Hands, Moment, Parts, Refusal};

use crate::{METRICS, say};

/// The lights. They are lit when their pin is low.
pub struct Lights {
    /// What commands switch.
    pub outputs: [Output<'static>; 3],
    /// What the board shows itself with.
    pub shown: Output<'static>,
    /// Whether it does.
    pub blink: Blink,
}

impl Lights {
    /// Blinks if it is to; when to be called again.
    pub fn show(&mut self, now: Instant) -> Option<Instant> {
        self.shown.set_level(Level::from(self.blink.lit(now) != Some(true)));
        self.blink.due(now)
    }
}

impl Hands for Lights {
    fn sensed(&mut self, moment: Moment, sample: &Sample) {
        say!("sensed {} at {} ms: {}", moment.seq, sample.ticks, Parts(&METRICS, sample));
    }

    fn every(&mut self, interval: Duration) {
        say!("a sample each {} ms", interval.total_millis());
    }

    fn switch(&mut self, output: u8, on: bool) -> Result<(), Refusal> {
        let light = self.outputs.get_mut(usize::from(output)).ok_or(Refusal::Failed)?;
        light.set_level(Level::from(!on));
        say!("output {output}: {}", u8::from(on));
        Ok(())
    }

    fn identify(&mut self, now: Instant, seconds: u8) {
        say!("here, for {seconds} s");
        self.blink.start(now, seconds);
    }
}
