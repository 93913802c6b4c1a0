//! IEEE 802.15.4 MAC frames (802.15.4-2020 section 7; the 2003, 2006 and 2015 header versions): the bytes of one frame
//! turned into a checked header and payload, and the two frames that this station writes. It knows no state: whether
//! a frame is new, or one that can be taken, is decided elsewhere.
//!
//! ```text
//! data frame as written (21 bytes of header; integers little-endian, EUI-64 least significant byte first)
//! offset 0   61 DC  frame control: data, acknowledgement requested, one PAN field, version 2006, EUI-64 both ends
//!            69 DC  the same, secured: the payload starts with an auxiliary security header
//! offset 2   sequence u8 | 3 PAN u16 | 5 destination [8] | 13 source [8] | 21 payload
//!
//! frame control, 16 bits, as read (bit 0 first)
//! 0-2 type | 3 secured | 4 pending | 5 acknowledgement requested | 6 PAN compressed | 7 reserved
//! 8 no sequence number (2015) | 9 information elements (2015) | 10-11 destination mode | 12-13 version | 14-15 source mode
//!
//! acknowledgement: 02 00 | 2 sequence u8
//! ```

use tidelog_record::DeviceId;

/// Header bytes of the data frames written here.
pub(crate) const DATA_HEADER_BYTES: usize = 21;
/// Length of an acknowledgement, in bytes.
pub const ACK_BYTES: usize = 3;
/// The short address, and the PAN, of everyone.
pub(crate) const BROADCAST: u16 = 0xffff;

const DATA_CONTROL: [u8; 2] = [0x61, 0xdc];
const SECURED_BIT: u8 = 1 << 3;
const ACK_CONTROL: [u8; 2] = [0x02, 0x00];

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Carries a payload.
    Data,
    /// Answers a frame by its sequence number.
    Ack,
    /// A beacon, a MAC command or a type of later versions.
    Other,
}

/// A link address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// The field is not there.
    Absent,
    /// 16 bits, given by a coordinator; `0xffff` means everyone.
    Short(u16),
    /// An EUI-64.
    Extended(DeviceId),
}

/// One frame, read. The payload is what follows the MAC header; with `secured` it starts with the auxiliary security
/// header and is ciphertext.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it is.
    pub kind: Kind,
    /// Whether link security is applied.
    pub secured: bool,
    /// Whether the sender wants an acknowledgement.
    pub ack_requested: bool,
    /// The sequence number; absent only in frames of the 2015 version.
    pub sequence: Option<u8>,
    /// The PAN it is for, where it is given.
    pub pan: Option<u16>,
    /// Who it is for.
    pub destination: Address,
    /// Who sent it.
    pub source: Address,
    /// What it carries.
    pub payload: &'a [u8],
}

/// Why bytes are no frame that is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Ends before its header does.
    #[error("the frame ends within its header")]
    Truncated,
    /// Longer than a PHY frame.
    #[error("the frame is longer than a PHY frame")]
    TooLong,
    /// The reserved frame version or addressing mode.
    #[error("a reserved version or addressing mode")]
    Reserved,
    /// Header information elements, which are not read.
    #[error("information elements are not supported")]
    InformationElements,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Absent,
    Short,
    Extended,
}

impl Mode {
    fn of(bits: u16) -> Result<Self, Error> {
        match bits & 3 {
            0 => Ok(Self::Absent),
            2 => Ok(Self::Short),
            3 => Ok(Self::Extended),
            _ => Err(Error::Reserved),
        }
    }

