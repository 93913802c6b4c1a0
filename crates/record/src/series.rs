//! A series: a metric name and a sorted set of labels, as in Prometheus, and its canonical bytes.
//!
//! ```text
//! canonical := metric | label count varint | { name | value }      texts are varint length and UTF-8
//! ```
//! Labels stand in ascending order of name, each once, none with an empty value.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::ids::SeriesId;
use crate::varint::{Malformed, Reader, put_bytes, put_u64};

/// Longest canonical form of one series, in bytes.
pub const SERIES_BYTES_MAX: usize = 16 * 1024;

/// The label that stands for the metric in queries, and so is none.
const NAME_OF_METRIC: &[u8] = b"__name__";

/// Why a metric and labels are no series.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeriesError {
    /// The metric's name is not `[a-zA-Z_:][a-zA-Z0-9_:]*`.
    #[error("bad metric name {0:?}: letters, digits, '_' and ':', not starting with a digit")]
    Metric(String),
    /// A label's name is not `[a-zA-Z_][a-zA-Z0-9_]*`, or is `__name__`.
    #[error("bad label name {0:?}: letters, digits and '_', not starting with a digit, and not __name__")]
    Label(String),
    /// The whole is longer than [`SERIES_BYTES_MAX`].
    #[error("metric and labels take {bytes} bytes, the most is {SERIES_BYTES_MAX}")]
    TooLong {
        /// Length of the canonical form.
        bytes: usize,
    },
    /// The bytes are not a canonical form.
    #[error("not the canonical bytes of a series")]
    Malformed,
}

impl From<Malformed> for SeriesError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// A metric name and its labels. Invariant: valid names, no empty label value, canonical form within bounds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Series {
    metric: String,
    labels: BTreeMap<String, String>,
}

impl Series {
    /// Checks names and bounds. A label with an empty value is the same as no label, as in Prometheus.
    ///
    /// # Errors
    /// [`SeriesError`] says which name is bad.
    pub fn new<N, V>(
        metric: impl Into<String>,
        labels: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, SeriesError>
    where
        N: Into<String>,
        V: Into<String>,
    {
        let metric = metric.into();
        if !is_name(metric.as_bytes(), true) {
            return Err(SeriesError::Metric(metric));
        }
        let mut sorted = BTreeMap::new();
        for (name, value) in labels {
            let (name, value) = (name.into(), value.into());
            if !is_name(name.as_bytes(), false) || name.as_bytes() == NAME_OF_METRIC {
                return Err(SeriesError::Label(name));
            }
            if !value.is_empty() {
                sorted.insert(name, value);
            }
        }
        let series = Self { metric, labels: sorted };
        let bytes = series.canonical().len();
        if bytes > SERIES_BYTES_MAX { Err(SeriesError::TooLong { bytes }) } else { Ok(series) }
    }

    /// The metric's name.
    #[must_use]
    pub fn metric(&self) -> &str {
        &self.metric
    }

    /// The labels in ascending order of name.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// A label's value; `__name__` is the metric.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        if name == "__name__" { Some(&self.metric) } else { self.labels.get(name).map(String::as_str) }
    }

    /// The bytes that name this series everywhere.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_bytes(&mut out, self.metric.as_bytes());
        put_u64(&mut out, self.labels.len() as u64);
        for (name, value) in &self.labels {
            put_bytes(&mut out, name.as_bytes());
            put_bytes(&mut out, value.as_bytes());
        }
        out
    }

    /// The hash of the canonical bytes.
    #[must_use]
    pub fn id(&self) -> SeriesId {
        SeriesId::of_canonical(&self.canonical())
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// [`SeriesError::Malformed`] for anything [`Series::canonical`] would not write, or the name that is bad.
    pub fn from_canonical(bytes: &[u8]) -> Result<Self, SeriesError> {
        if bytes.len() > SERIES_BYTES_MAX {
            return Err(SeriesError::TooLong { bytes: bytes.len() });
        }
        let mut reader = Reader(bytes);
        let metric = reader.text()?;
        let count = reader.count(2)?;
        let mut labels = Vec::with_capacity(count);
        for _ in 0..count {
            labels.push((reader.text()?, reader.text()?));
        }
        reader.end()?;
        let ascending = labels.windows(2).all(|pair| matches!(pair, [(a, _), (b, _)] if a < b));
        if !ascending || labels.iter().any(|(_, value)| value.is_empty()) {
            return Err(SeriesError::Malformed);
        }
        Self::new(metric, labels)
    }
}

/// The labels that several series share, checked and written once: their canonical forms need no [`Series`] between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Vec<u8>);

impl Labels {
    /// Checks labels that stand in ascending order of name, none with an empty value.
    ///
    /// # Errors
    /// [`SeriesError::Label`] for a bad name, [`SeriesError::Malformed`] for labels out of order or without a value.
    pub fn ascending<'t>(
        labels: impl ExactSizeIterator<Item = (&'t str, &'t str)>,
    ) -> Result<Self, SeriesError> {
        let mut bytes = Vec::new();
        put_u64(&mut bytes, labels.len() as u64);
        for (name, value) in labels {
            put_bytes(&mut bytes, name.as_bytes());
            put_bytes(&mut bytes, value.as_bytes());
        }
        check_labels(&bytes)?;
        Ok(Self(bytes))
    }

    /// Adds the canonical form of the metric's series with these labels to `out`, which is left alone on an error.
    ///
    /// # Errors
    /// [`SeriesError`] says whether the name is bad or the whole is too long.
    pub fn put_canonical(&self, metric: &str, out: &mut Vec<u8>) -> Result<(), SeriesError> {
        check_metric(metric.as_bytes())?;
        let from = out.len();
        put_bytes(out, metric.as_bytes());
        out.extend_from_slice(&self.0);
        let bytes = out.len() - from;
        if bytes > SERIES_BYTES_MAX {
            out.truncate(from);
            return Err(SeriesError::TooLong { bytes });
        }
        Ok(())
    }
}

