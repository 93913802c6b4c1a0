//! The naive judge: what the sensors sensed, as a plain map, against what anybody holds.
//!
//! It knows one rule only, invariant 8: of several values at one `(series, timestamp)` the greatest is the point. It
//! shares no code with the store, so that an error there cannot hide here.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;
use tidelog_record::{DeviceId, Lsn, NodeId, Run, Value};

use crate::feed::Replay;

const NS_PER_MS: i64 = 1_000_000;

/// A series of the field: which sensor, which metric.
type Series = (String, String);

/// Every point that the whole field must hold in the end.
pub struct Expected {
    points: HashMap<Series, BTreeMap<i64, Value>>,
    samples: HashMap<DeviceId, u64>,
    points_total: u64,
}

/// What is wrong with what somebody holds. All zero is right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Points held, each counted once.
    pub points: u64,
    /// Points that are missing.
    pub lost: u64,
    /// Points that are there more than once.
    pub duplicated: u64,
    /// Points with another value than was sensed.
    pub differing: u64,
    /// Points that nobody sensed.
    pub invented: u64,
}

impl Verdict {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.lost + self.duplicated + self.differing + self.invented == 0
    }
}

impl Expected {
    /// The points of all replays.
    #[must_use]
    pub fn of(replays: &[Replay]) -> Self {
        let mut points: HashMap<Series, BTreeMap<i64, Value>> = HashMap::new();
        let mut samples = HashMap::new();
        for replay in replays {
            samples.insert(replay.device, replay.samples.len() as u64);
            for sample in &replay.samples {
                for (metric, value) in replay.metrics.iter().zip(&sample.values) {
                    let Some(value) = value else { continue };
                    let series = points.entry((replay.device.to_string(), metric.name.clone())).or_default();
                    let point = series.entry(sample.time_ms * NS_PER_MS).or_insert_with(|| value.clone());
                    if *value > *point {
                        *point = value.clone();
                    }
                }
            }
        }
        let points_total = points.values().map(|series| series.len() as u64).sum();
        Self { points, samples, points_total }
    }

    /// Adds what a board sensed: the time of each sample in milliseconds, and its values by metric.
    pub fn add_board(&mut self, device: DeviceId, samples: Vec<(i64, Vec<(&'static str, Value)>)>) {
        self.samples.insert(device, samples.len() as u64);
        for (time_ms, values) in samples {
            for (metric, value) in values {
                let series = self.points.entry((device.to_string(), metric.to_owned())).or_default();
                let point = series.entry(time_ms * NS_PER_MS).or_insert_with(|| value.clone());
                if value > *point {
                    *point = value;
                }
            }
        }
        self.points_total = self.points.values().map(|series| series.len() as u64).sum();
    }

    /// Distinct points: fewer than readings where the data repeats a `(series, timestamp)`.
    #[must_use]
    pub fn points(&self) -> u64 {
        self.points_total
    }

    /// Compares what somebody holds, in any order, point by point.
    pub fn judge(&self, held: impl IntoIterator<Item = (String, String, i64, Value)>) -> Verdict {
        let mut verdict = Verdict::default();
        let mut seen: HashMap<Series, BTreeSet<i64>> = HashMap::new();
        for (device, metric, timestamp, value) in held {
            let series = (device, metric);
            match self.points.get(&series).and_then(|points| points.get(&timestamp)) {
                None => verdict.invented += 1,
                Some(_) if !seen.entry(series).or_default().insert(timestamp) => verdict.duplicated += 1,
                Some(sensed) => {
                    verdict.points += 1;
                    verdict.differing += u64::from(*sensed != value);
                }
            }
        }
        verdict.lost = self.points_total - verdict.points;
        verdict
    }
}

/// Author, run and LSN of a record, and the first point of the part that a message holds.
pub type RecordName = (NodeId, Run, Lsn, u64);

/// What came over MQTT, sample by sample: a sample's name is `(device, epoch, sequence number)`.
#[derive(Default)]
pub struct Subscriber {
    points: HashMap<Series, BTreeMap<i64, Value>>,
    samples: HashMap<DeviceId, BTreeSet<(u32, u64)>>,
    records: BTreeSet<RecordName>,
    tally: Tally,
}

/// What a subscriber counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Messages that came.
    pub messages: u64,
    /// Messages that are told by their own origin or sample numbers to be repeats (at-least-once).
    pub repeats: u64,
    /// Messages that nobody can read or place.
    pub unreadable: u64,
}

/// One message, as a subscriber reads it.
pub struct Message {
    /// Which record, and which part of it.
    pub record: RecordName,
    /// The sensor, its epoch, the first sample's number and how many there are.
    pub samples: (DeviceId, u32, u64, u32),
    /// Device label, metric, timestamp in ns and value of each point.
    pub points: Vec<(String, String, i64, Value)>,
}

impl Subscriber {
    /// Takes one message, or `None` for one that could not be read.
    pub fn take(&mut self, message: Option<Message>) {
        self.tally.messages += 1;
        let Some(Message { record, samples: (device, epoch, first, count), points }) = message else {
            self.tally.unreadable += 1;
            return;
        };
        let known = self.samples.entry(device).or_default();
        let mut fresh = false;
        for seq in (first..).take(count as usize) {
            fresh |= known.insert((epoch, seq));
        }
        // A later part of a long record brings known samples again, and is no repeat.
        if !self.records.insert(record) || (!fresh && record.3 == 0) {
            self.tally.repeats += 1;
        }
        for (device, metric, timestamp, value) in points {
            let point = self.points.entry((device, metric)).or_default().entry(timestamp);
            let point = point.or_insert_with(|| value.clone());
            if value > *point {
                *point = value;
            }
        }
    }

