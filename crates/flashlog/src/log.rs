//! The log's state in memory and its writing side: append, move the cursor, open the next block.
//!
//! Invariants, kept by the order of writes in [`FlashLog::open_next`]: the block after the newest is always erased;
//! the newest block's header carries the progress from before the block after it is erased, so that a mount works out
//! from what is left exactly how many payloads an interrupted eviction took. The notes stand in a block before its header
//! does, so a block with a header has them all.

use embedded_storage::nor_flash::NorFlash;

use crate::layout::{
    BlockHeader, CURSOR_BYTES, HEAD_BYTES, HEADER_BYTES, KIND_CURSOR, KIND_NOTES, KIND_PAYLOAD,
    KIND_RESERVATION, NOTE_BYTES, NOTES_MAX, Notes, PAYLOAD_BYTES_MAX, Progress, RECORD_BYTES_MAX,
    RESERVATION_BYTES, RecordHead,
};
use crate::read::Bookmark;

/// Most words that the first record of a life is moved on by where the flash refuses it.
const MOVED_WORDS_MAX: u32 = 8;
/// Most room kept for reservations, in bytes.
const RESERVATIONS_ROOM_MAX: u32 = 256;

/// Why the log refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error<E> {
    /// The flash failed while reading; nothing changed.
    #[error("the flash failed: {0:?}")]
    Flash(E),
    /// The flash failed while writing, now or earlier: open the log again, nothing that was appended is lost.
    #[error("a write to the flash failed; open the log again")]
    Stopped,
    /// Fewer blocks than a log needs, or a log of another size stands there. Nothing was changed.
    #[error("the flash has {blocks} blocks: too few, or not those of the log on it")]
    Geometry {
        /// Blocks of the flash.
        blocks: u32,
    },
    /// The payload is longer than [`PAYLOAD_BYTES_MAX`].
    #[error("a payload has at most {PAYLOAD_BYTES_MAX} bytes")]
    TooLong,
    /// Acknowledged was what was never appended.
    #[error("only {head} were appended")]
    Unwritten {
        /// The last sequence number.
        head: u64,
    },
    /// There is no such note.
    #[error("notes have the slots 0 to {}", NOTES_MAX - 1)]
    NoSlot,
    /// A block that was there at the mount can't be read any more: open the log again.
    #[error("a block's header is rotten; open the log again")]
    Rotten,
    /// The flash outlived the block counter.
    #[error("the block counter is at its end")]
    WornOut,
}

/// An append-only log on the whole of `F`.
#[derive(Debug)]
pub struct FlashLog<F> {
    pub(crate) flash: F,
    pub(crate) epoch: u32,
    pub(crate) blocks: u32,
    /// Turn and first sequence number of the block being written.
    pub(crate) newest: u32,
    pub(crate) newest_first: u64,
    /// Where the next record goes in it.
    pub(crate) write_at: u32,
    /// The oldest block that is held, and the first sequence number behind it.
    pub(crate) oldest: u32,
    pub(crate) oldest_end: u64,
    pub(crate) next_seq: u64,
    pub(crate) progress: Progress,
    pub(crate) reserved: u32,
    pub(crate) notes: Notes,
    pub(crate) bookmark: Bookmark,
    /// Whether no record was written since the log was opened.
    pub(crate) untried: bool,
    pub(crate) stopped: bool,
}

