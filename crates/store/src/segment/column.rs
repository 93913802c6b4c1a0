//! The values of one section as numbers, and back; and what is known of a section without decoding it.
//!
//! Short decimals, whole numbers and truth values become differences, so a walk by small steps is small numbers whatever its height.
//! Decimals are scaled by the least power of ten that makes all of a section whole; -0.0 is none. Other floats keep their bits, in an
//! order that integers have too. Texts and mixed kinds are bytes.

use tidelog_record::Value;
pub(super) use tidelog_record::Values;

use super::bytes::{Cut, Malformed, put_bytes, put_i64};

/// Layouts 0 to 9: decimals with as many digits behind the point.
pub(super) const DECIMAL_LAST: u8 = 9;
pub(super) const WHOLE: u8 = 10;
pub(super) const TRUTH: u8 = 11;
/// Floats, none of them NaN.
pub(super) const FLOAT: u8 = 12;
/// Floats with a NaN among them: no statistics, because what a NaN is to them is the query's affair.
pub(super) const FLOAT_NAN: u8 = 13;
pub(super) const TEXT: u8 = 14;
pub(super) const MIXED: u8 = 15;

const POWERS: [f64; 10] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
/// A decimal's digits as a whole number are below this in magnitude.
const DECIMAL_LIMIT: f64 = 1e15;
/// 1.5 × 2⁵²: a float below 2⁵¹ is rounded to a whole number by adding and taking away this.
const ROUNDER: f64 = 6_755_399_441_055_744.0;

/// So many numbers below this in magnitude have a sum that fits.
const SMALL: i64 = 1 << 50;
const SMALL_RUN: usize = 4_096;

/// What is known of a section without its points, as numbers of its layout. Statistics are of the distinct times' values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// See the layouts above.
    pub layout: u8,
    /// Repeats of a time are there, all with the value of the one before, and have no numbers of their own.
    pub echoes: bool,
    /// The first value as stored, repeats included: what the differences begin from. Length in bytes, for texts.
    pub base: i64,
    pub first: i64,
    pub last: i64,
    pub min: i64,
    pub max: i64,
    /// In units of the layout; zero where there is none.
    pub sum: i128,
}

/// A section's values as they are written. Buffers are used from section to section.
#[derive(Default)]
pub(super) struct Coder {
    /// Differences or bits, for the layouts of numbers.
    pub numbers: Vec<i64>,
    /// Bytes, for the others.
    pub bytes: Vec<u8>,
    levels: Vec<i64>,
    digits: u8,
}

pub(super) fn ordered(value: f64) -> i64 {
    let bits = value.to_bits().cast_signed();
    if bits < 0 { !bits ^ i64::MIN } else { bits }
}

pub(super) fn unordered(number: i64) -> f64 {
    let bits = if number < 0 { !(number ^ i64::MIN) } else { number };
    f64::from_bits(bits.cast_unsigned())
}

#[expect(clippy::cast_possible_truncation, reason = "below 2⁵¹ in magnitude")]
fn scaled(values: &[f64], digits: u8, out: &mut Vec<i64>) -> bool {
    let Some(power) = POWERS.get(usize::from(digits)).copied() else { return false };
    out.clear();
    let mut good = true;
    out.extend(values.iter().map(|value| {
        let product = value * power;
        let whole = (product + ROUNDER) - ROUNDER;
        good &= product.abs() < DECIMAL_LIMIT
            && whole.abs() < DECIMAL_LIMIT
            && (whole / power).to_bits() == value.to_bits();
        whole as i64
    }));
    good
}

/// The value that a number stands for.
pub(super) fn value(layout: u8, number: i64) -> Value {
    match layout {
        WHOLE => Value::I64(number),
        TRUTH => Value::Bool(number != 0),
        FLOAT | FLOAT_NAN => Value::F64(unordered(number)),
        digits => Value::F64(number as f64 / POWERS.get(usize::from(digits)).copied().unwrap_or(1.0)),
    }
}

