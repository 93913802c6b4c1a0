//! Answers that are written while they are read: a blocking thread asks the store and writes, a slow client holds it back through a
//! short queue, and a client that leaves ends it.

use std::fmt::Display;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{Response, header};
use hyper::body::Frame;
use tidelog_record::Series;
use tidelog_store::ScanError;
use tokio::sync::mpsc;

use super::Api;
use super::answer::AnswerForm;
use super::error::{ApiError, ErrorCode};
use super::question::bad;
use crate::context::NodeContext;

/// Size of the pieces that an answer is sent in, in bytes.
pub(super) const PIECE_BYTES: usize = 64 * 1024;

/// Pieces that wait for a slow client.
pub(super) const PIECES_WAITING_MAX: usize = 4;

pub(super) type Piece = Result<Bytes, io::Error>;

/// The client went away.
pub(super) struct Gone;

/// Where a blocking thread writes an answer to.
pub(super) struct Sender {
    pieces: mpsc::Sender<Piece>,
    pub context: NodeContext,
    began: Instant,
    patience: Patience,
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
    pub fn send(&self, bytes: Vec<u8>) -> Result<(), Gone> {
        let full = Instant::now();
        let sent = self.pieces.blocking_send(Ok(Bytes::from(bytes))).map_err(|_| Gone);
        self.patience.waited(full.elapsed());
        sent
    }

    /// Whether the work at the answer has taken longer than it may, or nobody should go on.
    pub fn halts(&self) -> bool {
        self.patience.is_over(self.began.elapsed()) || self.is_over()
    }

    /// Whether nobody should go on.
    pub fn is_over(&self) -> bool {
        self.context.shutdown.is_cancelled() || self.pieces.is_closed()
    }

    /// Ends the answer: with its last bytes, or with why it broke off. An answer that is cut off must not look like a whole one.
    fn end(self, outcome: io::Result<Vec<u8>>) {
        let last = match outcome {
            _ if self.context.shutdown.is_cancelled() => Err(io::Error::other("the node is ending")),
            Ok(bytes) => Ok(Bytes::from(bytes)),
            Err(error) => {
                if !matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::TimedOut) {
                    tracing::error!(%error, "a query could not read the log");
                }
                Err(error)
            }
        };
        // A client that went away needs no end.
        drop(self.pieces.blocking_send(last));
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
pub(super) async fn stream(
    api: &Api,
    form: AnswerForm,
    write: impl FnOnce(&Sender) -> io::Result<Vec<u8>> + Send + 'static,
) -> Result<Response<Body>, ApiError> {
    let context = api.running()?.clone();
    let patience = api.limits.query_time;
    let permit = api.question()?;
    let (pieces, mut received) = mpsc::channel(PIECES_WAITING_MAX);
    tokio::task::spawn_blocking(move || {
        // Held until the answer is written: it is what takes memory.
        let _permit = permit;
        let sender = Sender { pieces, context, began: Instant::now(), patience: Patience::with(patience) };
        let outcome = write(&sender);
        sender.end(outcome);
    });
    // The head waits for the first piece, so that a log that cannot be read is an error and not a broken answer.
    let first = match received.recv().await {
        Some(Ok(first)) => first,
        Some(Err(error)) if error.kind() == io::ErrorKind::InvalidInput => {
            return Err(bad(error.to_string()));
        }
        Some(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {
            return Err(ApiError::new(ErrorCode::QueryTimeout, error.to_string()));
        }
        Some(Err(error)) => return Err(ApiError::new(ErrorCode::ReadFailed, error.to_string())),
        None => return Err(ApiError::new(ErrorCode::Unavailable, "the query was given up")),
    };
    let mut response = Response::new(Body::new(Pieces { first: Some(first), rest: received }));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(form.content_type()));
    Ok(response)
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
