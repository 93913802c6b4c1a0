//! Finding the log on a flash again, whatever moment the power went at; or making one where there is none.
//!
//! Bounded: every block's header is read twice at most, the newest block once, the one after it once. What may be
//! written: the block after the newest is erased if it is not blank; a flash without any valid header is formatted.

use embedded_storage::nor_flash::NorFlash;

use crate::BLOCKS_MIN;
use crate::layout::{
    BlockHeader, CURSOR_BYTES, KIND_CURSOR, KIND_NOTES, KIND_PAYLOAD, KIND_RESERVATION, Notes,
    PAYLOAD_BYTES_MAX, Progress,
};
use crate::log::{Error, FlashLog};
use crate::read::{Bookmark, SCRATCH};

/// The flash is scanned in pieces of this size, in bytes.
const SCAN_BYTES: u32 = 64;

impl<F: NorFlash> FlashLog<F> {
    /// Opens the log on `flash`. Where none is, one is made; `entropy` becomes its epoch and should be random.
    ///
    /// # Errors
    /// [`Error::Geometry`]: too few blocks, or a log of another size; nothing is changed. Otherwise as the flash fails.
    pub fn open(flash: F, entropy: u32) -> Result<Self, Error<F::Error>> {
        let blocks = u32::try_from(flash.capacity()).unwrap_or(u32::MAX) / Self::BLOCK;
        if blocks < BLOCKS_MIN {
            return Err(Error::Geometry { blocks });
        }
        let mut log = Self {
            flash,
            epoch: entropy,
            blocks,
            newest: 0,
            newest_first: 1,
            write_at: Self::FIRST_RECORD,
            oldest: 0,
            oldest_end: 1,
            next_seq: 1,
            progress: Progress { cursor: 0, lost: 0 },
            reserved: 0,
            notes: Notes::default(),
            bookmark: Bookmark::NONE,
            untried: true,
            stopped: false,
        };
        match log.find_newest()? {
            Some(header) => log.mount(&header)?,
            None => log.format()?,
        }
        Ok(log)
    }

    /// The spare block first, so that a header means a usable log.
    fn format(&mut self) -> Result<(), Error<F::Error>> {
        self.erase(1)?;
        self.erase(0)?;
        self.write_header(0)
    }

    fn find_newest(&mut self) -> Result<Option<BlockHeader>, Error<F::Error>> {
        let mut newest: Option<BlockHeader> = None;
        for index in 0..self.blocks {
            let Some(header) = self.header_of(index)? else { continue };
            if header.blocks != self.blocks || header.turn % self.blocks != index {
                return Err(Error::Geometry { blocks: self.blocks });
            }
            if newest.is_none_or(|newest| newest.turn < header.turn) {
                newest = Some(header);
            }
        }
        Ok(newest)
    }

    fn mount(&mut self, newest: &BlockHeader) -> Result<(), Error<F::Error>> {
        self.epoch = newest.epoch;
        (self.newest, self.newest_first) = (newest.turn, newest.first_seq);
        self.progress = newest.progress;
        self.reserved = newest.reserved;
        let opened_end = self.scan_newest(newest)?;
        let oldest_first = self.find_oldest(newest)?;
        self.oldest_end = self.end_of(self.oldest)?;
        self.make_spare(newest.turn.wrapping_add(1), opened_end)?;
        // An eviction that no cursor tells of: what was unacknowledged below the oldest block is lost.
        let Progress { cursor, lost } = self.progress;
        if oldest_first > cursor + 1 {
            self.progress = Progress { cursor: oldest_first - 1, lost: lost + (oldest_first - 1 - cursor) };
        }
        Ok(())
    }

