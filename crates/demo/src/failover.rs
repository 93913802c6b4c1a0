//! How long sensors are without a gateway when theirs is killed for good: when to kill it, when to start it again, and what each of its
//! sensors waited in between. It is told times and counts; the field carries out what it decides.

use std::time::{Duration, Instant};

use serde::Serialize;

/// The gateway that is killed.
pub const KILLED: usize = 0;
/// How long its sensors may take to find the other one until it is started again all the same.
const DOWN_MAX: Duration = Duration::from_secs(60);

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Kill -9 the gateway.
    Kill,
    /// Start it again.
    Start,
}

/// A sensor of the killed gateway.
#[derive(Clone, Debug)]
struct Waiting {
    sensor: usize,
    /// Its acknowledged samples when the gateway was killed.
    acknowledged: u64,
    /// From the kill until more of them were.
    outage: Option<Duration>,
}

#[derive(Debug)]
enum State {
    /// Until half of all readings are acknowledged.
    Before,
    Down {
        since: Instant,
        waiting: Vec<Waiting>,
    },
    Over(Outages),
}

/// One gateway's death.
#[derive(Debug)]
pub struct Failover {
    sensors: Vec<usize>,
    state: State,
}

/// How long sensors were without a gateway: from the kill until another one had acknowledged a sample that was not acknowledged before.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outages {
    /// Sensors whose gateway was killed while they had readings to send.
    pub sensors: usize,
    /// Of them, those that found no other one before it was started again.
    pub stranded: usize,
    /// Half of the others took at most so long, in seconds.
    pub p50_s: f64,
    /// The slowest of them took so long, in seconds.
    pub max_s: f64,
}

impl Failover {
    /// Nothing has happened yet; `sensors` are those whose gateway is to be killed.
    #[must_use]
    pub fn new(sensors: Vec<usize>) -> Self {
        Self { sensors, state: State::Before }
    }

    /// Told how many samples of each sensor are acknowledged, of how many, and whether that is half of all. What it says is to be done at
    /// once.
    pub fn go_on(&mut self, now: Instant, acknowledged: &[(u64, u64)], is_half: bool) -> Option<Step> {
        let standing = |sensor: usize| acknowledged.get(sensor).copied().unwrap_or_default();
        let of = |sensor: usize| standing(sensor).0;
        match &mut self.state {
            State::Before if is_half => {
                let waiting =
                    |sensor: &usize| Waiting { sensor: *sensor, acknowledged: of(*sensor), outage: None };
                // One that has sent all of its readings waits for nobody.
                let sending = |sensor: &&usize| of(**sensor) < standing(**sensor).1;
                let waiting = self.sensors.iter().filter(sending).map(waiting).collect();
                self.state = State::Down { since: now, waiting };
                Some(Step::Kill)
            }
            State::Down { since, waiting } => {
                let down = now.duration_since(*since);
                for one in waiting.iter_mut().filter(|one| one.outage.is_none()) {
                    one.outage = (of(one.sensor) > one.acknowledged).then_some(down);
                }
                if down < DOWN_MAX && waiting.iter().any(|one| one.outage.is_none()) {
                    return None;
                }
                self.state = State::Over(Outages::of(waiting));
                Some(Step::Start)
            }
            State::Before | State::Over(_) => None,
        }
    }

    /// What it came to; none if it is not over.
    #[must_use]
    pub fn outages(&self) -> Option<&Outages> {
        match &self.state {
            State::Over(outages) => Some(outages),
            State::Before | State::Down { .. } => None,
        }
    }
}

impl Outages {
    fn of(waiting: &[Waiting]) -> Self {
        let mut known: Vec<Duration> = waiting.iter().filter_map(|one| one.outage).collect();
        known.sort_unstable();
        let seconds = |outage: Option<&Duration>| outage.map_or(0.0, |outage| rounded(outage.as_secs_f64()));
        Self {
            sensors: waiting.len(),
            stranded: waiting.len() - known.len(),
            p50_s: seconds(known.get(known.len().saturating_sub(1) / 2)),
            max_s: seconds(known.last()),
        }
    }
}

fn rounded(seconds: f64) -> f64 {
    (seconds * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_dies_half_way_and_comes_back_when_each_of_its_sensors_has_found_the_other() {
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let mut failover = Failover::new(vec![0, 2, 4, 6]);
        let of_nine = |acknowledged: [u64; 7]| acknowledged.map(|samples| (samples, 9));
        assert_eq!(failover.go_on(at(0), &of_nine([1; 7]), false), None);
        assert_eq!(failover.go_on(at(1_000), &of_nine([5, 5, 5, 5, 6, 5, 9]), true), Some(Step::Kill));
        let others = of_nine([5, 9, 5, 9, 6, 9, 9]);
        assert_eq!(failover.go_on(at(1_050), &others, true), None, "others are no matter");
        assert_eq!(failover.go_on(at(2_500), &of_nine([6, 9, 5, 9, 6, 9, 9]), true), None);
        assert_eq!(failover.go_on(at(3_000), &of_nine([9, 9, 6, 9, 6, 9, 9]), true), None);
        assert!(failover.outages().is_none());
        assert_eq!(failover.go_on(at(5_000), &of_nine([9, 9, 9, 9, 7, 9, 9]), true), Some(Step::Start));
        let expected = Outages { sensors: 3, stranded: 0, p50_s: 2.0, max_s: 4.0 };
        assert_eq!(failover.outages(), Some(&expected));
        assert_eq!(failover.go_on(at(6_000), &of_nine([9; 7]), true), None, "once");
    }

    #[test]
    fn a_sensor_that_finds_no_other_gateway_is_told_and_waited_for_no_longer_than_the_bound() {
        let begin = Instant::now();
        let mut failover = Failover::new(vec![0, 1]);
        assert_eq!(failover.go_on(begin, &[(3, 9), (3, 9)], true), Some(Step::Kill));
        assert_eq!(failover.go_on(begin + Duration::from_secs(1), &[(4, 9), (3, 9)], true), None);
        assert_eq!(failover.go_on(begin + DOWN_MAX, &[(9, 9), (3, 9)], true), Some(Step::Start));
        let expected = Outages { sensors: 2, stranded: 1, p50_s: 1.0, max_s: 1.0 };
        assert_eq!(failover.outages(), Some(&expected));
    }
}
