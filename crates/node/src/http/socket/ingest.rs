//! `GET /api/v1/sites/{site}/socket`: devices that keep a connection send batches, and each is answered when it is durable (invariant 2).
//!
//! Several batches may be under way, so that the way there and back costs nothing; answers come in the order of the batches. When the
//! bound is reached nothing more is read from the connection, and so the device is held back by its own system. Batches that have come
//! together go to the log together. A batch that is refused ends nothing. A socket that is of a device brings it its commands, too, and what it says of them is answered in the same order.

use std::collections::VecDeque;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::Response;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt, StreamExt};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::tungstenite::Bytes;

use super::super::error::{ApiError, ErrorCode};
use super::super::guard::Visitor;
use super::super::{Api, Seat};
use super::asked::Wish;
use super::orders::{News, Orders, Speaker, Word};
use super::together::{Came, Form, Of, Way, store};
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

/// What small batches that go to the log together may have as bodies, in bytes: read, they may take many times as much for a moment.
const BYTES_TOGETHER_MAX: usize = 8 * 1024;

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
    let mut orders = wish.device.map(|device| Orders::of(&api, &context, &site, device)).transpose()?;
    let speaker = orders.as_ref().map(Orders::speaker);
    let tasks = context.tasks.clone();
    let way = Way { api, site, level: wish.level };
    let session = Session { visitor, way, wish, speaker, context };
    // Whoever comes in by the thousand is kept once: what a task holds it does not hand on by value.
    tasks.spawn(async move {
        let end = session.run(handshake, &mut orders).await;
        drop((seat, orders));
        session.way.api.metrics.sockets_ended.with_label_values(&[end.name()]).inc();
    });
    Ok(response)
}

/// What is under way, in the order of its coming.
#[derive(Default)]
struct UnderWay {
    work: FuturesOrdered<BoxFuture<'static, Vec<Of>>>,
    /// How long the messages of each work were together.
    bytes_of_work: VecDeque<usize>,
    /// Batches and words that have come and are not settled.
    batches: usize,
    bytes: usize,
    /// How many of them are words of commands.
    words: usize,
}

impl UnderWay {
    fn is_full(&self) -> bool {
        self.batches >= BATCHES_UNDER_WAY_MAX || self.bytes >= BYTES_UNDER_WAY_MAX
    }

    fn came(&mut self, bytes: usize) {
        self.batches += 1;
        self.bytes += bytes;
    }

    /// Begins to work on what came, so many bytes of it.
    fn push(&mut self, bytes: usize, work: BoxFuture<'static, Vec<Of>>) {
        self.bytes_of_work.push_back(bytes);
        self.work.push_back(work);
    }

    /// What became of the first, once that is known; for ever if there is none. May be given up and begun again.
    async fn first(&mut self) -> Vec<Of> {
        let Some(settled) = self.work.next().await else { return std::future::pending().await };
        let words = settled.iter().filter(|of| matches!(of, Of::Word(..))).count();
        let bytes = self.bytes_of_work.pop_front().unwrap_or_default();
        self.batches = self.batches.saturating_sub(settled.len());
        self.bytes = self.bytes.saturating_sub(bytes);
        self.words = self.words.saturating_sub(words);
        settled
    }
}

/// Batches of one form that have come and go to the log together.
#[derive(Default)]
struct Together {
    form: Form,
    batches: Vec<Came>,
    bytes: usize,
}

impl Together {
    /// Whether a batch may go with those that are here.
    fn takes(&self, form: &Form, came: &Came) -> bool {
        // The forms of one socket are its texts' and its binary messages'.
        let alike = self.form.is_some() == form.is_some();
        let small = came.is_small() && self.bytes + came.body.len() <= BYTES_TOGETHER_MAX;
        self.batches.is_empty() || (alike && small && self.batches.iter().all(Came::is_small))
    }
}

/// One device's connection.
struct Session {
    visitor: Visitor,
    way: Way,
    wish: Wish,
    /// Whose words of commands come here, if any may.
    speaker: Option<Speaker>,
    context: NodeContext,
}

impl Session {
    async fn run(&self, handshake: Handshake, orders: &mut Option<Orders>) -> End {
        let most = MESSAGE_BYTES_MAX.min(self.way.api.limits.body_bytes_max);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let stall = self.way.api.limits.stall;
        let (ping_every, silence) = (ping_every(stall), Some(ping_every(stall) + stall));
        // What only begins and ends a connection stands beside it for as long as that takes.
        let mut socket = match handshake.finish(most, ping_every, silence).boxed().await {
            Ok(socket) => Box::new(socket),
            Err(end) => return end,
        };
        let mut under_way = UnderWay::default();
        let end = self.converse(&mut socket, &mut under_way, orders).await;
        let end = self.settle(&mut socket, &mut under_way, end).boxed().await;
        socket.end(end).boxed().await;
        end
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
                heard = socket.attend(!was_full) => match heard {
                    Ok(heard) => self.take(heard, socket, under_way),
                    Err(end) => Err(end),
                },
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
        if self.visitor.is_still_admitted(&self.way.api.doors) { Ok(()) } else { Err(End::Revoked) }
    }

