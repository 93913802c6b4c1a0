//! Where samples come from: the trait that a board's sensors, or a replay of a file, stand behind; and what a board can be told
//! to do besides.

use tidelog_lowpan::time::{Duration, Instant};
use tidelog_record::uplink::{METRICS_MAX, Reading, Sample};

/// The moment a sample is taken at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The board's clock.
    pub now: Instant,
    /// Unix time in milliseconds, once a gateway has told it.
    pub unix_ms: Option<i64>,
    /// The number that the sample will have. After a restart it continues where the flash ends.
    pub seq: u64,
}

/// Why a board does not do what it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It does not know how.
    #[error("this board does not know how")]
    Unsupported,
    /// It could not, this time or with these values.
    #[error("the board could not do it")]
    Failed,
}

/// Gives samples when they are due, and does what commands ask for: from [`read`](Self::read) on, whoever does not say otherwise
/// knows none of it.
pub trait Sampler {
    /// When it wants to be asked next; `None`: not any more.
    fn due(&self) -> Option<Instant>;

    /// Takes one sample. Afterwards [`due`](Self::due) tells of a later moment, or the sampler is asked again at once.
    /// `None`: nothing could be sensed now.
    fn sample(&mut self, moment: Moment) -> Option<Sample>;

    /// Whether it can sense nothing before the time is known, so that a gateway has to be asked for it.
    fn needs_time(&self) -> bool {
        false
    }

    /// Takes a sample now, whatever is due; what is due later stays due.
    ///
    /// # Errors
    /// [`Refusal`]; then nothing is stored.
    fn read(&mut self, _moment: Moment) -> Result<Sample, Refusal> {
        Err(Refusal::Unsupported)
    }

    /// Takes one sample each `interval` from now on. The application remembers it and says it again after a restart.
    ///
    /// # Errors
    /// [`Refusal`]; then it goes on as before.
    fn every(&mut self, _now: Instant, _interval: Duration) -> Result<(), Refusal> {
        Err(Refusal::Unsupported)
    }

    /// Switches an output, by the board's own numbering.
    ///
    /// # Errors
    /// [`Refusal`]; then it is as before.
    fn switch(&mut self, _output: u8, _on: bool) -> Result<(), Refusal> {
        Err(Refusal::Unsupported)
    }

    /// Shows a person for so many seconds which board this is; 0 ends it.
    ///
    /// # Errors
    /// [`Refusal`].
    fn identify(&mut self, _now: Instant, _seconds: u8) -> Result<(), Refusal> {
        Err(Refusal::Unsupported)
    }

    /// Whether whoever runs the application asks [`App::reboot_due`](crate::App::reboot_due) and starts the board anew then.
    fn can_reboot(&self) -> bool {
        false
    }
}

/// Something that shows values whenever it is read: one driver, or several behind one schema.
pub trait Sensor {
    /// Reads it; a value that can't be read stays `None`.
    fn read(&mut self, values: &mut [Option<Reading>; METRICS_MAX]);
}

/// Reads a [`Sensor`] at an interval. Ticks are milliseconds: its schema has `tick_ns` 1,000,000.
#[derive(Debug)]
pub struct Every<S> {
    sensor: S,
    interval: Duration,
    next: Instant,
}

impl<S: Sensor> Every<S> {
    /// The first reading is due at `start`.
    pub fn new(sensor: S, interval: Duration, start: Instant) -> Self {
        Self { sensor, interval, next: start }
    }

    fn sense(&mut self, moment: Moment) -> Option<Sample> {
        let ticks = moment.unix_ms?;
        let mut values = [None; METRICS_MAX];
        self.sensor.read(&mut values);
        values.iter().any(Option::is_some).then_some(Sample { ticks, values })
    }
}

impl<S: Sensor> Sampler for Every<S> {
    fn due(&self) -> Option<Instant> {
        Some(self.next)
    }

    fn sample(&mut self, moment: Moment) -> Option<Sample> {
        // A moment that was slept through is not made up for.
        self.next = (self.next + self.interval).max(moment.now);
        self.sense(moment)
    }

    fn needs_time(&self) -> bool {
        true
    }

    fn read(&mut self, moment: Moment) -> Result<Sample, Refusal> {
        // One that is due at this moment is this one.
        let sample = if self.next <= moment.now { self.sample(moment) } else { self.sense(moment) };
        sample.ok_or(Refusal::Failed)
    }

    fn every(&mut self, now: Instant, interval: Duration) -> Result<(), Refusal> {
        self.interval = interval;
        self.next = self.next.min(now + interval);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Thermometer {
        works: bool,
    }

    impl Sensor for Thermometer {
        fn read(&mut self, values: &mut [Option<Reading>; METRICS_MAX]) {
            values[0] = self.works.then_some(Reading::I64(20));
        }
    }

    fn moment(second: i64) -> Moment {
        Moment { now: Instant::from_secs(second), unix_ms: Some(second * 1000), seq: 1 }
    }

    fn every_ten_seconds(works: bool) -> Every<Thermometer> {
        Every::new(Thermometer { works }, Duration::from_secs(10), Instant::from_secs(10))
    }

    #[test]
    fn a_reading_that_is_asked_for_moves_none_that_is_due_later_and_is_the_one_that_is_due_now() {
        let mut sampler = every_ten_seconds(true);
        assert_eq!(sampler.read(moment(5)).map(|sample| sample.ticks), Ok(5_000));
        assert_eq!(sampler.due(), Some(Instant::from_secs(10)));
        assert_eq!(sampler.read(moment(11)).map(|sample| sample.ticks), Ok(11_000));
        assert_eq!(sampler.due(), Some(Instant::from_secs(20)));
        assert_eq!(every_ten_seconds(false).read(moment(5)), Err(Refusal::Failed));
    }

    #[test]
    fn another_interval_counts_from_now_on_and_delays_nothing_that_is_due_sooner() {
        let mut sampler = every_ten_seconds(true);
        for (seconds, due) in [(60, 10), (3, 4)] {
            assert_eq!(sampler.every(Instant::from_secs(1), Duration::from_secs(seconds)), Ok(()));
            assert_eq!(sampler.due(), Some(Instant::from_secs(due)));
        }
        assert!(sampler.sample(moment(4)).is_some());
        assert_eq!(sampler.due(), Some(Instant::from_secs(7)));
    }
}
