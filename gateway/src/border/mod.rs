//! The border between the air and the log: one task that owns the radio, the 6LoWPAN endpoint and the CoAP
//! server, and moves what each of them gives to the next.
//!
//! ```text
//! radio ─frames▶ endpoint ─UDP─▶ server ─append─▶ store        (the store answers through a channel)
//!       ◀──────          ◀─────        ◀─durable─
//! ```
//! A radio of the kernel's gives datagrams at once, and the endpoint has nothing to do.
//! Every decision is in the parts, which know no clock and no socket; this module has the clock and decides nothing
//! but the bounds between them. A sensor's batch is acknowledged only when the store says that it is durable.

mod air;
mod capture;
mod devices;
mod kernel;
mod line;
mod radio;
mod rates;
mod report;
mod reservation;
mod serial;
mod server;
mod spinel;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tidelog_lowpan::time::Instant;
use tidelog_lowpan::{EndpointConfig, FRAME_BUFFER_BYTES, GatewayEndpoint, Peer, SendError};
use tidelog_node::{NodeContext, StartError, command};
use tidelog_record::DeviceId;
use tidelog_store::Store;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use self::air::{AirError, BEACON_EVERY};
pub use self::capture::Capture;
use self::radio::{PACKET_BYTES_MAX, Radio};
use self::report::{Report, Reporter};
use self::reservation::Reservation;
use self::server::{APPENDS_MAX, Append, HeldUpto, Served, Server};
use crate::append::{Settled, append};
use crate::coap;
use crate::entropy;
use crate::settings::RadioUrl;
use crate::sharing::Sharing;

/// The resources of Tidelog's own sensors, as `/.well-known/core` names them beside those of others.
const OWN_RESOURCES: &str = ",</s>;rt=\"tidelog.schema\";ct=42,</b>;rt=\"tidelog.batch\";ct=42";

/// Answers that wait for a slot of the endpoint; past it an answer is dropped, and its sensor asks again.
const ANSWERS_WAITING_MAX: usize = 256;

/// Pause between attempts to open the radio.
const OPEN_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// How long the endpoint is left alone while the radio takes no frame.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// How often the report for status and metrics is made.
const REPORT_EVERY: Duration = Duration::from_millis(500);

/// Pause between attempts to keep a reservation of frame counters.
const RESERVE_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Frame counters left when it is time to think of a new key: a sixteenth of all.
const COUNTERS_LOW: u32 = 1 << 28;

/// How long appends in hand may take when the gateway ends.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// Puts the radio's section into the status and starts the task. `share`: its sensors are shared with the other gateways of the site; `capture`
/// takes the frames.
///
/// # Errors
/// [`StartError::Setting`] for a station that cannot be.
pub fn start(
    context: &NodeContext,
    radio: RadioUrl,
    station: EndpointConfig,
    share: bool,
    capture: Option<Capture>,
) -> Result<(), StartError> {
    station.check().map_err(|error| StartError::Setting { key: "channel", reason: error.to_string() })?;
    let reservation = Reservation::in_dir(&context.dir);
    let first_counter = if station.key.is_some() { reservation.load()? } else { 0 };
    let (report, reports) = watch::channel(Report::before_start(&radio, &station));
    context.status.section("radio", move || reports.borrow().to_json());
    let context = context.clone();
    context.tasks.clone().spawn(async move {
        let shutdown = context.shutdown.clone();
        let opened = tokio::select! {
            () = shutdown.cancelled() => return,
            air = open(&radio, &station) => air,
        };
        tracing::info!(%radio, eui = %station.eui, "the border is open");
        match Border::new(context, station, reservation, Reporter::new(report), opened, share) {
            Ok(mut border) => {
                border.endpoint.resume_counters(first_counter);
                border.capture = capture;
                border.run().await;
            }
            Err(error) => tracing::error!(%error, "the radio endpoint cannot be made"),
        }
    });
    Ok(())
}

/// Opens the radio, however long it takes.
async fn open(radio: &RadioUrl, station: &EndpointConfig) -> Radio {
    let mut told = false;
    loop {
        match Radio::open(radio, station).await {
            Ok(air) => return air,
            Err(error) if !told => tracing::warn!(%radio, %error, "the radio cannot be opened; trying on"),
            Err(error) => tracing::debug!(%radio, %error, "the radio cannot be opened"),
        }
        told = true;
        tokio::time::sleep(OPEN_AGAIN_AFTER).await;
    }
}

/// What the log holds of a sensor, asked of its index.
fn held_upto(store: Store) -> HeldUpto {
    Box::new(move |device, epoch, seq| {
        let held = store.device_held(device, epoch);
        held.iter().find(|(first, last)| (*first..=*last).contains(&seq)).map(|(_, last)| last)
    })
}

