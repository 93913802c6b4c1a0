//! The HTTP API: routes, and what all of them share. What each answers stands in its own module; how connections are
//! taken and bounded in [`server`]; the manual is `docs/HTTP.md`.

mod about;
mod aggregate;
mod answer;
mod commands;
mod devices;
mod error;
mod guard;
mod level;
mod line;
mod once;
mod openapi;
mod partial;
mod posted;
mod prometheus;
mod question;
mod read;
mod routes;
mod rows;
mod server;
mod sheet;
mod socket;
mod stream;
mod tail;
mod tls;
mod write;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use ::prometheus::IntGauge;
use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tidelog_query::promql::Bounds;
use tidelog_store::Position;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, watch};

use crate::context::NodeContext;
use crate::door::Doors;
use crate::metrics::Metrics;
use crate::settings::Common;
use error::{ApiError, ErrorCode};

pub use openapi::document as openapi_document;
pub use routes::{ServedRoute, served_routes};
pub(crate) use server::serve;
pub(crate) use tls::{Files as TlsFiles, Reload as TlsReload};

/// The readers of bodies alone.
pub(crate) mod untrusted {
    pub(crate) use super::line::records_of_lines;
    pub(crate) use super::posted::BodyForm;
    pub(crate) use super::posted::table::batches_of_table;
    pub(crate) use super::prometheus::records_of_remote_write;
}

/// Queries answered at a time; each takes a blocking thread and a group of series in memory.
const QUERIES_MAX: usize = 8;

/// Bodies of the greatest size that may be held in memory together.
const BODIES_MAX: usize = 2;

/// The bounds on what clients may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub body_bytes_max: u32,
    pub connections_max: u32,
    pub sockets_max: u32,
    /// How long a client may keep the node waiting.
    pub stall: Duration,
    /// What one question in PromQL may take.
    pub query: Bounds,
    pub query_time: Duration,
}

impl Limits {
    pub fn of(common: &Common) -> Self {
        Self {
            body_bytes_max: common.http_body_bytes_max,
            connections_max: common.http_connections_max,
            sockets_max: common.http_sockets_max,
            stall: Duration::from_secs(u64::from(common.http_stall_s_max)),
            query: common.query.bounds(),
            query_time: Duration::from_secs(u64::from(common.query.s_max)),
        }
    }
}

/// The node behind the routes that need its log.
struct Running {
    context: NodeContext,
    commits: watch::Receiver<Position>,
}

/// What handlers share. It exists before the log is recovered, so that a starting node can say that it is starting.
#[derive(Clone)]
pub(crate) struct Api {
    pub version: &'static str,
    pub metrics: Arc<Metrics>,
    pub limits: Limits,
    pub doors: Arc<Doors>,
    node: Arc<OnceLock<Running>>,
    queries: Arc<Semaphore>,
    tails: Arc<Semaphore>,
    sockets: Arc<Semaphore>,
    claims: socket::Claims,
    body_bytes: Arc<Semaphore>,
    cloud_waiters: Arc<Semaphore>,
    /// Whoever gives a device labels holds it.
    labelling: Arc<Mutex<()>>,
    gathers: line::Gathers,
    once: Arc<once::Memory>,
}

/// A place among those of which there may be so many, counted while it is taken, however its taker ends.
struct Seat {
    taken: IntGauge,
    _permit: OwnedSemaphorePermit,
}

impl Seat {
    fn take(permit: OwnedSemaphorePermit, taken: &IntGauge) -> Self {
        taken.inc();
        Self { taken: taken.clone(), _permit: permit }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.taken.dec();
    }
}

