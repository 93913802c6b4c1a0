//! Points of one series in order of arrival, in as few bytes as one point after another can be put: a value that follows at the same
//! distance in time by a small step is one byte, and one that follows as the one before did is none until that ends. What comes out is
//! what was put in, bit for bit. It knows no order but that of arrival, no series, and no file: these bytes are never written.
//!
//! ```text
//! token  := step of the value << 1                              at the same distance in time as the point before
//!         | step of the value << 2 | 1, change of distance      at another
//!         | operation << 2 | 3, what belongs to it
//! change := (zigzag / unit) << 2 | unit                         0: ns, 1: µs, 2: ms; or 3, 8 bytes
//! ```
//!
//! Numbers are LEB128, steps zigzag. Operations 0 to 8: a float, as that many leading bytes of its bits xor those of the float told so
//! before it; [`TEXT`], [`WIDE`]: a text; a number whose step is too great. [`REPEAT`]: points that follow without a step. [`CHANGE`]: the
//! next point stands at another distance. [`LAYOUT`] and more: what the numbers are from here on, of which the first is told in full.

mod walk;

#[cfg(test)]
mod tests;

use tidelog_record::{DECIMAL_DIGITS_MAX, DECIMAL_LIMIT, Value, Values, decimal_near, decimal_value};

use crate::segment::zigzag;
use walk::Walk;

/// Operations without a number of their own.
const FLOAT_BYTES_MAX: u64 = 8;
const CHANGE: u64 = 9;
const TEXT: u64 = 10;
const WIDE: u64 = 11;
const REPEAT: u64 = 12;
const LAYOUT: u64 = 16;

/// Layouts: up to [`DECIMAL_DIGITS_MAX`], decimals with as many digits behind the point; whole numbers; truth values.
const WHOLE: u8 = DECIMAL_DIGITS_MAX + 1;
const TRUTH: u8 = DECIMAL_DIGITS_MAX + 2;

const UNITS_NS: [i64; 3] = [1, 1_000, 1_000_000];
const UNIT_WIDE: u64 = 3;

const POWERS: [f64; 10] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
/// 1.5 × 2⁵²: a float below [`SCALED_LIMIT`] is rounded to a whole number by adding and taking away this.
const ROUNDER: f64 = 6_755_399_441_055_744.0;
const SCALED_LIMIT: f64 = 1e15;
/// Floats on end that are no decimals after which no more are tried.
const MISSES_MAX: u8 = 8;

/// Steps below this are a byte as they are.
const SHORT_STEP_BELOW: u64 = 64;
/// Bytes that a number takes at most.
const NUMBER_BYTES_MAX: usize = 10;

/// Where the points told so far have come to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Here {
    time: i64,
    /// From the point before.
    distance: i64,
    number: i64,
    /// Of the last float that was no number.
    bits: u64,
    layout: u8,
    /// The first point has come.
    begun: bool,
}

/// Of which kind the last point is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Last {
    #[default]
    None,
    Number,
    Float,
    Text,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    here: Here,
    /// Points that follow without a step and that no token tells yet.
    repeats: u32,
    misses: u8,
    last: Last,
}

/// See above.
#[derive(Clone, Debug, Default)]
pub(crate) struct Packed {
    bytes: Vec<u8>,
    state: State,
}

/// How much of it there was, to go back to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    bytes: usize,
    state: State,
}

/// A value as it stands in the bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cell<'b> {
    Float(f64),
    Whole(i64),
    Truth(bool),
    Text(&'b str),
}

impl From<Cell<'_>> for Value {
    fn from(cell: Cell<'_>) -> Self {
        match cell {
            Cell::Float(value) => Self::F64(value),
            Cell::Whole(value) => Self::I64(value),
            Cell::Truth(value) => Self::Bool(value),
            Cell::Text(value) => Self::Text(value.to_owned()),
        }
    }
}

