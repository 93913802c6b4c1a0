//! A board, two gateways and the air between them, under a clock of their own; and what must be so of whatever they did.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use tidelog_firmware::flashlog::FlashLog;
use tidelog_firmware::lowpan::coap::{Code, Kind, Message, Writer};
use tidelog_firmware::lowpan::time::{Duration, Instant};
use tidelog_firmware::lowpan::{
    Endpoint, EndpointConfig, FRAME_BUFFER_BYTES, NetworkKey, Quality, SINGLE_FRAME_PAYLOAD_BYTES_MAX,
    SensorEndpoint,
};
use tidelog_firmware::uplink::{
    Act, Answer, COMMAND_ID_METRIC, COMMAND_STATE_METRIC, Command, CommandId, CommandState, METRICS_MAX,
    Metric, OwnedSchema, Reading, Registration, Sample, Schema, Uplink,
};
use tidelog_firmware::{App, AppConfig, DeviceId, Gateways, Moment, Refusal, Sampler, WhenFull};
use tidelog_record::Value;
use tidelog_sim::flash::SimFlash;

pub const SENSOR: DeviceId = DeviceId([2, 0, 0, 0, 0, 0, 0, 1]);
pub const GATEWAYS: [DeviceId; 2] =
    [DeviceId([2, 0, 0, 0, 0, 0, 0, 0xa]), DeviceId([2, 0, 0, 0, 0, 0, 0, 0xb])];
pub const METRICS: [Metric<'static>; 1] = [Metric { name: "value", scale: Some(3) }];
pub const KEY: NetworkKey = NetworkKey::new([0x4b; 16]);
/// The Unix time at the world's zero.
pub const TIME_MS: i64 = 1_700_000_000_000;
pub const PAUSE: Duration = Duration::from_millis(700);
/// Events of one moment move apart, each by a millisecond.
pub const TICKS_APART_MS: i64 = 8;

pub type Flash = SimFlash<4, 512>;
pub type Board = App<'static, Flash, Hands>;

pub fn unix_ms(now: Instant) -> i64 {
    TIME_MS + now.total_millis()
}

/// What was asked of the board's hands, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deed {
    pub act: Act,
    pub at_ms: i64,
}

/// A board that writes down what it is told to do.
pub struct Hands {
    pub deeds: Rc<RefCell<Vec<Deed>>>,
    pub now: Rc<RefCell<Instant>>,
    pub interval: Duration,
    pub next: Instant,
    /// Whether it senses nothing any more.
    pub resting: Rc<RefCell<bool>>,
    /// Whether it rests from the first reboot on.
    pub tires: bool,
}

impl Hands {
    pub fn did(&self, act: Act) {
        self.deeds.borrow_mut().push(Deed { act, at_ms: unix_ms(*self.now.borrow()) });
    }
}

pub fn reading(moment: Moment) -> Option<Sample> {
    let mut values = [None; METRICS_MAX];
    values[0] = Some(Reading::F64(f64::from(u32::try_from(moment.seq).unwrap()) / 1000.0));
    Some(Sample { ticks: moment.unix_ms?, values })
}

/// What the board's hands answer: a few outputs are broken, and of a few it never heard.
pub fn ability(number: u8) -> Result<(), Refusal> {
    match number % 8 {
        6 => Err(Refusal::Failed),
        7 => Err(Refusal::Unsupported),
        _ => Ok(()),
    }
}

impl Sampler for Hands {
    fn due(&self) -> Option<Instant> {
        (!*self.resting.borrow()).then_some(self.next)
    }

    fn sample(&mut self, moment: Moment) -> Option<Sample> {
        self.next = (self.next + self.interval).max(moment.now);
        reading(moment)
    }

    fn needs_time(&self) -> bool {
        !*self.resting.borrow()
    }

    fn read(&mut self, moment: Moment) -> Result<Sample, Refusal> {
        self.did(Act::Read);
        reading(moment).ok_or(Refusal::Failed)
    }

    fn every(&mut self, now: Instant, interval: Duration) -> Result<(), Refusal> {
        let interval_ms = u32::try_from(interval.total_millis()).unwrap();
        self.did(Act::Every { interval_ms });
        self.interval = interval;
        self.next = self.next.min(now + interval);
        Ok(())
    }

