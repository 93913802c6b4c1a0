//! The bytes of a log file: its header and its frames (docs/FORMAT.md). Knows no file and no index.
//!
//! ```text
//! file    := header | header | { frame }               the header stands twice: one rotten bit costs no file
//! header  := magic 8 | version u16 | 0 u16 | 0 u32 | node 16 | run u64 | first position u64 | salt u64 | 0 u32 | crc u32
//! frame   := length u32 | crc u32 | content            crc over salt u64 | offset of the frame u64 | length | content
//! content := kind u8 | ...                             bit 7 of kind: the first frame of a commit
//! kind 1  := key 16 | node 16 | run u64 | site         a stream, before its first record in the file
//! kind 2  := ordinal u32 | key 16 | lsn u64 | chain 16 | body
//! ```
//! All numbers little-endian. Salt and offset in the checksum find a block that was written to, or read from, the wrong
//! place, and bytes inside a body that look like a frame.

use tidelog_record::{
    BATCH_BYTES_MAX, ChainHash, Lsn, NodeId, Run, SITE_NAME_BYTES_MAX, StreamId, StreamKey,
};

pub(crate) const VERSION: u16 = 1;
pub(crate) const HEADER_BYTES: usize = 64;
/// Where the first frame begins, in bytes.
pub(crate) const FRAMES_AT: u64 = 128;
pub(crate) const FRAME_HEAD_BYTES: usize = 8;
const RECORD_HEAD_BYTES: usize = 1 + 4 + 16 + 8 + 16;
const STREAM_HEAD_BYTES: usize = 1 + 16 + 16 + 8;
/// Longest content of a frame.
pub(crate) const CONTENT_BYTES_MAX: usize = RECORD_HEAD_BYTES + BATCH_BYTES_MAX;
/// Longest frame.
pub(crate) const FRAME_BYTES_MAX: usize = FRAME_HEAD_BYTES + CONTENT_BYTES_MAX;
/// What a record costs in the log beside its body.
pub(crate) const RECORD_OVERHEAD_BYTES: usize = FRAME_HEAD_BYTES + RECORD_HEAD_BYTES;

const MAGIC: [u8; 8] = *b"tidelog\n";
const KIND_STREAM: u8 = 1;
const KIND_RECORD: u8 = 2;
const FIRST_OF_COMMIT: u8 = 0x80;

/// What a file's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
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
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
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
            Some((magic, version, Self { node, run, first: fields.u64()?, salt: fields.u64()? }))
        };
        match read() {
            Some((MAGIC, VERSION, header)) => Ok(header),
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
    Record(RecordFrame<'a>),
    /// A kind that a newer version wrote: kept, not understood (invariant 15).
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordFrame<'a> {
    /// Position less the file's first position.
    pub ordinal: u32,
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
    let kind = bytes.get(FRAME_HEAD_BYTES).map(|kind| kind & !FIRST_OF_COMMIT);
    frame_bytes(bytes).is_ok_and(|whole| match kind {
        Some(KIND_STREAM) => whole <= FRAME_HEAD_BYTES + STREAM_HEAD_BYTES + SITE_NAME_BYTES_MAX,
        Some(KIND_RECORD) => whole >= RECORD_OVERHEAD_BYTES,
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
    let content = match kind & !FIRST_OF_COMMIT {
        KIND_STREAM => stream_content(rest),
        KIND_RECORD => record_content(rest),
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

fn record_content(bytes: &[u8]) -> Option<Content<'_>> {
    let mut fields = Fields(bytes);
    let ordinal = u32::from_le_bytes(fields.array()?);
    let key = StreamKey(fields.array()?);
    let lsn = Lsn(fields.u64()?);
    let chain = ChainHash(fields.array()?);
    Some(Content::Record(RecordFrame { ordinal, key, lsn, chain, body: fields.0 }))
}

/// Writes frames that are to stand one behind the other from `offset` on.
pub(crate) struct FrameWriter {
    salt: u64,
    offset: u64,
    out: Vec<u8>,
}

impl FrameWriter {
    pub fn new(salt: u64, offset: u64, mut out: Vec<u8>) -> Self {
        out.clear();
        Self { salt, offset, out }
    }

    /// Where the next frame will stand in the file.
    pub fn offset(&self) -> u64 {
        self.offset + self.out.len() as u64
    }

    pub fn bytes(&self) -> &[u8] {
        &self.out
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    /// The body of the record whose frame of `bytes` stands at `offset` of the file.
    pub fn body_at(&self, offset: u64, bytes: u64) -> &[u8] {
        let from = offset.checked_sub(self.offset).and_then(|from| usize::try_from(from).ok());
        let to = from.zip(usize::try_from(bytes).ok()).and_then(|(from, bytes)| from.checked_add(bytes));
        let whole = from.zip(to).and_then(|(from, to)| self.out.get(from..to)).unwrap_or_default();
        whole.get(RECORD_OVERHEAD_BYTES..).unwrap_or_default()
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

    pub fn record(&mut self, record: &RecordFrame<'_>) {
        self.frame(KIND_RECORD, RECORD_HEAD_BYTES + record.body.len(), |out| {
            out.extend_from_slice(&record.ordinal.to_le_bytes());
            out.extend_from_slice(&record.key.0);
            out.extend_from_slice(&record.lsn.0.to_le_bytes());
            out.extend_from_slice(&record.chain.0);
            out.extend_from_slice(record.body);
        });
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
