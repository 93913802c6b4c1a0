//! Lengths of time in a query, looked at before it is parsed: `[5m]`, `[1h:30s]`, `offset 1d`. The parser's later version
//! of the language takes plain numbers for lengths and lengths for numbers, and ends the program on lengths beyond its
//! measure; Prometheus 2.42 takes neither, so what is refused here is refused there.

/// Why a text has no sound lengths of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LengthError {
    #[error("missing or bad unit character in duration")]
    NoLength,
    #[error("unexpected duration")]
    Unexpected,
}

/// Whether a text is one length of time, or several in a row: `1h30m`.
fn is_length(mut text: &str) -> bool {
    let mut any = false;
    while !text.is_empty() {
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
        if unit.len() == text.len() {
            return false;
        }
        let rest = unit.strip_prefix("ms").or_else(|| unit.strip_prefix(['s', 'm', 'h', 'd', 'w', 'y']));
        let Some(rest) = rest else { return false };
        any = true;
        text = rest;
    }
    any
}

/// Looks at every length of time, wherever the grammar has one.
pub(crate) fn check(text: &str) -> Result<(), LengthError> {
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let behind = rest.get(first.len_utf8()..).unwrap_or_default();
        rest = match first {
            '"' | '\'' | '`' => after_text(behind, first),
            '#' => behind.split_once('\n').map_or("", |(_, rest)| rest),
            '[' => {
                // Without its bracket the parser has something to say.
                let Some((inner, rest)) = behind.split_once(']') else { return Ok(()) };
                let (range, step) = inner.split_once(':').unwrap_or((inner, ""));
                if !is_length(range.trim()) || !(step.trim().is_empty() || is_length(step.trim())) {
                    return Err(LengthError::NoLength);
                }
                rest
            }
            'a'..='z' | 'A'..='Z' | '_' | ':' => {
                let (word, rest) = word(rest, |c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
                if word.eq_ignore_ascii_case("offset") { after_offset(rest)? } else { rest }
            }
            '0'..='9' | '.' => {
                let (number, rest) = word(rest, |c| c.is_ascii_alphanumeric() || c == '.' || c == '_');
                if is_length(number) {
                    return Err(LengthError::Unexpected);
                }
                rest
            }
            _ => behind,
        };
    }
    Ok(())
}

fn word(text: &str, of: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !of(c)).unwrap_or(text.len()))
}

fn after_text(text: &str, quote: char) -> &str {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if c == quote {
            return text.get(at + 1..).unwrap_or_default();
        } else if c == '\\' && quote != '`' {
            escaped = true;
        }
    }
    ""
}

/// What follows the word: nothing of the kind if it is the name of a label.
fn after_offset(text: &str) -> Result<&str, LengthError> {
    let signed = text.trim_start();
    let (length, rest) = word(signed.strip_prefix(['-', '+']).unwrap_or(signed).trim_start(), |c| {
        c.is_ascii_alphanumeric() || c == '.' || c == '_'
    });
    if length.is_empty() || is_length(length) { Ok(rest) } else { Err(LengthError::NoLength) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_stand_where_they_belong_and_have_units() {
        for text in [
            "a[5m]",
            "a[ 1h30m : 15s ]",
            "a[5m:]",
            "a offset 5m",
            "a OFFSET -1d",
            "a offset - 500ms # 5m and \" more\n + 1",
            "m5m + 1e3 - 0x5d",
            "{a=\"5m [1]\",b='\\'5m',c=`\\`}",
            "sum by (offset) (a{offset=\"x\"})",
            "a @ 5",
            "\"[5",
            "",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
        for text in [
            "a[5]",
            "a[5m:1]",
            "a[]",
            "a[1e30]",
            "a[-5m]",
            "a offset 5",
            "a offset -1e+30",
            "a offset inf",
            "a[5x]",
        ] {
            assert_eq!(check(text), Err(LengthError::NoLength), "{text}");
        }
        for text in ["5m", "a + 1h", "a[5m] + 5m", "`x` 5m"] {
            assert_eq!(check(text), Err(LengthError::Unexpected), "{text}");
        }
    }
}
