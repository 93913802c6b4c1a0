//! Instants as people and programs write them, to nanoseconds since 1970 without a float between: what is written
//! exactly is meant exactly. It knows no clock, so there is no `now` here.

use chrono::DateTime;

/// Longest instant, in bytes.
const INSTANT_BYTES_MAX: usize = 64;

const FRACTION_DIGITS_MAX: usize = 9;

/// Why a text is no instant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// None of the forms.
    #[error(
        "not an instant: expected RFC 3339 (2026-11-21T08:00:00Z), Unix seconds (1795248000 or 1795248000.5), or a whole number with ns, us, ms or s behind it"
    )]
    Form,
    /// Before 1677 or after 2262: no 64-bit count of nanoseconds reaches it.
    #[error("an instant outside of 1677-09-21 to 2262-04-11")]
    OutOfRange,
}

/// Reads an instant: RFC 3339, Unix seconds with up to nine decimals, or a whole number with a unit (`ns`, `us`, `ms`,
/// `s`). The answer is Unix nanoseconds.
///
/// # Errors
/// [`TimeError`] tells a wrong form from an instant that cannot be counted.
pub fn parse_instant(text: &str) -> Result<i64, TimeError> {
    if text.len() > INSTANT_BYTES_MAX {
        return Err(TimeError::Form);
    }
    for (unit, ns_each) in [("ns", 1), ("us", 1_000), ("ms", 1_000_000)] {
        if let Some(digits) = text.strip_suffix(unit) {
            return in_range(i128::from(integer(digits)?) * ns_each);
        }
    }
    if text.contains(['T', 't', ' ']) {
        let instant = DateTime::parse_from_rfc3339(text).map_err(|_| TimeError::Form)?;
        let seconds = i128::from(instant.timestamp()) * 1_000_000_000;
        // A leap second is written :60 and counted as nanoseconds past the second before it.
        return in_range(seconds + i128::from(instant.timestamp_subsec_nanos()));
    }
    seconds(text.strip_suffix('s').unwrap_or(text))
}

/// Reads a length of time as Prometheus does: seconds with decimals, or `1h30m`, `5m`, `250ms`. The answer is in
/// nanoseconds.
///
/// # Errors
/// [`TimeError`], as for instants.
pub fn parse_duration(text: &str) -> Result<i64, TimeError> {
    if text.len() > INSTANT_BYTES_MAX {
        return Err(TimeError::Form);
    }
    let Ok(seconds) = text.parse::<f64>() else {
        let duration = promql_parser::util::parse_duration(text).map_err(|_| TimeError::Form)?;
        return i64::try_from(duration.as_nanos()).map_err(|_| TimeError::OutOfRange);
    };
    // Rounded, because a step is often a division's result.
    let ns = (seconds * 1e9).round();
    if !ns.is_finite() || ns.abs() >= 9_223_372_036_854_775_808.0 {
        return Err(TimeError::OutOfRange);
    }
    #[allow(clippy::cast_possible_truncation, reason = "just checked")]
    Ok(ns as i64)
}

fn in_range(ns: i128) -> Result<i64, TimeError> {
    i64::try_from(ns).map_err(|_| TimeError::OutOfRange)
}

fn integer(digits: &str) -> Result<i64, TimeError> {
    let plain = digits.strip_prefix('-').unwrap_or(digits);
    if plain.is_empty() || !plain.bytes().all(|b| b.is_ascii_digit()) {
        return Err(TimeError::Form);
    }
    digits.parse().map_err(|_| TimeError::OutOfRange)
}

fn seconds(text: &str) -> Result<i64, TimeError> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.is_empty() || fraction.len() > FRACTION_DIGITS_MAX || fraction.starts_with('-') {
        return Err(TimeError::Form);
    }
    let ns = integer(&format!("{fraction:0<FRACTION_DIGITS_MAX$}"))?;
    let sign = if whole.starts_with('-') { -1 } else { 1 };
    in_range(i128::from(integer(whole)?) * 1_000_000_000 + i128::from(sign * ns))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_instant_has_many_spellings() {
        let ns = 1_795_248_000_500_000_000;
        for text in [
            "2026-11-21T08:00:00.5Z",
            "2026-11-21T09:00:00.500+01:00",
            "2026-11-21 08:00:00.5Z",
            "1795248000.5",
            "1795248000.500000000",
            "1795248000500ms",
            "1795248000500000us",
            "1795248000500000000ns",
        ] {
            assert_eq!(parse_instant(text), Ok(ns), "{text}");
        }
        assert_eq!(parse_instant("1795248000s"), Ok(1_795_248_000_000_000_000));
        assert_eq!(parse_instant("-0.5"), Ok(-500_000_000));
        assert_eq!(parse_instant("-9223372036854775808ns"), Ok(i64::MIN));
    }

    #[test]
    fn a_length_of_time_is_seconds_or_has_units() {
        for (text, ns) in [
            ("15", 15_000_000_000),
            ("0.1", 100_000_000),
            ("1e1", 10_000_000_000),
            ("-1", -1_000_000_000),
            ("5m", 300_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("250ms", 250_000_000),
        ] {
            assert_eq!(parse_duration(text), Ok(ns), "{text}");
        }
        for text in ["", "x", "m5", "5 m", "NaN", "inf", "1e300", "99999999999y"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_instant_is_refused() {
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "now",
            "1e9",
            "0x1",
            "NaN",
            "+1",
            "1.-5",
            "--1",
            "1.0123456789",
            "2026-11-21",
            "ns",
            "1.5ms",
            "2026-13-01T00:00:00Z",
        ] {
            assert_eq!(parse_instant(text), Err(TimeError::Form), "{text}");
        }
        for text in [
            "9223372037",
            "99999999999999999999",
            "9223372036854775808ns",
            "2300-01-01T00:00:00Z",
            "1600-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_instant(text), Err(TimeError::OutOfRange), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_instant_is_read_back_from_each_form(ns in any::<i64>()) {
            prop_assert_eq!(parse_instant(&format!("{ns}ns")), Ok(ns));
            let (sign, magnitude) = (if ns < 0 { "-" } else { "" }, ns.unsigned_abs());
            let text = format!("{sign}{}.{:09}", magnitude / 1_000_000_000, magnitude % 1_000_000_000);
            prop_assert_eq!(parse_instant(&text), Ok(ns));
            prop_assert_eq!(parse_instant(&DateTime::from_timestamp_nanos(ns).to_rfc3339()), Ok(ns));
        }

        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,40}", digits in "[-+.0-9TZ:nums]{0,30}") {
            drop(parse_instant(&text));
            drop(parse_instant(&digits));
        }
    }
}
