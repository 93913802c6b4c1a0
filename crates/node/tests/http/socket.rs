//! Devices that keep a connection: each batch is answered once it is durable, or with why it is not, and a connection that breaks
//! loses and doubles nothing.

use std::io::{Read, Write};

use serde_json::{Value, json};
use tidelog_node::door::Scope;
use tokio_tungstenite::tungstenite::Message;

use crate::common::Running;
use crate::common::door::{make_token, raw, revoke_token};
use crate::common::socket::Socket;
use crate::{points, until};

const SOCKET: &str = "/api/v1/sites/lab/socket";

fn batch(number: u64, body: &Value) -> String {
    format!("{number}\n{body}")
}

/// `(metric, time)` of all that the site holds.
fn held(running: &Running, query: &str) -> Vec<(String, i64)> {
    let text = running.get(&format!("/api/v1/sites/lab/points?format=ndjson{query}")).text;
    let points = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    points
        .map(|point| (point["metric"].as_str().unwrap().to_owned(), point["timestamp_ns"].as_i64().unwrap()))
        .collect()
}

fn times(running: &Running) -> Vec<i64> {
    let mut times: Vec<i64> = held(running, "").into_iter().map(|(_, time)| time).collect();
    times.sort_unstable();
    times
}

#[test]
fn batches_in_every_form_are_answered_in_order_when_they_are_durable() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    let mut json = Socket::open(&running.url, SOCKET, &[]);
    let mut lines = Socket::open(&running.url, &format!("{SOCKET}?form=line&precision=ms"), &[]);
    assert_eq!(running.metric("tidelog_sockets"), 2.0);
    json.say(batch(1, &points(0..10)));
    let packed = rmp_serde::to_vec_named(&points(10..1_000)).unwrap();
    json.say(Message::binary([b"7\n".as_slice(), &packed].concat()));
    json.say(batch(7, &points(1_000..1_005)));
    lines.say("3\nload,host=a value=1,idle=2 5\nload,host=b value=3 6\n");
    lines.say("0\n");
    let answers: Vec<Value> = (0..3).map(|_| json.next().unwrap()).collect();
    assert_eq!(
        answers,
        [
            json!({"batch": 1, "points": 10}),
            json!({"batch": 7, "points": 990}),
            json!({"batch": 7, "points": 5})
        ]
    );
    assert_eq!(lines.next(), Ok(json!({"batch": 3, "points": 3})));
    assert_eq!(lines.next(), Ok(json!({"batch": 0, "points": 0})));
    running.stop();
    assert_eq!((json.closed(), lines.closed()), (Some(1001), Some(1001)), "the node ends");

    let running = Running::start(dir.path(), &[]);
    assert_eq!(held(&running, "&match=temp").len(), 1_005);
    let loads = held(&running, "&match=load_idle&match=load");
    assert_eq!(
        loads,
        [("load".into(), 5_000_000), ("load".into(), 6_000_000), ("load_idle".into(), 5_000_000)]
    );
    running.stop();
}

#[test]
fn a_refusal_names_its_batch_and_the_reason_and_the_connection_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    let mut socket = Socket::open(&running.url, SOCKET, &[]);
    socket.say("1\n{\"points\":");
    socket.say(batch(
        2,
        &json!({"points": [points(0..1)["points"][0], {"metric": "te mp", "timestamp_ns": 1, "value": 1}]}),
    ));
    socket.say(Message::binary(b"3\n\xdf\xff\xff\xff\xff".to_vec()));
    socket.say(batch(4, &points(5..6)));
    let refused = |answer: Value| {
        (answer["batch"].clone(), answer["error"]["code"].clone(), answer["error"]["index"].clone())
    };
    assert_eq!(refused(socket.next().unwrap()), (json!(1), json!("bad_body"), Value::Null));
    assert_eq!(refused(socket.next().unwrap()), (json!(2), json!("bad_point"), json!(1)));
    assert_eq!(refused(socket.next().unwrap()), (json!(3), json!("bad_body"), Value::Null));
    assert_eq!(socket.next(), Ok(json!({"batch": 4, "points": 1})));
    let mut lines = Socket::open(&running.url, &format!("{SOCKET}?form=line"), &[]);
    lines.say("9\ngood value=1 7\nbad\nfine value=2 8");
    let answer = lines.next().unwrap();
    assert_eq!((&answer["batch"], &answer["error"]["code"]), (&json!(9), &json!("bad_line")));
    assert!(answer["error"]["message"].as_str().unwrap().contains("line 2"), "{answer}");
    assert_eq!(times(&running), [5, 7, 8], "good lines are stored, as where they are posted");
    for (reason, count) in [("bad_body", 2.0), ("bad_point", 1.0), ("bad_line", 1.0)] {
        let name = format!("tidelog_ingest_refused_total{{reason=\"{reason}\",via=\"socket\"}}");
        assert_eq!(running.metric(&name), count, "{reason}");
    }
    assert_eq!(running.metric("tidelog_ingest_points_total{via=\"socket\"}"), 1.0);
    running.stop();
}

