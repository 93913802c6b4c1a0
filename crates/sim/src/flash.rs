//! A NOR flash chip in memory, as strict as a data sheet: erase by blocks, program each word once between erases, and
//! power that goes at the N-th word or block, leaving that one torn. It counts what a chip wears out by.

use std::fmt;

use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash};

/// Why the chip refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FlashFault {
    /// The power is off, or went during this call.
    #[error("the power is off")]
    PowerOff,
    /// A word that was programmed since its block was erased.
    #[error("the word at {at:#x} is programmed already")]
    Programmed {
        /// Its address.
        at: u32,
    },
    /// Outside the chip, or not on a word or block.
    #[error("address out of bounds or not aligned")]
    Address,
}

impl NorFlashError for FlashFault {
    fn kind(&self) -> NorFlashErrorKind {
        match self {
            Self::Address => NorFlashErrorKind::OutOfBounds,
            Self::PowerOff | Self::Programmed { .. } => NorFlashErrorKind::Other,
        }
    }
}

/// A chip with words of `WORD` bytes and erase blocks of `BLOCK` bytes. What it holds survives [`SimFlash::power_on`].
#[derive(Clone)]
pub struct SimFlash<const WORD: usize = 4, const BLOCK: usize = 4096> {
    bytes: Vec<u8>,
    programmed: Vec<bool>,
    wear: Vec<u32>,
    steps: u64,
    reads: u64,
    cut_at: Option<u64>,
    tear: u64,
    powered: bool,
}

impl<const WORD: usize, const BLOCK: usize> SimFlash<WORD, BLOCK> {
    /// A chip fresh from the factory.
    #[must_use]
    pub fn new(blocks: usize) -> Self {
        Self {
            bytes: vec![0xff; blocks * BLOCK],
            programmed: vec![false; blocks * BLOCK / WORD],
            wear: vec![0; blocks],
            steps: 0,
            reads: 0,
            cut_at: None,
            tear: 0,
            powered: true,
        }
    }

    /// Lets the power go in the middle of the step that follows after `steps` more whole ones. A step is one word programmed or
    /// one block erased. `seed` decides what the torn one holds afterwards.
    pub fn cut_after(&mut self, steps: u64, seed: u64) {
        self.cut_at = Some(self.steps.saturating_add(steps));
        self.tear = seed;
    }

    /// Takes the power away now, between two steps.
    pub fn power_off(&mut self) {
        self.powered = false;
    }

    /// Power comes back; no cut is pending.
    pub fn power_on(&mut self) {
        self.powered = true;
        self.cut_at = None;
    }

    /// Words programmed and blocks erased so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Calls of `read` so far.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.reads
    }

    /// How often each block was erased.
    #[must_use]
    pub fn wear(&self) -> &[u32] {
        &self.wear
    }

    /// Flips bits of one byte, as rot does.
    pub fn rot(&mut self, at: usize, mask: u8) {
        if let Some(byte) = self.bytes.get_mut(at) {
            *byte ^= mask;
        }
    }

    /// Whether the power holds through the next step.
    fn step(&mut self) -> bool {
        let cut = self.cut_at == Some(self.steps);
        self.steps += 1;
        self.powered &= !cut;
        self.powered
    }

    /// SplitMix64: what a torn word or block is made of.
    fn noise(&mut self) -> u64 {
        self.tear = self.tear.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.tear;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn range(&self, from: u32, length: usize, unit: usize) -> Result<std::ops::Range<usize>, FlashFault> {
        let from = usize::try_from(from).map_err(|_| FlashFault::Address)?;
        let to = from.checked_add(length).filter(|to| *to <= self.bytes.len()).ok_or(FlashFault::Address)?;
        if from.is_multiple_of(unit) && length.is_multiple_of(unit) {
            Ok(from..to)
        } else {
            Err(FlashFault::Address)
        }
    }

    fn program(&mut self, at: usize, word: &[u8]) -> Result<(), FlashFault> {
        let address = u32::try_from(at).map_err(|_| FlashFault::Address)?;
        let flag = self.programmed.get_mut(at / WORD).ok_or(FlashFault::Address)?;
        if std::mem::replace(flag, true) {
            return Err(FlashFault::Programmed { at: address });
        }
        let whole = self.step();
        let mut keep = if whole { [0; 8] } else { self.noise().to_le_bytes() };
        if !whole && self.noise().is_multiple_of(4) {
            keep = [0xff; 8];
        }
        for ((cell, bits), keep) in self.bytes.iter_mut().skip(at).zip(word).zip(keep.iter().cycle()) {
            *cell &= bits | keep;
        }
        if whole { Ok(()) } else { Err(FlashFault::PowerOff) }
    }

    fn erase_block(&mut self, block: usize) -> Result<(), FlashFault> {
        let cells = block * BLOCK..(block + 1) * BLOCK;
        if let Some(wear) = self.wear.get_mut(block) {
            *wear += 1;
        }
        if self.step() {
            self.bytes.get_mut(cells).ok_or(FlashFault::Address)?.fill(0xff);
            self.programmed
                .iter_mut()
                .skip(block * BLOCK / WORD)
                .take(BLOCK / WORD)
                .for_each(|flag| *flag = false);
            return Ok(());
        }
        // Torn: untouched, erased up to somewhere, blank in looks only, or bits risen at random. Whatever it looks like,
        // it must be erased again before use.
        let (way, upto) = (self.noise() % 4, self.noise());
        let upto = usize::try_from(upto % BLOCK as u64).map_err(|_| FlashFault::Address)?;
        for (i, at) in cells.enumerate() {
            let risen = match way {
                0 => 0,
                1 if i < upto => 0xff,
                1 => 0,
                2 => 0xff,
                _ => self.noise().to_le_bytes()[0],
            };
            if let Some(cell) = self.bytes.get_mut(at) {
                *cell |= risen;
            }
        }
        Err(FlashFault::PowerOff)
    }
}

