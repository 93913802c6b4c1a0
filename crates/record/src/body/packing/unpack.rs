//! Unpacks bodies, in the order in which they were packed.

use alloc::vec::Vec;

use super::coder::Decoder;
use super::known::{Fields, Known, Name, Within, put_fields};
use super::pack::LEARNT_SERIES_BYTES;
use crate::body::{BATCH_BYTES_MAX, BatchError, BodyHead};
use crate::varint::{Malformed, put_u64};

/// Room for the fields of an entry that is kept from body to body: times, numbers, or bytes.
const FIELDS_KEPT_MAX: usize = 16 * 1024;

/// The reading end of a sequence of bodies.
#[derive(Debug)]
pub struct Unpacker {
    known: Known,
    fields: Fields,
    learnt_bytes: usize,
    learnt_bytes_max: usize,
    series_max: usize,
}

impl Default for Unpacker {
    fn default() -> Self {
        Self::bounded(usize::MAX, usize::MAX)
    }
}

impl Unpacker {
    /// One that refuses a sequence in which more is learnt, as [`Packer::series`](super::Packer::series) and
    /// [`Packer::learnt_bytes`](super::Packer::learnt_bytes) count it: a name that is spelt in a bit may be long, so few bytes of a stranger
    /// could fill the memory otherwise.
    #[must_use]
    pub fn bounded(series_max: usize, learnt_bytes_max: usize) -> Self {
        let (known, fields) = (Known::default(), Fields::default());
        Self { known, fields, learnt_bytes: 0, learnt_bytes_max, series_max }
    }

    /// Unpacks the next body into `out`, in place of what it holds.
    ///
    /// # Errors
    /// [`BatchError::Malformed`] when this is not what was packed behind the bodies before. The sequence has ended then.
    pub fn unpack(&mut self, packed: &[u8], out: &mut Vec<u8>) -> Result<(), BatchError> {
        out.clear();
        let outcome = self.try_unpack(packed, out);
        let Fields { times, numbers, raw, .. } = &self.fields;
        if times.capacity().max(numbers.capacity()).max(raw.capacity()) > FIELDS_KEPT_MAX {
            self.fields = Fields::default();
        }
        Ok(outcome?)
    }

    fn try_unpack(&mut self, packed: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        let mut coder = Decoder::new(packed);
        let (head, entries) = self.known.head(&mut coder, &BodyHead::default(), 0)?;
        head.put(out);
        put_u64(out, entries);
        let mut within = Within::default();
        self.fields.times.clear();
        for _ in 0..entries {
            let at = out.len();
            out.push(0);
            let had = [self.known.series.len(), self.known.metrics.len(), self.known.labels.len()];
            let series = self.known.which(&mut coder, &mut within, None, (Name::New(&[]), Name::New(&[])))?;
            self.learn(had)?;
            let spelt = self.known.spell(&within, series, out)?;
            self.known.note(&mut within, series, spelt);
            self.fields.layout = 0;
            self.fields.numbers.clear();
            self.fields.raw.clear();
            self.known.fields(&mut coder, &mut within, series, &mut self.fields)?;
            let flags = spelt.flags | put_fields(&mut within, &self.fields, out);
            if let Some(head) = out.get_mut(at) {
                *head = flags;
            }
            if out.len() > BATCH_BYTES_MAX {
                return Err(Malformed);
            }
        }
        coder.end()
    }

    /// Counts what was learnt beyond so many series, metrics and sets of labels.
    fn learn(&mut self, [series, metrics, labels]: [usize; 3]) -> Result<(), Malformed> {
        if self.known.series.len() == series {
            return Ok(());
        }
        let metric = self.known.metrics.get(metrics).map_or(0, |metric| metric.name.len());
        let labels = self.known.labels.get(labels).map_or(0, |labels| labels.bytes.len());
        self.learnt_bytes += metric + labels + LEARNT_SERIES_BYTES;
        let fits = self.learnt_bytes <= self.learnt_bytes_max && self.known.series.len() <= self.series_max;
        if fits { Ok(()) } else { Err(Malformed) }
    }
}
