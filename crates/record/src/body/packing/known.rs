//! What both ends of a sequence of bodies know of those before, and how an entry is told by it. One description serves to write
//! and to read: whoever writes hands in what is so, whoever reads is handed what was.

use alloc::vec::Vec;

use super::super::write::{TimesWriter, alike, put_steps};
use super::coder::{Bit, Coder, Numbers};
use crate::body::{
    BATCH_BYTES_MAX, BATCH_POINTS_MAX, BodyHead, LABELS_SAME, LAYOUT_BITS, LAYOUT_BOOL, LAYOUT_DECIMAL_LAST,
    LAYOUT_F64, LAYOUT_I64, LAYOUT_MIXED, LAYOUT_TEXT, METRIC_FORETOLD, Origin, Relay, UNITS_NS,
};
use crate::device::DeviceId;
use crate::ids::{Lsn, NodeId, Run};
use crate::series::SERIES_BYTES_MAX;
use crate::varint::{Malformed, put_bytes, put_u64};

/// Metrics with probabilities of their own; further ones share the last.
const METRIC_MODELS_MAX: usize = 64;
/// By how far the number before moved: not at all, a little, much.
const MOODS: usize = 3;

/// A series by its place among those known.
pub(super) type Index = u32;

/// A metric or a set of labels, for whoever writes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Name<'a> {
    Known(u32),
    New(&'a [u8]),
}

impl Name<'_> {
    fn index(self) -> Option<u32> {
        if let Self::Known(at) = self { Some(at) } else { None }
    }

    fn bytes(self) -> Vec<u8> {
        if let Self::New(bytes) = self { bytes.to_vec() } else { Vec::new() }
    }
}

/// What an entry says beside its series' name.
#[derive(Debug, Default)]
pub(super) struct Fields {
    /// None of its own: those of the entry before.
    pub same_times: bool,
    pub times: Vec<i64>,
    pub layout: u8,
    /// Decimals and whole numbers, as they stand in the body.
    pub numbers: Vec<i64>,
    /// Values of other layouts, as they stand in the body.
    pub raw: Vec<u8>,
}

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
    /// In `digits`, if it is a decimal.
    number: i64,
}

/// A device that sent batches.
#[derive(Clone, Copy, Debug)]
struct Sender {
    device: DeviceId,
    epoch: u32,
    next_seq: u64,
    count: u32,
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
    SenderKnown,
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
        }
    }
}

/// Codes bytes of which nothing is known.
fn plain_bytes(coder: &mut impl Coder, bytes: &mut [u8]) {
    for byte in bytes {
        *byte = coder.plain(u32::from(*byte), 8).to_le_bytes()[0];
    }
}

fn plain_u64(coder: &mut impl Coder, number: u64) -> u64 {
    let mut bytes = number.to_le_bytes();
    plain_bytes(coder, &mut bytes);
    u64::from_le_bytes(bytes)
}

/// Codes which of `count` things is meant.
fn index(coder: &mut impl Coder, which: u32, count: usize) -> Result<u32, Malformed> {
    let bits = usize::BITS - count.saturating_sub(1).leading_zeros();
    let which = coder.plain(which, bits.min(32));
    if (which as usize) < count { Ok(which) } else { Err(Malformed) }
}

fn length(coder: &mut impl Coder, lengths: &mut Numbers, length: usize) -> Result<usize, Malformed> {
    let length = lengths.code(coder, i64::try_from(length).map_err(|_| Malformed)?);
    usize::try_from(length).map_err(|_| Malformed)
}

/// Codes a string of bytes that is in `bytes` when it is written.
fn string(coder: &mut impl Coder, lengths: &mut Numbers, bytes: &mut Vec<u8>) -> Result<(), Malformed> {
    let length = length(coder, lengths, bytes.len())?;
    if length > BATCH_BYTES_MAX {
        return Err(Malformed);
    }
    bytes.resize(length, 0);
    for at in bytes.chunks_mut(64) {
        plain_bytes(coder, at);
        coder.check()?;
    }
    Ok(())
}

