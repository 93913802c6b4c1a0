//! Expressions that nobody thought of: put together at random, the same ones every time.

/// How many.
const COUNT: usize = 100;

/// Deepest nesting.
const DEPTH_MAX: u32 = 4;

struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

pub fn expressions() -> Vec<String> {
    let mut dice = Dice(7);
    (0..COUNT).map(|_| vector(&mut dice, DEPTH_MAX)).collect()
}

fn selector(dice: &mut Dice) -> String {
    let name = dice.one(&[
        "temperature",
        "humidity",
        "http_requests_total",
        "exact",
        "left",
        "right",
        "device_info",
        "door_open",
        "rare",
        "decimals",
    ]);
    let labels =
        dice.one(&["", "", "", "{device=~\"d[123]\"}", "{job=\"api\"}", "{a!=\"2\"}", "{room!~\"h.*\"}"]);
    format!("{name}{labels}")
}

fn moved(dice: &mut Dice, what: &str) -> String {
    let by = dice.one(&[
        "",
        "",
        "",
        "",
        " offset 3m",
        " offset -2m",
        " @ 1767228000",
        " @ end()",
        " @ start() offset 1m",
    ]);
    format!("{what}{by}")
}

fn range(dice: &mut Dice, depth: u32) -> String {
    let width = dice.one(&["1m", "5m", "10m", "23m17s"]);
    if depth > 1 && dice.below(3) == 0 {
        let step = dice.one(&["", "30s", "1m", "47s"]);
        let inner = vector(dice, depth - 1);
        return moved(dice, &format!("({inner})[{width}:{step}]"));
    }
    let inner = selector(dice);
    moved(dice, &format!("{inner}[{width}]"))
}

fn scalar(dice: &mut Dice, depth: u32) -> String {
    if depth > 1 && dice.below(6) == 0 {
        return format!("scalar({})", vector(dice, depth - 1));
    }
    dice.one(&["1", "2", "0.5", "-3", "10", "time() - 1767225600", "pi()"]).to_owned()
}

fn labels(dice: &mut Dice) -> &'static str {
    dice.one(&["room", "device", "job", "a", "b", "code", "job, code", "device, room", "le"])
}

fn vector(dice: &mut Dice, depth: u32) -> String {
    if depth == 0 {
        let selector = selector(dice);
        return moved(dice, &selector);
    }
    let inner = |dice: &mut Dice| vector(dice, depth - 1);
    match dice.below(12) {
        0 => {
            let function = dice.one(&["abs", "sgn", "-", "ceil", "clamp_min", "timestamp", "sort", "absent"]);
            match function {
                "clamp_min" => format!("clamp_min({}, {})", inner(dice), scalar(dice, depth)),
                _ => format!("{function}({})", inner(dice)),
            }
        }
        1..=3 => {
            let function = dice.one(&[
                "rate",
                "increase",
                "delta",
                "irate",
                "idelta",
                "changes",
                "resets",
                "avg_over_time",
                "sum_over_time",
                "min_over_time",
                "max_over_time",
                "count_over_time",
                "last_over_time",
                "present_over_time",
                "absent_over_time",
            ]);
            format!("{function}({})", range(dice, depth))
        }
        4 => format!("quantile_over_time({}, {})", scalar(dice, depth), range(dice, depth)),
        5 | 6 => {
            let operator = dice.one(&["sum", "avg", "min", "max", "count", "group"]);
            let by = dice.one(&["", "by", "without"]);
            let by = if by.is_empty() { String::new() } else { format!(" {by} ({}) ", labels(dice)) };
            format!("{operator}{by}({})", inner(dice))
        }
        7 => {
            let operator = dice.one(&["topk", "bottomk", "quantile"]);
            let by = if dice.below(2) == 0 { String::new() } else { format!(" by ({}) ", labels(dice)) };
            format!("{operator}{by}({}, {})", dice.one(&["1", "2", "0.5"]), inner(dice))
        }
        8 => {
            let operator = dice.one(&["+", "-", "*", "/", ">", "<=", "!= bool", "%"]);
            let (a, b) = (inner(dice), scalar(dice, depth));
            if dice.below(2) == 0 {
                format!("(({a}) {operator} ({b}))")
            } else {
                format!("(({b}) {operator} ({a}))")
            }
        }
        9 => {
            let operator = dice.one(&["+", "-", "*", "/", "==", ">", "< bool"]);
            let on = dice.one(&["on", "ignoring"]);
            let group = dice.one(&["", "", "group_left", "group_right", "group_left (model)"]);
            let (a, b) = (inner(dice), inner(dice));
            format!("(({a}) {operator} {on} ({}) {group} ({b}))", labels(dice))
        }
        10 => {
            let operator = dice.one(&["and", "or", "unless"]);
            let on = if dice.below(2) == 0 { String::new() } else { format!("on ({}) ", labels(dice)) };
            format!("(({}) {operator} {on}({}))", inner(dice), inner(dice))
        }
        _ => {
            let selector = selector(dice);
            moved(dice, &selector)
        }
    }
}
