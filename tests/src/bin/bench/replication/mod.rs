//! What replication costs: two daemons on loopback, one written to and one that follows, both with every record on the disk; and two Tarantool
//! masters beside them in the same run where it is installed. A record is a point: series, time and value.

pub mod pair;
mod sessions;
mod tarantool;
mod way;

use std::error::Error;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::Replication;
use crate::http::Connection;
use crate::sockets;
use pair::{Pair, points_of};

const MIB: f64 = 1024.0 * 1024.0;
const PATH: &str = "/write?db=bench";
/// Points in a transaction where there are many.
const PER_BODY: u64 = 1_000;
const SERIES: u64 = 100;
/// Sockets on which single points are written, each with 16 under way.
const SOCKETS: u32 = 128;
/// When the first point is taken, and how long it is to the next of the same series, in nanoseconds.
const START_NS: u64 = 1_764_547_200_000_000_000;
const STEP_NS: u64 = 10_000_000;
/// Transactions a second when lag is measured: 10,000 points a second.
const PACE_BODIES_PER_S: u64 = 100;
const PACE_POINTS: u64 = 100;

/// `count` points from the `first` on, as lines.
fn body(first: u64, count: u64) -> Vec<u8> {
    let mut text = String::new();
    for number in first..first + count {
        let (series, time) = (number % SERIES, START_NS + number / SERIES * STEP_NS);
        // A random walk's size: sensors do not jump.
        let value = 2000 + (number / SERIES * 7 + series * 13) % 300;
        // Writing to a text does not fail.
        writeln!(text, "m,device=d{series:03} value={}.{:02} {time}", value / 100, value % 100)
            .unwrap_or_default();
    }
    text.into_bytes()
}

/// Writes points `from..until`, so many a transaction, over so many connections, each answer awaited.
fn write(
    to: SocketAddr,
    from: u64,
    until: u64,
    per_body: u64,
    connections: u64,
) -> Result<(), Box<dyn Error>> {
    let next = AtomicU64::new(from);
    thread::scope(|scope| {
        let sender = || -> Result<(), String> {
            let mut connection = Connection::open(to).map_err(|error| error.to_string())?;
            loop {
                let first = next.fetch_add(per_body, Ordering::Relaxed);
                if first >= until {
                    return Ok(());
                }
                let lines = body(first, per_body.min(until - first));
                let answer = connection.post(PATH, "", &lines).map_err(|error| error.to_string())?;
                if answer.status != 204 {
                    return Err(format!("{}: {}", answer.status, String::from_utf8_lossy(&answer.body)));
                }
            }
        };
        let senders: Vec<_> = (0..connections).map(|_| scope.spawn(sender)).collect();
        for sender in senders {
            sender.join().map_err(|_| "a sender panicked")??;
        }
        Ok(())
    })
}

/// Writes points `0..until`, each a batch of its own on one of so many sockets, each answer awaited.
fn write_on_sockets(to: SocketAddr, until: u64, connections: u32) -> Result<(), Box<dyn Error>> {
    let line = |number: u64| String::from_utf8(body(number, 1)).unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(sockets::write_points(to, until, connections, line)).map_err(|error| error as _)
}

/// What one measurement came to.
struct Figures {
    points: u64,
    seconds: f64,
    cpu_s: f64,
    wire_bytes: u64,
    peak_bytes: u64,
}

impl Figures {
    fn show(&self, what: &str) {
        let Self { points, seconds, cpu_s, wire_bytes, peak_bytes } = self;
        let points = *points as f64;
        println!(
            "tidelog    {what:<34} {:>10.0} points/s  {seconds:>7.3} s  {:>6.2} CPU us/point  {:>6.2} bytes/point on the wire  {:>6.1} MiB at most",
            points / seconds,
            cpu_s * 1e6 / points,
            *wire_bytes as f64 / points,
            *peak_bytes as f64 / MIB,
        );
    }
}

/// Does some work that brings the follower to `points`.
fn measure(
    pair: &Pair,
    before: u64,
    points: u64,
    work: impl FnOnce() -> Result<Instant, Box<dyn Error>>,
) -> Result<Figures, Box<dyn Error>> {
    let (cost, bytes) = (pair.cost()?, pair.way.bytes());
    let begun = work()?;
    pair.follower_has(points)?;
    let seconds = begun.elapsed().as_secs_f64();
    let after = pair.cost()?;
    Ok(Figures {
        points: points - before,
        seconds,
        cpu_s: (after.cpu - cost.cpu).as_secs_f64(),
        wire_bytes: pair.way.bytes() - bytes,
        peak_bytes: after.peak_rss_bytes,
    })
}

fn steady(
    binary: &Path,
    dir: &Path,
    points: u64,
    write: impl FnOnce(SocketAddr) -> Result<(), Box<dyn Error>>,
) -> Result<Figures, Box<dyn Error>> {
    let pair = Pair::start(binary, dir)?;
    let figures = measure(&pair, 0, points, || {
        let begun = Instant::now();
        write(pair.writer.address)?;
        Ok(begun)
    })?;
    pair.end()?;
    Ok(figures)
}

