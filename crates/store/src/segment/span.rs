//! What a segment is of, and its file's first and last words: header and footer.

use tidelog_record::{ChainHash, Lsn, NodeId, Run, StreamId};

use super::blocks::{Kind, Table};
use super::bytes::{Cut, Malformed, put_i64, put_len, put_u64};
use super::directory::{put_index, take_index};
use super::ints::{put_ints, take_ints};
use super::records::{put_firsts, take_firsts};

const MAGIC: [u8; 8] = *b"tideseg\n";
/// Version of a segment's bytes.
pub(super) const VERSION: u16 = 1;
/// Longest header, in bytes.
pub(super) const HEADER_BYTES_MAX: usize = 192;
const FIXED_BYTES: usize = 12;
const CRC_BYTES: usize = 4;

/// The records that a segment is made of: a range of one stream without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Whose records.
    pub stream: StreamId,
    /// Which sealed part of the stream, counted from 0; of a merged segment, its first.
    pub ordinal: u64,
    /// How many sealed parts were merged in it; 1 if none were.
    pub parts: u32,
    /// First record.
    pub first: Lsn,
    /// Last record.
    pub last: Lsn,
    /// The chain hash before the first record.
    pub before: ChainHash,
    /// The chain hash after the last.
    pub after: ChainHash,
}

/// Why bytes are no header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    Rotten,
    Version(u16),
}

impl Span {
    /// Records in it.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.last.0.wrapping_sub(self.first.0).wrapping_add(1)
    }

    pub(super) fn header(&self) -> Vec<u8> {
        let site = self.stream.site.as_str().as_bytes();
        let mut fields = Vec::new();
        put_len(&mut fields, site.len());
        fields.extend_from_slice(site);
        fields.extend_from_slice(&self.stream.node.0);
        fields.extend_from_slice(&self.stream.run.0.to_le_bytes());
        fields.extend_from_slice(&self.ordinal.to_le_bytes());
        fields.extend_from_slice(&self.parts.to_le_bytes());
        fields.extend_from_slice(&self.first.0.to_le_bytes());
        fields.extend_from_slice(&self.last.0.to_le_bytes());
        fields.extend_from_slice(&self.before.0);
        fields.extend_from_slice(&self.after.0);
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&u16::try_from(fields.len()).unwrap_or(0).to_le_bytes());
        out.append(&mut fields);
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        out
    }

    /// Reads the header at the front of `bytes`; its length with it.
    pub(super) fn read_header(bytes: &[u8]) -> Result<(Self, usize), HeaderError> {
        let mut cut = Cut(bytes);
        let magic: [u8; 8] = cut.array()?;
        let version = u16::from_le_bytes(cut.array()?);
        let length = usize::from(u16::from_le_bytes(cut.array()?));
        if magic != MAGIC {
            return Err(HeaderError::Rotten);
        }
        // Length and checksum stand alike in every version, so that a rotten bit is not taken for a newer program's.
        let mut fields = Cut(cut.take(length)?);
        let end = FIXED_BYTES + length;
        let crc = crc32fast::hash(bytes.get(..end).ok_or(Malformed)?);
        if cut.array()? != crc.to_le_bytes() || version == 0 {
            return Err(HeaderError::Rotten);
        }
        if version > VERSION {
            return Err(HeaderError::Version(version));
        }
        let site = std::str::from_utf8(fields.bytes()?).map_err(|_| Malformed)?;
        let site = site.parse().map_err(|_| Malformed)?;
        let node = NodeId(fields.array()?);
        let run = Run(u64::from_le_bytes(fields.array()?));
        let span = Self {
            stream: StreamId { site, node, run },
            ordinal: u64::from_le_bytes(fields.array()?),
            parts: u32::from_le_bytes(fields.array()?),
            first: Lsn(u64::from_le_bytes(fields.array()?)),
            last: Lsn(u64::from_le_bytes(fields.array()?)),
            before: ChainHash(fields.array()?),
            after: ChainHash(fields.array()?),
        };
        fields.end()?;
        if span.is_range() { Ok((span, end + CRC_BYTES)) } else { Err(HeaderError::Rotten) }
    }

    pub(super) fn is_range(&self) -> bool {
        self.first > Lsn::ZERO && self.first <= self.last && self.last.0 < u64::MAX && self.parts > 0
    }
}

impl From<Malformed> for HeaderError {
    fn from(_: Malformed) -> Self {
        Self::Rotten
    }
}

/// What the footer says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Footer {
    /// Points as written, repeats included.
    pub points: u64,
    pub series: u32,
    pub sequences: u32,
    /// First and last time of all points; zeros without points.
    pub times: (i64, i64),
    /// First series of each page of the directory: its number and key.
    pub pages: Vec<(u32, Vec<u8>)>,
    /// First LSN of each block of records.
    pub records: Vec<u64>,
    /// Kind and length of each block before the footer.
    pub table: Table,
}

impl Footer {
    pub fn put(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_u64(&mut out, self.points);
        put_u64(&mut out, u64::from(self.series));
        put_u64(&mut out, u64::from(self.sequences));
        put_i64(&mut out, self.times.0);
        put_i64(&mut out, self.times.1);
        put_index(&mut out, &self.pages);
        put_firsts(&mut out, &self.records);
        put_len(&mut out, self.table.len());
        let column = |of: &dyn Fn(&(Kind, u32)) -> i64| self.table.iter().map(of).collect::<Vec<_>>();
        put_ints(&mut out, &column(&|(kind, _)| *kind as i64));
        put_ints(&mut out, &column(&|(_, length)| i64::from(*length)));
        out
    }

    /// Reads a footer; `bytes_before` are those of header and blocks together, which bound what it can name.
    pub fn read(bytes: &[u8], bytes_before: u64) -> Result<Self, Malformed> {
        let mut cut = Cut(bytes);
        let points = cut.u64()?;
        let series = cut.u32()?;
        let sequences = cut.u32()?;
        let times = (cut.i64()?, cut.i64()?);
        let pages = take_index(&mut cut)?;
        let records = take_firsts(&mut cut)?;
        let most = usize::try_from(bytes_before / 4).map_err(|_| Malformed)?;
        let count = cut.count(most)?;
        let kinds = take_ints(&mut cut, count)?;
        let lengths = take_ints(&mut cut, count)?;
        cut.end()?;
        let table = kinds
            .into_iter()
            .zip(lengths)
            .map(|(kind, length)| {
                Ok((Kind::of_byte(kind).ok_or(Malformed)?, u32::try_from(length).map_err(|_| Malformed)?))
            })
            .collect::<Result<_, Malformed>>()?;
        Ok(Self { points, series, sequences, times, pages, records, table })
    }
}
