//! An adaptive binary range coder, as in LZMA: each bit is coded with the probability that its place has shown so far, and the probability
//! learns from it. Numbers are broken up into such bits. It knows nothing of what the numbers mean.
//!
//! Carries are kept back with `cache` and `pending` (G. N. N. Martin, *Range encoding*, 1979; the arrangement is that of I. Pavlov's LZMA
//! specification).

use alloc::vec::Vec;

use crate::body::BATCH_BYTES_MAX;
use crate::varint::Malformed;

/// Probabilities are whole numbers below two to this power.
const ONE_BITS: u32 = 15;
/// What a probability moves by: a thirty-second of what it was wrong.
const RATE_BITS: u32 = 5;
const TOP: u32 = 1 << 24;
/// Bytes that end what was written.
const END_BYTES: usize = 5;

/// The probability that a bit is 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bit(u16);

impl Default for Bit {
    fn default() -> Self {
        Self(1 << (ONE_BITS - 1))
    }
}

impl Bit {
    #[inline]
    fn split(self, range: u32) -> u32 {
        (range >> ONE_BITS) * u32::from(self.0)
    }

    /// Without a jump, for which way it would go is what nobody can foretell.
    #[inline]
    fn learn(&mut self, bit: bool) {
        let is_one = 0_u16.wrapping_sub(u16::from(bit));
        let up = ((1 << ONE_BITS) - self.0) >> RATE_BITS;
        self.0 = self.0 + (up & !is_one) - (self.0 >> RATE_BITS & is_one);
    }
}

/// Where bits go, or where they come from: one description of a thing serves to write and to read it.
pub(super) trait Coder {
    /// Codes a bit where it has a probability. A reader returns what was written and does not look at `bit`.
    fn bit(&mut self, place: &mut Bit, bit: bool) -> bool;

    /// Codes the lowest `count` bits, at most 32, of which nothing is known.
    fn plain(&mut self, value: u32, count: u32) -> u32;

    /// Refuses to go on far behind the end of what is read, so that few bytes make no reader work for long.
    fn check(&self) -> Result<(), Malformed>;
}

/// Writes bits behind what `out` holds.
pub(super) struct Encoder<'o> {
    out: &'o mut Vec<u8>,
    low: u64,
    range: u32,
    cache: u8,
    pending: usize,
    begun: bool,
}

/// A place of an encoder, to go back to. What stands in its bytes before is never changed: carries are kept back.
pub(super) struct Mark {
    out_bytes: usize,
    low: u64,
    range: u32,
    cache: u8,
    pending: usize,
    begun: bool,
}

impl<'o> Encoder<'o> {
    pub fn new(out: &'o mut Vec<u8>) -> Self {
        Self { out, low: 0, range: u32::MAX, cache: 0, pending: 0, begun: false }
    }

    #[inline]
    fn normalise(&mut self) {
        while self.range < TOP {
            self.range <<= 8;
            self.shift();
        }
    }

    fn shift(&mut self) {
        let [low, high] = [self.low & 0xffff_ffff, self.low >> 32];
        if low < 0xff00_0000 || high != 0 {
            let carry = high.to_le_bytes()[0];
            if self.begun {
                self.out.push(self.cache.wrapping_add(carry));
            }
            self.begun = true;
            let filling = 0xff_u8.wrapping_add(carry);
            self.out.extend(core::iter::repeat_n(filling, self.pending));
            self.pending = 0;
            self.cache = (low >> 24).to_le_bytes()[0];
        } else {
            self.pending += 1;
        }
        self.low = (low & 0x00ff_ffff) << 8;
    }

    /// How far it is.
    pub fn mark(&self) -> Mark {
        let Self { low, range, cache, pending, begun, .. } = *self;
        Mark { out_bytes: self.out.len(), low, range, cache, pending, begun }
    }

    /// Bytes that were written since.
    pub fn bytes_since(&self, mark: &Mark) -> usize {
        (self.out.len() + self.pending).saturating_sub(mark.out_bytes)
    }

    /// Takes back what was written since.
    pub fn go_back(&mut self, mark: &Mark) {
        let Mark { out_bytes, low, range, cache, pending, begun } = *mark;
        self.out.truncate(out_bytes);
        (self.low, self.range, self.cache, self.pending, self.begun) = (low, range, cache, pending, begun);
    }

