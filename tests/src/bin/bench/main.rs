//! What writing and asking costs, on Tidelog and on those of its peers that are installed, in the same run: a field of devices is
//! written over HTTP, each answer awaited; then, if wanted, five questions are asked, or Tidelog is killed and started again. Or two of them
//! replicate with each other; or sensors report to a gateway. Prints each round and the medians.
//!
//! ```console
//! $ tests/bench/run ingest --points 1000000
//! $ tests/bench/run queries --only tidelog
//! $ tests/bench/run reopen
//! $ tests/bench/run replication
//! $ tests/bench/run sensors --minutes 1
//! $ tests/bench/run sockets --devices 1000
//! ```

mod ask;
mod crowd;
mod forms;
mod http;
mod load;
mod process;
mod reopen;
mod replication;
mod sensors;
mod sockets;
mod subjects;
mod workload;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser};
use load::{Bodies, Figures, load};
use subjects::{Question, Subject};
use workload::POINTS_PER_SAMPLE;

/// Measures Tidelog and its peers
#[derive(Parser)]
#[command(name = "bench")]
enum Command {
    /// Writes a field of devices: speed, processor time, bytes on disk and memory
    Ingest {
        #[command(flatten)]
        options: Options,

        /// Rounds, each on fresh folders
        #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
        rounds: u8,
    },
    /// Writes it to Tidelog, kills it in the middle of a write, and starts it again
    Reopen {
        #[command(flatten)]
        options: Options,

        /// Rounds, each on a fresh folder
        #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
        rounds: u8,

        /// Points that are in no segment when it is killed, at least
        #[arg(long, value_name = "COUNT", default_value_t = 0)]
        open_points: u64,
    },
    /// Two daemons that replicate with each other: speed, lag, catching up, bytes on the wire, memory; and two Tarantools
    Replication(Replication),
    /// Virtual sensors with the real firmware at one gateway: nothing lost, memory, processor time
    Sensors(sensors::Sensors),
    /// Devices that keep a connection: memory, how long a batch waits, how many a second; and mosquitto
    Sockets(sockets::Sockets),
    /// Writes it once, then asks five questions; and one in PromQL by many at once, where wrk is installed
    Queries {
        #[command(flatten)]
        options: Options,

        /// How often each question is asked
        #[arg(long, value_name = "COUNT", default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..))]
        runs: u32,

        /// Questions to ask, by default all
        #[arg(long, value_name = "QUESTION", value_enum, value_delimiter = ',')]
        questions: Vec<Question>,
    },
}

/// How much is replicated
#[derive(Args)]
pub struct Replication {
    /// Folder of the daemons; by default where this program lies
    #[arg(long, env = "TIDELOG_BIN_DIR", value_name = "DIR")]
    bin_dir: Option<PathBuf>,

    /// Points in transactions of 1,000
    #[arg(long, value_name = "COUNT", default_value_t = 3_000_000)]
    points: u64,

    /// Points in transactions of one
    #[arg(long, value_name = "COUNT", default_value_t = 200_000)]
    singles: u64,

    /// Connections that write them
    #[arg(long, value_name = "COUNT", default_value_t = 128, value_parser = clap::value_parser!(u64).range(1..=400))]
    connections: u64,

    /// Points that are written during a partition
    #[arg(long, value_name = "COUNT", default_value_t = 1_000_000)]
    caught_up: u64,

    /// How long the lag is measured, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    lag_s: u64,

    /// Light sessions at one node
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=2000))]
    sessions: u64,

    /// Rounds, each on fresh folders
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,

    /// Folder for the servers' files, on the disk that is to be measured
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
}

/// What is written, and to whom
#[derive(Args)]
pub struct Options {
    /// Folder of the daemons; by default where this program lies
    #[arg(long, env = "TIDELOG_BIN_DIR", value_name = "DIR")]
    bin_dir: Option<PathBuf>,

    /// Who is measured, by default everyone who is installed
    #[arg(long, value_name = "NAME", value_enum, value_delimiter = ',')]
    only: Vec<Subject>,

    /// Points to write in each round
    #[arg(long, value_name = "COUNT", default_value_t = 10_000_000)]
    points: u64,

