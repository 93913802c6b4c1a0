//! Loading: bodies made beforehand, sent over keep-alive connections, each answer awaited; and what that came to.

use std::collections::HashMap;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::Options;
use crate::forms::Form;
use crate::http::Connection;
use crate::process::{Cost, Process};
use crate::subjects::{Subject, Written};
use crate::workload::{POINTS_PER_SAMPLE, START_S, STEP_S, Workload};

const MIB: f64 = 1024.0 * 1024.0;

/// The whole workload, ready to be sent.
pub struct Bodies {
    by_form: HashMap<Form, Vec<Vec<u8>>>,
    /// As sent, those that come twice counted twice.
    pub points: u64,
    /// Each counted once.
    pub distinct: u64,
    pub written: Written,
}

impl Bodies {
    pub fn make(options: &Options, subjects: &[Subject]) -> Result<Self, Box<dyn Error>> {
        let devices = usize::from(options.devices);
        let mut workload =
            Workload::new(devices, options.points, options.late, options.duplicated, options.seed);
        let mut by_form: HashMap<Form, Vec<Vec<u8>>> =
            subjects.iter().map(|subject| (subject.form(), Vec::new())).collect();
        let mut samples = 0;
        loop {
            let batch = workload.batch(options.lines.into());
            if batch.is_empty() {
                break;
            }
            samples += batch.len() as u64;
            for (form, bodies) in &mut by_form {
                bodies.push(form.body(&batch)?);
            }
        }
        let steps = (options.points / POINTS_PER_SAMPLE).div_ceil(u64::from(options.devices)).max(1);
        let written = Written { start: START_S, end: START_S + (steps - 1) * STEP_S, device: devices / 3 };
        let distinct = options.points / POINTS_PER_SAMPLE * POINTS_PER_SAMPLE;
        Ok(Self { by_form, points: samples * POINTS_PER_SAMPLE, distinct, written })
    }
}

impl Bodies {
    /// Those that a server takes, in order.
    pub fn of(&self, subject: Subject) -> &[Vec<u8>] {
        self.by_form.get(&subject.form()).map_or(&[], Vec::as_slice)
    }
}

/// What loading came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub points_per_s: f64,
    /// Until the last answer.
    pub cpu_us_per_point: f64,
    /// Until it had nothing left to do.
    pub cpu_us_per_point_settled: f64,
    pub disk_bytes_per_point: f64,
    pub written_bytes_per_point: f64,
    pub peak_rss_mib: f64,
    pub answer_ms_median: f64,
    pub answer_ms_p99: f64,
}

/// What is known when the last answer is there.
pub struct Loaded {
    before: Cost,
    after: Cost,
    seconds: f64,
    answers: Vec<Duration>,
    points: u64,
}

/// Sends everything.
pub fn load(
    subject: Subject,
    process: &Process,
    bodies: &Bodies,
    connections: usize,
) -> Result<Loaded, Box<dyn Error>> {
    let all = bodies.by_form.get(&subject.form()).ok_or("no bodies were made")?;
    let (next, before, begun) = (AtomicUsize::new(0), process.cost()?, Instant::now());
    let answers = thread::scope(|scope| {
        let senders: Vec<_> = (0..connections)
            .map(|_| {
                scope.spawn(|| send(subject, process.address, all, &next).map_err(|error| error.to_string()))
            })
            .collect();
        let mut answers = Vec::new();
        for sender in senders {
            answers.extend(sender.join().map_err(|_| "a sender panicked")??);
        }
        Ok::<_, Box<dyn Error>>(answers)
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Loaded { before, after: process.cost()?, seconds, answers, points: bodies.points })
}

fn send(
    subject: Subject,
    address: SocketAddr,
    bodies: &[Vec<u8>],
    next: &AtomicUsize,
) -> Result<Vec<Duration>, Box<dyn Error>> {
    let mut connection = Connection::open(address)?;
    let (path, headers) = subject.write_path();
    let mut answers = Vec::new();
    while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
        let begun = Instant::now();
        let answer = connection.post(path, headers, body)?;
        answers.push(begun.elapsed());
        if !(200..300).contains(&answer.status) {
            let said = String::from_utf8_lossy(&answer.body).into_owned();
            return Err(format!("a write was answered with {}: {said}", answer.status).into());
        }
    }
    Ok(answers)
}

impl Loaded {
    /// The figures, once it has settled and ended.
    pub fn figures(mut self, settled: Cost, disk_bytes: u64) -> Figures {
        self.answers.sort_unstable();
        let at = |share: usize| {
            self.answers
                .get((self.answers.len().max(1) - 1) * share / 100)
                .map_or(0.0, |t| t.as_secs_f64() * 1e3)
        };
        let points = self.points as f64;
        let us = |cost: Cost| (cost.cpu - self.before.cpu).as_secs_f64() * 1e6 / points;
        Figures {
            points_per_s: points / self.seconds,
            cpu_us_per_point: us(self.after),
            cpu_us_per_point_settled: us(settled),
            disk_bytes_per_point: disk_bytes as f64 / points,
            written_bytes_per_point: (settled.written_bytes - self.before.written_bytes) as f64 / points,
            peak_rss_mib: settled.peak_rss_bytes as f64 / MIB,
            answer_ms_median: at(50),
            answer_ms_p99: at(99),
        }
    }
}

impl Figures {
    pub const HEAD: &str = "                      Mpoints/s   CPU us/point  (settled)   bytes/point  (written)   peak MiB   answer ms   (p99)";

    pub fn median(all: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| median(all.iter().map(figure).collect());
        Self {
            points_per_s: of(|round| round.points_per_s),
            cpu_us_per_point: of(|round| round.cpu_us_per_point),
            cpu_us_per_point_settled: of(|round| round.cpu_us_per_point_settled),
            disk_bytes_per_point: of(|round| round.disk_bytes_per_point),
            written_bytes_per_point: of(|round| round.written_bytes_per_point),
            peak_rss_mib: of(|round| round.peak_rss_mib),
            answer_ms_median: of(|round| round.answer_ms_median),
            answer_ms_p99: of(|round| round.answer_ms_p99),
        }
    }

    pub fn show(&self, name: &str) {
        println!(
            "{name:<20} {:>10.2} {:>14.3} {:>10.3} {:>13.3} {:>10.3} {:>10.1} {:>11.2} {:>7.2}",
            self.points_per_s / 1e6,
            self.cpu_us_per_point,
            self.cpu_us_per_point_settled,
            self.disk_bytes_per_point,
            self.written_bytes_per_point,
            self.peak_rss_mib,
            self.answer_ms_median,
            self.answer_ms_p99
        );
    }
}

/// The middle one.
pub fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}
