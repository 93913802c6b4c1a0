//! The host's side of an emulated board: gives it power and takes it away as `kill -9` does, and reads its console. [`Console`] is what was told
//! there, life after life: what the flash log must hold, whatever became of the frames. Nothing here knows what a gateway has.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// The metrics of a sample in the order in which the console tells them, and how many parts of its unit it counts in.
pub const METRICS: [(&str, f64); 4] = [
    ("temperature_celsius", 100.0),
    ("humidity_percent", 100.0),
    ("illuminance_lux", 100.0),
    ("battery_volts", 1000.0),
];
/// The program that runs boards.
pub const EMULATOR: &str = "qemu-system-arm";
/// Lines that are kept; the oldest go first.
const LINES_MAX: usize = 10_000;

/// One sample, as the console told it before it was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sensed {
    /// Unix milliseconds.
    pub at_ms: i64,
    /// Whole parts of each metric's unit; `None`: not read.
    pub parts: [Option<i64>; METRICS.len()],
}

/// Why a console can't be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConsoleError {
    /// A line of a known kind that is not spelt as such.
    #[error("cannot be read")]
    Unreadable,
    /// The flash holds another log than before.
    #[error("another log than the one of epoch {0}")]
    OtherLog(u64),
    /// What was sensed does not follow what is in the flash.
    #[error("number {got} where {wanted} comes next")]
    OutOfOrder {
        /// The number that is told.
        got: u64,
        /// The one after the last that is known.
        wanted: u64,
    },
    /// A sample that another one was told after, so that it was stored, is gone.
    #[error("the flash ends at {head}, and {told} was told before")]
    Forgotten {
        /// The last number in the flash.
        head: u64,
        /// The last number that was told.
        told: u64,
    },
    /// The log says that it lost samples.
    #[error("{0} samples lost in flash")]
    Lost(u64),
}

/// What a board told through all its lives.
#[derive(Debug, Default)]
pub struct Console {
    lines: VecDeque<String>,
    wrong: Vec<(String, ConsoleError)>,
    epoch: Option<u64>,
    sensed: BTreeMap<u64, Sensed>,
    acknowledged: u64,
    readings_ended: bool,
}

/// The number behind `name=` in a line.
fn named(line: &str, name: &str) -> Option<u64> {
    line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

fn sensed(told: &str) -> Option<(u64, Sensed)> {
    let (number, rest) = told.split_once(" at ")?;
    let (at, values) = rest.split_once(" ms: ")?;
    let mut parts = [None; METRICS.len()];
    let mut values = values.split(' ');
    for slot in &mut parts {
        *slot = match values.next()? {
            "none" => None,
            value => Some(value.parse().ok()?),
        };
    }
    let sample = Sensed { at_ms: at.parse().ok()?, parts };
    values.next().is_none().then_some((number.parse().ok()?, sample))
}

impl Console {
    /// Takes one line.
    pub fn take(&mut self, line: String) {
        if let Err(error) = self.understand(&line) {
            self.wrong.push((line.clone(), error));
        }
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    fn understand(&mut self, line: &str) -> Result<(), ConsoleError> {
        if let Some(log) = line.strip_prefix("flash log: ") {
            self.begin(log)
        } else if let Some(told) = line.strip_prefix("sensed ") {
            let (seq, sample) = sensed(told).ok_or(ConsoleError::Unreadable)?;
            self.follows(seq)?;
            self.sensed.insert(seq, sample);
            Ok(())
        } else if let Some(told) = line.strip_prefix("acknowledged ") {
            let number = told.split(';').next().and_then(|number| number.parse().ok());
            self.acknowledged = number.ok_or(ConsoleError::Unreadable)?;
            Ok(())
        } else {
            self.readings_ended |= line.starts_with("readings: the file's ");
            Ok(())
        }
    }

    /// A life begins: what was sensed and is beyond the log's head never reached the flash.
    fn begin(&mut self, log: &str) -> Result<(), ConsoleError> {
        let number = |name| named(log, name).ok_or(ConsoleError::Unreadable);
        let (epoch, head, acknowledged, lost) =
            (number("epoch")?, number("head")?, number("acknowledged")?, number("lost")?);
        let known = *self.epoch.get_or_insert(epoch);
        if known != epoch {
            return Err(ConsoleError::OtherLog(known));
        }
        if head > self.head() {
            return Err(ConsoleError::OutOfOrder { got: head, wanted: self.head() });
        }
        let told = self.head();
        if head + 1 < told {
            return Err(ConsoleError::Forgotten { head, told });
        }
        self.sensed.split_off(&(head + 1));
        self.acknowledged = acknowledged;
        self.readings_ended = false;
        if lost > 0 { Err(ConsoleError::Lost(lost)) } else { Ok(()) }
    }

    fn follows(&self, seq: u64) -> Result<(), ConsoleError> {
        let wanted = self.head() + 1;
        if seq == wanted { Ok(()) } else { Err(ConsoleError::OutOfOrder { got: seq, wanted }) }
    }

    /// The number of the last sample that was told.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.sensed.last_key_value().map_or(0, |(seq, _)| *seq)
    }

    /// The number up to which a gateway is known to have them.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Whether everything that was to be measured was, and a gateway has it.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.readings_ended && self.acknowledged == self.head()
    }

    /// The samples by their numbers. The last one of a life that was cut may be missing from the flash until the next life says that it is not.
    #[must_use]
    pub fn sensed(&self) -> &BTreeMap<u64, Sensed> {
        &self.sensed
    }

    /// The lines that can't be right, and why.
    #[must_use]
    pub fn wrong(&self) -> &[(String, ConsoleError)] {
        &self.wrong
    }

    /// The lines, the oldest first.
    pub fn lines(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }
}

