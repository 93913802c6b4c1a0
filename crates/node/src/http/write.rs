//! `POST /api/v1/sites/{site}/points`: takes points in and answers when they are durable, on this node or in the cloud as the client
//! wants (invariant 2).
//!
//! A big post becomes several records. The answer comes when all are durable; if one is refused, the client is told and
//! may post the whole again, because a point that is there already is the same point (invariant 8).

use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use serde::Serialize;
use tidelog_record::{Batch, SiteName};
use tidelog_store::{AppendError, Appended, Store};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::Api;
use super::error::{ApiError, ErrorCode};
use super::guard::Visitor;
use super::level::{Asked, Level, Positions, Reserved, Wanted, unconfirmed};
use super::once::{self, Name, Print};
use super::partial::Taken;
use super::posted::table::{self, Columns};
use super::posted::{BodyForm, Posted};
use super::question::bad;
use crate::context::NodeContext;
use crate::reserved::{self, reserved_in};
use crate::{command, device, rule};

/// Slowest body that is waited for once the stall time has passed, in bytes per second.
const BODY_BYTES_PER_S_MIN: u64 = 1024;

/// A body up to this length is read where its request is served: that takes less than handing it to another thread. In bytes.
pub(super) const SMALL_BODY_BYTES_MAX: usize = 4 * 1024;

/// How the counters name this way in.
const VIA: &str = "http";

/// What the client gets when all of its points are durable.
#[derive(Debug, Serialize)]
pub(super) struct Accepted {
    /// Points that are now durable.
    points: usize,
    /// The level of the acknowledgement: `node` or `cloud`.
    ack: &'static str,
}

pub(super) async fn post_points(
    State(api): State<Api>,
    visitor: Visitor,
    Path(site): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let answered = async {
        let context = api.running()?;
        let site = visitor.site(&site)?;
        let (wanted, form) = asked(&headers, uri.query().unwrap_or_default())?;
        let name = Name::of(&visitor, &headers)?;
        let reserved = wanted.reserve(&api, context)?;
        let (body, permit) = collect(&api, &headers, body).await?;
        let Some(name) = name else {
            return store(&api, site, form, reserved, body, permit).await;
        };
        let (again, print) = (api.clone(), Print::of(&uri, &headers, &body));
        let work = async move {
            let stored = store(&again, site, form, reserved, body, permit).await;
            stored.unwrap_or_else(|error| refused(&again, error).into_response())
        };
        once::answer(&api.once, &api.metrics, VIA, &context.tasks, (name, print), work).await
    };
    answered.await.map_err(|error| refused(&api, error))
}

fn refused(api: &Api, error: ApiError) -> ApiError {
    api.metrics.refused.with_label_values(&[VIA, error.code.name()]).inc();
    error
}

/// Stores a body's points, and answers when they are as durable as they are to be.
async fn store(
    api: &Api,
    site: SiteName,
    form: Form,
    reserved: Reserved,
    body: Bytes,
    permit: OwnedSemaphorePermit,
) -> Result<Response, ApiError> {
    let context = api.running()?;
    let read = {
        let (body, most) = (body.clone(), api.limits.body_bytes_max);
        move || form.read(&body, most)
    };
    let (points, positions, lines) = take_in(context, site, body.len(), read).await?;
    api.metrics.points_in.with_label_values(&[VIA]).inc_by(points as u64);
    api.metrics.lines_refused.inc_by(lines.bad_lines);
    // The room of the body is free for others while this one waits.
    drop((body, permit));
    if let Some(refusal) = lines.refusal() {
        return Err(refusal);
    }
    Ok(match reserved.reach(context, &positions).await {
        Level::Node => Json(Accepted { points, ack: "node" }).into_response(),
        Level::Cloud => Json(Accepted { points, ack: "cloud" }).into_response(),
        Level::Unconfirmed(known) => unconfirmed(points as u64, known),
    })
}

/// The forms of a body.
enum Form {
    Document(BodyForm),
    Table(Columns),
}

