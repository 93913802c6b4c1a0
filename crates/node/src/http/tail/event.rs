//! What a follower of the log hears: pure, records in and texts out, as server-sent events (WHATWG HTML, section 9.2) or as messages
//! on a WebSocket.
//!
//! ```text
//! event: points                         points of one record, in the JSON form of a question about points
//! data: {"site":"plant","series":[{"metric":"t","labels":{"room":"lab"},"points":[[1,21.5]]}]}
//!
//! event: missed                         records that went before they could be told
//! data: {"records":12}
//!
//! id: NODE.POSITION.MARK                everything up to there was told
//!
//! {"event":"points","cursor":"NODE.POSITION.MARK","site":"plant","series":[…]}
//! {"event":"missed","cursor":"NODE.POSITION.MARK","records":12}
//! {"event":"reached","cursor":"NODE.POSITION.MARK"}
//! ```
//! An id stands behind what it covers, and a message's cursor covers what was said before it, and the message itself where it is the
//! last of its record. So whoever goes on from the last one that it got misses nothing, and may be told the points of one record a
//! second time.

use tidelog_query::Selectors;
use tidelog_record::{BatchError, BodyReader, Entry, Opened, Record, Series};

use super::super::answer::{Answer, AnswerForm};
use super::cursor::Cursor;

/// Points of one series that are written at once. With the longest texts there are, they take as much as a record may.
const COLUMN_POINTS_MAX: usize = 1_000;

/// How long a client should wait before it comes again, in milliseconds.
const RETRY_MS: u64 = 2_000;

/// What is said to a follower.
#[derive(Debug)]
pub(super) enum Event {
    /// The first thing: where it stands.
    Opening,
    /// Points of one record.
    Points(Answer),
    /// So many records, of any site, went before they could be told.
    Missed(u64),
    /// Where it stands now.
    Reached,
    /// Nothing, said so that nobody on the way takes the connection for dead.
    Heartbeat,
}

/// How followers hear it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As a stream of server-sent events.
    ServerSent,
    /// As texts, each a JSON object; the socket has its own heartbeat.
    Messages,
}

impl Form {
    /// An event, with the cursor that it may be followed from; nothing where this form needs no words for it.
    pub fn write(self, event: Event, at: Cursor) -> Option<Vec<u8>> {
        match self {
            Self::ServerSent => server_sent(event, at),
            Self::Messages => message(event, at),
        }
    }
}

fn server_sent(event: Event, at: Cursor) -> Option<Vec<u8>> {
    Some(match event {
        Event::Opening => format!("retry: {RETRY_MS}\nid: {at}\n\n").into_bytes(),
        Event::Points(answer) => in_lines(&answer.end()),
        Event::Missed(records) => format!("event: missed\ndata: {{\"records\":{records}}}\n\n").into_bytes(),
        // An event without data is no event to a browser, but its id is kept.
        Event::Reached => format!("id: {at}\n\n").into_bytes(),
        Event::Heartbeat => b":\n\n".to_vec(),
    })
}

