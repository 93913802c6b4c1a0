//! Where samples come from: the trait that a board's sensors, or a replay of a file, stand behind; and what a board can be told
//! to do besides.

use heapless::Deque;
use tidelog_lowpan::time::{Duration, Instant};
use tidelog_record::uplink::{METRICS_MAX, Reading, SAMPLE_BYTES_MAX, Sample, Schema};

use crate::sensor::Sensor;

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

    /// A gateway has told the time for the first time since the start: what was sensed before can be placed.
    fn time_is_known(&mut self) {}

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

/// Bytes of readings that wait for the time: some eighty of four metrics. They are in memory only: whoever loses power before it ever knew the
/// time loses them.
const EARLY_BYTES_MAX: usize = 2048;

/// What a sensor showed.
type Values = [Option<Reading>; METRICS_MAX];

/// Samples in the order in which they were taken, the oldest first out; each with its length before it, as it would stand in flash.
#[derive(Debug, Default)]
struct Early(Deque<u8, EARLY_BYTES_MAX>);

impl Early {
    /// Keeps a sample, and gives up as many of the oldest as that takes; how many that were.
    fn push(&mut self, schema: &Schema<'_>, sample: &Sample) -> u32 {
        let mut bytes = [0; SAMPLE_BYTES_MAX];
        let stored = sample.store(schema, &mut bytes).ok().and_then(|length| bytes.get(..length));
        let Some((bytes, length)) = stored.and_then(|bytes| Some((bytes, u8::try_from(bytes.len()).ok()?)))
        else {
            return 1;
        };
        let mut forgotten = 0;
        while self.0.capacity() - self.0.len() <= bytes.len() {
            forgotten += u32::from(self.pop(schema).is_some());
        }
        // There is room now.
        for byte in core::iter::once(length).chain(bytes.iter().copied()) {
            self.0.push_back(byte).unwrap_or_default();
        }
        forgotten
    }

    fn pop(&mut self, schema: &Schema<'_>) -> Option<Sample> {
        let length = usize::from(self.0.pop_front()?);
        let mut bytes = [0; SAMPLE_BYTES_MAX];
        let bytes = bytes.get_mut(..length)?;
        for byte in bytes.iter_mut() {
            *byte = self.0.pop_front()?;
        }
        Sample::load(schema, bytes).ok()
    }
}

/// Reads a [`Sensor`] at an interval. Ticks are milliseconds: its schema has `tick_ns` 1,000,000.
///
/// What it reads before the time is known waits for it, and then gets the time at which it was read, once and for ever, before it is stored.
#[derive(Debug)]
pub struct Every<'a, S> {
    sensor: S,
    schema: Schema<'a>,
    interval: Duration,
    next: Instant,
    /// Their ticks are milliseconds of the board's clock.
    early: Early,
    /// Readings for which there was no room among these.
    forgotten: u32,
    time_is_known: bool,
}

impl<'a, S: Sensor> Every<'a, S> {
    /// The first reading is due at `start`.
    pub fn new(sensor: S, schema: Schema<'a>, interval: Duration, start: Instant) -> Self {
        Self {
            sensor,
            schema,
            interval,
            next: start,
            early: Early::default(),
            forgotten: 0,
            time_is_known: false,
        }
    }

    /// Readings that were given up, the oldest first, because too many waited for the time.
    pub fn forgotten(&self) -> u32 {
        self.forgotten
    }

    fn sense(&mut self) -> Option<Values> {
        const { assert!(S::VALUES <= METRICS_MAX, "a schema has no room for so many values") };
        let mut values = [None; METRICS_MAX];
        self.sensor.read(values.get_mut(..S::VALUES)?);
        values.iter().any(Option::is_some).then_some(values)
    }

    /// A moment that was slept through is not made up for.
    fn advance(&mut self, now: Instant) {
        self.next = (self.next + self.interval).max(now);
    }

    fn keep_until_the_time_is_known(&mut self, now: Instant) {
        if let Some(values) = self.sense() {
            let sample = Sample { ticks: now.total_millis(), values };
            self.forgotten = self.forgotten.saturating_add(self.early.push(&self.schema, &sample));
        }
    }
}

