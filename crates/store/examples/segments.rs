//! Seals and merges a field of sensors, or recorded readings, and prints what a point costs: bytes by part of the file, and nanoseconds.
//!
//! `cargo run --release -p tidelog-store --example segments -- [--points N] [--part N] [--late PERCENT] [--twice PERCENT]
//! [FILE.csv.gz]...`; a part is what an author seals at once.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tidelog_record::{BodyHead, BodyWriter, ChainHash, Lsn, NodeId, Run, Series, StreamId, Value, Values};
use tidelog_store::DiskFile;
use tidelog_store::segment::{Cache, Segment, SeriesRef, Span, merge, merged_span, seal};

type Failure = Box<dyn Error>;
type Sample = (usize, i64, Value);

/// Points after which an author seals, unless it is said.
const PART_POINTS: usize = 2 << 20;
/// Parts that are merged.
const PARTS: usize = 16;
/// Points of a record: five thousand lines of four.
const RECORD_POINTS: usize = 20_000;

#[derive(Debug)]
struct MemoryFile(Mutex<Vec<u8>>);

impl DiskFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.0.lock().map_err(|_| io::Error::other("poisoned"))?;
        let rest = usize::try_from(offset).ok().and_then(|from| bytes.get(from..)).unwrap_or_default();
        let count = buffer.len().min(rest.len());
        buffer.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        Ok(count)
    }
    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::Error::other("read only"))
    }
    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::Error::other("read only"))
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().map_err(|_| io::Error::other("poisoned"))?.len() as u64)
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

fn main() -> Result<(), Failure> {
    let (mut points, mut part, mut late, mut twice, mut files) =
        (10_000_000usize, PART_POINTS, 0u32, 0u32, Vec::new());
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next().ok_or("a number is missing");
        match word.as_str() {
            "--points" => points = number()?.parse()?,
            "--part" => part = number()?.parse::<usize>()?.max(RECORD_POINTS),
            "--late" => late = number()?.parse()?,
            "--twice" => twice = number()?.parse()?,
            _ => files.push(word),
        }
    }
    if files.is_empty() {
        let (names, samples) = field(points, late, twice)?;
        return measure("made field", part, &names, samples.into_iter());
    }
    for file in files {
        let (names, samples) = recorded(&file)?;
        measure(&file, part, &names, samples.into_iter())?;
    }
    Ok(())
}

fn field(points: usize, late: u32, twice: u32) -> Result<(Vec<Series>, Vec<Sample>), Failure> {
    const DEVICES: usize = 1_000;
    const LATE_LINES: usize = 20_000;
    let mut dice = StdRng::seed_from_u64(1);
    let mut names = Vec::new();
    for device in 0..DEVICES {
        for metric in ["env_temperature", "env_humidity", "env_battery", "env_light"] {
            names.push(Series::new(metric, [("device", format!("d{device:04}"))])?);
        }
    }
    let mut devices: Vec<[i64; 5]> = Vec::new();
    for _ in 0..DEVICES {
        devices.push([
            dice.random_range(1_500..2_500),
            dice.random_range(300..700),
            dice.random_range(3_300..3_600),
            0,
            0,
        ]);
    }
    let (mut samples, mut held) = (Vec::with_capacity(points), Vec::new());
    for sample in 0i64.. {
        if samples.len() >= points {
            break;
        }
        let time = 1_795_219_200_000_000_000 + sample * 10_000_000_000;
        for (number, device) in devices.iter_mut().enumerate() {
            let [temperature, humidity, battery, light, lit] = device;
            *temperature += dice.random_range(-2..=2);
            *humidity = (*humidity + dice.random_range(-1..=1)).clamp(0, 1_000);
            *battery -= i64::from(dice.random_range(0..500) == 0);
            match (*lit, dice.random_range(0..200)) {
                (0, 0) => (*lit, *light) = (dice.random_range(5..100), dice.random_range(50..2_000)),
                (0, _) => *light = 0,
                _ => (*lit, *light) = (*lit - 1, (*light + dice.random_range(-20..=20)).max(1)),
            }
            let line = [
                (number * 4, time, Value::F64(*temperature as f64 / 100.0)),
                (number * 4 + 1, time, Value::F64(*humidity as f64 / 10.0)),
                (number * 4 + 2, time, Value::I64(*battery)),
                (number * 4 + 3, time, Value::I64(*light)),
            ];
            if held.len() >= LATE_LINES {
                held.drain(..).rev().for_each(|line: [Sample; 4]| samples.extend(line));
            }
            if late > 0 && dice.random_range(0..100) < late {
                held.push(line);
                continue;
            }
            if twice > 0 && dice.random_range(0..100) < twice {
                samples.extend(line.clone());
            }
            samples.extend(line);
        }
    }
    held.into_iter().rev().for_each(|line| samples.extend(line));
    Ok((names, samples))
}

