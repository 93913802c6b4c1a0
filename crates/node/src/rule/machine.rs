//! The rules of one site and every series that they watch, as a pure state machine: points and times in, transitions out. It is begun
//! anew at each start, from the transitions in the log and the points of the near past, and knows no log, no socket and no clock.
//!
//! A rule judges the present. A point that is older than the rule's `fresh` when it is read, from ahead of the clock, or not newer than
//! the newest of its series changes nothing; each is counted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tidelog_record::{NodeId, Series, Value};

use super::Rule;
use super::condition::{Condition, Track};
use super::record::may_be_watched;

/// Most series that the rules of one site watch, each rule's counted for itself. One takes up to a kilobyte.
pub(super) const TRACKS_MAX: usize = 10_000;

/// Most series of a site that are remembered by name, so that they need not be held against every rule again.
const KNOWN_SERIES_MAX: usize = 16_384;

/// How far ahead of this node's clock a point may be to be judged, ns.
pub(super) const AHEAD_NS_MAX: i64 = 60_000_000_000;

/// How often room is looked for when there is none.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Both clocks when something came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// The machine's, Unix ns.
    pub wall_ns: i64,
    /// One that nobody sets.
    pub steady: Duration,
}

/// A rule begins or clears for a series.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Transition {
    pub rule: String,
    pub series: Series,
    /// It begins.
    pub firing: bool,
    /// Later than the transition before it.
    pub at_ns: i64,
    /// What was measured; nothing where the condition is that nothing was.
    pub value: Option<f64>,
}

/// What was passed over, by reason, since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PassedOver {
    /// Points not newer than the newest.
    pub late: u64,
    /// Points older than the rule judges.
    pub old: u64,
    /// Points from ahead of the clock.
    pub ahead: u64,
    /// Points without a number where one is compared.
    pub no_number: u64,
    /// Series that a rule would watch, had there been room.
    pub no_room: u64,
    /// Series that a rule would watch, had they other labels.
    pub labels: u64,
}

/// The machine.
#[derive(Debug)]
pub(super) struct Machine {
    rules: Vec<Arc<Rule>>,
    node: NodeId,
    /// By canonical form: what is remembered for each rule that watches it. None watches many.
    series: HashMap<Vec<u8>, Vec<(usize, Track)>>,
    tracks: usize,
    tracks_max: usize,
    swept: Option<Duration>,
    passed_over: PassedOver,
}

impl Machine {
    pub fn new(rules: Vec<Arc<Rule>>, node: NodeId) -> Self {
        let (series, passed_over) = (HashMap::new(), PassedOver::default());
        Self { rules, node, series, tracks: 0, tracks_max: TRACKS_MAX, swept: None, passed_over }
    }

    /// How many series are watched, each rule's counted for itself.
    pub fn tracks(&self) -> usize {
        self.tracks
    }

    /// What was passed over since this was last asked.
    pub fn passed_over(&mut self) -> PassedOver {
        std::mem::take(&mut self.passed_over)
    }

    /// Points of a series come, in the order in which they stand in the log.
    pub fn take(
        &mut self,
        canonical: &[u8],
        points: impl Iterator<Item = (i64, Value)>,
        now: Now,
        out: &mut Vec<Transition>,
    ) {
        self.know(canonical, now);
        let Some(tracks) = self.series.get_mut(canonical).filter(|tracks| !tracks.is_empty()) else { return };
        for (at_ns, value) in points {
            for (index, track) in &mut *tracks {
                let Some(rule) = self.rules.get(*index) else { continue };
                track.heard = now.steady;
                let should_fire = match rule.condition {
                    Condition::Missing { .. } => false,
                    _ => match fresh(rule, track.newest_ns.max(track.changed_ns), at_ns, &value, now) {
                        Ok(value) => {
                            track.observe(&rule.condition, rule.fresh_ns, at_ns, value);
                            track.should_fire(&rule.condition)
                        }
                        Err(reason) => {
                            *reason(&mut self.passed_over) += 1;
                            continue;
                        }
                    },
                };
                out.extend(settle(rule, canonical, track, should_fire, now));
            }
        }
    }

    /// Time passes: what should have come by now has not.
    pub fn elapse(&mut self, now: Now, out: &mut Vec<Transition>) {
        for (canonical, tracks) in &mut self.series {
            for (index, track) in tracks {
                let Some(rule) = self.rules.get(*index) else { continue };
                if let Condition::Missing { silence } = rule.condition
                    && now.steady.saturating_sub(track.heard) >= silence
                {
                    out.extend(settle(rule, canonical, track, true, now));
                }
            }
        }
    }

    /// At a start: the last transition that is recorded. False if the rule does not watch the series any more.
    pub fn recall(&mut self, rule: &str, series: &Series, changed_ns: i64, firing: bool, now: Now) -> bool {
        let Some((_, track)) = self.track(rule, series, now) else { return false };
        (track.changed_ns, track.firing) = (changed_ns, firing);
        true
    }

    /// At a start, after all was recalled: points of a series in order of time, from as far back as the rule judges. Nothing comes of
    /// it yet.
    pub fn replay(
        &mut self,
        rule: &str,
        series: &Series,
        points: impl Iterator<Item = (i64, Value)>,
        now: Now,
    ) {
        let Some((rule, track)) = self.track(rule, series, now) else { return };
        let rule = Arc::clone(rule);
        for (at_ns, value) in points {
            if let Condition::Missing { .. } = rule.condition {
                // By their own times alone it is known whether they came before silence was told of, or after.
                track.newest_ns = track.newest_ns.max(at_ns);
            } else if let Ok(value) = fresh(&rule, track.newest_ns, at_ns, &value, now) {
                track.observe(&rule.condition, rule.fresh_ns, at_ns, value);
            }
        }
    }

