//! The cluster's authority: a certificate that all nodes believe, and the certificates it issues to their keys. What a
//! certificate grants stands in its subject alternative names: `tidelog:site:NAME` for a site, `tidelog:site:*` for all, and
//! `tidelog:role:cloud` for a node whose word counts as the cloud's. Nothing here is kept; files are the caller's affair.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData, RevokedCertParams, SanType,
    SerialNumber, date_time_ymd,
};
use tidelog_record::NodeId;
use tidelog_replication::Sites;

use super::certificate::{Certificate, Holder, ReadError};
use super::revocation::{Revocations, Revoked};

/// The name that every node's certificate carries, so that a node is believed wherever it is dialled: what it is follows
/// from its key, not from its address.
pub const SERVER_NAME: &str = "node.tidelog.internal";
/// What stands before a site's name in a certificate.
pub const SITE_URI_PREFIX: &str = "tidelog:site:";
/// The site's name that stands for all of them.
pub const SITE_URI_ALL: &str = "*";
/// The name of a node of the cloud: what is durable there is durable in the cloud.
pub const ROLE_URI_CLOUD: &str = "tidelog:role:cloud";
/// How long a certificate lasts when nothing else is said: ten years. Gateways stay in the field.
pub const LIFETIME_DEFAULT: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Certificates begin in the past: a gateway without a battery clock starts there.
const NOT_BEFORE_YEAR: i32 = 2000;

/// Random bytes of a certificate's serial number: two of one key are told apart, as who revokes one must.
const SERIAL_BYTES: usize = 16;

/// What a certificate grants its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants {
    /// What it may hold and serve.
    pub sites: Sites,
    /// Whether it is of the cloud.
    pub cloud: bool,
}

impl From<&Sites> for Grants {
    /// These sites and no role.
    fn from(sites: &Sites) -> Self {
        Self { sites: sites.clone(), cloud: false }
    }
}

/// A certificate could not be made, or the authority's files are none.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A key or certificate could not be made.
    #[error("certificates: {0}")]
    Make(#[from] rcgen::Error),
    /// The authority's certificate cannot be read.
    #[error("the authority's certificate: {0}")]
    Certificate(#[from] ReadError),
    /// The authority's key cannot be read.
    #[error("the authority's key: {0}")]
    Key(rcgen::Error),
    /// The certificate is a node's.
    #[error("the certificate is not an authority's")]
    NoAuthority,
    /// Certificate and key belong to different authorities: nobody would believe what they issue.
    #[error("the certificate and the key do not belong together")]
    KeyOfAnother,
    /// The system has no random numbers.
    #[error("no random numbers for a serial number")]
    Random,
}

/// An authority with its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
    certificate_pem: String,
}

