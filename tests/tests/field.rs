//! The running field as a person meets it: the demo started, its addresses read from what it prints, curl on both sides,
//! Ctrl-C's signal at the end. Needs the released binaries in `TIDELOG_BIN_DIR`, and curl.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use support::{Process, bin_dir};

const ARRIVED_WITHIN: Duration = Duration::from_secs(120);

/// A demo that runs until it is told to end.
struct Demo {
    process: Process,
    urls: Vec<(String, String)>,
}

impl Demo {
    /// Starts one and waits until it says that everything has arrived everywhere.
    fn start(bin_dir: &PathBuf, arguments: &[&str]) -> Self {
        let mut child = Command::new(bin_dir.join("tidelog-demo"))
            .args(arguments)
            .arg("--bin-dir")
            .arg(bin_dir)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (lines, said) = std::sync::mpsc::channel();
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        std::thread::spawn(move || stderr.try_for_each(|line| lines.send(line.unwrap_or_default())));
        let mut demo = Self { process: Process(child), urls: Vec::new() };
        let deadline = Instant::now() + ARRIVED_WITHIN;
        let mut all = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line =
                said.recv_timeout(left).unwrap_or_else(|e| panic!("{e}; it said:\n{}", all.join("\n")));
            if let Some((place, url)) =
                line.split_once("http://").filter(|(_, url)| url.contains("/api/v1/status"))
            {
                demo.urls
                    .push((place.trim().to_owned(), format!("http://{}", url.replace("/api/v1/status", ""))));
            }
            let arrived = line.contains("everything has arrived");
            all.push(line);
            if arrived {
                // Keep reading, so that the demo never waits for us.
                std::thread::spawn(move || said.iter().count());
                return demo;
            }
        }
    }

    fn url(&self, place: &str) -> &str {
        &self.urls.iter().find(|(name, _)| name == place).unwrap().1
    }

    fn terminate(self) -> Option<i32> {
        self.process.end().code()
    }
}

fn curl(arguments: &[&str]) -> Output {
    Command::new("curl").arg("-sS").args(arguments).output().unwrap()
}

#[test]
fn a_gateway_and_the_cloud_give_curl_the_same_bytes_for_one_sensor_and_range() {
    let Some(bin_dir) = bin_dir() else { return };
    let demo = Demo::start(&bin_dir, &["--sensors", "6", "--readings", "3000", "--pace", "0"]);
    for format in ["json", "ndjson", "csv"] {
        let ask = |place: &str| {
            let url = format!("{}/api/v1/sites/demo/points", demo.url(place));
            let format = format!("format={format}");
            curl(&[
                "--fail",
                "-G",
                &url,
                "-d",
                &format,
                "--data-urlencode",
                r#"match={device="02124b0000000001"}"#,
                "--data-urlencode",
                "start=2020-07-13T00:00:00Z",
                "--data-urlencode",
                "end=2020-07-13T00:05:00Z",
            ])
        };
        let answers: Vec<Output> = ["gateway-1", "gateway-2", "cloud"].map(ask).into();
        for answer in &answers {
            assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
            assert!(answer.stdout.len() > 1_000, "{format}: {} bytes", answer.stdout.len());
            assert_eq!(answer.stdout, answers[0].stdout, "{format}");
        }
    }
    assert_eq!(demo.terminate(), Some(0), "SIGTERM ends the field cleanly");
}
