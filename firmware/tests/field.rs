//! The application against gateways of a few lines, under a clock of its own: no sockets, no threads, nothing waits.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use tidelog_firmware::flashlog::FlashLog;
use tidelog_firmware::lowpan::coap::{Code, Kind, Message, Writer, option};
use tidelog_firmware::lowpan::time::{Duration, Instant};
use tidelog_firmware::lowpan::{
    Endpoint, EndpointConfig, FRAME_BUFFER_BYTES, NetworkKey, Peer, Quality, SINGLE_FRAME_PAYLOAD_BYTES_MAX,
    SensorEndpoint,
};
use tidelog_firmware::uplink::{
    Answer, METRICS_MAX, Metric, OwnedSchema, Reading, Registration, Sample, Schema, Uplink,
};
use tidelog_firmware::{App, AppConfig, DeviceId, Gateways, Moment, Sampler, WhenFull};
use tidelog_sim::flash::SimFlash;

const SENSOR: DeviceId = DeviceId([2, 0, 0, 0, 0, 0, 0, 1]);
const GATEWAYS: [DeviceId; 2] = [DeviceId([2, 0, 0, 0, 0, 0, 0, 0xa]), DeviceId([2, 0, 0, 0, 0, 0, 0, 0xb])];
const METRICS: [Metric<'static>; 2] =
    [Metric { name: "value", scale: Some(3) }, Metric { name: "count", scale: None }];
const TIME_MS: i64 = 1_700_000_000_000;

type Flash = SimFlash<4, 512>;

fn sample(seq: u64) -> Sample {
    let mut values = [None; METRICS_MAX];
    let n = u32::try_from(seq).unwrap();
    values[0] = Some(Reading::F64(f64::from(n * 7) / 1000.0));
    values[1] = Some(Reading::I64(i64::from(n)));
    Sample { ticks: 1_600_000_000_000 + i64::from(n) * 1000, values }
}

/// So many samples, one after each pause.
struct Replay {
    samples: u64,
    pause: Duration,
    next: Option<Instant>,
    needs_time: bool,
    /// How often it was told that the time is known.
    told: u32,
}

impl Sampler for Replay {
    fn due(&self) -> Option<Instant> {
        self.next
    }

    fn sample(&mut self, moment: Moment) -> Option<Sample> {
        if self.needs_time && moment.unix_ms.is_none() {
            self.next = Some(moment.now + Duration::from_secs(1));
            return None;
        }
        self.next = (moment.seq < self.samples).then_some(moment.now + self.pause);
        (moment.seq <= self.samples).then(|| sample(moment.seq))
    }

    fn needs_time(&self) -> bool {
        self.needs_time
    }

    fn time_is_known(&mut self) {
        self.told += 1;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Serves,
    /// Its radio is deaf.
    Dead,
    /// 5.03 and how many seconds to stay away.
    Unavailable(u32),
    /// Acknowledges more than there is.
    Boasts,
    /// Answers with bytes that are no answer.
    Babbles,
    /// Takes schemas and knows none.
    Forgets,
}

struct Gateway {
    endpoint: Endpoint<1280, 8, 8, 8>,
    mood: Mood,
    /// Where it says that the sensor had better send to.
    advice: Option<DeviceId>,
    schema: Option<OwnedSchema>,
    /// What it holds, by epoch and sequence number.
    held: BTreeMap<(u32, u64), (i64, usize)>,
    asked: Vec<(Instant, String)>,
    payload_bytes_most: usize,
}

const KEY: NetworkKey = NetworkKey::new([0x4b; 16]);

fn gateway_endpoint(device: DeviceId) -> Endpoint<1280, 8, 8, 8> {
    let config = EndpointConfig { key: Some(KEY), counter_block: 1 << 20, ..EndpointConfig::new(device) };
    let mut endpoint = Endpoint::new(config, 9).unwrap();
    endpoint.resume_counters(0);
    endpoint.counters_reserved(endpoint.counter_reserve_due().unwrap());
    endpoint
}

impl Gateway {
    fn new(device: DeviceId) -> Self {
        Self {
            endpoint: gateway_endpoint(device),
            mood: Mood::Serves,
            advice: None,
            schema: None,
            held: BTreeMap::new(),
            asked: Vec::new(),
            payload_bytes_most: 0,
        }
    }

    fn serve(&mut self, now: Instant) {
        let mut datagram = [0; 1232];
        while let Some((peer, length)) = self.endpoint.receive(&mut datagram) {
            assert_eq!(peer, Peer { device: SENSOR, port: 5683 });
            self.payload_bytes_most = self.payload_bytes_most.max(length);
            let request = Message::parse(&datagram[..length]).unwrap();
            if request.kind() == Kind::Reset {
                // It was sent something that it did not ask for.
                continue;
            }
            assert_eq!((request.kind(), request.code()), (Kind::Confirmable, Code::POST));
            let (code, body) = self.answer(now, &request);
            let mut out = [0; 128];
            let mut writer =
                Writer::new(&mut out, Kind::Acknowledgement, code, request.id(), request.token()).unwrap();
            if let Mood::Unavailable(seconds) = self.mood {
                writer = writer.uint(option::MAX_AGE, seconds).unwrap();
            }
            let length = writer.payload(&body).unwrap();
            // While earlier datagrams to the sensor wait for their acknowledgement an answer is lost, and the request comes again.
            let sent = self.endpoint.send(now, peer, &out[..length]);
            assert!(matches!(sent, Ok(()) | Err(tidelog_lowpan::SendError::Busy)), "{sent:?}");
        }
    }

    fn answer(&mut self, now: Instant, request: &Message<'_>) -> (Code, Vec<u8>) {
        let path = if request.path_is(&["s"]) { "s" } else { "b" };
        self.asked.push((now, path.to_owned()));
        match self.mood {
            Mood::Unavailable(_) => return (Code::UNAVAILABLE, Vec::new()),
            Mood::Babbles => return (Code::CHANGED, b"\x94\x01what".to_vec()),
            Mood::Boasts => return (Code::CHANGED, encoded(u64::MAX)),
            Mood::Forgets => self.schema = None,
            Mood::Serves | Mood::Dead => {}
        }
        if path == "s" {
            self.schema = Some(Registration::decode(request.payload()).unwrap().schema);
            return (Code::CREATED, Vec::new());
        }
        let uplink = Uplink::parse(request.payload()).unwrap();
        let Some(schema) = &self.schema else { return (Code::PRECONDITION_FAILED, Vec::new()) };
        let batch = uplink.batch(schema, 0, 0).unwrap();
        let origin = batch.origin.unwrap();
        for index in 0..u64::from(origin.count) {
            let seq = origin.first_seq + index;
            let at = usize::try_from(index).unwrap();
            let times: BTreeSet<i64> = batch.series.iter().map(|(_, points)| points[at].0).collect();
            assert_eq!(times.len(), 1);
            let point = (*times.first().unwrap(), batch.series.len());
            let before = self.held.insert((origin.epoch, seq), point);
            assert!(before.is_none_or(|before| before == point), "{seq} came again and was another");
        }
        (Code::CHANGED, advising(origin.first_seq + u64::from(origin.count) - 1, self.advice))
    }
}

fn encoded(acked_seq: u64) -> Vec<u8> {
    advising(acked_seq, None)
}

fn advising(acked_seq: u64, advice: Option<DeviceId>) -> Vec<u8> {
    let mut bytes = [0; Answer::BYTES_MAX];
    let answer = Answer { advice, ..Answer::new(acked_seq, TIME_MS) };
    let length = answer.encode(&mut bytes).unwrap();
    bytes[..length].to_vec()
}

type TestApp = App<'static, Flash, Replay>;

struct World {
    now: Instant,
    app: TestApp,
    gateways: [Gateway; 2],
    /// Of 256 frames so many are lost.
    loss: u8,
    noise: u64,
    lives: u64,
    /// What the sensor sealed with each frame counter, in all its lives.
    sealed: BTreeMap<[u8; 4], Vec<u8>>,
}

struct Setup {
    samples: u64,
    pause: Duration,
    blocks: usize,
    when_full: WhenFull,
    batch_bytes: usize,
    needs_time: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            samples: 100,
            pause: Duration::from_secs(1),
            blocks: 16,
            when_full: WhenFull::LoseOldest,
            batch_bytes: tidelog_firmware::BATCH_BYTES_DEFAULT,
            needs_time: false,
        }
    }
}

