//! One Spinel frame: header, command, property and value (Spinel sections 3.3 and 4). What a value means is its property's business.
//!
//! ```text
//! header 10iitttt | command, packed | property, packed | value          ii interface = 0, tttt transaction, 0 for none
//! commands   1 reset (its value, one byte: 2 = the stack)   2 get   3 set   4 insert   5 remove   6 is
//! ```
//! Integers are little-endian, an EUI-64 goes most significant byte first. A command that fails is answered by `is` with property 0,
//! the last status.

use core::fmt;
use core::ops::RangeInclusive;

use tidelog_record::bytes::{Reader, Writer};

use crate::bytes::{ReadFields as _, WriteFields as _};

const HEADER: u8 = 0x80;
const HEADER_MASK: u8 = 0xf0;
const TID_MASK: u8 = 0x0f;

/// Properties that a radio co-processor has, by number.
pub mod property {
    /// Status of the last command, or why the co-processor was reset. Packed.
    pub const LAST_STATUS: u32 = 0;
    /// Major and minor version of Spinel, packed.
    pub const PROTOCOL_VERSION: u32 = 1;
    /// What it can, each capability packed.
    pub const CAPS: u32 = 5;
    /// Its own EUI-64.
    pub const HWADDR: u32 = 8;
    /// Whether the radio is on.
    pub const PHY_ENABLED: u32 = 0x20;
    /// Channel, one byte.
    pub const PHY_CHAN: u32 = 0x21;
    /// EUI-64 that it answers to.
    pub const MAC_LADDR: u32 = 0x34;
    /// Short address that it answers to.
    pub const MAC_SADDR: u32 = 0x35;
    /// PAN that it answers in.
    pub const MAC_PANID: u32 = 0x36;
    /// Whether frames go to the host and back as they are.
    pub const MAC_RAW_STREAM_ENABLED: u32 = 0x37;
    /// Whether frames for others are heard too, one byte.
    pub const MAC_PROMISCUOUS: u32 = 0x38;
    /// Frames as they are: set to send, received by `is`.
    pub const STREAM_RAW: u32 = 0x71;
    /// Whether its table says for whom frames wait; without it every acknowledgement says that one does.
    pub const MAC_SRC_MATCH_ENABLED: u32 = 0x1303;
}

/// A status, as [`property::LAST_STATUS`] tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u32);

/// The statuses that say that the co-processor was reset, and why.
pub const STATUS_RESETS: RangeInclusive<u32> = 0x70..=0x7f;

impl Status {
    /// Done.
    pub const OK: Self = Self(0);
    /// An argument is out of range.
    pub const INVALID_ARGUMENT: Self = Self(3);
    /// Not in this state.
    pub const INVALID_STATE: Self = Self(4);
    /// The command is not known.
    pub const INVALID_COMMAND: Self = Self(5);
    /// The value is no value of this property.
    pub const PARSE_ERROR: Self = Self(9);
    /// It has enough to do.
    pub const BUSY: Self = Self(12);
    /// The property is not known.
    pub const PROPERTY_NOT_FOUND: Self = Self(13);
    /// Nobody acknowledged the frame.
    pub const NO_ACK: Self = Self(17);
    /// The channel was busy each time.
    pub const CCA_FAILURE: Self = Self(18);
    /// It was switched on.
    pub const RESET_POWER_ON: Self = Self(0x70);
    /// It was reset because its host asked for it.
    pub const RESET_SOFTWARE: Self = Self(0x72);

    /// Whether this says that the co-processor was reset.
    #[must_use]
    pub fn is_reset(self) -> bool {
        STATUS_RESETS.contains(&self.0)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Self::OK => "ok",
            Self::INVALID_ARGUMENT => "invalid argument",
            Self::INVALID_STATE => "invalid state",
            Self::INVALID_COMMAND => "invalid command",
            Self::PARSE_ERROR => "parse error",
            Self::BUSY => "busy",
            Self::PROPERTY_NOT_FOUND => "no such property",
            Self::NO_ACK => "no acknowledgement",
            Self::CCA_FAILURE => "channel busy",
            Self(0x70) => "reset: power on",
            Self(0x71) => "reset: external",
            Self(0x72) => "reset: software",
            Self(0x73) => "reset: fault",
            Self(0x74) => "reset: crash",
            Self(0x75) => "reset: assertion",
            Self(0x77) => "reset: watchdog",
            Self(number) => return write!(f, "status {number}"),
        };
        f.write_str(name)
    }
}

