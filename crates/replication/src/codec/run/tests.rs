//! Runs through both ends of a connection against the records they were made of, what strangers may make of the reading end, and what
//! sensors' records come to.

use alloc::format;
use alloc::string::String;
use alloc::vec;

extern crate std;

use proptest::prelude::*;
use tidelog_record::{Batch, BodyHead, BodyWriter, Column, NodeId, Origin, Run, Series, Value};

use super::*;
use crate::codec::{Decoder, Encoder, FrameHeader, encode};
use crate::message::Message;

fn stream() -> StreamId {
    StreamId { site: "plant".parse().unwrap(), node: NodeId([7; 16]), run: Run(3) }
}

fn records(bodies: impl IntoIterator<Item = Vec<u8>>) -> Message {
    let bodies = Bodies(bodies.into_iter().map(BodyBytes).collect());
    Message::Records(Records { stream: stream(), first: Lsn(5), chain: ChainHash([9; 16]), bodies })
}

/// A connection in one direction.
#[derive(Default)]
struct Way {
    encoder: Encoder,
    decoder: Decoder,
}

impl Way {
    /// Bytes that a message took, when it came as it went.
    fn send(&mut self, message: &Message) -> usize {
        let mut bytes = Vec::new();
        self.encoder.encode(message, &mut bytes).unwrap();
        self.decoder.push(&bytes);
        assert_eq!(self.decoder.next_message().unwrap().as_ref(), Some(message));
        bytes.len()
    }
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => (-500..500_i32).prop_map(|tenths| Value::F64(f64::from(tenths) / 10.0)),
        1 => any::<f64>().prop_map(Value::F64),
        1 => any::<i64>().prop_map(Value::I64),
        1 => any::<bool>().prop_map(Value::Bool),
        1 => "[a-z]{0,9}".prop_map(Value::Text),
    ]
}

fn batch() -> impl Strategy<Value = Vec<u8>> {
    let series = ("[ab]", "[a-d]{1,3}").prop_map(|(name, of)| Series::new(&name, [("of", of)]).unwrap());
    let points = prop::collection::vec((0..1_000_i64, value()), 0..5);
    let origin = prop::option::of((0..3_u8, 0..9_u64).prop_map(|(device, first_seq)| Origin {
        device: tidelog_record::DeviceId([device; 8]),
        epoch: 1,
        first_seq,
        count: 2,
    }));
    (0..5_000_i64, origin, prop::collection::vec((series, points), 0..4))
        .prop_map(|(authored_ms, origin, series)| Batch { authored_ms, origin, series }.encode().unwrap())
}

/// Mostly bodies that can be packed; some spelt otherwise, some that are none.
fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => batch(),
        1 => (batch(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut body, at, to)| {
            let at = at.index(body.len());
            body[at] = to;
            body
        }),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}

/// A frame with a right checksum.
fn frame(payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_le_bytes().to_vec();
    bytes.extend(crc32fast::hash(payload).to_le_bytes());
    bytes.extend(payload);
    bytes
}

fn payload_of(bytes: &[u8]) -> &[u8] {
    &bytes[FrameHeader::BYTES..]
}

/// A run of bodies in these forms, whatever they are, whose checksum is that of `bodies`.
fn run(forms: &[(u64, &[u8])], bodies: &[Vec<u8>]) -> Vec<u8> {
    let crc = crc32fast::hash(&bodies.concat());
    let mut payload = vec![MARK];
    rmp_serde::encode::write(&mut payload, &(stream(), Lsn(5), ChainHash([9; 16]), crc)).unwrap();
    for (form, body) in forms {
        put_number(&mut payload, (body.len() as u64) << FORM_BITS | form);
        payload.extend_from_slice(body);
    }
    payload
}

fn read(unpacking: &mut Unpacking, payload: &[u8]) -> Result<Records, FrameError> {
    unpacking.take(payload)
}

