//! Why two nodes did not come together, in words and in a word: which of the two did not believe the other's certificate, and what is to
//! be done about it, or that it is the network. It decides nothing.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

const DAY_S: u64 = 24 * 3600;

fn of_tls(error: &io::Error) -> Option<&Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref::<Error>())
}

/// A word for metrics about a connection that failed.
pub(super) fn label(error: &io::Error) -> &'static str {
    of_tls(error).map_or("network", label_of_tls)
}

/// A word for metrics about a certificate that is not believed.
pub(super) fn label_of_tls(error: &Error) -> &'static str {
    match error {
        Error::NoCertificatesPresented => "certificate_missing",
        Error::InvalidCertificate(reason) => match reason {
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
        Error::AlertReceived(_) => "refused_by_peer",
        _ => "tls",
    }
}

/// The same for people.
pub(super) fn in_words(error: &io::Error) -> String {
    of_tls(error).map_or_else(|| error.to_string(), words_of_tls)
}

/// The same for people, about a certificate that is not believed.
pub(super) fn words_of_tls(error: &Error) -> String {
    match error {
        Error::NoCertificatesPresented => "the peer shows no certificate".to_owned(),
        Error::InvalidCertificate(reason) => format!("the peer's certificate {}", reason_of(reason)),
        Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRevoked => {
                "the peer refused this node's certificate: it is revoked".to_owned()
            }
            AlertDescription::CertificateExpired => {
                "the peer refused this node's certificate: it is expired or not valid yet, by the peer's clock"
                    .to_owned()
            }
            AlertDescription::UnknownCA => {
                "the peer refused this node's certificate: the peer does not believe its authority".to_owned()
            }
            alert => format!("the peer refused this node's certificate or handshake: {alert:?}"),
        },
        error => error.to_string(),
    }
}

fn reason_of(reason: &CertificateError) -> String {
    match reason {
        CertificateError::Revoked => "is revoked".to_owned(),
        CertificateError::Expired => "has expired, by this node's clock".to_owned(),
        CertificateError::ExpiredContext { time, not_after } => {
            let days = time.as_secs().saturating_sub(not_after.as_secs()) / DAY_S;
            format!("expired {days} days ago, by this node's clock")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet, by this node's clock".to_owned()
        }
        CertificateError::UnknownIssuer => {
            "is of an authority that this node does not believe (peering.ca)".to_owned()
        }
        other => format!("is not believed: {other}"),
    }
}