impl Known {
    fn flag(&mut self, coder: &mut impl Coder, flag: Flag, is: bool) -> bool {
        self.all.flags.get_mut(flag as usize).is_some_and(|place| coder.bit(place, is))
    }

    /// Codes what stands before the entries, and how many there are.
    pub fn head(
        &mut self,
        coder: &mut impl Coder,
        head: &BodyHead,
        entries: u64,
    ) -> Result<(BodyHead, u64), Malformed> {
        self.stamp += 1;
        let relay = self.relay(coder, head.relay)?;
        let foretold = self.authored.0.wrapping_add(self.authored.1);
        let off = self.all.authored.code(coder, head.authored_ms.wrapping_sub(foretold));
        let authored_ms = foretold.wrapping_add(off);
        self.authored = (authored_ms, authored_ms.wrapping_sub(self.authored.0));
        let origin = self.origin(coder, head.origin)?;
        let more = self.all.entries.code(coder, entries.wrapping_sub(self.entries).cast_signed());
        self.entries = self.entries.wrapping_add(more.cast_unsigned());
        coder.check()?;
        Ok((BodyHead { authored_ms, origin, relay }, self.entries))
    }

    fn relay(&mut self, coder: &mut impl Coder, relay: Option<Relay>) -> Result<Option<Relay>, Malformed> {
        if !self.flag(coder, Flag::Copied, relay.is_some()) {
            return Ok(None);
        }
        let none = Relay { node: NodeId([0; 16]), run: Run(0), lsn: Lsn(0), first_point: None };
        let mut relay = relay.unwrap_or(none);
        plain_bytes(coder, &mut relay.node.0);
        relay.run = Run(plain_u64(coder, relay.run.0));
        relay.lsn = Lsn(plain_u64(coder, relay.lsn.0));
        let is_part = self.flag(coder, Flag::Part, relay.first_point.is_some());
        relay.first_point = is_part.then(|| plain_u64(coder, relay.first_point.unwrap_or_default()));
        coder.check()?;
        Ok(Some(relay))
    }

    fn origin(
        &mut self,
        coder: &mut impl Coder,
        origin: Option<Origin>,
    ) -> Result<Option<Origin>, Malformed> {
        if !self.flag(coder, Flag::Sent, origin.is_some()) {
            return Ok(None);
        }
        let is = |it: &Sender, of: &Origin| it.device == of.device && it.epoch == of.epoch;
        let found = origin.and_then(|of| self.senders.iter().position(|it| is(it, &of)));
        let at = if self.flag(coder, Flag::SenderKnown, found.is_some()) {
            let found = found.and_then(|found| u32::try_from(found).ok()).unwrap_or_default();
            index(coder, found, self.senders.len())? as usize
        } else {
            let mut device = origin.map(|it| it.device).unwrap_or(DeviceId([0; 8]));
            plain_bytes(coder, &mut device.0);
            let epoch = coder.plain(origin.map_or(0, |it| it.epoch), 32);
            self.senders.push(Sender { device, epoch, next_seq: 0, count: 0 });
            self.senders.len() - 1
        };
        let sender = self.senders.get_mut(at).ok_or(Malformed)?;
        let is =
            origin.unwrap_or(Origin { device: sender.device, epoch: sender.epoch, first_seq: 0, count: 0 });
        let off = self.all.seqs.code(coder, is.first_seq.wrapping_sub(sender.next_seq).cast_signed());
        let first_seq = sender.next_seq.wrapping_add(off.cast_unsigned());
        let more = self.all.seq_counts.code(coder, i64::from(is.count) - i64::from(sender.count));
        let count = i64::from(sender.count).checked_add(more).and_then(|count| u32::try_from(count).ok());
        sender.count = count.ok_or(Malformed)?;
        sender.next_seq = first_seq.wrapping_add(u64::from(sender.count));
        Ok(Some(Origin { device: sender.device, epoch: sender.epoch, first_seq, count: sender.count }))
    }

