//! The emulated boards of the field: real Cortex-M programs in QEMU, each with a simulated co-processor on the air and a file of what there is to
//! measure around it. What they sensed is what their consoles told. It knows gateways by their addresses alone.

use std::io;
use std::path::{Path, PathBuf};

use tidelog_firmware::opt3001::EXPONENT_MAX;
use tidelog_record::{DeviceId, Value};
use tidelog_sim::air::Air;
use tidelog_sim::board::{self, Board, BoardOptions, METRICS};
use tidelog_sim::rcp::{Place, Rcp, RcpError};

use crate::feed::Replay;
use crate::key::RadioKey;

/// A board's place in the folder that it was built in.
const SCRIPT: &str = "firmware/boards/mps2-an386/run";
/// How often a board senses in a run that ends, and how many samples it takes; its chip for light measures for 100 ms.
const INTERVAL_MS_ONCE: u32 = 150;
const SAMPLES_ONCE: usize = 150;
/// How often it senses otherwise.
const INTERVAL_MS_LIVE: u32 = 1_000;
/// How long a sample waits for others.
const LINGER_MS: u32 = 800;
/// A board's battery, in millivolts: what it has at first, and after how many samples it has one less.
const BATTERY_MV: u16 = 3_000;
const SAMPLES_PER_MV: usize = 16;
/// The data knows light and dark only: in hundredths of a lux.
const LIGHT: u32 = 15_000;
const DARK: u32 = 40;

/// Why boards can't be there.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// The data.
    #[error("the data has no device that reports both temp and humidity, which boards measure")]
    NoClimate,
    /// A radio.
    #[error(transparent)]
    Radio(#[from] RcpError),
    /// Its folder can't be in a command line.
    #[error("boards' files can't be in {0}: a board takes no path with spaces")]
    Path(PathBuf),
    /// It ended, which a board never does.
    #[error("the emulator of board {device} ended with {status}; it said: {said}")]
    Ended {
        /// The board.
        device: DeviceId,
        /// How.
        status: std::process::ExitStatus,
        /// The last lines of its console.
        said: String,
    },
    /// Its console told what can't be.
    #[error("board {device} said '{line}': {reason}")]
    Wrong {
        /// The board.
        device: DeviceId,
        /// What it said.
        line: String,
        /// Why that can't be.
        reason: board::ConsoleError,
    },
    /// The system refused something else.
    #[error(transparent)]
    Io(#[from] io::Error),
}

struct Station {
    device: DeviceId,
    board: Board,
    _radio: Rcp,
}

/// What the boards have done so far, in samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Boards.
    pub boards: usize,
    /// Those that have measured all that they should, and know it to be with a gateway.
    pub done: usize,
    /// Samples that were sensed.
    pub sensed: u64,
    /// Samples that gateways acknowledged.
    pub acknowledged: u64,
}

impl Progress {
    /// Whether all boards are done.
    #[must_use]
    pub fn are_done(&self) -> bool {
        self.done == self.boards
    }
}

/// All boards of the field.
pub struct Boards {
    stations: Vec<Station>,
}

/// The n-th board's address.
fn eui(index: usize) -> DeviceId {
    let number = u16::try_from(index + 1).unwrap_or(u16::MAX).to_be_bytes();
    DeviceId([0x02, 0x12, 0x4b, 0x01, 0, 0, number[0], number[1]])
}

impl Boards {
    /// None.
    #[must_use]
    pub fn none() -> Self {
        Self { stations: Vec::new() }
    }

