//! What the node says of itself: whether it lives, whether it is ready, its counters and its status.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus::IntCounter;
use serde_json::{Map, Value, json};
use tidelog_record::{Lsn, SiteName, StreamId};

use super::Api;
use super::error::{ApiError, ErrorCode};
use super::guard::Visitor;
use crate::context::NodeContext;
use crate::held::Cloud;
use crate::metrics::METRICS_CONTENT_TYPE;

/// How the metrics name how many peers hold a stream.
const HELD_BY: [&str; 4] = ["0", "1", "2", "3+"];

/// The process answers. Nothing else is said by it.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// 200 once the log is recovered and while it takes writes.
pub(super) async fn readyz(State(api): State<Api>) -> Response {
    let reason = match api.running() {
        Err(error) => Some(error.message),
        Ok(context) if context.shutdown.is_cancelled() => Some("ending".to_owned()),
        Ok(context) => context.store_refusal(),
    };
    match reason {
        None => (StatusCode::OK, Json(json!({"ready": true}))).into_response(),
        Some(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"ready": false, "reason": reason}))).into_response()
        }
    }
}

/// All counters, with the gauges that only the store knows brought up to date.
pub(super) async fn metrics(State(api): State<Api>) -> Result<Response, ApiError> {
    if let Ok(context) = api.running() {
        read_gauges(context);
    }
    let text = api.metrics.text().map_err(|error| ApiError::new(ErrorCode::ReadFailed, error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, METRICS_CONTENT_TYPE)], text).into_response())
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Brings a counter to what somebody else counted.
fn raise(counter: &IntCounter, value: u64) {
    counter.inc_by(value.saturating_sub(counter.get()));
}

fn read_gauges(context: &NodeContext) {
    let metrics = &context.metrics;
    let (stats, head) = (context.store.stats(), context.store.head());
    metrics.log_head.set(gauge(head.0));
    metrics.log_bytes.set(gauge(stats.log_bytes));
    metrics.store_series.set(gauge(stats.series));
    metrics.store_open_points.set(gauge(stats.open_points));
    metrics.store_segments.set(gauge(stats.segments));
    metrics.store_segment_bytes.set(gauge(stats.segment_bytes));
    metrics.store_never_held.set(gauge(stats.records_never_held));
    raise(&metrics.store_commits, stats.commits);
    raise(&metrics.store_trimmed, stats.files_trimmed);
    raise(&metrics.store_sealed, stats.sealed_bytes);
    let by_label = [
        (&metrics.store_written, "log", stats.bytes_written),
        (&metrics.store_written, "segments", stats.segment_bytes_written),
        (&metrics.store_made, "sealed", stats.segments_sealed),
        (&metrics.store_made, "merged", stats.segments_merged),
        (&metrics.store_dropped, "segments", stats.segments_dropped),
        (&metrics.store_dropped, "records", stats.records_dropped),
        (&metrics.store_dropped, "points", stats.points_dropped),
        (&metrics.store_trouble, "failed_read", stats.failed_reads),
        (&metrics.store_trouble, "rotten_segment", stats.segments_rotten),
        (&metrics.store_trouble, "other_bytes", stats.segments_disagreed),
        (&metrics.store_trouble, "put_off", stats.upkeep_failures),
    ];
    for (counters, label, value) in by_label {
        raise(&counters.with_label_values(&[label]), value);
    }
    read_held(context);
    metrics.store_writable.set(i64::from(context.store_refusal().is_none()));
    for (name, position) in context.store.cursors() {
        metrics.cursor_lag.with_label_values(&[&name]).set(gauge(head.0.saturating_sub(position.0)));
    }
}

/// How much of what is here is elsewhere. Streams are too many to be labels, so they are counted by how many hold them.
fn read_held(context: &NodeContext) {
    let (mut by_peers, mut cloud_lag) = ([0; HELD_BY.len()], 0);
    for (stream, lsn, _) in context.store.vector() {
        let peers = context.held.held_by(&stream).peers.min(by_peers.len() - 1);
        if let Some(streams) = by_peers.get_mut(peers) {
            *streams += 1;
        }
        if stream.node == context.store.node() {
            cloud_lag += lsn.0.saturating_sub(cloud_lsn(context, &stream, lsn).0);
        }
    }
    for (peers, streams) in HELD_BY.iter().zip(by_peers) {
        context.metrics.streams_held_by.with_label_values(&[*peers]).set(streams);
    }
    context.metrics.cloud_lag.set(gauge(cloud_lag));
}

/// Up to where the cloud is known to hold a stream that is held here up to `lsn`.
fn cloud_lsn(context: &NodeContext, stream: &StreamId, lsn: Lsn) -> Lsn {
    let held = &context.held;
    match held.cloud() {
        Cloud::Here => lsn,
        _ if stream.node == context.store.node() => held.confirmed(stream),
        _ => held.held_by(stream).cloud_lsn.min(lsn),
    }
}

/// Who this is, what it holds, how far each consumer is behind, and what the parts say of themselves. Whoever may not see every site
/// is told of the streams of those that it may see, and nothing that is of all sites together.
pub(super) async fn status(State(api): State<Api>, visitor: Visitor) -> Result<Json<Value>, ApiError> {
    let context = api.running()?;
    let (store, head) = (&context.store, context.store.head());
    let cursors: Vec<Value> = store
        .cursors()
        .into_iter()
        .map(|(name, position)| {
            json!({"name": name, "position": position.0, "lag_records": head.0.saturating_sub(position.0)})
        })
        .collect();
    let streams: Vec<Value> = store
        .vector()
        .into_iter()
        .filter(|(stream, ..)| visitor.sees(&stream.site))
        .map(|(stream, lsn, chain)| {
            json!({
                "site": stream.site.as_str(),
                "node": stream.node.to_string(),
                "run": stream.run.to_string(),
                "lsn": lsn.0,
                "chain": chain.to_string(),
                "held_by": context.held.held_by(&stream).peers,
                "cloud_lsn": cloud_lsn(context, &stream, lsn).0,
            })
        })
        .collect();
    let mut status = Map::new();
    if visitor.sees_everything() {
        status.extend(context.status.read());
    }
    status.insert("version".to_owned(), json!(api.version));
    status.insert("node".to_owned(), json!(store.node().to_string()));
    status.insert("run".to_owned(), json!(store.run().to_string()));
    status.insert("streams".to_owned(), Value::Array(streams));
    if !visitor.sees_everything() {
        return Ok(Json(Value::Object(status)));
    }
    let stats = store.stats();
    status.insert("site".to_owned(), json!(context.site.as_str()));
    status.insert("head".to_owned(), json!(head.0));
    status.insert("cursors".to_owned(), Value::Array(cursors));
    status.insert(
        "store".to_owned(),
        json!({
            "records": stats.records,
            "points": stats.points,
            "series": stats.series,
            "open_points": stats.open_points,
            "log_bytes": stats.log_bytes,
            "segments": stats.segments,
            "segment_bytes": stats.segment_bytes,
            "dropped_points": stats.points_dropped,
            "never_held_records": stats.records_never_held,
            "rotten_segments": stats.segments_rotten,
            "refusal": context.store_refusal(),
        }),
    );
    Ok(Json(Value::Object(status)))
}

/// The sites of which anything is held, as far as they may be seen.
pub(super) async fn sites(State(api): State<Api>, visitor: Visitor) -> Result<Json<Value>, ApiError> {
    let sites = api.running()?.store.sites();
    let seen: Vec<_> = sites.iter().filter(|site| visitor.sees(site)).map(SiteName::as_str).collect();
    Ok(Json(json!({"sites": seen})))
}
