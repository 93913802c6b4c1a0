//! MessagePack without allocation: the subset that sensors speak, written into and read from borrowed bytes.
//!
//! Follows the MessagePack specification (msgpack.org); integers are written in their shortest form and read in any.
//! It exists because `rmp` links `alloc`, which a board without a heap cannot; the tests hold it against `rmp`. It
//! knows nothing of batches or schemas.

/// The output has no room for what was to be written; nothing of it stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room left in the output")]
pub struct Full;

/// The bytes end too early, or are not what was expected at this place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the expected MessagePack")]
pub struct Unexpected;

/// Writes values one behind the other.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut [u8],
    length: usize,
}

impl<'a> Writer<'a> {
    /// Writes from the start of `out`.
    pub fn new(out: &'a mut [u8]) -> Self {
        Self { out, length: 0 }
    }

    /// Bytes written.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// What was written.
    #[must_use]
    pub fn written(&self) -> &[u8] {
        self.out.get(..self.length).unwrap_or_default()
    }

    /// Takes back everything behind the first `length` bytes.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    /// Writes over bytes that were written before.
    ///
    /// # Errors
    /// [`Full`] when `bytes` do not lie within what was written.
    pub fn overwrite(&mut self, at: usize, bytes: &[u8]) -> Result<(), Full> {
        let end = at.checked_add(bytes.len()).filter(|end| *end <= self.length).ok_or(Full)?;
        self.out.get_mut(at..end).ok_or(Full)?.copy_from_slice(bytes);
        Ok(())
    }

    fn put<const N: usize>(&mut self, marker: u8, rest: [u8; N]) -> Result<(), Full> {
        self.put_parts(&[marker], &rest)
    }

    fn put_parts(&mut self, head: &[u8], body: &[u8]) -> Result<(), Full> {
        let room = self.out.get_mut(self.length..).ok_or(Full)?;
        let (head_room, room) = room.split_at_mut_checked(head.len()).ok_or(Full)?;
        room.get_mut(..body.len()).ok_or(Full)?.copy_from_slice(body);
        head_room.copy_from_slice(head);
        self.length += head.len() + body.len();
        Ok(())
    }

    /// Nothing here.
    ///
    /// # Errors
    /// [`Full`], as for every writer below.
    pub fn nil(&mut self) -> Result<(), Full> {
        self.put(0xc0, [])
    }

    /// A truth value.
    ///
    /// # Errors
    /// [`Full`].
    pub fn bool(&mut self, value: bool) -> Result<(), Full> {
        self.put(if value { 0xc3 } else { 0xc2 }, [])
    }

    /// A whole number that is not negative, in the shortest form.
    ///
    /// # Errors
    /// [`Full`].
    pub fn u64(&mut self, value: u64) -> Result<(), Full> {
        if let Ok(small) = u8::try_from(value) {
            if small < 0x80 { self.put(small, []) } else { self.put(0xcc, [small]) }
        } else if let Ok(short) = u16::try_from(value) {
            self.put(0xcd, short.to_be_bytes())
        } else if let Ok(word) = u32::try_from(value) {
            self.put(0xce, word.to_be_bytes())
        } else {
            self.put(0xcf, value.to_be_bytes())
        }
    }

    /// A whole number, in the shortest form.
    ///
    /// # Errors
    /// [`Full`].
    pub fn i64(&mut self, value: i64) -> Result<(), Full> {
        if let Ok(positive) = u64::try_from(value) {
            self.u64(positive)
        } else if let Ok(small) = i8::try_from(value) {
            if small >= -32 {
                self.put(small.cast_unsigned(), [])
            } else {
                self.put(0xd0, small.to_be_bytes())
            }
        } else if let Ok(short) = i16::try_from(value) {
            self.put(0xd1, short.to_be_bytes())
        } else if let Ok(word) = i32::try_from(value) {
            self.put(0xd2, word.to_be_bytes())
        } else {
            self.put(0xd3, value.to_be_bytes())
        }
    }

    /// A number in single precision.
    ///
    /// # Errors
    /// [`Full`].
    pub fn f32(&mut self, value: f32) -> Result<(), Full> {
        self.put(0xca, value.to_bits().to_be_bytes())
    }

