//! The rim of the rules: it hands them the log as it grows and the time as it passes, and has carried out what comes of it.
//!
//! A session begins with what the log says: which rules fire for which series, and the points that are still judged. Whatever goes
//! wrong ends the session, and the next one begins so again: that is all that a crash is, too. No rule judges anything before the
//! machine's clock is set.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidelog_record::{BatchError, BodyReader, Entry, Opened, SeriesError, SiteName};
use tidelog_store::catalogue::{CatalogueError, MatchOp, Matcher, MatcherError};
use tidelog_store::{AppendError, Position, ReadError, ScanError};
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::board::Board;
use super::carry::carry_out;
use super::condition::Condition;
use super::machine::{AHEAD_NS_MAX, Machine, Now, Transition};
use super::record::{self, METRIC};
use super::{Rule, Rules};
use crate::asking;
use crate::backoff::{Backoff, random};
use crate::clock::EARLIEST_MS;
use crate::context::NodeContext;

/// Most bytes of records read from the log at a time.
const READ_BYTES_MAX: usize = 256 * 1024;

/// Transitions after which no further record is read until they are in the log.
const TRANSITIONS_AT_ONCE_MAX: usize = 1024;

/// How often it is looked whether something is missing, and whether the clock is set.
const TICK: Duration = Duration::from_secs(1);

/// A series that was silent for longer before a start is not watched for silence until it speaks again, ns: a week.
const SILENT_NS_MAX: i64 = 7 * 24 * 3600 * 1_000_000_000;

const NS_PER_MS: i64 = 1_000_000;
const NAME_LABEL: &str = "__name__";

/// Why a session ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionEnd {
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

/// Starts the rules of a node, if there are any.
pub fn start(context: &NodeContext, rules: &Rules) {
    if rules.0.is_none() {
        return;
    }
    let board = Arc::new(Board::new(rules, Arc::clone(&context.metrics)));
    let shown = Arc::clone(&board);
    context.status.section("rules", move || shown.as_json());
    let follower = Follower { context: context.clone(), rules: rules.clone(), board, began: Instant::now() };
    context.tasks.spawn(follower.run());
}

/// The rules of each site.
pub(super) type Machines = BTreeMap<SiteName, Machine>;

/// Transitions of a site, in order.
pub(super) type Transitions = Vec<(SiteName, Vec<Transition>)>;

struct Follower {
    context: NodeContext,
    rules: Rules,
    board: Arc<Board>,
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
                self.board.rests(Some("the clock is not set"));
                sleep(TICK).await;
            }
            self.board.rests(None);
            let end = self.session(&committed, &mut backoff).await;
            let Err(error) = end;
            self.board.failed(&error.to_string());
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
        self.board.begins(&machines);
        carry_out(&self.context, &self.rules, &self.board, transitions).await?;
        backoff.reset();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let this = Arc::clone(self);
            let (stepped, position, transitions, more) =
                blocking(move || this.step(machines, read_up_to)).await?;
            (machines, read_up_to) = (stepped, position);
            carry_out(&self.context, &self.rules, &self.board, transitions).await?;
            self.board.count(&mut machines);
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
        let states =
            store.last(site, &told, &|| self.is_over())?.into_iter().filter_map(|(told, at, value)| {
                let (rule, series) = record::watched(&told, node)?;
                Some((rule, series, at, record::is_firing(&value)?))
            });
        // Room is for what fires before all else.
        let (firing, others): (Vec<_>, Vec<_>) = states.partition(|(.., is_firing)| *is_firing);
        let mut ended = Vec::new();
        for (rule, series, at, _) in firing {
            if !machine.recall(&rule, &series, at, true, now) {
                let at_ns = now.wall_ns.max(at.saturating_add(1));
                ended.push(Transition { rule, series, firing: false, at_ns, value: None });
            }
        }
        // What cleared so long ago says nothing of what is judged now.
        let oldest = now.wall_ns.saturating_sub(SILENT_NS_MAX);
        for (rule, series, at, _) in others.into_iter().filter(|(.., at, _)| *at >= oldest) {
            machine.recall(&rule, &series, at, false, now);
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
            if !out.is_empty() {
                transitions.push((record.stream.site.clone(), out));
            }
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
