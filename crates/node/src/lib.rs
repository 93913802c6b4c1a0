//! What gateway and cloud share: settings, the HTTP API, replication with peers, the MQTT bridge, metrics, and the
//! running node that holds them together. A gateway adds its radio, a cloud node adds nothing; neither is known here.

mod asking;
mod backoff;
mod clock;
pub mod command;
mod context;
pub mod daemon;
mod device;
pub mod door;
pub mod files;
pub mod held;
mod http;
mod identity;
mod logging;
mod metrics;
pub mod mqtt;
mod node;
pub mod peering;
mod reserved;
mod room;
pub mod rule;
pub mod senml;
pub mod settings;
mod supervised;
#[doc(hidden)]
pub mod untrusted;
mod ways;

pub use context::{NodeContext, StartError, StatusBoard};
pub use http::{ServedRoute, openapi_document, served_routes};
pub use identity::Identity;
pub use metrics::{METRICS_CONTENT_TYPE, Metrics, MetricsError};
pub use node::{HTTP_ADDRESS_FILE, Node};
pub use reserved::LOAD_METRIC;
pub use ways::Ways;

/// Longest time from the word to end until the process has ended, in seconds.
pub const SHUTDOWN_S_MAX: u64 = 5;