impl Form {
    /// The points of a body, and what became of its lines, if it has such.
    fn read(&self, body: &[u8], body_bytes_max: u32) -> Result<(Posted, Taken), ApiError> {
        match self {
            Self::Document(form) => Ok((form.read(body, body_bytes_max)?, Taken::default())),
            Self::Table(columns) => columns.read(body, body_bytes_max),
        }
    }
}

/// How durable the points are to be, and how they are to be read.
fn asked(headers: &HeaderMap, query: &str) -> Result<(Wanted, Form), ApiError> {
    let (mut asked, mut columns) = (Asked::default(), None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if !asked.take(&name, &value)? && !columns.get_or_insert_with(Columns::default).take(&name, &value)? {
            let known = "ack and ack_timeout, and for CSV labels, texts and precision";
            return Err(bad(format!("unknown parameter {name:?}: there are {known}")));
        }
    }
    let form = match (form_of(headers)?, columns) {
        (Some(_), Some(_)) => return Err(bad("labels, texts and precision are for text/csv")),
        (Some(form), None) => Form::Document(form),
        (None, columns) => Form::Table(columns.unwrap_or_default()),
    };
    Ok((asked.wanted()?, form))
}

/// A site by its name; whether it may be asked for the [`Visitor`] decides.
pub(super) fn parse_site(text: &str) -> Result<SiteName, ApiError> {
    text.parse().map_err(|error: tidelog_record::SiteNameError| {
        ApiError::new(ErrorCode::BadSite, format!("{text:?}: {error}"))
    })
}

/// The form that the heads name; none is a table.
fn form_of(headers: &HeaderMap) -> Result<Option<BodyForm>, ApiError> {
    const EXPECTED: &str = "expected application/json, application/msgpack or text/csv";
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        let message = format!("no Content-Type: {EXPECTED}");
        return Err(ApiError::new(ErrorCode::UnsupportedMediaType, message));
    };
    let text = value.to_str().unwrap_or("not text");
    if headers.contains_key(header::CONTENT_ENCODING) {
        let message = "no Content-Encoding is understood";
        return Err(ApiError::new(ErrorCode::UnsupportedMediaType, message));
    }
    match BodyForm::of_content_type(text) {
        Some(form) => Ok(Some(form)),
        None if table::is_content_type(text) => Ok(None),
        None => {
            let message = format!("Content-Type {text:?}: {EXPECTED}");
            Err(ApiError::new(ErrorCode::UnsupportedMediaType, message))
        }
    }
}

/// Longest body that is refused and read all the same, in bytes, so that its client hears why; one that is longer is cut off.
const REFUSED_BYTES_MAX: u64 = 1024 * 1024;
/// How long that may take.
const REFUSED_FOR: Duration = Duration::from_secs(1);

/// Reads the body of a request that is refused, if it is short.
pub(super) async fn throw_away(headers: &HeaderMap, body: &mut Body) {
    if stated_length(headers).is_none_or(|length| length > REFUSED_BYTES_MAX) {
        return;
    }
    let read = async { while let Some(Ok(_)) = body.frame().await {} };
    // Whoever is too slow is cut off like one that is too long.
    drop(timeout(REFUSED_FOR, read).await);
}

