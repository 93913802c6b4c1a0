//! Packs bodies: reads each as it is spelt, tells it by what is known, writes it out again from that, and compares.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::super::read::{TimesReader, take_steps};
use super::coder::Encoder;
use super::known::{Fields, Foretells, Index, Known, Name, Spelt, Within, has_fewest, put_fields};
use crate::body::{
    BATCH_BYTES_MAX, BodyHead, KIND_POINTS, KIND_RELAYED, LABELS_SAME, LAYOUT_BITS, LAYOUT_BOOL,
    LAYOUT_DECIMAL_LAST, LAYOUT_F64, LAYOUT_I64, LAYOUT_MIXED, LAYOUT_TEXT, METRIC_FORETOLD, MIXED_BOOL,
    MIXED_F64, MIXED_I64, MIXED_TEXT, STEPS_PACKED, TIMES_SAME,
};
use crate::decimal::decimal_of;
use crate::varint::{Malformed, Reader, put_u64};

/// A body may be so much longer when it is packed, in bytes: the first of its series often is, a little.
const LONGER_BYTES_MAX: usize = 256;

/// How a body is spelt that was packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// As [`BodyWriter`](crate::BodyWriter) spells what [`BodyReader`](crate::BodyReader) reads of it, if it can be read to its end.
    Canonical,
    /// Perhaps so and perhaps not.
    Unknown,
}

/// The writing end of a sequence of bodies.
#[derive(Debug)]
pub struct Packer {
    known: Known,
    metrics: BTreeMap<Vec<u8>, u32>,
    labels: BTreeMap<Vec<u8>, u32>,
    series: BTreeMap<(u32, u32), Index>,
    fields: Fields,
    /// The body as it is written out again.
    again: Vec<u8>,
    learnt_bytes: usize,
    learnt_bytes_max: usize,
    series_max: usize,
}

impl Default for Packer {
    fn default() -> Self {
        Self::bounded(Foretells::Within, usize::MAX, usize::MAX)
    }
}

impl Packer {
    /// One that foretells so much, and packs no body by which more series or bytes of names would be known.
    #[must_use]
    pub fn bounded(foretells: Foretells, series_max: usize, learnt_bytes_max: usize) -> Self {
        Self {
            known: Known::foretelling(foretells),
            metrics: BTreeMap::new(),
            labels: BTreeMap::new(),
            series: BTreeMap::new(),
            fields: Fields::default(),
            again: Vec::new(),
            learnt_bytes: 0,
            learnt_bytes_max,
            series_max,
        }
    }

    /// Whether a body looks like one that can be packed: one that holds points.
    #[must_use]
    pub fn takes(body: &[u8]) -> bool {
        matches!(body.first(), Some(&(KIND_POINTS | KIND_RELAYED)))
    }

    /// Packs a body behind what `out` holds. `None` when it cannot be: it holds no points, is spelt in a way of its own, or would be
    /// much longer, or longer than [`BATCH_BYTES_MAX`]. Then the sequence has ended, and `out` is as it was: another one begins with nothing known.
    #[must_use]
    pub fn pack(&mut self, body: &[u8], out: &mut Vec<u8>) -> Option<Spelling> {
        let mut coder = Encoder::new(out);
        let spelling = self.pack_behind(&mut coder, body)?;
        coder.finish();
        Some(spelling)
    }

