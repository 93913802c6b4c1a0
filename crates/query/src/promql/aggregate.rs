//! Aggregation operators: columns grouped by their labels, and the members of each group made one value a step.

use std::collections::HashMap;

use promql_parser::parser::token::{
    T_AVG, T_BOTTOMK, T_COUNT, T_COUNT_VALUES, T_GROUP, T_MAX, T_MIN, T_QUANTILE, T_STDDEV, T_STDVAR, T_SUM,
    T_TOPK, TokenId,
};
use promql_parser::parser::{AggregateExpr, LabelModifier};

use super::column::{ABSENT, Collector, Column, Grid, present};
use super::error::{QueryError, execution};
use super::eval::{Evaluator, text};
use super::labels::{Labels, METRIC_LABEL, is_label_name};
use super::number::plain;
use super::order::Best;
use super::over_time::{extreme, quantile_of, stays_infinite};

/// Which labels make a group.
struct Grouping {
    by: bool,
    names: Vec<String>,
}

impl Grouping {
    fn of(modifier: Option<&LabelModifier>) -> Self {
        match modifier {
            None => Self { by: true, names: Vec::new() },
            Some(LabelModifier::Include(names)) => Self { by: true, names: names.labels.clone() },
            Some(LabelModifier::Exclude(names)) => {
                let mut names = names.labels.clone();
                names.push(METRIC_LABEL.to_owned());
                Self { by: false, names }
            }
        }
    }

    fn key(&self, labels: &Labels) -> Labels {
        if self.by { labels.only(&self.names) } else { labels.without(&self.names) }
    }
}

struct Group {
    labels: Labels,
    members: Vec<usize>,
}

pub(super) fn eval(eval: &Evaluator, expr: &AggregateExpr, grid: Grid) -> Result<Vec<Column>, QueryError> {
    let grouping = Grouping::of(expr.modifier.as_ref());
    let op = expr.op.id();
    let missing = || execution(format!("{} needs a parameter", expr.op));
    let columns = match op {
        T_COUNT_VALUES => {
            let name = text(expr.param.as_deref().ok_or_else(missing)?)?;
            if !is_label_name(&name) {
                return Err(execution(format!("invalid label name {name:?}")));
            }
            return count_values(eval, &grouping, &name, eval.vector(&expr.expr, grid)?, grid);
        }
        T_TOPK | T_BOTTOMK | T_QUANTILE => {
            let parameter = eval.scalar(expr.param.as_deref().ok_or_else(missing)?, grid)?;
            let columns = eval.vector(&expr.expr, grid)?;
            if op != T_QUANTILE {
                return best(eval, &grouping, &parameter, op == T_TOPK, columns, grid);
            }
            let groups = grouped(&grouping, &columns);
            let q = |step: usize| parameter.get(step).copied().unwrap_or(f64::NAN);
            return folded(eval, &groups, &columns, grid, |step, values| {
                quantile_of(q(step), values.collect())
            });
        }
        _ => eval.vector(&expr.expr, grid)?,
    };
    let groups = grouped(&grouping, &columns);
    folded(eval, &groups, &columns, grid, |_, values| fold(op, values))
}

fn grouped(grouping: &Grouping, columns: &[Column]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut places: HashMap<Labels, usize> = HashMap::new();
    for (member, column) in columns.iter().enumerate() {
        let key = grouping.key(&column.labels);
        let at = *places.entry(key.clone()).or_insert(groups.len());
        if at == groups.len() {
            groups.push(Group { labels: key, members: Vec::new() });
        }
        if let Some(group) = groups.get_mut(at) {
            group.members.push(member);
        }
    }
    groups
}

/// One column a group.
fn folded(
    eval: &Evaluator,
    groups: &[Group],
    columns: &[Column],
    grid: Grid,
    fold: impl Fn(usize, &mut dyn Iterator<Item = f64>) -> Option<f64>,
) -> Result<Vec<Column>, QueryError> {
    let mut found = Vec::new();
    for group in groups {
        eval.budget.samples(grid.count())?;
        let members: Vec<&Column> = group.members.iter().filter_map(|at| columns.get(*at)).collect();
        let mut values = vec![ABSENT; grid.count()];
        for (step, out) in values.iter_mut().enumerate() {
            eval.budget.work(members.len())?;
            let mut of_step = members.iter().filter_map(|column| column.at(step)).peekable();
            if of_step.peek().is_some() {
                *out = fold(step, &mut of_step).unwrap_or(ABSENT);
            }
        }
        found.push(Column { labels: group.labels.clone(), values });
    }
    found.retain(Column::any);
    Ok(found)
}

