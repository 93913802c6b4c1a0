//! The bytes of a block's header and of a record (`docs/FLASH.md`). Pure: bytes in, checked values out.
//!
//! ```text
//! block    header [48] | records, each at a multiple of the word | never written: 0xff
//! header    0 "TLF1" | 4 epoch u32 | 8 turn u32 | 12 blocks u32 | 16 first seq u64 | 24 cursor u64 | 32 lost u64
//!          40 reserved u32 | 44 CRC-32 of 0..44                                                   all little-endian
//! record    0 length u8 | 1 kind u8 | 2 low half-word of seq u16
//!           4 CRC-32 of epoch u32, turn u32, seq u64, bytes 0..4, payload
//!           8 payload [length] | 0xff up to a multiple of the word
//! kind      1 payload of the log's user   2 cursor: payload = cursor u64, lost u64
//!           3 reservation: payload = reserved u32   4 notes: payload = { slot u8, value u64 }
//!           others are passed over
//! ```

use tidelog_record::crc32_of_parts;

/// Notes that a log keeps: their slots are the numbers below this.
pub const NOTES_MAX: usize = 4;

/// Longest payload of one record, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 240;

pub(crate) const HEADER_BYTES: usize = 48;
pub(crate) const HEAD_BYTES: usize = 8;
pub(crate) const RECORD_BYTES_MAX: usize = HEAD_BYTES + PAYLOAD_BYTES_MAX;
pub(crate) const CURSOR_BYTES: usize = 16;
pub(crate) const RESERVATION_BYTES: usize = 4;
pub(crate) const NOTE_BYTES: usize = 9;

pub(crate) const KIND_PAYLOAD: u8 = 1;
pub(crate) const KIND_CURSOR: u8 = 2;
pub(crate) const KIND_RESERVATION: u8 = 3;
pub(crate) const KIND_NOTES: u8 = 4;

const MAGIC: [u8; 4] = *b"TLF1";
const HEADER_CRC_AT: usize = 44;

/// How far the log's user got: what is acknowledged or lost, and how many of those were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Everything up to this sequence number was acknowledged or lost.
    pub cursor: u64,
    /// How many were lost since the log was formatted.
    pub lost: u64,
}

impl Progress {
    pub fn to_bytes(self) -> [u8; CURSOR_BYTES] {
        let mut bytes = [0; CURSOR_BYTES];
        let (cursor, lost) = bytes.split_at_mut(8);
        cursor.copy_from_slice(&self.cursor.to_le_bytes());
        lost.copy_from_slice(&self.lost.to_le_bytes());
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (cursor, rest) = bytes.split_first_chunk()?;
        let lost = rest.first_chunk().filter(|_| rest.len() == 8)?;
        Some(Self { cursor: u64::from_le_bytes(*cursor), lost: u64::from_le_bytes(*lost) })
    }
}

/// The notes, by slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notes(pub [Option<u64>; NOTES_MAX]);

impl Notes {
    /// Those that are there, as a record holds them; the length.
    pub fn to_bytes(self) -> ([u8; NOTES_MAX * NOTE_BYTES], usize) {
        let mut bytes = [0; NOTES_MAX * NOTE_BYTES];
        let mut length = 0;
        let there = (0u8..).zip(self.0).filter_map(|(slot, note)| note.map(|value| (slot, value)));
        for (to, (slot, value)) in bytes.chunks_exact_mut(NOTE_BYTES).zip(there) {
            if let Some((first, rest)) = to.split_first_mut() {
                *first = slot;
                rest.copy_from_slice(&value.to_le_bytes());
            }
            length += NOTE_BYTES;
        }
        (bytes, length)
    }

    /// Takes over what a record says. Slots that are not known here are passed over.
    pub fn take(&mut self, bytes: &[u8]) {
        for note in bytes.chunks_exact(NOTE_BYTES) {
            let Some((slot, value)) = note.split_first() else { continue };
            let value = value.first_chunk().map(|value| u64::from_le_bytes(*value));
            if let (Some(place), Some(value)) = (self.0.get_mut(usize::from(*slot)), value) {
                *place = Some(value);
            }
        }
    }
}

/// What stands at the start of each block that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockHeader {
    /// The life of the log: drawn when it was formatted.
    pub epoch: u32,
    /// Counts opened blocks; the block stands at index `turn % blocks`.
    pub turn: u32,
    /// Blocks in the log.
    pub blocks: u32,
    /// Sequence number of the first payload in the block.
    pub first_seq: u64,
    /// When the block was opened.
    pub progress: Progress,
    /// When the block was opened: the numbers below it may have been used.
    pub reserved: u32,
}

