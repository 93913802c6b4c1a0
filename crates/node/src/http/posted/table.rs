//! Points as a table in CSV (RFC 4180): the first line names the columns, every other is what was read at one time.
//!
//! ```text
//! time,device,temperature,open        ?labels=device&precision=ms
//! 1795248000000,d1,21.5,true
//! ```
//! One column is the time, `time` or `timestamp`; those that `labels` names are labels, and every other is a metric. A cell is a float, `true` or
//! `false`, or in the columns that `texts` names a text; an empty one is no value. A bad line is left out whole, and named.

use std::collections::HashSet;

use csv::{ByteRecord, ReaderBuilder, Trim};
use tidelog_query::parse_instant;
use tidelog_record::{Series, Value};

use super::super::error::{ApiError, ErrorCode};
use super::super::line::Dialect;
use super::super::partial::Taken;
use super::super::question::bad;
use super::{NotTaken, Posted, Sorter};

/// Columns of a table.
const COLUMNS_MAX: usize = 1_000;

/// Names of the column that is the time.
const TIME: [&str; 2] = ["time", "timestamp"];

/// Characters of a bad cell that an answer repeats.
const CELL_CHARS_TOLD_MAX: usize = 40;

/// What some programs put before a text in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Whether a body is a table.
pub(in crate::http) fn is_content_type(text: &str) -> bool {
    matches!(super::essence(text).as_str(), "text/csv" | "application/csv")
}

/// What a request says of its columns.
#[derive(Debug, Default)]
pub(in crate::http) struct Columns {
    labels: Option<Vec<String>>,
    texts: Option<Vec<String>>,
    unit_ns: Option<i64>,
}

impl Columns {
    /// Takes a parameter, if it is one of these; says whether it is.
    pub fn take(&mut self, name: &str, value: &str) -> Result<bool, ApiError> {
        let names = || value.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let twice = match name {
            "labels" => self.labels.replace(names()).is_some(),
            "texts" => self.texts.replace(names()).is_some(),
            "precision" => {
                let unknown = || bad(format!("precision {value:?}: there are ns, us, ms and s"));
                self.unit_ns.replace(Dialect::V2.unit_ns(value).ok_or_else(unknown)?).is_some()
            }
            _ => return Ok(false),
        };
        if twice { Err(bad(format!("parameter {name:?} stands twice"))) } else { Ok(true) }
    }

    /// Reads a table, where a body may be so long. Bad lines are left out.
    ///
    /// # Errors
    /// The columns are not what they should be, or the points take too much together.
    pub fn read(&self, body: &[u8], body_bytes_max: u32) -> Result<(Posted, Taken), ApiError> {
        let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
        let mut reader = ReaderBuilder::new().flexible(true).trim(Trim::All).from_reader(body);
        let unread = |error: csv::Error| ApiError::new(ErrorCode::BadBody, error.to_string());
        let head = Head::of(reader.byte_headers().map_err(unread)?, self)?;
        let (mut sorter, mut taken, mut row) =
            (Sorter::new(body_bytes_max), Taken::default(), ByteRecord::new());
        let (mut known, mut points) = (None, Vec::new());
        while reader.read_byte_record(&mut row).map_err(unread)? {
            let added = head.points(&row, &mut known, &mut points).and_then(|()| {
                let count = points.len() as u64;
                for (series, time, value) in points.drain(..) {
                    match sorter.add(series, time, value) {
                        Ok(()) => {}
                        Err(NotTaken::Full) => return Err(Fault::Full),
                        Err(error) => return Err(Fault::Line(error.to_string())),
                    }
                }
                Ok(count)
            });
            match added {
                Ok(count) => {
                    taken.lines += 1;
                    taken.points += count;
                }
                Err(Fault::Full) => {
                    return Err(ApiError::new(ErrorCode::TooLarge, NotTaken::Full.to_string()));
                }
                Err(Fault::Line(reason)) => taken.refuse(|| format!("line {}: {reason}", line(body, &row))),
            }
        }
        Ok((sorter.end(), taken))
    }
}