fn recorded(path: &str) -> Result<(Vec<Series>, Vec<Sample>), Failure> {
    let mut numbers: BTreeMap<Series, usize> = BTreeMap::new();
    let (mut names, mut samples) = (Vec::new(), Vec::new());
    for row in csv::Reader::from_reader(flate2::read::MultiGzDecoder::new(File::open(path)?)).records() {
        let row = row?;
        let cell = |index: usize| row.get(index).ok_or("a field is missing");
        let series = Series::new(cell(2)?, [("device", cell(1)?)])?;
        let number = *numbers.entry(series.clone()).or_insert_with(|| {
            names.push(series);
            names.len() - 1
        });
        samples.push((number, cell(0)?.parse::<i64>()? * 1_000_000, Value::F64(cell(3)?.parse()?)));
    }
    Ok((names, samples))
}

/// A record's body: entries by series in the order they come first.
fn body(names: &[Series], samples: &[Sample]) -> Result<Vec<u8>, Failure> {
    let mut places: BTreeMap<usize, usize> = BTreeMap::new();
    let mut entries: Vec<(usize, Vec<i64>, Values)> = Vec::new();
    for (series, time, value) in samples {
        let place = *places.entry(*series).or_insert(entries.len());
        if place == entries.len() {
            entries.push((*series, Vec::new(), Values::default()));
        }
        let entry = entries.get_mut(place).ok_or("no entry")?;
        entry.1.push(*time);
        entry.2.push(value.clone());
    }
    let head = BodyHead {
        authored_ms: samples.first().map_or(0, |(_, time, _)| time / 1_000_000),
        ..BodyHead::default()
    };
    let mut writer = BodyWriter::new(head, entries.len());
    for (series, times, values) in &entries {
        writer.entry(&names.get(*series).ok_or("no name")?.canonical(), times, values)?;
    }
    Ok(writer.finish()?)
}

/// Nanoseconds of processor time so far, where the kernel tells (others run on this machine too); else of the clock.
fn spent_ns() -> f64 {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    let told = std::fs::read_to_string("/proc/self/schedstat").ok();
    let told = told.and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    told.unwrap_or_else(|| BEGAN.get_or_init(Instant::now).elapsed().as_nanos() as f64)
}

fn open(file: Vec<u8>, cache: &Arc<Cache>) -> Result<Arc<Segment>, Failure> {
    Ok(Arc::new(Segment::open(Arc::new(MemoryFile(Mutex::new(file))), Arc::clone(cache))?))
}

fn print(name: &str, segments: &[Arc<Segment>], ns: f64) {
    let points: u64 = segments.iter().map(|segment| segment.points()).sum();
    let bytes: u64 = segments.iter().map(|segment| segment.bytes()).sum();
    let mut parts: BTreeMap<&str, u64> = BTreeMap::new();
    for segment in segments {
        segment
            .bytes_by_kind()
            .into_iter()
            .for_each(|(kind, bytes)| *parts.entry(kind).or_default() += bytes);
    }
    let each = |bytes: u64| bytes as f64 / points as f64;
    let parts: Vec<String> =
        parts.into_iter().map(|(kind, bytes)| format!("{kind} {:.4}", each(bytes))).collect();
    println!(
        "{name}: {} files, {:.4} bytes/point, {ns:.1} ns/point  ({})",
        segments.len(),
        each(bytes),
        parts.join(", ")
    );
}

