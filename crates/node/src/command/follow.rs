//! Keeps a [`Waiting`] true to the log: what may still wait is looked up once, then every record that comes is glanced at. A gateway
//! follows its own site, for that is where its devices are.

use std::sync::Arc;

use memchr::memmem;
use tidelog_record::uplink::{COMMAND_ID_METRIC, CommandId};
use tidelog_record::{Batch, Body, Record, Value};
use tidelog_store::Position;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::history;
use super::issue::still_waiting;
use super::order::{Order, device_of};
use super::{METRIC, Waiting};
use crate::asking::Unanswered;
use crate::backoff::{Backoff, random};
use crate::context::NodeContext;

/// Most bytes of records read from the log at a time.
const READ_BYTES_MAX: usize = 256 * 1024;

/// Starts to follow the node's site. What waits is known a moment later, and from then on as the log goes.
#[must_use]
pub fn follow(context: &NodeContext) -> Arc<Waiting> {
    let waiting = Arc::new(Waiting::default());
    let shown = Arc::clone(&waiting);
    context.status.section("commands", move || serde_json::json!({"waiting": shown.len()}));
    let follower = Follower { context: context.clone(), waiting: Arc::clone(&waiting) };
    context.tasks.spawn(follower.run());
    waiting
}

struct Follower {
    context: NodeContext,
    waiting: Arc<Waiting>,
}

impl Follower {
    async fn run(self) {
        let shutdown = self.context.shutdown.clone();
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(self) {
        let committed = Arc::new(Notify::new());
        let wake = Arc::clone(&committed);
        self.context.store.on_commit(Box::new(move |_| wake.notify_one()));
        let this = Arc::new(self);
        let mut backoff = Backoff::new();
        let mut read_up_to = None;
        loop {
            let reader = Arc::clone(&this);
            let step = tokio::task::spawn_blocking(move || reader.step(read_up_to)).await;
            match step.map_err(|error| error.to_string()).and_then(|step| step) {
                Ok((position, more)) => {
                    backoff.reset();
                    read_up_to = Some(position);
                    if !more {
                        committed.notified().await;
                    }
                }
                Err(reason) => {
                    tracing::error!(reason, "commands in the log cannot be read; trying on");
                    sleep(backoff.next(random())).await;
                }
            }
        }
    }

    /// Reads on from where it was, or begins; where it is now, and whether there was anything.
    fn step(&self, read_up_to: Option<Position>) -> Result<(Position, bool), String> {
        let (store, metrics) = (&self.context.store, &self.context.metrics);
        let Some(after) = read_up_to else {
            // What comes meanwhile is read twice, and is the same both times.
            let head = store.head();
            self.look_up().map_err(|error| error.to_string())?;
            return Ok((head, true));
        };
        let records = store.follow(after, READ_BYTES_MAX).map_err(|error| error.to_string())?;
        let Some((last, _)) = records.last() else {
            self.waiting.forget_expired(self.context.now_ms());
            metrics.commands_waiting.set(i64::try_from(self.waiting.len()).unwrap_or(i64::MAX));
            return Ok((after, false));
        };
        let last = *last;
        for (_, record) in &records {
            self.glance(record);
        }
        Ok((last, true))
    }

    fn look_up(&self) -> Result<(), Unanswered> {
        let (store, site) = (&self.context.store, &self.context.site);
        // A clock that has not been set yet looks at all there is.
        let issued = still_waiting(self.context.now_ms());
        for (device, id) in history::begun(store, site, None, *issued.start())? {
            self.waiting.begun(device, id);
        }
        history::each_order(store, site, None, issued, |order| self.take(&order))?;
        Ok(())
    }

    fn glance(&self, record: &Record) {
        let names = [METRIC, COMMAND_ID_METRIC];
        let worth_it = names.iter().any(|name| memmem::find(&record.body, name.as_bytes()).is_some());
        if record.stream.site != self.context.site || !worth_it {
            return;
        }
        // What cannot be read was refused or told of where it came in.
        let Ok(Body::Points(batch)) = Body::decode(&record.body) else { return };
        self.read(&batch);
    }

    fn read(&self, batch: &Batch) {
        for (series, points) in &batch.series {
            match series.metric() {
                METRIC => {
                    for (at, value) in points {
                        match Order::of(series, *at, value) {
                            Some(order) => self.take(&order),
                            None => tracing::warn!(at, "a command is not understood here"),
                        }
                    }
                }
                COMMAND_ID_METRIC => {
                    let Some(device) = device_of(series) else { continue };
                    for (_, value) in points {
                        let Value::I64(number) = value else { continue };
                        if let Some(id) = u64::try_from(*number).ok().and_then(CommandId::from_number) {
                            self.waiting.begun(device, id);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn take(&self, order: &Order) {
        if !self.waiting.issued(order.device, order.command(), self.context.now_ms()) {
            self.context.metrics.commands_dropped.inc();
            tracing::warn!(device = %order.device, id = %order.id, "too many commands wait: one is not handed over from here");
        }
    }
}