    /// Starts `count` boards on this air; every other one has the second gateway as its primary. With `once` each measures for a while, then nothing
    /// more.
    ///
    /// # Errors
    /// [`BoardError`].
    pub async fn start(
        count: usize,
        program: PathBuf,
        folder: &Path,
        gateways: &[DeviceId; 2],
        air: &Air,
        key: Option<&RadioKey>,
        (replays, once): (&[Replay], bool),
    ) -> Result<Self, BoardError> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(SCRIPT);
        let mut stations = Vec::with_capacity(count);
        for index in 0..count {
            let device = eui(index);
            let file = |what: &str| folder.join(format!("board-{}.{what}", index + 1));
            let (flash, radio, readings) = (file("flash"), file("radio"), file("readings"));
            if readings.to_string_lossy().contains(char::is_whitespace) {
                return Err(BoardError::Path(folder.to_owned()));
            }
            std::fs::write(&readings, rows(replays, index, once.then_some(SAMPLES_ONCE))?)?;
            let mut hardware = device;
            hardware.0[3] = 0xfe;
            let rcp = Rcp::start(&Place::Unix(radio.clone()), air.address(), hardware).await?;
            let [first, second] = gateways;
            let (primary, backup) = if index % 2 == 0 { (first, second) } else { (second, first) };
            let interval_ms = if once { INTERVAL_MS_ONCE } else { INTERVAL_MS_LIVE };
            let words = [
                format!("eui={device}"),
                format!("gateway={primary}"),
                format!("backup={backup}"),
                format!("key={}", key.map_or("open".to_owned(), RadioKey::hex)),
                format!("interval_ms={interval_ms}"),
                format!("linger_ms={LINGER_MS}"),
                format!("readings={}", readings.display()),
            ];
            let words = words.map(Into::into).to_vec();
            let options =
                BoardOptions { script: script.clone(), program: Some(program.clone()), flash, radio, words };
            let mut board = Board::new(options);
            board.power_on()?;
            stations.push(Station { device, board, _radio: rcp });
        }
        Ok(Self { stations })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.stations.len()
    }

    /// How far they are.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let mut progress = Progress { boards: self.stations.len(), ..Progress::default() };
        for station in &self.stations {
            let console = station.board.console();
            progress.done += usize::from(console.is_done());
            progress.sensed += console.head();
            progress.acknowledged += console.acknowledged();
        }
        progress
    }

    /// Whether all are as boards should be.
    ///
    /// # Errors
    /// [`BoardError`] names the first that is not.
    pub fn check(&mut self) -> Result<(), BoardError> {
        for Station { device, board, .. } in &mut self.stations {
            let ended = board.ended()?;
            let console = board.console();
            if let Some((line, reason)) = console.wrong().first() {
                return Err(BoardError::Wrong {
                    device: *device,
                    line: line.clone(),
                    reason: reason.clone(),
                });
            }
            if let Some(status) = ended {
                let last: Vec<_> = console.lines().rev().take(3).collect();
                let said = last.into_iter().rev().collect::<Vec<_>>().join(" / ");
                return Err(BoardError::Ended { device: *device, status, said });
            }
        }
        Ok(())
    }

    /// What each board sensed: its address, and its samples in order, each with its time in milliseconds and its values.
    pub fn sensed(&self) -> Vec<(DeviceId, Vec<Sample>)> {
        let samples = |station: &Station| {
            let console = station.board.console();
            let samples = console.sensed().values().map(|sensed| {
                let values = sensed.parts.iter().zip(METRICS).filter_map(|(parts, (metric, of))| {
                    #[expect(clippy::cast_precision_loss, reason = "some millions")]
                    Some((metric, Value::F64((*parts)? as f64 / of)))
                });
                (sensed.at_ms, values.collect())
            });
            (station.device, samples.collect())
        };
        self.stations.iter().map(samples).collect()
    }

    /// Takes a board's power away.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn power_cut(&mut self, index: usize) -> io::Result<()> {
        self.stations[index].board.cut()
    }

    /// Gives it back.
    ///
    /// # Errors
    /// When its emulator can't be started.
    pub fn power_on(&mut self, index: usize) -> io::Result<()> {
        self.stations[index].board.power_on()
    }

    /// Takes all power away.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn end(&mut self) -> io::Result<()> {
        self.stations.iter_mut().try_for_each(|station| station.board.cut())
    }
}

