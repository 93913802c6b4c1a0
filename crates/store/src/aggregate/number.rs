//! Numbers as aggregates compare them: whole numbers and floats by what they are worth, exactly, and by their kind only where
//! they are worth the same. It knows no points.

use std::cmp::Ordering;

use tidelog_record::Value;

/// One spelling of NaN, because a CPU's own choice differs.
pub(super) const NAN: f64 = f64::from_bits(0x7ff8_0000_0000_0000);

/// 2⁶³, which no `i64` reaches.
const I64_LIMIT: f64 = 9_223_372_036_854_775_808.0;

/// A value that is a number; truth values are 0 and 1.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Whole(i64),
    Float(f64),
}

impl Number {
    /// None for texts.
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(truth) => Some(Self::Whole(i64::from(*truth))),
            Value::I64(whole) => Some(Self::Whole(*whole)),
            Value::F64(float) => Some(Self::Float(*float)),
            Value::Text(_) => None,
        }
    }

    pub fn is_nan(self) -> bool {
        matches!(self, Self::Float(float) if float.is_nan())
    }

    pub fn is_finite(self) -> bool {
        !matches!(self, Self::Float(float) if !float.is_finite())
    }

    pub fn value(self) -> Value {
        match self {
            Self::Whole(whole) => Value::I64(whole),
            Self::Float(float) if float.is_nan() => Value::F64(NAN),
            Self::Float(float) => Value::F64(float),
        }
    }

    /// By worth alone: zeros are equal whatever their sign or kind. NaN is no number here; what it compares as means nothing.
    pub fn compare(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Whole(a), Self::Whole(b)) => a.cmp(&b),
            (Self::Float(a), Self::Float(b)) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
            (Self::Whole(a), Self::Float(b)) => whole_to_float(a, b),
            (Self::Float(a), Self::Whole(b)) => whole_to_float(b, a).reverse(),
        }
    }

    /// By worth, then whole numbers before floats, then -0.0 before 0.0: equal only to what has the same bits.
    pub fn order(self, other: Self) -> Ordering {
        self.compare(other).then_with(|| match (self, other) {
            (Self::Whole(_), Self::Float(_)) => Ordering::Less,
            (Self::Float(_), Self::Whole(_)) => Ordering::Greater,
            (Self::Float(a), Self::Float(b)) => a.total_cmp(&b),
            (Self::Whole(_), Self::Whole(_)) => Ordering::Equal,
        })
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "below 2⁶³ in magnitude, and what is behind the point is looked at next"
)]
fn whole_to_float(whole: i64, float: f64) -> Ordering {
    if float >= I64_LIMIT {
        return Ordering::Less;
    }
    if float < -I64_LIMIT {
        return Ordering::Greater;
    }
    let below = whole.cmp(&(float.trunc() as i64));
    below.then_with(|| 0.0f64.partial_cmp(&float.fract()).unwrap_or(Ordering::Equal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_both_kinds_stand_in_one_total_order() {
        use Number::{Float, Whole};
        let ascending = [
            Float(f64::NEG_INFINITY),
            Float(-1e19),
            Whole(i64::MIN),
            Float(-9_223_372_036_854_775_808.0),
            Whole(i64::MIN + 1),
            Float(-1.5),
            Whole(-1),
            Float(-1.0),
            Float(-0.5),
            Whole(0),
            Float(-0.0),
            Float(0.0),
            Float(f64::MIN_POSITIVE),
            Whole(9_007_199_254_740_992),
            Float(9_007_199_254_740_992.0),
            Whole(9_007_199_254_740_993),
            Whole(i64::MAX),
            Float(9_223_372_036_854_775_808.0),
            Float(f64::INFINITY),
        ];
        for (i, a) in ascending.iter().enumerate() {
            for (j, b) in ascending.iter().enumerate() {
                assert_eq!(a.order(*b), i.cmp(&j), "{a:?} against {b:?}");
            }
        }
        assert_eq!(Whole(0).compare(Float(-0.0)), Ordering::Equal);
    }
}
