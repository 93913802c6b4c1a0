//! What became of commands, told from the points in the log: so every node that holds the same tells the same of them.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, RangeInclusive};

use serde::Serialize;
use tidelog_record::uplink::{COMMAND_ID_METRIC, COMMAND_STATE_METRIC, CommandId, CommandState};
use tidelog_record::{DeviceId, SiteName, Value};
use tidelog_store::Store;

use super::order::{device_of, metric_is};
use super::{ActForm, METRIC, NS_PER_MS, Order};
use crate::asking::{self, Unanswered};

/// Words kept of one command at most: it says two, and who repeats itself says nothing new.
const WORDS_PER_COMMAND_MAX: usize = 4;

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

/// Which commands are asked for.
#[derive(Clone, Debug)]
pub(crate) struct Meant {
    pub device: Option<DeviceId>,
    pub id: Option<CommandId>,
    /// When they were issued, in ns.
    pub issued: RangeInclusive<i64>,
    /// Of more, the latest.
    pub count_max: usize,
}

/// What a device said of a command.
#[derive(Clone, Copy, Debug, Default)]
struct Word {
    started_ms: Option<i64>,
    ended: Option<(i64, CommandState)>,
}

/// The commands that are meant, the latest last, with what became of them as of `now_ms`; and how many more there are. What is held
/// meanwhile is bounded by what is told, however much stands in the log.
pub(crate) fn history(
    store: &Store,
    site: &SiteName,
    meant: &Meant,
    now_ms: i64,
) -> Result<(Vec<Told>, u64), Unanswered> {
    let (mut kept, mut left_out) = (BTreeMap::new(), 0);
    each_order(store, site, meant.device, meant.issued.clone(), |order| {
        if meant.id.is_none_or(|id| id == order.id) {
            kept.insert((order.id, order.device.0), order);
        }
        if kept.len() > meant.count_max {
            kept.pop_first();
            left_out += 1;
        }
    })?;
    let Some(first) = kept.first_key_value().map(|((id, _), _)| id.issued_ms()) else {
        return Ok((Vec::new(), left_out));
    };
    let start = first.saturating_mul(NS_PER_MS);
    let begun = begun(store, site, meant.device, start)?;
    let words = words(store, site, meant.device, start, &kept)?;
    let told = |order: Order| {
        let word = words.get(&(order.id, order.device.0)).copied().unwrap_or_default();
        let superseded = begun.get(&order.device).is_some_and(|begun| order.id < *begun);
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
    Ok((kept.into_values().map(told).collect(), left_out))
}

/// Whether a command is one that was issued to this device.
pub(crate) fn is_issued(
    store: &Store,
    site: &SiteName,
    device: DeviceId,
    id: CommandId,
) -> Result<bool, Unanswered> {
    let (at, mut is_issued) = (id.issued_ms().saturating_mul(NS_PER_MS), false);
    each_order(store, site, Some(device), at..=at, |order| is_issued |= order.id == id)?;
    Ok(is_issued)
}

/// Visits the commands issued within a time (ns), in no order.
pub(super) fn each_order(
    store: &Store,
    site: &SiteName,
    device: Option<DeviceId>,
    issued: RangeInclusive<i64>,
    mut visit: impl FnMut(Order),
) -> Result<(), Unanswered> {
    let series = asking::chosen(store, site, &vec![metric_is(METRIC, device)?])?;
    asking::each_points(store, site, &series, issued, |series, points| {
        points.iter().filter_map(|(at, value)| Order::of(series, at, &value)).for_each(&mut visit);
        ControlFlow::Continue(())
    })?;
    Ok(())
}

/// The greatest command that each device has begun since a time (ns).
pub(super) fn begun(
    store: &Store,
    site: &SiteName,
    device: Option<DeviceId>,
    start: i64,
) -> Result<BTreeMap<DeviceId, CommandId>, Unanswered> {
    let mut begun = BTreeMap::new();
    each_number(store, site, (COMMAND_ID_METRIC, device), start, |device, _, number| {
        if let Some(id) = u64::try_from(number).ok().and_then(CommandId::from_number) {
            let greatest = begun.entry(device).or_insert(id);
            *greatest = id.max(*greatest);
        }
    })?;
    Ok(begun)
}

/// What devices have said of these commands since a time (ns).
fn words(
    store: &Store,
    site: &SiteName,
    device: Option<DeviceId>,
    start: i64,
    of: &BTreeMap<(CommandId, [u8; 8]), Order>,
) -> Result<BTreeMap<(CommandId, [u8; 8]), Word>, Unanswered> {
    let (mut moments, mut counts) = (BTreeMap::new(), BTreeMap::new());
    each_number(store, site, (COMMAND_ID_METRIC, device), start, |device, at, number| {
        let id = u64::try_from(number).ok().and_then(CommandId::from_number);
        let Some(name) = id.map(|id| (id, device.0)).filter(|name| of.contains_key(name)) else { return };
        let count = counts.entry(name).or_insert(0);
        if *count < WORDS_PER_COMMAND_MAX {
            *count += 1;
            moments.insert((device.0, at), name);
        }
    })?;
    let mut words: BTreeMap<_, Word> = BTreeMap::new();
    each_number(store, site, (COMMAND_STATE_METRIC, device), start, |device, at, number| {
        let Some(name) = moments.get(&(device.0, at)) else { return };
        let word = words.entry(*name).or_default();
        match CommandState::from_number(number) {
            Some(CommandState::Started) => word.started_ms = word.started_ms.or(Some(at / NS_PER_MS)),
            Some(ended) => word.ended = word.ended.or(Some((at / NS_PER_MS, ended))),
            None => {}
        }
    })?;
    Ok(words)
}

/// Visits the whole numbers that devices have said in a metric since a time (ns), each device's in order of time.
fn each_number(
    store: &Store,
    site: &SiteName,
    (metric, device): (&str, Option<DeviceId>),
    start: i64,
    mut visit: impl FnMut(DeviceId, i64, i64),
) -> Result<(), Unanswered> {
    let series = asking::chosen(store, site, &vec![metric_is(metric, device)?])?;
    asking::each_points(store, site, &series, start..=i64::MAX, |series, points| {
        if let Some(device) = device_of(series).filter(|_| series.labels().count() == 1) {
            for (at, value) in points.iter() {
                if let Value::I64(number) = value {
                    visit(device, at, number);
                }
            }
        }
        ControlFlow::Continue(())
    })?;
    Ok(())
}
