//! HDLC-lite (Spinel appendix A, RFC 1662 section 4): frames on a line of bytes that may be cut, joined and damaged. A frame is whole and
//! its check sequence right, or it is not handed on; behind each flag everything begins anew.
//!
//! ```text
//! 7E | frame and FCS, escaped | 7E        one flag may end a frame and begin the next
//! FCS = CRC-16/X-25 of the frame, little-endian
//! escaped: 7E 7D 11 13 F8 become 7D, byte ^ 20; a bare 11 or 13 is flow control of the line and no byte of a frame
//! ```

use heapless::Vec;

use crate::FRAME_BYTES_MAX;

const FLAG: u8 = 0x7e;
const ESCAPE: u8 = 0x7d;
const XON: u8 = 0x11;
const XOFF: u8 = 0x13;
const VENDOR: u8 = 0xf8;
const FLIPPED: u8 = 0x20;
const FCS_BYTES: usize = 2;

/// What a frame of `frame_bytes` takes on the line at most, in bytes.
#[must_use]
pub const fn wire_bytes_max(frame_bytes: usize) -> usize {
    2 + 2 * (frame_bytes + FCS_BYTES)
}

/// Why what stood between two flags is no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The check sequence is wrong, or there was no room for one.
    #[error("a damaged frame on the line")]
    Fcs,
    /// It is longer than [`FRAME_BYTES_MAX`].
    #[error("a frame of more than {FRAME_BYTES_MAX} bytes on the line")]
    TooLong,
    /// The sender gave it up (an escape before the flag).
    #[error("a frame that its sender gave up")]
    Aborted,
}

/// CRC-16/X-25.
#[must_use]
pub fn fcs(frame: &[u8]) -> u16 {
    let mut crc = u16::MAX;
    for byte in frame {
        crc ^= u16::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x8408 } else { crc >> 1 };
        }
    }
    !crc
}

/// Writes a frame as it goes on the line; its length there, or `None` when `out` is too small.
pub fn encode(frame: &[u8], out: &mut [u8]) -> Option<usize> {
    let mut room = out.iter_mut();
    let mut written = 0;
    let mut put = |byte: u8| {
        written += 1;
        room.next().map(|place| *place = byte)
    };
    put(FLAG)?;
    for byte in frame.iter().chain(&fcs(frame).to_le_bytes()) {
        if matches!(*byte, FLAG | ESCAPE | XON | XOFF | VENDOR) {
            put(ESCAPE)?;
            put(byte ^ FLIPPED)?;
        } else {
            put(*byte)?;
        }
    }
    put(FLAG)?;
    Some(written)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// No flag was seen since the start, or since a frame became too long.
    Outside,
    Inside,
    Escaped,
}

/// Finds frames in a line of bytes.
#[derive(Debug, Clone)]
pub struct Decoder {
    place: Place,
    /// The last frame stands here until the next byte.
    done: bool,
    bytes: Vec<u8, { FRAME_BYTES_MAX + FCS_BYTES }>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// One that waits for the first flag.
    #[must_use]
    pub const fn new() -> Self {
        Self { place: Place::Outside, done: false, bytes: Vec::new() }
    }

    /// Takes the line's next byte: a frame that ends with it, or what was wrong with one.
    ///
    /// # Errors
    /// [`Damage`]; the decoder goes on with the next flag.
    pub fn push(&mut self, byte: u8) -> Result<Option<&[u8]>, Damage> {
        if core::mem::take(&mut self.done) {
            self.bytes.clear();
        }
        match (self.place, byte) {
            (Place::Outside, FLAG) => {
                self.place = Place::Inside;
                self.bytes.clear();
            }
            (Place::Outside, _) | (_, XON | XOFF) => {}
            (Place::Escaped, FLAG) => {
                self.place = Place::Inside;
                self.bytes.clear();
                return Err(Damage::Aborted);
            }
            (Place::Inside, FLAG) => return self.end(),
            (Place::Inside, ESCAPE) => self.place = Place::Escaped,
            (Place::Inside, byte) => return self.keep(byte),
            (Place::Escaped, byte) => {
                self.place = Place::Inside;
                return self.keep(byte ^ FLIPPED);
            }
        }
        Ok(None)
    }

    fn keep(&mut self, byte: u8) -> Result<Option<&[u8]>, Damage> {
        self.bytes.push(byte).map(|()| None).map_err(|_| {
            self.place = Place::Outside;
            Damage::TooLong
        })
    }

