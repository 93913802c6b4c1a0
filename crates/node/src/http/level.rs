//! How durable a client wants its points before it is answered: on this node's disk, or in the cloud as well (invariant 2).
//!
//! ```text
//! ack=node (default) | cloud      ack_timeout=10 | 2.5 | 1m30s      how long to wait for the cloud; 0 asks what is known now
//! ```
//! Points are stored here in either case. When the cloud has not confirmed them in time, the answer is a 202 that says where
//! they are and how far the cloud is known to be. A client that waits holds no body, a fixed number of bytes, and one of
//! a bounded number of places.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tidelog_query::parse_duration;
use tidelog_record::{Lsn, StreamId};
use tidelog_store::Appended;
use tokio::sync::OwnedSemaphorePermit;

use super::Api;
use super::error::{ApiError, ErrorCode};
use super::question::bad;
use crate::context::NodeContext;
use crate::held::{Cloud, HeldElsewhere};
use crate::metrics::Metrics;

/// How long the cloud is waited for when the client does not say.
const ACK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// The longest wait for the cloud, in seconds.
const ACK_TIMEOUT_S_MAX: u64 = 300;
/// Clients that wait for the cloud together, as a part of the HTTP connections: the others stay for everyone else.
pub(super) const WAITERS_PER_CONNECTION: u32 = 2;

/// The parameters of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    cloud: Option<bool>,
    timeout: Option<Duration>,
}

impl Asked {
    /// Takes a parameter, if it is one of these; says whether it is.
    pub fn take(&mut self, name: &str, value: &str) -> Result<bool, ApiError> {
        let twice = match name {
            "ack" => {
                let cloud = match value {
                    "node" => false,
                    "cloud" => true,
                    _ => return Err(bad(format!("ack {value:?}: there are node and cloud"))),
                };
                self.cloud.replace(cloud).is_some()
            }
            "ack_timeout" => self.timeout.replace(timeout(value)?).is_some(),
            _ => return Ok(false),
        };
        if twice { Err(bad(format!("parameter {name:?} stands twice"))) } else { Ok(true) }
    }

    /// What the parameters together ask for.
    pub fn wanted(self) -> Result<Wanted, ApiError> {
        match (self.cloud.unwrap_or(false), self.timeout) {
            (true, timeout) => Ok(Wanted::Cloud(timeout.unwrap_or(ACK_TIMEOUT_DEFAULT))),
            (false, None) => Ok(Wanted::Node),
            (false, Some(_)) => Err(bad("ack_timeout is for ack=cloud: nothing else is waited for")),
        }
    }
}

fn timeout(text: &str) -> Result<Duration, ApiError> {
    let ns = parse_duration(text)
        .ok()
        .and_then(|ns| u64::try_from(ns).ok())
        .ok_or_else(|| bad(format!("ack_timeout {text:?}: not seconds, and not as in 1m30s")))?;
    let timeout = Duration::from_nanos(ns);
    if timeout > Duration::from_secs(ACK_TIMEOUT_S_MAX) {
        return Err(bad(format!("ack_timeout {text:?}: the longest is {ACK_TIMEOUT_S_MAX} s")));
    }
    Ok(timeout)
}

/// The level that a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// On this node's disk.
    Node,
    /// In the cloud, and how long it is waited for.
    Cloud(Duration),
}

impl Wanted {
    /// Takes a place among those who wait, before anything is stored: a request that cannot be answered as it wants
    /// leaves nothing behind.
    pub fn reserve(self, api: &Api, context: &NodeContext) -> Result<Reserved, ApiError> {
        let Self::Cloud(timeout) = self else { return Ok(Reserved(None)) };
        if context.held.cloud() == Cloud::Nowhere {
            return Err(bad("ack=cloud: this node replicates with nobody, so no cloud can confirm anything"));
        }
        let place = Arc::clone(&api.cloud_waiters).try_acquire_owned().map_err(|_| {
            let message = "too many clients wait for the cloud; try again later, or without ack=cloud";
            ApiError::new(ErrorCode::Busy, message)
        })?;
        Ok(Reserved(Some((timeout, place))))
    }
}

/// A place among those who wait, if one is needed.
#[derive(Debug)]
pub(super) struct Reserved(Option<(Duration, OwnedSemaphorePermit)>);

/// Where a request's records stand in this node's streams: one range for each stream, others' records may stand between.
#[derive(Debug, Default)]
pub(super) struct Positions(Vec<Range>);

#[derive(Debug)]
struct Range {
    stream: StreamId,
    first: Lsn,
    last: Lsn,
}

