//! An entry's times and values.

use alloc::vec::Vec;

use super::super::super::write::put_steps;
use super::super::coder::{Coder, Numbers, plain_bytes, string};
use super::{Common, Index, Known, METRIC_MODELS_MAX, Metric, Model, Series, Within};
use crate::body::{
    BATCH_POINTS_MAX, LAYOUT_BITS, LAYOUT_BOOL, LAYOUT_DECIMAL_LAST, LAYOUT_F64, LAYOUT_I64, LAYOUT_MIXED,
    LAYOUT_TEXT, UNITS_NS,
};
use crate::varint::Malformed;

/// What an entry says beside its series' name.
#[derive(Debug, Default)]
pub(in super::super) struct Fields {
    /// None of its own: those of the entry before.
    pub same_times: bool,
    pub times: Vec<i64>,
    pub layout: u8,
    /// Decimals and whole numbers, as they stand in the body.
    pub numbers: Vec<i64>,
    /// Values of other layouts, as they stand in the body.
    pub raw: Vec<u8>,
}

impl Known {
    /// Codes what an entry says beside its series.
    pub fn fields(
        &mut self,
        coder: &mut impl Coder,
        within: &mut Within,
        at: Index,
        fields: &mut Fields,
    ) -> Result<(), Malformed> {
        let Some(series) = self.series.get_mut(at as usize) else { return Err(Malformed) };
        times(&mut self.all, coder, series, fields)?;
        within.points = within.points.saturating_add(fields.times.len());
        if within.points > BATCH_POINTS_MAX {
            return Err(Malformed);
        }
        let metric = self.metrics.get_mut(series.metric as usize).ok_or(Malformed)?;
        let model = (series.metric as usize).min(METRIC_MODELS_MAX - 1);
        let model = self.models.get_mut(model).ok_or(Malformed)?;
        values(model, coder, series, metric, &mut self.all.lengths, fields)?;
        coder.check()
    }
}

/// Writes an entry's times and values as its body has them; the rest of its head.
pub(in super::super) fn put_fields(within: &mut Within, fields: &Fields, out: &mut Vec<u8>) -> u8 {
    let flags = within.times.put(out, &fields.times);
    if fields.times.is_empty() {
        return flags | fields.layout;
    }
    match fields.layout {
        0..=LAYOUT_DECIMAL_LAST | LAYOUT_I64 => flags | fields.layout | put_steps(out, &fields.numbers),
        _ => {
            out.extend_from_slice(&fields.raw);
            flags | fields.layout
        }
    }
}

fn times(
    all: &mut Common,
    coder: &mut impl Coder,
    series: &mut Series,
    fields: &mut Fields,
) -> Result<(), Malformed> {
    let place = all.own_times.get_mut(usize::from(series.own_times)).ok_or(Malformed)?;
    series.own_times = coder.bit(place, !fields.same_times);
    fields.same_times = !series.own_times;
    if fields.same_times {
        return Ok(());
    }
    let more = i64::try_from(fields.times.len()).map_err(|_| Malformed)? - i64::from(series.count);
    let count = i64::from(series.count).checked_add(all.time_counts.code(coder, more)).ok_or(Malformed)?;
    let count = usize::try_from(count).ok().filter(|count| *count <= BATCH_POINTS_MAX).ok_or(Malformed)?;
    series.count = u32::try_from(count).map_err(|_| Malformed)?;
    let unit = unit(all, coder, series, &fields.times)?;
    fields.times.resize(count, 0);
    for time in &mut fields.times {
        let foretold = series.time.wrapping_add(series.step);
        let off = all.times.code(coder, time.wrapping_sub(foretold) / unit).wrapping_mul(unit);
        *time = foretold.wrapping_add(off);
        series.step = time.wrapping_sub(series.time);
        series.time = *time;
        coder.check()?;
    }
    Ok(())
}

/// Codes the greatest unit that divides what is told of the times.
fn unit(all: &mut Common, coder: &mut impl Coder, series: &Series, times: &[i64]) -> Result<i64, Malformed> {
    let (mut code, mut time, mut step) = (UNITS_NS.len() - 1, series.time, series.step);
    for next in times {
        let off = next.wrapping_sub(time.wrapping_add(step));
        while UNITS_NS.get(code).is_some_and(|unit| off % unit != 0) {
            code -= 1;
        }
        (step, time) = (next.wrapping_sub(time), *next);
    }
    let [first, with_high, with_low] = &mut all.units;
    let high = coder.bit(first, code & 2 != 0);
    let low = coder.bit(if high { with_high } else { with_low }, code & 1 != 0);
    UNITS_NS.get(usize::from(high) << 1 | usize::from(low)).copied().ok_or(Malformed)
}

