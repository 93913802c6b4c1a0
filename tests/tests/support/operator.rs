//! What an operator has: the command, a folder, and nodes that run and replicate with the certificates that it issues.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "each test uses its part, and fails by panicking"
)]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::{Process, until};

/// The operator: the command, and a folder to work in.
pub struct Operator {
    pub bin_dir: PathBuf,
    pub folder: tempfile::TempDir,
}

impl Operator {
    pub fn new(bin_dir: PathBuf) -> Self {
        Self { bin_dir, folder: tempfile::tempdir().unwrap() }
    }

    pub fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(self.bin_dir.join("tidelog"));
        command.current_dir(self.folder.path()).args(words).output().unwrap()
    }

    pub fn said(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// `tidelog ca issue …`, and the flags that it says.
    pub fn issue(&self, words: &[&str]) -> Vec<String> {
        let said = self.said(&[&["ca", "issue"], words].concat());
        let flags = said.lines().find(|line| line.trim_start().starts_with("--peering-")).unwrap();
        flags.split_whitespace().map(str::to_owned).collect()
    }

    pub fn data(&self, name: &str) -> PathBuf {
        self.folder.path().join("data").join(name)
    }

    /// Starts a cloud node, listening for peers if it has a certificate.
    pub fn start(&self, name: &str, flags: &[String], peer: Option<&Node>) -> Node {
        let program = self.bin_dir.join("tidelog-cloud").display().to_string();
        self.start_program(&[program], name, flags, peer)
    }

    /// Starts a daemon by its command line, an emulator before it perhaps.
    pub fn start_program(&self, words: &[String], name: &str, flags: &[String], peer: Option<&Node>) -> Node {
        let data = self.data(name);
        let (program, arguments) = words.split_first().unwrap();
        let mut command = Command::new(program);
        command
            .args(arguments)
            .arg("--data")
            .arg(&data)
            .args(["--http", "127.0.0.1:0", "--log-level", "warn"])
            .args(flags);
        if !flags.is_empty() {
            command.args(["--peering-listen", "127.0.0.1:0"]);
        }
        if let Some(peer) = peer {
            command.args(["--peering-peers", peer.peering.as_deref().unwrap()]);
        }
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let mut node = Node { process: Process(child), http: String::new(), peering: None };
        let address =
            |file: &str| fs::read_to_string(data.join(file)).ok().map(|text| text.trim().to_owned());
        node.http = until("the address of HTTP", || {
            assert!(node.process.runs(), "{name} does not run");
            address("http.addr")
        });
        if !flags.is_empty() {
            node.peering = address("peering.addr");
        }
        node
    }
}

pub struct Node {
    pub process: Process,
    pub http: String,
    pub peering: Option<String>,
}

impl Node {
    pub fn url(&self) -> String {
        format!("http://{}", self.http)
    }

    pub fn post(&self, site: &str, value: i64) {
        self.post_points(
            site,
            &format!(
                r#"{{"points":[{{"metric":"temp","labels":{{"at":"{site}"}},"timestamp_ns":{value},"value":{value}}}]}}"#
            ),
        );
    }

    /// Posts a document of points.
    pub fn post_points(&self, site: &str, body: &str) {
        let posting = ureq::post(format!("{}/api/v1/sites/{site}/points", self.url()));
        posting.header("content-type", "application/json").send(body).unwrap();
    }

    /// The site's points, a line each; nothing for a site that is not held.
    pub fn points(&self, site: &str) -> String {
        let url = format!("{}/api/v1/sites/{site}/points?format=ndjson", self.url());
        ureq::get(url).call().unwrap().body_mut().read_to_string().unwrap()
    }

    pub fn status(&self) -> Value {
        let url = format!("{}/api/v1/status", self.url());
        let text = ureq::get(url).call().unwrap().body_mut().read_to_string().unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Ends it with SIGTERM.
    pub fn end(self) {
        let status = self.process.end();
        assert!(status.success(), "{status}");
    }
}
