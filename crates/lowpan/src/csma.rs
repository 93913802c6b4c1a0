//! When a frame may try to leave: unslotted CSMA-CA (802.15.4-2020 section 6.2.5.1), for radios that say whether the medium is clear and
//! leave the waiting to whoever drives them. It knows no radio and no clock: waits are answers.

use smoltcp::time::Duration;

use crate::random::Spread;

/// Twenty symbols of the 2.4 GHz PHY.
const BACKOFF_PERIOD: Duration = Duration::from_micros(320);
/// The first wait is up to 2^3 - 1 periods, and each time the medium is busy the next may be twice as long, up to 2^5 - 1.
const EXPONENT_MIN: u8 = 3;
const EXPONENT_MAX: u8 = 5;
/// Times that a frame finds the medium busy and waits again.
const BUSY_MAX: u8 = 4;

/// The waits of one station.
#[derive(Debug, Clone)]
pub(crate) struct Csma {
    spread: Spread,
    busy: u8,
}

impl Csma {
    /// `entropy` should differ between stations.
    pub(crate) const fn new(entropy: u64) -> Self {
        Self { spread: Spread::new(entropy), busy: 0 }
    }

    /// A frame is there: how long until it may look whether the medium is clear.
    pub(crate) fn begin(&mut self) -> Duration {
        self.busy = 0;
        self.wait()
    }

    /// The medium was not clear: how long until the frame may look again. `None`: it is given up, as if it had been lost.
    pub(crate) fn busy(&mut self) -> Option<Duration> {
        self.busy = self.busy.saturating_add(1);
        (self.busy <= BUSY_MAX).then(|| self.wait())
    }

    fn wait(&mut self) -> Duration {
        let exponent = EXPONENT_MIN.saturating_add(self.busy).min(EXPONENT_MAX);
        let periods = self.spread.up_to((1 << exponent) - 1);
        Duration::from_micros(periods * BACKOFF_PERIOD.total_micros())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    #[test]
    fn waits_grow_twice_and_a_frame_is_given_up_at_the_fifth_busy_medium() {
        let mut longest = [0u64; 5];
        let mut csma = Csma::new(1);
        for _ in 0..1_000 {
            let waits: Vec<Duration> =
                core::iter::once(csma.begin()).chain(core::iter::from_fn(|| csma.busy())).collect();
            assert_eq!(waits.len(), longest.len());
            for (longest, wait) in longest.iter_mut().zip(waits) {
                assert!(wait.total_micros().is_multiple_of(320));
                *longest = (*longest).max(wait.total_micros() / 320);
            }
        }
        assert_eq!(longest, [7, 15, 31, 31, 31]);
    }
}