impl<S: Sensor> Sampler for Every<'_, S> {
    fn due(&self) -> Option<Instant> {
        let placed = self.time_is_known && !self.early.0.is_empty();
        Some(if placed { Instant::ZERO } else { self.next })
    }

    fn sample(&mut self, moment: Moment) -> Option<Sample> {
        let Some(unix_ms) = moment.unix_ms else {
            self.advance(moment.now);
            self.keep_until_the_time_is_known(moment.now);
            return None;
        };
        if let Some(early) = self.early.pop(&self.schema) {
            let ago_ms = moment.now.total_millis().saturating_sub(early.ticks);
            return Some(Sample { ticks: unix_ms.saturating_sub(ago_ms), ..early });
        }
        self.advance(moment.now);
        Some(Sample { ticks: unix_ms, values: self.sense()? })
    }

    fn needs_time(&self) -> bool {
        true
    }

    fn time_is_known(&mut self) {
        self.time_is_known = true;
    }

    fn read(&mut self, moment: Moment) -> Result<Sample, Refusal> {
        let ticks = moment.unix_ms.ok_or(Refusal::Failed)?;
        // One that is due at this moment is this one.
        if self.next <= moment.now {
            self.advance(moment.now);
        }
        Ok(Sample { ticks, values: self.sense().ok_or(Refusal::Failed)? })
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
    use tidelog_record::uplink::Metric;

    struct Thermometer {
        works: bool,
    }

    impl Sensor for Thermometer {
        const VALUES: usize = 1;

        fn read(&mut self, values: &mut [Option<Reading>]) {
            values[0] = self.works.then_some(Reading::I64(20));
        }
    }

    fn moment(second: i64) -> Moment {
        Moment { now: Instant::from_secs(second), unix_ms: Some(second * 1000), seq: 1 }
    }

    const METRIC: [Metric<'static>; 1] = [Metric { name: "shown", scale: None }];

    fn every<S: Sensor>(sensor: S) -> Every<'static, S> {
        let schema = Schema::new(1_000_000, &METRIC).unwrap();
        Every::new(sensor, schema, Duration::from_secs(10), Instant::from_secs(10))
    }

    fn every_ten_seconds(works: bool) -> Every<'static, Thermometer> {
        every(Thermometer { works })
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

    /// Reads how often it was read.
    #[derive(Default)]
    struct Counter(i64);

    impl Sensor for Counter {
        const VALUES: usize = 1;

        fn read(&mut self, values: &mut [Option<Reading>]) {
            self.0 += 1;
            values[0] = Some(Reading::I64(self.0));
        }
    }

    #[test]
    fn what_is_read_before_the_time_is_known_gets_the_time_at_which_it_was_read_and_comes_first() {
        // A reading takes twelve bytes here, once the clock counts in the ten thousands.
        for early in [1, 3, 100, 400] {
            let mut sampler = every(Counter::default());
            let unknown = |second| Moment { unix_ms: None, ..moment(second) };
            for n in 1..=early {
                assert_eq!(sampler.due(), Some(Instant::from_secs(10 * n)));
                assert_eq!(sampler.sample(unknown(10 * n)), None);
                assert_eq!(sampler.due(), Some(Instant::from_secs(10 * n + 10)), "it waits for nobody");
            }
            sampler.time_is_known();
            let now = 10 * early + 5;
            let first = i64::from(sampler.forgotten()) + 1;
            assert!(
                if early > 200 { (early - 200..early - 100).contains(&first) } else { first == 1 },
                "{first}"
            );
            for n in first..=early {
                assert!(sampler.due() <= Some(Instant::from_secs(now)));
                let sample = sampler.sample(moment(now)).unwrap();
                assert_eq!((sample.ticks, sample.values[0]), (10_000 * n, Some(Reading::I64(n))));
            }
            assert_eq!(sampler.due(), Some(Instant::from_secs(10 * early + 10)));
            assert_eq!(
                sampler.sample(moment(10 * early + 10)).unwrap().values[0],
                Some(Reading::I64(early + 1))
            );
        }
    }

    #[test]
    fn a_reading_that_is_asked_for_is_not_one_that_waited_for_the_time() {
        let mut sampler = every(Counter::default());
        assert_eq!(sampler.sample(Moment { unix_ms: None, ..moment(10) }), None);
        sampler.time_is_known();
        let read = sampler.read(moment(12)).unwrap();
        assert_eq!((read.ticks, read.values[0]), (12_000, Some(Reading::I64(2))));
        assert_eq!(sampler.sample(moment(12)).map(|sample| sample.ticks), Some(10_000));
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
