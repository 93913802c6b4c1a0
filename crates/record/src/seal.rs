//! The body in which an author says that a range of its stream is sealed: which records, and the hash of the segment that
//! they make. What a segment is, and how it is made, is the store's affair.
//!
//! ```text
//! body := kind 3 | first varint | records varint | ordinal varint | parts varint | hash 16 bytes
//! ```

use alloc::vec::Vec;

use crate::body::BatchError;
use crate::ids::Lsn;
use crate::varint::{Malformed, Reader, put_u64};

/// The first byte of a body that seals.
pub(crate) const KIND_SEAL: u8 = 3;

/// An author's word on a segment of its own stream. It stands in the stream behind the records that it seals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The first record in the segment.
    pub first: Lsn,
    /// The last record in it.
    pub last: Lsn,
    /// How many pieces the author had sealed in this stream before the first one in here.
    pub ordinal: u64,
    /// How many sealed pieces it holds: 1, or how many were merged.
    pub parts: u32,
    /// BLAKE3 over the segment's file, cut to 16 bytes.
    pub hash: [u8; 16],
}

impl Seal {
    /// The seal as a record's body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(48);
        out.push(KIND_SEAL);
        put_u64(&mut out, self.first.0);
        put_u64(&mut out, self.last.0.saturating_sub(self.first.0).saturating_add(1));
        put_u64(&mut out, self.ordinal);
        put_u64(&mut out, u64::from(self.parts));
        out.extend_from_slice(&self.hash);
        out
    }

    /// The seal in a record's body; `None` when the body is of another kind.
    ///
    /// # Errors
    /// [`BatchError::Malformed`] when the body begins as a seal and is none: no records, no parts, or more than there are numbers.
    pub fn of_body(bytes: &[u8]) -> Result<Option<Self>, BatchError> {
        let mut reader = Reader(bytes);
        if reader.u8()? != KIND_SEAL {
            return Ok(None);
        }
        let (first, records) = (reader.u64()?, reader.u64()?);
        let (ordinal, parts) = (reader.u64()?, reader.u64()?);
        let hash = reader.array()?;
        reader.end()?;
        let last = records.checked_sub(1).and_then(|more| first.checked_add(more)).ok_or(Malformed)?;
        let parts = u32::try_from(parts).map_err(|_| Malformed)?;
        if first == 0 || parts == 0 || ordinal.checked_add(u64::from(parts)).is_none() {
            return Err(BatchError::Malformed);
        }
        Ok(Some(Self { first: Lsn(first), last: Lsn(last), ordinal, parts, hash }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_seal_is_read_as_it_was_written_and_nothing_else_is_one(
            first in 1u64..u64::MAX / 2, more in 0u64..u64::MAX / 2, ordinal in 0u64..u64::MAX / 2, parts in 1u32..,
            hash in any::<[u8; 16]>(), cut in any::<prop::sample::Index>(),
            noise in prop::collection::vec(any::<u8>(), 0..48),
        ) {
            let seal = Seal { first: Lsn(first), last: Lsn(first + more), ordinal, parts, hash };
            let bytes = seal.encode();
            prop_assert_eq!(Seal::of_body(&bytes), Ok(Some(seal)));
            prop_assert!(Seal::of_body(&bytes[..cut.index(bytes.len())]).is_err());
            let mut body = alloc::vec![KIND_SEAL];
            body.extend(noise);
            if let Ok(Some(seal)) = Seal::of_body(&body) {
                prop_assert_eq!(seal.encode(), body);
            }
        }
    }

    #[test]
    fn a_body_of_another_kind_is_no_seal_and_an_empty_one_is_an_error() {
        assert_eq!(Seal::of_body(&[1, 2, 3]), Ok(None));
        assert_eq!(Seal::of_body(&[]), Err(BatchError::Malformed));
        assert_eq!(Seal::of_body(&[KIND_SEAL, 1, 0, 0, 1]), Err(BatchError::Malformed));
    }
}
