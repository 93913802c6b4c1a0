//! Writes of which the bad lines are left out and the good ones stored: what became of them, and how their client is told. As
//! InfluxDB has it.

use std::fmt::Write as _;

use super::error::{ApiError, ErrorCode};

/// Bad lines that an answer names.
const BAD_LINES_TOLD_MAX: usize = 8;

/// What became of a body's lines.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub points: u64,
    /// Lines that are stored.
    pub lines: u64,
    pub bad_lines: u64,
    /// The first of them, for people.
    told: Vec<String>,
}

impl Taken {
    /// Counts a bad line; `tell` says which it is and why, if there is room to tell it.
    pub fn refuse(&mut self, tell: impl FnOnce() -> String) {
        self.bad_lines += 1;
        if self.told.len() < BAD_LINES_TOLD_MAX {
            self.told.push(tell());
        }
    }

    /// Telegraf and others look for the words "partial write" and "unable to parse" and do not send such a body again.
    pub fn refusal(&self) -> Option<ApiError> {
        if self.bad_lines == 0 {
            return None;
        }
        let rest = if self.lines == 0 { "nothing is stored" } else { "the others are stored" };
        let all = self.lines + self.bad_lines;
        let mut message = format!("partial write: {} of {all} lines refused, {rest}", self.bad_lines);
        for told in &self.told {
            // Writing to a text does not fail.
            write!(message, "; {told}").ok()?;
        }
        let untold = self.bad_lines - self.told.len() as u64;
        if untold > 0 {
            write!(message, "; and {untold} more").ok()?;
        }
        write!(message, " dropped={}", self.bad_lines).ok()?;
        Some(ApiError::new(ErrorCode::BadLine, message))
    }
}
