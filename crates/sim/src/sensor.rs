//! A virtual sensor: the real firmware library with a simulated flash and a UDP socket to the air, as one tokio task.
//!
//! It lives through power cuts: [`VirtualSensor::power_cut`] drops everything but the flash's bytes, in the middle of a
//! write if asked to, and [`VirtualSensor::restart`] starts the firmware on them again. Its samples come from a [`Feed`]; after a
//! restart it continues with the sample whose number the flash log gives next, so each is sensed exactly once. It obeys
//! commands: eight outputs, any interval, a reading at once, a reboot. Their events take numbers too, and the feed's samples at those
//! numbers are never sensed.

mod replay;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidelog_firmware::lowpan::time::{Duration as BoardDuration, Instant as BoardInstant};
use tidelog_firmware::uplink::{Metric, Sample, Schema, SchemaError};
use tidelog_firmware::{App, AppConfig, AppCounters, SchemaTooLong, WhenFull};
use tidelog_flashlog::FlashLog;
use tidelog_lowpan::coap::Transmission;
use tidelog_lowpan::{EndpointConfig, FRAME_BUFFER_BYTES, NetworkKey, Quality, SensorEndpoint, zep};
use tidelog_record::DeviceId;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::flash::SimFlash;
use replay::Replay;

pub use tidelog_firmware::Gateways;

/// The flash of a virtual sensor: words of 4 bytes, erase blocks of 4 KiB.
pub type SensorFlash = SimFlash<4, 4096>;

/// How long a power cut in mid-write waits for the sensor to write something before the power goes anyway.
const MID_WRITE_WAIT: Duration = Duration::from_millis(500);
/// A replay has its samples at once, so a batch of a few frames shares its head among many of them.
const BATCH_BYTES: usize = 400;
/// How well a frame from the simulated air is heard.
const RSSI_DBM: i8 = -60;

/// From one life's seed to the next one's.
const SEED_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a sensor senses, by index from 0; sample `i` has sequence number `i + 1`.
pub trait Feed: Send + Sync + 'static {
    /// The sample at this index; `None` past the last one.
    fn sample(&self, index: u64) -> Option<Sample>;
}

impl<T: AsRef<[Sample]> + Send + Sync + 'static> Feed for T {
    fn sample(&self, index: u64) -> Option<Sample> {
        self.as_ref().get(usize::try_from(index).ok()?).copied()
    }
}

/// What a virtual sensor is told.
#[derive(Debug, Clone)]
pub struct SensorOptions {
    /// Its EUI-64.
    pub device: DeviceId,
    /// Where the air listens.
    pub air: SocketAddr,
    /// Where it sends to.
    pub gateways: Gateways,
    /// PAN identifier.
    pub pan: u16,
    /// Channel.
    pub channel: u8,
    /// The network's key; without one its frames are open.
    pub key: Option<NetworkKey>,
    /// Names and scales of its metrics.
    pub metrics: Vec<(String, Option<u8>)>,
    /// Length of a tick, in nanoseconds.
    pub tick_ns: u32,
    /// Erase blocks of 4 KiB in its flash.
    pub flash_blocks: usize,
    /// Samples per second; `None`: as fast as the flash has room.
    pub pace_hz: Option<f64>,
    /// How requests are repeated.
    pub transmission: Transmission,
    /// Most bytes of a batch of more than one sample.
    pub batch_bytes: usize,
    /// How long a sample waits for others to fill the batch.
    pub linger: Duration,
    /// How long it leaves a gateway alone that refuses.
    pub backoff: Duration,
    /// Unanswered requests before it moves to its other gateway.
    pub silences_max: u8,
    /// How long after a move it takes no advice to go elsewhere.
    pub advice_rest: Duration,
    /// Seed of its epoch, message ids and timing.
    pub seed: u64,
}

impl SensorOptions {
    /// A sensor with timing for a fast replay over a simulated air: a request is repeated after a third of a second.
    #[must_use]
    pub fn fast(device: DeviceId, air: SocketAddr, gateways: Gateways, seed: u64) -> Self {
        let EndpointConfig { pan, channel, .. } = EndpointConfig::new(device);
        Self {
            device,
            air,
            gateways,
            pan,
            channel,
            key: None,
            metrics: Vec::new(),
            tick_ns: 1_000_000,
            flash_blocks: 64,
            pace_hz: None,
            transmission: Transmission {
                ack_timeout: BoardDuration::from_millis(300),
                max_retransmit: 3,
                response_timeout: BoardDuration::from_millis(3000),
            },
            batch_bytes: BATCH_BYTES,
            linger: Duration::from_millis(50),
            backoff: Duration::from_millis(500),
            silences_max: 1,
            advice_rest: Duration::from_secs(2),
            seed,
        }
    }
}

