//! Fills a caller's buffer with a message, front to back: header, options in ascending order, payload. The byte
//! format is drawn in [`super::Message`]'s module.

use super::code::{Code, Kind, option};
use super::message::{Message, PAYLOAD_MARKER, TOKEN_BYTES_MAX, VERSION};

/// Why a message could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The buffer is too short, or a part longer than the format can say.
    #[error("the message doesn't fit")]
    TooLong,
    /// Options must be given in ascending order of number.
    #[error("options out of order")]
    OutOfOrder,
}

/// An empty message: an acknowledgement alone, or a reset.
#[must_use]
pub const fn empty(kind: Kind, id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [VERSION << 6 | kind.bits() << 4, Code::EMPTY.0, high, low]
}

/// A message being written.
#[derive(Debug)]
pub struct Writer<'b> {
    buffer: &'b mut [u8],
    length: usize,
    number: u16,
}

impl<'b> Writer<'b> {
    /// Begins a message.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] if the buffer can't hold the header, or the token is longer than
    /// [`TOKEN_BYTES_MAX`].
    pub fn new(
        buffer: &'b mut [u8],
        kind: Kind,
        code: Code,
        id: u16,
        token: &[u8],
    ) -> Result<Self, EncodeError> {
        let token_length = u8::try_from(token.len()).map_err(|_| EncodeError::TooLong)?;
        if token.len() > TOKEN_BYTES_MAX {
            return Err(EncodeError::TooLong);
        }
        let [high, low] = id.to_be_bytes();
        let mut writer = Self { buffer, length: 0, number: 0 };
        writer.put(&[VERSION << 6 | kind.bits() << 4 | token_length, code.0, high, low])?;
        writer.put(token)?;
        Ok(writer)
    }

    /// Begins the response to `request`: piggybacked on the acknowledgement if the request is confirmable, else a
    /// non-confirmable message of its own with `fresh_id`.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] if the buffer can't hold the header.
    pub fn answering(
        buffer: &'b mut [u8],
        request: &Message<'_>,
        code: Code,
        fresh_id: u16,
    ) -> Result<Self, EncodeError> {
        let (kind, id) = match request.kind() {
            Kind::Confirmable => (Kind::Acknowledgement, request.id()),
            _ => (Kind::NonConfirmable, fresh_id),
        };
        Self::new(buffer, kind, code, id, request.token())
    }

    /// Adds an option.
    ///
    /// # Errors
    /// [`EncodeError::OutOfOrder`] if its number is below the one before; [`EncodeError::TooLong`].
    pub fn option(mut self, number: u16, value: &[u8]) -> Result<Self, EncodeError> {
        let delta = number.checked_sub(self.number).ok_or(EncodeError::OutOfOrder)?;
        let delta = Extended::of(usize::from(delta))?;
        let length = Extended::of(value.len())?;
        self.put(&[delta.nibble << 4 | length.nibble])?;
        self.put(delta.more())?;
        self.put(length.more())?;
        self.put(value)?;
        self.number = number;
        Ok(self)
    }

    /// Adds an option whose value is an unsigned integer, in as few bytes as it takes (section 3.2).
    ///
    /// # Errors
    /// As [`Self::option`].
    pub fn uint(self, number: u16, value: u32) -> Result<Self, EncodeError> {
        let bytes = value.to_be_bytes();
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        self.option(number, bytes.get(zeros..).unwrap_or_default())
    }

    /// Adds one Uri-Path option for each segment.
    ///
    /// # Errors
    /// As [`Self::option`].
    pub fn path(self, segments: &[&str]) -> Result<Self, EncodeError> {
        segments.iter().try_fold(self, |writer, segment| writer.option(option::URI_PATH, segment.as_bytes()))
    }

