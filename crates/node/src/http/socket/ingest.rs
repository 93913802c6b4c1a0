//! `GET /api/v1/sites/{site}/socket`: devices that keep a connection send batches, and each is answered when it is durable (invariant 2).
//!
//! Several batches may be under way, so that the way there and back costs nothing; answers come in the order of the batches. When the
//! bound is reached nothing more is read from the connection, and so the device is held back by its own system. A batch that is
//! refused ends nothing.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::Response;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt, StreamExt};
use tidelog_record::SiteName;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::tungstenite::Bytes;

use super::super::error::{ApiError, ErrorCode};
use super::super::guard::Visitor;
use super::super::line::{self, Dialect};
use super::super::posted::BodyForm;
use super::super::question::bad;
use super::super::write::take_in;
use super::super::{Api, Seat};
use super::{End, Handshake, Heard, Socket, batch, ping_every, shake_hands};

/// How the counters name this way in.
const VIA: &str = "socket";

/// Longest message, in bytes, or the greatest body if that is less.
const MESSAGE_BYTES_MAX: u32 = 64 * 1024;

/// Batches of one device that may be under way.
const BATCHES_UNDER_WAY_MAX: usize = 16;

/// What they may take together before nothing more is read, in bytes.
const BYTES_UNDER_WAY_MAX: usize = 64 * 1024;

/// How soon a token that is revoked ends a socket on which nothing is said.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long batches that are under way when the socket ends may take to become durable.
const SETTLE: Duration = Duration::from_secs(2);

/// Why a message without a number ends the socket: there is no batch that a refusal could name.
const NO_NUMBER: &str = "a message is the number of a batch, a line feed, and the batch's body";

/// How the bodies in texts are to be read; those in binary messages are MessagePack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TextForm {
    Json,
    /// Line protocol, its times in units of so many nanoseconds.
    Lines(i64),
}

impl TextForm {
    fn read(query: &str) -> Result<Self, ApiError> {
        let (mut form, mut precision) = (None, None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let place = match name.as_ref() {
                "form" => &mut form,
                "precision" => &mut precision,
                _ => return Err(bad(format!("unknown parameter {name:?}: there are form and precision"))),
            };
            if place.replace(value).is_some() {
                return Err(bad(format!("parameter {name:?} stands twice")));
            }
        }
        match (form.as_deref(), precision) {
            (None | Some("json"), None) => Ok(Self::Json),
            (None | Some("json"), Some(_)) => {
                Err(bad("precision is for form=line: in JSON each time says what it counts"))
            }
            (Some("line"), precision) => {
                let precision = precision.unwrap_or_default();
                let unit_ns = Dialect::V2.unit_ns(&precision);
                let unknown = || bad(format!("precision {precision:?}: there are ns, us, ms and s"));
                unit_ns.map(Self::Lines).ok_or_else(unknown)
            }
            (Some(other), _) => Err(bad(format!("form {other:?}: there are json and line"))),
        }
    }
}

pub(in crate::http) async fn get_socket(
    State(api): State<Api>,
    visitor: Visitor,
    Path(site): Path<String>,
    request: Request,
) -> Result<Response<Body>, ApiError> {
    let context = api.running()?.clone();
    let site = visitor.site(&site)?;
    let form = TextForm::read(request.uri().query().unwrap_or_default())?;
    let (response, handshake) = shake_hands(request)?;
    let permit = api.sockets.clone().try_acquire_owned().map_err(|_| {
        let message = format!("{} devices keep a socket already: http_sockets_max", api.limits.sockets_max);
        ApiError::new(ErrorCode::Unavailable, message)
    })?;
    let seat = Seat::take(permit, &api.metrics.sockets);
    let session = Session { visitor, site, form, shutdown: context.shutdown.clone(), api };
    context.tasks.spawn(session.run(handshake, seat));
    Ok(response)
}

/// A batch that is under way: its bytes, and what became of it.
type Settled = (usize, u64, Result<u64, ApiError>);

/// What is under way, in the order of its coming.
#[derive(Default)]
struct UnderWay {
    batches: FuturesOrdered<BoxFuture<'static, Settled>>,
    bytes: usize,
}

impl UnderWay {
    fn is_full(&self) -> bool {
        self.batches.len() >= BATCHES_UNDER_WAY_MAX || self.bytes >= BYTES_UNDER_WAY_MAX
    }

    /// What became of the first, once that is known; for ever if there is none. May be given up and begun again.
    async fn first(&mut self) -> Settled {
        let Some(settled) = self.batches.next().await else { return std::future::pending().await };
        self.bytes = self.bytes.saturating_sub(settled.0);
        settled
    }
}

/// One device's connection.
struct Session {
    api: Api,
    visitor: Visitor,
    site: SiteName,
    form: TextForm,
    shutdown: tokio_util::sync::CancellationToken,
}

impl Session {
    async fn run(self, handshake: Handshake, seat: Seat) {
        let most = MESSAGE_BYTES_MAX.min(self.api.limits.body_bytes_max);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let stall = self.api.limits.stall;
        let (ping_every, silence) = (ping_every(stall), Some(ping_every(stall) + stall));
        let end = match handshake.finish(most, ping_every, silence).await {
            Ok(mut socket) => {
                let mut under_way = UnderWay::default();
                let end = self.converse(&mut socket, &mut under_way).await;
                let end = self.settle(&mut socket, &mut under_way, end).await;
                socket.end(end).await;
                end
            }
            Err(end) => end,
        };
        drop(seat);
        self.api.metrics.sockets_ended.with_label_values(&[end.name()]).inc();
    }

