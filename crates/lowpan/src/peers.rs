//! The stations around: for each the frames lately taken from it, by their sequence numbers or, where frames are
//! secured, by their frame counters; the next sequence number to it; and how it was heard. A bounded table; when it is
//! full, the station longest untouched is forgotten, and with it how far its frame counter was.

use smoltcp::time::{Duration, Instant};
use tidelog_record::DeviceId;

use crate::endpoint::{Neighbor, Quality};

/// How long a sequence number taken from a station is remembered after that station's last new frame. Longer than all
/// repetitions of one frame last, shorter than a reboot.
const DUPLICATE_WINDOW: Duration = Duration::from_millis(1_000);
/// Frames remembered of one station: copies that were overtaken by newer frames are recognised too.
const RECENT_FRAMES: usize = 4;
/// Most numbers between two frames of a station that are taken for frames that did not come: past it, the station began anew.
const MISSED_FRAMES_MAX: u8 = 32;
/// No frame: neither a sequence number nor a frame counter that a frame can have (802.15.4-2020 section 9.4.2).
const NO_FRAME: u32 = u32::MAX;

/// What a frame counter says about its frame, once the frame is known to be genuine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// Higher than all before.
    New,
    /// One of those lately taken: its sender repeats a frame whose acknowledgement was lost.
    Repeated,
    /// Passed before: an old frame, sent again by whomever.
    Replayed,
}

#[derive(Debug, Clone)]
struct Entry {
    device: DeviceId,
    touched: Instant,
    heard: Option<(Instant, Quality)>,
    /// Sequence numbers or frame counters, newest first.
    recent: [u32; RECENT_FRAMES],
    sequence_out: u8,
    /// The number of the last frame to this station alone.
    sequence_in: Option<u8>,
    frames_in: u32,
    frames_missed: u32,
    unacknowledged: u32,
}

impl Entry {
    /// Counts what did not come before the frame of this number.
    fn follow(&mut self, number: u8) {
        let step = self.sequence_in.map_or(1, |before| number.wrapping_sub(before));
        let behind = step.wrapping_neg();
        if (1..=MISSED_FRAMES_MAX).contains(&step) {
            self.frames_missed = self.frames_missed.saturating_add(u32::from(step - 1));
        } else if usize::from(behind) <= RECENT_FRAMES {
            // Overtaken by newer ones, and it came after all.
            self.frames_missed = self.frames_missed.saturating_sub(u32::from(behind > 0));
            return;
        }
        self.sequence_in = Some(number);
    }
}

/// The stations around, at most `PEERS` of them.
#[derive(Debug)]
pub(crate) struct Peers<const PEERS: usize> {
    entries: heapless::Vec<Entry, PEERS>,
}

impl<const PEERS: usize> Peers<PEERS> {
    pub(crate) const fn new() -> Self {
        Self { entries: heapless::Vec::new() }
    }

