//! The naive model that judges the machine: it keeps every point and every transition for ever, and looks through all of them each time.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use proptest::prelude::*;
use tidelog_record::{NodeId, Series, Value};

use super::Rule;
use super::condition::{Condition, Direction, WINDOW_PARTS};
use super::machine::{AHEAD_NS_MAX, Machine, Now, TRACKS_MAX, Transition};

const S: i64 = 1_000_000_000;
const NODE: NodeId = NodeId([7; 16]);
const FRESH_NS: i64 = 100 * S;
const SILENCE: Duration = Duration::from_secs(50);

pub(super) fn rule(name: &str, condition: Condition) -> Arc<Rule> {
    Arc::new(Rule {
        name: name.to_owned(),
        site: "plant".parse().unwrap(),
        selector: r#"{__name__=~"t.*"}"#.parse().unwrap(),
        condition,
        fresh_ns: FRESH_NS,
        command: None,
        message: None,
        metric: None,
    })
}

/// Made once, for a selector takes longer to read than all else here.
static RULES: LazyLock<Vec<Arc<Rule>>> = LazyLock::new(|| {
    let level = |direction, begins, clears, held_ns| Condition::Level { direction, begins, clears, held_ns };
    vec![
        rule("high", level(Direction::Up, 5.0, 3.0, 0)),
        rule("low", level(Direction::Down, -2.0, 0.0, 20 * S)),
        rule("rise", Condition::Change { direction: Direction::Up, by: 4.0, within_ns: 60 * S }),
        rule("fall", Condition::Change { direction: Direction::Down, by: 4.0, within_ns: 30 * S }),
        rule("missing", Condition::Missing { silence: SILENCE }),
    ]
});

fn series(n: usize) -> Series {
    Series::new(["temp", "tide"][n], [("device", n.to_string())]).unwrap()
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::F64(value) => (!value.is_nan()).then_some(*value),
        Value::Bool(value) => Some(if *value { 1.0 } else { 0.0 }),
        _ => None,
    }
}

/// One rule for one series.
struct Model {
    rule: Arc<Rule>,
    /// Whether any point of the series was seen.
    known: bool,
    heard: Duration,
    /// Every point that was judged since the start, or was there at it.
    judged: Vec<(i64, f64)>,
    recorded: Vec<(i64, bool)>,
}

impl Model {
    fn fires(&self) -> bool {
        self.recorded.last().is_some_and(|(_, firing)| *firing)
    }

    fn last_ns(&self) -> i64 {
        self.recorded.last().map_or(i64::MIN, |(at, _)| *at)
    }

    /// Begins or clears, if that is another state; the value is of the newest point.
    fn become_(&mut self, firing: bool, at_ns: i64, value: Option<f64>) -> Vec<(bool, i64, Option<f64>)> {
        if self.fires() == firing {
            return Vec::new();
        }
        let at_ns = if self.last_ns() >= at_ns { self.last_ns() + 1 } else { at_ns };
        self.recorded.push((at_ns, firing));
        vec![(firing, at_ns, value)]
    }

    fn judge(&mut self) -> Vec<(bool, i64, Option<f64>)> {
        let Some((at, value)) = self.judged.last().copied() else { return Vec::new() };
        // Everything back to the first pause that is too long.
        let pauses = self.judged.windows(2).map(|pair| pair[1].0 - pair[0].0 > FRESH_NS);
        let from =
            pauses.enumerate().filter(|(_, is_long)| *is_long).map(|(n, _)| n + 1).next_back().unwrap_or(0);
        let counts = &self.judged[from..];
        let should = match self.rule.condition {
            Condition::Level { direction: Direction::Up, clears, .. } if self.fires() => value >= clears,
            Condition::Level { clears, .. } if self.fires() => value <= clears,
            Condition::Level { direction, begins, held_ns, .. } => {
                let beyond =
                    |value: f64| if direction == Direction::Up { value > begins } else { value < begins };
                let run = counts.iter().rev().take_while(|(_, value)| beyond(*value));
                run.last().is_some_and(|(since, _)| at - since >= held_ns)
            }
            Condition::Change { direction, by, within_ns } => {
                let part = |at: i64| at / (within_ns / WINDOW_PARTS);
                let window = counts.iter().filter(|(before, _)| part(at) - part(*before) <= WINDOW_PARTS);
                let by_how_much =
                    |before: f64| if direction == Direction::Up { value - before } else { before - value };
                window.into_iter().any(|(_, before)| by_how_much(*before) >= by)
            }
            Condition::Missing { .. } => unreachable!(),
        };
        self.become_(should, at, Some(value))
    }

    fn is_of_silence(&self) -> bool {
        matches!(self.rule.condition, Condition::Missing { .. })
    }

