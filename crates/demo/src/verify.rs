//! Asks a daemon for everything it holds but what gateways tell each other, over HTTP as a user would, and hands it to the judge.

use std::hash::{DefaultHasher, Hasher};
use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

use serde::Deserialize;
use tidelog_node::LOAD_METRIC;
use tidelog_record::Value;

use crate::daemon::{Client, DaemonError};
use crate::field::SITE;
use crate::judge::{Expected, Verdict};

/// How long one place may take to hand over everything.
const ANSWER_WITHIN: Duration = Duration::from_secs(600);
/// Longest line of an answer, in bytes.
const LINE_BYTES_MAX: u64 = 1024 * 1024;

#[derive(Deserialize)]
struct Line {
    metric: String,
    labels: Labels,
    timestamp_ns: i64,
    value: serde_json::Value,
}

#[derive(Deserialize)]
struct Labels {
    #[serde(default)]
    device: String,
}

/// The judge's word on one daemon, and a hash over the bytes of its answer: equal content gives equal bytes.
///
/// # Errors
/// [`DaemonError::Http`] when the answer breaks off or is not of the documented form.
pub fn verify(client: &Client, expected: &Expected) -> Result<(Verdict, u64), DaemonError> {
    // match={__name__=~".+",__name__!="…"}
    let readings = format!("%7B__name__%3D~%22.%2B%22,__name__%21%3D%22{LOAD_METRIC}%22%7D");
    let path = format!("/api/v1/sites/{SITE}/points?format=ndjson&match={readings}");
    let mut lines =
        Lines { reader: BufReader::new(client.stream(&path, ANSWER_WITHIN)?), hasher: DefaultHasher::new() };
    let mut failed = None;
    let verdict = expected.judge(std::iter::from_fn(|| match lines.next() {
        Ok(point) => point,
        Err(reason) => {
            failed = Some(reason);
            None
        }
    }));
    match failed {
        Some(reason) => Err(DaemonError::Http { url: path, reason }),
        None => Ok((verdict, lines.hasher.finish())),
    }
}

struct Lines<R> {
    reader: BufReader<R>,
    hasher: DefaultHasher,
}

impl<R: Read> Lines<R> {
    fn next(&mut self) -> Result<Option<(String, String, i64, Value)>, String> {
        let mut line = String::new();
        let length =
            (&mut self.reader).take(LINE_BYTES_MAX).read_line(&mut line).map_err(|e| e.to_string())?;
        if length == 0 {
            return Ok(None);
        }
        self.hasher.write(line.as_bytes());
        let Line { metric, labels, timestamp_ns, value } =
            serde_json::from_str(&line).map_err(|e| format!("{e} in {line:?}"))?;
        Ok(Some((labels.device, metric, timestamp_ns, self::value(&value).ok_or(line)?)))
    }
}

/// Numbers with a fraction or exponent are floats, others whole; NaN and the infinities stand as text.
fn value(json: &serde_json::Value) -> Option<Value> {
    Some(match json {
        serde_json::Value::Bool(v) => Value::Bool(*v),
        serde_json::Value::String(v) => match v.as_str() {
            "NaN" | "Infinity" | "-Infinity" | "inf" | "-inf" | "+Inf" | "-Inf" => {
                Value::F64(v.parse().ok()?)
            }
            _ => Value::Text(v.clone()),
        },
        serde_json::Value::Number(v) => match v.as_i64() {
            Some(whole) => Value::I64(whole),
            None => Value::F64(v.as_f64()?),
        },
        _ => return None,
    })
}
