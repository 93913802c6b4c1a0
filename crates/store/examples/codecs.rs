//! Compares numeric codecs on sensor readings: the bytes and nanoseconds that a point costs in each, by data set.
//!
//! `cargo run --release -p tidelog-store --example codecs -- [FILE.csv.gz]...`; without files, the made field only. A file has
//! the columns `time_unix_ms,device,metric,value`. Values are taken series by series in order of time, as segments hold them.
//! docs/decisions/0007-numeric-codec.md draws the conclusion.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::time::Instant;

use bitpacking::{BitPacker, BitPacker4x};
use pco::wrapped::{FileCompressor, FileDecompressor};
use pco::{ChunkConfig, DeltaSpec, ModeSpec, PagingSpec};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

type Failure = Box<dyn Error>;

/// Values that are encoded as one.
const CHUNK_VALUES: usize = 8_192;
/// Values that are decoded as one.
const PAGE_VALUES: usize = 1_024;
/// Largest power of ten that a decimal is looked for under.
const SCALE_MAX: i32 = 9;

/// One data set: floats by series, and the same as scaled integers where all of a series' values are decimal.
struct Set {
    name: String,
    decimals: Vec<Vec<i64>>,
    floats: Vec<Vec<f64>>,
}

fn main() -> Result<(), Failure> {
    let mut sets = vec![made_field()];
    for path in std::env::args().skip(1) {
        sets.push(read(&path)?);
    }
    for set in &sets {
        let ints: usize = set.decimals.iter().map(Vec::len).sum();
        let floats: usize = set.floats.iter().map(Vec::len).sum();
        println!("\n{}: {ints} decimal values, {floats} other floats", set.name);
        println!("{:<34}{:>12}{:>12}{:>12}", "codec", "bytes/value", "encode ns", "decode ns");
        if ints > 0 {
            let deltas: Vec<Vec<i64>> = set.decimals.iter().map(|series| deltas(series)).collect();
            let flat: Vec<i64> = deltas.concat();
            println!("{:<34}{:>12.4}", "(entropy of the differences)", entropy(&flat) / 8.0);
            for level in [2, 4, 6, 8, 10] {
                let config = ChunkConfig::default().with_compression_level(level);
                let config = config.with_mode_spec(ModeSpec::Classic).with_delta_spec(DeltaSpec::NoOp);
                measure(
                    &format!("pco level {level}, own differences"),
                    &flat,
                    |v| with_pco(v, &config),
                    from_pco,
                )?;
            }
            let auto = ChunkConfig::default();
            measure("pco level 8, own choice", &set.decimals.concat(), |v| with_pco(v, &auto), from_pco)?;
            measure("bitpacking, 128 a block", &flat, packed, unpacked)?;
            measure("deflate 6 of varint differences", &flat, deflated, inflated)?;
        }
        if floats > 0 {
            let flat = set.floats.concat();
            let bits: Vec<i64> = flat.iter().map(|v| ordered(*v)).collect();
            let classic = ChunkConfig::default().with_mode_spec(ModeSpec::Classic);
            let none = classic.clone().with_delta_spec(DeltaSpec::NoOp);
            measure("pco f64, own choice", &flat, |v| with_pco(v, &ChunkConfig::default()), from_pco)?;
            let dict =
                ChunkConfig::default().with_mode_spec(ModeSpec::TryDict).with_delta_spec(DeltaSpec::NoOp);
            measure("pco f64, dictionary", &flat, |v| with_pco(v, &dict), from_pco)?;
            measure("pco f64 classic, no differences", &flat, |v| with_pco(v, &none), from_pco)?;
            measure("pco ordered bits, classic", &bits, |v| with_pco(v, &classic), from_pco)?;
            for (name, delta) in [
                ("pco ordered bits, none", DeltaSpec::NoOp),
                ("pco ordered bits, differences", DeltaSpec::TryConsecutive(1)),
                ("pco ordered bits, lookback", DeltaSpec::TryLookback),
            ] {
                let config = classic.clone().with_delta_spec(delta);
                measure(name, &bits, |v| with_pco(v, &config), from_pco)?;
            }
            let config = ChunkConfig::default()
                .with_mode_spec(ModeSpec::TryDict)
                .with_delta_spec(DeltaSpec::TryLookback);
            measure("pco ordered bits, dict lookback", &bits, |v| with_pco(v, &config), from_pco)?;
            measure("deflate 6 of the bytes", &flat, deflated_floats, inflated_floats)?;
        }
    }
    Ok(())
}