fn app(setup: &Setup, flash: Flash, now: Instant, life: u64) -> Option<TestApp> {
    let schema = Schema::new(1_000_000, &METRICS).unwrap();
    let gateways = Gateways { primary: GATEWAYS[0], backup: Some(GATEWAYS[1]) };
    let config = AppConfig {
        when_full: setup.when_full,
        batch_bytes: setup.batch_bytes,
        ..AppConfig::new(gateways, schema).unwrap()
    };
    let endpoint = EndpointConfig { key: Some(KEY), counter_block: 16, ..EndpointConfig::new(SENSOR) };
    let endpoint = SensorEndpoint::new(endpoint, life).unwrap();
    let log = FlashLog::open(flash, 7).ok()?;
    let Setup { samples, pause, needs_time, .. } = *setup;
    let next = (log.head() < samples).then_some(now);
    Some(App::new(config, endpoint, log, Replay { samples, pause, next, needs_time, told: 0 }, life))
}

impl World {
    fn new(setup: &Setup) -> Self {
        let now = Instant::ZERO;
        let app = app(setup, Flash::new(setup.blocks), now, 1).unwrap();
        Self {
            now,
            app,
            gateways: GATEWAYS.map(Gateway::new),
            loss: 0,
            noise: 1,
            lives: 1,
            sealed: BTreeMap::new(),
        }
    }

