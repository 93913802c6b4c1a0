use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use serde_json::json;
use tidelog_record::{Relay, Series, Value};

use super::{Delivery, Forms, Reading};

const ARRIVED_NS: i64 = 1_795_248_000_000_000_123;

fn forms(text: &str) -> Result<Forms, String> {
    let site = "plant".parse().unwrap();
    Forms::parse(text, Path::new("messages.toml"), &site, vec!["tidelog/+/+".to_owned()])
        .map_err(|error| error.to_string())
}

fn read(text: &str, topic: &str, payload: &[u8]) -> Option<Result<Reading, String>> {
    let read = forms(text).unwrap().read(topic, payload, ARRIVED_NS);
    read.map(|read| read.map_err(|error| error.to_string()))
}

/// Points as PromQL would write their series.
fn points(reading: &Reading) -> BTreeMap<(String, i64), Value> {
    let written = |series: &Series| {
        let labels: Vec<_> = series.labels().map(|(name, value)| format!("{name}={value:?}")).collect();
        format!("{}{{{}}}", series.metric(), labels.join(","))
    };
    let all = reading.batch.series.iter();
    all.flat_map(|(series, points)| {
        points.iter().map(move |(at, value)| ((written(series), *at), value.clone()))
    })
    .collect()
}

fn point(series: &str, at: i64, value: Value) -> ((String, i64), Value) {
    ((series.to_owned(), at), value)
}

const ZIGBEE: &str = r#"
[[message]]
topic = "zigbee2mqtt/{device}"
time = "/last_seen"
time_unit = "ms"
labels = { network = "attic" }
labels_at = { room = "/device/room" }
[message.values]
temperature_celsius = "/temperature"
contact = "/contact"
relay_on = { at = "/state", words = { ON = true, OFF = false } }
note = "/note"
"#;

#[test]
fn a_document_becomes_the_points_that_the_form_names() {
    let payload = json!({
        "temperature": 21, "contact": true, "state": "ON", "note": "ok", "linkquality": 120,
        "last_seen": 1_795_248_000_500_u64, "device": {"room": "lab"}, "battery": null,
    });
    let reading = read(ZIGBEE, "zigbee2mqtt/0x01", payload.to_string().as_bytes()).unwrap().unwrap();
    let at = 1_795_248_000_500_000_000;
    let labels = r#"{device="0x01",network="attic",room="lab"}"#;
    let expected = [
        point(&format!("temperature_celsius{labels}"), at, Value::F64(21.0)),
        point(&format!("contact{labels}"), at, Value::Bool(true)),
        point(&format!("relay_on{labels}"), at, Value::Bool(true)),
        point(&format!("note{labels}"), at, Value::Text("ok".into())),
    ];
    assert_eq!(points(&reading), BTreeMap::from(expected));
    assert_eq!((reading.site.as_str(), reading.unfit), ("plant", None));
    assert!(read(ZIGBEE, "zigbee2mqtt/0x01/availability", b"{}").is_none());
}

