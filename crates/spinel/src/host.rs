//! The host's side of a radio co-processor: reset it, ask what it is, set it up, then send and receive; and all of that again, for ever,
//! when it falls silent or starts anew.
//!
//! ```text
//!             reset told           all steps answered
//! Resetting ─────────────▶ Setup ─────────────────────▶ Ready      a reset told while Ready: Setup again
//!     ▲                      │ refused, unfit, silent     │ silent
//!     └────── Resting ◀──────┴────────────────────────────┘        the rest doubles until Ready is reached
//! ```
//! One command is under way at a time. A command without an answer is repeated, but for a send: nobody knows whether that frame was on
//! the air. It knows no serial line and no clock: `now` is the time since any start of the caller's choice.

use core::time::Duration;

use heapless::{Deque, Vec};
use tidelog_record::DeviceId;

use crate::frame::{Body, Frame, Status, property};
use crate::hdlc::{self, Decoder};
use crate::setup::{ANSWER_WAIT, Setup, Told};
use crate::stream::{Done, FLAG_BAD_FCS, FLAG_SENT, Received, Transmit};
use crate::{FCS_BYTES, FRAME_BYTES_MAX, RADIO_FRAME_BYTES_MAX, WIRE_BYTES_MAX};

/// Frames that were heard and not yet taken; what comes on top is dropped and counted.
pub const RECEIVED_MAX: usize = 4;
/// How often a command is sent before its co-processor counts as silent.
pub const TRIES_MAX: u8 = 3;
/// How long a send may go without its outcome: more than all its repetitions on a busy channel take.
pub const SEND_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long a ready co-processor may say nothing before it is asked whether it is there.
pub const PROBE_EVERY: Duration = Duration::from_secs(10);
/// The first rest after a failure; each further one is twice as long.
const REST_MIN: Duration = Duration::from_secs(1);
/// The longest rest.
const REST_MAX: Duration = Duration::from_secs(30);
/// How often a setup begins anew at once because another reset is told.
const RESTARTS_MAX: u8 = 3;
/// What a reset is to reset: the stack.
const RESET_STACK: u8 = 2;
/// Back-offs of one send while the channel is busy, as 802.15.4 has it.
const CSMA_BACKOFFS_MAX: u8 = 4;
/// Transactions are numbered 1 to this.
const TID_MAX: u8 = 15;
/// A PSDU with its check sequence, in bytes.
const PSDU_BYTES_MAX: usize = RADIO_FRAME_BYTES_MAX + FCS_BYTES;

/// What the co-processor is set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostConfig {
    /// EUI-64 that it answers to.
    pub eui: DeviceId,
    /// PAN that it answers in.
    pub pan: u16,
    /// Channel, 11 to 26.
    pub channel: u8,
    /// Most repetitions of a frame that nobody acknowledges.
    pub retries_max: u8,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was on the air, and acknowledged if it asked for that.
    Sent,
    /// Nobody acknowledged it.
    NoAck,
    /// The channel was busy.
    ChannelBusy,
    /// The co-processor did not take it.
    Refused(Status),
    /// The co-processor fell silent or was reset: it may have been on the air or not.
    Unknown,
}

/// Why there is no radio for now. The host tries on by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// No answer: unplugged, another baud rate, or no co-processor at all.
    #[error("the radio co-processor does not answer (unplugged? another baud rate?)")]
    Silent,
    /// It started anew by itself.
    #[error("the radio co-processor was reset ({0})")]
    Reset(Status),
    /// It speaks another Spinel.
    #[error(
        "the radio co-processor speaks Spinel {major}.{minor}, and this is for {}",
        crate::PROTOCOL_MAJOR
    )]
    Version {
        /// Its major version.
        major: u32,
        /// Its minor version.
        minor: u32,
    },
    /// It is no radio that hands frames on as they are.
    #[error("the co-processor offers no raw radio: flash it with an RCP firmware")]
    NoRadio,
    /// It refused what it must be set to.
    #[error("the radio co-processor refused property {property:#x} ({status})")]
    Refused {
        /// The property.
        property: u32,
        /// What it said.
        status: Status,
    },
}

/// A frame that was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Without its check sequence.
    pub frame: Vec<u8, RADIO_FRAME_BYTES_MAX>,
    /// Signal strength in dBm.
    pub rssi_dbm: i8,
    /// Link quality, 0 to 255.
    pub lqi: u8,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It is set up and on the air.
    Ready {
        /// The EUI-64 that it was made with.
        hardware: Option<DeviceId>,
    },
    /// It is gone or unfit; the host tries again by itself.
    Lost(Loss),
    /// What became of the frame sent last.
    Done(Outcome),
    /// A frame was heard.
    Heard(Heard),
}

