//! What a sensor is answered: the CoAP resources of a gateway as a pure state machine.
//!
//! | request | answer |
//! |---|---|
//! | `POST /s`, a schema registration | 2.01 it is known now, 2.04 it was known |
//! | `POST /b`, a batch | 2.04 with acknowledged sequence number, time and what to do, once the samples are durable here |
//! | | 4.12 unknown schema: post it to `/s`, then post the batch again |
//! | either | 4.00 malformed, 4.03 another device's, 4.15 a content format that is not spoken |
//! | either | 5.03 the store refuses for now; Max-Age says for how many seconds |
//!
//! Datagrams, the outcomes of appends, and time go in; datagrams and appends come out. It knows no socket and no
//! store. One batch of a device is appended at a time, of different devices many at once; what comes from the same
//! device meanwhile waits, so that nothing is appended twice. A batch of which everything is held is acknowledged at
//! once; one that overlaps what is held is appended without the part held (invariants 1, 2, 16).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tidelog_lowpan::Peer;
use tidelog_lowpan::coap::{Code, Message, Writer, option};
use tidelog_lowpan::time::Instant;
use tidelog_node::Metrics;
use tidelog_record::uplink::{Answer, Command, Registration, Uplink, UplinkError};
use tidelog_record::{BatchError, DeviceId, Origin};

use super::devices::{Battery, Devices};
use crate::append::Refusal;
use crate::requests::Requests;

/// The `via` of everything that comes over the radio, in metrics.
pub const VIA: &str = "radio";

/// Requests remembered for their repeats. A sensor has one outstanding, so this many sensors can repeat themselves.
const EXCHANGES_MAX: usize = 2048;

/// Longest answer, in bytes: header, token, Max-Age, marker and [`Answer`].
const ANSWER_BYTES_MAX: usize = 72;

/// Most requests of one device that wait for its append.
const WAITING_MAX: usize = 2;

/// Most appends at a time; a batch beyond it is told to come back.
pub const APPENDS_MAX: usize = 1024;

/// Content format `application/octet-stream`: the format of Tidelog's own has no number of its own.
const OCTET_STREAM: u32 = 42;

/// The last sample of the unbroken run from a sequence number on that is durable here, by device, epoch of its log and
/// that number; `None` if that sample itself is not.
///
/// What is held are ranges and not one mark, because a sensor may have given samples in between to another gateway: this
/// node acknowledges only what it holds itself (invariant 2). An answer that forgets is harmless: the samples are
/// appended again, and stay one point each (invariant 8).
pub type HeldUpto = Box<dyn Fn(DeviceId, u32, u64) -> Option<u64> + Send>;

/// What a device is to be told to do at a moment, Unix milliseconds. The same command is given until the log says that it was begun.
pub type NextCommand = Box<dyn Fn(DeviceId, i64) -> Option<Command> + Send>;

/// Is told that a device was served, and says to which gateway it had better send from now on.
pub type Served = Box<dyn Fn(DeviceId) -> Option<DeviceId> + Send>;

/// Samples to be made durable.
#[derive(Debug)]
pub struct Append {
    /// The device to give the outcome for.
    pub device: DeviceId,
    /// A record's body.
    pub body: Vec<u8>,
}

/// A request that can be answered later.
#[derive(Debug)]
struct Pending {
    peer: Peer,
    datagram: Vec<u8>,
}

#[derive(Debug)]
struct Flight {
    request: Pending,
    /// First sample of the batch as it was sent.
    first_seq: u64,
    /// What is being appended of it: at least one sample.
    origin: Origin,
    points: u64,
    waiting: Vec<Pending>,
}

/// The server of one border.
pub struct Server {
    requests: Requests<Peer, EXCHANGES_MAX, ANSWER_BYTES_MAX>,
    devices: Devices,
    held_upto: HeldUpto,
    next_command: NextCommand,
    served: Served,
    flights: HashMap<DeviceId, Flight>,
    appends: VecDeque<Append>,
}

/// What a request comes to at once.
enum Outcome {
    Done(Code, Option<Answer>),
    Unavailable(Refusal),
    /// It will be answered when an append is done.
    Later,
}

impl Outcome {
    fn only(code: Code) -> Self {
        Self::Done(code, None)
    }
}

impl Server {
    /// A server over what the log holds. `random` sets the first message id.
    #[must_use]
    pub fn new(
        held_upto: HeldUpto,
        next_command: NextCommand,
        served: Served,
        metrics: Arc<Metrics>,
        random: u16,
    ) -> Self {
        Self {
            requests: Requests::new(metrics, VIA, random),
            devices: Devices::default(),
            held_upto,
            next_command,
            served,
            flights: HashMap::new(),
            appends: VecDeque::new(),
        }
    }

    /// The version of a device's program and its battery, as far as it told them.
    #[must_use]
    pub fn told(&self, device: DeviceId) -> (Option<&str>, Option<&Battery>) {
        self.devices.told(device)
    }

