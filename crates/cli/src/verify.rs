//! `tidelog verify`: checks a store that no process has open, shows how far it has come, and says what it found to people or programs. The
//! check itself, and what is wrong with a store, are the store's affair; nothing is repaired here or there.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::Path;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use tidelog_store::{Damage, FileDisk, Flaw, Progress, Verification, VerifyError, verify};

use crate::words::printable;

/// Without a terminal, a line is written each time that so much more is done, in percent.
const LINE_EVERY_PERCENT: u64 = 10;

/// Checks the store in `path`, says what was found on `out` and how far it is on `aside`. Whether the store is good.
///
/// # Errors
/// [`VerifyError`]: it could not be checked. An error of `out` stands inside.
pub fn run(path: &Path, as_json: bool, out: &mut impl Write, aside: Aside) -> Result<bool, RunError> {
    let mut show = Show::new(aside);
    let found = verify(&FileDisk, path, &mut |progress| {
        show.at(progress);
        ControlFlow::Continue(())
    });
    show.end();
    let found = found?;
    if as_json {
        writeln!(out, "{:#}", in_json(&found))?;
    } else {
        write!(out, "{}", in_words(&found))?;
    }
    Ok(found.is_good())
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The store could not be checked.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The verdict could not be written.
    #[error("{0}")]
    Output(#[from] io::Error),
}

/// Where progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aside {
    /// A bar on a terminal.
    Bar,
    /// Lines on standard error.
    Lines,
}

enum Show {
    Bar(ProgressBar),
    Lines { percent: u64 },
}

impl Show {
    fn new(aside: Aside) -> Self {
        match aside {
            Aside::Lines => Self::Lines { percent: 0 },
            Aside::Bar => {
                let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
                // The template stands here and is right; were it not, the library's own serves.
                let form = "{wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
                if let Ok(style) = ProgressStyle::with_template(form) {
                    bar.set_style(style);
                }
                Self::Bar(bar)
            }
        }
    }

    fn at(&mut self, progress: Progress) {
        match self {
            Self::Bar(bar) => {
                bar.set_length(progress.bytes_total);
                bar.set_position(progress.bytes);
            }
            Self::Lines { percent } => {
                let now = progress.bytes.saturating_mul(100) / progress.bytes_total.max(1);
                if now >= *percent + LINE_EVERY_PERCENT {
                    *percent = now;
                    eprintln!("{now} % of {} bytes", progress.bytes_total);
                }
            }
        }
    }

