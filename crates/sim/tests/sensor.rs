//! Virtual sensors over the simulated air against a gateway of a few lines that keeps what it acknowledges in memory.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidelog_firmware::Gateways;
use tidelog_lowpan::coap::{Code, Kind, Message, Writer};
use tidelog_lowpan::{EndpointConfig, FRAME_BUFFER_BYTES, GatewayEndpoint, NetworkKey, Peer, Quality, zep};
use tidelog_record::uplink::{
    Act, Answer, COMMAND_ID_METRIC, COMMAND_STATE_METRIC, Command, CommandId, CommandState, METRICS_MAX,
    OwnedSchema, Reading, Registration, Sample, SchemaId, Uplink,
};
use tidelog_record::{DeviceId, Value};
use tidelog_sim::air::{Air, AirOptions};
use tidelog_sim::sensor::{Cut, SensorOptions, VirtualSensor};
use tokio::net::UdpSocket;

const GATEWAY: DeviceId = DeviceId([2, 0, 0, 0, 0, 0, 0, 0xaa]);
const SCALE: u8 = 3;
/// The gateway's clock stands.
const TIME_MS: i64 = 1_700_000_000_000;
const KEY: NetworkKey = NetworkKey::new([0x6b; 16]);

/// Metric, timestamp, value.
type Point = (String, i64, Value);

/// Points by device, epoch and sequence number, each as it came first; and how many came again after that.
#[derive(Default)]
struct Kept {
    schemas: HashMap<(DeviceId, SchemaId), OwnedSchema>,
    /// What the sensor is to do, each handed over until it is known what became of it.
    commands: Vec<Command>,
    points: BTreeMap<(DeviceId, u32, u64), Vec<Point>>,
    upto: HashMap<(DeviceId, u32), u64>,
    /// Frames refused by link security.
    refused: u64,
}

impl Kept {
    fn answer(&mut self, message: &Message<'_>, payload: &mut [u8]) -> (Code, usize) {
        if message.path_is(&["s"]) {
            let Ok(registration) = Registration::decode(message.payload()) else {
                return (Code::BAD_REQUEST, 0);
            };
            self.schemas.insert((registration.device, registration.schema.id()), registration.schema);
            return (Code::CREATED, 0);
        }
        let Ok(uplink) = Uplink::parse(message.payload()) else { return (Code::BAD_REQUEST, 0) };
        let head = *uplink.head();
        let known = self.upto.entry((head.device, head.epoch)).or_default();
        let Some(schema) = self.schemas.get(&(head.device, head.schema)) else {
            return (Code::PRECONDITION_FAILED, 0);
        };
        let Ok(batch) = uplink.batch(schema, *known, 0) else { return (Code::BAD_REQUEST, 0) };
        let origin = batch.origin.unwrap();
        if origin.count > 0 {
            assert_eq!(origin.first_seq, *known + 1, "a sample was left out");
            *known = origin.first_seq - 1 + u64::from(origin.count);
        }
        // Each metric has a point in each sample here.
        for (series, points) in batch.series {
            for (seq, (timestamp, value)) in (origin.first_seq..).zip(points) {
                let point = (series.metric().to_owned(), timestamp, value);
                self.points.entry((head.device, head.epoch, seq)).or_default().push(point);
            }
        }
        let answer = Answer::new(*known, TIME_MS);
        let command = self.commands.iter().find(|command| self.outcome(command.id).is_none()).copied();
        (Code::CHANGED, Answer { command, ..answer }.encode(payload).unwrap())
    }

    /// What became of a command.
    fn outcome(&self, id: CommandId) -> Option<CommandState> {
        let named = |point: &Point| point.0 == COMMAND_ID_METRIC && point.2 == Value::I64(id.to_reading());
        let events = self.points.values().filter(|points| points.iter().any(named));
        let states = events.flatten().filter(|point| point.0 == COMMAND_STATE_METRIC);
        let mut states = states.filter_map(|point| match point.2 {
            Value::I64(number) => CommandState::from_number(number),
            _ => None,
        });
        states.find(|state| *state != CommandState::Started)
    }
}

