//! A node's status document in words: what somebody wants to know at three in the morning, in the order in which they want to know it. A
//! field that is missing or new is no error, so nodes of neighbouring versions can be asked, and gateways as well as cloud nodes.

use serde_json::Value;

use crate::words::{ago, bytes, instant, printable, table};

/// The document for people.
pub fn in_words(status: &Value) -> String {
    let mut rows = Vec::new();
    let mut row = |name: &str, text: Option<String>| {
        if let Some(text) = text {
            rows.push(vec![name.to_owned(), text]);
        }
    };
    row("node", node(status));
    row("log", log(status));
    row("disk", disk(&status["disk"]));
    row("clock", clock(&status["clock"]));
    row("peers", peers(&status["peers"]));
    row("mqtt", link(&status["mqtt"]));
    row("ingest", link(&status["ingest"]));
    row(
        "commands",
        status["commands"]["waiting"].as_u64().map(|count| format!("{count} waiting for their devices")),
    );
    row("rules", rules(&status["rules"]));
    row("radio", radio(&status["radio"]));
    row("sharing", sharing(&status["sharing"]));
    let mut out = table(&rows);
    let now_ms = status["clock"]["now_ms"].as_i64();
    let parts = [cursors(&status["cursors"]), sensors(&status["radio"]["devices"], now_ms)];
    for part in parts.into_iter().flatten() {
        out.push('\n');
        out.push_str(&part);
    }
    out
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(printable)
}

fn node(status: &Value) -> Option<String> {
    let id = text(&status["node"])?;
    let of =
        |word: &str, key: &str| text(&status[key]).map(|it| format!(", {word} {it}")).unwrap_or_default();
    Some(format!("{id}{}{}", of("version", "version"), of("site", "site")))
}

fn log(status: &Value) -> Option<String> {
    let store = status["store"].as_object()?;
    let count = |key: &str| store.get(key).and_then(Value::as_u64).unwrap_or_default();
    let writes = match store.get("refusal").and_then(Value::as_str) {
        None => "takes writes".to_owned(),
        Some(refusal) => format!("takes no writes: {}", printable(refusal)),
    };
    let mut said = format!(
        "{writes}, {} records, {} points, {} series",
        count("records"),
        count("points"),
        count("series")
    );
    for (key, word) in
        [("dropped_points", "points dropped by policy"), ("rotten_segments", "segments rotten")]
    {
        if count(key) > 0 {
            said.push_str(&format!(", {} {word}", count(key)));
        }
    }
    Some(said)
}

fn rules(rules: &Value) -> Option<String> {
    let count = |key: &str| rules[key].as_u64().unwrap_or_default();
    let mut said = format!("{} for {} series", rules["rules"].as_u64()?, count("watched"));
    match (text(&rules["resting"]), count("firing_series")) {
        (Some(reason), _) => said.push_str(&format!(", resting: {reason}")),
        (None, 0) => said.push_str(", none fires"),
        (None, firing) => {
            let first = ["rule", "series"].map(|key| text(&rules["firing"][0][key]).unwrap_or_default());
            said.push_str(&format!(", {firing} fire: {} {}", first[0], first[1]));
            said.push_str(if firing > 1 { " and others" } else { "" });
        }
    }
    if let Some(error) = text(&rules["last_error"]) {
        said.push_str(&format!("; last error: {error}"));
    }
    Some(said)
}

fn disk(disk: &Value) -> Option<String> {
    let size = |key: &str| disk[key].as_u64().map(bytes);
    let mut said =
        format!("{} free of {}, {} held", size("free_bytes")?, size("total_bytes")?, size("held_bytes")?);
    match (disk["days_left"].as_f64(), disk["grows_bytes_per_day"].as_f64()) {
        (Some(days), _) => said.push_str(&format!(", lasts {days} days at the present rate")),
        (None, Some(_)) => said.push_str(", does not grow"),
        (None, None) => {}
    }
    Some(said)
}

