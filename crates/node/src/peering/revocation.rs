//! Certificates that count no longer: a list signed by the authority that issued them (X.509 CRL, RFC 5280 section 5), PEM. A list is
//! believed here only if one of the authorities that the node believes has signed it, so nobody else can shut a node out; whose
//! certificates it then refuses, the handshake decides. Where lists are kept and how they reach a node is not known here.

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;

/// Why a text holds no lists that can be believed.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    /// There is not one in it.
    #[error("no revocation list in it")]
    None,
    /// The PEM text is broken.
    #[error("broken PEM: {0}")]
    Pem(pem::Error),
    /// What the PEM text holds is no list.
    #[error("a revocation list in it cannot be read")]
    Malformed,
    /// None of the believed authorities has signed it.
    #[error("a revocation list in it is signed by no authority that is believed")]
    Stranger,
}

/// A certificate that counts no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Its number with its issuer, as it stands in the certificate.
    pub serial: Vec<u8>,
    /// Since when, Unix seconds.
    pub since_s: i64,
}

/// A list, for whoever makes the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocations {
    /// Counts the lists of one authority.
    pub number: u64,
    /// What is revoked.
    pub revoked: Vec<Revoked>,
}

impl Revocations {
    /// Reads the lists of a PEM text as one; `authority` is the certificate that must have signed all of them.
    ///
    /// # Errors
    /// [`RevocationError`]; one list that is not believed spoils the text.
    pub fn of_pem(text: &[u8], authority: &[u8]) -> Result<Self, RevocationError> {
        let authorities: Vec<_> = CertificateDer::pem_slice_iter(authority)
            .collect::<Result<_, _>>()
            .map_err(RevocationError::Pem)?;
        let mut all = Self::default();
        for der in lists_of_pem(text, &authorities)? {
            let (_, list) =
                CertificateRevocationList::from_der(&der).map_err(|_| RevocationError::Malformed)?;
            let number = list.crl_number().and_then(|number| u64::try_from(number).ok()).unwrap_or(0);
            all.number = all.number.max(number);
            all.revoked.extend(list.iter_revoked_certificates().map(|revoked| Revoked {
                serial: revoked.raw_serial().to_vec(),
                since_s: revoked.revocation_date.timestamp(),
            }));
        }
        Ok(all)
    }
}

/// The lists of a PEM text, each signed by one of `authorities`; at least one.
pub(super) fn lists_of_pem(
    text: &[u8],
    authorities: &[CertificateDer<'_>],
) -> Result<Vec<CertificateRevocationListDer<'static>>, RevocationError> {
    let lists: Vec<CertificateRevocationListDer<'static>> =
        CertificateRevocationListDer::pem_slice_iter(text)
            .collect::<Result<_, _>>()
            .map_err(RevocationError::Pem)?;
    if lists.is_empty() {
        return Err(RevocationError::None);
    }
    for der in &lists {
        let (_, list) = CertificateRevocationList::from_der(der).map_err(|_| RevocationError::Malformed)?;
        let is_signer = |authority: &CertificateDer<'_>| {
            X509Certificate::from_der(authority).is_ok_and(|(_, authority)| {
                authority.subject().as_raw() == list.issuer().as_raw()
                    && list.verify_signature(authority.public_key()).is_ok()
            })
        };
        if !authorities.iter().any(is_signer) {
            return Err(RevocationError::Stranger);
        }
    }
    Ok(lists)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peering::authority::{Authority, LIFETIME_DEFAULT};
    use proptest::prelude::*;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    #[test]
    fn a_list_is_read_back_as_it_was_signed_and_only_from_its_own_authority() {
        let until = SystemTime::now() + LIFETIME_DEFAULT;
        let make = || Authority::create("same name", until).unwrap();
        let (authority, stranger) = (make(), make());
        let since_s = 1_800_000_000;
        let list = Revocations {
            number: 7,
            revoked: vec![
                Revoked { serial: vec![0x41, 2, 3], since_s },
                Revoked { serial: vec![0x40; 16], since_s: since_s + 1 },
            ],
        };
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_002);
        let pem = authority.sign(&list, now).unwrap();
        let read = |text: &str, authority: &Authority| {
            Revocations::of_pem(text.as_bytes(), authority.certificate_pem().as_bytes())
        };
        assert_eq!(read(&pem, &authority).unwrap(), list);
        assert!(matches!(read(&pem, &stranger), Err(RevocationError::Stranger)));
        assert!(matches!(read("", &authority), Err(RevocationError::None)));
        assert!(matches!(read(authority.certificate_pem(), &authority), Err(RevocationError::None)));
        let empty = Revocations { number: 1, revoked: vec![] };
        let both = authority.sign(&empty, now).unwrap() + &pem;
        assert_eq!(read(&both, &authority).unwrap(), list);
        let forged = pem.replacen("\nM", "\nN", 1);
        assert!(read(&forged, &authority).is_err());
    }
    proptest! {
        #[test]
        fn damaged_lists_are_refused_or_say_the_same_and_never_panic(
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
        ) {
            let until = SystemTime::now() + LIFETIME_DEFAULT;
            let authority = Authority::create("authority", until).unwrap();
            let revoked = vec![Revoked { serial: vec![0x41, 2, 3], since_s: 1_800_000_000 }];
            let list = Revocations { number: 2, revoked };
            let mut bytes = authority.sign(&list, SystemTime::now()).unwrap().into_bytes();
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Ok(read) = Revocations::of_pem(&bytes, authority.certificate_pem().as_bytes()) {
                prop_assert_eq!(read, list);
            }
        }
    }
}
