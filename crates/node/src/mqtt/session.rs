//! What bridge and ingest have in common: why a session with a broker ended, and how the link is, told to the log, to the
//! metrics and to the status document in one place.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tidelog_store::{AppendError, ReadError};
use tracing::{info, warn};

use super::client::{Gone, Lost};
use super::window::Disagreement;
use crate::metrics::Metrics;
use crate::settings::BrokerUrl;

/// Longest time without an acknowledgement while messages are in flight, in seconds.
pub(super) const ACKNOWLEDGEMENT_S_MAX: u64 = 60;

/// Longest time to finish what is in hand and to take leave when the node ends, in seconds.
pub(super) const FAREWELL_S_MAX: u64 = 2;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionEnd {
    #[error("{0}")]
    Lost(#[from] Lost),
    #[error("no acknowledgement from the broker for {ACKNOWLEDGEMENT_S_MAX} s")]
    Silent,
    #[error("{0}")]
    Disagreement(#[from] Disagreement),
    #[error("cannot read the log: {0}")]
    Log(#[from] ReadError),
    #[error("the log does not take it: {0}")]
    Store(AppendError),
    #[error("{0}")]
    Client(#[from] Gone),
    #[error("ended by this node")]
    Farewell,
}

impl SessionEnd {
    /// The reason as a metric's label.
    fn label(&self) -> &'static str {
        match self {
            Self::Lost(Lost::Refused { .. }) => "refused",
            Self::Lost(Lost::Subscription(_)) => "subscription",
            Self::Lost(Lost::Tls(_)) => "tls",
            Self::Lost(Lost::Packet(_)) => "packet",
            Self::Lost(Lost::Ended(_) | Lost::Connection(_)) => "connection",
            Self::Lost(Lost::Stuck) | Self::Silent => "silent",
            Self::Disagreement(_) | Self::Client(_) => "protocol",
            Self::Log(_) | Self::Store(_) => "log",
            Self::Farewell => "shutdown",
        }
    }
}

/// How a link to a broker is, for the status document.
#[derive(Clone, Debug, Serialize)]
pub struct LinkStatus {
    /// The broker; no user and no password in it.
    pub broker: String,
    /// Whether a session stands.
    pub connected: bool,
    /// Sessions since the node started.
    pub sessions: u64,
    /// Why the last session ended, or the last attempt failed.
    pub last_error: Option<String>,
}

/// One link to a broker, over all its sessions.
pub(super) struct Link {
    role: &'static str,
    metrics: Arc<Metrics>,
    status: Mutex<LinkStatus>,
}

impl Link {
    pub fn new(role: &'static str, broker: &BrokerUrl, metrics: Arc<Metrics>) -> Self {
        metrics.mqtt_connected.with_label_values(&[role]).set(0);
        let status =
            LinkStatus { broker: broker.to_string(), connected: false, sessions: 0, last_error: None };
        Self { role, metrics, status: Mutex::new(status) }
    }

    pub fn read(&self) -> LinkStatus {
        lock(&self.status).clone()
    }

    /// The broker took the connection.
    pub fn stands(&self) {
        self.metrics.mqtt_connected.with_label_values(&[self.role]).set(1);
        self.metrics.mqtt_sessions.with_label_values(&[self.role]).inc();
        let mut status = lock(&self.status);
        status.connected = true;
        status.sessions += 1;
        info!(role = self.role, broker = status.broker, "connected to the MQTT broker");
    }

    pub fn ended(&self, end: &SessionEnd) {
        self.metrics.mqtt_connected.with_label_values(&[self.role]).set(0);
        let mut status = lock(&self.status);
        let stood = std::mem::replace(&mut status.connected, false);
        if let SessionEnd::Farewell = end {
            info!(role = self.role, broker = status.broker, "took leave of the MQTT broker");
            return;
        }
        self.metrics.mqtt_failures.with_label_values(&[self.role, end.label()]).inc();
        let text = end.to_string();
        // A broker that stays away is told once, not at every attempt.
        if stood || status.last_error.as_ref() != Some(&text) {
            warn!(
                role = self.role,
                broker = status.broker,
                error = text,
                "no session with the MQTT broker; trying again"
            );
        }
        status.last_error = Some(text);
    }

    /// A message or record that cannot be carried over this link, counted by reason.
    pub fn failed(&self, reason: &str) {
        self.metrics.mqtt_failures.with_label_values(&[self.role, reason]).inc();
    }
}

/// The value behind a mutex. Each is held for a few assignments, which leave it whole if they panic.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