fn clock(clock: &Value) -> Option<String> {
    let at = instant(clock["now_ms"].as_i64()? / 1000);
    let trusted = clock["trusted"].as_bool() == Some(true);
    Some(if trusted { at } else { format!("{at}, not trusted yet: nothing is dropped by age") })
}

fn peers(peers: &Value) -> Option<String> {
    let all = peers.as_array()?;
    let connected = all.iter().filter(|peer| peer["state"] == "connected").count();
    Some(format!("{connected} of {} connected (tidelog peers tells each)", all.len()))
}

fn link(link: &Value) -> Option<String> {
    let broker = text(&link["broker"])?;
    let state = match (link["connected"].as_bool(), text(&link["last_error"])) {
        (Some(true), _) => "connected".to_owned(),
        (_, Some(error)) => format!("not connected: {error}"),
        (_, None) => "not connected".to_owned(),
    };
    let lag = link["lag_records"].as_u64().map(|lag| format!(", {lag} records to publish"));
    Some(format!("{broker} {state}{}", lag.unwrap_or_default()))
}

fn radio(radio: &Value) -> Option<String> {
    let url = text(&radio["url"])?;
    let state = match (radio["open"].as_bool(), text(&radio["error"])) {
        (_, Some(error)) => format!("in trouble: {error}"),
        (Some(true), None) => "open".to_owned(),
        (_, None) => "not open".to_owned(),
    };
    let sensors = radio["devices"].as_array().map_or(0, Vec::len);
    let secured = if radio["link_security"].as_bool() == Some(true) { "secured" } else { "without a key" };
    Some(format!("{url} {state}, {secured}, {sensors} sensors heard"))
}

fn sharing(sharing: &Value) -> Option<String> {
    let served = sharing["sensors"].as_u64()?;
    let others = sharing["gateways"].as_array().into_iter().flatten().filter_map(|other| {
        let (gateway, sensors) = (text(&other["gateway"])?, other["sensors"].as_u64()?);
        let said = other["said_s_ago"]
            .as_u64()
            .map_or_else(|| "not heard of since the start".to_owned(), |s| ago(s * 1000));
        Some(format!("{gateway} {sensors} ({said})"))
    });
    let others: Vec<String> = others.collect();
    let others =
        if others.is_empty() { "no other gateway at this site".to_owned() } else { others.join(", ") };
    Some(format!("{served} sensors served here; {others}"))
}

fn cursors(cursors: &Value) -> Option<String> {
    let all = cursors.as_array().filter(|all| !all.is_empty())?;
    let mut rows = vec![["CURSOR", "BEHIND"].map(str::to_owned).to_vec()];
    rows.extend(all.iter().map(|cursor| {
        let lag =
            cursor["lag_records"].as_u64().map_or_else(|| "-".to_owned(), |lag| format!("{lag} records"));
        vec![text(&cursor["name"]).unwrap_or_default(), lag]
    }));
    Some(table(&rows))
}