fn measure<T: PartialEq>(
    name: &str,
    values: &[T],
    encode: impl Fn(&[T]) -> Result<Vec<u8>, Failure>,
    decode: impl Fn(&[u8], usize) -> Result<Vec<T>, Failure>,
) -> Result<(), Failure> {
    let count = values.len() as f64;
    let began = Instant::now();
    let chunks: Vec<Vec<u8>> = values.chunks(CHUNK_VALUES).map(encode).collect::<Result<_, _>>()?;
    let encode_ns = began.elapsed().as_nanos() as f64 / count;
    let mut wrong = 0;
    let mut decode_ns = 0.0;
    for (bytes, values) in chunks.iter().zip(values.chunks(CHUNK_VALUES)) {
        let began = Instant::now();
        let back = decode(bytes, values.len())?;
        decode_ns += began.elapsed().as_nanos() as f64 / count;
        wrong += usize::from(back != values);
    }
    let bytes: usize = chunks.iter().map(Vec::len).sum();
    let note = if wrong > 0 { "  NOT READ BACK" } else { "" };
    println!("{name:<34}{:>12.4}{encode_ns:>12.1}{decode_ns:>12.1}{note}", bytes as f64 / count);
    Ok(())
}

fn with_pco<T: pco::data_types::Number>(values: &[T], config: &ChunkConfig) -> Result<Vec<u8>, Failure> {
    let mut pages = vec![PAGE_VALUES; values.len() / PAGE_VALUES];
    if !values.len().is_multiple_of(PAGE_VALUES) {
        pages.push(values.len() % PAGE_VALUES);
    }
    let config = config.clone().with_paging_spec(PagingSpec::Exact(pages));
    let mut chunk = FileCompressor::default().chunk_compressor(values, &config)?;
    let mut out = FileCompressor::default().write_header(Vec::new())?;
    out = chunk.write_meta(out)?;
    for page in 0..chunk.n_per_page().len() {
        let mut bytes = chunk.write_page(page, Vec::new())?;
        out.extend_from_slice(&u16::try_from(bytes.len())?.to_le_bytes());
        out.append(&mut bytes);
    }
    Ok(out)
}

fn from_pco<T: pco::data_types::Number + Default>(bytes: &[u8], count: usize) -> Result<Vec<T>, Failure> {
    let (file, rest) = FileDecompressor::new(bytes)?;
    let (mut chunk, mut rest) = file.chunk_decompressor::<T, _>(rest)?;
    let mut values = vec![T::default(); count];
    for page in values.chunks_mut(PAGE_VALUES) {
        let (_, body) = rest.split_at_checked(2).ok_or("cut short")?;
        rest = chunk
            .page_decompressor(body, page.len())
            .and_then(|mut reader| reader.read(page).map(|_| reader.into_src()))?;
    }
    Ok(values)
}

/// Differences of a block as zigzag above nothing, packed in as many bits as the largest takes; wide ones in two halves.
fn packed(values: &[i64]) -> Result<Vec<u8>, Failure> {
    let packer = BitPacker4x::new();
    let mut out = Vec::new();
    let mut buffer = [0u8; 4 * BitPacker4x::BLOCK_LEN];
    for block in values.chunks(BitPacker4x::BLOCK_LEN) {
        let mut halves = [[0u32; BitPacker4x::BLOCK_LEN]; 2];
        for (i, value) in block.iter().enumerate() {
            let zigzag = ((value << 1) ^ (value >> 63)).cast_unsigned();
            halves[0][i] = u32::try_from(zigzag & 0xffff_ffff)?;
            halves[1][i] = u32::try_from(zigzag >> 32)?;
        }
        for half in &halves {
            let bits = packer.num_bits(half);
            out.push(bits);
            let length = packer.compress(half, &mut buffer, bits);
            out.extend_from_slice(buffer.get(..length).ok_or("too long")?);
        }
    }
    Ok(out)
}

fn unpacked(mut bytes: &[u8], count: usize) -> Result<Vec<i64>, Failure> {
    let packer = BitPacker4x::new();
    let mut values = Vec::with_capacity(count);
    while values.len() < count {
        let mut halves = [[0u32; BitPacker4x::BLOCK_LEN]; 2];
        for half in &mut halves {
            let (bits, rest) = bytes.split_first().ok_or("cut short")?;
            bytes = rest.get(packer.decompress(rest, half, *bits)..).ok_or("cut short")?;
        }
        for (low, high) in halves[0].iter().zip(&halves[1]).take(count - values.len()) {
            let zigzag = u64::from(*high) << 32 | u64::from(*low);
            values.push((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed());
        }
    }
    Ok(values)
}

fn deflated(values: &[i64]) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    for value in values {
        let mut zigzag = ((value << 1) ^ (value >> 63)).cast_unsigned();
        while zigzag >= 0x80 {
            bytes.push(zigzag.to_le_bytes()[0] | 0x80);
            zigzag >>= 7;
        }
        bytes.push(zigzag.to_le_bytes()[0]);
    }
    Ok(miniz_oxide::deflate::compress_to_vec(&bytes, 6))
}

