//! Link security, IEEE 802.15.4-2020 section 9: AES-CCM* at level 5 (encrypted, integrity code of 32 bits), key
//! identifier mode 1 (a key of the whole network, by its index). A frame is sealed and opened here; which counters may
//! be used is kept here too, and whether a counter is new is decided by the table of stations.
//!
//! ```text
//! frame, secured    MAC header | auxiliary header [6] | payload, encrypted | integrity code [4]
//! auxiliary header  0D (level 5, key identifier mode 1) | frame counter u32 LE | key index = 1
//! nonce             source EUI-64, big-endian | frame counter u32, big-endian | level = 5
//! authenticated     MAC header and auxiliary header as they are, then the payload
//! ```
//!
//! CCM* falls apart when a nonce is used twice with different content. A repetition is the identical frame; every new
//! frame takes a new counter; and counters are taken only from what [`FrameCounters`] was told to be reserved durably.

use core::fmt;
use core::str::FromStr;

use aes::Aes128;
use ccm::aead::AeadInOut;
use ccm::aead::inout::InOutBuf;
use ccm::consts::{U4, U13};
use ccm::{Ccm, KeyInit};
use tidelog_record::DeviceId;

use crate::{FRAME_BUFFER_BYTES, FRAME_BYTES_MAX};

/// The index that names the network's key in each frame; 0 is no index.
pub const KEY_INDEX: u8 = 1;

/// Bytes of the auxiliary security header.
pub(crate) const AUXILIARY_BYTES: usize = 6;
/// Bytes of the integrity code.
pub(crate) const MIC_BYTES: usize = 4;
const KEY_BYTES: usize = 16;
const NONCE_BYTES: usize = 13;
const LEVEL: u8 = 5;
const CONTROL: u8 = LEVEL | 1 << 3;
/// Counters end here: the last value of all is none (section 9.4.2).
const COUNTER_END: u32 = u32::MAX;

type Cipher = Ccm<Aes128, U4, U13>;

/// The key that all stations of a network share. It is never shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NetworkKey([u8; KEY_BYTES]);

impl NetworkKey {
    /// A key of these bytes, which should be random.
    #[must_use]
    pub const fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for NetworkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetworkKey(…)")
    }
}

/// The text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a network key is 32 hex digits")]
pub struct ParseKeyError;

impl FromStr for NetworkKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits: &[u8; 2 * KEY_BYTES] = text.as_bytes().try_into().map_err(|_| ParseKeyError)?;
        let mut bytes = [0; KEY_BYTES];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            for digit in pair {
                let value = char::from(*digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
                *byte = *byte << 4 | value.ok_or(ParseKeyError)?;
            }
        }
        Ok(Self(bytes))
    }
}

/// Why a secured frame is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Another level, key identifier mode or key index; or cut short.
    Level,
    /// The integrity code does not belong to it.
    Forged,
}

fn nonce(source: DeviceId, counter: u32, level: u8) -> [u8; NONCE_BYTES] {
    let [a, b, c, d, e, f, g, h] = source.0;
    let [c3, c2, c1, c0] = counter.to_be_bytes();
    [a, b, c, d, e, f, g, h, c3, c2, c1, c0, level]
}

/// The auxiliary security header of a frame with this counter.
pub(crate) const fn auxiliary_header(counter: u32) -> [u8; AUXILIARY_BYTES] {
    let [c0, c1, c2, c3] = counter.to_le_bytes();
    [CONTROL, c0, c1, c2, c3, KEY_INDEX]
}

/// Seals the frame of `length` bytes in `frame`, its auxiliary header already behind its MAC header of `header_bytes`; its
/// new length. `None` when it does not fit.
pub(crate) fn seal(
    key: NetworkKey,
    source: DeviceId,
    counter: u32,
    frame: &mut [u8; FRAME_BUFFER_BYTES],
    header_bytes: usize,
    length: usize,
) -> Option<usize> {
    let sealed = length.checked_add(MIC_BYTES).filter(|sealed| *sealed <= FRAME_BYTES_MAX)?;
    let (frame, mic) = frame.get_mut(..sealed)?.split_at_mut_checked(length)?;
    let (authenticated, payload) = frame.split_at_mut_checked(header_bytes + AUXILIARY_BYTES)?;
    let tag = Cipher::new(&key.0.into())
        .encrypt_inout_detached(&nonce(source, counter, LEVEL).into(), authenticated, InOutBuf::from(payload))
        .ok()?;
    mic.copy_from_slice(&tag);
    Some(sealed)
}

