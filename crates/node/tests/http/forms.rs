//! The forms of points for devices and programs that speak no other: documents of simple devices, and tables.

use serde_json::{Value, json};

use crate::common::Running;

const POINTS: &str = "/api/v1/sites/lab/points";

/// All that the site holds: `metric,labels,time,type,value`.
fn held(running: &Running) -> Vec<String> {
    running.get(&format!("{POINTS}?format=csv")).text.lines().skip(1).map(str::to_owned).collect()
}

#[test]
fn a_simple_devices_document_becomes_points_of_the_device_in_json_and_in_messagepack() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    let document = |device: &str| {
        json!({
            "deviceinfo": {"deviceid": device, "fw_ver": "1.4.2", "batt_lvl": 87},
            "tsdata": [
                {"timestamp": 1, "temperature": 21.5, "open": false},
                {"timestamp": 2, "temperature": 21, "humidity": null},
            ],
        })
    };
    let answer = running.post_json("lab", &document("d1"));
    assert_eq!((answer.status, answer.json()), (200, json!({"points": 5, "ack": "node"})));
    let packed = rmp_serde::to_vec_named(&document("d2")).unwrap();
    assert_eq!(running.post(POINTS, "application/msgpack", &packed).status, 200);
    let expected: Vec<String> = ["batt_lvl", "fw_ver", "open", "temperature"]
        .iter()
        .flat_map(|metric| ["d1", "d2"].map(|device| (metric, device)))
        .flat_map(|(metric, device)| {
            let rest: &[&str] = match *metric {
                "batt_lvl" => &["2000000,f64,87.0"],
                "fw_ver" => &["2000000,text,\"1.4.2\""],
                "open" => &["1000000,bool,false"],
                _ => &["1000000,f64,21.5", "2000000,f64,21.0"],
            };
            rest.iter().map(move |rest| format!("{metric},\"{{\"\"device\"\":\"\"{device}\"\"}}\",{rest}"))
        })
        .collect();
    assert_eq!(held(&running), expected);
    let devices = running.get("/api/v1/sites/lab/devices").json();
    assert_eq!(devices["devices"].as_array().unwrap().len(), 2);

    let mut bad = document("d3");
    bad["tsdata"][1] = json!({"temperature": 1});
    let answer = running.post_json("lab", &bad);
    let error = &answer.json()["error"];
    assert_eq!((answer.status, &error["code"], &error["index"]), (400, &json!("bad_point"), &json!(1)));
    assert_eq!(held(&running), expected, "a document is stored whole or not at all");
    running.stop();
}

#[test]
fn a_table_becomes_points_and_its_bad_lines_are_named_while_the_good_ones_are_stored() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    let table = "time,device,temp,state\n1,d1,21.5,ok\n2,d1,,warm\n";
    let path = format!("{POINTS}?labels=device&texts=state&precision=ms");
    let answer = running.post(&path, "text/csv; charset=utf-8", table.as_bytes());
    assert_eq!((answer.status, answer.json()), (200, json!({"points": 3, "ack": "node"})));
    let d1 = r#""{""device"":""d1""}""#;
    let expected = [
        format!("state,{d1},1000000,text,\"ok\""),
        format!("state,{d1},2000000,text,\"warm\""),
        format!("temp,{d1},1000000,f64,21.5"),
    ];
    assert_eq!(held(&running), expected);

    let answer = running.post(POINTS, "text/csv", b"time,a,b\n1,1,1\n2,x,2\n3,3,3\n4,4\n");
    let error: Value = answer.json()["error"].clone();
    assert_eq!((answer.status, &error["code"]), (400, &json!("bad_line")));
    let message = error["message"].as_str().unwrap();
    assert_eq!(
        message,
        "partial write: 2 of 4 lines refused, the others are stored; \
         line 3: column \"a\": \"x\" is no number, true or false; line 5: 2 cells in 3 columns dropped=2"
    );
    assert_eq!(held(&running).len(), expected.len() + 4);
    assert_eq!(running.metric("tidelog_ingest_lines_refused_total"), 2.0);
    assert_eq!(running.metric("tidelog_ingest_points_total{via=\"http\"}"), 7.0);

    let table = "time,a\n1,1\n".as_bytes();
    for (query, content_type, body, status, code) in [
        ("labels=room", "text/csv", table, 400, "bad_parameter"),
        ("labels=a", "application/json", b"{\"points\":[]}".as_slice(), 400, "bad_parameter"),
        ("label=a", "text/csv", table, 400, "bad_parameter"),
        ("precision=week", "text/csv", table, 400, "bad_parameter"),
        ("", "text/csv", b"temp\n1\n", 400, "bad_body"),
    ] {
        let answer = running.post(&format!("{POINTS}?{query}"), content_type, body);
        assert_eq!((answer.status, answer.error_code().as_str()), (status, code), "{query}: {}", answer.text);
    }
    running.stop();
}

#[test]
fn a_long_table_is_stored_in_several_records() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &[]);
    let rows: String = (0..60_000).map(|time| format!("{time},d{},{}.5\n", time % 7, time % 100)).collect();
    let answer = running.post(
        &format!("{POINTS}?labels=device"),
        "text/csv",
        format!("time,device,t\n{rows}").as_bytes(),
    );
    assert_eq!((answer.status, answer.json()["points"].as_u64()), (200, Some(60_000)), "{}", answer.text);
    assert_eq!(held(&running).len(), 60_000);
    assert!(running.metric("tidelog_log_head_records") > 2.0);
    running.stop();
}