impl BlockHeader {
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let words = [
            &MAGIC[..],
            &self.epoch.to_le_bytes(),
            &self.turn.to_le_bytes(),
            &self.blocks.to_le_bytes(),
            &self.first_seq.to_le_bytes(),
            &self.progress.to_bytes(),
            &self.reserved.to_le_bytes(),
        ];
        for (to, from) in bytes.iter_mut().zip(words.into_iter().flatten()) {
            *to = *from;
        }
        let (checked, crc) = bytes.split_at_mut(HEADER_CRC_AT);
        crc.copy_from_slice(&crc32_of_parts(&[checked]).to_le_bytes());
        bytes
    }

    pub fn from_bytes(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let (checked, crc) = bytes.split_at_checked(HEADER_CRC_AT)?;
        if *checked.first_chunk()? != MAGIC || crc32_of_parts(&[checked]).to_le_bytes() != crc {
            return None;
        }
        let word = |at: usize| checked.get(at..)?.first_chunk().map(|word| u32::from_le_bytes(*word));
        let first_seq = u64::from_le_bytes(*checked.get(16..)?.first_chunk()?);
        let progress = Progress::from_bytes(checked.get(24..40)?)?;
        let reserved = word(40)?;
        Some(Self { epoch: word(4)?, turn: word(8)?, blocks: word(12)?, first_seq, progress, reserved })
    }
}

/// The first eight bytes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHead {
    pub length: u8,
    pub kind: u8,
    pub seq_low: u16,
    pub crc: u32,
}

impl RecordHead {
    /// `None` for bytes that no record starts with: never written, or a length that none has.
    pub fn from_bytes(bytes: [u8; HEAD_BYTES]) -> Option<Self> {
        let [length, kind, seq0, seq1, crc @ ..] = bytes;
        let possible = usize::from(length) <= PAYLOAD_BYTES_MAX && kind != 0xff;
        possible.then(|| Self {
            length,
            kind,
            seq_low: u16::from_le_bytes([seq0, seq1]),
            crc: u32::from_le_bytes(crc),
        })
    }

    pub fn to_bytes(self) -> [u8; HEAD_BYTES] {
        let [seq0, seq1] = self.seq_low.to_le_bytes();
        let [a, b, c, d] = self.crc.to_le_bytes();
        [self.length, self.kind, seq0, seq1, a, b, c, d]
    }

    /// The whole sequence number: the first one from `expected` on that ends like this.
    pub fn seq(self, expected: u64) -> u64 {
        let [low0, low1, ..] = expected.to_le_bytes();
        let ahead = self.seq_low.wrapping_sub(u16::from_le_bytes([low0, low1]));
        expected.wrapping_add(u64::from(ahead))
    }

    /// The checksum that this record must have at its place.
    pub fn checksum(self, epoch: u32, turn: u32, seq: u64, payload: &[u8]) -> u32 {
        let [length, kind, seq0, seq1, ..] = self.to_bytes();
        crc32_of_parts(&[
            &epoch.to_le_bytes(),
            &turn.to_le_bytes(),
            &seq.to_le_bytes(),
            &[length, kind, seq0, seq1],
            payload,
        ])
    }

    /// The head of a record that is to be written.
    pub fn new(kind: u8, epoch: u32, turn: u32, seq: u64, payload: &[u8]) -> Option<Self> {
        let length = u8::try_from(payload.len()).ok().filter(|_| payload.len() <= PAYLOAD_BYTES_MAX)?;
        let [low0, low1, ..] = seq.to_le_bytes();
        let mut head = Self { length, kind, seq_low: u16::from_le_bytes([low0, low1]), crc: 0 };
        head.crc = head.checksum(epoch, turn, seq, payload);
        Some(head)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_header_is_read_as_written_and_any_changed_bit_refuses_it(
            epoch: u32, turn: u32, blocks: u32, first_seq: u64, cursor: u64, lost: u64, reserved: u32,
            bit in 0usize..HEADER_BYTES * 8,
        ) {
            let header = BlockHeader { epoch, turn, blocks, first_seq, progress: Progress { cursor, lost }, reserved };
            let mut bytes = header.to_bytes();
            prop_assert_eq!(BlockHeader::from_bytes(&bytes), Some(header));
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(BlockHeader::from_bytes(&bytes), None);
        }

        #[test]
        fn a_sequence_number_is_completed_from_its_low_half_word(expected in 0u64..1 << 60, ahead: u16) {
            let head = RecordHead::new(KIND_PAYLOAD, 1, 2, expected + u64::from(ahead), b"x").unwrap();
            prop_assert_eq!(head.seq(expected), expected + u64::from(ahead));
            prop_assert_eq!(RecordHead::from_bytes(head.to_bytes()), Some(head));
        }
    }

    proptest! {
        #[test]
        fn notes_are_taken_over_as_they_were_written(notes: [Option<u64>; NOTES_MAX], before: [Option<u64>; NOTES_MAX]) {
            let mut taken = Notes(before);
            let (bytes, length) = Notes(notes).to_bytes();
            taken.take(&bytes[..length]);
            for ((taken, note), before) in taken.0.iter().zip(notes).zip(before) {
                prop_assert_eq!(*taken, note.or(before));
            }
        }
    }

    #[test]
    fn flash_that_was_never_written_holds_no_record() {
        assert_eq!(RecordHead::from_bytes([0xff; HEAD_BYTES]), None);
        assert_eq!(BlockHeader::from_bytes(&[0xff; HEADER_BYTES]), None);
    }
}
