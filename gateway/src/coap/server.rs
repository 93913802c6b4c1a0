//! What other people's devices are answered: CoAP resources as a pure state machine.
//!
//! | request | answer |
//! |---|---|
//! | `POST /senml`, a pack in SenML (JSON 110, CBOR 112), also in blocks | 2.04 its points are durable here |
//! | | 2.31 the next block, 4.08 not all blocks are here, 4.13 too long |
//! | | 4.00 no SenML, 4.15 another format; what is wrong stands in the payload |
//! | | 5.03 the store refuses for now; Max-Age says for how many seconds |
//! | `GET /.well-known/core` | 2.05 the resources (RFC 6690) |
//!
//! Datagrams, the outcomes of appends, and time go in; datagrams and appends come out. It knows no socket and no store. A message that is
//! repeated is answered as before; a pack that is posted again under another message id is the same points again, if it has times
//! (invariant 8).

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;

use tidelog_lowpan::coap::{Code, Kind, Message, Writer, option};
use tidelog_lowpan::time::Instant;
use tidelog_node::Metrics;
use tidelog_node::senml::{self, Encoding};

use super::block::{Block, PAYLOAD_BYTES_MAX, Taken, Transfers};
use crate::append::Refusal;
use crate::requests::Requests;

/// The `via` of what comes this way, in metrics.
pub(crate) const VIA: &str = "coap";

/// Requests remembered for their repeats.
const EXCHANGES_MAX: usize = 512;

/// Longest answer that is kept for repeats, in bytes; a longer one is made again.
const ANSWER_BYTES_KEPT_MAX: usize = 64;

/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 512;

/// Longest reason in an answer, in bytes.
const REASON_BYTES_MAX: usize = 200;

/// Most appends at a time; a pack beyond it is told to come back.
pub(crate) const APPENDS_MAX: usize = 64;

const SENML: &str = "senml";
const CORE: [&str; 2] = [".well-known", "core"];

/// `application/link-format`.
const LINK_FORMAT: u32 = 40;

/// A pack to be made durable.
#[derive(Debug)]
pub(crate) struct Append {
    /// What the outcome is to be given for.
    pub number: u64,
    /// A record's body.
    pub body: Vec<u8>,
}

/// A request whose answer waits for an append.
#[derive(Debug)]
struct Flight<P> {
    peer: P,
    head: Head,
    points: u64,
}

/// What an answer takes of its request.
#[derive(Clone, Debug)]
struct Head {
    kind: Kind,
    id: u16,
    token: Vec<u8>,
    block: Option<Block>,
}

/// What a request comes to at once.
enum Outcome {
    Done(Code),
    Refused(Code, &'static str, String),
    Unavailable(Refusal),
    Links,
    /// It will be answered when an append is done.
    Later {
        body: Vec<u8>,
        points: u64,
    },
}

/// The server of one door.
pub(crate) struct Server<P> {
    requests: Requests<P, EXCHANGES_MAX, ANSWER_BYTES_KEPT_MAX>,
    /// Resources that the door has beside these, as link format.
    others: &'static str,
    transfers: Transfers<P>,
    flights: HashMap<u64, Flight<P>>,
    numbers: u64,
    appends: VecDeque<Append>,
}

/// Whether a datagram is for this server where the resources of Tidelog's own sensors are, too.
pub(crate) fn is_for_others(datagram: &[u8]) -> bool {
    Message::parse(datagram).is_ok_and(|message| {
        message.code().is_request() && (message.path_is(&[SENML]) || message.path_is(&CORE))
    })
}

impl<P: Copy + Eq + Hash> Server<P> {
    /// A server at a door that has `others` beside its resources. `random` sets the first message id.
    pub fn new(metrics: Arc<Metrics>, others: &'static str, random: u16) -> Self {
        Self {
            requests: Requests::new(metrics, VIA, random),
            others,
            transfers: Transfers::new(),
            flights: HashMap::new(),
            numbers: 0,
            appends: VecDeque::new(),
        }
    }

    /// Appends that have not come to an end.
    pub fn appending(&self) -> usize {
        self.flights.len()
    }

