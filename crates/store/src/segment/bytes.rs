//! The grammar of a segment's small parts: LEB128 numbers, zigzag for signed ones, and a reader that believes no length.

/// Bytes that end too early, or say what cannot be. The caller knows where they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

pub(crate) fn unzigzag(raw: u64) -> i64 {
    (raw >> 1).cast_signed() ^ -(raw & 1).cast_signed()
}

pub(super) fn put_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

pub(super) fn put_i64(out: &mut Vec<u8>, value: i64) {
    put_u64(out, zigzag(value));
}

pub(super) fn put_len(out: &mut Vec<u8>, length: usize) {
    put_u64(out, length as u64);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_len(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Bytes that `put_u64` takes for a value.
pub(super) fn u64_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Reads forward.
#[derive(Clone, Copy)]
pub(super) struct Cut<'a>(pub &'a [u8]);

impl<'a> Cut<'a> {
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = tail;
        Ok(head)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn u64(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            if shift == 63 && byte > 1 {
                return Err(Malformed);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    pub fn i64(&mut self) -> Result<i64, Malformed> {
        self.u64().map(unzigzag)
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.u64()?).map_err(|_| Malformed)
    }

    /// A number that is at most `most`: a count of what will be allocated.
    pub fn count(&mut self, most: usize) -> Result<usize, Malformed> {
        let count = usize::try_from(self.u64()?).map_err(|_| Malformed)?;
        if count <= most { Ok(count) } else { Err(Malformed) }
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.count(self.0.len())?;
        self.take(length)
    }

    pub fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

/// Most that deflate makes of one byte, in bytes; so a length is not believed that the bytes behind it cannot fill.
const INFLATE_RATIO_MAX: usize = 1_100;
const DEFLATE_LEVEL: u8 = 6;

/// Bytes with their length before and after packing; for texts, not numbers.
pub(super) fn put_packed(out: &mut Vec<u8>, bytes: &[u8]) {
    put_len(out, bytes.len());
    if !bytes.is_empty() {
        put_bytes(out, &miniz_oxide::deflate::compress_to_vec(bytes, DEFLATE_LEVEL));
    }
}

pub(super) fn take_packed(cut: &mut Cut<'_>) -> Result<Vec<u8>, Malformed> {
    let length = usize::try_from(cut.u64()?).map_err(|_| Malformed)?;
    if length == 0 {
        return Ok(Vec::new());
    }
    let packed = cut.bytes()?;
    if length > packed.len().saturating_mul(INFLATE_RATIO_MAX) {
        return Err(Malformed);
    }
    let bytes = miniz_oxide::inflate::decompress_to_vec_with_limit(packed, length).map_err(|_| Malformed)?;
    if bytes.len() == length { Ok(bytes) } else { Err(Malformed) }
}
