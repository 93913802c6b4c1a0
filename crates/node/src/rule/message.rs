//! The MQTT messages of transitions. They are made from the records that tell of transitions when the bridge comes to them, so they
//! come as surely and as often as the records themselves: each at least once, in order, from the bridge's cursor.

use serde_json::json;
use tidelog_record::{Batch, NodeId, Series, SiteName, Value};

use super::Rules;
use super::record::{METRIC, VALUE_METRIC, is_firing, watched};
use crate::mqtt::topic::TopicTemplate;

/// Longest text of a message, in bytes.
pub(super) const TEXT_BYTES_MAX: usize = 4096;

const DEVICE_LABEL: &str = "device";

/// Where a rule's messages go, and what they say.
#[derive(Debug)]
pub(super) struct MessageForm {
    pub topic: TopicTemplate,
    /// The text when it begins. Without either text both are told in JSON; with one alone the other is not told.
    pub begins: Option<String>,
    /// The text when it clears.
    pub clears: Option<String>,
    pub retain: bool,
}

/// A message to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuleMessage {
    pub topic: String,
    pub payload: Vec<u8>,
    pub retain: bool,
}

impl Rules {
    /// What is to be published for a record of this node.
    pub(crate) fn messages(&self, site: &SiteName, node: NodeId, batch: &Batch) -> Vec<RuleMessage> {
        if self.all().iter().all(|rule| rule.message.is_none()) {
            return Vec::new();
        }
        let told = batch.series.iter().filter(|(series, _)| series.metric() == METRIC);
        let each =
            told.flat_map(|(series, points)| points.iter().map(move |(at, value)| (series, *at, value)));
        each.filter_map(|(told, at_ns, value)| {
            let (name, series) = watched(told, node)?;
            let form = self.named(site, &name)?.message.as_ref()?;
            let firing = is_firing(value)?;
            let payload = match (&form.begins, &form.clears) {
                (None, None) => {
                    let mut said = json!({
                        "rule": name, "firing": firing, "site": site.as_str(), "node": node.to_string(),
                        "metric": series.metric(), "timestamp_ns": at_ns,
                    });
                    said["labels"] =
                        series.labels().map(|(name, value)| (name.to_owned(), json!(value))).collect();
                    if let Some(measured) = measured(batch, told, at_ns) {
                        said["value"] = json!(measured);
                    }
                    said.to_string()
                }
                (begins, clears) => if firing { begins } else { clears }.clone()?,
            };
            let device = series.label(DEVICE_LABEL).and_then(|label| label.parse().ok());
            let topic = form.topic.topic(site, node, device);
            Some(RuleMessage { topic, payload: payload.into_bytes(), retain: form.retain })
        })
        .collect()
    }
}

/// What was measured, which stands beside the transition in its record.
fn measured(batch: &Batch, told: &Series, at_ns: i64) -> Option<f64> {
    let beside = |series: &Series| series.metric() == VALUE_METRIC && series.labels().eq(told.labels());
    let mut points = batch.series.iter().filter(|(series, _)| beside(series)).flat_map(|(_, points)| points);
    points.find(|(at, _)| *at == at_ns).and_then(|(_, value)| match value {
        Value::F64(value) => Some(*value),
        _ => None,
    })
}
