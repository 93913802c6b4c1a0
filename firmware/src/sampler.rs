//! Where samples come from: the trait that a board's sensors, or a replay of a file, stand behind.

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

/// Gives samples when they are due.
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
}

impl<S: Sensor> Sampler for Every<S> {
    fn due(&self) -> Option<Instant> {
        Some(self.next)
    }

    fn sample(&mut self, moment: Moment) -> Option<Sample> {
        // A moment that was slept through is not made up for.
        self.next = (self.next + self.interval).max(moment.now);
        let ticks = moment.unix_ms?;
        let mut values = [None; METRICS_MAX];
        self.sensor.read(&mut values);
        values.iter().any(Option::is_some).then_some(Sample { ticks, values })
    }

    fn needs_time(&self) -> bool {
        true
    }
}