impl Cell<'_> {
    /// Puts it behind others.
    #[inline]
    pub fn push_to(self, values: &mut Values) {
        match (self, values) {
            (Self::Float(value), Values::F64(all)) => all.push(value),
            (Self::Whole(value), Values::I64(all)) => all.push(value),
            (Self::Truth(value), Values::Bool(all)) => all.push(value),
            (cell, values) => values.push(cell.into()),
        }
    }
}

impl Packed {
    /// Bytes on the heap.
    pub fn bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Ends a part: what follows is read from the place that is told, without what stands before.
    pub fn restart(&mut self) -> usize {
        self.end_repeats();
        let (layout, end) = (self.state.here.layout, self.bytes.len());
        self.state = State::default();
        if layout != self.state.here.layout {
            self.lay_out(layout);
        }
        end
    }

    /// A copy of whole parts; `to` as in [`Packed::each`].
    pub fn copy(&self, from: usize, to: Option<usize>) -> Self {
        let state = if to.is_none() { self.state } else { State::default() };
        let bytes = self.bytes.get(from..to.unwrap_or(self.bytes.len())).unwrap_or_default().to_vec();
        Self { bytes, state }
    }

    pub fn mark(&self) -> Mark {
        Mark { bytes: self.bytes.len(), state: self.state }
    }

    /// Forgets what came after the mark was taken.
    pub fn go_back(&mut self, mark: &Mark) {
        self.bytes.truncate(mark.bytes);
        self.state = mark.state;
    }

    /// Puts points behind, as many as there are both times and values.
    pub fn extend(&mut self, times: &[i64], values: &Values, range: std::ops::Range<usize>) {
        let times = times.get(range.clone()).unwrap_or_default().iter().copied();
        match values {
            Values::F64(all) => {
                let values = all.get(range).unwrap_or_default();
                times.zip(values).for_each(|(time, value)| self.float(time, *value));
            }
            Values::I64(all) => {
                let values = all.get(range).unwrap_or_default();
                times.zip(values).for_each(|(time, value)| self.number_of(time, *value, WHOLE));
            }
            Values::Bool(all) => {
                let values = all.get(range).unwrap_or_default();
                times.zip(values).for_each(|(time, value)| self.number_of(time, i64::from(*value), TRUTH));
            }
            Values::Text(all) => {
                let values = all.get(range).unwrap_or_default();
                times.zip(values).for_each(|(time, value)| self.text(time, value));
            }
            Values::Mixed(all) => {
                let values = all.get(range).unwrap_or_default();
                times.zip(values).for_each(|(time, value)| match value {
                    Value::F64(value) => self.float(time, *value),
                    Value::I64(value) => self.number_of(time, *value, WHOLE),
                    Value::Bool(value) => self.number_of(time, i64::from(*value), TRUTH),
                    Value::Text(value) => self.text(time, value),
                });
            }
        }
    }

    /// Puts decimals behind, as many as there are both times and numbers: these are without their point, which has so many digits behind it.
    pub fn extend_decimals(
        &mut self,
        times: &[i64],
        (digits, numbers): (u8, &[i64]),
        range: std::ops::Range<usize>,
    ) {
        let times = times.get(range.clone()).unwrap_or_default();
        let points = times.iter().zip(numbers.get(range).unwrap_or_default());
        let layout = self.state.here.layout;
        self.state.misses = 0;
        if layout >= WHOLE || layout <= digits {
            return points.for_each(|(time, number)| self.number_of(*time, *number, digits));
        }
        let power = 10_i64.checked_pow(u32::from(layout - digits)).unwrap_or(i64::MAX);
        for (time, number) in points {
            let number_here = number.checked_mul(power);
            match number_here.filter(|number| number.unsigned_abs() < DECIMAL_LIMIT.unsigned_abs()) {
                Some(number) => self.number(*time, number),
                // Too great with so many digits: exact as a float all the same.
                None => self.raw(*time, decimal_value(*number, digits)),
            }
        }
    }

