//! Giving a device labels: what is said gets its moment here, and is durable when this says so.

use tidelog_record::{Batch, SiteName};
use tidelog_store::{AppendError, Appended};
use tokio::sync::oneshot;

use super::said::series;
use super::{DeviceLabels, Said, latest};
use crate::asking::Unanswered;
use crate::clock::EARLIEST_MS;
use crate::context::NodeContext;

/// Why nothing was said.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GiveError {
    #[error("this node's clock is not set: it could not be said since when the labels hold")]
    Clock,
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error("the labels cannot be written")]
    Unwritten,
    #[error("the node is ending")]
    Ending,
}

/// Says that from now on a device has these labels and no others: what was said, once it is durable here, and where it stands. Whoever
/// asks sees to it that nobody else asks meanwhile.
pub(crate) async fn give(
    context: &NodeContext,
    site: &SiteName,
    device: &str,
    labels: DeviceLabels,
) -> Result<(Said, Appended), GiveError> {
    let now_ms = context.now_ms();
    if now_ms < EARLIEST_MS {
        return Err(GiveError::Clock);
    }
    let (store, asked, named) = (context.store.clone(), site.clone(), device.to_owned());
    let before = tokio::task::spawn_blocking(move || latest(&store, &asked, Some(&named)));
    let before = before.await.map_err(|_| GiveError::Ending)??.remove(device);
    // It is to hold from now on also where another node's clock was ahead.
    let set_ms = before.as_ref().map_or(now_ms, |before| now_ms.max(before.set_ms.saturating_add(1)));
    let said = Said { set_ms, labels };
    let mut points = Vec::with_capacity(2);
    if let Some(before) = before.filter(|before| !before.labels.is_empty()) {
        // What ends is said once more: so policy drops none of it before the readings that it labels.
        points.push((said.set_ns().saturating_sub(1), before.value().ok_or(GiveError::Unwritten)?));
    }
    points.push((said.set_ns(), said.value().ok_or(GiveError::Unwritten)?));
    let series = series(device).map_err(|_| GiveError::Unwritten)?;
    let batch = Batch { authored_ms: now_ms, origin: None, series: vec![(series, points)] };
    let record = batch.encode().map_err(|_| GiveError::Unwritten)?;
    let (done, outcome) = oneshot::channel();
    context.store.append(site, record, move |appended| {
        // Whoever asked went away: it is said all the same.
        drop(done.send(appended));
    });
    let appended = outcome.await.map_err(|_| GiveError::Ending)??;
    Ok((said, appended))
}