#[test]
fn batches_that_come_together_cost_the_log_one_record_and_each_is_answered_for_itself() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    let records = || running.metric("tidelog_log_head_records");
    let together = |target: &str, messages: Vec<Message>| {
        let (mut socket, before) = (Socket::open(&running.url, target, &[]), records());
        let count = messages.len();
        messages.into_iter().for_each(|message| socket.0.write(message).unwrap());
        socket.0.flush().unwrap();
        let answers: Vec<Value> = (0..count).map(|_| socket.next().unwrap()).collect();
        let short = |answer: &Value| {
            let outcome = if answer["error"].is_null() { "points" } else { "error" };
            let told = if outcome == "error" { &answer["error"]["code"] } else { &answer["points"] };
            (answer["batch"].as_u64().unwrap(), told.clone())
        };
        (answers.iter().map(short).collect::<Vec<_>>(), records() - before)
    };
    let json = |number: u64, times: std::ops::Range<i64>| Message::text(batch(number, &points(times)));
    let packed = |number: u64, times| {
        let body = rmp_serde::to_vec_named(&points(times)).unwrap();
        Message::binary([format!("{number}\n").into_bytes(), body].concat())
    };
    // The life's first record stands before the first of these.
    together(SOCKET, vec![json(0, 0..1)]);

    let ten = (1..=10).map(|number| json(number, i64::try_from(number).unwrap()..11)).collect();
    let (answers, records) = together(SOCKET, ten);
    assert_eq!(answers, (1..=10).map(|number| (number, json!(11 - number))).collect::<Vec<_>>());
    assert_eq!(records, 1.0);
    let (answers, records) = together(SOCKET, vec![json(1, 11..12), packed(2, 12..14), json(3, 14..15)]);
    assert_eq!(answers, [(1, json!(1)), (2, json!(2)), (3, json!(1))]);
    assert_eq!(records, 3.0, "each form for itself");
    let (answers, records) = together(SOCKET, vec![json(1, 15..16), json(2, 16..200), json(3, 200..201)]);
    assert_eq!(answers, [(1, json!(1)), (2, json!(184)), (3, json!(1))]);
    assert_eq!(records, 3.0, "a long one for itself");
    let (answers, records) =
        together(SOCKET, vec![json(1, 201..202), Message::text("2\n{"), json(3, 202..203)]);
    assert_eq!(answers, [(1, json!(1)), (2, json!("bad_body")), (3, json!(1))]);
    assert_eq!(records, 1.0);
    let command = json!({"points": [{"metric": "tidelog_command", "timestamp_ns": 1, "value": "x"}]});
    let (answers, records) =
        together(SOCKET, vec![json(1, 203..204), Message::text(batch(2, &command)), json(3, 204..205)]);
    assert_eq!(answers, [(1, json!(1)), (2, json!("bad_point")), (3, json!(1))]);
    assert_eq!(records, 2.0, "one that may not be stored keeps none of the others out");
    assert_eq!(times(&running), (0..205).collect::<Vec<_>>());

    let lines =
        ["1\nload value=1 1", "2\nload value=1 2\nbad", "3\n", "4\nload value=1 4\nload,host=a value=2 4"];
    let (answers, records) =
        together(&format!("{SOCKET}?form=line"), lines.into_iter().map(Message::text).collect());
    assert_eq!(answers, [(1, json!(1)), (2, json!("bad_line")), (3, json!(0)), (4, json!(2))]);
    assert_eq!(records, 1.0);
    let rows = ["1\nlevel,time\n1.5,1", "2\nlevel,time\n2.5,2", "3\nlevel,time\nx,3"];
    let (answers, records) =
        together(&format!("{SOCKET}?form=csv&precision=s"), rows.into_iter().map(Message::text).collect());
    assert_eq!(answers, [(1, json!(1)), (2, json!(1)), (3, json!("bad_line"))]);
    assert_eq!(records, 1.0);
    assert_eq!(held(&running, "&match=load").len(), 4);
    assert_eq!(held(&running, "&match=level").len(), 2);
    let stored = running.metric("tidelog_ingest_points_total{via=\"socket\"}");
    assert_eq!(stored, 205.0 + 55.0 - 10.0 + 3.0 + 2.0);
    running.stop();
}

