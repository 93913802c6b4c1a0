//! How each peer is, for people and their monitoring: written by the tasks of peering, read by the status document. Holds no
//! decision.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;
use tidelog_record::NodeId;
use tidelog_replication::Progress;

use crate::ways::Ways;

/// Nodes that dialled us and are gone are remembered up to this many.
const ACCEPTED_PEERS_MAX: usize = 4096;

/// Where the connection with a peer stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// A connection is being made.
    #[default]
    Dialling,
    /// Waits before the next attempt.
    Waiting,
    /// Both ends have said hello.
    Connected,
    /// The peer dialled us, and is gone.
    Gone,
}

/// One peer as the status document shows it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PeerStatus {
    /// The node, once its certificate has shown it.
    pub node: Option<String>,
    /// Where it is dialled, or where it dialled from.
    pub address: String,
    /// Whether it is of the cloud.
    pub cloud: bool,
    /// Whether this node dials it.
    pub dialled: bool,
    /// Where the connection stands.
    pub state: PeerState,
    /// Milliseconds since records or an announcement last came from it.
    pub last_progress_ms_ago: Option<u64>,
    /// Why the last session or attempt ended.
    pub last_error: Option<String>,
    /// Records that it has and this node lacks; not known before the first look at a session.
    pub behind_records: Option<u64>,
    /// About what they take on their way, in bytes; not known before any record travelled.
    pub behind_bytes: Option<u64>,
    /// How long the oldest of them has been there, in seconds, as far as this process saw it.
    pub behind_s: Option<u64>,
    /// Records that this node has and it lacks; as `behind_records`.
    pub ahead_records: Option<u64>,
    /// As `behind_bytes`.
    pub ahead_bytes: Option<u64>,
    /// As `behind_s`.
    pub ahead_s: Option<u64>,
    /// Streams halted between the two because of a fork.
    pub forked_streams: usize,
    /// Bytes of records received in this session.
    pub received_bytes: u64,
    /// Bytes of records sent in this session.
    pub sent_bytes: u64,
}

/// What one side lacks, beside the number of records.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lacking {
    pub bytes: Option<u64>,
    pub seconds: Option<u64>,
}

/// What a peer is known by: the address that we dial, or the node that dials us.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PeerKey {
    Dialled(String),
    Accepted(NodeId),
}

#[derive(Clone, Debug, Default)]
struct Entry {
    status: PeerStatus,
    progress_at: Option<Instant>,
}

/// The board; clones are the same.
#[derive(Clone, Default)]
pub(super) struct Board {
    rows: Arc<Mutex<Rows>>,
    ways: Ways,
}

#[derive(Default)]
struct Rows {
    peers: BTreeMap<PeerKey, Entry>,
    /// Nodes with a session, whoever dialled.
    connected: BTreeMap<NodeId, PeerKey>,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty board; how many nodes are connected is told to `ways` too.
    pub fn new(ways: Ways) -> Self {
        Self { rows: Arc::default(), ways }
    }

    /// A dial stands at `state`, and why if something ended.
    pub fn dial(&self, address: &str, state: PeerState, error: Option<String>) {
        let mut rows = self.lock();
        let entry = rows.peers.entry(PeerKey::Dialled(address.to_owned())).or_default();
        entry.status.address = address.to_owned();
        entry.status.dialled = true;
        entry.status.state = state;
        if error.is_some() {
            entry.status.last_error = error;
        }
    }

    /// Both ends have said hello.
    pub fn connected(&self, key: &PeerKey, node: NodeId, address: &str, cloud: bool) {
        let mut rows = self.lock();
        if rows.peers.len() >= ACCEPTED_PEERS_MAX && !rows.peers.contains_key(key) {
            let gone = rows.peers.iter().find(|(_, entry)| entry.status.state == PeerState::Gone);
            if let Some(gone) = gone.map(|(key, _)| key.clone()) {
                rows.peers.remove(&gone);
            }
        }
        let entry = rows.peers.entry(key.clone()).or_default();
        entry.status = PeerStatus {
            node: Some(node.to_string()),
            address: address.to_owned(),
            cloud,
            dialled: matches!(key, PeerKey::Dialled(_)),
            state: PeerState::Connected,
            last_error: entry.status.last_error.take(),
            ..PeerStatus::default()
        };
        rows.connected.insert(node, key.clone());
        self.ways.connected_with(rows.connected.len());
    }

    /// The session is over.
    pub fn ended(&self, key: &PeerKey, node: NodeId, reason: &str) {
        let mut rows = self.lock();
        if rows.connected.get(&node) == Some(key) {
            rows.connected.remove(&node);
            self.ways.connected_with(rows.connected.len());
        }
        if let Some(entry) = rows.peers.get_mut(key) {
            entry.status.last_error = Some(reason.to_owned());
            entry.status.state = match key {
                PeerKey::Dialled(_) => PeerState::Waiting,
                PeerKey::Accepted(_) => PeerState::Gone,
            };
        }
    }

    /// How far the session is.
    pub fn progress(
        &self,
        key: &PeerKey,
        progress: &Progress,
        ahead: Lacking,
        behind: Lacking,
        progress_at: Instant,
    ) {
        if let Some(entry) = self.lock().peers.get_mut(key) {
            entry.progress_at = Some(progress_at);
            entry.status.behind_records = Some(progress.behind_records);
            (entry.status.behind_bytes, entry.status.behind_s) = (behind.bytes, behind.seconds);
            (entry.status.ahead_bytes, entry.status.ahead_s) = (ahead.bytes, ahead.seconds);
            entry.status.ahead_records = Some(progress.ahead_records);
            entry.status.forked_streams = progress.forked_streams;
            entry.status.received_bytes = progress.received_bytes;
            entry.status.sent_bytes = progress.sent_bytes;
        }
    }

    /// Whether there is a session with the node, whoever dialled.
    pub fn is_connected(&self, node: &NodeId) -> bool {
        self.lock().connected.contains_key(node)
    }

    /// All peers as they are now.
    pub fn read(&self) -> Vec<PeerStatus> {
        let now = Instant::now();
        let with_age = |entry: &Entry| PeerStatus {
            last_progress_ms_ago: entry
                .progress_at
                .and_then(|at| u64::try_from(now.saturating_duration_since(at).as_millis()).ok()),
            ..entry.status.clone()
        };
        self.lock().peers.values().map(with_age).collect()
    }

    pub fn as_json(&self) -> serde_json::Value {
        serde_json::to_value(self.read()).unwrap_or_default()
    }
}
