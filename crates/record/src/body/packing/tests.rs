//! Bodies that went through both ends against what they were, and what sensors' bodies come to.

extern crate std;
use std::format;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::batch::{Batch, Body};
use crate::body::Origin;
use crate::body::tests::{batch, relay};
use crate::body::{BodyHead, BodyReader, BodyWriter, Entry, LAYOUT_F64, Opened};
use crate::column::Column;
use crate::decimal::decimal_value;
use crate::device::DeviceId;
use crate::point::Value;
use crate::series::Series;

/// Both ends, which begin anew where a body is refused; how many were packed and what they took.
#[derive(Default)]
struct Pair {
    packer: Packer,
    unpacker: Unpacker,
    packed: usize,
    canonical: usize,
    bytes: usize,
}

/// What a writer makes of what can be read in a body; `None` where that has an end.
fn written_again(body: &[u8]) -> Option<Vec<u8>> {
    let Ok(Opened::Points(mut reader)) = BodyReader::open(body) else { return None };
    let mut writer = BodyWriter::new(reader.head(), reader.entries());
    let mut entry = Entry::default();
    while reader.next(&mut entry).ok()? {
        writer.entry(&entry.canonical, &entry.times, &entry.values).unwrap();
    }
    Some(writer.finish().unwrap())
}

impl Pair {
    fn send(&mut self, body: &[u8]) -> bool {
        let mut packed = vec![0, 0, 0];
        let Some(spelling) = self.packer.pack(body, &mut packed) else {
            assert_eq!(packed, [0, 0, 0]);
            (self.packer, self.unpacker) = Default::default();
            return false;
        };
        if spelling == Spelling::Canonical
            && let Some(again) = written_again(body)
        {
            assert!(again == body, "{body:?} is said to be canonical, and is {again:?}");
            self.canonical += 1;
        }
        let mut out = vec![1];
        self.unpacker.unpack(&packed[3..], &mut out).unwrap();
        assert!(out == body, "{out:?} is not {body:?}");
        self.packed += 1;
        self.bytes += packed.len() - 3;
        true
    }
}

proptest! {
    #[test]
    fn every_body_that_is_packed_comes_back_byte_for_byte(
        batches in prop::collection::vec((batch(), prop::option::weighted(0.1, relay())), 0..12),
        order in prop::collection::vec((any::<prop::sample::Index>(), -100..100_i64), 0..30),
    ) {
        let mut pair = Pair::default();
        let bodies: Vec<_> = batches.iter().filter(|(batch, _)| !batch.series.is_empty()).collect();
        for (at, later) in order {
            if bodies.is_empty() {
                break;
            }
            let (batch, relay) = at.get(&bodies);
            let mut batch = batch.clone();
            batch.authored_ms = batch.authored_ms.wrapping_add(later);
            for (at, value) in batch.series.iter_mut().flat_map(|(_, points)| points) {
                *at = at.wrapping_add(later * 1_000_000_000);
                if let Value::I64(number) = value {
                    *number = number.wrapping_add(later);
                }
            }
            let body = match relay {
                None => batch.encode().unwrap(),
                Some(relay) => batch.encode_relayed(relay).unwrap(),
            };
            pair.send(&body);
        }
    }

    /// A tenth of the bytes are no body at all; the others are one with a byte changed, or spelt in a way of its own.
    #[test]
    fn what_is_no_body_or_spelt_otherwise_is_refused_or_comes_back_all_the_same(
        batches in prop::collection::vec(batch(), 1..4), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
    ) {
        let mut pair = Pair::default();
        for (at, to) in changes {
            let mut body = at.get(&batches).encode().unwrap();
            pair.send(&body);
            let place = at.index(body.len());
            body[place] = to;
            pair.send(&body);
        }
    }

    #[test]
    fn bytes_that_nobody_packed_are_refused_without_a_panic(
        batches in prop::collection::vec(batch(), 0..4), junk in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..6),
    ) {
        let (mut packer, mut unpacker, mut out) = (Packer::default(), Unpacker::default(), vec![]);
        for batch in &batches {
            let mut packed = vec![];
            if packer.pack(&batch.encode().unwrap(), &mut packed).is_none() || unpacker.unpack(&packed, &mut out).is_err() {
                break;
            }
        }
        for bytes in junk {
            // Few bytes may be a body by chance; a reader that is led astray has an end.
            drop(unpacker.unpack(&bytes, &mut out));
            prop_assert!(out.len() <= 2 * crate::BATCH_BYTES_MAX);
        }
    }
}

/// Sensors that are read each ten seconds: temperature, humidity, battery and light.
struct Field {
    state: u64,
    values: Vec<[i64; 4]>,
    at: i64,
}

const METRICS: [(&str, u8); 4] = [("temperature_c", 2), ("humidity", 1), ("battery_mv", 0), ("light_lux", 0)];