    #[inline]
    fn float(&mut self, time: i64, value: f64) {
        let layout = self.state.here.layout;
        if self.state.misses < MISSES_MAX {
            if let Some(number) = scaled(value, layout) {
                self.state.misses = 0;
                return self.number(time, number);
            }
            return self.other_float(time, value);
        }
        self.raw(time, value);
    }

    /// A float that is no decimal of as many digits as those before.
    #[cold]
    fn other_float(&mut self, time: i64, value: f64) {
        let layout = self.state.here.layout;
        let least = decimal_near(value, layout).map(|(_, digits)| digits);
        let digits = least.map(|digits| if layout < WHOLE { digits.max(layout) } else { digits });
        let found = digits.and_then(|digits| Some((scaled(value, digits)?, digits)));
        match found {
            Some((number, digits)) => {
                self.state.misses = 0;
                self.number_of(time, number, digits);
            }
            None => {
                self.state.misses += 1;
                self.raw(time, value);
            }
        }
    }

    #[inline]
    fn number_of(&mut self, time: i64, number: i64, layout: u8) {
        if self.state.here.layout != layout {
            self.end_repeats();
            self.lay_out(layout);
        }
        self.number(time, number);
    }

    fn lay_out(&mut self, layout: u8) {
        self.operation(LAYOUT + u64::from(layout));
        self.state.here.layout = layout;
        self.state.here.number = 0;
    }

    #[inline]
    fn number(&mut self, time: i64, number: i64) {
        let here = &mut self.state.here;
        let step = zigzag(number.wrapping_sub(here.number));
        let distance = time.wrapping_sub(here.time);
        let change = distance.wrapping_sub(here.distance);
        here.number = number;
        self.state.last = Last::Number;
        // By far the most common one, in a byte.
        if change == 0 && step.wrapping_sub(1) < SHORT_STEP_BELOW - 1 && self.state.repeats == 0 && here.begun
        {
            here.time = time;
            if self.bytes.capacity() == self.bytes.len() {
                self.room(1);
            }
            self.bytes.push(step.to_le_bytes()[0] << 1);
            return;
        }
        if step == 0 && change == 0 && self.state.repeats < u32::MAX {
            here.time = time;
            here.begun = true;
            self.state.repeats += 1;
            return;
        }
        self.end_repeats();
        if change == 0 && step >> 63 == 0 {
            self.put(step << 1);
        } else if step >> 62 == 0 {
            self.put(step << 2 | 1);
            self.put_change(change);
        } else {
            self.change(change);
            self.operation(WIDE);
            self.room(8);
            self.bytes.extend_from_slice(&step.to_le_bytes());
        }
        self.state.here.go_to(time, distance);
    }

    fn raw(&mut self, time: i64, value: f64) {
        let distance = time.wrapping_sub(self.state.here.time);
        let xor = value.to_bits() ^ self.state.here.bits;
        let count = 8 - xor.trailing_zeros() / 8;
        self.end_repeats();
        self.change(distance.wrapping_sub(self.state.here.distance));
        self.operation(u64::from(count));
        let bytes = xor.to_be_bytes();
        let bytes = bytes.get(..count as usize).unwrap_or_default();
        self.room(bytes.len());
        self.bytes.extend_from_slice(bytes);
        self.state.here.bits = value.to_bits();
        self.state.last = Last::Float;
        self.state.here.go_to(time, distance);
    }

    fn text(&mut self, time: i64, text: &str) {
        let distance = time.wrapping_sub(self.state.here.time);
        self.end_repeats();
        self.change(distance.wrapping_sub(self.state.here.distance));
        self.operation(TEXT);
        self.put(text.len() as u64);
        self.room(text.len());
        self.bytes.extend_from_slice(text.as_bytes());
        self.state.last = Last::Text;
        self.state.here.go_to(time, distance);
    }

