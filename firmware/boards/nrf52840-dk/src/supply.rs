//! The chip's supply, which is the battery's voltage where a battery is at VDD: measured by the chip's own converter.

use embassy_futures::block_on;
use embassy_nrf::saadc::Saadc;
use tidelog_firmware::battery::Voltmeter;

/// What the converter's full scale is: 0.6 V of reference behind a sixth.
const FULL_SCALE_MV: u32 = 3_600;
/// Steps to the full scale.
const STEPS: u32 = 1 << 12;

/// The converter, with the supply at its one channel.
pub struct Supply(Saadc<'static, 1>);

impl Supply {
    /// Calibrates it, which takes less than a millisecond.
    pub fn new(converter: Saadc<'static, 1>) -> Self {
        block_on(converter.calibrate());
        Self(converter)
    }
}

impl Voltmeter for Supply {
    /// Takes some ten microseconds, too few to sleep.
    fn millivolts(&mut self) -> Option<u16> {
        let mut steps = [0; 1];
        block_on(self.0.sample(&mut steps));
        let [steps] = steps.map(|steps| u32::try_from(steps).unwrap_or(0));
        u16::try_from(steps * FULL_SCALE_MV / STEPS).ok()
    }
}