/// The operators without a parameter, over the values of one group at one step.
fn fold(op: TokenId, values: &mut dyn Iterator<Item = f64>) -> Option<f64> {
    match op {
        T_SUM => values.reduce(|a, b| a + b),
        T_AVG => mean(values),
        T_COUNT => Some(values.count() as f64),
        T_GROUP => Some(1.0),
        T_MIN => extreme(values, |new, old| new < old),
        T_MAX => extreme(values, |new, old| new > old),
        T_STDVAR => variance(values),
        T_STDDEV => variance(values).map(f64::sqrt),
        _ => None,
    }
}

fn mean(values: &mut dyn Iterator<Item = f64>) -> Option<f64> {
    let mut mean = values.next()?;
    let mut count = 1.0;
    for value in values {
        count += 1.0;
        if !stays_infinite(mean, value) {
            // Both sides are divided, so that great values do not overflow.
            mean += value / count - mean / count;
        }
    }
    Some(mean)
}

fn variance(values: &mut dyn Iterator<Item = f64>) -> Option<f64> {
    let mut mean = values.next()?;
    let (mut count, mut squares) = (1.0, 0.0);
    for value in values {
        count += 1.0;
        let delta = value - mean;
        mean += delta / count;
        squares += delta * (value - mean);
    }
    Some(squares / count)
}

/// `topk` and `bottomk`: the members themselves, at the steps at which they are among the best of their group.
fn best(
    eval: &Evaluator,
    grouping: &Grouping,
    count: &[f64],
    greatest: bool,
    columns: Vec<Column>,
    grid: Grid,
) -> Result<Vec<Column>, QueryError> {
    let groups = grouped(grouping, &columns);
    eval.budget.samples(columns.len().saturating_mul(grid.count()))?;
    let mut chosen: Vec<Vec<f64>> = vec![vec![ABSENT; grid.count()]; columns.len()];
    let mut order = Vec::new();
    for group in &groups {
        for (step, count) in count.iter().enumerate() {
            eval.budget.work(group.members.len())?;
            let mut best = Best::new(whole(*count)?.min(group.members.len()), greatest);
            for member in &group.members {
                if let Some(value) = columns.get(*member).and_then(|column| column.at(step)) {
                    best.offer(value, *member);
                }
            }
            for (value, member) in best.finish() {
                if let Some(out) = chosen.get_mut(member).and_then(|values| values.get_mut(step)) {
                    *out = value;
                }
                if step == 0 {
                    order.push(member);
                }
            }
        }
    }
    let mut found: Vec<Option<Column>> =
        columns.into_iter().zip(chosen).map(|(old, values)| Some(Column { values, ..old })).collect();
    let first: Vec<Column> = order.iter().filter_map(|member| found.get_mut(*member)?.take()).collect();
    let mut found: Vec<Column> = first.into_iter().chain(found.into_iter().flatten()).collect();
    found.retain(Column::any);
    Ok(found)
}

/// How many are wanted.
fn whole(count: f64) -> Result<usize, QueryError> {
    // 2^63, the first that Go's int64 does not hold.
    if count.is_nan() || count.abs() >= 9_223_372_036_854_775_808.0 {
        return Err(execution(format!("Scalar value {} overflows int64", plain(count))));
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "towards zero, and it saturates"
    )]
    Ok(count as usize)
}

/// One series for each value that occurs, counting the members that have it.
fn count_values(
    eval: &Evaluator,
    grouping: &Grouping,
    name: &str,
    columns: Vec<Column>,
    grid: Grid,
) -> Result<Vec<Column>, QueryError> {
    let mut collector = Collector::default();
    let mut made = 0;
    for column in &columns {
        let key = grouping.key(&column.labels.with(name, ""));
        for (step, value) in column.values.iter().enumerate().filter(|(_, value)| present(**value)) {
            eval.budget.work(1)?;
            let Some(found) = collector.entry(key.with(name, &plain(*value)), grid.count()) else { continue };
            if let Some(count) = found.values.get_mut(step) {
                *count = if present(*count) { *count + 1.0 } else { 1.0 };
            }
            if collector.len() > made {
                made = collector.len();
                eval.budget.samples(grid.count())?;
            }
        }
    }
    Ok(collector.finish())
}
