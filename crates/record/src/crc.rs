//! The checksum of everything that sensors write: CRC-32 (ISO-HDLC, as in zlib), with a table of 1 KiB, because the
//! tables of a faster one would not leave room for the rest on a board.

use crc::{CRC_32_ISO_HDLC, Crc};

static CRC_32: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// CRC-32 of `bytes`.
#[must_use]
pub fn crc32(bytes: &[u8]) -> u32 {
    CRC_32.checksum(bytes)
}

/// CRC-32 of `parts` as if they stood one behind the other.
#[must_use]
pub fn crc32_of_parts(parts: &[&[u8]]) -> u32 {
    let mut digest = CRC_32.digest();
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checksum_is_that_of_zlib() {
        assert_eq!(super::crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(super::crc32_of_parts(&[b"1234", b"", b"56789"]), 0xcbf4_3926);
    }
}
