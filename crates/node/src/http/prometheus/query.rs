//! `query` and `query_range`: read the question, evaluate it on a blocking thread, stop when nobody waits any more, and send
//! the answer in pieces, which a slow client holds back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{RawPathParams, Request, State};
use axum::http::header;
use axum::response::Response;
use tidelog_query::promql::{self, Answer, Halt, Query, QueryError};

use tokio::sync::{mpsc, oneshot};

use super::super::Api;
use super::super::stream::{PIECE_BYTES, PIECES_WAITING_MAX, Pieces};
use super::answer::{Gone, write};
use super::form::Form;
use super::refusal::{Kind, Refusal};
use super::source::StoreSource;
use crate::context::NodeContext;

/// When to evaluate.
#[derive(Clone, Copy, Debug)]
enum When {
    At(i64),
    Range(i64, i64, i64),
}

pub(super) async fn instant(
    State(api): State<Api>,
    path: RawPathParams,
    request: Request,
) -> Result<Response, Refusal> {
    let context = api.running()?.clone();
    let form = Form::read(&api, &context, &path, request).await?;
    let at = form.instant("time")?.unwrap_or_else(|| context.now_ms().saturating_mul(1_000_000));
    ask(&api, context, form, When::At(at)).await
}

pub(super) async fn range(
    State(api): State<Api>,
    path: RawPathParams,
    request: Request,
) -> Result<Response, Refusal> {
    let context = api.running()?.clone();
    let form = Form::read(&api, &context, &path, request).await?;
    let start = form.required("start", form.instant("start")?)?;
    let end = form.required("end", form.instant("end")?)?;
    if end < start {
        return Err(Refusal::parameter("end", "end timestamp must not be before start time"));
    }
    let step = form.required("step", form.duration("step")?)?;
    if step <= 0 {
        let message =
            "zero or negative query resolution step widths are not accepted. Try a positive integer";
        return Err(Refusal::parameter("step", message));
    }
    ask(&api, context, form, When::Range(start, end, step)).await
}

/// Tells the evaluation that its client has gone: the handler is dropped with the connection.
struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn ask(api: &Api, context: NodeContext, form: Form, when: When) -> Result<Response, Refusal> {
    let mut patience = api.limits.query_time;
    if let Some(timeout) = form.duration("timeout")? {
        patience = patience.min(Duration::from_nanos(timeout.unsigned_abs()));
    }
    let deadline = Instant::now() + patience;
    let timed_out = || Refusal::from(QueryError::TimedOut);
    // A dashboard asks many questions at once: they wait for each other.
    let permit = tokio::time::timeout(patience, api.queries.clone().acquire_owned()).await;
    let permit = permit
        .map_err(|_| Refusal::new(Kind::Timeout, "query timed out in query queue"))?
        .map_err(|_| timed_out())?;
    let gone = Arc::new(AtomicBool::new(false));
    let _waiting = Waiting(Arc::clone(&gone));
    let bounds = api.limits.query;
    let (done, evaluated) = oneshot::channel();
    let (sender, pieces) = mpsc::channel(PIECES_WAITING_MAX);
    tokio::task::spawn_blocking(move || {
        // Held until the answer is written: it is what takes memory.
        let _permit = permit;
        let halt = || {
            if gone.load(Ordering::Relaxed) || context.shutdown.is_cancelled() {
                Some(Halt::Cancelled)
            } else {
                (Instant::now() >= deadline).then_some(Halt::TimedOut)
            }
        };
        match evaluate(&context, &form, when, &bounds, &halt) {
            // A client that went away needs no refusal, and no answer.
            Err(refusal) => drop(done.send(Err(refusal))),
            Ok(answer) if done.send(Ok(())).is_ok() => {
                let mut send = |piece: String| sender.blocking_send(Ok(Bytes::from(piece))).map_err(|_| Gone);
                drop(write(&answer, PIECE_BYTES, &mut send));
            }
            Ok(_) => {}
        }
    });
    evaluated.await.map_err(|_| Refusal::new(Kind::Internal, "the evaluation broke off"))??;
    let mut response = Response::new(Body::new(Pieces { first: None, rest: pieces }));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    Ok(response)
}

fn evaluate(
    context: &NodeContext,
    form: &Form,
    when: When,
    bounds: &promql::Bounds,
    halt: &dyn Fn() -> Option<Halt>,
) -> Result<Answer, Refusal> {
    let parsed = form.one("query").unwrap_or_default().parse::<Query>();
    let query = match when {
        When::At(_) => parsed.map_err(|error| Refusal::parameter("query", error))?,
        // Prometheus says less here.
        When::Range(..) => parsed?,
    };
    let source = StoreSource { context, site: &form.site, samples_max: bounds.samples_max };
    if let Some(halt) = halt() {
        return Err(QueryError::from(halt).into());
    }
    let answer = match when {
        When::At(at) => promql::instant(&query, at, bounds, &source, halt),
        When::Range(start, end, step) => promql::range(&query, (start, end, step), bounds, &source, halt),
    };
    Ok(answer?)
}