proptest! {
    #[test]
    fn all_records_come_back(
        messages in prop::collection::vec(prop::collection::vec(body(), 0..6), 1..8),
    ) {
        let mut way = Way::default();
        for bodies in &messages {
            way.send(&records(bodies.clone()));
            way.send(&Message::Keepalive);
        }
    }

    #[test]
    fn the_same_messages_are_the_same_bytes(bodies in prop::collection::vec(body(), 0..6)) {
        let write = || {
            let (mut encoder, mut bytes) = (Encoder::default(), Vec::new());
            for _ in 0..3 {
                encoder.encode(&records(bodies.clone()), &mut bytes).unwrap();
            }
            bytes
        };
        prop_assert_eq!(write(), write());
    }

    #[test]
    fn what_nobody_packed_is_refused_or_is_no_more_than_a_message_may_bring(
        bodies in prop::collection::vec(body(), 0..4),
        junk in prop::collection::vec(prop::collection::vec((0..4_u64, prop::collection::vec(any::<u8>(), 0..60)), 0..5), 1..4),
        noise in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let (mut encoder, mut bytes, mut decoder) = (Encoder::default(), Vec::new(), Decoder::default());
        encoder.encode(&records(bodies), &mut bytes).unwrap();
        decoder.push(&bytes);
        prop_assert!(decoder.next_message().is_ok());
        let mut unpacking = decoder.unpacking;
        for forms in junk {
            let forms: Vec<_> = forms.iter().map(|(form, bytes)| (*form, bytes.as_slice())).collect();
            let payload = run(&forms, &[]);
            if let Ok(records) = read(&mut unpacking, &payload) {
                prop_assert!(records.bodies.cost_bytes() <= RUN_BYTES_MAX);
            }
        }
        let mut payload = vec![MARK];
        payload.extend(noise);
        drop(read(&mut unpacking, &payload));
        let mut decoder = Decoder::default();
        decoder.push(&frame(&payload));
        drop(decoder.next_message());
    }

    #[test]
    fn a_changed_byte_is_found(
        bodies in prop::collection::vec(batch(), 1..5), at in any::<prop::sample::Index>(), by in 1..=255_u8,
    ) {
        let (mut bytes, message) = (Vec::new(), records(bodies));
        Encoder::default().encode(&message, &mut bytes).unwrap();
        let mut payload = payload_of(&bytes).to_vec();
        let at = at.index(payload.len() - 1) + 1;
        payload[at] ^= by;
        // Stream, LSN and chain hash are held to what is known by whoever takes the records.
        if let (Ok(read), Message::Records(sent)) = (read(&mut Unpacking::default(), &payload), message) {
            prop_assert_eq!(read.bodies, sent.bodies);
        }
    }
}

/// A body of `points` points of one series that all are the same.
fn even_body(points: usize) -> Vec<u8> {
    let times: Vec<i64> = (0..).take(points).collect();
    let mut writer = BodyWriter::new(BodyHead::default(), 1);
    let numbers = vec![true; points];
    writer
        .entry(&Series::new("m", [("a", "b")]).unwrap().canonical(), &times, Column::Bool(&numbers))
        .unwrap();
    writer.finish().unwrap()
}

#[test]
fn few_bytes_that_come_to_many_are_refused_while_they_are_unpacked() {
    let body = even_body(200_000);
    let (mut packer, mut packed) = (Packer::default(), Vec::new());
    let fit = RUN_BYTES_MAX / (body.len() + RECORD_COST_BYTES);
    let mut forms = Vec::new();
    for n in 0..fit + 1 {
        packed.clear();
        assert!(packer.pack(&body, &mut packed).is_some());
        forms.push((if n == 0 { PACKED_ANEW } else { PACKED }, packed.clone()));
    }
    let forms: Vec<_> = forms.iter().map(|(form, bytes)| (*form, bytes.as_slice())).collect();
    let bodies = vec![body; fit + 1];
    let fits = run(&forms[..fit], &bodies[..fit]);
    assert!(read(&mut Unpacking::default(), &fits).is_ok());
    let payload = run(&forms, &bodies);
    assert!(payload.len() * 4 < RUN_BYTES_MAX, "{} bytes", payload.len());
    assert_eq!(read(&mut Unpacking::default(), &payload), Err(FrameError::TooMuch));
}

#[test]
fn more_records_than_a_message_may_have_are_refused() {
    let forms = vec![(AS_IT_IS, [].as_slice()); RECORDS_PER_MESSAGE_MAX + 1];
    assert!(read(&mut Unpacking::default(), &run(&forms[1..], &[])).is_ok());
    assert_eq!(read(&mut Unpacking::default(), &run(&forms, &[])), Err(FrameError::TooMuch));
}

