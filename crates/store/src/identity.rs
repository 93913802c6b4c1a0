//! The file that says whose store this is and which run its author is in (docs/FORMAT.md). It is replaced whole.
//!
//! ```text
//! identity := magic 8 | version u16 | node 16 | run u64 | crc u32        little-endian
//! ```

use tidelog_record::{NodeId, Run};

use crate::frame::Fields;

pub(crate) const FILE_NAME: &str = "identity";
pub(crate) const VERSION: u16 = 1;
const MAGIC: [u8; 8] = *b"tideid\r\n";
pub(crate) const BYTES: usize = 38;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub node: NodeId,
    pub run: Run,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum IdentityError {
    Damaged,
    Version(u16),
}

impl Identity {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.node.0);
        out.extend_from_slice(&self.run.0.to_le_bytes());
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, IdentityError> {
        let (checked, crc) = bytes.split_last_chunk::<4>().ok_or(IdentityError::Damaged)?;
        if crc32fast::hash(checked) != u32::from_le_bytes(*crc) {
            return Err(IdentityError::Damaged);
        }
        let mut fields = Fields(checked);
        if fields.array() != Some(MAGIC) {
            return Err(IdentityError::Damaged);
        }
        match fields.array().map(u16::from_le_bytes) {
            Some(VERSION) => {}
            Some(other) => return Err(IdentityError::Version(other)),
            None => return Err(IdentityError::Damaged),
        }
        let mut read = || Some(Self { node: NodeId(fields.array()?), run: Run(fields.u64()?) });
        let identity = read().ok_or(IdentityError::Damaged)?;
        if fields.0.is_empty() { Ok(identity) } else { Err(IdentityError::Damaged) }
    }
}
