//! The result of a run, for machines and for people.

use serde::Serialize;

use crate::chaos::Troubles;
use crate::failover::Outages;
use crate::judge::{Tally, Verdict};

/// Everything that a finished run says about itself. `lost`, `duplicated` and `differing` are sums over every place.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Readings that the sensors put into their flash logs.
    pub sensed: u64,
    /// Distinct points among them: one for each `(series, timestamp)`.
    pub points: u64,
    /// Points missing somewhere.
    pub lost: u64,
    /// Points held twice somewhere.
    pub duplicated: u64,
    /// Points with another value somewhere, or that nobody sensed.
    pub differing: u64,
    /// Whether gateways and cloud answered the same question with the same bytes.
    pub answers_equal: bool,
    /// From the first reading until everything had arrived everywhere.
    pub seconds: f64,
    /// Readings a second, sensed to arrived everywhere.
    pub readings_per_second: f64,
    /// Bytes of frames on the air for each reading, acknowledgements and repetitions included.
    pub air_bytes_per_reading: f64,
    /// Frames on the air in all.
    pub air_frames: u64,
    /// Frames that the air lost.
    pub air_frames_lost: u64,
    /// Virtual sensors.
    pub sensors: usize,
    /// The emulated boards, with `--boards`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boards: Option<Boards>,
    /// What each place holds, against what was sensed.
    pub held: Vec<Held>,
    /// What the MQTT subscriber counted.
    pub mqtt: Tally,
    /// The trouble that was made, with `--chaos`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chaos: Option<Chaos>,
    /// How long sensors stood still when their gateway was killed, with `--failover`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failover: Option<Outages>,
}

/// What emulated boards sensed; it is part of the sums.
#[derive(Debug, Serialize)]
pub struct Boards {
    /// Boards.
    pub boards: usize,
    /// Their samples.
    pub samples: u64,
    /// The readings in these.
    pub readings: u64,
}

/// One place's verdict.
#[derive(Debug, Serialize)]
pub struct Held {
    /// `gateway-1`, `cloud`, `mqtt`, …
    pub place: String,
    /// The judge's word.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The processor that it runs on, if it is a daemon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processor: Option<&'static str>,
    /// What emulates that processor, if this machine has another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emulator: Option<&'static str>,
    /// Most resident memory of the process, in KiB, since it was last started; not told of an emulated one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resident_kib_max: Option<u64>,
}

/// The seed and what it broke.
#[derive(Debug, Serialize)]
pub struct Chaos {
    /// `--chaos` again with this seed repeats the choices.
    pub seed: u64,
    /// What was broken.
    #[serde(flatten)]
    pub troubles: Troubles,
}

impl Report {
    /// Adds up the places.
    pub fn sum_up(&mut self) {
        let sum = |count: fn(&Verdict) -> u64| self.held.iter().map(|held| count(&held.verdict)).sum();
        self.lost = sum(|v| v.lost);
        self.duplicated = sum(|v| v.duplicated);
        self.differing = sum(|v| v.differing + v.invented);
    }

    /// Whether nothing is lost, doubled or changed anywhere, nodes answer alike, every message could be read, and no sensor whose gateway
    /// was killed was left without one.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.held.iter().all(|held| held.verdict.is_right())
            && self.failover.as_ref().is_none_or(|outages| outages.stranded == 0)
            && self.answers_equal
            && self.mqtt.unreadable == 0
    }

    /// A few lines for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut lines = vec![format!(
            "{} readings sensed ({} points) by {} sensors in {:.1} s; {:.1} bytes on the air a reading",
            self.sensed, self.points, self.sensors, self.seconds, self.air_bytes_per_reading
        )];
        if let Some(Boards { boards, samples, readings }) = self.boards {
            lines.push(format!("{readings} of them in {samples} samples of {boards} emulated boards"));
        }
        for held in &self.held {
            let v = &held.verdict;
            let mut line = format!(
                "{:<10} holds {} points: {} lost, {} duplicated, {} differing, {} invented",
                held.place, v.points, v.lost, v.duplicated, v.differing, v.invented
            );
            if let (Some(processor), Some(emulator)) = (held.processor, held.emulator) {
                line.push_str(&format!(" (on {processor}, by {emulator})"));
            }
            lines.push(line);
        }
        lines.push(format!(
            "MQTT: {} messages, {} of them repeats that say so themselves",
            self.mqtt.messages, self.mqtt.repeats
        ));
        if let Some(Chaos { seed, troubles: t }) = &self.chaos {
            lines.push(format!(
                "chaos {seed}: {} gateway kills, {} cloud kills, {} sensor power cuts, {} uplink cuts",
                t.gateway_kills, t.cloud_kills, t.sensor_power_cuts, t.uplink_cuts
            ));
        }
        if let Some(Outages { sensors, stranded, p50_s, max_s }) = self.failover {
            lines.push(format!(
                "failover: the readings of {sensors} sensors stood still for {p50_s} s (half of them), {max_s} s at most; {stranded} found no gateway"
            ));
        }
        lines.push(
            if self.is_right() { "nothing lost, nothing doubled, nothing changed" } else { "NOT RIGHT" }
                .to_owned(),
        );
        lines.join("\n")
    }
}
