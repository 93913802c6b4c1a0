//! Reading and writing bytes one after the other, where running out is an answer and never a panic.

/// What is left to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
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

    pub(crate) const fn written(&self) -> usize {
        self.written
    }
}
