//! The file that says whose store this is and which run its author is in (docs/FORMAT.md). It is replaced whole.
//!
//! ```text
//! identity := magic 8 | version u16 | node 16 | run u64 | crc u32        little-endian
//! ```

use std::io;
use std::path::Path;

use tidelog_record::{NodeId, Run};

use crate::disk::{Disk, write_atomically};
use crate::frame::Fields;
use crate::recovery::move_to_quarantine;

pub(crate) const FILE_NAME: &str = "identity";
pub(crate) const VERSION: u16 = 1;
const MAGIC: [u8; 8] = *b"tideid\r\n";
pub(crate) const BYTES: usize = 38;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub node: NodeId,
    pub run: Run,
}

/// An identity that the disk does not hold yet. Nothing is written under its run before it does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unwritten {
    pub identity: Identity,
    /// A file that cannot be read is in its place.
    pub replaces_damage: bool,
}

impl Unwritten {
    pub fn write(&self, disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        let is_there = || Ok::<_, io::Error>(disk.list(dir)?.iter().any(|name| name == FILE_NAME));
        if self.replaces_damage && is_there()? {
            move_to_quarantine(disk, dir, dir, FILE_NAME)?;
        }
        write_atomically(disk, dir, FILE_NAME, &self.identity.encode())
    }
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
