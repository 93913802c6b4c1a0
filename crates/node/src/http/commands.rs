//! `POST /api/v1/sites/{site}/commands` issues a command to a device, on any node; `GET` tells what became of those that were issued.

use std::ops::RangeInclusive;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tidelog_query::parse_instant;
use tidelog_record::DeviceId;
use tidelog_record::uplink::CommandId;

use super::Api;
use super::error::{ApiError, ErrorCode};
use super::guard::Visitor;
use super::level::{Asked, Level, Positions, unconfirmed};
use super::question::bad;
use super::write::collect;
use crate::asking::Unanswered;
use crate::command::history::{Meant, history};
use crate::command::issue::{IssueError, Wish, issue, still_waiting};
use crate::command::{ActForm, NS_PER_MS};

/// Most commands in one answer; where there are more, they are the latest.
const COMMANDS_TOLD_MAX: usize = 1000;

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
    let Posted { device, act, expires_s } = posted;
    let device = device
        .parse()
        .map_err(|error| ApiError::new(ErrorCode::BadBody, format!("device {device:?}: {error}")))?;
    let (order, appended) = issue(context, &site, device, Wish { act, expires_s }).await?;
    let mut positions = Positions::default();
    positions.add(appended);
    let mut told = order.told();
    Ok(match reserved.reach(context, &positions).await {
        Level::Node => {
            told["ack"] = json!("node");
            (StatusCode::CREATED, Json(told)).into_response()
        }
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
        let start = self.start.unwrap_or_else(|| *still_waiting(now_ms).start());
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
    let meant = Meant { device: wanted.device, id: wanted.id, issued, count_max: COMMANDS_TOLD_MAX };
    let (permit, asked) = (api.question()?, site.clone());
    let told = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        history(&store, &asked, &meant, now_ms)
    });
    let told = told.await.map_err(|error| ApiError::new(ErrorCode::Unavailable, error.to_string()))?;
    let (told, left_out) = told?;
    Ok(Json(json!({"site": site.as_str(), "commands": told, "left_out": left_out})))
}

impl From<Unanswered> for ApiError {
    fn from(error: Unanswered) -> Self {
        Self::new(ErrorCode::ReadFailed, error.to_string())
    }
}

impl From<IssueError> for ApiError {
    fn from(error: IssueError) -> Self {
        let message = error.to_string();
        let code = match error {
            IssueError::Expires(_) | IssueError::Interval => ErrorCode::BadBody,
            IssueError::UnknownDevice { .. } => ErrorCode::NotFound,
            IssueError::TooMany(_) => ErrorCode::Busy,
            IssueError::Clock | IssueError::Ending => ErrorCode::Unavailable,
            IssueError::Unwritten => ErrorCode::TooLarge,
            IssueError::History(error) => return error.into(),
            IssueError::Append(error) => return error.into(),
        };
        Self::new(code, message)
    }
}