/// Opens a frame: its counter and its payload, which stands in `out`. Nothing of it is to be believed before.
pub(crate) fn open<'a>(
    key: NetworkKey,
    source: DeviceId,
    frame: &[u8],
    header_bytes: usize,
    out: &'a mut [u8; FRAME_BYTES_MAX],
) -> Result<(u32, &'a [u8]), Refusal> {
    let split = header_bytes.saturating_add(AUXILIARY_BYTES);
    let (authenticated, body) = frame.split_at_checked(split).ok_or(Refusal::Level)?;
    let auxiliary: &[u8; AUXILIARY_BYTES] = authenticated.last_chunk().ok_or(Refusal::Level)?;
    let [CONTROL, c0, c1, c2, c3, KEY_INDEX] = *auxiliary else { return Err(Refusal::Level) };
    let counter = u32::from_le_bytes([c0, c1, c2, c3]);
    let (encrypted, mic) = body.split_last_chunk::<MIC_BYTES>().ok_or(Refusal::Level)?;
    let payload = out.get_mut(..encrypted.len()).ok_or(Refusal::Level)?;
    payload.copy_from_slice(encrypted);
    Cipher::new(&key.0.into())
        .decrypt_inout_detached(
            &nonce(source, counter, LEVEL).into(),
            authenticated,
            InOutBuf::from(&mut *payload),
            &(*mic).into(),
        )
        .map_err(|_| Refusal::Forged)?;
    Ok((counter, payload))
}

/// The frame counters that this station may use: those from `next` up to `end` are reserved, so that no later life of
/// it begins below `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameCounters {
    next: u32,
    end: u32,
    /// Whether it is known where earlier lives ended.
    resumed: bool,
}

impl FrameCounters {
    /// None may be used yet.
    pub(crate) const fn new() -> Self {
        Self { next: 0, end: 0, resumed: false }
    }

    /// Counters below `first` may have been used. Never goes back.
    pub(crate) fn resume(&mut self, first: u32) {
        self.next = self.next.max(first);
        self.end = self.end.max(self.next);
        self.resumed = true;
    }

    /// The end of the block to be reserved next: asked for when half a block is left.
    pub(crate) fn reserve_due(&self, block: u32) -> Option<u32> {
        let due = self.resumed && self.end - self.next <= block / 2 && self.end < COUNTER_END;
        // It saturates at the very end.
        due.then(|| self.end.saturating_add(block))
    }

    pub(crate) fn reserved(&mut self, upto: u32) {
        if self.resumed {
            self.end = self.end.max(upto);
        }
    }

    pub(crate) const fn is_available(&self) -> bool {
        self.next < self.end
    }

    /// How many are left in all, reserved or not.
    pub(crate) const fn left(&self) -> u32 {
        COUNTER_END - self.next
    }