    fn heard(&mut self) -> bool {
        self.noise =
            self.noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.noise.to_le_bytes()[7] >= self.loss
    }

    /// Everything that happens at this moment; the next moment. `None`: the flash failed.
    fn settle(&mut self) -> Option<Option<Instant>> {
        let mut frame = [0; FRAME_BUFFER_BYTES];
        loop {
            let mut quiet = true;
            let mut due = vec![self.app.poll(self.now).ok()?];
            while let Some(length) = self.app.poll_transmit(self.now, &mut frame) {
                quiet = false;
                if frame[0] & 0b1111 == 0b1001 {
                    let counter = frame[22..26].try_into().unwrap();
                    let before = self.sealed.insert(counter, frame[..length].to_vec());
                    let same = before.is_none_or(|before| before == frame[..length]);
                    assert!(same, "frame counter {counter:02x?} sealed two different frames");
                }
                for at in 0..2 {
                    if self.gateways[at].mood != Mood::Dead && self.heard() {
                        let quality = Quality { rssi_dbm: -50, lqi: 255 };
                        self.gateways[at].endpoint.handle_frame(self.now, &frame[..length], quality);
                    }
                }
            }
            for at in 0..2 {
                self.gateways[at].endpoint.handle_timeout(self.now);
                self.gateways[at].serve(self.now);
                while let Some(length) = self.gateways[at].endpoint.poll_transmit(self.now, &mut frame) {
                    quiet = false;
                    if self.heard() {
                        self.app.handle_frame(
                            self.now,
                            &frame[..length],
                            Quality { rssi_dbm: -50, lqi: 255 },
                        );
                        self.app.poll(self.now).ok()?;
                    }
                }
                due.push(self.gateways[at].endpoint.poll_timeout());
            }
            if quiet {
                due.push(self.app.poll(self.now).ok()?);
                return Some(due.into_iter().flatten().min());
            }
        }
    }

    /// Lets time pass until `done`, nothing is left to happen, or the end. `false`: the flash failed.
    fn run(&mut self, end: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + end;
        while !done(self) {
            let Some(next) = self.settle() else { return false };
            match next {
                Some(next) if next <= end => self.now = next.max(self.now + Duration::from_micros(100)),
                _ => break,
            }
        }
        true
    }

    fn power_cycle(&mut self, setup: &Setup, flash: impl FnOnce(&mut Flash)) {
        let log = self.app.log();
        let (head, acknowledged) = (log.head(), log.acknowledged());
        let mut bytes = self.app.flash_mut().clone();
        bytes.power_on();
        flash(&mut bytes);
        self.lives += 1;
        self.app = match app(setup, bytes.clone(), self.now, self.lives) {
            Some(app) => app,
            None => {
                bytes.power_on();
                app(setup, bytes, self.now, self.lives).unwrap()
            }
        };
        let log = self.app.log();
        assert!(log.head() == head || log.head() == head + 1, "nothing sensed is forgotten");
        assert!(log.acknowledged() <= acknowledged.max(log.lost()), "nothing is acknowledged by a power cut");
    }

    /// Each sample from the first to the head is held by a gateway as it was sensed, or counted as lost.
    fn check(&self, samples: u64) {
        let log = self.app.log();
        assert_eq!((log.head(), log.acknowledged()), (samples, samples));
        let held: BTreeMap<_, _> = self.gateways.iter().flat_map(|gateway| gateway.held.clone()).collect();
        for ((epoch, seq), point) in &held {
            assert_eq!(*epoch, log.epoch());
            assert_eq!(*point, (sample(*seq).ticks * 1_000_000, METRICS.len()));
        }
        assert_eq!(held.len() as u64 + log.lost(), samples, "sensed is held or counted as lost");
    }

