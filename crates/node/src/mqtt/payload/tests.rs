//! MQTT payloads in both encodings: what was written is read back, and what is malformed is refused by name.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

const BOTH: [Encoding; 2] = [Encoding::MessagePack, Encoding::Json];

fn stream() -> StreamId {
    StreamId { site: "plant-1".parse().unwrap(), node: NodeId([0xab; 16]), run: Run(0x0123_4567_89ab_cdef) }
}

fn message(points: Vec<(Series, i64, Value)>) -> Message {
    Message {
        stream: stream(),
        lsn: Lsn(7),
        part: None,
        sensor: None,
        authored_ms: 1_700_000_000_123,
        points,
    }
}

fn point(value: Value) -> (Series, i64, Value) {
    (Series::new("temperature", [("device", "02124b0000000001")]).unwrap(), 1_700_000_000_000_000_001, value)
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u64>().prop_map(|bits| Value::F64(f64::from_bits(bits))),
        any::<f64>().prop_map(Value::F64),
        (-1000i32..1000).prop_map(|v| Value::F64(f64::from(v))),
        any::<i64>().prop_map(Value::I64),
        any::<bool>().prop_map(Value::Bool),
        any::<String>().prop_map(Value::Text),
        prop::sample::select(vec![NAN, INFINITE, INFINITE_NEGATIVE, "text", "1", "true"])
            .prop_map(|text| Value::Text(text.to_owned())),
    ]
}

fn batch() -> impl Strategy<Value = Batch> {
    let origin = prop::option::of((any::<[u8; 8]>(), any::<u32>(), any::<u64>(), any::<u32>()).prop_map(
        |(device, epoch, first_seq, count)| Origin { device: DeviceId(device), epoch, first_seq, count },
    ));
    let points = prop::collection::vec((any::<i64>(), value()), 0..12);
    let series = ("[a-z]{1,8}", prop::collection::btree_map("[a-z]{1,4}", any::<String>(), 0..3))
        .prop_map(|(metric, labels)| Series::new(metric, labels).unwrap());
    (any::<i64>(), origin, prop::collection::vec((series, points), 0..5))
        .prop_map(|(authored_ms, origin, series)| Batch { authored_ms, origin, series })
}

fn flat(batch: &Batch) -> Vec<(Series, i64, Value)> {
    let each = |(series, points): &(Series, Vec<(i64, Value)>)| -> Vec<_> {
        points.iter().map(|(timestamp, value)| (series.clone(), *timestamp, value.clone())).collect()
    };
    batch.series.iter().flat_map(each).collect()
}

/// JSON has one NaN; everything else is kept bit by bit.
fn as_json_keeps(mut message: Message) -> Message {
    for (_, _, value) in &mut message.points {
        if matches!(value, Value::F64(v) if v.is_nan()) {
            *value = Value::F64(f64::NAN);
        }
    }
    message
}

