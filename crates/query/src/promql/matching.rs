//! Vector matching: which series of one vector belongs to which of another, for the operators between numbers (one to
//! one, many to one) and for the set operators (many to many).

use std::collections::HashMap;

use promql_parser::parser::token::{T_LAND, T_LOR};
use promql_parser::parser::{BinModifier, BinaryExpr, LabelModifier, VectorMatchCardinality};

use super::binary::Operator;
use super::column::{ABSENT, Collector, Column, Grid, present};
use super::error::{QueryError, execution};
use super::eval::Evaluator;
use super::labels::{Labels, METRIC_LABEL};

const MANY_TO_ONE: &str =
    "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)";
const NOT_UNIQUE: &str = "multiple matches for labels: grouping labels must ensure unique matches";

/// The labels by which series find each other.
struct Signature {
    on: bool,
    names: Vec<String>,
}

impl Signature {
    fn of(modifier: Option<&LabelModifier>) -> Self {
        match modifier {
            Some(LabelModifier::Include(names)) => Self { on: true, names: names.labels.clone() },
            Some(LabelModifier::Exclude(names)) => {
                let names = names.labels.iter().cloned().chain([METRIC_LABEL.to_owned()]).collect();
                Self { on: false, names }
            }
            None => Self { on: false, names: vec![METRIC_LABEL.to_owned()] },
        }
    }

    fn key(&self, labels: &Labels) -> Labels {
        if self.on { labels.only(&self.names) } else { labels.without(&self.names) }
    }
}

pub(super) fn eval(
    eval: &Evaluator,
    expr: &BinaryExpr,
    operator: Operator,
    left: Vec<Column>,
    right: Vec<Column>,
    grid: Grid,
) -> Result<Vec<Column>, QueryError> {
    let plain = BinModifier::default();
    let modifier = expr.modifier.as_ref().unwrap_or(&plain);
    let signature = Signature::of(modifier.matching.as_ref());
    if expr.op.is_set_operator() {
        return set(eval, expr.op.id(), &signature, left, right, grid);
    }
    let (swapped, include) = match &modifier.card {
        VectorMatchCardinality::OneToMany(include) => (true, Some(include)),
        VectorMatchCardinality::ManyToOne(include) => (false, Some(include)),
        VectorMatchCardinality::OneToOne | VectorMatchCardinality::ManyToMany => (false, None),
    };
    let (many, one) = if swapped { (right, left) } else { (left, right) };
    let matching = Matching {
        operator,
        signature,
        swapped,
        include: include.map(|labels| labels.labels.clone()),
        both: both(&many, &one, grid),
    };
    matching.run(eval, &many, &one, grid)
}

/// At which steps both vectors have any value: elsewhere nothing can match, and nothing is ambiguous.
fn both(a: &[Column], b: &[Column], grid: Grid) -> Vec<bool> {
    let any = |columns: &[Column], step| columns.iter().any(|column| column.at(step).is_some());
    (0..grid.count()).map(|step| any(a, step) && any(b, step)).collect()
}

/// Operators between numbers. `many` is the side that may have several series of one signature, if `include` allows it.
struct Matching {
    operator: Operator,
    signature: Signature,
    swapped: bool,
    include: Option<Vec<String>>,
    both: Vec<bool>,
}

/// The series of one signature.
#[derive(Default)]
struct Mates<'a> {
    one: Vec<&'a Column>,
    /// Of one-to-one matching: steps at which a result exists already.
    taken: Option<Vec<bool>>,
}

