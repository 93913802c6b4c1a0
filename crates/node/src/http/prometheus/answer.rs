//! An answer as JSON, to the character as Prometheus writes it, in pieces. Pure.

use tidelog_query::promql::{Answer, Labels, write_seconds, write_value};

/// The answer's reader went away.
#[derive(Debug)]
pub(super) struct Gone;

/// Writes the whole document; `full` is given the text whenever there is more of it than `piece_bytes`.
///
/// # Errors
/// [`Gone`] as soon as `full` says it.
pub(super) fn write(
    answer: &Answer,
    piece_bytes: usize,
    full: &mut dyn FnMut(String) -> Result<(), Gone>,
) -> Result<(), Gone> {
    let mut out = String::from("{\"status\":\"success\",\"data\":{\"resultType\":\"");
    let mut flush = |out: &mut String| {
        if out.len() < piece_bytes { Ok(()) } else { full(std::mem::take(out)) }
    };
    match answer {
        Answer::Scalar(at, value) => {
            out.push_str("scalar\",\"result\":");
            point(&mut out, *at, *value);
        }
        Answer::Text(at, text) => {
            out.push_str("string\",\"result\":[");
            write_seconds(&mut out, *at);
            out.push(',');
            quoted(&mut out, text);
            out.push(']');
        }
        Answer::Vector(at, found) => {
            out.push_str("vector\",\"result\":[");
            for (i, (labels, value)) in found.iter().enumerate() {
                metric(&mut out, i == 0, labels);
                out.push_str(",\"value\":");
                point(&mut out, *at, *value);
                out.push('}');
                flush(&mut out)?;
            }
            out.push(']');
        }
        Answer::Matrix(rows) => {
            out.push_str("matrix\",\"result\":[");
            for (i, row) in rows.iter().enumerate() {
                metric(&mut out, i == 0, &row.labels);
                out.push_str(",\"values\":[");
                for (i, (at, value)) in row.points().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    point(&mut out, at, value);
                    flush(&mut out)?;
                }
                out.push_str("]}");
            }
            out.push(']');
        }
    }
    out.push_str("}}");
    full(out)
}

fn metric(out: &mut String, first: bool, labels: &Labels) {
    out.push_str(if first { "{\"metric\":" } else { ",{\"metric\":" });
    object(out, labels);
}

fn point(out: &mut String, at: i64, value: f64) {
    out.push('[');
    write_seconds(out, at);
    out.push_str(",\"");
    write_value(out, value);
    out.push_str("\"]");
}

/// Labels as a JSON object.
fn object(out: &mut String, labels: &Labels) {
    out.push('{');
    for (i, (name, value)) in labels.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        quoted(out, name);
        out.push(':');
        quoted(out, value);
    }
    out.push('}');
}

fn quoted(out: &mut String, text: &str) {
    // A text always has JSON.
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(answer: &Answer) -> String {
        let mut whole = String::new();
        let pieces = write(answer, 16, &mut |piece| {
            whole.push_str(&piece);
            Ok(())
        });
        pieces.unwrap();
        whole
    }

    #[test]
    fn nothing_more_is_written_once_the_reader_went_away() {
        let labels = Labels::new([("__name__", "up")]);
        let many = Answer::Vector(0, vec![(labels, 1.0); 100]);
        let mut pieces = 0;
        let written = write(&many, 64, &mut |_| {
            pieces += 1;
            if pieces < 3 { Ok(()) } else { Err(Gone) }
        });
        assert!(written.is_err() && pieces == 3);
    }

    #[test]
    fn every_kind_of_answer_has_the_form_that_prometheus_gives_it() {
        let at = 1_435_781_451_781_000_000;
        let head = "{\"status\":\"success\",\"data\":{\"resultType\":";
        assert_eq!(
            document(&Answer::Scalar(at, f64::NAN)),
            format!("{head}\"scalar\",\"result\":[1435781451.781,\"NaN\"]}}}}")
        );
        assert_eq!(
            document(&Answer::Text(at, "a\"b".to_owned())),
            format!("{head}\"string\",\"result\":[1435781451.781,\"a\\\"b\"]}}}}")
        );
        let labels = Labels::new([("__name__", "up"), ("job", "x")]);
        assert_eq!(
            document(&Answer::Vector(0, vec![(labels, 1e21), (Labels::default(), 1.0)])),
            format!(
                "{head}\"vector\",\"result\":[{{\"metric\":{{\"__name__\":\"up\",\"job\":\"x\"}},\"value\":[0,\"1e+21\"]}},{{\"metric\":{{}},\"value\":[0,\"1\"]}}]}}}}"
            )
        );
        assert_eq!(document(&Answer::Matrix(Vec::new())), format!("{head}\"matrix\",\"result\":[]}}}}"));
    }
}
