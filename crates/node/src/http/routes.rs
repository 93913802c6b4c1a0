//! Every route there is, each with what it needs of whoever asks: a path that does not stand here is not served, and one that does
//! has its door.

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, MethodRouter, on};

use super::guard::{Guard, Manner, Need, guard};
use super::line::{self, Dialect};
use super::openapi::{self, Operation, operations as says};
use super::{Api, about, aggregate, commands, devices, prometheus, read, socket, tail, write};
use crate::door::Scope;

/// One method of one path.
pub(super) struct Route {
    pub method: Method,
    pub path: String,
    pub need: Need,
    pub manner: Manner,
    pub says: &'static Operation,
    answers: MethodRouter<Api>,
}

impl Route {
    pub fn get<H: Handler<T, Api>, T: 'static>(
        path: &str,
        need: Need,
        manner: Manner,
        says: &'static Operation,
        handler: H,
    ) -> Self {
        let (method, path) = (Method::GET, path.to_owned());
        Self { method, path, need, manner, says, answers: on(MethodFilter::GET, handler) }
    }

    pub fn post<H: Handler<T, Api>, T: 'static>(
        path: &str,
        need: Need,
        manner: Manner,
        says: &'static Operation,
        handler: H,
    ) -> Self {
        let (method, path) = (Method::POST, path.to_owned());
        Self { method, path, need, manner, says, answers: on(MethodFilter::POST, handler) }
    }

    pub fn put<H: Handler<T, Api>, T: 'static>(
        path: &str,
        need: Need,
        manner: Manner,
        says: &'static Operation,
        handler: H,
    ) -> Self {
        let (method, path) = (Method::PUT, path.to_owned());
        Self { method, path, need, manner, says, answers: on(MethodFilter::PUT, handler) }
    }
}

/// A route as it is seen from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedRoute {
    /// `GET`, which answers `HEAD` too, `POST` or `PUT`.
    pub method: String,
    /// The path, with its variable parts in braces.
    pub path: String,
    /// The scope that a token needs for it; none where everybody may ask.
    pub scope: Option<Scope>,
}

/// Every route of the HTTP API: what the manual and the tests of its doors go by.
#[must_use]
pub fn served_routes() -> Vec<ServedRoute> {
    let seen = |Route { method, path, need, .. }: Route| {
        let scope = match need {
            Need::Nothing => None,
            Need::Token(scope) => Some(scope),
        };
        ServedRoute { method: method.to_string(), path, scope }
    };
    routes().into_iter().map(seen).collect()
}

const OPEN: Need = Need::Nothing;
const READ: Need = Need::Token(Scope::Read);
const WRITE: Need = Need::Token(Scope::Write);
const COMMAND: Need = Need::Token(Scope::Command);
const ADMIN: Need = Need::Token(Scope::Admin);

/// All of them.
pub(super) fn routes() -> Vec<Route> {
    let own = Manner::Own;
    let mut routes = vec![
        Route::get("/healthz", OPEN, own, &says::HEALTHZ, about::healthz),
        Route::get("/readyz", OPEN, own, &says::READYZ, about::readyz),
        Route::get("/metrics", READ, own, &says::METRICS, about::metrics),
        Route::get("/api/v1/status", READ, own, &says::STATUS, about::status),
        Route::get("/api/v1/openapi.json", READ, own, &says::OPENAPI, openapi::get_openapi),
        Route::get("/api/v1/sites", READ, own, &says::SITES, about::sites),
        Route::get("/api/v1/sites/{site}/devices", READ, own, &says::DEVICES, devices::get_devices),
        Route::get("/api/v1/sites/{site}/devices/{device}", READ, own, &says::DEVICE, devices::get_device),
        Route::put(
            "/api/v1/sites/{site}/devices/{device}",
            ADMIN,
            own,
            &says::PUT_DEVICE,
            devices::put_device,
        ),
        Route::get("/api/v1/sites/{site}/points", READ, own, &says::POINTS, read::get_points),
        Route::post("/api/v1/sites/{site}/points", WRITE, own, &says::POST_POINTS, write::post_points),
        Route::get("/api/v1/export", READ, own, &says::EXPORT, read::get_export),
        Route::get("/api/v1/sites/{site}/last", READ, own, &says::LAST, read::get_last),
        Route::get("/api/v1/sites/{site}/aggregate", READ, own, &says::AGGREGATE, aggregate::get_aggregate),
        Route::get("/api/v1/sites/{site}/commands", READ, own, &says::COMMANDS, commands::get_commands),
        Route::post(
            "/api/v1/sites/{site}/commands",
            COMMAND,
            own,
            &says::POST_COMMAND,
            commands::post_command,
        ),
        Route::get("/api/v1/sites/{site}/socket", WRITE, own, &says::SOCKET, socket::get_socket),
        Route::get("/api/v1/tail", READ, own, &says::TAIL, tail::get_tail),
        Route::post("/api/v2/write", WRITE, Manner::Influx(Dialect::V2), &says::WRITE_V2, line::write_v2),
        Route::post("/write", WRITE, Manner::Influx(Dialect::V1), &says::WRITE_V1, line::write_v1),
    ];
    routes.extend(prometheus::routes(READ, WRITE));
    routes
}

/// The routes as a router, each behind its door.
pub(super) fn guarded(api: &Api) -> Router<Api> {
    routes().into_iter().fold(Router::new(), |router, route| {
        let Route { path, need, manner, answers, .. } = route;
        let guarded = Guard { api: api.clone(), need, manner };
        router.route(&path, answers.route_layer(from_fn_with_state(guarded, guard)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_two_questions_whether_the_node_lives_need_no_token() {
        let open: Vec<_> = routes().into_iter().filter(|route| route.need == OPEN).map(|r| r.path).collect();
        assert_eq!(open, ["/healthz", "/readyz"]);
    }
}