    /// The next answer to send.
    pub fn poll_transmit(&mut self) -> Option<(P, Vec<u8>)> {
        self.requests.answers.pop_front()
    }

    /// The next pack to append; its outcome is owed to [`Self::handle_outcome`].
    pub fn poll_append(&mut self) -> Option<Append> {
        self.appends.pop_front()
    }

    /// Takes a datagram of a peer, whose name is `sender` where a pack names no device. `clock_ms`: Unix time, of points without one.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        clock_ms: i64,
        (peer, sender): (P, &str),
        datagram: &[u8],
    ) {
        let Some(message) = self.requests.admit(now, peer, datagram) else { return };
        let block =
            message.values(option::BLOCK1).next().map(|_| message.uint(option::BLOCK1).and_then(Block::of));
        let head = Head {
            kind: message.kind(),
            id: message.id(),
            token: message.token().to_vec(),
            block: block.flatten(),
        };
        let outcome = match block {
            Some(None) => {
                Outcome::Refused(Code::BAD_REQUEST, "malformed_coap", "bad Block1 option".to_owned())
            }
            _ => self.serve(now, clock_ms, (peer, sender), &message, head.block),
        };
        if let Outcome::Later { body, points } = outcome {
            self.numbers = self.numbers.wrapping_add(1);
            self.flights.insert(self.numbers, Flight { peer, head, points });
            self.appends.push_back(Append { number: self.numbers, body });
            return;
        }
        let resource = if message.path_is(&[SENML]) {
            "/senml"
        } else if message.path_is(&CORE) {
            "/.well-known/core"
        } else {
            "other"
        };
        self.conclude(peer, &head, resource, outcome);
    }

    /// Takes the outcome of an append, and answers its request.
    pub fn handle_outcome(&mut self, number: u64, outcome: Result<(), Refusal>) {
        let Some(Flight { peer, head, points }) = self.flights.remove(&number) else { return };
        let outcome = match outcome {
            Ok(()) => {
                self.requests.metrics.points_in.with_label_values(&[VIA]).inc_by(points);
                Outcome::Done(Code::CHANGED)
            }
            Err(refusal) => Outcome::Unavailable(refusal),
        };
        self.conclude(peer, &head, "/senml", outcome);
    }

    fn serve(
        &mut self,
        now: Instant,
        clock_ms: i64,
        (peer, sender): (P, &str),
        message: &Message<'_>,
        block: Option<Block>,
    ) -> Outcome {
        let refused = |code, reason, text: &str| Outcome::Refused(code, reason, text.to_owned());
        let is_core = message.path_is(&CORE);
        if !is_core && !message.path_is(&[SENML]) {
            return refused(Code::NOT_FOUND, "unknown_resource", "there are /senml and /.well-known/core");
        }
        let understood = [
            option::URI_HOST,
            option::URI_PORT,
            option::URI_PATH,
            option::URI_QUERY,
            option::ACCEPT,
            option::BLOCK1,
        ];
        if let Some(number) = message.critical_beside(&understood) {
            return refused(
                Code::BAD_OPTION,
                "critical_option",
                &format!("option {number} is not understood"),
            );
        }
        if is_core {
            if message.code() != Code::GET {
                return refused(Code::METHOD_NOT_ALLOWED, "method", "GET it");
            }
            return match message.uint(option::ACCEPT) {
                None | Some(LINK_FORMAT) => Outcome::Links,
                Some(_) => refused(Code::NOT_ACCEPTABLE, "content_format", "there is link format (40)"),
            };
        }
        if message.code() != Code::POST {
            return refused(Code::METHOD_NOT_ALLOWED, "method", "POST SenML");
        }
        let format = message.uint(option::CONTENT_FORMAT);
        let Some(encoding) = format.and_then(Encoding::of_content_format) else {
            return refused(
                Code::UNSUPPORTED_FORMAT,
                "content_format",
                "Content-Format is to be 110 (SenML in JSON) or 112 (in CBOR)",
            );
        };
        let whole;
        let pack = match block {
            None => message.payload(),
            Some(block) => match self.transfers.take(now, peer, block, message.payload()) {
                Taken::Whole(payload) => {
                    whole = payload;
                    &whole
                }
                Taken::Continue => return Outcome::Done(Code::CONTINUE),
                Taken::Incomplete => return refused(Code::INCOMPLETE, "incomplete", "begin with block 0"),
                Taken::Malformed => {
                    return refused(Code::BAD_REQUEST, "malformed_coap", "not as long as a block");
                }
                Taken::TooLong => {
                    let text = format!("at most {PAYLOAD_BYTES_MAX} bytes");
                    return Outcome::Refused(Code::TOO_LARGE, "too_long", text);
                }
            },
        };
        if self.flights.len() >= APPENDS_MAX {
            return Outcome::Unavailable(Refusal::Busy);
        }
        let batch = match senml::read(encoding, pack, sender, clock_ms.saturating_mul(1_000_000)) {
            Ok(batch) => batch,
            Err(error) => return Outcome::Refused(Code::BAD_REQUEST, "malformed", error.to_string()),
        };
        let points = batch.points() as u64;
        if points == 0 {
            return Outcome::Done(Code::CHANGED);
        }
        match batch.encode() {
            Ok(body) => Outcome::Later { body, points },
            Err(error) => Outcome::Refused(Code::TOO_LARGE, "too_long", error.to_string()),
        }
    }

