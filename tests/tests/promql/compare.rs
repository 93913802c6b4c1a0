//! Whether two answers are the same. Numbers agree to the last digit or, because mathematical libraries and the order of sums
//! differ, to twelve.

use std::collections::BTreeMap;

use serde_json::Value;

/// Greatest difference of two numbers that are taken as the same, as a part of the greater.
const RELATIVE_MAX: f64 = 1e-12;

/// Below this, a difference is that of rounding around zero.
const ABSOLUTE_MAX: f64 = 1e-12;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreement {
    Exact,
    Close,
    /// By both, with the same type of error.
    Refused,
}

/// # Errors
/// The first difference, for people.
pub fn compare(query: &str, theirs: &Value, ours: &Value) -> Result<Agreement, String> {
    if theirs["status"] != ours["status"] || theirs["errorType"] != ours["errorType"] {
        return Err(format!("theirs {}\n   ours   {}", brief(theirs), brief(ours)));
    }
    if theirs["status"] == "error" {
        let words = theirs["errorType"] != "execution" || theirs["error"] == ours["error"];
        // Which of several errors comes first is chance in Prometheus; what it says of one is not.
        let kind = |value: &Value| {
            value["error"].as_str().unwrap_or_default().split_once(':').map(|(kind, _)| kind.to_owned())
        };
        if !words && kind(theirs) != kind(ours) {
            return Err(format!("theirs {}\n   ours   {}", brief(theirs), brief(ours)));
        }
        return Ok(Agreement::Refused);
    }
    let (theirs, ours) = (&theirs["data"], &ours["data"]);
    if theirs["resultType"] != ours["resultType"] {
        return Err(format!("theirs is a {}, ours a {}", theirs["resultType"], ours["resultType"]));
    }
    let mut close = false;
    match theirs["resultType"].as_str().unwrap() {
        "scalar" | "string" => point(&theirs["result"], &ours["result"], &mut close)?,
        kind => {
            let (a, b) = (by_labels(&theirs["result"]), by_labels(&ours["result"]));
            if a.keys().ne(b.keys()) {
                let only = |a: &BTreeMap<String, &Value>, b: &BTreeMap<String, &Value>| {
                    a.keys().filter(|key| !b.contains_key(*key)).take(3).cloned().collect::<Vec<_>>()
                };
                return Err(format!(
                    "{} series and {}; only theirs {:?}, only ours {:?}",
                    a.len(),
                    b.len(),
                    only(&a, &b),
                    only(&b, &a)
                ));
            }
            for (labels, theirs) in &a {
                let ours = b[labels];
                let of_series = |difference| format!("{labels}: {difference}");
                if kind == "vector" {
                    point(&theirs["value"], &ours["value"], &mut close).map_err(of_series)?;
                    continue;
                }
                let (x, y) = (theirs["values"].as_array().unwrap(), ours["values"].as_array().unwrap());
                if x.len() != y.len() {
                    return Err(format!(
                        "{labels}: {} samples and {}: {} {}",
                        x.len(),
                        y.len(),
                        brief(theirs),
                        brief(ours)
                    ));
                }
                for (x, y) in x.iter().zip(y) {
                    point(x, y, &mut close).map_err(of_series)?;
                }
            }
            if kind == "vector" && ["sort", "topk", "bottomk"].iter().any(|name| query.starts_with(name)) {
                order(&theirs["result"], &ours["result"])?;
            }
        }
    }
    Ok(if close { Agreement::Close } else { Agreement::Exact })
}

fn brief(value: &Value) -> String {
    let text = value.to_string();
    text.chars().take(400).collect()
}

fn by_labels(result: &Value) -> BTreeMap<String, &Value> {
    result.as_array().unwrap().iter().map(|row| (row["metric"].to_string(), row)).collect()
}

/// The values stand in the same order.
fn order(theirs: &Value, ours: &Value) -> Result<(), String> {
    let values = |result: &Value| -> Vec<String> {
        result.as_array().unwrap().iter().map(|row| row["value"][1].to_string()).collect()
    };
    let (a, b) = (values(theirs), values(ours));
    if a == b { Ok(()) } else { Err(format!("in order theirs {a:?}, ours {b:?}")) }
}

fn point(theirs: &Value, ours: &Value, close: &mut bool) -> Result<(), String> {
    if theirs == ours {
        return Ok(());
    }
    let different = || format!("theirs {theirs}, ours {ours}");
    if theirs[0].as_f64() != ours[0].as_f64() {
        return Err(different());
    }
    let number = |value: &Value| value[1].as_str().and_then(|text| text.parse::<f64>().ok());
    let (Some(a), Some(b)) = (number(theirs), number(ours)) else { return Err(different()) };
    let most = (a.abs().max(b.abs()) * RELATIVE_MAX).max(ABSOLUTE_MAX);
    if a == b || (a - b).abs() <= most {
        *close = true;
        return Ok(());
    }
    Err(different())
}
