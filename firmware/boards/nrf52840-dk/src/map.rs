//! What of the chip's flash is whose, in one place: the program is linked by it, the settings are read by it, the log is kept by it.
//!
//! ```text
//! 0x00000  the program           508 KiB
//! 0x7f000  the settings            4 KiB, one block
//! 0x80000  the flash log         512 KiB
//! ```

/// Bytes that the chip has.
pub const FLASH_BYTES: u32 = 1 << 20;
/// The log's place.
pub const LOG_AT: u32 = FLASH_BYTES - LOG_BYTES;
/// The log's length.
pub const LOG_BYTES: u32 = 512 << 10;
/// The place of the page that settings are written to; everything below it is the program's.
pub const SETTINGS_AT: u32 = LOG_AT - SETTINGS_BYTES;
/// The page's length, which is what the chip erases at once.
pub const SETTINGS_BYTES: u32 = 4096;

const _: () =
    assert!(LOG_AT.is_multiple_of(SETTINGS_BYTES) && SETTINGS_AT == 0x7f000, "as docs/FLASHING.md says");
