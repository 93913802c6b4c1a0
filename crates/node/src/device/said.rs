//! What was said of devices, as it stands in the log.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidelog_record::{Series, SiteName, Value};
use tidelog_store::Store;
use tidelog_store::catalogue::{MatchOp, Matcher};

use super::{DeviceLabels, METRIC};
use crate::asking::{self, Alternatives, DEVICE_LABEL, Unanswered};
use crate::command::NS_PER_MS;

/// The text of the point.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    set_ms: i64,
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct Writing<'s> {
    set_ms: i64,
    labels: &'s DeviceLabels,
}

/// What was said of one device at one moment. The greater of two holds: the later one, whoever wrote it down when.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Said {
    /// When it was said, Unix milliseconds.
    pub set_ms: i64,
    pub labels: DeviceLabels,
}

impl Said {
    /// As it stands in the log. None if it cannot be written, which nothing that was said comes to.
    pub fn value(&self) -> Option<Value> {
        let writing = Writing { set_ms: self.set_ms, labels: &self.labels };
        serde_json::to_string(&writing).ok().map(Value::Text)
    }

    /// What a point says of a device; none if it is nothing that is understood here.
    pub fn of(device: &str, value: &Value) -> Option<Self> {
        let Value::Text(text) = value else { return None };
        let Written { set_ms, labels } = serde_json::from_str(text).ok()?;
        set_ms.checked_mul(NS_PER_MS)?;
        Some(Self { set_ms, labels: DeviceLabels::new(device, labels).ok()? })
    }

    /// The moment it was said, Unix nanoseconds; the last there is of one that has none, which is not read.
    pub fn set_ns(&self) -> i64 {
        self.set_ms.saturating_mul(NS_PER_MS)
    }
}

/// The series in which a device's labels stand.
pub(super) fn series(device: &str) -> Result<Series, tidelog_record::SeriesError> {
    Series::new(METRIC, [(DEVICE_LABEL, device)])
}

/// Visits all that was said, with the time at which it was written down (ns), device by device. Conditions are on devices alone; a
/// device is meant if it meets all of at least one set.
pub(crate) fn said(
    store: &Store,
    site: &SiteName,
    devices: Alternatives,
    mut visit: impl FnMut(&str, i64, Said) -> ControlFlow<()>,
) -> Result<(), Unanswered> {
    let of_metric = |mut devices: Vec<Matcher>| {
        devices.push(Matcher::metric(METRIC));
        devices
    };
    let mut series = asking::chosen(store, site, &devices.into_iter().map(of_metric).collect())?;
    // What else stands under the metric was written by nobody who knows it.
    series.retain(|series| series.labels().count() == 1);
    asking::each_points(store, site, &series, i64::MIN..=i64::MAX, |series: &Arc<Series>, points| {
        let Some(device) = series.label(DEVICE_LABEL) else { return ControlFlow::Continue(()) };
        let mut all = points.iter().filter_map(|(at, value)| Some((at, Said::of(device, &value)?)));
        all.try_for_each(|(at, said)| visit(device, at, said))
    })?;
    Ok(())
}

/// What holds of each device, or of one, also where it is that there are no labels any more.
pub(crate) fn latest(
    store: &Store,
    site: &SiteName,
    device: Option<&str>,
) -> Result<BTreeMap<String, Said>, Unanswered> {
    let of_device = device.map(|device| Matcher::new(DEVICE_LABEL, MatchOp::Equal, device)).transpose()?;
    let mut latest: BTreeMap<String, Said> = BTreeMap::new();
    said(store, site, vec![of_device.into_iter().collect()], |device, _, said| {
        match latest.get_mut(device) {
            Some(known) if *known < said => *known = said,
            Some(_) => {}
            None => drop(latest.insert(device.to_owned(), said)),
        }
        ControlFlow::Continue(())
    })?;
    Ok(latest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_said_is_read_as_it_was_written(
            set_ms in 0..9_000_000_000_000i64, labels in prop::collection::btree_map("[a-c]{1,3}", "\\PC{1,9}", 0..4),
        ) {
            let labels = DeviceLabels::new("d", labels).unwrap();
            let said = Said { set_ms, labels };
            prop_assert_eq!(Said::of("d", &said.value().unwrap()), Some(said));
        }

        #[test]
        fn arbitrary_texts_are_nothing_that_was_said_and_do_no_harm(text in "\\PC{0,60}") {
            prop_assert_eq!(Said::of("d", &Value::Text(text)), None);
        }
    }

    #[test]
    fn what_a_later_program_adds_is_passed_over_and_what_cannot_be_is_not_believed() {
        let of = |text: &str| Said::of("d", &Value::Text(text.to_owned()));
        assert!(of(r#"{"set_ms":5,"labels":{"a":"1"},"by":"someone"}"#).is_some());
        for text in [
            r#"{"set_ms":9223372036854775807,"labels":{}}"#,
            r#"{"set_ms":5,"labels":{"device":"e"}}"#,
            r#"{"set_ms":5}"#,
            r#"{"labels":{}}"#,
        ] {
            assert_eq!(of(text), None, "{text}");
        }
        assert_eq!(Said::of("d", &Value::F64(1.0)), None);
    }
}
