//! TLS of the HTTP API: certificate and key read at the start and again when the files change, without a restart. Files that cannot be
//! used change nothing but the status, which says why; at the start they are an error. What is said within TLS is not known here.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::context::{StartError, StatusBoard};
use crate::files::{Look, look};
use crate::metrics::Metrics;
use crate::peering::certificate::Certificate;
use crate::settings::Common;

/// How often it is looked whether a file changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// The one protocol that is spoken, as it is named in handshakes.
const PROTOCOL: &[u8] = b"http/1.1";

const CERTIFICATE_SETTING: &str = "http_tls_certificate";
const KEY_SETTING: &str = "http_tls_key";

/// The files that TLS needs.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    /// `None` when the settings ask for no TLS; an error when they leave a part out.
    pub fn of(common: &Common) -> Result<Option<Self>, StartError> {
        let missing = |key, reason: &str| Err(StartError::Setting { key, reason: reason.to_owned() });
        match (common.http_tls_certificate.clone(), common.http_tls_key.clone()) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => Ok(Some(Self { certificate, key })),
            (Some(_), None) => missing(KEY_SETTING, "a certificate is set, but not its key"),
            (None, Some(_)) => missing(CERTIFICATE_SETTING, "a key is set, but no certificate"),
        }
    }

    fn look(&self) -> [Look; 2] {
        [&self.certificate, &self.key].map(|path| look(path))
    }
}

/// What is in force.
#[derive(Clone)]
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    /// The last second of the certificate, Unix time.
    until_s: i64,
}

impl Tls {
    fn load(files: &Files) -> Result<Self, StartError> {
        let setting = |key, path: &Path, reason: &dyn std::fmt::Display| StartError::Setting {
            key,
            reason: format!("{}: {reason}", path.display()),
        };
        let wrong = |reason: &dyn std::fmt::Display| setting(CERTIFICATE_SETTING, &files.certificate, reason);
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| StartError::File { path: path.to_owned(), source })
        };
        let pem = read(&files.certificate)?;
        let shown = Certificate::all_of_pem(&pem).map_err(|error| wrong(&error))?;
        let until_s = shown.first().map_or(0, |certificate| certificate.valid_until_s);
        let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| wrong(&error))?;
        let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?)
            .map_err(|error| setting(KEY_SETTING, &files.key, &error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(&error))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| wrong(&error))?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), until_s })
    }

    pub fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }
}

/// What is in force now; it changes when the files do.
pub(crate) type Present = watch::Receiver<Tls>;

/// Follows the files.
pub(crate) struct Reload {
    files: Files,
    seen: [Look; 2],
    present: watch::Sender<Tls>,
    fault: Arc<Mutex<Option<String>>>,
    metrics: Arc<Metrics>,
}

impl Reload {
    /// Reads the files for the first time.
    pub fn begin(files: Files, metrics: &Arc<Metrics>) -> Result<(Self, Present), StartError> {
        let seen = files.look();
        let (present, shown) = watch::channel(Tls::load(&files)?);
        metrics.http_certificate_until.set(shown.borrow().until_s);
        let this = Self { files, seen, present, fault: Arc::default(), metrics: Arc::clone(metrics) };
        Ok((this, shown))
    }

    /// Says on the status how the certificate stands.
    pub fn show(&self, status: &StatusBoard) {
        let (shown, fault) = (self.present.subscribe(), Arc::clone(&self.fault));
        status.section("http_certificate", move || {
            json!({
                "valid_until_s": shown.borrow().until_s,
                "files_not_in_force": fault.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            })
        });
    }

    /// Goes on until the node ends.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(LOOK_INTERVAL) => {}
            }
            let look = self.files.look();
            if look != self.seen {
                self.seen = look;
                self.read().await;
            }
        }
    }

    async fn read(&self) {
        let files = self.files.clone();
        let loaded = tokio::task::spawn_blocking(move || Tls::load(&files)).await;
        let fault = match loaded {
            Ok(Ok(tls)) => {
                self.metrics.http_certificate_until.set(tls.until_s);
                self.present.send_replace(tls);
                tracing::info!(target: "audit", "certificate of the HTTP API read again");
                None
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(fault) = &fault {
            tracing::warn!(%fault, "a changed certificate cannot be used: the one from before stays in force");
        }
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }
}
