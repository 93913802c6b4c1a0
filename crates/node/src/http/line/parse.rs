//! The line protocol's grammar: bytes in, lines out, each borrowed from the body. It follows InfluxDB's reference and, where
//! that is silent, its Go parser. It knows nothing of series, sites and times of arrival.
//!
//! ```text
//! line   := measurement { ',' tag '=' tag value } ' ' field '=' value { ',' field '=' value } [ ' ' timestamp ] end
//! value  := 1.5 | 1i | 1u | t T true True TRUE f F false False FALSE | "text"
//! end    := "\n" | "\r\n" | end of the body
//! ```
//! A backslash escapes `,`, `=` and space in names and tag values, `"` and `\` in texts; before anything else it is itself. A
//! text may hold line breaks. Blank lines and lines beginning with `#` say nothing. After a bad line the reader goes on
//! behind the next line break, so good lines are never lost to bad ones.

use std::borrow::Cow;
use std::str;

/// Why a line is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LineFault {
    /// Nothing stands before the first comma or space.
    #[error("missing measurement")]
    Measurement,
    /// The line ends behind measurement and tags.
    #[error("missing fields")]
    Fields,
    /// A tag without a name.
    #[error("missing tag key")]
    TagKey,
    /// A tag without a value.
    #[error("missing tag value")]
    TagValue,
    /// A tag's value with an equals sign that is not escaped.
    #[error("invalid tag format: '=' in a tag value needs a backslash")]
    TagFormat,
    /// A field without a name.
    #[error("missing field key")]
    FieldKey,
    /// A field without a value.
    #[error("missing field value")]
    FieldValue,
    /// A text without an end.
    #[error("unbalanced quotes")]
    Quotes,
    /// Neither number, truth value nor text.
    #[error("invalid value {0:?}: a number (with i or u behind an integer), true, false or a \"text\"")]
    Value(String),
    /// An integer past i64.
    #[error("integer {0} is out of range: {min} to {max}", min = i64::MIN, max = i64::MAX)]
    Integer(String),
    /// A float past f64.
    #[error("float {0} is out of range")]
    Float(String),
    /// Not a whole number.
    #[error("bad timestamp {0:?}: expected a whole number")]
    Timestamp(String),
    /// A time that nanoseconds in 64 bits cannot name.
    #[error("timestamp {0} is out of range in this precision")]
    TimestampRange(i64),
    /// Something stands behind the end.
    #[error("unexpected {0:?} behind the line's end")]
    Trailing(String),
    /// Bytes that are no text.
    #[error("not UTF-8")]
    Utf8,
    /// One tag twice.
    #[error("duplicate tags {0:?}")]
    DuplicateTags(String),
    /// Two tags that are one label.
    #[error("tags {0:?} and {1:?} both become the label {2:?}")]
    SameLabel(String, String, String),
    /// Names that no series can have.
    #[error(transparent)]
    Series(#[from] tidelog_record::SeriesError),
    /// More than one record takes.
    #[error("takes up to {bytes} bytes when stored, the most for one line is {most}")]
    TooLong {
        /// What its points take at most.
        bytes: usize,
        /// The bound.
        most: usize,
    },
}

/// A field's value; a text is as it stands between its quotes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum FieldValue<'a> {
    F64(f64),
    I64(i64),
    Bool(bool),
    Text(&'a [u8]),
}

/// One line; names are as they stand, with their escapes. Reused from line to line.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Line<'a> {
    /// Measurement and tags.
    pub key: &'a [u8],
    /// In order of the line; at least one.
    pub fields: Vec<(&'a [u8], FieldValue<'a>)>,
    /// In the request's precision.
    pub timestamp: Option<i64>,
}

/// A bad line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadLine<'a> {
    /// Counted from 1 over all lines of the body, blank ones too.
    pub number: usize,
    /// Its first physical line.
    pub text: &'a [u8],
    /// What is wrong with it.
    pub fault: LineFault,
}

/// The lines of a body.
#[derive(Debug)]
pub(crate) struct Lines<'a> {
    body: &'a [u8],
    /// Where the next line begins.
    at: usize,
    /// Where the line that was read last begins.
    start: usize,
    /// Line breaks before `counted`: counted only when somebody asks.
    breaks: usize,
    counted: usize,
}

impl<'a> Lines<'a> {
    pub fn of(body: &'a [u8]) -> Self {
        Self { body, at: 0, start: 0, breaks: 0, counted: 0 }
    }

