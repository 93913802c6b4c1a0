//! What was said of devices as PromQL sees it: for each set of labels that a device has had, from when to when. Pure.

use std::collections::BTreeMap;

use tidelog_record::Series;
use tidelog_store::catalogue::Matcher;

use super::{DeviceLabels, INFO_METRIC, Said};
use crate::asking::Alternatives;

const NAME_LABEL: &str = "__name__";

/// Of each series when it began (`true`) and ended to hold, ns ascending, each time once.
pub(crate) type Timelines = BTreeMap<Series, Vec<(i64, bool)>>;

/// Of the conditions those under which the metric could be meant.
pub(crate) fn could_mean(alternatives: &Alternatives) -> Alternatives {
    let is_met = |matcher: &Matcher| matcher.name() != NAME_LABEL || matcher.holds_for(INFO_METRIC);
    alternatives.iter().filter(|all| all.iter().all(is_met)).cloned().collect()
}

/// The timelines of all devices, from what was said of each, in any order and as often as it was written down.
pub(crate) fn timelines(said: BTreeMap<String, Vec<Said>>) -> Timelines {
    let mut timelines = Timelines::new();
    for (device, said) in said {
        // At one moment the greatest holds.
        let mut by_moment: BTreeMap<i64, DeviceLabels> = BTreeMap::new();
        for said in said {
            let labels = by_moment.entry(said.set_ns()).or_default();
            *labels = said.labels.max(std::mem::take(labels));
        }
        let mut holds: Option<Series> = None;
        for (at, labels) in by_moment {
            // What was read is a series.
            let next = (!labels.is_empty()).then(|| labels.series(&device).ok()).flatten();
            if next == holds {
                continue;
            }
            if let Some(ended) = holds.take() {
                timelines.entry(ended).or_default().push((at, false));
            }
            if let Some(begun) = &next {
                timelines.entry(begun.clone()).or_default().push((at, true));
            }
            holds = next;
        }
    }
    timelines
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidelog_store::catalogue::MatchOp;

    fn labels(location: u8) -> DeviceLabels {
        let location = if location == 0 { String::new() } else { format!("room {location}") };
        DeviceLabels::new("d", [("location".to_owned(), location)].into()).unwrap()
    }

    proptest! {
        /// The model looks through all that was said for each moment, device by device.
        #[test]
        fn at_each_moment_the_greatest_of_what_was_said_until_then_holds_and_nothing_else(
            said in prop::collection::vec((0..3u8, 0..12i64, 0..4u8), 0..20),
        ) {
            let mut by_device: BTreeMap<String, Vec<Said>> = BTreeMap::new();
            for (device, set_ms, location) in &said {
                let said = Said { set_ms: *set_ms, labels: labels(*location) };
                by_device.entry(device.to_string()).or_default().push(said);
            }
            let timelines = timelines(by_device.clone());
            for changes in timelines.values() {
                prop_assert!(changes.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 != two[1].1));
                prop_assert!(changes[0].1, "begins by beginning");
            }
            for ms in -1..14i64 {
                let expected: Vec<Series> = by_device.iter().filter_map(|(device, said)| {
                    let newest = said.iter().filter(|said| said.set_ms <= ms).max()?;
                    (!newest.labels.is_empty()).then(|| newest.labels.series(device).unwrap())
                }).collect();
                let at = ms * 1_000_000;
                let holds = |changes: &Vec<(i64, bool)>| changes.iter().rfind(|(from, _)| *from <= at).is_some_and(|(_, holds)| *holds);
                let mut found: Vec<Series> = timelines.iter().filter(|(_, changes)| holds(changes)).map(|(series, _)| series.clone()).collect();
                let mut expected = expected;
                found.sort();
                expected.sort();
                prop_assert_eq!(found, expected, "at {} ms", ms);
            }
        }
    }

    #[test]
    fn only_conditions_that_the_metric_can_meet_are_asked_of_it() {
        let named = |op, value: &str| vec![Matcher::new("__name__", op, value).unwrap()];
        let of_room = vec![Matcher::new("room", MatchOp::Equal, "lab").unwrap()];
        let all = vec![
            named(MatchOp::Equal, "device_info"),
            named(MatchOp::Equal, "temperature"),
            named(MatchOp::Regex, "dev.*"),
            named(MatchOp::NotEqual, "device_info"),
            of_room,
        ];
        assert_eq!(could_mean(&all).len(), 3);
        assert!(could_mean(&vec![named(MatchOp::Equal, "temperature")]).is_empty());
    }
}
