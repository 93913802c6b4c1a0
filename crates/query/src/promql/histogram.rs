//! Quantiles of classic histograms: series that count the observations up to the bound in their label `le`.

use std::collections::HashMap;

use promql_parser::parser::Call;

use super::column::{ABSENT, Column, Grid};
use super::error::QueryError;
use super::eval::Evaluator;
use super::labels::{Labels, METRIC_LABEL};

const BOUND_LABEL: &str = "le";

#[derive(Clone, Copy)]
struct Bucket {
    bound: f64,
    count: f64,
}

pub(super) fn quantile(eval: &Evaluator, call: &Call, grid: Grid) -> Result<Vec<Column>, QueryError> {
    let q = eval.scalar_arg(call, 0, grid)?;
    let columns = eval.vector_arg(call, 1, grid)?;
    let outside = [METRIC_LABEL.to_owned(), BOUND_LABEL.to_owned()];
    let mut places: HashMap<Labels, usize> = HashMap::new();
    let mut histograms: Vec<(Labels, Vec<(f64, &Column)>)> = Vec::new();
    for column in &columns {
        let Ok(bound) = column.labels.get(BOUND_LABEL).parse::<f64>() else { continue };
        let labels = column.labels.without(&outside);
        let at = *places.entry(labels.clone()).or_insert(histograms.len());
        if at == histograms.len() {
            histograms.push((labels, Vec::new()));
        }
        if let Some((_, buckets)) = histograms.get_mut(at) {
            buckets.push((bound, column));
        }
    }
    let mut found = Vec::new();
    let mut buckets = Vec::new();
    for (labels, members) in histograms {
        eval.budget.samples(grid.count())?;
        let mut values = vec![ABSENT; grid.count()];
        for (step, (out, q)) in values.iter_mut().zip(&q).enumerate() {
            eval.budget.work(members.len())?;
            buckets.clear();
            buckets.extend(
                members.iter().filter_map(|(bound, column)| {
                    column.at(step).map(|count| Bucket { bound: *bound, count })
                }),
            );
            if !buckets.is_empty() {
                *out = bucket_quantile(*q, &mut buckets);
            }
        }
        found.push(Column { labels, values });
    }
    found.retain(Column::any);
    Ok(found)
}

/// The value below which a share `q` of the observations lies, taken as evenly spread within each bucket.
fn bucket_quantile(q: f64, buckets: &mut Vec<Bucket>) -> f64 {
    if q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    buckets.sort_by(|a, b| a.bound.total_cmp(&b.bound));
    if buckets.last().is_none_or(|last| last.bound != f64::INFINITY) {
        return f64::NAN;
    }
    // Two series may spell one bound differently ("1" and "1.0"); together they are one bucket.
    buckets.dedup_by(|next, kept| {
        let same = next.bound == kept.bound;
        if same {
            kept.count += next.count;
        }
        same
    });
    // Counts that were not taken at the same moment may fall; what was counted below a bound is below the next.
    let mut most = f64::NEG_INFINITY;
    for bucket in buckets.iter_mut() {
        if bucket.count > most {
            most = bucket.count;
        } else if bucket.count < most {
            bucket.count = most;
        }
    }
    let [lower @ .., above] = buckets.as_slice() else { return f64::NAN };
    let Some(highest) = lower.last() else { return f64::NAN };
    if above.count == 0.0 {
        return f64::NAN;
    }
    let mut rank = q * above.count;
    // Not `< rank`: a rank that is no number lies in the highest bucket.
    let at =
        lower.partition_point(|bucket| bucket.count.partial_cmp(&rank).is_none_or(std::cmp::Ordering::is_lt));
    let Some(bucket) = lower.get(at) else { return highest.bound };
    let Some(before) = at.checked_sub(1).and_then(|at| lower.get(at)) else {
        return if bucket.bound <= 0.0 { bucket.bound } else { bucket.bound * (rank / bucket.count) };
    };
    rank -= before.count;
    before.bound + (bucket.bound - before.bound) * (rank / (bucket.count - before.count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantile(q: f64, buckets: &[(f64, f64)]) -> f64 {
        bucket_quantile(
            q,
            &mut buckets.iter().map(|(bound, count)| Bucket { bound: *bound, count: *count }).collect(),
        )
    }

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        let even = [(1.0, 10.0), (2.0, 20.0), (f64::INFINITY, 20.0)];
        assert_eq!(quantile(0.5, &even), 1.0);
        assert_eq!(quantile(0.75, &even), 1.5);
        assert_eq!(quantile(0.25, &even), 0.5);
        assert_eq!(quantile(1.0, &[(1.0, 1.0), (2.0, 1.0), (f64::INFINITY, 9.0)]), 2.0, "no bound above");
        assert_eq!(quantile(0.1, &[(-1.0, 5.0), (f64::INFINITY, 9.0)]), -1.0, "no bound below");
        assert_eq!(quantile(-1.0, &even), f64::NEG_INFINITY);
        assert_eq!(quantile(2.0, &even), f64::INFINITY);
    }

    #[test]
    fn what_is_no_histogram_has_no_quantile() {
        for buckets in [
            &[(1.0, 10.0)][..],
            &[(f64::INFINITY, 10.0)],
            &[(1.0, 0.0), (f64::INFINITY, 0.0)],
            &[(1.0, 10.0), (2.0, 10.0)],
        ] {
            assert!(quantile(0.5, buckets).is_nan(), "{buckets:?}");
        }
    }

    #[test]
    fn counts_that_fall_are_held_and_bounds_of_one_value_are_one_bucket() {
        assert_eq!(quantile(0.5, &[(1.0, 10.0), (2.0, 5.0), (f64::INFINITY, 10.0)]), 0.5);
        assert_eq!(quantile(0.5, &[(1.0, 5.0), (1.0, 5.0), (f64::INFINITY, 10.0)]), 0.5);
    }
}
