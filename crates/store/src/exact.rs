//! Sums that do not depend on the order or grouping of what was added, so that an aggregate has the same bytes whatever was
//! sealed or merged where (invariant 7).
//!
//! A float that is a short decimal counts as that decimal: a thousand readings of 0.1 sum to exactly 100. Those, and whole
//! numbers, go into one wide integer in units of 10⁻⁹. Every other finite float is added exactly to a fixed-point number as
//! wide as all floats together. [`ExactSum::value`] is the float nearest to the exact total of both. This module knows no
//! series and no time.

use tidelog_record::{DECIMAL_DIGITS_MAX, decimal_near};

const POWERS: [f64; 10] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
const POWERS_I64: [i64; 10] =
    [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];
/// Floats below each are decimals of that many digits, if they are decimals at all.
const LIMITS: [f64; 10] = [1e15, 1e14, 1e13, 1e12, 1e11, 1e10, 1e9, 1e8, 1e7, 1e6];
/// 1.5 × 2⁵²: a float below 2⁵¹ added to it is rounded to a whole number, which then stands in the low bits.
const ROUNDER: f64 = 6_755_399_441_055_744.0;
/// Values tested together; the sum of as many decimals is far within an i64.
const RUN: usize = 128;

/// The nearest whole number, as such and as a float; meaningless from 2⁵¹ on.
fn rounded(value: f64) -> (i64, f64) {
    let shifted = value + ROUNDER;
    (shifted.to_bits().wrapping_sub(ROUNDER.to_bits()).cast_signed(), shifted - ROUNDER)
}

/// The sum of a run of decimals of `k` digits, if all of them are.
#[inline]
fn run_sum(values: &[f64], k: u8) -> Option<i64> {
    let power = *POWERS.get(usize::from(k))?;
    let limit = *LIMITS.get(usize::from(k))?;
    let mut total = 0i64;
    let mut good = true;
    for value in values {
        let (m, back) = rounded(*value * power);
        // No branch: the loop is for vectors.
        good &= (value.abs() < limit) & (back / power == *value);
        total = total.wrapping_add(m);
    }
    good.then_some(total)
}

/// As [`run_sum`], with the digits that the first value asks for, or some more: it may end in zeros that others do not have.
fn run_sum_near(values: &[f64], digits: &mut u8) -> Option<i64> {
    let (_, least) = decimal_near(*values.first()?, *digits)?;
    (least..=DECIMAL_DIGITS_MAX.min(least + 3)).find_map(|k| {
        let sum = run_sum(values, k)?;
        *digits = k;
        Some(sum)
    })
}

/// Width of the fixed-point number, in 64-bit limbs: the 2,098 bits that floats span, and room for 2⁷⁷ of the greatest.
const LIMBS: usize = 34;
/// Width of a quotient: the number times 10⁹, and 128 bits behind the point.
const QUOTIENT_LIMBS: usize = LIMBS + 3;
/// The unit of a quotient is two to the minus this: 1074 of the floats' unit, 9 of 10⁹ = 2⁹ × 5⁹, 128 behind the point.
const QUOTIENT_UNIT_BITS: usize = 1074 + 9 + 128;
const FIVE_TO_THE_NINTH: u64 = 1_953_125;
const SCALE: i128 = 1_000_000_000;
const SCALE_U64: u64 = 1_000_000_000;

/// Low and high half of a two's complement number.
#[expect(clippy::cast_possible_truncation, reason = "each half is masked by the cast")]
fn halves(wide: i128) -> [u64; 2] {
    let wide = wide.cast_unsigned();
    [wide as u64, (wide >> 64) as u64]
}

/// All bits a copy of the sign.
fn fill(negative: bool) -> u64 {
    if negative { u64::MAX } else { 0 }
}

/// Adds a two's complement number that is shifted up by `at` limbs. What leaves the top is lost, as it should be.
fn add_at(limbs: &mut [u64], at: usize, number: &[u64], negative: bool) {
    let mut carry = false;
    let mut parts = number.iter();
    for limb in limbs.iter_mut().skip(at) {
        let next = parts.next();
        let part = next.copied().unwrap_or_else(|| fill(negative));
        if next.is_none() && carry == negative {
            return;
        }
        let (sum, over) = limb.overflowing_add(part);
        let (sum, again) = sum.overflowing_add(u64::from(carry));
        *limb = sum;
        carry = over | again;
    }
}

/// Finite floats, exactly: two's complement, little end first, in units of 2⁻¹⁰⁷⁴.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Binary([u64; LIMBS]);

