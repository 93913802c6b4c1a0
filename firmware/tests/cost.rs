//! What a reading costs a sensor: bytes and time on the air, and writes to its flash. A station of four metrics, with link security, on an air that
//! loses nothing; every frame is counted, acknowledgements too. The figures are printed, and held to bounds that may only fall.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]

use tidelog_firmware::flashlog::FlashLog;
use tidelog_firmware::lowpan::coap::{Code, Kind, Message, Writer};
use tidelog_firmware::lowpan::time::{Duration, Instant};
use tidelog_firmware::lowpan::{
    Endpoint, EndpointConfig, FRAME_BUFFER_BYTES, NetworkKey, Quality, SINGLE_FRAME_PAYLOAD_BYTES_MAX,
    SensorEndpoint,
};
use tidelog_firmware::uplink::{Answer, Metric, OwnedSchema, Reading, Registration, Schema, Uplink};
use tidelog_firmware::{App, AppConfig, DeviceId, Every, Gateways, Sensor};
use tidelog_sim::flash::SimFlash;

const SENSOR: DeviceId = DeviceId([2, 0, 0, 0, 0, 0, 0, 1]);
const GATEWAY: DeviceId = DeviceId([2, 0, 0, 0, 0, 0, 0, 0xa]);
const KEY: NetworkKey = NetworkKey::new([0x4b; 16]);
const METRICS: [Metric<'static>; 4] = [
    Metric { name: "temperature", scale: Some(2) },
    Metric { name: "humidity", scale: Some(2) },
    Metric { name: "light", scale: None },
    Metric { name: "battery_volts", scale: Some(3) },
];
const TIME_MS: i64 = 1_700_000_000_000;
const INTERVAL: Duration = Duration::from_secs(60);
const SAMPLES: u64 = 2_000;

/// Preamble, start of frame and length go before each frame, its check sequence behind it (IEEE 802.15.4-2020 section 12.1).
const AROUND_A_FRAME_BYTES: u64 = 4 + 1 + 1 + 2;
/// At 250 kbit/s.
const BYTE_US: u64 = 32;

/// Values that wander as those of a room do.
struct Room {
    noise: u64,
    celsius_hundredths: i64,
    percent_hundredths: i64,
    light: i64,
    millivolts: i64,
}

impl Room {
    fn step(&mut self, most: i64) -> i64 {
        self.noise =
            self.noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from(self.noise >> 33).unwrap() % (2 * most + 1) - most
    }
}

impl Sensor for Room {
    const VALUES: usize = METRICS.len();

    fn read(&mut self, values: &mut [Option<Reading>]) {
        let [warmer, damper] = [self.step(8), self.step(8)];
        self.celsius_hundredths += warmer;
        self.percent_hundredths += damper;
        values[0] = Some(Reading::F64(self.celsius_hundredths as f64 / 100.0));
        values[1] = Some(Reading::F64(self.percent_hundredths as f64 / 100.0));
        self.light = (self.light + self.step(20)).max(0);
        self.millivolts -= i64::from(self.step(50) == 0);
        values[2] = Some(Reading::I64(self.light));
        values[3] = Some(Reading::F64(self.millivolts as f64 / 1000.0));
    }
}

/// The frames of one side.
#[derive(Default)]
struct Air {
    frames: u64,
    bytes: u64,
}

impl Air {
    fn carry(&mut self, frame: &[u8]) {
        self.frames += 1;
        self.bytes += frame.len() as u64 + AROUND_A_FRAME_BYTES;
    }
}

/// A gateway that answers at once.
struct Gateway {
    endpoint: Endpoint<1280, 8, 8, 8>,
    schema: Option<OwnedSchema>,
    samples: u64,
    /// Bytes, samples and values of each batch.
    batches: Vec<(usize, u64, usize)>,
}

impl Gateway {
    fn new() -> Self {
        let config =
            EndpointConfig { key: Some(KEY), counter_block: 1 << 20, ..EndpointConfig::new(GATEWAY) };
        let mut endpoint = Endpoint::new(config, 9).unwrap();
        endpoint.resume_counters(0);
        endpoint.counters_reserved(endpoint.counter_reserve_due().unwrap());
        Self { endpoint, schema: None, samples: 0, batches: Vec::new() }
    }

    fn serve(&mut self, now: Instant) {
        let mut datagram = [0; 1232];
        while let Some((peer, length)) = self.endpoint.receive(&mut datagram) {
            let request = Message::parse(&datagram[..length]).unwrap();
            let (code, body) = self.answer(now, &request);
            let mut out = [0; 128];
            let writer =
                Writer::new(&mut out, Kind::Acknowledgement, code, request.id(), request.token()).unwrap();
            let length = writer.payload(&body).unwrap();
            self.endpoint.send(now, peer, &out[..length]).unwrap();
        }
    }

