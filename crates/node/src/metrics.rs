//! Every metric of a node, named once. Subsystems count through the fields; `/metrics` writes them all out.
//!
//! Names follow the conventions of Prometheus: a unit or `_total` last. Every drop and every refusal has a counter with
//! its reason as a label (invariant 6). Gauges that the store can tell at any time (head, lag) are not kept here: they
//! are asked for when the metrics are read.

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// Upper bounds of the request time buckets, in seconds.
const REQUEST_SECONDS_BUCKETS: [f64; 10] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];

/// A metric that could not be made or written: a name twice, or not a name.
#[derive(Debug, thiserror::Error)]
#[error("metrics: {0}")]
pub struct MetricsError(#[from] prometheus::Error);

/// The text form of the metrics, as `Content-Type` names it.
pub const METRICS_CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

macro_rules! metrics {
    ($($(#[$doc:meta])* $field:ident : $kind:tt $name:literal $help:literal [$($label:literal),*];)*) => {
        /// The counters and gauges of one node. Cloning an `Arc` of it shares them.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $(
                #[doc = $help]
                $(#[$doc])*
                pub $field: metrics!(@type $kind),
            )*
        }

        impl Metrics {
            /// All metrics at zero.
            ///
            /// # Errors
            /// [`MetricsError`] if two of them have one name.
            pub fn new() -> Result<Self, MetricsError> {
                let registry = Registry::new();
                $(
                    let $field = metrics!(@make $kind $name $help [$($label),*]);
                    registry.register(Box::new($field.clone()))?;
                )*
                Ok(Self { registry, $($field),* })
            }

            /// Name, labels and meaning of every metric, in the order they are declared in.
            #[must_use]
            pub fn names() -> &'static [(&'static str, &'static [&'static str], &'static str)] {
                &[$(($name, &[$($label),*], $help)),*]
            }
        }
    };
    (@type counter) => { IntCounter };
    (@type counters) => { IntCounterVec };
    (@type gauge) => { IntGauge };
    (@type gauges) => { IntGaugeVec };
    (@type seconds) => { HistogramVec };
    (@make counter $name:literal $help:literal []) => { IntCounter::new($name, $help)? };
    (@make gauge $name:literal $help:literal []) => { IntGauge::new($name, $help)? };
    (@make counters $name:literal $help:literal [$($label:literal),+]) => {
        IntCounterVec::new(Opts::new($name, $help), &[$($label),+])?
    };
    (@make gauges $name:literal $help:literal [$($label:literal),+]) => {
        IntGaugeVec::new(Opts::new($name, $help), &[$($label),+])?
    };
    (@make seconds $name:literal $help:literal [$($label:literal),+]) => {
        HistogramVec::new(
            HistogramOpts::new($name, $help).buckets(REQUEST_SECONDS_BUCKETS.to_vec()),
            &[$($label),+],
        )?
    };
}

