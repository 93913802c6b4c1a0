//! The sensor on Nordic's nRF52840-DK: read the settings, bind radio, flash and sensor to the application, run. The application, the flash log and the
//! network are the libraries that every board has; this crate brings the pins. It was compiled and never run on hardware: `docs/FLASHING.md`.
//!
//! There is no executor. The radio's driver is a future, the application says when to come back, and one loop serves both and sleeps in between.

#![no_std]
#![no_main]

mod air;
mod clock;
mod console;
mod lights;
mod map;
mod supply;

use core::cell::RefCell;
use core::convert::Infallible;
use core::future::Future;
use core::panic::PanicInfo;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};

use cortex_m::peripheral::SCB;
use cortex_m::singleton;
use cortex_m_rt::entry;
use embassy_embedded_hal::flash::partition::BlockingPartition;
use embassy_embedded_hal::shared_bus::blocking::i2c::I2cDevice;
use embassy_nrf::config::{Config, HfclkSource, LfclkSource};
use embassy_nrf::gpio::{Level, Output, OutputDrive};
use embassy_nrf::nvmc::Nvmc;
use embassy_nrf::radio::ieee802154::Radio;
use embassy_nrf::rng::Rng;
use embassy_nrf::saadc::{self, ChannelConfig, Saadc, VddInput};
use embassy_nrf::twim::Twim;
use embassy_nrf::wdt::{self, HaltConfig, Watchdog, WatchdogHandle};
use embassy_nrf::{Peripherals, bind_interrupts, pac, peripherals, radio, twim};
use embassy_sync::blocking_mutex::Mutex;
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embedded_storage::nor_flash::ReadNorFlash;
use tidelog_firmware::battery::{self, Battery};
use tidelog_firmware::flashlog::FlashLog;
use tidelog_firmware::lowpan::access::{Access, AccessCounters};
use tidelog_firmware::lowpan::time::{Duration, Instant};
use tidelog_firmware::lowpan::{EndpointConfig, FRAME_BUFFER_BYTES, SensorEndpoint};
use tidelog_firmware::opt3001::{self, Opt3001};
use tidelog_firmware::page;
use tidelog_firmware::settings::{Settings, Word};
use tidelog_firmware::sht4x::{self, Sht4x};
use tidelog_firmware::uplink::{Metric, Schema};
use tidelog_firmware::{App, AppConfig, Blink, DeviceId, Every, Told};

use crate::air::Air;
use crate::clock::Wait;
use crate::lights::Lights;
use crate::supply::Supply;

/// A tick of the schema is a millisecond.
const TICK_NS: u32 = 1_000_000;
/// The watchdog's crystal ticks this often in a second.
const WATCHDOG_HZ: u32 = 32_768;
/// A board that did not come by for so long is started anew.
const WATCHDOG_S: u32 = 60;
/// The longest sleep: the watchdog wants to be told that all is well.
const SLEEP_MAX: Duration = Duration::from_secs(10);
/// What a sample holds, in this order.
const METRICS: [Metric<'static>; 4] = {
    let [temperature, humidity] = sht4x::METRICS;
    [temperature, humidity, opt3001::METRIC, battery::METRIC]
};
/// Bytes that a write to a sensor may have while they stand in flash, where the bus's DMA reads nothing.
const BUS_BYTES: usize = 8;

type Flash = BlockingPartition<'static, NoopRawMutex, Nvmc<'static>>;
type Wires = Mutex<NoopRawMutex, RefCell<Twim<'static>>>;
type Bus = I2cDevice<'static, NoopRawMutex, Twim<'static>>;
type Sensors = ((Sht4x<Bus, Wait>, Opt3001<Bus>), Battery<Supply>);
type Sampler = Told<Every<'static, Sensors>, Lights>;
type Sensor = App<'static, Flash, Sampler>;

bind_interrupts!(struct Interrupts {
    RADIO => radio::InterruptHandler<peripherals::RADIO>;
    TWISPI0 => twim::InterruptHandler<peripherals::TWISPI0>;
    SAADC => saadc::InterruptHandler;
});