fn inflated(bytes: &[u8], count: usize) -> Result<Vec<i64>, Failure> {
    let bytes = miniz_oxide::inflate::decompress_to_vec(bytes).map_err(|_| "not deflate")?;
    let mut values = Vec::with_capacity(count);
    let (mut zigzag, mut shift) = (0u64, 0u32);
    for byte in bytes {
        zigzag |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            values.push((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed());
            (zigzag, shift) = (0, 0);
        }
    }
    Ok(values)
}

fn deflated_floats(values: &[f64]) -> Result<Vec<u8>, Failure> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Ok(miniz_oxide::deflate::compress_to_vec(&bytes, 6))
}

fn inflated_floats(bytes: &[u8], _: usize) -> Result<Vec<f64>, Failure> {
    let bytes = miniz_oxide::inflate::decompress_to_vec(bytes).map_err(|_| "not deflate")?;
    bytes.chunks_exact(8).map(|eight| Ok(f64::from_le_bytes(eight.try_into()?))).collect()
}

fn ordered(value: f64) -> i64 {
    let bits = value.to_bits().cast_signed();
    if bits < 0 { !bits ^ i64::MIN } else { bits }
}

fn deltas(values: &[i64]) -> Vec<i64> {
    values.windows(2).filter_map(|pair| Some(pair.get(1)?.wrapping_sub(*pair.first()?))).collect()
}

fn entropy(values: &[i64]) -> f64 {
    let mut counts: BTreeMap<i64, usize> = BTreeMap::new();
    values.iter().for_each(|value| *counts.entry(*value).or_default() += 1);
    let all = values.len() as f64;
    counts.values().map(|count| *count as f64 / all).map(|share| -share * share.log2()).sum()
}

/// A thousand devices with four metrics; 250 samples of each.
fn made_field() -> Set {
    let mut dice = StdRng::seed_from_u64(1);
    let mut series: Vec<Vec<i64>> = vec![Vec::new(); 4_000];
    for device in 0..1_000 {
        let (mut temperature, mut humidity) = (dice.random_range(1_500..2_500), dice.random_range(300..700));
        let (mut battery, mut light, mut lit) = (dice.random_range(3_300..3_600), 0i64, 0u32);
        for _ in 0..250 {
            temperature += dice.random_range(-2..=2);
            humidity += dice.random_range(-1..=1);
            battery -= i64::from(dice.random_range(0..500) == 0);
            match (lit, dice.random_range(0..200)) {
                (0, 0) => (lit, light) = (dice.random_range(5..100), dice.random_range(50..2_000)),
                (0, _) => light = 0,
                _ => (lit, light) = (lit - 1, (light + dice.random_range(-20..=20)).max(1)),
            }
            for (metric, value) in [battery, humidity, light, temperature].into_iter().enumerate() {
                series[metric * 1_000 + device].push(value);
            }
        }
    }
    Set { name: "made field".into(), decimals: series, floats: Vec::new() }
}

fn read(path: &str) -> Result<Set, Failure> {
    let mut rows: BTreeMap<(String, String), Vec<(i64, f64)>> = BTreeMap::new();
    for row in csv::Reader::from_reader(flate2::read::MultiGzDecoder::new(File::open(path)?)).records() {
        let row = row?;
        let field = |i: usize| row.get(i).ok_or("a field is missing");
        let name = (field(2)?.to_owned(), field(1)?.to_owned());
        rows.entry(name).or_default().push((field(0)?.parse()?, field(3)?.parse()?));
    }
    let mut set = Set { name: path.into(), decimals: Vec::new(), floats: Vec::new() };
    for mut points in rows.into_values() {
        points.sort_by_key(|(time, _)| *time);
        let values: Vec<f64> = points.into_iter().map(|(_, value)| value).collect();
        match (0..=SCALE_MAX).find_map(|scale| values.iter().map(|v| scaled(*v, scale)).collect()) {
            Some(whole) => set.decimals.push(whole),
            None => set.floats.push(values),
        }
    }
    Ok(set)
}

#[expect(clippy::cast_possible_truncation, reason = "checked against 1e15 before")]
fn scaled(value: f64, scale: i32) -> Option<i64> {
    let power = 10f64.powi(scale);
    let whole = (value * power).round();
    (whole.abs() < 1e15 && (whole / power).to_bits() == value.to_bits()).then_some(whole as i64)
}
