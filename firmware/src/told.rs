//! A board's hands: what commands switch and show, and a console that tells what was sensed, before it is stored, so that what the flash then holds can
//! be compared with what was said. Pins and consoles are the board's.

use tidelog_lowpan::time::{Duration, Instant};
use tidelog_record::uplink::Sample;

use crate::sampler::{Moment, Refusal, Sampler};

/// What a board switches and shows, and where it speaks.
pub trait Hands {
    /// A sample was taken, and is stored next.
    fn sensed(&mut self, moment: Moment, sample: &Sample);

    /// One is taken each `interval` from now on.
    fn every(&mut self, interval: Duration);

    /// Switches an output, by the board's own numbering.
    ///
    /// # Errors
    /// [`Refusal`]; then it is as before.
    fn switch(&mut self, output: u8, on: bool) -> Result<(), Refusal>;

    /// Shows for so many seconds which board this is; 0 ends it.
    fn identify(&mut self, now: Instant, seconds: u8);
}

/// A sampler with a board's hands. Whoever runs it starts the board anew when [`App::reboot_due`](crate::App::reboot_due) says so.
#[derive(Debug)]
pub struct Told<S, H> {
    /// What it senses with.
    pub sampler: S,
    /// The hands.
    pub hands: H,
}

impl<S: Sampler, H: Hands> Sampler for Told<S, H> {
    fn due(&self) -> Option<Instant> {
        self.sampler.due()
    }

    fn sample(&mut self, moment: Moment) -> Option<Sample> {
        self.sampler.sample(moment).inspect(|sample| self.hands.sensed(moment, sample))
    }

    fn needs_time(&self) -> bool {
        self.sampler.needs_time()
    }

    fn time_is_known(&mut self) {
        self.sampler.time_is_known();
    }

    fn read(&mut self, moment: Moment) -> Result<Sample, Refusal> {
        self.sampler.read(moment).inspect(|sample| self.hands.sensed(moment, sample))
    }

    fn every(&mut self, now: Instant, interval: Duration) -> Result<(), Refusal> {
        self.sampler.every(now, interval)?;
        self.hands.every(interval);
        Ok(())
    }

    fn switch(&mut self, output: u8, on: bool) -> Result<(), Refusal> {
        self.hands.switch(output, on)
    }

    fn identify(&mut self, now: Instant, seconds: u8) -> Result<(), Refusal> {
        self.hands.identify(now, seconds);
        Ok(())
    }

    fn can_reboot(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_record::uplink::METRICS_MAX;

    /// A sampler that takes an interval of a second and more.
    struct Steady;

    impl Sampler for Steady {
        fn due(&self) -> Option<Instant> {
            None
        }

        fn sample(&mut self, moment: Moment) -> Option<Sample> {
            moment.unix_ms.map(|ticks| Sample { ticks, values: [None; METRICS_MAX] })
        }

        fn every(&mut self, _now: Instant, interval: Duration) -> Result<(), Refusal> {
            if interval < Duration::from_secs(1) { Err(Refusal::Failed) } else { Ok(()) }
        }
    }

    #[derive(Debug, Default)]
    struct Heard {
        sensed: u32,
        intervals: u32,
    }

    impl Hands for Heard {
        fn sensed(&mut self, _moment: Moment, _sample: &Sample) {
            self.sensed += 1;
        }

        fn every(&mut self, _interval: Duration) {
            self.intervals += 1;
        }

        fn switch(&mut self, _output: u8, _on: bool) -> Result<(), Refusal> {
            Err(Refusal::Failed)
        }

        fn identify(&mut self, _now: Instant, _seconds: u8) {}
    }

    #[test]
    fn what_is_told_is_what_was_sensed_and_done_and_nothing_else() {
        let mut told = Told { sampler: Steady, hands: Heard::default() };
        let moment = Moment { now: Instant::ZERO, unix_ms: None, seq: 1 };
        assert_eq!((told.sample(moment), told.hands.sensed), (None, 0));
        assert!(told.sample(Moment { unix_ms: Some(7), ..moment }).is_some());
        assert_eq!(told.hands.sensed, 1);
        for (ms, taken, intervals) in [(999, false, 0), (1_000, true, 1)] {
            assert_eq!(told.every(Instant::ZERO, Duration::from_millis(ms)).is_ok(), taken);
            assert_eq!(told.hands.intervals, intervals);
        }
    }
}
