//! A Texas Instruments OPT3001 on any `embedded-hal` I2C bus, behind the `opt300x` driver: light in lux, with two places.
//!
//! The chip measures all the time, 100 ms each, so that nobody waits for it. What it has not measured since the last reading, or since it
//! lost its power, is no reading: it is set up again then, and shows a value the next time.

use embedded_hal::i2c::I2c;
use opt300x::{IntegrationTime, ModeChangeError, Opt300x, SlaveAddr, ic::Opt3001 as Chip, mode};
use tidelog_record::uplink::{Metric, Reading};

use crate::sensor::Sensor;

/// The metric of this sensor.
pub const METRIC: Metric<'static> = Metric { name: "illuminance_lux", scale: Some(2) };

/// Largest exponent of a result: hundredths of a lux are its mantissa of twelve bits, shifted by it (data sheet, table 9).
pub const EXPONENT_MAX: u8 = 11;

enum Mode<I> {
    Off(Opt300x<I, Chip, mode::OneShot>),
    On(Opt300x<I, Chip, mode::Continuous>),
}

/// The sensor on its bus.
pub struct Opt3001<I> {
    /// There is one whenever nobody is changing it.
    mode: Option<Mode<I>>,
    failures: u32,
}

impl<I: I2c> Opt3001<I> {
    /// A sensor with its address pin at the supply: 0x45, since at 0x44 there is an SHT4x.
    pub fn new(bus: I) -> Self {
        let driver = Opt300x::new_opt3001(bus, SlaveAddr::Alternative(false, true));
        Self { mode: Some(Mode::Off(driver)), failures: 0 }
    }

    /// Readings that failed since the start: no answer on the bus, or more light than the chip can measure.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Lets it measure from now on.
    fn set_up(&mut self) {
        let mut driver = match self.mode.take() {
            Some(Mode::Off(driver)) => driver,
            Some(Mode::On(driver)) => match driver.into_one_shot() {
                Ok(driver) => driver,
                Err(ModeChangeError::I2C(_, driver)) => return self.failed(Mode::On(driver)),
            },
            None => return,
        };
        if driver.set_integration_time(IntegrationTime::Ms100).is_err() {
            return self.failed(Mode::Off(driver));
        }
        match driver.into_continuous() {
            Ok(driver) => self.mode = Some(Mode::On(driver)),
            Err(ModeChangeError::I2C(_, driver)) => self.failed(Mode::Off(driver)),
        }
    }

    fn failed(&mut self, mode: Mode<I>) {
        self.mode = Some(mode);
        self.failures = self.failures.saturating_add(1);
    }

    /// Hundredths of a lux. `Ok(None)`: it has to be set up.
    fn measured(&mut self) -> Result<Option<u32>, ()> {
        let Some(Mode::On(driver)) = &mut self.mode else { return Ok(None) };
        let status = driver.read_status().map_err(drop)?;
        if !status.conversion_ready {
            return Ok(None);
        }
        let (exponent, mantissa) = driver.read_raw().map_err(drop)?;
        if status.has_overflown || exponent > EXPONENT_MAX {
            return Err(());
        }
        Ok(Some(u32::from(mantissa) << exponent))
    }
}

impl<I: I2c> Sensor for Opt3001<I> {
    const VALUES: usize = 1;

    fn read(&mut self, values: &mut [Option<Reading>]) {
        let hundredths = match self.measured() {
            Ok(Some(hundredths)) => hundredths,
            Ok(None) => return self.set_up(),
            Err(()) => {
                self.failures = self.failures.saturating_add(1);
                return;
            }
        };
        for value in values {
            *value = Some(Reading::F64(f64::from(hundredths) / 100.0));
        }
    }
}