#[test]
fn what_names_no_batch_or_is_too_long_ends_the_connection_behind_the_answers_to_what_came_before() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    let bad = [(Message::text("{\"points\":[]}"), 1008), (Message::binary(vec![b'7'; 200_000]), 1009)];
    for (at, (message, code)) in bad.into_iter().enumerate() {
        let mut socket = Socket::open(&running.url, SOCKET, &[]);
        let time = i64::try_from(at).unwrap();
        socket.say(batch(5, &points(time..time + 1)));
        socket.say(message);
        assert_eq!(socket.next(), Ok(json!({"batch": 5, "points": 1})));
        assert_eq!(socket.closed(), Some(code));
    }
    assert_eq!(times(&running), [0, 1]);
    until(|| (running.metric("tidelog_sockets") == 0.0).then_some(()));
    running.stop();
}

#[test]
fn hundreds_of_devices_each_get_all_their_answers() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    let mut devices: Vec<Socket> = (0..300).map(|_| Socket::open(&running.url, SOCKET, &[])).collect();
    for round in 0..4 {
        for (device, socket) in (0i64..).zip(&mut devices) {
            let time = round * 1_000_000 + device * 100;
            socket.say(batch(u64::try_from(round).unwrap(), &points(time..time + 5)));
        }
    }
    for socket in &mut devices {
        let answers: Vec<Value> = (0..4).map(|_| socket.next().unwrap()).collect();
        let expected: Vec<Value> = (0..4).map(|round| json!({"batch": round, "points": 5})).collect();
        assert_eq!(answers, expected);
    }
    assert_eq!(times(&running).len(), 300 * 4 * 5);
    running.stop();
}

#[test]
fn a_device_that_does_not_wait_for_its_answers_is_held_back_and_loses_none() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    let mut socket = Socket::open(&running.url, SOCKET, &[]);
    for number in 0..200u64 {
        let time = i64::try_from(number * 1_000).unwrap();
        socket.say(batch(number, &points(time..time + 100)));
    }
    for number in 0..200u64 {
        assert_eq!(socket.next(), Ok(json!({"batch": number, "points": 100})));
    }
    assert_eq!(times(&running).len(), 20_000);
    running.stop();
}

#[test]
fn a_connection_that_is_cut_in_the_middle_loses_and_doubles_nothing_when_its_batches_are_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    let send = |cut: Option<usize>| {
        let mut socket = Socket::open(&running.url, SOCKET, &[]);
        for number in 0..3 {
            socket.say(batch(
                number,
                &points(i64::try_from(number).unwrap() * 10..i64::try_from(number).unwrap() * 10 + 10),
            ));
        }
        match cut {
            // A frame of 100 bytes of which some come.
            Some(bytes) => {
                let frame = [&[0x81, 0x80 | 100, 0, 0, 0, 0], b"3\n{\"points\":[".as_slice()].concat();
                socket.0.get_mut().write_all(&frame[..bytes]).unwrap();
            }
            None => {
                socket.say(batch(3, &points(30..40)));
                for number in 0..4 {
                    assert_eq!(socket.next(), Ok(json!({"batch": number, "points": 10})));
                }
            }
        }
    };
    for bytes in [0, 1, 5, 12, 19] {
        send(Some(bytes));
    }
    send(None);
    assert_eq!(times(&running), (0..40).collect::<Vec<_>>());
    until(|| (running.metric("tidelog_sockets") == 0.0).then_some(()));
    running.stop();
}

