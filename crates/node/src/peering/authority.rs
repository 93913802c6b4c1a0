//! The cluster's authority: a certificate that all nodes believe, and the certificates it issues to their keys. What a
//! certificate grants stands in its subject alternative names: `tidelog:site:NAME` for a site, `tidelog:site:*` for all.
//! Nothing here is kept; files are the caller's affair.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, date_time_ymd,
};
use tidelog_replication::Sites;

/// The name that every node's certificate carries, so that a node is believed wherever it is dialled: what it is follows
/// from its key, not from its address.
pub const SERVER_NAME: &str = "node.tidelog.internal";
/// What stands before a site's name in a certificate.
pub const SITE_URI_PREFIX: &str = "tidelog:site:";
/// The site's name that stands for all of them.
pub const SITE_URI_ALL: &str = "*";
/// How long a certificate lasts when nothing else is said: ten years. Gateways stay in the field.
pub const LIFETIME_DEFAULT: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Certificates begin in the past: a gateway without a battery clock starts there.
const NOT_BEFORE_YEAR: i32 = 2000;

/// A certificate could not be made, or the authority's files are none.
#[derive(Debug, thiserror::Error)]
#[error("certificates: {0}")]
pub struct AuthorityError(#[from] rcgen::Error);

/// An authority with its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
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
        let key = KeyPair::generate()?;
        let certificate_pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate_pem })
    }

    /// Takes an authority from its two PEM texts.
    ///
    /// # Errors
    /// [`AuthorityError`] when they are not a certificate and its key.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        let issuer = Issuer::from_ca_cert_pem(certificate_pem, KeyPair::from_pem(key_pem)?)?;
        Ok(Self { issuer, certificate_pem: certificate_pem.to_owned() })
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
        sites: &Sites,
        key: &impl PublicKeyData,
        until: SystemTime,
    ) -> Result<String, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names.push(SanType::DnsName(Ia5String::try_from(SERVER_NAME)?));
        let names: Vec<&str> = match sites {
            Sites::All => vec![SITE_URI_ALL],
            Sites::Only(sites) => sites.iter().map(|site| site.as_str()).collect(),
        };
        for site in names {
            let uri = Ia5String::try_from(format!("{SITE_URI_PREFIX}{site}"))?;
            params.subject_alt_names.push(SanType::URI(uri));
        }
        lasts_until(&mut params, until);
        Ok(params.signed_by(key, &self.issuer)?.pem())
    }
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
        assert!(Authority::from_pem(&made.key_pem(), made.certificate_pem()).is_err());
    }
}