#[test]
fn what_cannot_be_read_of_a_message_does_not_cost_the_rest() {
    let payload = json!({"temperature": {"c": 21}, "contact": true, "state": "BLINK", "last_seen": 1.5e12});
    let reading = read(ZIGBEE, "zigbee2mqtt/x", payload.to_string().as_bytes()).unwrap().unwrap();
    let series = r#"contact{device="x",network="attic"}"#;
    assert_eq!(
        points(&reading),
        BTreeMap::from([point(series, 1_500_000_000_000_000_000, Value::Bool(true))])
    );
    let (reason, count) = reading.unfit.unwrap();
    assert_eq!(count, 2);
    assert_eq!(reason, r#"relay_on: no meaning for "BLINK": words does not have it"#);
}

#[test]
fn a_message_that_says_nothing_of_the_form_is_refused_with_what_is_wrong() {
    for (payload, expected) in [
        ("{", "the payload is no JSON: EOF while parsing"),
        ("{}", "time: nothing there"),
        (r#"{"last_seen": 1}"#, "none of the values is in it"),
        (r#"{"last_seen": "noon"}"#, "time: not an instant"),
        (r#"{"last_seen": 1e300}"#, "time: "),
        (r#"{"last_seen": [1]}"#, "time: nothing there"),
    ] {
        let refused = read(ZIGBEE, "zigbee2mqtt/x", payload.as_bytes()).unwrap().unwrap_err();
        assert!(refused.starts_with(expected), "{payload}: {refused}");
    }
    let long = vec![b' '; 64 * 1024 + 1];
    let refused = read(ZIGBEE, "zigbee2mqtt/x", &long).unwrap().unwrap_err();
    assert_eq!(refused, "65537 bytes, the most is 65536");
}

#[test]
fn a_bare_value_comes_at_its_arrival_and_the_topic_may_tell_the_site() {
    let text = r#"
[[message]]
topic = "home/{site}/{room}"
[message.values]
temperature_celsius = ""

[[message]]
topic = "stat/{device}/POWER"
payload = "text"
[message.values]
relay_on = { at = "", words = { ON = 1, OFF = 0 } }
"#;
    let reading = read(text, "home/works/lab", b"21.5").unwrap().unwrap();
    assert_eq!(reading.site.as_str(), "works");
    let series = r#"temperature_celsius{room="lab"}"#;
    assert_eq!(points(&reading), BTreeMap::from([point(series, ARRIVED_NS, Value::F64(21.5))]));
    let reading = read(text, "stat/lamp/POWER", b"ON\n").unwrap().unwrap();
    let series = r#"relay_on{device="lamp"}"#;
    assert_eq!(points(&reading), BTreeMap::from([point(series, ARRIVED_NS, Value::F64(1.0))]));
    let refused = read(text, "home/No Site/lab", b"21.5").unwrap().unwrap_err();
    assert!(refused.starts_with("the topic's site: "), "{refused}");
    let refused = read(text, "stat/lamp/POWER", b"\xff").unwrap().unwrap_err();
    assert_eq!(refused, "the payload is no text in UTF-8");
}

#[test]
fn each_reading_of_an_array_has_its_own_time_and_other_numbers_go_by_their_names() {
    let text = r#"
[[message]]
topic = "field/#"
each = "/rows"
time = "/at"
others = "field_"
labels_at = { pot = "/pot" }
[message.values]
moisture = "/moisture"
"#;
    let payload = json!({"rows": [
        {"at": "2026-11-21T08:00:00Z", "pot": 3, "moisture": 0.5, "lux level": 7, "tidy": true, "name": "x"},
        {"at": 1_795_248_001.5, "pot": 3, "moisture": 0.25},
    ]});
    let reading = read(text, "field", payload.to_string().as_bytes()).unwrap().unwrap();
    let at = 1_795_248_000_000_000_000;
    let expected = [
        point(r#"moisture{pot="3"}"#, at, Value::F64(0.5)),
        point(r#"field_lux_level{pot="3"}"#, at, Value::F64(7.0)),
        point(r#"field_tidy{pot="3"}"#, at, Value::Bool(true)),
        point(r#"moisture{pot="3"}"#, at + 1_500_000_000, Value::F64(0.25)),
    ];
    assert_eq!(points(&reading), BTreeMap::from(expected));
    let many = json!({"rows": vec![json!({"at": 1, "moisture": 1}); 1001]});
    for payload in [many, json!({"rows": 1}), json!({})] {
        let refused = read(text, "field/x/y", payload.to_string().as_bytes()).unwrap().unwrap_err();
        assert_eq!(refused, "each: expected an array of at most 1000 readings");
    }
}

#[test]
fn the_manuals_forms_are_forms() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/MQTT.md");
    let manual = std::fs::read_to_string(path).unwrap();
    let examples: Vec<&str> =
        manual.split("```toml\n").skip(1).map(|it| it.split("```").next().unwrap()).collect();
    assert_eq!(examples.len(), 1);
    assert_eq!(
        forms(examples[0]).unwrap().filters().collect::<Vec<_>>(),
        ["zigbee2mqtt/+", "stat/+/POWER", "weather/+/+",]
    );
}

#[test]
fn what_cannot_be_meant_is_refused_with_what_to_do() {
    let cases = [
        ("", "0 messages, expected 1 to 64 [[message]]"),
        ("[[message]]\ntopic = 'a/{device}'", "message \"a/{device}\": nothing would be taken"),
        ("[[message]]\ntopic = 'a'\nvalues = { x = 'y' }", "message \"a\": values.x: \"y\" is no place"),
        ("[[message]]\ntopic = 'a+'\nvalues = { x = '' }", "message \"a+\": topic: level \"a+\""),
        ("[[message]]\ntopic = 'a'\nvalues = { 'x y' = '' }", "message \"a\": bad metric name"),
        ("[[message]]\ntopic = '{a b}'\nvalues = { x = '' }", "message \"{a b}\": bad label name"),
        ("[[message]]\ntopic = 'a'\nothers = '9'", "message \"a\": bad metric name"),
        (
            "[[message]]\ntopic = 'a'\nvalues = { tidelog_command = '' }",
            "message \"a\": tidelog_command: nodes alone",
        ),
        (
            "[[message]]\ntopic = '{a}'\nlabels = { a = 'x' }\nothers = ''",
            "message \"{a}\": label \"a\" stands twice",
        ),
        (
            "[[message]]\ntopic = '{site}'\nsite = 'x'\nothers = ''",
            "message \"{site}\": site: the topic tells it",
        ),
        (
            "[[message]]\ntopic = 'tidelog/#'\nothers = ''",
            "message \"tidelog/#\": topic: \"tidelog/+/+\" takes some",
        ),
        (
            "[[message]]\ntopic = 'a'\ntime_unit = 'ms'\nothers = ''",
            "message \"a\": time_unit is of use with time alone",
        ),
        (
            "[[message]]\ntopic = 'a'\npayload = 'text'\nothers = ''",
            "message \"a\": others: a text has no members",
        ),
        (
            "[[message]]\ntopic = 'a'\npayload = 'text'\nvalues = { x = '/y' }",
            "message \"a\": values: a text has no",
        ),
        ("[[message]]\ntopic = 'a'\nvalue = { x = '' }", "TOML parse error at line 3"),
        ("[[message]]\ntopic = 'a'\nvalues = { x = 1 }", "TOML parse error at line 3"),
        ("[[message]]\ntopic = 'a'\nsite = 'No'\nothers = ''", "TOML parse error at line 3"),
    ];
    for (text, expected) in cases {
        let error = forms(text).unwrap_err();
        let said = error.strip_prefix("messages.toml: ").unwrap();
        assert!(said.starts_with(expected), "{text}\n  said: {said}\n  not: {expected}");
    }
    let same = "[[message]]\ntopic = 'a/{x}'\nothers = ''\n[[message]]\ntopic = 'a/b'\nothers = ''";
    assert!(forms(same).unwrap_err().contains("\"a/+\" takes some of the same topics"));
}

#[test]
fn a_delivery_is_known_again_from_the_record_that_was_made_of_it() {
    let delivery = Delivery::of("a/b", b"21.5", 7);
    assert_eq!(Delivery::of_relay(&delivery.relay()), Some(delivery));
    for other in
        [Delivery::of("a/b2", b"1.5", 7), Delivery::of("a/b", b"21.5", 8), Delivery::of("a/b", b"21.6", 7)]
    {
        assert_ne!(other, delivery);
    }
    let of_a_node = Relay { run: tidelog_record::Run(9), ..delivery.relay() };
    assert_eq!(Delivery::of_relay(&of_a_node), None);
}

proptest! {
    #[test]
    fn no_payload_panics_and_all_that_is_taken_is_of_the_form(payload: Vec<u8>, json in "\\PC{0,60}") {
        for payload in [payload, json.into_bytes()] {
            if let Some(Ok(reading)) = read(ZIGBEE, "zigbee2mqtt/x", &payload) {
                prop_assert!(reading.batch.series.iter().all(|(series, _)| series.label("device") == Some("x")));
            }
        }
    }

    #[test]
    fn times_in_any_unit_are_the_same_instant(seconds in -9_000_000_000i64..9_000_000_000) {
        for (unit, per_s) in [("s", 1), ("ms", 1_000), ("us", 1_000_000), ("ns", 1_000_000_000)] {
            let text = format!("[[message]]\ntopic = 'a'\ntime = '/t'\ntime_unit = '{unit}'\nvalues = {{ x = '/x' }}");
            let payload = json!({"t": seconds * per_s, "x": 1}).to_string();
            let reading = read(&text, "a", payload.as_bytes()).unwrap().unwrap();
            prop_assert_eq!(points(&reading), BTreeMap::from([point("x{}", seconds * 1_000_000_000, Value::F64(1.0))]));
        }
    }
}
