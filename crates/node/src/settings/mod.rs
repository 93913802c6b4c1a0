//! Every option that both daemons share: its name, its meaning and its default, each written once, here.
//!
//! The structs below are the single source. A flag `--mqtt-url` is the variable `TIDELOG_MQTT_URL` and the key `url`
//! in the section `[mqtt]` of the file; the help headings name the sections. What was typed becomes what it means in
//! this module (`address` holds the checked kinds); what is done with it is the subsystems' affair.

mod address;
mod document;
mod file;
mod load;
mod store;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};
use tidelog_query::promql::Bounds;
use tidelog_record::SiteName;

use crate::mqtt::topic::{
    DEVICE_STATE_TOPIC_DEFAULT, STATE_TOPIC_DEFAULT, TOPIC_FILTER_DEFAULT, TOPIC_TEMPLATE_DEFAULT,
    TopicFilter, TopicTemplate,
};

pub use address::{AddressError, BrokerUrl, HostPort, Secret};
pub use document::document;
pub use file::FileError;
pub use load::{Loaded, SettingsError, load};
pub use store::{KeepError, KeepRule, StoreSettings, WhenFull};

/// What a gateway and a cloud node have in common.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Directory of the log, the cursors and the node's key; created when missing.
    #[arg(long, value_name = "DIR", default_value = "tidelog-data")]
    pub data: PathBuf,

    /// Address of the HTTP API. Port 0 takes a free one; the bound address stands in `DIR/http.addr`.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8433")]
    pub http: SocketAddr,

    /// Site that readings without a site of their own belong to.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub site: SiteName,

    /// How long an append may wait for others to share its disk sync, in milliseconds. Acknowledgements wait with it.
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1000))]
    pub commit_interval_ms: u32,

    /// File of the tokens that open the HTTP API, which `tidelog token` writes; `DIR/tokens.json` without it. While there is no such
    /// file, no token is asked for.
    #[arg(long, value_name = "FILE")]
    pub http_tokens: Option<PathBuf>,

    /// Certificate of the HTTP API with the chain behind it, PEM; with it, the API speaks TLS and nothing else. Read again when it
    /// changes.
    #[arg(long, value_name = "FILE")]
    pub http_tls_certificate: Option<PathBuf>,

    /// Private key of that certificate, PEM.
    #[arg(long, value_name = "FILE")]
    pub http_tls_key: Option<PathBuf>,

    /// Answer other machines also without tokens or without TLS, which is otherwise refused: for networks that are trusted, or behind a
    /// proxy that asks for both.
    #[arg(
        long,
        visible_alias = "insecure",
        value_name = "true|false",
        default_value_t = false,
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub http_insecure: bool,

    /// File of the rules that this node keeps, TOML (RULES.md): what matches a rule becomes a command, an MQTT message or another point. Read
    /// at the start.
    #[arg(long, value_name = "FILE")]
    pub rules: Option<PathBuf>,

    /// Largest HTTP request body, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 8 * 1024 * 1024, value_parser = clap::value_parser!(u32).range(1024..))]
    pub http_body_bytes_max: u32,

    /// Most HTTP connections at a time; further ones wait to be accepted.
    #[arg(long, value_name = "COUNT", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    pub http_connections_max: u32,

    /// Most WebSockets of devices at a time; further ones are refused.
    #[arg(long, value_name = "COUNT", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    pub http_sockets_max: u32,

    /// Time an HTTP client has to send a request, or to take a piece of the answer, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    pub http_stall_s_max: u32,

    /// Least severe log line to write: error, warn, info, debug, trace, or `module=level,…` as in RUST_LOG.
    #[arg(long, value_name = "FILTER", default_value = "info", value_parser = crate::logging::filter)]
    pub log_level: String,

    /// Where the log goes: stderr, or the machine's syslog.
    #[arg(long, value_name = "WHERE", default_value = "stderr")]
    pub log_to: LogTo,

    /// Form of the log's lines.
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub log_format: LogFormat,

    /// The store.
    #[command(flatten)]
    pub store: StoreSettings,

    /// Questions in PromQL.
    #[command(flatten)]
    pub query: QuerySettings,

    /// Replication with other nodes.
    #[command(flatten)]
    pub peering: PeeringSettings,

    /// Publication to an MQTT broker.
    #[command(flatten)]
    pub mqtt: MqttSettings,

    /// Ingest from an MQTT broker.
    #[command(flatten)]
    pub ingest: IngestSettings,
}

/// Where the log goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogTo {
    /// Standard error: what starts a service takes it from there (systemd's journal, procd).
    Stderr,
    /// The machine's syslog (`/dev/log`), as the facility `daemon` and by level.
    Syslog,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Questions in PromQL: how they read time, and what one of them may take.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "[query]")]
pub struct QuerySettings {
    /// How far back a query looks for the newest sample of a series, in seconds. More than the longest pause between
    /// two readings that is still normal.
    #[arg(id = "query-lookback-s", long = "query-lookback-s", value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    pub lookback_s: u32,

    /// Step of a subquery that names none, in seconds.
    #[arg(id = "query-subquery-step-s", long = "query-subquery-step-s", value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    pub subquery_step_s: u32,