/// Why a frame is not taken for sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no radio now.
    #[error("the radio is not ready")]
    NotReady,
    /// The frame before is under way, or its outcome was not taken.
    #[error("a frame is under way")]
    Busy,
    /// The frame exceeds what a radio carries.
    #[error("a radio frame has at most {RADIO_FRAME_BYTES_MAX} bytes")]
    TooLong,
}

/// Totals since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames heard, dropped ones included.
    pub frames_in: u32,
    /// Frames handed to the co-processor.
    pub frames_out: u32,
    /// Frames that nobody acknowledged.
    pub unacknowledged: u32,
    /// Frames that found the channel busy.
    pub channel_busy: u32,
    /// Frames heard when [`RECEIVED_MAX`] others waited.
    pub overrun: u32,
    /// Frames that the co-processor says it heard damaged, or that are none.
    pub bad_frames: u32,
    /// What was damaged on the line to the co-processor.
    pub line_damage: u32,
    /// Spinel frames that nothing here knows.
    pub unknown: u32,
    /// Commands sent again because no answer came.
    pub repeats: u32,
    /// Times that the radio was lost.
    pub losses: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Resting { until: Duration },
    Resetting,
    Setup(Setup),
    Ready,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Reset,
    Step(Setup),
    Send,
    /// Are you there?
    Probe,
}

/// The command that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Request {
    asked: Asked,
    tid: u8,
    tries: u8,
    /// Until when its answer is waited for; `None`: it is still to be sent.
    until: Option<Duration>,
}

/// The host's side of one co-processor.
///
/// After each [`handle_bytes`](Self::handle_bytes), [`handle_timeout`](Self::handle_timeout) and [`send`](Self::send), put on the line
/// what [`poll_transmit`](Self::poll_transmit) gives, take what [`poll_event`](Self::poll_event) gives, and come back when bytes come
/// or when [`poll_timeout`](Self::poll_timeout) says.
#[derive(Debug)]
pub struct Host {
    config: HostConfig,
    state: State,
    request: Option<Request>,
    last_tid: u8,
    /// How often this setup has begun anew.
    restarts: u8,
    rest: Duration,
    /// When the co-processor last said anything that was understood.
    heard_at: Duration,
    decoder: Decoder,
    told: Told,
    outgoing: Vec<u8, PSDU_BYTES_MAX>,
    outcome: Option<Outcome>,
    news: Option<Result<(), Loss>>,
    received: Deque<Heard, RECEIVED_MAX>,
    counters: Counters,
}

impl Host {
    /// A host that begins with a reset at `now`.
    #[must_use]
    pub fn new(config: HostConfig, now: Duration) -> Self {
        let mut host = Self {
            config,
            state: State::Resetting,
            request: None,
            last_tid: 0,
            restarts: 0,
            rest: REST_MIN,
            heard_at: now,
            decoder: Decoder::new(),
            told: Told::default(),
            outgoing: Vec::new(),
            outcome: None,
            news: None,
            received: Deque::new(),
            counters: Counters::default(),
        };
        host.ask(Asked::Reset);
        host
    }

    /// What the co-processor is set to.
    #[must_use]
    pub fn config(&self) -> &HostConfig {
        &self.config
    }

    /// Totals since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether [`send`](Self::send) takes a frame now.
    #[must_use]
    pub fn can_send(&self) -> bool {
        self.state == State::Ready && !self.is_sending() && self.outcome.is_none()
    }