async fn gateway(air: SocketAddr, kept: Arc<Mutex<Kept>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(air).await.unwrap();
    let config = EndpointConfig { key: Some(KEY), counter_block: 1 << 20, ..EndpointConfig::new(GATEWAY) };
    let mut endpoint = Box::new(GatewayEndpoint::new(config, 5).unwrap());
    endpoint.resume_counters(0);
    endpoint.counters_reserved(endpoint.counter_reserve_due().unwrap());
    let start = Instant::now();
    let now =
        || tidelog_lowpan::time::Instant::from_micros(i64::try_from(start.elapsed().as_micros()).unwrap());
    let (mut frame, mut datagram) = ([0; FRAME_BUFFER_BYTES], [0; zep::PACKET_BYTES_MAX]);
    // Announce ourselves, so that the air knows where we are.
    endpoint.send(now(), Peer { device: DeviceId([2; 8]), port: 9 }, b"here").unwrap();
    loop {
        endpoint.handle_timeout(now());
        let mut payload = [0; 1232];
        while let Some((peer, length)) = endpoint.receive(&mut payload) {
            let Ok(request) = Message::parse(&payload[..length]) else { continue };
            let mut body = [0; 64];
            let (code, length) = kept.lock().unwrap().answer(&request, &mut body);
            let mut out = [0; 128];
            let writer =
                Writer::new(&mut out, Kind::Acknowledgement, code, request.id(), request.token()).unwrap();
            let length = writer.payload(&body[..length]).unwrap();
            endpoint.send(now(), peer, &out[..length]).unwrap();
        }
        while let Some(length) = endpoint.poll_transmit(now(), &mut frame) {
            let header = zep::Header { channel: 26, ..zep::Header::default() };
            let length = zep::encode(&header, &frame[..length], &mut datagram).unwrap();
            socket.send(&datagram[..length]).await.unwrap();
        }
        let due = endpoint.poll_timeout().map_or(Duration::from_millis(100), |due| {
            Duration::from_micros(
                due.total_micros().saturating_sub(now().total_micros()).try_into().unwrap_or(0),
            )
        });
        let mut heard = [0; 256];
        if let Ok(Ok(length)) = tokio::time::timeout(due, socket.recv(&mut heard)).await
            && let Ok(zep::Packet::Data(_, frame)) = zep::decode(&heard[..length])
        {
            endpoint.handle_frame(now(), frame, Quality { rssi_dbm: -50, lqi: 255 });
            let drops = endpoint.counters().drops;
            kept.lock().unwrap().refused = drops.replayed + drops.forged + drops.unsecured;
        }
    }
}

fn feed(device: u8, samples: u32) -> Vec<Sample> {
    (0..samples)
        .map(|i| {
            let mut values = [None; METRICS_MAX];
            values[0] = Some(Reading::F64(f64::from(i * 7 + u32::from(device)) / 1000.0));
            values[1] = Some(Reading::I64(i64::from(i)));
            Sample { ticks: 1_600_000_000_000 + i64::from(i) * 1000, values }
        })
        .collect()
}

fn options(device: u8, air: SocketAddr) -> SensorOptions {
    let gateways = Gateways { primary: GATEWAY, backup: None };
    SensorOptions {
        metrics: vec![("value".into(), Some(SCALE)), ("count".into(), None)],
        flash_blocks: 4,
        key: Some(KEY),
        ..SensorOptions::fast(DeviceId([2, 0, 0, 0, 0, 0, 1, device]), air, gateways, u64::from(device))
    }
}

async fn until_acknowledged(sensor: &VirtualSensor, samples: u64) {
    let mut progress = sensor.follow();
    let done = progress.wait_for(|progress| progress.acknowledged >= samples);
    tokio::time::timeout(Duration::from_secs(60), done).await.expect("in a minute").unwrap();
}

fn check(kept: &Kept, sensor: &VirtualSensor, feed: &[Sample]) {
    let progress = sensor.progress();
    assert_eq!((progress.sensed, progress.lost), (feed.len() as u64, 0));
    for (seq, sample) in (1..).zip(feed) {
        let timestamp = sample.ticks * 1_000_000;
        let wanted: Vec<_> = ["value", "count"]
            .into_iter()
            .zip(sample.values)
            .map(|(metric, value)| (metric.to_owned(), timestamp, Value::from(value.unwrap())))
            .collect();
        assert_eq!(kept.points.get(&(sensor.device(), progress.epoch, seq)), Some(&wanted), "sample {seq}");
    }
    let own = kept.points.keys().filter(|(device, ..)| *device == sensor.device()).count();
    assert_eq!(own, feed.len(), "no sample in another epoch");
}