/// A body with so many series.
fn wide_body(series: usize, label: &str) -> Vec<u8> {
    let mut writer = BodyWriter::new(BodyHead::default(), series);
    for n in 0..series {
        let series = Series::new("m", [("of", format!("{n}{label}"))]).unwrap();
        writer.entry(&series.canonical(), &[1], Column::I64(&[1])).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn what_would_have_to_be_kept_in_mind_is_bounded_on_both_sides() {
    for body in [wide_body(SEQUENCE_SERIES_MAX + 1, ""), wide_body(600, &String::from("x").repeat(2_000))] {
        let mut way = Way::default();
        way.send(&records([even_body(10), body.clone(), even_body(10)]));
        way.send(&records([even_body(10)]));
        // Who does not keep to it is not followed.
        let mut packed = Vec::new();
        assert!(Packer::default().pack(&body, &mut packed).is_some());
        let payload = run(&[(PACKED_ANEW, &packed)], &[body]);
        assert_eq!(read(&mut Unpacking::default(), &payload), Err(FrameError::Packed));
    }
}

#[test]
fn a_sequence_has_an_end_on_both_sides() {
    let body = even_body(1);
    let (mut way, mut sent) = (Way::default(), 0);
    while sent <= SEQUENCE_BODIES_MAX + 10 {
        way.send(&records(vec![body.clone(); 1_000]));
        sent += 1_000;
    }
    let (mut unpacking, mut packer) = (Unpacking::default(), Packer::default());
    for n in 0..=SEQUENCE_BODIES_MAX {
        let mut packed = Vec::new();
        assert!(packer.pack(&body, &mut packed).is_some());
        let form = if n == 0 { PACKED_ANEW } else { PACKED };
        let outcome = read(&mut unpacking, &run(&[(form, &packed)], std::slice::from_ref(&body)));
        assert_eq!(outcome.is_ok(), n < SEQUENCE_BODIES_MAX, "{n}");
    }
}

#[test]
fn nothing_is_taken_behind_a_sequence_that_never_began_or_has_ended() {
    let (body, mut packed) = (even_body(3), Vec::new());
    assert!(Packer::default().pack(&body, &mut packed).is_some());
    let mut unpacking = Unpacking::default();
    let behind = run(&[(PACKED, &packed)], std::slice::from_ref(&body));
    assert_eq!(read(&mut unpacking, &behind), Err(FrameError::Packed));
    let unknown = run(&[(3, &packed)], std::slice::from_ref(&body));
    assert_eq!(read(&mut unpacking, &unknown), Err(FrameError::Packed));
    assert!(read(&mut unpacking, &run(&[(PACKED_ANEW, &packed)], &[body])).is_ok());
    assert_eq!(read(&mut unpacking, &run(&[(PACKED, &[7; 30])], &[])), Err(FrameError::Packed));
    assert_eq!(read(&mut unpacking, &behind), Err(FrameError::Packed));
}

#[test]
fn other_bodies_than_were_packed_are_no_message() {
    let (body, mut packed) = (even_body(3), Vec::new());
    assert!(Packer::default().pack(&body, &mut packed).is_some());
    let payload = run(&[(PACKED_ANEW, &packed)], &[even_body(4)]);
    assert_eq!(read(&mut Unpacking::default(), &payload), Err(FrameError::Packed));
}

#[test]
fn records_beyond_what_a_run_may_hold_go_as_they_are() {
    let message = records(vec![vec![1; 300_000]; 4]);
    let mut bytes = Vec::new();
    let outcome = Encoder::default().encode(&message, &mut bytes);
    assert!(matches!(outcome, Err(FrameError::TooLong { .. })), "as ever");
    assert_eq!(bytes, []);
}

/// Sensors that are read each ten seconds: what each shows in thousandths, and how far it moves.
struct Field {
    dice: u64,
    shown: Vec<i64>,
    at_ms: i64,
}

impl Field {
    fn of(sensors: usize) -> Self {
        Self { dice: 7, shown: vec![21_500; sensors], at_ms: 1_764_547_200_000 }
    }

    fn roll(&mut self, sides: u64) -> i64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from((self.dice >> 33) % sides).unwrap()
    }

    /// A record of so many samples of each of the sensors from the `first` on.
    fn body(&mut self, first: usize, sensors: usize, samples: usize) -> Vec<u8> {
        let times: Vec<i64> = (1..).take(samples).map(|n| (self.at_ms + n * 10_000) * 1_000_000).collect();
        self.at_ms += i64::try_from(samples).unwrap() * 10_000;
        let authored_ms = self.at_ms + self.roll(20);
        let mut writer = BodyWriter::new(BodyHead { authored_ms, ..BodyHead::default() }, sensors);
        for sensor in first..first + sensors {
            let mut scaled = Vec::new();
            for _ in 0..samples {
                self.shown[sensor] += self.roll(3) - 1;
                scaled.push(self.shown[sensor]);
            }
            let series = Series::new("temperature", [("device", format!("{sensor:016x}"))]).unwrap();
            writer
                .entry(&series.canonical(), &times, Column::Decimal { digits: 2, scaled: &scaled })
                .unwrap();
        }
        writer.finish().unwrap()
    }
}

/// Bytes of frames a point, as they are and packed: `count` messages, each of so many records of so many samples of so many sensors.
fn bytes_a_point(count: usize, records_each: usize, sensors: usize, samples: usize) -> [f64; 2] {
    let mut field = Field::of(1_000);
    let mut way = Way::default();
    let (mut plain, mut packed) = (Vec::new(), 0);
    for n in 0..count {
        let message = records((0..records_each).map(|at| {
            let first = (n * records_each + at) * sensors % field.shown.len();
            field.body(first, sensors, samples)
        }));
        encode(&message, &mut plain).unwrap();
        packed += way.send(&message);
    }
    let points = (count * records_each * sensors * samples) as f64;
    [plain.len(), packed].map(|bytes| bytes as f64 / points)
}

#[test]
fn sensors_records_take_a_fraction_of_what_they_are_catching_up_and_live() {
    // Messages, records in each, sensors in each of those, samples; least as they are, most packed.
    for (messages, each, sensors, samples, least, most) in [
        (8, 30, 1_000, 1, 7.5, 0.24),
        (4, 20, 1_000, 5, 1.9, 0.23),
        (20, 150, 100, 10, 1.3, 0.23),
        (20, 4_000, 1, 1, 60.0, 9.0),
        (60, 1, 1_000, 1, 7.5, 0.35),
        (600, 1, 100, 1, 8.5, 1.0),
    ] {
        let [plain, packed] = bytes_a_point(messages, each, sensors, samples);
        let case = std::format!("{each} records of {sensors} sensors, {samples} samples");
        assert!(packed < most, "{case}: {packed} packed");
        assert!(plain > least, "{case}: {plain} as they are");
    }
}

fn hex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// What peers send today, packed or as it is, has to be read for as long as a version with it is spoken.
#[test]
fn the_bytes_of_the_versions_that_are_spoken_are_read_for_ever() {
    let bodies = [even_body(3), vec![1, 2, 3], even_body(3), even_body(4)];
    let message = records(bodies);
    let (mut plain, mut packed) = (Vec::new(), Vec::new());
    encode(&message, &mut plain).unwrap();
    Encoder::default().encode(&message, &mut packed).unwrap();
    for (bytes, frozen) in [(plain, AS_IT_IS_FROZEN), (packed, PACKED_FROZEN)] {
        let written: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(written, frozen);
        let mut decoder = Decoder::default();
        decoder.push(&hex(frozen));
        assert_eq!(decoder.next_message().unwrap().as_ref(), Some(&message));
    }
}

const AS_IT_IS_FROZEN: &str = "98000000a0d55fd881a75265636f7264739493a5706c616e74c410070707070707070707070707070707070305c4100909090909090909090909090909090994c41c01000000000000000000010c00016d00000501016101620c00020007c403010203c41c01000000000000000000010c00016d00000501016101620c00020007c41d01000000000000000000010c00016d000005010161016210000200000f";
const PACKED_FROZEN: &str = "60000000c9f762c2c19493a5706c616e74c410070707070707070707070707070707070305c41009090909090909090909090909090909ce7709f28d3e108d6161b8b02d2633fed770af76200c0102033e108d6161b8b02d2633fed770af76201d0ee08d06990f71";
