//! The points that both servers hold: counters that restart, gauges with gaps, histograms, rare and odd series. Always the same.

/// 2026-01-01T00:00:00Z, in milliseconds.
pub const START_MS: i64 = 1_767_225_600_000;

/// The kind of value that Tidelog is given; for Prometheus all are floats.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Float,
    Integer,
    Truth,
}

pub struct Series {
    pub metric: &'static str,
    pub labels: Vec<(&'static str, String)>,
    pub kind: Kind,
    /// Milliseconds and values, ascending.
    pub points: Vec<(i64, f64)>,
}

/// A small generator (of Knuth's constants), so that the points are the same everywhere.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn signed(&mut self, bound: u64) -> i64 {
        i64::try_from(self.below(2 * bound)).unwrap() - i64::try_from(bound).unwrap()
    }
}

fn decimal(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Instants every so often, each a little early or late.
fn instants(dice: &mut Dice, every_ms: i64, minutes: i64) -> Vec<i64> {
    let mut found = Vec::new();
    let mut at = START_MS;
    while at < START_MS + minutes * 60_000 {
        found.push(at + dice.signed(every_ms.unsigned_abs() / 20 + 1));
        at += every_ms;
    }
    found
}

type Labels<'a> = &'a [(&'static str, &'a str)];

fn series(metric: &'static str, labels: Labels, kind: Kind, points: Vec<(i64, f64)>) -> Series {
    let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Series { metric, labels, kind, points }
}

pub fn all() -> Vec<Series> {
    let mut dice = Dice(42);
    let mut found = Vec::new();
    requests(&mut dice, &mut found);
    rooms(&mut dice, &mut found);
    histograms(&mut dice, &mut found);
    odd(&mut dice, &mut found);
    found
}

fn requests(dice: &mut Dice, found: &mut Vec<Series>) {
    for job in ["api", "web"] {
        for instance in ["a", "b"] {
            for method in ["get", "post"] {
                for code in ["200", "500"] {
                    let mut total = 0.0;
                    let mut points = Vec::new();
                    for at in instants(dice, 15_000, 120) {
                        total += dice.below(if code == "200" { 50 } else { 3 }) as f64;
                        if dice.below(150) == 0 {
                            total = dice.below(5) as f64;
                        }
                        points.push((at, total));
                    }
                    let labels = [("job", job), ("instance", instance), ("method", method), ("code", code)];
                    found.push(series("http_requests_total", &labels, Kind::Float, points));
                }
            }
        }
    }
}

fn rooms(dice: &mut Dice, found: &mut Vec<Series>) {
    for (room, floor, device) in [
        ("lab", "1", "d1"),
        ("lab", "1", "d2"),
        ("hall", "1", "d3"),
        ("attic", "2", "d4"),
        ("roof", "2", "d5"),
    ] {
        let labels = [("room", room), ("floor", floor), ("device", device)];
        let mut level = 20.0;
        let mut points = Vec::new();
        for at in instants(dice, 30_000, 120) {
            level = decimal(level + dice.signed(50) as f64 / 100.0 - if room == "roof" { 0.2 } else { 0.0 });
            // Half an hour of silence in one room, and single readings that are lost.
            let silent = room == "hall" && (START_MS + 1_800_000..START_MS + 3_600_000).contains(&at);
            if !silent && dice.below(20) != 0 {
                points.push((at, level));
            }
        }
        found.push(series("temperature", &labels, Kind::Float, points));
        if room != "roof" {
            let points = instants(dice, 60_000, 120).into_iter().map(|at| (at, dice.below(100) as f64));
            found.push(series("humidity", &labels, Kind::Integer, points.collect()));
        }
        let model = if device < "d3" { "sht40" } else { "bme280" };
        let points = instants(dice, 240_000, 120).into_iter().map(|at| (at, 1.0)).collect();
        let info = [("device", device), ("model", model), ("room", room)];
        found.push(series("device_info", &info, Kind::Integer, points));
        let points = instants(dice, 45_000, 120).into_iter().map(|at| (at, dice.below(2) as f64)).collect();
        found.push(series("door_open", &[("device", device)], Kind::Truth, points));
    }
}

fn histograms(dice: &mut Dice, found: &mut Vec<Series>) {
    for service in ["db", "cache"] {
        let bounds = ["0.1", "0.25", "0.5", "1", "2.5", "+Inf"];
        let mut counts = [0.0; 6];
        let mut points: Vec<Vec<(i64, f64)>> = vec![Vec::new(); 6];
        for at in instants(dice, 30_000, 120) {
            let mut more = 0.0;
            for (count, points) in counts.iter_mut().zip(&mut points) {
                more += dice.below(7) as f64;
                *count += more;
                points.push((at, *count));
            }
        }
        for (bound, points) in bounds.into_iter().zip(points) {
            let labels = [("service", service), ("le", bound)];
            found.push(series("latency_seconds_bucket", &labels, Kind::Float, points));
        }
    }
}

fn odd(dice: &mut Dice, found: &mut Vec<Series>) {
    let every = |every_ms: i64, value: &dyn Fn(i64) -> f64| -> Vec<(i64, f64)> {
        (0..7_200_000 / every_ms).map(|i| (START_MS + i * every_ms, value(i))).collect()
    };
    let mut float = |metric, labels: Labels, points| found.push(series(metric, labels, Kind::Float, points));
    for (case, value) in [
        ("nan", f64::NAN),
        ("inf", f64::INFINITY),
        ("minus_inf", f64::NEG_INFINITY),
        ("zero", 0.0),
        ("huge", 1e300),
        ("tiny", -1.5e-9),
        ("big", 1.25e21),
        ("half", 0.5),
        ("two", -2.5),
    ] {
        float("odd", &[("case", case)], every(60_000, &|_| value));
    }
    float("mixed", &[("case", "nans")], every(60_000, &|i| if i % 3 == 0 { f64::NAN } else { i as f64 }));
    float(
        "mixed",
        &[("case", "infs")],
        every(60_000, &|i| if i % 5 == 0 { f64::INFINITY } else { -i as f64 }),
    );
    float("mixed", &[("case", "sign")], every(60_000, &|i| if i % 2 == 0 { i as f64 } else { -i as f64 }));
    float("rare", &[], every(600_000, &|i| i as f64 * 1.5));
    float("exact", &[("n", "1")], every(60_000, &|i| i as f64));
    float("exact", &[("n", "2")], every(60_000, &|i| (i * i) as f64));
    float("exact", &[("n", "3")], every(60_000, &|_| 7.0));
    float("single", &[], vec![(START_MS + 3_600_000, 42.0)]);
    float("early", &[], every(15_000, &|i| i as f64).into_iter().take(20).collect());
    float("dates", &[("d", "leap")], every(60_000, &|i| 1_709_210_096.0 + i as f64 * 86_400.0));
    float("dates", &[("d", "old")], every(60_000, &|i| -1_000_000_000.5 + i as f64 * 3_600.0));
    float("decimals", &[], every(10_000, &|i| 0.1 + (i % 7) as f64 * 0.3));
    float("drift", &[], every(20_000, &|i| 1e6 + i as f64 * 0.1));
    float("strange", &[("path", "/a b\"c\\d"), ("unit", "µm")], every(60_000, &|i| i as f64));
    float("left", &[("a", "1"), ("b", "1")], every(60_000, &|i| i as f64));
    float("left", &[("a", "1"), ("b", "2")], every(60_000, &|i| i as f64 + 1.0));
    float("left", &[("a", "2"), ("b", "1")], every(60_000, &|i| i as f64 + 2.0));
    float("right", &[("a", "1"), ("c", "x")], every(60_000, &|i| 2.0 * i as f64));
    float("right", &[("a", "2"), ("c", "y")], every(60_000, &|i| 3.0 * i as f64));
    float("right", &[("a", "3"), ("c", "z")], every(60_000, &|i| 4.0 * i as f64));
    let noise = (0..60).map(|i| (START_MS + i * 120_000, dice.signed(1_000) as f64)).collect();
    found.push(series("noise", &[("kind", "whole")], Kind::Integer, noise));
}
