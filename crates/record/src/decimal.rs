//! Floats that are short decimals, which is what instruments write: `21.57` is 2157 with two digits behind the point.
//! Everything here is exact to the bit or says that it is not; so it gives the same on every CPU.

use alloc::vec::Vec;

/// Most digits behind the point that make a decimal.
pub const DECIMAL_DIGITS_MAX: u8 = 9;

/// Decimals without their point are below this in absolute value: up to here two of them are two floats.
pub const DECIMAL_LIMIT: i64 = 1_000_000_000_000_000;

const POWERS: [i64; 10] =
    [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];

const POWERS_F64: [f64; 10] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// Floats below each are decimals of that many digits, if they are decimals at all.
const LIMITS: [f64; 10] = [1e15, 1e14, 1e13, 1e12, 1e11, 1e10, 1e9, 1e8, 1e7, 1e6];

fn power(digits: u8) -> f64 {
    POWERS_F64.get(usize::from(digits)).copied().unwrap_or(f64::NAN)
}

/// `scaled / 10^digits`, rounded once: both are exact as floats below [`DECIMAL_LIMIT`] and [`DECIMAL_DIGITS_MAX`].
#[must_use]
#[inline]
pub fn decimal_value(scaled: i64, digits: u8) -> f64 {
    if digits == 0 { scaled as f64 } else { scaled as f64 / power(digits) }
}

/// The number that gives exactly `value` with `digits` behind the point; -0.0 is no decimal, since zero has no sign.
#[inline]
fn scaled(value: f64, power: f64) -> Option<i64> {
    let wide = value * power;
    // The product is less than a quarter off below the limit, so this finds the number if there is one; what it makes of NaN and
    // of everything too great fails the checks.
    #[expect(clippy::cast_possible_truncation, reason = "saturates, and is checked")]
    let near = (wide + if wide < 0.0 { -0.5 } else { 0.5 }) as i64;
    let exact =
        near > -DECIMAL_LIMIT && near < DECIMAL_LIMIT && (near as f64 / power).to_bits() == value.to_bits();
    exact.then_some(near)
}

/// `value` as a decimal: the number without its point, and the fewest digits behind it that are exact.
#[must_use]
pub fn decimal_of(value: f64) -> Option<(i64, u8)> {
    decimal_near(value, 2)
}

/// As [`decimal_of`], quicker where `digits` is what the value before had.
#[must_use]
#[inline]
pub fn decimal_near(value: f64, digits: u8) -> Option<(i64, u8)> {
    let digits = digits.min(DECIMAL_DIGITS_MAX);
    let (mut number, mut digits) = match scaled(value, power(digits)) {
        Some(found) => (found, digits),
        // A decimal stays one with more digits, up to the limit: so one test tells.
        None => {
            let most = LIMITS.iter().rposition(|limit| value.abs() < *limit)?;
            let most = u8::try_from(most).ok()?;
            (scaled(value, power(most))?, most)
        }
    };
    while digits > 0 && number % 10 == 0 {
        number /= 10;
        digits -= 1;
    }
    Some((number, digits))
}

/// All of `values` as decimals with the fewest digits behind the point that they have in common; `None` when one of
/// them is none. What comes out does not depend on `guess`, only how long it takes.
pub(crate) fn decimals_of(values: &[f64], guess: u8, out: &mut Vec<i64>) -> Option<u8> {
    let digits = if guess == 0 { None } else { with_digits(values, guess, out) };
    // A number may have too many digits for the limit with the guess, and fewer without it.
    let digits = digits.or_else(|| with_digits(values, 0, out))?;
    Some(fewest_digits(digits, out))
}

/// Takes off the zeros that all numbers end with.
pub(crate) fn fewest_digits(mut digits: u8, scaled: &mut [i64]) -> u8 {
    while digits > 0 && scaled.iter().all(|number| number % 10 == 0) {
        digits -= 1;
        scaled.iter_mut().for_each(|number| *number /= 10);
    }
    digits
}

fn with_digits(values: &[f64], mut digits: u8, out: &mut Vec<i64>) -> Option<u8> {
    out.clear();
    for value in values {
        let mut found = scaled(*value, power(digits));
        let before = digits;
        while found.is_none() {
            if digits == DECIMAL_DIGITS_MAX {
                return None;
            }
            digits += 1;
            found = scaled(*value, power(digits));
        }
        if digits > before {
            let factor = POWERS.get(usize::from(digits - before))?;
            for number in out.iter_mut() {
                *number = number.checked_mul(*factor).filter(|number| number.abs() < DECIMAL_LIMIT)?;
            }
        }
        out.push(found?);
    }
    Some(digits)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    #[test]
    fn what_an_instrument_writes_is_a_decimal_and_what_cannot_be_one_is_none() {
        for (value, expected) in [
            (21.57, Some((2157, 2))),
            (-0.1, Some((-1, 1))),
            (0.0, Some((0, 0))),
            (1e14, Some((100_000_000_000_000, 0))),
            (1e-9, Some((1, 9))),
            (999_999_999_999_999.0, Some((999_999_999_999_999, 0))),
            (1e15, None),
            (1e-10, None),
            (-0.0, None),
            (f64::NAN, None),
            (f64::INFINITY, None),
            (f64::MIN_POSITIVE, None),
            (0.1 + 0.2, None),
        ] {
            assert_eq!(decimal_of(value), expected, "{value}");
            for guess in 0..=11 {
                assert_eq!(decimal_near(value, guess), expected, "{value} after {guess}");
            }
        }
    }

    #[test]
    fn the_digits_in_common_are_the_fewest_whatever_was_guessed() {
        for guess in 0..=DECIMAL_DIGITS_MAX {
            let mut out = Vec::new();
            assert_eq!(decimals_of(&[21.5, 20.0, 0.25], guess, &mut out), Some(2));
            assert_eq!(out, vec![2150, 2000, 25]);
            assert_eq!(decimals_of(&[1e14, 5e13], guess, &mut out), Some(0));
            assert_eq!(decimals_of(&[1e14, 0.25], guess, &mut out), None);
            assert_eq!(decimals_of(&[1.0, f64::NAN], guess, &mut out), None);
        }
    }

    proptest! {
        #[test]
        fn a_decimal_gives_the_same_bits_back(number in -DECIMAL_LIMIT + 1..DECIMAL_LIMIT, digits in 0..=9_u8, bits in any::<u64>()) {
            let value = decimal_value(number, digits);
            let (found, fewest) = decimal_of(value).unwrap();
            prop_assert!((0..=9).all(|guess| decimal_near(value, guess) == Some((found, fewest))));
            prop_assert_eq!(decimal_value(found, fewest).to_bits(), value.to_bits());
            prop_assert_eq!(found * POWERS[usize::from(digits - fewest)], number);
            prop_assert!(fewest == 0 || found % 10 != 0);
            let any = f64::from_bits(bits);
            if let Some((found, fewest)) = decimal_of(any) {
                prop_assert_eq!(decimal_value(found, fewest).to_bits(), bits);
            }
        }
    }
}
