//! Answers to questions about points. A small one, all of which is in memory, is written as a whole, there where it was asked for:
//! handing it from thread to thread would take longer than the answer. Any other is written while it is read: a blocking thread asks
//! the store and writes, a slow client holds it back through a short queue, and a client that leaves ends it. Which of them an answer
//! is shows itself: each is begun as a small one, and begun anew when it turns out to be none.

use std::fmt::Display;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{Response, header};
use hyper::body::Frame;
use tidelog_record::Series;
use tidelog_store::{ScanError, at_hand};
use tokio::sync::mpsc;

use super::Api;
use super::error::{ApiError, ErrorCode};
use super::question::bad;
use crate::context::NodeContext;

/// Size of the pieces that an answer is sent in, in bytes.
pub(super) const PIECE_BYTES: usize = 64 * 1024;

/// Pieces that wait for a slow client.
pub(super) const PIECES_WAITING_MAX: usize = 4;

pub(super) type Piece = Result<Bytes, io::Error>;

/// The client went away.
#[derive(Debug)]
pub(super) struct Gone;

/// Series that a small answer tells of, at most.
const SMALL_SERIES_MAX: usize = 64;

/// Points that a small answer tells, at most.
const SMALL_POINTS_MAX: u64 = 4_096;

/// How long the work at a small answer takes, at most.
const SMALL_WORK_MAX: Duration = Duration::from_millis(2);

/// Where an answer is written to.
pub(super) struct Sender {
    way: Way,
    pub context: NodeContext,
    began: Instant,
    patience: Patience,
}

enum Way {
    /// A small answer, of one piece.
    Whole(Attempt),
    /// Piece by piece, from a thread that may wait for the client.
    Pieces(mpsc::Sender<Piece>),
}

/// A small answer in the making.
#[derive(Default)]
struct Attempt {
    points: AtomicU64,
    /// It is no small one.
    given_up: AtomicBool,
}

/// How long the work at an answer may take, what it waits for its client apart.
#[derive(Debug)]
struct Patience {
    work: Duration,
    waited_ns: AtomicU64,
}

impl Patience {
    fn with(work: Duration) -> Self {
        Self { work, waited_ns: AtomicU64::new(0) }
    }

    fn waited(&self, time: Duration) {
        self.waited_ns.fetch_add(nanoseconds(time), Ordering::Relaxed);
    }

    /// Whether it is at an end so long after the beginning.
    fn is_over(&self, since: Duration) -> bool {
        nanoseconds(since).saturating_sub(self.waited_ns.load(Ordering::Relaxed)) > nanoseconds(self.work)
    }
}

impl Sender {
    fn new(way: Way, context: NodeContext, patience: Duration) -> Self {
        Self { way, context, began: Instant::now(), patience: Patience::with(patience) }
    }

    /// Sends a piece of at least [`PIECE_BYTES`] on its way.
    pub fn send(&self, bytes: Vec<u8>) -> Result<(), Gone> {
        match &self.way {
            Way::Whole(attempt) => {
                attempt.give_up();
                Err(Gone)
            }
            Way::Pieces(pieces) => {
                let full = Instant::now();
                let sent = pieces.blocking_send(Ok(Bytes::from(bytes))).map_err(|_| Gone);
                self.patience.waited(full.elapsed());
                sent
            }
        }
    }

    /// Counts points that the answer tells.
    pub fn tells(&self, points: usize) {
        match &self.way {
            Way::Whole(attempt) => {
                attempt.points.fetch_add(points as u64, Ordering::Relaxed);
            }
            Way::Pieces(_) => self.context.metrics.points_out.inc_by(points as u64),
        }
    }

    /// How many points the answer may tell: none is said of one that comes in pieces.
    pub fn points_max(&self) -> Option<u64> {
        matches!(self.way, Way::Whole(_)).then_some(SMALL_POINTS_MAX)
    }

    /// Whether the answer may tell of so many series. Where it may not, it is over.
    pub fn takes_series(&self, series: usize) -> bool {
        match &self.way {
            Way::Whole(attempt) if series > SMALL_SERIES_MAX => {
                attempt.give_up();
                false
            }
            _ => true,
        }
    }

    /// The answer is not to be a small one, if it was to be one.
    pub fn grows(&self) {
        if let Way::Whole(attempt) = &self.way {
            attempt.give_up();
        }
    }

    /// Whether the work at the answer has taken longer than it may, or nobody should go on.
    pub fn halts(&self) -> bool {
        self.is_over() || self.is_late()
    }

    fn is_late(&self) -> bool {
        let late = self.patience.is_over(self.began.elapsed());
        if late {
            self.grows();
        }
        late
    }

