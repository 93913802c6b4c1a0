//! Server-sent events (WHATWG HTML, section 9.2) that tell of records: pure, records in and text out.
//!
//! ```text
//! event: points                         points of one record, in the JSON form of a question about points
//! data: {"site":"plant","series":[{"metric":"t","labels":{"room":"lab"},"points":[[1,21.5]]}]}
//!
//! event: missed                         records that went before they could be told
//! data: {"records":12}
//!
//! id: NODE.POSITION.MARK                everything up to there was told
//! ```
//! An id stands behind what it covers, so whoever goes on from the last one that it got misses nothing, and may be told the points of
//! one record a second time.

use tidelog_query::Selectors;
use tidelog_record::{BatchError, BodyReader, Entry, Opened, Record, Series};

use super::super::answer::{Answer, AnswerForm};
use super::cursor::Cursor;

/// Points of one series that are written at once. With the longest texts there are, they take as much as a record may.
const COLUMN_POINTS_MAX: usize = 1_000;

/// The first thing said: how long a client should wait before it comes again, and where it stands.
pub(super) fn opening(retry_ms: u64, at: Cursor) -> Vec<u8> {
    let mut out = format!("retry: {retry_ms}\n").into_bytes();
    out.extend(reached(at));
    out
}

/// Where the client stands. An event without data is no event to a browser, but its id is kept.
pub(super) fn reached(at: Cursor) -> Vec<u8> {
    format!("id: {at}\n\n").into_bytes()
}

/// Nothing, said so that nobody on the way takes the connection for dead.
pub(super) fn heartbeat() -> Vec<u8> {
    b":\n\n".to_vec()
}

/// So many records, of any site, went before they could be told.
pub(super) fn missed(records: u64) -> Vec<u8> {
    format!("event: missed\ndata: {{\"records\":{records}}}\n\n").into_bytes()
}

/// Tells the points of a record that belong to series that are meant, in events of about `bytes_max` each, and how many they are.
/// A record without points says nothing.
///
/// # Errors
/// The body is not what it should be; or, as the inner error, what `send` says.
pub(super) fn points<E>(
    record: &Record,
    meant: &Selectors,
    bytes_max: usize,
    mut send: impl FnMut(Vec<u8>) -> Result<(), E>,
) -> Result<Result<u64, E>, BatchError> {
    let Opened::Points(mut body) = BodyReader::open(&record.body)? else { return Ok(Ok(0)) };
    let begin = || Answer::begin(AnswerForm::Json, &record.stream.site);
    let (mut answer, mut told, mut unsent) = (begin(), 0u64, false);
    let mut entry = Entry::default();
    while body.next(&mut entry)? {
        let series = Series::from_canonical(&entry.canonical)?;
        if !meant.matches(&series) {
            continue;
        }
        let values = (0..entry.times.len()).filter_map(|at| entry.values.get(at));
        let mut points = entry.times.iter().copied().zip(values).peekable();
        while points.peek().is_some() {
            let some = points.by_ref().take(COLUMN_POINTS_MAX).inspect(|_| told += 1);
            // Nothing is handed on before an event is complete.
            let Ok(()) = answer.series(&series, some, usize::MAX, |_| Ok::<_, std::convert::Infallible>(()));
            unsent = true;
            if answer.bytes.len() >= bytes_max {
                if let Err(error) = send(event(std::mem::replace(&mut answer, begin()))) {
                    return Ok(Err(error));
                }
                unsent = false;
            }
        }
    }
    if unsent && let Err(error) = send(event(answer)) {
        return Ok(Err(error));
    }
    Ok(Ok(told))
}

/// JSON has line feeds between its parts alone, and each line of an event says what it is.
fn event(answer: Answer) -> Vec<u8> {
    let json = answer.end();
    let mut out = Vec::with_capacity(json.len() + json.len() / 16 + 16);
    out.extend_from_slice(b"event: points\n");
    for line in json.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.push(b'\n');
    out
}