    /// Packs bodies behind what `out` holds, as one string of bits, which saves two bytes a body: how many. Where it is fewer than there are, the next
    /// one cannot be packed, and the sequence has ended, as with [`Packer::pack`].
    #[must_use]
    pub fn pack_many<'b>(&mut self, bodies: impl IntoIterator<Item = &'b [u8]>, out: &mut Vec<u8>) -> usize {
        let mut coder = Encoder::new(out);
        let mut packed = 0;
        for body in bodies {
            if self.pack_behind(&mut coder, body).is_none() {
                break;
            }
            packed += 1;
        }
        if packed > 0 {
            coder.finish();
        }
        packed
    }

    fn pack_behind(&mut self, coder: &mut Encoder<'_>, body: &[u8]) -> Option<Spelling> {
        let mark = coder.mark();
        let packed = self.try_pack(coder, body);
        let bytes_max = (body.len() + LONGER_BYTES_MAX).min(BATCH_BYTES_MAX);
        let fits = self.again == body
            && coder.bytes_since(&mark) <= bytes_max
            && self.series() <= self.series_max
            && self.learnt_bytes() <= self.learnt_bytes_max;
        let packed = packed.ok().filter(|_| fits);
        if packed.is_none() {
            coder.go_back(&mark);
        }
        packed
    }

    /// Bytes of names, and of devices across bodies, that were met for the first time: what it took to learn.
    #[must_use]
    pub fn learnt_bytes(&self) -> usize {
        self.learnt_bytes + self.known.learnt_of_senders()
    }

    /// How many series are known.
    #[must_use]
    pub fn series(&self) -> usize {
        self.known.series.len()
    }

    fn try_pack(&mut self, coder: &mut Encoder<'_>, body: &[u8]) -> Result<Spelling, Malformed> {
        self.again.clear();
        let mut rest = Reader(body);
        let kind = rest.u8()?;
        if !Self::takes(body) || body.len() > BATCH_BYTES_MAX {
            return Err(Malformed);
        }
        let head = BodyHead::take(kind, &mut rest)?;
        let entries = rest.count(1)?;
        self.known.head(coder, &head, entries as u64)?;
        head.put(&mut self.again);
        put_u64(&mut self.again, entries as u64);
        let (mut within, mut times) = (Within::default(), TimesReader::default());
        self.fields.times.clear();
        let mut is_canonical = true;
        for _ in 0..entries {
            let entry = rest.u8()?;
            let at = self.again.len();
            self.again.push(0);
            let (series, spelt) = self.name(coder, &mut within, entry, &mut rest)?;
            self.known.note(&mut within, series, spelt);
            self.read(entry, &mut rest, &mut times)?;
            is_canonical = is_canonical && has_canonical_layout(&self.fields);
            self.known.fields(coder, &mut within, series, &mut self.fields)?;
            let flags = spelt.flags | put_fields(&mut within, &self.fields, &mut self.again);
            if let Some(head) = self.again.get_mut(at) {
                *head = flags;
            }
        }
        rest.end()?;
        Ok(if is_canonical { Spelling::Canonical } else { Spelling::Unknown })
    }

    /// Reads an entry's name, mostly by looking whether it is the one that is foretold.
    fn name(
        &mut self,
        coder: &mut Encoder<'_>,
        within: &mut Within,
        entry: u8,
        rest: &mut Reader<'_>,
    ) -> Result<(Index, Spelt), Malformed> {
        let start = self.again.len();
        let foretold = self.known.foretold(within);
        if let Ok(spelt) = self.known.spell(within, foretold, &mut self.again) {
            let expected = self.again.get(start..).unwrap_or_default();
            let as_expected = entry & (METRIC_FORETOLD | LABELS_SAME) == spelt.flags;
            if let Some(after) = rest.0.strip_prefix(expected).filter(|_| as_expected) {
                rest.0 = after;
                self.known.which(coder, within, Some(foretold), (Name::New(&[]), Name::New(&[])))?;
                return Ok((foretold, spelt));
            }
            self.again.truncate(start);
        }
        let (metric, labels) = self.read_name(within, entry, rest)?;
        let metric_known = self.metrics.get(&metric).copied();
        let labels_known = if labels.is_empty() { Some(0) } else { self.labels.get(&labels).copied() };
        let known = metric_known.zip(labels_known).and_then(|name| self.series.get(&name).copied());
        let name = (
            metric_known.map_or(Name::New(&metric), Name::Known),
            labels_known.map_or(Name::New(&labels), Name::Known),
        );
        let series = self.known.which(coder, within, known, name)?;
        if known.is_none() {
            let it = *self.known.series.get(series as usize).ok_or(Malformed)?;
            self.series.insert((it.metric, it.labels), series);
            if metric_known.is_none() {
                self.learnt_bytes += metric.len();
                self.metrics.insert(metric, it.metric);
            }
            if labels_known.is_none() {
                self.learnt_bytes += labels.len();
                self.labels.insert(labels, it.labels);
            }
            self.learnt_bytes += LEARNT_SERIES_BYTES;
        }
        let spelt = self.known.spell(within, series, &mut self.again)?;
        Ok((series, spelt))
    }

    /// Metric and labels of an entry, as they are spelt.
    fn read_name(
        &self,
        within: &Within,
        entry: u8,
        rest: &mut Reader<'_>,
    ) -> Result<(Vec<u8>, Vec<u8>), Malformed> {
        let metric = if entry & METRIC_FORETOLD != 0 {
            self.known.foretold_metric(within).ok_or(Malformed)?.to_vec()
        } else {
            let number = u32::try_from(rest.u64()?).map_err(|_| Malformed)?;
            match self.known.metric_of(within, number) {
                Some(name) => name.to_vec(),
                None => rest.bytes()?.to_vec(),
            }
        };
        let before = self.known.labels_before(within);
        if entry & LABELS_SAME != 0 {
            return Ok((metric, before.to_vec()));
        }
        let length = |number: u64| usize::try_from(number).map_err(|_| Malformed);
        let (front, end) = (length(rest.u64()?)?, length(rest.u64()?)?);
        let between = rest.bytes()?;
        let end = before.len().checked_sub(end).filter(|end| front <= *end).ok_or(Malformed)?;
        let mut labels = before.get(..front).ok_or(Malformed)?.to_vec();
        labels.extend_from_slice(between);
        labels.extend_from_slice(before.get(end..).unwrap_or_default());
        Ok((metric, labels))
    }

    /// Reads an entry's times and values.
    fn read(&mut self, entry: u8, rest: &mut Reader<'_>, times: &mut TimesReader) -> Result<(), Malformed> {
        let fields = &mut self.fields;
        fields.same_times = entry & TIMES_SAME != 0;
        if !fields.same_times {
            times.take(rest, &mut fields.times)?;
        }
        let (count, packed) = (fields.times.len(), entry & STEPS_PACKED != 0);
        fields.layout = entry & LAYOUT_BITS;
        fields.numbers.clear();
        fields.raw.clear();
        let from = rest.0;
        match fields.layout {
            0..=LAYOUT_DECIMAL_LAST | LAYOUT_I64 => {
                let numbers = &mut fields.numbers;
                return take_steps(rest, count, packed, |number| numbers.push(number));
            }
            LAYOUT_F64 => drop(rest.take(count.checked_mul(8).ok_or(Malformed)?)?),
            LAYOUT_BOOL => drop(rest.take(count.div_ceil(8))?),
            LAYOUT_TEXT => (0..count).try_for_each(|_| rest.bytes().map(drop))?,
            LAYOUT_MIXED => (0..count).try_for_each(|_| pass_value(rest))?,
            _ => return Err(Malformed),
        }
        let length = from.len() - rest.0.len();
        fields.raw.extend_from_slice(from.get(..length).unwrap_or_default());
        Ok(())
    }
}

/// What a series takes that is met for the first time, beside new names, in bytes: about.
pub(super) const LEARNT_SERIES_BYTES: usize = 4;

/// Whether the values surely stand in the layout that a writer gives them: floats as decimals where all are some, with the fewest digits.
fn has_canonical_layout(fields: &Fields) -> bool {
    match fields.layout {
        digits @ 0..=LAYOUT_DECIMAL_LAST => fields.numbers.is_empty() || has_fewest(&fields.numbers, digits),
        LAYOUT_F64 => {
            let (eights, _) = fields.raw.as_chunks::<8>();
            eights.iter().any(|eight| decimal_of(f64::from_bits(u64::from_le_bytes(*eight))).is_none())
        }
        LAYOUT_I64 | LAYOUT_BOOL => true,
        _ => false,
    }
}

fn pass_value(rest: &mut Reader<'_>) -> Result<(), Malformed> {
    match rest.u8()? {
        MIXED_F64 => rest.take(8).map(drop),
        MIXED_I64 => rest.i64().map(drop),
        MIXED_BOOL => rest.u8().map(drop),
        MIXED_TEXT => rest.bytes().map(drop),
        _ => Err(Malformed),
    }
}