/// The line of the body in which a row begins: blank lines stand before it in the reader's count.
fn line(body: &[u8], row: &ByteRecord) -> usize {
    let begin = row.position().map_or(0, csv::Position::byte);
    let begin = usize::try_from(begin).unwrap_or(usize::MAX);
    let blank = body.iter().skip(begin).take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    1 + memchr::memchr_iter(b'\n', body.get(..begin + blank).unwrap_or(body)).count()
}

/// Why a line gives no points.
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    /// It is bad, for this reason.
    Line(String),
    /// There is no room for it.
    Full,
}

/// What a column is.
#[derive(Debug)]
enum Kind {
    Time,
    Label,
    /// A metric of numbers and truth values.
    Metric,
    /// A metric of texts.
    Texts,
}

/// The first line.
#[derive(Debug)]
struct Head {
    columns: Vec<(String, Kind)>,
    time: usize,
    unit_ns: i64,
}

/// The series of a row, by column: those of the row before, as long as its labels are the same.
struct Known {
    labels: Vec<String>,
    series: Vec<Option<Series>>,
}

impl Head {
    fn of(names: &ByteRecord, asked: &Columns) -> Result<Self, ApiError> {
        let refuse = |message: String| Err(ApiError::new(ErrorCode::BadBody, format!("line 1: {message}")));
        if names.len() > COLUMNS_MAX {
            return refuse(format!("{} columns, the most is {COLUMNS_MAX}", names.len()));
        }
        let (mut seen, mut columns, mut time) = (HashSet::new(), Vec::new(), None);
        let is_in = |list: &Option<Vec<String>>, name: &str| {
            list.as_deref().unwrap_or_default().iter().any(|listed| listed == name)
        };
        for (at, name) in names.iter().enumerate() {
            let Ok(name) = std::str::from_utf8(name) else {
                return refuse(format!("the name of column {} is not UTF-8", at + 1));
            };
            if !seen.insert(name) {
                return refuse(format!("column {name:?} stands twice"));
            }
            let kind = match (is_in(&asked.labels, name), is_in(&asked.texts, name)) {
                (true, true) => return Err(bad(format!("{name:?} stands in labels and in texts"))),
                (true, false) => Kind::Label,
                (false, true) => Kind::Texts,
                (false, false) if TIME.contains(&name) => {
                    if time.replace(at).is_some() {
                        return refuse("there are time and timestamp; one of them is the time".to_owned());
                    }
                    Kind::Time
                }
                (false, false) => Kind::Metric,
            };
            let named = match kind {
                Kind::Time => Ok(()),
                Kind::Label => Series::new("m", [(name, "x")]).map(drop),
                Kind::Metric | Kind::Texts => Series::new(name, [("", ""); 0]).map(drop),
            };
            if let Err(error) = named {
                return refuse(format!("column {name:?}: {error}"));
            }
            columns.push((name.to_owned(), kind));
        }
        for name in asked.labels.iter().chain(&asked.texts).flatten() {
            if !seen.contains(name.as_str()) {
                return Err(bad(format!("there is no column {name:?}")));
            }
        }
        let Some(time) = time else { return refuse("there is no column time or timestamp".to_owned()) };
        Ok(Self { columns, time, unit_ns: asked.unit_ns.unwrap_or(1) })
    }

    /// Puts a row's points behind what is in `points`, which is empty if they are refused.
    fn points(
        &self,
        row: &ByteRecord,
        known: &mut Option<Known>,
        points: &mut Vec<(Series, i64, Value)>,
    ) -> Result<(), Fault> {
        points.clear();
        self.try_points(row, known, points).inspect_err(|_| points.clear()).map_err(Fault::Line)
    }

