//! What the service manager that started this process is told (systemd's `sd_notify`, and whoever else sets `NOTIFY_SOCKET`): that the
//! node is ready, how it is, that it still gets on, and that it ends. Where nobody asks, nobody is told, and nothing is done.

use std::time::Duration;

use sd_notify::{NotifyState, notify, watchdog_enabled};

use crate::context::NodeContext;

/// How often the state is told where there is no watchdog.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// Words in the time that a watchdog allows between two.
const WORDS_PER_WATCHDOG: u32 = 3;

/// The variable that names where to tell it.
const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// The node serves. From now on its state is told, and each word is one that the log got on: it is given only after the store has
/// answered, so that a node that hangs is started anew by a watchdog.
pub(crate) fn ready(context: &NodeContext) {
    if std::env::var_os(SOCKET_VARIABLE).is_none() {
        return;
    }
    let every = watchdog_enabled().map_or(TELL_EVERY, |most| most / WORDS_PER_WATCHDOG);
    tell(&[NotifyState::Ready, NotifyState::Status(&state(context))]);
    let context = context.clone();
    context.tasks.clone().spawn(async move {
        let shutdown = context.shutdown.clone();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
            let asked = context.clone();
            match tokio::task::spawn_blocking(move || state(&asked)).await {
                Ok(state) => tell(&[NotifyState::Watchdog, NotifyState::Status(&state)]),
                Err(error) => tracing::error!(%error, "the node's state cannot be told"),
            }
        }
    });
}

/// The node ends.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// One line.
fn state(context: &NodeContext) -> String {
    let stats = context.store.stats();
    match context.store_refusal() {
        None => format!("takes writes; {} records in the log", stats.records),
        Some(refusal) => format!("takes no writes: {refusal}"),
    }
}
