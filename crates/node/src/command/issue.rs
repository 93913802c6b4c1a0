//! Issuing a command: whatever it comes by, it is checked here, gets its id here, and is durable when this says so.
//!
//! One command is issued at a time at a node, so that its id is new and greater than those known here for its device.

use std::ops::RangeInclusive;
use std::sync::Arc;

use serde::Deserialize;
use tidelog_record::{Batch, DeviceId, Series, SiteName, Value};
use tidelog_store::catalogue::{CatalogueError, MatcherError};
use tidelog_store::{AppendError, Appended, Store};
use tokio::sync::{Mutex, MutexGuard, oneshot};

use super::history::{begun, each_order};
use super::order::device_is;
use super::{ActForm, EXPIRES_S_MAX, METRIC, NS_PER_MS, Order, WAITING_PER_DEVICE_MAX};
use crate::asking::{self, Unanswered};
use crate::clock::EARLIEST_MS;
use crate::context::NodeContext;
use crate::device;

/// How long a command may wait to be begun when nobody says, in seconds.
const EXPIRES_S_DEFAULT: u32 = 3600;

const NS_PER_S: i64 = 1_000_000_000;

/// How far ids of a device's commands may run ahead of the clock when several are issued within a millisecond, in milliseconds. What is further
/// ahead was issued by a clock that was wrong, and the next ones do not follow it.
const AHEAD_MS_MAX: i64 = 1_000;

/// Whoever issues a command holds it.
#[derive(Clone, Debug, Default)]
pub struct Issuing(Arc<Mutex<()>>);

impl Issuing {
    /// Waits until nobody else issues.
    pub(crate) async fn hold(&self) -> MutexGuard<'_, ()> {
        self.0.lock().await
    }
}

/// What is to be done, and for how long it may wait: what people post.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wish {
    pub act: ActForm,
    pub expires_s: Option<u32>,
}

impl Wish {
    /// Whether any device could be asked for it; for how long it may wait.
    pub fn check(&self) -> Result<u32, IssueError> {
        let expires_s = self.expires_s.unwrap_or(EXPIRES_S_DEFAULT);
        if !(1..=EXPIRES_S_MAX).contains(&expires_s) {
            return Err(IssueError::Expires(expires_s));
        }
        match self.act {
            ActForm::Every { interval_ms: 0 } => Err(IssueError::Interval),
            _ => Ok(expires_s),
        }
    }
}

/// Why no command was issued.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IssueError {
    #[error("expires_s {0}: from 1 to {EXPIRES_S_MAX}")]
    Expires(u32),
    #[error("every: interval_ms is at least 1")]
    Interval,
    #[error("device {device} has sent nothing that is known here at {site}")]
    UnknownDevice { device: DeviceId, site: SiteName },
    #[error("{0} commands wait for the device already, the most there may be")]
    TooMany(usize),
    #[error("this node's clock is not set: a command could not be said to expire")]
    Clock,
    #[error(transparent)]
    History(#[from] Unanswered),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error("the command cannot be written")]
    Unwritten,
    #[error("the node is ending")]
    Ending,
}

impl From<CatalogueError> for IssueError {
    fn from(error: CatalogueError) -> Self {
        Self::History(error.into())
    }
}

impl From<MatcherError> for IssueError {
    fn from(error: MatcherError) -> Self {
        Self::History(error.into())
    }
}

/// The command, once it is durable here, and where it stands.
pub(crate) async fn issue(
    context: &NodeContext,
    site: &SiteName,
    device: DeviceId,
    wish: Wish,
) -> Result<(Order, Appended), IssueError> {
    // Held until it is durable: the next one looks at what is in the log.
    let _issuing = context.issuing.hold().await;
    let (order, point) = order(context, site, device, wish).await?;
    let (series, at, value) = point;
    let authored_ms = context.now_ms();
    let batch = Batch { authored_ms, origin: None, series: vec![(series, vec![(at, value)])] };
    let record = batch.encode().map_err(|_| IssueError::Unwritten)?;
    let (done, outcome) = oneshot::channel();
    context.store.append(site, record, move |appended| {
        // Whoever asked went away: it is issued all the same.
        drop(done.send(appended));
    });
    let appended = outcome.await.map_err(|_| IssueError::Ending)??;
    context.metrics.commands_issued.inc();
    Ok((order, appended))
}

