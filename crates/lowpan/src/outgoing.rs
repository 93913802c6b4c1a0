//! Datagrams on their way out: each is cut into frames one at a time, and each frame waits for its acknowledgement
//! before the next (802.15.4 section 6.7.4: a bounded number of repetitions after a random back-off). Datagrams to one
//! station leave in order; those to different stations do not wait for each other, so a silent station holds
//! up nobody else.

use smoltcp::time::{Duration, Instant};
use tidelog_record::DeviceId;

use crate::bytes::Writer;
use crate::fragment::{self, Datagram, FIRST_BYTES, NEXT_BYTES, UNIT_BYTES};
use crate::iphc::{self, COMPRESSED_BYTES_MAX, Link};
use crate::mac::{self, Address};
use crate::random::Spread;
use crate::{FRAME_BUFFER_BYTES, FRAME_BYTES_MAX, LINK_SECURITY_BYTES};

/// Repetitions of a frame that stays without acknowledgement.
pub(crate) const RETRIES_MAX: u8 = 3;
/// Frames in a row without acknowledgement that end a datagram. One alone does not: often only its acknowledgement was
/// lost, and the receiver has the piece.
const UNACKNOWLEDGED_IN_ROW_MAX: u8 = 2;
/// Back-off before a repetition: 1 to this many units.
const BACKOFF_UNITS_MAX: u64 = 8;
/// One unit of back-off.
const BACKOFF_UNIT: Duration = Duration::from_millis(1);
/// What a frame holds behind its MAC header and before the room for link security.
const ROOM_BYTES: usize = FRAME_BYTES_MAX - mac::DATA_HEADER_BYTES - LINK_SECURITY_BYTES;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Free,
    /// A frame may leave from this moment on.
    Ready(Instant),
    /// A frame left; until this moment its acknowledgement may come.
    Waiting(Instant),
}

#[derive(Debug)]
struct Slot<const BYTES: usize> {
    to: DeviceId,
    /// Place in the order in which datagrams were taken.
    order: u64,
    phase: Phase,
    length: usize,
    tag: u16,
    /// Bytes of the packet that have left.
    offset: usize,
    /// Where the frame under way ends.
    end: usize,
    /// The frame under way; `None` before its first attempt.
    sequence: Option<u8>,
    attempts: u8,
    unacknowledged_in_row: u8,
    packet: [u8; BYTES],
}

/// How this station sends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    pub eui: DeviceId,
    pub pan: u16,
    pub soft_mac: bool,
    pub ack_wait: Duration,
    pub pace: Duration,
}

/// What happened to a frame or its datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The frame will be sent again.
    Retry,
    /// The frame is given up, its datagram goes on.
    Unacknowledged(DeviceId),
    /// The frame is given up, and its datagram with it.
    Failed(DeviceId),
    /// The frame is through, its datagram goes on.
    Progress,
    /// The frame is through, and it was the datagram's last.
    Sent,
}

/// Datagrams on their way out: `SLOTS` of up to `BYTES`.
#[derive(Debug)]
pub(crate) struct Outgoing<const BYTES: usize, const SLOTS: usize> {
    slots: [Slot<BYTES>; SLOTS],
    order: u64,
    tag: u16,
    spread: Spread,
}

impl<const BYTES: usize, const SLOTS: usize> Outgoing<BYTES, SLOTS> {
    const FREE: Slot<BYTES> = Slot {
        to: DeviceId([0; 8]),
        order: 0,
        phase: Phase::Free,
        length: 0,
        tag: 0,
        offset: 0,
        end: 0,
        sequence: None,
        attempts: 0,
        unacknowledged_in_row: 0,
        packet: [0; BYTES],
    };

    pub(crate) fn new(mut spread: Spread) -> Self {
        const { assert!(SLOTS > 0 && SLOTS < 128) };
        Self { slots: [const { Self::FREE }; SLOTS], order: 0, tag: spread.next_u16(), spread }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.slots.iter().any(|slot| slot.phase == Phase::Free)
    }

    /// Room for a packet of just `length` bytes, which the caller fills at once. `None` when no slot is free, or none
    /// so long.
    pub(crate) fn claim(&mut self, now: Instant, to: DeviceId, length: usize) -> Option<&mut [u8]> {
        let slot = self.slots.iter_mut().find(|slot| slot.phase == Phase::Free)?;
        if length > BYTES {
            return None;
        }
        self.order += 1;
        self.tag = self.tag.wrapping_add(1);
        (slot.to, slot.order, slot.phase, slot.length, slot.tag) =
            (to, self.order, Phase::Ready(now), length, self.tag);
        (slot.offset, slot.end, slot.sequence, slot.attempts, slot.unacknowledged_in_row) =
            (0, 0, None, 0, 0);
        slot.packet.get_mut(..length)
    }

    /// Whether no older datagram to the same station is under way.
    fn is_turn(&self, slot: &Slot<BYTES>) -> bool {
        !self
            .slots
            .iter()
            .any(|other| other.phase != Phase::Free && other.to == slot.to && other.order < slot.order)
    }