fn stated_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The whole body, within the bounds on its length, on its time and on what all bodies take together.
pub(super) async fn collect(
    api: &Api,
    headers: &HeaderMap,
    mut body: Body,
) -> Result<(Bytes, OwnedSemaphorePermit), ApiError> {
    let most = api.limits.body_bytes_max;
    let too_large = || ApiError::new(ErrorCode::TooLarge, format!("the body is longer than {most} bytes"));
    let stated = stated_length(headers);
    if stated.is_some_and(|length| length > u64::from(most)) {
        throw_away(headers, &mut body).await;
        return Err(too_large());
    }
    let claim = stated.and_then(|length| u32::try_from(length).ok()).unwrap_or(most);
    let permit = api.body_room(claim)?;
    let start = Instant::now();
    let mut bytes = Vec::with_capacity(usize::try_from(stated.unwrap_or(0)).unwrap_or(0));
    loop {
        let earned = Duration::from_secs(bytes.len() as u64 / BODY_BYTES_PER_S_MIN);
        let frame = timeout_at(start + api.limits.stall + earned, body.frame())
            .await
            .map_err(|_| ApiError::new(ErrorCode::Timeout, "the body came too slowly"))?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| ApiError::new(ErrorCode::BadBody, error.to_string()))?;
        if let Ok(data) = frame.into_data() {
            if bytes.len() as u64 + data.len() as u64 > u64::from(most) {
                return Err(too_large());
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok((Bytes::from(bytes), permit))
}

/// Reads a body of `body_bytes` and hands its records to the store, off the async threads if it is long, then waits until all are durable.
/// Gives how many points they are, where they stand, and what else `read` has to say.
pub(super) async fn take_in<T: Send + 'static>(
    context: &NodeContext,
    site: SiteName,
    body_bytes: usize,
    read: impl FnOnce() -> Result<(Posted, T), ApiError> + Send + 'static,
) -> Result<(usize, Positions, T), ApiError> {
    let (authored_ms, store) = (context.now_ms(), context.store.clone());
    let hand_over = move || {
        let (posted, said) = read()?;
        let encode = |mut batch: Batch| {
            batch.authored_ms = authored_ms;
            batch.encode().map_err(|error| ApiError::new(ErrorCode::TooLarge, error.to_string()))
        };
        // All of them are encoded before the first is appended, so a bad post leaves nothing behind.
        let records = posted.batches.into_iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        let waiting = records.into_iter().map(|record| append(&store, &site, record)).collect::<Vec<_>>();
        Ok::<_, ApiError>((waiting, posted.points, said))
    };
    let (waiting, points, said) = if body_bytes <= SMALL_BODY_BYTES_MAX {
        hand_over()?
    } else {
        let handed_over = tokio::task::spawn_blocking(hand_over).await;
        handed_over.map_err(|error| ApiError::new(ErrorCode::Unavailable, error.to_string()))??
    };
    let mut positions = Positions::default();
    for outcome in waiting {
        positions.add(durable(outcome).await?);
    }
    Ok((points, positions, said))
}

/// What the store will say of a record, unless it was not asked.
pub(super) enum Outcome {
    Asked(oneshot::Receiver<Result<Appended, AppendError>>),
    /// The record has points that only a command may have.
    Reserved(reserved::Reserved),
}

/// Hands a record of points to the store without waiting for the disk.
pub(super) fn append(store: &Store, site: &SiteName, record: Vec<u8>) -> Outcome {
    if let Some(reserved) = reserved_in(&record) {
        return Outcome::Reserved(reserved);
    }
    let (done, outcome) = oneshot::channel();
    store.append(site, record, move |appended| {
        // A client that went away needs no answer.
        drop(done.send(appended));
    });
    Outcome::Asked(outcome)
}

/// Returns once the record is durable, with its place, or with the store's refusal.
pub(super) async fn durable(outcome: Outcome) -> Result<Appended, ApiError> {
    let outcome = match outcome {
        Outcome::Asked(outcome) => outcome,
        Outcome::Reserved(reserved) => {
            let message = match reserved {
                reserved::Reserved::Command => format!(
                    "{} is the metric of commands: they are posted to /api/v1/sites/SITE/commands",
                    command::METRIC
                ),
                reserved::Reserved::Rule => {
                    format!("what begins with {} is written by this node's rules alone", rule::record::METRIC)
                }
                reserved::Reserved::Gateway => {
                    format!("{} is written by gateways alone", reserved::LOAD_METRIC)
                }
                reserved::Reserved::Device => format!(
                    "{} is the metric of devices' labels: they are put to /api/v1/sites/SITE/devices/DEVICE",
                    device::METRIC
                ),
            };
            return Err(ApiError::new(ErrorCode::BadPoint, message));
        }
    };
    match outcome.await {
        Ok(appended) => appended.map_err(ApiError::from),
        Err(_) => Err(ApiError::new(ErrorCode::Unavailable, "the store closed")),
    }
}