impl<I> core::fmt::Debug for Opt3001<I> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Opt3001").field("failures", &self.failures).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use embedded_hal::i2c::{ErrorKind, ErrorType, NoAcknowledgeSource, Operation};
    use std::cell::RefCell;
    use std::rc::Rc;

    const CONVERTING: u16 = 0b11 << 9;
    const CONVERTED: u16 = 1 << 7;
    const OVERFLOWN: u16 = 1 << 8;

    /// The chip as its data sheet has it: a register pointer, and 16-bit registers, the most significant byte first.
    #[derive(Debug)]
    struct Registers {
        pointer: u8,
        configuration: u16,
        result: u16,
        absent: bool,
    }

    #[derive(Debug, Clone)]
    struct Bus(Rc<RefCell<Registers>>);

    impl Bus {
        fn new() -> Self {
            let shut_down = 0xc810;
            Self(Rc::new(RefCell::new(Registers {
                pointer: 0,
                configuration: shut_down,
                result: 0,
                absent: false,
            })))
        }

        /// So much light for 100 ms.
        fn shine(&self, result: u16, flags: u16) {
            let mut registers = self.0.borrow_mut();
            if registers.configuration & CONVERTING != 0 {
                registers.result = result;
                registers.configuration |= CONVERTED | flags;
            }
        }
    }

    impl ErrorType for Bus {
        type Error = ErrorKind;
    }

    impl I2c for Bus {
        fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), ErrorKind> {
            let mut chip = self.0.borrow_mut();
            if chip.absent || address != 0x45 {
                return Err(ErrorKind::NoAcknowledge(NoAcknowledgeSource::Address));
            }
            for operation in operations {
                match operation {
                    Operation::Write([1, high, low]) => {
                        chip.configuration = u16::from_be_bytes([*high, *low]) & !CONVERTED;
                    }
                    Operation::Write([pointer]) => chip.pointer = *pointer,
                    Operation::Write(_) => return Err(ErrorKind::NoAcknowledge(NoAcknowledgeSource::Data)),
                    Operation::Read(bytes) => {
                        let word = if chip.pointer == 1 { chip.configuration } else { chip.result };
                        bytes.copy_from_slice(&word.to_be_bytes());
                        if chip.pointer == 1 {
                            chip.configuration &= !CONVERTED;
                        }
                    }
                }
            }
            Ok(())
        }
    }

    fn read(sensor: &mut Opt3001<Bus>) -> Option<Reading> {
        let mut values = [None; 1];
        sensor.read(&mut values);
        values[0]
    }

    #[test]
    fn what_the_chip_measured_becomes_lux() {
        let bus = Bus::new();
        let mut sensor = Opt3001::new(bus.clone());
        assert_eq!(read(&mut sensor), None, "it is set up");
        // From the data sheet, table 10.
        for (result, lux) in [
            (0x0001, 0.01),
            (0x0fff, 40.95),
            (0x3456, 88.80),
            (0x789a, 2_818.56),
            (0x8800, 5_242.88),
            (0x9800, 10_485.76),
            (0xa800, 20_971.52),
            (0xb800, 41_943.04),
            (0xbfff, 83_865.60),
        ] {
            bus.shine(result, 0);
            assert_eq!(read(&mut sensor), Some(Reading::F64(lux)));
        }
        assert_eq!(sensor.failures(), 0);
    }

    #[test]
    fn what_was_not_measured_since_the_last_reading_is_none_and_a_chip_that_lost_its_power_is_set_up_again() {
        let bus = Bus::new();
        let mut sensor = Opt3001::new(bus.clone());
        assert_eq!(read(&mut sensor), None);
        bus.shine(0x0010, 0);
        assert!(read(&mut sensor).is_some());
        assert_eq!(read(&mut sensor), None, "too soon");
        bus.shine(0x0010, 0);
        assert!(read(&mut sensor).is_some());
        *bus.0.borrow_mut() = Registers { pointer: 0, configuration: 0xc810, result: 0, absent: false };
        bus.shine(0x0020, 0);
        assert_eq!(read(&mut sensor), None, "it was off");
        bus.shine(0x0020, 0);
        assert_eq!(read(&mut sensor), Some(Reading::F64(0.32)));
        assert_eq!(sensor.failures(), 0);
    }

    #[test]
    fn a_chip_that_is_gone_or_dazzled_gives_no_value_and_is_counted_until_it_is_back() {
        let bus = Bus::new();
        let mut sensor = Opt3001::new(bus.clone());
        bus.0.borrow_mut().absent = true;
        assert_eq!((read(&mut sensor), sensor.failures()), (None, 1));
        bus.0.borrow_mut().absent = false;
        assert_eq!((read(&mut sensor), sensor.failures()), (None, 1));
        bus.shine(0xbfff, OVERFLOWN);
        assert_eq!((read(&mut sensor), sensor.failures()), (None, 2));
        bus.0.borrow_mut().absent = true;
        assert_eq!((read(&mut sensor), sensor.failures()), (None, 3));
        bus.0.borrow_mut().absent = false;
        bus.shine(0xc000, 0);
        assert_eq!((read(&mut sensor), sensor.failures()), (None, 4), "no result has this exponent");
    }
}
