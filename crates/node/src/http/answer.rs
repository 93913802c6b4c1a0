//! Points as the API writes them: NDJSON, JSON and CSV. Pure: series and points in, bytes out, and nothing that
//! differs between nodes (invariant 7): equal points give equal bytes.
//!
//! ```text
//! NDJSON  {"metric":"t","labels":{"room":"lab"},"timestamp_ns":1,"value":21.5}        one line a point
//! JSON    {"site":"s","series":[{"metric":"t","labels":{…},"points":[[1,21.5],…]},…]}
//! CSV     metric,labels,timestamp_ns,type,value                                       labels as a JSON object
//! ```
//! A number with a fraction or exponent is an f64, one without is an i64. JSON has no NaN and no infinities: they are
//! `"NaN"`, `"+Inf"` and `"-Inf"`, told from texts by `"type":"f64"` (in JSON by a third element). What NDJSON says of a
//! point, a post takes back.

use serde::Serialize;
use tidelog_record::{Series, SiteName, Value};

/// The forms of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerForm {
    Json,
    Ndjson,
    Csv,
}

impl AnswerForm {
    /// By the `format` parameter.
    pub fn of_name(name: &str) -> Option<Self> {
        match name {
            "json" => Some(Self::Json),
            "ndjson" => Some(Self::Ndjson),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }

    /// By an `Accept` header: the first form in it that is known.
    pub fn of_accept(accept: &str) -> Option<Self> {
        accept.split(',').find_map(|item| {
            match item.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
                "application/json" | "application/*" | "*/*" => Some(Self::Json),
                "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Some(Self::Ndjson),
                "text/csv" | "text/*" => Some(Self::Csv),
                _ => None,
            }
        })
    }

    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
        }
    }
}

/// An answer being written.
#[derive(Debug)]
pub(crate) struct Answer {
    form: AnswerForm,
    /// The series whose points come, and what each of them begins with.
    open: Option<(Series, Vec<u8>)>,
    pub bytes: Vec<u8>,
}

impl Answer {
    pub fn begin(form: AnswerForm, site: &SiteName) -> Self {
        let mut answer = Self { form, open: None, bytes: Vec::new() };
        match form {
            AnswerForm::Json => {
                answer.push(b"{\"site\":");
                answer.json(site.as_str());
                answer.push(b",\"series\":[");
            }
            AnswerForm::Ndjson => {}
            AnswerForm::Csv => answer.push(b"metric,labels,timestamp_ns,type,value\n"),
        }
        answer
    }