    /// Devices, each with four metrics
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..))]
    devices: u16,

    /// Samples in a request; a sample of a device is a line, and four points
    #[arg(long, value_name = "COUNT", default_value_t = 5_000, value_parser = clap::value_parser!(u16).range(1..))]
    lines: u16,

    /// Samples that come late, in per cent
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=100))]
    late: u32,

    /// Samples that come twice, in per cent
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=100))]
    duplicated: u32,

    /// Connections that write at a time
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    connections: u8,

    /// Folder for the servers' files, on the disk that is to be measured
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,

    /// Where all dice begin
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let outcome = match Command::parse() {
        Command::Ingest { options, rounds } => ingest(&options, rounds),
        Command::Reopen { options, rounds, open_points } => reopen::reopen(options, rounds, open_points),
        Command::Replication(options) => replication::replication(&options),
        Command::Sensors(options) => sensors::sensors(&options),
        Command::Sockets(options) => sockets::sockets(&options),
        Command::Queries { options, runs, questions } => queries(&options, runs, &questions),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Options {
    fn subjects(&self) -> Vec<Subject> {
        let wanted = if self.only.is_empty() { &Subject::ALL[..] } else { &self.only };
        let (there, missing): (Vec<Subject>, Vec<Subject>) =
            wanted.iter().partition(|subject| subject.is_installed());
        for subject in missing {
            eprintln!("{} is not installed and left out", subject.name());
        }
        there
    }

    fn bin_dir(&self) -> Result<PathBuf, Box<dyn Error>> {
        let beside = std::env::current_exe()?.parent().map(PathBuf::from).unwrap_or_default();
        Ok(self.bin_dir.clone().unwrap_or(beside))
    }

    fn make(&self, subjects: &[Subject]) -> Result<Bodies, Box<dyn Error>> {
        println!(
            "{} points: {} devices x {POINTS_PER_SAMPLE} metrics, {} lines a request, {} % late, {} % duplicated, {} connection(s)",
            self.points, self.devices, self.lines, self.late, self.duplicated, self.connections
        );
        Bodies::make(self, subjects)
    }
}

fn ingest(options: &Options, rounds: u8) -> Result<(), Box<dyn Error>> {
    let (subjects, bin_dir) = (options.subjects(), options.bin_dir()?);
    let bodies = options.make(&subjects)?;
    println!("{}", Figures::HEAD);
    let mut all: Vec<Vec<Figures>> = vec![Vec::new(); subjects.len()];
    for _ in 0..rounds {
        for (subject, figures) in subjects.iter().zip(&mut all) {
            let dir = tempfile::Builder::new().prefix("bench-").tempdir_in(&options.dir)?;
            let process = subject.start(&bin_dir, &dir.path().join("server"))?;
            let loaded = load(*subject, &process, &bodies, options.connections.into())?;
            subject.settle(&process)?;
            let settled = process.cost()?;
            let round = loaded.figures(settled, process.end()?);
            round.show(subject.name());
            figures.push(round);
        }
    }
    if rounds > 1 {
        println!("medians of {rounds}");
        for (subject, figures) in subjects.iter().zip(&all) {
            Figures::median(figures).show(subject.name());
        }
    }
    Ok(())
}

fn queries(options: &Options, runs: u32, questions: &[Question]) -> Result<(), Box<dyn Error>> {
    let (subjects, bin_dir) = (options.subjects(), options.bin_dir()?);
    let questions = if questions.is_empty() { &Question::ALL[..] } else { questions };
    let bodies = options.make(&subjects)?;
    println!("medians of {runs} answers, in ms");
    for subject in subjects {
        let dir = tempfile::Builder::new().prefix("bench-").tempdir_in(&options.dir)?;
        let process = subject.start(&bin_dir, &dir.path().join("server"))?;
        load(subject, &process, &bodies, options.connections.into())?;
        subject.settle(&process)?;
        for question in questions {
            let asked = ask::ask(subject, &process, *question, bodies.written, runs)?;
            let counted = subject.says_points(bodies.distinct);
            let wrong = *question == Question::Q4 && !asked.holds(&counted);
            let remark = if wrong { ": not the points that were written" } else { "" };
            println!("{:<18} {:<40} {}{remark}", subject.name(), question.says(), asked.show());
        }
        if crowd::is_installed()
            && let Some(said) = crowd::crowd(subject, &process, bodies.written, dir.path())?
        {
            println!("{:<18} {said}", subject.name());
        }
        process.end()?;
    }
    Ok(())
}
