//! The nodes that a node replicates with, as a table: read off the section `peers` of its status document. A field that is
//! missing or new is no error, so nodes of neighbouring versions can be asked.

use serde_json::Value;

use crate::words::{ago, bytes, length, printable, table};

/// The section as it is, for programs. `null` when the node has no peering.
pub fn section(status: &Value) -> Value {
    serde_json::json!({ "node": status["node"], "peers": status["peers"] })
}

/// The section for people.
pub fn in_words(status: &Value) -> String {
    let Some(peers) = status["peers"].as_array() else {
        return "This node replicates with nobody: neither peering.listen nor peering.peers is set.\n"
            .to_owned();
    };
    if peers.is_empty() {
        return "No peers: this node dials nobody, and nobody has dialled it since it started.\n".to_owned();
    }
    let head = ["NODE", "ADDRESS", "STATE", "TO FETCH", "TO SEND", "LAST PROGRESS", "LAST ERROR"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(peers.iter().map(row));
    table(&rows)
}

fn row(peer: &Value) -> Vec<String> {
    let text = |key: &str| peer[key].as_str().map_or_else(|| "-".to_owned(), printable);
    let count = |side: &str| {
        let part = |what: &str| peer[format!("{side}_{what}")].as_u64();
        let Some(records) = part("records") else { return "-".to_owned() };
        let bytes = part("bytes").filter(|_| records > 0).map(|count| format!(", {}", bytes(count)));
        let age = part("s").filter(|_| records > 0).map(|s| format!(", {}", length(s)));
        format!("{records}{}{}", bytes.unwrap_or_default(), age.unwrap_or_default())
    };
    let state = match peer["forked_streams"].as_u64() {
        None | Some(0) => text("state"),
        Some(forked) => format!("{}, {forked} forked", text("state")),
    };
    let progress = peer["last_progress_ms_ago"].as_u64().map_or_else(|| "-".to_owned(), ago);
    let connected = peer["state"] == "connected";
    // What was counted in a session that is over says nothing about now.
    let lag = |key| if connected { count(key) } else { "-".to_owned() };
    vec![text("node"), text("address"), state, lag("behind"), lag("ahead"), progress, text("last_error")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_peer_is_a_line_with_its_lag_and_its_last_error() {
        let status = json!({"node": "n", "peers": [
            {"node": "aa11", "address": "cloud:8434", "dialled": true, "state": "connected", "behind_records": 7,
             "behind_bytes": 2150, "behind_s": 61, "ahead_records": 0, "ahead_bytes": 0, "ahead_s": 0, "last_progress_ms_ago": 2500, "last_error": null, "forked_streams": 0},
            {"node": null, "address": "b:1", "dialled": true, "state": "waiting", "behind_records": 9, "ahead_records": 9,
             "last_progress_ms_ago": null, "last_error": "cannot connect:\nrefused", "forked_streams": 0},
            {"node": "cc33", "address": "10.0.0.9:4711", "state": "connected", "forked_streams": 2, "a_field_to_come": 1},
        ]});
        let expected = "\
NODE  ADDRESS        STATE                TO FETCH           TO SEND  LAST PROGRESS  LAST ERROR
aa11  cloud:8434     connected            7, 2.1 KiB, 1 min  0        2 s ago        -
-     b:1            waiting              -                  -        -              cannot connect:\u{fffd}refused
cc33  10.0.0.9:4711  connected, 2 forked  -                  -        -              -
";
        assert_eq!(in_words(&status), expected);
        assert_eq!(section(&status)["peers"], status["peers"]);
    }

    #[test]
    fn no_peering_and_nobody_yet_are_said_in_different_words() {
        assert!(in_words(&json!({"node": "n"})).contains("peering.listen"));
        assert!(in_words(&json!({"node": "n", "peers": []})).starts_with("No peers"));
    }
}