    /// A number in double precision; every bit of it, a NaN's too.
    ///
    /// # Errors
    /// [`Full`].
    pub fn f64(&mut self, value: f64) -> Result<(), Full> {
        self.put(0xcb, value.to_bits().to_be_bytes())
    }

    /// A text.
    ///
    /// # Errors
    /// [`Full`]; also for a text of 64 KiB or more.
    pub fn str(&mut self, value: &str) -> Result<(), Full> {
        let short = u8::try_from(value.len());
        match short {
            Ok(length) if length < 32 => self.put_parts(&[0xa0 | length], value.as_bytes()),
            Ok(length) => self.put_parts(&[0xd9, length], value.as_bytes()),
            Err(_) => {
                let [high, low] = u16::try_from(value.len()).map_err(|_| Full)?.to_be_bytes();
                self.put_parts(&[0xda, high, low], value.as_bytes())
            }
        }
    }

    /// Bytes.
    ///
    /// # Errors
    /// [`Full`]; also for 64 KiB or more.
    pub fn bin(&mut self, value: &[u8]) -> Result<(), Full> {
        if let Ok(length) = u8::try_from(value.len()) {
            self.put_parts(&[0xc4, length], value)
        } else {
            let [high, low] = u16::try_from(value.len()).map_err(|_| Full)?.to_be_bytes();
            self.put_parts(&[0xc5, high, low], value)
        }
    }

    /// The head of an array: the values written next are its elements.
    ///
    /// # Errors
    /// [`Full`].
    pub fn array(&mut self, count: u16) -> Result<(), Full> {
        match u8::try_from(count) {
            Ok(small) if small < 16 => self.put(0x90 | small, []),
            _ => self.array_wide(count),
        }
    }

    /// The head of an array in the three-byte form whatever its count, so that it can be overwritten later.
    ///
    /// # Errors
    /// [`Full`].
    pub fn array_wide(&mut self, count: u16) -> Result<(), Full> {
        self.put(0xdc, count.to_be_bytes())
    }
}

