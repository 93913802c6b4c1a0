//! The voltage of a battery, from whatever a board measures it with: `embedded-hal` knows no ADC. In volts with three places.

use tidelog_record::uplink::{Metric, Reading};

use crate::sensor::Sensor;

/// The metric of this sensor.
pub const METRIC: Metric<'static> = Metric { name: "battery_volts", scale: Some(3) };

/// A battery; `M` measures it in millivolts, `None` where that fails.
#[derive(Debug)]
pub struct Battery<M>(
    /// Measures.
    pub M,
);

impl<M: FnMut() -> Option<u16>> Sensor for Battery<M> {
    const VALUES: usize = 1;

    fn read(&mut self, values: &mut [Option<Reading>]) {
        let volts = (self.0)().map(|millivolts| Reading::F64(f64::from(millivolts) / 1000.0));
        for value in values {
            *value = volts;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn millivolts_become_volts_and_what_could_not_be_measured_no_value() {
        let mut measured = [Some(3_007), None].into_iter();
        let mut battery = Battery(|| measured.next().flatten());
        let mut values = [None; 1];
        battery.read(&mut values);
        assert_eq!(values, [Some(Reading::F64(3.007))]);
        battery.read(&mut values);
        assert_eq!(values, [None]);
    }
}
