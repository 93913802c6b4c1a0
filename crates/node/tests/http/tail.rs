//! Followers of the log: told what becomes durable, once, in order, from where they say; held to their token while they listen.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::{Value, json};
use tidelog_node::door::Scope;

use crate::common::Running;
use crate::common::door::{bearer, make_token, raw, revoke_token};
use crate::{points, until};

/// Longest wait for something that must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// An event as a browser's `EventSource` would see it.
#[derive(Clone, Debug, PartialEq)]
struct Event {
    name: String,
    data: Value,
}

/// A client that listens.
struct Follower {
    events: Receiver<Event>,
    ids: Receiver<String>,
}

impl Follower {
    fn begin(running: &Running, query: &str, heads: &[(&str, &str)]) -> Self {
        Self::try_begin(running, query, heads).unwrap()
    }

    /// Fails with the status of a refusal.
    fn try_begin(running: &Running, query: &str, heads: &[(&str, &str)]) -> Result<Self, u16> {
        let config = ureq::Agent::config_builder().http_status_as_error(false).build();
        let mut request = config.new_agent().get(format!("{}/api/v1/tail?{query}", running.url));
        for (name, value) in heads {
            request = request.header(*name, *value);
        }
        let response = request.call().unwrap();
        if response.status() != 200 {
            return Err(response.status().as_u16());
        }
        assert_eq!(response.headers().get("content-type").unwrap(), "text/event-stream");
        let (tell, events) = channel();
        let (mark, ids) = channel();
        std::thread::spawn(move || {
            let (mut name, mut data) = (String::new(), String::new());
            for line in BufReader::new(response.into_body().into_reader()).lines() {
                let Ok(line) = line else { return };
                match line.split_once(": ") {
                    Some(("event", value)) => name = value.to_owned(),
                    Some(("data", value)) => data.push_str(value),
                    Some(("id", value)) if mark.send(value.to_owned()).is_err() => return,
                    _ if line.is_empty() && !data.is_empty() => {
                        let event = Event { name: name.clone(), data: serde_json::from_str(&data).unwrap() };
                        data.clear();
                        if tell.send(event).is_err() {
                            return;
                        }
                    }
                    _ => {}
                }
            }
        });
        Ok(Self { events, ids })
    }

    fn next(&self) -> Event {
        self.events.recv_timeout(PATIENCE).unwrap()
    }

    /// `(metric, time)` of the next points until there are so many.
    fn times(&self, count: usize) -> Vec<i64> {
        let mut all = Vec::new();
        while all.len() < count {
            let event = self.next();
            assert_eq!(event.name, "points", "{event:?}");
            all.extend(times(&event.data));
        }
        all
    }

    /// The last id, once the answer has ended.
    fn last_id(self) -> String {
        let mut last = None;
        loop {
            match self.ids.recv_timeout(PATIENCE) {
                Ok(id) => last = Some(id),
                Err(RecvTimeoutError::Disconnected) => return last.unwrap(),
                Err(RecvTimeoutError::Timeout) => panic!("the answer does not end"),
            }
        }
    }
}

pub fn times(data: &Value) -> Vec<i64> {
    let series = data["series"].as_array().unwrap().iter();
    series.flat_map(|series| series["points"].as_array().unwrap()).map(|p| p[0].as_i64().unwrap()).collect()
}

pub fn sorted(mut times: Vec<i64>) -> Vec<i64> {
    times.sort_unstable();
    times
}

#[test]
fn a_follower_hears_what_is_written_from_now_on_of_the_series_and_sites_it_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    assert_eq!(running.post_json("lab", &points(0..5)).status, 200);
    let all = Follower::begin(&running, "", &[]);
    let one = Follower::begin(&running, "match=temp%7Bdevice%3D%222%22%7D&site=lab&site=yard", &[]);
    assert_eq!(running.post_json("house", &points(100..103)).status, 200);
    assert_eq!(running.post_json("lab", &points(5..12)).status, 200);
    assert_eq!(sorted(all.times(10)), [5, 6, 7, 8, 9, 10, 11, 100, 101, 102]);
    let event = one.next();
    let series =
        json!({"metric": "temp", "labels": {"device": "2"}, "points": [[5, 2.5], [8, 4.0], [11, 5.5]]});
    assert_eq!(event.data, json!({"site": "lab", "series": [series]}));
    assert_eq!(running.metric("tidelog_tails"), 2.0);
    running.stop();
}

