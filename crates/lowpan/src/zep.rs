//! The ZigBee Encapsulation Protocol, version 2: an 802.15.4 frame inside a UDP datagram, as Wireshark and RIOT
//! speak it. This module turns frames into datagrams and back and keeps the frame check sequence on that side; it
//! knows nothing of what a frame means.
//!
//! ```text
//! data, big-endian                                                    acknowledgement
//! offset 0  45 58 "EX" | 2 version | 3 type = 1 | 4 channel           0 "EX" | 2 version | 3 type = 2
//! offset 5  device u16 | 7 mode (1 = FCS follows) | 8 LQI             4 sequence u32
//! offset 9  NTP timestamp u64 | 17 sequence u32 | 21 reserved [10]
//! offset 31 length u8 | 32 frame [length - 2] | FCS, CRC-16/KERMIT, little-endian
//! ```

/// The UDP port of ZEP.
pub const PORT: u16 = 17_754;
/// Largest ZEP datagram, in bytes: its header and a whole PHY frame.
pub const PACKET_BYTES_MAX: usize = FRAME_AT + 127;

const PREAMBLE: [u8; 2] = *b"EX";
const VERSION: u8 = 2;
const TYPE_DATA: u8 = 1;
const TYPE_ACK: u8 = 2;
const MODE_FCS: u8 = 1;
/// Length of the frame check sequence.
pub const FCS_BYTES: usize = 2;
const ACK_BYTES: usize = 8;

/// Where the frame starts, behind the length byte.
const FRAME_AT: usize = 32;

/// What a data datagram says about its frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Header {
    /// Channel of the frame.
    pub channel: u8,
    /// The sending device's number; free for the sender to choose.
    pub device: u16,
    /// Link quality, 0 to 255.
    pub lqi: u8,
    /// NTP timestamp: seconds since 1900 in the high half, fractions of a second in the low half.
    pub ntp: u64,
    /// Number of this datagram at its sender.
    pub sequence: u32,
}

/// A checked ZEP datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    /// A frame, without its check sequence, which was found right.
    Data(Header, &'a [u8]),
    /// The acknowledgement of a datagram.
    Ack(u32),
}

/// Why bytes are no ZEP datagram, or why a frame fits into none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Shorter than its own header or length field says.
    #[error("cut short")]
    Truncated,
    /// Not ZEP, or a version other than 2.
    #[error("not ZEP version 2")]
    NotZep,
    /// A type that version 2 does not have.
    #[error("unknown ZEP type {0}")]
    Type(u8),
    /// The mode byte says that no check sequence follows.
    #[error("the frame carries no check sequence")]
    NoFcs,
    /// The check sequence does not belong to the frame.
    #[error("wrong frame check sequence")]
    Fcs,
    /// The frame exceeds what a PHY carries, or the buffer is too small.
    #[error("the frame is too long")]
    TooLong,
}

/// CRC-16/KERMIT, the frame check sequence of 802.15.4.
#[must_use]
pub fn fcs(frame: &[u8]) -> u16 {
    let mut crc = 0u16;
    for byte in frame {
        crc ^= u16::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x8408 } else { crc >> 1 };
        }
    }
    crc
}

/// Reads one datagram.
///
/// # Errors
/// What is wrong with it, as an [`Error`].
pub fn decode(bytes: &[u8]) -> Result<Packet<'_>, Error> {
    let head = bytes.first_chunk::<4>().ok_or(Error::Truncated)?;
    if head.first_chunk() != Some(&PREAMBLE) || head.get(2) != Some(&VERSION) {
        return Err(Error::NotZep);
    }
    let [.., kind] = *head;
    match kind {
        TYPE_ACK => {
            let sequence = bytes.get(4..ACK_BYTES).and_then(|b| b.first_chunk()).ok_or(Error::Truncated)?;
            Ok(Packet::Ack(u32::from_be_bytes(*sequence)))
        }
        TYPE_DATA => decode_data(bytes),
        other => Err(Error::Type(other)),
    }
}

fn decode_data(bytes: &[u8]) -> Result<Packet<'_>, Error> {
    let (head, frame) = bytes.split_at_checked(FRAME_AT).ok_or(Error::Truncated)?;
    let [_, _, _, _, channel, d0, d1, mode, lqi, rest @ ..] = head else { return Err(Error::Truncated) };
    let (ntp, rest) = rest.split_first_chunk().ok_or(Error::Truncated)?;
    let (sequence, rest) = rest.split_first_chunk().ok_or(Error::Truncated)?;
    let length = usize::from(*rest.last().ok_or(Error::Truncated)?);
    if *mode != MODE_FCS {
        return Err(Error::NoFcs);
    }
    let psdu = frame.get(..length).ok_or(Error::Truncated)?;
    let (frame, check) = psdu.split_last_chunk::<FCS_BYTES>().ok_or(Error::Truncated)?;
    if frame.len() > crate::FRAME_BYTES_MAX {
        return Err(Error::TooLong);
    }
    if u16::from_le_bytes(*check) != fcs(frame) {
        return Err(Error::Fcs);
    }
    let header = Header {
        channel: *channel,
        device: u16::from_be_bytes([*d0, *d1]),
        lqi: *lqi,
        ntp: u64::from_be_bytes(*ntp),
        sequence: u32::from_be_bytes(*sequence),
    };
    Ok(Packet::Data(header, frame))
}

