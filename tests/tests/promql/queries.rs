//! What both servers are asked: families of expressions of every kind, and some written one by one.

/// The instants and ranges at which each expression is asked.
pub const WHEN: [&str; 4] = [
    "time=1767229200",
    "time=1767228012.345",
    "start=1767225540&end=1767233100&step=97",
    "start=1767227400.5&end=1767229200.5&step=15",
];

/// Functions of numbers.
const MATHEMATICS: &[&str] = &[
    "abs", "ceil", "floor", "exp", "ln", "log2", "log10", "sqrt", "sin", "cos", "tan", "asin", "acos",
    "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "deg", "rad", "sgn", "round",
];

const DATES: &[&str] =
    &["minute", "hour", "day_of_week", "day_of_month", "day_of_year", "days_in_month", "month", "year"];

/// Functions of a range vector alone.
const RANGES: &[&str] = &[
    "rate",
    "increase",
    "irate",
    "delta",
    "idelta",
    "deriv",
    "changes",
    "resets",
    "avg_over_time",
    "sum_over_time",
    "min_over_time",
    "max_over_time",
    "count_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "last_over_time",
    "present_over_time",
    "absent_over_time",
];

const RANGE_OPERANDS: &[&str] = &[
    "http_requests_total[5m]",
    "temperature[7m13s]",
    "{__name__=~\"odd|mixed\"}[10m]",
    "noise[1h] offset 3m",
    "sum by (job) (rate(http_requests_total[2m]))[10m:1m]",
    "door_open[3m]",
    "nothing{room=\"lab\",device=~\"d.\"}[5m]",
    "drift[40m] @ 1767229000",
];

const AGGREGATIONS: &[&str] = &["sum", "avg", "min", "max", "count", "group", "stddev", "stdvar"];

const GROUPINGS: &[&str] =
    &["", " by (job)", " by (job, code)", " without (instance, method)", " by ()", " by (nosuch)"];

const ARITHMETIC: &[&str] = &["+", "-", "*", "/", "%", "^", "atan2"];

const COMPARISONS: &[&str] = &["==", "!=", ">", "<", ">=", "<="];

pub fn all() -> Vec<String> {
    let mut found = Vec::new();
    for function in MATHEMATICS {
        for operand in ["odd", "{__name__=~\"temperature|mixed\",case!=\"infs\"}", "exact * 0.1 - 2"] {
            found.push(format!("{function}({operand})"));
        }
    }
    for function in DATES {
        found.extend([
            format!("{function}()"),
            format!("{function}(dates)"),
            format!("{function}(vector(time()))"),
        ]);
    }
    for function in RANGES {
        found.extend(RANGE_OPERANDS.iter().map(|operand| format!("{function}({operand})")));
    }
    for aggregation in AGGREGATIONS {
        found.extend(GROUPINGS.iter().map(|by| format!("{aggregation}{by} (http_requests_total)")));
        found.extend([
            format!("{aggregation}(odd)"),
            format!("{aggregation} by (floor) (temperature)"),
            format!("{aggregation}(mixed)"),
            format!("{aggregation}(nothing)"),
        ]);
    }
    for operator in ARITHMETIC {
        found.extend([
            format!("exact {operator} 3"),
            format!("2.5 {operator} exact"),
            format!("7 {operator} 2"),
            format!("left {operator} on (a) group_left right"),
            format!("temperature {operator} humidity"),
            format!("odd {operator} odd"),
        ]);
    }
    for operator in COMPARISONS {
        found.extend([
            format!("temperature {operator} 20"),
            format!("20 {operator} temperature"),
            format!("temperature {operator} bool 20"),
            format!("20 {operator} bool temperature"),
            format!("1 {operator} bool 2"),
            format!("left {operator} on (a) group_left right"),
            format!("left {operator} bool on (a) group_left right"),
            format!("odd {operator} odd"),
            format!("odd {operator} bool 0"),
        ]);
    }
    found.extend(lines().map(str::to_owned));
    found
}

fn lines() -> impl Iterator<Item = &'static str> {
    include_str!("queries.txt")
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}