fn sensors(devices: &Value, now_ms: Option<i64>) -> Option<String> {
    let all = devices.as_array().filter(|all| !all.is_empty())?;
    let head = [
        "SENSOR",
        "LAST SEEN",
        "RSSI",
        "LQI",
        "FRAMES",
        "LOST",
        "UNACKNOWLEDGED",
        "BATTERY",
        "FIRMWARE",
        "ACKNOWLEDGED UP TO",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(all.iter().map(|device| {
        let number = |key: &str| device[key].as_i64().map_or_else(|| "-".to_owned(), |it| it.to_string());
        let seen = device["last_seen_ms"].as_i64().zip(now_ms);
        let seen = seen.map(|(seen, now)| ago(u64::try_from(now.saturating_sub(seen)).unwrap_or_default()));
        let rssi = device["rssi_dbm"].as_i64().map_or_else(|| "-".to_owned(), |dbm| format!("{dbm} dBm"));
        vec![
            text(&device["device"]).unwrap_or_default(),
            seen.unwrap_or_else(|| "-".to_owned()),
            rssi,
            number("lqi"),
            number("frames"),
            lost(device).unwrap_or_else(|| "-".to_owned()),
            number("unacknowledged"),
            device["battery"]["value"].as_f64().map_or_else(|| "-".to_owned(), |value| value.to_string()),
            text(&device["firmware"]).unwrap_or_else(|| "-".to_owned()),
            number("acked_seq"),
        ]
    }));
    Some(table(&rows))
}

/// The share of a sensor's frames that never came.
fn lost(device: &Value) -> Option<String> {
    let (came, missed) = (device["frames"].as_u64()?, device["frames_missed"].as_u64()?);
    let all = came.saturating_add(missed).max(1);
    Some(format!("{:.1} %", 100.0 * missed as f64 / all as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_gateway_tells_of_itself_and_of_each_sensor() {
        let status = json!({
            "node": "ab", "version": "0.1.0", "site": "plant",
            "store": {"records": 7, "points": 80, "series": 3, "refusal": null, "dropped_points": 0, "rotten_segments": 1},
            "disk": {"free_bytes": 3_000_000u64, "total_bytes": 8_000_000u64, "held_bytes": 5_000u64, "grows_bytes_per_day": 24_000.0, "days_left": 125.0},
            "clock": {"now_ms": 1_795_248_000_500i64, "trusted": false},
            "peers": [{"state": "connected"}, {"state": "waiting"}],
            "mqtt": {"broker": "mqtt://b:1883", "connected": false, "last_error": "refused", "lag_records": 5},
            "commands": {"waiting": 2},
            "rules": {"rules": 3, "watched": 40, "firing_series": 2, "firing": [{"rule": "hot", "series": "t{room=\"lab\"}"}], "resting": null, "last_error": null},
            "cursors": [{"name": "mqtt", "lag_records": 5}],
            "radio": {"url": "zep://h:1", "open": true, "error": null, "link_security": true, "devices": [
                {"device": "02124b0000000001", "last_seen_ms": 1_795_247_880_000i64, "rssi_dbm": -71, "lqi": 200, "frames": 12, "frames_missed": 3, "unacknowledged": 0, "battery": {"metric": "battery_volts", "value": 3.01}, "firmware": "0.1.0", "acked_seq": 40},
                {"device": "02124b0000000002", "last_seen_ms": 1_795_248_000_400i64, "rssi_dbm": -80, "lqi": 90, "frames": 1, "unacknowledged": 2, "acked_seq": null},
            ]},
            "sharing": {"sensors": 2, "gateways": [
                {"gateway": "0200000000000002", "sensors": 5, "said_s_ago": 3},
                {"gateway": "0200000000000003", "sensors": 0, "said_s_ago": null},
            ]},
        });
        let expected = "\
node      ab, version 0.1.0, site plant
log       takes writes, 7 records, 80 points, 3 series, 1 segments rotten
disk      2.9 MiB free of 7.6 MiB, 4.9 KiB held, lasts 125 days at the present rate
clock     2026-11-21T08:00:00Z, not trusted yet: nothing is dropped by age
peers     1 of 2 connected (tidelog peers tells each)
mqtt      mqtt://b:1883 not connected: refused, 5 records to publish
commands  2 waiting for their devices
rules     3 for 40 series, 2 fire: hot t{room=\"lab\"} and others
radio     zep://h:1 open, secured, 2 sensors heard
sharing   2 sensors served here; 0200000000000002 5 (3 s ago), 0200000000000003 0 (not heard of since the start)

CURSOR  BEHIND
mqtt    5 records

SENSOR            LAST SEEN  RSSI     LQI  FRAMES  LOST    UNACKNOWLEDGED  BATTERY  FIRMWARE  ACKNOWLEDGED UP TO
02124b0000000001  2 min ago  -71 dBm  200  12      20.0 %  0               3.01     0.1.0     40
02124b0000000002  now        -80 dBm  90   1       -       2               -        -         -
";
        assert_eq!(in_words(&status), expected);
    }

    #[test]
    fn whoever_may_see_little_is_told_little() {
        let status = json!({"node": "ab", "version": "0.1.0", "run": "1", "streams": []});
        assert_eq!(in_words(&status), "node  ab, version 0.1.0\n");
    }
}
