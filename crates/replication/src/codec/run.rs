//! A run: the records of one message, their bodies packed by what was in those before them on the same connection, whatever stream
//! they are of.
//!
//! ```text
//! run   := 0xc1, with which no MessagePack begins | 0x04 | stream, first LSN, chain hash, CRC-32 of all bodies (MessagePack, an array)
//!          | { group }
//! group := bodies << 2 | form (LEB128) | length (LEB128) | bytes
//! form  := 0 as it is, one body | 1 packed behind those that were packed before | 2 packed with nothing known
//! ```
//! In version 3 nothing stands behind 0xc1, a group is one body, its number is `length << 2 | form`, and which series begins a body is not foretold.
//!
//! Whoever writes begins with nothing known where a body cannot be packed, or where more would have to be kept in mind than
//! [`SEQUENCE_SERIES_MAX`] and [`SEQUENCE_LEARNT_BYTES_MAX`] allow (in version 3 also [`SEQUENCE_BODIES_MAX`]); whoever reads holds it to that. What both know lives as long
//! as the connection, which keeps the order or ends: the next one begins with nothing.
//! How bodies are packed is part of the version of the messages: other bytes need another one.
//!
//! The chain hash proves the bodies to the machine, which takes other bodies for another branch; the CRC is looked at before that, so that
//! an error in here ends the session and is never taken for a fork. This module knows no session and no rule.

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use tidelog_record::{ChainHash, Foretells, Lsn, Packer, StreamId, Unpacker};

use super::FrameError;
use crate::limits::{
    GROUPED_SINCE_VERSION, RECORD_COST_BYTES, RECORDS_PER_MESSAGE_MAX, RUN_BYTES_MAX, SEQUENCE_BODIES_MAX,
    SEQUENCE_LEARNT_BYTES_MAX, SEQUENCE_SERIES_MAX,
};
use crate::message::{Bodies, BodyBytes, Records};

/// MessagePack uses it nowhere, so no other payload begins with it.
const MARK: u8 = 0xc1;
/// What stands behind it where bodies are packed in groups; an array of MessagePack begins otherwise.
const GROUPS: u8 = 4;

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

/// How bodies stand in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Each by itself, as in version 3.
    Single,
    /// In groups that are one string of bits each.
    Grouped,
}

impl Layout {
    fn of(version: u16) -> Self {
        if version < GROUPED_SINCE_VERSION { Self::Single } else { Self::Grouped }
    }

    fn foretells(self) -> Foretells {
        match self {
            Self::Single => Foretells::Within,
            Self::Grouped => Foretells::Across,
        }
    }

    fn group_bodies_max(self) -> usize {
        match self {
            Self::Single => 1,
            Self::Grouped => RECORDS_PER_MESSAGE_MAX,
        }
    }

    /// Where devices count as what is learnt, bodies need not be counted.
    fn sequence_bodies_max(self) -> usize {
        match self {
            Self::Single => SEQUENCE_BODIES_MAX,
            Self::Grouped => usize::MAX,
        }
    }