    fn end_repeats(&mut self) {
        match std::mem::take(&mut self.state.repeats) {
            0 => {}
            1 => self.put(0),
            repeats => {
                self.operation(REPEAT);
                self.put(u64::from(repeats));
            }
        }
    }

    fn change(&mut self, change: i64) {
        if change != 0 {
            self.operation(CHANGE);
            self.put_change(change);
        }
    }

    fn put_change(&mut self, change: i64) {
        let units = UNITS_NS.iter().rposition(|unit| change % unit == 0);
        let unit = units.unwrap_or(0);
        let count = zigzag(UNITS_NS.get(unit).map_or(change, |unit| change / unit));
        if count >> 62 == 0 {
            self.put(count << 2 | unit as u64);
        } else {
            self.put(UNIT_WIDE);
            self.room(8);
            self.bytes.extend_from_slice(&change.to_le_bytes());
        }
    }

    fn operation(&mut self, operation: u64) {
        self.put(operation << 2 | 3);
    }

    #[inline]
    fn put(&mut self, mut value: u64) {
        if self.bytes.capacity() - self.bytes.len() < NUMBER_BYTES_MAX {
            self.room(if value < 0x80 { 1 } else { NUMBER_BYTES_MAX });
        }
        while value >= 0x80 {
            self.bytes.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.bytes.push(value.to_le_bytes()[0]);
    }

    /// Grows by a quarter, because there are thousands of these, and what a list takes beyond its length adds up.
    fn room(&mut self, bytes: usize) {
        if self.bytes.capacity() - self.bytes.len() < bytes {
            self.bytes.reserve_exact(bytes.max(self.bytes.len() / 4 + 16));
        }
    }

    /// The value of the last point, if it need not be looked for.
    pub fn last(&self) -> Option<(i64, Value)> {
        let here = &self.state.here;
        let cell = match self.state.last {
            Last::Number => here.cell(),
            Last::Float => Cell::Float(f64::from_bits(here.bits)),
            Last::None | Last::Text => return None,
        };
        here.begun.then(|| (here.time, cell.into()))
    }

    /// Tells the points of a part, in the order in which they were put. A part begins at the front or at a place told by
    /// [`Packed::restart`], and ends at the next such place or, without one, at the last point.
    pub fn each(&self, from: usize, to: Option<usize>, mut take: impl FnMut(i64, Cell<'_>)) {
        let end = to.unwrap_or(self.bytes.len());
        let mut walk = Walk { rest: self.bytes.get(from..end).unwrap_or_default(), here: Here::default() };
        // These bytes were never out of this process, so they end with a token and hold none that is not one.
        while walk.token(&mut take).is_some() {}
        if to.is_none() {
            walk.repeat(self.state.repeats, &mut take);
        }
    }

    /// Puts all points of the only part behind others.
    pub fn unpack(&self, times: &mut Vec<i64>, values: &mut Values) {
        self.each(0, None, |time, cell| {
            times.push(time);
            cell.push_to(values);
        });
    }
}

impl Here {
    #[inline]
    fn go_to(&mut self, time: i64, distance: i64) {
        self.time = time;
        // The first point stands at no distance from another.
        self.distance = if self.begun { distance } else { 0 };
        self.begun = true;
    }

    #[inline]
    fn cell(&self) -> Cell<'static> {
        match self.layout {
            WHOLE => Cell::Whole(self.number),
            TRUTH => Cell::Truth(self.number != 0),
            digits => Cell::Float(decimal_value(self.number, digits)),
        }
    }
}

/// The number that gives exactly `value` with so many digits behind the point; -0.0 has none.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "a whole number below the limit")]
fn scaled(value: f64, digits: u8) -> Option<i64> {
    let power = POWERS.get(usize::from(digits)).copied()?;
    let product = value * power;
    let whole = (product + ROUNDER) - ROUNDER;
    let is_exact = product.abs() < SCALED_LIMIT && (whole / power).to_bits() == value.to_bits();
    is_exact.then_some(whole as i64)
}
