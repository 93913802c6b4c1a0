//! The door before every route: what a route needs, who comes, and how whoever may not is told so in the words of the route's
//! clients. Behind it a request has a [`Visitor`], and the only way to a site's name is through it.

use std::sync::Arc;

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{FromRequestParts, MatchedPath, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{Extensions, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tidelog_record::SiteName;

use super::Api;
use super::error::{ApiError, ErrorCode};
use super::line::Dialect;
use super::prometheus;
use super::write::{parse_site, throw_away};
use crate::door::{Access, Denied, Doors, Malformed, Scope, Token, TokenId, of_headers, of_influx_query};
use crate::metrics::Metrics;

/// The part of a path that names a site.
const SITE_PARAMETER: &str = "site";

/// What a route needs of whoever asks. Which site is asked for the route itself finds out, through its [`Visitor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing: it says no more than that the process lives.
    Nothing,
    /// A token with this scope.
    Token(Scope),
}

/// Whose clients a route speaks to: in their form it refuses, and where they put it, it looks for the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    Own,
    Influx(Dialect),
    Prometheus,
}

impl Manner {
    fn refuse(self, error: ApiError) -> Response {
        match self {
            Self::Own => error.into_response(),
            Self::Influx(dialect) => error.answered(dialect.error_body(&error)),
            Self::Prometheus => prometheus::refuse(error),
        }
    }

    fn token(self, request: &Request) -> Result<Option<Token>, Malformed> {
        let found = of_headers(request.headers())?;
        match self {
            Self::Influx(Dialect::V1) if found.is_none() => {
                of_influx_query(request.uri().query().unwrap_or_default())
            }
            _ => Ok(found),
        }
    }
}

/// Whoever sent a request that was let in.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    access: Access,
    metrics: Arc<Metrics>,
}

impl Visitor {
    /// The site of this name, if it may be asked for.
    ///
    /// # Errors
    /// The text is no name of a site, or the site is not granted: said alike whether the site exists or not.
    pub fn site(&self, name: &str) -> Result<SiteName, ApiError> {
        parse_site(name).and_then(|site| self.admitted(&site))
    }

    /// A site whose name came from this node, if it may be asked for.
    ///
    /// # Errors
    /// It is not granted.
    pub fn admitted(&self, site: &SiteName) -> Result<SiteName, ApiError> {
        if self.sees(site) {
            return Ok(site.clone());
        }
        count(&self.metrics, Denied::Site);
        Err(refusal(Denied::Site))
    }

    /// Whether a site may appear in an answer.
    pub fn sees(&self, site: &SiteName) -> bool {
        self.access.sees(site)
    }

    /// Whether what belongs to no one site may appear in an answer.
    pub fn sees_everything(&self) -> bool {
        self.access.sees_everything()
    }

    /// The token that let the request in; none while the doors are open.
    pub fn token(&self) -> Option<TokenId> {
        self.access.token().map(|entry| entry.id)
    }

    /// Whether the token that let the request in is still in force with what it granted: for answers that have no end.
    pub fn is_still_admitted(&self, doors: &Doors) -> bool {
        doors.still_grant(&self.access)
    }

    /// Who came with the request.
    ///
    /// # Errors
    /// There was no door before the route; nobody gets anything then.
    pub fn of(extensions: &Extensions) -> Result<Self, ApiError> {
        let unguarded = || ApiError::new(ErrorCode::Forbidden, "nobody guards this path");
        extensions.get::<Self>().cloned().ok_or_else(unguarded)
    }

    #[cfg(test)]
    pub fn with(access: Access) -> Self {
        Self { access, metrics: Arc::new(Metrics::new().unwrap()) }
    }
}

impl FromRequestParts<Api> for Visitor {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, ApiError> {
        Self::of(&parts.extensions)
    }
}

fn count(metrics: &Metrics, denied: Denied) {
    metrics.denied.with_label_values(&[denied.name()]).inc();
}