metrics! {
    build: gauges "tidelog_build_info" "Always 1; the labels say what runs." ["version", "node"];

    log_head: gauge "tidelog_log_head_records" "Position of the last durable record of this node's log." [];
    log_bytes: gauge "tidelog_log_bytes" "Size of the log on disk." [];
    cursor_lag: gauges "tidelog_cursor_lag_records" "Records between a cursor and the head of the log." ["cursor"];
    store_writable: gauge "tidelog_store_writable" "1 while the store takes writes, 0 once it refuses them." [];

    store_series: gauge "tidelog_store_series" "Series, over all sites." [];
    store_open_points: gauge "tidelog_store_open_points" "Points that no segment holds yet; they are in memory and in the log." [];
    store_segments: gauge "tidelog_store_segments" "Segments." [];
    store_segment_bytes: gauge "tidelog_store_segment_bytes" "Size of the segments on disk." [];
    store_never_held: gauge "tidelog_store_never_held_records" "Records that peers had dropped by policy before they came here." [];
    disk_free: gauge "tidelog_disk_free_bytes" "Bytes that the node may still write to the disk of its folder." [];
    store_commits: counter "tidelog_store_commits_total" "Commits to the log, each one sync." [];
    store_written: counters "tidelog_store_written_bytes_total" "Bytes written to disk, by where to: log or segments." ["into"];
    store_sealed: counter "tidelog_store_sealed_bytes_total" "Bytes of the segments that were made from records. All bytes written, over these, is the write amplification." [];
    store_made: counters "tidelog_store_segments_made_total" "Segments made, by what of: sealed from records or merged from segments." ["by"];
    store_trimmed: counter "tidelog_store_log_files_trimmed_total" "Log files that went because segments hold their records." [];
    store_dropped: counters "tidelog_store_dropped_total" "Dropped by policy: segments, and the records and points in them." ["what"];
    store_trouble: counters "tidelog_store_trouble_total" "Reads that failed, segments found rotten, segments that differ from their author's, rounds of upkeep put off." ["kind"];

    points_in: counters "tidelog_ingest_points_total" "Points made durable, by the way they came." ["via"];
    refused: counters "tidelog_ingest_refused_total" "Batches or requests refused, by the way they came and the reason." ["via", "reason"];
    lines_refused: counter "tidelog_ingest_lines_refused_total" "Bad lines of line protocol or CSV, left out while the others of their request were stored." [];
    repeats: counters "tidelog_ingest_repeats_total" "Batches recognised as already held and acknowledged without a second append." ["via"];

    acks: counters "tidelog_ack_cloud_total" "Requests that waited for the cloud, by how that ended: confirmed, timeout, ending, client_left." ["outcome"];
    ack_waiting: gauge "tidelog_ack_cloud_waiting" "Requests that wait for the cloud now." [];
    cloud_lag: gauge "tidelog_cloud_lag_records" "Records of this node's own streams that the cloud has not confirmed since this process began." [];
    streams_held_by: gauges "tidelog_streams_held_by_peers" "Streams, by how many peers in session hold all of what this node holds of them: 0, 1, 2, 3+." ["peers"];

    http_requests: counters "tidelog_http_requests_total" "HTTP requests answered, by route and status." ["route", "status"];
    http_seconds: seconds "tidelog_http_request_seconds" "Time from an HTTP request's head to its answer's head." ["route"];
    http_connections: gauge "tidelog_http_connections" "Open HTTP connections." [];
    http_dropped: counters "tidelog_http_connections_dropped_total" "HTTP connections closed from this side, by reason." ["reason"];
    http_certificate_until: gauge "tidelog_http_certificate_until_seconds" "The last second of the HTTP API's certificate, Unix time; 0 without TLS." [];
    denied: counters "tidelog_http_denied_total" "HTTP requests refused at the door, by reason: no_token, malformed, unknown_token, scope, site." ["reason"];
    sockets: gauge "tidelog_sockets" "WebSockets of devices that send points now." [];
    sockets_ended: counters "tidelog_sockets_ended_total" "WebSockets that ended, of devices and of clients that follow the log, by reason: told, client_left, silent, timeout, broken, too_long, malformed, unwanted, replaced, revoked, shutdown, read_failed." ["reason"];
    tails: gauge "tidelog_tails" "Clients that follow the log now." [];
    tail_missed: counter "tidelog_tail_missed_records_total" "Records that were dropped or rotten before a client that follows the log had read them." [];
    points_out: counter "tidelog_query_points_total" "Points written into answers." [];

    commands_issued: counter "tidelog_commands_issued_total" "Commands to devices that were issued at this node." [];
    commands_waiting: gauge "tidelog_commands_waiting" "Commands that wait at this node for their devices." [];
    commands_handed: counter "tidelog_commands_handed_total" "Answers to devices that brought a command; one that is not known to have begun is brought again." [];
    commands_dropped: counter "tidelog_commands_dropped_total" "Commands that this node does not hand over, because too many wait." [];

    rule_transitions: counters "tidelog_rule_transitions_total" "Times that a rule began or cleared for a series." ["rule", "to"];
    rule_firing: gauges "tidelog_rule_firing" "Series that a rule has begun for and not cleared." ["rule"];
    rule_commands: counters "tidelog_rule_commands_total" "Commands that rules gave, by outcome: issued, refused." ["outcome"];
    rule_passed_over: counters "tidelog_rule_passed_over_total" "Points that a rule did not judge and series that it does not watch, by reason: late, old, ahead, no_number, no_room, labels." ["reason"];

    mqtt_connected: gauges "tidelog_mqtt_connected" "1 while the session with the broker stands." ["role"];
    mqtt_sessions: counters "tidelog_mqtt_sessions_total" "Sessions made with the broker." ["role"];
    mqtt_failures: counters "tidelog_mqtt_failures_total" "Sessions lost or refused and messages not sent, by reason." ["role", "reason"];
    sparkplug_missed: counter "tidelog_sparkplug_missed_messages_total" "Messages of Sparkplug B that did not come, as the numbers of those that did say." [];
    mqtt_published: counter "tidelog_mqtt_published_messages_total" "Messages that the broker acknowledged." [];
    mqtt_published_points: counter "tidelog_mqtt_published_points_total" "Points in messages that the broker acknowledged." [];
    mqtt_received: counter "tidelog_mqtt_received_messages_total" "Messages received for ingest." [];

    peer_connected: gauges "tidelog_peer_connected" "1 while a session with the peer stands." ["peer"];
    peer_sessions: counters "tidelog_peer_sessions_total" "Sessions that stood, by who dialled." ["direction"];
    peer_ended: counters "tidelog_peer_sessions_ended_total" "Sessions ended and dials failed, by reason." ["reason"];
    peer_bytes: counters "tidelog_peer_bytes_total" "Bytes of replication messages." ["direction"];
    peer_records: counters "tidelog_peer_records_total" "Records sent to and adopted from peers." ["direction"];
    peer_lag: gauges "tidelog_peer_lag_records" "Records that one side of a session lacks and the other holds, by peer and by the side that lacks them." ["peer", "side"];
    certificate_until: gauge "tidelog_peering_certificate_until_seconds" "The last second of this node's own certificate, Unix time; 0 without peering." [];
    peer_refused: counters "tidelog_peer_refused_total" "Messages and records refused from peers, by reason." ["reason"];

    radio_frames: counters "tidelog_radio_frames_total" "Frames on the air." ["direction"];
    radio_bytes: counters "tidelog_radio_bytes_total" "Bytes of frames on the air." ["direction"];
    radio_drops: counters "tidelog_radio_drops_total" "Frames, fragments and datagrams dropped, by reason." ["reason"];
    radio_advised: counters "tidelog_radio_advised_total" "Sensors that were told to send to another gateway of the site, by reason: load, cut_off." ["reason"];
    coap_requests: counters "tidelog_coap_requests_total" "CoAP requests answered, by resource and code." ["resource", "code"];
}

impl Metrics {
    /// Everything in Prometheus's text form.
    ///
    /// # Errors
    /// [`MetricsError`] if a metric cannot be written.
    pub fn text(&self) -> Result<Vec<u8>, MetricsError> {
        let mut out = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_its_own_name_by_the_conventions() {
        Metrics::new().unwrap();
        for (name, labels, help) in Metrics::names() {
            assert!(name.starts_with("tidelog_"), "{name}");
            assert!(help.ends_with('.'), "{name}");
            assert!(labels.iter().all(|label| !label.is_empty()), "{name}");
        }
    }

    #[test]
    fn what_was_counted_is_written_out() {
        let metrics = Metrics::new().unwrap();
        metrics.refused.with_label_values(&["http", "malformed"]).inc();
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        assert!(text.contains("tidelog_ingest_refused_total{reason=\"malformed\",via=\"http\"} 1"), "{text}");
    }
}
