//! Followers of the log on a WebSocket: they hear what the others hear, each thing with its cursor, and are told why it ends.

use std::io::Read;

use serde_json::{Value, json};
use tidelog_node::door::Scope;

use crate::common::Running;
use crate::common::door::{bearer, make_token, raw, revoke_token};
use crate::common::socket::Socket;
use crate::tail::{sorted, times, with_rot_between};
use crate::{points, until};

const TAIL: &str = "/api/v1/tail";

fn follow(running: &Running, query: &str) -> Socket {
    let mut socket = Socket::open(&running.url, &format!("{TAIL}?{query}"), &[]);
    assert_eq!(socket.next().unwrap()["event"], "reached", "where it begins");
    socket
}

/// The times of the next points until there are so many, and the last cursor.
fn hear(socket: &mut Socket, count: usize) -> (Vec<i64>, String) {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    while all.len() < count {
        let event = socket.next().unwrap();
        cursor = event["cursor"].as_str().unwrap().to_owned();
        match event["event"].as_str().unwrap() {
            "points" => all.extend(times(&event)),
            other => assert_eq!(other, "reached", "{event}"),
        }
    }
    (all, cursor)
}

#[test]
fn a_follower_on_a_socket_hears_what_is_written_of_the_series_and_sites_it_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    assert_eq!(running.post_json("lab", &points(0..5)).status, 200);
    let mut all = follow(&running, "");
    let mut one = follow(&running, "match=temp%7Bdevice%3D%222%22%7D&site=lab");
    assert_eq!(running.metric("tidelog_tails"), 2.0);
    assert_eq!(running.post_json("house", &points(100..103)).status, 200);
    assert_eq!(running.post_json("lab", &points(5..12)).status, 200);
    assert_eq!(sorted(hear(&mut all, 10).0), [5, 6, 7, 8, 9, 10, 11, 100, 101, 102]);
    let event = until(|| one.next().ok().filter(|event| event["event"] == "points"));
    let series =
        json!([{"metric": "temp", "labels": {"device": "2"}, "points": [[5, 2.5], [8, 4.0], [11, 5.5]]}]);
    assert_eq!((&event["site"], &event["series"]), (&json!("lab"), &series));
    running.stop();
    assert_eq!((all.closed(), one.closed()), (Some(1001), Some(1001)), "the node ends");
}

/// Each cursor is tried, as if the connection had broken behind it.
#[test]
fn whoever_goes_on_behind_any_cursor_misses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    for part in 0..6 {
        // Records of several messages among short ones.
        let count = if part % 3 == 1 { 9_000 } else { 5 };
        assert_eq!(running.post_json("lab", &points(part * 10_000..part * 10_000 + count)).status, 200);
    }
    let tell = |query: &str| -> Vec<Value> {
        let mut socket = follow(&running, &format!("follow=false&{query}"));
        let mut events = Vec::new();
        loop {
            match socket.next() {
                Ok(event) => events.push(event),
                Err(code) => {
                    assert_eq!(code, Some(1000), "everything was told");
                    return events;
                }
            }
        }
    };
    let all_times = |events: &[Value]| -> Vec<i64> {
        events.iter().filter(|event| event["event"] == "points").flat_map(times).collect()
    };
    let all = tell("after=start");
    let whole = sorted(all_times(&all));
    assert_eq!(whole.len(), 18_020);
    assert!(all.iter().any(|event| event["event"] == "points"));
    for (heard, event) in all.iter().enumerate() {
        let rest = tell(&format!("after={}", event["cursor"].as_str().unwrap()));
        let mut together = sorted([all_times(&all[..=heard]), all_times(&rest)].concat());
        together.dedup();
        assert_eq!(together, whole, "behind event {heard}");
    }
    let last = all.last().unwrap()["cursor"].as_str().unwrap().to_owned();
    assert_eq!(all_times(&tell(&format!("after={last}"))), [0; 0], "nothing is told twice without need");
    running.stop();
}

#[test]
fn what_is_gone_before_it_was_told_is_told_as_missed_on_a_socket_too() {
    let dir = tempfile::tempdir().unwrap();
    let running = with_rot_between(dir.path());
    let mut socket = follow(&running, "after=start&follow=false");
    assert_eq!(hear(&mut socket, 1).0, [1]);
    let missed = until(|| socket.next().ok().filter(|event| event["event"] != "reached"));
    assert_eq!((&missed["event"], &missed["records"]), (&json!("missed"), &json!(1)));
    assert_eq!(hear(&mut socket, 1).0, [3]);
    let mut again = follow(&running, &format!("after={}&follow=false", missed["cursor"].as_str().unwrap()));
    let event = until(|| again.next().ok().filter(|event| event["event"] != "reached"));
    assert_eq!(event["event"], "missed", "whoever breaks off there is told again");
    running.stop();
}

