//! How fast bodies are written, read, and packed by those before them, in nanoseconds a point: entries of one and of five points, as a
//! field of sensors sends them, and of sixty. `cargo run --release -p tidelog-record --example body_speed`
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::time::Instant;

use tidelog_record::{
    BodyHead, BodyReader, BodyWriter, Column, Entry, Opened, Packer, Series, Unpacker, decimal_value,
};

const POINTS: usize = 20_000;
const ROUNDS: usize = 201;
const TURNS: i64 = 10;

fn main() {
    for (per_entry, steps_of_one) in [(1, 0..1), (5, 0..5), (60, 0..60_i64)] {
        let devices = POINTS / 4 / per_entry;
        let names: Vec<[Vec<u8>; 4]> = (0..devices)
            .map(|device| {
                ["temperature", "humidity", "battery", "light"].map(|metric| {
                    let labels = [("device", format!("d{device:05}")), ("site", "plant".to_owned())];
                    Series::new(format!("env_{metric}"), labels).unwrap().canonical()
                })
            })
            .collect();
        let times: Vec<i64> =
            steps_of_one.clone().map(|n| (1_795_219_200 + n * 10) * 1_000_000_000).collect();
        let steps = |start: i64| steps_of_one.clone().map(|n| start + n % 3).collect::<Vec<_>>();
        let (temperature, humidity, battery, light) = (steps(2150), steps(507), steps(3400), steps(0));
        let floats: Vec<f64> = temperature.iter().map(|number| decimal_value(*number, 2)).collect();
        let write = |as_decimals: bool| {
            let mut writer = BodyWriter::new(BodyHead::default(), devices * 4);
            for device in &names {
                let [a, b, c, d] = device;
                if as_decimals {
                    writer.entry(a, &times, Column::Decimal { digits: 2, scaled: &temperature }).unwrap();
                } else {
                    writer.entry(a, &times, Column::F64(&floats)).unwrap();
                }
                writer.entry(b, &times, Column::Decimal { digits: 1, scaled: &humidity }).unwrap();
                writer.entry(c, &times, Column::I64(&battery)).unwrap();
                writer.entry(d, &times, Column::I64(&light)).unwrap();
            }
            writer.finish().unwrap()
        };
        let bytes = write(true);
        assert_eq!(bytes, write(false));
        let read = || {
            let Opened::Points(mut reader) = BodyReader::open(&bytes).unwrap() else { unreachable!() };
            let (mut entry, mut points) = (Entry::default(), 0);
            while reader.next(&mut entry).unwrap() {
                points += entry.times.len();
            }
            points
        };
        // The same devices ten times, each time a little later and each number a little off.
        let mut dice = 7_u64;
        let mut walks = vec![[2150_i64, 507, 3400, 0]; devices];
        let turns: Vec<Vec<u8>> = (0..TURNS)
            .map(|turn| {
                let later = |time: &i64| time + turn * i64::try_from(per_entry).unwrap() * 10_000_000_000;
                let times: Vec<i64> = times.iter().map(later).collect();
                let mut writer = BodyWriter::new(BodyHead::default(), devices * 4);
                for (names, walk) in names.iter().zip(&mut walks) {
                    for ((name, number), digits) in names.iter().zip(walk).zip([2, 1, 0, 0]) {
                        let scaled: Vec<i64> = (0..per_entry)
                            .map(|_| {
                                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                                *number += i64::from(digits) * ((dice >> 33) % 5).cast_signed()
                                    - i64::from(digits) * 2;
                                *number
                            })
                            .collect();
                        writer.entry(name, &times, Column::Decimal { digits, scaled: &scaled }).unwrap();
                    }
                }
                writer.finish().unwrap()
            })
            .collect();
        let pack = || {
            let mut packer = Packer::default();
            let packed = turns.iter().map(|body| {
                let mut out = Vec::with_capacity(body.len());
                packer.pack(body, &mut out).unwrap();
                out
            });
            packed.collect::<Vec<_>>()
        };
        let packed = pack();
        let unpack = || {
            let (mut unpacker, mut out) = (Unpacker::default(), Vec::new());
            packed.iter().for_each(|packed| unpacker.unpack(packed, &mut out).unwrap());
            out.len()
        };
        println!(
            "{per_entry} points an entry, packed: {:.2} bytes behind the first, pack {:.1} ns, unpack {:.1} ns a point",
            packed.iter().skip(1).map(Vec::len).sum::<usize>() as f64 / (POINTS as f64 * (TURNS - 1) as f64),
            median(|| pack().len()) / TURNS as f64,
            median(unpack) / TURNS as f64,
        );
        println!(
            "{per_entry} points an entry: {:.2} bytes, write {:.1} ns (a quarter of floats: {:.1}), read {:.1} ns a point",
            bytes.len() as f64 / POINTS as f64,
            median(|| write(true).len()),
            median(|| write(false).len()),
            median(read),
        );
    }
}

fn median(mut work: impl FnMut() -> usize) -> f64 {
    let mut all: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            black_box(work());
            begun.elapsed().as_secs_f64() * 1e9 / POINTS as f64
        })
        .collect();
    all.sort_by(f64::total_cmp);
    all[ROUNDS / 2]
}
