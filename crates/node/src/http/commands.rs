//! `POST /api/v1/sites/{site}/commands` issues a command to a device, on any node; `GET` tells what became of those that were issued.
//!
//! One command is issued at a time at a node, so that its id is new and greater than those known here for its device.

use std::ops::RangeInclusive;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tidelog_query::parse_instant;
use tidelog_record::uplink::CommandId;
use tidelog_record::{Batch, DeviceId, SiteName};
use tidelog_store::Store;

use super::Api;
use super::error::{ApiError, ErrorCode};
use super::guard::Visitor;
use super::level::{Asked, Level, Positions, unconfirmed};
use super::question::bad;
use super::write::{append_command, collect, durable};
use crate::asking;
use crate::clock::EARLIEST_MS;
use crate::command::history::{HistoryError, State as Become, history};
use crate::command::{ActForm, EXPIRES_S_MAX, METRIC, Order, WAITING_PER_DEVICE_MAX, device_is};
use crate::context::NodeContext;

/// How long a command may wait to be begun when nobody says, in seconds.
const EXPIRES_S_DEFAULT: u32 = 3600;

/// Most commands in one answer; where there are more, they are the latest.
const COMMANDS_TOLD_MAX: usize = 1000;

const NS_PER_MS: i64 = 1_000_000;
const NS_PER_S: i64 = 1_000_000_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Posted {
    device: String,
    act: ActForm,
    expires_s: Option<u32>,
}

pub(super) async fn post_command(
    State(api): State<Api>,
    visitor: Visitor,
    Path(site): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let context = api.running()?;
    let site = visitor.site(&site)?;
    let mut asked = Asked::default();
    for (name, value) in form_urlencoded::parse(query.as_deref().unwrap_or_default().as_bytes()) {
        if !asked.take(&name, &value)? {
            return Err(bad(format!("unknown parameter {name:?}: there are ack and ack_timeout")));
        }
    }
    let reserved = asked.wanted()?.reserve(&api, context)?;
    let (body, permit) = collect(&api, &headers, body).await?;
    let posted: Posted = serde_json::from_slice(&body)
        .map_err(|error| ApiError::new(ErrorCode::BadBody, format!("not a command: {error}")))?;
    drop((body, permit));
    let (device, lasts_s) = checked(&posted)?;
    // Held until it is durable: the next one looks at what is in the log.
    let issuing = api.issuing.lock().await;
    let order = issue(context, &site, device, posted.act, lasts_s).await?;
    let mut positions = Positions::default();
    positions.add(durable(append_command(&context.store, &site, encoded(&order, context.now_ms())?)).await?);
    drop(issuing);
    api.metrics.commands_issued.inc();
    let mut told = json!({
        "id": order.id.to_string(),
        "device": order.device.to_string(),
        "node": order.author.to_string(),
        "issued_ms": order.id.issued_ms(),
        "expires_ms": order.expires_ms,
        "act": order.act,
        "state": Become::Waiting,
        "ack": "node",
    });
    Ok(match reserved.reach(context, &positions).await {
        Level::Node => (StatusCode::CREATED, Json(told)).into_response(),
        Level::Cloud => {
            told["ack"] = json!("cloud");
            (StatusCode::CREATED, Json(told)).into_response()
        }
        Level::Unconfirmed(mut known) => {
            known["command"] = told;
            unconfirmed(1, known)
        }
    })
}

fn checked(posted: &Posted) -> Result<(DeviceId, u32), ApiError> {
    let refused = |message: String| ApiError::new(ErrorCode::BadBody, message);
    let device =
        posted.device.parse().map_err(|error| refused(format!("device {:?}: {error}", posted.device)))?;
    let lasts_s = posted.expires_s.unwrap_or(EXPIRES_S_DEFAULT);
    if !(1..=EXPIRES_S_MAX).contains(&lasts_s) {
        return Err(refused(format!("expires_s {lasts_s}: from 1 to {EXPIRES_S_MAX}")));
    }
    if let ActForm::Every { interval_ms: 0 } = posted.act {
        return Err(refused("every: interval_ms is at least 1".to_owned()));
    }
    Ok((device, lasts_s))
}

/// The command with an id of its own, if it may be issued now.
async fn issue(
    context: &NodeContext,
    site: &SiteName,
    device: DeviceId,
    act: ActForm,
    lasts_s: u32,
) -> Result<Order, ApiError> {
    let (store, site, now_ms) = (context.store.clone(), site.clone(), context.now_ms());
    if now_ms < EARLIEST_MS {
        let message = "this node's clock is not set: a command could not be said to expire";
        return Err(ApiError::new(ErrorCode::Unavailable, message));
    }
    let looked = tokio::task::spawn_blocking(move || {
        if !has_sent(&store, &site, device)? {
            let message = format!("device {device} has sent nothing that is known here at {site}");
            return Err(ApiError::new(ErrorCode::NotFound, message));
        }
        let known = history(&store, &site, Some(device), back_to(now_ms), now_ms)?;
        let waiting = known.iter().filter(|told| told.state == Become::Waiting).count();
        if waiting >= WAITING_PER_DEVICE_MAX {
            let message =
                format!("{waiting} commands wait for device {device} already, the most there may be");
            return Err(ApiError::new(ErrorCode::Busy, message));
        }
        let last = known.iter().map(|told| told.issued_ms).filter(|issued| *issued <= now_ms).max();
        let issued_ms = last.map_or(now_ms, |last| now_ms.max(last + 1));
        let expires_ms = now_ms.saturating_add(i64::from(lasts_s) * 1000);
        let author = store.node();
        let order = |id| Order { device, author, id, act, expires_ms };
        Order::id(author, issued_ms)
            .map(order)
            .ok_or_else(|| ApiError::new(ErrorCode::Unavailable, "this node's clock is centuries ahead"))
    });
    looked.await.map_err(|error| ApiError::new(ErrorCode::Unavailable, error.to_string()))?
}