/// Milliseconds, and metrics with their values.
pub type Sample = (i64, Vec<(&'static str, Value)>);

/// What there is to measure around the n-th board, as its file holds it: climate and light of one of the data's devices.
fn rows(replays: &[Replay], index: usize, most: Option<usize>) -> Result<Vec<u8>, BoardError> {
    let place = |replay: &Replay, name| replay.metrics.iter().position(|metric| metric.name == name);
    let climates: Vec<_> = replays
        .iter()
        .filter_map(|replay| Some((replay, place(replay, "temp")?, place(replay, "humidity")?)))
        .collect();
    let (replay, temperature, humidity) =
        *climates.get(index % climates.len().max(1)).ok_or(BoardError::NoClimate)?;
    let light = place(replay, "light");
    let mut bytes = Vec::new();
    let of = |values: &[Option<Value>], place: usize| match values.get(place) {
        Some(Some(Value::F64(value))) => Some(*value),
        #[expect(clippy::cast_precision_loss, reason = "degrees and percent")]
        Some(Some(Value::I64(value))) => Some(*value as f64),
        _ => None,
    };
    let samples = replay.samples.iter().filter_map(|sample| {
        let (celsius, percent) = (of(&sample.values, temperature)?, of(&sample.values, humidity)?);
        let shines = light.and_then(|place| of(&sample.values, place)).is_some_and(|light| light > 0.0);
        Some((celsius, percent, if shines { LIGHT } else { DARK }))
    });
    for (number, (celsius, percent, light)) in samples.take(most.unwrap_or(usize::MAX)).enumerate() {
        let worn = u16::try_from(number / SAMPLES_PER_MV).unwrap_or(u16::MAX);
        let words = [
            sht4x_word(celsius, -45.0, 175.0),
            sht4x_word(percent, -6.0, 125.0),
            opt3001_word(light),
            BATTERY_MV.saturating_sub(worn),
        ];
        bytes.extend(words.into_iter().flat_map(u16::to_le_bytes));
    }
    Ok(bytes)
}

/// The word for which an SHT4x stands that shows `low + span × word / 65535` (data sheet, section 4.6).
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
fn sht4x_word(value: f64, low: f64, span: f64) -> u16 {
    ((value - low) / span * f64::from(u16::MAX)).round().clamp(0.0, f64::from(u16::MAX)) as u16
}

/// The result register of an OPT3001 in so much light (data sheet, section 7.6.1.1.1).
fn opt3001_word(hundredths: u32) -> u16 {
    let exponent = (0..EXPONENT_MAX).find(|exponent| hundredths >> exponent < 4096).unwrap_or(EXPONENT_MAX);
    let mantissa = (hundredths >> exponent).min(4095);
    u16::from(exponent) << 12 | u16::try_from(mantissa).unwrap_or(4095)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed;

    #[test]
    fn a_boards_file_holds_what_the_chips_show_of_the_data() {
        let replays = feed::replays(None, None, None).unwrap();
        let bytes = rows(&replays, 1, Some(10)).unwrap();
        assert_eq!(bytes.len(), 80);
        let word = |place: usize| f64::from(u16::from_le_bytes([bytes[place], bytes[place + 1]]));
        let values = &replays[1].samples[0].values;
        let named = |name| replays[1].metrics.iter().position(|metric| metric.name == name).unwrap();
        let Some(Value::F64(celsius)) = values[named("temp")] else { panic!("{values:?}") };
        let Some(Value::F64(percent)) = values[named("humidity")] else { panic!("{values:?}") };
        assert!((word(0) * 175.0 / 65535.0 - 45.0 - celsius).abs() < 0.005);
        assert!((word(2) * 125.0 / 65535.0 - 6.0 - percent).abs() < 0.005);
        assert_eq!(word(6), 3_000.0);
    }

    #[test]
    fn light_becomes_the_finest_result_that_can_hold_it() {
        for (hundredths, word) in
            [(0, 0), (40, 40), (4_095, 0x0fff), (4_096, 0x1800), (15_000, 0x2ea6), (u32::MAX, 0xbfff)]
        {
            assert_eq!(opt3001_word(hundredths), word, "{hundredths}");
        }
    }

    #[test]
    fn data_without_climate_is_refused() {
        assert!(matches!(rows(&[], 0, None), Err(BoardError::NoClimate)));
    }
}