    /// The series that came next the last time, if any did.
    pub fn foretold(&self, within: &Within) -> Index {
        within.last.and_then(|last| self.series.get(last as usize)).map_or(0, |series| series.next)
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

    /// Codes which series an entry is of: one that is known, or one that is not, by its metric's name and its labels. The series.
    pub fn which(
        &mut self,
        coder: &mut impl Coder,
        within: &mut Within,
        series: Option<Index>,
        (metric, labels): (Name<'_>, Name<'_>),
    ) -> Result<Index, Malformed> {
        let foretold = self.foretold(within);
        let has_foretold = (foretold as usize) < self.series.len();
        let at = if has_foretold && self.flag(coder, Flag::SeriesNext, series == Some(foretold)) {
            foretold
        } else if self.flag(coder, Flag::SeriesKnown, series.is_some()) {
            index(coder, series.unwrap_or_default(), self.series.len())?
        } else {
            let metric = self.metric(coder, metric)?;
            let labels = self.labels(coder, within, labels)?;
            let digits = self.metrics.get(metric as usize).map_or(0, |metric| metric.digits);
            let at = Index::try_from(self.series.len()).map_err(|_| Malformed)?;
            self.series.push(Series { metric, labels, digits, own_times: true, ..Series::default() });
            at
        };
        if let Some(last) = within.last.and_then(|last| self.series.get_mut(last as usize)) {
            last.next = at;
        }
        within.last = Some(at);
        coder.check()?;
        Ok(at)
    }

    fn metric(&mut self, coder: &mut impl Coder, metric: Name<'_>) -> Result<u32, Malformed> {
        if self.flag(coder, Flag::MetricKnown, metric.index().is_some()) {
            return index(coder, metric.index().unwrap_or_default(), self.metrics.len());
        }
        let mut name = metric.bytes();
        string(coder, &mut self.all.lengths, &mut name)?;
        let at = u32::try_from(self.metrics.len()).map_err(|_| Malformed)?;
        self.metrics.push(Metric { name, numbered: (0, 0), digits: 0 });
        if self.models.len() < METRIC_MODELS_MAX {
            self.models.push(Model::default());
        }
        Ok(at)
    }

    fn labels(
        &mut self,
        coder: &mut impl Coder,
        within: &Within,
        labels: Name<'_>,
    ) -> Result<u32, Malformed> {
        if self.flag(coder, Flag::LabelsSame, labels.index() == Some(within.labels)) {
            return Ok(within.labels);
        }
        if self.flag(coder, Flag::LabelsKnown, labels.index().is_some()) {
            return index(coder, labels.index().unwrap_or_default(), self.labels.len());
        }
        let before =
            self.labels.get(within.labels as usize).map(|it| it.bytes.as_slice()).unwrap_or_default();
        let (front, end, mut between) = told(before, &labels.bytes());
        let lengths = &mut self.all.lengths;
        let front = length(coder, lengths, front)?;
        let end = length(coder, lengths, end)?;
        string(coder, lengths, &mut between)?;
        let end = before.len().checked_sub(end).filter(|end| front <= *end).ok_or(Malformed)?;
        let mut bytes = before.get(..front).unwrap_or_default().to_vec();
        bytes.append(&mut between);
        bytes.extend_from_slice(before.get(end..).unwrap_or_default());
        if bytes.len() > SERIES_BYTES_MAX {
            return Err(Malformed);
        }
        let at = u32::try_from(self.labels.len()).map_err(|_| Malformed)?;
        self.labels.push(Labels { bytes, told: None });
        Ok(at)
    }

    /// Codes what an entry says beside its series.
    pub fn fields(
        &mut self,
        coder: &mut impl Coder,
        within: &mut Within,
        at: Index,
        fields: &mut Fields,
    ) -> Result<(), Malformed> {
        let Some(series) = self.series.get_mut(at as usize) else { return Err(Malformed) };
        times(&mut self.all, coder, series, fields)?;
        within.points = within.points.saturating_add(fields.times.len());
        if within.points > BATCH_POINTS_MAX {
            return Err(Malformed);
        }
        let metric = self.metrics.get_mut(series.metric as usize).ok_or(Malformed)?;
        let model = (series.metric as usize).min(METRIC_MODELS_MAX - 1);
        let model = self.models.get_mut(model).ok_or(Malformed)?;
        values(model, coder, series, metric, &mut self.all.lengths, fields)?;
        coder.check()
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

/// Writes an entry's times and values as its body has them; the rest of its head.
pub(super) fn put_fields(within: &mut Within, fields: &Fields, out: &mut Vec<u8>) -> u8 {
    let flags = within.times.put(out, &fields.times);
    if fields.times.is_empty() {
        return flags | fields.layout;
    }
    match fields.layout {
        0..=LAYOUT_DECIMAL_LAST | LAYOUT_I64 => flags | fields.layout | put_steps(out, &fields.numbers),
        _ => {
            out.extend_from_slice(&fields.raw);
            flags | fields.layout
        }
    }
}

fn times(
    all: &mut Common,
    coder: &mut impl Coder,
    series: &mut Series,
    fields: &mut Fields,
) -> Result<(), Malformed> {
    let place = all.own_times.get_mut(usize::from(series.own_times)).ok_or(Malformed)?;
    series.own_times = coder.bit(place, !fields.same_times);
    fields.same_times = !series.own_times;
    if fields.same_times {
        return Ok(());
    }
    let more = i64::try_from(fields.times.len()).map_err(|_| Malformed)? - i64::from(series.count);
    let count = i64::from(series.count).checked_add(all.time_counts.code(coder, more)).ok_or(Malformed)?;
    let count = usize::try_from(count).ok().filter(|count| *count <= BATCH_POINTS_MAX).ok_or(Malformed)?;
    series.count = u32::try_from(count).map_err(|_| Malformed)?;
    let unit = unit(all, coder, series, &fields.times)?;
    fields.times.resize(count, 0);
    for time in &mut fields.times {
        let foretold = series.time.wrapping_add(series.step);
        let off = all.times.code(coder, time.wrapping_sub(foretold) / unit).wrapping_mul(unit);
        *time = foretold.wrapping_add(off);
        series.step = time.wrapping_sub(series.time);
        series.time = *time;
        coder.check()?;
    }
    Ok(())
}

/// Codes the greatest unit that divides what is told of the times.
fn unit(all: &mut Common, coder: &mut impl Coder, series: &Series, times: &[i64]) -> Result<i64, Malformed> {
    let (mut code, mut time, mut step) = (UNITS_NS.len() - 1, series.time, series.step);
    for next in times {
        let off = next.wrapping_sub(time.wrapping_add(step));
        while UNITS_NS.get(code).is_some_and(|unit| off % unit != 0) {
            code -= 1;
        }
        (step, time) = (next.wrapping_sub(time), *next);
    }
    let [first, with_high, with_low] = &mut all.units;
    let high = coder.bit(first, code & 2 != 0);
    let low = coder.bit(if high { with_high } else { with_low }, code & 1 != 0);
    UNITS_NS.get(usize::from(high) << 1 | usize::from(low)).copied().ok_or(Malformed)
}

fn values(
    model: &mut Model,
    coder: &mut impl Coder,
    series: &mut Series,
    metric: &mut Metric,
    lengths: &mut Numbers,
    fields: &mut Fields,
) -> Result<(), Malformed> {
    let count = fields.times.len();
    if count == 0 {
        fields.layout = 0;
        return Ok(());
    }
    let is_decimal = |layout: u8| layout <= LAYOUT_DECIMAL_LAST;
    let as_usual = if is_decimal(series.layout) {
        fields.layout <= series.digits && has_fewest(&fields.numbers, fields.layout)
    } else {
        fields.layout == series.layout
    };
    let layout = if coder.bit(&mut model.layout_usual, as_usual) {
        None
    } else {
        let layout = coder.plain(u32::from(fields.layout), 4).to_le_bytes()[0] & LAYOUT_BITS;
        let digits = if is_decimal(layout) { layout.max(series.digits) } else { series.digits };
        let goes_on = is_decimal(layout) && is_decimal(series.layout);
        let number = power(digits - series.digits).and_then(|power| series.number.checked_mul(power));
        series.number = number.filter(|_| goes_on).unwrap_or_default();
        (series.layout, series.digits) = (layout, digits);
        metric.digits = metric.digits.max(digits);
        Some(layout)
    };
    match series.layout {
        0..=LAYOUT_DECIMAL_LAST => {
            let power = power(series.digits.saturating_sub(fields.layout)).ok_or(Malformed)?;
            fields.numbers.resize(count, 0);
            for number in &mut fields.numbers {
                *number = number.checked_mul(power).ok_or(Malformed)?;
            }
            numbers(model, coder, series, &mut fields.numbers)?;
            fields.layout = unscale(&mut fields.numbers, series.digits, layout)?;
        }
        LAYOUT_I64 => {
            fields.numbers.resize(count, 0);
            numbers(model, coder, series, &mut fields.numbers)?;
            fields.layout = LAYOUT_I64;
        }
        LAYOUT_F64 => {
            fields.layout = LAYOUT_F64;
            fields.raw.resize(count.checked_mul(8).ok_or(Malformed)?, 0);
            for eight in fields.raw.chunks_mut(8) {
                plain_bytes(coder, eight);
                coder.check()?;
            }
        }
        LAYOUT_BOOL => {
            fields.layout = LAYOUT_BOOL;
            fields.raw.resize(count.div_ceil(8), 0);
            for byte in &mut fields.raw {
                let written = *byte;
                *byte = (0..8).fold(0, |read, at| {
                    read | u8::from(coder.bit(&mut model.truth, written >> at & 1 == 1)) << at
                });
                coder.check()?;
            }
        }
        text @ (LAYOUT_TEXT | LAYOUT_MIXED) => {
            fields.layout = text;
            string(coder, lengths, &mut fields.raw)?;
        }
        _ => return Err(Malformed),
    }
    Ok(())
}

/// Codes numbers as steps, each with the probabilities of how far the one before moved.
#[inline]
fn numbers(
    model: &mut Model,
    coder: &mut impl Coder,
    series: &mut Series,
    numbers: &mut [i64],
) -> Result<(), Malformed> {
    let (mut before, mut mood) = (series.number, series.mood);
    for number in numbers {
        let moved = model.moved.get_mut(usize::from(mood)).ok_or(Malformed)?;
        let step = moved.code(coder, number.wrapping_sub(before));
        before = before.wrapping_add(step);
        *number = before;
        mood = match step.unsigned_abs() {
            0 => 0,
            1..8 => 1,
            _ => 2,
        };
        coder.check()?;
    }
    (series.number, series.mood) = (before, mood);
    Ok(())
}

fn power(digits: u8) -> Option<i64> {
    10_i64.checked_pow(u32::from(digits))
}

/// Whether numbers with so many digits behind the point could have no fewer.
pub(super) fn has_fewest(numbers: &[i64], digits: u8) -> bool {
    digits == 0 || numbers.iter().any(|number| number % 10 != 0)
}

/// Takes zeros off the end of all: as many as there are, or as leave so many digits. How many digits are left.
fn unscale(numbers: &mut [i64], digits: u8, left: Option<u8>) -> Result<u8, Malformed> {
    let mut have = digits;
    while left.map_or(have > 0, |left| have > left) {
        if numbers.iter().any(|number| number % 10 != 0) {
            return if left.is_some() { Err(Malformed) } else { Ok(have) };
        }
        numbers.iter_mut().for_each(|number| *number /= 10);
        have -= 1;
    }
    Ok(have)
}
