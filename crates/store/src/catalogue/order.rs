//! Series as bytes whose order is the order of [`Series`], which that of the canonical bytes is not: lengths come first there.
//!
//! ```text
//! key := metric { 0 name 0 value }      in values 0 is written 1 1 and 1 is written 1 2
//! ```

use tidelog_record::Series;

use super::varint::{put, put_bytes};

/// The label that the metric's name stands under.
pub(super) const METRIC_LABEL: &str = "__name__";

/// Appends a value so that no zero is in it and order stays.
pub(super) fn escape(out: &mut Vec<u8>, value: &str) {
    for byte in value.bytes() {
        match byte {
            0 | 1 => out.extend_from_slice(&[1, byte + 1]),
            _ => out.push(byte),
        }
    }
}

/// Takes the escapes back; none when it is not such a value.
pub(super) fn unescape(bytes: &[u8]) -> Option<String> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter();
    while let Some(byte) = rest.next() {
        match byte {
            0 => return None,
            1 => out.push(rest.next().filter(|b| matches!(b, 1 | 2))?.wrapping_sub(1)),
            _ => out.push(*byte),
        }
    }
    String::from_utf8(out).ok()
}

pub(super) fn key_of(series: &Series) -> Vec<u8> {
    let mut key = series.metric().as_bytes().to_vec();
    for (name, value) in series.labels() {
        key.push(0);
        key.extend_from_slice(name.as_bytes());
        key.push(0);
        escape(&mut key, value);
    }
    key
}

/// The metric, under its label, and the labels of a key, ascending and with values, which are escaped as they stand.
pub(super) fn labels_of(key: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut parts = key.split(|byte| *byte == 0);
    let mut labels = vec![(METRIC_LABEL.as_bytes(), parts.next()?)];
    while let Some(name) = parts.next() {
        let value = parts.next()?;
        if value.is_empty()
            || labels.get(1..).and_then(<[_]>::last).is_some_and(|(before, _)| name <= *before)
        {
            return None;
        }
        labels.push((name, value));
    }
    Some(labels)
}

pub(super) fn series_of(key: &[u8]) -> Option<Series> {
    let labels = labels_of(key)?;
    let ((_, metric), labels) = labels.split_first()?;
    let metric = std::str::from_utf8(metric).ok()?;
    let labels = labels
        .iter()
        .map(|(name, value)| Some((std::str::from_utf8(name).ok()?, unescape(value)?)))
        .collect::<Option<Vec<_>>>()?;
    Series::new(metric, labels).ok()
}

/// The canonical bytes of the series that a key names.
pub(super) fn canonical_of(key: &[u8]) -> Option<Vec<u8>> {
    let labels = labels_of(key)?;
    let ((_, metric), labels) = labels.split_first()?;
    let mut out = Vec::with_capacity(key.len() + 4);
    put_bytes(&mut out, metric);
    put(&mut out, labels.len() as u64);
    for (name, value) in labels {
        put_bytes(&mut out, name);
        put_bytes(&mut out, unescape(value)?.as_bytes());
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn series() -> impl Strategy<Value = Series> {
        let labels = prop::collection::btree_map("[ab]{1,2}", "[\u{0}\u{1}\u{2}ab]{1,3}", 0..4);
        ("[ab]{1,2}", labels).prop_map(|(metric, labels)| Series::new(metric, labels).unwrap())
    }

    proptest! {
        #[test]
        fn keys_are_ordered_as_series_are_and_name_them(a in series(), b in series()) {
            prop_assert_eq!(key_of(&a).cmp(&key_of(&b)), a.cmp(&b));
            prop_assert_eq!(canonical_of(&key_of(&a)), Some(a.canonical()));
            prop_assert_eq!(series_of(&key_of(&a)), Some(a));
        }

        #[test]
        fn arbitrary_bytes_are_the_key_of_their_series_or_of_none(
            bytes in prop::collection::vec(prop::sample::select(vec![0, 0, 1, 2, b'a', b'b', b'_', 0xc3]), 1..16),
        ) {
            if let Some(series) = series_of(&bytes) {
                prop_assert!(!series.metric().is_empty());
                prop_assert_eq!(key_of(&series), bytes);
            }
        }
    }
}
