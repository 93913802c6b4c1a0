//! `GET /api/v1/sites/{site}/socket`: devices that keep a connection send batches, and each is answered when it is durable (invariant 2).
//!
//! Several batches may be under way, so that the way there and back costs nothing; answers come in the order of the batches. When the
//! bound is reached nothing more is read from the connection, and so the device is held back by its own system. A batch that is
//! refused ends nothing. A socket that is of a device brings it its commands, too, and what it says of them is answered in the same order.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::Response;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt, StreamExt};
use serde_json::{Value, json};
use tidelog_record::SiteName;
use tidelog_record::uplink::{CommandId, CommandState};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::tungstenite::Bytes;

use super::super::error::{ApiError, ErrorCode};
use super::super::guard::Visitor;
use super::super::level::{Level, Positions, Reserved, Wanted};
use super::super::line;
use super::super::posted::BodyForm;
use super::super::write::take_in;
use super::super::{Api, Seat};
use super::asked::{TextForm, Wish};
use super::batch::Stored;
use super::orders::{News, Orders, Speaker, Word};
use super::{End, Handshake, Heard, Socket, batch, orders, ping_every, shake_hands};
use crate::context::NodeContext;

/// How the counters name this way in.
const VIA: &str = "socket";

/// Longest message, in bytes, or the greatest body if that is less.
const MESSAGE_BYTES_MAX: u32 = 64 * 1024;

/// Batches of one device that may be under way.
const BATCHES_UNDER_WAY_MAX: usize = 16;

/// What they may take together before nothing more is read, in bytes.
const BYTES_UNDER_WAY_MAX: usize = 64 * 1024;

/// A word of a command stands in the log as its id and its state.
const POINTS_OF_A_WORD: u64 = 2;

/// How soon a token that is revoked ends a socket on which nothing is said.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long batches that are under way when the socket ends may take to become durable.
const SETTLE: Duration = Duration::from_secs(2);

/// Why a message without a number ends the socket: there is no batch that a refusal could name.
const NO_NUMBER: &str = "a message is the number of a batch, a line feed, and the batch's body";

/// The same of what a device says of commands.
const NO_WORD: &str = "a word of a command is {\"command\": its id, \"state\": …}";

pub(in crate::http) async fn get_socket(
    State(api): State<Api>,
    visitor: Visitor,
    Path(site): Path<String>,
    request: Request,
) -> Result<Response<Body>, ApiError> {
    let context = api.running()?.clone();
    let site = visitor.site(&site)?;
    let wish = Wish::read(request.uri().query().unwrap_or_default())?;
    if let Some(wanted) = wish.level {
        // Each batch takes its own place; whether there can be any is said at once.
        drop(wanted.reserve(&api, &context)?);
    }
    let (response, handshake) = shake_hands(request)?;
    let permit = api.sockets.clone().try_acquire_owned().map_err(|_| {
        let message = format!("{} devices keep a socket already: http_sockets_max", api.limits.sockets_max);
        ApiError::new(ErrorCode::Unavailable, message)
    })?;
    let seat = Seat::take(permit, &api.metrics.sockets);
    let orders = wish.device.map(|device| Orders::of(&api, &context, &site, device)).transpose()?;
    let speaker = orders.as_ref().map(Orders::speaker);
    let tasks = context.tasks.clone();
    let session = Session { visitor, site, wish, speaker, context, api };
    tasks.spawn(session.run(handshake, orders, seat));
    Ok(response)
}

/// What was under way: its bytes, and what became of it.
struct Settled {
    bytes: usize,
    of: Of,
}

/// What a device is answered to.
enum Of {
    Batch(u64, Result<Stored, ApiError>),
    Word(CommandId, Result<CommandState, ApiError>),
}

/// What is under way, in the order of its coming.
#[derive(Default)]
struct UnderWay {
    batches: FuturesOrdered<BoxFuture<'static, Settled>>,
    bytes: usize,
    /// How many of them are words of commands.
    words: usize,
}

