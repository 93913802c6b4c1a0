//! The chips that are not there: their side of the I2C bus as the data sheets have it, so that the drivers above it are the real ones.
//!
//! ```text
//! Sensirion SHT4x at 0x44
//!   write  FD  measure, ready after 8.3 ms; until then reads are not acknowledged
//!   read   T high, T low, CRC-8, RH high, RH low, CRC-8        T = -45 + 175 S / 65535, RH = -6 + 125 S / 65535
//!
//! Texas Instruments OPT3001 at 0x45, words with the most significant byte first
//!   write  register                         the one that is read next: 0 result, 1 configuration
//!   write  1, high, low                     configuration: 0x0600 measure all the time, 100 ms each
//!   read   high, low                        configuration: 0x0080 measured since it was last read
//! ```
//!
//! A measurement of the SHT4x begins the next of the [`Readings`]; the other chip and the battery show what belongs to it. When there is none any
//! more, nothing answers.

use core::cell::RefCell;

use embedded_hal::delay::DelayNs;
use embedded_hal::i2c::{ErrorKind, ErrorType, I2c, NoAcknowledgeSource, Operation};
use tidelog_firmware::battery::Voltmeter;
use tidelog_firmware::lowpan::time::{Duration, Instant};

use crate::clock::Clock;
use crate::readings::{Readings, Words};

const THERMOMETER: u8 = 0x44;
const MEASURE_HIGH_PRECISION: u8 = 0xfd;
const MEASURE_TIME: Duration = Duration::from_micros(8_300);
const PHOTOMETER: u8 = 0x45;
const RESULT: u8 = 0;
const CONFIGURATION: u8 = 1;
const CONFIGURATION_AT_START: u16 = 0xc810;
const CONTINUOUS: u16 = 0b11 << 9;
const CONVERTED: u16 = 1 << 7;
const CONVERSION_TIME: Duration = Duration::from_millis(100);

/// The chips on the bus, and the clock that they measure their time by.
#[derive(Debug)]
pub struct Chips<'a> {
    clock: &'a RefCell<Clock>,
    readings: Readings,
    now: Option<Words>,
    measured_at: Option<Instant>,
    register: u8,
    configuration: u16,
    /// When the photometer has measured again since its configuration was read or written.
    converted_at: Instant,
}

impl<'a> Chips<'a> {
    /// Just switched on.
    pub fn new(clock: &'a RefCell<Clock>, readings: Readings) -> Self {
        Self {
            clock,
            readings,
            now: None,
            measured_at: None,
            register: RESULT,
            configuration: CONFIGURATION_AT_START,
            converted_at: Instant::ZERO,
        }
    }

    fn thermometer(&mut self, operation: &mut Operation<'_>) -> Result<(), NoAcknowledgeSource> {
        let now = self.clock.borrow_mut().now();
        match operation {
            Operation::Write([MEASURE_HIGH_PRECISION]) => {
                self.now = self.readings.next();
                self.measured_at = Some(now + MEASURE_TIME);
                Ok(())
            }
            Operation::Write(_) => Err(NoAcknowledgeSource::Data),
            Operation::Read(bytes) => {
                let words = self.now.filter(|_| self.measured_at.take_if(|at| *at <= now).is_some());
                let Words { temperature, humidity, .. } = words.ok_or(NoAcknowledgeSource::Address)?;
                for (word, piece) in [temperature, humidity].into_iter().zip(bytes.chunks_mut(3)) {
                    let [high, low] = word.to_be_bytes();
                    for (place, byte) in piece.iter_mut().zip([high, low, crc8([high, low])]) {
                        *place = byte;
                    }
                }
                Ok(())
            }
        }
    }

    fn photometer(&mut self, operation: &mut Operation<'_>) -> Result<(), NoAcknowledgeSource> {
        let now = self.clock.borrow_mut().now();
        match operation {
            Operation::Write([register]) => self.register = *register,
            Operation::Write([CONFIGURATION, high, low]) => {
                self.configuration = u16::from_be_bytes([*high, *low]);
                self.converted_at = now + CONVERSION_TIME;
            }
            Operation::Write(_) => return Err(NoAcknowledgeSource::Data),
            Operation::Read(bytes) => {
                let word = match self.register {
                    CONFIGURATION => {
                        let measures = self.configuration & CONTINUOUS != 0;
                        let converted = measures && self.converted_at <= now;
                        while self.converted_at <= now {
                            self.converted_at += CONVERSION_TIME;
                        }
                        self.configuration & !CONVERTED | if converted { CONVERTED } else { 0 }
                    }
                    _ => self.now.ok_or(NoAcknowledgeSource::Address)?.light,
                };
                for (place, byte) in bytes.iter_mut().zip(word.to_be_bytes()) {
                    *place = byte;
                }
            }
        }
        Ok(())
    }
}

fn crc8(word: [u8; 2]) -> u8 {
    word.iter().fold(0xff, |crc, byte| {
        (0..8).fold(crc ^ byte, |crc: u8, _| if crc & 0x80 == 0 { crc << 1 } else { crc << 1 ^ 0x31 })
    })
}

/// The bus, for one driver of several, and the battery, which is on none.
#[derive(Debug, Clone, Copy)]
pub struct Bus<'a>(pub &'a RefCell<Chips<'a>>);

impl ErrorType for Bus<'_> {
    type Error = ErrorKind;
}

impl I2c for Bus<'_> {
    fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), ErrorKind> {
        let mut chips = self.0.borrow_mut();
        operations
            .iter_mut()
            .try_for_each(|operation| match address {
                THERMOMETER => chips.thermometer(operation),
                PHOTOMETER => chips.photometer(operation),
                _ => Err(NoAcknowledgeSource::Address),
            })
            .map_err(ErrorKind::NoAcknowledge)
    }
}

impl Voltmeter for Bus<'_> {
    fn millivolts(&mut self) -> Option<u16> {
        self.0.borrow().now.map(|words| words.millivolts)
    }
}

/// Waits by the board's clock.
#[derive(Debug, Clone, Copy)]
pub struct Wait<'a>(pub &'a RefCell<Clock>);

impl DelayNs for Wait<'_> {
    fn delay_ns(&mut self, ns: u32) {
        let mut clock = self.0.borrow_mut();
        let until = clock.now() + Duration::from_micros(u64::from(ns.div_ceil(1_000)));
        while clock.now() < until {}
    }
}
