//! The board's clock: microseconds since the start, from a timer of 32 bits that counts down and begins again every twelve hours. It never
//! steps back.

use tidelog_firmware::lowpan::time::Instant;

use crate::hardware::{self, CLOCK_DIVIDER, CORE_MHZ};

/// A difference beyond this is a count that went backwards.
const STEP_MAX: u32 = 1 << 31;

/// The clock. It must be asked at least once in the twelve hours that the timer takes.
#[derive(Debug)]
pub struct Clock {
    count: u32,
    ticks: u64,
}

impl Clock {
    /// Begins at zero.
    pub fn start() -> Self {
        Self { count: hardware::timer_count(), ticks: 0 }
    }

    /// The time.
    pub fn now(&mut self) -> Instant {
        let count = hardware::timer_count();
        let step = self.count.wrapping_sub(count);
        if step < STEP_MAX {
            self.ticks += u64::from(step);
            self.count = count;
        }
        Instant::from_micros(i64::try_from(self.ticks * CLOCK_DIVIDER / CORE_MHZ).unwrap_or(i64::MAX))
    }
}