fn is_name(text: &[u8], colon: bool) -> bool {
    let letter = |b: u8| b.is_ascii_alphabetic() || b == b'_' || (colon && b == b':');
    text.first().is_some_and(|b| letter(*b)) && text.iter().all(|b| letter(*b) || b.is_ascii_digit())
}

/// Checks the bytes of a metric's name.
pub(crate) fn check_metric(name: &[u8]) -> Result<(), SeriesError> {
    if is_name(name, true) {
        Ok(())
    } else {
        Err(SeriesError::Metric(String::from_utf8_lossy(name).into_owned()))
    }
}

/// Checks what stands behind the metric in a canonical form, without allocating: with a checked metric before it,
/// [`Series::from_canonical`] takes it.
pub(crate) fn check_labels(bytes: &[u8]) -> Result<(), SeriesError> {
    let mut reader = Reader(bytes);
    let mut before: &[u8] = &[];
    for _ in 0..reader.count(2)? {
        let name = reader.bytes()?;
        if !is_name(name, false) || name == NAME_OF_METRIC {
            return Err(SeriesError::Label(String::from_utf8_lossy(name).into_owned()));
        }
        // No name is empty, so the first one is behind the beginning.
        if name <= before || reader.text()?.is_empty() {
            return Err(SeriesError::Malformed);
        }
        before = name;
    }
    Ok(reader.end()?)
}

/// Prometheus notation: `temperature{device="02124b0000000001"}`.
impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.metric)?;
        for (i, (name, value)) in self.labels.iter().enumerate() {
            write!(f, "{}{name}={value:?}", if i == 0 { "{" } else { "," })?;
        }
        if self.labels.is_empty() { Ok(()) } else { f.write_str("}") }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;
    use std::vec;

    #[test]
    fn order_of_labels_does_not_change_the_series() {
        let a = Series::new("temp", [("device", "1"), ("room", "x")]).unwrap();
        let b = Series::new("temp", [("room", "x"), ("device", "1"), ("empty", "")]).unwrap();
        assert_eq!(a.id(), b.id());
        assert_eq!(a.to_string(), r#"temp{device="1",room="x"}"#);
    }

    #[test]
    fn bad_names_are_told_by_name() {
        let none: [(&str, &str); 0] = [];
        assert_eq!(Series::new("1x", none), Err(SeriesError::Metric("1x".into())));
        assert_eq!(Series::new("x", [("a-b", "1")]), Err(SeriesError::Label("a-b".into())));
        assert_eq!(Series::new("x", [("__name__", "1")]), Err(SeriesError::Label("__name__".into())));
        let long = "v".repeat(SERIES_BYTES_MAX);
        assert!(matches!(Series::new("x", [("a", long.as_str())]), Err(SeriesError::TooLong { .. })));
    }

    #[test]
    fn shared_labels_are_checked_like_those_of_one_series() {
        let labels = |labels: &[(&'static str, &'static str)]| Labels::ascending(labels.iter().copied());
        assert_eq!(labels(&[("b", "1"), ("a", "1")]), Err(SeriesError::Malformed));
        assert_eq!(labels(&[("a", "")]), Err(SeriesError::Malformed));
        assert_eq!(labels(&[("__name__", "x")]), Err(SeriesError::Label("__name__".into())));
        let (mut out, good) = (vec![7], labels(&[("a", "1")]).unwrap());
        assert_eq!(good.put_canonical("1x", &mut out), Err(SeriesError::Metric("1x".into())));
        let long = "x".repeat(SERIES_BYTES_MAX);
        assert!(matches!(good.put_canonical(&long, &mut out), Err(SeriesError::TooLong { .. })));
        assert_eq!(out, [7]);
    }

    #[test]
    fn bytes_that_are_not_canonical_are_refused() {
        let good = Series::new("x", [("a", "1"), ("b", "2")]).unwrap().canonical();
        assert!(Series::from_canonical(&good).is_ok());
        let swapped = vec![1, b'x', 2, 1, b'b', 1, b'2', 1, b'a', 1, b'1'];
        assert_eq!(Series::from_canonical(&swapped), Err(SeriesError::Malformed));
        let mut trailing = good;
        trailing.push(0);
        assert_eq!(Series::from_canonical(&trailing), Err(SeriesError::Malformed));
    }

    proptest! {
        #[test]
        fn canonical_bytes_are_read_back_and_arbitrary_bytes_never_panic(
            metric in "[a-z_:][a-z0-9_:]{0,20}",
            labels in prop::collection::btree_map("[a-z_][a-z0-9_]{0,8}", ".{1,12}", 0..6),
            noise in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let shared = Labels::ascending(labels.iter().map(|(name, value)| (name.as_str(), value.as_str()))).unwrap();
            let mut canonical = Vec::new();
            shared.put_canonical(&metric, &mut canonical).unwrap();
            let series = Series::new(metric, labels).unwrap();
            prop_assert_eq!(&canonical, &series.canonical());
            prop_assert_eq!(Series::from_canonical(&canonical).unwrap(), series);
            if let Ok(read) = Series::from_canonical(&noise) {
                prop_assert_eq!(read.canonical(), noise);
            }
        }
    }
}
