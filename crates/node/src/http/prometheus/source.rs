//! The store as a source of points for queries: one site's series, their numbers as floats.
//!
//! Integers become the nearest float, `true` is 1 and `false` is 0; a text is no number and is left out.

use std::ops::ControlFlow;

use tidelog_query::Selector;
use tidelog_query::promql::{Labels, QueryError, Source, Visit, Visited};
use tidelog_record::{SiteName, Value};

use crate::asking;
use crate::context::NodeContext;

pub(super) struct StoreSource<'a> {
    pub context: &'a NodeContext,
    pub site: &'a SiteName,
}

impl Source for StoreSource<'_> {
    fn select(&self, selector: &Selector, start_ns: i64, end_ns: i64, visit: &mut Visit) -> Visited {
        let (mut times, mut values) = (Vec::new(), Vec::new());
        let mut outcome = Ok(());
        let store = &self.context.store;
        let alternatives = asking::alternatives(selector.alternatives().iter().map(Vec::as_slice))
            .map_err(|error| QueryError::Source(error.to_string()))?;
        let series = asking::chosen(store, self.site, &alternatives)
            .map_err(|error| QueryError::Source(error.to_string()))?;
        let scanned = asking::each_points(store, self.site, &series, start_ns..=end_ns, |series, points| {
            self.context.metrics.points_out.inc_by(points.len() as u64);
            times.clear();
            values.clear();
            for (time, value) in &points {
                if let Some(value) = number(value) {
                    times.push(*time);
                    values.push(value);
                }
            }
            if times.is_empty() {
                return ControlFlow::Continue(());
            }
            match visit(Labels::from(series.as_ref()), &times, &values) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    outcome = Err(error);
                    ControlFlow::Break(())
                }
            }
        });
        scanned.map_err(|error| QueryError::Source(error.to_string()))?;
        outcome
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
