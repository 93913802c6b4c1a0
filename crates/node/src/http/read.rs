//! `GET /api/v1/sites/{site}/points` and `…/last`: the points of the series that are meant, in a range of time, or the last one of
//! each.
//!
//! Series stand in canonical order and points in order of time, so equal content gives equal bytes on every node
//! (invariant 7). Memory is bounded by what one group of series takes in the store, and by the queue of a streamed answer.

use std::io;
use std::ops::ControlFlow;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, Response};

use super::Api;
use super::answer::Answer;
use super::error::ApiError;
use super::guard::Visitor;
use super::question::Question;
use super::stream::{Gone, PIECE_BYTES, Sender, bounded, stream, unanswered, unread};
use crate::asking;

pub(super) async fn get_points(
    State(api): State<Api>,
    visitor: Visitor,
    Path(site): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response<Body>, ApiError> {
    api.running()?;
    let question =
        Question::read(&visitor, &site, query.as_deref().unwrap_or_default(), &headers, &["start", "end"])?;
    stream(&api, question.form, move |sender| write_points(&question, sender)).await
}

pub(super) async fn get_last(
    State(api): State<Api>,
    visitor: Visitor,
    Path(site): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response<Body>, ApiError> {
    api.running()?;
    let question = Question::read(&visitor, &site, query.as_deref().unwrap_or_default(), &headers, &[])?;
    let series_max = api.limits.query.series_max;
    stream(&api, question.form, move |sender| write_last(&question, series_max, sender)).await
}

fn write_points(question: &Question, sender: &Sender) -> io::Result<Vec<u8>> {
    let (site, context) = (&question.site, &sender.context);
    let series = asking::chosen(&context.store, site, &question.series).map_err(unread)?;
    let mut answer = Answer::begin(question.form, site);
    let mut send = |bytes| sender.send(bytes);
    asking::each_points(&context.store, site, &series, question.range(), |series, points| {
        context.metrics.points_out.inc_by(points.len() as u64);
        match answer.series(series, points.iter(), PIECE_BYTES, &mut send) {
            Ok(()) if sender.is_over() => ControlFlow::Break(()),
            Ok(()) => ControlFlow::Continue(()),
            Err(Gone) => ControlFlow::Break(()),
        }
    })
    .map_err(unread)?;
    Ok(answer.end())
}

fn write_last(question: &Question, series_max: u64, sender: &Sender) -> io::Result<Vec<u8>> {
    let (site, context) = (&question.site, &sender.context);
    let series = asking::chosen(&context.store, site, &question.series).map_err(unread)?;
    let series = bounded(series, series_max)?;
    let last = context.store.last(site, &series, &|| sender.halts()).map_err(unanswered)?;
    context.metrics.points_out.inc_by(last.len() as u64);
    let mut answer = Answer::begin(question.form, site);
    for (series, time, value) in last {
        let written =
            answer.series(&series, std::iter::once((time, value)), PIECE_BYTES, |bytes| sender.send(bytes));
        if written.is_err() || sender.is_over() {
            break;
        }
    }
    Ok(answer.end())
}