    fn answer(&mut self, now: Instant, request: &Message<'_>) -> (Code, Vec<u8>) {
        if request.path_is(&["s"]) {
            self.schema = Some(Registration::decode(request.payload()).unwrap().schema);
            return (Code::CREATED, Vec::new());
        }
        let uplink = Uplink::parse(request.payload()).unwrap();
        let Some(schema) = &self.schema else { return (Code::PRECONDITION_FAILED, Vec::new()) };
        let batch = uplink.batch(schema, 0, 0).unwrap();
        let origin = batch.origin.unwrap();
        let count = u64::from(origin.count);
        if count > 0 {
            self.samples += count;
            self.batches.push((request.payload().len(), count, batch.points()));
        }
        let acked = origin.first_seq + count - 1;
        let mut bytes = [0; Answer::BYTES_MAX];
        let length = Answer::new(acked, TIME_MS + now.total_millis()).encode(&mut bytes).unwrap();
        (Code::CHANGED, bytes[..length].to_vec())
    }
}

#[test]
fn a_reading_costs_no_more_on_the_air_and_in_the_flash_than_it_did() {
    let gateways = Gateways { primary: GATEWAY, backup: None };
    let schema = Schema::new(1_000_000, &METRICS).unwrap();
    // Nobody is in a hurry: a batch is sent when another sample would not fit.
    let config = AppConfig { linger: Duration::from_secs(3600), ..AppConfig::new(gateways, schema).unwrap() };
    let endpoint = EndpointConfig { key: Some(KEY), counter_block: 1024, ..EndpointConfig::new(SENSOR) };
    let room =
        Room { noise: 1, celsius_hundredths: 2137, percent_hundredths: 4520, light: 300, millivolts: 3012 };
    let log = FlashLog::open(SimFlash::<4, 4096>::new(16), 7).unwrap();
    let formatted = log.head();
    let sampler = Every::new(room, schema, INTERVAL, Instant::ZERO);
    let mut app = App::new(config, SensorEndpoint::new(endpoint, 1).unwrap(), log, sampler, 1);
    let steps_before = app.flash_mut().steps();

    let (mut gateway, mut now) = (Gateway::new(), Instant::ZERO);
    let (mut sent, mut heard) = (Air::default(), Air::default());
    let mut frame = [0; FRAME_BUFFER_BYTES];
    let quality = Quality { rssi_dbm: -50, lqi: 255 };
    while gateway.samples < SAMPLES {
        let mut due = vec![app.poll(now).unwrap(), gateway.endpoint.poll_timeout()];
        let mut quiet = true;
        while let Some(length) = app.poll_transmit(now, &mut frame) {
            quiet = false;
            sent.carry(&frame[..length]);
            gateway.endpoint.handle_frame(now, &frame[..length], quality);
        }
        gateway.endpoint.handle_timeout(now);
        gateway.serve(now);
        while let Some(length) = gateway.endpoint.poll_transmit(now, &mut frame) {
            quiet = false;
            heard.carry(&frame[..length]);
            app.handle_frame(now, &frame[..length], quality);
            app.poll(now).unwrap();
        }
        if quiet {
            due.extend([app.poll(now).unwrap(), gateway.endpoint.poll_timeout()]);
            now = due.into_iter().flatten().min().unwrap().max(now + Duration::from_micros(100));
        }
    }
    assert_eq!((formatted, app.log().lost(), app.counters().silences), (0, 0, 0));

    let samples = gateway.samples as f64;
    let per = |count: u64| count as f64 / samples;
    // The last batch may be cut short by the end.
    let full = &gateway.batches[..gateway.batches.len() - 1];
    let (bytes, count, values) =
        full.iter().fold((0, 0, 0), |sum, batch| (sum.0 + batch.0, sum.1 + batch.1, sum.2 + batch.2));
    let least = full.iter().map(|(_, count, _)| *count).min().unwrap();
    let bytes_per_value = bytes as f64 / values as f64;
    let bytes_on_air = per(sent.bytes + heard.bytes);
    let radio_ms = per((sent.bytes + heard.bytes) * BYTE_US) / 1000.0;
    let steps = per(app.flash_mut().steps() - steps_before);
    let erased = app.flash_mut().wear().iter().map(|times| u64::from(*times)).sum::<u64>();
    println!(
        "a frame: {:.1} samples of {} metrics, at least {least}; a value: {bytes_per_value:.2} bytes",
        count as f64 / full.len() as f64,
        METRICS.len()
    );
    println!(
        "a sample: {bytes_on_air:.1} bytes on the air in {:.2} frames, {radio_ms:.2} ms of radio (sends {:.2})",
        per(sent.frames + heard.frames),
        per(sent.bytes * BYTE_US) / 1000.0
    );
    println!("a sample: {steps:.2} words programmed in flash, {:.4} blocks erased", per(erased));

    assert!(gateway.batches.iter().all(|(bytes, ..)| *bytes <= SINGLE_FRAME_PAYLOAD_BYTES_MAX));
    assert!(least >= 4, "{least} samples in a frame");
    assert!(bytes_per_value < 3.9 && bytes_on_air < 53.5 && steps < 10.5, "more than it was");
}