async fn field(
    sensors: u8,
    samples: u32,
    pace_hz: Option<f64>,
    air: AirOptions,
) -> (Air, Arc<Mutex<Kept>>, Vec<(VirtualSensor, Vec<Sample>)>) {
    let air = Air::start(air).await.unwrap();
    let kept = Arc::new(Mutex::new(Kept::default()));
    tokio::spawn(gateway(air.address(), Arc::clone(&kept)));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut field = Vec::new();
    for device in 0..sensors {
        let feed = feed(device, samples);
        field.push((
            VirtualSensor::start(SensorOptions { pace_hz, ..options(device, air.address()) }, feed.clone())
                .await
                .unwrap(),
            feed,
        ));
    }
    (air, kept, field)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_sensors_deliver_every_sample_once() {
    let started = Instant::now();
    let (air, kept, field) = field(40, 250, None, AirOptions::default()).await;
    for (sensor, feed) in &field {
        until_acknowledged(sensor, feed.len() as u64).await;
        check(&kept.lock().unwrap(), sensor, feed);
    }
    let seconds = started.elapsed().as_secs_f64();
    let counters = air.stop().await;
    println!("10000 samples in {seconds:.1} s, {:?}", counters);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_and_doubled_frames_cost_time_and_no_sample() {
    let air = AirOptions { loss: 0.2, duplicate: 0.1, seed: 3, ..AirOptions::default() };
    let (_air, kept, field) = field(8, 60, None, air).await;
    for (sensor, feed) in &field {
        until_acknowledged(sensor, feed.len() as u64).await;
        check(&kept.lock().unwrap(), sensor, feed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sensor_whose_power_goes_at_random_senses_and_delivers_each_sample_once() {
    let (_air, kept, mut field) =
        field(4, 600, Some(300.0), AirOptions { loss: 0.05, seed: 9, ..AirOptions::default() }).await;
    for round in 0..12u64 {
        for (index, (sensor, _)) in (0u64..).zip(&mut field) {
            let cut = if round % 3 == 2 {
                Cut::Now
            } else {
                Cut::MidWrite { steps: (round * 13 + index * 7) % 40, seed: round }
            };
            sensor.power_cut(cut).await.unwrap();
            sensor.restart().await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    for (sensor, feed) in &field {
        until_acknowledged(sensor, feed.len() as u64).await;
        check(&kept.lock().unwrap(), sensor, feed);
    }
    // Each life began behind the counters of the ones before; late copies of frames aside, of which this air makes none.
    assert_eq!(kept.lock().unwrap().refused, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sensor_does_what_it_is_told_and_says_so() {
    let (_air, kept, mut field) = field(1, 5_000, Some(20.0), AirOptions::default()).await;
    let acts = [
        Act::Read,
        Act::Every { interval_ms: 120 },
        Act::Switch { output: 8, on: true },
        Act::Reboot,
        Act::Switch { output: 3, on: true },
        Act::Identify { seconds: 1 },
    ];
    let commands: Vec<_> = (1..)
        .zip(acts)
        .map(|(number, act)| {
            let id = CommandId::new(TIME_MS + 3_600_000 + number, 1).unwrap();
            Command { id, expires_ms: TIME_MS + 7_200_000, act }
        })
        .collect();
    kept.lock().unwrap().commands.clone_from(&commands);
    let outcomes = || -> Option<Vec<_>> {
        let kept = kept.lock().unwrap();
        commands.iter().map(|command| kept.outcome(command.id)).collect()
    };
    let told = async {
        loop {
            if let Some(outcomes) = outcomes() {
                return outcomes;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(60), told).await.expect("in a minute");
    use CommandState::{Done, Failed, Unsupported};
    assert_eq!(told, [Done, Done, Failed, Done, Done, Unsupported]);
    let (sensor, _) = &mut field[0];
    let progress = sensor.progress();
    assert_eq!((progress.outputs, progress.reboots, progress.lost), (1 << 3, 1, 0));
    sensor.power_cut(Cut::Now).await.unwrap();
}
