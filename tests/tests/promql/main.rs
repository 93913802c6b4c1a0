//! PromQL against the real thing: the same points go into Debian's `prometheus` and into Tidelog, both are asked the same, and the
//! answers are compared value by value. Needs the released binaries in `TIDELOG_BIN_DIR` and the package `prometheus`; skipped
//! with a word why where one is missing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod compare;
mod points;
mod queries;
mod servers;

use std::path::PathBuf;
use std::process::Command;

use compare::{Agreement, compare};
use servers::{Prometheus, Tidelog};

/// Of the answers, at least these many agree. It may only rise.
const AGREEING_MIN: usize = 0;

/// How many disagreements are shown in full.
const SHOWN_MAX: usize = 60;

/// The folder of the released binaries, unless something that the test needs is missing.
fn prepared() -> Option<PathBuf> {
    let Some(dir) = std::env::var_os("TIDELOG_BIN_DIR").map(PathBuf::from) else {
        eprintln!(
            "skipped: TIDELOG_BIN_DIR names no folder with released binaries (tests/run end-to-end does)"
        );
        return None;
    };
    for tool in ["prometheus", "promtool"] {
        if Command::new(tool).arg("--version").output().is_err() {
            eprintln!("skipped: no {tool} here (Debian's package prometheus has it)");
            return None;
        }
    }
    Some(dir)
}

/// One question to both, in the form that a client sends.
fn path(query: &str, when: &str) -> String {
    let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let place = if when.starts_with("time") { "query" } else { "query_range" };
    format!("/api/v1/{place}?query={encoded}&{when}")
}

#[test]
fn answers_are_those_of_prometheus() {
    let Some(bin_dir) = prepared() else { return };
    let points = points::all();
    let prometheus = Prometheus::start(&points);
    let tidelog = Tidelog::start(&bin_dir, &points);
    let (mut asked, mut agreeing, mut exact, mut same_words) = (0, 0, 0, 0);
    let mut shown = 0;
    let queries = queries::all();
    for query in &queries {
        for when in queries::WHEN {
            let path = path(query, when);
            let (theirs, ours) = (prometheus.get(&path), tidelog.get(&path));
            asked += 1;
            match compare(query, &theirs, &ours) {
                Ok(agreement) => {
                    agreeing += 1;
                    exact += usize::from(agreement == Agreement::Exact);
                    same_words += usize::from(agreement == Agreement::Refused { same_words: true });
                }
                Err(difference) => {
                    shown += 1;
                    if shown <= SHOWN_MAX {
                        eprintln!("DIFFERS {query}\n   {when}\n   {difference}");
                    }
                }
            }
        }
    }
    eprintln!(
        "PromQL: {} expressions, {asked} questions, {agreeing} agree: {exact} to the last digit, {same_words} refused in the same words",
        queries.len()
    );
    assert!(queries.len() >= 300, "too few questions");
    assert!(agreeing >= AGREEING_MIN, "{agreeing} of {asked} agree, it was {AGREEING_MIN} before");
}
