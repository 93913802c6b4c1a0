//! What a certificate says: whose it is, which sites it grants, from when to when, and who signed it. What a peer is and may
//! see comes from here only (invariant 13). Whether to believe it is not known here: the handshake decides that.

use std::collections::BTreeSet;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use tidelog_record::NodeId;
use tidelog_replication::Sites;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

use super::authority::{ROLE_URI_CLOUD, SITE_URI_ALL, SITE_URI_PREFIX};

/// What a node's certificate proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// The node: it follows from the key.
    pub node: NodeId,
    /// What it may hold and serve.
    pub sites: Sites,
    /// Whether it is of the cloud.
    pub cloud: bool,
}

/// Why a certificate, believed or not, is no node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoNode {
    /// There is none.
    #[error("no certificate was shown")]
    Missing,
    /// It is no X.509.
    #[error("the certificate cannot be read")]
    Malformed,
    /// None of its names is a site.
    #[error("the certificate grants no site: it has no name {SITE_URI_PREFIX}…")]
    NoSites,
    /// A site's name breaks the rules of [`tidelog_record::SiteName`].
    #[error("the certificate names a site that cannot be")]
    BadSite,
}

impl NoNode {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Missing => "certificate_missing",
            Self::Malformed => "certificate_malformed",
            Self::NoSites => "certificate_no_sites",
            Self::BadSite => "certificate_bad_site",
        }
    }
}

/// Why a text holds no certificates.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is not one in it.
    #[error("no certificate in it")]
    None,
    /// The PEM text is broken.
    #[error("broken PEM: {0}")]
    Pem(pem::Error),
    /// What the PEM text holds is no X.509.
    #[error("a certificate in it cannot be read")]
    Malformed,
}

/// Whose a certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// An authority, which signs others and is no node.
    Authority,
    /// A node with these sites.
    Node(Sites),
    /// Somebody whom no node would talk to, and why.
    Other(NoNode),
}

/// A certificate, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is.
    pub holder: Holder,
    /// Whether it is a node's of the cloud.
    pub cloud: bool,
    /// What follows from its public key: the node's id, if it is a node's.
    pub key_id: NodeId,
    /// The name that it was issued under. It proves nothing.
    pub name: String,
    /// The name of who signed it.
    pub issuer: String,
    /// Its number with that issuer, hexadecimal.
    pub serial: String,
    /// When it begins, Unix seconds.
    pub valid_from_s: i64,
    /// When it ends, Unix seconds; that second is the last one.
    pub valid_until_s: i64,
}

impl Certificate {
    /// Reads all certificates of a PEM text, in its order. There is at least one.
    ///
    /// # Errors
    /// [`ReadError`]; one that cannot be read spoils the text.
    pub fn all_of_pem(text: &[u8]) -> Result<Vec<Self>, ReadError> {
        certificates_of_pem(text)?.iter().map(|der| Self::of_der(der)).collect()
    }

    fn of_der(der: &[u8]) -> Result<Self, ReadError> {
        let (_, read) = X509Certificate::from_der(der).map_err(|_| ReadError::Malformed)?;
        let (holder, cloud) = match proven(&read) {
            _ if read.is_ca() => (Holder::Authority, false),
            Ok(Proven { sites, cloud, .. }) => (Holder::Node(sites), cloud),
            Err(error) => (Holder::Other(error), false),
        };
        Ok(Self {
            holder,
            cloud,
            key_id: NodeId::of_public_key(read.public_key().raw),
            name: name(read.subject()),
            issuer: name(read.issuer()),
            serial: read.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
            valid_from_s: read.validity().not_before.timestamp(),
            valid_until_s: read.validity().not_after.timestamp(),
        })
    }
}

/// The common name, or all of the name if it has none.
fn name(name: &X509Name<'_>) -> String {
    let common = name.iter_common_name().next().and_then(|common| common.as_str().ok());
    common.map_or_else(|| name.to_string(), str::to_owned)
}

/// The certificates of a PEM text, in its order, and at least one. What is between them is passed over.
pub(super) fn certificates_of_pem(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, ReadError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match found {
        Ok(found) if found.is_empty() => Err(ReadError::None),
        found => found.map_err(ReadError::Pem),
    }
}

/// Reads node and sites from a chain's first certificate. Whether to believe it was decided before.
pub(super) fn read_proven(chain: Option<&[CertificateDer<'_>]>) -> Result<Proven, NoNode> {
    let der = chain.and_then(<[_]>::first).ok_or(NoNode::Missing)?;
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| NoNode::Malformed)?;
    proven(&certificate)
}

