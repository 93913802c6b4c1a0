//! Aggregates as the API writes them: NDJSON, JSON and CSV, in the manner of points. Pure: equal aggregates give equal bytes.
//!
//! ```text
//! NDJSON  {"metric":"t","labels":{"room":"lab"},"start_ns":1,"mean":21.5,"count":3}             one line a step
//! JSON    {"site":"s","functions":["mean","count"],"groups":[{"metric":"t","labels":{…},"steps":[[1,21.5,3],…]},…]}
//! CSV     metric,labels,start_ns,mean,count                                                     labels as a JSON object
//! ```
//! A group that is not one series has the labels it was made by, and a metric only if it was made by `__name__`. What a step has
//! no value of is `null`, in CSV empty. Floats that JSON has not are `{"f64":"NaN"}`, told so from texts; in CSV texts are quoted.

use std::sync::Arc;

use tidelog_query::promql::METRIC_LABEL;
use tidelog_record::{Series, SiteName, Value};
use tidelog_store::aggregate::{Aggregates, Function};

use super::answer::{AnswerForm, head, not_finite, put_json, put_quoted, put_value};

/// What aggregates are of.
#[derive(Debug)]
pub(super) enum Group {
    /// One series.
    Series(Arc<Series>),
    /// Series with these labels in common.
    Labels(Vec<(String, String)>),
}

/// An answer being written.
#[derive(Debug)]
pub(super) struct Rows {
    form: AnswerForm,
    names: Vec<&'static str>,
    shows_start: bool,
    group_before: bool,
    bytes: Vec<u8>,
}

impl Rows {
    /// `shows_start` is false where the one step is all of time.
    pub fn begin(form: AnswerForm, site: &SiteName, functions: &[Function], shows_start: bool) -> Self {
        let names: Vec<&str> = functions.iter().map(|function| function.name()).collect();
        let mut bytes = Vec::new();
        match form {
            AnswerForm::Json => {
                bytes.extend_from_slice(b"{\"site\":");
                put_json(&mut bytes, site.as_str());
                bytes.extend_from_slice(b",\"functions\":");
                put_json(&mut bytes, &names);
                bytes.extend_from_slice(b",\"groups\":[");
            }
            AnswerForm::Ndjson => {}
            AnswerForm::Csv => {
                bytes.extend_from_slice(b"metric,labels,start_ns,");
                bytes.extend_from_slice(names.join(",").as_bytes());
                bytes.push(b'\n');
            }
        }
        Self { form, names, shows_start, group_before: false, bytes }
    }

    /// One group. `full` is given the bytes whenever there are more than it was told to hold.
    pub fn group<E>(
        &mut self,
        group: &Group,
        aggregates: &Aggregates,
        bytes_max: usize,
        mut full: impl FnMut(Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let head = self.head(group);
        if self.form == AnswerForm::Json {
            if std::mem::replace(&mut self.group_before, true) {
                self.push(b",");
            }
            self.push(b"\n{");
            self.push(&head);
            self.push(b",\"steps\":[");
        }
        for (step, start) in aggregates.starts.iter().enumerate() {
            let values = aggregates.columns.iter().map(|column| column.get(step).and_then(Option::as_ref));
            self.row(&head, step == 0, self.shows_start.then_some(*start), values);
            if self.bytes.len() >= bytes_max {
                full(std::mem::take(&mut self.bytes))?;
            }
        }
        if self.form == AnswerForm::Json {
            self.push(b"]}");
        }
        Ok(())
    }

    pub fn end(mut self) -> Vec<u8> {
        if self.form == AnswerForm::Json {
            self.push(b"]}\n");
        }
        self.bytes
    }

    fn head(&self, group: &Group) -> Vec<u8> {
        match group {
            Group::Series(series) => head(self.form, Some(series.metric()), series.labels()),
            Group::Labels(labels) => {
                let metric =
                    labels.iter().find(|(name, _)| name == METRIC_LABEL).map(|(_, value)| value.as_str());
                let others = labels.iter().filter(|(name, _)| name != METRIC_LABEL);
                head(self.form, metric, others.map(|(name, value)| (name.as_str(), value.as_str())))
            }
        }
    }

    fn row<'v>(
        &mut self,
        head: &[u8],
        first: bool,
        start: Option<i64>,
        values: impl Iterator<Item = Option<&'v Value>>,
    ) {
        match self.form {
            AnswerForm::Json => {
                self.push(if first { b"[" } else { b",[" });
                put_json(&mut self.bytes, &start);
                for value in values {
                    self.push(b",");
                    self.value(value);
                }
                self.push(b"]");
            }
            AnswerForm::Ndjson => {
                self.push(b"{");
                self.push(head);
                self.push(b",\"start_ns\":");
                put_json(&mut self.bytes, &start);
                for (name, value) in self.names.clone().into_iter().zip(values) {
                    self.push(b",\"");
                    self.push(name.as_bytes());
                    self.push(b"\":");
                    self.value(value);
                }
                self.push(b"}\n");
            }
            AnswerForm::Csv => {
                self.push(head);
                self.push(b",");
                if let Some(start) = start {
                    put_json(&mut self.bytes, &start);
                }
                for value in values {
                    self.push(b",");
                    match value {
                        None => {}
                        Some(Value::Text(text)) => put_quoted(&mut self.bytes, text.as_bytes()),
                        Some(value) => match not_finite(value) {
                            Some(name) => self.push(name.as_bytes()),
                            None => put_value(&mut self.bytes, value),
                        },
                    }
                }
                self.push(b"\n");
            }
        }
    }

