//! What every question about points says: which series of which site, in what range of time, and in what form the answer is to
//! be. What only some questions say is handed on as text.

use std::ops::RangeInclusive;

use axum::http::{HeaderMap, header};
use tidelog_query::{Selectors, parse_instant};
use tidelog_record::SiteName;

use super::answer::AnswerForm;
use super::error::{ApiError, ErrorCode};
use super::guard::Visitor;
use super::sheet::{HAS_ARROW, SheetForm};
use crate::asking::{Alternatives, alternatives};

/// A parameter is bad.
pub(super) fn bad(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::BadParameter, message)
}

/// What is asked for.
#[derive(Debug)]
pub(super) struct Question {
    pub site: SiteName,
    pub series: Alternatives,
    pub start: Option<i64>,
    pub end: Option<i64>,
    pub form: SheetForm,
    /// The URL says so.
    names_form: bool,
    /// The parameters of this question alone, in the order of the URL.
    others: Vec<(String, String)>,
}

impl Question {
    /// Reads a URL; `others` are the names of parameters that this question knows besides `match`, `format` and, where the
    /// question is one about a range of time, `start` and `end`.
    pub fn read(
        visitor: &Visitor,
        site: &str,
        query: &str,
        headers: &HeaderMap,
        others: &[&str],
    ) -> Result<Self, ApiError> {
        let site = visitor.site(site)?;
        let (mut matches, mut start, mut end, mut format) = (Vec::new(), None, None, None);
        let mut kept = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let place = match name.as_ref() {
                "match" | "match[]" => {
                    matches.push(value);
                    continue;
                }
                name if others.contains(&name) && name != "start" && name != "end" => {
                    kept.push((name.to_owned(), value.into_owned()));
                    continue;
                }
                "start" if others.contains(&"start") => &mut start,
                "end" if others.contains(&"end") => &mut end,
                "format" => &mut format,
                _ => {
                    let known = ["match", "format"].iter().chain(others).copied().collect::<Vec<_>>();
                    return Err(bad(format!("unknown parameter {name:?}: there are {}", known.join(", "))));
                }
            };
            if place.replace(value).is_some() {
                return Err(bad(format!("parameter {name:?} stands twice")));
            }
        }
        let selectors = Selectors::parse(&matches).map_err(|error| bad(format!("match: {error}")))?;
        let series =
            alternatives(selectors.alternatives()).map_err(|error| bad(format!("match: {error}")))?;
        let instant = |name: &str, text: Option<std::borrow::Cow<'_, str>>| {
            let read =
                |text: &str| parse_instant(text).map_err(|error| bad(format!("{name} {text:?}: {error}")));
            text.map(|text| read(&text)).transpose()
        };
        let (start, end) = (instant("start", start)?, instant("end", end)?);
        let form = form_of(format.as_deref(), headers)?;
        let names_form = format.is_some();
        let question = Self { site, series, start, end, form, names_form, others: kept };
        if question.range().is_empty() {
            return Err(bad("start is after end"));
        }
        Ok(question)
    }

    /// The range asked for: all of time where nothing else is said.
    pub fn range(&self) -> RangeInclusive<i64> {
        self.start.unwrap_or(i64::MIN)..=self.end.unwrap_or(i64::MAX)
    }

    /// The form, where the answer is not one of points.
    ///
    /// # Errors
    /// It is one that only points have.
    pub fn text_form(&self, headers: &HeaderMap) -> Result<AnswerForm, ApiError> {
        if let SheetForm::Text(form) = self.form {
            return Ok(form);
        }
        // Whoever accepts several may accept one of these, too.
        let accept = headers.get(header::ACCEPT).filter(|_| !self.names_form);
        accept.and_then(|accept| AnswerForm::of_accept(accept.to_str().unwrap_or_default())).ok_or_else(
            || {
                let message = "msgpack and arrow are for points: this is told as json, ndjson or csv";
                ApiError::new(ErrorCode::NotAcceptable, message)
            },
        )
    }

    /// A parameter that may stand once.
    pub fn one(&self, name: &str) -> Result<Option<&str>, ApiError> {
        let mut values = self.others.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str());
        let value = values.next();
        if values.next().is_some() {
            return Err(bad(format!("parameter {name:?} stands twice")));
        }
        Ok(value)
    }

    /// A parameter that may stand often and have several values between commas; none if it does not stand at all.
    pub fn list(&self, name: &str) -> Option<Vec<&str>> {
        let values: Vec<&str> =
            self.others.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect();
        let split = values.iter().flat_map(|value| value.split(','));
        (!values.is_empty()).then(|| split.map(str::trim).filter(|value| !value.is_empty()).collect())
    }
}

fn form_of(format: Option<&str>, headers: &HeaderMap) -> Result<SheetForm, ApiError> {
    let form = match (format, headers.get(header::ACCEPT)) {
        (Some(name), _) => SheetForm::of_name(name)
            .ok_or_else(|| bad(format!("format {name:?}: there are json, ndjson, csv, msgpack and arrow")))?,
        (None, None) => SheetForm::Text(AnswerForm::Json),
        (None, Some(accept)) => {
            SheetForm::of_accept(accept.to_str().unwrap_or_default()).ok_or_else(|| {
                let mut message =
                    "answers are application/json, application/x-ndjson, text/csv, application/msgpack \
                                   and application/vnd.apache.arrow.stream"
                        .to_owned();
                if !HAS_ARROW {
                    message.push_str("; the last only of nodes of the cloud");
                }
                ApiError::new(ErrorCode::NotAcceptable, message)
            })?
        }
    };
    if form == SheetForm::Arrow && !HAS_ARROW {
        let message = "this program has no Arrow, which nodes of the cloud have; msgpack says the same";
        return Err(ApiError::new(ErrorCode::NotAcceptable, message));
    }
    Ok(form)
}
