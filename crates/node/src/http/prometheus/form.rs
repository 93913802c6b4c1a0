//! The parameters of a question: of the URL and, in a `POST`, of a form in the body. Also which site is asked.

use axum::extract::{RawPathParams, Request};
use axum::http::{HeaderMap, Method};
use tidelog_query::{Selectors, parse_instant};
use tidelog_record::SiteName;

use super::super::Api;
use super::super::error::ApiError;
use super::super::guard::Visitor;
use super::super::question::bad;
use super::super::write::collect;
use super::refusal::Refusal;
use crate::context::NodeContext;

const SITE_HEADER: &str = "x-tidelog-site";

const SECOND_NS: i64 = 1_000_000_000;
const MS_NS: i64 = 1_000_000;
const MS_A_SECOND: f64 = 1e3;

/// What was asked.
#[derive(Debug)]
pub(super) struct Form {
    pairs: Vec<(String, String)>,
    /// The part of the path that names a label.
    pub label: String,
    pub site: SiteName,
}

impl Form {
    pub async fn read(
        api: &Api,
        context: &NodeContext,
        path: &RawPathParams,
        request: Request,
    ) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        let visitor = Visitor::of(&parts.extensions)?;
        let mut pairs = Vec::new();
        if parts.method == Method::POST {
            let (body, _permit) = collect(api, &parts.headers, body).await?;
            pairs.extend(form_urlencoded::parse(&body).into_owned());
        }
        let query = parts.uri.query().unwrap_or_default();
        pairs.extend(form_urlencoded::parse(query.as_bytes()).into_owned());
        let of_path = |name| path.iter().find(|(n, _)| *n == name).map(|(_, value)| value.to_owned());
        let label = of_path("name").unwrap_or_default();
        let site = site_of(&visitor, context, path, &pairs, &parts.headers)?;
        Ok(Self { pairs, label, site })
    }

    /// A parameter's value; an empty one is none.
    pub fn one(&self, name: &str) -> Option<&str> {
        one(&self.pairs, name)
    }

    fn all(&self, name: &str) -> Vec<&str> {
        self.pairs.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect()
    }

    /// The `match[]` selectors; none given mean every series.
    pub fn selectors(&self) -> Result<Option<Selectors>, Refusal> {
        let texts = self.all("match[]");
        if texts.is_empty() {
            return Ok(None);
        }
        Selectors::parse(&texts).map(Some).map_err(|error| Refusal::parameter("match[]", error))
    }

    /// An instant in Unix nanoseconds: seconds are read to the millisecond, as Prometheus does.
    pub fn instant(&self, name: &str) -> Result<Option<i64>, Refusal> {
        let Some(text) = self.one(name) else { return Ok(None) };
        let bad = || Refusal::parameter(name, format!("cannot parse {text:?} to a valid timestamp"));
        match text.parse::<f64>() {
            Ok(seconds) => whole(seconds.trunc())
                .and_then(|whole| whole.checked_mul(SECOND_NS))
                .zip(whole((seconds.fract() * MS_A_SECOND).round()))
                .and_then(|(ns, ms)| ns.checked_add(ms * MS_NS)),
            Err(_) => parse_instant(text).ok(),
        }
        .map(Some)
        .ok_or_else(bad)
    }

    /// A length of time in nanoseconds: seconds, or as in `5m30s`.
    pub fn duration(&self, name: &str) -> Result<Option<i64>, Refusal> {
        let Some(text) = self.one(name) else { return Ok(None) };
        let bad = || Refusal::parameter(name, format!("cannot parse {text:?} to a valid duration"));
        tidelog_query::parse_duration(text).map(Some).map_err(|_| bad())
    }

    pub fn required<T>(&self, name: &str, value: Option<T>) -> Result<T, Refusal> {
        let text = self.one(name).unwrap_or_default();
        value.ok_or_else(|| {
            let what = if name == "step" { "duration" } else { "timestamp" };
            Refusal::parameter(name, format!("cannot parse {text:?} to a valid {what}"))
        })
    }
}

/// The site that a request means: that of its path, of its parameters, of its head, or else this node's own.
pub(in crate::http) fn site_of(
    visitor: &Visitor,
    context: &NodeContext,
    path: &RawPathParams,
    pairs: &[(String, String)],
    headers: &HeaderMap,
) -> Result<SiteName, ApiError> {
    let of_path = path.iter().find(|(name, _)| *name == "site").map(|(_, value)| value.to_owned());
    let named = of_path.or_else(|| one(pairs, "site").map(str::to_owned)).or(of_header(headers)?);
    named.map_or_else(|| visitor.admitted(&context.site), |name| visitor.site(&name))
}

fn one<'p>(pairs: &'p [(String, String)], name: &str) -> Option<&'p str> {
    let value = pairs.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
    value.filter(|value| !value.is_empty())
}

fn of_header(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let text = headers.get(SITE_HEADER).map(|value| value.to_str().map(str::to_owned)).transpose();
    text.map_err(|_| bad(format!("{SITE_HEADER} is no text")))
}

fn whole(value: f64) -> Option<i64> {
    // The first float that an i64 does not hold is 2^63.
    let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&value);
    #[allow(clippy::cast_possible_truncation, reason = "just checked")]
    fits.then_some(value as i64)
}
