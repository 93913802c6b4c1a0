//! A real gateway process and a sensor made of `lowpan`'s parts, over UDP on loopback: what is acknowledged is stored
//! once, over kills and lost answers, and nothing that comes from the air stops the gateway.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at what it does not expect"
)]

mod dongle;
mod field;
mod process;
mod sensor;
mod serial;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tidelog_lowpan::coap::Code;
use tidelog_record::DeviceId;

use self::process::Gateway;
use self::sensor::Sensor;

const GATEWAY: DeviceId = DeviceId([2, 0, 0, 0, 0, 0, 0, 1]);
const DEVICE: DeviceId = DeviceId([2, 0x12, 0x4b, 0, 0, 0, 0, 9]);
const EPOCH: u32 = 7;

fn field() -> (tempfile::TempDir, Sensor, Gateway) {
    let data = tempfile::tempdir().unwrap();
    let mut sensor = Sensor::new(DEVICE, GATEWAY);
    let gateway = Gateway::start(data.path(), sensor.air(), &GATEWAY.to_string());
    sensor.find_gateway();
    (data, sensor, gateway)
}

fn acked((code, answer): (Code, Option<tidelog_record::uplink::Answer>)) -> u64 {
    assert_eq!(code, Code::CHANGED);
    answer.unwrap().acked_seq
}

#[test]
fn a_reading_is_stored_once_over_lost_answers_and_a_killed_gateway() {
    let (data, mut sensor, gateway) = field();
    let batch = sensor.batch(EPOCH, 1, 5);
    assert_eq!(sensor.post("b", &batch).0, Code::PRECONDITION_FAILED);
    assert_eq!(sensor.post("s", &sensor.registration()).0, Code::CREATED);
    assert_eq!(acked(sensor.post("b", &batch)), 5);
    assert_eq!(gateway.points("temperature").len(), 5);

    // The answer is lost: the repeat brings the same answer, and no second record.
    let head = gateway.head();
    let second = sensor.batch(EPOCH, 6, 3);
    sensor.deaf_to_answers = 1;
    assert_eq!(acked(sensor.post("b", &second)), 8);
    assert_eq!(gateway.head(), head + 1);
    let head = gateway.head();

    gateway.kill();
    let gateway = Gateway::start(data.path(), sensor.air(), &GATEWAY.to_string());
    sensor.find_gateway();
    assert_eq!(gateway.head(), head, "what was acknowledged survives a kill");
    // The schema was in memory only; then the batch is recognised from the log.
    assert_eq!(sensor.post("b", &second).0, Code::PRECONDITION_FAILED);
    assert_eq!(sensor.post("s", &sensor.registration()).0, Code::CREATED);
    assert_eq!(acked(sensor.post("b", &second)), 8);
    assert_eq!(acked(sensor.post("b", &batch)), 8, "all that follows without a gap is acknowledged too");
    assert_eq!(gateway.head(), head, "nothing is appended again");

    // It overlaps what is held: only the rest is stored.
    let overlapping = sensor.batch(EPOCH, 7, 5);
    assert_eq!(acked(sensor.post("b", &overlapping)), 11);
    assert_eq!(gateway.head(), head + 2, "the new life's first record tells of its start");
    assert_eq!(gateway.metric("tidelog_ingest_points_total", &["via=\"radio\""]), 6);
    for metric in ["temperature", "count"] {
        let points = gateway.points(metric);
        assert_eq!(points.len(), 11, "{metric}: {points:?}");
        assert_eq!(points.iter().collect::<BTreeSet<_>>().len(), 11);
        assert!(points.iter().all(|line| line.contains(&DEVICE.to_string())));
    }
    let (took, well) = gateway.terminate();
    assert!(well && took < Duration::from_secs(5), "{took:?}");
}

/// One field of each frame of a capture. `None`: there is no tshark.
fn tshark(capture: &Path, field: &str) -> Option<Vec<String>> {
    let output = Command::new("tshark").arg("-r").arg(capture).args(["-T", "fields", "-e", field]).output();
    let output = output.inspect_err(|error| println!("skipped: tshark cannot be run ({error})")).ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect())
}

