//! What each CoAP server of the gateway does alike with a request before it serves it and with its answer after: tells requests from what
//! is none, answers repeats as before, keeps answers for them, counts. What is asked for is not known here.

use std::collections::VecDeque;
use std::sync::Arc;

use tidelog_lowpan::coap::{Admission, Exchanges, Kind, Message, ParseError, empty};
use tidelog_lowpan::time::Instant;
use tidelog_node::Metrics;

/// The requests of one server: `N` are remembered for their repeats, with answers of up to `ANSWER_BYTES`.
pub(crate) struct Requests<P, const N: usize, const ANSWER_BYTES: usize> {
    pub metrics: Arc<Metrics>,
    via: &'static str,
    exchanges: Box<Exchanges<P, N, ANSWER_BYTES>>,
    /// What is to be sent, in order.
    pub answers: VecDeque<(P, Vec<u8>)>,
    message_id: u16,
}

impl<P: Copy + Eq, const N: usize, const ANSWER_BYTES: usize> Requests<P, N, ANSWER_BYTES> {
    /// None so far. `via` names the server in metrics, `random` sets the first message id.
    pub fn new(metrics: Arc<Metrics>, via: &'static str, random: u16) -> Self {
        Self { metrics, via, exchanges: Box::default(), answers: VecDeque::new(), message_id: random }
    }

    /// The request in a datagram, if it is one that has to be served.
    pub fn admit<'d>(&mut self, now: Instant, peer: P, datagram: &'d [u8]) -> Option<Message<'d>> {
        let message = match Message::parse(datagram) {
            Ok(message) => message,
            Err(ParseError::NotCoap) => {
                self.refuse("not_coap");
                return None;
            }
            Err(ParseError::Format { kind, id, .. }) => {
                self.reset(peer, kind, id);
                self.refuse("malformed_coap");
                return None;
            }
        };
        if !message.code().is_request() || !matches!(message.kind(), Kind::Confirmable | Kind::NonConfirmable)
        {
            // A ping, or an answer to nothing: these servers never ask (RFC 7252 section 4.2).
            self.reset(peer, message.kind(), message.id());
            self.refuse("not_a_request");
            return None;
        }
        match self.exchanges.admit(now, peer, message.id()) {
            Admission::New => return Some(message),
            // The answer will come when an append is done; until then the device repeats itself.
            Admission::InProgress => self.count("repeat", "none yet"),
            Admission::Answered(answer) => {
                self.answers.push_back((peer, answer.to_vec()));
                self.count("repeat", "as before");
            }
        }
        None
    }

    fn reset(&mut self, peer: P, kind: Kind, id: u16) {
        if kind == Kind::Confirmable {
            self.answers.push_back((peer, empty(Kind::Reset, id).to_vec()));
        }
    }

    /// A message id for an answer that is a message of its own.
    pub fn fresh_id(&mut self) -> u16 {
        self.message_id = self.message_id.wrapping_add(1);
        self.message_id
    }

    /// Sends the answer to request `id`, and keeps it for the repeats.
    pub fn answer(&mut self, peer: P, id: u16, datagram: &[u8]) {
        if let Err(reason) = self.exchanges.answer(peer, id, datagram) {
            // A repeat is done again, and is recognised by what it brings.
            tracing::debug!(%reason, "an answer was not kept for repeats");
        }
        self.answers.push_back((peer, datagram.to_vec()));
    }

    /// Counts an answer.
    pub fn count(&self, resource: &str, code: &str) {
        self.metrics.coap_requests.with_label_values(&[resource, code]).inc();
    }

    /// Counts a refusal.
    pub fn refuse(&self, reason: &str) {
        self.metrics.refused.with_label_values(&[self.via, reason]).inc();
    }
}