impl Coder {
    /// Encodes values; `times` tells which of them are of one time.
    pub fn encode(&mut self, times: &[i64], values: &Values) -> Known {
        self.numbers.clear();
        self.bytes.clear();
        self.levels.clear();
        match values {
            Values::F64(all) => {
                if let Some(digits) = self.decimals(all) {
                    return self.stepped(digits, times, values);
                }
                self.levels.clear();
                self.levels.extend(all.iter().map(|value| ordered(*value)));
                let echoes = self.drop_echoes(times);
                let known = self.known(FLOAT, echoes, times, values);
                self.numbers.extend_from_slice(&self.levels);
                if all.iter().any(|value| value.is_nan()) {
                    return Known { layout: FLOAT_NAN, echoes, ..Known::default() };
                }
                Known { sum: 0, ..known }
            }
            Values::I64(all) => {
                self.levels.extend_from_slice(all);
                self.stepped(WHOLE, times, values)
            }
            Values::Bool(all) => {
                self.levels.extend(all.iter().map(|value| i64::from(*value)));
                Known { sum: 0, ..self.stepped(TRUTH, times, values) }
            }
            Values::Text(all) => {
                all.iter().for_each(|text| put_bytes(&mut self.bytes, text.as_bytes()));
                self.written(TEXT)
            }
            Values::Mixed(all) => {
                all.iter().for_each(|value| put_value(&mut self.bytes, value));
                self.written(MIXED)
            }
        }
    }

    /// Scales to the least digits that make all of them whole.
    fn decimals(&mut self, all: &[f64]) -> Option<u8> {
        let guess = self.digits;
        let found = if scaled(all, guess, &mut self.levels) {
            Some(guess)
        } else {
            // Most floats that are no decimals are told from them by one value.
            let one = all.get(all.len() / 2..)?.get(..1)?;
            let mut least = (0..=DECIMAL_LAST).filter(|digits| scaled(one, *digits, &mut self.numbers));
            let least = least.next();
            self.numbers.clear();
            (least?..=DECIMAL_LAST).find(|digits| scaled(all, *digits, &mut self.levels))
        };
        let mut digits = found?;
        while digits > 0 && self.levels.iter().all(|level| level % 10 == 0) {
            self.levels.iter_mut().for_each(|level| *level /= 10);
            digits -= 1;
        }
        self.digits = digits;
        Some(digits)
    }

    fn stepped(&mut self, layout: u8, times: &[i64], values: &Values) -> Known {
        let echoes = self.drop_echoes(times);
        let next = self.levels.iter().skip(1);
        self.numbers.extend(next.zip(&self.levels).map(|(b, a)| b.wrapping_sub(*a)));
        self.known(layout, echoes, times, values)
    }

    /// Takes out the levels of repeated times if all of them are those before them; whether there were such.
    fn drop_echoes(&mut self, times: &[i64]) -> bool {
        let repeated = |index: usize| index > 0 && times.get(index) == times.get(index - 1);
        let mut repeats = (1..times.len()).filter(|index| repeated(*index)).peekable();
        let same = |index: usize| self.levels.get(index) == self.levels.get(index - 1);
        if repeats.peek().is_none() || !repeats.all(same) {
            return false;
        }
        let mut index = 0;
        self.levels.retain(|_| {
            index += 1;
            !repeated(index - 1)
        });
        true
    }

    fn written(&self, layout: u8) -> Known {
        Known { layout, base: i64::try_from(self.bytes.len()).unwrap_or(i64::MAX), ..Known::default() }
    }

    fn known(&self, layout: u8, echoes: bool, times: &[i64], values: &Values) -> Known {
        let base = self.levels.first().copied().unwrap_or(0);
        let mut known = Known { layout, echoes, base, first: base, last: base, min: base, max: base, sum: 0 };
        if echoes || times.iter().skip(1).zip(times).all(|(b, a)| a < b) {
            known.last = self.levels.last().copied().unwrap_or(0);
            let (mut min, mut max) = (base, base);
            for level in &self.levels {
                (min, max) = (min.min(*level), max.max(*level));
            }
            (known.min, known.max) = (min, max);
            // Runs whose sum surely fits make it quick.
            known.sum = if min > -SMALL && max < SMALL {
                self.levels.chunks(SMALL_RUN).map(|run| i128::from(run.iter().sum::<i64>())).sum()
            } else {
                self.levels.iter().map(|level| i128::from(*level)).sum()
            };
            return known;
        }
        let mut first = true;
        for index in winners(times, values) {
            let Some(level) = self.levels.get(index).copied() else { continue };
            if std::mem::take(&mut first) {
                (known.first, known.min, known.max) = (level, level, level);
            }
            known.last = level;
            known.min = known.min.min(level);
            known.max = known.max.max(level);
            known.sum += i128::from(level);
        }
        known
    }
}

/// Invariant 8: of the values of one time the greatest is the point. The places of the points among ascending times.
pub(super) fn winners(times: &[i64], values: &Values) -> Vec<usize> {
    let mut kept: Vec<usize> = Vec::with_capacity(times.len());
    for index in 0..times.len() {
        match kept.last_mut() {
            Some(last) if times.get(*last) == times.get(index) => {
                if values.get(index) > values.get(*last) {
                    *last = index;
                }
            }
            _ => kept.push(index),
        }
    }
    kept
}

