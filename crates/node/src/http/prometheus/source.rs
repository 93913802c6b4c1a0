//! The store as a source of points for queries: one site's series, their numbers as floats.
//!
//! Integers become the nearest float, `true` is 1 and `false` is 0; a text is no number and is left out. What people said of devices is
//! seen as `device_info`, held from the moment it was said until the next.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use tidelog_query::Selector;
use tidelog_query::promql::{Labels, QueryError, STALE_BITS, Source, Standing, Visit, Visited};
use tidelog_record::{Series, SiteName, Value, Values};
use tidelog_store::catalogue::Matcher;
use tidelog_store::{Points, Store};

use crate::asking::{self, Alternatives, DEVICE_LABEL};
use crate::context::NodeContext;
use crate::device::{self, Said, Timelines};

pub(super) struct StoreSource<'a> {
    pub context: &'a NodeContext,
    pub site: &'a SiteName,
    /// Most points of one series that are held at once.
    pub samples_max: u64,
}

impl Source for StoreSource<'_> {
    fn select(&self, selector: &Selector, start_ns: i64, end_ns: i64, visit: &mut Visit) -> Visited {
        let store = &self.context.store;
        let alternatives = asking::alternatives(selector.alternatives().iter().map(Vec::as_slice))
            .map_err(|error| QueryError::Source(error.to_string()))?;
        let given = given(store, self.site, &alternatives, self.samples_max)?;
        let mut series = asking::chosen(store, self.site, &alternatives)
            .map_err(|error| QueryError::Source(error.to_string()))?;
        // Of a series that somebody writes too, what people said of the device is what is seen.
        series.retain(|series| !given.contains_key(series.as_ref()));
        for (series, changes) in &given {
            held(series, changes, (start_ns, end_ns), visit)?;
        }
        let mut numbers = Numbers { series: None, times: Vec::new(), values: Vec::new() };
        let mut outcome = Ok(());
        let scanned = asking::each_points(store, self.site, &series, start_ns..=end_ns, |series, points| {
            self.context.metrics.points_out.inc_by(points.len() as u64);
            outcome = numbers.of(series, visit).and_then(|()| numbers.add(points, self.samples_max));
            if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        scanned.map_err(|error| QueryError::Source(error.to_string()))?;
        outcome?;
        numbers.end(visit)
    }
}

/// The timelines of `device_info` that are meant; nothing is read where none can be.
pub(super) fn given(
    store: &Store,
    site: &SiteName,
    alternatives: &Alternatives,
    most: u64,
) -> Result<Timelines, QueryError> {
    let could = device::could_mean(alternatives);
    if could.is_empty() {
        return Ok(Timelines::new());
    }
    // What is asked of the device itself need not be read of others.
    let of_device = |all: &Vec<Matcher>| all.iter().filter(|it| it.name() == DEVICE_LABEL).cloned().collect();
    let (mut all, mut count) = (BTreeMap::<String, Vec<Said>>::new(), 0);
    let read = device::said(store, site, could.iter().map(of_device).collect(), |device, _, said| {
        count += 1;
        if count > most {
            return ControlFlow::Break(());
        }
        match all.get_mut(device) {
            Some(of_device) => of_device.push(said),
            None => drop(all.insert(device.to_owned(), vec![said])),
        }
        ControlFlow::Continue(())
    });
    read.map_err(|error| QueryError::Source(error.to_string()))?;
    if count > most {
        return Err(QueryError::Samples { most });
    }
    let mut timelines = device::timelines(all);
    timelines.retain(|series, _| could.iter().any(|all| all.iter().all(|matcher| matcher.holds(series))));
    Ok(timelines)
}

/// Visits a timeline as far as it is seen from the range: from what holds at its start on.
fn held(
    series: &Series,
    changes: &[(i64, bool)],
    (start_ns, end_ns): (i64, i64),
    visit: &mut Visit,
) -> Visited {
    let from = changes.partition_point(|(at, _)| *at <= start_ns).saturating_sub(1);
    let to = changes.partition_point(|(at, _)| *at <= end_ns);
    let seen = changes.get(from..to).unwrap_or_default();
    if seen.iter().all(|(_, holds)| !holds) {
        return Ok(());
    }
    let value = |(_, holds): &(i64, bool)| if *holds { 1.0 } else { f64::from_bits(STALE_BITS) };
    let (times, values): (Vec<i64>, Vec<f64>) = seen.iter().map(|change| (change.0, value(change))).unzip();
    visit(Labels::from(series), Standing::Held, &times, &values)
}

/// The numbers of one series: its points come in parts, and are visited together.
struct Numbers {
    series: Option<Arc<Series>>,
    times: Vec<i64>,
    values: Vec<f64>,
}

impl Numbers {
    /// What comes next is of `series`.
    fn of(&mut self, series: &Arc<Series>, visit: &mut Visit) -> Visited {
        if self.series.as_ref().is_some_and(|before| Arc::ptr_eq(before, series)) {
            return Ok(());
        }
        self.end(visit)?;
        self.series = Some(Arc::clone(series));
        Ok(())
    }

    fn add(&mut self, points: &Points, samples_max: u64) -> Visited {
        if (self.times.len() + points.len()) as u64 > samples_max {
            return Err(QueryError::Samples { most: samples_max });
        }
        match &points.values {
            Values::F64(values) => {
                self.times.extend_from_slice(&points.times);
                self.values.extend_from_slice(values);
            }
            values => {
                for (time, at) in points.times.iter().zip(0..) {
                    if let Some(value) = values.get(at).as_ref().and_then(number) {
                        self.times.push(*time);
                        self.values.push(value);
                    }
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, visit: &mut Visit) -> Visited {
        if let Some(series) = self.series.take().filter(|_| !self.times.is_empty()) {
            visit(Labels::from(series.as_ref()), Standing::Sampled, &self.times, &self.values)?;
        }
        self.times.clear();
        self.values.clear();
        Ok(())
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::F64(value) => Some(*value),
        Value::I64(value) => Some(*value as f64),
        Value::Bool(value) => Some(if *value { 1.0 } else { 0.0 }),
        Value::Text(_) => None,
    }
}
