//! A Sensirion SHT4x that is not there: its side of the I2C bus as the data sheet has it (commands, busy time, words with checksums), so that
//! the driver above it is the real one. What it measures is a slow walk.
//!
//! ```text
//! write  FD  measure, ready after 8.3 ms; until then reads are not acknowledged
//! read   T high, T low, CRC-8, RH high, RH low, CRC-8        T = -45 + 175 S / 65535, RH = -6 + 125 S / 65535
//! ```

use core::cell::RefCell;

use embedded_hal::delay::DelayNs;
use embedded_hal::i2c::{ErrorKind, ErrorType, I2c, NoAcknowledgeSource, Operation};
use tidelog_firmware::lowpan::time::{Duration, Instant};

use crate::clock::Clock;

const ADDRESS: u8 = 0x44;
const MEASURE_HIGH_PRECISION: u8 = 0xfd;
const MEASURE_TIME: Duration = Duration::from_micros(8_300);
/// 20 °C and 40 %.
const TEMPERATURE_LOW: u16 = 24_341;
const HUMIDITY_LOW: u16 = 24_117;
/// Measurements until the walk turns, and the steps that it goes: up to 31.9 °C and 57 %.
const WALK: u16 = 64;
const TEMPERATURE_STEP: u16 = 70;
const HUMIDITY_STEP: u16 = 140;

/// The chip and the clock that it measures its time by.
#[derive(Debug)]
pub struct Chip<'a> {
    clock: &'a RefCell<Clock>,
    measurements: u16,
    ready_at: Option<Instant>,
}

impl<'a> Chip<'a> {
    /// One that was just switched on; `phase` is where its walk begins.
    pub fn new(clock: &'a RefCell<Clock>, phase: u8) -> Self {
        Self { clock, measurements: u16::from(phase), ready_at: None }
    }

    fn words(&self) -> [u16; 2] {
        let place = self.measurements % (2 * WALK);
        let up = if place < WALK { place } else { 2 * WALK - place };
        [TEMPERATURE_LOW + TEMPERATURE_STEP * up, HUMIDITY_LOW + HUMIDITY_STEP * up]
    }
}

fn crc8(word: [u8; 2]) -> u8 {
    word.iter().fold(0xff, |crc, byte| {
        (0..8).fold(crc ^ byte, |crc: u8, _| if crc & 0x80 == 0 { crc << 1 } else { crc << 1 ^ 0x31 })
    })
}

impl ErrorType for Chip<'_> {
    type Error = ErrorKind;
}

impl I2c for Chip<'_> {
    fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), ErrorKind> {
        if address != ADDRESS {
            return Err(ErrorKind::NoAcknowledge(NoAcknowledgeSource::Address));
        }
        for operation in operations {
            let now = self.clock.borrow_mut().now();
            match operation {
                Operation::Write([MEASURE_HIGH_PRECISION]) => {
                    self.measurements = self.measurements.wrapping_add(1);
                    self.ready_at = Some(now + MEASURE_TIME);
                }
                Operation::Write(_) => return Err(ErrorKind::NoAcknowledge(NoAcknowledgeSource::Data)),
                Operation::Read(bytes) => {
                    if self.ready_at.take_if(|at| *at <= now).is_none() {
                        return Err(ErrorKind::NoAcknowledge(NoAcknowledgeSource::Address));
                    }
                    for (word, piece) in self.words().into_iter().zip(bytes.chunks_mut(3)) {
                        let [high, low] = word.to_be_bytes();
                        for (place, byte) in piece.iter_mut().zip([high, low, crc8([high, low])]) {
                            *place = byte;
                        }
                    }
                }
            }
        }
        Ok(())
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
