//! The body that stands before the first record which an author writes in a stream after a start of its program: which program it
//! was, when, and what it found amiss in its store. It tells whoever reads a stream where one life ends and the next begins. Who
//! writes it, and whether it does, is the store's affair.
//!
//! ```text
//! body := kind 4 | started_ms i64 LE | findings varint | program (the rest, UTF-8, at most 64 bytes)
//! ```

use alloc::string::String;
use alloc::vec::Vec;

use crate::body::BatchError;
use crate::varint::{Malformed, Reader, put_u64};

/// The first byte of a body that tells of a start.
pub(crate) const KIND_BOOT: u8 = 4;

/// Longest name of a program, in bytes.
pub const PROGRAM_BYTES_MAX: usize = 64;

/// A start of an author's program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Boot {
    /// The author's clock at the start, Unix milliseconds. It may not have known the time yet.
    pub started_ms: i64,
    /// What was not as it should be in the author's store.
    pub findings: u64,
    /// Name and version. What goes beyond [`PROGRAM_BYTES_MAX`] is not written.
    pub program: String,
}

impl Boot {
    /// The start as a record's body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(19 + self.program.len());
        out.push(KIND_BOOT);
        out.extend_from_slice(&self.started_ms.to_le_bytes());
        put_u64(&mut out, self.findings);
        let mut end = self.program.len().min(PROGRAM_BYTES_MAX);
        while !self.program.is_char_boundary(end) {
            end -= 1;
        }
        out.extend_from_slice(self.program.get(..end).unwrap_or_default().as_bytes());
        out
    }

    /// The start in a record's body; `None` when the body is of another kind.
    ///
    /// # Errors
    /// [`BatchError::Malformed`] when the body begins as a start and is none.
    pub fn of_body(bytes: &[u8]) -> Result<Option<Self>, BatchError> {
        let mut reader = Reader(bytes);
        if reader.u8()? != KIND_BOOT {
            return Ok(None);
        }
        let (started_ms, findings) = (i64::from_le_bytes(reader.array()?), reader.u64()?);
        let program = core::str::from_utf8(reader.0).map_err(|_| Malformed)?;
        if program.len() > PROGRAM_BYTES_MAX {
            return Err(BatchError::Malformed);
        }
        Ok(Some(Self { started_ms, findings, program: String::from(program) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_start_is_read_as_it_was_written_and_nothing_else_is_one(
            started_ms in any::<i64>(), findings in any::<u64>(), program in "\\PC{0,80}",
            noise in prop::collection::vec(any::<u8>(), 0..96),
        ) {
            let read = Boot::of_body(&Boot { started_ms, findings, program: program.clone() }.encode())?.unwrap();
            prop_assert_eq!((read.started_ms, read.findings), (started_ms, findings));
            prop_assert!(program.starts_with(&read.program));
            prop_assert!(read.program == program || read.program.len() > PROGRAM_BYTES_MAX - 4);
            let body = [&[KIND_BOOT][..], &noise].concat();
            if let Ok(Some(boot)) = Boot::of_body(&body) {
                prop_assert_eq!(boot.encode(), body);
            }
        }
    }

    #[test]
    fn a_body_of_another_kind_tells_of_no_start_and_an_empty_one_is_an_error() {
        assert_eq!(Boot::of_body(&[3, 1, 1]), Ok(None));
        assert_eq!(Boot::of_body(&[]), Err(BatchError::Malformed));
        assert_eq!(Boot::of_body(&[KIND_BOOT, 1]), Err(BatchError::Malformed));
    }
}
