//! The MQTT broker of the field: rumqttd inside this process, unless the user names one of their own. It knows nothing of readings.

use std::collections::HashMap;
use std::net::SocketAddr;

use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};

/// Largest message the broker takes, in bytes: above the largest record as JSON.
const PAYLOAD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What the broker keeps in memory for subscribers that lag: segments of this size …
const SEGMENT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// … and so many of them.
const SEGMENTS_MAX: usize = 32;
const CONNECTIONS_MAX: usize = 64;
const INFLIGHT_MAX: usize = 500;

/// The broker could not be started.
#[derive(Debug, thiserror::Error)]
#[error("the embedded MQTT broker does not start: {0}")]
pub struct BrokerError(String);

/// Starts a broker on `listen` in threads of its own, which end with the process.
///
/// # Errors
/// [`BrokerError`] when its thread cannot be started.
pub fn start(listen: SocketAddr) -> Result<(), BrokerError> {
    let connections = ConnectionSettings {
        connection_timeout_ms: 10_000,
        max_payload_size: PAYLOAD_BYTES_MAX,
        max_inflight_count: INFLIGHT_MAX,
        auth: None,
        external_auth: None,
        dynamic_filters: true,
    };
    let server = ServerSettings {
        name: "demo".to_owned(),
        listen,
        tls: None,
        next_connection_delay_ms: 1,
        connections,
    };
    let config = Config {
        router: RouterConfig {
            max_connections: CONNECTIONS_MAX,
            max_outgoing_packet_count: 1_000,
            max_segment_size: SEGMENT_BYTES_MAX,
            max_segment_count: SEGMENTS_MAX,
            ..RouterConfig::default()
        },
        v4: Some(HashMap::from([("demo".to_owned(), server)])),
        ..Config::default()
    };
    let mut broker = Broker::new(config);
    std::thread::Builder::new()
        .name("mqtt-broker".to_owned())
        .spawn(move || {
            if let Err(error) = broker.start() {
                tracing::error!(%error, "the embedded MQTT broker ended");
            }
        })
        .map_err(|e| BrokerError(e.to_string()))?;
    Ok(())
}
