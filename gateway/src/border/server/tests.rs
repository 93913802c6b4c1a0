//! The server with real clients and no radio: CoAP datagrams of `lowpan`'s own client in, answers and appends out.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Mutex;
use tidelog_lowpan::coap::{Event, Exchange, Kind, Transmission, empty};
use tidelog_record::uplink::{
    Act, BatchEncoder, CommandId, Metric, Reading, Sample, Schema, encode_registration,
};
use tidelog_record::{Batch, Body};

const CLOCK_MS: i64 = 1_700_000_000_000;
const EPOCH: u32 = 7;
const ELSEWHERE: DeviceId = DeviceId([2, 0, 0, 0, 0, 0, 0, 0xe]);
const METRICS: [Metric<'static>; 1] = [Metric { name: "temperature", scale: Some(1) }];

fn device(n: u8) -> DeviceId {
    DeviceId([2, 0, 0, 0, 0, 0, 0, n])
}

fn schema() -> Schema<'static> {
    Schema::new(1_000_000_000, &METRICS).unwrap()
}

fn batch_of(sensor: DeviceId, epoch: u32, first_seq: u64, count: u64) -> Vec<u8> {
    let mut out = vec![0; 1024];
    let mut encoder = BatchEncoder::new(&mut out, sensor, epoch, first_seq, schema(), 1_000).unwrap();
    for seq in first_seq..first_seq + count {
        let mut values = [None; 16];
        values[0] = Some(Reading::I64(i64::try_from(seq).unwrap()));
        encoder.push(&Sample { ticks: 1_000 + i64::try_from(seq).unwrap(), values }).unwrap();
    }
    let length = encoder.length();
    out.truncate(length);
    out
}

fn registration_of(sensor: DeviceId) -> Vec<u8> {
    let mut out = vec![0; 128];
    let length = encode_registration(&mut out, sensor, &schema(), "1.2.3").unwrap();
    out.truncate(length);
    out
}

/// A sensor's CoAP client beside the server.
struct Sensor {
    device: DeviceId,
    exchange: Exchange<1200>,
    draws: u32,
}

impl Sensor {
    fn new(n: u8) -> Self {
        Self {
            device: device(n),
            exchange: Exchange::new(Transmission::RFC7252, u32::from(n) << 16),
            draws: 0,
        }
    }

    fn peer(&self) -> Peer {
        Peer { device: self.device, port: 5683 }
    }

    fn request(&mut self, path: &str, payload: &[u8]) -> Vec<u8> {
        self.exchange.cancel();
        self.draws += 0x1_0000;
        self.exchange.start(Instant::ZERO, self.draws, Code::POST, &[path], payload).unwrap();
        self.exchange.poll_transmit().unwrap().to_vec()
    }

    fn batch(&self, first_seq: u64, count: u64) -> Vec<u8> {
        batch_of(self.device, EPOCH, first_seq, count)
    }

    /// What the client makes of the answers to it: code, and the answer in it.
    fn take(&mut self, server: &mut Server) -> Option<(Code, Option<Answer>)> {
        let mut taken = None;
        let answers: Vec<_> = std::iter::from_fn(|| server.poll_transmit()).collect();
        for (peer, datagram) in answers {
            if peer != self.peer() {
                server.requests.answers.push_back((peer, datagram));
            } else if let Event::Response(message) = self.exchange.handle_datagram(Instant::ZERO, &datagram) {
                taken = Some((message.code(), Answer::decode(message.payload()).ok()));
            }
        }
        taken
    }

    fn post(&mut self, server: &mut Server, path: &str, payload: &[u8]) -> Option<(Code, Option<Answer>)> {
        let request = self.request(path, payload);
        server.handle_datagram(Instant::ZERO, CLOCK_MS, self.peer(), &request);
        self.take(server)
    }
}

/// The log: what was appended, in order.
type Log = Arc<Mutex<Vec<Origin>>>;

/// Device 0xad is advised to go, and no other.
fn advise(device: DeviceId) -> Option<DeviceId> {
    (device == self::device(0xad)).then_some(ELSEWHERE)
}

fn server_over(log: &Log) -> Server {
    server_with(log, |_, _| None)
}

