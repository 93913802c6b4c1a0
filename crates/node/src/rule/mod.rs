//! Rules: a point that matches becomes a command, an MQTT message or another point, on the node whose configuration says so, whether
//! or not it reaches any other.
//!
//! ```text
//! log ──▶ follow ──▶ machine ──▶ transition ──▶ one record: tidelog_rule, tidelog_rule_value, what is derived, tidelog_command
//!                    (pure)                       ├──▶ whoever follows the log: queries, peers, the gateway that hears the device
//!                                                 └──▶ the MQTT bridge: the rule's message, from the bridge's own cursor
//! ```
//! A transition and all that follows from it is one record, so none of it can be cut off from the rest, and there is no second queue.
//! What is not recorded has not happened: after a crash the rules begin anew from what the log says. docs/RULES.md is the published
//! form.

mod board;
mod carry;
mod condition;
mod file;
mod follow;
mod machine;
pub(crate) mod message;
#[cfg(test)]
mod model;
pub(crate) mod record;

use std::sync::Arc;

use tidelog_query::Selector;
use tidelog_record::{DeviceId, SiteName};

pub use file::{RuleError, RulesFileError};
pub use follow::start;

use crate::command::issue::Wish;
use condition::Condition;
use message::MessageForm;

/// Most rules of a node.
pub const RULES_MAX: usize = 64;

/// One rule.
#[derive(Debug)]
pub(crate) struct Rule {
    name: String,
    site: SiteName,
    selector: Selector,
    condition: Condition,
    /// Points that are older when they are read are not judged, ns.
    fresh_ns: i64,
    command: Option<CommandForm>,
    message: Option<MessageForm>,
    /// What is derived.
    metric: Option<String>,
}

/// What a device is told.
#[derive(Clone, Copy, Debug)]
struct CommandForm {
    /// The device that the series is of, without it.
    device: Option<DeviceId>,
    begins: Wish,
    clears: Option<Wish>,
}

/// The rules of a node. Cheap to clone; all clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Rules(Option<Arc<[Arc<Rule>]>>);

impl Rules {
    fn all(&self) -> &[Arc<Rule>] {
        self.0.as_deref().unwrap_or_default()
    }

    fn named(&self, site: &SiteName, name: &str) -> Option<&Rule> {
        self.all().iter().find(|rule| rule.name == name && rule.site == *site).map(Arc::as_ref)
    }
}
