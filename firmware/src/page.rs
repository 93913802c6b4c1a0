//! The page of flash that [settings](crate::settings) are put on, for boards without a command line: a head, and the words as text. It knows no
//! flash: whoever read the page hands its bytes in. `firmware/boards/nrf52840-dk/settings` writes it.
//!
//! ```text
//! offset 0  54 69 64 65 "Tide" | 4 version u16 = 1 | 6 length of the text u16 | 8 CRC-32 of bytes 0 to 7 and the text u32 | 12 text, UTF-8
//! integers little-endian; what follows the text is not looked at
//! ```

use tidelog_record::crc32_of_parts;

/// Longest text, in bytes: three times what all words that there are take.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Bytes that must be read of the page at most.
pub const PAGE_BYTES_MAX: usize = HEAD_BYTES + TEXT_BYTES_MAX;

const HEAD_BYTES: usize = 12;
const MAGIC: [u8; 4] = *b"Tide";
const VERSION: u16 = 1;

/// Why a page says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// Something else is there, or nothing.
    #[error("there are no settings on their page")]
    Nothing,
    /// Written for another program.
    #[error("the settings are of version {0}, and this program reads version {VERSION}")]
    Version(u16),
    /// Too long, or damaged.
    #[error("the settings are damaged: write them again")]
    Damaged,
}

/// The text of a page.
///
/// # Errors
/// [`PageError`].
pub fn text(page: &[u8]) -> Result<&str, PageError> {
    let (head, rest) = page.split_first_chunk::<HEAD_BYTES>().ok_or(PageError::Nothing)?;
    let [m0, m1, m2, m3, v0, v1, l0, l1, c0, c1, c2, c3] = *head;
    if [m0, m1, m2, m3] != MAGIC {
        return Err(PageError::Nothing);
    }
    let version = u16::from_le_bytes([v0, v1]);
    if version != VERSION {
        return Err(PageError::Version(version));
    }
    let length = usize::from(u16::from_le_bytes([l0, l1]));
    let text = rest.get(..length).filter(|text| text.len() <= TEXT_BYTES_MAX).ok_or(PageError::Damaged)?;
    if crc32_of_parts(&[&[m0, m1, m2, m3, v0, v1, l0, l1], text]) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Err(PageError::Damaged);
    }
    core::str::from_utf8(text).map_err(|_| PageError::Damaged)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::string::String;
    use std::vec;
    use std::vec::Vec;

    fn page(text: &[u8]) -> Vec<u8> {
        let length = u16::try_from(text.len()).unwrap();
        let head = [&MAGIC[..], &VERSION.to_le_bytes(), &length.to_le_bytes()].concat();
        let crc = crc32_of_parts(&[&head, text]).to_le_bytes();
        [&head[..], &crc, text, &[0xff; 100]].concat()
    }

    #[test]
    fn an_erased_page_a_foreign_one_and_a_later_version_are_told_apart() {
        assert_eq!(text(&[0xff; 4096]), Err(PageError::Nothing));
        assert_eq!(text(&[]), Err(PageError::Nothing));
        let mut later = page(b"key=open");
        later[4] = 2;
        assert_eq!(text(&later), Err(PageError::Version(2)));
        assert_eq!(text(&page(&vec![b' '; TEXT_BYTES_MAX + 1])), Err(PageError::Damaged));
        assert_eq!(text(&page(&[0xff])), Err(PageError::Damaged), "no UTF-8");
    }

    proptest! {
        #[test]
        fn a_page_gives_back_its_text_and_no_changed_bit_goes_unnoticed(
            words in "[ -~]{0,200}", bit in 0usize..8 * (HEAD_BYTES + 200)
        ) {
            let mut page = page(words.as_bytes());
            prop_assert_eq!(text(&page), Ok(words.as_str()));
            let bit = bit % (8 * (HEAD_BYTES + words.len()));
            page[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(text(&page).is_err());
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), headed: bool) {
            let mut bytes = bytes;
            if headed && bytes.len() > 8 {
                bytes[..6].copy_from_slice(&[b'T', b'i', b'd', b'e', 1, 0]);
            }
            let told = text(&bytes).map(String::from);
            prop_assert!(told.is_err());
        }
    }
}
