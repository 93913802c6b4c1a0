//! Arrow as somebody else reads it: pyarrow (PyPI) takes a released cloud node's stream, and says row by row what NDJSON says.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at what it does not expect")]

mod support;

use std::process::{Command, Stdio};

use serde_json::{Value, json};
use support::operator::Operator;
use support::{bin_dir, until};

/// Reads a stream and says each row as a line of JSON, floats by their bits, so that not a number is what it is; then the types.
const READER: &str = r#"
import json, struct, sys
import pyarrow as pa
rows = 0
with pa.ipc.open_stream(sys.stdin.buffer) as stream:
    print(json.dumps({field.name: str(field.type) for field in stream.schema}))
    for batch in stream:
        assert 0 < batch.num_rows <= 8192, batch.num_rows
        batch.validate(full=True)
        columns = [batch.column(i).cast(pa.int64()) if name == "timestamp" else batch.column(i) for i, name in enumerate(batch.schema.names)]
        for metric, labels, at, f64, i64, boolean, text in zip(*[column.to_pylist() for column in columns]):
            there = [value for value in (f64, i64, boolean, text) if value is not None]
            assert len(there) == 1, there
            value = ["f64", struct.pack(">d", f64).hex()] if f64 is not None else there[0]
            print(json.dumps([metric, json.loads(labels), at, value]))
"#;

/// What the reader is to say of a line.
fn row(line: &str) -> Value {
    let point: Value = serde_json::from_str(line).unwrap();
    let float = match (&point["value"], &point["type"]) {
        (Value::String(name), Value::String(_)) => match name.as_str() {
            "NaN" => Some(f64::NAN),
            "+Inf" => Some(f64::INFINITY),
            _ => Some(f64::NEG_INFINITY),
        },
        (Value::Number(number), _) if number.is_f64() => number.as_f64(),
        _ => None,
    };
    let value = float
        .map_or_else(|| point["value"].clone(), |float| json!(["f64", format!("{:016x}", float.to_bits())]));
    json!([point["metric"], point["labels"], point["timestamp_ns"], value])
}

#[test]
fn pyarrow_reads_of_a_cloud_node_what_its_ndjson_says() {
    let Some(bin_dir) = bin_dir() else { return };
    let Some(python) = std::env::var_os("TIDELOG_PYARROW") else {
        return eprintln!(
            "skipped: TIDELOG_PYARROW names no Python with pyarrow (tests/run end-to-end does)"
        );
    };
    let operator = Operator::new(bin_dir);
    let cloud = operator.start("cloud", &[], None);
    let point = |metric: &str, room: &str, at: i64, value: Value| json!({"metric": metric, "labels": {"room": room}, "timestamp_ns": at, "value": value});
    let mut points: Vec<Value> = (0..20_000)
        .map(|at| point("temperature", &format!("r{}", at % 7), at * 1_000, json!(at as f64 / 8.0)))
        .collect();
    points.extend([
        point("odd", "\"wörd\", {x}", i64::MIN, json!(i64::MAX)),
        point("odd", "lab", -1, json!(true)),
        point("odd", "lab", 0, json!("a text\nof two lines")),
        point("odd", "lab", i64::MAX, json!(-0.0)),
        json!({"metric": "odd", "timestamp_ns": 1, "value": "NaN", "type": "f64"}),
        json!({"metric": "odd", "timestamp_ns": 2, "value": "-Inf", "type": "f64"}),
        json!({"metric": "odd", "timestamp_ns": 3, "value": "NaN"}),
    ]);
    cloud.post_points("lab", &json!({"points": points}).to_string());
    let lines = cloud.points("lab");
    assert_eq!(lines.lines().count(), 20_007);

    let url = format!("{}/api/v1/export?site=lab&format=arrow", cloud.url());
    let mut fetched = Command::new("curl").args(["-sf", &url]).stdout(Stdio::piped()).spawn().unwrap();
    let mut reader = Command::new(python);
    let read = reader.args(["-c", READER]).stdin(fetched.stdout.take().unwrap()).output().unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let status = until("the end of the answer", || fetched.try_wait().unwrap());
    assert!(status.success(), "{status}");
    let said = String::from_utf8(read.stdout).unwrap();
    let (types, rows) = said.split_once('\n').unwrap();
    let names = "dictionary<values=string, indices=int32, ordered=0>";
    let expected = json!({
        "metric": names, "labels": names, "timestamp": "timestamp[ns, tz=UTC]",
        "f64": "double", "i64": "int64", "bool": "bool", "text": "string",
    });
    assert_eq!(serde_json::from_str::<Value>(types).unwrap(), expected);
    let rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (at, (found, line)) in rows.iter().zip(lines.lines()).enumerate() {
        assert_eq!(*found, row(line), "row {at}");
    }
    assert_eq!(rows.len(), 20_007);
    cloud.end();
}
