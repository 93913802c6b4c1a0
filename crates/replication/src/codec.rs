//! The bytes of a message on a stream:
//!
//! ```text
//! frame   := length u32 LE | CRC-32 of the payload u32 LE | payload (`length` bytes)
//! payload := MessagePack | run, for records
//! ```
//! The length is compared with [`FRAME_BYTES_MAX`] before anything is reserved for it. What a run is, stands in `run`; records that are more than
//! one may hold are written as they are, and either form is read. This module knows no session: all versions that are spoken are written alike.

extern crate std;

mod run;

use alloc::string::ToString;
use alloc::vec::Vec;
use std::string::String;

use crate::limits::{FRAME_BYTES_MAX, RUN_BYTES_MAX};
use crate::message::Message;
use run::Packing;
pub use run::Unpacking;

/// Why bytes are no frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is beyond what a message can have.
    #[error("a frame of {bytes} bytes, the most is {FRAME_BYTES_MAX}")]
    TooLong {
        /// What the bytes claim.
        bytes: usize,
    },
    /// The checksum does not match.
    #[error("a frame with a wrong checksum")]
    Checksum,
    /// The payload is no message.
    #[error("a frame that is no message: {0}")]
    Malformed(String),
    /// Its records do not unpack behind those before them.
    #[error("packed records that do not unpack, or not to what was packed")]
    Packed,
    /// Its records come to more than a message may bring.
    #[error("records that come to more than {RUN_BYTES_MAX} bytes, or are too many")]
    TooMuch,
}

impl FrameError {
    /// A word for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "too_long",
            Self::Checksum => "checksum",
            Self::Malformed(_) => "malformed",
            Self::Packed => "packed",
            Self::TooMuch => "too_much",
        }
    }
}

/// What stands before a payload, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    length: usize,
    crc: u32,
}

impl FrameHeader {
    /// Length of a header, in bytes.
    pub const BYTES: usize = 8;

    /// Reads a header.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] past [`FRAME_BYTES_MAX`].
    pub fn parse(bytes: [u8; Self::BYTES]) -> Result<Self, FrameError> {
        let [l0, l1, l2, l3, c0, c1, c2, c3] = bytes;
        let claimed = u32::from_le_bytes([l0, l1, l2, l3]);
        let length = usize::try_from(claimed).unwrap_or(usize::MAX);
        if length > FRAME_BYTES_MAX {
            return Err(FrameError::TooLong { bytes: length });
        }
        Ok(Self { length, crc: u32::from_le_bytes([c0, c1, c2, c3]) })
    }

    /// Length of the payload, in bytes.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.length
    }

    /// Reads the payload that follows this header; `unpacking` has seen all payloads before it on the same connection.
    ///
    /// # Errors
    /// [`FrameError`] when it is not the payload that was sent, or no message.
    pub fn message(&self, payload: &[u8], unpacking: &mut Unpacking) -> Result<Message, FrameError> {
        if payload.len() != self.length || crc32fast::hash(payload) != self.crc {
            return Err(FrameError::Checksum);
        }
        if run::is_run(payload) {
            return unpacking.take(payload).map(Message::Records);
        }
        let mut rest = payload;
        let message =
            rmp_serde::from_read(&mut rest).map_err(|error| FrameError::Malformed(error.to_string()))?;
        if rest.is_empty() { Ok(message) } else { Err(FrameError::Malformed("bytes behind it".to_string())) }
    }
}

/// Writes the messages of one direction of a connection, in order.
#[derive(Debug, Default)]
pub struct Encoder {
    packing: Packing,
}

impl Encoder {
    /// Appends a message's frame to `out`, behind those before it on the same connection.
    ///
    /// # Errors
    /// [`FrameError`] for a message that has no frame; this node builds none such. Nothing can be written behind it.
    pub fn encode(&mut self, message: &Message, out: &mut Vec<u8>) -> Result<(), FrameError> {
        let Message::Records(records) = message else { return encode(message, out) };
        let start = out.len();
        out.extend_from_slice(&[0; FrameHeader::BYTES]);
        let is_run = self.packing.put(records, out)?;
        if is_run && finish(out, start).is_ok() {
            return Ok(());
        }
        self.packing.forget();
        out.truncate(start);
        encode(message, out)
    }
}

/// Appends a message's frame to `out`, with records as they are: it needs nothing of what went before on the connection.
///
/// # Errors
/// [`FrameError`] for a message that has no frame; this node builds none such.
pub fn encode(message: &Message, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = out.len();
    out.extend_from_slice(&[0; FrameHeader::BYTES]);
    rmp_serde::encode::write(out, message).map_err(|error| FrameError::Malformed(error.to_string()))?;
    finish(out, start)
}

/// Writes the header of the frame that begins at `start` and has its payload. A frame that cannot be is taken away.
fn finish(out: &mut Vec<u8>, start: usize) -> Result<(), FrameError> {
    let payload = out.get(start + FrameHeader::BYTES..).unwrap_or_default();
    let bytes = payload.len();
    let crc = crc32fast::hash(payload);
    let length = u32::try_from(bytes).ok().filter(|_| bytes <= FRAME_BYTES_MAX);
    let Some(length) = length else {
        out.truncate(start);
        return Err(FrameError::TooLong { bytes });
    };
    let header = length.to_le_bytes().into_iter().chain(crc.to_le_bytes());
    for (to, from) in out.iter_mut().skip(start).zip(header) {
        *to = from;
    }
    Ok(())
}

/// Cuts the bytes of one direction of a connection into messages; holds at most one frame and what was pushed behind it.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    taken: usize,
    unpacking: Unpacking,
}

impl Decoder {
    /// Takes bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.taken > 0 {
            self.buffer.drain(..self.taken);
            self.taken = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, or `None` until more bytes come.
    ///
    /// # Errors
    /// [`FrameError`]: the stream cannot be followed any further.
    pub fn next_message(&mut self) -> Result<Option<Message>, FrameError> {
        let rest = self.buffer.get(self.taken..).unwrap_or_default();
        let Some((header, rest)) = rest.split_first_chunk::<{ FrameHeader::BYTES }>() else {
            return Ok(None);
        };
        let header = FrameHeader::parse(*header)?;
        let Some(payload) = rest.get(..header.length) else { return Ok(None) };
        let message = header.message(payload, &mut self.unpacking)?;
        self.taken += FrameHeader::BYTES + header.length;
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests;
