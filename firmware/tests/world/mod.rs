//! A sensor's application and two gateways of a few lines, on an air that loses frames, under a clock of its own. What is right is the tests' affair, but for
//! what no test may see: a sample that comes again as another, a frame counter that seals two frames.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_firmware::flashlog::FlashLog;
use tidelog_firmware::lowpan::coap::{Code, Kind, Message, Writer, option};
use tidelog_firmware::lowpan::time::{Duration, Instant};
use tidelog_firmware::lowpan::{
    Endpoint, EndpointConfig, FRAME_BUFFER_BYTES, NetworkKey, Peer, Quality, SensorEndpoint,
};
use tidelog_firmware::uplink::{
    Answer, METRICS_MAX, Metric, OwnedSchema, Reading, Registration, Sample, Schema, Uplink,
};
use tidelog_firmware::{App, AppConfig, DeviceId, Gateways, Moment, Sampler, WhenFull};
use tidelog_sim::flash::SimFlash;

pub const SENSOR: DeviceId = DeviceId([2, 0, 0, 0, 0, 0, 0, 1]);
pub const GATEWAYS: [DeviceId; 2] =
    [DeviceId([2, 0, 0, 0, 0, 0, 0, 0xa]), DeviceId([2, 0, 0, 0, 0, 0, 0, 0xb])];
pub const METRICS: [Metric<'static>; 2] =
    [Metric { name: "value", scale: Some(3) }, Metric { name: "count", scale: None }];
pub const TIME_MS: i64 = 1_700_000_000_000;

pub type Flash = SimFlash<4, 512>;

pub fn sample(seq: u64) -> Sample {
    let mut values = [None; METRICS_MAX];
    let n = u32::try_from(seq).unwrap();
    values[0] = Some(Reading::F64(f64::from(n * 7) / 1000.0));
    values[1] = Some(Reading::I64(i64::from(n)));
    Sample { ticks: 1_600_000_000_000 + i64::from(n) * 1000, values }
}

/// So many samples, one after each pause.
pub struct Replay {
    pub samples: u64,
    pub pause: Duration,
    pub next: Option<Instant>,
    pub needs_time: bool,
    /// How often it was told that the time is known.
    pub told: u32,
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
pub enum Mood {
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

pub struct Gateway {
    pub endpoint: Endpoint<1280, 8, 8, 8>,
    pub mood: Mood,
    /// Where it says that the sensor had better send to.
    pub advice: Option<DeviceId>,
    pub schema: Option<OwnedSchema>,
    /// What it holds, by epoch and sequence number.
    pub held: BTreeMap<(u32, u64), (i64, usize)>,
    pub asked: Vec<(Instant, String)>,
    pub payload_bytes_most: usize,
}

pub const KEY: NetworkKey = NetworkKey::new([0x4b; 16]);

pub fn gateway_endpoint(device: DeviceId) -> Endpoint<1280, 8, 8, 8> {
    let config = EndpointConfig { key: Some(KEY), counter_block: 1 << 20, ..EndpointConfig::new(device) };
    let mut endpoint = Endpoint::new(config, 9).unwrap();
    endpoint.resume_counters(0);
    endpoint.counters_reserved(endpoint.counter_reserve_due().unwrap());
    endpoint
}

impl Gateway {
    pub fn new(device: DeviceId) -> Self {
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

    pub fn serve(&mut self, now: Instant) {
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

    pub fn answer(&mut self, now: Instant, request: &Message<'_>) -> (Code, Vec<u8>) {
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

pub fn encoded(acked_seq: u64) -> Vec<u8> {
    advising(acked_seq, None)
}

pub fn advising(acked_seq: u64, advice: Option<DeviceId>) -> Vec<u8> {
    let mut bytes = [0; Answer::BYTES_MAX];
    let answer = Answer { advice, ..Answer::new(acked_seq, TIME_MS) };
    let length = answer.encode(&mut bytes).unwrap();
    bytes[..length].to_vec()
}

pub type TestApp = App<'static, Flash, Replay>;

pub struct World {
    pub now: Instant,
    pub app: TestApp,
    pub gateways: [Gateway; 2],
    /// Of 256 frames so many are lost.
    pub loss: u8,
    pub noise: u64,
    pub lives: u64,
    /// What the sensor sealed with each frame counter, in all its lives.
    pub sealed: BTreeMap<[u8; 4], Vec<u8>>,
}

pub struct Setup {
    pub samples: u64,
    pub pause: Duration,
    pub blocks: usize,
    pub when_full: WhenFull,
    pub batch_bytes: usize,
    pub needs_time: bool,
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

pub fn app(setup: &Setup, flash: Flash, now: Instant, life: u64) -> Option<TestApp> {
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
    pub fn new(setup: &Setup) -> Self {
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

    pub fn heard(&mut self) -> bool {
        self.noise =
            self.noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.noise.to_le_bytes()[7] >= self.loss
    }

    /// Everything that happens at this moment; the next moment. `None`: the flash failed.
    pub fn settle(&mut self) -> Option<Option<Instant>> {
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
    pub fn run(&mut self, end: Duration, done: impl Fn(&Self) -> bool) -> bool {
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

    pub fn power_cycle(&mut self, setup: &Setup, flash: impl FnOnce(&mut Flash)) {
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
    pub fn check(&self, samples: u64) {
        let log = self.app.log();
        assert_eq!((log.head(), log.acknowledged()), (samples, samples));
        let held: BTreeMap<_, _> = self.gateways.iter().flat_map(|gateway| gateway.held.clone()).collect();
        for ((epoch, seq), point) in &held {
            assert_eq!(*epoch, log.epoch());
            assert_eq!(*point, (sample(*seq).ticks * 1_000_000, METRICS.len()));
        }
        assert_eq!(held.len() as u64 + log.lost(), samples, "sensed is held or counted as lost");
    }

    pub fn delivered(&self, samples: u64) -> bool {
        self.app.log().acknowledged() >= samples
    }
}
