//! One run from start to verdict: the loop that shows progress, makes trouble when asked, and knows when all has arrived.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::arrival::{Standing, Watch, is_level};
use crate::boards;
use crate::chaos::{Chaos, Trouble, Troubles};
use crate::failover::{Failover, KILLED, Step};
use crate::feed::{self, FeedError, Replay};
use crate::field::{Field, FieldError};
use crate::judge::Expected;
use crate::options::Options;
use crate::program::{ProgramError, Programs};
use crate::report::{self, Held, Report};
use crate::verify::verify;

const TICK: Duration = Duration::from_millis(50);
/// How often progress is shown to a terminal, and to a file.
const SHOW_EVERY: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];
/// Without any progress for this long, the run is judged as it stands.
const STALLED_AFTER: Duration = Duration::from_secs(90);

/// Why a run has no verdict.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The data.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// What the daemons run.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The field.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// The folder of the run.
    #[error("--dir {path}: {reason}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The system.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The user ended it before its end.
    #[error("interrupted before everything had arrived")]
    Interrupted,
}

impl From<crate::daemon::DaemonError> for RunError {
    fn from(error: crate::daemon::DaemonError) -> Self {
        Self::Field(error.into())
    }
}

/// Runs the demo. `Ok(None)`: it ran until Ctrl-C, as it should without `--once`.
///
/// # Errors
/// [`RunError`] when there can be no verdict.
pub async fn run(options: &Options) -> Result<Option<Report>, RunError> {
    let replays =
        feed::replays(options.data.as_deref(), options.sensors(), options.readings.map(|n| n as usize))?;
    let climate =
        if options.boards > 0 { feed::replays(options.data.as_deref(), None, None)? } else { Vec::new() };
    let (folder, _temporary) = folder(options.dir.as_deref())?;
    // Until here Ctrl-C ends this process and a build at once; from here on there are daemons to end first.
    let programs = tokio::task::block_in_place(|| {
        Programs::find(options.bin_dir.as_deref(), options.gateways, options.boards > 0)
    })?;
    let mut ending = Ending::listen()?;
    eprintln!("starting the field in {}", folder.display());
    let mut field = tokio::select! {
        field = Field::start(options, programs, &replays, &climate, &folder) => field?,
        () = ending.asked() => return interrupted(options),
    };
    let outcome = watch(options, &replays, &mut field, &mut ending).await;
    let ended = field.end().await;
    let report = outcome?;
    ended?;
    Ok(report)
}

/// The two signals that ask the demo to end.
struct Ending {
    interrupt: Signal,
    terminate: Signal,
}

impl Ending {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

fn folder(asked: Option<&Path>) -> Result<(PathBuf, Option<tempfile::TempDir>), RunError> {
    let Some(path) = asked else {
        let temporary = tempfile::Builder::new().prefix("tidelog-demo-").tempdir()?;
        return Ok((temporary.path().to_owned(), Some(temporary)));
    };
    let refuse = |reason: String| RunError::Folder { path: path.to_owned(), reason };
    std::fs::create_dir_all(path).map_err(|e| refuse(e.to_string()))?;
    let mut entries = std::fs::read_dir(path).map_err(|e| refuse(e.to_string()))?;
    if entries.next().is_some() {
        return Err(refuse("the folder is not empty; a run starts from nothing".to_owned()));
    }
    Ok((path.canonicalize()?, None))
}

/// What is broken now, what will be, and what was.
struct TroubleMaker {
    seed: u64,
    chaos: Chaos,
    next: (Instant, Trouble, Duration),
    broken: Vec<(Instant, Trouble)>,
    made: Troubles,
}

impl TroubleMaker {
    fn new(seed: u64, slowdown: u32, field: &Field) -> Self {
        let sensors = field.sensors.count() + field.boards.count();
        let mut chaos = Chaos::new(seed, field.places().len() - 1, sensors, slowdown);
        let (pause, trouble, down) = chaos.next();
        let next = (Instant::now() + pause, trouble, down);
        Self { seed, chaos, next, broken: Vec::new(), made: Troubles::default() }
    }

