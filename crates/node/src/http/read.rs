//! `GET /api/v1/sites/{site}/points`: the points of the series that are meant, in a range of time, as a stream.
//!
//! Series stand in canonical order and points in order of time, so equal content gives equal bytes on every node
//! (invariant 7). A blocking thread scans and writes; a slow client holds it back through a short queue, and a client
//! that leaves ends it. Memory is bounded by what one group of series takes in the store, and by that queue.

use std::io;
use std::ops::{ControlFlow, RangeInclusive};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, Response, header};
use hyper::body::Frame;
use tidelog_query::{Selectors, parse_instant};
use tidelog_record::{Series, SiteName};
use tidelog_store::{Points, ScanError};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::Api;
use super::answer::{Answer, AnswerForm};
use super::error::{ApiError, ErrorCode};
use super::write::parse_site;
use crate::context::NodeContext;

/// Size of the pieces that an answer is sent in, in bytes.
pub(super) const PIECE_BYTES: usize = 64 * 1024;

/// Pieces that wait for a slow client.
pub(super) const PIECES_WAITING_MAX: usize = 4;

/// What is asked for.
#[derive(Debug)]
struct Question {
    site: SiteName,
    selectors: Selectors,
    range: RangeInclusive<i64>,
    form: AnswerForm,
}

pub(super) type Piece = Result<Bytes, io::Error>;

pub(super) async fn get_points(
    State(api): State<Api>,
    Path(site): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response<Body>, ApiError> {
    let context = api.running()?.clone();
    let question = Question::read(&site, query.as_deref().unwrap_or_default(), &headers)?;
    let permit = api.queries.clone().try_acquire_owned().map_err(|_| {
        ApiError::new(ErrorCode::Busy, "too many queries are being answered; try again later")
    })?;
    let (sender, mut pieces) = mpsc::channel(PIECES_WAITING_MAX);
    let form = question.form;
    tokio::task::spawn_blocking(move || write(&context, &question, &sender, permit));
    // The head waits for the first piece, so that a log that cannot be read is an error and not a broken answer.
    let first = match pieces.recv().await {
        Some(Ok(first)) => first,
        Some(Err(error)) => return Err(ApiError::new(ErrorCode::ReadFailed, error.to_string())),
        None => return Err(ApiError::new(ErrorCode::Unavailable, "the query was given up")),
    };
    let mut response = Response::new(Body::new(Pieces { first: Some(first), rest: pieces }));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(form.content_type()));
    Ok(response)
}

impl Question {
    fn read(site: &str, query: &str, headers: &HeaderMap) -> Result<Self, ApiError> {
        let bad = |message: String| ApiError::new(ErrorCode::BadParameter, message);
        let site = parse_site(site)?;
        let (mut matches, mut start, mut end, mut format) = (Vec::new(), None, None, None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let place = match name.as_ref() {
                "match" | "match[]" => {
                    matches.push(value);
                    continue;
                }
                "start" => &mut start,
                "end" => &mut end,
                "format" => &mut format,
                _ => {
                    return Err(bad(format!(
                        "unknown parameter {name:?}: there are match, start, end and format"
                    )));
                }
            };
            if place.replace(value).is_some() {
                return Err(bad(format!("parameter {name:?} stands twice")));
            }
        }
        let selectors = Selectors::parse(&matches).map_err(|error| bad(format!("match: {error}")))?;
        let instant = |name: &str, text: Option<std::borrow::Cow<'_, str>>, default: i64| match text {
            Some(text) => parse_instant(&text).map_err(|error| bad(format!("{name} {text:?}: {error}"))),
            None => Ok(default),
        };
        let range = instant("start", start, i64::MIN)?..=instant("end", end, i64::MAX)?;
        if range.is_empty() {
            return Err(bad("start is after end".to_owned()));
        }
        let form = match format {
            Some(name) => AnswerForm::of_name(&name)
                .ok_or_else(|| bad(format!("format {name:?}: there are json, ndjson and csv")))?,
            None => match headers.get(header::ACCEPT) {
                Some(accept) => {
                    AnswerForm::of_accept(accept.to_str().unwrap_or_default()).ok_or_else(|| {
                        let message = "answers are application/json, application/x-ndjson or text/csv";
                        ApiError::new(ErrorCode::NotAcceptable, message)
                    })?
                }
                None => AnswerForm::Json,
            },
        };
        Ok(Self { site, selectors, range, form })
    }
}

/// The client went away.
struct Gone;

fn write(
    context: &NodeContext,
    question: &Question,
    sender: &mpsc::Sender<Piece>,
    _permit: OwnedSemaphorePermit,
) {
    let mut answer = Answer::begin(question.form, &question.site);
    let mut send = |bytes: Vec<u8>| sender.blocking_send(Ok(Bytes::from(bytes))).map_err(|_| Gone);
    let visit = |series: &Arc<Series>, points: &Points| {
        context.metrics.points_out.inc_by(points.len() as u64);
        match answer.series(series, points.iter(), PIECE_BYTES, &mut send) {
            Ok(()) if context.shutdown.is_cancelled() => ControlFlow::Break(()),
            Ok(()) => ControlFlow::Continue(()),
            Err(Gone) => ControlFlow::Break(()),
        }
    };
    let series = context.store.series(&question.site, &|series| question.selectors.matches(series));
    let scanned = series
        .map_err(ScanError::from)
        .and_then(|series| context.store.scan_each(&question.site, &series, question.range.clone(), visit));
    let last = match scanned {
        // An answer that is cut off must not look like a whole one.
        Ok(()) if context.shutdown.is_cancelled() => Err(io::Error::other("the node is ending")),
        Ok(()) => Ok(Bytes::from(answer.end())),
        Err(error) => {
            tracing::error!(site = %question.site, %error, "a query could not read the log");
            Err(io::Error::other(error.to_string()))
        }
    };
    // A client that went away needs no end.
    drop(sender.blocking_send(last));
}

/// The answer's body: pieces as the scanning thread makes them.
pub(super) struct Pieces {
    pub first: Option<Bytes>,
    pub rest: mpsc::Receiver<Piece>,
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        self.rest.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}