    /// Points so far, each counted once.
    #[must_use]
    pub fn points(&self) -> u64 {
        self.points.values().map(|series| series.len() as u64).sum()
    }

    /// What was counted.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Whether every sample of every sensor has come.
    #[must_use]
    pub fn is_complete(&self, expected: &Expected) -> bool {
        expected
            .samples
            .iter()
            .all(|(device, count)| self.samples.get(device).map_or(0, BTreeSet::len) as u64 >= *count)
    }

    /// The judge's word on what came. A sample that never came is lost even if its points came with another.
    #[must_use]
    pub fn judge(&self, expected: &Expected) -> Verdict {
        let held = self.points.iter().flat_map(|((device, metric), points)| {
            points
                .iter()
                .map(|(timestamp, value)| (device.clone(), metric.clone(), *timestamp, value.clone()))
        });
        let mut verdict = expected.judge(held);
        for (device, count) in &expected.samples {
            let come = self.samples.get(device).map_or(0, BTreeSet::len) as u64;
            verdict.lost += count.saturating_sub(come);
            verdict.invented += come.saturating_sub(*count);
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::{Metric, Sample};

    fn replay() -> Replay {
        let sample = |time_ms, v| Sample { time_ms, values: vec![Some(Value::I64(v))] };
        Replay {
            device: DeviceId([1; 8]),
            metrics: vec![Metric { name: "n".into(), scale: None }],
            samples: vec![sample(1, 5), sample(2, 6), sample(1, 9)],
        }
    }

    fn point(ms: i64, v: i64) -> (String, String, i64, Value) {
        ("0101010101010101".into(), "n".into(), ms * NS_PER_MS, Value::I64(v))
    }

    #[test]
    fn each_kind_of_wrong_is_counted_as_what_it_is() {
        let expected = Expected::of(&[replay()]);
        assert_eq!(expected.points(), 2, "a repeat of one time is one point");
        assert!(expected.judge([point(1, 9), point(2, 6)]).is_right(), "the greatest value is the point");
        let verdict = expected.judge([point(1, 5), point(1, 9), point(7, 1)]);
        assert_eq!(verdict, Verdict { points: 1, lost: 1, duplicated: 1, differing: 1, invented: 1 });
    }

    #[test]
    fn a_subscriber_tells_a_repeat_from_the_message_itself() {
        let expected = Expected::of(&[replay()]);
        let message = |lsn, first, count, points: &[(i64, i64)]| {
            Some(Message {
                record: (NodeId([1; 16]), Run(1), Lsn(lsn), 0),
                samples: (DeviceId([1; 8]), 1, first, count),
                points: points.iter().map(|(ms, v)| point(*ms, *v)).collect(),
            })
        };
        let mut subscriber = Subscriber::default();
        subscriber.take(message(1, 1, 2, &[(1, 5), (2, 6)]));
        subscriber.take(message(1, 1, 2, &[(1, 5), (2, 6)]));
        assert_eq!(subscriber.judge(&expected).lost, 1, "the third sample has not come");
        assert!(!subscriber.is_complete(&expected));
        subscriber.take(message(2, 3, 1, &[(1, 9)]));
        subscriber.take(None);
        assert!(subscriber.is_complete(&expected) && subscriber.judge(&expected).is_right());
        assert_eq!(subscriber.tally(), Tally { messages: 4, repeats: 1, unreadable: 1 });
    }
}
