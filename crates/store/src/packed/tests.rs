//! Points that went in against those that come out, and what sensors' points come to.

use super::*;
use proptest::prelude::*;

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        40 => (-9_999i64..9_999, 0u8..4).prop_map(|(number, digits)| Value::F64(decimal_value(number, digits))),
        5 => any::<u64>().prop_map(|bits| Value::F64(f64::from_bits(bits))),
        5 => any::<f32>().prop_map(|value| Value::F64(f64::from(value))),
        3 => prop::sample::select(vec![-0.0, 0.0, f64::NAN, f64::INFINITY, 1e15, -1e15, 1e-9, f64::MIN_POSITIVE])
            .prop_map(Value::F64),
        5 => any::<i64>().prop_map(Value::I64),
        5 => (-9i64..9).prop_map(Value::I64),
        5 => any::<bool>().prop_map(Value::Bool),
        3 => "[a-zé]{0,5}".prop_map(Value::Text),
    ]
}

/// Values that stay, values of one kind, and all that there is; times at one distance, and all that there are.
fn points() -> impl Strategy<Value = Vec<(i64, Value)>> {
    let distance = prop_oneof![
        12 => Just(1_000_000_000i64), 3 => -5i64..5, 3 => (-5_000i64..5_000).prop_map(|ms| ms * 1_000_000), 1 => any::<i64>(),
    ];
    let stays = prop_oneof![Just(0u8), Just(30), Just(90)];
    let of = prop::collection::vec((distance, value(), 0u8..100), 0..90);
    (any::<i64>(), stays, of).prop_map(|(first, stays, of)| {
        let (mut time, mut points) = (first, Vec::<(i64, Value)>::new());
        for (distance, value, chance) in of {
            time = time.wrapping_add(distance);
            let value = points.last().filter(|_| chance < stays).map_or(value, |(_, last)| last.clone());
            points.push((time, value));
        }
        points
    })
}

fn put(packed: &mut Packed, points: &[(i64, Value)], at_once: usize) {
    for part in points.chunks(at_once.max(1)) {
        let times: Vec<i64> = part.iter().map(|(time, _)| *time).collect();
        let mut values = Values::default();
        part.iter().for_each(|(_, value)| values.push(value.clone()));
        packed.extend(&times, &values, 0..part.len());
    }
}

fn told(packed: &Packed, from: usize, to: Option<usize>) -> Vec<(i64, Value)> {
    let mut out = Vec::new();
    packed.each(from, to, |time, cell| out.push((time, cell.into())));
    out
}

proptest! {
    #[test]
    fn what_comes_out_is_what_was_put_in(points in points(), at_once in 1usize..9) {
        let mut packed = Packed::default();
        put(&mut packed, &points, at_once);
        prop_assert_eq!(&told(&packed, 0, None), &points);
        if let Some(last) = packed.last() {
            prop_assert_eq!(Some(&last), points.last());
        }
        let (mut times, mut values) = (Vec::new(), Values::default());
        packed.unpack(&mut times, &mut values);
        prop_assert_eq!(values.len(), times.len());
        let all: Vec<_> = times.iter().zip(0..).map(|(time, at)| (*time, values.get(at).unwrap())).collect();
        prop_assert_eq!(all, points);
    }

    #[test]
    fn decimals_come_out_as_the_floats_that_they_are(
        before in points(), parts in prop::collection::vec((0u8..10, prop::collection::vec(
            (0i64..3, prop_oneof![9 => -9_999i64..9_999, 1 => 1 - DECIMAL_LIMIT..DECIMAL_LIMIT]), 0..9)), 0..9),
    ) {
        let mut packed = Packed::default();
        put(&mut packed, &before, 4);
        let mut all = before;
        for (digits, part) in parts {
            let (times, numbers): (Vec<_>, Vec<_>) = part.into_iter().unzip();
            packed.extend_decimals(&times, (digits, &numbers), 0..times.len());
            all.extend(times.iter().zip(&numbers).map(|(time, n)| (*time, Value::F64(decimal_value(*n, digits)))));
        }
        prop_assert_eq!(told(&packed, 0, None), all);
    }

    #[test]
    fn a_part_is_read_without_those_before_it(parts in prop::collection::vec(points(), 1..5)) {
        let mut packed = Packed::default();
        let mut ends = vec![0];
        for (at, part) in parts.iter().enumerate() {
            put(&mut packed, part, 3);
            if at + 1 < parts.len() {
                ends.push(packed.restart());
            }
        }
        for (at, part) in parts.iter().enumerate() {
            prop_assert_eq!(told(&packed, ends[at], ends.get(at + 1).copied()), part.as_slice());
        }
    }

    #[test]
    fn going_back_leaves_what_was_there(first in points(), second in points(), third in points()) {
        let (mut packed, mut plain) = (Packed::default(), Packed::default());
        put(&mut packed, &first, 4);
        let mark = packed.mark();
        put(&mut packed, &second, 4);
        packed.go_back(&mark);
        put(&mut packed, &third, 4);
        put(&mut plain, &first, 4);
        put(&mut plain, &third, 4);
        prop_assert_eq!(&packed.bytes, &plain.bytes);
        prop_assert_eq!(told(&packed, 0, None), first.into_iter().chain(third).collect::<Vec<_>>());
    }
}

#[test]
fn what_sensors_measure_takes_a_byte_a_point_or_less() {
    for (name, most, value) in [
        (
            "a walk",
            1.1,
            &(|at: i64| Value::F64((2_150 + (at * 7_919) % 23) as f64 / 100.0)) as &dyn Fn(i64) -> Value,
        ),
        ("what stays", 0.2, &|_| Value::F64(3.3)),
        ("a count", 1.1, &|at| Value::I64(at * 17)),
        ("a switch", 0.5, &|at| Value::Bool(at % 50 < 20)),
        ("32 bits", 6.1, &|at| Value::F64(f64::from((at as f32).sqrt()))),
        ("64 bits", 9.1, &|at| Value::F64((at as f64).sqrt())),
    ] {
        let mut packed = Packed::default();
        let points: Vec<_> = (0..1_000).map(|at| (at * 10_000_000_000, value(at))).collect();
        put(&mut packed, &points, 1);
        let each = packed.bytes.len() as f64 / 1_000.0;
        assert!(each <= most, "{name}: {each} bytes a point");
    }
}
