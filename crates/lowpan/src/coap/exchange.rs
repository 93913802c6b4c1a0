//! The client's side of one confirmable request (RFC 7252 sections 4.2, 4.4, 5.2 and 5.3): it is sent, repeated with
//! doubling pauses until it is acknowledged, and ended by a response, a reset or the caller's patience.
//!
//! One request at a time (NSTART = 1, section 4.7). The machine keeps the request's bytes so that it can repeat them,
//! draws nothing and waits for nothing: time and randomness are arguments. It doesn't look at addresses: the caller
//! hands it only what came from the server that was asked.

use smoltcp::time::{Duration, Instant};

use super::code::{Code, Kind};
use super::message::{Message, ParseError};
use super::writer::{Writer, empty};

/// Length of the tokens this client draws, in bytes. One request is outstanding at a time; the token keeps a late
/// response to an earlier one apart from it.
pub const TOKEN_BYTES: usize = 2;

/// How a request is repeated (RFC 7252 section 4.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmission {
    /// The shortest first pause; the pause is drawn between it and one and a half times it (ACK_RANDOM_FACTOR).
    pub ack_timeout: Duration,
    /// How many times a request is repeated after the first.
    pub max_retransmit: u8,
    /// How long to wait for the response after the server has acknowledged the request without one.
    pub response_timeout: Duration,
}

impl Transmission {
    /// The specification's defaults: 2 s, 4 times, and MAX_TRANSMIT_WAIT (93 s) for a separate response.
    pub const RFC7252: Self = Self {
        ack_timeout: Duration::from_secs(2),
        max_retransmit: 4,
        response_timeout: Duration::from_secs(93),
    };
}

/// What a datagram meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Nothing the caller has to act on: an acknowledgement alone, a repeat, something for nobody.
    Nothing,
    /// Not a message; count it.
    Malformed,
    /// The response. The exchange is over.
    Response(Message<'a>),
    /// The server reset the request: it couldn't make sense of it. The exchange is over.
    Rejected,
}

/// How an exchange ended without a word from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Repeated as often as allowed, never acknowledged.
    NotAcknowledged,
    /// Acknowledged, and then no response came in time.
    NotAnswered,
}

/// Why a request was not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// One is outstanding.
    #[error("a request is outstanding")]
    Busy,
    /// It doesn't fit the buffer.
    #[error("the request doesn't fit the buffer")]
    TooLong,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    /// Sent `repeats` + 1 times, to be repeated at `deadline`.
    Unacknowledged {
        repeats: u8,
        pause: Duration,
        deadline: Instant,
    },
    /// Acknowledged; the response comes separately.
    Acknowledged {
        deadline: Instant,
    },
}

/// One request at a time, of at most `BYTES` bytes.
///
/// After each call of [`start`](Self::start), [`handle_datagram`](Self::handle_datagram) and
/// [`handle_timeout`](Self::handle_timeout), send what [`poll_transmit`](Self::poll_transmit) gives until it gives
/// nothing, and come back at [`poll_timeout`](Self::poll_timeout).
#[derive(Clone, Debug)]
pub struct Exchange<const BYTES: usize> {
    transmission: Transmission,
    state: State,
    id: u16,
    token: [u8; TOKEN_BYTES],
    request: [u8; BYTES],
    length: usize,
    due: bool,
    /// An acknowledgement or a reset to send before anything else.
    control: Option<[u8; 4]>,
    control_sent: [u8; 4],
}

impl<const BYTES: usize> Exchange<BYTES> {
    /// An idle exchange. `random` sets the first message id and token, so that a restarted client isn't taken for
    /// its former self.
    #[must_use]
    pub const fn new(transmission: Transmission, random: u32) -> Self {
        let [a, b, c, d] = random.to_be_bytes();
        Self {
            transmission,
            state: State::Idle,
            id: u16::from_be_bytes([a, b]),
            token: [c, d],
            request: [0; BYTES],
            length: 0,
            due: false,
            control: None,
            control_sent: [0; 4],
        }
    }

