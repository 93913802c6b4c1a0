//! Datagrams on their way in: pieces gathered into IPv6 packets (RFC 4944 section 5.3), and whole packets until they
//! are read. One bounded set of slots serves both; a sender holds at most two unfinished ones, each for at most three
//! seconds. What the packets say is read elsewhere.

use smoltcp::time::{Duration, Instant};
use tidelog_record::DeviceId;

use crate::fragment::{Datagram, UNIT_BYTES};

/// How long a datagram's pieces are kept from the first of them to come.
pub(crate) const REASSEMBLY_TIMEOUT: Duration = Duration::from_millis(3_000);
/// Unfinished datagrams kept for one sender. A second one lets a late copy of an old piece do no harm.
const REASSEMBLIES_PER_SENDER_MAX: usize = 2;
/// An unfinished datagram that got nothing for this long gives way to a new one when all slots are taken.
const IDLE_BEFORE_EVICTION: Duration = Duration::from_millis(500);
/// Largest packet that the map of gathered units covers.
pub(crate) const PACKET_BYTES_MAX: usize = 1280;
const UNITS_MAX: usize = PACKET_BYTES_MAX / UNIT_BYTES;
const MAP_WORDS: usize = UNITS_MAX / 32;

/// Which 8-byte units of a packet are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Units([u32; MAP_WORDS]);

impl Units {
    const NONE: Self = Self([0; MAP_WORDS]);

    fn has(&self, unit: usize) -> bool {
        self.0.get(unit / 32).is_some_and(|word| word >> (unit % 32) & 1 == 1)
    }