    /// Answers a request and keeps the answer for its repeats.
    fn conclude(&mut self, peer: P, head: &Head, resource: &str, outcome: Outcome) {
        let (mut code, mut max_age_s, mut format, mut payload) = (Code::CONTENT, None, None, Vec::new());
        match outcome {
            Outcome::Later { .. } => return,
            Outcome::Done(done) => code = done,
            Outcome::Links => {
                format = Some(LINK_FORMAT);
                payload = self.links().into_bytes();
            }
            Outcome::Refused(refused, reason, text) => {
                self.requests.refuse(reason);
                code = refused;
                // A diagnostic payload is a text (RFC 7252 section 5.5.2).
                payload = text.get(..text.floor_char_boundary(REASON_BYTES_MAX)).unwrap_or_default().into();
            }
            Outcome::Unavailable(refusal) => {
                self.requests.refuse(refusal.reason());
                code = Code::UNAVAILABLE;
                max_age_s = Some(refusal.max_age_s());
            }
        }
        self.requests.count(resource, &code.to_string());
        let fresh_id = self.requests.fresh_id();
        let mut buffer = [0; ANSWER_BYTES_MAX];
        let Some(datagram) = written(&mut buffer, head, (code, fresh_id), (format, max_age_s), &payload)
        else {
            // The bounds leave room for the longest token and answer.
            return self.requests.refuse("answer_too_long");
        };
        self.requests.answer(peer, head.id, datagram);
    }

    fn links(&self) -> String {
        format!("</{SENML}>;rt=\"tidelog.senml\";ct=\"{}\"{}", Encoding::CONTENT_FORMATS, self.others)
    }
}

/// An answer as a datagram: on the acknowledgement of a confirmable request, else a message of its own.
fn written<'b>(
    buffer: &'b mut [u8],
    head: &Head,
    (code, fresh_id): (Code, u16),
    (format, max_age_s): (Option<u32>, Option<u32>),
    payload: &[u8],
) -> Option<&'b [u8]> {
    let (kind, id) = match head.kind {
        Kind::Confirmable => (Kind::Acknowledgement, head.id),
        _ => (Kind::NonConfirmable, fresh_id),
    };
    let options = [
        (option::CONTENT_FORMAT, format),
        (option::MAX_AGE, max_age_s),
        (option::BLOCK1, head.block.map(Block::value)),
    ];
    let mut writer = Writer::new(buffer, kind, code, id, &head.token).ok()?;
    for (number, value) in options {
        if let Some(value) = value {
            writer = writer.uint(number, value).ok()?;
        }
    }
    let length = writer.payload(payload).ok()?;
    buffer.get(..length)
}

#[cfg(test)]
mod tests;
