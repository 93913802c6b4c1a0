//! The query API of Prometheus, and the way in that its remote write takes, so that Grafana, `promtool`, Prometheus itself and everything
//! else that speaks it works unchanged: the paths
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
mod write;

use axum::handler::Handler;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::Api;
use super::error::ApiError;
use super::guard::{Manner, Need};
use super::openapi::{Operation, operations as says};
use super::routes::Route;
use refusal::Refusal;

pub(super) use form::site_of;
pub(crate) use write::records_of_remote_write;

/// The two places at which the API stands.
const PLACES: [&str; 2] = ["/api/v1", "/prometheus/{site}/api/v1"];

/// A refusal of the node's in the form that clients of Prometheus read.
pub(super) fn refuse(error: ApiError) -> Response {
    let frame = error.answered(());
    let mut response = Refusal::from(error).into_response();
    // What else is said in the heads, as how to prove oneself and when to come back.
    for (name, value) in frame.headers() {
        if !response.headers().contains_key(name) || name == header::WWW_AUTHENTICATE {
            response.headers_mut().append(name, value.clone());
        }
    }
    response
}

/// All paths at both places, each with what reading, or writing, needs.
pub(super) fn routes(read: Need, write: Need) -> Vec<Route> {
    PLACES.into_iter().flat_map(|place| at(place, read, write)).collect()
}

fn at(place: &str, need: Need, to_write: Need) -> Vec<Route> {
    fn both<H: Handler<T, Api>, T: 'static>(
        path: &str,
        need: Need,
        says: &'static Operation,
        handler: H,
    ) -> [Route; 2] {
        let manner = Manner::Prometheus;
        [
            Route::get(path, need, manner, says, handler.clone()),
            Route::post(path, need, manner, says, handler),
        ]
    }
    let path = |name: &str| format!("{place}{name}");
    let mut routes = vec![
        Route::get(
            &path("/label/{name}/values"),
            need,
            Manner::Prometheus,
            &says::LABEL_VALUES,
            names::values,
        ),
        Route::get(&path("/metadata"), need, Manner::Prometheus, &says::METADATA, names::metadata),
        Route::get(&path("/status/buildinfo"), need, Manner::Prometheus, &says::BUILD, names::build),
    ];
    routes.extend(both(&path("/query"), need, &says::QUERY_INSTANT, query::instant));
    routes.extend(both(&path("/query_range"), need, &says::QUERY_RANGE, query::range));
    routes.extend(both(&path("/series"), need, &says::SERIES, names::series));
    routes.extend(both(&path("/labels"), need, &says::LABELS, names::labels));
    routes.push(Route::post(
        &path("/write"),
        to_write,
        Manner::Prometheus,
        &says::REMOTE_WRITE,
        write::remote_write,
    ));
    routes
}