#[test]
fn a_capture_holds_what_was_heard_and_what_was_answered() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join("air.pcap");
    let mut sensor = Sensor::new(DEVICE, GATEWAY);
    let flags = ["--pcap", path.to_str().unwrap()];
    let gateway = Gateway::start_with(data.path(), sensor.air(), &GATEWAY.to_string(), &flags);
    sensor.find_gateway();
    assert_eq!(sensor.post("s", &sensor.registration()).0, Code::CREATED);
    assert_eq!(acked(sensor.post("b", &sensor.batch(EPOCH, 1, 3))), 3);
    assert!(gateway.terminate().1);
    assert!(std::fs::read(&path).unwrap().len() > 24);
    // 0.02 POST, 2.01 Created, 2.04 Changed.
    let Some(codes) = tshark(&path, "coap.code") else { return };
    let codes: Vec<_> = codes.into_iter().filter(|code| !code.is_empty()).collect();
    assert_eq!(codes, ["2", "65", "2", "68"]);
}

#[test]
fn a_kill_while_batches_are_under_way_loses_and_doubles_nothing() {
    let (data, mut sensor, mut gateway) = field();
    let (mut acknowledged, mut sent) = (0, 0);
    assert_eq!(sensor.post("s", &sensor.registration()).0, Code::CREATED);
    for round in 0..4u64 {
        sent += 4;
        let batch = sensor.batch(EPOCH, acknowledged + 1, sent - acknowledged);
        sensor.begin("b", &batch);
        // Killed at another moment of the exchange each time; the answer may have come or not.
        if let Some(answer) = sensor.finish(Duration::from_millis(7 * round)) {
            acknowledged = acked(answer);
        }
        gateway.kill();
        gateway = Gateway::start(data.path(), sensor.air(), &GATEWAY.to_string());
        sensor.find_gateway();
        assert_eq!(sensor.post("s", &sensor.registration()).0, Code::CREATED);
    }
    let batch = sensor.batch(EPOCH, acknowledged + 1, sent - acknowledged);
    assert_eq!(acked(sensor.post("b", &batch)), sent);
    assert_eq!(gateway.points("count").len() as u64, sent);
}

#[test]
fn garbage_at_every_layer_is_counted_and_the_gateway_serves_on() {
    let (_data, mut sensor, mut gateway) = field();
    assert_eq!(sensor.post("s", &sensor.registration()).0, Code::CREATED);
    let batch = sensor.batch(EPOCH, 1, 2);
    let mut noise = 0x9e37_79b9_u32;
    let mut next = move || {
        noise ^= noise << 13;
        noise ^= noise >> 17;
        noise ^= noise << 5;
        noise.to_be_bytes()[1]
    };
    for length in 0..120usize {
        let bytes: Vec<u8> = (0..length).map(|_| next()).collect();
        sensor.send_raw(&bytes);
        // A data frame to the gateway with garbage for 6LoWPAN.
        let mut frame = vec![0x41, 0xdc, next(), 0x23, 0x00];
        frame.extend(GATEWAY.0.iter().rev());
        frame.extend(DEVICE.0.iter().rev());
        frame.extend(&bytes[..length.min(100)]);
        sensor.send_frame(&frame);
        sensor.send_frame(&bytes);
    }
    for length in 0..60usize {
        let mut message: Vec<u8> = (0..length).map(|_| next()).collect();
        sensor.send_datagram(&message);
        if let Some(first) = message.first_mut() {
            *first = 0x40;
        }
        sensor.send_datagram(&message);
    }
    assert!(gateway.is_running());

    let cases: [(&str, Vec<u8>, Code, &str); 5] = [
        ("b", b"\xc1".to_vec(), Code::BAD_REQUEST, "malformed"),
        ("b", batch[..batch.len() - 1].to_vec(), Code::BAD_REQUEST, "malformed"),
        ("s", b"{}".to_vec(), Code::BAD_REQUEST, "malformed"),
        ("x", batch.clone(), Code::NOT_FOUND, "unknown_resource"),
        ("b", Sensor::new(GATEWAY, DEVICE).batch(EPOCH, 1, 1), Code::FORBIDDEN, "foreign_device"),
    ];
    for (path, payload, code, reason) in cases {
        assert_eq!(sensor.post(path, &payload).0, code, "{reason}");
        let labels = ["via=\"radio\"".to_owned(), format!("reason=\"{reason}\"")];
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        assert!(gateway.metric("tidelog_ingest_refused_total", &labels) > 0, "{reason}");
    }
    assert_eq!(acked(sensor.post("b", &batch)), 2);
    assert_eq!(gateway.points("count").len(), 2);

    for reason in ["not_zep", "malformed", "bad_headers"] {
        let label = format!("reason=\"{reason}\"");
        gateway.wait_for_metric("tidelog_radio_drops_total", &[&label], 1);
    }
    gateway.wait_for_metric("tidelog_radio_frames_total", &["direction=\"in\""], 100);
    let radio = gateway.radio_acked(2);
    let device = &radio["devices"][0];
    assert_eq!((&radio["eui"], &radio["pan"]), (&json!(GATEWAY.to_string()), &json!("0x0023")));
    assert_eq!(
        (&device["device"], &device["acked_seq"]),
        (&DEVICE.to_string().into(), &2.into()),
        "{radio:#}"
    );
    assert!(device["last_seen_ms"].as_i64().unwrap() > 1_600_000_000_000);
    assert!(device["rssi_dbm"].is_i64() && device["lqi"].is_u64());
}

