//! Both ends of TLS: this node's files loaded at start and checked against its key. TLS 1.3, both sides with certificates,
//! cryptography by `ring`. What a certificate that was believed means is read in [`super::certificate`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::authority::SERVER_NAME;
use super::certificate::{Proven, certificates_of_pem, read_proven};
use crate::context::StartError;
use crate::identity::Identity;
use crate::settings::PeeringSettings;

/// The files that peering needs.
#[derive(Debug)]
pub(super) struct Files {
    cert: PathBuf,
    ca: PathBuf,
}

impl Files {
    /// `None` when the settings ask for no peering; an error when they ask for it and leave out a part.
    pub fn of(settings: &PeeringSettings) -> Result<Option<Self>, StartError> {
        let missing = |key, reason: &str| Err(StartError::Setting { key, reason: reason.to_owned() });
        let wanted = settings.listen.is_some() || !settings.peers.is_empty();
        match (wanted, settings.cert.clone(), settings.ca.clone()) {
            (false, None, None) => Ok(None),
            (false, ..) => missing(
                "peering.peers",
                "a certificate is set, but neither peers nor an address to listen on",
            ),
            (true, Some(cert), Some(ca)) => Ok(Some(Self { cert, ca })),
            (true, None, _) => missing("peering.cert", "peers need this node's certificate"),
            (true, _, None) => missing("peering.ca", "peers need the authority's certificate"),
        }
    }
}

/// Both ends of TLS for this node.
pub(super) struct Tls {
    connector: TlsConnector,
    acceptor: TlsAcceptor,
    server_name: ServerName<'static>,
    own: Proven,
}

impl Tls {
    pub fn load(files: &Files, identity: &Identity) -> Result<Self, StartError> {
        let chain = certificates(&files.cert, "peering.cert")?;
        let own = read_proven(Some(&chain)).map_err(|error| setting("peering.cert", &files.cert, &error))?;
        if own.node != identity.node {
            let error = format!(
                "it is for node {}, the key {} is of node {}",
                own.node,
                identity.path.display(),
                identity.node
            );
            return Err(setting("peering.cert", &files.cert, &error));
        }
        let mut roots = RootCertStore::empty();
        for root in certificates(&files.ca, "peering.ca")? {
            roots.add(root).map_err(|error| setting("peering.ca", &files.ca, &error))?;
        }
        let roots = Arc::new(roots);
        let key = || {
            PrivateKeyDer::try_from(identity.key.serialize_der())
                .map_err(|error| StartError::Identity(error.to_owned()))
        };
        let wrong = |error: rustls::Error| setting("peering.cert", &files.cert, &error);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = &[&rustls::version::TLS13];
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(wrong)?
            .with_root_certificates(Arc::clone(&roots))
            .with_client_auth_cert(chain.clone(), key()?)
            .map_err(wrong)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .map_err(|error| setting("peering.ca", &files.ca, &error))?;
        let server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(wrong)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key()?)
            .map_err(wrong)?;
        let server_name =
            ServerName::try_from(SERVER_NAME).map_err(|error| StartError::Identity(error.to_string()))?;
        Ok(Self {
            connector: TlsConnector::from(Arc::new(client)),
            acceptor: TlsAcceptor::from(Arc::new(server)),
            server_name,
            own,
        })
    }

    /// What this node's own certificate grants.
    pub fn own(&self) -> &Proven {
        &self.own
    }

    pub fn connector(&self) -> (&TlsConnector, ServerName<'static>) {
        (&self.connector, self.server_name.clone())
    }

    pub fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }
}

fn setting(key: &'static str, path: &Path, reason: &dyn std::fmt::Display) -> StartError {
    StartError::Setting { key, reason: format!("{}: {reason}", path.display()) }
}

fn certificates(path: &Path, key: &'static str) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let bytes = std::fs::read(path).map_err(|source| StartError::File { path: path.to_owned(), source })?;
    certificates_of_pem(&bytes).map_err(|error| setting(key, path, &error))
}

/// A word for metrics about a connection that failed: which of the two did not believe, and why, or that it is the network.
pub(super) fn failure_label(error: &std::io::Error) -> &'static str {
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return "network";
    };
    match error {
        rustls::Error::NoCertificatesPresented => "certificate_missing",
        rustls::Error::InvalidCertificate(reason) => match reason {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "certificate_expired",
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "certificate_not_valid_yet"
            }
            CertificateError::Revoked => "certificate_revoked",
            CertificateError::UnknownIssuer | CertificateError::BadSignature => "certificate_unknown_issuer",
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "certificate_wrong_name"
            }
            _ => "certificate_invalid",
        },
        rustls::Error::AlertReceived(_) => "refused_by_peer",
        _ => "tls",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_ask_for_peering_and_leave_a_part_out_are_told_which() {
        let none = PeeringSettings { listen: None, peers: vec![], cert: None, key: None, ca: None };
        assert!(Files::of(&none).unwrap().is_none());
        let listen = Some(([127, 0, 0, 1], 0).into());
        let file = || Some(PathBuf::from("x"));
        let cases = [
            (PeeringSettings { listen, ..none.clone() }, "peering.cert"),
            (PeeringSettings { listen, cert: file(), ..none.clone() }, "peering.ca"),
            (PeeringSettings { listen, ca: file(), ..none.clone() }, "peering.cert"),
            (PeeringSettings { cert: file(), ca: file(), ..none }, "peering.peers"),
        ];
        for (settings, expected) in cases {
            let Err(StartError::Setting { key, .. }) = Files::of(&settings) else {
                unreachable!("{settings:?}")
            };
            assert_eq!(key, expected);
        }
    }
}
