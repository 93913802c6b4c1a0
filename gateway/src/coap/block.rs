//! Payloads that come in blocks (RFC 7959, Block1): pieces go in, whole payloads come out. One payload at a time of each peer. It knows
//! neither resources nor what a payload means.
//!
//! ```text
//! option value: number of the block | more blocks follow (1 bit) | size exponent (3 bits), size = 16 << exponent
//! ```

use std::collections::VecDeque;

use tidelog_lowpan::coap::EXCHANGE_LIFETIME;
use tidelog_lowpan::time::Instant;

/// Longest payload, in bytes.
pub(super) const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

/// Payloads that are being put together; the oldest gives way.
const TRANSFERS_MAX: usize = 16;

/// The value of a Block1 option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub number: u32,
    pub more: bool,
    pub exponent: u8,
}

impl Block {
    /// None of the exponent 7, which is reserved (section 2.2).
    pub const fn of(value: u32) -> Option<Self> {
        let exponent = (value & 7) as u8;
        if exponent == 7 { None } else { Some(Self { number: value >> 4, more: value & 8 != 0, exponent }) }
    }

    pub const fn value(self) -> u32 {
        self.number << 4 | (self.more as u32) << 3 | self.exponent as u32
    }

    const fn bytes(self) -> usize {
        16 << self.exponent
    }

    fn starts_at(self) -> Option<usize> {
        usize::try_from(self.number).ok()?.checked_mul(self.bytes())
    }
}

/// What a block comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It was the last: the whole payload.
    Whole(Vec<u8>),
    /// The next one is wanted.
    Continue,
    /// Blocks before it are not here.
    Incomplete,
    /// One that is not the last is not as long as it says.
    Malformed,
    /// The payload grows too long.
    TooLong,
}

struct Transfer<P> {
    peer: P,
    since: Instant,
    payload: Vec<u8>,
}

/// The payloads of all peers that are not whole yet.
pub(super) struct Transfers<P>(VecDeque<Transfer<P>>);

impl<P: Copy + Eq> Transfers<P> {
    pub const fn new() -> Self {
        Self(VecDeque::new())
    }

    /// Takes a block of a peer's payload. The first begins a new one.
    pub fn take(&mut self, now: Instant, peer: P, block: Block, bytes: &[u8]) -> Taken {
        self.0.retain(|transfer| transfer.since + EXCHANGE_LIFETIME > now);
        let mut payload = self.remove(peer).unwrap_or_default();
        if block.number == 0 {
            payload.clear();
        }
        if block.starts_at() != Some(payload.len()) {
            return Taken::Incomplete;
        }
        if block.more && bytes.len() != block.bytes() || bytes.len() > block.bytes() {
            return Taken::Malformed;
        }
        if payload.len() + bytes.len() > PAYLOAD_BYTES_MAX {
            return Taken::TooLong;
        }
        payload.extend_from_slice(bytes);
        if !block.more {
            return Taken::Whole(payload);
        }
        if self.0.len() >= TRANSFERS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Transfer { peer, since: now, payload });
        Taken::Continue
    }

    fn remove(&mut self, peer: P) -> Option<Vec<u8>> {
        let at = self.0.iter().position(|transfer| transfer.peer == peer)?;
        self.0.remove(at).map(|transfer| transfer.payload)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Instant {
        Instant::from_secs(second)
    }

    fn block(number: u32, more: bool) -> Block {
        Block { number, more, exponent: 0 }
    }

    proptest! {
        #[test]
        fn any_payload_comes_out_as_it_went_in_whatever_another_peer_sends(
            payload in proptest::collection::vec(any::<u8>(), 1..500),
            exponent in 0..4u8,
            others in proptest::collection::vec((0..9u32, any::<bool>()), 0..40),
        ) {
            let mut transfers = Transfers::new();
            let mut others = others.into_iter();
            let mut whole = None;
            let pieces: Vec<_> = payload.chunks(16 << exponent).collect();
            for (number, piece) in (0..).zip(&pieces) {
                prop_assert_eq!(whole.take(), None);
                if let Some((number, more)) = others.next() {
                    transfers.take(at(0), 2, block(number, more), &[7; 16]);
                }
                let more = usize::try_from(number).unwrap() + 1 < pieces.len();
                match transfers.take(at(0), 1, Block { number, more, exponent }, piece) {
                    Taken::Whole(payload) => whole = Some(payload),
                    taken => prop_assert_eq!(taken, Taken::Continue),
                }
            }
            prop_assert_eq!(whole, Some(payload));
        }
    }

    #[test]
    fn a_block_without_those_before_it_is_incomplete() {
        let mut transfers = Transfers::new();
        assert_eq!(transfers.take(at(0), 1, block(1, true), &[1; 16]), Taken::Incomplete);
        assert_eq!(transfers.take(at(0), 1, block(0, true), &[1; 16]), Taken::Continue);
        assert_eq!(transfers.take(at(0), 1, block(2, false), &[1; 16]), Taken::Incomplete);
        assert_eq!(transfers.take(at(0), 1, block(1, false), &[1; 16]), Taken::Incomplete, "it was given up");
        assert_eq!(transfers.take(at(0), 1, block(0, true), &[1; 16]), Taken::Continue);
        let late = at(i64::try_from(EXCHANGE_LIFETIME.secs()).unwrap());
        assert_eq!(transfers.take(late, 1, block(1, false), &[1; 16]), Taken::Incomplete, "too late");
    }

    #[test]
    fn blocks_of_another_length_and_endless_payloads_are_refused() {
        let mut transfers = Transfers::new();
        assert_eq!(transfers.take(at(0), 1, block(0, true), &[1; 15]), Taken::Malformed);
        assert_eq!(transfers.take(at(0), 1, block(0, false), &[1; 17]), Taken::Malformed);
        let most = u32::try_from(PAYLOAD_BYTES_MAX / 1024).unwrap();
        let long = |number| Block { number, more: true, exponent: 6 };
        for number in 0..most {
            assert_eq!(transfers.take(at(0), 1, long(number), &[1; 1024]), Taken::Continue);
        }
        assert_eq!(transfers.take(at(0), 1, long(most), &[1; 1024]), Taken::TooLong);
    }

    #[test]
    fn the_oldest_payload_gives_way() {
        let mut transfers = Transfers::new();
        for peer in 0..=TRANSFERS_MAX {
            assert_eq!(transfers.take(at(0), peer, block(0, true), &[1; 16]), Taken::Continue);
        }
        assert_eq!(transfers.take(at(0), 0, block(1, false), &[1]), Taken::Incomplete);
        assert_eq!(
            transfers.take(at(0), 1, block(1, false), &[1]),
            Taken::Whole([[1; 16].as_slice(), &[1]].concat())
        );
    }

    #[test]
    fn an_option_reads_as_it_is_written() {
        for value in [0, 6, 8, 0x1e, 0x00ff_fff6] {
            assert_eq!(Block::of(value).map(Block::value), Some(value));
        }
        assert_eq!(Block::of(0x17), None);
    }
}
