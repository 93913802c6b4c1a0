//! The bytes of a log file: its header and its frames (docs/FORMAT.md). Knows no file and no index.
//!
//! ```text
//! file    := header | header | { frame }               the header stands twice: one rotten bit costs no file
//! header  := magic 8 | version u16 | 0 u16 | 0 u32 | node 16 | run u64 | first position u64 | salt u64 | 0 u32 | crc u32
//! frame   := length u32 | crc u32 | content            crc over salt u64 | offset of the frame u64 | length | content
//! content := kind u8 | ...                             bit 7 of kind: the first frame of a commit; bit 6: packing begins anew
//! kind 1  := key 16 | node 16 | run u64 | site         a stream, before its first record in the file
//! kind 2  := ordinal u32 | key 16 | lsn u64 | chain 16 | body
//! kind 3  := ordinal u32 | key 16 | lsn u64 | chain 16 | crc of the body u32 | the body, packed
//! ```
//! A packed body is told from those of kind 3 before it, back to the last record with bit 6. Version 1 has neither. All numbers little-endian. Salt and offset in the checksum find a block that was written to, or read from, the wrong
//! place, and bytes inside a body that look like a frame.

use crate::bodies::Packing;
use tidelog_record::{
    BATCH_BYTES_MAX, ChainHash, Lsn, NodeId, Run, SITE_NAME_BYTES_MAX, Spelling, StreamId, StreamKey,
};

pub(crate) const VERSION: u16 = 2;
/// The first version, in which no body is packed.
const VERSION_PLAIN: u16 = 1;
pub(crate) const HEADER_BYTES: usize = 64;
/// Where the first frame begins, in bytes.
pub(crate) const FRAMES_AT: u64 = 128;
pub(crate) const FRAME_HEAD_BYTES: usize = 8;
const RECORD_HEAD_BYTES: usize = 1 + 4 + 16 + 8 + 16;
const PACKED_HEAD_BYTES: usize = 4;
const STREAM_HEAD_BYTES: usize = 1 + 16 + 16 + 8;
/// Longest content of a frame.
pub(crate) const CONTENT_BYTES_MAX: usize = RECORD_HEAD_BYTES + PACKED_HEAD_BYTES + BATCH_BYTES_MAX;
/// Longest frame.
pub(crate) const FRAME_BYTES_MAX: usize = FRAME_HEAD_BYTES + CONTENT_BYTES_MAX;
/// What a record costs in the log beside its body.
pub(crate) const RECORD_OVERHEAD_BYTES: usize = FRAME_HEAD_BYTES + RECORD_HEAD_BYTES;

const MAGIC: [u8; 8] = *b"tidelog\n";
const KIND_STREAM: u8 = 1;
const KIND_RECORD: u8 = 2;
const KIND_PACKED: u8 = 3;
const FIRST_OF_COMMIT: u8 = 0x80;
const ANEW: u8 = 0x40;

/// What a file's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub version: u16,
    pub node: NodeId,
    /// The node's run when the file was made.
    pub run: Run,
    /// Position of the first record in the file.
    pub first: u64,
    /// Random; part of every checksum in the file.
    pub salt: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    Damaged,
    Version(u16),
}

impl Header {
    /// Whether bodies may be packed in the file.
    pub fn packs(&self) -> bool {
        self.version > VERSION_PLAIN
    }

    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&[0; 6]);
        out.extend_from_slice(&self.node.0);
        out.extend_from_slice(&self.run.0.to_le_bytes());
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&self.salt.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        let mut header = [0; HEADER_BYTES];
        header.copy_from_slice(&out);
        header
    }

    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, HeaderError> {
        let mut fields = Fields(bytes);
        let checked = bytes.split_last_chunk::<4>().ok_or(HeaderError::Damaged)?;
        if crc32fast::hash(checked.0) != u32::from_le_bytes(*checked.1) {
            return Err(HeaderError::Damaged);
        }
        let mut read = || -> Option<([u8; 8], u16, Self)> {
            let magic = fields.array()?;
            let version = u16::from_le_bytes(fields.array()?);
            fields.array::<6>()?;
            let node = NodeId(fields.array()?);
            let run = Run(fields.u64()?);
            Some((magic, version, Self { version, node, run, first: fields.u64()?, salt: fields.u64()? }))
        };
        match read() {
            Some((MAGIC, VERSION_PLAIN..=VERSION, header)) => Ok(header),
            Some((MAGIC, version, _)) => Err(HeaderError::Version(version)),
            _ => Err(HeaderError::Damaged),
        }
    }
}

