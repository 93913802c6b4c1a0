//! The board's clock, microseconds since the start, and its sleep. Both are RTC1's, whose crystal ticks 32,768 times a second also while the
//! processor sleeps; the driver counts what its 24 bits cannot.

use core::task::Waker;

use cortex_m::asm::wfe;
use embedded_hal::delay::DelayNs;
use tidelog_firmware::lowpan::time::{Duration, Instant};

/// The time.
pub fn now() -> Instant {
    Instant::from_micros(i64::try_from(embassy_time::Instant::now().as_micros()).unwrap_or(i64::MAX))
}

/// Sleeps until an interrupt comes, of the radio or another, but not beyond `at`. One that came since the last sleep ends this one at once,
/// so nothing is slept through that came after the caller last looked.
pub fn sleep(at: Instant) {
    let micros = u64::try_from(at.total_micros()).unwrap_or(0);
    // The tick behind the moment: at the one before, the clock would still say that it is not there.
    embassy_time_driver::schedule_wake(
        embassy_time::Instant::from_micros(micros).as_ticks() + 1,
        Waker::noop(),
    );
    // A moment that passed meanwhile wakes nobody.
    if now() < at {
        wfe();
    }
}

/// Waits asleep.
#[derive(Debug, Clone, Copy)]
pub struct Wait;

impl DelayNs for Wait {
    fn delay_ns(&mut self, ns: u32) {
        let until = now() + Duration::from_micros(u64::from(ns.div_ceil(1_000)));
        while now() < until {
            sleep(until);
        }
    }
}
