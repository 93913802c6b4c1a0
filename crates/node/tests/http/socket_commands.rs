//! Commands that go down a socket to their device: begun once at most, never after they expired, and brought again only while they are not
//! known to have begun. Also how durable a batch is to be, and tables, on a socket.

use serde_json::{Value, json};
use tidelog_node::door::Scope;
use tokio_tungstenite::tungstenite::Message;

use crate::ack::{authority, dialling, listening, peering_address, prepare};
use crate::common::Running;
use crate::common::door::make_token;
use crate::common::socket::Socket;
use crate::{points, until};

const DEVICE: &str = "02124b0000000001";
const COMMANDS: &str = "/api/v1/sites/plant/commands";

fn target(site: &str) -> String {
    format!("/api/v1/sites/{site}/socket?device={DEVICE}")
}

fn open(running: &Running) -> Socket {
    Socket::open(&running.url, &target("plant"), &[])
}

/// A node that the device has reported to.
fn node(dir: &std::path::Path) -> Running {
    let running = Running::start(dir, &["--site", "plant"]);
    let point =
        json!({"metric": "temperature", "labels": {"device": DEVICE}, "timestamp_ms": 1, "value": 21.5});
    for site in ["plant", "house"] {
        assert_eq!(running.post_json(site, &json!({"points": [point]})).status, 200);
    }
    running
}

fn issue(running: &Running, act: &Value, expires_s: u32) -> String {
    let body = json!({"device": DEVICE, "act": act, "expires_s": expires_s}).to_string();
    let issued = running.post(COMMANDS, "application/json", body.as_bytes());
    assert_eq!(issued.status, 201, "{}", issued.text);
    issued.json()["id"].as_str().unwrap().to_owned()
}

fn state(running: &Running, id: &str) -> String {
    let told = running.get(&format!("{COMMANDS}?id={id}")).json();
    told["commands"][0]["state"].as_str().unwrap_or_default().to_owned()
}

fn say(socket: &mut Socket, id: &str, state: &str) {
    socket.say(json!({"command": id, "state": state}).to_string());
}

/// The id and the act of a command that is brought.
fn brought(socket: &mut Socket) -> (String, Value) {
    let message = socket.next().unwrap();
    let command = &message["command"];
    assert!(message["now_ms"].as_i64().unwrap() < command["expires_ms"].as_i64().unwrap(), "{message}");
    (command["id"].as_str().unwrap().to_owned(), command["act"].clone())
}

fn told(id: &str, state: &str) -> Result<Value, Option<u16>> {
    Ok(json!({"command": id, "state": state}))
}

/// The code with which a word is refused.
fn refused(socket: &mut Socket, id: &str) -> String {
    let answer = socket.next().unwrap();
    assert_eq!(answer["command"], id, "{answer}");
    answer["error"]["code"].as_str().unwrap().to_owned()
}

/// Nothing waits to be heard on the socket: what is said next is answered next.
fn is_quiet(socket: &mut Socket) {
    socket.say(format!("1\n{}", points(0..1)));
    assert_eq!(socket.next(), Ok(json!({"batch": 1, "points": 1})));
}

