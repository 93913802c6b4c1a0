//! A feed as the firmware's sampler, and what a virtual sensor does when it is told to.

use std::sync::Arc;
use std::time::Duration;

use tidelog_firmware::lowpan::time::{Duration as BoardDuration, Instant as BoardInstant};
use tidelog_firmware::uplink::Sample;
use tidelog_firmware::{Moment, Refusal, Sampler};

use super::{Feed, SensorOptions};

/// What its outputs are numbered below.
const OUTPUTS: u8 = 8;

/// The feed as the firmware's sampler.
pub(super) struct Replay {
    feed: Arc<dyn Feed>,
    interval: Option<BoardDuration>,
    due: Option<BoardInstant>,
    /// Which outputs are on, a bit each.
    pub outputs: u8,
}

impl Replay {
    pub fn new(options: &SensorOptions, feed: Arc<dyn Feed>) -> Self {
        let interval =
            options.pace_hz.and_then(|hz| Duration::try_from_secs_f64(1.0 / hz).ok()).map(|interval| {
                BoardDuration::from_micros(u64::try_from(interval.as_micros()).unwrap_or(u64::MAX))
            });
        Self { feed, interval, due: Some(BoardInstant::ZERO), outputs: 0 }
    }
}

impl Sampler for Replay {
    fn due(&self) -> Option<BoardInstant> {
        self.due
    }

    fn sample(&mut self, moment: Moment) -> Option<Sample> {
        let sample = self.feed.sample(moment.seq - 1);
        self.due = match (&sample, self.interval, self.due) {
            (None, ..) | (_, _, None) => None,
            (Some(_), None, Some(due)) => Some(due),
            (Some(_), Some(interval), Some(due)) => Some((due + interval).max(moment.now)),
        };
        sample
    }

    fn read(&mut self, moment: Moment) -> Result<Sample, Refusal> {
        self.feed.sample(moment.seq - 1).ok_or(Refusal::Failed)
    }

    fn every(&mut self, now: BoardInstant, interval: BoardDuration) -> Result<(), Refusal> {
        self.interval = Some(interval);
        self.due = self.due.map(|due| due.min(now + interval));
        Ok(())
    }

    fn switch(&mut self, output: u8, on: bool) -> Result<(), Refusal> {
        if output >= OUTPUTS {
            return Err(Refusal::Failed);
        }
        let bit = 1 << output;
        self.outputs = if on { self.outputs | bit } else { self.outputs & !bit };
        Ok(())
    }

    fn can_reboot(&self) -> bool {
        true
    }
}
