//! What is told of the rules: the section of the status document, and the metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value as Json, json};
use tidelog_record::{Series, SiteName};

use super::Rules;
use super::follow::Machines;
use super::machine::Transition;
use crate::metrics::Metrics;

/// Most series told of in the status, of those that a rule fires for.
const FIRING_TOLD_MAX: usize = 100;

const NS_PER_MS: i64 = 1_000_000;

/// The board.
pub(super) struct Board {
    rules: Rules,
    metrics: Arc<Metrics>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Why nothing is judged.
    resting: Option<&'static str>,
    watched: usize,
    /// Since when, ns.
    firing: BTreeMap<(SiteName, String, Series), i64>,
    last_error: Option<String>,
}

impl Board {
    pub fn new(rules: &Rules, metrics: Arc<Metrics>) -> Self {
        Self { rules: rules.clone(), metrics, seen: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        // It is whole after each assignment.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the status document.
    pub fn as_json(&self) -> Json {
        let seen = self.lock();
        let told = seen.firing.iter().take(FIRING_TOLD_MAX).map(|((site, rule, series), since_ns)| {
            json!({
                "rule": rule, "site": site.as_str(), "series": series.to_string(), "since_ms": since_ns / NS_PER_MS,
            })
        });
        json!({
            "rules": self.rules.all().len(),
            "watched": seen.watched,
            "firing_series": seen.firing.len(),
            "firing": told.collect::<Vec<_>>(),
            "resting": seen.resting,
            "last_error": seen.last_error,
        })
    }

    /// Why nothing is judged now.
    pub fn rests(&self, reason: Option<&'static str>) {
        self.lock().resting = reason;
    }

    /// Something did not go as the rules have it.
    pub fn failed(&self, reason: &str) {
        self.lock().last_error = Some(reason.to_owned());
    }

    /// A session begins with what fires.
    pub fn begins(&self, machines: &Machines) {
        let firing = machines.iter().flat_map(|(site, machine)| {
            let key = |rule: &str, series| (site.clone(), rule.to_owned(), series);
            machine.firing().map(move |(rule, series, since)| (key(rule, series), since))
        });
        let (mut seen, gauges) = (self.lock(), &self.metrics.rule_firing);
        seen.firing = firing.collect();
        for rule in self.rules.all() {
            gauges.with_label_values(&[&rule.name]).set(0);
        }
        for (_, rule, _) in seen.firing.keys() {
            gauges.with_label_values(&[rule]).inc();
        }
    }

    /// A transition is in the log.
    pub fn changed(&self, site: &SiteName, Transition { rule, series, firing, at_ns, .. }: Transition) {
        let word = if firing { "begins" } else { "clears" };
        tracing::info!(rule, site = site.as_str(), %series, at_ns, "a rule {word}");
        self.metrics.rule_transitions.with_label_values(&[&rule, word]).inc();
        let gauge = self.metrics.rule_firing.with_label_values(&[&rule]);
        let (mut seen, key) = (self.lock(), (site.clone(), rule, series));
        if firing {
            let began = seen.firing.insert(key, at_ns).is_none();
            gauge.add(i64::from(began));
        } else if seen.firing.remove(&key).is_some() {
            gauge.dec();
        }
    }

    /// Counts what was passed over.
    pub fn count(&self, machines: &mut Machines) {
        let mut watched = 0;
        for (site, machine) in machines {
            watched += machine.tracks();
            let passed = machine.passed_over();
            let reasons = [
                ("late", passed.late),
                ("old", passed.old),
                ("ahead", passed.ahead),
                ("no_number", passed.no_number),
                ("no_room", passed.no_room),
                ("labels", passed.labels),
            ];
            for (reason, count) in reasons {
                self.metrics.rule_passed_over.with_label_values(&[reason]).inc_by(count);
            }
            if passed.no_room > 0 {
                self.failed(&format!("the rules of {site} match more series than can be watched"));
            }
        }
        self.lock().watched = watched;
    }
}
