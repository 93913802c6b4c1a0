//! A gateway's commands: begun at most once, never after they expired, never before this flash knows its own history
//! (invariant 12). What became of one is told by events, which stand in the flash log and travel like any reading.
//!
//! ```text
//! note 0   what was begun last: act << 60 | id of the command. Act 0: nothing is under way
//! note 1   the interval that was asked for, ms
//! note 2   no event was told at a later tick, ms
//!
//! begin    note 0 with the act ▸ event "started" ▸ the act ▸ event with the outcome ▸ note 0 without the act
//! ```
//! Whatever moment the power goes at, the note says what was under way. A restart tells the outcome then, unless the last thing in the
//! log is just that: nothing is appended between the outcome and the note behind it, so it is told once. A log without note 0 notes
//! the time when it first learns it; what was issued before was perhaps begun in a life that this flash has forgotten.
//!
//! It refuses to know the radio, and how anything is done: that is the sampler's.

use embedded_storage::nor_flash::NorFlash;
use tidelog_flashlog::{Error, FlashLog, PAYLOAD_BYTES_MAX};
use tidelog_lowpan::time::{Duration, Instant};
use tidelog_record::uplink::{
    Act, Command, CommandId, CommandState, METRICS_MAX, Reading, SAMPLE_BYTES_MAX, Sample, Schema,
};

use crate::config::{AppConfig, WhenFull};
use crate::sampler::{Moment, Refusal, Sampler};

/// The shortest interval that a command can ask for, in milliseconds.
pub const INTERVAL_MS_MIN: u32 = 100;
/// The longest interval that a command can ask for, in milliseconds: a day.
pub const INTERVAL_MS_MAX: u32 = 24 * 3600 * 1000;
/// How long a reboot waits for the word that it begins to be acknowledged.
const REBOOT_WAIT_MAX: Duration = Duration::from_secs(5);

const BEGUN_SLOT: u8 = 0;
const INTERVAL_SLOT: u8 = 1;
const TICK_SLOT: u8 = 2;

/// Ids are below 2^60.
const ACT_SHIFT: u32 = 60;
const ID_MASK: u64 = (1 << ACT_SHIFT) - 1;
const ACT_REBOOT: u64 = 4;

/// What an event takes in flash at most, in bytes: the record's head, the schema, the tick, the id, the state.
const EVENT_BYTES: usize = 8 + 5 + 9 + 9 + 1;
/// What a note takes, in bytes.
const NOTE_BYTES: usize = 24;
/// What all records of one command take at most: two events, a reading, and the notes around them.
const COMMAND_BYTES: usize = 2 * EVENT_BYTES + 8 + SAMPLE_BYTES_MAX + 5 * NOTE_BYTES;

/// When an answer arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard {
    /// By the board's clock.
    pub now: Instant,
    /// By the answer, Unix milliseconds.
    pub unix_ms: i64,
    /// The latest that it can be, Unix milliseconds: the answer is no older than the question.
    pub latest_ms: i64,
}

/// What came of an answer's command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// It was begun.
    pub begun: bool,
    /// It left a reading in the log.
    pub read: bool,
}

#[derive(Clone, Copy, Debug)]
struct Reboot {
    /// The number of the event that says that it begins.
    started_seq: u64,
    at: Instant,
}

/// How far the sensor is with commands.
#[derive(Debug)]
pub(crate) struct Commands {
    events: Schema<'static>,
    /// Whether what the flash says of earlier lives was looked at.
    resumed: bool,
    /// What a command of an earlier life ended in, as long as it is not told.
    untold: Option<(CommandId, CommandState)>,
    reboot: Option<Reboot>,
    /// The last event's, as far as is known.
    tick: i64,
}

impl Commands {
    pub fn new(events: Schema<'static>) -> Self {
        Self { events, resumed: false, untold: None, reboot: None, tick: 0 }
    }

    /// Whether something waits to be told that needs the time.
    pub fn need_time(&self) -> bool {
        self.untold.is_some()
    }

    /// When the board is to be started anew at the latest.
    pub fn reboot_at(&self) -> Option<Instant> {
        self.reboot.map(|reboot| reboot.at)
    }