    /// Mends what has been broken long enough, and breaks the next thing while the sensors still have something to send.
    async fn go_on(&mut self, field: &mut Field, now: Instant, sending: bool) -> Result<(), FieldError> {
        while let Some(due) = self.broken.iter().position(|(until, _)| *until <= now || !sending) {
            let (_, trouble) = self.broken.swap_remove(due);
            field.mend(trouble).await?;
        }
        let (at, trouble, down) = self.next;
        if sending && at <= now {
            if !self.broken.iter().any(|(_, broken)| *broken == trouble) {
                field.break_one(trouble).await?;
                self.made.count(trouble);
                self.broken.push((now + down, trouble));
            }
            let (pause, trouble, down) = self.chaos.next();
            self.next = (now + pause, trouble, down);
        }
        Ok(())
    }
}

async fn watch(
    options: &Options,
    replays: &[Replay],
    field: &mut Field,
    ending: &mut Ending,
) -> Result<Option<Report>, RunError> {
    let mut expected = Expected::of(replays);
    let mut known_of_boards = 0;
    let places = field.places();
    let standings = Watch::start(places.iter().map(|(_, client)| client.clone()).collect());
    introduce(options, replays, field);

    let readings: u64 = replays.iter().map(|replay| replay.readings() as u64).sum();
    let mut trouble = options.chaos.map(|seed| TroubleMaker::new(seed, options.slowdown(), field));
    let mut failover = options.failover.then(|| Failover::new(field.sensors.of_gateway(KILLED)));
    let started = Instant::now();
    let mut shown = Progress::new();
    let (mut last_move, mut last_state) = (Instant::now(), (0, 0, 0, boards::Progress::default()));
    let mut told = false;
    loop {
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            () = ending.asked() => return interrupted(options),
        }
        let now = Instant::now();
        let acknowledged = field.sensors.acknowledged();
        field.boards.check().map_err(FieldError::Board)?;
        let on_boards = field.boards.progress();
        // What a board has told and a gateway has acknowledged is in its flash and stays as it is.
        if on_boards.are_done() && on_boards.sensed > known_of_boards {
            known_of_boards = on_boards.sensed;
            add_boards(&mut expected, field);
        }
        if let Some(maker) = &mut trouble {
            maker.go_on(field, now, acknowledged < readings || !on_boards.are_done()).await?;
        }
        if let Some(failover) = &mut failover {
            let each = field.sensors.acknowledged_each();
            match failover.go_on(now, &each, acknowledged >= readings / 2) {
                Some(Step::Kill) => field.break_one(Trouble::KillGateway(KILLED)).await?,
                Some(Step::Start) => field.mend(Trouble::KillGateway(KILLED)).await?,
                None => {}
            }
        }
        let standing = standings.standings();
        let (heard, complete) = {
            let heard = field.watcher.heard();
            (heard.points(), heard.is_complete(&expected))
        };
        shown.show(now, field, &places, &standing, heard, (acknowledged, readings, on_boards));

        let state = (acknowledged, standing.iter().map(Standing::records).sum::<u64>(), heard, on_boards);
        if state != last_state {
            (last_move, last_state) = (now, state);
        }
        let all_sent = acknowledged == readings && on_boards.are_done();
        let arrived = all_sent && complete && is_level(&standing);
        let stalled = now.duration_since(last_move) > STALLED_AFTER;
        if options.once && (arrived || stalled) {
            shown.end();
            if stalled {
                eprintln!("no progress for {} s: judging what is there", STALLED_AFTER.as_secs());
                add_boards(&mut expected, field);
            }
            field.wait_ready().await?;
            let seconds = started.elapsed().as_secs_f64();
            let made = trouble.map(|maker| report::Chaos { seed: maker.seed, troubles: maker.made });
            let failover = failover.as_ref().and_then(Failover::outages).cloned();
            return judge(replays, field, &expected, seconds, made)
                .map(|report| Some(Report { failover, ..report }));
        }
        if arrived && !told {
            told = true;
            shown.end();
            eprintln!("everything has arrived everywhere; Ctrl-C ends the field");
        }
    }
}

fn add_boards(expected: &mut Expected, field: &Field) {
    for (device, samples) in field.boards.sensed() {
        expected.add_board(device, samples);
    }
}

fn interrupted(options: &Options) -> Result<Option<Report>, RunError> {
    eprintln!();
    if options.once { Err(RunError::Interrupted) } else { Ok(None) }
}

