//! The board's flash as NOR flash behaves: erased to ones by blocks, programmed to zeros by words. QEMU keeps the memory below it in a file,
//! so it survives whatever ends QEMU.

use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash};

use crate::hardware;

/// What of the memory is flash, in bytes: half of what an nRF52840 has.
const LOG_BYTES: usize = 512 << 10;
const WORD: usize = 4;
const BLOCK: usize = 4096;

/// Outside the flash, or not on a word or block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfBounds;

impl NorFlashError for OutOfBounds {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::OutOfBounds
    }
}

/// The flash.
#[derive(Debug)]
pub struct Flash;

/// The words from `offset` on, `length` bytes of them, if all are inside and both numbers multiples of `unit`.
fn words(offset: u32, length: usize, unit: usize) -> Result<core::ops::Range<usize>, OutOfBounds> {
    let start = usize::try_from(offset).map_err(|_| OutOfBounds)?;
    let end = start.checked_add(length).filter(|end| *end <= LOG_BYTES).ok_or(OutOfBounds)?;
    if start % unit == 0 && end % unit == 0 { Ok(start / WORD..end / WORD) } else { Err(OutOfBounds) }
}

impl ErrorType for Flash {
    type Error = OutOfBounds;
}

impl ReadNorFlash for Flash {
    const READ_SIZE: usize = WORD;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), OutOfBounds> {
        let words = words(offset, bytes.len(), WORD)?;
        for (index, piece) in words.zip(bytes.chunks_exact_mut(WORD)) {
            piece.copy_from_slice(&hardware::flash_word(index).to_le_bytes());
        }
        Ok(())
    }

    fn capacity(&self) -> usize {
        LOG_BYTES
    }
}

impl NorFlash for Flash {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = BLOCK;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), OutOfBounds> {
        let length =
            to.checked_sub(from).and_then(|length| usize::try_from(length).ok()).ok_or(OutOfBounds)?;
        words(from, length, BLOCK)?.for_each(|index| hardware::set_flash_word(index, u32::MAX));
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), OutOfBounds> {
        let words = words(offset, bytes.len(), WORD)?;
        for (index, piece) in words.zip(bytes.as_chunks().0) {
            // Programming clears bits and sets none.
            hardware::set_flash_word(index, hardware::flash_word(index) & u32::from_le_bytes(*piece));
        }
        Ok(())
    }
}
