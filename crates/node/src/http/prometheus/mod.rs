//! The query API of Prometheus, so that Grafana, `promtool` and everything else that speaks it works unchanged: the paths
//! under `/api/v1` of the node's own site (or of the one that `site` or `X-Tidelog-Site` names), and the same again under
//! `/prometheus/{site}/api/v1` for clients that can only be given an address.
//!
//! What each path answers stands in its own module; the evaluation is `tidelog_query`'s; the manual is `docs/PROMQL.md`.

mod answer;
mod form;
mod names;
mod query;
mod refusal;
mod source;

use axum::Router;
use axum::routing::{MethodRouter, get};

use super::Api;

/// The two places at which the API stands.
pub(super) fn routes() -> Router<Api> {
    Router::new().nest("/api/v1", paths()).nest("/prometheus/{site}/api/v1", paths())
}

fn paths() -> Router<Api> {
    fn both<H, T>(handler: H) -> MethodRouter<Api>
    where
        H: axum::handler::Handler<T, Api>,
        T: 'static,
    {
        get(handler.clone()).post(handler)
    }
    Router::new()
        .route("/query", both(query::instant))
        .route("/query_range", both(query::range))
        .route("/series", both(names::series))
        .route("/labels", both(names::labels))
        .route("/label/{name}/values", get(names::values))
        .route("/metadata", get(names::metadata))
        .route("/status/buildinfo", get(names::build))
}