/// One value as it stands in the bytes; of containers only the head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Token<'a> {
    /// Nothing.
    Nil,
    /// A truth value.
    Bool(bool),
    /// A whole number that an `i64` holds.
    Int(i64),
    /// A whole number past `i64::MAX`.
    Large(u64),
    /// A number; single precision is widened.
    F64(f64),
    /// A text.
    Str(&'a str),
    /// Bytes.
    Bin(&'a [u8]),
    /// An array of so many elements.
    Array(u32),
    /// A map of so many pairs.
    Map(u32),
    /// An extension's content.
    Ext(&'a [u8]),
}

/// Reads values one behind the other; every length is held against what is left before it is believed.
#[derive(Debug, Clone)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// What was not read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Unexpected> {
        let (head, tail) = self.0.split_at_checked(length).ok_or(Unexpected)?;
        self.0 = tail;
        Ok(head)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Unexpected> {
        self.take(N)?.try_into().map_err(|_| Unexpected)
    }

    fn length<const N: usize>(&mut self) -> Result<u32, Unexpected> {
        Ok(self.bytes::<N>()?.iter().fold(0, |length, byte| length << 8 | u32::from(*byte)))
    }

    fn sized(&mut self, length: u32) -> Result<&'a [u8], Unexpected> {
        self.take(usize::try_from(length).map_err(|_| Unexpected)?)
    }

    fn text(&mut self, length: u32) -> Result<Token<'a>, Unexpected> {
        core::str::from_utf8(self.sized(length)?).map(Token::Str).map_err(|_| Unexpected)
    }

    /// A container's count; each element takes at least a byte of what is left.
    fn count(&self, count: u32, bytes_each_min: usize) -> Result<u32, Unexpected> {
        let need = usize::try_from(count).ok().and_then(|count| count.checked_mul(bytes_each_min));
        if need.is_some_and(|need| need <= self.0.len()) { Ok(count) } else { Err(Unexpected) }
    }

    fn ext(&mut self, length: u32) -> Result<Token<'a>, Unexpected> {
        self.take(1)?;
        self.sized(length).map(Token::Ext)
    }

    /// The next value, or the head of the next container.
    ///
    /// # Errors
    /// [`Unexpected`] when the bytes end within it, a count is more than they can hold, or a text is not UTF-8.
    pub fn token(&mut self) -> Result<Token<'a>, Unexpected> {
        let [marker] = self.bytes::<1>()?;
        Ok(match marker {
            0x00..=0x7f => Token::Int(i64::from(marker)),
            0xe0..=0xff => Token::Int(i64::from(marker.cast_signed())),
            0x80..=0x8f => Token::Map(self.count(u32::from(marker & 0x0f), 2)?),
            0x90..=0x9f => Token::Array(self.count(u32::from(marker & 0x0f), 1)?),
            0xa0..=0xbf => self.text(u32::from(marker & 0x1f))?,
            0xc0 => Token::Nil,
            0xc1 => return Err(Unexpected),
            0xc2 => Token::Bool(false),
            0xc3 => Token::Bool(true),
            0xc4 => Token::Bin(self.length::<1>().and_then(|length| self.sized(length))?),
            0xc5 => Token::Bin(self.length::<2>().and_then(|length| self.sized(length))?),
            0xc6 => Token::Bin(self.length::<4>().and_then(|length| self.sized(length))?),
            0xc7 => self.length::<1>().and_then(|length| self.ext(length))?,
            0xc8 => self.length::<2>().and_then(|length| self.ext(length))?,
            0xc9 => self.length::<4>().and_then(|length| self.ext(length))?,
            0xca => Token::F64(widened(u32::from_be_bytes(self.bytes()?))),
            0xcb => Token::F64(f64::from_bits(u64::from_be_bytes(self.bytes()?))),
            0xcc => Token::Int(i64::from(u8::from_be_bytes(self.bytes()?))),
            0xcd => Token::Int(i64::from(u16::from_be_bytes(self.bytes()?))),
            0xce => Token::Int(i64::from(u32::from_be_bytes(self.bytes()?))),
            0xcf => {
                let value = u64::from_be_bytes(self.bytes()?);
                i64::try_from(value).map_or(Token::Large(value), Token::Int)
            }
            0xd0 => Token::Int(i64::from(i8::from_be_bytes(self.bytes()?))),
            0xd1 => Token::Int(i64::from(i16::from_be_bytes(self.bytes()?))),
            0xd2 => Token::Int(i64::from(i32::from_be_bytes(self.bytes()?))),
            0xd3 => Token::Int(i64::from_be_bytes(self.bytes()?)),
            0xd4 => self.ext(1)?,
            0xd5 => self.ext(2)?,
            0xd6 => self.ext(4)?,
            0xd7 => self.ext(8)?,
            0xd8 => self.ext(16)?,
            0xd9 => self.length::<1>().and_then(|length| self.text(length))?,
            0xda => self.length::<2>().and_then(|length| self.text(length))?,
            0xdb => self.length::<4>().and_then(|length| self.text(length))?,
            0xdc => self.length::<2>().and_then(|count| self.count(count, 1)).map(Token::Array)?,
            0xdd => self.length::<4>().and_then(|count| self.count(count, 1)).map(Token::Array)?,
            0xde => self.length::<2>().and_then(|count| self.count(count, 2)).map(Token::Map)?,
            0xdf => self.length::<4>().and_then(|count| self.count(count, 2)).map(Token::Map)?,
        })
    }

    /// A whole number.
    ///
    /// # Errors
    /// [`Unexpected`], as for every reader below.
    pub fn i64(&mut self) -> Result<i64, Unexpected> {
        if let Token::Int(value) = self.token()? { Ok(value) } else { Err(Unexpected) }
    }

    /// A whole number that is not negative.
    ///
    /// # Errors
    /// [`Unexpected`].
    pub fn u64(&mut self) -> Result<u64, Unexpected> {
        match self.token()? {
            Token::Int(value) => u64::try_from(value).map_err(|_| Unexpected),
            Token::Large(value) => Ok(value),
            _ => Err(Unexpected),
        }
    }

    /// A whole number of 32 bits.
    ///
    /// # Errors
    /// [`Unexpected`].
    pub fn u32(&mut self) -> Result<u32, Unexpected> {
        u32::try_from(self.u64()?).map_err(|_| Unexpected)
    }

    /// A text.
    ///
    /// # Errors
    /// [`Unexpected`].
    pub fn str(&mut self) -> Result<&'a str, Unexpected> {
        if let Token::Str(text) = self.token()? { Ok(text) } else { Err(Unexpected) }
    }

    /// Exactly `N` bytes.
    ///
    /// # Errors
    /// [`Unexpected`].
    pub fn bin<const N: usize>(&mut self) -> Result<[u8; N], Unexpected> {
        if let Token::Bin(bytes) = self.token()? {
            bytes.try_into().map_err(|_| Unexpected)
        } else {
            Err(Unexpected)
        }
    }

    /// The head of an array.
    ///
    /// # Errors
    /// [`Unexpected`].
    pub fn array(&mut self) -> Result<u32, Unexpected> {
        if let Token::Array(count) = self.token()? { Ok(count) } else { Err(Unexpected) }
    }

    /// Passes over one value with everything in it, however deep, in bounded memory.
    ///
    /// # Errors
    /// [`Unexpected`].
    pub fn skip(&mut self) -> Result<(), Unexpected> {
        let mut open = 1u64;
        while open > 0 {
            open -= 1;
            open = match self.token()? {
                Token::Array(count) => open.saturating_add(u64::from(count)),
                Token::Map(count) => open.saturating_add(u64::from(count) * 2),
                _ => open,
            };
        }
        Ok(())
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// [`Unexpected`].
    pub fn end(&self) -> Result<(), Unexpected> {
        if self.0.is_empty() { Ok(()) } else { Err(Unexpected) }
    }
}

