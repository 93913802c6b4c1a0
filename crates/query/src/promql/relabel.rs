//! `label_replace` and `label_join`: labels made from labels.

use promql_parser::parser::Call;
use regex::Regex;

use super::column::{Column, Grid};
use super::error::{QueryError, execution};
use super::eval::{Evaluator, merged};
use super::labels::{Labels, is_label_name};

pub(super) fn call(eval: &Evaluator, call: &Call, grid: Grid) -> Result<Option<Vec<Column>>, QueryError> {
    match call.func.name {
        "label_replace" => replace(eval, call, grid).map(Some),
        "label_join" => join(eval, call, grid).map(Some),
        _ => Ok(None),
    }
}

fn replace(eval: &Evaluator, call: &Call, grid: Grid) -> Result<Vec<Column>, QueryError> {
    let [target, template, source, pattern] = [1, 2, 3, 4].map(|at| eval.text_arg(call, at));
    let (target, template, source, pattern) = (target?, template?, source?, pattern?);
    let regex = Regex::new(&format!("^(?:{pattern})$"))
        .map_err(|_| execution(format!("invalid regular expression in label_replace(): {pattern}")))?;
    if !is_label_name(&target) {
        return Err(execution(format!("invalid destination label name in label_replace(): {target}")));
    }
    relabelled(eval, call, grid, |labels| match regex.captures(labels.get(&source)) {
        None => labels.clone(),
        Some(captures) => {
            let mut value = String::new();
            captures.expand(&template, &mut value);
            labels.with(&target, &value)
        }
    })
}

fn join(eval: &Evaluator, call: &Call, grid: Grid) -> Result<Vec<Column>, QueryError> {
    let (target, separator) = (eval.text_arg(call, 1)?, eval.text_arg(call, 2)?);
    let sources: Vec<String> =
        (3..call.args.len()).map(|at| eval.text_arg(call, at)).collect::<Result<_, _>>()?;
    if let Some(bad) = sources.iter().find(|name| !is_label_name(name)) {
        return Err(execution(format!("invalid source label name in label_join(): {bad}")));
    }
    if !is_label_name(&target) {
        return Err(execution(format!("invalid destination label name in label_join(): {target}")));
    }
    relabelled(eval, call, grid, |labels| {
        let values: Vec<&str> = sources.iter().map(|name| labels.get(name)).collect();
        labels.with(&target, &values.join(&separator))
    })
}

fn relabelled(
    eval: &Evaluator,
    call: &Call,
    grid: Grid,
    relabel: impl Fn(&Labels) -> Labels,
) -> Result<Vec<Column>, QueryError> {
    let columns = eval.vector_arg(call, 0, grid)?;
    eval.budget.work(columns.len())?;
    merged(columns.into_iter().map(|column| Column { labels: relabel(&column.labels), ..column }))
}