    /// Reads the next line that says something into `line`; `None` at the end of the body.
    pub fn next_into(&mut self, line: &mut Line<'a>) -> Option<Result<(), BadLine<'a>>> {
        loop {
            self.at += spaces(self.rest());
            match self.rest() {
                [] => return None,
                [b'\n', ..] => self.at += 1,
                [b'\r', b'\n', ..] => self.at += 2,
                [b'\r'] => return None,
                [b'#', ..] => self.at += line_end(self.rest()),
                _ => break,
            }
        }
        self.start = self.at;
        let mut scanner = Scanner { rest: self.rest() };
        let outcome = scanner.line(line);
        self.at = self.body.len() - scanner.rest.len();
        match outcome {
            Ok(()) => Some(Ok(())),
            Err(fault) => {
                self.at += line_end(scanner.rest);
                Some(Err(self.bad(fault)))
            }
        }
    }

    /// The line that was read last, as one that is refused.
    pub fn bad(&mut self, fault: LineFault) -> BadLine<'a> {
        let between = self.body.get(self.counted..self.start).unwrap_or_default();
        self.breaks += between.iter().filter(|byte| **byte == b'\n').count();
        self.counted = self.start;
        let text = self.body.get(self.start..).unwrap_or_default();
        let text = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        BadLine { number: self.breaks + 1, text, fault }
    }

    /// Goes on at `behind`, which is an end of [`Lines::rest`] that begins with a line.
    pub fn go_on(&mut self, behind: &[u8]) {
        self.at = self.body.len() - behind.len();
    }

    /// What was not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.body.get(self.at..).unwrap_or_default()
    }
}

/// How many blanks stand first.
fn spaces(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count()
}

/// Bytes up to and with the first line break.
fn line_end(bytes: &[u8]) -> usize {
    memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

struct Scanner<'a> {
    rest: &'a [u8],
}

impl<'a> Scanner<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at_checked(count).unwrap_or((self.rest, &[]));
        self.rest = rest;
        taken
    }

    /// Takes up to the first unescaped byte that ends a name: one of `stops`, or a line break.
    fn name(&mut self, stops: [u8; 3]) -> &'a [u8] {
        let mut at = 0;
        while let Some(byte) = self.rest.get(at) {
            if *byte == b'\\' && matches!(self.rest.get(at + 1), Some(b',' | b'=' | b' ')) {
                at += 2;
            } else if *byte == b'\n' || stops.contains(byte) {
                break;
            } else {
                at += 1;
            }
        }
        self.take(at)
    }

    /// Takes the line's end, if it is here.
    fn end(&mut self) -> bool {
        let length = match self.rest {
            [] => 0,
            [b'\n', ..] | [b'\r'] => 1,
            [b'\r', b'\n', ..] => 2,
            _ => return false,
        };
        self.take(length);
        true
    }

    fn line(&mut self, line: &mut Line<'a>) -> Result<(), LineFault> {
        line.fields.clear();
        line.timestamp = None;
        line.key = self.name([b' '; 3]);
        if line.key.first().is_none_or(|byte| *byte == b',') {
            return Err(LineFault::Measurement);
        }
        let blanks = spaces(self.rest);
        self.take(blanks);
        if matches!(self.rest, [] | [b'\n', ..] | [b'\r'] | [b'\r', b'\n', ..]) {
            return Err(LineFault::Fields);
        }
        loop {
            let key = self.name([b'=', b',', b' ']);
            match self.rest.first() {
                _ if key.is_empty() => return Err(LineFault::FieldKey),
                Some(b'=') => self.take(1),
                _ => return Err(LineFault::FieldValue),
            };
            line.fields.push((key, self.value()?));
            match self.rest.first() {
                Some(b',') => {
                    self.take(1);
                }
                Some(b' ' | b'\t') => break,
                _ if self.end() => return Ok(()),
                _ => return Err(LineFault::Trailing(lossy(self.token()))),
            }
        }
        self.timestamp(line)
    }

    fn timestamp(&mut self, line: &mut Line<'a>) -> Result<(), LineFault> {
        let blanks = spaces(self.rest);
        self.take(blanks);
        if self.end() {
            return Ok(());
        }
        let token = self.token();
        line.timestamp = Some(integer(token).ok_or_else(|| LineFault::Timestamp(lossy(token)))?);
        let blanks = spaces(self.rest);
        self.take(blanks);
        if self.end() { Ok(()) } else { Err(LineFault::Trailing(lossy(self.token()))) }
    }

    /// Takes what stands before a comma, a blank or the line's end.
    fn token(&mut self) -> &'a [u8] {
        let stop = |byte: &u8| matches!(byte, b',' | b' ' | b'\t' | b'\n' | b'\r');
        let length = self.rest.iter().position(stop).unwrap_or(self.rest.len());
        self.take(length)
    }

    fn value(&mut self) -> Result<FieldValue<'a>, LineFault> {
        if self.rest.first() == Some(&b'"') {
            return self.text();
        }
        let token = self.token();
        if let Some(digits) = token.strip_suffix(b"i").filter(|digits| is_integer(digits)) {
            return integer(digits).map(FieldValue::I64).ok_or_else(|| LineFault::Integer(lossy(digits)));
        }
        if let Some(digits) = token.strip_suffix(b"u").filter(|digits| is_integer(digits)) {
            let number = integer(digits).filter(|number| *number >= 0 && !digits.starts_with(b"-"));
            return number.map(FieldValue::I64).ok_or_else(|| LineFault::Integer(lossy(digits)));
        }
        match token {
            b"" => Err(LineFault::FieldValue),
            b"t" | b"T" | b"true" | b"True" | b"TRUE" => Ok(FieldValue::Bool(true)),
            b"f" | b"F" | b"false" | b"False" | b"FALSE" => Ok(FieldValue::Bool(false)),
            _ => float(token).map(FieldValue::F64),
        }
    }

    fn text(&mut self) -> Result<FieldValue<'a>, LineFault> {
        let quoted = self.rest.get(1..).unwrap_or_default();
        let mut at = 0;
        loop {
            // From one quote or backslash to the next.
            let Some(step) = memchr::memchr2(b'"', b'\\', quoted.get(at..).unwrap_or_default()) else {
                return Err(LineFault::Quotes);
            };
            at += step;
            if quoted.get(at) == Some(&b'"') {
                break;
            }
            at += if matches!(quoted.get(at + 1), Some(b'"' | b'\\')) { 2 } else { 1 };
        }
        self.take(at + 2);
        Ok(FieldValue::Text(quoted.get(..at).unwrap_or_default()))
    }
}