    fn delivered(&self, samples: u64) -> bool {
        self.app.log().acknowledged() >= samples
    }
}

#[test]
fn a_gateway_that_does_not_know_the_schema_is_told_it_once_and_then_gets_everything() {
    let setup = Setup::default();
    let mut world = World::new(&setup);
    world.run(Duration::from_secs(300), |world| world.delivered(100));
    world.check(100);
    let schemas = world.gateways[0].asked.iter().filter(|(_, path)| path == "s").count();
    assert_eq!((schemas, world.app.log().lost(), world.app.counters().moves), (1, 0, 0));
    assert!(world.gateways[1].asked.is_empty());
}

#[test]
fn the_whole_application_fits_a_sensors_memory() {
    let bytes = size_of::<TestApp>();
    println!("{bytes} bytes of state, network stack and buffers included");
    assert!(bytes <= 8 * 1024, "{bytes} bytes");
}

#[test]
fn batches_fit_one_frame_unless_told_otherwise() {
    let setup = Setup { pause: Duration::from_millis(10), ..Setup::default() };
    let mut world = World::new(&setup);
    world.run(Duration::from_secs(300), |world| world.delivered(100));
    world.check(100);
    assert!(world.gateways[0].payload_bytes_most <= SINGLE_FRAME_PAYLOAD_BYTES_MAX);
    let one_frame = world.app.counters().batches;
    let mut world = World::new(&Setup { batch_bytes: 400, ..setup });
    world.run(Duration::from_secs(300), |world| world.delivered(100));
    world.check(100);
    assert!(world.app.counters().batches * 3 < one_frame, "{one_frame} batches in one frame each");
}

#[test]
fn a_sensor_moves_when_its_gateway_falls_silent_and_back_when_the_other_does() {
    let mut world = World::new(&Setup { samples: 1000, ..Setup::default() });
    world.run(Duration::from_secs(100), |_| false);
    assert_eq!(world.app.gateway(), GATEWAYS[0]);
    for (dead, alive) in [(0, 1), (1, 0)] {
        world.gateways[dead].mood = Mood::Dead;
        world.gateways[alive].mood = Mood::Serves;
        let left = world.now;
        world.run(Duration::from_secs(200), |world| world.app.gateway() == GATEWAYS[alive]);
        assert!(world.now - left < Duration::from_secs(120), "it took {}", world.now - left);
    }
    world.run(Duration::from_secs(2000), |world| world.delivered(1000));
    world.check(1000);
    assert_eq!(world.app.counters().moves, 2);
}

#[test]
fn a_sensor_goes_where_its_gateway_advises_and_stays_there_for_a_while_whatever_it_is_advised() {
    let mut world = World::new(&Setup { samples: 3000, ..Setup::default() });
    world.gateways[0].advice = Some(GATEWAYS[0]);
    world.run(Duration::from_secs(100), |_| false);
    assert_eq!(world.app.counters().moves, 0, "it is there already");
    for gateway in 0..2 {
        world.gateways[gateway].advice = Some(GATEWAYS[1 - gateway]);
    }
    world.run(Duration::from_secs(60), |world| world.app.counters().moves > 0);
    assert_eq!(world.app.gateway(), GATEWAYS[1]);
    let moved = world.now;
    world.run(Duration::from_secs(1000), |world| world.app.counters().moves > 1);
    let stayed = world.now - moved;
    assert!(stayed >= Duration::from_secs(600) && stayed < Duration::from_secs(700), "{stayed}");
    world.run(Duration::from_secs(4000), |world| world.delivered(3000));
    world.check(3000);
    assert_eq!(world.app.counters().silences, 0);
}

#[test]
fn a_sensor_that_is_advised_to_go_where_nobody_hears_it_comes_back_and_loses_nothing() {
    let mut world = World::new(&Setup { samples: 1000, ..Setup::default() });
    world.gateways[0].advice = Some(DeviceId([2, 0, 0, 0, 0, 0, 0, 0xc]));
    world.run(Duration::from_secs(600), |_| false);
    assert_eq!((world.app.gateway(), world.app.counters().moves), (GATEWAYS[0], 2));
    world.run(Duration::from_secs(2000), |world| world.delivered(1000));
    world.check(1000);
    assert!(world.gateways[1].asked.is_empty(), "it returns to where it was heard");
}

