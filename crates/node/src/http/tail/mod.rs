//! `GET /api/v1/tail`: points as they become durable on this node, as server-sent events.
//!
//! A follower is a cursor over the log like any other consumer: what it has not read waits there, so a slow one takes no memory and
//! holds nobody up. What policy dropped before it came is told as missed. Its token is looked at before each reading, so a revoked one hears
//! nothing more.

mod cursor;
mod event;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, Response, header};
use tidelog_query::Selectors;
use tidelog_record::SiteName;
use tidelog_store::Position;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::timeout;

use self::cursor::{Begin, Cursor, Elsewhere, Mark, Place};
use super::Api;
use super::error::{ApiError, ErrorCode};
use super::guard::Visitor;
use super::question::bad;
use super::stream::{PIECE_BYTES, PIECES_WAITING_MAX, Piece, Pieces};
use crate::context::NodeContext;
use crate::door::Doors;

/// Followers at a time.
pub(super) const TAILS_MAX: usize = 32;

/// Bodies of records that a follower reads at once, in bytes.
const READ_BYTES_MAX: usize = 256 * 1024;

/// A follower hears something at least so often.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How long a client should wait before it comes again, in milliseconds.
const RETRY_MS: u64 = 2_000;

/// With it a client that lost the connection says what it got last.
const LAST_EVENT_ID: &str = "last-event-id";

const PARAMETERS: &str = "match, site, after, follow";

/// What is to be told, and to whom.
struct Wanted {
    visitor: Visitor,
    /// None are all that the visitor sees.
    sites: Vec<SiteName>,
    meant: Selectors,
    begin: Begin,
    /// Whether it goes on when all that there is was told.
    goes_on: bool,
}

impl Wanted {
    fn read(visitor: Visitor, query: &str, headers: &HeaderMap) -> Result<Self, ApiError> {
        let (mut matches, mut sites, mut after, mut follow) = (Vec::new(), Vec::new(), None, None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let place = match name.as_ref() {
                "match" | "match[]" => {
                    matches.push(value);
                    continue;
                }
                "site" => {
                    sites.push(visitor.site(&value)?);
                    continue;
                }
                "after" => &mut after,
                "follow" => &mut follow,
                _ => return Err(bad(format!("unknown parameter {name:?}: there are {PARAMETERS}"))),
            };
            if place.replace(value.into_owned()).is_some() {
                return Err(bad(format!("parameter {name:?} stands twice")));
            }
        }
        let meant = Selectors::parse(&matches).map_err(|error| bad(format!("match: {error}")))?;
        // A browser that comes again asks with the same URL: what it got last counts more than where it began.
        let (begins, place) = match headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty()) {
            Some(id) => (Some(id.to_str().unwrap_or_default().to_owned()), "Last-Event-ID"),
            None => (after, "after"),
        };
        let begin = begins
            .map(|text| text.parse().map_err(|error| bad(format!("{place} {text:?}: {error}"))))
            .transpose()?
            .unwrap_or(Begin::Now);
        let goes_on = match follow.as_deref() {
            None | Some("true") => true,
            Some("false") => false,
            Some(other) => return Err(bad(format!("follow {other:?}: expected true or false"))),
        };
        Ok(Self { visitor, sites, meant, begin, goes_on })
    }

    fn wants(&self, site: &SiteName) -> bool {
        self.visitor.sees(site) && (self.sites.is_empty() || self.sites.contains(site))
    }
}

