//! What a sensor can be told to do, and what it says of it: the bytes of a command in an answer, and the schema under
//! which its start and its end travel like any reading.
//!
//! ```text
//! command  := [ id u64, expires, Unix ms i64, act u8, { argument } ]
//! act      := 0 read now | 1 sample every: ms u32 | 2 switch: output u8, on bool | 3 reboot | 4 identify: seconds u8
//! id       := issued, Unix ms · 2^16 | author u16
//! ```
//! Ids of one sensor's commands grow with the time they were issued at, so a sensor that remembers the greatest it began
//! begins none twice, and none after a later one. It knows no clock, and does not know who executes anything.

use core::fmt;
use core::str::FromStr;

use super::schema::{Metric, Schema, SchemaError};
use crate::msgpack::{Full, Reader, Unexpected, Writer};

/// The first moment that no command can be issued at, Unix milliseconds: some five centuries after 1970.
const ISSUED_MS_END: u64 = 1 << 44;

const AUTHOR_BITS: u32 = 16;

/// The name of a command: when it was issued, and something of who issued it. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(u64);

impl CommandId {
    /// The id of a command issued at `issued_ms` (Unix milliseconds) by `author`. `None` for a time that is no present.
    #[must_use]
    pub fn new(issued_ms: i64, author: u16) -> Option<Self> {
        let ms = u64::try_from(issued_ms).ok().filter(|ms| (1..ISSUED_MS_END).contains(ms))?;
        Some(Self(ms << AUTHOR_BITS | u64::from(author)))
    }

    /// When it was issued, Unix milliseconds.
    #[must_use]
    pub fn issued_ms(self) -> i64 {
        (self.0 >> AUTHOR_BITS).cast_signed()
    }

    /// The number itself.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }

    /// The id with this number, if there can be one.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        (1..ISSUED_MS_END).contains(&(number >> AUTHOR_BITS)).then_some(Self(number))
    }

    /// As the value of a reading: below 2^60.
    #[must_use]
    pub fn to_reading(self) -> i64 {
        self.0.cast_signed()
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:015x}", self.0)
    }
}

/// The text is no command's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a command's id: expected 15 hex digits, as the answer to a command gives them")]
pub struct ParseCommandIdError;

impl FromStr for CommandId {
    type Err = ParseCommandIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = text.len() == 15 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).ok().filter(|_| plain);
        number.and_then(Self::from_number).ok_or(ParseCommandIdError)
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Take a sample now.
    Read,
    /// Take one sample each so many milliseconds from now on, also after a restart.
    Every {
        /// The interval, milliseconds.
        interval_ms: u32,
    },
    /// Switch an output.
    Switch {
        /// Which, by the board's own numbering.
        output: u8,
        /// On or off.
        on: bool,
    },
    /// Start anew.
    Reboot,
    /// Show a person which board this is.
    Identify {
        /// For how long.
        seconds: u8,
    },
    /// Something that a newer gateway knows, by its number.
    Unknown(u64),
}

/// One command as it is handed to a sensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// Its name.
    pub id: CommandId,
    /// From this moment on it must not be begun, Unix milliseconds.
    pub expires_ms: i64,
    /// What is to be done.
    pub act: Act,
}

impl Command {
    /// Room for any command's bytes.
    pub const BYTES_MAX: usize = 1 + 9 + 9 + 1 + 5;

    pub(super) fn write(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        let arguments = match self.act {
            Act::Read | Act::Reboot | Act::Unknown(_) => 0,
            Act::Every { .. } | Act::Identify { .. } => 1,
            Act::Switch { .. } => 2,
        };
        writer.array(3 + arguments)?;
        writer.u64(self.id.0)?;
        writer.i64(self.expires_ms)?;
        match self.act {
            Act::Read => writer.u64(0),
            Act::Every { interval_ms } => {
                writer.u64(1)?;
                writer.u64(u64::from(interval_ms))
            }
            Act::Switch { output, on } => {
                writer.u64(2)?;
                writer.u64(u64::from(output))?;
                writer.bool(on)
            }
            Act::Reboot => writer.u64(3),
            Act::Identify { seconds } => {
                writer.u64(4)?;
                writer.u64(u64::from(seconds))
            }
            Act::Unknown(number) => writer.u64(number),
        }
    }

    /// Reads one; an act with arguments that it does not have here is [`Act::Unknown`].
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Unexpected> {
        let elements = reader.array()?;
        let arguments = elements.checked_sub(3).ok_or(Unexpected)?;
        let id = CommandId::from_number(reader.u64()?).ok_or(Unexpected)?;
        let expires_ms = reader.i64()?;
        let number = reader.u64()?;
        let mut passed = reader.clone();
        for _ in 0..arguments {
            passed.skip()?;
        }
        let act = act(number, arguments, reader).unwrap_or(Act::Unknown(number));
        *reader = passed;
        Ok(Self { id, expires_ms, act })
    }
}

