//! Datagrams on their way out: each is cut into frames one at a time, and each frame waits for its acknowledgement
//! before the next (802.15.4 section 6.7.4: a bounded number of repetitions after a random back-off). Datagrams to one
//! station leave in order; those to different stations do not wait for each other, so a silent station holds
//! up nobody else.

use smoltcp::time::{Duration, Instant};
use tidelog_record::DeviceId;
use tidelog_record::bytes::Writer;

use crate::fragment::{self, Datagram, FIRST_BYTES, NEXT_BYTES, UNIT_BYTES};
use crate::iphc::{self, COMPRESSED_BYTES_MAX, Link};
use crate::mac::{self, Address};
use crate::random::Spread;
use crate::security::{self, FrameCounters, NetworkKey};
use crate::{FRAME_BUFFER_BYTES, FRAME_BYTES_MAX, LINK_SECURITY_BYTES};

/// Repetitions of a frame that stays without acknowledgement.
pub(crate) const RETRIES_MAX: u8 = 3;
/// Frames in a row without acknowledgement that end a datagram. One alone does not: often only its acknowledgement was
/// lost, and the receiver has the piece.
const UNACKNOWLEDGED_IN_ROW_MAX: u8 = 2;
/// Back-off before the first repetition: up to this; before each further one, up to twice the one before. So stations
/// that lost their frames to each other drift apart.
const BACKOFF_US_MAX: u64 = 8_000;
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
    /// Its frame counter, where frames are secured: a repetition is the identical frame, so no counter is used twice.
    counter: Option<u32>,
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
    pub key: Option<NetworkKey>,
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
        counter: None,
        attempts: 0,
        unacknowledged_in_row: 0,
        packet: [0; BYTES],
    };

    pub(crate) fn new(mut spread: Spread) -> Self {
        const { assert!(SLOTS > 0 && SLOTS < 128) };
        Self { slots: [const { Self::FREE }; SLOTS], order: 0, tag: spread.next_u16(), spread }
    }

    /// Slots that the datagrams to one station may fill: a station that does not answer leaves room for others.
    const SHARE: usize = if SLOTS.div_ceil(4) > 2 { SLOTS.div_ceil(4) } else { 2 };

    /// Whether a datagram to this station would be taken.
    pub(crate) fn has_room(&self, to: DeviceId) -> bool {
        let held = self.slots.iter().filter(|slot| slot.phase != Phase::Free && slot.to == to).count();
        held < Self::SHARE && self.slots.iter().any(|slot| slot.phase == Phase::Free)
    }

    /// Room for a packet of just `length` bytes, which the caller fills at once. `None` when there is no room for it.
    pub(crate) fn claim(&mut self, now: Instant, to: DeviceId, length: usize) -> Option<&mut [u8]> {
        if length > BYTES || !self.has_room(to) {
            return None;
        }
        let slot = self.slots.iter_mut().find(|slot| slot.phase == Phase::Free)?;
        self.order += 1;
        self.tag = self.tag.wrapping_add(1);
        (slot.to, slot.order, slot.phase, slot.length, slot.tag) =
            (to, self.order, Phase::Ready(now), length, self.tag);
        (slot.offset, slot.end, slot.sequence, slot.attempts, slot.unacknowledged_in_row) =
            (0, 0, None, 0, 0);
        slot.counter = None;
        slot.packet.get_mut(..length)
    }

    /// Whether no older datagram to the same station is under way.
    fn is_turn(&self, slot: &Slot<BYTES>) -> bool {
        !self
            .slots
            .iter()
            .any(|other| other.phase != Phase::Free && other.to == slot.to && other.order < slot.order)
    }

    /// Whether this slot's frame needs nothing more than its moment: a secured frame also needs a counter.
    fn may_leave(slot: &Slot<BYTES>, key: Option<NetworkKey>, counters: &FrameCounters) -> bool {
        key.is_none() || slot.counter.is_some() || counters.is_available()
    }

    /// The next frame that may leave at `now`, longest ready first. `next_sequence` numbers it if it is new, and
    /// gets to know which numbers still wait for an acknowledgement.
    pub(crate) fn poll(
        &mut self,
        now: Instant,
        manner: Manner,
        counters: &mut FrameCounters,
        next_sequence: impl FnOnce(DeviceId, &dyn Fn(u8) -> bool) -> u8,
        out: &mut [u8; FRAME_BUFFER_BYTES],
    ) -> Option<(usize, Option<Outcome>)> {
        let due = self.slots.iter().enumerate().filter_map(|(place, slot)| match slot.phase {
            Phase::Ready(at)
                if at <= now && self.is_turn(slot) && Self::may_leave(slot, manner.key, counters) =>
            {
                Some((at, slot.order, place))
            }
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
        if manner.key.is_some() && slot.counter.is_none() {
            slot.counter = Some(counters.take()?);
        }
        let Some(written) = slot.write_frame(manner, sequence, out) else {
            // Only a packet that is no IPv6 packet gets here, and none such is put in.
            slot.phase = Phase::Free;
            return None;
        };
        if manner.soft_mac {
            slot.attempts += 1;
            slot.phase = Phase::Waiting(now + slot.ack_wait(manner));
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
            let backoff_us_max = BACKOFF_US_MAX << slot.attempts.saturating_sub(1);
            slot.phase = Phase::Ready(now + Duration::from_micros(self.spread.up_to(backoff_us_max)));
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

    /// Gives up one datagram that can go on by no means, because its next frame needs a counter and none is left. Call
    /// until `None`.
    pub(crate) fn abandon(&mut self) -> Option<Outcome> {
        let stuck = |slot: &&mut Slot<BYTES>| matches!(slot.phase, Phase::Ready(_)) && slot.counter.is_none();
        let slot = self.slots.iter_mut().find(stuck)?;
        slot.phase = Phase::Free;
        Some(Outcome::Failed(slot.to))
    }

    /// When something is due next: a frame may leave, or an acknowledgement is overdue.
    pub(crate) fn deadline(&self, key: Option<NetworkKey>, counters: &FrameCounters) -> Option<Instant> {
        let due = self.slots.iter().filter_map(|slot| match slot.phase {
            Phase::Free => None,
            Phase::Waiting(until) => Some(until),
            Phase::Ready(at) => (self.is_turn(slot) && Self::may_leave(slot, key, counters)).then_some(at),
        });
        due.min()
    }
}

impl<const BYTES: usize> Slot<BYTES> {
    /// How long this attempt waits: twice as long as the one before. So a busy medium is not asked more the slower it
    /// answers.
    fn ack_wait(&self, manner: Manner) -> Duration {
        let doublings = self.attempts.saturating_sub(1).min(RETRIES_MAX);
        Duration::from_micros(manner.ack_wait.total_micros() << doublings)
    }

    /// Goes on to the next frame, which may leave from `at` on.
    fn proceed(&mut self, at: Instant) -> Outcome {
        (self.offset, self.sequence, self.counter, self.attempts) = (self.end, None, None, 0);
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
        writer.put(&mac::data_header(sequence, manner.pan, self.to, manner.eui, manner.key.is_some()))?;
        if manner.key.is_some() {
            writer.put(&security::auxiliary_header(self.counter?))?;
        }
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
        let written = writer.written();
        match manner.key {
            None => Some(written),
            Some(key) => security::seal(key, manner.eui, self.counter?, out, mac::DATA_HEADER_BYTES, written),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec;
    use std::vec::Vec;

    const OWN: DeviceId = DeviceId([1; 8]);
    const MANNER: Manner = Manner {
        eui: OWN,
        pan: 0x0023,
        soft_mac: true,
        ack_wait: Duration::from_millis(10),
        pace: Duration::from_millis(2),
        key: None,
    };

    fn at(ms: i64) -> Instant {
        Instant::from_millis(ms)
    }

    fn peer(n: u8) -> DeviceId {
        DeviceId([n; 8])
    }

    fn outgoing() -> Outgoing<640, 8> {
        Outgoing::new(Spread::new(1))
    }

    /// Puts in an IPv6 packet with no next header and so much payload.
    fn put(outgoing: &mut Outgoing<640, 8>, to: u8, payload_bytes: u16) -> bool {
        let length = 40 + usize::from(payload_bytes);
        let Some(packet) = outgoing.claim(at(0), peer(to), length) else { return false };
        packet.fill(0);
        packet[0] = 0x60;
        packet[4..6].copy_from_slice(&payload_bytes.to_be_bytes());
        packet[6] = 59;
        true
    }

    /// What leaves at a moment: (to, sequence number) of each frame, numbered from the last byte of its address.
    fn leave(outgoing: &mut Outgoing<640, 8>, now: Instant) -> Vec<(u8, u8)> {
        let mut buffer = [0; FRAME_BUFFER_BYTES];
        let mut left = vec![];
        let number =
            |to: DeviceId, in_use: &dyn Fn(u8) -> bool| (to.0[0] * 10..=255).find(|n| !in_use(*n)).unwrap();
        while outgoing.poll(now, MANNER, &mut FrameCounters::new(), number, &mut buffer).is_some() {
            left.push((buffer[5], buffer[2]));
        }
        left
    }

    #[test]
    fn a_frame_without_acknowledgement_is_repeated_three_times_and_then_given_up() {
        let mut outgoing = outgoing();
        put(&mut outgoing, 2, 10);
        let (mut sent, mut outcomes, mut now) = (0, vec![], at(0));
        while let Some(due) = outgoing.deadline(None, &FrameCounters::new()) {
            now = now.max(due);
            outcomes.extend(core::iter::from_fn(|| outgoing.expire(now)));
            sent += leave(&mut outgoing, now).len();
        }
        assert_eq!(sent, 1 + usize::from(RETRIES_MAX));
        assert_eq!(outcomes, [Outcome::Retry, Outcome::Retry, Outcome::Retry, Outcome::Failed(peer(2))]);
        assert!(now <= at(10 + 20 + 40 + 80 + 8 + 16 + 32), "{now}");
    }

    #[test]
    fn one_fragment_without_acknowledgement_does_not_end_a_datagram_but_two_in_a_row_do() {
        let mut outgoing = outgoing();
        put(&mut outgoing, 2, 300);
        let (mut outcomes, mut now, mut frames) = (vec![], at(0), 0);
        while let Some(due) = outgoing.deadline(None, &FrameCounters::new()) {
            now = now.max(due);
            outcomes.extend(
                core::iter::from_fn(|| outgoing.expire(now)).filter(|outcome| *outcome != Outcome::Retry),
            );
            for (_, sequence) in leave(&mut outgoing, now) {
                frames += 1;
                // The first fragment stays without acknowledgement, the second has one, all others have none.
                if frames == 5 {
                    assert_eq!(outgoing.acknowledged(now, sequence, MANNER.pace), Some(Outcome::Progress));
                }
            }
        }
        assert_eq!(
            outcomes,
            [Outcome::Unacknowledged(peer(2)), Outcome::Unacknowledged(peer(2)), Outcome::Failed(peer(2))]
        );
    }

    #[test]
    fn datagrams_to_one_station_leave_in_order_and_to_others_at_once() {
        let mut outgoing = outgoing();
        assert!(put(&mut outgoing, 2, 10) && put(&mut outgoing, 2, 10) && put(&mut outgoing, 3, 10));
        assert_eq!(leave(&mut outgoing, at(0)), [(2, 20), (3, 30)]);
        assert_eq!(outgoing.acknowledged(at(1), 20, MANNER.pace), Some(Outcome::Sent));
        assert_eq!(leave(&mut outgoing, at(2)), [], "within the pace");
        assert_eq!(leave(&mut outgoing, at(3)), [(2, 20)]);
    }

    #[test]
    fn a_late_acknowledgement_still_ends_the_wait_and_a_second_one_ends_nothing() {
        let mut outgoing = outgoing();
        put(&mut outgoing, 2, 10);
        leave(&mut outgoing, at(0));
        assert_eq!(outgoing.expire(at(10)), Some(Outcome::Retry));
        assert_eq!(outgoing.acknowledged(at(10), 20, MANNER.pace), Some(Outcome::Sent));
        assert_eq!(outgoing.acknowledged(at(10), 20, MANNER.pace), None);
        assert_eq!(outgoing.deadline(None, &FrameCounters::new()), None);
    }

    #[test]
    fn numbers_that_wait_for_an_acknowledgement_are_not_given_twice() {
        let mut outgoing = outgoing();
        for n in 2..8 {
            assert!(put(&mut outgoing, n, 10));
        }
        let mut buffer = [0; FRAME_BUFFER_BYTES];
        let mut numbers = vec![];
        let number = |_: DeviceId, in_use: &dyn Fn(u8) -> bool| (0..=255).find(|n| !in_use(*n)).unwrap();
        while outgoing.poll(at(0), MANNER, &mut FrameCounters::new(), number, &mut buffer).is_some() {
            numbers.push(buffer[2]);
        }
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn one_station_can_not_take_all_slots() {
        let mut outgoing = outgoing();
        assert!(put(&mut outgoing, 2, 10) && put(&mut outgoing, 2, 10) && !put(&mut outgoing, 2, 10));
        assert!((3..6).all(|n| put(&mut outgoing, n, 10) && put(&mut outgoing, n, 10)));
        assert!(!put(&mut outgoing, 7, 10), "no slot is free");
    }

    #[test]
    fn a_radio_that_acknowledges_by_itself_is_waited_for_no_more_than_the_pace() {
        let mut outgoing = outgoing();
        put(&mut outgoing, 2, 300);
        let manner = Manner { soft_mac: false, ..MANNER };
        let mut buffer = [0; FRAME_BUFFER_BYTES];
        let mut outcomes = vec![];
        for ms in 0..20 {
            if let Some((_, outcome)) =
                outgoing.poll(at(ms), manner, &mut FrameCounters::new(), |_, _| 0, &mut buffer)
            {
                outcomes.push((ms, outcome.unwrap()));
            }
        }
        let (last, before) = outcomes.split_last().unwrap();
        assert!(before.iter().all(|(_, outcome)| *outcome == Outcome::Progress));
        assert_eq!(*last, (2 * i64::try_from(before.len()).unwrap(), Outcome::Sent));
    }
}