    /// Whether nobody should go on.
    pub fn is_over(&self) -> bool {
        self.context.shutdown.is_cancelled()
            || match &self.way {
                Way::Whole(attempt) => attempt.is_given_up(),
                Way::Pieces(pieces) => pieces.is_closed(),
            }
    }

    /// The last bytes of an answer, or why it broke off. One that is cut off must not look like a whole one.
    fn outcome(&self, written: io::Result<Vec<u8>>) -> Piece {
        match written {
            _ if self.context.shutdown.is_cancelled() => Err(io::Error::other("the node is ending")),
            Ok(bytes) => Ok(Bytes::from(bytes)),
            Err(error) => {
                if !matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::TimedOut) {
                    tracing::error!(%error, "a query could not read the log");
                }
                Err(error)
            }
        }
    }
}

impl Attempt {
    fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A question has no answer: the store could not be read, or it took too long.
pub(super) fn unanswered(error: ScanError) -> io::Error {
    match error {
        ScanError::Halted => io::Error::new(
            io::ErrorKind::TimedOut,
            "the question takes longer than query.s_max: ask for less",
        ),
        error => unread(error),
    }
}

/// The store could not be read.
pub(super) fn unread(error: impl Display) -> io::Error {
    io::Error::other(error.to_string())
}

/// Fails where a question means more series than one may.
pub(super) fn bounded(series: Vec<Arc<Series>>, most: u64) -> io::Result<Vec<Arc<Series>>> {
    if series.len() as u64 > most {
        let message = format!("match: {} series are meant, the most is {most}", series.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    Ok(series)
}

/// Answers with what `write` sends and, at the end, gives. Its error says that the store could not be read, or, as
/// [`io::ErrorKind::InvalidInput`], that it was asked for too much, or, as [`io::ErrorKind::TimedOut`], that it took too long.
/// It is called a second time if the answer turns out not to be a small one.
pub(super) async fn stream(
    api: &Api,
    content_type: &'static str,
    write: impl Fn(&Sender) -> io::Result<Vec<u8>> + Send + 'static,
) -> Result<Response<Body>, ApiError> {
    let context = api.running()?.clone();
    let patience = api.limits.query_time;
    let permit = api.question()?;
    if let Some(whole) = small(&context, patience, &write) {
        let whole = whole.map_err(refused)?;
        return Ok(response(content_type, Body::from(whole)));
    }
    let (pieces, mut received) = mpsc::channel(PIECES_WAITING_MAX);
    tokio::task::spawn_blocking(move || {
        // Held until the answer is written: it is what takes memory.
        let _permit = permit;
        let sender = Sender::new(Way::Pieces(pieces.clone()), context, patience);
        let last = sender.outcome(write(&sender));
        // A client that went away needs no end.
        drop(pieces.blocking_send(last));
    });
    // The head waits for the first piece, so that a log that cannot be read is an error and not a broken answer.
    let first = match received.recv().await {
        Some(first) => first.map_err(refused)?,
        None => return Err(ApiError::new(ErrorCode::Unavailable, "the query was given up")),
    };
    Ok(response(content_type, Body::new(Pieces { first: Some(first), rest: received })))
}

/// The answer as a whole, if it is a small one and all that it needs is at hand: this thread has others to serve, and waits for no disk.
fn small(
    context: &NodeContext,
    patience: Duration,
    write: &impl Fn(&Sender) -> io::Result<Vec<u8>>,
) -> Option<Piece> {
    let attempt = Way::Whole(Attempt::default());
    let sender = Sender::new(attempt, context.clone(), patience.min(SMALL_WORK_MAX));
    let written = at_hand(|| write(&sender))?;
    let Way::Whole(attempt) = &sender.way else { return None };
    if attempt.is_given_up() {
        return None;
    }
    context.metrics.points_out.inc_by(attempt.points.load(Ordering::Relaxed));
    Some(sender.outcome(written))
}

fn refused(error: io::Error) -> ApiError {
    match error.kind() {
        io::ErrorKind::InvalidInput => bad(error.to_string()),
        io::ErrorKind::TimedOut => ApiError::new(ErrorCode::QueryTimeout, error.to_string()),
        _ => ApiError::new(ErrorCode::ReadFailed, error.to_string()),
    }
}

fn response(content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

/// The answer's body: pieces as the scanning thread makes them.
pub(super) struct Pieces {
    pub first: Option<Bytes>,
    pub rest: mpsc::Receiver<Piece>,
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        self.rest.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_that_a_client_takes_to_read_is_no_work() {
        let second = Duration::from_secs(1);
        let patience = Patience::with(2 * second);
        assert!(!patience.is_over(2 * second));
        assert!(patience.is_over(3 * second));
        patience.waited(5 * second);
        assert!(!patience.is_over(7 * second));
        assert!(patience.is_over(8 * second));
    }
}