    fn switch(&mut self, output: u8, on: bool) -> Result<(), Refusal> {
        self.did(Act::Switch { output, on });
        ability(output)
    }

    fn identify(&mut self, _: Instant, seconds: u8) -> Result<(), Refusal> {
        self.did(Act::Identify { seconds });
        ability(seconds)
    }

    fn can_reboot(&self) -> bool {
        *self.resting.borrow_mut() |= self.tires;
        true
    }
}

/// A sensor's word about a command, as a gateway holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    pub tick_ms: i64,
    pub id: CommandId,
    pub state: CommandState,
}

pub struct Gateway {
    pub endpoint: Endpoint<1280, 8, 8, 8>,
    pub alive: bool,
    pub schemas: Vec<OwnedSchema>,
    pub payload_bytes_most: usize,
}

/// What both gateways hold together.
#[derive(Default)]
pub struct Held {
    pub readings: BTreeMap<(u32, u64), i64>,
    pub events: BTreeMap<(u32, u64), Event>,
}

impl Held {
    pub fn outcome_of(&self, id: CommandId) -> Option<CommandState> {
        let mut events = self.events.values();
        events.find(|event| event.id == id && event.state != CommandState::Started).map(|event| event.state)
    }
}

/// Which command a gateway hands over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Any that was ever issued, or none.
    Any,
    /// The first whose outcome is not known, as long as it takes.
    InOrder,
    Nothing,
}

pub struct World {
    pub now: Instant,
    pub clock: Rc<RefCell<Instant>>,
    pub board: Board,
    pub deeds: Rc<RefCell<Vec<Deed>>>,
    pub resting: Rc<RefCell<bool>>,
    pub tires: bool,
    pub gateways: [Gateway; 2],
    pub held: Held,
    pub plan: Vec<Command>,
    pub policy: Policy,
    pub when_full: WhenFull,
    /// Of 256 frames so many are lost.
    pub loss: u8,
    pub noise: u64,
    pub lives: u64,
    pub reboots: usize,
    pub cuts: usize,
    /// Commands handed over before the board began one in this life.
    pub in_vain: usize,
    /// Since when the flash of this epoch is there, Unix ms.
    pub born_ms: BTreeMap<u32, i64>,
}

pub fn board(
    flash: Flash,
    now: Instant,
    epoch: u32,
    life: u64,
    world: Hands,
    when_full: WhenFull,
) -> Option<Board> {
    let schema = Schema::new(1_000_000, &METRICS).unwrap();
    let gateways = Gateways { primary: GATEWAYS[0], backup: Some(GATEWAYS[1]) };
    let config = AppConfig { when_full, ..AppConfig::new(gateways, schema).unwrap() };
    let endpoint = EndpointConfig { key: Some(KEY), counter_block: 1 << 12, ..EndpointConfig::new(SENSOR) };
    let log = FlashLog::open(flash, epoch).ok()?;
    let hands = Hands { next: now, ..world };
    Some(App::new(config, SensorEndpoint::new(endpoint, life).unwrap(), log, hands, life))
}

impl World {
    pub fn new(plan: Vec<Command>, policy: Policy, blocks: usize, when_full: WhenFull) -> Self {
        let deeds = Rc::new(RefCell::new(Vec::new()));
        let clock = Rc::new(RefCell::new(Instant::ZERO));
        let resting = Rc::new(RefCell::new(false));
        let hands = Hands {
            deeds: Rc::clone(&deeds),
            now: Rc::clone(&clock),
            interval: PAUSE,
            next: Instant::ZERO,
            resting: Rc::clone(&resting),
            tires: false,
        };
        let board = board(Flash::new(blocks), Instant::ZERO, 1, 1, hands, when_full).unwrap();
        let gateways = GATEWAYS.map(|device| {
            let config =
                EndpointConfig { key: Some(KEY), counter_block: 1 << 20, ..EndpointConfig::new(device) };
            let mut endpoint = Endpoint::new(config, 9).unwrap();
            endpoint.resume_counters(0);
            endpoint.counters_reserved(endpoint.counter_reserve_due().unwrap());
            Gateway { endpoint, alive: true, schemas: Vec::new(), payload_bytes_most: 0 }
        });
        Self {
            now: Instant::ZERO,
            clock,
            board,
            deeds,
            resting,
            tires: false,
            gateways,
            held: Held::default(),
            plan,
            policy,
            when_full,
            loss: 0,
            noise: 1,
            lives: 1,
            reboots: 0,
            cuts: 0,
            in_vain: 0,
            born_ms: BTreeMap::from([(1, TIME_MS)]),
        }
    }

