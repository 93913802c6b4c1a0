//! `GET /api/v1/sites/{site}/aggregate`: what is told of points by steps of time, for each series or for groups of series with
//! equal labels. Groups stand in a fixed order and sums are exact, so equal content gives equal bytes on every node (invariant 7).

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, Response};
use tidelog_query::parse_duration;
use tidelog_query::promql::METRIC_LABEL;
use tidelog_record::{Series, Value};
use tidelog_store::aggregate::{Aggregates, Function, Steps};

use super::Api;
use super::answer::AnswerForm;
use super::error::ApiError;
use super::guard::Visitor;
use super::question::{Question, bad};
use super::rows::{Group, Rows};
use super::stream::{PIECE_BYTES, Sender, bounded, stream, unanswered, unread};
use crate::asking;

/// Most labels to group by, and most functions.
const NAMES_MAX: usize = 32;

/// How points are aggregated.
#[derive(Debug)]
struct How {
    steps: Steps,
    functions: Vec<Function>,
    /// None leaves every series by itself; no label at all puts all series together.
    by: Option<Vec<String>>,
}

pub(super) async fn get_aggregate(
    State(api): State<Api>,
    visitor: Visitor,
    Path(site): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response<Body>, ApiError> {
    api.running()?;
    let query = query.unwrap_or_default();
    let question = Question::read(&visitor, &site, &query, &headers, &["start", "end", "step", "fn", "by"])?;
    let how = How::read(&question)?;
    let series_max = api.limits.query.series_max;
    let form = question.text_form(&headers)?;
    stream(&api, form.content_type(), move |sender| write(&question, form, &how, series_max, sender)).await
}

impl How {
    fn read(question: &Question) -> Result<Self, ApiError> {
        let steps = match question.one("step")? {
            Some(text) => {
                let step = parse_duration(text)
                    .map_err(|_| bad(format!("step {text:?}: not seconds, and not as in 5m")))?;
                if question.start.is_none() || question.end.is_none() {
                    return Err(bad("with step, start and end must be given"));
                }
                Steps::new(question.range(), step)
            }
            None => Steps::one(question.range()),
        };
        let steps = steps.map_err(|error| bad(format!("step: {error}")))?;
        let function = |name: &str| {
            Function::of_name(name).ok_or_else(|| {
                bad(format!("fn {name:?}: there are {}", Function::ALL.map(Function::name).join(", ")))
            })
        };
        let names = question.list("fn").unwrap_or_default();
        let functions: Vec<Function> = names.into_iter().map(function).collect::<Result<_, _>>()?;
        if functions.is_empty() {
            return Err(bad("fn is missing: say what to tell of the points, as in fn=mean,max"));
        }
        if (1..functions.len()).any(|at| functions.iter().take(at).any(|one| functions.get(at) == Some(one)))
        {
            return Err(bad("fn: a function stands twice"));
        }
        let label = |name: &str| {
            if name != METRIC_LABEL && Series::new("m", [(name, "v")]).is_err() {
                return Err(bad(format!("by {name:?}: not the name of a label")));
            }
            Ok(name.to_owned())
        };
        let by: Option<Vec<String>> =
            question.list("by").map(|names| names.into_iter().map(label).collect()).transpose()?;
        let by = by.map(|mut names| {
            names.sort_unstable();
            names.dedup();
            names
        });
        if by.as_ref().is_some_and(|names| names.len() > NAMES_MAX) {
            return Err(bad(format!("by: more than {NAMES_MAX} labels")));
        }
        Ok(Self { steps, functions, by })
    }

    /// Whether the one question is how many points there are.
    fn counts_all(&self, question: &Question) -> bool {
        self.functions == [Function::Count]
            && self.steps.count() == 1
            && self.by.as_ref().is_some_and(Vec::is_empty)
            && question.series.iter().any(Vec::is_empty)
    }

    /// The groups in the order of their labels' values, each with the series in it.
    fn groups(&self, series: Vec<Arc<Series>>) -> Vec<(Group, Vec<Arc<Series>>)> {
        let Some(by) = &self.by else {
            return series.into_iter().map(|one| (Group::Series(Arc::clone(&one)), vec![one])).collect();
        };
        let mut groups: BTreeMap<Vec<String>, Vec<Arc<Series>>> = BTreeMap::new();
        for one in series {
            let values = by.iter().map(|label| one.label(label).unwrap_or_default().to_owned()).collect();
            groups.entry(values).or_default().push(one);
        }
        let group = |values: Vec<String>| {
            // A label that a series lacks has the empty value, and is not shown.
            Group::Labels(by.iter().cloned().zip(values).filter(|(_, value)| !value.is_empty()).collect())
        };
        groups.into_iter().map(|(values, series)| (group(values), series)).collect()
    }
}

fn write(
    question: &Question,
    form: AnswerForm,
    how: &How,
    series_max: u64,
    sender: &Sender,
) -> io::Result<Vec<u8>> {
    let (site, store) = (&question.site, &sender.context.store);
    // Where nothing was said of a start, the one step has none to show.
    let shows_start = question.start.is_some();
    let mut rows = Rows::begin(form, site, &how.functions, shows_start);
    let mut tell = |head: &Group, aggregates: &Aggregates| {
        let written = rows.group(head, aggregates, PIECE_BYTES, |bytes| sender.send(bytes));
        if written.is_err() || sender.is_over() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    if how.counts_all(question)
        && let Some(count) = store.count(site, &question.range()).map_err(unread)?
    {
        let aggregates = Aggregates {
            starts: vec![how.steps.start_of(0)],
            columns: vec![vec![Some(Value::I64(i64::try_from(count).unwrap_or(i64::MAX)))]],
        };
        // Nothing follows, so whether its reader is gone is told by the end.
        if count > 0 && tell(&Group::Labels(Vec::new()), &aggregates).is_break() {
            return Ok(Vec::new());
        }
        return Ok(rows.end());
    }
    let series = asking::chosen(store, site, &question.series).map_err(unread)?;
    let series = bounded(series, series_max)?;
    if !sender.takes_series(series.len()) {
        return Ok(Vec::new());
    }
    let (heads, groups): (Vec<_>, Vec<_>) = how.groups(series).into_iter().unzip();
    store
        .aggregate(site, &groups, &how.steps, &how.functions, &|| sender.halts(), |at, aggregates| {
            heads.get(at).map_or(ControlFlow::Break(()), |head| tell(head, &aggregates))
        })
        .map_err(unanswered)?;
    Ok(rows.end())
}
