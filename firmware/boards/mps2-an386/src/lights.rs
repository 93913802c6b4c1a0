//! The board's lights: eight that commands switch as outputs, and two that blink to show a person which board this is. All are dark after
//! a restart.

use tidelog_firmware::Refusal;
use tidelog_firmware::lowpan::time::{Duration, Instant};

use crate::hardware::{self, OUTPUTS};

/// How long the two lights stay as they are; they take turns.
const BLINK_MS: i64 = 500;

/// The lights.
#[derive(Debug)]
pub struct Lights {
    shown_until: Option<Instant>,
}

impl Lights {
    /// All dark.
    pub fn new() -> Self {
        Self { shown_until: None }
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
        self.shown_until = Some(now + Duration::from_secs(u64::from(seconds)));
    }

    /// Blinks if it is to; call it at least as often as it blinks.
    pub fn blink(&mut self, now: Instant) {
        let Some(until) = self.shown_until else { return };
        let shown = now < until;
        let first = now.total_millis() / BLINK_MS % 2 == 0;
        hardware::show(shown && first, shown && !first);
        self.shown_until = self.shown_until.filter(|_| shown);
    }
}
