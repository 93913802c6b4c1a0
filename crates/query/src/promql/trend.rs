//! Functions that draw a line through a window: least squares (with compensated sums, as in Prometheus) and double
//! exponential smoothing.

use super::column::seconds;
use super::matrix::Window;
use super::over_time::Kahan;

/// Slope per second, and the value at `origin`.
fn regression(window: &Window, origin: i64) -> Option<(f64, f64)> {
    let (_, first) = window.first()?;
    let mut n = 0.0;
    let [mut xs, mut ys, mut xys, mut xxs] = [Kahan::default(); 4];
    let mut constant = true;
    for (time, value) in window.points() {
        constant &= value == first || n == 0.0;
        n += 1.0;
        let x = seconds(time.saturating_sub(origin));
        xs.add(x);
        ys.add(value);
        xys.add(x * value);
        xxs.add(x * x);
    }
    if constant {
        return Some(if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) });
    }
    let (x, y, xy, xx) = (xs.total(), ys.total(), xys.total(), xxs.total());
    let covariance = xy - x * y / n;
    let variance = xx - x * x / n;
    let slope = covariance / variance;
    Some((slope, y / n - slope * x / n))
}

pub(super) fn deriv(window: &Window) -> Option<f64> {
    let (first, _) = window.first().filter(|_| window.times.len() > 1)?;
    regression(window, first).map(|(slope, _)| slope)
}

pub(super) fn predict_linear(window: &Window, ahead: f64) -> Option<f64> {
    window.first().filter(|_| window.times.len() > 1)?;
    regression(window, window.at).map(|(slope, now)| slope * ahead + now)
}

pub(super) fn holt_winters(window: &Window, smoothing: f64, trend: f64) -> Option<f64> {
    let mut values = window.values.iter().copied();
    let (first, second) = (values.next()?, values.next()?);
    let (mut before, mut level, mut slope) = (0.0, first, second - first);
    for (at, value) in window.values.iter().enumerate().skip(1) {
        let scaled = smoothing * value;
        if at > 1 {
            slope = trend * (level - before) + (1.0 - trend) * slope;
        }
        let smooth = (1.0 - smoothing) * (level + slope);
        (before, level) = (level, scaled + smooth);
    }
    Some(level)
}