    fn add(&mut self, unit: usize) {
        if let Some(word) = self.0.get_mut(unit / 32) {
            *word |= 1 << (unit % 32);
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum State {
    Free,
    Gathering { datagram: Datagram, units: Units, started: Instant, touched: Instant },
    Whole { order: u64 },
}

#[derive(Debug)]
struct Slot<const BYTES: usize> {
    source: DeviceId,
    length: usize,
    state: State,
    packet: [u8; BYTES],
}

/// What became of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Kept; its datagram is not whole yet.
    Kept,
    /// Its datagram is whole now.
    Whole,
    /// Nothing in it was new.
    Nothing,
    /// Kept, and what it contradicted was thrown away.
    Restarted,
    /// Larger than a slot.
    TooLong,
    /// It contradicts its own datagram's size or the alignment.
    Contradiction,
    /// All slots are taken.
    NoRoom,
}

/// Datagrams on their way in: `SLOTS` of up to `BYTES`.
#[derive(Debug)]
pub(crate) struct Incoming<const BYTES: usize, const SLOTS: usize> {
    slots: [Slot<BYTES>; SLOTS],
    order: u64,
    evicted: u64,
}

impl<const BYTES: usize, const SLOTS: usize> Incoming<BYTES, SLOTS> {
    const FREE: Slot<BYTES> =
        Slot { source: DeviceId([0; 8]), length: 0, state: State::Free, packet: [0; BYTES] };

    pub(crate) const fn new() -> Self {
        const { assert!(BYTES <= PACKET_BYTES_MAX && BYTES > crate::IP_UDP_HEADER_BYTES && SLOTS > 0) };
        Self { slots: [const { Self::FREE }; SLOTS], order: 0, evicted: 0 }
    }

    /// Unfinished datagrams that gave way to newer ones, since this was last asked.
    pub(crate) const fn take_evicted(&mut self) -> u64 {
        core::mem::replace(&mut self.evicted, 0)
    }

    /// A slot for a new datagram: a free one, or that of an unfinished one which `may_evict` gives up, longest idle first.
    fn claim(&mut self, may_evict: impl Fn(Instant) -> bool) -> Option<usize> {
        if let Some(free) = self.slots.iter().position(|slot| matches!(slot.state, State::Free)) {
            return Some(free);
        }
        let idle = self.slots.iter().enumerate().filter_map(|(place, slot)| match slot.state {
            State::Gathering { touched, .. } if may_evict(touched) => Some((touched, place)),
            _ => None,
        });
        let (_, place) = idle.min()?;
        self.evicted += 1;
        Some(place)
    }

    /// A packet that came in one piece. It comes before every unfinished one.
    pub(crate) fn whole(&mut self, source: DeviceId, header: &[u8], payload: &[u8]) -> Taken {
        let length = header.len() + payload.len();
        if length > BYTES {
            return Taken::TooLong;
        }
        let Some(place) = self.claim(|_| true) else { return Taken::NoRoom };
        self.order += 1;
        let Some(slot) = self.slots.get_mut(place) else { return Taken::NoRoom };
        for (to, from) in slot.packet.iter_mut().zip(header.iter().chain(payload)) {
            *to = *from;
        }
        (slot.source, slot.length, slot.state) = (source, length, State::Whole { order: self.order });
        Taken::Whole
    }

    /// One piece, at `offset` bytes of its packet: expanded headers (empty but for the first piece) and payload.
    pub(crate) fn piece(
        &mut self,
        now: Instant,
        source: DeviceId,
        datagram: Datagram,
        offset: usize,
        header: &[u8],
        payload: &[u8],
    ) -> Taken {
        let size = usize::from(datagram.size);
        let length = header.len() + payload.len();
        let end = offset + length;
        let aligned = offset.is_multiple_of(UNIT_BYTES) && (end == size || length.is_multiple_of(UNIT_BYTES));
        if length == 0 || end > size || !aligned {
            return Taken::Contradiction;
        }
        if size > BYTES {
            return Taken::TooLong;
        }
        let Some(place) = self.gathering(now, source, datagram) else { return Taken::NoRoom };
        let Some(slot) = self.slots.get_mut(place) else { return Taken::NoRoom };
        let taken = slot.add(now, offset, header, payload);
        if taken == Taken::Whole {
            self.order += 1;
            slot.state = State::Whole { order: self.order };
        }
        taken
    }

    /// The slot in which a datagram is gathered, begun if need be.
    fn gathering(&mut self, now: Instant, source: DeviceId, wanted: Datagram) -> Option<usize> {
        let mut own = 0usize;
        let mut oldest: Option<(Instant, usize)> = None;
        for (place, slot) in self.slots.iter().enumerate().filter(|(_, slot)| slot.source == source) {
            let State::Gathering { datagram, touched, .. } = slot.state else { continue };
            if datagram == wanted {
                return Some(place);
            }
            own += 1;
            if oldest.is_none_or(|(at, _)| touched < at) {
                oldest = Some((touched, place));
            }
        }
        let place = match oldest {
            Some((_, place)) if own >= REASSEMBLIES_PER_SENDER_MAX => {
                self.evicted += 1;
                place
            }
            _ => self.claim(|touched| now >= touched + IDLE_BEFORE_EVICTION)?,
        };
        let slot = self.slots.get_mut(place)?;
        slot.source = source;
        slot.length = usize::from(wanted.size);
        slot.state = State::Gathering { datagram: wanted, units: Units::NONE, started: now, touched: now };
        Some(place)
    }

    /// Gives up what is overdue, and says how many that were.
    pub(crate) fn expire(&mut self, now: Instant) -> u64 {
        let mut expired = 0;
        for slot in &mut self.slots {
            if let State::Gathering { started, .. } = slot.state
                && now >= started + REASSEMBLY_TIMEOUT
            {
                slot.state = State::Free;
                expired += 1;
            }
        }
        expired
    }

    /// When the next unfinished datagram is overdue.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let started = self.slots.iter().filter_map(|slot| match slot.state {
            State::Gathering { started, .. } => Some(started),
            _ => None,
        });
        started.min().map(|at| at + REASSEMBLY_TIMEOUT)
    }

    /// The whole packet that came first, handed to `read`; its slot is free afterwards.
    pub(crate) fn read<R>(&mut self, read: impl FnOnce(DeviceId, &[u8]) -> R) -> Option<R> {
        let whole = self.slots.iter_mut().filter_map(|slot| match slot.state {
            State::Whole { order } => Some((order, slot)),
            _ => None,
        });
        let (_, slot) = whole.min_by_key(|(order, _)| *order)?;
        slot.state = State::Free;
        slot.packet.get(..slot.length).map(|packet| read(slot.source, packet))
    }
}

