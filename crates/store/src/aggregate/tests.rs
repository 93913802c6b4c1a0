//! Aggregates against a naive reckoning over maps of points.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tidelog_record::decimal_of;

use super::*;
use crate::segment::SectionStats;

type Points = BTreeMap<i64, Value>;

fn number_of(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
        Value::I64(whole) => Some(*whole as f64),
        Value::F64(float) => Some(*float),
        Value::Text(_) => None,
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let special =
        vec![0.0, -0.0, f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.1 + 0.2, 1e300, 5e-324];
    prop_oneof![
        6 => (-3000i32..3000).prop_map(|m| Value::F64(f64::from(m) / 100.0)),
        2 => (-1e3..1e3f64).prop_map(Value::F64),
        1 => prop::sample::select(special).prop_map(Value::F64),
        2 => (-5i64..5).prop_map(Value::I64),
        1 => any::<i64>().prop_map(Value::I64),
        1 => any::<bool>().prop_map(Value::Bool),
        1 => "[ab]{0,2}".prop_map(Value::Text),
    ]
}

fn any_points() -> impl Strategy<Value = Points> {
    let mixed = prop::collection::btree_map(0i64..60, any_value(), 0..40);
    let floats = prop::collection::btree_map(
        0i64..60,
        (-300i32..300).prop_map(|m| Value::F64(f64::from(m) / 10.0)),
        0..40,
    );
    let wholes = prop::collection::btree_map(0i64..60, (0i64..9).prop_map(Value::I64), 0..40);
    prop_oneof![mixed, floats, wholes]
}

/// What a segment says of a stretch of points.
fn section(points: &[(i64, Value)]) -> Section {
    let values: Vec<&Value> = points.iter().map(|(_, value)| value).collect();
    let one_kind = values.iter().all(|v| std::mem::discriminant(*v) == std::mem::discriminant(values[0]));
    let plain = |v: &&Value| !matches!(v, Value::Text(_)) && !matches!(v, Value::F64(f) if f.is_nan());
    let nano = |v: &&Value| match v {
        Value::I64(whole) => Some(i128::from(*whole) * 1_000_000_000),
        Value::F64(float) => decimal_of(*float).map(|(m, k)| i128::from(m) * 10i128.pow(u32::from(9 - k))),
        _ => None,
    };
    let stats = (one_kind && values.iter().all(plain)).then(|| SectionStats {
        first: values[0].clone(),
        last: values[values.len() - 1].clone(),
        min: (*values.iter().min().unwrap()).clone(),
        max: (*values.iter().max().unwrap()).clone(),
        sum: values.iter().map(nano).sum(),
    });
    Section { count: points.len() as u64, first_ts: points[0].0, last_ts: points[points.len() - 1].0, stats }
}

fn columns(points: &[(i64, Value)]) -> (Vec<i64>, Values) {
    let mut values = Values::default();
    points.iter().for_each(|(_, value)| values.push(value.clone()));
    (points.iter().map(|(time, _)| *time).collect(), values)
}

/// Gives a series piece by piece, as a section where one is wanted and enough.
fn give(accumulator: &mut Accumulator, series: &Points, pieces: &[(usize, bool)]) {
    let all: Vec<_> = series.iter().map(|(time, value)| (*time, value.clone())).collect();
    let mut rest = all.as_slice();
    for (length, as_section) in pieces.iter().copied().chain([(usize::MAX, false)]) {
        let (piece, behind) = rest.split_at(length.min(rest.len()));
        rest = behind;
        if piece.is_empty() {
            return;
        }
        if !as_section || !accumulator.whole(&section(piece)) {
            let (times, values) = columns(piece);
            accumulator.points(&times, &values, 0..usize::MAX);
        }
    }
}