    /// Finds the last sequence number, the last cursor, the notes, and where it is safe to write on. Returns where the notes
    /// end that the block was opened with.
    fn scan_newest(&mut self, newest: &BlockHeader) -> Result<u32, Error<F::Error>> {
        let written = self.written_end(newest.turn, Self::FIRST_RECORD)?;
        let (mut at, mut expected) = (Self::FIRST_RECORD, newest.first_seq);
        let mut scratch = SCRATCH;
        let (mut end, mut opened_end) = (at, at);
        while at < written {
            let Some(found) = self.record_at(newest.turn, at, expected, &mut scratch)? else {
                at += Self::WORD;
                continue;
            };
            if found.kind == KIND_NOTES && at == Self::FIRST_RECORD {
                opened_end += found.stride;
            }
            at += found.stride;
            end = at;
            expected = found.seq;
            match found.kind {
                KIND_PAYLOAD => expected = found.seq + 1,
                KIND_CURSOR => {
                    self.progress =
                        scratch.get(..found.length).and_then(Progress::from_bytes).unwrap_or(self.progress);
                }
                KIND_RESERVATION => {
                    let upto = scratch.get(..found.length).and_then(|bytes| bytes.try_into().ok());
                    self.reserved = self.reserved.max(upto.map_or(0, u32::from_le_bytes));
                }
                KIND_NOTES => self.notes.take(scratch.get(..found.length).unwrap_or_default()),
                _ => {}
            }
        }
        self.next_seq = expected;
        // The word after the last may have been under way when the power went, and still look blank.
        self.write_at = (written.max(end) + Self::WORD).min(Self::BLOCK);
        Ok(opened_end)
    }

    /// Walks back from the newest block as long as the turns follow each other; the oldest one's first sequence number.
    fn find_oldest(&mut self, newest: &BlockHeader) -> Result<u64, Error<F::Error>> {
        let mut oldest = *newest;
        // The block after the newest is to be erased, so it holds nothing even if it still looks so.
        while newest.turn - oldest.turn + 2 < self.blocks && oldest.turn > 0 {
            match self.header_of(oldest.turn - 1)? {
                Some(before)
                    if before.epoch == oldest.epoch
                        && before.turn + 1 == oldest.turn
                        && before.first_seq <= oldest.first_seq =>
                {
                    oldest = before;
                }
                _ => break,
            }
        }
        self.oldest = oldest.turn;
        Ok(oldest.first_seq)
    }

    /// Makes sure that the block after the newest is erased. Flash that lost power in its first or last moment of being
    /// written or erased may look blank and not be so: where that can have been, it is erased whatever it looks like.
    fn make_spare(&mut self, turn: u32, opened_end: u32) -> Result<(), Error<F::Error>> {
        let erased_lately = self.write_at <= opened_end + Self::WORD;
        let room = Self::stride(PAYLOAD_BYTES_MAX).max(Self::stride(CURSOR_BYTES) + Self::RESERVATIONS_ROOM);
        let opened_soon = self.write_at + room > Self::BLOCK;
        if erased_lately || opened_soon || !self.is_blank(turn)? { self.erase(turn) } else { Ok(()) }
    }

    fn is_blank(&mut self, turn: u32) -> Result<bool, Error<F::Error>> {
        Ok(self.scan_written(turn, 0)? == 0)
    }

    /// Offset behind the last word of a block, from this one on, that does not look blank.
    pub(crate) fn written_end(&mut self, turn: u32, from: u32) -> Result<u32, Error<F::Error>> {
        Ok(self.scan_written(turn, from)?.max(from))
    }

    /// Offset behind the last byte at or behind `from` that is not 0xff, rounded up to words; 0 when there is none.
    fn scan_written(&mut self, turn: u32, from: u32) -> Result<u32, Error<F::Error>> {
        let start = self.start(turn);
        let mut bytes = [0u8; 64];
        let mut piece = Self::BLOCK;
        while piece > from / SCAN_BYTES * SCAN_BYTES {
            piece -= SCAN_BYTES;
            self.flash.read(start + piece, &mut bytes).map_err(Error::Flash)?;
            if let Some(last) = bytes.iter().rposition(|byte| *byte != 0xff) {
                let end = piece + u32::try_from(last).unwrap_or(SCAN_BYTES) + 1;
                return Ok(if end > from { end.next_multiple_of(Self::WORD) } else { 0 });
            }
        }
        Ok(0)
    }
}
