//! What is left of a log file whose records are all sealed: which record stood at which position, so that a cursor that is
//! far behind still meets the records in their order of arrival. The records themselves are in segments.
//!
//! ```text
//! file   := "tidemap\n" | version u16 | node 16 | run u64 | first u64 | records u64 | length u32 | crc u32 | content
//! content := streams varint { node 16 | run u64 | site length varint, UTF-8 } | { run }
//! run    := stream varint (0: positions of records that are not served) | lsn zigzag varint, from the one that would follow in
//!           that stream | records varint
//! ```
//! Fixed numbers are little-endian; the crc covers everything but itself.

use std::collections::HashMap;

use tidelog_record::{NodeId, Run, StreamId};

pub(crate) const VERSION: u16 = 1;
const MAGIC: [u8; 8] = *b"tidemap\n";
const HEAD_BYTES: usize = 8 + 2 + 16 + 8 + 8 + 8 + 4 + 4;
/// Largest map that is read, in bytes: a log file has at most 2^30 bytes and no record in it takes fewer than 54.
pub(crate) const MAP_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Consecutive positions that held consecutive records of one stream, or records that are not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// Place in [`Map::streams`]; `None` for records that are not served.
    pub stream: Option<u32>,
    /// LSN of the first.
    pub lsn: u64,
    pub records: u64,
}

/// What stood where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Map {
    pub node: NodeId,
    pub run: Run,
    /// Position of the first record.
    pub first: u64,
    pub streams: Vec<StreamId>,
    pub stretches: Vec<Stretch>,
}

/// Why a file is no map.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum MapError {
    Damaged,
    Version(u16),
}

impl Map {
    pub fn new(node: NodeId, run: Run, first: u64) -> Self {
        Self { node, run, first, streams: Vec::new(), stretches: Vec::new() }
    }

    /// Position of the last record; `first - 1` when there is none.
    pub fn last(&self) -> u64 {
        self.first - 1 + self.records()
    }

    fn records(&self) -> u64 {
        self.stretches.iter().map(|stretch| stretch.records).sum()
    }

