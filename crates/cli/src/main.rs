//! The `tidelog` command: asks a node over HTTP and prints what it says (`status`, `query`, `peers`, `devices`, `commands`), gives
//! devices labels (`label`), tells them through it what to do (`command`), keeps the authority whose certificates nodes prove
//! themselves with (`ca`), the tokens that open their HTTP API (`token`), and checks a store that no node
//! has open (`verify`). It holds no options of a node and changes no log.

mod ask;
mod ca;
mod command;
mod device;
mod new_files;
mod peers;
mod status;
mod token;
mod verify;
mod words;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Parser, Subcommand, ValueEnum};
use tidelog_store::VerifyError;

use ask::{AskError, Whom};
use ca::{CaError, CaVerb};
use command::Sending;
use device::Labelling;
use token::{TokenError, TokenVerb};
use verify::Aside;

/// Exit status of `verify` when something is wrong with the store.
const DAMAGE_FOUND: u8 = 1;
/// Exit status of `verify` when there is no verdict; clap's for a wrong call is the same.
const CANNOT_VERIFY: u8 = 2;

#[derive(Parser)]
#[command(
    name = "tidelog",
    version,
    about = "Asks Tidelog nodes, issues their certificates, checks their stores"
)]
struct Arguments {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Who a node is, what it holds and for how long the disk lasts, how far each of its consumers is behind, and how its sensors are.
    Status {
        #[command(flatten)]
        whom: Whom,
        /// The whole document, as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Points of the series that a selector means.
    Query {
        #[command(flatten)]
        whom: Whom,
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
    /// The nodes that a node replicates with: state, records still to fetch and to send, last progress, last error.
    Peers {
        #[command(flatten)]
        whom: Whom,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Tell a device what to do, through any node of its cluster.
    ///
    /// With --wait the exit status is 0 when the device has done it, and 1 when it has not, or not in time.
    Command(Sending),
    /// The commands of the last week, and what became of each.
    Commands {
        #[command(flatten)]
        whom: Whom,
        /// Site of the devices.
        #[arg(long, default_value = "default")]
        site: String,
        /// Those to this device alone.
        #[arg(long)]
        device: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// The devices of a site: labels and metrics.
    Devices {
        #[command(flatten)]
        whom: Whom,
        /// Site of the devices.
        #[arg(long, default_value = "default")]
        site: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say what a device is and where, through any node of its cluster: labels that PromQL joins to its readings.
    Label(Labelling),
    /// Check a node's data folder for damage while the node is stopped: every checksum, every chain. Nothing is changed.
    ///
    /// Exit status: 0 good, 1 damage found, 2 cannot be checked.
    Verify {
        /// The node's data folder.
        path: PathBuf,
        /// The verdict as JSON.
        #[arg(long)]
        json: bool,
    },
    /// The authority of a cluster, and the certificates that its nodes prove themselves with.
    #[command(subcommand)]
    Ca(CaVerb),
    /// The tokens that open a node's HTTP API: made, listed and revoked in its file, effective at once, also while it runs.
    #[command(subcommand)]
    Token(TokenVerb),
}

#[derive(Clone, Copy, ValueEnum)]
enum Form {
    Csv,
    Ndjson,
    Json,
}

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Ca(CaError),
    #[error(transparent)]
    Verify(VerifyError),
    #[error(transparent)]
    Token(TokenError),
    #[error("{0}")]
    Output(#[from] io::Error),
}

impl From<verify::RunError> for CommandError {
    fn from(error: verify::RunError) -> Self {
        match error {
            verify::RunError::Verify(error) => Self::Verify(error),
            verify::RunError::Output(error) => Self::Output(error),
        }
    }
}

impl From<CaError> for CommandError {
    fn from(error: CaError) -> Self {
        match error {
            CaError::Output(error) => Self::Output(error),
            error => Self::Ca(error),
        }
    }
}

impl From<TokenError> for CommandError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Output(error) => Self::Output(error),
            error => Self::Token(error),
        }
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse().command, &mut io::stdout().lock()) {
        Ok(status) => status,
        // Whoever reads the output has seen enough.
        Err(CommandError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidelog: {error}");
            match error {
                CommandError::Verify(_) => ExitCode::from(CANNOT_VERIFY),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run(verb: Verb, out: &mut impl Write) -> Result<ExitCode, CommandError> {
    match verb {
        Verb::Status { whom, json } => {
            let status = whom.status()?;
            if json {
                writeln!(out, "{status:#}")?;
            } else {
                write!(out, "{}", status::in_words(&status))?;
            }
        }
        Verb::Query { whom, selectors, site, start, end, format } => {
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
            let (mut answer, _) = whom.ask(&format!("/api/v1/sites/{site}/points?{}", query.finish()))?;
            io::copy(&mut answer.body_mut().as_reader(), out)?;
        }
        Verb::Peers { whom, json } => {
            let status = whom.status()?;
            if json {
                writeln!(out, "{:#}", peers::section(&status))?;
            } else {
                write!(out, "{}", peers::in_words(&status))?;
            }
        }
        Verb::Command(sending) => {
            if !sending.run(out)? {
                return Ok(ExitCode::FAILURE);
            }
        }
        Verb::Commands { whom, site, device, json } => {
            let told = command::list(&whom, &site, device.as_deref())?;
            if json {
                writeln!(out, "{told:#}")?;
            } else {
                write!(out, "{}", command::in_words(&told))?;
            }
        }
        Verb::Devices { whom, site, json } => {
            let told = device::list(&whom, &site)?;
            if json {
                writeln!(out, "{told:#}")?;
            } else {
                write!(out, "{}", device::in_words(&told))?;
            }
        }
        Verb::Label(labelling) => labelling.run(out)?,
        Verb::Verify { path, json } => {
            let aside = if io::stderr().is_terminal() { Aside::Bar } else { Aside::Lines };
            if !verify::run(&path, json, out, aside)? {
                return Ok(ExitCode::from(DAMAGE_FOUND));
            }
        }
        Verb::Ca(verb) => ca::run(verb, SystemTime::now(), out)?,
        Verb::Token(verb) => token::run(verb, SystemTime::now(), out)?,
    }
    Ok(ExitCode::SUCCESS)
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

        assert!(said(&["tidelog", "status", &url, "--json"]).unwrap().contains("\"head\": 2"));
        let words = said(&["tidelog", "status", &url]).unwrap();
        assert!(words.contains("takes writes, 2 records") && words.contains(" free of "), "{words}");
        let header = "metric,labels,timestamp_ns,type,value\n";
        let line = "t,\"{\"\"a\"\":\"\"1&2\"\"}\",5,i64,1\n";
        assert_eq!(said(&["tidelog", "query", &url]).unwrap(), format!("{header}{line}"));
        assert_eq!(said(&["tidelog", "query", &url, r#"t{a="1&2"}"#]).unwrap(), format!("{header}{line}"));
        assert_eq!(said(&["tidelog", "query", &url, "--start", "6ns"]).unwrap(), header);
        assert!(said(&["tidelog", "query", &url, "t{"]).unwrap_err().starts_with("400: match: "));

        let device = "02124b0000000001";
        let command = |words: &[&str]| said(&[&["tidelog", "command", &url, device], words].concat());
        let refused = command(&["reboot"]).unwrap_err();
        assert!(refused.starts_with("404: ") && refused.contains(device), "{refused}");
        let body = format!(
            r#"{{"points":[{{"metric":"t","labels":{{"device":"{device}"}},"timestamp_ns":5,"value":1}}]}}"#
        );
        let posting = ureq::post(format!("{url}api/v1/sites/default/points"));
        posting.header("content-type", "application/json").send(body).unwrap();
        let id = command(&["switch", "2", "on"]).unwrap();
        command(&["--expires", "1m30s", "every", "2500ms"]).unwrap();
        let told = said(&["tidelog", "commands", &url, "--device", device]).unwrap();
        assert!(told.lines().nth(1).unwrap().starts_with(id.trim_end()), "{told}");
        for word in ["switch output 2 on", "every 2500 ms", "waiting"] {
            assert!(told.contains(word), "{told}");
        }
        assert_eq!(command(&["--wait", "0", "read"]).unwrap().lines().last(), Some("waiting"));
        assert!(command(&["every", "soon"]).is_err());

        let label = |words: &[&str]| said(&[&["tidelog", "label", &url, "d 1"], words].concat());
        let labels = "location=\"boiler room\" type=\"sht4x\"\n";
        assert_eq!(label(&["location=boiler room", "type=sht4x"]).unwrap(), labels);
        let told = said(&["tidelog", "devices", &url]).unwrap();
        assert!(told.contains(labels.trim_end()) && told.contains(device), "{told}");
        assert!(label(&["device=x"]).unwrap_err().starts_with("400: "));
        assert_eq!(label(&[]).unwrap(), "-\n");
        runtime.block_on(node.stop());
        assert!(said(&["tidelog", "status", &url]).unwrap_err().contains(&url));
    }

    #[test]
    fn a_node_behind_tls_and_tokens_is_asked_with_an_authority_and_a_token() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let data = at("data");
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(at("http.pem"), made.cert.pem()).unwrap();
        std::fs::write(at("http.key"), made.signing_key.serialize_pem()).unwrap();
        let token = said(&[
            "tidelog",
            "token",
            "create",
            "--name",
            "n",
            "--scope",
            "read",
            "--all-sites",
            "--data",
            &data,
        ]);
        let token = token.unwrap().trim_end().to_owned();
        let words = ["test", "--http", "0.0.0.0:0", "--data", &data];
        let words =
            [&words[..], &["--http-tls-certificate", &at("http.pem"), "--http-tls-key", &at("http.key")]];
        let matches = Common::augment_args(Command::new("test")).get_matches_from(words.concat());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let settings = Common::from_arg_matches(&matches).unwrap();
        let node = runtime.block_on(Node::start(&settings, "test")).unwrap();
        let url = format!("https://localhost:{}", node.http_address().port());

        let ca = at("http.pem");
        let status = said(&["tidelog", "status", &url, "--json", "--token", &token, "--ca", &ca]).unwrap();
        assert!(status.contains("\"locked\": true"), "{status}");
        said(&["tidelog", "peers", &url, "--token", &token, "--ca", &ca]).unwrap();
        let refused = said(&["tidelog", "status", &url, "--ca", &ca]).unwrap_err();
        assert!(refused.starts_with("401: ") && refused.contains("TIDELOG_TOKEN"), "{refused}");
        let refused = said(&["tidelog", "status", &url, "--token", &token]).unwrap_err();
        assert!(refused.contains(&url) && !refused.contains(&token), "{refused}");
        let refused = said(&["tidelog", "status", &url, "--ca", &at("http.key")]).unwrap_err();
        assert!(refused.contains("no certificate in it"), "{refused}");
        runtime.block_on(node.stop());
    }
}
