//! A point's value, and which of two values wins when both claim one `(series, timestamp)`.

use alloc::string::String;
use core::cmp::Ordering;

use serde::{Deserialize, Serialize};

/// What was measured.
///
/// Equality and order are on bits, so that a NaN equals itself and -0.0 differs from 0.0: two nodes that hold the same
/// points must agree on them byte by byte.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// A truth value.
    Bool(bool),
    /// A whole number.
    I64(i64),
    /// A number.
    F64(f64),
    /// A text.
    Text(String),
}

impl Value {
    fn rank(&self) -> u8 {
        match self {
            Self::F64(v) if v.is_nan() => 0,
            Self::Bool(_) => 1,
            Self::I64(_) => 2,
            Self::F64(_) => 3,
            Self::Text(_) => 4,
        }
    }
}

/// Invariant 8: a total order on content alone. The greater of two values at one `(series, timestamp)` is the point;
/// arrival and clocks have no say. A NaN loses to everything, then bool < i64 < f64 < text, then the values' own order.
impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::I64(a), Self::I64(b)) => a.cmp(b),
            (Self::F64(a), Self::F64(b)) if a.is_nan() == b.is_nan() => a.total_cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Value {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn the_order_of_values_is_total_and_nan_loses() {
        let ascending = vec![
            Value::F64(-f64::NAN),
            Value::F64(f64::NAN),
            Value::Bool(false),
            Value::Bool(true),
            Value::I64(i64::MIN),
            Value::I64(i64::MAX),
            Value::F64(f64::NEG_INFINITY),
            Value::F64(-0.0),
            Value::F64(0.0),
            Value::F64(f64::MIN_POSITIVE),
            Value::F64(f64::INFINITY),
            Value::Text("a".into()),
            Value::Text("b".into()),
        ];
        for (i, a) in ascending.iter().enumerate() {
            for (j, b) in ascending.iter().enumerate() {
                assert_eq!(a.cmp(b), i.cmp(&j), "{a:?} against {b:?}");
            }
        }
    }
}
