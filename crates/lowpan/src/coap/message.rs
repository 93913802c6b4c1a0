//! A message as it lies in a datagram (RFC 7252 section 3), checked once.
//!
//! ```text
//! byte 0   version (2 bits, 1) | type (2 bits) | token length (4 bits, 0 to 8)
//! byte 1   code
//! byte 2   message id, u16 BE
//! byte 4   token | { option } | [ FF payload ]
//! option   delta nibble, length nibble | delta 0 to 2 bytes | length 0 to 2 bytes | value
//!          nibble 13: one byte more, plus 13; 14: two bytes BE more, plus 269; 15: only in the payload marker
//! ```
//! Invariant: a [`Message`] exists only if its whole datagram is in this form, so its accessors can't fail.

use super::code::{Code, Kind, option};

/// Longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8;

/// The byte between options and payload.
pub const PAYLOAD_MARKER: u8 = 0xff;

pub(super) const VERSION: u8 = 1;

/// Why a datagram is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// No header of version 1. It must be ignored in silence (section 3).
    #[error("not a CoAP message of version 1")]
    NotCoap,
    /// Bad behind a good header. A confirmable one is to be rejected with a reset of this id (section 4.2), any other
    /// kind ignored in silence.
    #[error("bad CoAP message {id}: {reason}")]
    Format {
        /// Type from the header.
        kind: Kind,
        /// Message id from the header.
        id: u16,
        /// What is bad.
        reason: FormatError,
    },
}

/// What is bad in a message with a good header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// A code of a class that isn't in use (1, 3, 6, 7).
    #[error("reserved code class")]
    Code,
    /// Something behind the four bytes of an empty message.
    #[error("bytes behind an empty message")]
    NotEmpty,
    /// A token length of 9 to 15, or more than there is.
    #[error("bad token length")]
    Token,
    /// An option cut short, with a reserved nibble, or with a number past 65535.
    #[error("bad option")]
    Option,
    /// A payload marker with nothing behind it.
    #[error("payload marker without payload")]
    Payload,
}

/// One message: a view into its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    kind: Kind,
    code: Code,
    id: u16,
    token: &'a [u8],
    options: &'a [u8],
    payload: &'a [u8],
}

/// One option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionView<'a> {
    /// Its number, see [`option`].
    pub number: u16,
    /// Its value.
    pub value: &'a [u8],
}

impl<'a> Message<'a> {
    /// The one door: checks everything.
    ///
    /// # Errors
    /// [`ParseError`] says whether a reset is due.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, ParseError> {
        let (&[first, code, id_high, id_low], rest) =
            datagram.split_first_chunk::<4>().ok_or(ParseError::NotCoap)?;
        if first >> 6 != VERSION {
            return Err(ParseError::NotCoap);
        }
        let (kind, id) = (Kind::of_bits(first >> 4), u16::from_be_bytes([id_high, id_low]));
        let bad = |reason| ParseError::Format { kind, id, reason };
        let code = Code(code);
        if code == Code::EMPTY {
            if first & 0x0f != 0 || !rest.is_empty() {
                return Err(bad(FormatError::NotEmpty));
            }
        } else if !code.is_request() && !code.is_response() {
            return Err(bad(FormatError::Code));
        }
        let token_length = usize::from(first & 0x0f);
        if token_length > TOKEN_BYTES_MAX {
            return Err(bad(FormatError::Token));
        }
        let (token, rest) = rest.split_at_checked(token_length).ok_or(bad(FormatError::Token))?;
        let mut behind = Options { bytes: rest, number: 0 };
        while behind.take_one().map_err(bad)?.is_some() {}
        let options = rest.get(..rest.len() - behind.bytes.len()).unwrap_or_default();
        let payload = match behind.bytes.split_first() {
            None => &[],
            Some((_, [])) => return Err(bad(FormatError::Payload)),
            Some((_, payload)) => payload,
        };
        Ok(Self { kind, code, id, token, options, payload })
    }

    /// Its type.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Its code.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// Its message id.
    #[must_use]
    pub const fn id(&self) -> u16 {
        self.id
    }

    /// Its token, at most [`TOKEN_BYTES_MAX`].
    #[must_use]
    pub const fn token(&self) -> &'a [u8] {
        self.token
    }

    /// Its options in ascending order of number.
    #[must_use]
    pub const fn options(&self) -> Options<'a> {
        Options { bytes: self.options, number: 0 }
    }

    /// Its payload; empty when there is none.
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Whether its path has exactly these segments.
    #[must_use]
    pub fn path_is(&self, segments: &[&str]) -> bool {
        self.values(option::URI_PATH).eq(segments.iter().map(|segment| segment.as_bytes()))
    }

    /// The values of every option with this number.
    pub fn values(&self, number: u16) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.options().filter(move |option| option.number == number).map(|option| option.value)
    }

    /// The first option with this number, read as an unsigned integer; `None` if it is absent or longer than four
    /// bytes.
    #[must_use]
    pub fn uint(&self, number: u16) -> Option<u32> {
        let value = self.values(number).next()?;
        if value.len() > 4 {
            return None;
        }
        Some(value.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
    }

    /// The first critical option that is not among `understood`.
    #[must_use]
    pub fn critical_beside(&self, understood: &[u16]) -> Option<u16> {
        self.options()
            .map(|view| view.number)
            .find(|number| option::is_critical(*number) && !understood.contains(number))
    }
}

