//! Columns: the values of one series' points, side by side and of one kind where they are of one kind. It knows no times, no
//! series and no bytes.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use crate::decimal::decimal_value;
use crate::point::Value;

/// One column of values: all of one kind, or mixed. Numbers are equal when their bits are, as in [`Value`].
#[derive(Clone, Debug)]
pub enum Values {
    /// Numbers.
    F64(Vec<f64>),
    /// Whole numbers.
    I64(Vec<i64>),
    /// Truth values.
    Bool(Vec<bool>),
    /// Texts.
    Text(Vec<String>),
    /// At least two kinds.
    Mixed(Vec<Value>),
}

impl Default for Values {
    fn default() -> Self {
        Self::F64(Vec::new())
    }
}

impl PartialEq for Values {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::F64(a), Self::F64(b)) => a.iter().map(|v| v.to_bits()).eq(b.iter().map(|v| v.to_bits())),
            (Self::I64(a), Self::I64(b)) => a == b,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Mixed(a), Self::Mixed(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Values {}

impl Values {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        Column::from(self).len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all values and keeps the room they took.
    pub fn clear(&mut self) {
        match self {
            Self::F64(all) => all.clear(),
            Self::I64(all) => all.clear(),
            Self::Bool(all) => all.clear(),
            Self::Text(all) => all.clear(),
            Self::Mixed(all) => all.clear(),
        }
    }

    /// The value at `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Value> {
        Column::from(self).get(index)
    }

    /// Adds a value at the end. A column of one kind becomes mixed when another kind comes; an empty one takes its kind.
    pub fn push(&mut self, value: Value) {
        let value = match (&mut *self, value) {
            (Self::F64(all), Value::F64(value)) => return all.push(value),
            (Self::I64(all), Value::I64(value)) => return all.push(value),
            (Self::Bool(all), Value::Bool(value)) => return all.push(value),
            (Self::Text(all), Value::Text(value)) => return all.push(value),
            (Self::Mixed(all), value) if !all.is_empty() => return all.push(value),
            (_, value) => value,
        };
        let before = Column::from(&*self);
        let mut all: Vec<Value> = (0..before.len()).filter_map(|index| before.get(index)).collect();
        *self = match value {
            Value::F64(value) if all.is_empty() => Self::F64(Vec::from([value])),
            Value::I64(value) if all.is_empty() => Self::I64(Vec::from([value])),
            Value::Bool(value) if all.is_empty() => Self::Bool(Vec::from([value])),
            Value::Text(value) if all.is_empty() => Self::Text(Vec::from([value])),
            value => {
                all.push(value);
                Self::Mixed(all)
            }
        };
    }

    /// Adds `range` of another column at the end; what of it is out of bounds is not there.
    pub fn extend_range(&mut self, other: &Self, range: Range<usize>) {
        if self.is_empty() {
            match (&mut *self, other) {
                (Self::F64(_), Self::F64(_))
                | (Self::I64(_), Self::I64(_))
                | (Self::Bool(_), Self::Bool(_))
                | (Self::Text(_), Self::Text(_)) => {}
                (_, Self::F64(_)) => *self = Self::F64(Vec::new()),
                (_, Self::I64(_)) => *self = Self::I64(Vec::new()),
                (_, Self::Bool(_)) => *self = Self::Bool(Vec::new()),
                (_, Self::Text(_)) => *self = Self::Text(Vec::new()),
                // A part of a mixed column may be of one kind.
                (_, Self::Mixed(_)) => {}
            }
        }
        let range = range.start.min(other.len())..range.end.min(other.len());
        match (&mut *self, other) {
            (Self::F64(all), Self::F64(more)) => all.extend_from_slice(more.get(range).unwrap_or_default()),
            (Self::I64(all), Self::I64(more)) => all.extend_from_slice(more.get(range).unwrap_or_default()),
            (Self::Bool(all), Self::Bool(more)) => all.extend_from_slice(more.get(range).unwrap_or_default()),
            (Self::Text(all), Self::Text(more)) => all.extend_from_slice(more.get(range).unwrap_or_default()),
            _ => range.filter_map(|index| other.get(index)).for_each(|value| self.push(value)),
        }
    }
}

