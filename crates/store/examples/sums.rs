//! How fast this machine sums readings exactly, and aggregates them by steps: `cargo run --release -p tidelog-store --example sums`.

use std::hint::black_box;
use std::time::Instant;

use tidelog_record::{Values, decimal_near};
use tidelog_store::aggregate::{Accumulator, Function, Steps};
use tidelog_store::exact::ExactSum;

const VALUES: u32 = 1_000_000;

/// Steps of a fixed sequence, so that every run measures the same.
fn walk(scale: f64) -> Vec<f64> {
    let (mut state, mut at) = (1u64, 2_000i64);
    (0..VALUES)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            at += (state >> 62).cast_signed() - 1;
            at as f64 / scale
        })
        .collect()
}

fn main() {
    let of = |what: &str, f: &mut dyn FnMut()| {
        let best = (0..5).map(|_| {
            let start = Instant::now();
            f();
            start.elapsed().as_secs_f64() * 1e9 / f64::from(VALUES)
        });
        println!("{what:42} {:6.2} ns a value", best.fold(f64::INFINITY, f64::min));
    };
    let inputs =
        [("hundredths", walk(100.0)), ("whole numbers", walk(1.0)), ("sevenths, no decimals", walk(7.0))];
    for (name, values) in &inputs {
        of(&format!("{name}: decimal_near"), &mut || {
            let mut digits = 2;
            for value in values {
                digits = black_box(decimal_near(*value, digits)).map_or(digits, |(_, k)| k);
            }
        });
        of(&format!("{name}: add"), &mut || {
            let mut sum = ExactSum::new();
            values.iter().for_each(|value| sum.add(*value));
            black_box(sum.value());
        });
        of(&format!("{name}: add_f64s"), &mut || {
            let mut sum = ExactSum::new();
            sum.add_f64s(values);
            black_box(sum.value());
        });
    }
    let times: Vec<i64> = (0..i64::from(VALUES)).collect();
    let values = Values::F64(walk(100.0));
    for (name, functions) in [
        ("mean", &[Function::Mean][..]),
        ("mean, max", &[Function::Mean, Function::Max]),
        ("rate", &[Function::Rate]),
    ] {
        for step in [100, 360, 8192] {
            let Ok(steps) = Steps::new(0..=i64::from(VALUES) - 1, step) else { continue };
            of(&format!("aggregate: {name} by {step} points"), &mut || {
                let mut accumulator = Accumulator::new(&steps, functions);
                accumulator.points(&times, &values, 0..times.len());
                black_box(accumulator.finish());
            });
        }
    }
    let mut sum = ExactSum::new();
    sum.add_f64s(&walk(7.0));
    of("value() of floats and decimals", &mut || {
        for _ in 0..VALUES {
            black_box(black_box(&sum).value());
        }
    });
}
