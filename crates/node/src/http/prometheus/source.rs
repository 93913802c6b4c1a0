//! The store as a source of points for queries: one site's series, their numbers as floats.
//!
//! Integers become the nearest float, `true` is 1 and `false` is 0; a text is no number and is left out.

use std::ops::ControlFlow;
use std::sync::Arc;

use tidelog_query::Selector;
use tidelog_query::promql::{Labels, QueryError, Source, Visit, Visited};
use tidelog_record::{Series, SiteName, Value, Values};
use tidelog_store::Points;

use crate::asking;
use crate::context::NodeContext;

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
        let series = asking::chosen(store, self.site, &alternatives)
            .map_err(|error| QueryError::Source(error.to_string()))?;
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
            visit(Labels::from(series.as_ref()), &self.times, &self.values)?;
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
