//! The bodies of one log file's records as they are packed, and unpacked again in the order of the frames. From time to time it begins anew,
//! so that a walk can begin there, and rot in one frame costs only those behind it up to there. It knows no file.

use tidelog_record::{Packer, Spelling, Unpacker};

use crate::frame::{RecordFrame, Stored};

/// Bytes of frames after which packing begins anew, if there was little to learn.
const ANEW_EVERY_BYTES_MIN: u64 = 64 * 1024;
/// Otherwise, as many times what it took to learn the names.
const ANEW_EVERY_LEARNT: u64 = 8;
/// Series that are remembered; with more it begins anew. Some 200 bytes each.
const SERIES_MAX: usize = 65_536;

/// The writing end.
#[derive(Debug, Default)]
pub(crate) struct Packing {
    /// It begins anew after so many bytes at least; zero: nothing is packed.
    bytes_max: u64,
    packer: Packer,
    /// Where it began anew; it has not yet.
    from: Option<u64>,
    packed: Vec<u8>,
}

impl Packing {
    /// For a file of which so many bytes may be told from one another.
    pub fn new(bytes_max: u64) -> Self {
        Self { bytes_max, ..Self::default() }
    }

    /// Nothing from here on is told from what was before.
    pub fn begin_anew(&mut self) {
        (self.packer, self.from) = (Packer::default(), None);
    }

    /// Packs the body of a frame that will stand at `offset`, if it can be; whether packing begins anew with that frame.
    pub fn pack(&mut self, offset: u64, body: &[u8]) -> (bool, Option<(&[u8], Spelling)>) {
        if self.bytes_max == 0 {
            return (true, None);
        }
        let learnt = (self.packer.learnt_bytes() as u64).saturating_mul(ANEW_EVERY_LEARNT);
        let every = learnt.max(ANEW_EVERY_BYTES_MIN).min(self.bytes_max);
        if self.from.is_some_and(|from| offset - from >= every) || self.packer.series() > SERIES_MAX {
            self.begin_anew();
        }
        let mut anew = self.from.is_none();
        self.packed.clear();
        let mut spelling = None;
        if Packer::takes(body) {
            spelling = self.packer.pack(body, &mut self.packed);
            if spelling.is_none() {
                self.begin_anew();
                anew = true;
            }
        }
        if anew {
            self.from = Some(offset);
        }
        (anew, spelling.map(|spelling| (self.packed.as_slice(), spelling)))
    }
}

/// The reading end: of frames that are handed to it one after the other.
#[derive(Debug, Default)]
pub(crate) struct Bodies {
    /// None where what the next is told from was not read.
    unpacker: Option<Unpacker>,
    body: Vec<u8>,
}

impl Bodies {
    /// The record of the next frame; `None` if what its body is told from was not read, or it is not what was packed.
    pub fn next<'b>(&'b mut self, stored: &Stored<'b>) -> Option<RecordFrame<'b>> {
        if stored.anew {
            self.unpacker = Some(Unpacker::default());
        }
        let body = match stored.packed {
            None => stored.bytes,
            Some(crc) => {
                let unpacked = self.unpacker.as_mut().map(|it| it.unpack(stored.bytes, &mut self.body));
                if !matches!(unpacked, Some(Ok(()))) || crc32fast::hash(&self.body) != crc {
                    self.unpacker = None;
                    return None;
                }
                &self.body
            }
        };
        let Stored { key, lsn, chain, .. } = *stored;
        Some(RecordFrame { key, lsn, chain, body })
    }

    /// The body of the record that was read last, or is held.
    pub fn held(&self) -> &[u8] {
        &self.body
    }

    /// Holds a body that stands in its frame as it is.
    pub fn hold(&mut self, body: &[u8]) {
        self.body.clear();
        self.body.extend_from_slice(body);
    }

    /// Something before the next frame could not be read.
    pub fn lost(&mut self) {
        self.unpacker = None;
    }
}