#[test]
fn a_follower_that_comes_again_goes_on_behind_the_last_id_that_it_got_even_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    for part in 0..40 {
        assert_eq!(running.post_json("lab", &points(part * 10..(part + 1) * 10)).status, 200);
    }
    let first = Follower::begin(&running, "after=start&follow=false", &[]);
    assert_eq!(sorted(first.times(400)), (0..400).collect::<Vec<_>>());
    let id = first.last_id();
    running.stop();

    let running = Running::start(dir.path(), &[]);
    assert_eq!(running.post_json("lab", &points(400..410)).status, 200);
    for (query, heads) in
        [(format!("after={id}"), vec![]), ("after=start".to_owned(), vec![("Last-Event-ID", id.as_str())])]
    {
        let again = Follower::begin(&running, &query, &heads);
        assert_eq!(sorted(again.times(10)), (400..410).collect::<Vec<_>>(), "{query}");
    }
    let nothing = Follower::begin(&running, &format!("after={id}&follow=false&match=other"), &[]);
    assert_ne!(nothing.last_id(), id, "what is not meant is passed over, and so the next time");
    running.stop();
}

#[test]
fn a_follower_that_reads_slowly_gets_everything_while_others_write() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    let slow = Follower::begin(&running, "", &[]);
    for part in 0..20 {
        assert_eq!(running.post_json("lab", &points(part * 10_000..(part + 1) * 10_000)).status, 200);
    }
    assert_eq!(sorted(slow.times(200_000)), (0..200_000).collect::<Vec<_>>());
    running.stop();
}

/// A node with records of the times 1 and 3, and one of the time 2 between them that rotted while it was stopped.
pub fn with_rot_between(dir: &Path) -> Running {
    let post = |running: &Running, time: i64| {
        let point = json!({"points": [{"metric": "of_some_length", "timestamp_ns": time, "value": 1.5}]});
        assert_eq!(running.post_json("lab", &point).status, 200);
    };
    let running = Running::start(dir, &[]);
    post(&running, 1);
    post(&running, 2);
    running.stop();
    let (path, length) = newest_log(dir).unwrap();
    // What a node writes after its start is told from nothing before.
    let running = Running::start(dir, &[]);
    post(&running, 3);
    running.stop();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[length - 1] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    Running::start(dir, &[])
}

/// The log file that is written, and its length.
fn newest_log(folder: &Path) -> Option<(PathBuf, usize)> {
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().rev().find_map(|path| {
        if path.is_dir() {
            return newest_log(&path);
        }
        let length = std::fs::metadata(&path).unwrap().len();
        path.extension().is_some_and(|found| found == "log").then(|| (path, usize::try_from(length).unwrap()))
    })
}

#[test]
fn what_is_gone_before_it_was_told_is_told_as_missed_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let running = with_rot_between(dir.path());
    let follower = Follower::begin(&running, "after=start&follow=false", &[]);
    assert_eq!(follower.times(1), [1]);
    assert_eq!(follower.next(), Event { name: "missed".to_owned(), data: json!({"records": 1}) });
    assert_eq!(follower.times(1), [3]);
    assert_eq!(running.metric("tidelog_tail_missed_records_total"), 1.0);
    running.stop();
}

