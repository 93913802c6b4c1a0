//! How long a server takes that was killed in the middle of a write: until it answers, and rightly. What was acknowledged must be there, and
//! of the write that it died in all or nothing.

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::Options;
use crate::http::Connection;
use crate::load::median;
use crate::process::Process;
use crate::subjects::{Question, Subject, start_tidelog};
use crate::workload::POINTS_PER_SAMPLE;

/// What is written beyond the points that are asked for, so that there is a write to die in: a part of them.
const BEYOND: u64 = 5;
/// How often it is asked how much is in no segment.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// What a start came to.
struct Start {
    /// Until the address was there: the store is open by then.
    ready_s: f64,
    /// Until the question was answered.
    answered_s: f64,
    cpu_s: f64,
    open_points: u64,
}

pub fn reopen(options: Options, rounds: u8, open_points: u64) -> Result<(), Box<dyn Error>> {
    let binary = options.bin_dir()?.join("tidelog-cloud");
    let wanted = options.points;
    let options = Options { points: wanted + wanted / BEYOND, ..options };
    let bodies = options.make(&[Subject::Tidelog])?;
    let lines = u64::from(options.lines);
    let enough = usize::try_from(wanted.div_ceil(lines * POINTS_PER_SAMPLE))?;
    println!("killed after at least {wanted} points, with at least {open_points} in no segment");
    println!("      points there   in no segment   store open s   answered s   CPU s");
    let mut all = Vec::new();
    for _ in 0..rounds {
        let dir = tempfile::Builder::new().prefix("bench-").tempdir_in(&options.dir)?;
        let server = dir.path().join("server");
        let process = start_tidelog(&binary, &server)?;
        let (acknowledged, sent) = write_and_kill(process, bodies.of(Subject::Tidelog), enough, open_points)?;
        let begun = Instant::now();
        let process = start_tidelog(&binary, &server)?;
        let ready_s = begun.elapsed().as_secs_f64();
        let question =
            Subject::Tidelog.asks(Question::Q4, bodies.written).ok_or("there is no such question")?;
        let answer = Connection::open(process.address)?.get(&question)?;
        let answered_s = begun.elapsed().as_secs_f64();
        let (points, open_points) = (number(&process, "points")?, number(&process, "open_points")?);
        let start = Start { ready_s, answered_s, cpu_s: process.cost()?.cpu.as_secs_f64(), open_points };
        let of = |bodies: usize| bodies as u64 * lines * POINTS_PER_SAMPLE;
        let right =
            (acknowledged..=sent).map(of).any(|count| count == points) && counted(&answer.body)? == points;
        if !right {
            let (least, most) = (of(acknowledged), of(sent));
            return Err(format!("{points} points are there; {least} were acknowledged, {most} sent").into());
        }
        start.show(points);
        all.push(start);
        process.end()?;
    }
    let of = |figure: fn(&Start) -> f64| median(all.iter().map(figure).collect());
    println!(
        "medians of {rounds}: store open {:.3} s, answered {:.3} s, CPU {:.3} s",
        of(|start| start.ready_s),
        of(|start| start.answered_s),
        of(|start| start.cpu_s)
    );
    Ok(())
}

impl Start {
    fn show(&self, points: u64) {
        let Self { ready_s, answered_s, cpu_s, open_points } = self;
        println!("{points:>18} {open_points:>15} {ready_s:>14.3} {answered_s:>12.3} {cpu_s:>7.3}");
    }
}

/// How many bodies were acknowledged, and how many sent.
fn write_and_kill(
    process: Process,
    bodies: &[Vec<u8>],
    enough: usize,
    open_points: u64,
) -> Result<(usize, usize), Box<dyn Error>> {
    let (path, headers) = Subject::Tidelog.write_path();
    let (acknowledged, sent, address) = (AtomicUsize::new(0), AtomicUsize::new(0), process.address);
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let Ok(mut connection) = Connection::open(address) else { return };
            for body in bodies {
                sent.fetch_add(1, Ordering::AcqRel);
                // It ends when the server does.
                if !connection.post(path, headers, body).is_ok_and(|answer| answer.status / 100 == 2) {
                    return;
                }
                acknowledged.fetch_add(1, Ordering::AcqRel);
            }
        });
        while !sender.is_finished() {
            if acknowledged.load(Ordering::Acquire) >= enough
                && number(&process, "open_points")? >= open_points
            {
                break;
            }
            thread::sleep(LOOK_EVERY);
        }
        process.kill()?;
        Ok::<_, Box<dyn Error>>(())
    })?;
    Ok((acknowledged.into_inner(), sent.into_inner()))
}

/// The points that an answer counts, over all its groups.
fn counted(answer: &[u8]) -> Result<u64, Box<dyn Error>> {
    let answer: serde_json::Value = serde_json::from_slice(answer)?;
    let groups =
        answer.get("groups").and_then(serde_json::Value::as_array).ok_or("an answer without groups")?;
    let steps = groups.iter().filter_map(|group| group.get("steps")?.as_array()).flatten();
    Ok(steps.filter_map(|step| step.get(1)?.as_u64()).sum())
}

/// A count that the server tells of its store.
fn number(process: &Process, name: &str) -> Result<u64, Box<dyn Error>> {
    let answer = Connection::open(process.address)?.get("/api/v1/status")?;
    let status: serde_json::Value = serde_json::from_slice(&answer.body)?;
    let count = status.get("store").and_then(|store| store.get(name)).and_then(serde_json::Value::as_u64);
    count.ok_or_else(|| format!("the server does not tell {name}").into())
}
