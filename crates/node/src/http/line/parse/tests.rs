//! The grammar, by the reference's examples, against a writer of its own, and with bytes that mean nothing.

use proptest::prelude::*;

use super::*;

/// A line as a person thinks of it.
#[derive(Clone, Debug, PartialEq)]
struct Meant {
    measurement: String,
    tags: Vec<(String, String)>,
    fields: Vec<(String, MeantValue)>,
    timestamp: Option<i64>,
}

#[derive(Clone, Debug, PartialEq)]
enum MeantValue {
    F64(f64),
    I64(i64),
    Bool(bool),
    Text(String),
}

fn meaning(line: &Line<'_>) -> Result<Meant, LineFault> {
    let name = |raw| unescaped_name(raw).map(Cow::into_owned);
    let (measurement, tags) = split_key(line.key)?;
    let tags = tags.into_iter().map(|(tag, value)| Ok((name(tag)?, name(value)?)));
    let fields = line.fields.iter().map(|(field, value)| {
        let value = match value {
            FieldValue::F64(value) => MeantValue::F64(*value),
            FieldValue::I64(value) => MeantValue::I64(*value),
            FieldValue::Bool(value) => MeantValue::Bool(*value),
            FieldValue::Text(raw) => MeantValue::Text(unescaped_text(raw)?.into_owned()),
        };
        Ok((name(field)?, value))
    });
    Ok(Meant {
        measurement: unescaped_measurement(measurement)?.into_owned(),
        tags: tags.collect::<Result<_, LineFault>>()?,
        fields: fields.collect::<Result<_, LineFault>>()?,
        timestamp: line.timestamp,
    })
}

/// All lines of a body; of a bad one its number and what is wrong.
fn read(body: &[u8]) -> Vec<Result<Meant, (usize, String)>> {
    let (mut lines, mut line, mut out) = (Lines::of(body), Line::default(), Vec::new());
    while let Some(read) = lines.next_into(&mut line) {
        let read = read.and_then(|()| meaning(&line).map_err(|fault| lines.bad(fault)));
        out.push(read.map_err(|bad| (bad.number, bad.fault.to_string())));
    }
    out
}

fn one(body: &str) -> Meant {
    let mut all = read(body.as_bytes());
    assert_eq!(all.len(), 1, "{body:?}: {all:?}");
    all.remove(0).unwrap_or_else(|bad| panic!("{body:?}: {bad:?}"))
}

fn fault(body: &[u8]) -> String {
    match read(body).remove(0) {
        Err((1, fault)) => fault,
        other => panic!("{:?}: {other:?}", String::from_utf8_lossy(body)),
    }
}

fn meant(measurement: &str, tags: &[(&str, &str)], fields: &[(&str, MeantValue)], at: Option<i64>) -> Meant {
    Meant {
        measurement: measurement.to_owned(),
        tags: tags.iter().map(|(tag, value)| ((*tag).to_owned(), (*value).to_owned())).collect(),
        fields: fields.iter().map(|(field, value)| ((*field).to_owned(), value.clone())).collect(),
        timestamp: at,
    }
}

fn text(text: &str) -> MeantValue {
    MeantValue::Text(text.to_owned())
}