fn back_to(now_ms: i64) -> RangeInclusive<i64> {
    let longest_ns = i64::from(EXPIRES_S_MAX) * NS_PER_S;
    now_ms.saturating_mul(NS_PER_MS).saturating_sub(longest_ns)..=i64::MAX
}

fn has_sent(store: &Store, site: &SiteName, device: DeviceId) -> Result<bool, ApiError> {
    let unread = |error: &dyn std::fmt::Display| ApiError::new(ErrorCode::ReadFailed, error.to_string());
    let of_device = device_is(device).map_err(|error| unread(&error))?;
    let found = asking::chosen(store, site, &vec![vec![of_device]]).map_err(|error| unread(&error))?;
    Ok(found.iter().any(|series| series.metric() != METRIC))
}

fn encoded(order: &Order, authored_ms: i64) -> Result<Vec<u8>, ApiError> {
    let unwritten = || ApiError::new(ErrorCode::BadBody, "the command cannot be written");
    let (series, at, value) = order.point().ok_or_else(unwritten)?;
    let batch = Batch { authored_ms, origin: None, series: vec![(series, vec![(at, value)])] };
    batch.encode().map_err(|error| ApiError::new(ErrorCode::TooLarge, error.to_string()))
}

/// Which of them are asked for.
#[derive(Debug, Default)]
struct Wanted {
    device: Option<DeviceId>,
    id: Option<CommandId>,
    start: Option<i64>,
    end: Option<i64>,
}

impl Wanted {
    fn read(query: &str) -> Result<Self, ApiError> {
        let mut wanted = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let parsed = |error: &dyn std::fmt::Display| bad(format!("{name} {value:?}: {error}"));
            let twice = match name.as_ref() {
                "device" => {
                    let device = value.parse::<DeviceId>().map_err(|error| parsed(&error))?;
                    wanted.device.replace(device).is_some()
                }
                "id" => {
                    let id = value.parse::<CommandId>().map_err(|error| parsed(&error))?;
                    wanted.id.replace(id).is_some()
                }
                "start" | "end" => {
                    let at = parse_instant(&value).map_err(|error| parsed(&error))?;
                    let place = if name == "start" { &mut wanted.start } else { &mut wanted.end };
                    place.replace(at).is_some()
                }
                _ => {
                    let message = format!("unknown parameter {name:?}: there are device, id, start and end");
                    return Err(bad(message));
                }
            };
            if twice {
                return Err(bad(format!("parameter {name:?} stands twice")));
            }
        }
        Ok(wanted)
    }

    /// When they were issued: without a word of it, as far back as a command can still wait.
    fn issued(&self, now_ms: i64) -> RangeInclusive<i64> {
        if let Some(id) = self.id {
            let at = id.issued_ms().saturating_mul(NS_PER_MS);
            return at..=at;
        }
        let start = self.start.unwrap_or_else(|| *back_to(now_ms).start());
        start..=self.end.unwrap_or(i64::MAX)
    }
}

pub(super) async fn get_commands(
    State(api): State<Api>,
    visitor: Visitor,
    Path(site): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, ApiError> {
    let context = api.running()?;
    let site = visitor.site(&site)?;
    let wanted = Wanted::read(query.as_deref().unwrap_or_default())?;
    let (store, now_ms) = (context.store.clone(), context.now_ms());
    let issued = wanted.issued(now_ms);
    if issued.is_empty() {
        return Err(bad("start is after end"));
    }
    let asked = site.clone();
    let told =
        tokio::task::spawn_blocking(move || history(&store, &asked, wanted.device, issued, now_ms)).await;
    let mut told = told.map_err(|error| ApiError::new(ErrorCode::Unavailable, error.to_string()))??;
    if let Some(id) = wanted.id {
        told.retain(|told| told.id == id.to_string());
    }
    let left_out = told.len().saturating_sub(COMMANDS_TOLD_MAX);
    told.drain(..left_out);
    Ok(Json(json!({"site": site.as_str(), "commands": told, "left_out": left_out})))
}

impl From<HistoryError> for ApiError {
    fn from(error: HistoryError) -> Self {
        let code = match &error {
            HistoryError::TooMany => ErrorCode::BadParameter,
            HistoryError::Matcher(_) | HistoryError::Catalogue(_) | HistoryError::Scan(_) => {
                ErrorCode::ReadFailed
            }
        };
        Self::new(code, error.to_string())
    }
}