    /// A value in JSON.
    fn value(&mut self, value: Option<&Value>) {
        match value {
            None => self.push(b"null"),
            Some(value) => match not_finite(value) {
                Some(name) => {
                    self.push(b"{\"f64\":");
                    put_json(&mut self.bytes, name);
                    self.push(b"}");
                }
                None => put_value(&mut self.bytes, value),
            },
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(form: AnswerForm, shows_start: bool) -> String {
        let functions = [Function::Mean, Function::Last];
        let mut rows = Rows::begin(form, &"lab".parse().unwrap(), &functions, shows_start);
        let mut out = Vec::new();
        let mut keep = |bytes: Vec<u8>| {
            out.extend(bytes);
            Ok::<_, ()>(())
        };
        let series = Series::new("t", [("room", "say \"x\"")]).unwrap();
        let aggregates = Aggregates {
            starts: vec![5, 7],
            columns: vec![
                vec![Some(Value::F64(1.0)), None],
                vec![Some(Value::I64(2)), Some(Value::Text("NaN".into()))],
            ],
        };
        rows.group(&Group::Series(Arc::new(series)), &aggregates, 1, &mut keep).unwrap();
        let labels = vec![("__name__".to_owned(), "t".to_owned()), ("a".to_owned(), "b".to_owned())];
        let nan = Aggregates { starts: vec![5], columns: vec![vec![Some(Value::F64(f64::NAN))], vec![None]] };
        rows.group(&Group::Labels(labels), &nan, 1_000, &mut keep).unwrap();
        rows.group(&Group::Labels(vec![]), &nan, 1_000, &mut keep).unwrap();
        out.extend(rows.end());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_is_one_document() {
        let expected = serde_json::json!({"site": "lab", "functions": ["mean", "last"], "groups": [
            {"metric": "t", "labels": {"room": "say \"x\""}, "steps": [[5, 1.0, 2], [7, null, "NaN"]]},
            {"metric": "t", "labels": {"a": "b"}, "steps": [[5, {"f64": "NaN"}, null]]},
            {"labels": {}, "steps": [[5, {"f64": "NaN"}, null]]},
        ]});
        let text = written(AnswerForm::Json, true);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), expected, "{text}");
        assert!(written(AnswerForm::Json, false).contains("[null,1.0,2]"));
    }

    #[test]
    fn ndjson_and_csv_are_a_line_a_step() {
        assert_eq!(
            written(AnswerForm::Ndjson, true).lines().collect::<Vec<_>>(),
            [
                r#"{"metric":"t","labels":{"room":"say \"x\""},"start_ns":5,"mean":1.0,"last":2}"#,
                r#"{"metric":"t","labels":{"room":"say \"x\""},"start_ns":7,"mean":null,"last":"NaN"}"#,
                r#"{"metric":"t","labels":{"a":"b"},"start_ns":5,"mean":{"f64":"NaN"},"last":null}"#,
                r#"{"labels":{},"start_ns":5,"mean":{"f64":"NaN"},"last":null}"#,
            ]
        );
        assert_eq!(
            written(AnswerForm::Csv, false).lines().collect::<Vec<_>>(),
            [
                "metric,labels,start_ns,mean,last",
                r#"t,"{""room"":""say \""x\""""}",,1.0,2"#,
                r#"t,"{""room"":""say \""x\""""}",,,"NaN""#,
                r#"t,"{""a"":""b""}",,NaN,"#,
                r#","{}",,NaN,"#,
            ]
        );
    }
}