struct Border {
    context: NodeContext,
    station: EndpointConfig,
    endpoint: Box<GatewayEndpoint>,
    reservation: Reservation,
    reserve_after: Option<tokio::time::Instant>,
    server: Server,
    /// What other people's devices are answered.
    others: coap::server::Server<Peer>,
    air: Radio,
    beacons_sent: u8,
    answers: VecDeque<(Peer, Vec<u8>)>,
    outcome: mpsc::Sender<Settled<DeviceId>>,
    outcomes: mpsc::Receiver<Settled<DeviceId>>,
    others_outcome: mpsc::Sender<Settled<u64>>,
    others_outcomes: mpsc::Receiver<Settled<u64>>,
    reporter: Reporter,
    capture: Option<Capture>,
    started: std::time::Instant,
}

impl Border {
    fn new(
        context: NodeContext,
        station: EndpointConfig,
        reservation: Reservation,
        reporter: Reporter,
        air: Radio,
        share: bool,
    ) -> Result<Self, tidelog_lowpan::ConfigError> {
        let entropy = entropy();
        let [a, b, c, d, ..] = entropy.to_be_bytes();
        let endpoint = Box::new(GatewayEndpoint::new(station.clone(), entropy)?);
        let waiting = command::follow(&context);
        let served: Served = if share {
            let sharing = Sharing::start(&context, station.eui);
            Box::new(move |device| sharing.served(device))
        } else {
            Box::new(|_| None)
        };
        let server = Server::new(
            held_upto(context.store.clone()),
            Box::new(move |device, now_ms| waiting.next(device, now_ms)),
            served,
            Arc::clone(&context.metrics),
            u16::from_be_bytes([a, b]),
        );
        let metrics = Arc::clone(&context.metrics);
        let others = coap::server::Server::new(metrics, OWN_RESOURCES, u16::from_be_bytes([c, d]));
        let (others_outcome, others_outcomes) = mpsc::channel(coap::server::APPENDS_MAX);
        // As many as there can be appends: the store's thread always finds room.
        let (outcome, outcomes) = mpsc::channel(APPENDS_MAX);
        let (answers, started) = (VecDeque::new(), std::time::Instant::now());
        Ok(Self {
            context,
            station,
            endpoint,
            reservation,
            reserve_after: None,
            server,
            others,
            air,
            beacons_sent: 0,
            answers,
            outcome,
            outcomes,
            others_outcome,
            others_outcomes,
            reporter,
            capture: None,
            started,
        })
    }

    async fn run(mut self) {
        let mut packet = [0; PACKET_BYTES_MAX];
        let mut beacons = tokio::time::interval(BEACON_EVERY);
        let mut reports = tokio::time::interval(REPORT_EVERY);
        beacons.set_missed_tick_behavior(MissedTickBehavior::Delay);
        reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shutdown = self.context.shutdown.clone();
        let mut farewell = None;
        loop {
            self.pump().await;
            let appending = self.server.appending() + self.others.appending();
            if farewell.is_some() && appending == 0 && self.answers.is_empty() {
                break;
            }
            let due = self.due();
            tokio::select! {
                () = shutdown.cancelled(), if farewell.is_none() => {
                    farewell = Some(tokio::time::Instant::now() + FAREWELL_MAX);
                }
                () = sleep_until(farewell), if farewell.is_some() => break,
                received = self.air.receive(&mut packet) => self.hear(received, &packet),
                Some((device, outcome)) = self.outcomes.recv() => {
                    let clock_ms = self.context.now_ms();
                    self.server.handle_outcome(clock_ms, device, outcome);
                }
                Some((number, outcome)) = self.others_outcomes.recv() => self.others.handle_outcome(number, outcome),
                () = sleep_until(due), if due.is_some() => {
                    let now = self.now();
                    self.endpoint.handle_timeout(now);
                }
                _ = beacons.tick() => {
                    self.beacons_sent = self.beacons_sent.wrapping_add(1);
                    let sent = self.air.send_beacon(&self.station, self.beacons_sent).await;
                    self.reporter.sent(sent);
                }
                _ = reports.tick() => self.report(),
            }
        }
        self.report();
    }