/// Single to double precision. A NaN goes by its bits: processors disagree about what converting one does to it.
fn widened(bits: u32) -> f64 {
    let value = f32::from_bits(bits);
    if value.is_nan() {
        let sign = u64::from(bits >> 31) << 63;
        f64::from_bits(sign | 0x7ff0_0000_0000_0000 | u64::from(bits & 0x007f_ffff) << 29)
    } else {
        f64::from(value)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[derive(Debug, Clone)]
    enum Thing {
        Nil,
        Bool(bool),
        U64(u64),
        I64(i64),
        F32(u32),
        F64(u64),
        Str(std::string::String),
        Bin(Vec<u8>),
        Array(u16),
    }

    fn thing() -> impl Strategy<Value = Thing> {
        prop_oneof![
            Just(Thing::Nil),
            any::<bool>().prop_map(Thing::Bool),
            (any::<u64>(), 0u32..64).prop_map(|(value, shift)| Thing::U64(value >> shift)),
            (any::<i64>(), 0u32..64).prop_map(|(value, shift)| Thing::I64(value >> shift)),
            any::<u32>().prop_map(Thing::F32),
            any::<u64>().prop_map(Thing::F64),
            ".{0,40}".prop_map(Thing::Str),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(Thing::Bin),
            (0u16..40).prop_map(Thing::Array),
        ]
    }

    fn by_us(things: &[Thing]) -> Vec<u8> {
        let mut out = [0u8; 8192];
        let mut writer = Writer::new(&mut out);
        for thing in things {
            match thing {
                Thing::Nil => writer.nil(),
                Thing::Bool(value) => writer.bool(*value),
                Thing::U64(value) => writer.u64(*value),
                Thing::I64(value) => writer.i64(*value),
                Thing::F32(bits) => writer.f32(f32::from_bits(*bits)),
                Thing::F64(bits) => writer.f64(f64::from_bits(*bits)),
                Thing::Str(text) => writer.str(text),
                Thing::Bin(bytes) => writer.bin(bytes),
                Thing::Array(count) => writer.array(*count),
            }
            .unwrap();
        }
        writer.written().to_vec()
    }

    fn by_rmp(things: &[Thing]) -> Vec<u8> {
        let mut out = Vec::new();
        for thing in things {
            match thing {
                Thing::Nil => rmp::encode::write_nil(&mut out).unwrap(),
                Thing::Bool(value) => rmp::encode::write_bool(&mut out, *value).unwrap(),
                Thing::U64(value) => rmp::encode::write_uint(&mut out, *value).map(|_| ()).unwrap(),
                Thing::I64(value) => rmp::encode::write_sint(&mut out, *value).map(|_| ()).unwrap(),
                Thing::F32(bits) => rmp::encode::write_f32(&mut out, f32::from_bits(*bits)).unwrap(),
                Thing::F64(bits) => rmp::encode::write_f64(&mut out, f64::from_bits(*bits)).unwrap(),
                Thing::Str(text) => rmp::encode::write_str(&mut out, text).unwrap(),
                Thing::Bin(bytes) => rmp::encode::write_bin(&mut out, bytes).unwrap(),
                Thing::Array(count) => {
                    rmp::encode::write_array_len(&mut out, u32::from(*count)).map(|_| ()).unwrap();
                }
            }
        }
        out
    }

    proptest! {
        #[test]
        fn bytes_are_those_that_rmp_writes(things in prop::collection::vec(thing(), 0..20)) {
            prop_assert_eq!(by_us(&things), by_rmp(&things));
        }

        #[test]
        fn what_rmp_writes_is_read(things in prop::collection::vec(thing(), 0..20)) {
            let mut bytes = by_rmp(&things);
            bytes.extend([0xc0; 40]);
            let mut reader = Reader::new(&bytes);
            for thing in &things {
                let token = reader.token().unwrap();
                match (thing, token) {
                    (Thing::Nil, Token::Nil) => {}
                    (Thing::Bool(a), Token::Bool(b)) => prop_assert_eq!(*a, b),
                    (Thing::U64(a), Token::Large(b)) => prop_assert_eq!(*a, b),
                    (Thing::U64(a), Token::Int(b)) => prop_assert_eq!(*a, b.cast_unsigned()),
                    (Thing::I64(a), Token::Int(b)) => prop_assert_eq!(*a, b),
                    (Thing::F32(a), Token::F64(b)) if f32::from_bits(*a).is_nan() => prop_assert!(b.is_nan()),
                    (Thing::F32(a), Token::F64(b)) => {
                        prop_assert_eq!(f64::from(f32::from_bits(*a)).to_bits(), b.to_bits());
                    }
                    (Thing::F64(a), Token::F64(b)) => prop_assert_eq!(*a, b.to_bits()),
                    (Thing::Str(a), Token::Str(b)) => prop_assert_eq!(a, b),
                    (Thing::Bin(a), Token::Bin(b)) => prop_assert_eq!(a, b),
                    (Thing::Array(a), Token::Array(b)) => prop_assert_eq!(u32::from(*a), b),
                    other => prop_assert!(false, "{:?}", other),
                }
            }
            prop_assert_eq!(reader.rest().len(), 40);
        }

        #[test]
        fn random_bytes_never_panic_and_reading_always_ends(noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = Reader::new(&noise);
            while reader.skip().is_ok() {}
            let mut reader = Reader::new(&noise);
            while reader.token().is_ok() {}
        }

        #[test]
        fn a_full_output_is_told_and_holds_nothing_of_the_refused_value(room in 0usize..60, things in prop::collection::vec(thing(), 1..8)) {
            let whole = by_us(&things);
            let mut out = std::vec![0xaa; room];
            let mut writer = Writer::new(&mut out);
            let refused = writer.bin(&whole) == Err(Full);
            let written = writer.length();
            prop_assert_eq!(refused, written == 0);
            prop_assert!(!refused || out.iter().all(|byte| *byte == 0xaa) || whole.len() > room);
        }
    }

    #[test]
    fn a_container_is_skipped_with_everything_in_it() {
        let bytes = [0x92, 0x81, 0xa1, b'k', 0x93, 1, 2, 0xc0, 0xd6, 1, 0, 0, 0, 0, 7];
        let mut reader = Reader::new(&bytes);
        reader.skip().unwrap();
        assert_eq!(reader.rest(), [7]);
    }

    #[test]
    fn a_count_beyond_the_bytes_is_refused_at_once() {
        for bytes in [
            &[0xdd, 0xff, 0xff, 0xff, 0xff, 0][..],
            &[0xdf, 0, 0, 0, 1, 0],
            &[0xc6, 0xff, 0xff, 0xff, 0xff],
            &[0x95, 0],
        ] {
            assert_eq!(Reader::new(bytes).token(), Err(Unexpected), "{bytes:?}");
        }
    }
}