    fn point(&mut self, at: i64, value: &Value, now: Now) -> Vec<(bool, i64, Option<f64>)> {
        (self.known, self.heard) = (true, now.steady);
        if self.is_of_silence() {
            return self.become_(false, now.wall_ns, None);
        }
        let newest = self.judged.last().map_or(i64::MIN, |(at, _)| *at).max(self.last_ns());
        let is_present = (now.wall_ns - FRESH_NS..=now.wall_ns + AHEAD_NS_MAX).contains(&at);
        match number(value) {
            Some(value) if is_present && at > newest => {
                self.judged.push((at, value));
                self.judge()
            }
            _ => Vec::new(),
        }
    }

    fn elapse(&mut self, now: Now) -> Vec<(bool, i64, Option<f64>)> {
        if self.is_of_silence() && self.known && now.steady - self.heard >= SILENCE {
            return self.become_(true, now.wall_ns, None);
        }
        Vec::new()
    }

    fn restart(&mut self, stored: &BTreeMap<i64, Value>, now: Now) -> Vec<(bool, i64, Option<f64>)> {
        (self.known, self.heard) = (!stored.is_empty(), now.steady);
        let present = stored.range(now.wall_ns - FRESH_NS..=now.wall_ns + AHEAD_NS_MAX);
        self.judged = present.filter_map(|(at, value)| Some((*at, number(value)?))).collect();
        if self.is_of_silence() {
            let spoke = stored.keys().last().is_some_and(|at| *at > self.last_ns() && *at <= now.wall_ns);
            return if spoke { self.become_(false, now.wall_ns, None) } else { Vec::new() };
        }
        match self.judged.last() {
            Some((at, _)) if *at > self.last_ns() => self.judge(),
            _ => Vec::new(),
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// A point so many seconds away from the clock.
    Point(usize, i64, Value),
    /// The same, and the node is killed before what comes of it is recorded.
    PointAndKill(usize, i64, Value),
    Pass(u64),
    /// Somebody sets the clock.
    Jump(i64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let value = prop_oneof![
        8 => (-4..8i32).prop_map(|value| Value::F64(f64::from(value))),
        1 => any::<bool>().prop_map(Value::Bool),
        1 => prop_oneof![Just(Value::F64(f64::NAN)), Just(Value::Text("x".to_owned()))],
    ];
    let away = prop_oneof![6 => -10..=0i64, 3 => -110..70i64];
    prop_oneof![
        10 => (0..2usize, away.clone(), value.clone()).prop_map(|(n, s, value)| Step::Point(n, s, value)),
        1 => (0..2usize, away, value).prop_map(|(n, s, value)| Step::PointAndKill(n, s, value)),
        6 => (1..15u64).prop_map(Step::Pass),
        1 => (40..130u64).prop_map(Step::Pass),
        1 => (-40..40i64).prop_map(Step::Jump),
        1 => Just(Step::Restart),
    ]
}

/// A machine as the rim begins it.
fn begin(
    models: &[(usize, Model)],
    stored: &[BTreeMap<i64, Value>; 2],
    now: Now,
    out: &mut Vec<Transition>,
) -> Machine {
    let mut machine = Machine::new(RULES.clone(), NODE);
    for (n, model) in models {
        if let Some((at, firing)) = model.recorded.last() {
            assert!(machine.recall(&model.rule.name, &series(*n), *at, *firing, now));
        }
    }
    for (n, model) in models.iter().filter(|(n, _)| !stored[*n].is_empty()) {
        let points =
            |range| stored[*n].range(range).map(|(at, value)| (*at, value.clone())).collect::<Vec<_>>();
        let shown = match model.is_of_silence() {
            true => points(i64::MIN..=i64::MAX).into_iter().last().into_iter().collect(),
            false => points(now.wall_ns - FRESH_NS..=now.wall_ns + AHEAD_NS_MAX),
        };
        machine.replay(&model.rule.name, &series(*n), shown.into_iter(), now);
    }
    machine.judge(now, out);
    machine
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_recorded_is_what_a_naive_reading_of_the_rules_records(steps in prop::collection::vec(step(), 1..60)) {
        let mut now = Now { wall_ns: 1_800_000_000 * S, steady: Duration::ZERO };
        let mut machine = Machine::new(RULES.clone(), NODE);
        let mut stored: [BTreeMap<i64, Value>; 2] = Default::default();
        let of = |n| RULES.iter().cloned().map(move |rule| {
            (n, Model { rule, known: false, heard: Duration::ZERO, judged: Vec::new(), recorded: Vec::new() })
        });
        let mut models: Vec<(usize, Model)> = (0..2).flat_map(of).collect();
        for step in steps {
            let mut found = Vec::new();
            let mut expected = Vec::new();
            let (restarts, kills) = (matches!(step, Step::Restart | Step::PointAndKill(..)), matches!(step, Step::PointAndKill(..)));
            match step {
                Step::Point(n, away, value) | Step::PointAndKill(n, away, value) => {
                    let at = now.wall_ns + away * S;
                    machine.take(&series(n).canonical(), std::iter::once((at, value.clone())), now, &mut found);
                    for (of, model) in models.iter_mut().filter(|(of, _)| *of == n) {
                        let recorded = model.recorded.clone();
                        expected.extend(model.point(at, &value, now).into_iter().map(|it| (*of, model.rule.name.clone(), it)));
                        if kills {
                            model.recorded = recorded;
                        }
                    }
                    let held = stored[n].entry(at).or_insert_with(|| value.clone());
                    *held = held.clone().max(value);
                }
                Step::Pass(s) => {
                    now.steady += Duration::from_secs(s);
                    now.wall_ns += i64::try_from(s).unwrap() * S;
                    machine.elapse(now, &mut found);
                    for (of, model) in &mut models {
                        expected.extend(model.elapse(now).into_iter().map(|it| (*of, model.rule.name.clone(), it)));
                    }
                }
                Step::Jump(s) => now.wall_ns += s * S,
                Step::Restart => {}
            }
            if kills {
                found.clear();
                expected.clear();
            }
            if restarts {
                machine = begin(&models, &stored, now, &mut found);
                for (of, model) in &mut models {
                    expected.extend(model.restart(&stored[*of], now).into_iter().map(|it| (*of, model.rule.name.clone(), it)));
                }
            }
            let mut found: Vec<_> = found.into_iter().map(|it| {
                let n = usize::from(it.series == series(1));
                (n, it.rule, (it.firing, it.at_ns, it.value))
            }).collect();
            // Those of one moment have no order between rules and series.
            found.sort_by(|a, b| (a.0, &a.1, a.2.1).cmp(&(b.0, &b.1, b.2.1)));
            expected.sort_by(|a, b| (a.0, &a.1, a.2.1).cmp(&(b.0, &b.1, b.2.1)));
            prop_assert_eq!(found, expected);
            let mut firing: Vec<_> = machine.firing().map(|(rule, series, since)| (series, rule.to_owned(), since)).collect();
            firing.sort();
            let mut fires: Vec<_> = models.iter().filter(|(_, model)| model.fires())
                .map(|(n, model)| (series(*n), model.rule.name.clone(), model.last_ns())).collect();
            fires.sort();
            prop_assert_eq!(firing, fires);
        }
    }
}

#[test]
fn there_is_room_for_so_many_series_and_the_silent_ones_give_way() {
    let level = Condition::Level { direction: Direction::Up, begins: 5.0, clears: 5.0, held_ns: 0 };
    let mut machine = Machine::new(vec![rule("high", level)], NODE);
    let mut now = Now { wall_ns: 1_800_000_000 * S, steady: Duration::ZERO };
    let take = |machine: &mut Machine, n: usize, value: f64, now: Now| {
        let (series, mut out) = (Series::new("temp", [("n", n.to_string())]).unwrap(), Vec::new());
        machine.take(&series.canonical(), std::iter::once((now.wall_ns, Value::F64(value))), now, &mut out);
        out.len()
    };
    // The first one fires and stays.
    assert_eq!(take(&mut machine, 0, 9.0, now), 1);
    for n in 1..TRACKS_MAX {
        assert_eq!(take(&mut machine, n, 1.0, now), 0);
    }
    assert_eq!(machine.passed_over().no_room, 0);
    assert_eq!(take(&mut machine, TRACKS_MAX, 9.0, now), 0, "one too many");
    assert_eq!((machine.passed_over().no_room, machine.tracks()), (1, TRACKS_MAX));
    (now.wall_ns, now.steady) = (now.wall_ns + FRESH_NS + S, Duration::from_secs(101));
    assert_eq!(take(&mut machine, TRACKS_MAX + 1, 9.0, now), 0, "room is found when it is missed");
    assert_eq!(machine.tracks(), 1);
    assert_eq!(take(&mut machine, TRACKS_MAX + 1, 9.0, Now { wall_ns: now.wall_ns + S, ..now }), 1);
    assert_eq!(take(&mut machine, 0, 1.0, now), 1, "what fired is not forgotten");
    // A series that no rule watches takes no room.
    let (other, mut out) = (Series::new("hum", [("n", "1")]).unwrap(), Vec::new());
    machine.take(&other.canonical(), std::iter::once((now.wall_ns, Value::F64(9.0))), now, &mut out);
    assert_eq!((machine.tracks(), out.len()), (2, 0));
}
