//! Exact sums against whole numbers of any length.

use std::str::FromStr;

use num_bigint::BigInt;
use proptest::prelude::*;
use tidelog_record::{DECIMAL_LIMIT, decimal_of};

use super::*;

/// Numbers of every kind that a reading may be.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (-100_000i64..100_000, 0i32..10).prop_map(|(m, k)| m as f64 / 10f64.powi(k)),
        2 => (-999_999_999_999_999i64..=999_999_999_999_999, 0i32..10).prop_map(|(m, k)| m as f64 / 10f64.powi(k)),
        2 => -1e3..1e3f64,
        2 => any::<f64>().prop_filter("finite", |v| v.is_finite()),
        1 => prop::sample::select(vec![
            0.0, -0.0, f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324, -5e-324, 0.1 + 0.2, 1e15, 1e14, 9.007_199_254_740_993e15,
        ]),
    ]
}

/// Fifteen digits name a decimal, and the standard library prints and parses exactly: so its shortest form tells.
fn decimal_by_text(value: f64) -> Option<(i64, u8)> {
    if value == 0.0 {
        return value.is_sign_positive().then_some((0, 0));
    }
    let text = format!("{value}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let m = i64::from_str(&format!("{whole}{fraction}")).ok()?;
    let k = u8::try_from(fraction.len()).ok()?;
    (k <= 9 && m.abs() < DECIMAL_LIMIT).then_some((m, k))
}

/// In units of 2⁻¹⁰⁷⁴ × 10⁻⁹.
fn units(value: f64) -> BigInt {
    match decimal_by_text(value) {
        Some((m, k)) => (BigInt::from(m) * BigInt::from(10).pow(u32::from(9 - k))) << 1074,
        None => binary_units(value),
    }
}

fn binary_units(value: f64) -> BigInt {
    let bits = value.abs().to_bits();
    let (exponent, fraction) = (bits >> 52, bits & ((1 << 52) - 1));
    let mantissa = if exponent == 0 { fraction } else { fraction | (1 << 52) };
    let magnitude = (BigInt::from(mantissa) << exponent.saturating_sub(1)) * 1_000_000_000u32;
    if value < 0.0 { -magnitude } else { magnitude }
}

/// Whether no float is nearer to the total, and of two that are as near the even one was taken.
fn is_nearest(total: &BigInt, value: f64) -> bool {
    let distance = |other: f64| {
        let at = if other.is_infinite() {
            // Where the next float would stand.
            let next: BigInt = (BigInt::from(1u8) << (1024 + 1074)) * 1_000_000_000u32;
            if other > 0.0 { next } else { -next }
        } else {
            binary_units(other)
        };
        let gap: BigInt = total - at;
        if gap < BigInt::from(0) { -gap } else { gap }
    };
    // Mantissas are even where their last bit is clear; so is that of the first number past the floats.
    let even = value.to_bits() & 1 == 0;
    let here = distance(value);
    let nearer = |other: f64| other == value || here < distance(other) || (here == distance(other) && even);
    nearer(value.next_up()) && nearer(value.next_down())
}

fn sum_of(values: &[f64]) -> ExactSum {
    let mut sum = ExactSum::new();
    for value in values {
        sum.add(*value);
    }
    sum
}

#[test]
fn short_decimals_are_told_from_other_floats() {
    let cases = [
        (0.0, Some((0, 0))),
        (-0.0, None),
        (21.5, Some((215, 1))),
        (-273.15, Some((-27_315, 2))),
        (100.0, Some((100, 0))),
        (0.1 + 0.2, None),
        (1e-9, Some((1, 9))),
        (1e-10, None),
        (999_999_999_999_999.0, Some((999_999_999_999_999, 0))),
        (1e15, None),
        (999_999.999_999_999, Some((999_999_999_999_999, 9))),
        (f64::NAN, None),
        (f64::INFINITY, None),
        (f64::MAX, None),
        (5e-324, None),
    ];
    for (value, expected) in cases {
        assert_eq!(decimal_of(value), expected, "{value}");
        for hint in 0..=11 {
            assert_eq!(decimal_near(value, hint), expected, "{value} after {hint}");
        }
    }
}

#[test]
fn a_thousand_tenths_are_a_hundred() {
    assert_eq!(sum_of(&[0.1; 1000]).value(), 100.0);
    assert_eq!(sum_of(&[0.1; 1000]).decimal(), Some(100_000_000_000));
}

#[test]
fn what_is_not_finite_shows_and_cancels_nothing() {
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    let of = |values: &[f64]| sum_of(values).value().to_bits();
    assert_eq!(of(&[1.0, inf]), inf.to_bits());
    assert_eq!(of(&[-inf, 1.0, f64::MAX]), (-inf).to_bits());
    assert_eq!(of(&[inf, -inf]), 0x7ff8_0000_0000_0000);
    assert_eq!(of(&[-nan]), 0x7ff8_0000_0000_0000);
    assert_eq!(of(&[]), 0);
    assert_eq!(of(&[-0.0]), 0);
    assert_eq!(of(&[f64::MAX, f64::MAX, -f64::MAX]), f64::MAX.to_bits());
    assert_eq!(of(&[f64::MAX, f64::MAX]), inf.to_bits());
    assert_eq!(of(&[f64::MIN, f64::MIN]), (-inf).to_bits());
    assert_eq!(of(&[5e-324, 5e-324]), 2);
}

#[test]
fn whole_numbers_do_not_overflow() {
    let mut sum = ExactSum::new();
    for _ in 0..3 {
        sum.add_decimal_sum(i128::MAX, 1);
    }
    assert_eq!(sum.decimal(), None);
    assert_eq!(sum.value(), 3.0 * 2f64.powi(127) / 1e9);
    for _ in 0..3 {
        sum.add_decimal_sum(-i128::MAX, 1);
    }
    assert_eq!((sum.decimal(), sum.count()), (Some(0), 6));
    for _ in 0..3 {
        sum.add_decimal_sum(i128::MIN, 1);
    }
    assert_eq!(sum.value(), -3.0 * 2f64.powi(127) / 1e9);
    let mut whole = ExactSum::new();
    whole.add_i64s(&[i64::MAX; 5]);
    whole.add_i64(i64::MIN);
    assert_eq!(whole.decimal(), Some((i128::from(i64::MAX) * 5 + i128::from(i64::MIN)) * 1_000_000_000));
}

proptest! {
    #[test]
    fn a_decimal_is_what_the_shortest_text_says(value in number(), hint in 0u8..10) {
        prop_assert_eq!(decimal_near(value, hint), decimal_by_text(value));
        if let Some((m, k)) = decimal_of(value) {
            prop_assert_eq!((m as f64 / 10f64.powi(i32::from(k))).to_bits(), value.to_bits());
        }
    }

    #[test]
    fn the_value_is_the_float_nearest_to_the_exact_total(
        values in prop::collection::vec(number(), 0..12), whole in prop::collection::vec(any::<i64>(), 0..3),
        cancelled in any::<bool>(),
    ) {
        let mut sum = sum_of(&values);
        let mut total: BigInt = values.iter().map(|v| units(*v)).sum();
        for value in &whole {
            sum.add_i64(*value);
            total += (BigInt::from(*value) * 1_000_000_000u32) << 1074;
        }
        if cancelled {
            // What is left is far smaller than what was added.
            let rough = sum.value();
            if rough.is_finite() {
                sum.add(-rough);
                total += units(-rough);
            }
        }
        prop_assert!(is_nearest(&total, sum.value()), "{} for {values:?} {whole:?}", sum.value());
    }

    #[test]
    fn neither_order_nor_grouping_shows(
        values in prop::collection::vec(prop_oneof![20 => number(), 1 => any::<f64>()], 0..300),
        order in any::<prop::sample::Index>(), cuts in prop::collection::vec(1usize..200, 1..6),
    ) {
        let expected = sum_of(&values);
        let mut turned = values;
        turned.reverse();
        if !turned.is_empty() {
            let at = order.index(turned.len());
            turned.rotate_left(at);
        }
        let mut rest = turned.as_slice();
        let mut merged = ExactSum::new();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (head, tail) = rest.split_at((*cut).min(rest.len()));
            let mut part = ExactSum::new();
            part.add_f64s(head);
            part.merge(&merged);
            merged = part;
            rest = tail;
        }
        prop_assert_eq!(&merged, &expected);
        prop_assert_eq!(merged.value().to_bits(), expected.value().to_bits());
        if let Some(decimal) = expected.decimal() {
            let mut again = ExactSum::new();
            again.add_decimal_sum(decimal, expected.count());
            prop_assert_eq!(again, expected);
        }
    }
}
