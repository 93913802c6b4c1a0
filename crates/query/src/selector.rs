//! Selectors: `temperature{device=~"02.*", room!="lab"}`, as in Prometheus. Parsing is `promql-parser`'s affair; this
//! module decides what of an expression is a selector, bounds it, and holds series against it.

use std::str::FromStr;

use promql_parser::label::{MatchOp, Matcher as Parsed};
use promql_parser::parser::{Expr, VectorSelector, parse};
use tidelog_record::Series;

use crate::lengths;

/// Longest selector, in bytes. It also bounds what a regular expression in it can cost.
pub const SELECTOR_BYTES_MAX: usize = 4096;

/// Most selectors in one question.
pub const SELECTORS_MAX: usize = 32;

const METRIC_LABEL: &str = "__name__";

/// Why a text is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// Longer than [`SELECTOR_BYTES_MAX`].
    #[error("a selector of {bytes} bytes, the most is {SELECTOR_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// More than [`SELECTORS_MAX`] of them.
    #[error("{count} selectors, the most is {SELECTORS_MAX}")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// Not PromQL.
    #[error("{0}")]
    Syntax(String),
    /// PromQL, but more than the name of some series.
    #[error("expected a selector such as temperature{{room=\"lab\"}}, without {0}")]
    NotASelector(&'static str),
}

/// Which series are meant: all conditions of at least one alternative hold.
#[derive(Debug, Clone)]
pub struct Selector {
    alternatives: Vec<Vec<Condition>>,
}

/// How a condition compares a label's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Like,
    /// `!~`
    Unlike,
}

/// A condition on one label.
#[derive(Debug, Clone)]
pub struct Condition {
    label: String,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    Equal(String),
    NotEqual(String),
    Like(regex::Regex),
    Unlike(regex::Regex),
}

impl From<&Parsed> for Condition {
    fn from(parsed: &Parsed) -> Self {
        let test = match &parsed.op {
            MatchOp::Equal => Test::Equal(parsed.value.clone()),
            MatchOp::NotEqual => Test::NotEqual(parsed.value.clone()),
            MatchOp::Re(regex) => Test::Like(regex.clone()),
            MatchOp::NotRe(regex) => Test::Unlike(regex.clone()),
        };
        Self { label: parsed.name.clone(), test }
    }
}

/// What the parser puts around a regular expression, which is anchored.
const ANCHORS: (&str, &str) = ("^(?:", ")$");

fn without_anchors(regex: &regex::Regex) -> &str {
    let text = regex.as_str();
    text.strip_prefix(ANCHORS.0).and_then(|text| text.strip_suffix(ANCHORS.1)).unwrap_or(text)
}

impl Condition {
    /// The label; `__name__` is the metric.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// How its value is compared.
    #[must_use]
    pub fn comparison(&self) -> Comparison {
        match &self.test {
            Test::Equal(_) => Comparison::Equal,
            Test::NotEqual(_) => Comparison::NotEqual,
            Test::Like(_) => Comparison::Like,
            Test::Unlike(_) => Comparison::Unlike,
        }
    }

    /// What with: a text, or a regular expression that means the whole value.
    #[must_use]
    pub fn value(&self) -> &str {
        match &self.test {
            Test::Equal(text) | Test::NotEqual(text) => text,
            Test::Like(regex) | Test::Unlike(regex) => without_anchors(regex),
        }
    }

    /// A label that a series lacks has the empty value, as in Prometheus.
    fn holds(&self, series: &Series) -> bool {
        let value = series.label(&self.label).unwrap_or_default();
        match &self.test {
            Test::Equal(text) => value == text,
            Test::NotEqual(text) => value != text,
            Test::Like(regex) => regex.is_match(value),
            Test::Unlike(regex) => !regex.is_match(value),
        }
    }
}

impl Selector {
    /// Sets of conditions: a series is meant if it meets all of at least one set.
    #[must_use]
    pub fn alternatives(&self) -> &[Vec<Condition>] {
        &self.alternatives
    }

    /// Whether the series is meant.
    #[must_use]
    pub fn matches(&self, series: &Series) -> bool {
        self.alternatives.iter().any(|all| all.iter().all(|condition| condition.holds(series)))
    }
}