    /// Points of one series, or more of those of the series before. `full` is given the bytes whenever there are more than it was told
    /// to hold.
    pub fn series<E>(
        &mut self,
        series: &Series,
        points: impl Iterator<Item = (i64, Value)>,
        bytes_max: usize,
        mut full: impl FnMut(Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let before = self.open.take();
        let mut first = before.as_ref().is_none_or(|(open, _)| open != series);
        let head = match before {
            Some((_, head)) if !first => head,
            before => self.begin_series(series, before.is_some()),
        };
        for (timestamp, value) in points {
            self.point(&head, std::mem::replace(&mut first, false), timestamp, &value);
            if self.bytes.len() >= bytes_max {
                full(std::mem::take(&mut self.bytes))?;
            }
        }
        self.open = Some((series.clone(), head));
        Ok(())
    }

    fn begin_series(&mut self, series: &Series, series_before: bool) -> Vec<u8> {
        let head = head(self.form, Some(series.metric()), series.labels());
        if self.form == AnswerForm::Json {
            self.push(if series_before { b"]},\n{" } else { b"\n{" });
            self.push(&head);
            self.push(b",\"points\":[");
        }
        head
    }

    pub fn end(mut self) -> Vec<u8> {
        if self.form == AnswerForm::Json {
            self.push(if self.open.is_some() { b"]}]}\n" } else { b"]}\n" });
        }
        self.bytes
    }

    fn point(&mut self, head: &[u8], first: bool, timestamp: i64, value: &Value) {
        match self.form {
            AnswerForm::Ndjson => {
                self.push(b"{");
                self.push(head);
                self.push(b",\"timestamp_ns\":");
                self.json(&timestamp);
                self.push(b",\"value\":");
                self.value(value);
                if not_finite(value).is_some() {
                    self.push(b",\"type\":\"f64\"");
                }
                self.push(b"}\n");
            }
            AnswerForm::Json => {
                self.push(if first { b"[" } else { b",[" });
                self.json(&timestamp);
                self.push(b",");
                self.value(value);
                if not_finite(value).is_some() {
                    self.push(b",\"f64\"");
                }
                self.push(b"]");
            }
            AnswerForm::Csv => {
                self.push(head);
                self.push(b",");
                self.json(&timestamp);
                match value {
                    Value::F64(_) => self.push(b",f64,"),
                    Value::I64(_) => self.push(b",i64,"),
                    Value::Bool(_) => self.push(b",bool,"),
                    Value::Text(_) => self.push(b",text,"),
                }
                match (value, not_finite(value)) {
                    (Value::Text(text), _) => put_quoted(&mut self.bytes, text.as_bytes()),
                    (_, Some(name)) => self.push(name.as_bytes()),
                    (value, None) => self.value(value),
                }
                self.push(b"\n");
            }
        }
    }

    fn value(&mut self, value: &Value) {
        match not_finite(value) {
            Some(name) => self.json(name),
            None => put_value(&mut self.bytes, value),
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn json<T: Serialize + ?Sized>(&mut self, value: &T) {
        put_json(&mut self.bytes, value);
    }
}

/// What every line or object of a series begins with: its metric, if it has one, and its labels.
pub(super) fn head<'l>(
    form: AnswerForm,
    metric: Option<&str>,
    labels: impl Iterator<Item = (&'l str, &'l str)>,
) -> Vec<u8> {
    let object = labels_object(labels);
    let mut out = Vec::new();
    match form {
        AnswerForm::Csv => {
            out.extend_from_slice(metric.unwrap_or_default().as_bytes());
            out.push(b',');
            put_quoted(&mut out, &object);
        }
        AnswerForm::Json | AnswerForm::Ndjson => {
            if let Some(metric) = metric {
                out.extend_from_slice(b"\"metric\":");
                put_json(&mut out, metric);
                out.push(b',');
            }
            out.extend_from_slice(b"\"labels\":");
            out.extend_from_slice(&object);
        }
    }
    out
}

/// Labels as a JSON object.
pub(super) fn labels_object<'l>(labels: impl Iterator<Item = (&'l str, &'l str)>) -> Vec<u8> {
    let mut object = Vec::new();
    for (name, value) in labels {
        object.push(if object.is_empty() { b'{' } else { b',' });
        put_json(&mut object, name);
        object.push(b':');
        put_json(&mut object, value);
    }
    object.extend_from_slice(if object.is_empty() { b"{}" } else { b"}" });
    object
}

pub(super) fn put_json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    // Texts and finite numbers have JSON, and a Vec takes all bytes.
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.extend_from_slice(b"null");
    }
}

/// A value in JSON, of those that JSON has: see [`not_finite`].
pub(super) fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::F64(v) => put_json(out, v),
        Value::I64(v) => put_json(out, v),
        Value::Bool(v) => put_json(out, v),
        Value::Text(v) => put_json(out, v),
    }
}