    /// What was last acknowledged to a device: epoch and sequence number.
    #[must_use]
    pub fn acknowledged(&self, device: DeviceId) -> Option<(u32, u64)> {
        self.devices.acknowledged(device)
    }

    /// Appends that have not come to an end.
    #[must_use]
    pub fn appending(&self) -> usize {
        self.flights.len()
    }

    /// The next answer to send.
    pub fn poll_transmit(&mut self) -> Option<(Peer, Vec<u8>)> {
        self.requests.answers.pop_front()
    }

    /// The next batch to append; its outcome is owed to [`Self::handle_outcome`].
    pub fn poll_append(&mut self) -> Option<Append> {
        self.appends.pop_front()
    }

    /// Takes a datagram. `clock_ms`: Unix time, for the sensor's clock.
    pub fn handle_datagram(&mut self, now: Instant, clock_ms: i64, peer: Peer, datagram: &[u8]) {
        if let Some(message) = self.requests.admit(now, peer, datagram) {
            self.handle_request(clock_ms, peer, &message, datagram);
        }
    }

    /// Takes the outcome of an append, answers the batch, and goes on with what waited for it.
    pub fn handle_outcome(&mut self, clock_ms: i64, device: DeviceId, outcome: Result<(), Refusal>) {
        let Some(flight) = self.flights.remove(&device) else { return };
        let outcome = match outcome {
            Ok(()) => {
                self.requests.metrics.points_in.with_label_values(&[VIA]).inc_by(flight.points);
                let stored =
                    flight.origin.first_seq.saturating_add(u64::from(flight.origin.count).saturating_sub(1));
                self.acknowledgement(clock_ms, &flight.origin, flight.first_seq, stored)
            }
            Err(refusal) => Outcome::Unavailable(refusal),
        };
        self.conclude(&flight.request, outcome);
        for waiting in flight.waiting {
            // It was a message when it was taken in.
            if let Ok(message) = Message::parse(&waiting.datagram) {
                self.handle_request(clock_ms, waiting.peer, &message, &waiting.datagram);
            }
        }
    }

    fn handle_request(&mut self, clock_ms: i64, peer: Peer, message: &Message<'_>, datagram: &[u8]) {
        let request = Pending { peer, datagram: datagram.to_vec() };
        let outcome = self.serve(clock_ms, &request, message);
        self.conclude(&request, outcome);
    }

    fn serve(&mut self, clock_ms: i64, request: &Pending, message: &Message<'_>) -> Outcome {
        let batch = message.path_is(&["b"]);
        if !batch && !message.path_is(&["s"]) {
            self.requests.refuse("unknown_resource");
            return Outcome::only(Code::NOT_FOUND);
        }
        if message.code() != Code::POST {
            self.requests.refuse("method");
            return Outcome::only(Code::METHOD_NOT_ALLOWED);
        }
        let understood = [option::URI_HOST, option::URI_PORT, option::URI_PATH];
        if message.critical_beside(&understood).is_some() {
            self.requests.refuse("critical_option");
            return Outcome::only(Code::BAD_OPTION);
        }
        if message.values(option::CONTENT_FORMAT).next().is_some()
            && message.uint(option::CONTENT_FORMAT) != Some(OCTET_STREAM)
        {
            self.requests.refuse("content_format");
            return Outcome::only(Code::UNSUPPORTED_FORMAT);
        }
        if batch {
            self.serve_batch(clock_ms, request, message.payload())
        } else {
            self.serve_schema(request.peer.device, message.payload())
        }
    }

    fn serve_schema(&mut self, device: DeviceId, payload: &[u8]) -> Outcome {
        match Registration::decode(payload) {
            Err(error) => self.refuse_uplink(&error),
            Ok(registration) if registration.device != device => self.refuse_foreign(),
            Ok(registration) => {
                let new = self.devices.register(device, registration.schema, registration.firmware);
                Outcome::only(if new { Code::CREATED } else { Code::CHANGED })
            }
        }
    }

