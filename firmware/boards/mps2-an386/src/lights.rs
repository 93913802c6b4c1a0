//! The board's lights: eight that commands switch as outputs, and two that blink to show a person which board this is. All are dark after
//! a restart.

use tidelog_firmware::lowpan::time::Instant;
use tidelog_firmware::{Blink, Refusal};

use crate::hardware::{self, OUTPUTS};

/// The lights.
#[derive(Debug)]
pub struct Lights {
    shown: Blink,
}

impl Lights {
    /// All dark.
    pub fn new() -> Self {
        Self { shown: Blink::default() }
    }

    /// Switches one of the eight.
    pub fn switch(&mut self, output: u8, on: bool) -> Result<(), Refusal> {
        if output >= OUTPUTS {
            return Err(Refusal::Failed);
        }
        hardware::switch_output(output, on);
        Ok(())
    }

    /// Blinks for so many seconds.
    pub fn identify(&mut self, now: Instant, seconds: u8) {
        self.shown.start(now, seconds);
    }

    /// Blinks if it is to, the two in turn; call it at least as often as it blinks.
    pub fn blink(&mut self, now: Instant) {
        let lit = self.shown.lit(now);
        hardware::show(lit == Some(true), lit == Some(false));
    }
}