fn is_integer(bytes: &[u8]) -> bool {
    let digits = bytes.strip_prefix(b"-").or(bytes.strip_prefix(b"+")).unwrap_or(bytes);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

fn integer(bytes: &[u8]) -> Option<i64> {
    str::from_utf8(bytes).ok()?.parse().ok()
}

fn float(token: &[u8]) -> Result<f64, LineFault> {
    let bad = || LineFault::Value(lossy(token));
    let unsigned = token.strip_prefix(b"-").or(token.strip_prefix(b"+")).unwrap_or(token);
    // The standard library would read `inf` and `nan`, too, which the line protocol has not.
    if !unsigned.first().is_some_and(|byte| byte.is_ascii_digit() || *byte == b'.') {
        return Err(bad());
    }
    let number: f64 = str::from_utf8(token).map_err(|_| bad())?.parse().map_err(|_| bad())?;
    if number.is_finite() { Ok(number) } else { Err(LineFault::Float(lossy(token))) }
}

/// A tag's name and value as they stand.
pub(crate) type RawTag<'a> = (&'a [u8], &'a [u8]);

/// Measurement and tags of a key, with their escapes, in the order they stand in.
pub(crate) fn split_key(key: &[u8]) -> Result<(&[u8], Vec<RawTag<'_>>), LineFault> {
    let mut scanner = Scanner { rest: key };
    let measurement = scanner.name([b','; 3]);
    let mut tags = Vec::new();
    while !scanner.rest.is_empty() {
        scanner.take(1);
        let name = scanner.name([b'=', b',', b',']);
        if name.is_empty() {
            return Err(LineFault::TagKey);
        }
        if scanner.take(1) != b"=" {
            return Err(LineFault::TagValue);
        }
        let value = scanner.name([b'=', b',', b',']);
        match scanner.rest.first() {
            Some(b'=') => return Err(LineFault::TagFormat),
            _ if value.is_empty() => return Err(LineFault::TagValue),
            _ => tags.push((name, value)),
        }
    }
    Ok((measurement, tags))
}

/// A measurement without its escapes.
pub(crate) fn unescaped_measurement(raw: &[u8]) -> Result<Cow<'_, str>, LineFault> {
    unescaped(raw, b", ")
}

/// The name of a tag or field, or a tag's value, without its escapes.
pub(crate) fn unescaped_name(raw: &[u8]) -> Result<Cow<'_, str>, LineFault> {
    unescaped(raw, b", =")
}

/// A text without its escapes.
pub(crate) fn unescaped_text(raw: &[u8]) -> Result<Cow<'_, str>, LineFault> {
    unescaped(raw, b"\"\\")
}

fn unescaped<'a>(raw: &'a [u8], special: &[u8]) -> Result<Cow<'a, str>, LineFault> {
    let text = str::from_utf8(raw).map_err(|_| LineFault::Utf8)?;
    if memchr::memchr(b'\\', raw).is_none() {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let escaped = |next: &char| u8::try_from(*next).is_ok_and(|byte| special.contains(&byte));
        out.push(if c == '\\' { chars.next_if(escaped).unwrap_or(c) } else { c });
    }
    Ok(Cow::Owned(out))
}

#[cfg(test)]
#[path = "parse/tests.rs"]
mod tests;
