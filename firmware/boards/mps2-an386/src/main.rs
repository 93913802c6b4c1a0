//! The sensor on QEMU's `mps2-an386`: parse what it is told, bind radio, flash and sensor to the application, run. The application, the flash log,
//! the network and the radio's driver are the libraries that every board has; this crate brings the pins.
//!
//! What is real: the processor's code, interrupts, the serial line, Spinel, link security, the flash log. What is simulated: the
//! memory behind the flash (a file), the chips on the I2C bus ([`chips`]), the battery, the co-processor at the other end of the line.

#![no_std]
#![no_main]

mod chips;
mod clock;
mod console;
mod flash;
mod hardware;
mod lights;
mod readings;

use core::cell::RefCell;
use core::panic::PanicInfo;
use core::time::Duration as SinceStart;

use cortex_m::peripheral::syst::SystClkSource;
use cortex_m::peripheral::{SCB, SYST};
use cortex_m::singleton;
use cortex_m_rt::entry;
use tidelog_firmware::battery::{self, Battery};
use tidelog_firmware::flashlog::FlashLog;
use tidelog_firmware::lowpan::time::Instant;
use tidelog_firmware::lowpan::{EndpointConfig, FRAME_BUFFER_BYTES, Quality, SensorEndpoint};
use tidelog_firmware::opt3001::{self, Opt3001};
use tidelog_firmware::settings::{Settings, Word};
use tidelog_firmware::sht4x::{self, Sht4x};
use tidelog_firmware::uplink::{Metric, Schema};
use tidelog_firmware::{App, AppConfig, Every, Told};
use tidelog_spinel::{Event, Host, HostConfig, WIRE_BYTES_MAX};

use crate::chips::{Bus, Chips, Wait};
use crate::clock::Clock;
use crate::flash::Flash;
use crate::hardware::HostFile;
use crate::lights::Lights;
use crate::readings::Readings;

/// Bytes taken from the radio at once.
const RECEIVED_BYTES: usize = 128;
/// A tick of the schema is a millisecond.
const TICK_NS: u32 = 1_000_000;
/// Repetitions of a frame that nobody acknowledges.
const RETRIES_MAX: u8 = 3;
/// The least sleep while there is no radio, in microseconds: frames that can't be sent are due all the time.
const SLEEP_WITHOUT_RADIO_US: u64 = 20_000;

/// What a sample holds, in this order.
const METRICS: [Metric<'static>; 4] = {
    let [temperature, humidity] = sht4x::METRICS;
    [temperature, humidity, opt3001::METRIC, battery::METRIC]
};