#[test]
fn a_gateway_that_asks_for_a_pause_gets_it_and_a_long_one_means_moving() {
    for (seconds, moves) in [(5, 0), (60, 1)] {
        let mut world = World::new(&Setup::default());
        world.gateways[0].mood = Mood::Unavailable(seconds);
        world.run(Duration::from_secs(60), |world| world.delivered(3));
        assert_eq!(world.app.counters().moves, moves);
        let times: Vec<_> = world.gateways[0].asked.iter().map(|(at, _)| *at).collect();
        let rest = Duration::from_secs(u64::from(seconds));
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= rest), "{times:?}");
        world.gateways[0].mood = Mood::Serves;
        world.run(Duration::from_secs(400), |world| world.delivered(100));
        world.check(100);
    }
}

#[test]
fn an_answer_that_can_not_be_true_acknowledges_nothing() {
    for mood in [Mood::Boasts, Mood::Babbles, Mood::Forgets] {
        let mut world = World::new(&Setup::default());
        world.gateways[0].mood = mood;
        world.run(Duration::from_secs(100), |_| false);
        assert_eq!(world.app.log().acknowledged(), 0);
        assert!(world.app.counters().refused >= 3, "{:?}", world.app.counters());
        assert!(world.gateways[0].asked.len() < 30, "it is not asked again at once");
        world.gateways[0].mood = Mood::Serves;
        world.run(Duration::from_secs(400), |world| world.delivered(100));
        world.check(100);
    }
}

#[test]
fn a_full_flash_loses_the_oldest_and_counts_them_or_waits_if_told_so() {
    for (when_full, loses) in [(WhenFull::LoseOldest, true), (WhenFull::Wait, false)] {
        let setup = Setup { samples: 300, blocks: 6, when_full, ..Setup::default() };
        let mut world = World::new(&setup);
        world.gateways[0].mood = Mood::Dead;
        world.gateways[1].mood = Mood::Dead;
        world.run(Duration::from_secs(1000), |_| false);
        assert_eq!((world.app.log().lost() > 0, world.app.log().head() == 300), (loses, loses));
        world.gateways[1].mood = Mood::Serves;
        world.run(Duration::from_secs(2000), |world| world.delivered(300));
        world.check(300);
        assert_eq!(world.app.log().lost() > 0, loses);
    }
}

#[test]
fn a_rotten_sample_is_counted_as_lost_and_the_others_keep_their_numbers() {
    let mut lost = 0;
    for at in (0..2048).step_by(37) {
        let setup = Setup { samples: 60, ..Setup::default() };
        let mut world = World::new(&setup);
        for gateway in &mut world.gateways {
            gateway.mood = Mood::Dead;
        }
        world.run(Duration::from_secs(70), |world| world.app.log().head() == 60);
        let mut flash = world.app.flash_mut().clone();
        flash.rot(at, 0x10);
        let head = FlashLog::open(flash.clone(), 7).unwrap().head();
        world.app = app(&setup, flash, world.now, 2).unwrap();
        for gateway in &mut world.gateways {
            gateway.mood = Mood::Serves;
        }
        world.run(Duration::from_secs(500), |world| world.delivered(60));
        // Rot in the very last record, and only there, is not told from a torn one: it is sensed again.
        assert!(head == 60 || world.app.log().lost() == 0, "rot at {at}");
        world.check(60);
        lost += world.app.log().lost();
    }
    assert!(lost > 10, "{lost} lost");
}

#[test]
fn a_sensor_that_needs_the_time_asks_for_it_before_its_first_sample() {
    let mut world = World::new(&Setup { needs_time: true, ..Setup::default() });
    world.run(Duration::from_secs(300), |world| world.delivered(100));
    world.check(100);
    assert_eq!(world.gateways[0].held.len(), 100);
    assert_eq!(world.app.sampler_mut().told, 1);
}

