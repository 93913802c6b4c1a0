//! Gateways of a site share its sensors: each says now and then how many it serves, as a point of the site, and one that has more than
//! another advises some to send there. Words travel as readings do, so who hears them is whom this gateway replicates with, however far
//! the way. What is advised, and to whom, is [`share`]'s affair; this module has the clock and the log.

mod share;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tidelog_node::{LOAD_METRIC, NodeContext};
use tidelog_record::{Batch, DeviceId, Series, SeriesError, SiteName, Value};
use tidelog_store::catalogue::{CatalogueError, MatchOp, Matcher, MatcherError};
use tidelog_store::{ScanError, Store};
use tokio::time::MissedTickBehavior;

use self::share::{Reason, Share, WORD_EVERY, Word};

/// The label of a word that names the gateway, by its address on the air.
const GATEWAY_LABEL: &str = "gateway";

/// What the border asks of the sharing; clones are the same.
#[derive(Clone)]
pub(crate) struct Sharing {
    context: NodeContext,
    share: Arc<Mutex<Share>>,
}

/// Why a word was not written or the others' were not read.
#[derive(Debug, thiserror::Error)]
enum WordError {
    #[error(transparent)]
    Series(#[from] SeriesError),
    #[error(transparent)]
    Batch(#[from] tidelog_record::BatchError),
    #[error(transparent)]
    Matcher(#[from] MatcherError),
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    #[error(transparent)]
    Scan(#[from] ScanError),
}

impl Sharing {
    /// Starts to share the sensors that `own`, this gateway's address on the air, serves. A node that replicates with nobody says
    /// nothing and advises nobody.
    pub fn start(context: &NodeContext, own: DeviceId) -> Self {
        let sharing = Self { context: context.clone(), share: Arc::new(Mutex::new(Share::new(own))) };
        let shown = Arc::clone(&sharing.share);
        context.status.section("sharing", move || lock(&shown).to_json());
        context.tasks.spawn(sharing.clone().run(own));
        sharing
    }

    /// A sensor was served; where it had better send from now on.
    pub fn served(&self, sensor: DeviceId) -> Option<DeviceId> {
        let advice = lock(&self.share).served(Instant::now(), sensor)?;
        let reason = match advice.reason {
            Reason::Load => "load",
            Reason::CutOff => "cut_off",
        };
        self.context.metrics.radio_advised.with_label_values(&[reason]).inc();
        tracing::debug!(%sensor, gateway = %advice.gateway, reason, "a sensor is advised to go to another gateway");
        Some(advice.gateway)
    }

    async fn run(self, own: DeviceId) {
        let shutdown = self.context.shutdown.clone();
        let mut words = tokio::time::interval(WORD_EVERY);
        words.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        let this = self.clone();
        let remembered = tokio::task::spawn_blocking(move || this.remember(own)).await;
        if let Err(reason) = told(remembered) {
            tracing::warn!(reason, "how many sensors there were is not known");
        }
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = words.tick() => {}
            }
            if !self.context.ways.are_wanted() {
                continue;
            }
            let sensors = lock(&self.share).review(Instant::now(), self.context.ways.are_lost());
            let this = self.clone();
            let exchanged = tokio::task::spawn_blocking(move || {
                this.say(own, sensors)?;
                this.hear()
            });
            match told(exchanged.await) {
                Ok(()) => failing = false,
                Err(reason) => {
                    if !failing {
                        tracing::warn!(reason, "sensors cannot be shared with other gateways; trying on");
                    }
                    failing = true;
                }
            }
        }
    }

    /// Reads what this gateway itself said before it was started.
    fn remember(&self, own: DeviceId) -> Result<(), WordError> {
        let words = last_words(&self.context.store, &self.context.site)?;
        if let Some(word) = words.iter().find(|word| word.gateway == own) {
            let age_ms = self.context.now_ms().abs_diff(word.at_ns.div_euclid(1_000_000));
            lock(&self.share).remember(Instant::now(), word.sensors, Duration::from_millis(age_ms));
        }
        Ok(())
    }

    /// Says how many sensors this gateway serves. A store that refuses has said so to everyone by itself.
    fn say(&self, own: DeviceId, sensors: u32) -> Result<(), WordError> {
        let now_ms = self.context.now_ms();
        let series = Series::new(LOAD_METRIC, [(GATEWAY_LABEL, own.to_string())])?;
        let word = vec![(now_ms.saturating_mul(1_000_000), Value::I64(i64::from(sensors)))];
        let batch = Batch { authored_ms: now_ms, series: vec![(series, word)], ..Batch::default() };
        let body = batch.encode()?;
        self.context.store.append(&self.context.site, body, |appended| {
            if let Err(error) = appended {
                tracing::debug!(%error, "how many sensors there are was not said");
            }
        });
        Ok(())
    }

    /// Reads what the others said last.
    fn hear(&self) -> Result<(), WordError> {
        let words = last_words(&self.context.store, &self.context.site)?;
        let (now, mut share) = (Instant::now(), lock(&self.share));
        for word in words {
            share.handle_word(now, word);
        }
        Ok(())
    }
}

fn lock(share: &Mutex<Share>) -> MutexGuard<'_, Share> {
    share.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why work on another thread failed, in words.
fn told(outcome: Result<Result<(), WordError>, tokio::task::JoinError>) -> Result<(), String> {
    outcome.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

fn last_words(store: &Store, site: &SiteName) -> Result<Vec<Word>, WordError> {
    let named = vec![Matcher::new("__name__", MatchOp::Equal, LOAD_METRIC)?];
    let series = store.select(site, &[named])?;
    let words = store.last(site, &series, &|| false)?;
    Ok(words.iter().filter_map(|(series, at_ns, value)| word(series, *at_ns, value)).collect())
}

/// A word as gateways say it; a sensor's reading of that name has the sensor's label too.
fn word(series: &Series, at_ns: i64, value: &Value) -> Option<Word> {
    let gateway = series.label(GATEWAY_LABEL).filter(|_| series.labels().count() == 1)?.parse().ok()?;
    let Value::I64(sensors) = value else { return None };
    Some(Word { gateway, at_ns, sensors: u32::try_from(*sensors).ok()? })
}

impl Share {
    /// The status section `sharing`.
    fn to_json(&self) -> Json {
        let now = Instant::now();
        let age = |said: Instant| now.saturating_duration_since(said).as_secs();
        let gateways: Vec<Json> = self
            .others()
            .map(|other| json!({"gateway": other.gateway.to_string(), "sensors": other.sensors, "said_s_ago": other.said.map(age)}))
            .collect();
        json!({"sensors": self.sensors(), "gateways": gateways})
    }
}
