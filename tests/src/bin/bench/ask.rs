//! Asking: each question many times over one connection, and how long the answers took.

use std::error::Error;
use std::time::Instant;

use crate::http::Connection;
use crate::load::median;
use crate::process::Process;
use crate::subjects::{Question, Subject, Written};

/// How a question was answered.
#[derive(Clone, Debug)]
pub enum Asked {
    /// Median of the times, the shortest, and the length of the answer.
    Answered { ms: f64, ms_least: f64, body: Vec<u8> },
    /// The status of a refusal.
    Refused(u16),
    /// There is no way to ask it.
    Unasked,
}

pub fn ask(
    subject: Subject,
    process: &Process,
    question: Question,
    written: Written,
    runs: u32,
) -> Result<Asked, Box<dyn Error>> {
    let Some(path) = subject.asks(question, written) else { return Ok(Asked::Unasked) };
    let mut connection = Connection::open(process.address)?;
    let (mut times, mut body) = (Vec::new(), Vec::new());
    // The first one finds caches cold and is not counted.
    for run in 0..=runs {
        let begun = Instant::now();
        let answer = connection.get(&path)?;
        let ms = begun.elapsed().as_secs_f64() * 1e3;
        if answer.status != 200 {
            return Ok(Asked::Refused(answer.status));
        }
        body = answer.body;
        if run > 0 {
            times.push(ms);
        }
    }
    let ms_least = times.iter().copied().fold(f64::INFINITY, f64::min);
    Ok(Asked::Answered { ms: median(times), ms_least, body })
}

impl Asked {
    /// Whether the answer holds a text somewhere.
    pub fn holds(&self, text: &str) -> bool {
        match self {
            Self::Answered { body, .. } => String::from_utf8_lossy(body).contains(text),
            Self::Refused(_) | Self::Unasked => false,
        }
    }

    pub fn show(&self) -> String {
        match self {
            Self::Answered { ms, ms_least, body } => {
                format!("{ms:.2} (least {ms_least:.2}; {} bytes)", body.len())
            }
            Self::Refused(status) => format!("refused: {status}"),
            Self::Unasked => "no way to ask".to_owned(),
        }
    }
}