    fn hear(&mut self, received: io::Result<usize>, packet: &[u8]) {
        let length = match received {
            Ok(length) => length,
            Err(error) => return self.reporter.failed(&self.context.metrics, &error),
        };
        let (now, packet) = (self.now(), packet.get(..length).unwrap_or_default());
        if let Radio::Kernel(air) = &mut self.air {
            let clock_ms = self.context.now_ms();
            match air.sender(clock_ms) {
                Some(peer) => {
                    self.reporter.heard(clock_ms);
                    self.take(now, peer, packet);
                }
                None => self.reporter.dropped(&self.context.metrics, "not_on_the_interface"),
            }
            return;
        }
        match self.air.decode(packet) {
            Ok(Some(heard)) => {
                self.reporter.heard(self.context.now_ms());
                capture(
                    &mut self.capture,
                    &self.context,
                    self.station.channel,
                    heard.quality.lqi,
                    heard.frame,
                );
                self.endpoint.handle_frame(now, heard.frame, heard.quality);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%error, "a datagram from the air is not ZEP");
                self.reporter.dropped(&self.context.metrics, "not_zep");
            }
        }
    }

    /// Gives a datagram to the server that it is for.
    fn take(&mut self, now: Instant, peer: Peer, datagram: &[u8]) {
        let clock_ms = self.context.now_ms();
        if coap::server::is_for_others(datagram) {
            self.others.handle_datagram(now, clock_ms, (peer, &peer.device.to_string()), datagram);
        } else {
            self.server.handle_datagram(now, clock_ms, peer, datagram);
        }
    }

    /// Moves everything that can be moved: datagrams to the server, batches to the store, answers to the endpoint,
    /// frames to the air.
    async fn pump(&mut self) {
        let now = self.now();
        let mut datagram = [0; GatewayEndpoint::PAYLOAD_BYTES_MAX];
        while let Some((peer, length)) = self.endpoint.receive(&mut datagram) {
            self.take(now, peer, datagram.get(..length).unwrap_or_default());
        }
        while let Some(coap::server::Append { number, body }) = self.others.poll_append() {
            append(&self.context, (number, body), &self.others_outcome, coap::server::VIA);
        }
        while let Some(Append { device, body }) = self.server.poll_append() {
            append(&self.context, (device, body), &self.outcome, server::VIA);
        }
        while let Some(answer) = self.server.poll_transmit().or_else(|| self.others.poll_transmit()) {
            if self.answers.len() < ANSWERS_WAITING_MAX {
                self.answers.push_back(answer);
            } else {
                self.reporter.dropped(&self.context.metrics, "answers_waiting");
            }
        }
        while let Some((peer, answer)) = self.answers.front() {
            if let Radio::Kernel(air) = &self.air {
                self.reporter.sent(air.send(*peer, answer).await);
                self.answers.pop_front();
                continue;
            }
            match self.endpoint.send(now, *peer, answer) {
                Err(SendError::Busy) => break,
                Err(
                    error @ (SendError::TooLong { .. } | SendError::Unreachable | SendError::CountersSpent),
                ) => {
                    tracing::debug!(device = %peer.device, %error, "an answer cannot be sent");
                    self.reporter.dropped(&self.context.metrics, "unsendable_answer");
                }
                Ok(()) => {}
            }
            self.answers.pop_front();
        }
        self.reserve().await;
        let mut frame = [0; FRAME_BUFFER_BYTES];
        while self.air.can_send()
            && let Some(length) = self.endpoint.poll_transmit(self.now(), &mut frame)
        {
            let frame = frame.get(..length).unwrap_or_default();
            capture(&mut self.capture, &self.context, self.station.channel, u8::MAX, frame);
            let sent = self.air.send(frame).await;
            self.reporter.sent(sent);
        }
    }

    /// Keeps the reservation that the endpoint asks for; until that has worked, it secures no more frames than it may.
    async fn reserve(&mut self) {
        let Some(upto) = self.endpoint.counter_reserve_due() else { return };
        if self.reserve_after.is_some_and(|after| tokio::time::Instant::now() < after) {
            return;
        }
        let reservation = self.reservation.clone();
        let stored = tokio::task::spawn_blocking(move || reservation.store(upto)).await;
        match stored.map_err(io::Error::other).and_then(|stored| stored) {
            Ok(()) => {
                self.reserve_after = None;
                self.endpoint.counters_reserved(upto);
            }
            Err(error) => {
                tracing::error!(%error, "frame counters cannot be reserved: nothing is sent to sensors");
                self.reserve_after = Some(tokio::time::Instant::now() + RESERVE_AGAIN_AFTER);
            }
        }
        if let Some(left) = self.endpoint.counters_left().filter(|left| *left < COUNTERS_LOW) {
            tracing::warn!(left, "this gateway's frame counters come to an end: give the network a new key");
        }
    }

    fn report(&mut self) {
        let now = self.now();
        self.reporter.publish(&self.context, &self.endpoint, &self.server, &self.air, now);
    }

    fn now(&self) -> Instant {
        let since = self.started.elapsed();
        Instant::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    /// When the endpoint has something to do. Frames that wait for the radio are due all the time, and go when it says so.
    fn due(&self) -> Option<tokio::time::Instant> {
        let due = self.endpoint.poll_timeout().map(|at| self.at(at));
        if self.air.can_send() {
            due
        } else {
            due.map(|at| at.max(tokio::time::Instant::now() + LOOK_AGAIN_AFTER))
        }
    }

    fn at(&self, instant: Instant) -> tokio::time::Instant {
        let since = Duration::from_micros(u64::try_from(instant.total_micros()).unwrap_or_default());
        tokio::time::Instant::from_std(self.started + since)
    }
}

/// Gives a frame to the capture, if there is one.
fn capture(capture: &mut Option<Capture>, context: &NodeContext, channel: u8, lqi: u8, frame: &[u8]) {
    if let Some(capture) = capture {
        let unix_us = u64::try_from(context.now_ms()).unwrap_or(0).saturating_mul(1_000);
        if !capture.take(unix_us, channel, lqi, frame) {
            context.metrics.radio_drops.with_label_values(&["not_captured"]).inc();
        }
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl From<AirError> for io::Error {
    fn from(error: AirError) -> Self {
        Self::other(error)
    }
}