fn act(number: u64, arguments: u32, reader: &mut Reader<'_>) -> Option<Act> {
    match (number, arguments) {
        (0, 0) => Some(Act::Read),
        (1, 1) => Some(Act::Every { interval_ms: reader.u32().ok()? }),
        (2, 2) => {
            let output = u8::try_from(reader.u64().ok()?).ok()?;
            match reader.token().ok()? {
                crate::msgpack::Token::Bool(on) => Some(Act::Switch { output, on }),
                _ => None,
            }
        }
        (3, 0) => Some(Act::Reboot),
        (4, 1) => Some(Act::Identify { seconds: u8::try_from(reader.u64().ok()?).ok()? }),
        _ => None,
    }
}

/// How far a sensor is with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CommandState {
    /// It is noted in flash, and begins.
    Started,
    /// It is done.
    Done,
    /// The board could not do it.
    Failed,
    /// The board does not know how.
    Unsupported,
    /// The board started anew in between; whether it was done is not known.
    Interrupted,
}

impl CommandState {
    /// Every state.
    pub const ALL: [Self; 5] =
        [Self::Started, Self::Done, Self::Failed, Self::Unsupported, Self::Interrupted];

    /// The value of the reading that tells it.
    #[must_use]
    pub fn number(self) -> i64 {
        match self {
            Self::Started => 1,
            Self::Done => 2,
            Self::Failed => 3,
            Self::Unsupported => 4,
            Self::Interrupted => 5,
        }
    }

    /// The state that a reading tells.
    #[must_use]
    pub fn from_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.number() == number)
    }

    /// Its name to people and programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Unsupported => "unsupported",
            Self::Interrupted => "interrupted",
        }
    }
}

/// The metric that names the command of an event, [`CommandId::to_reading`].
pub const COMMAND_ID_METRIC: &str = "command_id";

/// The metric that tells what became of it, [`CommandState::number`].
pub const COMMAND_STATE_METRIC: &str = "command_state";

static EVENT_METRICS: [Metric<'static>; 2] =
    [Metric { name: COMMAND_ID_METRIC, scale: None }, Metric { name: COMMAND_STATE_METRIC, scale: None }];

/// The schema of a sensor's word about a command: id and state, its ticks milliseconds.
///
/// # Errors
/// None: the metrics above are a schema.
pub fn event_schema() -> Result<Schema<'static>, SchemaError> {
    Schema::new(1_000_000, &EVENT_METRICS)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;

    fn any_act() -> impl Strategy<Value = Act> {
        prop_oneof![
            Just(Act::Read),
            any::<u32>().prop_map(|interval_ms| Act::Every { interval_ms }),
            (any::<u8>(), any::<bool>()).prop_map(|(output, on)| Act::Switch { output, on }),
            Just(Act::Reboot),
            any::<u8>().prop_map(|seconds| Act::Identify { seconds }),
            (5u64..).prop_map(Act::Unknown),
        ]
    }

    fn any_id() -> impl Strategy<Value = CommandId> {
        (1..1i64 << 44, any::<u16>()).prop_map(|(ms, author)| CommandId::new(ms, author).unwrap())
    }

    proptest! {
        #[test]
        fn a_command_is_read_as_it_was_written(id in any_id(), expires_ms: i64, act in any_act()) {
            let command = Command { id, expires_ms, act };
            let mut bytes = [0u8; Command::BYTES_MAX + 8];
            let mut writer = Writer::new(&mut bytes);
            command.write(&mut writer).unwrap();
            prop_assert!(matches!(act, Act::Unknown(_)) || writer.length() <= Command::BYTES_MAX);
            let mut reader = Reader::new(writer.written());
            prop_assert_eq!(Command::read(&mut reader), Ok(command));
            prop_assert_eq!(reader.end(), Ok(()));
        }

        #[test]
        fn an_id_is_read_as_it_was_written_and_grows_with_time(id in any_id(), other in any_id()) {
            prop_assert_eq!(id.to_string().parse(), Ok(id));
            prop_assert_eq!(CommandId::from_number(id.number()), Some(id));
            prop_assert!(id.to_reading() > 0);
            if id.issued_ms() < other.issued_ms() {
                prop_assert!(id < other);
            }
        }
    }

    #[test]
    fn text_that_is_no_id_is_refused() {
        for text in ["", "0", "000000000000001", "-1", "+00000000010000", "fffffffffffffffff"] {
            assert_eq!(text.parse::<CommandId>(), Err(ParseCommandIdError), "{text}");
        }
        assert_eq!(CommandId::new(0, 1), None);
        assert_eq!(CommandId::new(-1, 1), None);
    }

    #[test]
    fn an_act_with_other_arguments_than_are_known_here_is_unknown() {
        // [id, expires, 2 (switch), "fan"]
        let bytes = [0x94, 0xce, 0, 1, 0, 0, 9, 2, 0xa3, b'f', b'a', b'n', 7];
        let mut reader = Reader::new(&bytes);
        assert_eq!(Command::read(&mut reader).unwrap().act, Act::Unknown(2));
        assert_eq!(reader.rest(), [7]);
    }

    #[test]
    fn every_state_is_told_by_a_number_of_its_own() {
        for state in CommandState::ALL {
            assert_eq!(CommandState::from_number(state.number()), Some(state));
        }
        assert_eq!(CommandState::from_number(0), None);
        assert!(event_schema().is_ok());
    }
}
