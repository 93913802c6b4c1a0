//! The rim of the rules: it hands them the log as it grows and the time as it passes, and puts what comes of it into the log.
//!
//! A session begins with what the log says: which rules fire for which series, and the points that are still judged. Whatever goes
//! wrong ends the session, and the next one begins so again: that is all that a crash is, too. No rule judges anything before the
//! machine's clock is set.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tidelog_record::{Batch, BatchError, BodyReader, Entry, Opened, Series, SeriesError, SiteName, Value};
use tidelog_store::catalogue::{CatalogueError, MatchOp, Matcher, MatcherError};
use tidelog_store::{AppendError, Position, ReadError, ScanError};
use tokio::sync::{MutexGuard as Held, Notify, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::condition::Condition;
use super::machine::{AHEAD_NS_MAX, Machine, Now, Transition};
use super::record::{self, METRIC};
use super::{CommandForm, Rule, Rules};
use crate::asking;
use crate::backoff::{Backoff, random};
use crate::clock::EARLIEST_MS;
use crate::command::issue::order;
use crate::context::NodeContext;

/// Most bytes of records read from the log at a time.
const READ_BYTES_MAX: usize = 256 * 1024;

/// Most transitions that share a record: the longest names of so many still fit into one.
const TRANSITIONS_PER_RECORD_MAX: usize = 16;

/// Transitions after which no further record is read until they are in the log.
const TRANSITIONS_AT_ONCE_MAX: usize = 1024;

/// How often it is looked whether something is missing, and whether the clock is set.
const TICK: Duration = Duration::from_secs(1);

/// A series that was silent for longer before a start is not watched for silence until it speaks again, ns: a week.
const SILENT_NS_MAX: i64 = 7 * 24 * 3600 * 1_000_000_000;

/// Most series told of in the status, of those that a rule fires for.
const FIRING_TOLD_MAX: usize = 100;

const NS_PER_MS: i64 = 1_000_000;
const DEVICE_LABEL: &str = "device";
const NAME_LABEL: &str = "__name__";

/// Why a session ends.
#[derive(Debug, thiserror::Error)]
enum SessionEnd {
    #[error(transparent)]
    Matcher(#[from] MatcherError),
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    #[error(transparent)]
    Scan(#[from] ScanError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("a transition is not recorded: {0}")]
    Append(#[from] AppendError),
    #[error("a transition cannot be written: {0}")]
    Batch(#[from] BatchError),
    #[error("a transition cannot be written: {0}")]
    Series(#[from] SeriesError),
    #[error("the work broke off: {0}")]
    Broken(String),
}

/// How the rules are, for the status document.
#[derive(Debug, Default)]
struct Seen {
    /// Why nothing is judged.
    resting: Option<&'static str>,
    watched: usize,
    /// Since when, ns.
    firing: BTreeMap<(SiteName, String, Series), i64>,
    last_error: Option<String>,
}

/// Starts the rules of a node, if there are any.
pub fn start(context: &NodeContext, rules: &Rules) {
    if rules.0.is_none() {
        return;
    }
    let seen = Arc::new(Mutex::new(Seen::default()));
    let (shown, count) = (Arc::clone(&seen), rules.all().len());
    context.status.section("rules", move || as_json(&lock(&shown), count));
    let follower = Follower { context: context.clone(), rules: rules.clone(), seen, began: Instant::now() };
    context.tasks.spawn(follower.run());
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    // It is whole after each assignment.
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn as_json(seen: &Seen, rules: usize) -> Json {
    let told = seen.firing.iter().take(FIRING_TOLD_MAX).map(|((site, rule, series), since_ns)| {
        json!({"rule": rule, "site": site.as_str(), "series": series.to_string(), "since_ms": since_ns / NS_PER_MS})
    });
    json!({
        "rules": rules,
        "watched": seen.watched,
        "firing_series": seen.firing.len(),
        "firing": told.collect::<Vec<_>>(),
        "resting": seen.resting,
        "last_error": seen.last_error,
    })
}

/// The rules of each site.
type Machines = BTreeMap<SiteName, Machine>;

/// Transitions of a site, in order.
type Transitions = Vec<(SiteName, Vec<Transition>)>;

struct Follower {
    context: NodeContext,
    rules: Rules,
    seen: Arc<Mutex<Seen>>,
    began: Instant,
}

impl Follower {
    async fn run(self) {
        let shutdown = self.context.shutdown.clone();
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = Arc::new(self).live() => {}
        }
    }

    async fn live(self: Arc<Self>) {
        let committed = Arc::new(Notify::new());
        let wake = Arc::clone(&committed);
        self.context.store.on_commit(Box::new(move |_| wake.notify_one()));
        let mut backoff = Backoff::new();
        loop {
            while self.context.now_ms() < EARLIEST_MS {
                lock(&self.seen).resting = Some("the clock is not set");
                sleep(TICK).await;
            }
            lock(&self.seen).resting = None;
            let end = self.session(&committed, &mut backoff).await;
            let Err(error) = end;
            self.failed(&error.to_string());
            tracing::error!(%error, "the rules begin anew");
            sleep(backoff.next(random())).await;
        }
    }

    async fn session(
        self: &Arc<Self>,
        committed: &Notify,
        backoff: &mut Backoff,
    ) -> Result<std::convert::Infallible, SessionEnd> {
        let this = Arc::clone(self);
        let (mut machines, mut read_up_to, transitions) = blocking(move || this.begin()).await?;
        self.show(&machines);
        self.carry_out(transitions).await?;
        backoff.reset();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let this = Arc::clone(self);
            let (stepped, position, transitions, more) =
                blocking(move || this.step(machines, read_up_to)).await?;
            (machines, read_up_to) = (stepped, position);
            self.carry_out(transitions).await?;
            self.count(&mut machines);
            if more {
                continue;
            }
            tokio::select! {
                () = committed.notified() => {}
                _ = tick.tick(), if self.rules.all().iter().any(|rule| is_of_silence(rule)) => {}
            }
        }
    }

    fn is_over(&self) -> bool {
        self.context.shutdown.is_cancelled()
    }

    fn now(&self) -> Now {
        Now { wall_ns: self.context.now_ms().saturating_mul(NS_PER_MS), steady: self.began.elapsed() }
    }

    /// Everything as the log says it, and where to read on. What comes meanwhile is read twice, and the second time is late.
    fn begin(&self) -> Result<(Machines, Position, Transitions), SessionEnd> {
        let (head, now) = (self.context.store.head(), self.now());
        let mut of_sites: BTreeMap<SiteName, Vec<Arc<Rule>>> = BTreeMap::new();
        // Also where no rule is any more, something may fire.
        of_sites.insert(self.context.site.clone(), Vec::new());
        for rule in self.rules.all() {
            of_sites.entry(rule.site.clone()).or_default().push(Arc::clone(rule));
        }
        let (mut machines, mut transitions) = (Machines::new(), Transitions::new());
        for (site, rules) in of_sites {
            let mut machine = Machine::new(rules.clone(), self.context.store.node());
            let mut out = self.recall(&site, &mut machine, now)?;
            for rule in &rules {
                self.replay(&site, rule, &mut machine, now)?;
            }
            machine.judge(now, &mut out);
            transitions.push((site.clone(), out));
            machines.insert(site, machine);
        }
        Ok((machines, head, transitions))
    }

    /// Tells the machine what is recorded. What fires and is watched no more ends here.
    fn recall(
        &self,
        site: &SiteName,
        machine: &mut Machine,
        now: Now,
    ) -> Result<Vec<Transition>, SessionEnd> {
        let (store, node) = (&self.context.store, self.context.store.node());
        let told =
            asking::chosen(store, site, &vec![vec![Matcher::new(NAME_LABEL, MatchOp::Equal, METRIC)?]])?;
        let mut ended = Vec::new();
        for (told, at, value) in store.last(site, &told, &|| self.is_over())? {
            let (Some((rule, series)), Some(firing)) =
                (record::watched(&told, node), record::is_firing(&value))
            else {
                continue;
            };
            if !machine.recall(&rule, &series, at, firing, now) && firing {
                let at_ns = now.wall_ns.max(at.saturating_add(1));
                ended.push(Transition { rule, series, firing: false, at_ns, value: None });
            }
        }
        Ok(ended)
    }

    /// Shows the machine the points that the rule still judges.
    fn replay(
        &self,
        site: &SiteName,
        rule: &Rule,
        machine: &mut Machine,
        now: Now,
    ) -> Result<(), SessionEnd> {
        let store = &self.context.store;
        let series = asking::chosen(
            store,
            site,
            &asking::alternatives(rule.selector.alternatives().iter().map(Vec::as_slice))?,
        )?;
        if is_of_silence(rule) {
            let oldest = now.wall_ns.saturating_sub(SILENT_NS_MAX);
            for (series, at, value) in store.last(site, &series, &|| self.is_over())? {
                if at >= oldest {
                    machine.replay(&rule.name, &series, std::iter::once((at, value)), now);
                }
            }
            return Ok(());
        }
        let range = now.wall_ns.saturating_sub(rule.fresh_ns)..=now.wall_ns.saturating_add(AHEAD_NS_MAX);
        asking::each_points(store, site, &series, range, |series, points| {
            machine.replay(&rule.name, series, points.iter(), now);
            if self.is_over() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(())
    }

    /// Takes what has come and what has not; whether there may be more to read.
    fn step(
        &self,
        mut machines: Machines,
        after: Position,
    ) -> Result<(Machines, Position, Transitions, bool), SessionEnd> {
        let records = self.context.store.follow(after, READ_BYTES_MAX)?;
        let now = self.now();
        let (mut transitions, mut count) = (Transitions::new(), 0);
        let mut entry = Entry::default();
        let mut last = after;
        for (position, record) in &records {
            last = *position;
            let Some(machine) = machines.get_mut(&record.stream.site) else { continue };
            // What cannot be read was refused or told of where it came in.
            let Ok(Opened::Points(mut reader)) = BodyReader::open(&record.body) else { continue };
            let mut out = Vec::new();
            while reader.next(&mut entry).unwrap_or(false) {
                let values = entry.times.iter().enumerate();
                let points = values.filter_map(|(index, at)| Some((*at, entry.values.get(index)?)));
                machine.take(&entry.canonical, points, now, &mut out);
            }
            count += out.len();
            transitions.push((record.stream.site.clone(), out));
            if count >= TRANSITIONS_AT_ONCE_MAX {
                break;
            }
        }
        // As long as there is more to read, what seems to be missing may stand there.
        for (site, machine) in machines.iter_mut().filter(|_| records.is_empty()) {
            let mut out = Vec::new();
            machine.elapse(now, &mut out);
            transitions.push((site.clone(), out));
        }
        Ok((machines, last, transitions, !records.is_empty()))
    }

    /// Records transitions with all that follows from them.
    async fn carry_out(&self, transitions: Transitions) -> Result<(), SessionEnd> {
        for (site, transitions) in transitions {
            let mut waiting = Waiting::default();
            for transition in transitions {
                let rule = self.rules.named(&site, &transition.rule);
                let metric = rule.and_then(|rule| rule.metric.as_deref());
                waiting.points.extend(record::points(&transition, metric, self.context.store.node())?);
                let has_command = match rule.and_then(|rule| rule.command.as_ref()) {
                    Some(form) => self.add_command(&site, form, &transition, &mut waiting).await,
                    None => false,
                };
                waiting.transitions.push(transition);
                // The next command is given its id when this one is in the log.
                if has_command || waiting.transitions.len() >= TRANSITIONS_PER_RECORD_MAX {
                    self.write(&site, std::mem::take(&mut waiting)).await?;
                }
            }
            self.write(&site, waiting).await?;
        }
        Ok(())
    }

    /// Adds the command that a transition gives; whether there is one.
    async fn add_command<'a>(
        &'a self,
        site: &SiteName,
        form: &CommandForm,
        transition: &Transition,
        waiting: &mut Waiting<'a>,
    ) -> bool {
        let Some(wish) = (if transition.firing { Some(form.begins) } else { form.clears }) else {
            return false;
        };
        let of_series = || transition.series.label(DEVICE_LABEL).and_then(|label| label.parse().ok());
        let outcome = match form.device.or_else(of_series) {
            None => {
                Err("the series has no label device with 16 hex digits, and command.device is not set"
                    .to_owned())
            }
            Some(device) => {
                waiting.issuing = Some(self.context.issuing.hold().await);
                order(&self.context, site, device, wish).await.map_err(|error| error.to_string())
            }
        };
        let label = if outcome.is_ok() { "issued" } else { "refused" };
        match outcome {
            Ok((order, point)) => {
                tracing::info!(target: "audit", rule = transition.rule, id = %order.id, device = %order.device, "command by rule");
                waiting.points.push(point);
                waiting.commands += 1;
            }
            Err(reason) => {
                tracing::error!(rule = transition.rule, series = %transition.series, reason, "a rule's command is refused");
                self.failed(&format!("rule {}: its command is refused: {reason}", transition.rule));
                waiting.issuing = None;
            }
        }
        self.context.metrics.rule_commands.with_label_values(&[label]).inc();
        label == "issued"
    }

    async fn write(&self, site: &SiteName, waiting: Waiting<'_>) -> Result<(), SessionEnd> {
        if waiting.transitions.is_empty() {
            return Ok(());
        }
        let series =
            waiting.points.into_iter().map(|(series, at, value)| (series, vec![(at, value)])).collect();
        let record = Batch { authored_ms: self.context.now_ms(), origin: None, series }.encode()?;
        let (done, outcome) = oneshot::channel();
        // An ending node hears no answer, and begins from what is recorded.
        self.context.store.append(site, record, move |appended| drop(done.send(appended)));
        outcome.await.map_err(|error| SessionEnd::Broken(error.to_string()))??;
        drop(waiting.issuing);
        self.context.metrics.commands_issued.inc_by(waiting.commands);
        for transition in waiting.transitions {
            self.told(site, transition);
        }
        Ok(())
    }

    fn told(&self, site: &SiteName, Transition { rule, series, firing, at_ns, .. }: Transition) {
        let word = if firing { "begins" } else { "clears" };
        tracing::info!(rule, site = site.as_str(), %series, at_ns, "a rule {word}");
        self.context.metrics.rule_transitions.with_label_values(&[&rule, word]).inc();
        let gauge = self.context.metrics.rule_firing.with_label_values(&[&rule]);
        let (mut seen, key) = (lock(&self.seen), (site.clone(), rule, series));
        if firing {
            let began = seen.firing.insert(key, at_ns).is_none();
            gauge.add(i64::from(began));
        } else if seen.firing.remove(&key).is_some() {
            gauge.dec();
        }
    }

    fn show(&self, machines: &Machines) {
        let firing = machines.iter().flat_map(|(site, machine)| {
            let key = |rule: &str, series| (site.clone(), rule.to_owned(), series);
            machine.firing().map(move |(rule, series, since)| (key(rule, series), since))
        });
        let (mut seen, gauges) = (lock(&self.seen), &self.context.metrics.rule_firing);
        seen.firing = firing.collect();
        for rule in self.rules.all() {
            gauges.with_label_values(&[&rule.name]).set(0);
        }
        for (_, rule, _) in seen.firing.keys() {
            gauges.with_label_values(&[rule]).inc();
        }
    }

    /// Counts what was passed over.
    fn count(&self, machines: &mut Machines) {
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
                self.context.metrics.rule_passed_over.with_label_values(&[reason]).inc_by(count);
            }
            if passed.no_room > 0 {
                self.failed(&format!("the rules of {site} match more series than can be watched"));
            }
        }
        lock(&self.seen).watched = watched;
    }

    fn failed(&self, reason: &str) {
        lock(&self.seen).last_error = Some(reason.to_owned());
    }
}

/// Transitions that become one record, and what else stands in it.
#[derive(Default)]
struct Waiting<'a> {
    transitions: Vec<Transition>,
    points: Vec<(Series, i64, Value)>,
    commands: u64,
    /// Held while there is a command among them.
    issuing: Option<Held<'a, ()>>,
}

fn is_of_silence(rule: &Rule) -> bool {
    matches!(rule.condition, Condition::Missing { .. })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SessionEnd> + Send + 'static,
) -> Result<T, SessionEnd> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(SessionEnd::Broken(error.to_string())),
    }
}
