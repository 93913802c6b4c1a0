//! A segment's file as a row of blocks: each with a checksum over its bytes and over what they are and where they stand, so that a
//! block read from another place or another segment is found. This module knows no block's content.
//!
//! ```text
//! file    := header | { block } | footer block | tail
//! block   := payload | crc u32, over salt 16, kind u8, offset u64 and payload
//! tail    := footer's offset u64 | footer's length u32, crc and all | crc u32 over salt 16 and the 12 bytes before | magic 8
//! salt    := BLAKE3 of the header, cut to 16 bytes
//! ```

use std::io;

use crc32fast::Hasher;

use crate::disk::{DiskFile, read_full};

use super::errors::SegmentError;

pub(super) const CRC_BYTES: usize = 4;
pub(super) const TAIL_BYTES: usize = 24;
pub(super) const TAIL_MAGIC: [u8; 8] = *b"tidesge\n";
/// Longest block, in bytes: a page of texts and its neighbours.
pub(super) const BLOCK_BYTES_MAX: u32 = 256 * 1024 * 1024;

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Differences of whole numbers and decimals.
    Numbers = 0,
    /// Bits of floats that are no short decimals.
    Floats = 1,
    /// Differences of times.
    Times = 2,
    /// Orders of arrival.
    Orders = 3,
    /// Texts, and values of mixed kinds.
    Texts = 4,
    /// A page of the table of sequences.
    Sequences = 5,
    /// A page of the directory.
    Directory = 6,
    /// Records without their points.
    Records = 7,
    /// The footer.
    Footer = 8,
}

pub(super) const KINDS: [Kind; 8] = [
    Kind::Numbers,
    Kind::Floats,
    Kind::Times,
    Kind::Orders,
    Kind::Texts,
    Kind::Sequences,
    Kind::Directory,
    Kind::Records,
];

impl Kind {
    pub fn of_byte(byte: i64) -> Option<Self> {
        KINDS.into_iter().find(|kind| *kind as i64 == byte)
    }
}

pub(super) type Salt = [u8; 16];

fn crc(salt: &Salt, kind: Kind, offset: u64, payload: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(salt);
    hasher.update(&[kind as u8]);
    hasher.update(&offset.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

pub(super) fn first_16(hash: &blake3::Hash) -> [u8; 16] {
    let mut out = [0u8; 16];
    out.iter_mut().zip(hash.as_bytes()).for_each(|(to, from)| *to = *from);
    out
}

/// A kind and length of each block that was written, in order.
pub(super) type Table = Vec<(Kind, u32)>;

/// Writes a file front to back, and hashes it on the way.
pub(super) struct BlockWriter<'o> {
    out: &'o mut dyn FnMut(&[u8]) -> io::Result<()>,
    hasher: blake3::Hasher,
    salt: Salt,
    offset: u64,
    table: Table,
    counts: [u32; KINDS.len()],
}

impl<'o> BlockWriter<'o> {
    pub fn new(header: &[u8], out: &'o mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<Self> {
        let salt = first_16(&blake3::hash(header));
        let (hasher, table, counts) = (blake3::Hasher::new(), Vec::new(), [0; KINDS.len()]);
        let mut writer = Self { out, hasher, salt, offset: 0, table, counts };
        writer.write(header)?;
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.offset += bytes.len() as u64;
        (self.out)(bytes)
    }

    /// Writes a block; its number among those of its kind.
    pub fn put(&mut self, kind: Kind, payload: &[u8]) -> io::Result<u32> {
        let length = u32::try_from(payload.len() + CRC_BYTES)
            .ok()
            .filter(|length| *length <= BLOCK_BYTES_MAX)
            .ok_or_else(|| io::Error::other("a block of a segment is too long"))?;
        let crc = crc(&self.salt, kind, self.offset, payload);
        self.write(payload)?;
        self.write(&crc.to_le_bytes())?;
        self.table.push((kind, length));
        let count = self.counts.get_mut(kind as usize);
        Ok(count.map_or(0, |count| std::mem::replace(count, *count + 1)))
    }

    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Writes footer and tail; the file's hash and length.
    pub fn finish(mut self, footer: &[u8]) -> io::Result<([u8; 16], u64)> {
        let at = self.offset;
        self.put(Kind::Footer, footer)?;
        let mut tail = at.to_le_bytes().to_vec();
        let length = self.table.last().map_or(0, |(_, length)| *length);
        tail.extend_from_slice(&length.to_le_bytes());
        tail.extend_from_slice(&tail_crc(&self.salt, &tail).to_le_bytes());
        tail.extend_from_slice(&TAIL_MAGIC);
        self.write(&tail)?;
        Ok((first_16(&self.hasher.finalize()), self.offset))
    }
}

fn tail_crc(salt: &Salt, tail: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(salt);
    hasher.update(tail);
    hasher.finalize()
}

/// Where the footer stands, from the last bytes of the file.
pub(super) fn footer_at(salt: &Salt, tail: &[u8; TAIL_BYTES]) -> Option<(u64, u32)> {
    let (numbers, rest) = tail.split_at(12);
    let (crc, magic) = rest.split_at(4);
    if magic != TAIL_MAGIC || tail_crc(salt, numbers).to_le_bytes() != crc {
        return None;
    }
    let (offset, length) = numbers.split_at(8);
    Some((u64::from_le_bytes(offset.try_into().ok()?), u32::from_le_bytes(length.try_into().ok()?)))
}

/// Reads the payload of a block and checks it.
pub(super) fn read_block(
    file: &dyn DiskFile,
    salt: &Salt,
    kind: Kind,
    offset: u64,
    length: u32,
) -> Result<Vec<u8>, SegmentError> {
    let rotten = SegmentError::Rotten { what: "block", offset };
    let length = length as usize;
    if length < CRC_BYTES || length > BLOCK_BYTES_MAX as usize {
        return Err(rotten);
    }
    let mut bytes = vec![0; length];
    if read_full(file, &mut bytes, offset)? != length {
        return Err(rotten);
    }
    let stored = bytes.split_off(length - CRC_BYTES);
    if crc(salt, kind, offset, &bytes).to_le_bytes() == stored.as_slice() { Ok(bytes) } else { Err(rotten) }
}
