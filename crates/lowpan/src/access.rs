//! Medium access for a radio that just receives and sends: what is acknowledged at once, when a frame may try to leave, and what waits on either
//! side. It knows no radio: a board that drives one asks it, and says what came of it. What frames carry, and whether they are repeated, is the
//! [`Endpoint`](crate::Endpoint)'s, whose configuration says `soft_ack: false`.
//!
//! ```text
//! radio ── answer ─▶ acknowledgement, or none      keep ──▶ [ heard ] ── take ──▶ endpoint
//! radio ◀─ leave ── [ one frame, when it is due ] ◀── send ── endpoint;   left: the medium was clear, or not
//! ```

use heapless::{Deque, Vec};
use smoltcp::time::{Duration, Instant};
use tidelog_record::DeviceId;

use crate::csma::Csma;
use crate::mac::{self, ACK_BYTES};
use crate::{EndpointConfig, FRAME_BYTES_MAX, Quality};

/// Frames that wait for the endpoint at most.
pub const HEARD_MAX: usize = 4;

/// The bytes of a frame, without its check sequence.
pub type FrameBytes = Vec<u8, FRAME_BYTES_MAX>;

/// A frame that was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// The frame.
    pub frame: FrameBytes,
    /// How it was heard.
    pub quality: Quality,
}

/// What became of frames that did not go the usual way, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AccessCounters {
    /// Asked for an acknowledgement, and were seen too late for one.
    pub late: u32,
    /// Found all places taken: not acknowledged, and not kept.
    pub no_room: u32,
    /// Did not leave, because the medium was never clear.
    pub given_up: u32,
}

/// A frame is on its way out already, or is longer than a frame may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("another frame is on its way out, or this one is too long")]
pub struct NotNow;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Out {
    Nothing,
    /// It may look whether the medium is clear from this moment on.
    Waiting(Instant),
    Leaving,
}

/// One station's access to the medium.
#[derive(Debug)]
pub struct Access {
    eui: DeviceId,
    pan: u16,
    answered_within: Duration,
    heard: Deque<Heard, HEARD_MAX>,
    out: Out,
    frame: FrameBytes,
    csma: Csma,
    watched: Instant,
    counters: AccessCounters,
}

impl Access {
    /// For this station. A frame that may have ended longer than `answered_within` ago is not acknowledged any more: with what the radio then
    /// takes, its sender would not wait so long. `entropy` should differ between stations.
    #[must_use]
    pub fn new(station: &EndpointConfig, answered_within: Duration, entropy: u64) -> Self {
        Self {
            eui: station.eui,
            pan: station.pan,
            answered_within,
            heard: Deque::new(),
            out: Out::Nothing,
            frame: Vec::new(),
            csma: Csma::new(entropy),
            watched: Instant::ZERO,
            counters: AccessCounters::default(),
        }
    }

    /// Says that no frame waits in the radio unseen that ended before `now`: it was just asked and had none, or its interrupt just ended a sleep
    /// before which it had none.
    pub fn watched(&mut self, now: Instant) {
        self.watched = now;
    }

    /// The acknowledgement to send at once for a frame that the radio has, if any: it is for this station, wants one, can be kept, and is
    /// recent. One that is not acknowledged comes again.
    pub fn answer(&mut self, now: Instant, frame: &[u8]) -> Option<[u8; ACK_BYTES]> {
        let ack = mac::acknowledgement(frame, self.eui, self.pan).filter(|_| !self.heard.is_full())?;
        if now > self.watched + self.answered_within {
            self.counters.late = self.counters.late.saturating_add(1);
            return None;
        }
        Some(ack)
    }

    /// Keeps a frame for the endpoint, acknowledged or not.
    pub fn keep(&mut self, frame: &[u8], quality: Quality) {
        // What is longer than a frame is none.
        let Ok(frame) = Vec::from_slice(frame) else { return };
        if self.heard.push_back(Heard { frame, quality }).is_err() {
            self.counters.no_room = self.counters.no_room.saturating_add(1);
        }
    }

    /// The next frame that was kept.
    pub fn take(&mut self) -> Option<Heard> {
        self.heard.pop_front()
    }

    /// Whether one is there.
    #[must_use]
    pub fn has_heard(&self) -> bool {
        !self.heard.is_empty()
    }

    /// Whether a frame can be given to it.
    #[must_use]
    pub fn can_send(&self) -> bool {
        self.out == Out::Nothing
    }

    /// Takes a frame to send.
    ///
    /// # Errors
    /// [`NotNow`]; then it was not taken.
    pub fn send(&mut self, now: Instant, frame: &[u8]) -> Result<(), NotNow> {
        if !self.can_send() {
            return Err(NotNow);
        }
        self.frame = Vec::from_slice(frame).map_err(|_| NotNow)?;
        self.out = Out::Waiting(now + self.csma.begin());
        Ok(())
    }