#[test]
fn a_device_is_brought_its_commands_one_by_one_and_what_it_says_of_them_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let running = node(dir.path());
    let switch = json!({"switch": {"output": 3, "on": true}});
    let first = issue(&running, &switch, 600);
    let mut socket = open(&running);
    assert_eq!(brought(&mut socket), (first.clone(), switch));
    let second = issue(&running, &json!("read"), 600);
    is_quiet(&mut socket);
    say(&mut socket, &first, "started");
    assert_eq!(socket.next(), told(&first, "started"));
    assert_eq!(state(&running, &first), "started", "it is durable when the device may begin");
    assert_eq!(brought(&mut socket), (second.clone(), json!("read")));
    say(&mut socket, &first, "done");
    say(&mut socket, &second, "unsupported");
    assert_eq!(socket.next(), told(&first, "done"));
    assert_eq!(socket.next(), told(&second, "unsupported"));
    let third = issue(&running, &json!({"every": {"interval_ms": 5000}}), 600);
    assert_eq!(brought(&mut socket).0, third);
    say(&mut socket, &third, "started");
    say(&mut socket, &third, "failed");
    assert_eq!((socket.next(), socket.next()), (told(&third, "started"), told(&third, "failed")));
    let all = running.get(COMMANDS).json();
    let states: Vec<&str> =
        all["commands"].as_array().unwrap().iter().map(|told| told["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["done", "unsupported", "failed"]);
    assert_eq!(running.metric("tidelog_commands_handed_total"), 3.0);
    until(|| (running.metric("tidelog_commands_waiting") == 0.0).then_some(()));

    // What is of another site, or of another device, does not come.
    let other = json!({"device": DEVICE, "act": "read"}).to_string();
    assert_eq!(
        running.post("/api/v1/sites/house/commands", "application/json", other.as_bytes()).status,
        201
    );
    is_quiet(&mut socket);
    let mut house = Socket::open(&running.url, &target("house"), &[]);
    assert_eq!(brought(&mut house).1, json!("read"));
    running.stop();
}

#[test]
fn a_command_comes_again_after_a_broken_connection_only_if_it_is_not_known_to_have_begun() {
    let dir = tempfile::tempdir().unwrap();
    let running = node(dir.path());
    let id = issue(&running, &json!("reboot"), 600);
    for _ in 0..3 {
        // It breaks before the device has said anything.
        assert_eq!(brought(&mut open(&running)).0, id);
    }
    let mut socket = open(&running);
    assert_eq!(brought(&mut socket).0, id);
    say(&mut socket, &id, "started");
    // It breaks before the device hears that it may: so it does not begin, and nobody else does.
    drop(socket);
    until(|| (state(&running, &id) == "started").then_some(()));
    let mut socket = open(&running);
    is_quiet(&mut socket);
    say(&mut socket, &id, "started");
    assert_eq!(refused(&mut socket, &id), "command_begun");
    running.stop();

    // Nor after the node started anew; and what became of it can still be said.
    let running = Running::start(dir.path(), &["--site", "plant"]);
    let mut socket = open(&running);
    is_quiet(&mut socket);
    until(|| {
        say(&mut socket, &id, "started");
        (refused(&mut socket, &id) == "command_begun").then_some(())
    });
    let next = issue(&running, &json!("read"), 600);
    assert_eq!(brought(&mut socket).0, next);
    say(&mut socket, &id, "interrupted");
    assert_eq!(socket.next(), told(&id, "interrupted"));
    assert_eq!((state(&running, &id), state(&running, &next)), ("interrupted".into(), "waiting".into()));
    running.stop();
}

#[test]
fn a_command_that_expired_is_not_begun() {
    let dir = tempfile::tempdir().unwrap();
    let running = node(dir.path());
    let short = issue(&running, &json!("reboot"), 1);
    let long = issue(&running, &json!("read"), 600);
    let mut socket = open(&running);
    assert_eq!(brought(&mut socket).0, short);
    // The one behind it comes when its time is over.
    assert_eq!(brought(&mut socket).0, long);
    say(&mut socket, &short, "started");
    let code = refused(&mut socket, &short);
    assert!(["command_expired", "not_found"].contains(&code.as_str()), "{code}");
    assert_eq!(state(&running, &short), "expired");
    is_quiet(&mut socket);
    let mut late = open(&running);
    assert_eq!(brought(&mut late).0, long, "and it comes to nobody else");
    running.stop();
}

#[test]
fn a_command_that_expires_while_its_start_is_put_down_is_not_begun_and_has_failed() {
    let dir = tempfile::tempdir().unwrap();
    node(dir.path()).stop();
    let running = Running::start(dir.path(), &["--site", "plant", "--commit-interval-ms", "1000"]);
    let id = issue(&running, &json!("reboot"), 3);
    let mut socket = open(&running);
    let message = socket.next().unwrap();
    let left_ms = message["command"]["expires_ms"].as_u64().unwrap() - message["now_ms"].as_u64().unwrap();
    // It asks while there is time, and the second that a commit takes is longer than that.
    std::thread::sleep(std::time::Duration::from_millis(left_ms - 500));
    say(&mut socket, &id, "started");
    say(&mut socket, &id, "done");
    assert_eq!(refused(&mut socket, &id), "command_expired");
    assert_eq!(socket.next(), told(&id, "done"), "words are put down one behind the other");
    let command = running.get(&format!("{COMMANDS}?id={id}")).json()["commands"][0].clone();
    assert_eq!(command["state"], "failed", "the first word of its end counts: {command}");
    assert!(command["started_ms"].as_i64() < command["ended_ms"].as_i64(), "{command}");
    running.stop();
}

#[test]
fn of_two_sockets_that_say_that_they_are_one_device_the_newer_is() {
    let dir = tempfile::tempdir().unwrap();
    let running = node(dir.path());
    let id = issue(&running, &json!("reboot"), 600);
    let mut older = open(&running);
    assert_eq!(brought(&mut older).0, id);
    let mut newer = open(&running);
    assert_eq!(brought(&mut newer).0, id, "nobody has begun it");
    assert_eq!(older.closed(), Some(1008));
    say(&mut newer, &id, "started");
    assert_eq!(newer.next(), told(&id, "started"));
    let mut newest = open(&running);
    is_quiet(&mut newest);
    say(&mut newest, &id, "started");
    assert_eq!(refused(&mut newest, &id), "command_begun");
    assert_eq!(newer.closed(), Some(1008));
    // Who says nothing of a device is none.
    let mut nobody = Socket::open(&running.url, "/api/v1/sites/plant/socket", &[]);
    is_quiet(&mut nobody);
    is_quiet(&mut newest);
    assert_eq!(running.metric("tidelog_sockets_ended_total{reason=\"replaced\"}"), 2.0);
    running.stop();
}

#[test]
fn many_that_ask_at_once_whether_they_may_begin_are_told_so_once() {
    let dir = tempfile::tempdir().unwrap();
    let running = node(dir.path());
    for _ in 0..5 {
        let id = issue(&running, &json!("reboot"), 600);
        let devices: Vec<_> = (0..8)
            .map(|_| {
                let (url, id) = (running.url.clone(), id.clone());
                std::thread::spawn(move || {
                    let mut socket = Socket::open(&url, &target("plant"), &[]);
                    if socket
                        .0
                        .send(Message::text(json!({"command": id, "state": "started"}).to_string()))
                        .is_err()
                    {
                        return 0;
                    }
                    let mut may = 0;
                    while let Ok(message) = socket.next() {
                        may += usize::from(message["state"] == "started");
                        if message["command"].is_string() {
                            break;
                        }
                    }
                    may
                })
            })
            .collect();
        let may: usize = devices.into_iter().map(|device| device.join().unwrap()).sum();
        assert!(may <= 1, "{may} may begin");
        let begun = state(&running, &id);
        assert!(if may == 1 { begun == "started" } else { ["started", "waiting"].contains(&begun.as_str()) });
        let mut last = open(&running);
        if begun == "waiting" {
            assert_eq!(brought(&mut last).0, id);
            say(&mut last, &id, "started");
            assert_eq!(last.next(), told(&id, "started"));
        }
    }
    running.stop();
}

#[test]
fn what_is_no_word_of_a_command_of_the_device_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let running = node(dir.path());
    let id = issue(&running, &json!("reboot"), 600);
    let mut socket = open(&running);
    assert_eq!(brought(&mut socket).0, id);
    say(&mut socket, &id, "dancing");
    assert_eq!(refused(&mut socket, &id), "bad_body");
    let far = "fffffffffff0000";
    for state in ["started", "done", "interrupted"] {
        say(&mut socket, far, state);
        assert_eq!(refused(&mut socket, far), "not_found", "{state}");
    }
    say(&mut socket, &id, "started");
    assert_eq!(socket.next(), told(&id, "started"), "nothing overtook it");
    socket.say("{\"command\":\"x\"}");
    assert_eq!(socket.closed(), Some(1008));
    let mut nobody = Socket::open(&running.url, "/api/v1/sites/plant/socket", &[]);
    say(&mut nobody, &id, "done");
    assert_eq!(nobody.closed(), Some(1008), "it is no device");
    assert_eq!(state(&running, &id), "started");
    let (status, _) =
        Socket::try_open(&running.url, "/api/v1/sites/plant/socket?device=lamp", &[]).err().unwrap();
    assert_eq!(status, 400);
    let writer = make_token(dir.path(), &[Scope::Write], &["plant"]);
    let commander = make_token(dir.path(), &[Scope::Command, Scope::Read], &["plant"]);
    let with = |token: &tidelog_node::door::Token| {
        let head = format!("Bearer {}", token.reveal());
        Socket::try_open(&running.url, &target("plant"), &[("authorization", &head)])
            .err()
            .map(|(status, _)| status)
    };
    assert_eq!((with(&writer), with(&commander)), (None, Some(403)));
    running.stop();
}

