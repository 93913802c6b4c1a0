//! Unpacks bodies, in the order in which they were packed.

use alloc::vec::Vec;

use super::coder::Decoder;
use super::known::{Fields, Foretells, Known, Name, Within, put_fields};
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
        Self::bounded(Foretells::Within, usize::MAX, usize::MAX)
    }
}

impl Unpacker {
    /// One for what a packer wrote that foretells so much. It refuses a sequence in which more is learnt, as [`Packer::series`](super::Packer::series) and
    /// [`Packer::learnt_bytes`](super::Packer::learnt_bytes) count it: a name that is spelt in a bit may be long, so few bytes of a stranger
    /// could fill the memory otherwise.
    #[must_use]
    pub fn bounded(foretells: Foretells, series_max: usize, learnt_bytes_max: usize) -> Self {
        let (known, fields) = (Known::foretelling(foretells), Fields::default());
        Self { known, fields, learnt_bytes: 0, learnt_bytes_max, series_max }
    }

    /// Unpacks the next body into `out`, in place of what it holds.
    ///
    /// # Errors
    /// [`BatchError::Malformed`] when this is not what was packed behind the bodies before. The sequence has ended then.
    pub fn unpack(&mut self, packed: &[u8], out: &mut Vec<u8>) -> Result<(), BatchError> {
        out.clear();
        let mut coder = Decoder::new(packed);
        let outcome = self.next(&mut coder, out).and_then(|()| coder.end());
        self.let_go();
        Ok(outcome?)
    }

    /// Unpacks so many bodies that were packed as one string of bits ([`Packer::pack_many`](super::Packer::pack_many)), and gives each to
    /// `each` until that refuses one.
    ///
    /// # Errors
    /// As for [`Unpacker::unpack`], or where `each` refused one. The sequence has ended then.
    pub fn unpack_many(
        &mut self,
        packed: &[u8],
        bodies: usize,
        each: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<(), BatchError> {
        let (mut coder, mut out) = (Decoder::new(packed), Vec::new());
        let mut unpack = |_| {
            out.clear();
            self.next(&mut coder, &mut out)?;
            if each(&out) { Ok(()) } else { Err(Malformed) }
        };
        let outcome = (0..bodies).try_for_each(&mut unpack).and_then(|()| coder.end());
        self.let_go();
        Ok(outcome?)
    }

    /// Lets go of room that a long entry took.
    fn let_go(&mut self) {
        let Fields { times, numbers, raw, .. } = &self.fields;
        if times.capacity().max(numbers.capacity()).max(raw.capacity()) > FIELDS_KEPT_MAX {
            self.fields = Fields::default();
        }
    }

    /// Unpacks one body behind what `out` holds.
    fn next(&mut self, coder: &mut Decoder<'_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
        let (head, entries) = self.known.head(coder, &BodyHead::default(), 0)?;
        if self.learnt_bytes + self.known.learnt_of_senders() > self.learnt_bytes_max {
            return Err(Malformed);
        }
        head.put(out);
        put_u64(out, entries);
        let mut within = Within::default();
        self.fields.times.clear();
        for _ in 0..entries {
            let at = out.len();
            out.push(0);
            let had = [self.known.series.len(), self.known.metrics.len(), self.known.labels.len()];
            let series = self.known.which(coder, &mut within, None, (Name::New(&[]), Name::New(&[])))?;
            self.learn(had)?;
            let spelt = self.known.spell(&within, series, out)?;
            self.known.note(&mut within, series, spelt);
            self.fields.layout = 0;
            self.fields.numbers.clear();
            self.fields.raw.clear();
            self.known.fields(coder, &mut within, series, &mut self.fields)?;
            let flags = spelt.flags | put_fields(&mut within, &self.fields, out);
            if let Some(head) = out.get_mut(at) {
                *head = flags;
            }
            if out.len() > BATCH_BYTES_MAX {
                return Err(Malformed);
            }
        }
        Ok(())
    }

    /// Counts what was learnt beyond so many series, metrics and sets of labels.
    fn learn(&mut self, [series, metrics, labels]: [usize; 3]) -> Result<(), Malformed> {
        if self.known.series.len() == series {
            return Ok(());
        }
        let metric = self.known.metrics.get(metrics).map_or(0, |metric| metric.name.len());
        let labels = self.known.labels.get(labels).map_or(0, |labels| labels.bytes.len());
        self.learnt_bytes += metric + labels + LEARNT_SERIES_BYTES;
        let learnt_bytes = self.learnt_bytes + self.known.learnt_of_senders();
        let fits = learnt_bytes <= self.learnt_bytes_max && self.known.series.len() <= self.series_max;
        if fits { Ok(()) } else { Err(Malformed) }
    }
}