/// Of a seed, 1 unless `TIDELOG_SEED` says another.
#[test]
fn a_thousand_power_cuts_at_random_moments_take_nothing_that_reached_the_flash() {
    const CUTS: u32 = 1000;
    let seed: u64 = std::env::var("TIDELOG_SEED").map_or(1, |seed| seed.parse().unwrap());
    println!("TIDELOG_SEED={seed}");
    let samples = 5000;
    let setup = Setup { samples, when_full: WhenFull::Wait, ..Setup::default() };
    let mut world = World::new(&setup);
    (world.loss, world.noise) = (13, seed);
    let mut noise = seed;
    let mut dice = |most: u64| {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (noise >> 33) % most
    };
    let (mut in_a_write, mut in_the_start) = (0, 0);
    for _ in 0..CUTS {
        world.run(Duration::from_millis(dice(4000)), |_| false);
        // Somewhere in its next writes and erases, if it comes to so many within seconds.
        world.app.flash_mut().cut_after(dice(40), dice(u64::MAX));
        let still_on = world.run(Duration::from_secs(3), |_| false);
        in_a_write += u32::from(!still_on);
        let (again, torn) = ((dice(4) == 0).then(|| dice(6)), dice(u64::MAX));
        in_the_start += u32::from(again.is_some());
        world.power_cycle(&setup, |flash| match again {
            Some(steps) => flash.cut_after(steps, torn),
            None => flash.power_on(),
        });
        world.app.flash_mut().power_on();
    }
    let counted = world.app.log().head();
    println!(
        "{CUTS} cuts, {in_a_write} of them in a write, {in_the_start} followed by one at the start; {counted} samples"
    );
    assert!(in_a_write > CUTS / 3 && counted > 500);
    world.run(Duration::from_secs(20_000), |world| world.delivered(samples));
    assert_eq!(world.app.log().lost(), 0);
    world.check(samples);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn frames_of_noise_and_forged_answers_change_nothing(
        noise in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..126), 1..40),
        forged in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..40),
    ) {
        let mut world = World::new(&Setup::default());
        world.gateways[0].mood = Mood::Dead;
        world.run(Duration::from_secs(5), |_| false);
        let mut frame = [0; FRAME_BUFFER_BYTES];
        for (noise, forged) in noise.iter().zip(&forged) {
            world.app.handle_frame(world.now, noise, Quality { rssi_dbm: -90, lqi: 0 });
            // From the gateway itself, so that it reaches the exchange.
            let peer = Peer { device: SENSOR, port: 5683 };
            world.gateways[0].endpoint.send(world.now, peer, forged).unwrap_or_default();
            while let Some(length) = world.gateways[0].endpoint.poll_transmit(world.now, &mut frame) {
                world.app.handle_frame(world.now, &frame[..length], Quality { rssi_dbm: -50, lqi: 255 });
            }
            world.app.poll(world.now).unwrap();
            world.now += Duration::from_millis(200);
            world.gateways[0].endpoint.handle_timeout(world.now);
        }
        prop_assert_eq!(world.app.log().acknowledged(), 0);
        world.gateways[0].mood = Mood::Serves;
        world.run(Duration::from_secs(400), |world| world.delivered(100));
        world.check(100);
    }

    #[test]
    fn whatever_is_lost_cut_or_dead_each_sample_arrives_as_sensed(
        seed: u64, loss in 0u8..80, blocks in 6usize..16,
        events in prop::collection::vec((1u64..120, 0u8..5, 0u64..60), 0..12),
    ) {
        let setup = Setup { samples: 150, pause: Duration::from_millis(700), blocks, when_full: WhenFull::Wait, ..Setup::default() };
        let mut world = World::new(&setup);
        (world.loss, world.noise) = (loss, seed);
        for (seconds, event, steps) in events {
            let alive = world.run(Duration::from_secs(seconds), |_| false);
            match event {
                // The power goes in the middle of a write.
                0 if alive => {
                    world.app.flash_mut().cut_after(steps, seed);
                    let still_on = world.run(Duration::from_secs(30), |_| false);
                    world.power_cycle(&setup, |flash| if still_on { flash.power_on() } else { flash.cut_after(steps % 3, seed) });
                    world.app.flash_mut().power_on();
                }
                1 => world.gateways[usize::from(steps % 2 == 0)].mood = Mood::Dead,
                2 => world.gateways[usize::from(steps % 2 == 0)].mood = Mood::Serves,
                // A gateway that forgets schemas, as one that was restarted does.
                3 => world.gateways[usize::from(steps % 2 == 0)].schema = None,
                _ => world.power_cycle(&setup, |_| {}),
            }
        }
        for gateway in &mut world.gateways {
            gateway.mood = Mood::Serves;
        }
        world.run(Duration::from_secs(5000), |world| world.delivered(150));
        prop_assert_eq!(world.app.log().lost(), 0);
        world.check(150);
    }
}
