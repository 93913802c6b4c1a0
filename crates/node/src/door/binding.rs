//! On which addresses a node may answer: on those of its own machine always, on others only behind tokens and TLS, or when the
//! settings say in so many words that it shall be without.

use std::net::SocketAddr;

use crate::context::StartError;

/// What stands between the network and the API.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Protection {
    pub tokens: bool,
    pub tls: bool,
    /// The settings say that it shall listen whatever is missing.
    pub insecure: bool,
}

/// Whether the API may listen there; what it lacks where it may all the same.
pub(crate) fn check(address: SocketAddr, protection: Protection) -> Result<Option<&'static str>, StartError> {
    let Protection { tokens, tls, insecure } = protection;
    let missing = match (tokens, tls) {
        _ if address.ip().to_canonical().is_loopback() => return Ok(None),
        (true, true) => return Ok(None),
        (false, true) => "there are no tokens",
        (true, false) => "there is no TLS",
        (false, false) => "there are neither tokens nor TLS",
    };
    if insecure {
        return Ok(Some(missing));
    }
    let reason = format!(
        "{address} can be reached from other machines, and {missing}: make a token (tidelog token create), set http_tls_certificate and \
         http_tls_key, or listen on 127.0.0.1; --insecure (http_insecure = true) goes without"
    );
    Err(StartError::Setting { key: "http", reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_machines_are_answered_only_behind_tokens_and_tls_or_when_said_so() {
        let addresses = ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"];
        let outside = ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1", "[fe80::1]:1"];
        for (tokens, tls, insecure) in (0..8).map(|bits| (bits & 1 > 0, bits & 2 > 0, bits & 4 > 0)) {
            let protection = Protection { tokens, tls, insecure };
            for address in addresses {
                assert!(check(address.parse().unwrap(), protection).is_ok(), "{address} {protection:?}");
            }
            for address in outside {
                let checked = check(address.parse().unwrap(), protection);
                assert_eq!(checked.is_ok(), insecure || (tokens && tls), "{address} {protection:?}");
            }
        }
    }

    #[test]
    fn the_refusal_says_what_is_missing_and_what_to_do() {
        let said = |tokens, tls| {
            let protection = Protection { tokens, tls, insecure: false };
            check("0.0.0.0:8433".parse().unwrap(), protection).unwrap_err().to_string()
        };
        assert!(said(false, false).contains("neither tokens nor TLS"));
        assert!(said(true, false).contains("no TLS") && said(false, true).contains("no tokens"));
        for word in ["0.0.0.0:8433", "tidelog token create", "http_tls_certificate", "--insecure"] {
            assert!(said(false, false).contains(word), "{word}");
        }
    }
}
