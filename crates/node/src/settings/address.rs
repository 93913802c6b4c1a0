//! The kinds of value that options have: broker URLs, addresses by name, secrets. Checked when read, so that nobody
//! behind the settings parses text again. Whether anybody answers there is not known here.

use std::fmt;
use std::str::FromStr;

const MQTT_PORT_DEFAULT: u16 = 1883;
const MQTTS_PORT_DEFAULT: u16 = 8883;

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not `mqtt://` and not `mqtts://`.
    #[error("expected mqtt://HOST[:PORT] or mqtts://HOST[:PORT]")]
    Scheme,
    /// User and password have options of their own, so that they need not stand in a URL that is logged.
    #[error("user and password do not belong in the URL: they have options of their own")]
    Credentials,
    /// Something follows the port.
    #[error("nothing may follow the port")]
    Path,
    /// No host, or a host with characters that no host has.
    #[error("expected HOST:PORT")]
    Host,
    /// No port where one is needed, or not a number from 1 to 65535.
    #[error("expected a port from 1 to 65535 after the last ':'")]
    Port,
}

/// A host, by name or number, and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// Name, IPv4 address, or IPv6 address without brackets.
    pub host: String,
    /// TCP port, never 0.
    pub port: u16,
}

impl HostPort {
    fn parse(text: &str, port_default: Option<u16>) -> Result<Self, AddressError> {
        let (host, rest) = match text.strip_prefix('[') {
            Some(bracketed) => bracketed.split_once(']').ok_or(AddressError::Host)?,
            None => match text.find(':') {
                Some(colon) => text.split_at(colon),
                None => (text, ""),
            },
        };
        let port = match (rest.strip_prefix(':'), port_default) {
            (Some(digits), _) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().ok().filter(|port| *port != 0).ok_or(AddressError::Port)?
            }
            (None, Some(port)) if rest.is_empty() => port,
            _ => return Err(AddressError::Port),
        };
        let is_host = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
        let is_ipv6 = |c: char| c.is_ascii_hexdigit() || matches!(c, ':' | '.' | '%');
        let bracketed = text.starts_with('[');
        if host.is_empty() || !host.chars().all(|c| is_host(c) || (bracketed && is_ipv6(c))) {
            return Err(AddressError::Host);
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl FromStr for HostPort {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text, None)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Where an MQTT broker is, and whether TLS stands before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerUrl {
    /// `mqtts://`.
    pub tls: bool,
    /// Host and port; 1883 without TLS and 8883 with it when the URL names none.
    pub address: HostPort,
}

impl FromStr for BrokerUrl {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = text.split_once("://").ok_or(AddressError::Scheme)?;
        let (tls, port_default) = match scheme {
            "mqtt" => (false, MQTT_PORT_DEFAULT),
            "mqtts" => (true, MQTTS_PORT_DEFAULT),
            _ => return Err(AddressError::Scheme),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains('@') {
            return Err(AddressError::Credentials);
        }
        if authority.contains(['/', '?', '#']) {
            return Err(AddressError::Path);
        }
        Ok(Self { tls, address: HostPort::parse(authority, Some(port_default))? })
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "mqtts" } else { "mqtt" }, self.address)
    }
}

/// A text that is never written to a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text, for the one who has to present it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for text in ["a.example:1", "127.0.0.1:65535", "[::1]:8434", "[fe80::1%eth0]:8434"] {
            let address: HostPort = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
        for text in ["mqtt://broker:1883", "mqtts://broker:8883", "mqtt://[::1]:1884"] {
            let url: BrokerUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), text);
        }
        assert_eq!("mqtts://broker".parse::<BrokerUrl>().unwrap().address.port, 8883);
        assert_eq!("mqtt://broker/".parse::<BrokerUrl>().unwrap().address.port, 1883);
    }

    #[test]
    fn text_that_is_no_address_is_refused_with_the_reason() {
        let hosts: [(&str, AddressError); 7] = [
            ("", AddressError::Port),
            ("host", AddressError::Port),
            (":1", AddressError::Host),
            ("host:0", AddressError::Port),
            ("host:65536", AddressError::Port),
            ("host:+1", AddressError::Port),
            ("ho st:1", AddressError::Host),
        ];
        for (text, error) in hosts {
            assert_eq!(text.parse::<HostPort>(), Err(error), "{text}");
        }
        let urls: [(&str, AddressError); 4] = [
            ("broker:1883", AddressError::Scheme),
            ("http://broker", AddressError::Scheme),
            ("mqtt://user:word@broker", AddressError::Credentials),
            ("mqtt://broker/topic", AddressError::Path),
        ];
        for (text, error) in urls {
            assert_eq!(text.parse::<BrokerUrl>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_secret_does_not_show_in_debug_output() {
        assert_eq!(format!("{:?}", Secret::from("hunter2")), "Secret(…)");
    }
}