    pub fn draw(&mut self) -> u64 {
        self.noise =
            self.noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.noise >> 33
    }

    pub fn heard(&mut self) -> bool {
        self.draw() % 256 >= u64::from(self.loss)
    }

    /// The command that goes with an answer given now.
    pub fn hand(&mut self) -> Option<Command> {
        let now_ms = unix_ms(self.now);
        let issued = self.plan.iter().filter(|command| command.id.issued_ms() <= now_ms).count();
        match self.policy {
            Policy::Nothing => None,
            Policy::Any => {
                let chosen = usize::try_from(self.draw()).unwrap() % (issued + 1);
                self.plan.iter().filter(|command| command.id.issued_ms() <= now_ms).nth(chosen).copied()
            }
            Policy::InOrder => {
                let waits = |command: &&Command| {
                    command.id.issued_ms() <= now_ms && self.held.outcome_of(command.id).is_none()
                };
                self.plan.iter().find(waits).copied()
            }
        }
    }

    pub fn serve(&mut self, at: usize) {
        let mut datagram = [0; 1232];
        while let Some((peer, length)) = self.gateways[at].endpoint.receive(&mut datagram) {
            let request = Message::parse(&datagram[..length]).unwrap();
            if request.kind() == Kind::Reset {
                continue;
            }
            let gateway = &mut self.gateways[at];
            gateway.payload_bytes_most = gateway.payload_bytes_most.max(length);
            let (code, body) = self.answer(at, &request);
            let mut out = [0; 128];
            let writer =
                Writer::new(&mut out, Kind::Acknowledgement, code, request.id(), request.token()).unwrap();
            let length = writer.payload(&body).unwrap();
            let sent = self.gateways[at].endpoint.send(self.now, peer, &out[..length]);
            assert!(matches!(sent, Ok(()) | Err(tidelog_lowpan::SendError::Busy)), "{sent:?}");
        }
    }

    pub fn answer(&mut self, at: usize, request: &Message<'_>) -> (Code, Vec<u8>) {
        let schemas = &mut self.gateways[at].schemas;
        if request.path_is(&["s"]) {
            schemas.push(Registration::decode(request.payload()).unwrap().schema);
            return (Code::CREATED, Vec::new());
        }
        let uplink = Uplink::parse(request.payload()).unwrap();
        let named = uplink.head().schema;
        let Some(schema) = schemas.iter().find(|schema| schema.id() == named) else {
            return (Code::PRECONDITION_FAILED, Vec::new());
        };
        let batch = uplink.batch(schema, 0, 0).unwrap();
        let origin = batch.origin.unwrap();
        let points = |metric: &str| {
            batch.series.iter().find(|(series, _)| series.metric() == metric).map(|(_, points)| points)
        };
        for (index, seq) in (0..usize::try_from(origin.count).unwrap()).zip(origin.first_seq..) {
            let name = (origin.epoch, seq);
            match (points(COMMAND_ID_METRIC), points(COMMAND_STATE_METRIC), points("value")) {
                (Some(ids), Some(states), None) => {
                    let ((tick_ns, Value::I64(id)), (also_ns, Value::I64(state))) =
                        (&ids[index], &states[index])
                    else {
                        panic!("{ids:?} {states:?}");
                    };
                    assert_eq!(tick_ns, also_ns);
                    let event = Event {
                        tick_ms: tick_ns / 1_000_000,
                        id: CommandId::from_number(u64::try_from(*id).unwrap()).unwrap(),
                        state: CommandState::from_number(*state).unwrap(),
                    };
                    let before = self.held.events.insert(name, event);
                    assert!(
                        before.is_none_or(|before| before == event),
                        "{name:?} came again and was another"
                    );
                    assert!(!self.held.readings.contains_key(&name));
                }
                (None, None, Some(values)) => {
                    let before = self.held.readings.insert(name, values[index].0);
                    assert!(before.is_none_or(|before| before == values[index].0));
                    assert!(!self.held.events.contains_key(&name));
                }
                _ => assert_eq!(origin.count, 0),
            }
        }
        let command = self.hand();
        self.in_vain += usize::from(command.is_some() && self.board.counters().commands == 0);
        let answer = Answer {
            command,
            ..Answer::new(origin.first_seq + u64::from(origin.count) - 1, unix_ms(self.now))
        };
        let mut bytes = [0; Answer::BYTES_MAX];
        let length = answer.encode(&mut bytes).unwrap();
        (Code::CHANGED, bytes[..length].to_vec())
    }

