//! Bodies against batches: what is written is read, in one spelling; what is not a body is refused.

extern crate std;
use super::*;
use crate::batch::{Batch, Body};
use crate::column::Column;
use crate::point::Value;
use crate::series::Series;
use alloc::string::{String, ToString};
use proptest::prelude::*;
use std::format;
use std::vec;

fn number() -> impl Strategy<Value = f64> {
    let special = [
        0.0,
        -0.0,
        f64::NAN,
        -f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::MIN_POSITIVE,
        5e-324,
        0.1 + 0.2,
    ];
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        (-3000..3000_i64, 0..4_u8).prop_map(|(scaled, digits)| crate::decimal_value(scaled, digits)),
        (any::<i64>(), 0..10_u8)
            .prop_map(|(scaled, digits)| crate::decimal_value(scaled % crate::DECIMAL_LIMIT, digits)),
        prop::sample::select(special.to_vec()),
    ]
}

fn whole() -> impl Strategy<Value = i64> {
    prop_oneof![any::<i64>(), -10..10_i64, Just(i64::MIN), Just(i64::MAX)]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        number().prop_map(Value::F64),
        whole().prop_map(Value::I64),
        any::<bool>().prop_map(Value::Bool),
        ".{0,16}".prop_map(Value::Text),
    ]
}

fn values() -> impl Strategy<Value = Vec<Value>> {
    prop_oneof![
        prop::collection::vec(value(), 0..20),
        prop::collection::vec((2000..2010_i64).prop_map(|m| Value::F64(crate::decimal_value(m, 2))), 0..20),
        prop::collection::vec(number().prop_map(Value::F64), 0..20),
        prop::collection::vec(whole().prop_map(Value::I64), 0..20),
        prop::collection::vec((0..8_i64).prop_map(Value::I64), 0..20),
        prop::collection::vec(any::<bool>().prop_map(Value::Bool), 0..20),
        prop::collection::vec(".{0,6}".prop_map(Value::Text), 0..5),
    ]
}

fn time() -> impl Strategy<Value = i64> {
    prop_oneof![
        any::<i64>(),
        (0..5_i64, prop::sample::select(UNITS_NS.to_vec()))
            .prop_map(|(n, unit)| 1_795_219_200_000_000_000 + n * unit),
        Just(i64::MIN),
        Just(i64::MAX),
    ]
}

fn series() -> impl Strategy<Value = Series> {
    let labels = prop::collection::btree_map("[ab]{1,2}", "[ -~é]{1,4}", 0..3);
    ("[a-c]{1,2}", labels).prop_map(|(metric, labels)| Series::new(metric, labels).unwrap())
}

pub(super) fn batch() -> impl Strategy<Value = Batch> {
    let origin = prop::option::of((any::<[u8; 8]>(), any::<u32>(), any::<u64>(), any::<u32>()).prop_map(
        |(device, epoch, first_seq, count)| Origin { device: DeviceId(device), epoch, first_seq, count },
    ));
    let clocks = prop::collection::vec(prop::collection::vec(time(), 20), 1..3);
    let entries = prop::collection::vec((series(), any::<prop::sample::Index>(), values()), 0..8);
    (any::<i64>(), origin, clocks, entries).prop_map(|(authored_ms, origin, clocks, entries)| {
        let series = entries
            .into_iter()
            .map(|(name, clock, values)| (name, clock.get(&clocks).iter().copied().zip(values).collect()))
            .collect();
        Batch { authored_ms, origin, series }
    })
}

pub(super) fn relay() -> impl Strategy<Value = Relay> {
    any::<([u8; 16], u64, u64, Option<u64>)>().prop_map(|(node, run, lsn, first_point)| Relay {
        node: NodeId(node),
        run: Run(run),
        lsn: Lsn(lsn),
        first_point,
    })
}

/// Reads a body through and says what it was, in entries of their own.
fn entries(bytes: &[u8]) -> Result<(BodyHead, Vec<Entry>), BatchError> {
    let Opened::Points(mut reader) = BodyReader::open(bytes)? else { return Err(BatchError::Malformed) };
    let (mut all, mut entry) = (vec![], Entry::default());
    while reader.next(&mut entry)? {
        all.push(entry.clone());
    }
    Ok((reader.head(), all))
}