type Sensors = ((Sht4x<Bus<'static>, Wait<'static>>, Opt3001<Bus<'static>>), Battery<Bus<'static>>);
type Sampler = Told<Every<'static, Sensors>, Lights>;
type Sensor = App<'static, Flash, Sampler>;

#[entry]
fn main() -> ! {
    hardware::start();
    let mut line = [0; hardware::COMMAND_LINE_BYTES_MAX];
    let line = hardware::command_line(&mut line).unwrap_or_default();
    // The first word is the program's own name.
    let words = line.split_once(' ').map_or("", |(_, words)| words);
    let mut readings = None;
    let own = |name, text| {
        if name != "readings" {
            return Word::Unknown;
        }
        readings = Some(text);
        Word::Taken
    };
    match Settings::parse(words, None, own) {
        Err(error) => say!("the board does not start: {error}"),
        Ok(settings) => match board(&settings, readings) {
            Some(board) => board.run(),
            None => say!("the board does not start: its settings are refused"),
        },
    }
    loop {
        cortex_m::asm::wfi();
    }
}

/// Everything that the board is, in memory that is counted when it is linked; `readings` is the host's file of what there is to measure. `None`: the
/// settings name no possible sensor.
fn board(settings: &Settings, readings: Option<&str>) -> Option<&'static mut Board> {
    let clock: &'static RefCell<Clock> = singleton!(: RefCell<Clock> = RefCell::new(Clock::start()))?;
    let timer = singleton!(: SYST = cortex_m::Peripherals::take()?.SYST)?;
    timer.set_clock_source(SystClkSource::Core);
    let entropy = hardware::entropy();
    let [a, b, c, d, .., phase] = entropy.to_le_bytes();
    let log = match FlashLog::open(Flash, u32::from_le_bytes([a, b, c, d])) {
        Ok(log) => log,
        Err(error) => {
            say!("the flash holds no log of this board's: {error:?}");
            return None;
        }
    };
    let (epoch, head, acknowledged, lost) = (log.epoch(), log.head(), log.acknowledged(), log.lost());
    say!("flash log: epoch={epoch} head={head} acknowledged={acknowledged} lost={lost}");
    let schema = Schema::new(TICK_NS, &METRICS).ok()?;
    let config = AppConfig { linger: settings.linger, ..AppConfig::new(settings.gateways, schema).ok()? };
    // The radio acknowledges and repeats.
    let station = EndpointConfig { soft_mac: false, ..settings.station.clone() };
    let endpoint = SensorEndpoint::new(station, entropy).ok()?;
    let readings = match readings {
        None => Readings::Walk(phase.into()),
        Some(path) => match HostFile::open(path) {
            Some(file) => Readings::File { file, next: head, ended: false },
            None => {
                say!("readings={path}: the host has no such file");
                return None;
            }
        },
    };
    let chips: &'static RefCell<Chips<'static>> =
        singleton!(: RefCell<Chips<'static>> = RefCell::new(Chips::new(clock, readings)))?;
    let bus = Bus(chips);
    let sensors = ((Sht4x::new(bus, Wait(clock)), Opt3001::new(bus)), Battery(bus));
    let now = clock.borrow_mut().now();
    let sampler =
        Told { sampler: Every::new(sensors, schema, settings.interval, now), hands: Lights::default() };
    let station = &settings.station;
    let radio =
        HostConfig { eui: station.eui, pan: station.pan, channel: station.channel, retries_max: RETRIES_MAX };
    say!("eui={} pan={:#06x} channel={}", station.eui, station.pan, station.channel);
    singleton!(: Board = Board {
        clock,
        timer,
        app: App::new(config, endpoint, log, sampler, entropy),
        radio: Host::new(radio, since_start(now)),
        acknowledged,
    })
}

struct Board {
    clock: &'static RefCell<Clock>,
    timer: &'static mut SYST,
    app: Sensor,
    radio: Host,
    /// What was last said to be acknowledged.
    acknowledged: u64,
}

impl Board {
    fn run(&mut self) -> ! {
        loop {
            self.hear();
            let due = self.poll();
            self.transmit();
            self.tell();
            let now = self.now();
            self.app.sampler_mut().hands.blink(now);
            if self.app.reboot_due(now) {
                say!("starting anew, as a command says");
                SCB::sys_reset();
            }
            self.sleep(due);
        }
    }

    fn now(&self) -> Instant {
        self.clock.borrow_mut().now()
    }

    /// Hands the application what the radio heard.
    fn hear(&mut self) {
        let mut bytes = [0; RECEIVED_BYTES];
        loop {
            let length = hardware::take_received(&mut bytes);
            let now = self.now();
            self.radio.handle_bytes(since_start(now), bytes.get(..length).unwrap_or_default());
            self.radio.handle_timeout(since_start(now));
            while let Some(event) = self.radio.poll_event() {
                match event {
                    Event::Ready { .. } => say!("radio: ready"),
                    Event::Lost(loss) => say!("radio: {loss}"),
                    // What was not acknowledged is repeated by CoAP.
                    Event::Done(_) => {}
                    Event::Heard(heard) => {
                        let quality = Quality { rssi_dbm: heard.rssi_dbm, lqi: heard.lqi };
                        self.app.handle_frame(now, &heard.frame, quality);
                        self.poll();
                    }
                }
            }
            if length < bytes.len() {
                return;
            }
        }
    }

    /// Lets the application do what is due.
    fn poll(&mut self) -> Option<Instant> {
        let now = self.now();
        self.app.poll(now).unwrap_or_else(|error| {
            // Nothing that is stored is lost by starting again.
            say!("flash: {error:?}; starting again");
            SCB::sys_reset()
        })
    }

    /// Moves frames from the application to the radio's line, one at a time.
    fn transmit(&mut self) {
        let now = self.now();
        let mut frame = [0; FRAME_BUFFER_BYTES];
        if self.radio.can_send()
            && let Some(length) = self.app.poll_transmit(now, &mut frame)
            && let Err(error) = self.radio.send(frame.get(..length).unwrap_or_default())
        {
            say!("radio: {error}");
        }
        let mut wire = [0; WIRE_BYTES_MAX];
        while let Some(length) = self.radio.poll_transmit(since_start(now), &mut wire) {
            hardware::RADIO.send(wire.get(..length).unwrap_or_default());
        }
    }

    fn tell(&mut self) {
        let acknowledged = self.app.log().acknowledged();
        if acknowledged != self.acknowledged {
            self.acknowledged = acknowledged;
            let air = self.app.endpoint().counters();
            say!(
                "acknowledged {acknowledged}; {} frames of {} bytes sent, stack {} bytes",
                air.frames_out,
                air.bytes_out,
                hardware::stack_bytes()
            );
        }
    }

    fn sleep(&mut self, due: Option<Instant>) {
        let now = self.now();
        let until = |at: Instant| u64::try_from(at.total_micros() - now.total_micros()).unwrap_or(0);
        let radio = self.radio.poll_timeout().map(|at| at.saturating_sub(since_start(now)));
        let radio = radio.map(|wait| u64::try_from(wait.as_micros()).unwrap_or(u64::MAX));
        let app = due.map(until);
        let app = if self.radio.can_send() { app } else { app.map(|wait| wait.max(SLEEP_WITHOUT_RADIO_US)) };
        let longest = u64::from(hardware::WAKE_TICKS_MAX) / hardware::CORE_MHZ;
        let wait = [app, radio].into_iter().flatten().min().unwrap_or(longest).min(longest);
        if let Some(ticks) = u32::try_from(wait * hardware::CORE_MHZ).ok().filter(|ticks| *ticks > 0) {
            hardware::sleep(self.timer, ticks);
        }
    }
}

fn since_start(now: Instant) -> SinceStart {
    SinceStart::from_micros(u64::try_from(now.total_micros()).unwrap_or(0))
}

#[panic_handler]
fn panicked(panic: &PanicInfo<'_>) -> ! {
    say!("{panic}; starting again");
    SCB::sys_reset()
}
