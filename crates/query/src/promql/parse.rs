//! From text to an expression that can be evaluated. The grammar is `promql-parser`'s; what is here bounds the text,
//! bounds how deep it nests (evaluation walks it by recursion), and refuses what the parser knows of later versions of
//! the language, so that nothing is accepted and then misunderstood.

use std::str::FromStr;
use std::sync::Once;

use promql_parser::parser::token::{T_LIMIT_RATIO, T_LIMITK};
use promql_parser::parser::value::ValueType;
use promql_parser::parser::{
    BinaryExpr, Call, Expr, Function, VectorMatchCardinality, VectorMatchFillValues, parse,
    register_extra_functions,
};

use super::error::QueryError;
use crate::lengths;

/// Longest query, in bytes.
pub const QUERY_BYTES_MAX: usize = 16 * 1024;

/// Most levels of an expression within another.
pub const QUERY_DEPTH_MAX: usize = 128;

/// Functions of later versions, or of native histograms, that the parser knows and this engine does not.
const FUNCTIONS_MISSING: &[&str] = &[
    "double_exponential_smoothing",
    "end",
    "first_over_time",
    "histogram_avg",
    "histogram_count",
    "histogram_fraction",
    "histogram_quantiles",
    "histogram_stddev",
    "histogram_stdvar",
    "histogram_sum",
    "info",
    "integral",
    "mad_over_time",
    "max_of",
    "min_of",
    "range",
    "sort_by_label",
    "sort_by_label_desc",
    "start",
    "step",
    "ts_of_first_over_time",
    "ts_of_last_over_time",
    "ts_of_max_over_time",
    "ts_of_min_over_time",
];

/// A parsed query.
#[derive(Debug, Clone)]
pub struct Query {
    pub(super) expr: Expr,
}

impl Query {
    /// The type of its answer, as Prometheus names it in messages.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        kind_name(self.expr.value_type())
    }
}

pub(super) fn kind_name(kind: ValueType) -> &'static str {
    match kind {
        ValueType::Scalar => "scalar",
        ValueType::String => "string",
        ValueType::Vector => "instant vector",
        ValueType::Matrix => "range vector",
    }
}

impl FromStr for Query {
    type Err = QueryError;

    fn from_str(text: &str) -> Result<Self, QueryError> {
        if text.len() > QUERY_BYTES_MAX {
            let bytes = text.len();
            return Err(QueryError::Parse(format!(
                "a query of {bytes} bytes, the most is {QUERY_BYTES_MAX}"
            )));
        }
        lengths::check(text).map_err(|error| QueryError::Parse(format!("parse error: {error}")))?;
        register_2_42();
        let expr = parse(text).map_err(|error| QueryError::Parse(format!("parse error: {error}")))?;
        check(&expr)?;
        Ok(Self { expr })
    }
}

/// The parser follows a later version, in which this function bears another name.
fn register_2_42() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let types = vec![ValueType::Matrix, ValueType::Scalar, ValueType::Scalar];
        let holt_winters = Function::new("holt_winters", types, 0, ValueType::Vector, false);
        // It could only clash with a function of the parser's own, and then there is one.
        drop(register_extra_functions(vec![holt_winters]));
    });
}

fn check(expr: &Expr) -> Result<(), QueryError> {
    let mut waiting = vec![(expr, 1)];
    while let Some((expr, depth)) = waiting.pop() {
        if depth > QUERY_DEPTH_MAX {
            return Err(QueryError::Parse(format!("nested more than {QUERY_DEPTH_MAX} deep")));
        }
        let mut inner = |expr| waiting.push((expr, depth + 1));
        match expr {
            Expr::Aggregate(aggregate) => {
                if matches!(aggregate.op.id(), T_LIMITK | T_LIMIT_RATIO) {
                    return Err(unsupported(&aggregate.op.to_string()));
                }
                aggregate.param.iter().for_each(|param| inner(param));
                inner(&aggregate.expr);
            }
            Expr::Unary(unary) => inner(&unary.expr),
            Expr::Binary(binary) => {
                check_binary(binary)?;
                inner(&binary.lhs);
                inner(&binary.rhs);
            }
            Expr::Paren(paren) => inner(&paren.expr),
            Expr::Subquery(subquery) => inner(&subquery.expr),
            Expr::Call(call) => {
                check_call(call)?;
                call.args.args.iter().for_each(|arg| inner(arg));
            }
            Expr::NumberLiteral(_)
            | Expr::StringLiteral(_)
            | Expr::VectorSelector(_)
            | Expr::MatrixSelector(_) => {}
            Expr::Extension(extension) => return Err(unsupported(extension.expr.name())),
        }
    }
    Ok(())
}

