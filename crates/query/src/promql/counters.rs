//! Functions that follow the difference between samples: rates and increases with Prometheus's extrapolation to the
//! window's ends, the last difference, changes and resets.

use super::column::seconds;
use super::matrix::Window;

/// How the difference over a window is read.
#[derive(Clone, Copy)]
pub(super) struct Extrapolation {
    /// A smaller value than the one before means a restart from zero.
    counter: bool,
    /// Per second.
    rate: bool,
}

impl Extrapolation {
    pub const RATE: Self = Self { counter: true, rate: true };
    pub const INCREASE: Self = Self { counter: true, rate: false };
    pub const DELTA: Self = Self { counter: false, rate: false };
}

/// A gap to the window's end this many times the average distance of samples still belongs to the series.
const THRESHOLD: f64 = 1.1;

pub(super) fn extrapolated(window: &Window, how: Extrapolation) -> Option<f64> {
    let (first, last) = (window.first()?, window.last()?);
    let intervals = window.times.len().checked_sub(1).filter(|n| *n > 0)? as f64;
    let mut difference = last.1 - first.1;
    if how.counter {
        let mut before = 0.0;
        for value in window.values {
            if *value < before {
                difference += before;
            }
            before = *value;
        }
    }
    let mut to_start = seconds(first.0.saturating_sub(window.start));
    let to_end = seconds(window.end.saturating_sub(last.0));
    let sampled = seconds(last.0.saturating_sub(first.0));
    let average = sampled / intervals;
    if how.counter && difference > 0.0 && first.1 >= 0.0 {
        // A counter was never below zero: do not look further back than to where it would have been.
        let to_zero = sampled * (first.1 / difference);
        if to_zero < to_start {
            to_start = to_zero;
        }
    }
    let reach = |gap: f64| if gap < average * THRESHOLD { gap } else { average / 2.0 };
    let mut covered = sampled;
    covered += reach(to_start);
    covered += reach(to_end);
    let mut factor = covered / sampled;
    if how.rate {
        factor /= seconds(window.end.saturating_sub(window.start));
    }
    Some(difference * factor)
}

/// The difference of the last two samples; of a counter, per second.
pub(super) fn instant(window: &Window, rate: bool) -> Option<f64> {
    let mut newest = window.times.iter().zip(window.values).rev();
    let (last, before) = (newest.next()?, newest.next()?);
    let difference = if rate && last.1 < before.1 { *last.1 } else { last.1 - before.1 };
    let apart = last.0.saturating_sub(*before.0);
    if apart == 0 {
        return None;
    }
    Some(if rate { difference / seconds(apart) } else { difference })
}

fn pairs<'a>(window: &'a Window) -> impl Iterator<Item = (f64, f64)> + use<'a> {
    window.values.iter().copied().zip(window.values.iter().copied().skip(1))
}

#[allow(clippy::unnecessary_wraps, reason = "one signature for all functions of a window")]
pub(super) fn changes(window: &Window) -> Option<f64> {
    Some(pairs(window).filter(|(a, b)| a != b && !(a.is_nan() && b.is_nan())).count() as f64)
}

#[allow(clippy::unnecessary_wraps, reason = "one signature for all functions of a window")]
pub(super) fn resets(window: &Window) -> Option<f64> {
    Some(pairs(window).filter(|(a, b)| b < a).count() as f64)
}
