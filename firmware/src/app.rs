//! The sensor's life as one state machine: sample when due, post what waits, act on the answer, move when the gateway
//! is silent. One request at a time; everything that must outlive a power cut is in the flash log.
//!
//! What an answer's command becomes is decided in [`commands`](crate::commands).

use embedded_storage::nor_flash::NorFlash;
use tidelog_flashlog::{Error, FlashLog};
use tidelog_lowpan::coap::{Code, Event, Exchange, Message, option};
use tidelog_lowpan::time::{Duration, Instant};
use tidelog_lowpan::{COAP_PORT, FRAME_BUFFER_BYTES, Peer, Quality, SensorEndpoint};
use tidelog_record::DeviceId;
use tidelog_record::uplink::{Answer, SAMPLE_BYTES_MAX, encode_registration};

use crate::commands::{Commands, Heard, append};
use crate::config::{AppConfig, COAP_BYTES, Kind, POST_BYTES_MAX, VERSION, WhenFull};
use crate::outbox::{prepare, prepare_empty};
use crate::sampler::{Moment, Sampler};

/// Samples taken in one poll at most, so that frames are never kept waiting for long.
const SAMPLES_PER_POLL_MAX: usize = 32;
/// The longest that a gateway can ask to be left alone, in seconds.
const MAX_AGE_S_MAX: u32 = 3600;
/// Largest datagram that the endpoint hands up.
const DATAGRAM_BYTES: usize = SensorEndpoint::PAYLOAD_BYTES_MAX;

/// What was asked of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Nothing,
    Batch(Kind),
    /// An empty batch, for the time in its answer.
    Time,
    Schema,
}

/// Totals since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppCounters {
    /// Samples taken and stored.
    pub samples: u64,
    /// Batches posted, repeats not counted.
    pub batches: u64,
    /// Answers that acknowledged something.
    pub answers: u64,
    /// Schemas posted.
    pub registrations: u64,
    /// Requests refused by a gateway, or answered with nonsense.
    pub refused: u64,
    /// Requests without any answer.
    pub silences: u64,
    /// Moves to another gateway.
    pub moves: u64,
    /// Commands begun.
    pub commands: u64,
}

/// A sensor: `F` is its flash, `S` what it senses with.
///
/// After each call of [`handle_frame`](Self::handle_frame) call [`poll`](Self::poll); after each `poll` put on the air what
/// [`poll_transmit`](Self::poll_transmit) gives until it gives nothing, and come back when a frame is heard or when `poll` said.
#[derive(Debug)]
pub struct App<'a, F, S> {
    config: AppConfig<'a>,
    endpoint: SensorEndpoint,
    exchange: Exchange<{ POST_BYTES_MAX + COAP_BYTES }>,
    log: FlashLog<F>,
    sampler: S,
    random: u64,
    gateway: DeviceId,
    /// Where it goes when the gateway is silent.
    other: Option<DeviceId>,
    /// No advice to go elsewhere is taken before this moment.
    advice_after: Instant,
    silences: u8,
    asked: Asked,
    asked_at: Instant,
    /// Of what a gateway does not know the schema.
    schema_due: Option<Kind>,
    /// The gateway took the schema, and has acknowledged nothing since.
    schema_taken: bool,
    /// No request before this moment.
    rest_until: Instant,
    /// Since when a sample waits to be sent that nobody was sent yet.
    waiting_since: Option<Instant>,
    /// The head when it was last found that the batch is not full and may wait.
    considered: u64,
    /// Unix milliseconds at the board clock's zero.
    clock_ms: Option<i64>,
    commands: Commands,
    counters: AppCounters,
}