    fn end(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn in_words(found: &Verification) -> String {
    let mut text = String::new();
    for Damage { file, offset, flaw } in &found.damage {
        text.push_str(&format!("{}:{offset}: {}\n", printable(file), printable(&flaw.to_string())));
    }
    if found.damage_untold > 0 {
        text.push_str(&format!("and {} more\n", found.damage_untold));
    }
    let node = found.node.map_or_else(|| "unknown node".to_owned(), |node| format!("node {node}"));
    text.push_str(&format!(
        "{node}: {} records of {} streams in {} files and {} segments, {} bytes",
        found.records, found.streams, found.files, found.segments, found.bytes
    ));
    if found.maps > 0 {
        text.push_str(&format!(", {} log files trimmed", found.maps));
    }
    if found.records_dropped > 0 {
        text.push_str(&format!(", {} records dropped by policy", found.records_dropped));
    }
    if found.records_never_held > 0 {
        text.push_str(&format!(", {} records dropped by peers before they came", found.records_never_held));
    }
    if found.gaps > 0 {
        text.push_str(&format!(", {} gaps in streams", found.gaps));
    }
    let count = found.damage.len() as u64 + found.damage_untold;
    text.push_str(&if found.is_good() {
        ": good\n".to_owned()
    } else {
        format!(": damaged in {count} places\n")
    });
    text
}

fn in_json(found: &Verification) -> Value {
    let damage = |Damage { file, offset, flaw }: &Damage| {
        let mut told = json!({
            "file": file, "offset": offset, "kind": flaw.label(), "message": flaw.to_string(),
        });
        let more = match flaw {
            Flaw::Rot { bytes } | Flaw::Tail { bytes } => Some(("bytes", json!(bytes))),
            Flaw::BrokenChain { lsn, .. } => Some(("lsn", json!(lsn.0))),
            Flaw::Undeclared { records } => Some(("records", json!(records))),
            Flaw::Awaited { first, last, .. } | Flaw::Lost { first, last, .. } => {
                Some(("lsns", json!([first.0, last.0])))
            }
            Flaw::Misnamed { should } => Some(("should", json!(should))),
            _ => None,
        };
        if let (Some(told), Some((key, value))) = (told.as_object_mut(), more) {
            told.insert(key.to_owned(), value);
        }
        told
    };
    json!({
        "good": found.is_good(),
        "node": found.node.map(|node| node.to_string()),
        "files": found.files,
        "files_trimmed": found.maps,
        "segments": found.segments,
        "bytes": found.bytes,
        "records": found.records,
        "records_dropped": found.records_dropped,
        "records_never_held": found.records_never_held,
        "streams": found.streams,
        "gaps": found.gaps,
        "damage": found.damage.iter().map(damage).collect::<Vec<_>>(),
        "damage_untold": found.damage_untold,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use tidelog_record::{Batch, NodeId, Series, Value as Point};
    use tidelog_store::{Store, StoreOptions};

    fn store(dir: &Path) -> Store {
        Store::open(dir, StoreOptions::new(NodeId([7; 16]))).unwrap().0
    }

    fn filled() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        for time in 0..20 {
            let series = Series::new("t", [("a", "b")]).unwrap();
            let batch = Batch { series: vec![(series, vec![(time, Point::I64(time))])], ..Batch::default() };
            store.append_blocking(&"plant".parse().unwrap(), batch.encode().unwrap()).unwrap();
        }
        store.close().unwrap();
        let log = dir.path().join("log/0000000000000001.log");
        (dir, log)
    }

    fn said(path: &Path, as_json: bool) -> (Result<bool, RunError>, String) {
        let mut out = Vec::new();
        let outcome = run(path, as_json, &mut out, Aside::Lines);
        (outcome, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_good_store_is_called_good_in_words_and_in_json() {
        let (dir, _) = filled();
        let (outcome, text) = said(dir.path(), false);
        assert!(outcome.unwrap());
        assert!(
            text.contains("20 records of 1 streams in 1 files and 0 segments") && text.ends_with(": good\n"),
            "{text}"
        );
        let (outcome, text) = said(dir.path(), true);
        assert!(outcome.unwrap());
        let told: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&told["good"], &told["records"], &told["damage"]),
            (&json!(true), &json!(20), &json!([]))
        );
    }

    #[test]
    fn a_flipped_bit_is_told_with_its_place() {
        let (dir, log) = filled();
        let good = std::fs::read(&log).unwrap();
        for (at, kind) in
            [(20, "header"), (70, "header"), (140, "rot"), (400, "rot"), (good.len() - 1, "tail")]
        {
            let mut bytes = good.clone();
            bytes[at] ^= 4;
            std::fs::write(&log, &bytes).unwrap();
            let (outcome, text) = said(dir.path(), true);
            assert!(!outcome.unwrap());
            let told: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(told["damage"][0]["kind"], json!(kind), "{at}: {text}");
            assert!(told["damage"][0]["offset"].as_u64().unwrap() <= at as u64);
            let (_, text) = said(dir.path(), false);
            assert!(text.starts_with("log/0000000000000001.log:"), "{text}");
            assert_eq!(std::fs::read(&log).unwrap(), bytes, "nothing is repaired");
        }
    }

    #[test]
    fn a_store_in_use_and_a_folder_without_one_cannot_be_checked() {
        let (dir, _) = filled();
        let open = store(dir.path());
        let (outcome, text) = said(dir.path(), false);
        assert!(matches!(outcome, Err(RunError::Verify(VerifyError::Locked(_)))) && text.is_empty());
        drop(open);
        let empty = tempfile::tempdir().unwrap();
        let (outcome, _) = said(empty.path(), false);
        assert!(matches!(outcome, Err(RunError::Verify(VerifyError::NoStore(_)))));
        assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0);
    }
}