/// Why a virtual sensor does not start.
#[derive(Debug, thiserror::Error)]
pub enum SensorError {
    /// Its metrics are no schema.
    #[error("metrics: {0}")]
    Schema(#[from] SchemaError),
    /// Its metrics' names are too long.
    #[error(transparent)]
    SchemaTooLong(#[from] SchemaTooLong),
    /// Its address, PAN or channel is refused by the radio.
    #[error(transparent)]
    Radio(#[from] tidelog_lowpan::ConfigError),
    /// No socket.
    #[error("socket: {0}")]
    Socket(#[from] std::io::Error),
    /// The flash holds no log and none can be made.
    #[error("flash: {0}")]
    Flash(#[from] tidelog_flashlog::Error<crate::flash::FlashFault>),
    /// Its task panicked, and the flash went with it.
    #[error("the sensor's task panicked")]
    Panicked,
}

/// How the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// At once, between two writes.
    Now,
    /// In the middle of a write or erase, after so many more whole steps, leaving that word or block torn.
    MidWrite {
        /// Whole steps before.
        steps: u64,
        /// What the torn one holds afterwards.
        seed: u64,
    },
}

/// How far a sensor is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Samples durable in flash since it was formatted: the last sequence number.
    pub sensed: u64,
    /// Samples acknowledged or lost: the cursor.
    pub acknowledged: u64,
    /// Samples lost unacknowledged.
    pub lost: u64,
    /// The life of its flash log.
    pub epoch: u32,
    /// The gateway it sends to.
    pub gateway: Option<DeviceId>,
    /// Totals since it was last started.
    pub counters: AppCounters,
    /// Its outputs, a bit each; they are off after a restart.
    pub outputs: u8,
    /// Restarts that commands asked for, since the power came.
    pub reboots: u64,
}

enum State {
    On { task: JoinHandle<SensorFlash>, orders: mpsc::Sender<Cut> },
    Off(Box<SensorFlash>),
    Gone,
}

/// A sensor that can lose its power. Dropping it stops it.
pub struct VirtualSensor {
    options: Arc<SensorOptions>,
    feed: Arc<dyn Feed>,
    state: State,
    progress: watch::Sender<Progress>,
    lives: u64,
}

impl fmt::Debug for VirtualSensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtualSensor")
            .field("device", &self.options.device)
            .field("progress", &*self.progress.borrow())
            .finish_non_exhaustive()
    }
}

impl VirtualSensor {
    /// Starts a sensor with an empty flash on the current tokio runtime.
    ///
    /// # Errors
    /// [`SensorError`].
    pub async fn start(options: SensorOptions, feed: impl Feed) -> Result<Self, SensorError> {
        let flash = SensorFlash::new(options.flash_blocks);
        let mut sensor = Self {
            options: Arc::new(options),
            feed: Arc::new(feed),
            state: State::Off(Box::new(flash)),
            progress: watch::Sender::new(Progress::default()),
            lives: 0,
        };
        sensor.restart().await?;
        Ok(sensor)
    }

    /// Its EUI-64.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.options.device
    }

    /// Samples durable in its flash so far. Exact while it runs; a cut in mid-write may leave one more than was told.
    #[must_use]
    pub fn sensed(&self) -> u64 {
        self.progress.borrow().sensed
    }

