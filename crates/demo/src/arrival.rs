//! How far the readings have come, read from the daemons' own status documents, and whether they have all arrived.
//! It polls and remembers; it breaks and mends nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value as Json;

use crate::daemon::Client;

const POLL_EVERY: Duration = Duration::from_millis(200);

/// What one daemon said last. Empty while it has not answered yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// Whether the last question was answered.
    pub answers: bool,
    /// `stream → (LSN, chain hash)`: what it holds.
    pub streams: BTreeMap<String, (u64, String)>,
    /// `cursor → records behind the head`.
    pub cursors: BTreeMap<String, u64>,
    /// Points in its log, repeats included.
    pub points: u64,
}

impl Standing {
    fn of(status: &Json) -> Self {
        let text = |json: &Json, key: &str| json[key].as_str().unwrap_or_default().to_owned();
        let rows = |key: &str| status[key].as_array().cloned().unwrap_or_default();
        let streams = rows("streams");
        let streams = streams.iter().map(|s| {
            let name = format!("{}/{}/{}", text(s, "site"), text(s, "node"), text(s, "run"));
            (name, (s["lsn"].as_u64().unwrap_or_default(), text(s, "chain")))
        });
        let cursors = rows("cursors");
        let cursors =
            cursors.iter().map(|c| (text(c, "name"), c["lag_records"].as_u64().unwrap_or_default()));
        // What a peer lacks of this node's log is the lag of replication, which is a cursor too.
        let peers = rows("peers");
        let peers = peers
            .iter()
            .filter(|peer| peer["dialled"].as_bool().unwrap_or_default())
            .map(|peer| ("uplink".to_owned(), peer["ahead_records"].as_u64().unwrap_or_default()));
        Self {
            answers: true,
            streams: streams.collect(),
            cursors: cursors.chain(peers).collect(),
            points: status["store"]["points"].as_u64().unwrap_or_default(),
        }
    }

    /// Records it holds, of all streams.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.streams.values().map(|(lsn, _)| lsn).sum()
    }

    /// Records that its slowest cursor is behind.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.cursors.values().copied().max().unwrap_or_default()
    }
}

/// Whether all of these hold the same, and nobody's cursor is behind.
#[must_use]
pub fn is_level(standings: &[Standing]) -> bool {
    let same = standings.windows(2).all(|pair| pair[0].streams == pair[1].streams);
    same && standings.iter().all(|s| s.answers && !s.streams.is_empty() && s.lag() == 0)
}

/// Polls daemons until it is dropped.
pub struct Watch {
    standings: Arc<Mutex<Vec<Standing>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Watch {
    /// Starts polling, each daemon on its own so that one that hangs holds up no other.
    #[must_use]
    pub fn start(clients: Vec<Client>) -> Self {
        let standings = Arc::new(Mutex::new(vec![Standing::default(); clients.len()]));
        let shared = standings.clone();
        let task = tokio::spawn(async move {
            let mut polls = tokio::task::JoinSet::new();
            for (index, client) in clients.into_iter().enumerate() {
                polls.spawn(poll(index, client, shared.clone()));
            }
            polls.join_all().await;
        });
        Self { standings, task }
    }

    /// What each said last.
    #[must_use]
    pub fn standings(&self) -> Vec<Standing> {
        self.standings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn poll(index: usize, client: Client, standings: Arc<Mutex<Vec<Standing>>>) {
    loop {
        let asked = client.clone();
        let answer = tokio::task::spawn_blocking(move || asked.status()).await;
        if let Some(slot) = standings.lock().unwrap_or_else(PoisonError::into_inner).get_mut(index) {
            match answer {
                Ok(Ok(status)) => *slot = Standing::of(&status),
                // A killed daemon does not answer; what it said before still stands.
                _ => slot.answers = false,
            }
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nodes_are_level_when_streams_are_equal_and_no_cursor_is_behind() {
        let status = |lsn: u64, lag: u64| {
            json!({"streams": [{"site": "s", "node": "n", "run": "r", "lsn": lsn, "chain": "c"}],
                   "cursors": [{"name": "mqtt", "lag_records": lag}],
                   "peers": [{"dialled": true, "ahead_records": lag}, {"dialled": false, "ahead_records": 9}],
                   "store": {"points": 7}})
        };
        let (full, behind) = (Standing::of(&status(5, 0)), Standing::of(&status(4, 0)));
        assert_eq!((full.points, full.records(), full.lag()), (7, 5, 0));
        assert_eq!(full.cursors.keys().collect::<Vec<_>>(), ["mqtt", "uplink"]);
        assert!(is_level(&[full.clone(), full.clone()]));
        assert!(!is_level(&[full.clone(), behind]));
        assert!(!is_level(&[full.clone(), Standing::of(&status(5, 1))]));
        assert!(!is_level(&[full, Standing::default()]));
    }
}
