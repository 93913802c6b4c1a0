//! Packs of the specification and packs that it forbids, in JSON and in CBOR, against the points that they are to become.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const NOW_NS: i64 = 1_795_248_000_000_000_000;

fn points(batch: &Batch) -> Vec<(String, String, String, i64, Value)> {
    let label = |series: &Series, name| series.label(name).unwrap_or_default().to_owned();
    let mut all = Vec::new();
    for (series, points) in &batch.series {
        for (time, value) in points {
            let (device, unit) = (label(series, "device"), label(series, "unit"));
            all.push((device, series.metric().to_owned(), unit, *time, value.clone()));
        }
    }
    all
}

fn json(pack: &serde_json::Value) -> Result<Batch, SenmlError> {
    read(Encoding::Json, pack.to_string().as_bytes(), "sender", NOW_NS)
}

fn point(
    device: &str,
    metric: &str,
    unit: &str,
    time: i64,
    value: Value,
) -> (String, String, String, i64, Value) {
    (device.to_owned(), metric.to_owned(), unit.to_owned(), time, value)
}

/// RFC 8428 section 5.1.3.
#[test]
fn the_records_of_the_specification_are_read_as_it_says() {
    let pack = json!([
        {"bn": "urn:dev:ow:10e2073a0108006:", "bt": 1.276020076001e+09, "bu": "A", "bver": 5, "n": "voltage", "u": "V", "v": 120.1},
        {"n": "current", "t": -5, "v": 1.2},
        {"n": "current", "t": -4, "v": 1.3},
        {"n": "current", "v": 1.7},
    ]);
    let device = "urn:dev:ow:10e2073a0108006";
    let second = 1_000_000_000;
    let at = 1_276_020_076_001_000_000;
    let expected = [
        point(device, "current", "A", at - 5 * second, Value::F64(1.2)),
        point(device, "current", "A", at - 4 * second, Value::F64(1.3)),
        point(device, "current", "A", at, Value::F64(1.7)),
        point(device, "voltage", "V", at, Value::F64(120.1)),
    ];
    assert_eq!(points(&json(&pack).unwrap()), expected);
}

/// RFC 8428 section 6.
#[test]
fn cbor_says_the_same_as_json() {
    let hex = "87a721781b75726e3a6465763a6f773a3130653230373361303130383030363a22fb41d303a15b00106223614120050067766f6c746167650161\
               5602fb405e066666666666a3006763757272656e74062402fb3ff3333333333333a3006763757272656e74062302fb3ff4cccccccccccda3006763\
               757272656e74062202fb3ff6666666666666a3006763757272656e74062102f93e00a3006763757272656e74062002fb3ff999999999999aa30067\
               63757272656e74060002fb3ffb333333333333";
    let hex: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let pack: Vec<u8> = hex.chunks(2).map(byte).collect();
    let batch = read(Encoding::Cbor, &pack, "sender", NOW_NS).unwrap();
    let current = [1.2, 1.3, 1.4, 1.5, 1.6, 1.7];
    let told = points(&batch);
    assert_eq!(told.len(), 7);
    for ((_, metric, unit, time, value), (expected, back)) in
        told.iter().zip(current.iter().zip([5, 4, 3, 2, 1, 0]))
    {
        assert_eq!((metric.as_str(), unit.as_str(), value), ("current", "A", &Value::F64(*expected)));
        assert_eq!(*time, 1_276_020_076_001_000_000 - back * 1_000_000_000);
    }
}

#[test]
fn every_kind_of_value_is_kept_as_what_it_is_and_bytes_are_not() {
    let pack = json!([
        {"bn": "d/", "n": "label", "vs": "lab"},
        {"n": "open", "vb": true},
        {"n": "volume", "bs": 10, "s": 2.5, "v": 1},
    ]);
    let expected = [
        point("d", "label", "", NOW_NS, Value::Text("lab".into())),
        point("d", "open", "", NOW_NS, Value::Bool(true)),
        point("d", "volume", "", NOW_NS, Value::F64(1.0)),
        point("d", "volume_sum", "", NOW_NS, Value::F64(12.5)),
    ];
    assert_eq!(points(&json(&pack).unwrap()), expected);
    let refused = json(&json!([{"n": "x", "v": 1}, {"n": "x", "vd": "aGk"}]));
    assert_eq!(refused, Err(SenmlError::Record { index: 1, reason: Unfit::Bytes }));
}