    /// Everything that happens at this moment; the next moment. `None`: the flash failed.
    pub fn settle(&mut self) -> Option<Option<Instant>> {
        let mut frame = [0; FRAME_BUFFER_BYTES];
        *self.clock.borrow_mut() = self.now;
        loop {
            let mut quiet = true;
            let mut due = vec![self.board.poll(self.now).ok()?];
            while let Some(length) = self.board.poll_transmit(self.now, &mut frame) {
                quiet = false;
                for at in 0..2 {
                    if self.gateways[at].alive && self.heard() {
                        let quality = Quality { rssi_dbm: -50, lqi: 255 };
                        self.gateways[at].endpoint.handle_frame(self.now, &frame[..length], quality);
                    }
                }
            }
            if self.board.reboot_due(self.now) {
                self.reboots += 1;
                // The power stays on; should it go in what follows, it goes there.
                let flash = self.board.flash_mut().clone();
                self.start_on(flash);
                continue;
            }
            for at in 0..2 {
                self.gateways[at].endpoint.handle_timeout(self.now);
                self.serve(at);
                while let Some(length) = self.gateways[at].endpoint.poll_transmit(self.now, &mut frame) {
                    quiet = false;
                    if self.heard() {
                        let quality = Quality { rssi_dbm: -50, lqi: 255 };
                        self.board.handle_frame(self.now, &frame[..length], quality);
                        self.board.poll(self.now).ok()?;
                    }
                }
                due.push(self.gateways[at].endpoint.poll_timeout());
            }
            if quiet {
                due.push(self.board.poll(self.now).ok()?);
                return Some(due.into_iter().flatten().min());
            }
        }
    }

    /// Lets time pass until `done` or the end. A flash that lost its power in a step gets it back.
    pub fn run(&mut self, end: Duration, done: impl Fn(&Self) -> bool) {
        let end = self.now + end;
        while !done(self) && self.now < end {
            match self.settle() {
                None => {
                    self.cuts += 1;
                    assert!(
                        self.cuts < 100,
                        "the flash fails again and again: {:?}",
                        self.board.poll(self.now)
                    );
                    self.power_cycle();
                }
                Some(next) => {
                    let next = next.unwrap_or(end).max(self.now + Duration::from_micros(100));
                    self.now = next.min(end);
                }
            }
        }
    }

    pub fn power_cycle(&mut self) {
        let mut flash = self.board.flash_mut().clone();
        flash.power_on();
        self.start_on(flash);
    }

    /// Another board of the same address, or one whose flash was erased.
    pub fn wipe(&mut self, blocks: usize) {
        self.start_on(Flash::new(blocks));
    }

    pub fn start_on(&mut self, mut flash: Flash) {
        self.lives += 1;
        let epoch = u32::try_from(self.lives).unwrap();
        let (now, lives, when_full) = (self.now, self.lives, self.when_full);
        let hands = || Hands {
            deeds: Rc::clone(&self.deeds),
            now: Rc::clone(&self.clock),
            interval: PAUSE,
            next: now,
            resting: Rc::clone(&self.resting),
            tires: self.tires,
        };
        self.board = match board(flash.clone(), now, epoch, lives, hands(), when_full) {
            Some(board) => board,
            None => {
                self.cuts += 1;
                // The same chip, the same cut, and then the power is back.
                assert!(FlashLog::open(&mut flash, epoch).is_err());
                flash.power_on();
                board(flash, now, epoch, lives, hands(), when_full).unwrap()
            }
        };
        self.born_ms.entry(self.board.log().epoch()).or_insert(unix_ms(self.now));
    }

