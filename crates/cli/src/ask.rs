//! Questions to a node's HTTP API, with bounds on patience and memory. What the answers mean is not known here.

use std::time::Duration;

/// Longest wait for a connection, and for the head of an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longest answer that is not a stream, in bytes.
const DOCUMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("{url}: {source}")]
    Unreachable { url: String, source: ureq::Error },
    #[error("{status}: {message}")]
    Refused { status: u16, message: String },
    #[error("{url}: not the answer of a Tidelog node: {reason}")]
    Strange { url: String, reason: String },
}

/// The status document of the node at `base`.
pub fn status(base: &str) -> Result<serde_json::Value, AskError> {
    let url = format!("{}/api/v1/status", base.trim_end_matches('/'));
    let mut answer = ask(&url)?;
    let read = answer.body_mut().with_config().limit(DOCUMENT_BYTES_MAX).read_to_string();
    let strange = |reason: String| AskError::Strange { url: url.clone(), reason };
    let text = read.map_err(|error| strange(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| strange(error.to_string()))
}

/// The answer to a GET, once it is known that it is no refusal.
pub fn ask(url: &str) -> Result<ureq::http::Response<ureq::Body>, AskError> {
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