#[test]
fn a_command_from_the_cloud_goes_down_a_gateways_socket_and_batches_are_answered_when_the_cloud_has_them() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let authority = authority();
    prepare(a.path(), &authority, true);
    prepare(b.path(), &authority, false);
    let cloud = listening(a.path(), "127.0.0.1:0");
    let gateway = dialling(b.path(), &peering_address(a.path()));
    let mut socket =
        Socket::open(&gateway.url, &format!("{}&ack=cloud&ack_timeout=60", target("plant")), &[]);
    for number in 0..20i64 {
        let point = json!({"metric": "temperature", "labels": {"device": DEVICE}, "timestamp_ms": number, "value": 21.5});
        socket.say(format!("{number}\n{}", json!({"points": [point]})));
    }
    for number in 0..20i64 {
        assert_eq!(socket.next(), Ok(json!({"batch": number, "points": 1, "ack": "cloud"})));
    }
    let held = cloud.get("/api/v1/sites/plant/points?format=ndjson").text;
    assert_eq!(held.lines().count(), 20, "the cloud has all of them");

    let id = issue(&cloud, &json!("read"), 600);
    assert_eq!(brought(&mut socket).0, id);
    say(&mut socket, &id, "started");
    say(&mut socket, &id, "done");
    assert_eq!((socket.next(), socket.next()), (told(&id, "started"), told(&id, "done")));
    until(|| (state(&cloud, &id) == "done").then_some(()));

    // The cloud is away: it is stored here, and nothing else is claimed.
    cloud.stop();
    until(|| (gateway.get("/api/v1/status").json()["peers"][0]["state"] != "connected").then_some(()));
    let mut hasty = Socket::open(&gateway.url, "/api/v1/sites/plant/socket?ack=cloud&ack_timeout=0.2", &[]);
    hasty.say(format!("7\n{}", points(0..3)));
    hasty.say("8\n{}");
    let answer = hasty.next().unwrap();
    assert_eq!(
        (&answer["batch"], &answer["points"], &answer["ack"], &answer["wanted"], &answer["reason"]),
        (&json!(7), &json!(3), &json!("node"), &json!("cloud"), &json!("timeout"))
    );
    assert!(answer["streams"][0]["last"].as_u64() > answer["streams"][0]["cloud_lsn"].as_u64(), "{answer}");
    assert_eq!(hasty.next().unwrap()["error"]["code"], "bad_body");
    let mut node = Socket::open(&gateway.url, "/api/v1/sites/plant/socket?ack=node", &[]);
    node.say(format!("1\n{}", points(5..6)));
    assert_eq!(node.next(), Ok(json!({"batch": 1, "points": 1, "ack": "node"})));
    // A node that ends says of what waits for the cloud that it is stored.
    socket.say(format!("21\n{}", points(9..10)));
    until(|| (gateway.metric("tidelog_ack_cloud_waiting") == 1.0).then_some(()));
    gateway.stop();
    let answer = socket.next().unwrap();
    assert_eq!(
        (&answer["batch"], &answer["ack"], &answer["reason"]),
        (&json!(21), &json!("node"), &json!("ending"))
    );
}

