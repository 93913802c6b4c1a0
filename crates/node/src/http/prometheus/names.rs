//! What there is to ask about: series, names of labels, their values, metrics, and which API this is.
//!
//! Thin: the store keeps no times by series yet, so `start` and `end` are read but do not narrow the answer; and no
//! types, helps or units of metrics are known.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::{RawPathParams, Request, State};
use serde_json::{Map, Value, json};
use tidelog_query::Selectors;
use tidelog_query::promql::{Labels, METRIC_LABEL, QueryError};
use tidelog_record::Series;

use super::super::Api;
use super::form::Form;
use super::refusal::{Kind, Refusal};
use crate::context::NodeContext;

/// The version of Prometheus whose API this is; Grafana decides by it what it asks.
const API_VERSION: &str = "2.42.0";

type Answered = Result<Json<Value>, Refusal>;

fn success(data: Value) -> Json<Value> {
    Json(json!({"status": "success", "data": data}))
}

/// Folds over the series that are meant, on a blocking thread.
async fn fold<T: Send + 'static>(
    context: NodeContext,
    form: Form,
    mut into: T,
    mut add: impl FnMut(&mut T, &Series) -> Result<(), Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    form.instant("start")?;
    form.instant("end")?;
    let selectors = form.selectors()?.unwrap_or_else(Selectors::default);
    let folded = tokio::task::spawn_blocking(move || {
        for series in context.store.series(&form.site, &|series| selectors.matches(series)) {
            add(&mut into, &series)?;
        }
        Ok(into)
    });
    folded.await.map_err(|error| Refusal::new(Kind::Internal, error.to_string()))?
}

pub(super) async fn series(State(api): State<Api>, path: RawPathParams, request: Request) -> Answered {
    let context = api.running()?.clone();
    let form = Form::read(&api, &context, &path, request).await?;
    if form.selectors()?.is_none() {
        return Err(Refusal::new(Kind::BadData, "no match[] parameter provided"));
    }
    let most = api.limits.query.series_max;
    let found = fold(context, form, Vec::new(), move |found: &mut Vec<Labels>, series| {
        if found.len() as u64 >= most {
            return Err(QueryError::Series { most }.into());
        }
        found.push(Labels::from(series));
        Ok(())
    });
    let mut found = found.await?;
    found.sort();
    let object =
        |labels: &Labels| labels.iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
    Ok(success(found.iter().map(|labels| Value::Object(object(labels))).collect()))
}

pub(super) async fn labels(State(api): State<Api>, path: RawPathParams, request: Request) -> Answered {
    let context = api.running()?.clone();
    let form = Form::read(&api, &context, &path, request).await?;
    let names = fold(context, form, BTreeSet::new(), |names: &mut BTreeSet<String>, series| {
        names.insert(METRIC_LABEL.to_owned());
        for (name, _) in series.labels() {
            if !names.contains(name) {
                names.insert(name.to_owned());
            }
        }
        Ok(())
    });
    Ok(success(json!(names.await?)))
}

pub(super) async fn values(State(api): State<Api>, path: RawPathParams, request: Request) -> Answered {
    let context = api.running()?.clone();
    let form = Form::read(&api, &context, &path, request).await?;
    let label = form.label.clone();
    if label != METRIC_LABEL && Series::new("m", [(label.as_str(), "v")]).is_err() {
        return Err(Refusal::new(Kind::BadData, format!("invalid label name: {label:?}")));
    }
    let values = fold(context, form, BTreeSet::new(), move |values: &mut BTreeSet<String>, series| {
        if let Some(value) = series.label(&label)
            && !values.contains(value)
        {
            values.insert(value.to_owned());
        }
        Ok(())
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
    let metrics =
        fold(context, form, BTreeMap::new(), move |metrics: &mut BTreeMap<String, Value>, series| {
            let wanted = only.as_deref().is_none_or(|only| only == series.metric());
            if wanted && !metrics.contains_key(series.metric()) {
                let unknown = json!([{"type": "unknown", "help": "", "unit": ""}]);
                metrics.insert(series.metric().to_owned(), unknown);
            }
            Ok(())
        });
    Ok(success(Value::Object(metrics.await?.into_iter().take(limit).collect::<Map<_, _>>())))
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