#[entry]
fn main() -> ! {
    rtt_target::rtt_init_print!();
    let mut config = Config::default();
    // The radio needs the one crystal, the clock is exact by the other.
    config.hfclk_source = HfclkSource::ExternalXtal;
    config.lfclk_source = LfclkSource::ExternalXtal;
    let mut chip = embassy_nrf::init(config);
    let mut bytes = [0; page::PAGE_BYTES_MAX];
    match settings(&mut Nvmc::new(chip.NVMC.reborrow()), &mut bytes) {
        None => say!("the board does not start: it has no settings"),
        Some(settings) => match board(settings, chip) {
            None => say!("the board does not start: its settings are refused"),
            Some((board, radio)) => {
                let serving = pin!(board.air.serve(radio));
                board.run(serving);
            }
        },
    }
    loop {
        cortex_m::asm::wfe();
    }
}

/// What the page of settings says. What is wrong with it is said on the console.
fn settings(flash: &mut Nvmc<'_>, bytes: &mut [u8; page::PAGE_BYTES_MAX]) -> Option<Settings> {
    if flash.read(map::SETTINGS_AT, bytes).is_err() {
        return None;
    }
    let words = page::text(bytes).map_err(|error| say!("{error}")).ok()?;
    Settings::parse(words, Some(factory_eui()), |_, _| Word::Unknown).map_err(|error| say!("{error}")).ok()
}

/// Of an address: that it is of this place, and that it is of a group.
const LOCAL: u8 = 0b10;
const GROUP: u8 = 0b01;

/// The number that the chip was given when it was made, as an address: random, so it says of itself that nobody assigned it.
fn factory_eui() -> DeviceId {
    let number = [pac::FICR.deviceid(1).read(), pac::FICR.deviceid(0).read()];
    let [low, high] = number.map(u64::from);
    let [first, rest @ ..] = (high << 32 | low).to_be_bytes();
    let [b1, b2, b3, b4, b5, b6, b7] = rest;
    DeviceId([first & !GROUP | LOCAL, b1, b2, b3, b4, b5, b6, b7])
}

/// Everything that the board is, in memory that is counted when it is linked. `None`: the settings name no possible sensor.
fn board(settings: Settings, chip: Peripherals) -> Option<(&'static mut Board, Radio<'static>)> {
    let mut random = Rng::new_blocking(chip.RNG);
    let (seed, entropy, spread) =
        (random.blocking_next_u32(), random.blocking_next_u64(), random.blocking_next_u64());
    let flash: &'static Mutex<NoopRawMutex, RefCell<Nvmc<'static>>> = singleton!(: Mutex<NoopRawMutex, RefCell<Nvmc<'static>>> =
        Mutex::new(RefCell::new(Nvmc::new(chip.NVMC))))?;
    let log = match FlashLog::open(Flash::new(flash, map::LOG_AT, map::LOG_BYTES), seed) {
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
    // The acknowledgements are `air`'s.
    let station = EndpointConfig { soft_ack: false, ..settings.station };
    say!("eui={} pan={:#06x} channel={}", station.eui, station.pan, station.channel);
    let mut radio = Radio::new(chip.RADIO, Interrupts);
    radio.set_channel(station.channel);
    let air: &'static Air = singleton!(: Air = Air::new(&station, spread))?;
    let endpoint = SensorEndpoint::new(station, entropy).ok()?;
    let written: &'static mut [u8; BUS_BYTES] = singleton!(: [u8; BUS_BYTES] = [0; BUS_BYTES])?;
    let mut pulled_up = twim::Config::default();
    (pulled_up.sda_pullup, pulled_up.scl_pullup) = (true, true);
    let wires: &'static Wires = singleton!(: Wires = Mutex::new(RefCell::new(Twim::new(
        chip.TWISPI0, Interrupts, chip.P0_26, chip.P0_27, pulled_up, written))))?;
    let bus = || Bus::new(wires);
    let converter =
        Saadc::new(chip.SAADC, Interrupts, saadc::Config::default(), [ChannelConfig::single_ended(VddInput)]);
    let sensors = ((Sht4x::new(bus(), Wait), Opt3001::new(bus())), Battery(Supply::new(converter)));
    let hands = Lights {
        outputs: [
            Output::new(chip.P0_13, Level::High, OutputDrive::Standard),
            Output::new(chip.P0_14, Level::High, OutputDrive::Standard),
            Output::new(chip.P0_15, Level::High, OutputDrive::Standard),
        ],
        shown: Output::new(chip.P0_16, Level::High, OutputDrive::Standard),
        blink: Blink::default(),
    };
    let sampler = Told { sampler: Every::new(sensors, schema, settings.interval, clock::now()), hands };
    let board = singleton!(: Board = Board {
        air,
        app: App::new(config, endpoint, log, sampler, entropy),
        watchdog: watchdog(chip.WDT),
        acknowledged,
    })?;
    Some((board, radio))
}