/// Puts the values at some places of a column behind another.
pub(super) fn extend_kept(out: &mut Values, from: &Values, kept: &[usize]) {
    if out.is_empty() {
        // Takes the kind; the values follow.
        out.extend_range(from, 0..1);
        out.clear();
    }
    match (&mut *out, from) {
        (Values::F64(all), Values::F64(from)) => all.extend(kept.iter().filter_map(|at| from.get(*at))),
        (Values::I64(all), Values::I64(from)) => all.extend(kept.iter().filter_map(|at| from.get(*at))),
        (Values::Bool(all), Values::Bool(from)) => all.extend(kept.iter().filter_map(|at| from.get(*at))),
        (out, from) => kept.iter().filter_map(|at| from.get(*at)).for_each(|value| out.push(value)),
    }
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::F64(value) => {
            out.push(0);
            out.extend_from_slice(&value.to_bits().to_le_bytes());
        }
        Value::I64(value) => {
            out.push(1);
            put_i64(out, *value);
        }
        Value::Bool(value) => out.push(2 + u8::from(*value)),
        Value::Text(text) => {
            out.push(4);
            put_bytes(out, text.as_bytes());
        }
    }
}

fn take_text(cut: &mut Cut<'_>) -> Result<String, Malformed> {
    String::from_utf8(cut.bytes()?.to_vec()).map_err(|_| Malformed)
}

fn take_value(cut: &mut Cut<'_>) -> Result<Value, Malformed> {
    Ok(match cut.u8()? {
        0 => Value::F64(f64::from_bits(u64::from_le_bytes(cut.array()?))),
        1 => Value::I64(cut.i64()?),
        truth @ (2 | 3) => Value::Bool(truth == 3),
        4 => Value::Text(take_text(cut)?),
        _ => return Err(Malformed),
    })
}

/// Reads `count` texts or mixed values behind `out`.
pub(super) fn take_texts(layout: u8, bytes: &[u8], count: usize, out: &mut Values) -> Result<(), Malformed> {
    if count > bytes.len() {
        return Err(Malformed);
    }
    let mut cut = Cut(bytes);
    for _ in 0..count {
        out.push(if layout == TEXT { Value::Text(take_text(&mut cut)?) } else { take_value(&mut cut)? });
    }
    cut.end()
}

/// Writes the values of numbers as stored behind `out`; the differences begin from `base`.
pub(super) fn extend(out: &mut Values, layout: u8, base: i64, numbers: &[i64]) {
    let power = POWERS.get(usize::from(layout)).copied().unwrap_or(1.0);
    if out.is_empty() {
        match (layout, &*out) {
            (WHOLE, Values::I64(_)) | (TRUTH, Values::Bool(_)) => {}
            (WHOLE, _) => *out = Values::I64(Vec::new()),
            (TRUTH, _) => *out = Values::Bool(Vec::new()),
            (_, Values::F64(_)) => {}
            (_, _) => *out = Values::F64(Vec::new()),
        }
    }
    let mut level = base;
    let mut steps = numbers.iter().map(|step| {
        level = level.wrapping_add(*step);
        level
    });
    match (layout, out) {
        (WHOLE, Values::I64(all)) => {
            all.push(base);
            all.extend(steps);
        }
        (TRUTH, Values::Bool(all)) => {
            all.push(base != 0);
            all.extend(steps.map(|level| level != 0));
        }
        (FLOAT | FLOAT_NAN, Values::F64(all)) => all.extend(numbers.iter().map(|bits| unordered(*bits))),
        (0..=DECIMAL_LAST, Values::F64(all)) => {
            all.push(base as f64 / power);
            all.extend(steps.map(|level| level as f64 / power));
        }
        (FLOAT | FLOAT_NAN, out) => numbers.iter().for_each(|bits| out.push(value(layout, *bits))),
        (_, out) => {
            out.push(value(layout, base));
            steps.by_ref().for_each(|level| out.push(value(layout, level)));
        }
    }
}

/// How many numbers a section has in its stream, of so many points and different times; none for texts.
pub(super) fn numbers_of(known: &Known, count: u32, distinct: u32) -> u32 {
    let count = if known.echoes { distinct } else { count };
    match known.layout {
        FLOAT | FLOAT_NAN => count,
        TEXT | MIXED => 0,
        _ => count.saturating_sub(1),
    }
}