impl From<&VectorSelector> for Selector {
    /// The series that an expression's selector names; offset and `@` are not of them.
    fn from(selector: &VectorSelector) -> Self {
        let name = selector
            .name
            .as_ref()
            .map(|name| Condition { label: METRIC_LABEL.to_owned(), test: Test::Equal(name.clone()) });
        let with_name = |parsed: &Vec<Parsed>| -> Vec<Condition> {
            name.iter().cloned().chain(parsed.iter().map(Condition::from)).collect()
        };
        let mut alternatives: Vec<_> = selector.matchers.or_matchers.iter().map(with_name).collect();
        if alternatives.is_empty() {
            alternatives.push(with_name(&selector.matchers.matchers));
        }
        Self { alternatives }
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        if text.len() > SELECTOR_BYTES_MAX {
            return Err(SelectorError::TooLong { bytes: text.len() });
        }
        lengths::check(text).map_err(|error| SelectorError::Syntax(error.to_string()))?;
        let mut expression = parse(text).map_err(SelectorError::Syntax)?;
        while let Expr::Paren(inner) = expression {
            expression = *inner.expr;
        }
        let selector = match expression {
            Expr::VectorSelector(selector) => selector,
            Expr::MatrixSelector(_) => return Err(SelectorError::NotASelector("a range")),
            _ => return Err(SelectorError::NotASelector("operators, functions and numbers")),
        };
        if selector.offset.is_some() || selector.at.is_some() {
            return Err(SelectorError::NotASelector("offset and @: give start and end instead"));
        }
        Ok(Self::from(&selector))
    }
}

/// Several selectors: a series is meant if one of them means it. None at all means every series.
#[derive(Debug, Clone, Default)]
pub struct Selectors(Vec<Selector>);

