//! How this machine keeps many series:
//! `cargo run --release -p tidelog-store --example catalogue -- DIR SERIES [MEMORY_MIB]`, where DIR does not exist yet.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tidelog_record::{Series, SiteName};
use tidelog_store::catalogue::{Catalogue, MatchOp, Matcher};

const METRICS: [&str; 4] = ["battery", "humidity", "light", "temperature"];

fn series(number: u64) -> Result<Series, tidelog_record::SeriesError> {
    let device = number / 4;
    // Devices come in no order.
    let eui = device.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let metric = METRICS.get(usize::try_from(number % 4).unwrap_or(0)).copied().unwrap_or("other");
    let labels = [
        ("device", format!("{eui:016x}")),
        ("room", format!("room-{}", device % 1000)),
        ("floor", format!("{}", device % 12)),
    ];
    Series::new(metric, labels)
}

fn bytes_in(dir: &Path) -> std::io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        sum += if entry.file_type()?.is_dir() { bytes_in(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(sum)
}

fn peak_mib() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim().split(' ').next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
    };
    format!("resident {:.1} MiB, at most {:.1}", of("VmRSS:"), of("VmHWM:"))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().ok_or("which directory?")?);
    let count: u64 = args.next().ok_or("how many series?")?.parse()?;
    let memory: usize = args.next().map_or(Ok(16), |text| text.parse())?;
    let site: SiteName = "plant".parse()?;
    let names: Vec<Vec<u8>> =
        (0..count).map(|n| series(n).map(|s| s.canonical())).collect::<Result<_, _>>()?;
    println!("{count} series, {memory} MiB for the catalogue; before: {}", peak_mib());

    let (catalogue, _) = Catalogue::open(&dir, memory * 1024 * 1024)?;
    let start = Instant::now();
    let mut slowest = 0.0f64;
    for name in &names {
        let one = Instant::now();
        catalogue.ensure(&site, name)?;
        slowest = slowest.max(one.elapsed().as_secs_f64());
    }
    catalogue.flush()?;
    let each = |start: Instant, count: u64| start.elapsed().as_secs_f64() * 1e6 / count as f64;
    println!(
        "ensure, new: {:.2} µs each, the slowest {:.1} ms; {}",
        each(start, count),
        slowest * 1e3,
        peak_mib()
    );
    let start = Instant::now();
    while catalogue.tend()? {}
    println!("tend: {:.2} s; {}", start.elapsed().as_secs_f64(), peak_mib());
    let hot = names.get(..names.len().min(4000)).unwrap_or_default();
    for what in ["first", "again"] {
        let start = Instant::now();
        for name in hot {
            catalogue.ensure(&site, name)?;
        }
        println!("ensure, known, {what}: {:.0} ns", each(start, hot.len() as u64) * 1e3);
    }
    drop(catalogue);
    println!("folder: {:.1} MB, {} bytes a series", bytes_in(&dir)? as f64 / 1e6, bytes_in(&dir)? / count);

    let start = Instant::now();
    let (catalogue, begun) = Catalogue::open(&dir, memory * 1024 * 1024)?;
    println!(
        "open: {:.3} s{}",
        start.elapsed().as_secs_f64(),
        begun.map_or(String::new(), |why| format!(" ({why})"))
    );
    let start = Instant::now();
    if let Some(name) = names.get(1) {
        catalogue.ensure(&site, name)?;
    }
    println!("first ensure: {:.1} ms; {}", start.elapsed().as_secs_f64() * 1e3, peak_mib());
    let device = series(count / 2)?.label("device").unwrap_or_default().to_owned();
    let one = |name: &str, op, value: &str| Matcher::new(name, op, value);
    let questions = [
        ("device=", vec![one("device", MatchOp::Equal, &device)?]),
        ("metric and room=", vec![Matcher::metric("light"), one("room", MatchOp::Equal, "room-7")?]),
        (
            "device=~beginning",
            vec![one("device", MatchOp::Regex, &format!("{}.*", device.get(..6).unwrap_or_default()))?],
        ),
        (
            "device=~anything",
            vec![one("device", MatchOp::Regex, &format!(".*{}", device.get(8..).unwrap_or_default()))?],
        ),
        (
            "metric and room!~",
            vec![Matcher::metric("light"), one("room", MatchOp::NotRegex, "room-[1-9].*")?],
        ),
        ("metric", vec![Matcher::metric("temperature")]),
    ];
    for (what, matchers) in questions {
        let ask = || {
            let start = Instant::now();
            catalogue.select(&site, &matchers).map(|found| (found.len(), start.elapsed().as_secs_f64() * 1e3))
        };
        let ((found, first), (_, again)) = (ask()?, ask()?);
        println!("select {what}: {found} series, {first:.3} ms, again {again:.3} ms");
    }
    let start = Instant::now();
    let rooms = catalogue.label_values(&site, "room", &[])?.len();
    println!("{rooms} values of room: {:.2} ms; {}", start.elapsed().as_secs_f64() * 1e3, peak_mib());
    Ok(())
}