/// JSON has line feeds between its parts alone, and each line of an event says what it is.
fn in_lines(json: &[u8]) -> Vec<u8> {
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

fn message(event: Event, at: Cursor) -> Option<Vec<u8>> {
    let head = |name: &str| format!("{{\"event\":\"{name}\",\"cursor\":\"{at}\"");
    Some(match event {
        Event::Opening | Event::Reached => format!("{}}}", head("reached")).into_bytes(),
        Event::Missed(records) => format!("{},\"records\":{records}}}", head("missed")).into_bytes(),
        Event::Points(answer) => {
            let (mut out, json) = (head("points").into_bytes(), answer.end());
            // The members of an object that has some go on those of this one.
            out.push(b',');
            out.extend_from_slice(json.strip_prefix(b"{").unwrap_or(&json));
            out
        }
        Event::Heartbeat => return None,
    })
}

/// Tells the points of a record that belong to series that are meant, in answers of about `bytes_max` each, and how many they are.
/// `send` is told with each whether it is the record's last. A record without points says nothing.
///
/// # Errors
/// The body is not what it should be; or, as the inner error, what `send` says.
pub(super) fn points<E>(
    record: &Record,
    meant: &Selectors,
    bytes_max: usize,
    mut send: impl FnMut(Answer, bool) -> Result<(), E>,
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
            // What is full waits for more to come, so that the last one is known.
            if answer.bytes.len() >= bytes_max
                && unsent
                && let Err(error) = send(std::mem::replace(&mut answer, begin()), false)
            {
                return Ok(Err(error));
            }
            let some = points.by_ref().take(COLUMN_POINTS_MAX).inspect(|_| told += 1);
            // Nothing is handed on before an event is complete.
            let Ok(()) = answer.series(&series, some, usize::MAX, |_| Ok::<_, std::convert::Infallible>(()));
            unsent = true;
        }
    }
    if unsent && let Err(error) = send(answer, true) {
        return Ok(Err(error));
    }
    Ok(Ok(told))
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
        let (mut text, mut lasts) = (Vec::new(), Vec::new());
        let send = |answer: Answer, last: bool| {
            text.extend(Form::ServerSent.write(Event::Points(answer), at(1)).unwrap());
            lasts.push(last);
            Ok::<_, ()>(())
        };
        let meant = Selectors::parse(meant).unwrap();
        let points = points(record, &meant, bytes_max, send).unwrap().unwrap();
        let (events, _) = read(std::str::from_utf8(&text).unwrap());
        let documents: Vec<Json> = events
            .into_iter()
            .map(|(name, data)| {
                assert_eq!(name, "points");
                serde_json::from_str(&data).unwrap()
            })
            .collect();
        let last = |number: usize| number + 1 == documents.len();
        assert!(lasts.iter().enumerate().all(|(number, is_last)| *is_last == last(number)), "{lasts:?}");
        (documents, points)
    }

    fn at(position: u64) -> Cursor {
        let place = Place { position: Position(position), mark: Mark::of(&ChainHash([0xab; 16])) };
        Cursor { node: NodeId([1; 16]), place }
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
        let said = [(Event::Opening, 9), (Event::Missed(12), 9), (Event::Heartbeat, 9), (Event::Reached, 10)];
        let text = said.map(|(event, position)| Form::ServerSent.write(event, at(position)).unwrap());
        let (events, id) = read(std::str::from_utf8(&text.concat()).unwrap());
        assert_eq!(events, [("missed".to_owned(), r#"{"records":12}"#.to_owned())]);
        assert_eq!(id.unwrap(), format!("{}.10.abababababababab", NodeId([1; 16])));
    }

    #[test]
    fn a_message_is_one_json_object_with_its_name_and_its_cursor() {
        let cursor = at(9).to_string();
        let mut answer = Answer::begin(AnswerForm::Json, &"plant".parse().unwrap());
        let series = Series::new("t", [("room", "a\n\"b\"")]).unwrap();
        let Ok(()) = answer.series(&series, [(1, Value::F64(21.5))].into_iter(), usize::MAX, |_| {
            Ok::<_, std::convert::Infallible>(())
        });
        let series = json!([{"metric": "t", "labels": {"room": "a\n\"b\""}, "points": [[1, 21.5]]}]);
        let cases = [
            (Event::Opening, json!({"event": "reached", "cursor": cursor})),
            (Event::Reached, json!({"event": "reached", "cursor": cursor})),
            (Event::Missed(12), json!({"event": "missed", "cursor": cursor, "records": 12})),
            (
                Event::Points(answer),
                json!({"event": "points", "cursor": cursor, "site": "plant", "series": series}),
            ),
        ];
        for (event, expected) in cases {
            let text = Form::Messages.write(event, at(9)).unwrap();
            assert_eq!(serde_json::from_slice::<Json>(&text).unwrap(), expected);
        }
        assert_eq!(Form::Messages.write(Event::Heartbeat, at(9)), None);
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
