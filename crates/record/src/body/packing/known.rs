//! What both ends of a sequence of bodies know of those before, and how an entry is told by it. One description serves to write
//! and to read: whoever writes hands in what is so, whoever reads is handed what was.

use alloc::vec::Vec;

mod fields;
mod head;
mod names;

use super::super::write::{TimesWriter, alike};
use super::coder::{Bit, Coder, Numbers};
use crate::body::{LABELS_SAME, METRIC_FORETOLD};
use crate::varint::{Malformed, put_bytes, put_u64};

pub(super) use fields::{Fields, has_fewest, put_fields};
use head::Sender;
pub(super) use names::Name;

/// Metrics with probabilities of their own; further ones share the last.
const METRIC_MODELS_MAX: usize = 64;
/// What a device takes that is met for the first time, in bytes: about.
const LEARNT_SENDER_BYTES: usize = 32;
/// By how far the number before moved: not at all, a little, much.
const MOODS: usize = 3;

/// How far what was before tells of what comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Foretells {
    /// Which series comes next within a body.
    #[default]
    Within,
    /// Beside that, which series begins the next body, and which device sends it: where bodies are short, most of what they take.
    Across,
}

/// A series by its place among those known.
pub(super) type Index = u32;

#[derive(Debug)]
pub(super) struct Metric {
    pub name: Vec<u8>,
    /// Its number in the body with this stamp.
    numbered: (u64, u32),
    digits: u8,
}

/// The probabilities of one metric.
#[derive(Debug, Default)]
struct Model {
    moved: [Numbers; MOODS],
    layout_usual: Bit,
    truth: Bit,
}

/// A set of labels.
#[derive(Debug)]
pub(super) struct Labels {
    pub bytes: Vec<u8>,
    /// How they are told from another set, once they were.
    told: Option<(u32, Vec<u8>)>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Series {
    pub metric: u32,
    pub labels: u32,
    /// What came next the last time.
    pub next: Index,
    time: i64,
    step: i64,
    count: u32,
    layout: u8,
    digits: u8,
    mood: u8,
    own_times: bool,
    /// The series that began the next body, the last time that this one began a body.
    begins_next: Index,
    /// In `digits`, if it is a decimal.
    number: i64,
}

/// Probabilities of what stands in all bodies.
#[derive(Debug, Default)]
struct Common {
    flags: [Bit; 16],
    authored: Numbers,
    entries: Numbers,
    lengths: Numbers,
    seqs: Numbers,
    seq_counts: Numbers,
    own_times: [Bit; 2],
    units: [Bit; 3],
    times: Numbers,
    time_counts: Numbers,
}

/// Where the flags of a head and of names have their probabilities.
#[derive(Clone, Copy)]
enum Flag {
    Copied,
    Part,
    Sent,
    SenderNext,
    SenderKnown,
    FirstNext,
    SeriesNext,
    SeriesKnown,
    MetricKnown,
    LabelsSame,
    LabelsKnown,
}

#[derive(Debug)]
pub(super) struct Known {
    pub series: Vec<Series>,
    pub metrics: Vec<Metric>,
    pub labels: Vec<Labels>,
    senders: Vec<Sender>,
    models: Vec<Model>,
    all: Common,
    authored: (i64, i64),
    entries: u64,
    /// Counts bodies.
    stamp: u64,
    foretells: Foretells,
    /// The series that began the body before.
    first: Option<Index>,
    /// Who sent the last body that a device sent.
    sender: Option<u32>,
}

/// What is foretold within one body.
#[derive(Debug, Default)]
pub(super) struct Within {
    /// The body's metrics in the order of their numbers, and which came after each the last time.
    metrics: Vec<(u32, u32)>,
    last_metric: Option<u32>,
    /// The last entry's labels; those of place 0 are empty.
    pub labels: u32,
    pub last: Option<Index>,
    times: TimesWriter,
    points: usize,
}

/// How an entry's name is spelt in its body.
#[derive(Clone, Copy)]
pub(super) struct Spelt {
    number: u32,
    is_new: bool,
    labels: u32,
    pub flags: u8,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            series: Vec::new(),
            metrics: Vec::new(),
            labels: Vec::from([Labels { bytes: Vec::new(), told: None }]),
            senders: Vec::new(),
            models: Vec::new(),
            all: Common::default(),
            authored: (0, 0),
            entries: 0,
            stamp: 0,
            foretells: Foretells::Within,
            first: None,
            sender: None,
        }
    }
}

impl Known {
    fn flag(&mut self, coder: &mut impl Coder, flag: Flag, is: bool) -> bool {
        self.all.flags.get_mut(flag as usize).is_some_and(|place| coder.bit(place, is))
    }

    pub fn foretelling(foretells: Foretells) -> Self {
        Self { foretells, ..Self::default() }
    }

