//! A day in the life of a router: one store with a router's settings takes 1,000 series at one point a second each, seals, merges,
//! trims and is asked; then it is told what that cost.
//!
//! `cargo run --release -p tidelog-store --example router -- DIR [--hours N] [--series N] [--every N]
//! [--record-seconds N] [--memory-mib N]`. A day that was begun in DIR is gone on with. Time is simulated: seconds follow each other as fast as the store takes them.
//!
//! A gateway writes what it received within its commit interval as one record, because a record is the least that is durable at once
//! and its head costs fifty bytes. At an interval of one second that is one record of one point of each series. `--record-seconds 60` is
//! the other end: a gateway that may lose a minute.

mod cost;
mod field;

use std::error::Error;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cost::{MIB, Peaks, disk_bytes_written, file_bytes, heap_bytes, heap_bytes_most, resident_bytes};
use field::{Field, METRICS, SECOND_NS, START_NS};
use tidelog_record::{NodeId, Series, SiteName, Value};
use tidelog_store::{Store, StoreOptions};

type Failure = Box<dyn Error>;

/// Seconds between two looks at the newest values, and at one series' last hour.
const LOOK_EVERY_S: u64 = 600;
const HOUR_S: u64 = 3_600;
const HOUR_NS: i64 = HOUR_S.cast_signed() * SECOND_NS;

struct Settings {
    dir: PathBuf,
    hours: f64,
    series: usize,
    /// Seconds between two points of a series.
    every: usize,
    record_seconds: u64,
    memory_mib: usize,
}

impl Settings {
    fn read() -> Result<Self, Failure> {
        let mut dir = None;
        let mut settings = Self {
            dir: PathBuf::new(),
            hours: 1.0,
            series: 1_000,
            every: 1,
            record_seconds: 1,
            memory_mib: 4,
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or("a number is missing");
            match word.as_str() {
                "--hours" => settings.hours = value()?.parse()?,
                "--series" => settings.series = value()?.parse()?,
                "--every" => settings.every = value()?.parse()?,
                "--record-seconds" => settings.record_seconds = value()?.parse::<u64>()?.max(1),
                "--memory-mib" => settings.memory_mib = value()?.parse()?,
                _ if word.starts_with('-') => {
                    let known = "--hours, --series, --every, --record-seconds and --memory-mib";
                    return Err(
                        format!("{word}: the options are {known}, each with a number behind it").into()
                    );
                }
                _ => dir = Some(PathBuf::from(word)),
            }
        }
        settings.dir = dir.ok_or("say where: a folder that does not exist, or one of an earlier run")?;
        Ok(settings)
    }

    fn options(&self) -> StoreOptions {
        let mut options = StoreOptions::new(NodeId([1; 16])).within(self.memory_mib * 1024 * 1024);
        options.log_file_bytes_max = 1024 * 1024;
        options.scan_threads = 1;
        // The simulation says when: after each record.
        options.upkeep.thread = false;
        options
    }
}

/// What the questions came to.
#[derive(Default)]
struct Answers {
    asked: u64,
    seconds: f64,
    /// Answers that are not what was written.
    wrong: u64,
}

impl Answers {
    fn time<T>(&mut self, ask: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        let begun = Instant::now();
        let answer = ask()?;
        self.asked += 1;
        self.seconds += begun.elapsed().as_secs_f64();
        Ok(answer)
    }

    fn check(&mut self, what: &str, found: u64, written: u64) {
        if found != written {
            self.wrong += 1;
            eprintln!("{what}: {found} instead of {written}");
        }
    }
}

fn main() -> Result<(), Failure> {
    let settings = Settings::read()?;
    let site: SiteName = "plant".parse()?;
    let mut field = Field::new(settings.series, settings.every)?;
    let (heap_before, resident_before, disk_before) = (heap_bytes(), resident_bytes(), disk_bytes_written());
    let mut peaks = Peaks::default();
    let (store, _) = peaks.during("opening", || Store::open(&settings.dir, settings.options()))?;
    let (heap_opened, resident_opened) = (heap_bytes(), resident_bytes());

    let begun = Instant::now();
    let mut answers = Answers::default();
    let seconds = Duration::try_from_secs_f64((settings.hours * HOUR_S as f64).round())?.as_secs();
    let held = store.stats().points;
    for second in 1..=seconds {
        field.measure();
        if field.points() <= held {
            field.forget();
            continue;
        }
        if second % settings.record_seconds == 0 {
            let body = field.record()?;
            peaks.during("appending", || store.append_blocking(&site, body))?;
            peaks.during("upkeep", || store.upkeep(Instant::now()))?;
        }
        if second % LOOK_EVERY_S == 0 {
            peaks.during("looking", || look(&store, &site, &field, &mut answers))?;
        }
        if second % HOUR_S == 0 {
            let now = field.now_ns();
            let hour = now - HOUR_NS + SECOND_NS..=now;
            let written = (0..field.series()).map(|series| field.points_of(series, HOUR_S)).sum();
            peaks.during("an hour of all", || means(&store, &site, hour, written, &mut answers))?;
        }
    }
    let taken = begun.elapsed().as_secs_f64();
    let written = field.points();
    peaks.during("all of all", || means(&store, &site, START_NS..=field.now_ns(), written, &mut answers))?;
    report(&store, &settings.dir, taken, &answers)?;

    let disk = disk_bytes_written().zip(disk_before).map_or(0, |(now, before)| now - before);
    println!("went to a disk         {:.2} MiB", disk as f64 / MIB);
    let mib = |bytes: u64| bytes as f64 / MIB;
    println!(
        "heap of the store      {:.2} MiB at most, {:.2} at the end, {:.2} when it had opened",
        (heap_bytes_most() - heap_before) as f64 / MIB,
        (heap_bytes() - heap_before) as f64 / MIB,
        (heap_opened - heap_before) as f64 / MIB
    );
    println!("rose in turn to, MiB   {}", peaks.show());
    if let (Some((most, now)), Some((before, _)), Some((opened, _))) =
        (resident_bytes(), resident_before, resident_opened)
    {
        println!(
            "resident               {:.2} MiB at most, {:.2} at the end; {:.2} before and {:.2} after the store was opened",
            mib(most),
            mib(now),
            mib(before),
            mib(opened)
        );
    }
    store.close()?;
    drop(store);
    let begun = Instant::now();
    let (store, recovery) =
        peaks.during("opening again", || Store::open(&settings.dir, settings.options()))?;
    println!("opened again in        {:.3} s, {} records", begun.elapsed().as_secs_f64(), recovery.records);
    means(&store, &site, START_NS..=field.now_ns(), written, &mut answers)?;
    if answers.wrong > 0 {
        return Err("not every answer was right".into());
    }
    Ok(())
}

