//! What became of commands, told from the points in the log: so every node that holds the same tells the same of them.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, RangeInclusive};

use serde::Serialize;
use tidelog_record::uplink::{COMMAND_ID_METRIC, COMMAND_STATE_METRIC, CommandId, CommandState};
use tidelog_record::{DeviceId, SiteName, Value};
use tidelog_store::catalogue::{CatalogueError, MatcherError};
use tidelog_store::{ScanError, Store};

use super::order::{device_of, metric_is};
use super::{ActForm, METRIC, Order};
use crate::asking;

const NS_PER_MS: i64 = 1_000_000;

/// Most commands looked at for one question.
pub(crate) const COMMANDS_READ_MAX: usize = 10_000;

/// What the log cannot tell.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HistoryError {
    #[error(transparent)]
    Matcher(#[from] MatcherError),
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    #[error(transparent)]
    Scan(#[from] ScanError),
    #[error("more than {COMMANDS_READ_MAX} commands are meant: ask for a shorter time or for one device")]
    TooMany,
}

/// How far a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// The device has not said that it began, and may still begin.
    Waiting,
    /// It was not begun in time, as far as is known here.
    Expired,
    /// A later one was begun, so this one will not be.
    Superseded,
    /// The device began.
    Started,
    /// Done.
    Done,
    /// The board could not do it.
    Failed,
    /// The board does not know how.
    Unsupported,
    /// The board started anew in between; whether it was done is not known.
    Interrupted,
}

impl From<CommandState> for State {
    fn from(state: CommandState) -> Self {
        match state {
            CommandState::Started => Self::Started,
            CommandState::Done => Self::Done,
            CommandState::Failed => Self::Failed,
            CommandState::Unsupported => Self::Unsupported,
            CommandState::Interrupted => Self::Interrupted,
        }
    }
}

/// One command and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Told {
    pub id: String,
    pub device: String,
    /// Where it was issued.
    pub node: String,
    pub issued_ms: i64,
    pub expires_ms: i64,
    pub act: ActForm,
    pub state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<i64>,
}

/// What devices have said.
#[derive(Debug, Default)]
pub(super) struct Words {
    by_command: BTreeMap<(DeviceId, CommandId), Word>,
    /// The greatest begun, by device.
    pub begun: BTreeMap<DeviceId, CommandId>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Word {
    started_ms: Option<i64>,
    ended: Option<(i64, CommandState)>,
}

/// Commands issued within a time (ns), the latest last, with what became of them as of `now_ms`.
pub(crate) fn history(
    store: &Store,
    site: &SiteName,
    device: Option<DeviceId>,
    issued: RangeInclusive<i64>,
    now_ms: i64,
) -> Result<Vec<Told>, HistoryError> {
    let start = *issued.start();
    let mut orders = orders(store, site, device, issued)?;
    orders.sort_unstable_by_key(|order| (order.id, order.device.0));
    let words = words(store, site, device, start)?;
    let told = |order: Order| {
        let word = words.by_command.get(&(order.device, order.id)).copied().unwrap_or_default();
        let superseded = words.begun.get(&order.device).is_some_and(|begun| order.id < *begun);
        let state = match word {
            Word { ended: Some((_, state)), .. } => state.into(),
            Word { started_ms: Some(_), .. } => State::Started,
            Word { .. } if superseded => State::Superseded,
            Word { .. } if now_ms >= order.expires_ms => State::Expired,
            Word { .. } => State::Waiting,
        };
        Told {
            id: order.id.to_string(),
            device: order.device.to_string(),
            node: order.author.to_string(),
            issued_ms: order.id.issued_ms(),
            expires_ms: order.expires_ms,
            act: order.act,
            state,
            started_ms: word.started_ms,
            ended_ms: word.ended.map(|(at, _)| at),
        }
    };
    Ok(orders.into_iter().map(told).collect())
}

/// The commands issued within a time, in no order.
pub(super) fn orders(
    store: &Store,
    site: &SiteName,
    device: Option<DeviceId>,
    issued: RangeInclusive<i64>,
) -> Result<Vec<Order>, HistoryError> {
    let series = asking::chosen(store, site, &vec![metric_is(METRIC, device)?])?;
    let (mut found, mut too_many) = (Vec::new(), false);
    asking::each_points(store, site, &series, issued, |series, points| {
        found.extend(points.iter().filter_map(|(at, value)| Order::of(series, at, &value)));
        too_many = found.len() > COMMANDS_READ_MAX;
        if too_many { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if too_many { Err(HistoryError::TooMany) } else { Ok(found) }
}

/// What devices have said since a time (ns).
pub(super) fn words(
    store: &Store,
    site: &SiteName,
    device: Option<DeviceId>,
    start: i64,
) -> Result<Words, HistoryError> {
    let metrics = [COMMAND_ID_METRIC, COMMAND_STATE_METRIC];
    let meant = metrics.iter().map(|metric| metric_is(metric, device)).collect::<Result<Vec<_>, _>>()?;
    let series = asking::chosen(store, site, &meant)?;
    let (mut ids, mut states) = (BTreeMap::new(), BTreeMap::new());
    asking::each_points(store, site, &series, start..=i64::MAX, |series, points| {
        if let Some(device) = device_of(series).filter(|_| series.labels().count() == 1) {
            let of = if series.metric() == COMMAND_ID_METRIC { &mut ids } else { &mut states };
            of.extend(points.iter().filter_map(|(at, value)| match value {
                Value::I64(number) => Some(((device, at), number)),
                Value::F64(_) | Value::Bool(_) | Value::Text(_) => None,
            }));
        }
        ControlFlow::Continue(())
    })?;
    let mut words = Words::default();
    for ((device, at), number) in ids {
        let id = u64::try_from(number).ok().and_then(CommandId::from_number);
        let state = states.get(&(device, at)).copied().and_then(CommandState::from_number);
        let (Some(id), Some(state)) = (id, state) else { continue };
        let word = words.by_command.entry((device, id)).or_default();
        match state {
            CommandState::Started => word.started_ms = word.started_ms.or(Some(at / NS_PER_MS)),
            ended => word.ended = word.ended.or(Some((at / NS_PER_MS, ended))),
        }
        let begun = words.begun.entry(device).or_insert(id);
        *begun = id.max(*begun);
    }
    Ok(words)
}
