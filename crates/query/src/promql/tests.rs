//! What is hard to get right, told by small series in memory: what Prometheus documents of staleness, windows, rates and
//! matching. That the rest is right is judged against Prometheus itself, in the end-to-end tests.

use super::*;
use crate::selector::Selector;

const SECOND: i64 = 1_000_000_000;

/// Series by name and labels, with points of seconds and values.
struct Memory(Vec<(tidelog_record::Series, Vec<i64>, Vec<f64>)>);

impl Source for Memory {
    fn select(&self, selector: &Selector, start_ns: i64, end_ns: i64, visit: &mut Visit) -> Visited {
        for (series, times, values) in self.0.iter().filter(|(series, ..)| selector.matches(series)) {
            let from = times.partition_point(|time| *time < start_ns);
            let to = times.partition_point(|time| *time <= end_ns);
            if from < to {
                visit(Labels::from(series), Standing::Sampled, &times[from..to], &values[from..to])?;
            }
        }
        Ok(())
    }
}

/// Metric, labels, points.
type Written<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [(i64, f64)]);

fn memory(series: &[Written]) -> Memory {
    let of = |(metric, labels, points): &Written| {
        let series = tidelog_record::Series::new(*metric, labels.iter().copied()).unwrap();
        (series, points.iter().map(|p| p.0 * SECOND).collect(), points.iter().map(|p| p.1).collect())
    };
    Memory(series.iter().map(of).collect())
}

fn bounds() -> Bounds {
    Bounds::default()
}

fn ask(source: &Memory, query: &str, at: i64) -> Result<Answer, QueryError> {
    instant(&query.parse()?, at * SECOND, &bounds(), source, &|| None)
}

/// The values of a vector, as they stand.
fn values(source: &Memory, query: &str, at: i64) -> Vec<f64> {
    match ask(source, query, at).unwrap() {
        Answer::Vector(_, found) => found.into_iter().map(|(_, value)| value).collect(),
        Answer::Scalar(_, value) => vec![value],
        other => panic!("{other:?}"),
    }
}

fn refusal(source: &Memory, query: &str) -> String {
    match ask(source, query, 100) {
        Err(QueryError::Execution(message)) => message,
        other => panic!("{other:?}"),
    }
}