impl<'a, F: NorFlash, S: Sampler> App<'a, F, S> {
    /// A sensor that has just started. `entropy` should differ after each start.
    pub fn new(
        config: AppConfig<'a>,
        mut endpoint: SensorEndpoint,
        log: FlashLog<F>,
        sampler: S,
        entropy: u64,
    ) -> Self {
        let mut random = entropy;
        endpoint.resume_counters(log.reserved());
        let exchange = Exchange::new(config.transmission, draw(&mut random));
        Self {
            config,
            endpoint,
            exchange,
            log,
            sampler,
            random,
            gateway: config.gateways.primary,
            other: config.gateways.backup,
            advice_after: Instant::ZERO,
            silences: 0,
            asked: Asked::Nothing,
            asked_at: Instant::ZERO,
            schema_due: None,
            schema_taken: false,
            rest_until: Instant::ZERO,
            waiting_since: None,
            considered: 0,
            clock_ms: None,
            commands: Commands::new(config.events),
            counters: AppCounters::default(),
        }
    }

    /// The flash log.
    pub fn log(&self) -> &FlashLog<F> {
        &self.log
    }

    /// The flash itself.
    pub fn flash_mut(&mut self) -> &mut F {
        self.log.flash_mut()
    }

    /// What it senses with.
    pub fn sampler_mut(&mut self) -> &mut S {
        &mut self.sampler
    }

    /// The radio side.
    pub fn endpoint(&self) -> &SensorEndpoint {
        &self.endpoint
    }

    /// The gateway it sends to now.
    pub fn gateway(&self) -> DeviceId {
        self.gateway
    }

    /// Totals since the start.
    pub fn counters(&self) -> &AppCounters {
        &self.counters
    }

    /// Whether a command asks for the board to be started anew, now. Everything that must outlive it is in the flash.
    #[must_use]
    pub fn reboot_due(&self, now: Instant) -> bool {
        self.commands.reboot_due(now, self.log.acknowledged())
    }

    /// Gives the flash back, as it is.
    pub fn into_flash(self) -> F {
        self.log.into_flash()
    }

    /// Takes a frame that was heard, without its check sequence. Call [`poll`](Self::poll) next.
    pub fn handle_frame(&mut self, now: Instant, frame: &[u8], quality: Quality) {
        self.endpoint.handle_frame(now, frame, quality);
    }

    /// The next frame to put on the air, without check sequence.
    pub fn poll_transmit(&mut self, now: Instant, buffer: &mut [u8; FRAME_BUFFER_BYTES]) -> Option<usize> {
        self.endpoint.poll_transmit(now, buffer)
    }

    /// Does everything that is due and says when to be called next; `None`: not before a frame is heard.
    ///
    /// # Errors
    /// The flash failed: start again from [`FlashLog::open`]. Nothing that is stored is lost by that.
    pub fn poll(&mut self, now: Instant) -> Result<Option<Instant>, Error<F::Error>> {
        self.commands.resume(&mut self.log, &mut self.sampler, now)?;
        self.endpoint.handle_timeout(now);
        self.take_datagrams(now)?;
        let unix_ms = self.unix_ms(now);
        self.commands.tell(&mut self.log, self.config.when_full, unix_ms)?;
        if self.exchange.handle_timeout(now).is_some() {
            self.heard_nothing(now);
        }
        let sampling = self.take_samples(now)?;
        let posting = self.ask(now)?;
        let peer = Peer { device: self.gateway, port: COAP_PORT };
        while let Some(datagram) = self.exchange.poll_transmit() {
            if self.endpoint.send(now, peer, datagram).is_err() {
                // As good as lost on the air: the next repeat makes up for it.
                break;
            }
        }
        if let Some(upto) = self.endpoint.counter_reserve_due() {
            // Durable before the first of them is used: a frame counter used twice gives the encryption away.
            self.log.reserve(upto)?;
            self.endpoint.counters_reserved(upto);
        }
        let reboot = self.commands.reboot_at().filter(|at| *at > now);
        let due = [sampling, posting, reboot, self.exchange.poll_timeout(), self.endpoint.poll_timeout()];
        Ok(due.into_iter().flatten().min())
    }

    fn take_datagrams(&mut self, now: Instant) -> Result<(), Error<F::Error>> {
        let mut datagram = [0u8; DATAGRAM_BYTES];
        while let Some((peer, length)) = self.endpoint.receive(&mut datagram) {
            if peer != (Peer { device: self.gateway, port: COAP_PORT }) {
                continue;
            }
            match self.exchange.handle_datagram(now, datagram.get(..length).unwrap_or_default()) {
                Event::Nothing | Event::Malformed => {}
                Event::Rejected => self.refused(now, self.config.backoff),
                Event::Response(message) => self.take_response(now, &message)?,
            }
        }
        Ok(())
    }