/// Writes one frame (without check sequence) as a data datagram, and says how long that is.
///
/// # Errors
/// [`Error::TooLong`] when the frame exceeds [`FRAME_BYTES_MAX`](crate::FRAME_BYTES_MAX) or `out` is too small.
pub fn encode(header: &Header, frame: &[u8], out: &mut [u8]) -> Result<usize, Error> {
    if frame.len() > crate::FRAME_BYTES_MAX {
        return Err(Error::TooLong);
    }
    let psdu_bytes = frame.len() + FCS_BYTES;
    let psdu_length = u8::try_from(psdu_bytes).map_err(|_| Error::TooLong)?;
    let total = FRAME_AT + psdu_bytes;
    let out = out.get_mut(..total).ok_or(Error::TooLong)?;
    let parts: [&[u8]; 10] = [
        &PREAMBLE,
        &[VERSION, TYPE_DATA, header.channel],
        &header.device.to_be_bytes(),
        &[MODE_FCS, header.lqi],
        &header.ntp.to_be_bytes(),
        &header.sequence.to_be_bytes(),
        &[0; 10],
        &[psdu_length],
        frame,
        &fcs(frame).to_le_bytes(),
    ];
    for (to, from) in out.iter_mut().zip(parts.into_iter().flatten()) {
        *to = *from;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_check_sequence_is_crc_16_kermit() {
        assert_eq!(fcs(b"123456789"), 0x2189);
    }

    #[test]
    fn a_datagram_is_laid_out_as_drawn() {
        let header =
            Header { channel: 26, device: 0x0102, lqi: 255, ntp: 0x1122_3344_5566_7788, sequence: 9 };
        let mut out = [0; PACKET_BYTES_MAX];
        let length = encode(&header, &[0x02, 0x00, 7], &mut out).unwrap();
        #[rustfmt::skip]
        let drawn = [
            b'E', b'X', 2, 1, 26, 1, 2, 1, 255, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0, 0, 0, 9,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0x02, 0x00, 7,
        ];
        assert_eq!(out[..length - 2], drawn);
        assert_eq!(out[length - 2..length], fcs(&[0x02, 0x00, 7]).to_le_bytes());
        assert_eq!(decode(&out[..length]), Ok(Packet::Data(header, &[0x02, 0x00, 7])));
    }

    #[test]
    fn what_is_no_zep_is_refused_by_its_reason() {
        let mut good = [0; PACKET_BYTES_MAX];
        let length = encode(&Header::default(), b"frame", &mut good).unwrap();
        let changed = |at: usize, to: u8| {
            let mut bytes = good;
            bytes[at] = to;
            decode(&bytes[..length]).unwrap_err()
        };
        assert_eq!(changed(0, b'e'), Error::NotZep);
        assert_eq!(changed(2, 1), Error::NotZep);
        assert_eq!(changed(3, 3), Error::Type(3));
        assert_eq!(changed(7, 0), Error::NoFcs);
        assert_eq!(changed(31, 8), Error::Truncated);
        assert_eq!(changed(31, 6), Error::Fcs);
        assert_eq!(changed(31, 1), Error::Truncated);
        assert_eq!(changed(33, 0), Error::Fcs);
        assert_eq!(decode(b"EX\x02\x02\0\0\0\x07"), Ok(Packet::Ack(7)));
        assert_eq!(encode(&Header::default(), &[0; 126], &mut good), Err(Error::TooLong));
        assert_eq!(encode(&Header::default(), b"frame", &mut [0; 38]), Err(Error::TooLong));
    }

    proptest! {
        #[test]
        fn every_frame_comes_back(frame in prop::collection::vec(any::<u8>(), 0..=125), channel: u8, device: u16, lqi: u8, ntp: u64, sequence: u32) {
            let header = Header { channel, device, lqi, ntp, sequence };
            let mut out = [0; PACKET_BYTES_MAX];
            let length = encode(&header, &frame, &mut out).unwrap();
            prop_assert_eq!(decode(&out[..length]), Ok(Packet::Data(header, &frame[..])));
            for end in 0..length {
                prop_assert!(decode(&out[..end]).is_err());
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..200), zep: bool) {
            if zep {
                bytes.splice(0..bytes.len().min(4), *b"EX\x02\x01");
            }
            if let Ok(Packet::Data(_, frame)) = decode(&bytes) {
                prop_assert!(frame.len() <= crate::FRAME_BYTES_MAX);
            }
        }
    }
}