    fn read(self, bytes: &mut &[u8]) -> Result<Address, Error> {
        match self {
            Self::Absent => Ok(Address::Absent),
            Self::Short => read_u16(bytes).map(Address::Short),
            Self::Extended => {
                let mut eui: [u8; 8] = take(bytes)?;
                eui.reverse();
                Ok(Address::Extended(DeviceId(eui)))
            }
        }
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Error> {
    let (head, rest) = bytes.split_first_chunk().ok_or(Error::Truncated)?;
    *bytes = rest;
    Ok(*head)
}

fn read_u16(bytes: &mut &[u8]) -> Result<u16, Error> {
    take(bytes).map(u16::from_le_bytes)
}

/// Which of the two PAN fields a header has: (destination, source). Table 7-2 of 802.15.4-2020 for the 2015 version,
/// section 7.2.1.5 of 802.15.4-2006 before.
fn pan_fields(
    version: u16,
    compressed: bool,
    destination: Mode,
    source: Mode,
) -> Result<(bool, bool), Error> {
    let (to, from) = (destination != Mode::Absent, source != Mode::Absent);
    if version < 2 {
        return if compressed && !(to && from) {
            Err(Error::Reserved)
        } else {
            Ok((to, from && !compressed))
        };
    }
    Ok(match (to, from) {
        (false, false) => (compressed, false),
        (true, false) => (!compressed, false),
        (false, true) => (false, !compressed),
        (true, true) if destination == Mode::Extended && source == Mode::Extended => (!compressed, false),
        (true, true) => (true, !compressed),
    })
}

impl<'a> Frame<'a> {
    /// Reads a frame without check sequence.
    ///
    /// # Errors
    /// What is wrong with it, or not understood, as an [`Error`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        if bytes.len() > crate::FRAME_BYTES_MAX {
            return Err(Error::TooLong);
        }
        let mut rest = bytes;
        let control = read_u16(&mut rest)?;
        let bit = |n: u16| control >> n & 1 == 1;
        let kind = match control & 7 {
            1 => Kind::Data,
            2 => Kind::Ack,
            _ => Kind::Other,
        };
        let version = control >> 12 & 3;
        if version == 3 {
            return Err(Error::Reserved);
        }
        let (destination_mode, source_mode) = (Mode::of(control >> 10)?, Mode::of(control >> 14)?);
        let (has_pan, has_source_pan) = pan_fields(version, bit(6), destination_mode, source_mode)?;
        let sequence = if version == 2 && bit(8) { None } else { Some(take::<1>(&mut rest)?[0]) };
        let pan = if has_pan { Some(read_u16(&mut rest)?) } else { None };
        let destination = destination_mode.read(&mut rest)?;
        let source_pan = if has_source_pan { Some(read_u16(&mut rest)?) } else { None };
        let source = source_mode.read(&mut rest)?;
        if version == 2 && bit(9) {
            return Err(Error::InformationElements);
        }
        let pan = if destination_mode == Mode::Absent { pan.or(source_pan) } else { pan };
        Ok(Self {
            kind,
            secured: bit(3),
            ack_requested: bit(5),
            sequence,
            pan,
            destination,
            source,
            payload: rest,
        })
    }
}

impl Frame<'_> {
    /// Whether it is for this PAN, or for all.
    pub(crate) fn is_in(&self, pan: u16) -> bool {
        self.pan.is_none_or(|to| to == pan || to == BROADCAST)
    }
}

/// The acknowledgement that the sender of a frame waits for, if it asks this station for one. For a radio that has to answer before
/// there is time to look into the frame: addresses alone decide, so a frame is acknowledged that is then found to be forged.
#[must_use]
pub fn acknowledgement(frame: &[u8], eui: DeviceId, pan: u16) -> Option<[u8; ACK_BYTES]> {
    let frame = Frame::parse(frame).ok()?;
    let asked = frame.kind == Kind::Data && frame.ack_requested;
    let here = frame.destination == Address::Extended(eui) && frame.is_in(pan);
    frame.sequence.filter(|_| asked && here).map(ack)
}

/// The header of a data frame from one EUI-64 to another, with acknowledgement requested.
pub(crate) fn data_header(
    sequence: u8,
    pan: u16,
    to: DeviceId,
    from: DeviceId,
    secured: bool,
) -> [u8; DATA_HEADER_BYTES] {
    let [p0, p1] = pan.to_le_bytes();
    let [t7, t6, t5, t4, t3, t2, t1, t0] = to.0;
    let [f7, f6, f5, f4, f3, f2, f1, f0] = from.0;
    let [c0, c1] = DATA_CONTROL;
    let c0 = if secured { c0 | SECURED_BIT } else { c0 };
    [c0, c1, sequence, p0, p1, t0, t1, t2, t3, t4, t5, t6, t7, f0, f1, f2, f3, f4, f5, f6, f7]
}