    fn take_response(&mut self, now: Instant, message: &Message<'_>) -> Result<(), Error<F::Error>> {
        let silences = core::mem::take(&mut self.silences);
        match (core::mem::replace(&mut self.asked, Asked::Nothing), message.code()) {
            (Asked::Batch(_), code) if code.is_success() => {
                let before = self.log.acknowledged();
                match Answer::decode(message.payload()) {
                    Ok(answer) if answer.acked_seq > before && answer.acked_seq <= self.log.head() => {
                        self.log.acknowledge(answer.acked_seq)?;
                        self.counters.answers += 1;
                        (self.considered, self.waiting_since) = (0, None);
                        self.heed(now, &answer)?;
                    }
                    // Nothing was gained by asking: not again at once.
                    _ => self.refused(now, self.config.backoff),
                }
            }
            (Asked::Time, code) if code.is_success() => match Answer::decode(message.payload()) {
                Ok(answer) => self.heed(now, &answer)?,
                Err(_) => self.refused(now, self.config.backoff),
            },
            (asked @ (Asked::Batch(_) | Asked::Time), Code::PRECONDITION_FAILED) => {
                self.schema_due = Some(if let Asked::Batch(kind) = asked { kind } else { Kind::Reading });
                if core::mem::take(&mut self.schema_taken) {
                    // It took the schema and does not know it: not again at once.
                    self.refused(now, self.config.backoff);
                }
            }
            (Asked::Schema, code) if code.is_success() => {
                (self.schema_due, self.schema_taken) = (None, true);
            }
            _ => {
                let asked_for = message.uint(option::MAX_AGE).map(|seconds| seconds.min(MAX_AGE_S_MAX));
                let rest = asked_for.map_or(self.config.backoff, |s| Duration::from_secs(u64::from(s)));
                self.silences = silences;
                // One that wants to be left alone for long is as good as silent.
                let moved = rest > self.config.backoff && self.disappointed(now);
                self.refused(now, if moved { Duration::ZERO } else { rest });
            }
        }
        Ok(())
    }

    /// The time, and what is to be done.
    fn heed(&mut self, now: Instant, answer: &Answer) -> Result<(), Error<F::Error>> {
        if self.clock_ms.replace(answer.time_ms.saturating_sub(now.total_millis())).is_none() {
            self.sampler.time_is_known();
        }
        self.schema_taken = false;
        self.commands.tell(&mut self.log, self.config.when_full, Some(answer.time_ms))?;
        let since_asked = now.total_millis().saturating_sub(self.asked_at.total_millis());
        let latest_ms = answer.time_ms.saturating_add(since_asked);
        let heard = Heard { now, unix_ms: answer.time_ms, latest_ms };
        let taken =
            self.commands.take(&mut self.log, &mut self.sampler, &self.config, heard, answer.command)?;
        self.counters.commands += u64::from(taken.begun);
        self.counters.samples += u64::from(taken.read);
        if let Some(advised) = answer.advice.filter(|advised| *advised != self.gateway)
            && now >= self.advice_after
        {
            self.move_to(now, advised);
        }
        Ok(())
    }

    fn unix_ms(&self, now: Instant) -> Option<i64> {
        self.clock_ms.map(|zero| zero.saturating_add(now.total_millis()))
    }

    fn refused(&mut self, now: Instant, rest: Duration) {
        self.counters.refused += 1;
        self.asked = Asked::Nothing;
        self.rest_until = now + rest;
    }

    fn heard_nothing(&mut self, now: Instant) {
        self.counters.silences += 1;
        self.asked = Asked::Nothing;
        self.rest_until = now;
        self.disappointed(now);
    }

