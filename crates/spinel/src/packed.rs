//! Packed unsigned integers (Spinel section 3.2): seven bits a byte, the least significant first; the top bit says that more
//! follow. Commands, properties and statuses are written so.
//!
//! ```text
//! 0 to 127     0vvvvvvv
//! 128 and on   1vvvvvvv | 1vvvvvvv … | 0vvvvvvv        1337 = B9 0A
//! ```

/// Longest integer of 32 bits, in bytes.
pub const BYTES_MAX: usize = 5;

/// Writes `value`; its length.
pub fn write(value: u32, out: &mut [u8; BYTES_MAX]) -> usize {
    let mut left = value;
    let mut length = 0;
    for byte in out {
        let [low, ..] = left.to_le_bytes();
        left >>= 7;
        length += 1;
        *byte = if left == 0 { low & 0x7f } else { low | 0x80 };
        if left == 0 {
            break;
        }
    }
    length
}

/// Reads an integer, and what stands behind it. `None`: it is cut short, or has more than 32 bits.
#[must_use]
pub fn read(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut value = 0u64;
    for (place, byte) in bytes.iter().enumerate().take(BYTES_MAX) {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((u32::try_from(value).ok()?, bytes.get(place + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn integers_are_written_as_the_specification_shows() {
        for (value, bytes) in [
            (0, &[0][..]),
            (127, &[0x7f]),
            (128, &[0x80, 1]),
            (1337, &[0xb9, 0x0a]),
            (2_097_151, &[0xff, 0xff, 0x7f]),
        ] {
            let mut out = [0; BYTES_MAX];
            let length = write(value, &mut out);
            assert_eq!(&out[..length], bytes);
        }
    }

    #[test]
    fn an_integer_without_an_end_or_of_more_than_32_bits_is_none() {
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[0x80]), None);
        assert_eq!(read(&[0x80; 9]), None);
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0x10]), None);
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0x0f, 7]), Some((u32::MAX, &[7][..])));
    }

    proptest! {
        #[test]
        fn an_integer_is_read_as_written(value: u32, behind: [u8; 3]) {
            let mut out = [0; BYTES_MAX];
            let length = write(value, &mut out);
            let mut bytes = heapless::Vec::<u8, 8>::from_slice(&out[..length]).unwrap();
            bytes.extend_from_slice(&behind).unwrap();
            prop_assert_eq!(read(&bytes), Some((value, &behind[..])));
        }
    }
}