    /// Begins to store a batch, or to put down a word of a command; and what has come behind it, as far as there is room.
    fn take(&self, first: Heard, socket: &mut Socket, under_way: &mut UnderWay) -> Result<(), End> {
        self.still_admitted()?;
        let mut together = Together::default();
        let mut heard = Ok(first);
        let end = loop {
            let taken = heard.and_then(|heard| self.take_one(heard, &mut together, under_way));
            if taken.is_err() || under_way.is_full() {
                break taken;
            }
            match socket.hear_more() {
                Some(more) => heard = more,
                None => break Ok(()),
            }
        };
        // What came before the end is stored all the same.
        self.begin(&mut together, under_way);
        end
    }

    fn take_one(&self, heard: Heard, together: &mut Together, under_way: &mut UnderWay) -> Result<(), End> {
        let (message, form) = match heard {
            Heard::Text(text) => (Bytes::from(text), Some(self.wish.form.clone())),
            Heard::Binary(bytes) => (bytes, None),
        };
        let bytes = message.len();
        if let Some(speaker) = &self.speaker
            && form.is_some()
            && message.first() == Some(&b'{')
        {
            let word = Word::of(&message).ok_or(End::Unwanted(NO_WORD))?;
            self.begin(together, under_way);
            let said = speaker.clone().put_down(self.context.clone(), word);
            under_way.words += 1;
            under_way.came(bytes);
            let mut said = async move { vec![Of::Word(word.id, said.await)] }.boxed();
            // It begins now, whatever becomes of the connection.
            let settled = (&mut said).now_or_never();
            under_way.push(bytes, settled.map_or(said, |settled| std::future::ready(settled).boxed()));
            return Ok(());
        }
        let (number, body) = batch::split(&message).map_err(|_| End::Unwanted(NO_NUMBER))?;
        let came = Came { number, body: message.slice_ref(body) };
        if !together.takes(&form, &came) {
            self.begin(together, under_way);
        }
        together.form = form;
        together.bytes += bytes;
        together.batches.push(came);
        under_way.came(bytes);
        Ok(())
    }

    /// Begins to store what has come together.
    fn begin(&self, together: &mut Together, under_way: &mut UnderWay) {
        let Together { form, batches, bytes } = std::mem::take(together);
        if !batches.is_empty() {
            under_way.push(bytes, store(&self.way, &self.context, &form, batches));
        }
    }

    /// Sends what became of batches, and of those behind them that are settled, too.
    async fn answer(
        &self,
        socket: &mut Socket,
        under_way: &mut UnderWay,
        settled: Vec<Of>,
    ) -> Result<(), End> {
        let (mut next, mut points) = (Some(settled), 0);
        while let Some(settled) = next {
            for of in settled {
                let answer = match &of {
                    Of::Batch(number, outcome) => {
                        points += self.points_of(outcome.as_ref().map(|stored| stored.points));
                        batch::answer(*number, outcome)
                    }
                    Of::Word(id, outcome) => {
                        points += self.points_of(outcome.as_ref().map(|_| POINTS_OF_A_WORD));
                        orders::answer(*id, outcome)
                    }
                };
                socket.feed(answer).await?;
            }
            next = under_way.first().now_or_never();
        }
        self.way.api.metrics.points_in.with_label_values(&[VIA]).inc_by(points);
        socket.flush().await
    }

    /// The points that are stored; a refusal is counted here.
    fn points_of(&self, outcome: Result<u64, &ApiError>) -> u64 {
        outcome.unwrap_or_else(|error| {
            self.way.api.metrics.refused.with_label_values(&[VIA, error.code.name()]).inc();
            0
        })
    }

    /// Waits for what is under way, so that a device whose connection ends in order knows what is stored.
    async fn settle(&self, socket: &mut Socket, under_way: &mut UnderWay, end: End) -> End {
        if !end.can_be_told() {
            return end;
        }
        let answers = async {
            while !under_way.work.is_empty() {
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

#[cfg(test)]
mod tests {
    use super::super::batch::Stored;
    use super::*;

    #[test]
    fn what_is_under_way_is_bounded_in_number_and_in_bytes() {
        let waits = |bytes: usize, under_way: &mut UnderWay| {
            under_way.came(bytes);
            let of = Of::Batch(1, Ok(Stored { points: 1, known: None }));
            under_way.push(bytes, std::future::ready(vec![of]).boxed());
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
            assert_eq!((under_way.bytes, under_way.batches), (0, 0));
        }
    }
}
