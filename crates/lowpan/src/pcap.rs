//! Captures for Wireshark: the classic pcap format with link type 283 (IEEE 802.15.4 TAP), one record for each frame.
//! It writes bytes and knows no file; what the frames say is Wireshark's affair.
//!
//! ```text
//! file      D4 C3 B2 A1 | version 2.4 | zone 0 u32 | accuracy 0 u32 | longest record u32 | link type 283 u32   little-endian
//! record    seconds u32 | microseconds u32 | length u32 | length u32 | TAP header | frame without check sequence
//! TAP       version 0 | 0 | length u16 = 28 | fields, each: type u16, length u16, value padded to 4 bytes
//!           type 0 FCS: 0 = none   type 3 channel: u16, page u8 = 0   type 10 link quality u8
//! ```

use crate::FRAME_BYTES_MAX;

/// What a capture file begins with.
pub const FILE_HEADER: [u8; 24] =
    [0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 27, 1, 0, 0];

const RECORD_HEAD_BYTES: usize = 16;
const TAP_BYTES: u8 = 28;
const HEADER_BYTES: usize = RECORD_HEAD_BYTES + TAP_BYTES as usize;
/// Longest record, in bytes.
pub const RECORD_BYTES_MAX: usize = HEADER_BYTES + FRAME_BYTES_MAX;

/// Writes the record of a frame without check sequence, heard `unix_us` microseconds after 1970, and gives its length.
/// `None` for a frame longer than a frame can be.
pub fn record(
    unix_us: u64,
    channel: u8,
    lqi: u8,
    frame: &[u8],
    out: &mut [u8; RECORD_BYTES_MAX],
) -> Option<usize> {
    let length = HEADER_BYTES.checked_add(frame.len())?;
    // The format's seconds end in 2106.
    let seconds = u32::try_from(unix_us / 1_000_000).unwrap_or(u32::MAX);
    let micros = u32::try_from(unix_us % 1_000_000).unwrap_or_default();
    let captured = u32::try_from(length - RECORD_HEAD_BYTES).ok()?;
    let tap = [
        [0, 0, TAP_BYTES, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 0],
        [3, 0, 3, 0],
        [channel, 0, 0, 0],
        [10, 0, 1, 0],
        [lqi, 0, 0, 0],
    ];
    let head = [seconds, micros, captured, captured].map(u32::to_le_bytes);
    let bytes = head.iter().chain(&tap).flatten().chain(frame);
    out.get_mut(..length)?.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_laid_out_as_drawn() {
        let mut out = [0; RECORD_BYTES_MAX];
        let length = record(1_600_000_000_000_007, 26, 200, b"frame", &mut out).unwrap();
        let drawn = [
            &1_600_000_000u32.to_le_bytes()[..],
            &[7, 0, 0, 0, 33, 0, 0, 0, 33, 0, 0, 0],
            &[0, 0, 28, 0, 0, 0, 1, 0, 0, 0, 0, 0, 3, 0, 3, 0, 26, 0, 0, 0, 10, 0, 1, 0, 200, 0, 0, 0],
            b"frame",
        ];
        assert!(out[..length].iter().eq(drawn.into_iter().flatten()));
        assert_eq!(record(0, 26, 0, &[0; FRAME_BYTES_MAX + 1], &mut out), None);
    }
}