fn server_with(
    log: &Log,
    next_command: impl Fn(DeviceId, i64) -> Option<Command> + Send + 'static,
) -> Server {
    let log = Arc::clone(log);
    let held_upto = move |device, epoch, seq| {
        let log = log.lock().unwrap();
        let mut held = BTreeSet::new();
        for origin in log.iter().filter(|origin| (origin.device, origin.epoch) == (device, epoch)) {
            held.extend(origin.first_seq..origin.first_seq + u64::from(origin.count));
        }
        (seq..).take_while(|seq| held.contains(seq)).last()
    };
    let metrics = Arc::new(Metrics::new().unwrap());
    Server::new(Box::new(held_upto), Box::new(next_command), Box::new(advise), metrics, 1)
}

fn refused(server: &Server, reason: &str) -> u64 {
    server.requests.metrics.refused.with_label_values(&[VIA, reason]).get()
}

fn registered(n: u8) -> (Server, Sensor, Log) {
    let log = Log::default();
    let (mut server, mut sensor) = (server_over(&log), Sensor::new(n));
    let code = sensor.post(&mut server, "s", &registration_of(device(n)));
    assert_eq!(code, Some((Code::CREATED, None)));
    (server, sensor, log)
}

/// Makes what is to be appended durable.
fn store(server: &mut Server, log: &Log) -> Vec<Batch> {
    let appends = appended(server);
    for (owner, batch) in &appends {
        log.lock().unwrap().extend(batch.origin);
        server.handle_outcome(CLOCK_MS, *owner, Ok(()));
    }
    appends.into_iter().map(|(_, batch)| batch).collect()
}