pub(super) async fn get_tail(
    State(api): State<Api>,
    visitor: Visitor,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response<Body>, ApiError> {
    let context = api.running()?.clone();
    let wanted = Wanted::read(visitor, query.as_deref().unwrap_or_default(), &headers)?;
    let commits = api.commits()?;
    let (store, begin) = (context.store.clone(), wanted.begin);
    let resolved = tokio::task::spawn_blocking(move || begin.resolve(&store)).await;
    let told = resolved
        .map_err(|error| ApiError::new(ErrorCode::Unavailable, error.to_string()))?
        .map_err(|error| ApiError::new(refused(&error), error.to_string()))?;
    let seat = api.tails.clone().try_acquire_owned().map_err(|_| {
        ApiError::new(ErrorCode::Busy, format!("{TAILS_MAX} clients follow already; try again later"))
    })?;
    let (pieces, rest) = mpsc::channel(PIECES_WAITING_MAX);
    let tail = Tail {
        context: context.clone(),
        doors: Arc::clone(&api.doors),
        wanted: Arc::new(wanted),
        told,
        pieces,
        _seat: seat,
    };
    context.tasks.spawn(tail.run(commits));
    let mut response = Response::new(Body::new(Pieces { first: None, rest }));
    let heads = response.headers_mut();
    heads.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    heads.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn refused(error: &Elsewhere) -> ErrorCode {
    match error {
        Elsewhere::Node(_) | Elsewhere::Other | Elsewhere::Ahead(_) => ErrorCode::CursorUnknown,
        Elsewhere::Read(_) => ErrorCode::ReadFailed,
    }
}

/// Nobody is there to be told any more.
struct Over;

/// One follower.
struct Tail {
    context: NodeContext,
    doors: Arc<Doors>,
    wanted: Arc<Wanted>,
    told: Place,
    pieces: mpsc::Sender<Piece>,
    _seat: OwnedSemaphorePermit,
}

impl Tail {
    async fn run(mut self, mut commits: watch::Receiver<Position>) {
        let metrics = Arc::clone(&self.context.metrics);
        metrics.tails.inc();
        let shutdown = self.context.shutdown.clone();
        // A client that is gone, a node that ends and a door that shut end it alike: with the end of the answer.
        tokio::select! {
            () = shutdown.cancelled() => {}
            Over = self.tell(&mut commits) => {}
        }
        metrics.tails.dec();
    }

    async fn tell(&mut self, commits: &mut watch::Receiver<Position>) -> Over {
        if self.say(event::opening(RETRY_MS, self.cursor())).await.is_err() {
            return Over;
        }
        loop {
            if !self.wanted.visitor.is_still_admitted(&self.doors) {
                return Over;
            }
            let head = *commits.borrow_and_update();
            if head > self.told.position {
                let before = self.told;
                if self.read_on().await.is_err() || self.say(event::reached(self.cursor())).await.is_err() {
                    return Over;
                }
                if self.told != before {
                    continue;
                }
            }
            if !self.wanted.goes_on {
                return Over;
            }
            match timeout(HEARTBEAT, commits.changed()).await {
                Ok(Ok(())) => {}
                // The store is closed.
                Ok(Err(_)) => return Over,
                Err(_) => {
                    if self.say(event::heartbeat()).await.is_err() {
                        return Over;
                    }
                }
            }
        }
    }

    /// Tells some of what lies behind; a blocking thread reads and writes it, held back by the client.
    async fn read_on(&mut self) -> Result<(), Over> {
        let (context, wanted, pieces) = (self.context.clone(), Arc::clone(&self.wanted), self.pieces.clone());
        let told = self.told;
        let reading = tokio::task::spawn_blocking(move || read_on(&context, &wanted, told, &pieces)).await;
        match reading {
            Ok(told) => self.told = told?,
            Err(error) => {
                tracing::error!(%error, "telling the log broke off");
                return Err(Over);
            }
        }
        Ok(())
    }

    fn cursor(&self) -> Cursor {
        Cursor { node: self.context.store.node(), place: self.told }
    }

    async fn say(&self, bytes: Vec<u8>) -> Result<(), Over> {
        self.pieces.send(Ok(bytes.into())).await.map_err(|_| Over)
    }
}

fn read_on(
    context: &NodeContext,
    wanted: &Wanted,
    mut told: Place,
    pieces: &mpsc::Sender<Piece>,
) -> Result<Place, Over> {
    let send = |bytes: Vec<u8>| pieces.blocking_send(Ok(bytes.into())).map_err(|_| Over);
    let records = match context.store.follow(told.position, READ_BYTES_MAX) {
        Ok(records) => records,
        Err(error) => {
            tracing::error!(%error, "a follower could not read the log");
            // A client that is gone need not hear it.
            drop(pieces.blocking_send(Err(std::io::Error::other(error.to_string()))));
            return Err(Over);
        }
    };
    for (position, record) in records {
        let missed = position.0.saturating_sub(told.position.0).saturating_sub(1);
        if missed > 0 {
            context.metrics.tail_missed.inc_by(missed);
            send(event::missed(missed))?;
        }
        told = Place { position, mark: Mark::of(&record.chain) };
        if !wanted.wants(&record.stream.site) {
            continue;
        }
        match event::points(&record, &wanted.meant, PIECE_BYTES, send) {
            Ok(points) => context.metrics.points_out.inc_by(points?),
            Err(error) => {
                tracing::error!(%position, stream = %record.stream, lsn = %record.lsn, %error, "a record cannot be told");
            }
        }
    }
    Ok(told)
}
