//! Aggregations over the samples of a window. Sums compensate their rounding (Neumaier's form of Kahan's sum) exactly
//! where Prometheus does, so that the last digit agrees too.

use super::matrix::Window;

/// A compensated sum.
#[derive(Clone, Copy, Default)]
pub(super) struct Kahan {
    sum: f64,
    lost: f64,
}

impl Kahan {
    pub fn add(&mut self, value: f64) {
        let total = self.sum + value;
        self.lost += if self.sum.abs() >= value.abs() {
            (self.sum - total) + value
        } else {
            (value - total) + self.sum
        };
        self.sum = total;
    }

    /// The sum with what was lost added at the end.
    pub fn total(self) -> f64 {
        self.sum + self.lost
    }

    /// The same, but infinite when the plain sum is.
    fn settled(self) -> f64 {
        if self.sum.is_infinite() { self.sum } else { self.total() }
    }
}

pub(super) fn sum(window: &Window) -> Option<f64> {
    let mut sum = Kahan::default();
    window.values.iter().for_each(|value| sum.add(*value));
    Some(sum.settled())
}

/// Whether a mean that has become infinite stays as it is: no finite value brings it back.
pub(super) fn stays_infinite(mean: f64, value: f64) -> bool {
    mean.is_infinite() && !value.is_nan() && (!value.is_infinite() || (mean > 0.0) == (value > 0.0))
}

pub(super) fn avg(window: &Window) -> Option<f64> {
    let (mut mean, mut count) = (Kahan::default(), 0.0);
    for value in window.values {
        count += 1.0;
        if !stays_infinite(mean.sum, *value) {
            mean.add(value / count - mean.sum / count);
        }
    }
    Some(mean.settled())
}

pub(super) fn min(window: &Window) -> Option<f64> {
    extreme(window.values.iter().copied(), |new, old| new < old)
}

pub(super) fn max(window: &Window) -> Option<f64> {
    extreme(window.values.iter().copied(), |new, old| new > old)
}

/// The value that no other beats; one that is no number is beaten by any.
pub(super) fn extreme(values: impl Iterator<Item = f64>, beats: fn(f64, f64) -> bool) -> Option<f64> {
    values.reduce(|old, new| if beats(new, old) || old.is_nan() { new } else { old })
}

#[allow(clippy::unnecessary_wraps, reason = "one signature for all functions of a window")]
pub(super) fn count(window: &Window) -> Option<f64> {
    Some(window.values.len() as f64)
}

pub(super) fn stdvar(window: &Window) -> Option<f64> {
    let (mut count, mut mean, mut squares) = (0.0, Kahan::default(), Kahan::default());
    for value in window.values {
        count += 1.0;
        let delta = value - mean.total();
        mean.add(delta / count);
        squares.add(delta * (value - mean.total()));
    }
    Some(squares.total() / count)
}

pub(super) fn stddev(window: &Window) -> Option<f64> {
    stdvar(window).map(f64::sqrt)
}

/// Numbers in ascending order, before them what is none.
pub(super) fn ascending(a: &f64, b: &f64) -> std::cmp::Ordering {
    b.is_nan().cmp(&a.is_nan()).then_with(|| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal))
}

/// The quantile, between two samples the weighted mean of both.
pub(super) fn quantile_of(q: f64, mut values: Vec<f64>) -> Option<f64> {
    if q.is_nan() || values.is_empty() {
        return Some(f64::NAN);
    }
    if q < 0.0 {
        return Some(f64::NEG_INFINITY);
    }
    if q > 1.0 {
        return Some(f64::INFINITY);
    }
    values.sort_by(ascending);
    let most = (values.len() - 1) as f64;
    let rank = q * most;
    let weight = rank - rank.floor();
    let lower = index_of(rank.floor().max(0.0));
    let upper = index_of((rank.floor().max(0.0) + 1.0).min(most));
    Some(values.get(lower)? * (1.0 - weight) + values.get(upper)? * weight)
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a whole number between 0 and the length of a vector"
)]
fn index_of(rank: f64) -> usize {
    rank as usize
}