/// A checked frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub first_of_commit: bool,
    pub content: Content<'a>,
    /// Length of the whole frame.
    pub bytes: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    Stream {
        key: StreamKey,
        stream: StreamId,
    },
    Record(Stored<'a>),
    /// A kind that a newer version wrote: kept, not understood (invariant 15).
    Unknown,
}

/// A record as it stands in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored<'a> {
    /// Position less the file's first position.
    pub ordinal: u32,
    pub key: StreamKey,
    pub lsn: Lsn,
    pub chain: ChainHash,
    /// No body from here on is told from one before.
    pub anew: bool,
    /// The checksum of the body, where it is packed.
    pub packed: Option<u32>,
    pub bytes: &'a [u8],
}

/// A record with its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordFrame<'a> {
    pub key: StreamKey,
    pub lsn: Lsn,
    pub chain: ChainHash,
    pub body: &'a [u8],
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FrameError {
    /// Not all of it is in the slice; the whole takes this many bytes.
    Short { need: usize },
    /// No frame.
    Bad,
}

/// The length of the whole frame that begins with `bytes`, unchecked but within bounds.
pub(crate) fn frame_bytes(bytes: &[u8]) -> Result<usize, FrameError> {
    let Some(head) = bytes.first_chunk::<4>() else {
        return Err(FrameError::Short { need: FRAME_HEAD_BYTES });
    };
    let length = usize::try_from(u32::from_le_bytes(*head)).map_err(|_| FrameError::Bad)?;
    if (1..=CONTENT_BYTES_MAX).contains(&length) {
        Ok(FRAME_HEAD_BYTES + length)
    } else {
        Err(FrameError::Bad)
    }
}

/// Whether a frame could begin with `bytes`: a cheap look before a checksum.
pub(crate) fn may_begin(bytes: &[u8]) -> bool {
    let kind = bytes.get(FRAME_HEAD_BYTES).map(|kind| kind & !(FIRST_OF_COMMIT | ANEW));
    frame_bytes(bytes).is_ok_and(|whole| match kind {
        Some(KIND_STREAM) => whole <= FRAME_HEAD_BYTES + STREAM_HEAD_BYTES + SITE_NAME_BYTES_MAX,
        Some(KIND_RECORD) => whole >= RECORD_OVERHEAD_BYTES,
        Some(KIND_PACKED) => whole >= RECORD_OVERHEAD_BYTES + PACKED_HEAD_BYTES,
        _ => false,
    })
}

fn checksum(salt: u64, offset: u64, length: [u8; 4], content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(&length);
    hasher.update(content);
    hasher.finalize()
}

/// Checks and reads the frame at the start of `bytes`, which stand at `offset` in a file with this salt.
pub(crate) fn parse(salt: u64, offset: u64, bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
    let whole = frame_bytes(bytes)?;
    let Some(frame) = bytes.get(..whole) else { return Err(FrameError::Short { need: whole }) };
    let mut fields = Fields(frame);
    let mut read = || Some((fields.array::<4>()?, fields.array::<4>()?));
    let (length, crc) = read().ok_or(FrameError::Bad)?;
    let content = fields.0;
    if checksum(salt, offset, length, content) != u32::from_le_bytes(crc) {
        return Err(FrameError::Bad);
    }
    let (kind, rest) = content.split_first().ok_or(FrameError::Bad)?;
    let content = match kind & !(FIRST_OF_COMMIT | ANEW) {
        KIND_STREAM => stream_content(rest),
        KIND_RECORD => record_content(rest, kind & ANEW != 0, false),
        KIND_PACKED => record_content(rest, kind & ANEW != 0, true),
        _ => Some(Content::Unknown),
    };
    let content = content.ok_or(FrameError::Bad)?;
    Ok(Frame { first_of_commit: kind & FIRST_OF_COMMIT != 0, content, bytes: whole })
}

fn stream_content(bytes: &[u8]) -> Option<Content<'_>> {
    let mut fields = Fields(bytes);
    let key = StreamKey(fields.array()?);
    let node = NodeId(fields.array()?);
    let run = Run(fields.u64()?);
    let site = std::str::from_utf8(fields.0).ok()?.parse().ok()?;
    let stream = StreamId { site, node, run };
    (stream.key() == key).then_some(Content::Stream { key, stream })
}