impl Selectors {
    /// Parses each.
    ///
    /// # Errors
    /// [`SelectorError`] of the first that is bad.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Self, SelectorError> {
        if texts.len() > SELECTORS_MAX {
            return Err(SelectorError::TooMany { count: texts.len() });
        }
        texts.iter().map(|text| text.as_ref().parse()).collect::<Result<_, _>>().map(Self)
    }

    /// Sets of conditions: a series is meant if it meets all of at least one set. Where no selector was given, there is one set
    /// without conditions.
    #[must_use]
    pub fn alternatives(&self) -> Vec<&[Condition]> {
        if self.0.is_empty() {
            return vec![&[]];
        }
        self.0.iter().flat_map(|selector| selector.alternatives()).map(Vec::as_slice).collect()
    }

    /// Whether the series is meant.
    #[must_use]
    pub fn matches(&self, series: &Series) -> bool {
        self.0.is_empty() || self.0.iter().any(|selector| selector.matches(series))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn series(metric: &str, labels: &[(&str, &str)]) -> Series {
        Series::new(metric, labels.iter().copied()).unwrap()
    }

    #[test]
    fn all_four_matchers_mean_what_they_mean_in_prometheus() {
        let lab = series("temp", &[("room", "lab"), ("floor", "1")]);
        let cases = [
            ("temp", true),
            ("hum", false),
            (r#"{__name__="temp"}"#, true),
            (r#"{__name__=~"te.*"}"#, true),
            (r#"{__name__=~"te"}"#, false),
            (r#"temp{room="lab"}"#, true),
            (r#"temp{room!="lab"}"#, false),
            (r#"temp{room=~"l.b|x"}"#, true),
            (r#"temp{room=~"l"}"#, false),
            (r#"temp{room!~"l"}"#, true),
            (r#"temp{room!~"l.*"}"#, false),
            (r#"temp{absent=""}"#, true),
            (r#"temp{absent!=""}"#, false),
            (r#"temp{absent=~".*"}"#, true),
            (r#"temp{absent!~".+"}"#, true),
            (r#"temp{room="lab",floor="2"}"#, false),
            (r#"temp{room="x" or floor="1"}"#, true),
            (r#"(temp{room="lab"})"#, true),
            (r#"temp{room="la\u0062"}"#, true),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Selector>().unwrap().matches(&lab), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused_with_the_reason() {
        for text in ["", "{}", "temp{", "temp{room=~\"(\"}", "temp{room=lab}", r#"{room=~".*"}"#, "\u{0}"] {
            assert!(matches!(text.parse::<Selector>(), Err(SelectorError::Syntax(_))), "{text}");
        }
        for text in ["temp[5m]", "temp offset 5m", "temp @ 5", "rate(temp[5m])", "1", "temp + temp", "-temp"]
        {
            assert!(matches!(text.parse::<Selector>(), Err(SelectorError::NotASelector(_))), "{text}");
        }
        let long = format!("temp{{room=\"{}\"}}", "x".repeat(SELECTOR_BYTES_MAX));
        assert!(matches!(long.parse::<Selector>(), Err(SelectorError::TooLong { .. })));
        let many = vec!["temp"; SELECTORS_MAX + 1];
        assert_eq!(Selectors::parse(&many).unwrap_err(), SelectorError::TooMany { count: SELECTORS_MAX + 1 });
    }

    #[test]
    fn the_conditions_of_a_selector_are_told_as_they_were_written() {
        let selectors = Selectors::parse(&[r#"t{a="1",b!="2",c=~"x{3}|y",d!~"z{" or e=~""}"#]).unwrap();
        let told = |condition: &Condition| {
            (condition.label().to_owned(), condition.comparison(), condition.value().to_owned())
        };
        let told: Vec<Vec<_>> =
            selectors.alternatives().into_iter().map(|all| all.iter().map(told).collect()).collect();
        let condition =
            |label: &str, comparison, value: &str| (label.to_owned(), comparison, value.to_owned());
        use Comparison::{Equal, Like, NotEqual, Unlike};
        let first = vec![
            condition("__name__", Equal, "t"),
            condition("a", Equal, "1"),
            condition("b", NotEqual, "2"),
            condition("c", Like, "x{3}|y"),
            condition("d", Unlike, "z\\{"),
        ];
        assert_eq!(told, vec![first, vec![condition("__name__", Equal, "t"), condition("e", Like, "")]]);
        let none: [&str; 0] = [];
        assert_eq!(Selectors::parse(&none).unwrap().alternatives().len(), 1);
    }

    #[test]
    fn no_selector_means_every_series_and_several_mean_their_union() {
        let (a, b, c) = (series("a", &[]), series("b", &[]), series("c", &[]));
        let none: [&str; 0] = [];
        assert!(Selectors::parse(&none).unwrap().matches(&a));
        let two = Selectors::parse(&["a", "b"]).unwrap();
        assert!(two.matches(&a) && two.matches(&b) && !two.matches(&c));
    }

    /// The naive meaning of a condition: regular expressions are only alternatives of plain words here.
    fn naive(value: &str, op: &str, words: &[String]) -> bool {
        match op {
            "=" => value == words.join("|"),
            "!=" => value != words.join("|"),
            "=~" => words.iter().any(|word| word == value),
            _ => !words.iter().any(|word| word == value),
        }
    }

    proptest! {
        #[test]
        fn a_selector_finds_what_a_naive_reading_of_it_finds(
            metric in "[ab]", labels in prop::collection::btree_map("[xyz]", "[a-c]{1,2}", 0..3),
            name in prop::option::of("[ab]"),
            conditions in prop::collection::vec(
                ("[xyz]", prop_oneof![Just("="), Just("!="), Just("=~"), Just("!~")],
                 prop::collection::vec("[a-c]{1,2}", 1..3)), 0..4),
        ) {
            let series = Series::new(metric.clone(), labels.clone()).unwrap();
            let parts: Vec<_> =
                conditions.iter().map(|(label, op, words)| format!("{label}{op}\"{}\"", words.join("|"))).collect();
            let text = format!("{}{{{}}}", name.clone().unwrap_or_default(), parts.join(","));
            let expected = name.as_ref().is_none_or(|name| *name == metric)
                && conditions.iter().all(|(label, op, words)| {
                    naive(labels.get(label).map_or("", String::as_str), op, words)
                });
            match text.parse::<Selector>() {
                Ok(selector) => prop_assert_eq!(selector.matches(&series), expected, "{}", text),
                // Prometheus refuses a selector all of whose conditions an empty value meets.
                Err(error) => prop_assert!(
                    name.is_none() && conditions.iter().all(|(_, op, words)| naive("", op, words)), "{text}: {error}"
                ),
            }
        }

        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,60}", inner in "[a-z{}()\\[\\]=~!\",0-9@ ]{0,40}") {
            drop(text.parse::<Selector>());
            drop(inner.parse::<Selector>());
        }
    }
}
