//! The voltage of a battery, from whatever a board measures it with: `embedded-hal` knows no ADC. In volts with three places.

use tidelog_record::uplink::{Metric, Reading};

use crate::sensor::Sensor;

/// The metric of this sensor.
pub const METRIC: Metric<'static> = Metric { name: "battery_volts", scale: Some(3) };

/// What a board measures its battery with.
pub trait Voltmeter {
    /// The voltage in millivolts; `None`: it could not be measured.
    fn millivolts(&mut self) -> Option<u16>;
}

/// A battery, and what measures it.
#[derive(Debug)]
pub struct Battery<V>(
    /// Measures.
    pub V,
);

impl<V: Voltmeter> Sensor for Battery<V> {
    const VALUES: usize = 1;

    fn read(&mut self, values: &mut [Option<Reading>]) {
        let volts = self.0.millivolts().map(|millivolts| Reading::F64(f64::from(millivolts) / 1000.0));
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
        struct Twice(u32);
        impl Voltmeter for Twice {
            fn millivolts(&mut self) -> Option<u16> {
                self.0 += 1;
                (self.0 == 1).then_some(3_007)
            }
        }
        let mut battery = Battery(Twice(0));
        let mut values = [None; 1];
        battery.read(&mut values);
        assert_eq!(values, [Some(Reading::F64(3.007))]);
        battery.read(&mut values);
        assert_eq!(values, [None]);
    }
}
