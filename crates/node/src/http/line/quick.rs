//! Numbers as clients mostly write them, read without a detour: short decimals straight to scaled integers. What is not of this
//! plain form is not refused here but left to [`parse`](super::parse), which knows the whole grammar.

use tidelog_record::DECIMAL_DIGITS_MAX;

/// Digits of a decimal: as many make fewer than 10^15 whatever they are.
const DECIMAL_LENGTH_MAX: usize = 15;

/// Digits of a whole number that always fit an i64.
const INTEGER_LENGTH_MAX: usize = 18;

/// Digits that always fit a u64.
const LENGTH_MAX: usize = 19;

/// A number of a plain form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plain {
    /// `scaled / 10^digits`.
    Decimal {
        scaled: i64,
        digits: u8,
    },
    I64(i64),
}

/// Takes a field's value; what is behind it comes back with it.
#[inline]
pub(super) fn value(rest: &[u8]) -> Option<(Plain, &[u8])> {
    let (negative, digits) = sign(rest);
    let (whole, behind) = natural(digits, 0)?;
    let length = digits.len() - behind.len();
    if length == 0 {
        return None;
    }
    let signed = |number: u64| {
        let number = number.cast_signed();
        if negative { -number } else { number }
    };
    let (plain, behind) = match behind {
        [b'.', fraction @ ..] => {
            let (scaled, behind) = natural(fraction, whole)?;
            let digits = fraction.len() - behind.len();
            let short = length + digits <= DECIMAL_LENGTH_MAX;
            let digits = u8::try_from(digits).ok().filter(|digits| short && *digits <= DECIMAL_DIGITS_MAX)?;
            (Plain::Decimal { scaled: signed(scaled), digits }, behind)
        }
        [b'i', behind @ ..] if length <= INTEGER_LENGTH_MAX => (Plain::I64(signed(whole)), behind),
        _ if length <= DECIMAL_LENGTH_MAX => (Plain::Decimal { scaled: signed(whole), digits: 0 }, behind),
        _ => return None,
    };
    // -0.0 is a float with a sign, which no decimal has.
    if negative && matches!(plain, Plain::Decimal { scaled: 0, .. }) {
        return None;
    }
    matches!(behind, [b',' | b' ' | b'\n' | b'\r', ..] | []).then_some((plain, behind))
}

/// Takes a timestamp; what is behind it comes back with it.
#[inline]
pub(super) fn timestamp(rest: &[u8]) -> Option<(i64, &[u8])> {
    let (negative, digits) = sign(rest);
    let (number, behind) = natural(digits, 0)?;
    if behind.len() == digits.len() {
        return None;
    }
    let number = i64::try_from(number).ok()?;
    Some((if negative { -number } else { number }, behind))
}

/// Takes a line's end.
#[inline]
pub(super) fn end(rest: &[u8]) -> Option<&[u8]> {
    match rest {
        [b'\n', behind @ ..] | [b'\r', b'\n', behind @ ..] => Some(behind),
        [] => Some(rest),
        _ => None,
    }
}

#[inline]
fn sign(rest: &[u8]) -> (bool, &[u8]) {
    match rest {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    }
}

/// Takes digits, of which there may be none, as a number that goes on from `number`; `None` for too many.
#[inline]
fn natural(mut rest: &[u8], mut number: u64) -> Option<(u64, &[u8])> {
    let all = rest;
    // Of what is too long, only the first digits count, and then it is refused: so this may wrap.
    while let Some((eight, behind)) = rest.split_first_chunk::<8>()
        && let Some(digits) = eight_digits(*eight)
    {
        number = number.wrapping_mul(100_000_000).wrapping_add(digits);
        rest = behind;
    }
    while let [byte @ b'0'..=b'9', behind @ ..] = rest {
        number = number.wrapping_mul(10).wrapping_add(u64::from(byte - b'0'));
        rest = behind;
    }
    (all.len() - rest.len() <= LENGTH_MAX).then_some((number, rest))
}

/// Eight digits at once, if all are digits: pairs are put together in all lanes of a word, then pairs of those.
#[inline]
fn eight_digits(bytes: [u8; 8]) -> Option<u64> {
    let word = u64::from_le_bytes(bytes);
    let high = word & 0xf0f0_f0f0_f0f0_f0f0;
    let carried = word.wrapping_add(0x0606_0606_0606_0606) & 0xf0f0_f0f0_f0f0_f0f0;
    if high != 0x3030_3030_3030_3030 || carried != 0x3030_3030_3030_3030 {
        return None;
    }
    let digits = word & 0x0f0f_0f0f_0f0f_0f0f;
    let pairs = (digits.wrapping_mul(10) + (digits >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs.wrapping_mul(100) + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    Some((fours.wrapping_mul(10_000) + (fours >> 32)) & 0xffff_ffff)
}

#[cfg(test)]
#[path = "quick/tests.rs"]
mod tests;
