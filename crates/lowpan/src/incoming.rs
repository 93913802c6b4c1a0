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
        let aligned = offset % UNIT_BYTES == 0 && (end == size || length % UNIT_BYTES == 0);
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