fn appended(server: &mut Server) -> Vec<(DeviceId, Batch)> {
    std::iter::from_fn(|| server.poll_append())
        .map(|append| match Body::decode(&append.body) {
            Ok(Body::Points(batch)) => (append.device, batch),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn acknowledged(acked_seq: u64) -> Option<(Code, Option<Answer>)> {
    Some((Code::CHANGED, Some(Answer::new(acked_seq, CLOCK_MS))))
}

#[test]
fn a_batch_is_acknowledged_when_it_is_durable_and_not_before() {
    let (mut server, mut sensor, log) = registered(1);
    let batch = sensor.batch(1, 3);
    assert_eq!(sensor.post(&mut server, "b", &batch), None);
    let stored = store(&mut server, &log);
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].origin, Some(Origin { device: device(1), epoch: EPOCH, first_seq: 1, count: 3 }));
    assert_eq!(sensor.take(&mut server), acknowledged(3));
    assert_eq!(server.acknowledged(device(1)), Some((EPOCH, 3)));
}

#[test]
fn a_batch_under_an_unknown_schema_asks_for_the_schema() {
    let (mut server, mut sensor) = (server_over(&Log::default()), Sensor::new(1));
    let batch = sensor.batch(1, 3);
    assert_eq!(sensor.post(&mut server, "b", &batch), Some((Code::PRECONDITION_FAILED, None)));
    let registration = registration_of(device(1));
    assert_eq!(sensor.post(&mut server, "s", &registration), Some((Code::CREATED, None)));
    assert_eq!(sensor.post(&mut server, "s", &registration), Some((Code::CHANGED, None)));
    assert_eq!(sensor.post(&mut server, "b", &batch), None);
    assert_eq!(appended(&mut server).len(), 1);
}

#[test]
fn a_repeat_in_flight_is_not_appended_twice_and_a_later_one_gets_the_same_answer() {
    let (mut server, mut sensor, log) = registered(1);
    let batch = sensor.batch(1, 3);
    let request = sensor.request("b", &batch);
    for _ in 0..3 {
        server.handle_datagram(Instant::ZERO, CLOCK_MS, sensor.peer(), &request);
    }
    assert_eq!(store(&mut server, &log).len(), 1);
    let first = server.poll_transmit();
    assert!(first.is_some() && server.poll_transmit().is_none());
    server.handle_datagram(Instant::ZERO, CLOCK_MS + 5_000, sensor.peer(), &request);
    assert_eq!(server.poll_transmit(), first);
    assert!(appended(&mut server).is_empty());
}

#[test]
fn a_batch_sent_anew_while_it_is_in_flight_waits_and_is_not_appended_twice() {
    let (mut server, mut sensor, log) = registered(1);
    let batch = sensor.batch(1, 3);
    assert_eq!(sensor.post(&mut server, "b", &batch), None);
    assert_eq!(sensor.post(&mut server, "b", &batch), None, "another message id, as after a restart");
    assert_eq!(store(&mut server, &log).len(), 1);
    assert_eq!(sensor.take(&mut server), acknowledged(3));
    assert!(appended(&mut server).is_empty());
}

#[test]
fn a_batch_that_is_held_is_acknowledged_at_once_and_an_overlapping_one_loses_its_beginning() {
    let (mut server, mut sensor, log) = registered(1);
    log.lock().unwrap().push(Origin { device: device(1), epoch: EPOCH, first_seq: 1, count: 10 });
    let batch = sensor.batch(3, 5);
    assert_eq!(sensor.post(&mut server, "b", &batch), acknowledged(10));
    assert!(appended(&mut server).is_empty());
    let batch = sensor.batch(8, 5);
    assert_eq!(sensor.post(&mut server, "b", &batch), None);
    let stored = store(&mut server, &log);
    assert_eq!(stored[0].origin, Some(Origin { device: device(1), epoch: EPOCH, first_seq: 11, count: 2 }));
    assert_eq!(stored[0].points(), 2);
    assert_eq!(sensor.take(&mut server), acknowledged(12));
}

#[test]
fn a_batch_without_samples_asks_what_is_held_and_what_time_it_is() {
    let (mut server, mut sensor, log) = registered(1);
    let empty = sensor.batch(11, 0);
    assert_eq!(sensor.post(&mut server, "b", &empty), acknowledged(0));
    log.lock().unwrap().push(Origin { device: device(1), epoch: EPOCH, first_seq: 1, count: 10 });
    assert_eq!(sensor.post(&mut server, "b", &empty), acknowledged(10));
    assert!(appended(&mut server).is_empty());
}

#[test]
fn batches_of_different_devices_are_in_flight_together() {
    let (mut server, mut one, log) = registered(1);
    let mut two = Sensor::new(2);
    assert_eq!(two.post(&mut server, "s", &registration_of(device(2))), Some((Code::CREATED, None)));
    let (batch_one, batch_two) = (one.batch(1, 2), two.batch(1, 4));
    assert_eq!(one.post(&mut server, "b", &batch_one), None);
    assert_eq!(two.post(&mut server, "b", &batch_two), None);
    let appends = appended(&mut server);
    assert_eq!((appends.len(), server.appending()), (2, 2));
    log.lock().unwrap().extend(appends.iter().filter_map(|(_, batch)| batch.origin));
    server.handle_outcome(CLOCK_MS, device(2), Ok(()));
    assert_eq!(two.take(&mut server), acknowledged(4));
    assert_eq!(one.take(&mut server), None);
    server.handle_outcome(CLOCK_MS, device(1), Ok(()));
    assert_eq!(one.take(&mut server), acknowledged(2));
}

#[test]
fn a_store_that_refuses_sends_the_sensor_away_for_a_while_and_nothing_counts_as_held() {
    for (refusal, seconds) in [(Refusal::Busy, 2), (Refusal::Full, 60), (Refusal::Closed, 30)] {
        let (mut server, mut sensor, _) = registered(1);
        let batch = sensor.batch(1, 3);
        assert_eq!(sensor.post(&mut server, "b", &batch), None);
        assert_eq!(appended(&mut server).len(), 1);
        server.handle_outcome(CLOCK_MS, device(1), Err(refusal));
        let (_, answer) = server.poll_transmit().unwrap();
        let message = Message::parse(&answer).unwrap();
        assert_eq!((message.code(), message.uint(option::MAX_AGE)), (Code::UNAVAILABLE, Some(seconds)));
        assert_eq!(refused(&server, refusal.reason()), 1);
        assert_eq!(sensor.post(&mut server, "b", &batch), None);
        assert_eq!(appended(&mut server).len(), 1, "it is appended when it comes again");
    }
}

#[test]
fn what_is_refused_is_told_by_code_and_counted_by_reason() {
    let (mut server, mut sensor, _) = registered(1);
    let own = sensor.batch(1, 1);
    let foreign = batch_of(device(9), EPOCH, 1, 1);
    let mut newer = own.clone();
    newer[1] = 9;
    let mut late = vec![0; 128];
    let mut encoder = BatchEncoder::new(&mut late, device(1), EPOCH, 1, schema(), i64::MAX).unwrap();
    encoder.push(&Sample { ticks: i64::MAX, values: [None; 16] }).unwrap();
    let length = encoder.length();
    let cases: [(&str, &[u8], Code, &str); 8] = [
        ("b", b"", Code::BAD_REQUEST, "malformed"),
        ("b", &own[..own.len() - 1], Code::BAD_REQUEST, "malformed"),
        ("b", &newer, Code::BAD_REQUEST, "version"),
        ("b", &late[..length], Code::BAD_REQUEST, "timestamp"),
        ("b", &foreign, Code::FORBIDDEN, "foreign_device"),
        ("s", &registration_of(device(9)), Code::FORBIDDEN, "foreign_device"),
        ("s", b"\x93\x01", Code::BAD_REQUEST, "malformed"),
        ("x", &own, Code::NOT_FOUND, "unknown_resource"),
    ];
    for (path, payload, code, reason) in cases {
        let before = refused(&server, reason);
        assert_eq!(sensor.post(&mut server, path, payload), Some((code, None)), "{reason}");
        assert_eq!(refused(&server, reason), before + 1, "{reason}");
    }
    assert!(appended(&mut server).is_empty());
}

#[test]
fn a_sequence_number_of_zero_is_none() {
    let (mut server, mut sensor, _) = registered(1);
    let batch = sensor.batch(0, 2);
    assert_eq!(sensor.post(&mut server, "b", &batch), Some((Code::BAD_REQUEST, None)));
}

fn raw(server: &mut Server, kind: Kind, code: Code, options: &[(u16, &[u8])]) -> Option<Code> {
    let mut buffer = [0; 64];
    let id = server.requests.fresh_id().wrapping_add(0x55);
    let writer = Writer::new(&mut buffer, kind, code, id, &[]).unwrap();
    let writer = options.iter().try_fold(writer, |w, (number, value)| w.option(*number, value)).unwrap();
    let length = writer.payload(b"x").unwrap();
    let peer = Peer { device: device(1), port: 5683 };
    server.handle_datagram(Instant::ZERO, CLOCK_MS, peer, &buffer[..length]);
    let (_, answer) = server.poll_transmit()?;
    Some(Message::parse(&answer).unwrap().code())
}

#[test]
fn methods_options_and_formats_that_are_not_served_have_their_codes() {
    let mut server = server_over(&Log::default());
    let path = (option::URI_PATH, &b"b"[..]);
    let con = Kind::Confirmable;
    assert_eq!(raw(&mut server, con, Code::GET, &[path]), Some(Code::METHOD_NOT_ALLOWED));
    assert_eq!(raw(&mut server, con, Code::POST, &[(1, b"etag"), path]), Some(Code::BAD_OPTION));
    assert_eq!(
        raw(&mut server, con, Code::POST, &[path, (option::CONTENT_FORMAT, &[110])]),
        Some(Code::UNSUPPORTED_FORMAT)
    );
    assert_eq!(
        raw(&mut server, con, Code::POST, &[path, (option::CONTENT_FORMAT, &[42])]),
        Some(Code::BAD_REQUEST)
    );
    assert_eq!(raw(&mut server, Kind::NonConfirmable, Code::GET, &[path]), Some(Code::METHOD_NOT_ALLOWED));
    assert_eq!(
        raw(&mut server, con, Code::CHANGED, &[]),
        Some(Code::EMPTY),
        "a response to nothing is reset"
    );
    assert_eq!(raw(&mut server, Kind::Acknowledgement, Code::POST, &[path]), None);
    let longest = [0; 8];
    let mut buffer = [0; 64];
    let writer = Writer::new(&mut buffer, con, Code::POST, 999, &longest).unwrap();
    let length = writer.path(&["b"]).unwrap().payload(b"x").unwrap();
    let peer = Peer { device: device(1), port: 5683 };
    server.handle_datagram(Instant::ZERO, CLOCK_MS, peer, &buffer[..length]);
    assert!(server.poll_transmit().is_some());
    assert_eq!(refused(&server, "answer_too_long"), 0);
}

#[test]
fn a_ping_is_answered_and_broken_messages_are_reset() {
    let mut server = server_over(&Log::default());
    let peer = Peer { device: device(1), port: 5683 };
    for datagram in [&empty(Kind::Confirmable, 5)[..], &[0x40, 0x20, 0, 5]] {
        server.handle_datagram(Instant::ZERO, CLOCK_MS, peer, datagram);
        assert_eq!(server.poll_transmit(), Some((peer, empty(Kind::Reset, 5).to_vec())));
    }
    server.handle_datagram(Instant::ZERO, CLOCK_MS, peer, &[0x50, 0x20, 0, 5]);
    server.handle_datagram(Instant::ZERO, CLOCK_MS, peer, b"\x00noise");
    assert_eq!(server.poll_transmit(), None);
    assert_eq!((refused(&server, "malformed_coap"), refused(&server, "not_coap")), (2, 1));
}

#[derive(Clone, Debug)]
enum Step {
    /// Sensor, samples taken since.
    Post(u8, u64),
    /// The sensor sends the same bytes again.
    Repeat(u8),
    /// The append of a sensor comes to an end.
    Outcome(u8, Result<(), Refusal>),
    /// The sensor hears what was answered; else it is lost.
    Hear(u8),
    /// The gateway forgets everything but its log.
    Restart,
    Noise(Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![4 => Just(Ok(())), 1 => Just(Err(Refusal::Busy))];
    prop_oneof![
        4 => (0..3u8, 0..5u64).prop_map(|(n, count)| Step::Post(n, count)),
        2 => (0..3u8).prop_map(Step::Repeat),
        4 => (0..3u8, outcome).prop_map(|(n, outcome)| Step::Outcome(n, outcome)),
        3 => (0..3u8).prop_map(Step::Hear),
        1 => Just(Step::Restart),
        1 => prop::collection::vec(any::<u8>(), 0..24).prop_map(Step::Noise),
    ]
}

proptest! {
    /// The naive judge: per sensor, a set of the sequence numbers in the log.
    #[test]
    fn every_sample_acknowledged_is_in_the_log_and_none_is_there_twice(steps in prop::collection::vec(step(), 0..120)) {
        let mut sensors: Vec<_> = (0..3).map(|n| (Sensor::new(n), Vec::new(), 0u64, 0u64)).collect();
        let log = Log::default();
        let mut server = server_over(&log);
        let mut under_way: Vec<(DeviceId, Batch)> = Vec::new();
        for step in steps {
            match step {
                Step::Post(n, more) => {
                    let (sensor, request, sensed, acked) = &mut sensors[usize::from(n)];
                    *sensed += more;
                    let batch = sensor.batch(*acked + 1, *sensed - *acked);
                    let registration = sensor.request("s", &registration_of(device(n)));
                    server.handle_datagram(Instant::ZERO, CLOCK_MS, sensor.peer(), &registration);
                    *request = sensor.request("b", &batch);
                    server.handle_datagram(Instant::ZERO, CLOCK_MS, sensor.peer(), request);
                }
                Step::Repeat(n) => {
                    let (sensor, request, ..) = &sensors[usize::from(n)];
                    server.handle_datagram(Instant::ZERO, CLOCK_MS, sensor.peer(), request);
                }
                Step::Outcome(n, outcome) => {
                    if let Some(at) = under_way.iter().position(|(owner, _)| *owner == device(n)) {
                        let (_, batch) = under_way.remove(at);
                        if outcome.is_ok() {
                            log.lock().unwrap().extend(batch.origin);
                        }
                        server.handle_outcome(CLOCK_MS, device(n), outcome);
                    }
                }
                Step::Hear(n) => {
                    let (sensor, _, _, acked) = &mut sensors[usize::from(n)];
                    if let Some((Code::CHANGED, Some(answer))) = sensor.take(&mut server) {
                        *acked = (*acked).max(answer.acked_seq);
                    }
                }
                Step::Restart => {
                    // What the disk had in hand is in the log; the kill took only the answers.
                    log.lock().unwrap().extend(under_way.drain(..).filter_map(|(_, batch)| batch.origin));
                    server = server_over(&log);
                }
                Step::Noise(bytes) => {
                    let peer = Peer { device: device(0), port: 1 };
                    server.handle_datagram(Instant::ZERO, CLOCK_MS, peer, &bytes);
                }
            }
            under_way.extend(appended(&mut server));
            let mut seen = BTreeSet::new();
            for origin in log.lock().unwrap().iter() {
                for seq in origin.first_seq..origin.first_seq + u64::from(origin.count) {
                    prop_assert!(seen.insert((origin.device, seq)), "{seq} of {} is there twice", origin.device);
                }
            }
            for (sensor, _, _, acked) in &sensors {
                prop_assert!((1..=*acked).all(|seq| seen.contains(&(sensor.device, seq))));
            }
        }
    }

    #[test]
    fn no_datagram_makes_it_panic(datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..20)) {
        let (mut server, sensor, _) = registered(1);
        for mut datagram in datagrams {
            server.handle_datagram(Instant::ZERO, CLOCK_MS, sensor.peer(), &datagram);
            // The same as a post to /b, so that the layer above is reached too.
            datagram.splice(0..0, [0x40, 0x02, 0, 1, 0xb1, b'b', 0xff]);
            server.handle_datagram(Instant::ZERO, CLOCK_MS, sensor.peer(), &datagram);
        }
    }
}

#[test]
fn what_a_device_is_to_do_comes_with_the_acknowledgement_and_with_its_repeats() {
    let command = Command {
        id: CommandId::new(CLOCK_MS, 7).unwrap(),
        expires_ms: CLOCK_MS + 1,
        act: Act::Every { interval_ms: u32::MAX },
    };
    let log = Log::default();
    let mut server =
        server_with(&log, move |whom, now_ms| (whom == device(1) && now_ms == CLOCK_MS).then_some(command));
    for n in [1, 2] {
        let mut sensor = Sensor::new(n);
        sensor.post(&mut server, "s", &registration_of(device(n)));
        let batch = sensor.batch(1, 3);
        let request = sensor.request("b", &batch);
        server.handle_datagram(Instant::ZERO, CLOCK_MS, sensor.peer(), &request);
        store(&mut server, &log);
        let expected = Answer { command: (n == 1).then_some(command), ..Answer::new(3, CLOCK_MS) };
        let answers: Vec<_> = std::iter::from_fn(|| server.poll_transmit()).collect();
        server.handle_datagram(Instant::ZERO, CLOCK_MS + 1, sensor.peer(), &request);
        let repeated: Vec<_> = std::iter::from_fn(|| server.poll_transmit()).collect();
        assert_eq!(answers, repeated, "a repeat is answered as before");
        server.requests.answers.extend(answers);
        assert_eq!(sensor.take(&mut server), Some((Code::CHANGED, Some(expected))));
        // A batch of nothing asks for the time, and for what is to be done.
        let nothing = sensor.batch(4, 0);
        assert_eq!(sensor.post(&mut server, "b", &nothing), Some((Code::CHANGED, Some(expected))));
    }
    assert_eq!(server.requests.metrics.commands_handed.get(), 2);
}

#[test]
fn where_a_device_had_better_send_comes_with_the_acknowledgement_unless_there_is_something_to_do() {
    let command =
        Command { id: CommandId::new(CLOCK_MS, 7).unwrap(), expires_ms: CLOCK_MS + 1, act: Act::Reboot };
    for (waiting, n, advice) in [(None, 0xad, Some(ELSEWHERE)), (None, 1, None), (Some(command), 0xad, None)]
    {
        let log = Log::default();
        let (mut server, mut sensor) = (server_with(&log, move |_, _| waiting), Sensor::new(n));
        sensor.post(&mut server, "s", &registration_of(device(n)));
        let batch = sensor.batch(1, 3);
        assert_eq!(sensor.post(&mut server, "b", &batch), None, "nothing is advised before it is durable");
        store(&mut server, &log);
        let expected = Answer { command: waiting, advice, ..Answer::new(3, CLOCK_MS) };
        assert_eq!(sensor.take(&mut server), Some((Code::CHANGED, Some(expected))));
    }
}