    /// Ends the message with a payload (none if it is empty) and gives its length in bytes.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`].
    pub fn payload(mut self, payload: &[u8]) -> Result<usize, EncodeError> {
        if !payload.is_empty() {
            self.put(&[PAYLOAD_MARKER])?;
            self.put(payload)?;
        }
        Ok(self.length)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        let end = self.length.checked_add(bytes.len()).ok_or(EncodeError::TooLong)?;
        self.buffer.get_mut(self.length..end).ok_or(EncodeError::TooLong)?.copy_from_slice(bytes);
        self.length = end;
        Ok(())
    }
}

/// A delta or a length: its nibble, and the bytes that stand behind it.
struct Extended {
    nibble: u8,
    bytes: [u8; 2],
    count: usize,
}

impl Extended {
    fn of(value: usize) -> Result<Self, EncodeError> {
        if let Ok(nibble @ 0..=12) = u8::try_from(value) {
            return Ok(Self { nibble, bytes: [0; 2], count: 0 });
        }
        if let Ok(more) = u8::try_from(value - 13) {
            return Ok(Self { nibble: 13, bytes: [more, 0], count: 1 });
        }
        let more = u16::try_from(value - 269).map_err(|_| EncodeError::TooLong)?;
        Ok(Self { nibble: 14, bytes: more.to_be_bytes(), count: 2 })
    }

    fn more(&self) -> &[u8] {
        self.bytes.get(..self.count).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::super::message::ParseError;
    use super::*;
    use coap_lite::{CoapOption, MessageClass, MessageType, Packet};
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    type Parts = (Kind, Code, u16, Vec<u8>, Vec<(u16, Vec<u8>)>, Vec<u8>);

    fn code() -> impl Strategy<Value = Code> {
        prop_oneof![1..0x20u8, 0x40..0x60u8, 0x80..0xa0u8, 0xa0..0xc0u8].prop_map(Code)
    }

    fn parts() -> impl Strategy<Value = Parts> {
        let bytes = |most| prop::collection::vec(any::<u8>(), 0..most);
        let length = prop_oneof![Just(0usize), Just(12), Just(13), Just(268), Just(269), 0..400usize];
        let value = (length, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]);
        let number = prop_oneof![0..40u16, 250..300u16, any::<u16>()];
        let options = prop::collection::vec((number, value), 0..6).prop_map(|mut options| {
            options.sort_by_key(|(number, _)| *number);
            options
        });
        ((0..4u8).prop_map(Kind::of_bits), code(), any::<u16>(), bytes(9), options, bytes(60))
    }

    fn write(buffer: &mut [u8], parts: &Parts) -> Result<usize, EncodeError> {
        let (kind, code, id, token, options, payload) = parts;
        let writer = Writer::new(buffer, *kind, *code, *id, token)?;
        let writer = options.iter().try_fold(writer, |w, (number, value)| w.option(*number, value))?;
        writer.payload(payload)
    }

    fn read(datagram: &[u8]) -> Result<Parts, ParseError> {
        let message = Message::parse(datagram)?;
        let options = message.options().map(|o| (o.number, o.value.to_vec())).collect();
        let (token, payload) = (message.token().to_vec(), message.payload().to_vec());
        Ok((message.kind(), message.code(), message.id(), token, options, payload))
    }

    /// The oracle: what the `coap-lite` crate reads.
    fn read_by_oracle(datagram: &[u8]) -> Option<Parts> {
        let packet = Packet::from_bytes(datagram).ok()?;
        let kind = match packet.header.get_type() {
            MessageType::Confirmable => Kind::Confirmable,
            MessageType::NonConfirmable => Kind::NonConfirmable,
            MessageType::Acknowledgement => Kind::Acknowledgement,
            MessageType::Reset => Kind::Reset,
        };
        let code = Code(packet.header.code.into());
        let options = packet
            .options()
            .flat_map(|(number, values)| values.iter().map(move |value| (*number, value.clone())))
            .collect();
        Some((kind, code, packet.header.message_id, packet.get_token().to_vec(), options, packet.payload))
    }