impl Authority {
    /// Makes an authority that lasts until `until`.
    ///
    /// # Errors
    /// [`AuthorityError`] when no key can be made.
    pub fn create(name: &str, until: SystemTime) -> Result<Self, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        lasts_until(&mut params, until);
        params.serial_number = Some(serial_number()?);
        let key = KeyPair::generate()?;
        let certificate_pem = params.self_signed(&key)?.pem();
        Self::of(certificate_pem, Issuer::new(params, key))
    }

    /// Takes an authority from its two PEM texts. Of several certificates the first is the authority's.
    ///
    /// # Errors
    /// [`AuthorityError`] when they are not an authority's certificate and its key.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        let key = KeyPair::from_pem(key_pem).map_err(AuthorityError::Key)?;
        // Says what is wrong with the text before the issuer, which says less, reads it.
        Certificate::all_of_pem(certificate_pem.as_bytes())?;
        Self::of(certificate_pem.to_owned(), Issuer::from_ca_cert_pem(certificate_pem, key)?)
    }

    fn of(certificate_pem: String, issuer: Issuer<'static, KeyPair>) -> Result<Self, AuthorityError> {
        let read = Certificate::all_of_pem(certificate_pem.as_bytes())?;
        let certificate = read.into_iter().next().ok_or(ReadError::None)?;
        if certificate.holder != Holder::Authority {
            return Err(AuthorityError::NoAuthority);
        }
        if certificate.key_id != NodeId::of_public_key(&issuer.key().subject_public_key_info()) {
            return Err(AuthorityError::KeyOfAnother);
        }
        Ok(Self { issuer, certificate, certificate_pem })
    }

    /// What the authority's own certificate says.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The certificate that nodes are to believe, PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The key, PEM. Who has it can be any node.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Issues a certificate to a node's public key, PEM. `name` is for people.
    ///
    /// # Errors
    /// [`AuthorityError`] when it cannot be signed.
    pub fn issue(
        &self,
        name: &str,
        grants: impl Into<Grants>,
        key: &impl PublicKeyData,
        until: SystemTime,
    ) -> Result<String, AuthorityError> {
        let Grants { sites, cloud } = grants.into();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names.push(SanType::DnsName(Ia5String::try_from(SERVER_NAME)?));
        let names: Vec<&str> = match &sites {
            Sites::All => vec![SITE_URI_ALL],
            Sites::Only(sites) => sites.iter().map(|site| site.as_str()).collect(),
        };
        for site in names {
            let uri = Ia5String::try_from(format!("{SITE_URI_PREFIX}{site}"))?;
            params.subject_alt_names.push(SanType::URI(uri));
        }
        if cloud {
            params.subject_alt_names.push(SanType::URI(Ia5String::try_from(ROLE_URI_CLOUD)?));
        }
        lasts_until(&mut params, until);
        params.serial_number = Some(serial_number()?);
        Ok(params.signed_by(key, &self.issuer)?.pem())
    }

    /// Signs a list of what counts no longer, PEM. It lasts as long as the authority: a node without a clock believes it too.
    ///
    /// # Errors
    /// [`AuthorityError`] when it cannot be signed.
    pub fn sign(&self, list: &Revocations, now: SystemTime) -> Result<String, AuthorityError> {
        let instant = |unix_s: u64| date_time_ymd(1970, 1, 1) + Duration::from_secs(unix_s);
        let revoked = |revoked: &Revoked| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&revoked.serial),
            revocation_time: instant(u64::try_from(revoked.since_s).unwrap_or(0)),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: instant(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()),
            next_update: instant(u64::try_from(self.certificate.valid_until_s).unwrap_or(0)),
            crl_number: SerialNumber::from(list.number),
            issuing_distribution_point: None,
            revoked_certs: list.revoked.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(params.signed_by(&self.issuer)?.pem()?)
    }
}

fn serial_number() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0; SERIAL_BYTES];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| AuthorityError::Random)?;
    // Positive, as numbers in ASN.1 have a sign, and without a leading zero byte.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn lasts_until(params: &mut CertificateParams, until: SystemTime) {
    params.not_before = date_time_ymd(NOT_BEFORE_YEAR, 1, 1);
    params.not_after = date_time_ymd(1970, 1, 1) + until.duration_since(UNIX_EPOCH).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_read_back_from_its_files_issues_as_before() {
        let until = SystemTime::now() + LIFETIME_DEFAULT;
        let made = Authority::create("cluster", until).unwrap();
        let read = Authority::from_pem(made.certificate_pem(), &made.key_pem()).unwrap();
        let key = KeyPair::generate().unwrap();
        assert!(read.issue("node", &Sites::All, &key, until).is_ok());
        assert_eq!(read.certificate(), made.certificate());
        assert!(Authority::from_pem(&made.key_pem(), made.certificate_pem()).is_err());
    }

    #[test]
    fn files_that_are_no_authoritys_are_refused_each_with_its_reason() {
        let until = SystemTime::now() + LIFETIME_DEFAULT;
        let (one, other) =
            (Authority::create("one", until).unwrap(), Authority::create("other", until).unwrap());
        let key = KeyPair::generate().unwrap();
        let node = one.issue("node", &Sites::All, &key, until).unwrap();
        let read = |certificate: &str, key: &str| Authority::from_pem(certificate, key).map(drop);
        assert!(matches!(read(one.certificate_pem(), &other.key_pem()), Err(AuthorityError::KeyOfAnother)));
        assert!(matches!(read(&node, &key.serialize_pem()), Err(AuthorityError::NoAuthority)));
        assert!(matches!(read(one.certificate_pem(), "no key"), Err(AuthorityError::Key(_))));
        assert!(matches!(read("no certificate", &one.key_pem()), Err(AuthorityError::Certificate(_))));
    }
}