impl<F: NorFlash> FlashLog<F> {
    /// Records start at multiples of this, in bytes.
    pub(crate) const WORD: u32 = {
        assert!(F::READ_SIZE <= 4 && 4 % F::READ_SIZE == 0, "reads of up to 4 bytes");
        assert!(F::WRITE_SIZE <= 8 && 8 % F::WRITE_SIZE == 0, "words of up to 8 bytes");
        if F::WRITE_SIZE > 4 { 8 } else { 4 }
    };
    /// Size of an erase block, in bytes.
    pub(crate) const BLOCK: u32 = {
        assert!(F::ERASE_SIZE.is_multiple_of(64), "erase blocks of whole pieces of 64 bytes");
        assert!(F::ERASE_SIZE >= 512 && F::ERASE_SIZE <= 1 << 24, "erase blocks of 512 bytes to 16 MiB");
        #[expect(clippy::cast_possible_truncation, reason = "at most 2^24, as just asserted")]
        let block = F::ERASE_SIZE as u32;
        block
    };
    /// Room at the end of a block that only reservations take while the flash is full of what is unacknowledged: with blocks of
    /// 2 KiB and more, 16 of them with a power cut after each.
    pub(crate) const RESERVATIONS_ROOM: u32 =
        if Self::BLOCK / 8 < RESERVATIONS_ROOM_MAX { Self::BLOCK / 8 } else { RESERVATIONS_ROOM_MAX };
    /// Offset of a block's first record.
    #[expect(clippy::cast_possible_truncation, reason = "48")]
    pub(crate) const FIRST_RECORD: u32 = HEADER_BYTES as u32;
    /// Offset of a record's payload.
    #[expect(clippy::cast_possible_truncation, reason = "8")]
    pub(crate) const HEAD: u32 = HEAD_BYTES as u32;

    /// Where a block starts in the flash.
    pub(crate) fn start(&self, turn: u32) -> u32 {
        (turn % self.blocks) * Self::BLOCK
    }

    /// What a payload of this length takes, in bytes.
    pub(crate) fn stride(length: usize) -> u32 {
        u32::try_from(HEAD_BYTES + length).unwrap_or(Self::BLOCK).next_multiple_of(Self::WORD)
    }

