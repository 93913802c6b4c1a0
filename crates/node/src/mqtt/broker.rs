//! How to reach a broker: options of the client from settings, TLS with this program's own roots and cipher suites. What
//! is said over the connection is not known here.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rumqttc::{MqttOptions, NetworkOptions, TlsConfiguration, Transport, v5};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tidelog_record::NodeId;

use super::client::Options;
use super::payload::PAYLOAD_BYTES_MAX;
use super::topic::TOPIC_BYTES_MAX;
use super::window::WINDOW_MESSAGES_MAX;
use crate::settings::{BrokerUrl, MqttVersion, Secret};

/// Silence after which the broker is asked whether it is there, in seconds. Without an answer for as long again, the
/// connection is lost.
pub(super) const KEEP_ALIVE_S: u64 = 30;

/// Longest time to connect, and to bring one message onto the wire, in seconds.
pub(super) const NETWORK_S_MAX: u64 = 30;

/// Most bytes of one MQTT packet: a payload, its topic, and the packet's own fields and properties.
const PACKET_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + TOPIC_BYTES_MAX + 1024;

/// Digits of the node's id in a client identifier: with prefix and role it stays within the 23 bytes that every broker
/// takes.
const CLIENT_ID_DIGITS: usize = 12;

/// Why a broker that is set cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum BrokerError {
    #[error("{}: {reason}", path.display())]
    Authority { path: PathBuf, reason: String },
    #[error("{}: {reason}", path.display())]
    Own { path: PathBuf, reason: String },
    #[error("a certificate of this node is of use with mqtts:// alone")]
    OwnWithoutTls,
    #[error("this machine has no certificate authorities: set the broker's authority as a file")]
    NoAuthorities,
    #[error("mqtts:// needs a host name or an IPv4 address")]
    Ipv6WithTls,
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// What both sections of the settings say about a broker.
#[derive(Clone, Copy)]
pub(super) struct Login<'a> {
    pub url: &'a BrokerUrl,
    pub version: MqttVersion,
    pub user: Option<&'a str>,
    pub password: Option<&'a Secret>,
    pub authority: Option<&'a Path>,
    /// Certificate and key that this node proves itself with.
    pub own: Option<(&'a Path, &'a Path)>,
}

/// The client identifier when none is set: the same at every start, different for every node and role.
pub(super) fn client_id(node: NodeId, role: char) -> String {
    let digits: String = node.to_string().chars().take(CLIENT_ID_DIGITS).collect();
    format!("tidelog-{digits}-{role}")
}

pub(super) fn options(login: Login<'_>, client_id: String) -> Result<Options, BrokerError> {
    let address = &login.url.address;
    let is_ipv6 = address.host.contains(':');
    if login.url.tls && is_ipv6 {
        return Err(BrokerError::Ipv6WithTls);
    }
    let host = if is_ipv6 { format!("[{}]", address.host) } else { address.host.clone() };
    if !login.url.tls && login.own.is_some() {
        return Err(BrokerError::OwnWithoutTls);
    }
    let transport = match login.url.tls {
        true => {
            let config = tls(login.authority, login.own)?;
            Transport::tls_with_config(TlsConfiguration::Rustls(config))
        }
        false => Transport::tcp(),
    };
    let credentials = login.user.map(|user| (user, login.password.map(Secret::reveal).unwrap_or_default()));
    let keep_alive = Duration::from_secs(KEEP_ALIVE_S);
    Ok(match login.version {
        MqttVersion::V3 => {
            let mut options = MqttOptions::new(client_id, host, address.port);
            options
                .set_keep_alive(keep_alive)
                .set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX)
                .set_inflight(WINDOW_MESSAGES_MAX)
                .set_transport(transport);
            if let Some((user, password)) = credentials {
                options.set_credentials(user, password);
            }
            Options::V3(Box::new(options))
        }
        MqttVersion::V5 => {
            let mut options = v5::MqttOptions::new(client_id, host, address.port);
            options
                .set_keep_alive(keep_alive)
                .set_connection_timeout(NETWORK_S_MAX)
                .set_network_options(network_options())
                .set_max_packet_size(u32::try_from(PACKET_BYTES_MAX).ok())
                .set_outgoing_inflight_upper_limit(WINDOW_MESSAGES_MAX)
                .set_transport(transport);
            if let Some((user, password)) = credentials {
                options.set_credentials(user, password);
            }
            Options::V5(Box::new(options))
        }
    })
}

pub(super) fn network_options() -> NetworkOptions {
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(NETWORK_S_MAX);
    network
}

fn tls(authority: Option<&Path>, own: Option<(&Path, &Path)>) -> Result<Arc<ClientConfig>, BrokerError> {
    let mut roots = RootCertStore::empty();
    match authority {
        Some(path) => {
            let refuse = |reason: String| BrokerError::Authority { path: path.to_path_buf(), reason };
            for certificate in CertificateDer::pem_file_iter(path).map_err(|e| refuse(e.to_string()))? {
                let certificate = certificate.map_err(|e| refuse(e.to_string()))?;
                roots.add(certificate).map_err(|e| refuse(e.to_string()))?;
            }
            if roots.is_empty() {
                return Err(refuse("no certificate in it".to_owned()));
            }
        }
        None => {
            let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if added == 0 {
                return Err(BrokerError::NoAuthorities);
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match own {
        None => config.with_no_client_auth(),
        Some((cert, key)) => {
            let refuse = |path: &Path, reason: String| BrokerError::Own { path: path.to_path_buf(), reason };
            let chain = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let chain = chain.map_err(|error| refuse(cert, error.to_string()))?;
            let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| refuse(key, error.to_string()))?;
            config.with_client_auth_cert(chain, secret).map_err(|error| refuse(cert, error.to_string()))?
        }
    };
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login<'a>(url: &'a BrokerUrl, authority: Option<&'a Path>) -> Login<'a> {
        Login { url, version: MqttVersion::V3, user: None, password: None, authority, own: None }
    }

    #[test]
    fn a_client_identifier_fits_every_broker_and_tells_nodes_and_roles_apart() {
        let ids = [
            client_id(NodeId([1; 16]), 'b'),
            client_id(NodeId([1; 16]), 'i'),
            client_id(NodeId([2; 16]), 'b'),
        ];
        for (i, id) in ids.iter().enumerate() {
            assert!(id.len() <= 23, "{id}");
            assert!(ids.iter().skip(i + 1).all(|other| other != id));
        }
    }

    #[test]
    fn an_ipv6_address_stands_in_brackets_for_the_resolver() {
        let url: BrokerUrl = "mqtt://[::1]:1884".parse().unwrap();
        for version in [MqttVersion::V3, MqttVersion::V5] {
            let address = match options(Login { version, ..login(&url, None) }, "x".into()).unwrap() {
                Options::V3(options) => options.broker_address(),
                Options::V5(options) => options.broker_address(),
            };
            assert_eq!(address, ("[::1]".to_owned(), 1884));
        }
        let url: BrokerUrl = "mqtts://[::1]:1884".parse().unwrap();
        assert!(matches!(super::options(login(&url, None), "x".into()), Err(BrokerError::Ipv6WithTls)));
    }

    #[test]
    fn an_authority_file_without_a_certificate_is_refused_by_name() {
        let url: BrokerUrl = "mqtts://localhost".parse().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        for path in [file.path(), Path::new("/nonexistent/ca.pem")] {
            let error = options(login(&url, Some(path)), "x".into()).err().unwrap().to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
    }
}
