//! The log's reading side: seek by sequence number, walk records, pass over what a power cut tore.
//!
//! Reading in order continues at a bookmark: two reads of the flash per record. A seek elsewhere is a binary search
//! over block headers and a walk within one block.

use embedded_storage::nor_flash::NorFlash;

use crate::layout::{BlockHeader, HEAD_BYTES, HEADER_BYTES, KIND_PAYLOAD, RECORD_BYTES_MAX, RecordHead};
use crate::log::{Error, FlashLog};

/// Where the next payload in order is to be looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bookmark {
    pub turn: u32,
    /// Offset in the block.
    pub at: u32,
    /// The sequence number expected there.
    pub seq: u64,
    /// The first sequence number behind the block. Not used for the newest block.
    pub end: u64,
}

impl Bookmark {
    /// Sequence number 0 is never asked for.
    pub const NONE: Self = Self { turn: 0, at: 0, seq: 0, end: 0 };

    /// The newest block was closed.
    pub fn close(&mut self, turn: u32, end: u64) {
        if self.turn == turn {
            self.end = end;
        }
    }
}

/// A record that was found whole; its payload stands in the caller's buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub kind: u8,
    pub seq: u64,
    pub length: usize,
    pub stride: u32,
}

/// Room for any record's payload, rounded up to a read.
pub(crate) type Scratch = [u8; RECORD_BYTES_MAX + 8];
pub(crate) const SCRATCH: Scratch = [0; RECORD_BYTES_MAX + 8];

impl<F: NorFlash> FlashLog<F> {
    /// The first payload behind sequence number `seq` that is held and whole, copied into `buffer` (at least
    /// [`crate::PAYLOAD_BYTES_MAX`] bytes): its number and length. `None` when there is none. A number that skips some means
    /// that those can't be read: acknowledged and erased, lost, or rotten.
    ///
    /// # Errors
    /// [`Error::Flash`], [`Error::Rotten`]; [`Error::TooLong`] when `buffer` is too short.
    pub fn read_after(
        &mut self,
        seq: u64,
        buffer: &mut [u8],
    ) -> Result<Option<(u64, usize)>, Error<F::Error>> {
        let wanted = seq.saturating_add(1);
        if wanted >= self.next_seq {
            return Ok(None);
        }
        let mut mark = if self.bookmark.seq == wanted { self.bookmark } else { self.seek(wanted)? };
        let mut scratch = SCRATCH;
        loop {
            let newest = mark.turn == self.newest;
            let (end, limit) = if newest { (self.next_seq, self.write_at) } else { (mark.end, Self::BLOCK) };
            while mark.seq < end && mark.at < limit {
                let Some(found) = self.record_at(mark.turn, mark.at, mark.seq, &mut scratch)? else {
                    mark.at += Self::WORD;
                    continue;
                };
                mark.at += found.stride;
                mark.seq = found.seq;
                if found.kind == KIND_PAYLOAD {
                    mark.seq = found.seq + 1;
                    if found.seq >= wanted {
                        self.bookmark = mark;
                        let payload = scratch.get(..found.length).ok_or(Error::TooLong)?;
                        buffer.get_mut(..found.length).ok_or(Error::TooLong)?.copy_from_slice(payload);
                        return Ok(Some((found.seq, found.length)));
                    }
                }
            }
            if newest {
                return Ok(None);
            }
            mark = self.start_of(mark.turn + 1)?;
        }
    }

    /// The bookmark at the start of the block that holds `wanted`, or of the oldest one.
    fn seek(&mut self, wanted: u64) -> Result<Bookmark, Error<F::Error>> {
        let (mut low, mut high) = (self.oldest, self.newest);
        if wanted >= self.newest_first {
            low = high;
        }
        // Invariant: the block looked for is in low..=high.
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if self.first_of(middle)? <= wanted { low = middle } else { high = middle - 1 }
        }
        self.start_of(low)
    }

    fn start_of(&mut self, turn: u32) -> Result<Bookmark, Error<F::Error>> {
        Ok(Bookmark { turn, at: Self::FIRST_RECORD, seq: self.first_of(turn)?, end: self.end_of(turn)? })
    }

    fn first_of(&mut self, turn: u32) -> Result<u64, Error<F::Error>> {
        if turn == self.newest {
            return Ok(self.newest_first);
        }
        let header = self.header_of(turn)?.filter(|header| header.epoch == self.epoch && header.turn == turn);
        header.map(|header| header.first_seq).ok_or(Error::Rotten)
    }

    /// The first sequence number behind a block.
    pub(crate) fn end_of(&mut self, turn: u32) -> Result<u64, Error<F::Error>> {
        if turn == self.newest { Ok(self.next_seq) } else { self.first_of(turn + 1) }
    }

    pub(crate) fn header_of(&mut self, turn: u32) -> Result<Option<BlockHeader>, Error<F::Error>> {
        let mut bytes = [0u8; HEADER_BYTES];
        self.flash.read(self.start(turn), &mut bytes).map_err(Error::Flash)?;
        Ok(BlockHeader::from_bytes(&bytes))
    }

    /// The record at this place, if a whole one stands there. `expected` is the lowest sequence number it can have.
    pub(crate) fn record_at(
        &mut self,
        turn: u32,
        at: u32,
        expected: u64,
        scratch: &mut Scratch,
    ) -> Result<Option<Found>, Error<F::Error>> {
        let mut head = [0u8; HEAD_BYTES];
        if at + Self::HEAD > Self::BLOCK {
            return Ok(None);
        }
        let start = self.start(turn) + at;
        self.flash.read(start, &mut head).map_err(Error::Flash)?;
        let Some(head) = RecordHead::from_bytes(head) else { return Ok(None) };
        let length = usize::from(head.length);
        let stride = Self::stride(length);
        let rounded = length.next_multiple_of(4);
        if at + stride > Self::BLOCK {
            return Ok(None);
        }
        let payload = scratch.get_mut(..rounded).ok_or(Error::TooLong)?;
        self.flash.read(start + Self::HEAD, payload).map_err(Error::Flash)?;
        let seq = head.seq(expected);
        let payload = payload.get(..length).ok_or(Error::TooLong)?;
        let whole = head.checksum(self.epoch, turn, seq, payload) == head.crc;
        Ok(whole.then_some(Found { kind: head.kind, seq, length, stride }))
    }
}
