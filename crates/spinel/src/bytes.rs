//! Reading and writing bytes one after the other, where running out is an answer and never a panic.

use crate::packed;

/// What is left to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    pub(crate) fn i8(&mut self) -> Option<i8> {
        self.u8().map(u8::cast_signed)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn packed(&mut self) -> Option<u32> {
        let (value, rest) = packed::read(self.0)?;
        self.0 = rest;
        Some(value)
    }

    /// Bytes with their length before them, as a structure or a piece of data stands in a frame.
    pub(crate) fn counted(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.0
    }
}

/// A buffer being filled from its front.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    out: &'a mut [u8],
    written: usize,
}

impl<'a> Writer<'a> {
    pub(crate) const fn new(out: &'a mut [u8]) -> Self {
        Self { out, written: 0 }
    }

    /// Appends all of `bytes`, or answers `None` and appends nothing.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Option<&mut Self> {
        let end = self.written.checked_add(bytes.len())?;
        self.out.get_mut(self.written..end)?.copy_from_slice(bytes);
        self.written = end;
        Some(self)
    }

    pub(crate) fn packed(&mut self, value: u32) -> Option<&mut Self> {
        let mut bytes = [0; packed::BYTES_MAX];
        let length = packed::write(value, &mut bytes);
        self.put(bytes.get(..length)?)
    }

    pub(crate) fn counted(&mut self, bytes: &[u8]) -> Option<&mut Self> {
        let length = u16::try_from(bytes.len()).ok()?;
        self.put(&length.to_le_bytes())?.put(bytes)
    }

    pub(crate) const fn written(&self) -> usize {
        self.written
    }
}