#[cfg(test)]
mod tests {
    use super::super::cursor::{Mark, Place};
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};
    use tidelog_record::{Batch, ChainHash, Lsn, NodeId, Run, StreamId, Value};
    use tidelog_store::Position;

    fn record(batch: &Batch) -> Record {
        let stream = StreamId { site: "plant".parse().unwrap(), node: NodeId([1; 16]), run: Run(2) };
        Record { stream, lsn: Lsn(3), chain: ChainHash::default(), body: batch.encode().unwrap() }
    }

    fn batch(series: Vec<(Series, Vec<(i64, Value)>)>) -> Batch {
        Batch { authored_ms: 0, origin: None, series }
    }

    /// Reads events as WHATWG HTML section 9.2.6 says, as far as they are used here: `(name, data)`, and the last id.
    fn read(text: &str) -> (Vec<(String, String)>, Option<String>) {
        let (mut events, mut last) = (Vec::new(), None);
        let (mut name, mut data) = (String::new(), Vec::new());
        for line in text.lines() {
            match line.split_once(": ") {
                Some(("event", value)) => name = value.to_owned(),
                Some(("data", value)) => data.push(value.to_owned()),
                Some(("id", value)) => last = Some(value.to_owned()),
                _ if line.is_empty() => {
                    if !data.is_empty() {
                        events.push((name.clone(), data.join("\n")));
                    }
                    name.clear();
                    data.clear();
                }
                _ => assert!(line.starts_with(':') || line.starts_with("retry: "), "{line:?}"),
            }
        }
        assert!(name.is_empty() && data.is_empty(), "the last event has its end");
        (events, last)
    }

    fn told(record: &Record, meant: &[&str], bytes_max: usize) -> (Vec<Json>, u64) {
        let mut text = Vec::new();
        let send = |bytes: Vec<u8>| {
            text.extend(bytes);
            Ok::<_, ()>(())
        };
        let meant = Selectors::parse(meant).unwrap();
        let points = points(record, &meant, bytes_max, send).unwrap().unwrap();
        let (events, _) = read(std::str::from_utf8(&text).unwrap());
        let documents = events.into_iter().map(|(name, data)| {
            assert_eq!(name, "points");
            serde_json::from_str(&data).unwrap()
        });
        (documents.collect(), points)
    }

    /// `(series, time, value)` of all events, in their order.
    fn flat(events: &[Json]) -> Vec<(Json, Json)> {
        let series = events.iter().flat_map(|event| event["series"].as_array().unwrap());
        series
            .flat_map(|series| {
                let name = json!([series["metric"], series["labels"]]);
                series["points"].as_array().unwrap().iter().map(move |point| (name.clone(), point.clone()))
            })
            .collect()
    }

    #[test]
    fn an_event_is_the_json_of_a_question_about_points() {
        let room = Series::new("t", [("room", "a\n\"b\"")]).unwrap();
        let text = Series::new("door", [("", ""); 0]).unwrap();
        let record = record(&batch(vec![
            (room, vec![(1, Value::F64(21.5)), (2, Value::F64(f64::NAN))]),
            (text, vec![(1, Value::Text("open\nwide".into()))]),
        ]));
        let (events, points) = told(&record, &[], usize::MAX);
        let expected = json!({"site": "plant", "series": [
            {"metric": "t", "labels": {"room": "a\n\"b\""}, "points": [[1, 21.5], [2, "NaN", "f64"]]},
            {"metric": "door", "labels": {}, "points": [[1, "open\nwide"]]},
        ]});
        assert_eq!((events, points), (vec![expected], 3));
        let (events, points) = told(&record, &["door"], usize::MAX);
        assert_eq!((flat(&events).len(), points), (1, 1));
        assert_eq!(told(&record, &["nothing"], usize::MAX), (vec![], 0));
    }

    #[test]
    fn what_a_client_hears_besides_points_is_what_the_standard_calls_events_ids_and_comments() {
        let at = |position| {
            let place = Place { position: Position(position), mark: Mark::of(&ChainHash([0xab; 16])) };
            Cursor { node: NodeId([1; 16]), place }
        };
        let text = [opening(2_000, at(9)), missed(12), heartbeat(), reached(at(10))];
        let (events, id) = read(std::str::from_utf8(&text.concat()).unwrap());
        assert_eq!(events, [("missed".to_owned(), r#"{"records":12}"#.to_owned())]);
        assert_eq!(id.unwrap(), format!("{}.10.abababababababab", NodeId([1; 16])));
    }

    proptest! {
        // Each has thousands of points, so that columns are cut.
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn every_point_is_told_once_however_short_the_events_are(
            columns in prop::collection::vec((0u8..4, prop::collection::vec((0i64..1 << 50, -1e9..1e9), 0..2_500)), 0..6),
            bytes_max in 1usize..100_000,
        ) {
            let series = |number: u8| Series::new("t", [("n", number.to_string())]).unwrap();
            let batch = batch(columns.iter().map(|(number, points)| {
                (series(*number), points.iter().map(|(time, value)| (*time, Value::F64(*value))).collect())
            }).collect());
            let (events, points) = told(&record(&batch), &[], bytes_max);
            let expected: Vec<_> = columns.iter().flat_map(|(number, points)| {
                let name = json!(["t", {"n": number.to_string()}]);
                points.iter().map(move |(time, value)| (name.clone(), json!([time, value])))
            }).collect();
            prop_assert_eq!(points, expected.len() as u64);
            prop_assert_eq!(flat(&events), expected);
        }
    }
}