#[test]
fn a_gateway_with_a_key_serves_through_kills_and_a_stranger_gets_no_answer() {
    const KEY: &str = "00112233445566778899aabbccddeeff";
    let data = tempfile::tempdir().unwrap();
    let mut sensor = Sensor::with_key(DEVICE, GATEWAY, Some(KEY.parse().unwrap()), 0);
    let counter = data.path().join("radio.counter");
    let mut before = 0;
    for life in 1..=4u64 {
        let flags = ["--radio-key", KEY];
        let gateway = Gateway::start_with(data.path(), sensor.air(), &GATEWAY.to_string(), &flags);
        sensor.find_gateway();
        assert_eq!(sensor.post("s", &sensor.registration()).0, Code::CREATED);
        assert_eq!(acked(sensor.post("b", &sensor.batch(EPOCH, life * 3 - 2, 3))), life * 3);
        let reserved: u32 = std::fs::read_to_string(&counter).unwrap().trim().parse().unwrap();
        assert!(reserved > before, "each life begins behind the one before");
        before = reserved;
        let radio = gateway.radio_acked(life * 3);
        assert_eq!(
            (&radio["link_security"], &radio["drops"]["replayed"]),
            (&json!(true), &json!(0)),
            "{radio:#}"
        );
        assert!(radio["frame_counters_left"].as_u64().unwrap() > 1 << 31);
        gateway.kill();
    }
    assert_eq!(sensor.refused(), 0, "no answer of a later life is taken for a replay");

    let wrong = "ff112233445566778899aabbccddeeff".parse().unwrap();
    for (key, reason) in [(Some(wrong), "forged"), (None, "unsecured")] {
        let mut stranger = Sensor::with_key(DEVICE, GATEWAY, key, 1 << 20);
        let flags = ["--radio-key", KEY];
        let gateway = Gateway::start_with(data.path(), stranger.air(), &GATEWAY.to_string(), &flags);
        stranger.find_gateway();
        let batch = stranger.batch(EPOCH, 100, 3);
        stranger.begin("b", &batch);
        assert!(stranger.finish(Duration::from_secs(1)).is_none());
        gateway.wait_for_metric("tidelog_radio_drops_total", &[&format!("reason=\"{reason}\"")], 1);
        assert_eq!(gateway.points("count").len(), 12);
    }
}
