//! What there is to measure around a board that is nowhere: a slow walk, or what a file of the host holds, as the chips' registers
//! would show it. It knows words and no units.
//!
//! ```text
//! a reading of the file, little-endian
//! offset  0            2         4                    6
//!         temperature  humidity  light                battery
//!         SHT4x word   SHT4x     OPT3001's register   millivolts
//! ```

use crate::hardware::HostFile;
use crate::say;

/// Bytes of a reading in a file.
const READING_BYTES: usize = 8;
/// 20 °C and 40 %.
const TEMPERATURE_LOW: u16 = 24_341;
const HUMIDITY_LOW: u16 = 24_117;
/// 81.92 lux, and hundredths of that from step to step.
const LIGHT_LOW: u16 = 0x2800;
/// A fresh cell.
const BATTERY_MV: u16 = 3_000;
/// Readings until the walk turns, and the steps that it goes: up to 31.9 °C and 57 %.
const WALK: u64 = 64;
const TEMPERATURE_STEP: u16 = 70;
const HUMIDITY_STEP: u16 = 140;

/// What the chips show at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Words {
    /// The SHT4x's.
    pub temperature: u16,
    /// The SHT4x's.
    pub humidity: u16,
    /// The OPT3001's result register.
    pub light: u16,
    /// Of the battery.
    pub millivolts: u16,
}

/// Readings, one after the other.
#[derive(Debug)]
pub enum Readings {
    /// A walk up and down; where it is.
    Walk(u64),
    /// Those of a file.
    File {
        /// The file.
        file: HostFile,
        /// The number of the next one, from 0.
        next: u64,
        /// All were read, and that was said.
        ended: bool,
    },
}

impl Readings {
    /// The next reading; `None`: there is none any more.
    pub fn next(&mut self) -> Option<Words> {
        match self {
            Self::Walk(place) => {
                *place = place.wrapping_add(1);
                Some(walk(*place))
            }
            Self::File { file, next, ended } => {
                let mut bytes = [0; READING_BYTES];
                let offset = usize::try_from(*next).ok()?.checked_mul(READING_BYTES)?;
                if file.read_at(offset, &mut bytes) {
                    *next += 1;
                    let [a, b, c, d, e, f, g, h] = bytes;
                    let [temperature, humidity, light, millivolts] =
                        [[a, b], [c, d], [e, f], [g, h]].map(u16::from_le_bytes);
                    return Some(Words { temperature, humidity, light, millivolts });
                }
                if !core::mem::replace(ended, true) {
                    say!("readings: the file's {next} are at their end");
                }
                None
            }
        }
    }
}

fn walk(place: u64) -> Words {
    let place = place % (2 * WALK);
    let up = u16::try_from(if place < WALK { place } else { 2 * WALK - place }).unwrap_or(0);
    Words {
        temperature: TEMPERATURE_LOW + TEMPERATURE_STEP * up,
        humidity: HUMIDITY_LOW + HUMIDITY_STEP * up,
        light: LIGHT_LOW + up,
        millivolts: BATTERY_MV - up,
    }
}