    /// Most samples that one query may read and make. Those made take 8 bytes each until it is answered.
    #[arg(id = "query-samples-max", long = "query-samples-max", value_name = "COUNT", default_value_t = 10_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub samples_max: u32,

    /// Most steps of one range query.
    #[arg(id = "query-steps-max", long = "query-steps-max", value_name = "COUNT", default_value_t = 11_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub steps_max: u32,

    /// Most series that one query may select.
    #[arg(id = "query-series-max", long = "query-series-max", value_name = "COUNT", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub series_max: u32,

    /// Longest time that one query may take, waiting for others included, in seconds.
    #[arg(id = "query-s-max", long = "query-s-max", value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..))]
    pub s_max: u32,
}

impl QuerySettings {
    /// The bounds as the engine takes them.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        let ns = |seconds: u32| i64::from(seconds) * 1_000_000_000;
        Bounds {
            samples_max: u64::from(self.samples_max),
            steps_max: u64::from(self.steps_max),
            series_max: u64::from(self.series_max),
            lookback_ns: ns(self.lookback_s),
            subquery_step_ns: ns(self.subquery_step_s),
        }
    }
}

/// Replication with other nodes over mutual TLS.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "[peering]")]
pub struct PeeringSettings {
    /// Address to accept peers on. Port 0 takes a free one; the bound address stands in `DIR/peering.addr`.
    #[arg(id = "peering-listen", long = "peering-listen", value_name = "ADDR")]
    pub listen: Option<SocketAddr>,

    /// Nodes to dial and to keep a session with; may stand more than once.
    #[arg(id = "peering-peers", long = "peering-peers", value_name = "HOST:PORT", value_delimiter = ',')]
    pub peers: Vec<HostPort>,

    /// Certificate of this node with the chain behind it, PEM.
    #[arg(id = "peering-cert", long = "peering-cert", value_name = "FILE")]
    pub cert: Option<PathBuf>,

    /// Private key of this node, PEM. Without it the node makes its own at the first start: `DIR/node.key`.
    #[arg(id = "peering-key", long = "peering-key", value_name = "FILE")]
    pub key: Option<PathBuf>,

    /// Certificates of the authorities whose nodes are believed, PEM.
    #[arg(id = "peering-ca", long = "peering-ca", value_name = "FILE")]
    pub ca: Option<PathBuf>,

    /// Lists of revoked certificates, PEM, each signed by one of the authorities. This file, the certificate and the
    /// authorities are read again when they change.
    #[arg(id = "peering-crl", long = "peering-crl", value_name = "FILE")]
    pub crl: Option<PathBuf>,
}

/// Publication of the log to an MQTT broker.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "[mqtt]")]
pub struct MqttSettings {
    /// Broker to publish to; nothing is published without it.
    #[arg(id = "mqtt-url", long = "mqtt-url", value_name = "mqtt[s]://HOST[:PORT]")]
    pub url: Option<BrokerUrl>,

    /// Version of MQTT that is spoken with the broker. With 5 it says why it refuses something, also a single message.
    #[arg(id = "mqtt-version", long = "mqtt-version", value_name = "VERSION", default_value = "3.1.1")]
    pub version: MqttVersion,

    /// User name for the broker.
    #[arg(id = "mqtt-user", long = "mqtt-user", value_name = "NAME")]
    pub user: Option<String>,

    /// Password for the broker; better given by environment or file than by flag.
    #[arg(id = "mqtt-password", long = "mqtt-password", value_name = "PASSWORD", hide_env_values = true)]
    pub password: Option<Secret>,

    /// Certificates of the authorities that the broker is believed by, PEM; the machine's own without it.
    #[arg(id = "mqtt-ca", long = "mqtt-ca", value_name = "FILE")]
    pub ca: Option<PathBuf>,

    /// Certificate that this node proves itself to the broker with, PEM; with mqtt.key.
    #[arg(id = "mqtt-cert", long = "mqtt-cert", value_name = "FILE", requires = "mqtt-key")]
    pub cert: Option<PathBuf>,

    /// Private key of that certificate, PEM.
    #[arg(id = "mqtt-key", long = "mqtt-key", value_name = "FILE", requires = "mqtt-cert")]
    pub key: Option<PathBuf>,

    /// Topic that a record is published on, with {site}, {device} and {node} in it. {device} is `points` for a record
    /// that no sensor sent.
    #[arg(id = "mqtt-topic", long = "mqtt-topic", value_name = "TEMPLATE", default_value = TOPIC_TEMPLATE_DEFAULT)]
    pub topic: TopicTemplate,

    /// Topic of the retained message that says whether this node is there, with {site} and {node} in it.
    #[arg(id = "mqtt-state-topic", long = "mqtt-state-topic", value_name = "TEMPLATE", default_value = STATE_TOPIC_DEFAULT)]
    pub state_topic: TopicTemplate,

    /// Topic of the retained messages that say whether this node hears a sensor, with {node} and {device}, and {site}, in it.
    #[arg(id = "mqtt-device-state-topic", long = "mqtt-device-state-topic", value_name = "TEMPLATE", default_value = DEVICE_STATE_TOPIC_DEFAULT)]
    pub device_state_topic: TopicTemplate,