    /// Samples that it knows to be stored by a gateway (or lost), all of them from the first on.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.progress.borrow().acknowledged
    }

    /// Everything it tells.
    #[must_use]
    pub fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// Follows its progress.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Takes the power away. When this returns it is off; a sensor that is off stays off.
    ///
    /// # Errors
    /// [`SensorError::Panicked`].
    pub async fn power_cut(&mut self, cut: Cut) -> Result<(), SensorError> {
        match std::mem::replace(&mut self.state, State::Gone) {
            State::On { task, orders } => {
                // A task that has ended by itself takes no orders, and its flash is here all the same.
                if orders.send(cut).await.is_err() {
                    tracing::debug!(device = %self.options.device, "the sensor had stopped by itself");
                }
                let flash = task.await.map_err(|_| SensorError::Panicked)?;
                self.state = State::Off(Box::new(flash));
                Ok(())
            }
            State::Off(flash) => {
                self.state = State::Off(flash);
                Ok(())
            }
            State::Gone => Err(SensorError::Panicked),
        }
    }

    /// Gives the power back: the firmware starts on what the flash holds. A sensor that is on stays on.
    ///
    /// # Errors
    /// [`SensorError`]; it stays off.
    pub async fn restart(&mut self) -> Result<(), SensorError> {
        let State::Off(flash) = &self.state else { return Ok(()) };
        let mut flash = flash.clone();
        flash.power_on();
        self.lives += 1;
        let seed = self.options.seed.wrapping_add(self.lives.wrapping_mul(SEED_STEP));
        let socket = UdpSocket::bind(SocketAddr::from(([0, 0, 0, 0], 0))).await?;
        socket.connect(self.options.air).await?;
        // What may be refused is refused here, so that the task only runs.
        app_config(&self.options, &metrics(&self.options))?;
        let firmware = Firmware::start(&self.options, &self.feed, *flash, seed)?;
        let (orders, taken) = mpsc::channel(1);
        let life = Life {
            options: Arc::clone(&self.options),
            feed: Arc::clone(&self.feed),
            socket,
            orders: taken,
            progress: self.progress.clone(),
            seed,
            off_at: None,
            reboots: 0,
        };
        let task = tokio::spawn(life.run(firmware));
        self.state = State::On { task, orders };
        Ok(())
    }

    /// Takes the power away for good and gives the flash.
    ///
    /// # Errors
    /// [`SensorError::Panicked`].
    pub async fn stop(mut self) -> Result<SensorFlash, SensorError> {
        self.power_cut(Cut::Now).await?;
        match std::mem::replace(&mut self.state, State::Gone) {
            State::Off(flash) => Ok(*flash),
            State::On { .. } | State::Gone => Err(SensorError::Panicked),
        }
    }
}

impl Drop for VirtualSensor {
    fn drop(&mut self) {
        if let State::On { task, .. } = &self.state {
            task.abort();
        }
    }
}

fn metrics(options: &SensorOptions) -> Vec<Metric<'_>> {
    options.metrics.iter().map(|(name, scale)| Metric { name, scale: *scale }).collect()
}

fn app_config<'a>(options: &SensorOptions, metrics: &'a [Metric<'a>]) -> Result<AppConfig<'a>, SensorError> {
    let schema = Schema::new(options.tick_ns, metrics)?;
    Ok(AppConfig {
        transmission: options.transmission,
        batch_bytes: options.batch_bytes,
        linger: board(options.linger),
        backoff: board(options.backoff),
        silences_max: options.silences_max,
        advice_rest: board(options.advice_rest),
        when_full: WhenFull::Wait,
        ..AppConfig::new(options.gateways, schema)?
    })
}

/// What the application is made of at a start.
struct Firmware {
    endpoint: SensorEndpoint,
    log: FlashLog<SensorFlash>,
    replay: Replay,
}

impl Firmware {
    fn start(
        options: &SensorOptions,
        feed: &Arc<dyn Feed>,
        flash: SensorFlash,
        seed: u64,
    ) -> Result<Self, SensorError> {
        let [a, b, c, d, ..] = seed.to_le_bytes();
        let log = FlashLog::open(flash, u32::from_le_bytes([a, b, c, d]))?;
        let endpoint = EndpointConfig {
            pan: options.pan,
            channel: options.channel,
            key: options.key,
            ..EndpointConfig::new(options.device)
        };
        let endpoint = SensorEndpoint::new(endpoint, seed)?;
        Ok(Self { endpoint, log, replay: Replay::new(options, Arc::clone(feed)) })
    }
}

/// One life of a sensor, from power on to power off; commands may start its firmware anew within.
struct Life {
    options: Arc<SensorOptions>,
    feed: Arc<dyn Feed>,
    socket: UdpSocket,
    orders: mpsc::Receiver<Cut>,
    progress: watch::Sender<Progress>,
    seed: u64,
    off_at: Option<tokio::time::Instant>,
    reboots: u64,
}

/// Why the firmware does not run any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Off,
    Reboot,
}