/// Whether boards can run on this machine: it has [`EMULATOR`].
#[must_use]
pub fn can_run() -> bool {
    Command::new(EMULATOR)
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// What an emulated board is made of.
#[derive(Clone, Debug)]
pub struct BoardOptions {
    /// `firmware/boards/mps2-an386/run`.
    pub script: PathBuf,
    /// The board's program; `None` leaves it to the script and its environment.
    pub program: Option<PathBuf>,
    /// The file behind its flash, made when it is missing.
    pub flash: PathBuf,
    /// The Unix socket of its radio co-processor.
    pub radio: PathBuf,
    /// What it is told, `name=value`.
    pub words: Vec<OsString>,
}

/// A board through all its lives. Dropping it takes its power away.
#[derive(Debug)]
pub struct Board {
    options: BoardOptions,
    life: Option<(Child, JoinHandle<()>)>,
    console: Arc<Mutex<Console>>,
}

impl Board {
    /// One without power.
    #[must_use]
    pub fn new(options: BoardOptions) -> Self {
        Self { options, life: None, console: Arc::default() }
    }

    /// What it is made of.
    #[must_use]
    pub fn options(&self) -> &BoardOptions {
        &self.options
    }

    /// What it is told; takes effect with the next life.
    pub fn words_mut(&mut self) -> &mut Vec<OsString> {
        &mut self.options.words
    }

    /// Gives it power, if it has none.
    ///
    /// # Errors
    /// When the script can't be run.
    pub fn power_on(&mut self) -> io::Result<()> {
        if self.life.is_some() {
            return Ok(());
        }
        let BoardOptions { script, program, flash, radio, words } = &self.options;
        let mut command = Command::new(script);
        command.arg(flash).arg(radio).args(words).stdin(Stdio::null()).stdout(Stdio::piped());
        if let Some(program) = program {
            command.env("TIDELOG_BOARD", program);
        }
        // A group of its own: Ctrl-C on the terminal is for whoever runs the board.
        let mut child = command.process_group(0).spawn()?;
        let out = child.stdout.take();
        let console = Arc::clone(&self.console);
        let reader = std::thread::spawn(move || {
            let Some(out) = out else { return };
            let (mut out, mut line) = (BufReader::new(out), Vec::new());
            // A line that a cut left without its end was never said; a console that can't be read any more is at its end.
            while out.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                if let Some(whole) = line.strip_suffix(b"\n") {
                    let whole =
                        String::from_utf8_lossy(whole.strip_suffix(b"\r").unwrap_or(whole)).into_owned();
                    console.lock().unwrap_or_else(PoisonError::into_inner).take(whole);
                }
                line.clear();
            }
        });
        self.life = Some((child, reader));
        Ok(())
    }

    /// Takes the power away, and reads what the console told to its end.
    ///
    /// # Errors
    /// When the system refuses to kill the process.
    pub fn cut(&mut self) -> io::Result<()> {
        let Some((mut child, reader)) = self.life.take() else { return Ok(()) };
        child.kill()?;
        child.wait()?;
        reader.join().map_err(|_| io::Error::other("the reader of the console ended early"))
    }

    /// Its end, if it has ended by itself: a board never does.
    ///
    /// # Errors
    /// When the system can't tell.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        match &mut self.life {
            Some((child, _)) => child.try_wait(),
            None => Ok(None),
        }
    }

    /// What it told so far.
    pub fn console(&self) -> MutexGuard<'_, Console> {
        self.console.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        if let Err(error) = self.cut() {
            tracing::warn!(%error, "an emulated board may be left running");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console(lines: &[&str]) -> Console {
        let mut console = Console::default();
        for line in lines {
            console.take((*line).to_owned());
        }
        console
    }

    const START: &str = "flash log: epoch=7 head=0 acknowledged=0 lost=0";

    #[test]
    fn what_was_told_and_never_reached_the_flash_is_forgotten_when_the_next_life_says_so() {
        let mut board = console(&[
            START,
            "radio: ready",
            "sensed 1 at 1000 ms: 2374 4534 none 3000",
            "sensed 2 at 1150 ms: -20 4534 8192 2999",
            "acknowledged 1; 3 frames of 257 bytes sent, stack 9588 bytes",
            "sensed 3 at 1300 ms: 2375 4535 8193 2999",
        ]);
        assert_eq!((board.head(), board.acknowledged(), board.is_done()), (3, 1, false));
        board.take("flash log: epoch=7 head=2 acknowledged=1 lost=0".to_owned());
        assert_eq!(board.head(), 2);
        board.take("sensed 3 at 9000 ms: 2375 4535 8193 2999".to_owned());
        board.take("readings: the file's 3 are at their end".to_owned());
        assert!(!board.is_done());
        board.take("acknowledged 3; 9 frames of 700 bytes sent, stack 9588 bytes".to_owned());
        assert!(board.is_done());
        assert_eq!(board.wrong(), []);
        let sensed: Vec<_> = board.sensed().values().map(|sensed| (sensed.at_ms, sensed.parts[0])).collect();
        assert_eq!(sensed, [(1000, Some(2374)), (1150, Some(-20)), (9000, Some(2375))]);
        assert_eq!(board.sensed()[&1].parts, [Some(2374), Some(4534), None, Some(3000)]);
    }

    #[test]
    fn what_cannot_be_right_is_kept_with_its_reason() {
        use ConsoleError::{Forgotten, Lost, OtherLog, OutOfOrder, Unreadable};
        for (line, error) in [
            ("sensed 2 at 1 ms: 1 2 3 4", OutOfOrder { got: 2, wanted: 1 }),
            ("sensed 1 at 1 ms: 1 2 3", Unreadable),
            ("sensed 1 at 1 ms: 1 2 3 4 5", Unreadable),
            ("sensed 1 at noon", Unreadable),
            ("acknowledged all", Unreadable),
            ("flash log: epoch=8 head=0 acknowledged=0 lost=0", OtherLog(7)),
            ("flash log: epoch=7 head=1 acknowledged=0 lost=0", OutOfOrder { got: 1, wanted: 0 }),
            ("flash log: epoch=7 head=0 acknowledged=0 lost=2", Lost(2)),
            ("flash log: epoch=7", Unreadable),
        ] {
            assert_eq!(console(&[START, line]).wrong(), [(line.to_owned(), error)]);
        }
        let [one, two] = ["sensed 1 at 1 ms: 1 2 3 4", "sensed 2 at 2 ms: 1 2 3 4"];
        let wrong = (START.to_owned(), Forgotten { head: 0, told: 2 });
        assert_eq!(console(&[START, one, two, START]).wrong(), [wrong]);
    }
}
