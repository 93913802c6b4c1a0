//! Reads the tokens of packed points.

use super::{CHANGE, Cell, FLOAT_BYTES_MAX, Here, LAYOUT, REPEAT, TEXT, UNIT_WIDE, UNITS_NS, WIDE};
use crate::segment::unzigzag;

/// Where reading has come to.
pub(super) struct Walk<'b> {
    pub rest: &'b [u8],
    pub here: Here,
}

impl<'b> Walk<'b> {
    /// Reads one token. `None` at the end.
    #[inline]
    pub fn token(&mut self, take: &mut impl FnMut(i64, Cell<'b>)) -> Option<()> {
        let token = self.number()?;
        if token & 1 == 0 {
            self.point(unzigzag(token >> 1), self.here.distance, take);
            return Some(());
        }
        if token & 2 == 0 {
            let change = self.change()?;
            self.point(unzigzag(token >> 2), self.here.distance.wrapping_add(change), take);
            return Some(());
        }
        self.operation(token >> 2, take)
    }

    fn operation(&mut self, operation: u64, take: &mut impl FnMut(i64, Cell<'b>)) -> Option<()> {
        match operation {
            0..=FLOAT_BYTES_MAX => {
                let mut xor = [0; 8];
                let told = self.bytes(usize::try_from(operation).ok()?)?;
                xor.iter_mut().zip(told).for_each(|(to, from)| *to = *from);
                self.here.bits ^= u64::from_be_bytes(xor);
                self.here.go_to(self.here.time.wrapping_add(self.here.distance), self.here.distance);
                take(self.here.time, Cell::Float(f64::from_bits(self.here.bits)));
            }
            CHANGE => {
                let change = self.change()?;
                self.here.distance = self.here.distance.wrapping_add(change);
            }
            TEXT => {
                let length = usize::try_from(self.number()?).ok()?;
                let text = std::str::from_utf8(self.bytes(length)?).ok()?;
                self.here.go_to(self.here.time.wrapping_add(self.here.distance), self.here.distance);
                take(self.here.time, Cell::Text(text));
            }
            WIDE => {
                let step = unzigzag(u64::from_le_bytes(self.bytes(8)?.try_into().ok()?));
                self.point(step, self.here.distance, take);
            }
            REPEAT => {
                let repeats = u32::try_from(self.number()?).ok()?;
                self.repeat(repeats, take);
            }
            layout => {
                self.here.layout = u8::try_from(layout.checked_sub(LAYOUT)?).ok()?;
                self.here.number = 0;
            }
        }
        Some(())
    }

    #[inline]
    fn point(&mut self, step: i64, distance: i64, take: &mut impl FnMut(i64, Cell<'b>)) {
        self.here.number = self.here.number.wrapping_add(step);
        self.here.go_to(self.here.time.wrapping_add(distance), distance);
        take(self.here.time, self.here.cell());
    }

    pub fn repeat(&mut self, repeats: u32, take: &mut impl FnMut(i64, Cell<'b>)) {
        let cell = self.here.cell();
        for _ in 0..repeats {
            self.here.go_to(self.here.time.wrapping_add(self.here.distance), self.here.distance);
            take(self.here.time, cell);
        }
    }

    fn change(&mut self) -> Option<i64> {
        let told = self.number()?;
        let unit = told & 3;
        if unit == UNIT_WIDE {
            return Some(i64::from_le_bytes(self.bytes(8)?.try_into().ok()?));
        }
        let unit = UNITS_NS.get(usize::try_from(unit).ok()?)?;
        Some(unzigzag(told >> 2).wrapping_mul(*unit))
    }

    #[inline]
    fn number(&mut self) -> Option<u64> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        if *first < 0x80 {
            return Some(u64::from(*first));
        }
        let mut value = u64::from(*first & 0x7f);
        for shift in (7..64).step_by(7) {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                break;
            }
        }
        Some(value)
    }

    fn bytes(&mut self, count: usize) -> Option<&'b [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(bytes)
    }
}