fn unsupported(what: &str) -> QueryError {
    QueryError::Parse(format!(
        "parse error: {what} is not supported: the language is that of Prometheus 2.42"
    ))
}

fn check_binary(binary: &BinaryExpr) -> Result<(), QueryError> {
    let Some(modifier) = &binary.modifier else { return Ok(()) };
    if modifier.fill_values != VectorMatchFillValues::default() {
        return Err(unsupported("fill"));
    }
    let vectors = [&binary.lhs, &binary.rhs].iter().all(|side| side.value_type() == ValueType::Vector);
    let groups =
        matches!(modifier.card, VectorMatchCardinality::ManyToOne(_) | VectorMatchCardinality::OneToMany(_));
    if !vectors && (groups || modifier.matching.is_some()) {
        let message = "parse error: vector matching only allowed between instant vectors";
        return Err(QueryError::Parse(message.to_owned()));
    }
    Ok(())
}

fn check_call(call: &Call) -> Result<(), QueryError> {
    let name = call.func.name;
    if FUNCTIONS_MISSING.contains(&name) {
        return Err(QueryError::Parse(format!("parse error: unknown function with name {name:?}")));
    }
    let types = &call.func.arg_types;
    for (at, arg) in call.args.args.iter().enumerate() {
        let (found, Some(wanted)) = (arg.value_type(), types.get(at).or(types.last())) else { continue };
        if found != *wanted {
            return Err(QueryError::Parse(format!(
                "parse error: expected type {} in call to function {name:?}, got {}",
                kind_name(*wanted),
                kind_name(found)
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused(text: &str) -> String {
        match text.parse::<Query>() {
            Err(QueryError::Parse(message)) => message,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn what_later_versions_added_is_refused_and_not_misunderstood() {
        for text in [
            "limitk(1, a)",
            "a + fill(0) b",
            "mad_over_time(a[5m])",
            "sort_by_label(a, \"x\")",
            "first_over_time(a[5m])",
            "histogram_avg(a)",
        ] {
            assert!(
                refused(text).contains("not supported") || refused(text).contains("unknown function"),
                "{text}"
            );
        }
        assert!("holt_winters(a[5m], 0.5, 0.5)".parse::<Query>().is_ok());
    }

    #[test]
    fn types_are_checked_where_the_parser_looks_away() {
        assert!(refused("exp(NaN)").contains("expected type instant vector"));
        assert!(refused("ln(0)").contains("expected type instant vector"));
        assert!(refused("1 + on() a").contains("vector matching"));
    }

    #[test]
    fn long_and_deep_queries_are_refused_and_never_overflow_the_stack() {
        refused(&"x".repeat(QUERY_BYTES_MAX + 1));
        for (open, core, close) in [("(", "1", ")"), ("-", "a", ""), ("1+", "1", ""), ("abs(", "a", ")")] {
            let count = (QUERY_BYTES_MAX - 8) / (open.len() + close.len());
            refused(&format!("{}{core}{}", open.repeat(count), close.repeat(count)));
            let count = QUERY_DEPTH_MAX - 2;
            format!("{}{core}{}", open.repeat(count), close.repeat(count)).parse::<Query>().unwrap();
        }
    }

    #[test]
    fn lengths_of_time_beyond_all_measure_never_panic() {
        for length in [
            "1e30",
            "99999999999999999999",
            "NaN",
            "Inf",
            "-1",
            "-1e30",
            "1e400",
            "584y",
            "99999999999y",
            "0",
        ] {
            for text in [
                "a[X]",
                "a[5m:X]",
                "a[X:5m]",
                "a offset X",
                "a offset -X",
                "a @ X",
                "a @ -X",
                "X",
                "a[5m] offset X",
            ] {
                drop(text.replace('X', length).parse::<Query>());
            }
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(
            text in "\\PC{0,60}", inner in "[a-e0-9{}()\\[\\]=~!\",@: +*/^.-]{0,40}",
            words in prop::collection::vec(prop_oneof![
                Just("sum"), Just("by"), Just("("), Just(")"), Just("a"), Just("[5m]"), Just("["), Just(":"), Just("]"),
                Just("offset"), Just("@"), Just("1"), Just("1e400"), Just("-"), Just("rate("), Just("topk("), Just(","),
                Just("on("), Just("group_left"), Just("bool"), Just("=="), Just("\"x\""), Just("5m"), Just("0x"),
                Just("999999999999y"), Just("start()"), Just("unless"),
            ], 0..12),
        ) {
            drop(text.parse::<Query>());
            drop(inner.parse::<Query>());
            drop(words.join(" ").parse::<Query>());
        }
    }
}
