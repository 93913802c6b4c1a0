//! The board's hands: eight lights that commands switch as outputs, two that blink to show a person which board this is, all dark after a restart; and
//! the console, which says what was sensed and done.

use tidelog_firmware::lowpan::time::{Duration, Instant};
use tidelog_firmware::uplink::Sample;
use tidelog_firmware::{Blink, Hands, Moment, Parts, Refusal};

use crate::hardware::{self, OUTPUTS};
use crate::{METRICS, say};

/// The lights.
#[derive(Debug, Default)]
pub struct Lights {
    shown: Blink,
}

impl Lights {
    /// Blinks if it is to, the two in turn; call it at least as often as it blinks.
    pub fn blink(&mut self, now: Instant) {
        let lit = self.shown.lit(now);
        hardware::show(lit == Some(true), lit == Some(false));
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
        if output >= OUTPUTS {
            return Err(Refusal::Failed);
        }
        hardware::switch_output(output, on);
        say!("outputs: {:#04x}", hardware::outputs());
        Ok(())
    }

    fn identify(&mut self, now: Instant, seconds: u8) {
        say!("here, for {seconds} s");
        self.shown.start(now, seconds);
    }
}