#[test]
fn a_name_is_cut_into_device_and_metric() {
    for (name, device, metric) in [
        ("temperature", "sender", "temperature"),
        ("room-1/air.temp", "room-1", "air_temp"),
        ("a/b:c", "a/b", "c"),
        ("urn:dev:ow:10e2073a0108006:voltage", "urn:dev:ow:10e2073a0108006", "voltage"),
        ("urn:dev:mac:0024befffe804ff1", "urn:dev:mac:0024befffe804ff1", "value"),
        ("urn:dev:mac:0024befffe804ff1_temp", "urn:dev:mac:0024befffe804ff1", "temp"),
        ("d/3300", "d", "_3300"),
    ] {
        assert_eq!(cut(name, "sender"), Some((device, metric.to_owned())), "{name}");
    }
    for name in ["", "d/", "/x", "a b", "ä", "-x"] {
        assert_eq!(cut(name, "sender"), None, "{name}");
    }
}

#[test]
fn times_are_relative_only_below_two_to_the_twenty_eighth_seconds() {
    let at = |t: serde_json::Value| {
        let batch = json(&json!([{"n": "x", "v": 1, "t": t}]))?;
        Ok(points(&batch)[0].3)
    };
    assert_eq!(at(json!(-1.5)), Ok(NOW_NS - 1_500_000_000));
    assert_eq!(at(json!(268_435_455)), Ok(NOW_NS + 268_435_455_000_000_000));
    assert_eq!(at(json!(268_435_456)), Ok(268_435_456_000_000_000));
    assert_eq!(at(json!(1_700_000_000.123_456)), Ok(1_700_000_000_123_456_000));
    let out = Err(SenmlError::Record { index: 0, reason: Unfit::Time });
    assert_eq!(at(json!(1e300)), out);
    assert_eq!(at(json!(9e9 * 1e9)), out);
}

#[test]
fn what_must_be_understood_and_is_not_is_refused_and_the_rest_passed_over() {
    let unfit = |pack: serde_json::Value| match json(&pack) {
        Err(SenmlError::Record { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(unfit(json!([{"n": "x", "v": 1, "later_": 1}])), Unfit::MustUnderstand("later_".into()));
    assert_eq!(unfit(json!([{"bver": 11, "n": "x", "v": 1}])), Unfit::Version(11));
    assert_eq!(unfit(json!([{"n": "x", "v": 1, "vs": "y"}])), Unfit::Values);
    assert_eq!(unfit(json!([{"n": "x"}])), Unfit::NoValue);
    assert_eq!(json(&json!([{"n": "x", "v": 1, "later": [1, {"a": 2}]}, {"bn": "d/"}])).unwrap().points(), 1);
    assert_eq!(json(&json!([])).unwrap().points(), 0);
    assert!(matches!(json(&json!([{"n": "x", "v": 1, "ut": 1, "bn": 3}])), Err(SenmlError::Syntax(_))));
    assert!(matches!(json(&json!([{"n": "tidelog_command", "vs": "x"}])), Err(SenmlError::Reserved(_))));
    assert!(matches!(
        read(Encoding::Json, br#"[{"n":"x","n":"y","v":1}]"#, "s", 0),
        Err(SenmlError::Syntax(_))
    ));
}

proptest! {
    #[test]
    fn no_bytes_panic_and_no_pack_has_more_points_than_records_have_values(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        is_json in any::<bool>(),
    ) {
        let encoding = if is_json { Encoding::Json } else { Encoding::Cbor };
        if let Ok(batch) = read(encoding, &bytes, "sender", NOW_NS) {
            prop_assert!(batch.points() <= bytes.len());
        }
    }

    #[test]
    fn json_and_cbor_of_one_pack_become_the_same_points(
        values in proptest::collection::vec((any::<f64>().prop_filter("finite", |v| v.is_finite()), -1e6..1e6f64), 1..20),
    ) {
        let pack: Vec<_> = values.iter().map(|(v, t)| json!({"bn": "d/", "n": "x", "v": v, "t": t})).collect();
        let mut cbor = Vec::new();
        ciborium::into_writer(&pack, &mut cbor).unwrap();
        let from_json = json(&json!(pack)).unwrap();
        prop_assert_eq!(&read(Encoding::Cbor, &cbor, "sender", NOW_NS).unwrap(), &from_json);
        prop_assert_eq!(from_json.points(), values.len());
    }
}