/// Writes what was read.
fn again(bytes: &[u8]) -> Result<Vec<u8>, BatchError> {
    let (head, entries) = entries(bytes)?;
    let mut writer = BodyWriter::new(head, entries.len());
    for entry in &entries {
        writer.entry(&entry.canonical, &entry.times, &entry.values)?;
    }
    writer.finish()
}

proptest! {
    #[test]
    fn a_batch_is_read_as_it_was_written_and_written_again_as_it_was(batch in batch(), relay in relay()) {
        let bytes = batch.encode().unwrap();
        prop_assert_eq!(again(&bytes), Ok(bytes.clone()));
        prop_assert_eq!(Relay::of_body(&bytes), Ok(None));
        prop_assert_eq!(Body::decode(&bytes), Ok(Body::Points(batch.clone())));
        let relayed = batch.encode_relayed(&relay).unwrap();
        prop_assert_eq!(again(&relayed), Ok(relayed.clone()));
        prop_assert_eq!(Relay::of_body(&relayed), Ok(Some(relay)));
        prop_assert_eq!(Body::decode(&relayed), Ok(Body::Points(batch)));
    }

    #[test]
    fn decimals_that_are_left_are_the_floats_that_they_would_be(batch in batch()) {
        let bytes = batch.encode().unwrap();
        let open = || match BodyReader::open(&bytes) {
            Ok(Opened::Points(reader)) => reader,
            other => panic!("{other:?}"),
        };
        let (mut plain, mut leaving) = (open(), open());
        leaving.leave_decimals();
        let (mut entry, mut left) = (Entry::default(), Entry::default());
        while plain.next(&mut entry).unwrap() {
            prop_assert!(leaving.next(&mut left).unwrap());
            prop_assert_eq!((&entry.canonical, &entry.times, entry.digits), (&left.canonical, &left.times, None));
            if let Some(digits) = left.digits {
                prop_assert!(left.values.is_empty());
                let floats = left.scaled.iter().map(|number| crate::decimal_value(*number, digits)).collect();
                prop_assert_eq!(&entry.values, &Values::F64(floats));
            } else {
                prop_assert_eq!(&entry.values, &left.values);
            }
        }
        prop_assert!(!leaving.next(&mut left).unwrap());
    }

    #[test]
    fn cut_bytes_are_refused_and_changed_or_random_ones_are_never_a_panic(
        batch in batch(), relay in relay(), cut in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 1..4),
        noise in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        for mut bytes in [batch.encode().unwrap(), batch.encode_relayed(&relay).unwrap()] {
            prop_assert!(Body::decode(&bytes[..cut.index(bytes.len())]).is_err());
            for (at, with) in &flips {
                let at = at.index(bytes.len());
                bytes[at] ^= with;
            }
            prop_assert_eq!(entries(&bytes).is_ok(), matches!(Body::decode(&bytes), Ok(Body::Points(_))));
            // What a changed body still says has one spelling.
            if let Ok(written) = again(&bytes) {
                prop_assert_eq!(again(&written), Ok(written.clone()));
                prop_assert_eq!(Body::decode(&written), Body::decode(&bytes));
            }
        }
        let head = BodyHead::default();
        let mut body = vec![];
        head.put(&mut body);
        body.extend(noise);
        drop(Body::decode(&body));
    }

    #[test]
    fn decimals_are_written_as_the_floats_that_they_are(
        numbers in prop::collection::vec(-100_000..100_000_i64, 1..10), digits in 0..=9_u8,
    ) {
        let name = Series::new("m", [("a", "b")]).unwrap().canonical();
        let times: Vec<i64> = numbers.clone();
        let floats = Values::F64(numbers.iter().map(|number| crate::decimal_value(*number, digits)).collect());
        let write = |values: Column<'_>| {
            let mut writer = BodyWriter::new(BodyHead::default(), 1);
            writer.entry(&name, &times, values).unwrap();
            writer.finish().unwrap()
        };
        prop_assert_eq!(write(Column::Decimal { digits, scaled: &numbers }), write(Column::from(&floats)));
    }
}