/// A wish as an order with its id, and as the point that it becomes. Whoever asks holds [`Issuing`] until that point is durable.
pub(crate) async fn order(
    context: &NodeContext,
    site: &SiteName,
    device: DeviceId,
    wish: Wish,
) -> Result<(Order, (Series, i64, Value)), IssueError> {
    let expires_s = wish.check()?;
    let now_ms = context.now_ms();
    if now_ms < EARLIEST_MS {
        return Err(IssueError::Clock);
    }
    let expires_ms = now_ms.saturating_add(i64::from(expires_s) * 1000);
    let (store, asked) = (context.store.clone(), site.clone());
    let looked = tokio::task::spawn_blocking(move || next_issued_ms(&store, &asked, device, now_ms)).await;
    let issued_ms = looked.map_err(|_| IssueError::Ending)??;
    let author = context.store.node();
    let id = Order::id(author, issued_ms).ok_or(IssueError::Clock)?;
    let order = Order { device, author, id, act: wish.act, expires_ms };
    let point = order.point().ok_or(IssueError::Unwritten)?;
    Ok((order, point))
}

/// The moment that the next command to the device is issued at, if there may be one.
fn next_issued_ms(store: &Store, site: &SiteName, device: DeviceId, now_ms: i64) -> Result<i64, IssueError> {
    let of_device = asking::chosen(store, site, &vec![vec![device_is(device)?]])?;
    // What people say of a device and to it is no word of the device's.
    let is_of_people = |metric: &str| [METRIC, device::METRIC].contains(&metric);
    if of_device.iter().all(|series| is_of_people(series.metric())) {
        return Err(IssueError::UnknownDevice { device, site: site.clone() });
    }
    let issued = still_waiting(now_ms);
    let begun = begun(store, site, Some(device), *issued.start())?.get(&device).copied();
    let (mut waiting, mut last) = (0, None);
    each_order(store, site, Some(device), issued, |order| {
        // What was begun, or comes before what was, is over.
        waiting += usize::from(Some(order.id) > begun && now_ms < order.expires_ms);
        last = last
            .max(Some(order.id.issued_ms()).filter(|issued| *issued <= now_ms.saturating_add(AHEAD_MS_MAX)));
    })?;
    if waiting >= WAITING_PER_DEVICE_MAX {
        return Err(IssueError::TooMany(waiting));
    }
    Ok(last.map_or(now_ms, |last| now_ms.max(last + 1)))
}

/// When what may still wait was issued, in ns.
pub(crate) fn still_waiting(now_ms: i64) -> RangeInclusive<i64> {
    let longest_ns = i64::from(EXPIRES_S_MAX) * NS_PER_S;
    now_ms.saturating_mul(NS_PER_MS).saturating_sub(longest_ns)..=i64::MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidelog_record::NodeId;
    use tidelog_store::StoreOptions;

    #[test]
    fn commands_of_one_millisecond_get_ids_of_their_own_and_follow_no_clock_that_was_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(dir.path(), StoreOptions::new(NodeId([7; 16]))).unwrap();
        let (site, device) = ("plant".parse::<SiteName>().unwrap(), DeviceId([1; 8]));
        let write = |series, at, value| {
            let batch = Batch { authored_ms: 0, origin: None, series: vec![(series, vec![(at, value)])] };
            store.append_blocking(&site, batch.encode().unwrap()).unwrap();
        };
        let issue = |issued_ms: i64| {
            let id = Order::id(store.node(), issued_ms).unwrap();
            let order = Order {
                device,
                author: store.node(),
                id,
                act: ActForm::Read,
                expires_ms: issued_ms + 60_000,
            };
            let (series, at, value) = order.point().unwrap();
            write(series, at, value);
        };
        let now_ms = EARLIEST_MS + 1_000_000;
        let of_device = Series::new("temperature", [("device", device.to_string())]).unwrap();
        write(of_device, now_ms * NS_PER_MS, Value::I64(1));
        issue(now_ms + 2 * AHEAD_MS_MAX);
        for number in 0..10 {
            let issued_ms = next_issued_ms(&store, &site, device, now_ms).unwrap();
            assert_eq!(issued_ms, now_ms + number);
            issue(issued_ms);
        }
        assert_eq!(next_issued_ms(&store, &site, device, now_ms + 500).unwrap(), now_ms + 500);
    }
}
