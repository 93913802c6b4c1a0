//! Fragmentation headers, RFC 4944 section 5.3: what the first bytes of a 6LoWPAN payload say about its place in a
//! datagram. Where fragments are gathered is no concern of this module.
//!
//! ```text
//! first   1 1 0 0 0 size(11) | tag u16 | compressed headers and payload
//! next    1 1 1 0 0 size(11) | tag u16 | offset u8 in units of 8 bytes | payload
//! size and offset are those of the uncompressed IPv6 packet; every piece but the last is a multiple of 8 bytes of it
//! ```

use tidelog_record::bytes::{Reader, Writer};

/// Offsets and piece sizes are multiples of this.
pub(crate) const UNIT_BYTES: usize = 8;
/// Header of a first fragment.
pub(crate) const FIRST_BYTES: usize = 4;
/// Header of each later fragment.
pub(crate) const NEXT_BYTES: usize = 5;

const FIRST: u8 = 0b1100_0000;
const NEXT: u8 = 0b1110_0000;
const MASK: u8 = 0b1111_1000;

/// What names a datagram among those of one sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Datagram {
    /// Bytes of the uncompressed packet.
    pub size: u16,
    pub tag: u16,
}

/// A 6LoWPAN payload and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    Whole(&'a [u8]),
    First(Datagram, &'a [u8]),
    Next(Datagram, usize, &'a [u8]),
}

impl<'a> Piece<'a> {
    /// `None` when the payload ends within its fragment header.
    pub(crate) fn parse(payload: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        let first = reader.u8()?;
        let kind = first & MASK;
        if kind != FIRST && kind != NEXT {
            return Some(Self::Whole(payload));
        }
        let size = u16::from_be_bytes([first & !MASK, reader.u8()?]);
        let datagram = Datagram { size, tag: reader.array().map(u16::from_be_bytes)? };
        if kind == FIRST {
            return Some(Self::First(datagram, reader.rest()));
        }
        let offset = usize::from(reader.u8()?) * UNIT_BYTES;
        Some(Self::Next(datagram, offset, reader.rest()))
    }
}

fn write(kind: u8, datagram: Datagram, writer: &mut Writer<'_>) -> Option<()> {
    let [high, low] = datagram.size.to_be_bytes();
    writer.put(&[kind | high & !MASK, low])?.put(&datagram.tag.to_be_bytes())?;
    Some(())
}

/// Writes the header of a first fragment.
pub(crate) fn write_first(datagram: Datagram, writer: &mut Writer<'_>) -> Option<()> {
    write(FIRST, datagram, writer)
}

/// Writes the header of a later fragment; `offset` is in bytes.
pub(crate) fn write_next(datagram: Datagram, offset: usize, writer: &mut Writer<'_>) -> Option<()> {
    write(NEXT, datagram, writer)?;
    writer.put(&[u8::try_from(offset / UNIT_BYTES).ok()?]).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn headers_are_laid_out_as_drawn() {
        let datagram = Datagram { size: 0x0423, tag: 0xabcd };
        let mut out = [0; 9];
        let mut writer = Writer::new(&mut out);
        write_first(datagram, &mut writer).unwrap();
        write_next(datagram, 64, &mut writer).unwrap();
        assert_eq!(out, [0xc4, 0x23, 0xab, 0xcd, 0xe4, 0x23, 0xab, 0xcd, 8]);
        assert_eq!(Piece::parse(&out[..4]), Some(Piece::First(datagram, &[])));
        assert_eq!(Piece::parse(&out[4..]), Some(Piece::Next(datagram, 64, &[])));
    }

    #[test]
    fn payloads_that_end_within_a_fragment_header_are_no_pieces() {
        for short in [&[][..], &[0xc0], &[0xc0, 0x50, 0], &[0xe0, 0x50, 0, 1]] {
            assert_eq!(Piece::parse(short), None, "{short:02x?}");
        }
    }

    proptest! {
        #[test]
        fn any_payload_is_a_piece_or_none(payload in prop::collection::vec(any::<u8>(), 0..20)) {
            let whole = payload.first().is_some_and(|first| !matches!(first >> 3, 0b11000 | 0b11100));
            prop_assert_eq!(matches!(Piece::parse(&payload), Some(Piece::Whole(_))), whole);
        }
    }
}
