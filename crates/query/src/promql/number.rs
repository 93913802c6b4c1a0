//! Numbers and instants as Prometheus's HTTP API writes them, to the character.

/// Below and from these, a number is written with an exponent.
const PLAIN_FROM: f64 = 1e-6;
const PLAIN_BELOW: f64 = 1e21;

const NS_A_SECOND: i64 = 1_000_000_000;

/// A number with the fewest digits that read back as the same, never with an exponent: `count_values` makes labels so.
#[must_use]
pub fn plain(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        format!("{value}")
    }
}

/// Appends a sample's value, without quotes: as [`plain`], but very great and very small ones with an exponent of at
/// least two digits.
pub fn write_value(out: &mut String, value: f64) {
    let size = value.abs();
    if !value.is_finite() || size == 0.0 || (PLAIN_FROM..PLAIN_BELOW).contains(&size) {
        out.push_str(&plain(value));
        return;
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    out.push_str(&format!("{digits}e{sign}{exponent:0>2}"));
}

/// Appends Unix nanoseconds as seconds: whole, or with three digits behind the point, or with nine where milliseconds do
/// not say it.
pub fn write_seconds(out: &mut String, ns: i64) {
    let (whole, rest) =
        (ns.unsigned_abs() / NS_A_SECOND.unsigned_abs(), ns.unsigned_abs() % NS_A_SECOND.unsigned_abs());
    if ns < 0 {
        out.push('-');
    }
    out.push_str(&match rest {
        0 => format!("{whole}"),
        _ if rest % 1_000_000 == 0 => format!("{whole}.{:03}", rest / 1_000_000),
        _ => format!("{whole}.{rest:09}"),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(v: f64) -> String {
        let mut out = String::new();
        write_value(&mut out, v);
        out
    }

    fn time(ns: i64) -> String {
        let mut out = String::new();
        write_seconds(&mut out, ns);
        out
    }

    #[test]
    fn numbers_are_written_as_prometheus_writes_them() {
        for (v, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (0.1, "0.1"),
            (-2.5, "-2.5"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1.5e300, "1.5e+300"),
            (1e-6, "0.000001"),
            (1e-7, "1e-07"),
            (-1.25e-10, "-1.25e-10"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(value(v), text);
        }
        assert_eq!(plain(1e21), "1000000000000000000000");
    }

    #[test]
    fn instants_are_seconds_with_as_many_digits_as_they_need() {
        for (ns, text) in [
            (0, "0"),
            (1_435_781_430_000_000_000, "1435781430"),
            (1_435_781_430_781_000_000, "1435781430.781"),
            (1_435_781_430_100_000_000, "1435781430.100"),
            (1_000_000_001, "1.000000001"),
            (-1_500_000_000, "-1.500"),
        ] {
            assert_eq!(time(ns), text);
        }
    }

    proptest! {
        #[test]
        fn a_written_number_reads_back_as_the_same(v: f64, ns: i64) {
            if v.is_finite() {
                prop_assert_eq!(value(v).parse::<f64>().unwrap().to_bits(), v.to_bits());
                prop_assert_eq!(plain(v).parse::<f64>().unwrap().to_bits(), v.to_bits());
            }
            prop_assert!((time(ns).parse::<f64>().unwrap() - ns as f64 / 1e9).abs() < 1e-3);
        }
    }
}
