//! How fast this machine takes small appends from several threads, opens the log again and scans it:
//! `cargo run --release -p tidelog-store --example speed -- DIR [THREADS] [APPENDS]`, where DIR does not exist yet.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidelog_record::{Batch, BatchError, NodeId, Series, SiteName, Value};
use tidelog_store::{Store, StoreOptions};

/// Points in one append.
const POINTS: i64 = 8;
/// Appends of one thread that wait for the disk.
const WAITING_MAX: u64 = 8192;

fn body(name: &Series, number: u64) -> Result<Vec<u8>, BatchError> {
    let at = |i: i64| (number.cast_signed() * POINTS + i) * 10_000_000_000;
    let points = (0..POINTS).map(|i| (at(i), Value::F64(20.25))).collect();
    Batch { series: vec![(name.clone(), points)], ..Batch::default() }.encode()
}

/// Appends, and answers how many were stored.
fn write(store: &Store, site: &SiteName, name: &Series, appends: u64) -> Result<u64, BatchError> {
    let (answered, stored) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    for number in 0..appends {
        while number - answered.load(Ordering::Acquire) > WAITING_MAX {
            std::thread::sleep(Duration::from_micros(200));
        }
        let (answered, stored) = (Arc::clone(&answered), Arc::clone(&stored));
        store.append(site, body(name, number)?, move |result| {
            stored.fetch_add(u64::from(result.is_ok()), Ordering::Relaxed);
            answered.fetch_add(1, Ordering::Release);
        });
    }
    while answered.load(Ordering::Acquire) < appends {
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(stored.load(Ordering::Relaxed))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().ok_or("say where: a folder that does not exist yet")?);
    let threads: u64 = arguments.next().map_or(Ok(4), |text| text.parse())?;
    let appends: u64 = arguments.next().map_or(Ok(600_000), |text| text.parse())? / threads;
    let options = StoreOptions::new(NodeId([1; 16]));
    let site: SiteName = "plant".parse()?;
    let mut names = Vec::new();
    for device in 0..threads {
        names.push(Series::new("temperature", [("device", format!("{device:016x}"))])?);
    }

    let (store, _) = Store::open(&dir, options.clone())?;
    let begun = Instant::now();
    let stored = std::thread::scope(|scope| {
        let (store, site) = (&store, &site);
        let workers: Vec<_> =
            names.iter().map(|name| scope.spawn(move || write(store, site, name, appends))).collect();
        workers.into_iter().filter_map(|worker| worker.join().ok()?.ok()).sum::<u64>()
    });
    let seconds = begun.elapsed().as_secs_f64();
    let stats = store.stats();
    println!(
        "{stored} appends of {POINTS} points stored in {seconds:.2} s: {:.0} appends/s, {} commits, {} bytes of log",
        stored as f64 / seconds,
        stats.commits,
        stats.log_bytes
    );
    store.close()?;

    let begun = Instant::now();
    let (store, recovery) = Store::open(&dir, options)?;
    println!("opened {} records in {:.2} s", recovery.records, begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    let all = store.scan(&site, &|_| true, i64::MIN..=i64::MAX)?;
    let points: usize = all.iter().map(|(_, points)| points.len()).sum();
    println!("scanned {points} points in {:.2} s", begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    let day = 0..=86_400_000_000_000;
    let some = store.scan(&site, &|series| Some(series) == names.first(), day)?;
    let points: usize = some.iter().map(|(_, points)| points.len()).sum();
    println!("one series, one day: {points} points in {:.4} s", begun.elapsed().as_secs_f64());
    Ok(())
}
