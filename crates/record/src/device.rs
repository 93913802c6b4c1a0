//! The name of a sensor board: its EUI-64. This module only reads and writes that name.

use core::fmt;
use core::str::FromStr;

/// A device's EUI-64 in transmission order (most significant byte first), written as 16 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(pub [u8; 8]);

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceId({self})")
    }
}

/// The text is not an EUI-64: 16 hex digits, with `-` or `:` between bytes allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an EUI-64: expected 16 hex digits such as 02124b0000000001")]
pub struct ParseDeviceIdError;

impl FromStr for DeviceId {
    type Err = ParseDeviceIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0u8; 8];
        let mut digits = 0usize;
        for c in text.chars().filter(|c| !matches!(c, '-' | ':')) {
            let digit = c.to_digit(16).and_then(|d| u8::try_from(d).ok()).ok_or(ParseDeviceIdError)?;
            let byte = bytes.get_mut(digits / 2).ok_or(ParseDeviceIdError)?;
            *byte = *byte << 4 | digit;
            digits += 1;
        }
        if digits == 16 { Ok(Self(bytes)) } else { Err(ParseDeviceIdError) }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_device_id_is_read_as_it_is_written() {
        let id = DeviceId([0x02, 0x12, 0x4b, 0, 0, 0, 0, 0xff]);
        assert_eq!(id.to_string(), "02124b00000000ff");
        assert_eq!("02124b00000000ff".parse(), Ok(id));
        assert_eq!("02-12-4B-00-00-00-00-FF".parse(), Ok(id));
    }

    #[test]
    fn text_that_is_no_eui64_is_refused() {
        for text in ["", "02124b00000000f", "02124b00000000fff", "zz124b00000000ff", "02124b00000000ff00"] {
            assert_eq!(text.parse::<DeviceId>(), Err(ParseDeviceIdError), "{text}");
        }
    }
}