fn values(
    model: &mut Model,
    coder: &mut impl Coder,
    series: &mut Series,
    metric: &mut Metric,
    lengths: &mut Numbers,
    fields: &mut Fields,
) -> Result<(), Malformed> {
    let count = fields.times.len();
    if count == 0 {
        fields.layout = 0;
        return Ok(());
    }
    let is_decimal = |layout: u8| layout <= LAYOUT_DECIMAL_LAST;
    let as_usual = if is_decimal(series.layout) {
        fields.layout <= series.digits && has_fewest(&fields.numbers, fields.layout)
    } else {
        fields.layout == series.layout
    };
    let layout = if coder.bit(&mut model.layout_usual, as_usual) {
        None
    } else {
        let layout = coder.plain(u32::from(fields.layout), 4).to_le_bytes()[0] & LAYOUT_BITS;
        let digits = if is_decimal(layout) { layout.max(series.digits) } else { series.digits };
        let goes_on = is_decimal(layout) && is_decimal(series.layout);
        let number = power(digits - series.digits).and_then(|power| series.number.checked_mul(power));
        series.number = number.filter(|_| goes_on).unwrap_or_default();
        (series.layout, series.digits) = (layout, digits);
        metric.digits = metric.digits.max(digits);
        Some(layout)
    };
    match series.layout {
        0..=LAYOUT_DECIMAL_LAST => {
            let power = power(series.digits.saturating_sub(fields.layout)).ok_or(Malformed)?;
            fields.numbers.resize(count, 0);
            for number in &mut fields.numbers {
                *number = number.checked_mul(power).ok_or(Malformed)?;
            }
            numbers(model, coder, series, &mut fields.numbers)?;
            fields.layout = unscale(&mut fields.numbers, series.digits, layout)?;
        }
        LAYOUT_I64 => {
            fields.numbers.resize(count, 0);
            numbers(model, coder, series, &mut fields.numbers)?;
            fields.layout = LAYOUT_I64;
        }
        LAYOUT_F64 => {
            fields.layout = LAYOUT_F64;
            fields.raw.resize(count.checked_mul(8).ok_or(Malformed)?, 0);
            for eight in fields.raw.chunks_mut(8) {
                plain_bytes(coder, eight);
                coder.check()?;
            }
        }
        LAYOUT_BOOL => {
            fields.layout = LAYOUT_BOOL;
            fields.raw.resize(count.div_ceil(8), 0);
            for byte in &mut fields.raw {
                let written = *byte;
                *byte = (0..8).fold(0, |read, at| {
                    read | u8::from(coder.bit(&mut model.truth, written >> at & 1 == 1)) << at
                });
                coder.check()?;
            }
        }
        text @ (LAYOUT_TEXT | LAYOUT_MIXED) => {
            fields.layout = text;
            string(coder, lengths, &mut fields.raw)?;
        }
        _ => return Err(Malformed),
    }
    Ok(())
}

/// Codes numbers as steps, each with the probabilities of how far the one before moved.
#[inline]
fn numbers(
    model: &mut Model,
    coder: &mut impl Coder,
    series: &mut Series,
    numbers: &mut [i64],
) -> Result<(), Malformed> {
    let (mut before, mut mood) = (series.number, series.mood);
    for number in numbers {
        let moved = model.moved.get_mut(usize::from(mood)).ok_or(Malformed)?;
        let step = moved.code(coder, number.wrapping_sub(before));
        before = before.wrapping_add(step);
        *number = before;
        mood = match step.unsigned_abs() {
            0 => 0,
            1..8 => 1,
            _ => 2,
        };
        coder.check()?;
    }
    (series.number, series.mood) = (before, mood);
    Ok(())
}

fn power(digits: u8) -> Option<i64> {
    10_i64.checked_pow(u32::from(digits))
}

/// Whether numbers with so many digits behind the point could have no fewer.
pub(in super::super) fn has_fewest(numbers: &[i64], digits: u8) -> bool {
    digits == 0 || numbers.iter().any(|number| number % 10 != 0)
}

/// Takes zeros off the end of all: as many as there are, or as leave so many digits. How many digits are left.
fn unscale(numbers: &mut [i64], digits: u8, left: Option<u8>) -> Result<u8, Malformed> {
    let mut have = digits;
    while left.map_or(have > 0, |left| have > left) {
        if numbers.iter().any(|number| number % 10 != 0) {
            return if left.is_some() { Err(Malformed) } else { Ok(have) };
        }
        numbers.iter_mut().for_each(|number| *number /= 10);
        have -= 1;
    }
    Ok(have)
}