    /// Ends what was written. Any number of the last range tells it from all others: it is the one that ends in the most zeros, which are
    /// left out, because a reader finds zeros behind every end.
    pub fn finish(mut self) {
        let last = self.low + u64::from(self.range) - 1;
        let zeros = |bits: &u32| last >> bits << bits >= self.low;
        let bits = (0..=u32::BITS).rev().find(zeros).unwrap_or_default();
        self.low = last >> bits << bits;
        for _ in 0..END_BYTES {
            self.shift();
        }
        for _ in 0..END_BYTES - 1 {
            self.out.pop_if(|byte| *byte == 0);
        }
    }
}

impl Coder for Encoder<'_> {
    #[inline]
    fn bit(&mut self, place: &mut Bit, bit: bool) -> bool {
        let bound = place.split(self.range);
        let is_one = 0_u32.wrapping_sub(u32::from(bit));
        self.low += u64::from(bound & is_one);
        self.range = (self.range - bound) & is_one | bound & !is_one;
        place.learn(bit);
        self.normalise();
        bit
    }

    #[inline]
    fn plain(&mut self, value: u32, count: u32) -> u32 {
        for at in (0..count).rev() {
            self.range >>= 1;
            if value >> at & 1 == 1 {
                self.low += u64::from(self.range);
            }
            self.normalise();
        }
        value
    }

    fn check(&self) -> Result<(), Malformed> {
        Ok(())
    }
}

/// Reads bits. Behind the end of the bytes stand zeros; how many of them were read tells whether that was honest.
pub(super) struct Decoder<'b> {
    rest: core::slice::Iter<'b, u8>,
    range: u32,
    code: u32,
    /// Bytes that were read behind the end.
    past: usize,
}

impl<'b> Decoder<'b> {
    pub fn new(bytes: &'b [u8]) -> Self {
        let mut decoder = Self { rest: bytes.iter(), range: u32::MAX, code: 0, past: 0 };
        for _ in 0..4 {
            decoder.code = decoder.code << 8 | u32::from(decoder.byte());
        }
        decoder
    }

    #[inline]
    fn byte(&mut self) -> u8 {
        self.rest.next().copied().unwrap_or_else(|| {
            self.past += 1;
            0
        })
    }

    #[inline]
    fn normalise(&mut self) {
        while self.range < TOP {
            self.range <<= 8;
            self.code = self.code << 8 | u32::from(self.byte());
        }
    }

    /// Whether all bytes were read.
    pub fn end(&self) -> Result<(), Malformed> {
        self.check()?;
        if self.rest.len() == 0 { Ok(()) } else { Err(Malformed) }
    }
}

impl Coder for Decoder<'_> {
    #[inline]
    fn bit(&mut self, place: &mut Bit, _: bool) -> bool {
        let bound = place.split(self.range);
        let bit = self.code >= bound;
        let is_one = 0_u32.wrapping_sub(u32::from(bit));
        self.code -= bound & is_one;
        self.range = (self.range - bound) & is_one | bound & !is_one;
        place.learn(bit);
        self.normalise();
        bit
    }

    #[inline]
    fn plain(&mut self, _: u32, count: u32) -> u32 {
        let mut value = 0;
        for _ in 0..count {
            self.range >>= 1;
            let bit = self.code >= self.range;
            if bit {
                self.code -= self.range;
            }
            value = value << 1 | u32::from(bit);
            self.normalise();
        }
        value
    }

    #[inline]
    fn check(&self) -> Result<(), Malformed> {
        if self.past > 4 + END_BYTES { Err(Malformed) } else { Ok(()) }
    }
}

/// Lengths of numbers, in bits, that have probabilities of their own.
const LENGTHS: usize = 24;
/// Bits behind a number's first one that are learnt.
const LEARNT_BITS: u32 = 3;

/// How numbers near zero are spread: whether they are zero, their sign, their length, and their first bits.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers {
    zero: Bit,
    negative: Bit,
    longer: [Bit; LENGTHS],
    bits: [[Bit; 1 << LEARNT_BITS]; LENGTHS],
}

impl Numbers {
    /// Codes a number.
    #[inline]
    pub fn code(&mut self, coder: &mut impl Coder, number: i64) -> i64 {
        if !coder.bit(&mut self.zero, number != 0) {
            return 0;
        }
        let negative = coder.bit(&mut self.negative, number < 0);
        let magnitude = self.magnitude(coder, number.unsigned_abs().max(1));
        let number = magnitude.cast_signed();
        if negative { number.wrapping_neg() } else { number }
    }