fn refusal(denied: Denied) -> ApiError {
    let scheme = "Authorization: Bearer TOKEN, Token TOKEN, or Basic with the token as password";
    match denied {
        Denied::NoToken => ApiError::new(ErrorCode::Unauthorized, format!("a token is needed: {scheme}")),
        Denied::Malformed => {
            ApiError::new(ErrorCode::Unauthorized, format!("that is no token: expected {scheme}"))
        }
        Denied::Unknown => {
            ApiError::new(ErrorCode::Unauthorized, "the token is not known here, or it is revoked")
        }
        Denied::Scope(scope) => {
            ApiError::new(ErrorCode::Forbidden, format!("the token does not have the scope {scope}"))
        }
        Denied::Site => ApiError::new(ErrorCode::Forbidden, "the token does not have this site"),
    }
}

/// One route's door.
#[derive(Clone)]
pub(super) struct Guard {
    pub api: Api,
    pub need: Need,
    pub manner: Manner,
}

/// Lets a request in, or says why not. What was done with scopes that change something beyond points is written to the log, with the
/// token's id and name.
///
/// A site in the path is looked at here already, so that a route which asks nobody for it gives nothing away either.
pub(super) async fn guard(
    State(guard): State<Guard>,
    path: Result<RawPathParams, RawPathParamsRejection>,
    mut request: Request,
    next: Next,
) -> Response {
    let Guard { api, need, manner } = guard;
    let Need::Token(scope) = need else { return next.run(request).await };
    let admitted = api.doors.admit(manner.token(&request));
    let access = match admitted {
        Ok(access) => access,
        Err(denied) => return shut(&api, manner, denied, request).await,
    };
    let audited = matches!(scope, Scope::Command | Scope::Admin).then(|| Act::of(&access, &request));
    if let Err(denied) = access.needs(scope).and_then(|()| in_path(&access, path.as_ref().ok())) {
        if let Some(act) = audited {
            act.told(denied.name());
        }
        return shut(&api, manner, denied, request).await;
    }
    request.extensions_mut().insert(Visitor { access, metrics: Arc::clone(&api.metrics) });
    let response = next.run(request).await;
    if let Some(act) = audited {
        act.told(response.status().as_str());
    }
    response
}

/// Whether a site in the path is granted. To whom only some sites are, what is no site's name is none of them.
fn in_path(access: &Access, path: Option<&RawPathParams>) -> Result<(), Denied> {
    let mut named = path.into_iter().flatten().filter(|(name, _)| *name == SITE_PARAMETER);
    let granted = |name: &str| name.parse().is_ok_and(|site| access.sees(&site));
    let all = access.sees_everything() || named.all(|(_, name)| granted(name));
    if all { Ok(()) } else { Err(Denied::Site) }
}

async fn shut(api: &Api, manner: Manner, denied: Denied, request: Request) -> Response {
    count(&api.metrics, denied);
    let (parts, mut body) = request.into_parts();
    throw_away(&parts.headers, &mut body).await;
    manner.refuse(refusal(denied))
}

/// A request that is remembered in the log: who asked for what. Neither its parameters nor its body.
struct Act {
    id: String,
    name: String,
    method: Method,
    route: String,
}

impl Act {
    fn of(access: &Access, request: &Request) -> Self {
        let (id, name) = match access.token() {
            Some(entry) => (entry.id.to_string(), entry.name.clone()),
            None => ("-".to_owned(), "doors open".to_owned()),
        };
        let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
        Self { id, name, method: request.method().clone(), route: route.unwrap_or_default() }
    }

