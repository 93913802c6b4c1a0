//! Spinel's own numbers and counted fields, on top of bytes that are read and written one after the other. Integers are little-endian.

use tidelog_record::bytes::{Reader, Writer};

use crate::packed;

pub(crate) trait ReadFields<'a> {
    fn i8(&mut self) -> Option<i8>;
    fn u16(&mut self) -> Option<u16>;
    fn packed(&mut self) -> Option<u32>;
    /// Bytes with their length before them, as a structure or a piece of data stands in a frame.
    fn counted(&mut self) -> Option<&'a [u8]>;
}

impl<'a> ReadFields<'a> for Reader<'a> {
    fn i8(&mut self) -> Option<i8> {
        self.u8().map(u8::cast_signed)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn packed(&mut self) -> Option<u32> {
        let (value, rest) = packed::read(self.rest())?;
        *self = Self::new(rest);
        Some(value)
    }

    fn counted(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }
}

pub(crate) trait WriteFields {
    fn packed(&mut self, value: u32) -> Option<&mut Self>;
    fn counted(&mut self, bytes: &[u8]) -> Option<&mut Self>;
}

impl WriteFields for Writer<'_> {
    fn packed(&mut self, value: u32) -> Option<&mut Self> {
        let mut bytes = [0; packed::BYTES_MAX];
        let length = packed::write(value, &mut bytes);
        self.put(bytes.get(..length)?)
    }

    fn counted(&mut self, bytes: &[u8]) -> Option<&mut Self> {
        let length = u16::try_from(bytes.len()).ok()?;
        self.put(&length.to_le_bytes())?.put(bytes)
    }
}
