//! The `tidelog` command: asks a node over HTTP and prints what it says.
//!
//! Thin: it reads (`status`, `query`); what administers a node comes with the parts it administers. It holds no options
//! of a node and opens no log.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

/// Longest wait for a connection, and for the head of an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longest answer that is not a stream, in bytes.
const DOCUMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;

#[derive(Parser)]
#[command(name = "tidelog", version, about = "Asks a Tidelog node")]
struct Arguments {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Who a node is, what it holds, and how far each of its consumers is behind.
    Status {
        /// Address of the node's HTTP API, as http://127.0.0.1:8433
        url: String,
    },
    /// Points of the series that a selector means.
    Query {
        /// Address of the node's HTTP API, as http://127.0.0.1:8433
        url: String,
        /// PromQL selector, as 'temperature{room="lab"}'; may be repeated. All series without one.
        selectors: Vec<String>,
        /// Site to ask for.
        #[arg(long, default_value = "default")]
        site: String,
        /// First instant: RFC 3339, Unix seconds, or a number with ns, us, ms or s.
        #[arg(long)]
        start: Option<String>,
        /// Last instant.
        #[arg(long)]
        end: Option<String>,
        /// Form of the answer.
        #[arg(long, value_enum, default_value_t = Form::Csv)]
        format: Form,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Form {
    Csv,
    Ndjson,
    Json,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("{url}: {source}")]
    Unreachable { url: String, source: ureq::Error },
    #[error("{status}: {message}")]
    Refused { status: u16, message: String },
    #[error("{url}: not the answer of a Tidelog node: {reason}")]
    Strange { url: String, reason: String },
    #[error("{0}")]
    Output(#[from] io::Error),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command, &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads the output has seen enough.
        Err(AskError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidelog: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb, out: &mut impl Write) -> Result<(), AskError> {
    match verb {
        Verb::Status { url } => {
            let path = format!("{}/api/v1/status", url.trim_end_matches('/'));
            let strange = |reason: String| AskError::Strange { url: path.clone(), reason };
            let mut answer = ask(&path)?;
            let text = answer
                .body_mut()
                .with_config()
                .limit(DOCUMENT_BYTES_MAX)
                .read_to_string()
                .map_err(|error| strange(error.to_string()))?;
            let status: serde_json::Value =
                serde_json::from_str(&text).map_err(|error| strange(error.to_string()))?;
            writeln!(out, "{status:#}")?;
        }
        Verb::Query { url, selectors, site, start, end, format } => {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.extend_pairs(selectors.iter().map(|selector| ("match", selector)));
            query.extend_pairs(start.iter().map(|start| ("start", start)));
            query.extend_pairs(end.iter().map(|end| ("end", end)));
            query.append_pair(
                "format",
                match format {
                    Form::Csv => "csv",
                    Form::Ndjson => "ndjson",
                    Form::Json => "json",
                },
            );
            let base = url.trim_end_matches('/');
            let mut answer = ask(&format!("{base}/api/v1/sites/{site}/points?{}", query.finish()))?;
            io::copy(&mut answer.body_mut().as_reader(), out)?;
        }
    }
    Ok(())
}

fn ask(url: &str) -> Result<ureq::http::Response<ureq::Body>, AskError> {
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(PATIENCE))
        .timeout_recv_response(Some(PATIENCE))
        .build()
        .new_agent();
    let unreachable = |source| AskError::Unreachable { url: url.to_owned(), source };
    let mut answer = agent.get(url).call().map_err(unreachable)?;
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status().as_u16();
    let text =
        answer.body_mut().with_config().limit(DOCUMENT_BYTES_MAX).read_to_string().map_err(unreachable)?;
    let said = serde_json::from_str::<serde_json::Value>(&text).ok();
    let message =
        said.as_ref().and_then(|json| json["error"]["message"].as_str()).unwrap_or(text.trim()).to_owned();
    Err(AskError::Refused { status, message })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use clap::{Args, Command, FromArgMatches};
    use tidelog_node::{Node, settings::Common};

    fn said(words: &[&str]) -> Result<String, String> {
        let arguments = Arguments::try_parse_from(words).map_err(|error| error.to_string())?;
        let mut out = Vec::new();
        run(arguments.command, &mut out).map_err(|error| error.to_string())?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_node_is_asked_and_its_answer_and_its_refusal_are_printed() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().display().to_string();
        let words = ["test", "--http", "127.0.0.1:0", "--data", &data];
        let matches = Common::augment_args(Command::new("test")).get_matches_from(words);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let settings = Common::from_arg_matches(&matches).unwrap();
        let node = runtime.block_on(Node::start(&settings, "test")).unwrap();
        let url = format!("http://{}/", node.http_address());
        let body = r#"{"points":[{"metric":"t","labels":{"a":"1&2"},"timestamp_ns":5,"value":1}]}"#;
        let posting = ureq::post(format!("{url}api/v1/sites/default/points"));
        posting.header("content-type", "application/json").send(body).unwrap();

        assert!(said(&["tidelog", "status", &url]).unwrap().contains("\"head\": 1"));
        let header = "metric,labels,timestamp_ns,type,value\n";
        let line = "t,\"{\"\"a\"\":\"\"1&2\"\"}\",5,i64,1\n";
        assert_eq!(said(&["tidelog", "query", &url]).unwrap(), format!("{header}{line}"));
        assert_eq!(said(&["tidelog", "query", &url, r#"t{a="1&2"}"#]).unwrap(), format!("{header}{line}"));
        assert_eq!(said(&["tidelog", "query", &url, "--start", "6ns"]).unwrap(), header);
        assert!(said(&["tidelog", "query", &url, "t{"]).unwrap_err().starts_with("400: match: "));
        runtime.block_on(node.stop());
        assert!(said(&["tidelog", "status", &url]).unwrap_err().contains(&url));
    }
}
