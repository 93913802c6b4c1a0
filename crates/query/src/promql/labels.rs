//! The labels of a series while a query works on them: sorted, shared, cheap to copy and to compare. The metric's name
//! is the label `__name__` here, as in Prometheus; a label with an empty value is no label. It knows nothing of values.

use std::fmt;
use std::sync::Arc;

/// The label that holds the metric's name.
pub const METRIC_LABEL: &str = "__name__";

type Pair = (Arc<str>, Arc<str>);

/// A set of labels in ascending order of name. Two are ordered as Prometheus orders series: by name, then value, label
/// by label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Arc<[Pair]>);

impl Default for Labels {
    fn default() -> Self {
        Self(Arc::from([]))
    }
}

impl Labels {
    /// Sorts the labels and leaves out those with an empty value. Of two with one name the later counts.
    pub fn new<N: Into<Arc<str>>, V: Into<Arc<str>>>(labels: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut pairs: Vec<Pair> = labels.into_iter().map(|(n, v)| (n.into(), v.into())).collect();
        pairs.reverse();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        pairs.dedup_by(|a, b| a.0 == b.0);
        pairs.retain(|(_, value)| !value.is_empty());
        Self(pairs.into())
    }

    /// A label's value; empty if there is no such label.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(n, _)| n.as_ref() == name).map_or("", |(_, value)| value)
    }

    /// Names and values in ascending order of name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value.as_ref()))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn filtered(&self, keep: impl Fn(&str) -> bool) -> Self {
        if self.0.iter().all(|(name, _)| keep(name)) {
            return self.clone();
        }
        Self(self.0.iter().filter(|(name, _)| keep(name)).cloned().collect())
    }

    /// Without the metric's name.
    #[must_use]
    pub fn nameless(&self) -> Self {
        self.filtered(|name| name != METRIC_LABEL)
    }

    /// Only the labels in `names`.
    #[must_use]
    pub fn only(&self, names: &[String]) -> Self {
        self.filtered(|name| names.iter().any(|n| n == name))
    }

    /// All labels but those in `names`.
    #[must_use]
    pub fn without(&self, names: &[String]) -> Self {
        self.filtered(|name| !names.iter().any(|n| n == name))
    }

    /// With one label set to a value; an empty value takes it away.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        let place = self.0.binary_search_by(|(n, _)| n.as_ref().cmp(name));
        if place.is_err() && value.is_empty() {
            return self.clone();
        }
        let mut pairs = self.0.to_vec();
        match place {
            Ok(at) if value.is_empty() => drop(pairs.remove(at)),
            Ok(at) => {
                if let Some(pair) = pairs.get_mut(at) {
                    pair.1 = value.into();
                }
            }
            Err(at) => pairs.insert(at, (name.into(), value.into())),
        }
        Self(pairs.into())
    }
}

impl From<&tidelog_record::Series> for Labels {
    fn from(series: &tidelog_record::Series) -> Self {
        Self::new(std::iter::once((METRIC_LABEL, series.metric())).chain(series.labels()))
    }
}

/// Prometheus notation for messages, `{__name__="name", label="value"}`.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (label, value)) in self.iter().enumerate() {
            write!(f, "{}{label}={value:?}", if i == 0 { "" } else { ", " })?;
        }
        f.write_str("}")
    }
}

/// Whether a text may be the name of a label.
pub(super) fn is_label_name(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    text.bytes().next().is_some_and(letter) && text.bytes().all(|b| letter(b) || b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_a_sorted_set_in_which_an_empty_value_is_no_label() {
        let labels = Labels::new([("b", "2"), ("a", "1"), ("c", ""), ("b", "3")]);
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "3")]);
        assert_eq!((labels.get("b"), labels.get("c")), ("3", ""));
        assert_eq!(labels.with("a", "").with("d", "4"), Labels::new([("b", "3"), ("d", "4")]));
        assert_eq!(labels.with("a", "9"), Labels::new([("a", "9"), ("b", "3")]));
        assert_eq!(labels.only(&["a".to_owned()]), labels.without(&["b".to_owned()]));
    }

    #[test]
    fn labels_are_written_as_prometheus_writes_them() {
        assert_eq!(Labels::default().to_string(), "{}");
        assert_eq!(
            Labels::new([(METRIC_LABEL, "m"), ("b", "x\"y"), ("a", "1")]).to_string(),
            "{__name__=\"m\", a=\"1\", b=\"x\\\"y\"}"
        );
    }
}
