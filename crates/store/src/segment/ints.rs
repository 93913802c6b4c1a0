//! Columns of whole numbers: `pco` for many, varints for few, one number where all are equal. The codec and its level are
//! decided in docs/decisions/0007-numeric-codec.md; nothing else in the store calls it.

use pco::wrapped::{ChunkDecompressor, FileCompressor, FileDecompressor};
use pco::{ChunkConfig, DecompressorScratch, DeltaSpec, ModeSpec, PagingSpec};

use super::bytes::{Cut, Malformed, put_bytes, put_i64, put_len, u64_len, zigzag};

/// `pco`'s effort: past 8 nothing gets smaller.
const LEVEL: usize = 8;
/// Fewer numbers than this are not worth a table of bins.
const PCO_VALUES_MIN: usize = 12;

const ALL_EQUAL: u8 = 0;
const VARINTS: u8 = 1;
const PACKED: u8 = 2;

/// How the numbers of a chunk lie to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kinship {
    /// They are differences, or as good as that.
    None,
    /// Differences that may come in a round, as they do where every point stands twice: looked at before it is tried.
    Steps,
    /// Few, and often in a round: both are tried.
    Rounds,
    /// Many stand a second time, or near to one that stood before: bits of floats.
    Lookback,
}

fn config(lookback: bool, pages: &[usize]) -> ChunkConfig {
    // Said and not searched for: a search compares estimates in floating point, and logarithms differ between C libraries.
    let delta = if lookback { DeltaSpec::TryLookback } else { DeltaSpec::NoOp };
    ChunkConfig::default()
        .with_compression_level(LEVEL)
        .with_mode_spec(ModeSpec::Classic)
        .with_delta_spec(delta)
        .with_paging_spec(PagingSpec::Exact(pages.to_vec()))
}

/// The bytes of one chunk: what is common to its pages, then the pages. `pages` are their lengths in numbers, none of them zero.
/// `None` when the codec refuses, which it does for bad lengths only.
pub(super) fn chunk(values: &[i64], pages: &[usize], kinship: Kinship) -> Option<Vec<u8>> {
    if kinship == Kinship::Lookback {
        return chunk_as(values, pages, true);
    }
    let plain = chunk_as(values, pages, false)?;
    let try_rounds = match kinship {
        Kinship::None | Kinship::Lookback => false,
        Kinship::Steps => comes_round(values, plain.len()),
        Kinship::Rounds => true,
    };
    let rounds = if try_rounds { chunk_as(values, pages, true) } else { None };
    Some(rounds.filter(|rounds| rounds.len() < plain.len()).unwrap_or(plain))
}

/// Numbers told apart in looking for rounds.
const TOLD_APART: usize = 64;
/// Longest round that is looked for.
const ROUND_MAX: usize = 4;
/// Numbers that take less than a byte for so many are small enough.
const SMALL_ENOUGH: usize = 16;

/// Whether numbers equal those a few places before more often than chance would have it: half as many differ as would if each were drawn
/// alone. In whole numbers, because the bytes follow from it.
fn comes_round(values: &[i64], bytes: usize) -> bool {
    if bytes.saturating_mul(SMALL_ENOUGH) < values.len() {
        return false;
    }
    let mut counts = [0u64; TOLD_APART];
    for value in values {
        let slot = usize::try_from(zigzag(*value)).ok().and_then(|slot| counts.get_mut(slot));
        if let Some(count) = slot {
            *count += 1;
        }
    }
    let all = values.len() as u64;
    let differ_by_chance = (all * all).saturating_sub(counts.iter().map(|count| count * count).sum());
    (1..=ROUND_MAX).any(|round| {
        let differ = values.iter().skip(round).zip(values).filter(|(b, a)| a != b).count() as u64;
        differ.saturating_mul(all).saturating_mul(2) < differ_by_chance
    })
}

fn chunk_as(values: &[i64], pages: &[usize], lookback: bool) -> Option<Vec<u8>> {
    let file = FileCompressor::default();
    let mut chunk = file.chunk_compressor(values, &config(lookback, pages)).ok()?;
    let common = chunk.write_meta(file.write_header(Vec::new()).ok()?).ok()?;
    let mut bodies = Vec::new();
    let mut out = Vec::new();
    put_len(&mut out, pages.len());
    for (index, count) in pages.iter().enumerate() {
        let before = bodies.len();
        bodies = chunk.write_page(index, bodies).ok()?;
        put_len(&mut out, *count);
        put_len(&mut out, bodies.len() - before);
    }
    put_bytes(&mut out, &common);
    out.extend_from_slice(&bodies);
    Some(out)
}