/// Seconds and values of the only row of a range query.
fn row(source: &Memory, query: &str, start: i64, end: i64, step: i64) -> Vec<(i64, f64)> {
    let steps = (start * SECOND, end * SECOND, step * SECOND);
    match range(&query.parse().unwrap(), steps, &bounds(), source, &|| None).unwrap() {
        Answer::Matrix(rows) => {
            assert!(rows.len() < 2, "{rows:?}");
            rows.iter().flat_map(|row| row.points().map(|(at, value)| (at / SECOND, value))).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_sample_is_seen_until_it_is_older_than_the_look_back() {
    let one = memory(&[("m", &[], &[(1000, 7.0)])]);
    assert_eq!(row(&one, "m", 999, 1000, 1), [(1000, 7.0)]);
    assert_eq!(
        row(&one, "m", 1299, 1302, 1),
        [(1299, 7.0), (1300, 7.0)],
        "the end of the look-back is within"
    );
    let short = Bounds { lookback_ns: 10 * SECOND, ..bounds() };
    let at = |seconds: i64| match instant(&"m".parse().unwrap(), seconds * SECOND, &short, &one, &|| None)
        .unwrap()
    {
        Answer::Vector(_, found) => found.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!((at(1010), at(1011)), (1, 0));
}

#[test]
fn a_series_that_is_marked_as_ended_is_gone_at_once_and_the_mark_is_no_sample() {
    let stale = f64::from_bits(STALE_BITS);
    let ended = memory(&[("m", &[], &[(0, 1.0), (10, 2.0), (20, stale), (40, 4.0)])]);
    assert_eq!(row(&ended, "m", 0, 50, 10), [(0, 1.0), (10, 2.0), (40, 4.0), (50, 4.0)]);
    assert_eq!(values(&ended, "count_over_time(m[1m])", 50), [3.0]);
    assert_eq!(values(&ended, "sum_over_time(m[1m])", 50), [7.0]);
    assert!(values(&ended, "last_over_time(m[15s])", 30).is_empty(), "only the mark lies in the window");
    let nan = memory(&[("m", &[], &[(0, f64::NAN)])]);
    assert!(values(&nan, "m", 0)[0].is_nan(), "an ordinary NaN is a value");
}

#[test]
fn both_ends_of_a_window_are_within_it() {
    let m = memory(&[("m", &[], &[(0, 1.0), (10, 1.0), (20, 1.0), (30, 1.0)])]);
    assert_eq!(values(&m, "count_over_time(m[20s])", 30), [3.0]);
    assert_eq!(values(&m, "count_over_time(m[20s] offset 5s)", 30), [2.0]);
    assert_eq!(values(&m, "count_over_time(m[20s] offset -10s)", 10), [3.0]);
    assert_eq!(values(&m, "count_over_time(m[20s] @ 20)", 1000), [3.0]);
}

#[test]
fn a_rate_is_extrapolated_to_the_ends_that_samples_come_near() {
    let even: Vec<(i64, f64)> = (0..7).map(|i| (i * 10, i as f64 * 10.0)).collect();
    let m = memory(&[("m", &[], &even)]);
    assert_eq!(values(&m, "rate(m[1m])", 60), [1.0]);
    // The window begins 5 s before its first sample and ends 5 s behind its last.
    assert_eq!(values(&m, "increase(m[30s])", 45), [30.0]);
    // 20 s without samples at the end: more than 1.1 times the distance of samples, so half of one is added.
    assert_eq!(values(&m, "increase(m[60s])", 80), [40.0 * (40.0 + 5.0) / 40.0]);
    // The counter would have been zero only 5 s before its first sample: no further back.
    let young = memory(&[("m", &[], &[(50, 5.0), (60, 15.0)])]);
    assert_eq!(values(&young, "increase(m[18s])", 60), [15.0]);
    assert_eq!(values(&young, "delta(m[18s])", 60), [18.0], "a gauge knows no zero");
    assert!(values(&young, "rate(m[5s])", 60).is_empty(), "one sample has no rate");
}

#[test]
fn a_counter_that_falls_has_restarted_from_zero() {
    let m = memory(&[("m", &[], &[(0, 10.0), (10, 20.0), (20, 5.0), (30, 15.0)])]);
    assert_eq!(values(&m, "increase(m[30s])", 30), [25.0]);
    assert_eq!(values(&m, "irate(m[30s])", 20), [0.5]);
    assert_eq!(values(&m, "idelta(m[30s])", 20), [-15.0]);
    assert_eq!(values(&m, "resets(m[30s])", 30), [1.0]);
    assert_eq!(values(&m, "changes(m[30s])", 30), [3.0]);
}

#[test]
fn a_subquery_stands_on_multiples_of_its_step() {
    let m = memory(&[("m", &[], &[(0, 1.0)])]);
    assert_eq!(values(&m, "count_over_time(vector(1)[60s:10s])", 65), [6.0]);
    assert_eq!(values(&m, "count_over_time(vector(1)[60s:10s])", 60), [7.0]);
    assert_eq!(values(&m, "min_over_time(vector(time())[60s:7s])", 101), [42.0]);
    assert_eq!(values(&m, "count_over_time(m[2m:])", 121), [2.0], "the step that is configured");
}

#[test]
fn start_and_end_are_those_of_the_whole_query() {
    let m = memory(&[("m", &[], &[(0, 1.0), (100, 2.0)])]);
    assert_eq!(row(&m, "m @ end()", 0, 100, 50), [(0, 2.0), (50, 2.0), (100, 2.0)]);
    assert_eq!(row(&m, "m @ start()", 0, 100, 50), [(0, 1.0), (50, 1.0), (100, 1.0)]);
    assert_eq!(row(&m, "max_over_time((m @ end())[10s:10s])", 0, 100, 100), [(0, 2.0), (100, 2.0)]);
}

#[test]
fn what_matches_twice_is_refused_with_the_series_that_do() {
    let m = memory(&[
        ("l", &[("a", "1"), ("b", "1")], &[(100, 1.0)]),
        ("l", &[("a", "1"), ("b", "2")], &[(100, 2.0)]),
        ("r", &[("a", "1"), ("c", "x")], &[(100, 10.0)]),
    ]);
    assert!(refusal(&m, "l + on (a) r").starts_with("multiple matches for labels: many-to-one"));
    let message = refusal(&m, "r + on (a) l");
    assert!(
        message.starts_with("found duplicate series for the match group {a=\"1\"} on the right hand-side")
    );
    assert!(message.contains("{__name__=\"l\", a=\"1\", b=\"2\"}"), "{message}");
    assert!(refusal(&m, "l + on (a) group_left (b) r").starts_with("multiple matches for labels: grouping"));
    assert_eq!(values(&m, "l + on (a) group_left r", 100), [11.0, 12.0]);
    assert_eq!(values(&m, "r - on (a) group_right l", 100), [9.0, 8.0]);
    assert!(refusal(&m, "label_replace(l, \"b\", \"\", \"b\", \".*\")").starts_with("vector cannot contain"));
}

#[test]
fn series_may_share_what_is_left_of_their_labels_as_long_as_they_take_turns() {
    let turns = memory(&[("a", &[], &[(0, 1.0)]), ("b", &[], &[(600, 2.0)])]);
    let query = "abs({__name__=~\"a|b\"})";
    assert_eq!(row(&turns, query, 0, 600, 300), [(0, 1.0), (300, 1.0), (600, 2.0)]);
    assert!(ask(&turns, "rate({__name__=~\"a|b\"}[20m])", 600).is_ok(), "one sample each has no rate");
    assert!(matches!(
        ask(&turns, "sum_over_time({__name__=~\"a|b\"}[20m])", 600),
        Err(QueryError::Execution(_))
    ));
}

#[test]
fn bounds_hold_and_a_query_that_nobody_waits_for_ends() {
    let points: Vec<(i64, f64)> = (0..1000).map(|i| (i, 1.0)).collect();
    let m = memory(&[("m", &[("a", "1")], &points), ("m", &[("a", "2")], &points)]);
    let with = |bounds: Bounds, query: &str| {
        range(&query.parse().unwrap(), (0, 999 * SECOND, SECOND), &bounds, &m, &|| None).unwrap_err()
    };
    let few = Bounds { samples_max: 1500, ..bounds() };
    assert_eq!(with(few, "m"), QueryError::Samples { most: 1500 });
    assert_eq!(with(few, "vector(1)[1d:1ms]").to_string().split(' ').next(), Some("invalid"), "a matrix");
    assert_eq!(with(few, "sum_over_time(vector(1)[1d:1ms])"), QueryError::Samples { most: 1500 });
    assert_eq!(with(Bounds { series_max: 1, ..bounds() }, "m"), QueryError::Series { most: 1 });
    assert!(matches!(with(Bounds { steps_max: 998, ..bounds() }, "m"), QueryError::Range(_)));
    for (halt, error) in [(Halt::Cancelled, QueryError::Cancelled), (Halt::TimedOut, QueryError::TimedOut)] {
        let steps = (0, 999 * SECOND, SECOND);
        let ended = range(&"rate(m[10m])".parse().unwrap(), steps, &bounds(), &m, &|| Some(halt));
        assert_eq!(ended.unwrap_err(), error);
    }
}

#[test]
fn times_at_the_ends_of_what_can_be_counted_do_not_overflow() {
    let m = memory(&[("m", &[], &[(0, 1.0)])]);
    for at in [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX - 1, i64::MAX] {
        for query in [
            "m",
            "m offset 292y",
            "m offset -292y",
            "rate(m[100y] offset 200y)",
            "sum_over_time(m[1h:1m] offset -292y)",
            "m @ 1e10",
            "m @ -1e10",
            "year()",
        ] {
            drop(instant(&query.parse().unwrap(), at, &bounds(), &m, &|| None));
        }
    }
    let all = (i64::MIN, i64::MAX, 365 * 86_400 * SECOND);
    assert!(range(&"m".parse().unwrap(), all, &bounds(), &m, &|| None).is_ok());
}

#[test]
fn finer_times_than_milliseconds_are_kept_apart() {
    let series = tidelog_record::Series::new("m", [("a", "1")]).unwrap();
    let m = Memory(vec![(series, vec![1_000, 2_000, 3_000], vec![1.0, 2.0, 4.0])]);
    let found = instant(&"irate(m[1s])".parse().unwrap(), 3_000, &bounds(), &m, &|| None).unwrap();
    assert!(matches!(found, Answer::Vector(_, v) if (v[0].1 - 2.0 / 1e-6).abs() < 1e-3));
}

/// One series that holds what it was last said to be.
struct Said(Vec<(i64, f64)>);

impl Source for Said {
    fn select(&self, _: &Selector, start_ns: i64, end_ns: i64, visit: &mut Visit) -> Visited {
        let newest_before = self.0.iter().rposition(|(at, _)| *at <= start_ns).unwrap_or(0);
        let seen = self.0.iter().skip(newest_before).filter(|(at, _)| *at <= end_ns);
        let (times, values): (Vec<i64>, Vec<f64>) = seen.copied().unzip();
        if times.is_empty() {
            return Ok(());
        }
        visit(Labels::new([(METRIC_LABEL, "m")]), Standing::Held, &times, &values)
    }
}

proptest::proptest! {
    /// The model looks at each instant of the window by itself: what was said last, if it was not that the series ended.
    #[test]
    fn what_is_held_is_seen_until_something_else_is_said_however_long_that_takes(
        changes in proptest::collection::btree_map(0..400i64, proptest::option::of(1..9i64), 1..8),
        at in 0..500i64, window in 1..60i64,
    ) {
        let stale = f64::from_bits(STALE_BITS);
        let value = |said: &Option<i64>| said.map_or(stale, |value| value as f64);
        let said = Said(changes.iter().map(|(at, said)| (at * SECOND, value(said))).collect());
        let short = Bounds { lookback_ns: SECOND, ..bounds() };
        let ask = |query: &str| match instant(&query.parse().unwrap(), at * SECOND, &short, &said, &|| None).unwrap() {
            Answer::Vector(_, found) => found.into_iter().map(|(_, value)| value).collect::<Vec<_>>(),
            Answer::Matrix(rows) => rows.iter().flat_map(|row| row.points().map(|(_, value)| value)).collect(),
            other => panic!("{other:?}"),
        };
        let holds = |at: i64| changes.range(..=at).next_back().and_then(|(_, said)| *said).map(|value| value as f64);
        proptest::prop_assert_eq!(ask("m"), holds(at).into_iter().collect::<Vec<_>>());
        let start = at - window;
        let within = changes.range(start + 1..=at).filter_map(|(_, said)| said.map(|value| value as f64));
        let model: Vec<f64> = holds(start).into_iter().chain(within).collect();
        proptest::prop_assert_eq!(&ask(&format!("m[{window}s]")), &model);
        let counted: Vec<f64> = (!model.is_empty()).then_some(model.len() as f64).into_iter().collect();
        proptest::prop_assert_eq!(ask(&format!("count_over_time(m[{window}s])")), counted);
        proptest::prop_assert_eq!(ask(&format!("last_over_time(m[{window}s])")), model.last().copied().into_iter().collect::<Vec<_>>());
    }
}