fn judge(
    replays: &[Replay],
    field: &Field,
    expected: &Expected,
    seconds: f64,
    chaos: Option<report::Chaos>,
) -> Result<Report, RunError> {
    let mut held = Vec::new();
    let mut answers = Vec::new();
    let processes = field.programs().zip(field.resident_kib());
    for ((place, client), (program, resident_kib_max)) in field.places().into_iter().zip(processes) {
        let (verdict, answer) = tokio::task::block_in_place(|| verify(&client, expected))?;
        let processor = Some(program.target.processor());
        let emulator = program.target.emulator();
        held.push(Held { place, verdict, processor, emulator, resident_kib_max });
        answers.push(answer);
    }
    let heard = field.watcher.heard();
    held.push(Held {
        place: "mqtt".to_owned(),
        verdict: heard.judge(expected),
        processor: None,
        emulator: None,
        resident_kib_max: None,
    });
    let sensed = field.boards.sensed();
    let samples = || sensed.iter().flat_map(|(_, samples)| samples);
    let boards = (field.boards.count() > 0).then(|| report::Boards {
        boards: field.boards.count(),
        samples: samples().count() as u64,
        readings: samples().map(|(_, values)| values.len() as u64).sum(),
    });
    let replayed: usize = replays.iter().map(Replay::readings).sum();
    let readings = replayed as u64 + boards.as_ref().map_or(0, |boards| boards.readings);
    let air = field.air();
    #[expect(clippy::cast_precision_loss, reason = "rates, not counts")]
    let per = |count: u64, of: f64| if of > 0.0 { (count as f64 / of * 100.0).round() / 100.0 } else { 0.0 };
    #[expect(clippy::cast_precision_loss, reason = "a divisor of a rate")]
    let readings_f64 = readings as f64;
    let mut report = Report {
        sensed: readings,
        points: expected.points(),
        lost: 0,
        duplicated: 0,
        differing: 0,
        answers_equal: answers.windows(2).all(|pair| pair[0] == pair[1]),
        seconds: (seconds * 1000.0).round() / 1000.0,
        readings_per_second: per(readings, seconds),
        air_bytes_per_reading: per(air.bytes, readings_f64),
        air_frames: air.frames,
        air_frames_lost: air.lost,
        sensors: replays.len(),
        boards,
        held,
        mqtt: heard.tally(),
        chaos,
        failover: None,
    };
    report.sum_up();
    Ok(report)
}

fn introduce(options: &Options, replays: &[Replay], field: &Field) {
    eprintln!();
    for (place, url) in field.urls() {
        eprintln!("{place:<10} {url}/api/v1/status");
    }
    for ((place, _), program) in field.places().iter().zip(field.programs()) {
        if let Some(emulator) = program.target.emulator() {
            eprintln!("{place:<10} runs on {}, emulated by {emulator}", program.target.processor());
        }
    }
    let first = replays.first().map(|replay| replay.device.to_string()).unwrap_or_default();
    let site = crate::field::SITE;
    if let Some((_, url)) = field.urls().last() {
        eprintln!("\none sensor's readings, from the cloud or from any gateway:");
        eprintln!(
            "  curl -sG {url}/api/v1/sites/{site}/points -d format=csv --data-urlencode 'match={{device=\"{first}\"}}'"
        );
    }
    let capture = options.pcap.as_ref().map_or("AIR.pcap".to_owned(), |path| path.display().to_string());
    match &field.key {
        Some(key) => {
            eprintln!("\nthe air is encrypted; a capture of it (--pcap FILE) is read with:");
            eprintln!("  tshark -r {capture} {}", key.tshark_option());
        }
        None => eprintln!("\nthe air is open: nothing on it is encrypted or authenticated"),
    }
    if let Some(broker) = &options.mqtt {
        eprintln!("\nand from the broker {broker}:  mosquitto_sub -t 'tidelog/#' -v");
    }
    eprintln!();
}

/// The live line: redrawn on a terminal, a line now and then in a file.
struct Progress {
    terminal: bool,
    every: Duration,
    last: Option<Instant>,
}

impl Progress {
    fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { terminal, every: SHOW_EVERY[usize::from(!terminal)], last: None }
    }

    fn show(
        &mut self,
        now: Instant,
        field: &Field,
        places: &[(String, crate::daemon::Client)],
        standings: &[Standing],
        heard: u64,
        (acknowledged, readings, boards): (u64, u64, boards::Progress),
    ) {
        if self.last.is_some_and(|last| now.duration_since(last) < self.every) {
            return;
        }
        self.last = Some(now);
        let mut line = format!(
            "readings: sensed {} of {readings}, acknowledged {acknowledged} |",
            field.sensors.sensed()
        );
        if boards.boards > 0 {
            line.push_str(&format!(
                " boards' samples: sensed {}, acknowledged {} |",
                boards.sensed, boards.acknowledged
            ));
        }
        line.push_str(" points:");
        for ((name, _), standing) in places.iter().zip(standings) {
            let down = if standing.answers { "" } else { " (down)" };
            line.push_str(&format!(" {name} {}{down}", standing.points));
        }
        line.push_str(&format!(" mqtt {heard} | lag:"));
        for ((name, _), standing) in places.iter().zip(standings) {
            for (cursor, lag) in &standing.cursors {
                line.push_str(&format!(" {name}/{cursor} {lag}"));
            }
        }
        let end = if self.terminal { "\x1b[K\r" } else { "\n" };
        let mut out = std::io::stderr();
        if let Err(error) = write!(out, "{line}{end}").and_then(|()| out.flush()) {
            tracing::debug!(%error, "progress cannot be shown");
        }
    }

    fn end(&self) {
        if self.terminal {
            eprintln!();
        }
    }
}