    /// The place of a stream, which is entered if it is new.
    pub fn stream(&mut self, stream: &StreamId) -> u32 {
        let at = self.streams.iter().position(|known| known == stream).unwrap_or_else(|| {
            self.streams.push(stream.clone());
            self.streams.len() - 1
        });
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    /// Notes the record at the next position.
    pub fn push(&mut self, stream: Option<u32>, lsn: u64) {
        match self.stretches.last_mut() {
            Some(last) if last.stream == stream && (stream.is_none() || last.lsn + last.records == lsn) => {
                last.records += 1;
            }
            _ => self.stretches.push(Stretch {
                stream,
                lsn: if stream.is_some() { lsn } else { 0 },
                records: 1,
            }),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut content = Vec::new();
        put(&mut content, self.streams.len() as u64);
        for stream in &self.streams {
            content.extend_from_slice(&stream.node.0);
            content.extend_from_slice(&stream.run.0.to_le_bytes());
            put(&mut content, stream.site.as_str().len() as u64);
            content.extend_from_slice(stream.site.as_str().as_bytes());
        }
        let mut follows: HashMap<u32, u64> = HashMap::new();
        for stretch in &self.stretches {
            let Some(stream) = stretch.stream else {
                put(&mut content, 0);
                put(&mut content, stretch.records);
                continue;
            };
            put(&mut content, u64::from(stream) + 1);
            let expected = follows.insert(stream, stretch.lsn.wrapping_add(stretch.records)).unwrap_or(1);
            let step = stretch.lsn.wrapping_sub(expected).cast_signed();
            put(&mut content, ((step << 1) ^ (step >> 63)).cast_unsigned());
            put(&mut content, stretch.records);
        }
        let mut out = Vec::with_capacity(HEAD_BYTES + content.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.node.0);
        out.extend_from_slice(&self.run.0.to_le_bytes());
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&self.records().to_le_bytes());
        out.extend_from_slice(&u32::try_from(content.len()).unwrap_or(u32::MAX).to_le_bytes());
        let crc = checksum(&out, &content);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&content);
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, MapError> {
        let (head, content) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or(MapError::Damaged)?;
        let (checked, crc) = head.split_last_chunk::<4>().ok_or(MapError::Damaged)?;
        if !head.starts_with(&MAGIC) || checksum(checked, content) != u32::from_le_bytes(*crc) {
            return Err(MapError::Damaged);
        }
        let mut fields = crate::frame::Fields(checked);
        let mut read = || {
            fields.array::<8>()?;
            let version = u16::from_le_bytes(fields.array()?);
            Some((version, NodeId(fields.array()?), Run(fields.u64()?), fields.u64()?, fields.u64()?))
        };
        let (version, node, run, first, records) = read().ok_or(MapError::Damaged)?;
        if version != VERSION {
            return Err(MapError::Version(version));
        }
        let map = content_of(content, Self::new(node, run, first)).ok_or(MapError::Damaged)?;
        let fits = first > 0 && map.records() == records && first.checked_add(records).is_some();
        if fits { Ok(map) } else { Err(MapError::Damaged) }
    }
}

fn content_of(content: &[u8], mut map: Map) -> Option<Map> {
    let mut fields = crate::frame::Fields(content);
    let streams = take(&mut fields)?;
    for _ in 0..streams {
        let (node, run) = (NodeId(fields.array()?), Run(fields.u64()?));
        let length = usize::try_from(take(&mut fields)?).ok()?;
        let (site, rest) = fields.0.split_at_checked(length)?;
        fields.0 = rest;
        let site = std::str::from_utf8(site).ok()?.parse().ok()?;
        map.streams.push(StreamId { site, node, run });
    }
    let mut follows: HashMap<u32, u64> = HashMap::new();
    let mut total = 0u64;
    while !fields.0.is_empty() {
        let stretch = match take(&mut fields)?.checked_sub(1) {
            None => Stretch { stream: None, lsn: 0, records: take(&mut fields)? },
            Some(stream) => {
                let stream = u32::try_from(stream).ok().filter(|at| u64::from(*at) < streams)?;
                let step = take(&mut fields)?;
                let step = (step >> 1) ^ (step & 1).wrapping_neg();
                let records = take(&mut fields)?;
                let lsn = follows.get(&stream).copied().unwrap_or(1).wrapping_add(step);
                follows.insert(stream, lsn.checked_add(records)?);
                Stretch { stream: Some(stream), lsn, records }
            }
        };
        total = total.checked_add(stretch.records)?;
        map.stretches.push(stretch);
    }
    Some(map)
}

fn checksum(head: &[u8], content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(content);
    hasher.finalize()
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn take(fields: &mut crate::frame::Fields<'_>) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let [byte] = fields.array()?;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stream(number: u8) -> StreamId {
        StreamId { site: "plant".parse().unwrap(), node: NodeId([number; 16]), run: Run(u64::from(number)) }
    }

    proptest! {
        #[test]
        fn a_map_is_read_as_it_was_written_and_names_each_record(
            records in prop::collection::vec((0u8..4, 0u64..3), 0..200), first in 1u64..1_000_000,
            at in any::<prop::sample::Index>(), noise in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut map = Map::new(NodeId([1; 16]), Run(2), first);
            let mut next = [100u64, 200, 300, 0];
            let mut model = Vec::new();
            for (author, skip) in records {
                if author == 3 {
                    map.push(None, 0);
                    model.push(None);
                    continue;
                }
                let lsn = next[usize::from(author)] + skip;
                next[usize::from(author)] = lsn + 1;
                let place = map.stream(&stream(author));
                map.push(Some(place), lsn);
                model.push(Some((stream(author), lsn)));
            }
            prop_assert_eq!(map.last() + 1 - first, model.len() as u64);
            let mut bytes = map.encode();
            let read = Map::decode(&bytes).unwrap();
            prop_assert_eq!(&read, &map);
            let told: Vec<_> = read.stretches.iter().flat_map(|s| (0..s.records).map(|n| {
                s.stream.map(|at| (read.streams[at as usize].clone(), s.lsn + n))
            })).collect();
            prop_assert_eq!(told, model);
            let at = at.index(bytes.len());
            bytes[at] ^= 4;
            prop_assert!(Map::decode(&bytes).is_err());
            drop(Map::decode(&noise));
        }
    }
}