/// The newest value of every series, and one series' last hour.
fn look(store: &Store, site: &SiteName, field: &Field, answers: &mut Answers) -> Result<(), Failure> {
    let now = field.now_ns();
    let all = store.series(site, &|_| true)?;
    let last = answers.time(|| Ok(store.last(site, &all, &|| false)?))?;
    let fresh = now - (LOOK_EVERY_S.cast_signed() - 1) * SECOND_NS;
    let newest = last.iter().filter(|(_, time, _)| *time >= fresh).count();
    answers.check("newest values", newest as u64, field.series() as u64);
    let one = Series::new(METRICS[0], [("device", "d0099")])?;
    let hour = now - HOUR_NS + SECOND_NS..=now;
    let mut points = 0;
    answers.time(|| {
        Ok(store.scan_each(site, &[Arc::new(one)], hour, |_, part| {
            points += part.len() as u64;
            ControlFlow::Continue(())
        })?)
    })?;
    answers.check("one series, one hour", points, field.points_of(99 * METRICS.len(), HOUR_S));
    Ok(())
}

/// The mean of each hour of every series.
fn means(
    store: &Store,
    site: &SiteName,
    range: std::ops::RangeInclusive<i64>,
    written: u64,
    answers: &mut Answers,
) -> Result<(), Failure> {
    let all = store.series(site, &|_| true)?;
    let (mut points, mut sum, mut hour, mut hours) = (0u64, 0.0, None, 0u64);
    answers.time(|| {
        Ok(store.scan_each(site, &all, range, |_, part| {
            for (time, value) in part.iter() {
                let of = Some(time / HOUR_NS);
                hours += u64::from(hour != of);
                hour = of;
                points += 1;
                sum += if let Value::F64(value) = value { value } else { 0.0 };
            }
            ControlFlow::Continue(())
        })?)
    })?;
    answers.check("points by hours", points, written);
    if !(sum / points as f64).is_finite() || hours == 0 {
        return Err("there is no mean".into());
    }
    Ok(())
}

fn report(store: &Store, dir: &Path, taken: f64, answers: &Answers) -> Result<(), Failure> {
    let stats = store.stats();
    let files = |name: &str| file_bytes(&dir.join(name)).map(|bytes| bytes as f64 / MIB);
    let mib = |bytes: u64| bytes as f64 / MIB;
    let each = |bytes: u64| bytes as f64 / stats.points as f64;
    println!("points                 {} in {} records, {} series", stats.points, stats.records, stats.series);
    println!(
        "simulated in           {taken:.1} s, of which {:.1} s for {} questions",
        answers.seconds, answers.asked
    );
    println!(
        "log written            {:.2} MiB, {:.3} bytes a point, {} commits",
        mib(stats.bytes_written),
        each(stats.bytes_written),
        stats.commits
    );
    println!(
        "segments written       {:.2} MiB, {:.3} bytes a point: {} sealed, {} merged",
        mib(stats.segment_bytes_written),
        each(stats.segment_bytes_written),
        stats.segments_sealed,
        stats.segments_merged
    );
    println!(
        "on disk                log {:.2} MiB in {} files, segments {:.2} MiB in {} ({:.3} bytes a point), state {:.2} MiB",
        files("log")?,
        stats.files,
        files("segments")?,
        stats.segments,
        stats.segment_bytes as f64 / (stats.points - stats.open_points).max(1) as f64,
        files("state")?
    );
    let written = stats.bytes_written + stats.segment_bytes_written;
    println!("write amplification    {:.2}", written as f64 / stats.segment_bytes.max(1) as f64);
    Ok(())
}