    fn put_group(self, bodies: usize, form: u64, bytes: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Single => put_number(out, (bytes.len() as u64) << FORM_BITS | form),
            Self::Grouped => {
                put_number(out, (bodies as u64) << FORM_BITS | form);
                put_number(out, bytes.len() as u64);
            }
        }
        out.extend_from_slice(bytes);
    }

    /// The next group: how many bodies, their form, and the bytes as they stand there.
    fn take_group<'b>(self, rest: &mut &'b [u8]) -> Option<(usize, u64, &'b [u8])> {
        let number = take_number(rest)?;
        let form = number & ((1 << FORM_BITS) - 1);
        let (bodies, length) = match self {
            Self::Single => (1, number >> FORM_BITS),
            Self::Grouped => (number >> FORM_BITS, take_number(rest)?),
        };
        let (bytes, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        *rest = after;
        Some((usize::try_from(bodies).ok()?, form, bytes))
    }
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
    pub fn put(&mut self, version: u16, records: &Records, out: &mut Vec<u8>) -> Result<bool, FrameError> {
        if records.bodies.cost_bytes() > RUN_BYTES_MAX {
            return Ok(false);
        }
        let mut crc = crc32fast::Hasher::new();
        for BodyBytes(body) in &records.bodies.0 {
            crc.update(body);
        }
        let layout = Layout::of(version);
        out.push(MARK);
        if layout == Layout::Grouped {
            out.push(GROUPS);
        }
        let head = (&records.stream, records.first, records.chain, crc.finalize());
        rmp_serde::encode::write(out, &head).map_err(|error| FrameError::Malformed(error.to_string()))?;
        let mut packed = Vec::new();
        let mut rest = records.bodies.0.as_slice();
        while let Some(BodyBytes(first)) = rest.first() {
            let (bodies, form) = self.pack(layout, rest, &mut packed);
            let bytes = if form == AS_IT_IS { first } else { &packed };
            layout.put_group(bodies, form, bytes, out);
            rest = rest.get(bodies..).unwrap_or_default();
        }
        Ok(true)
    }

    /// What was packed last does not reach the other end.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Packs bodies from the first on into `out`: how many, and in which form they go. Where the first cannot be packed, it goes as it is.
    fn pack(&mut self, layout: Layout, bodies: &[BodyBytes], out: &mut Vec<u8>) -> (usize, u64) {
        if self.bodies >= layout.sequence_bodies_max() {
            self.packer = None;
        }
        let form = if self.packer.is_some() { PACKED } else { PACKED_ANEW };
        if form == PACKED_ANEW {
            self.bodies = 0;
        }
        let most = layout.group_bodies_max().min(layout.sequence_bodies_max() - self.bodies);
        let like = bodies.iter().map(|BodyBytes(body)| body.as_slice()).take(most);
        let mut tried = 0;
        let like = like.take_while(|body| Packer::takes(body)).inspect(|_| tried += 1);
        out.clear();
        let packer = self.packer.get_or_insert_with(|| {
            let (series_max, bytes_max) = (SEQUENCE_SERIES_MAX, SEQUENCE_LEARNT_BYTES_MAX);
            Box::new(Packer::bounded(layout.foretells(), series_max, bytes_max))
        });
        let packed = packer.pack_many(like, out);
        self.bodies = self.bodies.saturating_add(packed);
        if packed < tried || self.bodies == 0 {
            self.packer = None;
        }
        if packed == 0 { (1, AS_IT_IS) } else { (packed, form) }
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

/// The bodies of a run, as far as they were read.
struct Read {
    bodies: Vec<BodyBytes>,
    crc: crc32fast::Hasher,
    left_bytes: usize,
}

impl Read {
    /// Takes one more. `false` when there are too many, or they are too long.
    fn push(&mut self, body: &[u8]) -> bool {
        let left = self.left_bytes.checked_sub(body.len() + RECORD_COST_BYTES);
        let Some(left) = left.filter(|_| self.bodies.len() < RECORDS_PER_MESSAGE_MAX) else { return false };
        self.left_bytes = left;
        self.crc.update(body);
        self.bodies.push(BodyBytes(body.to_vec()));
        true
    }
}

impl Unpacking {
    /// Reads the payload of a run.
    pub(super) fn take(&mut self, payload: &[u8]) -> Result<Records, FrameError> {
        let mut rest = payload.get(1..).unwrap_or_default();
        let mut layout = Layout::Single;
        if let Some(after) = rest.strip_prefix(&[GROUPS]) {
            (layout, rest) = (Layout::Grouped, after);
        }
        let Head { stream, first, chain, bodies_crc } =
            rmp_serde::from_read(&mut rest).map_err(|error| FrameError::Malformed(error.to_string()))?;
        let crc = crc32fast::Hasher::new();
        let mut read = Read { bodies: Vec::new(), crc, left_bytes: RUN_BYTES_MAX };
        while !rest.is_empty() {
            let (bodies, form, bytes) = layout
                .take_group(&mut rest)
                .ok_or_else(|| FrameError::Malformed("a run that ends in a body".to_string()))?;
            if form != AS_IT_IS {
                self.unpack(layout, bodies, form, bytes, &mut read)?;
            } else if bodies != 1 {
                return Err(FrameError::Malformed("a group of several bodies as they are".to_string()));
            } else if !read.push(bytes) {
                return Err(FrameError::TooMuch);
            }
        }
        if read.crc.finalize() != bodies_crc {
            return Err(FrameError::Packed);
        }
        Ok(Records { stream, first, chain, bodies: Bodies(read.bodies) })
    }

    /// Unpacks a group, whose bodies come to no more than may be read, whatever the bytes say.
    fn unpack(
        &mut self,
        layout: Layout,
        bodies: usize,
        form: u64,
        bytes: &[u8],
        read: &mut Read,
    ) -> Result<(), FrameError> {
        if form == PACKED_ANEW {
            let (series_max, bytes_max) = (SEQUENCE_SERIES_MAX, SEQUENCE_LEARNT_BYTES_MAX);
            let unpacker = Unpacker::bounded(layout.foretells(), series_max, bytes_max);
            self.unpacker = Some(Box::new(unpacker));
            self.bodies = 0;
        }
        self.bodies = self.bodies.saturating_add(bodies);
        let is_bounded =
            (1..=RECORDS_PER_MESSAGE_MAX).contains(&bodies) && self.bodies <= layout.sequence_bodies_max();
        let unpacker = self.unpacker.as_mut().filter(|_| is_bounded && matches!(form, PACKED | PACKED_ANEW));
        let mut is_too_much = false;
        let unpacked = unpacker.map(|it| {
            it.unpack_many(bytes, bodies, &mut |body| {
                is_too_much = !read.push(body);
                !is_too_much
            })
        });
        match unpacked {
            Some(Ok(())) => Ok(()),
            _ => {
                self.unpacker = None;
                Err(if is_too_much { FrameError::TooMuch } else { FrameError::Packed })
            }
        }
    }
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// A length is at most a frame's, so four times seven bits are enough for it and the form.
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

#[cfg(test)]
mod tests;