impl Positions {
    pub fn add(&mut self, appended: Appended) {
        let Appended { stream, lsn, .. } = appended;
        match self.0.iter_mut().find(|range| range.stream == stream) {
            Some(range) => {
                range.first = range.first.min(lsn);
                range.last = range.last.max(lsn);
            }
            None => self.0.push(Range { stream, first: lsn, last: lsn }),
        }
    }

    /// Returns once the cloud holds all of it.
    async fn confirmed(&self, held: &HeldElsewhere) {
        for range in &self.0 {
            held.wait(&range.stream, range.last).confirmed().await;
        }
    }

    fn as_json(&self, held: &HeldElsewhere) -> Value {
        let each = |range: &Range| {
            json!({
                "site": range.stream.site.as_str(),
                "node": range.stream.node.to_string(),
                "run": range.stream.run.to_string(),
                "first": range.first.0,
                "last": range.last.0,
                "cloud_lsn": held.confirmed(&range.stream).0,
            })
        };
        self.0.iter().map(each).collect()
    }
}

/// What is known of a request's points when it is answered.
#[derive(Debug)]
pub(super) enum Level {
    /// Durable here, as was wanted.
    Node,
    /// Durable in the cloud.
    Cloud,
    /// Durable here; the cloud, which was wanted, has not said so.
    Unconfirmed(Value),
}

impl Reserved {
    /// Waits for the level that the place was reserved for; the points are durable here.
    pub async fn reach(self, context: &NodeContext, positions: &Positions) -> Level {
        let Some((timeout, place)) = self.0 else { return Level::Node };
        let (held, began) = (&context.held, Instant::now());
        let mut outcome = Outcome { metrics: &context.metrics, word: "client_left", place: Some(place) };
        outcome.metrics.ack_waiting.inc();
        outcome.word = tokio::select! {
            biased;
            () = positions.confirmed(held) => "confirmed",
            () = context.shutdown.cancelled() => "ending",
            () = tokio::time::sleep(timeout) => "timeout",
        };
        if outcome.word == "confirmed" {
            return Level::Cloud;
        }
        let waited_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Level::Unconfirmed(json!({
            "ack": "node",
            "wanted": "cloud",
            "reason": outcome.word,
            "waited_ms": waited_ms,
            "cloud_sessions": held.cloud_sessions(),
            "streams": positions.as_json(held),
        }))
    }
}

/// Counts how a wait ended, also when the client went away in the middle of it. Who sees that one waits less finds its place free, and
/// its end counted.
struct Outcome<'a> {
    metrics: &'a Metrics,
    word: &'static str,
    place: Option<OwnedSemaphorePermit>,
}

impl Drop for Outcome<'_> {
    fn drop(&mut self) {
        drop(self.place.take());
        self.metrics.acks.with_label_values(&[self.word]).inc();
        self.metrics.ack_waiting.dec();
    }
}

/// The answer to points that are stored here and not known to be in the cloud.
pub(super) fn unconfirmed(points: u64, mut known: Value) -> Response {
    known["points"] = json!(points);
    (StatusCode::ACCEPTED, Json(known)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Wanted, ErrorCode> {
        let mut asked = Asked::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            assert!(asked.take(&name, &value).map_err(|error| error.code)?, "{name}");
        }
        asked.wanted().map_err(|error| error.code)
    }

    #[test]
    fn the_level_and_how_long_to_wait_for_it_are_read_and_bounded() {
        let cloud = |ms| Ok(Wanted::Cloud(Duration::from_millis(ms)));
        let cases = [
            ("", Ok(Wanted::Node)),
            ("ack=node", Ok(Wanted::Node)),
            ("ack=cloud", cloud(10_000)),
            ("ack=cloud&ack_timeout=0", cloud(0)),
            ("ack_timeout=2.5&ack=cloud", cloud(2_500)),
            ("ack=cloud&ack_timeout=1m30s", cloud(90_000)),
            ("ack=cloud&ack_timeout=300", cloud(300_000)),
        ];
        for (query, expected) in cases {
            assert_eq!(read(query), expected, "{query}");
        }
        for query in [
            "ack=disk",
            "ack=cloud&ack=cloud",
            "ack=cloud&ack_timeout=301",
            "ack=cloud&ack_timeout=-1",
            "ack=cloud&ack_timeout=NaN",
            "ack=cloud&ack_timeout=soon",
            "ack=cloud&ack_timeout=1&ack_timeout=1",
            "ack_timeout=1",
            "ack=node&ack_timeout=1",
        ] {
            assert_eq!(read(query), Err(ErrorCode::BadParameter), "{query}");
        }
        assert_eq!(Asked::default().take("acks", "cloud"), Ok(false));
    }
}