    fn told(self, outcome: &str) {
        let Self { id, name, method, route } = self;
        tracing::info!(target: "audit", %id, name, %method, route, outcome, "request");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::door::{Entry, Sites, TokenFileError, change, tokens_path};
    use crate::http::Limits;
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn_with_state;
    use axum::routing::post;
    use clap::{Args, Command, FromArgMatches};
    use hyper::service::Service as _;
    use hyper_util::service::TowerToHyperService;
    use std::path::Path;
    use std::sync::Mutex;

    fn make(dir: &Path, name: &str, scope: Scope) -> Token {
        let token = Token::draw().unwrap();
        let entry =
            Entry::of(&token, name.to_owned(), [scope].into(), Sites::Only(["a".parse().unwrap()].into()), 0);
        let made = change(&tokens_path(dir, None), |tokens| {
            tokens.push(entry);
            Ok::<_, TokenFileError>(())
        });
        made.unwrap();
        token
    }

    fn api(dir: &Path) -> Api {
        let command = crate::settings::Common::augment_args(Command::new("test"));
        let common = crate::settings::Common::from_arg_matches(&command.get_matches_from(["test"])).unwrap();
        let doors = Doors::open(tokens_path(dir, None)).unwrap();
        Api::new("test", Arc::new(Metrics::new().unwrap()), Limits::of(&common), Arc::new(doors))
    }

    fn post_with(token: &Token, target: &str) -> Request {
        let head = format!("Bearer {}", token.reveal());
        Request::post(target).header("authorization", head).body(Body::empty()).unwrap()
    }

    fn within<T>(run: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run)
    }

    #[test]
    fn acts_of_administration_are_told_with_their_token_and_without_its_secret_or_what_was_sent() {
        let dir = tempfile::tempdir().unwrap();
        let (boss, reader) = (make(dir.path(), "boss", Scope::Admin), make(dir.path(), "eve", Scope::Read));
        let api = api(dir.path());
        let guarded = Guard { api: api.clone(), need: Need::Token(Scope::Admin), manner: Manner::Own };
        let served = post(async || "done").route_layer(from_fn_with_state(guarded, guard));
        let service = TowerToHyperService::new(Router::new().route("/act/{what}", served).with_state(api));
        let log = dir.path().join("log");
        let file = Mutex::new(std::fs::File::create(&log).unwrap());
        let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(file).finish();
        let statuses = tracing::subscriber::with_default(lines, || {
            [&boss, &reader].map(|token| {
                let asked = service.call(post_with(token, "/act/restart?password=hunter2"));
                within(asked).unwrap().status().as_u16()
            })
        });
        assert_eq!(statuses, [200, 403]);
        let log = std::fs::read_to_string(log).unwrap();
        let told: Vec<&str> = log.lines().filter(|line| line.contains(" audit: ")).collect();
        let [done, refused] = told.as_slice() else { unreachable!("{log}") };
        for (line, token, name, outcome) in [(done, &boss, "boss", "200"), (refused, &reader, "eve", "scope")]
        {
            for word in [&token.id().to_string(), name, "POST", "/act/{what}", outcome] {
                assert!(line.contains(word), "{word} is not in {line}");
            }
        }
        assert!(!log.contains("hunter2") && !log.contains(&boss.reveal()) && !log.contains(&reader.reveal()));
    }

    #[test]
    fn a_handler_without_a_door_before_it_gives_nobody_a_site() {
        let dir = tempfile::tempdir().unwrap();
        let api = api(dir.path());
        let unguarded = Router::new().route("/bare", post(async |_: Visitor| "in")).with_state(api);
        let token = make(dir.path(), "n", Scope::Read);
        let asked = TowerToHyperService::new(unguarded).call(post_with(&token, "/bare"));
        assert_eq!(within(asked).unwrap().status().as_u16(), 403);
    }

    #[test]
    fn a_route_that_asks_nobody_for_its_site_is_shut_by_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let token = make(dir.path(), "n", Scope::Read);
        let api = api(dir.path());
        let guarded = Guard { api: api.clone(), need: Need::Token(Scope::Read), manner: Manner::Own };
        let served = post(async || "in").route_layer(from_fn_with_state(guarded, guard));
        let service = TowerToHyperService::new(Router::new().route("/{site}/x", served).with_state(api));
        for (target, status) in
            [("/a/x", 200), ("/b/x", 403), ("/%61/x", 200), ("/a%2Fb/x", 403), ("/A/x", 403)]
        {
            let answer = within(service.call(post_with(&token, target))).unwrap();
            assert_eq!(answer.status().as_u16(), status, "{target}");
        }
    }
}