    /// How long a sensor may send nothing until it is said to be gone, in seconds. Some three times the longest interval between two of its
    /// batches.
    #[arg(id = "mqtt-device-silence-s", long = "mqtt-device-silence-s", value_name = "SECONDS", default_value_t = 900, value_parser = clap::value_parser!(u32).range(1..))]
    pub device_silence_s: u32,

    /// Topic that commands to the devices of this node's site are taken from, as tidelog/{site}/{device}/command; none are taken without it.
    /// Whoever may publish there may command. Set it on one node of a site alone.
    #[arg(id = "mqtt-command-topic", long = "mqtt-command-topic", value_name = "TEMPLATE")]
    pub command_topic: Option<TopicTemplate>,

    /// Form of a published message.
    #[arg(id = "mqtt-payload", long = "mqtt-payload", value_name = "FORM", default_value = "msgpack")]
    pub payload: MqttPayload,

    /// Announce sensors to Home Assistant under this topic, which is `homeassistant` there unless it was told otherwise; with mqtt.payload = "json".
    #[arg(id = "mqtt-discovery-prefix", long = "mqtt-discovery-prefix", value_name = "TOPIC")]
    pub discovery_prefix: Option<TopicTemplate>,

    /// Client identifier towards the broker, different for every node; one made of the node's id without it.
    #[arg(id = "mqtt-client-id", long = "mqtt-client-id", value_name = "ID")]
    pub client_id: Option<String>,
}

/// The version of MQTT that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MqttVersion {
    /// What every broker speaks.
    #[value(name = "3.1.1")]
    V3,
    /// With reasons.
    #[value(name = "5")]
    V5,
}

/// Whether Sparkplug B is taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sparkplug {
    /// No.
    Off,
    /// What edge nodes publish is.
    Listen,
    /// And edge nodes whose births did not come are asked for them, which takes the right to publish.
    Ask,
}

impl Sparkplug {
    /// Whether it is taken in.
    #[must_use]
    pub fn is_heard(self) -> bool {
        self != Self::Off
    }
}

/// How a published batch is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MqttPayload {
    /// MessagePack.
    Msgpack,
    /// JSON.
    Json,
}

/// Readings taken from an MQTT broker into the log.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "[ingest]")]
pub struct IngestSettings {
    /// Broker to subscribe at; nothing is taken in over MQTT without it.
    #[arg(id = "ingest-url", long = "ingest-url", value_name = "mqtt[s]://HOST[:PORT]")]
    pub url: Option<BrokerUrl>,

    /// Version of MQTT that is spoken with the broker.
    #[arg(id = "ingest-version", long = "ingest-version", value_name = "VERSION", default_value = "3.1.1")]
    pub version: MqttVersion,

    /// How long the broker is to keep messages for this node while the node is away, in seconds; for ever without it. With MQTT 5 alone.
    #[arg(id = "ingest-session-expiry-s", long = "ingest-session-expiry-s", value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(60..))]
    pub session_expiry_s: Option<u32>,

    /// User name for the broker.
    #[arg(id = "ingest-user", long = "ingest-user", value_name = "NAME")]
    pub user: Option<String>,

    /// Password for the broker; better given by environment or file than by flag.
    #[arg(id = "ingest-password", long = "ingest-password", value_name = "PASSWORD", hide_env_values = true)]
    pub password: Option<Secret>,

    /// Certificates of the authorities that the broker is believed by, PEM; the machine's own without it.
    #[arg(id = "ingest-ca", long = "ingest-ca", value_name = "FILE")]
    pub ca: Option<PathBuf>,

    /// Certificate that this node proves itself to the broker with, PEM; with ingest.key.
    #[arg(id = "ingest-cert", long = "ingest-cert", value_name = "FILE", requires = "ingest-key")]
    pub cert: Option<PathBuf>,

    /// Private key of that certificate, PEM.
    #[arg(id = "ingest-key", long = "ingest-key", value_name = "FILE", requires = "ingest-cert")]
    pub key: Option<PathBuf>,

    /// Topic filter to subscribe to.
    #[arg(id = "ingest-topic", long = "ingest-topic", value_name = "FILTER", default_value = TOPIC_FILTER_DEFAULT)]
    pub topic: TopicFilter,

    /// File that says how messages of other programs are read and taken in, TOML (MQTT.md). Read at the start.
    #[arg(id = "ingest-messages", long = "ingest-messages", value_name = "FILE")]
    pub messages: Option<PathBuf>,

    /// Whether edge nodes of Sparkplug B are listened to (MQTT.md), and asked for their births where these did not come.
    #[arg(id = "ingest-sparkplug", long = "ingest-sparkplug", value_name = "MODE", default_value = "off")]
    pub sparkplug: Sparkplug,

    /// Client identifier towards the broker, different for every node; one made of the node's id without it. The broker
    /// keeps messages for it while the node is away.
    #[arg(id = "ingest-client-id", long = "ingest-client-id", value_name = "ID")]
    pub client_id: Option<String>,
}
