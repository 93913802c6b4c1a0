//! A run: the records of one message, their bodies packed by what was in those before them on the same connection, whatever stream
//! they are of.
//!
//! ```text
//! run  := 0xc1, with which no MessagePack begins | stream, first LSN, chain hash, CRC-32 of all bodies (MessagePack, an array)
//!         | { length << 2 | form (LEB128) | body }
//! form := 0 as it is | 1 packed behind those that were packed before | 2 packed with nothing known
//! ```
//! Whoever writes begins with nothing known where a body cannot be packed, or where more would have to be kept in mind than
//! [`SEQUENCE_SERIES_MAX`], [`SEQUENCE_LEARNT_BYTES_MAX`] and [`SEQUENCE_BODIES_MAX`] allow; whoever reads holds it to that. What both know lives as long
//! as the connection, which keeps the order or ends: the next one begins with nothing.
//! How bodies are packed is part of the version of the messages: other bytes need another one.
//!
//! The chain hash proves the bodies to the machine, which takes other bodies for another branch; the CRC is looked at before that, so that
//! an error in here ends the session and is never taken for a fork. This module knows no session and no rule.

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use tidelog_record::{ChainHash, Lsn, Packer, StreamId, Unpacker};

use super::FrameError;
use crate::limits::{
    RECORD_COST_BYTES, RECORDS_PER_MESSAGE_MAX, RUN_BYTES_MAX, SEQUENCE_BODIES_MAX,
    SEQUENCE_LEARNT_BYTES_MAX, SEQUENCE_SERIES_MAX,
};
use crate::message::{Bodies, BodyBytes, Records};

/// MessagePack uses it nowhere, so no other payload begins with it.
const MARK: u8 = 0xc1;

const FORM_BITS: u32 = 2;
const AS_IT_IS: u64 = 0;
const PACKED: u64 = 1;
const PACKED_ANEW: u64 = 2;

/// Whether a payload is a run.
pub(super) fn is_run(payload: &[u8]) -> bool {
    payload.first() == Some(&MARK)
}

/// What stands before the bodies.
#[derive(Serialize, Deserialize)]
struct Head {
    stream: StreamId,
    first: Lsn,
    chain: ChainHash,
    bodies_crc: u32,
}

/// The writing end of what is known of the bodies in one direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Packing {
    /// None: the next body that is packed begins with nothing known. Boxed, for most sessions of a large node say little.
    packer: Option<Box<Packer>>,
    /// Bodies that it packed.
    bodies: usize,
}

impl Packing {
    /// Appends the records' payload. `false` when they are more than a run may hold; nothing is learnt of them then.
    pub fn put(&mut self, records: &Records, out: &mut Vec<u8>) -> Result<bool, FrameError> {
        if records.bodies.cost_bytes() > RUN_BYTES_MAX {
            return Ok(false);
        }
        let mut crc = crc32fast::Hasher::new();
        for BodyBytes(body) in &records.bodies.0 {
            crc.update(body);
        }
        out.push(MARK);
        let head = (&records.stream, records.first, records.chain, crc.finalize());
        rmp_serde::encode::write(out, &head).map_err(|error| FrameError::Malformed(error.to_string()))?;
        let mut packed = Vec::new();
        for BodyBytes(body) in &records.bodies.0 {
            let form = self.pack(body, &mut packed);
            let body = if form == AS_IT_IS { body } else { &packed };
            put_number(out, (body.len() as u64) << FORM_BITS | form);
            out.extend_from_slice(body);
        }
        Ok(true)
    }

    /// What was packed last does not reach the other end.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Packs a body into `out`, if it can be, and says in which form it goes.
    fn pack(&mut self, body: &[u8], out: &mut Vec<u8>) -> u64 {
        if !Packer::takes(body) {
            return AS_IT_IS;
        }
        if self.bodies >= SEQUENCE_BODIES_MAX {
            self.packer = None;
        }
        let form = if self.packer.is_some() { PACKED } else { PACKED_ANEW };
        if form == PACKED_ANEW {
            self.bodies = 0;
        }
        let packer = self.packer.get_or_insert_default();
        out.clear();
        let is_packed = packer.pack(body, out).is_some()
            && packer.series() <= SEQUENCE_SERIES_MAX
            && packer.learnt_bytes() <= SEQUENCE_LEARNT_BYTES_MAX;
        self.bodies += 1;
        if is_packed {
            return form;
        }
        self.packer = None;
        AS_IT_IS
    }
}

/// The reading end of what is known of the bodies in one direction of a connection.
#[derive(Debug, Default)]
pub struct Unpacking {
    /// None where no sequence has begun.
    unpacker: Option<Box<Unpacker>>,
    /// Bodies that it unpacked.
    bodies: usize,
}

impl Unpacking {
    /// Reads the payload of a run.
    pub(super) fn take(&mut self, payload: &[u8]) -> Result<Records, FrameError> {
        let mut rest = payload.get(1..).unwrap_or_default();
        let Head { stream, first, chain, bodies_crc } =
            rmp_serde::from_read(&mut rest).map_err(|error| FrameError::Malformed(error.to_string()))?;
        let mut crc = crc32fast::Hasher::new();
        let mut left = RUN_BYTES_MAX;
        let (mut bodies, mut unpacked) = (Vec::new(), Vec::new());
        while !rest.is_empty() {
            if bodies.len() == RECORDS_PER_MESSAGE_MAX {
                return Err(FrameError::TooMuch);
            }
            let (form, bytes) = take_body(&mut rest)
                .ok_or_else(|| FrameError::Malformed("a run that ends in a body".to_string()))?;
            let body = if form == AS_IT_IS {
                bytes
            } else {
                self.unpack(form, bytes, &mut unpacked)?;
                &unpacked
            };
            left = left.checked_sub(body.len() + RECORD_COST_BYTES).ok_or(FrameError::TooMuch)?;
            crc.update(body);
            bodies.push(BodyBytes(body.to_vec()));
        }
        if crc.finalize() != bodies_crc {
            return Err(FrameError::Packed);
        }
        Ok(Records { stream, first, chain, bodies: Bodies(bodies) })
    }

    /// Unpacks the next body into `out`: at most what one may hold, whatever the bytes say.
    fn unpack(&mut self, form: u64, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
        if form == PACKED_ANEW {
            let unpacker = Unpacker::bounded(SEQUENCE_SERIES_MAX, SEQUENCE_LEARNT_BYTES_MAX);
            self.unpacker = Some(Box::new(unpacker));
            self.bodies = 0;
        }
        let unpacker = self.unpacker.as_mut().filter(|_| matches!(form, PACKED | PACKED_ANEW));
        self.bodies += 1;
        let is_unpacked = unpacker.is_some_and(|it| it.unpack(bytes, out).is_ok());
        if is_unpacked && self.bodies <= SEQUENCE_BODIES_MAX {
            return Ok(());
        }
        self.unpacker = None;
        Err(FrameError::Packed)
    }
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// A length is at most a frame's, so four groups of bits are enough for it and the form.
const NUMBER_BYTES_MAX: usize = 4;

fn take_number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for at in 0..NUMBER_BYTES_MAX {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// The next body as it stands there, and its form.
fn take_body<'b>(rest: &mut &'b [u8]) -> Option<(u64, &'b [u8])> {
    let number = take_number(rest)?;
    let length = usize::try_from(number >> FORM_BITS).ok()?;
    let (body, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some((number & ((1 << FORM_BITS) - 1), body))
}

#[cfg(test)]
mod tests;
