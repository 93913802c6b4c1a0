//! The stations around: for each the sequence numbers lately taken from it and the next one to it, and how it was
//! heard. A bounded table; when it is full, the station longest untouched is forgotten.

use smoltcp::time::{Duration, Instant};
use tidelog_record::DeviceId;

use crate::endpoint::{Neighbor, Quality};

/// How long a sequence number taken from a station is remembered after that station's last new frame. Longer than all
/// repetitions of one frame last, shorter than a reboot.
const DUPLICATE_WINDOW: Duration = Duration::from_millis(1_000);
/// Sequence numbers remembered for one station: copies that were overtaken by newer frames are recognised too.
const RECENT_FRAMES: usize = 4;

#[derive(Debug, Clone)]
struct Entry {
    device: DeviceId,
    touched: Instant,
    heard: Option<(Instant, Quality)>,
    recent: heapless::Deque<u8, RECENT_FRAMES>,
    sequence_out: u8,
    frames_in: u32,
    unacknowledged: u32,
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
                    recent: heapless::Deque::new(),
                    sequence_out: first_sequence,
                    frames_in: 0,
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
                && entry.recent.iter().any(|recent| *recent == sequence)
        })
    }

    /// Remembers a frame as taken.
    pub(crate) fn taken(
        &mut self,
        now: Instant,
        device: DeviceId,
        sequence: Option<u8>,
        quality: Quality,
        first_sequence: u8,
    ) {
        let Some(entry) = self.entry(now, device, first_sequence) else { return };
        if entry.heard.is_none_or(|(at, _)| now >= at + DUPLICATE_WINDOW) {
            entry.recent.clear();
        }
        entry.heard = Some((now, quality));
        entry.frames_in = entry.frames_in.saturating_add(1);
        if let Some(sequence) = sequence {
            if entry.recent.is_full() {
                entry.recent.pop_front();
            }
            if entry.recent.push_back(sequence).is_err() {
                entry.recent.clear();
            }
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
                unacknowledged: entry.unacknowledged,
            })
        })
    }
}
