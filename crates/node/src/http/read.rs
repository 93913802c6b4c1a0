//! `GET /api/v1/sites/{site}/points`, `/api/v1/export` and `…/last`: the points of the series that are meant, in a range of time, or the
//! last one of each.
//!
//! Series stand in canonical order and points in order of time, so equal content gives equal bytes on every node
//! (invariant 7). Memory is bounded by what one group of series takes in the store, and by the queue of a streamed answer.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, RawPathParams, RawQuery, State};
use axum::http::{HeaderMap, Response};
use tidelog_record::Series;
use tidelog_store::Points;

use super::Api;
use super::error::ApiError;
use super::guard::Visitor;
use super::prometheus::site_of;
use super::question::Question;
use super::sheet::{Sheet, Stop};
use super::stream::{PIECE_BYTES, Sender, bounded, stream, unanswered, unread};
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
    answer_points(&api, question).await
}

/// The same, for programs that cannot make a path: the site is named as in questions of Prometheus's.
pub(super) async fn get_export(
    State(api): State<Api>,
    visitor: Visitor,
    path: RawPathParams,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response<Body>, ApiError> {
    let context = api.running()?;
    let query = query.as_deref().unwrap_or_default();
    let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let site = site_of(&visitor, context, &path, &pairs, &headers)?;
    let others = ["start", "end", "site"];
    let question = Question::read(&visitor, site.as_str(), query, &headers, &others)?;
    question.one("site")?;
    answer_points(&api, question).await
}

async fn answer_points(api: &Api, question: Question) -> Result<Response<Body>, ApiError> {
    stream(api, question.form.content_type(), move |sender| write_points(&question, sender)).await
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
    stream(&api, question.form.content_type(), move |sender| write_last(&question, series_max, sender)).await
}

fn write_points(question: &Question, sender: &Sender) -> io::Result<Vec<u8>> {
    let (site, context) = (&question.site, &sender.context);
    let series = asking::chosen(&context.store, site, &question.series).map_err(unread)?;
    if !sender.takes_series(series.len()) {
        return Ok(Vec::new());
    }
    let (mut sheet, mut unwritten) = (Sheet::begin(question.form, site)?, None);
    let visit = |series: &Arc<Series>, points: &Points| {
        sender.tells(points.len());
        match sheet.series(series, points.iter(), PIECE_BYTES, |bytes| sender.send(bytes)) {
            Ok(()) if sender.is_over() => ControlFlow::Break(()),
            Ok(()) => ControlFlow::Continue(()),
            Err(Stop::Gone) => ControlFlow::Break(()),
            Err(Stop::Unwritten(error)) => {
                unwritten = Some(error);
                ControlFlow::Break(())
            }
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
    unwritten.map_or_else(|| sheet.end(), Err)
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
    let mut sheet = Sheet::begin(question.form, site)?;
    for (series, time, value) in last {
        let point = std::iter::once((time, value));
        match sheet.series(&series, point, PIECE_BYTES, |bytes| sender.send(bytes)) {
            Ok(()) if sender.is_over() => break,
            Ok(()) => {}
            Err(Stop::Gone) => break,
            Err(Stop::Unwritten(error)) => return Err(error),
        }
    }
    sheet.end()
}