impl Field {
    fn new(devices: usize) -> Self {
        Self { state: 7, values: vec![[2150, 455, 3500, 0]; devices], at: 1_764_547_200_000 }
    }

    fn dice(&mut self, sides: u64) -> i64 {
        self.state =
            self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.state >> 33) % sides).cast_signed()
    }

    /// The next record: so many samples of each device, which come in a turn of their own.
    fn body(&mut self, samples: usize, turn: usize) -> Vec<u8> {
        let devices = self.values.len();
        let mut columns = vec![vec![Vec::new(); 4]; devices];
        let mut times = Vec::new();
        for _ in 0..samples {
            self.at += 10_000;
            times.push(self.at * 1_000_000);
            for (device, columns) in columns.iter_mut().enumerate() {
                let steps = [self.dice(5) - 2, self.dice(3) - 1, -i64::from(self.dice(500) == 0), 0];
                for (metric, step) in steps.into_iter().enumerate() {
                    self.values[device][metric] += step;
                    columns[metric].push(self.values[device][metric]);
                }
            }
        }
        let mut writer =
            BodyWriter::new(BodyHead { authored_ms: self.at + 3, ..BodyHead::default() }, devices * 4);
        for place in 0..devices {
            let device = (place + turn) % devices;
            for (metric, (name, digits)) in METRICS.into_iter().enumerate() {
                let series =
                    Series::new(name, [("device", format!("{device:016x}")), ("site", "plant".into())])
                        .unwrap();
                let scaled = &columns[device][metric];
                writer.entry(&series.canonical(), &times, Column::Decimal { digits, scaled }).unwrap();
            }
        }
        writer.finish().unwrap()
    }
}

#[test]
fn sensors_that_are_read_time_after_time_take_a_quarter_of_a_byte_a_point() {
    for (samples, turning, most) in [(1, 0, 0.22), (5, 0, 0.20), (1, 37, 0.23)] {
        let (mut field, mut pair, mut plain) = (Field::new(250), Pair::default(), 0);
        assert!(pair.send(&field.body(samples, 0)));
        let learnt = pair.bytes;
        for n in 0..60 {
            let body = field.body(samples, n * turning);
            plain += body.len();
            assert!(pair.send(&body));
        }
        let points = (60 * samples * 1_000) as f64;
        let (packed, plain) = ((pair.bytes - learnt) as f64 / points, plain as f64 / points);
        assert!(packed < most, "{packed} bytes a point of {plain}, {learnt} to learn");
    }
}

#[test]
fn a_reader_refuses_to_learn_more_than_it_is_told_to_and_counts_as_the_writer_does() {
    let body = Field::new(10).body(1, 0);
    let (mut packer, mut packed, mut out) = (Packer::default(), vec![], vec![]);
    assert!(packer.pack(&body, &mut packed).is_some());
    let (series, learnt) = (packer.series(), packer.learnt_bytes());
    assert_eq!(series, 40);
    for (series_max, learnt_max, is_taken) in
        [(series, learnt, true), (series - 1, learnt, false), (series, learnt - 1, false)]
    {
        let bounded = (series_max, learnt_max);
        let outcome = Unpacker::bounded(Foretells::Within, bounded.0, bounded.1).unpack(&packed, &mut out);
        assert_eq!(outcome.is_ok(), is_taken, "{series_max} {learnt_max}");
    }
}

/// What a sender makes of bodies that go in groups, and what a receiver makes of that: groups end where a body is refused.
fn send_in_groups(bodies: &[Vec<u8>], group_max: usize) -> usize {
    let across = || Packer::bounded(Foretells::Across, usize::MAX, usize::MAX);
    let across_back = || Unpacker::bounded(Foretells::Across, usize::MAX, usize::MAX);
    let (mut packer, mut unpacker, mut rest, mut bytes) = (across(), across_back(), bodies, 0);
    while !rest.is_empty() {
        let group = &rest[..group_max.min(rest.len())];
        let mut packed = vec![9];
        let count = packer.pack_many(group.iter().map(Vec::as_slice), &mut packed);
        let mut back = Vec::new();
        let each = &mut |body: &[u8]| {
            back.push(body.to_vec());
            true
        };
        if count > 0 {
            unpacker.unpack_many(&packed[1..], count, each).unwrap();
        } else {
            assert_eq!(packed, [9]);
        }
        assert!(back == group[..count], "a group of {count}");
        bytes += packed.len() - 1;
        let refused = usize::from(count < group.len());
        if refused > 0 {
            (packer, unpacker) = (across(), across_back());
        }
        rest = &rest[count + refused..];
    }
    bytes
}

