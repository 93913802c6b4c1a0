//! What a gateway answers to a batch: what is durable, the time, what the sensor is to do, and where it had better send to.
//!
//! ```text
//! [version, acknowledged, time in ms, [command…]]                a sensor that stays
//! [version, acknowledged, time in ms, [], gateway bin 8]         one that had better send to another gateway
//! ```

use super::VERSION;
use super::command::Command;
use crate::DeviceId;
use crate::msgpack::{Full, Reader, Unexpected, Writer};

/// Everything up to a sequence number is durable at the gateway, and it is this late there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Every sample of the batch's epoch up to this one is stored on the gateway (invariant 2).
    pub acked_seq: u64,
    /// The gateway's clock, Unix milliseconds.
    pub time_ms: i64,
    /// What the sensor is to do. One at a time: the answer stays within one frame, and what comes after it comes after it.
    pub command: Option<Command>,
    /// The gateway that the sensor had better send to from now on. An older sensor passes over it.
    pub advice: Option<DeviceId>,
}

/// What advice takes.
const ADVICE_BYTES: usize = 2 + 8;

impl Answer {
    /// Room for any answer.
    pub const BYTES_MAX: usize = 1 + 1 + 9 + 9 + 1 + Command::BYTES_MAX + ADVICE_BYTES;

    /// An answer without a command or advice.
    #[must_use]
    pub fn new(acked_seq: u64, time_ms: i64) -> Self {
        Self { acked_seq, time_ms, command: None, advice: None }
    }

    /// Writes it; returns the length.
    ///
    /// # Errors
    /// [`Full`] when `out` is shorter than needed; [`Answer::BYTES_MAX`] suffices for every act that is known here.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, Full> {
        let mut writer = Writer::new(out);
        writer.array(4 + u16::from(self.advice.is_some()))?;
        writer.u64(VERSION)?;
        writer.u64(self.acked_seq)?;
        writer.i64(self.time_ms)?;
        writer.array(u16::from(self.command.is_some()))?;
        if let Some(command) = self.command {
            command.write(&mut writer)?;
        }
        if let Some(gateway) = self.advice {
            writer.bin(&gateway.0)?;
        }
        Ok(writer.length())
    }

    /// Reads an answer of this version; elements and forms of commands it does not know are passed over, and so are
    /// commands behind the first.
    ///
    /// # Errors
    /// [`Unexpected`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Unexpected> {
        let mut reader = Reader::new(bytes);
        let elements = reader.array()?;
        if elements < 4 || reader.u64()? != VERSION {
            return Err(Unexpected);
        }
        let mut answer = Self::new(reader.u64()?, reader.i64()?);
        for _ in 0..reader.array()? {
            let mut passed = reader.clone();
            passed.skip()?;
            if answer.command.is_none() {
                answer.command = Command::read(&mut reader).ok();
            }
            reader = passed;
        }
        for element in 4..elements {
            let mut passed = reader.clone();
            passed.skip()?;
            if element == 4 {
                answer.advice = reader.bin().ok().map(DeviceId);
            }
            reader = passed;
        }
        reader.end()?;
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::uplink::{Act, CommandId};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_answer_is_read_as_it_was_written(
            acked_seq: u64, time_ms: i64, issued in prop::option::of((1..1i64 << 44, any::<i64>())),
            advice: Option<[u8; 8]>, noise in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut answer = Answer::new(acked_seq, time_ms);
            answer.advice = advice.map(DeviceId);
            answer.command = issued.map(|(ms, expires_ms)| {
                let act = Act::Every { interval_ms: u32::MAX };
                Command { id: CommandId::new(ms, 7).unwrap(), expires_ms, act }
            });
            let mut bytes = [0u8; Answer::BYTES_MAX];
            let length = answer.encode(&mut bytes).unwrap();
            prop_assert_eq!(Answer::decode(&bytes[..length]), Ok(answer));
            prop_assert_eq!(Answer::decode(&bytes[..length - 1]), Err(Unexpected));
            if let Ok(read) = Answer::decode(&noise) {
                prop_assert!(noise.len() >= 5, "{:?}", read);
            }
        }
    }

    #[test]
    fn commands_and_elements_of_a_newer_gateway_are_passed_over() {
        let bytes = [0x95, 1, 7, 9, 0x92, 0x81, 1, 2, 0xa1, b'x', 0x91, 0xc0];
        assert_eq!(Answer::decode(&bytes), Ok(Answer::new(7, 9)));
        let mut advised = Answer::new(7, 9);
        advised.advice = Some(DeviceId([0xa; 8]));
        let mut bytes = std::vec![0x96, 1, 7, 9, 0x90, 0xc4, 8];
        bytes.extend([0xa; 8]);
        bytes.extend([0x91, 0xc0]);
        assert_eq!(Answer::decode(&bytes), Ok(advised));
        assert_eq!(Answer::decode(&[0x94, 2, 7, 9, 0x90]), Err(Unexpected), "another version");
    }

    #[test]
    fn of_several_commands_the_first_that_is_understood_is_taken() {
        let mut bytes = std::vec![0x94, 1, 7, 9, 0x93, 0xa1, b'x'];
        for number in [3, 0] {
            bytes.extend([0x93, 0xce, 0, 1, 0, 0, 9, number]);
        }
        let read = Answer::decode(&bytes).unwrap().command;
        assert_eq!(read.map(|command| command.act), Some(Act::Reboot));
    }
}