    /// One more reason to go elsewhere; whether it did.
    fn disappointed(&mut self, now: Instant) -> bool {
        self.silences = self.silences.saturating_add(1);
        let other = self.other.filter(|_| self.silences >= self.config.silences_max);
        if let Some(other) = other {
            self.move_to(now, other);
        }
        other.is_some()
    }

    /// Sends to another gateway from now on, and back to this one if that is silent.
    fn move_to(&mut self, now: Instant, gateway: DeviceId) {
        self.other = Some(core::mem::replace(&mut self.gateway, gateway));
        self.advice_after = now + self.config.advice_rest;
        self.silences = 0;
        self.counters.moves += 1;
    }

    /// Takes the samples that are due; when the next one is.
    fn take_samples(&mut self, now: Instant) -> Result<Option<Instant>, Error<F::Error>> {
        for _ in 0..SAMPLES_PER_POLL_MAX {
            let Some(due) = self.sampler.due() else { return Ok(None) };
            if due > now {
                return Ok(Some(due));
            }
            if self.config.when_full == WhenFull::Wait && !self.log.fits(SAMPLE_BYTES_MAX) {
                // An acknowledgement makes room, and that comes by a frame.
                return Ok(None);
            }
            let moment = Moment { now, unix_ms: self.unix_ms(now), seq: self.log.head() + 1 };
            let Some(sample) = self.sampler.sample(moment) else {
                continue;
            };
            append(&mut self.log, &self.config.schema, &sample)?;
            self.counters.samples += 1;
            self.waiting_since.get_or_insert(now);
        }
        Ok(Some(now))
    }

    /// Begins the next request if there is something to ask and nothing speaks against it; when to look again.
    fn ask(&mut self, now: Instant) -> Result<Option<Instant>, Error<F::Error>> {
        if !self.exchange.is_idle() {
            return Ok(None);
        }
        let nothing_waits = self.log.head() == self.log.acknowledged();
        let needs_time = self.clock_ms.is_none() && (self.sampler.needs_time() || self.commands.need_time());
        if nothing_waits && !needs_time {
            self.waiting_since = None;
            return Ok(None);
        }
        if now < self.rest_until {
            return Ok(Some(self.rest_until));
        }
        let mut bytes = [0u8; POST_BYTES_MAX];
        let device = self.endpoint.config().eui;
        if let Some(kind) = self.schema_due {
            let schema = self.config.schema_of(kind);
            if let Ok(length) = encode_registration(&mut bytes, device, &schema, VERSION) {
                self.counters.registrations += 1;
                self.start(now, Asked::Schema, "s", bytes.get(..length).unwrap_or_default());
            }
            return Ok(None);
        }
        if nothing_waits {
            if let Some(length) = prepare_empty(&self.log, self.config.schema, device, &mut bytes) {
                self.start(now, Asked::Time, "b", bytes.get(..length).unwrap_or_default());
            }
            return Ok(None);
        }
        let send_at = *self.waiting_since.get_or_insert(now) + self.config.linger;
        if now < send_at && self.log.head() == self.considered {
            return Ok(Some(send_at));
        }
        let prepared = prepare(&mut self.log, &self.config, device, &mut bytes)?;
        let Some(batch) = prepared else { return Ok(None) };
        // Someone waits for a word about a command.
        if !batch.full && batch.kind == Kind::Reading && now < send_at {
            self.considered = self.log.head();
            return Ok(Some(send_at));
        }
        self.counters.batches += 1;
        self.start(now, Asked::Batch(batch.kind), "b", bytes.get(..batch.length).unwrap_or_default());
        Ok(None)
    }

    fn start(&mut self, now: Instant, asked: Asked, path: &str, payload: &[u8]) {
        let random = draw(&mut self.random);
        // The exchange is idle and its buffer holds any post, so this cannot be refused; if it were, nothing was asked.
        if self.exchange.start(now, random, Code::POST, &[path], payload).is_ok() {
            (self.asked, self.asked_at) = (asked, now);
        }
    }
}

/// SplitMix64, its upper half.
fn draw(state: &mut u64) -> u32 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let [.., a, b, c, d] = (z ^ (z >> 31)).to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