    fn serve_batch(&mut self, clock_ms: i64, request: &Pending, payload: &[u8]) -> Outcome {
        let device = request.peer.device;
        let uplink = match Uplink::parse(payload) {
            Ok(uplink) => uplink,
            Err(error) => return self.refuse_uplink(&error),
        };
        let head = *uplink.head();
        if head.first_seq == 0 {
            // Sequence numbers start at 1; 0 stands for "none" in answers.
            return self.refuse_uplink(&UplinkError::Malformed);
        }
        if head.device != device {
            return self.refuse_foreign();
        }
        if let Some(flight) = self.flights.get_mut(&device) {
            if flight.waiting.len() >= WAITING_MAX {
                self.requests.refuse("device_busy");
                return Outcome::Unavailable(Refusal::Busy);
            }
            flight.waiting.push(Pending { peer: request.peer, datagram: request.datagram.clone() });
            return Outcome::Later;
        }
        let Some(schema) = self.devices.schema(device, head.schema) else {
            self.requests.refuse("unknown_schema");
            return Outcome::only(Code::PRECONDITION_FAILED);
        };
        let known = (self.held_upto)(device, head.epoch, head.first_seq).unwrap_or_default();
        let batch = match uplink.batch(schema, known, clock_ms) {
            Ok(batch) => batch,
            Err(error) => return self.refuse_uplink(&error),
        };
        if let Some(battery) = Battery::in_batch(&batch) {
            self.devices.note_battery(device, battery);
        }
        let points = batch.points() as u64;
        let body = match batch.encode() {
            Ok(body) => body,
            Err(
                BatchError::TooLong { .. }
                | BatchError::TooManyPoints { .. }
                | BatchError::NamesTooLong { .. },
            ) => {
                self.requests.refuse("too_long");
                return Outcome::only(Code::TOO_LARGE);
            }
            Err(BatchError::Malformed | BatchError::Series(_)) => {
                self.requests.refuse("malformed");
                return Outcome::only(Code::BAD_REQUEST);
            }
        };
        let Some(origin) = batch.origin.filter(|origin| origin.count > 0) else {
            self.requests.metrics.repeats.with_label_values(&[VIA]).inc();
            let origin = Origin { device, epoch: head.epoch, first_seq: head.first_seq, count: 0 };
            return self.acknowledgement(clock_ms, &origin, head.first_seq, 0);
        };
        if self.flights.len() >= APPENDS_MAX {
            self.requests.refuse("too_many_appends");
            return Outcome::Unavailable(Refusal::Busy);
        }
        let request = Pending { peer: request.peer, datagram: request.datagram.clone() };
        let first_seq = head.first_seq;
        self.flights.insert(device, Flight { request, first_seq, origin, points, waiting: Vec::new() });
        self.appends.push_back(Append { device, body });
        Outcome::Later
    }

    /// 2.04: everything from the batch's first sample up to this one is durable here, at least up to what was `stored`
    /// just now. A batch without samples asks for the time, and acknowledges what is held before it.
    fn acknowledgement(&mut self, clock_ms: i64, origin: &Origin, first_seq: u64, stored: u64) -> Outcome {
        let Origin { device, epoch, .. } = *origin;
        let upto = |seq| (self.held_upto)(device, epoch, seq);
        let held = upto(first_seq).or_else(|| upto(first_seq.checked_sub(1)?)).unwrap_or_default();
        let acked_seq = held.max(stored);
        self.devices.acknowledge(device, epoch, acked_seq);
        let mut answer = Answer::new(acked_seq, clock_ms);
        answer.command = (self.next_command)(device, clock_ms);
        if answer.command.is_some() {
            // One thing at a time: the answer stays within a frame, and the device's word comes here first.
            self.requests.metrics.commands_handed.inc();
        } else {
            answer.advice = (self.served)(device);
        }
        Outcome::Done(Code::CHANGED, Some(answer))
    }

    fn refuse_uplink(&self, error: &UplinkError) -> Outcome {
        self.requests.refuse(match error {
            UplinkError::Version(_) => "version",
            UplinkError::Malformed | UplinkError::OtherSchema(_) => "malformed",
            UplinkError::Timestamp { .. } => "timestamp",
            UplinkError::Schema(_) => "bad_schema",
        });
        Outcome::only(Code::BAD_REQUEST)
    }

    fn refuse_foreign(&self) -> Outcome {
        self.requests.refuse("foreign_device");
        Outcome::only(Code::FORBIDDEN)
    }

    /// Answers a request and keeps the answer for its repeats.
    fn conclude(&mut self, request: &Pending, outcome: Outcome) {
        // It was a message when it was taken in.
        let Ok(message) = Message::parse(&request.datagram) else { return };
        let (code, max_age_s, answer) = match outcome {
            Outcome::Later => return,
            Outcome::Done(code, answer) => (code, None, answer),
            Outcome::Unavailable(refusal) => {
                self.requests.refuse(refusal.reason());
                (Code::UNAVAILABLE, Some(refusal.max_age_s()), None)
            }
        };
        let resource = if message.path_is(&["b"]) {
            "/b"
        } else if message.path_is(&["s"]) {
            "/s"
        } else {
            "other"
        };
        self.requests.count(resource, &code.to_string());
        let fresh_id = self.requests.fresh_id();
        let mut buffer = [0; ANSWER_BYTES_MAX];
        let mut payload = [0; Answer::BYTES_MAX];
        let length = answer.and_then(|answer| answer.encode(&mut payload).ok()).unwrap_or_default();
        let payload = payload.get(..length).unwrap_or_default();
        let written = Writer::answering(&mut buffer, &message, code, fresh_id)
            .and_then(|writer| match max_age_s {
                Some(seconds) => writer.uint(option::MAX_AGE, seconds),
                None => Ok(writer),
            })
            .and_then(|writer| writer.payload(payload));
        let Some(datagram) = written.ok().and_then(|length| buffer.get(..length)) else {
            // The bound above leaves room for the longest token and answer.
            return self.requests.refuse("answer_too_long");
        };
        self.requests.answer(request.peer, message.id(), datagram);
    }
}

#[cfg(test)]
mod tests;
