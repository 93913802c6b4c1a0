//! WebSockets (RFC 6455): how a request becomes one, what one may take, how it is known that the other side still lives, and how
//! each ends. What is said on them is their users' affair.

mod asked;
mod batch;
mod claims;
mod ingest;
mod orders;
mod together;

use std::io::ErrorKind;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Response, header};
use futures_util::{FutureExt, SinkExt, StreamExt};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};

use super::error::{ApiError, ErrorCode};
pub(super) use claims::Claims;
pub(super) use ingest::get_socket;

/// Memory that an idle socket keeps for what comes, in bytes. A longer message takes its own length.
const READ_BUFFER_BYTES: usize = 2 * 1024;

/// Answers of so many bytes leave together; more are sent in pieces of that length.
const WRITE_BUFFER_BYTES: usize = 1024;

/// A side that says nothing is asked so often whether it is there, or once in the stall time if that is less. Proxies on the way take a
/// connection without traffic for dead, most of them after a minute.
const PING_EVERY: Duration = Duration::from_secs(15);

/// How often a silent side is asked whether it is there, where clients may keep the node waiting for so long.
pub(super) fn ping_every(stall: Duration) -> Duration {
    PING_EVERY.min(stall)
}

/// How long the other side may take to read why a socket ends.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// Bytes that are read and thrown away behind a message that ended the socket, so that the other side hears why.
const THROWN_AWAY_BYTES_MAX: usize = 1024 * 1024;

/// Why a socket ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Everything was said.
    Told,
    /// The other side closed it, or its connection.
    Left,
    /// The other side did not answer a ping.
    Silent,
    /// The other side took nothing for the stall time.
    Stalled,
    /// The connection broke.
    Broken,
    /// A message was longer than one may be.
    TooLong,
    /// What came is no WebSocket's.
    Malformed,
    /// A message came that means nothing here.
    Unwanted(&'static str),
    /// Another socket says that it is of the same device.
    Replaced,
    /// The token is revoked, or grants something else now.
    Revoked,
    /// The node ends.
    Ending,
    /// The log cannot be read.
    Unreadable,
}

impl End {
    /// The reason as it stands in the counter.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Told => "told",
            Self::Left => "client_left",
            Self::Silent => "silent",
            Self::Stalled => "timeout",
            Self::Broken => "broken",
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::Unwanted(_) => "unwanted",
            Self::Replaced => "replaced",
            Self::Revoked => "revoked",
            Self::Ending => "shutdown",
            Self::Unreadable => "read_failed",
        }
    }

    /// Whether the other side can still hear something.
    pub const fn can_be_told(self) -> bool {
        self.close().is_some()
    }

    /// What the other side is told, if it can still hear it.
    const fn close(self) -> Option<(CloseCode, &'static str)> {
        Some(match self {
            Self::Told => (CloseCode::Normal, "everything was told"),
            Self::Left | Self::Silent | Self::Stalled | Self::Broken => return None,
            Self::TooLong => (CloseCode::Size, "the message is longer than one may be"),
            Self::Malformed => (CloseCode::Protocol, "not as RFC 6455 has it"),
            Self::Unwanted(reason) => (CloseCode::Policy, reason),
            Self::Replaced => (CloseCode::Policy, "the device has another connection now"),
            Self::Revoked => (CloseCode::Policy, "the token is revoked or grants something else now"),
            Self::Ending => (CloseCode::Away, "the node is ending"),
            Self::Unreadable => (CloseCode::Error, "the log cannot be read"),
        })
    }

    fn of(error: &tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => Self::Left,
            tungstenite::Error::Io(error) => match error.kind() {
                ErrorKind::TimedOut => Self::Stalled,
                // A client that goes with something unread, or whose process ends.
                ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::BrokenPipe
                | ErrorKind::UnexpectedEof => Self::Left,
                _ => Self::Broken,
            },
            tungstenite::Error::Capacity(_) => Self::TooLong,
            tungstenite::Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
                Self::Left
            }
            _ => Self::Malformed,
        }
    }
}

/// What a message of the other side carries.
#[derive(Debug)]
pub(super) enum Heard {
    Text(tungstenite::Utf8Bytes),
    Binary(tungstenite::Bytes),
}

