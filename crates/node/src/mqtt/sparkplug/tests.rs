use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use prost::Message as _;
use tidelog_record::Value;

use super::payload::{Metric, Payload, Written};
use super::{ASK_EVERY, EDGES_MAX, Edges, Heard, Rebirths, SparkplugError, edge_of, rebirth};

const ARRIVED_NS: i64 = 1_795_248_000_000_000_123;

fn metric(name: Option<&str>, alias: Option<u64>, datatype: Option<u32>, value: Written) -> Metric {
    Metric { name: name.map(str::to_owned), alias, datatype, value: Some(value), ..Metric::default() }
}

fn payload(seq: u64, metrics: Vec<Metric>) -> Vec<u8> {
    Payload { timestamp_ms: Some(1_000), metrics, seq: Some(seq) }.encode_to_vec()
}

fn session(number: u64) -> Metric {
    metric(Some("bdSeq"), None, Some(4), Written::Long(number))
}

fn values(heard: &Heard) -> BTreeMap<String, (i64, Value)> {
    let of = |(series, points): &(tidelog_record::Series, Vec<(i64, Value)>)| {
        let labels: Vec<_> = series.labels().map(|(name, value)| format!("{name}={value}")).collect();
        (format!("{}{{{}}}", series.metric(), labels.join(",")), points[0].clone())
    };
    heard.batch.series.iter().map(of).collect()
}

/// An edge node with a device, both born.
fn born() -> Edges {
    let mut edges = Edges::default();
    let node = vec![session(3), metric(Some("Up"), Some(1), Some(3), Written::Int(7))];
    edges.read("spBv1.0/g/NBIRTH/e", &payload(0, node), ARRIVED_NS).unwrap();
    let device = vec![metric(Some("Line 1/Temperature"), Some(2), Some(9), Written::Float(21.5))];
    edges.read("spBv1.0/g/DBIRTH/e/d", &payload(1, device), ARRIVED_NS).unwrap();
    edges
}

#[test]
fn a_birth_says_what_the_numbers_of_data_mean() {
    let mut edges = born();
    let data = vec![
        Metric { timestamp_ms: Some(2_000), ..metric(None, Some(2), None, Written::Float(22.5)) },
        metric(None, Some(1), None, Written::Int(u32::MAX)),
    ];
    let heard = edges.read("spBv1.0/g/DDATA/e/d", &payload(2, data), ARRIVED_NS).unwrap().unwrap();
    let labels = "device=d,edge=e,group=g";
    let expected = [
        (
            format!("line_1_temperature{{{labels},name=Line 1/Temperature}}"),
            (2_000_000_000, Value::F64(22.5)),
        ),
        (format!("up{{{labels},name=Up}}"), (1_000_000_000, Value::I64(-1))),
    ];
    assert_eq!(values(&heard), BTreeMap::from(expected));
    assert_eq!((heard.unfit, heard.missed), (None, 0));
}

#[test]
fn births_are_measurements_and_what_controls_a_node_is_none() {
    let mut edges = Edges::default();
    let metrics = vec![
        session(0),
        metric(Some("Node Control/Rebirth"), None, Some(11), Written::Truth(false)),
        metric(Some("Door"), None, Some(11), Written::Truth(true)),
        Metric {
            is_null: Some(true),
            value: None,
            ..metric(Some("Gone"), None, Some(9), Written::Float(0.0))
        },
    ];
    let heard = edges.read("spBv1.0/g/NBIRTH/e", &payload(0, metrics), ARRIVED_NS).unwrap().unwrap();
    let expected = [("door{edge=e,group=g,name=Door}".to_owned(), (1_000_000_000, Value::Bool(true)))];
    assert_eq!(values(&heard), BTreeMap::from(expected));
}

#[test]
fn data_of_a_node_that_was_not_born_or_has_died_is_refused_with_whom_to_ask() {
    let topic = "spBv1.0/g/DDATA/e/d";
    let unborn = Err(SparkplugError::Unborn("e".into(), "g".into()));
    let data = payload(2, vec![metric(None, Some(2), None, Written::Float(1.0))]);
    assert_eq!(Edges::default().read(topic, &data, ARRIVED_NS), unborn);
    let mut edges = born();
    // The will of the session before.
    edges.read("spBv1.0/g/NDEATH/e", &payload(0, vec![session(2)]), ARRIVED_NS).unwrap();
    assert!(edges.read(topic, &data, ARRIVED_NS).is_ok());
    edges.read("spBv1.0/g/NDEATH/e", &payload(0, vec![session(3)]), ARRIVED_NS).unwrap();
    assert_eq!(edges.read(topic, &data, ARRIVED_NS), unborn);
    let (topic, bytes) = rebirth(&edge_of(topic).unwrap(), 5);
    assert_eq!(topic, "spBv1.0/g/NCMD/e");
    let asked = Payload::decode(bytes.as_slice()).unwrap();
    assert_eq!(asked.metrics[0].name.as_deref(), Some("Node Control/Rebirth"));
    assert_eq!(asked.metrics[0].value, Some(Written::Truth(true)));
}