impl Binary {
    fn add(&mut self, value: f64) {
        let bits = value.to_bits();
        let (exponent, fraction) = ((bits >> 52) & 0x7ff, bits & ((1 << 52) - 1));
        let (mantissa, shift) = match exponent {
            0 => (fraction, 0),
            _ => (fraction | (1 << 52), exponent - 1),
        };
        let magnitude = i128::from(mantissa) << (shift % 64);
        let negative = value.is_sign_negative() && mantissa != 0;
        let at = usize::try_from(shift / 64).unwrap_or(LIMBS);
        add_at(&mut self.0, at, &halves(if negative { -magnitude } else { magnitude }), negative);
    }

    fn merge(&mut self, other: &Self) {
        add_at(&mut self.0, 0, &other.0, false);
    }

    fn is_negative(&self) -> bool {
        self.0.last().is_some_and(|top| top >> 63 == 1)
    }
}

/// A sum of numbers: commutative, associative, exact. Equal multisets of numbers give equal sums, however they came together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExactSum {
    /// Decimals and whole numbers in units of 10⁻⁹, and how often that went around: the total is `decimals + wraps × 2¹²⁸`.
    decimals: i128,
    wraps: i64,
    count: u64,
    /// Rare in readings, so not in every sum.
    binary: Option<Box<Binary>>,
    nan: bool,
    positive_infinity: bool,
    negative_infinity: bool,
}

impl ExactSum {
    /// Nothing added yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a float.
    pub fn add(&mut self, value: f64) {
        self.count += 1;
        self.add_uncounted(value, 2);
    }

    /// Adds a whole number.
    pub fn add_i64(&mut self, value: i64) {
        self.add_decimal_sum(i128::from(value) * SCALE, 1);
    }

    /// Adds `count` numbers whose sum is known, in units of 10⁻⁹.
    pub fn add_decimal_sum(&mut self, sum: i128, count: u64) {
        self.count += count;
        self.add_decimals(sum);
    }

    /// Adds floats, several times as fast as one by one where they are decimals.
    pub fn add_f64s(&mut self, values: &[f64]) {
        self.count += values.len() as u64;
        let mut digits = 2u8;
        for run in values.chunks(RUN) {
            if let Some(sum) = run_sum(run, digits).or_else(|| run_sum_near(run, &mut digits)) {
                self.add_decimals(i128::from(sum) * scale_up(digits));
            } else {
                for value in run {
                    digits = self.add_uncounted(*value, digits);
                }
            }
        }
    }

    /// Adds whole numbers.
    pub fn add_i64s(&mut self, values: &[i64]) {
        self.count += values.len() as u64;
        for run in values.chunks(1 << 20) {
            self.add_decimals(run.iter().map(|value| i128::from(*value)).sum::<i128>() * SCALE);
        }
    }