/// A look at one column, wherever its values lie.
#[derive(Clone, Copy, Debug)]
pub enum Column<'a> {
    /// Numbers.
    F64(&'a [f64]),
    /// Numbers that are `scaled[i] / 10^digits`, as they were written: `digits` up to
    /// [`DECIMAL_DIGITS_MAX`](crate::DECIMAL_DIGITS_MAX), each of `scaled` below [`DECIMAL_LIMIT`](crate::DECIMAL_LIMIT)
    /// in absolute value.
    Decimal {
        /// Digits behind the point.
        digits: u8,
        /// The numbers without their point.
        scaled: &'a [i64],
    },
    /// Whole numbers.
    I64(&'a [i64]),
    /// Truth values.
    Bool(&'a [bool]),
    /// Texts.
    Text(&'a [String]),
    /// Values of any kind.
    Mixed(&'a [Value]),
}

impl Column<'_> {
    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::F64(all) => all.len(),
            Self::Decimal { scaled, .. } => scaled.len(),
            Self::I64(all) => all.len(),
            Self::Bool(all) => all.len(),
            Self::Text(all) => all.len(),
            Self::Mixed(all) => all.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value at `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Value> {
        Some(match self {
            Self::F64(all) => Value::F64(*all.get(index)?),
            Self::Decimal { digits, scaled } => Value::F64(decimal_value(*scaled.get(index)?, *digits)),
            Self::I64(all) => Value::I64(*all.get(index)?),
            Self::Bool(all) => Value::Bool(*all.get(index)?),
            Self::Text(all) => Value::Text(all.get(index)?.clone()),
            Self::Mixed(all) => all.get(index)?.clone(),
        })
    }
}

impl<'a> From<&'a Values> for Column<'a> {
    fn from(values: &'a Values) -> Self {
        match values {
            Values::F64(all) => Self::F64(all),
            Values::I64(all) => Self::I64(all),
            Values::Bool(all) => Self::Bool(all),
            Values::Text(all) => Self::Text(all),
            Values::Mixed(all) => Self::Mixed(all),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<u64>().prop_map(|bits| Value::F64(f64::from_bits(bits))),
            any::<i64>().prop_map(Value::I64),
            any::<bool>().prop_map(Value::Bool),
            "[a-z]{0,3}".prop_map(Value::Text),
        ]
    }

    fn all(values: &Values) -> Vec<Value> {
        (0..values.len()).filter_map(|index| values.get(index)).collect()
    }

    proptest! {
        #[test]
        fn a_column_holds_what_a_list_would(
            first in prop::collection::vec(value(), 0..6), second in prop::collection::vec(value(), 0..6),
            from in 0..8_usize, count in 0..8_usize,
        ) {
            let (mut a, mut b) = (Values::default(), Values::I64(vec![1]));
            b.clear();
            first.iter().for_each(|value| a.push(value.clone()));
            second.iter().for_each(|value| b.push(value.clone()));
            prop_assert_eq!(&all(&a), &first);
            a.extend_range(&b, from..from + count);
            let expected: Vec<_> = first.into_iter().chain(second.into_iter().skip(from).take(count)).collect();
            prop_assert_eq!(all(&a), expected);
            a.clear();
            prop_assert!(a.is_empty());
        }
    }

    #[test]
    fn values_of_one_kind_make_a_column_of_that_kind() {
        let mut values = Values::Mixed(vec![]);
        values.push(Value::Bool(true));
        values.push(Value::Bool(false));
        assert_eq!(values, Values::Bool(vec![true, false]));
        values.push(Value::I64(1));
        assert_eq!(values, Values::Mixed(vec![Value::Bool(true), Value::Bool(false), Value::I64(1)]));
    }
}