#[test]
fn a_follower_whose_token_is_revoked_hears_nothing_that_comes_after() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    let (writer, reader) =
        (make_token(dir.path(), &[Scope::Write], &[]), make_token(dir.path(), &[Scope::Read], &["lab"]));
    let write = |site: &str, time: i64| {
        let body = points(time..time + 1).to_string();
        let heads = [bearer(&writer), "Content-Type: application/json".to_owned()];
        let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
        assert_eq!(
            raw(&running.url, "POST", &format!("/api/v1/sites/{site}/points"), &heads, &body).status,
            200
        );
    };
    let bearer = format!("Bearer {}", reader.reveal());
    let follower = Follower::begin(&running, "", &[("Authorization", &bearer)]);
    write("house", 1);
    write("lab", 2);
    assert_eq!(follower.times(1), [2], "of its own sites alone");
    revoke_token(dir.path(), &reader);
    write("lab", 3);
    assert_eq!(follower.events.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
    running.stop();
}

#[test]
fn a_cursor_from_elsewhere_and_a_question_that_makes_no_sense_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    assert_eq!(running.post_json("lab", &points(0..1)).status, 200);
    let id = Follower::begin(&running, "follow=false", &[]).last_id();
    let [node, position, mark] = id.split('.').collect::<Vec<_>>()[..] else { panic!("{id}") };
    let zeros = |text: &str| "0".repeat(text.len());
    assert!(mark != zeros(mark) && mark != "0123456789abcdef");
    let cases = [
        (format!("after={}.{position}.{mark}", zeros(node)), 409, "cursor_unknown"),
        (format!("after={node}.{position}.0123456789abcdef"), 409, "cursor_unknown"),
        (format!("after={node}.99.{mark}"), 409, "cursor_unknown"),
        (format!("after={node}.{position}"), 400, "bad_parameter"),
        ("after=yesterday".to_owned(), 400, "bad_parameter"),
        ("after=start&after=start".to_owned(), 400, "bad_parameter"),
        ("follow=maybe".to_owned(), 400, "bad_parameter"),
        ("match=%7B".to_owned(), 400, "bad_parameter"),
        ("site=UPPER".to_owned(), 400, "bad_site"),
        ("since=1".to_owned(), 400, "bad_parameter"),
    ];
    for (query, status, code) in cases {
        let answer = running.get(&format!("/api/v1/tail?{query}"));
        assert_eq!((answer.status, answer.error_code().as_str()), (status, code), "{query}: {}", answer.text);
    }
    running.stop();
}

#[test]
fn a_cursor_from_before_a_store_was_put_back_from_a_copy_is_refused_though_its_position_is_taken_again() {
    let dir = tempfile::tempdir().unwrap();
    let (store, copy) = (dir.path().join("node"), dir.path().join("copy"));
    let running = Running::start(&store, &[]);
    assert_eq!(running.post_json("lab", &points(0..1)).status, 200);
    running.stop();
    copy_folder(&store, &copy);
    let id_after = |folder: &Path, times: std::ops::Range<i64>| {
        let running = Running::start(folder, &[]);
        assert_eq!(running.post_json("lab", &points(times)).status, 200);
        let id = Follower::begin(&running, "follow=false", &[]).last_id();
        running.stop();
        id
    };
    let id = id_after(&store, 1..2);
    let again = id_after(&copy, 5..6);
    assert_eq!(id.split('.').nth(1), again.split('.').nth(1), "the position is taken again");
    let running = Running::start(&copy, &[]);
    let answer = running.get(&format!("/api/v1/tail?follow=false&after={id}"));
    assert_eq!((answer.status, answer.error_code().as_str()), (409, "cursor_unknown"), "{}", answer.text);
    assert_eq!(running.get(&format!("/api/v1/tail?follow=false&after={again}")).status, 200);
    running.stop();
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn followers_are_bounded_and_a_place_is_free_again_when_one_goes() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    let mut followers: Vec<Follower> = Vec::new();
    let refused = loop {
        match Follower::try_begin(&running, "", &[]) {
            Ok(follower) => followers.push(follower),
            Err(status) => break status,
        }
    };
    assert_eq!((refused, followers.len()), (429, 32));
    drop(followers.pop());
    let another = until(|| {
        // It notices that nobody listens when it has something to say.
        assert_eq!(running.post_json("lab", &points(0..1)).status, 200);
        Follower::try_begin(&running, "", &[]).ok()
    });
    followers.push(another);
    running.stop();
    for follower in followers {
        follower.last_id();
    }
}
