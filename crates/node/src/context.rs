//! What a running node hands to each of its parts: the store, the counters, a place for their status, and the word that
//! ends them. Parts know this and their own section of the settings, and not each other.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tidelog_record::SiteName;
use tidelog_store::{Store, WriteState};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::command::{Issuing, Rooms};
use crate::held::HeldElsewhere;
use crate::metrics::Metrics;
use crate::ways::Ways;

/// The machine's clock, Unix milliseconds; a time before 1970 is 0.
pub(crate) fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// What every part of a node receives. Cheap to clone; all clones are the same node.
#[derive(Clone)]
pub struct NodeContext {
    /// The log.
    pub store: Store,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// The site of readings that name none.
    pub site: SiteName,
    /// The node's directory, for files a part keeps beside the log.
    pub dir: PathBuf,
    /// What other nodes are known to hold.
    pub held: HeldElsewhere,
    /// Whether there is a way to any other node.
    pub ways: Ways,
    /// One command is issued at a time.
    pub issuing: Issuing,
    /// The commands that wait at this node for their devices.
    pub rooms: Rooms,
    /// Sections of `/api/v1/status`.
    pub status: StatusBoard,
    /// Cancelled when the node is to end. A part then finishes what it has in hand within [`crate::SHUTDOWN_S_MAX`].
    pub shutdown: CancellationToken,
    /// Every task of a part is spawned here; the store is closed when all have ended.
    pub tasks: TaskTracker,
}

impl NodeContext {
    /// The machine's clock, Unix milliseconds: for `authored_ms` and answers to sensors, never for order.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        wall_ms()
    }

    /// Why the store takes no writes now; `None` while it does.
    #[must_use]
    pub fn store_refusal(&self) -> Option<String> {
        match self.store.write_state() {
            WriteState::Ready => None,
            WriteState::Full => Some("the disk is full".to_owned()),
            WriteState::Failed(reason) => Some(format!("the store takes no more writes: {reason}")),
        }
    }
}

type Section = Box<dyn Fn() -> serde_json::Value + Send + Sync>;

/// Where parts say how they are: named sections of the status document, each written when it is asked for.
#[derive(Clone, Default)]
pub struct StatusBoard(Arc<Mutex<BTreeMap<&'static str, Section>>>);

impl StatusBoard {
    /// Puts a section up; it must answer at once, without waiting. A second one of the same name replaces the first.
    pub fn section(&self, name: &'static str, write: impl Fn() -> serde_json::Value + Send + Sync + 'static) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name, Box::new(write));
    }

    /// All sections as they are now.
    #[must_use]
    pub fn read(&self) -> serde_json::Map<String, serde_json::Value> {
        let sections = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sections.iter().map(|(name, write)| ((*name).to_owned(), write())).collect()
    }
}

/// Why a node does not start. Each part adds to it what an operator has to change.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting that was read well cannot be used; the key is named as in the file.
    #[error("{key}: {reason}")]
    Setting {
        /// The key with its section, as `peering.cert`.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Two settings say what is kept of one site, or of all.
    #[error("store.keep: {} stands twice", .0.as_ref().map_or("a rule without a site", |site| site.as_str()))]
    KeepTwice(Option<SiteName>),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for {purpose}: {source}")]
    Bind {
        /// What it is for: `http`, `peering`.
        purpose: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// A file or directory cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The log cannot be opened.
    #[error("{}: {source}", dir.display())]
    Store {
        /// The node's directory.
        dir: PathBuf,
        /// What the store says.
        source: tidelog_store::OpenError,
    },
    /// The file of tokens cannot be used.
    #[error(transparent)]
    Tokens(#[from] crate::door::TokenFileError),
    /// The file of rules cannot be used.
    #[error(transparent)]
    Rules(#[from] crate::rule::RulesFileError),
    /// The node's key or certificate cannot be used.
    #[error("identity: {0}")]
    Identity(String),
    /// The counters cannot be made.
    #[error(transparent)]
    Metrics(#[from] crate::metrics::MetricsError),
}