    fn try_points(
        &self,
        row: &ByteRecord,
        known: &mut Option<Known>,
        points: &mut Vec<(Series, i64, Value)>,
    ) -> Result<(), String> {
        if row.len() != self.columns.len() {
            return Err(format!("{} cells in {} columns", row.len(), self.columns.len()));
        }
        let cell = |at: usize| {
            let (name, _) = self.columns.get(at).ok_or("no such column")?;
            let text = std::str::from_utf8(row.get(at).unwrap_or_default());
            text.map_err(|_| format!("column {name:?}: not UTF-8"))
        };
        let time = self.time(cell(self.time)?)?;
        let mut labels = Vec::new();
        for (at, (_, kind)) in self.columns.iter().enumerate() {
            if matches!(kind, Kind::Label) {
                labels.push(cell(at)?);
            }
        }
        let known = match known {
            Some(known) if known.labels == labels => known,
            other => other.insert(Known {
                labels: labels.iter().map(|label| (*label).to_owned()).collect(),
                series: vec![None; self.columns.len()],
            }),
        };
        for (at, (name, kind)) in self.columns.iter().enumerate() {
            let text = match kind {
                Kind::Metric | Kind::Texts => cell(at)?,
                Kind::Time | Kind::Label => continue,
            };
            if text.is_empty() {
                continue;
            }
            let value = match kind {
                Kind::Texts => Value::Text(text.to_owned()),
                _ => value(text)
                    .ok_or_else(|| format!("column {name:?}: {} is no number, true or false", told(text)))?,
            };
            let place = known.series.get_mut(at).ok_or("no such column")?;
            let series = match place {
                Some(series) => series.clone(),
                None => place.insert(self.series(name, &known.labels)?).clone(),
            };
            points.push((series, time, value));
        }
        Ok(())
    }

    fn series(&self, metric: &str, values: &[String]) -> Result<Series, String> {
        let names = self.columns.iter().filter(|(_, kind)| matches!(kind, Kind::Label)).map(|(name, _)| name);
        let labels = names.map(String::as_str).zip(values.iter().map(String::as_str));
        Series::new(metric, labels).map_err(|error| error.to_string())
    }

    fn time(&self, text: &str) -> Result<i64, String> {
        let fault = |reason: &str| format!("column {:?}: {} {reason}", self.name_of_time(), told(text));
        if let Ok(number) = text.parse::<i64>() {
            return number.checked_mul(self.unit_ns).ok_or_else(|| fault("is out of range"));
        }
        // A time that is written out has no unit.
        let written_out = text.contains('T').then(|| parse_instant(text).ok()).flatten();
        written_out.ok_or_else(|| fault("is no whole number and no time as in 2026-11-21T08:00:00Z"))
    }

    fn name_of_time(&self) -> &str {
        self.columns.get(self.time).map_or("time", |(name, _)| name)
    }
}

fn value(text: &str) -> Option<Value> {
    match text {
        "true" | "True" | "TRUE" => Some(Value::Bool(true)),
        "false" | "False" | "FALSE" => Some(Value::Bool(false)),
        "NaN" => Some(Value::F64(f64::NAN)),
        "+Inf" => Some(Value::F64(f64::INFINITY)),
        "-Inf" => Some(Value::F64(f64::NEG_INFINITY)),
        // Rust reads words such as infinity, too, and numbers past the last as infinite.
        _ => text.parse().ok().filter(|number: &f64| number.is_finite()).map(Value::F64),
    }
}

