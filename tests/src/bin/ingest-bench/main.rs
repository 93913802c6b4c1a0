//! How fast a node takes line protocol, and what it costs: a field of devices is written through `POST /api/v2/write` on one
//! connection, each answer awaited, each durable. Prints each round and the medians.
//!
//! ```console
//! $ cargo build --release -p tidelog-cloud
//! $ cargo run --release -p tidelog-tests --bin ingest-bench -- --points 1000000
//! ```

mod server;
mod workload;

use std::error::Error;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::Parser;
use server::Server;
use workload::{POINTS_PER_LINE, Workload};

const MIB: f64 = 1024.0 * 1024.0;

/// Loads a node with line protocol over HTTP and says what it costs
#[derive(Parser)]
#[command(name = "ingest-bench")]
struct Options {
    /// Folder of the daemons; by default where this program lies
    #[arg(long, env = "TIDELOG_BIN_DIR", value_name = "DIR")]
    bin_dir: Option<PathBuf>,

    /// Points to write in each round
    #[arg(long, value_name = "COUNT", default_value_t = 10_000_000)]
    points: u64,

    /// Devices, each with four metrics
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..))]
    devices: u16,

    /// Lines in a request; a line holds one sample of a device, which is four points
    #[arg(long, value_name = "COUNT", default_value_t = 5_000, value_parser = clap::value_parser!(u16).range(1..))]
    lines: u16,

    /// Lines that come late, in per cent
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=100))]
    late: u32,

    /// Lines that come twice, in per cent
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=100))]
    twice: u32,

    /// Rounds, each on a fresh folder
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,

    /// Folder for the nodes' files, on the disk that is to be measured
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,

    /// Where all dice begin
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
}

/// What one round came to.
struct Round {
    points_per_s: f64,
    cpu_us_per_point: f64,
    disk_bytes_per_point: f64,
    written_bytes_per_point: f64,
    peak_rss_mib: f64,
    answer_ms_median: f64,
    answer_ms_p99: f64,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ingest-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let beside = std::env::current_exe()?.parent().map(PathBuf::from).unwrap_or_default();
    let binary = options.bin_dir.clone().unwrap_or(beside).join("tidelog-cloud");
    let ticks = Command::new("getconf").arg("CLK_TCK").output()?.stdout;
    let ticks_per_s = String::from_utf8(ticks)?.trim().parse()?;
    println!(
        "{} points: {} devices x {POINTS_PER_LINE} metrics, {} lines a request, {} % late, {} % twice, one connection",
        options.points, options.devices, options.lines, options.late, options.twice
    );
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        let dir = tempfile::Builder::new().prefix("ingest-bench-").tempdir_in(&options.dir)?;
        let round = load(options, Server::start(&binary, &dir.path().join("node"))?, ticks_per_s)?;
        show(&format!("round {number}"), &round);
        rounds.push(round);
    }
    show("median", &median(&rounds));
    Ok(())
}

fn load(options: &Options, server: Server, ticks_per_s: u64) -> Result<Round, Box<dyn Error>> {
    let agent = ureq::Agent::new_with_defaults();
    let url = format!("{}/api/v2/write?bucket=bench&precision=s", server.url);
    let mut workload =
        Workload::new(options.devices.into(), options.points, options.late, options.twice, options.seed);
    let (mut answers, mut lines) = (Vec::new(), 0);
    let before = server.cost(ticks_per_s)?;
    // The making of a body is not timed; a server that works on meanwhile shows it in its processor time.
    while let Some((body, count)) = workload.batch(options.lines.into()) {
        let begun = Instant::now();
        let status = agent.post(&url).send(body.as_bytes())?.status();
        answers.push(begun.elapsed());
        if status != 204 {
            return Err(format!("a write was answered with {status}").into());
        }
        lines += count as u64;
    }
    let after = server.cost(ticks_per_s)?;
    let points = lines * POINTS_PER_LINE;
    let status = agent.get(format!("{}/api/v1/status", server.url)).call()?.body_mut().read_to_string()?;
    let status: serde_json::Value = serde_json::from_str(&status)?;
    if status.pointer("/store/points").and_then(serde_json::Value::as_u64) != Some(points) {
        return Err(format!("{points} points were sent, the node says {status}").into());
    }
    let disk_bytes = server.end()?;
    let seconds: f64 = answers.iter().map(Duration::as_secs_f64).sum();
    answers.sort_unstable();
    let at =
        |share: usize| answers.get((answers.len() - 1) * share / 100).map_or(0.0, |t| t.as_secs_f64() * 1e3);
    let points = points as f64;
    Ok(Round {
        points_per_s: points / seconds,
        cpu_us_per_point: (after.cpu - before.cpu).as_secs_f64() * 1e6 / points,
        disk_bytes_per_point: disk_bytes as f64 / points,
        written_bytes_per_point: (after.written_bytes - before.written_bytes) as f64 / points,
        peak_rss_mib: after.peak_rss_bytes as f64 / MIB,
        answer_ms_median: at(50),
        answer_ms_p99: at(99),
    })
}

fn show(name: &str, round: &Round) {
    println!(
        "{name}: {:.0} points/s, {:.3} us of server CPU per point, {:.2} bytes per point on disk ({:.2} written), \
         peak RSS {:.1} MiB, answers {:.1} ms median, {:.1} ms p99",
        round.points_per_s,
        round.cpu_us_per_point,
        round.disk_bytes_per_point,
        round.written_bytes_per_point,
        round.peak_rss_mib,
        round.answer_ms_median,
        round.answer_ms_p99
    );
}

fn median(rounds: &[Round]) -> Round {
    let of = |figure: fn(&Round) -> f64| {
        let mut all: Vec<f64> = rounds.iter().map(figure).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
    };
    Round {
        points_per_s: of(|round| round.points_per_s),
        cpu_us_per_point: of(|round| round.cpu_us_per_point),
        disk_bytes_per_point: of(|round| round.disk_bytes_per_point),
        written_bytes_per_point: of(|round| round.written_bytes_per_point),
        peak_rss_mib: of(|round| round.peak_rss_mib),
        answer_ms_median: of(|round| round.answer_ms_median),
        answer_ms_p99: of(|round| round.answer_ms_p99),
    }
}