impl Life {
    /// Runs until the power goes; what is left is the flash.
    async fn run(mut self, mut firmware: Firmware) -> SensorFlash {
        let options = Arc::clone(&self.options);
        let metrics = metrics(&options);
        loop {
            let Firmware { endpoint, log, replay } = firmware;
            // It was checked before this life began.
            let Ok(config) = app_config(&options, &metrics) else { return log.into_flash() };
            let mut app = App::new(config, endpoint, log, replay, self.seed);
            let ended = self.live(&mut app).await;
            let mut flash = app.into_flash();
            if ended == Ended::Reboot {
                self.reboots += 1;
                self.seed = self.seed.rotate_left(1).wrapping_add(SEED_STEP);
                match Firmware::start(&options, &self.feed, flash.clone(), self.seed) {
                    Ok(anew) => {
                        firmware = anew;
                        continue;
                    }
                    Err(error) => {
                        tracing::error!(device = %options.device, %error, "the sensor did not start anew");
                    }
                }
            }
            flash.power_off();
            return flash;
        }
    }

    async fn live(&mut self, app: &mut App<'_, SensorFlash, Replay>) -> Ended {
        let start = tokio::time::Instant::now();
        let mut sequence = 0u32;
        let mut heard = [0u8; zep::PACKET_BYTES_MAX + 1];
        loop {
            let now = elapsed(start);
            let due = match app.poll(now) {
                Ok(due) => due,
                Err(error) => {
                    if self.off_at.is_none() {
                        tracing::error!(device = %self.options.device, %error, "the sensor stopped by itself");
                    }
                    return Ended::Off;
                }
            };
            self.transmit(app, now, &mut sequence).await;
            self.tell(app);
            if app.reboot_due(now) {
                return Ended::Reboot;
            }
            let due =
                due.map(|due| start + Duration::from_micros(u64::try_from(due.total_micros()).unwrap_or(0)));
            let wake = [due, self.off_at].into_iter().flatten().min();
            tokio::select! {
                order = self.orders.recv() => match order {
                    Some(Cut::MidWrite { steps, seed }) => {
                        app.flash_mut().cut_after(steps, seed);
                        self.off_at = Some(tokio::time::Instant::now() + MID_WRITE_WAIT);
                    }
                    Some(Cut::Now) | None => return Ended::Off,
                },
                received = self.socket.recv(&mut heard) => {
                    // An error tells that an earlier datagram found no air: as if nothing was heard.
                    let bytes = received.ok().and_then(|length| heard.get(..length)).unwrap_or_default();
                    if let Ok(zep::Packet::Data(header, frame)) = zep::decode(bytes)
                        && header.channel == self.options.channel
                    {
                        app.handle_frame(elapsed(start), frame, Quality { rssi_dbm: RSSI_DBM, lqi: header.lqi });
                    }
                }
                () = sleep_until(wake) => {
                    if self.off_at.is_some_and(|off_at| off_at <= tokio::time::Instant::now()) {
                        return Ended::Off;
                    }
                }
            }
        }
    }

    async fn transmit(&self, app: &mut App<'_, SensorFlash, Replay>, now: BoardInstant, sequence: &mut u32) {
        let mut frame = [0u8; FRAME_BUFFER_BYTES];
        let mut datagram = [0u8; zep::PACKET_BYTES_MAX];
        while let Some(length) = app.poll_transmit(now, &mut frame) {
            *sequence = sequence.wrapping_add(1);
            let header = zep::Header {
                channel: self.options.channel,
                lqi: u8::MAX,
                sequence: *sequence,
                ..zep::Header::default()
            };
            let Ok(length) = zep::encode(&header, frame.get(..length).unwrap_or_default(), &mut datagram)
            else {
                continue;
            };
            // A frame that the system does not take is lost on the air, as frames are.
            if let Err(error) = self.socket.send(datagram.get(..length).unwrap_or_default()).await {
                tracing::debug!(device = %self.options.device, %error, "frame not sent");
            }
        }
    }

    fn tell(&self, app: &mut App<'_, SensorFlash, Replay>) {
        let outputs = app.sampler_mut().outputs;
        let log = app.log();
        let progress = Progress {
            sensed: log.head(),
            acknowledged: log.acknowledged(),
            lost: log.lost(),
            epoch: log.epoch(),
            gateway: Some(app.gateway()),
            counters: *app.counters(),
            outputs,
            reboots: self.reboots,
        };
        self.progress.send_if_modified(|told| std::mem::replace(told, progress) != progress);
    }
}

fn elapsed(start: tokio::time::Instant) -> BoardInstant {
    BoardInstant::from_micros(i64::try_from(start.elapsed().as_micros()).unwrap_or(i64::MAX))
}

fn board(duration: Duration) -> BoardDuration {
    BoardDuration::from_micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

async fn sleep_until(wake: Option<tokio::time::Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}
