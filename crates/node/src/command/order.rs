//! One command as a point, and as people write its act.

use serde::{Deserialize, Serialize};
use tidelog_record::uplink::{Act, Command, CommandId};
use tidelog_record::{DeviceId, NodeId, Series, Value};
use tidelog_store::catalogue::{MatchOp, Matcher, MatcherError};

use super::history::State;
use super::{METRIC, NS_PER_MS};
use crate::asking::DEVICE_LABEL;

const NODE_LABEL: &str = "node";

/// What is to be done, in JSON: `"read"`, `{"every": {"interval_ms": 5000}}`, `{"switch": {"output": 0, "on": true}}`, `"reboot"`,
/// `{"identify": {"seconds": 10}}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum ActForm {
    Read,
    Every { interval_ms: u32 },
    Switch { output: u8, on: bool },
    Reboot,
    Identify { seconds: u8 },
}

impl From<ActForm> for Act {
    fn from(form: ActForm) -> Self {
        match form {
            ActForm::Read => Self::Read,
            ActForm::Every { interval_ms } => Self::Every { interval_ms },
            ActForm::Switch { output, on } => Self::Switch { output, on },
            ActForm::Reboot => Self::Reboot,
            ActForm::Identify { seconds } => Self::Identify { seconds },
        }
    }
}

impl ActForm {
    /// The form of what is to be done; none of what is not known here.
    pub fn of(act: Act) -> Option<Self> {
        Some(match act {
            Act::Read => Self::Read,
            Act::Every { interval_ms } => Self::Every { interval_ms },
            Act::Switch { output, on } => Self::Switch { output, on },
            Act::Reboot => Self::Reboot,
            Act::Identify { seconds } => Self::Identify { seconds },
            Act::Unknown(_) => return None,
        })
    }
}

/// The text of the point.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    act: ActForm,
    expires_ms: i64,
}

/// A command, who it is for and who issued it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub device: DeviceId,
    pub author: NodeId,
    pub id: CommandId,
    pub act: ActForm,
    /// From this moment on it must not be begun, Unix milliseconds.
    pub expires_ms: i64,
}

impl Order {
    /// The id of what `author` issues at `issued_ms`; none for a time that is no present.
    pub fn id(author: NodeId, issued_ms: i64) -> Option<CommandId> {
        let [a, b, ..] = author.0;
        CommandId::new(issued_ms, u16::from_be_bytes([a, b]))
    }

    /// As it is handed to the device.
    pub fn command(&self) -> Command {
        Command { id: self.id, expires_ms: self.expires_ms, act: self.act.into() }
    }

    /// As whoever issued it is told of it.
    pub fn told(&self) -> serde_json::Value {
        serde_json::json!({
            "id": self.id.to_string(),
            "device": self.device.to_string(),
            "node": self.author.to_string(),
            "issued_ms": self.id.issued_ms(),
            "expires_ms": self.expires_ms,
            "act": self.act,
            "state": State::Waiting,
        })
    }

    /// As it stands in the log: series, time in ns, value. None if it cannot be written, which no order comes to.
    pub fn point(&self) -> Option<(Series, i64, Value)> {
        let labels = [(DEVICE_LABEL, self.device.to_string()), (NODE_LABEL, self.author.to_string())];
        let written = Written { act: self.act, expires_ms: self.expires_ms };
        let text = serde_json::to_string(&written).ok()?;
        let at = self.id.issued_ms().checked_mul(NS_PER_MS)?;
        Some((Series::new(METRIC, labels).ok()?, at, Value::Text(text)))
    }

    /// What a point says; none if it is no command that is understood here.
    pub fn of(series: &Series, time_ns: i64, value: &Value) -> Option<Self> {
        let Value::Text(text) = value else { return None };
        let device = device_of(series)?;
        let author = series.label(NODE_LABEL)?.parse().ok()?;
        if series.metric() != METRIC || series.labels().count() != 2 || time_ns % NS_PER_MS != 0 {
            return None;
        }
        let Written { act, expires_ms } = serde_json::from_str(text).ok()?;
        Some(Self { device, author, id: Self::id(author, time_ns / NS_PER_MS)?, act, expires_ms })
    }
}

/// The device that a series is of.
pub(super) fn device_of(series: &Series) -> Option<DeviceId> {
    series.label(DEVICE_LABEL)?.parse().ok()
}

/// The condition that a series is of this device.
pub(crate) fn device_is(device: DeviceId) -> Result<Matcher, MatcherError> {
    Matcher::new(DEVICE_LABEL, MatchOp::Equal, device.to_string())
}

/// The condition that a series is of this metric, and, where one is meant, of this device.
pub(crate) fn metric_is(metric: &str, device: Option<DeviceId>) -> Result<Vec<Matcher>, MatcherError> {
    let mut all = vec![Matcher::new("__name__", MatchOp::Equal, metric)?];
    if let Some(device) = device {
        all.push(device_is(device)?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn any_act() -> impl Strategy<Value = ActForm> {
        prop_oneof![
            Just(ActForm::Read),
            any::<u32>().prop_map(|interval_ms| ActForm::Every { interval_ms }),
            (any::<u8>(), any::<bool>()).prop_map(|(output, on)| ActForm::Switch { output, on }),
            Just(ActForm::Reboot),
            any::<u8>().prop_map(|seconds| ActForm::Identify { seconds }),
        ]
    }

    proptest! {
        #[test]
        fn an_order_is_read_as_it_was_written(
            device: [u8; 8], author: [u8; 16], ms in 1..9_000_000_000_000i64, act in any_act(), expires_ms: i64,
        ) {
            let author = NodeId(author);
            let id = Order::id(author, ms).unwrap();
            let order = Order { device: DeviceId(device), author, id, act, expires_ms };
            let (series, at, value) = order.point().unwrap();
            prop_assert_eq!(Order::of(&series, at, &value), Some(order));
            prop_assert_eq!(Order::of(&series, at + 1, &value), None, "ids are of whole milliseconds");
        }
    }

    #[test]
    fn an_act_is_written_as_the_manual_has_it() {
        let cases = [
            (r#""read""#, ActForm::Read),
            (r#"{"every":{"interval_ms":5000}}"#, ActForm::Every { interval_ms: 5000 }),
            (r#"{"switch":{"output":0,"on":true}}"#, ActForm::Switch { output: 0, on: true }),
            (r#""reboot""#, ActForm::Reboot),
            (r#"{"identify":{"seconds":10}}"#, ActForm::Identify { seconds: 10 }),
        ];
        for (text, act) in cases {
            assert_eq!(serde_json::from_str::<ActForm>(text).unwrap(), act);
            assert_eq!(serde_json::to_string(&act).unwrap(), text);
            assert_eq!(ActForm::of(act.into()), Some(act));
        }
        for text in [r#""explode""#, r#"{"every":{}}"#, r#"{"switch":{"output":0,"on":true,"off":1}}"#] {
            assert!(serde_json::from_str::<ActForm>(text).is_err(), "{text}");
        }
    }
}