/// The acknowledgement of the frame with this sequence number.
pub(crate) fn ack(sequence: u8) -> [u8; ACK_BYTES] {
    let [c0, c1] = ACK_CONTROL;
    [c0, c1, sequence]
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    const TO: DeviceId = DeviceId([0x02, 0x12, 0x4b, 0, 0, 0, 0, 1]);
    const FROM: DeviceId = DeviceId([0x02, 0x12, 0x4b, 0, 0, 0, 0, 2]);

    #[test]
    fn a_data_frame_is_laid_out_as_drawn_and_read_as_written() {
        let bytes = data_header(7, 0x0023, TO, FROM, false);
        let drawn = [0x61, 0xdc, 7, 0x23, 0, 1, 0, 0, 0, 0, 0x4b, 0x12, 2, 2, 0, 0, 0, 0, 0x4b, 0x12, 2];
        assert_eq!(bytes, drawn);
        let frame = Frame::parse(&bytes).unwrap();
        let expected = Frame {
            kind: Kind::Data,
            secured: false,
            ack_requested: true,
            sequence: Some(7),
            pan: Some(0x0023),
            destination: Address::Extended(TO),
            source: Address::Extended(FROM),
            payload: &[],
        };
        assert_eq!(frame, expected);
    }

    #[test]
    fn an_acknowledgement_is_a_number_and_nothing_else() {
        let bytes = ack(9);
        let frame = Frame::parse(&bytes).unwrap();
        assert_eq!((frame.kind, frame.sequence), (Kind::Ack, Some(9)));
        assert_eq!((frame.destination, frame.source), (Address::Absent, Address::Absent));
    }

    #[test]
    fn only_data_for_this_station_that_asks_for_it_is_acknowledged() {
        let asked = data_header(9, 0x0023, TO, FROM, true);
        assert_eq!(acknowledgement(&asked, TO, 0x0023), Some([0x02, 0x00, 9]));
        assert_eq!(acknowledgement(&asked, FROM, 0x0023), None, "for another");
        assert_eq!(acknowledgement(&asked, TO, 0x0024), None, "in another PAN");
        assert_eq!(acknowledgement(&data_header(9, BROADCAST, TO, FROM, false), TO, 0x0024), Some(ack(9)));
        let mut not_asked = asked;
        not_asked[0] &= !(1 << 5);
        assert_eq!(acknowledgement(&not_asked, TO, 0x0023), None);
        let to_everyone = [0x61, 0xd8, 9, 0x23, 0, 0xff, 0xff, 2, 0, 0, 0, 0, 0x4b, 0x12, 2];
        assert_eq!(Frame::parse(&to_everyone).map(|frame| frame.destination), Ok(Address::Short(BROADCAST)));
        assert_eq!(acknowledgement(&to_everyone, TO, 0x0023), None);
        assert_eq!(acknowledgement(&ack(9), TO, 0x0023), None);
        let mut command = asked;
        command[0] |= 2;
        assert_eq!(acknowledgement(&command, TO, 0x0023), None, "a MAC command");
        assert_eq!(acknowledgement(&asked[..20], TO, 0x0023), None, "cut short");
    }

    /// Sequence number, PAN, destination, source, bytes of payload.
    type Fields = (Option<u8>, Option<u16>, Address, Address, usize);

    #[test]
    fn frames_of_every_version_give_their_addresses() {
        let short = |at| Address::Short(at);
        #[rustfmt::skip]
        let cases: &[(&[u8], Fields)] = &[
            // 2003, short addresses, one PAN field; then with both PAN fields.
            (&[0x41, 0x88, 5, 0xcd, 0xab, 2, 0, 1, 0, 0xaa], (Some(5), Some(0xabcd), short(2), short(1), 1)),
            (&[0x01, 0x88, 5, 0xcd, 0xab, 2, 0, 0x11, 0x22, 1, 0], (Some(5), Some(0xabcd), short(2), short(1), 0)),
            // A beacon: only a source, whose PAN is the frame's.
            (&[0x00, 0x80, 5, 0xcd, 0xab, 1, 0], (Some(5), Some(0xabcd), Address::Absent, short(1), 0)),
            // 2015 without sequence number, both long: PAN given, then compressed away.
            (&[0x01, 0xed, 0xcd, 0xab, 1, 0, 0, 0, 0, 0x4b, 0x12, 2, 2, 0, 0, 0, 0, 0x4b, 0x12, 2, 0xaa],
             (None, Some(0xabcd), Address::Extended(TO), Address::Extended(FROM), 1)),
            (&[0x41, 0xec, 5, 1, 0, 0, 0, 0, 0x4b, 0x12, 2, 2, 0, 0, 0, 0, 0x4b, 0x12, 2],
             (Some(5), None, Address::Extended(TO), Address::Extended(FROM), 0)),
            // 2015, short both ends, compressed: one PAN field. Only a destination, compressed: none.
            (&[0x41, 0xa8, 5, 0xcd, 0xab, 2, 0, 1, 0], (Some(5), Some(0xabcd), short(2), short(1), 0)),
            (&[0x41, 0x28, 5, 2, 0], (Some(5), None, short(2), Address::Absent, 0)),
        ];
        for (bytes, fields) in cases {
            let frame = Frame::parse(bytes).unwrap();
            let got = (frame.sequence, frame.pan, frame.destination, frame.source, frame.payload.len());
            assert_eq!(got, *fields, "{bytes:02x?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_by_its_reason() {
        let long = [0u8; crate::FRAME_BYTES_MAX + 1];
        #[rustfmt::skip]
        let cases: &[(&[u8], Error)] = &[
            (&[], Error::Truncated),
            (&[0x61, 0xdc, 7, 0x23], Error::Truncated),
            (&long, Error::TooLong),
            (&[0x01, 0xb8, 5], Error::Reserved),
            (&[0x01, 0x84, 5], Error::Reserved),
            (&[0x41, 0x80, 5, 1, 0], Error::Reserved),
            (&[0x01, 0x2a, 5, 0xcd, 0xab, 2, 0], Error::InformationElements),
        ];
        for (bytes, error) in cases {
            assert_eq!(Frame::parse(bytes), Err(*error), "{bytes:02x?}");
        }
    }

    proptest! {
        #[test]
        fn every_prefix_of_a_frame_is_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..130)) {
            let whole = Frame::parse(&bytes).map(|frame| bytes.len() - frame.payload.len());
            for end in 0..bytes.len() {
                let read = Frame::parse(&bytes[..end]);
                prop_assert!(read.is_ok() || acknowledgement(&bytes[..end], TO, 0x0023).is_none());
                if let (Ok(header_bytes), Err(Error::Truncated)) = (whole, read) {
                    prop_assert!(end < header_bytes);
                }
            }
        }

        #[test]
        fn a_written_header_gives_back_what_it_was_made_of(
            sequence: u8, pan in 0u16..0xffff, to: [u8; 8], from: [u8; 8], payload in prop::collection::vec(any::<u8>(), 0..104)
        ) {
            let bytes: Vec<u8> =
                data_header(sequence, pan, DeviceId(to), DeviceId(from), false).into_iter().chain(payload.clone()).collect();
            let frame = Frame::parse(&bytes).unwrap();
            prop_assert_eq!((frame.sequence, frame.pan), (Some(sequence), Some(pan)));
            prop_assert_eq!(frame.destination, Address::Extended(DeviceId(to)));
            prop_assert_eq!(frame.source, Address::Extended(DeviceId(from)));
            prop_assert_eq!(frame.payload, &payload[..]);
        }
    }
}