/// A connection that becomes a socket once its answer is sent.
pub(super) struct Handshake(OnUpgrade);

/// Whether a request wants to become a socket.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok());
    upgrade.is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket"))
}

/// The answer that makes a request's connection a socket.
///
/// # Errors
/// The request does not ask for one as RFC 6455 says; or a page of another site asks, with whatever rights the browser has that shows it.
pub(super) fn shake_hands(mut request: Request) -> Result<(Response<Body>, Handshake), ApiError> {
    if !is_own_page(request.headers()) {
        let message = "the Origin is not this host: pages of other sites may not open a socket here";
        return Err(ApiError::new(ErrorCode::Forbidden, message));
    }
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let response = create_response_with_body(&request, Body::empty)
        .map_err(|error| ApiError::new(ErrorCode::UpgradeRequired, format!("no WebSocket: {error}")))?;
    let upgrade = upgrade.ok_or_else(|| {
        ApiError::new(ErrorCode::UpgradeRequired, "this connection cannot become a WebSocket")
    })?;
    Ok((response, Handshake(upgrade)))
}

/// Browsers let any page open a socket to any host, and name the page's own in `Origin`; others send none.
fn is_own_page(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    matches!((origin, host), (Some((_, of)), Some(host)) if of.eq_ignore_ascii_case(host))
}

impl Handshake {
    /// The socket, once the answer was sent. Messages that come may have so many bytes; a side that says nothing is pinged, and cut off
    /// after the time in `silence`, if there is one.
    ///
    /// # Errors
    /// The client left before.
    pub async fn finish(
        self,
        message_bytes_max: usize,
        ping_every: Duration,
        silence: Option<Duration>,
    ) -> Result<Socket, End> {
        let upgraded = self.0.await.map_err(|error| {
            tracing::debug!(%error, "a connection did not become a WebSocket");
            End::Left
        })?;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(WRITE_BUFFER_BYTES)
            .max_message_size(Some(message_bytes_max))
            .max_frame_size(Some(message_bytes_max));
        let stream =
            WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
        let now = Instant::now();
        Ok(Socket { stream, heard: now, ping_at: now + ping_every, ping_every, silence })
    }
}

/// One end of a WebSocket. Its connection bounds how long a message that is sent may wait to be taken.
pub(super) struct Socket {
    stream: WebSocketStream<TokioIo<Upgraded>>,
    heard: Instant,
    ping_at: Instant,
    ping_every: Duration,
    silence: Option<Duration>,
}

impl Socket {
    /// Waits for the next message, and asks a side that is silent whether it is there. May be given up and begun again.
    pub async fn hear(&mut self) -> Result<Heard, End> {
        loop {
            let Ok(came) = timeout_at(self.ping_at, self.stream.next()).await else {
                if self.silence.is_some_and(|silence| self.heard.elapsed() >= silence) {
                    return Err(End::Silent);
                }
                self.ping_at = Instant::now() + self.ping_every;
                self.send(Message::Ping(tungstenite::Bytes::new())).await?;
                continue;
            };
            if let Some(heard) = self.heard(came)? {
                return Ok(heard);
            }
        }
    }

    /// The next message, if it has come already.
    pub fn hear_more(&mut self) -> Option<Result<Heard, End>> {
        loop {
            let came = self.stream.next().now_or_never()?;
            if let Some(heard) = self.heard(came).transpose() {
                return Some(heard);
            }
        }
    }

    fn heard(&mut self, came: Option<Result<Message, tungstenite::Error>>) -> Result<Option<Heard>, End> {
        let message = came.ok_or(End::Left)?.map_err(|error| End::of(&error))?;
        self.heard_something();
        match message {
            Message::Text(text) => Ok(Some(Heard::Text(text))),
            Message::Binary(bytes) => Ok(Some(Heard::Binary(bytes))),
            Message::Close(_) => Err(End::Left),
            // Answers to pings are the library's affair.
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(None),
        }
    }

