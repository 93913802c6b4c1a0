//! A gateway of a few lines on the simulated air: it keeps what it acknowledges in memory, and hands over commands.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidelog_lowpan::coap::{Code, Kind, Message, Writer};
use tidelog_lowpan::{EndpointConfig, FRAME_BUFFER_BYTES, GatewayEndpoint, NetworkKey, Peer, Quality, zep};
use tidelog_record::uplink::{
    Act, Answer, COMMAND_ID_METRIC, COMMAND_STATE_METRIC, Command, CommandId, CommandState, OwnedSchema,
    Registration, SchemaId, Uplink,
};
use tidelog_record::{DeviceId, Value};
use tokio::net::UdpSocket;

pub const GATEWAY: DeviceId = DeviceId([2, 0, 0, 0, 0, 0, 0, 0xaa]);
/// The gateway's clock stands.
pub const TIME_MS: i64 = 1_700_000_000_000;
pub const KEY: NetworkKey = NetworkKey::new([0x6b; 16]);

/// Metric, timestamp, value.
pub type Point = (String, i64, Value);

/// Points by device, epoch and sequence number, each as it came first; and how many came again after that.
#[derive(Default)]
pub struct Kept {
    schemas: HashMap<(DeviceId, SchemaId), OwnedSchema>,
    /// What the sensor is to do, each handed over until it is known what became of it.
    pub commands: Vec<Command>,
    pub points: BTreeMap<(DeviceId, u32, u64), Vec<Point>>,
    upto: HashMap<(DeviceId, u32), u64>,
    /// Frames refused by link security.
    pub refused: u64,
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
    pub fn outcome(&self, id: CommandId) -> Option<CommandState> {
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

pub async fn gateway(air: SocketAddr, kept: Arc<Mutex<Kept>>) {
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

/// Commands that the stand-in's clock never lets expire, in this order.
pub fn commands(acts: &[Act]) -> Vec<Command> {
    (1..)
        .zip(acts)
        .map(|(number, act)| {
            let id = CommandId::new(TIME_MS + 3_600_000 + number, 1).unwrap();
            Command { id, expires_ms: TIME_MS + 7_200_000, act: *act }
        })
        .collect()
}

/// Hands these over and waits for what becomes of each.
pub async fn outcomes(kept: &Mutex<Kept>, acts: &[Act]) -> Vec<CommandState> {
    let commands = commands(acts);
    kept.lock().unwrap().commands.clone_from(&commands);
    let told = async {
        loop {
            let outcomes: Option<Vec<_>> = {
                let kept = kept.lock().unwrap();
                commands.iter().map(|command| kept.outcome(command.id)).collect()
            };
            if let Some(outcomes) = outcomes {
                return outcomes;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(90), told).await.expect("each within a minute and a half")
}