/// The options of a message, in order.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    bytes: &'a [u8],
    number: u16,
}

impl<'a> Options<'a> {
    /// The next option; `None` at the end or at the payload marker, with `bytes` standing there.
    fn take_one(&mut self) -> Result<Option<OptionView<'a>>, FormatError> {
        let Some((&head, rest)) = self.bytes.split_first() else { return Ok(None) };
        if head == PAYLOAD_MARKER {
            return Ok(None);
        }
        let (delta, rest) = extended(head >> 4, rest)?;
        let (length, rest) = extended(head & 0x0f, rest)?;
        let (value, rest) = rest.split_at_checked(length).ok_or(FormatError::Option)?;
        let number = u16::try_from(usize::from(self.number) + delta).map_err(|_| FormatError::Option)?;
        (self.bytes, self.number) = (rest, number);
        Ok(Some(OptionView { number, value }))
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = OptionView<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.take_one().ok().flatten()
    }
}

fn extended(nibble: u8, bytes: &[u8]) -> Result<(usize, &[u8]), FormatError> {
    match (nibble, bytes) {
        (0..=12, rest) => Ok((usize::from(nibble), rest)),
        (13, [more, rest @ ..]) => Ok((usize::from(*more) + 13, rest)),
        (14, [high, low, rest @ ..]) => Ok((usize::from(u16::from_be_bytes([*high, *low])) + 269, rest)),
        _ => Err(FormatError::Option),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(datagram: &[u8]) -> FormatError {
        match Message::parse(datagram) {
            Err(ParseError::Format { reason, .. }) => reason,
            other => panic!("{datagram:02x?} gave {other:?}"),
        }
    }

    #[test]
    fn a_get_of_the_specification_is_read() {
        // RFC 7252 appendix A, figure 16: GET /temperature, id 0x7d34.
        let datagram = b"\x40\x01\x7d\x34\xbbtemperature";
        let message = Message::parse(datagram).unwrap();
        assert_eq!((message.kind(), message.code(), message.id()), (Kind::Confirmable, Code::GET, 0x7d34));
        assert!(message.path_is(&["temperature"]));
        assert!(!message.path_is(&["temperature", ""]));
        assert_eq!(message.payload(), b"");
    }

    #[test]
    fn a_piggybacked_response_of_the_specification_is_read() {
        let datagram = b"\x61\x45\x7d\x35\x20\xff22.3 C";
        let message = Message::parse(datagram).unwrap();
        assert_eq!((message.kind(), message.code()), (Kind::Acknowledgement, Code::CONTENT));
        assert_eq!((message.token(), message.payload()), (&b"\x20"[..], &b"22.3 C"[..]));
    }

    #[test]
    fn each_format_error_is_told_apart() {
        assert_eq!(reason(&[0x40, 0x20, 0, 1]), FormatError::Code);
        assert_eq!(reason(&[0x40, 0, 0, 1, 0]), FormatError::NotEmpty);
        assert_eq!(reason(&[0x41, 0, 0, 1]), FormatError::NotEmpty);
        assert_eq!(reason(&[0x49, 1, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9]), FormatError::Token);
        assert_eq!(reason(&[0x42, 1, 0, 1, 1]), FormatError::Token);
        assert_eq!(reason(&[0x40, 1, 0, 1, 0xb2, b'a']), FormatError::Option);
        assert_eq!(reason(&[0x40, 1, 0, 1, 0xf0]), FormatError::Option);
        assert_eq!(reason(&[0x40, 1, 0, 1, 0xe0, 0xff]), FormatError::Option);
        assert_eq!(reason(&[0x40, 1, 0, 1, 0xff]), FormatError::Payload);
        // Number 65535 (delta 65266 + 269), then one more.
        assert_eq!(reason(&[0x40, 1, 0, 1, 0xe0, 0xfe, 0xf2, 0x10]), FormatError::Option);
    }

    #[test]
    fn what_is_not_this_protocol_is_told_from_what_is_broken() {
        for datagram in [&b""[..], b"\x40\x01\x00", b"\x80\x01\x00\x01", b"\x00\x01\x00\x01"] {
            assert_eq!(Message::parse(datagram), Err(ParseError::NotCoap));
        }
    }

    #[test]
    fn critical_options_that_nobody_understands_are_found() {
        // If-Match (1, critical), Uri-Path (11), Size1 (60, elective).
        let datagram = [0x40, 2, 0, 1, 0x10, 0xa1, b'b', 0xd0, 36];
        let message = Message::parse(&datagram).unwrap();
        assert_eq!(message.critical_beside(&[option::URI_PATH]), Some(1));
        assert_eq!(message.critical_beside(&[option::URI_PATH, 1]), None);
    }
}
