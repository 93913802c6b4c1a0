//! Lines against a map from name to points: nothing is lost, moved or split, whatever the order of keys and fields.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::parse::Lines;
use super::*;

/// All batches of a body, and the faults of its refused lines.
fn gathered(body: &[u8]) -> (Vec<Batch>, Vec<LineFault>) {
    let (mut lines, mut line, mut gather) = (Lines::of(body), Line::default(), Gather::default());
    let (mut batches, mut faults) = (Vec::new(), Vec::new());
    while let Some(read) = lines.next_into(&mut line) {
        read.unwrap();
        match gather.add(&line, line.timestamp.unwrap_or(0)) {
            Ok(full) => batches.extend(full),
            Err(fault) => faults.push(fault),
        }
    }
    batches.extend(gather.close());
    (batches, faults)
}

type Points = BTreeMap<String, Vec<(i64, Value)>>;

fn points(batches: &[Batch]) -> Points {
    let mut out = Points::new();
    for (series, points) in batches.iter().flat_map(|batch| &batch.series) {
        out.entry(series.to_string()).or_default().extend(points.iter().cloned());
    }
    out
}

#[test]
fn a_field_is_a_metric_and_tags_are_labels() {
    let cases = [
        ("cpu,host=a usage=1", r#"cpu_usage{host="a"}"#),
        ("cpu value=1", "cpu"),
        ("cpu\\ load,host\\ name=a\\ b 1m=1", r#"cpu_load_1m{host_name="a b"}"#),
        ("1st,2nd=x value=1", r#"_1st{_2nd="x"}"#),
        ("a:b,a:b=1 c:d=1", r#"a:b_c:d{a_b="1"}"#),
        ("温度,b=2,a=1 x.y-z=1", r#"___x_y_z{a="1",b="2"}"#),
    ];
    for (line, series) in cases {
        let (batches, faults) = gathered(line.as_bytes());
        assert_eq!(points(&batches).into_keys().collect::<Vec<_>>(), [series], "{line}: {faults:?}");
    }
}

#[test]
fn a_line_that_no_series_can_hold_is_refused_whole() {
    let long = format!("m a=1,{}=1", "x".repeat(tidelog_record::SERIES_BYTES_MAX));
    let longer = format!("m a=1,b=\"{}\"", "x".repeat(LINE_BYTES_MAX));
    let cases: [(&str, &str); 5] = [
        ("m,a=1,b=2,a=1 f=1", "duplicate tags \"a\""),
        ("m,a.b=1,a-b=2 f=1", "tags \"a-b\" and \"a.b\" both become the label \"a_b\""),
        (
            "m,__name__=x f=1",
            "bad label name \"__name__\": letters, digits and '_', not starting with a digit, and not __name__",
        ),
        (&long, "metric and labels take 16390 bytes, the most is 16384"),
        (&longer, "takes up to 262268 bytes when stored, the most for one line is 262144"),
    ];
    for (line, expected) in cases {
        let (batches, faults) = gathered(line.as_bytes());
        assert_eq!(batches, [], "{line:.40}");
        assert_eq!(faults[0].to_string(), expected);
    }
    let (batches, faults) = gathered(b"m a=1,b=\"\xff\"\nm a=2,b=\"x\"");
    assert_eq!((points(&batches).len(), faults), (2, vec![LineFault::Utf8]));
    assert_eq!(points(&batches)["m_a"], [(0, Value::F64(2.0))]);
}

#[test]
fn five_thousand_lines_of_a_thousand_devices_are_one_record() {
    let mut body = String::new();
    for sample in 0..5 {
        for device in 0..1000 {
            let at = 1_795_248_000_000_000_000_i64 + sample * 10_000_000_000;
            body += &format!("env,device=d{device:04} temperature=21.{sample}7,battery=3{device:03}i {at}\n");
        }
    }
    let (batches, _) = gathered(body.as_bytes());
    assert_eq!((batches.len(), batches[0].points(), batches[0].series.len()), (1, 10_000, 2_000));
}

#[test]
fn records_are_full_but_never_too_long() {
    let text = "y".repeat(1000);
    let body: String = (0..10_000).map(|i| format!("m,t={} a=\"{text}\",b={i}i {i}\n", i % 7)).collect();
    let (batches, faults) = gathered(body.as_bytes());
    assert_eq!(faults, []);
    assert_eq!(batches.iter().map(Batch::points).sum::<usize>(), 20_000);
    let lengths: Vec<_> = batches.iter().map(|batch| batch.encode().unwrap().len()).collect();
    let (_, full) = lengths.split_last().unwrap();
    assert!(full.iter().all(|length| *length > RECORD_BYTES_WANTED * 9 / 10), "{lengths:?}");
}

proptest! {
    #[test]
    fn points_are_gathered_as_a_map_would(
        lines in prop::collection::vec(
            (0..3_u8, prop::collection::vec((0..40_u8, any::<i64>()), 1..30), any::<i64>()), 0..40,
        ),
    ) {
        let (mut body, mut expected) = (String::new(), Points::new());
        for (key, fields, at) in &lines {
            let written: Vec<_> = fields.iter().map(|(field, value)| format!("f{field}={value}i")).collect();
            body += &format!("m,k={key} {} {at}\n", written.join(","));
            for (field, value) in fields {
                let series = format!("m_f{field}{{k=\"{key}\"}}");
                expected.entry(series).or_default().push((*at, Value::I64(*value)));
            }
        }
        let (batches, faults) = gathered(body.as_bytes());
        prop_assert_eq!(faults, vec![]);
        prop_assert_eq!(points(&batches), expected);
    }

    #[test]
    fn points_are_never_longer_than_they_are_taken_for(
        points in prop::collection::vec((any::<i64>(), value()), 1..8), again in any::<bool>(),
    ) {
        let series = Series::new("m", [("a", "b")]).unwrap();
        let entries = if again { 2 } else { 1 };
        let bound = RECORD_EXTRA_BYTES
            + entries * (canonical_bytes_max(&series) + SERIES_EXTRA_BYTES)
            + entries * points.iter().map(|(_, value)| point_bytes(value)).sum::<usize>();
        let batch = Batch { series: vec![(series, points); entries], ..Batch::default() };
        prop_assert!(batch.encode().unwrap().len() <= bound);
    }
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::I64),
        any::<f64>().prop_map(Value::F64),
        any::<bool>().prop_map(Value::Bool),
        "[a-z]{0,9}".prop_map(Value::Text),
    ]
}