/// A CSV field (RFC 4180), always quoted.
pub(super) fn put_quoted(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for byte in text {
        if *byte == b'"' {
            out.push(b'"');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

/// The name of a float that JSON has not.
pub(super) fn not_finite(value: &Value) -> Option<&'static str> {
    match value {
        Value::F64(v) if v.is_nan() => Some("NaN"),
        Value::F64(v) if *v == f64::INFINITY => Some("+Inf"),
        Value::F64(v) if *v == f64::NEG_INFINITY => Some("-Inf"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(form: AnswerForm) -> String {
        let a = Series::new("a", [("room", "say \"x\""), ("z", "1")]).unwrap();
        let b = Series::new("b", [("l", "")]).unwrap();
        let mut answer = Answer::begin(form, &"lab".parse().unwrap());
        let mut out = Vec::new();
        let mut keep = |bytes| {
            out.extend::<Vec<u8>>(bytes);
            Ok::<_, ()>(())
        };
        let values = [Value::F64(1.0), Value::F64(f64::NAN), Value::Text("NaN".to_owned())];
        let (one, two) = values.split_at(1);
        answer.series(&a, (0..).zip(one.to_vec()), 1, &mut keep).unwrap();
        answer.series(&a, (1..).zip(two.to_vec()), 1, &mut keep).unwrap();
        let values = [Value::I64(i64::MIN), Value::F64(f64::INFINITY), Value::Bool(true), Value::F64(-0.0)];
        answer.series(&b, (5..).zip(values), 1_000, &mut keep).unwrap();
        out.extend(answer.end());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_is_one_document() {
        let expected = serde_json::json!({"site": "lab", "series": [
            {"metric": "a", "labels": {"room": "say \"x\"", "z": "1"},
             "points": [[0, 1.0], [1, "NaN", "f64"], [2, "NaN"]]},
            {"metric": "b", "labels": {}, "points": [[5, i64::MIN], [6, "+Inf", "f64"], [7, true], [8, -0.0]]},
        ]});
        let text = written(AnswerForm::Json);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), expected, "{text}");
        assert!(
            text.contains("[0,1.0]") && text.contains("[8,-0.0]"),
            "a float is told from an integer: {text}"
        );
        let empty = Answer::begin(AnswerForm::Json, &"lab".parse().unwrap()).end();
        assert_eq!(empty, b"{\"site\":\"lab\",\"series\":[]}\n");
    }

    #[test]
    fn ndjson_is_one_point_a_line() {
        let text = written(AnswerForm::Ndjson);
        let lines: Vec<_> = text.lines().collect();
        let labels = r#"{"room":"say \"x\"","z":"1"}"#;
        assert_eq!(lines.len(), 7);
        assert_eq!(lines[0], format!(r#"{{"metric":"a","labels":{labels},"timestamp_ns":0,"value":1.0}}"#));
        assert_eq!(
            lines[1],
            format!(r#"{{"metric":"a","labels":{labels},"timestamp_ns":1,"value":"NaN","type":"f64"}}"#)
        );
        assert_eq!(lines[2], format!(r#"{{"metric":"a","labels":{labels},"timestamp_ns":2,"value":"NaN"}}"#));
    }

    #[test]
    fn csv_quotes_what_must_be_quoted() {
        let text = written(AnswerForm::Csv);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "metric,labels,timestamp_ns,type,value");
        assert_eq!(lines[1], r#"a,"{""room"":""say \""x\"""",""z"":""1""}",0,f64,1.0"#);
        assert_eq!(lines[2], r#"a,"{""room"":""say \""x\"""",""z"":""1""}",1,f64,NaN"#);
        assert_eq!(lines[3], r#"a,"{""room"":""say \""x\"""",""z"":""1""}",2,text,"NaN""#);
        assert_eq!(lines[4], r#"b,"{}",5,i64,-9223372036854775808"#);
    }

    #[test]
    fn the_first_known_form_that_a_client_accepts_is_taken() {
        let cases = [
            ("*/*", Some(AnswerForm::Json)),
            ("text/html, application/x-ndjson;q=0.9, */*", Some(AnswerForm::Ndjson)),
            ("TEXT/CSV", Some(AnswerForm::Csv)),
            ("image/png", None),
            ("", None),
        ];
        for (accept, form) in cases {
            assert_eq!(AnswerForm::of_accept(accept), form, "{accept}");
        }
    }
}
