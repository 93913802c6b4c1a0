//! What the log of a simulated router would take in other codings, with a record each second of one point of each of 1,000 series: as
//! it is, deflated, and as columns that are told from the record before. Prints bytes a point; nothing is written anywhere.
//!
//! `cargo run --release -p tidelog-store --example logs -- [SECONDS]`

#[path = "router/field.rs"]
#[allow(dead_code, reason = "the router asks the field more")]
mod field;

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write as _;

use bitpacking::{BitPacker as _, BitPacker4x};
use field::Field;
use flate2::Compression;
use flate2::write::DeflateEncoder;
use tidelog_record::{BodyReader, Entry, Opened, Series, Value};

type Failure = Box<dyn Error>;

const SERIES: usize = 1_000;
/// Bytes of a frame around a body.
const FRAME_BYTES: usize = 33;

/// Each series' last value in its smallest decimal unit, and how often each step from one to the next came, by metric.
#[derive(Default)]
struct Columns {
    last: BTreeMap<Vec<u8>, i64>,
    steps: BTreeMap<String, BTreeMap<i64, u64>>,
}

impl Columns {
    /// The bytes of a body's values as steps from the record before, packed by 128 of a metric.
    fn packed(&mut self, body: &[u8]) -> Result<usize, Failure> {
        let mut steps: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        let Opened::Points(mut reader) = BodyReader::open(body)? else { return Ok(body.len()) };
        let mut entry = Entry::default();
        while reader.next(&mut entry)? {
            let metric = Series::from_canonical(&entry.canonical)?.metric().to_owned();
            for at in 0..entry.times.len() {
                let Some(Value::F64(value)) = entry.values.get(at) else { continue };
                #[allow(clippy::cast_possible_truncation, reason = "the field measures far less than 2^53")]
                let value = (value * 100.0).round() as i64;
                let before = self.last.insert(entry.canonical.clone(), value).unwrap_or_default();
                // Humidity in tenths, battery and light in ones.
                let unit = if metric.contains("temperature") {
                    1
                } else if metric.contains("humidity") {
                    10
                } else {
                    100
                };
                let step = (value - before) / unit;
                *self.steps.entry(metric.clone()).or_default().entry(step).or_default() += 1;
                steps.entry(metric.clone()).or_default().push(u32::try_from((step << 1) ^ (step >> 63))?);
            }
        }
        let packer = BitPacker4x::new();
        let mut bytes = 0;
        for steps in steps.values_mut() {
            steps.resize(steps.len().next_multiple_of(BitPacker4x::BLOCK_LEN), 0);
            for block in steps.chunks(BitPacker4x::BLOCK_LEN) {
                bytes += 1 + BitPacker4x::BLOCK_LEN * usize::from(packer.num_bits(block)) / 8;
            }
        }
        Ok(bytes + 12)
    }

    /// The least that any coding of the steps one by one takes, in bytes a point.
    fn entropy(&self) -> f64 {
        let (mut bits, mut points) = (0.0, 0u64);
        for steps in self.steps.values() {
            let all: u64 = steps.values().sum();
            points += all;
            #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
            for count in steps.values().map(|count| *count as f64) {
                bits -= count * (count / all as f64).log2();
            }
        }
        #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
        let points = points as f64;
        bits / 8.0 / points
    }
}

fn main() -> Result<(), Failure> {
    let seconds: usize = std::env::args().nth(1).map_or(Ok(3_600), |word| word.parse())?;
    let mut field = Field::new(SERIES, 1)?;
    let mut columns = Columns::default();
    let mut stream = DeflateEncoder::new(Vec::new(), Compression::default());
    let (mut plain, mut alone, mut packed) = (0usize, 0usize, 0usize);
    for _ in 0..seconds {
        field.measure();
        let body = field.record()?;
        plain += body.len() + FRAME_BYTES;
        let mut one = DeflateEncoder::new(Vec::new(), Compression::default());
        one.write_all(&body)?;
        alone += one.finish()?.len() + FRAME_BYTES;
        stream.write_all(&body)?;
        // Durable each second: what is not flushed is not on the disk.
        stream.flush()?;
        packed += columns.packed(&body)? + FRAME_BYTES;
    }
    let together = stream.finish()?.len() + seconds * FRAME_BYTES;
    #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
    let a_point = |bytes: usize| bytes as f64 / field.points() as f64;
    println!("{} points in {seconds} records; bytes of the log a point", field.points());
    println!("as it is                                {:.3}", a_point(plain));
    println!("each record deflated                    {:.3}", a_point(alone));
    println!("one deflate stream, flushed each second {:.3}", a_point(together));
    println!("steps from the record before, packed    {:.3}", a_point(packed));
    println!(
        "entropy of these steps, frames with it  {:.3}",
        columns.entropy() + a_point(seconds * FRAME_BYTES)
    );
    Ok(())
}