/// One page of a chunk.
#[derive(Clone, Copy, Debug)]
struct Page {
    count: usize,
    at: usize,
    length: usize,
}

/// A chunk that is ready to be read page by page.
pub(super) struct Chunk {
    bytes: Vec<u8>,
    pages: Vec<Page>,
    decoder: ChunkDecompressor<i64>,
}

/// What decoding works in; to be used again.
#[derive(Default)]
pub(super) struct Scratch(DecompressorScratch);

/// Most numbers in a page: one section, however many repeats of one time are in it.
pub(super) const PAGE_VALUES_MAX: usize = 1 << 24;
/// Most pages of a chunk.
const PAGES_MAX: usize = 1 << 16;
/// What a decoder holds beside its bytes, about.
const DECODER_BYTES: usize = 6 * 1024;

impl Chunk {
    pub fn open(bytes: Vec<u8>) -> Result<Self, Malformed> {
        let mut cut = Cut(&bytes);
        let count = cut.count(PAGES_MAX.min(bytes.len() / 2))?;
        let mut lengths = Vec::with_capacity(count);
        for _ in 0..count {
            lengths.push((cut.count(PAGE_VALUES_MAX)?, cut.count(bytes.len())?));
        }
        let common = cut.bytes()?;
        let mut at = bytes.len() - cut.0.len();
        let mut pages = Vec::with_capacity(count);
        for (count, length) in lengths {
            pages.push(Page { count, at, length });
            at = at.checked_add(length).ok_or(Malformed)?;
        }
        if at != bytes.len() {
            return Err(Malformed);
        }
        let (file, rest) = FileDecompressor::new(common).map_err(|_| Malformed)?;
        let (decoder, rest) = file.chunk_decompressor(rest).map_err(|_| Malformed)?;
        if rest.is_empty() { Ok(Self { pages, decoder, bytes }) } else { Err(Malformed) }
    }

    /// Bytes of memory that it takes, about.
    pub fn weight(&self) -> usize {
        self.bytes.len() + self.pages.len() * size_of::<Page>() + DECODER_BYTES
    }

    /// Numbers in a page, if there is such a page.
    pub fn page_len(&self, page: u32) -> Option<usize> {
        self.pages.get(page as usize).map(|page| page.count)
    }

    /// Decodes a page into `out`, which is emptied first.
    pub fn page(&self, page: u32, scratch: &mut Scratch, out: &mut Vec<i64>) -> Result<(), Malformed> {
        let page = self.pages.get(page as usize).ok_or(Malformed)?;
        let bytes = self.bytes.get(page.at..page.at + page.length).ok_or(Malformed)?;
        out.clear();
        out.resize(page.count, 0);
        let mut reader = self
            .decoder
            .page_decompressor_with_scratch(bytes, page.count, &mut scratch.0)
            .map_err(|_| Malformed)?;
        let progress = reader.read(out).map_err(|_| Malformed)?;
        if progress.finished && progress.n_processed == page.count { Ok(()) } else { Err(Malformed) }
    }
}

/// A column whose length the reader knows.
pub(super) fn put_ints(out: &mut Vec<u8>, values: &[i64]) {
    let Some(first) = values.first() else { return };
    if values.iter().all(|value| value == first) {
        out.push(ALL_EQUAL);
        put_i64(out, *first);
        return;
    }
    let plain: usize = values.iter().map(|value| u64_len(zigzag(*value))).sum();
    if values.len() >= PCO_VALUES_MIN
        && let Some(packed) = chunk(values, &[values.len()], Kinship::None)
        && packed.len() < plain
    {
        out.push(PACKED);
        put_bytes(out, &packed);
        return;
    }
    out.push(VARINTS);
    values.iter().for_each(|value| put_i64(out, *value));
}

/// Reads `count` numbers; the caller has bounded `count`.
pub(super) fn take_ints(cut: &mut Cut<'_>, count: usize) -> Result<Vec<i64>, Malformed> {
    if count == 0 {
        return Ok(Vec::new());
    }
    match cut.u8()? {
        ALL_EQUAL => Ok(vec![cut.i64()?; count]),
        VARINTS => {
            if count > cut.0.len() {
                return Err(Malformed);
            }
            (0..count).map(|_| cut.i64()).collect()
        }
        PACKED => {
            let chunk = Chunk::open(cut.bytes()?.to_vec())?;
            if chunk.page_len(0) != Some(count) {
                return Err(Malformed);
            }
            let mut out = Vec::new();
            chunk.page(0, &mut Scratch::default(), &mut out)?;
            Ok(out)
        }
        _ => Err(Malformed),
    }
}