    /// As [`Self::hear`], if this side listens. If it does not it never returns a message, and asks the other side all the same whether it
    /// is there, so that nothing on the way takes the connection for dead.
    pub async fn attend(&mut self, listens: bool) -> Result<Heard, End> {
        if listens {
            return self.hear().await;
        }
        loop {
            sleep_until(self.ping_at).await;
            self.ping_at = Instant::now() + self.ping_every;
            self.send(Message::Ping(tungstenite::Bytes::new())).await?;
        }
    }

    /// Says that silence counts from now on: nobody listened before.
    pub fn heard_something(&mut self) {
        self.heard = Instant::now();
        self.ping_at = self.heard + self.ping_every;
    }

    /// Sends a text and all that stands before it.
    pub async fn say(&mut self, text: impl Into<tungstenite::Utf8Bytes>) -> Result<(), End> {
        self.send(Message::Text(text.into())).await
    }

    /// Puts a text behind what is to be sent.
    pub async fn feed(&mut self, text: impl Into<tungstenite::Utf8Bytes>) -> Result<(), End> {
        self.stream.feed(Message::Text(text.into())).await.map_err(|error| End::of(&error))
    }

    /// Sends what was fed.
    pub async fn flush(&mut self) -> Result<(), End> {
        self.stream.flush().await.map_err(|error| End::of(&error))
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        self.stream.send(message).await.map_err(|error| End::of(&error))
    }

    /// Says why it ends, where that can be said, and gives the other side a moment to hear it.
    pub async fn end(mut self, end: End) {
        let close = end.close();
        let finish = async {
            if let Some((code, reason)) = close {
                let frame = CloseFrame { code, reason: tungstenite::Utf8Bytes::from_static(reason) };
                if self.send(Message::Close(Some(frame))).await.is_err() {
                    return;
                }
            }
            while let Some(Ok(_)) = self.stream.next().await {}
            if matches!(end, End::TooLong | End::Malformed) {
                self.throw_away().await;
            }
        };
        if close.is_some() || end == End::Left {
            // Whoever does not answer is cut off.
            drop(timeout(CLOSE_MAX, finish).await);
        }
    }

    /// Reads what stands behind a message that was refused: a connection that closes with bytes unread takes the reason with it.
    async fn throw_away(&mut self) {
        let (mut piece, mut left) = ([0; 1024], THROWN_AWAY_BYTES_MAX);
        while let Ok(read @ 1..) = self.stream.get_mut().read(&mut piece).await {
            left = left.saturating_sub(read);
            if left == 0 {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_another_site_may_not_open_a_socket_and_what_is_no_page_may() {
        let cases = [
            (None, Some("node:8433"), true),
            (Some("http://node:8433"), Some("node:8433"), true),
            (Some("https://Node"), Some("node"), true),
            (Some("http://evil"), Some("node:8433"), false),
            (Some("http://node:8434"), Some("node:8433"), false),
            (Some("http://node:8433.evil"), Some("node:8433"), false),
            (Some("null"), Some("node:8433"), false),
            (Some("http://node:8433"), None, false),
        ];
        for (origin, host, expected) in cases {
            let mut headers = HeaderMap::new();
            origin.map(|origin| headers.insert(header::ORIGIN, origin.parse().unwrap()));
            host.map(|host| headers.insert(header::HOST, host.parse().unwrap()));
            assert_eq!(is_own_page(&headers), expected, "{origin:?} {host:?}");
        }
    }

    #[test]
    fn whoever_can_still_hear_it_is_told_why_and_whoever_cannot_is_told_nothing() {
        let told = |end: End| end.close().map(|(code, _)| u16::from(code));
        for (end, code) in [
            (End::Told, Some(1000)),
            (End::Ending, Some(1001)),
            (End::Malformed, Some(1002)),
            (End::Replaced, Some(1008)),
            (End::Revoked, Some(1008)),
            (End::Unwanted("nothing"), Some(1008)),
            (End::TooLong, Some(1009)),
            (End::Unreadable, Some(1011)),
            (End::Left, None),
            (End::Silent, None),
            (End::Stalled, None),
            (End::Broken, None),
        ] {
            assert_eq!(told(end), code, "{end:?}");
        }
    }
}