/// The counter's rate by its definition.
fn naive_rate(points: &[(i64, Value)]) -> Option<f64> {
    let numbers: Vec<(i64, Number)> = points.iter().filter_map(|(t, v)| Some((*t, Number::of(v)?))).collect();
    let numbers: Vec<_> = numbers.into_iter().filter(|(_, n)| n.is_finite()).collect();
    let (first, last) = (numbers.first()?.0, numbers.last()?.0);
    let mut rose = ExactSum::new();
    for pair in numbers.windows(2) {
        let (before, after) = (pair[0].1.value(), pair[1].1.value());
        let number = |value: &Value, sign: i128, sum: &mut ExactSum| match value {
            Value::I64(whole) => sum.add_decimal_sum(sign * i128::from(*whole) * 1_000_000_000, 1),
            Value::F64(float) => sum.add(if sign < 0 { -*float } else { *float }),
            _ => {}
        };
        number(&after, 1, &mut rose);
        if pair[1].1.compare(pair[0].1).is_ge() {
            number(&before, -1, &mut rose);
        }
    }
    (numbers.len() > 1).then(|| quotient(rose.value(), (last - first) as f64 / 1e9))
}

fn naive(function: Function, series: &[Vec<(i64, Value)>]) -> Option<Value> {
    let all: Vec<&(i64, Value)> = series.iter().flatten().collect();
    let numbers: Vec<&Value> =
        all.iter().map(|(_, value)| value).filter(|v| number_of(v).is_some()).collect();
    let mut sum = ExactSum::new();
    for value in &numbers {
        match value {
            Value::I64(whole) => sum.add_i64(*whole),
            other => sum.add(number_of(other).unwrap()),
        }
    }
    let ordered = || {
        let mut sorted: Vec<Number> =
            numbers.iter().filter_map(|v| Number::of(v)).filter(|n| !n.is_nan()).collect();
        sorted.sort_by(|a, b| a.order(*b));
        sorted
    };
    let or_nan =
        |n: Option<&Number>| n.map(|n| n.value()).or((!numbers.is_empty()).then_some(Value::F64(NAN)));
    match function {
        Function::Count => Some(Value::I64(i64::try_from(all.len()).unwrap())),
        Function::Sum => (!numbers.is_empty()).then(|| Value::F64(sum.value())),
        Function::Mean => {
            (!numbers.is_empty()).then(|| Value::F64(quotient(sum.value(), numbers.len() as f64)))
        }
        Function::Min => or_nan(ordered().first()),
        Function::Max => or_nan(ordered().last()),
        Function::First => {
            let time = all.iter().map(|(time, _)| time).min()?;
            all.iter().filter(|(t, _)| t == time).map(|(_, value)| value.clone()).max()
        }
        Function::Last => all.iter().max().map(|(_, value)| value.clone()),
        Function::Rate => {
            let mut rates = ExactSum::new();
            series.iter().filter_map(|points| naive_rate(points)).for_each(|rate| rates.add(rate));
            (rates.count() > 0).then(|| Value::F64(rates.value()))
        }
    }
}

fn model(steps: &Steps, functions: &[Function], series: &[Points]) -> Aggregates {
    let mut out = Aggregates { starts: Vec::new(), columns: vec![Vec::new(); functions.len()] };
    for step in 0..steps.count() {
        let range = steps.start_of(step)..=steps.last_of(step);
        let inside: Vec<Vec<_>> =
            series.iter().map(|s| s.range(range.clone()).map(|(t, v)| (*t, v.clone())).collect()).collect();
        if inside.iter().any(|points| !points.is_empty()) {
            out.starts.push(steps.start_of(step));
            for (column, function) in out.columns.iter_mut().zip(functions) {
                column.push(naive(*function, &inside));
            }
        }
    }
    out
}

proptest! {
    #[test]
    fn however_points_are_split_and_series_merged_the_bytes_are_those_of_the_naive_reading(
        series in prop::collection::vec(any_points(), 1..4),
        pieces in prop::collection::vec((1usize..12, any::<bool>()), 0..12),
        start in 0i64..30, length in 0i64..60, step in 1i64..30, backwards in any::<bool>(),
        functions in prop::collection::vec(prop::sample::select(Function::ALL.to_vec()), 1..4),
    ) {
        let steps = Steps::new(start..=start + length, step).unwrap();
        let expected = model(&steps, &functions, &series);

        let mut together = Accumulator::new(&steps, &functions);
        for one in &series {
            give(&mut together, one, &pieces);
            together.end_series();
        }
        prop_assert_eq!(&together.finish(), &expected);

        let mut alone: Vec<Accumulator> = series.iter().map(|one| {
            let mut accumulator = Accumulator::new(&steps, &functions);
            give(&mut accumulator, one, &pieces);
            accumulator
        }).collect();
        if backwards {
            alone.reverse();
        }
        let mut merged = alone.pop().unwrap();
        alone.iter().for_each(|other| merged.merge(other).unwrap());
        prop_assert_eq!(merged.finish(), expected);
    }
}

