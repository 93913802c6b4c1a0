//! A sample as a board's console tells it: whole parts of each metric's unit, as many as the metric's scale says, which is what the sensors give and
//! short to print. `20.5` with two places is `2050`; what was not read is `none`.

use core::fmt;

use tidelog_record::uplink::{Metric, Reading, Sample};

/// The values of a sample, by these metrics.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a>(
    /// What they are of.
    pub &'a [Metric<'a>],
    /// The sample.
    pub &'a Sample,
);

impl fmt::Display for Parts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for (metric, value) in self.0.iter().zip(&self.1.values) {
            f.write_str(between)?;
            between = " ";
            match value {
                Some(Reading::F64(value)) => write!(f, "{}", whole(*value, metric.scale.unwrap_or(0)))?,
                Some(Reading::I64(value)) => write!(f, "{value}")?,
                Some(Reading::Bool(value)) => write!(f, "{}", u8::from(*value))?,
                None => f.write_str("none")?,
            }
        }
        Ok(())
    }
}

/// The nearest whole number of parts. What is beyond 32 bits is told as their end.
#[expect(clippy::cast_possible_truncation, reason = "`as` ends at the ends")]
fn whole(value: f64, scale: u8) -> i32 {
    let scaled = (0..scale).fold(value, |value, _| value * 10.0);
    (scaled + if scaled < 0.0 { -0.5 } else { 0.5 }) as i32
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;
    use tidelog_record::uplink::METRICS_MAX;

    #[test]
    fn a_sample_is_told_in_whole_parts() {
        let scales = [Some(2), Some(2), Some(3), None, None];
        let metrics = scales.map(|scale| Metric { name: "m", scale });
        let mut values = [None; METRICS_MAX];
        values[0] = Some(Reading::F64(-0.07));
        values[1] = Some(Reading::F64(83_865.6));
        values[3] = Some(Reading::I64(-5_000_000_000));
        values[4] = Some(Reading::Bool(true));
        let sample = Sample { ticks: 7, values };
        assert_eq!(Parts(&metrics, &sample).to_string(), "-7 8386560 none -5000000000 1");
        assert_eq!(Parts(&[], &sample).to_string(), "");
    }
}