/// A cell, as far as an answer repeats it.
fn told(text: &str) -> String {
    let mut shown: String = text.chars().take(CELL_CHARS_TOLD_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

/// The points of a table whose columns `device` and `note` are a label and a text; none when it is refused.
pub(crate) fn batches_of_table(body: &[u8], body_bytes_max: u32) -> Vec<tidelog_record::Batch> {
    let named = |name: &str| Some(vec![name.to_owned()]);
    let all = Columns { labels: named("device"), texts: named("note"), unit_ns: Some(1_000_000) };
    // A table without these columns is read, too.
    let read = all.read(body, body_bytes_max).or_else(|_| Columns::default().read(body, body_bytes_max));
    read.map(|(posted, _)| posted.batches).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const BODY_BYTES_MAX: u32 = 1024 * 1024;

    type Points = BTreeMap<(String, i64), Value>;

    fn read(query: &str, body: &str) -> Result<(Points, Taken), ApiError> {
        let mut columns = Columns::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            assert!(columns.take(&name, &value)?, "{name}");
        }
        let (posted, taken) = columns.read(body.as_bytes(), BODY_BYTES_MAX)?;
        assert_eq!(posted.points as u64, taken.points);
        let all = posted.batches.iter().flat_map(|batch| &batch.series);
        let points = all.flat_map(|(series, points)| {
            let name = series.to_string();
            points.iter().map(move |(time, value)| ((name.clone(), *time), value.clone()))
        });
        Ok((points.collect(), taken))
    }

    #[test]
    fn every_cell_is_a_point_of_its_column_at_the_time_of_its_row() {
        let body = "\u{feff}time,device,room,temp,open,note\r\n\
            5,d1,lab,21.5,true,\"a, \"\"b\"\"\"\r\n\
            \r\n\
            6,d1,,-3,False,\n\
            1970-01-01T00:00:00.007Z,\"d\n2\",lab,NaN,,x";
        let (points, taken) = read("labels=device,room&texts=note&precision=ms", body).unwrap();
        let at = |series: &str, ms: i64, value: Value| ((series.to_owned(), ms * 1_000_000), value);
        let expected = BTreeMap::from([
            at(r#"temp{device="d1",room="lab"}"#, 5, Value::F64(21.5)),
            at(r#"open{device="d1",room="lab"}"#, 5, Value::Bool(true)),
            at(r#"note{device="d1",room="lab"}"#, 5, Value::Text("a, \"b\"".into())),
            at(r#"temp{device="d1"}"#, 6, Value::F64(-3.0)),
            at(r#"open{device="d1"}"#, 6, Value::Bool(false)),
            at(r#"temp{device="d\n2",room="lab"}"#, 7, Value::F64(f64::NAN)),
            at(r#"note{device="d\n2",room="lab"}"#, 7, Value::Text("x".into())),
        ]);
        assert_eq!(format!("{points:?}"), format!("{expected:?}"));
        assert_eq!((taken.lines, taken.refusal()), (3, None));
    }

    #[test]
    fn a_bad_line_is_left_out_whole_and_named_with_its_column() {
        let cases = [
            ("x,1,1", r#"column "time": "x" is no whole number"#),
            (",1,1", r#"column "time": "" is no whole number"#),
            ("9223372036854775807,1,1", "out of range"),
            ("1.5,1,1", "is no whole number"),
            ("1,1,2x", r#"column "b": "2x" is no number, true or false"#),
            ("1,1,\"2,5\"", r#"column "b": "2,5" is no number"#),
            ("1,inf,1", r#"column "a": "inf" is no number"#),
            ("1,1e999,1", "is no number"),
            ("1,1", "2 cells in 3 columns"),
            ("1,1,1,1", "4 cells in 3 columns"),
        ];
        for (bad, reason) in cases {
            let body = format!("time,a,b\n1,1,1\n\n\n{bad}\n2,2,2\n");
            let (points, taken) = read("precision=s", &body).unwrap();
            assert_eq!((points.len(), taken.lines, taken.bad_lines), (4, 2, 1), "{bad}");
            let refusal = taken.refusal().unwrap();
            assert_eq!(refusal.code, ErrorCode::BadLine);
            let start = "partial write: 1 of 3 lines refused, the others are stored; line 5: ";
            assert!(
                refusal.message.starts_with(start) && refusal.message.contains(reason),
                "{bad}: {refusal:?}"
            );
        }
        let mut columns = Columns::default();
        columns.take("labels", "l").unwrap();
        let (_, taken) = columns.read(b"time,l,a\n1,\xff,1\n", BODY_BYTES_MAX).unwrap();
        let refusal = taken.refusal().unwrap().message;
        assert!(refusal.contains("nothing is stored; line 2: column \"l\": not UTF-8"), "{refusal}");
    }

    #[test]
    fn columns_that_are_not_what_they_should_be_are_refused_before_anything_is_stored() {
        let many = (0..=COLUMNS_MAX).map(|n| format!("m{n}")).collect::<Vec<_>>().join(",");
        let cases = [
            ("", "", "no column time"),
            ("", "a,b\n1,1\n", "no column time"),
            ("", "time,timestamp\n1,1\n", "one of them is the time"),
            ("", "time,a,a\n", "stands twice"),
            ("", "time,te mp\n", "bad metric name"),
            ("", "time,\n", "bad metric name"),
            ("labels=1x", "time,1x\n", "bad label name"),
            ("", many.as_str(), "columns, the most is"),
        ];
        for (query, body, reason) in cases {
            let error = read(query, body).unwrap_err();
            assert_eq!(error.code, ErrorCode::BadBody, "{body}: {error:?}");
            assert!(error.message.starts_with("line 1: ") && error.message.contains(reason), "{error:?}");
        }
        for (query, body) in [
            ("labels=b", "time,a\n"),
            ("texts=b", "time,a\n"),
            ("labels=a&texts=a", "time,a\n"),
            ("labels=a&labels=a", "time,a\n"),
            ("precision=h", "time,a\n"),
        ] {
            assert_eq!(read(query, body).unwrap_err().code, ErrorCode::BadParameter, "{query}");
        }
        assert!(read("labels=&texts=", "timestamp,time_of_day\n1,2\n").is_ok());
        assert!(read("labels=time", "timestamp,time,a\n1,noon,2\n").is_ok(), "a label may have any name");
    }

    #[test]
    fn points_that_take_much_more_than_their_body_may_are_refused_as_too_large() {
        let body = format!("time,l,a\n{}", "1,x,1\n".repeat(1_000));
        let mut columns = Columns::default();
        columns.take("labels", "l").unwrap();
        assert!(columns.read(body.as_bytes(), BODY_BYTES_MAX).is_ok());
        assert_eq!(columns.read(body.as_bytes(), 1024).unwrap_err().code, ErrorCode::TooLarge);
    }

    proptest! {
        #[test]
        fn whatever_was_written_as_a_table_is_read_so(
            rows in prop::collection::vec((any::<i64>(), "[ -~é\n]{0,8}", prop::option::of(any::<f64>()), "\\PC{0,8}"), 0..12),
        ) {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(["timestamp", "l", "a", "t"]).unwrap();
            let mut expected = BTreeMap::new();
            for (time, label, number, text) in &rows {
                let number = number.filter(|number| number.is_finite());
                let cells = [time.to_string(), label.clone(), number.map(|n| n.to_string()).unwrap_or_default(), text.clone()];
                writer.write_record(&cells).unwrap();
                let labels = [("l", label.trim_ascii())];
                let mut add = |metric: &str, value: Value| {
                    let key = (Series::new(metric, labels).unwrap().to_string(), *time);
                    expected.entry(key).or_insert_with(Vec::new).push(value);
                };
                if let Some(number) = number {
                    add("a", Value::F64(number));
                }
                if !text.trim_ascii().is_empty() {
                    add("t", Value::Text(text.trim_ascii().to_owned()));
                }
            }
            let body = String::from_utf8(writer.into_inner().unwrap()).unwrap();
            let (points, taken) = read("labels=l&texts=t", &body).unwrap();
            prop_assert_eq!(taken.refusal(), None);
            prop_assert_eq!(points.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
            for (key, value) in points {
                prop_assert!(expected[&key].contains(&value), "{:?}", key);
            }
        }

        #[test]
        fn arbitrary_tables_never_panic(noise in prop::collection::vec(any::<u8>(), 0..80), text in "[time,al\n\"0-9]{0,60}") {
            for body in [noise, format!("time,a\n{text}").into_bytes(), text.into_bytes()] {
                let mut columns = Columns::default();
                columns.take("labels", "l").unwrap();
                drop(columns.read(&body, BODY_BYTES_MAX));
                drop(Columns::default().read(&body, BODY_BYTES_MAX));
            }
        }
    }
}