impl<const WORD: usize, const BLOCK: usize> fmt::Debug for SimFlash<WORD, BLOCK> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFlash")
            .field("bytes", &self.bytes.len())
            .field("steps", &self.steps)
            .field("powered", &self.powered)
            .finish_non_exhaustive()
    }
}

impl<const WORD: usize, const BLOCK: usize> ErrorType for SimFlash<WORD, BLOCK> {
    type Error = FlashFault;
}

impl<const WORD: usize, const BLOCK: usize> ReadNorFlash for SimFlash<WORD, BLOCK> {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), FlashFault> {
        if !self.powered {
            return Err(FlashFault::PowerOff);
        }
        self.reads += 1;
        let range = self.range(offset, bytes.len(), Self::READ_SIZE)?;
        bytes.copy_from_slice(self.bytes.get(range).ok_or(FlashFault::Address)?);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.bytes.len()
    }
}

impl<const WORD: usize, const BLOCK: usize> NorFlash for SimFlash<WORD, BLOCK> {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = BLOCK;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), FlashFault> {
        if !self.powered {
            return Err(FlashFault::PowerOff);
        }
        let length = usize::try_from(to.checked_sub(from).ok_or(FlashFault::Address)?)
            .map_err(|_| FlashFault::Address)?;
        let range = self.range(from, length, BLOCK)?;
        (range.start / BLOCK..range.end / BLOCK).try_for_each(|block| self.erase_block(block))
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashFault> {
        if !self.powered {
            return Err(FlashFault::PowerOff);
        }
        let range = self.range(offset, bytes.len(), WORD)?;
        range.step_by(WORD).zip(bytes.chunks_exact(WORD)).try_for_each(|(at, word)| self.program(at, word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_programmed_once_between_erases() {
        let mut flash = SimFlash::<4, 4096>::new(2);
        flash.write(8, &[1, 2, 3, 4]).unwrap();
        assert_eq!(flash.write(8, &[1, 2, 3, 4]), Err(FlashFault::Programmed { at: 8 }));
        flash.erase(0, 4096).unwrap();
        flash.write(8, &[1, 2, 3, 4]).unwrap();
        assert_eq!((flash.steps(), flash.wear()), (3, &[1, 0][..]));
    }

    #[test]
    fn power_goes_in_the_middle_of_the_step_it_was_told_to() {
        for seed in 0..50 {
            let mut flash = SimFlash::<4, 4096>::new(1);
            flash.cut_after(2, seed);
            assert_eq!(flash.write(0, &[0; 16]), Err(FlashFault::PowerOff));
            assert_eq!(flash.read(0, &mut [0; 4]), Err(FlashFault::PowerOff));
            flash.power_on();
            let mut bytes = [0; 16];
            flash.read(0, &mut bytes).unwrap();
            assert_eq!((&bytes[..8], &bytes[12..]), (&[0; 8][..], &[0xff; 4][..]), "seed {seed}");
        }
    }

    #[test]
    fn addresses_off_the_chip_or_off_the_words_are_refused() {
        let mut flash = SimFlash::<4, 4096>::new(1);
        assert_eq!(flash.write(2, &[0; 4]), Err(FlashFault::Address));
        assert_eq!(flash.write(4096, &[0; 4]), Err(FlashFault::Address));
        assert_eq!(flash.erase(0, 8192), Err(FlashFault::Address));
        assert_eq!(flash.erase(4096, 0), Err(FlashFault::Address));
        assert_eq!(flash.read(u32::MAX, &mut [0; 4]), Err(FlashFault::Address));
    }
}