    /// Nothing more is asked; everything gets through.
    pub fn calm_down(&mut self) {
        self.policy = Policy::Nothing;
        self.loss = 0;
        self.board.flash_mut().power_on();
        for gateway in &mut self.gateways {
            gateway.alive = true;
        }
        self.run(Duration::from_secs(120), |_| false);
        // What was sensed last may still wait for company.
        let told = self.board.log().head().saturating_sub(self.board.log().acknowledged());
        assert!(told < 60, "{told} wait");
    }

    /// What must be so of any run.
    pub fn judge(&self) {
        let deeds = self.deeds.borrow();
        let planned: BTreeMap<CommandId, &Command> =
            self.plan.iter().map(|command| (command.id, command)).collect();
        let epoch_now = self.board.log().epoch();
        let mut begun_in = BTreeMap::new();
        for &epoch in self.born_ms.keys() {
            let events: Vec<&Event> =
                self.held.events.range((epoch, 0)..=(epoch, u64::MAX)).map(|(_, event)| event).collect();
            assert!(events.windows(2).all(|pair| pair[0].tick_ms < pair[1].tick_ms), "{events:?}");
            let mut started: Vec<CommandId> = Vec::new();
            let mut outcomes: BTreeMap<CommandId, CommandState> = BTreeMap::new();
            for event in &events {
                let command = planned[&event.id];
                if event.state == CommandState::Started {
                    assert!(started.last().is_none_or(|last| *last < event.id), "out of order: {events:?}");
                    assert!(!outcomes.contains_key(&event.id), "it ended before it started: {events:?}");
                    assert!(event.tick_ms < command.expires_ms + TICKS_APART_MS, "{event:?} {command:?}");
                    started.push(event.id);
                } else {
                    let before = outcomes.insert(event.id, event.state);
                    assert_eq!(before, None, "two outcomes of {}: {events:?}", event.id);
                }
                let other = begun_in.insert(event.id, epoch);
                assert!(other.is_none_or(|other| other == epoch), "{} began on two flashes", event.id);
                assert!(event.id.issued_ms() >= self.born_ms[&epoch], "{event:?} is from before this flash");
            }
            if epoch == epoch_now {
                for id in &started {
                    assert!(outcomes.contains_key(id), "{id} started and never ended: {events:?}");
                }
            }
        }
        for command in &self.plan {
            let mut done = deeds.iter().filter(|deed| deed.act == command.act);
            match command.act {
                // The interval is said again by each life.
                Act::Every { .. } => {}
                Act::Switch { .. } | Act::Identify { .. } => {
                    assert!(done.clone().count() <= 1, "done twice: {command:?} {deeds:?}");
                }
                _ => continue,
            }
            let Some(deed) = done.next() else { continue };
            assert!(
                (command.id.issued_ms()..command.expires_ms).contains(&deed.at_ms),
                "{deed:?} {command:?}"
            );
            let told = self.held.outcome_of(command.id);
            let able = match command.act {
                Act::Switch { output: number, .. } | Act::Identify { seconds: number } => ability(number),
                _ => Ok(()),
            };
            let wanted = match able {
                Ok(()) => CommandState::Done,
                Err(Refusal::Failed) => CommandState::Failed,
                Err(Refusal::Unsupported) => CommandState::Unsupported,
            };
            let wiped = self.born_ms.len() > 1;
            assert!(
                told == Some(wanted)
                    || told == Some(CommandState::Interrupted) && self.lives > 1
                    || told.is_none() && wiped,
                "{command:?}: {told:?} and not {wanted:?}"
            );
        }
        let reads = self.plan.iter().filter(|command| command.act == Act::Read).count();
        assert!(deeds.iter().filter(|deed| deed.act == Act::Read).count() <= reads, "{deeds:?}");
        let reboots = self.plan.iter().filter(|command| command.act == Act::Reboot).count();
        assert!(self.reboots <= reboots, "{} reboots of {reboots}", self.reboots);
        for gateway in &self.gateways {
            assert!(gateway.payload_bytes_most <= SINGLE_FRAME_PAYLOAD_BYTES_MAX, "more than a frame");
        }
        if self.when_full == WhenFull::Wait {
            assert_eq!(self.board.log().lost(), 0);
        }
    }
}