    proptest! {
        #[test]
        fn a_message_is_read_as_it_was_written_here_and_by_another_implementation(parts in parts()) {
            let mut buffer = [0; 4096];
            let length = write(&mut buffer, &parts).unwrap();
            prop_assert_eq!(read(&buffer[..length]).unwrap(), parts.clone());
            // The oracle folds codes it has no name for into one, so only named ones are compared with it.
            if !matches!(MessageClass::from(parts.1.0), MessageClass::Reserved(_)) {
                prop_assert_eq!(read_by_oracle(&buffer[..length]), Some(parts));
            }
        }

        #[test]
        fn another_implementations_bytes_are_read_the_same(parts in parts()) {
            let (kind, code, id, token, options, payload) = parts.clone();
            let mut packet = Packet::new();
            packet.header.set_type(match kind {
                Kind::Confirmable => MessageType::Confirmable,
                Kind::NonConfirmable => MessageType::NonConfirmable,
                Kind::Acknowledgement => MessageType::Acknowledgement,
                Kind::Reset => MessageType::Reset,
            });
            packet.header.code = MessageClass::from(code.0);
            packet.header.message_id = id;
            packet.set_token(token);
            for (number, value) in options {
                packet.add_option(CoapOption::from(number), value);
            }
            packet.payload = payload;
            // The other implementation writes nothing longer than an IPv6 packet.
            let bytes = packet.to_bytes();
            if !matches!(MessageClass::from(code.0), MessageClass::Reserved(_)) && bytes.is_ok() {
                prop_assert_eq!(read(&bytes.unwrap()).unwrap(), parts);
            }
        }

        #[test]
        fn any_bytes_give_a_message_or_an_error_and_never_a_panic(
            noise in prop::collection::vec(any::<u8>(), 0..80), header in any::<bool>(),
        ) {
            let mut datagram = noise;
            if header && let Some(first) = datagram.first_mut() {
                *first = 0x40 | *first & 0x37;
            }
            if let Ok(parts) = read(&datagram) {
                let mut buffer = [0; 256];
                if parts.1 == Code::EMPTY {
                    prop_assert_eq!(&empty(parts.0, parts.2)[..], &datagram[..]);
                } else {
                    // Longer forms of small numbers are accepted, so only the meaning has to come back.
                    let length = write(&mut buffer, &parts).unwrap();
                    prop_assert_eq!(read(&buffer[..length]).unwrap(), parts);
                }
            }
        }

        #[test]
        fn a_cut_message_never_panics_and_a_short_buffer_is_refused(
            parts in parts(), cut in any::<prop::sample::Index>(),
        ) {
            let mut buffer = [0; 4096];
            let length = write(&mut buffer, &parts).unwrap();
            let cut = cut.index(length);
            drop(read(&buffer[..cut]));
            prop_assert_eq!(write(&mut [0; 4096][..cut], &parts), Err(EncodeError::TooLong));
        }
    }

    #[test]
    fn options_out_of_order_are_refused() {
        let mut buffer = [0; 32];
        let writer = Writer::new(&mut buffer, Kind::Confirmable, Code::POST, 1, &[]).unwrap();
        let refused = writer.option(option::MAX_AGE, &[1]).unwrap().option(option::URI_PATH, b"b");
        assert_eq!(refused.map(|_| ()), Err(EncodeError::OutOfOrder));
    }

    #[test]
    fn integers_take_as_few_bytes_as_they_can() {
        for (value, bytes) in [(0u32, 0usize), (1, 1), (255, 1), (256, 2), (0x1_0000, 3), (u32::MAX, 4)] {
            let mut buffer = [0; 32];
            let writer = Writer::new(&mut buffer, Kind::Confirmable, Code::CONTENT, 1, &[]).unwrap();
            let length = writer.uint(option::MAX_AGE, value).unwrap().payload(&[]).unwrap();
            let message = Message::parse(&buffer[..length]).unwrap();
            assert_eq!(message.uint(option::MAX_AGE), Some(value));
            assert_eq!(message.options().next().map(|o| o.value.len()), Some(bytes));
        }
    }
}