impl Api {
    pub fn new(version: &'static str, metrics: Arc<Metrics>, limits: Limits, doors: Arc<Doors>) -> Self {
        let body_bytes = usize::try_from(limits.body_bytes_max).unwrap_or(Semaphore::MAX_PERMITS);
        let body_bytes = body_bytes.saturating_mul(BODIES_MAX).min(Semaphore::MAX_PERMITS);
        let cloud_waiters = (limits.connections_max / level::WAITERS_PER_CONNECTION).max(1);
        let sockets = usize::try_from(limits.sockets_max).unwrap_or(Semaphore::MAX_PERMITS);
        let cloud_waiters = usize::try_from(cloud_waiters).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            version,
            metrics,
            limits,
            doors,
            cloud_waiters: Arc::new(Semaphore::new(cloud_waiters.min(Semaphore::MAX_PERMITS))),
            node: Arc::new(OnceLock::new()),
            queries: Arc::new(Semaphore::new(QUERIES_MAX)),
            tails: Arc::new(Semaphore::new(tail::TAILS_MAX)),
            claims: socket::Claims::default(),
            sockets: Arc::new(Semaphore::new(sockets.min(Semaphore::MAX_PERMITS))),
            body_bytes: Arc::new(Semaphore::new(body_bytes)),
            labelling: Arc::default(),
            gathers: line::Gathers::new(limits.body_bytes_max),
            once: Arc::default(),
        }
    }

    /// Opens the routes that need the log.
    pub fn recovered(&self, context: NodeContext) {
        self.node.get_or_init(|| {
            let (sender, commits) = watch::channel(context.store.head());
            context.store.on_commit(Box::new(move |head| {
                sender.send_replace(head);
            }));
            Running { context, commits }
        });
    }

    fn running(&self) -> Result<&NodeContext, ApiError> {
        self.log().map(|running| &running.context)
    }

    /// A place among the questions that are being answered.
    fn question(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.queries.clone().try_acquire_owned().map_err(|_| {
            ApiError::new(ErrorCode::Busy, "too many queries are being answered; try again later")
        })
    }

    /// Room for so many bytes of bodies, beside those that are being received.
    fn body_room(&self, bytes: u32) -> Result<OwnedSemaphorePermit, ApiError> {
        self.body_bytes.clone().try_acquire_many_owned(bytes).map_err(|_| {
            ApiError::new(ErrorCode::Busy, "too many requests are being received; try again later")
        })
    }

    /// As [`Self::body_room`], for what has come already: waits for the room.
    async fn body_room_in_time(&self, bytes: u32) -> Result<OwnedSemaphorePermit, ApiError> {
        // The semaphore is never closed.
        let room = self.body_bytes.clone().acquire_many_owned(bytes).await;
        room.map_err(|error| ApiError::new(ErrorCode::Unavailable, error.to_string()))
    }

    /// The head of the log as it moves on.
    fn commits(&self) -> Result<watch::Receiver<Position>, ApiError> {
        self.log().map(|running| running.commits.clone())
    }

    fn log(&self) -> Result<&Running, ApiError> {
        self.node
            .get()
            .ok_or_else(|| ApiError::new(ErrorCode::Unavailable, "starting: the log is being recovered"))
    }
}

pub(crate) fn router(api: Api) -> Router {
    routes::guarded(&api)
        .fallback(async || ApiError::new(ErrorCode::NotFound, "no such path: see docs/HTTP.md"))
        .method_not_allowed_fallback(async || {
            ApiError::new(ErrorCode::MethodNotAllowed, "this path does not take this method")
        })
        .layer(from_fn_with_state(api.clone(), count))
        .with_state(api)
}

async fn count(State(api): State<Api>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    // Both come from the client; a label must not take more values than there are routes.
    let method = match *request.method() {
        Method::GET | Method::POST | Method::PUT | Method::HEAD => request.method().as_str(),
        _ => "other",
    };
    let route = format!("{method} {}", path.as_deref().unwrap_or("other"));
    let start = Instant::now();
    let response = next.run(request).await;
    api.metrics.http_seconds.with_label_values(&[&route]).observe(start.elapsed().as_secs_f64());
    api.metrics.http_requests.with_label_values(&[&route, response.status().as_str()]).inc();
    response
}