#[test]
fn a_socket_that_reads_slowly_gets_everything_while_others_write() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    let mut slow = follow(&running, "");
    for part in 0..8 {
        assert_eq!(running.post_json("lab", &points(part * 10_000..(part + 1) * 10_000)).status, 200);
    }
    assert_eq!(sorted(hear(&mut slow, 80_000).0), (0..80_000).collect::<Vec<_>>());
    running.stop();
}

#[test]
fn a_socket_has_the_door_of_the_other_form_and_ends_when_its_token_does() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    let (writer, reader) =
        (make_token(dir.path(), &[Scope::Write], &[]), make_token(dir.path(), &[Scope::Read], &["lab"]));
    let open = |token: Option<&str>, query: &str| {
        let heads: Vec<_> = token.map(|token| ("authorization", token)).into_iter().collect();
        Socket::try_open(&running.url, &format!("{TAIL}?{query}"), &heads)
    };
    let head = |token: &tidelog_node::door::Token| format!("Bearer {}", token.reveal());
    let (may, may_not) = (head(&reader), head(&writer));
    for (token, query, status) in [
        (None, "", 401),
        (Some(&may_not), "", 403),
        (Some(&may), "site=house", 403),
        (Some(&may), "site=X", 400),
    ] {
        let refused = open(token.map(String::as_str), query).err().map(|(status, _)| status);
        assert_eq!(refused, Some(status), "{token:?} {query}");
    }
    let mut socket = open(Some(&may), "").unwrap();
    let write = |site: &str, time: i64| {
        let body = points(time..time + 1).to_string();
        let heads = [bearer(&writer), "Content-Type: application/json".to_owned()];
        let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
        let target = format!("/api/v1/sites/{site}/points");
        assert_eq!(raw(&running.url, "POST", &target, &heads, &body).status, 200);
    };
    write("house", 1);
    write("lab", 2);
    assert_eq!(hear(&mut socket, 1).0, [2], "of its own sites alone");
    revoke_token(dir.path(), &reader);
    write("lab", 3);
    let told = until(|| match socket.next() {
        Ok(event) => {
            assert_eq!(event["event"], "reached", "{event}");
            None
        }
        Err(code) => Some(code),
    });
    assert_eq!(told, Some(1008));
    running.stop();
}

#[test]
fn what_is_no_follower_is_refused_or_sent_away_and_its_place_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    let from_elsewhere = Socket::try_open(&running.url, TAIL, &[("origin", "http://evil.example")]);
    assert_eq!(from_elsewhere.err().map(|(status, _)| status), Some(403));
    let heads = ["Upgrade: websocket", "Connection: upgrade", "Sec-WebSocket-Version: 12"];
    assert_eq!(raw(&running.url, "GET", TAIL, &heads, "").status, 426);
    let own = Socket::open(&running.url, TAIL, &[("origin", &running.url)]);
    drop(own);
    let mut talker = follow(&running, "");
    talker.say("hello");
    assert_eq!(talker.closed(), Some(1008));
    let mut shouter = follow(&running, "");
    shouter.say("x".repeat(5_000));
    assert_eq!(shouter.closed(), Some(1009));
    until(|| (running.metric("tidelog_tails") == 0.0).then_some(()));
    for (reason, count) in [("unwanted", 1.0), ("too_long", 1.0), ("client_left", 1.0)] {
        let name = format!("tidelog_sockets_ended_total{{reason=\"{reason}\"}}");
        until(|| (running.metric(&name) == count).then_some(()));
    }
    running.stop();
}

#[test]
fn a_follower_is_pinged_and_one_that_is_slow_to_answer_stays() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &["--http-stall-s-max", "1"]);
    let mut slow = follow(&running, "");
    let mut pings = [0; 8];
    slow.0.get_mut().read_exact(&mut pings).unwrap();
    assert_eq!(pings, [0x89, 0, 0x89, 0, 0x89, 0, 0x89, 0], "empty pings, none answered");
    assert_eq!(running.post_json("lab", &points(0..1)).status, 200);
    assert_eq!(hear(&mut slow, 1).0, [0]);
    running.stop();
}
