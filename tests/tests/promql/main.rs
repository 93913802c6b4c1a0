//! PromQL against the real thing: the same points go into Debian's `prometheus` and into Tidelog, both are asked the same, and the
//! answers are compared value by value. Needs the released binaries in `TIDELOG_BIN_DIR` and the package `prometheus`; skipped
//! with a word why where one is missing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod compare;
mod points;
mod queries;
mod random;
mod servers;
mod tools;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use compare::{Agreement, compare};
use serde_json::Value;
use servers::{Prometheus, Tidelog};

/// Of the answers, at least these many agree. It may only rise.
const AGREEING_MIN: usize = 3_740;

/// How many disagreements are shown in full.
const SHOWN_MAX: usize = 60;

/// Where Tidelog means to answer otherwise; `docs/PROMQL.md` says why.
const OTHERWISE: [&str; 1] = ["predict_linear(exact[20m] @ 1767228000, 600)"];

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
    let (mut asked, mut agreeing, mut exact, mut refused) = (0, 0, 0, 0);
    let mut shown = 0;
    let mut queries = queries::all();
    queries.extend(random::expressions());
    for query in queries.iter().filter(|query| !OTHERWISE.contains(&query.as_str())) {
        for when in queries::WHEN {
            let path = path(query, when);
            let (theirs, ours) = (prometheus.get(&path), tidelog.get(&path));
            asked += 1;
            match compare(query, &theirs, &ours) {
                Ok(agreement) => {
                    agreeing += 1;
                    exact += usize::from(agreement == Agreement::Exact);
                    refused += usize::from(agreement == Agreement::Refused);
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
        "PromQL: {} expressions, {asked} questions, {agreeing} agree: {exact} to the last digit, {refused} refused by both",
        queries.len()
    );
    assert!(asked >= 300, "too few questions");
    assert!(agreeing >= AGREEING_MIN, "{agreeing} of {asked} agree, it was {AGREEING_MIN} before");
}

/// The samples of every series of the job, by series, that are at most `seconds` older than `time`.
fn scraped(answer: impl Fn(&str) -> Value, time: f64, seconds: f64) -> BTreeMap<String, Value> {
    let query = format!("{{job=\"self\"}}[{:.0}ms]", seconds * 1e3);
    let answer = answer(&path(&query, &format!("time={time:.3}")));
    let series = answer["data"]["result"].as_array().unwrap_or_else(|| panic!("{answer}"));
    series.iter().map(|series| (series["metric"].to_string(), series["values"].clone())).collect()
}

#[test]
fn what_prometheus_writes_here_as_it_scrapes_is_what_it_has_itself() {
    let Some(bin_dir) = prepared() else { return };
    let tidelog = Tidelog::start(&bin_dir, &[]);
    let prometheus = Prometheus::writing_to(&format!("{}/api/v1/write", tidelog.url()));
    let scrapes = servers::until("some scrapes are here", || {
        let answer = tidelog.get(&path("up{job=\"self\"}[1h]", "time"));
        let values = answer["data"]["result"][0]["values"].as_array()?;
        let times: Vec<f64> = values.iter().filter_map(|value| value[0].as_f64()).collect();
        (times.len() >= 4).then_some(times)
    });
    // What was scraped before the writing began it does not send.
    let (first, last) = (scrapes[0], scrapes[scrapes.len() - 1]);
    let theirs = scraped(|path| prometheus.get(path), last, last - first);
    assert!(theirs.len() > 100, "{}", theirs.len());
    servers::until("all that was scraped until then is here", || {
        let ours = scraped(|path| tidelog.get(path), last, last - first);
        assert!(ours.keys().all(|series| theirs.contains_key(series)));
        (ours == theirs).then_some(())
    });
}

#[test]
fn what_there_is_to_ask_about_is_the_same() {
    let Some(bin_dir) = prepared() else { return };
    let points = points::all();
    let prometheus = Prometheus::start(&points);
    let tidelog = Tidelog::start(&bin_dir, &points);
    for path in [
        "/api/v1/labels",
        "/api/v1/labels?match[]=temperature&match[]=humidity",
        "/api/v1/labels?match[]=nothing",
        "/api/v1/label/__name__/values",
        "/api/v1/label/room/values",
        "/api/v1/label/room/values?match[]=humidity",
        "/api/v1/label/nosuch/values",
        "/api/v1/label/bad-name/values",
        "/api/v1/series?match[]=temperature",
        "/api/v1/series?match[]=temperature&match[]={room=%22lab%22}",
        "/api/v1/series?match[]={path=~%22.*%22}",
        "/api/v1/series",
        "/api/v1/series?match[]=temperature{",
        "/api/v1/query?query=1&time=x",
        "/api/v1/query?time=1",
        "/api/v1/query?query=1&time=1&timeout=x",
        "/api/v1/query_range?query=1&start=1&end=0&step=1",
        "/api/v1/query_range?query=1&start=1&end=2&step=0",
        "/api/v1/query_range?query=1&start=1&end=2&step=-5",
        "/api/v1/query_range?query=1&start=1&end=2&step=x",
        "/api/v1/query_range?query=1&start=1&end=2",
        "/api/v1/query_range?query=1&end=2&step=1",
        "/api/v1/query_range?query=1&start=1&end=11001&step=1",
        "/api/v1/query_range?query=1&start=1&end=11002&step=1",
        "/api/v1/query_range?query=temperature[5m]&start=1&end=2&step=1",
        "/api/v1/query_range?query=%22text%22&start=1&end=2&step=1",
        "/api/v1/query?query=time()&time=2026-01-01T00:00:00.123Z",
        "/api/v1/query?query=time()&time=1767229200.1239",
        "/api/v1/query_range?query=time()&start=1767229200&end=1767229205&step=1.5",
        "/api/v1/query_range?query=time()&start=1767229200&end=1767233100&step=1h5m",
    ] {
        let (theirs, ours) = (prometheus.get(path), tidelog.get(path));
        if theirs["status"] == "error" {
            // The words are for people, and may differ.
            assert_eq!(ours["errorType"], theirs["errorType"], "{path}: {ours} {theirs}");
        } else {
            assert_eq!(ours, theirs, "{path}");
        }
    }
}

#[test]
fn promtool_says_the_same_of_both() {
    let Some(bin_dir) = prepared() else { return };
    let points = points::all();
    let prometheus = Prometheus::start(&points);
    let tidelog = Tidelog::start(&bin_dir, &points);
    tools::promtool(prometheus.url(), tidelog.url());
    tools::promtool(prometheus.url(), &format!("{}/prometheus/default", tidelog.url()));
}

#[test]
fn the_alert_rules_say_nothing_of_a_node_that_is_well_and_name_what_is_wrong_with_one_that_is_not() {
    if Command::new("promtool").arg("--version").output().is_err() {
        eprintln!("skipped: no promtool here (Debian's package prometheus has it)");
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/monitoring");
    for words in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]] {
        let output = Command::new("promtool").args(words).current_dir(&folder).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&said));
    }
}
