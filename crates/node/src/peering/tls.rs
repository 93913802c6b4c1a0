//! Both ends of TLS: this node's files read and checked against its key, at the start and again when they change. TLS 1.3, both sides with
//! certificates, cryptography by `ring`. What a certificate that was believed means is read in [`super::certificate`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::PublicKeyData;
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime,
};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tidelog_record::NodeId;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::authority::SERVER_NAME;
use super::certificate::{Certificate, Proven, certificates_of_pem, read_proven};
use super::revocation::lists_of_pem;
use crate::context::StartError;
use crate::files::{Look, look};
use crate::identity::Identity;
use crate::settings::PeeringSettings;

/// The files that peering needs.
#[derive(Clone, Debug)]
pub(super) struct Files {
    cert: PathBuf,
    ca: PathBuf,
    crl: Option<PathBuf>,
}

impl Files {
    /// `None` when the settings ask for no peering; an error when they ask for it and leave out a part.
    pub fn of(settings: &PeeringSettings) -> Result<Option<Self>, StartError> {
        let missing = |key, reason: &str| Err(StartError::Setting { key, reason: reason.to_owned() });
        let wanted = settings.listen.is_some() || !settings.peers.is_empty();
        let crl = settings.crl.clone();
        match (wanted, settings.cert.clone(), settings.ca.clone()) {
            (false, None, None) => Ok(None),
            (false, ..) => missing(
                "peering.peers",
                "a certificate is set, but neither peers nor an address to listen on",
            ),
            (true, Some(cert), Some(ca)) => Ok(Some(Self { cert, ca, crl })),
            (true, None, _) => missing("peering.cert", "peers need this node's certificate"),
            (true, _, None) => missing("peering.ca", "peers need the authority's certificate"),
        }
    }

    /// How they all look now; when that changes, they are to be read again.
    pub fn look(&self) -> Vec<Look> {
        let files = [Some(&self.cert), Some(&self.ca), self.crl.as_ref()];
        files.into_iter().flatten().map(|path| look(path)).collect()
    }
}

/// The key that this node proves itself with; it stays as long as the process, for another key is another node.
pub(super) struct OwnKey {
    node: NodeId,
    path: PathBuf,
    der: Vec<u8>,
}

impl OwnKey {
    pub fn of(identity: &Identity) -> Self {
        let (node, path) =
            (NodeId::of_public_key(&identity.key.subject_public_key_info()), identity.path.clone());
        Self { node, path, der: identity.key.serialize_der() }
    }

    fn der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.der.clone()))
    }
}

/// Both ends of TLS for this node.
pub(super) struct Tls {
    connector: TlsConnector,
    acceptor: TlsAcceptor,
    verifier: Arc<dyn ClientCertVerifier>,
    server_name: ServerName<'static>,
    own: Proven,
    own_until_s: i64,
    lists: usize,
}

impl Tls {
    pub fn load(files: &Files, key: &OwnKey) -> Result<Self, StartError> {
        let wrong = |error: &dyn std::fmt::Display| setting("peering.cert", &files.cert, error);
        let pem = read(&files.cert)?;
        let chain = certificates_of_pem(&pem).map_err(|error| wrong(&error))?;
        let own = read_proven(Some(&chain)).map_err(|error| wrong(&error))?;
        if own.node != key.node {
            let (theirs, path, ours) = (own.node, key.path.display(), key.node);
            return Err(wrong(&format!("it is for node {theirs}, the key {path} is of node {ours}")));
        }
        let shown = Certificate::all_of_pem(&pem).map_err(|error| wrong(&error))?;
        let own_until_s = shown.first().map_or(0, |certificate| certificate.valid_until_s);

        let authorities = certificates_of_pem(&read(&files.ca)?)
            .map_err(|error| setting("peering.ca", &files.ca, &error))?;
        let mut roots = RootCertStore::empty();
        for root in &authorities {
            roots.add(root.clone()).map_err(|error| setting("peering.ca", &files.ca, &error))?;
        }
        let roots = Arc::new(roots);
        let lists: Vec<CertificateRevocationListDer<'static>> = match &files.crl {
            None => Vec::new(),
            Some(path) => lists_of_pem(&read(path)?, &authorities)
                .map_err(|error| setting("peering.crl", path, &error))?,
        };

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = &[&rustls::version::TLS13];
        // An authority without a list has revoked nothing, and a list counts as long as there is no newer one: a node in
        // the field may not hear of a new one for years.
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .with_crls(lists.clone())
            .only_check_end_entity_revocation()
            .allow_unknown_revocation_status()
            .build()
            .map_err(|error| setting("peering.ca", &files.ca, &error))?;
        let of_servers = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .with_crls(lists.clone())
            .only_check_end_entity_revocation()
            .allow_unknown_revocation_status()
            .build()
            .map_err(|error| setting("peering.ca", &files.ca, &error))?;
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(|error| wrong(&error))?
            .with_webpki_verifier(of_servers)
            .with_client_auth_cert(chain.clone(), key.der())
            .map_err(|error| wrong(&error))?;
        let server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(|error| wrong(&error))?
            .with_client_cert_verifier(Arc::clone(&verifier))
            .with_single_cert(chain, key.der())
            .map_err(|error| wrong(&error))?;
        let server_name =
            ServerName::try_from(SERVER_NAME).map_err(|error| StartError::Identity(error.to_string()))?;
        Ok(Self {
            connector: TlsConnector::from(Arc::new(client)),
            acceptor: TlsAcceptor::from(Arc::new(server)),
            verifier,
            server_name,
            own,
            own_until_s,
            lists: lists.len(),
        })
    }

    /// What this node's own certificate grants.
    pub fn own(&self) -> &Proven {
        &self.own
    }

    /// The last second of this node's own certificate, Unix time.
    pub fn own_until_s(&self) -> i64 {
        self.own_until_s
    }

    /// Revocation lists that are in force.
    pub fn lists(&self) -> usize {
        self.lists
    }

    pub fn connector(&self) -> (&TlsConnector, ServerName<'static>) {
        (&self.connector, self.server_name.clone())
    }

    pub fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// Whether a chain that was believed once still is.
    ///
    /// # Errors
    /// Why it is not.
    pub fn believes(&self, chain: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let (first, others) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        self.verifier.verify_client_cert(first, others, UnixTime::now()).map(drop)
    }
}

fn setting(key: &'static str, path: &Path, reason: &dyn std::fmt::Display) -> StartError {
    StartError::Setting { key, reason: format!("{}: {reason}", path.display()) }
}

fn read(path: &Path) -> Result<Vec<u8>, StartError> {
    std::fs::read(path).map_err(|source| StartError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_ask_for_peering_and_leave_a_part_out_are_told_which() {
        let none =
            PeeringSettings { listen: None, peers: vec![], cert: None, key: None, ca: None, crl: None };
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