    /// Codes a number that is not zero.
    #[inline]
    fn magnitude(&mut self, coder: &mut impl Coder, number: u64) -> u64 {
        let wanted = number.ilog2();
        let mut length = 0;
        while length < 63 {
            let place = (length as usize).min(LENGTHS - 1);
            let Some(longer) = self.longer.get_mut(place) else { break };
            if !coder.bit(longer, wanted > length) {
                break;
            }
            length += 1;
        }
        let learnt = length.min(LEARNT_BITS);
        let mut value = 1_u64;
        if let Some(places) = self.bits.get_mut((length as usize).min(LENGTHS - 1)) {
            let mut node = 1_usize;
            for at in 0..learnt {
                let bit = number >> (length - 1 - at) & 1 == 1;
                let Some(place) = places.get_mut(node) else { break };
                let bit = coder.bit(place, bit);
                node = node << 1 | usize::from(bit);
                value = value << 1 | u64::from(bit);
            }
        }
        let mut left = length - learnt;
        while left > 0 {
            let count = left.min(16);
            left -= count;
            let [a, b, ..] = (number >> left).to_le_bytes();
            let bits = coder.plain(u32::from(u16::from_le_bytes([a, b])) & ((1 << count) - 1), count);
            value = value << count | u64::from(bits);
        }
        value
    }
}

/// Codes bytes of which nothing is known.
pub(super) fn plain_bytes(coder: &mut impl Coder, bytes: &mut [u8]) {
    for byte in bytes {
        *byte = coder.plain(u32::from(*byte), 8).to_le_bytes()[0];
    }
}

pub(super) fn plain_u64(coder: &mut impl Coder, number: u64) -> u64 {
    let mut bytes = number.to_le_bytes();
    plain_bytes(coder, &mut bytes);
    u64::from_le_bytes(bytes)
}

/// Codes which of `count` things is meant.
pub(super) fn index(coder: &mut impl Coder, which: u32, count: usize) -> Result<u32, Malformed> {
    let bits = usize::BITS - count.saturating_sub(1).leading_zeros();
    let which = coder.plain(which, bits.min(32));
    if (which as usize) < count { Ok(which) } else { Err(Malformed) }
}

pub(super) fn length(
    coder: &mut impl Coder,
    lengths: &mut Numbers,
    length: usize,
) -> Result<usize, Malformed> {
    let length = lengths.code(coder, i64::try_from(length).map_err(|_| Malformed)?);
    usize::try_from(length).map_err(|_| Malformed)
}

/// Codes a string of bytes that is in `bytes` when it is written.
pub(super) fn string(
    coder: &mut impl Coder,
    lengths: &mut Numbers,
    bytes: &mut Vec<u8>,
) -> Result<(), Malformed> {
    let length = length(coder, lengths, bytes.len())?;
    if length > BATCH_BYTES_MAX {
        return Err(Malformed);
    }
    bytes.resize(length, 0);
    for at in bytes.chunks_mut(64) {
        plain_bytes(coder, at);
        coder.check()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    proptest! {
        #[test]
        fn numbers_and_bits_come_back_as_they_went(
            numbers in prop::collection::vec(prop_oneof![4 => -3..4_i64, 1 => any::<i64>(), 1 => Just(i64::MIN)], 0..300),
            plain in prop::collection::vec((any::<u32>(), 1..33_u32), 0..20),
        ) {
            let mut bytes = vec![7];
            let mut model = Numbers::default();
            let mut encoder = Encoder::new(&mut bytes);
            for number in &numbers {
                model.code(&mut encoder, *number);
            }
            let masked = |(value, count): &(u32, u32)| value & (u32::MAX >> (32 - count));
            for it in &plain {
                encoder.plain(masked(it), it.1);
            }
            encoder.finish();
            let mut model = Numbers::default();
            let mut decoder = Decoder::new(&bytes[1..]);
            for number in &numbers {
                prop_assert_eq!(model.code(&mut decoder, 0), *number);
            }
            for it in &plain {
                prop_assert_eq!(decoder.plain(0, it.1), masked(it));
            }
            prop_assert_eq!(decoder.end(), Ok(()));
        }
    }

    #[test]
    fn what_repeats_takes_next_to_nothing() {
        let mut bytes = vec![];
        let mut model = Numbers::default();
        let mut encoder = Encoder::new(&mut bytes);
        for _ in 0..10_000 {
            model.code(&mut encoder, 0);
        }
        encoder.finish();
        assert!(bytes.len() < 10, "{} bytes", bytes.len());
    }
}