    /// The life of this log: drawn when it was formatted, so that (epoch, sequence number) names a payload for ever.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The last sequence number; 0 when nothing was appended.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.next_seq - 1
    }

    /// Everything up to this sequence number was acknowledged or lost.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.progress.cursor
    }

    /// How many payloads were lost unacknowledged since the log was formatted, exactly.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.progress.lost
    }

    /// The reservation: numbers below it may have been used, in this life or an earlier one; 0 at first.
    #[must_use]
    pub fn reserved(&self) -> u32 {
        self.reserved
    }

    /// The note in this slot; `None` where none was ever made in this life of the log.
    #[must_use]
    pub fn noted(&self, slot: u8) -> Option<u64> {
        self.notes.0.get(usize::from(slot)).copied().flatten()
    }

    /// The flash below.
    pub fn flash_mut(&mut self) -> &mut F {
        &mut self.flash
    }

    /// Gives the flash back.
    pub fn into_flash(self) -> F {
        self.flash
    }

    /// Whether a payload of `length` bytes can be appended without losing an unacknowledged one.
    #[must_use]
    pub fn fits(&self, length: usize) -> bool {
        self.in_block(Self::stride(length) + Self::RESERVATIONS_ROOM) || !self.next_block_evicts()
    }

    /// Bytes that can be appended before an unacknowledged payload is lost, heads of records included; a lower bound.
    #[must_use]
    pub fn room(&self) -> u32 {
        let here = Self::BLOCK.saturating_sub(self.write_at + Self::RESERVATIONS_ROOM);
        let used = self.newest - self.oldest + 1;
        let oldest_can_go = u32::from(self.oldest_end <= self.progress.cursor + 1);
        // One block stays erased ahead of the newest.
        let blocks = self.blocks.saturating_sub(used + 1) + oldest_can_go;
        here.saturating_add(blocks.saturating_mul(Self::BLOCK - Self::FIRST_RECORD))
    }

    /// Raises the reservation; when it returns, no power cut takes it back. For numbers that must never be used twice:
    /// reserve some ahead, use those, and begin behind [`reserved`](Self::reserved) after a restart. When the flash is full
    /// of unacknowledged payloads and the room kept for this is used up, the oldest block of them goes, as with
    /// [`append`](Self::append).
    ///
    /// # Errors
    /// [`Error::Stopped`], [`Error::WornOut`]; then none of the numbers may be used.
    pub fn reserve(&mut self, upto: u32) -> Result<(), Error<F::Error>> {
        if upto <= self.reserved {
            return Ok(());
        }
        if self.in_block(Self::stride(RESERVATION_BYTES)) {
            self.put(KIND_RESERVATION, &upto.to_le_bytes())?;
            self.reserved = upto;
            return Ok(());
        }
        let before = core::mem::replace(&mut self.reserved, upto);
        // The header of the next block carries it.
        self.open_next().inspect_err(|_| self.reserved = before)
    }

    /// Makes a note, or writes it anew: when it returns, no power cut takes it back, and a cut before that leaves what was noted
    /// before. It is kept for as long as the log is; room is found for it as for [`reserve`](Self::reserve).
    ///
    /// # Errors
    /// [`Error::NoSlot`] from slot [`NOTES_MAX`] on; [`Error::Stopped`], [`Error::WornOut`]: then it is the one or the other
    /// when the log is opened again.
    pub fn note(&mut self, slot: u8, value: u64) -> Result<(), Error<F::Error>> {
        let before = self.notes;
        let mut note = Notes::default();
        *note.0.get_mut(usize::from(slot)).ok_or(Error::NoSlot)? = Some(value);
        let (bytes, length) = note.to_bytes();
        let bytes = bytes.get(..length).unwrap_or_default();
        if self.noted(slot) == Some(value) {
            return Ok(());
        }
        self.notes.take(bytes);
        let done = if self.in_block(Self::stride(NOTE_BYTES)) {
            self.put(KIND_NOTES, bytes)
        } else {
            // The next block begins with it.
            self.open_next()
        };
        done.inspect_err(|_| self.notes = before)
    }

    /// Appends a payload; when it returns, no power cut takes it away. When the flash is full of unacknowledged
    /// payloads, the oldest block of them goes and is counted in [`lost`](Self::lost): ask [`fits`](Self::fits) before
    /// if that is not wanted.
    ///
    /// # Errors
    /// [`Error`]; then it was not appended, unless a mount after [`Error::Stopped`] finds it.
    pub fn append(&mut self, payload: &[u8]) -> Result<u64, Error<F::Error>> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(Error::TooLong);
        }
        if !self.in_block(Self::stride(payload.len())) {
            self.open_next()?;
        }
        let seq = self.next_seq;
        self.put(KIND_PAYLOAD, payload)?;
        self.next_seq = seq + 1;
        if self.oldest == self.newest {
            self.oldest_end = self.next_seq;
        }
        Ok(seq)
    }

    /// Moves the cursor: everything up to `upto` is stored elsewhere.
    ///
    /// # Errors
    /// [`Error::Unwritten`] when nothing of that number was appended; [`Error::Stopped`].
    pub fn acknowledge(&mut self, upto: u64) -> Result<(), Error<F::Error>> {
        self.move_cursor(upto, 0)
    }

    /// Moves the cursor over payloads that can't be delivered, and counts them as lost. When the flash is full this may stand in
    /// memory only, as an acknowledgement may: a power cut forgets both the move and the count.
    ///
    /// # Errors
    /// As [`acknowledge`](Self::acknowledge).
    pub fn give_up(&mut self, upto: u64) -> Result<(), Error<F::Error>> {
        self.move_cursor(upto, upto.saturating_sub(self.progress.cursor))
    }

    fn move_cursor(&mut self, upto: u64, lost: u64) -> Result<(), Error<F::Error>> {
        if upto > self.head() {
            return Err(Error::Unwritten { head: self.head() });
        }
        if upto <= self.progress.cursor {
            return Ok(());
        }
        self.progress = Progress { cursor: upto, lost: self.progress.lost + lost };
        if self.in_block(Self::stride(CURSOR_BYTES) + Self::RESERVATIONS_ROOM) {
            self.put(KIND_CURSOR, &self.progress.to_bytes())
        } else if self.next_block_evicts() {
            // It stands in memory until the next block is opened. A power cut before that forgets it: what was
            // acknowledged is sent again and recognised by its number.
            Ok(())
        } else {
            self.open_next()
        }
    }

    fn in_block(&self, stride: u32) -> bool {
        self.write_at + stride <= Self::BLOCK
    }

    /// Whether opening the next block takes unacknowledged payloads with the oldest one.
    fn next_block_evicts(&self) -> bool {
        self.newest - self.oldest + 2 >= self.blocks && self.oldest_end > self.progress.cursor + 1
    }

    fn put(&mut self, kind: u8, payload: &[u8]) -> Result<(), Error<F::Error>> {
        let mut written = self.write_record(self.newest, self.write_at, kind, payload);
        let stride = Self::stride(payload.len());
        // Lives that ended in their first word may have left as many torn words that look blank: not one is used.
        for _ in 0..MOVED_WORDS_MAX {
            let next = self.write_at + Self::WORD;
            let moved = written.is_err()
                && self.untried
                && next + stride <= Self::BLOCK
                && self.written_end(self.newest, next).is_ok_and(|end| end == next);
            if !moved {
                break;
            }
            (self.write_at, self.stopped) = (next, false);
            written = self.write_record(self.newest, self.write_at, kind, payload);
        }
        self.write_at += written?;
        self.untried = false;
        Ok(())
    }

    /// Writes a record to a place in a block; what it takes there, in bytes.
    fn write_record(&mut self, turn: u32, at: u32, kind: u8, payload: &[u8]) -> Result<u32, Error<F::Error>> {
        let head = RecordHead::new(kind, self.epoch, turn, self.next_seq, payload).ok_or(Error::TooLong)?;
        let mut record = [0xffu8; RECORD_BYTES_MAX + 8];
        for (to, from) in record.iter_mut().zip(head.to_bytes().iter().chain(payload)) {
            *to = *from;
        }
        let stride = Self::stride(payload.len());
        let bytes =
            usize::try_from(stride).ok().and_then(|stride| record.get(..stride)).ok_or(Error::TooLong)?;
        self.write(self.start(turn) + at, bytes)?;
        Ok(stride)
    }

    /// Opens the erased block after the newest, then erases the one behind that, evicting what is in it. The header comes behind
    /// the notes: a power cut before it leaves the block before the newest, and this one to be erased again.
    fn open_next(&mut self) -> Result<(), Error<F::Error>> {
        let turn = self.newest.checked_add(1).filter(|turn| *turn < u32::MAX).ok_or(Error::WornOut)?;
        let (notes, length) = self.notes.to_bytes();
        let notes = notes.get(..length).unwrap_or_default();
        let carried =
            if length > 0 { self.write_record(turn, Self::FIRST_RECORD, KIND_NOTES, notes)? } else { 0 };
        self.write_header(turn)?;
        self.bookmark.close(self.newest, self.next_seq);
        if self.oldest == self.newest {
            self.oldest_end = self.next_seq;
        }
        (self.newest, self.newest_first) = (turn, self.next_seq);
        self.write_at = Self::FIRST_RECORD + carried;
        let evicted = if turn - self.oldest + 1 >= self.blocks { self.evict_oldest() } else { Ok(()) };
        // A block that is not erased must not be opened: whatever went wrong, a mount has to look at it.
        let erased = evicted.and_then(|()| self.erase(turn + 1));
        self.stopped |= erased.is_err();
        erased
    }

    /// Lets the oldest block go: what was unacknowledged in it is lost and counted.
    fn evict_oldest(&mut self) -> Result<(), Error<F::Error>> {
        let last = self.oldest_end - 1;
        let Progress { cursor, lost } = self.progress;
        self.progress = Progress { cursor: cursor.max(last), lost: lost + last.saturating_sub(cursor) };
        self.oldest += 1;
        self.oldest_end = self.end_of(self.oldest)?;
        if self.bookmark.turn < self.oldest {
            self.bookmark = Bookmark::NONE;
        }
        Ok(())
    }

    pub(crate) fn write_header(&mut self, turn: u32) -> Result<(), Error<F::Error>> {
        let header = BlockHeader {
            epoch: self.epoch,
            turn,
            blocks: self.blocks,
            first_seq: self.next_seq,
            progress: self.progress,
            reserved: self.reserved,
        };
        self.write(self.start(turn), &header.to_bytes())
    }

    fn write(&mut self, at: u32, bytes: &[u8]) -> Result<(), Error<F::Error>> {
        if self.stopped {
            return Err(Error::Stopped);
        }
        self.flash.write(at, bytes).map_err(|_| {
            self.stopped = true;
            Error::Stopped
        })
    }

    pub(crate) fn erase(&mut self, turn: u32) -> Result<(), Error<F::Error>> {
        if self.stopped {
            return Err(Error::Stopped);
        }
        let start = self.start(turn);
        self.flash.erase(start, start + Self::BLOCK).map_err(|_| {
            self.stopped = true;
            Error::Stopped
        })
    }
}
