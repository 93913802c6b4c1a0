//! Conditions on one label, as in Prometheus: a label that a series lacks has the empty value, and regular expressions are
//! anchored. This module also finds what values a regular expression can mean at all, so that few have to be looked at.

use regex_syntax::hir::literal::{ExtractKind, Extractor, Seq};
use tidelog_record::Series;

use super::order::METRIC_LABEL;

/// Longest regular expression, in bytes.
pub const REGEX_BYTES_MAX: usize = 4096;
/// Memory that one compiled regular expression may take, in bytes.
const REGEX_COMPILED_BYTES_MAX: usize = 1024 * 1024;

/// How a label's value is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatchOp {
    /// The value is this.
    Equal,
    /// The value is another.
    NotEqual,
    /// The whole value is what the regular expression describes.
    Regex,
    /// It is not.
    NotRegex,
}

/// Why a text is no regular expression here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatcherError {
    /// Too long.
    #[error("a regular expression of {bytes} bytes, the most is {REGEX_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not one, or one that compiles to more than is allowed.
    #[error("{0}")]
    Regex(String),
}

/// A condition on one label.
#[derive(Clone, Debug)]
pub struct Matcher {
    name: String,
    op: MatchOp,
    value: String,
    regex: Option<regex::Regex>,
    possible: Possible,
}

/// Which values a regular expression can mean.
#[derive(Clone, Debug)]
pub(super) enum Possible {
    /// Some of these only.
    These(Vec<String>),
    /// Only some that begin with one of these.
    Beginning(Vec<String>),
    Any,
}

impl Matcher {
    /// A condition; `__name__` is the metric.
    ///
    /// # Errors
    /// [`MatcherError`] for a regular expression that is none.
    pub fn new(name: impl Into<String>, op: MatchOp, value: impl Into<String>) -> Result<Self, MatcherError> {
        let (name, value) = (name.into(), value.into());
        let (regex, possible) = match op {
            MatchOp::Equal | MatchOp::NotEqual => (None, Possible::These(vec![value.clone()])),
            MatchOp::Regex | MatchOp::NotRegex if value.len() > REGEX_BYTES_MAX => {
                return Err(MatcherError::TooLong { bytes: value.len() });
            }
            MatchOp::Regex | MatchOp::NotRegex => {
                let anchored = format!("^(?:{value})$");
                let regex = regex::RegexBuilder::new(&anchored)
                    .size_limit(REGEX_COMPILED_BYTES_MAX)
                    .build()
                    .map_err(|error| MatcherError::Regex(error.to_string()))?;
                (Some(regex), possible(&value))
            }
        };
        Ok(Self { name, op, value, regex, possible })
    }

    /// The metric is this.
    #[must_use]
    pub fn metric(metric: &str) -> Self {
        Self {
            name: METRIC_LABEL.to_owned(),
            op: MatchOp::Equal,
            value: metric.to_owned(),
            regex: None,
            possible: Possible::These(vec![metric.to_owned()]),
        }
    }

    /// The label.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it is compared.
    #[must_use]
    pub fn op(&self) -> MatchOp {
        self.op
    }

    /// What with.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether a value meets it.
    #[must_use]
    pub fn holds_for(&self, value: &str) -> bool {
        self.like(value) != self.is_negative()
    }

    pub(super) fn is_negative(&self) -> bool {
        matches!(self.op, MatchOp::NotEqual | MatchOp::NotRegex)
    }

    /// Whether a series meets it.
    #[must_use]
    pub fn holds(&self, series: &Series) -> bool {
        self.holds_for(series.label(&self.name).unwrap_or_default())
    }

    /// Whether the value is what an equal or a regular expression would mean, whichever sign it stands under.
    pub(super) fn like(&self, value: &str) -> bool {
        self.regex.as_ref().map_or(self.value == value, |regex| regex.is_match(value))
    }

    pub(super) fn possible(&self) -> &Possible {
        &self.possible
    }
}

