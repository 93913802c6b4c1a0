//! `GET /api/v1/sites/{site}/points` and `…/last`: the points of the series that are meant, in a range of time, or the last one of
//! each.
//!
//! Series stand in canonical order and points in order of time, so equal content gives equal bytes on every node
//! (invariant 7). Memory is bounded by what one group of series takes in the store, and by the queue of a streamed answer.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, Response};
use tidelog_record::Series;
use tidelog_store::Points;

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
    if !sender.takes_series(series.len()) {
        return Ok(Vec::new());
    }
    let mut answer = Answer::begin(question.form, site);
    let visit = |series: &Arc<Series>, points: &Points| {
        sender.tells(points.len());
        match answer.series(series, points.iter(), PIECE_BYTES, |bytes| sender.send(bytes)) {
            Ok(()) if sender.is_over() => ControlFlow::Break(()),
            Ok(()) => ControlFlow::Continue(()),
            Err(Gone) => ControlFlow::Break(()),
        }
    };
    match sender.points_max() {
        None => {
            asking::each_points(&context.store, site, &series, question.range(), visit).map_err(unread)?;
        }
        Some(most) => {
            let few = asking::few_points(&context.store, site, &series, question.range(), most, visit);
            if !few.map_err(unread)? {
                sender.grows();
            }
        }
    }
    Ok(answer.end())
}

fn write_last(question: &Question, series_max: u64, sender: &Sender) -> io::Result<Vec<u8>> {
    let (site, context) = (&question.site, &sender.context);
    let series = asking::chosen(&context.store, site, &question.series).map_err(unread)?;
    let series = bounded(series, series_max)?;
    if !sender.takes_series(series.len()) {
        return Ok(Vec::new());
    }
    let last = context.store.last(site, &series, &|| sender.halts()).map_err(unanswered)?;
    sender.tells(last.len());
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