    /// Whether the board is to be started anew now: what it said of it has arrived, or had its time.
    pub fn reboot_due(&self, now: Instant, acknowledged: u64) -> bool {
        self.reboot.is_some_and(|reboot| acknowledged >= reboot.started_seq || now >= reboot.at)
    }

    /// Looks once at what earlier lives left: the interval, and a command that was under way when the last one ended.
    pub fn resume<F: NorFlash, S: Sampler>(
        &mut self,
        log: &mut FlashLog<F>,
        sampler: &mut S,
        now: Instant,
    ) -> Result<(), Error<F::Error>> {
        if self.resumed {
            return Ok(());
        }
        if let Some(interval) = log.noted(INTERVAL_SLOT).and_then(|ms| interval(u32::try_from(ms).ok()?)) {
            // A board that knows no intervals any more goes on as it does without.
            sampler.every(now, interval).unwrap_or_default();
        }
        self.tick = log.noted(TICK_SLOT).unwrap_or(0).try_into().unwrap_or(i64::MAX);
        if let Some((act, Some(id))) = begun(log).filter(|(act, _)| *act != 0) {
            if self.last_told(log)? == Some(id) {
                log.note(BEGUN_SLOT, id.number())?;
            } else {
                let state = if act == ACT_REBOOT { CommandState::Done } else { CommandState::Interrupted };
                self.untold = Some((id, state));
            }
        }
        self.resumed = true;
        Ok(())
    }

    /// Tells what a command of an earlier life ended in, as soon as the time is known and there is room.
    pub fn tell<F: NorFlash>(
        &mut self,
        log: &mut FlashLog<F>,
        when_full: WhenFull,
        unix_ms: Option<i64>,
    ) -> Result<(), Error<F::Error>> {
        if let (Some((id, state)), Some(unix_ms)) = (self.untold, unix_ms)
            && has_room(log, when_full, EVENT_BYTES + 2 * NOTE_BYTES)
        {
            self.end(log, id, state, unix_ms)?;
            self.untold = None;
        }
        Ok(())
    }

    /// Begins an answer's command, unless it must not be begun; a log that has no history yet begins one here.
    pub fn take<F: NorFlash, S: Sampler>(
        &mut self,
        log: &mut FlashLog<F>,
        sampler: &mut S,
        config: &AppConfig<'_>,
        heard: Heard,
        command: Option<Command>,
    ) -> Result<Taken, Error<F::Error>> {
        let Some((under_way, last)) = begun(log) else {
            if let Some(floor) = CommandId::new(heard.latest_ms, 0)
                && has_room(log, config.when_full, NOTE_BYTES)
            {
                log.note(BEGUN_SLOT, floor.number())?;
            }
            return Ok(Taken::default());
        };
        let Some(command) = command else { return Ok(Taken::default()) };
        if under_way != 0
            || last.is_none_or(|last| command.id <= last)
            || heard.latest_ms >= command.expires_ms
            || !has_room(log, config.when_full, COMMAND_BYTES)
        {
            return Ok(Taken::default());
        }
        log.note(BEGUN_SLOT, act_number(command.act) << ACT_SHIFT | command.id.number())?;
        let started_seq = self.event(log, command.id, CommandState::Started, heard.unix_ms)?;
        let mut taken = Taken { begun: true, read: false };
        let done = match command.act {
            Act::Read => {
                let moment = Moment { now: heard.now, unix_ms: Some(heard.unix_ms), seq: log.head() + 1 };
                match sampler.read(moment) {
                    Ok(sample) => {
                        append(log, &config.schema, &sample)?;
                        taken.read = true;
                        Ok(())
                    }
                    Err(refusal) => Err(refusal),
                }
            }
            Act::Every { interval_ms } => {
                let set = interval(interval_ms).ok_or(Refusal::Failed);
                let set = set.and_then(|interval| sampler.every(heard.now, interval));
                if set.is_ok() {
                    log.note(INTERVAL_SLOT, u64::from(interval_ms))?;
                }
                set
            }
            Act::Switch { output, on } => sampler.switch(output, on),
            Act::Identify { seconds } => sampler.identify(heard.now, seconds),
            Act::Reboot if sampler.can_reboot() => {
                // Its end is told by the next life.
                self.reboot = Some(Reboot { started_seq, at: heard.now + REBOOT_WAIT_MAX });
                return Ok(taken);
            }
            Act::Reboot | Act::Unknown(_) => Err(Refusal::Unsupported),
        };
        let state = match done {
            Ok(()) => CommandState::Done,
            Err(Refusal::Failed) => CommandState::Failed,
            Err(Refusal::Unsupported) => CommandState::Unsupported,
        };
        self.end(log, command.id, state, heard.unix_ms)?;
        Ok(taken)
    }