impl<const BYTES: usize> Slot<BYTES> {
    /// Adds a piece whose bounds were checked.
    fn add(&mut self, now: Instant, offset: usize, header: &[u8], payload: &[u8]) -> Taken {
        let State::Gathering { units, touched, .. } = &mut self.state else { return Taken::NoRoom };
        *touched = now;
        let Some(room) = self.packet.get_mut(offset..offset + header.len() + payload.len()) else {
            return Taken::TooLong;
        };
        let first_unit = offset / UNIT_BYTES;
        let piece = || header.iter().chain(payload).enumerate();
        let known = |units: &Units, at: usize| units.has(first_unit + at / UNIT_BYTES);

        // RFC 4944: pieces that overlap and differ throw away what was gathered, and the newest begins again.
        let differs = piece().zip(room.iter()).any(|((at, new), old)| known(units, at) && new != old);
        if differs {
            *units = Units::NONE;
        }
        let fresh = piece().step_by(UNIT_BYTES).any(|(at, _)| !known(units, at));
        if !fresh {
            return Taken::Nothing;
        }
        for ((at, new), old) in piece().zip(room.iter_mut()) {
            *old = *new;
            units.add(first_unit + at / UNIT_BYTES);
        }
        if (0..self.length.div_ceil(UNIT_BYTES)).all(|unit| units.has(unit)) {
            Taken::Whole
        } else if differs {
            Taken::Restarted
        } else {
            Taken::Kept
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    const A: DeviceId = DeviceId([1; 8]);

    fn at(ms: i64) -> Instant {
        Instant::from_millis(ms)
    }

    fn datagram(size: u16, tag: u16) -> Datagram {
        Datagram { size, tag }
    }

    fn sender(n: u8) -> DeviceId {
        DeviceId([n; 8])
    }

    fn read<const B: usize, const S: usize>(incoming: &mut Incoming<B, S>) -> Option<(DeviceId, Vec<u8>)> {
        incoming.read(|from, packet| (from, packet.to_vec()))
    }

    #[test]
    fn packets_are_read_in_the_order_in_which_they_became_whole() {
        let mut incoming = Incoming::<640, 3>::new();
        assert_eq!(incoming.piece(at(0), A, datagram(16, 1), 0, &[], &[1; 8]), Taken::Kept);
        assert_eq!(incoming.whole(A, &[2], &[3]), Taken::Whole);
        assert_eq!(incoming.piece(at(1), A, datagram(16, 1), 8, &[], &[4; 8]), Taken::Whole);
        assert_eq!(read(&mut incoming), Some((A, vec![2, 3])));
        assert_eq!(read(&mut incoming), Some((A, [[1; 8], [4; 8]].concat())));
        assert_eq!(read(&mut incoming), None);
    }

    #[test]
    fn an_unfinished_datagram_is_given_up_after_its_time() {
        let mut incoming = Incoming::<640, 3>::new();
        incoming.piece(at(100), A, datagram(16, 1), 0, &[], &[1; 8]);
        assert_eq!(incoming.deadline(), Some(at(100) + REASSEMBLY_TIMEOUT));
        assert_eq!(incoming.expire(at(3_099)), 0);
        assert_eq!(incoming.expire(at(3_100)), 1);
        assert_eq!(incoming.deadline(), None);
        assert_eq!(incoming.piece(at(3_101), A, datagram(16, 1), 8, &[], &[4; 8]), Taken::Kept);
    }

    #[test]
    fn one_sender_holds_two_unfinished_datagrams_and_the_third_replaces_the_older() {
        let mut incoming = Incoming::<640, 8>::new();
        for (ms, tag) in [(0, 1), (1, 2), (2, 3)] {
            assert_eq!(incoming.piece(at(ms), A, datagram(16, tag), 0, &[], &[1; 8]), Taken::Kept);
        }
        assert_eq!(incoming.take_evicted(), 1);
        assert_eq!(incoming.piece(at(3), A, datagram(16, 2), 8, &[], &[2; 8]), Taken::Whole);
        assert_eq!(incoming.piece(at(3), A, datagram(16, 3), 8, &[], &[3; 8]), Taken::Whole);
    }

    #[test]
    fn when_all_slots_are_taken_the_idle_give_way_and_the_busy_do_not() {
        let mut incoming = Incoming::<640, 2>::new();
        incoming.piece(at(0), sender(1), datagram(16, 1), 0, &[], &[1; 8]);
        incoming.piece(at(0), sender(2), datagram(16, 1), 0, &[], &[1; 8]);
        assert_eq!(incoming.piece(at(499), sender(3), datagram(16, 1), 0, &[], &[1; 8]), Taken::NoRoom);
        assert_eq!(incoming.piece(at(500), sender(3), datagram(16, 1), 0, &[], &[1; 8]), Taken::Kept);
        assert_eq!(incoming.whole(sender(4), &[], &[1]), Taken::Whole);
        assert_eq!(incoming.whole(sender(5), &[], &[1]), Taken::Whole);
        assert_eq!(incoming.whole(sender(6), &[], &[1]), Taken::NoRoom);
        assert_eq!(incoming.take_evicted(), 3);
    }

    #[test]
    fn a_piece_that_differs_from_what_is_there_begins_again() {
        let mut incoming = Incoming::<640, 2>::new();
        incoming.piece(at(0), A, datagram(24, 1), 0, &[], &[1; 16]);
        assert_eq!(incoming.piece(at(1), A, datagram(24, 1), 0, &[], &[1; 8]), Taken::Nothing);
        assert_eq!(incoming.piece(at(1), A, datagram(24, 1), 8, &[], &[2; 8]), Taken::Restarted);
        assert_eq!(incoming.piece(at(2), A, datagram(24, 1), 16, &[], &[3; 8]), Taken::Kept);
        assert_eq!(incoming.piece(at(2), A, datagram(24, 1), 0, &[], &[4; 8]), Taken::Whole);
        assert_eq!(read(&mut incoming), Some((A, [[4; 8], [2; 8], [3; 8]].concat())));
    }

    #[test]
    fn pieces_that_can_not_be_are_refused() {
        let mut incoming = Incoming::<640, 2>::new();
        let mut piece =
            |size, offset, bytes: &[u8]| incoming.piece(at(0), A, datagram(size, 1), offset, &[], bytes);
        assert_eq!(piece(0, 0, &[]), Taken::Contradiction);
        assert_eq!(piece(16, 0, &[]), Taken::Contradiction);
        assert_eq!(piece(16, 0, &[1; 7]), Taken::Contradiction);
        assert_eq!(piece(16, 0, &[1; 24]), Taken::Contradiction);
        assert_eq!(piece(16, 16, &[1; 8]), Taken::Contradiction);
        assert_eq!(piece(16, 2_040, &[1; 8]), Taken::Contradiction);
        assert_eq!(piece(641, 0, &[1; 8]), Taken::TooLong);
        assert_eq!(incoming.deadline(), None);
    }

    proptest! {
        /// Pieces in any order and number, of several senders at once, judged by a map from place to byte.
        #[test]
        fn a_packet_is_whole_when_its_last_byte_is_there_and_not_before(
            sizes in prop::collection::vec(1u16..=640, 1..4),
            order in prop::collection::vec((any::<u16>(), 1usize..12), 1..200),
        ) {
            let mut incoming = Incoming::<640, 4>::new();
            let byte = |who: usize, place: usize| {
                let [.., low] = (who * 89 + place * 7 + place / 256).to_be_bytes();
                low
            };
            let mut there: Vec<Vec<bool>> = sizes.iter().map(|size| vec![false; usize::from(*size)]).collect();
            for (pick, units) in order {
                let who = usize::from(pick) % sizes.len();
                let size = usize::from(sizes[who]);
                let from = usize::from(pick) / 3 % size.div_ceil(8) * 8;
                let to = (from + units * 8).min(size);
                let bytes: Vec<u8> = (from..to).map(|place| byte(who, place)).collect();
                let source = sender([1, 2, 3][who]);
                let split = bytes.len().min(3);
                let taken = incoming.piece(
                    at(0), source, datagram(sizes[who], 5), from, &bytes[..split], &bytes[split..]);
                let fresh = there[who][from..to].iter().any(|known| !known);
                there[who][from..to].fill(true);
                let whole = there[who].iter().all(|known| *known);
                prop_assert_eq!(taken, match (whole, fresh) {
                    (true, _) => Taken::Whole,
                    (false, true) => Taken::Kept,
                    (false, false) => Taken::Nothing,
                });
                if whole {
                    let packet: Vec<u8> = (0..size).map(|place| byte(who, place)).collect();
                    prop_assert_eq!(read(&mut incoming), Some((source, packet)));
                    there[who].fill(false);
                }
                prop_assert_eq!(read(&mut incoming), None);
            }
        }
    }
}