#[test]
fn samples_of_a_field_take_about_a_byte_a_point() {
    let series =
        |metric: &str, device: i64| Series::new(metric, [("device", format!("d{device:04}"))]).unwrap();
    let (mut batch, mut points) = (Batch::default(), 0);
    for device in 0..1_000 {
        let at = |sample: i64| (1_795_219_200 + sample * 10) * 1_000_000_000;
        let mut add = |metric: &str, value: &dyn Fn(i64) -> Value| {
            batch.series.push((series(metric, device), (0..5).map(|n| (at(n), value(n))).collect()));
            points += 5;
        };
        add("env_temperature", &|n| Value::F64(crate::decimal_value(2150 + device + n % 3, 2)));
        add("env_humidity", &|n| Value::F64(crate::decimal_value(500 + device % 100 - n % 2, 1)));
        add("env_battery", &|_| Value::I64(3400 - device % 100));
        add("env_light", &|_| Value::I64(0));
    }
    let bytes = batch.encode().unwrap();
    assert!(bytes.len() < points * 6 / 5, "{} bytes for {points} points", bytes.len());
}

#[test]
fn every_number_of_a_body_is_where_the_drawing_says() {
    let a = Series::new("t", [("d", "x1")]).unwrap();
    let b = Series::new("u", [("d", "x1")]).unwrap();
    let c = Series::new("t", [("d", "x2")]).unwrap();
    let at = |s: i64, value: Value| (s * 1_000_000_000, value);
    let batch = Batch {
        authored_ms: 7,
        origin: None,
        series: vec![
            (a, vec![at(10, Value::F64(21.5)), at(20, Value::F64(21.75)), at(30, Value::F64(21.7))]),
            (b, vec![at(10, Value::Bool(true)), at(20, Value::Bool(false)), at(30, Value::Bool(true))]),
            (c, vec![at(40, Value::I64(-3))]),
        ],
    };
    let expected = [
        &[1, 7, 0, 0, 0, 0, 0, 0, 0, 0, 3][..],
        // 21.50, 21.75, 21.70 as hundredths; steps 25 and -5 do not fit four bits
        &[0x02, 0, 1, b't', 0, 0, 6, 1, 1, b'd', 2, b'x', b'1', 3 << 2 | 3, 20, 20, 0, 0xcc, 0x21, 50, 9],
        &[0x60 | 12, 1, 1, b'u', 0b101],
        // number 0 again; "x2" for "x1"; 30 s behind the first time before
        &[11, 0, 5, 0, 1, b'2', 1 << 2 | 3, 60, 5],
    ]
    .concat();
    assert_eq!(batch.encode().unwrap(), expected);
}

#[test]
fn a_huge_count_is_not_believed() {
    let mut bytes = vec![];
    BodyHead::default().put(&mut bytes);
    let head = bytes.clone();
    put_u64(&mut bytes, u64::MAX);
    assert_eq!(Body::decode(&bytes), Err(BatchError::Malformed));
    for rest in [&[1_u8, 0, 0, 1, b'a', 0, 0, 1, 0][..], &[1, 12, 0, 1, b'a', 0, 0, 1, 0]] {
        let mut bytes = [&head[..], rest].concat();
        put_u64(&mut bytes, u64::MAX);
        assert_eq!(Body::decode(&bytes), Err(BatchError::Malformed));
    }
}

