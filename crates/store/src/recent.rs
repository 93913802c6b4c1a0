//! The newest records as they were written, in memory: whoever follows the log's end, and whoever seals what was just written, need neither
//! read nor unpack them. It knows no file; what is not here any more is in the log.

use std::collections::VecDeque;
use std::sync::{Arc, RwLock};

use tidelog_record::{ChainHash, Lsn, StreamKey};

use crate::frame::RecordFrame;
use crate::shared::{read_locked, write_locked};

/// What a record takes beside its body: itself, its place, and what the allocator keeps of both.
const RECORD_COST_BYTES: usize = size_of::<Newest>() + 48;

/// Records that are handed out at once.
const HANDED_OUT_MAX: usize = 64;

/// A record with its position in the log.
#[derive(Debug)]
pub(crate) struct Newest {
    pub position: u64,
    pub key: StreamKey,
    pub lsn: Lsn,
    pub chain: ChainHash,
    pub body: Vec<u8>,
}

impl Newest {
    pub fn frame(&self) -> RecordFrame<'_> {
        RecordFrame { key: self.key, lsn: self.lsn, chain: self.chain, body: &self.body }
    }
}

/// Records of consecutive positions, the newest last.
#[derive(Debug, Default)]
struct Ring {
    records: VecDeque<Arc<Newest>>,
    bytes: usize,
}

#[derive(Debug)]
pub(crate) struct Recent {
    bytes_max: usize,
    ring: RwLock<Ring>,
}

impl Recent {
    /// Holds records of so many bytes in memory at most.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, ring: RwLock::default() }
    }

    /// Takes in the records of a commit, in order of position.
    pub fn push(&self, records: impl Iterator<Item = Newest>) {
        if self.bytes_max == 0 {
            return;
        }
        let mut ring = write_locked(&self.ring);
        for record in records {
            if ring.records.back().is_some_and(|last| last.position + 1 != record.position) {
                *ring = Ring::default();
            }
            ring.bytes += record.body.len() + RECORD_COST_BYTES;
            ring.records.push_back(Arc::new(record));
            while ring.bytes > self.bytes_max {
                let Some(oldest) = ring.records.pop_front() else { break };
                ring.bytes -= oldest.body.len() + RECORD_COST_BYTES;
            }
        }
    }

    /// Some records from `position` on, if that one is here.
    pub fn from(&self, position: u64) -> Vec<Arc<Newest>> {
        let ring = read_locked(&self.ring);
        let first = ring.records.front().map_or(u64::MAX, |record| record.position);
        let skip = position.checked_sub(first).and_then(|skip| usize::try_from(skip).ok());
        let from = skip.map(|skip| ring.records.iter().skip(skip).take(HANDED_OUT_MAX));
        from.into_iter().flatten().cloned().collect()
    }
}
