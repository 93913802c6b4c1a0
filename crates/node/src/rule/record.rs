//! A transition as points, and the state of rules read from such points again: the log is the only place where it is remembered.
//!
//! ```text
//! tidelog_rule{rule="hot", rule_metric="temperature", rule_node="…", and the labels of the series}        1 begun, 0 cleared
//! tidelog_rule_value{the same}                                                                            what was measured
//! alarm_hot{rule="hot", rule_metric="temperature", and the labels of the series}                          1 or 0, where the rule asks for it
//! ```
//! What rules write has the label `rule`, and a series with such a label is watched by no rule: so there are no loops, on one node or
//! over several.

use tidelog_record::{NodeId, Series, SeriesError, Value};

use super::machine::Transition;
use crate::{command, device};

/// Whether a rule fires.
pub(crate) const METRIC: &str = "tidelog_rule";
/// What was measured when that changed.
pub(crate) const VALUE_METRIC: &str = "tidelog_rule_value";

const RULE_LABEL: &str = "rule";
const METRIC_LABEL: &str = "rule_metric";
/// The node that judged. Its own word alone is taken up again at a start.
const NODE_LABEL: &str = "rule_node";

/// Whether a rule may watch the series: not what rules or people who command write, and nothing whose labels would not come back from
/// a transition's points.
pub(super) fn may_be_watched(series: &Series, rule: &str, node: NodeId) -> bool {
    let is_free = [RULE_LABEL, METRIC_LABEL, NODE_LABEL].iter().all(|label| series.label(label).is_none());
    let is_of_people = [command::METRIC, device::METRIC].contains(&series.metric());
    is_free && !is_of_people && named(VALUE_METRIC, series, rule, Some(node)).is_ok()
}

/// The points of a transition; `metric` is what the rule has derived.
pub(super) fn points(
    transition: &Transition,
    metric: Option<&str>,
    node: NodeId,
) -> Result<Vec<(Series, i64, Value)>, SeriesError> {
    let Transition { rule, series, firing, at_ns, value } = transition;
    let state = Value::I64(i64::from(*firing));
    let mut points = vec![(named(METRIC, series, rule, Some(node))?, *at_ns, state.clone())];
    if let Some(value) = value {
        points.push((named(VALUE_METRIC, series, rule, Some(node))?, *at_ns, Value::F64(*value)));
    }
    if let Some(metric) = metric {
        points.push((named(metric, series, rule, None)?, *at_ns, state));
    }
    Ok(points)
}

fn named(metric: &str, series: &Series, rule: &str, node: Option<NodeId>) -> Result<Series, SeriesError> {
    let node = node.map(|node| (NODE_LABEL.to_owned(), node.to_string()));
    let own = [(RULE_LABEL, rule), (METRIC_LABEL, series.metric())].into_iter().chain(series.labels());
    Series::new(metric, own.map(|(name, value)| (name.to_owned(), value.to_owned())).chain(node))
}

/// Whose state a series of [`METRIC`] or [`VALUE_METRIC`] tells: the rule and the series that it watches. None if another node judged.
pub(super) fn watched(told: &Series, node: NodeId) -> Option<(String, Series)> {
    if !is_of(told, node) {
        return None;
    }
    let labels = told.labels().filter(|(name, _)| ![RULE_LABEL, METRIC_LABEL, NODE_LABEL].contains(name));
    let series = Series::new(told.label(METRIC_LABEL)?, labels).ok()?;
    Some((told.label(RULE_LABEL)?.to_owned(), series))
}

/// Whether a series tells what the rules of this node say.
pub(crate) fn is_of(told: &Series, node: NodeId) -> bool {
    told.label(NODE_LABEL).is_some_and(|label| label == node.to_string())
}

/// What a value of [`METRIC`] says.
pub(super) fn is_firing(value: &Value) -> Option<bool> {
    match value {
        Value::I64(0) => Some(false),
        Value::I64(1) => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NODE: NodeId = NodeId([0xab; 16]);

    #[test]
    fn what_people_say_of_devices_and_to_them_is_watched_by_no_rule() {
        for (metric, may) in
            [("tidelog_device_labels", false), ("tidelog_command", false), ("device_info", true)]
        {
            let series = Series::new(metric, [("device", "d1")]).unwrap();
            assert_eq!(may_be_watched(&series, "silence", NODE), may, "{metric}");
        }
    }

    proptest! {
        #[test]
        fn the_series_comes_back_from_the_points_of_its_transition(
            metric in "[a-z_]{1,9}", labels in prop::collection::btree_map("(rule|[a-z]{1,4}|rule_metric|rule_node)", "[a-z]{1,3}", 0..4),
            firing: bool, at_ns: i64, value in prop::option::of(any::<f64>()),
        ) {
            let series = Series::new(metric, labels).unwrap();
            let may = !["rule", "rule_metric", "rule_node"].iter().any(|label| series.label(label).is_some());
            prop_assert_eq!(may_be_watched(&series, "hot", NODE), may);
            prop_assume!(may);
            let transition = Transition { rule: "hot".to_owned(), series: series.clone(), firing, at_ns, value };
            let points = points(&transition, Some("alarm"), NODE).unwrap();
            prop_assert_eq!(points.len(), 2 + usize::from(value.is_some()));
            for (told, at, _) in &points {
                prop_assert_eq!(*at, at_ns);
                prop_assert!(!may_be_watched(told, "other", NODE), "{} would be watched", told);
            }
            prop_assert_eq!(watched(&points[0].0, NODE), Some(("hot".to_owned(), series)));
            prop_assert_eq!(is_firing(&points[0].2), Some(firing));
            prop_assert_eq!(watched(&points[0].0, NodeId([1; 16])), None);
        }
    }
}