    fn find(&self, device: DeviceId) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.device == device)
    }

    /// The station's entry, made if need be; `first_sequence` starts its counter. `None` only with room for nobody.
    fn entry(&mut self, now: Instant, device: DeviceId, first_sequence: u8) -> Option<&mut Entry> {
        let place = match self.entries.iter().position(|entry| entry.device == device) {
            Some(place) => place,
            None => {
                let fresh = Entry {
                    device,
                    touched: now,
                    heard: None,
                    recent: [NO_FRAME; RECENT_FRAMES],
                    sequence_out: first_sequence,
                    sequence_in: None,
                    frames_in: 0,
                    frames_missed: 0,
                    unacknowledged: 0,
                };
                self.insert(fresh)?
            }
        };
        let entry = self.entries.get_mut(place)?;
        entry.touched = now;
        Some(entry)
    }

    fn insert(&mut self, fresh: Entry) -> Option<usize> {
        match self.entries.push(fresh) {
            Ok(()) => self.entries.len().checked_sub(1),
            Err(fresh) => {
                let (place, oldest) =
                    self.entries.iter_mut().enumerate().min_by_key(|(_, entry)| entry.touched)?;
                *oldest = fresh;
                Some(place)
            }
        }
    }

    /// Whether this frame was taken before.
    pub(crate) fn is_duplicate(&self, now: Instant, device: DeviceId, sequence: u8) -> bool {
        self.find(device).is_some_and(|entry| {
            entry.heard.is_some_and(|(at, _)| now < at + DUPLICATE_WINDOW)
                && entry.recent.contains(&u32::from(sequence))
        })
    }

    /// What the frame counter of a genuine frame says.
    pub(crate) fn freshness(&self, device: DeviceId, counter: u32) -> Freshness {
        let newest = self.find(device).map_or(NO_FRAME, |entry| {
            let [newest, ..] = entry.recent;
            newest
        });
        if counter == NO_FRAME {
            Freshness::Replayed
        } else if newest == NO_FRAME || counter > newest {
            Freshness::New
        } else if self.find(device).is_some_and(|entry| entry.recent.contains(&counter)) {
            Freshness::Repeated
        } else {
            Freshness::Replayed
        }
    }

    /// Remembers a frame as taken: by its frame counter where it has one, else by its sequence number.
    pub(crate) fn taken(
        &mut self,
        now: Instant,
        device: DeviceId,
        (sequence, counter): (Option<u8>, Option<u32>),
        unicast: bool,
        quality: Quality,
        first_sequence: u8,
    ) {
        let Some(entry) = self.entry(now, device, first_sequence) else { return };
        // A station that restarts may use its sequence numbers again, its counters never.
        if counter.is_none() && entry.heard.is_none_or(|(at, _)| now >= at + DUPLICATE_WINDOW) {
            entry.recent = [NO_FRAME; RECENT_FRAMES];
        }
        entry.heard = Some((now, quality));
        entry.frames_in = entry.frames_in.saturating_add(1);
        if let Some(number) = sequence.filter(|_| unicast) {
            entry.follow(number);
        }
        if let Some(number) = counter.or(sequence.map(u32::from)) {
            entry.recent.rotate_right(1);
            let [newest, ..] = &mut entry.recent;
            *newest = number;
        }
    }

    /// The sequence number of the next frame to a station. Each station has a counter of its own, so that it sees
    /// hundreds of frames before a number comes again; numbers for which `in_use` answers true are skipped, because
    /// an acknowledgement carries nothing but the number.
    pub(crate) fn next_sequence(
        &mut self,
        now: Instant,
        device: DeviceId,
        first_sequence: u8,
        in_use: impl Fn(u8) -> bool,
    ) -> u8 {
        let start =
            self.entry(now, device, first_sequence).map_or(first_sequence, |entry| entry.sequence_out);
        let chosen =
            (0..=u8::MAX).map(|step| start.wrapping_add(step)).find(|n| !in_use(*n)).unwrap_or(start);
        if let Some(entry) = self.entry(now, device, first_sequence) {
            entry.sequence_out = chosen.wrapping_add(1);
        }
        chosen
    }

    /// Counts a frame that stayed without acknowledgement.
    pub(crate) fn unacknowledged(&mut self, device: DeviceId) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.device == device) {
            entry.unacknowledged = entry.unacknowledged.saturating_add(1);
        }
    }

    pub(crate) fn neighbors(&self) -> impl Iterator<Item = Neighbor> {
        self.entries.iter().filter_map(|entry| {
            let (heard, quality) = entry.heard?;
            Some(Neighbor {
                device: entry.device,
                heard,
                quality,
                frames_in: entry.frames_in,
                frames_missed: entry.frames_missed,
                unacknowledged: entry.unacknowledged,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    const QUALITY: Quality = Quality { rssi_dbm: -50, lqi: 255 };

    fn at(ms: i64) -> Instant {
        Instant::from_millis(ms)
    }

    fn device(n: u8) -> DeviceId {
        DeviceId([n; 8])
    }

    #[test]
    fn a_frame_is_a_duplicate_until_its_window_or_four_newer_frames_have_passed() {
        let mut peers = Peers::<4>::new();
        for sequence in 10..14 {
            peers.taken(at(0), device(1), (Some(sequence), None), true, QUALITY, 0);
        }
        assert!((10..14).all(|sequence| peers.is_duplicate(at(999), device(1), sequence)));
        assert!(!peers.is_duplicate(at(999), device(1), 14));
        assert!(!peers.is_duplicate(at(999), device(2), 10));
        assert!(!peers.is_duplicate(at(1_000), device(1), 13));
        peers.taken(at(999), device(1), (Some(14), None), true, QUALITY, 0);
        assert!(!peers.is_duplicate(at(999), device(1), 10));
        assert!(peers.is_duplicate(at(1_998), device(1), 11));
    }

    #[test]
    fn each_station_has_a_counter_of_its_own_that_skips_what_is_in_use() {
        let mut peers = Peers::<4>::new();
        let mut next = |n, in_use: u8| peers.next_sequence(at(0), device(n), 254, |number| number == in_use);
        assert_eq!([next(1, 9), next(2, 9), next(1, 255), next(1, 9), next(2, 9)], [254, 254, 0, 1, 255]);
    }

    #[test]
    fn a_number_comes_again_only_after_all_others() {
        let mut peers = Peers::<4>::new();
        let numbers: Vec<u8> =
            (0..256).map(|_| peers.next_sequence(at(0), device(1), 77, |_| false)).collect();
        assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), 256);
    }

    #[test]
    fn frames_that_did_not_come_are_counted_and_what_was_overtaken_is_none_of_them() {
        let mut peers = Peers::<4>::new();
        let mut missed = |sequence, unicast| {
            peers.taken(at(0), device(1), (Some(sequence), None), unicast, QUALITY, 0);
            peers.neighbors().next().map(|neighbor| neighbor.frames_missed)
        };
        for (sequence, expected) in
            [(250, 0), (251, 0), (254, 2), (1, 4), (0, 3), (2, 3), (2, 3), (34, 34), (100, 34), (101, 34)]
        {
            assert_eq!(missed(sequence, true), Some(expected), "{sequence}");
        }
        assert_eq!(missed(110, false), Some(34), "frames to everyone have numbers of their own");
        assert_eq!(missed(102, true), Some(34));
    }

    #[test]
    fn a_full_table_forgets_the_station_longest_untouched() {
        let mut peers = Peers::<2>::new();
        peers.taken(at(0), device(1), (Some(1), None), true, QUALITY, 0);
        peers.taken(at(1), device(2), (Some(1), None), true, QUALITY, 0);
        peers.taken(at(2), device(1), (Some(2), None), true, QUALITY, 0);
        peers.taken(at(3), device(3), (Some(1), None), true, QUALITY, 0);
        let known: Vec<DeviceId> = peers.neighbors().map(|neighbor| neighbor.device).collect();
        assert_eq!(known, [device(1), device(3)]);
    }

    #[test]
    fn a_frame_counter_is_taken_once_and_only_upwards_whatever_time_passes() {
        let mut peers = Peers::<4>::new();
        assert_eq!(peers.freshness(device(1), 0), Freshness::New);
        for (ms, counter) in [(0, 5), (10, 6), (20, 90), (5_000, 91), (9_000, 200)] {
            assert_eq!(peers.freshness(device(1), counter), Freshness::New, "{counter}");
            peers.taken(at(ms), device(1), (Some(1), Some(counter)), true, QUALITY, 0);
        }
        for counter in [6, 90, 91, 200] {
            assert_eq!(peers.freshness(device(1), counter), Freshness::Repeated, "{counter}");
        }
        for counter in [0, 5, 7, 89, 92, 199, u32::MAX] {
            assert_eq!(peers.freshness(device(1), counter), Freshness::Replayed, "{counter}");
        }
        assert_eq!(peers.freshness(device(2), 7), Freshness::New, "each station has its own");
    }
}