/// The node of a chain that was believed.
///
/// # Errors
/// [`NoNode`]: the certificate is nobody's who could be a node.
pub fn node_of_chain(chain: Option<&[CertificateDer<'_>]>) -> Result<NodeId, NoNode> {
    read_proven(chain).map(|proven| proven.node)
}

fn proven(certificate: &X509Certificate<'_>) -> Result<Proven, NoNode> {
    let node = NodeId::of_public_key(certificate.public_key().raw);
    let names = certificate.subject_alternative_name().map_err(|_| NoNode::Malformed)?;
    let (mut all, mut cloud) = (false, false);
    let mut sites = BTreeSet::new();
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        let GeneralName::URI(uri) = name else { continue };
        cloud |= *uri == ROLE_URI_CLOUD;
        let Some(site) = uri.strip_prefix(SITE_URI_PREFIX) else { continue };
        if site == SITE_URI_ALL {
            all = true;
        } else {
            sites.insert(site.parse().map_err(|_| NoNode::BadSite)?);
        }
    }
    match (all, sites.is_empty()) {
        (true, _) => Ok(Proven { node, sites: Sites::All, cloud }),
        (false, true) => Err(NoNode::NoSites),
        (false, false) => Ok(Proven { node, sites: Sites::Only(sites), cloud }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peering::authority::{Authority, Grants, LIFETIME_DEFAULT};
    use proptest::prelude::*;
    use rcgen::KeyPair;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    fn issued(grants: impl Into<Grants>) -> (KeyPair, CertificateDer<'static>) {
        let until = SystemTime::now() + LIFETIME_DEFAULT;
        let key = KeyPair::generate().unwrap();
        let authority = Authority::create("test", until).unwrap();
        let pem = authority.issue("n", grants, &key, until).unwrap();
        (key, CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
    }

    #[test]
    fn node_sites_and_role_are_read_as_they_were_issued() {
        let some = Sites::Only(["plant-1".parse().unwrap(), "house".parse().unwrap()].into());
        for (sites, cloud) in [(Sites::All, false), (Sites::All, true), (some.clone(), false), (some, true)] {
            let (key, der) = issued(Grants { sites: sites.clone(), cloud });
            let node = NodeId::of_public_key(&rcgen::PublicKeyData::subject_public_key_info(&key));
            assert_eq!(read_proven(Some(&[der])), Ok(Proven { node, sites, cloud }));
        }
    }

    #[test]
    fn a_certificate_without_sites_is_no_nodes() {
        let (_, der) = issued(&Sites::Only([].into()));
        assert_eq!(read_proven(Some(std::slice::from_ref(&der))), Err(NoNode::NoSites));
        assert_eq!(Certificate::of_der(&der).unwrap().holder, Holder::Other(NoNode::NoSites));
        assert_eq!(read_proven(None), Err(NoNode::Missing));
        assert_eq!(read_proven(Some(&[CertificateDer::from(vec![1, 2, 3])])), Err(NoNode::Malformed));
    }

    #[test]
    fn a_text_with_several_certificates_is_read_in_its_order_and_for_people() {
        let ends = |s| UNIX_EPOCH + Duration::from_secs(s);
        let authority = Authority::create("Plant authority", ends(4_000_000_000)).unwrap();
        let key = KeyPair::generate().unwrap();
        let sites = Sites::Only(["plant-1".parse().unwrap()].into());
        let pem = authority.issue("gateway-1", &sites, &key, ends(3_000_000_000)).unwrap();
        let again = authority.issue("gateway-1", &sites, &key, ends(3_000_000_000)).unwrap();
        let text = format!("people write here\n{pem}{}{again}", authority.certificate_pem());
        let read = Certificate::all_of_pem(text.as_bytes()).unwrap();
        let [node, ca, again] = read.as_slice() else { unreachable!("{read:?}") };
        assert_eq!(node.holder, Holder::Node(sites));
        assert_eq!((node.name.as_str(), node.issuer.as_str()), ("gateway-1", "Plant authority"));
        assert_eq!((node.valid_from_s, node.valid_until_s), (946_684_800, 3_000_000_000));
        assert_eq!((&ca.holder, ca.issuer.as_str()), (&Holder::Authority, "Plant authority"));
        assert_eq!(ca.valid_until_s, 4_000_000_000);
        assert_eq!(again.key_id, node.key_id);
        assert_ne!(again.serial, node.serial, "two certificates of one key are told apart");
    }

    #[test]
    fn a_text_without_a_certificate_and_a_broken_one_are_told_apart() {
        let read = |text: &str| Certificate::all_of_pem(text.as_bytes());
        let key = KeyPair::generate().unwrap().serialize_pem();
        assert!(matches!(read(""), Err(ReadError::None)));
        assert!(matches!(read(&key), Err(ReadError::None)));
        let cut = "-----BEGIN CERTIFICATE-----\nAAAA\n";
        assert!(matches!(read(cut), Err(ReadError::Pem(_))));
        let strange = format!("{cut}-----END CERTIFICATE-----\n");
        assert!(matches!(read(&strange), Err(ReadError::Malformed)));
    }

    proptest! {
        #[test]
        fn damaged_certificates_are_read_or_refused_and_never_panic(
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
        ) {
            let (_, der) = issued(&Sites::All);
            let mut bytes = der.to_vec();
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let read = Certificate::of_der(&bytes);
            let proven = read_proven(Some(&[CertificateDer::from(bytes)]));
            if let Ok(Certificate { holder: Holder::Node(sites), key_id, cloud, .. }) = read {
                prop_assert_eq!(proven, Ok(Proven { node: key_id, sites, cloud }));
            }
        }
    }
}