    /// At a start, at last: every series is judged by its newest point, if no transition is recorded that is as new.
    pub fn judge(&mut self, now: Now, out: &mut Vec<Transition>) {
        for (canonical, tracks) in &mut self.series {
            for (index, track) in tracks {
                let Some(rule) = self.rules.get(*index) else { continue };
                if track.newest_ns <= track.changed_ns {
                    continue;
                }
                let should_fire = match rule.condition {
                    Condition::Missing { .. } => track.firing && track.newest_ns > now.wall_ns,
                    _ => track.should_fire(&rule.condition),
                };
                out.extend(settle(rule, canonical, track, should_fire, now));
            }
        }
    }

    /// What fires, with the time since when.
    pub fn firing(&self) -> impl Iterator<Item = (&str, Series, i64)> {
        self.series.iter().flat_map(|(canonical, tracks)| {
            tracks.iter().filter(|(_, track)| track.firing).filter_map(|(index, track)| {
                let series = Series::from_canonical(canonical).ok()?;
                Some((self.rules.get(*index)?.name.as_str(), series, track.changed_ns))
            })
        })
    }

    fn track(&mut self, rule: &str, series: &Series, now: Now) -> Option<(&Arc<Rule>, &mut Track)> {
        let canonical = series.canonical();
        self.know(&canonical, now);
        let index = self.rules.iter().position(|it| it.name == rule)?;
        let track = self.series.get_mut(&canonical)?.iter_mut().find(|(of, _)| *of == index)?;
        Some((self.rules.get(index)?, &mut track.1))
    }

    /// Makes tracks for a series that is new here.
    fn know(&mut self, canonical: &[u8], now: Now) {
        if self.series.contains_key(canonical) {
            return;
        }
        // The store checked them; what is no series is watched by nobody.
        let Ok(series) = Series::from_canonical(canonical) else { return };
        let mut tracks = Vec::new();
        for (index, rule) in self.rules.iter().enumerate() {
            if !rule.selector.matches(&series) {
                continue;
            }
            if !may_be_watched(&series, &rule.name, self.node) {
                self.passed_over.labels += 1;
            } else if self.tracks + tracks.len() >= self.tracks_max {
                self.passed_over.no_room += 1;
            } else {
                tracks.push((index, Track::new(now.steady)));
            }
        }
        self.tracks += tracks.len();
        if self.series.len() >= KNOWN_SERIES_MAX {
            self.series.retain(|_, tracks| !tracks.is_empty());
        }
        self.series.insert(canonical.to_vec(), tracks);
        if self.tracks >= self.tracks_max {
            self.sweep(now);
        }
    }

    /// Forgets series whose next point is judged the same without a memory, and those that found no room.
    fn sweep(&mut self, now: Now) {
        if self.swept.is_some_and(|last| now.steady.saturating_sub(last) < SWEEP_EVERY) {
            return;
        }
        self.swept = Some(now.steady);
        let rules = &self.rules;
        let is_idle = |(index, track): &(usize, Track)| {
            let silent = |rule: &Arc<Rule>| {
                !matches!(rule.condition, Condition::Missing { .. })
                    && track.newest_ns < now.wall_ns.saturating_sub(rule.fresh_ns)
                    && now.steady.saturating_sub(track.heard) >= SWEEP_EVERY
            };
            !track.firing && rules.get(*index).is_none_or(silent)
        };
        self.series.retain(|_, tracks| !tracks.iter().all(is_idle));
        self.tracks = self.series.values().map(Vec::len).sum();
    }
}

/// The number of a point that is to be judged, or where it is counted that it is not.
fn fresh(
    rule: &Rule,
    newest_ns: i64,
    at_ns: i64,
    value: &Value,
    now: Now,
) -> Result<f64, fn(&mut PassedOver) -> &mut u64> {
    if at_ns > now.wall_ns.saturating_add(AHEAD_NS_MAX) {
        return Err(|passed| &mut passed.ahead);
    }
    if at_ns < now.wall_ns.saturating_sub(rule.fresh_ns) {
        return Err(|passed| &mut passed.old);
    }
    if at_ns <= newest_ns {
        return Err(|passed| &mut passed.late);
    }
    number(value).ok_or(|passed| &mut passed.no_number)
}

/// What is compared. Text has no number, and NaN is none.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::F64(value) => Some(*value).filter(|value| !value.is_nan()),
        #[allow(clippy::cast_precision_loss, reason = "limits are floats")]
        Value::I64(value) => Some(*value as f64),
        Value::Bool(value) => Some(f64::from(u8::from(*value))),
        Value::Text(_) => None,
    }
}

/// Brings a track to what it should be; the transition, if that is one.
fn settle(
    rule: &Rule,
    canonical: &[u8],
    track: &mut Track,
    should_fire: bool,
    now: Now,
) -> Option<Transition> {
    if track.firing == should_fire {
        return None;
    }
    let (value, at_ns) = match rule.condition {
        Condition::Missing { .. } => (None, now.wall_ns),
        _ => (track.value(), track.newest_ns),
    };
    let series = Series::from_canonical(canonical).ok()?;
    track.firing = should_fire;
    track.changed_ns = at_ns.max(track.changed_ns.saturating_add(1));
    Some(Transition { rule: rule.name.clone(), series, firing: should_fire, at_ns: track.changed_ns, value })
}