    async fn converse(&self, socket: &mut Socket, under_way: &mut UnderWay) -> End {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let was_full = under_way.is_full();
            let step = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => Err(End::Ending),
                _ = look.tick() => self.still_admitted(),
                settled = under_way.first() => {
                    let answered = self.answer(socket, under_way, settled).await;
                    if was_full {
                        socket.heard_something();
                    }
                    answered
                }
                heard = socket.hear(), if !was_full => heard.and_then(|heard| self.take(heard, under_way)),
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    fn still_admitted(&self) -> Result<(), End> {
        if self.visitor.is_still_admitted(&self.api.doors) { Ok(()) } else { Err(End::Revoked) }
    }

    /// Begins to store a batch.
    fn take(&self, heard: Heard, under_way: &mut UnderWay) -> Result<(), End> {
        self.still_admitted()?;
        let (message, form) = match heard {
            Heard::Text(text) => (Bytes::from(text), Some(self.form)),
            Heard::Binary(bytes) => (bytes, None),
        };
        let (number, body) = batch::split(&message).map_err(|_| End::Unwanted(NO_NUMBER))?;
        let body = message.slice_ref(body);
        let bytes = message.len();
        let (api, site) = (self.api.clone(), self.site.clone());
        let settled = async move { (bytes, number, store(api, site, form, body).await) };
        under_way.bytes += bytes;
        under_way.batches.push_back(settled.boxed());
        Ok(())
    }

    /// Sends what became of a batch, and of those behind it that are settled, too.
    async fn answer(
        &self,
        socket: &mut Socket,
        under_way: &mut UnderWay,
        settled: Settled,
    ) -> Result<(), End> {
        let mut next = Some(settled);
        while let Some((_, number, outcome)) = next {
            match &outcome {
                Ok(points) => self.api.metrics.points_in.with_label_values(&[VIA]).inc_by(*points),
                Err(error) => {
                    self.api.metrics.refused.with_label_values(&[VIA, error.code.name()]).inc();
                }
            }
            socket.feed(batch::answer(number, &outcome)).await?;
            next = under_way.first().now_or_never();
        }
        socket.flush().await
    }

    /// Waits for what is under way, so that a device whose connection ends in order knows what is stored.
    async fn settle(&self, socket: &mut Socket, under_way: &mut UnderWay, end: End) -> End {
        if !end.can_be_told() {
            return end;
        }
        let answers = async {
            while !under_way.batches.is_empty() {
                let settled = under_way.first().await;
                self.answer(socket, under_way, settled).await?;
            }
            Ok(())
        };
        match timeout(SETTLE, answers).await {
            Ok(Err(broken)) => broken,
            // Of what is not durable by then the device hears nothing, and sends it again.
            Ok(Ok(())) | Err(_) => end,
        }
    }
}

/// Stores a batch and returns when it is durable.
async fn store(api: Api, site: SiteName, form: Option<TextForm>, body: Bytes) -> Result<u64, ApiError> {
    let permit = api.body_room_in_time(u32::try_from(body.len()).unwrap_or(u32::MAX)).await?;
    let form = match form {
        Some(TextForm::Lines(unit_ns)) => return line::store_batch(&api, &site, unit_ns, body, permit).await,
        Some(TextForm::Json) => BodyForm::Json,
        None => BodyForm::MessagePack,
    };
    let read = {
        let (body, most) = (body.clone(), api.limits.body_bytes_max);
        move || Ok((form.read(&body, most)?, ()))
    };
    let (points, _, ()) = take_in(api.running()?, site, body.len(), read).await?;
    drop(permit);
    Ok(points as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_json_or_lines_in_a_precision() {
        let cases = [
            ("", Ok(TextForm::Json)),
            ("form=json", Ok(TextForm::Json)),
            ("form=line", Ok(TextForm::Lines(1))),
            ("form=line&precision=ms", Ok(TextForm::Lines(1_000_000))),
            ("precision=ms", Err(ErrorCode::BadParameter)),
            ("form=line&precision=d", Err(ErrorCode::BadParameter)),
            ("form=line&form=line", Err(ErrorCode::BadParameter)),
            ("form=xml", Err(ErrorCode::BadParameter)),
            ("ack=cloud", Err(ErrorCode::BadParameter)),
        ];
        for (query, expected) in cases {
            assert_eq!(TextForm::read(query).map_err(|error| error.code), expected, "{query}");
        }
    }

    #[test]
    fn what_is_under_way_is_bounded_in_number_and_in_bytes() {
        let waits = |bytes: usize, under_way: &mut UnderWay| {
            under_way.bytes += bytes;
            under_way.batches.push_back(async move { (bytes, 1, Ok(1)) }.boxed());
        };
        let (mut many, mut long) = (UnderWay::default(), UnderWay::default());
        for _ in 0..BATCHES_UNDER_WAY_MAX {
            assert!(!many.is_full());
            waits(1, &mut many);
        }
        waits(BYTES_UNDER_WAY_MAX - 1, &mut long);
        assert!(!long.is_full() && many.is_full());
        waits(1, &mut long);
        assert!(long.is_full());
        for under_way in [&mut many, &mut long] {
            assert!(under_way.first().now_or_never().is_some());
            assert!(!under_way.is_full(), "there is room again");
            while under_way.first().now_or_never().is_some() {}
            assert_eq!((under_way.bytes, under_way.batches.len()), (0, 0));
        }
    }
}
