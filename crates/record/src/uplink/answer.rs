//! What a gateway answers to a batch. Thin: commands are passed over, none is known yet.

use super::VERSION;
use crate::msgpack::{Full, Reader, Unexpected, Writer};

/// Everything up to a sequence number is durable at the gateway, and it is this late there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Every sample of the batch's epoch up to this one is stored on the gateway (invariant 2).
    pub acked_seq: u64,
    /// The gateway's clock, Unix milliseconds.
    pub time_ms: i64,
}

impl Answer {
    /// Room for any answer.
    pub const BYTES_MAX: usize = 1 + 1 + 9 + 9 + 1;

    /// Writes it; returns the length.
    ///
    /// # Errors
    /// [`Full`] when `out` is shorter than needed; [`Answer::BYTES_MAX`] always suffices.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, Full> {
        let mut writer = Writer::new(out);
        writer.array(4)?;
        writer.u64(VERSION)?;
        writer.u64(self.acked_seq)?;
        writer.i64(self.time_ms)?;
        writer.array(0)?;
        Ok(writer.length())
    }

    /// Reads an answer of this version; elements and commands it does not know are passed over.
    ///
    /// # Errors
    /// [`Unexpected`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Unexpected> {
        let mut reader = Reader::new(bytes);
        let elements = reader.array()?;
        if elements < 4 || reader.u64()? != VERSION {
            return Err(Unexpected);
        }
        let answer = Self { acked_seq: reader.u64()?, time_ms: reader.i64()? };
        let commands = reader.array()?;
        for _ in 0..u64::from(commands) + u64::from(elements - 4) {
            reader.skip()?;
        }
        reader.end()?;
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_answer_is_read_as_it_was_written(acked_seq: u64, time_ms: i64, noise in prop::collection::vec(any::<u8>(), 0..40)) {
            let answer = Answer { acked_seq, time_ms };
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
        assert_eq!(Answer::decode(&bytes), Ok(Answer { acked_seq: 7, time_ms: 9 }));
        assert_eq!(Answer::decode(&[0x94, 2, 7, 9, 0x90]), Err(Unexpected), "another version");
    }
}