proptest! {
    #[test]
    fn a_message_is_read_as_it_was_written(batch in batch(), lsn in any::<u64>(), site in "[a-z0-9][a-z0-9._-]{0,20}") {
        let stream = StreamId { site: site.parse().unwrap(), ..stream() };
        for message in Message::of_record(&stream, Lsn(lsn), &batch) {
            let bytes = message.encode(Encoding::MessagePack).unwrap();
            prop_assert_eq!(&Message::decode(&bytes).unwrap(), &message);
            let text = message.encode(Encoding::Json).unwrap();
            prop_assert_eq!(Message::decode(&text).unwrap(), as_json_keeps(message));
        }
    }

    #[test]
    fn cut_changed_or_random_bytes_are_refused_without_a_panic(
        batch in batch(), cut in any::<prop::sample::Index>(), flip in any::<prop::sample::Index>(), bit in 0u8..8,
        noise in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let stream = stream();
        for message in Message::of_record(&stream, Lsn(1), &batch) {
            for encoding in BOTH {
                let mut bytes = message.encode(encoding).unwrap();
                prop_assert!(Message::decode(&bytes[..cut.index(bytes.len())]).is_err());
                let at = flip.index(bytes.len());
                bytes[at] ^= 1 << bit;
                drop(Message::decode(&bytes));
            }
        }
        for first in [0x80, 0x8f, 0xde, 0xdf, b'{', 0] {
            let mut bytes = vec![first];
            bytes.extend_from_slice(&noise);
            drop(Message::decode(&bytes));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn the_messages_of_a_record_hold_its_points_in_order_and_say_which(batch in batch(), long in 0usize..4) {
        let mut batch = batch;
        let text = "\u{1}".repeat(PART_BYTES_MAX / 8);
        let filler = (0..).take(long * 3).map(|i| (i, Value::Text(text.clone())));
        batch.series.push((Series::new("filler", [("a", "b")]).unwrap(), filler.collect()));
        let stream = stream();
        let messages: Vec<_> = Message::of_record(&stream, Lsn(1), &batch).collect();
        prop_assert!(!messages.is_empty());
        prop_assert_eq!(messages.len() > 1, messages.iter().all(|m| m.part.is_some()));
        let mut seen = Vec::new();
        for message in messages {
            if let Some(part) = message.part {
                prop_assert_eq!(part, Part { first_point: seen.len() as u64, of: batch.points() as u64 });
            }
            for encoding in BOTH {
                let bytes = message.encode(encoding).unwrap().len();
                prop_assert!(message.points.len() <= 1 || bytes <= PART_BYTES_MAX + 1024, "{} bytes", bytes);
            }
            seen.extend(message.points);
        }
        prop_assert_eq!(seen, flat(&batch));
    }
}

#[test]
fn every_kind_of_value_survives_both_encodings_bit_by_bit() {
    let quiet_nan_with_payload = f64::from_bits(0xfff8_0000_dead_beef);
    let values = [
        Value::F64(-0.0),
        Value::F64(0.0),
        Value::F64(1.0),
        Value::I64(1),
        Value::F64(5e-324),
        Value::F64(f64::MAX),
        Value::F64(1e16),
        Value::F64(9_007_199_254_740_993.0),
        Value::F64(f64::INFINITY),
        Value::F64(f64::NEG_INFINITY),
        Value::F64(f64::NAN),
        Value::I64(i64::MIN),
        Value::I64(i64::MAX),
        Value::I64(-0x8000_0000),
        Value::Bool(true),
        Value::Text(String::new()),
        Value::Text("1.0".into()),
        Value::Text("NaN".into()),
        Value::Text("+Inf".into()),
        Value::Text("-Inf".into()),
    ];
    for encoding in BOTH {
        for value in &values {
            let message = message(vec![point(value.clone())]);
            let bytes = message.encode(encoding).unwrap();
            assert_eq!(Message::decode(&bytes).unwrap(), message, "{value:?} as {encoding:?}");
        }
    }
    let message = message(vec![point(Value::F64(quiet_nan_with_payload))]);
    assert_eq!(Message::decode(&message.encode(Encoding::MessagePack).unwrap()).unwrap(), message);
}

#[test]
fn the_json_form_is_the_published_one() {
    let mut message = message(vec![
        point(Value::F64(21.0)),
        point(Value::I64(21)),
        point(Value::F64(f64::NAN)),
        point(Value::Text("NaN".into())),
    ]);
    message.sensor =
        Some(Origin { device: "02124b0000000001".parse().unwrap(), epoch: 9, first_seq: 4, count: 4 });
    let head = r#"{"metric":"temperature","labels":{"device":"02124b0000000001"},"timestamp_ns":1700000000000000001,"#;
    let mut expected = String::from(
        r#"{"v":1,"site":"plant-1","origin":{"node":"abababababababababababababababab","run":"0123456789abcdef","lsn":7},"#,
    );
    expected.push_str(
        r#""device":"02124b0000000001","epoch":9,"seq":4,"count":4,"authored_ms":1700000000123,"points":["#,
    );
    let ends = [r#""value":21.0}"#, r#""value":21}"#, r#""value":"NaN","type":"f64"}"#, r#""value":"NaN"}"#];
    for (i, end) in ends.iter().enumerate() {
        write!(expected, "{}{head}{end}", if i == 0 { "" } else { "," }).unwrap();
    }
    expected.push_str("]}");
    assert_eq!(String::from_utf8(message.encode(Encoding::Json).unwrap()).unwrap(), expected);
}

fn check_refused(change: impl Fn(&mut serde_json::Value), said: &str) {
    let good = message(vec![point(Value::I64(1))]).encode(Encoding::Json).unwrap();
    let mut json: serde_json::Value = serde_json::from_slice(&good).unwrap();
    change(&mut json);
    for bytes in [serde_json::to_vec(&json).unwrap(), rmp_serde::to_vec(&json).unwrap()] {
        let error = Message::decode(&bytes).unwrap_err().to_string();
        assert!(error.contains(said), "{error:?} does not say {said:?}");
    }
}

#[test]
fn a_refusal_names_what_is_wrong() {
    check_refused(|json| json["v"] = 2.into(), "version 2");
    check_refused(|json| json["site"] = "A/b".into(), "bad site");
    check_refused(|json| json["origin"]["node"] = "ab".into(), "bad origin.node");
    check_refused(|json| json["origin"]["run"] = "zz".into(), "bad origin.run");
    check_refused(|json| json["device"] = "02124b0000000001".into(), "stand together");
    check_refused(|json| json["of"] = 3.into(), "stand together");
    check_refused(|json| json["points"][0]["metric"] = "1x".into(), "point 0: bad metric name");
    check_refused(|json| json["points"][0]["value"] = serde_json::json!([1]), "a truth value or a text");
    check_refused(|json| json["points"][0]["value"] = u64::MAX.into(), "64 bits");
    check_refused(|json| json["points"][0]["type"] = "number".into(), "unknown variant");
    check_refused(|json| json["points"][0]["type"] = "text".into(), "point 0: the value is not of the type");
    check_refused(
        |json| drop(json["points"][0].as_object_mut().unwrap().remove("timestamp_ns")),
        "timestamp_ns",
    );
    check_refused(|json| drop(json.as_object_mut().unwrap().remove("points")), "points");
}

#[test]
fn a_type_beside_the_value_is_insisted_on() {
    let expected = message(vec![point(Value::F64(21.0)), point(Value::Text("x".into()))]);
    let mut json: serde_json::Value =
        serde_json::from_slice(&expected.encode(Encoding::Json).unwrap()).unwrap();
    json["points"][0]["value"] = 21.into();
    json["points"][0]["type"] = "f64".into();
    json["points"][1]["type"] = "text".into();
    for bytes in [serde_json::to_vec(&json).unwrap(), rmp_serde::to_vec(&json).unwrap()] {
        assert_eq!(Message::decode(&bytes).unwrap(), expected);
    }
}

#[test]
fn an_integer_becomes_a_float_only_without_loss() {
    for exact in [0, 1, -1, 1 << 53, i64::MIN, -(1 << 62), 9_007_199_254_740_991] {
        assert_eq!(exactly(exact).map(|v| format!("{v:.0}")), Some(exact.to_string()));
    }
    for inexact in [9_007_199_254_740_993, i64::MAX, i64::MIN + 1] {
        assert_eq!(exactly(inexact), None, "{inexact}");
    }
}

#[test]
fn keys_of_a_newer_writer_are_passed_over() {
    let expected = message(vec![point(Value::I64(1))]);
    let mut json: serde_json::Value =
        serde_json::from_slice(&expected.encode(Encoding::Json).unwrap()).unwrap();
    json["quality"] = serde_json::json!({"good": [1, 2, null]});
    json["points"][0]["unit"] = "C".into();
    for bytes in [serde_json::to_vec(&json).unwrap(), rmp_serde::to_vec(&json).unwrap()] {
        assert_eq!(Message::decode(&bytes).unwrap(), expected);
    }
}

#[test]
fn huge_counts_deep_nesting_and_long_payloads_are_not_believed() {
    let message = message(vec![point(Value::I64(1))]);
    let mut bytes = message.encode(Encoding::MessagePack).unwrap();
    bytes.push(0);
    assert!(Message::decode(&bytes).unwrap_err().to_string().contains("trailing"));

    // {"points": array of 2^32-1}
    let huge = [&b"\x82\xa1v\x01\xa6points\xdd"[..], &[0xff; 4]].concat();
    assert!(matches!(Message::decode(&huge), Err(PayloadError::MessagePack(_))));
    let deep = [&b"\x81\xa1x"[..], &[0x91; 100_000]].concat();
    assert!(matches!(Message::decode(&deep), Err(PayloadError::MessagePack(_))));
    let deep = format!(r#"{{"x":{}"#, "[".repeat(100_000));
    assert!(matches!(Message::decode(deep.as_bytes()), Err(PayloadError::Json(_))));
    let long = vec![b' '; PAYLOAD_BYTES_MAX + 1];
    assert!(matches!(Message::decode(&long), Err(PayloadError::TooLong { bytes }) if bytes == long.len()));
    assert!(matches!(Message::decode(b""), Err(PayloadError::Unrecognised)));
    assert!(matches!(Message::decode(b"21.5"), Err(PayloadError::Unrecognised)));
}

#[test]
fn a_batch_and_its_message_hold_the_same_points() {
    let series = Series::new("a", [("x", "y")]).unwrap();
    let batch = Batch {
        authored_ms: 5,
        origin: None,
        series: vec![(series, vec![(1, Value::I64(1)), (2, Value::F64(1.0))])],
    };
    let stream = stream();
    let mut messages = Message::of_record(&stream, Lsn(3), &batch);
    assert_eq!(messages.next().unwrap().into_batch(), batch);
    assert!(messages.next().is_none());
    let empty = Batch::default();
    assert_eq!(Message::of_record(&stream, Lsn(4), &empty).count(), 1, "a record is never silent");
}
