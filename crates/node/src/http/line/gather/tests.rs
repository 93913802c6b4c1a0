//! Lines against a map from name to points: nothing is lost, moved or split, whatever the order of keys and fields.

use std::collections::BTreeMap;

use proptest::prelude::*;

use tidelog_record::{Batch, Body};

use super::super::parse::Lines;
use super::*;

const KNOWN_BYTES_MAX: usize = 1024 * 1024;

fn batch_of(full: &Full) -> Batch {
    let Ok(Body::Points(batch)) = Body::decode(&full.body) else { panic!("not a batch") };
    assert_eq!(
        full.name_bytes,
        batch.series.iter().map(|(series, _)| series.canonical().len()).sum::<usize>()
    );
    batch
}

/// All batches of a body, and the faults of its refused lines.
fn gathered(body: &[u8]) -> (Vec<Batch>, Vec<LineFault>) {
    gathered_by(&mut Gather::new(KNOWN_BYTES_MAX), body, true)
}

fn gathered_by(gather: &mut Gather, body: &[u8], plainly: bool) -> (Vec<Batch>, Vec<LineFault>) {
    let (mut lines, mut line) = (Lines::of(body), Line::default());
    let (mut batches, mut faults) = (Vec::new(), Vec::new());
    gather.begin();
    loop {
        let plain = if plainly { gather.add_plain(lines.rest(), |at| Some(at.unwrap_or(0))) } else { None };
        if let Some((behind, _)) = plain {
            lines.go_on(behind);
        } else if let Some(read) = lines.next_into(&mut line) {
            faults.extend(
                read.map_err(|bad| bad.fault)
                    .and_then(|()| gather.add(&line, line.timestamp.unwrap_or(0)))
                    .err(),
            );
        } else {
            break;
        }
        if gather.is_full() {
            batches.extend(gather.close(0).unwrap().iter().map(batch_of));
        }
    }
    batches.extend(gather.close(0).unwrap().iter().map(batch_of));
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
    fn what_is_known_changes_no_record(
        lines in prop::collection::vec((0..6_usize, prop::collection::vec((0..5_usize, 0..16_usize), 1..5), 0..8_usize), 0..30),
    ) {
        const KEYS: [&str; 6] = ["m,k=1", "m,k=2", "m", "m,k=1,k=2", "m\\ n,k=a\\,b", "mm,k=1"];
        const FIELDS: [&str; 5] = ["a", "ab", "value", "a\\=b", "c d"];
        const VALUES: [&str; 16] = [
            "1", "-1.50", "-0", "0.25", "3i", "-4i", "5u", "t", "\"text\"", "1e3", "123456789012345678", "x",
            "999999999999999", "", "1.i", "9223372036854775808i",
        ];
        const ENDS: [&str; 8] = [" 5\n", " -7\n", "\n", " 1 \r\n", " 99999999999999999999\n", "  3\n\n# c\n", " 9\r\n", " x\n"];
        let mut body = String::new();
        for (key, fields, end) in lines {
            let fields: Vec<_> = fields.iter().map(|(f, v)| format!("{}={}", FIELDS[*f], VALUES[*v])).collect();
            body += &format!("{} {}{}", KEYS[key], fields.join(","), ENDS[end]);
        }
        let expected = gathered_by(&mut Gather::new(KNOWN_BYTES_MAX), body.as_bytes(), false);
        let mut gather = Gather::new(KNOWN_BYTES_MAX);
        prop_assert_eq!(&gathered_by(&mut gather, body.as_bytes(), true), &expected);
        prop_assert_eq!(&gathered_by(&mut gather, body.as_bytes(), true), &expected);
        let mut forgetful = Gather::new(1);
        prop_assert_eq!(points(&gathered_by(&mut forgetful, body.as_bytes(), true).0), points(&expected.0));
    }
}

#[test]
fn a_record_is_never_longer_than_its_lines_are_taken_for() {
    let mut gather = Gather::new(KNOWN_BYTES_MAX);
    let mut body = String::new();
    for line in 0..200_u64 {
        // As unlike each other as can be: times, integers, floats, keys and texts.
        let noise = line.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (time, text) = (noise.cast_signed(), "x".repeat(usize::try_from(line % 7).unwrap()));
        let float = f64::from_bits(noise >> 2);
        body += &format!(
            "m,k={noise} a={time}i,b={float:e},c=\"{text}\",d=t {time}\nm a={time}i {time}\nm a={float:e} {line}\n"
        );
    }
    let (mut lines, mut line) = (Lines::of(body.as_bytes()), Line::default());
    while let Some(read) = lines.next_into(&mut line) {
        read.unwrap();
        gather.add(&line, line.timestamp.unwrap()).unwrap();
    }
    let bound = gather.bytes + RECORD_EXTRA_BYTES;
    let full = gather.close(0).unwrap().unwrap();
    assert!(full.body.len() <= bound, "{} bytes, taken for {bound}", full.body.len());
}