impl UnderWay {
    fn is_full(&self) -> bool {
        self.batches.len() >= BATCHES_UNDER_WAY_MAX || self.bytes >= BYTES_UNDER_WAY_MAX
    }

    /// What became of the first, once that is known; for ever if there is none. May be given up and begun again.
    async fn first(&mut self) -> Settled {
        let Some(settled) = self.batches.next().await else { return std::future::pending().await };
        self.bytes = self.bytes.saturating_sub(settled.bytes);
        self.words = self.words.saturating_sub(usize::from(matches!(settled.of, Of::Word(..))));
        settled
    }
}

/// One device's connection.
struct Session {
    api: Api,
    visitor: Visitor,
    site: SiteName,
    wish: Wish,
    /// Whose words of commands come here, if any may.
    speaker: Option<Speaker>,
    context: NodeContext,
}

impl Session {
    async fn run(self, handshake: Handshake, mut orders: Option<Orders>, seat: Seat) {
        let most = MESSAGE_BYTES_MAX.min(self.api.limits.body_bytes_max);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let stall = self.api.limits.stall;
        let (ping_every, silence) = (ping_every(stall), Some(ping_every(stall) + stall));
        let end = match handshake.finish(most, ping_every, silence).await {
            Ok(mut socket) => {
                let mut under_way = UnderWay::default();
                let end = self.converse(&mut socket, &mut under_way, &mut orders).await;
                let end = self.settle(&mut socket, &mut under_way, end).await;
                socket.end(end).await;
                end
            }
            Err(end) => end,
        };
        drop((seat, orders));
        self.api.metrics.sockets_ended.with_label_values(&[end.name()]).inc();
    }

