//! Plain numbers against the standard library's.

use proptest::prelude::*;
use tidelog_record::decimal_value;

use super::*;

proptest! {
    #[test]
    fn a_plain_number_is_what_the_standard_library_reads(
        text in prop_oneof!["-?[0-9]{1,20}", "-?[0-9]{1,8}\\.[0-9]{0,10}", "[0-9.i-]{0,6}", "-?[0-9]{1,19}i"],
        behind in "[, \n\rx]?",
    ) {
        let line = format!("{text}{behind}");
        match value(line.as_bytes()) {
            Some((Plain::Decimal { scaled, digits }, rest)) => {
                let expected: f64 = text.parse().unwrap();
                prop_assert_eq!(decimal_value(scaled, digits).to_bits(), expected.to_bits());
                prop_assert_eq!(rest, behind.as_bytes());
            }
            Some((Plain::I64(number), rest)) => {
                prop_assert_eq!(text.strip_suffix('i').map(str::parse), Some(Ok(number)));
                prop_assert_eq!(rest, behind.as_bytes());
            }
            None => {}
        }
        if let Some((time, rest)) = timestamp(line.as_bytes()) {
            let (digits, behind) = line.split_at(line.len() - rest.len());
            prop_assert_eq!(digits.parse(), Ok(time));
            prop_assert!(!behind.starts_with(|c: char| c.is_ascii_digit()));
        }
    }

    #[test]
    fn eight_bytes_are_eight_digits_or_none(bytes in any::<[u8; 8]>(), number in 0..100_000_000_u64) {
        let text: [u8; 8] = format!("{number:08}").as_bytes().try_into().unwrap();
        prop_assert_eq!(eight_digits(text), Some(number));
        let mut changed = text;
        changed[usize::from(bytes[0] % 8)] = bytes[1];
        for any in [bytes, changed] {
            prop_assert_eq!(eight_digits(any).is_some(), any.iter().all(u8::is_ascii_digit));
        }
    }
}

#[test]
fn what_is_written_mostly_is_plain() {
    let decimal = |scaled, digits| Some(Plain::Decimal { scaled, digits });
    for (text, expected) in [
        ("21.57", decimal(2157, 2)),
        ("-3.50,", decimal(-350, 2)),
        ("100 ", decimal(100, 0)),
        ("1.", decimal(1, 0)),
        ("123456789.123456\n", decimal(123_456_789_123_456, 6)),
        ("3412i", Some(Plain::I64(3412))),
        ("-0i", Some(Plain::I64(0))),
        ("-0", None),
        ("-0.0", None),
        ("1e5", None),
        (".5", None),
        ("+5", None),
        ("1.5i", None),
        ("5u", None),
        ("1234567890123456", None),
        ("1.0123456789", None),
        ("", None),
        ("t", None),
    ] {
        assert_eq!(value(text.as_bytes()).map(|(plain, _)| plain), expected, "{text}");
    }
    assert_eq!(timestamp(b"1795219200000000000\n"), Some((1_795_219_200_000_000_000, &b"\n"[..])));
    assert_eq!(timestamp(b"9999999999999999999"), None);
    assert_eq!(timestamp(b"-"), None);
}