    /// Whether no request is outstanding.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Begins a request. `random` decides its first pause and its token.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(
        &mut self,
        now: Instant,
        random: u32,
        method: Code,
        path: &[&str],
        payload: &[u8],
    ) -> Result<(), StartError> {
        if !self.is_idle() {
            return Err(StartError::Busy);
        }
        let [a, b, c, d] = random.to_be_bytes();
        let mut token = [a, b];
        if token == self.token {
            token = u16::from_be_bytes(token).wrapping_add(1).to_be_bytes();
        }
        let id = self.id.wrapping_add(1);
        self.length = Writer::new(&mut self.request, Kind::Confirmable, method, id, &token)
            .and_then(|writer| writer.path(path)?.payload(payload))
            .map_err(|_| StartError::TooLong)?;
        (self.id, self.token) = (id, token);
        // Up to half of it more, in steps of 1/65536 of that half.
        let shortest_us = self.transmission.ack_timeout.total_micros();
        let more_us = (shortest_us / 2).saturating_mul(u64::from(u16::from_be_bytes([c, d]))) >> 16;
        let pause = Duration::from_micros(shortest_us + more_us);
        self.state = State::Unacknowledged { repeats: 0, pause, deadline: now + pause };
        self.due = true;
        Ok(())
    }

    /// Gives the request up: no more repeats, and a response that still comes is nobody's.
    pub fn cancel(&mut self) {
        self.end();
    }

    /// The next datagram to send, if there is one. One that is lost on the way, or refused by the layer below, is
    /// made good by the next repeat.
    pub fn poll_transmit(&mut self) -> Option<&[u8]> {
        if let Some(control) = self.control.take() {
            self.control_sent = control;
            return Some(&self.control_sent);
        }
        if core::mem::take(&mut self.due) { self.request.get(..self.length) } else { None }
    }

    /// When to call [`Self::handle_timeout`].
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Idle => None,
            State::Unacknowledged { deadline, .. } | State::Acknowledged { deadline } => Some(deadline),
        }
    }

    /// Lets time pass. A failure ends the exchange.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Failure> {
        match self.state {
            State::Unacknowledged { repeats, pause, deadline } if now >= deadline => {
                if repeats >= self.transmission.max_retransmit {
                    self.end();
                    return Some(Failure::NotAcknowledged);
                }
                let pause = pause * 2;
                self.state = State::Unacknowledged { repeats: repeats + 1, pause, deadline: now + pause };
                self.due = true;
                None
            }
            State::Acknowledged { deadline } if now >= deadline => {
                self.end();
                Some(Failure::NotAnswered)
            }
            _ => None,
        }
    }

    /// Takes a datagram from the server that was asked.
    pub fn handle_datagram<'a>(&mut self, now: Instant, datagram: &'a [u8]) -> Event<'a> {
        let message = match Message::parse(datagram) {
            Ok(message) => message,
            Err(ParseError::Format { kind: Kind::Confirmable, id, .. }) => {
                self.control = Some(empty(Kind::Reset, id));
                return Event::Malformed;
            }
            Err(_) => return Event::Malformed,
        };
        match message.kind() {
            Kind::Acknowledgement | Kind::Reset if self.is_idle() || message.id() != self.id => {
                Event::Nothing
            }
            Kind::Reset => {
                self.end();
                Event::Rejected
            }
            Kind::Acknowledgement if message.code() == Code::EMPTY => {
                if let State::Unacknowledged { .. } = self.state {
                    self.state = State::Acknowledged { deadline: now + self.transmission.response_timeout };
                    self.due = false;
                }
                Event::Nothing
            }
            Kind::Acknowledgement if self.is_response_to_us(&message) => {
                self.end();
                Event::Response(message)
            }
            Kind::Acknowledgement => Event::Nothing,
            Kind::Confirmable | Kind::NonConfirmable => self.handle_separate(message),
        }
    }

    /// A message of the server's own: a separate response (its acknowledgement may have been lost or overtaken), a
    /// repeat of one, or something this client doesn't serve.
    fn handle_separate<'a>(&mut self, message: Message<'a>) -> Event<'a> {
        let ours = self.is_response_to_us(&message);
        if message.kind() == Kind::Confirmable {
            let control = if ours { Kind::Acknowledgement } else { Kind::Reset };
            self.control = Some(empty(control, message.id()));
        }
        if !ours || self.is_idle() {
            return Event::Nothing;
        }
        self.end();
        Event::Response(message)
    }

    fn is_response_to_us(&self, message: &Message<'_>) -> bool {
        message.code().is_response() && message.token() == self.token
    }

    fn end(&mut self) {
        self.state = State::Idle;
        self.due = false;
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    const START: Instant = Instant::ZERO;

    fn started(random: u32) -> Exchange<64> {
        let mut exchange = Exchange::new(Transmission::RFC7252, 7);
        exchange.start(START, random, Code::POST, &["b"], b"batch").unwrap();
        exchange
    }

    fn sent(exchange: &mut Exchange<64>) -> Vec<u8> {
        exchange.poll_transmit().map(<[u8]>::to_vec).unwrap_or_default()
    }

    fn answer(request: &[u8], kind: Kind, id: u16, payload: &[u8]) -> Vec<u8> {
        let request = Message::parse(request).unwrap();
        let mut buffer = [0; 64];
        let writer = Writer::new(&mut buffer, kind, Code::CHANGED, id, request.token()).unwrap();
        let length = writer.payload(payload).unwrap();
        buffer[..length].to_vec()
    }

    fn id_of(datagram: &[u8]) -> u16 {
        Message::parse(datagram).unwrap().id()
    }

    #[test]
    fn a_piggybacked_response_ends_the_exchange() {
        let mut exchange = started(1);
        let request = sent(&mut exchange);
        let response = answer(&request, Kind::Acknowledgement, id_of(&request), b"ok");
        let event = exchange.handle_datagram(START, &response);
        assert!(matches!(event, Event::Response(message) if message.payload() == b"ok"));
        assert!(exchange.is_idle());
        assert_eq!((exchange.poll_timeout(), exchange.poll_transmit()), (None, None));
        assert_eq!(exchange.handle_datagram(START, &response), Event::Nothing);
    }

    #[test]
    fn a_silent_server_is_asked_five_times_with_doubling_pauses_and_given_up() {
        for random in [0, 0xffff, 0x1234_5678, u32::MAX] {
            let mut exchange = started(random);
            let (mut now, mut copies, mut pauses) = (START, 0, Vec::new());
            let failure = loop {
                copies += usize::from(!sent(&mut exchange).is_empty());
                let next = exchange.poll_timeout().unwrap();
                pauses.push((next - now).total_millis());
                now = next;
                if let Some(failure) = exchange.handle_timeout(now) {
                    break failure;
                }
            };
            assert_eq!((failure, copies, pauses.len()), (Failure::NotAcknowledged, 5, 5));
            assert!((2000..=3000).contains(&pauses[0]), "{pauses:?}");
            assert!(pauses.windows(2).all(|pair| pair[1].abs_diff(pair[0] * 2) <= 1), "{pauses:?}");
        }
    }

    #[test]
    fn repeats_are_the_same_bytes() {
        let mut exchange = started(9);
        let first = sent(&mut exchange);
        assert_eq!(exchange.handle_timeout(exchange.poll_timeout().unwrap()), None);
        assert_eq!(sent(&mut exchange), first);
    }

    #[test]
    fn after_an_acknowledgement_alone_the_response_comes_separately_and_is_acknowledged_each_time() {
        let mut exchange = started(1);
        let request = sent(&mut exchange);
        let alone = empty(Kind::Acknowledgement, id_of(&request));
        assert_eq!(exchange.handle_datagram(START, &alone), Event::Nothing);
        assert_eq!(exchange.poll_timeout(), Some(START + Transmission::RFC7252.response_timeout));
        let response = answer(&request, Kind::Confirmable, 0x4242, b"ok");
        assert!(matches!(exchange.handle_datagram(START, &response), Event::Response(_)));
        assert_eq!(sent(&mut exchange), empty(Kind::Acknowledgement, 0x4242));
        assert_eq!(exchange.handle_datagram(START, &response), Event::Nothing);
        assert_eq!(sent(&mut exchange), empty(Kind::Acknowledgement, 0x4242));
    }

    #[test]
    fn a_response_that_overtakes_its_acknowledgement_counts_as_both() {
        let mut exchange = started(1);
        let request = sent(&mut exchange);
        let response = answer(&request, Kind::NonConfirmable, 0x4242, b"ok");
        assert!(matches!(exchange.handle_datagram(START, &response), Event::Response(_)));
        let alone = empty(Kind::Acknowledgement, id_of(&request));
        assert_eq!(exchange.handle_datagram(START, &alone), Event::Nothing);
        assert!(exchange.is_idle());
    }

    #[test]
    fn an_acknowledged_request_that_is_never_answered_fails() {
        let mut exchange = started(1);
        let alone = empty(Kind::Acknowledgement, id_of(&sent(&mut exchange)));
        assert_eq!(exchange.handle_datagram(START, &alone), Event::Nothing);
        let deadline = exchange.poll_timeout().unwrap();
        assert_eq!(exchange.handle_timeout(deadline - Duration::from_millis(1)), None);
        assert_eq!(exchange.handle_timeout(deadline), Some(Failure::NotAnswered));
    }

    #[test]
    fn a_reset_ends_the_exchange_and_a_strangers_does_not() {
        let mut exchange = started(1);
        let id = id_of(&sent(&mut exchange));
        assert_eq!(exchange.handle_datagram(START, &empty(Kind::Reset, id ^ 1)), Event::Nothing);
        assert!(!exchange.is_idle());
        assert_eq!(exchange.handle_datagram(START, &empty(Kind::Reset, id)), Event::Rejected);
        assert!(exchange.is_idle());
    }

    #[test]
    fn an_answer_to_an_earlier_request_is_not_taken_for_this_ones() {
        let mut exchange = started(5);
        let earlier = sent(&mut exchange);
        exchange.cancel();
        exchange.start(START, 5, Code::POST, &["b"], b"batch").unwrap();
        let late = answer(&earlier, Kind::Confirmable, 0x99, b"old");
        assert_eq!(exchange.handle_datagram(START, &late), Event::Nothing);
        assert_eq!(sent(&mut exchange), empty(Kind::Reset, 0x99));
        assert!(!exchange.is_idle());
    }

    #[test]
    fn what_this_client_does_not_serve_is_reset() {
        let mut exchange = started(1);
        assert!(!sent(&mut exchange).is_empty());
        for datagram in [&empty(Kind::Confirmable, 3)[..], b"\x40\x01\x00\x03"] {
            assert_eq!(exchange.handle_datagram(START, datagram), Event::Nothing);
            assert_eq!(sent(&mut exchange), empty(Kind::Reset, 3));
        }
        assert_eq!(exchange.handle_datagram(START, b"\x40\x20\x00\x03"), Event::Malformed);
        assert_eq!(sent(&mut exchange), empty(Kind::Reset, 3));
    }

    #[test]
    fn a_second_request_waits_for_the_first_and_a_long_one_is_refused() {
        let mut exchange = started(1);
        assert_eq!(exchange.start(START, 2, Code::GET, &["x"], b""), Err(StartError::Busy));
        exchange.cancel();
        assert_eq!(exchange.start(START, 2, Code::GET, &["x"], &[0; 64]), Err(StartError::TooLong));
        assert!(exchange.is_idle());
        assert_eq!(exchange.poll_transmit(), None);
    }

    proptest! {
        #[test]
        fn no_bytes_at_any_time_make_it_panic_or_send_more_than_allowed(
            steps in prop::collection::vec((0..4u8, 0..100_000u64, prop::collection::vec(any::<u8>(), 0..24)), 0..60),
        ) {
            let mut exchange = started(3);
            let (mut now, mut copies) = (START, 0);
            for (step, ms, noise) in steps {
                now += Duration::from_millis(ms);
                let mut datagram = noise;
                if step == 1 && let Some(first) = datagram.first_mut() {
                    *first = 0x40 | *first & 0x3f;
                }
                if step < 2 {
                    let _event = exchange.handle_datagram(now, &datagram);
                } else {
                    let _failure = exchange.handle_timeout(now);
                }
                while let Some(datagram) = exchange.poll_transmit() {
                    copies += usize::from(datagram.len() > 4);
                }
            }
            prop_assert!(copies <= 5);
        }
    }
}