/// Anchors and boundaries only take values away, so what is extracted without them is enough.
fn possible(pattern: &str) -> Possible {
    let Ok(hir) = regex_syntax::parse(pattern) else { return Possible::Any };
    let mut extractor = Extractor::new();
    extractor.kind(ExtractKind::Prefix);
    let found: Seq = extractor.extract(&hir);
    let Some(literals) = found.literals() else { return Possible::Any };
    let exact = literals.iter().all(regex_syntax::hir::literal::Literal::is_exact);
    let texts: Option<Vec<String>> =
        literals.iter().map(|l| std::str::from_utf8(l.as_bytes()).ok().map(str::to_owned)).collect();
    match texts {
        Some(texts) if exact => Possible::These(texts),
        Some(texts) if texts.iter().all(|text| !text.is_empty()) => Possible::Beginning(texts),
        _ => Possible::Any,
    }
}

/// Whether a series meets all.
pub(super) fn all_hold(matchers: &[Matcher], series: &Series) -> bool {
    matchers.iter().all(|matcher| matcher.holds(series))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matcher(op: MatchOp, value: &str) -> Matcher {
        Matcher::new("room", op, value).unwrap()
    }

    #[test]
    fn an_absent_label_is_an_empty_one_and_expressions_are_anchored() {
        use MatchOp::*;
        let none: [(&str, &str); 0] = [];
        let (lab, bare) = (Series::new("t", [("room", "lab")]).unwrap(), Series::new("t", none).unwrap());
        let cases = [
            (Equal, "lab", true, false),
            (Equal, "", false, true),
            (NotEqual, "lab", false, true),
            (NotEqual, "", true, false),
            (Regex, "la", false, false),
            (Regex, "l.*|", true, true),
            (Regex, "lab|x", true, false),
            (NotRegex, ".+", false, true),
            (NotRegex, "la", true, true),
        ];
        for (op, value, on_lab, on_bare) in cases {
            let matcher = matcher(op, value);
            assert_eq!((matcher.holds(&lab), matcher.holds(&bare)), (on_lab, on_bare), "{op:?} {value}");
        }
        assert!(Matcher::metric("t").holds(&bare));
        assert!(matches!(Matcher::new("a", Regex, "("), Err(MatcherError::Regex(_))));
        assert!(matches!(Matcher::new("a", Regex, "(a{900}){900}"), Err(MatcherError::Regex(_))));
        let long = "x".repeat(REGEX_BYTES_MAX + 1);
        assert!(matches!(Matcher::new("a", NotRegex, long), Err(MatcherError::TooLong { .. })));
    }

    #[test]
    fn words_and_beginnings_are_found_in_expressions() {
        let these = |pattern| match possible(pattern) {
            Possible::These(texts) => texts,
            other => panic!("{pattern}: {other:?}"),
        };
        assert_eq!(these("a|bc"), ["a", "bc"]);
        assert_eq!(these("^a[bc]$"), ["ab", "ac"]);
        assert!(matches!(possible("9e3779.*"), Possible::Beginning(texts) if texts == ["9e3779"]));
        assert!(matches!(possible("02.*"), Possible::Beginning(texts) if texts == ["02"]));
        assert!(matches!(possible(".*"), Possible::Any));
    }

    proptest! {
        #[test]
        fn what_an_expression_means_is_among_what_is_possible(
            parts in prop::collection::vec(
                prop::sample::select(vec!["a", "b", "x", ".", "*", "+", "?", "|", "(", ")", "^", "$", "[ab]", "\\b", "(?i)"]), 0..8),
            value in "[abxX]{0,4}",
        ) {
            if let Ok(matcher) = Matcher::new("l", MatchOp::Regex, parts.concat()) && matcher.like(&value) {
                match matcher.possible() {
                    Possible::These(texts) => prop_assert!(texts.contains(&value)),
                    Possible::Beginning(texts) => prop_assert!(texts.iter().any(|text| value.starts_with(text))),
                    Possible::Any => {}
                }
            }
        }
    }
}