    /// What it took to learn of devices, in bytes. Where only series are foretold, whoever packs counts bodies instead.
    pub fn learnt_of_senders(&self) -> usize {
        match self.foretells {
            Foretells::Within => 0,
            Foretells::Across => self.senders.len() * LEARNT_SENDER_BYTES,
        }
    }

    /// The series that came next the last time, if any did.
    pub fn foretold(&self, within: &Within) -> Index {
        let series = |at: Option<Index>| at.and_then(|at| self.series.get(at as usize));
        match within.last {
            Some(last) => series(Some(last)).map_or(0, |series| series.next),
            None if self.foretells == Foretells::Across => {
                series(self.first).map_or(0, |series| series.begins_next)
            }
            None => 0,
        }
    }

    /// The metric that is foretold within the body.
    pub fn foretold_metric(&self, within: &Within) -> Option<&[u8]> {
        let last = within.metrics.get(within.last_metric? as usize)?;
        self.metric_of(within, last.1)
    }

    /// The metric of a number that was given in the body.
    pub fn metric_of(&self, within: &Within, number: u32) -> Option<&[u8]> {
        let (metric, _) = within.metrics.get(number as usize)?;
        self.metrics.get(*metric as usize).map(|metric| metric.name.as_slice())
    }

    /// The labels of the entry before.
    pub fn labels_before(&self, within: &Within) -> &[u8] {
        self.labels.get(within.labels as usize).map(|it| it.bytes.as_slice()).unwrap_or_default()
    }

    /// Writes a series' name as its body has it.
    pub fn spell(&mut self, within: &Within, at: Index, out: &mut Vec<u8>) -> Result<Spelt, Malformed> {
        let series = *self.series.get(at as usize).ok_or(Malformed)?;
        let metric = self.metrics.get(series.metric as usize).ok_or(Malformed)?;
        let known = (metric.numbered.0 == self.stamp).then_some(metric.numbered.1);
        let last = within.last_metric.and_then(|last| within.metrics.get(last as usize));
        let foretold = last.map(|(_, next)| *next);
        let is_new = known.is_none();
        let number = known.unwrap_or(u32::try_from(within.metrics.len()).map_err(|_| Malformed)?);
        let mut flags = 0;
        if foretold.is_some() && foretold == known {
            flags |= METRIC_FORETOLD;
        } else {
            put_u64(out, u64::from(number));
            if is_new {
                put_bytes(out, &metric.name);
            }
        }
        if series.labels == within.labels {
            flags |= LABELS_SAME;
        } else {
            self.spell_labels(within.labels, series.labels, out)?;
        }
        Ok(Spelt { number, is_new, labels: series.labels, flags })
    }

    fn spell_labels(&mut self, before: u32, now: u32, out: &mut Vec<u8>) -> Result<(), Malformed> {
        let kept = self.labels.get(now as usize).and_then(|labels| labels.told.as_ref());
        if let Some((_, bytes)) = kept.filter(|(from, _)| *from == before) {
            out.extend_from_slice(bytes);
            return Ok(());
        }
        let of =
            |at: u32| self.labels.get(at as usize).map(|labels| labels.bytes.as_slice()).ok_or(Malformed);
        let (front, end, between) = told(of(before)?, of(now)?);
        let start = out.len();
        put_u64(out, front as u64);
        put_u64(out, end as u64);
        put_bytes(out, &between);
        let bytes = out.get(start..).unwrap_or_default().to_vec();
        if let Some(labels) = self.labels.get_mut(now as usize) {
            labels.told = Some((before, bytes));
        }
        Ok(())
    }

    /// Takes note of a name that was spelt in the body.
    pub fn note(&mut self, within: &mut Within, at: Index, spelt: Spelt) {
        let Some(series) = self.series.get(at as usize) else { return };
        if spelt.is_new {
            if let Some(metric) = self.metrics.get_mut(series.metric as usize) {
                metric.numbered = (self.stamp, spelt.number);
            }
            within.metrics.push((series.metric, spelt.number));
        }
        if let Some(last) = within.last_metric.and_then(|last| within.metrics.get_mut(last as usize)) {
            last.1 = spelt.number;
        }
        (within.last_metric, within.labels) = (Some(spelt.number), spelt.labels);
    }
}

/// What of `now` is as in `before` at the front and at the end, and what stands between.
fn told(before: &[u8], now: &[u8]) -> (usize, usize, Vec<u8>) {
    let front = alike(before.iter(), now.iter());
    let (before, now) = (before.get(front..).unwrap_or_default(), now.get(front..).unwrap_or_default());
    let end = alike(before.iter().rev(), now.iter().rev());
    (front, end, now.get(..now.len() - end).unwrap_or_default().to_vec())
}
