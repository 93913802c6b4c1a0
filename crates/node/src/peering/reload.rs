//! Certificates and lists of what is revoked, read again while the node runs: when one of the files changes, it is read with the others, and what
//! follows from it is told to those who dial, accept and hold sessions. Files that cannot be used change nothing but the status, which
//! says why. It also minds the end of this node's own certificate, so that nobody finds out by the silence.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use super::connection::Input;
use super::tls::{Files, OwnKey, Tls};
use crate::context::NodeContext;

/// How often it is looked whether a file changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// How long before its end the own certificate is warned of, in seconds: 30 days.
const WARN_BEFORE_END_S: i64 = 30 * 24 * 3600;
/// How often it is warned of.
const WARN_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// What is in force now; it changes when the files do.
pub(super) type Present = watch::Receiver<Arc<Tls>>;

pub(super) struct Reload {
    context: NodeContext,
    files: Files,
    key: Arc<OwnKey>,
    present: watch::Sender<Arc<Tls>>,
    inputs: mpsc::Sender<Input>,
    /// Why the files as they are now are not in force.
    fault: Arc<Mutex<Option<String>>>,
}

impl Reload {
    /// Puts up the status; what is in force is `tls` until a file changes.
    pub fn new(
        context: &NodeContext,
        files: Files,
        key: OwnKey,
        tls: Arc<Tls>,
        inputs: mpsc::Sender<Input>,
    ) -> (Self, Present) {
        let (sender, present) = watch::channel(tls);
        let fault = Arc::new(Mutex::new(None));
        let (shown, why) = (present.clone(), Arc::clone(&fault));
        context.status.section("certificate", move || {
            let tls = shown.borrow();
            json!({
                "valid_until_s": tls.own_until_s(),
                "cloud": tls.own().cloud,
                "revocation_lists": tls.lists(),
                "files_not_in_force": why.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            })
        });
        let this =
            Self { context: context.clone(), files, key: Arc::new(key), present: sender, inputs, fault };
        (this, present)
    }

    /// Goes on until the node ends.
    pub async fn run(self) {
        let shutdown = self.context.shutdown.clone();
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&self) {
        let mut seen = self.files.look();
        let mut warn_at = Instant::now();
        loop {
            if warn_at <= Instant::now() {
                self.mind_the_end();
                warn_at = Instant::now() + WARN_INTERVAL;
            }
            sleep(LOOK_INTERVAL).await;
            let look = self.files.look();
            if look != seen {
                seen = look;
                self.read().await;
                warn_at = Instant::now();
            }
        }
    }

    async fn read(&self) {
        let (files, key) = (self.files.clone(), Arc::clone(&self.key));
        let loaded = tokio::task::spawn_blocking(move || Tls::load(&files, &key)).await;
        let fault = match loaded {
            Ok(Ok(tls)) => {
                let tls = Arc::new(tls);
                self.present.send_replace(Arc::clone(&tls));
                tracing::info!(revocation_lists = tls.lists(), "certificates read again");
                // The machine's task is gone only when the node ends.
                drop(self.inputs.send(Input::Trust(tls)).await);
                None
            }
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(fault) = &fault {
            tracing::warn!(%fault, "changed certificates cannot be used: those from before stay in force");
        }
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    fn mind_the_end(&self) {
        let until_s = self.present.borrow().own_until_s();
        self.context.metrics.certificate_until.set(until_s);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let left_s = until_s.saturating_sub(i64::try_from(now).unwrap_or(i64::MAX));
        if left_s < 0 {
            tracing::error!("this node's certificate has expired, by its own clock: peers will refuse it");
        } else if left_s < WARN_BEFORE_END_S {
            tracing::warn!(days = left_s / (24 * 3600), "this node's certificate ends soon");
        }
    }
}
