//! A Sensirion SHT40, SHT41 or SHT45 on any `embedded-hal` I2C bus, behind the `sht4x` driver: temperature and
//! relative humidity in hundredths, which is finer than the sensor is exact.

use embedded_hal::delay::DelayNs;
use embedded_hal::i2c::I2c;
use sht4x::{Measurement, Precision};
use tidelog_record::uplink::{Metric, Reading};

use crate::sensor::Sensor;

/// The metrics of this sensor, for a schema with a tick of a millisecond.
pub const METRICS: [Metric<'static>; 2] = [
    Metric { name: "temperature_celsius", scale: Some(2) },
    Metric { name: "humidity_percent", scale: Some(2) },
];

/// The sensor on its bus.
#[derive(Debug)]
pub struct Sht4x<I, D> {
    driver: sht4x::Sht4x<I, D>,
    delay: D,
    failures: u32,
}

impl<I: I2c, D: DelayNs> Sht4x<I, D> {
    /// A sensor at the usual address, 0x44.
    pub fn new(bus: I, delay: D) -> Self {
        Self { driver: sht4x::Sht4x::new(bus), delay, failures: 0 }
    }

    /// Readings that failed since the start: no answer on the bus, or a wrong checksum.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

impl<I: I2c, D: DelayNs> Sensor for Sht4x<I, D> {
    const VALUES: usize = METRICS.len();

    fn read(&mut self, values: &mut [Option<Reading>]) {
        match self.driver.measure(Precision::High, &mut self.delay) {
            Ok(measured) => {
                for (value, reading) in values.iter_mut().zip(readings(&measured)) {
                    *value = Some(reading);
                }
            }
            Err(_) => self.failures = self.failures.saturating_add(1),
        }
    }
}

fn readings(measured: &Measurement) -> [Reading; METRICS.len()] {
    [measured.temperature_milli_celsius(), measured.humidity_milli_percent()].map(|milli| {
        let hundredths = (milli + if milli < 0 { -5 } else { 5 }) / 10;
        Reading::F64(f64::from(hundredths) / 100.0)
    })
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::sampler::{Every, Moment, Sampler};
    use embedded_hal::i2c::{ErrorKind, ErrorType, NoAcknowledgeSource, Operation};
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::vec::Vec;
    use tidelog_lowpan::time::{Duration, Instant};
    use tidelog_record::uplink::Schema;

    /// The sensor as its data sheet has it: one command byte, then six bytes, words with a CRC-8 each.
    #[derive(Debug, Default)]
    struct Chip {
        temperature: u16,
        humidity: u16,
        /// Measured, and ready this many milliseconds from now.
        ready_in_ms: Option<u32>,
        broken_checksum: bool,
        absent: bool,
    }

    #[derive(Debug, Clone, Default)]
    struct Bus(Rc<RefCell<Chip>>);

    fn crc8(word: [u8; 2]) -> u8 {
        word.iter().fold(0xff, |crc, byte| {
            (0..8).fold(crc ^ byte, |crc: u8, _| if crc & 0x80 == 0 { crc << 1 } else { crc << 1 ^ 0x31 })
        })
    }

    impl ErrorType for Bus {
        type Error = ErrorKind;
    }

    impl I2c for Bus {
        fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), ErrorKind> {
            let mut chip = self.0.borrow_mut();
            if chip.absent || address != 0x44 {
                return Err(ErrorKind::NoAcknowledge(NoAcknowledgeSource::Address));
            }
            for operation in operations {
                match operation {
                    Operation::Write([0xfd]) => chip.ready_in_ms = Some(9),
                    Operation::Write(_) => return Err(ErrorKind::NoAcknowledge(NoAcknowledgeSource::Data)),
                    Operation::Read(bytes) => {
                        if chip.ready_in_ms.take() != Some(0) {
                            return Err(ErrorKind::NoAcknowledge(NoAcknowledgeSource::Address));
                        }
                        let words = [chip.temperature.to_be_bytes(), chip.humidity.to_be_bytes()];
                        let broken = u8::from(chip.broken_checksum);
                        let answer: Vec<u8> = words
                            .into_iter()
                            .flat_map(|word| [word[0], word[1], crc8(word) ^ broken])
                            .collect();
                        bytes.copy_from_slice(&answer);
                    }
                }
            }
            Ok(())
        }
    }

    impl DelayNs for Bus {
        fn delay_ns(&mut self, ns: u32) {
            let mut chip = self.0.borrow_mut();
            chip.ready_in_ms = chip.ready_in_ms.map(|left| left.saturating_sub(ns.div_ceil(1_000_000)));
        }
    }

    fn read(chip: Chip) -> ([Option<Reading>; 2], u32) {
        let bus = Bus(Rc::new(RefCell::new(chip)));
        let mut sensor = Sht4x::new(bus.clone(), bus);
        let mut values = [None; 2];
        sensor.read(&mut values);
        (values, sensor.failures())
    }

    #[test]
    fn the_chips_words_become_degrees_and_percent() {
        // From the data sheet: T = -45 + 175 S / 65535, RH = -6 + 125 S / 65535.
        for (temperature, humidity, celsius, percent) in [
            (0, 0, -45.0, -6.0),
            (0xffff, 0xffff, 130.0, 119.0),
            (26_214, 29_360, 25.0, 50.0),
            (16_852, 3_145, 0.0, 0.0),
        ] {
            let (values, failures) = read(Chip { temperature, humidity, ..Chip::default() });
            assert_eq!(failures, 0);
            for (value, wanted) in values.iter().zip([celsius, percent]) {
                let Some(Reading::F64(value)) = value else { panic!("{values:?}") };
                assert!((value - wanted).abs() <= 0.011, "{value} for {wanted}");
                assert_eq!(
                    value.to_bits(),
                    ((value * 100.0).round() / 100.0).to_bits(),
                    "a decimal of two places"
                );
            }
        }
    }

    #[test]
    fn a_sensor_that_is_gone_or_garbled_gives_no_value_and_is_counted() {
        let none = [None; 2];
        assert_eq!(read(Chip { absent: true, ..Chip::default() }), (none, 1));
        assert_eq!(read(Chip { broken_checksum: true, ..Chip::default() }), (none, 1));
    }

    #[test]
    fn a_sample_is_taken_at_each_interval_also_before_the_time_is_known() {
        let bus = Bus::default();
        let schema = Schema::new(1_000_000, &METRICS).unwrap();
        let mut sampler =
            Every::new(Sht4x::new(bus.clone(), bus), schema, Duration::from_secs(5), Instant::from_secs(1));
        let mut taken = Vec::new();
        for second in 0..20 {
            let now = Instant::from_secs(second);
            if second == 3 {
                sampler.time_is_known();
            }
            while sampler.due().is_some_and(|due| due <= now) {
                let unix_ms = (second > 2).then_some(1_700_000_000_000 + second * 1000);
                taken.extend(sampler.sample(Moment { now, unix_ms, seq: 1 }).map(|sample| sample.ticks));
            }
        }
        assert_eq!(taken, [1, 6, 11, 16].map(|second| 1_700_000_000_000 + second * 1000));
    }
}