    /// The next frame that may leave at `now`, longest ready first. `next_sequence` numbers it if it is new, and
    /// gets to know which numbers still wait for an acknowledgement.
    pub(crate) fn poll(
        &mut self,
        now: Instant,
        manner: Manner,
        next_sequence: impl FnOnce(DeviceId, &dyn Fn(u8) -> bool) -> u8,
        out: &mut [u8; FRAME_BUFFER_BYTES],
    ) -> Option<(usize, Option<Outcome>)> {
        let due = self.slots.iter().enumerate().filter_map(|(place, slot)| match slot.phase {
            Phase::Ready(at) if at <= now && self.is_turn(slot) => Some((at, slot.order, place)),
            _ => None,
        });
        let (_, _, place) = due.min()?;
        let (to, known) = self.slots.get(place).map(|slot| (slot.to, slot.sequence))?;
        let sequence = match known {
            Some(sequence) => sequence,
            None => next_sequence(to, &|number| {
                self.slots.iter().any(|slot| slot.phase != Phase::Free && slot.sequence == Some(number))
            }),
        };
        let slot = self.slots.get_mut(place)?;
        slot.sequence = Some(sequence);
        let Some(written) = slot.write_frame(manner, sequence, out) else {
            // Only a packet that is no IPv6 packet gets here, and none such is put in.
            slot.phase = Phase::Free;
            return None;
        };
        if manner.soft_mac {
            slot.attempts += 1;
            slot.phase = Phase::Waiting(now + manner.ack_wait);
            return Some((written, None));
        }
        let outcome = slot.proceed(now + manner.pace);
        self.hold_back(to, now + manner.pace);
        Some((written, Some(outcome)))
    }

    /// Takes an acknowledgement. `None` when nothing waits for it.
    pub(crate) fn acknowledged(&mut self, now: Instant, sequence: u8, pace: Duration) -> Option<Outcome> {
        let waits = |slot: &&mut Slot<BYTES>| slot.phase != Phase::Free && slot.sequence == Some(sequence);
        let slot = self.slots.iter_mut().find(waits)?;
        slot.unacknowledged_in_row = 0;
        let (to, outcome) = (slot.to, slot.proceed(now + pace));
        self.hold_back(to, now + pace);
        Some(outcome)
    }

    /// Lets nothing leave for a station before `at`.
    fn hold_back(&mut self, to: DeviceId, at: Instant) {
        for slot in self.slots.iter_mut().filter(|slot| slot.to == to) {
            if let Phase::Ready(ready) = slot.phase {
                slot.phase = Phase::Ready(ready.max(at));
            }
        }
    }

    /// One frame whose acknowledgement is overdue, and what became of it. Call until `None`.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<Outcome> {
        let overdue = |slot: &&mut Slot<BYTES>| matches!(slot.phase, Phase::Waiting(until) if until <= now);
        let slot = self.slots.iter_mut().find(overdue)?;
        if slot.attempts <= RETRIES_MAX {
            let units = self.spread.up_to(BACKOFF_UNITS_MAX - 1) + 1;
            slot.phase = Phase::Ready(now + Duration::from_micros(BACKOFF_UNIT.total_micros() * units));
            return Some(Outcome::Retry);
        }
        let to = slot.to;
        slot.unacknowledged_in_row += 1;
        if slot.unacknowledged_in_row >= UNACKNOWLEDGED_IN_ROW_MAX || slot.proceed(now) == Outcome::Sent {
            slot.phase = Phase::Free;
            return Some(Outcome::Failed(to));
        }
        Some(Outcome::Unacknowledged(to))
    }

    /// When something is due next: a frame may leave, or an acknowledgement is overdue.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let due = self.slots.iter().filter_map(|slot| match slot.phase {
            Phase::Free => None,
            Phase::Waiting(until) => Some(until),
            Phase::Ready(at) => self.is_turn(slot).then_some(at),
        });
        due.min()
    }
}

impl<const BYTES: usize> Slot<BYTES> {
    /// Goes on to the next frame, which may leave from `at` on.
    fn proceed(&mut self, at: Instant) -> Outcome {
        (self.offset, self.sequence, self.attempts) = (self.end, None, 0);
        if self.offset >= self.length {
            self.phase = Phase::Free;
            return Outcome::Sent;
        }
        self.phase = Phase::Ready(at);
        Outcome::Progress
    }

    /// Writes the frame at `offset` and notes where it ends. The same state writes the same bytes.
    fn write_frame(
        &mut self,
        manner: Manner,
        sequence: u8,
        out: &mut [u8; FRAME_BUFFER_BYTES],
    ) -> Option<usize> {
        let packet = self.packet.get(..self.length)?;
        let mut writer = Writer::new(out);
        writer.put(&mac::data_header(sequence, manner.pan, self.to, manner.eui))?;
        let datagram = Datagram { size: u16::try_from(self.length).ok()?, tag: self.tag };
        if self.offset == 0 {
            let link =
                Link { source: Address::Extended(manner.eui), destination: Address::Extended(self.to) };
            let mut headers = [0u8; COMPRESSED_BYTES_MAX];
            let short = iphc::compress(packet, link, &mut headers)?;
            let headers = headers.get(..short.written)?;
            let payload = packet.get(short.consumed..)?;
            if headers.len() + payload.len() <= ROOM_BYTES {
                writer.put(headers)?.put(payload)?;
                self.end = self.length;
            } else {
                let room = ROOM_BYTES.checked_sub(FIRST_BYTES + headers.len())?;
                self.end = (short.consumed + room) / UNIT_BYTES * UNIT_BYTES;
                fragment::write_first(datagram, &mut writer)?;
                writer.put(headers)?.put(packet.get(short.consumed..self.end)?)?;
            }
        } else {
            let room = (ROOM_BYTES - NEXT_BYTES) / UNIT_BYTES * UNIT_BYTES;
            self.end = (self.offset + room).min(self.length);
            fragment::write_next(datagram, self.offset, &mut writer)?;
            writer.put(packet.get(self.offset..self.end)?)?;
        }
        Some(writer.written())
    }
}
