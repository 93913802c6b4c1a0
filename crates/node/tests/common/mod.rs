//! A node in this process on a free port, and a client for it.

pub mod door;
pub mod socket;

use std::path::Path;

use clap::{Args, Command, FromArgMatches};
use serde_json::Value;
use tidelog_node::Node;
use tidelog_node::settings::Common;
use tokio::runtime::Runtime;

/// Largest answer that a test reads, in bytes.
const ANSWER_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Settings as a command line gives them.
pub fn settings(dir: &Path, flags: &[&str]) -> Common {
    let words = ["test", "--http", "127.0.0.1:0", "--data"].map(str::to_owned).into_iter();
    let words = words.chain([dir.display().to_string()]).chain(flags.iter().map(|flag| (*flag).to_owned()));
    // A flag that a test gives counts more than one that stands here.
    let command = Common::augment_args(Command::new("test")).args_override_self(true);
    let matches = command.try_get_matches_from(words).unwrap();
    Common::from_arg_matches(&matches).unwrap()
}

/// A running node.
pub struct Running {
    pub runtime: Runtime,
    pub node: Option<Node>,
    pub url: String,
}

impl Running {
    pub fn start(dir: &Path, flags: &[&str]) -> Self {
        let runtime = Runtime::new().unwrap();
        let node = runtime.block_on(Node::start(&settings(dir, flags), "0.0.0-test")).unwrap();
        let url = format!("http://{}", node.http_address());
        Self { runtime, node: Some(node), url }
    }

    pub fn stop(mut self) {
        if let Some(node) = self.node.take() {
            self.runtime.block_on(node.stop());
        }
    }

    pub fn get(&self, path: &str) -> Answer {
        Answer::of(agent().get(format!("{}{path}", self.url)).call().unwrap())
    }

    /// The content type and the bytes of an answer.
    pub fn get_bytes(&self, path: &str) -> (String, Vec<u8>) {
        self.get_bytes_accepting(path, "*/*")
    }

    pub fn get_bytes_accepting(&self, path: &str, accept: &str) -> (String, Vec<u8>) {
        let mut answer = agent().get(format!("{}{path}", self.url)).header("accept", accept).call().unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        let content_type = answer.headers()["content-type"].to_str().unwrap().to_owned();
        (content_type, answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec().unwrap())
    }

    pub fn get_accepting(&self, path: &str, accept: &str) -> Answer {
        Answer::of(agent().get(format!("{}{path}", self.url)).header("accept", accept).call().unwrap())
    }

    pub fn put(&self, path: &str, content_type: &str, body: &[u8]) -> Answer {
        let put = agent().put(format!("{}{path}", self.url)).header("content-type", content_type);
        Answer::of(put.send(body).unwrap())
    }

    pub fn post(&self, path: &str, content_type: &str, body: &[u8]) -> Answer {
        self.send(path, ("content-type", content_type), body)
    }

    pub fn post_encoded(&self, path: &str, coding: &str, body: &[u8]) -> Answer {
        self.send(path, ("content-encoding", coding), body)
    }

    /// A server that refuses a body by its length may close before all of it is written, and then this client sees a broken
    /// pipe instead of the answer: it asks again, a few times.
    fn send(&self, path: &str, (name, value): (&str, &str), body: &[u8]) -> Answer {
        let mut attempts = 0;
        loop {
            attempts += 1;
            match agent().post(format!("{}{path}", self.url)).header(name, value).send(body) {
                Err(ureq::Error::Io(_)) if attempts < 20 => {}
                sent => return Answer::of(sent.unwrap()),
            }
        }
    }

    pub fn post_json(&self, site: &str, body: &Value) -> Answer {
        let path = format!("/api/v1/sites/{site}/points");
        self.post(&path, "application/json", body.to_string().as_bytes())
    }

    /// The value of a metric with exactly these labels as they stand in the text.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").text;
        let line =
            text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().new_agent()
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    /// It said how long it would be.
    pub in_one_piece: bool,
    pub text: String,
}

impl Answer {
    fn of(mut response: ureq::http::Response<ureq::Body>) -> Self {
        let header = |name| response.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
        let content_type = header("content-type").unwrap_or_default();
        let in_one_piece = header("content-length").is_some();
        let status = response.status().as_u16();
        let text = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string().unwrap();
        Self { status, content_type, in_one_piece, text }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub fn error_code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap().to_owned()
    }
}
