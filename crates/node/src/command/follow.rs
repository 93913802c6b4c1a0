//! Keeps the waiting rooms of sites true to the log: what may still wait is looked up once, then every record that comes is glanced at.
//! A gateway follows its own site, for that is where its sensors are; every node those whose devices keep a socket at it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memchr::memmem;
use tidelog_record::uplink::{COMMAND_ID_METRIC, CommandId};
use tidelog_record::{Batch, Body, Record, SiteName, Value};
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

/// Most sites that are followed at a time.
const SITES_MAX: usize = 256;

/// Starts to follow the node's site. What waits is known a moment later, and from then on as the log goes.
#[must_use]
pub fn follow(context: &NodeContext) -> Arc<Waiting> {
    // It is the first: there is room.
    let waiting = context.rooms.of(context, &context.site).unwrap_or_default();
    let shown = Arc::clone(&waiting);
    context.status.section("commands", move || serde_json::json!({"waiting": shown.len()}));
    waiting
}

/// The waiting rooms of a node, by site. One task follows the log for all of them.
#[derive(Clone, Debug, Default)]
pub struct Rooms(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    wake: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    is_followed: bool,
    rooms: BTreeMap<SiteName, Room>,
}

#[derive(Debug, Default)]
struct Room {
    waiting: Arc<Waiting>,
    is_looked_up: bool,
}

impl Rooms {
    /// The waiting room of a site, followed as long as anybody has it. None if too many sites are followed already.
    #[must_use]
    pub fn of(&self, context: &NodeContext, site: &SiteName) -> Option<Arc<Waiting>> {
        let mut state = self.lock();
        if state.rooms.len() >= SITES_MAX && !state.rooms.contains_key(site) {
            state.forget_left();
            if state.rooms.len() >= SITES_MAX {
                return None;
            }
        }
        let waiting = Arc::clone(&state.rooms.entry(site.clone()).or_default().waiting);
        if !std::mem::replace(&mut state.is_followed, true) {
            let follower = Follower { context: context.clone(), rooms: self.clone() };
            context.tasks.spawn(follower.run());
        }
        drop(state);
        self.0.wake.notify_one();
        Some(waiting)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // What it holds is whole after each call.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rooms in which it is not known yet what waits.
    fn unknown(&self) -> Vec<(SiteName, Arc<Waiting>)> {
        let state = self.lock();
        let unknown = state.rooms.iter().filter(|(_, room)| !room.is_looked_up);
        unknown.map(|(site, room)| (site.clone(), Arc::clone(&room.waiting))).collect()
    }

    fn looked_up(&self, site: &SiteName) {
        if let Some(room) = self.lock().rooms.get_mut(site) {
            room.is_looked_up = true;
        }
    }

    fn room(&self, site: &SiteName) -> Option<Arc<Waiting>> {
        self.lock().rooms.get(site).map(|room| Arc::clone(&room.waiting))
    }
}

impl State {
    /// Forgets the rooms that nobody has any more.
    fn forget_left(&mut self) {
        self.rooms.retain(|_, room| Arc::strong_count(&room.waiting) > 1);
    }
}

struct Follower {
    context: NodeContext,
    rooms: Rooms,
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
        let committed = Arc::clone(&self.rooms.0.wake);
        let wake = Arc::clone(&committed);
        self.context.store.on_commit(Box::new(move |_| wake.notify_one()));
        let this = Arc::new(self);
        let mut backoff = Backoff::new();
        let mut read_up_to = this.context.store.head();
        loop {
            let reader = Arc::clone(&this);
            let step = tokio::task::spawn_blocking(move || reader.step(read_up_to)).await;
            match step.map_err(|error| error.to_string()).and_then(|step| step) {
                Ok((position, more)) => {
                    backoff.reset();
                    read_up_to = position;
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

    /// Looks up what is not known, and reads on from where it was; where it is now, and whether there was anything.
    fn step(&self, after: Position) -> Result<(Position, bool), String> {
        let (store, metrics) = (&self.context.store, &self.context.metrics);
        for (site, waiting) in self.rooms.unknown() {
            // What comes meanwhile is read twice, and is the same both times.
            self.look_up(&site, &waiting).map_err(|error| error.to_string())?;
            self.rooms.looked_up(&site);
        }
        let records = store.follow(after, READ_BYTES_MAX).map_err(|error| error.to_string())?;
        let Some((last, _)) = records.last() else {
            let mut state = self.rooms.lock();
            state.forget_left();
            let all = state.rooms.values().map(|room| {
                room.waiting.forget_expired(self.context.now_ms());
                room.waiting.len()
            });
            metrics.commands_waiting.set(i64::try_from(all.sum::<usize>()).unwrap_or(i64::MAX));
            return Ok((after, false));
        };
        let last = *last;
        for (_, record) in &records {
            self.glance(record);
        }
        Ok((last, true))
    }

    fn look_up(&self, site: &SiteName, waiting: &Waiting) -> Result<(), Unanswered> {
        let store = &self.context.store;
        // A clock that has not been set yet looks at all there is.
        let issued = still_waiting(self.context.now_ms());
        for (device, id) in history::begun(store, site, None, *issued.start())? {
            waiting.begun(device, id);
        }
        history::each_order(store, site, None, issued, |order| self.take(waiting, &order))?;
        Ok(())
    }

    fn glance(&self, record: &Record) {
        let names = [METRIC, COMMAND_ID_METRIC];
        if names.iter().all(|name| memmem::find(&record.body, name.as_bytes()).is_none()) {
            return;
        }
        let Some(waiting) = self.rooms.room(&record.stream.site) else { return };
        // What cannot be read was refused or told of where it came in.
        let Ok(Body::Points(batch)) = Body::decode(&record.body) else { return };
        self.read(&waiting, &batch);
    }

    fn read(&self, waiting: &Waiting, batch: &Batch) {
        for (series, points) in &batch.series {
            match series.metric() {
                METRIC => {
                    for (at, value) in points {
                        match Order::of(series, *at, value) {
                            Some(order) => self.take(waiting, &order),
                            None => tracing::warn!(at, "a command is not understood here"),
                        }
                    }
                }
                COMMAND_ID_METRIC => {
                    let Some(device) = device_of(series) else { continue };
                    for (_, value) in points {
                        let Value::I64(number) = value else { continue };
                        if let Some(id) = u64::try_from(*number).ok().and_then(CommandId::from_number) {
                            waiting.begun(device, id);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn take(&self, waiting: &Waiting, order: &Order) {
        if !waiting.issued(order.device, order.command(), self.context.now_ms()) {
            self.context.metrics.commands_dropped.inc();
            tracing::warn!(device = %order.device, id = %order.id, "too many commands wait: one is not handed over from here");
        }
    }
}