fn told(function: Function, values: &[Value]) -> Option<Value> {
    let points: Points = (0i64..).map(|at| at * 1_000_000_000).zip(values.iter().cloned()).collect();
    let mut accumulator = Accumulator::new(&Steps::one(i64::MIN..=i64::MAX).unwrap(), &[function]);
    give(&mut accumulator, &points, &[]);
    accumulator.finish().columns.remove(0).pop().flatten()
}

fn floats(values: &[f64]) -> Vec<Value> {
    values.iter().map(|value| Value::F64(*value)).collect()
}

#[test]
fn a_counter_that_begins_again_rises_by_what_it_then_says() {
    let rate = |values: &[f64]| told(Function::Rate, &floats(values));
    assert_eq!(rate(&[1.0, 3.0, 1.0, 2.0]), Some(Value::F64(4.0 / 3.0)));
    assert_eq!(rate(&[5.0, 5.0]), Some(Value::F64(0.0)));
    assert_eq!(rate(&[5.0, f64::NAN, 7.0]), Some(Value::F64(1.0)));
    assert_eq!(rate(&[5.0]), None);
    assert_eq!(rate(&[5.0, f64::NAN]), None);
    let wholes = [Value::I64(i64::MIN), Value::I64(i64::MAX)];
    assert_eq!(told(Function::Rate, &wholes), Some(Value::F64(18_446_744_073_709_551_615.0)));
    assert_eq!(told(Function::Rate, &[Value::Bool(false), Value::Bool(true)]), Some(Value::F64(1.0)));
    assert_eq!(rate(&[1.0, f64::INFINITY, 5.0]), Some(Value::F64(2.0)));
}

#[test]
fn texts_and_truths_count_as_is_written_at_each_function() {
    let values = [Value::Text("on".into()), Value::Bool(true), Value::Text("off".into())];
    let of = |function| told(function, &values);
    assert_eq!(of(Function::Count), Some(Value::I64(3)));
    assert_eq!(of(Function::First), Some(Value::Text("on".into())));
    assert_eq!(of(Function::Last), Some(Value::Text("off".into())));
    assert_eq!(of(Function::Sum), Some(Value::F64(1.0)));
    assert_eq!(of(Function::Mean), Some(Value::F64(1.0)));
    assert_eq!((of(Function::Min), of(Function::Max)), (Some(Value::I64(1)), Some(Value::I64(1))));
    let texts = [Value::Text("a".into())];
    let numeric = [Function::Sum, Function::Mean, Function::Min, Function::Max, Function::Rate];
    assert!(numeric.into_iter().all(|function| told(function, &texts).is_none()));
}

#[test]
fn nan_is_least_and_greatest_only_where_there_is_nothing_else() {
    let of = |function, values: &[f64]| told(function, &floats(values));
    assert_eq!(of(Function::Min, &[f64::NAN, 2.0]), Some(Value::F64(2.0)));
    assert_eq!(of(Function::Max, &[-f64::NAN]), Some(Value::F64(NAN)));
    assert_eq!(of(Function::Min, &[0.0, -0.0]), Some(Value::F64(-0.0)));
    assert_eq!(of(Function::Mean, &[-f64::NAN, 1.0]), Some(Value::F64(NAN)));
}

#[test]
fn aggregates_that_are_unlike_are_not_merged() {
    let steps = Steps::new(0..=9, 5).unwrap();
    let mut sum = Accumulator::new(&steps, &[Function::Sum]);
    assert_eq!(sum.merge(&Accumulator::new(&steps, &[Function::Max])), Err(Unlike));
    assert_eq!(sum.merge(&Accumulator::new(&Steps::new(0..=9, 4).unwrap(), &[Function::Sum])), Err(Unlike));
    assert_eq!(sum.merge(&Accumulator::new(&steps, &[Function::Mean])), Ok(()));
}

#[test]
fn every_function_is_found_by_its_name() {
    for function in Function::ALL {
        assert_eq!(Function::of_name(function.name()), Some(function));
    }
    assert_eq!(Function::of_name("Sum"), None);
}