    /// When the frame that waits wants to leave.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        match self.out {
            Out::Waiting(at) => Some(at),
            Out::Nothing | Out::Leaving => None,
        }
    }

    /// The frame that is due: look whether the medium is clear, send it if so, and say [`left`](Self::left).
    pub fn leave(&mut self, now: Instant) -> Option<&FrameBytes> {
        if self.due().is_none_or(|at| now < at) {
            return None;
        }
        self.out = Out::Leaving;
        Some(&self.frame)
    }

    /// Says whether the medium was clear, so that the frame left.
    pub fn left(&mut self, now: Instant, clear: bool) {
        if self.out != Out::Leaving {
            return;
        }
        self.out = match self.csma.busy().filter(|_| !clear) {
            Some(wait) => Out::Waiting(now + wait),
            None => Out::Nothing,
        };
        if !clear && self.out == Out::Nothing {
            self.counters.given_up = self.counters.given_up.saturating_add(1);
        }
    }

    /// Totals since the start.
    #[must_use]
    pub const fn counters(&self) -> AccessCounters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec as List;

    const US: DeviceId = DeviceId([0x02, 0x12, 0x4b, 0, 0, 0, 0, 1]);
    const OTHER: DeviceId = DeviceId([0x02, 0x12, 0x4b, 0, 0, 0, 0, 2]);
    const QUALITY: Quality = Quality { rssi_dbm: -60, lqi: 200 };
    const PAN: u16 = 0x0023;

    fn at(us: i64) -> Instant {
        Instant::from_micros(us)
    }

    fn access() -> Access {
        Access::new(&EndpointConfig::new(US), Duration::from_micros(150), 1)
    }

    fn frame(sequence: u8) -> [u8; 21] {
        mac::data_header(sequence, PAN, US, OTHER, false)
    }

    #[test]
    fn a_frame_is_acknowledged_if_it_cannot_have_waited_longer_than_it_may() {
        let mut access = access();
        access.watched(at(1_000));
        for (us, late) in [(1_000, 0), (1_150, 0), (1_151, 1), (9_000, 2)] {
            let ack = access.answer(at(us), &frame(7));
            assert_eq!(ack, (us <= 1_150).then_some([2, 0, 7]));
            assert_eq!(access.counters().late, late);
        }
        access.watched(at(9_000));
        assert!(access.answer(at(9_100), &frame(7)).is_some());
        assert_eq!(access.answer(at(9_200), &mac::data_header(7, PAN, OTHER, US, false)), None);
        assert_eq!(access.counters().late, 2, "a frame for another is not late");
    }

    #[test]
    fn what_cannot_be_kept_is_not_acknowledged_and_the_rest_comes_out_in_order() {
        let mut access = access();
        for sequence in 0..6 {
            let ack = access.answer(at(0), &frame(sequence));
            assert_eq!(ack.is_some(), usize::from(sequence) < HEARD_MAX);
            access.keep(&frame(sequence), QUALITY);
        }
        access.keep(&[0; FRAME_BYTES_MAX + 1], QUALITY);
        assert_eq!(access.counters(), AccessCounters { no_room: 2, ..AccessCounters::default() });
        let kept: List<u8> = core::iter::from_fn(|| access.take()).map(|heard| heard.frame[2]).collect();
        assert_eq!(kept, [0, 1, 2, 3]);
        assert!(!access.has_heard() && access.answer(at(0), &frame(9)).is_some());
    }

    #[test]
    fn a_frame_leaves_when_the_medium_is_clear_and_only_one_at_a_time() {
        let mut access = access();
        let mut now = at(0);
        for busy in 0..=5 {
            assert!(access.can_send() && access.due().is_none());
            access.send(now, &frame(busy)).unwrap();
            assert_eq!(access.send(now, &frame(9)), Err(NotNow));
            for attempt in 0..=busy {
                let Some(due) = access.due() else {
                    assert_eq!((busy, attempt), (5, 5), "given up after the fifth look");
                    break;
                };
                assert!(due >= now);
                if due > now {
                    assert_eq!(access.leave(now), None);
                }
                now = due;
                assert_eq!(access.leave(now).map(|frame| &frame[..]), Some(&frame(busy)[..]));
                assert_eq!((access.due(), access.can_send()), (None, false));
                assert_eq!(access.leave(now), None, "twice");
                now += Duration::from_micros(128);
                access.left(now, attempt == busy);
            }
        }
        assert_eq!((access.counters().given_up, access.can_send()), (1, true));
        assert_eq!(access.send(now, &[0; FRAME_BYTES_MAX + 1]), Err(NotNow));
        access.left(now, false);
        assert!(access.can_send(), "nothing was leaving");
    }
}