fn catch_up(
    binary: &Path,
    dir: &Path,
    points: u64,
    per_body: u64,
    connections: u64,
) -> Result<Figures, Box<dyn Error>> {
    let pair = Pair::start(binary, dir)?;
    write(pair.writer.address, 0, PER_BODY, PER_BODY, 1)?;
    pair.follower_has(PER_BODY)?;
    pair.way.close();
    write(pair.writer.address, PER_BODY, PER_BODY + points, per_body, connections)?;
    // From the first connection on: when the writer dials again is chance.
    let figures = measure(&pair, PER_BODY, PER_BODY + points, || Ok(pair.way.reopen()))?;
    pair.end()?;
    Ok(figures)
}

/// Writes at a steady pace and looks when the follower has each transaction.
fn lag(binary: &Path, dir: &Path, seconds: u64) -> Result<(), Box<dyn Error>> {
    let pair = Pair::start(binary, dir)?;
    let bodies = seconds * PACE_BODIES_PER_S;
    let bytes = pair.way.bytes();
    let mut seen: Vec<(u64, Instant)> = Vec::new();
    let begun = Instant::now();
    let sent = thread::scope(|scope| {
        let writer = scope.spawn(|| -> Result<Vec<Instant>, String> {
            let mut connection = Connection::open(pair.writer.address).map_err(|error| error.to_string())?;
            let mut sent = Vec::new();
            for number in 0..bodies {
                let due = begun + Duration::from_micros(number * 1_000_000 / PACE_BODIES_PER_S);
                thread::sleep(due.saturating_duration_since(Instant::now()));
                sent.push(Instant::now());
                let lines = body(number * PACE_POINTS, PACE_POINTS);
                let answer = connection.post(PATH, "", &lines).map_err(|error| error.to_string())?;
                if answer.status != 204 {
                    return Err(format!("answered with {}", answer.status));
                }
            }
            Ok(sent)
        });
        let mut asking = Connection::open(pair.follower.address)?;
        while seen.last().is_none_or(|(points, _)| *points < bodies * PACE_POINTS) {
            let points = points_of(&mut asking)?;
            if seen.last().is_none_or(|(before, _)| *before < points) {
                seen.push((points, Instant::now()));
            }
            if writer.is_finished() && begun.elapsed() > Duration::from_secs(seconds + 60) {
                return Err("the follower does not follow".into());
            }
            thread::sleep(Duration::from_micros(200));
        }
        writer.join().map_err(|_| "the writer panicked")?.map_err(Box::<dyn Error>::from)
    })?;
    let mut lags: Vec<f64> = (1..)
        .zip(&sent)
        .filter_map(|(number, at)| {
            let there = seen.iter().find(|(points, _)| *points >= number * PACE_POINTS)?;
            Some((there.1 - *at).as_secs_f64() * 1e3)
        })
        .collect();
    lags.sort_by(f64::total_cmp);
    let at = |share: usize| lags.get((lags.len().max(1) - 1) * share / 100).copied().unwrap_or(f64::NAN);
    println!(
        "tidelog    lag at {} points/s, of {} transactions: p50 {:.2} ms, p99 {:.2} ms, greatest {:.2} ms; {:.2} bytes/point on the wire, keepalives and all",
        PACE_POINTS * PACE_BODIES_PER_S,
        lags.len(),
        at(50),
        at(99),
        at(100),
        (pair.way.bytes() - bytes) as f64 / (bodies * PACE_POINTS) as f64,
    );
    pair.end()
}

pub fn replication(options: &Replication) -> Result<(), Box<dyn Error>> {
    let Replication { points, singles, caught_up, lag_s, sessions, rounds, connections, .. } = *options;
    let beside = std::env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default();
    let binary = options.bin_dir.as_ref().unwrap_or(&beside).join("tidelog-cloud");
    let dir = options.dir.as_path();
    if let Some(load) =
        std::fs::read_to_string("/proc/loadavg").ok().as_deref().and_then(|text| text.split(' ').next())
    {
        println!("load of the machine before: {load}");
    }
    println!("two daemons on loopback, each point on both disks (fdatasync) and each answer awaited");
    for _ in 0..rounds {
        steady(&binary, dir, points, |to| write(to, 0, points, PER_BODY, 2))?
            .show("steady, 1,000 a transaction");
        steady(&binary, dir, singles, |to| write(to, 0, singles, 1, connections))?
            .show("steady, one a transaction, posts");
        steady(&binary, dir, singles, |to| write_on_sockets(to, singles, SOCKETS))?
            .show("steady, one a transaction, sockets");
        catch_up(&binary, dir, caught_up, PER_BODY, 2)?.show("caught up, written 1,000 at once");
        catch_up(&binary, dir, singles, 1, connections)?.show("caught up, written one by one");
    }
    lag(&binary, dir, lag_s)?;
    sessions::sessions(&binary, dir, sessions)?;
    for wal_mode in ["write", "fsync"] {
        tarantool::measure(options, wal_mode)?;
    }
    println!();
    println!("the figures that were to be reached, taken on another machine of this kind:");
    print!("{}", tarantool::REFERENCE);
    Ok(())
}