    fn is_sending(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Takes a frame, without its check sequence, for the air. Its outcome comes as [`Event::Done`].
    ///
    /// # Errors
    /// [`SendError`], and then nothing was taken.
    pub fn send(&mut self, frame: &[u8]) -> Result<(), SendError> {
        if frame.is_empty() || frame.len() > RADIO_FRAME_BYTES_MAX {
            return Err(SendError::TooLong);
        }
        if self.state != State::Ready {
            return Err(SendError::NotReady);
        }
        if !self.can_send() {
            return Err(SendError::Busy);
        }
        let room = [0; FCS_BYTES];
        let taken =
            self.outgoing.extend_from_slice(frame).and_then(|()| self.outgoing.extend_from_slice(&room));
        taken.map_err(|_| SendError::TooLong)?;
        if self.request.is_none() {
            self.ask(Asked::Send);
        }
        Ok(())
    }

    /// Takes bytes from the line, cut as they may be.
    pub fn handle_bytes(&mut self, now: Duration, bytes: &[u8]) {
        // The decoder is lent out while a frame that stands in it is handled.
        let mut decoder = core::mem::take(&mut self.decoder);
        for byte in bytes {
            match decoder.push(*byte) {
                Ok(None) => {}
                Ok(Some(frame)) => match Frame::parse(frame) {
                    Some(frame) => self.handle(now, &frame),
                    None => self.counters.unknown = self.counters.unknown.wrapping_add(1),
                },
                Err(_) => self.counters.line_damage = self.counters.line_damage.wrapping_add(1),
            }
        }
        self.decoder = decoder;
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Duration) {
        if let State::Resting { until } = self.state
            && until <= now
        {
            self.state = State::Resetting;
            self.ask(Asked::Reset);
        }
        if let Some(request) = self.request
            && request.until.is_some_and(|until| until <= now)
        {
            if request.asked == Asked::Send || request.tries >= TRIES_MAX {
                return self.lose(now, Loss::Silent);
            }
            self.counters.repeats = self.counters.repeats.wrapping_add(1);
            self.ask_again(request.asked, request.tries);
        }
        if self.state == State::Ready && self.request.is_none() && self.heard_at + PROBE_EVERY <= now {
            self.ask(Asked::Probe);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        match (self.state, self.request) {
            (State::Resting { until }, _) => Some(until),
            (_, Some(request)) => request.until,
            (State::Ready, None) => Some(self.heard_at + PROBE_EVERY),
            (State::Resetting | State::Setup(_), None) => None,
        }
    }

    /// The next bytes for the line.
    pub fn poll_transmit(&mut self, now: Duration, out: &mut [u8; WIRE_BYTES_MAX]) -> Option<usize> {
        let request = self.request.filter(|request| request.until.is_none())?;
        let mut frame = [0; FRAME_BYTES_MAX];
        // Everything that is written here fits: the longest is a whole radio frame, with room to spare.
        let length = self.write(&request, &mut frame)?;
        let wait = if request.asked == Asked::Send { SEND_WAIT_MAX } else { ANSWER_WAIT };
        if request.asked == Asked::Send {
            self.counters.frames_out = self.counters.frames_out.wrapping_add(1);
        }
        self.request = Some(Request { until: Some(now + wait), ..request });
        hdlc::encode(frame.get(..length)?, out)
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        if let Some(news) = self.news.take() {
            return Some(match news {
                Ok(()) => Event::Ready { hardware: self.told.hardware },
                Err(loss) => Event::Lost(loss),
            });
        }
        if let Some(outcome) = self.outcome.take() {
            return Some(Event::Done(outcome));
        }
        self.received.pop_front().map(Event::Heard)
    }

    fn write(&self, request: &Request, out: &mut [u8]) -> Option<usize> {
        match request.asked {
            Asked::Reset => Frame { tid: 0, body: Body::Reset(Some(RESET_STACK)) }.write(out),
            Asked::Step(setup) => setup.write(request.tid, &self.config, out),
            Asked::Probe => {
                Frame { tid: request.tid, body: Body::Get(property::PROTOCOL_VERSION) }.write(out)
            }
            Asked::Send => {
                let mut value = [0; FRAME_BYTES_MAX];
                let transmit = Transmit {
                    psdu: &self.outgoing,
                    channel: self.config.channel,
                    csma_backoffs_max: CSMA_BACKOFFS_MAX,
                    retries_max: self.config.retries_max,
                    csma: true,
                    header_updated: true,
                    retransmission: false,
                    security_processed: true,
                };
                let length = transmit.write(&mut value)?;
                let body = Body::Set(property::STREAM_RAW, value.get(..length)?);
                Frame { tid: request.tid, body }.write(out)
            }
        }
    }

    fn ask(&mut self, asked: Asked) {
        self.ask_again(asked, 0);
    }

    fn ask_again(&mut self, asked: Asked, tries: u8) {
        // Another number each time, so that a late answer is taken for none.
        self.last_tid = self.last_tid % TID_MAX + 1;
        self.request = Some(Request { asked, tid: self.last_tid, tries: tries + 1, until: None });
    }

    fn handle(&mut self, now: Duration, frame: &Frame<'_>) {
        let Body::Is(property, value) = frame.body else {
            self.counters.unknown = self.counters.unknown.wrapping_add(1);
            return;
        };
        self.heard_at = now;
        if frame.tid == 0 {
            match property {
                property::STREAM_RAW => self.hear(value),
                property::LAST_STATUS => match Done::parse(value) {
                    Some(Done { status, .. }) if status.is_reset() => self.handle_reset(now, status),
                    _ => {}
                },
                // Other things that a co-processor tells unasked are of no use here.
                _ => {}
            }
            return;
        }
        let Some(request) =
            self.request.filter(|request| request.tid == frame.tid && request.until.is_some())
        else {
            return;
        };
        match request.asked {
            // Its answer has no number.
            Asked::Reset => {}
            Asked::Step(setup) => self.handle_step(now, setup, property, value),
            Asked::Probe => self.next_request(),
            Asked::Send if property == property::LAST_STATUS => self.conclude(Done::parse(value)),
            Asked::Send => {}
        }
    }

    /// The co-processor says that it was reset, asked or not.
    fn handle_reset(&mut self, now: Duration, status: Status) {
        match self.state {
            State::Resetting => {
                self.restarts = 0;
                self.begin_setup();
            }
            State::Ready => {
                self.restarts = 0;
                self.lost(Loss::Reset(status));
                self.begin_setup();
            }
            // The first notice may have waited on the line since the co-processor was switched on, and this is the answer to our reset.
            State::Setup(_) if self.restarts < RESTARTS_MAX => {
                self.restarts += 1;
                self.begin_setup();
            }
            // One that is reset again and again is not followed at its own pace.
            State::Setup(_) => self.lose(now, Loss::Reset(status)),
            State::Resting { .. } => {}
        }
    }

    fn begin_setup(&mut self) {
        self.told = Told::default();
        self.state = State::Setup(Setup::START);
        self.ask(Asked::Step(Setup::START));
    }

    fn handle_step(&mut self, now: Duration, setup: Setup, property: u32, value: &[u8]) {
        let answer = match property {
            property::LAST_STATUS => {
                let status = Done::parse(value).map_or(Status::PARSE_ERROR, |done| done.status);
                if status == Status::OK {
                    Ok(())
                } else {
                    Err(Loss::Refused { property: setup.property(), status })
                }
            }
            answered if answered == setup.property() => setup.read(value, &mut self.told),
            // An answer to something else under the same number: the right one may still come.
            _ => return,
        };
        match (answer, setup.next()) {
            (Err(loss), _) => self.lose(now, loss),
            (Ok(()), Some(next)) => {
                self.state = State::Setup(next);
                self.ask(Asked::Step(next));
            }
            (Ok(()), None) => {
                self.state = State::Ready;
                self.rest = REST_MIN;
                self.request = None;
                self.news = Some(Ok(()));
            }
        }
    }

    /// What waits for the end of the command that was under way.
    fn next_request(&mut self) {
        self.request = None;
        if self.is_sending() {
            self.ask(Asked::Send);
        }
    }

    fn conclude(&mut self, done: Option<Done>) {
        let outcome = match done.map(|done| done.status) {
            Some(Status::OK) => Outcome::Sent,
            Some(Status::NO_ACK) => {
                self.counters.unacknowledged = self.counters.unacknowledged.wrapping_add(1);
                Outcome::NoAck
            }
            Some(Status::CCA_FAILURE) => {
                self.counters.channel_busy = self.counters.channel_busy.wrapping_add(1);
                Outcome::ChannelBusy
            }
            Some(status) => Outcome::Refused(status),
            None => Outcome::Unknown,
        };
        self.outgoing.clear();
        self.outcome = Some(outcome);
        self.request = None;
    }

    fn hear(&mut self, value: &[u8]) {
        if self.state != State::Ready {
            return;
        }
        self.counters.frames_in = self.counters.frames_in.wrapping_add(1);
        let received = Received::parse(value)
            .filter(|received| received.error == 0 && received.flags & (FLAG_BAD_FCS | FLAG_SENT) == 0);
        let heard = received.and_then(|received| {
            let (frame, _) = received.psdu.split_last_chunk::<FCS_BYTES>()?;
            let frame = Vec::from_slice(frame).ok().filter(|frame| !frame.is_empty())?;
            Some(Heard { frame, rssi_dbm: received.rssi_dbm, lqi: received.lqi })
        });
        match heard {
            None => self.counters.bad_frames = self.counters.bad_frames.wrapping_add(1),
            Some(heard) => {
                if self.received.push_back(heard).is_err() {
                    self.counters.overrun = self.counters.overrun.wrapping_add(1);
                }
            }
        }
    }

    /// Notes that the radio is gone; a frame under way went nobody knows where.
    fn lost(&mut self, loss: Loss) {
        self.counters.losses = self.counters.losses.wrapping_add(1);
        self.request = None;
        if self.is_sending() {
            self.outgoing.clear();
            self.outcome = Some(Outcome::Unknown);
        }
        self.news = Some(Err(loss));
    }

    /// The same, and rests before the next attempt.
    fn lose(&mut self, now: Duration, loss: Loss) {
        self.lost(loss);
        self.state = State::Resting { until: now + self.rest };
        self.rest = (self.rest * 2).min(REST_MAX);
    }
}
