//! Names of series as bytes that sort as [`Series`] does: canonical bytes do not, because lengths stand first in them.
//!
//! ```text
//! key := metric, 0 | { label name, 0 | label value, 0 }      in values 0 is written 1 1, and 1 is written 1 2
//! ```

use tidelog_record::{SERIES_BYTES_MAX, Series};

use super::bytes::{Cut, Malformed, put_bytes, put_len};

/// Longest key, in bytes: every byte of a value written as two.
pub(super) const KEY_BYTES_MAX: usize = 2 * SERIES_BYTES_MAX;

const END: u8 = 0;
const ESCAPE: u8 = 1;

fn put_value(out: &mut Vec<u8>, value: &[u8]) {
    for byte in value {
        match *byte {
            END | ESCAPE => out.extend_from_slice(&[ESCAPE, byte + 1]),
            byte => out.push(byte),
        }
    }
    out.push(END);
}

fn put_name(out: &mut Vec<u8>, name: &[u8]) {
    out.extend_from_slice(name);
    out.push(END);
}

/// Writes the key of canonical bytes behind `out`; what is not canonical has no key.
pub(super) fn put_key(out: &mut Vec<u8>, canonical: &[u8]) -> Result<(), Malformed> {
    let mut cut = Cut(canonical);
    put_name(out, cut.bytes()?);
    let labels = cut.u64()?;
    for _ in 0..labels {
        put_name(out, cut.bytes()?);
        put_value(out, cut.bytes()?);
    }
    cut.end()
}

/// As [`put_key`], of a series.
pub(super) fn put_key_of(out: &mut Vec<u8>, series: &Series) {
    put_name(out, series.metric().as_bytes());
    for (name, value) in series.labels() {
        put_name(out, name.as_bytes());
        put_value(out, value.as_bytes());
    }
}

/// The metric's name within a key, with its end.
pub(super) fn metric(key: &[u8]) -> &[u8] {
    let end = key.iter().position(|byte| *byte == END).map_or(key.len(), |at| at + 1);
    key.get(..end).unwrap_or_default()
}

/// Writes the canonical bytes of a key behind `out`.
pub(super) fn put_canonical(out: &mut Vec<u8>, key: &[u8]) -> Result<(), Malformed> {
    let mut parts = key.strip_suffix(&[END]).ok_or(Malformed)?.split(|byte| *byte == END);
    put_bytes(out, parts.next().ok_or(Malformed)?);
    let count = parts.clone().count();
    if !count.is_multiple_of(2) {
        return Err(Malformed);
    }
    put_len(out, count / 2);
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        put_bytes(out, name);
        if !value.contains(&ESCAPE) {
            put_bytes(out, value);
            continue;
        }
        let mut plain = Vec::with_capacity(value.len());
        let mut bytes = value.iter();
        while let Some(byte) = bytes.next() {
            match *byte {
                ESCAPE => plain.push(bytes.next().and_then(|next| next.checked_sub(1)).ok_or(Malformed)?),
                byte => plain.push(byte),
            }
        }
        put_bytes(out, &plain);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn series() -> impl Strategy<Value = Series> {
        let value = prop::collection::vec(
            prop_oneof![Just('\0'), Just('\u{1}'), Just('\u{2}'), Just('a'), Just('b')],
            1..5,
        );
        let value = value.prop_map(|chars| chars.into_iter().collect::<String>());
        ("[ab]{1,3}", prop::collection::btree_map("[ab]{1,2}", value, 0..3))
            .prop_map(|(metric, labels)| Series::new(metric, labels).unwrap())
    }

    proptest! {
        #[test]
        fn keys_sort_as_series_and_are_read_back(a in series(), b in series()) {
            let key = |series: &Series| {
                let (mut one, mut two) = (Vec::new(), Vec::new());
                put_key_of(&mut one, series);
                put_key(&mut two, &series.canonical()).unwrap();
                assert_eq!(one, two);
                one
            };
            prop_assert_eq!(key(&a).cmp(&key(&b)), a.cmp(&b));
            let mut canonical = Vec::new();
            put_canonical(&mut canonical, &key(&a)).unwrap();
            prop_assert_eq!(canonical, a.canonical());
        }

        #[test]
        fn noise_never_panics(noise in prop::collection::vec(0u8..4, 0..12)) {
            let mut out = Vec::new();
            std::hint::black_box(put_key(&mut out, &noise).is_ok() && put_canonical(&mut out, &noise).is_ok());
        }
    }
}
