//! The labels that a device may have: names and bounds, checked once. It knows no log and no device but its name.

use std::collections::BTreeMap;

use serde::Serialize;
use tidelog_record::{Series, SeriesError};

use super::INFO_METRIC;
use crate::asking::DEVICE_LABEL;

/// Most labels of one device.
const LABELS_MAX: usize = 32;

/// Longest names and values of one device's labels together, in bytes.
const LABELS_BYTES_MAX: usize = 2048;

/// Longest name of a device that labels can be given to, in bytes.
const DEVICE_BYTES_MAX: usize = 256;

/// What the names of labels begin with that Prometheus keeps for itself.
const INNER: &str = "__";

/// Why labels are none that a device may have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LabelsError {
    #[error("a device's name has 1 to {DEVICE_BYTES_MAX} bytes")]
    Device,
    #[error("label {0:?}: the device's own name is no label that is given")]
    Own(String),
    #[error("label {0:?}: names that begin with {INNER} mean something else in PromQL")]
    Inner(String),
    #[error("{0} labels: the most are {LABELS_MAX}")]
    TooMany(usize),
    #[error("names and values take {0} bytes, the most are {LABELS_BYTES_MAX}")]
    TooLong(usize),
    #[error(transparent)]
    Series(#[from] SeriesError),
}

/// Labels of a device, none with an empty value. Invariant: with the device's name they make a series.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub(crate) struct DeviceLabels(BTreeMap<String, String>);

impl DeviceLabels {
    /// Checks the labels of a device. One with an empty value is no label.
    pub fn new(device: &str, mut labels: BTreeMap<String, String>) -> Result<Self, LabelsError> {
        if !(1..=DEVICE_BYTES_MAX).contains(&device.len()) {
            return Err(LabelsError::Device);
        }
        if labels.len() > LABELS_MAX {
            return Err(LabelsError::TooMany(labels.len()));
        }
        let bytes = labels.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > LABELS_BYTES_MAX {
            return Err(LabelsError::TooLong(bytes));
        }
        if let Some(name) = labels.keys().find(|name| name.starts_with(INNER)) {
            return Err(LabelsError::Inner(name.clone()));
        }
        if let Some((name, _)) = labels.get_key_value(DEVICE_LABEL) {
            return Err(LabelsError::Own(name.clone()));
        }
        labels.retain(|_, value| !value.is_empty());
        let checked = Self(labels);
        checked.series(device)?;
        Ok(checked)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The series that PromQL sees while a device has these.
    pub fn series(&self, device: &str) -> Result<Series, SeriesError> {
        let own = [(DEVICE_LABEL, device)].into_iter();
        Series::new(INFO_METRIC, own.chain(self.0.iter().map(|(n, v)| (n.as_str(), v.as_str()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Result<DeviceLabels, LabelsError> {
        let labels = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        DeviceLabels::new("d1", labels)
    }

    #[test]
    fn a_device_may_have_what_a_series_may_within_bounds() {
        let given = labels(&[("location", "boiler room"), ("type", "sht4x"), ("floor", "")]).unwrap();
        let series =
            Series::new("device_info", [("device", "d1"), ("location", "boiler room"), ("type", "sht4x")]);
        assert_eq!(given.series("d1"), series);
        assert!(labels(&[]).unwrap().is_empty() && labels(&[("a", "")]).unwrap().is_empty());

        let long = "x".repeat(LABELS_BYTES_MAX);
        assert_eq!(labels(&[("a", &long)]), Err(LabelsError::TooLong(LABELS_BYTES_MAX + 1)));
        assert!(labels(&[("a", &long[1..])]).is_ok());
        assert_eq!(labels(&[("device", "d2")]), Err(LabelsError::Own("device".to_owned())));
        for name in ["__name__", "__address__"] {
            assert_eq!(labels(&[(name, "x")]), Err(LabelsError::Inner(name.to_owned())));
        }
        for name in ["", "no label", "1st", "a:b", "ü"] {
            assert!(matches!(labels(&[(name, "x")]), Err(LabelsError::Series(_))), "{name}");
        }
        let many = |count: usize| (0..count).map(|n| (format!("l{n}"), "x".to_owned())).collect();
        assert!(DeviceLabels::new("d1", many(LABELS_MAX)).is_ok());
        assert_eq!(DeviceLabels::new("d1", many(LABELS_MAX + 1)), Err(LabelsError::TooMany(LABELS_MAX + 1)));
        for device in [String::new(), "d".repeat(DEVICE_BYTES_MAX + 1)] {
            assert_eq!(DeviceLabels::new(&device, BTreeMap::new()), Err(LabelsError::Device));
        }
    }
}