#[test]
fn a_hole_in_the_numbers_of_messages_is_counted_around_their_end() {
    let mut edges = born();
    let mut missed = |seq| {
        let data = payload(seq, vec![metric(None, Some(1), None, Written::Int(1))]);
        edges.read("spBv1.0/g/NDATA/e", &data, ARRIVED_NS).unwrap().unwrap().missed
    };
    assert_eq!([missed(2), missed(3), missed(7), missed(255), missed(0), missed(4)], [0, 0, 3, 247, 0, 3]);
}

#[test]
fn topics_are_read_by_their_levels() {
    let mut edges = born();
    for topic in ["spBv1.0/g/NCMD/e", "spBv1.0/g/DCMD/e/d", "spBv1.0/STATE/host"] {
        assert_eq!(edges.read(topic, b"no protobuf", ARRIVED_NS), Ok(None), "{topic}");
    }
    for topic in [
        "spBv1.0/g/NDATA",
        "spBv1.0/g/NDATA/e/d",
        "spBv1.0/g/DDATA/e",
        "spBv1.0/g/DDATA/e/d/x",
        "spBv1.0",
        "x",
    ] {
        assert_eq!(edges.read(topic, b"", ARRIVED_NS), Err(SparkplugError::Topic), "{topic}");
    }
    let syntax = edges.read("spBv1.0/g/NDATA/e", b"\xff\xff", ARRIVED_NS);
    assert!(matches!(syntax, Err(SparkplugError::Syntax(_))));
    let long = vec![0; 256 * 1024 + 1];
    assert_eq!(edges.read("spBv1.0/g/NDATA/e", &long, ARRIVED_NS), Err(SparkplugError::TooLong(long.len())));
}

#[test]
fn integers_have_the_sign_of_their_type() {
    for (datatype, bits, expected) in [
        (1, 0xff, Some(-1)),
        (2, 0xffff, Some(-1)),
        (3, 0xffff_ffff, Some(-1)),
        (4, u64::MAX, Some(-1)),
        (5, 0xff, Some(255)),
        (6, 0xffff, Some(65_535)),
        (7, 0xffff_ffff, Some(4_294_967_295)),
        (8, u64::MAX, None),
        (13, 1_700_000_000_000, Some(1_700_000_000_000)),
        (16, 1, None),
    ] {
        assert_eq!(Written::Long(bits).of_type(datatype), expected.map(Value::I64), "{datatype}");
    }
    // A short one written as a long.
    assert_eq!(Written::Int(0xffff_fffe).of_type(1), Some(Value::I64(-2)));
    assert_eq!(Written::Text("x".into()).of_type(9), None);
}

#[test]
fn the_edge_node_heard_of_longest_ago_makes_room() {
    let mut edges = Edges::default();
    let birth = payload(0, vec![session(0)]);
    for number in 0..=EDGES_MAX {
        edges.read(&format!("spBv1.0/g/NBIRTH/e{number}"), &birth, ARRIVED_NS).unwrap();
        if number > 0 {
            edges.read("spBv1.0/g/NDATA/e0", &payload(1, Vec::new()), ARRIVED_NS).unwrap();
        }
    }
    assert!(edges.read("spBv1.0/g/NDATA/e0", &birth, ARRIVED_NS).is_ok());
    assert!(edges.read("spBv1.0/g/NDATA/e1", &birth, ARRIVED_NS).is_err());
    assert_eq!(edges.lives.len(), EDGES_MAX);
}

#[test]
fn an_edge_node_is_asked_now_and_then() {
    let (mut asked, begun) = (Rebirths::default(), Instant::now());
    let edge = |name: usize| edge_of(&format!("spBv1.0/g/NDATA/e{name}")).unwrap();
    let at = |after: Duration| begun + after;
    assert!(asked.is_due(&edge(0), begun));
    assert!(!asked.is_due(&edge(0), at(ASK_EVERY - Duration::from_secs(1))));
    assert!(asked.is_due(&edge(0), at(ASK_EVERY)));
    let many = (1..2 * EDGES_MAX).filter(|number| asked.is_due(&edge(*number), at(ASK_EVERY))).count();
    assert_eq!(many, EDGES_MAX - 1);
}

proptest! {
    #[test]
    fn no_message_panics(
        messages in prop::collection::vec(("(spBv1.0/)?g/(N|D)(BIRTH|DATA|DEATH)/e(/d)?", any::<Vec<u8>>(), any::<Option<(u64, u32, u32)>>()), 0..8),
    ) {
        let mut edges = born();
        for (topic, bytes, metric_of) in messages {
            let bytes = metric_of.map_or(bytes, |(seq, datatype, bits)| {
                payload(seq, vec![metric(Some("x"), Some(seq), Some(datatype), Written::Int(bits))])
            });
            drop(edges.read(&topic, &bytes, ARRIVED_NS));
        }
    }
}
