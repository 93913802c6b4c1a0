//! `GET /api/v1/tail`: points as they become durable on this node, as server-sent events or, to whoever asks for one, on a WebSocket.
//!
//! A follower is a cursor over the log like any other consumer: what it has not read waits there, so a slow one takes no memory and
//! holds nobody up. What policy dropped before it came is told as missed. Its token is looked at before each reading, so a revoked one hears
//! nothing more.

mod cursor;
mod event;
mod listener;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Response, header};
use tidelog_query::Selectors;
use tidelog_record::{NodeId, SiteName};
use tidelog_store::Position;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use self::cursor::{Begin, Cursor, Elsewhere, Mark, Place};
use self::event::{Event, Form};
use super::error::{ApiError, ErrorCode};
use super::guard::Visitor;
use super::question::bad;
use super::socket::{self, End};
use super::stream::{PIECE_BYTES, PIECES_WAITING_MAX, Piece, Pieces};
use super::{Api, Seat};
use crate::context::NodeContext;
use crate::door::Doors;

/// Followers at a time.
pub(super) const TAILS_MAX: usize = 32;

/// Bodies of records that a follower reads at once, in bytes.
const READ_BYTES_MAX: usize = 256 * 1024;

/// A follower hears something at least so often.
const HEARTBEAT: Duration = Duration::from_secs(15);

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
    request: Request,
) -> Result<Response<Body>, ApiError> {
    let context = api.running()?.clone();
    let wanted = Wanted::read(visitor, request.uri().query().unwrap_or_default(), request.headers())?;
    let commits = api.commits()?;
    let (store, begin) = (context.store.clone(), wanted.begin);
    let resolved = tokio::task::spawn_blocking(move || begin.resolve(&store)).await;
    let told = resolved
        .map_err(|error| ApiError::new(ErrorCode::Unavailable, error.to_string()))?
        .map_err(|error| ApiError::new(refused(&error), error.to_string()))?;
    let seat = api.tails.clone().try_acquire_owned().map_err(|_| {
        ApiError::new(ErrorCode::Busy, format!("{TAILS_MAX} clients follow already; try again later"))
    })?;
    let shaken = socket::is_wanted(request.headers()).then(|| socket::shake_hands(request)).transpose()?;
    let (pieces, rest) = mpsc::channel(PIECES_WAITING_MAX);
    let tail = Tail {
        context: context.clone(),
        doors: Arc::clone(&api.doors),
        wanted: Arc::new(wanted),
        told,
        speaker: Speaker {
            node: context.store.node(),
            form: if shaken.is_some() { Form::Messages } else { Form::ServerSent },
            pieces,
        },
        _seat: Seat::take(seat, &context.metrics.tails),
    };
    if let Some((response, handshake)) = shaken {
        context.tasks.spawn(listener::tell(
            handshake,
            api.limits.stall,
            tail,
            commits,
            rest,
            context.clone(),
        ));
        return Ok(response);
    }
    // To those who hear server-sent events every end is the end of the answer.
    context.tasks.spawn(async {
        tail.run(commits).await;
    });
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

/// What a follower is told, on its way to it.
#[derive(Clone)]
struct Speaker {
    node: NodeId,
    form: Form,
    pieces: mpsc::Sender<Piece>,
}

impl Speaker {
    async fn say(&self, event: Event, at: Place) -> Result<(), End> {
        let Some(bytes) = self.write(event, at) else { return Ok(()) };
        self.pieces.send(Ok(bytes.into())).await.map_err(|_| End::Left)
    }

    /// As [`Self::say`], on a thread that may be held up.
    fn say_blocking(&self, event: Event, at: Place) -> Result<(), End> {
        let Some(bytes) = self.write(event, at) else { return Ok(()) };
        self.pieces.blocking_send(Ok(bytes.into())).map_err(|_| End::Left)
    }

    fn write(&self, event: Event, place: Place) -> Option<Vec<u8>> {
        self.form.write(event, Cursor { node: self.node, place })
    }
}

/// One follower.
struct Tail {
    context: NodeContext,
    doors: Arc<Doors>,
    wanted: Arc<Wanted>,
    told: Place,
    speaker: Speaker,
    _seat: Seat,
}

/// How far a reading came.
#[derive(Clone, Copy)]
struct Reached {
    told: Place,
    /// Whether the last thing that was said told so already.
    is_said: bool,
}

impl Tail {
    /// Tells what is wanted, and why it ends.
    async fn run(mut self, mut commits: watch::Receiver<Position>) -> End {
        let shutdown = self.context.shutdown.clone();
        tokio::select! {
            () = shutdown.cancelled() => End::Ending,
            ended = self.tell(&mut commits) => ended.err().unwrap_or(End::Told),
        }
    }

    async fn tell(&mut self, commits: &mut watch::Receiver<Position>) -> Result<(), End> {
        self.speaker.say(Event::Opening, self.told).await?;
        loop {
            if !self.wanted.visitor.is_still_admitted(&self.doors) {
                return Err(End::Revoked);
            }
            let head = *commits.borrow_and_update();
            if head > self.told.position {
                let before = self.told;
                let reached = self.read_on().await?;
                self.told = reached.told;
                if self.speaker.form == Form::ServerSent || !reached.is_said {
                    self.speaker.say(Event::Reached, self.told).await?;
                }
                if self.told != before {
                    continue;
                }
            }
            if !self.wanted.goes_on {
                return Ok(());
            }
            match timeout(HEARTBEAT, commits.changed()).await {
                Ok(Ok(())) => {}
                // The store is closed.
                Ok(Err(_)) => return Err(End::Ending),
                Err(_) => self.speaker.say(Event::Heartbeat, self.told).await?,
            }
        }
    }

    /// Tells some of what lies behind; a blocking thread reads and writes it, held back by the client.
    async fn read_on(&self) -> Result<Reached, End> {
        let (context, wanted, speaker) =
            (self.context.clone(), Arc::clone(&self.wanted), self.speaker.clone());
        let told = self.told;
        let reading = tokio::task::spawn_blocking(move || read_on(&context, &wanted, told, &speaker)).await;
        reading.unwrap_or_else(|error| {
            tracing::error!(%error, "telling the log broke off");
            Err(End::Unreadable)
        })
    }
}

fn read_on(context: &NodeContext, wanted: &Wanted, told: Place, speaker: &Speaker) -> Result<Reached, End> {
    let records = match context.store.follow(told.position, READ_BYTES_MAX) {
        Ok(records) => records,
        Err(error) => {
            tracing::error!(%error, "a follower could not read the log");
            // A client that is gone need not hear it.
            drop(speaker.pieces.blocking_send(Err(std::io::Error::other(error.to_string()))));
            return Err(End::Unreadable);
        }
    };
    let mut reached = Reached { told, is_said: false };
    for (position, record) in records {
        let before = reached.told;
        let missed = position.0.saturating_sub(before.position.0).saturating_sub(1);
        if missed > 0 {
            context.metrics.tail_missed.inc_by(missed);
            speaker.say_blocking(Event::Missed(missed), before)?;
        }
        let behind = Place { position, mark: Mark::of(&record.chain) };
        reached = Reached { told: behind, is_said: false };
        if !wanted.wants(&record.stream.site) {
            continue;
        }
        let send = |answer, last| {
            reached.is_said = last;
            speaker.say_blocking(Event::Points(answer), if last { behind } else { before })
        };
        match event::points(&record, &wanted.meant, PIECE_BYTES, send) {
            Ok(points) => context.metrics.points_out.inc_by(points?),
            Err(error) => {
                tracing::error!(%position, stream = %record.stream, lsn = %record.lsn, %error, "a record cannot be told");
            }
        }
    }
    Ok(reached)
}
