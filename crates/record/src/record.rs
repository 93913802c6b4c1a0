//! One record of a stream and the hash chain through it. The body's meaning is [`crate::Body`]'s affair: this module
//! stores and chains bytes that it does not understand (invariant 15).

use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{Lsn, StreamId, StreamKey, first_16};

/// Hash over everything in a stream up to and including a record: BLAKE3 over the hash before, the stream's key, the
/// LSN and the body, cut to 16 bytes. Two nodes with equal hashes at an LSN hold the same bytes below it.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChainHash(#[serde(with = "bytes16")] pub [u8; 16]);

impl ChainHash {
    /// The hash before the first record.
    pub const GENESIS: Self = Self([0; 16]);

    /// The hash after `body` stands at `lsn` behind a record whose hash is `self`.
    #[must_use]
    pub fn after(self, stream: &StreamKey, lsn: Lsn, body: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0);
        hasher.update(&stream.0);
        hasher.update(&lsn.0.to_le_bytes());
        hasher.update(body);
        Self(first_16(&hasher.finalize()))
    }
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One atomic batch with its place: `chain` is the chain hash *after* this record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The stream it belongs to.
    pub stream: StreamId,
    /// Its place there.
    pub lsn: Lsn,
    /// The chain hash after it.
    pub chain: ChainHash,
    /// Its bytes, see [`crate::Body`].
    pub body: Vec<u8>,
}

impl Record {
    /// Whether this record follows one whose chain hash is `before` (invariant 3: checked before it is used).
    #[must_use]
    pub fn follows(&self, before: ChainHash) -> bool {
        before.after(&self.stream.key(), self.lsn, &self.body) == self.chain
    }
}

/// Sixteen bytes as one MessagePack `bin`, not as an array of numbers.
pub(crate) mod bytes16 {
    use serde::{Deserializer, Serializer, de::Visitor};

    pub fn serialize<S: Serializer>(bytes: &[u8; 16], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 16], D::Error> {
        struct Sixteen;
        impl<'de> Visitor<'de> for Sixteen {
            type Value = [u8; 16];
            fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str("16 bytes")
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))
            }
        }
        deserializer.deserialize_bytes(Sixteen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NodeId, Run};

    #[test]
    fn a_record_follows_only_its_own_predecessor() {
        let stream = StreamId { site: "s".parse().unwrap(), node: NodeId([7; 16]), run: Run(1) };
        let chain = ChainHash::GENESIS.after(&stream.key(), Lsn(1), b"body");
        let record = Record { stream, lsn: Lsn(1), chain, body: b"body".to_vec() };
        assert!(record.follows(ChainHash::GENESIS));
        assert!(!record.follows(ChainHash([1; 16])));
        assert!(!Record { lsn: Lsn(2), ..record.clone() }.follows(ChainHash::GENESIS));
        assert!(!Record { body: b"bodx".to_vec(), ..record }.follows(ChainHash::GENESIS));
    }

    #[test]
    fn hashes_travel_as_sixteen_binary_bytes() {
        let bytes = rmp_serde::to_vec(&ChainHash([9; 16])).unwrap();
        assert_eq!(bytes.len(), 18, "bin8 header and sixteen bytes");
        assert_eq!(rmp_serde::from_slice::<ChainHash>(&bytes).unwrap(), ChainHash([9; 16]));
        assert!(rmp_serde::from_slice::<ChainHash>(&[0xc4, 2, 0, 0]).is_err());
    }
}
