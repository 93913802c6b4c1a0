//! What there is to ask about: series, names of labels, their values, metrics, and which API this is.
//!
//! Thin: the store keeps no times by series yet, so `start` and `end` are read but do not narrow the answer; and no
//! types, helps or units of metrics are known.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Arc;

use axum::Json;
use axum::extract::{RawPathParams, Request, State};
use serde_json::{Map, Value, json};
use tidelog_query::promql::{Labels, METRIC_LABEL, QueryError};
use tidelog_record::{Series, SiteName};
use tidelog_store::Store;

use super::super::Api;
use super::form::Form;
use super::refusal::{Kind, Refusal};
use super::source::given;
use crate::asking::{self, Alternatives};
use crate::context::NodeContext;

/// The version of Prometheus whose API this is; Grafana decides by it what it asks.
const API_VERSION: &str = "2.42.0";

type Answered = Result<Json<Value>, Refusal>;

fn success(data: Value) -> Json<Value> {
    Json(json!({"status": "success", "data": data}))
}

/// Asks the store on a blocking thread.
async fn ask<T: Send + 'static>(
    context: NodeContext,
    form: Form,
    question: impl FnOnce(&Store, &SiteName, &Alternatives) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    form.instant("start")?;
    form.instant("end")?;
    let selectors = form.selectors()?.unwrap_or_default();
    let alternatives = asking::alternatives(selectors.alternatives())
        .map_err(|error| Refusal::parameter("match[]", error))?;
    let asked = tokio::task::spawn_blocking(move || question(&context.store, &form.site, &alternatives));
    asked.await.map_err(|error| Refusal::new(Kind::Internal, error.to_string()))?
}

fn unread(error: impl Display) -> Refusal {
    Refusal::from(QueryError::Source(error.to_string()))
}

pub(super) async fn series(State(api): State<Api>, path: RawPathParams, request: Request) -> Answered {
    let context = api.running()?.clone();
    let form = Form::read(&api, &context, &path, request).await?;
    if form.selectors()?.is_none() {
        return Err(Refusal::new(Kind::BadData, "no match[] parameter provided"));
    }
    let (most, samples) = (api.limits.query.series_max, api.limits.query.samples_max);
    let found = ask(context, form, move |store, site, alternatives| {
        let mut found = asking::chosen(store, site, alternatives).map_err(unread)?;
        found.extend(given(store, site, alternatives, samples)?.into_keys().map(Arc::new));
        if found.len() as u64 > most {
            return Err(QueryError::Series { most }.into());
        }
        Ok(found.iter().map(|series| Labels::from(series.as_ref())).collect::<Vec<_>>())
    });
    let mut found = found.await?;
    found.sort();
    found.dedup();
    let object =
        |labels: &Labels| labels.iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
    Ok(success(found.iter().map(|labels| Value::Object(object(labels))).collect()))
}

pub(super) async fn labels(State(api): State<Api>, path: RawPathParams, request: Request) -> Answered {
    let context = api.running()?.clone();
    let form = Form::read(&api, &context, &path, request).await?;
    let most = api.limits.query.samples_max;
    let names = ask(context, form, move |store, site, alternatives| {
        let mut names = store.label_names(site, alternatives).map_err(unread)?;
        for series in given(store, site, alternatives, most)?.into_keys() {
            names.insert(METRIC_LABEL.to_owned());
            names.extend(series.labels().map(|(name, _)| name.to_owned()));
        }
        Ok(names)
    });
    Ok(success(json!(names.await?)))
}

/// The values of a label, also of what people said of devices.
fn of_label(
    store: &Store,
    site: &SiteName,
    label: &str,
    alternatives: &Alternatives,
    most: u64,
) -> Result<BTreeSet<String>, Refusal> {
    let mut values = store.label_values(site, label, alternatives).map_err(unread)?;
    let given = given(store, site, alternatives, most)?;
    values.extend(given.keys().filter_map(|series| series.label(label)).map(str::to_owned));
    Ok(values)
}

pub(super) async fn values(State(api): State<Api>, path: RawPathParams, request: Request) -> Answered {
    let context = api.running()?.clone();
    let form = Form::read(&api, &context, &path, request).await?;
    let label = form.label.clone();
    if label != METRIC_LABEL && Series::new("m", [(label.as_str(), "v")]).is_err() {
        return Err(Refusal::new(Kind::BadData, format!("invalid label name: {label:?}")));
    }
    let most = api.limits.query.samples_max;
    let values = ask(context, form, move |store, site, alternatives| {
        of_label(store, site, &label, alternatives, most)
    });
    Ok(success(json!(values.await?)))
}

pub(super) async fn metadata(State(api): State<Api>, path: RawPathParams, request: Request) -> Answered {
    let context = api.running()?.clone();
    let form = Form::read(&api, &context, &path, request).await?;
    let limit = match form.one("limit") {
        Some(text) => {
            text.parse::<usize>().map_err(|_| Refusal::new(Kind::BadData, "limit must be a number"))?
        }
        None => usize::MAX,
    };
    let only = form.one("metric").map(str::to_owned);
    let most = api.limits.query.samples_max;
    let metrics = ask(context, form, move |store, site, alternatives| {
        of_label(store, site, METRIC_LABEL, alternatives, most)
    });
    let metrics = metrics.await?.into_iter().filter(|metric| only.as_ref().is_none_or(|only| only == metric));
    let unknown = |metric| (metric, json!([{"type": "unknown", "help": "", "unit": ""}]));
    Ok(success(Value::Object(metrics.map(unknown).take(limit).collect::<Map<_, _>>())))
}

pub(super) async fn build(State(api): State<Api>) -> Json<Value> {
    success(json!({
        "version": API_VERSION,
        "revision": api.version,
        "branch": "",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
        "application": "tidelog",
    }))
}