    fn end(&mut self) -> Result<Option<&[u8]>, Damage> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        self.done = true;
        match self.bytes.split_last_chunk::<FCS_BYTES>() {
            Some((frame, check)) if fcs(frame).to_le_bytes() == *check => Ok(Some(frame)),
            _ => Err(Damage::Fcs),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::WIRE_BYTES_MAX;
    use proptest::prelude::*;
    use std::vec::Vec as List;

    /// Frames and damages in what was heard.
    fn heard(line: &[u8]) -> (List<List<u8>>, usize) {
        let mut decoder = Decoder::new();
        let (mut frames, mut damaged) = (List::new(), 0);
        for byte in line {
            match decoder.push(*byte) {
                Ok(Some(frame)) => frames.push(frame.to_vec()),
                Ok(None) => {}
                Err(_) => damaged += 1,
            }
        }
        (frames, damaged)
    }

    fn on_the_line(frame: &[u8]) -> List<u8> {
        let mut out = [0; WIRE_BYTES_MAX];
        let length = encode(frame, &mut out).unwrap();
        out[..length].to_vec()
    }

    #[test]
    fn a_reset_goes_on_the_line_as_others_send_it() {
        assert_eq!(on_the_line(&[0x80, 0x01, 0x02]), [0x7e, 0x80, 0x01, 0x02, 0xea, 0xf0, 0x7e]);
        assert_eq!(fcs(b"123456789"), 0x906e);
    }

    #[test]
    fn flow_control_between_the_bytes_is_no_part_of_a_frame() {
        let line = [0x7e, 0x80, XOFF, 0x01, 0x02, XON, 0xea, 0xf0, 0x7e];
        assert_eq!(heard(&line), (List::from([List::from([0x80, 1, 2])]), 0));
    }

    #[test]
    fn a_frame_that_is_too_long_or_given_up_is_told_once_and_the_next_one_is_heard() {
        let next = on_the_line(b"next");
        let long = [&[FLAG][..], &[1; 2 * FRAME_BYTES_MAX], &next].concat();
        assert_eq!(heard(&long), (List::from([b"next".to_vec()]), 1));
        let given_up = [&[FLAG, 1, 2, ESCAPE][..], &next].concat();
        assert_eq!(heard(&given_up), (List::from([b"next".to_vec()]), 1));
    }

    #[test]
    fn a_frame_does_not_fit_into_less_than_it_takes() {
        let whole = on_the_line(&[FLAG; 10]).len();
        let mut out = [0; WIRE_BYTES_MAX];
        assert_eq!(encode(&[FLAG; 10], &mut out[..whole]), Some(whole));
        assert_eq!(encode(&[FLAG; 10], &mut out[..whole - 1]), None);
    }

    /// Bytes that need an escape come often.
    fn frame() -> impl Strategy<Value = List<u8>> {
        let byte = prop_oneof![any::<u8>(), proptest::sample::select(&[FLAG, ESCAPE, XON, XOFF, VENDOR][..])];
        proptest::collection::vec(byte, 1..=FRAME_BYTES_MAX)
    }

    proptest! {
        #[test]
        fn frames_are_heard_as_sent_whether_flags_are_shared_or_not(
            frames in proptest::collection::vec((frame(), any::<bool>()), 1..6),
        ) {
            let mut line = List::new();
            for (frame, shares) in &frames {
                let bytes = on_the_line(frame);
                line.extend_from_slice(&bytes[usize::from(*shares && !line.is_empty())..]);
            }
            let sent: List<List<u8>> = frames.into_iter().map(|(frame, _)| frame).collect();
            prop_assert_eq!(heard(&line), (sent, 0));
        }

        #[test]
        fn damage_costs_the_frame_that_it_hits_and_never_a_later_one(
            first in frame(), second in frame(), at: prop::sample::Index, flipped in 1u8..=255, dropped: bool,
        ) {
            let mut line = on_the_line(&first);
            let hit = at.index(line.len());
            let special = |byte: u8| [FLAG, ESCAPE, XON, XOFF].contains(&byte);
            let plain = !dropped && hit > 0 && ![line[hit - 1], line[hit], line[hit] ^ flipped].iter().any(|byte| special(*byte));
            if dropped {
                line.remove(hit);
            } else {
                line[hit] ^= flipped;
            }
            // An empty frame behind the damage, so that a damaged flag does not reach into the second frame.
            line.push(FLAG);
            line.extend(on_the_line(&second));
            let (frames, _) = heard(&line);
            prop_assert_eq!(frames.last(), Some(&second));
            if plain {
                prop_assert_eq!(frames, [second], "a burst of eight bits is always found");
            }
        }

        #[test]
        fn noise_before_a_frame_does_not_hide_it(noise in proptest::collection::vec(any::<u8>(), 0..1000), sent in frame()) {
            let mut line = noise;
            line.push(FLAG);
            line.extend(on_the_line(&sent));
            let (frames, _) = heard(&line);
            prop_assert_eq!(frames.last(), Some(&sent));
        }
    }
}
