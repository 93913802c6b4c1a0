//! What gateway and cloud share: settings, the HTTP API, replication with peers, the MQTT bridge, metrics, and the
//! running node that holds them together. A gateway adds its radio, a cloud node adds nothing; neither is known here.

//CTX mod context;
mod metrics;
pub mod mqtt;
pub mod settings;

//CTX pub use context::{NodeContext, StartError, StatusBoard};
pub use metrics::{METRICS_CONTENT_TYPE, Metrics, MetricsError};

/// Longest time from the word to end until the process has ended, in seconds.
pub const SHUTDOWN_S_MAX: u64 = 5;
