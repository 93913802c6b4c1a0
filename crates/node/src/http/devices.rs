//! `GET /api/v1/sites/{site}/devices` and `…/devices/{device}`: what is known of devices, their metrics and the labels that people gave
//! them. `PUT …/devices/{device}` gives one its labels.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tidelog_record::SiteName;
use tidelog_store::Store;
use tidelog_store::catalogue::{MatchOp, Matcher};

use super::Api;
use super::error::{ApiError, ErrorCode};
use super::guard::Visitor;
use super::level::{Asked, Level, Positions, unconfirmed};
use super::question::bad;
use super::write::collect;
use crate::asking::{self, DEVICE_LABEL, Unanswered};
use crate::device::{self, DeviceLabels, GiveError, LabelsError, Said, give, latest};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Posted {
    labels: BTreeMap<String, String>,
}

/// A device as it is told of: its metrics and, where people gave it any, its labels.
fn told(device: &str, metrics: &BTreeSet<String>, said: Option<&Said>) -> Value {
    let labels = said.map_or_else(|| json!({}), |said| json!(said.labels));
    let mut told = json!({"device": device, "metrics": metrics, "labels": labels});
    if let Some(said) = said {
        told["set_ms"] = json!(said.set_ms);
    }
    told
}

/// Devices with their metrics and what was said of them.
type Known = BTreeMap<String, (BTreeSet<String>, Option<Said>)>;

/// What is known of the devices of a site, or of one.
fn known(store: &Store, site: &SiteName, device: Option<&str>) -> Result<Known, Unanswered> {
    let is_meant = match device {
        Some(device) => Matcher::new(DEVICE_LABEL, MatchOp::Equal, device)?,
        None => Matcher::new(DEVICE_LABEL, MatchOp::NotEqual, "")?,
    };
    let mut known = Known::new();
    for series in asking::chosen(store, site, &vec![vec![is_meant]])? {
        // What people say of a device is not what it measures.
        if let Some(device) = series.label(DEVICE_LABEL).filter(|_| series.metric() != device::METRIC) {
            known.entry(device.to_owned()).or_default().0.insert(series.metric().to_owned());
        }
    }
    for (device, said) in latest(store, site, device)? {
        // A device that never sent is known while it has labels.
        if !said.labels.is_empty() || known.contains_key(&device) {
            known.entry(device).or_default().1 = Some(said);
        }
    }
    Ok(known)
}

/// Asks on a thread that may wait for the disk.
async fn ask<T: Send + 'static>(
    question: impl FnOnce() -> Result<T, Unanswered> + Send + 'static,
) -> Result<T, ApiError> {
    let asked = tokio::task::spawn_blocking(question).await;
    Ok(asked.map_err(|error| ApiError::new(ErrorCode::Unavailable, error.to_string()))??)
}

/// The devices of a site: those of which something was sent, by the label `device` of its series, and those that have labels.
pub(super) async fn get_devices(
    State(api): State<Api>,
    visitor: Visitor,
    Path(site): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let (site, store) = (visitor.site(&site)?, api.running()?.store.clone());
    let known = ask(move || known(&store, &site, None)).await?;
    let devices: Vec<Value> =
        known.iter().map(|(device, (metrics, said))| told(device, metrics, said.as_ref())).collect();
    Ok(Json(json!({"devices": devices})))
}

pub(super) async fn get_device(
    State(api): State<Api>,
    visitor: Visitor,
    Path((site, device)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let (site, store) = (visitor.site(&site)?, api.running()?.store.clone());
    let (of, asked) = (device.clone(), site.clone());
    let known = ask(move || known(&store, &asked, Some(&of))).await?;
    let Some((metrics, said)) = known.get(&device) else {
        let message = format!("nothing is known here of a device {device:?} at {site}");
        return Err(ApiError::new(ErrorCode::NotFound, message));
    };
    Ok(Json(told(&device, metrics, said.as_ref())))
}

pub(super) async fn put_device(
    State(api): State<Api>,
    visitor: Visitor,
    Path((site, device)): Path<(String, String)>,
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
        .map_err(|error| ApiError::new(ErrorCode::BadBody, format!("no labels of a device: {error}")))?;
    drop((body, permit));
    let labels = DeviceLabels::new(&device, posted.labels)?;
    let (said, appended) = {
        let _alone = api.labelling.lock().await;
        give(context, &site, &device, labels).await?
    };
    let mut positions = Positions::default();
    positions.add(appended);
    let mut told = json!({"device": device, "labels": said.labels, "set_ms": said.set_ms});
    Ok(match reserved.reach(context, &positions).await {
        Level::Node => {
            told["ack"] = json!("node");
            (StatusCode::OK, Json(told)).into_response()
        }
        Level::Cloud => {
            told["ack"] = json!("cloud");
            (StatusCode::OK, Json(told)).into_response()
        }
        Level::Unconfirmed(mut known) => {
            known["device"] = told;
            unconfirmed(1, known)
        }
    })
}

impl From<LabelsError> for ApiError {
    fn from(error: LabelsError) -> Self {
        Self::new(ErrorCode::BadBody, error.to_string())
    }
}

impl From<GiveError> for ApiError {
    fn from(error: GiveError) -> Self {
        let message = error.to_string();
        match error {
            GiveError::Clock | GiveError::Ending => Self::new(ErrorCode::Unavailable, message),
            GiveError::Unwritten => Self::new(ErrorCode::TooLarge, message),
            GiveError::Unanswered(error) => error.into(),
            GiveError::Append(error) => error.into(),
        }
    }
}
