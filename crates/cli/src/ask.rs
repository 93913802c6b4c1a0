//! Questions to a node's HTTP API: where it is, with which token and by which authority it is believed, and with bounds on patience and
//! memory. What the answers mean is not known here.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tidelog_node::settings::Secret;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

/// Longest wait for a connection, and for the head of an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longest answer that is not a stream, in bytes.
const DOCUMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The status of an answer that asks for a token.
const UNAUTHORIZED: u16 = 401;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("{url}: {source}")]
    Unreachable { url: String, source: ureq::Error },
    #[error("{}: {reason}", path.display())]
    Authorities { path: PathBuf, reason: String },
    #[error("{status}: {message}")]
    Refused { status: u16, message: String },
    #[error("{url}: not the answer of a Tidelog node: {reason}")]
    Strange { url: String, reason: String },
}

/// Which node is asked, and how it and we prove ourselves.
#[derive(Args)]
pub struct Whom {
    /// Address of the node's HTTP API, as http://127.0.0.1:8433; https where it has a certificate
    url: String,
    /// Token, where the node asks for one (tidelog token create); better given by variable than by flag, which others on the machine
    /// can see.
    #[arg(long, value_name = "TOKEN", env = "TIDELOG_TOKEN", hide_env_values = true)]
    token: Option<Secret>,
    /// Certificates of the authorities that the node is believed by over https, PEM; the machine's own without it.
    #[arg(long, value_name = "FILE", env = "TIDELOG_CA")]
    ca: Option<PathBuf>,
}

impl Whom {
    /// One JSON document that a GET of this path gives.
    pub fn document(&self, path: &str) -> Result<serde_json::Value, AskError> {
        document(self.ask(path)?)
    }

    /// The node's status document.
    pub fn status(&self) -> Result<serde_json::Value, AskError> {
        self.document("/api/v1/status")
    }

    /// The answer to a POST of this document, once it is known that it is no refusal.
    pub fn post(&self, path: &str, document: &serde_json::Value) -> Result<serde_json::Value, AskError> {
        self::document(self.send(path, Some(("POST", document)))?)
    }

    /// The same of a PUT.
    pub fn put(&self, path: &str, document: &serde_json::Value) -> Result<serde_json::Value, AskError> {
        self::document(self.send(path, Some(("PUT", document)))?)
    }

    /// The answer to a GET of this path, once it is known that it is no refusal; and the whole address.
    pub fn ask(&self, path: &str) -> Result<(ureq::http::Response<ureq::Body>, String), AskError> {
        self.send(path, None)
    }

    fn send(
        &self,
        path: &str,
        document: Option<(&str, &serde_json::Value)>,
    ) -> Result<(ureq::http::Response<ureq::Body>, String), AskError> {
        let url = format!("{}{path}", self.url.trim_end_matches('/'));
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE));
        if url.starts_with("https:") {
            config = config.tls_config(self.tls()?);
        }
        let agent = config.build().new_agent();
        let mut request = ureq::http::Request::builder().uri(&url);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {}", token.reveal()));
        }
        let unreachable = |source| AskError::Unreachable { url: url.clone(), source };
        let answered = match document {
            None => request.body(()).map_err(ureq::Error::from).and_then(|request| agent.run(request)),
            Some((method, document)) => {
                let request = request.method(method).header("content-type", "application/json");
                let request = request.body(document.to_string()).map_err(ureq::Error::from);
                request.and_then(|request| agent.run(request))
            }
        };
        let mut answer = answered.map_err(unreachable)?;
        if answer.status().is_success() {
            return Ok((answer, url));
        }
        let status = answer.status().as_u16();
        let text = answer
            .body_mut()
            .with_config()
            .limit(DOCUMENT_BYTES_MAX)
            .read_to_string()
            .map_err(unreachable)?;
        let said = serde_json::from_str::<serde_json::Value>(&text).ok();
        let message = said
            .as_ref()
            .and_then(|json| json["error"]["message"].as_str())
            .unwrap_or(text.trim())
            .to_owned();
        let hint = if status == UNAUTHORIZED && self.token.is_none() {
            "; --token or TIDELOG_TOKEN gives it one"
        } else {
            ""
        };
        Err(AskError::Refused { status, message: format!("{message}{hint}") })
    }

    fn tls(&self) -> Result<TlsConfig, AskError> {
        let roots = match &self.ca {
            Some(path) => authorities(path)?,
            None => rustls_native_certs::load_native_certs().certs,
        };
        let roots: Vec<_> = roots.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
        Ok(TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(RootCerts::new_with_certs(&roots))
            .build())
    }
}

/// An answer that is one JSON document.
fn document(
    (mut answer, url): (ureq::http::Response<ureq::Body>, String),
) -> Result<serde_json::Value, AskError> {
    let read = answer.body_mut().with_config().limit(DOCUMENT_BYTES_MAX).read_to_string();
    let strange = |reason: String| AskError::Strange { url: url.clone(), reason };
    let text = read.map_err(|error| strange(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| strange(error.to_string()))
}

fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, AskError> {
    let wrong = |reason: String| AskError::Authorities { path: path.to_owned(), reason };
    let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let found = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| wrong(error.to_string()))?;
    if found.is_empty() { Err(wrong("no certificate in it".to_owned())) } else { Ok(found) }
}