/// Starts the watchdog, or goes on with one that runs since before a restart. `None`: it runs in another way, for another program.
fn watchdog(chip: embassy_nrf::Peri<'static, peripherals::WDT>) -> Option<WatchdogHandle> {
    let mut config = wdt::Config::default();
    config.timeout_ticks = WATCHDOG_S * WATCHDOG_HZ;
    config.action_during_debug_halt = HaltConfig::Pause;
    Watchdog::try_new(chip, config).ok().map(|(_, [handle])| handle)
}

struct Board {
    air: &'static Air,
    app: Sensor,
    watchdog: Option<WatchdogHandle>,
    /// What was last said to be acknowledged.
    acknowledged: u64,
}

impl Board {
    fn run(&mut self, mut serving: Pin<&mut impl Future<Output = Infallible>>) -> ! {
        loop {
            if let Some(watchdog) = &mut self.watchdog {
                watchdog.pet();
            }
            self.look_after(serving.as_mut());
            while let Some(heard) = self.air.with(Access::take) {
                self.app.handle_frame(clock::now(), &heard.frame, heard.quality);
                self.poll();
                self.look_after(serving.as_mut());
            }
            let due = self.poll();
            self.transmit();
            self.tell();
            let now = clock::now();
            let shown = self.app.sampler_mut().hands.show(now);
            if self.app.reboot_due(now) {
                say!("starting anew, as a command says");
                SCB::sys_reset();
            }
            self.sleep([due, shown], serving.as_mut());
        }
    }

    /// Lets the radio do what is due.
    fn look_after(&self, serving: Pin<&mut impl Future<Output = Infallible>>) {
        let Poll::Ready(never) = serving.poll(&mut Context::from_waker(Waker::noop())) else {
            return self.air.watched();
        };
        match never {}
    }

    /// Lets the application do what is due.
    fn poll(&mut self) -> Option<Instant> {
        self.app.poll(clock::now()).unwrap_or_else(|error| {
            // Nothing that is stored is lost by starting again.
            say!("flash: {error:?}; starting again");
            SCB::sys_reset()
        })
    }

    /// Moves a frame from the application to the radio.
    fn transmit(&mut self) {
        let mut frame = [0; FRAME_BUFFER_BYTES];
        let now = clock::now();
        if self.air.with(|access| access.can_send())
            && let Some(length) = self.app.poll_transmit(now, &mut frame)
            && let Err(error) =
                self.air.with(|access| access.send(now, frame.get(..length).unwrap_or_default()))
        {
            say!("radio: {error}");
        }
    }

    fn tell(&mut self) {
        let acknowledged = self.app.log().acknowledged();
        if acknowledged != self.acknowledged {
            self.acknowledged = acknowledged;
            let air = self.app.endpoint().counters();
            say!("acknowledged {acknowledged}; {} frames of {} bytes sent", air.frames_out, air.bytes_out);
            let AccessCounters { late, no_room, given_up } = self.air.with(|access| access.counters());
            say!("radio: {late} frames seen late, {no_room} without room, {given_up} never left");
        }
    }

    /// Sleeps until something is due or heard, or a frame that was sent makes place for the next.
    fn sleep(&self, due: [Option<Instant>; 2], mut serving: Pin<&mut impl Future<Output = Infallible>>) {
        // Right before the first sleep too, so that what ends it came just then.
        self.look_after(serving.as_mut());
        let longest = clock::now() + SLEEP_MAX;
        let [app, shown] = due;
        let sends = !self.air.with(|access| access.can_send());
        // While a frame waits for the air, the application's next one is due all the time.
        let app = app.filter(|_| !sends);
        while self.air.with(|access| !access.has_heard() && access.can_send() != sends) {
            let leaving = self.air.with(|access| access.due());
            let until = [app, shown, leaving, Some(longest)].into_iter().flatten().min().unwrap_or(longest);
            if clock::now() >= until {
                return;
            }
            clock::sleep(until);
            self.air.watched();
            self.look_after(serving.as_mut());
        }
    }
}

#[panic_handler]
fn panicked(panic: &PanicInfo<'_>) -> ! {
    say!("{panic}; starting again");
    SCB::sys_reset()
}