fn measure(
    title: &str,
    part_points: usize,
    names: &[Series],
    samples: impl Iterator<Item = Sample>,
) -> Result<(), Failure> {
    let samples: Vec<Sample> = samples.collect();
    let points = samples.len();
    println!("\n{title}: {points} points, {} series", names.len());
    let bodies: Vec<Vec<u8>> =
        samples.chunks(RECORD_POINTS).map(|part| body(names, part)).collect::<Result<_, _>>()?;
    drop(samples);
    println!("bodies: {:.4} bytes/point", bodies.iter().map(Vec::len).sum::<usize>() as f64 / points as f64);

    let cache = Arc::new(Cache::new(64 * 1024 * 1024));
    let stream = StreamId { site: "plant".parse()?, node: NodeId([1; 16]), run: Run(1) };
    let key = stream.key();
    let (mut lsn, mut chain, mut raw) = (Lsn(1), ChainHash::GENESIS, Vec::new());
    let mut spent = 0.0;
    for (ordinal, part) in (0u64..).zip(bodies.chunks(part_points / RECORD_POINTS)) {
        let mut span = Span {
            stream: stream.clone(),
            ordinal,
            parts: 1,
            first: lsn,
            last: lsn,
            before: chain,
            after: chain,
        };
        for body in part {
            chain = chain.after(&key, lsn, body);
            (span.last, span.after) = (lsn, chain);
            lsn = Lsn(lsn.0 + 1);
        }
        let mut file = Vec::new();
        let mut next = part.iter().cloned();
        let began = spent_ns();
        seal(&span, &mut || Ok(next.next()), &mut |bytes| {
            file.extend_from_slice(bytes);
            Ok(())
        })?;
        spent += spent_ns() - began;
        raw.push(open(file, &cache)?);
    }
    print("sealed", &raw, spent / points as f64);

    for (name, group) in [("merged by 16", PARTS), ("merged whole", raw.len().max(1))] {
        let mut merged = Vec::new();
        let began = spent_ns();
        for parts in raw.chunks(group) {
            merged_span(parts)?;
            let mut file = Vec::new();
            merge(parts, &mut |bytes| {
                file.extend_from_slice(bytes);
                Ok(())
            })?;
            merged.push(open(file, &cache)?);
        }
        print(name, &merged, (spent_ns() - began) / points as f64);
        if group == PARTS {
            ask(&merged)?;
        }
    }
    Ok(())
}

fn ask(segments: &[Arc<Segment>]) -> Result<(), Failure> {
    let Some(segment) = segments.first() else { return Ok(()) };
    let mut all: Vec<(Vec<u8>, SeriesRef)> = Vec::new();
    segment.each_series(|name, at, _| all.push((name.to_vec(), at)))?;
    let count = all.len() as f64;
    let us = |began: Instant| began.elapsed().as_nanos() as f64 / 1e3;

    let began = Instant::now();
    segment.each_series(|_, _, whole| {
        std::hint::black_box(whole.last_ts);
    })?;
    println!("  each_series over {count} series, warm: {:.0} us", us(began));
    let series: Vec<Arc<Series>> =
        all.iter().map(|(name, _)| Series::from_canonical(name).map(Arc::new)).collect::<Result<_, _>>()?;
    let began = Instant::now();
    segment.find_many(&series)?;
    println!("  find_many of all, warm: {:.0} us", us(began));
    let began = Instant::now();
    for (name, _) in &all {
        std::hint::black_box(segment.find(name)?);
    }
    println!("  find, warm: {:.2} us", us(began) / count);
    let (mut times, mut values) = (Vec::new(), Values::default());
    for round in ["cold", "warm"] {
        let began = Instant::now();
        let mut points = 0;
        for (_, at) in all.iter().step_by(7) {
            times.clear();
            values.clear();
            std::hint::black_box(segment.sections(*at)?);
            segment.read(*at, 0..1, &mut times, &mut values)?;
            points += times.len();
        }
        let reads = all.iter().step_by(7).count() as f64;
        println!(
            "  sections and one section of {:.0} points, {round}: {:.2} us",
            points as f64 / reads,
            us(began) / reads
        );
    }
    let began = Instant::now();
    for (_, at) in &all {
        times.clear();
        values.clear();
        segment.read(*at, 0..usize::MAX, &mut times, &mut values)?;
    }
    println!("  reading everything: {:.2} ns/point", us(began) * 1e3 / segment.points() as f64);
    let began = Instant::now();
    segment.verify(None, &mut |_| ControlFlow::Continue(()))?;
    println!("  verifying everything: {:.1} ns/point", us(began) * 1e3 / segment.points() as f64);
    Ok(())
}