#[test]
fn a_node_that_no_cloud_can_confirm_for_says_so_before_anything_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    for query in ["ack=cloud", "ack=disk", "ack_timeout=5", "form=csv&labels=a&labels=b"] {
        let (status, body) =
            Socket::try_open(&running.url, &format!("/api/v1/sites/plant/socket?{query}"), &[])
                .err()
                .unwrap();
        assert!(status == 400 && body.contains("bad_parameter"), "{query}: {status} {body}");
    }
    running.stop();
}

#[test]
fn a_batch_may_be_a_table_and_its_bad_lines_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    let path = "/api/v1/sites/plant/socket?form=csv&labels=device,room&precision=ms";
    let mut socket = Socket::open(&running.url, path, &[]);
    socket.say(
        "1\ntime,device,room,temperature,open\n1795248000000,d1,lab,21.5,true\n1795248060000,d1,lab,21.6,\n",
    );
    socket.say("2\ntime,device,room,temperature\n1795248000001,d2,,2x\n1795248000002,d2,,5\n");
    socket.say("3\n");
    assert_eq!(socket.next(), Ok(json!({"batch": 1, "points": 3})));
    let answer = socket.next().unwrap();
    assert_eq!((&answer["batch"], &answer["error"]["code"]), (&json!(2), &json!("bad_line")));
    assert!(
        answer["error"]["message"].as_str().unwrap().contains("line 2: column \"temperature\""),
        "{answer}"
    );
    let answer = socket.next().unwrap();
    assert!(answer["batch"] == 3 && answer["error"].is_object(), "no line names the columns: {answer}");
    let text = running.get("/api/v1/sites/plant/points?format=csv").text;
    assert_eq!(text.lines().count(), 5, "{text}");
    assert!(
        text.contains("temperature,\"{\"\"device\"\":\"\"d2\"\"}\",1795248000002000000,f64,5.0"),
        "{text}"
    );
    assert_eq!(running.metric("tidelog_ingest_lines_refused_total"), 1.0);
    running.stop();
}