proptest! {
    #[test]
    fn every_group_that_is_packed_comes_back_byte_for_byte(
        batches in prop::collection::vec((batch(), prop::option::weighted(0.1, relay())), 0..6),
        order in prop::collection::vec((any::<prop::sample::Index>(), -100..100_i64, any::<prop::sample::Index>(), 0..30_u8), 0..30),
        group_max in 1..12_usize,
    ) {
        if batches.is_empty() {
            return Ok(());
        }
        let bodies: Vec<Vec<u8>> = order
            .iter()
            .map(|(at, later, place, damage)| {
                let (mut batch, relay) = at.get(&batches).clone();
                batch.authored_ms = batch.authored_ms.wrapping_add(*later);
                let mut body = relay.map_or_else(|| batch.encode(), |relay| batch.encode_relayed(&relay)).unwrap();
                if *damage == 0 {
                    let place = place.index(body.len());
                    body[place] ^= 1;
                }
                body
            })
            .collect();
        send_in_groups(&bodies, group_max);
    }

    #[test]
    fn what_nobody_packed_ends_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300), bodies in 0..40_usize,
    ) {
        let mut unpacker = Unpacker::bounded(Foretells::Across, 100, 10_000);
        let mut left = 40;
        drop(unpacker.unpack_many(&bytes, bodies, &mut |_| {
            left -= 1;
            left > 0
        }));
    }
}

#[test]
fn short_bodies_of_many_devices_take_next_to_nothing_where_their_order_repeats() {
    let mut bodies = Vec::new();
    for round in 0..40_i64 {
        for device in 0..200_u8 {
            let origin =
                Origin { device: DeviceId([device; 8]), epoch: 1, first_seq: round.unsigned_abs(), count: 1 };
            let series = Series::new("t", [("device", format!("{device:016x}"))]).unwrap();
            let series = vec![(series, vec![(round * 10_000_000_000, Value::I64(21))])];
            let authored_ms = round * 10_000 + i64::from(device) * 50;
            bodies.push(Batch { authored_ms, origin: Some(origin), series }.encode().unwrap());
        }
    }
    let [learnt, bytes] = [&bodies[..200 * 4], &bodies].map(|bodies| send_in_groups(bodies, 100));
    let a_body = (bytes - learnt) as f64 / (bodies.len() - 200 * 4) as f64;
    assert!(a_body < 0.3, "{a_body} bytes a body");
}

#[test]
fn a_column_keeps_its_spelling_as_digits_come_and_go() {
    let mut pair = Pair::default();
    let series = Series::new("t", [("a", "b")]).unwrap();
    for (n, scaled) in (0..).zip([2150, 2151, 2200, 2000, 0, 215_155, 2150, -10, 100_000]) {
        let value = Value::F64(decimal_value(scaled, 3));
        let series =
            vec![(series.clone(), vec![(n, value)]), (Series::new("u", [("a", "b")]).unwrap(), vec![])];
        let body = Batch { series, ..Batch::default() }.encode().unwrap();
        pair.send(&body);
        assert!(matches!(Body::decode(&body), Ok(Body::Points(_))));
    }
    assert_eq!((pair.packed, pair.canonical), (9, 9));
}

#[test]
fn only_what_a_writer_writes_is_said_to_be_canonical() {
    let series = Series::new("t", [("a", "b")]).unwrap();
    let spell = |values: &[Value]| {
        let points = (0..).zip(values.iter().cloned()).collect();
        Batch { series: vec![(series.clone(), points)], ..Batch::default() }.encode().unwrap()
    };
    let decimals = [Value::F64(21.5), Value::F64(21.25)];
    for (values, spelling) in [
        (&decimals[..], Spelling::Canonical),
        (&[Value::F64(0.1 + 0.2), Value::F64(1.0)], Spelling::Canonical),
        (&[Value::I64(7), Value::I64(-9)], Spelling::Canonical),
        (&[Value::Bool(true), Value::Bool(false)], Spelling::Canonical),
        (&[Value::Text("open".into())], Spelling::Unknown),
        (&[Value::I64(7), Value::F64(0.5)], Spelling::Unknown),
    ] {
        assert_eq!(Packer::default().pack(&spell(values), &mut vec![]), Some(spelling), "{values:?}");
    }
    let body = spell(&decimals);
    let (entry, values) = (body.split_at(body.len() - 3).0, [2150, 2125].map(|n| f64::from(n) / 100.0));
    let mut spelt_as_floats = [entry, &values.map(|value| value.to_bits().to_le_bytes()).concat()].concat();
    let mut head = vec![];
    BodyHead::default().put(&mut head);
    assert_eq!(std::mem::replace(&mut spelt_as_floats[head.len() + 1], LAYOUT_F64), 2);
    assert_eq!(Packer::default().pack(&spelt_as_floats, &mut vec![]), Some(Spelling::Unknown));
    assert!(written_again(&spelt_as_floats).unwrap() == body);
}