    async fn converse(
        &self,
        socket: &mut Socket,
        under_way: &mut UnderWay,
        orders: &mut Option<Orders>,
    ) -> End {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let was_full = under_way.is_full();
            let step = tokio::select! {
                biased;
                () = self.context.shutdown.cancelled() => Err(End::Ending),
                _ = look.tick() => match self.still_admitted() {
                    // What was brought may have expired meanwhile.
                    Ok(()) => self.bring(socket, orders.as_mut(), under_way.words).await,
                    revoked => revoked,
                },
                news = news(orders.as_mut()) => match news {
                    News::Lost => Err(End::Replaced),
                    News::Changed => self.bring(socket, orders.as_mut(), under_way.words).await,
                },
                settled = under_way.first() => {
                    let answered = self.answer(socket, under_way, settled).await;
                    if was_full {
                        socket.heard_something();
                    }
                    match answered {
                        Ok(()) => self.bring(socket, orders.as_mut(), under_way.words).await,
                        end => end,
                    }
                }
                heard = socket.attend(!was_full) => heard.and_then(|heard| self.take(heard, under_way)),
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Asks the device to begin what waits for it; not before it was answered to what it says of those before.
    async fn bring(
        &self,
        socket: &mut Socket,
        orders: Option<&mut Orders>,
        words_under_way: usize,
    ) -> Result<(), End> {
        let orders = orders.filter(|_| words_under_way == 0);
        let Some(next) = orders.and_then(|orders| orders.next(self.context.now_ms())) else { return Ok(()) };
        self.context.metrics.commands_handed.inc();
        socket.say(next).await
    }

    fn still_admitted(&self) -> Result<(), End> {
        if self.visitor.is_still_admitted(&self.api.doors) { Ok(()) } else { Err(End::Revoked) }
    }

    /// Begins to store a batch, or to put down a word of a command.
    fn take(&self, heard: Heard, under_way: &mut UnderWay) -> Result<(), End> {
        self.still_admitted()?;
        let (message, form) = match heard {
            Heard::Text(text) => (Bytes::from(text), Some(self.wish.form.clone())),
            Heard::Binary(bytes) => (bytes, None),
        };
        let bytes = message.len();
        let settled = match &self.speaker {
            Some(speaker) if form.is_some() && message.first() == Some(&b'{') => {
                let word = Word::of(&message).ok_or(End::Unwanted(NO_WORD))?;
                let said = speaker.clone().put_down(self.context.clone(), word);
                under_way.words += 1;
                async move { Settled { bytes, of: Of::Word(word.id, said.await) } }.boxed()
            }
            _ => {
                let (number, body) = batch::split(&message).map_err(|_| End::Unwanted(NO_NUMBER))?;
                let body = message.slice_ref(body);
                let stored = store(self.api.clone(), self.site.clone(), form, self.wish.level, body);
                async move { Settled { bytes, of: Of::Batch(number, stored.await) } }.boxed()
            }
        };
        under_way.bytes += bytes;
        under_way.batches.push_back(settled);
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
        while let Some(Settled { of, .. }) = next {
            let answer = match of {
                Of::Batch(number, outcome) => {
                    self.count(outcome.as_ref().map(|stored| stored.points));
                    batch::answer(number, &outcome)
                }
                Of::Word(id, outcome) => {
                    self.count(outcome.as_ref().map(|_| POINTS_OF_A_WORD));
                    orders::answer(id, &outcome)
                }
            };
            socket.feed(answer).await?;
            next = under_way.first().now_or_never();
        }
        socket.flush().await
    }

    fn count(&self, outcome: Result<u64, &ApiError>) {
        match outcome {
            Ok(points) => self.api.metrics.points_in.with_label_values(&[VIA]).inc_by(points),
            Err(error) => self.api.metrics.refused.with_label_values(&[VIA, error.code.name()]).inc(),
        }
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

/// Waits for news of the device that a socket is of; for ever where it is of none. May be given up and begun again.
async fn news(orders: Option<&mut Orders>) -> News {
    match orders {
        Some(orders) => orders.news().await,
        None => std::future::pending().await,
    }
}

/// Stores a batch and returns when it is as durable as it is to be, or the time for that is over.
async fn store(
    api: Api,
    site: SiteName,
    form: Option<TextForm>,
    level: Option<Wanted>,
    body: Bytes,
) -> Result<Stored, ApiError> {
    let context = api.running()?;
    // Whoever cannot be answered as it wants leaves nothing behind.
    let reserved = level.map(|wanted| wanted.reserve(&api, context)).transpose()?;
    let permit = api.body_room_in_time(u32::try_from(body.len()).unwrap_or(u32::MAX)).await?;
    let most = api.limits.body_bytes_max;
    let (points, positions) = match form {
        Some(TextForm::Lines(unit_ns)) => line::store_batch(&api, &site, unit_ns, body, permit).await?,
        Some(TextForm::Table(columns)) => {
            let (bytes, read) = (body.len(), move || columns.read(&body, most));
            let (points, positions, lines) = take_in(context, site, bytes, read).await?;
            drop(permit);
            api.metrics.lines_refused.inc_by(lines.bad_lines);
            if let Some(refusal) = lines.refusal() {
                return Err(refusal);
            }
            (points as u64, positions)
        }
        Some(TextForm::Json) | None => {
            let form = if form.is_some() { BodyForm::Json } else { BodyForm::MessagePack };
            let (bytes, read) = (body.len(), move || Ok((form.read(&body, most)?, ())));
            let (points, positions, ()) = take_in(context, site, bytes, read).await?;
            drop(permit);
            (points as u64, positions)
        }
    };
    let known = match reserved {
        Some(reserved) => Some(known(reserved, context, &positions).await),
        None => None,
    };
    Ok(Stored { points, known })
}

/// What is known of where a batch is durable, as a post would be told.
async fn known(reserved: Reserved, context: &NodeContext, positions: &Positions) -> Value {
    match reserved.reach(context, positions).await {
        Level::Node => json!({"ack": "node"}),
        Level::Cloud => json!({"ack": "cloud"}),
        Level::Unconfirmed(known) => known,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_is_bounded_in_number_and_in_bytes() {
        let waits = |bytes: usize, under_way: &mut UnderWay| {
            under_way.bytes += bytes;
            let of = Of::Batch(1, Ok(Stored { points: 1, known: None }));
            under_way.batches.push_back(async move { Settled { bytes, of } }.boxed());
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