    /// Nothing may be appended between the two: a restart knows by that whether the outcome was told.
    fn end<F: NorFlash>(
        &mut self,
        log: &mut FlashLog<F>,
        id: CommandId,
        state: CommandState,
        unix_ms: i64,
    ) -> Result<(), Error<F::Error>> {
        self.event(log, id, state, unix_ms)?;
        log.note(BEGUN_SLOT, id.number())
    }

    /// Appends an event, at a tick of its own; its number.
    fn event<F: NorFlash>(
        &mut self,
        log: &mut FlashLog<F>,
        id: CommandId,
        state: CommandState,
        unix_ms: i64,
    ) -> Result<u64, Error<F::Error>> {
        self.tick = unix_ms.max(self.tick.saturating_add(1));
        let tick = self.tick.unsigned_abs();
        if log.noted(TICK_SLOT).is_none_or(|noted| noted < tick) {
            // One ahead: the outcome mostly follows at once.
            log.note(TICK_SLOT, tick + 1)?;
        }
        let mut values = [None; METRICS_MAX];
        let told = [id.to_reading(), state.number()];
        for (value, told) in values.iter_mut().zip(told) {
            *value = Some(Reading::I64(told));
        }
        append(log, &self.events, &Sample { ticks: self.tick, values })
    }

    /// The command whose outcome is the last thing in the log.
    fn last_told<F: NorFlash>(&self, log: &mut FlashLog<F>) -> Result<Option<CommandId>, Error<F::Error>> {
        let mut bytes = [0; PAYLOAD_BYTES_MAX];
        let Some(before) = log.head().checked_sub(1) else { return Ok(None) };
        let Some((_, length)) = log.read_after(before, &mut bytes)? else { return Ok(None) };
        let last = Sample::load(&self.events, bytes.get(..length).unwrap_or_default());
        Ok(match last.map(|sample| sample.values) {
            Ok([Some(Reading::I64(id)), Some(Reading::I64(state)), ..])
                if state != CommandState::Started.number() =>
            {
                u64::try_from(id).ok().and_then(CommandId::from_number)
            }
            _ => None,
        })
    }
}

/// What was begun last, and which act of it is under way.
fn begun<F: NorFlash>(log: &FlashLog<F>) -> Option<(u64, Option<CommandId>)> {
    let noted = log.noted(BEGUN_SLOT)?;
    Some((noted >> ACT_SHIFT, CommandId::from_number(noted & ID_MASK)))
}

fn act_number(act: Act) -> u64 {
    match act {
        Act::Read => 1,
        Act::Every { .. } => 2,
        Act::Switch { .. } => 3,
        Act::Reboot => ACT_REBOOT,
        Act::Identify { .. } => 5,
        Act::Unknown(_) => 15,
    }
}

fn interval(ms: u32) -> Option<Duration> {
    (INTERVAL_MS_MIN..=INTERVAL_MS_MAX).contains(&ms).then(|| Duration::from_millis(u64::from(ms)))
}

fn has_room<F: NorFlash>(log: &FlashLog<F>, when_full: WhenFull, bytes: usize) -> bool {
    when_full == WhenFull::LoseOldest || log.fits(bytes)
}

/// Appends a sample; its number.
pub(crate) fn append<F: NorFlash>(
    log: &mut FlashLog<F>,
    schema: &Schema<'_>,
    sample: &Sample,
) -> Result<u64, Error<F::Error>> {
    let mut bytes = [0u8; SAMPLE_BYTES_MAX];
    let length = sample.store(schema, &mut bytes).map_err(|_| Error::TooLong)?;
    log.append(bytes.get(..length).unwrap_or_default())
}