impl Matching {
    fn run(
        &self,
        eval: &Evaluator,
        many: &[Column],
        one: &[Column],
        grid: Grid,
    ) -> Result<Vec<Column>, QueryError> {
        let mut mates: HashMap<Labels, Mates> = HashMap::new();
        for column in one {
            let key = self.signature.key(&column.labels);
            let group = mates.entry(key.clone()).or_default();
            for other in &group.one {
                eval.budget.work(grid.count())?;
                self.refuse_twins(&key, other, column)?;
            }
            group.one.push(column);
        }
        let mut collector = Collector::default();
        for column in many {
            let Some(group) = mates.get_mut(&self.signature.key(&column.labels)) else { continue };
            for other in &group.one {
                eval.budget.samples(grid.count())?;
                let found = self.pair(column, other);
                if self.include.is_none() {
                    let taken = group.taken.get_or_insert_with(|| vec![false; grid.count()]);
                    for (taken, value) in taken.iter_mut().zip(&found.values) {
                        if present(*value) && std::mem::replace(taken, true) {
                            return Err(execution(MANY_TO_ONE));
                        }
                    }
                }
                collector.add_or(found, || execution(NOT_UNIQUE))?;
            }
        }
        Ok(collector.finish())
    }

    /// Two series of the "one" side with one signature must never have values at the same step.
    fn refuse_twins(&self, key: &Labels, a: &Column, b: &Column) -> Result<(), QueryError> {
        let twins = a.values.iter().zip(&b.values).zip(&self.both);
        if !twins.into_iter().any(|((a, b), both)| *both && present(*a) && present(*b)) {
            return Ok(());
        }
        let side = if self.swapped { "left" } else { "right" };
        Err(execution(format!(
            "found duplicate series for the match group {key} on the {side} hand-side of the operation: [{}, {}];many-to-many matching not allowed: matching labels must be unique on one side",
            b.labels, a.labels
        )))
    }

    fn pair(&self, many: &Column, one: &Column) -> Column {
        let mut values = vec![ABSENT; many.values.len()];
        for ((out, a), b) in values.iter_mut().zip(&many.values).zip(&one.values) {
            if present(*a) && present(*b) {
                let (left, right) = if self.swapped { (*b, *a) } else { (*a, *b) };
                *out = self.operator.apply(left, right, left).unwrap_or(ABSENT);
            }
        }
        Column { labels: self.labels(&many.labels, &one.labels), values }
    }

    fn labels(&self, many: &Labels, one: &Labels) -> Labels {
        let labels = if self.operator.drops_name() { many.nameless() } else { many.clone() };
        match &self.include {
            None if self.signature.on => labels.only(&self.signature.names),
            None => {
                // The name is among what matching ignores, but a comparison keeps it.
                let ignored: Vec<String> =
                    self.signature.names.iter().filter(|name| *name != METRIC_LABEL).cloned().collect();
                labels.without(&ignored)
            }
            Some(include) => include.iter().fold(labels, |labels, name| labels.with(name, one.get(name))),
        }
    }
}

/// `and`, `or` and `unless`.
fn set(
    eval: &Evaluator,
    op: promql_parser::parser::token::TokenId,
    signature: &Signature,
    left: Vec<Column>,
    right: Vec<Column>,
    grid: Grid,
) -> Result<Vec<Column>, QueryError> {
    let other = if op == T_LOR { &left } else { &right };
    let mut there: HashMap<Labels, Vec<bool>> = HashMap::new();
    for column in other {
        eval.budget.work(grid.count())?;
        let steps = there.entry(signature.key(&column.labels)).or_insert_with(|| vec![false; grid.count()]);
        for (there, value) in steps.iter_mut().zip(&column.values) {
            *there |= present(*value);
        }
    }
    let masked = |column: Column, wanted: bool| {
        let steps = there.get(&signature.key(&column.labels));
        let labels = column.labels.clone();
        column.mapped(labels, |step, value| {
            let is = steps.and_then(|steps| steps.get(step)).copied().unwrap_or(false);
            (is == wanted).then_some(value)
        })
    };
    let mut collector = Collector::default();
    for column in left {
        eval.budget.work(grid.count())?;
        collector.add(if op == T_LOR { column } else { masked(column, op == T_LAND) })?;
    }
    if op == T_LOR {
        for column in right {
            eval.budget.work(grid.count())?;
            collector.add(masked(column, false))?;
        }
    }
    Ok(collector.finish())
}