    pub(crate) fn take(&mut self) -> Option<u32> {
        let counter = Some(self.next).filter(|_| self.is_available())?;
        self.next += 1;
        Some(counter)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use ccm::consts::U8;
    use proptest::prelude::*;
    use std::format;
    use std::vec::Vec;

    const ANNEX_KEY: [u8; 16] =
        [0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xcb, 0xcc, 0xcd, 0xce, 0xcf];
    const ANNEX_SOURCE: DeviceId = DeviceId([0xac, 0xde, 0x48, 0, 0, 0, 0, 1]);
    const KEY: NetworkKey = NetworkKey(ANNEX_KEY);
    const HEADER: usize = 21;

    #[test]
    fn the_examples_of_the_standards_annex_c_come_out() {
        // Annex C.2.3, a MAC command at level 6: an integrity code of 8 bytes.
        let header = [
            0x2b, 0xdc, 0x84, 0x21, 0x43, 0x02, 0, 0, 0, 0, 0x48, 0xde, 0xac, 0xff, 0xff, 0x01, 0, 0, 0, 0,
            0x48, 0xde, 0xac, 0x06, 5, 0, 0, 0, 0x01,
        ];
        let mut payload = [0xce];
        let mic = Ccm::<Aes128, U8, U13>::new(&ANNEX_KEY.into())
            .encrypt_inout_detached(
                &nonce(ANNEX_SOURCE, 5, 6).into(),
                &header,
                InOutBuf::from(&mut payload[..]),
            )
            .unwrap();
        assert_eq!((payload, &mic[..]), ([0xd8], &[0x4f, 0xde, 0x52, 0x90, 0x61, 0xf9, 0xc6, 0xf1][..]));
        // Annex C.2.2, a data frame at level 4: encrypted only.
        let mut payload = [0x61, 0x62, 0x63, 0x64];
        Cipher::new(&ANNEX_KEY.into())
            .encrypt_inout_detached(&nonce(ANNEX_SOURCE, 5, 4).into(), &[], InOutBuf::from(&mut payload[..]))
            .unwrap();
        assert_eq!(payload, [0xd4, 0x3e, 0x02, 0x2b]);
    }

    #[test]
    fn a_key_is_read_from_its_digits_and_not_shown() {
        let key: NetworkKey = "c0c1c2c3c4c5c6c7c8c9cacbcccdcecf".parse().unwrap();
        assert_eq!(key, "C0C1C2C3C4C5C6C7C8C9CACBCCCDCECF".parse().unwrap());
        assert_eq!((key, format!("{key:?}").as_str()), (KEY, "NetworkKey(…)"));
        for text in [
            "",
            "c0c1",
            "c0c1c2c3c4c5c6c7c8c9cacbcccdcec",
            "x0c1c2c3c4c5c6c7c8c9cacbcccdcecf",
            "ääääääääääääääää",
        ] {
            assert_eq!(text.parse::<NetworkKey>(), Err(ParseKeyError), "{text}");
        }
    }

    #[test]
    fn no_counter_is_given_that_was_not_reserved_and_none_twice() {
        let mut counters = FrameCounters::new();
        assert_eq!((counters.reserve_due(8), counters.take()), (None, None), "not resumed");
        counters.reserved(100);
        assert_eq!(counters.take(), None, "not resumed");
        counters.resume(16);
        assert_eq!((counters.take(), counters.reserve_due(8)), (None, Some(24)));
        counters.reserved(24);
        let given: Vec<u32> = core::iter::from_fn(|| counters.take()).collect();
        assert_eq!(given, (16..24).collect::<Vec<_>>());
        counters.reserved(20);
        counters.resume(3);
        assert_eq!((counters.take(), counters.reserve_due(8)), (None, Some(32)), "nothing goes back");
    }

    #[test]
    fn the_next_block_is_asked_for_when_half_of_one_is_left() {
        let mut counters = FrameCounters::new();
        counters.resume(0);
        counters.reserved(8);
        let due: Vec<Option<u32>> =
            (0..8).map(|_| counters.take().and_then(|_| counters.reserve_due(8))).collect();
        assert_eq!(due, [None, None, None, Some(16), Some(16), Some(16), Some(16), Some(16)]);
    }

    #[test]
    fn the_last_counter_of_all_is_never_given() {
        let mut counters = FrameCounters::new();
        counters.resume(u32::MAX - 3);
        assert_eq!(counters.reserve_due(8), Some(u32::MAX));
        counters.reserved(u32::MAX);
        let given: Vec<u32> = core::iter::from_fn(|| counters.take()).collect();
        assert_eq!(given, [u32::MAX - 3, u32::MAX - 2, u32::MAX - 1]);
        assert_eq!((counters.left(), counters.reserve_due(8), counters.take()), (0, None, None));
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_with_its_key_alone_and_any_changed_bit_shows(
            payload in prop::collection::vec(any::<u8>(), 0..84),
            header: [u8; HEADER], counter: u32, bit: prop::sample::Index, wrong: [u8; 16],
        ) {
            let mut frame = [0; FRAME_BUFFER_BYTES];
            let plain = [&header[..], &auxiliary_header(counter), &payload].concat();
            frame[..plain.len()].copy_from_slice(&plain);
            let length = seal(KEY, ANNEX_SOURCE, counter, &mut frame, HEADER, plain.len()).unwrap();
            prop_assert_eq!(length, plain.len() + MIC_BYTES);
            let mut out = [0; FRAME_BYTES_MAX];
            let sealed = frame[..length].to_vec();
            prop_assert_eq!(open(KEY, ANNEX_SOURCE, &sealed, HEADER, &mut out), Ok((counter, &payload[..])));
            let other = DeviceId([1; 8]);
            prop_assert_eq!(open(KEY, other, &sealed, HEADER, &mut out), Err(Refusal::Forged));
            prop_assume!(wrong != ANNEX_KEY);
            let mut changed = sealed.clone();
            let bit = bit.index(length * 8);
            changed[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(open(KEY, ANNEX_SOURCE, &changed, HEADER, &mut out).is_err());
        }

        #[test]
        fn any_bytes_are_opened_or_refused(
            frame in prop::collection::vec(any::<u8>(), 0..130), header_bytes in 0usize..140,
        ) {
            let mut out = [0; FRAME_BYTES_MAX];
            let opened = open(KEY, ANNEX_SOURCE, &frame, header_bytes, &mut out);
            prop_assert!(opened.is_err());
        }
    }
}