#[test]
fn what_was_answered_before_the_node_ended_is_there_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    let url = running.url.clone();
    let device = std::thread::spawn(move || {
        let mut socket = Socket::open(&url, SOCKET, &[]);
        let mut answered = 0;
        for number in 0u64.. {
            let time = i64::try_from(number).unwrap();
            if socket.0.send(Message::text(batch(number, &points(time..time + 1)))).is_err() {
                return (answered, socket.closed());
            }
            match socket.next() {
                Ok(answer) => {
                    assert_eq!(answer, json!({"batch": number, "points": 1}));
                    answered += 1;
                }
                Err(code) => return (answered, code),
            }
        }
        unreachable!()
    });
    until(|| (running.metric("tidelog_ingest_points_total{via=\"socket\"}") > 50.0).then_some(()));
    running.stop();
    let (answered, code) = device.join().unwrap();
    assert_eq!(code, Some(1001));
    let running = Running::start(dir.path(), &[]);
    let there = times(&running);
    assert!(there.starts_with(&(0..answered).collect::<Vec<_>>()), "{answered} of {}", there.len());
    running.stop();
}

#[test]
fn devices_are_bounded_and_a_place_is_free_again_when_one_goes() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &["--http-sockets-max", "2"]);
    let mut devices: Vec<Socket> = (0..2).map(|_| Socket::open(&running.url, SOCKET, &[])).collect();
    let (status, _) = Socket::try_open(&running.url, SOCKET, &[]).err().unwrap();
    assert_eq!(status, 503);
    drop(devices.pop());
    devices.push(until(|| Socket::try_open(&running.url, SOCKET, &[]).ok()));
    for socket in &mut devices {
        socket.say(batch(1, &points(0..1)));
        assert!(socket.next().is_ok());
    }
    running.stop();
}

#[test]
fn a_device_that_answers_no_ping_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &["--http-stall-s-max", "1"]);
    let mut silent = Socket::open(&running.url, SOCKET, &[]);
    let mut heard = Vec::new();
    silent.0.get_mut().read_to_end(&mut heard).unwrap();
    // The ping may have come with the answer to the handshake already.
    assert!(heard.is_empty() || heard == [0x89, 0], "a ping, and the end: {heard:?}");
    until(|| (running.metric("tidelog_sockets_ended_total{reason=\"silent\"}") == 1.0).then_some(()));
    assert_eq!(running.metric("tidelog_sockets"), 0.0);
    running.stop();
}

#[test]
fn a_socket_needs_a_token_that_may_write_there_and_ends_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    let heads = ["Connection: close"];
    assert_eq!(raw(&running.url, "GET", SOCKET, &heads, "").status, 426, "it is nothing but a socket");
    let writer = make_token(dir.path(), &[Scope::Write], &["lab"]);
    let reader = make_token(dir.path(), &[Scope::Read], &["lab"]);
    let head = |token: &tidelog_node::door::Token| format!("Bearer {}", token.reveal());
    let open = |site: &str, token: Option<&str>| {
        let heads: Vec<_> = token.map(|token| ("authorization", token)).into_iter().collect();
        Socket::try_open(&running.url, &format!("/api/v1/sites/{site}/socket"), &heads)
    };
    let (may, may_not) = (head(&writer), head(&reader));
    for (site, token, status) in [
        ("lab", None, 401),
        ("lab", Some(&may_not), 403),
        ("house", Some(&may), 403),
        ("LAB", Some(&may), 403),
    ] {
        let refused = open(site, token.map(String::as_str)).err().map(|(status, _)| status);
        assert_eq!(refused, Some(status), "{site} {token:?}");
    }
    let mut busy = open("lab", Some(&may)).unwrap();
    let mut idle = open("lab", Some(&may)).unwrap();
    busy.say(batch(1, &points(0..1)));
    assert_eq!(busy.next(), Ok(json!({"batch": 1, "points": 1})));
    revoke_token(dir.path(), &writer);
    busy.say(batch(2, &points(1..2)));
    assert_eq!((busy.closed(), idle.closed()), (Some(1008), Some(1008)));
    let held = raw(
        &running.url,
        "GET",
        "/api/v1/sites/lab/points?format=csv",
        &[&format!("Authorization: {may_not}")],
        "",
    );
    assert_eq!(held.text.lines().filter(|line| line.starts_with("temp,")).count(), 1, "{}", held.text);
    running.stop();
}