    /// Adds what another sum has.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.add_decimals(other.decimals);
        self.wraps = self.wraps.wrapping_add(other.wraps);
        self.nan |= other.nan;
        self.positive_infinity |= other.positive_infinity;
        self.negative_infinity |= other.negative_infinity;
        if let Some(binary) = &other.binary {
            self.binary().merge(binary);
        }
    }

    /// How many numbers were added.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The sum in units of 10⁻⁹, if all that was added are decimals and whole numbers. [`ExactSum::add_decimal_sum`] takes it
    /// back.
    #[must_use]
    pub fn decimal(&self) -> Option<i128> {
        let special = self.nan || self.positive_infinity || self.negative_infinity;
        (self.binary.is_none() && !special && self.wraps == 0).then_some(self.decimals)
    }

    /// The float nearest to the exact sum, ties to even; a sum of nothing is 0. NaN if one was added or both infinities were.
    #[must_use]
    pub fn value(&self) -> f64 {
        match (self.nan, self.positive_infinity, self.negative_infinity) {
            (false, false, false) => {}
            (false, true, false) => return f64::INFINITY,
            (false, false, true) => return f64::NEG_INFINITY,
            // One spelling of NaN, because a CPU's own choice differs.
            _ => return f64::from_bits(0x7ff8_0000_0000_0000),
        }
        // Where both are floats one division rounds once.
        let small = 1i128 << 53;
        match (&self.binary, i64::try_from(self.decimals)) {
            (None, Ok(decimals)) if self.wraps == 0 && self.decimals.abs() <= small => decimals as f64 / 1e9,
            _ => self.nearest(),
        }
    }

    /// Adds one value and says with how many digits.
    fn add_uncounted(&mut self, value: f64, digits: u8) -> u8 {
        if let Some((m, k)) = decimal_near(value, digits) {
            self.add_decimals(i128::from(m) * scale_up(k));
            return k;
        }
        if value.is_nan() {
            self.nan = true;
        } else if value == f64::INFINITY {
            self.positive_infinity = true;
        } else if value == f64::NEG_INFINITY {
            self.negative_infinity = true;
        } else if value != 0.0 {
            self.binary().add(value);
        }
        digits
    }

    fn add_decimals(&mut self, sum: i128) {
        let (total, over) = self.decimals.overflowing_add(sum);
        self.decimals = total;
        if over {
            self.wraps = self.wraps.wrapping_add(if sum < 0 { -1 } else { 1 });
        }
    }

    fn binary(&mut self) -> &mut Binary {
        self.binary.get_or_insert_with(|| Box::new(Binary([0; LIMBS])))
    }

    /// The total as a fraction over 10⁹, divided limb by limb, and rounded once.
    fn nearest(&self) -> f64 {
        // Numerator in units of 2⁻¹⁰⁷⁴, from limb 2 on: that leaves 128 bits behind the point.
        let mut number = [0u64; QUOTIENT_LIMBS];
        if let Some(binary) = &self.binary {
            let negative = binary.is_negative();
            let mut carry = 0u128;
            let mut limbs = binary.0.iter();
            for limb in number.iter_mut().skip(2) {
                let part = limbs.next().copied().unwrap_or_else(|| fill(negative));
                carry += u128::from(part) * u128::from(SCALE_U64);
                let [low, high] = halves(carry.cast_signed());
                *limb = low;
                carry = u128::from(high);
            }
        }
        // 1074 = 16 × 64 + 50.
        let [low, high] = halves(self.decimals);
        let wraps = if self.decimals < 0 { self.wraps.wrapping_sub(1) } else { self.wraps };
        let top = wraps.cast_unsigned();
        let sign = fill(wraps < 0);
        let shifted = [low << 50, high << 50 | low >> 14, top << 50 | high >> 14, sign << 50 | top >> 14];
        add_at(&mut number, 2 + 16, &shifted, wraps < 0);

        let negative = number.last().is_some_and(|limb| limb >> 63 == 1);
        if negative {
            let mut carry = true;
            for limb in &mut number {
                (*limb, carry) = (!*limb).overflowing_add(u64::from(carry));
            }
        }
        let remainder = divide(&mut number, FIVE_TO_THE_NINTH);
        let magnitude = nearest_float(&number, remainder != 0);
        if negative { -magnitude } else { magnitude }
    }
}

/// 10⁹ over 10^k.
fn scale_up(k: u8) -> i128 {
    i128::from(POWERS_I64.get(usize::from(DECIMAL_DIGITS_MAX.saturating_sub(k))).copied().unwrap_or(1))
}

/// Divides by less than 2³² and gives the remainder.
fn divide(number: &mut [u64], by: u64) -> u64 {
    let mut rest = 0u64;
    for limb in number.iter_mut().rev() {
        let high = rest << 32 | *limb >> 32;
        let low = (high % by) << 32 | (*limb & 0xffff_ffff);
        *limb = ((high / by) << 32) | (low / by);
        rest = low % by;
    }
    rest
}

/// The float nearest to a number in units of 2^-[`QUOTIENT_UNIT_BITS`], ties to even; `more` says that a little more follows.
fn nearest_float(number: &[u64], more: bool) -> f64 {
    let bit = |at: usize| number.get(at / 64).map_or(0, |limb| limb >> (at % 64) & 1);
    let Some(top_limb) = number.iter().rposition(|limb| *limb != 0) else { return 0.0 };
    let top_bits = number.get(top_limb).map_or(0, |limb| limb.leading_zeros());
    let top = top_limb * 64 + 63 - usize::try_from(top_bits).unwrap_or(0);
    // Where the last kept bit stands: 52 below the first, but not below the floats' unit.
    let unit = QUOTIENT_UNIT_BITS - 1074;
    let last = top.saturating_sub(52).max(unit);
    let mantissa = (0..53).rev().fold(0u64, |sum, i| sum << 1 | bit(last + i));
    let below = last - 1;
    let rest_below = more || bit_below(number, below);
    let up = bit(below) == 1 && (rest_below || mantissa & 1 == 1);
    // A mantissa with its leading bit counts one into the exponent, which is how subnormals go over into normals; so does a
    // mantissa that is rounded up to the next power of two, and the greatest float to infinity.
    let exponent = (last - unit) as u64;
    let bits = (exponent << 52) + mantissa + u64::from(up);
    f64::from_bits(bits.min(f64::INFINITY.to_bits()))
}

/// Whether any bit below this one is set.
fn bit_below(number: &[u64], at: usize) -> bool {
    let (limb, bit) = (at / 64, at % 64);
    number.iter().take(limb).any(|part| *part != 0)
        || number.get(limb).is_some_and(|part| part & ((1 << bit) - 1) != 0)
}

#[cfg(test)]
mod tests;