/// What a frame asks or says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body<'a> {
    /// Start again; of what, where it is said.
    Reset(Option<u8>),
    /// Tell a property.
    Get(u32),
    /// Set a property.
    Set(u32, &'a [u8]),
    /// Put an item into a property that is a list.
    Insert(u32, &'a [u8]),
    /// Take an item out of a property that is a list.
    Remove(u32, &'a [u8]),
    /// A property, asked for or not.
    Is(u32, &'a [u8]),
}

/// One frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Transaction, 1 to 15, that an answer repeats; 0: no answer is asked, or this is none.
    pub tid: u8,
    /// What it asks or says.
    pub body: Body<'a>,
}

impl<'a> Frame<'a> {
    /// Reads a frame. `None`: it is no Spinel, for another interface, or a command that is not known.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let header = reader.u8().filter(|header| header & HEADER_MASK == HEADER)?;
        let command = reader.packed()?;
        if command == 1 {
            return Some(Self { tid: header & TID_MASK, body: Body::Reset(reader.u8()) });
        }
        let property = reader.packed()?;
        let value = reader.rest();
        let body = match command {
            2 => Body::Get(property),
            3 => Body::Set(property, value),
            4 => Body::Insert(property, value),
            5 => Body::Remove(property, value),
            6 => Body::Is(property, value),
            _ => return None,
        };
        Some(Self { tid: header & TID_MASK, body })
    }

    /// Writes the frame; its length, or `None` when `out` is too small.
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        let mut writer = Writer::new(out);
        writer.put(&[HEADER | self.tid & TID_MASK])?;
        let (command, property, value): (u32, u32, &[u8]) = match self.body {
            Body::Reset(what) => {
                writer.packed(1)?;
                if let Some(what) = what {
                    writer.put(&[what])?;
                }
                return Some(writer.written());
            }
            Body::Get(property) => (2, property, &[]),
            Body::Set(property, value) => (3, property, value),
            Body::Insert(property, value) => (4, property, value),
            Body::Remove(property, value) => (5, property, value),
            Body::Is(property, value) => (6, property, value),
        };
        writer.packed(command)?.packed(property)?.put(value)?;
        Some(writer.written())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn written(tid: u8, body: Body<'_>) -> Vec<u8> {
        let mut out = [0; 64];
        let length = Frame { tid, body }.write(&mut out).unwrap();
        out[..length].to_vec()
    }

    #[test]
    fn commands_are_written_as_others_send_them() {
        assert_eq!(written(0, Body::Reset(Some(2))), [0x80, 0x01, 0x02]);
        assert_eq!(written(0, Body::Is(property::LAST_STATUS, &[0x70])), [0x80, 0x06, 0x00, 0x70]);
        assert_eq!(written(1, Body::Set(property::PHY_CHAN, &[11])), [0x81, 0x03, 0x21, 0x0b]);
        assert_eq!(
            written(2, Body::Set(property::MAC_SRC_MATCH_ENABLED, &[1])),
            [0x82, 0x03, 0x83, 0x26, 0x01]
        );
    }

    #[test]
    fn what_is_no_spinel_or_for_another_interface_is_none() {
        for bytes in
            [&[][..], &[0x80], &[0x00, 0x06, 0x00], &[0x90, 0x06, 0x00], &[0x80, 0x06], &[0x80, 0x63, 0x01]]
        {
            assert_eq!(Frame::parse(bytes), None, "{bytes:02x?}");
        }
    }

    proptest! {
        #[test]
        fn a_frame_is_read_as_written(
            tid in 0u8..16, command in 0usize..6, number: u32, value in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let body = match command {
                0 => Body::Reset(value.first().copied()),
                1 => Body::Get(number),
                2 => Body::Set(number, &value),
                3 => Body::Insert(number, &value),
                4 => Body::Remove(number, &value),
                _ => Body::Is(number, &value),
            };
            let bytes = written(tid, body);
            prop_assert_eq!(Frame::parse(&bytes), Some(Frame { tid, body }));
        }

        #[test]
        fn any_bytes_are_a_frame_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(frame) = Frame::parse(&bytes) {
                let again = written(frame.tid, frame.body);
                prop_assert_eq!(Frame::parse(&again), Some(frame));
            }
        }
    }
}