#[test]
fn the_examples_of_the_reference_mean_what_it_says() {
    let f64 = MeantValue::F64;
    let cases = [
        (
            r#"myMeasurement,tag1=value1,tag2=value2 fieldKey="fieldValue" 1556813561098000000"#,
            meant(
                "myMeasurement",
                &[("tag1", "value1"), ("tag2", "value2")],
                &[("fieldKey", text("fieldValue"))],
                Some(1_556_813_561_098_000_000),
            ),
        ),
        ("m fieldKey=1.0", meant("m", &[], &[("fieldKey", f64(1.0))], None)),
        ("m fieldKey=1", meant("m", &[], &[("fieldKey", f64(1.0))], None)),
        ("m fieldKey=-1.234456e+78", meant("m", &[], &[("fieldKey", f64(-1.234_456e78))], None)),
        ("m fieldKey=12485903i", meant("m", &[], &[("fieldKey", MeantValue::I64(12_485_903))], None)),
        ("m fieldKey=12485903u", meant("m", &[], &[("fieldKey", MeantValue::I64(12_485_903))], None)),
        (
            r#"m fieldKey="this is a string""#,
            meant("m", &[], &[("fieldKey", text("this is a string"))], None),
        ),
        ("m a=true,b=F -5", {
            let fields = [("a", MeantValue::Bool(true)), ("b", MeantValue::Bool(false))];
            meant("m", &[], &fields, Some(-5))
        }),
        (
            r#"my\ Measurement fieldKey="string value""#,
            meant("my Measurement", &[], &[("fieldKey", text("string value"))], None),
        ),
        (
            r#"myMeasurement fieldKey="\"string\" within a string""#,
            meant("myMeasurement", &[], &[("fieldKey", text(r#""string" within a string"#))], None),
        ),
        (
            r"myMeasurement,tag\ Key1=tag\ Value1,tag\ Key2=tag\ Value2 fieldKey=100",
            meant(
                "myMeasurement",
                &[("tag Key1", "tag Value1"), ("tag Key2", "tag Value2")],
                &[("fieldKey", f64(100.0))],
                None,
            ),
        ),
        (
            r#"myMeasurement,tagKey=🍭 fieldKey="Launch 🚀" 1556813561098000000"#,
            meant(
                "myMeasurement",
                &[("tagKey", "🍭")],
                &[("fieldKey", text("Launch 🚀"))],
                Some(1_556_813_561_098_000_000),
            ),
        ),
        (r"a\,b,c\=d=e\,f\ \= g\=h=1", meant("a,b", &[("c=d", "e,f =")], &[("g=h", f64(1.0))], None)),
        // A backslash that escapes nothing is itself, also before the one that does.
        (r#"a\b,t=\x\\,y f="\n\\""#, meant(r"a\b", &[("t", r"\x\,y")], &[("f", text(r"\n\"))], None)),
        ("m f=\"two\nlines\" 3", meant("m", &[], &[("f", text("two\nlines"))], Some(3))),
        ("m f=\"a,b c=d\",g=2 4", meant("m", &[], &[("f", text("a,b c=d")), ("g", f64(2.0))], Some(4))),
        (" \tm  f=1   5  \r\n", meant("m", &[], &[("f", f64(1.0))], Some(5))),
        ("m f=\"\"\r\n", meant("m", &[], &[("f", text(""))], None)),
        ("m f=.5,g=1.", meant("m", &[], &[("f", f64(0.5)), ("g", f64(1.0))], None)),
    ];
    for (body, expected) in cases {
        assert_eq!(one(body), expected, "{body}");
    }
}

#[test]
fn what_is_not_in_the_grammar_is_refused_by_its_name() {
    let cases: [(&[u8], &str); 34] = [
        (b"m", "missing fields"),
        (b"m,t=1", "missing fields"),
        (b"m \n", "missing fields"),
        (b"m\r\n", "missing fields"),
        (b",t=1 f=1", "missing measurement"),
        (b"m, f=1", "missing tag key"),
        (b"m,=v f=1", "missing tag key"),
        (b"m,t f=1", "missing tag value"),
        (b"m,t= f=1", "missing tag value"),
        (b"m,t=,u=1 f=1", "missing tag value"),
        (b"m,t=a=b f=1", "invalid tag format: '=' in a tag value needs a backslash"),
        (b"m =1", "missing field key"),
        (b"m f=1,", "missing field key"),
        (b"m f", "missing field value"),
        (b"m f=", "missing field value"),
        (b"m f= 1", "missing field value"),
        (b"m f,g=1", "missing field value"),
        (b"m f=\"x", "unbalanced quotes"),
        (b"m f=\"x\"y", "unexpected \"y\" behind the line's end"),
        (b"m f=1 2 3", "unexpected \"3\" behind the line's end"),
        (b"m f=1 2.5", "bad timestamp \"2.5\": expected a whole number"),
        (b"m f=1 9223372036854775808", "bad timestamp \"9223372036854775808\": expected a whole number"),
        (
            b"m f=abc",
            "invalid value \"abc\": a number (with i or u behind an integer), true, false or a \"text\"",
        ),
        (
            b"m f=tRUE",
            "invalid value \"tRUE\": a number (with i or u behind an integer), true, false or a \"text\"",
        ),
        (
            b"m f=NaN",
            "invalid value \"NaN\": a number (with i or u behind an integer), true, false or a \"text\"",
        ),
        (
            b"m f=-inf",
            "invalid value \"-inf\": a number (with i or u behind an integer), true, false or a \"text\"",
        ),
        (
            b"m f=1.5i",
            "invalid value \"1.5i\": a number (with i or u behind an integer), true, false or a \"text\"",
        ),
        (
            b"m f=0x1",
            "invalid value \"0x1\": a number (with i or u behind an integer), true, false or a \"text\"",
        ),
        (b"m f=1e400", "float 1e400 is out of range"),
        (
            b"m f=9223372036854775808i",
            "integer 9223372036854775808 is out of range: -9223372036854775808 to 9223372036854775807",
        ),
        (
            b"m f=18446744073709551615u",
            "integer 18446744073709551615 is out of range: -9223372036854775808 to 9223372036854775807",
        ),
        (b"m f=-1u", "integer -1 is out of range: -9223372036854775808 to 9223372036854775807"),
        (b"m,t=\xff f=1", "not UTF-8"),
        (b"m f=\"\xff\"", "not UTF-8"),
    ];
    for (body, expected) in cases {
        assert_eq!(fault(body), expected, "{:?}", String::from_utf8_lossy(body));
    }
}

#[test]
fn bad_lines_are_numbered_and_cost_no_good_ones() {
    let body = "# comment, with f=\"quote\n\n  # another\r\na f=1\r\nbad\nb f=\"x\ny\"\nc f=1 nonsense\nd f=2\ne f=\"open\nf f=3\r";
    let outcome = read(body.as_bytes());
    let names: Vec<_> =
        outcome.iter().map(|line| line.as_ref().map_or("-", |line| &line.measurement)).collect();
    assert_eq!(names, ["a", "-", "b", "-", "d", "-", "f"]);
    let bad: Vec<_> =
        outcome.iter().filter_map(|line| line.as_ref().err().map(|(number, _)| *number)).collect();
    assert_eq!(bad, [5, 8, 10]);
    for nothing in ["", "\n", "\r\n", " \t\n\n", "#", "# x", "\r", "   "] {
        assert_eq!(read(nothing.as_bytes()), [], "{nothing:?}");
    }
}

/// Writes a line; what needs no backslash sometimes gets none.
fn written(line: &Meant) -> String {
    fn escaped(text: &str, special: &str) -> String {
        let mut out = String::new();
        for c in text.chars() {
            if special.contains(c) {
                out.push('\\');
            }
            out.push(c);
        }
        out
    }
    let mut out = escaped(&line.measurement, ", ");
    for (tag, value) in &line.tags {
        out += &format!(",{}={}", escaped(tag, ",= "), escaped(value, ",= "));
    }
    for (index, (field, value)) in line.fields.iter().enumerate() {
        let value = match value {
            MeantValue::F64(value) => format!("{value:?}"),
            MeantValue::I64(value) => format!("{value}i"),
            MeantValue::Bool(value) => value.to_string(),
            MeantValue::Text(text) => format!("\"{}\"", escaped(text, "\"\\")),
        };
        out += &format!("{}{}={value}", if index == 0 { ' ' } else { ',' }, escaped(field, ",= "));
    }
    if let Some(at) = line.timestamp {
        out += &format!(" {at}");
    }
    out
}

/// What the protocol can say at all: no line break, nothing that would be a comment or a blank in front, and no backslash
/// at the end, where it would escape what follows.
fn name() -> impl Strategy<Value = String> {
    "[a-zé:\"'{\\\\, =]{0,6}[a-z0-9🍭#_.]"
        .prop_filter("a measurement's first character", |name| !name.starts_with('#'))
}

fn value() -> impl Strategy<Value = MeantValue> {
    prop_oneof![
        any::<f64>().prop_filter("finite", |v| v.is_finite()).prop_map(MeantValue::F64),
        any::<i64>().prop_map(MeantValue::I64),
        any::<bool>().prop_map(MeantValue::Bool),
        "[a\"\\\\ ,=\n\r🚀#]{0,8}".prop_map(MeantValue::Text),
    ]
}

prop_compose! {
    fn a_line()(
        measurement in name(),
        tags in prop::collection::vec((name(), name()), 0..4),
        fields in prop::collection::vec((name(), value()), 1..4),
        timestamp in any::<Option<i64>>(),
    ) -> Meant {
        Meant { measurement, tags, fields, timestamp }
    }
}

proptest! {
    #[test]
    fn what_a_writer_wrote_is_read_as_it_was_meant(
        lines in prop::collection::vec((a_line(), prop_oneof!["\n", "\r\n", "\n\n", "\n# x \"\n"]), 0..5),
    ) {
        let body: String = lines.iter().map(|(line, end)| written(line) + end).collect();
        let expected: Vec<_> = lines.into_iter().map(|(line, _)| Ok(line)).collect();
        prop_assert_eq!(read(body.as_bytes()), expected, "{:?}", body);
    }

    #[test]
    fn no_bytes_make_it_panic_or_stand_still(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&b"m,= \\\"\n\r#1i.e-t\t"[..])], 0..80),
    ) {
        let breaks = bytes.iter().filter(|byte| **byte == b'\n').count();
        let outcome = read(&bytes);
        prop_assert!(outcome.len() <= breaks + 1);
        for bad in outcome.iter().filter_map(|line| line.as_ref().err()) {
            prop_assert!(bad.0 >= 1 && bad.0 <= breaks + 1);
        }
    }

    #[test]
    fn a_good_line_behind_a_break_is_read_whatever_stands_before_it_without_quotes(
        bytes in prop::collection::vec(any::<u8>().prop_filter("no quote", |byte| *byte != b'"'), 0..60),
    ) {
        let mut body = bytes;
        body.extend_from_slice(b"\nlast f=1 7");
        prop_assert_eq!(read(&body).pop(), Some(Ok(meant("last", &[], &[("f", MeantValue::F64(1.0))], Some(7)))));
    }
}