fn record_content(bytes: &[u8], anew: bool, is_packed: bool) -> Option<Content<'_>> {
    let mut fields = Fields(bytes);
    let ordinal = u32::from_le_bytes(fields.array()?);
    let key = StreamKey(fields.array()?);
    let lsn = Lsn(fields.u64()?);
    let chain = ChainHash(fields.array()?);
    let packed = if is_packed { Some(u32::from_le_bytes(fields.array()?)) } else { None };
    Some(Content::Record(Stored { ordinal, key, lsn, chain, anew, packed, bytes: fields.0 }))
}

/// Writes frames that are to stand one behind the other from `offset` on.
pub(crate) struct FrameWriter {
    salt: u64,
    offset: u64,
    out: Vec<u8>,
    packing: Packing,
}

impl FrameWriter {
    pub fn new(salt: u64, offset: u64, mut out: Vec<u8>, packing: Packing) -> Self {
        out.clear();
        Self { salt, offset, out, packing }
    }

    /// Where the next frame will stand in the file.
    pub fn offset(&self) -> u64 {
        self.offset + self.out.len() as u64
    }

    pub fn bytes(&self) -> &[u8] {
        &self.out
    }

    /// The buffer, to be used again, and what bodies behind these may be told from once these are durable.
    pub fn into_parts(self) -> (Vec<u8>, Packing) {
        (self.out, self.packing)
    }

    pub fn stream(&mut self, key: StreamKey, stream: &StreamId) {
        let site = stream.site.as_str().as_bytes();
        self.frame(KIND_STREAM, STREAM_HEAD_BYTES + site.len(), |out| {
            out.extend_from_slice(&key.0);
            out.extend_from_slice(&stream.node.0);
            out.extend_from_slice(&stream.run.0.to_le_bytes());
            out.extend_from_slice(site);
        });
    }

    /// Writes a record; whether a walk may begin at it, and whether its points are known to make its body when they are written again.
    pub fn record(&mut self, ordinal: u32, record: &RecordFrame<'_>) -> (bool, bool) {
        let mut packing = std::mem::take(&mut self.packing);
        let (anew, packed) = packing.pack(self.offset(), record.body);
        let is_canonical = matches!(packed, Some((_, Spelling::Canonical)));
        let packed = packed.map(|(bytes, _)| bytes);
        let flag = if anew { ANEW } else { 0 };
        let crc = packed.map(|_| crc32fast::hash(record.body).to_le_bytes());
        let (kind, crc) = crc.as_ref().map_or((KIND_RECORD, &[][..]), |crc| (KIND_PACKED, crc));
        let bytes = packed.unwrap_or(record.body);
        self.frame(kind | flag, RECORD_HEAD_BYTES + crc.len() + bytes.len(), |out| {
            out.extend_from_slice(&ordinal.to_le_bytes());
            out.extend_from_slice(&record.key.0);
            out.extend_from_slice(&record.lsn.0.to_le_bytes());
            out.extend_from_slice(&record.chain.0);
            out.extend_from_slice(crc);
            out.extend_from_slice(bytes);
        });
        self.packing = packing;
        (anew, is_canonical)
    }

    /// Invariant: `length` is within [`CONTENT_BYTES_MAX`]; bodies are bounded where they enter the store.
    fn frame(&mut self, kind: u8, length: usize, fill: impl FnOnce(&mut Vec<u8>)) {
        debug_assert!(length <= CONTENT_BYTES_MAX);
        let first = if self.out.is_empty() { FIRST_OF_COMMIT } else { 0 };
        let offset = self.offset();
        let start = self.out.len();
        let length = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
        self.out.extend_from_slice(&length);
        self.out.extend_from_slice(&[0; 4]);
        self.out.push(kind | first);
        fill(&mut self.out);
        let content = self.out.get(start + FRAME_HEAD_BYTES..).unwrap_or_default();
        let crc = checksum(self.salt, offset, length, content).to_le_bytes();
        if let Some(field) = self.out.get_mut(start + 4..start + 8) {
            field.copy_from_slice(&crc);
        }
    }
}

/// Takes fields off the front of a slice; `None` when it is too short.
pub(crate) struct Fields<'a>(pub &'a [u8]);

impl Fields<'_> {
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}
