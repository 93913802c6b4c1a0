//! Unpacks bodies, in the order in which they were packed.

use alloc::vec::Vec;

use super::coder::Decoder;
use super::known::{Fields, Known, Name, Within, put_fields};
use crate::body::{BATCH_BYTES_MAX, BatchError, BodyHead};
use crate::varint::{Malformed, put_u64};

/// The reading end of a sequence of bodies.
#[derive(Debug, Default)]
pub struct Unpacker {
    known: Known,
    fields: Fields,
}

impl Unpacker {
    /// Unpacks the next body into `out`, in place of what it holds.
    ///
    /// # Errors
    /// [`BatchError::Malformed`] when this is not what was packed behind the bodies before. The sequence has ended then.
    pub fn unpack(&mut self, packed: &[u8], out: &mut Vec<u8>) -> Result<(), BatchError> {
        out.clear();
        Ok(self.try_unpack(packed, out)?)
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
            let series = self.known.which(&mut coder, &mut within, None, (Name::New(&[]), Name::New(&[])))?;
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
}