#[test]
fn few_bytes_do_not_become_many_points_or_long_names() {
    let mut bytes = vec![];
    BodyHead::default().put(&mut bytes);
    let head = bytes.clone();
    let entries = 60_000;
    put_u64(&mut bytes, entries);
    // Truth values: eight to a byte.
    bytes.extend_from_slice(&[12, 0, 1, b'a', 0, 0, 1, 0]);
    put_u64(&mut bytes, 64 << 2);
    bytes.extend_from_slice(&[0; 64 + 8]);
    for _ in 1..entries {
        bytes.extend_from_slice(&[12 | METRIC_FORETOLD | LABELS_SAME | TIMES_SAME, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    assert!(bytes.len() < BATCH_BYTES_MAX);
    assert_eq!(Body::decode(&bytes), Err(BatchError::TooManyPoints { points: BATCH_POINTS_MAX + 64 }));

    let mut bytes = head;
    put_u64(&mut bytes, entries);
    let long = Series::new("a", [("b", "c".repeat(10_000))]).unwrap().canonical();
    bytes.extend_from_slice(&[0, 0, 1, b'a', 0, 0]);
    crate::varint::put_bytes(&mut bytes, &long[2..]);
    bytes.push(0);
    for _ in 1..entries {
        bytes.push(METRIC_FORETOLD | LABELS_SAME | TIMES_SAME);
    }
    let names = BATCH_NAME_BYTES_MAX / long.len() * long.len() + long.len();
    assert_eq!(Body::decode(&bytes), Err(BatchError::NamesTooLong { bytes: names }));
}

#[test]
fn names_that_no_series_has_are_refused() {
    let body = |metric: &[u8], labels: &[u8]| {
        let mut bytes = vec![];
        BodyHead::default().put(&mut bytes);
        bytes.extend_from_slice(&[1, 0, 0]);
        crate::varint::put_bytes(&mut bytes, metric);
        bytes.extend_from_slice(&[0, 0]);
        crate::varint::put_bytes(&mut bytes, labels);
        bytes.push(0);
        Body::decode(&bytes)
    };
    assert!(body(b"m", b"\x01\x01a\x01b").is_ok());
    let bad: [(&[u8], &[u8]); 8] = [
        (b"1m", b"\0"),
        (b"", b"\0"),
        (b"m", b""),
        (b"m", b"\x01\x011\x01b"),
        (b"m", b"\x01\x01a\0"),
        (b"m", b"\x01\x01a\x01\xff"),
        (b"m", b"\x02\x01b\x01b\x01a\x01b"),
        (b"m", b"\x01\x08__name__\x01b"),
    ];
    for (metric, labels) in bad {
        assert!(body(metric, labels).is_err(), "{:?}", String::from_utf8_lossy(labels).to_string());
    }
}

#[test]
fn a_body_of_a_newer_version_is_unknown_not_wrong() {
    assert_eq!(Body::decode(&[200, 1, 2, 3]), Ok(Body::Unknown(200)));
}

#[test]
fn a_batch_past_a_bound_is_refused_with_its_size() {
    let series = Series::new("x", [("a", "b")]).unwrap();
    let text = Value::Text("y".repeat(BATCH_BYTES_MAX));
    let batch = Batch { series: vec![(series.clone(), vec![(1, text)])], ..Batch::default() };
    assert!(matches!(batch.encode(), Err(BatchError::TooLong { bytes }) if bytes > BATCH_BYTES_MAX));
    let points = vec![(1, Value::Bool(true)); BATCH_POINTS_MAX + 1];
    let batch = Batch { series: vec![(series, points)], ..Batch::default() };
    assert_eq!(batch.encode(), Err(BatchError::TooManyPoints { points: BATCH_POINTS_MAX + 1 }));
}

#[test]
fn a_writer_wants_as_many_entries_as_announced_and_as_many_values_as_times() {
    let name = Series::new("x", [("a", "b")]).unwrap().canonical();
    let values = Values::Bool(vec![true]);
    let mut writer = BodyWriter::new(BodyHead::default(), 1);
    assert_eq!(writer.entry(&name, &[1], &values), Ok(()));
    assert_eq!(writer.entry(&name, &[1], &values), Err(BatchError::Malformed));
    assert_eq!(BodyWriter::new(BodyHead::default(), 1).finish(), Err(BatchError::Malformed));
    assert_eq!(
        BodyWriter::new(BodyHead::default(), 1).entry(&name, &[], &values),
        Err(BatchError::Malformed)
    );
}
